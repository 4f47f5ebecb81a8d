"""Figures of an inpainting run: maps, errors in holes, power of filled maps, values, training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from skyweave.data.predictions import NETWORK
from skyweave.errors import UserError
from skyweave.report import read
from skyweave.report.inpainting_maps import (
    FILLED,
    TRUTH,
    Filled,
    disc_radius,
    examples,
    in_words,
    one_patch,
)
from skyweave.report.losses import networks, picked
from skyweave.report.reconstruction import METRIC_COLUMNS, of_test_split
from skyweave.report.record import Drawn, write
from skyweave.report.style import (
    GREY,
    canvas,
    field_label,
    grid_shape,
    hide_unused,
    legend_below,
    log_ell,
    method_style,
    plain_field,
)

#: Figures of every run.
FILES = ("examples.png", "errors.svg", "spectra.svg", "values.svg", "losses.svg")

PROFILE_COLUMNS = ("split", "field", "method", "case", "statistic", "x", "value", "error")

#: What is beside each other in a figure of errors.
_COMPARED = (NETWORK, "constrained", "diffusive")

#: Statistics of the figures of errors, spectra and values.
_ERROR, _OVER_OPTIMUM = "error_rms_hole", "error_ratio"
_POWER, _SEEN_POWER = "power_ratio", "power_ratio_namaster"
_PROFILES = ("density", "edge_correlation")

#: Excess over the optimum's error, and share of power, that count as none.
_EXCESS, _OFF = 0.05, 0.01

#: Most kinds of holes in the spectra.
_PANELS = 4


def draw_inpainting(run_folder: str | Path, out_folder: str | Path) -> None:
    """Draw a run's figures (`FILES`), a CSV beside each, and figures.json.

    Reads metrics.csv, values.csv, history.csv, sweep.csv and, of the kinds of holes that are shown
    as maps, ``inpainted/{case}.h5`` from `run_folder`; raises `UserError` when one is missing or
    lacks what is drawn.
    """
    run, out = Path(run_folder), Path(out_folder)
    metrics = _of_holes(run / "metrics.csv", (*METRIC_COLUMNS, "case"), (_ERROR, _POWER))
    profiles = _of_holes(run / "values.csv", PROFILE_COLUMNS, _PROFILES)
    history = read.table(run / "history.csv", ("epoch", "loss", "val_loss"))
    kept, picked_by = picked(run / "sweep.csv", history)
    shown: list[Filled] = []
    for case in _extremes(_cases(metrics)):
        number = shown[0].realization if shown else None
        shown.append(one_patch(run / "inpainted" / f"{case}.h5", case, number))
    fields = ", ".join(plain_field(name) for name in shown[0].maps)
    holes = " and ".join(in_words(one.case) for one in shown)
    drawn = [
        Drawn(
            "examples.png",
            "Filled patch",
            "The first test patch that the holes as trained touch (realization "
            f"{shown[0].realization}), not a picked one, with {holes}; missing pixels are grey. "
            "All maps of a field share the truth's colour scale, and residuals (filled − truth), "
            "if drawn, have one as wide. Network, Gaussian optimum and diffusive filling are "
            "smooth in a hole, as a best guess has to be: what nothing seen tells of is left out. "
            "The network with fluctuations and the constrained realization put it back by chance, "
            "so that they look like the sky but are farther from the truth.",
            f"Maps of {fields}: truth, the same with holes, and the holes filled in several ways.",
            examples(shown, out / "examples.png"),
        ),
        Drawn(
            "errors.svg",
            "Error in the holes",
            "Above, the rms error of the pixels in holes over the field's rms, by the radius of a "
            "disc; at the right, apart, the run's own holes. 0 is perfect, and a hole filled with "
            "the mean of the sky has about 1. Below, the network's error over that of the Gaussian "
            "optimum on the same patches, with a dashed line 5 % above it. For a Gaussian sky of "
            "known spectrum no method has a smaller error than the optimum: a ratio below 1 by "
            "several of its error bars means that the sky is not Gaussian, or that the spectrum "
            "is not quite known. Bars are standard errors over patches.",
            f"Rms error in holes of {fields} against their radius, and its ratio to the optimum's.",
            errors(metrics, out / "errors.svg"),
        ),
        Drawn(
            "spectra.svg",
            "Power of the filled maps",
            "Power of whole patches with filled holes over that of the truth, by multipole; 1 is "
            "right, and the grey band is ± 1 %. Network, Gaussian optimum and diffusive filling "
            "lie below by nature, at small scales most: a best guess has less power than the sky. "
            "The network with fluctuations and the constrained realization should lie in the "
            "band, as far as their error bars tell. NaMaster takes the spectrum of the seen part "
            "alone, without filling, and is drawn where all patches have the same hole; its "
            "scatter may leave the frame. Scales differ from panel to panel.",
            f"Ratio of the power of filled maps to the truth's, against multipole, for {fields}.",
            spectra(metrics, out / "spectra.svg"),
        ),
        Drawn(
            "values.svg",
            "Values in the holes",
            "Above, the distribution of the pixels in holes, around the field's mean and in units "
            "of its rms; a filling has the law of the sky where it lies on the truth. Best guesses "
            "are too narrow, the more so the larger the hole. Below, the correlation of pixels in "
            "a hole with pixels outside, a distance apart across its edge, less that of the truth: "
            "above 0 the filling is too smooth there, below 0 it leaves a seam. The grey band is "
            "the standard error of the truth's correlation over patches, most of which the "
            "fillings share.",
            f"Histograms of pixels in holes and correlations across edges, for {fields}.",
            values(profiles, out / "values.svg"),
        ),
        Drawn(
            "losses.svg",
            "Training",
            "Losses on the training set and on the validation set, which no step is trained on: "
            "the total, each part by itself, without its weight in the total, and the learning "
            "rate. Jumps are expected where a stage of the training begins. The network of the "
            f"ringed epoch is kept: {picked_by}.",
            f"Losses over {len(history)} epochs on the training and on the validation set.",
            networks(history, kept, out / "losses.svg"),
        ),
    ]
    write(out, "inpainting", drawn)


def errors(metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw errors in holes by radius above, and the network's over the optimum's below.

    A column a field; returns the rows drawn.
    """
    above = (metrics["statistic"] == _ERROR) & metrics["method"].isin(_COMPARED)
    below = (metrics["statistic"] == _OVER_OPTIMUM) & (metrics["method"] == NETWORK)
    rows = metrics[above | below]
    places = _places(_cases(rows))
    fields = list(rows["field"].unique())
    shape: dict[str, Any] = {"sharex": True, "height_ratios": (2, 1)}
    size = (max(4.8 * len(fields), 5.6), 5.2)
    with canvas(path, 2, len(fields), size=size, **shape) as (figure, axes):
        for column, field in zip(axes.T, fields, strict=True):
            part = rows[rows["field"] == field]
            for ax, statistic in zip(column, (_ERROR, _OVER_OPTIMUM), strict=True):
                for method in _COMPARED:
                    of = part[(part["statistic"] == statistic) & (part["method"] == method)]
                    _by_radius(ax, of, places, method)
            column[0].set_ylim(bottom=0)
            column[0].set_title(field_label(str(field)))
            column[0].set_ylabel("rms error in holes / rms")
            column[1].axhline(1, color=GREY, lw=0.9)
            column[1].axhline(1 + _EXCESS, color=GREY, lw=0.9, ls="--", label="5 % above")
            column[1].set_ylabel("network / optimum")
            column[1].set_xlabel("radius of the disc [pixels]")
            column[1].set_xticks([*places.values()], [_tick(case) for case in places])
        legend_below(figure, list(axes.ravel()))
    return rows


