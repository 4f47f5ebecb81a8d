"""A cosmological parameter from filled maps: what a run's holes cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config import InpaintingRun
from skyweave.data.predictions import Predictions
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.estimators.spectral_index import (
    COLUMNS,
    CONFUSION,
    BandPowers,
    IndexEstimator,
    index_metrics,
)
from skyweave.statistics.flat_spectra import default_bins
from skyweave.tasks.methods import taper_deg


def tell_classes(
    files: Mapping[str, str | Path],
    run: InpaintingRun,
    *,
    name: str,
    shards: Sequence[str | Path],
    split: str | Path,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The parameter `classes` of a run from its filled maps, beside the same maps when whole.

    `files` are predictions by case. What its classes look like is learned on the whole maps of the
    training set. Tables of `estimators.spectral_index.index_metrics`, all cases together; both
    empty for a run without classes.
    """
    if run.classes is None:
        return pd.DataFrame(columns=list(COLUMNS)), pd.DataFrame(columns=list(CONFUSION))
    maps = ShardSet(shards)
    train = members(read_split(split), "train")
    values = pd.Series(maps.labels[run.classes], index=maps.realizations)
    powers = BandPowers(maps.grid, default_bins(maps.grid), periodic=taper_deg(maps) > 0)
    crops = maps.provenance["settings"]["grid"].get("crops", 1)
    metrics, shares = [], []
    for field in run.fields:
        learned = IndexEstimator.fit(maps.read(field, train), values[train].to_numpy(), powers)
        for case, path in files.items():
            found = Predictions(path)
            filled = {method: found.estimate(field, method) for method in found.methods(field)}
            rows, confusion = index_metrics(
                learned,
                found.truth(field),
                filled,
                values[found.realizations].to_numpy(),
                run=name,
                field=field,
                case=case,
                areas=np.asarray(found.realizations) // crops,
            )
            metrics.append(rows)
            shares.append(confusion)
    return pd.concat(metrics, ignore_index=True), pd.concat(shares, ignore_index=True)
