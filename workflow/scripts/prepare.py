"""Split and normalization of a simulated dataset."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Split
    from skyweave.tasks.simulation import prepare

    prepare(
        list(snakemake.input),
        snakemake.output.split,
        snakemake.output.normalization,
        split=Split(**snakemake.params.split),
        seed=snakemake.params.seed,
        dataset=snakemake.wildcards.cmb,
    )
