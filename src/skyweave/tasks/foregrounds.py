"""Foregrounds: small scales of dust that a network adds to its large ones, patch by patch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import h5py
import numpy as np
import pandas as pd

from skyweave.config import ForegroundsRun, ForseNetwork, Patches
from skyweave.data.feed import white_noise
from skyweave.data.normalization import Normalization
from skyweave.data.scaling import MinMax, location_and_scale, match, ratio
from skyweave.data.shards import ShardSet, write_shard
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.gaussian_small_scales import Law, gaussian_small_scales
from skyweave.files import atomic, sha256, versions, write_text
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.statistics.minkowski import STATISTICS, THRESHOLDS, functionals, scaled
from skyweave.statistics.namaster import spectra
from skyweave.statistics.small_scale_scores import (
    EDGES,
    SmallScaleStatistics,
    resampled,
    score_table,
    sky_blocks,
)
from skyweave.statistics.small_scales import nearest
from skyweave.statistics.superposition import mean_distance, superposition
from skyweave.statistics.tables import read_table, write_table
from skyweave.statistics.verdicts import verdict
from skyweave.statistics.windows import Windows
from skyweave.tasks.recipe import Recipe

if TYPE_CHECKING:
    import keras

    from skyweave.networks.card import TrainedNetwork

#: Fields of a pair: the patch at low resolution, what it is to be multiplied by, and the mask.
INPUT, TARGET, MASK = "low", "ratio", "mask"

#: Pixels of the patches that a network is given at once.
_MOST_PIXELS = 1 << 19

#: Least significance of a gain over the Gaussian baseline, and most of an excess of likeness.
_SIGMAS = 3.0

#: What the network is judged by beside the baseline, by field and statistic, in words.
_JUDGED = {
    ("ratio", "overlap_v0"): "overlap of area, ratio",
    ("ratio", "overlap_v1"): "overlap of boundary length, ratio",
    ("ratio", "overlap_v2"): "overlap of Euler characteristic, ratio",
    ("ratio", "one_point"): "one-point distribution, ratio",
    ("high", "spectrum"): "power spectrum",
    ("high", "bispectrum_equilateral"): "equilateral bispectrum",
    ("high", "bispectrum_squeezed"): "squeezed bispectrum",
    ("high", "input_correlation"): "correlation with the large scales",
}


def write_pairs(
    patches: str | Path,
    places: str | Path,
    *,
    pairs: str | Path,
    split: str | Path,
    normalization: str | Path,
) -> None:
    """Pairs to train on, of patches at two resolutions (`tasks.sky.cut_patches`), as one shard.

    `low` is the patch at low resolution and `ratio` the one at high resolution over it, each
    scaled to -1 to 1 by its extremes; labels hold these, and the share of pixels in which the
    ratio was not taken (`data.scaling.ratio`), and the place. `mask` is 1 inside. `split` gets the
    part of each place, `normalization` the identity. Raises `UserError` for a patch that cannot be
    scaled.
    """
    with h5py.File(patches) as file:
        high, low, mask = (np.asarray(file[name]) for name in ("high", "low", "mask"))
        size_deg, provenance = float(file.attrs["size_deg"]), json.loads(file.attrs["provenance"])
    table = read_table(places)
    divided, bad = ratio(high, low)
    scales = {INPUT: MinMax.fit(low), TARGET: MinMax.fit(divided)}
    labels = {"bad": bad.mean(axis=(1, 2))}
    labels |= {name: table[name].to_numpy(float) for name in ("lon", "lat")}
    for name, scale in scales.items():
        labels |= scale.labels(name)
    maps = {INPUT: scales[INPUT].apply(low), TARGET: scales[TARGET].apply(divided), MASK: mask}
    write_shard(
        pairs,
        maps,
        realizations=table["place"].to_numpy(np.int64),
        size_deg=size_deg,
        units=dict.fromkeys(maps, ""),
        provenance=provenance
        | {"patches": sha256(patches), "versions": versions("numpy", "healpy", "ducc0", "scipy")},
        labels=labels,
    )
    write_table(split, table[["place", "split"]].rename(columns={"place": "realization"}))
    write_text(normalization, Normalization(dict.fromkeys(scales, (0.0, 1.0))).to_json())


@dataclass(frozen=True)
class Pairs:
    """Patches of a part of the pairs: low and high resolution (n, y, x) in µK_CMB, and the mask.

    `ratio` is that of high to low, scaled to -1 to 1 as the network is to make it.
    """

    numbers: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ratio: np.ndarray
    keep: np.ndarray
    grid: PatchGrid
    low_arcmin: float
    high_arcmin: float

    @classmethod
    def read(cls, shards: ShardSet, numbers: np.ndarray) -> Self:
        """The pairs of these numbers, ascending, from what `write_pairs` wrote."""
        rows = np.searchsorted(shards.realizations, numbers)
        labels = {name: values[rows] for name, values in shards.labels.items()}
        made = shards.read(TARGET, numbers)
        low = MinMax.from_labels(labels, INPUT).undo(shards.read(INPUT, numbers))
        beams = shards.provenance["settings"]["patches"]
        return cls(
            numbers,
            low,
            low * MinMax.from_labels(labels, TARGET).undo(made),
            made,
            shards.read(MASK, numbers) > 0.5,
            shards.grid,
            beams["low_arcmin"],
            beams["high_arcmin"],
        )

    def law(self) -> Law:
        """How these patches' small scales follow from their large ones."""
        return Law.fit(self.low, self.high, self.grid, self.low_arcmin, self.high_arcmin)


