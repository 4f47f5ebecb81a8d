"""Maps of an inpainting run: patches with holes, filled in each way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skyweave.data.predictions import NETWORK, Predictions
from skyweave.errors import UserError
from skyweave.report import read
from skyweave.report.style import METHODS, UNITS, canvas, field_label, symmetric_limit
from skyweave.report.summary import hole_words

#: What fills holes, from the left.
FILLED = (NETWORK, "sampled", "constrained", "realization", "diffusive")

TRUTH, _HOLED = "truth", "with holes"
_MISSING = "#9ca3af"
_SEEN = "seen/seen"


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
            panels = {TRUTH: truth[index], _HOLED: np.where(holes[index], np.nan, truth[index])}
            for method in FILLED:
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
            truth = one.maps[field][TRUTH]
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


def disc_radius(case: str) -> float | None:
    """A disc's radius, pixels; none of other holes."""
    kind, _, radius = case.partition("_")
    return float(radius) if kind == "radius" else None


def in_words(case: str) -> str:
    """A kind of holes in a sentence or a title."""
    words = hole_words(case)
    return words if disc_radius(case) is not None else f"holes {words}"


def _panels(one: Filled, field: str, residual: bool) -> dict[str, np.ndarray]:
    """Maps of a row by panel, or in their places what methods are off by."""
    maps = one.maps[field]
    if not residual:
        return maps
    return {panel: maps[panel] - maps[TRUTH] for panel in maps if panel in FILLED}


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
    words = "filled − truth" if residual else f"{field_label(field)}\n{in_words(one.case)}"
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
