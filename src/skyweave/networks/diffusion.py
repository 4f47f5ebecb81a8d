"""A diffusion model: a U-Net that takes noise off images, and images drawn with it.

Preconditioned and sampled as Karras et al. 2022 (arXiv:2206.00364) found best, but about the mean
of the images. For images that are white noise about it the best denoiser draws what it sees towards
it by a factor: the untrained network.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from skyweave import seeds
from skyweave.config.galaxies import Diffusion
from skyweave.networks import parts
from skyweave.networks.flow import compiled
from skyweave.networks.parts import Tensor

#: From so many pixels a side on the resolution is halved three times, below twice.
_LARGE = 64

#: Most pixels a side of maps whose pixels attend to each other.
_ATTENTIVE = 8

#: Channels that are normalized together.
_GROUP = 4

#: Waves of the noise: sines and cosines of these times a quarter of the log of its rms.
_WAVES = tuple(math.pi / 2 * 2**octave for octave in range(5))


@keras.saving.register_keras_serializable("skyweave")
class Centre(layers.Layer):
    """Images less their `mean` image (y, x, c), and with `back` again with it.

    `rms` is that of their differences, which a sampler has to know. Neither is trained; they are 0
    and 1 until they are assigned.
    """

    def build(self, input_shape: Any) -> None:
        """Make the weights: `mean` (y, x, c), and `rms`, a number."""
        self.mean = self.add_weight(
            shape=input_shape[1:], initializer="zeros", trainable=False, name="mean"
        )
        self.rms = self.add_weight(shape=(), initializer="ones", trainable=False, name="rms")

    def call(self, images: Tensor, back: bool = False) -> Tensor:
        """(n, y, x, c) → (n, y, x, c)."""
        return images + self.mean if back else images - self.mean


def build(
    pixels: int,
    outputs: Sequence[str],
    width: float,
    seed: int,
    *,
    sigma_data: float,
    mean: np.ndarray | None = None,
) -> keras.Model:
    """Network from (n, pixels, pixels, outputs + 1) to {output: (n, pixels, pixels, 1)}.

    Channels are the noisy images, in the order of the outputs, and a map that is the rms of the
    white noise in them everywhere. Outputs are the images without noise: the mean of what they may
    have been; float32 under any precision policy. `mean` is the images' mean image (y, x, outputs),
    zero if None, and `sigma_data` the rms of their differences from it; the layer `centre` holds
    both. `width` is a factor on the network's channels: 64, twice as many at each halving of the
    resolution, of which there are 2, or 3 from 64 pixels a side on if they can be halved so often.
    Its last layer is 0 at first. Raises `UserError` where `pixels` is not a multiple of 4.
    """
    image = parts.image(pixels, len(outputs) + 1)
    centre = Centre(dtype="float32", name="centre")
    noisy, sigma = centre(image[..., :-1]), image[:, :1, :1, -1:]
    network = partial(_network, pixels=pixels, width=width, seed=seed)
    images = centre(precondition(noisy, sigma, sigma_data, network), back=True)
    centre.rms.assign(sigma_data)
    if mean is not None:
        centre.mean.assign(mean)
    names = {
        name: layers.Identity(dtype="float32", name=name)(images[..., place : place + 1])
        for place, name in enumerate(outputs)
    }
    return keras.Model(image, names, name="diffusion")


def precondition(
    noisy: Tensor, sigma: Tensor, sigma_data: float, network: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """What has the mean 0 and the rms `sigma_data`, from it with noise of rms `sigma`.

    `network` gets it with an rms of 1, and a quarter of the log of `sigma`; where it finds 0, the
    result is the best linear one for white noise.
    """
    total = ops.square(sigma) + sigma_data**2
    scale = ops.sqrt(total)
    found = network(noisy / scale, ops.log(sigma) / 4)
    return noisy * (sigma_data**2 / total) + found * (sigma * sigma_data / scale)


def denoise(model: keras.Model, noisy: Tensor, sigmas: Tensor, *, training: bool = False) -> Tensor:
    """Images (n, y, x, outputs) from noisy ones (n, y, x, outputs), rms of the noise (n,).

    Likewise vectors (n, numbers), of a network whose one output they are.
    """
    level = ops.reshape(sigmas, (-1, *(1 for _ in noisy.shape[1:]))) * ops.ones_like(noisy[..., :1])
    found = model(ops.concatenate([noisy, level], -1), training=training)
    return ops.concatenate([ops.cast(found[name], "float32") for name in model.output], -1)


def sample(
    model: keras.Model,
    count: int,
    settings: Diffusion,
    seed: int,
    *identity: str | int,
    batch: int = 64,
) -> np.ndarray:
    """Images (count, y, x, outputs) float32, made of noise by a network of `build`.

    Noise is added to the mean image: where the most noise, `settings.sigma_max` times the rms that
    the network holds, is not far above the mean image's norm, images that start without it would
    miss much of it in the end. The noise of each is drawn by `seed`, `identity` and its number, so
    that an image depends neither on `count` nor, but for rounding, on `batch`, how many are made
    together. Few steps make fluctuations too strong: those from 0.02 to 20 times the network's rms
    by 2 to 16 % with the published 18 (those of white images by 5.5 %); with 64 they are right to
    1 %.
    """
    shape = (*model.input_shape[1:3], len(model.output))
    made = np.empty((count, *shape), np.float32)
    function = compiled(model, partial(denoise, model))
    centre = model.get_layer("centre")
    levels = sigmas(settings, float(ops.convert_to_numpy(centre.rms)))
    mean = ops.convert_to_numpy(centre.mean)

    def clean(noisy: np.ndarray, sigma: float) -> np.ndarray:
        return function(noisy.astype(np.float32), np.full(len(noisy), sigma, np.float32))

    for start in range(0, count, batch):
        numbers = range(start, min(start + batch, count))
        drawn = [seeds.generator(seed, *identity, n).standard_normal(shape) for n in numbers]
        made[start : start + batch] = integrate(clean, mean + levels[0] * np.stack(drawn), levels)
    return made


def sigmas(settings: Diffusion, sigma_data: float) -> np.ndarray:
    """Rms of the noise (steps + 1,) at the start of each of the sampler's steps, and 0.

    `sigma_data` is the unit of the settings' noise: the rms of the images about their mean.
    """
    first, last = (end ** (1 / settings.rho) for end in (settings.sigma_max, settings.sigma_min))
    levels = np.linspace(first, last, settings.steps) ** settings.rho
    return np.append(sigma_data * levels, 0.0)


def integrate(
    clean: Callable[[np.ndarray, float], np.ndarray], start: np.ndarray, levels: np.ndarray
) -> np.ndarray:
    """What becomes of `start`, images whose noise has the rms `levels[0]`, at the last level.

    `clean(noisy, sigma)` are the images without noise. Heun's method on the path along which their
    law stays that of images with noise of each level; a step to 0 is Euler's (Algorithm 1 of
    arXiv:2206.00364).
    """
    state = start
    for now, after in pairwise(levels):
        state = heun(clean, state, now, after) if after else clean(state, now)
    return state


def heun(clean: Callable[[Any, Any], Any], state: Any, now: Any, after: Any) -> Any:
    """A step of `integrate` from noise of rms `now` to that of `after`, which is not 0."""
    slope = (state - clean(state, now)) / now
    ahead = state + (after - now) * slope
    slope = (slope + (ahead - clean(ahead, after)) / after) / 2
    return state + (after - now) * slope


def noise_waves(noise: Tensor) -> Tensor:
    """Waves (…, 10) of a quarter of the log of the noise's rms (…, 1), for a network to see."""
    waves = [wave(factor * noise) for wave in (ops.sin, ops.cos) for factor in _WAVES]
    return layers.Concatenate(dtype="float32", name="noise_waves")(waves)


