"""Point sources: found above their bar and nowhere else, read, and inpainted smoothly."""

from pathlib import Path

import healpy
import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from skyweave.errors import UserError
from skyweave.seeds import generator
from skyweave.sky.harmonic import gaussian_sigma, gaussian_window
from skyweave.sky.projection import frame, unit_vector
from skyweave.sky.sources import find_sources, inpaint, read_catalogue

NSIDE, FWHM = 128, 80.0
NPIX, LMAX = 12 * NSIDE**2, 2 * NSIDE
LON, LAT = healpy.pix2ang(NSIDE, np.arange(NPIX), lonlat=True)
VECTORS = unit_vector(LON, LAT)
ELL = np.arange(LMAX + 1)
#: A steep spectrum, as dust has, seen with the beam.
CL = np.concatenate([np.zeros(2), (ELL[2:] / 80.0) ** -2.5]) * gaussian_window(LMAX, FWHM) ** 2


def beams(lon, lat, amplitudes):
    """Map of Gaussian beams on the sphere."""
    sky = np.zeros(NPIX)
    for centre, amplitude in zip(unit_vector(lon, lat), amplitudes, strict=True):
        away = 2 * np.arcsin(np.linalg.norm(VECTORS - centre, axis=1) / 2)
        sky += amplitude * np.exp(-(away**2) / (2 * gaussian_sigma(FWHM) ** 2))
    return sky


def gaussian(seed, cl=CL):
    order = healpy.Alm.getlm(LMAX)
    real, imaginary = generator(seed, "sky").standard_normal((2, order[0].size))
    alm = np.where(order[1] == 0, real, (real + 1j * imaginary) / 2**0.5)
    return healpy.alm2map(alm * np.sqrt(cl)[order[0]], NSIDE, LMAX)


def wavelet():
    """Mexican-hat wavelet of the beam's width that keeps a beam's amplitude at its centre."""
    beam = gaussian_window(LMAX, FWHM)
    hat = ELL * (ELL + 1) * beam
    return hat / np.sum((2 * ELL + 1) / 2 * gaussian_sigma(FWHM) ** 2 * beam * hat)


#: Standard deviation of a source's amplitude, which the spectrum and the wavelet predict.
NOISE = np.sqrt(np.sum((2 * ELL + 1) / (4 * np.pi) * wavelet() ** 2 * CL))


def apart(seed, count):
    """Places uniform on the sphere, no two within six beams."""
    rng = generator(seed, "places")
    chosen: list[tuple[float, float]] = []
    while len(chosen) < count:
        lon, lat = rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-1, 1)))
        if all(unit_vector(lon, lat) @ unit_vector(*one) < np.cos(np.radians(8)) for one in chosen):
            chosen.append((lon, lat))
    return np.array(chosen).T


def nearest(table, lon, lat):
    """For each place the row of the table that is nearest, and its distance in beams."""
    cosines = unit_vector(lon, lat) @ unit_vector(table["lon"], table["lat"]).T
    away = np.degrees(np.arccos(np.clip(cosines.max(axis=1), -1, 1)))
    return cosines.argmax(axis=1), away * 60 / FWHM


# The finder


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_sources_above_the_bar_are_found_and_no_others(seed):
    lon, lat = apart(seed, 20)
    amplitudes = np.geomspace(12, 60, 20) * NOISE
    sky = gaussian(seed) + beams(lon, lat, amplitudes)
    table = find_sources(sky, FWHM)
    assert list(table) == ["lon", "lat", "amplitude", "snr"]
    assert (np.diff(table["snr"]) <= 0).all()
    assert len(table) == 20, "none is false"
    row, away = nearest(table, lon, lat)
    assert len(set(row)) == 20
    assert away.max() < 1 / 3
    pull = (table["amplitude"].to_numpy()[row] - amplitudes) / NOISE
    assert np.abs(pull).max() < 3.5
    # χ² of 20: between 7.4 and 40 but for a chance of 1 %.
    assert 7.4 < np.sum(pull**2) < 40
    # 20 sources add 5 % to the median deviation.
    measured = np.median(table["amplitude"] / table["snr"])
    assert measured == pytest.approx(NOISE, rel=0.1)


