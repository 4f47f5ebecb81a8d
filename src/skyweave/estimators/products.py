"""Products of two filtered maps that answer to what modulates the sky: kappa, tau or alpha.

To first order a modulation changes T, Q and U by δX = D X, with D = ∇phi·∇ for lensing, -tau for a
patchy screen, and 2 alpha times a quarter turn, (Q, U) → (-U, Q), for a rotation. With X̄ the maps
weighted by the inverse of their variance and X the Wiener-filtered ones, the gradient of the
likelihood with respect to the modulation is ΣX̄ D X: the quadratic estimator, not yet normalized
(Hirata & Seljak 2003, astro-ph/0306354; Carron & Lewis 2017, arXiv:1704.08230).
"""

from collections.abc import Mapping

import numpy as np

from skyweave.flat.fourier import coarsen_modes, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_qu

#: Modulations that there are estimators of.
MODULATIONS = ("kappa", "tau", "alpha")

#: Modes (..., pixels, pixels // 2 + 1) of t, e and b; those that are absent are zero.
Modes = Mapping[str, np.ndarray]


def product(field: str, weighted: Modes, filtered: Modes, grid: PatchGrid) -> np.ndarray:
    """Modes (..., pixels, pixels // 2 + 1) of the estimate of `field` before normalization.

    `weighted` are modes of t, e and b over their total power, `filtered` those times their signal's
    power, T and polarization alike as far as both have them; Nyquist lines are left out. Divided by
    the response it is the estimate of kappa, tau or alpha (radians). Raises `ValueError` for
    another field.
    """
    if field not in MODULATIONS:
        raise ValueError(f"Expected one of {', '.join(MODULATIONS)}. Received: {field!r}")
    # Waves up to the Nyquist multipole have products up to twice that: with half as many pixels
    # again, what folds back stays above the Nyquist multipole.
    fine = PatchGrid(grid.size_deg, 2 * ((3 * grid.pixels + 3) // 4))
    left, right = (
        _stokes({name: _refined(one, fine) for name, one in modes.items()}, fine)
        for modes in (weighted, filtered)
    )
    stokes = [s for s in left if s in right]
    maps = {s: inverse(left[s], fine) for s in stokes}
    if field == "tau":
        total = -forward(sum(maps[s] * inverse(right[s], fine) for s in stokes), fine)
    elif field == "alpha":
        turned = maps["u"] * inverse(right["q"], fine) - maps["q"] * inverse(right["u"], fine)
        total = 2 * forward(turned, fine)
    else:
        square = fine.ell**2
        square[0, 0] = 1
        total = np.zeros(next(iter(right.values())).shape, complex)
        for ell in (fine.ell_y, fine.ell_x):
            flow = sum(maps[s] * inverse(1j * ell * right[s], fine) for s in stokes)
            # phi = 2 kappa / ell²: a wave of kappa deflects by 2i ell / ell² of itself.
            total += -2j * ell / square * forward(flow, fine)
    return coarsen_modes(total, grid)


def _refined(modes: np.ndarray, fine: PatchGrid) -> np.ndarray:
    """The modes (..., pixels, pixels // 2 + 1) on more pixels, without their Nyquist lines."""
    half = (modes.shape[-2] - 1) // 2 + 1
    out = np.zeros((*modes.shape[:-2], *fine.ell.shape), modes.dtype)
    out[..., :half, :half] = modes[..., :half, :half]
    out[..., 1 - half :, :half] = modes[..., 1 - half :, :half]
    return out


def _stokes(modes: Modes, grid: PatchGrid) -> dict[str, np.ndarray]:
    """Modes of t, q and u, as far as there are any, of modes of t, e and b."""
    found = {"t": modes["t"]} if "t" in modes else {}
    if "e" in modes or "b" in modes:
        e, b = (modes.get(name) for name in "eb")
        e = np.zeros_like(b) if e is None else e
        b = np.zeros_like(e) if b is None else b
        found["q"], found["u"] = rotate_to_qu(e, b, grid)
    return found
