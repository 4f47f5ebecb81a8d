"""How far made images are from real ones, by features (n, k) of each image."""

from collections.abc import Iterator

import numpy as np

from skyweave import seeds

#: Images of each set whose distances are held at once.
_BLOCK = 2048


def fid(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet inception distance: of Gaussians with the means and covariances of two sets, squared.

    Heusel et al. 2017, arXiv:1706.08500; float64. Covariances may be singular, as those of fewer
    images than features are: their product has no root to be taken here. Few images make the
    distance larger: compare numbers of sets of the same size. Raises `ValueError` for features of
    different lengths or not finite, and for fewer than two images.
    """
    _check(a, b, 2)
    means = [each.mean(axis=0, dtype=np.float64) for each in (a, b)]
    # A covariance is root.T @ root. The singular values of the product of the roots are the square
    # roots of the eigenvalues of the product of the covariances.
    roots = [
        np.linalg.qr(each - mean, mode="r") / np.sqrt(len(each) - 1)
        for each, mean in zip((a, b), means, strict=True)
    ]
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    variances = np.sum(roots[0] ** 2) + np.sum(roots[1] ** 2)
    return float(np.sum((means[0] - means[1]) ** 2) + variances - 2 * shared)


def kid(
    a: np.ndarray, b: np.ndarray, *, subset: int, subsets: int, seed: int
) -> tuple[float, float]:
    """Kernel inception distance and its standard error (Bińkowski et al. 2018, arXiv:1801.01401).

    The mean over `subsets` draws of `subset` images of each set of the unbiased estimate of the
    squared distance of means under the kernel (x·y / k + 1)³: 0 on average for sets of one law,
    whatever their size. The draws share images, so that the error is not their scatter over the
    square root of their number alone: added in squares is what the images themselves leave open,
    by the jackknife that leaves out all but a subset (Shao & Wu 1989). It is right where the laws
    differ, and too large where they do not; nan where a subset is a whole set.

    Raises `ValueError` for features of different lengths or not finite, for subsets of less than
    two images or more than there are, and for less than two of them.
    """
    _check(a, b, 2)
    fewest = min(len(a), len(b))
    if not 2 <= subset <= fewest:
        raise ValueError(f"Expected subsets of 2 to {fewest} images. Received: {subset}")
    if subsets < 2:
        raise ValueError(f"Expected 2 subsets or more. Received: {subsets}")
    found = np.empty(subsets)
    for number in range(subsets):
        rng = seeds.generator(seed, "kid", number)
        first, second = (
            each[rng.choice(len(each), subset, replace=False)].astype(np.float64) for each in (a, b)
        )
        found[number] = (
            _mean_of_pairs(first) + _mean_of_pairs(second) - 2 * np.mean(_kernel(first, second))
        )
    if subset == fewest:
        return float(found.mean()), float("nan")
    share = 1 / subsets + subset / (fewest - subset)
    return float(found.mean()), float(found.std(ddof=1) * np.sqrt(share))


def precision_recall(real: np.ndarray, made: np.ndarray, neighbours: int) -> tuple[float, float]:
    """Shares of made images that look real, and of real ones that could have been made.

    Kynkäänniemi et al. 2019, arXiv:1904.06991: each image of a set reaches as far as the
    `neighbours`-th nearest other image of its set. Precision is the share of made images that any
    real one reaches, recall the share of real images that any made one reaches. Compare numbers of
    sets of the same size. Raises `ValueError` for features of different lengths or not finite, and
    unless each set has more images than `neighbours`, of which there is at least one.
    """
    if neighbours < 1:
        raise ValueError(f"Expected 1 neighbour or more. Received: {neighbours}")
    _check(real, made, neighbours + 1)
    return _reached(made, real, neighbours), _reached(real, made, neighbours)


def nearest(made: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (n,) of each made image from the nearest real one, and that one's number (n,).

    Raises `ValueError` for features of different lengths or not finite, and for no image.
    """
    _check(made, real, 1)
    least = np.full(len(made), np.inf)
    indices = np.zeros(len(made), np.intp)
    for rows, columns, squares in _blocks(made, real):
        best, fewest = squares.argmin(axis=1), squares.min(axis=1)
        closer = fewest < least[rows]
        least[rows] = np.where(closer, fewest, least[rows])
        indices[rows] = np.where(closer, best + columns.start, indices[rows])
    distances = np.empty(len(made))
    for start in range(0, len(made), _BLOCK):
        rows = slice(start, start + _BLOCK)
        # Anew: differences of squares would not give 0 for a copy.
        apart = made[rows].astype(np.float64) - real[indices[rows]]
        distances[rows] = np.linalg.norm(apart, axis=1)
    return distances, indices


def _check(a: np.ndarray, b: np.ndarray, fewest: int) -> None:
    for each in (a, b):
        if each.ndim != 2 or len(each) < fewest:
            raise ValueError(
                f"Expected features (n, k), n at least {fewest}. Received: {each.shape}"
            )
        if not np.isfinite(each).all():
            raise ValueError("Expected finite features. Received: others among them")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"Expected as many features of both. Received: {a.shape}, {b.shape}")


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _mean_of_pairs(a: np.ndarray) -> float:
    """Mean of the kernel over pairs of different images."""
    kernel = _kernel(a, a)
    return float((kernel.sum() - np.trace(kernel)) / (len(a) * (len(a) - 1)))


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Squared distances of some of `a` (rows) from some of `b` (columns), float64, all in turn."""
    centre = b.mean(axis=0, dtype=np.float64)
    for row in range(0, len(a), _BLOCK):
        rows = slice(row, row + _BLOCK)
        first = a[rows] - centre
        for column in range(0, len(b), _BLOCK):
            columns = slice(column, column + _BLOCK)
            second = b[columns] - centre
            squares = np.sum(first**2, axis=1)[:, None] + np.sum(second**2, axis=1)
            squares -= 2 * (first @ second.T)
            yield rows, columns, squares


def _reached(a: np.ndarray, b: np.ndarray, neighbours: int) -> float:
    """Share of `a` that lies in the reach of any of `b`."""
    reach, inside = _reach(b, neighbours), np.zeros(len(a), bool)
    for rows, columns, squares in _blocks(a, b):
        inside[rows] |= (squares <= reach[columns]).any(axis=1)
    return float(inside.mean())


def _reach(a: np.ndarray, neighbours: int) -> np.ndarray:
    """Squared distance (n,) of each image from its `neighbours`-th nearest other one."""
    found = np.full((len(a), neighbours), np.inf)
    for rows, columns, squares in _blocks(a, a):
        if rows == columns:
            np.fill_diagonal(squares, np.inf)
        both = np.concatenate([found[rows], squares], axis=1)
        found[rows] = np.partition(both, neighbours - 1, axis=1)[:, :neighbours]
    return found.max(axis=1)
