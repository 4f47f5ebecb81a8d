"""Holes filled with the harmonic continuation of their edges, as diffusion would in the end."""

from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from skyweave.errors import UserError


def diffuse(maps: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Maps (n, y, x) or (n, f, y, x) with holes filled so that each pixel is its neighbours' mean.

    holes: bool (n, y, x), or (y, x) for all; neighbours are the up to four that the patch has, so
    that its edges reflect. What is seen comes back bit for bit, in the maps' own precision; what
    maps hold in their holes does not matter. Raises `UserError` for other shapes, for a map of
    which nothing is seen, and for values that are seen but not finite.
    """
    maps, holes = np.asarray(maps), np.asarray(holes)
    if maps.ndim not in (3, 4):
        raise UserError("maps", "shape (n, y, x) or (n, f, y, x)", maps.shape)
    shape = maps.shape[-2:]
    if holes.dtype != bool or holes.shape not in (shape, (len(maps), *shape)):
        expected = f"bool {shape} or {(len(maps), *shape)}"
        raise UserError("holes", expected, f"{holes.dtype} {holes.shape}")
    if holes.size and holes.all(axis=(-2, -1)).any():
        raise UserError("holes", "a pixel that is seen in every map", "none in one")
    each = np.broadcast_to(holes, (len(maps), *shape))
    planes = maps.reshape(len(maps), -1, *shape)
    if not np.isfinite(planes).all(where=~each[:, None]):
        raise UserError("maps", "finite values where they are seen", "others")
    filled = planes.copy()
    last = None
    for hole, fields, out in zip(each, planes, filled, strict=True):
        if not hole.any():
            continue
        if last is None or not np.array_equal(hole, last):
            last, rows = hole, _laplacian(shape)[hole.ravel()]
            solver = splu(rows[:, hole.ravel()].tocsc())
        seen = np.where(hole, 0, fields).reshape(len(fields), -1).astype(float)
        out[:, hole] = solver.solve(-(rows @ seen.T)).T
    return filled.reshape(maps.shape)


@lru_cache(maxsize=4)
def _laplacian(shape: tuple[int, int]) -> sparse.csr_array:
    """Number of a pixel's neighbours times its value, less theirs, (pixels, pixels)."""
    one, other = (_second_difference(count) for count in shape)
    return sparse.csr_array(sparse.kronsum(other, one))


def _second_difference(count: int) -> sparse.csr_array:
    difference = sparse.eye_array(count - 1, count, k=1) - sparse.eye_array(count - 1, count)
    return sparse.csr_array(difference.T @ difference)
