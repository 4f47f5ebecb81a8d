"""Shards: HDF5 files that hold a part of a dataset, one dataset a field."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from skyweave import files
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid

FORMAT = "skyweave shard 1"
REALIZATIONS = "realizations"
LABELS = "labels"
#: Files of a dataset that are open at a time; a process may have 1,024, as a rule.
MOST_OPEN = 128


def write_shard(
    path: str | os.PathLike,
    fields: Mapping[str, np.ndarray],
    *,
    realizations: Sequence[int] | np.ndarray,
    size_deg: float,
    units: Mapping[str, str],
    provenance: Mapping[str, Any],
    labels: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write arrays (n, y, x) of `fields` as one shard: `stream_shard` of maps in memory.

    Raises `UserError` naming `path` for arrays that do not fit each other or are not finite.
    """
    numbers = np.asarray(realizations, dtype=np.int64)
    arrays = {name: np.asarray(maps) for name, maps in fields.items()}
    pixels = next(iter(arrays.values())).shape[-1] if arrays else 0
    for name, maps in arrays.items():
        expected = (numbers.size, pixels, pixels)
        if maps.shape != expected:
            raise UserError(path, f"{name!r} of shape {expected}", maps.shape)
    stream_shard(
        path,
        ({name: maps[row] for name, maps in arrays.items()} for row in range(numbers.size)),
        fields=tuple(arrays),
        realizations=numbers,
        pixels=pixels,
        size_deg=size_deg,
        units=units,
        provenance=provenance,
        labels=labels,
    )


