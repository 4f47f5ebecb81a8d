"""A debiased spectrum is the truth's, its error its scatter, and what is not known is not told."""

import numpy as np
import pandas as pd
import pytest

from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator
from skyweave.statistics.debiased import LEAST, debiased_metrics
from skyweave.statistics.flat_spectra import cross_spectra, default_bins
from skyweave.statistics.reconstruction import COLUMNS

GRID = PatchGrid(5.0, 32)
BINS = default_bins(GRID)
CL = 1e-3 * (GRID.ell + 300.0) ** -2
TRANSFER = np.where(GRID.ell < 550, np.exp(-((GRID.ell / 700) ** 2)), 0.0)
NAMES = {"run": "r", "field": "tau", "method": "network"}
STUDIES, PATCHES = 80, 50


def gaussian(count, cl, *identity):
    white = generator(1, *identity).standard_normal((count, GRID.pixels, GRID.pixels))
    return inverse(forward(white, GRID) * np.sqrt(cl / GRID.pixel_rad**2), GRID)


def pair(count, *identity, transfer=TRANSFER, noise=0.15):
    """Prediction T·truth + noise, and truth, on a tapered patch."""
    taper = cosine_taper(GRID, 1.0)
    truth = gaussian(count, CL, *identity, "truth")
    kept = inverse(forward(truth, GRID) * transfer, GRID)
    return (kept + gaussian(count, noise * CL, *identity, "noise")) * taper, truth * taper


def measure(maps, validation):
    return debiased_metrics(maps, validation, GRID, BINS, taper=cosine_taper(GRID, 1.0), **NAMES)


def pick(frame, statistic):
    return frame[frame["statistic"] == statistic].reset_index(drop=True)


@pytest.fixture(scope="module")
def studies():
    return [
        measure(pair(PATCHES, number, "test"), pair(PATCHES, number, "validation"))
        for number in range(STUDIES)
    ]


@pytest.mark.parametrize("statistic", ["spectrum_bias", "spectrum_amplitude"])
def test_the_truths_spectrum_is_recovered_within_its_errors(studies, statistic):
    """Over many studies pulls have the mean 0 and the square 1: errors are right to a tenth."""
    expected = 1.0 if statistic == "spectrum_amplitude" else 0.0
    rows = [pick(study, statistic) for study in studies]
    values, errors = (np.stack([row[name] for row in rows]) for name in ("value", "error"))
    known = np.isfinite(values).all(axis=0)
    assert known.sum() >= (1 if statistic == "spectrum_amplitude" else 3)
    pulls = (values - expected)[:, known] / errors[:, known]
    assert np.abs(pulls.mean(axis=0)).max() < 3.5 / np.sqrt(STUDIES)
    ratio = np.sqrt(np.mean(errors[:, known] ** 2) / np.mean(values[:, known].var(axis=0, ddof=1)))
    # One number's scatter over 80 studies is known to 8 %.
    assert ratio == pytest.approx(1, abs=0.2)
    assert np.mean(pulls**2) == pytest.approx(1, abs=0.3)


def test_an_estimate_is_the_truths_spectrum_times_one_and_its_bias(studies):
    estimate, bias = (pick(studies[0], f"spectrum_{name}") for name in ("estimate", "bias"))
    maps = pair(PATCHES, 0, "test")
    truth = cross_spectra(maps[1], maps[1], GRID, BINS, taper=cosine_taper(GRID, 1.0)).mean(axis=0)
    np.testing.assert_allclose(estimate["value"], truth * (1 + bias["value"]))
    np.testing.assert_allclose(estimate["ell"], BINS.centres(GRID))
    assert (estimate["n"] == PATCHES).all()
    # The scatter of the truth is in the one, not in the other.
    assert (estimate["error"] / truth > bias["error"])[bias["value"].notna()].all()


def test_bands_that_hold_nothing_are_not_told(studies):
    """T is 0 above ell 550: where it exceeds three errors far from there, it does so by chance."""
    dark = BINS.centres(GRID) > 850
    known = np.stack([pick(study, "spectrum_bias")["value"].notna() for study in studies])
    assert known[:, dark].mean() < 0.01
    assert known[:, BINS.centres(GRID) < 450].all()


def test_an_empty_prediction_tells_no_amplitude():
    maps = (
        pair(PATCHES, "empty", transfer=0 * TRANSFER),
        pair(PATCHES, "void", transfer=0 * TRANSFER),
    )
    frame = measure(*maps)
    assert pick(frame, "spectrum_bias")["value"].isna().all()
    amplitude = pick(frame, "spectrum_amplitude")
    assert len(amplitude) == 1
    assert amplitude["value"].isna().all()
    assert amplitude["error"].isna().all()


def test_a_transfer_other_than_on_the_validation_set_is_a_bias():
    maps = pair(PATCHES, "louder", transfer=1.1 * TRANSFER)
    amplitude = pick(measure(maps, pair(PATCHES, "validation")), "spectrum_amplitude").iloc[0]
    assert amplitude.value == pytest.approx(1.21, abs=4 * amplitude.error)
    assert amplitude.value - 1 > LEAST * amplitude.error


def test_null_patches_are_left_out_of_both_sets():
    test, validation = pair(20, "some"), pair(20, "others")
    for maps in (test, validation):
        maps[1][::4] = 0
    live = [tuple(x[maps[1].any(axis=(1, 2))] for x in maps) for maps in (test, validation)]
    pd.testing.assert_frame_equal(measure(test, validation), measure(*live))
    assert (measure(test, validation)["n"] == 15).all()


def test_without_patches_there_are_no_rows_and_with_one_no_errors():
    test, validation = pair(4, "few"), pair(4, "fewer")
    null = test[0], np.zeros_like(test[1])
    for maps in ((null, validation), (test, null)):
        frame = measure(*maps)
        assert frame.empty
        assert tuple(frame.columns) == COLUMNS
    lone = measure(test, tuple(maps[:1] for maps in validation))
    assert lone["value"].isna().all(), "no error of T, so T is not known"


def test_the_truth_itself_is_unbiased():
    _, truth = pair(10, "exact")
    _, other = pair(10, "exact too")
    bias = pick(measure((3 * truth, truth), (3 * other, other)), "spectrum_bias")
    assert np.abs(bias["value"]).max() < 1e-12
