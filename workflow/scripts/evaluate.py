"""Metrics, calibration and verdicts of a run, network beside classical methods."""

from job import job

with job(snakemake.log[0]):
    import pandas as pd

    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.calibration import calibrate_run
    from skyweave.tasks.reconstruction import evaluate_run

    name, files = snakemake.wildcards.run, snakemake.input
    metrics, verdicts = evaluate_run(
        files.predictions,
        name=name,
        validation=files.validation,
        theory=next(iter(files.theory), None),
    )
    coverage, curves, more = calibrate_run(
        files.predictions, name=name, validation=files.validation
    )
    write_table(snakemake.output.metrics, pd.concat([metrics, coverage], ignore_index=True))
    write_table(snakemake.output.calibration, curves)
    write_verdicts(snakemake.output.verdicts, [*verdicts, *more])
