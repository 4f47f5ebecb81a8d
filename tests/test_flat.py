"""Flat-sky primitives against their definitions and against a plain full-plane transform."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skyweave.estimators.analytic_eb import analytic_eb
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import Bins, bin_power, coarsen, forward, inverse, on_modes, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import eb_to_qu, qu_to_eb, rotate_to_qu, tapered_variances
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.gaussian import white_modes

PAPER = PatchGrid(5.0, 128)


def white(grid: PatchGrid, *leading: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((*leading, grid.pixels, grid.pixels))


def band_limited(grid: PatchGrid, lowest: float, highest: float, seed: int = 1) -> np.ndarray:
    modes = forward(white(grid, seed=seed), grid)
    return inverse(modes * ((grid.ell > lowest) & (grid.ell < highest)), grid)


def full_plane(grid: PatchGrid, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multipoles and power of every mode of the plane, by numpy's complex transform."""
    ell = 2 * np.pi * np.fft.fftfreq(grid.pixels, grid.pixel_rad)
    modes = np.fft.fft2(field) * grid.pixel_rad**2
    return np.hypot(ell[:, None], ell[None, :]), np.abs(modes) ** 2 / grid.area_sr


@pytest.mark.parametrize("pixels", [64, 63])
def test_parseval(pixels):
    grid = PatchGrid(7.0, pixels)
    field = white(grid)
    modes = forward(field, grid)
    total = (grid.mode_weight * power(modes, modes, grid)).sum() / grid.area_sr
    assert_allclose(total, np.mean(field**2), rtol=1e-12)


def test_grid_of_the_paper():
    assert PAPER.pixel_arcmin == 2.34375
    assert_allclose([PAPER.ell_fundamental, PAPER.ell_nyquist], [72, 4608])
    assert PAPER.mode_weight.sum() == 128**2


def test_white_noise_has_the_power_of_its_pixels():
    fields = white(PAPER, 100)
    modes = forward(fields, PAPER)
    measured = bin_power(power(modes, modes, PAPER), PAPER, Bins((0, 7000))).mean()
    # 1.6e6 samples: the variance is known to sqrt(2 / 1.6e6) = 0.11 %.
    assert_allclose(measured, PAPER.pixel_rad**2, rtol=4e-3)


@pytest.mark.parametrize(("dtype", "complex_dtype"), [("f4", "c8"), ("f8", "c16")])
def test_transform_keeps_precision_and_batches(dtype, complex_dtype):
    grid = PatchGrid(5.0, 32)
    fields = white(grid, 3, 2).astype(dtype)
    modes = forward(fields, grid)
    assert modes.dtype == complex_dtype
    assert modes.shape == (3, 2, 32, 17)
    back = inverse(modes, grid)
    assert back.dtype == dtype
    assert_allclose(back, fields, atol=1e-5 if dtype == "f4" else 1e-13)
    assert_allclose(modes[2, 1], forward(fields[2, 1], grid), rtol=1e-5, atol=1e-12)


def test_band_powers_are_those_of_the_full_plane():
    field = white(PAPER)
    modes = forward(field, PAPER)
    bins = Bins.linear(100, 6000, 350)
    ell, expected = full_plane(PAPER, field)
    inside = [
        (ell >= low) & (ell < high) for low, high in zip(bins.edges, bins.edges[1:], strict=False)
    ]
    assert_allclose(bins.modes(PAPER), [band.sum() for band in inside])
    assert_allclose(bins.centres(PAPER), [ell[band].mean() for band in inside])
    measured = bin_power(power(modes, modes, PAPER), PAPER, bins)
    assert_allclose(measured, [expected[band].mean() for band in inside])


def test_a_band_without_modes_is_nan():
    bins = Bins((1, 2, 500))
    assert np.isnan(bin_power(PAPER.ell, PAPER, bins)[0])
    assert bins.modes(PAPER)[0] == 0


def test_bins_refuse_edges_that_do_not_increase():
    with pytest.raises(ValueError, match="increasing edges"):
        Bins((100, 100, 200))


def test_spectrum_is_zero_beyond_its_table():
    cl = on_modes(np.arange(1001), np.ones(1001), PAPER)
    assert_allclose(cl, PAPER.ell <= 1000)