def spectra(metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw power over the truth's, a panel a field and kind of holes; returns the rows drawn."""
    cases = _evenly(_cases(metrics[metrics["statistic"] == _POWER]), _PANELS)
    power = (metrics["statistic"] == _POWER) & metrics["method"].isin(FILLED)
    rows = metrics[(power | (metrics["statistic"] == _SEEN_POWER)) & metrics["case"].isin(cases)]
    fields = list(rows["field"].unique())
    panels = [(field, case) for field in fields for case in cases]
    height, width = (
        grid_shape(len(panels), 2) if len(fields) == 1 else (len(fields), max(len(cases), 2))
    )
    with canvas(path, height, width, size=(4.5 * width, 3.0 * height + 0.6)) as (figure, axes):
        used = len(panels) if len(fields) == 1 else height * len(cases)
        for ax, (field, case) in zip(axes.ravel(), panels, strict=False):
            part = rows[(rows["field"] == field) & (rows["case"] == case)]
            ax.axhspan(1 - _OFF, 1 + _OFF, color="#d1d5db", lw=0, zorder=0, label="± 1 %")
            ax.axhline(1, color=GREY, lw=0.9)
            for method in (*FILLED, "masked"):
                _curve(ax, part[part["method"] == method].sort_values("ell"), method)
            _power_limits(ax, part[part["method"] != "masked"]["value"])
            ax.set_title(_panel_title(field, case, fields))
            ax.set_ylabel("power over the truth's")
            log_ell(ax)
        hide_unused(axes, used)
        legend_below(figure, list(axes.ravel()[:used]))
    return rows


def values(profiles: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw histograms of pixels in holes above, correlations across edges less the truth's below.

    A column a field and kind of holes: the run's own, and the largest disc. Returns the rows drawn.
    """
    cases = _extremes(_cases(profiles))
    methods = (TRUTH, *FILLED)
    rows = profiles[
        profiles["statistic"].isin(_PROFILES)
        & profiles["case"].isin(cases)
        & profiles["method"].isin(methods)
    ]
    fields = list(rows["field"].unique())
    panels = [(field, case) for field in fields for case in cases]
    size = (max(4.2 * len(panels), 5.6), 6.6)
    with canvas(path, 2, len(panels), size=size) as (figure, axes):
        for column, (field, case) in zip(axes.T, panels, strict=True):
            part = rows[(rows["field"] == field) & (rows["case"] == case)]
            density, edge = (part[part["statistic"] == statistic] for statistic in _PROFILES)
            _densities(column[0], density)
            _edges(column[1], edge)
            column[0].set_title(_panel_title(field, case, fields))
            column[0].set_xlabel("value / rms")
            column[0].set_ylabel("pixels in holes per unit of rms")
            column[1].set_xlabel("distance across the edge [pixels]")
            column[1].set_ylabel("correlation less the truth's")
        legend_below(figure, list(axes.ravel()))
    return rows


def _of_holes(path: Path, columns: Sequence[str], statistics: Sequence[str]) -> pd.DataFrame:
    """Rows of the test split that belong to a field and a kind of holes."""
    found = read.table(path, columns).dropna(subset=["field", "case"])
    for statistic in statistics:
        if statistic not in set(found["statistic"]):
            raise UserError(path, f"rows of the statistic {statistic!r}", "none")
    return of_test_split(found)


def _cases(table: pd.DataFrame) -> list[str]:
    """Kinds of holes: the run's own, then discs from the smallest."""
    return sorted(map(str, table["case"].unique()), key=lambda case: disc_radius(case) or 0)


def _evenly(cases: Sequence[str], count: int) -> list[str]:
    """The run's own holes, and discs from the smallest to the largest; up to `count` in all."""
    own = [case for case in cases if disc_radius(case) is None]
    discs = [case for case in cases if case not in own]
    room = min(count - len(own), len(discs))
    return own + [discs[round(place)] for place in np.linspace(0, len(discs) - 1, room)]


def _extremes(cases: Sequence[str]) -> list[str]:
    """The run's own holes and the largest disc."""
    return list(dict.fromkeys([cases[0], cases[-1]]))


def _panel_title(field: Any, case: str, fields: Sequence[Any]) -> str:
    return in_words(case) if len(fields) == 1 else f"{field_label(str(field))}, {in_words(case)}"


def _places(cases: Sequence[str]) -> dict[str, float]:
    """Where kinds of holes stand along the axis of radii: the run's own apart, at its end."""
    radii = {case: radius for case in cases if (radius := disc_radius(case)) is not None}
    low, high = (min(radii.values()), max(radii.values())) if radii else (0.0, 0.0)
    return {case: radii.get(case, high + max(0.15 * (high - low), 1.0)) for case in cases}


def _tick(case: str) -> str:
    radius = disc_radius(case)
    return "own\nholes" if radius is None else f"{radius:g}"


def _by_radius(ax: Axes, rows: pd.DataFrame, places: Mapping[str, float], method: str) -> None:
    """Points with errors: a line through the discs, a larger point for the run's own holes."""
    label, colour, marker, line = method_style(method, [method])
    x = rows["case"].map(places)
    discs = rows["case"].map(lambda case: disc_radius(case) is not None)
    for part, look in ((discs, {"ls": line, "label": label}), (~discs, {"ls": "", "ms": 7})):
        if not part.any():
            continue
        of = rows[part].assign(x=x[part]).sort_values("x")
        own: dict[str, Any] = {"color": colour, "marker": marker, "capsize": 2, **look}
        ax.errorbar(of["x"], of["value"], of["error"].fillna(0), **own)


def _curve(ax: Axes, rows: pd.DataFrame, method: str) -> None:
    """Power ratios with errors; of what was seen, which scatters most, without a line."""
    label, colour, marker, line = method_style(method, [method])
    if len(rows):
        look: dict[str, Any] = {"color": colour, "marker": marker, "label": label, "lw": 1.1}
        look |= {"ls": "", "ms": 3.5, "alpha": 0.7} if method == "masked" else {"ls": line}
        ax.errorbar(rows["ell"], rows["value"], rows["error"].fillna(0), elinewidth=0.8, **look)


def _densities(ax: Axes, rows: pd.DataFrame) -> None:
    """Outlines of histograms, with markers in turn; the truth's is wide."""
    methods = [method for method in (TRUTH, *FILLED) if method in set(rows["method"])]
    for number, method in enumerate(methods):
        of = rows[rows["method"] == method].sort_values("x")
        label, colour, marker, line = method_style(method, [method])
        look: dict[str, Any] = {"color": colour, "marker": marker, "ls": line, "label": label}
        look |= {"lw": 2.6, "alpha": 0.55} if method == TRUTH else {"lw": 1.2}
        ax.plot(of["x"], of["value"], markevery=(number, len(methods)), **look)
    ax.set_ylim(bottom=0)
    there = rows.loc[rows["value"] > 1e-3 * rows["value"].max(), "x"].abs()
    if len(there):
        ax.set_xlim(-1.1 * there.max(), 1.1 * there.max())


def _edges(ax: Axes, rows: pd.DataFrame) -> None:
    """Correlations across edges less the truth's, with a band of its error."""
    of = rows.sort_values("x").set_index("x")
    truth = of[of["method"] == TRUTH]
    error = truth["error"].fillna(0)
    ax.fill_between(truth.index, -error, error, color="#d1d5db", lw=0, label="error of the truth's")
    ax.axhline(0, color=GREY, lw=0.9)
    for method in FILLED:
        label, colour, marker, line = method_style(method, [method])
        apart = of.loc[of["method"] == method, "value"].sub(truth["value"])
        look: dict[str, Any] = {"color": colour, "marker": marker, "ls": line, "label": label}
        ax.plot(apart.index, apart, lw=1.2, **look)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _power_limits(ax: Axes, ratios: pd.Series) -> None:
    """Where most ratios lie, and the band: one noisy band of multipole must not flatten all."""
    ends = ratios.quantile([0.02, 0.98]).fillna(1)
    low, high = min(ends.iloc[0], 1 - 1.5 * _OFF), max(ends.iloc[1], 1 + 1.5 * _OFF)
    room = 0.08 * (high - low)
    ax.set_ylim(max(low - room, -0.05), min(high + room, 2.5))
