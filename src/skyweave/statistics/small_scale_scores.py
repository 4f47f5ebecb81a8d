"""How near small scales that were made come to the true ones: scores of sets of patches."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd

from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.minkowski import STATISTICS, THRESHOLDS, functionals, scaled
from skyweave.statistics.namaster import spectra
from skyweave.statistics.small_scales import (
    Shape,
    bispectrum,
    input_output_correlation,
    one_point,
    one_point_distance,
    triangles,
)
from skyweave.statistics.superposition import (
    mean_distance,
    superposition,
    superposition_ceiling,
)
from skyweave.statistics.windows import Windows

#: Edges of the histograms of maps scaled to [-1, 1].
EDGES = np.linspace(-1, 1, 41)

#: A beam's share of the power, up to which spectra are compared: of the high resolution, and of the
#: low one for what its patches still say of a multipole; and from which on scales are small.
_HIGH_END, _LOW_END, _SMALL = 0.1, 1e-3, 0.5
#: Bands of the bispectra above the first, which holds the long waves up to 2.5 times the longest.
_BANDS = 6
_LONG = (0.5, 2.5)
_SHAPES: tuple[Shape, ...] = ("equilateral", "squeezed")
#: Share of a patch's median below which it is not divided by.
_FAINTEST = 1e-3
#: Resamplings of the patches for an error.
_DRAWS = 200
_CEILING_LOW = 0.025


@dataclass(frozen=True)
class SmallScaleStatistics:
    """What is measured of n patches at high resolution, and of their ratio to the low one.

    `cl` (n, nbins): decoupled spectra at `ell`. `curves` (n, 3, 32): Minkowski functionals, and
    `densities` (n, 40): histograms, both of maps scaled to [-1, 1], by field (high, ratio).
    `bispectra` (n, m) at `bispectra_ell` of the two short sides, by shape, of patches in units of
    the rms of their small scales, sr². `correlation` (n, nbins) with the patch at low resolution.
    """

    ell: np.ndarray
    cl: np.ndarray
    curves: Mapping[str, np.ndarray]
    densities: Mapping[str, np.ndarray]
    bispectra: Mapping[str, np.ndarray]
    bispectra_ell: Mapping[str, np.ndarray]
    correlation: np.ndarray

    @classmethod
    def measure(
        cls, high: np.ndarray, low: np.ndarray, windows: Windows, high_arcmin: float
    ) -> Self:
        """Of patches (n, y, x) in one unit; `low` is positive, as dust is."""
        grid, keep, weights = windows.workspaces.grid, windows.keep, windows.weights
        high, low = np.asarray(high, float), np.asarray(low, float)
        floor = _FAINTEST * np.median(low, axis=(1, 2), keepdims=True)
        fields = {"ratio": high / np.maximum(low, floor), "high": high}
        normal = {name: scaled(maps, keep) for name, maps in fields.items()}
        difference = np.where(keep, high - low, 0)
        rms = np.sqrt(np.sum(difference**2, axis=(1, 2)) / keep.sum(axis=(1, 2)))
        bins = _bispectrum_bins(grid, high_arcmin)
        return cls(
            ell=windows.ell,
            cl=spectra(high, weights, windows.workspaces),
            curves={name: functionals(maps, THRESHOLDS, keep) for name, maps in normal.items()},
            densities={name: one_point(maps, EDGES, keep) for name, maps in normal.items()},
            bispectra={
                shape: bispectrum(high / rms[:, None, None], grid, bins, weights, shape=shape)
                for shape in _SHAPES
            },
            bispectra_ell={shape: triangles(grid, bins, shape).ell[:, 1] for shape in _SHAPES},
            correlation=input_output_correlation(low, high, grid, windows.workspaces.bins, weights),
        )

    def take(self, rows: np.ndarray) -> Self:
        """The same of some of the patches."""

        def of(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: one[rows] for name, one in values.items()}

        return replace(
            self,
            cl=self.cl[rows],
            correlation=self.correlation[rows],
            curves=of(self.curves),
            densities=of(self.densities),
            bispectra=of(self.bispectra),
        )


def _bispectrum_bins(grid: PatchGrid, high_arcmin: float) -> Bins:
    """A band of long waves, and bands up to the beam's end, whose triangles do not alias."""
    low, high = (factor * grid.ell_fundamental for factor in _LONG)
    end = min(beam_multipole(high_arcmin, _HIGH_END), 2 / 3 * grid.ell_nyquist)
    return Bins((low, *np.linspace(high, max(end, 2 * high), _BANDS + 1).tolist()))


def beam_multipole(fwhm_arcmin: float, share: float) -> float:
    """The multipole where a Gaussian beam leaves this share of the power."""
    return float(np.sqrt(-8 * np.log(2) * np.log(share)) / np.radians(fwhm_arcmin / 60))


