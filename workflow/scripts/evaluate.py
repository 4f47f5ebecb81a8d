"""Metrics and verdicts of a run, network beside baseline."""

from job import job

with job(snakemake.log[0]):
    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.reconstruction import evaluate_run

    metrics, verdicts = evaluate_run(snakemake.input.predictions, name=snakemake.wildcards.run)
    write_table(snakemake.output.metrics, metrics)
    write_verdicts(snakemake.output.verdicts, verdicts)
