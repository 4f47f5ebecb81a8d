"""What generated images in the training buy: runs that differ by their share, compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skyweave.config import Config, DenoisingRun
from skyweave.data.predictions import NETWORK
from skyweave.statistics.tables import read_table
from skyweave.statistics.verdicts import verdict

#: Settings by which runs of a group may differ.
_FREE = {"alpha", "repeat", "generated"}
#: Standard errors that a gain must have.
_SIGMAS = 2.0


def alphas(study: Config) -> dict[str, dict[str, float]]:
    """Denoising runs and their `alpha` by dataset, where some have none and others more.

    Those of a dataset are alike but for `alpha` and `repeat`, and one run `generated` the images of
    all that mix some in; of several such groups the largest counts, of two as large the first by
    its runs' names.
    """
    runs = {name: run for name, run in sorted(study.runs.items()) if isinstance(run, DenoisingRun)}
    kinds = {name: run.model_dump_json(exclude=_FREE) for name, run in runs.items()}
    found: dict[str, dict[str, float]] = {}
    for name, run in runs.items():
        group = {
            other: one.alpha
            for other, one in runs.items()
            if kinds[other] == kinds[name] and (not one.alpha or one.generated == run.generated)
        }
        able = bool(run.alpha) and 0 in group.values()
        if able and len(group) > len(found.get(run.dataset, ())):
            found[run.dataset] = group
    return dict(sorted(found.items()))


def compare(
    runs: Mapping[str, float], metrics: Sequence[str | Path]
) -> tuple[pd.DataFrame, list[dict]]:
    """Table and verdicts of runs with their `alpha`, from their metrics in the same order.

    A row a field, case and alpha: `mse`, mean over the networks, `error`, its standard error from
    their scatter (NaN of one), `networks`, `gain`, what it is lower by than with alpha 0, as a
    share of that, and `gain_error`. Judged is the gain of the best alpha in each case, of those
    whose gain has an error if any has.
    """
    tables = [
        read_table(path).assign(alpha=alpha)
        for (_, alpha), path in zip(runs.items(), metrics, strict=True)
    ]
    rows = pd.concat(tables, ignore_index=True)
    rows = rows[(rows["statistic"] == "mse") & (rows["method"] == NETWORK)]
    found: list[dict[str, Any]] = []
    for (field, case), part in rows.groupby(["field", "case"], sort=False):
        by = {
            float(alpha): part.loc[part["alpha"] == alpha, "value"].to_numpy(float)
            for alpha in part["alpha"].unique()
        }
        plain, plain_error = _mean(by[0.0])
        for alpha, values in sorted(by.items()):
            mean, error = _mean(values)
            ratio = mean / plain
            gain_error = ratio * np.hypot(error / mean, plain_error / plain) if alpha else 0.0
            found.append(
                {
                    "field": field,
                    "case": case,
                    "alpha": alpha,
                    "networks": len(values),
                    "mse": mean,
                    "error": error,
                    "gain": 1 - ratio,
                    "gain_error": gain_error,
                }
            )
    table = pd.DataFrame(found)
    return table, _verdicts(table)


def _mean(values: np.ndarray) -> tuple[float, float]:
    count = len(values)
    error = values.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return float(values.mean()), float(error)


def _verdicts(table: pd.DataFrame) -> list[dict]:
    """Does mixing in generated images lower the error under conditions that were never seen?"""
    from skyweave.tasks.denoising_scores import case_words

    found = []
    for (field, case), part in table[table["alpha"] > 0].groupby(["field", "case"], sort=False):
        if case == "none":
            continue
        plain = table[(table["field"] == field) & (table["case"] == case) & (table["alpha"] == 0)]
        counts = int(plain["networks"].iloc[0])
        # One network alone tells no scatter: then nothing is shown.
        known = part[part["gain_error"].notna()]
        best = (part if known.empty else known).sort_values("gain").iloc[-1]
        error = best["gain_error"]
        note = f"± {error:.2g}, {int(best['networks'])} networks against {counts} without"
        if known.empty:
            note = "one network alone tells no scatter"
        found.append(
            verdict(
                f"{field}, {case_words(str(case))}: error lower with generated images, "
                f"share (alpha {best['alpha']:g})",
                best["gain"],
                _SIGMAS * error,
                ">",
                note=f"{note}; bar {_SIGMAS:g} standard errors",
            )
        )
    return found
