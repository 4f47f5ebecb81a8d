"""HEALPix map of a sky dataset."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.sky import healpix, sfd

    settings = snakemake.params.map
    resolution = settings["nside"], settings["frequency_ghz"]
    if settings["source"] == "sfd98":
        sky_map = sfd.project(Path(snakemake.input[0]).parent, *resolution)
    else:
        names = {key: settings[key] for key in ("column", "unit")}
        sky_map = healpix.read_map(
            snakemake.input[0],
            *resolution,
            **names,
            needs_beam=snakemake.params.needs_beam,
            section=f"datasets.{snakemake.wildcards.sky}.map",
        )
    sky_map.write(snakemake.output[0])
