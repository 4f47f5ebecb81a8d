"""The residual denoiser of galaxy images of Holzschuh et al. (arXiv 2203.11956)."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import layers

from skyweave.networks import parts
from skyweave.networks.partial_conv import Channels
from skyweave.networks.parts import Tensor

#: Channels of every layer but the narrow one, at width 1.
CHANNELS = 32
_NARROW = 2
_KERNEL = 5
_BLOCKS = 5


def build(pixels: int, outputs: Sequence[str], width: float = 1.0, seed: int = 0) -> keras.Model:
    """Network from images (n, pixels, pixels, len(outputs)) to {output: (n, pixels, pixels, 1)}.

    A convolution, five residual blocks of two, one to two channels, through which all must go, and
    the mirror of it with transposed convolutions; all of kernel 5 and stride 1. Four outputs and
    width 1 give the published 522,310 parameters. `width` is a factor on the 32 channels, which
    stay multiples of 4; the narrow middle keeps its two. A ReLU follows every convolution but the
    narrow one and the last; the second of a block's comes after the sum, as in the first residual
    networks (He et al., 1512.03385). The last layer computes in float32 under any precision policy.
    No weight depends on `pixels`: a network of another size takes them as they are. Raises
    `UserError` where `pixels` is not a multiple of 4.
    """
    layout = _Layout(parts.channels(CHANNELS, width), seed)
    image = parts.image(pixels, len(outputs), where="pixels")
    x = layout.half(image, layers.Conv2D, "enc")
    x = layout.conv(x, layers.Conv2D, _NARROW, "narrow_conv")
    x = layout.half(x, layers.Conv2DTranspose, "dec")
    x = layout.conv(x, layers.Conv2DTranspose, len(outputs), "last_conv", dtype="float32")
    bands = {name: Channels(at, name=name)(x) for at, name in enumerate(outputs)}
    return keras.Model(image, bands, name="residual_denoiser")


@dataclass(frozen=True)
class _Layout:
    """What both halves have, with one kind of convolution or the other."""

    channels: int
    seed: int

    def half(self, x: Tensor, kind: type[layers.Layer], name: str) -> Tensor:
        """A convolution to the channels, and the residual blocks."""
        x = self.active(self.conv(x, kind, self.channels, f"{name}_conv"), f"{name}_relu")
        for number in range(1, _BLOCKS + 1):
            block = f"{name}_{number}"
            y = self.conv(x, kind, self.channels, f"{block}a_conv")
            y = self.active(y, f"{block}a_relu")
            y = self.conv(y, kind, self.channels, f"{block}b_conv")
            x = self.active(layers.Add(name=f"{block}_add")([x, y]), f"{block}b_relu")
        return x

    def conv(
        self,
        x: Tensor,
        kind: type[layers.Layer],
        channels: int,
        name: str,
        *,
        dtype: str | None = None,
    ) -> Tensor:
        """Convolution, same padding, weights drawn by the layer's name."""
        start = keras.initializers.GlorotUniform(seed=parts.draw(self.seed, name, 0))
        options = {"padding": "same", "kernel_initializer": start, "dtype": dtype, "name": name}
        return kind(channels, _KERNEL, **options)(x)

    def active(self, x: Tensor, name: str) -> Tensor:
        """ReLU."""
        return layers.ReLU(name=name)(x)
