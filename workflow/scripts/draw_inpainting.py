"""Figures of an inpainting run."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_inpainting

    draw_inpainting(Path(snakemake.input[0]).parent, Path(snakemake.output.index).parent)
