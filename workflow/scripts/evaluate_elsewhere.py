"""Metrics of a run on the test set of another dataset."""

from job import job

with job(snakemake.log[0]):
    from skyweave.statistics.tables import write_table
    from skyweave.tasks.generalization import prediction_means
    from skyweave.tasks.reconstruction import evaluate_run

    predictions = snakemake.input.predictions
    metrics, _ = evaluate_run(predictions, name=snakemake.wildcards.run)
    write_table(snakemake.output.metrics, metrics)
    write_table(snakemake.output.means, prediction_means(predictions))
