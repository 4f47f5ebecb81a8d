"""Arrays of an .npz or HDF5 file: their shapes and single rows, without reading all of them."""

import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from skyweave import files
from skyweave.errors import UserError

#: A member's name and extra field stand behind so many bytes of its local header.
_LOCAL_HEADER = 30


class ArrayFile(ABC):
    """Arrays by name, with what the file says of them in numbers and words.

    `shapes` holds the arrays' shapes; `notes` what is said of the file: attributes of an HDF5 file,
    arrays without dimensions of an .npz. Raises `UserError` naming the file where it is broken.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.notes: dict[str, Any] = {}

    @abstractmethod
    def read(self, name: str, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows from `first` to before `stop` of an array."""

    @abstractmethod
    def unit(self, name: str) -> str | None:
        """Unit of an array, None where the file does not say."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What tells the file's content from another's."""

    def number(self, key: str) -> float | None:
        """A note that is a number, None where there is none."""
        if key not in self.notes:
            return None
        try:
            return float(self.notes[key])
        except (TypeError, ValueError):
            raise UserError(self.path, f"a number as {key!r}", repr(self.notes[key])) from None


def open_arrays(path: str | os.PathLike) -> ArrayFile:
    """The arrays of a file; raises `UserError` for what is neither .npz nor HDF5."""
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "a file", "none")
    if zipfile.is_zipfile(path):
        return _Npz(path)
    if h5py.is_hdf5(path):
        return _Hdf5(path)
    raise UserError(path, "an .npz or HDF5 file", "another")


@dataclass(frozen=True)
class _Member:
    """An array in an .npz: what its header says, and how many bytes that header has."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    header: int
    info: zipfile.ZipInfo

    @property
    def mapped(self) -> bool:
        return self.info.compress_type == zipfile.ZIP_STORED


class _Npz(ArrayFile):
    """An .npz; members that are not compressed are mapped, others read from their begin on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._members: dict[str, _Member] = {}
        with _telling(path), zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    with archive.open(info) as stream:
                        member = _header(path, stream, info)
                        if not member.shape and member.dtype.kind in "fiubU":
                            value = np.frombuffer(stream.read(), member.dtype)[0]
                            self.notes[info.filename[:-4]] = value.item()
                    if member.shape:
                        self._members[info.filename[:-4]] = member
        self.shapes = {name: member.shape for name, member in self._members.items()}

    def read(self, name: str, first: int = 0, stop: int | None = None) -> np.ndarray:
        member = self._members[name]
        first, stop, _ = slice(first, stop).indices(member.shape[0])
        with _telling(self.path):
            if member.mapped:
                return np.array(self._map(member)[first:stop])
            if member.fortran:
                return np.asarray(np.load(self.path)[name][first:stop])
            shape = (stop - first, *member.shape[1:])
            row = int(np.prod(member.shape[1:])) * member.dtype.itemsize
            with zipfile.ZipFile(self.path) as archive, archive.open(member.info) as stream:
                stream.seek(member.header + first * row)
                return np.frombuffer(stream.read(row * shape[0]), member.dtype).reshape(shape)

    def _map(self, member: _Member) -> np.ndarray:
        with self.path.open("rb") as file:
            file.seek(member.info.header_offset + _LOCAL_HEADER - 4)
            lengths = np.frombuffer(file.read(4), "<u2")
        begin = member.info.header_offset + _LOCAL_HEADER + int(lengths.sum()) + member.header
        order: Any = "F" if member.fortran else "C"
        return np.memmap(self.path, member.dtype, "r", begin, member.shape, order)

    def unit(self, name: str) -> str | None:
        return _text(self.notes.get(f"unit_{name}", self.notes.get("units")))

    def fingerprint(self) -> dict[str, Any]:
        return {name: f"{member.info.CRC:08x}" for name, member in sorted(self._members.items())}


class _Hdf5(ArrayFile):
    """An HDF5 file; arrays in groups are named by their path."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._units: dict[str, str | None] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.shape and item.dtype.kind in "fiu":
                self.shapes[name] = tuple(item.shape)
                attributes = (item.attrs.get(key) for key in ("units", "unit"))
                self._units[name] = next((_text(x) for x in attributes if x is not None), None)

        with _telling(path), h5py.File(path, locking=False) as file:
            file.visititems(visit)
            self.notes = {str(name): value for name, value in file.attrs.items()}

    def read(self, name: str, first: int = 0, stop: int | None = None) -> np.ndarray:
        with _telling(self.path), h5py.File(self.path, locking=False) as file:
            return np.asarray(file[name][first:stop])

    def unit(self, name: str) -> str | None:
        own = self._units.get(name)
        return _text(self.notes.get("units")) if own is None else own

    def fingerprint(self) -> dict[str, Any]:
        return {"sha256": files.sha256(self.path)}


def _header(path: Path, stream: IO[bytes], info: zipfile.ZipInfo) -> _Member:
    """What the header of an array in an .npz says."""
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise UserError(path, "arrays of plain numbers", f"{info.filename} of format {version}")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise UserError(path, "arrays of plain numbers", f"Python objects in {info.filename}")
    return _Member(shape, dtype, fortran, stream.tell(), info)


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else None if value is None else str(value)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Say what is amiss with a file as a `UserError` that names it."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        found = " ".join(str(error).split())
        raise UserError(path, "a whole .npz or HDF5 file", found) from None
