"""Losses in backend-neutral operations.

Those of outputs are told of each output that has a truth; other truths are not looked at.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import ops

from skyweave.networks.variance import SUFFIX
from skyweave.training.gradients import Seam
from skyweave.training.method import Losses


def mean_squared_errors(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
    """Mean squared error of each output over all its pixels, a float32 scalar tensor each."""
    return {
        name: ops.mean(ops.square(ops.cast(outputs[name], "float32") - target))
        for name, target in targets.items()
        if name in outputs
    }


def gaussian(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
    """`mean_squared_errors`, and the negative log-likelihood of each output's `_log_variance`.

    Half the mean of log v + r²/v over all pixels, of Gaussian residuals r with the predicted
    variances v; a constant is left out. No gradient of it reaches r, so that the means are learned
    from the squared errors alone, and each variance converges to its mean squared residual.
    """
    found = mean_squared_errors(outputs, targets)
    for name, target in targets.items():
        if name not in outputs:
            continue
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
        if name in outputs
    }


def together(*parts: Losses) -> Losses:
    """All losses of several functions; its qualified name is theirs.

    Raises `ValueError` in a call where two of them give the same.
    """

    def losses(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for part in parts:
            more = part(outputs, targets)
            twice = sorted(set(more) & set(found))
            if twice:
                raise ValueError(f"losses: expected each once, found {', '.join(twice)} twice")
            found |= more
        return found

    return named(losses, " + ".join(part.__qualname__ for part in parts))


def named(losses: Losses, name: str, **settings: Any) -> Losses:
    """The function with a qualified name that tells its settings, plain values, too.

    Training states are told apart by it.
    """
    told = f"({json.dumps(settings, sort_keys=True)})" if settings else ""
    losses.__qualname__ = name + told
    return losses


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


def discriminating(kind: str, real: Any, made: Any, labels: Sequence[Any]) -> Any:
    """The discriminator's loss of `Adversarial.loss`, from its logits of real and made examples.

    The mean over both of the cross-entropy with their labels (n,); half the sum of the mean squares
    of logits less labels (Mao et al. 2017, arXiv:1611.04076); the sum of the mean hinges (Miyato et
    al. 2018, arXiv:1802.05957); the mean over both of the cross-entropy of logits less the mean of
    the others' (Jolicoeur-Martineau 2018, arXiv:1807.00734); the difference of the means
    (Arjovsky et al. 2017, arXiv:1701.07875). The last three know no labels.
    """
    if kind == "cross_entropy":
        return (cross_entropy(real, labels[0]) + cross_entropy(made, labels[1])) / 2
    if kind == "least_squares":
        return (_squares(real, labels[0]) + _squares(made, labels[1])) / 2
    if kind == "hinge":
        return ops.mean(ops.relu(1 - real)) + ops.mean(ops.relu(1 + made))
    if kind == "relativistic":
        return telling(real - ops.mean(made), made - ops.mean(real)) / 2
    return ops.mean(made) - ops.mean(real)


def generating(kind: str, made: Any, real: Any = None) -> Any:
    """The generator's loss that belongs to `discriminating`.

    That of its examples called real; without a bound for the hinge; the relativistic one, of the
    two exchanged, alone looks at logits of real examples.
    """
    if kind == "cross_entropy":
        return convincing(made)
    if kind == "least_squares":
        return ops.mean(ops.square(made - 1)) / 2
    if kind == "relativistic":
        return telling(made - ops.mean(real), real - ops.mean(made)) / 2
    return -ops.mean(made)


def answers(kind: str, real: Any, made: Any) -> dict[str, Any]:
    """`right` for the losses of `discriminating`.

    The border is halfway between plain labels; where there is none, the mean of the others.
    """
    if kind == "least_squares":
        return right(real - 0.5, made - 0.5)
    if kind in ("relativistic", "wasserstein"):
        return right(real - ops.mean(made), made - ops.mean(real))
    return right(real, made)


def slope_penalty(at: Seam, critic: Callable[[Any], Any], real: Any, made: Any, share: Any) -> Any:
    """Mean over examples of (slope - 1)² (Gulrajani et al. 2017, arXiv:1704.00028).

    The slope of an example's mean logit, at `share` (n,) of the way from the made maps (n, y, x,
    channels) to the real ones, is the norm of its gradient by all pixels of the maps. To be called
    within a step; `critic` takes maps to logits (n, …) and must not mix examples.
    """
    share = ops.reshape(share, (-1, 1, 1, 1))

    def summed(maps: Any) -> Any:
        logits = ops.cast(critic(maps), "float32")
        return ops.sum(logits) * (logits.shape[0] / math.prod(logits.shape)), None

    _, _, (slope,) = at.gradient(summed, tensors=[made + share * (real - made)])
    # Without the last term the root has no gradient where the slope is 0.
    length = ops.sqrt(ops.sum(ops.square(slope), axis=(1, 2, 3)) + 1e-12)
    return ops.mean(ops.square(length - 1))


def _squares(logits: Any, labels: Any) -> Any:
    labels = ops.reshape(labels, (-1,) + (1,) * (len(logits.shape) - 1))
    return ops.mean(ops.square(logits - labels))
