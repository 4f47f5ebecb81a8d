"""Are error bars right: coverage of pixels, of Fourier modes, and of whole maps (TARP).

An interval of credibility c is calibrated when it holds the truth in a share c of all cases.
Pixels are judged by the standard deviation that a network predicts for each. Modes and maps are
judged by a Gaussian posterior around the prediction, the power of whose residual, prediction less
truth, was measured band by band on other patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from skyweave.flat.fourier import Bins, bin_power, forward
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.flat_spectra import CHUNK, cross_spectra
from skyweave.statistics.reconstruction import jackknife

LEVELS = (0.68, 0.95)

#: Pixels where the taper leaves less than this are not judged: truth and prediction vanish there.
SEEN = 0.1


def pixel_coverage(
    prediction: np.ndarray,
    sigma: np.ndarray,
    truth: np.ndarray,
    levels: Sequence[float] = LEVELS,
    *,
    taper: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Share of pixels whose truth lies in the Gaussian interval of each level, and its error.

    `prediction`, its standard deviation `sigma` and `truth` are (n, y, x) in one unit; pixels
    where `taper` (y, x) is above `SEEN` count. Returns two arrays (levels,), the errors by
    jackknife over patches.
    """
    seen = np.full(truth.shape[1:], True) if taper is None else taper > SEEN
    shares = np.empty((len(truth), len(levels)))
    for start in range(0, len(truth), CHUNK):
        rows = slice(start, start + CHUNK)
        distance = np.abs(prediction[rows] - truth[rows])[:, seen]
        for column, quantile in enumerate(_quantiles(levels)):
            shares[rows, column] = (distance <= quantile * sigma[rows][:, seen]).mean(axis=1)
    return jackknife(shares, lambda mean: mean)


def residual_power(
    prediction: np.ndarray, truth: np.ndarray, grid: PatchGrid, bins: Bins
) -> np.ndarray:
    """Spectra (m, bands) of prediction less truth, of the m patches whose truth is not all zero.

    Of maps (n, y, x) as they are: a taper that they carry is not divided out.
    """
    live = truth.any(axis=(1, 2))
    residual = prediction[live] - truth[live]
    return cross_spectra(residual, residual, grid, bins)


def band_coverage(
    prediction: np.ndarray,
    truth: np.ndarray,
    known: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    levels: Sequence[float] = LEVELS,
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the residual's Fourier modes in the Gaussian interval of each level, and its error.

    Maps are (n, y, x); those whose truth is zero everywhere are left out. `known` (m, bands) is
    the `residual_power` of other patches: its mean P gives the real and the imaginary part of
    each mode of a band the variance P / 2 times the patch's area. Returns two arrays (levels,
    bands), NaN in bands without power. Errors by jackknife over patches, and of what those over
    the other patches do to P: a relative change x of P moves the share within z by z φ(z) x.
    """
    live = np.flatnonzero(truth.any(axis=(1, 2)))
    power, power_error = jackknife(known, lambda mean: mean)
    variance = _on_modes(power, grid, bins) * grid.area_sr / 2
    quantiles = _quantiles(levels)
    shares = np.empty((live.size, len(levels), bins.count))
    for start in range(0, live.size, CHUNK):
        rows = live[start : start + CHUNK]
        modes = forward(prediction[rows] - truth[rows], grid)
        parts = np.stack([modes.real, modes.imag]) ** 2
        for column, quantile in enumerate(quantiles):
            inside = (parts <= quantile**2 * variance).mean(axis=0)
            shares[start : start + len(rows), column] = bin_power(inside, grid, bins)
    shares[..., ~(power > 0)] = np.nan
    value, error = jackknife(shares, lambda mean: mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = (quantiles * stats.norm.pdf(quantiles))[:, None] * (power_error / power)
    return value, np.hypot(error, moved)


@dataclass(frozen=True)
class Tarp:
    """Expected coverage (k,) on a grid of credibility (k,) and its standard error.

    `deviation` is the largest distance from the diagonal, `area` the mean one, `p_value` how
    often a calibrated posterior deviates as much (Kolmogorov-Smirnov), `n` the number of cases.
    """

    credibility: np.ndarray
    coverage: np.ndarray
    error: np.ndarray
    deviation: float
    area: float
    p_value: float
    n: int


def tarp(samples: np.ndarray, truth: np.ndarray, references: np.ndarray) -> Tarp:
    """Test of Accuracy with Random Points (Lemos et al. 2023, arXiv:2302.03026).

    `samples` (s, n, d) of the posteriors of n cases, `truth` (n, d), and points `references`
    (n, d), each drawn without knowledge of its case's truth. Distances are Euclidean.
    """
    return expected_coverage(nearer(samples, truth, references))


def nearer(samples: np.ndarray, truth: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Share (n,) of samples that lie nearer to the reference than the truth; shapes as `tarp`.

    It is uniform between 0 and 1 where the posteriors are right. In steps of 1 / (s + 1), at
    their middle.
    """
    bar = np.sum((truth - references) ** 2, axis=-1)
    inside = np.sum((samples - references) ** 2, axis=-1) < bar
    return (inside.sum(axis=0) + 0.5) / (len(samples) + 1)


def expected_coverage(shares: np.ndarray, *, draws: int | None = None, points: int = 101) -> Tarp:
    """The curve of TARP from the `shares` (n,) of `nearer`, on `points` of credibility.

    `draws` is the number of residuals that all cases share, if they do: the curve then scatters
    as that of fewer cases, n · draws / (n + draws), as the difference of two samples does.
    """
    credibility = np.linspace(0, 1, points)
    shares = np.sort(shares)
    coverage = np.searchsorted(shares, credibility, side="right") / shares.size
    effective = shares.size if draws is None else shares.size * draws / (shares.size + draws)
    error = np.sqrt(credibility * (1 - credibility) / effective)
    deviation = float(stats.kstest(shares, "uniform").statistic)
    area = float(np.trapezoid(np.abs(coverage - credibility), credibility))
    p_value = float(stats.kstwo.sf(deviation, max(round(effective), 1)))
    return Tarp(credibility, coverage, error, deviation, area, p_value, shares.size)


def _quantiles(levels: Sequence[float]) -> np.ndarray:
    """Half-widths (levels,) of the central Gaussian intervals, in standard deviations."""
    return stats.norm.ppf((1 + np.asarray(levels, dtype=float)) / 2)


def _on_modes(values: np.ndarray, grid: PatchGrid, bins: Bins) -> np.ndarray:
    """Values of the bands (bands,) at each mode of the grid, NaN outside."""
    band = np.digitize(grid.ell, bins.edges) - 1
    inside = (band >= 0) & (band < bins.count)
    return np.where(inside, np.asarray(values)[np.where(inside, band, 0)], np.nan)
