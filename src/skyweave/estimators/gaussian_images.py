"""Images as random as real ones but Gaussian: what a generator must beat."""

import numpy as np

from skyweave import seeds

#: Images that are drawn at once.
_CHUNK = 64


def gaussian_images(images: np.ndarray, count: int, seed: int, *identity: str | int) -> np.ndarray:
    """Draw (count, …) float32 from the normal law with the mean and covariance of images (n, …).

    A draw is the mean and a sum of the images' differences from it, with normal weights of variance
    1 / (n - 1): its covariance is theirs, which is never formed. It is drawn by (seed, *identity,
    its number).
    """
    flat = np.reshape(images, (len(images), -1)).astype(np.float64)
    mean = flat.mean(axis=0)
    flat -= mean
    flat /= np.sqrt(max(len(flat) - 1, 1))
    made = np.empty((count, *images.shape[1:]), np.float32)
    for first in range(0, count, _CHUNK):
        numbers = range(first, min(first + _CHUNK, count))
        weights = np.stack(
            [seeds.generator(seed, *identity, n).standard_normal(len(flat)) for n in numbers]
        )
        made[numbers.start : numbers.stop] = np.reshape(
            mean + weights @ flat, (len(numbers), *images.shape[1:])
        )
    return made