@pytest.mark.parametrize("pixels", [64, 63])
def test_polarization_round_trip_of_any_real_map(pixels):
    grid = PatchGrid(5.0, pixels)
    q, u = white(grid, 2)
    assert_allclose(eb_to_qu(*qu_to_eb(q, u, grid), grid), [q, u], atol=1e-12)
    assert_allclose(qu_to_eb(*eb_to_qu(q, u, grid), grid), [q, u], atol=1e-12)
    e, b = qu_to_eb(q, u, grid)
    assert_allclose(np.sum(e**2 + b**2), np.sum(q**2 + u**2), rtol=1e-12)


@pytest.mark.parametrize(("waves_y", "waves_x"), [(0, 3), (4, 0), (5, 2), (-5, 2), (7, -7)])
def test_plane_wave_polarized_along_and_across_is_pure_e(waves_y, waves_x):
    """Q = cos 2phi, U = sin 2phi is E alone; turned by 45° it is B alone."""
    y, x = np.indices((64, 64)) * 2 * np.pi / 64
    wave = np.cos(waves_y * y + waves_x * x + 0.3)
    angle = 2 * np.arctan2(waves_y, waves_x)
    grid = PatchGrid(5.0, 64)
    q, u = wave * np.cos(angle), wave * np.sin(angle)
    assert_allclose(qu_to_eb(q, u, grid), [wave, 0 * wave], atol=1e-12)
    assert_allclose(qu_to_eb(-u, q, grid), [0 * wave, wave], atol=1e-12)


def test_e_is_a_scalar_and_b_changes_sign_in_a_mirror():
    grid = PatchGrid(5.0, 64)
    q, u = (band_limited(grid, 0, 0.9 * grid.ell_nyquist, seed) for seed in (1, 2))
    e, b = qu_to_eb(q, u, grid)
    turned = qu_to_eb(-np.rot90(q), -np.rot90(u), grid)
    assert_allclose(turned, [np.rot90(e), np.rot90(b)], atol=1e-12)
    mirrored = qu_to_eb(q[::-1], -u[::-1], grid)
    assert_allclose(mirrored, [e[::-1], -b[::-1]], atol=1e-12)


