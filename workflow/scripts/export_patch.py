"""One realization as FITS maps that pixell reads."""

from job import job

with job(snakemake.log[0]):
    from skyweave.tasks.simulation import export

    export(snakemake.output[0], snakemake.input, int(snakemake.wildcards.realization))
