"""Training of a style-based generator (StyleGAN2, Karras et al. 2020, arXiv:1912.04958)."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import keras
import numpy as np
from keras import ops

from skyweave import seeds
from skyweave.config.galaxies import Augmentation
from skyweave.config.runs import StyleBased as Settings
from skyweave.config.runs import Training
from skyweave.training.augmentation import Adaptive
from skyweave.training.gradients import mean_of_devices, seam
from skyweave.training.losses import convincing, right, telling
from skyweave.training.method import Learner, Place, groups, numbers
from skyweave.training.state import assign, values

#: Half-life of the average over the examples seen, at most: its first weights are untrained ones.
_RAMP = 0.05
#: All losses of a step, of which those of regularization may be missing.
_LOSSES = (
    "generator",
    "discriminator",
    "r1",
    "path_length",
    "right_on_real",
    "right_on_made",
    "augmentation",
)


def compose(mapping: keras.Model, synthesis: keras.Model) -> keras.Model:
    """A generator, latents (n, d) → {output: maps (n, y, x, 1)}, of its two networks.

    `mapping` takes latents to styles (n, w); `synthesis` takes a style for each of its layers
    (n, layers, w), first the coarsest, to maps. Called as a whole, all layers have the same style.
    """
    latents = keras.Input(mapping.input_shape[1:], name="latents")
    styles = keras.layers.RepeatVector(synthesis.input_shape[1], name="styles")(mapping(latents))
    return keras.Model(latents, synthesis(styles), name="generator")


def learners(
    generator: keras.Model, discriminator: keras.Model, training: Training, settings: Settings
) -> tuple[Learner, Learner]:
    """Both networks with Adam as the settings have it."""

    def one(model: keras.Model, rate: float) -> Learner:
        return Learner(
            model,
            keras.optimizers.Adam(rate, settings.beta_1, settings.beta_2, epsilon=1e-8),
            clip_norm=training.clip_norm,
            accumulate=training.accumulate > 1,
        )

    rate = training.learning_rate
    return one(generator, rate), one(discriminator, settings.learning_rate or rate)


class StyleBased:
    """A generator made by `compose` against a discriminator.

    The discriminator takes maps (n, y, x, outputs), the outputs as channels in the order of the
    generator's, to logits (n, 1). Both losses are logistic, the generator's in the form that does
    not saturate. Both networks meet each other as they are before the update, which converges
    locally with R1 (Mescheder et al. 2018, arXiv:1801.04406). Styles of two latents are mixed, and
    the product `model` is not the generator that learns but the exponential moving average of its
    weights (both Karras et al. 2019, arXiv:1812.04948).

    Every `r1_interval`-th update the discriminator's loss has R1, and every `path_interval`-th the
    generator's has the path lengths, times the interval: the term's mean weight is the published
    one. As part of the main loss, instead of steps of their own, they need no second state of the
    optimizer and no correction of its rates and betas; the price is a compiled step for each choice
    of what is in it, and a norm that is larger in those updates.

    With `augment.adaptive` the discriminator sees real and made maps through `Adaptive`'s
    transforms, and the generator learns through them; R1 is the slope by what the discriminator
    sees, because that is where it has to tell the two apart. Path lengths, the average and the
    validation know nothing of it.

    Latents, the layers where styles are mixed and the noise of path lengths are drawn by `seed`,
    `name` and the number of the batch. Inputs of the feed are not looked at.
    """

    def __init__(
        self,
        generator: Learner,
        discriminator: Learner,
        settings: Settings,
        *,
        seed: int,
        name: str,
        augment: Augmentation | None = None,
        xla: bool = False,
    ) -> None:
        self.settings, self._key = settings, (seed, name)
        self._maker, self._judge = generator.model, discriminator.model
        _, self._mapping, repeat, self._synthesis = generator.model.layers
        self._layers, self._latent = repeat.n, generator.model.input_shape[1]
        self._fields = tuple(generator.model.output)
        self.model = keras.models.clone_model(generator.model)
        assign(self.model.variables, values(generator.model.variables))
        #: The running mean of path lengths.
        self._length = keras.Variable(np.float32(0), trainable=False, dtype="float32")
        self.learners: Sequence[Learner] = (generator, discriminator)
        self.groups: Mapping[str, Sequence[keras.Variable]] = groups(
            {"generator": generator, "discriminator": discriminator}
        ) | {"average": self.model.variables, "path_length": [self._length]}
        self.identity: Mapping[str, Any] = {
            "method": "style_based",
            "settings": settings.model_dump(),
            "draws": [seed, name],
        }
        self._adaptive: Adaptive | None = None
        if augment is not None and augment.adaptive:
            self._adaptive = Adaptive(augment, seed=seed, name=name)
            self.groups = {**self.groups, "augmentation": self._adaptive.variables}
            self.identity = {**self.identity, "augmentation": self._adaptive.identity}
        self.paired = False
        self._seam = seam([v for group in self.groups.values() for v in group], xla=xla)
        #: A compiled step with or without R1, path lengths, and the end of an update.
        self._steps: Mapping[Hashable, Callable[..., Any]] = {
            choice: self._seam.compile(partial(self._step, *choice))
            for choice in product((True, False), repeat=3)
        }
        self._look = self._seam.compile(self._evaluate)

    def settled(self, update: int) -> bool:
        """Never: the discriminator who judges learns as well."""
        return False

    def kind(self, place: Place) -> Hashable:
        """Which compiled step a batch takes."""
        intervals = self.settings.r1_interval, self.settings.path_interval
        return *(due(interval, place.update) for interval in intervals), place.last

    def train(
        self, x: np.ndarray, y: Mapping[str, np.ndarray], place: Place
    ) -> tuple[dict[str, float], float]:
        """Take a step: losses before it, and the longest gradient's norm unclipped.

        `generator`, `discriminator`, its shares of right answers `right_on_real` and
        `right_on_made`, and where the update has them `r1`, the mean squared slope, and
        `path_length`, the mean squared difference from the running mean; all without weights. With
        adaptive augmentation its probability, `augmentation`, stands beside them.
        """
        real, settings = self._maps(y), self.settings
        found, norms = self._steps[self.kind(place)](
            real,
            self._styles(len(real), "styles", place.batch),
            self._paths(real.shape, place.batch)
            if due(settings.path_interval, place.update)
            else (),
            np.float32(place.count),
            np.float32(1 - kept(settings.average_images, len(real), place)),
            self._transforms(real.shape, place),
        )
        # NumPy's maximum is not finite where one of them is not.
        longest = np.max([float(norm) for norm in norms])
        return numbers(found, _LOSSES), float(longest)

    def evaluate(self, x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Losses of the average generator, of the same latents for each batch; nothing changes."""
        real = self._maps(y)
        rng = seeds.generator(*self._key, "validation")
        latents = rng.standard_normal((len(real), self._latent), np.float32)
        found = self._look(real, latents)
        return numbers(found, _LOSSES)

    def total(self, losses: Mapping[str, float]) -> float:
        """The generator's loss, which is told by a discriminator that learns as well.

        It has no lowest value to reach: where the two are in balance it is ln 2.
        """
        return losses["generator"]

    def _maps(self, y: Mapping[str, np.ndarray]) -> np.ndarray:
        """Real examples as the discriminator sees them, (n, y, x, outputs)."""
        return np.concatenate([y[name] for name in self._fields], axis=-1)

    def _styles(self, count: int, *identity: str | int) -> tuple[np.ndarray, np.ndarray]:
        """Latents (count, 2, d), and (count,) the first layers with styles of the second."""
        rng, layers = seeds.generator(*self._key, *identity), self._layers
        latents = rng.standard_normal((count, 2, self._latent), np.float32)
        mixed = rng.random(count) < self.settings.style_mixing
        # One layer alone leaves nothing to mix.
        first = rng.integers(1, max(layers, 2), count)
        return latents, np.where(mixed, first, layers).astype(np.int32)

    def _paths(self, shape: Sequence[int], batch: int) -> tuple[np.ndarray, ...]:
        """Styles for path lengths as `_styles`, and the directions (n, y, x, outputs) of the maps.

        These are normal, with a mean square of 1 over the number of pixels.
        """
        count = max(1, shape[0] // self.settings.path_shrink)
        rng = seeds.generator(*self._key, "directions", batch)
        noise = rng.standard_normal((count, *shape[1:]), np.float32)
        noise /= np.float32(np.sqrt(shape[1] * shape[2]))
        return *self._styles(count, "paths", batch), noise

    def _transforms(self, shape: Sequence[int], place: Place) -> tuple[Any, ...]:
        """Random transforms of real and made maps, and what `Adaptive.adapt` asks; none: empty."""
        if self._adaptive is None:
            return ()
        real, made = (self._adaptive.draw(shape, role, place.batch) for role in ("real", "made"))
        due = self._adaptive.due(place.update, place.last)
        return real, made, due, np.float32(shape[0] / self._adaptive.settings.images)

    def _mixed(self, latents: Any, first: Any) -> Any:
        """Styles (n, layers, w): of an example's first latent up to layer `first`."""
        styles = self._mapping(ops.reshape(latents, (-1, self._latent)), training=True)
        both = ops.reshape(styles, (-1, 2, 1, styles.shape[-1]))
        ahead = ops.arange(self._layers) < first[:, None]
        return ops.where(ahead[..., None], both[:, 0], both[:, 1])

    def _joined(self, outputs: Mapping[str, Any]) -> Any:
        """A generator's outputs as `_maps` has the real ones."""
        return ops.concatenate([ops.cast(outputs[n], "float32") for n in self._fields], axis=-1)

    def _made(self, styles: Any) -> Any:
        return self._joined(self._synthesis(styles, training=True))

    def _logits(self, maps: Any, training: bool) -> Any:
        return ops.cast(self._judge(maps, training=training), "float32")

    def _step(
        self,
        r1: bool,
        path: bool,
        last: bool,
        real: Any,
        styles: Any,
        paths: Any,
        count: Any,
        share: Any,
        transforms: Any,
    ) -> Any:
        (generator, judge), settings = self.learners, self.settings

        def shown(maps: Any, role: int) -> Any:
            """Maps as the discriminator sees them; role 0 real, 1 made."""
            return self._adaptive(maps, transforms[role]) if self._adaptive else maps

        weights = self._maker.trainable_variables
        made, _, pull = self._seam.pullback(
            lambda: (self._made(self._mixed(*styles)), None), weights
        )
        loss, _, by_made = self._seam.gradient(
            lambda maps: (convincing(self._logits(shown(maps, 1), True)), None), tensors=[made]
        )
        found, by_weights = {"generator": loss}, pull(by_made[0])
        if path:
            found["path_length"], mean, more = self._seam.gradient(
                lambda: self._spread(*paths), weights
            )
            factor = settings.path_weight * settings.path_interval
            by_weights = [one + factor * other for one, other in zip(by_weights, more, strict=True)]
            self._length.assign(mean)

        seen, faked = shown(real, 0), shown(made, 1)

        def tell() -> Any:
            on_made = self._logits(faked, True)
            on_real, slope = self._slope(seen) if r1 else (self._logits(seen, True), None)
            loss = telling(on_real, on_made)
            told = {"discriminator": loss} | right(on_real, on_made)
            if slope is not None:
                told["r1"] = slope
                loss = loss + settings.r1_gamma / 2 * settings.r1_interval * slope
            return loss, told

        _, told, gradients = self._seam.gradient(tell, self._judge.trainable_variables)
        norms = generator.learn(by_weights, last, count), judge.learn(gradients, last, count)
        if last:
            self._average(share)
        if self._adaptive:
            told["augmentation"] = self._adaptive.adapt(told["right_on_real"], *transforms[2:])
        return found | told, norms

    def _spread(self, latents: Any, first: Any, noise: Any) -> Any:
        """Mean squared difference of path lengths from their running mean, and that, gone on.

        A path length is that of the gradient by the styles of the maps' product with `noise`, root
        mean square over the layers; its mean is a constant to gradients.
        """
        styles = self._mixed(latents, first)
        _, _, (slope,) = self._seam.gradient(
            lambda styles: (ops.sum(self._made(styles) * noise), None), tensors=[styles]
        )
        squares = ops.sum(ops.square(ops.cast(slope, "float32")), axis=2)
        lengths = ops.sqrt(ops.mean(squares, axis=1))
        (found,) = mean_of_devices([ops.stop_gradient(ops.mean(lengths))])
        mean = self._length + self.settings.path_decay * (found - self._length)
        return ops.mean(ops.square(lengths - mean)), mean

    def _slope(self, real: Any) -> Any:
        """Logits of real examples, and the mean square of their gradient by the maps."""

        def summed(maps: Any) -> Any:
            logits = self._logits(maps, True)
            return ops.sum(logits), logits

        _, logits, (slope,) = self._seam.gradient(summed, tensors=[real])
        return logits, ops.mean(ops.sum(ops.square(slope), axis=(1, 2, 3)))

    def _average(self, share: Any) -> None:
        """Move the average by a share of its way to the generator; statistics are copied."""
        pairs = zip(self.model.trainable_weights, self._maker.trainable_weights, strict=True)
        for mean, weight in pairs:
            mean.assign(mean + share * (weight - mean))
        pairs = zip(
            self.model.non_trainable_weights, self._maker.non_trainable_weights, strict=True
        )
        for copy, weight in pairs:
            copy.assign(weight)

    def _evaluate(self, real: Any, latents: Any) -> Any:
        # Of these, those of a synthesis that draws noise would change.
        others = self.model.non_trainable_variables
        before = [ops.copy(variable) for variable in others]
        made = self._logits(self._joined(self.model(latents, training=False)), False)
        for variable, value in zip(others, before, strict=True):
            variable.assign(value)
        on_real = self._logits(real, False)
        losses = {"generator": convincing(made), "discriminator": telling(on_real, made)}
        return losses | right(on_real, made)


def due(interval: int, update: int) -> bool:
    """Whether an update, counted from 0, has a term of every `interval`-th; 0 is none."""
    return interval > 0 and update % interval == 0


def kept(half_life: float, batch: int, place: Place) -> float:
    """What an update of `place.count` batches leaves of the average's weights before it.

    Half in `half_life` examples, at the start in 5 % of those seen.
    """
    seen = (place.batch + 1) * batch
    return 0.5 ** (place.count * batch / min(half_life, _RAMP * seen))
