"""Tiles of the whole sky, and one map again: layout, round trips of spin 0 and 2, seams, edges.

Tiles that differ where they overlap: their correlation, and the variance of what is made of them.
"""

import healpy
import numpy as np
import pytest
from scipy import ndimage

from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.sky.harmonic import evaluate
from skyweave.sky.projection import patch_directions, to_patch_frame, to_plane
from skyweave.sky.tiles import Mosaic, layout, reproject

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


# Tiles that differ: 252 of them, each pixel in 2.4 in the mean, noise of 1.5 pixels' width.
COARSE, WIDE, SIDE, DRAWS = PatchGrid(20.0, 64), 5.0, 64, 6
TABLE = layout(20, WIDE)


def noise(components, *identity):
    """Tiles (components, n, y, x) of independent smooth noise of unit variance."""
    shape = (components, len(TABLE), COARSE.pixels, COARSE.pixels)
    white = generator(1, "tiles", *identity).standard_normal(shape)
    point = np.zeros(shape[2:])
    point[0, 0] = 1
    kernel = ndimage.gaussian_filter(point, 1.5, mode="wrap")
    rms = np.sqrt(np.sum(kernel**2))
    return ndimage.gaussian_filter(white, 1.5, mode="wrap", axes=(2, 3)) / rms


def windows(table=TABLE):
    """Windows (n, npix) of tiles at the map's pixels, from their definition."""
    pixels = healpy.pix2ang(SIDE, np.arange(12 * SIDE**2), lonlat=True)
    half = np.radians(COARSE.size_deg) * (COARSE.pixels - 1) / COARSE.pixels / 2
    out = np.zeros((len(table), len(pixels[0])))
    for window, lon, lat in zip(out, table.lon, table.lat, strict=True):
        near = healpy.query_disc(SIDE, healpy.ang2vec(lon, lat, lonlat=True), np.radians(15))
        away = np.abs(to_plane(lon, lat, *(axis[near] for axis in pixels)))
        depth = np.clip((half - away) / np.radians(WIDE), 0, 1)
        window[near] = np.prod((1 - np.cos(np.pi * depth)) / 2, axis=0)
    return out


@pytest.fixture(scope="module")
def seen():
    """Windows (n, npix) and q = Σ w² / (Σ w)² of the tiles."""
    found = windows()
    return found, np.sum(found**2, axis=0) / np.sum(found, axis=0) ** 2


def mosaic(tiles, table=TABLE, **options):
    made = Mosaic(COARSE, WIDE, SIDE, len(tiles), variance=True, **options)
    made.add(tiles, table)
    return made


def assert_mean(values, expected, largest):
    """The mean of `values` is `expected` within four errors, of `largest` at most."""
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert error < largest
    assert abs(np.mean(values) - expected) < 4 * error


def test_mean_and_blending_follow_their_definition(seen):
    window, q = seen
    values = generator(1, "constant").standard_normal((1, len(TABLE), 1, 1))
    made = mosaic(values * np.ones((COARSE.pixels, COARSE.pixels)))
    expected = np.einsum("cnyx,np->cp", values, window) / window.sum(axis=0)
    np.testing.assert_allclose(made.mean(), expected, atol=2e-6)
    gain = 1 / np.sqrt(q + (1 - q) * made.correlation())
    np.testing.assert_allclose(made.blended(), expected * gain, atol=4e-6)


@pytest.mark.parametrize("spin", [0, 2])
def test_blending_keeps_the_variance_of_independent_tiles(seen, spin):
    window, q = seen
    alone = np.sum(window > 0, axis=0) == 1
    assert 0.1 < alone.mean() < 0.9
    found = []
    for draw in range(DRAWS):
        made = mosaic(noise(2 if spin else 1, "independent", spin, draw), spin=spin)
        mean, blended = made.mean(), made.blended()
        both = mean[:, ~alone].var(), blended[:, ~alone].var(), blended[:, alone].var()
        found.append((made.correlation(), *both))
    rho, short, kept, inside = np.transpose(found)
    # It cannot be below zero.
    assert rho.max() < 0.02
    assert q[~alone].mean() < 0.7
    assert_mean(short, q[~alone].mean(), 0.01)
    assert_mean(inside, 1, 0.02)
    assert np.mean(kept) == pytest.approx(1, abs=0.01)


@pytest.fixture(scope="module", params=[0, 2], ids=["spin0", "spin2"])
def shared(request):
    """Spin, tiles and map of one sky with unit variance (of a component)."""
    spin = request.param
    rng = generator(1, "shared", spin)
    ell, m = healpy.Alm.getlm(LMAX)
    alm = rng.standard_normal(ell.size) + 1j * rng.standard_normal(ell.size) * (m > 0)
    alm *= np.where(ell >= 2, np.exp(-((ell / 100) ** 2)), 0) * np.where(m > 0, 0.5**0.5, 1)
    multipole = np.arange(2, LMAX + 1)
    variance = np.sum((2 * multipole + 1) * np.exp(-2 * (multipole / 100) ** 2)) / (4 * np.pi)
    alm /= np.sqrt(variance / (2 if spin else 1))
    if spin:
        alms = np.stack([alm, 0 * alm])
        truth = np.stack(healpy.alm2map_spin(alms, SIDE, 2, LMAX))
    else:
        alms = alm[None]
        truth = healpy.alm2map(alm, SIDE, LMAX)[None]
    assert truth.var() == pytest.approx(1, rel=0.03)
    return spin, cut(alms, spin, TABLE, COARSE), truth


