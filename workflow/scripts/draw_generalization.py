"""Figure of a run on all its test sets."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_generalization

    names = [snakemake.params.dataset, *snakemake.params.tests]
    metrics = dict(zip(names, map(Path, snakemake.input), strict=True))
    draw_generalization(metrics, Path(snakemake.output.index).parent)
