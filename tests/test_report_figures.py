"""Figures of the report: what is drawn, from what, and what happens when an input is wrong."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import h5py
import healpy
import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import report_inputs as inputs
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.report import cmb, losses, mollweide, read, reconstruction, sky, style
from skyweave.report.debiased import spectrum
from skyweave.report.examples import examples
from skyweave.report.figures import draw_reconstruction, draw_sky
from skyweave.statistics.debiased import debiased_metrics
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.minkowski import THRESHOLDS, functionals, minkowski_table, scaled
from skyweave.statistics.reconstruction import field_metrics
from skyweave.statistics.tables import read_table, write_table

RUN = {"run": "run", "field": "kappa", "method": "network"}
KINDS = {
    "run": (inputs.write_run, draw_reconstruction, reconstruction.FILES),
    "sky": (inputs.write_sky, draw_sky, sky.FILES),
    "cmb": (inputs.write_cmb, inputs.draw_cmb, cmb.FILES),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind with its figures."""
    return inputs.drawn(tmp_path_factory)


@pytest.mark.parametrize("kind", KINDS)
def test_each_figure_has_its_file_words_and_table(drawn: dict[str, Path], kind: str) -> None:
    folder = drawn[kind] / "figures"
    found = read.figures(folder / "figures.json")
    assert tuple(entry["file"] for entry in found) == KINDS[kind][2]
    for entry in found:
        assert all(len(entry[key]) > 20 for key in ("caption", "alt")), entry["file"]
        assert len(read_table(folder / entry["table"])) > 0
        image = folder / entry["file"]
        if image.suffix == ".svg":
            assert ET.parse(image).getroot().tag.endswith("svg")
        else:
            assert imread(image)[..., :3].std() > 0.05
    tables = {entry["table"] for entry in found}
    assert {path.name for path in folder.iterdir()} == {"figures.json", *KINDS[kind][2], *tables}


def test_tables_hold_what_was_measured(drawn: dict[str, Path]) -> None:
    metrics = read_table(drawn["run"] / "metrics.csv")
    for statistic in ("correlation", "transfer"):
        table = read_table(drawn["run"] / "figures" / f"{statistic}.csv")
        wanted = metrics[metrics["statistic"] == statistic].reset_index(drop=True)
        pd.testing.assert_frame_equal(table, wanted)
    minkowski = read_table(drawn["sky"] / "minkowski.csv")
    table = read_table(drawn["sky"] / "figures" / "minkowski.csv")
    pd.testing.assert_frame_equal(table, minkowski)


def test_truth_and_prediction_share_a_scale_and_a_null_patch_is_passed_over(
    drawn: dict[str, Path],
) -> None:
    table = read_table(drawn["run"] / "figures" / "examples.csv")
    assert (table["realization"] == 12).all()  # number 7, the first, is a null one
    scales = table[table["map"] != "input"].groupby("field")["colour_scale"].nunique()
    assert (scales == 1).all()
    made = {"estimates/analytic_eb", "estimates/quadratic"}
    assert set(table["map"]) == {"input", "truth", "prediction", "residual"} | made
    with h5py.File(drawn["run"] / "predictions.h5") as file:
        difference = file["prediction/tau"][1] - file["truth/tau"][1]
    spread = table.query("field == 'tau' and map == 'residual'")["standard_deviation"].item()
    assert spread == pytest.approx(difference.std(), rel=1e-5)


def test_all_null_patches_are_still_drawn(tmp_path: Path) -> None:
    run = inputs.write_run(tmp_path, pixels=16)
    with h5py.File(run / "predictions.h5", "a") as file:
        for maps in file["truth"].values():
            maps[:] = 0
    assert read.example(run / "predictions.h5").realization == 7


def test_same_inputs_give_same_bytes(drawn: dict[str, Path], tmp_path: Path) -> None:
    run = drawn["run"]
    metrics = read_table(run / "metrics.csv")
    shown = read.example(run / "predictions.h5", list(metrics["field"].unique()))
    examples(shown, tmp_path / "examples.png")
    reconstruction.correlation(metrics, tmp_path / "correlation.svg")
    inputs.draw_cmb(drawn["cmb"], tmp_path / "cmb")
    for path, folder in (
        (tmp_path / "examples.png", run),
        (tmp_path / "correlation.svg", run),
        *((path, drawn["cmb"]) for path in (tmp_path / "cmb").iterdir()),
    ):
        assert path.read_bytes() == (folder / "figures" / path.name).read_bytes(), path.name


