"""The least noise that kappa from E and B can have, when what is told of it is used to delens B.

What an estimate with correlation r_L leaves of the lensed B is that of a lensing field of power
C_L (1 - r_L²), and the estimate from a map with so much less B is better; the noise is that at
which the two agree (Smith et al. 2012, arXiv:1010.0048, eq. 3.3 f.; Seljak & Hirata 2004,
astro-ph/0310163).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from skyweave.estimators.lattice import Lattice, Octant
from skyweave.flat.grid import PatchGrid

_MOST_STEPS: Final = 500


@dataclass(frozen=True)
class IterativeLimit:
    """On the modes, (pixels, pixels // 2 + 1): what the best estimate of kappa has left.

    `noise` is the spectrum of its noise, infinite where nothing is told, `bb` that of the lensed B
    that remains (µK² sr), and `steps` how often the two were computed. With `bb` as part of the
    total B, `quadratic.Quadratic` has the noise of tau or alpha on a delensed map.
    """

    noise: np.ndarray
    bb: np.ndarray
    steps: int


def lensing_bb(ee: np.ndarray, kk: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """C_ell of B on the modes that lensing makes of unlensed E to first order, µK² sr.

    `ee` and `kk` are on the modes, (pixels, pixels // 2 + 1). The sum over the modes of the grid,
    which for a periodic patch is exact: (1 / area) Σ C_EE(l') C_kk(L) [2 l'·L / L²]² sin² 2phi,
    L = l - l' and phi the angle between l and l'.
    """
    octant = Octant(grid)
    return octant.spread(_lensed_b(ee, grid, octant) @ octant.gather(kk))


def iterative_noise(
    grid: PatchGrid,
    ee: np.ndarray,
    kk: np.ndarray,
    *,
    noise_ee: np.ndarray | float = 0.0,
    noise_bb: np.ndarray | float = 0.0,
    ell: tuple[float, float],
    tolerance: float = 1e-3,
) -> IterativeLimit:
    """Noise of kappa from E and B of ell[0] <= l <= ell[1], when B is delensed as well as it can.

    All spectra are on the modes, (pixels, pixels // 2 + 1): `ee` the unlensed E, `kk` that of
    kappa, `noise_ee` and `noise_bb` all that the maps without their beam hold besides E and
    lensed B. It ends when no part of B changes by more than `tolerance` of it, or after 500 steps.
    It needs memory for pixels⁴ / 32 numbers: 70 MB for 128 pixels.
    """
    octant, inside = Octant(grid), (grid.ell >= ell[0]) & (grid.ell <= ell[1])
    total_ee = ee + noise_ee
    made, told = _lensed_b(ee, grid, octant), _told(ee, total_ee, grid, octant, ell)
    cl, other = octant.gather(kk), octant.gather(np.broadcast_to(noise_bb, ee.shape))
    used = octant.gather(inside)
    steps, bb = 0, made @ cl
    for _ in range(_MOST_STEPS):
        known = used & (bb + other > 0)
        information = told @ np.divide(1, bb + other, out=np.zeros_like(bb), where=known)
        before, bb = bb, made @ (cl / (1 + cl * information))
        steps += 1
        if np.all(np.abs(bb - before)[known] < tolerance * (before + other)[known]):
            break
    noise = np.divide(1, information, out=np.full_like(bb, np.inf), where=information > 0)
    return IterativeLimit(octant.spread(noise, np.inf), octant.spread(bb), steps)


def _lensed_b(ee: np.ndarray, grid: PatchGrid, octant: Octant) -> np.ndarray:
    """Matrix (modes of B, modes of kappa) of the octant from kappa's spectrum to that of B."""
    lattice = Lattice(grid)
    angle, power = np.arctan2(lattice.y, lattice.x), lattice.pick(ee) / grid.area_sr
    kappa = lattice.pick(octant.place)
    out = np.empty((len(octant.modes), len(octant.modes)))
    for index, (x, y) in enumerate(octant.modes):
        source, lens = lattice.adding_to(x, y)
        shift = 2 * _dot(lattice, source, lens) / lattice.ell[lens] ** 2
        turned = np.sin(2 * (np.arctan2(y, x) - angle[source]))
        out[index] = np.bincount(
            kappa[lens], power[source] * (shift * turned) ** 2, len(octant.modes)
        )
    return out


def _told(
    ee: np.ndarray,
    total_ee: np.ndarray,
    grid: PatchGrid,
    octant: Octant,
    ell: tuple[float, float],
) -> np.ndarray:
    """Matrix (modes of kappa, modes of B) of the octant from 1 / C_BB to 1 / noise."""
    lattice = Lattice(grid, ell)
    angle = np.arctan2(lattice.y, lattice.x)
    power = lattice.pick(ee) ** 2 / lattice.pick(total_ee) / grid.area_sr
    b_mode = lattice.pick(octant.place)
    out = np.zeros((len(octant.modes), len(octant.modes)))
    for index, (x, y) in enumerate(octant.modes):
        e, b = lattice.adding_to(x, y)
        along = (lattice.x[e] * x + lattice.y[e] * y) / (grid.ell_fundamental * (x**2 + y**2))
        shift, turned = 2 * along, np.sin(2 * (angle[e] - angle[b]))
        out[index] = np.bincount(b_mode[b], power[e] * (shift * turned) ** 2, len(octant.modes))
    return out


def _dot(lattice: Lattice, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return lattice.x[first] * lattice.x[second] + lattice.y[first] * lattice.y[second]
