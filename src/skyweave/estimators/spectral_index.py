"""A cosmological parameter, as the spectral index n_s, from the band powers of single maps.

Two views of the same numbers, both learned on maps whose parameter is known: which of its classes a
map is of (a Gaussian discriminant), and the value that makes its band powers most likely.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy.interpolate import BSpline, make_interp_spline
from scipy.special import logsumexp

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper

#: Columns of `index_metrics`, those of all tables of metrics and the case of the holes.
COLUMNS = ("run", "split", "field", "method", "statistic", "ell", "value", "error", "n", "case")
#: Columns of `confusion`.
CONFUSION = ("run", "split", "field", "method", "case", "true", "found", "share", "n")
#: Beginning of the name of a shift in maps of one class, before the class's value.
CLASS_SHIFT = "class_shift_"
#: Beginning of the name of how many areas a class's maps are from.
CLASS_AREAS = "class_areas_"
#: Name under which the whole maps stand beside the methods that filled them.
TRUTH = "truth"

#: Share of the side over which maps that are not periodic fall to zero at each edge.
_APODIZED = 1 / 8
#: Maps transformed at once, points of the first search, and steps from there to the maximum.
_CHUNK, _POINTS, _STEPS = 128, 201, 8


@dataclass(frozen=True)
class BandPowers:
    """Natural logarithm of a map's band powers: nearly normal, with a scatter that no amplitude
    changes.

    Maps that are not `periodic`, or not tapered yet, fall to zero over an eighth of their side at
    each edge by a cosine, lest large waves leak into small ones across the edges.
    """

    grid: PatchGrid
    bins: Bins
    periodic: bool = False

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Logarithms (n, bands) of maps (n, y, x); of C_ell in the square of their unit times sr.

        Raises `UserError` for maps of another shape, with values that are not finite, and without
        any power in a band.
        """
        side = self.grid.pixels
        if maps.ndim != 3 or maps.shape[1:] != (side, side) or not len(maps):
            raise UserError("maps", f"some of (n, {side}, {side})", maps.shape)
        broken = ~np.isfinite(maps).all(axis=(1, 2))
        if broken.any():
            raise UserError("maps", "finite values", f"others in map {broken.argmax()}")
        window = cosine_taper(self.grid, 0 if self.periodic else _APODIZED * self.grid.size_deg)
        found = np.empty((len(maps), self.bins.count))
        for start in range(0, len(maps), _CHUNK):
            rows = slice(start, start + _CHUNK)
            modes = forward(maps[rows] * window, self.grid)
            found[rows] = bin_power(power(modes, modes, self.grid), self.grid, self.bins)
        # NaN in a band without modes.
        empty = ~(found > 0).all(axis=1)
        if empty.any():
            raise UserError("maps", "power in every band", f"none in some of map {empty.argmax()}")
        return np.log(found / np.mean(window**2))


def shrunk_covariance(residuals: np.ndarray, lost: int) -> np.ndarray:
    """Covariance (p, p) of residuals (n, p) that have lost so many degrees of freedom.

    Its correlations shrink towards none by the share that Ledoit & Wolf (2004, J. Multivariate
    Anal. 88, 365) find best for their number.
    """
    count = len(residuals)
    rms = np.sqrt(np.mean(residuals**2, axis=0))
    standard = residuals / rms
    sample = standard.T @ standard / count
    size = len(sample)
    away = np.sum((sample - np.eye(size)) ** 2)
    noise = (np.sum(np.sum(standard**2, axis=1) ** 2) / count - np.sum(sample**2)) / count
    share = 1.0 if away == 0 else min(1.0, noise / away)
    shrunk = share * np.eye(size) + (1 - share) * sample
    return shrunk * np.outer(rms, rms) * count / (count - lost)


@dataclass(frozen=True)
class Learned:
    """Means (classes, bands) of the log band powers in each class, and what they scatter by.

    `classes` (classes,) are the parameter's values, ascending; the covariance is shared.
    """

    classes: np.ndarray
    means: np.ndarray
    covariance: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, values: np.ndarray) -> Self:
        """Learn from log band powers (n, bands) of maps with the parameter's values (n,).

        Raises `UserError` for values that are not finite or do not match, for one class alone, and
        for classes too small to tell how they scatter.
        """
        features, values = np.asarray(features, float), np.asarray(values, float)
        if features.ndim != 2 or values.shape != features.shape[:1]:
            raise UserError("classes", f"a value for each of {len(features)} maps", values.shape)
        if not (np.isfinite(features).all() and np.isfinite(values).all()):
            raise UserError("classes", "finite band powers and values", "others")
        classes, member, sizes = np.unique(values, return_inverse=True, return_counts=True)
        if classes.size < 2:
            raise UserError("classes", "maps of two classes at least", classes.size)
        if sizes.min() < 2 or len(features) - classes.size < 8:
            expected = "2 maps of each class and 8 more than classes"
            raise UserError("classes", expected, f"{len(features)}, {sizes.min()} of one")
        means = np.stack([features[member == index].mean(axis=0) for index in range(classes.size)])
        return cls(classes, means, shrunk_covariance(features - means[member], classes.size))


