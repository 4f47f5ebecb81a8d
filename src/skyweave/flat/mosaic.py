"""A patch cut in overlapping ones and made of them again, and what is between scales.

So a network that knows one size of pixels sees finer ones (ForSE+, arXiv:2406.14519): what lies
beneath its tile is resampled, cut, filled with smaller scales and put together.
"""

from collections.abc import Callable
from math import isqrt

import numpy as np
from scipy import fft, ndimage, sparse

from skyweave.errors import UserError
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.spline import quintic_weights

#: 1 - q of a pixel in one patch is zero but for rounding.
_ALONE = 1e-9


def sub_patches(tile: np.ndarray, side: int, step: int) -> np.ndarray:
    """Patches (..., n · n, side, side) of maps (..., y, x), row by row, `step` pixels apart.

    n = (y - side) / step + 1. Raises `UserError` for maps that are not square and for patches that
    do not cover them to the last pixel.
    """
    tile = np.asarray(tile)
    pixels = tile.shape[-1]
    if tile.shape[-2] != pixels or not 0 < step <= side <= pixels or (pixels - side) % step:
        expected = "square maps of `side` and a multiple of `step` pixels, 0 < step <= side"
        raise UserError("sub-patches", expected, (*tile.shape[-2:], side, step))
    every = np.lib.stride_tricks.sliding_window_view(tile, (side, side), axis=(-2, -1))
    chosen = every[..., ::step, ::step, :, :]
    return chosen.reshape(*tile.shape[:-2], -1, side, side)


def join(patches: np.ndarray, step: int, rho: float | None = None) -> np.ndarray:
    """Maps (..., y, x) float64 of patches (..., n · n, side, side) that lie as `sub_patches` says.

    A patch's window is 1 inside and falls over the overlap with the next, side - step pixels, as
    half a cosine; not at the edge of the map. A pixel is Σ w s / Σ w over √(q + (1 - q) rho), with
    q = Σ w² / (Σ w)²: for patches of zero mean, of the same variance at a pixel and of correlation
    `rho` of any two it keeps the variance (Heitz & Neyret 2018, Proc. ACM Comput. Graph. Interact.
    Tech. 1, 31). 1 makes the plain mean; None measures one rho of all patches, as
    `sky.tiles.Mosaic.correlation` does. Raises `UserError` for patches that make no square, a step
    that leaves holes, a rho outside [0, 1] and values that are not finite.
    """
    patches = _finite(patches)
    count, side, across = patches.shape[-3:]
    n = isqrt(count)
    if n * n != count or n == 0 or across != side or not 0 < step <= side:
        expected = "n · n square patches, 0 < step <= side"
        raise UserError("patches", expected, (count, side, across, step))
    if rho is not None and not 0 <= rho <= 1:
        raise UserError("rho", "a correlation from 0 to 1", rho)
    window = _windows(n, side, step)
    weight = np.sum(window, axis=0)
    # Along one axis; that of a pixel is the product of its row's and its column's.
    share = np.sum(window**2, axis=0) / weight**2
    q = share[:, None] * share[None, :]
    mean = _mean(patches, window, step)
    if rho is None:
        rho = _correlation(mean**2, _mean(patches**2, window, step), q, step)
    return mean / np.sqrt(q + (1 - q) * rho)


def resample(maps: np.ndarray, factor: int) -> np.ndarray:
    """Maps (..., y, x) on pixels `factor` times finer, (..., factor · y, factor · x) float64.

    The area stays: fine pixel i has its centre at (i + 1/2) / factor - 1/2. Between the pixels a
    map is a quintic spline with its mirror images about the outermost pixels' centres, which loses
    (m / (2 - m))^6 of a wave at m times the Nyquist multipole. Raises `UserError` for a factor
    below 1, maps of one pixel a side and values that are not finite.
    """
    maps = _finite(maps)
    if factor < 1 or min(maps.shape[-2:]) < 2:
        expected = "a factor of 1 or more, and 2 pixels a side"
        raise UserError("resampling", expected, (factor, *maps.shape[-2:]))
    rows, columns = (_evaluation(pixels, factor) for pixels in maps.shape[-2:])
    out = np.empty((*maps.shape[:-2], rows.shape[0], columns.shape[0]))
    for index in np.ndindex(maps.shape[:-2]):
        knots = ndimage.spline_filter(maps[index], 5, np.float64, mode="mirror")
        out[index] = (columns @ (rows @ knots).T).T
    return out


def smooth(
    maps: np.ndarray, pixel_arcmin: float, from_arcmin: float, to_arcmin: float
) -> np.ndarray:
    """Maps (..., y, x) float64, seen by a Gaussian beam of `from_arcmin`, as one of `to_arcmin`.

    Both are FWHM. The modes of the map and its mirror images about the edges of the outermost
    pixels (DCT-II) are multiplied by the beam of FWHM √(to² - from²). Raises `UserError` for a beam
    that is narrower than it was, pixels without a size and values that are not finite.
    """
    maps = _finite(maps)
    if not 0 <= from_arcmin <= to_arcmin or pixel_arcmin <= 0:
        expected = "0 <= from_arcmin <= to_arcmin and pixels wider than 0"
        raise UserError("smoothing", expected, (from_arcmin, to_arcmin, pixel_arcmin))
    fwhm = np.sqrt(to_arcmin**2 - from_arcmin**2)
    pixel = np.radians(pixel_arcmin / 60)
    rows, columns = (
        gaussian_beam(np.pi * np.arange(pixels) / (pixels * pixel), fwhm)
        for pixels in maps.shape[-2:]
    )
    modes = fft.dctn(maps, axes=(-2, -1))
    modes *= rows[:, None] * columns[None, :]
    return fft.idctn(modes, axes=(-2, -1))


