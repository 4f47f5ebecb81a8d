"""Q and U at low resolution: a template's fraction and angle, and a file's own, come back."""

import os
import re
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits

from skyweave.errors import UserError
from skyweave.seeds import generator
from skyweave.sky.fetch import COSMOGLOBE, fetch
from skyweave.sky.harmonic import gaussian_window, pixel_window
from skyweave.sky.polarization import (
    FRACTION_ARCMIN,
    MOST_POLARIZED,
    from_file,
    from_template,
)

NSIDE = 32
NPIX = 12 * NSIDE**2
#: Highest multipole of a polarization fraction, and of an intensity.
SMOOTH, SHARP = 4, 90


def modes(lmax, slope, *identity):
    """alm (modes,) of a Gaussian field of power (ell + 1)^slope, without its mean and dipole."""
    ell, m = healpy.Alm.getlm(lmax)
    draw = generator(41, *identity).standard_normal((2, ell.size))
    white = np.where(m == 0, draw[0], (draw[0] + 1j * draw[1]) / np.sqrt(2))
    return np.where(ell > 1, white * (ell + 1.0) ** (slope / 2), 0)


def bright(alm, lmax, nside):
    """The field with a mean that leaves it nowhere below half of that; and its alm."""
    swing = -healpy.alm2map(alm, nside, lmax).min()
    alm = alm.copy()
    alm[0] = 2 * swing * np.sqrt(4 * np.pi)
    return alm


@pytest.fixture(scope="module")
def template():
    """T and, as alm of E and B, a fraction that is band-limited and 0.15 at most; and Q and U."""
    t = healpy.alm2map(bright(modes(16, -2.0, "t"), 16, NSIDE), NSIDE, 16)
    eb = np.stack([modes(SMOOTH, 0.0, name) for name in "eb"])
    fraction = np.stack(healpy.alm2map_spin(eb, NSIDE, 2, SMOOTH))
    factor = 0.15 / np.hypot(*fraction).max()
    return t, factor * eb, t * factor * fraction


@pytest.fixture(scope="module")
def intensity():
    return bright(modes(SHARP, -2.4, "intensity"), SHARP, 64)


def write(path, maps, **options):
    healpy.write_map(path, maps, dtype=np.float64, overwrite=True, **options)
    return path


def qu(alm, nside=64):
    return np.stack(healpy.alm2map_spin(alm, nside, 2, healpy.Alm.getlmax(alm.shape[1])))


# A template's fraction and angle


@pytest.mark.parametrize("nest", [False, True], ids=["ring", "nested"])
def test_fraction_and_angle_are_the_templates(tmp_path, template, intensity, nest):
    """Exactly, of a fraction so smooth that 3 degrees take next to nothing of it."""
    t, eb, polarized = template
    maps = np.stack([t, *polarized])
    maps = healpy.reorder(maps, r2n=True) if nest else maps
    path = write(tmp_path / "t.fits", maps, nest=nest)
    lmax = SHARP + SMOOTH
    sharp = healpy.resize_alm(intensity, SHARP, SHARP, lmax, lmax)
    found = from_template(path, sharp, lmax, 64)
    assert found.shape == (2, healpy.Alm.getsize(lmax))
    beam = gaussian_window(SMOOTH, FRACTION_ARCMIN)
    assert beam.min() > 0.99
    fraction = qu(np.stack([healpy.almxfl(one, beam) for one in eb]))
    expected = healpy.alm2map(intensity, 64, SHARP) * fraction
    np.testing.assert_allclose(qu(found), expected, atol=1e-4 * np.abs(expected).max())
    # E and B of the product are not those of the fraction: neither is lost.
    power = [healpy.alm2cl(one)[:SMOOTH].sum() for one in found]
    assert min(power) > 0.1 * max(power)


def test_the_structure_is_the_intensitys_and_not_the_templates(tmp_path, template, intensity):
    """A template with other structure of the same fraction changes nothing."""
    t, _, polarized = template
    rough = 1 + 0.5 * np.sin(np.arange(NPIX))
    paths = [
        write(tmp_path / name, np.stack([t, *polarized]) * factor)
        for name, factor in (("a.fits", 1.0), ("b.fits", 1e-6 * rough))
    ]
    one, other = (from_template(path, intensity, SHARP, 64) for path in paths)
    np.testing.assert_allclose(other, one, atol=1e-6 * np.abs(one).max())
    twice = from_template(paths[0], 2 * intensity, SHARP, 64)
    np.testing.assert_allclose(twice, 2 * one, atol=1e-9 * np.abs(one).max())


