"""Holes cut from a mask of the sky."""

import h5py
import healpy
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from skyweave.config import Holes
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.images.holes import HoleSource
from skyweave.seeds import generator
from skyweave.sky.places import uniform_directions
from skyweave.sky.projection import patch_directions
from skyweave.sky.skymap import write_mask
from skyweave.sky.user_mask import read_seen
from skyweave.tasks.sky_holes import cut_holes, read_holes

NSIDE = 256
NPIX = 12 * NSIDE**2
LON, LAT = healpy.pix2ang(NSIDE, np.arange(NPIX), lonlat=True)
#: Seen away from a plane, and outside some discs of a few pixels.
SEEN = np.abs(LAT) > 25
for centre in healpy.vec2pix(NSIDE, *np.random.default_rng(0).standard_normal((3, 400))):
    SEEN[healpy.query_disc(NSIDE, healpy.pix2vec(NSIDE, centre), np.radians(0.7))] = False
GRID = PatchGrid(6.0, 32)
SETTINGS = {"size_deg": 6.0, "pixels": 32, "count": 30, "area": 0.3, "seed": 1, "name": "run"}


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    path = tmp_path_factory.mktemp("sky") / "mask.fits"
    write_mask(path, SEEN)
    return path


def cut(tmp_path, mask, out="holes.h5", **changes):
    """Holes (n, y, x), and the longitude and latitude (n, 2) of each."""
    cut_holes(tmp_path / out, mask=mask, **(SETTINGS | changes))
    with h5py.File(tmp_path / out) as file:
        return read_holes(tmp_path / out), np.asarray(file["centres"])


def distances(lon, lat, table):
    """Arcminutes (y, x, sources) from each pixel of a patch, by the haversine formula."""
    lon, lat = (np.radians(angle)[..., None] for angle in patch_directions(lon, lat, GRID))
    to_lon, to_lat = np.radians(table["lon"].to_numpy()), np.radians(table["lat"].to_numpy())
    half = np.sin((lat - to_lat) / 2) ** 2
    half = half + np.cos(lat) * np.cos(to_lat) * np.sin((lon - to_lon) / 2) ** 2
    return 60 * np.degrees(2 * np.arcsin(np.sqrt(half)))


def test_pieces_are_the_masks_where_they_lie(tmp_path, mask):
    holes, centres = cut(tmp_path, mask)
    assert holes.shape == (30, 32, 32)
    assert holes.dtype == bool
    share = holes.mean(axis=(1, 2))
    assert share.min() > 0
    assert share.max() <= 0.3
    for hole, (lon, lat) in zip(holes, centres, strict=True):
        pixels = healpy.ang2pix(NSIDE, *patch_directions(lon, lat, GRID), lonlat=True)
        np.testing.assert_array_equal(hole, ~SEEN[pixels])


def test_none_that_fits_is_left_out(tmp_path, mask):
    # Directions as they are drawn, each looked up without a first glance.
    holes, _ = cut(tmp_path, mask, count=20, area=0.1)
    directions = uniform_directions(generator(1, "run", "holes of the sky"), 1000)
    found = []
    for lon, lat in zip(*directions, strict=True):
        pixels = healpy.ang2pix(NSIDE, *patch_directions(lon, lat, GRID), lonlat=True)
        hole = ~SEEN[pixels]
        if 0 < hole.mean() <= 0.1:
            found.append(hole)
        if len(found) == 20:
            break
    np.testing.assert_array_equal(holes, found)


@pytest.mark.parametrize(("inside", "edge"), [(0.125, 4), (0.1, 4), (0.25, 8)])
def test_a_margin_is_kept_clear(tmp_path, mask, inside, edge):
    # A pixel that the margin ends in belongs to it: .1 of 32 is 3.2.
    count, rng = 6, generator(1, "run", "holes of the sky")
    holes, _ = cut(tmp_path, mask, count=count, inside=inside)
    rim = np.ones((32, 32), bool)
    rim[edge:-edge, edge:-edge] = False
    found = []
    while len(found) < count:
        for lon, lat in zip(*uniform_directions(rng, 1000), strict=True):
            pixels = healpy.ang2pix(NSIDE, *patch_directions(lon, lat, GRID), lonlat=True)
            hole = ~SEEN[pixels]
            if 0 < hole.mean() <= 0.3 and not hole[rim].any():
                found.append(hole)
    np.testing.assert_array_equal(holes, found[:count])
    whole, _ = cut(tmp_path, mask, inside=0.0)
    np.testing.assert_array_equal(whole, cut(tmp_path, mask)[0])
    assert whole[:, rim].any()


