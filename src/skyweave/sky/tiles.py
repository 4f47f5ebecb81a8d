"""The whole sky in overlapping tiles, and one map again from tiles.

A tile is a patch (`sky.projection`). Each pixel of the map reads every tile that it lies in, by a
quintic spline, and takes their mean, weighted by windows that fall to zero at a tile's edges.
Tiles that differ where they overlap, as the small scales of a network do, have less variance in
their mean; `Mosaic.blended` gives it back.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from numba import njit
from scipy import ndimage

from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.flat.spline import quintic_weights
from skyweave.sky.projection import frame, to_plane

#: Rows up to this latitude, in degrees, have as many tiles as the equator.
_FULL_ROWS = 60.0
#: Knots that a spline needs before a tile's first pixel and behind its last.
_REACH = 3
#: Rings of the map that are worked on at a time.
_RINGS = 32
#: A window below this is none: its square, and its product with a map's, would not fit float32.
_LEAST = 1e-10
#: Side in radians of the cells of the sky that brightness is averaged over.
_CELL = np.radians(4.0)
#: Pixels whose gain is worked out at a time.
_PIXELS = 2**20
#: 1 - q of a pixel in one tile is zero but for the rounding of float32.
_ALONE = 1e-5


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


def tiles_at(table: pd.DataFrame, grid: PatchGrid, nside: int) -> np.ndarray:
    """Number of tiles (npix,) that hold the centre of each RING pixel, of tiles as `layout` has."""
    import healpy

    half = grid.pixel_rad * (grid.pixels - 1) / 2
    reach = 2 * np.arcsin(half / np.sqrt(2))
    count = np.zeros(12 * nside**2, np.int8)
    for lon, lat in zip(table["lon"], table["lat"], strict=True):
        near = healpy.query_disc(nside, healpy.ang2vec(lon, lat, lonlat=True), reach)
        x, y = to_plane(lon, lat, *healpy.pix2ang(nside, near, lonlat=True))
        count[near] += np.maximum(np.abs(x), np.abs(y)) < half
    return count


class Mosaic:
    """A RING map of `nside` that tiles of `components` maps are added to in turn.

    A tile's window is 1 inside and falls along each axis over `overlap_deg`, as half a cosine. With
    `spin` 2 there are two components, Q and U, IAU about each tile's north
    (`projection.to_patch_frame`); they come out on each pixel's own meridian in HEALPix's
    convention (COSMO). Kept are float32 maps of Σ w s and Σ w, w a tile's window and s its value;
    with `variance` also of Σ w² and Σ w |s|², |s|² summed over components, which `correlation` and
    `blended` need. The same tiles in the same order give the same bits, added at once or in parts,
    on any number of `threads` (by default as many as there are cores).
    """

    def __init__(
        self,
        grid: PatchGrid,
        overlap_deg: float,
        nside: int,
        components: int = 1,
        *,
        spin: int = 0,
        threads: int | None = None,
        variance: bool = False,
    ) -> None:
        from ducc0.healpix import Healpix_Base

        rings = Healpix_Base(nside, "RING").sht_info()
        self._theta, self._phi0 = rings["theta"], rings["phi0"]
        self._nphi, self._start = (rings[key].astype(np.int64) for key in ("nphi", "ringstart"))
        # The last pixels' centres are the edge: nothing is known beyond.
        half = grid.pixel_rad * (grid.pixels - 1) / 2
        # How far a tile's corner is from its middle, on the sky.
        reach = 2 * np.arcsin(min(half / np.sqrt(2), 1.0))
        self._shape = np.array([half, reach, np.radians(overlap_deg), grid.pixel_rad])
        self._grid, self._polarized, self._variance = grid, spin == 2, variance
        self._threads = threads or os.cpu_count()
        npix = 12 * nside**2
        self._sums = np.zeros((2 if spin else components, npix), np.float32)
        self._weights = np.zeros(npix, np.float32)
        self._squares, self._powers = np.zeros((2, npix if variance else 0), np.float32)

    def add(self, tiles: np.ndarray, places: pd.DataFrame) -> None:
        """Add tiles (components, n, y, x) at the n `places` (columns lon, lat, in degrees).

        Raises `UserError` for another shape and for values that are not finite; then none is added.
        """
        tiles = np.asarray(tiles, np.float32)
        expected = (len(self._sums), len(places), self._grid.pixels, self._grid.pixels)
        if tiles.shape != expected:
            raise UserError("tiles", f"maps of shape {expected}", tiles.shape)
        knots = self._grid.pixels + 2 * _REACH
        splines = np.empty((len(places), knots, knots, len(tiles)), np.float32)

        def prepare(tile: int) -> None:
            splines[tile] = _coefficients(tiles[:, tile])

        self._each(prepare, range(len(places)))
        lon, lat = (places[name].to_numpy(float) for name in ("lon", "lat"))
        frames = np.stack(frame(lon, lat), axis=1)
        lon, lat = np.radians(lon), np.radians(lat)
        reach = self._shape[1]
        north, south = np.max(lat, initial=-np.pi / 2), np.min(lat, initial=np.pi / 2)
        ends = np.pi / 2 - north - reach, np.pi / 2 - south + reach
        first_met, last_met = (int(np.searchsorted(self._theta, end)) for end in ends)

        def work(first: int) -> None:
            part = slice(first, first + _RINGS)
            _rings(
                self._theta[part],
                self._phi0[part],
                self._nphi[part],
                self._start[part],
                splines,
                frames,
                lon,
                lat,
                self._shape,
                self._polarized,
                self._variance,
                self._sums,
                self._weights,
                self._squares,
                self._powers,
            )

        self._each(work, range(first_met, last_met, _RINGS))

    @property
    def covered(self) -> np.ndarray:
        """Which pixels (npix,) lie in a tile."""
        return self._weights > 0

    def mean(self, *, partial: bool = False) -> np.ndarray:
        """Σ w s / Σ w over the tiles that a pixel lies in, (components, npix) float32.

        Pixels that no tile covers are NaN if `partial`; else they raise `UserError`.
        """
        return self._mean(np.empty_like(self._sums), partial)

    def correlation(self) -> float:
        """Correlation rho, in [0, 1], of tiles where they overlap, of all components together.

        Tiles of the variance v have |Σ w s / Σ w|² = v (q + (1 - q) rho) in the mean, with
        q = Σ w² / (Σ w)² and v = Σ w |s|² / Σ w in the mean. So
        rho = Σ (|mean|² - q v) / v0 over Σ (1 - q) v / v0, summed over the pixels in two tiles or
        more. Division by v0 lets faint parts count as much as bright ones; v0 is v averaged over
        the cell of the sky, about 4° wide, that the pixel lies in and those to the east and west.
        From few independent values what is bright by chance would count less (of 16 a cell,
        rho = 0.5 came out as 0.48), and over a wider part what is bright would count more (small
        scales of dust: 0.44, from 8° 0.48, unweighted 0.73). 1 if no tiles overlap. Raises
        `ValueError` for a mosaic without `variance`.
        """
        if not self._variance:
            raise ValueError("Expected a mosaic made with variance=True. Received: variance=False")
        edges = np.searchsorted(self._theta, np.arange(0, np.pi + _CELL, _CELL))

        def work(band: int) -> tuple[float, float]:
            part = slice(edges[band], edges[band + 1])
            cells = max(round(2 * np.pi * np.sin((band + 0.5) * _CELL) / _CELL), 1)
            return _moments(
                self._nphi[part],
                self._start[part],
                cells,
                self._sums,
                self._weights,
                self._squares,
                self._powers,
            )

        shared, whole = np.sum(self._each(work, range(len(edges) - 1)), axis=0)
        return float(np.clip(shared / whole, 0, 1)) if whole > 0 else 1.0

    def blended(self, *, partial: bool = False) -> np.ndarray:
        """The mean over √(q + (1 - q) rho), (components, npix) float32: keeps the variance.

        For tiles of zero mean, of the same variance at a pixel and of one `correlation` rho of any
        two, the mean's variance is short by what it is divided by (Heitz & Neyret 2018, Proc. ACM
        Comput. Graph. Interact. Tech. 1, 31). `partial` and errors as of `mean` and `correlation`.
        """
        rho = self.correlation()
        out = self.mean(partial=partial)
        for first in range(0, out.shape[1], _PIXELS):
            part = slice(first, first + _PIXELS)
            with np.errstate(invalid="ignore"):
                q = self._squares[part] / self._weights[part] ** 2
            out[:, part] /= np.sqrt(q + (1 - q) * rho)
        return out

    def _mean(self, out: np.ndarray, partial: bool) -> np.ndarray:
        bare = self._weights.size - np.count_nonzero(self._weights)
        if bare and not partial:
            raise UserError("tiles", "every pixel of the sky in a tile", f"{bare} pixels outside")
        with np.errstate(invalid="ignore"):
            return np.divide(self._sums, self._weights, out=out)

    def _each(self, work: Callable[[int], Any], items: Iterable[int]) -> list[Any]:
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(work, items))


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

    The mean of a `Mosaic` of all tiles, which says what windows, components and `spin` are. The
    result does not depend on `threads`. Raises `UserError` for pixels that no tile covers and for
    values that are not finite.
    """
    mosaic = Mosaic(grid, overlap_deg, nside, len(tiles), spin=spin, threads=threads)
    mosaic.add(tiles, places)
    # In the memory of its sums, which nobody else sees.
    return mosaic._mean(mosaic._sums, partial=False)