def sharpen(
    maps: np.ndarray, pixel_arcmin: float, transfer: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Maps (..., y, x) float64 whose modes are multiplied by `transfer` of their multipole (y, x).

    The modes are those of `smooth`, but of the map less the map of constant Laplacian that goes on
    with its slope at the edges. The mirror would bend that slope, which has power at all multipoles
    and far more than what a beam leaves of the sky where it ends. What is taken away is added
    again, all but its mean unchanged, as a Gaussian beam leaves harmonic functions. Raises
    `UserError` for pixels without a size, fewer than three a side and values that are not finite.
    """
    maps = _finite(maps)
    if min(maps.shape[-2:]) < 3 or pixel_arcmin <= 0:
        expected = "at least 3 pixels a side, wider than 0"
        raise UserError("sharpening", expected, (*maps.shape[-2:], pixel_arcmin))
    pixel = np.radians(pixel_arcmin / 60)
    rows, columns = (np.pi * np.arange(pixels) / pixels for pixels in maps.shape[-2:])
    # What the mirrored map's discrete Laplacian multiplies its modes by, but for the mean's.
    laplacian = 2 * (np.cos(rows)[:, None] + np.cos(columns)[None, :]) - 4
    laplacian[0, 0] = -np.inf
    sloped = fft.dctn(_outward(maps), axes=(-2, -1)) / -laplacian
    modes = fft.dctn(maps, axes=(-2, -1)) - sloped
    modes *= transfer(np.hypot(rows[:, None], columns[None, :]) / pixel)
    return fft.idctn(modes + sloped, axes=(-2, -1))


def _outward(maps: np.ndarray) -> np.ndarray:
    """Slopes out of maps (..., y, x) at their edges, a pixel, on the outermost pixels; 0 inside."""
    out = np.zeros_like(maps)
    for axis in (-2, -1):
        slope, values = np.moveaxis(out, axis, 0), np.moveaxis(maps, axis, 0)
        # From between the first two and the next two pixels on to the edge.
        slope[0] += 2 * (values[0] - values[1]) - (values[1] - values[2])
        slope[-1] += 2 * (values[-1] - values[-2]) - (values[-2] - values[-3])
    return out


def _finite(maps: np.ndarray) -> np.ndarray:
    maps = np.asarray(maps, float)
    if not np.isfinite(maps).all():
        raise UserError("maps", "finite values", "others")
    return maps


def _windows(n: int, side: int, step: int) -> np.ndarray:
    """Windows (n, pixels) along one axis of n patches."""
    overlap = side - step
    ramp = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    out = np.zeros((n, side + (n - 1) * step))
    for index, window in enumerate(out):
        first = index * step
        window[first : first + side] = 1
        if index > 0:
            window[first : first + overlap] *= ramp
        if index < n - 1:
            window[first + step : first + side] *= ramp[::-1]
    return out


def _mean(patches: np.ndarray, window: np.ndarray, step: int) -> np.ndarray:
    """Σ w s / Σ w (..., y, x), w the product of `window` (n, pixels) of the row and the column."""
    (n, pixels), side = window.shape, patches.shape[-1]
    share = window / np.sum(window, axis=0)
    out = np.zeros((*patches.shape[:-3], pixels, pixels))
    for index in range(n * n):
        row, column = divmod(index, n)
        y, x = (slice(at * step, at * step + side) for at in (row, column))
        out[..., y, x] += share[row, y][:, None] * share[column, x] * patches[..., index, :, :]
    return out


def _correlation(power: np.ndarray, v: np.ndarray, q: np.ndarray, step: int) -> float:
    """rho of the mean's square and of v, the mean of squares, (..., y, x); q (y, x).

    As for tiles of the sky; cells are of step · step pixels.
    """
    first = np.arange(0, q.shape[-1], step)
    total = np.add.reduceat(np.add.reduceat(v, first, axis=-2), first, axis=-1)
    size = np.diff(first, append=q.shape[-1])
    # Cells to the left and to the right of each; those at the edge have one.
    total, number = (_beside(one) for one in (total, size[:, None] * size[None, :]))
    v0 = (total / np.maximum(number, 1)).repeat(size, axis=-2).repeat(size, axis=-1)
    where = (q < 1 - _ALONE) & (v0 > 0)
    shared = np.divide(power - q * v, v0, where=where, out=np.zeros_like(v)).sum()
    whole = np.divide((1 - q) * v, v0, where=where, out=np.zeros_like(v)).sum()
    return float(np.clip(shared / whole, 0, 1)) if whole > 0 else 1.0


def _beside(cells: np.ndarray) -> np.ndarray:
    """Sums (..., y, x) of the two cells left and right of each, zero beyond the edges."""
    out = np.zeros_like(cells)
    out[..., 1:] += cells[..., :-1]
    out[..., :-1] += cells[..., 1:]
    return out


def _evaluation(pixels: int, factor: int) -> sparse.csr_array:
    """Matrix (factor · pixels, pixels) from the mirrored spline's knots to the fine pixels."""
    fine = np.arange(factor * pixels)
    place = (fine + 0.5) / factor - 0.5
    below = np.floor(place).astype(int)
    # The Python function beneath takes arrays, and needs no compiler.
    weights = np.stack(quintic_weights.py_func(place - below), axis=1)
    knots = (below[:, None] + np.arange(-2, 4)) % (2 * pixels - 2)
    knots = np.minimum(knots, 2 * pixels - 2 - knots)
    shape = (factor * pixels, pixels)
    return sparse.csr_array((weights.ravel(), (fine.repeat(6), knots.ravel())), shape=shape)
