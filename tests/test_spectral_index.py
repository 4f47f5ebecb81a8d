"""A parameter from band powers: its classes and its value, against what Gaussian maps allow."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skyweave.errors import UserError
from skyweave.estimators.spectral_index import (
    COLUMNS,
    CONFUSION,
    BandPowers,
    Classifier,
    IndexEstimator,
    Likelihood,
    _shifts,
    index_metrics,
    shrunk_covariance,
)
from skyweave.flat.fourier import Bins, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper

GRID = PatchGrid(10.0, 32)
BINS = Bins.linear(GRID.ell_fundamental / 2, GRID.ell_nyquist, 2 * GRID.ell_fundamental)
PERIODIC = BandPowers(GRID, BINS, periodic=True)
CLASSES = np.array([0.7, 0.9, 1.1, 1.3])


def spectrum(ns: float, grid: PatchGrid = GRID) -> np.ndarray:
    """A damped, tilted spectrum with peaks and white noise, on the modes; µK² sr."""
    ell = np.maximum(grid.ell, 1)
    tilted = (ell / 200) ** (ns - 1) * ell**-2 * (1 + 0.5 * np.cos(ell / 60)) * np.exp(-ell / 600)
    return np.where(grid.ell > 0, tilted + 3e-7, 0)


def maps(ns: float, count: int, seed: int, grid: PatchGrid = GRID) -> np.ndarray:
    rng = np.random.default_rng([seed, round(1000 * ns)])
    white = forward(rng.standard_normal((count, grid.pixels, grid.pixels)), grid)
    return inverse(white * np.sqrt(spectrum(ns, grid)) / grid.pixel_rad, grid)


@pytest.fixture(scope="module")
def learned() -> IndexEstimator:
    whole = np.concatenate([maps(ns, 400, 1) for ns in CLASSES])
    return IndexEstimator.fit(whole, np.repeat(CLASSES, 400), PERIODIC)


def fisher(ns: float) -> float:
    """Error of n_s from all modes of a periodic Gaussian map, below the last band's edge."""
    slope = (np.log(spectrum(ns + 1e-4)[GRID.ell > 0] / spectrum(ns - 1e-4)[GRID.ell > 0])) / 2e-4
    used = (GRID.ell < BINS.edges[-1])[GRID.ell > 0]
    return 1 / np.sqrt(np.sum(GRID.mode_weight[GRID.ell > 0] * used * slope**2) / 2)


@pytest.mark.parametrize("ns", [0.7, 0.8, 0.9, 1.0, 1.2, 1.3])
def test_estimates_are_unbiased_and_their_errors_are_their_scatter(learned, ns):
    """At the classes, the first and last too, and between them; 5 % above the bound of all modes
    at most, as bands average over the slope and its learned mean is noisy."""
    estimate, sigma = learned.likelihood.estimate(PERIODIC(maps(ns, 600, 2)))
    scatter = estimate.std(ddof=1)
    # The mean is learned from 400 maps a class.
    error = scatter * np.sqrt(1 / 600 + 1 / 400)
    assert abs(estimate.mean() - ns) < 3 * error
    assert_allclose(sigma.mean(), scatter, rtol=0.12)
    assert_allclose(scatter, fisher(ns), rtol=0.15)
    assert scatter > 0.9 * fisher(ns)


@pytest.mark.parametrize("apart", [0.08, 0.16])
def test_two_classes_are_told_apart_nearly_as_well_as_can_be(apart):
    """The best rule compares the likelihoods of all modes under the two spectra."""
    pair = (1.0, 1.0 + apart)
    powers = BandPowers(
        GRID, Bins.linear(0, 1.5 * GRID.ell_nyquist, 2 * GRID.ell_fundamental), True
    )
    train = np.concatenate([maps(ns, 500, 3) for ns in pair])
    classifier = Classifier.fit(powers(train), np.repeat(pair, 500))
    test, true = np.concatenate([maps(ns, 500, 4) for ns in pair]), np.repeat(pair, 500)
    weight = np.where(GRID.ell > 0, GRID.mode_weight, 0)
    modes = forward(test, GRID)
    measured = power(modes, modes, GRID)
    likely = [
        -0.5 * np.sum(weight * (measured / cl + np.log(cl)), axis=(1, 2))
        for cl in (np.where(GRID.ell > 0, spectrum(ns), 1) for ns in pair)
    ]
    best = np.where(likely[1] > likely[0], pair[1], pair[0])
    own = classifier.predict(powers(test))
    gain = (best == true).astype(float) - (own == true)
    assert 0.6 < np.mean(best == true) < 0.99
    assert gain.mean() < 0.02 + 2 * gain.std() / np.sqrt(len(gain))
    assert gain.mean() > -3 * gain.std() / np.sqrt(len(gain))


