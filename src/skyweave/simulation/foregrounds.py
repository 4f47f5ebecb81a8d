"""What foreground removal leaves in polarization: Gaussian E and B with a power law.

Planck's dust at high latitude has D_ell = ell(ell+1)C_ell/2pi falling as ell^-0.42 in E and in B
(arXiv:1409.5738); residuals keep that slope where the removal does not depend on scale.
"""

import numpy as np

from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_qu
from skyweave.simulation.gaussian import white_modes
from skyweave.simulation.normals import Random

#: Multipole at which the power is given.
PIVOT = 80


def foreground_cl(ell: np.ndarray, dl_80: float, slope: float) -> np.ndarray:
    """C_ell in µK² of E and of B each, same shape as `ell`; 0 below ell 1.

    D_ell is `dl_80` (µK²) times (ell / 80)^slope.
    """
    multipole = np.asarray(ell, float)
    safe = np.maximum(multipole, 1)
    cl = 2 * np.pi * dl_80 / (safe * (safe + 1)) * (safe / PIVOT) ** slope
    return np.where(multipole < 1, 0.0, cl)


def foreground_modes(
    random_e: Random, random_b: Random, grid: PatchGrid, dl_80: float, slope: float
) -> dict[str, np.ndarray]:
    """Fourier modes (pixels, pixels // 2 + 1) of "q" and "u" on a periodic area, µK sr.

    E and B are independent, each of the spectrum `foreground_cl`.
    """
    amplitude = np.sqrt(foreground_cl(grid.ell, dl_80, slope))
    e, b = (amplitude * white_modes(random, grid) for random in (random_e, random_b))
    q, u = rotate_to_qu(e, b, grid)
    return {"q": q, "u": u}
