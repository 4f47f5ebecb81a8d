"""A network on other datasets than it was trained on, and on skies with nothing to find."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from skyweave.data.predictions import NETWORK, Predictions
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.generalization import band_means
from skyweave.statistics.tables import read_table
from skyweave.statistics.verdicts import verdict

COLUMNS = ("run", "dataset", "field", "method", "statistic", "value", "error", "n")

#: Most of the power of a prediction that may be left where the truth is zero, by field.
_NULL_POWER = {"kappa": 0.5}


def prediction_means(predictions: str | Path) -> pd.DataFrame:
    """`band_means` of the network and of each other method in a file of predictions.

    Columns field and method before those of `band_means`.
    """
    maps, tables = Predictions(predictions), []
    grid, taper, bins = maps.grid, maps.taper, default_bins(maps.grid)
    for field in maps.fields:
        truth = maps.truth(field)
        for method in maps.methods(field):
            table = band_means(maps.estimate(field, method), truth, grid, bins, taper=taper)
            tables.append(table.assign(field=field, method=method))
    columns = ["field", "method", "statistic", "value", "error", "n"]
    return pd.concat(tables, ignore_index=True)[columns]


def generalize(
    name: str,
    dataset: str,
    metrics: Mapping[str, str | Path],
    means: Mapping[str, pd.DataFrame],
) -> tuple[pd.DataFrame, list[dict]]:
    """What run `name` is worth on each dataset that it was tested on, and verdicts.

    `metrics` holds each dataset's table of metrics, its own `dataset` among them, `means` what
    `prediction_means` gave. The table (`COLUMNS`) has the pixel correlation and the means over
    bands, each dataset's own null skies included.

    A verdict asks whether a sky without kappa looks emptier than one with: on the run's own dataset
    the network's `null_power` is to be at most 0.5. The best linear filter leaves 1 - r_ell²; a
    network may leave less, for B tells it whether there is lensing at all. For tau and alpha, which
    one patch says little about, nearly 1 is right, and there is no bar.
    """
    tables = []
    for other, path in metrics.items():
        table = read_table(path)
        pixel = table[(table.split == "test") & (table.statistic == "pixel_correlation")]
        tables.append(pd.concat([pixel, means[other]]).assign(run=name, dataset=other))
    found = pd.concat(tables, ignore_index=True)[list(COLUMNS)]
    return found, _verdicts(found[(found.dataset == dataset) & (found.method == NETWORK)])


def _verdicts(rows: pd.DataFrame) -> list[dict]:
    """Does a sky with nothing to find look emptier, where the network knows enough for that?"""
    judged = rows[(rows.statistic == "null_power") & rows.field.isin(_NULL_POWER)]
    return [
        verdict(
            f"{row['field']}: power predicted for null maps, share of that where there is signal",
            row["value"],
            _NULL_POWER[row["field"]],
            "<=",
            note=f"± {row['error']:.3f} over {row['n']} null maps, mean over bands",
        )
        for row in judged.to_dict("records")
    ]