def test_fine_structure_of_the_fraction_is_smoothed_away(tmp_path, template, intensity):
    """What is left of a fraction's waves is the window of 3 degrees."""
    t = template[0]
    ell = 50
    alm = np.where(healpy.Alm.getlm(ell)[0] == ell, modes(ell, 0.0, "wave"), 0)
    fraction = np.stack(healpy.alm2map_spin([alm, 0 * alm], NSIDE, 2, ell))
    fraction *= 0.1 / np.abs(fraction).max()
    path = write(tmp_path / "w.fits", np.stack([t, *(t * fraction)]))
    flat = np.zeros(healpy.Alm.getsize(64), complex)
    flat[0] = np.sqrt(4 * np.pi)
    found = qu(from_template(path, flat, 64, 64), NSIDE)
    expected = gaussian_window(ell, FRACTION_ARCMIN)[ell] * fraction
    assert gaussian_window(ell, FRACTION_ARCMIN)[ell] < 0.6
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_no_more_is_polarized_than_dust_is(tmp_path, template, intensity):
    """Longer ones are cut, and keep their direction."""
    t, _, polarized = template
    path = write(tmp_path / "long.fits", np.stack([t, *(6 * polarized)]))
    lmax = 128
    sharp = healpy.resize_alm(intensity, SHARP, SHARP, lmax, lmax)
    found = qu(from_template(path, sharp, lmax, 64), NSIDE)
    fraction = found / healpy.alm2map(intensity, NSIDE, SHARP)
    length, before = np.hypot(*fraction), 6 * np.hypot(*polarized) / t
    # Where the smoothed corner of the cut rings, by a few percent.
    assert length.max() < 1.03 * MOST_POLARIZED
    # Far inside of what is cut the length is the limit; the angle is the template's.
    wide = before > 2.5 * MOST_POLARIZED
    assert wide.sum() > 100
    np.testing.assert_allclose(length[wide], MOST_POLARIZED, rtol=0.05)
    turn = np.angle((found[0] + 1j * found[1]) / (polarized[0] + 1j * polarized[1]))
    assert np.abs(turn[wide]).max() < 0.05


def test_a_template_that_is_dark_somewhere_does_no_harm(tmp_path, template, intensity):
    t, _, polarized = template
    dark = t.copy()
    dark[5000:5003] = 0, -1, 1e-30
    found, known = (
        from_template(
            write(tmp_path / "d.fits", np.stack([values, *polarized])), intensity, SHARP, 64
        )
        for values in (dark, t)
    )
    apart = np.hypot(*(qu(found) - qu(known))) / healpy.alm2map(intensity, 64, SHARP)
    # Each of the three is off by what the limit is longer than the fraction there, or less.
    assert apart.max() < 1.5 * MOST_POLARIZED
    far = healpy.query_disc(64, healpy.pix2vec(NSIDE, 5001), np.radians(15))
    outside = np.setdiff1d(np.arange(12 * 64**2), far)
    # What the end of the modes at twice the template's nside leaves of a step rings.
    assert apart[outside].max() < 0.01 * MOST_POLARIZED


@pytest.mark.parametrize(
    ("columns", "found"),
    [(None, "no file"), (1, "fewer columns"), (2, "fewer columns"), (0, "No SIMPLE card")],
)
def test_a_file_that_is_no_template_is_one_line(tmp_path, template, intensity, columns, found):
    path = tmp_path / "x.fits"
    if columns == 0:
        path.write_text("not a map")
    elif columns:
        write(path, [template[0]] * columns, column_names=["T", "Q"][:columns])
    with pytest.raises(UserError, match=f"expected a HEALPix file of T, Q, U, found {found}") as no:
        from_template(path, intensity, SHARP, 64)
    assert no.value.where == str(path)
    assert "\n" not in str(no.value)


# A file's own Q and U

OWN, TARGET, END = 60.0, 150.0, 48


def table(path, maps, names=("I_STOKES", "Q_STOKES", "U_STOKES"), unit="K_CMB", **cards):
    """A HEALPix FITS table as the archives publish them."""
    columns = [
        fits.Column(name, "D", unit=unit, array=values)
        for name, values in zip(names, maps, strict=True)
    ]
    hdu = fits.BinTableHDU.from_columns(columns)
    standard = {"PIXTYPE": "HEALPIX", "ORDERING": "RING", "NSIDE": NSIDE, "COORDSYS": "GALACTIC"}
    for key, value in {**standard, **cards}.items():
        hdu.header[key] = value
    hdu.writeto(path, overwrite=True)
    return path


@pytest.fixture(scope="module")
def observed():
    """alm of E without B, µK_CMB, and T, Q, U in K_CMB as pixels of a beam of `OWN` see them."""
    e = 100 * modes(END, -2.4, "observed")
    seen = healpy.almxfl(e, gaussian_window(END, OWN) * pixel_window(NSIDE, END))
    maps = 1e-6 * np.stack(healpy.alm2map_spin([seen, 0 * seen], NSIDE, 2, END))
    return e, np.stack([1 + 0 * maps[0], *maps])


def read(path, **options):
    given = {"nside": NSIDE, "frequency_ghz": 353.0, "fwhm_arcmin": OWN, "target_arcmin": TARGET}
    return from_file(path, **(given | options))


