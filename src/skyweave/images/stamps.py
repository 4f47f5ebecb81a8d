"""Images of galaxies that were made elsewhere, one after the other, brought to one size."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from skyweave.errors import UserError
from skyweave.images.psf import convolve
from skyweave.images.stamp_files import open_images


def count(path: str | os.PathLike, bands: Sequence[str]) -> int:
    """Number of images that a folder or a file holds, by its headers.

    Raises `UserError` naming what is missing or of another shape.
    """
    return len(open_images(path, bands).names)


def read_images(
    path: str | os.PathLike,
    bands: Sequence[str],
    pixels: int,
    resize: str,
    *,
    kernel: np.ndarray | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and fluxes (bands, pixels, pixels) float32 of one image after the other.

    `path` is whatever `images.stamp_files.open_images` reads. Images are first convolved with
    `kernel`, of pixels of the files, and then brought to `pixels` by `resized`. Scaled images must
    all have one size: their pixels would have several otherwise. No more than one is in memory.

    Raises `UserError` naming the file and the image for what cannot be read, has another shape or
    is not finite.
    """
    opened = open_images(path, bands)
    first: tuple[int, ...] | None = None
    for name, image in opened.read():
        first = first or image.shape
        if resize == "scale" and image.shape != first:
            expected = "images of one size with `resize: scale`, {} x {} pixels".format(*first[1:])
            raise UserError(opened.where(name), expected, "{} x {}".format(*image.shape[1:]))
        seen = image if kernel is None else convolve(image, kernel)
        yield name, resized(seen, pixels, resize)


def resized(image: np.ndarray, pixels: int, resize: str) -> np.ndarray:
    """An image (bands, y, x) → (bands, pixels, pixels) float32.

    `crop` cuts it out about the middle, pixel n // 2 of n, with zeros beyond the image. `scale`
    makes it a square in the same way and shares the flux of each pixel among those that it lies
    in: the total stays, and nothing is aliased but by the new pixels themselves.
    """
    if resize == "crop":
        return _about_the_middle(image, pixels)
    side = max(image.shape[1:])
    shares = _shares(side, pixels)
    square = _about_the_middle(image, side).astype(np.float64)
    return (shares @ square @ shares.T).astype(np.float32)


def _about_the_middle(image: np.ndarray, side: int) -> np.ndarray:
    """A square (bands, side, side) of an image and of zeros around it."""
    square = np.zeros((image.shape[0], side, side), np.float32)
    inside, own = [], []
    for size in image.shape[1:]:
        begin = size // 2 - side // 2
        own.append(slice(max(begin, 0), max(begin, 0) + side))
        inside.append(slice(max(-begin, 0), max(-begin, 0) + min(size, side)))
    square[:, inside[0], inside[1]] = image[:, own[0], own[1]]
    return square


def _shares(size: int, pixels: int) -> np.ndarray:
    """Share (pixels, size) of each of `size` pixels in a row that lies in each of `pixels`."""
    edges = np.arange(pixels + 1) * size / pixels
    begin = np.arange(size)
    return np.clip(
        np.minimum(edges[1:, None], begin + 1) - np.maximum(edges[:-1, None], begin), 0, None
    )
