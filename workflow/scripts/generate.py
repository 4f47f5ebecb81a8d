"""Images made by a trained generator."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import GenerationRun
    from skyweave.tasks.generation import generate

    generate(
        GenerationRun(**snakemake.params.run),
        snakemake.input.network,
        samples=snakemake.output.samples,
        grids=snakemake.output.grids,
        state=snakemake.params.state,
        name=snakemake.wildcards.run,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
