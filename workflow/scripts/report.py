"""The report that people read."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.config import parse
    from skyweave.tasks.study import build

    build(parse(snakemake.params.study), Path(snakemake.output[0]))
