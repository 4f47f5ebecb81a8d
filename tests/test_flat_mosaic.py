"""Patches of a patch and one map again, finer pixels, wider beams: identities, theory, scipy."""

import numpy as np
import pytest
from scipy import fft, ndimage

from skyweave.errors import UserError
from skyweave.flat.mosaic import join, resample, sharpen, smooth, sub_patches
from skyweave.seeds import generator

#: A quarter of the tile's side and half of that, as in ForSE+.
PIXELS, SIDE, STEP, N = 256, 64, 32, 7
MAPS = 6


def white(*identity, shape=(MAPS, N * N, SIDE, SIDE)):
    return generator(3, "mosaic", *identity).standard_normal(shape)


def share(n=N, side=SIDE, step=STEP):
    """q = Σ w² / (Σ w)² (y, x), from windows that `join` shows one by one."""
    ones = np.ones((side, side))
    windows = np.stack([join(one[:, None, None] * ones, step, 1) for one in np.eye(n * n)])
    np.testing.assert_allclose(windows.sum(axis=0), 1)
    return np.sum(windows**2, axis=0)


def waves():
    """A band-limited map (256, 256) of low waves and high ones."""
    y, x = np.mgrid[:PIXELS, :PIXELS] * 2 * np.pi / PIXELS
    return np.sin(3 * x + 5 * y) + np.cos(40 * x - 7 * y) + 0.3 * np.sin(90 * y + 1)


@pytest.mark.parametrize(("side", "step"), [(64, 32), (64, 48), (256, 1), (64, 64), (64, 16)])
@pytest.mark.parametrize("rho", [1, None])
def test_a_map_comes_back_from_its_patches(side, step, rho):
    maps = np.stack([waves(), waves().T])
    patches = sub_patches(maps, side, step)
    np.testing.assert_allclose(join(patches, step, rho), maps, atol=1e-6)


def test_patches_are_taken_row_by_row():
    maps = np.arange(2 * PIXELS**2, dtype=np.float32).reshape(2, PIXELS, PIXELS)
    patches = sub_patches(maps, SIDE, STEP)
    assert patches.shape == (2, N * N, SIDE, SIDE)
    assert patches.dtype == np.float32
    np.testing.assert_array_equal(patches[1, 2 * N + 3], maps[1, 64:128, 96:160])


def test_windows_fall_as_half_a_cosine_but_not_at_the_edge():
    ones = np.ones((4, 8, 8))
    ones[1:] = 0
    (line,) = {tuple(np.round(row, 12)) for row in join(ones, 4, 1)[:4]}
    ramp = (1 + np.cos(np.pi * (np.arange(4) + 0.5) / 4)) / 2
    np.testing.assert_allclose(line, [1, 1, 1, 1, *ramp, 0, 0, 0, 0], atol=1e-11)


def test_blending_keeps_the_variance_of_independent_patches():
    q = share()
    assert q.min() == pytest.approx(0.25, abs=0.01)
    assert q[0, 0] == 1
    patches = white("independent")
    kept, plain = join(patches, STEP, 0), join(patches, STEP, 1)
    for found, expected in ((kept, np.ones_like(q)), (plain, q)):
        for part in (q < 0.4, (q > 0.4) & (q < 0.7), q == 1):
            # The variance of n normal numbers has the error √(2 / n).
            error = expected[part].mean() * np.sqrt(2 / (MAPS * part.sum()))
            assert abs(np.mean(found[:, part] ** 2) - expected[part].mean()) < 4 * error
    # rho is measured to be next to nothing.
    assert np.mean(join(patches, STEP) ** 2) == pytest.approx(np.mean(kept**2), rel=0.01)


@pytest.mark.parametrize("contrast", [1, 100])
@pytest.mark.parametrize("rho", [0.2, 0.5, 0.9])
def test_a_correlation_is_found_and_made_up_for(rho, contrast):
    """Also where the amplitude grows by 100 across the map, its square by ten thousand."""
    sky = white("sky", shape=(MAPS, PIXELS, PIXELS))
    patches = np.sqrt(rho) * sub_patches(sky, SIDE, STEP) + np.sqrt(1 - rho) * white("own")
    amplitude = contrast ** (np.add.outer(np.arange(PIXELS), np.arange(PIXELS)) / (2 * PIXELS))
    patches *= sub_patches(amplitude, SIDE, STEP)
    found, q = join(patches, STEP), share()
    y, x = np.unravel_index(np.argmin(q), q.shape)
    gain = join(patches, STEP, 1)[0, y, x] / found[0, y, x]
    assert (gain**2 - q[y, x]) / (1 - q[y, x]) == pytest.approx(rho, abs=0.01)
    even = found / amplitude
    for part in (q < 0.4, (q > 0.4) & (q < 0.7)):
        # The error of white noise, and what rho's may add.
        error = 4 * np.sqrt(2 / (MAPS * part.sum())) + 0.01
        assert np.mean(even[:, part] ** 2) == pytest.approx(1, abs=error)


