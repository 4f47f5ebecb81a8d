"""Scans over settings, and what makes each run again."""

import copy
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from forked_snakemake import as_typed
from skyweave.config import parse
from skyweave.config.docs import commented
from skyweave.config.scans import setting, with_settings
from skyweave.errors import UserError
from skyweave.statistics.tables import read_table, write_table
from skyweave.statistics.verdicts import verdict, write_verdicts
from skyweave.tasks.reproduce import command, needed, record, restricted
from skyweave.tasks.scans import tabulate

ROOT = Path(__file__).parent.parent

DATASET = {
    "kind": "cmb",
    "spectra": {"lmax": 1000},
    "grid": {"size_deg": 20, "pixels": 32},
    "effects": {"taper_deg": 3},
    "channels": {"obs": {"beam_arcmin": 60, "noise_uk_arcmin": 1}},
    "fields": ["q_obs", "u_obs", "e_obs", "e_prim", "kappa"],
    "estimates": {"enabled": False},
    "realizations": 20,
    "shard_size": 20,
}
RUN = {
    "dataset": "cmb",
    "targets": ["e_prim", "kappa"],
    "network": {"width": 0.05},
    "training": {"epochs": 1, "batch": 4},
}
TAKEN_APART = RUN | {"task": "decomposition"}


def study(**sections) -> dict:
    """Settings of two datasets, `cmb` and `other`, and a run `base`."""
    datasets = {"cmb": DATASET, "other": DATASET}
    return copy.deepcopy({"datasets": datasets, "runs": {"base": RUN}} | sections)


def scanned(settings: object, **more) -> dict:
    """The same with a scan `s` of the run."""
    return study(scans={"s": {"run": "base", "settings": settings} | more})


# Scans


def test_each_combination_is_a_run():
    found = parse(scanned({"training.learning_rate": [0.1, 0.2], "network.width": [1, 2, 3]}))
    assert list(found.runs) == ["base", *(f"s_{number}" for number in range(1, 7))]
    assert found.runs["base"] == parse(study()).runs["base"]
    values = [
        (run.network.width, run.training.learning_rate)
        for name, run in found.runs.items()
        if name != "base"
    ]
    # In the order of the settings' names, however they are written.
    assert values == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2), (3, 0.1), (3, 0.2)]
    assert found.members("s")["s_4"] == {"network.width": 2, "training.learning_rate": 0.2}
    assert found.runs["s_4"].training.epochs == 1


def test_settings_change_together_or_each_with_each():
    settings = {"network.width": [1, 2], "training.epochs": [3, 4]}
    widths = [list(one.values()) for one in parse(scanned(settings)).members("s").values()]
    assert widths == [[1, 3], [1, 4], [2, 3], [2, 4]]
    together = parse(scanned(settings, combine="zip")).members("s")
    assert [list(one.values()) for one in together.values()] == [[1, 3], [2, 4]]


def test_a_value_may_be_a_list_a_section_or_nothing():
    settings = {
        "inputs": [["q_obs", "u_obs"], ["e_obs"]],
        "network": [{"width": 2}],
        "training.stop_patience": [None],
    }
    found = parse(scanned(settings))
    assert found.runs["s_1"].inputs == ("q_obs", "u_obs")
    assert found.runs["s_2"].inputs == ("e_obs",)
    assert found.runs["s_2"].network.dropout == 0.3
    assert found.members("s")["s_2"]["training.stop_patience"] is None


def test_settings_are_named_by_dots():
    section = {"a": {"b": 1, "c": 2}, "d": None}
    changed = with_settings(section, {"a.b": 3, "d.e.f": 4}, "here")
    assert changed == {"a": {"b": 3, "c": 2}, "d": {"e": {"f": 4}}}
    assert section == {"a": {"b": 1, "c": 2}, "d": None}
    assert (setting(changed, "a.b"), setting(changed, "d.e.f")) == (3, 4)


def test_read_settings_mean_the_same():
    """They hold the scan and its runs, and say no more than what was written."""
    found = parse(scanned({"training.learning_rate": ["1e-3"], "network.width": [0.1, 2]}))
    assert found.members("s")["s_1"]["training.learning_rate"] == 1e-3
    plain = found.model_dump(mode="json")
    assert set(plain["runs"]) == {"base", "s_1", "s_2"}
    assert parse(plain) == found
    assert parse(plain).model_dump(mode="json") == plain
    assert parse(yaml.safe_load(yaml.safe_dump(plain))) == found