def _network(image: Tensor, noise: Tensor, pixels: int, width: float, seed: int) -> Tensor:
    """The U-Net from images (n, y, x, c) of rms 1 and numbers (n, 1, 1, 1) to (n, y, x, c)."""
    halvings = 3 if pixels >= _LARGE and pixels % 8 == 0 else 2
    sizes = [parts.channels(64, width) * 2**level for level in range(halvings + 1)]
    part = _Parts(seed, noise, 4 * sizes[0])
    x, skips = part.conv(image, sizes[0], "stem"), []
    for level, size in enumerate(sizes[:-1]):
        for which in "ab":
            x = part.block(x, size, f"down_{level}{which}")
        skips.append(x)
        x = layers.AveragePooling2D(2, name=f"down_{level}_pool")(x)
    x = part.block(x, sizes[-1], "middle_a")
    if pixels >> halvings <= _ATTENTIVE:
        x = part.attend(x, "middle_attend")
    x = part.block(x, sizes[-1], "middle_b")
    for level, size in reversed(list(enumerate(sizes[:-1]))):
        x = layers.UpSampling2D(name=f"up_{level}_nearest")(x)
        x = layers.Concatenate(name=f"up_{level}_concat")([x, skips.pop()])
        for which in "ab":
            x = part.block(x, size, f"up_{level}{which}")
    x = part.active(part.norm(x, "out"), "out")
    return part.conv(x, image.shape[-1], "out", zero=True, dtype="float32")


