"""Conditional flow matching: a network learns how noise becomes what a mean leaves open."""

import hashlib
import math
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from skyweave import seeds
from skyweave.data.colored_noise import ColoredNoise
from skyweave.networks import flow
from skyweave.training.gradients import seam
from skyweave.training.method import Learner, Place, numbers

#: The angle at the end of the path.
_END = math.pi / 2


class FlowMatching:
    """The velocity of the learner's flow network (`networks.flow`) is fitted to that of paths.

    A path leads from `noise` to the truth's difference from the mean, at a random time. A target's
    loss is the mean squared error of its velocity, over the velocity's mean square if the base had
    the residual's power: an untrained flow then has 1, and targets count alike. `seed` and `name`
    key noise and times, with the batch's number, in validation with the inputs' own bytes, so
    that epochs are judged by the same. Means up to `cache_bytes` are kept; with 0, for inputs that
    are never the same again, each step makes its own.
    """

    def __init__(
        self,
        learner: Learner,
        noise: ColoredNoise,
        *,
        seed: int,
        name: str,
        cache_bytes: float = 2e9,
        xla: bool = False,
    ) -> None:
        self.model, self.noise = learner.model, noise
        if flow.order(self.model) != noise.fields:
            raise ValueError(
                f"Expected noise of {flow.order(self.model)}. Received: {noise.fields}"
            )
        self.learners: Sequence[Learner] = (learner,)
        self.groups: Mapping[str, Sequence[Any]] = {
            "model": learner.model.variables,
            "optimizer": learner.optimizer.variables,
            "sums": learner.sums,
        }
        self.identity: Mapping[str, Any] = {
            "method": "flow",
            # Not its power: that is measured again at each start, on what the identity of the data
            # and of the first network stands for, and need not have the same last bits.
            "noise": list(noise.fields),
            "draws": [seed, name],
        }
        self.paired = True
        self._key = (seed, name, "flow")
        self._means = None
        if cache_bytes > 0 and flow.has_means(self.model):
            self._means = _Means(self.model, cache_bytes)
        self._squares = {target: (_END * rms) ** 2 for target, rms in noise.rms.items()}
        at = seam(learner.variables, xla=xla)

        def train(x: Any, y: Any, base: Any, times: Any, count: Any, *, last: bool) -> Any:
            def loss() -> Any:
                values = self._losses(x, y, base, times, training=True)
                return sum(values.values()), values

            _, values, gradients = at.gradient(loss, self.model.trainable_variables)
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
        """Take a step; its losses before the update, and the gradient's norm unclipped."""
        step, drawn = self._train[self.kind(place)], self._draw(len(x), place.batch)
        values, norm = step(self._known(x), dict(y), *drawn, np.float32(place.count))
        return numbers(values, y), float(norm)

    def evaluate(self, x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Losses of a batch; nothing changes."""
        drawn = self._draw(len(x), "validation", zlib.crc32(x.tobytes()))
        return numbers(self._evaluate(self._known(x), dict(y), *drawn), y)

    def total(self, losses: Mapping[str, float]) -> float:
        """The sum of the targets' losses."""
        return sum(losses.values())

    def _known(self, x: np.ndarray) -> np.ndarray:
        """The inputs, and the means behind them if they are kept."""
        return x if self._means is None else np.concatenate([x, self._means(x)], -1)

    def _draw(self, count: int, *identity: str | int) -> tuple[np.ndarray, np.ndarray]:
        """Noise (count, y, x, targets), and times (count,) spread evenly over [0, 1).

        Evenly spread times have the mean of independent ones and less scatter (Kingma et al. 2021,
        arXiv 2107.00630).
        """
        first = seeds.generator(*self._key, *identity, "times").random()
        times = (np.arange(count) + first) / count
        return self.noise.draw(count, *self._key, *identity), times.astype(np.float32)

    def _losses(
        self, x: Any, y: Mapping[str, Any], base: Any, times: Any, *, training: bool
    ) -> dict[str, Any]:
        targets = flow.order(self.model)
        end, known = ops.concatenate([y[name] for name in targets], -1), x
        if flow.has_means(self.model):
            if self._means is None:
                known = ops.concatenate([x, flow.means(self.model, x)], -1)
            end = end - known[..., -len(targets) :]
        angle = _END * ops.reshape(times, (-1, 1, 1, 1))
        here, there = ops.cos(angle), ops.sin(angle)
        state, goal = here * base + there * end, _END * (here * end - there * base)
        found = flow.velocity(self.model, known, state, times, training=training)
        errors = ops.mean(ops.square(found - goal), axis=(0, 1, 2))
        return {name: errors[i] / self._squares[name] for i, name in enumerate(targets)}


class _Means:
    """Means (n, y, x, targets) of inputs (n, y, x, inputs), kept for the next time.

    Each patch is seen alone, so that its mean's bits do not depend on the batch that it came in
    first: a resumed training has another.
    """

    def __init__(self, model: keras.Model, cache_bytes: float) -> None:
        self._of = flow.compiled(model, partial(flow.means, model))
        self._kept: dict[bytes, np.ndarray] = {}
        self._free = cache_bytes

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.stack([self._one(patch) for patch in x])

    def _one(self, patch: np.ndarray) -> np.ndarray:
        key = hashlib.blake2b(patch.tobytes(), digest_size=16).digest()
        found = self._kept.get(key)
        if found is None:
            found = self._of(patch[None])[0]
            if self._free >= found.nbytes:
                self._kept[key] = found
                self._free -= found.nbytes
        return found
