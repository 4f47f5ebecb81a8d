"""Power, correlation and verdicts of a decomposition, beside other runs and methods."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import DecompositionRun
    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.decomposition_scores import evaluate_run

    files, params = snakemake.input, snakemake.params
    metrics, curves, verdicts = evaluate_run(
        files.predictions,
        DecompositionRun(**params.run),
        name=snakemake.wildcards.run,
        beside=dict(zip(params.run["beside"], files.beside, strict=True)),
        tests=dict(zip(params.run["tests"], files.tests, strict=True)),
        plain=params.plain,
    )
    write_table(snakemake.output.metrics, metrics)
    write_table(snakemake.output.calibration, curves)
    write_verdicts(snakemake.output.verdicts, verdicts)
