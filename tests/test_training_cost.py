"""What training buys: which runs are compared, the curves, and their place in report and plan."""

import re

import pandas as pd
import pytest
import yaml

import report_inputs as inputs
from forked_snakemake import snakemake
from skyweave.config import parse
from skyweave.errors import UserError
from skyweave.report import read
from skyweave.report.page import build_report
from skyweave.report.training_cost import COLUMNS, FILES, curves, draw_training_cost
from skyweave.statistics.tables import read_table, write_table
from skyweave.tasks.training_cost import comparable

ELL = (100.0, 1500.0)


def study(**runs):
    """Settings of a study of two datasets, its runs selected as given."""
    cmb = {"kind": "cmb", "realizations": 100}
    return {
        "datasets": {"one": cmb, "two": cmb},
        "runs": {
            name: {"dataset": dataset, "training": {"select": select}}
            for name, (dataset, select) in runs.items()
        },
    }


BY_R = {"by": "correlation", "fields": ["kappa"]}


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        ({"b": ("one", BY_R), "a": ("one", BY_R)}, {"one": ("a", "b")}),
        ({"a": ("one", BY_R), "b": ("two", BY_R)}, {}),
        ({"a": ("one", BY_R), "b": ("one", {"by": "loss"})}, {}),
        ({"a": ("one", BY_R), "b": ("one", {"by": "pixel_correlation"})}, {}),
        ({"a": ("one", BY_R), "b": ("one", BY_R | {"ell": [36, 900]})}, {}),
        ({"a": ("one", BY_R), "b": ("one", {"by": "correlation"})}, {}),
        (
            {
                "a": ("two", {"by": "pixel_correlation"}),
                "b": ("two", {"by": "pixel_correlation", "fields": ["kappa", "tau", "e_prim"]}),
                "c": ("two", BY_R),
            },
            {"two": ("a", "b")},
        ),
    ],
)
def test_runs_that_the_same_correlation_compares(runs, found):
    assert comparable(parse(study(**runs))) == found


def timed(folder, seconds):
    """A run whose epochs took so many seconds each."""
    inputs.write_run(folder)
    history = read_table(folder / "history.csv")
    write_table(folder / "history.csv", history.assign(seconds=seconds))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {"fast": timed(folder / "fast", 30.0), "slow": timed(folder / "slow", 90.0)}


def test_time_adds_up_and_estimates_have_their_mean(runs):
    found, statistic = curves(runs, ELL)
    assert statistic == "correlation"
    assert tuple(found.columns) == COLUMNS
    network = found[found.method == "network"]
    last = network[network.epoch == 20].set_index("run").minutes
    assert last.to_dict() == {"fast": 10.0, "slow": 30.0}
    assert set(network.field) == {"kappa"}, "no curve of the mean of fields"
    assert network[network.picked == 1].epoch.tolist() == [9, 9]
    (row,) = found[found.method != "network"].to_dict("records")
    assert (row["method"], row["field"]) == ("quadratic", "kappa")
    metrics = read_table(runs["fast"] / "metrics.csv")
    rows = metrics[(metrics.method == "quadratic") & (metrics.statistic == "correlation")]
    kept = rows[(rows.ell >= ELL[0]) & (rows.ell <= ELL[1])]
    assert 0 < len(kept) < len(rows)
    assert row["value"] == pytest.approx(kept.value.mean())


def test_figure_and_table(runs, tmp_path):
    draw_training_cost(runs, tmp_path, ell=ELL)
    (figure,) = read.figures(tmp_path / "figures.json")
    assert figure["file"] == FILES[0]
    assert "ell 100 to 1500" in figure["caption"]
    svg = (tmp_path / FILES[0]).read_bytes()
    draw_training_cost(runs, tmp_path, ell=ELL)
    assert (tmp_path / FILES[0]).read_bytes() == svg
    table = pd.read_csv(tmp_path / "training_cost.csv")
    assert len(table) == 41


def test_runs_compared_by_another_statistic_are_refused(runs, tmp_path):
    other = timed(tmp_path / "other", 1.0)
    sweep = read_table(other / "sweep.csv")
    write_table(other / "sweep.csv", sweep.assign(statistic="transfer"))
    with pytest.raises(UserError, match=r"other.*sweep\.csv: expected one of correlation"):
        curves(runs | {"other": other}, ELL)
    without = inputs.write_run(tmp_path / "without")
    with pytest.raises(UserError, match="seconds"):
        curves({"without": without}, ELL)


def test_the_report_has_a_section_of_it_without_checks(runs, tmp_path):
    # Any figures will do for the runs themselves.
    for folder in (*runs.values(), tmp_path / "cost"):
        draw_training_cost(runs, folder / "figures", ell=ELL)
    given = {"study": {"datasets": {}}, "runs": list(runs.items()), "sky": [], "cmb": []}
    given["versions"] = {"skyweave": "0"}
    page = tmp_path / "index.html"
    build_report(page, **given)
    assert '<section id="training_cost">' not in page.read_text()
    build_report(page, **given, training_cost=[("noiseless", tmp_path / "cost")])
    html = page.read_text()
    assert '<section id="training_cost">' in html
    assert "Runs on noiseless" in html
    assert html.index('id="run"') < html.index('id="training_cost"')


@pytest.mark.parametrize("second", [BY_R, {"by": "loss"}])
def test_the_figure_is_planned_where_runs_are_compared(second, tmp_path):
    values = study(first=("one", BY_R), second=("one", second))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
    done = snakemake(tmp_path, "--configfile", "study.yaml", "--dry-run", "report")
    assert done.returncode == 0, done.stdout + done.stderr
    planned = re.search(r"^draw_training_cost +1$", done.stdout, re.MULTILINE)
    assert bool(planned) == (second == BY_R)
    assert re.search(r"^expect +1$", done.stdout, re.MULTILINE), "of the dataset that is read"
