"""The state of a training on disk: enough to go on as if it had never stopped."""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from skyweave import files
from skyweave.training.schedule import Schedule

FORMAT = "skyweave training state 3"
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass
class Means:
    """Running means by name; a value may be missing now and then."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, values: Mapping[str, float], weight: int = 1) -> None:
        """Take in values, each as often as `weight` says."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * weight
            self.counts[name] = self.counts.get(name, 0) + weight

    @property
    def means(self) -> dict[str, float]:
        """The mean of each."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}


@dataclass
class State:
    """Where a training stands; `epoch`, `step`, `validated` are the cursor, counted from 0."""

    schedule: Schedule
    #: Factor on the learning rates that plateaus have lowered.
    lowered: float = 1.0
    epoch: int = 0
    step: int = 0
    #: Batches of validation that follow the epoch's last step.
    validated: int = 0
    #: The losses of the epoch's steps, and of its validation patches.
    losses: Means = field(default_factory=Means)
    validation: Means = field(default_factory=Means)
    #: Seconds that the epoch took so far.
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    #: Values of all the model's variables at the best epoch.
    best: list[np.ndarray] = field(default_factory=list)


#: What of a state is plain values.
_PLAIN = ("lowered", "epoch", "step", "validated", "seconds", "history")
_MEANS = ("losses", "validation")


def digest(identity: Mapping[str, Any]) -> str:
    """Hexadecimal digest of plain values."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def signature(variables: Sequence[keras.Variable]) -> list[tuple[list[int], str]]:
    """Shapes and types of variables (their paths count the networks of a process)."""
    return [([int(n) for n in v.shape], str(v.dtype)) for v in variables]


def values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Copies of the values of variables."""
    return [np.array(keras.ops.convert_to_numpy(_read(v.value))) for v in variables]


def _read(value: Any) -> Any:
    """TensorFlow's variables on several devices are read before they are converted."""
    return value.read_value() if hasattr(value, "read_value") else value


def assign(variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray]) -> None:
    """Give variables the values that `values` took."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


class StateFolder:
    """The newest state of a training and the one before, a file each.

    A file is written under another name, synced and renamed, so that a process killed at any
    moment leaves a whole one.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        identity: str,
        groups: Mapping[str, Sequence[keras.Variable]],
        log: Callable[[str], None],
    ) -> None:
        self.folder, self.identity, self.log = Path(folder), identity, log
        #: What of a state is variables' values.
        self.groups = dict(groups)

    def files(self) -> list[Path]:
        """State files, newest first."""
        return sorted(self.folder.glob("state-*.npz"), reverse=True)

    def save(self, state: State) -> Path:
        """Write `state` with the values of all variables.

        Raises `FloatingPointError` where one is not finite: nobody could go on from there.
        """
        groups = {name: values(variables) for name, variables in self.groups.items()}
        for name, arrays in groups.items():
            if not all(np.isfinite(array).all() for array in arrays):
                raise FloatingPointError(f"the {name}'s variables")
        groups["best"] = state.best
        about = {
            "format": FORMAT,
            "identity": self.identity,
            "schedule": state.schedule.to_dict(),
            "state": {name: getattr(state, name) for name in _PLAIN},
            "means": {name: asdict(getattr(state, name)) for name in _MEANS},
            "counts": {name: len(arrays) for name, arrays in groups.items()},
        }
        entries = {
            f"{g}-{i}": array for g, arrays in groups.items() for i, array in enumerate(arrays)
        }
        entries["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        old = self.files()
        number = int(old[0].stem.removeprefix("state-")) + 1 if old else 0
        path = self.folder / f"state-{number:08d}.npz"
        with files.atomic(path) as temporary:
            np.savez(temporary, allow_pickle=False, **entries)
        sync_folder(self.folder)
        for outdated in old[1:]:
            outdated.unlink()
        return path

    def load(self) -> State | None:
        """The newest whole state of the same identity, its values assigned; None to start anew."""
        for leftover in self.folder.glob(".state-*"):
            leftover.unlink()
        for path in self.files():
            try:
                about, groups = self._read(path)
            except _DAMAGE as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                self.log(f"warning: {path} is damaged ({reason}); trying the state before it")
                continue
            if about["identity"] != self.identity:
                self.log(f"{path} belongs to other settings or data: training starts anew")
                return None
            for name, variables in self.groups.items():
                assign(variables, groups[name])
            schedule = Schedule(**about["schedule"])
            means: dict[str, Any] = {n: Means(**values) for n, values in about["means"].items()}
            return State(schedule, **about["state"], **means, best=groups["best"])
        return None

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
        """All of a file, so that damage anywhere in it shows (zip checks each entry's CRC-32)."""
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as entries:
            about = json.loads(entries["about"].tobytes())
            if about["format"] != FORMAT:
                # Of another version of skyweave, whose settings are others too.
                return about | {"identity": None}, {}
            groups = {
                name: [entries[f"{name}-{i}"] for i in range(count)]
                for name, count in about["counts"].items()
            }
        if about["identity"] == self.identity:
            for name, variables in self.groups.items():
                shapes = [tuple(v.shape) for v in variables]
                if shapes != [a.shape for a in groups[name]]:
                    raise ValueError(f"other shapes of the {name}'s variables")
        return about, groups


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
