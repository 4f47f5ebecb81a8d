"""Reading a user's HEALPix file: ordering, resolution, units, columns, bad pixels, mistakes."""

from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits

from skyweave.errors import UserError
from skyweave.sky.harmonic import analyse, transfer
from skyweave.sky.healpix import SkyMap, read_map, read_mask, write_mask
from skyweave.sky.resolution import change_nside, change_qu_nside, change_variance_nside
from skyweave.sky.units import TCMB, mjy_sr_to_uk_cmb, rj_to_cmb, to_uk_cmb, to_uk_cmb_squared

NSIDE = 64
NPIX = 12 * NSIDE**2
UNSEEN = -1.6375e30


def write_map(path: Path, columns: dict[str, tuple[np.ndarray, str]], **cards: object) -> Path:
    """A HEALPix FITS table as the archives publish them; `cards` set to None are left out."""
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name, "E", unit=unit, array=data) for name, (data, unit) in columns.items()]
    )
    standard = {"PIXTYPE": "HEALPIX", "ORDERING": "RING", "NSIDE": NSIDE, "COORDSYS": "GALACTIC"}
    for key, value in {**standard, **cards}.items():
        if value is not None:
            table.header[key] = value
    table.writeto(path, overwrite=True)
    return path


@pytest.fixture(scope="module")
def sky() -> np.ndarray:
    """A red Gaussian field (npix,) RING, float32, of order 1."""
    rng = np.random.default_rng(3)
    alm = rng.normal(size=(2, healpy.Alm.getsize(96))) / (
        1 + np.arange(97)[healpy.Alm.getlm(96)[0]]
    )
    return healpy.alm2map(alm[0] + 1j * alm[1], NSIDE).astype(np.float32)


def test_nested_equals_ring(tmp_path: Path, sky: np.ndarray) -> None:
    ring = read_map(write_map(tmp_path / "r.fits", {"I": (sky, "uK_CMB")}), NSIDE, 353.0)
    nested = write_map(
        tmp_path / "n.fits", {"I": (healpy.reorder(sky, r2n=True), "uK_CMB")}, ORDERING="NESTED"
    )
    np.testing.assert_array_equal(read_map(nested, NSIDE, 353.0).intensity, ring.intensity)
    np.testing.assert_array_equal(ring.intensity, sky)


@pytest.mark.parametrize("nside", [16, 64])
def test_resolution_changes_as_healpy_does_it(tmp_path: Path, sky: np.ndarray, nside: int) -> None:
    path = write_map(tmp_path / "m.fits", {"TEMPERATURE": (sky, "K_CMB")})
    sky_map = read_map(path, nside, 353.0)
    expected = 1e6 * healpy.ud_grade(sky.astype(float), nside)
    np.testing.assert_allclose(sky_map.intensity, expected, rtol=1e-5, atol=1)
    assert (sky_map.nside, sky_map.window_nside) == (nside, nside)
    np.testing.assert_array_equal(change_nside(sky, 2 * NSIDE), np.repeat(sky, 4))


def test_a_file_coarser_than_asked_for_keeps_its_pixels(tmp_path: Path, sky: np.ndarray) -> None:
    values, variance = sky.copy(), np.full(NPIX, 4.0, np.float32)
    values[100:200] = UNSEEN
    columns = {
        "I_STOKES": (values, "uK_CMB"),
        "Q_STOKES": (sky, "uK_CMB"),
        "U_STOKES": (-sky, "uK_CMB"),
        "II_COV": (variance, "uK_CMB^2"),
    }
    path = write_map(tmp_path / "m.fits", columns)
    own, finer = (read_map(path, n, 353.0, polarization=True) for n in (NSIDE, 4 * NSIDE))
    assert (finer.nside, finer.window_nside, finer.bad.sum()) == (NSIDE, NSIDE, 100)
    for name in ("intensity", "variance", "bad", "q", "u"):
        np.testing.assert_array_equal(getattr(finer, name), getattr(own, name))


