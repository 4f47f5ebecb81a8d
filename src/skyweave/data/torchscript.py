"""Weights of TorchScript archives, read without running what such a file may bring with it."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from skyweave.errors import UserError

#: numpy's name of what a storage holds, by torch's; archives are little-endian.
_DTYPES: Mapping[str, str] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a TorchScript archive by dotted name, such as `net.conv.weight`; read-only.

    Names are the modules' and the tensor's own, from the outermost module on. The archive's code is
    never looked at; its modules, tensors and storages are replaced by inert classes of our own, and
    no other class can be had, so that nothing of the file runs. What modules hold besides tensors
    and other modules is left out. Raises `UserError` naming the file for anything else than such an
    archive, and for a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "a file", "none")
    try:
        with zipfile.ZipFile(path) as archive:
            tensors: dict[str, np.ndarray] = {}
            _collect(_read(archive), "", tensors, set())
            return tensors
    # A damaged archive may raise anything.
    except Exception as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise UserError(path, "a TorchScript archive of plain tensors", found) from None


def _read(archive: zipfile.ZipFile) -> Any:
    """What the archive's pickle holds."""
    roots = [
        name.removesuffix("data.pkl")
        for name in archive.namelist()
        if name.endswith("/data.pkl") and name.count("/") == 1
    ]
    if len(roots) != 1:
        raise ValueError(f"{len(roots)} members data.pkl in a folder")
    order = f"{roots[0]}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("tensors that are not little-endian")
    with archive.open(f"{roots[0]}data.pkl") as handle:
        return _Unpickler(handle, archive, f"{roots[0]}data/").load()


class _Stateless:
    """Stands for what holds nothing that we look for."""

    def __init__(self, *ignored: Any) -> None:
        pass

    # Without one a pickle could set attributes of the instance, and of the class.
    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"a state of {type(self).__name__}")


class _Tensor(_Stateless):
    """Stands for a tensor: a view of its storage."""

    def __init__(
        self,
        storage: np.ndarray,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *ignored: Any,
    ) -> None:
        last = offset + sum((n - 1) * each for n, each in zip(shape, strides, strict=True))
        # numpy's own check may overflow.
        if min((offset, *shape, *strides)) < 0 or (0 not in shape and last >= storage.size):
            raise ValueError(f"a tensor {shape} beyond its storage of {storage.size}")
        size = storage.dtype.itemsize
        self.found: np.ndarray = np.ndarray(
            shape, storage.dtype, storage, offset * size, [size * each for each in strides]
        )


class _Module(_Stateless):
    """Stands for a module: its attributes by name."""

    found: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise ValueError(f"a module with a state of {type(state).__name__}")
        self.found = state


_STAND_INS: Mapping[tuple[str, str], type] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch.jit._pickle", "build_intlist"): _Stateless,
    ("collections", "OrderedDict"): _Stateless,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, handle: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(handle)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__."):
            return _Module
        # A word: nothing that a pickle could call or change.
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The numbers of a storage: ("storage", its class, its name, its device, how many)."""
        kind, dtype, name, _, count = pid
        if kind != "storage" or dtype not in _DTYPES:
            raise ValueError(f"{kind} of {dtype} where a storage was due")
        found = np.frombuffer(self._archive.read(f"{self._folder}{name}"), _DTYPES[dtype])
        if found.size != count:
            raise ValueError(f"{found.size} numbers in a storage of {count}")
        return found


def _collect(value: Any, name: str, tensors: dict[str, np.ndarray], known: set[int]) -> None:
    """Put a module's tensors into `tensors`; `known` has the modules that were seen before."""
    if not isinstance(value, _Module):
        raise ValueError(f"{type(value).__name__} where a module was due")
    if id(value) in known:
        raise ValueError("a module that is there twice")
    known.add(id(value))
    for key, one in value.found.items():
        if isinstance(one, _Tensor):
            tensors[f"{name}{key}"] = one.found
        elif isinstance(one, _Module):
            _collect(one, f"{name}{key}.", tensors, known)
