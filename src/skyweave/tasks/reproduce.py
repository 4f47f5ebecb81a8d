"""What makes a run again: its part of the study, and the command to call."""

import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from skyweave.config import Config, ForegroundsRun, ReconstructionRun, parse
from skyweave.files import versions, write_text

#: Packages that decide the numbers of a run.
_PACKAGES = (
    *("snakemake", "tensorflow", "tensorflow-cpu", "keras", "jax", "numpy", "scipy", "ducc0"),
    *("camb", "healpy", "pixell", "pymaster", "pandas", "h5py"),
)


def needed(study: Config, run: str) -> list[str]:
    """The run and the runs that it depends on: those it comes after, starts from, stands beside,
    or takes images from, and theirs."""
    found, waiting = [], [run]
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found.append(name)
            waiting += _named(study.runs[name])
    return found


def _named(run: Any) -> Iterator[str]:
    """Names of other runs in a run's settings."""
    for key in ("after", "start", "beside", "generated"):
        value = getattr(run, key, None)
        yield from [value] if isinstance(value, str) else value or ()


def restricted(study: Config, run: str) -> Config:
    """The study with that run, the runs it depends on and their datasets, and nothing else.

    Every setting has the value that it has in the study, so that no file of the run is out of date.
    """
    values = study.model_dump(mode="json")
    runs = {name: values["runs"][name] for name in needed(study, run)}
    datasets = {name for one in runs.values() for name in (one["dataset"], *one.get("tests", ()))}
    datasets |= {one["holes"]["sky"] for one in runs.values() if "holes" in one}
    values["datasets"] = {name: one for name, one in values["datasets"].items() if name in datasets}
    return parse(values | {"runs": runs, "scans": {}, "predictions": {}})


def targets(run: Any, name: str, results: Path) -> list[str]:
    """The files that a run ends with; `results` is the folder of all results."""
    files = [f"runs/{name}/network.keras", f"runs/{name}/metrics.csv"]
    if isinstance(run, ReconstructionRun) and run.tests:
        files.append(f"runs/{name}/generalization.csv")
    if isinstance(run, ForegroundsRun) and run.full_sky is not None:
        files.append(f"sky/{name}/verdicts.json")
    return [str(results / file) for file in files]


def command(study: Config, run: str, *, results: Path, snakefile: str) -> str:
    """The line that makes a run again, to be typed where the study's was."""
    words = ["snakemake", *targets(study.runs[run], run, results), "--cores", "8"]
    if snakefile != "Snakefile":
        words += ["--snakefile", snakefile]
    return shlex.join([*words, "--configfile", str(results / "runs" / run / "config.yaml")])


def record(study: Config, folders: Mapping[str, Path], *, snakefile: str) -> None:
    """Write `config.yaml` and `command.txt` into the folder of each run (``<results>/runs/{run}``).

    Paths are as Snakemake has them, relative to the folder that it was called in, if they are.
    """
    software = _software(snakefile)
    for name, folder in folders.items():
        own = restricted(study, name).model_dump(mode="json")
        head = f"# Run {name} with all that it depends on, every setting spelled out.\n"
        text = yaml.safe_dump(own, sort_keys=False, allow_unicode=True)
        write_text(folder / "config.yaml", head + text)
        line = command(study, name, results=folder.parents[1], snakefile=snakefile)
        write_text(folder / "command.txt", f"{software}{line}\n")


def _software(snakefile: str) -> str:
    """Comment lines: skyweave, its commit where there is one, and the packages beneath."""
    found = versions(*_PACKAGES)
    commit = _commit(Path(snakefile).resolve().parent)
    own = f"skyweave {found.pop('skyweave', 'not installed')}"
    others = ", ".join(f"{name} {number}" for name, number in found.items())
    return (
        f"# {own}{f', commit {commit}' if commit else ''}\n# {others}\n"
        "# As of when this was written; card.json names what the network was trained with.\n"
    )


def _commit(folder: Path) -> str | None:
    """The commit of a working tree, marked `-dirty` with changes beside it; None without one."""
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*words, "--exclude", "*"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
