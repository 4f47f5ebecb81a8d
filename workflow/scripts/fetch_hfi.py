"""Planck HFI's instrument model, fetched and verified."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.sky.fetch import HFI_RIMO, fetch

    fetch(HFI_RIMO, Path(snakemake.output[0]).parent)
