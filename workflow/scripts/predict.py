"""Predictions of a trained network on the test set and on the validation set."""

from job import job

with job(snakemake.log[0]):
    from skyweave.tasks.reconstruction import load_run, predict_run

    network = load_run(snakemake.input.network, snakemake.threads)
    for part, out in (
        ("test", snakemake.output.predictions),
        ("validation", snakemake.output.validation),
    ):
        predict_run(
            network,
            shards=snakemake.input.shards,
            estimates=snakemake.input.estimates,
            split=snakemake.input.split[0],
            out=out,
            threads=snakemake.threads,
            part=part,
        )
