"""Figures of a decomposition run."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_decomposition

    draw_decomposition(Path(snakemake.input[0]).parent, Path(snakemake.output.index).parent)
