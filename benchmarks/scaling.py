"""`python -m benchmarks.scaling`: docs/scaling.md, what large studies cost and how they pass.

From the benchmark files of the quick study and of benchmarks/scaling.yaml, and from
results/benchmarks.json; Snakemake plans the largest study here. `make scaling` runs it all but
the quick study and `make bench`.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import costs, extrapolate, jobs, plan, record
from benchmarks import scaling_text as words
from benchmarks.extrapolate import (
    NODES,
    OVERSAMPLE,
    PEAKS,
    QUEUES,
    SBATCH_S,
    SCATTER,
    SHARD_SIZES,
    SHARE,
    START_S,
    Measured,
    Passage,
)
from skyweave import config
from skyweave.config import CmbDataset, Config, ReconstructionRun
from skyweave.errors import UserError
from skyweave.files import write_text

PAGE = Path("docs/scaling.md")
#: Threads that `predict` asks for with networks of published sizes.
_THREADS = 8


def page(
    measured: Measured,
    graph: Mapping[str, Sequence[str]],
    cheap: Sequence[Passage],
    dear: Sequence[Passage],
    start_s: float,
) -> str:
    """The page, Markdown."""
    parts = [words.HEAD, _jobs(graph), _measured(measured), _paper(measured)]
    parts += [_passages(measured, cheap, dear, start_s), words.SETTINGS, _limits(measured)]
    machine = textwrap.fill(record.machine(), 100)
    return "".join([*parts, f"\n## Machine\n\n{machine}\n"])


def _table(head: str, rows: Iterable[Sequence[object]]) -> str:
    """A table; a column whose name ends in `>` is aligned to the right."""
    names = [name.strip() for name in head.split("|")]
    lines = [
        "| " + " | ".join(name.removesuffix(">").strip() for name in names) + " |",
        "|" + "|".join("--:" if name.endswith(">") else "---" for name in names) + "|",
    ]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(["", *lines, ""])


def _cell(value: object) -> str:
    """Three digits of a fraction; whole numbers in groups."""
    if isinstance(value, float):
        return f"{float(f'{value:.3g}'):,.12g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _jobs(graph: Mapping[str, Sequence[str]]) -> str:
    paper = jobs.job_counts(config.load(extrapolate.PAPER))
    million = jobs.job_counts(config.load(extrapolate.MILLION))
    rows = [
        (rule, ", ".join(graph[rule]) or "-", count, million.get(rule, 0))
        for rule, count in paper.items()
    ]
    rows.append(("total", "", sum(paper.values()), sum(million.values())))
    return words.GRAPH + _table("rule | reads from | paper > | million >", rows)


def _measured(measured: Measured) -> str:
    columns = ["jobs", "seconds", "longest_s", "cpu_s", "memory_mb"]
    rows = [
        (rule, int(row.jobs), *map(float, row[columns[1:]]))
        for rule, row in measured.table.iterrows()
    ]
    text = words.MEASURED + _table(
        "rule | jobs > | s > | longest, s > | CPU, s > | most MB >", rows
    )
    text += words.LINES.format(pixels=measured.pixels, fields=measured.fields)
    lines = [
        (rule, line.start_s, 1e3 * line.each_s, 1 / line.each_s)
        for rule, line in measured.lines.items()
    ]
    text += _table("rule | start, s > | ms a realization > | realizations a second >", lines)
    sizes = [
        (each["name"].removeprefix("simulation_cost_") + "²", float(each["ours"]))
        for each in measured.entries
        if each["name"].startswith("simulation_cost_")
    ]
    return text + words.PATCHES + _table("pixels > | ms a patch >", sizes)


def _paper(measured: Measured) -> str:
    study = config.load(extrapolate.PAPER)
    (_, run), *_ = jobs.reconstructions(study).items()
    counts = jobs.job_counts(study)
    seconds = extrapolate.core_seconds(measured, study)
    rows = [(rule, counts[rule], each / 3600, source) for rule, (each, source) in seconds.items()]
    rows.append(("total", sum(counts[r] for r in seconds), sum(r[2] for r in rows), ""))
    text = words.PAPER.format(
        realizations=sum(each.realizations for each in jobs.simulated(study).values()),
        gmac=costs.multiply_adds(costs.network_of(study, run)) / 1e9,
    )
    text += _table("rule | jobs > | core-hours > | from", rows)
    text += words.PAPER_LAW.format(
        fields=measured.fields,
        epochs=run.training.epochs,
        cores=measured.cores,
        rate=measured.rate,
        share=SHARE,
        first=costs.FIRST_STEPS,
    )
    return text + _training(measured, {"paper": study, "million": config.load(extrapolate.MILLION)})


def _training(measured: Measured, studies: Mapping[str, Config]) -> str:
    devices = {f"CPU, {measured.cores} cores, measured rate": measured.rate}
    devices |= {
        f"{name}, {SHARE:.0%} of {peak / 1e12:g}e12 a second, **assumed**": SHARE * peak
        for name, peak in PEAKS.items()
    }
    rows = []
    for name, study in studies.items():
        epochs = [
            (extrapolate.epoch(study, run), run.training.epochs)
            for run in jobs.reconstructions(study).values()
        ]
        total = sum(work * count for work, count in epochs)
        for device, rate in devices.items():
            cores = measured.cores if device.startswith("CPU") else 1
            longest = max(work for work, _ in epochs) / rate
            rows.append(
                [name, len(epochs), f"{total:.2e}", device, longest, cores * total / rate / 3600]
            )
    head = "study | runs > | operations > | device, its rate | s an epoch > | core- or GPU-hours >"
    return _table(head, rows)


def _passages(
    measured: Measured, cheap: Sequence[Passage], dear: Sequence[Passage], start_s: float
) -> str:
    study = config.load(extrapolate.MILLION)
    ((name, dataset),) = jobs.simulated(study).items()
    (run,) = jobs.reconstructions(study).values()
    size = bytes_of(dataset.realizations, dataset.grid.pixels, len(dataset.fields)) / 1e9
    text = words.MILLION.format(
        fields=len(dataset.fields),
        gigabytes=size,
        start=start_s,
        nodes=NODES,
        rate=2 / SBATCH_S,
        sbatch=SBATCH_S,
        slurm=START_S,
        scatter=SCATTER,
    )
    text += _passage_table(cheap, size)
    pixels = OVERSAMPLE * dataset.grid.pixels
    ratio = costs.patch_ms(measured.entries, pixels) / costs.patch_ms(
        measured.entries, measured.pixels
    )
    text += words.DEAR.format(oversample=OVERSAMPLE, pixels=pixels, ratio=ratio)
    text += _passage_table(dear, size)
    chosen = [next(p for p in each if p.shard_size == dataset.shard_size) for each in (cheap, dear)]
    train_gb = size * dataset.split.train
    gpu_s = extrapolate.epoch(study, run) / (SHARE * max(PEAKS.values()))
    lines = {
        rule: extrapolate.line_of(measured, study, name, rule)
        for rule in ("simulate", "prepare", "check_simulation")
    }
    return text + words.ARGUMENT.format(
        least=QUEUES[0],
        hours=lines["simulate"].each_s * dataset.realizations / 3600,
        cheap=chosen[0].job_s,
        dear=chosen[1].job_s,
        gb=size * dataset.shard_size / dataset.realizations,
        prepare=lines["prepare"].seconds(dataset.realizations) / 60,
        check=lines["check_simulation"].seconds(dataset.realizations) / 60,
        epoch_gb=train_gb,
        feed=1e3 * train_gb / gpu_s,
    )


def _passage_table(passages: Sequence[Passage], gigabytes: float) -> str:
    least, most = QUEUES
    head = (
        "shard_size > | jobs > | files > | GB a file > | s a job > | of it making maps > | "
        "plan, CPU s > | plan, MB > | submissions/s > | questions/min > | most queued > | "
        f"min, jobs: {least} > | min, jobs: {most} >"
    )
    rows = []
    for each in passages:
        slow, fast = each.outcomes[least], each.outcomes[most]
        row: list[object] = [each.shard_size, each.jobs, 4 * each.jobs, gigabytes / each.jobs]
        row += [each.job_s, f"{each.useful:.0%}", each.planned.cpu_s, each.planned.memory_mb]
        row += [each.jobs / fast.submitted_s, 60 * fast.polls / fast.seen_s, fast.most_queued]
        rows.append([*row, slow.seen_s / 60, fast.seen_s / 60])
    return _table(head, rows)


def bytes_of(maps: int, pixels: int, fields: int = 1) -> int:
    """Bytes of float32 maps of pixels²."""
    return 4 * maps * pixels**2 * fields


def _limits(measured: Measured) -> str:
    studies = [config.load(path) for path in (extrapolate.PAPER, extrapolate.MILLION)]
    runs = [next(iter(jobs.reconstructions(study).values())) for study in studies]
    made = [jobs.dataset_of(study, run) for study, run in zip(studies, runs, strict=True)]
    held = [_held(dataset, run) for dataset, run in zip(made, runs, strict=True)]
    forward = [extrapolate.forward(*each) for each in zip(studies, runs, strict=True)]
    cores = measured.cores / _THREADS / 60
    minutes: dict[str, Sequence[object]] = {
        "`estimate`": [extrapolate.longest_estimate(measured, study) / 60 for study in studies],
        "`predict`": [cores * work / measured.rate for work in forward],
        "`evaluate`": [
            extrapolate.evaluation(measured, *each) / 60 for each in zip(studies, runs, strict=True)
        ],
    }
    law = {
        "`estimate`": "by the pixels, the steps and `shard_size`",
        "`predict`": "by the operations",
        "`evaluate`": "by the pixels",
    }
    what = {
        "`estimate`": "minutes, by the quick study's; `shard_size` patches a job",
        "`predict`": "minutes, at the measured rate of a core",
        "`evaluate`": "minutes, by the quick study's",
    }
    rows: list[list[object]] = [
        ["`simulate`", "nothing: it writes map by map", "", "", ""],
        [
            "`prepare`, `check_simulation`, `calibrate`, `estimate`, `train`, `predict`",
            "shards that are read; the last 128 used stay open",
            *(len(dataset.shards) for dataset in made),
            "",
        ],
        ["`calibrate`, `estimate`", "nothing in memory: so many maps at a time", "", "", ""],
        ["`train`", "nothing in memory: above 1 GB it reads each batch", "", "", ""],
        *(
            [f"`{rule}`", parts, *(each[rule] for each in held), "twice that or more, and 3,000"]
            for rule, parts in (
                ("predict", "MB: the whole test set, then the validation set"),
                ("evaluate", "MB: both sets, a field at a time"),
            )
        ),
        *([rule, what[rule], *values, law[rule]] for rule, values in minutes.items()),
    ]
    head = "rule | what grows | paper > | million > | asked for"
    return words.LIMITS + _table(head, rows) + words.ADVICE


def _held(dataset: CmbDataset, run: ReconstructionRun) -> dict[str, float]:
    """MB of the maps that `predict` and `evaluate` hold at once, the least that they need."""
    counts, pixels = jobs.split_counts(dataset), dataset.grid.pixels
    estimates = [
        name
        for target in run.targets
        for method in ("wiener", "quadratic", "iterative")
        if (name := f"{target.partition('_')[0]}_{method}") in dataset.estimated
    ]
    # Inputs, truth and prediction; E of the observed Q and U, these two, and the other estimates.
    maps = len(run.inputs) + (3 if run.network.uncertainty else 2) * len(run.targets)
    maps += (3 if "e_prim" in run.targets else 0) + len(estimates)
    # Of a field, for each part: the truth, a method's maps, and these regressed on the truth.
    return {
        "predict": bytes_of(maps * max(counts["test"], counts["validation"]), pixels) / 1e6,
        "evaluate": bytes_of(3 * costs.judged(dataset), pixels) / 1e6,
    }


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    try:
        measured = extrapolate.read(options.results)
        graph = plan.rule_graph(extrapolate.PAPER)
        passages = extrapolate.passages(measured, SHARD_SIZES)
        write_text(options.page, page(measured, graph, *passages))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
