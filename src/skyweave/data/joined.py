"""Shards of a dataset with those of what was estimated from it, read as one."""

from collections.abc import Iterable, Sequence
from os import PathLike

import numpy as np

from skyweave.data.shards import ShardSet
from skyweave.errors import UserError


class Joined(ShardSet):
    """A `ShardSet` that has the fields of a second one too, for the realizations that this holds.

    Raises `UserError` where the second is of another dataset or has a field of the first.
    """

    def __init__(
        self, paths: Iterable[str | PathLike], estimates: Iterable[str | PathLike]
    ) -> None:
        super().__init__(paths)
        self._more = ShardSet(estimates)
        own = {name: self.provenance.get(name) for name in ("seed", "dataset", "settings")}
        for name, expected in own.items():
            if self._more.provenance.get(name) != expected:
                where = self._more.paths[0]
                raise UserError(where, f"the {name} of {self.paths[0]}", "another")
        both = set(self.fields) & set(self._more.fields)
        if both:
            raise UserError(self._more.paths[0], "other fields than the maps'", min(both))
        self.fields = (*self.fields, *self._more.fields)
        self.units |= self._more.units
        self.provenance |= {"estimates": self._more.provenance["estimates"]}

    def read(
        self, field: str, realizations: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """Maps (n, y, x) float32 of `field`; see `ShardSet.read`."""
        wanted = self.realizations if realizations is None else realizations
        if field in self._more.fields:
            return self._more.read(field, wanted)
        return super().read(field, wanted)

    def close(self) -> None:
        """Close the files; they open again when maps are read."""
        super().close()
        self._more.close()


def open_maps(
    shards: Iterable[str | PathLike], estimates: Iterable[str | PathLike] = ()
) -> ShardSet:
    """The maps of a dataset, with its estimates where there are files of them."""
    estimates = tuple(estimates)
    return Joined(shards, estimates) if estimates else ShardSet(shards)
