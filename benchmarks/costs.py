"""What the jobs of a study cost, from benchmark files, and what those of a larger one would."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.jobs import (
    SKY_RULES,
    dataset_of,
    estimate_sizes,
    estimated,
    job_counts,
    observed,
    reconstructions,
    simulated,
    split_counts,
)
from skyweave.config import CmbDataset, Config, ReconstructionRun
from skyweave.errors import UserError
from skyweave.statistics.tables import read_table

if TYPE_CHECKING:
    import keras

#: What an estimate of a map costs before lensing is taken back, in steps that take it back: by the
#: processor's time 7 for a map of 64² with noise of 1 µK-arcmin, 8 for one of 128², 14 without.
FIRST_STEPS = 8

#: Rules that read all that a network is judged on.
_OF_TESTS = ("evaluate", "generalize")


@dataclass(frozen=True)
class Line:
    """Seconds of a job: to start, and for each of its realizations."""

    start_s: float
    each_s: float

    @classmethod
    def through(cls, realizations: Sequence[int], seconds: Sequence[float]) -> "Line":
        """Least squares; raises `UserError` where more realizations cost no more."""
        each, start = np.polyfit(realizations, seconds, 1)
        if not each > 0:
            raise UserError("measured jobs", "seconds that grow with realizations", f"{each:g} s")
        return cls(max(float(start), 0.0), float(each))

    def seconds(self, realizations: float) -> float:
        """Seconds of a job of so many realizations."""
        return self.start_s + self.each_s * realizations

    def scaled(self, factor: float) -> "Line":
        """The line of realizations that cost `factor` times as much."""
        return Line(self.start_s, self.each_s * factor)


def measured_line(results: Path, study: Config, rule: str) -> Line:
    """The line of a rule that has a job for each simulated dataset, or, simulating, each shard.

    Raises `UserError` for a job of the study without a benchmark file in `results`.
    """
    realizations, seconds = [], []
    for name, dataset in simulated(study).items():
        jobs = {Path(name): dataset.realizations}
        if rule == "simulate":
            jobs = {Path(name, str(at)): len(shard) for at, shard in enumerate(dataset.shards)}
        for job, count in jobs.items():
            realizations.append(count)
            seconds.append(_seconds(results / "benchmarks" / rule / f"{job}.tsv"))
    return Line.through(realizations, seconds)


def _seconds(path: Path) -> float:
    try:
        return float(pd.read_csv(path, sep="\t")["s"].iloc[0])
    except FileNotFoundError:
        raise UserError(
            path, "the cost of a job of benchmarks/scaling.yaml (`make scaling`)", "no file"
        ) from None
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(path, "a benchmark file of Snakemake", error) from None


def growth(pixels: int, reference: int) -> float:
    """Cost of a patch of pixels² over one of reference²: N² log N, as of Fourier transforms."""
    return (pixels / reference) ** 2 * math.log(pixels) / math.log(reference)


def patch_ms(entries: Iterable[Mapping[str, Any]], pixels: int) -> float:
    """Milliseconds of a patch of pixels², as measured, or grown from the size nearest to it.

    `entries` are those of `python -m benchmarks`; raises `UserError` where no size was measured.
    """
    measured = {
        int(found[1]): float(entry["ours"])
        for entry in entries
        if (found := re.fullmatch(r"simulation_cost_(\d+)", entry["name"]))
    }
    if not measured:
        raise UserError("benchmarks", "simulation_cost_128 of `python -m benchmarks`", "none")
    nearest = min(measured, key=lambda size: abs(math.log(size / pixels)))
    return measured[nearest] * growth(pixels, nearest)


def simulated_pixels(dataset: CmbDataset) -> int:
    """Pixels a side of the area that is simulated for a patch of a flat sky."""
    return dataset.grid.oversample * (dataset.grid.pixels + 2 * dataset.grid.margin)


def law(rule: str) -> str:
    """What `work` counts for a rule."""
    if rule in ("calibrate", "estimate"):
        return "pixels and steps"
    if rule == "expect":
        return "squared pixels"
    return "pixels" if rule in (*SKY_RULES[:-1], *_OF_TESTS) else "jobs"


def work(study: Config, rule: str) -> float:
    """What a rule's cost is in proportion to, where no line of it was measured: see `law`."""
    sky = observed(study).values()
    if rule in ("sky_map", "sky_mask"):
        return sum(12 * each.map.nside**2 for each in sky)
    if rule in ("sky_patches", "sky_statistics"):
        return sum(each.patches.count * each.patches.pixels**2 for each in sky)
    if rule in _OF_TESTS:
        trained = [dataset_of(study, run) for run in reconstructions(study).values()]
        return sum(judged_pixels(each) for each in trained)
    if rule == "calibrate":
        return sum(
            estimate_work(each) * min(each.estimates.calibration, split_counts(each)["train"])
            for each in estimated(study).values()
        )
    if rule == "expect":
        return sum(each.grid.pixels**4 for each in estimated(study).values())
    if rule == "estimate":
        return sum(estimate_work(each) * count for each, count in estimate_sizes(study))
    return job_counts(study).get(rule, 0)


def judged(dataset: CmbDataset) -> int:
    """Realizations of the two parts that a network is judged on."""
    counts = split_counts(dataset)
    return counts["test"] + counts["validation"]


def judged_pixels(dataset: CmbDataset) -> int:
    """Pixels of these, a map each."""
    return judged(dataset) * dataset.grid.pixels**2


def estimate_work(dataset: CmbDataset) -> float:
    """What the classical estimates of a patch cost: its pixels as of `growth`, and the steps."""
    pixels, steps = dataset.grid.pixels, dataset.estimates.iterations
    return growth(pixels, 64) * (FIRST_STEPS + steps)


def multiply_adds(model: "keras.Model") -> int:
    """Multiplications with an addition of the convolutions of a network, for one map."""
    import keras

    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            height, width, _ = layer.output.shape[1:]
            total += height * width * math.prod(layer.kernel.shape)
    return total


def network_of(study: Config, run: ReconstructionRun) -> "keras.Model":
    """The network of a run."""
    from skyweave.networks.registry import build

    pixels = dataset_of(study, run).grid.pixels
    return build(run.network, pixels, run.inputs, run.targets, seed=0)


def epoch_operations(multiply_adds: int, counts: Mapping[str, int]) -> float:
    """Floating point operations of an epoch: a training map costs 3 times a validation map.

    Two operations a multiply-add; the gradient costs twice what the forward pass does.
    """
    return 2.0 * multiply_adds * (3 * counts["train"] + counts["validation"])


def epoch_seconds(results: Path, run: str) -> float:
    """Median seconds of an epoch of a run that was trained."""
    path = results / "runs" / run / "history.csv"
    try:
        return float(read_table(path)["seconds"].median())
    except KeyError:
        raise UserError(path, "a column 'seconds'", "none") from None
