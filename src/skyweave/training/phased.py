"""Training in stages: the last one holds some batch normalization fast, with a rate of its own."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np

from skyweave.config.inpainting import InpaintingTraining
from skyweave.training.losses import mean_squared_errors
from skyweave.training.method import Learner, Losses, Place, learner
from skyweave.training.state import values
from skyweave.training.supervised import Supervised


class Phased:
    """`Supervised` training whose epochs after `settings.frozen_from` hold `norms` fast.

    In these, the layers' scales and offsets do not learn, and they normalize by the means and
    variances that have run up to then, which stay as well: batches with holes have statistics that
    should not be learned to the end (Liu et al. 2018, arXiv:1804.07723). An Adam of its own, at
    `settings.frozen_learning_rate`, begins there without moments, as a network compiled anew has
    it. A schedule's factor is on both rates. With ``frozen_from`` None there is the first stage
    alone.

    `losses`, `judged`, `weights` and `xla` are those of `Supervised`; each stage compiles steps of
    its own. Raises `ValueError` for layers that are not the model's.
    """

    def __init__(
        self,
        model: keras.Model,
        settings: InpaintingTraining,
        losses: Losses = mean_squared_errors,
        *,
        norms: Sequence[keras.Layer] = (),
        judged: Collection[str] | None = None,
        weights: Mapping[str, float] | None = None,
        xla: bool = False,
    ) -> None:
        self._from, self._norms = settings.frozen_from, list(norms)
        stage = partial(Supervised, losses=losses, judged=judged, weights=weights, xla=xla)
        first = stage(learner(model, settings))
        self._stages = [first]
        self.model, self.paired = first.model, first.paired
        self.groups: Mapping[str, Sequence[keras.Variable]] = first.groups
        self.identity: Mapping[str, Any] = first.identity
        if self._from is None:
            return
        places = _places(model, norms)
        with held_fast(norms):
            second = learner(model, settings, settings.frozen_learning_rate)
        self._stages.append(stage(second))
        self.groups = {
            **self.groups,
            "frozen_optimizer": second.optimizer.variables,
            "frozen_sums": second.sums,
        }
        self.identity = {
            **self.identity,
            "method": "phased",
            "frozen": [self._from, settings.frozen_learning_rate, places],
        }

    @property
    def learners(self) -> Sequence[Learner]:
        """That of the stage first, which the last one's optimizer knows, and so does a state."""
        found = [one.learners[0] for one in self._stages]
        begun = values([found[-1].optimizer.iterations])[0] > 0
        return found[::-1] if begun else found

    def settled(self, update: int) -> bool:
        """The validation loss judges from the start."""
        return self._stages[0].settled(update)

    def kind(self, place: Place) -> Hashable:
        """Which compiled step a batch takes."""
        return self._number(place), place.last

    def train(
        self, x: np.ndarray, y: Mapping[str, np.ndarray], place: Place
    ) -> tuple[dict[str, float], float]:
        """Take a step; its losses before the update, and the gradient's norm unclipped."""
        if not self._number(place):
            return self._stages[0].train(x, y, place)
        # Around each call, since any may be traced, and by each of several devices.
        with held_fast(self._norms):
            return self._stages[1].train(x, y, place)

    def evaluate(self, x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Losses of a batch; nothing changes."""
        return self._stages[0].evaluate(x, y)

    def total(self, losses: Mapping[str, float]) -> float:
        """The weighted sum of those that are judged."""
        return self._stages[0].total(losses)

    def _number(self, place: Place) -> int:
        return int(self._from is not None and place.epoch >= self._from)


@contextmanager
def held_fast(layers: Sequence[keras.Layer]) -> Iterator[None]:
    """Within the block these layers do not learn; batch normalization uses its running averages.

    What is traced meanwhile stays so.
    """
    before = [layer.trainable for layer in layers]
    try:
        for layer in layers:
            layer.trainable = False
        yield
    finally:
        for layer, learned in zip(layers, before, strict=True):
            layer.trainable = learned


def _places(model: keras.Model, layers: Sequence[keras.Layer]) -> list[int]:
    """The numbers of the layers' variables among the model's; names count a process's layers."""
    numbers = {id(variable): number for number, variable in enumerate(model.variables)}
    found = [numbers.get(id(variable)) for layer in layers for variable in layer.variables]
    places = sorted(number for number in found if number is not None)
    if len(places) < len(found):
        raise ValueError(f"norms: expected layers of the model, found others among {len(layers)}")
    return places
