"""Patches a second of training: the loop against bare Keras, and the feed against the network."""

import inspect
import os
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.costs import multiply_adds
from benchmarks.record import Measured
from benchmarks.timing import Side, paired
from skyweave import config
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard

INPUTS, TARGETS = ("q_obs", "u_obs"), ("tau", "e_prim", "kappa")
BLOCKS = 9


def shards(folder: Path, pixels: int, count: int) -> ShardSet:
    """A dataset of noise: what a map shows does not matter to the clock."""
    rng = np.random.default_rng(0)
    shape = (count, pixels, pixels)
    maps = {name: rng.standard_normal(shape, np.float32) for name in (*INPUTS, *TARGETS)}
    path = folder / f"{pixels}.h5"
    write_shard(
        path,
        maps,
        realizations=range(count),
        size_deg=5.0,
        units=dict.fromkeys(maps, ""),
        provenance={"seed": 0},
    )
    return ShardSet([path])


def feed(maps: ShardSet, numbers: range, batch: int, *, cached: bool = True) -> BatchFeed:
    """Batches of some realizations, from memory or from the file."""
    scales = Normalization.fit(maps, maps.fields, range(min(64, maps.realizations.size)))
    cache = 1e12 if cached else 0.0
    return BatchFeed(maps, INPUTS, TARGETS, scales, numbers, batch, 1, ("a",), cache_bytes=cache)


def network(settings: config.Training, width: float, pixels: int) -> Any:
    """ResUNet-CMB, on all the cores that this process may use."""
    from skyweave.networks.registry import build
    from skyweave.training.runtime import prepare

    prepare(1, len(os.sched_getaffinity(0)), settings)
    return build(config.Network(width=width), pixels, INPUTS, TARGETS, 1)


class Bare:
    """Plain Keras on the same network: batches in memory, no loop but the one below."""

    def __init__(self, model: Any, settings: config.Training, parts: tuple[BatchFeed, ...]) -> None:
        import keras

        self.model = model
        self.batches, self.validation = list(parts[0].epoch(0)), list(parts[1].in_order())
        self.model.compile(
            keras.optimizers.Adam(settings.learning_rate),
            loss=dict.fromkeys(TARGETS, "mse"),
            jit_compile=False,
        )

    def epochs(self, start: int, count: int) -> None:
        """Train for some epochs, each with a look at the validation set."""
        for _ in range(count):
            for x, y in self.batches:
                self.model.train_on_batch(x, y)
            for x, y in self.validation:
                self.model.test_on_batch(x, y)

    @classmethod
    def command(cls) -> str:
        """The code that is timed."""
        return textwrap.dedent(inspect.getsource(cls.epochs))


def loop(
    *,
    width: float = 0.125,
    pixels: int = 64,
    steps: int = 60,
    batch: int = 16,
    blocks: int = BLOCKS,
) -> Measured:
    """The whole loop of a training, its states and validation included, against bare Keras."""
    from skyweave.training.loop import train
    from skyweave.training.method import learner
    from skyweave.training.supervised import Supervised

    settings = config.Training(batch=batch)
    count = batch * steps
    with TemporaryDirectory() as folder:
        maps = shards(Path(folder), pixels, count + 4 * batch)
        parts = feed(maps, range(count), batch), feed(maps, range(count, count + 4 * batch), batch)
        method = Supervised(learner(network(settings, width, pixels), settings))
        bare = Bare(network(settings, width, pixels), settings, parts)

        def ours(start: int, epochs: int) -> None:
            train(
                method,
                *parts,
                settings.model_copy(update={"epochs": start + epochs, "stop_patience": 10**6}),
                state_folder=Path(folder) / "state",
                identity={},
                log=lambda line: None,
            )

        mine, theirs = paired(Side(ours, 1), Side(bare.epochs, 1), blocks)
    return Measured(
        ours=1e3 * mine / count,
        peer=1e3 * theirs / count,
        ratio=theirs / mine,
        unit="ms/patch",
        note=f"ResUNet-CMB of width {width:g} on {pixels}² pixels, {steps} steps of {batch} "
        "patches an epoch and 4 of validation, float32, all cores. Ours is a call of the loop for "
        "one more epoch: it locks the run, reads its state, feeds, trains, checks losses and "
        "gradients, validates and saves. The peer has its batches in memory and does nothing else.",
        peer_command=bare.command(),
        n=blocks,
    )


