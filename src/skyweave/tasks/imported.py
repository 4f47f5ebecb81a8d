"""Shards of maps that were made elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skyweave.config import ImportedDataset
from skyweave.data.arrays import ArrayFile, open_arrays
from skyweave.data.shards import stream_shard
from skyweave.data.user_maps import CONVENTIONS, in_unit, to_flat
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb
from skyweave.simulation.patch import unit
from skyweave.tasks.imported_files import array_names

#: Maps of a field that are in memory at a time, and that Q and U are compared with E on.
_ROWS, _COMPARED = 256, 16
#: Least correlation by which E of Q and U is said to go with the dataset's own.
_LEAST = 0.1


def import_maps(
    path: str | Path,
    dataset: ImportedDataset,
    realizations: range,
    *,
    seed: int,
    name: str,
) -> None:
    """Write some realizations of an imported dataset as one shard, `realizations` counted through
    its files.

    Q and U come in the flat convention. Raises `UserError` naming the file for values that are not
    finite, and for Q and U whose E in the dataset's convention does not go with its `e_prim`.
    """
    files = [open_arrays(one) for one in dataset.paths]
    where = f"datasets.{name}"
    names = [array_names(file, dataset.fields, where) for file in files]
    assert dataset.pixels is not None
    grid = PatchGrid(dataset.size_deg, dataset.pixels)
    convention = _convention(files[0], names[0], dataset, grid, where)
    stream_shard(
        path,
        _patches(files, names, realizations, convention),
        fields=tuple(dataset.fields),
        realizations=np.asarray(realizations),
        pixels=dataset.pixels,
        size_deg=dataset.size_deg,
        units={field: unit(field.partition("_")[0]) for field in dataset.fields},
        provenance={
            "seed": seed,
            "dataset": name,
            "settings": {
                "grid": {"size_deg": dataset.size_deg, "pixels": dataset.pixels},
                "effects": {"taper_deg": dataset.taper_deg},
                "fields": dataset.fields,
                "convention": convention,
            },
            "files": [_identity(file) for file in files],
        },
    )


def _identity(file: ArrayFile) -> dict[str, Any]:
    return {"name": file.path.name, "content": file.fingerprint()}


def _patches(
    files: Sequence[ArrayFile],
    names: Sequence[Mapping[str, str]],
    realizations: range,
    convention: str,
) -> Iterator[dict[str, np.ndarray]]:
    """The maps of one realization after the other."""
    begin = 0
    for file, arrays in zip(files, names, strict=True):
        count = file.shapes[next(iter(arrays.values()))][0]
        first, stop = max(realizations.start, begin), min(realizations.stop, begin + count)
        for at in range(first, stop, _ROWS):
            end = min(at + _ROWS, stop)
            maps = _rows(file, arrays, at - begin, end - begin)
            maps = _turned(maps, convention)
            for row in range(end - at):
                yield {field: values[row] for field, values in maps.items()}
        begin += count


def _rows(
    file: ArrayFile, arrays: Mapping[str, str], first: int, stop: int
) -> dict[str, np.ndarray]:
    """Fields (n, y, x) float32 of some rows of a file."""
    maps = {}
    for field, name in arrays.items():
        values = np.asarray(file.read(name, first, stop), np.float32)
        maps[field] = in_unit(values, file.unit(name), unit(field), f"{file.path}, {name}")
        bad = np.flatnonzero(~np.isfinite(maps[field]).all(axis=(1, 2)))
        if bad.size:
            found = f"others in map {first + bad[0]}"
            raise UserError(file.path, f"finite values in {name!r}", found)
    return maps


def _channels(fields: Sequence[str]) -> list[str]:
    """What the names of those Q end in whose U is there, the observed ones first."""
    both = [name[2:] for name in fields if name[:2] == "q_" and f"u_{name[2:]}" in fields]
    return sorted(both, key=lambda channel: channel == "prim")


def _turned(maps: Mapping[str, np.ndarray], convention: str) -> dict[str, np.ndarray]:
    turned = dict(maps)
    for channel in _channels(tuple(maps)):
        q, u = f"q_{channel}", f"u_{channel}"
        turned[q], turned[u] = to_flat(maps[q], maps[u], convention)
    return turned


def _convention(
    file: ArrayFile,
    arrays: Mapping[str, str],
    dataset: ImportedDataset,
    grid: PatchGrid,
    where: str,
) -> str:
    """The convention of Q and U, where the dataset has E to tell it by, as that has it.

    E of the first maps' Q and U is held against `e_prim`: in one of the four conventions the two
    are alike, in that with both signs turned E has the other sign, in the others they are not.
    """
    said = "flat" if dataset.convention == "auto" else dataset.convention
    channels = _channels(tuple(arrays))
    if "e_prim" not in arrays or not channels:
        return said
    q, u, e = (f"q_{channels[0]}", f"u_{channels[0]}", "e_prim")
    count = min(_COMPARED, file.shapes[arrays[e]][0])
    maps = _rows(file, {field: arrays[field] for field in (q, u, e)}, 0, count)
    alike = {}
    for convention in CONVENTIONS:
        made = qu_to_eb(*to_flat(maps[q], maps[u], convention), grid)[0]
        alike[convention] = float(np.corrcoef(made.ravel(), maps[e].ravel())[0, 1])
    best = max(alike, key=lambda convention: alike[convention])
    if alike[best] < _LEAST and dataset.convention == "auto":
        expected = f"Q and U whose E goes with {arrays[e]!r} in one of the conventions"
        raise UserError(file.path, expected, f"a correlation of at most {alike[best]:.2g}")
    if dataset.convention not in ("auto", best) and alike[said] < alike[best] - _LEAST:
        raise UserError(
            f"{where}.convention",
            f"{best!r}, in which E of Q and U has a correlation of {alike[best]:.2g} with e_prim",
            f"{said!r} ({alike[said]:.2g})",
        )
    return best if dataset.convention == "auto" else said
