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
    return products(field, {"": weighted}, filtered, grid)[""]


def products(
    field: str, weighted: Mapping[str, Modes], filtered: Modes, grid: PatchGrid
) -> dict[str, np.ndarray]:
    """`product` of each of `weighted`, by name, with the same `filtered`.

    In single precision, which is far below an estimate's noise and takes half the time.
    """
    if field not in MODULATIONS:
        raise ValueError(f"Expected one of {', '.join(MODULATIONS)}. Received: {field!r}")
    # Waves up to the Nyquist multipole have products up to twice that: with half as many pixels
    # again, what folds back stays above the Nyquist multipole.
    fine = PatchGrid(grid.size_deg, 2 * ((3 * grid.pixels + 3) // 4))
    modulated = _modulated(field, _stokes(filtered, fine), fine)
    found = {}
    for name, modes in weighted.items():
        maps = {s: inverse(one, fine) for s, one in _stokes(modes, fine).items()}
        total = np.zeros((*next(iter(maps.values())).shape[:-1], fine.pixels // 2 + 1), complex)
        for along, moved in modulated:
            flow = [maps[s] * moved[s] for s in maps if s in moved]
            if flow:
                total += along * forward(np.sum(flow, axis=0), fine)
        found[name] = coarsen_modes(total, grid)
    return found


def _modulated(
    field: str, stokes: Modes, grid: PatchGrid
) -> list[tuple[np.ndarray | float, dict[str, np.ndarray]]]:
    """What a modulation makes of maps of t, q and u, in parts: the maps, and a factor on the modes
    of what they are multiplied by."""
    if field == "tau":
        return [(-1.0, {s: inverse(one, grid) for s, one in stokes.items()})]
    if field == "alpha":
        if "q" not in stokes:
            return []
        return [(2.0, {"u": inverse(stokes["q"], grid), "q": -inverse(stokes["u"], grid)})]
    square = grid.ell**2
    square[0, 0] = 1
    return [
        # phi = 2 kappa / ell²: a wave of kappa deflects by 2i ell / ell² of itself.
        (
            -2j * ell / square,
            {s: inverse(np.complex64(1j * ell) * one, grid) for s, one in stokes.items()},
        )
        for ell in (grid.ell_y, grid.ell_x)
    ]


def _refined(modes: np.ndarray, fine: PatchGrid) -> np.ndarray:
    """The modes (..., pixels, pixels // 2 + 1) on more pixels, without their Nyquist lines."""
    half = (modes.shape[-2] - 1) // 2 + 1
    out = np.zeros((*modes.shape[:-2], *fine.ell.shape), np.complex64)
    out[..., :half, :half] = modes[..., :half, :half]
    out[..., 1 - half :, :half] = modes[..., 1 - half :, :half]
    return out


def _stokes(modes: Modes, fine: PatchGrid) -> dict[str, np.ndarray]:
    """Modes of t, q and u on more pixels, as far as there are any, of modes of t, e and b."""
    known = {name: _refined(one, fine) for name, one in modes.items()}
    found = {"t": known["t"]} if "t" in known else {}
    if "e" in known or "b" in known:
        e, b = (known.get(name) for name in "eb")
        e = np.zeros_like(b) if e is None else e
        b = np.zeros_like(e) if b is None else b
        found["q"], found["u"] = rotate_to_qu(e, b, fine)
    return found
