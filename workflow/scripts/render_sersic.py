"""One shard of images of Sérsic profiles."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import SersicDataset
    from skyweave.tasks.images import render_sersic

    render_sersic(
        snakemake.output[0],
        SersicDataset(**snakemake.params.dataset),
        range(*snakemake.params.realizations),
        seed=snakemake.params.seed,
        name=snakemake.wildcards.images,
    )
