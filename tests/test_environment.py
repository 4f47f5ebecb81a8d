"""The environment: what is installed, what the conda files say, and how the bootstrap behaves."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())["package"]

RUNTIME = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
DEVELOPMENT = [Requirement(line) for line in PROJECT["dependency-groups"]["dev"]]
EXTRAS = {
    extra: [Requirement(line) for line in lines]
    for extra, lines in PROJECT["project"]["optional-dependencies"].items()
}
CONDA_NAMES = {"matplotlib-base": "matplotlib", "namaster": "pymaster"}


def locked(name: str, python: str) -> str:
    """The version that uv.lock gives a package; it may differ between versions of Python."""
    where = {"python_full_version": f"{python}.0", "python_version": python}
    versions = [
        package["version"]
        for package in LOCK
        if package["name"] == name
        and any(
            Marker(m).evaluate(where) for m in package.get("resolution-markers", ["os_name!=''"])
        )
    ]
    assert len(versions) == 1, f"{name}: uv.lock has {versions} for Python {python}"
    return versions[0]


# The files agree


def test_lock_is_of_this_pyproject():
    package = next(package for package in LOCK if package["name"] == "skyweave")
    recorded = {
        (entry["name"], entry.get("specifier", ""))
        for entry in package["metadata"]["requires-dist"]
        + package["metadata"]["requires-dev"]["dev"]
    }
    asked = (
        RUNTIME + DEVELOPMENT + [requirement for extra in EXTRAS.values() for requirement in extra]
    )
    assert recorded == {(each.name, str(each.specifier)) for each in asked}


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_conda_file_has_the_locked_versions(extra):
    environment = yaml.safe_load((ROOT / "envs" / f"{extra}.yaml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]

    *packages, pip = environment["dependencies"]
    python = packages.pop(0).removeprefix("python=")
    listed = dict(line.split("==") for line in packages + pip["pip"])
    listed = {CONDA_NAMES.get(name, name): version for name, version in listed.items()}

    asked = {str(each).split(">")[0]: each.name for each in RUNTIME + DEVELOPMENT + EXTRAS[extra]}
    assert listed == {shown: locked(name, python) for shown, name in asked.items()}


# What is installed


@pytest.mark.parametrize("requirement", RUNTIME + DEVELOPMENT, ids=lambda each: each.name)
def test_installed_version_is_the_locked_one(requirement):
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert metadata.version(requirement.name) == locked(requirement.name, python)


@pytest.mark.parametrize("module", ["pymaster", "camb", "healpy", "pixell.enmap", "h5py", "ducc0"])
def test_compiled_package_loads(module):
    importlib.import_module(module)


def test_pymaster_computes():
    import pymaster

    bins = pymaster.NmtBin.from_lmax_linear(lmax=47, nlb=10)
    assert bins.get_effective_ells() == pytest.approx([6.5, 16.5, 26.5, 36.5])


# The bootstrap

POSIX = ["sh", "cat", "sha256sum", "mkdir", "rm", "chmod", "grep", "tail", "id", "env", "dirname"]
BUILD = ["git", "make", "cc", "autoreconf", "aclocal", "libtoolize"]
TESTS = ["chromium", "chromedriver", "dot"]
# What uv and conda leave behind, as far as the bootstrap looks.
MAKE_VENV = "mkdir -p .venv/bin; : >.venv/bin/python; chmod +x .venv/bin/python"


class Checkout:
    """A copy of what builds the environment, and a PATH that holds only what a test puts there."""

    def __init__(self, root: Path):
        self.root = root / "checkout"
        self.bin = root / "bin"
        self.bin.mkdir()
        for name in POSIX:
            (self.bin / name).symlink_to(shutil.which(name))
        (self.root / ".ci").mkdir(parents=True)
        for name in ("pyproject.toml", "uv.lock", ".ci/run"):
            shutil.copy(ROOT / name, self.root / name)
        shutil.copytree(ROOT / "envs", self.root / "envs")

    def program(self, name: str, body: str = "exit 0", folder: Path | None = None) -> None:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # never through a link to the machine's own program
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def machine_with_libraries(self) -> None:
        """Everything that a build wants is found; uv notes how it was called."""
        for name in BUILD + TESTS:
            self.program(name)
        (self.bin / "python3").symlink_to(sys.executable)
        self.program("uv", f'echo "$@" >uv.called; {MAKE_VENV}')
        self.program("pymaster", folder=self.root / "envs")

    def run(self, command: str = "envs/bootstrap", **variables: str):
        return subprocess.run(
            [self.root / command],
            env={"PATH": str(self.bin), "HOME": str(self.root), **variables},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_bootstrap_is_free_when_current(checkout):
    # On this PATH it could build nothing: it succeeds only by finding nothing to do.
    checkout.root = ROOT
    start = time.perf_counter()
    done = checkout.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "run `make env`"
    assert time.perf_counter() - start < 1


def test_bootstrap_names_what_is_missing_in_one_line(checkout):
    done = checkout.run()
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("bootstrap: install these first, or put conda on PATH: git make gcc ")
    assert "libchealpix-dev" in line
    assert "python3-venv" in line
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PYTHON": "python2"}, "bootstrap: PYTHON is 'python2': expected a Python 3.11 to 3.13"),
        ({"SKYWEAVE_EXTRA": "tpu"}, "bootstrap: SKYWEAVE_EXTRA is 'tpu': expected cpu or gpu"),
    ],
)
def test_bootstrap_refuses_a_wrong_setting_in_one_line(checkout, variables, message):
    done = checkout.run(**variables)
    assert (done.returncode, done.stderr) == (1, message + "\n")


def test_bootstrap_syncs_once_and_again_after_a_change(checkout):
    checkout.machine_with_libraries()
    called = checkout.root / "uv.called"

    assert checkout.run().returncode == 0
    assert "sync --frozen" in called.read_text()
    assert "--extra cpu" in called.read_text()

    called.unlink()
    assert checkout.run().stderr == ""
    assert not called.exists()

    for name in ("uv.lock", "pyproject.toml", "envs/pymaster"):
        with open(checkout.root / name, "a") as handle:
            handle.write("\n# changed\n")
        assert checkout.run().returncode == 0
        assert called.exists(), f"a change of {name} went unnoticed"
        called.unlink()

    shutil.move(checkout.root, checkout.root.with_name("moved"))
    checkout.root = checkout.root.with_name("moved")
    assert checkout.run().returncode == 0
    assert (checkout.root / "uv.called").exists(), "a move of the checkout went unnoticed"


def test_bootstrap_takes_gpu_where_there_is_one_and_keeps_it(checkout):
    checkout.machine_with_libraries()
    checkout.program("nvidia-smi", "echo 'GPU 0: some card'")
    called = checkout.root / "uv.called"

    assert checkout.run().returncode == 0
    assert "--extra gpu" in called.read_text()

    # As from a login node without one, where the sync fails, and then does not.
    (checkout.bin / "nvidia-smi").unlink()
    (checkout.root / "uv.lock").write_text("changed")
    called.unlink()
    working = (checkout.bin / "uv").rename(checkout.bin / "uv.working")
    checkout.program("uv", "exit 2")
    assert checkout.run().returncode == 1
    working.replace(checkout.bin / "uv")
    assert checkout.run().returncode == 0
    assert "--extra gpu" in called.read_text()

    assert checkout.run(SKYWEAVE_EXTRA="cpu").returncode == 0
    assert "--extra cpu" in called.read_text()


def test_bootstrap_reports_a_failed_step_in_one_line(checkout):
    checkout.machine_with_libraries()
    checkout.program("uv", "echo resolving; echo 'error: no route to host' >&2; echo hint; exit 2")
    done = checkout.run()
    assert done.returncode == 1
    step, failure = done.stderr.splitlines()
    assert step == "bootstrap: installing the locked packages in .venv (cpu)"
    assert failure == f"{step}: failed: error: no route to host (see .cache/bootstrap.log)"
    assert not (checkout.root / ".venv/.skyweave").exists()


def test_bootstrap_falls_back_to_conda(checkout):
    checkout.program("conda", f'echo "$@" >conda.called; {MAKE_VENV}')
    assert checkout.run(SKYWEAVE_EXTRA="gpu").returncode == 0
    assert (checkout.root / "conda.called").read_text().split() == [
        *("env", "create", "--prefix", str(checkout.root / ".venv")),
        *("--file", "envs/gpu.yaml"),
    ]
    assert checkout.run().stderr == ""


def test_ci_is_make_test(checkout):
    checkout.machine_with_libraries()
    checkout.program("make", 'echo "$PWD: make $*"; exit 3')
    done = checkout.run(".ci/run")
    assert done.returncode == 3
    assert done.stdout == f"{checkout.root}: make test\n"


def test_make_test_runs_the_bootstrap_first():
    dry = subprocess.run(
        ["make", "--dry-run", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert re.search(r"envs/bootstrap\n(.*\n)*pytest ", dry.stdout)
    assert os.access(ROOT / ".ci/run", os.X_OK)