def test_the_commented_file_leaves_the_runs_to_the_scan():
    found = parse(scanned({"network.width": [0.1, 2]}))
    text = commented(found)
    assert "s_1:" not in text
    assert parse(yaml.safe_load(text)) == found


def test_every_task_is_scanned():
    runs = {"base": RUN, "plain": TAKEN_APART | {"method": "plain"}, "apart": TAKEN_APART}
    settings = {"adversarial.fidelity": [10, 100], "beside": [["plain"], []]}
    found = parse(study(runs=runs, scans={"s": {"run": "apart", "settings": settings}}))
    assert [found.runs[name].beside for name in ("s_3", "s_4")] == [("plain",), ()]
    assert found.runs["s_3"].adversarial.fidelity == 100


def test_fields_of_images_are_their_bands():
    sections = {
        "datasets": {"galaxies": {"kind": "sersic", "pixels": 32, "realizations": 200}},
        "runs": {
            "made": {"task": "generation", "dataset": "galaxies"},
            "clear": {"task": "denoising", "dataset": "galaxies", "generated": "made"},
        },
    }
    settings = {"alpha": [0, 0.5], "repeat": [1, 2]}
    scan = {"run": "clear", "settings": settings, "fields": ["image"]}
    found = parse(sections | {"scans": {"s": scan}})
    alike = [(found.runs[f"s_{n}"].alpha, found.runs[f"s_{n}"].repeat) for n in range(1, 5)]
    assert alike == [(0, 1), (0, 2), (0.5, 1), (0.5, 2)]
    with pytest.raises(UserError, match=r"targets of its runs \(image\), found 'kappa'"):
        parse(sections | {"scans": {"s": scan | {"fields": ["kappa"]}}})


@pytest.mark.parametrize(
    ("settings", "more", "where", "said"),
    [
        ({"network.widt": [1]}, {}, "settings.network.widt", "a known setting, found unknown key"),
        ({"nothing.at": [1]}, {}, "settings.nothing.at", "a known setting, found unknown key"),
        ({"dataset.kind": [1]}, {}, "settings.dataset.kind", "a known setting, found unknown key"),
        ({"network.width": [1, "x"]}, {}, "settings.network.width", "number"),
        ({"dataset": ["cmb", "cbm"]}, {}, "settings.dataset", "one of cmb, other, found 'cbm'"),
        ({"training.batch": [4, 90]}, {}, "settings.training.batch", "training set's 16, found 90"),
        ({"network.width": 3}, {}, "settings.network.width", "a list, such as"),
        ({"network.width": []}, {}, "settings.network.width", "at least 1 entry"),
        ({"inputs": [["e_obs"], ["e_obs"]]}, {}, "settings.inputs", "each entry once"),
        ({}, {}, "settings", "at least 1 entry"),
        ([1], {}, "settings", ""),
        ({"network.width": [1]}, {"run": "bas"}, "run", "one of base, found 'bas'"),
        ({"network.width": [1]}, {"run": None}, "run", "string"),
        ({"network.width": [1]}, {"combine": "all"}, "combine", "'grid' or 'zip'"),
        ({"network.width": [1]}, {"fields": ["tau"]}, "fields", "targets of its runs (e_prim, kap"),
        (
            {"network.width": [1, 2], "training.epochs": [1]},
            {"combine": "zip"},
            "settings",
            "lists of one length with `combine: zip`, found 2, 1",
        ),
        (
            {"network.width": [1, 2], "network": [{}]},
            {},
            "settings",
            "none inside of 'network', found 'network.width'",
        ),
    ],
)
def test_a_mistake_names_the_scan(settings, more, where, said):
    with pytest.raises(UserError) as caught:
        parse(scanned(settings, **more))
    assert caught.value.where == f"scans.s.{where}"
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [0.05, 1])
def test_a_run_may_not_have_a_members_name(width):
    """Not even one with the scan's value, which is another run otherwise."""
    values = scanned({"network.width": [0.05, 1]})
    values["runs"]["s_1"] = RUN | {"network": {"width": width, "dropout": 0.1}}
    with pytest.raises(UserError, match=r"^scans\.s: expected no run 's_1' beside its own"):
        parse(values)


