"""Restored images against the truth."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import DenoisingRun
    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.denoising_scores import evaluate_run

    metrics, verdicts = evaluate_run(
        DenoisingRun(**snakemake.params.run),
        snakemake.wildcards.run,
        snakemake.input.network,
        shards=snakemake.input.shards,
        split=snakemake.input.split[0],
        examples=snakemake.output.examples,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
    write_table(snakemake.output.metrics, metrics)
    write_verdicts(snakemake.output.verdicts, verdicts)
