"""Verdicts on filled holes: nothing seen is changed, near the optimum, and with the sky's law.

Errors in notes are jackknife over patches taken as independent, which crops of one map are only
nearly; those of a spectral index are from the scatter over whole areas.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from skyweave.data.predictions import NETWORK
from skyweave.estimators.spectral_index import CLASS_AREAS, CLASS_SHIFT
from skyweave.statistics.verdicts import verdict

#: Methods beside the network: the mean of a Gaussian sky given what was seen, a sample of it, the
#: smooth surface, and the network with the fluctuations that such a sample has around its mean;
#: the last with those of the spectral index that the filled map itself tells.
CONSTRAINED, REALIZATION = "constrained", "realization"
DIFFUSIVE, SAMPLED, ITERATED = "diffusive", "sampled", "iterated"

#: Statistic of `SAMPLED`: its standard deviation in holes over that of `REALIZATION`.
SPREAD_RATIO = "std_ratio_realization"

#: Methods that are to have the law of the sky: the optimum shows what the patches can tell.
_DRAWN = {SAMPLED: "network with fluctuations", REALIZATION: "Gaussian sample, the control"}

#: Methods whose spectral index is judged.
_TELLING = {
    SAMPLED: _DRAWN[SAMPLED],
    ITERATED: "network with fluctuations of the index that it tells",
    REALIZATION: _DRAWN[REALIZATION],
}

#: Largest rms error in holes over that of the optimum, and radius up to which it is to be reached.
_ERROR_BAR, _RADIUS = 1.05, 25.0

#: Largest distance of a wide band's power ratio from 1, and share of a patch up to which it counts.
_POWER_BAR, _AREA = 0.01, 0.1

#: Largest distance of the standard deviation in holes from the truth's, relative. Networks lose a
#: sixth of it.
_STD_BAR = 0.02

#: Largest distance of a control from what it is to be, and of the class furthest off of a spectral
#: index, in standard errors. A run has tens of such numbers, and each error comes from some ten
#: areas or more only, so that three errors are passed now and then by chance.
_SIGMAS = 3.5


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
            *spread_control(rows, field),
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
    return [
        verdict(
            f"{field}, {_words(row['case'])}: standard deviation in holes of the "
            f"{_DRAWN[SAMPLED]} over that of a Gaussian sample, off by",
            abs(row["value"] - 1),
            _STD_BAR,
            "<=",
            note=f"{_error(row)}{_alone(metrics, row['case'])}",
        )
        for row in _records(metrics, SAMPLED, SPREAD_RATIO)
    ]


def spread_control(metrics: pd.DataFrame, field: str) -> list[dict]:
    """Do pixels in holes of a Gaussian sample scatter as true ones?

    Not if it is drawn from another covariance than the sky's.
    """
    return [
        verdict(
            f"{field}, {_words(row['case'])}: standard deviation in holes of the "
            f"{_DRAWN[REALIZATION]}, over the truth's, off by",
            _sigmas(row["value"] - 1, row["error"]),
            _SIGMAS,
            "<=",
            unit="standard errors",
            note=_error(row),
        )
        for row in _records(metrics, REALIZATION, "std_ratio")
    ]


def index_verdicts(rows: pd.DataFrame) -> list[dict]:
    """Is a spectral index from filled maps that of the whole maps, patch by patch, in each class?

    `rows` are those of `estimators.spectral_index.index_metrics`. Fluctuations of the mean spectrum
    of all classes pull low values up and high ones down, which cancels in the mean: the class
    furthest off in its standard errors is judged. Those errors are from the scatter over whole
    areas; a class with one area has none, and is not judged. Of few areas it is not well known: the
    distance is that which is as unlikely for errors that are, by Student's law. Only methods with
    the law of the sky are judged: no other can be unbiased.
    """
    return [
        _index_verdict(rows, row, words)
        for method, words in _TELLING.items()
        for row in _records(rows, method, "estimate_shift")
    ]


def _index_verdict(rows: pd.DataFrame, whole: Mapping[str, Any], words: str) -> dict:
    """The verdict on the classes of the field, case and method of a row over all of them."""
    keys = ["field", "case", "method"]
    own = (rows[keys] == [whole[key] for key in keys]).all(axis=1)
    of = rows[own & rows["statistic"].str.startswith(CLASS_SHIFT)]
    of = of[of["error"].notna() | of["value"].isna()]
    counts = rows[own].set_index("statistic")["value"]
    names = of["statistic"].str.removeprefix(CLASS_SHIFT)
    areas = [counts.get(f"{CLASS_AREAS}{name}", math.inf) for name in names]
    sigmas = [_sigmas(*each) for each in zip(of["value"], of["error"], areas, strict=True)]
    worst = int(np.argmax(sigmas)) if sigmas else 0
    note = f"all classes {whole['value']:.5f} ± {whole['error']:.5f}"
    if sigmas:
        row = of.iloc[worst]
        name = row["statistic"].removeprefix(CLASS_SHIFT)
        shift = f"{row['value']:.5f} ± {row['error']:.5f}"
        note = f"class {name}: {shift}, {row['n']:.0f} patches; {note}"
    return verdict(
        f"{whole['field']}, {_words(whole['case'])}: shift of the spectral index in maps of the "
        f"{words}, of the class furthest off, in its standard errors",
        sigmas[worst] if sigmas else math.nan,
        _SIGMAS,
        "<=",
        unit="standard errors",
        note=_signed(note),
    )


def _sigmas(value: float, error: float, areas: float = math.inf) -> float:
    """Distance from 0 in standard errors of so many areas, as if they were many.

    Not a number without an error.
    """
    if not error > 0:
        return math.nan
    distance = abs(value) / error
    if not math.isfinite(areas):
        return distance
    from scipy import stats  # half a second that other reports are spared

    return float(stats.norm.isf(stats.t.sf(distance, areas - 1)))


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
