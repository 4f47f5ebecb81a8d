"""Figures of a reconstruction run."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_reconstruction

    draw_reconstruction(Path(snakemake.input[0]).parent, Path(snakemake.output.index).parent)
