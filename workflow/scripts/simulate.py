"""One shard of simulated realizations."""

from job import job

with job(snakemake.log[0]):
    from skyweave.config import Channel, Effects, Grid
    from skyweave.tasks.simulation import write_realizations

    params = snakemake.params
    write_realizations(
        snakemake.output[0],
        snakemake.input.spectra,
        grid=Grid(**params.grid),
        effects=Effects(**params.effects),
        channels={name: Channel(**channel) for name, channel in params.channels.items()},
        fields=params.fields,
        points=params.points,
        seed=params.seed,
        dataset=snakemake.wildcards.cmb,
        realizations=range(*params.realizations),
        hfi=params.hfi[0] if params.hfi else None,
    )
