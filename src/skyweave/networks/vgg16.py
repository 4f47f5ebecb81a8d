"""The first pools of VGG16 (Simonyan & Zisserman 2015, arXiv:1409.1556), as features of images.

The network was trained on ImageNet; what it tells apart are textures and edges of photographs.
"""

import os
from typing import Any

import keras
import numpy as np
from keras import layers

from skyweave.data.restricted import Arrays, read_pickle
from skyweave.errors import UserError
from skyweave.networks.parts import Tensor

#: Channels of the convolutions before each pool.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256))
#: Deviations of a map that an image's range, 0 to 1, holds on each side of the mean.
DEVIATIONS = 3.0
#: Mean and standard deviation of ImageNet's red, green and blue, in a range of 0 to 1.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def features(path: str | os.PathLike, pixels: int) -> keras.Model:
    """Frozen network, images (n, pixels, pixels, 3) → the first three pools, finest first.

    Pools are (n, pixels / 2, …, 64), (n, pixels / 4, …, 128) and (n, pixels / 8, …, 256), float32
    whatever the policy; images are as `as_images` makes them. path: the file of
    `skyweave.sky.fetch.VGG16`. Raises `UserError` for a file that does not hold VGG16's
    convolutions, and for fewer than 8 pixels.
    """
    if pixels < 2 ** len(BLOCKS):
        raise UserError("grid.pixels", f"at least {2 ** len(BLOCKS)} for VGG16", pixels)
    weights = read_weights(path)
    image = keras.Input((pixels, pixels, 3), name="image")
    x, pools = image, []
    for block, sizes in enumerate(BLOCKS, start=1):
        for number, filters in enumerate(sizes, start=1):
            x = layers.Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                dtype="float32",
                name=f"conv{block}_{number}",
            )(x)
        x = layers.MaxPooling2D(2, dtype="float32", name=f"pool{block}")(x)
        pools.append(x)
    model = keras.Model(image, pools, name="vgg16")
    model.set_weights([array for pair in weights for array in pair])
    model.trainable = False
    return model


def read_weights(path: str | os.PathLike) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels (3, 3, in, out) and biases (out,) of the convolutions up to the third pool."""
    tree = read_pickle(path)
    found, channels = [], 3
    for number, filters in enumerate(size for sizes in BLOCKS for size in sizes):
        names = "VGG16_0", f"Conv_{number}"
        kernel = _array(path, tree, (*names, "kernel"), (3, 3, channels, filters))
        found.append((kernel, _array(path, tree, (*names, "bias"), (filters,))))
        channels = filters
    return found


def as_images(maps: Tensor) -> Tensor:
    """Normalized maps (n, y, x, 1) as images (n, y, x, 3) in VGG16's range.

    From -3 to 3 deviations a map spans the range of an image, 0 to 1, in each of the three
    channels, which are then normalized by ImageNet's means and deviations. Nothing is clipped: a
    pixel outside of the range keeps its gradient. Each field is an image of its own.
    """
    grey = maps / (2 * DEVIATIONS) + 0.5
    return (grey - np.array(MEAN, "float32")) / np.array(DEVIATION, "float32")


def _array(
    path: str | os.PathLike, tree: Arrays, keys: tuple[str, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """The array under `keys`, float32; raises `UserError` where it is not there in `shape`."""
    expected = f"{'/'.join(keys)} of shape {shape}"
    found: Any = tree
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, np.ndarray):
        raise UserError(path, expected, "no such array")
    if found.shape != shape or found.dtype.kind != "f":
        raise UserError(path, expected, f"shape {found.shape}, {found.dtype}")
    return found.astype(np.float32)
