"""Minkowski functionals of maps: area, boundary and Euler characteristic of {map >= threshold}.

Conventions (Schmalzing & Gorski 1998, MNRAS 297, 355): v0 is the area above the threshold, v1 a
quarter of the boundary's length, v2 the boundary's total curvature over 2 pi (the Euler
characteristic), each per area: a disc of area a and circumference c on an area A has a/A, c/4A and
1/A.

The map is read on the cells between 2 x 2 neighbouring pixel centres. In a cell the boundary is
that of marching squares with linear interpolation along the sides; where two diagonal corners lie
above and two below, the upper ones are joined when the mean of the four is above. Each cell
counts a quarter of its corners and half of its sides, so that the mean over cells is unbiased for
a homogeneous field whatever the patch's shape: what the edge of the patch cuts in half counts
half, and the patch's own edge is no boundary.
"""

from math import hypot, pi, sqrt

import numpy as np
import pandas as pd
from numba import njit
from scipy.special import erfc, ndtri
from scipy.stats import qmc

from skyweave.errors import UserError

#: Thresholds of maps scaled to [-1, 1].
THRESHOLDS = np.linspace(-1.0, 1.0, 32)

STATISTICS = ("v0", "v1", "v2")

#: Corners nearer than this share of the largest threshold: their cells' lengths change so fast that
#: differences of sums would round.
_NEAREST = 1e-6


def functionals(
    maps: np.ndarray,
    thresholds: np.ndarray = THRESHOLDS,
    masks: np.ndarray | None = None,
    *,
    pixel: float = 1.0,
) -> np.ndarray:
    """Minkowski functionals of maps (..., y, x) at rising `thresholds` (k,): (..., 3, k) float64.

    `masks` (broadcast to the maps) keeps the cells whose four corners are not zero in it; what
    lies outside may be anything. `pixel` is the side of a pixel: v1 is in 1/pixel and v2 in
    1/pixel². Raises `UserError` for thresholds that do not rise, a value inside the mask that is
    not finite, or a mask without a whole cell.
    """
    maps = np.asarray(maps)
    thresholds = np.asarray(thresholds, float)
    if thresholds.ndim != 1 or not (np.diff(thresholds) > 0).all():
        raise UserError("thresholds", "rising numbers", thresholds.tolist())
    keep = _keep(maps, masks)
    flat = maps.reshape(-1, *maps.shape[-2:])
    out = np.empty((len(flat), 3, len(thresholds)))
    for index, (values, mask) in enumerate(zip(flat, keep.reshape(flat.shape), strict=True)):
        image = values.astype(float)
        if not np.isfinite(image[mask]).all():
            raise UserError(f"map {index}", "finite values inside the mask", "others")
        cells = _sum_cells(image, _ranks(image, thresholds), mask, thresholds, out[index])
        if cells == 0:
            raise UserError(f"mask {index}", "at least 2 x 2 pixels side by side", "none")
        out[index] /= cells
    out[:, 1] /= 4 * pixel
    out[:, 2] /= pixel**2
    return out.reshape(*maps.shape[:-2], 3, len(thresholds))


