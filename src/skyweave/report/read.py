"""Reading what the report draws; a missing or broken input ends in one line that names it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from skyweave.errors import UserError
from skyweave.statistics.tables import read_table

#: What the names of groups of classical methods' maps begin with.
ESTIMATES = "estimates/"

FIGURE_KEYS = ("file", "title", "caption", "section", "table", "alt")


def table(path: Path, columns: Sequence[str] = (), *, empty: bool = False) -> pd.DataFrame:
    """Read a CSV that holds at least `columns` and, unless `empty`, one row; else `UserError`."""
    frame = read_table(path)
    missing = [column for column in columns if column not in frame]
    if missing:
        found = ", ".join(map(str, frame.columns))
        raise UserError(path, f"columns {', '.join(columns)}", found)
    if frame.empty and not empty:
        raise UserError(path, "at least one row", "none")
    return frame


def document(path: Path) -> Any:
    """Read a JSON file; `UserError` when it is missing or broken."""
    _exists(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(path, "valid JSON", error) from None


def figures(path: Path) -> list[dict[str, Any]]:
    """Read figures.json and see that every file that it names lies beside it."""
    found = document(path)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise UserError(path, "a list of objects", type(found).__name__)
    for figure in found:
        missing = [key for key in FIGURE_KEYS if key not in figure]
        if missing:
            raise UserError(
                path, f"keys {', '.join(FIGURE_KEYS)} in each entry", f"no {missing[0]!r}"
            )
        for key in ("file", "table"):
            _exists(path.parent / figure[key])
    return found


@dataclass(frozen=True)
class Example:
    """One realization's maps: {group: {field: (y, x)}}, units by field, side in degrees.

    Groups are input, truth, prediction and, of each classical method, ``estimates/{method}``.
    """

    maps: dict[str, dict[str, np.ndarray]]
    units: dict[str, str]
    size_deg: float
    realization: int


def example(path: Path, order: Sequence[str] = ()) -> Example:
    """The first realization of predictions.h5 whose truth is not zero in any field.

    Null realizations (tau = kappa = 0) would show nothing; where all are null, the first is read.
    Maps are (y, x) in the unit of their attribute, fields in `order` first (HDF5 sorts them by
    name). Raises `UserError` for a missing or broken file.
    """
    _exists(path)
    try:
        with h5py.File(path) as file:
            return _example(path, file, list(order))
    except OSError as error:
        raise UserError(path, "an HDF5 file", error) from None


def _example(path: Path, file: h5py.File, order: list[str]) -> Example:
    for group in ("truth", "prediction"):
        if group not in file or not len(file[group]):
            raise UserError(path, "groups truth and prediction with a field each", list(file))
    if set(file["truth"]) != set(file["prediction"]):
        raise UserError(path, "the same fields in truth and prediction", list(file["prediction"]))
    if "size_deg" not in file.attrs:
        raise UserError(path, "the attribute size_deg", list(file.attrs))
    count = min(len(dataset) for dataset in file["truth"].values())
    if not count:
        raise UserError(path, "at least one realization", "none")
    index = next(
        (
            number
            for number in range(count)
            if all(np.any(dataset[number]) for dataset in file["truth"].values())
        ),
        0,
    )
    groups = [group for group in ("input", "truth", "prediction") if group in file]
    groups += [f"{ESTIMATES}{method}" for method in file.get(ESTIMATES, ())]
    maps = {
        group: {
            name: file[group][name][index]
            for name in sorted(file[group], key=[*order, *file[group]].index)
        }
        for group in groups
    }
    units = {
        name: _text(data.attrs.get("unit", ""))
        for group in groups
        for name, data in file[group].items()
    }
    realization = int(file["realizations"][index]) if "realizations" in file else index
    return Example(maps, units, float(file.attrs["size_deg"]), realization)


@dataclass(frozen=True)
class Patches:
    """A few patches of a sky dataset: maps (n, y, x), side in degrees, indices in the file."""

    low: np.ndarray
    high: np.ndarray
    mask: np.ndarray
    size_deg: float
    index: tuple[int, ...]
    unit: str


def patches(path: Path, count: int) -> Patches:
    """`count` patches spread evenly over patches.h5 (datasets high, low, mask, each (n, y, x))."""
    _exists(path)
    try:
        with h5py.File(path) as file:
            missing = {"high", "low", "mask"} - set(file)
            if missing:
                raise UserError(path, "datasets high, low, mask", list(file))
            if "size_deg" not in file.attrs:
                raise UserError(path, "the attribute size_deg", list(file.attrs))
            index = _spread(path, len(file["high"]), count)
            low, high, mask = (file[name][list(index)] for name in ("low", "high", "mask"))
            unit = _text(file["high"].attrs.get("unit", ""))
            return Patches(low, high, mask, float(file.attrs["size_deg"]), index, unit)
    except OSError as error:
        raise UserError(path, "an HDF5 file", error) from None


@dataclass(frozen=True)
class SmallScales:
    """A few test patches of a foreground run: maps (n, y, x), side in degrees, place numbers."""

    low: np.ndarray
    truth: np.ndarray
    network: np.ndarray
    gaussian: np.ndarray
    mask: np.ndarray
    size_deg: float
    realizations: tuple[int, ...]
    unit: str


_SMALL_SCALES = {
    "low": "input/low",
    "truth": "truth/high",
    "network": "prediction/high",
    "gaussian": "baseline/high",
    "mask": "input/mask",
}


def small_scales(path: Path, count: int) -> SmallScales:
    """`count` patches spread evenly over a foreground run's predictions.h5.

    Raises `UserError` for a missing or broken file.
    """
    _exists(path)
    try:
        with h5py.File(path) as file:
            missing = [name for name in _SMALL_SCALES.values() if name not in file]
            if missing:
                raise UserError(path, f"datasets {', '.join(_SMALL_SCALES.values())}", list(file))
            if "size_deg" not in file.attrs or "realizations" not in file:
                raise UserError(path, "size_deg and realizations", [*file.attrs, *file])
            index = list(_spread(path, len(file["truth/high"]), count))
            return SmallScales(
                **{key: file[name][index] for key, name in _SMALL_SCALES.items()},
                size_deg=float(file.attrs["size_deg"]),
                realizations=tuple(int(place) for place in file["realizations"][index]),
                unit=_text(file["truth/high"].attrs.get("unit", "")),
            )
    except OSError as error:
        raise UserError(path, "an HDF5 file", error) from None


@dataclass(frozen=True)
class Stokes:
    """HEALPix maps {T[, Q, U]: (npix,) float32}, RING, NaN where there are no data, and unit."""

    maps: dict[str, np.ndarray]
    unit: str


def stokes(path: Path) -> Stokes:
    """T, or T, Q and U, of a HEALPix file in RING order; `UserError` when it has neither."""
    import healpy

    _exists(path)
    try:
        found, header = healpy.read_map(path, field=None, h=True, dtype=np.float32)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(path, "a HEALPix map", str(error).splitlines()[0]) from None
    columns = np.atleast_2d(found)
    if len(columns) not in (1, 3):
        raise UserError(path, "the columns T, or T, Q and U", f"{len(columns)} columns")
    for values in columns:
        values[values == healpy.UNSEEN] = np.nan
    maps = dict(zip("TQU"[: len(columns)], columns, strict=True))
    return Stokes(maps, str(dict(header).get("TUNIT1", "")).strip())


def _spread(path: Path, total: int, count: int) -> tuple[int, ...]:
    """Up to `count` of `total` indices, evenly."""
    if not total:
        raise UserError(path, "at least one patch", "none")
    return tuple(sorted({int(i) for i in np.linspace(0, total - 1, min(count, total))}))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _exists(path: Path) -> None:
    if not path.is_file():
        raise UserError(path, "a file", "none")