def test_probabilities_hold_as_often_as_they_say(learned):
    whole, true = np.concatenate([maps(ns, 300, 5) for ns in CLASSES]), np.repeat(CLASSES, 300)
    found = learned.classifier.probabilities(PERIODIC(whole))
    assert_allclose(found.sum(axis=1), 1)
    own = found.argmax(axis=1) == np.searchsorted(CLASSES, true)
    expected = found.max(axis=1)
    assert abs(own.mean() - expected.mean()) < 3 * np.sqrt(
        np.mean(expected * (1 - expected)) / 1200
    )


def test_crops_that_are_not_periodic_are_told_apart_too():
    """Of areas three times as wide; without a window the largest waves leak into all bands."""
    area = PatchGrid(20.0, 64)
    powers = {periodic: BandPowers(GRID, BINS, periodic) for periodic in (False, True)}
    scatter = {}
    for periodic, one in powers.items():
        train = np.concatenate([maps(ns, 200, 6, area)[:, 16:48, 16:48] for ns in (0.9, 1.1)])
        likelihood = Likelihood.fit(one(train), np.repeat([0.9, 1.1], 200))
        estimate, sigma = likelihood.estimate(one(maps(1.0, 300, 7, area)[:, 16:48, 16:48]))
        scatter[periodic] = estimate.std()
        assert abs(estimate.mean() - 1) < 4 * estimate.std() * np.sqrt(1 / 300 + 1 / 400)
        assert_allclose(sigma.mean(), estimate.std(), rtol=0.2)
    assert scatter[False] < scatter[True]


def test_band_powers_of_a_window_keep_the_level_of_white_maps():
    white = np.random.default_rng(0).standard_normal((300, 32, 32))
    for periodic in (True, False):
        powers = np.exp(BandPowers(GRID, BINS, periodic)(white)).mean(axis=0)
        assert_allclose(powers, GRID.pixel_rad**2, rtol=0.05)
    window = cosine_taper(GRID, 10 / 8)
    one = forward(white[:1] * window, GRID)
    band = (GRID.ell >= BINS.edges[1]) & (GRID.ell < BINS.edges[2])
    square = power(one, one, GRID)[0]
    expected = np.average(square[band], weights=GRID.mode_weight[band]) / np.mean(window**2)
    assert_allclose(np.exp(BandPowers(GRID, BINS)(white[:1])[0, 1]), expected)


def test_a_covariance_shrinks_as_far_as_it_is_noise():
    """With many numbers it is the sample's; with few, far nearer to the truth than that."""
    rng = np.random.default_rng(0)
    true = np.diag(np.arange(1.0, 31))
    true[0, 1] = true[1, 0] = 0.5
    factor = np.linalg.cholesky(true)
    many = rng.standard_normal((20000, 30)) @ factor.T
    assert_allclose(np.diag(shrunk_covariance(many, 0)), np.mean(many**2, axis=0), rtol=1e-12)
    few = rng.standard_normal((40, 30)) @ factor.T

    def distance(found):
        scale = 1 / np.sqrt(np.diag(true))
        return np.linalg.norm((found - true) * np.outer(scale, scale))

    assert distance(shrunk_covariance(few, 0)) < 0.5 * distance(few.T @ few / 40)
    strong = np.full((5, 5), 0.9) + 0.1 * np.eye(5)
    related = rng.standard_normal((20000, 5)) @ np.linalg.cholesky(strong).T
    assert_allclose(shrunk_covariance(related, 0), related.T @ related / 20000, atol=1e-3)
    assert_allclose(shrunk_covariance(related, 10000), 2 * shrunk_covariance(related, 0))


# Metrics