def test_read_settings_with_another_scan_are_no_study():
    plain = parse(scanned({"network.width": [0.1, 2]})).model_dump(mode="json")
    plain["scans"]["s"]["settings"]["network.width"] = [0.1, 3]
    with pytest.raises(UserError, match=r"^scans\.s: expected no run 's_2' beside its own"):
        parse(plain)


def test_no_scans_may_be_left_empty():
    assert parse(study(scans=None)).scans == {}


# Its table


def write_run(folder: Path, correlation: dict, checks: list[bool], **statistics: dict) -> None:
    """Metrics and verdicts of a run; each statistic has values and errors by field."""
    folder.mkdir(parents=True)
    tables = [
        pd.DataFrame({"ell": [100.0, 200.0], "value": values, "error": errors}).assign(
            split="test", field=field, method="network", statistic=statistic
        )
        for statistic, fields in {"correlation": correlation, **statistics}.items()
        for field, (values, errors) in fields.items()
    ]
    wrong = pd.DataFrame({"ell": [100.0], "value": [9.0], "error": [9.0], "field": ["kappa"]})
    wrong = wrong.assign(statistic="correlation")
    others = [
        wrong.assign(split="test", method="wiener"),
        wrong.assign(split="validation", method="network"),
    ]
    write_table(folder / "metrics.csv", pd.concat([*tables, *others]).assign(run=folder.name, n=9))
    judged = [verdict("a check", float(passed), 1.0, ">=") for passed in checks]
    write_verdicts(folder / "verdicts.json", judged)


def table_of(folder: Path, members: dict, **options) -> pd.DataFrame:
    runs = [folder / name for name in members]
    metrics, verdicts = ([run / name for run in runs] for name in ("metrics.csv", "verdicts.json"))
    return tabulate(members, metrics, verdicts, **options)


def test_a_table_has_a_row_a_run(tmp_path):
    both = {"kappa": ([0.5, 0.7], [0.03, 0.04]), "e_sky": ([1.0, 0.8], [0.0, 0.0])}
    write_run(tmp_path / "s_1", both, [True, False], power_ratio={"kappa": ([1, 3], [0.6, 0.8])})
    write_run(tmp_path / "s_2", {"kappa": ([0.1, np.nan], [0.1, np.nan])}, [True])
    members = {
        "s_1": {"inputs": ["q_obs", "u_obs"], "width": 0.5, "skips": True},
        "s_2": {"inputs": ["e_obs"], "width": 1, "skips": None},
    }
    write_table(tmp_path / "table.csv", table_of(tmp_path, members))
    table = read_table(tmp_path / "table.csv")
    assert list(table.columns) == [
        *("run", "inputs", "width", "skips", "correlation_kappa", "correlation_kappa_error"),
        *("power_ratio_kappa", "power_ratio_kappa_error", "correlation_e_sky"),
        *("correlation_e_sky_error", "passed", "checks"),
    ]
    first, second = table.to_dict("records")
    assert [first[key] for key in ("run", "inputs", "width", "skips")] == [
        *("s_1", "q_obs, u_obs", 0.5, "true")
    ]
    assert first["correlation_kappa"] == pytest.approx(0.6)
    # Two independent bands: the error of a mean of two.
    assert first["correlation_kappa_error"] == pytest.approx(0.05 / 2)
    assert (first["power_ratio_kappa"], first["power_ratio_kappa_error"]) == pytest.approx((2, 0.5))
    assert (first["passed"], first["checks"]) == (1, 2)
    assert (second["skips"], second["passed"], second["checks"]) == ("null", 1, 1)
    # One band without a value, and a field that this run does not have.
    assert np.isnan([second["correlation_kappa"], second["correlation_e_sky"]]).all()


