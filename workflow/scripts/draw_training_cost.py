"""Figure of what the training of runs on one dataset bought."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.report.figures import draw_training_cost

    folders = [Path(path).parent for path in snakemake.input.metrics]
    draw_training_cost(
        {folder.name: folder for folder in folders},
        Path(snakemake.output.index).parent,
        ell=tuple(snakemake.params.ell),
    )
