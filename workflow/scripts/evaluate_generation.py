"""Generated images against real ones."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import ImagesDataset, SersicDataset
    from skyweave.config.galaxies import Metrics
    from skyweave.statistics.tables import write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.generation_scores import evaluate_run

    dataset = snakemake.params.dataset
    kinds = {"sersic": SersicDataset, "images": ImagesDataset}
    metrics, morphology, spectra, verdicts = evaluate_run(
        snakemake.wildcards.run,
        snakemake.params.fields,
        Metrics(**snakemake.params.metrics),
        kinds[dataset["kind"]](**dataset),
        samples=snakemake.input.samples,
        shards=snakemake.input.shards,
        split=snakemake.input.split[0],
        stretch=snakemake.input.stretch[0],
        inception=next(iter(snakemake.input.inception), None),
        measured=snakemake.params.measured,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
    write_table(snakemake.output.metrics, metrics)
    write_table(snakemake.output.morphology, morphology)
    write_table(snakemake.output.spectra, spectra)
    write_verdicts(snakemake.output.verdicts, verdicts)
