"""Which latents an autoencoder's new images are of: what its encoder finds in training images."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from skyweave import seeds
from skyweave.config import GenerationRun
from skyweave.data.image_feed import turned
from skyweave.data.shards import ShardSet
from skyweave.images.stretch import Scale

if TYPE_CHECKING:
    import keras

#: Training images, each turn of one counted, whose latents tell the law of new ones', and those of
#: a grid, whose law is learned in this share of the updates.
_CODED, _CODED_FOR_GRID, _GRID_SHARE = 100_000, 2000, 0.1
#: Images that are read at once.
_CHUNK = 64


def generator(
    model: "keras.Model",
    run: GenerationRun,
    maps: ShardSet,
    numbers: np.ndarray,
    scale: Scale,
    *,
    seed: int,
    name: str,
    for_grid: bool = False,
) -> "keras.Model":
    """What makes images, of a training's product: of an autoencoder its decoder.

    With `vae.prior` that is behind the law of the latents of training images, whose realizations
    are `numbers`; `for_grid` the law is learned only roughly.
    """
    if run.network.name != "vae":
        return model
    prior = run.vae.prior
    if prior is None:
        return model.decoder
    from skyweave.training.prior import fit
    from skyweave.training.runtime import numerics

    if for_grid:
        updates = max(1, round(_GRID_SHARE * prior.updates))
        prior = prior.model_copy(update={"updates": updates})
    rng = seeds.generator(seed, name, "coded")
    count = _CODED_FOR_GRID if for_grid else _CODED
    known = [
        model.encoder.predict_on_batch(images)
        for images in _coded(run, maps, numbers, scale, count, rng)
    ]
    return fit(
        model.decoder,
        np.concatenate([one["mean"] for one in known]),
        np.exp(np.concatenate([one["log_variance"] for one in known]) / 2),
        prior,
        seed=seed,
        name=name,
        xla=numerics(run.training).xla,
    )


def _coded(
    run: GenerationRun,
    maps: ShardSet,
    numbers: np.ndarray,
    scale: Scale,
    count: int,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """`count` or more stretched images (n, y, x, bands), some at once.

    They are turned as those of the training are if these are. Of a larger set some, of a smaller
    one all there are: each once, or in some of its turns.
    """
    chosen = np.sort(rng.permutation(numbers)[:count])
    times = min(-(-count // len(chosen)), 8) if run.augment.turns else 1
    turns = np.argsort(rng.random((len(chosen), 8)), axis=1)[:, :times]
    if not run.augment.turns:
        turns[:] = 0
    for first in range(0, len(chosen), _CHUNK):
        part = chosen[first : first + _CHUNK]
        images = np.stack([scale.apply(maps.read(field, part)) for field in run.fields], axis=-1)
        pairs = zip(images, turns[first : first + _CHUNK], strict=True)
        yield np.stack([turned(image, turn) for image, each in pairs for turn in each])
