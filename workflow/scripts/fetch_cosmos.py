"""Stamps of COSMOS, fetched and verified."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.sky.fetch import COSMOS, fetch

    fetch(COSMOS, Path(snakemake.output[0]).parent)
