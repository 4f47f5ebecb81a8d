"""Verdicts: a check, its value, its bar, and whether it passed."""

import json
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from skyweave.errors import UserError
from skyweave.files import write_text

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
KEYS = ("check", "value", "bar", "comparison", "passed", "unit", "note")


def verdict(
    check: str, value: float, bar: float, comparison: str, unit: str = "", note: str = ""
) -> dict[str, Any]:
    """Judge `value comparison bar`, e.g. ``0.93 > 0.9``.

    A value or a bar that is not finite cannot pass; JSON has no number for it, so it is kept as
    None and named in the note. Raises `UserError` for an unknown comparison.
    """
    if comparison not in COMPARISONS:
        raise UserError(check, f"a comparison of {', '.join(COMPARISONS)}", repr(comparison))
    numbers = {"value": float(value), "bar": float(bar)}
    finite = all(map(math.isfinite, numbers.values()))
    lost = [f"{name} is {x}" for name, x in numbers.items() if not math.isfinite(x)]
    return {
        "check": check,
        **{name: x if math.isfinite(x) else None for name, x in numbers.items()},
        "comparison": comparison,
        "passed": finite and COMPARISONS[comparison](numbers["value"], numbers["bar"]),
        "unit": unit,
        "note": "; ".join([*lost, *([note] if note else [])]),
    }


def write_verdicts(path: str | os.PathLike, verdicts: Sequence[Mapping[str, Any]]) -> None:
    """Write a list of verdicts as JSON, atomically."""
    text = json.dumps([dict(entry) for entry in verdicts], indent=2, allow_nan=False)
    write_text(path, text + "\n")


def read_verdicts(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read verdicts.json; raises `UserError` when it is missing or is no list of verdicts."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(path, "a file of verdicts", "none") from None
    except ValueError as error:
        raise UserError(path, "valid JSON", error) from None
    if not isinstance(found, list):
        raise UserError(path, "a list of verdicts", type(found).__name__)
    for entry in found:
        missing = [key for key in KEYS if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise UserError(path, f"keys {', '.join(KEYS)} in each verdict", f"no {missing[0]!r}")
    return found
