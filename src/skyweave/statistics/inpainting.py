"""What filled holes are worth, pixel by pixel: errors, the law of the values, and the holes' edges.

Tables have columns `statistic`, `ell` (not a number where there is none), `value`, `error` and `n`;
profiles have `x` in place of `ell`. Errors are delete-one
jackknife over the n patches that tell of a statistic: those with holes, of what is in holes. On the
same patches truth and filled maps are left out together, so that what the sky scatters in both
cancels. Patches are taken as independent of each other. Crops of one map are slightly not, as they
share its largest waves and may overlap: errors are then a little small. Values are in units of the
field's rms, that of the true maps around their mean.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.reconstruction import jackknife

#: Edges of the histograms of pixels in holes; what lies beyond counts in the last bins.
EDGES = np.linspace(-5, 5, 51)

#: Distances along an axis, pixels, over which holes and what is outside are correlated.
DISTANCES = (1, 2, 3, 4)

#: A statistic, its `ell` or `x`, values and errors, all of which broadcast, and n.
Row = tuple[str, ArrayLike, ArrayLike, ArrayLike, int]

_PARTS = ("hole", "valid", "all")


@dataclass(frozen=True, eq=False)
class Holed:
    """True maps (n, y, x) of a unit, and `holes` (n, y, x): True where they were missing.

    Raises `UserError` for shapes that do not fit, and values that are not finite.
    """

    truth: np.ndarray
    holes: np.ndarray
    grid: PatchGrid

    def __post_init__(self) -> None:
        shape = (len(self.truth), self.grid.pixels, self.grid.pixels)
        for name, array in (("truth", self.truth), ("holes", self.holes)):
            if array.shape != shape or not len(array):
                raise UserError(name, f"shape (n, {shape[1]}, {shape[2]})", array.shape)
        self.check(self.truth, "truth")

    def check(self, maps: np.ndarray, where: str = "filled maps") -> np.ndarray:
        """The maps; `UserError` for another shape or values that are not finite."""
        if maps.shape != self.truth.shape:
            raise UserError(where, f"shape {self.truth.shape}", maps.shape)
        broken = ~np.isfinite(maps).all(axis=(1, 2))
        if broken.any():
            found = f"others in {broken.sum()} of {len(maps)} patches, first {broken.argmax()}"
            raise UserError(where, "finite values", found)
        return maps

    @property
    def shared(self) -> bool:
        """Whether all patches have the same hole."""
        return bool((self.holes == self.holes[:1]).all())

    @cached_property
    def mean(self) -> float:
        """Mean of the true maps."""
        return float(self.truth.mean(dtype=float))

    @cached_property
    def rms(self) -> float:
        """The rms of the true maps around their mean."""
        mean, square = self.moments.mean(axis=0)
        return float(np.sqrt(square - mean**2))

    @cached_property
    def moments(self) -> np.ndarray:
        """Mean and mean square (n, 2) of each true map, less the mean of all."""
        apart = [np.asarray(one, float) - self.mean for one in self.truth]
        return np.array([(one.mean(), np.square(one).mean()) for one in apart])

    @cached_property
    def inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels in holes, by their place in all maps one behind the other, and their patches."""
        places = np.flatnonzero(self.holes)
        return places, places // self.holes[0].size

    @cached_property
    def pairs(self) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """By distance: places of pixels in a hole, of their neighbours outside, and patches."""
        return {distance: _pairs(self.holes, distance) for distance in DISTANCES}

    def units(self, maps: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Values at some places, less the field's mean and in units of its rms."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (maps.reshape(-1)[places].astype(float) - self.mean) / self.rms


def truth_rows(holed: Holed) -> pd.DataFrame:
    """Rows of the true maps: `field_rms`, and `area`, the share of the pixels in holes."""
    count = len(holed.truth)
    rms = jackknife(holed.moments, _std)
    area = jackknife(holed.holes.mean(axis=(1, 2))[:, None], lambda mean: mean[..., 0])
    return table([("field_rms", np.nan, *rms, count), ("area", np.nan, *area, count)])


def error_rows(holed: Holed, filled: np.ndarray) -> pd.DataFrame:
    """Rows of how far filled maps (n, y, x) are from the truth, in units of the field's rms.

    `error_mean_…`, `error_rms_…` and `error_std_…`: mean, rms and standard deviation of |filled -
    truth| over the pixels of `hole`, of `valid` (seen) and `all`. `seen_change_max` is the largest
    |filled - truth| of a seen pixel in the maps' unit, without an error.
    """
    sums, largest = error_sums(holed, filled)
    rows: list[Row] = [("seen_change_max", np.nan, largest, np.nan, len(sums))]
    names = [f"error_{kind}" for kind in ("mean", "rms", "std")]
    for part, of in zip(_PARTS, (sums[:, 0], sums[:, 1], sums.sum(axis=1)), strict=True):
        live = of[:, 0] > 0
        values, errors = _jackknife(np.hstack([of, holed.moments])[live], _relative, len(names))
        for name, value, error in zip(names, values, errors, strict=True):
            rows.append((f"{name}_{part}", np.nan, value, error, live.sum()))
    return table(rows)


def ratio_rows(
    holed: Holed, filled: np.ndarray, other: np.ndarray, statistic: str = "error_ratio"
) -> pd.DataFrame:
    """The rms error in holes of maps (n, y, x) over that of others, on the same patches."""
    both = np.hstack([error_sums(holed, maps)[0][:, 0] for maps in (filled, other)])
    both = both[both[:, 0] > 0][:, [2, 5]]
    value, error = _jackknife(both, lambda mean: np.sqrt(mean[..., 0] / mean[..., 1]))
    return table([(statistic, np.nan, value, error, len(both))])


def spread_rows(
    holed: Holed, filled: np.ndarray, other: np.ndarray, statistic: str
) -> pd.DataFrame:
    """The standard deviation in holes of maps (n, y, x) over that of others, on the same patches.

    It is that of the pixels of all holes together, as in `value_rows`. Both lose a patch together,
    so that the error lacks what they share.
    """
    places, patch = holed.inside
    sums = [np.bincount(patch, minlength=len(filled))]
    for maps in (filled, other):
        values = holed.units(holed.check(maps), places)
        sums += [np.bincount(patch, x, len(filled)) for x in (values, values * values)]
    both = np.stack(sums, axis=1)
    both = both[both[:, 0] > 0]
    value, error = _jackknife(both, _spread_ratio)
    return table([(statistic, np.nan, value, error, len(both))])


def error_sums(holed: Holed, filled: np.ndarray) -> tuple[np.ndarray, float]:
    """Number, sum of |d| and of d² (n, 2, 3) of the pixels in holes and seen; largest |d| seen."""
    holed.check(filled)
    sums, largest = np.zeros((len(filled), 2, 3)), 0.0
    for index, hole in enumerate(holed.holes):
        apart = np.abs(filled[index] - holed.truth[index])
        for part, keep in enumerate((hole, ~hole)):
            of = apart[keep].astype(float)
            sums[index, part] = len(of), of.sum(), of @ of
        largest = max(largest, float(np.max(apart, where=~hole, initial=0)))
    return sums, largest


def value_rows(holed: Holed, filled: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the law of the pixels in holes of filled maps (n, y, x), and its profile.

    Over the pixels of all holes together: `std_ratio`, their standard deviation over the truth's;
    `mean_shift`, their mean less the truth's in units of the field's rms; `skewness` and (excess)
    `kurtosis`; `wasserstein`, the area between the cumulative distributions of filled and true
    pixels, in units of the rms (1-Wasserstein), and `ks`, the largest distance of the two, both on
    the bins of `EDGES`. Distances are biased up by what the finite set scatters. The profile
    `density` is the histogram per unit of rms at the bins' centres `x`.
    """
    holed.check(filled)
    places, patch = holed.inside
    number = np.bincount(patch, minlength=len(filled))
    live = number > 0
    moments, counts = [number[:, None]], []
    for maps in (filled, holed.truth):
        values = holed.units(maps, places)
        square = values * values
        powers = (values, square, square * values, square * square)
        moments.append(np.stack([np.bincount(patch, x, len(filled)) for x in powers], axis=1))
        counts.append(_histograms(values, patch, len(filled)))
    values, errors = _jackknife(np.hstack(moments)[live], _law, len(_LAW))
    rows: list[Row] = [
        (name, np.nan, value, error, live.sum())
        for name, value, error in zip(_LAW, values, errors, strict=True)
    ]
    both = np.stack(counts, axis=1)[live]
    values, errors = _jackknife(both, _distances, 2)
    for name, value, error in zip(("wasserstein", "ks"), values, errors, strict=True):
        rows.append((name, np.nan, value, error, live.sum()))
    width = EDGES[1] - EDGES[0]
    density = _jackknife(both[:, 0], lambda mean: _shares(mean) / width, len(EDGES) - 1)
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    return table(rows), table([("density", centres, *density, live.sum())], "x")


def edge_rows(holed: Holed, filled: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of how filled maps (n, y, x) go on across the edges of holes, and their profile.

    Pairs of pixels, one in a hole and one outside, lie a distance apart along an axis.
    `edge_correlation` is the correlation coefficient of neighbours, over distances `x` (pixels) in
    the profile; `edge_step_ratio` is the rms step from neighbour to neighbour over the truth's,
    which tells more where pixels are small and all correlations near 1.
    """
    holed.check(filled)
    rows: list[Row] = []
    profiles: list[Row] = []
    for distance, (inside, outside, patch) in holed.pairs.items():
        x, y = holed.units(filled, inside), holed.units(filled, outside)
        step = holed.units(holed.truth, inside) - holed.units(holed.truth, outside)
        products = [np.ones(len(x)), x, y, x * x, y * y, x * y, (x - y) ** 2, step**2]
        sums = np.stack([np.bincount(patch, p, len(filled)) for p in products], axis=1)
        sums = sums[sums[:, 0] > 0]
        found = _jackknife(sums, _correlation)
        profiles.append(("edge_correlation", distance, *found, len(sums)))
        if distance == 1:
            rows.append(("edge_correlation", np.nan, *found, len(sums)))
            ratio = _jackknife(sums, lambda mean: np.sqrt(mean[..., 6] / mean[..., 7]))
            rows.append(("edge_step_ratio", np.nan, *ratio, len(sums)))
    return table(rows), table(profiles, "x")


def table(rows: Iterable[Row], place: str = "ell") -> pd.DataFrame:
    """Rows as a table in long form; `place` names the column of the second."""
    numbers: list[np.ndarray] = []
    names: list[str] = []
    for statistic, *values in rows:
        of = np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, float)) for x in values))
        numbers.append(np.stack(of, axis=1))
        names += [statistic] * len(numbers[-1])
    columns = (place, "value", "error", "n")
    found = dict(zip(columns, np.concatenate([np.empty((0, 4)), *numbers]).T, strict=True))
    return pd.DataFrame({"statistic": names, **found, "n": found["n"].astype(int)})


