"""What a network and other estimators made of a part of a dataset, in one HDF5 file.

Groups of maps (n, y, x) float32, a dataset a field with its `unit`: `input`, `truth`, `prediction`,
`sigma` (the standard deviation of each pixel, where the network predicts one), and
`estimates/{method}`; where the network draws from the posterior, `samples` (samples, n, y, x), of
which the `prediction` is the mean. Attributes `size_deg` and `taper_deg`, and `realizations` (n,).
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from skyweave.errors import UserError
from skyweave.files import atomic
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper

#: The network among the methods.
NETWORK = "network"

_SIZES = ("size_deg", "taper_deg")


def write_predictions(
    path: str | Path,
    groups: Mapping[str, Mapping[str, np.ndarray]],
    *,
    realizations: np.ndarray,
    units: Mapping[str, str],
    size_deg: float,
    taper_deg: float,
) -> None:
    """Write the maps of each group by field, whole or not at all; `units` by field."""
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["size_deg"] = size_deg
        file.attrs["taper_deg"] = taper_deg
        file["realizations"] = realizations
        for group, fields in groups.items():
            for field, values in fields.items():
                written = file.create_dataset(f"{group}/{field}", data=np.float32(values))
                written.attrs["unit"] = units[field]


class Predictions:
    """A file of `write_predictions`, read field by field.

    Raises `UserError` where the file is missing, broken or without truth and prediction.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with h5py.File(self.path) as file:
                self._names = _names(file)
                self._attributes = {
                    key: float(file.attrs[key]) for key in _SIZES if key in file.attrs
                }
        except OSError:
            found = "none" if not self.path.exists() else "another"
            raise UserError(self.path, "a file of predictions", found) from None
        truths = self._names.get("truth", {})
        if not truths or set(truths) != set(self._names.get("prediction", {})):
            raise UserError(self.path, "the same fields in truth and prediction", [*self._names])
        if set(self._attributes) != set(_SIZES):
            raise UserError(self.path, " and ".join(_SIZES), ", ".join(self._attributes) or "none")
        self._shape = next(iter(truths.values()))

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the predicted fields."""
        return tuple(self._names["truth"])

    @property
    def realizations(self) -> np.ndarray:
        """Numbers (n,) of the patches in their dataset."""
        return self._read("realizations")

    @property
    def grid(self) -> PatchGrid:
        """Geometry of the maps."""
        return PatchGrid(self._attributes["size_deg"], self._shape[-1])

    @cached_property
    def taper(self) -> np.ndarray:
        """The taper (y, x) that the maps carry."""
        return cosine_taper(self.grid, self._attributes["taper_deg"])

    def truth(self, field: str) -> np.ndarray:
        """True maps (n, y, x)."""
        return self._read(f"truth/{field}")

    def methods(self, field: str) -> tuple[str, ...]:
        """The network and the other methods that estimate a field."""
        groups = [group for group, fields in self._names.items() if field in fields]
        others = [group.partition("/")[2] for group in groups if group.startswith("estimates/")]
        return (NETWORK, *others)

    def estimate(self, field: str, method: str) -> np.ndarray:
        """A method's maps (n, y, x) of a field."""
        return self._read(f"{'prediction' if method == NETWORK else f'estimates/{method}'}/{field}")

    def sigma(self, field: str) -> np.ndarray | None:
        """The network's standard deviation of each pixel, (n, y, x), where it predicts one."""
        return self._read(f"sigma/{field}") if field in self._names.get("sigma", {}) else None

    def samples(self, field: str) -> np.ndarray | None:
        """The network's samples of the posterior, (samples, n, y, x), where it draws them."""
        return self._read(f"samples/{field}") if field in self._names.get("samples", {}) else None

    def matching(self, path: str | Path) -> "Predictions":
        """Another part's file; `UserError` unless the same was made of the same kind of maps."""
        other = Predictions(path)
        for what, own, found in (
            ("the patches of", self.grid, other.grid),
            ("the taper of", self._attributes["taper_deg"], other._attributes["taper_deg"]),
            ("the fields of", self.fields, other.fields),
            *(
                (f"the methods for {field} of", self.methods(field), other.methods(field))
                for field in self.fields
            ),
        ):
            if own != found:
                raise UserError(other.path, f"{what} {self.path}", found)
        return other

    def extra(self, name: str) -> np.ndarray:
        """Maps of a group that not all files have, such as ``seen/seen``."""
        group, _, field = name.rpartition("/")
        if field not in self._names.get(group, {}):
            raise UserError(self.path, f"maps {name}", "none")
        return self._read(name)

    def _read(self, name: str) -> np.ndarray:
        with h5py.File(self.path) as file:
            return np.asarray(file[name])


def _names(file: h5py.File) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the datasets by group and field; estimates as ``estimates/{method}``."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}

    def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
        group, _, field = name.rpartition("/")
        if group and isinstance(item, h5py.Dataset):
            found.setdefault(group, {})[field] = item.shape

    file.visititems(note)
    return found
