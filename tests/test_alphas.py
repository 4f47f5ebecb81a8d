"""What generated images in the training buy: which runs are compared, and how."""

import numpy as np
import pandas as pd
import pytest

from skyweave.config import parse
from skyweave.statistics.reconstruction import COLUMNS
from skyweave.statistics.tables import read_table, write_table
from skyweave.statistics.verdicts import write_verdicts
from skyweave.tasks.alphas import alphas, compare

GAN = {"task": "generation", "dataset": "made"}
PLAIN = {"task": "denoising", "dataset": "made"}
MIXED = PLAIN | {"generated": "gan"}


def grouped(**runs):
    """Groups of a study with these runs beside two generators."""
    values = {
        "datasets": {
            "made": {"kind": "sersic", "pixels": 32, "realizations": 400},
            "own": {"kind": "images", "path": "stamps.npz", "pixels": 32},
        },
        "runs": {
            "gan": GAN,
            "vae": GAN | {"network": {"name": "vae"}},
            "stamps": GAN | {"dataset": "own"},
        },
    }
    values["runs"] |= runs
    return alphas(parse(values))


def test_runs_that_differ_by_their_share_are_a_group():
    found = grouped(
        a=PLAIN,
        b=PLAIN | {"repeat": 1},
        c=MIXED | {"alpha": 0.5},
        d=MIXED | {"alpha": 1.0, "repeat": 3},
    )
    assert found == {"made": {"a": 0, "b": 0, "c": 0.5, "d": 1}}


def test_none_without_a_share_of_zero_or_another_one():
    assert grouped() == {}
    assert grouped(a=PLAIN, b=PLAIN | {"repeat": 1}) == {}
    assert grouped(a=MIXED | {"alpha": 0.5}, b=MIXED | {"alpha": 1}) == {}
    # Zero with a generator that is not asked is zero.
    assert grouped(a=MIXED, b=MIXED | {"alpha": 1}) == {"made": {"a": 0, "b": 1}}


def test_other_runs_are_no_part_of_a_group():
    wide = {"network": {"width": 0.5}}
    noisy = {"degradation": {"noise": 3}}
    brief = {"training": {"epochs": 3}}
    found = grouped(
        a=PLAIN,
        b=MIXED | {"alpha": 0.5},
        c=MIXED | {"alpha": 0.7} | wide,
        d=PLAIN | noisy,
        e=MIXED | {"alpha": 0.7} | brief,
        f=MIXED | {"alpha": 0.7, "turns": False},
    )
    assert found == {"made": {"a": 0, "b": 0.5}}


def test_images_of_two_generators_are_not_compared_as_one():
    runs = {
        "a": PLAIN,
        "b": MIXED | {"alpha": 0.5},
        "c": PLAIN | {"generated": "vae", "alpha": 0.5},
    }
    # Of two groups as large the first by its runs' names.
    assert grouped(**runs) == {"made": {"a": 0, "b": 0.5}}
    # Or the larger one.
    runs["d"] = PLAIN | {"generated": "vae", "alpha": 1}
    assert grouped(**runs) == {"made": {"a": 0, "c": 0.5, "d": 1}}


def test_the_largest_group_of_a_dataset_counts_and_each_dataset_has_its_own():
    wide = {"network": {"width": 0.5}}
    stamps = {"task": "denoising", "dataset": "own"}
    found = grouped(
        a=PLAIN,
        b=MIXED | {"alpha": 0.5},
        c=PLAIN | wide,
        d=MIXED | {"alpha": 0.5} | wide,
        e=MIXED | {"alpha": 0.5, "repeat": 1} | wide,
        y=stamps,
        z=stamps | {"generated": "stamps", "alpha": 0.1},
    )
    assert found == {"made": {"c": 0, "d": 0.5, "e": 0.5}, "own": {"y": 0, "z": 0.1}}


def test_a_scan_is_a_group():
    values = {
        "datasets": {"made": {"kind": "sersic", "pixels": 32, "realizations": 400}},
        "runs": {"gan": GAN, "mixed": MIXED | {"alpha": 0.5}},
        "scans": {
            "share": {"run": "mixed", "settings": {"alpha": [0, 0.25], "repeat": [0, 1]}},
        },
    }
    found = alphas(parse(values))["made"]
    assert found == {"mixed": 0.5, "share_1": 0, "share_2": 0, "share_3": 0.25, "share_4": 0.25}


def metrics(path, errors, scale=1.0, bands=("image",)):
    """A file of metrics as `evaluate_run` of a denoising has them."""
    rows = []
    for field in bands:
        for case, error in errors.items():
            # What does not count lies beside: other methods and other numbers.
            for method, statistic, value in (
                ("network", "mse", error * scale),
                ("wiener", "mse", 100.0),
                ("seen", "mse", 200.0),
                ("network", "flux_error", 300.0),
            ):
                rows.append(
                    dict.fromkeys(COLUMNS, np.nan)
                    | {"run": path.stem, "split": "test", "field": field, "n": 5}
                    | {"method": method, "statistic": statistic, "value": value, "case": case}
                )
    write_table(path, pd.DataFrame(rows))
    return path