def test_a_table_of_some_fields(tmp_path):
    both = {"kappa": ([0.5, 0.7], [0.03, 0.04]), "e_sky": ([1.0, 0.8], [0.0, 0.0])}
    write_run(tmp_path / "s_1", both, [])
    table = table_of(tmp_path, {"s_1": {"width": 1}}, fields=["e_sky"])
    assert list(table.columns) == [
        *("run", "width", "correlation_e_sky", "correlation_e_sky_error", "passed", "checks")
    ]
    assert table.checks.to_list() == [0]


def write_images_run(folder: Path, rows: list[tuple]) -> None:
    """Metrics of images: field, method, statistic, case (None: no such column), value, error."""
    folder.mkdir(parents=True)
    columns = ["field", "method", "statistic", "case", "value", "error"]
    table = pd.DataFrame(rows, columns=columns).dropna(axis=1, how="all")
    write_table(folder / "metrics.csv", table.assign(run=folder.name, split="test", ell=np.nan))
    write_verdicts(folder / "verdicts.json", [verdict("a check", 1.0, 2.0, "<")])


def test_a_table_of_restored_images(tmp_path):
    cases = {"none": 1.0, "resolution": 2.0, "noise": 3.0, "both": 4.0}
    for name, factor in (("s_1", 1), ("s_2", 10)):
        rows = [
            (field, "network", "mse", case, factor * weight * value, 0.1)
            for field, weight in (("g", 1), ("r", 100))
            for case, value in cases.items()
        ]
        rows += [(field, "wiener", "mse", *row, 9.0, 9.0) for field, _, _, *row, _, _ in rows]
        rows += [
            (field, "network", "flux_bias", *row, 9.0, 9.0) for field, _, _, *row, _, _ in rows
        ]
        write_images_run(tmp_path / name, rows)
    members = {"s_1": {"alpha": 0.0}, "s_2": {"alpha": 0.5}}
    table = table_of(tmp_path, members)
    scores = [
        f"mse_{case}{field}" for field in "gr" for case in ("", "resolution_", "noise_", "both_")
    ]
    both = [name for score in scores for name in (score, f"{score}_error")]
    assert list(table.columns) == ["run", "alpha", *both, "passed", "checks"]
    values = np.outer([1, 10], [1, 2, 3, 4, 100, 200, 300, 400])
    assert table[scores].to_numpy() == pytest.approx(values)
    assert (table[[f"{score}_error" for score in scores]] == 0.1).all(axis=None)
    some = table_of(tmp_path, members, fields=["r"])
    pd.testing.assert_frame_equal(some[both[8:]], table[both[8:]])
    assert not [name for name in some if name.startswith("mse") and "_g" in name]


def test_a_table_of_generated_images(tmp_path):
    network = [
        ("image", "network", "mean_distance", None, 0.06, 0.01),
        ("image", "network", "distance_gini", None, 0.5, 0.1),
        ("all", "network", "fid", None, 0.5, np.nan),
        ("all", "network", "copies", None, 0.01, 0.002),
    ]
    others = [(field, "real", *row, 9.0, 9.0) for field, _, *row, _, _ in network]
    write_images_run(tmp_path / "s_1", [*network, *others])
    # One that is judged without features.
    write_images_run(tmp_path / "s_2", [row for row in network if row[2] != "fid"])
    members = {"s_1": {"network.width": 0.5}, "s_2": {"network.width": 1.0}}
    table = table_of(tmp_path, members)
    scores = ["mean_distance_image", "fid", "copies"]
    both = [name for score in scores for name in (score, f"{score}_error")]
    assert list(table.columns) == ["run", "network.width", *both, "passed", "checks"]
    assert table[scores].iloc[0].to_list() == [0.06, 0.5, 0.01]
    assert table.mean_distance_image_error.to_list() == [0.01, 0.01]
    assert np.isnan(table.fid.iloc[1])
    # What goes with no field stays with any.
    assert {"fid", "copies"} <= set(table_of(tmp_path, members, fields=["image"]))


def test_a_table_needs_each_runs_files(tmp_path):
    write_run(tmp_path / "s_1", {}, [])
    (tmp_path / "s_1" / "verdicts.json").unlink()
    with pytest.raises(UserError, match="expected a file of verdicts, found none"):
        table_of(tmp_path, {"s_1": {"width": 1}})


# What makes a run again


