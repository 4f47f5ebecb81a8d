"""ResUNet-CMB, the residual U-Net of Guzman & Meyers (arXiv 2101.01214, 2109.09715)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from skyweave import seeds
from skyweave.errors import UserError
from skyweave.networks import variance

#: A symbolic tensor (n, y, x, channels); Keras has no type that mypy knows.
Tensor = Any


def build(
    pixels: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    width: float = 1.0,
    dropout: float = 0.3,
    seed: int = 0,
    *,
    uncertainty: bool = False,
) -> keras.Model:
    """Network from (n, pixels, pixels, len(inputs)) to {output: (n, pixels, pixels, 1)}.

    Two inputs, three outputs and width 1 give the published 5,292,367 parameters. `width` is a
    factor on the channels, which stay multiples of 4. The last layers compute in float32 under
    any precision policy. With `uncertainty` each output has its `variance.log_variance` beside it.
    Raises `UserError` where `pixels` is not a multiple of 4.
    """
    if pixels < 4 or pixels % 4:
        raise UserError("grid.pixels", "a multiple of 4", pixels)
    narrow, middle, wide = (_channels(base, width) for base in (64, 128, 256))
    part = _Parts(dropout, seed)
    image = keras.Input((pixels, pixels, len(inputs)), name="inputs")

    x = part.block(image, narrow, "enc_1a", dropout=False)
    enc_1 = part.add(part.block(x, narrow, "enc_1b"), image, "enc_1")
    skip = part.block(enc_1, narrow, "enc_2a")
    x = part.block(skip, middle, "enc_2b", stride=2)
    enc_2 = part.add(x, enc_1, "enc_2", stride=2)
    x = part.block(enc_2, middle, "enc_3a")
    enc_3 = part.add(part.block(x, middle, "enc_3b"), enc_2, "enc_3")

    x = part.block(enc_3, wide, "bottleneck_a", stride=2)
    x = part.block(x, middle, "bottleneck_b", up=True)
    bottleneck = part.add(x, enc_3, "bottleneck")

    both = layers.Concatenate(name="dec_1_concat")([bottleneck, enc_3])
    x = part.block(both, middle, "dec_1a")
    dec_1 = part.add(part.block(x, middle, "dec_1b"), both, "dec_1")
    x = part.block(dec_1, narrow, "dec_2a", up=True)
    x = layers.Concatenate(name="dec_2_concat")([x, skip])
    dec_2 = part.add(part.block(x, narrow, "dec_2b"), dec_1, "dec_2", up=True)

    shared = part.block(dec_2, narrow, "dec_3")
    heads = {}
    for name in outputs:
        x = part.block(shared, narrow, f"{name}_a")
        x = part.block(part.add(x, dec_2, f"{name}_a"), narrow, f"{name}_b")
        x = part.conv(x, 1, f"{name}_conv", kernel=5, dtype="float32")
        heads[name] = part.norm(x, name, dtype="float32")
    if uncertainty:
        small = max(8, _channels(16, width))
        heads |= {
            name + variance.SUFFIX: variance.log_variance(
                image, shared, heads[name], name, small, seed
            )
            for name in outputs
        }
    return keras.Model(image, heads, name="resunet_cmb")


def _channels(base: int, width: float) -> int:
    """Channels of a layer that has `base` in the published network."""
    return max(4, 4 * round(base * width / 4))


@dataclass(frozen=True)
class _Parts:
    """The pieces that the network repeats."""

    dropout: float
    seed: int

    def block(
        self,
        x: Tensor,
        channels: int,
        name: str,
        *,
        stride: int = 1,
        up: bool = False,
        dropout: bool = True,
    ) -> Tensor:
        """[Nearest ×2] → dropout → convolution 5×5 → selu → batch norm."""
        if up:
            x = layers.UpSampling2D(name=f"{name}_up")(x)
        if dropout and self.dropout:
            x = layers.Dropout(self.dropout, seed=self._draw(name, 1), name=f"{name}_dropout")(x)
        x = self.conv(x, channels, f"{name}_conv", kernel=5, stride=stride)
        x = layers.Activation("selu", name=f"{name}_selu")(x)
        return self.norm(x, f"{name}_norm")

    def add(
        self, x: Tensor, residual: Tensor, name: str, *, stride: int = 1, up: bool = False
    ) -> Tensor:
        """`x` + batch norm of the residual, which a convolution 1×1 fits to the shape of `x`."""
        if up:
            residual = layers.UpSampling2D(name=f"{name}_residual_up")(residual)
        if stride > 1:
            # A strided convolution 1×1 is this and a plain one. As one layer, oneDNN writes past
            # its workspace in the gradient for fewer than 16 channels.
            pick = layers.AveragePooling2D(1, strides=stride, name=f"{name}_residual_pick")
            residual = pick(residual)
        if residual.shape[1:] != x.shape[1:]:
            residual = self.conv(residual, x.shape[-1], f"{name}_residual_conv")
        residual = self.norm(residual, f"{name}_residual_norm")
        return layers.Add(name=f"{name}_add")([x, residual])

    def conv(
        self,
        x: Tensor,
        channels: int,
        name: str,
        *,
        kernel: int = 1,
        stride: int = 1,
        dtype: str | None = None,
    ) -> Tensor:
        """Convolution with bias, same padding, weights drawn by the layer's name."""
        start = keras.initializers.GlorotUniform(seed=self._draw(name, 0))
        return layers.Conv2D(
            channels,
            kernel,
            strides=stride,
            padding="same",
            kernel_initializer=start,
            dtype=dtype,
            name=name,
        )(x)

    def norm(self, x: Tensor, name: str, *, dtype: str | None = None) -> Tensor:
        """Batch norm with the published momentum and epsilon."""
        return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, dtype=dtype, name=name)(x)

    def _draw(self, name: str, purpose: int) -> int:
        return int(seeds.generator(self.seed, "network", name, purpose).integers(2**31))
