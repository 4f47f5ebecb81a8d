"""Figures of a generation run."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_generation

    draw_generation(
        Path(snakemake.input[0]).parent,
        Path(snakemake.output.index).parent,
        shards=snakemake.input.shards,
        split=snakemake.input.split[0],
        stretch=snakemake.input.stretch[0],
    )
