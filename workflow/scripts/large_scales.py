"""The sky at low resolution, in tiles and whole."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import FullSky, Patches
    from skyweave.tasks.full_sky import write_large_scales

    params = snakemake.params
    write_large_scales(
        snakemake.input.map[0],
        next(iter(snakemake.input.template), None),
        tiles=snakemake.output.tiles,
        large=snakemake.output.large,
        high=snakemake.output.high,
        patches=Patches(**params.patches),
        full_sky=FullSky(**params.full_sky),
        fwhm_arcmin=params.fwhm_arcmin,
        dataset=params.dataset,
        truth=params.truth,
    )
