"""E and B straight from the observed Q and U: what a network's E must beat."""

import numpy as np

from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb


def analytic_eb(
    q_obs: np.ndarray, u_obs: np.ndarray, grid: PatchGrid
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate of E and B, each (n, y, x) µK, from observed Q and U of the same shape.

    The maps are taken as they are, tapered, lensed, screened, smoothed and noisy: nothing is
    deconvolved, so the estimate of E answers to the tapered primordial E of a simulated set.
    Raises `ValueError` when the shapes differ or don't fit the grid.
    """
    if q_obs.shape != u_obs.shape or q_obs.shape[-2:] != (grid.pixels, grid.pixels):
        raise ValueError(
            f"Expected two arrays (..., {grid.pixels}, {grid.pixels}). "
            f"Received: {q_obs.shape} and {u_obs.shape}"
        )
    return qu_to_eb(q_obs, u_obs, grid)