def compared(folder, values, **more):
    """Of runs with an alpha and a factor on the errors each."""
    runs, paths = {}, []
    for number, (alpha, scale) in enumerate(values):
        runs[f"run{number}"] = alpha
        errors = {"none": 1.0, "noise": 4.0}
        paths.append(metrics(folder / f"run{number}.csv", errors, scale, **more))
    return compare(runs, paths)


def test_gains_and_their_errors(tmp_path):
    values = [(0.0, 1.1), (0.0, 0.9), (0.5, 0.82), (0.5, 0.78), (1.0, 0.9), (1.0, 1.3)]
    table, verdicts = compared(tmp_path, values, bands=("g", "r"))
    assert len(table) == 3 * 2 * 2
    assert (table.networks == 2).all()
    for field in ("g", "r"):
        rows = table[(table.field == field) & (table.case == "noise")].set_index("alpha")
        np.testing.assert_allclose(rows.mse, [4.0, 3.2, 4.4])
        np.testing.assert_allclose(rows.gain, [0, 0.2, -0.1], atol=1e-12)
        # Standard errors of two values are half their distance.
        np.testing.assert_allclose(rows.error, [0.4, 0.08, 0.8])
        expected = [0, 0.8 * np.hypot(0.02 / 0.8, 0.1), 1.1 * np.hypot(0.2 / 1.1, 0.1)]
        np.testing.assert_allclose(rows.gain_error, expected)
    assert [one["check"] for one in verdicts] == [
        f"{field}, more noise: error lower with generated images, share (alpha 0.5)"
        for field in ("g", "r")
    ]
    assert verdicts[0]["value"] == pytest.approx(0.2)
    assert verdicts[0]["bar"] == pytest.approx(2 * expected[1])
    assert verdicts[0]["passed"]
    assert "2 networks against 2 without; bar 2 standard errors" in verdicts[0]["note"]


def test_the_error_of_a_gain_is_its_scatter(monkeypatch):
    """Over many drawn studies, of four networks with a share and four without."""
    rng = np.random.default_rng(1)
    monkeypatch.setattr(
        "skyweave.tasks.alphas.read_table",
        lambda error: pd.DataFrame(
            [{"field": "image", "case": "noise", "method": "network", "statistic": "mse"}]
        ).assign(value=error),
    )
    gains, errors = [], []
    for _ in range(300):
        runs = {f"run{number}": 0.5 * (number % 2) for number in range(8)}
        drawn = [(1 - 0.4 * a) * (1 + 0.05 * rng.standard_normal()) for a in runs.values()]
        table = compare(runs, drawn)[0].set_index("alpha")
        gains.append(table.gain[0.5])
        errors.append(table.gain_error[0.5])
    assert np.mean(gains) == pytest.approx(0.2, abs=0.005)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(gains), rel=0.15)


def test_networks_that_scatter_show_nothing(tmp_path):
    values = [(0.0, 1.5), (0.0, 0.5), (0.5, 0.6), (0.5, 0.9)]
    verdict = compared(tmp_path, values)[1][0]
    assert verdict["value"] == pytest.approx(0.25)
    assert not verdict["passed"]


def test_a_loss_is_no_gain(tmp_path):
    verdict = compared(tmp_path, [(0.0, 1.0), (0.0, 1.01), (0.5, 1.2), (0.5, 1.21)])[1][0]
    assert verdict["value"] < 0
    assert not verdict["passed"]


@pytest.mark.parametrize("values", [[(0.0, 1), (0.5, 0.1)], [(0.0, 1), (0.5, 0.1), (0.5, 0.11)]])
def test_one_network_alone_shows_nothing(tmp_path, values):
    table, verdicts = compared(tmp_path, values)
    row = table[(table.alpha == 0.5) & (table.case == "noise")].iloc[0]
    assert row.gain == pytest.approx(0.9, abs=0.01)
    assert np.isnan(row.gain_error)
    (verdict,) = verdicts
    assert not verdict["passed"]
    assert verdict["bar"] is None
    assert "one network alone tells no scatter" in verdict["note"]


def test_judged_is_an_alpha_whose_gain_has_an_error(tmp_path):
    values = [(0.0, 1.0), (0.0, 1.01), (0.5, 0.8), (0.5, 0.81), (1.0, 0.1)]
    verdict = compared(tmp_path, values)[1][0]
    assert "(alpha 0.5)" in verdict["check"]
    assert verdict["passed"]


def test_files_hold_what_is_compared(tmp_path):
    table, verdicts = compared(tmp_path, [(0.0, 1), (0.0, 1.1), (0.5, 0.8), (0.5, 0.9)])
    write_table(tmp_path / "table.csv", table)
    write_verdicts(tmp_path / "verdicts.json", verdicts)
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table)
