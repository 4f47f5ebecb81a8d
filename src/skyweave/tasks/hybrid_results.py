"""What a network that starts from estimates is worth beside others: r in broad bands of ell."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skyweave.config import Effects
from skyweave.data.predictions import NETWORK, Predictions
from skyweave.flat.fourier import Bins
from skyweave.report import read
from skyweave.statistics.reconstruction import band_gain, field_metrics
from skyweave.tasks.theory import expected

#: The run that is asked about, and that of the published architecture.
HYBRID, PLAIN = "hybrid", "resunet"

BANDS = Bins((36, 300, 600, 1000, 1500, 2500, 3500))

#: r of one map by the authors' noiseless network, from the pictures in its notebook.
PUBLISHED = {
    "kappa": (0.98, 0.99, 0.98, 0.95, 0.91, 0.87),
    "e_prim": (0.97, 1.00, 1.00, 0.99, 0.99, 0.97),
    "tau": (0.66, 0.24, 0.16, 0.21, 0.14, 0.11),
}


def read_card(results: Path, run: str) -> dict[str, Any]:
    """The card of a run's network."""
    return read.document(results / "runs" / run / "card.json")


def correlations(results: Path) -> pd.DataFrame:
    """r in `BANDS` on the test set: columns field, method, band, value, error, gain, gain_error.

    `gain` is what the hybrid run has over a method. Errors are by jackknife over the patches, those
    of the gain on the same patches; published and predicted values have none. Raises `UserError`
    for results that are not there.
    """
    tests = {run: Predictions(results / "runs" / run / "predictions.h5") for run in (HYBRID, PLAIN)}
    test, theory = tests[HYBRID], _theory(results)
    tables = []
    for field in test.fields:
        maps = {run: one.estimate(field, NETWORK) for run, one in tests.items()}
        maps |= {method: test.estimate(field, method) for method in test.methods(field)[1:]}
        measured = {
            name: _measured(test, field, found, maps[HYBRID]) for name, found in maps.items()
        }
        values = {"published": np.array(PUBLISHED.get(field, [np.nan] * BANDS.count))}
        for method, part in theory[theory["field"] == field].groupby("method"):
            values[str(method)] = part["value"].to_numpy()
        own = measured[HYBRID]["value"].to_numpy()
        known = {
            name: pd.DataFrame({"value": r, "error": np.nan, "gain": own - r, "gain_error": np.nan})
            for name, r in values.items()
        }
        for name, table in (measured | known).items():
            tables.append(table.assign(field=field, method=name, band=range(BANDS.count)))
    return pd.concat(tables, ignore_index=True)


def _measured(test: Predictions, field: str, maps: np.ndarray, best: np.ndarray) -> pd.DataFrame:
    """r of maps (n, y, x) of a field by band, and what the `best` ones have over it."""
    truth, grid, taper = test.truth(field), test.grid, test.taper
    metrics = field_metrics(maps, truth, grid, BANDS, run="", field=field, method="", taper=taper)
    rows = metrics[metrics["statistic"] == "correlation"][["value", "error"]]
    gain, error = band_gain(best, maps, truth, grid, BANDS, taper)
    return rows.assign(gain=gain, gain_error=error)


def _theory(results: Path) -> pd.DataFrame:
    data = read_card(results, HYBRID)["data"]
    effects = Effects(**data["provenance"]["settings"]["effects"])
    return expected(results / "datasets" / data["dataset"] / "estimator.json", effects, BANDS)
