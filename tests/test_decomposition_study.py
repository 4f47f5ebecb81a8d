"""astroDGAN's study, small: every kind of decomposition through the workflow, once."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from skyweave.data.predictions import Predictions
from skyweave.networks.card import load_network
from skyweave.statistics.tables import read_table

ROOT = Path(__file__).parent.parent
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
RUNS = (
    *("test0_plain", "test0", "test1_plain", "test1", "test2_plain", "test2"),
    *("stage_0", "stage_1", "joint", "plain", "adversarial", "flow"),
)
MEMBERS = ("test7_1", "test7_2")
MADE = (
    *("network.keras", "card.json", "history.csv", "sweep.csv", "predictions.h5"),
    *("metrics.csv", "calibration.csv", "verdicts.json", "config.yaml", "command.txt"),
    *("figures/examples.png", "figures/fidelity.svg", "figures/networks.svg"),
    "figures/figures.json",
)

pytestmark = pytest.mark.slow


def reduced() -> dict:
    """The study with small patches, narrow networks and two epochs."""
    path = ROOT / "config" / "studies" / "astrodgan.yaml"
    # Settings that share an anchor are one object until they are copied.
    study = json.loads(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8"))))
    for name, count in (("tensors", 300), ("nothing", 60)):
        dataset = study["datasets"][name]
        dataset |= {"realizations": count, "estimates": {"calibration": 32, "iterations": 1}}
        dataset["grid"]["pixels"] = 64
    study["runs"] = {name: study["runs"][name] for name in RUNS}
    for run in study["runs"].values():
        run.setdefault("network", {})["width"] = 0.125
        run["discriminator"] = {"width": 0.125}
        run["training"]["epochs"] = 2
        run["samples"] = 4
    study["runs"]["flow"]["flow"] = {"steps": 2}
    study["scans"]["test7"]["settings"] = {"adversarial.fidelity": [10, 100]}
    return study


def snakemake(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [SNAKEMAKE, "--snakefile", ROOT / "Snakefile", "--cores", "2", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=3600, check=False
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Folder in which the study has run."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(yaml.safe_dump(reduced()), encoding="utf-8")
    # Networks this small have no work for two threads: two jobs are done at once.
    threads = [f"{rule}=1" for rule in ("train", "decompose", "decompose_elsewhere", "estimate")]
    words = ["decomposition", "--configfile", "study.yaml", "--set-threads", *threads]
    done = snakemake(folder, *words)
    logs = "\n".join(path.read_text() for path in (folder / "results" / "logs").rglob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return folder


def runs(study: Path) -> dict[str, Path]:
    return {name: study / "results" / "runs" / name for name in (*RUNS, *MEMBERS)}


def test_each_run_leaves_all_that_it_should(study):
    for name, folder in runs(study).items():
        for file in MADE:
            assert (folder / file).stat().st_size > 0, f"{name}: {file}"
    assert {path.name for path in (study / "results" / "runs").iterdir()} == {*RUNS, *MEMBERS}


def test_what_is_told_are_numbers(study):
    for name, folder in runs(study).items():
        metrics = read_table(folder / "metrics.csv")
        assert np.isfinite(metrics[["value", "error"]]).all(axis=None), name
        verdicts = json.loads((folder / "verdicts.json").read_text())
        assert all(np.isfinite(one["value"]) for one in verdicts), name
        assert verdicts or set(metrics.field) == {"b_sky"}, name
        history = read_table(folder / "history.csv")
        assert history.epoch.tolist() == [1, 2]
        assert np.isfinite(history.val_loss).all()


def test_b_is_tested_where_there_is_none(study):
    tested = {name for name, run in reduced()["runs"].items() if run.get("tests")}
    assert tested == {"test2_plain", "test2", "plain", "adversarial", "flow"}
    for name, folder in runs(study).items():
        metrics = read_table(folder / "metrics.csv")
        null = metrics[(metrics.field == "b_sky") & (metrics.statistic == "power_null")]
        checks = [one["check"] for one in json.loads((folder / "verdicts.json").read_text())]
        leaks = [check for check in checks if check.startswith("b_sky")]
        assert (len(leaks), set(null.method)) == (
            (2, {"network", "analytic_eb"}) if name in tested else (0, set())
        )
        assert (folder / "figures" / "leakage.svg").exists() == (name in tested)


def test_runs_lie_beside_those_that_they_name(study):
    files = {name: Predictions(folder / "predictions.h5") for name, folder in runs(study).items()}
    fields = {name: set(file.fields) for name, file in files.items()}
    for name, run in reduced()["runs"].items():
        methods = set(read_table(runs(study)[name] / "metrics.csv").method)
        shown = {other for other in run.get("beside", ()) if fields[other] & fields[name]}
        assert methods & set(RUNS) == shown, name
        samples = files[name].samples(files[name].fields[0])
        assert (samples is not None) == (name == "flow") == ("samples" in methods)


def test_each_network_is_made_of_those_that_it_names(study):
    def weights(model):
        return [np.asarray(weight) for weight in model.weights]

    stages = {name: load_network(runs(study)[name]) for name in ("stage_0", "stage_1", "joint")}
    first = weights(stages["stage_0"].model)
    kept = weights(stages["stage_1"].model.get_layer("first").network)
    trained = weights(stages["joint"].model.get_layer("first"))
    assert all(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, trained, strict=True))
    assert stages["joint"].card.outputs == ("e_pure", "b_pure", "q_prim", "u_prim", "kappa")


def test_the_scan_has_its_table(study):
    table = read_table(study / "results" / "scans" / "test7" / "table.csv")
    assert table.run.tolist() == [*MEMBERS]
    assert table["adversarial.fidelity"].tolist() == [10, 100]
    assert np.isfinite(table[["correlation_e_sky", "power_ratio_e_sky"]]).all(axis=None)


def test_nothing_is_made_twice(study):
    done = snakemake(study, "decomposition", "--configfile", "study.yaml", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_recorded_command_finds_its_run_done(study):
    line = (runs(study)["joint"] / "command.txt").read_text(encoding="utf-8").splitlines()[-1]
    target, config = line.split()[1], "results/runs/joint/config.yaml"
    assert target == "results/runs/joint/network.keras"
    done = snakemake(study, target, "--configfile", config, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr
