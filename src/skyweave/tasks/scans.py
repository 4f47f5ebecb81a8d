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
#: Numbers of a field's images, and of all fields together.
_OF_FIELD, _OF_ALL = ("mse", "mean_distance"), ("fid", "copies")
#: Case of filled maps whose holes are the run's own, and of images seen as in training.
_OWN = ("holes", "none")


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
    that of a band is.

    Of restored images it is `mse_FIELD`, the squared error of stretched pixels as the network was
    trained, and `mse_CASE_FIELD` under the other conditions (`resolution`, `noise`, `both`); of
    generated ones `mean_distance_FIELD`, and `fid` and `copies`, which go with no field; with the
    errors that their metrics have. `passed` of `checks` are verdicts.
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
    """The network's scores, means over bands where there are some, and their errors, by column."""
    rows = metrics[(metrics.method == NETWORK) & (metrics.split == "test")]
    if "case" not in rows:
        rows = rows.assign(case=_OWN[0])
    found: dict[str, float] = {}

    def add(column: str, chosen: pd.DataFrame) -> None:
        if len(chosen):
            error = chosen.error.to_numpy(float)
            found[column] = float(chosen.value.to_numpy(float).mean())
            found[f"{column}_error"] = float(np.sqrt((error**2).sum()) / len(error))

    own = rows[rows.case.isin(_OWN)]
    for field in fields or [name for name in rows.field.unique() if name != "all"]:
        for score in (*_SCORES, *_OF_FIELD):
            add(f"{score}_{field}", own[(own.field == field) & (own.statistic == score)])
        errors = rows[(rows.field == field) & (rows.statistic == "mse")]
        for case in errors.case.unique():
            if case not in _OWN:
                add(f"mse_{case}_{field}", errors[errors.case == case])
    for score in _OF_ALL:
        add(score, own[(own.field == "all") & (own.statistic == score)])
    return found


def _word(value: Any) -> Any:
    """A setting's value in a table: numbers and words as they are."""
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return json.dumps(value)
