"""Figure of what generated images in the training buy."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_alphas

    draw_alphas(Path(snakemake.input[0]).parent, Path(snakemake.output.index).parent)
