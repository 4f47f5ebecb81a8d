"""Classical estimates of a chunk of a simulated dataset's patches."""

from job import job

with job(snakemake.log[0]):
    from skyweave.tasks.estimates import estimate

    estimate(
        snakemake.output[0],
        calibration=snakemake.input.calibration,
        shards=snakemake.input.shards,
        split=snakemake.input.split,
        part=snakemake.wildcards.get("part", "test"),
    )
