"""Supervised training: a network learns the truths of its inputs."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from skyweave.training.gradients import seam
from skyweave.training.losses import mean_squared_errors
from skyweave.training.method import Learner, Losses, Place, numbers


class Supervised:
    """The learner's network is trained on the sum of `losses` of its outputs, which it names.

    Each counts with its `weights`, 1 if there is none. Epochs are compared by the sum of those that
    are `judged`, by all if None.
    """

    def __init__(
        self,
        learner: Learner,
        losses: Losses = mean_squared_errors,
        *,
        judged: Collection[str] | None = None,
        weights: Mapping[str, float] | None = None,
        xla: bool = False,
    ) -> None:
        self.model = learner.model
        self.learners: Sequence[Learner] = (learner,)
        self.groups: Mapping[str, Sequence[keras.Variable]] = {
            "model": learner.model.variables,
            "optimizer": learner.optimizer.variables,
            "sums": learner.sums,
        }
        self.identity: Mapping[str, Any] = {
            "method": "supervised",
            "losses": losses.__qualname__,
            "judged": None if judged is None else sorted(judged),
            "weights": dict(weights or {}),
        }
        self.judged, self.weights = judged, dict(weights or {})
        self.paired = True
        at = seam(learner.variables, xla=xla)

        def train(x: Any, y: Any, count: Any, *, last: bool) -> Any:
            def loss() -> Any:
                values = losses(self.model(x, training=True), y)
                return self._weighted(values, values), values

            _, values, gradients = at.gradient(loss, self.model.trainable_variables)
            return values, learner.learn(gradients, last, count)

        self._train: Mapping[Hashable, Callable[..., Any]] = {
            True: at.compile(lambda x, y, count: train(x, y, count, last=True)),
            False: at.compile(lambda x, y, count: train(x, y, count, last=False)),
        }
        self._evaluate = at.compile(lambda x, y: losses(self.model(x, training=False), y))

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
        values, norm = self._train[self.kind(place)](x, dict(y), np.float32(place.count))
        return numbers(values, y), float(norm)

    def evaluate(self, x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Losses of a batch; nothing changes."""
        return numbers(self._evaluate(x, dict(y)), y)

    def total(self, losses: Mapping[str, float]) -> float:
        """The weighted sum of those that are judged."""
        judged = losses if self.judged is None else self.judged
        return self._weighted(losses, judged)

    def _weighted(self, losses: Mapping[str, Any], names: Iterable[str]) -> Any:
        return sum(self.weights.get(name, 1.0) * losses[name] for name in names)
