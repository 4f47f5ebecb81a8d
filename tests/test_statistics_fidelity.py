"""Power, correlation and calibration of predictions whose law is known."""

import numpy as np
import pandas as pd
import pytest

from skyweave.data.predictions import Predictions, write_predictions
from skyweave.errors import UserError
from skyweave.flat.fourier import bin_power, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator
from skyweave.statistics.fidelity import (
    ELL,
    SAMPLES,
    fidelity_metrics,
    null_power,
    paired_difference,
)
from skyweave.statistics.flat_spectra import cross_spectra, default_bins
from skyweave.statistics.reconstruction import COLUMNS, band_gain
from skyweave.statistics.sample_coverage import (
    CURVES,
    sample_calibration,
    sample_coverage,
    sample_tarp,
)
from skyweave.tasks.decomposition_verdicts import decomposition_verdicts, leakage, loss, power

GRID = PatchGrid(5.0, 32)
BINS = default_bins(GRID)
CENTRES = BINS.centres(GRID)
CL = 1e-3 * (GRID.ell + 300.0) ** -2
NAMES = {"run": "r", "field": "kappa", "method": "network"}


def gaussian(count, cl, *identity):
    white = generator(5, *identity).standard_normal((count, GRID.pixels, GRID.pixels))
    return inverse(forward(white, GRID) * np.sqrt(cl / GRID.pixel_rad**2), GRID)


def posterior(count, draws, *identity, r2=0.5, width=1.0, taper=1.0):
    """Truths, means and samples of an exact Gaussian posterior, r² of whose power is known.

    Samples scatter `width` times as much as they should.
    """
    mean = gaussian(count, r2 * CL, *identity, "mean") * taper
    residuals = gaussian(count * (draws + 1), (1 - r2) * CL, *identity, "residual") * taper
    truth = mean + residuals[:count]
    samples = mean + width * residuals[count:].reshape(draws, count, GRID.pixels, GRID.pixels)
    return truth, mean, samples


def pick(frame, statistic, method="network"):
    rows = frame[(frame["statistic"] == statistic) & (frame["method"] == method)]
    return rows.reset_index(drop=True)


