"""What each run of a scan over settings is worth."""

from job import job

with job(snakemake.log[0]):
    from skyweave.statistics.tables import write_table
    from skyweave.tasks.scans import tabulate

    table = tabulate(
        snakemake.params.members,
        snakemake.input.metrics,
        snakemake.input.verdicts,
        fields=snakemake.params.fields,
    )
    write_table(snakemake.output[0], table)
