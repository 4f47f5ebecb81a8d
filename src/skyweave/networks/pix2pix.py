"""pix2pix: the U-Net and the PatchGAN of Isola et al. (2017, arXiv 1611.07004)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from skyweave.errors import UserError
from skyweave.networks import parts
from skyweave.networks.parts import Tensor

#: Most halvings of the resolution, and blocks of the decoder that have dropout.
_DEEPEST, _DROPPED = 8, 3


def build(
    pixels: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    width: float = 1.0,
    dropout: float = 0.5,
    seed: int = 0,
    *,
    kernel: int = 4,
    skips: bool = True,
    biases: bool = True,
) -> keras.Model:
    """U-Net from (n, pixels, pixels, len(inputs)) to {output: (n, pixels, pixels, 1)}.

    It halves the resolution until a side is odd, 8 times at most. At 256², 3 inputs, 3 outputs and
    width 1 it has the published layers and 54,419,459 trained parameters, or 54,413,952 without
    `biases`. `width` is a factor on the channels, which stay multiples of 4. Unlike the published
    one it ends without a tanh, since maps have no bounds, and draws its noise, the dropout of the
    decoder's first three blocks, in training only. `skips` hands features of the encoder to the
    decoder. Outputs share all but the last layers, which compute in float32. Raises `UserError`
    where `pixels` is not a multiple of 4, and for a `kernel` of 1.
    """
    parts.check_strided(kernel, "network.kernel")
    image = parts.image(pixels, len(inputs))
    part = _Parts(width, seed, kernel, biases)
    depth = _halvings(pixels)
    x, encoded = image, []
    for level in range(depth):
        x = part.active(x, 0.2, f"enc_{level}") if level else x
        x = part.conv(x, part.channels(level), f"enc_{level}_conv")
        # A norm would undo a bottleneck of one pixel and a batch of one: as published, none.
        x = part.norm(x, f"enc_{level}_norm") if 0 < level < depth - 1 else x
        encoded.append(x)
    for level in reversed(range(depth - 1)):
        name = f"dec_{level}"
        x = part.up(part.active(x, 0.0, name), part.channels(level), f"{name}_conv")
        x = part.norm(x, f"{name}_norm")
        if depth - 2 - level < _DROPPED:
            x = parts.dropout(x, dropout, seed, name)
        if skips:
            x = layers.Concatenate(name=f"{name}_concat")([x, encoded[level]])
    x = part.active(x, 0.0, "last")
    heads = {name: part.up(x, 1, f"{name}_conv", dtype="float32") for name in outputs}
    return keras.Model(image, heads, name="pix2pix")


def discriminator(
    pixels: int,
    channels: int,
    width: float = 1.0,
    dropout: float = 0.5,
    seed: int = 0,
    *,
    kernel: int = 4,
    layers: int = 3,
    biases: bool = True,
    batch_norm: bool = True,
    spectral_norm: bool = False,
) -> keras.Model:
    """PatchGAN from maps (n, pixels, pixels, channels) to logits (n, y, x, 1).

    A logit judges a part of the map: of 70² pixels, `kernel` 4 and 3 `layers` that halve the
    resolution, behind which two more do not. With six channels and width 1 that is the published
    network, 2,768,705 trained parameters without the biases of convolutions that a norm follows,
    2,769,601 with. Logits are `pixels` / 2^layers a side, rounded up. `dropout`, published as none,
    follows each hidden layer. `spectral_norm` is `parts.SpectralConv2D` in all layers. The last one
    computes in float32. Raises `UserError` for settings that cannot be built.
    """
    parts.check_strided(kernel, "discriminator.kernel")
    if layers < 1:
        raise UserError("discriminator.layers", "1 or more", layers)
    maps = parts.image(pixels, channels, "maps")
    part = _Parts(width, seed, kernel, biases, spectral_norm)
    x = maps
    for level in range(layers + 1):
        name, stride = f"judge_{level}", 2 if level < layers else 1
        x = part.conv(x, part.channels(level), f"{name}_conv", stride=stride)
        x = part.norm(x, f"{name}_norm") if batch_norm and level else x
        x = parts.dropout(part.active(x, 0.2, name), dropout, seed, name)
    logits = part.conv(x, 1, "logits", stride=1, dtype="float32")
    return keras.Model(maps, logits, name="pix2pix_discriminator")


def _halvings(pixels: int) -> int:
    """How often `pixels` can be halved, up to the most."""
    return min(_DEEPEST, (pixels & -pixels).bit_length() - 1)


@dataclass(frozen=True)
class _Parts:
    """The pieces that both networks repeat."""

    width: float
    seed: int
    kernel: int
    biases: bool
    spectral_norm: bool = False

    def channels(self, level: int) -> int:
        """64, 128, 256, 512, 512, … times the width."""
        return parts.channels(64 * 2 ** min(level, 3), self.width)

    def conv(
        self, x: Tensor, channels: int, name: str, *, stride: int = 2, dtype: str | None = None
    ) -> Tensor:
        """Convolution, same padding, weights drawn by the layer's name."""
        options = self._options(name) | {"strides": stride, "dtype": dtype}
        if self.spectral_norm:
            options["seed"] = parts.draw(self.seed, name, 2)
            return parts.SpectralConv2D(channels, self.kernel, **options)(x)
        return layers.Conv2D(channels, self.kernel, **options)(x)

    def up(self, x: Tensor, channels: int, name: str, *, dtype: str | None = None) -> Tensor:
        """Transposed convolution to twice the resolution, otherwise as `conv`."""
        options = self._options(name) | {"strides": 2, "dtype": dtype}
        return layers.Conv2DTranspose(channels, self.kernel, **options)(x)

    def active(self, x: Tensor, slope: float, name: str) -> Tensor:
        """Leaky ReLU, or a plain one of slope 0."""
        return layers.ReLU(negative_slope=slope, name=f"{name}_relu")(x)

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Batch norm with the published momentum and epsilon."""
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)

    def _options(self, name: str) -> dict[str, Any]:
        # N(0, 0.02²) as published, and such that narrower layers answer as strongly.
        start = keras.initializers.RandomNormal(
            stddev=0.02 / self.width**0.5, seed=parts.draw(self.seed, name, 0)
        )
        return {
            "padding": "same",
            "use_bias": self.biases,
            "kernel_initializer": start,
            "name": name,
        }
