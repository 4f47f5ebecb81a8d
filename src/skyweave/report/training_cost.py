"""Runs on the same dataset: how well their networks do on the validation set, by time trained."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.errors import UserError
from skyweave.report import read
from skyweave.report.reconstruction import METRIC_COLUMNS, of_test_split
from skyweave.report.record import Drawn, write
from skyweave.report.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    SKY,
    canvas,
    field_label,
    grid_shape,
    hide_unused,
    legend_below,
    method_style,
    plain_field,
    plain_log,
)

FILES = ("training_cost.svg",)
COLUMNS = ("run", "field", "method", "epoch", "minutes", "value", "picked")

#: Methods that a network's curve is held against.
_OTHERS = ("wiener", "quadratic", "iterative")
#: None of these is the colour of one of those.
_RUNS = ((BLUE, "o"), (ORANGE, "s"), (BLACK, "P"), (SKY, "X"), (GREEN, "<"))
_LINES = ("-", "-.", (0, (5, 1)), (0, (1, 1)))
_MEASURES = {
    "correlation": r"mean $r_\ell$ on the validation set",
    "pixel_correlation": "pixel correlation on the validation set",
}


def draw_training_cost(
    runs: Mapping[str, str | Path], out_folder: str | Path, *, ell: tuple[float, float]
) -> None:
    """Draw the curves (`FILES`), a CSV beside them, and figures.json.

    `runs` are folders by name, of runs whose epochs were compared by the same correlation, over
    bands with centres in `ell` if it is that of multipoles. Raises `UserError` for a file that is
    missing or broken.
    """
    out = Path(out_folder)
    rows, statistic = curves({name: Path(folder) for name, folder in runs.items()}, ell)
    draw(rows, statistic, out / FILES[0])
    fields = ", ".join(plain_field(str(name)) for name in rows["field"].unique())
    what = (
        f"Correlation coefficient r_ell, mean over the bands from ell {ell[0]:g} to {ell[1]:g},"
        if statistic == "correlation"
        else "Correlation of the pixels"
    )
    caption = (
        f"{what} of prediction and truth on the validation set after each epoch, against the time "
        "that was spent on training until then. A ring marks the epoch whose network is kept. "
        "Horizontal lines are estimates that need no training, on the test set: training is worth "
        "its cost where a curve lies above them."
    )
    alt = f"Correlation of {fields} against minutes of training of {', '.join(runs)}."
    write(out, "training_cost", [Drawn(FILES[0], "What training buys", caption, alt, rows)])


def curves(runs: Mapping[str, Path], ell: tuple[float, float]) -> tuple[pd.DataFrame, str]:
    """What is drawn, with columns `COLUMNS`, and the statistic.

    Rows of other methods have no run, epoch and time; each is taken from the first run that has it.
    Raises `UserError` for runs that were not compared by one statistic of `_MEASURES`.
    """
    tables, statistics = [], set()
    for name, folder in runs.items():
        history = read.table(folder / "history.csv", ("epoch", "seconds"))
        sweep = read.table(folder / "sweep.csv", ("epoch", "statistic", "field", "value", "picked"))
        statistics |= set(sweep["statistic"])
        if len(statistics) > 1 or not statistics <= set(_MEASURES):
            expected = f"one of {', '.join(_MEASURES)} in all runs"
            raise UserError(folder / "sweep.csv", expected, ", ".join(sorted(statistics)))
        minutes = history[["epoch"]].assign(minutes=history["seconds"].cumsum() / 60)
        rows = sweep[sweep["field"] != "all"].merge(minutes, on="epoch", how="inner")
        if rows.empty:
            raise UserError(folder / "sweep.csv", "epochs of the history", "none")
        tables.append(rows.assign(run=name, method="network"))
    statistic = statistics.pop()
    fields = list(pd.concat(tables)["field"].unique())
    for folder in runs.values():
        metrics = of_test_split(read.table(folder / "metrics.csv", METRIC_COLUMNS))
        tables.append(_others(metrics, fields, statistic, ell))
    found = pd.concat(tables, ignore_index=True)[list(COLUMNS)]
    return found.drop_duplicates(["run", "field", "method", "epoch"]), statistic


def _others(
    metrics: pd.DataFrame, fields: list[str], statistic: str, ell: tuple[float, float]
) -> pd.DataFrame:
    """Mean of a statistic of each other method, a row a field and method."""
    rows = metrics[
        (metrics["statistic"] == statistic)
        & metrics["method"].isin(_OTHERS)
        & metrics["field"].isin(fields)
        & (metrics["ell"].isna() | metrics["ell"].between(*ell))
    ]
    means = rows.groupby(["field", "method"], sort=False)["value"].mean().reset_index()
    return means.assign(run="", epoch=np.nan, minutes=np.nan, picked=0)


def draw(rows: pd.DataFrame, statistic: str, path: Path) -> None:
    """Draw `curves`, a panel a field and a curve a run, to `path`."""
    network = rows["method"] == "network"
    names = list(rows.loc[network, "run"].unique())
    parts = [part for _, part in rows.groupby("field", sort=False)]
    height, width = grid_shape(len(parts))
    with canvas(path, height, width, size=(4.2 * width, 3.2 * height + 0.4)) as (figure, axes):
        hide_unused(axes, len(parts))
        panels = list(zip(axes.ravel(), parts, strict=False))
        for ax, part in panels:
            for name, curve in part[part["method"] == "network"].groupby("run", sort=False):
                number = names.index(name)
                colour, marker = _RUNS[number % len(_RUNS)]
                look = {"color": colour, "ls": _LINES[number // len(_RUNS) % len(_LINES)]}
                ax.plot(curve["minutes"], curve["value"], marker=marker, label=str(name), **look)
                kept = curve[curve["picked"] == 1]
                ax.plot(kept["minutes"], kept["value"], "o", ms=11, mfc="none", mec=colour)
            for row in part[part["method"] != "network"].to_dict("records"):
                label, colour, _, line = method_style(str(row["method"]), _OTHERS)
                ax.axhline(row["value"], color=colour, ls=line, lw=1.2, label=label)
            ax.set_xscale("log")
            plain_log(ax.xaxis)
            ax.set_xlabel("minutes of training")
            ax.set_ylabel(_MEASURES[statistic])
            ax.set_title(field_label(str(part["field"].iloc[0])))
        legend_below(figure, [ax for ax, _ in panels])
