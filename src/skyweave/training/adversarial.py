"""Adversarial training: a generator learns what a discriminator cannot tell from the truth."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from skyweave import seeds
from skyweave.config.runs import Adversarial as Settings
from skyweave.config.runs import Training
from skyweave.training.gradients import seam
from skyweave.training.losses import convincing, cross_entropy, mean_absolute_errors, right
from skyweave.training.method import Learner, Losses, Place, groups, learner, numbers

#: Losses of the discriminator, and what else is told of it.
_JUDGED = ("discriminator", "right_on_real", "right_on_made")


def learners(
    generator: keras.Model, discriminator: keras.Model, training: Training, settings: Settings
) -> tuple[Learner, Learner]:
    """Both networks with Adam as the settings have it."""
    return learner(generator, training), learner(discriminator, training, settings.learning_rate)


class Adversarial:
    """A generator of named outputs against a discriminator that gives logits, of any shape.

    The discriminator sees the outputs as channels, in the order of the generator's, behind those of
    the inputs if it is `conditional`. Its loss is the cross-entropy (Goodfellow et al. 2014, in the
    form that does not saturate), the mean over real and made examples. The generator's is that of
    its examples called real, plus `fidelity` times the `losses` of its outputs. Where both learn
    from a batch, the discriminator is first, and the generator then meets it as it has become (with
    accumulation it changes at the last batch of an update only). For examples drawn apart, feed
    `data.feed.UnpairedFeed`. `seed` and `name` key the draws of the labels.
    """

    def __init__(
        self,
        generator: Learner,
        discriminator: Learner,
        settings: Settings,
        *,
        seed: int,
        name: str,
        losses: Losses = mean_absolute_errors,
        xla: bool = False,
    ) -> None:
        self.model, self.settings = generator.model, settings
        self.learners: Sequence[Learner] = (generator, discriminator)
        self.groups: Mapping[str, Sequence[keras.Variable]] = groups(
            {"generator": generator, "discriminator": discriminator}
        )
        self.identity: Mapping[str, Any] = {
            "method": "adversarial",
            "losses": losses.__qualname__,
            "settings": settings.model_dump(),
            "draws": [seed, name],
        }
        self.paired = settings.conditional or settings.fidelity > 0
        self._key = (seed, name, "labels")
        self._losses, self._fields = losses, tuple(self.model.output)
        self._seam = seam([*generator.variables, *discriminator.variables], xla=xla)
        #: A compiled step for each choice of who learns, and of what is an update's last batch.
        self._steps: Mapping[Hashable, Callable[..., Any]] = {
            (*turn, last): self._seam.compile(partial(self._step, turn, last))
            for turn in ((True, True), (True, False), (False, True))
            for last in (True, False)
        } | {
            ("alone", last): self._seam.compile(partial(self._step_alone, last))
            for last in (True, False)
        }
        self._look = self._seam.compile(self._evaluate)

    def settled(self, update: int) -> bool:
        """From the phase on in which both learn, if there is a truth to be near to."""
        alone = self.settings.warmup_generator + self.settings.warmup_discriminator
        return update > alone and self.settings.fidelity > 0

    def kind(self, place: Place) -> Hashable:
        """Which compiled step a batch takes."""
        if place.update < self.settings.warmup_generator:
            return "alone", place.last
        return *turns(self.settings, place.update), place.last

    def train(
        self, x: np.ndarray, y: Mapping[str, np.ndarray], place: Place
    ) -> tuple[dict[str, float], float]:
        """Take a step: losses before it, and the longest gradient's norm unclipped.

        `discriminator`, and its shares of right answers `right_on_real` and `right_on_made`, are
        missing where it did not learn, `adversarial` and the outputs' own where the generator did
        not.
        """
        labels = self._labels(len(x), place.batch)
        step = self._steps[self.kind(place)]
        values, norm = step(x, dict(y), labels, np.float32(place.count))
        return numbers(values, (*y, "adversarial", *_JUDGED)), float(norm)

    def evaluate(self, x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, float]:
        """All losses of a batch, with plain labels; nothing changes."""
        return numbers(self._look(x, dict(y)), (*y, "adversarial", *_JUDGED))

    def total(self, losses: Mapping[str, float]) -> float:
        """The generator's: `adversarial`, and `fidelity` times the sum of its outputs' losses.

        Not a number where it has not learned.
        """
        own = [value for name, value in losses.items() if name not in ("adversarial", *_JUDGED)]
        if not own:
            return math.nan
        return self.settings.fidelity * sum(own) + losses.get("adversarial", 0.0)

    def _labels(self, count: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """What the discriminator is told of real and of made examples, (count,) each."""
        generator, settings = seeds.generator(*self._key, batch), self.settings
        real = generator.uniform(*settings.real_labels, count).astype(np.float32)
        made = generator.uniform(*settings.made_labels, count).astype(np.float32)
        swapped = generator.random(count) < settings.label_swap
        return np.where(swapped, made, real), np.where(swapped, real, made)

    def _shown(self, x: Any, maps: Sequence[Any]) -> Any:
        """What the discriminator sees of examples."""
        channels = [x, *maps] if self.settings.conditional else list(maps)
        return ops.concatenate([ops.cast(maps, "float32") for maps in channels], axis=-1)

    def _judge(self, x: Any, real: Any, made: Any, labels: Any, training: bool) -> Any:
        """The discriminator's loss, and what is told of it."""
        judge = self.learners[1].model
        on_real, on_made = (
            ops.cast(judge(self._shown(x, maps), training=training), "float32")
            for maps in (real, made)
        )
        loss = (cross_entropy(on_real, labels[0]) + cross_entropy(on_made, labels[1])) / 2
        return loss, {"discriminator": loss} | right(on_real, on_made)

    def _convince(self, x: Any, made: Any, training: bool) -> Any:
        """The loss of made examples that are to pass for real."""
        logits = self.learners[1].model(self._shown(x, made), training=training)
        return convincing(ops.cast(logits, "float32"))

    def _step(
        self, turn: tuple[bool, bool], last: bool, x: Any, y: Any, labels: Any, count: Any
    ) -> Any:
        (generator, judge), fields = self.learners, self._fields
        real = [y[name] for name in fields]

        def make() -> Any:
            outputs = self.model(x, training=True)
            return [outputs[name] for name in fields], None

        learns, judges = turn
        if learns:
            made, _, pull = self._seam.pullback(make, self.model.trainable_variables)
        else:
            made = make()[0]
        values: dict[str, Any] = {}
        norms = []
        if judges:
            _, told, gradients = self._seam.gradient(
                lambda: self._judge(x, real, made, labels, True), judge.model.trainable_variables
            )
            values |= told
            norms.append(judge.learn(gradients, last, count))
        if learns:
            # By the outputs first: they are made once, and the discriminator has changed since.
            def loss(*made: Any) -> Any:
                own = self._losses(dict(zip(fields, made, strict=True)), y)
                convinced = self._convince(x, made, True)
                total = convinced + self.settings.fidelity * sum(own.values())
                return total, own | {"adversarial": convinced}

            _, told, by_made = self._seam.gradient(loss, tensors=made)
            values |= told
            norms.append(generator.learn(pull(by_made), last, count))
        return values, ops.max(ops.stack(norms))

    def _step_alone(self, last: bool, x: Any, y: Any, labels: Any, count: Any) -> Any:
        def loss() -> Any:
            own = self._losses(self.model(x, training=True), y)
            return self.settings.fidelity * sum(own.values()), own

        _, own, gradients = self._seam.gradient(loss, self.model.trainable_variables)
        return own, self.learners[0].learn(gradients, last, count)

    def _evaluate(self, x: Any, y: Any) -> Any:
        outputs = self.model(x, training=False)
        made = [outputs[name] for name in self._fields]
        ones = ops.ones(ops.shape(x)[:1])
        real = [y[name] for name in self._fields]
        _, told = self._judge(x, real, made, (ones, 0 * ones), False)
        return self._losses(outputs, y) | {"adversarial": self._convince(x, made, False)} | told


def turns(settings: Settings, update: int) -> tuple[bool, bool]:
    """Whether generator and discriminator learn in an update, counted from 0.

    In each cycle of as many updates as the larger number of steps, both take theirs, evenly spread
    and each at the cycle's end.
    """
    if update < settings.warmup_generator:
        return True, False
    update -= settings.warmup_generator
    if update < settings.warmup_discriminator:
        return False, True
    update -= settings.warmup_discriminator
    steps = settings.generator_steps, settings.discriminator_steps
    done = [(update + 1) * n // max(steps) - update * n // max(steps) for n in steps]
    return bool(done[0]), bool(done[1])