class TestFidelity:
    truth, mean, samples = posterior(240, 4, "fidelity")
    found = fidelity_metrics(mean, truth, GRID, BINS, samples=samples, **NAMES)

    @pytest.mark.parametrize(
        ("method", "statistic", "expected"),
        [
            ("network", "power_ratio", 0.5),
            ("network", "correlation", np.sqrt(0.5)),
            (SAMPLES, "power_ratio", 1.0),
            (SAMPLES, "correlation", 0.5),
            (SAMPLES, "transfer", 0.5),
        ],
    )
    def test_the_mean_has_r2_of_the_power_and_samples_have_all(self, method, statistic, expected):
        rows = pick(self.found, statistic, method)
        np.testing.assert_allclose(rows["ell"], CENTRES)
        pull = (rows["value"] - expected) / rows["error"]
        assert np.abs(pull).max() < 3.5
        assert rows["error"].max() < 0.08
        assert (rows["n"] == 240).all()

    def test_rows_are_those_of_the_reconstruction_in_its_columns(self):
        assert tuple(self.found.columns) == COLUMNS
        own, other = (set(self.found.loc[self.found.method == m, "statistic"]) for m in
                      ("network", SAMPLES))  # fmt: skip
        assert other < own
        assert {"transfer", "residual", "mean_correlation", "pixel_correlation"} < own
        assert not self.found.duplicated(["method", "statistic", "ell"]).any()

    def test_residual_of_samples_is_what_the_truth_does_not_explain(self):
        rows = pick(self.found, "residual", SAMPLES)
        expected = bin_power(0.75 * CL, GRID, BINS)  # C - T² C, T = 1/2
        assert np.abs((rows["value"] - expected) / rows["error"]).max() < 3.5

    def test_means_are_those_of_the_bands_below_2000(self):
        wide = PatchGrid(2.0, 32)  # bands up to ell 2880
        bins = default_bins(wide)
        low = bins.centres(wide) < ELL
        assert low.any()
        assert not low.all()
        found = fidelity_metrics(self.mean, self.truth, wide, bins, **NAMES)
        for name in ("correlation", "power_ratio"):
            mean = pick(found, f"mean_{name}")
            bands = pick(found, name)
            assert mean["value"].item() == pytest.approx(bands["value"][low].mean())
            # Bands scatter apart: the error of their mean is about that of one over √bands.
            expected = bands["error"][low].mean() / np.sqrt(low.sum())
            assert mean["error"].item() == pytest.approx(expected, rel=0.4)

    def test_error_of_the_ratio_is_its_scatter_over_repeated_sets(self):
        values = []
        for number in range(60):
            truth, mean, _ = posterior(30, 1, "scatter", number)
            rows = pick(fidelity_metrics(mean, truth, GRID, BINS, **NAMES), "power_ratio")
            values.append(rows[["value", "error"]].to_numpy())
        values = np.array(values)
        scatter, told = values[..., 0].std(axis=0, ddof=1), values[..., 1].mean(axis=0)
        np.testing.assert_allclose(told, scatter, rtol=0.35)

    def test_a_factor_changes_the_power_alone(self):
        twice = fidelity_metrics(2 * self.mean, self.truth, GRID, BINS, **NAMES)
        for statistic, factor in (("power_ratio", 4), ("correlation", 1)):
            expected = factor * pick(self.found, statistic)["value"]
            np.testing.assert_allclose(pick(twice, statistic)["value"], expected)

    def test_null_patches_are_told_apart(self):
        truth, samples = self.truth.copy(), self.samples
        truth[::3] = 0
        found = fidelity_metrics(self.mean, truth, GRID, BINS, samples=samples, **NAMES)
        assert "power_prediction_null" not in set(found["statistic"])
        rows = pick(found, "power_null")
        direct = null_power(self.mean[::3], GRID, BINS, **NAMES)
        pd.testing.assert_frame_equal(rows, direct)
        expected = bin_power(0.5 * CL, GRID, BINS)
        assert np.abs((direct["value"] - expected) / direct["error"]).max() < 3.5
        for method in ("network", SAMPLES):
            assert (pick(found, "power_ratio", method)["n"] == 160).all()

    def test_only_null_patches_leave_their_power(self):
        zero = np.zeros_like(self.truth)
        found = fidelity_metrics(self.mean, zero, GRID, BINS, samples=self.samples, **NAMES)
        assert "power_ratio" not in set(found["statistic"])
        assert set(found["method"]) == {"network"}
        assert len(pick(found, "power_null")) == BINS.count
        assert paired_difference(self.mean, self.mean, zero, GRID, BINS, **NAMES).empty

    def test_shapes_that_differ_are_refused(self):
        with pytest.raises(UserError, match="shape"):
            fidelity_metrics(self.mean[1:], self.truth, GRID, BINS, **NAMES)


