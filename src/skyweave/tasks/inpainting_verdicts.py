"""Verdicts on filled holes: nothing seen is changed, near the optimum, and with the sky's law."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from skyweave.data.predictions import NETWORK
from skyweave.statistics.verdicts import verdict

#: Methods beside the network: the mean of a Gaussian sky given what was seen, a sample of it, the
#: smooth surface, and the network with the fluctuations that such a sample has around its mean.
CONSTRAINED, REALIZATION = "constrained", "realization"
DIFFUSIVE, SAMPLED = "diffusive", "sampled"

#: Methods that are to have the law of the sky: the optimum shows what the patches can tell.
_DRAWN = {SAMPLED: "network with fluctuations", REALIZATION: "Gaussian sample, the control"}

#: Largest rms error in holes over that of the optimum, and radius up to which it is to be reached.
_ERROR_BAR, _RADIUS = 1.05, 25.0

#: Largest distance of a wide band's power ratio from 1, and share of a patch up to which it counts.
_POWER_BAR, _AREA = 0.01, 0.1

#: Largest distance of the standard deviation in holes from the truth's, relative. Networks lose a
#: sixth of it.
_STD_BAR = 0.02

#: Largest shift of a spectral index, in its standard errors: there are some ten such checks.
_INDEX_SIGMAS = 3.0


def inpainting_verdicts(metrics: pd.DataFrame) -> list[dict]:
    """All verdicts on a run's metrics, of each field and case.

    `metrics` is the table of `tasks.inpainting_scores.evaluate_run`. Methods that a table lacks are
    not judged.
    """
    found = []
    for field in metrics["field"].dropna().unique():
        rows = metrics[metrics["field"] == field]
        found += [
            *unchanged(rows, field),
            *optimum(rows, field),
            *surface(rows, field),
            *power(rows, field),
            *spread(rows, field),
        ]
    return found + index_verdicts(metrics)


def unchanged(metrics: pd.DataFrame, field: str) -> list[dict]:
    """Is every pixel that was seen the same as before, to the last bit, for all methods?"""
    rows = metrics[(metrics["statistic"] == "seen_change_max") & (metrics["method"] != "raw")]
    return [
        verdict(
            f"{field}, {_words(case)}: largest change of a pixel that was seen",
            of["value"].max(skipna=False),
            0,
            "<=",
            note=", ".join(of["method"]),
        )
        for case, of in _cases(rows)
    ]


def optimum(metrics: pd.DataFrame, field: str) -> list[dict]:
    """Is the network's error in discs near the least that a Gaussian sky allows?"""
    return [
        verdict(
            f"{field}, {_words(row['case'])}: rms error of the network over that of the "
            "constrained mean",
            row["value"],
            _ERROR_BAR,
            "<=",
            note=_error(row),
        )
        for row in _records(metrics, NETWORK, "error_ratio")
        if _radius(row["case"]) <= _RADIUS
    ]


def surface(metrics: pd.DataFrame, field: str) -> list[dict]:
    """Is the network at least as near as a smooth surface across the hole?"""
    return [
        verdict(
            f"{field}, {_words(row['case'])}: rms error of the network over that of diffusive "
            "filling",
            row["value"],
            1,
            "<=",
            note=_error(row),
        )
        for row in _records(metrics, NETWORK, "error_ratio_diffusive")
    ]


def power(metrics: pd.DataFrame, field: str) -> list[dict]:
    """Do filled maps have the truth's power, where holes are small?"""
    areas = metrics[metrics["statistic"] == "area"]
    small = areas.loc[areas["value"] <= _AREA, "case"]
    found = []
    for method, words in _DRAWN.items():
        rows = _rows(metrics, method, "power_ratio_wide")
        for case, of in _cases(rows[rows["case"].isin(small)]):
            off = (of["value"] - 1).abs()
            found.append(
                verdict(
                    f"{field}, {_words(case)}: power of the {words} over the truth's, furthest "
                    "from 1 in a wide band, off by",
                    off.max(skipna=False),
                    _POWER_BAR,
                    "<=",
                    note=_at(of.iloc[int(off.to_numpy().argmax())]) if off.notna().all() else "",
                )
            )
    return found


def spread(metrics: pd.DataFrame, field: str) -> list[dict]:
    """Do pixels in holes scatter as those of a Gaussian sample do, whose law is the truth's?

    Both have the same fluctuations, so that what the true patches happen to have cancels.
    """
    controls = {row["case"]: row for row in _records(metrics, REALIZATION, "std_ratio")}
    return [
        verdict(
            f"{field}, {_words(row['case'])}: standard deviation in holes of the "
            f"{_DRAWN[SAMPLED]} over that of a Gaussian sample, off by",
            abs(row["value"] / controls[row["case"]]["value"] - 1),
            _STD_BAR,
            "<=",
            note=f"over the truth's {_error(row)}{_alone(metrics, row['case'])}",
        )
        for row in _records(metrics, SAMPLED, "std_ratio")
        if row["case"] in controls
    ]


def index_verdicts(rows: pd.DataFrame) -> list[dict]:
    """Is a spectral index from filled maps that of the whole maps, patch by patch?

    `rows` are those of `estimators.spectral_index.index_metrics`; `estimate_shift` is judged, of
    methods with the law of the sky: no other can be unbiased.
    """
    found = []
    for method, words in _DRAWN.items():
        for row in _records(rows, method, "estimate_shift"):
            where = f"{row['field']}, {_words(row['case'])}"
            sigmas = abs(row["value"]) / row["error"] if row["error"] > 0 else math.nan
            found.append(
                verdict(
                    f"{where}: shift of the spectral index in maps of the {words}, in its standard "
                    "errors",
                    sigmas,
                    _INDEX_SIGMAS,
                    "<=",
                    unit="standard errors",
                    note=_signed(
                        f"{row['value']:.5f} ± {row['error']:.5f}, {row['n']:.0f} patches"
                    ),
                )
            )
    return found


def _rows(metrics: pd.DataFrame, method: str, statistic: str) -> pd.DataFrame:
    return metrics[(metrics["method"] == method) & (metrics["statistic"] == statistic)]


def _records(metrics: pd.DataFrame, method: str, statistic: str) -> list[dict[str, Any]]:
    """Rows as mappings from columns."""
    rows = _rows(metrics, method, statistic).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def _cases(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows by case, in their order."""
    return [(str(case), of) for case, of in rows.groupby("case", sort=False)]


def _radius(case: str) -> float:
    """A disc's radius, pixels; not a number for other holes."""
    kind, _, number = case.partition("_")
    return float(number) if kind == "radius" else math.nan


def _words(case: str) -> str:
    """What a case is called."""
    kind, _, number = case.partition("_")
    return f"radius {number} px" if kind == "radius" else case


def _error(row: Mapping[str, Any]) -> str:
    return _signed(f"{row['value']:.4f} ± {row['error']:.4f}, {row['n']:.0f} patches")


def _at(row: pd.Series) -> str:
    return _signed(f"{row['value']:.4f} ± {row['error']:.4f} around ell {row['ell']:.0f}")


def _signed(note: str) -> str:
    return note.replace("-", "−")


def _alone(metrics: pd.DataFrame, case: str) -> str:
    rows = _rows(metrics, NETWORK, "std_ratio")
    found = rows.loc[rows["case"] == case, "value"]
    return f"; of the network alone {found.item():.4f}" if len(found) else ""
