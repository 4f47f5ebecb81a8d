"""What makes each run again: its part of the study, and the command."""

from pathlib import Path

from job import job

with job(snakemake.log[0]):
    from skyweave.config import parse
    from skyweave.tasks.reproduce import record

    folders = {Path(path).parent.name: Path(path).parent for path in snakemake.output.configs}
    record(parse(snakemake.params.study), folders, snakefile=snakemake.params.snakefile)
