"""Radially averaged power of images."""

import numpy as np

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.flat_spectra import CHUNK, cross_spectra


def radial_power(images: np.ndarray, bins: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Power (n, bins) of images (n, pixels, pixels) and the wave numbers (bins,) that it lies at.

    |FFT|² over the number of pixels, in the images' unit squared, averaged over the modes of
    annuli of equal width, from half the longest wave's number 1/pixels up to Nyquist's, 1/2 cycle a
    pixel: white noise has its variance everywhere. Wave numbers are the modes' mean ones, cycles a
    pixel. By default annuli are two numbers of the longest wave wide, pixels // 4 of them; there is
    none without modes. Frames are taken as they are: light that reaches their edges is as sharp a
    step there for real images as for made ones. Raises `UserError` for images that are not square
    and more annuli than pixels // 2 - 1.
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.shape[1] != images.shape[2] or images.shape[1] < 4:
        raise UserError("images", "(n, pixels, pixels) with 4 pixels a side or more", images.shape)
    pixels = images.shape[1]
    bins = pixels // 4 if bins is None else bins
    if not 1 <= bins <= pixels // 2 - 1:
        raise UserError("bins", f"1 to {pixels // 2 - 1} with {pixels} pixels a side", bins)
    # Pixels of one radian: a mode's power is that of the plain transform over their number, and a
    # multipole is 2 pi times a wave number.
    grid = PatchGrid(float(np.rad2deg(pixels)), pixels)
    annuli = Bins(tuple(np.linspace(grid.ell_fundamental / 2, grid.ell_nyquist, bins + 1)))
    power = np.empty((len(images), bins))
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        # Small scales of smooth images are below the rounding of float32's transform.
        chunk = images[rows].astype(float)
        power[rows] = cross_spectra(chunk, chunk, grid, annuli)
    return power, annuli.centres(grid) / (2 * np.pi)