def test_metrics_of_whole_maps_and_of_those_that_lost_power(learned):
    whole, true = np.concatenate([maps(ns, 150, 8) for ns in CLASSES]), np.repeat(CLASSES, 150)
    smooth = np.exp(-((GRID.ell / 900) ** 2))
    filled = {"same": whole, "smoothed": inverse(forward(whole, GRID) * smooth, GRID)}
    table, confusion = index_metrics(
        learned, whole, filled, true, run="r", field="t_obs", case="holes"
    )
    assert tuple(table.columns) == COLUMNS
    assert tuple(confusion.columns) == CONFUSION
    rows = table.set_index(["method", "statistic"])
    found = learned.classifier.predict(PERIODIC(whole))
    estimate, sigma = learned.likelihood.estimate(PERIODIC(whole))
    share = np.mean(found == true)
    expected = {
        "accuracy": (share, np.sqrt(share * (1 - share) / 599)),
        "estimate_bias": (np.mean(estimate - true), np.std(estimate - true, ddof=1) / 600**0.5),
        "estimate_scatter": (np.std(estimate - true), np.std(estimate - true) / np.sqrt(1200)),
        "estimate_sigma": (sigma.mean(), sigma.std(ddof=1) / np.sqrt(600)),
    }
    for name, (value, error) in expected.items():
        for method in ("truth", "same"):
            assert_allclose(rows.loc[(method, name), "value"], value)
            tolerance = 0.1 if name == "estimate_scatter" else 1e-6
            assert_allclose(rows.loc[(method, name), "error"], error, rtol=tolerance)
    assert rows.loc[("same", "estimate_shift"), "value"] == 0
    assert ("truth", "estimate_shift") not in rows.index
    shift = rows.loc[("smoothed", "estimate_shift")]
    other = learned.likelihood.estimate(PERIODIC(filled["smoothed"]))[0]
    assert_allclose(shift["value"], np.mean(other - estimate))
    # Pairs of one sky: a shift far smaller than the scatter is seen.
    assert shift["value"] < -5 * shift["error"]
    assert shift["error"] < 0.5 * rows.loc[("smoothed", "estimate_bias"), "error"]
    of_truth = confusion[confusion["method"] == "truth"]
    assert_allclose(of_truth.groupby("true")["share"].sum(), 1)
    assert (of_truth["n"] == 150).all()
    diagonal = of_truth[of_truth["true"] == of_truth["found"]]
    assert_allclose(diagonal["share"].mean(), share)


def test_shifts_that_cancel_over_all_classes_are_told_class_by_class(learned):
    """Maps that are mixed with the power of the classes' mean come nearer to its index."""
    whole, true = np.concatenate([maps(ns, 120, 11) for ns in CLASSES]), np.repeat(CLASSES, 120)
    mean = np.mean([spectrum(ns) for ns in CLASSES], axis=0)
    pulled = np.empty_like(whole)
    for ns in CLASSES:
        gain = np.sqrt(np.where(GRID.ell > 0, mean / np.maximum(spectrum(ns), 1e-30), 1))
        own = true == ns
        pulled[own] = inverse(forward(whole[own], GRID) * (0.9 + 0.1 * gain), GRID)
    areas = np.arange(480) // 4
    table, _ = index_metrics(
        learned, whole, {"pulled": pulled, "same": whole}, true,
        run="r", field="t_obs", case="holes", areas=areas,
    )  # fmt: skip
    rows = table.set_index(["method", "statistic"])
    estimate = [learned.likelihood.estimate(PERIODIC(one))[0] for one in (pulled, whole)]
    apart = estimate[0] - estimate[1]
    pulls = []
    for ns in CLASSES:
        row = rows.loc[("pulled", f"class_shift_{ns:g}")]
        own = apart[true == ns].reshape(30, 4).mean(axis=1)
        assert_allclose(row["value"], own.mean())
        assert_allclose(row["error"], own.std(ddof=1) / np.sqrt(30))
        assert row["n"] == 120
        pulls.append(row["value"] / row["error"])
    assert pulls[0] > 10
    assert pulls[-1] < -10
    slope = rows.loc[("pulled", "shift_slope")]
    assert_allclose(slope["value"], np.polyfit(true, apart, 1)[0])
    # Of classes of one size, a step apart: their means weigh as their distance from the middle.
    weights = (CLASSES - 1) / np.sum((CLASSES - 1) ** 2)
    errors = [rows.loc[("pulled", f"class_shift_{ns:g}"), "error"] for ns in CLASSES]
    assert_allclose(slope["error"], np.sqrt(np.sum((weights * errors) ** 2)))
    assert slope["value"] < -10 * slope["error"]
    assert slope["n"] == 480
    assert rows.loc[("same", "shift_slope"), "value"] == 0
    assert not rows.loc["truth"].index.str.startswith(("class_shift", "shift")).any()


