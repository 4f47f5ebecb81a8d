"""What a trained network makes of the user's own maps."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Prediction
    from skyweave.tasks.prediction import predict_maps

    settings = Prediction(**snakemake.params.settings)
    predict_maps(
        snakemake.input.network[0],
        snakemake.input.maps,
        snakemake.output[0],
        tapered=settings.tapered,
        unit=settings.unit,
        convention=settings.convention,
        pixel_arcmin=settings.pixel_arcmin,
        overwrite=True,
        threads=snakemake.threads,
        command=f"snakemake {snakemake.output[0]}",
    )
