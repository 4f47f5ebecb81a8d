"""Spectra of a full sky, and verdicts."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import FullSky, Patches
    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.full_sky import judge_sky

    spectra, verdicts = judge_sky(
        snakemake.input.sky,
        large=snakemake.input.large,
        high=snakemake.input.high,
        mask=snakemake.input.mask[0],
        patches=Patches(**snakemake.params.patches),
        full_sky=FullSky(**snakemake.params.full_sky),
        name=snakemake.wildcards.run,
    )
    write_table(snakemake.output.spectra, spectra)
    write_verdicts(snakemake.output.verdicts, verdicts)
