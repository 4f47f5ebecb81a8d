"""Spectra recover their input; metrics know a known prediction; the jackknife knows its error."""

import numpy as np
import pandas as pd
import pytest

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, bin_power, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator
from skyweave.statistics.flat_spectra import cross_spectra, default_bins
from skyweave.statistics.reconstruction import (
    COLUMNS,
    band_gain,
    correlation_gain,
    field_metrics,
)

GRID = PatchGrid(5.0, 64)
BINS = default_bins(GRID)
CL = 1e-3 * (GRID.ell + 300.0) ** -2
NAMES = {"run": "r", "field": "kappa", "method": "network"}


def gaussian(count, cl, *identity):
    white = generator(1, *identity).standard_normal((count, GRID.pixels, GRID.pixels))
    return inverse(forward(white, GRID) * np.sqrt(cl / GRID.pixel_rad**2), GRID)


def pick(frame, statistic):
    return frame[frame["statistic"] == statistic].reset_index(drop=True)


@pytest.fixture(scope="module")
def pair():
    """Truth of spectrum C; truth / 2 + noise of spectrum C / 4: T = .5, N = C / 4, r² = .5."""
    truth = gaussian(300, CL, "truth")
    return truth / 2 + gaussian(300, CL / 4, "noise"), truth


@pytest.mark.parametrize("taper_deg", [0.0, 1.5])
def test_spectra_recover_the_input(taper_deg):
    taper = cosine_taper(GRID, taper_deg)
    maps = gaussian(200, CL, "input") * taper
    found = cross_spectra(maps, maps, GRID, BINS, taper=taper)
    # The taper mixes neighbouring modes: leave out the first band, where C falls over its width.
    pull = (found.mean(0) - bin_power(CL, GRID, BINS)) / (
        found.std(0, ddof=1) / np.sqrt(len(found))
    )
    assert np.abs(pull[1:]).max() < 3.5
    assert np.sqrt(np.mean(pull[1:] ** 2)) < 1.5


def test_bands_reach_from_the_fundamental_to_nyquist():
    modes = BINS.modes(GRID)
    assert modes.min() >= 8
    assert BINS.edges[0] < GRID.ell_fundamental < BINS.edges[1]
    assert GRID.ell_nyquist - 2 * GRID.ell_fundamental < BINS.edges[-1] <= GRID.ell_nyquist
    with pytest.raises(UserError, match="Nyquist"):
        default_bins(GRID, ell_min=GRID.ell_nyquist)


def test_more_maps_than_a_chunk_change_nothing():
    maps = gaussian(300, CL, "chunk").astype(np.float32)
    whole = cross_spectra(maps, maps[::-1].copy(), GRID, BINS)
    assert whole.dtype == np.float64
    for index in (0, 127, 128, 299):
        one = cross_spectra(maps[index : index + 1], maps[299 - index][None], GRID, BINS)
        # Single precision in, band sums that may cancel: compare on the scale of the power.
        np.testing.assert_allclose(whole[index], one[0], atol=1e-6 * np.abs(whole).max())


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        ("correlation", np.full(BINS.count, np.sqrt(0.5))),
        ("transfer", np.full(BINS.count, 0.5)),
        ("residual", bin_power(CL / 4, GRID, BINS)),
        ("power_prediction", bin_power(CL / 2, GRID, BINS)),
        ("power_truth", bin_power(CL, GRID, BINS)),
    ],
)
def test_a_known_prediction_is_recognized(pair, statistic, expected):
    found = pick(field_metrics(*pair, GRID, BINS, **NAMES), statistic)
    pull = (found["value"] - expected) / found["error"]
    assert np.abs(pull).max() < 3.5
    assert np.sqrt(np.mean(pull**2)) < 1.4
    assert (found["n"] == 300).all()
    np.testing.assert_allclose(found["ell"], BINS.centres(GRID))


def test_metrics_are_tied_by_their_definitions(pair):
    frame = field_metrics(*pair, GRID, BINS, **NAMES)
    r, t, residual, power, truth = (
        pick(frame, name)["value"]
        for name in ("correlation", "transfer", "residual", "power_prediction", "power_truth")
    )
    np.testing.assert_allclose(residual, power * (1 - r**2), rtol=1e-12)
    np.testing.assert_allclose(t, r * np.sqrt(power / truth), rtol=1e-12)


