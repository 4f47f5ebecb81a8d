"""One mean and one standard deviation a field, over the training pixels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from skyweave.data.shards import ShardSet
from skyweave.errors import UserError


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each field, in the field's unit."""

    moments: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        shards: ShardSet,
        fields: Sequence[str],
        realizations: Sequence[int] | np.ndarray,
        *,
        all_vary: bool = True,
    ) -> Self:
        """Moments over all pixels of `realizations`, in one pass and float64.

        The maps' own moments are merged in ascending order (Chan, Golub & LeVeque 1979), so that
        the number of shards changes no bit. Raises `UserError` for a field that does not vary, or
        leaves it out: a dataset to test on may have no kappa, and what nobody trains on needs none.
        """
        numbers = np.unique(np.asarray(realizations, dtype=np.int64))
        if not numbers.size:
            raise UserError("normalization", "at least one realization", "none")
        moments = {}
        for name in fields:
            mean, squares = 0.0, 0.0
            for done, number in enumerate(numbers):
                pixels = shards.read(name, [number]).astype(np.float64)
                shift = float(pixels.mean()) - mean
                mean += shift / (done + 1)
                squares += float(pixels.var()) + shift**2 * done / (done + 1)
            std = float(np.sqrt(squares / numbers.size))
            if not std > 0 and not all_vary:
                continue
            if not std > 0:
                raise UserError(
                    f"normalization of {name}", "a field that varies", f"{mean:g} everywhere"
                )
            moments[name] = (mean, std)
        return cls(moments)

    def apply(self, field: str, maps: np.ndarray) -> np.ndarray:
        """Maps of any shape in the field's unit → float32 of mean 0 and deviation 1."""
        mean, std = self._of(field)
        return ((np.asarray(maps, np.float64) - mean) / std).astype(np.float32)

    def undo(self, field: str, maps: np.ndarray) -> np.ndarray:
        """Normalized maps of any shape → float32 in the field's unit."""
        mean, std = self._of(field)
        return (np.asarray(maps, np.float64) * std + mean).astype(np.float32)

    def _of(self, field: str) -> tuple[float, float]:
        if field not in self.moments:
            raise UserError("normalization", f"one of {', '.join(self.moments)}", repr(field))
        return self.moments[field]

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Plain values: field → `mean` and `std`."""
        return {name: {"mean": mean, "std": std} for name, (mean, std) in self.moments.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, float]]) -> Self:
        """From what `to_dict` gave; raises `UserError` for anything else."""
        try:
            moments = {
                str(name): (float(entry["mean"]), float(entry["std"]))
                for name, entry in values.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError("normalization", "mean and std of each field", values) from None
        for name, (mean, std) in moments.items():
            if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
                raise UserError(f"normalization of {name}", "finite, std > 0", (mean, std))
        return cls(moments)

    def to_json(self) -> str:
        """JSON text that `from_json` reads back to the same bits."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From what `to_json` gave."""
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise UserError("normalization", "JSON", error) from None
