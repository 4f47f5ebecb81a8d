"""What a decomposition run has of power and of correlation beside another, in words."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from skyweave.report.style import plain_field
from skyweave.statistics.fidelity import MEAN, SAMPLES

Row = Mapping[Any, Any]

_STATISTICS = ("power_ratio", "correlation")


def bought_words(metrics: pd.DataFrame, plain: str) -> list[str]:
    """What a run has of power and correlation beside the run `plain`, a sentence or two a field.

    From the means of power ratio and r_ell over bands and from the differences on the same patches;
    fields that lack one are left out. Changes below two of their errors count as none.
    """
    found = []
    for field in metrics["field"].unique():
        rows = metrics[(metrics["field"] == field) & metrics["ell"].isna()]
        keyed = {(row["method"], row["statistic"]): row for row in rows.to_dict("records")}
        own = MEAN if (MEAN, "mean_power_ratio") in keyed else "network"
        wanted = [
            (method, f"mean_{statistic}") for method in (own, plain) for statistic in _STATISTICS
        ] + [(plain, f"mean_{statistic}_difference") for statistic in _STATISTICS]
        if not set(wanted) <= set(keyed):
            continue
        power, known, other_power, other, more_power, more = (keyed[key] for key in wanted)
        name = plain_field(str(field))
        words = (
            f"{name[0].upper()}{name[1:]}, mean over the bands below ell 2000: power over the "
            f"truth's {_value(power)} and r_ell {_value(known)}; run {plain} has "
            f"{_value(other_power)} and {_value(other)}, on the same patches. "
            f"{_bought(power, other_power, more_power)}, {_cost(more)}."
        )
        pair = [keyed.get((SAMPLES, f"mean_{statistic}")) for statistic in _STATISTICS]
        if pair[0] is not None and pair[1] is not None:
            words += f" Samples, each by itself: {_value(pair[0])} and {_value(pair[1])}."
        found.append(words)
    return found


def _bought(own: Row, other: Row, difference: Row) -> str:
    """How much nearer to the truth's the power is."""
    nearer = abs(other["value"] - 1) - abs(own["value"] - 1)
    if not abs(difference["value"]) > 2 * difference["error"]:
        return "The power is the same within two standard errors"
    if abs(nearer) <= 2 * difference["error"]:
        return "The power is as far from the truth's, on the other side"
    where = "nearer to" if nearer > 0 else "farther from"
    return f"The power is {abs(nearer):.3f} {where} the truth's"


def _cost(difference: Row) -> str:
    value, error = difference["value"], difference["error"]
    if not abs(value) > 2 * error:
        return f"and r_ell the same within two standard errors ({_value(difference)})"
    change = f"{abs(value):.4f} ± {error:.4f}"
    return f"at the cost of {change} of r_ell" if value < 0 else f"and r_ell is {change} higher"


def _value(row: Row) -> str:
    return f"{row['value']:.4f} ± {row['error']:.4f}".replace("-", "−")
