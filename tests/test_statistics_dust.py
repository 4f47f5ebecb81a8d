"""The Gaussian control agrees with theory, catches a wrong measurement, and tells dust apart."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from skyweave.errors import UserError
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.simulation.gaussian import white_modes
from skyweave.statistics.control import NU, Control, spectrum_on_modes
from skyweave.statistics.dust import dust_report, dust_statistics
from skyweave.statistics.namaster import expected_spectrum
from skyweave.statistics.windows import Windows

GRID = PatchGrid(10.0, 64)
COUNT = 30


def sky(lognormal, count=COUNT):
    """Patches of a steep sky of 30′ and 120′, some with a hole in the mask; places."""
    cl = np.where(GRID.ell > 0, (GRID.ell + 1e-9) ** -2.7, 0.0)
    high, low = [], []
    for index in range(count):
        field = inverse(white_modes(generator(21, "sky", index), GRID) * np.sqrt(cl), GRID)
        field /= field.std()
        modes = forward(np.exp(0.7 * field) if lognormal else 10 + field, GRID)
        high.append(inverse(modes * gaussian_beam(GRID.ell, 30.0), GRID))
        low.append(inverse(modes * gaussian_beam(GRID.ell, 120.0), GRID))
    masks = np.ones((count, 64, 64), np.float32)
    masks[::3, 10:30, 5:20] = 0
    places = pd.DataFrame({"split": ["train", "train", "test"] * (count // 3)})
    return {"high": np.stack(high), "low": np.stack(low)}, masks, places


@pytest.fixture(scope="module")
def report():
    patches, masks, places = sky(lognormal=True)
    return dust_report(patches, masks, GRID, places, dataset="dust", seed=1)


def judged(report, words):
    found = [entry for entry in report.verdicts if words in entry["check"]]
    assert found
    return found


def test_the_control_agrees_with_theory(report):
    entries = judged(report, "agrees with theory")
    assert len(entries) == 4
    assert all(entry["passed"] for entry in entries)
    assert min(entry["value"] for entry in entries) > 0.01
    assert all(entry["passed"] for entry in judged(report, "bias of the pixels"))


def test_lognormal_dust_is_told_from_its_control(report):
    entries = judged(report, "non-Gaussian")
    assert [entry["passed"] for entry in entries] == [True, True]
    assert max(entry["value"] for entry in entries) < 0.3
    assert (report.overlap["value"] < report.overlap["ceiling_low"]).all()


def test_gaussian_dust_is_not_told_from_its_control():
    patches, masks, places = sky(lognormal=False)
    found = dust_report(patches, masks, GRID, places, dataset="dust", seed=1)
    (high,) = judged(found, "non-Gaussian, high")
    assert not high["passed"]
    assert high["value"] > 0.6


def test_tables_hold_dust_control_and_theory(report):
    assert set(report.spectra["field"]) == {"high", "low", "gaussian", "theory"}
    assert set(report.minkowski["field"]) == {
        "high", "ratio", "gaussian", "gaussian_ratio", "theory"
    }  # fmt: skip
    assert set(report.minkowski_sigma["field"]) == {"gaussian", "theory", "theory_pixels"}
    assert (report.spectra["split"] == "all").all()
    assert len(report.minkowski) == 5 * 3 * 32
    high = report.spectra[report.spectra["field"] == "high"].set_index(["statistic", "ell"])
    assert (high.loc["cl_p16", "value"] <= high.loc["cl_p84", "value"]).all()
    assert (high["n"] == COUNT).all()


def test_the_control_has_the_spectrum_of_the_dust(report):
    cl = report.spectra[report.spectra["statistic"] == "cl"]
    table = cl.pivot_table(index="ell", columns="field", values="value")
    errors = cl[cl["field"] == "high"]["error"].to_numpy()
    pull = (table["theory"] - table["high"]) / errors
    # Beyond ell 500 the beam of 30′ leaves less than 4 % of the power, and in most skies leakage
    # rules there.
    assert np.abs(pull[table.index < 500]).max() < 0.5


def test_scaled_theory_guides_the_eye_in_the_middle(report):
    table = report.minkowski[report.minkowski["threshold"].abs() < 0.5]
    for _, part in table.groupby("statistic"):
        curves = part.pivot_table(index="threshold", columns="field", values="value")
        off = curves.sub(curves["theory"], axis=0).abs().max()
        assert off["gaussian"] < 0.25 * off["high"]


def test_the_same_seed_gives_the_same_report_and_another_does_not():
    patches, masks, places = sky(lognormal=True, count=6)
    reports = [
        dust_report(patches, masks, GRID, places, dataset="dust", seed=seed) for seed in (1, 1, 2)
    ]
    pd.testing.assert_frame_equal(reports[0].minkowski, reports[1].minkowski)
    # NaMaster's last bits differ from call to call.
    values = [[entry["value"] for entry in report.verdicts] for report in reports]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-6)
    assert not reports[0].minkowski.equals(reports[2].minkowski)


@pytest.fixture(scope="module")
def control():
    _, masks, _ = sky(lognormal=False, count=6)
    windows = Windows.of(masks, GRID)
    cl = np.where(GRID.ell > 0, (GRID.ell + 30.0) ** -2.7, 0) * gaussian_beam(GRID.ell, 30.0) ** 2
    return Control.draw(
        np.stack([cl] * 6),
        windows.weights,
        windows.keep,
        windows.workspaces,
        seed=5,
        identity=("c",),
    )


def failed(control):
    entries = [e for e in control.verdicts() if "agrees" in e["check"]]
    return [entry["check"].rsplit(" ", 1)[-1] for entry in entries if not entry["passed"]]


def test_a_control_catches_a_wrong_measurement(control):
    assert failed(control) == []
    # Maps 5 % too large, a spectrum of another slope, fields a little skewed.
    assert "spectrum" in failed(replace(control, maps=1.05 * control.maps))
    tilted = control.laws * np.maximum(GRID.ell, 36.0) ** 0.2
    assert {"v1", "v2"} <= set(failed(replace(control, laws=tilted)))
    rms = control.moments[0][0]
    nu = control.maps / rms
    skewed = replace(control, maps=rms * (nu + 0.1 * (nu**2 - 1)))
    assert "v2" in failed(skewed)


def test_a_control_uses_each_mask_as_often(control):
    assert len(control.maps) == 480
    assert control.curves_nu.shape == (480, 3, len(NU))


def test_a_spectrum_on_modes_is_measured_as_asked(control):
    for law, weight in zip(control.laws[:2], control.weights[:2], strict=True):
        workspaces = control.workspaces
        ell = workspaces.bins.centres(GRID)
        wanted = expected_spectrum(law, weight, workspaces)
        modes = spectrum_on_modes(ell, wanted, weight, workspaces)
        found = expected_spectrum(modes, weight, workspaces)
        np.testing.assert_allclose(found[:9], wanted[:9], rtol=0.01)  # down to 2e-5
        assert modes[0, 0] == 0


def test_one_bright_patch_does_not_make_the_others_look_non_gaussian():
    """Each patch has its own twin: one 1000 times brighter and of another slope rules no other."""
    patches, masks, places = sky(lognormal=False)
    cl = np.where(GRID.ell > 0, (GRID.ell + 100.0) ** -1.0, 0) * gaussian_beam(GRID.ell, 30.0) ** 2
    bright = inverse(white_modes(generator(22, "bright"), GRID) * np.sqrt(cl), GRID)
    patches["high"][7] = 1000 * bright / bright.std()
    found = dust_report(patches, masks, GRID, places, dataset="dust", seed=1)
    (high,) = judged(found, "non-Gaussian, high")
    assert high["value"] > 0.6
    assert all(entry["passed"] for entry in judged(found, "agrees with theory"))


def test_a_split_is_measured_alone():
    patches, masks, places = sky(lognormal=True, count=12)
    test = (places["split"] == "test").to_numpy()
    of_split = dust_statistics(patches, masks, GRID, places, dataset="d", split="test")
    alone = dust_statistics(
        {name: maps[test] for name, maps in patches.items()},
        masks[test],
        GRID,
        places[test],
        dataset="d",
    )
    for table, expected in zip(of_split, alone, strict=True):
        pd.testing.assert_frame_equal(table.drop(columns="split"), expected.drop(columns="split"))
        assert (table["split"] == "test").all()


def test_what_cannot_be_measured_is_named():
    patches, masks, places = sky(lognormal=True, count=12)
    broken = patches | {"low": patches["low"].copy()}
    broken["low"][4, 40, 40] = -1
    with pytest.raises(UserError, match=r"low: expected positive values .* first 4"):
        dust_statistics(broken, masks, GRID, places, dataset="d")
    with pytest.raises(UserError, match="a row for each of 12 patches, found 11"):
        dust_statistics(patches, masks, GRID, places[:11], dataset="d")
    with pytest.raises(UserError, match="at least 4 in split 'validation', found 0"):
        dust_statistics(patches, masks, GRID, places, dataset="d", split="validation")
