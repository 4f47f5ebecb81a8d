"""What a decomposition is worth: power and correlation, beside other runs and classical methods."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config import DecompositionRun
from skyweave.data.predictions import NETWORK, Predictions
from skyweave.errors import UserError
from skyweave.seeds import generator
from skyweave.statistics.fidelity import (
    MEAN,
    SAMPLES,
    fidelity_metrics,
    null_power,
    paired_difference,
)
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.sample_coverage import CURVES, sample_calibration
from skyweave.tasks.decomposition_verdicts import decomposition_verdicts

#: A field whose rms is at most this share of that on the run's own dataset is not there: what is
#: left is rounding.
_NOTHING = 1e-3


def evaluate_run(
    predictions: str | Path,
    run: DecompositionRun,
    *,
    name: str,
    beside: Mapping[str, str | Path],
    tests: Mapping[str, str | Path],
    plain: str | None,
) -> tuple[pd.DataFrame, pd.DataFrame, list[dict]]:
    """Metrics of the network and of all that it lies beside, curves of TARP, and verdicts.

    `predictions` is a file of `tasks.decomposition.predict_run`, `beside` are those of other runs,
    and `tests` those of the network on other datasets: where these have no B, what is predicted for
    B is its null test. `plain` is the run among `beside` that was trained
    without a discriminator. Raises `UserError` for files that are broken or do not match.
    """
    test = Predictions(predictions)
    others = {other: _matching(test, path) for other, path in beside.items()}
    rows, curves = [], []
    for field in test.fields:
        rows += _field(test, others, field, name)
        found, curve = _calibration(test, field, name)
        rows.append(found)
        curves.append(curve)
        rows += [_null(Predictions(path), test, field, name) for path in tests.values()]
    metrics = pd.concat([table for table in rows if len(table)], ignore_index=True)
    shown = [curve for curve in curves if len(curve)]
    table = pd.concat(shown, ignore_index=True) if shown else pd.DataFrame(columns=list(CURVES))
    verdicts = decomposition_verdicts(metrics, sampled=run.makes_samples, plain=plain)
    return metrics, table, verdicts


def _matching(test: Predictions, path: str | Path) -> Predictions:
    """Another run's predictions; `UserError` unless they are of the same patches."""
    other = Predictions(path)
    if other.grid != test.grid or not np.array_equal(other.realizations, test.realizations):
        raise UserError(path, f"the patches of {test.path}", "others")
    return other


def _field(
    test: Predictions, others: Mapping[str, Predictions], field: str, name: str
) -> list[pd.DataFrame]:
    """Rows of one field: all methods, and what the network has over each other run."""
    grid, taper, bins = test.grid, test.taper, default_bins(test.grid)
    truth, own, samples = test.truth(field), test.estimate(field, NETWORK), test.samples(field)
    rows = [
        fidelity_metrics(
            test.estimate(field, method),
            truth,
            grid,
            bins,
            method=method,
            taper=taper,
            samples=samples if method == NETWORK else None,
            run=name,
            field=field,
        )
        for method in test.methods(field)
    ]
    for other, found in others.items():
        if field not in found.fields:
            continue
        maps, drawn = found.estimate(field, NETWORK), found.samples(field)
        table = fidelity_metrics(
            maps,
            truth,
            grid,
            bins,
            method=other,
            taper=taper,
            samples=drawn,
            run=name,
            field=field,
        )
        rows.append(
            table.replace({"method": {kind: f"{other}_{kind}" for kind in (SAMPLES, MEAN)}})
        )
        rows.append(
            paired_difference(
                own if samples is None else samples,
                maps if drawn is None else drawn,
                truth,
                grid,
                bins,
                method=other,
                taper=taper,
                limit=True,
                run=name,
                field=field,
            )
        )
    return rows


def _calibration(test: Predictions, field: str, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Coverage by samples, and its curve; nothing without them."""
    samples = test.samples(field)
    if samples is None:
        return pd.DataFrame(), pd.DataFrame()
    return sample_calibration(
        samples,
        test.truth(field),
        test.grid,
        default_bins(test.grid),
        generator(0, name, field, "ranks"),
        run=name,
        field=field,
    )


def _null(found: Predictions, test: Predictions, field: str, name: str) -> pd.DataFrame:
    """Power that each method predicts for B on a dataset without it; nothing of other fields."""
    if not field.startswith("b_") or field not in found.fields:
        return pd.DataFrame()
    if np.std(found.truth(field)) > _NOTHING * np.std(test.truth(field)):
        return pd.DataFrame()
    tables = [
        null_power(
            found.estimate(field, method),
            found.grid,
            default_bins(found.grid),
            run=name,
            field=field,
            method=method,
            taper=found.taper,
        )
        for method in found.methods(field)
    ]
    return pd.concat(tables, ignore_index=True)