class TestDifference:
    truth, mean, samples = posterior(100, 3, "difference")
    noisy = mean + gaussian(100, 0.1 * CL, "noise")
    found = paired_difference(noisy, mean, truth, GRID, BINS, **NAMES)

    def test_is_what_theory_expects(self):
        for statistic, expected in (
            ("power_ratio_difference", 0.1),
            ("correlation_difference", 0.5 / np.sqrt(0.6) - np.sqrt(0.5)),
        ):
            rows = pick(self.found, statistic)
            assert np.abs((rows["value"] - expected) / rows["error"]).max() < 3.5
            mean = pick(self.found, f"mean_{statistic}")
            assert mean["value"].item() == pytest.approx(rows["value"][CENTRES < ELL].mean())

    def test_agrees_with_the_gain_by_band_and_is_surer_than_two_unpaired_sets(self):
        value, error = band_gain(self.noisy, self.mean, self.truth, GRID, BINS)
        rows = pick(self.found, "correlation_difference")
        np.testing.assert_allclose(rows["value"], value)
        np.testing.assert_allclose(rows["error"], error)
        metrics = fidelity_metrics(self.mean, self.truth, GRID, BINS, **NAMES)
        alone = pick(metrics, "correlation")["error"]
        assert (error < alone).all()

    def test_the_mean_of_infinitely_many_samples_is_the_posteriors(self):
        """Three samples' own mean has a third of their scatter; the limit has none."""
        found = paired_difference(
            self.samples, self.mean, self.truth, GRID, BINS, limit=True, **NAMES
        )
        for statistic in ("correlation_difference", "power_ratio_difference"):
            rows = found[found.statistic == statistic]
            assert (rows.value.abs() < 4 * rows.error).all()
        table = fidelity_metrics(self.mean, self.truth, GRID, BINS, samples=self.samples, **NAMES)
        limit, each, exact = (
            table[(table.method == method) & (table.statistic == "mean_correlation")].iloc[0]
            for method in ("mean", "samples", NAMES["method"])
        )
        assert abs(limit.value - exact.value) < 4 * limit.error
        assert each.value < exact.value - 10 * each.error

    def test_samples_less_their_mean(self):
        found = paired_difference(self.samples, self.mean, self.truth, GRID, BINS, **NAMES)
        rows = pick(found, "power_ratio_difference")
        assert np.abs((rows["value"] - 0.5) / rows["error"]).max() < 3.5

    def test_a_run_differs_from_itself_by_nothing(self):
        found = paired_difference(self.mean, self.mean, self.truth, GRID, BINS, **NAMES)
        assert (found["value"] == 0).all()
        assert (found["error"] == 0).all()


class TestSamples:
    @pytest.mark.parametrize("draws", [3, 10, 39])
    def test_exact_posteriors_are_calibrated_with_any_number_of_samples(self, draws):
        taper = cosine_taper(GRID, 1.5)
        truth, _, samples = posterior(150, draws, "exact", draws, taper=taper)
        value, error = sample_coverage(samples, truth, GRID, BINS)
        pull = (value - np.array([[0.68], [0.95]])) / error
        assert np.abs(pull).max() < 3.5
        assert np.sqrt(np.mean(pull**2)) < 1.5
        found = sample_tarp(samples, truth, GRID, BINS, generator(1, draws))
        assert found.p_value > 0.01
        assert found.deviation < 0.14

    @pytest.mark.parametrize(("width", "sign"), [(0.6, -1), (1.6, 1)])
    def test_widths_that_are_wrong_are_found(self, width, sign):
        truth, _, samples = posterior(150, 39, "wrong", width=width)
        value, error = sample_coverage(samples, truth, GRID, BINS)
        assert (sign * (value - np.array([[0.68], [0.95]])) > 5 * error).all()
        found = sample_tarp(samples, truth, GRID, BINS, generator(1, "wrong"))
        assert found.p_value < 1e-3
        wide = found.coverage > found.credibility
        assert (wide.mean() > 0.8) == (sign > 0)

    def test_a_mean_that_is_off_is_found(self):
        truth, _, samples = posterior(150, 39, "off")
        value, _ = sample_coverage(0.2 * samples, truth, GRID, BINS)
        assert (value[0] < 0.6).all()

    def test_a_truth_outside_all_samples_counts_as_the_words_say(self):
        rng = generator(3, "outside")
        truth = rng.standard_normal((4, 32, 32))
        samples = 1e-3 * rng.standard_normal((15, 4, 32, 32))
        value, _ = sample_coverage(samples, truth, GRID, BINS)
        # Self-conjugate modes, whose imaginary parts are all zero, count by the level.
        np.testing.assert_allclose(value[1], 0.6, atol=0.02)
        np.testing.assert_allclose(value[0], 0.0, atol=0.02)

    def test_null_patches_do_not_count_and_without_others_there_is_nothing(self):
        truth, _, samples = posterior(40, 9, "null")
        value, _ = sample_coverage(samples[:, ::2], truth[::2], GRID, BINS)
        gone = truth.copy()
        gone[1::2] = 0
        np.testing.assert_allclose(sample_coverage(samples, gone, GRID, BINS)[0], value)
        zero = np.zeros_like(truth)
        assert np.isnan(sample_coverage(samples, zero, GRID, BINS)[0]).all()
        rng = generator(1, "null")
        assert sample_tarp(samples, zero, GRID, BINS, rng) is None
        assert sample_tarp(np.stack([truth, truth]), truth, GRID, BINS, rng) is None
        same, _ = sample_coverage(np.stack([truth, truth]), truth, GRID, BINS)
        assert np.isnan(same).all()
        rows, curve = sample_calibration(samples, zero, GRID, BINS, rng, run="r", field="kappa")
        assert rows.empty
        assert curve.empty

    def test_tables_are_those_of_the_calibration(self):
        truth, _, samples = posterior(40, 9, "tables")
        call = (samples, truth, GRID, BINS)
        rows, curve = sample_calibration(*call, generator(1, "t"), run="r", field="kappa")
        assert tuple(rows.columns) == COLUMNS
        assert tuple(curve.columns) == CURVES
        assert set(rows["method"]) == {SAMPLES}
        assert len(rows[rows["statistic"] == "coverage_68"]) == BINS.count
        deviation = rows.loc[rows["statistic"] == "tarp_deviation", "value"].item()
        assert np.abs(curve["coverage"] - curve["credibility"]).max() <= deviation + 0.03
        again, _ = sample_calibration(*call, generator(1, "t"), run="r", field="kappa")
        pd.testing.assert_frame_equal(again, rows)


