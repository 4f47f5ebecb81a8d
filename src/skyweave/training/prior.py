"""Training of the law of an autoencoder's latents."""

import time

import keras
import numpy as np

from skyweave import seeds
from skyweave.config.galaxies import Prior
from skyweave.networks import prior
from skyweave.training.diffusion import DiffusionTraining
from skyweave.training.method import Learner, Place
from skyweave.training.progress import Log, to_stderr
from skyweave.training.schedule import factor

#: Latents of an update, Adam's learning rate at its highest, and the updates until it is there.
_BATCH, _RATE, _WARMUP = 512, 0.002, 100

#: Lines of the log.
_LINES = 10


def fit(
    decoder: keras.Model,
    means: np.ndarray,
    deviations: np.ndarray,
    settings: Prior,
    *,
    seed: int,
    name: str,
    xla: bool = False,
    log: Log = to_stderr,
) -> keras.Model:
    """`decoder` behind the law of latents (n, latent), learned by a diffusion model.

    They are known as independent normal numbers of these `means` and `deviations`, and drawn anew
    for each update: by `seed`, `name` and its number.
    """
    mean = means.mean(axis=0)
    deviation = np.sqrt(means.var(axis=0) + np.square(deviations).mean(axis=0))
    network = prior.denoiser(means.shape[1], settings.width, seed)
    learner = Learner(network, keras.optimizers.Adam(_RATE))
    method = DiffusionTraining(learner, prior.NOISE, sigma_data=1.0, seed=seed, name=name, xla=xla)
    begun, losses = time.monotonic(), []
    warmup = min(_WARMUP, settings.updates // 10)
    for update in range(settings.updates):
        rng = seeds.generator(seed, name, "prior", update)
        rows = rng.integers(len(means), size=_BATCH)
        latents = means[rows] + deviations[rows] * rng.standard_normal(means[rows].shape)
        latents = ((latents - mean) / deviation).astype(np.float32)
        rate = factor("cosine", update, warmup, settings.updates)
        learner.optimizer.learning_rate = _RATE * rate
        found, _ = method.train(latents, {"latents": latents}, Place(batch=update, update=update))
        losses.append(method.total(found))
        done = update + 1
        if done * _LINES // settings.updates > update * _LINES // settings.updates:
            log(
                f"law of the latents: update {done}/{settings.updates}  "
                f"loss {np.mean(losses):.4g}  {time.monotonic() - begun:.0f} s"
            )
            losses.clear()
    return prior.lead(decoder, method.model, mean, deviation)