def test_patches_that_do_not_overlap_and_zeros_stay():
    patches = white("apart", shape=(4, 16, 16))
    np.testing.assert_array_equal(sub_patches(join(patches, 16), 16, 16), patches)
    np.testing.assert_array_equal(join(patches[:1], 3), patches[0])
    assert not join(np.zeros((4, 16, 16)), 8).any()


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_resampling_waves(factor):
    """Waves that fit the mirror, to what a quintic spline loses between the pixels."""
    size = (24, 32)
    fine = [(np.arange(factor * n) + 0.5) / factor - 0.5 for n in size]
    for ky, kx in ((0, 0), (1, 2), (5, 6), (12, 16)):

        def wave(y, x, ky=ky, kx=kx):
            down, right = (
                np.cos(np.pi * k * at / (n - 1)) for k, at, n in ((ky, y, 24), (kx, x, 32))
            )
            return down[:, None] * right[None, :]

        maps = wave(*(np.arange(n) for n in size))
        found = resample(maps, factor)
        assert found.shape == (factor * 24, factor * 32)
        nyquist = ky / 23, kx / 31
        # Of a wave and its aliases' shares, at most twice which are missing between the pixels.
        aliases = np.array([-2, -1, 1, 2])
        lost = sum(2 * np.sum((m / (m + 2 * aliases)) ** 6) for m in nyquist)
        assert max(nyquist) > 0.3 or lost < 1e-4
        np.testing.assert_allclose(found, wave(*fine), atol=lost + 1e-12)


def test_resampling_is_that_of_scipy():
    maps = white("zoom", shape=(2, 3, 20, 15))
    fine = np.meshgrid(*((np.arange(4 * n) + 0.5) / 4 - 0.5 for n in (20, 15)), indexing="ij")
    expected = ndimage.map_coordinates(maps[1, 2], fine, order=5, mode="mirror")
    np.testing.assert_allclose(resample(maps, 4)[1, 2], expected, atol=1e-12)
    np.testing.assert_allclose(resample(maps, 1), maps, atol=1e-12)


def test_resampling_keeps_a_constant_and_the_smallest_maps():
    np.testing.assert_allclose(resample(np.full((2, 3), 5.0), 3), 5)


# FWHM of a Gaussian of one pixel's standard deviation.
FWHM = np.sqrt(8 * np.log(2))


def test_a_point_becomes_the_beam():
    maps = np.zeros((80, 101))
    maps[40, 50] = 1
    # From 3 to 5 pixels: a Gaussian of 4.
    found = smooth(maps, 2.0, 2 * 3 * FWHM, 2 * 5 * FWHM)
    y, x = np.ogrid[-40:40, -50:51]
    expected = np.exp(-(y**2 + x**2) / (2 * 4**2)) / (2 * np.pi * 4**2)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_cosines_that_fit_the_mirror_are_multiplied():
    y, x = (np.pi * (np.arange(n) + 0.5) / n for n in (40, 60))
    maps = np.cos(3 * y)[:, None] * np.cos(7 * x)[None, :]
    sigma = np.radians(10 / 60) / FWHM
    ell = np.hypot(3 * np.pi / (40 * np.radians(5 / 60)), 7 * np.pi / (60 * np.radians(5 / 60)))
    found = smooth(maps, 5.0, 0.0, 10.0)
    np.testing.assert_allclose(found, maps * np.exp(-(ell**2) * sigma**2 / 2), atol=1e-14)


def test_smoothing_is_that_of_scipy_up_to_the_edges():
    maps = white("smooth", shape=(3, 60, 48))
    # Three pixels: of two, what aliases of the sampled kernel do can be seen.
    expected = ndimage.gaussian_filter(maps[1], 3.0, mode="reflect", truncate=10)
    np.testing.assert_allclose(smooth(maps, 2.0, 0, 2 * 3 * FWHM)[1], expected, atol=1e-12)


def test_smoothing_twice_is_smoothing_once_and_keeps_the_mean():
    maps = white("twice", shape=(32, 32))
    once = smooth(maps, 4.0, 5.0, 20.0)
    np.testing.assert_allclose(smooth(smooth(maps, 4.0, 5.0, 12.0), 4.0, 12.0, 20.0), once)
    assert once.mean() == pytest.approx(maps.mean())
    np.testing.assert_allclose(smooth(maps, 4.0, 7.0, 7.0), maps)


