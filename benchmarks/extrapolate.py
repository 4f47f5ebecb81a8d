"""What a study would cost and how it would pass through a cluster, from what was measured."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from benchmarks import costs, jobs, plan, record
from benchmarks.costs import Line
from benchmarks.plan import Cluster, Outcome, Planned
from skyweave import config
from skyweave.config import Config, ReconstructionRun
from skyweave.errors import UserError
from skyweave.report.cost import cost

QUICK = plan.ROOT / "config" / "config.yaml"
PAPER = plan.ROOT / "config" / "studies" / "resunet_cmb.yaml"
MEASURED = plan.ROOT / "benchmarks" / "scaling.yaml"
MILLION = plan.ROOT / "benchmarks" / "million.yaml"

SHARD_SIZES = (100, 1000, 5000, 10000, 50000)
QUEUES = (100, 1000)

#: Assumed, not measured: a call of sbatch, of which the executor runs two at a time; Slurm's
#: start of a job on a free node; and the scatter of durations.
SBATCH_S = 0.2
START_S = 5.0
SCATTER = 0.2
NODES = 1000
#: Published peaks of dense bfloat16 arithmetic, operations a second, and the share of them that a
#: training is assumed to reach.
PEAKS = {"A100": 312e12, "H100": 989e12}
SHARE = 0.2
#: How finely the dearer of the two studies simulates.
OVERSAMPLE = 4


@dataclass(frozen=True)
class Measured:
    """What was measured, of which all else is computed."""

    quick: Config
    #: By rule, of the quick study.
    table: pd.DataFrame
    entries: list[dict]
    #: By rule, of benchmarks/scaling.yaml: its cost with the number of realizations.
    lines: dict[str, Line]
    #: Fields of a realization, and pixels a side of what is simulated for it, there.
    fields: int
    pixels: int
    spectra_s: float
    #: Operations a second of the quick study's training.
    rate: float
    #: Of this machine, on which it was trained.
    cores: int


def read(results: Path) -> Measured:
    """Read what was measured; raises `UserError` for what is missing."""
    table, entries = cost(results), record.read(results / "benchmarks.json")
    for rule in jobs.job_counts(config.load(PAPER)):
        if rule not in (*table.index, "all"):
            where = results / "benchmarks" / rule
            raise UserError(where, "benchmark files of the quick study", "none")
    study, quick = config.load(MEASURED), config.load(QUICK)
    folder = results / "scaling"
    rules = ("simulate", "prepare", "check_simulation")
    lines = {rule: costs.measured_line(folder, study, rule) for rule in rules}
    (name, run), *_ = jobs.reconstructions(quick).items()
    seconds = costs.epoch_seconds(results, name)
    network = costs.multiply_adds(costs.network_of(quick, run))
    counts = jobs.split_counts(jobs.dataset_of(quick, run))
    dataset = next(iter(jobs.simulated(study).values()))
    return Measured(
        quick=quick,
        table=table,
        entries=entries,
        lines=lines,
        fields=len(dataset.fields),
        pixels=costs.simulated_pixels(dataset),
        spectra_s=float(cost(folder)["longest_s"]["spectra"]),
        rate=costs.epoch_operations(network, counts) / seconds,
        cores=len(os.sched_getaffinity(0)),
    )


def line_of(measured: Measured, study: Config, dataset: str, rule: str) -> Line:
    """A rule's cost for a dataset: with the pixels that are simulated and the fields kept."""
    made = jobs.simulated(study)[dataset]
    here, there = costs.simulated_pixels(made), measured.pixels
    pixels = costs.patch_ms(measured.entries, here) / costs.patch_ms(measured.entries, there)
    kept = (made.grid.pixels / there) ** 2
    fields = len(made.fields) / measured.fields
    factor = {"simulate": pixels * fields, "prepare": kept * fields, "check_simulation": kept}
    return measured.lines[rule].scaled(factor[rule])


