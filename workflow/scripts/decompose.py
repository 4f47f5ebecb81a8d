"""What a decomposition network makes of a test set."""

from job import job

with job(snakemake.log[0]):
    from skyweave.tasks.decomposition import predict_run

    predict_run(
        snakemake.input.network,
        shards=snakemake.input.shards,
        estimated=snakemake.input.get("estimates", ()),
        split=snakemake.input.split[0],
        out=snakemake.output[0],
        threads=snakemake.threads,
    )
