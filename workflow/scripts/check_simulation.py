"""Simulated fields against the spectra that they were drawn from."""

from job import job

with job(snakemake.log[0]):
    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.simulation import check

    metrics, verdicts = check(
        snakemake.input.spectra, snakemake.input.shards, dataset=snakemake.wildcards.cmb
    )
    write_table(snakemake.output.metrics, metrics)
    write_verdicts(snakemake.output.verdicts, verdicts)
