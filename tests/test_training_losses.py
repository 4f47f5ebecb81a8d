"""Losses against NumPy's, and where they saturate."""

import numpy as np
import pytest

from skyweave.training import losses


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


def test_a_sure_discriminator_leaves_the_generator_a_gradient():
    """Logits of −100: the loss is 100, not infinite."""
    sure = np.full((4, 1), -100.0, np.float32)
    assert float(losses.convincing(sure)) == pytest.approx(100)
    assert float(losses.telling(-sure, sure)) == pytest.approx(0)
