"""Where patches of the sky are measured, and what is measured there."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.minkowski import THRESHOLDS, functionals, scaled
from skyweave.statistics.namaster import Workspaces, apodized, spectra

#: Widths of the taper at the patch's edge and of the rise from the mask's holes, of its side.
TAPER, RISE = 0.1, 0.05


@dataclass(frozen=True)
class Windows:
    """Where patches are measured: `keep` (n, y, x) bool, and apodized `weights` (n, y, x)."""

    keep: np.ndarray
    weights: np.ndarray
    workspaces: Workspaces

    @classmethod
    def of(cls, masks: np.ndarray, grid: PatchGrid, bins: Bins | None = None) -> "Windows":
        """Windows of masks (n, y, x), which keep where they exceed one half."""
        keep = np.asarray(masks) > 0.5
        taper = cosine_taper(grid, TAPER * grid.size_deg)
        weights = np.stack([taper * apodized(mask, grid, RISE * grid.size_deg) for mask in keep])
        return cls(keep, weights, Workspaces(grid, bins or default_bins(grid)))

    @property
    def ell(self) -> np.ndarray:
        """Mean multipole of the modes in each band, (nbins,)."""
        return self.workspaces.bins.centres(self.workspaces.grid)


@dataclass(frozen=True)
class Measured:
    """Spectra (n, nbins) and Minkowski functionals (n, 3, 32) of n patches, by field."""

    cl: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]


def measure(patches: Mapping[str, np.ndarray], windows: Windows) -> Measured:
    """Spectra of high, low and ratio = high / low, and functionals of high and ratio.

    `patches` holds `high` and `low` (n, y, x) in one unit. For the functionals each patch is scaled
    to [-1, 1] inside its mask. Raises `UserError` where low is not positive inside the mask.
    """
    keep = windows.keep
    high, low = (np.asarray(patches[name], float) for name in ("high", "low"))
    broken = (keep & ~(low > 0)).any(axis=(1, 2))
    if broken.any():
        found = f"others in {broken.sum()} patches, first {broken.argmax()}"
        raise UserError("patches: low", "positive values inside the mask", found)
    maps = {
        "high": high,
        "low": low,
        "ratio": np.divide(high, low, out=np.ones_like(high), where=keep),
    }
    return Measured(
        {
            name: spectra(values, windows.weights, windows.workspaces)
            for name, values in maps.items()
        },
        {
            name: functionals(scaled(maps[name], keep), THRESHOLDS, keep)
            for name in ("high", "ratio")
        },
    )
