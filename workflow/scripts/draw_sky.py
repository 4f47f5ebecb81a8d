"""Figures of a sky dataset."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_sky

    draw_sky(Path(snakemake.input[0]).parent, Path(snakemake.output.index).parent)
