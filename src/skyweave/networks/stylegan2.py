"""StyleGAN2 (Karras et al. 2020, arXiv 1912.04958): mapping, synthesis and discriminator.

`training.style.compose` makes a generator of the first two. A layer has the published 16384 over
its pixels a side, 512 at most, times `width` channels, as `parts.channels` rounds them: at width 1
these are the networks published for 256², so that 4² … 32² have 512, 64² 256, 128² 128, 256² 64.
"""

from collections.abc import Sequence

import keras
from keras import layers

from skyweave.errors import UserError
from skyweave.networks import parts
from skyweave.networks.partial_conv import Channels
from skyweave.networks.parts import Tensor
from skyweave.networks.style_layers import (
    EqualizedConv2D,
    EqualizedDense,
    LearnedStart,
    MinibatchDeviation,
    ModulatedConv2D,
    PixelNorm,
    Resample,
    Row,
)

#: Pixels a side that all starts at.
_START = 4
_MOST = 512
_CHANNELS = 16384
#: The least numbers of a style, which few layers would be too narrow for.
_LEAST_STYLE = 32
#: How much slower the mapping learns.
_MAPPING_RATE = 0.01
#: Keeps the variance where two maps are added.
_HALF = 0.5**0.5


def mapping(latent: int, layers: int, seed: int, *, width: float) -> keras.Model:
    """Latents (n, latent) to styles (n, w), w being 512 times `width` but at least 32.

    Latents are put on the sphere first; `layers` dense layers follow, which learn a hundred times
    slower than others (Karras et al. 2019, arXiv 1812.04948). Float32 under any precision policy.
    """
    latents = keras.Input((latent,), name="latents")
    units = max(_LEAST_STYLE, parts.channels(_MOST, width))
    x = PixelNorm(name="sphere")(latents)
    for number in range(1, layers + 1):
        name = f"map_{number}"
        drawn = parts.draw(seed, name, 0)
        x = EqualizedDense(units, drawn, _MAPPING_RATE, leaky=True, name=name)(x)
    return keras.Model(latents, x, name="mapping")


def style_count(pixels: int) -> int:
    """Styles that `synthesis` takes, of either kind: one a convolution, and the last image's.

    The image of a resolution before the last shares the style of the convolution that comes next.
    """
    return 2 * len(_sides(pixels))


def synthesis(
    pixels: int,
    outputs: Sequence[str],
    styles: int,
    width: float,
    seed: int,
    *,
    kind: str,
    pixel_noise: bool,
) -> keras.Model:
    """Styles (n, `style_count`, styles), first the coarsest, to {output: (n, pixels, pixels, 1)}.

    From a learned map of 4×4 pixels on each resolution has two modulated convolutions, the first
    of which doubles the pixels (4×4 has the second only). With the `kind` `skip` each resolution
    makes an image, which is added to the doubled one of those before; with `residual` what goes
    into a resolution is added to what comes out of it, and only the last makes an image. With
    `pixel_noise` all convolutions but those to images add noise, in and out of training, from
    states that `reseed` sets. Outputs are float32 under any precision policy.

    Raises `UserError` for `pixels` that are not a power of 2 from 8 on.
    """
    if kind not in ("skip", "residual"):
        raise ValueError(f"Expected skip or residual. Received: {kind}")
    inputs = keras.Input((style_count(pixels), styles), name="styles")
    rows = [Row(at, name=f"style_{at}")(inputs) for at in range(style_count(pixels))]

    def draw(name: str) -> int:
        return parts.draw(seed, name, 0)

    def modulated(x: Tensor, style: Tensor, shape: tuple[int, int], name: str, **options) -> Tensor:
        scales = f"{name}_scales"
        scale = EqualizedDense(x.shape[-1], draw(scales), start=1.0, name=scales)(style)
        return ModulatedConv2D(*shape, draw(name), name=name, **options)([x, scale])

    def convolved(x: Tensor, style: Tensor, filters: int, name: str, **options) -> Tensor:
        noise_seed = parts.draw(seed, name, 1) if pixel_noise else None
        return modulated(x, style, (filters, 3), name, noise_seed=noise_seed, **options)

    def to_image(x: Tensor, style: Tensor, side: int) -> Tensor:
        options = {"active": False, "dtype": "float32"}
        return modulated(x, style, (len(outputs), 1), f"image_{side}", **options)

    filters = _filters(_START, width)
    x = LearnedStart(_START, filters, draw("start"), name="start")(inputs)
    x = convolved(x, rows[0], filters, f"{_START}_second")
    image = to_image(x, rows[1], _START) if kind == "skip" else None
    for number, side in enumerate(_sides(pixels)[1:]):
        filters, before = _filters(side, width), x
        first, second, last = rows[2 * number + 1 : 2 * number + 4]
        gain = _HALF if kind == "residual" else 1.0
        x = convolved(x, first, filters, f"{side}_first", up=True)
        x = convolved(x, second, filters, f"{side}_second", gain=gain)
        if kind == "residual":
            name = f"{side}_skip"
            way = EqualizedConv2D(filters, 1, draw(name), leaky=False, gain=gain, name=name)(before)
            x = layers.Add(name=f"{side}_sum")([x, Resample(True, name=f"{side}_doubled")(way)])
        else:
            image = Resample(True, dtype="float32", name=f"image_{side}_doubled")(image)
            image = layers.Add(dtype="float32", name=f"image_{side}_sum")(
                [image, to_image(x, last, side)]
            )
    if kind == "residual":
        image = to_image(x, rows[-1], pixels)
    bands = {name: Channels(at, name=name)(image) for at, name in enumerate(outputs)}
    return keras.Model(inputs, bands, name="synthesis")


