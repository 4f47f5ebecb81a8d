"""Patches of a sky dataset."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Patches, Split
    from skyweave.tasks.sky import cut_patches

    cut_patches(
        snakemake.input.map,
        snakemake.input.mask,
        snakemake.output.patches,
        snakemake.output.places,
        patches=Patches(**snakemake.params.patches),
        split=Split(**snakemake.params.split),
        fwhm_arcmin=snakemake.params.fwhm_arcmin,
        seed=snakemake.params.seed,
        dataset=snakemake.wildcards.sky,
    )