def fed(
    *, cached: bool, width: float = 1.0, pixels: int = 128, batch: int = 8, count: int = 2048
) -> Measured:
    """What the feed delivers to a step that does nothing, against what ResUNet-CMB trains."""
    from skyweave.training.method import Place, learner
    from skyweave.training.supervised import Supervised

    settings = config.Training(batch=batch)
    with TemporaryDirectory() as folder:
        maps = shards(Path(folder), pixels, count)
        source = feed(maps, range(count), batch, cached=cached)
        method = Supervised(learner(network(settings, width, pixels), settings))
        x, y = next(source.in_order())

        def deliver(start: int, epochs: int) -> None:
            for epoch in range(start, start + epochs):
                for _ in source.epoch(epoch):
                    pass

        def consume(start: int, steps: int) -> None:
            for step in range(start, start + steps):
                method.train(x, y, Place(step, step))

        mine, theirs = paired(Side(deliver, 1), Side(consume, 1), 3)
    delivered, trained = mine / count, theirs / batch
    return Measured(
        ours=1e3 * delivered,
        peer=1e3 * trained,
        ratio=trained / delivered,
        unit="ms/patch",
        note=f"Batches of {batch} normalized patches of {pixels}² pixels, two inputs and three "
        f"targets, {'from memory' if cached else 'read from an HDF5 file in random order'}, "
        f"against a training step of ResUNet-CMB of width {width:g}, float32, on all cores.",
        peer_command=textwrap.dedent(inspect.getsource(consume)),
        n=3,
    )


def products(size: int, dtype: str) -> Callable[[int, int], None]:
    """Side: products of matrices (size, size), one after the other, as fast as the device can."""
    import keras

    rng = np.random.default_rng(0)
    one, other = (
        keras.ops.convert_to_tensor(rng.standard_normal((size, size), np.float32), dtype)
        for _ in range(2)
    )

    def run(start: int, count: int) -> None:
        found = one
        for _ in range(count):
            found = keras.ops.matmul(found, other)
        # Waits for the device.
        keras.ops.convert_to_numpy(found[0, 0])

    return run


def share(*, width: float = 1.0, pixels: int = 128) -> Measured:
    """Arithmetic of a training step against that of plain products of matrices."""
    from skyweave.training.method import Place, learner
    from skyweave.training.runtime import numerics
    from skyweave.training.supervised import Supervised

    settings = config.Training(precision="auto", deterministic="auto")
    model = network(settings, width, pixels)
    chosen = numerics(settings)
    gpu = chosen.precision == "bfloat16"
    batch, steps, size, count = (64, 20, 8192, 50) if gpu else (8, 1, 2048, 10)
    method = Supervised(learner(model, settings), xla=chosen.xla)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, pixels, pixels, len(INPUTS)), np.float32)
    y = {name: rng.standard_normal((batch, pixels, pixels, 1), np.float32) for name in TARGETS}

    def consume(start: int, steps: int) -> None:
        for step in range(start, start + steps):
            method.train(x, y, Place(step, step))

    multiply = products(size, chosen.precision)
    mine, theirs = paired(Side(consume, steps), Side(multiply, count), 3)
    # Two operations a multiply-add; forward, and twice that for the gradient.
    trained = 6 * multiply_adds(model) * batch / mine
    multiplied = 2 * size**3 / theirs
    return Measured(
        ours=trained / 1e9,
        peer=multiplied / 1e9,
        ratio=trained / multiplied,
        unit="GFLOP/s",
        note=f"ResUNet-CMB of width {width:g} on {pixels}² pixels, batches of {batch}, in "
        f"{chosen.precision}, on {device()}: operations of its convolutions, forward and twice "
        f"that backward, a second of training. The peer: products of {size}² matrices of the same "
        "precision; the ratio is the share of that rate.",
        peer_command=textwrap.dedent(inspect.getsource(multiply)),
        n=3,
    )


def device() -> str:
    """Name of the accelerator, or that there is none."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "the processor"
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "a GPU"))


BENCHMARKS: dict[str, Callable[[], Measured]] = {
    "loop_vs_train_on_batch": loop,
    "training_share_of_matmul": share,
    "feed_vs_step": partial(fed, cached=False),
    "feed_vs_step_cached": partial(fed, cached=True),
}
