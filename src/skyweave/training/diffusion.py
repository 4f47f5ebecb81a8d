"""Training of a diffusion model: a network learns to take noise of any level off images."""

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from skyweave import seeds
from skyweave.config.galaxies import Diffusion as Settings
from skyweave.networks.diffusion import denoise
from skyweave.training.gradients import seam
from skyweave.training.method import Learner, Place, groups, numbers
from skyweave.training.state import assign, values
from skyweave.training.style import kept

#: Half-life of the average of the weights, images.
_AVERAGE = 10_000


class DiffusionTraining:
    """The learner's network (`networks.diffusion`) takes white noise off the truths.

    An output's loss is the mean squared error of its image, over the variance that noise and image
    leave open if both are white (Karras et al. 2022, arXiv:2206.00364): an untrained network then
    has 1 at each level of the noise. `sigma_data` is the rms of the truths about their mean, that
    which the network was built with. The log of the noise's rms in units of it is normal with
    `settings.p_mean` and `p_std`. The product `model` is the exponential moving average of the
    network that learns, all its variables: also the mean image and the rms, which never change.

    Noise and its levels are drawn by `seed`, `name` and the batch's number, in validation by the
    images' own bytes, so that epochs are judged by the same. Inputs of the feed are not looked at.
    """

    def __init__(
        self,
        learner: Learner,
        settings: Settings,
        *,
        sigma_data: float,
        seed: int,
        name: str,
        xla: bool = False,
    ) -> None:
        network = learner.model
        self.settings, self._variance = settings, sigma_data**2
        self._key = (seed, name, "diffusion")
        self.model = keras.models.clone_model(network)
        assign(self.model.variables, values(network.variables))
        self.learners: Sequence[Learner] = (learner,)
        self.groups: Mapping[str, Sequence[keras.Variable]] = groups({"network": learner}) | {
            "average": self.model.variables
        }
        self.identity: Mapping[str, Any] = {
            "method": "diffusion",
            # What the sampler reads is not asked, nor an rms that was measured: the data's own
            # identity stands for it, and measured again it need not have the same last bits.
            "settings": settings.model_dump(include={"sigma_data", "p_mean", "p_std"}),
            "draws": [seed, name],
        }
        self.paired = False
        at = seam([v for group in self.groups.values() for v in group], xla=xla)

        def train(
            images: Any, noise: Any, sigmas: Any, count: Any, share: Any, *, last: bool
        ) -> Any:
            def loss() -> Any:
                losses = self._losses(network, images, noise, sigmas, training=True)
                return sum(losses.values()), losses

            _, losses, gradients = at.gradient(loss, network.trainable_variables)
            norm = learner.learn(gradients, last, count)
            if last:
                for mean, weight in zip(self.model.variables, network.variables, strict=True):
                    mean.assign(mean + share * (weight - mean))
            return losses, norm

        self._train: Mapping[Hashable, Callable[..., Any]] = {
            True: at.compile(lambda *batch: train(*batch, last=True)),
            False: at.compile(lambda *batch: train(*batch, last=False)),
        }
        self._evaluate = at.compile(lambda *batch: self._losses(self.model, *batch, training=False))

    def settled(self, update: int) -> bool:
        """The validation loss judges from the start."""
        return True

    def kind(self, place: Place) -> Hashable:
        """Which compiled step a batch takes."""
        return place.last

    def train(
        self, x: np.ndarray, y: Mapping[str, np.ndarray], place: Place
    ) -> tuple[dict[str, float], float]:
        """Take a step; its losses before the update, and the gradient's norm unclipped."""
        images = self._images(y)
        share = np.float32(1 - kept(_AVERAGE, len(images), place))
        drawn = self._draw(images.shape, place.batch)
        step = self._train[self.kind(place)]
        losses, norm = step(images, *drawn, np.float32(place.count), share)
        return numbers(losses, y), float(norm)

    def evaluate(self, x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Losses of the average network; nothing changes."""
        images = self._images(y)
        drawn = self._draw(images.shape, "validation", zlib.crc32(images.tobytes()))
        return numbers(self._evaluate(images, *drawn), y)

    def total(self, losses: Mapping[str, float]) -> float:
        """The sum of the outputs' losses."""
        return sum(losses.values())

    def _images(self, y: Mapping[str, np.ndarray]) -> np.ndarray:
        """The truths as the network sees them, (n, y, x, outputs), or vectors (n, numbers)."""
        return np.concatenate([y[name] for name in self.model.output], axis=-1)

    def _draw(self, shape: Sequence[int], *identity: str | int) -> tuple[np.ndarray, np.ndarray]:
        """White noise (n, y, x, outputs) of rms 1, and the rms (n,) that it shall have.

        These are evenly spread over their law's quantiles, which has the mean of independent ones
        and less scatter (Kingma et al. 2021, arXiv:2107.00630).
        """
        from scipy.special import ndtri

        rng = seeds.generator(*self._key, *identity)
        quantiles = (np.arange(shape[0]) + rng.random()) / shape[0]
        logarithms = self.settings.p_mean + self.settings.p_std * ndtri(quantiles)
        sigmas = np.sqrt(self._variance) * np.exp(logarithms)
        return rng.standard_normal(shape, np.float32), sigmas.astype(np.float32)

    def _losses(
        self, model: keras.Model, images: Any, noise: Any, sigmas: Any, *, training: bool
    ) -> dict[str, Any]:
        sigma = ops.reshape(sigmas, (-1, *(1 for _ in images.shape[1:])))
        found = denoise(model, images + sigma * noise, sigmas, training=training)
        weights = 1 / self._variance + 1 / ops.square(sigma)
        errors = weights * ops.square(found - images)
        ends = np.cumsum([one.shape[-1] for one in model.output.values()]).tolist()
        places = zip(model.output, [0, *ends[:-1]], ends, strict=True)
        return {name: ops.mean(errors[..., first:end]) for name, first, end in places}