@pytest.mark.parametrize("nside", [32, 64, 128])
def test_the_window_of_the_pixels_is_undone_once(tmp_path: Path, nside: int) -> None:
    """Of a sky averaged over pixels, a map at any `nside` gives the sky's modes back."""
    rng = np.random.default_rng(4)
    lmax = 2 * min(nside, NSIDE)
    true = rng.normal(size=(healpy.Alm.getsize(lmax), 2)) @ [1, 1j]
    averages = healpy.ud_grade(healpy.alm2map(true, 8 * NSIDE, lmax), NSIDE)
    path = write_map(tmp_path / "m.fits", {"I": (averages, "uK_CMB")})
    sky_map = read_map(path, nside, 353.0)
    found = analyse(sky_map.intensity[None], lmax)[0]
    found = healpy.almxfl(found, transfer(lmax, 0, 0, sky_map.window_nside))
    ratio = healpy.alm2cl(found, true) / healpy.alm2cl(true)
    assert ratio[10:] == pytest.approx(1, abs=0.01)


def test_rows_of_many_pixels_and_partial_maps(tmp_path: Path, sky: np.ndarray) -> None:
    many = tmp_path / "many.fits"
    healpy.write_map(many, sky, column_units="uK_CMB", coord="G", dtype=np.float32)
    assert fits.getheader(many, 1)["TFORM1"] == "1024E"
    np.testing.assert_array_equal(read_map(many, NSIDE, 353.0).intensity, sky)
    part = sky.copy()
    part[5000:] = healpy.UNSEEN
    partial = tmp_path / "partial.fits"
    healpy.write_map(
        partial, part, partial=True, column_units="uK_CMB", coord="G", dtype=np.float32
    )
    found = read_map(partial, NSIDE, 353.0)
    np.testing.assert_array_equal(found.intensity[:5000], sky[:5000])
    np.testing.assert_array_equal(found.bad, np.arange(NPIX) >= 5000)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("K_CMB", 1e6),
        ("Kcmb", 1e6),
        ("mK", 1e3),
        ("mK,thermodynamic", 1e3),
        ("uK_CMB", 1.0),
        ("µK", 1.0),
        ("muK_{CMB}", 1.0),
        ("K_RJ", 1e6 * rj_to_cmb(353)),
        ("uK_RJ", rj_to_cmb(353)),
        ("MJy/sr", mjy_sr_to_uk_cmb(353)),
        ("MJy sr-1", mjy_sr_to_uk_cmb(353)),
        ("kJy/sr", 1e-3 * mjy_sr_to_uk_cmb(353)),
    ],
)
def test_units_are_understood(unit: str, factor: float) -> None:
    assert to_uk_cmb(unit, 353.0) == pytest.approx(factor, rel=1e-12)
    assert to_uk_cmb_squared(f"({unit})^2", 353.0) == pytest.approx(factor**2, rel=1e-12)


@pytest.mark.parametrize("unit", ["", "K_DB", "MK_CMB", "mag", "counts", "Jy/beam", "K_CMB/sr"])
def test_other_units_are_refused(unit: str) -> None:
    with pytest.raises(UserError, match=r"map\.fits: expected a unit such as K_CMB"):
        to_uk_cmb(unit, 353.0, "map.fits")


@pytest.mark.parametrize("frequency", [30.0, 143.0, 353.0, 857.0])
def test_factors_are_those_of_astropy(frequency: float) -> None:
    nu = frequency * u.GHz
    brightness = (1 * u.MJy / u.sr).to(
        u.uK, equivalencies=u.thermodynamic_temperature(nu, TCMB * u.K)
    )
    assert mjy_sr_to_uk_cmb(frequency) == pytest.approx(brightness.value, rel=1e-9)
    kelvin = (1 * u.uK).to(u.MJy / u.sr, equivalencies=u.brightness_temperature(nu))
    expected = kelvin.value * brightness.value
    assert rj_to_cmb(frequency) == pytest.approx(expected, rel=1e-9)


