"""The figure of debiased spectra: the truth's spectrum as predictions tell it, and its bias."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from skyweave.report.style import (
    BLACK,
    GREY,
    canvas,
    dl,
    field_label,
    legend_below,
    log_ell,
    method_style,
    with_unit,
)

STATISTICS = ("power_truth", "spectrum_estimate", "spectrum_bias")


def spectrum(metrics: pd.DataFrame, units: dict[str, str], path: Path) -> pd.DataFrame:
    """Draw Ĉ as D_ell over the truth's, and its bias below, a column a field; returns the rows.

    `units` are those of the maps, by field; the rows hold C_ell in their squares.
    """
    rows = metrics[metrics["statistic"].isin(STATISTICS)]
    parts = [part for _, part in rows.groupby("field", sort=False)]
    size = (3.6 * len(parts), 5.0)
    with canvas(path, 2, len(parts), size=size, sharex="col", height_ratios=[5, 3]) as (
        figure,
        axes,
    ):
        for (above, below), part in zip(axes.T, parts, strict=True):
            field = str(part["field"].iloc[0])
            unit = units.get(field, "")
            _power(above, part)
            above.set_title(field_label(field))
            above.set_ylabel(with_unit(r"$D_\ell$", {"uK_CMB": "µK²"}.get(unit, unit)))
            _bias(below, part)
            below.set_xlim(0.85 * part["ell"].min(), 1.18 * part["ell"].max())
            log_ell(below)
        legend_below(figure, list(axes[0]))
    return rows


def _power(ax: Axes, part: pd.DataFrame) -> None:
    """Spectra of the truth and of each method, debiased."""
    truth = part[part["statistic"] == "power_truth"]
    truth = truth[truth["method"] == truth["method"].iloc[0]].sort_values("ell")
    level = dl(truth["ell"].to_numpy(float), truth["value"].to_numpy(float))
    ax.plot(truth["ell"], np.where(level > 0, level, np.nan), color=BLACK, label="truth")
    ax.set_yscale("log")
    if (level > 0).any():
        ax.set_ylim(level[level > 0].min() / 5, 5 * level.max())
    estimates = part[part["statistic"] == "spectrum_estimate"]
    _draw(ax, estimates.assign(**_as_dl(estimates)))
    if not estimates["value"].notna().any():
        words = "no band can be debiased"
        ax.text(0.5, 0.1, words, transform=ax.transAxes, ha="center", color=GREY)


def _bias(ax: Axes, part: pd.DataFrame) -> None:
    """Relative bias of each method."""
    bias = part[part["statistic"] == "spectrum_bias"]
    ax.axhline(0, color=GREY, lw=0.8)
    _draw(ax, bias)
    # A band that is hardly known must not flatten all others.
    known = bias[~(bias["error"] > 10 * bias["error"].median())]
    reach = float((known["value"].abs() + known["error"].fillna(0)).max())
    limit = 1.1 * reach if reach > 0 else 1.0
    ax.set_ylim(-limit, limit)
    ax.set_ylabel("relative bias")


def _draw(ax: Axes, rows: pd.DataFrame) -> None:
    """Points with errors, a style a method, side by side."""
    methods = list(rows["method"].unique())
    for number, method in enumerate(methods):
        of_method = rows[rows["method"] == method].sort_values("ell")
        label, colour, marker, _ = method_style(method, methods)
        ell, value, error = (of_method[name].to_numpy(float) for name in ("ell", "value", "error"))
        ax.errorbar(
            ell * (1 + 0.015 * (number - (len(methods) - 1) / 2)),
            value,
            np.nan_to_num(error),
            color=colour,
            marker=marker,
            ls="none",
            lw=1,
            label=label,
        )


def _as_dl(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Values and errors as D_ell."""
    ell = rows["ell"].to_numpy(float)
    return {name: dl(ell, rows[name].to_numpy(float)) for name in ("value", "error")}
