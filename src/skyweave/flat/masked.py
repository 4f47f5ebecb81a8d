"""What a mask makes of a field's spectrum."""

import numpy as np

from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid


def expected_power(
    cl: np.ndarray, mask: np.ndarray, grid: PatchGrid, *, remove_mean: bool = True
) -> np.ndarray:
    """Mean power on the modes (pixels, pixels // 2 + 1) of mask times field, unit² sr.

    Of periodic fields of spectrum `cl` on the modes, under a weight `mask` (y, x); with
    `remove_mean` they lose their weighted mean first. Exact on the pixels: it is the Fourier
    transform of the product of the mask's and the field's autocorrelations, less what the mean
    takes away.
    """
    product = autocorrelation(mask, grid) * inverse(cl + 0j, grid)
    found = forward(product, grid).real / grid.area_sr
    if remove_mean:
        # Covariance of the weighted mean with the field at each pixel, and with itself.
        modes = forward(mask, grid)
        total = modes[0, 0].real
        with_mean = inverse(cl * modes, grid) / total
        mean_square = np.mean(with_mean * mask) * grid.area_sr / total
        cross = (forward(mask * with_mean, grid) * modes.conj()).real
        found += (mean_square * np.abs(modes) ** 2 - 2 * cross) / grid.area_sr
    return found


def autocorrelation(mask: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Sum over the patch of the mask times itself displaced (y, x), times the pixel's area."""
    return inverse(np.abs(forward(mask, grid)) ** 2 + 0j, grid)
