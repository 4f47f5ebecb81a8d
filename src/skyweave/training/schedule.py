"""Lower the learning rate when the validation loss stands still, and stop when it goes on so."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Schedule:
    """Counters after some epochs; an epoch gains when its loss is below the least before."""

    factor: float
    plateau_patience: int
    stop_patience: int
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
        return self.without_gain >= self.stop_patience

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which ``Schedule(**values)`` is equal."""
        return asdict(self)
