"""Scores of small scales: one law against itself, against another, and errors of all."""

from dataclasses import fields as names_of
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import bin_power, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.masked import expected_power
from skyweave.seeds import generator
from skyweave.simulation.gaussian import white_modes
from skyweave.statistics.small_scale_scores import (
    SmallScaleStatistics,
    beam_multipole,
    resampled,
    score_table,
    scores,
    sky_blocks,
)
from skyweave.statistics.superposition import superposition, superposition_ceiling
from skyweave.statistics.windows import Windows

GRID, LOW, HIGH, COUNT = PatchGrid(10.0, 64), 80.0, 20.0, 60
CL = np.where(GRID.ell > 0, (np.maximum(GRID.ell, 1) / 80) ** -2.6, 0.0)
B_LOW, B_HIGH = (gaussian_beam(GRID.ell, fwhm) for fwhm in (LOW, HIGH))
#: Power that the low resolution lacks of the high one.
LACK = CL * (B_HIGH**2 - B_LOW**2)
STATISTICS = ("v0", "v1", "v2")


def gaussian(name, cl, count=COUNT):
    """Fields (n, y, x) of a spectrum on the modes."""
    draws = (white_modes(generator(31, name, index), GRID) for index in range(count))
    return np.stack([inverse(modes * np.sqrt(cl), GRID) for modes in draws])


def lognormal(name, cl, count=COUNT, variance=0.3):
    """As `gaussian`, of exp(g) - 1: g has the correlation log(1 + xi) (Coles & Jones 1991)."""
    xi = inverse(cl + 0j, GRID)
    unit = variance / xi[0, 0]
    log_cl = forward(np.log(1 + unit * xi), GRID).real
    # The mean of g, and what it lacks to be a spectrum.
    log_cl[0, 0] = 0
    assert log_cl.min() > -1e-3 * log_cl.max()
    g = gaussian(name, np.maximum(log_cl, 0), count)
    made = np.exp(g)
    return (made - made.mean()) / (made.std() / np.sqrt(xi[0, 0]))


def large(name, count=COUNT):
    """Positive patches at low resolution."""
    maps = gaussian(name, CL * B_LOW**2, count)
    return maps + 10 * maps.std()


def windows(count=COUNT):
    return Windows.of(np.ones((count, 64, 64)), GRID)


def measure(high, low):
    return SmallScaleStatistics.measure(high, low, windows(len(low)), HIGH)


@pytest.fixture(scope="module")
def low():
    return large("large")


@pytest.fixture(scope="module")
def high(low):
    """Patches at high resolution, of two draws of one law and of another of the same spectrum."""
    return {
        "truth": low + gaussian("truth", LACK),
        "made": low + gaussian("made", LACK),
        "lognormal": low + lognormal("lognormal", LACK),
    }


@pytest.fixture(scope="module")
def measured(high, low):
    return {name: measure(maps, low) for name, maps in high.items()}


def found(made, truth):
    return scores(made, truth, LOW, HIGH)


def test_a_beam_ends_where_it_leaves_its_share():
    for fwhm, share in ((80.0, 0.5), (12.0, 0.1), (5.0, 1e-3)):
        assert gaussian_beam(beam_multipole(fwhm, share), fwhm) ** 2 == pytest.approx(share)


def test_the_truth_is_as_good_as_can_be(measured):
    for (field, statistic), value in found(measured["truth"], measured["truth"]).items():
        best = 1 if statistic.startswith("overlap") else 0
        assert value == pytest.approx(best, abs=1e-12), f"{field} {statistic}"


def test_all_scores_are_there(measured):
    names = set(found(measured["made"], measured["truth"]))
    both = {f"{kind}_{name}" for kind in ("overlap", "distance") for name in STATISTICS}
    one = {"spectrum", "bispectrum_equilateral", "bispectrum_squeezed", "input_correlation"}
    expected = {(field, name) for field in ("high", "ratio") for name in (*both, "one_point")}
    assert names == expected | {("high", name) for name in one}


