"""Distances of sets of features, against theory, brute force and scipy's matrix roots."""

from itertools import product

import numpy as np
import pytest
from scipy import linalg

from skyweave.statistics import feature_distances
from skyweave.statistics.feature_distances import fid, kid, nearest, precision_recall


def drawn(seed: int, n: int, k: int, spread: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Gaussian features whose covariance has no symmetry, float32."""
    rng = np.random.default_rng(seed)
    mix = spread * np.random.default_rng(99).standard_normal((k, k))
    return (rng.standard_normal((n, k)) @ mix + shift).astype(np.float32)


def whitened(seed: int, n: int, k: int) -> np.ndarray:
    """Features whose mean is 0 and whose covariance is 1, to rounding."""
    x = np.random.default_rng(seed).standard_normal((n, k))
    x -= x.mean(axis=0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T


# FID


def test_fid_of_gaussians_is_the_analytic_one() -> None:
    """Covariances that commute: sum of squared differences of means and of deviations."""
    rng = np.random.default_rng(0)
    a_std, b_std = rng.uniform(0.5, 2, (2, 6))
    shift = rng.standard_normal(6)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    a = whitened(1, 100, 6) * a_std @ turn
    b = (whitened(2, 80, 6) * b_std + shift) @ turn
    expected = np.sum(shift**2) + np.sum((a_std - b_std) ** 2)
    assert fid(a, b) == pytest.approx(expected, rel=1e-12)
    assert fid(a, a + 1) == pytest.approx(6, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(200, 300), (50, 61)])
def test_fid_is_that_of_a_root_of_the_product(n: int, m: int) -> None:
    """Of covariances that do not commute."""
    a, b = drawn(0, n, 20), drawn(1, m, 20, shift=0.3) * np.linspace(0.5, 2, 20, dtype=np.float32)
    covariances = [np.cov(np.float64(each).T) for each in (a, b)]
    shift = a.mean(axis=0, dtype=float) - b.mean(axis=0, dtype=float)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert fid(a, b) == pytest.approx(expected, rel=1e-9)
    assert fid(b, a) == pytest.approx(expected, rel=1e-9)


def test_fid_of_singular_covariances() -> None:
    """Fewer images than features: in the plane of all images it is the same; 0 from itself."""
    a, b = drawn(0, 7, 5, shift=1.0), drawn(1, 6, 5)
    frame = np.linalg.qr(np.random.default_rng(2).standard_normal((400, 5)))[0]
    wide = [np.float64(each) @ frame.T for each in (a, b)]
    assert fid(*wide) == pytest.approx(fid(a, b), rel=1e-12)
    few = drawn(3, 4, 400)
    assert abs(fid(few, few)) < 1e-9 * np.var(few) * 400
    assert fid(few, few[[0, 0, 0, 0]]) == pytest.approx(
        np.sum((few.mean(axis=0, dtype=float) - few[0]) ** 2)
        + np.var(few, axis=0, ddof=1, dtype=float).sum(),
        rel=1e-12,
    )


# KID


def plain_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared distance, pair by pair."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x @ y) / x.size + 1) ** 3

    n, m = len(a), len(b)
    within = sum(kernel(a[i], a[j]) for i, j in product(range(n), repeat=2) if i != j)
    others = sum(kernel(b[i], b[j]) for i, j in product(range(m), repeat=2) if i != j)
    across = sum(kernel(x, y) for x in a for y in b)
    return within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m)


def test_kid_of_whole_sets_is_that_of_all_pairs() -> None:
    a, b = np.float64(drawn(0, 12, 5)), np.float64(drawn(1, 12, 5, shift=0.5))
    value, error = kid(a, b, subset=12, subsets=3, seed=1)
    assert value == pytest.approx(plain_mmd(a, b), rel=1e-12)
    assert np.isnan(error)


def test_kid_of_a_law_is_the_analytic_one() -> None:
    """One feature from N(0, 1) and N(1, 1): E (xy + 1)³ by the moments of the two."""
    moments = np.array([[1, 0, 1, 0], [1, 1, 2, 4]])
    powers = np.array([1, 3, 3, 1])
    law = (moments[:, None] * moments[None] * powers).sum(axis=-1)
    expected = law[0, 0] + law[1, 1] - 2 * law[0, 1]
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((4000, 1)), rng.standard_normal((4000, 1)) + 1
    value, error = kid(a, b, subset=400, subsets=50, seed=1)
    assert abs(value - expected) < 3 * error
    assert error < 0.1 * expected


def repeated(shift: float, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors of many pairs of sets of one law, and of one shifted by `shift`."""
    found = []
    for number in range(count):
        a, b = np.random.default_rng(number).standard_normal((2, 60, 4))
        found.append(kid(a, b + shift, subset=20, subsets=40, seed=number))
    values, errors = np.array(found).T
    return values, errors


def test_kid_of_one_law_is_zero_on_average() -> None:
    values, errors = repeated(0.0)
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(values.size)
    assert (values < 0).mean() > 0.3
    assert np.sqrt(np.mean(errors**2)) > values.std()


def test_the_error_of_kid_is_the_scatter_of_new_sets() -> None:
    """Much more than the scatter of subsets over the square root of their number."""
    values, errors = repeated(1.0)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(), rel=0.2)


