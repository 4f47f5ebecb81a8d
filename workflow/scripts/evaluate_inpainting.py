"""Filled holes against the truth, the optimum and a smooth surface."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.config import InpaintingRun
    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.inpainting import cases
    from skyweave.tasks.inpainting_classes import tell_classes
    from skyweave.tasks.inpainting_scores import evaluate_run

    run, name = InpaintingRun(**snakemake.params.run), snakemake.wildcards.run
    files = {case: Path(snakemake.input.inpainted) / f"{case}.h5" for case in cases(run)}
    told, classes = tell_classes(
        files,
        run,
        name=name,
        shards=snakemake.input.shards,
        split=snakemake.input.split[0],
        covariance=snakemake.input.covariance[0],
        seed=snakemake.params.seed,
    )
    metrics, values, verdicts = evaluate_run(files, run, name=name, index=told)
    write_table(snakemake.output.metrics, metrics)
    write_table(snakemake.output.values, values)
    write_table(snakemake.output.classes, classes)
    write_verdicts(snakemake.output.verdicts, verdicts)
