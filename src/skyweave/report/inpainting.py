"""Figures of an inpainting run: maps, errors in holes, power of filled maps, values, training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skyweave.data.predictions import NETWORK, Predictions
from skyweave.errors import UserError
from skyweave.report import read
from skyweave.report.losses import networks, picked
from skyweave.report.reconstruction import METRIC_COLUMNS, of_test_split
from skyweave.report.record import Drawn, write
from skyweave.report.style import (
    GREY,
    METHODS,
    UNITS,
    canvas,
    field_label,
    grid_shape,
    hide_unused,
    legend_below,
    log_ell,
    method_style,
    plain_field,
    symmetric_limit,
)
from skyweave.report.summary import hole_words

#: Figures of every run.
FILES = ("examples.png", "errors.svg", "spectra.svg", "values.svg", "losses.svg")

PROFILE_COLUMNS = ("split", "field", "method", "case", "statistic", "x", "value", "error")

#: What fills holes, from the left, and what is beside it in a figure.
_FILLED = (NETWORK, "sampled", "constrained", "realization", "diffusive")
_COMPARED = (NETWORK, "constrained", "diffusive")

#: Statistics of the figures of errors, spectra and values.
_ERROR, _OVER_OPTIMUM = "error_rms_hole", "error_ratio"
_POWER, _SEEN_POWER = "power_ratio", "power_ratio_namaster"
_PROFILES = ("density", "edge_correlation")

#: Excess over the optimum's error, and share of power, that count as none.
_EXCESS, _OFF = 0.05, 0.01

#: Most kinds of holes in the spectra.
_PANELS = 4

_MISSING = "#9ca3af"
_SEEN = "seen/seen"
_TRUTH, _HOLED = "truth", "with holes"


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
    holes = " and ".join(_holes(one.case) for one in shown)
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


@dataclass(frozen=True)
class Filled:
    """A patch of a kind of holes: its hole (y, x) and maps {field: {panel: (y, x)}}, truth first.

    A panel is ``truth``, ``with holes`` or a method; `units` are those of the fields.
    """

    case: str
    realization: int
    hole: np.ndarray
    maps: dict[str, dict[str, np.ndarray]]
    units: dict[str, str]
    size_deg: float


def one_patch(path: Path, case: str, realization: int | None = None) -> Filled:
    """The patch of a number in a file of filled maps, or else its first with a hole.

    Raises `UserError` for a missing or broken file, and one without the patch.
    """
    found = Predictions(path)
    numbers = found.realizations
    with h5py.File(path) as file:
        if _SEEN not in file or not len(numbers):
            raise UserError(path, f"maps {_SEEN} of a patch or more", ", ".join(file) or "none")
        holes = file[_SEEN][:] < 0.5
        wanted = numbers == realization if realization is not None else holes.any(axis=(1, 2))
        if realization is not None and not wanted.any():
            raise UserError(path, f"patch {realization}, as of other holes", f"{len(numbers)} more")
        index = int(wanted.argmax())
        maps, units = {}, {}
        for field in found.fields:
            truth = file[f"truth/{field}"]
            units[field] = str(truth.attrs.get("unit", ""))
            panels = {_TRUTH: truth[index], _HOLED: np.where(holes[index], np.nan, truth[index])}
            for method in _FILLED:
                group = "prediction" if method == NETWORK else f"{read.ESTIMATES}{method}"
                if f"{group}/{field}" in file:
                    panels[method] = file[f"{group}/{field}"][index]
            maps[field] = panels
    return Filled(case, int(numbers[index]), holes[index], maps, units, found.grid.size_deg)


def examples(shown: Sequence[Filled], path: Path) -> pd.DataFrame:
    """Draw a row of maps a kind of holes and field, and below it residuals if there is one field.

    Returns colour scale, mean and spread of each map and its rms error in the holes, in the field's
    unit.
    """
    lines: list[tuple[Filled, str, bool]] = []
    for one in shown:
        for field in one.maps:
            lines += [(one, field, False), *([(one, field, True)] if len(one.maps) == 1 else [])]
    columns = max(len(panels) for one in shown for panels in one.maps.values())
    record = []
    size = (1.75 * columns + 1.3, 1.86 * len(lines) + 0.45)
    shared: dict[str, Any] = {"sharex": True, "sharey": True}
    with canvas(path, len(lines), columns, size=size, **shared) as (figure, axes):
        for number, (line, (one, field, residual)) in enumerate(zip(axes, lines, strict=True)):
            truth = one.maps[field][_TRUTH]
            limit = symmetric_limit(truth)
            panels = _panels(one, field, residual)
            _map_row(figure, line, panels, one, (field, limit, residual))
            if number == 0:
                for ax, panel in zip(line, panels, strict=False):
                    ax.set_title(_title(panel), fontsize=9)
            if number == len(lines) - 1:
                for ax in line:
                    ax.set_xlabel("$x$ [deg]", fontsize=8)
            if not residual:
                record += [
                    (field, one.case, panel, one.units[field], limit, *_summary(image, truth, one))
                    for panel, image in panels.items()
                ]
    names = ["field", "case", "map", "unit", "colour_scale", "mean", "standard_deviation"]
    table = pd.DataFrame(record, columns=[*names, "error_rms_hole"])
    return table.assign(realization=shown[0].realization)


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
    power = (metrics["statistic"] == _POWER) & metrics["method"].isin(_FILLED)
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
            for method in (*_FILLED, "masked"):
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
    methods = (_TRUTH, *_FILLED)
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


def _radius(case: str) -> float | None:
    """A disc's radius, pixels; none of other holes."""
    kind, _, radius = case.partition("_")
    return float(radius) if kind == "radius" else None


