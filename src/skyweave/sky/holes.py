"""The holes of a HEALPix map: connected regions, smooth filling, and the tiles they lie on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg

from skyweave.flat.grid import PatchGrid
from skyweave.sky.places import mask_patch
from skyweave.sky.projection import from_plane, to_plane, unit_vector
from skyweave.sky.tiles import layout

#: Tiles of a layout that a region is tried on, those nearest to it.
_NEAREST = 9
#: Pixels whose neighbours are looked up at a time.
_PIXELS = 2**20
#: Nearer to a pole than this the centre of a region has no longitude, degrees.
_POLE_DEG = 1e-4
#: Accuracy of a smooth filling, relative to the values at the holes' edges.
_ACCURACY = 1e-6


@dataclass(frozen=True)
class Region:
    """Connected missing pixels of a HEALPix map, RING numbers (n,) in ascending order."""

    pixels: np.ndarray
    nside: int

    @cached_property
    def directions(self) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude (n,) of the pixels' centres, degrees."""
        import healpy

        lon, lat = healpy.pix2ang(self.nside, self.pixels, lonlat=True)
        return lon, lat

    @property
    def radius_deg(self) -> float:
        """Radius of the disc on the sphere of the same area, degrees."""
        share = self.pixels.size / (12 * self.nside**2)
        return float(np.degrees(np.arccos(1 - 2 * share)))

    @cached_property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude (degrees) of a tile on which the region lies in the middle."""
        vector = unit_vector(*self.directions).mean(axis=0)
        lon = float(np.degrees(np.arctan2(vector[1], vector[0])) % 360)
        lat = float(np.degrees(np.arctan2(vector[2], np.hypot(vector[0], vector[1]))))
        for _ in range(2):
            middle = [(p.min() + p.max()) / 2 for p in to_plane(lon, lat, *self.directions)]
            if not np.hypot(*middle) < 1:
                break  # more than a hemisphere, which no tile holds
            lon, lat = (float(angle) for angle in from_plane(lon, lat, *map(np.asarray, middle)))
        # At a pole the longitude would be that of rounding errors, and it turns a tile.
        return (round(lon, 6) % 360 if abs(lat) < 90 - _POLE_DEG else 0.0), round(lat, 6)

    def extent(self, lon: float, lat: float) -> float:
        """Largest |x| or |y| (radians) of the pixels on the plane of a tile at (lon, lat)."""
        return float(np.max(np.abs(to_plane(lon, lat, *self.directions))))


@dataclass(frozen=True)
class Tile:
    """A place of a tile, degrees, with a name that neither mask nor order changes."""

    name: tuple[str, int]
    lon: float
    lat: float


class Tiling:
    """The tiles of the sky's layout (`sky.tiles.layout`), half a tile apart."""

    def __init__(self, grid: PatchGrid) -> None:
        table = layout(grid.size_deg, grid.size_deg / 2)
        self._tiles = [
            Tile(("tile", int(number)), float(lon), float(lat))
            for number, lon, lat in zip(table["tile"], table["lon"], table["lat"], strict=True)
        ]
        self._vectors = unit_vector(table["lon"].to_numpy(), table["lat"].to_numpy())

    def holding(self, region: Region, inner: float, *, own: bool = False) -> Iterator[Tile]:
        """Tiles on which a region lies wholly within |x|, |y| <= `inner` (radians), best first.

        Those of the layout, the one that it is most central on before others; last a tile of the
        region's own, centred on it; with `own` no other.
        """
        if np.radians(region.radius_deg) > 2 * inner:
            return  # larger than the square, whose half diagonal is 1.4 of `inner`
        lon, lat = region.centre
        nearest = np.argsort(-(self._vectors @ unit_vector(lon, lat)), kind="stable")[:_NEAREST]
        near = (self._tiles[i] for i in nearest)
        found = [(region.extent(tile.lon, tile.lat), tile) for tile in near if not own]
        found = sorted((one for one in found if one[0] <= inner), key=lambda one: one[0])
        yield from (tile for _, tile in found)
        if region.extent(lon, lat) <= inner:
            yield Tile(("hole", int(region.pixels[0])), lon, lat)


def find_regions(missing: np.ndarray, *, nested: bool = False) -> list[Region]:
    """Connected regions of a boolean map (npix,), True where it is missing, RING or NESTED.

    Pixels that share an edge or a corner are connected. In the order of their first RING pixels.
    """
    import healpy

    if nested:
        missing = healpy.reorder(missing, n2r=True)
    nside = healpy.npix2nside(missing.size)
    pixels, pairs, _ = _neighbours(missing)
    graph = sparse.coo_array((np.ones(len(pairs), bool), pairs.T), shape=(pixels.size,) * 2)
    _, labels = connected_components(graph.tocsr(), directed=False)
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    parts = [part for part in np.split(pixels[order], cuts) if part.size]
    return [Region(part, nside) for part in sorted(parts, key=lambda part: int(part[0]))]


