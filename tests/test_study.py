"""The quick study as a user runs it: once through, and what a change of it reruns."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

import forked_snakemake
from browser import check_page

ROOT = Path(__file__).parent.parent
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
QUICK = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
#: The dust map is fetched once for a checkout.
DATA = ROOT / "results" / "data"


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow in `folder` with its config/config.yaml, on two cores."""
    return forked_snakemake.snakemake(folder, "--cores", "2", *arguments)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call Snakemake in `folder` on the project's Snakefile."""
    command = [SNAKEMAKE, "--snakefile", ROOT / "Snakefile", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=2400, check=False
    )


def configure(folder: Path, **sections: dict) -> None:
    """Write the quick study's configuration, with other `datasets` or `runs` where given.

    Without `runs` those of the quick study that the datasets are there for.
    """
    values = QUICK | sections | {"pathvars": {"data": str(DATA)}}
    runs = values["runs"].items()
    if "runs" not in sections:
        values["runs"] = {name: run for name, run in runs if run["dataset"] in values["datasets"]}
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(values))


def with_value(section: dict, key: str, value: object) -> dict:
    """A copy of a section with one value changed; the key is dotted."""
    first, _, rest = key.partition(".")
    return section | {first: with_value(section[first], rest, value) if rest else value}


def planned(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Names of the rules that a dry run would run."""
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.partition("Job stats:")[2].partition("total")[0]
    return set(re.findall(r"^(\w+) +\d+$", table, re.MULTILINE)) - {"all"}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Folder in which the quick study has run."""
    folder = tmp_path_factory.mktemp("study")
    configure(folder)
    done = run(folder, "--cores", "2", "all")
    logs = "\n".join(path.read_text() for path in (folder / "results" / "logs").rglob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return folder


def test_report_is_whole_in_a_browser(study):
    assert check_page(study / "results" / "report" / "index.html") == []


def test_report_shows_every_verdict(study):
    page = (study / "results" / "report" / "index.html").read_text(encoding="utf-8")
    page = page.replace("&#39;", "'").replace("&amp;", "&")
    files = sorted((study / "results").rglob("verdicts.json"))
    assert len(files) == 19
    for path in files:
        for verdict in json.loads(path.read_text()):
            assert verdict["check"] in page


def test_simulation_and_control_agree_with_theory(study):
    """Checks of our own code must pass; whether the network wins is for the report to say."""
    for name in ("cmb", "dust", "tensors", "nothing", "temperature"):
        path = study / "results" / "datasets" / name / "verdicts.json"
        failed = [v["check"] for v in json.loads(path.read_text()) if not v["passed"]]
        assert failed == []


def test_network_recovers_e_and_kappa(study):
    metrics = pd.read_csv(study / "results" / "runs" / "resunet" / "metrics.csv")
    pixel = metrics[metrics.statistic == "pixel_correlation"].set_index(["field", "method"])
    for field in ("e_prim", "kappa"):
        row = pixel.loc[(field, "network")]
        assert row.value > 5 * row.error


def test_the_hybrid_is_better_than_what_it_starts_from(study):
    """No worse for sure: its first step is the estimate itself."""
    metrics = pd.read_csv(study / "results" / "runs" / "hybrid" / "metrics.csv")
    pixel = metrics[metrics.statistic == "pixel_correlation"].set_index(["field", "method"])
    for field in ("e_prim", "kappa"):
        network, quadratic = (
            pixel.loc[(field, method)]
            for method in ("network", "quadratic" if field == "kappa" else "wiener")
        )
        assert network.value > quadratic.value + 5 * quadratic.error


@pytest.mark.parametrize("run_name", [pytest.param("resunet", marks=pytest.mark.slow), "hybrid"])
def test_a_network_of_the_study_needs_nothing_else(study, tmp_path, run_name):
    """Its two files in an empty folder, Q and U of three patches: the study's own predictions."""
    for name in ("network.keras", "card.json"):
        shutil.copy(study / "results" / "runs" / run_name / name, tmp_path / name)
    with h5py.File(study / "results" / "runs" / run_name / "predictions.h5") as file:
        maps = {name: file["input"][name][:3] for name in ("q_obs", "u_obs")}
        expected = {name: file["prediction"][name][:3] for name in file["prediction"]}
    np.savez(tmp_path / "maps.npz", **maps, pixel_arcmin=300 / 64)
    command = [SNAKEMAKE.with_name("skyweave"), "predict", tmp_path, "maps.npz", "-o", "out.npz"]
    done = subprocess.run(
        [*command, "--tapered"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-3 * values.std())


def test_training_tells_how_far_it_is(study):
    log = (study / "results" / "logs" / "train" / "resunet.log").read_text()
    assert re.search(r"epoch 1/\d+  loss .* val_loss .* patches/s, .* left", log)


def test_a_second_run_does_nothing(study):
    done = snakemake(study, "all")
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr


def test_small_scales_are_not_gaussian(study):
    """How near they come to those of dust is for the report: another processor trains another."""
    scores = pd.read_csv(study / "results" / "runs" / "forse" / "scores.csv")
    overlap = scores[scores.statistic == "overlap_v0"].set_index(["field", "method"])
    network, gaussian = (overlap.loc[("ratio", method)] for method in ("network", "gaussian"))
    assert network.value > gaussian.value + 2 * gaussian.error


def test_the_full_sky_is_whole(study):
    folder = study / "results" / "sky" / "forse"
    whole, *seams = json.loads((folder / "verdicts.json").read_text())
    assert whole["passed"]
    assert [seam["value"] is not None for seam in seams] == [True, True]
    table = pd.read_csv(folder / "realizations.csv")
    assert (table[table.statistic == "cross"].value.dropna() < 1).all()


def test_the_adversary_keeps_what_the_plain_network_knows(study):
    """Its power is the truth's but for what the validation set's scatter leaves."""
    metrics = pd.read_csv(study / "results" / "runs" / "adversarial" / "metrics.csv")
    ours = metrics[(metrics.method == "network") & (metrics.ell < 2000)]
    for field in ("e_sky", "kappa"):
        ratio = ours[(ours.field == field) & (ours.statistic == "power_ratio")]
        assert ((ratio.value - 1).abs() < 0.05 + 5 * ratio.error).all()
        lost = metrics[(metrics.field == field) & (metrics.statistic == "correlation_difference")]
        assert (lost.value > -0.01 - 5 * lost.error).all()


def test_samples_of_the_flow_have_power_and_differ(study):
    metrics = pd.read_csv(study / "results" / "runs" / "flow" / "metrics.csv")
    rows = metrics[(metrics.field == "kappa") & (metrics.statistic == "mean_power_ratio")]
    ratio = rows.set_index("method").value
    assert ratio["plain"] < ratio["samples"] < 1.3
    with h5py.File(study / "results" / "runs" / "flow" / "predictions.h5") as file:
        first, second = file["samples/kappa"][:2]
    assert np.std(first - second) > 0.1 * np.std(first)


def test_filled_holes_are_as_good_as_the_optimum_that_they_start_from(study):
    """With fluctuations their power is the truth's but for the scatter of so few patches."""
    metrics = pd.read_csv(study / "results" / "runs" / "combine" / "metrics.csv")
    ours = metrics[metrics.method == "network"]
    assert (ours[ours.statistic == "error_ratio"].value < 1.05).all()
    assert (ours[ours.statistic == "seen_change_max"].value == 0).all()
    drawn = metrics[(metrics.method == "sampled") & (metrics.statistic == "power_ratio_wide")]
    assert ((drawn.value - 1).abs() < 0.01 + 4 * drawn.error).all()


REPORTED = {"record_runs", "report"}
FILLED = {"inpaint", "evaluate_inpainting", "draw_inpainting"} | REPORTED
TRAINED = {"train", "predict", "evaluate", "draw_reconstruction", "generalize"} | REPORTED
TOGETHER = {"full_sky", "judge_sky", "compare_skies", "draw_full_sky"} | REPORTED
TILED = {"large_scales"} | TOGETHER
DUST = {"train", "add_small_scales", "evaluate_foregrounds", "draw_foregrounds"} | TOGETHER
SPLIT = {"prepare", "calibrate", "expect", "estimate"} | TRAINED
SIMULATED = {"simulate", "check_simulation"} | SPLIT
DRAWN = {"draw_spectra"} | SIMULATED
CUT = {"sky_patches", "sky_statistics", "draw_sky", "pairs"} | DUST


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("runs", "resunet.training.learning_rate", 0.002, TRAINED),
        ("runs", "resunet.training.epochs", 5, TRAINED),
        ("runs", "resunet.training.select.by", "last", TRAINED),
        ("runs", "resunet.network.width", 0.5, TRAINED),
        ("datasets", "dust.mask.latitude_deg", 20.0, {"sky_mask"} | CUT),
        ("datasets", "dust.map.fwhm_arcmin", 6.5, CUT | TILED),
        ("datasets", "dust.patches.count", 40, CUT),
        ("runs", "forse.training.epochs", 50, DUST),
        ("runs", "forse.full_sky.overlap_deg", 2.0, TILED),
        ("runs", "forse.full_sky.realizations", 3, TOGETHER - {"judge_sky"}),
        ("runs", "combine.radii", [3, 9], FILLED),
        ("runs", "combine.classes", None, FILLED - {"inpaint"}),
        ("runs", "combine.holes.area", 0.2, {"train"} | FILLED),
        ("datasets", "cmb.estimates.iterations", 4, SPLIT - {"prepare"}),
        ("datasets", "cmb.split", {"train": 0.7, "validation": 0.2, "test": 0.1}, SPLIT),
        ("datasets", "cmb.channels.obs.noise_uk_arcmin", 2.0, SIMULATED),
        ("datasets", "cmb.spectra.cosmology", "resunet_cmb_2013", {"spectra"} | DRAWN),
    ],
)
def test_a_change_reruns_what_it_touches(study, section, key, value, expected):
    configure(study, **{section: with_value(QUICK[section], key, value)})
    try:
        assert planned(snakemake(study, "--dry-run", "all")) == expected
    finally:
        configure(study)


def keep_spectra(study: Path, folder: Path) -> None:
    """The quick study's spectra in another folder, where they are not computed anew."""
    shutil.copytree(study / "results" / "spectra", folder / "results" / "spectra")


def test_a_realization_is_the_same_in_any_shard(study, tmp_path):
    """Realizations 90 to 119 as a shard of 30, on one core, against the study's larger shards."""
    cmb = QUICK["datasets"]["cmb"] | {"realizations": 120, "shard_size": 30}
    configure(tmp_path, datasets={"cmb": cmb}, runs={})
    keep_spectra(study, tmp_path)
    target = "results/datasets/cmb/shards/3.h5"
    done = snakemake(tmp_path, target, "--cores", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    with (
        h5py.File(tmp_path / target) as few,
        h5py.File(study / "results/datasets/cmb/shards/0.h5") as many,
    ):
        assert few["realizations"][:].tolist() == list(range(90, 120))
        for field in cmb["fields"]:
            np.testing.assert_array_equal(few[field][:], many[field][90:120])


def test_snakemakes_own_report(study):
    done = snakemake(study, "--report", "report.zip", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(study / "report.zip") as archive:
        names = archive.namelist()
        text = b"".join(archive.read(name) for name in names if name.endswith((".html", ".js")))
    assert any(name.endswith("examples.png") for name in names)
    for words in (b"Reconstruction", b"example maps", b"Minkowski functionals", b"worth its cost"):
        assert words in text


SBATCH = """#!/bin/sh
printf '%s\\n' "$@" >"$0.said"
echo "no cluster here" >&2
exit 1
"""


@pytest.fixture(scope="module")
def small(study, tmp_path_factory) -> Path:
    """A study of 40 realizations without its training, with a report on the dataset."""
    folder = tmp_path_factory.mktemp("small")
    cmb = QUICK["datasets"]["cmb"] | {"realizations": 40, "shard_size": 20}
    configure(folder, datasets={"cmb": cmb}, runs={})
    keep_spectra(study, folder)
    done = snakemake(folder, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    configure(folder, datasets={"cmb": cmb})
    return folder


def test_a_study_without_runs_has_a_report(small):
    assert check_page(small / "results" / "report" / "index.html") == []


def test_added_realizations_leave_the_others_alone(small, tmp_path):
    """From 40 to 70: one full shard and one begun are new, the split keeps who was where."""
    folder = tmp_path / "more"
    shutil.copytree(small, folder)
    cmb = QUICK["datasets"]["cmb"] | {"realizations": 70, "shard_size": 20}
    configure(folder, datasets={"cmb": cmb}, runs={})
    dataset = folder / "results" / "datasets" / "cmb"
    split = pd.read_csv(dataset / "split.csv")
    written = {path.name: path.stat().st_mtime_ns for path in (dataset / "shards").iterdir()}
    done = snakemake(folder, "datasets")
    assert done.returncode == 0, done.stdout + done.stderr
    now = {path.name: path.stat().st_mtime_ns for path in (dataset / "shards").iterdir()}
    assert set(now) == {"0.h5", "1.h5", "2.h5", "3.h5"}
    assert {name: now[name] for name in written} == written
    longer = pd.read_csv(dataset / "split.csv")
    assert len(longer) == 70
    pd.testing.assert_frame_equal(longer[:40], split)


def test_what_the_slurm_profile_submits(small, monkeypatch):
    """Read from what sbatch is called with, the default profile merged in."""
    folder = small / "bin"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "sacct": "#!/bin/sh\n", "sinfo": "#!/bin/sh\n"}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    network = "results/runs/resunet/network.keras"
    here = ["--restart-times", "0", "--slurm-no-account"]
    here += ["--slurm-init-seconds-before-status-checks", "1"]
    done = run(small, "--profile", str(ROOT / "slurm"), *here, network)
    assert done.returncode != 0
    assert "no cluster here" in done.stdout + done.stderr
    said = " ".join((folder / "sbatch.said").read_text().split())
    for asked in ("-t 240", "--mem 8000", "--cpus-per-task=1", "--gpus=1"):
        assert asked in said
    assert "--partition" not in said
    assert not (small / network).exists()


def test_commands_of_the_readme(small):
    """Each `snakemake` line plans as typed."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^ {4}snakemake (.*?)(?: +#.*)?$", readme, re.MULTILINE)
    assert len(commands) >= 6
    (small / "slurm").symlink_to(ROOT / "profiles" / "slurm")
    (small / "my_study.yaml").write_text((small / "config" / "config.yaml").read_text())
    for command in commands:
        assert {"--cores", "-n", "--profile", "--report"} & set(command.split()), command
        words = [word for word in command.split() if word != "--report"]
        words = [word for word in words if not word.endswith(".zip")]
        planned(forked_snakemake.snakemake(small, *words, "--dry-run"))


def test_a_map_of_the_users_own(study, tmp_path):
    """The study's dust map given back as a file: NESTED, in K, another nside, some pixels bad."""
    import healpy as hp

    from skyweave.sky.skymap import SkyMap

    ours = SkyMap.read(study / "results/datasets/dust/map.fits")
    values = hp.ud_grade(np.where(ours.bad, 0, ours.intensity), 256) * 1e-6
    values[:100] = hp.UNSEEN
    own = tmp_path / "own.fits"
    hp.write_map(
        own, values, nest=False, coord="G", column_names=["I_STOKES"], column_units="K_CMB"
    )
    dust = QUICK["datasets"]["dust"]
    dust = dust | {
        "map": dust["map"] | {"source": "file", "path": str(own), "nside": 256},
        "patches": dust["patches"] | {"count": 10, "high_arcmin": 24},
    }
    configure(tmp_path, datasets={"own": dust}, runs={})
    done = snakemake(tmp_path, "results/datasets/own/patches.h5")
    assert done.returncode == 0, done.stdout + done.stderr
    read = SkyMap.read(tmp_path / "results/datasets/own/map.fits")
    good = ~read.bad
    np.testing.assert_allclose(read.intensity[good], 1e6 * values[good], rtol=1e-5)
    assert read.bad[:100].all()


def test_a_broken_map_of_the_users_own(tmp_path):
    own = tmp_path / "own.fits"
    own.write_text("not a map")
    dust = QUICK["datasets"]["dust"]
    configure(
        tmp_path,
        datasets={"own": dust | {"map": dust["map"] | {"source": "file", "path": str(own)}}},
        runs={},
    )
    done = snakemake(tmp_path, "results/datasets/own/map.fits")
    assert done.returncode != 0
    assert not (tmp_path / "results/datasets/own/map.fits").exists()
    (line,) = (tmp_path / "results/logs/sky_map/own.log").read_text().splitlines()
    assert line.startswith(f"{own}: expected ")