def _cases(table: pd.DataFrame) -> list[str]:
    """Kinds of holes: the run's own, then discs from the smallest."""
    return sorted(map(str, table["case"].unique()), key=lambda case: _radius(case) or 0)


def _evenly(cases: Sequence[str], count: int) -> list[str]:
    """The run's own holes, and discs from the smallest to the largest; up to `count` in all."""
    own = [case for case in cases if _radius(case) is None]
    discs = [case for case in cases if case not in own]
    room = min(count - len(own), len(discs))
    return own + [discs[round(place)] for place in np.linspace(0, len(discs) - 1, room)]


def _extremes(cases: Sequence[str]) -> list[str]:
    """The run's own holes and the largest disc."""
    return list(dict.fromkeys([cases[0], cases[-1]]))


def _holes(case: str) -> str:
    """A kind of holes in a sentence or a title."""
    words = hole_words(case)
    return words if _radius(case) is not None else f"holes {words}"


def _panel_title(field: Any, case: str, fields: Sequence[Any]) -> str:
    return _holes(case) if len(fields) == 1 else f"{field_label(str(field))}, {_holes(case)}"


def _panels(one: Filled, field: str, residual: bool) -> dict[str, np.ndarray]:
    """Maps of a row by panel, or in their places what methods are off by."""
    maps = one.maps[field]
    if not residual:
        return maps
    return {panel: maps[panel] - maps[_TRUTH] for panel in maps if panel in _FILLED}