def missing_at(missing: np.ndarray, nside: int) -> np.ndarray:
    """RING mask (npix,), True where missing, at another nside.

    Finer pixels repeat the coarser one they lie in; a coarser one is missing where any in it is.
    """
    import healpy

    own = healpy.npix2nside(missing.size)
    if own == nside:
        return missing
    nest = healpy.reorder(missing, r2n=True)
    if own < nside:
        nest = np.repeat(nest, (nside // own) ** 2)
    else:
        nest = nest.reshape(12 * nside**2, -1).any(axis=1)
    return healpy.reorder(nest, n2r=True)


def continued(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """RING map (npix,) float64 whose missing pixels are each the mean of their neighbours.

    The discrete harmonic function: it joins the holes' edges without a step, which would ring over
    what is seen once the map is cut at a band limit. Raises `ValueError` where nothing is seen.
    """
    if missing.all():
        raise ValueError("Expected a map with pixels that are seen. Received: none")
    out = np.array(values, float)
    pixels, pairs, seen = _neighbours(missing)
    if not pixels.size:
        return out
    degree = np.bincount(pairs.ravel(), minlength=pixels.size).astype(float)
    degree += np.bincount(seen[:, 0], minlength=pixels.size)
    edges = np.bincount(seen[:, 0], weights=out[seen[:, 1]], minlength=pixels.size)
    one, two = np.concatenate([pairs, pairs[:, ::-1]]).T
    # Scaled by the degrees on both sides, which leaves the matrix symmetric.
    scale = 1 / np.sqrt(degree)
    links = sparse.coo_array((-scale[one] * scale[two], (one, two)), shape=(pixels.size,) * 2)
    matrix = (links + sparse.eye_array(pixels.size)).tocsr()
    found, _ = cg(matrix, scale * edges, rtol=_ACCURACY, maxiter=10 * pixels.size)
    out[pixels] = scale * found
    return out


def hole_patch(missing: np.ndarray, lon: float, lat: float, grid: PatchGrid) -> np.ndarray:
    """Boolean (y, x) of a tile, True where a RING map (npix,) is missing.

    A tile's pixel is missing if its centre lies in a missing HEALPix pixel, or if it is the one
    nearest to the centre of one.
    """
    import healpy

    nside = healpy.npix2nside(missing.size)
    hole = mask_patch(missing, lon, lat, grid)
    half = np.radians(grid.size_deg) / 2
    corner = min(2 * np.arcsin(min(half / np.sqrt(2), 1)) + healpy.nside2resol(nside), np.pi)
    near = healpy.query_disc(nside, healpy.ang2vec(lon, lat, lonlat=True), corner)
    near = near[missing[near]]
    points = to_plane(lon, lat, *healpy.pix2ang(nside, near, lonlat=True))
    x, y = (np.rint(p / grid.pixel_rad + (grid.pixels - 1) / 2).astype(int) for p in points)
    inside = (x >= 0) & (x < grid.pixels) & (y >= 0) & (y < grid.pixels)
    hole[y[inside], x[inside]] = True
    return hole


def _neighbours(missing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Missing RING pixels (n,), pairs of neighbours among them, and (one of them, a seen pixel).

    Pairs (pairs, 2) hold positions in the list of missing pixels, each pair once; the others a
    position and a pixel.
    """
    import healpy

    nside = healpy.npix2nside(missing.size)
    pixels = np.flatnonzero(missing)
    pairs: Sequence[np.ndarray] = [np.empty((0, 2), np.int64)]
    seen: Sequence[np.ndarray] = [np.empty((0, 2), np.int64)]
    for start in range(0, pixels.size, _PIXELS):
        part = pixels[start : start + _PIXELS]
        # (8, n); -1 where three pixels meet, and there is no neighbour.
        beside = healpy.get_all_neighbours(nside, part)
        own = np.broadcast_to(start + np.arange(part.size), beside.shape)
        there = beside >= 0
        empty = there & missing[beside]
        later = empty & (beside > part)
        pairs = [*pairs, np.stack([own[later], np.searchsorted(pixels, beside[later])], axis=1)]
        edge = there & ~empty
        seen = [*seen, np.stack([own[edge], beside[edge]], axis=1)]
    return pixels, np.concatenate(pairs), np.concatenate(seen)
