"""SFD98: the projection of the hemispheres, the scaling and the mask's bits."""

from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from skyweave.errors import UserError
from skyweave.sky import sfd
from skyweave.sky.harmonic import analyse, evaluate, transfer

SIZE = 256


@pytest.fixture(autouse=True)
def fewer_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files here are a sixteenth of the published ones' size; so are the points."""
    monkeypatch.setattr(sfd, "FINE_NSIDE", 128)


def write_hemisphere(path: Path, sign: int, values: np.ndarray) -> None:
    """A file with the header of the published ones, at another size."""
    size = len(values)
    image = fits.PrimaryHDU(values)
    cell = 0.0395646818624 * 4096 / size
    image.header.update(
        CRPIX1=size / 2 + 0.5,
        CRVAL1=90.0 * sign,
        CTYPE1="GLON-ZEA",
        CRPIX2=size / 2 + 0.5,
        CRVAL2=90.0 * sign,
        CTYPE2="GLAT-ZEA",
        CD1_1=-cell * sign,
        CD1_2=0.0,
        CD2_1=0.0,
        CD2_2=cell * sign,
        LONPOLE=180.0,
        LAM_NSGP=sign,
        LAM_SCAL=size / 2,
    )
    image.writeto(path, overwrite=True)


def directions(sign: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude (radians) of a hemisphere's pixels, from the header's formula."""
    y, x = np.indices((size, size))
    x, y = (x - (size - 1) / 2) / (size / 2), -sign * (y - (size - 1) / 2) / (size / 2)
    return np.arctan2(y, x), np.arcsin(np.clip(sign * (1 - x**2 - y**2), -1, 1))


def field(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """A sum of spherical harmonics up to ell = 3 without symmetry, positive."""
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    return 3 + 0.5 * z + 0.7 * x - 0.4 * y + 0.3 * x * z + 0.2 * x * y * z


def write_all(folder: Path, size: int = SIZE) -> Path:
    for sign, pole in ((1, "ngp"), (-1, "sgp")):
        lon, lat = directions(sign, size)
        dust = field(lon, lat).astype(">f4")
        bits = np.where(lon > 0, 1 << 7, 0) | np.where(np.abs(lat) < 0.5, 1 << 5, 0)
        bits = bits | np.where(np.hypot(lon - 1, lat + 0.6) < 0.2, 1 << 6, 0) | 3
        write_hemisphere(folder / f"SFD_dust_4096_{pole}.fits", sign, dust)
        write_hemisphere(folder / f"SFD_mask_4096_{pole}.fits", sign, bits.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("sfd"))


def grid(nside: int) -> tuple[np.ndarray, np.ndarray]:
    theta, lon = healpy.pix2ang(nside, np.arange(12 * nside**2))
    return lon, np.pi / 2 - theta


def test_pixel_is_that_of_the_headers_projection(folder: Path) -> None:
    rng = np.random.default_rng(1)
    lon, z = rng.uniform(0, 2 * np.pi, 500), rng.uniform(0, 1, 500)
    for hemisphere, pole in zip(sfd.read_pair(folder, "dust"), ("ngp", "sgp"), strict=True):
        lat = np.arcsin(hemisphere.sign * z)
        wcs = WCS(fits.getheader(folder / f"SFD_dust_4096_{pole}.fits"))
        expected = wcs.wcs_world2pix(np.degrees(lon), np.degrees(lat), 0)
        # The header's cell is rounded at the eleventh digit of the scale.
        np.testing.assert_allclose(hemisphere.pixel(lon, lat), expected, rtol=0, atol=1e-6)


def test_known_field_is_recovered_everywhere(folder: Path) -> None:
    lon, lat = grid(32)
    found = sfd.to_healpix(sfd.read_pair(folder, "dust"), 32, 32)
    error = found - field(lon, lat)
    cell = 2 / SIZE
    # Less well at four points of the equator, where half a pixel is missing.
    assert np.sqrt(np.mean(error[np.abs(lat) > 0.1] ** 2)) < 0.1 * cell**2
    assert np.abs(error).max() < 1.5 * cell


def test_small_scales_keep_their_power(tmp_path: Path) -> None:
    """Projection, average and window together: alm of a known field come back to 1 %.

    ell 160 at nside 64 is ell 1280 at the study's 512, on hemispheres scaled alike.
    """
    nside, lmax, size = 64, 160, 1024
    rng = np.random.default_rng(3)
    ell = healpy.Alm.getlm(lmax)[0]
    alm = np.array([1, 1j]) @ rng.standard_normal((2, ell.size))
    alm = np.where(np.arange(ell.size) > lmax, alm, alm.real) * (ell > 0)
    for sign, pole in ((1, "ngp"), (-1, "sgp")):
        lon, lat = np.degrees(directions(sign, size))
        values = evaluate(alm[None], np.ones(lmax + 1), lon, lat, 0).reshape(size, size)
        write_hemisphere(tmp_path / f"SFD_dust_4096_{pole}.fits", sign, values.astype(">f4"))
        bits = np.zeros((size, size), np.uint8)
        write_hemisphere(tmp_path / f"SFD_mask_4096_{pole}.fits", sign, bits)
    pair = sfd.read_pair(tmp_path, "dust")
    for fine in (4 * nside, 2 * nside):
        found = analyse(sfd.to_healpix(pair, nside, fine)[None], lmax)[0]
        factor = transfer(lmax, 0, 0, nside, fine)
        cross, power = (
            np.bincount(ell, (2 - (np.arange(ell.size) <= lmax)) * (one * alm.conj()).real)
            for one in (found, alm)
        )
        ratio = (factor * cross / np.where(power > 0, power, 1))[40:].reshape(11, 11).mean(1)
        np.testing.assert_allclose(ratio, 1, atol=0.01)


def test_coarse_pixels_are_averages(folder: Path) -> None:
    pair = sfd.read_pair(folder, "dust")
    fine = sfd.to_healpix(pair, 64, 64)
    np.testing.assert_allclose(sfd.to_healpix(pair, 16, 64), healpy.ud_grade(fine, 16), rtol=1e-6)
    sky_map = sfd.project(folder, 16, 353.0)
    assert (sky_map.window_nside, sky_map.points_nside) == (16, 128)


def test_scale_and_flags(folder: Path) -> None:
    nside = 32
    sky_map = sfd.project(folder, nside, 353.0)
    lon, lat = grid(nside)
    # 713 µK_RJ per magnitude; 12.91 µK_CMB per µK_RJ at 353 GHz.
    ratio = sky_map.intensity / field(lon, lat)
    np.testing.assert_allclose(ratio, 713 * 12.907, rtol=3e-3)
    assert sky_map.nside == nside
    assert not sky_map.bad.any()
    assert sky_map.variance is None
    lon = np.where(lon > np.pi, lon - 2 * np.pi, lon)
    clear = (np.abs(np.sin(lon)) * np.cos(lat) > 2 / SIZE) & (np.abs(np.abs(lat) - 0.5) > 0.02)
    np.testing.assert_array_equal(sky_map.no_iras[clear], (lon > 0)[clear])
    expected = (np.abs(lat) < 0.5)[clear]
    np.testing.assert_array_equal(sky_map.flags["no_source_removal"][clear], expected)
    objects = sky_map.flags["large_object"]
    assert objects.any()
    assert (np.hypot(lon - 1, lat + 0.6)[objects] < 0.23).all()


def test_other_frequency_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"map\.frequency_ghz: expected 353 .*, found 217"):
        sfd.project(folder, 16, 217.0)


def test_missing_and_exchanged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"SFD_dust_4096_ngp\.fits: .*found no file"):
        sfd.project(tmp_path, 16, 353.0)
    write_all(tmp_path, 16)
    north, south = tmp_path / "SFD_dust_4096_ngp.fits", tmp_path / "SFD_dust_4096_sgp.fits"
    south.write_bytes(north.read_bytes())
    with pytest.raises(UserError, match=r"sgp\.fits: expected LAM_NSGP = -1, found 1"):
        sfd.project(tmp_path, 16, 353.0)