def _coefficients(tile: np.ndarray) -> np.ndarray:
    """Quintic spline (y, x, components) of a tile, its mirror images joined at the edges."""
    if not np.isfinite(tile).all():
        raise UserError("tiles", "finite values", "others")
    filtered = [ndimage.spline_filter(one, 5, np.float64, mode="mirror") for one in tile]
    padded = np.pad(np.stack(filtered, axis=-1), ((_REACH,) * 2,) * 2 + ((0, 0),), mode="reflect")
    return padded.astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _rings(
    theta,
    phi0,
    nphi,
    start,
    splines,
    frames,
    lon,
    lat,
    shape,
    polarized,
    variance,
    sums,
    weights,
    squares,
    powers,
):
    """Add tiles, one after the other, to rings of the maps of Σ w s, Σ w, Σ w² and Σ w |s|²."""
    half, reach, ramp, pixel = shape
    count = splines.shape[-1]
    middle = half / pixel + _REACH
    value = np.empty(count)
    for ring in range(len(theta)):
        size = nphi[ring]
        step = 2 * np.pi / size
        z, s = np.cos(theta[ring]), np.sin(theta[ring])
        for tile in range(len(lat)):
            if abs(theta[ring] + lat[tile] - np.pi / 2) > reach:
                continue
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
                if weight < _LEAST:
                    continue
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
                at = start[ring] + i % size
                weights[at] += weight
                power = 0.0
                for k in range(count):
                    sums[k, at] += weight * value[k]
                    power += value[k] * value[k]
                if variance:
                    squares[at] += weight * weight
                    powers[at] += weight * power


