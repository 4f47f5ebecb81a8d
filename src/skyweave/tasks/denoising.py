"""Denoising: a point-spread function and noise taken out of images of galaxies by a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skyweave import seeds
from skyweave.config import DenoisingRun
from skyweave.data.degraded_feed import DegradedFeed
from skyweave.data.feed import BatchFeed
from skyweave.data.shards import ShardSet
from skyweave.errors import UserError
from skyweave.files import sha256
from skyweave.images.stretch import Scale
from skyweave.tasks.images import read_stretch
from skyweave.tasks.recipe import Recipe

if TYPE_CHECKING:
    from skyweave.networks.card import TrainedNetwork

#: Noise where the settings name none, over the stretch's top.
_NOISE = 0.01


def recipe(
    run: DenoisingRun,
    maps: ShardSet,
    parts: pd.DataFrame,
    name: str,
    seed: int,
    files: Mapping[str, str | Path],
) -> Recipe:
    """How a run's network is trained.

    `files` hold the `stretch` of its dataset, and the `samples` of the run whose images are mixed
    into the training set, if any are. Weights and draws are those of (`seed`, the run's `repeat`):
    runs that differ in what they learn from start alike.
    """
    from skyweave.networks import residual_denoiser
    from skyweave.training.losses import mean_squared_errors
    from skyweave.training.method import learner
    from skyweave.training.runtime import numerics
    from skyweave.training.supervised import Supervised

    scale = read_stretch(files["stretch"])
    noise = noise_rms(run, scale)
    generated = _generated(run, files)
    training = run.training
    own = int(seeds.generator(seed, "denoising", run.repeat).integers(2**31))
    known: dict[str, Any] = {"stretch": scale.to_dict(), "noise": noise}
    if generated is not None:
        known["generated"] = sha256(files["samples"])

    def feed(feed: BatchFeed, part: str, scales: object) -> DegradedFeed:
        # In an order that the run's name does not decide.
        ordered = BatchFeed(
            feed.shards,
            feed.inputs,
            feed.targets,
            feed.normalization,
            feed.realizations,
            feed.batch,
            own,
            ("denoising", part),
        )
        return DegradedFeed(
            ordered,
            scale,
            psf_pixels=run.degradation.psf_pixels,
            noise=noise,
            generated=generated if part == "train" else None,
            alpha=run.alpha if part == "train" else 0.0,
            turns=run.turns,
            seed=own,
            identity=("denoising", part),
        )

    return Recipe(
        inputs=run.fields,
        targets=run.fields,
        method=lambda model, scales: Supervised(
            learner(model, training),
            mean_squared_errors,
            judged=run.fields,
            xla=numerics(training).xla,
        ),
        score=_no_score,
        fields=run.fields,
        worth=lambda table, field: np.nan,
        largest=False,
        known=known,
        build=lambda scales: residual_denoiser.build(
            maps.pixels, run.fields, run.network.width, own
        ),
        feed=feed,
        normalize=False,
        identity={"repeat": run.repeat},
    )


def noise_rms(run: DenoisingRun, scale: Scale) -> float:
    """Rms of the noise that a run's network is to take out, in the images' unit."""
    return run.degradation.noise or _NOISE * scale.top


def _no_score(network: "TrainedNetwork") -> pd.DataFrame:
    raise AssertionError("epochs of a denoising are compared by their loss")


def _generated(run: DenoisingRun, files: Mapping[str, str | Path]) -> np.ndarray | None:
    """Generated images (n, y, x, bands), fluxes, if they are mixed in."""
    if not run.alpha:
        return None
    if "samples" not in files:
        raise UserError("generated", "images of a generation run", "none")
    samples = ShardSet([files["samples"]])
    return np.stack([samples.read(field) for field in run.fields], axis=-1)