def core_seconds(measured: Measured, study: Config) -> dict[str, tuple[float, str]]:
    """Core-seconds of each rule of a study but its training, and where the number comes from."""
    made = jobs.simulated(study)
    found: dict[str, tuple[float, str]] = {}
    for rule in jobs.job_counts(study):
        if rule in ("train", "all"):
            continue
        if rule in measured.lines:
            lines = {name: line_of(measured, study, name, rule) for name in made}
            parts = {
                name: [len(shard) for shard in each.shards]
                if rule == "simulate"
                else [each.realizations]
                for name, each in made.items()
            }
            total = sum(lines[name].seconds(n) for name, each in parts.items() for n in each)
            found[rule] = total, "measured at two sizes; with realizations, pixels and fields"
        elif rule == "spectra":
            sets = jobs.spectra_sets(study)
            found[rule] = sets * measured.spectra_s, "measured; with the sets of parameters"
        elif rule == "predict":
            work = sum(forward(study, run) for run in jobs.reconstructions(study).values())
            found[rule] = (
                work / measured.rate * measured.cores,
                "operations, at the measured rate of the quick study's training on the CPU",
            )
        else:
            share = costs.work(study, rule) / max(costs.work(measured.quick, rule), 1)
            law = f"quick study; with the {costs.law(rule)}"
            found[rule] = measured.table.cpu_s[rule] * share, law
    return found


def longest_estimate(measured: Measured, study: Config) -> float:
    """Seconds of the longest job of `estimate`, with the work that it has."""
    quick = measured.table.cpu_s["estimate"] / costs.work(measured.quick, "estimate")
    return quick * max(costs.estimate_work(each) * n for each, n in jobs.estimate_sizes(study))


def evaluation(measured: Measured, study: Config, run: ReconstructionRun) -> float:
    """Seconds of the evaluation of a run, by the pixels that it is judged on."""
    quick = measured.table.cpu_s["evaluate"] / costs.work(measured.quick, "evaluate")
    return quick * costs.judged_pixels(jobs.dataset_of(study, run))


def forward(study: Config, run: ReconstructionRun) -> float:
    """Operations of the predictions of a run: forward, on the parts that it is judged on."""
    count = costs.judged(jobs.dataset_of(study, run))
    return 2.0 * costs.multiply_adds(costs.network_of(study, run)) * count


def epoch(study: Config, run: ReconstructionRun) -> float:
    """Operations of an epoch of a run."""
    counts = jobs.split_counts(jobs.dataset_of(study, run))
    return costs.epoch_operations(costs.multiply_adds(costs.network_of(study, run)), counts)


@dataclass(frozen=True)
class Passage:
    """A million realizations in shards of one size: how Snakemake plans them and they pass."""

    shard_size: int
    jobs: int
    job_s: float
    #: Share of a job's time that makes realizations.
    useful: float
    planned: Planned
    #: By the number of jobs that Snakemake keeps in Slurm's queue.
    outcomes: dict[int, Outcome]


def million(shard_size: int, oversample: int = 1) -> dict:
    """The settings of benchmarks/million.yaml with another size of shard."""
    values = config.read_yaml(MILLION)
    dataset = values["datasets"]["million"]
    dataset["shard_size"] = shard_size
    dataset["grid"]["oversample"] = oversample
    return values


def passage(
    measured: Measured, values: dict, planned: Planned, snakemake_s: float, nodes: int = NODES
) -> Passage:
    """Let the simulation of a study of one dataset pass.

    A job's node starts Snakemake twice, `snakemake_s` seconds each, before the rule's script.
    """
    study = config.parse(values)
    ((name, dataset),) = jobs.simulated(study).items()
    line = line_of(measured, study, name, "simulate")
    sizes = [len(shard) for shard in dataset.shards]
    seconds = [2 * snakemake_s + line.seconds(size) for size in sizes]
    durations = plan.scattered(seconds, SCATTER, study.seed)
    outcomes = {
        queue: plan.pass_through(durations, Cluster(nodes, queue, 2 / SBATCH_S, START_S))
        for queue in QUEUES
    }
    useful = line.each_s * dataset.realizations / sum(seconds)
    return Passage(dataset.shard_size, len(sizes), max(seconds), useful, planned, outcomes)


def passages(
    measured: Measured, sizes: Iterable[int]
) -> tuple[list[Passage], list[Passage], float]:
    """The passages of both studies, cheap and dear; and the seconds of a start of Snakemake."""
    cheap, dear = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "million.yaml")
        path.write_text(yaml.safe_dump(million(max(SHARD_SIZES))), encoding="utf-8")
        shard = "results/datasets/million/shards/0.h5"
        start = plan.dry_run(path, Path(folder), shard).cpu_s
        for size in sizes:
            path.write_text(yaml.safe_dump(million(size)), encoding="utf-8")
            planned = plan.dry_run(path, Path(folder))
            cheap.append(passage(measured, million(size), planned, start))
            dear.append(passage(measured, million(size, OVERSAMPLE), planned, start))
    return cheap, dear, start
