"""The SFD98 dust map, fetched and verified."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.sky.fetch import SFD98, fetch

    fetch(SFD98, Path(snakemake.output[0]).parent)
