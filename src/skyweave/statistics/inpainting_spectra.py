"""What filled maps are worth as maps: their power spectra, and their Minkowski functionals.

Patches are cut from a larger sky and do not close on themselves: true and filled maps lose their
own weighted mean and are multiplied by the same cosine window, a tenth of the side wide at each
edge. Tables and errors are those of `statistics.inpainting`: patches are taken as independent,
which crops of one map are only nearly.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation

from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.statistics.fidelity import ELL
from skyweave.statistics.flat_spectra import CHUNK, auto_and_cross, default_bins
from skyweave.statistics.inpainting import Holed, Row, table
from skyweave.statistics.minkowski import STATISTICS, functionals
from skyweave.statistics.namaster import Workspaces, apodized, spectra
from skyweave.statistics.reconstruction import jackknife
from skyweave.statistics.superposition import mean_distance, superposition
from skyweave.statistics.windows import RISE, TAPER

#: Thresholds of Minkowski functionals, in units of the field's rms.
THRESHOLDS = np.linspace(-3, 3, 25)

#: Groups of neighbouring bands below `ELL`, over which a ratio is averaged.
WIDE = 4

#: Largest patch, pixels a side, and largest hole, share of it, that NaMaster decouples: a matrix
#: takes time as the square of the number of pixels, and what is left of a patch around a larger
#: hole does not resolve the bands.
_MOST_PIXELS, _MOST_AREA = 256, 0.5

#: Most patches decoupled each with a matrix of its own, of which one takes 0.05 s at 64 pixels a
#: side and 0.4 s at 128.
_MOST_MATRICES = 16


def power_rows(holed: Holed, filled: np.ndarray) -> pd.DataFrame:
    """Rows of the power spectrum of filled maps (n, y, x) beside the truth's, by band.

    `power_filled` and `power_truth` (C_ell, unit² sr), `power_ratio` of the two, and the
    `correlation` coefficient of filled and true modes. `power_ratio_wide` is the ratio's mean over
    each of `WIDE` groups of neighbouring bands with centres below `ELL`, each band with the same
    weight, at the mean `ell` of their centres. Bands are those of `default_bins`.
    """
    grid = holed.grid
    bins, window = default_bins(grid), cosine_taper(grid, TAPER * grid.size_deg)
    sums = _windowed(holed.check(filled), holed.truth, grid, bins, window)
    ell, count = bins.centres(grid), len(sums)
    rows: list[Row] = [
        (name, ell, *_jackknife(sums, of), count)
        for name, of in (
            ("power_filled", lambda mean: mean[..., 0, :]),
            ("power_truth", lambda mean: mean[..., 1, :]),
            ("power_ratio", _ratio),
            ("correlation", _correlation),
        )
    ]
    for group in _groups(ell):
        wide = _jackknife(sums, lambda mean, of=group: _ratio(mean)[..., of].mean(axis=-1))
        rows.append(("power_ratio_wide", ell[group].mean(), *wide, count))
    return table(rows)


def masked_rows(holed: Holed, workspaces: Workspaces) -> pd.DataFrame:
    """Rows `power_ratio_namaster`: the spectrum of what was seen over that of the whole truth.

    NaMaster decouples the spectrum of the maps outside their holes, which rise over a twentieth of
    the side, and that of the whole maps, both under the window at the patch's edge. Into the last
    band leaks what lies beyond the bands, more so with a hole. Each hole needs a matrix of its own:
    where patches have different holes, up to `_MOST_MATRICES` of those with holes, spread evenly,
    tell, and n is their number. The ratio of so few scatters by far more than that of all patches
    would. No rows beyond 256 pixels a side, nor of holes larger than half the patch.
    """
    grid, area = holed.grid, holed.holes.mean(axis=(1, 2))
    used = np.flatnonzero(area <= _MOST_AREA)
    if not holed.shared:
        used = _evenly(used[area[used] > 0], _MOST_MATRICES)
    if grid.pixels > _MOST_PIXELS or not len(used):
        return table([])
    window = cosine_taper(grid, TAPER * grid.size_deg)
    truth, holes = holed.truth[used], holed.holes[used[:1] if holed.shared else used]
    seen = np.stack([window * apodized(~hole, grid, RISE * grid.size_deg) for hole in holes])
    sums = np.stack(
        [spectra(truth, one, workspaces) for one in (seen[0] if holed.shared else seen, window)],
        axis=1,
    )
    ratio = _jackknife(sums, _ratio)
    ell = workspaces.bins.centres(grid)
    return table([("power_ratio_namaster", ell, *ratio, len(used))])


class Shapes:
    """Minkowski functionals of the true maps in and around their holes.

    Read on the cells of holes grown by one pixel, so that their edges count, at `THRESHOLDS` around
    the field's mean; v1 is per pixel and v2 per pixel squared. Patches without holes are left out.
    """

    def __init__(self, holed: Holed) -> None:
        self._holed = holed
        self._live = np.flatnonzero(holed.holes.any(axis=(1, 2)))
        self._masks = binary_dilation(holed.holes[self._live], np.ones((1, 3, 3), bool))
        self._levels = holed.mean + holed.rms * THRESHOLDS
        self._curves = self._of(holed.truth)

    def rows(self, filled: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Rows of filled maps (n, y, x), and the profiles `v0`, `v1` and `v2` over thresholds `x`.

        `minkowski_distance_…` is that of the mean curves in units of one patch's scatter
        (`superposition.mean_distance`), `minkowski_overlap_…` that of the bands of one standard
        deviation (`superposition.superposition`), of each functional.
        """
        curves = self._of(self._holed.check(filled))
        rows: list[Row] = [
            (f"minkowski_{name}_{functional}", np.nan, value, error, len(curves))
            for name, measure in (("distance", mean_distance), ("overlap", superposition))
            for functional, value, error in zip(
                STATISTICS, *_left_out(curves, self._curves, measure), strict=True
            )
        ]
        return table(rows), self._profiles(curves)

    def truth(self) -> pd.DataFrame:
        """The profiles of the true maps."""
        return self._profiles(self._curves)

    def _of(self, maps: np.ndarray) -> np.ndarray:
        """Functionals (m, 3, k) of the patches with holes."""
        if not len(self._live) or not self._holed.rms > 0:
            return np.full((len(self._live), 3, len(THRESHOLDS)), np.nan)
        return functionals(maps[self._live], self._levels, self._masks)

    @staticmethod
    def _profiles(curves: np.ndarray) -> pd.DataFrame:
        count = len(curves)
        if not count:
            return table([], "x")
        mean, error = jackknife(curves, lambda mean: mean)
        rows = zip(STATISTICS, mean, error, strict=True)
        return table([(name, THRESHOLDS, value, of, count) for name, value, of in rows], "x")


