"""A test set with holes, filled by a network and by what it is held against."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import InpaintingRun
    from skyweave.tasks.inpainting import inpaint_run

    inpaint_run(
        InpaintingRun(**snakemake.params.run),
        snakemake.input.network,
        shards=snakemake.input.shards,
        split=snakemake.input.split[0],
        covariance=snakemake.input.covariance[0],
        pieces=next(iter(snakemake.input.holes), None),
        out=snakemake.output[0],
        threads=snakemake.threads,
    )
