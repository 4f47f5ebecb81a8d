"""Point sources of a sky dataset, filled in."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config.sky import PointSources
    from skyweave.tasks.sky import remove_sources

    remove_sources(
        snakemake.input.map,
        snakemake.output.cleaned,
        snakemake.output.sources,
        sources=PointSources(**snakemake.params.sources),
        fwhm_arcmin=snakemake.params.fwhm_arcmin,
        dataset=snakemake.wildcards.sky,
    )
