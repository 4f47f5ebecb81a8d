"""Angular power spectra of a dataset."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Spectra
    from skyweave.simulation.spectra import compute

    table = compute(Spectra(**snakemake.params.spectra))
    table.write(snakemake.output[0])
