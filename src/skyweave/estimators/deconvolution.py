"""Images restored by the Wiener filter: what a network must beat."""

import numpy as np

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
    point-spread function with white noise of that rms. Frames count as periodic.
    """
    pixels = images.shape[1:]
    # The Gaussian's transform, integrated over pixels as the image is.
    y, x = np.fft.fftfreq(pixels[0])[:, None], np.fft.rfftfreq(pixels[1])[None, :]
    seen = np.exp(-2 * (np.pi * sigma_pixels) ** 2 * (x**2 + y**2)) * np.sinc(x) * np.sinc(y)
    gain = seen * power / (seen**2 * power + noise**2)
    restored = np.empty(images.shape, np.float32)
    for first in range(0, len(images), _CHUNK):
        rows = slice(first, first + _CHUNK)
        modes = np.fft.rfft2(images[rows].astype(np.float64))
        restored[rows] = np.fft.irfft2(gain * modes, s=pixels)
    return restored
