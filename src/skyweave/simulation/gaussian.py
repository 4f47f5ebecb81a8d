"""Gaussian fields on a periodic patch, drawn as Fourier modes."""

import numpy as np

from skyweave.flat.fourier import forward
from skyweave.flat.grid import PatchGrid


def white_modes(random: np.random.Generator, grid: PatchGrid) -> np.ndarray:
    """Fourier modes (pixels, pixels // 2 + 1) of a Gaussian field with C_ell = 1 at every mode.

    The field is drawn pixel by pixel, so that the modes have a real map's symmetry.
    """
    white = random.standard_normal((grid.pixels, grid.pixels))
    return forward(white, grid) / grid.pixel_rad


def correlated_modes(
    first: np.ndarray,
    white: np.ndarray,
    cl_first: np.ndarray,
    cl_second: np.ndarray,
    cl_cross: np.ndarray,
) -> np.ndarray:
    """Modes of a field with spectrum `cl_second` whose cross spectrum with `first` is `cl_cross`.

    first: modes with the spectrum `cl_first`; white: independent modes with C_ell = 1; spectra at
    the modes, all of one shape.
    """
    slope = np.divide(cl_cross, cl_first, out=np.zeros_like(cl_cross), where=cl_first > 0)
    rest = np.sqrt(np.maximum(cl_second - slope * cl_cross, 0))
    return slope * first + rest * white
