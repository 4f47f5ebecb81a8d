"""Inception's weights, fetched and verified."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.sky.fetch import INCEPTION, fetch

    fetch(INCEPTION, Path(snakemake.output[0]).parent)
