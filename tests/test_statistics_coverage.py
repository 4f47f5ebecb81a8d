"""Exact posteriors are calibrated; errors too small and means that are off are found."""

import numpy as np
import pytest
from scipy import stats

from skyweave.flat.fourier import bin_power, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator
from skyweave.statistics.coverage import (
    LEVELS,
    band_coverage,
    expected_coverage,
    nearer,
    pixel_coverage,
    residual_power,
    tarp,
)
from skyweave.statistics.flat_spectra import cross_spectra, default_bins
from skyweave.statistics.posterior import map_tarp, regressed, unfolded

GRID = PatchGrid(5.0, 32)
BINS = default_bins(GRID)
CL = 1e-3 * (GRID.ell + 300.0) ** -2
ERROR = 2e-8 * (GRID.ell + 100.0) ** -0.5
TAPER = cosine_taper(GRID, 1.5)


def gaussian(count, cl, *identity):
    white = generator(2, *identity).standard_normal((count, GRID.pixels, GRID.pixels))
    return inverse(forward(white, GRID) * np.sqrt(cl / GRID.pixel_rad**2), GRID)


def posterior(count, *identity, taper=TAPER, error=ERROR):
    """Prediction, and a truth that differs from it by a residual independent of it."""
    prediction = gaussian(count, CL, *identity, "prediction") * taper
    return prediction, prediction + gaussian(count, error, *identity, "residual") * taper


def held(scale):
    """Coverage of intervals around the right mean whose width is `scale` times the right one."""
    quantile = stats.norm.ppf((1 + np.array(LEVELS)) / 2)
    return 2 * stats.norm.cdf(scale * quantile) - 1


class TestPixels:
    rng = np.random.default_rng(5)
    sigma = rng.uniform(0.5, 2, (200, 32, 32))
    prediction = rng.standard_normal(sigma.shape)
    truth = prediction + sigma * rng.standard_normal(sigma.shape)

    @pytest.mark.parametrize("scale", [1, 1 / 1.5, 2])
    def test_coverage_is_the_gaussian_integral(self, scale):
        value, error = pixel_coverage(self.prediction, scale * self.sigma, self.truth)
        assert np.abs((value - held(scale)) / error).max() < 3.5

    def test_error_is_that_of_a_share(self):
        value, error = pixel_coverage(self.prediction, self.sigma, self.truth)
        expected = np.sqrt(value * (1 - value) / self.truth.size)
        np.testing.assert_allclose(error, expected, rtol=0.2)

    def test_what_the_taper_hides_does_not_count(self):
        truth = np.where(TAPER > 0.1, self.truth, self.prediction)
        value, _ = pixel_coverage(self.prediction, self.sigma, truth, taper=TAPER)
        everything, _ = pixel_coverage(self.prediction, self.sigma, truth)
        assert np.abs(value - LEVELS).max() < 0.01
        assert (everything > value + 0.01).all()


class TestBands:
    def test_coverage_is_the_gaussian_integral_within_errors(self):
        """Over studies of 40 and 40 patches: pulls of mean 0 and square 1 in each band."""
        flat = np.full_like(GRID.ell, 1e-9)
        pulls = []
        for number in range(60):
            known = residual_power(*posterior(40, number, "known", error=flat), GRID, BINS)
            maps = posterior(40, number, "test", error=flat)
            value, error = band_coverage(*maps, known, GRID, BINS)
            pulls.append((value - np.array(LEVELS)[:, None]) / error)
        pulls = np.array(pulls)
        assert np.abs(pulls.mean(axis=0)).max() < 4 / np.sqrt(60)
        assert pulls.std() == pytest.approx(1, abs=0.2)

    def test_errors_too_small_cover_too_little(self):
        known = residual_power(*posterior(200, "known"), GRID, BINS) / 1.5**2
        value, error = band_coverage(*posterior(200, "test"), known, GRID, BINS)
        assert np.abs((value - held(1 / 1.5)[:, None]) / error).max() < 4

    def test_a_mean_that_is_off_covers_too_little_in_its_bands(self):
        prediction, truth = posterior(200, "test")
        low = inverse(forward(prediction, GRID) * (GRID.ell < 400), GRID)
        known = residual_power(*posterior(200, "known"), GRID, BINS)
        value, error = band_coverage(prediction + low, truth, known, GRID, BINS)
        away = (value - np.array(LEVELS)[:, None]) / error
        assert (away[:, BINS.centres(GRID) < 300] < -10).all()
        assert (np.abs(away[:, BINS.centres(GRID) > 600]) < 4).all()

    def test_null_patches_and_dark_bands_are_left_out(self):
        prediction, truth = posterior(12, "some")
        live = np.arange(12) % 3 > 0
        truth[~live] = 0
        known = residual_power(prediction, truth, GRID, BINS)
        assert len(known) == 8
        whole = band_coverage(prediction, truth, known, GRID, BINS)
        few = band_coverage(prediction[live], truth[live], known, GRID, BINS)
        np.testing.assert_array_equal(whole, few)
        known[:, 2] = 0
        value, _ = band_coverage(prediction, truth, known, GRID, BINS)
        assert np.isnan(value[:, 2]).all()
        assert np.isfinite(np.delete(value, 2, axis=1)).all()


