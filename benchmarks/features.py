"""Inception's features of images: against Keras' own Inception."""

import inspect
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.costs import multiply_adds
from benchmarks.record import Measured
from benchmarks.timing import Side, paired

#: Pixels a side of the images that are to be resized.
PIXELS = 64
IMAGES, BATCH, BLOCKS = 256, 32, 5


def keras_inception(images: np.ndarray) -> Callable[[int, int], None]:
    """Side: Keras' Inception v3, of drawn weights, on one batch of its size again and again."""
    import keras
    import tensorflow as tf

    model = keras.applications.InceptionV3(weights=None, include_top=False, pooling="avg")
    graph = tf.function(lambda x: model(x, training=False), autograph=False)
    batch = tf.constant(images)

    def run(start: int, count: int) -> None:
        for _ in range(count // len(images)):
            graph(batch).numpy()

    return run


def inception(
    *, pixels: int = PIXELS, count: int = IMAGES, batch: int = BATCH, blocks: int = BLOCKS
) -> Measured:
    """Images a second, ours and those of Keras' Inception, on all cores."""
    from skyweave.networks.inception import PIXELS as LARGE
    from skyweave.networks.inception import embed, features
    from skyweave.sky.fetch import INCEPTION, fetch
    from skyweave.training.runtime import prepare

    prepare(1, len(os.sched_getaffinity(0)))
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (count, pixels, pixels)).astype(np.float32)
    large = rng.uniform(-1, 1, (batch, LARGE, LARGE, 3)).astype(np.float32)
    with TemporaryDirectory() as temporary:
        known = Path(os.environ.get("SKYWEAVE_DATA", "results/data/inception"))
        folder = known if all((known / name).exists() for name in INCEPTION.names) else temporary
        model = features(fetch(INCEPTION, folder)["default_1.pt"])

    def ours(start: int, count: int) -> None:
        embed(model, images, batch)

    theirs = keras_inception(large)
    mine, other = paired(Side(ours, count), Side(theirs, count), blocks)
    operations = 2 * multiply_adds(model)
    return Measured(
        ours=1 / mine,
        peer=1 / other,
        ratio=other / mine,
        unit="images/s",
        note=f"Inception's features of {count} images, batches of {batch}, float32, on all cores. "
        f"Ours are grey images of {pixels}² pixels, resized on their way, and each time the "
        f"network is compiled; {operations / 1e9:.3g} GFLOP an image are then "
        f"{operations / mine / 1e9:.3g} GFLOP/s. The peer is Keras' Inception v3, compiled before "
        "the clock runs, on a colour image of its size that is there.",
        peer_command=textwrap.dedent(inspect.getsource(keras_inception)),
        n=blocks,
    )


BENCHMARKS = {"inception_vs_keras": inception}
