"""What a run is worth on each dataset that it is tested on, and what it makes of null maps."""

from job import job

with job(snakemake.log[0]):
    from skyweave.statistics.tables import read_table, write_table
    from skyweave.statistics.verdicts import write_verdicts
    from skyweave.tasks.generalization import generalize, prediction_means

    own, tests = snakemake.params.dataset, snakemake.params.tests
    others = dict(zip(tests, map(read_table, snakemake.input.means), strict=True))
    table, verdicts = generalize(
        snakemake.wildcards.run,
        own,
        dict(zip([own, *tests], snakemake.input.metrics, strict=True)),
        {own: prediction_means(snakemake.input.predictions), **others},
    )
    write_table(snakemake.output.table, table)
    write_verdicts(snakemake.output.verdicts, verdicts)