class _Parts:
    """The pieces that the network repeats; weights are drawn by the layers' names."""

    def __init__(self, seed: int, noise: Tensor, units: int) -> None:
        self.seed = seed
        x = noise_waves(noise)
        for name in ("noise_a", "noise_b"):
            x = self.active(self.dense(x, units, name), name)
        self.noise = x

    def block(self, x: Tensor, channels: int, name: str) -> Tensor:
        """`x` + norm → silu → convolution → norm, scale and shift by the noise → silu → the same.

        The last convolution is 0 at first; `x` gets other channels by one of 1×1.
        """
        y = self.active(self.norm(x, f"{name}_1"), f"{name}_1")
        y = self.norm(self.conv(y, channels, f"{name}_1"), f"{name}_2")
        factor = self.dense(self.noise, channels, f"{name}_factor", zero=True)
        shift = self.dense(self.noise, channels, f"{name}_shift", zero=True)
        more = layers.Multiply(name=f"{name}_multiply")([y, factor])
        y = self.active(layers.Add(name=f"{name}_noise")([y, more, shift]), f"{name}_2")
        y = self.conv(y, channels, f"{name}_2", zero=True)
        if x.shape[-1] != channels:
            x = self.dense(x, channels, f"{name}_skip")
        return layers.Add(name=f"{name}_add")([x, y])

    def attend(self, x: Tensor, name: str) -> Tensor:
        """`x` + what each pixel takes from all by their likeness; 0 at first."""
        _, rows, columns, channels = x.shape
        flat = layers.Reshape((rows * columns, channels), name=f"{name}_flat")
        y = flat(self.norm(x, name))
        query, key, value = (
            self.dense(y, channels, f"{name}_{what}") for what in ("query", "key", "value")
        )
        query = layers.Rescaling(channels**-0.5, name=f"{name}_scale")(query)
        y = layers.Attention(name=name)([query, value, key])
        y = self.dense(y, channels, f"{name}_out", zero=True)
        y = layers.Reshape((rows, columns, channels), name=f"{name}_image")(y)
        return layers.Add(name=f"{name}_add")([x, y])

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Normalization of groups of channels over an image."""
        return layers.GroupNormalization(x.shape[-1] // _GROUP, name=f"{name}_norm")(x)

    def active(self, x: Tensor, name: str) -> Tensor:
        """The nonlinearity."""
        return layers.Activation("silu", name=f"{name}_silu")(x)

    def dense(self, x: Tensor, units: int, name: str, *, zero: bool = False) -> Tensor:
        """Linear combinations of the last axis; weights drawn, or first 0."""
        return layers.Dense(units, kernel_initializer=self._start(name, zero), name=name)(x)

    def conv(
        self, x: Tensor, channels: int, name: str, *, zero: bool = False, **more: Any
    ) -> Tensor:
        """Convolution 3×3 with bias, same padding; weights drawn, or first 0."""
        more |= {"kernel_initializer": self._start(name, zero), "name": f"{name}_conv"}
        return layers.Conv2D(channels, 3, padding="same", **more)(x)

    def _start(self, name: str, zero: bool) -> Any:
        drawn = keras.initializers.LecunNormal(seed=parts.draw(self.seed, name, 0))
        return "zeros" if zero else drawn
