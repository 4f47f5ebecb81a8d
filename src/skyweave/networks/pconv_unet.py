"""The U-Net of partial convolutions that fills holes (Liu et al. 2018, arXiv 1804.07723)."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import layers

from skyweave.errors import UserError
from skyweave.networks import parts
from skyweave.networks.partial_conv import Channels, PartialConv2D
from skyweave.networks.parts import Tensor

#: Most pixels a side of the smaller of the published networks.
_LARGE = 256

#: Most halvings of the resolution unless `filters` says otherwise.
_DEEPEST = 8


def build(
    pixels: int,
    fields: Sequence[str],
    width: float,
    seed: int,
    *,
    filters: Sequence[int] | None = None,
    kernels: Sequence[int] | None = None,
    batch_norm: bool = True,
    start: Sequence[str] = (),
) -> keras.Model:
    """Network from (n, pixels, pixels, fields + 1 + starts) to {field: (n, pixels, pixels, 1)}.

    Channels are the normalized fields, 1 where they are seen and 0 in holes, and the starts: one
    filled map a field, or none. What fields hold in holes does not matter. Outputs are predictions
    of all pixels, seen ones too, float32 under any precision policy. With starts they are the
    starts, seen everywhere, plus a correction that starts at zero.

    Each level of the encoder halves the resolution: with `filters` channels and a kernel of
    `kernels` pixels; if None with 32, 64 and then 128 channels and kernels of 7, 5 and then 3 up to
    256 pixels, with 64, 128, 256 and then 512 and 7, 5, 5 and then 3 above, while a side is even,
    8 levels at most. `width` is a factor on the channels, which become multiples of 4. `batch_norm`
    normalizes all but the encoder's first and the decoder's last layer. With width 1 and one field,
    that has 2,038,474 trained parameters at 128².

    Down to one pixel any seen pixel reaches every output. Outputs are 0 where nothing seen does: in
    a map that is all hole, and with fewer levels deep inside a hole that is wider than they see.

    Raises `UserError` where `pixels` cannot be halved so often, for as many starts as there are not
    fields, and for `filters` and `kernels` that do not fit.
    """
    sizes = _filters(pixels, filters)
    widths = _kernels(pixels, len(sizes), kernels)
    if start and len(start) != len(fields):
        raise UserError("start", f"one a field: {', '.join(fields)}", ", ".join(start))
    count, levels = len(fields), len(sizes)
    image = parts.image(pixels, count + 1 + len(start), multiple=2**levels)
    part = _Parts([parts.channels(size, width) for size in sizes], seed, batch_norm)

    features = Channels(0, count, name="fields")(image)
    seen = Channels(count, name="seen")(image)
    first = [Channels(count + 1, count, name="start")(image)] if start else []
    encoded = [(features, seen)]
    for level in range(1, levels + 1):
        more = first if level == 1 else []
        encoded.append(part.encode([*encoded[-1], *more], level, widths[level - 1]))
    x = encoded.pop()
    for level in range(levels, 1, -1):
        x = part.decode([*part.double(x, level), *encoded.pop()], level)
    name = "correction" if start else "last"
    last = PartialConv2D(
        count, 3, seed=parts.draw(seed, name, 0), zero=bool(start), dtype="float32", name=name
    )
    y, _ = last([*part.double(x, 1), features, seen, *first])
    if start:
        y = layers.Add(dtype="float32", name="corrected")([*first, y])
    outputs = {field: Channels(i, name=field)(y) for i, field in enumerate(fields)}
    return keras.Model(image, outputs, name="pconv_unet")


def encoder_norms(model: keras.Model) -> list[layers.BatchNormalization]:
    """Batch normalizations of the encoder, from fine to coarse."""
    return [
        layer
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization) and layer.name.startswith("encode_")
    ]


def _filters(pixels: int, filters: Sequence[int] | None) -> Sequence[int]:
    """Channels of each level at width 1."""
    if filters is not None:
        if not filters:
            raise UserError("network.filters", "one level at least", "none")
        return filters
    levels = min(_DEEPEST, (pixels & -pixels).bit_length() - 1)
    if not levels:
        raise UserError("grid.pixels", "a multiple of 2", pixels)
    first = 32 if pixels <= _LARGE else 64
    most = 4 * first if pixels <= _LARGE else 8 * first
    return [min(first * 2**level, most) for level in range(levels)]


def _kernels(pixels: int, levels: int, kernels: Sequence[int] | None) -> Sequence[int]:
    """Pixels a side of each level's kernel."""
    if kernels is None:
        first = (7, 5) if pixels <= _LARGE else (7, 5, 5)
        return [*first, *[3] * levels][:levels]
    if len(kernels) != levels:
        raise UserError("network.kernels", f"one for each of {levels} levels", list(kernels))
    for kernel in kernels:
        parts.check_strided(kernel, "network.kernels")
    return kernels


@dataclass(frozen=True)
class _Parts:
    """The pieces that the network repeats; each gives features and where they are seen."""

    channels: Sequence[int]
    seed: int
    batch_norm: bool

    def encode(self, x: Sequence[Tensor], level: int, kernel: int) -> tuple[Tensor, Tensor]:
        """To half the resolution: partial convolution → [batch norm] → ReLU."""
        name = f"encode_{level}"
        y, seen = self._conv(x, self.channels[level - 1], name, kernel, 2)
        y = self._norm(y, name) if level > 1 else y
        return layers.ReLU(name=f"{name}_relu")(y), seen

    def decode(self, x: Sequence[Tensor], level: int) -> tuple[Tensor, Tensor]:
        """Partial convolution 3×3 → [batch norm] → leaky ReLU, channels as the encoder's there."""
        name = f"decode_{level}"
        y, seen = self._conv(x, self.channels[level - 2], name, 3, 1)
        y = self._norm(y, name)
        return layers.LeakyReLU(negative_slope=0.2, name=f"{name}_relu")(y), seen

    def double(self, x: tuple[Tensor, Tensor], level: int) -> list[Tensor]:
        """Nearest ×2 of the features and of where they are seen."""
        name = f"decode_{level}"
        return [
            layers.UpSampling2D(name=f"{name}_{what}")(each)
            for what, each in zip(("nearest", "seen"), x, strict=True)
        ]

    def _conv(
        self, x: Sequence[Tensor], channels: int, name: str, kernel: int, stride: int
    ) -> tuple[Tensor, Tensor]:
        """Partial convolution, weights drawn by the layer's name."""
        drawn = parts.draw(self.seed, name, 0)
        return PartialConv2D(channels, kernel, stride, seed=drawn, name=name)(list(x))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        """Batch norm of all pixels, also those that saw nothing, or none."""
        if not self.batch_norm:
            return x
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
