"""Statistics and verdicts of small scales, network beside baseline."""

from job import job

with job(snakemake.log[0]):
    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.foregrounds import evaluate_run

    found = evaluate_run(
        snakemake.input.predictions,
        pairs=snakemake.input.pairs[0],
        split=snakemake.input.split[0],
        name=snakemake.wildcards.run,
        seed=snakemake.params.seed,
    )
    write_table(snakemake.output.metrics, found.metrics)
    write_table(snakemake.output.curves, found.curves)
    write_table(snakemake.output.scores, found.scores)
    write_table(snakemake.output.nearest, found.nearest)
    write_verdicts(snakemake.output.verdicts, found.verdicts)
