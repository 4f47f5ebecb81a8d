"""How far two sets of curves lie over each other: known bands, theory, and sets drawn anew."""

import numpy as np
import pytest

from skyweave.errors import UserError
from skyweave.seeds import generator
from skyweave.statistics.superposition import mean_distance, superposition, superposition_error


def test_superposition_of_known_bands():
    spread = np.array([-1.0, 1.0])[:, None, None]
    band = lambda middle: spread + np.full((2, 3, 32), middle)  # noqa: E731
    np.testing.assert_allclose(superposition(band(0.0), band(0.0)), np.ones(3))
    np.testing.assert_allclose(superposition(band(0.0), band(1.0)), np.full(3, 1 / 3))
    np.testing.assert_allclose(superposition(band(0.0), band(5.0)), np.zeros(3))


def gaussian_curves(name, count, middle):
    """Sets of curves that are constant in the threshold, (count, 400, 4): 400 trials at once."""
    numbers = generator(8, name).standard_normal((count, 400, 1)) + middle
    return np.repeat(numbers, 4, axis=2)


LEVELS = np.linspace(-1.0, 1.0, 4)


def test_error_of_a_superposition_is_its_scatter_and_that_of_theory():
    """Constant curves of width 1, their means D apart, overlap by (S - D) / (S + D), S = s_a + s_b.

    With D = 1 and S = 2 its variance is (16 var D + 4 var S) / 81, to leading order in 1 / n, where
    var D = 1/n + 1/m and var S is half of that.
    """
    a, b = gaussian_curves("a", 100, 0.0), gaussian_curves("b", 200, 1.0)
    error = superposition_error(a, b, generator(8, "bootstrap"), LEVELS, draws=300)
    assert error.shape == (400,)
    theory = np.sqrt((16 + 2) / 81 * (1 / 100 + 1 / 200))
    rms = np.sqrt(np.mean(error**2))
    # What is left of order 1/n.
    assert rms == pytest.approx(theory, rel=0.03)
    # A scatter of 400 numbers is known to 3.5 %.
    assert superposition(a, b, LEVELS).std(ddof=1) == pytest.approx(theory, rel=0.1)


def test_error_of_a_superposition_is_that_of_sets_drawn_one_by_one():
    a, b = gaussian_curves("a", 5, 0.0)[:, :3], gaussian_curves("b", 7, 1.0)[:, :3]
    rng = generator(8, "plain")
    counts = [rng.multinomial(n, np.full(n, 1 / n), 20) for n in (5, 7)]
    plain = [
        superposition(np.repeat(a, i, axis=0), np.repeat(b, j, axis=0), LEVELS)
        for i, j in zip(*counts, strict=True)
    ]
    found = superposition_error(a, b, generator(8, "plain"), LEVELS, draws=20)
    np.testing.assert_allclose(found, np.std(plain, axis=0, ddof=1))


def test_curves_of_many_shapes_have_errors_of_their_own():
    a = gaussian_curves("shape", 30, 1e6).reshape(30, 20, 20, 4)
    b = a[:12] + 0.5
    rng = generator(8, "shapes")
    error = superposition_error(a, b, rng, LEVELS, draws=50)
    assert error.shape == superposition(a, b, LEVELS).shape == (20, 20)
    # The same draws, whatever else is there and wherever the origin lies.
    again = superposition_error(
        a[:, 3:4] - 1e6, b[:, 3:4] - 1e6, generator(8, "shapes"), LEVELS, draws=50
    )
    np.testing.assert_allclose(error[3:4], again, rtol=1e-6)
    assert (superposition_error(a, b + 100, rng, LEVELS) == 0).all()


def test_too_few_curves_have_no_error():
    few, rng = np.ones((3, 3, 32)), generator(8, "few")
    with pytest.raises(UserError, match=r"at least four in each set, found \[3, 4\]"):
        superposition_error(few, np.ones((4, 3, 32)), rng)
    with pytest.raises(UserError, match="draws: expected at least two, found 1"):
        superposition_error(np.ones((4, 3, 32)), np.ones((4, 3, 32)), rng, draws=1)


def test_distance_of_means_of_known_bands():
    spread = np.array([-1.0, 1.0])[:, None, None]
    band = lambda middle, width: width * spread + np.full((2, 3, 32), middle)  # noqa: E731
    np.testing.assert_allclose(mean_distance(band(0.0, 1), band(5.0, 3)), np.full(3, 2.5))
    np.testing.assert_allclose(mean_distance(band(5.0, 1), band(0.0, 3)), np.full(3, 2.5))
    # |threshold| integrates to 1 over [-1, 1], the bands' half-width to 2.
    fine = np.linspace(-1, 1, 2001)
    a, b = spread + np.zeros((2, 1, 2001)), spread + fine
    np.testing.assert_allclose(mean_distance(a, b, fine), 0.5, rtol=1e-6)


def test_distance_of_means_of_one_law_is_that_of_chance():
    a, b = gaussian_curves("a", 100, 0.0), gaussian_curves("b", 200, 0.0)
    found = mean_distance(a, b, LEVELS)
    chance = np.sqrt(2 * (1 / 100 + 1 / 200) / np.pi)
    # Half-normal numbers scatter by sqrt(pi / 2 - 1) of their mean.
    assert abs(found.mean() / chance - 1) < 3 * np.sqrt((np.pi / 2 - 1) / 400)
    assert found.std(ddof=1) == pytest.approx(chance * np.sqrt(np.pi / 2 - 1), rel=0.1)
