"""Figures of a full sky."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_full_sky

    out = Path(snakemake.output.index).parent
    draw_full_sky(out.parent, snakemake.input.mask[0], out)
