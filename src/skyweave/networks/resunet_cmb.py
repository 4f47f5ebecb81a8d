"""ResUNet-CMB, the residual U-Net of Guzman & Meyers (arXiv 2101.01214, 2109.09715)."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import keras
from keras import layers

from skyweave.networks import parts, variance
from skyweave.networks.parts import Tensor


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
    image = parts.image(pixels, len(inputs))
    layout = Layout(width, dropout, seed)
    shared, decoded = layout.body(image)
    heads = {
        name: layout.norm(layout.head(shared, decoded, name), name, dtype="float32")
        for name in outputs
    }
    if uncertainty:
        small = max(8, parts.channels(16, width))
        heads |= {
            name + variance.SUFFIX: variance.log_variance(
                image, shared, heads[name], name, small, seed
            )
            for name in outputs
        }
    return keras.Model(image, heads, name="resunet_cmb")


@dataclass(frozen=True)
class Layout:
    """The network but for what follows its last convolutions, and relatives of it.

    `kernel` is the convolutions' side, `skips` hands features of the encoder to the decoder,
    `residuals` adds the residual connections, `biases` are the convolutions', and `stem` is the
    number of blocks of each output's own.
    """

    width: float
    dropout: float
    seed: int
    kernel: int = 5
    skips: bool = True
    residuals: bool = True
    biases: bool = True
    stem: int = 2

    def body(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What all outputs share, and the residual for their first own block."""
        narrow, middle, wide = (parts.channels(base, self.width) for base in (64, 128, 256))
        x = self.block(image, narrow, "enc_1a", dropout=False)
        enc_1 = self.add(self.block(x, narrow, "enc_1b"), image, "enc_1")
        skip = self.block(enc_1, narrow, "enc_2a")
        x = self.block(skip, middle, "enc_2b", stride=2)
        enc_2 = self.add(x, enc_1, "enc_2", stride=2)
        x = self.block(enc_2, middle, "enc_3a")
        enc_3 = self.add(self.block(x, middle, "enc_3b"), enc_2, "enc_3")

        x = self.block(enc_3, wide, "bottleneck_a", stride=2)
        x = self.block(x, middle, "bottleneck_b", up=True)
        bottleneck = self.add(x, enc_3, "bottleneck")

        both = self.join(bottleneck, enc_3, "dec_1")
        x = self.block(both, middle, "dec_1a")
        dec_1 = self.add(self.block(x, middle, "dec_1b"), both, "dec_1")
        x = self.join(self.block(dec_1, narrow, "dec_2a", up=True), skip, "dec_2")
        dec_2 = self.add(self.block(x, narrow, "dec_2b"), dec_1, "dec_2", up=True)
        return self.block(dec_2, narrow, "dec_3"), dec_2

    def head(self, x: Tensor, residual: Tensor, name: str) -> Tensor:
        """An output's blocks of `x`, `residual` added to the first, and the last convolution."""
        for number, letter in enumerate(ascii_lowercase[: self.stem]):
            x = self.block(x, parts.channels(64, self.width), f"{name}_{letter}")
            if number == 0:
                x = self.add(x, residual, f"{name}_{letter}")
        return self.conv(x, 1, f"{name}_conv", kernel=self.kernel, dtype="float32")

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
        """[Nearest ×2] → dropout → convolution → selu → batch norm."""
        if up:
            x = layers.UpSampling2D(name=f"{name}_up")(x)
        if dropout:
            x = parts.dropout(x, self.dropout, self.seed, name)
        x = self.conv(x, channels, f"{name}_conv", kernel=self.kernel, stride=stride)
        x = layers.Activation("selu", name=f"{name}_selu")(x)
        return self.norm(x, f"{name}_norm")

    def join(self, x: Tensor, skip: Tensor, name: str) -> Tensor:
        """`x`, and behind it the encoder's features of that resolution."""
        return layers.Concatenate(name=f"{name}_concat")([x, skip]) if self.skips else x

    def add(
        self, x: Tensor, residual: Tensor, name: str, *, stride: int = 1, up: bool = False
    ) -> Tensor:
        """`x` + batch norm of the residual, which a convolution 1×1 fits to the shape of `x`."""
        if not self.residuals:
            return x
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
        """Convolution, same padding, weights drawn by the layer's name."""
        start = keras.initializers.GlorotUniform(seed=parts.draw(self.seed, name, 0))
        return layers.Conv2D(
            channels,
            kernel,
            strides=stride,
            padding="same",
            use_bias=self.biases,
            kernel_initializer=start,
            dtype=dtype,
            name=name,
        )(x)

    def norm(self, x: Tensor, name: str, *, dtype: str | None = None) -> Tensor:
        """Batch norm with the published momentum and epsilon."""
        return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, dtype=dtype, name=name)(x)
