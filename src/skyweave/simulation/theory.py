"""What analysis expects of simulated patches."""

from collections.abc import Mapping

import numpy as np


def lensed(cl: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """C_ell of "tt", "ee", "bb" and "te", lensed by the convergence "kk", at ell = 0..lmax each.

    CAMB's curved-sky correlation functions, from unlensed spectra of the same names; the highest
    few hundred multipoles lack what lies beyond lmax.
    """
    from camb import correlations

    ell = np.arange(cl["kk"].size, dtype=float)
    dl = ell * (ell + 1) / (2 * np.pi)
    names = ("tt", "ee", "bb", "te")
    unlensed = np.stack([cl[name] * dl for name in names], axis=1)
    # [L(L+1)]² C_phi / 2pi, and C_kappa = [L(L+1)]² C_phi / 4.
    found = correlations.lensed_cls(unlensed, 4 * cl["kk"] / (2 * np.pi))
    return {
        name: np.divide(found[:, column], dl, out=np.zeros(ell.size), where=dl > 0)
        for column, name in enumerate(names)
    }


def modulated_bb(
    ell: np.ndarray, cl_ee: np.ndarray, cl_field: np.ndarray, *, rotates: bool
) -> np.ndarray:
    """C_ell of B, same shape as `ell`, that a random field makes of E to first order.

    Q + iU is multiplied by 1 - tau (patchy screen, arXiv:0812.1566) or, with `rotates`, by
    1 + 2i alpha (rotation, arXiv:0810.1286); the field's spectrum is `cl_field`, that of E `cl_ee`,
    both at ell = 0..lmax. On the flat sky
    C_BB(l) = ∫ d²l'/(2pi)² C_EE(l') C(|l - l'|) · {sin² 2phi or 4 cos² 2phi}, phi between l and l'.
    """
    inner = np.arange(2.0, cl_ee.size, 3)
    phi = np.pi * (np.arange(256) + 0.5) / 256  # the other half is its mirror image
    kernel = 4 * np.cos(2 * phi) ** 2 if rotates else np.sin(2 * phi) ** 2
    source = np.interp(inner, np.arange(cl_ee.size), cl_ee) * inner * np.gradient(inner)
    multipoles = np.arange(cl_field.size)
    found = []
    for one in np.ravel(ell):
        apart = np.sqrt(one**2 + inner[:, None] ** 2 - 2 * one * inner[:, None] * np.cos(phi))
        between = np.interp(apart, multipoles, cl_field, right=0.0)
        found.append(source @ (between @ kernel) * 2 * np.pi / phi.size / (2 * np.pi) ** 2)
    return np.reshape(found, np.shape(ell))
