"""The whole sky in overlapping tiles, and one map again from tiles.

A tile is a patch (`sky.projection`). Each pixel of the map reads every tile that it lies in, by a
quintic spline, and takes their mean, weighted by windows that fall to zero at a tile's edges.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from numba import njit
from scipy import ndimage

from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.flat.spline import quintic_weights
from skyweave.sky.projection import frame

#: Rows up to this latitude, in degrees, have as many tiles as the equator.
_FULL_ROWS = 60.0
#: Knots that a spline needs before a tile's first pixel and behind its last.
_REACH = 3
#: Rings of the map that are worked on at a time.
_RINGS = 32


def layout(size_deg: float, overlap_deg: float) -> pd.DataFrame:
    """Table of tiles that cover the sky: columns tile, lon, lat (centres in degrees).

    Rows lie size - overlap apart in latitude, or a little less to end at both poles, and so do
    the tiles of a row near the equator. Above 60° a row has as many as its edge towards the
    equator needs, at the poles as many as the circle that the next row is centred on: 174 tiles of
    20° with 2° overlap, as published for ForSE, 252 with 5°.
    """
    if not 0 < overlap_deg <= size_deg / 2 or size_deg > 40:
        raise UserError(
            "tiles", "a size up to 40 deg and an overlap up to half of it", (size_deg, overlap_deg)
        )
    step = size_deg - overlap_deg
    rows, most = int(np.ceil(180 / step - 1e-9)), int(np.ceil(360 / step - 1e-9))
    tiles = []
    for lat in np.linspace(-90, 90, rows + 1):
        edge = np.cos(np.radians(abs(lat) - size_deg / 2))
        need = 1.0 if abs(lat) <= _FULL_ROWS else max(edge, np.sin(np.radians(step)))
        count = int(np.ceil(most * need - 1e-9))
        tiles += [(360 * i / count, lat) for i in range(count)]
    table = pd.DataFrame(tiles, columns=["lon", "lat"])
    table.insert(0, "tile", np.arange(len(table)))
    return table


def reproject(
    tiles: np.ndarray,
    places: pd.DataFrame,
    grid: PatchGrid,
    overlap_deg: float,
    nside: int,
    *,
    spin: int = 0,
    threads: int | None = None,
) -> np.ndarray:
    """RING maps (components, npix) float32 from tiles (components, n, y, x) at `places`.

    A pixel is Σ(window · tile) / Σ window over the tiles that it lies in; a window is 1 inside and
    falls along each axis over the overlap, as half a cosine. With `spin` 2 the components are Q and
    U, IAU about each tile's north (`projection.to_patch_frame`), and come out on each pixel's own
    meridian in HEALPix's convention (COSMO). The result does not depend on `threads`, by default as
    many as there are cores. Raises `UserError` for pixels that no tile covers and for values that
    are not finite.
    """
    from ducc0.healpix import Healpix_Base

    tiles = np.asarray(tiles, np.float32)
    expected = (2 if spin else len(tiles), len(places), grid.pixels, grid.pixels)
    if tiles.shape != expected:
        raise UserError("tiles", f"maps of shape {expected}", tiles.shape)
    rings = Healpix_Base(nside, "RING").sht_info()
    splines = np.stack([_coefficients(one) for one in np.moveaxis(tiles, 1, 0)])
    frames = np.stack(frame(places["lon"].to_numpy(float), places["lat"].to_numpy(float)), axis=1)
    lat = np.radians(places["lat"].to_numpy(float))
    lon = np.radians(places["lon"].to_numpy(float))
    # The last pixels' centres are the edge: nothing is known beyond.
    half = grid.pixel_rad * (grid.pixels - 1) / 2
    shape = np.array([half, np.radians(overlap_deg), grid.pixel_rad])
    out = np.empty((len(tiles), 12 * nside**2), np.float32)

    def work(first: int) -> int:
        part = slice(first, first + _RINGS)
        return _rings(
            rings["theta"][part],
            rings["phi0"][part],
            rings["nphi"][part],
            rings["ringstart"][part],
            splines,
            frames,
            lon,
            lat,
            shape,
            spin == 2,
            out,
        )

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        bare = sum(pool.map(work, range(0, len(rings["theta"]), _RINGS)))
    if bare:
        raise UserError("tiles", "every pixel of the sky in a tile", f"{bare} pixels outside")
    return out


def _coefficients(tile: np.ndarray) -> np.ndarray:
    """Quintic spline (y, x, components) of a tile, its mirror images joined at the edges."""
    if not np.isfinite(tile).all():
        raise UserError("tiles", "finite values", "others")
    filtered = [ndimage.spline_filter(one, 5, np.float64, mode="mirror") for one in tile]
    padded = np.pad(np.stack(filtered, axis=-1), ((_REACH,) * 2,) * 2 + ((0, 0),), mode="reflect")
    return padded.astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _rings(theta, phi0, nphi, start, splines, frames, lon, lat, shape, polarized, out):
    """Fill rings of `out`; the number of pixels without a tile."""
    half, ramp, pixel = shape
    reach = 2 * np.arcsin(min(half / np.sqrt(2), 1.0))
    count = splines.shape[-1]
    middle = half / pixel + _REACH
    bare = 0
    value = np.empty(count)
    for ring in range(len(theta)):
        size = int(nphi[ring])
        step = 2 * np.pi / size
        z, s = np.cos(theta[ring]), np.sin(theta[ring])
        sums, weights = np.zeros((size, count)), np.zeros(size)
        for tile in range(len(lat)):
            # Pixels of the ring within `reach` of the tile's middle.
            away = (np.cos(reach) - z * np.sin(lat[tile])) / max(s * np.cos(lat[tile]), 1e-12)
            if away >= 1:
                continue
            width = np.pi if away <= -1 else np.arccos(away)
            begin = int(np.ceil((lon[tile] - width - phi0[ring]) / step))
            end = min(int(np.floor((lon[tile] + width - phi0[ring]) / step)) + 1, begin + size)
            centre, east, north = frames[tile]
            for i in range(begin, end):
                phi = phi0[ring] + i * step
                cosine, sine = np.cos(phi), np.sin(phi)
                p0, p1 = s * cosine, s * sine
                along = p0 * centre[0] + p1 * centre[1] + z * centre[2]
                if along <= 0:
                    continue
                scale = 1 / np.sqrt((1 + along) / 2)
                by_east = p0 * east[0] + p1 * east[1] + z * east[2]
                by_north = p0 * north[0] + p1 * north[1] + z * north[2]
                x, y = -by_east * scale, by_north * scale
                deep_x, deep_y = half - abs(x), half - abs(y)
                if deep_x <= 0 or deep_y <= 0:
                    continue
                weight = _ramp(deep_x / ramp) * _ramp(deep_y / ramp)
                _read(splines[tile], y / pixel + middle, x / pixel + middle, value)
                if polarized:
                    # The pixel's north carried to the tile's middle, in the frame there.
                    n0, n1, n2 = -z * cosine, -z * sine, s
                    to_centre = n0 * centre[0] + n1 * centre[1] + n2 * centre[2]
                    factor = to_centre / (1 + along)
                    c = n0 * north[0] + n1 * north[1] + n2 * north[2] - factor * by_north
                    d = n0 * east[0] + n1 * east[1] + n2 * east[2] - factor * by_east
                    c2, s2 = c * c - d * d, 2 * c * d
                    q, u = value[0], value[1]
                    value[0], value[1] = q * c2 + u * s2, q * s2 - u * c2
                at = i % size
                weights[at] += weight
                for k in range(count):
                    sums[at, k] += weight * value[k]
        for at in range(size):
            if weights[at] > 0:
                for k in range(count):
                    out[k, start[ring] + at] = sums[at, k] / weights[at]
            else:
                bare += 1
    return bare


@njit(inline="always")
def _ramp(depth):
    return 1.0 if depth >= 1 else (1 - np.cos(np.pi * depth)) / 2


@njit(inline="always")
def _read(spline, y, x, value):
    """All components of a spline (knots, knots, components) at a place, counted in knots."""
    row, column = int(np.floor(y)), int(np.floor(x))
    down, right = quintic_weights(y - row), quintic_weights(x - column)
    for k in range(len(value)):
        total = 0.0
        for i in range(6):
            line = 0.0
            for j in range(6):
                line += right[j] * spline[row + i - 2, column + j - 2, k]
            total += down[i] * line
        value[k] = total
