"""Wasserstein distances against what theory gives for shifted and widened laws, and scipy."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wasserstein_distance

from skyweave.errors import UserError
from skyweave.statistics.wasserstein import distances, mean_distance, power_distances


def one(made, real, **options) -> pd.Series:
    """The row of one column."""
    return distances({"a": np.array(made)}, {"a": np.array(real)}, **options).iloc[0]


def gaussian(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


@pytest.mark.parametrize("law", ["normal", "exponential", "standard_cauchy"])
def test_scipy_finds_the_same_distance(law):
    rng = np.random.default_rng(1)
    made, real = getattr(rng, law)(size=300), 1.5 * getattr(rng, law)(size=470)
    expected = wasserstein_distance(made, real)
    assert one(made, real, scale="std").value == pytest.approx(expected / real.std())
    spread = np.abs(real - np.median(real)).mean()
    assert one(made, real).value == pytest.approx(expected / spread)


def test_a_shift_is_its_own_distance():
    """Of the same values: exactly; the scale of Gaussian values is sigma, or sqrt(2/pi) of it."""
    real = 3 * gaussian(2, 40_000)
    assert one(real + 0.6, real, scale="std").value == pytest.approx(0.6 / real.std(), rel=1e-9)
    assert one(real + 0.6, real).value == pytest.approx(0.2 * np.sqrt(np.pi / 2), rel=0.02)
    assert one(real, real).value == 0


def test_a_wider_gaussian():
    """E|x| times the difference of the standard deviations; within 4 errors."""
    found = one(1.3 * gaussian(3, 30_000), gaussian(4, 30_000), scale="std")
    assert abs(found.value - 0.3 * np.sqrt(2 / np.pi)) < 4 * found.error
    assert found.error < 0.01


def test_the_best_single_value_is_at_one():
    real = np.random.default_rng(5).exponential(size=4001)
    assert one(np.full(10, np.median(real)), real).value == pytest.approx(1)
    assert one(np.full(10, np.median(real) + 0.1), real).value > 1


def test_the_default_scale_hardly_sees_a_wild_value():
    """One in a thousand real values a hundred deviations away makes `std` three times as large."""
    made, real = gaussian(6, 1000) + 0.5, gaussian(7, 1000)
    wild = np.where(np.arange(1000) == 0, 100.0, real)
    shares = [
        one(made, wild, scale=scale).value / one(made, real, scale=scale).value
        for scale in ("deviation", "std")
    ]
    assert shares[1] < 0.5
    assert 0.8 < shares[0] < 1.25


def test_the_error_is_the_scatter_over_sets():
    """Of shifted Gaussians: within a fifth, as 200 pairs and 200 resamples know it."""
    count, pairs = 300, 200
    found = [
        one(gaussian(10 + 2 * k, count) + 1, gaussian(11 + 2 * k, count), scale="std", seed=k)
        for k in range(pairs)
    ]
    # The scale is held in the error, so the scatter is that of the distances themselves.
    scatter = np.std([row.value * gaussian(11 + 2 * k, count).std() for k, row in enumerate(found)])
    error = np.mean([row.error for row in found])
    assert error == pytest.approx(scatter, rel=0.2)
    assert error == pytest.approx(np.sqrt(2 / count), rel=0.1)


def test_the_floor_is_what_sets_of_one_law_come_to():
    """Theory for large sets: sqrt(2/pi (1/n + 1/m)) times the integral of sqrt(F (1 - F))."""
    from scipy.stats import norm

    n, m = 400, 900
    x = np.linspace(-9, 9, 4001)
    width = np.trapezoid(np.sqrt(norm.cdf(x) * norm.sf(x)), x)
    theory = np.sqrt(2 / np.pi * (1 / n + 1 / m)) * width
    found = pd.DataFrame(
        one(gaussian(1000 + k, n), gaussian(2000 + k, m), scale="std") for k in range(60)
    )
    for column in ("floor", "value"):
        mean, error = found[column].mean(), found[column].std() / np.sqrt(len(found))
        assert abs(mean - theory) < 4 * error, column
        assert error < 0.1 * theory


def test_rows_that_are_lost():
    made, real = gaussian(8, 100), gaussian(9, 50)
    made[:25], real[0] = np.nan, np.inf
    found = one(made, real)
    assert (found.lost_made, found.lost_real, found.n) == (0.25, pytest.approx(0.02), 49)
    kept = one(made[25:], real[1:])
    assert found[["value", "error", "floor"]].equals(kept[["value", "error", "floor"]])
    none = one(np.full(9, np.nan), real)
    assert np.isnan(none.value)
    assert (none.n, none.lost_made) == (0, 1)


def test_a_constant_column():
    assert one([1.0, 1.0], [1.0, 1.0, 1.0]).value == 0
    assert one([1.0, 2.0], [1.0, 1.0, 1.0]).value == np.inf


def test_columns_neither_know_each_other_nor_their_order():
    made = pd.DataFrame({name: gaussian(k, 80) for k, name in enumerate("abc")})
    real = pd.DataFrame({name: gaussian(k + 9, 60) for k, name in enumerate("abc")})
    table = distances(made, real).set_index("statistic")
    assert list(table.columns) == ["value", "error", "floor", "n", "lost_made", "lost_real"]
    turned = distances(made[["c", "a"]], real[["c", "a"]]).set_index("statistic")
    pd.testing.assert_frame_equal(turned, table.loc[["c", "a"]])
    other = distances(made, real, seed=1).set_index("statistic")
    assert (other.value == table.value).all()
    assert (other.error != table.error).all()


def test_power_bin_by_bin():
    """Twice the power is log10(2) in every bin; power of zero is lost."""
    real = np.exp(gaussian(20, 300).reshape(100, 3))
    made = 2 * real
    made[0, 1] = 0
    wave_numbers = np.array([0.1, 0.2, 0.3])
    table = power_distances(made, real, wave_numbers, scale="std")
    assert table.statistic.eq("power").all()
    assert table.wave_number.tolist() == [0.1, 0.2, 0.3]
    np.testing.assert_allclose(table.lost_made, [0, 0.01, 0])
    wanted = np.log10(2) / np.log10(real).std(axis=0)
    np.testing.assert_allclose(table.value[[0, 2]], wanted[[0, 2]])
    with pytest.raises(UserError, match="as many bins everywhere"):
        power_distances(made, real, wave_numbers[:2])


def test_power_counts_as_one_statistic():
    rows = pd.DataFrame({"statistic": ["a", "power", "b", "power"], "value": [1.0, 2, 3, 8]})
    assert mean_distance(rows) == pytest.approx((1 + 3 + 5) / 3)
    rows.loc[0, "value"] = np.nan
    assert np.isnan(mean_distance(rows))


def test_what_does_not_fit():
    with pytest.raises(UserError, match="b: expected a column of the made images"):
        distances({"a": np.ones(3)}, {"a": np.ones(3), "b": np.ones(3)})
    with pytest.raises(UserError, match="resamples: expected 2"):
        one([1.0], [1.0], resamples=1)


def test_ten_columns_of_5000_rows_are_quick():
    made, real = ({str(k): gaussian(k + at, 5000) for k in range(10)} for at in (0, 10))
    start = time.process_time()
    distances(made, real)
    assert time.process_time() - start < 2
