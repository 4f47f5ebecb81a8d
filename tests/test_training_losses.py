"""Losses against NumPy's, and where they saturate."""

from typing import get_args

import numpy as np
import pytest
from scipy import stats

from skyweave.config.runs import Adversarial
from skyweave.training import losses

KEY = "a_log_variance"


def test_errors_are_means_for_each_output():
    rng = np.random.default_rng(0)
    outputs, targets = (
        {name: rng.standard_normal((3, 4, 4, 1)).astype(np.float32) for name in "ab"}
        for _ in range(2)
    )
    squared, absolute = (
        function(outputs, targets)
        for function in (losses.mean_squared_errors, losses.mean_absolute_errors)
    )
    for name in "ab":
        difference = np.float64(outputs[name]) - targets[name]
        assert float(squared[name]) == pytest.approx((difference**2).mean())
        assert float(absolute[name]) == pytest.approx(np.abs(difference).mean())


def test_gaussian_loss_is_the_likelihood_beside_the_squared_errors():
    """Up to the constant log(2 pi)/2, by SciPy's normal distribution."""
    rng = np.random.default_rng(0)
    targets = {name: rng.standard_normal((3, 4, 4, 1)).astype(np.float32) for name in "ab"}
    outputs = {
        name: rng.standard_normal((3, 4, 4, 1)).astype(np.float32)
        for name in ("a", "b", "a_log_variance", "b_log_variance")
    }
    found = losses.gaussian(outputs, targets)
    assert list(found) == ["a", "b", "a_log_variance", "b_log_variance"]
    for name, squared in losses.mean_squared_errors(outputs, targets).items():
        assert float(found[name]) == float(squared)
        deviation = np.exp(outputs[f"{name}_log_variance"] / 2)
        logarithms = stats.norm(outputs[name], deviation).logpdf(targets[name])
        expected = -logarithms.mean() - np.log(2 * np.pi) / 2
        assert float(found[f"{name}_log_variance"]) == pytest.approx(expected, rel=1e-5)


def test_gaussian_loss_is_least_at_the_mean_squared_residual():
    rng = np.random.default_rng(0)
    target = (0.3 * rng.standard_normal((3, 4, 4, 1))).astype(np.float32)
    mean = np.zeros_like(target)

    def loss(variance):
        logarithm = np.full_like(target, np.log(variance))
        return float(losses.gaussian({"a": mean, "a_log_variance": logarithm}, {"a": target})[KEY])

    least = float((target**2).mean())
    assert loss(least) == pytest.approx(0.5 * (1 + np.log(least)), rel=1e-5)
    assert loss(least) < min(loss(0.9 * least), loss(1.1 * least))


@pytest.mark.parametrize("shape", [(5, 1), (5, 2, 2, 1)])
def test_cross_entropy_takes_a_label_for_each_example(shape):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal(shape).astype(np.float32), rng.random(5)
    chance = 1 / (1 + np.exp(-np.float64(logits)))
    told = labels.reshape(-1, *(1,) * (len(shape) - 1))
    expected = -(told * np.log(chance) + (1 - told) * np.log(1 - chance)).mean()
    found = losses.cross_entropy(logits, labels.astype(np.float32))
    assert float(found) == pytest.approx(expected)


def test_logistic_losses_are_those_of_numpy():
    on_real, on_made = np.random.default_rng(0).standard_normal((2, 50, 1)).astype(np.float32)
    chance = 1 / (1 + np.exp(-np.float64([on_real, on_made])))
    telling = float(losses.telling(on_real, on_made))
    assert telling == pytest.approx(-np.log(chance[0]).mean() - np.log(1 - chance[1]).mean())
    assert float(losses.convincing(on_made)) == pytest.approx(-np.log(chance[1]).mean())
    shares = {name: float(share) for name, share in losses.right(on_real, on_made).items()}
    expected = {"right_on_real": (on_real > 0).mean(), "right_on_made": (on_made < 0).mean()}
    assert shares == pytest.approx(expected)


def on_examples():
    """Logits of real and of made examples, patches of them, and labels."""
    rng = np.random.default_rng(0)
    real, made = rng.standard_normal((2, 6, 2, 2, 1)).astype(np.float32)
    return real, made, rng.random((2, 6)).astype(np.float32)


