"""The workflow's frame: clean rules, profiles that mean what they say, mistakes in one line."""

import re
import subprocess
import sys
from pathlib import Path

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
    ["all", "datasets", "reconstruction", "decomposition", "foregrounds", "predictions", "report"],
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
    }
    assert re.search(counted[path.stem], done.stdout, re.MULTILINE)


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
