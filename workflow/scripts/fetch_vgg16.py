"""VGG16's weights, fetched and verified."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.sky.fetch import VGG16, fetch

    fetch(VGG16, Path(snakemake.output[0]).parent)
