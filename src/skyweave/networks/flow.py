"""A flow network: from noise to samples of what a network's means leave open.

Conditional flow matching (Lipman et al. 2023, arXiv 2210.02747) on the path
y(t) = cos(pi t / 2) y0 + sin(pi t / 2) y1 between noise y0 and residual y1 (Albergo and
Vanden-Eijnden 2023, arXiv 2209.15571). Where noise and residual are Gaussian with one spectrum the
expected velocity is zero: an untrained flow already gives samples of that power, and what it learns
is what the observation says beyond the mean.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from skyweave.errors import UserError
from skyweave.networks import parts
from skyweave.networks.parts import Tensor

#: Ends the name of an output that is the mean of a target.
MEAN = "_mean"

#: Waves of time that condition the velocity: sines and cosines of pi t / 2 times these.
_WAVES = (1.0, 2.0, 4.0, 8.0)


def build(
    pixels: int,
    inputs: Sequence[str],
    targets: Sequence[str],
    width: float = 1.0,
    seed: int = 0,
    *,
    mean: keras.Model | None = None,
    dropout: float = 0.0,
    deviations: Mapping[str, float] | None = None,
) -> keras.Model:
    """Network from (n, pixels, pixels, channels) to the targets' velocities and means.

    Channels are the inputs, a state for each target, and the time, a constant map from 0 (noise) to
    1. Output `target` is the change of its state with time, `target_mean` what `mean` gives,
    without it zero; each (n, pixels, pixels, 1), normalized. `mean` takes the inputs and is copied,
    frozen and without dropout. `deviations` are the rms of the states, 1 if None: within the
    velocity's network all are of order 1. `width` is a factor on its channels (32, 64 and 128 at
    full, half and quarter resolution), which stay multiples of 4. Raises `UserError` where `pixels`
    is not a multiple of 4, or `mean` lacks a target.
    """
    known = len(inputs)
    image = parts.image(pixels, known + len(targets) + 1)
    pieces = [image[..., :known], image[..., known:]]
    if mean is None:
        means = {name: ops.zeros_like(image[..., :1]) for name in targets}
    else:
        if missing := set(targets) - set(mean.output):
            raise UserError(
                "network after which a flow comes", f"outputs {sorted(missing)}", "none"
            )
        copy = type(mean).from_config({**mean.get_config(), "name": "mean"})
        copy.set_weights(mean.get_weights())
        copy.trainable = False
        found = copy(pieces[0], training=False)
        means = {name: ops.cast(ops.stop_gradient(found[name]), "float32") for name in targets}
        pieces.insert(1, layers.Concatenate(dtype="float32", name="means")(list(means.values())))
    joined = layers.Concatenate(dtype="float32", name="known_and_state")(pieces)
    moving = _velocity(joined.shape[1:], targets, width, seed, dropout, deviations or {})
    speeds = dict(zip(targets, keras.tree.flatten(moving(joined)), strict=True))
    outputs = speeds | {name + MEAN: means[name] for name in targets}
    return keras.Model(image, outputs, name="flow")


def order(model: keras.Model) -> tuple[str, ...]:
    """Targets of a flow network, in the order of its states."""
    return tuple(model.get_layer("velocity").output_names)


def has_means(model: keras.Model) -> bool:
    """Whether a flow network was built with a mean."""
    return any(layer.name == "mean" for layer in model.layers)


def means(model: keras.Model, x: Tensor) -> Tensor:
    """Means (n, y, x, targets) of inputs (n, y, x, inputs), of a network that has them."""
    found = model.get_layer("mean")(x, training=False)
    return ops.stop_gradient(
        ops.concatenate([ops.cast(found[name], "float32") for name in order(model)], -1)
    )


def velocity(
    model: keras.Model, known: Tensor, states: Tensor, times: Tensor, *, training: bool = False
) -> Tensor:
    """Velocities (n, y, x, targets) of states (n, y, x, targets) at times (n,).

    `known` are the inputs, followed by the means if there are any.
    """
    time = ops.reshape(times, (-1, 1, 1, 1)) * ops.ones_like(known[..., :1])
    joined = ops.concatenate([known, states, time], -1)
    # One target is no list.
    found = keras.tree.flatten(model.get_layer("velocity")(joined, training=training))
    return ops.concatenate([ops.cast(one, "float32") for one in found], -1)


class Sampler:
    """Draws samples with a flow network: the mean, plus a state taken from noise to the end.

    Heun's method in `steps` steps, thus 2 `steps` evaluations of the velocity a sample; the mean is
    computed once for all samples of a patch.
    """

    def __init__(self, model: keras.Model, steps: int) -> None:
        self.targets, self.steps = order(model), steps
        self._means = compiled(model, partial(means, model)) if has_means(model) else None
        self._velocity = compiled(model, partial(velocity, model))

    def __call__(self, x: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
        """Samples {target: (samples, n, y, x)} float32, normalized.

        x: normalized inputs (n, y, x, inputs). noise: (samples, n, y, x, targets), of the base.
        """
        known, drawn = x, np.empty(noise.shape, np.float32)
        if self._means:
            known = np.concatenate([x, self._means(x)], -1)

        def speed(states: np.ndarray, time: float) -> np.ndarray:
            return self._velocity(known, states, np.full(len(x), time, np.float32))

        for start, end in zip(noise, drawn, strict=True):
            end[:] = integrate(speed, start, self.steps)
        if self._means:
            drawn += known[..., x.shape[-1] :]
        return {name: drawn[..., place] for place, name in enumerate(self.targets)}


def integrate(
    speed: Callable[[np.ndarray, float], np.ndarray], start: np.ndarray, steps: int
) -> np.ndarray:
    """The state at time 1 of one that is `start` at 0 and changes by `speed(state, time)`.

    Heun's method of second order (Karras et al. 2022, arXiv 2206.00364), in equal steps.
    """
    state, step = start, 1 / steps
    for number in range(steps):
        first = speed(state, number * step)
        second = speed(state + np.float32(step) * first, (number + 1) * step)
        state = state + np.float32(step / 2) * (first + second)
    return state


def compiled(model: keras.Model, function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """A function of arrays that calls the model and changes nothing, as the backend compiles it."""
    if keras.backend.backend() == "jax":
        import jax

        variables = model.variables

        @jax.jit
        def pure(values: Any, *arguments: Any) -> Any:
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return function(*arguments)

        return lambda *arguments: np.asarray(pure([v.value for v in variables], *arguments))
    import tensorflow as tf

    graph = tf.function(function, autograph=False, reduce_retracing=True)
    return lambda *arguments: graph(*arguments).numpy()


def _velocity(
    shape: tuple[int, ...],
    targets: Sequence[str],
    width: float,
    seed: int,
    dropout: float,
    deviations: Mapping[str, float],
) -> keras.Model:
    """Compact residual U-Net of maps `shape`, states and time last; starts at zero velocity.

    Time acts on each block by a factor and a shift a channel (Perez et al. 2018, arXiv 1709.07871),
    and on a multiple of the state itself, by which a base of another power is set right.
    """
    part = _Parts(dropout, seed)
    fine, half, quarter = (parts.channels(base, width) for base in (32, 64, 128))
    joined = keras.Input(shape, name="known_and_state")
    known = shape[-1] - len(targets) - 1
    scales = [deviations.get(name, 1.0) for name in targets]
    unit = layers.Rescaling([1 / scale for scale in scales], dtype="float32", name="unit")
    states = unit(joined[..., known:-1])
    time = part.time(joined[..., -1:], 2 * quarter)

    image = layers.Concatenate(dtype="float32", name="image")([joined[..., :known], states])
    x = part.conv(image, fine, "stem")
    skip_1 = part.product(x, "product")
    x = part.conv(layers.AveragePooling2D(2, name="half_pool")(skip_1), half, "half")
    skip_2 = part.block(part.block(x, time, "half_a"), time, "half_b")
    x = part.conv(layers.AveragePooling2D(2, name="quarter_pool")(skip_2), quarter, "quarter")
    x = part.block(part.block(x, time, "quarter_a"), time, "quarter_b")
    x = part.block(part.up(x, skip_2, half, "half_up"), time, "half_c")
    x = part.block(part.up(x, skip_1, fine, "full_up"), time, "full_a")
    learned = part.conv(part.active(x, "out"), len(targets), "out", zero=True, dtype="float32")
    share = part.dense(time, len(targets), "share", zero=True, dtype="float32")
    multiple = layers.Multiply(dtype="float32", name="multiple")([states, share])
    both = layers.Add(dtype="float32", name="both")([learned, multiple])
    speeds = [
        layers.Rescaling(scale, dtype="float32", name=name)(both[..., place : place + 1])
        for place, (name, scale) in enumerate(zip(targets, scales, strict=True))
    ]
    return keras.Model(joined, speeds, name="velocity")


class _Parts:
    """The pieces that the velocity's network repeats; weights are drawn by the layers' names."""

    def __init__(self, dropout: float, seed: int) -> None:
        self.dropout, self.seed = dropout, seed

    def time(self, times: Tensor, units: int) -> Tensor:
        """Features (n, 1, 1, units) of a map that is the time everywhere."""
        x = layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name="time")(times)
        waves = layers.Dense(2 * len(_WAVES), dtype="float32", trainable=False, name="waves")
        phase = waves(x)
        angles = np.array([*_WAVES, *_WAVES]) * np.pi / 2
        shifts = np.repeat([0, np.pi / 2], len(_WAVES))
        waves.set_weights([angles[None], shifts])
        return self.active(self.dense(ops.sin(phase), units, "time_a"), "time_b")

    def block(self, x: Tensor, time: Tensor, name: str) -> Tensor:
        """`x` + silu → convolution → factor and shift of time → silu → convolution, first 0."""
        y = self.conv(self.active(x, f"{name}_1"), x.shape[-1], f"{name}_1")
        factor = self.dense(time, x.shape[-1], f"{name}_factor", zero=True)
        shift = self.dense(time, x.shape[-1], f"{name}_shift", zero=True)
        more = layers.Multiply(name=f"{name}_multiply")([y, factor])
        y = self.active(layers.Add(name=f"{name}_timed")([y, more, shift]), f"{name}_2")
        y = parts.dropout(y, self.dropout, self.seed, name)
        y = self.conv(y, x.shape[-1], f"{name}_2", zero=True)
        return layers.Add(name=f"{name}_add")([x, y])

    def product(self, x: Tensor, name: str) -> Tensor:
        """`x` + convolution of the products of two convolutions, as B is of E and kappa."""
        factors = [self.conv(x, x.shape[-1], f"{name}_{factor}") for factor in "ab"]
        y = layers.Multiply(name=f"{name}_multiply")(factors)
        y = self.conv(y, x.shape[-1], f"{name}_out", zero=True)
        return layers.Add(name=f"{name}_add")([x, y])

    def up(self, x: Tensor, skip: Tensor, channels: int, name: str) -> Tensor:
        """Nearest ×2, joined with the features of that resolution → convolution."""
        x = layers.UpSampling2D(name=f"{name}_nearest")(x)
        return self.conv(layers.Concatenate(name=f"{name}_concat")([x, skip]), channels, name)

    def active(self, x: Tensor, name: str) -> Tensor:
        """The nonlinearity, smooth as the maps are."""
        return layers.Activation("silu", name=f"{name}_silu")(x)

    def dense(self, x: Tensor, units: int, name: str, **more: Any) -> Tensor:
        """Linear combinations of the last axis; weights drawn, or first 0."""
        start = self._start(name, more.pop("zero", False))
        return layers.Dense(units, kernel_initializer=start, name=name, **more)(x)

    def conv(self, x: Tensor, channels: int, name: str, **more: Any) -> Tensor:
        """Convolution 3×3 with bias, same padding; weights drawn, or first 0."""
        more |= {"kernel_initializer": self._start(name, more.pop("zero", False))}
        return layers.Conv2D(channels, 3, padding="same", name=f"{name}_conv", **more)(x)

    def _start(self, name: str, zero: bool) -> Any:
        drawn = keras.initializers.LecunNormal(seed=parts.draw(self.seed, name, 0))
        return "zeros" if zero else drawn
