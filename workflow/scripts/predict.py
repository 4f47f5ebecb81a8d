"""Predictions of a trained network on the test set."""

from job import job

with job(snakemake.log[0]):
    from skyweave.tasks.reconstruction import predict_run

    predict_run(
        snakemake.input.network,
        shards=snakemake.input.shards,
        split=snakemake.input.split[0],
        out=snakemake.output[0],
        threads=snakemake.threads,
    )