def test_drawing_heeds_and_leaves_no_settings(tmp_path: Path, drawn: dict[str, Path]) -> None:
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30}):
        before = dict(matplotlib.rcParams)
        inputs.draw_cmb(drawn["cmb"], tmp_path)
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "spectra.svg").read_bytes() == (
        drawn["cmb"] / "figures" / "spectra.svg"
    ).read_bytes()


def test_one_field_without_baseline_and_a_failed_network_are_drawn(tmp_path: Path) -> None:
    run = inputs.write_run(tmp_path / "run", {"kappa": 0.5}, pixels=16)
    with h5py.File(run / "predictions.h5", "a") as file:
        file["prediction/kappa"][:] = 0
        del file["input"]
    metrics = read_table(run / "metrics.csv")
    # What a constant prediction gives: no power, no correlation, no errors.
    metrics["error"] = np.nan
    metrics.loc[metrics["statistic"] == "correlation", "value"] = np.nan
    metrics.loc[metrics["statistic"].str.startswith(("transfer", "power")), "value"] = 0.0
    metrics.loc[metrics["statistic"].str.startswith("spectrum"), "value"] = np.nan
    write_table(run / "metrics.csv", metrics)
    write_table(run / "history.csv", read_table(run / "history.csv").head(1))
    write_table(run / "sweep.csv", read_table(run / "sweep.csv").head(1).assign(picked=1))
    draw_reconstruction(run, tmp_path / "figures")
    assert len(read.figures(tmp_path / "figures" / "figures.json")) == len(reconstruction.FILES)


def test_many_fields_and_unknown_methods_get_panels_and_styles(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        [
            (field, method, "correlation", ell, 0.5, 0.1)
            for field in ("tau", "e_prim", "kappa", "b_prim")
            for method in ("network", "wiener", "quadratic", "theory_quadratic", "made_up")
            for ell in (100.0, 1000.0)
        ],
        columns=["field", "method", "statistic", "ell", "value", "error"],
    )
    reconstruction.correlation(rows, tmp_path / "correlation.svg")
    methods = list(rows["method"].unique())
    looks = {style.method_style(method, methods) for method in methods}
    assert len(looks) == 5
    marked = [look for look in looks if look[2]]
    assert len(marked) == 4, "a prediction of theory is a line"
    assert len({look[2] for look in marked}) == 4


def test_the_tables_of_the_statistics_room_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    grid = PatchGrid(5.0, 32)
    truth = inputs.random_maps(rng, 6, grid.pixels)
    truth[:2] = 0
    metrics = field_metrics(
        0.6 * truth + 0.1 * inputs.random_maps(rng, 6, grid.pixels),
        truth,
        grid,
        default_bins(grid),
        **RUN,
    )
    rows = reconstruction.residual(metrics, {"kappa": ""}, tmp_path / "residual.svg")
    assert set(rows["statistic"]) == set(reconstruction.POWERS)
    other = 0.6 * truth + 0.1 * inputs.random_maps(rng, 6, grid.pixels)
    debiased = debiased_metrics((other, truth), (truth, truth), grid, default_bins(grid), **RUN)
    drawn = spectrum(pd.concat([metrics, debiased]), {"kappa": ""}, tmp_path / "spectrum.svg")
    assert {"spectrum_estimate", "spectrum_bias", "power_truth"} == set(drawn["statistic"])
    curves = functionals(scaled(truth[2:]))
    table = minkowski_table(curves, THRESHOLDS, dataset="d", split="all", field="high")
    pd.testing.assert_frame_equal(sky.minkowski(table, tmp_path / "minkowski.svg"), table)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *[("run", name) for name in ("metrics.csv", "history.csv", "sweep.csv", "predictions.h5")],
        ("run", "calibration.csv"),
        *[("sky", name) for name in ("map.fits", "mask.fits", "patches.h5", "places.csv")],
        *[("sky", name) for name in ("mask_steps.csv", "spectra.csv", "minkowski.csv")],
        ("cmb", "spectra.csv"),
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"not what it should be\n"])
def test_a_missing_or_broken_input_is_named(
    drawn: dict[str, Path], tmp_path: Path, kind: str, name: str, content: bytes | None
) -> None:
    folder = tmp_path / kind
    shutil.copytree(drawn[kind], folder, ignore=shutil.ignore_patterns("figures"))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        KINDS[kind][1](folder, tmp_path / "figures")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "figures" / "figures.json").exists()


def test_curves_that_could_not_be_made_are_left_out(tmp_path: Path) -> None:
    run = inputs.write_run(tmp_path, pixels=16)
    curves = read_table(run / "calibration.csv")
    write_table(run / "calibration.csv", curves.head(0))
    draw_reconstruction(run, tmp_path / "figures")
    table = read_table(tmp_path / "figures" / "calibration.csv")
    assert set(table["statistic"]) == {"coverage_68", "coverage_95"}


