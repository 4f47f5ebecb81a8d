"""A cosmological parameter from filled maps: what a run's holes cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config import InpaintingRun
from skyweave.data.predictions import NETWORK, Predictions
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.estimators.constrained import Constrained
from skyweave.estimators.spectral_index import (
    COLUMNS,
    CONFUSION,
    BandPowers,
    IndexEstimator,
    index_metrics,
)
from skyweave.flat.covariance import Covariance
from skyweave.statistics.flat_spectra import default_bins
from skyweave.tasks.covariance import read_covariance
from skyweave.tasks.inpainting import Key, fluctuations
from skyweave.tasks.inpainting_verdicts import ITERATED
from skyweave.tasks.methods import taper_deg

#: Times that holes are filled again, and steps of the parameter between two classes.
_TIMES, _BETWEEN = 3, 4


def tell_classes(
    files: Mapping[str, str | Path],
    run: InpaintingRun,
    *,
    name: str,
    shards: Sequence[str | Path],
    split: str | Path,
    covariance: str | Path,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The parameter `classes` of a run from its filled maps, beside the same maps when whole.

    `files` are predictions by case. What its classes look like is learned on the whole maps of the
    training set. Of runs with one field there is a method more, `iterated`: `sampled` with holes
    that have the spectrum of the parameter that each map tells, as the classes' in the file
    `covariance` have it. A filled hole tells of what it was filled with, and draws the parameter
    towards that of the mean spectrum, each time by less. Tables of
    `estimators.spectral_index.index_metrics`, all cases together; both empty for a run without
    classes.
    """
    if run.classes is None:
        return pd.DataFrame(columns=list(COLUMNS)), pd.DataFrame(columns=list(CONFUSION))
    maps = ShardSet(shards)
    train = members(read_split(split), "train")
    values = pd.Series(maps.labels[run.classes], index=maps.realizations)
    powers = BandPowers(maps.grid, default_bins(maps.grid), periodic=taper_deg(maps) > 0)
    crops = maps.provenance["settings"]["grid"].get("crops", 1)
    refill = None
    if len(run.fields) == 1:
        refill = _Refill(run, maps, values[train].unique(), covariance, seed)
    metrics, shares = [], []
    for field in run.fields:
        learned = IndexEstimator.fit(maps.read(field, train), values[train].to_numpy(), powers)
        for case, path in files.items():
            found = Predictions(path)
            filled = {method: found.estimate(field, method) for method in found.methods(field)}
            if refill is not None:
                filled[ITERATED] = refill(found, field, filled, learned, case)
            rows, confusion = index_metrics(
                learned,
                found.truth(field),
                filled,
                values[found.realizations].to_numpy(),
                run=name,
                field=field,
                case=case,
                areas=np.asarray(found.realizations) // crops,
            )
            metrics.append(rows)
            shares.append(confusion)
    return pd.concat(metrics, ignore_index=True), pd.concat(shares, ignore_index=True)


class _Refill:
    """Fills holes again, of each map with the spectrum of the parameter that the map tells."""

    def __init__(
        self,
        run: InpaintingRun,
        maps: ShardSet,
        classes: np.ndarray,
        covariance: str | Path,
        seed: int,
    ) -> None:
        self.run, self.seed = run, seed
        assert run.classes is not None
        points = pd.Series(maps.labels["point"], index=maps.labels[run.classes]).astype(int)
        _, models = read_covariance(covariance)
        self.classes = np.sort(classes)
        # Others may vary beside it: those that go with a class are its mean.
        self.models = [
            _mean([models[point] for point in np.unique(points[[value]])]) for value in self.classes
        ]
        step = np.diff(self.classes).min() / _BETWEEN if len(self.classes) > 1 else 1.0
        wide = np.ptp(self.classes) / 2
        self.grid = np.arange(self.classes[0] - wide, self.classes[-1] + wide + step / 2, step)
        self.optima: dict[int, Constrained] = {}

    def __call__(
        self,
        found: Predictions,
        field: str,
        filled: Mapping[str, np.ndarray],
        learned: IndexEstimator,
        case: str,
    ) -> np.ndarray:
        """Maps (n, y, x) of a file of predictions, `filled` by method."""
        holes = found.extra("seen/seen") < 0.5
        truth, mean = found.truth(field), filled[NETWORK]
        numbers = np.asarray(found.realizations)
        keys: list[Key] = [(self.run.dataset, case, "iterated", int(n)) for n in numbers]
        known = self._filled(found, truth, holes, keys, None)[0]
        maps = filled["sampled"]
        for _ in range(_TIMES):
            told, _ = learned.likelihood.estimate(learned.powers(maps))
            nearest = np.abs(np.asarray(told)[:, None] - self.grid).argmin(axis=1)
            own, left_out = self._filled(found, truth, holes, keys, nearest)
            # What another spectrum changes is the same of the network's mean.
            maps = np.where(holes, mean + own - known + left_out, truth)
        return maps

    def _filled(
        self,
        found: Predictions,
        truth: np.ndarray,
        holes: np.ndarray,
        keys: Sequence[Key],
        nearest: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means of holes, and fluctuations, by the places of maps' parameters on the grid."""
        places = np.full(len(truth), -1) if nearest is None else nearest
        means, left_out = truth.copy(), np.zeros_like(truth)
        for place in np.unique(places):
            rows = np.flatnonzero(places == place)
            optimum = self._optimum(int(place), found)
            means[rows] = optimum.mean(truth[rows, None], holes[rows])[:, 0]
            if nearest is not None:
                rngs = fluctuations(self.seed, [keys[int(row)] for row in rows])
                left_out[rows] = optimum.fluctuation(holes[rows], rngs)[:, 0]
        return means, left_out

    def _optimum(self, place: int, found: Predictions) -> Constrained:
        """That of a place on the grid; of the mean of all classes for -1."""
        if place not in self.optima:
            model = _mean(self.models) if place < 0 else self._model(self.grid[place])
            self.optima[place] = Constrained(model, found.grid, self.run.fields)
        return self.optima[place]

    def _model(self, value: float) -> Covariance:
        """Spectra at a value of the parameter, by a polynomial through their logarithms."""
        cl = {}
        for name in self.models[0].cl:
            each = np.array([model.cl[name] for model in self.models])
            if (each > 0).all():
                order = min(2, len(self.classes) - 1)
                terms = np.polynomial.polynomial.polyfit(self.classes, np.log(each), order)
                cl[name] = np.exp(np.polynomial.polynomial.polyval(value, terms))
            else:
                # Without power, or with either sign.
                cl[name] = each.mean(axis=0)
        return Covariance(self.models[0].ell, cl)


def _mean(models: Sequence[Covariance]) -> Covariance:
    cl = {name: np.mean([one.cl[name] for one in models], axis=0) for name in models[0].cl}
    return Covariance(models[0].ell, cl)