_LAW = ("std_ratio", "mean_shift", "skewness", "kurtosis")


def _jackknife(
    samples: np.ndarray, statistic: Callable, size: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """`jackknife` with the values on the first axis; all NaN without samples."""
    if not len(samples):
        return np.full(size, np.nan), np.full(size, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        value, error = jackknife(samples, statistic)
    return np.atleast_1d(value), np.atleast_1d(error)


def _std(mean: np.ndarray) -> np.ndarray:
    """Means of a value and its square on the last axis to the standard deviation."""
    return np.sqrt(np.maximum(mean[..., 1] - mean[..., 0] ** 2, 0))


def _spread_ratio(mean: np.ndarray) -> np.ndarray:
    """Number and sums of a value and its square, of maps and of others, to the ratio of std."""
    of = mean[..., 1:] / mean[..., :1]
    return _std(of[..., :2]) / _std(of[..., 2:])


def _relative(mean: np.ndarray) -> np.ndarray:
    """Number, |d|, d² and the truth's moments to mean, rms and std of |d| over the field's rms."""
    size, square = mean[..., 1] / mean[..., 0], mean[..., 2] / mean[..., 0]
    std = np.sqrt(np.maximum(square - size**2, 0))
    return np.stack([size, np.sqrt(square), std], axis=-1) / _std(mean[..., 3:])[..., None]


def _law(mean: np.ndarray) -> np.ndarray:
    """Number and sums of four powers, filled and true, to the statistics of `_LAW`."""
    first, *_ = made = _central(mean[..., 1:5] / mean[..., :1])
    true = _central(mean[..., 5:] / mean[..., :1])
    return np.stack(
        [
            np.sqrt(made[1] / true[1]),
            first - true[0],
            made[2] / made[1] ** 1.5,
            made[3] / made[1] ** 2 - 3,
        ],
        axis=-1,
    )


def _central(raw: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean and second to fourth central moment of four raw ones on the last axis."""
    m, s, t, q = np.moveaxis(raw, -1, 0)
    return m, s - m**2, t - 3 * m * s + 2 * m**3, q - 4 * m * t + 6 * m**2 * s - 3 * m**4


def _histograms(values: np.ndarray, patch: np.ndarray, count: int) -> np.ndarray:
    """Numbers (count, bins) of the values in the bins of `EDGES`, patch by patch."""
    bins = len(EDGES) - 1
    place = np.clip(np.searchsorted(EDGES, values, side="right") - 1, 0, bins - 1)
    return np.bincount(patch * bins + place, minlength=count * bins).reshape(count, bins)


def _shares(mean: np.ndarray) -> np.ndarray:
    return mean / mean.sum(axis=-1, keepdims=True)


def _distances(mean: np.ndarray) -> np.ndarray:
    """Histograms of filled and true pixels on axis -2 to their 1-Wasserstein and KS distances."""
    apart = np.cumsum(_shares(mean), axis=-1)
    apart = np.abs(apart[..., 0, :] - apart[..., 1, :])
    return np.stack([apart.sum(axis=-1) * (EDGES[1] - EDGES[0]), apart.max(axis=-1)], axis=-1)


def _correlation(mean: np.ndarray) -> np.ndarray:
    """Number and sums of x, y, x², y², xy, … to the correlation coefficient."""
    x, y, xx, yy, xy = np.moveaxis(mean[..., 1:6] / mean[..., :1], -1, 0)
    return (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))


def _pairs(holes: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inside, outside = [], []
    for axis in (1, 2):
        size = holes.shape[axis]
        near = holes.take(range(size - distance), axis)
        far = holes.take(range(distance, size), axis)
        place = list(np.nonzero(near != far))
        holed = near[tuple(place)]
        low = np.ravel_multi_index(tuple(place), holes.shape)
        place[axis] = place[axis] + distance
        high = np.ravel_multi_index(tuple(place), holes.shape)
        inside.append(np.where(holed, low, high))
        outside.append(np.where(holed, high, low))
    one = np.concatenate(inside)
    return one, np.concatenate(outside), one // holes[0].size