def test_a_statistic_that_is_missing_is_named(tmp_path: Path) -> None:
    run = inputs.write_run(tmp_path, pixels=16)
    metrics = read_table(run / "metrics.csv")
    write_table(run / "metrics.csv", metrics[metrics["statistic"] != "transfer"])
    with pytest.raises(UserError, match=r"metrics\.csv: expected rows .*'transfer'"):
        draw_reconstruction(run, tmp_path / "figures")


def test_the_picked_epoch_is_ringed_and_told(drawn: dict[str, Path], tmp_path: Path) -> None:
    """Not the one of the least validation loss; none that the history does not have."""
    run = tmp_path / "run"
    shutil.copytree(drawn["run"], run)
    (entry,) = [e for e in read.figures(run / "figures/figures.json") if e["file"] == "loss.svg"]
    assert "correlation with the truths of the validation set is the largest" in entry["caption"]
    history, sweep = (read_table(run / name) for name in ("history.csv", "sweep.csv"))
    assert history["epoch"][history["val_loss"].argmin()] != 9
    losses.loss(history, 9, tmp_path / "loss.svg")
    assert (tmp_path / "loss.svg").read_bytes() == (run / "figures/loss.svg").read_bytes()
    losses.loss(history, 10, tmp_path / "loss.svg")
    assert (tmp_path / "loss.svg").read_bytes() != (run / "figures/loss.svg").read_bytes()
    write_table(run / "sweep.csv", sweep.assign(epoch=sweep["epoch"] + 20))
    with pytest.raises(UserError, match=r"sweep\.csv: expected an epoch of the history"):
        draw_reconstruction(run, tmp_path / "figures")


def test_figures_json_must_name_files_that_are_there(
    drawn: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "figures"
    shutil.copytree(drawn["cmb"] / "figures", folder)
    (folder / "spectra.csv").unlink()
    with pytest.raises(UserError, match=r"spectra\.csv"):
        read.figures(folder / "figures.json")
    entries = json.loads((folder / "figures.json").read_text())
    del entries[0]["alt"]
    (folder / "figures.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match="no 'alt'"):
        read.figures(folder / "figures.json")


def test_mollweide_goes_there_and_back() -> None:
    rng = np.random.default_rng(5)
    lon = rng.uniform(-179.9, 179.9, 500)
    lat = np.degrees(np.arcsin(rng.uniform(-0.9999, 0.9999, 500)))
    back = mollweide.unproject(*mollweide.project(lon, lat))
    np.testing.assert_allclose(back, (lon, lat), atol=1e-6)
    x, y = mollweide.project(np.array([10.0, 0, 0, 0]), np.array([0.0, 90, -90, 40]))
    assert x[0] < 0, "longitude grows to the left"
    np.testing.assert_allclose(y[1:3], [mollweide.HEIGHT, -mollweide.HEIGHT], rtol=1e-6)
    assert y[3] > 0


def test_mollweide_is_equal_area_and_reads_the_right_pixels() -> None:
    nside = 64
    lon, lat = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)
    plane = mollweide.sample(np.where(lat > 30, 1.0, 0.0), 600)
    assert np.nanmean(plane) == pytest.approx(np.mean(lat > 30), abs=1e-3)
    assert np.isfinite(plane).mean() == pytest.approx(np.pi / 4, abs=2e-3)
    east = mollweide.sample(((lon > 20) & (lon < 160)).astype(float), 600)
    assert np.nanmean(east[:, :300]) > 0.7
    assert np.nanmean(east[:, 300:]) == 0


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("nside", [16, 128])
def test_pixels_without_data_are_left_empty(dtype: str, nside: int) -> None:
    """Whatever the map's precision, whether finer than the plane or not."""
    values = np.ones(12 * nside**2, dtype)
    few = values.size // 30
    values[:few], values[few : 2 * few] = np.nan, healpy.UNSEEN
    plane = mollweide.sample(values, 200)
    assert set(np.unique(plane[np.isfinite(plane)])) == {1.0}
    # A quarter of a ring's pixels more or fewer fall on the plane's.
    share = 1 - np.isfinite(plane).mean() / (np.pi / 4)
    assert share == pytest.approx(2 * few / values.size, rel=0.1)


def test_dl_and_scales() -> None:
    assert style.dl(np.array([2.0]), np.array([np.pi]))[0] == pytest.approx(3)
    assert style.symmetric_limit(np.zeros((3, 3))) == 1
    assert style.symmetric_limit(np.array([np.nan, -2.0, 1.0])) == pytest.approx(2, rel=0.01)
