"""Mask of a sky dataset."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Mask
    from skyweave.sky.healpix import SkyMap, write_mask
    from skyweave.sky.mask import planck_like
    from skyweave.statistics.tables import write_table

    mask, steps = planck_like(SkyMap.read(snakemake.input[0]), Mask(**snakemake.params.mask))
    write_mask(snakemake.output.mask, mask)
    write_table(snakemake.output.steps, steps)
