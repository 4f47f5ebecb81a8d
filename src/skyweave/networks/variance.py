"""The variance that a network predicts for each pixel beside its means."""

from typing import Any

import keras
from keras import layers, ops

from skyweave import seeds

#: A symbolic tensor (n, y, x, channels); Keras has no type that mypy knows.
Tensor = Any

#: Ends the name of an output that is the logarithm of another one's variance.
SUFFIX = "_log_variance"

#: Bounds of the logarithm, in normalized units: deviations of 0.0025 to 20.
LOWEST, HIGHEST = -12.0, 6.0


def log_variance(
    image: Tensor, features: Tensor, mean: Tensor, name: str, channels: int, seed: int
) -> Tensor:
    """Logarithm of the variance (n, y, x, 1) of output `name`, in normalized units squared.

    Two convolutions 3×3 and one 1×1 of the network's inputs, its features, and the mean, through
    neither of which a gradient flows back: the mean is trained as without it. The features are
    normalized pixel by pixel, since nothing keeps their size where little is left to learn. It
    starts at a variance of 1. The last layer computes in float32; weights are drawn by `seed` and
    the layers' names.
    """
    norm = layers.LayerNormalization(dtype="float32", name=f"{name}{SUFFIX}_norm")
    known = [image, norm(ops.stop_gradient(features)), ops.stop_gradient(mean)]
    x = layers.Concatenate(name=f"{name}{SUFFIX}_concat")(known)
    for part in "ab":
        layer = f"{name}{SUFFIX}_{part}"
        draw = seeds.generator(seed, "network", layer, 0).integers(2**31)
        start = keras.initializers.HeNormal(seed=int(draw))
        convolution = layers.Conv2D(
            channels, 3, padding="same", activation="silu", kernel_initializer=start, name=layer
        )
        x = convolution(x)
    last = layers.Conv2D(1, 1, kernel_initializer="zeros", dtype="float32", name=f"{name}{SUFFIX}")
    return bounded(last(x))


def bounded(x: Tensor) -> Tensor:
    """`x` where it is well within the bounds, bent smoothly towards them elsewhere."""
    below = (HIGHEST - LOWEST) - ops.softplus(HIGHEST - x)
    return LOWEST + ops.softplus(below)