def recipe(
    run: ForegroundsRun, maps: ShardSet, parts: pd.DataFrame, name: str, seed: int
) -> Recipe:
    """How a run's network is trained: ForSE's generator against its discriminator."""
    from skyweave.networks.registry import build_discriminator
    from skyweave.training.adversarial import Adversarial, learners
    from skyweave.training.runtime import numerics

    settings, select = run.adversarial, run.training.select
    law = Pairs.read(maps, members(parts, "train")).law()

    def method(model: "keras.Model", scales: Normalization) -> Adversarial:
        channels = 2 if settings.conditional else 1
        judge = build_discriminator(run.network, maps.pixels, channels, seed)
        both = learners(model, judge, run.training, settings)
        xla = numerics(run.training).xla
        return Adversarial(*both, settings, seed=seed, name=name, xla=xla)

    @cache
    def truth() -> tuple[Pairs, np.ndarray]:
        pairs = Pairs.read(maps, members(parts, "validation"))
        return pairs, _curves(pairs.ratio, pairs.keep)

    def score(network: "TrainedNetwork") -> pd.DataFrame:
        pairs, true = truth()
        made = SmallScales(network, law).ratios(pairs.low, pairs.numbers)
        curves = _curves(made, pairs.keep)
        by = {"superposition": superposition, "distance": mean_distance}
        rows = [
            (field, statistic, value)
            for statistic, function in by.items()
            for field, value in zip(STATISTICS, function(curves, true), strict=True)
        ]
        return pd.DataFrame(rows, columns=["field", "statistic", "value"])

    return Recipe(
        inputs=(INPUT,),
        targets=(TARGET,),
        method=method,
        score=score,
        fields=select.fields or STATISTICS,
        worth=partial(_worth, select.by),
        largest=select.by == "superposition",
        noise=run.noise,
        known={"law": law.to_dict()},
    )