def tapered_cut(law: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """E and B of a tapered 5° patch cut from a pure-E sky with spectrum `law` on the modes."""
    sky = PatchGrid(10.0, 256)
    e = white_modes(np.random.default_rng(seed), sky) * np.sqrt(law)
    cut = np.s_[64:192, 64:192]
    taper = cosine_taper(PAPER, 1.5)
    q, u = (inverse(part, sky)[cut] * taper for part in rotate_to_qu(e, 0 * e, sky))
    return qu_to_eb(q, u, PAPER)


@pytest.mark.parametrize("ell_0", [1500, 2500])
def test_pure_e_stays_e_in_the_interior_of_a_tapered_patch(ell_0):
    """The bar holds for waves shorter than the taper, which is 90' against 14' at ell 1500."""
    plateau = np.s_[38:90, 38:90]
    law = np.exp(-((PatchGrid(10.0, 256).ell - ell_0) ** 2) / (2 * 140**2))
    for seed in range(5):
        e, b = tapered_cut(law, seed)
        assert b[plateau].std() < 1e-3 * e[plateau].std()
        assert b.std() > 3e-3 * e.std()  # in the taper it does leak


def test_pure_e_of_the_cmb_stays_e_in_power():
    """Waves longer than the taper leak: of the CMB's E less than 1e-3, in power, ends as B."""
    ell = PatchGrid(10.0, 256).ell
    # The envelope of the CMB's EE: D_ell rises as ell², peaks near 1000 and is damped.
    law = np.where(ell > 0, np.exp(-((ell / 1100.0) ** 1.5)), 0.0)
    plateau = np.s_[38:90, 38:90]
    pairs = [tapered_cut(law, seed) for seed in range(20)]
    e, b = (np.mean([pair[i][plateau].var() for pair in pairs]) for i in (0, 1))
    assert 1e-5 * e < b < 1e-3 * e


def test_taper_of_the_paper():
    taper = cosine_taper(PAPER, 1.5)
    assert_allclose(np.mean(taper**2), 0.38575744628906244, rtol=1e-15)
    assert np.all(taper[38:90, 38:90] == 1)
    assert np.sum(taper == 1) == 52**2
    assert_allclose(taper, taper[::-1, ::-1], rtol=0)
    assert_allclose(taper, taper.T, rtol=0)
    assert taper[0].max() == 0
    assert_allclose(taper[19, 64], 0.5)
    assert_allclose(taper[10, 25], taper[10, 64] * taper[64, 25])


def test_taper_of_whole_pixels_has_them_all():
    # 0.3 / (10 / 100) is 2.9999999999999996 in floating point.
    assert np.sum(cosine_taper(PatchGrid(10.0, 100), 0.3)[50] < 1) == 6
    assert np.all(cosine_taper(PAPER, 0) == 1)
    with pytest.raises(ValueError, match=r"from 0 to 2\.5 deg"):
        cosine_taper(PAPER, 2.6)


def test_gaussian_beam_is_the_transform_of_its_profile():
    """A point source smoothed on the patch is half as bright at half the FWHM."""
    assert_allclose(gaussian_beam(np.array([0.0]), 30), 1)
    pixel = PAPER.pixel_arcmin
    point = np.zeros((128, 128))
    point[64, 64] = 1
    fwhm = 8 * pixel
    spot = inverse(forward(point, PAPER) * gaussian_beam(PAPER.ell, fwhm), PAPER)
    assert_allclose(spot.sum(), 1)
    assert_allclose(spot[64, [60, 68]] / spot[64, 64], 0.5, rtol=1e-6)


def test_analytic_estimate_is_e_of_the_maps_as_they_are():
    q, u = white(PAPER, 2, 4)
    before = q.copy()
    assert_allclose(analytic_eb(q, u, PAPER), qu_to_eb(q, u, PAPER))
    assert np.array_equal(q, before)
    with pytest.raises(ValueError, match="Expected two arrays"):
        analytic_eb(q, u[:3], PAPER)


@pytest.mark.parametrize(("ee", "bb"), [(1.0, 0.0), (0.0, 2.0), (1.0, 0.5)])
def test_variances_after_a_taper(ee, bb):
    """Expected variances of E and B of tapered Q,U against 600 drawn patches, steep spectra."""
    grid = PatchGrid(5.0, 32)
    taper = cosine_taper(grid, 1.5)
    shape = np.where(grid.ell > 0, np.maximum(grid.ell, 1) ** -2.0, 0)
    rng = np.random.default_rng(5)
    white = forward(rng.standard_normal((2, 600, 32, 32)) / grid.pixel_rad, grid)
    modes = white * np.sqrt(np.array([ee, bb]))[:, None, None, None] * np.sqrt(shape)
    q, u = eb_to_qu(*inverse(modes, grid), grid)
    found = np.mean(np.square(qu_to_eb(q * taper, u * taper, grid)), axis=(2, 3))
    expected = tapered_variances(ee * shape, bb * shape, taper, grid)
    errors = found.std(axis=1, ddof=1) / np.sqrt(600)
    assert np.all(np.abs(found.mean(axis=1) - expected) < 4 * errors)
    assert np.all(errors < 0.05 * np.sum(expected))
    assert_allclose(
        np.sum(expected),
        np.mean(taper**2) * np.sum(grid.mode_weight * (ee + bb) * shape) / grid.area_sr,
    )


def test_coarsening_keeps_the_waves_that_fit():
    fine, coarse = PatchGrid(5.0, 64), PatchGrid(5.0, 32)
    modes = forward(white(fine, 3), fine)
    fits = (np.abs(fine.ell_x) < coarse.ell_nyquist * 0.999) & (
        np.abs(fine.ell_y) < coarse.ell_nyquist * 0.999
    )
    field = inverse(modes * fits, fine)
    # Of a field that the coarse pixels resolve, its values there are every second of the fine ones.
    assert_allclose(coarsen(field, fine, coarse), field[:, ::2, ::2], atol=1e-12)
    assert_allclose(coarsen(inverse(modes, fine), fine, coarse), field[:, ::2, ::2], atol=1e-12)
    assert coarsen(field, fine, fine) is field