def test_planck_columns_with_variance_and_polarization(tmp_path: Path, sky: np.ndarray) -> None:
    hits = np.full(NPIX, 7, np.float32)
    variance = np.full(NPIX, 4e-12, np.float32)
    columns = {
        "I_STOKES": (1e-6 * sky, "K_CMB"),
        "Q_STOKES": (2e-6 * sky, "K_CMB"),
        "U_STOKES": (3e-6 * sky, "K_CMB"),
        "HITS": (hits, ""),
        "II_COV": (variance, "(K_CMB)^2"),
    }
    path = write_map(tmp_path / "planck.fits", columns, POLCCONV="COSMO", BAD_DATA=UNSEEN)
    sky_map = read_map(path, NSIDE, 353.0, polarization=True)
    np.testing.assert_allclose(sky_map.intensity, sky, rtol=1e-5)
    np.testing.assert_allclose(sky_map.q, 2 * sky, rtol=1e-5)
    np.testing.assert_allclose(sky_map.u, 3 * sky, rtol=1e-5)
    np.testing.assert_allclose(sky_map.variance, 4.0, rtol=1e-5)
    assert read_map(path, NSIDE, 353.0).q is None
    # The mean of 16 independent pixels has a sixteenth of the variance.
    np.testing.assert_allclose(read_map(path, 16, 353.0).variance, 0.25, rtol=1e-5)
    iau = write_map(tmp_path / "iau.fits", columns, POLCCONV="IAU")
    np.testing.assert_allclose(
        read_map(iau, NSIDE, 353.0, polarization=True).u, -3 * sky, rtol=1e-5
    )


def test_bad_pixels_are_masked_and_left_out_of_means(tmp_path: Path) -> None:
    values, variance = np.full(NPIX, 5.0, np.float32), np.full(NPIX, 2.0, np.float32)
    values[0], values[1], values[2] = UNSEEN, np.nan, np.inf
    variance[3] = 0
    # Of the children of coarse pixel 1, a few; of those of coarse pixel 2, all but a few.
    values[16:20] = UNSEEN
    values[32:42] = UNSEEN
    columns = {"I_STOKES": (values, "uK_CMB"), "II_COV": (variance, "(uK_CMB)^2")}
    path = write_map(tmp_path / "bad.fits", columns, ORDERING="NESTED")
    fine = read_map(path, NSIDE, 353.0)
    bad = np.flatnonzero(healpy.reorder(fine.bad.astype(float), r2n=True))
    assert bad.tolist() == [0, 1, 2, 3, *range(16, 20), *range(32, 42)]
    assert np.isnan(fine.intensity[fine.bad]).all()
    assert (fine.intensity[~fine.bad] == 5).all()
    coarse = read_map(path, 16, 353.0)
    assert np.flatnonzero(healpy.reorder(coarse.bad.astype(float), r2n=True)).tolist() == [2]
    assert (coarse.intensity[~coarse.bad] == 5).all()
    means = healpy.reorder(coarse.variance, r2n=True)
    np.testing.assert_allclose(means[[0, 1, 3]], [2 / 12, 2 / 12, 2 / 16], rtol=1e-6)


def test_variance_of_a_mean_is_that_of_simulated_noise() -> None:
    rng = np.random.default_rng(5)
    sigma = rng.uniform(0.5, 2, NPIX)
    means = np.array(
        [healpy.ud_grade(rng.normal(0, sigma), 8, order_in="NESTED") for _ in range(200)]
    )
    ratio = means.var(0) / healpy.reorder(change_variance_nside(sigma**2, 8), n2r=True)
    # 768 pixels, 200 draws each: the mean of the ratio is known to √(2/199/768) = 0.4 %.
    assert ratio.mean() == pytest.approx(1, abs=0.012)


def test_polarization_is_carried_to_the_pole() -> None:
    # Polarization of one direction in space: a plane wave's view of the pole. About the pole
    # Q + iU turns twice as longitude goes round, and a plain average over pixels cancels.
    theta, phi = healpy.pix2ang(NSIDE, np.arange(NPIX), nest=True)
    q, u_stokes = change_qu_nside(np.cos(2 * phi), -np.sin(2 * phi), 2)
    theta, phi = healpy.pix2ang(2, np.arange(48), nest=True)
    polar = theta < 0.5
    assert polar.sum() == 4
    found = q[polar] + 1j * u_stokes[polar]
    np.testing.assert_allclose(found, np.exp(-2j * phi[polar]), atol=0.06)