def stream_shard(
    path: str | os.PathLike,
    patches: Iterable[Mapping[str, np.ndarray]],
    *,
    fields: Sequence[str],
    realizations: Sequence[int] | np.ndarray,
    pixels: int,
    size_deg: float,
    units: Mapping[str, str],
    provenance: Mapping[str, Any],
    labels: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write one shard, map by map, whole or not at all; the same arguments give the same bytes.

    `patches` gives the maps (y, x) of `fields` for each of the n `realizations`, in `units`, kept
    as float32; no more than one is in memory. `provenance` is what made them (seed, dataset,
    settings), the same for all shards of a dataset; `labels` are numbers (n,) that go with the
    realizations. Each map is a chunk with a checksum.

    Raises `UserError` naming `path` for maps that do not fit or are not finite.
    """
    numbers = np.asarray(realizations, dtype=np.int64)
    _check_heads(path, fields, numbers, units, labels or {})
    with files.atomic(path) as temporary, _timeless(temporary) as handle:
        handle.attrs["format"] = FORMAT
        handle.attrs["size_deg"] = float(size_deg)
        handle.attrs["pixels"] = pixels
        handle.attrs["provenance"] = json.dumps(provenance, sort_keys=True)
        handle.attrs["versions"] = json.dumps(
            files.versions("numpy", "scipy", "camb", "pixell", "healpy", "ducc0", "h5py")
        )
        handle.create_dataset(REALIZATIONS, data=numbers, track_times=False)
        if labels:
            group = _timeless_group(handle, LABELS)
            for name in sorted(labels):
                values = np.asarray(labels[name], dtype=np.float64)
                group.create_dataset(name, data=values, track_times=False)
        stored = {}
        for name in sorted(fields):
            stored[name] = handle.create_dataset(
                name,
                shape=(numbers.size, pixels, pixels),
                dtype=np.float32,
                chunks=(1, pixels, pixels),
                fletcher32=True,
                track_times=False,
            )
            stored[name].attrs["units"] = units[name]
        rows = 0
        for row, patch in enumerate(patches):
            if row == numbers.size:
                raise UserError(path, f"{numbers.size} realizations", "more")
            for name, dataset in stored.items():
                dataset[row] = _checked(path, name, patch[name], pixels, numbers[row])
            rows += 1
        if rows != numbers.size:
            raise UserError(path, f"{numbers.size} realizations", rows)


def _timeless(path: Path) -> h5py.File:
    """A new file that does not keep the time at which it was written."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))


def _timeless_group(handle: h5py.File, name: str) -> h5py.Group:
    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    return h5py.Group(h5py.h5g.create(handle.id, name.encode(), gcpl=creation))


def _check_heads(
    path: str | os.PathLike,
    fields: Sequence[str],
    numbers: np.ndarray,
    units: Mapping[str, str],
    labels: Mapping[str, np.ndarray],
) -> None:
    if not fields or numbers.ndim != 1 or not numbers.size:
        raise UserError(path, "at least one field and one realization", "none")
    if np.unique(numbers).size != numbers.size:
        raise UserError(path, "each realization once", "a realization twice")
    for name in fields:
        if name not in units:
            raise UserError(path, f"a unit for {name!r}", "none")
    for name, values in labels.items():
        if np.shape(values) != numbers.shape:
            raise UserError(path, f"a label {name!r} for each realization", np.shape(values))


def _checked(
    path: str | os.PathLike, name: str, values: np.ndarray, pixels: int, number: int
) -> np.ndarray:
    if values.shape != (pixels, pixels):
        raise UserError(path, f"{name!r} of {(pixels, pixels)} pixels", values.shape)
    values = np.asarray(values, dtype=np.float32)
    # A sum is not finite if an entry is not, and four times as fast; it may overflow, too.
    if not np.isfinite(np.sum(values)) and not np.isfinite(values).all():
        raise UserError(path, f"finite {name!r}", f"a value that is not, realization {number}")
    return values


@dataclass(frozen=True)
class _Header:
    """What a shard says of itself, checked."""

    fields: tuple[str, ...]
    pixels: int
    size_deg: float
    units: dict[str, str]
    provenance: str
    realizations: np.ndarray
    labels: dict[str, np.ndarray]


def _read_header(path: Path, handle: h5py.File) -> _Header:
    if handle.attrs.get("format") != FORMAT:
        raise UserError(path, f"format {FORMAT!r}", repr(handle.attrs.get("format")))
    for name in ("size_deg", "pixels", "provenance"):
        if name not in handle.attrs:
            raise UserError(path, f"the attribute {name!r}", "none")
    numbers = handle.get(REALIZATIONS)
    if numbers is None or numbers.dtype != np.int64 or numbers.ndim != 1:
        raise UserError(path, f"int64 {REALIZATIONS!r}", "none or another type or shape")
    pixels = int(handle.attrs["pixels"])
    units = {}
    for name in sorted(set(handle) - {REALIZATIONS, LABELS}):
        stored = handle[name]
        shape = (len(numbers), pixels, pixels)
        if stored.dtype != np.float32 or stored.shape != shape:
            raise UserError(
                path, f"{name!r} float32 {shape}", f"{stored.dtype} {tuple(stored.shape)}"
            )
        if stored.id.get_num_chunks() != len(numbers):
            raise UserError(
                path, f"{len(numbers)} maps of {name!r}", f"{stored.id.get_num_chunks()} written"
            )
        units[name] = str(stored.attrs.get("units", ""))
    if not units:
        raise UserError(path, "at least one field", "none")
    return _Header(
        fields=tuple(units),
        pixels=pixels,
        size_deg=float(handle.attrs["size_deg"]),
        units=units,
        provenance=str(handle.attrs["provenance"]),
        realizations=numbers[:],
        labels=_read_labels(path, handle, len(numbers)),
    )


def _read_labels(path: Path, handle: h5py.File, count: int) -> dict[str, np.ndarray]:
    labels = {name: values[:] for name, values in handle.get(LABELS, {}).items()}
    for name, values in labels.items():
        if values.shape != (count,):
            raise UserError(path, f"a label {name!r} for each realization", values.shape)
    return labels


class ShardSet:
    """The shards of one dataset, read as one; maps are read only when asked for.

    Raises `UserError` naming the file for a shard that is missing, truncated, of another dataset,
    or that holds a realization that another one holds too.
    """

    def __init__(self, paths: Iterable[str | os.PathLike]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        if not self.paths:
            raise UserError("shards", "at least one file", "none")
        self._open: dict[int, h5py.File] = {}
        headers = []
        for index, path in enumerate(self.paths):
            with _reading(path):
                headers.append(_read_header(path, self._handle(index)))
        first = headers[0]
        for path, header in zip(self.paths[1:], headers[1:], strict=True):
            _check_same(path, self.paths[0], header, first)
        self.fields: tuple[str, ...] = first.fields
        self.pixels: int = first.pixels
        self.size_deg: float = first.size_deg
        self.units: dict[str, str] = dict(first.units)
        self.provenance: dict[str, Any] = json.loads(first.provenance)
        numbers = np.concatenate([header.realizations for header in headers])
        shard = np.repeat(np.arange(len(headers)), [len(h.realizations) for h in headers])
        row = np.concatenate([np.arange(len(header.realizations)) for header in headers])
        order = np.argsort(numbers, kind="stable")
        #: Numbers of the realizations, ascending, whatever the order of the shards.
        self.realizations: np.ndarray = numbers[order]
        #: Numbers that go with them, by name, in the same order.
        self.labels: dict[str, np.ndarray] = {
            name: np.concatenate([header.labels[name] for header in headers])[order]
            for name in first.labels
        }
        self._shard, self._row = shard[order], row[order]
        twice = np.flatnonzero(np.diff(self.realizations) == 0)
        if twice.size:
            at = twice[0]
            raise UserError(
                self.paths[self._shard[at + 1]],
                "each realization once",
                f"realization {self.realizations[at]} also in {self.paths[self._shard[at]]}",
            )

    @property
    def grid(self) -> PatchGrid:
        """Geometry of the maps."""
        return PatchGrid(self.size_deg, self.pixels)

    def read(
        self, field: str, realizations: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """Maps (n, y, x) float32 of `field`, in the order of `realizations` (ascending if None).

        Raises `UserError` for an unknown field or realization, or a damaged map.
        """
        if field not in self.fields:
            raise UserError(self.paths[0], f"one of {', '.join(self.fields)}", repr(field))
        position = self._positions(realizations)
        maps = np.empty((position.size, self.pixels, self.pixels), np.float32)
        shard, row = self._shard[position], self._row[position]
        for index in np.unique(shard):
            slot = np.flatnonzero(shard == index)
            slot = slot[np.argsort(row[slot], kind="stable")]
            with _reading(self.paths[index]):
                stored = self._handle(int(index))[field]
                # Runs of neighbouring rows in one call: a list of rows is much slower in h5py.
                for run in np.split(slot, np.flatnonzero(np.diff(row[slot]) != 1) + 1):
                    maps[run] = stored[row[run[0]] : row[run[-1]] + 1]
        return maps

    def _positions(self, realizations: Sequence[int] | np.ndarray | None) -> np.ndarray:
        if realizations is None:
            return np.arange(self.realizations.size)
        wanted = np.asarray(realizations, dtype=np.int64)
        position = np.searchsorted(self.realizations, wanted)
        position = np.minimum(position, self.realizations.size - 1)
        lacking = wanted[self.realizations[position] != wanted]
        if lacking.size:
            raise UserError(
                self.paths[0].parent, f"realization {lacking[0]}", "no shard that holds it"
            )
        return position

    def _handle(self, index: int) -> h5py.File:
        file = self._open.pop(index, None)
        if file is None:
            while len(self._open) >= MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            # A shard is renamed into place and never written again: no lock, which network
            # file systems often lack.
            file = h5py.File(self.paths[index], "r", locking=False)
        # Behind all others, so that the one first to be closed was used longest ago.
        self._open[index] = file
        return file

    def close(self) -> None:
        """Close the files; they open again when maps are read."""
        while self._open:
            self._open.popitem()[1].close()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say what h5py finds amiss with a file as a `UserError` that names it."""
    if not path.is_file():
        raise UserError(path, "a shard", "no such file")
    try:
        yield
    except OSError as error:
        raise UserError(path, "a whole HDF5 file", " ".join(str(error).split())) from None


def _check_same(path: Path, first_path: Path, header: _Header, first: _Header) -> None:
    """Refuse a shard that is not of the first one's dataset."""
    if set(first.labels) != set(header.labels):
        raise UserError(
            path,
            f"the labels of {first_path} ({', '.join(first.labels) or 'none'})",
            ", ".join(header.labels) or "none",
        )
    lacking = set(first.fields) ^ set(header.fields)
    if lacking:
        raise UserError(
            path,
            f"the fields of {first_path} ({', '.join(first.fields)})",
            ", ".join(header.fields),
        )
    for what in ("pixels", "size_deg", "units", "provenance"):
        expected, found = getattr(first, what), getattr(header, what)
        if expected != found:
            if what == "provenance":
                expected, found = _difference(json.loads(expected), json.loads(found))
            raise UserError(path, f"{what} as in {first_path} ({expected})", found)


def _difference(expected: Any, found: Any, key: str = "") -> tuple[str, str]:
    """The first entry in which two nested mappings differ, as text."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(set(expected) | set(found)):
            if expected.get(name) != found.get(name):
                inner = f"{key}.{name}" if key else name
                return _difference(expected.get(name), found.get(name), inner)
    return f"{key}: {expected!r}", f"{key}: {found!r}"