def _map_row(
    figure: Figure,
    line: np.ndarray,
    panels: Mapping[str, np.ndarray],
    one: Filled,
    of: tuple[str, float, bool],
) -> None:
    """Maps side by side; residuals stand below the methods that they are of."""
    field, limit, residual = of
    colours = matplotlib.colormaps["PuOr_r" if residual else "RdBu_r"]
    order = list(one.maps[field])
    used = [line[order.index(panel)] for panel in panels]
    drawn: Any = None
    for ax, image in zip(used, panels.values(), strict=True):
        drawn = ax.imshow(
            image,
            origin="lower",
            extent=(0, one.size_deg, 0, one.size_deg),
            cmap=colours.with_extremes(bad=_MISSING),
            vmin=-limit,
            vmax=limit,
        )
        ax.grid(False)
        ax.tick_params(labelsize=7.5)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        for spine in ax.spines.values():
            spine.set_visible(True)
    words = "filled − truth" if residual else f"{field_label(field)}\n{_holes(one.case)}"
    used[0].tick_params(labelleft=True)
    used[0].set_ylabel(f"{words}\n$y$ [deg]", fontsize=8)
    bar = figure.colorbar(drawn, ax=list(line), fraction=0.012, pad=0.008, extend="both")
    bar.ax.tick_params(labelsize=7)
    bar.locator = MaxNLocator(5)
    bar.set_label(UNITS.get(one.units[field], one.units[field]), fontsize=8)
    for ax in set(line) - set(used):
        ax.set_visible(False)  # one that is removed would let the scale slip into the maps


def _title(panel: str) -> str:
    """A panel's name, over two lines if it is long."""
    words = METHODS[panel][0] if panel in METHODS else panel
    middle = words.find(" ", len(words) // 2 - 4)
    return words if len(words) < 16 or middle < 0 else f"{words[:middle]}\n{words[middle + 1 :]}"


def _summary(image: np.ndarray, truth: np.ndarray, one: Filled) -> tuple[float, float, float]:
    """Mean and spread of a map where it is known, and its rms error in the hole."""
    apart = (image - truth)[one.hole].astype(float)
    error = float(np.sqrt(np.mean(apart**2))) if apart.size else np.nan
    known = image[np.isfinite(image)]
    if not known.size:
        return np.nan, np.nan, error
    return float(known.mean()), float(known.std()), error


def _places(cases: Sequence[str]) -> dict[str, float]:
    """Where kinds of holes stand along the axis of radii: the run's own apart, at its end."""
    radii = {case: radius for case in cases if (radius := _radius(case)) is not None}
    low, high = (min(radii.values()), max(radii.values())) if radii else (0.0, 0.0)
    return {case: radii.get(case, high + max(0.15 * (high - low), 1.0)) for case in cases}


def _tick(case: str) -> str:
    radius = _radius(case)
    return "own\nholes" if radius is None else f"{radius:g}"


def _by_radius(ax: Axes, rows: pd.DataFrame, places: Mapping[str, float], method: str) -> None:
    """Points with errors: a line through the discs, a larger point for the run's own holes."""
    label, colour, marker, line = method_style(method, [method])
    x = rows["case"].map(places)
    discs = rows["case"].map(lambda case: _radius(case) is not None)
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
    methods = [method for method in (_TRUTH, *_FILLED) if method in set(rows["method"])]
    for number, method in enumerate(methods):
        of = rows[rows["method"] == method].sort_values("x")
        label, colour, marker, line = method_style(method, [method])
        look: dict[str, Any] = {"color": colour, "marker": marker, "ls": line, "label": label}
        look |= {"lw": 2.6, "alpha": 0.55} if method == _TRUTH else {"lw": 1.2}
        ax.plot(of["x"], of["value"], markevery=(number, len(methods)), **look)
    ax.set_ylim(bottom=0)
    there = rows.loc[rows["value"] > 1e-3 * rows["value"].max(), "x"].abs()
    if len(there):
        ax.set_xlim(-1.1 * there.max(), 1.1 * there.max())


def _edges(ax: Axes, rows: pd.DataFrame) -> None:
    """Correlations across edges less the truth's, with a band of its error."""
    of = rows.sort_values("x").set_index("x")
    truth = of[of["method"] == _TRUTH]
    error = truth["error"].fillna(0)
    ax.fill_between(truth.index, -error, error, color="#d1d5db", lw=0, label="error of the truth's")
    ax.axhline(0, color=GREY, lw=0.9)
    for method in _FILLED:
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
