"""What generated images in the training buy: which runs are compared, and how."""

import numpy as np
import pandas as pd
import pytest

from skyweave.config import parse
from skyweave.statistics.reconstruction import COLUMNS
from skyweave.statistics.tables import read_table, write_table
from skyweave.statistics.verdicts import write_verdicts
from skyweave.tasks.alpha_gains import compare
from skyweave.tasks.alphas import alphas

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
    assert found == {"made": {"a": (0, 0), "b": (0, 1), "c": (0.5, 0), "d": (1, 3)}}


def test_none_without_a_share_of_zero_or_another_one():
    assert grouped() == {}
    assert grouped(a=PLAIN, b=PLAIN | {"repeat": 1}) == {}
    assert grouped(a=MIXED | {"alpha": 0.5}, b=MIXED | {"alpha": 1}) == {}
    # Zero with a generator that is not asked is zero.
    assert grouped(a=MIXED, b=MIXED | {"alpha": 1}) == {"made": {"a": (0, 0), "b": (1, 0)}}


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
    assert found == {"made": {"a": (0, 0), "b": (0.5, 0)}}


def test_images_of_two_generators_are_not_compared_as_one():
    runs = {
        "a": PLAIN,
        "b": MIXED | {"alpha": 0.5},
        "c": PLAIN | {"generated": "vae", "alpha": 0.5},
    }
    # Of two groups as large the first by its runs' names.
    assert grouped(**runs) == {"made": {"a": (0, 0), "b": (0.5, 0)}}
    # Or the larger one.
    runs["d"] = PLAIN | {"generated": "vae", "alpha": 1}
    assert grouped(**runs) == {"made": {"a": (0, 0), "c": (0.5, 0), "d": (1, 0)}}


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
    assert found == {
        "made": {"c": (0, 0), "d": (0.5, 0), "e": (0.5, 1)},
        "own": {"y": (0, 0), "z": (0.1, 0)},
    }


def test_the_same_network_counts_once():
    """Settings that do not act on it, of the first by name; copies make no group the larger."""
    half = MIXED | {"alpha": 0.5}
    found = grouped(b=PLAIN, c=MIXED, a=half, z=half, d=half | {"repeat": 1})
    assert found == {"made": {"a": (0.5, 0), "b": (0, 0), "d": (0.5, 1)}}
    wide = {"network": {"width": 0.5}}
    copies = {"x": PLAIN | wide, "y": half | wide, "z": half | wide}
    found = grouped(a=PLAIN, b=half, **copies)
    assert found == {"made": {"a": (0, 0), "b": (0.5, 0)}}


def test_a_scan_is_a_group():
    values = {
        "datasets": {"made": {"kind": "sersic", "pixels": 32, "realizations": 400}},
        "runs": {"gan": GAN, "mixed": MIXED | {"alpha": 0.5}},
        "scans": {
            "share": {"run": "mixed", "settings": {"alpha": [0, 0.5], "repeat": [0, 1]}},
        },
    }
    found = alphas(parse(values))["made"]
    # The third is the scan's own run again.
    assert found == {
        "mixed": (0.5, 0),
        "share_1": (0, 0),
        "share_2": (0, 1),
        "share_4": (0.5, 1),
    }


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
    """Of runs with an alpha, a repeat and a factor on the errors each."""
    runs, paths = {}, []
    for number, (alpha, repeat, scale) in enumerate(values):
        runs[f"run{number}"] = (alpha, repeat)
        errors = {"none": 1.0, "noise": 4.0}
        paths.append(metrics(folder / f"run{number}.csv", errors, scale, **more))
    return compare(runs, paths)


def test_gains_and_their_errors(tmp_path):
    """Of pairs: that alpha 0 is by 0.2 better in one repeat, as the others are, is no scatter."""
    values = [
        *((0.0, 0, 1.1), (0.0, 1, 0.9)),
        *((0.5, 0, 0.89), (0.5, 1, 0.71)),
        *((1.0, 0, 0.9), (1.0, 1, 1.3)),
    ]
    table, verdicts = compared(tmp_path, values, bands=("g", "r"))
    assert len(table) == 3 * 2 * 2
    assert (table.networks == 2).all()
    assert (table.pairs == 2).all()
    for field in ("g", "r"):
        rows = table[(table.field == field) & (table.case == "noise")].set_index("alpha")
        np.testing.assert_allclose(rows.mse, [4.0, 3.2, 4.4])
        np.testing.assert_allclose(rows.gain, [0, 0.2, -0.1], atol=1e-12)
        # Standard errors of two values are half their distance.
        np.testing.assert_allclose(rows.error, [0.4, 0.36, 0.8])
        np.testing.assert_allclose(rows.gain_error, [0, 0.01, 0.3])
    assert [one["check"] for one in verdicts] == [
        f"{field}, more noise: error lower with generated images, share (alpha 0.5)"
        for field in ("g", "r")
    ]
    assert verdicts[0]["value"] == pytest.approx(0.2)
    # Student's t of one degree of freedom is Cauchy's: 1 / tan(π p) at p = 0.025 / 2.
    assert verdicts[0]["bar"] == pytest.approx(0.01 / np.tan(np.pi * 0.0125))
    assert not verdicts[0]["passed"]
    note = "of 2 pairs of networks, the best of 2 alphas; bar 25.5 standard errors"
    assert note in verdicts[0]["note"]


def test_pairs_are_of_the_same_repeat_in_any_order(tmp_path):
    values = [(0.0, r, 1 + 0.1 * r) for r in (3, 1, 2)]
    values += [(0.5, r, 0.9 + 0.1 * r) for r in (1, 4, 2)]
    row = compared(tmp_path, values)[0].query("alpha == 0.5 and case == 'none'").iloc[0]
    assert (row.networks, row.pairs) == (3, 2)
    assert row.mse == pytest.approx(0.9 + 0.1 * 7 / 3)
    assert row.gain == pytest.approx(0.1 / 1.15)
    assert row.gain_error == pytest.approx(0, abs=1e-12)


