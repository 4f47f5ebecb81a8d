"""Verdicts on a decomposition: power, what it costs in correlation, calibration, and leakage."""

import math

import numpy as np
import pandas as pd

from skyweave.data.predictions import NETWORK
from skyweave.statistics.coverage import LEVELS
from skyweave.statistics.fidelity import ELL, SAMPLES
from skyweave.statistics.verdicts import verdict

#: Largest distance of a band's power ratio from 1.
_POWER_BAR = 0.05

#: Largest loss of r_ell in a band against the run without an adversary.
_LOSS_BAR = 0.01

#: Largest distance of a band's coverage from its level.
_COVERAGE_BAR = 0.05

#: Most of the power that may be left where there is no B.
_LEAKAGE_BAR = 0.1


def decomposition_verdicts(
    metrics: pd.DataFrame, *, sampled: bool, plain: str | None = None
) -> list[dict]:
    """All verdicts on a run, which makes samples or not.

    `metrics` has rows of `fidelity_metrics`, of `paired_difference` from the run `plain` where
    there is one, of `sample_calibration` where it makes samples, and of `null_power` where B was
    tested on skies without it. Samples have the power to be right and their mean the correlation.
    Fields of B are judged by `leakage` alone.
    """
    judged = SAMPLES if sampled else NETWORK
    found = []
    for field in metrics["field"].unique():
        if field.startswith("b_"):
            found += leakage(metrics, field)
            continue
        found += power(metrics, field, judged)
        if plain is not None:
            found += loss(metrics, field, plain)
        if sampled:
            found += coverage(metrics, field)
    return found


def power(metrics: pd.DataFrame, field: str, method: str) -> list[dict]:
    """Is the power right in every band below `ELL`?"""
    rows = _bands(metrics, field, method, "power_ratio")
    rows = rows[rows["ell"] < ELL]
    off, worst = _worst(rows, (rows["value"] - 1).abs())
    of = "samples" if method == SAMPLES else "the prediction"
    return [
        verdict(
            f"{field}: power of {of} over the truth's, furthest from 1 below ell {ELL:.0f}, off by",
            off,
            _POWER_BAR,
            "<=",
            note=_at(worst),
        )
    ]


def loss(metrics: pd.DataFrame, field: str, plain: str) -> list[dict]:
    """Is the correlation in every band as good as that of the run `plain`, on the same patches?

    No verdict where that run has no such field.
    """
    rows = _bands(metrics, field, plain, "correlation_difference")
    if rows.empty:
        return []
    off, worst = _worst(rows, -rows["value"])
    return [
        verdict(
            f"{field}: largest loss of r_ell in a band against the run {plain}",
            off,
            _LOSS_BAR,
            "<=",
            note=f"difference {words} on the same patches" if (words := _at(worst)) else "",
        )
    ]


def coverage(metrics: pd.DataFrame, field: str) -> list[dict]:
    """Do the samples' central intervals hold the modes of the truth as often as they say?"""
    found = []
    for level in LEVELS:
        rows = _bands(metrics, field, SAMPLES, f"coverage_{100 * level:.0f}")
        off, worst = _worst(rows, (rows["value"] - level).abs())
        found.append(
            verdict(
                f"{field}: share of modes in their {100 * level:.0f} % interval of samples, "
                "furthest from it, off by",
                off,
                _COVERAGE_BAR,
                "<=",
                note=_at(worst),
            )
        )
    return found


def leakage(metrics: pd.DataFrame, field: str) -> list[dict]:
    """Is B that is not there left out? No verdict where no sky without B was predicted.

    The power predicted on skies without B, over that predicted where there is B, and over what the
    analytic equation leaks on the same skies; means over the bands below `ELL`. The bar is a
    tenth for both. A tensor B mode goes with r: what a tenth of the power of a map of B can feign
    is a tenth of its r. And a network is worth its cost beside an equation where it takes away an
    order of magnitude of the leakage. Sets of skies without B are pooled. Errors of sets and of
    bands are added up as independent ones.
    """
    null = _pooled(_bands(metrics, field, NETWORK, "power_null"))
    others = {
        "over that where there is B": _bands(metrics, field, NETWORK, "power_prediction"),
        "over leakage and noise of the analytic E/B": _pooled(
            _bands(metrics, field, "analytic_eb", "power_null")
        ),
    }
    found = []
    for words, other in others.items():
        both = null.merge(other, on="ell", suffixes=("", "_other"))
        both = both[both["ell"] < ELL]
        if both.empty:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = both["value"] / both["value_other"]
            errors = np.hypot(both["error"], ratio * both["error_other"]) / both["value_other"]
        error = np.sqrt(np.sum(errors**2)) / len(both)
        found.append(
            verdict(
                f"{field}: power predicted on skies without B {words}",
                float(ratio.mean(skipna=False)),
                _LEAKAGE_BAR,
                "<=",
                note=f"± {error:.4f}, mean over {len(both)} bands below ell {ELL:.0f}, "
                f"{int(both['n'].iloc[0])} skies without B",
            )
        )
    return found


def _bands(metrics: pd.DataFrame, field: str, method: str, statistic: str) -> pd.DataFrame:
    """The rows of one statistic by band."""
    named = (metrics["field"] == field) & (metrics["method"] == method)
    rows = metrics[named & (metrics["statistic"] == statistic) & metrics["ell"].notna()]
    return rows[["ell", "value", "error", "n"]].reset_index(drop=True)


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a band of several sets of patches, each with the weight of its number."""
    weighted = rows.assign(value=rows["value"] * rows["n"], error=(rows["error"] * rows["n"]) ** 2)
    sums = weighted.groupby("ell", as_index=False).sum()
    return sums.assign(value=sums["value"] / sums["n"], error=np.sqrt(sums["error"]) / sums["n"])


def _worst(rows: pd.DataFrame, distance: pd.Series) -> tuple[float, pd.Series | None]:
    """The largest distance and its band; not a number where one is not known, or there are none."""
    if distance.empty or distance.isna().any():
        return math.nan, None
    return float(distance.max()), rows.iloc[int(distance.to_numpy().argmax())]


def _at(row: pd.Series | None) -> str:
    if row is None:
        return ""
    return f"{row['value']:.4f} ± {row['error']:.4f} at ell {row['ell']:.0f}".replace("-", "−")
