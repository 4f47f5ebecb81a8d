"""Radially averaged power of images, against what the Fourier transform of known images is."""

import numpy as np
import pytest

from skyweave.errors import UserError
from skyweave.statistics.flat_spectra import CHUNK
from skyweave.statistics.image_spectra import radial_power


def annulus(pixels: int, bins: int) -> np.ndarray:
    """Number (pixels, pixels) of the annulus of each mode of the full transform; -1 for none."""
    number = np.fft.fftfreq(pixels, 1 / pixels)
    radius = np.hypot(number[:, None], number[None, :])
    edges = np.linspace(0.5, pixels / 2, bins + 1)
    band = np.searchsorted(edges, radius, side="right") - 1
    return np.where(band == bins, -1, band)


@pytest.mark.parametrize(("pixels", "bins"), [(32, None), (32, 15), (33, 7), (4, 1)])
def test_power_is_the_mean_over_annuli(pixels, bins):
    images = np.random.default_rng(1).normal(size=(3, pixels, pixels))
    power, wave_numbers = radial_power(images, bins)
    count = power.shape[1]
    assert count == (pixels // 4 if bins is None else bins)
    plane = np.abs(np.fft.fft2(images)) ** 2 / pixels**2
    band = annulus(pixels, count)
    number = np.fft.fftfreq(pixels)
    radius = np.hypot(number[:, None], number[None, :])
    for index in range(count):
        np.testing.assert_allclose(power[:, index], plane[:, band == index].mean(axis=1))
        assert wave_numbers[index] == pytest.approx(radius[band == index].mean())
    assert (np.diff(wave_numbers) > 0).all()
    assert wave_numbers[-1] < 0.5


def test_white_noise_has_its_variance_everywhere():
    """Within 4 errors of the mean; float32, more images than are transformed at once."""
    images = np.random.default_rng(2).normal(0, 3, (CHUNK + 72, 32, 32)).astype(np.float32)
    power, _ = radial_power(images)
    error = power.std(axis=0, ddof=1) / np.sqrt(len(power))
    assert (np.abs(power.mean(axis=0) - 9) < 4 * error).all()
    assert (error < 0.2).all()
    np.testing.assert_array_equal(radial_power(images[CHUNK - 1 : CHUNK + 1])[0], power[127:129])


def test_a_single_wave_lies_in_its_annulus():
    """Half its squared amplitude is its variance; two modes of the annulus share it."""
    pixels, amplitude = 64, 2.5
    y, x = np.mgrid[:pixels, :pixels]
    image = amplitude * np.cos(2 * np.pi * (6 * x + 8 * y) / pixels + 0.3)
    power, wave_numbers = radial_power(image[None])
    band = annulus(pixels, pixels // 4)
    (filled,) = np.flatnonzero(power[0] > 1e-20)
    assert abs(wave_numbers[filled] - 10 / pixels) < 1 / pixels
    modes = np.count_nonzero(band == filled)
    assert power[0, filled] == pytest.approx(amplitude**2 / 2 * pixels**2 / modes)


def test_all_power_is_the_sum_of_squares():
    """Parseval's theorem, of an image whose mean is zero and whose waves lie in the annuli."""
    pixels = 48
    band = annulus(pixels, 12)
    modes = np.fft.fft2(np.random.default_rng(3).normal(size=(pixels, pixels)))
    image = np.fft.ifft2(np.where(band >= 0, modes, 0)).real
    power, _ = radial_power(image[None])
    counts = np.bincount(band[band >= 0])
    assert power[0] @ counts == pytest.approx(np.sum(image**2))


def test_a_gaussian_blob():
    """Its transform is a Gaussian: power (flux / N)² exp(-(2 pi f sigma)²)."""
    pixels, sigma, flux = 64, 2.0, 5.0
    axis = np.arange(pixels) - pixels / 2
    bell = np.exp(-(axis**2) / (2 * sigma**2))
    image = flux * bell[:, None] * bell[None, :] / (2 * np.pi * sigma**2)
    power, _ = radial_power(image[None], 31)
    number = np.fft.fftfreq(pixels)
    theory = (flux / pixels) ** 2 * np.exp(
        -((2 * np.pi * sigma) ** 2) * (number[:, None] ** 2 + number[None, :] ** 2)
    )
    band = annulus(pixels, 31)
    wanted = [theory[band == index].mean() for index in range(31)]
    np.testing.assert_allclose(power[0, :20], wanted[:20], rtol=1e-6)
    assert np.isfinite(np.log10(power)).all()


@pytest.mark.parametrize(
    ("shape", "bins", "where"),
    [
        ((8, 8), None, "images"),
        ((1, 8, 9), None, "images"),
        ((1, 8, 8), 4, "bins"),
        ((1, 8, 8), 0, "bins"),
        ((1, 3, 3), None, "images"),
    ],
)
def test_what_does_not_fit(shape, bins, where):
    with pytest.raises(UserError, match=f"^{where}: "):
        radial_power(np.ones(shape), bins)


def test_every_annulus_has_modes():
    for pixels in range(4, 40):
        power, wave_numbers = radial_power(np.ones((1, pixels, pixels)), pixels // 2 - 1)
        assert np.isfinite(power).all()
        assert np.isfinite(wave_numbers).all()