@pytest.mark.parametrize(
    ("cards", "columns", "message"),
    [
        ({"ORDERING": None}, {}, "expected ORDERING RING or NESTED in the header, found NONE"),
        ({"COORDSYS": "C"}, {}, r"expected Galactic coordinates \(COORDSYS\), found C"),
        ({"NSIDE": 48}, {}, "expected an NSIDE that is a power of two, found 48"),
        ({"NSIDE": 32}, {}, "expected 12288 values at its nside 32, found 49152"),
        ({}, {"X": "uK_CMB"}, r"expected a column with the intensity \(I_STOKES.*, found X"),
        ({}, {"I": "adu"}, r"column I: expected a unit such as .*, found 'adu'"),
        ({}, {"I": ""}, r"column I: expected a unit such as .*, found ''"),
        ({"PIXTYPE": None, "ORDERING": None}, {}, "expected a HEALPix table, found a FITS file"),
    ],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path, sky: np.ndarray, cards: dict, columns: dict, message: str
) -> None:
    names = columns or {"I": "uK_CMB"}
    path = write_map(
        tmp_path / "x.fits", {name: (sky, unit) for name, unit in names.items()}, **cards
    )
    with pytest.raises(UserError, match=message) as caught:
        read_map(path, NSIDE, 353.0)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_foreign_and_truncated_files(tmp_path: Path, sky: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"none\.fits: expected a HEALPix FITS file, found no file"):
        read_map(tmp_path / "none.fits", NSIDE, 353.0)
    text = tmp_path / "text.fits"
    text.write_text("not a map")
    with pytest.raises(UserError, match="found an unreadable file") as caught:
        read_map(text, NSIDE, 353.0)
    assert "\n" not in str(caught.value)
    whole = write_map(tmp_path / "whole.fits", {"I": (sky, "uK_CMB")}).read_bytes()
    short = tmp_path / "short.fits"
    short.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"short\.fits: .*found an unreadable file"):
        read_map(short, NSIDE, 353.0)


def test_unit_and_column_can_be_given(tmp_path: Path, sky: np.ndarray) -> None:
    path = write_map(tmp_path / "m.fits", {"DUST": (sky, "")})
    found = read_map(path, NSIDE, 353.0, column="dust", unit="mK_CMB")
    np.testing.assert_allclose(found.intensity, 1e3 * sky, rtol=1e-6)


def test_written_map_is_read_back(tmp_path: Path, sky: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    bad = rng.random(NPIX) < 0.1
    intensity = np.where(bad, np.float32(np.nan), sky)
    flags = {"no_iras": rng.random(NPIX) < 0.5}
    sky_map = SkyMap(intensity, sky**2, bad, 353.0, "a map", 64, sky, -sky, flags)
    sky_map.write(tmp_path / "map.fits")
    found = SkyMap.read(tmp_path / "map.fits")
    for name in ("intensity", "variance", "bad", "q", "u"):
        np.testing.assert_array_equal(getattr(found, name), getattr(sky_map, name))
    np.testing.assert_array_equal(found.no_iras, flags["no_iras"])
    assert (found.description, found.window_nside, found.frequency_ghz) == ("a map", 64, 353.0)
    # Other programs see an ordinary HEALPix file.
    other, header = healpy.read_map(tmp_path / "map.fits", h=True)
    np.testing.assert_array_equal(other, intensity)
    assert dict(header)["TUNIT1"] == "uK_CMB"
    with pytest.raises(UserError, match="expected a mask written by skyweave"):
        read_mask(tmp_path / "map.fits")


def test_written_mask_is_read_back(tmp_path: Path, sky: np.ndarray) -> None:
    write_mask(tmp_path / "mask.fits", sky > 0)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.fits"), sky > 0)
    np.testing.assert_array_equal(healpy.read_map(tmp_path / "mask.fits"), sky > 0)


def test_a_pixel_without_good_children_is_bad_whatever_the_share():
    values = np.arange(48.0, dtype=np.float32)
    values[4:8] = np.nan
    values[8:11] = np.nan
    coarse = change_nside(values, 1, good_share=0.0)
    np.testing.assert_array_equal(coarse[:4], [1.5, np.nan, 11, 13.5])
