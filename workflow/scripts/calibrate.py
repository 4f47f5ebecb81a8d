"""Calibration of the classical estimates of a simulated dataset."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Estimates
    from skyweave.tasks.estimates import calibrate

    calibrate(
        snakemake.output[0],
        settings=Estimates(**snakemake.params.settings),
        channel=snakemake.params.channel,
        shards=snakemake.input.shards,
        split=snakemake.input.split,
        spectra=snakemake.input.spectra,
        hfi=next(iter(snakemake.params.hfi), None),
    )
