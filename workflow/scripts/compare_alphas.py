"""Denoising runs with different shares of generated images, compared."""

from job import job

with job(snakemake.log[0]):
    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.alpha_gains import compare

    table, verdicts = compare(snakemake.params.runs, list(snakemake.input))
    write_table(snakemake.output.table, table)
    write_verdicts(snakemake.output.verdicts, verdicts)
