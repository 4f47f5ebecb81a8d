"""Images restored by the Wiener filter: what a network must beat."""

import numpy as np

from skyweave.images.psf import gaussian

#: Images that are transformed at once.
_CHUNK = 64


def mean_power(images: np.ndarray) -> np.ndarray:
    """Mean power (y, x // 2 + 1) of images (n, y, x) by mode: |rfft2|² over the pixels' number."""
    total = np.zeros((images.shape[1], images.shape[2] // 2 + 1))
    for first in range(0, len(images), _CHUNK):
        modes = np.fft.rfft2(images[first : first + _CHUNK].astype(np.float64))
        total += (np.abs(modes) ** 2).sum(axis=0)
    return total / (images[0].size * len(images))


def wiener(images: np.ndarray, power: np.ndarray, sigma_pixels: float, noise: float) -> np.ndarray:
    """Images (n, y, x) float32, of which a Gaussian of `sigma_pixels` and `noise` are taken out.

    The linear filter of least squared error for images of `power` (`mean_power`) seen through that
    point-spread function (`images.psf.gaussian`) with white noise of that rms. Frames count as
    periodic; modes without power and noise become 0.
    """
    pixels = images.shape[1:]
    kernel = gaussian(sigma_pixels)
    place = 2 * np.pi * (np.arange(len(kernel)) - len(kernel) // 2)
    y, x = np.fft.fftfreq(pixels[0]), np.fft.rfftfreq(pixels[1])
    # The kernel's transform; it may be wider than the frame.
    seen = np.cos(np.outer(y, place)) @ kernel @ np.cos(np.outer(place, x))
    total = seen**2 * power + noise**2
    gain = np.divide(seen * power, total, out=np.zeros_like(total), where=total > 0)
    restored = np.empty(images.shape, np.float32)
    for first in range(0, len(images), _CHUNK):
        rows = slice(first, first + _CHUNK)
        modes = np.fft.rfft2(images[rows].astype(np.float64))
        restored[rows] = np.fft.irfft2(gain * modes, s=pixels)
    return restored
