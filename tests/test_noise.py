"""Noise maps: their spectrum, their variance from pixel to pixel, and the maps of hits."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose
from scipy import stats

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.simulation.noise import hits_scale, noise_cl, noise_map, read_hits

GRID = PatchGrid(5.0, 64)
ARCMIN = np.pi / 10800


def maps(count: int, **options) -> np.ndarray:
    return np.stack(
        [noise_map(np.random.default_rng(seed), GRID, 6.0, **options) for seed in range(count)]
    )


def hits() -> np.ndarray:
    """Three depths, and a gradient: 1 to 60 observations."""
    y, x = np.indices((64, 64))
    return (1.0 + x // 22) ** 2 * (1 + y / 11)


def test_noise_spectrum_in_numbers():
    ell = np.array([[0, 50, 100], [200, 400, 1e9]])
    assert_allclose(noise_cl(ell, 7.0), np.full((2, 3), (7 * ARCMIN) ** 2))
    factor = [[1, 5, 2], [1.25, 1.0625, 1]]
    assert_allclose(noise_cl(ell, 7.0, 100.0, 2.0), (7 * ARCMIN) ** 2 * np.array(factor))
    assert_allclose(noise_cl(np.array([25]), 1.0, 100.0), 5 * ARCMIN**2)


def test_white_noise_is_the_draw_itself():
    """On pixels of 1′, in µK, the level in µK-arcmin."""
    for options in ({}, {"knee_ell": 0.0, "slope": 3.0}, {"scale": np.ones((300, 300))}):
        drawn = noise_map(np.random.default_rng(3), PatchGrid(5.0, 300), 2.5, **options)
        assert np.array_equal(drawn, np.random.default_rng(3).standard_normal((300, 300)) * 2.5)
    assert drawn.dtype == np.float64


@pytest.mark.parametrize(("knee_ell", "slope"), [(0.0, 1.0), (300.0, 3.0), (2000.0, 1.0)])
def test_band_powers_are_those_of_the_spectrum(knee_ell, slope):
    """Chi² of the mean band powers; the variance of a Gaussian field's is 2 C² a mode."""
    count, bins = 200, Bins.linear(50, 3200, 90)
    modes = forward(maps(count, knee_ell=knee_ell, slope=slope), GRID)
    spectrum = noise_cl(GRID.ell, 6.0, knee_ell, slope)
    measured = bin_power(power(modes, modes, GRID), GRID, bins).mean(axis=0)
    variance = 2 * bin_power(spectrum**2, GRID, bins) / bins.modes(GRID) / count
    chi2 = np.sum((measured - bin_power(spectrum, GRID, bins)) ** 2 / variance)
    assert 0.001 < stats.chi2.sf(chi2, bins.count) < 0.999
    ratio = np.sum(GRID.mode_weight * power(modes, modes, GRID).mean(axis=0) / spectrum) / 64**2
    assert abs(ratio - 1) < 3 * np.sqrt(2 / 64**2 / count)


def test_mean_of_a_map_is_white():
    """The variance of the mean is N_0 over the area."""
    means = maps(300, knee_ell=1000.0, slope=2.0).mean(axis=(1, 2))
    chi2 = np.sum(means**2) * GRID.area_sr / noise_cl(np.array(0.0), 6.0, 1000.0, 2.0)
    assert 0.001 < stats.chi2.sf(chi2, 300) < 0.999
    assert_allclose(means, maps(300).mean(axis=(1, 2)), atol=1e-12)


def test_variance_of_each_pixel_goes_with_its_hits():
    """Chi² of each pixel over realizations, all pixels against the distribution."""
    count, scale = 200, hits_scale(hits())
    square = np.sum(maps(count, scale=scale) ** 2, axis=0)
    expected = (6.0 / GRID.pixel_arcmin) ** 2 * hits().mean() / hits()
    assert stats.kstest((square / expected).ravel(), stats.chi2(count).cdf).pvalue > 0.001
    # Half of the hits is √2 of the noise, and the mean number is the stated level.
    assert_allclose(hits_scale(np.array([1.0, 2.0, 3.0])) ** 2, [2, 1, 2 / 3])


