"""The table of a scan over settings: what each of its runs is worth."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skyweave.data.predictions import NETWORK
from skyweave.statistics.tables import read_table
from skyweave.statistics.verdicts import read_verdicts

#: Statistics per multipole whose means over bands are tabulated, where a run has them.
_SCORES = ("correlation", "power_ratio", "error_ratio")


def tabulate(
    members: Mapping[str, Mapping[str, Any]],
    metrics: Sequence[str | Path],
    verdicts: Sequence[str | Path],
    *,
    fields: Sequence[str] = (),
) -> pd.DataFrame:
    """One row a run: `run`, its settings, its scores, and how many of its checks it passed.

    `members` holds each run's values of the scan's settings; metrics and verdicts are the runs'
    files in the same order. Scores are the network's on the test set: of each of `fields`, of all
    where none is named, `correlation_FIELD` and `power_ratio_FIELD`, means over bands of r_ell and
    of C_pp/C_tt with the same weight for each, of filled holes `error_ratio_FIELD`, the error over
    the optimum's, and their errors, `…_error`, of bands taken as independent. A mean is NaN where
    that of a band is. `passed` of `checks` are verdicts.
    """
    rows: list[dict[str, Any]] = []
    for (run, settings), table, judged in zip(members.items(), metrics, verdicts, strict=True):
        found = read_verdicts(judged)
        rows.append(
            {"run": run}
            | {key: _word(value) for key, value in settings.items()}
            | _scores(read_table(table), fields)
            | {"passed": sum(one["passed"] for one in found), "checks": len(found)}
        )
    # A run may lack a field that others have; counts of checks stay behind all scores.
    frame = pd.DataFrame(rows)
    last = ["passed", "checks"]
    return frame[[name for name in frame if name not in last] + last]


def _scores(metrics: pd.DataFrame, fields: Sequence[str]) -> dict[str, float]:
    """Means over bands of the network's scores, and their errors, by column."""
    rows = metrics[(metrics.method == NETWORK) & (metrics.split == "test")]
    if "case" in rows:
        # Of filled maps those whose holes are the run's own.
        rows = rows[rows.case == "holes"]
    found = {}
    for field in fields or rows.field.unique():
        for score in _SCORES:
            bands = rows[(rows.field == field) & (rows.statistic == score)]
            if len(bands):
                error = bands.error.to_numpy(float)
                found[f"{score}_{field}"] = float(bands.value.to_numpy(float).mean())
                found[f"{score}_{field}_error"] = float(np.sqrt((error**2).sum()) / len(error))
    return found


def _word(value: Any) -> Any:
    """A setting's value in a table: numbers and words as they are."""
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return json.dumps(value)
