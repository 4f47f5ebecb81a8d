"""The law of an autoencoder's latents: a small diffusion model of vectors, before a decoder."""

from typing import Any, Self

import keras
import numpy as np
from keras import layers, ops

from skyweave.config.galaxies import Diffusion
from skyweave.networks import parts
from skyweave.networks.diffusion import denoise, heun, noise_waves, precondition, sigmas
from skyweave.networks.parts import Tensor

#: Noise of training and sampler, in units of the latents' own deviations. Latents of sharp images
#: lie near a surface, whose thickness needs weaker noise than pixels do.
NOISE = Diffusion(p_mean=-1.5, p_std=1.8, sigma_min=0.002, sigma_max=80.0)

#: What the layer is called in a decoder.
NAME = "prior"

#: Residual blocks of the network.
_BLOCKS = 3


def denoiser(latent: int, width: int, seed: int) -> keras.Model:
    """Network from (n, latent + 1) to {"latents": (n, latent)}, float32 under any policy.

    In come noisy latents of mean 0 and deviation 1, and the rms of the white noise in them; out
    come those without noise, the mean of what they may have been. Three residual blocks of dense
    layers, `width` wide; the last layer is 0 at first.
    """

    def dense(x: Tensor, units: int, name: str, *, zero: bool = False, **more: Any) -> Tensor:
        drawn = keras.initializers.LecunNormal(seed=parts.draw(seed, f"prior_{name}", 0))
        more |= {"kernel_initializer": "zeros" if zero else drawn, "name": name}
        return layers.Dense(units, dtype="float32", **more)(x)

    def network(noisy: Tensor, noise: Tensor) -> Tensor:
        waves = noise_waves(noise)

        def beside(x: Tensor, name: str) -> Tensor:
            return layers.Concatenate(dtype="float32", name=f"{name}_concat")([x, waves])

        def norm(x: Tensor, name: str) -> Tensor:
            return layers.LayerNormalization(dtype="float32", name=f"{name}_norm")(x)

        x = dense(beside(noisy, "stem"), width, "stem", activation="silu")
        for block in (f"block_{number}" for number in range(_BLOCKS)):
            y = beside(norm(x, block), block)
            y = dense(y, width, f"{block}_in", activation="silu")
            y = dense(y, width, f"{block}_out", zero=True)
            x = layers.Add(dtype="float32", name=f"{block}_add")([x, y])
        return dense(norm(x, "out"), latent, "out", zero=True)

    seen = keras.Input((latent + 1,), name="latents")
    found = precondition(seen[:, :-1], seen[:, -1:], 1.0, network)
    return keras.Model(seen, {"latents": found}, name="latent_denoiser")


@keras.saving.register_keras_serializable("skyweave")
class Prior(layers.Layer):
    """Normal numbers (n, latent) to latents (n, latent) of the law that a network knows.

    `network` is a `denoiser` of latents of mean 0 and deviation 1; the weights `mean` and
    `deviation` (latent,), 0 and 1 until they are assigned, are those of the latents themselves.
    The numbers are the noise that the sampler starts from. Nothing here is trained any more.
    """

    def __init__(self, network: keras.Model, **more: Any) -> None:
        super().__init__(**more)
        self.network = network
        network.trainable = False

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        shape = input_shape[1:]
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")
        self.deviation = self.add_weight(
            shape=shape, initializer="ones", trainable=False, name="deviation"
        )

    def call(self, numbers: Tensor) -> Tensor:
        """(n, latent) → (n, latent)."""

        # The sampler of `diffusion.integrate`, as one operation: its steps need not be traced.
        levels = ops.convert_to_tensor(sigmas(NOISE, 1.0)[:-1], "float32")

        def clean(noisy: Tensor, sigma: Tensor) -> Tensor:
            return denoise(self.network, noisy, sigma * ops.ones_like(noisy[:, 0]))

        def step(number: Tensor, state: Tensor) -> Tensor:
            return heun(clean, state, levels[number], levels[number + 1])

        found = ops.fori_loop(0, NOISE.steps - 1, step, levels[0] * numbers)
        return self.mean + self.deviation * clean(found, levels[-1])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the numbers: nothing need be traced to know it."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Settings from which the layer is built again."""
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The layer of such settings."""
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


def lead(
    decoder: keras.Model, network: keras.Model, mean: np.ndarray, deviation: np.ndarray
) -> keras.Model:
    """`decoder`, from latents (n, latent), behind their law: from normal numbers (n, latent).

    `network` is a trained `denoiser`, `mean` and `deviation` (latent,) are the latents'.
    """
    numbers = keras.Input(decoder.input_shape[1:], name="numbers")
    layer = Prior(network, dtype="float32", name=NAME, trainable=False)
    found = decoder(layer(numbers))
    layer.mean.assign(mean)
    layer.deviation.assign(deviation)
    return keras.Model(numbers, {name: found[name] for name in decoder.output})
