"""Tapers that bring a patch to zero at its edges."""

import numpy as np

from skyweave.flat.grid import PatchGrid


def cosine_taper(grid: PatchGrid, width_deg: float) -> np.ndarray:
    """Separable cosine taper, (pixels, pixels) float64 in [0, 1], 1 for a width of 0.

    Over the n = int(width / pixel) pixels at each edge w = (1 - cos(pi r / n)) / 2, r the pixel's
    index from the edge, counted from 0 (arXiv:2101.01214). Raises `ValueError` when the two edges
    overlap.
    """
    # 1e-9: a width of whole pixels is not to lose one to the division's rounding.
    edge = int(width_deg * grid.pixels / grid.size_deg + 1e-9)
    if edge < 0 or 2 * edge > grid.pixels:
        raise ValueError(
            f"Expected a width from 0 to {grid.size_deg / 2:g} deg. Received: {width_deg:g}"
        )
    profile = np.ones(grid.pixels)
    profile[:edge] = (1 - np.cos(np.pi * np.arange(edge) / max(edge, 1))) / 2
    profile[grid.pixels - edge :] = profile[:edge][::-1]
    return profile[:, None] * profile[None, :]
