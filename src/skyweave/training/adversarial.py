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
from skyweave.errors import UserError
from skyweave.training.draws import Draws
from skyweave.training.gradients import seam
from skyweave.training.losses import (
    answers,
    discriminating,
    generating,
    mean_absolute_errors,
    slope_penalty,
)
from skyweave.training.method import Learner, Losses, Place, groups, learner, numbers

#: Losses of the discriminator, and what else is told of it.
_JUDGED = ("discriminator", "gradient_penalty", "right_on_real", "right_on_made")
#: Settings that a state's identity leaves out where they are as they were before they could be set.
_LATER = {"loss": "cross_entropy", "gradient_penalty": 0.0, "fidelity_draws": 1}


def learners(
    generator: keras.Model, discriminator: keras.Model, training: Training, settings: Settings
) -> tuple[Learner, Learner]:
    """Both networks with Adam as the settings have it."""
    return learner(generator, training), learner(discriminator, training, settings.learning_rate)


class Adversarial:
    """A generator of named outputs against a discriminator that gives logits, of any shape.

    The discriminator sees the outputs as channels, in the order of the generator's, behind those of
    the inputs if it is `conditional`. Its loss is by default the cross-entropy (Goodfellow et al.
    2014, in the form that does not saturate), the mean over real and made examples; others are
    those of `losses.discriminating`. To it `gradient_penalty` times `losses.slope_penalty` is
    added, of the maps between the truth and what is made of its inputs. The generator's is that of
    its examples called real, plus `fidelity` times the `losses` of its outputs, each with its
    weight in `weights`, 1 if there is none, plus those of them that are named in `beside`, with
    that weight alone. Where both learn from a batch, the discriminator is first, and the generator
    then meets it as it has become (with accumulation it changes at the last batch of an update
    only). For examples drawn apart, feed `data.feed.UnpairedFeed`. Truths that are no outputs are
    seen by `losses` alone. `seed` and `name` key the draws of the labels and of the places between
    real and made.

    With c `noise_channels` and k `draws` (those of the settings if None) the inputs end with k
    times c channels of noise: the generator takes the fields and one draw. Losses times `fidelity`
    are those of the mean over all draws' outputs; what is `beside`, and the discriminator, which
    never sees the noise, take the first draw's, since a mean has less power than the truth. Raises
    `UserError` for several draws of no channels, `ValueError` for a loss with two weights.
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
        weights: Mapping[str, float] | None = None,
        beside: Mapping[str, float] | None = None,
        noise_channels: int = 0,
        draws: int | None = None,
        xla: bool = False,
    ) -> None:
        draws = settings.fidelity_draws if draws is None else draws
        if draws > 1 and not noise_channels:
            raise UserError("adversarial.fidelity_draws", "1 without noise channels", draws)
        self.weights, self.beside = dict(weights or {}), dict(beside or {})
        twice = sorted(set(self.weights) & set(self.beside))
        if twice:
            raise ValueError(f"beside: expected none of `weights`, found {', '.join(twice)}")
        self.model, self.settings = generator.model, settings
        self.learners: Sequence[Learner] = (generator, discriminator)
        self.groups: Mapping[str, Sequence[keras.Variable]] = groups(
            {"generator": generator, "discriminator": discriminator}
        )
        given = {"weights": self.weights, "beside": self.beside, "noise": [noise_channels, draws]}
        self.identity: Mapping[str, Any] = {
            "method": "adversarial",
            "losses": losses.__qualname__,
            "settings": {
                key: value
                for key, value in settings.model_dump().items()
                if key not in _LATER or value != _LATER[key]
            },
            "draws": [seed, name],
        } | (given if self.weights or self.beside or noise_channels else {})
        self.paired = settings.conditional or settings.fidelity > 0 or bool(self.beside)
        self._key, self._draws = (seed, name), Draws(noise_channels, draws)
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
        return update > alone and (self.settings.fidelity > 0 or bool(self.beside))

    def kind(self, place: Place) -> Hashable:
        """Which compiled step a batch takes."""
        if place.update < self.settings.warmup_generator:
            return "alone", place.last
        return *turns(self.settings, place.update), place.last

    def train(
        self, x: np.ndarray, y: Mapping[str, np.ndarray], place: Place
    ) -> tuple[dict[str, float], float]:
        """Take a step: losses before it, and the longest gradient's norm unclipped.

        `discriminator`, its shares of right answers `right_on_real` and `right_on_made`, and its
        `gradient_penalty` without the weight, if it has one, are missing where it did not learn,
        `adversarial` and the outputs' own where the generator did not.
        """
        told = *self._labels(len(x), place.batch), *self._places(len(x), place.batch)
        step = self._steps[self.kind(place)]
        values, norm = step(x, dict(y), told, np.float32(place.count))
        return numbers(values, (*y, "adversarial", *_JUDGED)), float(norm)

    def evaluate(self, x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, float]:
        """All losses of a batch, with plain labels, but no penalty; nothing changes."""
        return numbers(self._look(x, dict(y)), (*y, "adversarial", *_JUDGED))

    def total(self, losses: Mapping[str, float]) -> float:
        """The generator's: `adversarial`, and the losses of its outputs as they are weighted.

        Not a number where it has not learned.
        """
        own = {
            name: value for name, value in losses.items() if name not in ("adversarial", *_JUDGED)
        }
        if not own:
            return math.nan
        return self._weighted(own) + losses.get("adversarial", 0.0)

    def _weighted(self, own: Mapping[str, Any]) -> Any:
        """The sum of the outputs' losses, with their weights and `fidelity`."""
        total = self.settings.fidelity * sum(
            self.weights[name] * value if name in self.weights else value
            for name, value in own.items()
            if name not in self.beside
        )
        for name, weight in self.beside.items():
            total = total + weight * own[name]
        return total

    def _labels(self, count: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """What the discriminator is told of real and of made examples, (count,) each."""
        generator, settings = seeds.generator(*self._key, "labels", batch), self.settings
        real = generator.uniform(*settings.real_labels, count).astype(np.float32)
        made = generator.uniform(*settings.made_labels, count).astype(np.float32)
        swapped = generator.random(count) < settings.label_swap
        return np.where(swapped, made, real), np.where(swapped, real, made)

    def _places(self, count: int, batch: int) -> tuple[np.ndarray, ...]:
        """Where between made and real the penalty looks, (count,); empty if there is none."""
        if not self.settings.gradient_penalty:
            return ()
        rng = seeds.generator(*self._key, "places", batch)
        return (rng.random(count, dtype=np.float32),)

    def _own(self, outputs: Mapping[str, Any], y: Any) -> dict[str, Any]:
        """Losses of the outputs, (draws · n, y, x, 1) each."""
        means = {name: self._draws.mean(maps) for name, maps in outputs.items()}
        own = self._losses(means, y)
        if self._draws.count > 1 and self.beside:
            first = {name: self._draws.first(maps) for name, maps in outputs.items()}
            one = self._losses(first, y)
            own |= {name: one[name] for name in self.beside}
        return own

    def _shown(self, x: Any, maps: Sequence[Any]) -> Any:
        """What the discriminator sees of examples."""
        channels = [self._draws.parts(x)[0], *maps] if self.settings.conditional else list(maps)
        return ops.concatenate([ops.cast(maps, "float32") for maps in channels], axis=-1)

    def _logits(self, x: Any, maps: Sequence[Any], training: bool) -> Any:
        return ops.cast(self.learners[1].model(self._shown(x, maps), training=training), "float32")

    def _judge(self, x: Any, real: Any, made: Any, labels: Any, training: bool) -> Any:
        """The discriminator's loss, and what is told of it."""
        kind = self.settings.loss
        on_real, on_made = (self._logits(x, maps, training) for maps in (real, made))
        loss = discriminating(kind, on_real, on_made, labels)
        return loss, {"discriminator": loss} | answers(kind, on_real, on_made)

    def _penalize(self, x: Any, real: Any, made: Any, place: Any) -> Any:
        """The gradient penalty, without its weight."""
        real, made = (
            ops.concatenate([ops.cast(one, "float32") for one in maps], axis=-1)
            for maps in (real, made)
        )
        return slope_penalty(
            self._seam, lambda maps: self._logits(x, [maps], True), real, made, place
        )

    def _convince(self, x: Any, made: Any, real: Any, training: bool) -> Any:
        """The loss of made examples that are to pass for real."""
        kind = self.settings.loss
        on_real = self._logits(x, real, training) if kind == "relativistic" else None
        return generating(kind, self._logits(x, made, training), on_real)

    def _step(
        self, turn: tuple[bool, bool], last: bool, x: Any, y: Any, told: Any, count: Any
    ) -> Any:
        (generator, judge), fields = self.learners, self._fields
        real = [y[name] for name in fields]
        labels, places = told[:2], told[2:]

        def make() -> Any:
            outputs = self.model(self._draws.inputs(x), training=True)
            return [outputs[name] for name in fields], None

        def tell() -> Any:
            first = [self._draws.first(maps) for maps in made]
            loss, told = self._judge(x, real, first, labels, True)
            if places:
                told["gradient_penalty"] = self._penalize(x, real, first, places[0])
                loss = loss + self.settings.gradient_penalty * told["gradient_penalty"]
            return loss, told

        learns, judges = turn
        if learns:
            made, _, pull = self._seam.pullback(make, self.model.trainable_variables)
        else:
            made = make()[0]
        values: dict[str, Any] = {}
        norms = []
        if judges:
            _, found, gradients = self._seam.gradient(tell, judge.model.trainable_variables)
            values |= found
            norms.append(judge.learn(gradients, last, count))
        if learns:
            # By the outputs first: they are made once, and the discriminator has changed since.
            def loss(*made: Any) -> Any:
                own = self._own(dict(zip(fields, made, strict=True)), y)
                convinced = self._convince(
                    x, [self._draws.first(maps) for maps in made], real, True
                )
                total = convinced + self._weighted(own)
                return total, own | {"adversarial": convinced}

            _, found, by_made = self._seam.gradient(loss, tensors=made)
            values |= found
            norms.append(generator.learn(pull(by_made), last, count))
        return values, ops.max(ops.stack(norms))

    def _step_alone(self, last: bool, x: Any, y: Any, told: Any, count: Any) -> Any:
        def loss() -> Any:
            own = self._own(self.model(self._draws.inputs(x), training=True), y)
            return self._weighted(own), own

        _, own, gradients = self._seam.gradient(loss, self.model.trainable_variables)
        return own, self.learners[0].learn(gradients, last, count)

    def _evaluate(self, x: Any, y: Any) -> Any:
        outputs = self.model(self._draws.inputs(x), training=False)
        made = [self._draws.first(outputs[name]) for name in self._fields]
        ones = ops.ones(ops.shape(x)[:1])
        real = [y[name] for name in self._fields]
        _, told = self._judge(x, real, made, (ones, 0 * ones), False)
        convinced = self._convince(x, made, real, False)
        return self._own(outputs, y) | {"adversarial": convinced} | told


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