def test_two_draws_of_one_law_are_as_alike_as_halves_of_one(measured):
    """The same large scales, other small ones: halves have half as many patches."""
    values = found(measured["made"], measured["truth"])
    for field in ("high", "ratio"):
        halves = superposition_ceiling(measured["truth"].curves[field], generator(2, field))
        for name, reached in zip(STATISTICS, halves.T, strict=True):
            assert values[field, f"overlap_{name}"] > np.quantile(reached, 0.05)
            assert values[field, f"overlap_{name}"] < 1
    # Means of m bands differ by sqrt(2) of their errors; a median's error of log power, of 60
    # patches of k modes each, is 1.25 sqrt(2/k / 60).
    assert values["high", "bispectrum_equilateral"] < 2
    assert values["high", "bispectrum_squeezed"] < 2
    assert values["high", "spectrum"] < 0.05
    assert values["high", "input_correlation"] < 0.05
    assert values["ratio", "one_point"] < 0.02


def test_distances_of_sets_of_one_law_are_those_of_chance():
    """sqrt(2 (1/n + 1/m) / pi) of the spread (`superposition.mean_distance`), all independent."""
    count, sets = 300, 15
    low = large("chance", count)
    all_ = measure(low + gaussian("chance small", LACK, count), low)
    parts = [all_.take(np.arange(i, count, sets)) for i in range(sets)]
    values = [found(one, other) for one, other in pairwise(parts)]
    chance = np.sqrt(2 * (2 * sets / count) / np.pi)
    distances = [
        np.mean([one[field, f"distance_{name}"] for one in values])
        for field in ("high", "ratio")
        for name in STATISTICS
    ]
    # A distance scatters by at most 0.76 of itself: 5 deviations for the mean of 14, less for six.
    assert np.mean(distances) == pytest.approx(chance, rel=0.3)
    equilateral = [one["high", "bispectrum_equilateral"] for one in values]
    # The rms difference of two means of 20 patches in units of one's error.
    assert np.sqrt(np.mean(np.square(equilateral))) == pytest.approx(2**0.5, rel=0.25)


def test_another_law_of_the_same_spectrum_is_told_by_all_but_the_spectrum(measured):
    values = found(measured["lognormal"], measured["truth"])
    same = found(measured["made"], measured["truth"])
    assert values["ratio", "overlap_v0"] < 0.3
    assert values["ratio", "overlap_v0"] < same["ratio", "overlap_v0"] / 2
    for name in STATISTICS:
        key = "ratio", f"distance_{name}"
        assert values[key] > 1 > 3 * same[key]
    assert values["ratio", "one_point"] > 10 * same["ratio", "one_point"]
    assert values["high", "spectrum"] < 0.1
    for shape in ("equilateral", "squeezed"):
        assert values["high", f"bispectrum_{shape}"] > 5
        assert values["high", f"bispectrum_{shape}"] > 4 * same["high", f"bispectrum_{shape}"]


@pytest.mark.parametrize("factor", [0.7, 1.2])
def test_the_spectrum_score_is_the_logarithm_of_the_powers_ratio(high, low, measured, factor):
    made = measure(low + factor * (high["truth"] - low), low)
    value = found(made, measured["truth"])["high", "spectrum"]
    ell = measured["truth"].ell
    small = ell[(ell > beam_multipole(LOW, 0.5)) & (ell < beam_multipole(HIGH, 0.1))]
    assert small.size == 7
    share = (gaussian_beam(small, LOW) / gaussian_beam(small, HIGH)) ** 2
    expected = np.mean(np.abs(np.log(share + factor**2 * (1 - share))))
    assert value == pytest.approx(expected, rel=0.05)