def drawn(monkeypatch, gains, studies, repeats=4):
    """Compared networks of many studies, a field each, that scatter, in part by their repeat."""
    rng = np.random.default_rng(1)
    shared = 0.2 * rng.standard_normal((repeats, studies))
    keys = [(alpha, repeat) for alpha in (0.0, *gains) for repeat in range(repeats)]

    def read(key):
        alpha, repeat = key
        errors = 1 + shared[repeat] - gains.get(alpha, 0) + 0.02 * rng.standard_normal(studies)
        table = pd.DataFrame({"field": np.arange(studies), "value": errors})
        return table.assign(case="noise", method="network", statistic="mse")

    monkeypatch.setattr("skyweave.tasks.alpha_gains.read_table", read)
    return compare({f"run{number}": key for number, key in enumerate(keys)}, keys)


def test_the_error_of_a_gain_is_its_scatter(monkeypatch):
    """Over many drawn studies, of four pairs: what these share does not count."""
    table = drawn(monkeypatch, {0.5: 0.2}, 300)[0]
    # Of differences: the mean that they are divided by scatters too.
    plain = table.mse[table.alpha == 0].to_numpy()
    gains, errors = (plain * table[name][table.alpha > 0] for name in ("gain", "gain_error"))
    assert gains.mean() == pytest.approx(0.2, abs=0.005)
    expected = 0.02 * np.sqrt(2 / 4)
    assert gains.std() == pytest.approx(expected, rel=0.15)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(("alphas", "least"), [((0.5,), 0.01), ((0.2, 0.4, 0.6, 0.8), 0.005)])
def test_images_that_do_nothing_pass_as_seldom_as_said(monkeypatch, alphas, least):
    """1 time in 40 with one alpha, and no more often as the best of four."""
    verdicts = drawn(monkeypatch, dict.fromkeys(alphas, 0.0), 1000)[1]
    assert len(verdicts) == 1000
    passed = np.mean([one["passed"] for one in verdicts])
    # Four standard errors.
    assert least < passed < 0.025 + 4 * np.sqrt(0.025 / 1000)


def test_images_that_help_pass(monkeypatch):
    for one in drawn(monkeypatch, {0.25: 0.1, 0.5: 0.3}, 5)[1]:
        assert one["passed"]
        assert "(alpha 0.5)" in one["check"]


def test_networks_that_scatter_show_nothing(tmp_path):
    values = [(0.0, 0, 1.5), (0.0, 1, 0.5), (0.5, 0, 0.6), (0.5, 1, 0.9)]
    verdict = compared(tmp_path, values)[1][0]
    assert verdict["value"] == pytest.approx(0.25)
    assert not verdict["passed"]


def test_a_loss_is_no_gain(tmp_path):
    values = [(0.0, 0, 1.0), (0.0, 1, 1.01), (0.5, 0, 1.2), (0.5, 1, 1.21)]
    verdict = compared(tmp_path, values)[1][0]
    assert verdict["value"] < 0
    assert not verdict["passed"]


def test_a_network_without_a_number_does_not_pass(tmp_path):
    values = [(0.0, 0, 1.0), (0.0, 1, 1.01), (0.5, 0, 0.2), (0.5, 1, np.nan)]
    verdict = compared(tmp_path, values)[1][0]
    assert not verdict["passed"]
    assert verdict["value"] is None
    # Another alpha is judged, among both.
    values += [(1.0, 0, 0.5), (1.0, 1, 0.511)]
    verdict = compared(tmp_path, values)[1][0]
    assert "(alpha 1)" in verdict["check"]
    assert "the best of 2 alphas" in verdict["note"]


@pytest.mark.parametrize(
    ("values", "pairs"),
    [
        ([(0.0, 0, 1), (0.5, 0, 0.1)], 1),
        ([(0.0, 0, 1), (0.5, 0, 0.1), (0.5, 1, 0.11)], 1),
        ([(0.0, 0, 1), (0.0, 1, 1), (0.5, 2, 0.1), (0.5, 3, 0.11)], 0),
    ],
)
def test_of_fewer_than_two_pairs_nothing_is_told(tmp_path, values, pairs):
    table, verdicts = compared(tmp_path, values)
    row = table[(table.alpha == 0.5) & (table.case == "noise")].iloc[0]
    assert (row.networks, row.pairs) == (len([v for v in values if v[0]]), pairs)
    assert row.mse == pytest.approx(0.4, rel=0.1)
    assert row.gain == pytest.approx(0.9, abs=0.01) if pairs else np.isnan(row.gain)
    assert np.isnan(row.gain_error)
    assert verdicts == []


def test_judged_is_an_alpha_whose_gain_has_an_error(tmp_path):
    values = [(0.0, 0, 1.0), (0.0, 1, 1.01), (0.5, 0, 0.8), (0.5, 1, 0.811), (1.0, 0, 0.1)]
    verdict = compared(tmp_path, values)[1][0]
    assert "(alpha 0.5)" in verdict["check"]
    assert "best of" not in verdict["note"]
    assert verdict["passed"]


def test_files_hold_what_is_compared(tmp_path):
    table, verdicts = compared(tmp_path, [(0.0, 0, 1), (0.0, 1, 1.1), (0.5, 0, 0.8), (0.5, 1, 0.9)])
    write_table(tmp_path / "table.csv", table)
    write_verdicts(tmp_path / "verdicts.json", verdicts)
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table)
