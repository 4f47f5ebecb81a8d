"""Covariance of a channel, of a simulated dataset from theory, else from its training set."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Channel, Effects, Grid
    from skyweave.tasks.covariance import measure_covariance, write_covariance

    if snakemake.rule == "covariance":
        params = snakemake.params
        write_covariance(
            snakemake.output[0],
            snakemake.input.spectra,
            grid=Grid(**params.grid),
            effects=Effects(**params.effects),
            channel=Channel(**params.channel) if params.channel is not None else None,
            hfi=next(iter(params.hfi), None),
        )
    else:
        measure_covariance(
            snakemake.output[0],
            snakemake.input.shards,
            snakemake.input.split,
            channel=snakemake.wildcards.channel,
        )
