"""Fourier pairs of a flat patch, power per mode, and band powers.

Convention: F = FFT(map) · pixel area, so that C_ell = <|F|²> / patch area and the sum of C_ell over
the modes, divided by the patch area, is the variance of the map.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from ducc0 import fft
from scipy import sparse

from skyweave.flat.grid import PatchGrid


def forward(maps: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Fourier modes of real maps.

    maps: (..., y, x) float32 or float64, any unit. Returns (..., pixels, pixels // 2 + 1), complex
    of the same precision, unit times steradian.
    """
    real = _real(maps)
    maps = np.asarray(maps, dtype=real)
    modes = np.empty((*maps.shape[:-1], grid.pixels // 2 + 1), _COMPLEX[real])
    # One by one: faster than all at once, and a map's bytes don't depend on its neighbours.
    for field, out in zip(_each(maps), _each(modes), strict=True):
        fft.r2c(field, axes=(0, 1), out=out)
    modes *= real(grid.pixel_rad**2)
    return modes


def inverse(modes: np.ndarray, grid: PatchGrid, out: np.ndarray | None = None) -> np.ndarray:
    """Real maps (..., y, x) of Fourier modes: undoes `forward`. `out` takes them if given."""
    real, pixels = _real(modes), grid.pixels
    modes = np.asarray(modes, dtype=_COMPLEX[real])
    maps = np.empty((*modes.shape[:-1], pixels), real) if out is None else out
    for field, map_ in zip(_each(modes), _each(maps), strict=True):
        fft.c2r(field, axes=(0, 1), lastsize=pixels, forward=False, out=map_)
    maps *= real(1 / (pixels * grid.pixel_rad) ** 2)
    return maps


def coarsen(maps: np.ndarray, grid: PatchGrid, coarse: PatchGrid) -> np.ndarray:
    """Maps (..., y, x) of `grid` on the fewer pixels of `coarse`, the same patch.

    Waves below the coarse Nyquist multipole of each axis are kept exactly, others are dropped.
    """
    if coarse == grid:
        return maps
    return inverse(coarsen_modes(forward(maps, grid), coarse), coarse)


def coarsen_modes(modes: np.ndarray, coarse: PatchGrid) -> np.ndarray:
    """Those of the modes (..., pixels, pixels // 2 + 1) that fewer pixels can hold.

    Nyquist lines of `coarse`, (even pixels), are zero.
    """
    half = coarse.pixels // 2
    kept = np.zeros((*modes.shape[:-2], coarse.pixels, half + 1), modes.dtype)
    kept[..., :half, :half] = modes[..., :half, :half]
    kept[..., half + 1 :, :half] = modes[..., 1 - half :, :half]
    return kept


def power(modes_a: np.ndarray, modes_b: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Cross power Re(F_a F_b*) / area of each mode, (..., pixels, pixels // 2 + 1), unit² sr."""
    product = modes_a.real * modes_b.real + modes_a.imag * modes_b.imag
    return product * _real(product)(1 / grid.area_sr)


def on_modes(ell: np.ndarray, cl: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Spectrum `cl` at the modes of the grid: linear between the given `ell`, zero beyond them."""
    return np.interp(grid.ell, ell, cl, left=0.0, right=0.0)


@dataclass(frozen=True)
class Bins:
    """Bands of multipole: band i holds the modes with edges[i] <= ell < edges[i + 1]."""

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        edges = tuple(float(edge) for edge in self.edges)
        if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
            raise ValueError(f"Expected increasing edges of at least one band. Received: {edges}")
        object.__setattr__(self, "edges", edges)

    @classmethod
    def linear(cls, start: float, stop: float, width: float) -> "Bins":
        """Bands of equal width from `start`, the last one ending at or below `stop`."""
        return cls(tuple(np.arange(start, stop + 1e-9 * width, width)))

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.edges) - 1

    def modes(self, grid: PatchGrid) -> np.ndarray:
        """Independent real degrees of freedom a band, (count,): all modes of the full plane."""
        return np.asarray(self._weights(grid).sum(axis=0)).ravel()

    def centres(self, grid: PatchGrid) -> np.ndarray:
        """Mean multipole of the modes in each band, (count,); NaN in a band without modes."""
        return bin_power(grid.ell, grid, self)

    def _weights(self, grid: PatchGrid) -> sparse.csr_array:
        band = np.digitize(grid.ell.ravel(), self.edges) - 1
        inside = np.flatnonzero((band >= 0) & (band < self.count))
        weight = grid.mode_weight.ravel()[inside]
        return sparse.csr_array((weight, (inside, band[inside])), shape=(grid.ell.size, self.count))


def bin_power(power: np.ndarray, grid: PatchGrid, bins: Bins) -> np.ndarray:
    """Average over each band, every mode of the full plane counted once.

    power: (..., pixels, pixels // 2 + 1), of `power` or of a spectrum on the modes. Returns
    (..., bins.count) float64; NaN in a band without modes.
    """
    weights = bins._weights(grid)
    counts = bins.modes(grid)
    flat = np.asarray(power, dtype=np.float64).reshape(-1, grid.ell.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weights.T @ flat.T).T / counts
    return mean.reshape(*np.shape(power)[:-2], bins.count)


def _each(stack: np.ndarray) -> np.ndarray:
    """The planes of (..., y, x) one behind the other, as a view of a contiguous array."""
    return stack.reshape(-1, *stack.shape[-2:])


_COMPLEX: dict[type[np.floating], type[np.complexfloating]] = {
    np.float32: np.complex64,
    np.float64: np.complex128,
}


def _real(array: np.ndarray) -> type[np.floating]:
    """Scalar type that keeps the precision of `array`."""
    return np.float32 if array.dtype in (np.float32, np.complex64) else np.float64
