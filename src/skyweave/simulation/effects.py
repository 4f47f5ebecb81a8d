"""What happens to a primordial patch before it is observed, one function an effect.

Maps are (..., y, x) or (y, x); kappa and tau have no unit.
"""

from typing import Final

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter

from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid

#: Order of the periodic spline that displaced maps are read from (arXiv:2101.01214).
SPLINE_ORDER: Final = 5


def screen(maps: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """Maps seen through patchy optical depth: exp(-tau) · map, for T, Q and U alike."""
    return maps * np.exp(-tau)


def deflection(kappa_modes: np.ndarray, grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of the lensing potential along y and x, two maps (y, x) in radians.

    kappa_modes: (pixels, pixels // 2 + 1), from kappa = -½∇²phi, so that phi = 2 kappa / ell² and
    ∇phi = 2i ell kappa / ell². The derivative of a wave at the Nyquist multipole along its axis is
    not resolved and left out.
    """
    square = grid.ell**2
    square[0, 0] = 1
    gradient = 2j * kappa_modes / square
    ell_y, ell_x = grid.ell_y.copy(), grid.ell_x.copy()
    if grid.pixels % 2 == 0:
        ell_y[grid.pixels // 2] = 0
        ell_x[:, grid.pixels // 2] = 0
    return inverse(gradient * ell_y, grid), inverse(gradient * ell_x, grid)


def displace(field: np.ndarray, shift_y: np.ndarray, shift_x: np.ndarray) -> np.ndarray:
    """Read a periodic map (y, x) at x + shift, shifts (y, x) in pixels, by an order-5 spline.

    Returns float64 (y, x): out(x) = field(x + shift(x)). A wave between pixels loses amplitude
    with its multipole: (m / (2 - m))^6 of it at m times the Nyquist multipole, 0.1 % at 0.5 and
    1 % at 0.63.
    """
    y, x = np.indices(field.shape, dtype=np.float64)
    coefficients = spline_filter(field, order=SPLINE_ORDER, mode="grid-wrap")
    return map_coordinates(
        coefficients,
        (y + shift_y, x + shift_x),
        order=SPLINE_ORDER,
        mode="grid-wrap",
        prefilter=False,
    )


def lens(field: np.ndarray, kappa_modes: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Lensed map (y, x): observed(x) = primordial(x + ∇phi), kappa = -½∇²phi."""
    along_y, along_x = deflection(kappa_modes, grid)
    return displace(field, along_y / grid.pixel_rad, along_x / grid.pixel_rad)


def smooth(maps: np.ndarray, fwhm_arcmin: float, grid: PatchGrid) -> np.ndarray:
    """Maps (..., y, x) smoothed with a Gaussian beam."""
    return inverse(forward(maps, grid) * gaussian_beam(grid.ell, fwhm_arcmin), grid)


def white_noise(random: np.random.Generator, uk_arcmin: float, grid: PatchGrid) -> np.ndarray:
    """White noise (y, x) in µK of the level `uk_arcmin`, in µK-arcmin: C_ell is its square in
    radians, at every mode."""
    return random.standard_normal((grid.pixels, grid.pixels)) * (uk_arcmin / grid.pixel_arcmin)
