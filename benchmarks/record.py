"""What a benchmark measured, and the file of all results."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skyweave.errors import UserError
from skyweave.files import versions, write_text

RESULTS = Path("results/benchmarks.json")

#: Keys of an entry with their types; the others may be missing.
REQUIRED = {"name": str, "ours": float, "peer": float, "ratio": float, "unit": str, "machine": str}
OPTIONAL = {"note": str, "peer_command": str, "n": int}

#: What decides how fast a benchmark's two sides are.
_NAMED = (
    *("numpy", "scipy", "numba", "ducc0", "pixell", "reproject", "scikit-image", "pymaster"),
    *("keras", "tensorflow", "statmorph"),
)


@dataclass(frozen=True)
class Measured:
    """One benchmark's result: ours and the peer's, in `unit`.

    `ratio` says how many times faster ours is. `note` says what was run and `peer_command` what
    the peer ran; `n` counts the blocks of which ours and peer are the medians.
    """

    ours: float
    peer: float
    ratio: float
    unit: str
    note: str
    peer_command: str
    n: int


def entry(name: str, measured: Measured) -> dict[str, Any]:
    """The entry of a benchmark that ran on this machine, to four digits."""
    values = asdict(measured)
    for key in ("ours", "peer", "ratio"):
        values[key] = float(f"{values[key]:.4g}")
    return {"name": name, **values, "machine": machine()}


def machine() -> str:
    """Processor, cores that this process may use, and versions."""
    cores = len(os.sched_getaffinity(0))
    used = versions(*_NAMED)
    software = ", ".join(f"{name} {version}" for name, version in used.items())
    return f"{_processor()}, {cores} cores; {software}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def merge(
    old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Entries of both, those of `new` in place of the ones of the same name."""
    entries = {str(each["name"]): dict(each) for each in old}
    return list((entries | {str(each["name"]): dict(each) for each in new}).values())


def write(path: str | Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write the entries as JSON."""
    text = json.dumps([dict(each) for each in entries], indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def read(path: str | Path) -> list[dict[str, Any]]:
    """Entries of a file of `write`; raises `UserError` where it is anything else."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(path, "results of `python -m benchmarks`", "no file") from None
    except (OSError, ValueError) as error:
        raise UserError(path, "a list of benchmarks as JSON", error) from None
    if not isinstance(entries, list):
        raise UserError(path, "a list of benchmarks", type(entries).__name__)
    for number, values in enumerate(entries):
        _check(f"{path}, entry {number}", values)
    names = [values["name"] for values in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(path, "each benchmark once", f"{name!r} twice")
    return entries


def _check(where: str, values: Any) -> None:
    if not isinstance(values, dict):
        raise UserError(where, "names and values", type(values).__name__)
    for key, kind in (REQUIRED | OPTIONAL).items():
        if key not in values:
            if key in REQUIRED:
                raise UserError(where, f"{key!r}", ", ".join(values) or "none")
            continue
        value = values[key]
        fits = isinstance(value, int | float if kind is float else kind)
        if not fits or isinstance(value, bool):
            raise UserError(where, f"{key!r} to be {kind.__name__}", repr(value))
        if kind is float and not 0 < value < float("inf"):
            raise UserError(where, f"{key!r} above 0", value)
    unknown = set(values) - set(REQUIRED) - set(OPTIONAL)
    if unknown:
        raise UserError(where, f"some of {', '.join(REQUIRED | OPTIONAL)}", repr(min(unknown)))