def check(found, e):
    """E as it was, with the target's beam; no B; nothing behind what went in."""
    lmax = healpy.Alm.getlmax(found.shape[1])
    expected = healpy.almxfl(e, gaussian_window(END, TARGET))
    expected = healpy.resize_alm(expected, END, END, lmax, lmax)
    np.testing.assert_allclose(found[0], expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(found[1]).max() < 1e-4 * np.abs(expected).max()


def test_modes_of_a_file_get_the_targets_beam(tmp_path, observed):
    e, maps = observed
    check(read(table(tmp_path / "r.fits", maps)), e)


def test_ordering_unit_and_convention_are_the_headers(tmp_path, observed):
    e, maps = observed
    nested = healpy.reorder(maps, r2n=True)
    check(read(table(tmp_path / "n.fits", nested, ORDERING="NESTED")), e)
    check(read(table(tmp_path / "u.fits", 1e6 * maps, unit="uK_CMB")), e)
    check(read(table(tmp_path / "g.fits", 1e6 * maps, unit=""), unit="uK_CMB"), e)
    iau = maps * np.array([1, 1, -1])[:, None]
    check(read(table(tmp_path / "i.fits", iau, POLCCONV="IAU")), e)
    with pytest.raises(AssertionError):
        check(read(table(tmp_path / "w.fits", iau)), e)


def test_bad_pixels_take_the_mean_of_those_nearby(tmp_path, observed):
    maps = observed[1]
    holed = maps.copy()
    holed[1:, [100, 5000, 9000]] = healpy.UNSEEN
    found = read(table(tmp_path / "h.fits", holed, BAD_DATA=healpy.UNSEEN))
    known = read(table(tmp_path / "k.fits", maps))
    away = np.hypot(*(qu(found, NSIDE) - qu(known, NSIDE)))
    assert np.isfinite(away).all()
    assert away.max() < 0.2 * np.hypot(*qu(known, NSIDE)).max()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("I", "X", "U"), "a column with Stokes Q (Q_STOKES"),
        (("I", "Q", "X"), "a column with Stokes U (U_STOKES"),
    ],
)
def test_a_file_without_polarization_is_one_line(tmp_path, observed, names, expected):
    path = table(tmp_path / "x.fits", observed[1], names)
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        read(path)
    assert caught.value.where == str(path)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_or_sharpened_is_one_line(tmp_path, observed):
    with pytest.raises(UserError, match=r"none\.fits: expected a HEALPix FITS file, found no file"):
        read(tmp_path / "none.fits")
    path = table(tmp_path / "m.fits", observed[1])
    with pytest.raises(UserError, match="a beam of at least the map's own 60 arcmin, found 50"):
        read(path, target_arcmin=50.0)
    path = table(tmp_path / "adu.fits", observed[1], unit="adu")
    with pytest.raises(
        UserError, match=r"column I_STOKES: expected a unit such as .*, found 'adu'"
    ):
        read(path)


# The template that is fetched


def test_the_template_is_one_wheel_with_one_file():
    assert COSMOGLOBE.archive == f"{COSMOGLOBE.package}-{COSMOGLOBE.version}-py3-none-any.whl"
    assert list(COSMOGLOBE.names) == ["mask_template_n256.fits"]
    for digest in (COSMOGLOBE.sha256, *COSMOGLOBE.members.values()):
        assert re.fullmatch("[0-9a-f]{64}", digest)


@pytest.fixture(scope="module")
def cosmoglobe(tmp_path_factory):
    """The published file: the user's, the workflow's, or fetched by the package client."""
    results = Path(__file__).parents[1] / "results" / "data" / "cosmoglobe"
    if "SKYWEAVE_DATA" in os.environ:
        results = Path(os.environ["SKYWEAVE_DATA"])
    there = all((results / name).exists() for name in COSMOGLOBE.names)
    folder = results if there else tmp_path_factory.mktemp("cosmoglobe")
    return fetch(COSMOGLOBE, folder)["mask_template_n256.fits"]


def test_the_template_is_polarized_across_the_galactic_plane(cosmoglobe):
    """Dust shines across the field, which lies along the plane: Q > 0, COSMO and Galactic."""
    flat = np.zeros(healpy.Alm.getsize(64), complex)
    flat[0] = np.sqrt(4 * np.pi)
    q, u = qu(from_template(cosmoglobe, flat, 64, 64))
    assert np.hypot(q, u).max() < 1.05 * MOST_POLARIZED
    latitude = 90 - np.degrees(healpy.pix2ang(64, np.arange(12 * 64**2))[0])
    plane = np.abs(latitude) < 2
    assert (q[plane] > 0).mean() > 0.85
    assert q[plane].mean() > 4 * np.abs(u[plane].mean())
    # Off the plane, a few percent and more, and not the limit all over.
    median = np.median(np.hypot(q, u)[np.abs(latitude) > 20])
    assert 0.02 < median < 0.2