def test_the_correlation_with_the_large_scales_is_that_of_the_beams(measured, low):
    """b_low / b_high where small scales know nothing of large ones, but for the window."""
    truth = measured["truth"]
    seen = windows(1)
    low_power, high_power = (
        bin_power(expected_power(cl, seen.weights[0], GRID), GRID, seen.workspaces.bins)
        for cl in (CL * B_LOW**2, CL * B_HIGH**2)
    )
    mean, count = truth.correlation.mean(axis=0), seen.workspaces.bins.modes(GRID)
    # Of a correlation of k numbers that is not near 1, the error is below 1 / sqrt(k).
    error = np.sqrt(1 / (COUNT * count))
    assert (np.abs(mean - np.sqrt(low_power / high_power))[1:] < 4 * error[1:]).all()
    other = large("other")
    unrelated = measure(other + gaussian("unrelated", LACK), low)
    end = truth.ell < beam_multipole(LOW, 1e-3)
    apart = np.sqrt(np.mean(truth.correlation[:, end].mean(axis=0) ** 2))
    value = found(unrelated, truth)["high", "input_correlation"]
    assert value == pytest.approx(apart, rel=0.1)


def test_what_is_measured_does_not_depend_on_the_unit(high, low, measured):
    same, known = measure(1e6 * high["truth"], 1e6 * low), measured["truth"]
    np.testing.assert_allclose(same.cl, 1e12 * known.cl, rtol=1e-6)
    np.testing.assert_allclose(same.correlation, known.correlation, atol=1e-9)
    for name in ("curves", "densities", "bispectra"):
        for key, values in getattr(known, name).items():
            np.testing.assert_allclose(getattr(same, name)[key], values, rtol=1e-6, atol=1e-12)


def test_a_patch_that_is_nearly_dark_somewhere_has_a_ratio(high, low):
    dark = low.copy()
    dark[:, 30, 30] = 0
    found = measure(high["truth"], dark)
    for field in names_of(found):
        values = getattr(found, field.name)
        for one in values.values() if isinstance(values, dict) else [values]:
            assert np.isfinite(one).all()


@pytest.mark.parametrize(
    "rows", [np.array([3, 3, 0]), np.arange(COUNT) % 2 == 0], ids=["with return", "mask"]
)
def test_some_patches_are_measured_as_all_are(high, low, measured, rows):
    taken, alone = measured["truth"].take(rows), measure(high["truth"][rows], low[rows])
    for field in names_of(alone):
        one, other = getattr(taken, field.name), getattr(alone, field.name)
        for key in other if isinstance(other, dict) else (...,):
            np.testing.assert_allclose(one[key], other[key], rtol=1e-9)


# The table


@pytest.fixture(scope="module")
def tables(measured):
    return score_table(
        measured["truth"],
        {"network": measured["made"], "gaussian": measured["lognormal"]},
        generator(3, "table"),
        low_arcmin=LOW,
        high_arcmin=HIGH,
        baseline="gaussian",
        names={"run": "r", "split": "test"},
    )


def test_the_table_holds_the_scores(tables, measured):
    table = tables[0]
    columns = "run split field method statistic value error ceiling ceiling_low n"
    assert list(table) == columns.split()
    assert set(table["method"]) == {"network", "gaussian"}
    assert (table["n"] == COUNT).all()
    assert (table["error"] > 0).all()
    for method, name in (("network", "made"), ("gaussian", "lognormal")):
        rows = table[table["method"] == method].set_index(["field", "statistic"])["value"]
        assert rows.to_dict() == found(measured[name], measured["truth"])


def test_ceilings_are_what_two_sets_of_as_many_patches_reach():
    """Of one law, drawn anew: an overlap lacks 1 by an error, which falls as 1/√n."""
    count, sets = 24, 20
    draws = generator(8, "curves").standard_normal((2 * sets, count, 1, 32))
    curves = np.sin(np.linspace(0, 3, 32)) + 0.2 * np.cumsum(draws, axis=-1) / 6
    pairs = [superposition(*curves[2 * i : 2 * i + 2])[0] for i in range(sets)]
    told = [
        1 - (1 - superposition_ceiling(one, generator(9, i)).mean()) / np.sqrt(2)
        for i, one in enumerate(curves)
    ]
    error = np.std(pairs, ddof=1) / np.sqrt(sets)
    assert error < 0.03
    assert abs(np.mean(pairs) - np.mean(told)) < 3 * error


