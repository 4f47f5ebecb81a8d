"""The square patch grid and its Fourier modes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class PatchGrid:
    """A square flat patch: `size_deg` degrees a side, `pixels` pixels a side, maps (..., y, x)."""

    size_deg: float
    pixels: int

    @property
    def pixel_rad(self) -> float:
        """Side of a pixel in radians."""
        return np.deg2rad(self.size_deg) / self.pixels

    @property
    def pixel_arcmin(self) -> float:
        """Side of a pixel in arcminutes."""
        return 60 * self.size_deg / self.pixels

    @property
    def area_sr(self) -> float:
        """Area of the patch in steradians."""
        return np.deg2rad(self.size_deg) ** 2

    @property
    def ell_fundamental(self) -> float:
        """Multipole of the longest wave that fits the patch."""
        return 2 * np.pi / np.deg2rad(self.size_deg)

    @property
    def ell_nyquist(self) -> float:
        """Multipole of the shortest wave that the pixels resolve along an axis."""
        return np.pi / self.pixel_rad

    @cached_property
    def ell_y(self) -> np.ndarray:
        """Multipoles along y, shape (pixels, 1), in the order of ``rfft2``."""
        return 2 * np.pi * np.fft.fftfreq(self.pixels, self.pixel_rad)[:, None]

    @cached_property
    def ell_x(self) -> np.ndarray:
        """Multipoles along x, shape (1, pixels // 2 + 1), in the order of ``rfft2``."""
        return 2 * np.pi * np.fft.rfftfreq(self.pixels, self.pixel_rad)[None, :]

    @cached_property
    def ell(self) -> np.ndarray:
        """Modulus of the multipole, shape (pixels, pixels // 2 + 1)."""
        return np.hypot(self.ell_x, self.ell_y)

    @cached_property
    def mode_weight(self) -> np.ndarray:
        """How many modes of the full plane each ``rfft2`` mode stands for (1 or 2), same shape."""
        weight = np.full(self.ell.shape, 2.0)
        weight[:, 0] = 1
        if self.pixels % 2 == 0:
            weight[:, -1] = 1
        return weight
