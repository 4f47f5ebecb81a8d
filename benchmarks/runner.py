"""Running benchmarks, each in a process of its own."""

import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks import record
from benchmarks.record import Measured
from skyweave.errors import UserError

#: Modules with a table BENCHMARKS of functions by name.
MODULES = tuple(
    f"benchmarks.{name}" for name in ("simulation", "sky", "training", "galaxies", "features")
)

#: What keeps a library to one thread; read when it is loaded.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def registered() -> dict[str, Callable[[], Measured]]:
    """Every benchmark by name."""
    found: dict[str, Callable[[], Measured]] = {}
    for module in MODULES:
        found |= importlib.import_module(module).BENCHMARKS
    return found


def run(names: Sequence[str], path: Path) -> None:
    """Run benchmarks, all if none is named, and put each into the file; others there stay.

    Raises `UserError` for a name that is not registered.
    """
    known = registered()
    for name in names:
        if name not in known:
            raise UserError("benchmarks", f"some of {', '.join(known)}", repr(name))
    for name in names or known:
        new = record.entry(name, alone(name))
        record.write(path, record.merge(record.read(path) if path.exists() else [], [new]))
        print("{name}: {ours:g} against {peer:g} {unit}, ratio {ratio:g}".format(**new), flush=True)


def alone(name: str) -> Measured:
    """Result of a benchmark that has a fresh process, of one thread, for itself."""
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_one_thread) as pool:
        return pool.submit(measure, name).result()


def measure(name: str) -> Measured:
    """Run a benchmark here."""
    return registered()[name]()


def _one_thread() -> None:
    """Runs in the new process, which has loaded no library of numbers yet."""
    os.environ.update(ONE_THREAD)
