"""Gaussian fields on a periodic patch, drawn as Fourier modes."""

from functools import lru_cache

import numpy as np
from numba import njit

from skyweave.flat.grid import PatchGrid
from skyweave.simulation.normals import Random


class WhiteField:
    """A Gaussian field with C_ell = 1 at every mode, drawn from `random`.

    The mean is 0. Long waves are drawn first: a patch of the same size with more pixels has the
    same modes up to the Nyquist lines of the one with fewer.
    """

    def __init__(self, random: Random, grid: PatchGrid) -> None:
        self._index, _ = _layout(grid)
        self._numbers = random.standard_normal(grid.pixels**2)
        self._numbers[-1] = 0  # stands for what is not drawn

    def add_to(self, modes: np.ndarray, factor: np.ndarray) -> None:
        """Add the field's modes times a `mode_factor` to modes (pixels, pixels // 2 + 1)."""
        parts = modes.view(float).reshape(-1)
        _add(self._numbers, self._index.reshape(-1), factor.reshape(-1), parts)


def mode_factor(factor: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """What `WhiteField.add_to` takes for real factors (pixels, pixels // 2 + 1) of the modes."""
    return _layout(grid)[1] * factor[..., None]


def white_modes(random: Random, grid: PatchGrid) -> np.ndarray:
    """Fourier modes (pixels, pixels // 2 + 1) of a `WhiteField`."""
    modes = np.zeros(grid.ell.shape, complex)
    WhiteField(random, grid).add_to(modes, _layout(grid)[1])
    return modes


@njit(cache=True)
def _add(numbers, index, factor, parts):
    for i in range(parts.size):
        parts[i] += numbers[index[i]] * factor[i]


@lru_cache(maxsize=8)
def _layout(grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Which of a field's numbers are the parts of each mode, and their factors.

    Both (pixels, pixels // 2 + 1, 2), the real and the imaginary part. Shell s, the modes whose
    larger wave number is s, takes the 8s numbers from (2s - 1)² - 1 on; of its modes those with
    k_x > 0, or k_x = 0 and k_y > 0, have numbers of their own. The Nyquist lines come last.
    """
    pixels, half = grid.pixels, grid.pixels // 2
    index = np.full((pixels, half + 1, 2), pixels**2 - 1, np.uint32)
    weight = np.zeros(index.shape)
    taken = 0

    def draw(modes: list[tuple[int, int]], parts: int) -> None:
        """Give each of the modes (k_y, k_x) its next `parts` numbers."""
        nonlocal taken
        rows, columns = np.array(modes).T
        numbers = taken + np.arange(parts * len(modes)).reshape(-1, parts)
        index[rows, columns, :parts] = numbers
        weight[rows, columns, :parts] = np.sqrt(1 / parts)
        taken += numbers.size

    for shell in range(1, (pixels + 1) // 2):
        ends = [(shell, kx) for kx in range(shell)] + [(-shell, kx) for kx in range(1, shell)]
        draw(ends + [(ky, shell) for ky in range(-shell, shell + 1)], 2)
    if pixels % 2 == 0:
        draw([(half, kx) for kx in range(1, half)] + [(ky, half) for ky in range(1, half)], 2)
        draw([(0, half), (half, 0), (half, half)], 1)
    # On the columns that are their own mirror images, k_y < 0 is the conjugate of k_y > 0.
    for column in (0, half) if pixels % 2 == 0 else (0,):
        for ky in range(1, (pixels + 1) // 2):
            index[-ky, column] = index[ky, column]
            weight[-ky, column] = weight[ky, column] * (1, -1)
    weight *= np.sqrt(grid.area_sr)
    index.flags.writeable = weight.flags.writeable = False
    return index, weight


def correlation(
    cl_first: np.ndarray, cl_second: np.ndarray, cl_cross: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Factors (a, b) that make a·w + b·v of two independent white fields w and v correlated.

    The sum has the spectrum `cl_second`, and with sqrt(cl_first)·w the cross spectrum `cl_cross`.
    """
    root = np.sqrt(cl_first)
    shared = np.divide(cl_cross, root, out=np.zeros_like(cl_cross), where=root > 0)
    return shared, np.sqrt(np.maximum(cl_second - shared**2, 0))
