"""Isotropic gains of predicted maps: a number a band of multipoles.

The gain of a mode is linear in ell between the bands' middles, constant beyond, and 1 for the mean.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid

#: No gain is beyond: in a band without any prediction there is nothing to raise.
MOST = 10.0

#: Steps at most towards the power, and the relative difference that ends them.
STEPS, TOLERANCE = 8, 1e-4

#: Maps transformed at once: bounds the memory, not the result.
_CHUNK = 128

#: Gains (bands,) → filtered maps (n, y, x).
Predict = Callable[[np.ndarray], np.ndarray]


def centres(grid: PatchGrid, bins: Bins) -> np.ndarray:
    """Multipoles (bands,) of the gains: mean of a band's modes, its middle where it has none."""
    middles = np.add(bins.edges[1:], bins.edges[:-1]) / 2
    found = bins.centres(grid)
    return np.where(np.isfinite(found), found, middles)


def filtered(maps: np.ndarray, gains: np.ndarray, grid: PatchGrid, bins: Bins) -> np.ndarray:
    """Maps (..., y, x) with their modes times the gains (bands,)."""
    return inverse(forward(maps, grid) * _on_modes(gains, grid, bins), grid)


def fit_gains(
    predicted: np.ndarray | Predict,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    kind: Literal["power", "wiener"],
) -> np.ndarray:
    """Gains (bands,) float64, between 0 and `MOST`, of predictions for the truths (n, y, x).

    `power` brings the mean power of each band to the truths': the square root of C_tt / C_pp,
    corrected a few times, since what a band gets depends on its neighbours' gains too; a band whose
    gain is `MOST`, as one with truth and no prediction, stays short of power. `wiener` makes the
    squared error least: C_pt / C_pp. `predicted` are maps (n, y, x), or what gives them filtered by
    gains. Maps and truths have the same taper, which cancels. Patches whose truth is zero
    everywhere are left out; bands without modes get what lies between their neighbours.
    Raises `UserError` for maps that do not fit each other, and where no truth or no band is left.
    """
    maps = predicted(np.ones(bins.count)) if callable(predicted) else predicted
    shape = (grid.pixels, grid.pixels)
    if maps.shape != truth.shape or maps.ndim != 3 or maps.shape[1:] != shape:
        raise UserError("maps", f"two of (n, {shape[0]}, {shape[1]})", [maps.shape, truth.shape])
    rows = np.flatnonzero(truth.any(axis=(1, 2)))
    if not rows.size:
        raise UserError("truths", "one at least that is not zero everywhere", "none")
    known = np.flatnonzero(bins.modes(grid))
    if not known.size:
        raise UserError("bins", "a band with modes", "none")

    def everywhere(values: np.ndarray) -> np.ndarray:
        place = centres(grid, bins)
        return np.interp(place, place[known], np.clip(values, 0, MOST)[known])

    own = _mean_power(maps, maps, rows, grid)
    before = bin_power(own, grid, bins)
    if kind == "wiener":
        cross = bin_power(_mean_power(maps, truth, rows, grid), grid, bins)
        return everywhere(_ratio(cross, before))

    def measured(gains: np.ndarray) -> np.ndarray:
        if callable(predicted):
            found = predicted(gains)
            return bin_power(_mean_power(found, found, rows, grid), grid, bins)
        return bin_power(own * _on_modes(gains, grid, bins) ** 2, grid, bins)

    wanted = bin_power(_mean_power(truth, truth, rows, grid), grid, bins)
    gains = everywhere(np.sqrt(_ratio(wanted, before)))
    for _ in range(STEPS):
        step = np.sqrt(_ratio(wanted, measured(gains)))
        gains, last = everywhere(gains * step), gains
        if np.max(np.abs(gains - last)) <= TOLERANCE * np.max(gains):
            break
    return gains


def _on_modes(gains: np.ndarray, grid: PatchGrid, bins: Bins) -> np.ndarray:
    """Gains (bands,) at the modes (pixels, pixels // 2 + 1)."""
    values = np.interp(grid.ell, centres(grid, bins), gains)
    values[0, 0] = 1
    return values


def _mean_power(a: np.ndarray, b: np.ndarray, rows: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Mean cross-power (pixels, pixels // 2 + 1) float64 of the maps of some rows."""
    total = np.zeros(grid.ell.shape)
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        modes = forward(a[some], grid)
        other = modes if b is a else forward(b[some], grid)
        total += power(modes, other, grid).sum(axis=0, dtype=np.float64)
    return total / len(rows)


def _ratio(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """wanted / found; 1 where both are zero, infinite where only `found` is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((wanted == 0) & (found == 0), 1.0, wanted / found)