def steeper(ell):
    return 1 + (ell / 500) ** 2


def test_what_a_beam_leaves_alone_is_not_sharpened():
    """Planes and saddles, which are harmonic, and any map where nothing is multiplied."""
    y, x = np.ogrid[-20:20, -15:33]
    maps = np.stack([3 + 0 * x * y, x + 2 * y, x * y, x**2 - y**2 + 1]).astype(float)
    np.testing.assert_allclose(sharpen(maps, 4.0, steeper), maps, atol=1e-10)
    maps = white("sharpen", shape=(2, 3, 20, 15))
    before = maps.copy()
    np.testing.assert_allclose(sharpen(maps, 4.0, np.ones_like), maps, atol=1e-12)
    np.testing.assert_array_equal(maps, before)
    np.testing.assert_allclose(
        sharpen(maps, 4.0, lambda ell: 2 * steeper(ell))[1, 2].mean(), 2 * maps[1, 2].mean()
    )


def test_a_beam_is_undone_up_to_the_edges():
    """Of a sky of long waves, of any phase, far better than with the mirror's bends (scipy)."""
    pixels, size = 128, np.radians(10)
    ell = np.array([20, 45, 80, 120, 170, 210, 240])
    y, x = np.mgrid[:pixels, :pixels] * size / pixels
    phase, angle = generator(3, "waves").uniform(0, 2 * np.pi, (2, 10, len(ell), 1, 1))
    shape = ell[:, None, None]
    waves = np.cos(shape * (np.cos(angle) * x + np.sin(angle) * y) + phase) / shape**0.85

    def beam(ell, fwhm):
        return np.exp(-((np.radians(fwhm / 60) * ell) ** 2) / (16 * np.log(2)))

    def undo(ell):
        return beam(np.minimum(ell, 300), 12) / beam(np.minimum(ell, 300), 60)

    low, high = (np.sum(waves * beam(shape, fwhm), axis=1) for fwhm in (60, 12))
    axis = np.pi * np.arange(pixels) / size
    scale = np.hypot(axis[:, None], axis[None, :])
    plain = fft.idctn(undo(scale) * fft.dctn(low, axes=(1, 2)), axes=(1, 2))
    missing = np.std(high - low)
    off = np.std(sharpen(low, 600 / pixels, undo) - high)
    assert off < 0.3 * missing
    assert off < 0.5 * np.std(plain - high)


ZEROS = np.zeros((2, 16, 16))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sub_patches(ZEROS, 8, 3), "sub-patches: expected square maps"),
        (lambda: sub_patches(ZEROS, 32, 4), "sub-patches: expected square maps"),
        (lambda: sub_patches(ZEROS, 4, 6), "sub-patches: expected square maps"),
        (lambda: sub_patches(ZEROS, 8, 0), "sub-patches: expected square maps"),
        (lambda: sub_patches(ZEROS[:, :8], 8, 4), r"found \(8, 16, 8, 4\)"),
        (lambda: join(ZEROS, 8), r"patches: expected n · n square .* found \(2, 16, 16, 8\)"),
        (lambda: join(ZEROS[:1], 17), "patches: expected n · n square"),
        (lambda: join(ZEROS[:1, :8], 4), "patches: expected n · n square"),
        (lambda: join(ZEROS[:1], 4, 1.2), "rho: expected a correlation from 0 to 1, found 1.2"),
        (lambda: join(ZEROS[:1] * np.nan, 4), "maps: expected finite values"),
        (lambda: resample(ZEROS, 0), "resampling: expected a factor of 1 or more"),
        (lambda: resample(ZEROS[:, :1], 2), r"found \(2, 1, 16\)"),
        (lambda: resample(ZEROS * np.nan, 2), "maps: expected finite values"),
        (lambda: smooth(ZEROS, 1, 12, 3), r"smoothing: expected 0 <= .*found \(12, 3, 1\)"),
        (lambda: smooth(ZEROS, 0, 1, 3), "smoothing: expected 0 <="),
        (lambda: smooth(ZEROS + np.inf, 1, 1, 3), "maps: expected finite values"),
        (lambda: sharpen(ZEROS, 0, steeper), "sharpening: expected at least 3 pixels a side, wide"),
        (lambda: sharpen(ZEROS[..., :2], 1, steeper), r"found \(16, 2, 1\)"),
        (lambda: sharpen(ZEROS * np.nan, 1, steeper), "maps: expected finite values"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
