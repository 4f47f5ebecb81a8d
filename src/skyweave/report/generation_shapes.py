"""Morphology of generated images beside that of real ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from skyweave.data.predictions import NETWORK
from skyweave.errors import UserError
from skyweave.report.style import canvas, hide_unused, legend_below, method_style, nothing_drawn

#: What all images are held against.
TRUTH = "truth"
#: Sets of a histogram: the truth first, which is filled.
_OUTLINED = (TRUTH, "real", NETWORK)

#: Statistics, in words; power is the mean over the wave numbers.
STATISTICS = {
    "mean": "mean",
    "power": "power spectrum",
    "sersic_index": "Sérsic index",
    "half_light_radius": "half-light radius [pixels]",
    "ellipticity": "ellipticity",
    "concentration": "concentration",
    "asymmetry": "asymmetry",
    "smoothness": "smoothness",
    "gini": "Gini",
    "m20": "$M_{20}$",
    "flux": "flux",
}

#: Bins of a histogram; the quantiles of the truth that it spans, and the share of their distance
#: that it reaches beyond them.
_BINS, _SPAN, _ROOM = 24, (0.01, 0.99), 0.25


def morphology(shapes: pd.DataFrame, metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw histograms of what was measured of images, a panel a statistic and band.

    Returns a row a bin: method, `low`, `high` and `share` of the images; what lies outside has no
    `low` or no `high`. Where nothing was measured, that is said.
    """
    names = [name for name in STATISTICS if name in shapes]
    bands = list(shapes["field"].unique())
    if not names or not bands:
        return nothing_drawn(path, "Morphology was not measured.")
    width = 3 if len(bands) == 1 else 5
    height = -(-len(names) // width)
    found: list[pd.DataFrame] = []
    size = (3.1 * width, 2.6 * height * len(bands) + 0.4)
    with canvas(path, height * len(bands), width, size=size) as (figure, axes):
        used = []
        for number, band in enumerate(bands):
            panels = axes[number * height : (number + 1) * height]
            hide_unused(panels, len(names))
            for ax, name in zip(panels.ravel(), names, strict=False):
                part = shapes[shapes["field"] == band]
                rows = _histograms({m: part.loc[part["method"] == m, name] for m in _OUTLINED})
                rows = rows.assign(field=band, statistic=name)
                _outlines(ax, rows)
                ax.set_xlabel(
                    STATISTICS[name] if len(bands) == 1 else f"{STATISTICS[name]}, {band}"
                )
                ax.set_title(_distance_words(metrics, str(band), name, rows), fontsize=8)
                found.append(rows)
                used.append(ax)
            for line in panels:
                line[0].set_ylabel("share of images")
        legend_below(figure, used)
    columns = ["field", "statistic", "method", "low", "high", "share"]
    return pd.concat(found, ignore_index=True)[columns]


def _histograms(sets: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Shares of the values of each set by bin, the same ones for all, and outside of them."""
    truth = sets[TRUTH].dropna()
    low, high = truth.quantile(list(_SPAN)) if len(truth) else (0.0, 1.0)
    room = _ROOM * (high - low) or 0.5
    edges = np.linspace(low - room, high + room, _BINS + 1)
    found = []
    for method, values in sets.items():
        known = values.dropna().to_numpy(float)
        ends = np.concatenate([[-np.inf], edges, [np.inf]])
        share = np.histogram(known, ends)[0] / max(known.size, 1)
        bounds = np.where(np.isfinite(ends), ends, np.nan)
        frame = pd.DataFrame({"low": bounds[:-1], "high": bounds[1:], "share": share})
        found.append(frame.assign(method=method))
    return pd.concat(found)


def _outlines(ax: Axes, rows: pd.DataFrame) -> None:
    """The truth filled, others as steps."""
    for method in _OUTLINED:
        of = rows[rows["method"] == method].dropna()
        label, colour, _, line = method_style(method, _OUTLINED)
        edges = np.append(of["low"].to_numpy(), of["high"].iloc[-1])
        look: dict[str, Any] = {"label": label, "color": colour, "ls": line, "lw": 1.2}
        if method == TRUTH:
            look = {"label": label, "fill": True, "color": "#c4c9d1", "lw": 0}
        ax.stairs(of["share"], edges, **look)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _distance_words(metrics: pd.DataFrame, band: str, name: str, rows: pd.DataFrame) -> str:
    """Distance of the network and of other real images, and what lies outside of the bins."""
    of = metrics[(metrics["statistic"] == f"distance_{name}") & (metrics["field"] == band)]
    by = {row["method"]: row for row in of.to_dict("records")}
    if NETWORK not in by:
        raise UserError("metrics.csv", f"rows of the statistic 'distance_{name}'", "none")
    own = by[NETWORK]
    words = f"W {own['value']:.3g} ± {own['error']:.2g}"
    words += f", real {by['real']['value']:.2g}" if "real" in by else ""
    open_ended = rows["low"].isna() | rows["high"].isna()
    outside = rows.loc[open_ended & (rows["method"] == NETWORK), "share"].sum()
    return f"{words}\n{100 * outside:.{1 if 0 < outside < 0.1 else 0}f} % of the network's outside"
