"""The shard of images that were made elsewhere."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.config import ImagesDataset
    from skyweave.tasks.images import import_images

    import_images(
        snakemake.output[0],
        ImagesDataset(**snakemake.params.dataset),
        files=Path(snakemake.input[0]).parent,
        seed=snakemake.params.seed,
        name=snakemake.wildcards.images,
    )
