"""Maps' Gaussian posteriors, drawn, and their test with random points.

A patch's posterior is the prediction and a Gaussian residual: a stationary field times the taper,
whose spectrum, seen through the taper, is the residual's on other patches.
"""

from collections.abc import Callable

import numpy as np

from skyweave.flat.fourier import Bins, bin_power, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.coverage import Tarp, expected_coverage
from skyweave.statistics.flat_spectra import CHUNK
from skyweave.statistics.reconstruction import live_spectra

#: Residuals drawn, for all patches the same: the curve of TARP is then known to 0.016 or better.
DRAWS = 1000

#: Corrections of a spectrum for what the taper does to it; the last changes it by less than 1 %.
_ITERATIONS = 5


def map_tarp(
    prediction: np.ndarray,
    truth: np.ndarray,
    power: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    rng: np.random.Generator,
    *,
    taper: np.ndarray | None = None,
    draws: int = DRAWS,
) -> Tarp | None:
    """TARP of posteriors whose residual has the spectrum `power` (bands,) seen through `taper`.

    Maps are (n, y, x), carry the taper, and count where the truth is not zero everywhere; below
    two such patches, or with a band without power, there is no answer. A patch's reference is the
    truth of the next one. The distance of two maps is that of their Fourier modes in the bands,
    each mode over the square root of its band's residual power and number of modes: every band
    has the same say, however much power it holds and however many modes. `draws` residuals
    of `rng` serve all patches.
    """
    live = np.flatnonzero(truth.any(axis=(1, 2)))
    if live.size < 2 or not (power > 0).all():
        return None
    shape = (draws, grid.pixels, grid.pixels)
    scale = _scale(power, grid, bins)
    spectrum = unfolded(power, grid, bins, taper)
    residuals = np.empty((draws, 2 * np.count_nonzero(scale)), np.float32)
    for start in range(0, draws, CHUNK):
        rows = slice(start, min(start + CHUNK, draws))
        white = rng.standard_normal((rows.stop - start, *shape[1:]), dtype=np.float32)
        maps = inverse(forward(white, grid) * np.sqrt(spectrum / grid.pixel_rad**2), grid)
        residuals[rows] = _features(maps if taper is None else maps * taper, grid, scale)
    own = np.sum(residuals**2, axis=1, dtype=float)

    references = np.roll(live, -1)
    shares = np.empty(live.size)
    for start in range(0, live.size, CHUNK):
        rows = slice(start, start + CHUNK)
        there = truth[references[rows]]
        # |p + e - r|² < |t - r|² with the product of all patches and residuals at once.
        offset = _features(prediction[live[rows]] - there, grid, scale)
        bar = _features(truth[live[rows]] - there, grid, scale)
        free = np.sum(bar**2, axis=1, dtype=float) - np.sum(offset**2, axis=1, dtype=float)
        inside = own + 2.0 * (offset @ residuals.T) < free[:, None]
        shares[rows] = (inside.sum(axis=1) + 0.5) / (draws + 1)
    return expected_coverage(shares, draws=draws)


def regressed(
    prediction: np.ndarray, truth: np.ndarray, grid: PatchGrid, bins: Bins
) -> Callable[[np.ndarray], np.ndarray]:
    """What takes maps (n, y, x) to the best linear estimate of the truth in each band.

    Modes are multiplied by C_pt / C_pp of `prediction` and `truth` (n, y, x), linear in ell between
    the bands' centres; where there is no prediction, and with no truth that is not zero, by 0.
    """
    sums = live_spectra(prediction, truth, grid, bins)
    auto, _, cross = sums.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.nan_to_num(cross / auto, posinf=0, neginf=0)
    factor = np.interp(grid.ell, bins.centres(grid), slope)

    def apply(maps: np.ndarray) -> np.ndarray:
        return inverse(forward(maps, grid) * factor.astype(maps.dtype), grid)

    return apply


def unfolded(
    power: np.ndarray, grid: PatchGrid, bins: Bins, taper: np.ndarray | None = None
) -> np.ndarray:
    """Spectrum at the grid's modes of a stationary field that shows `power` through a taper.

    Band powers (bands,) are of the field times `taper` (y, x). Between the bands' centres the
    spectrum is a power law, beyond them constant. What the taper does to it is known: the
    covariance of the product is the field's times the autocorrelation of the taper.
    """
    if taper is None:
        taper = np.ones((grid.pixels, grid.pixels))
    centres = bins.centres(grid)
    log_ell = np.log(np.maximum(grid.ell, centres[0]))
    overlap = np.fft.irfft2(np.abs(np.fft.rfft2(taper)) ** 2, s=taper.shape) / taper.size
    wanted = target = np.asarray(power, dtype=float)
    spectrum = np.empty(grid.ell.shape)
    for _ in range(_ITERATIONS):
        spectrum = np.exp(np.interp(log_ell, np.log(centres), np.log(wanted)))
        seen = np.fft.rfft2(np.fft.irfft2(spectrum, s=taper.shape) * overlap).real
        wanted = wanted * target / bin_power(seen, grid, bins)
    return spectrum


def _scale(power: np.ndarray, grid: PatchGrid, bins: Bins) -> np.ndarray:
    """What each mode of the half plane is multiplied by; 0 outside the bands."""
    band = np.digitize(grid.ell, bins.edges) - 1
    inside = (band >= 0) & (band < bins.count)
    band = np.where(inside, band, 0)
    total = (power * bins.modes(grid))[band] * grid.area_sr
    return np.where(inside, np.sqrt(grid.mode_weight / total), 0.0)


def _features(maps: np.ndarray, grid: PatchGrid, scale: np.ndarray) -> np.ndarray:
    """Scaled modes (n, 2 modes) float32 of maps (n, y, x): real, then imaginary parts."""
    inside = scale > 0
    modes = forward(maps, grid)[:, inside] * scale[inside]
    return np.concatenate([modes.real, modes.imag], axis=1).astype(np.float32)
