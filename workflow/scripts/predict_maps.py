"""What a trained network makes of the user's own maps."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Prediction

    settings = Prediction(**snakemake.params.settings)
    network, maps, out = snakemake.input.network[0], snakemake.input.maps, snakemake.output[0]
    common = {
        "unit": settings.unit,
        "overwrite": True,
        "threads": snakemake.threads,
        "command": f"snakemake {out}",
    }
    if settings.mask is not None:
        from skyweave.tasks.sky_inpainting import inpaint_map

        inpaint_map(network, maps, snakemake.input.mask, out, **common)
    else:
        from skyweave.tasks.prediction import predict_maps

        predict_maps(
            *(network, maps, out),
            tapered=settings.tapered,
            convention=settings.convention,
            pixel_arcmin=settings.pixel_arcmin,
            **common,
        )