def test_sources_are_discs_of_the_patch(tmp_path, mask):
    rng = np.random.default_rng(1)
    lat = np.degrees(np.arcsin(rng.uniform(-1, 1, 300)))
    table = pd.DataFrame({"lon": rng.uniform(0, 360, 300), "lat": lat, "snr": 9.0})
    table.to_csv(tmp_path / "sources.csv", index=False)
    write_mask(tmp_path / "whole.fits", np.ones(NPIX, bool))
    # 3 pixels of 11.25 arcmin are the least.
    for radius, expected in ((50.0, 50.0), (10.0, 33.75)):
        holes, centres = cut(
            tmp_path,
            tmp_path / "whole.fits",
            sources=tmp_path / "sources.csv",
            source_radius_arcmin=radius,
        )
        for hole, (lon, lat) in zip(holes, centres, strict=True):
            nearest = distances(lon, lat, table).min(axis=-1)
            np.testing.assert_array_equal(hole, nearest <= expected)
    # They add to the mask's own holes.
    both, centres = cut(tmp_path, mask, sources=tmp_path / "sources.csv")
    for hole, (lon, lat) in zip(both, centres, strict=True):
        pixels = healpy.ang2pix(NSIDE, *patch_directions(lon, lat, GRID), lonlat=True)
        assert hole[~SEEN[pixels]].all()


def test_a_catalogues_own_radii_count(tmp_path):
    write_mask(tmp_path / "whole.fits", np.ones(NPIX, bool))
    lon, lat = (angle.ravel() for angle in np.meshgrid(np.arange(0, 360, 15), [-40, 0, 40]))
    radius = np.where(lat == 0, 90.0, 45.0)
    table = pd.DataFrame({"lon": lon, "lat": lat, "radius": radius})
    table.to_csv(tmp_path / "sources.csv", index=False)
    holes, centres = cut(tmp_path, tmp_path / "whole.fits", sources=tmp_path / "sources.csv")
    for hole, (lon_0, lat_0) in zip(holes, centres, strict=True):
        inside = distances(lon_0, lat_0, table) <= radius
        np.testing.assert_array_equal(hole, inside.any(axis=-1))


