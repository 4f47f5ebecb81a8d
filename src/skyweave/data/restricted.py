"""Pickled arrays of others, read without running what a pickle may bring with it."""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from skyweave.errors import UserError

#: Arrays by name, in nested dicts.
Arrays: TypeAlias = "dict[str, np.ndarray | Arrays]"

_PLAIN = re.compile(r"[biufc][0-9]+")


def read_pickle(path: str | os.PathLike) -> Arrays:
    """The nested dict of arrays of numbers in a pickle.

    Classes that numpy's arrays are pickled with are replaced by ones of our own, which hold what
    they are given; no other can be had, so that nothing of the file runs. Raises `UserError` naming
    the file, and the class, for anything else than such arrays: Python objects, arrays of them, or
    a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "a file", "none")
    try:
        with path.open("rb") as handle:
            return _arrays(_Unpickler(handle).load(), set())
    # A damaged pickle may raise anything.
    except Exception as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise UserError(path, "pickled numpy arrays alone", found) from None


class _Kind:
    """Stands for `numpy.ndarray`, by which a pickle says what is to be made."""

    # Without one a pickle could set attributes of the class.
    def __setstate__(self, state: Any) -> None:
        raise ValueError("a state of numpy.ndarray itself")


class _Dtype:
    """Stands for `numpy.dtype`."""

    def __init__(self, code: str, *flags: bool) -> None:
        if not _PLAIN.fullmatch(code):
            raise ValueError(f"an array of dtype {code}")
        self.found = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.found = self.found.newbyteorder(state[1])


class _Array:
    """Stands for what numpy makes empty, and fills from its state."""

    def __init__(self, *empty: Any) -> None:
        self.found: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        # Of another type than ours it has no `found`.
        array: np.ndarray = np.ndarray(
            shape, dtype.found, bytes(content), order="F" if fortran else "C"
        )
        if array.nbytes != len(content):
            raise ValueError(f"{len(content)} bytes in an array of {array.nbytes}")
        self.found = np.array(array, order="C")


_STAND_INS: Mapping[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Kind,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,  # before numpy 2
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _STAND_INS[module, name]


def _arrays(value: Any, known: set[int]) -> Arrays:
    """A dict with arrays for their stand-ins; `known` has the dicts that were seen before."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        kind = "array" if isinstance(value, _Array) else type(value).__name__
        raise ValueError(f"{kind} where a dict with names was due")
    if id(value) in known:
        raise ValueError("a dict that is there twice")
    known.add(id(value))
    found: Arrays = {}
    for key, one in value.items():
        array = one.found if isinstance(one, _Array) else None
        found[key] = _arrays(one, known) if array is None else array
    return found
