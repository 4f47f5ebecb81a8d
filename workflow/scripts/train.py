"""Training of a run; resumes from its state if an earlier attempt was cut short."""

import os

from job import job

with job(snakemake.log[0]) as console:
    from skyweave.tasks.training import TASKS, train_run

    # Only a scheduler ends a job at its `runtime`; a laptop lets it go on. Two minutes are for the
    # start before training and for writing the network after it.
    limit_s = 60 * (snakemake.resources.runtime - 2)

    def given(*names):
        return {name: files[0] for name in names if (files := snakemake.input[name])}

    train_run(
        TASKS[snakemake.params.run["task"]][0](**snakemake.params.run),
        shards=snakemake.input.shards,
        split=snakemake.input.split[0],
        normalization=snakemake.input.normalization[0],
        estimates=snakemake.input.estimates,
        calibration=given("calibration").get("calibration"),
        networks=given("after", "start"),
        files=given("covariance", "features", "holes", "stretch", "samples"),
        network=snakemake.output.network,
        history=snakemake.output.history,
        sweep=snakemake.output.sweep,
        state=snakemake.params.state,
        name=snakemake.wildcards.run,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        deadline_s=limit_s if "SLURM_JOB_ID" in os.environ else None,
        terminal=console,
    )
