"""Losses in backend-neutral operations."""

from collections.abc import Mapping
from typing import Any

from keras import ops

from skyweave.networks.variance import SUFFIX


def mean_squared_errors(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
    """Mean squared error of each output over all its pixels, a float32 scalar tensor each."""
    return {
        name: ops.mean(ops.square(ops.cast(outputs[name], "float32") - target))
        for name, target in targets.items()
    }


def gaussian(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
    """`mean_squared_errors`, and the negative log-likelihood of each output's `_log_variance`.

    Half the mean of log v + r²/v over all pixels, of Gaussian residuals r with the predicted
    variances v; a constant is left out. No gradient of it reaches r, so that the means are learned
    from the squared errors alone, and each variance converges to its mean squared residual.
    """
    found = mean_squared_errors(outputs, targets)
    for name, target in targets.items():
        logarithm = ops.cast(outputs[name + SUFFIX], "float32")
        mean = ops.stop_gradient(ops.cast(outputs[name], "float32"))
        excess = ops.square(mean - target) * ops.exp(-logarithm)
        found[name + SUFFIX] = 0.5 * ops.mean(logarithm + excess)
    return found


def mean_absolute_errors(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
    """Mean absolute error of each output over all its pixels, a float32 scalar tensor each."""
    return {
        name: ops.mean(ops.abs(ops.cast(outputs[name], "float32") - target))
        for name, target in targets.items()
    }


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Mean cross-entropy of logits (n, …) with the labels (n,) of their examples, 1 is real."""
    labels = ops.reshape(labels, (-1,) + (1,) * (len(logits.shape) - 1))
    return ops.mean(ops.softplus(logits) - labels * logits)


def convincing(made: Any) -> Any:
    """The generator's loss, from logits of its examples (Goodfellow et al. 2014)."""
    return ops.mean(ops.softplus(-made))


def telling(real: Any, made: Any) -> Any:
    """The discriminator's loss, from its logits of real and of made examples."""
    return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(made))


def right(real: Any, made: Any) -> dict[str, Any]:
    """Shares of right answers: logits above 0 are said to be real."""
    shares = {"right_on_real": real > 0, "right_on_made": made < 0}
    return {name: ops.mean(ops.cast(answers, "float32")) for name, answers in shares.items()}