def test_sources_below_the_bar_are_not_found():
    lon, lat = apart(5, 20)
    amplitudes = np.repeat([4.0, 20.0], 10) * NOISE
    table = find_sources(gaussian(5) + beams(lon, lat, amplitudes), FWHM)
    assert len(table) == 10
    assert nearest(table, lon[10:], lat[10:])[1].max() < 1 / 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bright_diffuse_emission_raises_its_own_bar(seed):
    """Emission 50 times as strong in the plane, in clouds: one false source or none."""
    clouds = gaussian(seed, CL * np.exp(-(ELL**2) * np.radians(10) ** 2 / 5.5))
    strength = np.exp(2 * np.cos(np.radians(2 * LAT)) + 0.7 * clouds / clouds.std())
    sky = gaussian(seed + 10) * strength
    assert len(find_sources(sky, FWHM)) <= 1
    alm = healpy.map2alm(sky, LMAX)
    filtered = healpy.alm2map(healpy.almxfl(alm, wavelet()), NSIDE, LMAX)
    one_bar = 8 * 1.4826 * np.median(np.abs(filtered))
    assert np.sum(filtered > one_bar) > 300, "of one noise for all the sky"


def test_a_lone_beam_has_its_place_and_amplitude():
    for lon, lat in ((33.3, 22.2), (0.1, -41.8), (200.0, 89.7)):
        table = find_sources(beams([lon], [lat], [7.0]) + 1e3, FWHM)
        assert len(table) == 1
        assert nearest(table, [lon], [lat])[1][0] < 0.01
        assert table["amplitude"][0] == pytest.approx(7, rel=5e-3)


def test_only_what_is_asked_for_is_searched():
    lon, lat = np.array([30.0, 100.0, 200.0]), np.array([5.0, 40.0, -60.0])
    sky = gaussian(6) + beams(lon, lat, [40 * NOISE] * 3)
    before = sky.copy()
    assert len(find_sources(sky, FWHM)) == 3
    assert nearest(find_sources(sky, FWHM, latitude_deg=20), lon[1:], lat[1:])[1].max() < 1 / 3
    assert len(find_sources(sky, FWHM, latitude_deg=20)) == 2
    assert len(find_sources(sky, FWHM, latitude_deg=20, mask=LAT > 0)) == 1
    np.testing.assert_array_equal(sky, before)


def test_the_edge_of_bad_pixels_is_no_source():
    lon, lat = np.array([30.0, 100.0]), np.array([5.0, 40.0])
    sky = gaussian(7) + beams(lon, lat, [40 * NOISE] * 2) + 300 * NOISE * VECTORS[:, 1]
    sky[(np.abs(LAT + 30) < 8) | (VECTORS @ unit_vector(30.0, 7.0) > np.cos(np.radians(1.5)))] = (
        np.nan
    )
    table = find_sources(sky, FWHM)
    assert len(table) == 1
    assert nearest(table, lon[1:], lat[1:])[1][0] < 1 / 3


def test_an_even_map_has_no_sources():
    table = find_sources(np.full(NPIX, 3.0), FWHM)
    assert list(table) == ["lon", "lat", "amplitude", "snr"]
    assert table.empty


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (NPIX - 1, {}, "map: expected 12 nside² pixels"),
        (12 * 9, {}, "power of two, found 3"),
        (NPIX, {"fwhm_arcmin": 30.0}, "a beam of at least 1.4 pixels of 27.5′, found 30"),
        (NPIX, {"snr": 0.0}, "snr: expected a number above 0"),
        (NPIX, {"mask": np.ones(5)}, "mask: expected 196608 pixels"),
        (NPIX, {"mask": np.zeros(NPIX)}, "map: expected good pixels to search, found none"),
        (NPIX, {"mask": np.arange(NPIX) < 9}, "mask: expected an eighth of a pixel of 15 deg"),
    ],
)
def test_what_cannot_be_searched_is_named(size, options, message):
    with pytest.raises(UserError, match=message) as caught:
        find_sources(np.ones(size), **({"fwhm_arcmin": FWHM} | options))
    assert "\n" not in str(caught.value)


def test_a_map_of_bad_pixels_cannot_be_searched():
    with pytest.raises(UserError, match="map: expected good pixels to search, found none"):
        find_sources(np.full(NPIX, np.nan), FWHM)


# The catalogue