class TestTarp:
    """Truths of a known posterior in five dimensions, and references that know nothing of them."""

    n, s, d = 400, 500, 5

    def cases(self, scale=1.0, shift=0.0, seed=3):
        rng = np.random.default_rng(seed)
        mean = rng.standard_normal((self.n, self.d))
        truth = mean + 0.5 * rng.standard_normal(mean.shape)
        samples = mean + shift + 0.5 * scale * rng.standard_normal((self.s, *mean.shape))
        references = 1.1 * rng.standard_normal(mean.shape)
        return samples, truth, references

    def test_an_exact_posterior_lies_on_the_diagonal(self):
        found = tarp(*self.cases())
        assert found.p_value > 0.01
        assert found.deviation < 1.63 / np.sqrt(self.n)
        assert found.area < 0.04
        pull = (found.coverage - found.credibility)[1:-1] / found.error[1:-1]
        assert np.abs(pull).max() < 4
        assert found.n == self.n

    @pytest.mark.parametrize(("scale", "shift"), [(1 / 1.5, 0), (1.5, 0), (1, 0.5)])
    def test_wrong_errors_and_wrong_means_are_found(self, scale, shift):
        found = tarp(*self.cases(scale, shift))
        assert found.p_value < 1e-4
        assert found.deviation > 0.1

    def test_small_errors_cover_less_and_large_ones_more_in_the_middle_half(self):
        middle = lambda found: np.interp([0.25, 0.75], found.credibility, found.coverage)  # noqa: E731
        low, high = middle(tarp(*self.cases(1 / 1.5)))
        assert high - low < 0.45
        low, high = middle(tarp(*self.cases(1.5)))
        assert high - low > 0.55

    def test_the_share_is_that_of_nearer_samples(self):
        samples, truth, references = (x[..., :2, :] for x in self.cases())
        for case, share in enumerate(nearer(samples, truth, references)):
            distance = np.linalg.norm(samples[:, case] - references[case], axis=1)
            count = (distance < np.linalg.norm(truth[case] - references[case])).sum()
            assert share == pytest.approx((count + 0.5) / (self.s + 1))

    def test_p_values_of_shared_draws_are_uniform(self):
        rng = np.random.default_rng(6)
        found = []
        for _ in range(300):
            draws = np.sort(rng.standard_normal(60))
            ranks = np.searchsorted(draws, rng.standard_normal(40))
            found.append(expected_coverage((ranks + 0.5) / 61, draws=60).p_value)
        for level in (0.05, 0.2, 0.5):
            share = np.mean(np.array(found) < level)
            assert share == pytest.approx(level, abs=0.3 * level + 0.03)


class TestMaps:
    def test_the_field_shows_the_wanted_power_through_the_taper(self):
        power = bin_power(CL, GRID, BINS) * np.mean(TAPER**2)
        spectrum = unfolded(power, GRID, BINS, TAPER)
        maps = gaussian(600, spectrum, "unfolded") * TAPER
        found = cross_spectra(maps, maps, GRID, BINS)
        pull = (found.mean(axis=0) - power) / (found.std(axis=0, ddof=1) / np.sqrt(600))
        assert np.abs(pull).max() < 4
        np.testing.assert_allclose(
            bin_power(unfolded(power, GRID, BINS), GRID, BINS), power, rtol=0.01
        )

    @pytest.mark.parametrize("taper", [None, TAPER])
    def test_an_exact_posterior_is_calibrated(self, taper):
        seen = np.ones_like(TAPER) if taper is None else taper
        known = residual_power(*posterior(300, "known", taper=seen), GRID, BINS).mean(axis=0)
        maps = posterior(300, "test", taper=seen)
        found = map_tarp(*maps, known, GRID, BINS, generator(1, "draws"), taper=taper)
        assert found.p_value > 0.01
        assert found.deviation < 0.1
        assert found.n == 300

    @pytest.mark.parametrize(("scale", "amplitude"), [(1 / 1.5, 1.0), (1.0, 0.8)])
    def test_errors_too_small_and_amplitudes_that_are_off_are_found(self, scale, amplitude):
        known = residual_power(*posterior(300, "known"), GRID, BINS).mean(axis=0)
        prediction, truth = posterior(300, "test")
        power = scale**2 * known
        found = map_tarp(
            amplitude * prediction, truth, power, GRID, BINS, generator(1, "draws"), taper=TAPER
        )
        assert found.p_value < 1e-4
        assert found.deviation > 0.1

    def test_without_patches_or_power_there_is_no_answer(self):
        prediction, truth = posterior(3, "few")
        power = residual_power(prediction, truth, GRID, BINS).mean(axis=0)
        truth[1:] = 0
        assert map_tarp(prediction, truth, power, GRID, BINS, generator(1, "a")) is None
        same = prediction, prediction
        assert map_tarp(*same, 0 * power, GRID, BINS, generator(1, "a")) is None

    def test_regression_gives_the_posterior_mean(self):
        """Truth of spectrum C seen with noise C / 3: the mean is 3 / 4 of what is seen."""
        truth = gaussian(400, CL, "signal")
        seen = 2 * (truth + gaussian(400, CL / 3, "noise"))
        found = regressed(seen, truth, GRID, BINS)(seen)
        inside = (GRID.ell > 100) & (GRID.ell < BINS.edges[-1])
        ratio = (forward(found[:1], GRID) / forward(seen[:1], GRID))[0][inside].real
        np.testing.assert_allclose(ratio, 0.375, rtol=0.05)
        assert not regressed(0 * seen, truth, GRID, BINS)(seen).any()