def chained() -> dict:
    """Runs that come after, start from and stand beside others, in a ring too."""
    plain = TAKEN_APART | {"method": "plain"}
    return study(
        datasets=dict.fromkeys(("cmb", "other", "third", "unread"), DATASET),
        runs={
            "base": RUN | {"tests": ["third"]},
            "even": plain | {"beside": ["flow"]},
            "start": plain | {"tests": ["other"]},
            "first": plain | {"start": "start"},
            "flow": TAKEN_APART | {"method": "flow", "after": "first", "beside": ["even"]},
        },
        scans={"s": {"run": "flow", "settings": {"flow.steps": [2, 4]}}},
        predictions={"mine": {"run": "base", "path": "mine.fits"}},
        pathvars={"results": "elsewhere"},
    )


def test_a_run_depends_on_runs():
    found = parse(chained())
    assert needed(found, "base") == ["base"]
    assert needed(found, "first") == ["first", "start"]
    assert set(needed(found, "s_2")) == {"s_2", "first", "start", "even", "flow"}
    assert set(needed(found, "even")) == {"even", "flow", "first", "start"}


@pytest.mark.parametrize(
    ("run", "datasets"), [("base", ["cmb", "third"]), ("s_2", ["cmb", "other"])]
)
def test_a_study_of_one_run_is_part_of_the_study(run, datasets):
    whole = parse(chained())
    own = restricted(whole, run)
    assert list(own.datasets) == datasets
    assert set(own.runs) == set(needed(whole, run))
    for part in ("datasets", "runs"):
        for name, section in getattr(own, part).items():
            assert section == getattr(whole, part)[name]
    assert (own.seed, own.pathvars, own.scans, own.predictions) == (2026, whole.pathvars, {}, {})
    assert restricted(own, run) == own


def test_a_run_with_holes_of_the_sky_depends_on_that_sky():
    filling = {"task": "inpainting", "dataset": "cmb", "fields": ["q_obs", "u_obs"], "radii": [5]}
    filling["training"] = {"batch": 4}
    whole = DATASET | {"effects": {"taper_deg": 0}}
    found = parse(
        study(
            datasets={"cmb": whole, "other": whole, "dust": {"kind": "sky"}},
            runs={
                "random": filling,
                "sky": filling | {"holes": {"kind": "sky", "sky": "dust"}},
            },
        )
    )
    for run, datasets in (("random", ["cmb"]), ("sky", ["cmb", "dust"])):
        own = restricted(found, run)
        assert list(own.datasets) == datasets
        assert own.runs == {run: found.runs[run]}
        assert restricted(own, run) == own


def test_a_run_depends_on_the_images_that_it_learns_from(tmp_path):
    made = {"task": "generation", "dataset": "galaxies"}
    clear = {"task": "denoising", "dataset": "galaxies"}
    galaxies = {"kind": "sersic", "pixels": 32, "realizations": 200}
    found = parse(
        {
            "datasets": {"galaxies": galaxies, "others": galaxies},
            "runs": {
                "made": made,
                "unread": made,
                "plain": clear,
                "mixed": clear | {"generated": "made", "alpha": 0.5},
            },
        }
    )
    for run, runs in (("plain", ["plain"]), ("mixed", ["mixed", "made"])):
        own = restricted(found, run)
        assert list(own.datasets) == ["galaxies"]
        assert set(own.runs) == set(runs)
    record(found, {"mixed": tmp_path / "mixed"}, snakefile="Snakefile")
    text = (tmp_path / "mixed" / "config.yaml").read_text(encoding="utf-8")
    assert parse(yaml.safe_load(text)) == restricted(found, "mixed")


def test_what_is_recorded_is_read_again(tmp_path):
    whole = parse(chained())
    folders = {name: tmp_path / "elsewhere" / "runs" / name for name in whole.runs}
    record(whole, folders, snakefile=str(ROOT / "Snakefile"))
    for name, folder in folders.items():
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        assert parse(yaml.safe_load(text)) == restricted(whole, name)
        *comments, line = (folder / "command.txt").read_text(encoding="utf-8").splitlines()
        assert shlex.split(line)[0] == "snakemake"
        assert all(comment.startswith("# ") for comment in comments)
        assert re.match(r"# skyweave \d", comments[0])
        assert f"numpy {np.__version__}" in comments[1]