def table(*rows):
    """Metrics of (field, method, statistic, ell, value, error)."""
    columns = ["field", "method", "statistic", "ell", "value", "error"]
    frame = pd.DataFrame(list(rows), columns=columns)
    return frame.assign(run="r", split="test", n=50)[list(COLUMNS)]


class TestVerdicts:
    ell = (200.0, 1000.0, 3000.0)

    def metrics(self, ratios=(1.02, 0.97, 0.5), loss=(0.0, -0.004, -0.009), coverage=0.66):
        rows = []
        for ell, ratio, less in zip(self.ell, ratios, loss, strict=True):
            rows += [
                ("kappa", "network", "power_ratio", ell, ratio, 0.01),
                ("kappa", "samples", "power_ratio", ell, 1.01, 0.01),
                ("kappa", "samples", "coverage_68", ell, coverage, 0.01),
                ("kappa", "samples", "coverage_95", ell, 0.95, 0.01),
                ("kappa", "plain", "correlation_difference", ell, less, 0.002),
                ("b_sky", "network", "power_ratio", ell, 0.2, 0.01),
            ]
        return table(*rows)

    def test_power_is_judged_below_2000_by_its_worst_band(self):
        (one,) = power(self.metrics(), "kappa", "network")
        assert one["value"] == pytest.approx(0.03)
        assert one["passed"]
        assert "0.9700 ± 0.0100 at ell 1000" in one["note"]
        (one,) = power(self.metrics(ratios=(1.02, 0.9, 1.0)), "kappa", "network")
        assert not one["passed"]

    def test_loss_is_judged_in_all_bands(self):
        (one,) = loss(self.metrics(), "kappa", "plain")
        assert one["value"] == pytest.approx(0.009)
        assert one["passed"]
        assert "± 0.0020 at ell 3000" in one["note"]
        (one,) = loss(self.metrics(loss=(0.1, 0.1, -0.02)), "kappa", "plain")
        assert not one["passed"]
        (one,) = loss(self.metrics(loss=(0.1, 0.2, 0.3)), "kappa", "plain")
        assert one["value"] == pytest.approx(-0.1), "a gain everywhere is no loss"

    def test_what_is_judged_depends_on_the_method(self):
        plain = decomposition_verdicts(self.metrics(), sampled=False)
        adversarial = decomposition_verdicts(self.metrics(), sampled=False, plain="plain")
        flow = decomposition_verdicts(self.metrics(), sampled=True, plain="plain")
        assert [len(found) for found in (plain, adversarial, flow)] == [1, 2, 4]
        assert all("kappa" in one["check"] for one in flow)
        assert flow[0]["value"] == pytest.approx(0.01), "samples are judged"

    def test_coverage_that_is_off_fails(self):
        found = decomposition_verdicts(self.metrics(coverage=0.6), sampled=True)
        failed = [one["check"] for one in found if not one["passed"]]
        assert len(failed) == 1
        assert "68 %" in failed[0]

    def test_a_band_that_is_not_known_fails(self):
        (one,) = power(self.metrics(ratios=(1.0, np.nan, 1.0)), "kappa", "network")
        assert not one["passed"]
        assert one["value"] is None
        (one,) = power(self.metrics().head(0), "kappa", "network")
        assert not one["passed"]

    def test_b_of_skies_without_it_is_judged_against_b_and_against_leakage(self):
        rows = [
            ("b_sky", method, statistic, ell, value, 0.1 * value)
            for ell in self.ell
            for method, statistic, value in (
                ("network", "power_prediction", 2.0),
                ("network", "power_null", 0.1),
                ("analytic_eb", "power_null", 0.5),
            )
        ]
        there, over = leakage(table(*rows), "b_sky")
        assert there["value"] == pytest.approx(0.05)
        assert there["passed"]
        assert over["value"] == pytest.approx(0.2)
        assert not over["passed"]
        # Two bands below 2000, each known to √2 times a tenth.
        assert f"± {0.2 * 0.1:.4f}" in over["note"]
        assert leakage(self.metrics(), "b_sky") == []

    def test_sets_of_skies_without_b_are_pooled_by_their_numbers(self):
        rows = [
            ("b_sky", "network", "power_prediction", 1000.0, 2.0, 0.0),
            ("b_sky", "network", "power_null", 1000.0, 0.1, 0.02),
            ("b_sky", "network", "power_null", 1000.0, 0.4, 0.02),
        ]
        metrics = table(*rows).assign(n=[100, 50, 150])
        (one,) = leakage(metrics, "b_sky")
        assert one["value"] == pytest.approx((50 * 0.1 + 150 * 0.4) / 200 / 2)
        assert f"± {0.02 * np.hypot(0.25, 0.75) / 2:.4f}" in one["note"]
        assert "200 skies" in one["note"]


def test_predictions_hold_samples(tmp_path):
    truth, mean, samples = posterior(3, 2, "file")
    groups = {
        "truth": {"kappa": truth, "tau": truth},
        "prediction": {"kappa": mean, "tau": mean},
        "samples": {"kappa": samples},
    }
    write_predictions(
        tmp_path / "predictions.h5",
        groups,
        realizations=np.arange(3),
        units={"kappa": "", "tau": ""},
        size_deg=5.0,
        taper_deg=1.5,
    )
    found = Predictions(tmp_path / "predictions.h5")
    np.testing.assert_allclose(found.samples("kappa"), samples, rtol=1e-6)
    assert found.samples("tau") is None
    assert found.methods("kappa") == ("network",)
    assert found.grid == GRID


def test_spectra_of_samples_are_their_mean():
    truth, _, samples = posterior(5, 3, "mean")
    found = fidelity_metrics(samples[0], truth, GRID, BINS, samples=samples, **NAMES)
    expected = np.mean([cross_spectra(s, s, GRID, BINS).mean(axis=0) for s in samples], axis=0)
    np.testing.assert_allclose(pick(found, "power_prediction", SAMPLES)["value"], expected)
