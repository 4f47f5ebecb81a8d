"""One full sky with small scales."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import FullSky
    from skyweave.tasks.full_sky import make_sky

    make_sky(
        snakemake.input.network,
        tiles=snakemake.input.tiles,
        large=snakemake.input.large,
        mask=snakemake.input.mask[0],
        out=snakemake.output[0],
        full_sky=FullSky(**snakemake.params.full_sky),
        realization=int(snakemake.wildcards.realization),
        run=snakemake.wildcards.run,
        threads=snakemake.threads,
    )
