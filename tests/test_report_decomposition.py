"""Figures and words of a decomposition run."""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import report_inputs as inputs
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.report import decomposition, losses, read
from skyweave.report.calibration import calibration
from skyweave.report.decomposition_words import bought_words
from skyweave.report.figures import draw_decomposition
from skyweave.report.summary import fidelity_scores
from skyweave.seeds import generator
from skyweave.statistics.fidelity import fidelity_metrics, null_power, paired_difference
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.sample_coverage import sample_calibration
from skyweave.statistics.tables import read_table, write_table


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with samples and a test on skies without B, with its figures."""
    return inputs.drawn(tmp_path_factory, "decomposition")["decomposition"]


def files(folder: Path) -> list[str]:
    return [entry["file"] for entry in read.figures(folder / "figures.json")]


def test_each_figure_has_its_file_words_and_table(drawn: Path) -> None:
    folder = drawn / "figures"
    assert files(folder) == [
        *decomposition.FILES,
        decomposition.LEAKAGE,
        decomposition.CALIBRATION,
    ]
    for entry in read.figures(folder / "figures.json"):
        assert all(len(entry[key]) > 20 for key in ("caption", "alt")), entry["file"]
        assert entry["section"] == "decomposition"
        assert len(read_table(folder / entry["table"])) > 0
        image = folder / entry["file"]
        if image.suffix == ".svg":
            assert ET.parse(image).getroot().tag.endswith("svg")
        else:
            assert imread(image)[..., :3].std() > 0.05


def test_tables_hold_what_was_measured(drawn: Path) -> None:
    metrics = read_table(drawn / "metrics.csv")
    table = read_table(drawn / "figures" / "fidelity.csv")
    assert set(table["statistic"]) == {"power_ratio", "correlation"}
    assert set(table["method"]) == {"network", "samples", "plain", "quadratic", "wiener"}
    assert table["ell"].notna().all()
    merged = table.merge(metrics, how="left", on=list(table.columns), indicator="found")
    assert (merged["found"] == "both").all()
    leaked = read_table(drawn / "figures" / "leakage.csv")
    assert set(leaked["field"]) == {"b_sky"}
    assert set(leaked.loc[leaked["statistic"] == "power_null", "method"]) == {
        "network",
        "analytic_eb",
    }


def test_two_samples_of_the_shown_patch_stand_beside_its_prediction(drawn: Path) -> None:
    table = read_table(drawn / "figures" / "examples.csv")
    assert (table["realization"] == 11).all(), "number 3, the first, is a null one"
    shown = {f"estimates/sample {number}" for number in (1, 2)}
    assert shown <= set(table["map"])
    assert "estimates/sample 3" not in set(table["map"])
    with h5py.File(drawn / "predictions.h5") as file:
        sample = file["samples/kappa"][1, 1]
    found = table.query("field == 'kappa' and map == 'estimates/sample 2'")
    assert found["standard_deviation"].item() == pytest.approx(sample.std(), rel=1e-5)


def test_what_a_run_lacks_is_not_drawn(tmp_path: Path) -> None:
    run = inputs.write_decomposition(tmp_path / "run", pixels=16, samples=0, leaks=False)
    draw_decomposition(run, tmp_path / "figures")
    assert files(tmp_path / "figures") == list(decomposition.FILES)
    assert not (tmp_path / "figures" / decomposition.LEAKAGE).exists()
    table = read_table(tmp_path / "figures" / "examples.csv")
    assert not table["map"].str.contains("sample").any()


def test_same_inputs_give_same_bytes(drawn: Path, tmp_path: Path) -> None:
    metrics = read_table(drawn / "metrics.csv")
    decomposition.fidelity(metrics, tmp_path / "fidelity.svg")
    decomposition.leakage(metrics, {"b_sky": "uK_CMB"}, tmp_path / "leakage.svg")
    losses.networks(read_table(drawn / "history.csv"), 9, tmp_path / "networks.svg")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (drawn / "figures" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    "name", ["metrics.csv", "history.csv", "sweep.csv", "predictions.h5", "calibration.csv"]
)
@pytest.mark.parametrize("content", [None, b"not what it should be\n"])
def test_a_missing_or_broken_input_is_named(
    drawn: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(drawn, folder, ignore=shutil.ignore_patterns("figures"))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        draw_decomposition(folder, tmp_path / "figures")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "figures" / "figures.json").exists()


def test_a_statistic_that_is_missing_is_named(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(drawn, folder, ignore=shutil.ignore_patterns("figures"))
    metrics = read_table(folder / "metrics.csv")
    write_table(folder / "metrics.csv", metrics[metrics["statistic"] != "power_ratio"])
    with pytest.raises(UserError, match=r"metrics\.csv: expected rows .*'power_ratio'"):
        draw_decomposition(folder, tmp_path / "figures")


def labels(path: Path) -> str:
    """All words of an SVG, which matplotlib keeps as comments beside the outlines."""
    return path.read_text(encoding="utf-8")


class TestNetworks:
    def test_an_adversarial_run_has_four_panels(self, drawn: Path) -> None:
        svg = labels(drawn / "figures" / "networks.svg")
        for words in (
            "total loss of the generator",
            "loss by output",
            "discriminator, training",
            "discriminator, validation",
            "on made, validation",
            "cannot tell",
            "kept (epoch 9)",
        ):
            assert f"<!-- {words} -->" in svg, words

    def test_a_penalty_is_no_output(self, drawn: Path, tmp_path: Path) -> None:
        history = read_table(drawn / "history.csv").assign(loss_gradient_penalty=0.1)
        losses.networks(history, 9, tmp_path / "a.svg")
        assert labels(tmp_path / "a.svg") == labels(drawn / "figures" / "networks.svg")

    def test_others_have_the_learning_rate(self, tmp_path: Path) -> None:
        history = read_table(inputs.write_run(tmp_path / "run", pixels=16) / "history.csv")
        pd.testing.assert_frame_equal(losses.networks(history, 3, tmp_path / "a.svg"), history)
        svg = labels(tmp_path / "a.svg")
        assert "<!-- learning rate -->" in svg
        assert "discriminator" not in svg

    @pytest.mark.parametrize("column", ["loss", "val_loss"])
    def test_losses_below_zero_and_unknown_ones_are_drawn(
        self, tmp_path: Path, column: str
    ) -> None:
        history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [1.0, 2.0, 1.5]})
        history["val_loss"] = [np.nan, 2.0, 1.0]
        history[column] = history[column] - 5
        losses.networks(history, 1, tmp_path / "a.svg")
        assert "<!-- total loss -->" in labels(tmp_path / "a.svg")


class TestWords:
    metrics = inputs._fidelity_metrics(True, True)

    def change(self, field: str, statistic: str, value: float) -> list[str]:
        """Words where one of the means or differences is another."""
        metrics = self.metrics.copy()
        at = (metrics.field == field) & (metrics.statistic == statistic)
        metrics.loc[at & (metrics.method == "plain"), "value"] = value
        return bought_words(metrics, "plain")

    def test_a_sentence_a_field_with_values_and_errors(self) -> None:
        first, second = bought_words(self.metrics, "plain")
        assert first.startswith("Lensed E, mean over the bands below ell 2000: power over")
        assert "1.0200 ± 0.0200 and r_ell 0.8000 ± 0.0100; run plain has 0.7500" in first
        assert (
            "The power is 0.230 nearer to the truth's, at the cost of 0.0800 ± 0.0030 of r_ell"
            in first
        )
        assert "Samples, each by itself: 1.0100 ± 0.0200 and 0.6400 ± 0.0100." in first
        assert second.startswith("Convergence κ")
        assert "0.200 farther from the truth's, at the cost of 0.0200 ± 0.0030 of r_ell" in second

    @pytest.mark.parametrize(
        ("statistic", "value", "words"),
        [
            ("mean_correlation_difference", 0.01, "and r_ell is 0.0100 ± 0.0030 higher"),
            ("mean_correlation_difference", -0.005, "and r_ell the same within two standard"),
            ("mean_power_ratio_difference", 0.015, "The power is the same within two standard"),
            ("mean_power_ratio", 0.985, "as far from the truth's, on the other side"),
        ],
    )
    def test_what_is_within_its_errors_is_no_change(
        self, statistic: str, value: float, words: str
    ) -> None:
        assert words in self.change("e_sky", statistic, value)[0]

    def test_without_the_other_run_there_are_no_words(self) -> None:
        assert bought_words(self.metrics, "another") == []
        alone = self.metrics[~self.metrics["method"].isin(["samples"])]
        assert all("Samples" not in words for words in bought_words(alone, "plain"))


def test_scores_have_a_row_a_field_and_method(drawn: Path) -> None:
    rows = fidelity_scores("repaired", drawn)
    assert len(rows) == 2 * 4
    first = rows[0]
    assert first["power"] == "1.0200 ± 0.0200"
    assert first["correlation"] == "0.8000 ± 0.0100"
    assert first["patches"] == "30"
    assert {row["method"] for row in rows if row["field"] == "lensed E"} == {
        "network",
        "samples",
        "run plain",
        "Wiener filter",
    }


def test_the_tables_of_the_statistics_room_are_drawn(tmp_path: Path) -> None:
    """Maps to metrics to figures and words, with nothing made up between."""
    grid = PatchGrid(5.0, 32)
    bins = default_bins(grid)
    rng = np.random.default_rng(8)
    names = {"run": "repaired", "field": "kappa"}
    truth = inputs.random_maps(rng, 20, 32)
    mean = 0.8 * truth + 0.2 * inputs.random_maps(rng, 20, 32)
    plain = 0.7 * truth
    samples = np.stack([mean + 0.3 * inputs.random_maps(rng, 20, 32) for _ in range(3)])
    rows, curves = sample_calibration(samples, truth, grid, bins, generator(1), **names)
    null = {"run": "repaired", "field": "b_sky"}
    tables = [
        fidelity_metrics(mean, truth, grid, bins, method="network", samples=samples, **names),
        fidelity_metrics(plain, truth, grid, bins, method="plain", **names),
        paired_difference(mean, plain, truth, grid, bins, method="plain", **names),
        fidelity_metrics(mean, truth, grid, bins, method="network", **null),
        null_power(0.1 * mean, grid, bins, method="network", **null),
        null_power(plain, grid, bins, method="analytic_eb", **null),
        rows,
    ]
    metrics = pd.concat(tables, ignore_index=True)
    write_table(tmp_path / "metrics.csv", metrics)
    assert len(decomposition.fidelity(metrics, tmp_path / "a.svg")) == 2 * 5 * bins.count
    leaked = decomposition.leakage(metrics, {"b_sky": ""}, tmp_path / "b.svg")
    assert len(leaked) == 4 * bins.count
    assert len(calibration(rows, curves, tmp_path / "c.svg")) == 2 * bins.count + len(curves)
    (words,) = bought_words(metrics, "plain")
    assert "run plain has 0.4900 ± 0.0000 and 1.0000 ± 0.0000" in words
    assert {row["method"] for row in fidelity_scores("repaired", tmp_path)} == {
        "network",
        "samples",
        "mean of infinitely many samples",
        "run plain",
    }