def softplus(x):
    return np.logaddexp(0, np.float64(x))


def test_adversarial_losses_are_those_of_their_papers():
    real, made, labels = on_examples()
    told = labels.reshape(2, 6, 1, 1, 1)
    apart, behind = real - made.mean(), made - real.mean()
    expected = {
        "cross_entropy": (
            (softplus(real) - told[0] * real + softplus(made) - told[1] * made).mean() / 2,
            softplus(-made).mean(),
        ),
        "least_squares": (
            ((real - told[0]) ** 2 + (made - told[1]) ** 2).mean() / 2,
            ((made - 1) ** 2).mean() / 2,
        ),
        "hinge": (
            (np.maximum(0, 1 - real) + np.maximum(0, 1 + made)).mean(),
            -made.mean(),
        ),
        "relativistic": (
            (softplus(-apart) + softplus(behind)).mean() / 2,
            (softplus(apart) + softplus(-behind)).mean() / 2,
        ),
        "wasserstein": (made.mean() - real.mean(), -made.mean()),
    }
    assert set(expected) == set(get_args(Adversarial.model_fields["loss"].annotation))
    for kind, (judge, maker) in expected.items():
        found = losses.discriminating(kind, real, made, labels)
        assert float(found) == pytest.approx(judge, rel=1e-5), kind
        assert float(losses.generating(kind, made, real)) == pytest.approx(maker, rel=1e-5), kind


@pytest.mark.parametrize("kind", get_args(Adversarial.model_fields["loss"].annotation))
def test_who_is_told_apart_is_right(kind):
    """Logits about the border of each loss, where there is one."""
    border = 0.5 if kind == "least_squares" else 0.0
    real, made = (np.full((4, 1), border + way, np.float32) for way in (0.1, -0.1))
    right = {name: float(share) for name, share in losses.answers(kind, real, made).items()}
    assert right == {"right_on_real": 1, "right_on_made": 1}
    wrong = losses.answers(kind, made, real)
    assert {name: float(share) for name, share in wrong.items()} == dict.fromkeys(right, 0)


def test_truths_that_are_no_outputs_are_not_looked_at():
    rng = np.random.default_rng(0)
    names = ("a", "a_log_variance", "b")
    maps = {name: rng.standard_normal((3, 4, 4, 1)).astype(np.float32) for name in names}
    outputs = {name: maps[name] for name in names[:2]}
    for function in (losses.mean_squared_errors, losses.mean_absolute_errors, losses.gaussian):
        found = function(outputs, {"a": 0 * maps["a"], "b": maps["b"]})
        expected = function(outputs, {"a": 0 * maps["a"]})
        assert found.keys() == expected.keys()
        assert all(float(found[name]) == float(expected[name]) for name in expected)


def test_functions_are_joined_under_a_name_that_tells_them():
    maps = {"a": np.ones((1, 2, 2, 1), np.float32)}

    def energy(scale):
        return losses.named(
            lambda outputs, targets: {"energy": scale * outputs["a"].sum()}, "energy", scale=scale
        )

    both = losses.together(losses.mean_squared_errors, energy(2))
    assert both(maps, maps) == {"a": 0, "energy": 8}
    assert both.__qualname__ == 'mean_squared_errors + energy({"scale": 2})'
    names = {
        losses.together(*parts).__qualname__
        for parts in (
            (losses.mean_squared_errors,),
            (losses.mean_absolute_errors, energy(2)),
            (losses.mean_squared_errors, energy(3)),
        )
    }
    assert len(names | {both.__qualname__}) == 4
    with pytest.raises(ValueError, match="losses: expected each once, found energy twice"):
        losses.together(energy(1), energy(2))(maps, maps)


def test_a_sure_discriminator_leaves_the_generator_a_gradient():
    """Logits of −100: the loss is 100, not infinite."""
    sure = np.full((4, 1), -100.0, np.float32)
    assert float(losses.convincing(sure)) == pytest.approx(100)
    assert float(losses.telling(-sure, sure)) == pytest.approx(0)