def scores(
    made: SmallScaleStatistics,
    truth: SmallScaleStatistics,
    low_arcmin: float,
    high_arcmin: float,
) -> dict[tuple[str, str], float]:
    """Scores by (field, statistic); overlaps are best at 1, all others are distances, best at 0.

    Fields ratio and high: `overlap_v0` … `overlap_v2` and `distance_v0` … of the Minkowski
    functionals (`superposition`, `mean_distance`), `one_point` (Wasserstein). Field high:
    `spectrum`, the mean over bands of small scales of abs(log of the medians' ratio); bispectra,
    the rms over bands of the difference of means in units of the true mean's error;
    `input_correlation`, the rms over bands of the difference of mean correlations.
    """
    found = {}
    for field in truth.curves:
        pair = made.curves[field], truth.curves[field]
        for prefix, function in (("overlap", superposition), ("distance", mean_distance)):
            for name, value in zip(STATISTICS, function(*pair), strict=True):
                found[field, f"{prefix}_{name}"] = float(value)
        densities = made.densities[field], truth.densities[field]
        found[field, "one_point"] = one_point_distance(*densities, EDGES)
    ell = truth.ell
    small = ell > beam_multipole(low_arcmin, _SMALL)
    small &= ell < beam_multipole(high_arcmin, _HIGH_END)
    medians = [np.median(one.cl[:, small], axis=0) for one in (made, truth)]
    with np.errstate(invalid="ignore", divide="ignore"):
        found["high", "spectrum"] = float(np.mean(np.abs(np.log(medians[0] / medians[1]))))
    for shape in _SHAPES:
        true = truth.bispectra[shape]
        error = true.std(axis=0, ddof=1) / np.sqrt(len(true))
        with np.errstate(invalid="ignore", divide="ignore"):
            away = (made.bispectra[shape].mean(axis=0) - true.mean(axis=0)) / error
        found["high", f"bispectrum_{shape}"] = float(np.sqrt(np.nanmean(away**2)))
    large = ell < beam_multipole(low_arcmin, _LOW_END)
    apart = (made.correlation - truth.correlation)[:, large].mean(axis=0)
    found["high", "input_correlation"] = float(np.sqrt(np.mean(apart**2)))
    return found


def resampled(count: int, rng: np.random.Generator, blocks: np.ndarray | None = None) -> np.ndarray:
    """Patches of a bootstrap: as many, or as many blocks (count,) of them, drawn with return."""
    if blocks is None:
        return rng.integers(count, size=count)
    names = np.unique(blocks)
    chosen = rng.choice(names, len(names))
    return np.concatenate([np.flatnonzero(blocks == name) for name in chosen])


def sky_blocks(lon: np.ndarray, lat: np.ndarray, size_deg: float) -> np.ndarray | None:
    """Numbers (n,) of the HEALPix cells, as wide as a patch or wider, that patches lie in.

    Patches of one cell overlap, those of others less or not. None where they lie in fewer than
    four cells, which say nothing of their scatter.
    """
    import healpy

    cell_deg = np.degrees(healpy.nside2resol(1))
    nside = 2 ** max(int(np.floor(np.log2(cell_deg / size_deg))), 0)
    cells = healpy.ang2pix(nside, lon, lat, lonlat=True)
    return cells if len(np.unique(cells)) >= 4 else None


def score_table(
    truth: SmallScaleStatistics,
    methods: Mapping[str, SmallScaleStatistics],
    rng: np.random.Generator,
    *,
    low_arcmin: float,
    high_arcmin: float,
    baseline: str,
    names: Mapping[str, str],
    blocks: np.ndarray | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of each method with errors, and the others' gains over `baseline`.

    Columns of the first, behind `names`: field, method, statistic, value, error, ceiling (what two
    sets of as many patches of the true law reach, for overlaps), ceiling_low (the quantile below
    which two sets are different), n; of the second: field, method, statistic, gain (above 0 is
    better than the baseline), error. Errors by bootstrap, the same draws for all: of patches, or
    of `blocks` (n,) of them, by number, that share some of their sky. The ceiling comes from
    halves of the true patches, whose overlap is as far from 1 as that of whole sets times √2.
    """
    beams = low_arcmin, high_arcmin
    count = len(truth.cl)
    drawn = [resampled(count, rng, blocks) for _ in range(_DRAWS)]
    values, samples = {}, {}
    for name, made in methods.items():
        values[name] = scores(made, truth, *beams)
        each = [scores(made.take(rows), truth.take(rows), *beams) for rows in drawn]
        samples[name] = {key: np.array([one[key] for one in each]) for key in values[name]}
    ceilings = {
        field: 1 - (1 - superposition_ceiling(curves, rng)) / np.sqrt(2)
        for field, curves in truth.curves.items()
    }
    rows, gains = [], []
    for name in methods:
        for (field, statistic), value in values[name].items():
            row = {**names, "field": field, "method": name, "statistic": statistic}
            error = float(np.std(samples[name][field, statistic], ddof=1))
            ceiling = ceiling_low = np.nan
            sign = -1.0
            if statistic.startswith("overlap_"):
                reached = ceilings[field][:, STATISTICS.index(statistic.removeprefix("overlap_"))]
                ceiling, ceiling_low = reached.mean(), np.quantile(reached, _CEILING_LOW)
                sign = 1.0
            numbers = {"value": value, "error": error, "ceiling": ceiling}
            rows.append(row | numbers | {"ceiling_low": ceiling_low, "n": count})
            if name != baseline:
                key = field, statistic
                gain = sign * (value - values[baseline][key])
                error = float(np.std(samples[name][key] - samples[baseline][key], ddof=1))
                gains.append(row | {"gain": gain, "error": error})
    return pd.DataFrame(rows), pd.DataFrame(gains)