def test_kid_is_drawn_by_the_seed() -> None:
    a, b = drawn(0, 40, 5), drawn(1, 50, 5)
    one = kid(a, b, subset=10, subsets=5, seed=1)
    assert one == kid(a, b, subset=10, subsets=5, seed=1)
    assert one[0] != kid(a, b, subset=10, subsets=5, seed=2)[0]


# Precision, recall, neighbours


def plain_share(a: np.ndarray, b: np.ndarray, neighbours: int) -> float:
    """Share of `a` inside a ball around any of `b`, image by image."""
    inside = 0
    reach = [sorted(np.linalg.norm(b - each, axis=1))[neighbours] for each in b]
    for each in a:
        distances = np.linalg.norm(b - each, axis=1)
        inside += any(d <= r for d, r in zip(distances, reach, strict=True))
    return inside / len(a)


@pytest.mark.parametrize("block", [7, 2048])
@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_are_those_of_balls(neighbours, block, monkeypatch) -> None:
    monkeypatch.setattr(feature_distances, "_BLOCK", block)
    rng = np.random.default_rng(0)
    real, made = rng.standard_normal((40, 3)), rng.standard_normal((50, 3)) * [0.3, 1, 2]
    precision, recall = precision_recall(real, made, neighbours)
    assert precision == plain_share(made, real, neighbours)
    assert recall == plain_share(real, made, neighbours)
    assert 0 < precision < 1
    assert 0 < recall < 1


def test_precision_and_recall_at_their_ends() -> None:
    real = drawn(0, 50, 8)
    assert precision_recall(real, real, 3) == (1, 1)
    assert precision_recall(real, real + 1000, 3) == (0, 0)
    # All made images next to one real one: each looks real, the others are never made.
    line, spot = np.arange(10.0)[:, None], 4 + np.arange(10.0)[:, None] / 1000
    assert precision_recall(line, spot, 3) == (1, 0.1)


@pytest.mark.parametrize("block", [7, 2048])
def test_nearest_is_that_of_all_distances(block: int, monkeypatch) -> None:
    monkeypatch.setattr(feature_distances, "_BLOCK", block)
    made, real = drawn(0, 30, 6), drawn(1, 45, 6, shift=100.0)
    made[4] = real[17]
    distances, indices = nearest(made, real)
    plain = np.linalg.norm(np.float64(made)[:, None] - np.float64(real), axis=2)
    np.testing.assert_array_equal(indices, plain.argmin(axis=1))
    np.testing.assert_allclose(distances, plain.min(axis=1), rtol=1e-12)
    assert (distances[4], indices[4]) == (0, 17)


# What is refused


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda a: fid(a, a[:, 1:]), "as many features"),
        (lambda a: kid(a, a[:, 1:], subset=2, subsets=2, seed=0), "as many features"),
        (lambda a: precision_recall(a, a[:, 1:], 1), "as many features"),
        (lambda a: nearest(a, a[:, 1:]), "as many features"),
        (lambda a: fid(a, a[:1]), r"n at least 2. Received: \(1, 3\)"),
        (lambda a: fid(a, a[0]), r"features \(n, k\)"),
        (lambda a: fid(a, a * np.nan), "finite"),
        (lambda a: kid(a, a, subset=6, subsets=2, seed=0), "2 to 5 images. Received: 6"),
        (lambda a: kid(a, a, subset=1, subsets=2, seed=0), "2 to 5 images. Received: 1"),
        (lambda a: kid(a, a, subset=2, subsets=1, seed=0), "2 subsets or more. Received: 1"),
        (lambda a: precision_recall(a, a, 5), "n at least 6"),
        (lambda a: precision_recall(a, a, 0), "1 neighbour or more"),
        (lambda a: nearest(a, a[:0]), "n at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        call(drawn(0, 5, 3))
