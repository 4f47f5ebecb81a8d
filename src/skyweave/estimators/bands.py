"""Weights that are smooth in multipole, learned band by band from maps whose truth is known."""

from collections.abc import Mapping

import numpy as np

from skyweave.flat.fourier import Bins, bin_power, power
from skyweave.flat.grid import PatchGrid

#: Of the largest eigenvalue, what is added to all in the regression of a band.
_RIDGE = 1e-6


def narrow_bins(grid: PatchGrid) -> Bins:
    """Bands one and a half fundamental multipoles wide, up to the corner of the grid's modes."""
    width = grid.ell_fundamental
    return Bins.linear(width / 2, 1.5 * grid.ell.max(), 1.5 * width)


def spread(values: np.ndarray, bins: Bins, grid: PatchGrid) -> np.ndarray:
    """Values (count,) of bands at the modes of a grid: linear between their middles."""
    middles = np.add(bins.edges[1:], bins.edges[:-1]) / 2
    return np.interp(grid.ell, middles, values)


def band_powers(modes: np.ndarray, grid: PatchGrid, bins: Bins) -> np.ndarray:
    """Mean power (count,) of modes (n, pixels, pixels // 2 + 1); that next to it in empty bands."""
    found = bin_power(power(modes, modes, grid).mean(axis=0), grid, bins)
    known = np.flatnonzero(found > 0)
    # The logarithm: neighbours may differ by orders of magnitude.
    return np.exp(np.interp(np.arange(bins.count), known, np.log(found[known])))


def regress(
    features: Mapping[str, np.ndarray], truth: np.ndarray, grid: PatchGrid, bins: Bins
) -> dict[str, np.ndarray]:
    """Weights (count,) of each feature with which their sum is nearest to the truth, by band.

    Modes are (n, pixels, pixels // 2 + 1). Least squares over the modes of each band; zero in bands
    where no feature has power.
    """
    names = list(features)
    moments = np.empty((len(names), len(names) + 1, bins.count))
    for row, name in enumerate(names):
        for column, other in enumerate([*(features[n] for n in names), truth]):
            if column < row:
                moments[row, column] = moments[column, row]
            else:
                both = power(features[name], other, grid).mean(axis=0)
                moments[row, column] = np.nan_to_num(bin_power(both, grid, bins))
    weights = np.zeros((len(names), bins.count))
    for band in range(bins.count):
        matrix, with_truth = moments[:, :-1, band], moments[:, -1, band]
        scale = np.sqrt(np.diag(matrix))
        used = scale > 0
        if not used.any():
            continue
        scale = scale[used]
        normal = matrix[np.ix_(used, used)] / np.outer(scale, scale)
        normal += _RIDGE * np.eye(len(scale))
        weights[used, band] = np.linalg.solve(normal, with_truth[used] / scale) / scale
    return dict(zip(names, weights, strict=True))