def test_a_slopes_error_is_its_scatter_in_repeated_sets():
    """Also of shifts that no line goes through, and of classes of several sizes."""
    rng = np.random.default_rng(12)
    at = np.repeat([0.85, 0.95, 1.05], [40, 60, 20])
    groups = np.arange(120) // 4
    noise = rng.standard_normal((400, 120)) + rng.standard_normal((400, 30))[:, groups]
    line = 0.3 * at + 50 * (at - 0.95) ** 2
    found = [_shifts(line + one, at, groups)["shift_slope"] for one in noise]
    slopes, errors, _ = np.transpose(found)
    assert abs(slopes.mean() - np.polyfit(at, line, 1)[0]) < 4 * slopes.std() / 20
    assert_allclose(np.sqrt(np.mean(errors**2)), slopes.std(), rtol=0.12)


def test_a_class_with_one_area_has_no_error_and_one_class_no_slope(learned):
    whole = np.concatenate([maps(ns, 6, 13) for ns in (0.9, 1.1)])
    names = {"run": "r", "field": "t_obs", "case": "holes"}
    areas = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3])
    true, filled = np.repeat([0.9, 1.1], 6), {"network": 1.1 * whole}
    rows = index_metrics(learned, whole, filled, true, areas=areas, **names)[0]
    rows = rows.set_index("statistic")
    assert rows.loc["class_shift_0.9", "error"] > 0
    assert np.isnan(rows.loc["class_shift_1.1", "error"])
    assert np.isfinite(rows.loc["class_shift_1.1", "value"])
    assert np.isfinite(rows.loc["shift_slope", "value"])
    assert np.isnan(rows.loc["shift_slope", "error"])
    single = index_metrics(learned, whole[:6], {"network": whole[:6]}, true[:6], **names)[0]
    single = single.set_index("statistic")
    assert "shift_slope" not in single.index
    assert_allclose(
        single.loc["class_shift_0.9", ["value", "error"]].astype(float),
        single.loc["estimate_shift", ["value", "error"]].astype(float),
    )


def test_errors_know_patches_of_one_area(learned):
    """Each map eight times: the error of as many as there are apart."""
    whole, true = np.concatenate([maps(ns, 40, 9) for ns in CLASSES]), np.repeat(CLASSES, 40)
    names = {"run": "r", "field": "t_obs", "case": "holes"}
    once, _ = index_metrics(learned, whole, {}, true, **names)
    eight, _ = index_metrics(
        learned, np.repeat(whole, 8, axis=0), {}, np.repeat(true, 8), **names,
        areas=np.repeat(np.arange(160), 8),
    )  # fmt: skip
    assert_allclose(eight["value"], once["value"])
    assert_allclose(eight["error"], once["error"])


def test_what_cannot_be_learned_is_told():
    features = np.random.default_rng(0).standard_normal((20, 3))
    for kind in (Classifier, Likelihood):
        with pytest.raises(UserError, match=r"classes: .*two classes"):
            kind.fit(features, np.ones(20))
        with pytest.raises(UserError, match="2 maps of each class"):
            kind.fit(features, np.arange(20.0) // 19)
        with pytest.raises(UserError, match="finite"):
            kind.fit(np.where(np.arange(3) == 1, np.nan, features), np.arange(20) % 2)
        with pytest.raises(UserError, match="each of 20 maps"):
            kind.fit(features, np.arange(3))


def test_broken_maps_are_told(learned):
    good = maps(1.1, 3, 1)
    for bad in (np.nan, np.inf):
        broken = good.copy()
        broken[1, 2, 3] = bad
        with pytest.raises(UserError, match="maps: expected finite values, found others in map 1"):
            PERIODIC(broken)
    with pytest.raises(UserError, match="power in every band"):
        PERIODIC(0 * good)
    with pytest.raises(UserError, match=r"\(n, 32, 32\)"):
        PERIODIC(good[:, :16])
    names = {"run": "r", "field": "t_obs", "case": "holes"}
    with pytest.raises(UserError, match=r"values: expected one of 0\.7, 0\.9, 1\.1, 1\.3"):
        index_metrics(learned, good, {}, np.full(3, 0.95), **names)
    with pytest.raises(UserError, match="network: expected maps of shape"):
        index_metrics(learned, good, {"network": good[:2]}, np.full(3, 0.9), **names)
