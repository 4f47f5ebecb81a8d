"""Example maps of a reconstruction: what went in, what came out, and what was missed."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from skyweave.report.read import ESTIMATES, Example
from skyweave.report.style import UNITS, canvas, field_label, method_style, symmetric_limit


def examples(shown: Example, path: Path) -> pd.DataFrame:
    """Draw truth, prediction, residual and other estimates of each field, and the inputs above.

    Returns the colour scale and the spread of each panel, in the field's unit.
    """
    maps = shown.maps
    fields, inputs = list(maps["truth"]), list(maps.get("input", {}))
    groups = {name: _groups(maps, name) for name in fields}
    columns = max(len(inputs), *(len(of_field) for of_field in groups.values()))
    rows = len(fields) + bool(inputs)
    record = []
    with canvas(path, rows, columns, size=(2.4 * columns, 1.95 * rows + 0.2)) as (figure, axes):
        panels = [("input", name, 0, column) for column, name in enumerate(inputs)]
        for row, name in enumerate(fields, start=bool(inputs)):
            panels += [(group, name, row, column) for column, group in enumerate(groups[name])]
        used = {(row, column) for _, _, row, column in panels}
        for group, name, row, column in panels:
            ax = axes[row, column]
            image = _panel_map(maps, group, name)
            limit = symmetric_limit(maps["input" if group == "input" else "truth"][name])
            drawn = ax.imshow(
                image,
                origin="lower",
                extent=(0, shown.size_deg, 0, shown.size_deg),
                cmap="PuOr_r" if group == "residual" else "RdBu_r",
                vmin=-limit,
                vmax=limit,
            )
            _map_axes(ax, row, column, rows, group, name)
            bar = figure.colorbar(drawn, ax=ax, fraction=0.05, pad=0.03, extend="both")
            bar.ax.tick_params(labelsize=7)
            bar.ax.ticklabel_format(axis="y", scilimits=(-2, 4))
            bar.ax.yaxis.get_offset_text().set_fontsize(7)
            unit = shown.units.get(name, "")
            bar.set_label(UNITS.get(unit, unit), fontsize=8)
            bar.locator = MaxNLocator(5)
            record.append(
                (name, group, shown.units.get(name, ""), limit, image.mean(), image.std())
            )
        for place in set(np.ndindex(rows, columns)) - used:
            figure.delaxes(axes.item(*place))
    return pd.DataFrame(
        record, columns=["field", "map", "unit", "colour_scale", "mean", "standard_deviation"]
    ).assign(realization=shown.realization)


def _groups(maps: Mapping[str, Mapping[str, np.ndarray]], field: str) -> list[str]:
    """Panels of a field, from the left."""
    others = [group for group in maps if group.startswith(ESTIMATES) and field in maps[group]]
    return ["truth", "prediction", "residual", *others]


def _panel_map(maps: Mapping[str, Mapping[str, np.ndarray]], group: str, name: str) -> np.ndarray:
    if group == "residual":
        return maps["prediction"][name] - maps["truth"][name]
    return maps[group][name]


def _map_axes(ax: Axes, row: int, column: int, rows: int, group: str, name: str) -> None:
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(True)
    method = group.removeprefix(ESTIMATES)
    names = {"input": field_label(name)}
    if method != group:
        names[group] = method_style(method, [method])[0]
    ax.set_title(names.get(group, group))
    if column == 0:
        ax.set_ylabel(f"{'input' if group == 'input' else field_label(name)}\n$y$ [deg]")
    if row == rows - 1:
        ax.set_xlabel("$x$ [deg]")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.tick_params(labelsize=7.5)
