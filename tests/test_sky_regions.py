"""Regions of a HEALPix mask: found, continued into, and put on tiles."""

import healpy
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skyweave.flat.grid import PatchGrid
from skyweave.sky.holes import Tiling, continued, find_regions, hole_patch, missing_at
from skyweave.sky.projection import to_plane

NSIDE = 32
NPIX = 12 * NSIDE**2
#: Discs (lon, lat, radius in degrees): both poles, the border of longitude, where three of
#: HEALPix's faces meet, and two more.
DISCS = [(0, 90, 5), (120, -90, 4), (359.5, 2, 6), (45, 41.8, 5), (200, 30, 0.1), (210, -60, 8)]


def disc(lon: float, lat: float, radius: float, nside: int = NSIDE) -> np.ndarray:
    vector = healpy.ang2vec(lon, lat, lonlat=True)
    return healpy.query_disc(nside, vector, np.radians(radius), inclusive=radius < 1)


def mask(*discs: tuple[float, float, float], nside: int = NSIDE) -> np.ndarray:
    missing = np.zeros(12 * nside**2, bool)
    for one in discs:
        missing[disc(*one, nside=nside)] = True
    return missing


def flooded(missing: np.ndarray) -> list[list[int]]:
    """Regions by an explicit loop."""
    nside, left, found = healpy.npix2nside(missing.size), set(np.flatnonzero(missing)), []
    while left:
        todo, region = [min(left)], []
        left.discard(todo[0])
        while todo:
            pixel = todo.pop()
            region.append(int(pixel))
            near = set(healpy.get_all_neighbours(nside, pixel)) & left
            left -= near
            todo += near
        found.append(sorted(region))
    return found


def test_discs_at_known_places_are_found():
    found = find_regions(mask(*DISCS))
    assert len(found) == len(DISCS)
    for lon, lat, radius in DISCS:
        pixels = disc(lon, lat, radius)
        (region,) = (one for one in found if set(one.pixels) & set(pixels))
        assert_array_equal(region.pixels, np.sort(pixels))
        vector = healpy.ang2vec(*region.centre, lonlat=True)
        away = np.degrees(np.arccos(min(vector @ healpy.ang2vec(lon, lat, lonlat=True), 1)))
        assert away < np.degrees(healpy.nside2resol(NSIDE)) / 2 + (radius < 1)
        if radius >= 4:
            assert abs(region.radius_deg - radius) < np.degrees(healpy.nside2resol(NSIDE)) / 2
            area = 2 * np.pi * (1 - np.cos(np.radians(region.radius_deg)))
            assert_allclose(area, pixels.size * healpy.nside2pixarea(NSIDE))


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_regions_of_random_pixels_are_those_of_a_loop(share):
    missing = np.random.default_rng(3).random(12 * 8**2) < share
    found = [region.pixels.tolist() for region in find_regions(missing)]
    assert found == flooded(missing)


def test_an_order_of_pixels_is_as_good_as_the_other():
    missing = mask(*DISCS)
    ring = find_regions(missing)
    nest = find_regions(healpy.reorder(missing, r2n=True), nested=True)
    assert len(ring) == len(nest)
    for one, other in zip(ring, nest, strict=True):
        assert_array_equal(one.pixels, other.pixels)


def test_nothing_missing_is_no_region():
    assert find_regions(np.zeros(NPIX, bool)) == []


def test_a_mask_at_another_nside():
    missing = mask((30, 20, 3), nside=32)
    finer = missing_at(missing, 64)
    pixels = np.arange(finer.size)
    parents = healpy.ang2pix(32, *healpy.pix2ang(64, pixels))
    assert_array_equal(finer, missing[parents])
    assert_array_equal(missing_at(finer, 32), missing)
    lone = np.zeros(finer.size, bool)
    lone[1234] = True
    assert_array_equal(np.flatnonzero(missing_at(lone, 32)), [parents[1234]])
    assert missing_at(lone, 64) is lone


def test_a_continuation_is_the_mean_of_neighbours():
    missing = mask(*DISCS)
    values = np.random.default_rng(1).standard_normal(NPIX)
    found = continued(np.where(missing, np.nan, values), missing)
    assert_array_equal(found[~missing], values[~missing])
    for pixel in np.flatnonzero(missing):
        near = healpy.get_all_neighbours(NSIDE, pixel)
        assert_allclose(found[pixel], found[near[near >= 0]].mean(), atol=1e-4)
    with pytest.raises(ValueError, match="pixels that are seen"):
        continued(values, np.ones(NPIX, bool))
    assert_array_equal(continued(values, np.zeros(NPIX, bool)), values)


@pytest.mark.parametrize(("lon", "lat", "radius"), [(0, 90, 5), (0, 3, 6), (45, 41, 5)])
@pytest.mark.parametrize("pixels", [12, 60])
def test_every_missing_pixel_lies_in_a_hole_of_the_tile(lon, lat, radius, pixels):
    grid, missing = PatchGrid(20.0, pixels), mask(*DISCS)
    hole = hole_patch(missing, lon, lat, grid)
    there = np.flatnonzero(missing)
    x, y = to_plane(lon, lat, *healpy.pix2ang(NSIDE, there, lonlat=True))
    x, y = (np.rint(one / grid.pixel_rad + (pixels - 1) / 2).astype(int) for one in (x, y))
    inside = (np.minimum(x, y) >= 0) & (np.maximum(x, y) < pixels)
    assert inside.any()
    assert hole[y[inside], x[inside]].all()
    # A pixel at the rim counts with any part of it.
    share = np.pi * radius**2 / grid.size_deg**2
    assert 0.8 * share < hole.mean() < 1.6 * share
    assert hole_patch(~missing, lon, lat, grid)[~hole].all()
    assert not hole_patch(np.zeros(NPIX, bool), lon, lat, grid).any()


def test_a_region_lies_on_the_tile_that_it_is_most_central_on():
    tiling, inner = Tiling(PatchGrid(24.0, 16)), np.radians(9)
    for region in find_regions(mask(*DISCS)):
        tiles = list(tiling.holding(region, inner))
        kinds = [tile.name[0] for tile in tiles]
        assert kinds[-1] == "hole"
        assert set(kinds[:-1]) <= {"tile"}
        extents = [region.extent(tile.lon, tile.lat) for tile in tiles]
        assert max(extents) <= inner
        assert extents[:-1] == sorted(extents[:-1])
        assert extents[-1] <= extents[0] + np.radians(1)
        assert list(tiling.holding(region, inner, own=True)) == tiles[-1:]


def test_a_region_between_tiles_gets_its_own_and_a_larger_one_none():
    tiling, inner = Tiling(PatchGrid(20.0, 16)), np.radians(7.5)
    (region,) = find_regions(mask((5.0, 5.0, 6.5)))
    (tile,) = tiling.holding(region, inner)
    assert tile.name == ("hole", region.pixels[0])
    assert_allclose((tile.lon, tile.lat), (5, 5), atol=0.6)
    for large in (mask((0, 0, 9.0)), mask((0, 0, 60.0)), np.ones(NPIX, bool)):
        (region,) = find_regions(large)
        assert list(tiling.holding(region, inner)) == []
