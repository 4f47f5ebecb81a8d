"""How the learning rate moves, and when a training stops."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self


def factor(schedule: str, update: int, warmup: int, updates: int) -> float:
    """Factor on the learning rate of an update, counted from 0, of `updates` in all.

    It rises linearly to 1 in the first `warmup` and stays there, or with ``cosine`` falls as half
    a cosine that would be 0 one update after the last.
    """
    if update < warmup:
        return (update + 1) / warmup
    if schedule != "cosine":
        return 1.0
    return (1 + math.cos(math.pi * (update - warmup) / (updates - warmup))) / 2


@dataclass(frozen=True)
class Schedule:
    """Counters after some epochs; an epoch gains when its loss is below the least before.

    After `plateau_patience` epochs without a gain the learning rate is to be lowered, after
    `stop_patience`, if there is one, the training ends.
    """

    factor: float
    plateau_patience: int
    stop_patience: int | None
    best: float = math.inf
    #: Epochs since the last gain or lowering of the rate, and since the last gain.
    still: int = 0
    without_gain: int = 0

    def after(self, loss: float) -> tuple[Self, bool, bool]:
        """The schedule after an epoch of validation `loss`, whether it gained, and whether the
        learning rate is to be multiplied by `factor`.
        """
        fixed = (self.factor, self.plateau_patience, self.stop_patience)
        if loss < self.best:
            return type(self)(*fixed, best=loss), True, False
        lower = self.still + 1 >= self.plateau_patience
        still = 0 if lower else self.still + 1
        return type(self)(*fixed, self.best, still, self.without_gain + 1), False, lower

    @property
    def stop(self) -> bool:
        """Whether training should end."""
        return self.stop_patience is not None and self.without_gain >= self.stop_patience

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which ``Schedule(**values)`` is equal."""
        return asdict(self)
