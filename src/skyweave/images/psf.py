"""Point-spread functions integrated over pixels, and images convolved with them."""

import math

import numpy as np

from skyweave.config.galaxies import Psf

#: Share of the flux that a kernel may leave out, and the most pixels from its middle to its side;
#: or so many full widths at half maximum, where that is more.
_LEFT_OUT = 1e-6
_MOST_PIXELS = 64
_MOST_WIDTHS = 4


def kernel(psf: Psf, pixel_arcsec: float) -> np.ndarray:
    """Kernel (y, x) float64 of odd side and sum 1: the flux of a star in each pixel.

    The star is in the middle of the middle pixel. A Moffat profile (Moffat 1969) ends where less
    than 1e-6 of its flux is beyond, or at 129 pixels (eight widths, if more) a side.
    """
    width = psf.fwhm_arcsec / pixel_arcsec
    if psf.kind == "gaussian":
        return gaussian(width / math.sqrt(8 * math.log(2)))
    return _moffat(width, psf.beta)


def gaussian(sigma_pixels: float) -> np.ndarray:
    """Kernel (y, x) float64 of odd side and sum 1 of a Gaussian; a single 1 where sigma is 0."""
    from scipy.special import ndtr

    if not sigma_pixels:
        return np.ones((1, 1))
    half = math.ceil(sigma_pixels * math.sqrt(-2 * math.log(_LEFT_OUT)))
    row = np.diff(ndtr((np.arange(2 * half + 2) - half - 0.5) / sigma_pixels))
    return np.outer(row, row) / row.sum() ** 2


def convolve(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Images (n, y, x) convolved with a kernel of odd side; same shape and dtype.

    There is nothing beyond the frame, and what is carried there is lost.
    """
    from scipy.signal import fftconvolve

    images = np.asarray(images)
    found = fftconvolve(images, kernel[None], mode="same", axes=(1, 2))
    return found.astype(images.dtype, copy=False)


def _moffat(width: float, beta: float) -> np.ndarray:
    """Kernel of a Moffat profile of a full width at half maximum in pixels."""
    scale = width / (2 * math.sqrt(2 ** (1 / beta) - 1))
    most = max(_MOST_PIXELS, math.ceil(_MOST_WIDTHS * width))
    # Beyond r lies (1 + (r / scale)²)^(1 - beta) of the flux.
    end = math.log(_LEFT_OUT) / (1 - beta)
    half = most
    if end < math.log1p((most / scale) ** 2):
        half = math.ceil(scale * math.sqrt(math.expm1(end)))
    # By the divergence theorem a pixel's flux is the share within r, over 2π, integrated over the
    # angle around its edges; these never come near the peak, however narrow it is.
    nodes, weights = np.polynomial.legendre.leggauss(16)
    places = np.arange(-half, half + 1)
    line = np.append(places - 0.5, half + 0.5)[:, None]
    squares = line**2 + (places[:, None, None] + nodes / 2) ** 2
    share = -np.expm1((1 - beta) * np.log1p(squares / scale**2)) / (2 * np.pi)
    across = np.diff((share * line / squares) @ (weights / 2), axis=1)
    found = across + across.T
    return found / found.sum()
