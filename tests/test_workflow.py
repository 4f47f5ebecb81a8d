"""The workflow's frame: clean rules, profiles that mean what they say, mistakes in one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import forked_snakemake

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
SCRIPTS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))


def snakemake(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on the project's Snakefile from `folder`."""
    return forked_snakemake.snakemake(folder, *arguments)


def rules() -> dict[str, str]:
    """Text of each rule in workflow/rules."""
    found = {}
    for path in RULES:
        parts = re.split(r"^rule (\w+):$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found.update(zip(parts[1::2], parts[2::2], strict=True))
    return found


def write_config(folder: Path, change: dict) -> None:
    """The quick study's configuration in `folder`, its top level updated by `change`."""
    values = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    (folder / "config").mkdir()
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(values | change))


def test_lint_is_clean():
    done = snakemake("--lint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_format_is_clean():
    command = [BIN / "snakefmt", "--check", "Snakefile", "workflow"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_python_is_clean(command):
    done = subprocess.run(
        [BIN / "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_are_clean():
    done = subprocess.run([BIN / "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", rules())
def test_a_rule_says_what_it_may_use(name):
    text = rules()[name]
    for needed in ("log:", "benchmark:", "threads:", "mem_mb=", "runtime=", "message:", "script:"):
        assert needed in text
    assert ("gpu=" in text) == (name == "train")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_thin(path):
    code = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 30


@pytest.mark.parametrize(
    "target",
    [
        *("all", "datasets", "reconstruction", "decomposition", "foregrounds", "inpainting"),
        *("predictions", "report"),
    ],
)
def test_named_targets_plan(target):
    done = snakemake("--dry-run", "--quiet", "all", "--", target)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", sorted((ROOT / "config" / "studies").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_study_plans(path):
    done = snakemake("all", "--dry-run", "--configfile", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    counted = {
        "resunet_cmb": r"^simulate +140$",
        "four_output": r"^simulate +140$",
        "noise_scan": r"^predict_elsewhere +20$",
        "generalization": r"^predict_elsewhere +24$",
        "hybrid_cpu": r"^estimate +6$",
        "forse": r"^full_sky +11$",
        "astrodgan": r"^decompose_elsewhere +5$",
        "adversary": r"^decompose +13$",
        "combine": r"^covariance +4$",
        "holes": r"^inpaint +4$",
    }
    assert re.search(counted[path.stem], done.stdout, re.MULTILINE)


#: A study of inpainting, and runs of it that differ from the first in one setting each.
FILLING = {
    "datasets": {
        "made": {
            "kind": "cmb",
            "spectra": {"vary": {"ns": [0.9, 1.1]}},
            "grid": {"size_deg": 5, "pixels": 64},
            "effects": {"taper_deg": 0},
            "fields": ["t_obs", "q_obs", "u_obs", "t_prim"],
            "realizations": 40,
        },
        "dust": {"kind": "sky"},
    },
    "runs": {"base": {"task": "inpainting", "dataset": "made", "radii": [5, 9]}},
}
CHANGES = {
    "radii": [5, 12],
    "patches": 10,
    "classes": "ns",
    "holes": {"area": 0.1},
    "fields": ["q_obs", "u_obs"],
    "network": {"start": "constrained"},
    "losses": {"style": 100},
    "training": {"frozen_from": 30},
}

#: Prints what the rules' parameters are for each run, as one line of JSON.
SHOWN = """
include: "{root}/Snakefile"


class Of(dict):
    def __init__(self, run):
        super().__init__(run=run)
        self.run = run


def shown(rule, run):
    values = rule.params.items()
    return {{key: value(Of(run)) for key, value in values if callable(value) and key != "state"}}


of_run = {{"train": rules.train, "inpaint": rules.inpaint, "evaluate": rules.evaluate_inpainting}}
found = {{
    run: {{name: shown(rule, run) for name, rule in of_run.items()}} for run in INPAINTING
}}
print("shown", json.dumps(found), file=sys.stderr)
"""


def test_a_setting_is_a_parameter_of_the_rules_that_read_it(tmp_path):
    """What maps are judged on is no reason to train again; holes are one for everything."""
    runs = FILLING["runs"]
    changed = {name: runs["base"] | {name: value} for name, value in CHANGES.items()}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(FILLING | {"runs": runs | changed}))
    (tmp_path / "Snakefile").write_text(SHOWN.format(root=ROOT))
    words = ["inpainting", "--dry-run", "--quiet", "all", "--configfile", "study.yaml"]
    done = forked_snakemake.as_typed(tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("shown ")]
    shown = json.loads(line.removeprefix("shown "))
    base = shown.pop("base")
    apart = {
        name: {rule for rule, values in rules.items() if values != base[rule]}
        for name, rules in shown.items()
    }
    judged = {"inpaint", "evaluate"}
    assert apart == {
        "radii": judged,
        "patches": judged,
        "classes": {"evaluate"},
        "holes": {"train"} | judged,
        "fields": {"train"} | judged,
        "network": {"train"},
        "losses": {"train"},
        "training": {"train"},
    }


def planned(folder: Path, study: dict, *targets: str) -> dict[str, int]:
    """Jobs of a study in `folder`, by rule."""
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    done = snakemake(*targets, "--dry-run", "--configfile", "study.yaml", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.partition("Job stats:")[2].partition("total")[0]
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def test_holes_of_the_sky_need_its_mask_and_its_sources(tmp_path):
    base = FILLING["runs"]["base"] | {"losses": {"perceptual": 0, "style": 0}}
    study = FILLING | {"runs": {"sky": base | {"holes": {"kind": "sky", "sky": "dust"}}}}
    target = "results/runs/sky/network.keras"
    jobs = planned(tmp_path, study, target)
    simulated = {"spectra": 2, "simulate": 1, "prepare": 1, "covariance": 1, "train": 1}
    mask = {"fetch_sfd98": 1, "sky_map": 1, "sky_mask": 1}
    assert jobs == simulated | mask | {"cut_holes": 1}
    # With those that are removed from the map, discs about them are missing, too.
    dust = {"kind": "sky", "map": {"nside": 1024}, "sources": {"remove": "find"}}
    study["datasets"] = FILLING["datasets"] | {"dust": dust}
    assert planned(tmp_path, study, target) == jobs | {"sky_sources": 1}
    # The user's own mask, and losses that look.
    (tmp_path / "mask.fits").touch()
    own = {"holes": {"kind": "sky", "path": "mask.fits"}, "losses": {}}
    study["runs"]["sky"] = base | own
    assert planned(tmp_path, study, target) == simulated | {"cut_holes": 1, "fetch_vgg16": 1}


def test_the_covariance_of_imported_maps_is_measured(tmp_path):
    np.savez(tmp_path / "maps.npz", t=np.ones((30, 32, 32), np.float32))
    own = {"kind": "imported", "path": "maps.npz", "fields": {"t_obs": "t"}, "taper_deg": 0}
    run = FILLING["runs"]["base"] | {"dataset": "own"}
    jobs = planned(tmp_path, {"datasets": {"own": own}, "runs": {"filling": run}}, "inpainting")
    rules = {"import_maps", "prepare", "measure_covariance", "fetch_vgg16", "train", "inpaint"}
    rules |= {"evaluate_inpainting", "draw_inpainting", "record_runs", "inpainting"}
    assert jobs == dict.fromkeys(rules, 1)


def test_make_run_plans():
    command = ["make", "--no-print-directory", "run", "CORES=2", "ARGS=--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("report: results/report/index.html\n")


def test_slurm_profile_as_typed():
    done = snakemake("--profile", "slurm", "--dry-run", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (ROOT / "slurm").readlink() == Path("profiles/slurm")


def test_default_profile_takes_nothing_from_a_cluster():
    read = {
        name: yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
        for name in ("default", "slurm")
    }
    assert not set(read["default"]) & set(read["slurm"])
    # What these say holds for one machine, and the default profile is merged over all others.
    local = {"cores", "jobs", "executor", "resources", "default-resources", "set-resources"}
    assert not set(read["default"]) & local


def test_a_wrong_setting_stops_in_one_line(tmp_path):
    write_config(tmp_path, {"seed": "one"})
    done = snakemake("--dry-run", folder=tmp_path)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow")]
    assert len(said) == 1
    assert said[0].startswith("config: seed: expected integer")
    assert said[0].endswith("found 'one'")
    assert not (tmp_path / "results").exists()


def test_another_file_replaces_the_quick_study(tmp_path):
    """Snakemake would merge a second configuration into the first; a study must stand alone."""
    (tmp_path / "study.yaml").write_text("datasets: {only: {kind: cmb, realizations: 20}}\n")
    done = snakemake("--configfile", "study.yaml", "--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "only" in done.stdout
    assert "sky_map" not in done.stdout


def test_the_package_never_imports_snakemake():
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) snakemake", path.read_text(), re.MULTILINE), path


def test_import_is_light():
    code = "import sys, skyweave; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("numpy", "tensorflow", "keras", "healpy", "camb", "pandas"):
        assert f"'{heavy}'" not in done.stdout


ROOMS = ["config", "flat", "sky", "simulation", "images", "data", "networks", "training"]
ROOMS += ["estimators", "statistics", "report", "tasks"]


def test_rooms_import_only_upwards():
    for depth, room in enumerate(ROOMS):
        for path in (ROOT / "src" / "skyweave" / room).rglob("*.py"):
            for other in re.findall(r"^\s*from skyweave\.(\w+)", path.read_text(), re.MULTILINE):
                if other in ROOMS:
                    assert ROOMS.index(other) <= depth, f"{path.name} imports {other}"
