"""A network on other datasets and on null maps: statistics, settings, rules and report."""

import copy
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.testing import assert_allclose

import report_inputs as inputs
from skyweave.config import CmbDataset, parse
from skyweave.data.predictions import write_predictions
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.report.differences import difference
from skyweave.report.generalization import draw_generalization, elsewhere
from skyweave.report.page import build_report
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.generalization import band_means
from skyweave.statistics.reconstruction import field_metrics
from skyweave.statistics.tables import read_table, write_table
from skyweave.statistics.verdicts import verdict, write_verdicts
from skyweave.tasks.generalization import COLUMNS, generalize, prediction_means
from test_workflow import snakemake

GRID = PatchGrid(size_deg=5.0, pixels=32)
BINS = default_bins(GRID)


def filtered(rng: np.random.Generator, noise: float, filled: int, empty: int):
    """White truths, some zero, and the best linear filter of truth plus white noise."""
    truth = rng.standard_normal((filled + empty, 32, 32))
    truth[filled:] = 0
    data = truth + noise * rng.standard_normal(truth.shape)
    return data / (1 + noise**2), truth


def means(prediction, truth) -> pd.DataFrame:
    return band_means(prediction, truth, GRID, BINS).set_index("statistic")


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_means_of_the_best_linear_filter(noise):
    """r² = T = 1 / (1 + noise²), and 1 - r² of its power is left where the truth is zero."""
    found = means(*filtered(np.random.default_rng(5), noise, 150, 60))
    r_square = 1 / (1 + noise**2)
    wanted = {"mean_correlation": r_square**0.5, "mean_transfer": r_square}
    wanted["null_power"] = 1 - r_square
    for statistic, value in wanted.items():
        row = found.loc[statistic]
        assert abs(row.value - value) < 3.5 * row.error
        assert row.error < 0.05
    assert found.n.to_dict() == {"mean_correlation": 150, "mean_transfer": 150, "null_power": 60}


def test_errors_are_the_scatter():
    found = [means(*filtered(np.random.default_rng(seed), 1.0, 40, 25)) for seed in range(150)]
    for statistic in ("mean_correlation", "mean_transfer", "null_power"):
        values = np.array([table.loc[statistic, "value"] for table in found])
        errors = np.array([table.loc[statistic, "error"] for table in found])
        # Scatter of 150 values is known to 6 %, a jackknife of 25 is a little wide.
        assert_allclose(errors.mean(), values.std(ddof=1), rtol=0.2)


def test_perfect_prediction_and_what_is_left_out():
    _, truth = filtered(np.random.default_rng(5), 1.0, 6, 2)
    found = means(truth, truth)
    assert_allclose(found.value[["mean_correlation", "mean_transfer", "null_power"]], [1, 1, 0])
    assert set(means(truth[:6], truth[:6]).index) == {"mean_correlation", "mean_transfer"}
    assert band_means(truth[6:], truth[6:], GRID, BINS).empty
    assert np.isnan(means(truth[:1], truth[:1]).error).all()