@dataclass(frozen=True)
class Classifier(Learned):
    """Gaussian discriminant with one covariance: its boundaries are planes in log band power."""

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of each class, all equally frequent beforehand, (n, classes)."""
        factor = np.linalg.cholesky(self.covariance)
        white = np.linalg.solve(factor, np.asarray(features).T).T
        centres = np.linalg.solve(factor, self.means.T).T
        log = white @ centres.T - 0.5 * np.sum(centres**2, axis=1)
        return np.exp(log - logsumexp(log, axis=1, keepdims=True))

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The likeliest class's value, (n,)."""
        return self.classes[self.probabilities(features).argmax(axis=1)]


@dataclass(frozen=True)
class Likelihood(Learned):
    """Gaussian likelihood of log band powers, whose mean is a smooth function of the parameter.

    That is a spline through the classes' means, cubic where they are four or more, and goes on
    straight beyond the first and the last: estimates may lie outside, as unbiased ones must.
    """

    def estimate(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Value of most likelihood of each map and its error by Fisher's information there, (n,).

        features: log band powers (n, bands).
        """
        factor = np.linalg.cholesky(self.covariance)
        white = np.linalg.solve(factor, np.asarray(features, float).T).T
        spline = self._spline(np.linalg.solve(factor, self.means.T).T)
        slope = spline.derivative()
        span = self.classes[-1] - self.classes[0]
        points = np.linspace(self.classes[0] - span, self.classes[-1] + span, _POINTS)
        model = self._mean(spline, slope, points)
        likely = white @ model.T - 0.5 * np.sum(model**2, axis=1)
        best, step = points[likely.argmax(axis=1)], points[1] - points[0]
        start = best
        for _ in range(_STEPS):
            turned = slope(np.clip(best, self.classes[0], self.classes[-1]))
            away = white - self._mean(spline, slope, best)
            best = best + np.sum(turned * away, axis=1) / np.sum(turned**2, axis=1)
            # Not beyond the neighbours of the best point, but where the mean is straight.
            inside = (start > points[0]) & (start < points[-1])
            best = np.where(inside, np.clip(best, start - step, start + step), best)
        turned = slope(np.clip(best, self.classes[0], self.classes[-1]))
        return best, 1 / np.sqrt(np.sum(turned**2, axis=1))

    def _spline(self, means: np.ndarray) -> BSpline:
        return make_interp_spline(self.classes, means, k=min(3, len(self.classes) - 1))

    def _mean(self, spline: BSpline, slope: BSpline, at: np.ndarray) -> np.ndarray:
        """Whitened mean (m, bands) at values (m,)."""
        inside = np.clip(at, self.classes[0], self.classes[-1])
        return spline(inside) + slope(inside) * (at - inside)[:, None]


@dataclass(frozen=True)
class IndexEstimator:
    """Band powers, the classifier and the likelihood of maps of one field, learned together."""

    powers: BandPowers
    classifier: Classifier
    likelihood: Likelihood

    @classmethod
    def fit(cls, maps: np.ndarray, values: np.ndarray, powers: BandPowers) -> Self:
        """Learn from whole maps (n, y, x) with the parameter's values (n,); see `Learned.fit`."""
        features = powers(maps)
        return cls(powers, Classifier.fit(features, values), Likelihood.fit(features, values))


def index_metrics(
    learned: IndexEstimator,
    truth: np.ndarray,
    filled: Mapping[str, np.ndarray],
    values: np.ndarray,
    *,
    run: str,
    field: str,
    case: str,
    split: str = "test",
    areas: np.ndarray | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well the parameter is told from whole maps and from those that methods filled.

    truth: whole maps (n, y, x); `filled` the same maps by method; `values` (n,) the true values.
    The first table (`COLUMNS`) has these statistics of `truth` and of each method: `accuracy`, the
    share of maps that are put in their own class; `estimate_bias`, mean of the estimate less the
    true value; `estimate_scatter`, standard deviation of that; `estimate_sigma`, mean error by
    Fisher's information; and of methods `estimate_shift`, mean of the estimate less that of the
    same map when whole, and `shift_scatter`, standard deviation of that. Shifts of opposite sign
    cancel in a mean over all classes: `class_shift_{value}` is that over one class's n maps, which
    are from `class_areas_{value}` areas, and
    `shift_slope` the slope of the shift on the true value, of two classes or more. Errors come from
    the scatter over maps, over whole `areas` (n,) where several patches are cut from one: patches
    of one area are not independent. They are NaN with one area alone, that of a slope where a class
    has one alone. The second table (`CONFUSION`) has, for each true class, the share of its n maps
    put into each.
    Raises `UserError` for a value that is none of the classes and as `BandPowers`.
    """
    values = np.asarray(values, float)
    lacking = np.setdiff1d(values, learned.classifier.classes)
    if values.shape != truth.shape[:1] or lacking.size:
        expected = f"one of {', '.join(f'{v:g}' for v in learned.classifier.classes)} for each map"
        raise UserError("values", expected, lacking[0] if lacking.size else values.shape)
    groups = np.arange(len(values)) if areas is None else np.asarray(areas)
    rows, shares, whole = [], [], np.empty(0)
    for method, maps in {TRUTH: truth, **filled}.items():
        if maps.shape != truth.shape:
            raise UserError(method, f"maps of shape {truth.shape}", maps.shape)
        features = learned.powers(maps)
        found = learned.classifier.predict(features)
        estimate, sigma = learned.likelihood.estimate(features)
        count = len(values)
        statistics = {
            "accuracy": (*_mean(found == values, groups), count),
            "estimate_bias": (*_mean(estimate - values, groups), count),
            "estimate_scatter": (*_scatter(estimate - values, groups), count),
            "estimate_sigma": (*_mean(sigma, groups), count),
        }
        if method == TRUTH:
            whole = estimate
        else:
            statistics |= _shifts(estimate - whole, values, groups)
        for name, (value, error, n) in statistics.items():
            rows.append((run, split, field, method, name, np.nan, value, error, n, case))
        for (true, one), (share, count) in _confusion(learned.classifier, values, found).items():
            shares.append((run, split, field, method, case, true, one, share, count))
    return pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(shares, columns=CONFUSION)


def _shifts(
    shift: np.ndarray, values: np.ndarray, groups: np.ndarray
) -> dict[str, tuple[float, float, int]]:
    """Value, error and number of maps of the statistics of shifts (n,) of maps of true values."""
    found = {
        "estimate_shift": (*_mean(shift, groups), len(shift)),
        "shift_scatter": (*_scatter(shift, groups), len(shift)),
    }
    classes, sizes = np.unique(values, return_counts=True)
    means = [_mean(shift[values == one], groups[values == one]) for one in classes]
    for one, mean, size in zip(classes, means, sizes, strict=True):
        found[f"{CLASS_SHIFT}{one:g}"] = (*mean, int(size))
        found[f"{CLASS_AREAS}{one:g}"] = (np.unique(groups[values == one]).size, np.nan, int(size))
    if classes.size > 1:
        # Least squares weigh the classes' means, whose errors are independent: an area has a value.
        weights = sizes * (classes - values.mean()) / np.sum((values - values.mean()) ** 2)
        shifts, errors = np.transpose(means)
        slope, error = weights @ shifts, np.linalg.norm(weights * errors)
        found["shift_slope"] = (float(slope), float(error), len(shift))
    return found


def _mean(numbers: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Mean of numbers (n,) and its error from the scatter of whole groups; NaN with only one.

    Of shares of single maps, that is the binomial error.
    """
    numbers = np.asarray(numbers, float)
    mean = numbers.mean()
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], numbers - mean)
    if sums.size < 2:
        return float(mean), np.nan
    error = np.sqrt(np.sum(sums**2) * sums.size / (sums.size - 1)) / numbers.size
    return float(mean), float(error)


def _scatter(numbers: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Standard deviation of numbers (n,) and its error, by that of the mean square."""
    square, error = _mean((numbers - numbers.mean()) ** 2, groups)
    scatter = np.sqrt(square)
    return float(scatter), float(error / (2 * scatter)) if scatter > 0 else np.nan


def _confusion(
    classifier: Classifier, values: np.ndarray, found: np.ndarray
) -> dict[tuple[float, float], tuple[float, int]]:
    """Share of the maps of each true class that are put into each class, and their number."""
    return {
        (float(true), float(one)): (float(np.mean(found[values == true] == one)), int(count))
        for true, count in zip(*np.unique(values, return_counts=True), strict=True)
        for one in classifier.classes
    }