def test_patches_that_share_their_sky_count_once():
    """The scatter of a mean of ten cells with four equal patches each: that of ten numbers."""
    values = np.repeat(generator(10, "cells").standard_normal(10), 4)
    cells, rng = np.repeat(np.arange(10), 4), generator(11, "draws")
    spread = {
        name: np.std([values[resampled(40, rng, blocks)].mean() for _ in range(2000)])
        for name, blocks in (("cells", cells), ("patches", None))
    }
    assert spread["cells"] == pytest.approx(values.std() / np.sqrt(10), rel=0.06)
    assert spread["patches"] == pytest.approx(values.std() / np.sqrt(40), rel=0.06)


def test_blocks_are_as_wide_as_a_patch():
    lon, lat = np.linspace(0, 350, 36), np.full(36, 45.0)
    blocks = sky_blocks(lon, lat, 10.0)
    assert len(np.unique(blocks)) == len({*blocks}) >= 10
    assert (np.unique(blocks, return_counts=True)[1] <= 4).all()
    assert sky_blocks(lon[:3], lat[:3], 10.0) is None, "three cells have no scatter"


def test_ceilings_are_those_of_the_truth(tables):
    table = tables[0]
    overlaps = table["statistic"].str.startswith("overlap_")
    assert table.loc[~overlaps, ["ceiling", "ceiling_low"]].isna().all(axis=None)
    rows = table[overlaps]
    assert (rows["ceiling_low"] < rows["ceiling"]).all()
    assert rows["ceiling"].between(0.7, 0.9).all()
    by_method = [rows[rows["method"] == name]["ceiling"].to_numpy() for name in set(rows["method"])]
    np.testing.assert_array_equal(*by_method)


def test_a_gain_above_zero_is_better_than_the_baseline(tables):
    """The network draws from the true law, the baseline does not."""
    table, gains = tables
    assert list(gains) == ["run", "split", "field", "method", "statistic", "gain", "error"]
    assert set(gains["method"]) == {"network"}
    value = table.set_index(["method", "field", "statistic"])["value"]
    sign = np.where(gains["statistic"].str.startswith("overlap_"), 1, -1)
    keys = pd.MultiIndex.from_frame(gains[["field", "statistic"]])
    expected = sign * (value["network"][keys].to_numpy() - value["gaussian"][keys].to_numpy())
    np.testing.assert_allclose(gains["gain"], expected, atol=1e-12)
    told = gains[(gains["field"] == "ratio") | gains["statistic"].str.startswith("bispectrum")]
    assert (told["gain"] > 3 * told["error"]).all()


def test_the_same_patches_are_drawn_for_both(measured):
    """Of a method that is its baseline, nothing is gained, and that for sure."""
    both = {"network": measured["made"], "gaussian": measured["made"]}
    gains = score_table(
        measured["truth"],
        both,
        generator(4, "same"),
        low_arcmin=LOW,
        high_arcmin=HIGH,
        baseline="gaussian",
        names={},
    )[1]
    assert (gains[["gain", "error"]] == 0).all(axis=None)


def test_errors_are_the_scatter_over_skies_drawn_anew():
    """Scores that are not at their best, whose bootstrap has no edge in its way."""
    keys = [("ratio", "overlap_v1"), ("ratio", "one_point"), ("ratio", "distance_v2")]
    values, errors = [], []
    for sky in range(25):
        low = large(f"sky {sky}", 30)
        truth = measure(low + gaussian(f"truth {sky}", LACK, 30), low)
        made = measure(low + lognormal(f"made {sky}", LACK, 30), low)
        values.append([found(made, truth)[key] for key in keys])
        if sky < 4:
            table = score_table(
                truth,
                {"network": made},
                generator(5, sky),
                low_arcmin=LOW,
                high_arcmin=HIGH,
                baseline="network",
                names={},
            )[0].set_index(["field", "statistic"])
            errors.append([table.loc[key, "error"] for key in keys])
    scatter = np.std(values, axis=0, ddof=1)
    # A scatter of 25 numbers is known to 14 %, and a bootstrap of 30 patches to about as much.
    np.testing.assert_allclose(np.mean(errors, axis=0) / scatter, 1, atol=0.45)