def test_the_truth_itself_is_perfect_whatever_its_unit(pair):
    truth = pair[1]
    frame = field_metrics(-3 * truth, truth, GRID, BINS, **NAMES)
    np.testing.assert_allclose(pick(frame, "correlation")["value"], -1, rtol=1e-12)
    np.testing.assert_allclose(pick(frame, "transfer")["value"], -3, rtol=1e-12)
    ratio = pick(frame, "residual")["value"] / pick(frame, "power_prediction")["value"]
    assert np.abs(ratio).max() < 1e-12
    assert pick(frame, "pixel_correlation")["value"][0] == pytest.approx(-1, abs=1e-12)


def test_the_taper_cancels_in_ratios_and_scales_powers(pair):
    taper = cosine_taper(GRID, 1.5)
    plain = field_metrics(*pair, GRID, BINS, **NAMES)
    corrected = field_metrics(*pair, GRID, BINS, taper=taper, **NAMES)
    for statistic, factor in (("correlation", 1), ("transfer", 1), ("residual", np.mean(taper**2))):
        np.testing.assert_allclose(
            pick(plain, statistic)["value"], factor * pick(corrected, statistic)["value"]
        )


def test_jackknife_errors_are_the_scatter_of_repeated_studies(pair):
    studies = [
        field_metrics(*(maps[start : start + 15] for maps in pair), GRID, BINS, **NAMES)
        for start in range(0, 300, 15)
    ]
    for statistic in ("correlation", "transfer", "residual", "pixel_correlation"):
        values = np.stack([pick(frame, statistic)["value"] for frame in studies])
        errors = np.stack([pick(frame, statistic)["error"] for frame in studies])
        ratio = np.sqrt(np.mean(errors**2) / np.mean(values.var(axis=0, ddof=1)))
        # 20 studies: the scatter of one number is known to 16 %, of a mean over bands better.
        assert 0.7 < ratio < 1.4


def test_jackknife_equals_leaving_each_out(pair):
    prediction, truth = (maps[:6] for maps in pair)
    value = lambda keep: np.corrcoef(prediction[keep].ravel(), truth[keep].ravel())[0, 1]  # noqa: E731
    left_out = np.array([value(np.arange(6) != i) for i in range(6)])
    found = pick(field_metrics(prediction, truth, GRID, BINS, **NAMES), "pixel_correlation")
    assert found["value"][0] == pytest.approx(value(slice(None)), rel=1e-12)
    expected = np.sqrt(5 / 6 * np.sum((left_out - left_out.mean()) ** 2))
    assert found["error"][0] == pytest.approx(expected, rel=1e-9)


def test_null_patches_are_counted_and_kept_apart(pair):
    prediction, truth = (maps[:40].copy() for maps in pair)
    truth[::4] = 0
    with_null = field_metrics(prediction, truth, GRID, BINS, **NAMES)
    live = truth.any(axis=(1, 2))
    without = field_metrics(prediction[live], truth[live], GRID, BINS, **NAMES)
    for statistic in ("correlation", "transfer", "residual", "power_truth"):
        pd.testing.assert_frame_equal(pick(with_null, statistic), pick(without, statistic))
    assert pick(with_null, "patches")["value"][0] == 40
    assert pick(with_null, "patches_null")["value"][0] == 10
    null = pick(with_null, "power_prediction_null")
    expected = cross_spectra(prediction[::4], prediction[::4], GRID, BINS).mean(axis=0)
    np.testing.assert_allclose(null["value"], expected)
    assert (null["n"] == 10).all()
    assert "power_prediction_null" not in set(without["statistic"])


def test_all_null_gives_no_correlation_but_a_table(pair):
    frame = field_metrics(pair[0][:5], np.zeros_like(pair[0][:5]), GRID, BINS, **NAMES)
    assert "correlation" not in set(frame["statistic"])
    assert np.isnan(pick(frame, "pixel_correlation")["value"][0])
    assert len(pick(frame, "power_prediction_null")) == BINS.count