def _curves(maps: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Minkowski functionals (n, 3, 32) of maps (n, y, x), each scaled to -1 to 1 in its mask."""
    return functionals(scaled(maps, keep), THRESHOLDS, keep)


def _worth(statistic: str, scores: pd.DataFrame, field: str) -> float:
    """The value of a statistic of one functional; of a network that makes constants, NaN."""
    rows = scores[(scores.statistic == statistic) & (scores.field == field)]
    return float(rows.value.iloc[0])


@dataclass(frozen=True)
class SmallScales:
    """A trained network, and what it needs to add small scales to patches in their own unit.

    The network makes a ratio of high to low resolution of no certain scale. `law` says what
    deviation the ratio has, or the true ratio does.
    """

    network: "TrainedNetwork"
    law: Law
    _built: dict[int, "TrainedNetwork"] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """From the folder of a run; raises `UserError` where it holds no network of this task."""
        from skyweave.networks.card import CARD, load_network

        network = load_network(folder)
        if "law" not in network.card.data:
            raise UserError(Path(folder) / CARD, "a network that adds small scales", "another's")
        return cls(network, Law.from_dict(network.card.data["law"]))

    @property
    def patches(self) -> Patches:
        """Geometry and beams of the patches that the network was trained on."""
        return Patches(**self.network.card.data["provenance"]["settings"]["patches"])

    @property
    def noise(self) -> float:
        """Rms of the noise in the scaled input."""
        return self.network.card.settings["noise"]

    def grid(self, finer: int = 1) -> PatchGrid:
        """That of the network's patches, at a scale that is so many times finer."""
        return PatchGrid(self.network.card.size_deg / finer, self.network.card.pixels)

    def ratios(
        self,
        low: np.ndarray,
        numbers: Sequence[int] | np.ndarray,
        realization: int = 0,
        margin: int = 0,
    ) -> np.ndarray:
        """Ratios (n, y, x) as the network makes them, -1 to 1, of patches in any unit.

        The noise in patch i is drawn by its number and that of the realization. With `margin` the
        patches reach so many pixels beyond what is made: a convolution makes other small scales
        where it sees the zeros outside of a patch.
        """
        from skyweave.networks.card import predict

        inner = slice(margin, low.shape[-1] - margin)
        x = MinMax.fit(low[:, inner, inner]).apply(low)
        if self.noise:
            for row, number in enumerate(numbers):
                key = ("realization", realization, int(number))
                x[row] += white_noise(self.noise, x[row].shape, self.network.card.seed, *key)
        batch = max(_MOST_PIXELS // x[0].size, 1)
        return predict(self._wider(margin), {INPUT: x}, batch)[TARGET][:, inner, inner]

    def _wider(self, margin: int) -> "TrainedNetwork":
        """The same network for patches with `margin` more pixels at each edge."""
        from skyweave.networks.card import TrainedNetwork
        from skyweave.networks.registry import build

        if not margin:
            return self.network
        if margin not in self._built:
            card = self.network.card
            card = replace(card, pixels=card.pixels + 2 * margin)
            settings = ForseNetwork(**card.settings["network"])
            model = build(settings, card.pixels, card.inputs, card.outputs, card.seed)
            model.set_weights(self.network.model.get_weights())
            self._built[margin] = TrainedNetwork(model, card)
        return self._built[margin]

    def matched(
        self,
        low: np.ndarray,
        numbers: Sequence[int] | np.ndarray,
        *,
        realization: int = 0,
        margin: int = 0,
        finer: int = 1,
        scale_of: np.ndarray | None = None,
        truth: np.ndarray | None = None,
    ) -> np.ndarray:
        """Ratios (n, y, x) float32 of high to low resolution of patches at low resolution.

        With `finer` the patches, and both resolutions, are so many times smaller. The ratio has the
        deviation that the law says for `scale_of`, by default for `low`, or that of the ratio
        `truth` (n, y, x). Its mean, weighted by |low|, is 1: small scales neither add to a patch
        nor take from it. `margin` as in `ratios`: `low` and `scale_of` have it.
        """
        made = self.ratios(low, numbers, realization, margin)
        inner = slice(margin, low.shape[-1] - margin)
        if truth is None:
            by = (low if scale_of is None else scale_of)[:, inner, inner]
            beams = self.patches.low_arcmin, self.patches.high_arcmin
            low_arcmin, high_arcmin = (fwhm / finer for fwhm in beams)
            deviation = self.law.ratio_deviation(by, self.grid(finer), low_arcmin, high_arcmin)
        else:
            deviation = location_and_scale(truth)[1]
        found = match(made, 1.0, deviation)
        weight = np.abs(low[:, inner, inner])
        mean = np.sum(found * weight, axis=(1, 2)) / np.sum(weight, axis=(1, 2))
        return found + (1 - mean[:, None, None]).astype(np.float32)


def predict_run(
    network: str | Path, *, pairs: str | Path, split: str | Path, out: str | Path, threads: int
) -> None:
    """Small scales of the test set by the network and by the Gaussian baseline; write all.

    The baseline goes on with the power law of the training set (`estimators.Law`). All in µK_CMB.
    """
    from skyweave.training.runtime import prepare

    prepare(0, threads)
    small_scales = SmallScales.load(Path(network).parent)
    card = small_scales.network.card
    shards = ShardSet([pairs])
    test = Pairs.read(shards, members(read_split(split), "test"))
    truth = ratio(test.high, test.low)[0] if card.settings["amplitude"] == "truth" else None
    gaussian = gaussian_small_scales(
        test.low,
        test.grid,
        test.low_arcmin,
        test.high_arcmin,
        seed=card.seed,
        identity=(card.data["dataset"], "baseline"),
        law=small_scales.law,
    )
    fields = {
        "input/low": test.low,
        "input/mask": test.keep,
        "truth/high": test.high,
        "prediction/high": small_scales.matched(test.low, test.numbers, truth=truth) * test.low,
        "baseline/high": gaussian,
    }
    with atomic(out) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["size_deg"] = shards.size_deg
        file.attrs["low_arcmin"], file.attrs["high_arcmin"] = test.low_arcmin, test.high_arcmin
        file.attrs["amplitude"] = card.settings["amplitude"]
        file["realizations"] = test.numbers
        for field, values in fields.items():
            written = file.create_dataset(field, data=np.float32(values))
            written.attrs["unit"] = "" if field.endswith("mask") else "uK_CMB"


@dataclass(frozen=True)
class Evaluation:
    """Tables of a run (docs/foregrounds.md names their columns), and verdicts."""

    metrics: pd.DataFrame
    curves: pd.DataFrame
    scores: pd.DataFrame
    nearest: pd.DataFrame
    verdicts: list[dict]


def evaluate_run(
    predictions: str | Path, *, pairs: str | Path, split: str | Path, name: str, seed: int
) -> Evaluation:
    """Network and Gaussian baseline beside the truth, on the test set."""
    with h5py.File(predictions) as file:
        low, keep = np.asarray(file["input/low"]), np.asarray(file["input/mask"]) > 0.5
        groups = {"truth": "truth", "network": "prediction", "gaussian": "baseline"}
        maps = {method: np.asarray(file[group]["high"]) for method, group in groups.items()}
        grid = PatchGrid(float(file.attrs["size_deg"]), low.shape[-1])
        beams = {key: float(file.attrs[key]) for key in ("low_arcmin", "high_arcmin")}
        told = file.attrs["amplitude"] == "truth"
        numbers = np.asarray(file["realizations"])
    windows = Windows.of(keep, grid)
    shards = ShardSet([pairs])
    rows = np.searchsorted(shards.realizations, numbers)
    lon, lat = (shards.labels[name][rows] for name in ("lon", "lat"))
    blocks = sky_blocks(lon, lat, grid.size_deg)
    found = {
        method: SmallScaleStatistics.measure(high, low, windows, beams["high_arcmin"])
        for method, high in maps.items()
    }
    names = {"run": name, "split": "test"}
    scores, gains = score_table(
        found["truth"],
        {method: found[method] for method in ("network", "gaussian")},
        generator(seed, name, "scores"),
        baseline="gaussian",
        names=names,
        blocks=blocks,
        **beams,
    )
    known = Pairs.read(shards, members(read_split(split), "train"))
    nearest_table = pd.concat(
        [_nearest(maps[method] / low, known, numbers, method) for method in ("network", "truth")],
        ignore_index=True,
    )
    return Evaluation(
        metrics=_metrics(found, spectra(low, windows.weights, windows.workspaces), names),
        curves=_curve_rows(found, names),
        scores=scores,
        nearest=nearest_table,
        verdicts=[
            *_gain_verdicts(scores, gains, told),
            _copy_verdict(nearest_table, generator(seed, name, "nearest"), blocks),
        ],
    )


def _metrics(
    found: Mapping[str, SmallScaleStatistics], low: np.ndarray, names: Mapping[str, str]
) -> pd.DataFrame:
    """Means over patches with errors, and percentiles of the spectra."""
    tables = []
    for method, one in {"input": None, **found}.items():
        cl, ell = (low, found["truth"].ell) if one is None else (one.cl, one.ell)
        samples = {"cl": (ell, cl)}
        if one is not None:
            samples["input_correlation"] = (ell, one.correlation)
            for shape, values in one.bispectra.items():
                samples[f"bispectrum_{shape}"] = (one.bispectra_ell[shape], values)
        for statistic, (at, values) in samples.items():
            error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
            columns = {"ell": at, "value": values.mean(axis=0), "error": error}
            tables.append(pd.DataFrame(columns).assign(method=method, statistic=statistic))
        for percent in (16, 50, 84):
            value = np.percentile(cl, percent, axis=0)
            columns = {"ell": ell, "value": value, "error": np.nan}
            tables.append(pd.DataFrame(columns).assign(method=method, statistic=f"cl_p{percent}"))
    table = pd.concat(tables, ignore_index=True).assign(**names, field="high", n=len(low))
    order = ("run", "split", "field", "method", "statistic", "ell", "value", "error", "n")
    return table[list(order)]


def _curve_rows(
    found: Mapping[str, SmallScaleStatistics], names: Mapping[str, str]
) -> pd.DataFrame:
    """Means and scatter of functionals and histograms over patches."""
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    tables = []
    for method, one in found.items():
        for name, curves in one.curves.items():
            parts = [*zip(STATISTICS, np.moveaxis(curves, 1, 0), strict=True)]
            for statistic, values in [*parts, ("one_point", one.densities[name])]:
                spread = values.std(axis=0, ddof=1)
                columns = {
                    "threshold": centres if statistic == "one_point" else THRESHOLDS,
                    "value": values.mean(axis=0),
                    "error": spread / np.sqrt(len(values)),
                    "std": spread,
                }
                labels = {"field": name, "method": method, "statistic": statistic}
                tables.append(pd.DataFrame(columns).assign(**labels, n=len(values)))
    table = pd.concat(tables, ignore_index=True).assign(**names)
    order = ("run", "split", "field", "method", "statistic", "threshold", "value", "error", "std")
    return table[[*order, "n"]]


def _nearest(maps: np.ndarray, known: Pairs, numbers: np.ndarray, method: str) -> pd.DataFrame:
    """The training patch whose small scales are most like each patch's."""
    index, _, correlation = nearest(maps, known.ratio)
    columns = {
        "realization": numbers,
        "method": method,
        "nearest": known.numbers[index],
        "correlation": correlation,
    }
    return pd.DataFrame(columns)


def _gain_verdicts(scores: pd.DataFrame, gains: pd.DataFrame, told: bool) -> list[dict]:
    """Does the network beat the Gaussian baseline on each statistic?

    With `told` the deviation of its ratios was the truth's, which the baseline did not know.
    """
    values = {
        (row["field"], row["statistic"], row["method"]): row for row in scores.to_dict("records")
    }
    gain = {(row["field"], row["statistic"]): row for row in gains.to_dict("records")}
    found = []
    for key, words in _JUDGED.items():
        network, gaussian = (values[*key, method] for method in ("network", "gaussian"))
        shown = [f"{one['value']:.3f} ± {one['error']:.3f}" for one in (network, gaussian)]
        note = f"network {shown[0]}, Gaussian {shown[1]}, {network['n']} patches"
        if np.isfinite(network["ceiling"]):
            note += f"; two sets of the truth's law reach {network['ceiling']:.3f}"
        note += "; the network was told the deviation of the true ratios" * told
        found.append(
            verdict(
                f"{words}: gain over Gaussian small scales, in its standard errors",
                _in_errors(gain[key]["gain"], gain[key]["error"]),
                _SIGMAS,
                ">",
                unit="standard errors",
                note=note,
            )
        )
    return found


def _copy_verdict(table: pd.DataFrame, rng: np.random.Generator, blocks: np.ndarray | None) -> dict:
    """Is the network's output more like a training patch than the unseen sky is?"""
    by = {method: part["correlation"].to_numpy() for method, part in table.groupby("method")}
    made, true = by["network"], by["truth"]
    draws = [resampled(len(made), rng, blocks) for _ in range(500)]
    medians = [np.array([np.median(values[rows]) for rows in draws]) for values in (made, true)]
    excess = np.median(made) - np.median(true)
    return verdict(
        "likeness to the nearest training patch: excess over the truth's, in its standard errors",
        _in_errors(excess, np.std(medians[0] - medians[1], ddof=1)),
        _SIGMAS,
        "<",
        unit="standard errors",
        note=f"median correlation {np.median(made):.3f}, of the true patches "
        f"{np.median(true):.3f}; largest {made.max():.3f}",
    )


def _in_errors(value: float, error: float) -> float:
    """A value over its error; of two that are the same in every draw there is none (NaN)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(value, error))