def _windowed(
    maps: np.ndarray, others: np.ndarray, grid: PatchGrid, bins: Bins, window: np.ndarray
) -> np.ndarray:
    """Spectra (n, 3, bands) of maps, of others and between them, each without its mean."""
    found = []
    for start in range(0, len(maps), CHUNK):
        first, second = (
            _tapered(one[start : start + CHUNK].astype(float), window) for one in (maps, others)
        )
        found.append(np.stack(auto_and_cross(first, second, grid, bins, taper=window), axis=1))
    return np.concatenate(found)


def _tapered(maps: np.ndarray, window: np.ndarray) -> np.ndarray:
    mean = np.average(maps.reshape(len(maps), -1), axis=1, weights=window.ravel())
    return (maps - mean[:, None, None]) * window


def _jackknife(sums: np.ndarray, statistic: Callable) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return jackknife(sums, statistic)


def _ratio(mean: np.ndarray) -> np.ndarray:
    return mean[..., 0, :] / mean[..., 1, :]


def _correlation(mean: np.ndarray) -> np.ndarray:
    return mean[..., 2, :] / np.sqrt(mean[..., 0, :] * mean[..., 1, :])


def _evenly(places: np.ndarray, most: int) -> np.ndarray:
    """At most so many of some places, from the first to the last."""
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).astype(int)]


def _groups(ell: np.ndarray) -> list[np.ndarray]:
    """Places of the bands in each wide band."""
    low = np.flatnonzero(ell < ELL)
    return [group for group in np.array_split(low, WIDE) if len(group)]


def _left_out(
    curves: np.ndarray, others: np.ndarray, measure: Callable
) -> tuple[np.ndarray, np.ndarray]:
    """A measure (3,) of two sets of curves (m, 3, k), and its jackknife errors over patches.

    Scatter needs two patches, and three for its error.
    """
    count, unknown = len(curves), np.full(len(STATISTICS), np.nan)
    if count < 2:
        return unknown, unknown
    value = measure(curves, others, THRESHOLDS)
    if count < 3:
        return value, unknown
    keep = ~np.eye(count, dtype=bool)
    found = np.stack([measure(curves[rows], others[rows], THRESHOLDS) for rows in keep])
    return value, np.sqrt((count - 1) * found.var(axis=0))
