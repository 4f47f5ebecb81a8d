"""What generated images in the training buy: runs that differ by their share, compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skyweave.data.predictions import NETWORK
from skyweave.statistics.restoration import case_words
from skyweave.statistics.tables import read_table
from skyweave.statistics.verdicts import verdict

#: Probability that generated images which do nothing pass in a field and case.
_CHANCE = 0.025

#: Denoising runs by name, and the `alpha` and `repeat` of each.
Runs = Mapping[str, tuple[float, int]]


def compare(runs: Runs, metrics: Sequence[str | Path]) -> tuple[pd.DataFrame, list[dict]]:
    """Table and verdicts of runs with their `alpha` and `repeat`, from their metrics in that order.

    A row a field, case and alpha: `mse`, mean over the `networks`, `error`, its standard error from
    their scatter, and of the `pairs`, networks that have one of alpha 0 with the same repeat, thus
    weights, order and noise: `gain`, the mean difference of the two over the mean error of those
    without, and `gain_error` from the differences' scatter. NaN is what too few networks tell.

    Judged is the best alpha in each case that was not trained on, of those with at least two pairs:
    whether its gain is beyond chance by Student's t, as the best of so many.
    """
    tables = [
        read_table(path).assign(alpha=alpha, repeat=repeat)
        for (alpha, repeat), path in zip(runs.values(), metrics, strict=True)
    ]
    rows = pd.concat(tables, ignore_index=True)
    rows = rows[(rows["statistic"] == "mse") & (rows["method"] == NETWORK)]
    found: list[dict[str, Any]] = []
    for (field, case), part in rows.groupby(["field", "case"], sort=False):
        by = {
            alpha: part[part["alpha"] == alpha].set_index("repeat")["value"]
            for alpha in sorted(map(float, part["alpha"].unique()))
        }
        for alpha, values in by.items():
            repeats = values.index.intersection(by[0.0].index)
            plain = by[0.0][repeats].to_numpy(float)
            mean, error = _mean(values.to_numpy(float))
            gain, gain_error = _mean(plain - values[repeats].to_numpy(float))
            found.append(
                {
                    "field": field,
                    "case": case,
                    "alpha": alpha,
                    "networks": len(values),
                    "mse": mean,
                    "error": error,
                    "pairs": len(repeats),
                    "gain": gain / _mean(plain)[0],
                    "gain_error": gain_error / _mean(plain)[0] if alpha else 0.0,
                }
            )
    table = pd.DataFrame(found)
    return table, _verdicts(table)


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error; NaN of too few."""
    count = len(values)
    error = values.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return float(values.mean()) if count else np.nan, float(error)


def _verdicts(table: pd.DataFrame) -> list[dict]:
    """Does mixing in generated images lower the error under conditions that were never seen?"""
    from scipy.special import stdtrit

    judged = table[(table["alpha"] > 0) & (table["pairs"] > 1) & (table["case"] != "none")]
    found = []
    for (field, case), part in judged.groupby(["field", "case"], sort=False):
        best = part.sort_values("gain", na_position="first").iloc[-1]
        pairs, error = int(best["pairs"]), best["gain_error"]
        # The best of several passes by chance as often as one alone.
        sigmas = float(stdtrit(pairs - 1, 1 - _CHANCE / len(part)))
        among = f", the best of {len(part)} alphas" if len(part) > 1 else ""
        found.append(
            verdict(
                f"{field}, {case_words(str(case))}: error lower with generated images, "
                f"share (alpha {best['alpha']:g})",
                best["gain"],
                sigmas * error,
                ">",
                note=f"± {error:.2g} of {pairs} pairs of networks{among}; bar {sigmas:.3g} "
                f"standard errors, passed by chance 1 time in {1 / _CHANCE:g} (Student's t)",
            )
        )
    return found
