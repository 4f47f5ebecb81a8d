"""HEALPix map of a sky dataset."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.config import HealpixMap
    from skyweave.sky import healpix, sfd

    settings = HealpixMap(**snakemake.params.map)
    if settings.source == "sfd98":
        folder = Path(snakemake.input[0]).parent
        sky_map = sfd.project(folder, settings.nside, settings.frequency_ghz)
    else:
        sky_map = healpix.read_map(
            snakemake.input[0],
            settings.nside,
            settings.frequency_ghz,
            column=settings.column,
            unit=settings.unit,
        )
    sky_map.write(snakemake.output[0])