def test_tiles_of_one_sky_are_fully_correlated(shared):
    spin, tiles, truth = shared
    made = mosaic(tiles, spin=spin)
    assert made.correlation() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(made.blended(), made.mean(), atol=1e-5)
    np.testing.assert_allclose(made.blended(), truth, atol=0.02)


@pytest.mark.parametrize("contrast", [1, 100])
def test_a_shared_and_an_own_part_are_correlated_by_half(shared, seen, contrast):
    """Also where the amplitude grows by 100 from pole to pole, its square by ten thousand."""
    spin, tiles, truth = shared
    q = seen[1]
    # Half but for the one sky's own variance where tiles overlap.
    part = np.sum((1 - q) * np.mean(truth**2, axis=0)) / np.sum(1 - q)
    expected = part / (1 + part)
    assert expected == pytest.approx(0.5, abs=0.01)
    places = zip(TABLE.lon, TABLE.lat, strict=True)
    lat = np.stack([patch_directions(*place, COARSE)[1] for place in places])
    amplitude = contrast ** (np.sin(np.radians(lat)) / 2)
    found, variances = [], []
    for draw in range(DRAWS):
        own = noise(len(tiles), "own", spin, draw)
        made = mosaic((tiles + own) * amplitude, spin=spin)
        found.append(made.correlation())
        lat_map = healpy.pix2ang(SIDE, np.arange(truth.shape[1]), lonlat=True)[1]
        even = made.blended() / contrast ** (np.sin(np.radians(lat_map)) / 2)
        variances.append(even[:, q < 0.7].var() / even[:, q > 0.99].var())
    # A cell holds some 16 independent values here, and v0 is of three: what is bright by chance
    # counts less.
    assert np.std(found, ddof=1) / np.sqrt(len(found)) < 0.005
    assert expected - 0.025 < np.mean(found) < expected + 0.005
    assert np.mean(variances) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("spin", [0, 2])
def test_parts_and_threads_change_no_bit(spin):
    tiles = noise(2, "parts", spin)
    whole = mosaic(tiles, spin=spin)
    parts = Mosaic(COARSE, WIDE, SIDE, 2, spin=spin, threads=1, variance=True)
    for part in (slice(100), slice(100, 101), slice(101, 101), slice(101, None)):
        parts.add(tiles[:, part], TABLE[part])
    assert parts.correlation() == whole.correlation()
    np.testing.assert_array_equal(parts.mean(), whole.mean())
    np.testing.assert_array_equal(parts.blended(), whole.blended())
    np.testing.assert_array_equal(
        parts.mean(), reproject(tiles, TABLE, COARSE, WIDE, SIDE, spin=spin)
    )


def test_pixels_without_a_tile_are_nan_if_allowed():
    tiles, table = noise(1, "partial")[:, :40], TABLE[:40]
    made = mosaic(tiles, table)
    covered = windows(table).sum(axis=0) > 0
    assert 0.1 < covered.mean() < 0.5
    np.testing.assert_array_equal(made.covered, covered)
    for found in (made.mean(partial=True), made.blended(partial=True)):
        np.testing.assert_array_equal(np.isfinite(found[0]), covered)
    for refused in (made.mean, made.blended):
        with pytest.raises(UserError, match="every pixel of the sky in a tile, found"):
            refused()


def test_a_tile_alone_stays_as_it_is():
    made = mosaic(noise(1, "alone")[:, :1], TABLE[:1])
    assert made.correlation() == 1
    np.testing.assert_allclose(made.blended(partial=True), made.mean(partial=True), rtol=1e-6)


def test_a_sky_of_zeros_stays_zero():
    made = mosaic(np.zeros((1, len(TABLE), COARSE.pixels, COARSE.pixels)))
    assert made.correlation() == 1
    assert not made.blended().any()


def test_tiles_that_are_refused_leave_the_mosaic_as_it_was():
    made = Mosaic(COARSE, WIDE, SIDE)
    tiles = noise(1, "refused")
    for wrong, words in ((tiles[0], "maps of shape"), (tiles * np.inf, "finite values")):
        with pytest.raises(UserError, match=f"tiles: expected {words}"):
            made.add(wrong, TABLE)
    assert not made.covered.any()


def test_a_mosaic_without_variance_has_no_correlation():
    made = Mosaic(COARSE, WIDE, SIDE)
    for call in (made.correlation, made.blended):
        with pytest.raises(ValueError, match="variance=True"):
            call()