def test_catalogues_are_read_from_csv_and_fits(tmp_path: Path):
    expected = pd.DataFrame({"lon": [10.5, 350.0], "lat": [-3.25, 90.0], "radius": [5.0, 0.0]})
    (tmp_path / "a.csv").write_text("name,glon, Glat,RADIUS\nx,10.5,-3.25,5\ny,-10,90,0\n")
    pd.testing.assert_frame_equal(read_catalogue(tmp_path / "a.csv"), expected)
    Table({"LON": [10.5, 350.0], "LAT": np.array([-3.25, 90], ">f4")}).write(tmp_path / "b.fits.gz")
    pd.testing.assert_frame_equal(read_catalogue(tmp_path / "b.fits.gz"), expected[["lon", "lat"]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ra,lat\n1,2\n", "a.csv: expected a column LON or GLON, found ra, lat"),
        ("lon,b\n1,2\n", "a.csv: expected a column LAT or GLAT, found lon, b"),
        ("lon,lat\n1,2\n1,91\n", "a.csv, row 2: expected lat from -90 to 90, found 91"),
        ("lon,lat\n361,2\n", "row 1: expected lon from -180 to 360, found 361"),
        ("lon,lat,radius\n1,2,-1\n", "row 1: expected radius from 0"),
        ("lon,lat\n1,2\n3,\n", "row 2: expected a finite lat, found nan"),
        ("lon,lat\n1,north\n", "column lat: expected numbers"),
        ("lon,lat\n1,2,3\n", "unreadable file .Length of header"),
        ("", "unreadable"),
    ],
)
def test_a_catalogue_that_is_amiss_is_named_in_one_line(tmp_path: Path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_catalogue(tmp_path / "a.csv")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_catalogue_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="expected a catalogue, CSV or FITS, found no file"):
        read_catalogue(tmp_path / "none.csv")
    (tmp_path / "text.fits").write_text("lon,lat\n1,2\n")
    with pytest.raises(UserError, match="unreadable"):
        read_catalogue(tmp_path / "text.fits")
    healpy.write_map(tmp_path / "map.fits", np.ones(12), dtype=float)
    with pytest.raises(UserError, match="a column LON or GLON"):
        read_catalogue(tmp_path / "map.fits")


# Inpainting

#: A face's middle, where three faces meet, a polar cap, a pole, and the belt's edge.
CENTRES = [(45.0, 0.0), (90.0, 41.81), (20.0, 60.0), (0.0, 90.0), (45.0, 41.8), (3.0, 45.8)]


def in_disc(lon, lat, radius_arcmin):
    chord = np.linalg.norm(VECTORS - unit_vector(lon, lat), axis=1)
    return 2 * np.degrees(np.arcsin(chord / 2)) * 60 <= radius_arcmin


def miss(nside, centre, order):
    """Largest error of filled discs of 5 deg, as a share of the field's largest value there.

    The field is z^order in stereographic coordinates, which are conformal: harmonic on the sphere.
    """
    vectors = np.stack(healpy.pix2vec(nside, np.arange(12 * nside**2)), axis=-1)
    middle, east, north = frame(*centre)
    z = (vectors @ east + 1j * (vectors @ north)) / (1 + vectors @ middle + 1e-9)
    largest = np.tan(np.radians(2.5)) ** order
    errors = [inpaint(f, *centre, 300.0) - f for f in ((z**order).real, (z**order).imag)]
    return np.abs(errors).max() / largest