def scaled(maps: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """Maps (..., y, x), each scaled to [-1, 1] by its extremes inside its mask; 0 outside.

    Raises `UserError` for a map that is constant or not finite inside its mask.
    """
    maps = np.asarray(maps, float)
    keep = _keep(maps, masks)
    low = np.min(maps, axis=(-2, -1), where=keep, initial=np.inf, keepdims=True)
    high = np.max(maps, axis=(-2, -1), where=keep, initial=-np.inf, keepdims=True)
    if not (np.isfinite(high - low) & (high > low)).all():
        raise UserError("map", "finite values inside the mask, not all the same", "others")
    return np.where(keep, 2 * (np.where(keep, maps, low) - low) / (high - low) - 1, 0.0)


def gaussian_theory(
    thresholds: np.ndarray, sigma0: float | np.ndarray, sigma1: float | np.ndarray
) -> np.ndarray:
    """Mean functionals (3, k) of a homogeneous isotropic Gaussian field of mean zero.

    `sigma0` is the field's rms and `sigma1` that of its gradient, sigma1² = sum of ell² C_ell over
    modes (Tomita 1986; Schmalzing & Gorski 1998, eq. 31). The three may be arrays that broadcast.
    """
    nu = np.asarray(thresholds, float) / sigma0
    tau = (sigma1 / sigma0) ** 2 / 2
    bell = np.exp(-(nu**2) / 2)
    return np.stack(
        [erfc(nu / sqrt(2)) / 2, np.sqrt(tau) / 8 * bell, tau / (2 * pi) ** 1.5 * nu * bell]
    )


def gaussian_cells(
    thresholds: np.ndarray, correlation: np.ndarray, *, pixel: float = 1.0, points: int = 2**13
) -> np.ndarray:
    """Mean functionals (3, k) of an isotropic Gaussian field as the cells of a map see it.

    `correlation` (3,) is the field's correlation function at separations 0, a cell's side and its
    diagonal. What differs from `gaussian_theory` is the bias of the pixels. A cell's mean is
    independent of how its corners differ; the integral over the mean is done by quadrature, that
    over the differences on `points` (a power of two) Sobol points; the area is exact.
    """
    thresholds = np.asarray(thresholds, float)
    zero, side, diagonal = correlation
    # Eigenvalues and eigenvectors of the covariance of the corners, which is circulant.
    saddle, slope = zero - 2 * side + diagonal, zero - diagonal
    modes = np.array(
        [[0.5, -0.5, 0.5, -0.5], [0.5**0.5, 0, -(0.5**0.5), 0], [0, 0.5**0.5, 0, -(0.5**0.5)]]
    )
    scales = np.sqrt(np.maximum([saddle, slope, slope], 0))
    sobol = np.clip(qmc.Sobol(3, rng=0).random(points), 1e-12, 1 - 1e-12)
    corners = (ndtri(sobol) * scales) @ modes
    # A field and its negative are as likely: both signs keep that symmetry exact.
    corners = np.concatenate([corners, -corners])
    spread = sqrt((zero + 2 * side + diagonal) / 4)
    out = np.empty((3, len(thresholds)))
    out[0] = erfc(thresholds / sqrt(2 * zero)) / 2
    out[1:] = _mean_cells(corners, thresholds, spread, *np.polynomial.legendre.leggauss(4))
    out[1] /= 4 * pixel
    out[2] /= pixel**2
    return out


def minkowski_table(
    curves: np.ndarray, thresholds: np.ndarray, *, dataset: str, split: str, field: str
) -> pd.DataFrame:
    """Long-form means of curves (n, 3, k) over n maps.

    Columns dataset, split, field, statistic (v0, v1, v2), threshold, value, error (of the mean),
    std (of one map), n.
    """
    count = len(curves)
    spread = curves.std(axis=0, ddof=1) if count > 1 else np.full(curves.shape[1:], np.nan)
    return pd.DataFrame(
        {
            "dataset": dataset,
            "split": split,
            "field": field,
            "statistic": np.repeat(STATISTICS, len(thresholds)),
            "threshold": np.tile(thresholds, 3),
            "value": curves.mean(axis=0).ravel(),
            "error": spread.ravel() / np.sqrt(count),
            "std": spread.ravel(),
            "n": count,
        }
    )


def _keep(maps: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    keep = np.ones((), bool) if masks is None else np.asarray(masks) != 0
    return np.ascontiguousarray(np.broadcast_to(keep, maps.shape))


@njit(cache=True, error_model="numpy")
def _ranks(image, thresholds):
    """Number of thresholds at or below each pixel of an image (y, x), int32; 0 for what is NaN."""
    steps = len(thresholds)
    low, top = thresholds[0], thresholds[-1]
    # Where to begin, for bins of values: at the thresholds below the bin before.
    bins = 4 * steps
    scale = bins / (top - low)
    begin = np.zeros(bins + 2, np.int32)
    for one in range(1, bins + 2):
        begin[one] = np.searchsorted(thresholds, low + (one - 1) / scale)
    ranks = np.empty(image.shape, np.int32)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            value, rank = image[y, x], 0
            if value >= top:
                rank = steps
            elif value >= low:
                rank = begin[int((value - low) * scale)]
                while thresholds[rank] <= value:
                    rank += 1
            ranks[y, x] = rank
    return ranks


@njit(cache=True, error_model="numpy")
def _sum_cells(image, rank, mask, thresholds, out):
    """Sum corners above, boundary length and Euler characteristic into `out` (3, k).

    A cell's shape changes where a threshold passes one of its corners. Between two of them the
    Euler characteristic is constant and the length of a cut corner linear in the threshold, so
    these are noted where they begin and where they end; the rest is summed step by step.
    """
    height, width = image.shape
    steps = len(thresholds)
    corners = np.zeros(steps + 1)
    eulers, constants, slopes = np.zeros(steps + 1), np.zeros(steps + 1), np.zeros(steps + 1)
    out[:] = 0.0
    lengths = out[1]
    nearest = _NEAREST * max(abs(thresholds[0]), abs(thresholds[-1]))
    cells = 0
    for y in range(height - 1):
        for x in range(width - 1):
            if not (mask[y, x] and mask[y, x + 1] and mask[y + 1, x] and mask[y + 1, x + 1]):
                continue
            cells += 1
            i, j, k, m = rank[y, x], rank[y, x + 1], rank[y + 1, x + 1], rank[y + 1, x]
            corners[i] += 0.25
            corners[j] += 0.25
            corners[k] += 0.25
            corners[m] += 0.25
            if i == j == k == m:
                continue
            a, b, c, d = image[y, x], image[y, x + 1], image[y + 1, x + 1], image[y + 1, x]
            if min(abs(a - b), abs(b - c), abs(c - d), abs(d - a)) < nearest:
                for step in range(min(i, j, k, m), max(i, j, k, m)):
                    length, euler = _cell(a, b, c, d, thresholds[step])
                    lengths[step] += length
                    out[2, step] += euler
                continue
            # Turned and mirrored so that d is the lowest corner and a at least as high as c.
            if min(a, b) < min(c, d):
                a, b, c, d, i, j, k, m = c, d, a, b, k, m, i, j
            if c < d:
                a, b, c, d, i, j, k, m = d, a, b, c, m, i, j, k
            if a < c:
                a, c, i, k = c, a, k, i
            # Thresholds below all but the lowest corner, then between two and two, then below one.
            first, last = min(j, k), i if b >= a else max(j, k)
            _add(d, a, c, m, first, -0.25, constants, slopes, eulers)
            if b < c:
                # The two above, a and c, are opposite.
                for step in range(first, last):
                    length, euler = _cell(a, b, c, d, thresholds[step])
                    lengths[step] += length
                    out[2, step] += euler
            else:
                one, other = 1 / (b - c), 1 / (a - d)
                for step in range(first, last):
                    along = (thresholds[step] - c) * one - (thresholds[step] - d) * other
                    lengths[step] += sqrt(1 + along * along)
            # By choice of numbers: which of the two is the highest cannot be guessed.
            top, near, far = (b, a, c) if b >= a else (a, b, d)
            _add(top, near, far, last, max(i, j), 0.25, constants, slopes, eulers)
    above, euler, constant, slope = 0.0, 0.0, 0.0, 0.0
    for step in range(steps - 1, -1, -1):
        above += corners[step + 1]
        out[0, step] = above
    for step in range(steps):
        euler += eulers[step]
        constant += constants[step]
        slope += slopes[step]
        out[1, step] += constant + slope * thresholds[step]
        out[2, step] += euler
    return cells


@njit(inline="always", error_model="numpy")
def _add(corner, one, other, begin, end, euler, constants, slopes, eulers):
    """Note a corner that is cut off at steps `begin` to `end`, given its two neighbours.

    All cells take the same way through it, which processors guess; a test for nothing to note
    costs more than noting it twice.
    """
    u, v = one - corner, other - corner
    slope = sqrt(u * u + v * v) / abs(u * v)
    slope = 0.0 if begin == end else slope if euler < 0 else -slope
    eulers[begin] += euler
    eulers[end] -= euler
    slopes[begin] += slope
    slopes[end] -= slope
    constants[begin] -= slope * corner
    constants[end] += slope * corner


@njit(cache=True)
def _mean_cells(corners, thresholds, spread, nodes, weights):
    """Mean length and Euler characteristic (2, k) of cells: corners (n, 4) of mean zero, to which a
    Gaussian number of rms `spread` is added."""
    out = np.zeros((2, len(thresholds)))
    for row in range(len(corners)):
        a, b, c, d = corners[row]
        # Between the corners and the mean of a saddle, zero, the cell's shape does not change.
        edges = np.sort(np.array([a, b, c, d, 0.0]))
        for part in range(4):
            left, right = edges[part], edges[part + 1]
            for node, weight in zip(nodes, weights):  # noqa: B905 numba knows no `strict`
                level = (left + right + (right - left) * node) / 2
                length, euler = _cell(a, b, c, d, level)
                for step in range(len(thresholds)):
                    density = np.exp(-(((thresholds[step] - level) / spread) ** 2) / 2)
                    share = density * weight * (right - left) / 2
                    out[0, step] += share * length
                    out[1, step] += share * euler
    return out / (len(corners) * spread * sqrt(2 * pi))


@njit(cache=True)
def _cell(a, b, c, d, t):
    """Boundary length (pixels) and share of the Euler characteristic in a cell.

    Corners a, b, c, d go round the cell. The share is corners/4 - sides/2 + face of the set's
    skeleton: 1/4 for one corner above, -1/4 for three, ±1/2 for a saddle apart or joined.
    """
    case = (a >= t) + 2 * (b >= t) + 4 * (c >= t) + 8 * (d >= t)
    if case in (0, 15):
        return 0.0, 0.0
    if case in (1, 14):
        return _cut(a, b, d, t), 0.25 if case == 1 else -0.25
    if case in (2, 13):
        return _cut(b, a, c, t), 0.25 if case == 2 else -0.25
    if case in (4, 11):
        return _cut(c, b, d, t), 0.25 if case == 4 else -0.25
    if case in (8, 7):
        return _cut(d, a, c, t), 0.25 if case == 8 else -0.25
    if case in (3, 12):
        return hypot(1.0, (t - b) / (c - b) - (t - a) / (d - a)), 0.0
    if case in (6, 9):
        return hypot(1.0, (t - a) / (b - a) - (t - d) / (c - d)), 0.0
    joined = a + b + c + d >= 4 * t
    # The boundary cuts off the corners below where the upper ones are joined, else the upper ones.
    if (case == 10) == joined:
        length = _cut(a, b, d, t) + _cut(c, b, d, t)
    else:
        length = _cut(b, a, c, t) + _cut(d, a, c, t)
    return length, -0.5 if joined else 0.5


@njit(cache=True)
def _cut(corner, one, other, t):
    """Length of the boundary that cuts off a corner, given its two neighbours."""
    return hypot((t - corner) / (one - corner), (t - corner) / (other - corner))
