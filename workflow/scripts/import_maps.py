"""One shard of maps that were made elsewhere."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import ImportedDataset
    from skyweave.tasks.imported import import_maps

    import_maps(
        snakemake.output[0],
        ImportedDataset(**snakemake.params.dataset),
        range(*snakemake.params.realizations),
        seed=snakemake.params.seed,
        name=snakemake.wildcards.imported,
    )
