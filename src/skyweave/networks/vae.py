"""Encoder and decoder of a variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from skyweave.errors import UserError
from skyweave.networks import parts
from skyweave.networks.parts import Tensor

#: Fewest pixels a side of the coarsest resolution.
_COARSEST = 4

#: Channels of the finest resolution, and most of any, at width 1.
_FINEST, _MOST = 64, 512

#: Groups that channels, multiples of it, are normalized in.
_GROUPS = 4


def encoder(
    pixels: int, outputs: Sequence[str], latent: int, width: float, seed: int
) -> keras.Model:
    """Network from images (n, pixels, pixels, outputs) to what is known of their latents.

    Gives {"mean": (n, latent), "log_variance": (n, latent)} of independent normal latents, float32
    under any precision policy. Both start at 0, the law that new images' latents are drawn by.
    Images are stretched, their bands in the order of `outputs`.

    Each resolution has a residual block. It is halved while it is even and its half has 4 pixels a
    side: 64 end at 4, 48 at 6. Channels are 64 at first and double with each halving up to 512;
    `width` is a factor on them, which become multiples of 4. Groups of channels are normalized,
    never batches, so that no image depends on its neighbours.

    Raises `UserError` where `pixels` is not a multiple of 4.
    """
    image = parts.image(pixels, len(outputs), name="images", where="pixels")
    part, channels = _Parts(seed), _levels(pixels, width)[1]
    x = part.conv(image, channels[0], "stem")
    for level, count in enumerate(channels):
        x = part.conv(x, count, f"half_{level}", kernel=4, strides=2) if level else x
        x = part.block(x, f"level_{level}")
    x = layers.Flatten(name="flat")(part.active(x, "last"))
    known = {
        "mean": part.dense(x, latent, "mean", zero=True, dtype="float32"),
        "log_variance": part.dense(x, latent, "log_variance", zero=True, dtype="float32"),
    }
    return keras.Model(image, known, name="vae_encoder")


def decoder(
    pixels: int, outputs: Sequence[str], latent: int, width: float, seed: int
) -> keras.Model:
    """Network from latents (n, latent) to {output: (n, pixels, pixels, 1)}, stretched images.

    Outputs are float32 under any precision policy. Resolutions, channels and blocks are the
    encoder's, from coarse to fine; each doubling is to nearest pixels, with a convolution behind.
    Latents of new images are independent normal numbers.

    Raises `UserError` where `pixels` is not a multiple of 4.
    """
    _check(pixels)
    part, (coarsest, channels) = _Parts(seed), _levels(pixels, width)
    latents = keras.Input((latent,), name="latents")
    x = part.dense(latents, coarsest**2 * channels[-1], "first")
    x = layers.Reshape((coarsest, coarsest, channels[-1]), name="square")(x)
    for level, count in reversed(list(enumerate(channels))):
        if level < len(channels) - 1:
            x = layers.UpSampling2D(name=f"double_{level}_nearest")(x)
            x = part.conv(x, count, f"double_{level}")
        x = part.block(x, f"level_{level}")
    x = part.active(x, "last")
    images = {
        name: part.conv(x, 1, f"output_{number}", dtype="float32")
        for number, name in enumerate(outputs)
    }
    return keras.Model(latents, images, name="vae_decoder")


def _check(pixels: int) -> None:
    if pixels < _COARSEST or pixels % 4:
        raise UserError("pixels", "a multiple of 4", pixels)


def _levels(pixels: int, width: float) -> tuple[int, list[int]]:
    """Pixels a side of the coarsest resolution, and the channels of each, from the finest on."""
    side, channels = pixels, [_FINEST]
    while side % 2 == 0 and side // 2 >= _COARSEST:
        side //= 2
        channels.append(min(2 * channels[-1], _MOST))
    return side, [parts.channels(count, width) for count in channels]


class _Parts:
    """The pieces that both networks repeat; weights are drawn by the layers' names."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def block(self, x: Tensor, name: str) -> Tensor:
        """`x` + [group norm → silu → convolution] twice, the last one first 0."""
        y = self.conv(self.active(x, f"{name}_a"), x.shape[-1], f"{name}_a")
        y = self.conv(self.active(y, f"{name}_b"), x.shape[-1], f"{name}_b", zero=True)
        return layers.Add(name=f"{name}_add")([x, y])

    def active(self, x: Tensor, name: str) -> Tensor:
        """Group norm → silu."""
        x = layers.GroupNormalization(_GROUPS, epsilon=1e-5, name=f"{name}_norm")(x)
        return layers.Activation("silu", name=f"{name}_silu")(x)

    def conv(self, x: Tensor, channels: int, name: str, **more: Any) -> Tensor:
        """Convolution, 3×3 unless `kernel` says otherwise; weights drawn, or first 0."""
        return layers.Conv2D(
            channels,
            more.pop("kernel", 3),
            padding="same",
            kernel_initializer=self._start(name, more.pop("zero", False)),
            name=f"{name}_conv",
            **more,
        )(x)

    def dense(self, x: Tensor, units: int, name: str, **more: Any) -> Tensor:
        """Linear combinations of the last axis; weights drawn, or first 0."""
        start = self._start(name, more.pop("zero", False))
        return layers.Dense(units, kernel_initializer=start, name=name, **more)(x)

    def _start(self, name: str, zero: bool) -> Any:
        drawn = keras.initializers.LecunNormal(seed=parts.draw(self.seed, name, 0))
        return "zeros" if zero else drawn
