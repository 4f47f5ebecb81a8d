"""Networks of a training's epochs, a file each, and the sweep that finds the best of them."""

import json
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from skyweave import files
from skyweave.config import Selection
from skyweave.errors import Unfinished, UserError
from skyweave.training.interruption import Interruption
from skyweave.training.lock import Lock
from skyweave.training.progress import Log, to_stderr
from skyweave.training.state import assign, sync_folder, values

_DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


def compared(select: Selection, epochs: int, ended: bool) -> list[int]:
    """The epochs, of the first `epochs`, whose networks are compared: the last too if all ended."""
    if not select.swept:
        return []
    found = list(range(select.every_epochs, epochs + 1, select.every_epochs))
    return found if not ended or epochs in found else [*found, epochs]


class Checkpoints:
    """The networks of a training that are to be compared, in the folder of its state."""

    def __init__(self, state_folder: str | os.PathLike, identity: str, select: Selection) -> None:
        self.state_folder, self.identity, self.select = Path(state_folder), identity, select

    def clear(self) -> None:
        """Remove all: a training starts anew."""
        shutil.rmtree(_folder(self.state_folder), ignore_errors=True)

    def check(self, epochs: int, ended: bool) -> None:
        """Raise `UserError` where a network of the first `epochs` is wanted and was not kept."""
        for epoch in compared(self.select, epochs, ended):
            path = _network(self.state_folder, epoch)
            if not path.is_file():
                raise _lost(path, "a network", "none: the training did not keep it")
            with _reading(path) as entries:
                identity = str(entries["identity"])
            if identity != self.identity:
                raise _lost(path, "a network of this training", "another's")

    def save(self, epochs: int, ended: bool, variables: Sequence[keras.Variable]) -> None:
        """Write the network after `epochs` if it is one to compare; scores of an older one go."""
        if epochs not in compared(self.select, epochs, ended):
            return
        _scores(self.state_folder, epochs).unlink(missing_ok=True)
        entries = {f"variable-{i}": array for i, array in enumerate(values(variables))}
        with files.atomic(_network(self.state_folder, epochs)) as temporary:
            np.savez(temporary, allow_pickle=False, identity=np.array(self.identity), **entries)
        # On the disk before the state that follows is.
        sync_folder(_network(self.state_folder, epochs).parent)


def load(state_folder: str | os.PathLike, epoch: int, model: keras.Model) -> None:
    """Give a network the variables that it had after an epoch.

    Raises `UserError` for a file that is damaged or of another network.
    """
    path = _network(Path(state_folder), epoch)
    with _reading(path) as entries:
        arrays = [entries[f"variable-{i}"] for i in range(len(model.variables))]
        if [array.shape for array in arrays] != [tuple(v.shape) for v in model.variables]:
            raise ValueError("other shapes of the variables")
    assign(model.variables, arrays)


def sweep(
    state_folder: str | os.PathLike,
    epochs: Sequence[int],
    model: keras.Model,
    score: Callable[[keras.Model], pd.DataFrame],
    *,
    deadline_s: float | None = None,
    log: Log | None = None,
) -> pd.DataFrame:
    """Scores of the networks that a training kept after `epochs`, with a column `epoch`.

    `score` makes a table of a network; `model` takes their variables in turn, and in the end needs
    those of the one that is wanted (`load`). Tables that were made before are only read. Raises
    `Unfinished`, the tables so far kept, before `deadline_s` seconds have passed and on SIGTERM or
    SIGINT; `UserError` for a damaged network and where another process works in the folder.
    """
    folder, log = Path(state_folder), log or to_stderr
    tables = []
    with Interruption(deadline_s) as interruption, Lock(folder) as lock:
        for number, epoch in enumerate(epochs, start=1):
            table = _read_scores(_scores(folder, epoch))
            if table is None:
                if interruption.reason:
                    raise Unfinished(
                        f"stopped by {interruption.reason} in the sweep before epoch {epoch}; "
                        "the scores of those before are kept, run again to go on"
                    )
                start = time.monotonic()
                load(folder, epoch, model)
                table = score(model)
                lock.check()
                files.write_text(_scores(folder, epoch), json.dumps(table.to_dict("list")))
                interruption.took(time.monotonic() - start)
                log(f"sweep: network {number} of {len(epochs)}, of epoch {epoch}")
            tables.append(table.assign(epoch=epoch))
    return pd.concat(tables, ignore_index=True)


def pick(values: pd.Series, *, largest: bool) -> int:
    """The epoch of the largest or the least of `values`, indexed by epoch; the earliest of equals.

    One that is not finite is never picked; raises `UserError` where none is.
    """
    finite = values[np.isfinite(values)].sort_index()
    if finite.empty:
        raise UserError("training.select", "a finite value of an epoch at least", "none")
    return int(finite.idxmax() if largest else finite.idxmin())


def _folder(state_folder: Path) -> Path:
    return state_folder / "checkpoints"


def _network(state_folder: Path, epoch: int) -> Path:
    return _folder(state_folder) / f"epoch-{epoch:05d}.npz"


def _scores(state_folder: Path, epoch: int) -> Path:
    return _folder(state_folder) / f"epoch-{epoch:05d}.json"


def _read_scores(path: Path) -> pd.DataFrame | None:
    """Scores that were kept; None where there are none or they are damaged."""
    try:
        return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


@contextmanager
def _reading(path: Path) -> Iterator[Mapping[str, Any]]:
    """The entries of a network's file; damage ends in one line (zip checks each entry's CRC-32)."""
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as entries:
            yield entries
    except _DAMAGE as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise _lost(path, "a whole network", f"a damaged one ({found})") from None


def _lost(path: Path, expected: str, found: str) -> UserError:
    """What helps then, beside the other `select`: the epochs are gone."""
    return UserError(
        path,
        f"{expected} (`select: {{by: loss}}` needs none; without the folder "
        f"{path.parents[1]} training starts anew)",
        found,
    )