def written(path: Path, noise: dict[str, float], seed: int = 5) -> Path:
    """Predictions of kappa and E by the network and by a quadratic estimator of kappa."""
    rng, filled, empty = np.random.default_rng(seed), 40, 10
    kappa, truth = filtered(rng, noise["network"], filled, empty)
    quadratic = (truth + noise["quadratic"] * rng.standard_normal(truth.shape)) / 2
    e, e_truth = filtered(rng, 0.1, filled + empty, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(
        path,
        {
            "truth": {"e_prim": e_truth, "kappa": truth},
            "prediction": {"e_prim": e, "kappa": kappa},
            "estimates/quadratic": {"kappa": quadratic},
        },
        realizations=np.arange(filled + empty),
        units={"kappa": "", "e_prim": "uK_CMB"},
        size_deg=5.0,
        taper_deg=0.0,
    )
    return path


def judged(folder: Path, noise: dict[str, float]) -> tuple[Path, pd.DataFrame]:
    """Metrics and means as the rules write them."""
    found = prediction_means(written(folder / "predictions.h5", noise))
    rng = np.random.default_rng(5)
    tables = [
        field_metrics(*filtered(rng, level, 40, 10), GRID, BINS, run="one", field=field, method=way)
        for field, way, level in (
            ("e_prim", "network", 0.1),
            ("kappa", "network", noise["network"]),
            ("kappa", "quadratic", noise["quadratic"]),
        )
    ]
    write_table(folder / "metrics.csv", pd.concat(tables))
    write_table(folder / "means.csv", found)
    return folder / "metrics.csv", read_table(folder / "means.csv")


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> tuple[Path, pd.DataFrame, list[dict]]:
    """A run's folder, its table and its verdicts on its own dataset and on a noisier one."""
    folder = tmp_path_factory.mktemp("run")
    own = judged(folder, {"network": 0.5, "quadratic": 1.0})
    other = judged(folder / "tests" / "noisy", {"network": 2.0, "quadratic": 4.0})
    table, verdicts = generalize(
        "one",
        "clean",
        {"clean": own[0], "noisy": other[0]},
        {"clean": own[1], "noisy": other[1]},
    )
    write_table(folder / "generalization.csv", table)
    (folder / "generalization").mkdir()
    write_verdicts(folder / "generalization" / "verdicts.json", verdicts)
    return folder, table, verdicts


def test_every_dataset_field_and_method_is_judged(scored):
    _, table, _ = scored
    assert tuple(table.columns) == COLUMNS
    kinds = table.groupby(["dataset", "field", "method"]).statistic.apply(set)
    usual = {"pixel_correlation", "mean_correlation", "mean_transfer"}
    for dataset in ("clean", "noisy"):
        assert kinds[dataset, "e_prim", "network"] == usual
        for method in ("network", "quadratic"):
            assert kinds[dataset, "kappa", method] == usual | {"null_power"}
    values = table.set_index(["dataset", "field", "method", "statistic"]).value
    for name, r in (("clean", 1.25**-0.5), ("noisy", 5**-0.5)):
        assert_allclose(values[name, "kappa", "network", "mean_correlation"], r, atol=0.03)


def test_an_empty_sky_must_look_emptier(scored):
    """On the run's own dataset, for kappa by the network, and for nothing else."""
    folder, _, verdicts = scored
    assert [one["check"].partition(":")[0] for one in verdicts] == ["kappa"]
    assert verdicts[0]["passed"]
    assert_allclose(verdicts[0]["value"], 0.2, atol=0.03)
    metrics, table = {"noisy": folder / "tests" / "noisy" / "metrics.csv"}, {}
    table["noisy"] = read_table(folder / "tests" / "noisy" / "means.csv")
    (bad,) = generalize("one", "noisy", metrics, table)[1]
    assert not bad["passed"]
    assert_allclose(bad["value"], 0.8, atol=0.06)


STUDY = {
    "datasets": {
        "clean": {"kind": "cmb", "realizations": 100},
        "noisy": {
            "kind": "cmb",
            "realizations": 100,
            "channels": {"obs": {"noise_uk_arcmin": 2, "foreground_dl_80": 0.01}},
        },
        "dust": {"kind": "sky"},
    },
    "runs": {"one": {"dataset": "clean", "tests": ["noisy"], "training": {"batch": 8}}},
}


def changed(**noisy) -> dict:
    study = copy.deepcopy(STUDY)
    study["datasets"]["noisy"] |= noisy
    return study


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (
            STUDY | {"runs": {"one": {"dataset": "clean", "tests": ["missing"]}}},
            "expected some of the other datasets (noisy), found 'missing'",
        ),
        (
            STUDY | {"runs": {"one": {"dataset": "clean", "tests": ["clean"]}}},
            "expected some of the other datasets (noisy), found 'clean'",
        ),
        (
            STUDY | {"runs": {"one": {"dataset": "clean", "tests": ["dust"]}}},
            "expected some of the other datasets (noisy), found 'dust'",
        ),
        (
            STUDY | {"runs": {"one": {"dataset": "clean", "tests": ["noisy", "noisy"]}}},
            "expected each entry once, found 'noisy' twice",
        ),
        (
            changed(grid={"pixels": 64}),
            "expected datasets with pixels 128 as the run's own, found 64 in 'noisy'",
        ),
        (
            changed(effects={"taper_deg": 1}),
            "expected datasets with taper_deg 1.5 as the run's own, found 1 in 'noisy'",
        ),
        (
            changed(fields=["q_obs", "u_obs", "e_prim", "kappa"]),
            "expected datasets with the field 'tau', found q_obs, u_obs, e_prim, kappa in 'noisy'",
        ),
    ],
)
def test_a_dataset_that_does_not_fit_is_named(study, message):
    with pytest.raises(UserError) as error:
        parse(study)
    assert str(error.value) == f"runs.one.tests: {message}"


def test_a_dataset_without_a_test_set_is_named():
    with pytest.raises(UserError) as error:
        parse(changed(split={"train": 1, "validation": 0, "test": 0}))
    assert str(error.value).startswith("datasets.noisy.split.test: expected at least one")


def dump(**settings) -> dict:
    return CmbDataset(kind="cmb", **settings).model_dump(mode="json")


PAPER = {"cosmology": "resunet_cmb_2013"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"realizations": 50, "shard_size": 10}, "nothing: other realizations"),
        ({"channels": {"obs": {"noise_uk_arcmin": 2}}}, "noise 2 µK-arcmin"),
        ({"channels": {"obs": {"beam_arcmin": 1.4}}}, "beam 1.4′"),
        (
            {"channels": {"obs": {"foreground_dl_80": 0.01}}},
            "foregrounds of 0.01 µK² at ell 80",
        ),
        ({"grid": {"margin_deg": 2.5}}, "cut out of an area 2.5° wider on each side"),
        ({"grid": {"sky": "curved"}, "shard_size": 192}, "curved sky"),
        ({"effects": {"lensing": False}, "fields": ["q_obs"]}, "lensing False"),
        ({"spectra": {"cosmology": "planck2018"}}, "cosmology planck2018"),
        ({"spectra": PAPER | {"vary": {"Alens": [0.8]}}}, "Alens 0.8"),
        (
            {"spectra": PAPER | {"vary": {"ns": [0.9, 1], "r": {"low": 0, "high": 1}}}},
            "ns varied, r varied",
        ),
        ({"channels": {"f143": {}}, "fields": ["q_f143"]}, "channels f143"),
    ],
)
def test_differences_of_settings_in_words(settings, words):
    assert difference(dump(spectra=PAPER), dump(**({"spectra": PAPER} | settings))) == words


