"""Foregrounds: small scales of dust that a network adds to its large ones, patch by patch."""

import json
from pathlib import Path

import h5py
import numpy as np

from skyweave.data.normalization import Normalization
from skyweave.data.scaling import MinMax, match, ratio
from skyweave.data.shards import ShardSet, write_shard
from skyweave.files import sha256, versions, write_text
from skyweave.statistics.tables import read_table, write_table

#: Fields of a pair: the patch at low resolution, and what it is to be multiplied by.
INPUT, TARGET = "low", "ratio"


def write_pairs(
    patches: str | Path,
    places: str | Path,
    *,
    pairs: str | Path,
    split: str | Path,
    normalization: str | Path,
) -> None:
    """Pairs to train on, of patches at two resolutions (`tasks.sky.cut_patches`), as one shard.

    `low` is the patch at low resolution and `ratio` the one at high resolution over it, each
    scaled to -1 to 1 by its extremes; labels hold these, and the share of pixels in which the
    ratio was not taken (`data.scaling.ratio`). `split` gets the part of each place, `normalization`
    the identity. Raises `UserError` for a patch that cannot be scaled.
    """
    with h5py.File(patches) as file:
        high, low = (np.asarray(file[name]) for name in ("high", "low"))
        size_deg, provenance = float(file.attrs["size_deg"]), json.loads(file.attrs["provenance"])
    table = read_table(places)
    divided, bad = ratio(high, low)
    scales = {INPUT: MinMax.fit(low), TARGET: MinMax.fit(divided)}
    labels = {"bad": bad.mean(axis=(1, 2))}
    for field, scale in scales.items():
        labels |= scale.labels(field)
    write_shard(
        pairs,
        {INPUT: scales[INPUT].apply(low), TARGET: scales[TARGET].apply(divided)},
        realizations=table["place"].to_numpy(np.int64),
        size_deg=size_deg,
        units=dict.fromkeys(scales, ""),
        provenance=provenance
        | {"patches": sha256(patches), "versions": versions("numpy", "healpy", "ducc0", "scipy")},
        labels=labels,
    )
    write_table(split, table[["place", "split"]].rename(columns={"place": "realization"}))
    write_text(normalization, Normalization(dict.fromkeys(scales, (0.0, 1.0))).to_json())


def read_scales(pairs: ShardSet) -> dict[str, MinMax]:
    """What `low` and `ratio` of all pairs were scaled by, ascending."""
    return {field: MinMax.from_labels(pairs.labels, field) for field in (INPUT, TARGET)}


def restore(
    made: np.ndarray,
    low: np.ndarray,
    means: np.ndarray | float,
    stds: np.ndarray | float,
    *,
    robust: bool = True,
) -> np.ndarray:
    """Patches (n, y, x) float32 at high resolution, from ratios of any scale that a network made.

    Each is brought to its mean and standard deviation, (n,) or for all, those of the true ratio or
    of a Gaussian extrapolation's, and multiplied by `low`, whose unit it gets. `robust` as in
    `data.scaling.match`.
    """
    return match(made, means, stds, robust=robust) * np.asarray(low, np.float32)
