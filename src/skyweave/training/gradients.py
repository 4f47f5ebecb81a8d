"""The one place that takes gradients: a training step and an evaluation step for each backend."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from skyweave.errors import UserError

#: (outputs, targets) → {output: scalar loss}; their sum is what training lowers.
Losses = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
#: {output: loss} before the update in order of the targets, and the norm of the gradient.
Trained = tuple[dict[str, float], float]


@dataclass(frozen=True)
class Steps:
    """Steps that change the model and its optimizer, and one that only looks.

    `train` takes a step and updates the weights. Over several steps, `add` adds a step's gradient
    to `sums` and `update` updates the weights by the mean of that many; it gives its norm. Norms
    are those of all gradients together before any clipping, not finite where one of them is not.
    """

    train: Callable[[np.ndarray, Mapping[str, np.ndarray]], Trained]
    evaluate: Callable[[np.ndarray, Mapping[str, np.ndarray]], dict[str, float]]
    add: Callable[[np.ndarray, Mapping[str, np.ndarray]], Trained]
    update: Callable[[int], float]
    #: Sums of gradients since the last update, one for each trainable variable; part of a state.
    sums: list[keras.Variable] = field(default_factory=list)


def make_steps(
    model: keras.Model,
    optimizer: keras.Optimizer,
    losses: Losses,
    *,
    clip_norm: float | None = None,
    accumulate: bool = False,
    xla: bool = False,
) -> Steps:
    """Compiled steps of the running backend; batches of one shape compile once.

    Gradients whose norm exceeds `clip_norm` are scaled to it. Only with `accumulate` is there
    memory for `sums`. `xla` is TensorFlow's; JAX has no other way. Raises `UserError` for a
    backend that has no steps.
    """
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise UserError("KERAS_BACKEND", "one of tensorflow, jax", backend)
    sums = [
        keras.Variable(np.zeros(v.shape, "float32"), trainable=False, dtype="float32")
        for v in (model.trainable_variables if accumulate else ())
    ]
    if backend == "tensorflow":
        made = _tensorflow(model, optimizer, losses, sums, clip_norm, xla)
    else:
        made = _jax(model, optimizer, losses, sums, clip_norm)
    train, evaluate, add, update = made

    def numbers(values: Mapping[str, Any], y: Mapping[str, Any]) -> dict[str, float]:
        return {name: float(values[name]) for name in y}

    def trained(step: Callable[..., Any]) -> Callable[..., Trained]:
        def plain(x: np.ndarray, y: Mapping[str, np.ndarray]) -> Trained:
            values, norm = step(x, dict(y))
            return numbers(values, y), float(norm)

        return plain

    return Steps(
        trained(train),
        lambda x, y: numbers(evaluate(x, dict(y)), y),
        trained(add),
        lambda count: float(update(np.float32(count))),
        sums,
    )


def _norm(gradients: Sequence[Any]) -> Any:
    return ops.sqrt(sum(ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients))


def _clipped(gradients: Sequence[Any], norm: Any, longest: float | None) -> list[Any]:
    if longest is None:
        return list(gradients)
    scale = longest / ops.maximum(norm, longest)
    return [g * ops.cast(scale, g.dtype) for g in gradients]


def _tensorflow(
    model: keras.Model,
    optimizer: keras.Optimizer,
    losses: Losses,
    sums: Sequence[keras.Variable],
    clip_norm: float | None,
    xla: bool,
) -> tuple[Callable[..., Any], ...]:
    import tensorflow as tf

    # Said either way, so that no default of TensorFlow decides. XLA draws other dropout masks.
    compiled = tf.function(jit_compile=xla)

    def gradient(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            values = losses(model(x, training=True), y)
            total = sum(values.values())
        return values, tape.gradient(total, model.trainable_variables)

    @compiled
    def train(x: Any, y: Any) -> Any:
        values, gradients = gradient(x, y)
        norm = _norm(gradients)
        optimizer.apply(_clipped(gradients, norm, clip_norm), model.trainable_variables)
        return values, norm

    @compiled
    def evaluate(x: Any, y: Any) -> Any:
        return losses(model(x, training=False), y)

    @compiled
    def add(x: Any, y: Any) -> Any:
        values, gradients = gradient(x, y)
        for total, one in zip(sums, gradients, strict=True):
            total.assign_add(one)
        return values, _norm(gradients)

    @compiled
    def update(count: Any) -> Any:
        gradients = [total / count for total in sums]
        norm = _norm(gradients)
        optimizer.apply(_clipped(gradients, norm, clip_norm), model.trainable_variables)
        for total in sums:
            total.assign(ops.zeros_like(total))
        return norm

    return train, evaluate, add, update


def _jax(
    model: keras.Model,
    optimizer: keras.Optimizer,
    losses: Losses,
    sums: Sequence[keras.Variable],
    clip_norm: float | None,
) -> tuple[Callable[..., Any], ...]:
    import jax

    def total(trainable: Any, other: Any, x: Any, y: Any) -> Any:
        outputs, other = model.stateless_call(trainable, other, x, training=True)
        values = losses(outputs, y)
        return sum(values.values()), (values, other)

    gradient = jax.value_and_grad(total, has_aux=True)

    def applied(trainable: Any, slots: Any, gradients: Any) -> Any:
        norm = _norm(gradients)
        clipped = _clipped(gradients, norm, clip_norm)
        return norm, *optimizer.stateless_apply(slots, clipped, trainable)

    @jax.jit
    def step(trainable: Any, other: Any, slots: Any, x: Any, y: Any) -> Any:
        (_, (values, other)), gradients = gradient(trainable, other, x, y)
        norm, trainable, slots = applied(trainable, slots, gradients)
        return (values, norm), (trainable, other, slots)

    @jax.jit
    def look(trainable: Any, other: Any, x: Any, y: Any) -> Any:
        return losses(model.stateless_call(trainable, other, x, training=False)[0], y)

    @jax.jit
    def more(trainable: Any, other: Any, kept: Any, x: Any, y: Any) -> Any:
        (_, (values, other)), gradients = gradient(trainable, other, x, y)
        kept = [old + new for old, new in zip(kept, gradients, strict=True)]
        return (values, _norm(gradients)), (other, kept)

    @jax.jit
    def mean(trainable: Any, slots: Any, kept: Any, count: Any) -> Any:
        norm, trainable, slots = applied(trainable, slots, [one / count for one in kept])
        return norm, (trainable, slots, [ops.zeros_like(one) for one in kept])

    def raw(group: Sequence[Any]) -> list[Any]:
        return [variable.value for variable in group]

    def put(groups: Sequence[Sequence[Any]], changed: Any) -> None:
        for group, new in zip(groups, changed, strict=True):
            for variable, value in zip(group, new, strict=True):
                variable.assign(value)

    def train(x: Any, y: Any) -> Any:
        groups = model.trainable_variables, model.non_trainable_variables, optimizer.variables
        found, changed = step(*map(raw, groups), x, y)
        put(groups, changed)
        return found

    def evaluate(x: Any, y: Any) -> Any:
        return look(raw(model.trainable_variables), raw(model.non_trainable_variables), x, y)

    def add(x: Any, y: Any) -> Any:
        groups = model.non_trainable_variables, sums
        found, changed = more(raw(model.trainable_variables), *map(raw, groups), x, y)
        put(groups, changed)
        return found

    def update(count: Any) -> Any:
        groups = model.trainable_variables, optimizer.variables, sums
        norm, changed = mean(*map(raw, groups), count)
        put(groups, changed)
        return norm

    return train, evaluate, add, update