def test_scale_comes_after_the_knee():
    scale = hits_scale(hits())
    options = {"knee_ell": 800.0, "slope": 1.5}
    assert np.array_equal(maps(2, scale=scale, **options), maps(2, **options) * scale)


def test_hits_of_npy_and_fits(tmp_path):
    np.save(tmp_path / "hits.npy", hits().astype(np.int32))
    assert np.array_equal(read_hits(tmp_path / "hits.npy", 64), hits().astype(np.int32))
    column = fits.Column("hits", "E", array=np.ones(5))
    hdus = [
        fits.PrimaryHDU(),
        fits.BinTableHDU.from_columns([column]),
        fits.ImageHDU(np.ones((2, 64, 64))),
        fits.ImageHDU(hits()),
        fits.ImageHDU(np.ones((64, 64))),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "hits.fits")
    read = read_hits(tmp_path / "hits.fits", 64)
    assert np.array_equal(read, hits())
    assert read.dtype == np.dtype("f8")
    assert read.dtype.isnative


def with_pixel(value: float) -> np.ndarray:
    made = hits()
    made[5, 7] = value
    return made


MISTAKES = {
    "another shape": (np.ones((64, 32)), "a map of (64, 64) pixels, found (64, 32)"),
    "another size": (np.ones((32, 32)), "a map of (64, 64) pixels, found (32, 32)"),
    "not a number": (with_pixel(np.nan), "finite hits, found nan"),
    "infinite": (with_pixel(np.inf), "finite hits, found inf"),
    "unobserved": (with_pixel(0.0), "more than 0 hits in every pixel, found 0"),
    "negative": (with_pixel(-2.0), "more than 0 hits in every pixel, found -2"),
}


@pytest.mark.parametrize("suffix", ["npy", "fits"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_map_of_hits_is_one_line(mistake, suffix, tmp_path):
    values, message = MISTAKES[mistake]
    path = tmp_path / f"hits.{suffix}"
    if suffix == "npy":
        np.save(path, values)
    else:
        fits.writeto(path, values)
    with pytest.raises(UserError) as error:
        read_hits(path, 64)
    assert str(error.value) == f"{path}: expected {message}"


def table_only(path: Path) -> None:
    fits.BinTableHDU.from_columns([fits.Column("hits", "E", array=np.ones(5))]).writeto(path)


def cut(path: Path) -> None:
    fits.writeto(path, hits())
    path.write_bytes(path.read_bytes()[:9000])


UNREADABLE = {
    "missing.fits": (lambda path: None, "a map of hits, found no file"),
    "missing.npy": (lambda path: None, "a map of hits, found no file"),
    "words.fits": (lambda path: path.write_text("hits\n" * 900), "a map of hits, FITS or .npy"),
    "words.npy": (lambda path: path.write_text("hits\n" * 900), "a map of hits, FITS or .npy"),
    "cut.npy": (lambda path: path.write_bytes(b"\x93NUMPY"), "a map of hits, FITS or .npy"),
    "cut.fits": (cut, "a map of hits, FITS or .npy, found File may have been truncated"),
    "table.fits": (table_only, "an image with two axes, found a FITS file without one"),
    "complex.npy": (lambda path: np.save(path, hits() * 1j), "numbers, found complex128"),
    "objects.npy": (lambda path: np.save(path, np.array([None])), "a map of hits, FITS or .npy"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_file_that_holds_no_map_of_hits_is_one_line(name, tmp_path):
    make, message = UNREADABLE[name]
    make(path := tmp_path / name)
    with pytest.raises(UserError) as error:
        read_hits(path, 64)
    assert str(error.value).startswith(f"{path}: expected ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
