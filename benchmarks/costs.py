"""What the jobs of a study cost, from benchmark files, and what those of a larger one would."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skyweave.config import CmbDataset, Config, ReconstructionRun, SkyDataset
from skyweave.errors import UserError
from skyweave.simulation.cosmologies import at_point, points
from skyweave.statistics.tables import read_table

if TYPE_CHECKING:
    import keras

SKY_RULES = ("sky_map", "sky_mask", "sky_patches", "sky_statistics", "draw_sky")


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


def simulated(study: Config) -> dict[str, CmbDataset]:
    """The simulated datasets of a study."""
    return {name: each for name, each in study.datasets.items() if isinstance(each, CmbDataset)}


def observed(study: Config) -> dict[str, SkyDataset]:
    """The datasets of a study that are cut from a real map."""
    return {name: each for name, each in study.datasets.items() if isinstance(each, SkyDataset)}


def split_counts(dataset: CmbDataset) -> dict[str, int]:
    """Realizations of each part."""
    shares = dataset.split.model_dump()
    return {part: round(dataset.realizations * share) for part, share in shares.items()}


def spectra_sets(study: Config) -> int:
    """How many sets of spectra the workflow computes: datasets share those they both want."""
    sets = {
        at_point(each.spectra, point).model_dump_json(exclude={"vary", "points"})
        for each in simulated(study).values()
        for point in points(each.spectra, study.seed)
    }
    return len(sets)


def job_counts(study: Config) -> dict[str, int]:
    """Jobs of each rule of a study, as Snakemake counts them for `all`."""
    cmb, sky = simulated(study).values(), observed(study).values()
    channels = [channel for each in cmb for channel in each.channels.values()]
    counts = {
        "fetch_hfi": int(any(channel.beam_hfi_ghz for channel in channels)),
        "fetch_sfd98": int(any(each.map.source == "sfd98" for each in sky)),
        "spectra": spectra_sets(study),
        "simulate": sum(len(each.shards) for each in cmb),
        **dict.fromkeys(("prepare", "check_simulation", "draw_spectra"), len(cmb)),
        **dict.fromkeys(SKY_RULES, len(sky)),
        **dict.fromkeys(
            ("train", "predict", "evaluate", "draw_reconstruction"), len(reconstructions(study))
        ),
        "report": 1,
        "all": 1,
    }
    return {rule: count for rule, count in counts.items() if count}


def work(study: Config, rule: str) -> float:
    """What a rule's cost is in proportion to, where no line of it was measured.

    Pixels of maps for the rules of a real map and for `evaluate`, else the number of jobs.
    """
    sky = observed(study).values()
    if rule in ("sky_map", "sky_mask"):
        return sum(12 * each.map.nside**2 for each in sky)
    if rule in ("sky_patches", "sky_statistics"):
        return sum(each.patches.count * each.patches.pixels**2 for each in sky)
    if rule == "evaluate":
        trained = [dataset_of(study, run) for run in reconstructions(study).values()]
        return sum(split_counts(each)["test"] * each.grid.pixels**2 for each in trained)
    return job_counts(study).get(rule, 0)


def reconstructions(study: Config) -> dict[str, ReconstructionRun]:
    """The runs of a study whose cost is known."""
    return {n: run for n, run in study.runs.items() if isinstance(run, ReconstructionRun)}


def dataset_of(study: Config, run: ReconstructionRun) -> CmbDataset:
    """The dataset that a run is trained on."""
    return simulated(study)[run.dataset]


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
