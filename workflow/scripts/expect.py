"""What theory expects of the classical estimates of a simulated dataset."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Effects
    from skyweave.tasks.theory import write_expected

    write_expected(
        snakemake.output[0],
        calibration=snakemake.input.calibration,
        effects=Effects(**snakemake.params.effects),
    )
