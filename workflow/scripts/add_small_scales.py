"""Small scales of the test set, by a network and by its baseline."""

from job import job

with job(snakemake.log[0]):
    from skyweave.tasks.foregrounds import predict_run

    predict_run(
        snakemake.input.network,
        pairs=snakemake.input.pairs[0],
        split=snakemake.input.split[0],
        out=snakemake.output[0],
        threads=snakemake.threads,
    )
