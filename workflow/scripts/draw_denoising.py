"""Figures of a denoising run."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_denoising

    draw_denoising(
        Path(snakemake.input[0]).parent,
        Path(snakemake.output.index).parent,
        stretch=snakemake.input.stretch[0],
    )