@pytest.mark.parametrize("centre", CENTRES)
def test_harmonic_fields_keep_their_values(centre):
    for order in (1, 2):
        assert miss(NSIDE, centre, order) < 1e-4
    # Of higher ones the grid takes a share that falls with the pixel's area.
    for order in (3, 4):
        coarse, fine = (miss(nside, centre, order) for nside in (NSIDE // 2, NSIDE))
        assert fine < 0.05
        assert 3 < coarse / fine < 7


def test_a_dipole_keeps_its_value():
    """But for what the sphere's curvature makes of it: cos rho is cos R all over a disc."""
    dipole = VECTORS @ unit_vector(40.0, 55.0)
    lon, lat = apart(8, 100)
    assert np.abs(inpaint(dipole, lon, lat, 60.0) - dipole).max() < 1e-3
    filled = inpaint(dipole, 40.0, 55.0, 300.0)
    inside = filled[in_disc(40.0, 55.0, 300)]
    # R is where the rim is, within two pixels of the disc.
    reach = np.radians(5) + 2 * healpy.nside2resol(NSIDE)
    assert np.cos(reach) < inside.min() <= inside.max() < np.cos(np.radians(5))
    half = filled[in_disc(40.0, 55.0, 150)]
    assert half.max() - half.min() < 0.05 * (1 - np.cos(np.radians(2.5)))


def test_a_fill_stays_within_its_rim_and_nothing_else_changes():
    sky = gaussian(9).astype(np.float32)
    before = sky.copy()
    lon, lat = apart(9, 30)
    filled = inpaint(sky, lon, lat, np.linspace(0, 300, 30))
    assert filled.dtype == np.float64
    np.testing.assert_array_equal(sky, before)
    changed = filled != sky
    inside = np.zeros(NPIX, bool)
    for one, (centre, radius) in enumerate(
        zip(np.stack([lon, lat], 1), np.linspace(0, 300, 30), strict=True)
    ):
        disc = in_disc(*centre, radius)
        disc[healpy.ang2pix(NSIDE, *centre, lonlat=True)] = True
        rim = np.unique(healpy.get_all_neighbours(NSIDE, np.flatnonzero(disc)))
        rim = rim[(rim >= 0) & ~disc[rim]]
        assert sky[rim].min() <= filled[disc].min() <= filled[disc].max() <= sky[rim].max(), one
        inside |= disc
    assert not changed[~inside].any()
    assert changed[inside].all()


def test_sources_give_way_to_the_level_of_the_map_below():
    lon, lat = apart(10, 20)
    clean = gaussian(10)
    sky = clean + beams(lon, lat, np.geomspace(12, 60, 20) * NOISE)
    found = find_sources(sky, FWHM)
    filled = inpaint(sky, found["lon"], found["lat"], 1.5 * FWHM)
    hole = np.logical_or.reduce([in_disc(*one, FWHM) for one in np.stack([lon, lat], 1)])
    rms = np.sqrt(np.mean((filled - clean)[hole] ** 2))
    assert rms < clean[hole].std() / 2
    assert np.sqrt(np.mean((sky - clean)[hole] ** 2)) > 5 * rms
    assert find_sources(filled, FWHM).empty


def test_bad_pixels_stay_and_do_not_count():
    sky = 5 + gaussian(11)
    bad = in_disc(50.0, 30.0, 300) & (LAT > 30)
    sky[bad] = np.nan
    hole = in_disc(50.0, 30.0, 150)
    # The second disc has bad pixels all about it.
    filled = inpaint(sky, [50.0, 50.0], [30.0, 33.7], [150.0, 30.0])
    np.testing.assert_array_equal(np.isnan(filled), bad & ~hole)
    around = in_disc(50.0, 30.0, 220) & ~bad & ~hole
    assert sky[around].min() <= filled[hole].min() <= filled[hole].max() <= sky[around].max()


def test_no_sources_leave_a_copy():
    sky = gaussian(12)
    filled = inpaint(sky, np.zeros(0), np.zeros(0), 60.0)
    np.testing.assert_array_equal(filled, sky)
    assert not np.shares_memory(filled, sky)


@pytest.mark.parametrize(
    ("size", "place", "message"),
    [
        (NPIX, (0.0, 90.0, 180 * 60.0), "discs: expected good pixels outside of them, found none"),
        (NPIX, (0.0, 0.0, -1.0), "radius_arcmin: expected radii from 0 to 10800 arcmin, found -1"),
        (NPIX, (0.0, 0.0, np.nan), "radius_arcmin: .* found nan"),
        (NPIX, (0.0, 91.0, 1.0), "lat from -90 to 90"),
        (NPIX, ([0.0, 1.0], [0.0], 1.0), "a lon, a lat and a radius for each"),
        (NPIX + 12, (0.0, 0.0, 1.0), "map: expected 12 nside² pixels"),
    ],
)
def test_what_cannot_be_inpainted_is_named(size, place, message):
    with pytest.raises(UserError, match=message) as caught:
        inpaint(np.ones(size), *place)
    assert "\n" not in str(caught.value)
