"""Figures of a simulated dataset."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_spectra

    draw_spectra(snakemake.input[0], Path(snakemake.output.index).parent)
