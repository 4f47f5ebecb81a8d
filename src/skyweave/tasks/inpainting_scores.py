"""What a network that fills holes is worth, beside the Gaussian optimum and a smooth surface.

Errors of what is read off the maps, as their errors, power and law, take patches as independent,
which crops of one map are only nearly. Those of a spectral index go by whole areas.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from skyweave.config.inpainting import InpaintingRun
from skyweave.data.predictions import NETWORK, Predictions
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.inpainting import (
    Holed,
    edge_rows,
    error_rows,
    ratio_rows,
    spread_rows,
    truth_rows,
    value_rows,
)
from skyweave.statistics.inpainting_spectra import Shapes, masked_rows, power_rows
from skyweave.statistics.namaster import Workspaces
from skyweave.tasks.inpainting_verdicts import (
    CONSTRAINED,
    DIFFUSIVE,
    REALIZATION,
    SAMPLED,
    SPREAD_RATIO,
    inpainting_verdicts,
)

#: Methods that are no estimates: the true maps; the network before seen pixels are copied; and what
#: was seen alone.
TRUTH, RAW, MASKED = "truth", "raw", "masked"

_NAMES = ("run", "split", "field", "method", "case", "statistic")

#: Columns of the metrics, and of the profiles.
METRICS = (*_NAMES, "ell", "value", "error", "n")
PROFILES = (*_NAMES, "x", "value", "error", "n")

#: Statistics that true maps have by themselves.
_OWN = ("skewness", "kurtosis", "edge_correlation")


def evaluate_run(
    files: Mapping[str, str | Path],
    run: InpaintingRun,
    *,
    name: str,
    index: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, list[dict]]:
    """Metrics and profiles of all that fills holes, in columns `METRICS` and `PROFILES`; verdicts.

    `files` are predictions by case: `holes`, the run's own kind, and `radius_{pixels}`. Besides
    truth, prediction and estimates they hold `seen/seen`, 1 where maps were seen, and `raw`.
    `index` has rows of `estimators.spectral_index.index_metrics`, all cases together; they are
    judged, and put at the end. Raises `UserError` for files that are broken or
    hold other fields.
    """
    metrics: list[pd.DataFrame] = []
    profiles: list[pd.DataFrame] = []
    known: dict[PatchGrid, Workspaces] = {}
    for case, path in files.items():
        found = Predictions(path)
        if set(found.fields) != set(run.fields):
            raise UserError(path, f"fields {', '.join(run.fields)}", ", ".join(found.fields))
        holes = _read(path, "seen/seen") < 0.5
        if found.grid not in known:
            known[found.grid] = Workspaces(found.grid, default_bins(found.grid))
        for field in run.fields:
            names = {"run": name, "split": "test", "field": field, "case": case}
            rows, curves = _field(found, holes, field, known[found.grid])
            metrics.append(rows.assign(**names))
            profiles.append(curves.assign(**names))
    if index is not None:
        metrics.append(index.reindex(columns=list(METRICS)))
    table = _joined(metrics, METRICS)
    return table, _joined(profiles, PROFILES), inpainting_verdicts(table)


def _field(
    found: Predictions, holes: np.ndarray, field: str, workspaces: Workspaces
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics and profiles of one field in one file, by method."""
    holed = Holed(found.truth(field), holes, found.grid)
    shapes = Shapes(holed)
    raw = _read(found.path, f"{RAW}/{field}")
    metrics = {MASKED: [masked_rows(holed, workspaces)], RAW: [error_rows(holed, raw)]}
    own, profiles = _law(holed, holed.truth)
    metrics[TRUTH] = [truth_rows(holed), *(rows[rows["statistic"].isin(_OWN)] for rows in own)]
    curves = {TRUTH: [*profiles, shapes.truth()]}
    methods = found.methods(field)
    others = {
        other: found.estimate(field, other)
        for other in (CONSTRAINED, DIFFUSIVE)
        if other in methods
    }
    for method in methods:
        maps = others[method] if method in others else found.estimate(field, method)
        law, profiles = _law(holed, maps)
        rows, of_shapes = shapes.rows(maps)
        metrics[method] = [error_rows(holed, maps), *law, power_rows(holed, maps), rows]
        curves[method] = [*profiles, of_shapes]
        if CONSTRAINED in others:
            metrics[method].append(ratio_rows(holed, maps, others[CONSTRAINED]))
        if DIFFUSIVE in others and method == NETWORK:
            ratio = ratio_rows(holed, maps, others[DIFFUSIVE], "error_ratio_diffusive")
            metrics[method].append(ratio)
        if REALIZATION in methods and method == SAMPLED:
            control = found.estimate(field, REALIZATION)
            metrics[method].append(spread_rows(holed, maps, control, SPREAD_RATIO))
    return _by_method(metrics), _by_method(curves)


def _law(
    holed: Holed, maps: np.ndarray
) -> tuple[tuple[pd.DataFrame, ...], tuple[pd.DataFrame, ...]]:
    """Rows and profiles of the values in holes and of their edges."""
    rows, profiles = zip(value_rows(holed, maps), edge_rows(holed, maps), strict=True)
    return rows, profiles


def _by_method(tables: Mapping[str, Iterable[pd.DataFrame]]) -> pd.DataFrame:
    named = []
    for method, of in tables.items():
        filled = [rows for rows in of if len(rows)]
        if filled:
            named.append(pd.concat(filled, ignore_index=True).assign(method=method))
    return pd.concat(named, ignore_index=True)


def _joined(tables: Iterable[pd.DataFrame], columns: Iterable[str]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    if not filled:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(filled, ignore_index=True)[list(columns)]


def _read(path: str | Path, dataset: str) -> np.ndarray:
    """Maps (n, y, x) of a group that only files of this task have."""
    with h5py.File(path) as file:
        if dataset not in file:
            raise UserError(path, f"maps {dataset}", "none")
        return np.asarray(file[dataset])
