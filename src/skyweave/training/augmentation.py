"""Adaptive augmentation of what a discriminator sees (Karras et al. 2020, arXiv:2006.06676)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from skyweave import seeds
from skyweave.config.galaxies import Augmentation as Settings
from skyweave.training.gradients import mean_of_devices

#: Largest whole-pixel translation, and standard deviation of the other, shares of an image's side.
_SHIFT = 0.125
#: Standard deviation of the logarithms to base 2 of scales.
_SCALE = 0.2
#: Updates from one change of the probability to the next.
_INTERVAL = 4

#: Affine maps (n, transforms, 3, 3), and for each the probability (n, transforms) that it needs.
Draws = tuple[np.ndarray, np.ndarray]


class Adaptive:
    """Transforms of images (n, y, x, bands), each with a probability that adapts itself.

    The paper's pixel blitting (mirror, quarter turn, translation by whole pixels) and its geometric
    transforms (scale, rotation, stretch in any direction, translation), made of one affine map an
    image. There are none of colour, filtering or corruption: fluxes, power and noise are what the
    images are about. Pixels are interpolated bilinearly. What lies beyond the frame is mirrored at
    the middle of its outermost pixels, as published: sky alone would leave steps at the frame,
    where there is noise or light.

    Every fourth update the probability rises, or falls, by the share of `images` that were seen
    since: as the mean sign of the real logits since then is above `target`, or below.
    """

    def __init__(self, settings: Settings, *, seed: int, name: str) -> None:
        self.settings, self._key = settings, (seed, name)
        #: The probability; the sum of the batches' mean signs, and the batches, since it changed.
        self.variables: Sequence[keras.Variable] = [
            keras.Variable(np.float32(0), trainable=False, dtype="float32") for _ in range(3)
        ]
        self.identity: Mapping[str, Any] = {"target": settings.target, "images": settings.images}

    def draw(self, shape: Sequence[int], purpose: str, batch: int) -> Draws:
        """Random maps of images of that shape, by (seed, name, "augmentation", purpose, batch)."""
        rng = seeds.generator(*self._key, "augmentation", purpose, batch)
        return draw(rng, shape[0], shape[1])

    def due(self, update: int, last: bool) -> np.float32:
        """Whether the probability changes with a batch of an update, counted from 0: 1 or 0."""
        return np.float32(last and (update + 1) % _INTERVAL == 0)

    def __call__(self, images: Any, draws: Any) -> Any:
        """The images as a network sees them; part of a step."""
        maps, needed = draws
        return warp(images, compose(maps, needed, self.variables[0]))

    def adapt(self, right_on_real: Any, due: Any, share: Any) -> Any:
        """The probability as it was; part of a step.

        From the share of real logits above 0 in a batch, which has this share of `images`.
        """
        probability, signs, batches = self.variables
        before = ops.copy(probability)
        (right,) = mean_of_devices([right_on_real])
        total, count = signs + (2 * right - 1), batches + 1
        way = ops.sign(total / count - self.settings.target)
        probability.assign(ops.clip(before + due * way * count * share, 0, 1))
        signs.assign((1 - due) * total)
        batches.assign((1 - due) * count)
        return before


def draw(rng: np.random.Generator, count: int, pixels: int) -> Draws:
    """Affine maps (count, 8, 3, 3) float32 of transforms, and what probability each needs.

    They take places of an image after the transform, pixels from its middle (x, y, 1), to places
    before it; the first is that of the last transform on the way, the mirror, which comes first of
    all when an image is transformed. A transform is applied where the probability exceeds its
    number of (count, 8), 0 to 1: evenly drawn, so that each has that probability; of the two
    rotations one or both have it. All distributions are those of the inverse maps as well.
    """
    mirrors = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    quarters = rng.integers(4, size=count)
    steps = np.rint(rng.uniform(-_SHIFT, _SHIFT, (count, 2)) * pixels)
    scales, stretches = np.exp2(_SCALE * rng.standard_normal((2, count)))
    angles = rng.uniform(-np.pi, np.pi, (2, count))
    shifts = _SHIFT * pixels * rng.standard_normal((count, 2))
    # Whole numbers, which sine and cosine of quarters are not.
    cos, sin = np.array([1, 0, -1, 0])[quarters], np.array([0, 1, 0, -1])[quarters]
    maps = [
        _linear(mirrors, 0, 0, 1),
        _linear(cos, -sin, sin, cos),
        _translation(steps),
        _linear(scales, 0, 0, scales),
        _rotation(angles[0]),
        _linear(stretches, 0, 0, 1 / stretches),
        _rotation(angles[1]),
        _translation(shifts),
    ]
    needed = rng.random((count, len(maps)))
    # One of two with 1 - sqrt(1 - p) each.
    for rotation in (4, 6):
        needed[:, rotation] = 1 - (1 - needed[:, rotation]) ** 2
    return np.stack(maps, axis=1).astype(np.float32), needed.astype(np.float32)


def compose(maps: Any, needed: Any, probability: Any) -> Any:
    """The maps that are applied with this probability, one behind the other: (n, 3, 3)."""
    chosen = ops.where((needed < probability)[..., None, None], maps, np.eye(3, dtype="float32"))
    whole = chosen[:, 0]
    for number in range(1, chosen.shape[1]):
        # Sums, not `matmul`, which may be as rough as TF32: places are hundreds of pixels.
        whole = ops.sum(whole[..., None] * chosen[:, number, None], axis=-2)
    return whole


def warp(images: Any, maps: Any) -> Any:
    """Images (n, y, x, bands) at places that affine maps (n, 3, 3) take their pixels to.

    Places are pixels from the middle, (x, y, 1). Between pixels the images are interpolated
    bilinearly, beyond the outermost ones mirrored. Linear in the images.
    """
    _, height, width, bands = images.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float32)
    middles = np.float32((width - 1) / 2), np.float32((height - 1) / 2)
    x, y = x - middles[0], y - middles[1]
    (column, right, along), (row, below, down) = (
        _neighbours(maps[:, axis, 0:1] * x + maps[:, axis, 1:2] * y + maps[:, axis, 2:3], size)
        for axis, size in ((0, width), (1, height))
    )
    pixels = ops.reshape(images, (-1, bands))
    first = height * width * ops.arange(ops.shape(images)[0], dtype="int32")[:, None]

    def at(row: Any, column: Any) -> Any:
        return ops.take(pixels, first + row * width + column, axis=0)

    upper = (1 - along) * at(row, column) + along * at(row, right)
    lower = (1 - along) * at(below, column) + along * at(below, right)
    return ops.reshape((1 - down) * upper + down * lower, (-1, height, width, bands))


def _neighbours(places: Any, size: int) -> tuple[Any, Any, Any]:
    """Pixels on both sides of places (n, pixels) from the middle, and how far (…, 1) behind one."""
    last = size - 1
    folded = last - ops.abs(ops.mod(places + last / 2, 2 * last) - last)
    first = ops.floor(folded)
    behind = ops.minimum(first + 1, last)
    pixels = ops.cast(first, "int32"), ops.cast(behind, "int32")
    return *pixels, (folded - first)[..., None]


def _linear(xx: Any, xy: Any, yx: Any, yy: Any) -> np.ndarray:
    """Affine maps (n, 3, 3) without translation, of their components, (n,) or a number for all."""
    xx, xy, yx, yy = np.broadcast_arrays(xx, xy, yx, yy)
    maps = np.zeros((len(xx), 3, 3))
    maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 0], maps[:, 1, 1], maps[:, 2, 2] = xx, xy, yx, yy, 1
    return maps


def _rotation(angles: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angles), np.sin(angles)
    return _linear(cos, -sin, sin, cos)


def _translation(shifts: np.ndarray) -> np.ndarray:
    """Affine maps of shifts (n, 2) in x and y."""
    maps = np.tile(np.eye(3), (len(shifts), 1, 1))
    maps[:, :2, 2] = shifts
    return maps