@njit(cache=True, nogil=True, error_model="numpy")
def _moments(nphi, start, cells, sums, weights, squares, powers):
    """What `Mosaic.correlation` divides, of a band of rings that is `cells` cells long."""
    total, number = np.zeros(cells), np.zeros(cells)
    for ring in range(len(nphi)):
        for i in range(nphi[ring]):
            at = start[ring] + i
            if weights[at] > 0:
                cell = i * cells // nphi[ring]
                total[cell] += powers[at] / weights[at]
                number[cell] += 1
    around = np.zeros(cells)
    for cell in range(cells):
        west, east = cell - 1, (cell + 1) % cells
        count = number[west] + number[cell] + number[east]
        if count > 0:
            around[cell] = (total[west] + total[cell] + total[east]) / count
    shared, whole = 0.0, 0.0
    for ring in range(len(nphi)):
        for i in range(nphi[ring]):
            at = start[ring] + i
            v0 = around[i * cells // nphi[ring]]
            weight = np.float64(weights[at])
            if weight == 0 or v0 == 0:
                continue
            q = squares[at] / weight**2
            if 1 - q < _ALONE:
                continue
            mean = 0.0
            for k in range(len(sums)):
                mean += (sums[k, at] / weight) ** 2
            v = powers[at] / weight
            shared += (mean - q * v) / v0
            whole += (1 - q) * v / v0
    return shared, whole


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
