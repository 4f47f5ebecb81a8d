"""Spectra and Minkowski functionals of sky patches, with their Gaussian control."""

from job import job

with job(snakemake.log[0]):
    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.sky import judge_patches

    found = judge_patches(
        snakemake.input.patches,
        snakemake.input.places,
        seed=snakemake.params.seed,
        dataset=snakemake.wildcards.sky,
    )
    write_table(snakemake.output.spectra, found.spectra)
    write_table(snakemake.output.minkowski, found.minkowski)
    write_table(snakemake.output.minkowski_sigma, found.minkowski_sigma)
    write_table(snakemake.output.overlap, found.overlap)
    write_verdicts(snakemake.output.verdicts, found.verdicts)
