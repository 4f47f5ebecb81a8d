"""Pieces of a mask, and of point sources, for the holes of a run."""

from job import job

with job(snakemake.log[0]):
    from skyweave.tasks.sky_holes import cut_holes

    params = snakemake.params
    cut_holes(
        snakemake.output[0],
        mask=snakemake.input.mask,
        sources=next(iter(snakemake.input.sources), None),
        **params.grid,
        count=params.holes["count"],
        area=params.holes["area"],
        inside=params.holes["margin"],
        seed=params.seed,
        name=snakemake.wildcards.run,
    )
