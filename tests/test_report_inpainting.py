"""Figures of an inpainting run, and its scores."""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import report_inputs as inputs
from skyweave.config.inpainting import InpaintingRun
from skyweave.data.predictions import write_predictions
from skyweave.errors import UserError
from skyweave.report import inpainting, read
from skyweave.report.figures import draw_inpainting
from skyweave.report.summary import filled_scores
from skyweave.statistics.tables import read_table, write_table
from skyweave.tasks.inpainting_scores import evaluate_run

METHODS = {"network", "sampled", "constrained", "realization", "diffusive"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that fills holes, with its figures."""
    return inputs.drawn(tmp_path_factory, "inpainting")["inpainting"]


@pytest.fixture
def own(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    folder = tmp_path / "run"
    shutil.copytree(drawn, folder, ignore=shutil.ignore_patterns("figures"))
    return folder


def table(drawn: Path, name: str) -> pd.DataFrame:
    return read_table(drawn / "figures" / name)


def labels(path: Path) -> str:
    """All words of an SVG, which matplotlib keeps as comments beside the outlines."""
    return path.read_text(encoding="utf-8")


def test_each_figure_has_its_file_words_and_table(drawn: Path) -> None:
    folder = drawn / "figures"
    entries = read.figures(folder / "figures.json")
    assert tuple(entry["file"] for entry in entries) == inpainting.FILES
    for entry in entries:
        assert all(len(entry[key]) > 20 for key in ("caption", "alt")), entry["file"]
        assert entry["section"] == "inpainting"
        assert len(read_table(folder / entry["table"])) > 0
        image = folder / entry["file"]
        if image.suffix == ".svg":
            assert ET.parse(image).getroot().tag.endswith("svg")
        else:
            assert imread(image)[..., :3].std() > 0.05


@pytest.mark.parametrize(
    ("name", "source", "statistics", "methods"),
    [
        (
            "errors.csv",
            "metrics.csv",
            {"error_rms_hole", "error_ratio"},
            {"network", "constrained", "diffusive"},
        ),
        (
            "spectra.csv",
            "metrics.csv",
            {"power_ratio", "power_ratio_namaster"},
            METHODS | {"masked"},
        ),
        ("values.csv", "values.csv", {"density", "edge_correlation"}, METHODS | {"truth"}),
    ],
)
def test_tables_hold_what_was_measured(
    drawn: Path, name: str, source: str, statistics: set[str], methods: set[str]
) -> None:
    rows = table(drawn, name)
    assert set(rows["statistic"]) == statistics
    assert set(rows["method"]) == methods
    measured = read_table(drawn / source)
    found = rows.merge(measured, how="left", on=list(rows.columns), indicator="found")
    assert (found["found"] == "both").all()


def test_errors_are_of_all_holes_and_the_ratio_of_the_network_alone(drawn: Path) -> None:
    rows = table(drawn, "errors.csv")
    assert set(rows["case"]) == {"holes", *(f"radius_{radius}" for radius in (2, 4, 6, 8, 10))}
    assert set(rows.loc[rows["statistic"] == "error_ratio", "method"]) == {"network"}
    svg = labels(drawn / "figures" / "errors.svg")
    for words in ("own", "10", "5 % above", "network / optimum", "Gaussian optimum (mean)"):
        assert f"<!-- {words} -->" in svg, words


def test_spectra_are_of_the_own_holes_and_three_discs(drawn: Path) -> None:
    rows = table(drawn, "spectra.csv")
    assert set(rows["case"]) == {"holes", "radius_2", "radius_6", "radius_10"}
    svg = labels(drawn / "figures" / "spectra.svg")
    for words in (
        "holes as trained",
        "disc, radius 6 pixels",
        "± 1 %",
        "network with fluctuations",
    ):
        assert f"<!-- {words} -->" in svg, words


def test_values_are_of_the_own_holes_and_the_largest_disc(drawn: Path) -> None:
    assert set(table(drawn, "values.csv")["case"]) == {"holes", "radius_10"}


@pytest.mark.parametrize(
    ("count", "expected"), [(2, [5, 9]), (3, [5, 7, 9]), (4, [5, 6, 8, 9]), (9, [5, 6, 7, 8, 9])]
)
def test_discs_are_chosen_from_the_smallest_to_the_largest(count: int, expected: list[int]) -> None:
    cases = ["holes", *(f"radius_{radius}" for radius in (5, 6, 7, 8, 9))]
    found = inpainting._evenly(cases, count + 1)
    assert found == ["holes", *(f"radius_{radius}" for radius in expected)]
    assert inpainting._evenly(["holes"], 4) == ["holes"]


def test_discs_are_sorted_by_radius_and_own_holes_come_first() -> None:
    rows = pd.DataFrame({"case": ["radius_15", "radius_5", "holes", "radius_7.5"]})
    assert inpainting._cases(rows) == ["holes", "radius_5", "radius_7.5", "radius_15"]


class TestExamples:
    def test_the_first_patch_with_a_hole_is_shown_in_both_kinds(self, drawn: Path) -> None:
        rows = table(drawn, "examples.csv")
        assert (rows["realization"] == 9).all(), "number 5, the first, has no hole of its own"
        for _, of in rows.groupby("case"):
            assert set(of["map"]) == METHODS | {"truth", "with holes"}
        assert set(rows["case"]) == {"holes", "radius_10"}

    def test_its_error_is_that_of_the_maps_in_the_hole(self, drawn: Path) -> None:
        with h5py.File(drawn / "inpainted" / "radius_10.h5") as file:
            hole = file["seen/seen"][1] < 0.5
            off = (file["estimates/diffusive/t_obs"][1] - file["truth/t_obs"][1])[hole]
        rows = table(drawn, "examples.csv").query("case == 'radius_10'").set_index("map")
        found = rows["error_rms_hole"]
        assert found["diffusive"] == pytest.approx(np.sqrt(np.mean(off**2)), rel=1e-5)
        assert found["truth"] == 0
        assert np.isnan(found["with holes"])

    def test_all_maps_of_a_patch_share_the_scale_of_the_truth(self, drawn: Path) -> None:
        rows = table(drawn, "examples.csv")
        with h5py.File(drawn / "inpainted" / "holes.h5") as file:
            limit = np.percentile(np.abs(file["truth/t_obs"][1]), 99.5)
        assert rows["colour_scale"].to_numpy() == pytest.approx(np.full(14, limit), rel=1e-5)

    def test_a_patch_that_the_other_file_lacks_is_named(self, own: Path) -> None:
        with h5py.File(own / "inpainted" / "radius_10.h5", "r+") as file:
            file["realizations"][:] = [5, 6, 17]
        with pytest.raises(UserError, match=r"radius_10\.h5: expected patch 9"):
            draw_inpainting(own, own / "figures")

    def test_a_file_without_holes_is_named(self, own: Path) -> None:
        with h5py.File(own / "inpainted" / "holes.h5", "r+") as file:
            del file["seen/seen"]
        with pytest.raises(UserError, match=r"holes\.h5: expected maps seen/seen"):
            draw_inpainting(own, own / "figures")


def test_two_fields_without_discs_are_drawn(tmp_path: Path) -> None:
    fields = ("q_obs", "u_obs")
    run = inputs.write_inpainting(tmp_path / "run", pixels=16, radii=(), fields=fields)
    metrics = read_table(run / "metrics.csv").dropna(subset=["case"])
    shown = [inpainting.one_patch(run / "inpainted" / "holes.h5", "holes")]
    tables = {
        "examples": inpainting.examples(shown, tmp_path / "examples.png"),
        "errors": inpainting.errors(metrics, tmp_path / "errors.svg"),
        "spectra": inpainting.spectra(metrics, tmp_path / "spectra.svg"),
        "values": inpainting.values(read_table(run / "values.csv"), tmp_path / "values.svg"),
    }
    for name, rows in tables.items():
        assert set(rows["field"]) == set(fields), name
        assert set(rows["case"]) == {"holes"}, name
    assert set(tables["spectra"]["statistic"]) == {"power_ratio"}
    svg = labels(tmp_path / "spectra.svg")
    assert "NaMaster" not in svg, "patches have different holes"


def test_same_inputs_give_same_bytes(drawn: Path, tmp_path: Path) -> None:
    metrics = read_table(drawn / "metrics.csv").dropna(subset=["case"])
    inpainting.errors(metrics, tmp_path / "errors.svg")
    inpainting.values(read_table(drawn / "values.csv"), tmp_path / "values.svg")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (drawn / "figures" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    "name",
    [
        "metrics.csv",
        "values.csv",
        "history.csv",
        "sweep.csv",
        "inpainted/holes.h5",
        "inpainted/radius_10.h5",
    ],
)
@pytest.mark.parametrize("content", [None, b"not what it should be\n"])
def test_a_missing_or_broken_input_is_named(own: Path, name: str, content: bytes | None) -> None:
    (own / name).unlink()
    if content is not None:
        (own / name).write_bytes(content)
    with pytest.raises(UserError, match=Path(name).name) as caught:
        draw_inpainting(own, own / "figures")
    assert "\n" not in str(caught.value)
    assert not (own / "figures" / "figures.json").exists()


@pytest.mark.parametrize(
    ("name", "statistic"),
    [
        ("metrics.csv", "error_rms_hole"),
        ("metrics.csv", "power_ratio"),
        ("values.csv", "edge_correlation"),
    ],
)
def test_a_statistic_that_is_missing_is_named(own: Path, name: str, statistic: str) -> None:
    rows = read_table(own / name)
    write_table(own / name, rows[rows["statistic"] != statistic])
    with pytest.raises(UserError, match=rf"{name}: expected rows .*'{statistic}'"):
        draw_inpainting(own, own / "figures")


def test_scores_have_a_row_a_kind_of_holes(drawn: Path) -> None:
    rows = filled_scores("pconv", drawn)
    assert [row["case"] for row in rows[:2]] == ["as trained", "disc, radius 2 pixels"]
    assert len(rows) == 6
    last = rows[-1]
    assert last["field"] == "observed T"
    assert last["anchor"] == "inpainting-pconv"
    assert last["area"] == "30.7 %"
    assert last["network"] == "0.5200 ± 0.0104"
    assert last["constrained"] == "0.5000 ± 0.0100"
    assert last["diffusive"] == "0.6000 ± 0.0120"
    assert last["ratio"] == "1.0400 ± 0.0208"
    assert last["patches"] == "3"


def test_the_tables_of_the_task_are_drawn(tmp_path: Path) -> None:
    """Maps to metrics and profiles to figures and scores, with nothing made up between."""
    rng = np.random.default_rng(4)
    files = {}
    for case in ("holes", "radius_4"):
        path = tmp_path / f"{case}.h5"
        truth = 80 * inputs.random_maps(rng, 8, 32)
        hole = inputs._holes(case, 32)[1]
        seen = np.broadcast_to(~hole, truth.shape)
        groups = {"seen": {"seen": seen}, "truth": {"t_obs": truth}}
        names = {"network": "prediction", "raw": "raw"}
        for method in (*METHODS, "raw"):
            other = np.where(hole, 0.6 * truth + 20 * inputs.random_maps(rng, 8, 32), truth)
            groups[names.get(method, f"estimates/{method}")] = {"t_obs": other}
        write_predictions(
            path,
            groups,
            realizations=np.arange(8),
            units={"seen": "", "t_obs": "uK_CMB"},
            size_deg=5.0,
            taper_deg=0.0,
        )
        files[case] = path
    run = InpaintingRun(task="inpainting", dataset="cmb")
    metrics, profiles, _ = evaluate_run(files, run, name="pconv")
    write_table(tmp_path / "metrics.csv", metrics)
    bands = metrics.query("method == 'network' and case == 'holes' and statistic == 'power_ratio'")
    assert len(inpainting.errors(metrics, tmp_path / "errors.svg")) == 2 * (3 + 1)
    spectra = inpainting.spectra(metrics, tmp_path / "spectra.svg")
    assert len(spectra) == 2 * (len(METHODS) + 1) * len(bands)
    values = inpainting.values(profiles, tmp_path / "values.svg")
    assert len(values) == 2 * (len(METHODS) + 1) * (50 + 4)
    scores = filled_scores("pconv", tmp_path)
    assert [row["case"] for row in scores] == ["as trained", "disc, radius 4 pixels"]
    assert all("±" in row[key] for row in scores for key in ("network", "constrained", "ratio"))
