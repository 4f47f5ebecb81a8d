"""The figure of calibration: coverage by multipole, and expected coverage of whole maps."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from skyweave.report.style import (
    GREY,
    canvas,
    field_label,
    legend_below,
    log_ell,
    method_style,
)

CURVE_COLUMNS = ("field", "method", "posterior", "credibility", "coverage", "error")
LEVELS = {"coverage_68": 0.68, "coverage_95": 0.95}


def calibration(metrics: pd.DataFrame, curves: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw coverage by band above and TARP's curves below, a column a field; returns the rows.

    The rows are those of the coverages and, with `credibility` and as `tarp` or `tarp_regressed`,
    those of the `curves`.
    """
    rows = metrics[metrics["statistic"].isin(LEVELS)]
    fields = list(rows["field"].unique())
    with canvas(path, 2, len(fields), size=(3.6 * len(fields), 6.2)) as (figure, axes):
        for (above, below), field in zip(axes.T, fields, strict=True):
            _coverage(above, rows[rows["field"] == field])
            above.set_title(field_label(str(field)))
            _tarp(below, curves[curves["field"] == field])
        legend_below(figure, list(axes[0]))
    statistic = {"prediction": "tarp", "regressed": "tarp_regressed"}
    table = curves.assign(statistic=curves["posterior"].map(statistic), value=curves["coverage"])
    kept = ["field", "method", "statistic", "ell", "credibility", "value", "error"]
    both = [frame for frame in (rows, table) if len(frame)]
    return pd.concat(both, ignore_index=True).reindex(columns=kept)


def _coverage(ax: Axes, part: pd.DataFrame) -> None:
    """Shares by band with errors; shares of pixels as lines across."""
    methods = list(part["method"].unique())
    for level in LEVELS.values():
        ax.axhline(level, color=GREY, lw=0.8, ls="--")
    for method in methods:
        label, colour, marker, _ = method_style(method, methods)
        for statistic in LEVELS:
            rows = part[(part["method"] == method) & (part["statistic"] == statistic)]
            bands = rows[rows["ell"].notna()].sort_values("ell")
            ell, value, error = (bands[name].to_numpy(float) for name in ("ell", "value", "error"))
            ax.errorbar(
                ell, value, np.nan_to_num(error), color=colour, marker=marker, lw=0.8, label=label
            )
            for value in rows[rows["ell"].isna()]["value"]:
                ax.axhline(value, color=colour, lw=1.2, ls=":", label=f"{label}, pixels")
    low = part["value"].min()
    ax.set_ylim(min(0.5, 0.97 * low) if low == low else 0.5, 1.0)
    ax.set_ylabel("share in the interval")
    if part["ell"].notna().any():
        ax.set_xlim(0.85 * part["ell"].min(), 1.18 * part["ell"].max())
    log_ell(ax)


def _tarp(ax: Axes, part: pd.DataFrame) -> None:
    """Expected coverage against credibility, and what chance does around the diagonal."""
    ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
    methods = list(part["method"].unique())
    for number, ((method, posterior), rows) in enumerate(
        part.groupby(["method", "posterior"], sort=False)
    ):
        _, colour, _, line = method_style(str(method), methods)
        level = rows["credibility"].to_numpy(float)
        if number == 0:
            chance = 1.96 * rows["error"].to_numpy(float)
            ax.fill_between(level, level - chance, level + chance, color=GREY, alpha=0.2, lw=0)
        width = 0.8 if posterior == "regressed" else 1.8
        ax.plot(level, rows["coverage"], color=colour, ls=line, lw=width)
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("credibility")
    ax.set_ylabel("expected coverage")
