"""A patch's Fourier modes as a lattice of whole numbers, for sums over pairs of modes.

A mode at a Nyquist multipole stands for two directions and takes no part.
"""

import numpy as np

from skyweave.flat.grid import PatchGrid


class Lattice:
    """The modes of the full plane with ell[0] <= l <= ell[1], the mean aside.

    `x`, `y` and `ell` (m,) are their multipoles along the axes and in all.
    """

    def __init__(self, grid: PatchGrid, ell: tuple[float, float] = (0.0, np.inf)) -> None:
        self._pixels, half = grid.pixels, (grid.pixels - 1) // 2
        whole = np.arange(-half, half + 1)
        y, x = (part.ravel() for part in np.meshgrid(whole, whole, indexing="ij"))
        length = grid.ell_fundamental * np.hypot(x, y)
        inside = (length >= ell[0]) & (length <= ell[1]) & (length > 0)
        self._y, self._x = y[inside], x[inside]
        self.x, self.y = self._x * grid.ell_fundamental, self._y * grid.ell_fundamental
        self.ell = length[inside]
        self._reach = half
        self._number = np.full((2 * half + 1, 2 * half + 1), -1)
        self._number[self._y + half, self._x + half] = np.arange(self.ell.size)

    def pick(self, spectrum: np.ndarray) -> np.ndarray:
        """Values (m,) of what is even in the mode, on the half plane (pixels, pixels // 2 + 1)."""
        turn = np.where(self._x < 0, -1, 1)
        return spectrum[turn * self._y % self._pixels, turn * self._x]

    def adding_to(self, x: int, y: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of all pairs of modes whose sum is the mode (x, y), two arrays (n,)."""
        other_y, other_x = y - self._y, x - self._x
        reached = (np.abs(other_y) <= self._reach) & (np.abs(other_x) <= self._reach)
        first = np.flatnonzero(reached)
        second = self._number[other_y[first] + self._reach, other_x[first] + self._reach]
        return first[second >= 0], second[second >= 0]


class Octant:
    """The modes (x, y), whole numbers, x > 0 and 0 <= y <= x, that all others are mirrored from."""

    def __init__(self, grid: PatchGrid) -> None:
        half = (grid.pixels - 1) // 2
        self.modes = [(x, y) for x in range(1, half + 1) for y in range(x + 1)]
        number = np.full((half + 2, half + 2), len(self.modes))
        for index, mode in enumerate(self.modes):
            number[mode] = number[mode[::-1]] = index
        unit = grid.ell_fundamental
        x, y = (np.rint(np.abs(one) / unit).astype(int) for one in (grid.ell_x, grid.ell_y))
        #: Which of them each mode of the half plane is; the mean and Nyquist lines come after all.
        self.place = number[y, x]

    def spread(self, values: np.ndarray, elsewhere: float = 0.0) -> np.ndarray:
        """Values (modes,) on the half plane (pixels, pixels // 2 + 1); `elsewhere` at no mode."""
        return np.append(values, elsewhere)[self.place]

    def gather(self, spectrum: np.ndarray) -> np.ndarray:
        """Values (modes,) of what is the same in all directions, on the half plane."""
        return np.array([spectrum[y, x] for x, y in self.modes])
