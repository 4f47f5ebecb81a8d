"""Binned flat-sky spectra of batches of maps, patch by patch."""

import numpy as np

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid

#: Maps transformed at once: bounds the memory, not the result.
CHUNK = 128


def default_bins(
    grid: PatchGrid, *, ell_min: float | None = None, width: float | None = None
) -> Bins:
    """Bands of equal width from `ell_min` to the grid's Nyquist multipole.

    By default from half the fundamental multipole, so that its modes are in, and twice the
    fundamental wide, so that each band holds a dozen modes or more. Raises `UserError` when no
    band fits.
    """
    start = grid.ell_fundamental / 2 if ell_min is None else ell_min
    width = 2 * grid.ell_fundamental if width is None else width
    if not (start >= 0 and width > 0 and start + width <= grid.ell_nyquist):
        raise UserError(
            "bins", f"a band below the Nyquist multipole {grid.ell_nyquist:.0f}", (start, width)
        )
    return Bins.linear(start, grid.ell_nyquist, width)


def cross_spectra(
    maps_a: np.ndarray,
    maps_b: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    *,
    taper: np.ndarray | None = None,
) -> np.ndarray:
    """Cross-spectra C_ell (n, bins.count) float64 of maps (n, y, x), in the product of their units.

    `taper` (y, x) is one that the maps were already multiplied by: the spectra are divided by its
    mean square, which is right where the spectrum is flat over the taper's own width in ell.
    Raises `UserError` for shapes that differ or do not fit the grid.
    """
    shape = (grid.pixels, grid.pixels)
    if maps_a.shape != maps_b.shape or maps_a.ndim != 3 or maps_a.shape[1:] != shape:
        raise UserError("maps", f"two of (n, {shape[0]}, {shape[1]})", [maps_a.shape, maps_b.shape])
    out = np.empty((len(maps_a), bins.count))
    for start in range(0, len(out), CHUNK):
        rows = slice(start, start + CHUNK)
        modes_a = forward(maps_a[rows], grid)
        modes_b = modes_a if maps_b is maps_a else forward(maps_b[rows], grid)
        out[rows] = bin_power(power(modes_a, modes_b, grid), grid, bins)
    return out if taper is None else out / np.mean(np.square(taper))


def auto_and_cross(
    prediction: np.ndarray,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    *,
    taper: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra C_pp, C_tt and C_pt of pairs of maps, as `cross_spectra` gives each."""
    return (
        cross_spectra(prediction, prediction, grid, bins, taper=taper),
        cross_spectra(truth, truth, grid, bins, taper=taper),
        cross_spectra(prediction, truth, grid, bins, taper=taper),
    )