def reseed(model: keras.Model, seed: int) -> None:
    """Draw all noise of a generator or a synthesis from the beginning of what `seed` gives.

    Each layer has noise of its own. Batches after this continue what the ones before have drawn.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, ModulatedConv2D):
            layer.reseed(parts.draw(seed, layer.name, 1))


def discriminator(pixels: int, bands: int, width: float, seed: int) -> keras.Model:
    """Maps (n, pixels, pixels, bands) to logits (n, 1), float32 under any precision policy.

    Residual blocks halve the pixels down to 4×4, where the standard deviation over examples joins
    (`style_layers.MinibatchDeviation`, which says over which); then a convolution and two dense
    layers. From 4×4 on all is float32.

    Raises `UserError` for `pixels` that are not a power of 2 from 8 on.
    """
    maps = keras.Input((pixels, pixels, bands), name="maps")

    def convolved(x: Tensor, filters: int, size: int, name: str, **options) -> Tensor:
        drawn = parts.draw(seed, name, 0)
        return EqualizedConv2D(filters, size, drawn, name=name, **options)(x)

    sides = _sides(pixels)[::-1]
    x = convolved(maps, _filters(pixels, width), 1, "judge_image")
    for side in sides[:-1]:
        filters, name = _filters(side // 2, width), f"judge_{side}"
        way = Resample(False, name=f"{name}_halved")(x)
        way = convolved(way, filters, 1, f"{name}_skip", leaky=False, gain=_HALF)
        x = convolved(x, _filters(side, width), 3, f"{name}_first")
        x = convolved(x, filters, 3, f"{name}_second", down=True, gain=_HALF)
        x = layers.Add(name=f"{name}_sum")([x, way])
    filters = _filters(_START, width)
    x = MinibatchDeviation(name="judge_deviation")(x)
    x = convolved(x, filters, 3, "judge_last", dtype="float32")
    x = layers.Flatten(dtype="float32", name="judge_flat")(x)
    drawn = [parts.draw(seed, f"judge_{name}", 0) for name in ("dense", "logit")]
    x = EqualizedDense(filters, drawn[0], leaky=True, name="judge_dense")(x)
    logits = EqualizedDense(1, drawn[1], name="judge_logit")(x)
    return keras.Model(maps, logits, name="discriminator")


def _sides(pixels: int) -> list[int]:
    """Pixels a side of all resolutions, from 4 on."""
    if pixels <= _START or pixels & (pixels - 1):
        raise UserError("pixels", f"a power of 2 from {2 * _START} on with StyleGAN2", pixels)
    return [1 << level for level in range(_START.bit_length() - 1, pixels.bit_length())]


def _filters(side: int, width: float) -> int:
    """Channels of a layer."""
    return parts.channels(min(_CHANNELS // side, _MOST), width)