def test_a_prediction_of_zero_has_no_correlation_and_no_transfer(pair):
    frame = field_metrics(np.zeros_like(pair[1]), pair[1], GRID, BINS, **NAMES)
    assert pick(frame, "correlation")["value"].isna().all()
    assert (pick(frame, "transfer")["value"] == 0).all()


def test_one_patch_has_values_and_no_errors(pair):
    frame = field_metrics(pair[0][:1], pair[1][:1], GRID, BINS, **NAMES)
    assert tuple(frame.columns) == COLUMNS
    assert pick(frame, "correlation")["value"].notna().all()
    assert frame["error"].isna().all()


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_is_named(pair, lost):
    prediction = pair[0][:8].copy()
    prediction[5, 3, 2] = lost
    with pytest.raises(
        UserError, match=r"r: network kappa: prediction: .* 1 of 8 patches, first 5"
    ):
        field_metrics(prediction, pair[1][:8], GRID, BINS, **NAMES)


def test_shapes_that_differ_are_named(pair):
    with pytest.raises(UserError, match=r"shape \(8, 64, 64\), found \(7, 64, 64\)"):
        field_metrics(pair[0][:7], pair[1][:8], GRID, BINS, **NAMES)
    with pytest.raises(UserError, match=r"two of \(n, 64, 64\)"):
        cross_spectra(pair[0][:7], pair[1][:8], GRID, Bins((100.0, 200.0)))


def test_gain_over_a_baseline_is_known_better_than_either_correlation():
    """Predictions of one sky with noise of 0.30 and 0.31: the scatter of the sky cancels."""
    rng = np.random.default_rng(8)
    truth = rng.standard_normal((200, 16, 16)) * rng.uniform(0.5, 2, (200, 1, 1))
    noise = rng.standard_normal(truth.shape)
    better, worse = truth + 0.30 * noise, truth + 0.31 * noise
    gain, error = correlation_gain(better, worse, truth)
    exact = [np.corrcoef(maps.ravel(), truth.ravel())[0, 1] for maps in (better, worse)]
    assert gain == pytest.approx(exact[0] - exact[1], rel=1e-6)
    assert gain > 10 * error > 0
    same, none = correlation_gain(worse, worse, truth)
    assert (same, none) == (0, 0)


def test_gain_by_band_is_the_difference_of_correlations(pair):
    """Noise of C / 4 and of C / 2: r is √(1/2) and √(1/3), on the same truths."""
    better, truth = pair
    worse = better + gaussian(300, CL / 4, "more noise")
    gain, error = band_gain(better, worse, truth, GRID, BINS)
    frames = [field_metrics(maps, truth, GRID, BINS, **NAMES) for maps in (better, worse)]
    first, second = (pick(frame, "correlation") for frame in frames)
    np.testing.assert_allclose(gain, first["value"] - second["value"], atol=1e-12)
    pull = (gain - (np.sqrt(1 / 2) - np.sqrt(1 / 3))) / error
    assert np.abs(pull).max() < 3.5
    # Part of the noise is the same, and so is the sky: known better than if they were not.
    assert (error < 0.95 * np.hypot(first["error"], second["error"])).all()


def test_gain_by_band_has_the_scatter_of_repeated_studies(pair):
    better, truth = pair
    worse = better + gaussian(300, CL / 4, "more noise")
    studies = [
        band_gain(*(maps[start : start + 15] for maps in (better, worse, truth)), GRID, BINS)
        for start in range(0, 300, 15)
    ]
    values, errors = (np.stack(part) for part in zip(*studies, strict=True))
    ratio = np.sqrt(np.mean(errors**2) / np.mean(values.var(axis=0, ddof=1)))
    assert ratio == pytest.approx(1, abs=0.2)


def test_gain_by_band_leaves_null_patches_out(pair):
    prediction, truth = (maps[:12].copy() for maps in pair)
    truth[::3] = 0
    live = truth.any(axis=(1, 2))
    other = prediction[::-1]
    whole = band_gain(prediction, other, truth, GRID, BINS)
    few = band_gain(prediction[live], other[live], truth[live], GRID, BINS)
    np.testing.assert_array_equal(whole, few)
    assert np.isnan(band_gain(prediction, other, 0 * truth, GRID, BINS)).all()
    same, none = band_gain(prediction, prediction, truth, GRID, BINS)
    assert not same.any()
    assert not none.any()
