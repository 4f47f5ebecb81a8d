"""What happens to a primordial patch on its way to the observer, one function an effect.

Maps are (..., y, x) or (y, x); kappa and tau have no unit.
"""

from functools import lru_cache

import numpy as np

from skyweave.flat.fourier import inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.spline import displace


def deflection(kappa_modes: np.ndarray, grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of the lensing potential along y and x, two maps (y, x) in radians.

    kappa_modes: (pixels, pixels // 2 + 1), from kappa = -½∇²phi, so that phi = 2 kappa / ell² and
    ∇phi = 2i ell kappa / ell². The derivative of a wave at the Nyquist multipole along its axis is
    not resolved and left out.
    """
    along_y, along_x = _gradient(grid)
    return inverse(kappa_modes * along_y, grid), inverse(kappa_modes * along_x, grid)


@lru_cache(maxsize=4)
def _gradient(grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Factors (pixels, pixels // 2 + 1) from modes of kappa to those of the deflection."""
    square = grid.ell**2
    square[0, 0] = 1
    along_y, along_x = 2j * grid.ell_y / square, 2j * grid.ell_x / square
    if grid.pixels % 2 == 0:
        along_y[grid.pixels // 2] = 0
        along_x[:, grid.pixels // 2] = 0
    return along_y, along_x


def lens(maps: np.ndarray, kappa_modes: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Lensed maps (n, y, x): observed(x) = primordial(x + ∇phi), kappa = -½∇²phi."""
    along_y, along_x = deflection(kappa_modes, grid)
    return displace(maps, along_y / grid.pixel_rad, along_x / grid.pixel_rad)


def rotation_cl(amplitude: float, lmax: int) -> np.ndarray:
    """C_ell (lmax+1,) in rad² of a scale-invariant angle: ell(ell+1)C_ell/2pi = `amplitude`."""
    ell = np.arange(lmax + 1)
    return np.divide(
        2 * np.pi * amplitude, ell * (ell + 1.0), out=np.zeros(lmax + 1), where=ell > 1
    )
