"""Stokes Q,U and E,B on a flat patch, by the spin-2 Fourier transform.

E + iB = FFT(Q + iU) e^{-2i phi}, phi = atan2(ell_y, ell_x): E = Q cos 2phi + U sin 2phi and
B = -Q sin 2phi + U cos 2phi mode by mode.
"""

from functools import lru_cache

import numpy as np
from ducc0 import fft

from skyweave.flat.grid import PatchGrid


@lru_cache(maxsize=4)
def rotation(grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """cos 2phi and sin 2phi of the modes, each (pixels, pixels // 2 + 1), read-only.

    A mode on a Nyquist line stands for two directions, mirrored at the axis, and sin 2phi has no
    one sign there. It is set to 0 and cos 2phi to the nearer of ±1, which keeps maps real and
    the transform orthogonal. The mean has no direction: E is Q and B is U.
    """
    square = grid.ell**2
    square[0, 0] = 1
    cosine = (grid.ell_x**2 - grid.ell_y**2) / square
    sine = 2 * grid.ell_x * grid.ell_y / square
    cosine[0, 0], sine[0, 0] = 1, 0
    if grid.pixels % 2 == 0:
        for line in (np.s_[grid.pixels // 2, :], np.s_[:, grid.pixels // 2]):
            cosine[line] = np.where(cosine[line] < 0, -1.0, 1.0)
            sine[line] = 0
    cosine.flags.writeable = sine.flags.writeable = False
    return cosine, sine


def rotate_to_eb(q: np.ndarray, u: np.ndarray, grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Modes of E and B from modes of Q and U, each (..., pixels, pixels // 2 + 1)."""
    cosine, sine = (part.astype(q.real.dtype, copy=False) for part in rotation(grid))
    return q * cosine + u * sine, u * cosine - q * sine


def rotate_to_qu(e: np.ndarray, b: np.ndarray, grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Modes of Q and U from modes of E and B, each (..., pixels, pixels // 2 + 1)."""
    cosine, sine = (part.astype(e.real.dtype, copy=False) for part in rotation(grid))
    return e * cosine - b * sine, e * sine + b * cosine


def qu_to_eb(q: np.ndarray, u: np.ndarray, grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Maps of E and B from maps of Q and U, each (..., y, x), same unit and precision."""
    return _turned(q, u, _full_turn(grid))


def eb_to_qu(e: np.ndarray, b: np.ndarray, grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Maps of Q and U from maps of E and B, each (..., y, x): undoes `qu_to_eb`."""
    return _turned(e, b, _full_turn(grid).conj())


@lru_cache(maxsize=4)
def _full_turn(grid: PatchGrid) -> np.ndarray:
    """e^{-2i phi} of all modes, (pixels, pixels)."""
    cosine, sine = (_full_plane(part, grid.pixels) for part in rotation(grid))
    return cosine - 1j * sine


def _turned(
    first: np.ndarray, second: np.ndarray, turn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The parts of first + i second, its modes times `turn`: two transforms rather than four."""
    both = np.empty(first.shape, np.result_type(first, second, np.complex64))
    both.real, both.imag = first, second
    turn = turn.astype(both.dtype, copy=False)
    for plane in both.reshape(-1, *turn.shape):
        fft.c2c(plane, out=plane)
        np.multiply(plane, turn, out=plane)
        fft.c2c(plane, forward=False, inorm=2, out=plane)
    return both.real.copy(), both.imag.copy()


def tapered_variances(
    ee: np.ndarray, bb: np.ndarray, taper: np.ndarray, grid: PatchGrid
) -> tuple[float, float]:
    """Expected variances of E and B of Q,U that were multiplied by `taper` (y, x).

    `ee` and `bb`, (pixels, pixels // 2 + 1), are the spectra of the periodic Q,U. A taper mixes
    modes l' into l with weight |w(l - l')|², and turns E into B by the change of direction:
    EE(l) = Σ |w|² [cos² 2(phi - phi') ee(l') + sin² 2(phi - phi') bb(l')], BB(l) likewise.
    """
    half = grid.pixels // 2 + 1
    window = np.abs(np.fft.fft2(taper) / taper.size) ** 2
    cosine, sine = (_full_plane(part, grid.pixels) for part in rotation(grid))
    # sin 2phi does not change sign under l -> -l, nor does cos 2phi: both extend evenly.
    turn = (cosine + 1j * sine) ** 2

    def mixed(spectrum: np.ndarray) -> np.ndarray:
        return np.fft.ifft2(np.fft.fft2(window) * np.fft.fft2(spectrum))

    def variance(kept: np.ndarray, turned: np.ndarray) -> float:
        total = mixed(_full_plane(kept + turned, grid.pixels)).real
        difference = mixed(_full_plane(kept - turned, grid.pixels) * turn.conj())
        power = (total + (turn * difference).real) / 2
        return float(np.sum(grid.mode_weight * power[:, :half]) / grid.area_sr)

    return variance(ee, bb), variance(bb, ee)


def _full_plane(half: np.ndarray, pixels: int) -> np.ndarray:
    """An even function of the mode, (pixels, pixels // 2 + 1), on all (pixels, pixels) modes."""
    full = np.empty((pixels, pixels), dtype=half.dtype)
    columns = half.shape[1]
    full[:, :columns] = half
    rows = -np.arange(pixels) % pixels
    full[:, columns:] = half[rows][:, pixels - np.arange(columns, pixels)]
    return full
