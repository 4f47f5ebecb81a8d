"""Training of a variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114)."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from skyweave import seeds
from skyweave.config.galaxies import Vae as Settings
from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.training.gradients import seam
from skyweave.training.method import Learner, Place, groups, numbers
from skyweave.training.spectral_losses import band_weights, waves

#: All losses of a step, of which the last may be missing.
_LOSSES = ("negative_log_likelihood", "divergence", "reconstruction", "deviation", "spectrum")

#: The learned log deviation over its weight, which Adam moves by no more than the others.
_FASTER = 10.0

#: Power that is added before logarithms: that of white noise with an rms of 0.001.
_FLOOR = 1e-6


class Autoencoder(keras.Model):
    """What learns together: encoder, decoder, and the deviation of a pixel unless it is given.

    The networks are as `networks.vae` has them, the deviation is in stretched units; a learned one
    starts at 1. A model for its variables' sake, which is not called.
    """

    def __init__(self, encoder: keras.Model, decoder: keras.Model, deviation: float | None) -> None:
        super().__init__(name="autoencoder")
        self.encoder, self.decoder, self.deviation = encoder, decoder, deviation
        if deviation is None:
            self.tenth = self.add_weight(shape=(), dtype="float32", initializer="zeros")

    def log_deviation(self) -> Any:
        """Natural logarithm of the deviation, a scalar."""
        if self.deviation is not None:
            return ops.log(ops.convert_to_tensor(self.deviation, "float32"))
        return _FASTER * ops.convert_to_tensor(self.tenth)


class Variational:
    """An autoencoder is trained on the evidence lower bound of its images.

    The loss, per image and in nats: the negative log-likelihood of all pixels of all bands, which
    are independent and normal around the decoded image of a draw of the latents, plus
    `settings.beta` times the Kullback-Leibler divergence of what the encoder knows of the latents
    from independent normal numbers, plus `settings.spectrum` times the mean squared difference of
    the logarithms of image's and decoded image's power, averaged over rings of wave numbers up to
    the Nyquist one. Unless `settings.deviation` gives it, the deviation of the pixels is one number
    for all of them that is learned with the weights (Rybkin et al. 2021, arXiv:2006.13202).

    The product `model` is the autoencoder, both networks of one epoch. Latents are drawn by `seed`,
    `name` and the number of the batch. The feed's truths are the images; its inputs are not looked
    at.

    What the latents do not tell is noise of that deviation, and decoded images are without it: they
    are smoother than real ones. White noise on them restores the power, but no structure; a weight
    for `spectrum`, a smaller `beta` or deviation, and more latents move the border.
    """

    def __init__(
        self, learner: Learner, settings: Settings, *, seed: int, name: str, xla: bool = False
    ) -> None:
        self.settings, self._key = settings, (seed, name)
        self.model: Autoencoder = learner.model
        encoder, decoder = self.model.encoder, self.model.decoder
        self._fields, self._latent = tuple(decoder.output), decoder.input_shape[1]
        self._rings = _Rings(encoder.input_shape[1]) if settings.spectrum else None
        self.learners: Sequence[Learner] = (learner,)
        self.groups: Mapping[str, Sequence[keras.Variable]] = groups({"autoencoder": learner})
        self.identity: Mapping[str, Any] = {
            "method": "variational",
            "settings": settings.model_dump(exclude={"prior"}),
            "draws": [seed, name],
        }
        self.paired = False
        at = seam(learner.variables, xla=xla)

        def train(images: Any, noise: Any, count: Any, *, last: bool) -> Any:
            def loss() -> Any:
                values = self._losses(images, noise, training=True)
                return self.total(values), values

            _, values, gradients = at.gradient(loss, learner.model.trainable_variables)
            return values, learner.learn(gradients, last, count)

        self._train: Mapping[Hashable, Callable[..., Any]] = {
            True: at.compile(lambda *batch: train(*batch, last=True)),
            False: at.compile(lambda *batch: train(*batch, last=False)),
        }
        self._evaluate = at.compile(lambda *batch: self._losses(*batch, training=False))

    def settled(self, update: int) -> bool:
        """The validation loss judges from the start."""
        return True

    def kind(self, place: Place) -> Hashable:
        """Which compiled step a batch takes."""
        return place.last

    def train(
        self, x: np.ndarray, y: Mapping[str, np.ndarray], place: Place
    ) -> tuple[dict[str, float], float]:
        """Take a step; its losses before the update, and the gradient's norm unclipped.

        `negative_log_likelihood` and `divergence` in nats an image, `reconstruction`, the rms of a
        pixel's residual, `deviation`, and where it counts `spectrum`; all without weights.
        """
        images = self._images(y)
        noise = self._noise(len(images), "latents", place.batch)
        values, norm = self._train[self.kind(place)](images, noise, np.float32(place.count))
        return numbers(values, _LOSSES), float(norm)

    def evaluate(self, x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Losses of a batch, by the same draws for each batch; nothing changes."""
        images = self._images(y)
        return numbers(self._evaluate(images, self._noise(len(images), "validation")), _LOSSES)

    def total(self, losses: Mapping[str, Any]) -> Any:
        """The loss: with a `beta` of 1 and no `spectrum` the negative evidence lower bound."""
        settings = self.settings
        found = losses["negative_log_likelihood"] + settings.beta * losses["divergence"]
        return found + settings.spectrum * losses["spectrum"] if self._rings else found

    def _images(self, y: Mapping[str, np.ndarray]) -> np.ndarray:
        """Images (n, y, x, bands) in the order of the decoder's outputs."""
        return np.concatenate([y[name] for name in self._fields], axis=-1)

    def _noise(self, count: int, *identity: str | int) -> np.ndarray:
        """Normal numbers (count, latent)."""
        rng = seeds.generator(*self._key, *identity)
        return rng.standard_normal((count, self._latent), np.float32)

    def _losses(self, images: Any, noise: Any, *, training: bool) -> dict[str, Any]:
        model = self.model
        known = model.encoder(images, training=training)
        mean, log_variance = (ops.cast(known[n], "float32") for n in ("mean", "log_variance"))
        outputs = model.decoder(mean + ops.exp(log_variance / 2) * noise, training=training)
        made = ops.concatenate([ops.cast(outputs[n], "float32") for n in self._fields], axis=-1)
        square, log = ops.mean(ops.square(made - images)), model.log_deviation()
        pixel = log + 0.5 * math.log(2 * math.pi) + 0.5 * square * ops.exp(-2 * log)
        latents = ops.square(mean) + ops.exp(log_variance) - 1 - log_variance
        found = {
            "negative_log_likelihood": math.prod(images.shape[1:]) * pixel,
            "divergence": 0.5 * ops.mean(ops.sum(latents, axis=1)),
            "reconstruction": ops.sqrt(square),
            "deviation": ops.exp(log),
        }
        if self._rings:
            found["spectrum"] = ops.mean(ops.square(self._rings(made) - self._rings(images)))
        return found


class _Rings:
    """Log power of images (n, y, x, bands) in rings of wave numbers, (n, rings, bands).

    Ring k, from 1 to half the pixels, has the wave numbers within half of k cycles a side. White
    noise of rms s has the power s², to which a floor is added.
    """

    def __init__(self, pixels: int) -> None:
        # Pixels of 1 rad.
        self._grid = PatchGrid(float(np.rad2deg(pixels)), pixels)
        edges = (np.arange(pixels // 2 + 1) + 0.5) * self._grid.ell_fundamental
        self._weights, _ = band_weights(self._grid, Bins(tuple(edges)), (0.0, np.inf))

    def __call__(self, images: Any) -> Any:
        bands = {str(i): images[..., i : i + 1] for i in range(images.shape[-1])}
        found = [
            ops.matmul(
                ops.reshape(ops.square(real) + ops.square(imaginary), (-1, len(self._weights))),
                self._weights,
            )
            for real, imaginary in waves(bands, self._grid).values()
        ]
        return ops.log(ops.stack(found, axis=-1) + np.float32(_FLOOR))
