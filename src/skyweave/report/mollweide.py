"""Mollweide's equal-area projection of the whole sky, longitude growing to the left."""

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 2 * np.sqrt(2), np.sqrt(2)  # half axes of the ellipse
EXTENT = (-WIDTH, WIDTH, -HEIGHT, HEIGHT)  # left, right, bottom, top


def project(lon: ArrayLike, lat: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Degrees → plane (x, y), any shape; the centre is (0, 0).

    Solves 2θ + sin 2θ = π sin(lat) by Newton's method (Snyder, USGS Professional Paper 1395,
    eqs. 31-1 to 31-4).
    """
    lon = np.radians((np.asarray(lon, float) + 180) % 360 - 180)
    target = np.pi * np.sin(np.radians(np.asarray(lat, float)))
    doubled = 2 * np.arcsin(target / np.pi)
    for _ in range(60):  # converges slowly near the poles, where the derivative vanishes
        slope = np.maximum(1 + np.cos(doubled), 1e-12)
        doubled = np.clip(doubled - (doubled + np.sin(doubled) - target) / slope, -np.pi, np.pi)
    theta = doubled / 2
    return -WIDTH / np.pi * lon * np.cos(theta), HEIGHT * np.sin(theta)


def unproject(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Plane → degrees (lon in [-180, 180], lat), NaN outside the ellipse."""
    x, y = np.broadcast_arrays(x, y)
    inside = (x / WIDTH) ** 2 + (y / HEIGHT) ** 2 < 1
    theta = np.arcsin(np.where(inside, y / HEIGHT, 0))
    lat = np.degrees(np.arcsin((2 * theta + np.sin(2 * theta)) / np.pi))
    lon = np.degrees(-np.pi * x / (WIDTH * np.cos(theta)))
    return np.where(inside, lon, np.nan), np.where(inside, lat, np.nan)


def sample(values: np.ndarray, width: int) -> np.ndarray:
    """A HEALPix RING map on the Mollweide plane: (width / 2, width), NaN outside and where unseen.

    Maps finer than the plane are averaged first, so that no pixel is left out.
    """
    import healpy

    values = np.where(np.isfinite(values), values, healpy.UNSEEN)
    limit = 2 ** int(np.ceil(np.log2(width / 5)))  # 4 nside pixels on the equator
    if healpy.get_nside(values) > limit:
        values = healpy.ud_grade(values, limit)
    x = (np.arange(width) + 0.5) / width * 2 - 1
    y = (np.arange(width // 2) + 0.5) / (width // 2) * 2 - 1
    lon, lat = unproject(WIDTH * x[None], HEIGHT * y[:, None])
    inside = np.isfinite(lon)
    plane = np.full(lon.shape, np.nan)
    pixels = healpy.ang2pix(healpy.get_nside(values), lon[inside], lat[inside], lonlat=True)
    plane[inside] = values[pixels]
    # In float32, which the map may be in, the mark is another number.
    plane[healpy.mask_bad(plane)] = np.nan
    return plane