def test_the_seed_and_the_run_decide(tmp_path, mask):
    first, _ = cut(tmp_path, mask, count=8)
    again, _ = cut(tmp_path, mask, "again.h5", count=8)
    np.testing.assert_array_equal(first, again)
    assert (tmp_path / "holes.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()
    more, _ = cut(tmp_path, mask, count=12)
    np.testing.assert_array_equal(more[:8], first)
    for changes in ({"seed": 2}, {"name": "other"}):
        other, _ = cut(tmp_path, mask, count=8, **changes)
        assert not np.array_equal(other, first)


def test_pieces_are_what_a_run_draws_from(tmp_path, mask):
    holes, _ = cut(tmp_path, mask)
    source = HoleSource(Holes(kind="sky", sky="dust", count=30, area=0.3), 32, holes)
    assert 0 < source(np.random.default_rng(0)).mean() <= 0.3


@pytest.mark.parametrize(("nside", "nest"), [(64, False), (64, True), (48, False)])
def test_a_users_mask_may_have_any_order_and_resolution(tmp_path, nside, nest):
    values = np.random.default_rng(0).uniform(0.1, 1, 12 * nside**2)
    values[::3], values[1::7], values[2::11] = 0, healpy.UNSEEN, np.nan
    expected = np.ones(values.size, bool)
    expected[::3] = expected[1::7] = expected[2::11] = False
    written = healpy.reorder(values, r2n=True) if nest else values
    path = tmp_path / "mask.fits"
    healpy.write_map(path, written, nest=nest, coord="G", dtype=np.float64)
    np.testing.assert_array_equal(read_seen(path), expected)
    # Some write the order so, which healpy takes for RING.
    with fits.open(path, mode="update") as hdus:
        if nest:
            hdus[1].header["ORDERING"] = "NEST"
    np.testing.assert_array_equal(read_seen(path), expected)


def test_of_a_masks_columns_the_first_counts(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "mask.fits"
    columns = [rng.integers(0, 2, NPIX).astype(np.uint8) for _ in range(3)]
    healpy.write_map(path, columns, coord="G", dtype=np.uint8)
    np.testing.assert_array_equal(read_seen(path), columns[0] > 0)
    # Its table may be any of a file's, as those of maps may.
    with fits.open(path) as hdus:
        other = fits.ImageHDU(np.zeros((4, 4)))
        fits.HDUList([fits.PrimaryHDU(), other, hdus[1]]).writeto(tmp_path / "third.fits")
    np.testing.assert_array_equal(read_seen(tmp_path / "third.fits"), columns[0] > 0)


def test_a_mask_is_missing_below_0_and_without_data(tmp_path):
    path, values = tmp_path / "mask.fits", np.ones(12 * 8**2)
    values[:7] = -1, -0.5, 0, np.nan, np.inf, healpy.UNSEEN, 999
    healpy.write_map(path, values, coord="G", dtype=np.float32, extra_header=[("BAD_DATA", 999)])
    np.testing.assert_array_equal(np.flatnonzero(~read_seen(path)), np.arange(7))
    # Of a part of the sky the rest is without data.
    values = np.where(np.arange(values.size) < 300, 1.0, healpy.UNSEEN)
    healpy.write_map(path, values, coord="G", partial=True, dtype=np.float32, overwrite=True)
    np.testing.assert_array_equal(np.flatnonzero(read_seen(path)), np.arange(300))


def test_a_mask_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"none\.fits: expected a HEALPix FITS file, found no file"):
        read_seen(tmp_path / "none.fits")
    path = tmp_path / "mask.fits"
    path.write_text("words")
    with pytest.raises(UserError, match="found an unreadable file"):
        read_seen(path)
    fits.PrimaryHDU(np.zeros((8, 8))).writeto(path, overwrite=True)
    with pytest.raises(UserError, match="expected a HEALPix FITS file"):
        read_seen(path)
    for count in (48, 50):
        columns = [fits.Column("A", "E", array=np.ones(count))]
        fits.BinTableHDU.from_columns(columns).writeto(path, overwrite=True)
        with pytest.raises(UserError, match="expected a HEALPix FITS file"):
            read_seen(path)
    healpy.write_map(path, np.ones(48), coord="C", overwrite=True, dtype=np.float64)
    with pytest.raises(UserError, match=r"expected Galactic coordinates \(COORDSYS\), found C"):
        read_seen(path)


def test_a_mask_of_an_order_that_is_none_of_healpix(tmp_path):
    path = tmp_path / "mask.fits"
    healpy.write_map(path, np.ones(48), coord="G", dtype=np.float64)
    fits.setval(path, "ORDERING", value="RANDOM", ext=1)
    with pytest.raises(UserError, match="expected ORDERING RING or NESTED in the header, found RA"):
        read_seen(path)
    fits.setval(path, "ORDERING", value="RING", ext=1)
    fits.setval(path, "BAD_DATA", value="none", ext=1)
    with pytest.raises(UserError, match="found an unreadable file"):
        read_seen(path)
    fits.delval(path, "BAD_DATA", ext=1)
    assert read_seen(path).all()
    path.write_bytes(path.read_bytes()[:-2880])
    with pytest.raises(UserError, match="found an unreadable file"):
        read_seen(path)


def test_a_nested_mask_has_an_nside_that_is_a_power_of_two(tmp_path):
    path = tmp_path / "mask.fits"
    healpy.write_map(path, np.ones(12 * 6**2), coord="G", dtype=np.float64)
    assert read_seen(path).all()
    fits.setval(path, "ORDERING", value="NESTED", ext=1)
    with pytest.raises(UserError, match="an NSIDE that is a power of two, found 6"):
        read_seen(path)


def test_a_mask_of_nothing_or_of_all(tmp_path):
    for value, expected in ((0, "sees some of the sky"), (1, r"a mask with holes \(0\)")):
        path = tmp_path / f"{value}.fits"
        write_mask(path, np.full(NPIX, value, bool))
        with pytest.raises(UserError, match=expected):
            cut(tmp_path, path)
    assert not (tmp_path / "holes.h5").exists()


def test_too_few_pieces_are_told_with_the_settings_that_matter(tmp_path):
    # One pixel is missing, and more than it may be where a patch has it.
    seen = np.ones(NPIX, bool)
    seen[0] = False
    write_mask(tmp_path / "mask.fits", seen)
    message = r"runs\.run\.holes\.count: .*8 of 6 deg.*`holes\.area`.*found \d+ at 1600 places"
    with pytest.raises(UserError, match=message):
        cut(tmp_path, tmp_path / "mask.fits", count=8, area=1e-4)
    message = r"`holes\.area`, none of it within 0\.45 of an edge: `holes\.margin`\)"
    with pytest.raises(UserError, match=message):
        cut(tmp_path, tmp_path / "mask.fits", count=8, area=1e-4, inside=0.45)


def test_holes_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="found no file"):
        read_holes(tmp_path / "none.h5")
    (tmp_path / "words.h5").write_text("words")
    with pytest.raises(UserError, match="found an unreadable file"):
        read_holes(tmp_path / "words.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["maps"] = np.zeros(3)
    with pytest.raises(UserError, match="expected holes cut by skyweave"):
        read_holes(tmp_path / "other.h5")
