"""Tiles of the whole sky, and one map again: layout, round trips of spin 0 and 2, seams, edges."""

import healpy
import numpy as np
import pytest

from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.sky.harmonic import evaluate
from skyweave.sky.projection import patch_directions, to_patch_frame
from skyweave.sky.tiles import layout, reproject

NSIDE, LMAX, OVERLAP = 128, 250, 2.0
GRID = PatchGrid(20.0, 128)


def rows(table):
    return table.groupby("lat").size().tolist()


def test_the_published_layouts():
    assert rows(layout(20, 2)) == [7, 10, *[20] * 7, 10, 7]
    assert len(layout(20, 2)) == 174
    assert len(layout(20, 5)) == 252


@pytest.mark.parametrize(
    ("size", "overlap"), [(20, 2), (20, 5), (10, 1), (5, 0.5), (15, 7.5), (40, 4), (11, 1.3)]
)
def test_every_pixel_is_in_a_tile(size, overlap):
    table = layout(size, overlap)
    ones = np.ones((1, len(table), 16, 16))
    found = reproject(ones, table, PatchGrid(size, 16), overlap * 0.5, 64)
    np.testing.assert_allclose(found, 1, rtol=1e-5)


def cut(alm, spin, table, grid=GRID):
    """Tiles (components, n, y, x) of a field, evaluated where their pixels are."""
    tiles = []
    for lon, lat in zip(table.lon, table.lat, strict=True):
        points = patch_directions(lon, lat, grid)
        maps = evaluate(alm, np.ones(LMAX + 1), *points, spin).reshape(-1, *points[0].shape)
        tiles.append(np.stack(to_patch_frame(*maps, *points, lon, lat)) if spin else maps)
    return np.stack(tiles, axis=1)


@pytest.fixture(scope="module", params=[0, 2], ids=["spin0", "spin2"])
def trip(request):
    """Spin, alm (T, or E without B), the true maps and those that went through tiles."""
    spin = request.param
    rng = np.random.default_rng(spin)
    ell, m = healpy.Alm.getlm(LMAX)
    alm = rng.standard_normal(ell.size) + 1j * rng.standard_normal(ell.size) * (m > 0)
    alm *= np.where(ell >= spin, (ell + 1.0) ** -1.2, 0)
    if spin:
        alms = np.stack([alm, 0 * alm])
        truth = np.stack(healpy.alm2map_spin(alms, NSIDE, 2, LMAX))
    else:
        alms = alm[None]
        truth = healpy.alm2map(alm, NSIDE, LMAX)[None]
    table = layout(GRID.size_deg, OVERLAP)
    tiles = cut(alms, spin, table)
    return spin, alms, truth, tiles, reproject(tiles, table, GRID, OVERLAP, NSIDE, spin=spin)


def test_a_band_limited_map_comes_back(trip):
    _, _, truth, _, found = trip
    assert np.std(found - truth) < 2e-4 * np.std(truth)
    assert np.abs(found - truth).max() < 5e-3 * np.std(truth)


def test_the_poles_and_the_wrap_in_longitude_come_back(trip):
    _, _, truth, _, found = trip
    lon, lat = healpy.pix2ang(NSIDE, np.arange(truth.shape[1]), lonlat=True)
    for where in (lat > 80, lat < -80, (np.abs(lon - 180) > 177) & (np.abs(lat) < 60)):
        assert where.sum() > 500
        error = np.std((found - truth)[:, where])
        assert error < 5e-4 * np.std(truth[:, where])


def test_spectra_come_back_and_e_makes_no_b(trip):
    spin, alms, _, _, found = trip
    if spin:
        e, b = healpy.map2alm_spin(found.astype(float), 2, LMAX)
        assert healpy.alm2cl(b)[2:].sum() < 1e-5 * healpy.alm2cl(e)[2:].sum()
    else:
        e = healpy.map2alm(found[0].astype(float), LMAX, iter=3)
    ratio = healpy.alm2cl(e)[2:] / healpy.alm2cl(alms[0])[2:]
    np.testing.assert_allclose(ratio, 1, rtol=5e-3)


def test_threads_change_nothing(trip):
    spin, _, _, tiles, found = trip
    table = layout(GRID.size_deg, OVERLAP)
    again = reproject(tiles, table, GRID, OVERLAP, NSIDE, spin=spin, threads=1)
    np.testing.assert_array_equal(again, found)


def test_tiles_that_disagree_are_averaged():
    """In the middle of the overlap of two tiles at the equator both have the same weight."""
    table = layout(20, 4)
    tiles = np.zeros((1, len(table), 32, 32))
    (one, other) = table.index[(table.lat == table.lat.abs().min()) & (table.lon < 30)][:2]
    tiles[0, one], tiles[0, other] = 1, 3
    found = reproject(tiles, table, PatchGrid(20, 32), 4, 256)[0]
    lon, lat = (table[name] for name in ("lon", "lat"))
    middle = (lon[one] + lon[other]) / 2
    at = [lon[one], middle, lon[other]]
    values = healpy.get_interp_val(found, at, [lat[one]] * 3, lonlat=True)
    np.testing.assert_allclose(values, [1, 2, 3], rtol=0.005)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tiles, table: (tiles[:, :-1], table), "maps of shape"),
        (lambda tiles, table: (tiles[:, 20:], table[20:]), "every pixel of the sky in a tile"),
        (lambda tiles, table: (np.where(tiles == 0, np.nan, tiles), table), "finite values"),
    ],
)
def test_what_makes_no_whole_sky_is_refused(change, words):
    table = layout(20, 2)
    tiles, table = change(np.zeros((1, len(table), 16, 16)), table)
    with pytest.raises(UserError, match=f"tiles: expected {words}"):
        reproject(tiles, table, PatchGrid(20, 16), 2, 16)


@pytest.mark.parametrize(("size", "overlap"), [(20, 0), (20, 11), (50, 5)])
def test_layouts_that_make_no_sense_are_refused(size, overlap):
    with pytest.raises(UserError, match="tiles: expected a size up to 40 deg"):
        layout(size, overlap)
