"""The most likely Q and U of a Gaussian sky, given those that were seen, mask and noise and all."""

from dataclasses import dataclass

import numpy as np

from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb, rotate_to_qu

#: Share of the data's norm that the residual may have, and most steps to get there.
TOLERANCE, MOST = 1e-3, 200

#: White power that data have at least, µK² sr (0.02 µK-arcmin): single precision and the pixels'
#: aliases are no less, and waves without any power could not be told apart.
FLOOR = (0.02 * np.pi / 10800) ** 2


@dataclass(frozen=True)
class Wiener:
    """Wiener filter of Q and U on a periodic area.

    The data are beam times sky plus noise where they were seen: `ee` and `bb` are the sky's spectra
    on the modes (pixels, pixels // 2 + 1), `beam` its window there, `noise` the spectrum of Q's and
    U's stationary noise there; `seen` (y, x) bool says where there are data, and `variance` (y, x),
    if given, how much noise of its own each pixel has besides. Units µK, µK² sr.
    """

    grid: PatchGrid
    ee: np.ndarray
    bb: np.ndarray
    beam: np.ndarray
    noise: np.ndarray
    seen: np.ndarray
    variance: np.ndarray | float = 0.0

    def __call__(self, q: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Modes of E and B (pixels, pixels // 2 + 1), without beam and noise, of one patch (y, x).

        Conjugate gradients for the data's covariance, preconditioned by that of data without mask
        (Wandelt, Larson & Lakshminarayanan 2004, astro-ph/0310080; Smith, Zahn & Doré 2007,
        arXiv:0705.3980).
        """
        data = np.where(self.seen, np.stack([q, u]), 0.0)
        solved = self._solve(data)
        q_modes, u_modes = forward(solved, self.grid)
        e, b = rotate_to_eb(q_modes, u_modes, self.grid)
        return e * self.beam * self.ee, b * self.beam * self.bb

    def _solve(self, data: np.ndarray) -> np.ndarray:
        """The inverse covariance of the data times the data, (2, y, x), zero where not seen."""
        if not self.seen.any():
            return np.zeros_like(data)
        pixel = self.grid.pixel_rad**2
        power = [self.beam**2 * cl + self.noise + FLOOR for cl in (self.ee, self.bb)]
        white = pixel * np.mean(np.broadcast_to(self.variance, self.seen.shape)[self.seen])
        inverse_power = [1 / (one + white) for one in power]
        x = np.zeros_like(data)
        residual = data.copy()
        goal = TOLERANCE**2 * np.sum(data**2)
        direction = z = self._filtered(residual, inverse_power)
        product = np.sum(residual * z)
        for _ in range(MOST):
            if np.sum(residual**2) <= goal:
                break
            # On the modes a white field of variance v has the power v times the pixel's area.
            image = self._filtered(direction, power) + self.variance * pixel * direction
            step = product / np.sum(direction * image)
            x = x + step * direction
            residual = residual - step * image
            z = self._filtered(residual, inverse_power)
            product, before = np.sum(residual * z), product
            direction = z + product / before * direction
        return x

    def _filtered(self, maps: np.ndarray, spectra: list[np.ndarray]) -> np.ndarray:
        """Q and U (2, y, x) with E and B multiplied by spectra on the modes, where seen."""
        q, u = forward(maps, self.grid)
        e, b = rotate_to_eb(q, u, self.grid)
        qu = rotate_to_qu(e * spectra[0], b * spectra[1], self.grid)
        return np.where(self.seen, inverse(np.stack(qu), self.grid), 0.0)
