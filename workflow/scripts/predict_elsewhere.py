"""Predictions of a trained network on the test set of another dataset."""

from job import job

with job(snakemake.log[0]):
    from skyweave.tasks.reconstruction import predict_run

    predict_run(
        snakemake.input.network,
        shards=snakemake.input.shards,
        estimates=snakemake.input.estimates,
        split=snakemake.input.split[0],
        out=snakemake.output[0],
        threads=snakemake.threads,
        part="test",
    )
