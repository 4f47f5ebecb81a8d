"""What a kind of training is to the loop, and how a network learns from gradients."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from skyweave.config import Training
from skyweave.training.gradients import apply, mean_of_devices

#: (outputs, truths) → {name: scalar loss}.
Losses = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where in a training a batch stands; batches, updates and epochs are counted from 0."""

    batch: int
    update: int
    #: Batches whose gradients make the update, and whether this is the last of them.
    count: int = 1
    last: bool = True
    epoch: int = 0


class Method(Protocol):
    """A kind of training: networks, and what a batch does to them."""

    #: The network that is asked for; its best weights are kept.
    model: keras.Model
    #: All that a state must hold, by name.
    groups: Mapping[str, Sequence[keras.Variable]]
    #: Plain values that tell this training from others of the same networks.
    identity: Mapping[str, Any]
    #: Whether a truth must be its input's.
    paired: bool

    @property
    def learners(self) -> Sequence["Learner"]:
        """All that learn; the learning rate that is told is the first's."""

    def settled(self, update: int) -> bool:
        """Whether the validation loss judges the network after so many updates.

        Where it does not, each epoch's network is better than the one before, and no epoch is a
        standstill.
        """

    def kind(self, place: Place) -> Hashable:
        """Which compiled step a batch takes; the first of each kind has to be compiled."""

    def train(
        self, x: np.ndarray, y: Mapping[str, np.ndarray], place: Place
    ) -> tuple[dict[str, float], float]:
        """Take a step; its losses before the update, and the longest gradient's norm unclipped.

        Losses of networks that did not learn from this batch may be missing.
        """

    def evaluate(self, x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Losses of a batch of validation; nothing changes."""

    def total(self, losses: Mapping[str, float]) -> float:
        """The one number that the training of `model` lowers, from (means of) its losses."""


class Learner:
    """A network, its optimizer, and with `accumulate` the sums of gradients since its last update.

    `rate` is the learning rate that a schedule's factor is put on; gradients whose norm, all
    together, exceeds `clip_norm` are scaled to it.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer,
        *,
        clip_norm: float | None = None,
        accumulate: bool = False,
    ) -> None:
        self.model, self.optimizer, self.clip_norm = model, optimizer, clip_norm
        optimizer.build(model.trainable_variables)
        self.rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        self.sums = [
            keras.Variable(
                np.zeros(v.shape, "float32"),
                trainable=False,
                dtype="float32",
                aggregation="only_first_replica",
            )
            for v in (model.trainable_variables if accumulate else ())
        ]

    @property
    def variables(self) -> list[keras.Variable]:
        """All that learning reads or changes."""
        return [*self.model.variables, *self.optimizer.variables, *self.sums]

    def learn(self, gradients: Sequence[Any], last: bool, count: Any) -> Any:
        """Update the weights by the mean gradient of `count` batches, or wait for their `last`.

        Returns the norm of the update's gradient, or of this batch's; part of a step.
        """
        gradients = mean_of_devices(gradients)
        if self.sums:
            for total, one in zip(self.sums, gradients, strict=True):
                total.assign(total + ops.cast(one, total.dtype))
            if not last:
                return norm(gradients)
            gradients = [total / count for total in self.sums]
            for total in self.sums:
                total.assign(ops.zeros(total.shape, total.dtype))
        length = norm(gradients)
        if self.clip_norm is not None:
            scale = self.clip_norm / ops.maximum(length, self.clip_norm)
            gradients = [g * ops.cast(scale, g.dtype) for g in gradients]
        apply(self.optimizer, gradients, self.model)
        return length


def groups(roles: Mapping[str, Learner]) -> dict[str, Sequence[keras.Variable]]:
    """All variables of several learners by name, as `Method.groups`."""
    return {
        f"{role}{part}": variables
        for role, one in roles.items()
        for part, variables in (
            ("", one.model.variables),
            ("_optimizer", one.optimizer.variables),
            ("_sums", one.sums),
        )
    }


def learner(model: keras.Model, settings: Training, rate: float | None = None) -> Learner:
    """A network with Adam as the settings have it; `rate` instead of their learning rate."""
    return Learner(
        model,
        keras.optimizers.Adam(rate or settings.learning_rate, beta_1=settings.beta_1),
        clip_norm=settings.clip_norm,
        accumulate=settings.accumulate > 1,
    )


def norm(gradients: Sequence[Any]) -> Any:
    """Norm of all gradients together; not finite where one of them is not."""
    return ops.sqrt(sum(ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients))


def numbers(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """Scalars of a step as plain numbers, first those of `names`; backends may sort them."""
    order = [name for name in names if name in values]
    return {name: float(values[name]) for name in (*order, *sorted(set(values) - set(order)))}
