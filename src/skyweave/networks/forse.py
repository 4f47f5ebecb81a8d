"""ForSE's generator and discriminator (Krachmalnicoff & Puglisi 2021, arXiv 2011.02221)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from skyweave.networks import parts
from skyweave.networks.parts import Tensor

_SLOPE, _MOMENTUM = 0.2, 0.5


def build(
    pixels: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    width: float = 1.0,
    dropout: float = 0.0,
    seed: int = 0,
    *,
    batch_norm: bool = True,
) -> keras.Model:
    """Generator from (n, pixels, pixels, len(inputs)) to {output: (n, pixels, pixels, 1)}, -1 to 1.

    One input, one output and width 1 give the published 2,054,401 parameters. `width` is a factor
    on the channels, which stay multiples of 4; `dropout`, published as none, follows each hidden
    layer. Last layers compute in float32. Raises `UserError` where `pixels` is not a multiple of 4.
    """
    image = parts.image(pixels, len(inputs), where="patches.pixels")
    part = _Parts(width, dropout, seed, batch_norm)
    x = part.hidden(image, 64, "down_1")
    x = part.hidden(x, 128, "down_2", stride=2)
    x = part.hidden(x, 256, "down_3", stride=2)
    x = part.hidden(layers.UpSampling2D(name="up_1")(x), 128, "up_1_hidden")
    x = part.hidden(layers.UpSampling2D(name="up_2")(x), 64, "up_2_hidden")
    heads = {name: part.conv(x, 1, name, activation="tanh", dtype="float32") for name in outputs}
    return keras.Model(image, heads, name="forse")


def discriminator(
    pixels: int,
    channels: int = 1,
    width: float = 1.0,
    dropout: float = 0.25,
    seed: int = 0,
    *,
    batch_norm: bool = True,
) -> keras.Model:
    """Discriminator from maps (n, pixels, pixels, channels) to logits (n, 1).

    One channel and width 1 give the published 1,092,353 parameters on 64² pixels, 2,665,217 on
    320². The published sigmoid is left to the loss. Otherwise as `build`.
    """
    maps = parts.image(pixels, channels, "maps", where="patches.pixels")
    part = _Parts(width, dropout, seed, batch_norm)
    x = part.hidden(maps, 64, "judge_1")
    x = part.hidden(x, 128, "judge_2", stride=2)
    x = layers.Flatten(name="flat")(part.hidden(x, 256, "judge_3", stride=2, norm=False))
    logits = layers.Dense(1, kernel_initializer=part.start("logit"), dtype="float32", name="logit")
    return keras.Model(maps, logits(x), name="forse_discriminator")


class _Parts:
    """The pieces that both networks repeat."""

    def __init__(self, width: float, dropout: float, seed: int, batch_norm: bool) -> None:
        self.width, self.dropout, self.seed, self.batch_norm = width, dropout, seed, batch_norm

    def hidden(
        self, x: Tensor, base: int, name: str, *, stride: int = 1, norm: bool = True
    ) -> Tensor:
        """Convolution 5×5 → leaky ReLU → [batch norm] → [dropout]."""
        x = self.conv(x, parts.channels(base, self.width), f"{name}_conv", stride=stride)
        x = layers.LeakyReLU(_SLOPE, name=f"{name}_relu")(x)
        if norm and self.batch_norm:
            x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_norm")(x)
        return parts.dropout(x, self.dropout, self.seed, name)

    def conv(self, x: Tensor, channels: int, name: str, *, stride: int = 1, **more: Any) -> Tensor:
        """Convolution 5×5 with bias, same padding."""
        return layers.Conv2D(
            channels,
            5,
            strides=stride,
            padding="same",
            kernel_initializer=self.start(name),
            name=name,
            **more,
        )(x)

    def start(self, name: str) -> Any:
        """First weights of a layer, drawn by its name."""
        return keras.initializers.GlorotUniform(seed=parts.draw(self.seed, name, 0))
