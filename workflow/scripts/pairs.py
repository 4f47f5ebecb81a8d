"""Pairs of patches at two resolutions to train on."""

from job import job

with job(snakemake.log[0]):
    from skyweave.tasks.foregrounds import write_pairs

    write_pairs(
        snakemake.input.patches,
        snakemake.input.places,
        pairs=snakemake.output.pairs,
        split=snakemake.output.split,
        normalization=snakemake.output.normalization,
    )
