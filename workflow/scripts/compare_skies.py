"""How realizations of a full sky differ."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import FullSky, Patches
    from skyweave.statistics.tables import write_table
    from skyweave.tasks.full_sky import compare_skies

    table = compare_skies(
        snakemake.input.skies,
        large=snakemake.input.large,
        mask=snakemake.input.mask[0],
        spread=snakemake.output.spread,
        patches=Patches(**snakemake.params.patches),
        full_sky=FullSky(**snakemake.params.full_sky),
        name=snakemake.wildcards.run,
    )
    write_table(snakemake.output.realizations, table)