def test_differences_of_parameters_and_back():
    """Parameters are compared with those that a name stands for."""
    own = {"H0": 67.94, "ombh2": 0.022199, "omch2": 0.11847, "omnuh2": 0.0006449}
    own |= {"tau": 0.0943, "ns": 0.9624, "As": 2.208061336e-9, "YHe": 0.24725, "Alens": 1.2}
    spectra = {"cosmology": own | {"halofit_version": "takahashi"}}
    assert difference(dump(spectra=PAPER), dump(spectra=spectra)) == "Alens 1.2"
    wide = dump(grid={"margin_deg": 2.5})
    assert difference(wide, dump()) == "periodic"
    varied = dump(spectra={"vary": {"ns": [0.9, 1]}})
    assert difference(varied, dump()) == "one cosmology"


def settings() -> dict:
    return parse(STUDY).model_dump(mode="json")


def test_table_of_the_report(scored):
    folder, table, _ = scored
    found = elsewhere([("one", folder), ("other", folder)], settings())
    first, second = found["rows"]
    assert (first["dataset"], first["differs"]) == ("clean", "its own")
    assert second["differs"] == "noise 2 µK-arcmin, foregrounds of 0.01 µK² at ell 80"
    values = table[table.statistic == "pixel_correlation"].set_index(["dataset", "field", "method"])
    row = values.loc[("noisy", "kappa", "network")]
    assert second["kappa"] == f"{row.value:.3f} ± {row.error:.3f}"
    assert [label for _, label in found["columns"]][-1] == "convergence κ: power for null maps"
    assert all(set(row) >= {key for key, _ in found["columns"]} for row in found["rows"])
    untested = settings()
    untested["runs"]["one"]["tests"] = []
    assert elsewhere([("one", folder)], untested)["rows"] == []


def test_figure_and_page(scored, tmp_path, tmp_path_factory):
    """The figure holds every curve, own dataset first, and the page holds figure and table."""
    folder, _, verdicts = scored
    run = tmp_path / "run"
    shutil.copytree(inputs.drawn(tmp_path_factory, "run")["run"], run)
    tests = {"clean": folder / "metrics.csv", "noisy": folder / "tests" / "noisy" / "metrics.csv"}
    draw_generalization(tests, run / "generalization" / "figures")
    rows = read_table(run / "generalization" / "figures" / "generalization.csv")
    assert list(rows.dataset.unique()) == ["clean", "noisy"]
    assert set(rows.method) == {"network"}
    assert len(rows) == 2 * 2 * BINS.count
    draw_generalization(tests, tmp_path / "again")
    for name in ("generalization.svg", "figures.json"):
        first = run / "generalization" / "figures" / name
        assert first.read_bytes() == (tmp_path / "again" / name).read_bytes()
    write_table(run / "generalization.csv", read_table(folder / "generalization.csv"))
    failed = [*verdicts, verdict("kappa: something else", 1, 0, "<")]
    write_verdicts(run / "generalization" / "verdicts.json", failed)
    build_report(
        tmp_path / "index.html",
        study=settings(),
        runs=[("one", run)],
        sky=[],
        cmb=[],
        versions={"skyweave": "0"},
    )
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Tested elsewhere" in page
    assert "noise 2 µK-arcmin, foregrounds of 0.01 µK² at ell 80" in page
    assert "kappa: power predicted for null maps" in page
    assert "kappa: something else" in page
    assert 'id="run-one-generalization"' in page


def planned(done) -> dict[str, int]:
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.partition("Job stats:")[2].partition("total")[0]
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def test_rules_of_a_run_that_is_tested_elsewhere(tmp_path):
    """Two rules a test and one figure; without tests null maps alone are judged."""
    study = copy.deepcopy(STUDY)
    del study["datasets"]["dust"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    dry = ("reconstruction", "--dry-run", "--configfile", "study.yaml")
    jobs = planned(snakemake(*dry, folder=tmp_path))
    counted = {name: jobs.get(name, 0) for name in ("train", "predict", "prepare", "simulate")}
    assert counted == {"train": 1, "predict": 1, "prepare": 2, "simulate": 2}
    for name in ("predict_elsewhere", "evaluate_elsewhere", "generalize", "draw_generalization"):
        assert jobs[name] == 1
    study["runs"]["one"]["tests"] = []
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    jobs = planned(snakemake(*dry, folder=tmp_path))
    assert jobs["generalize"] == 1
    assert jobs["prepare"] == 1
    assert not {"predict_elsewhere", "evaluate_elsewhere", "draw_generalization"} & set(jobs)
