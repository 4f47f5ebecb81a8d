"""A template of polarized foregrounds, fetched and verified."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.sky.fetch import COSMOGLOBE, fetch

    fetch(COSMOGLOBE, Path(snakemake.output[0]).parent)
