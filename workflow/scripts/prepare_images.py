"""Split and stretch of a dataset of images."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Split, Stretch
    from skyweave.tasks.images import prepare_images

    prepare_images(
        list(snakemake.input),
        split_out=snakemake.output.split,
        normalization_out=snakemake.output.normalization,
        stretch_out=snakemake.output.stretch,
        split=Split(**snakemake.params.split),
        stretch=Stretch(**snakemake.params.stretch),
        seed=snakemake.params.seed,
        dataset=snakemake.wildcards.images,
    )