def test_the_commit_is_named_where_there_is_one(tmp_path):
    def first_line() -> str:
        record(parse(study()), {"base": tmp_path / "base"}, snakefile=str(tmp_path / "Snakefile"))
        return (tmp_path / "base" / "command.txt").read_text(encoding="utf-8").splitlines()[0]

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert "commit" not in first_line()
    (tmp_path / "Snakefile").touch()
    for words in (["init"], ["add", "Snakefile"], ["commit", "-m", "one"]):
        git(*words)
    commit = git("rev-parse", "HEAD")
    assert first_line().endswith(f", commit {commit}")
    (tmp_path / "Snakefile").write_text("# changed\n")
    assert first_line().endswith(f", commit {commit}-dirty")


def test_a_command_says_where_the_snakefile_is():
    found = parse(study())
    line = command(found, "base", results=Path("my results"), snakefile="Snakefile")
    assert "'my results/runs/base/network.keras'" in line
    assert "--snakefile" not in line
    assert "--snakefile ../S" in command(found, "base", results=Path("r"), snakefile="../S")


# In the workflow


def planned(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.partition("Job stats:")[2].partition("total")[0]
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def workflow_study() -> dict:
    """A run tested on another dataset, one that has nothing to do with it, and a scan of that."""
    runs = {"base": RUN | {"tests": ["other"]}, "second": RUN | {"dataset": "other"}}
    scans = {"s": {"run": "second", "settings": {"network.width": [0.05, 0.1, 0.2]}}}
    return study(runs=runs, scans=scans)


def test_runs_of_a_scan_are_trained_and_judged(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(workflow_study()))
    words = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "study.yaml", "--dry-run"]
    jobs = planned(as_typed(tmp_path, *words, "all"))
    assert {name: jobs[name] for name in ("train", "evaluate", "tabulate_scan", "record_runs")} == {
        **{"train": 5, "evaluate": 5},
        **{"tabulate_scan": 1, "record_runs": 1},
    }


def test_a_recorded_command_plans_that_run(tmp_path):
    """In a folder with nothing but what was recorded: no other run, no report."""
    whole = parse(workflow_study())
    folders = {name: tmp_path / "results" / "runs" / name for name in whole.runs}
    record(whole, folders, snakefile=os.path.relpath(ROOT / "Snakefile", tmp_path))
    text = (folders["base"] / "command.txt").read_text(encoding="utf-8").splitlines()[-1]
    text = text.replace(f"{tmp_path}/", "")
    jobs = planned(as_typed(tmp_path, *shlex.split(text)[1:], "--dry-run"))
    assert jobs == {
        **dict.fromkeys(("train", "predict", "evaluate", "generalize"), 1),
        **dict.fromkeys(("predict_elsewhere", "evaluate_elsewhere", "spectra"), 1),
        **dict.fromkeys(("simulate", "prepare"), 2),
    }


@pytest.mark.slow
def test_what_the_study_made_is_not_made_again(tmp_path):
    """The study's own jobs up to the split, then a run's recorded settings: nothing to be done."""
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(workflow_study()))
    frame = ["--snakefile", str(ROOT / "Snakefile")]
    made = [f"results/datasets/{name}/split.csv" for name in ("cmb", "other")]
    config = "results/runs/base/config.yaml"
    done = as_typed(tmp_path, *frame, "--configfile", "study.yaml", "--cores", "2", *made, config)
    assert done.returncode == 0, done.stdout + done.stderr
    line = (tmp_path / "results/runs/s_2/command.txt").read_text(encoding="utf-8").splitlines()[-1]
    assert line.split()[1] == "results/runs/s_2/network.keras"
    done = as_typed(tmp_path, *frame, "--configfile", config, "--dry-run", *made)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr
    # Another setting would not have gone unseen.
    text = (tmp_path / config).read_text(encoding="utf-8")
    (tmp_path / "other.yaml").write_text(text.replace("noise_uk_arcmin: 1.0", "noise_uk_arcmin: 2"))
    jobs = planned(as_typed(tmp_path, *frame, "--configfile", "other.yaml", "--dry-run", *made))
    assert jobs["simulate"] == 2
