"""The one place that takes gradients: a training step and an evaluation step for each backend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from skyweave.errors import UserError

#: (outputs, targets) → {output: scalar loss}; their sum is what training lowers.
Losses = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
#: (inputs, targets) → {output: loss} before the update, in order of the targets.
Step = Callable[[np.ndarray, Mapping[str, np.ndarray]], dict[str, float]]


@dataclass(frozen=True)
class Steps:
    """A step that changes the model and its optimizer, and one that only looks."""

    train: Step
    evaluate: Step


def make_steps(model: keras.Model, optimizer: keras.Optimizer, losses: Losses) -> Steps:
    """Compiled steps of the running backend; batches of one shape compile once.

    Raises `UserError` for a backend that has none.
    """
    makers = {"tensorflow": _tensorflow, "jax": _jax}
    backend = keras.backend.backend()
    if backend not in makers:
        raise UserError("KERAS_BACKEND", f"one of {', '.join(makers)}", backend)
    train, evaluate = makers[backend](model, optimizer, losses)
    return Steps(_plain(train), _plain(evaluate))


def _plain(step: Callable[..., Any]) -> Step:
    """A step that gives Python numbers."""

    def plain(x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, float]:
        values = step(x, dict(y))
        return {name: float(values[name]) for name in y}

    return plain


def _tensorflow(
    model: keras.Model, optimizer: keras.Optimizer, losses: Losses
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import tensorflow as tf

    # Without XLA: slower on a CPU, and switched off by deterministic operations.
    @tf.function(jit_compile=False)
    def train(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            values = losses(model(x, training=True), y)
            total = sum(values.values())
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(total, variables), variables)
        return values

    @tf.function(jit_compile=False)
    def evaluate(x: Any, y: Any) -> Any:
        return losses(model(x, training=False), y)

    return train, evaluate


def _jax(
    model: keras.Model, optimizer: keras.Optimizer, losses: Losses
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import jax

    def total(trainable: Any, other: Any, x: Any, y: Any) -> Any:
        outputs, other = model.stateless_call(trainable, other, x, training=True)
        values = losses(outputs, y)
        return sum(values.values()), (values, other)

    gradient = jax.value_and_grad(total, has_aux=True)

    @jax.jit
    def update(trainable: Any, other: Any, slots: Any, x: Any, y: Any) -> Any:
        (_, (values, other)), gradients = gradient(trainable, other, x, y)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return values, (trainable, other, slots)

    @jax.jit
    def look(trainable: Any, other: Any, x: Any, y: Any) -> Any:
        return losses(model.stateless_call(trainable, other, x, training=False)[0], y)

    def variables() -> tuple[list[Any], list[Any], list[Any]]:
        return model.trainable_variables, model.non_trainable_variables, optimizer.variables

    def train(x: Any, y: Any) -> Any:
        groups = variables()
        values, changed = update(*([v.value for v in group] for group in groups), x, y)
        for group, new in zip(groups, changed, strict=True):
            for variable, value in zip(group, new, strict=True):
                variable.assign(value)
        return values

    def evaluate(x: Any, y: Any) -> Any:
        trainable, other, _ = variables()
        return look([v.value for v in trainable], [v.value for v in other], x, y)

    return train, evaluate
