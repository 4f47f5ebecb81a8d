"""One shard of simulated realizations."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Effects, Grid
    from skyweave.tasks.simulation import write_realizations

    write_realizations(
        snakemake.output[0],
        snakemake.input[0],
        grid=Grid(**snakemake.params.grid),
        effects=Effects(**snakemake.params.effects),
        fields=snakemake.params.fields,
        seed=snakemake.params.seed,
        dataset=snakemake.wildcards.cmb,
        realizations=range(*snakemake.params.realizations),
    )
