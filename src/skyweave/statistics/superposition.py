"""How far two sets of curves, of Minkowski functionals above all, lie over each other."""

import numpy as np

from skyweave.errors import UserError
from skyweave.statistics.minkowski import THRESHOLDS


def superposition(
    a_curves: np.ndarray, b_curves: np.ndarray, thresholds: np.ndarray = THRESHOLDS
) -> np.ndarray:
    """Overlap of two sets of curves (n, ..., k): shared over joint area of their bands, (...).

    A set's band is its mean ± its standard deviation over the first axis, at each threshold; 1 for
    equal bands, 0 for bands that never meet (Krachmalnicoff & Puglisi 2021, arXiv 2011.02221).
    """
    return _overlap(_band(a_curves), _band(b_curves), thresholds)


def superposition_error(
    a_curves: np.ndarray,
    b_curves: np.ndarray,
    rng: np.random.Generator,
    thresholds: np.ndarray = THRESHOLDS,
    *,
    draws: int = 200,
) -> np.ndarray:
    """Standard error (...) of `superposition` by bootstrap: both sets are drawn anew, with return.

    Raises `UserError` below four curves in a set, and below two draws.
    """
    if min(len(a_curves), len(b_curves)) < 4:
        raise UserError("curves", "at least four in each set", [len(a_curves), len(b_curves)])
    if draws < 2:
        raise UserError("draws", "at least two", draws)
    a_band, b_band = (_drawn_band(curves, rng, draws) for curves in (a_curves, b_curves))
    return _overlap(a_band, b_band, thresholds).std(axis=0, ddof=1)


def mean_distance(
    a_curves: np.ndarray, b_curves: np.ndarray, thresholds: np.ndarray = THRESHOLDS
) -> np.ndarray:
    """Distance of the means of two sets of curves (n, ..., k) in units of their spread, (...).

    The integral over the threshold of |mean_a - mean_b|, over that of the mean of the two standard
    deviations. Two sets of n and m curves of one Gaussian law reach about
    sqrt(2 (1/n + 1/m) / pi) on average.
    """
    apart = np.abs(a_curves.mean(axis=0) - b_curves.mean(axis=0))
    spread = (a_curves.std(axis=0) + b_curves.std(axis=0)) / 2
    apart, spread = (np.trapezoid(length, thresholds, axis=-1) for length in (apart, spread))
    with np.errstate(invalid="ignore", divide="ignore"):
        return apart / spread


def superposition_ceiling(
    curves: np.ndarray,
    rng: np.random.Generator,
    thresholds: np.ndarray = THRESHOLDS,
    *,
    splits: int = 200,
) -> np.ndarray:
    """Overlap that two halves of the same set reach, for random halvings: (splits, ...).

    An overlap of two sets means "different" only below this: finite sets of one law do not reach 1.
    Raises `UserError` below four curves.
    """
    if len(curves) < 4:
        raise UserError("curves", "at least four", len(curves))
    half = len(curves) // 2
    orders = (rng.permutation(len(curves)) for _ in range(splits))
    return np.stack(
        [
            superposition(curves[order[:half]], curves[order[half : 2 * half]], thresholds)
            for order in orders
        ]
    )


def _band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, spread = curves.mean(axis=0), curves.std(axis=0)
    return mean - spread, mean + spread


def _drawn_band(
    curves: np.ndarray, rng: np.random.Generator, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bands (draws, ..., k) of sets drawn with return from the curves (n, ..., k)."""
    count = len(curves)
    shares = rng.multinomial(count, np.full(count, 1 / count), draws) / count
    # Around their mean, or the variance would be lost in the rounding of the squares.
    centre = curves.mean(axis=0)
    apart = (curves - centre).reshape(count, -1)
    mean = shares @ apart
    spread = np.sqrt(np.maximum(shares @ apart**2 - mean**2, 0))
    mean, spread = (x.reshape(draws, *curves.shape[1:]) for x in (mean, spread))
    return centre + mean - spread, centre + mean + spread


def _overlap(
    a_band: tuple[np.ndarray, np.ndarray],
    b_band: tuple[np.ndarray, np.ndarray],
    thresholds: np.ndarray,
) -> np.ndarray:
    """Shared over joint area (...) of two bands, each its low and its high curves (..., k)."""
    (a_low, a_high), (b_low, b_high) = a_band, b_band
    shared = np.maximum(0, np.minimum(a_high, b_high) - np.maximum(a_low, b_low))
    joint = (a_high - a_low) + (b_high - b_low) - shared
    shared, joint = (np.trapezoid(length, thresholds, axis=-1) for length in (shared, joint))
    with np.errstate(invalid="ignore"):
        return shared / joint
