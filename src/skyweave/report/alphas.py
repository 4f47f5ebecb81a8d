"""What generated images in the training of networks that restore images buy."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skyweave.report import read
from skyweave.report.record import Drawn, write
from skyweave.report.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    RED,
    canvas,
    field_label,
    grid_shape,
    hide_unused,
    legend_below,
    plain_field,
)
from skyweave.statistics.restoration import case_words

FILES = ("alphas.svg",)
COLUMNS = ("field", "case", "alpha", "networks", "gain", "gain_error")

#: Cases in turn, and how far points of one share stand apart, of the whole axis.
_STYLES = ((BLACK, "o", "-"), (BLUE, "s", "--"), (ORANGE, "^", "-."), (RED, "D", ":"))
_APART = 0.008


def draw_alphas(folder: str | Path, out_folder: str | Path) -> None:
    """Draw error against the share of generated images (`FILES`), a CSV beside, and figures.json.

    Reads table.csv from `folder`; raises `UserError` when it is missing or lacks what is drawn.
    """
    out = Path(out_folder)
    table = read.table(Path(folder) / "table.csv", COLUMNS)
    networks = table["networks"]
    few, many = int(networks.min()), int(networks.max())
    counted = f"{few}" if few == many else f"{few} to {many}"
    scattered = table.loc[table["alpha"] > 0, "gain_error"].notna()
    known = []
    if scattered.any():
        known += ["Bars are standard errors from the scatter of such pairs."]
    if not scattered.all():
        known += ["Of fewer than two pairs no scatter is known, and nothing is shown by them."]
    caption = (
        "Mean squared error on the test set, over that of the networks that saw real images alone "
        "(alpha 0), against the share alpha of generated images in their training; a line a "
        f"condition of the test. Networks of each alpha: {counted}, alike but for the images and "
        "their weights' draws, each compared with the one of alpha 0 that began alike. "
        f"{' '.join(known)} Below the line at 1 generated images help; they are worth making where "
        "a point lies below by several of its bars, of few networks by more of them, under "
        "conditions that the networks never saw above all. Test images are real for all."
    )
    fields = ", ".join(plain_field(str(field)) for field in table["field"].unique())
    alt = f"Error against the share of generated images, {fields}."
    rows = draw(table, out / FILES[0])
    write(out, "alphas", [Drawn(FILES[0], "Generated images in the training", caption, alt, rows)])


def draw(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw error over that of alpha 0, a panel a band and a line a case; returns the table."""
    parts = [part for _, part in table.groupby("field", sort=False)]
    height, width = grid_shape(len(parts))
    cases = list(table["case"].unique())
    shares = sorted(table["alpha"].unique())
    length = (shares[-1] - shares[0]) or 1.0
    with canvas(path, height, width, size=(max(4.6 * width, 5.6), 3.6 * height + 0.5)) as opened:
        figure, axes = opened
        hide_unused(axes, len(parts))
        used = list(axes.ravel()[: len(parts)])
        for ax, part in zip(used, parts, strict=True):
            ax.axhline(1, color=GREY, lw=0.9)
            for number, case in enumerate(cases):
                of = part[part["case"] == case].sort_values("alpha")
                colour, marker, line = _STYLES[number % len(_STYLES)]
                place = of["alpha"] + _APART * length * (number - (len(cases) - 1) / 2)
                error = np.nan_to_num(of["gain_error"].to_numpy(float))
                look: dict[str, Any] = {"color": colour, "marker": marker, "ls": line}
                look |= {"label": case_words(str(case)), "capsize": 2.5, "ms": 5, "lw": 1.2}
                ax.errorbar(place, 1 - of["gain"], error, **look)
            ax.set_xticks(shares, [f"{share:g}" for share in shares])
            ax.set_xlabel(r"share of generated images $\alpha$")
            ax.set_ylabel("squared error over that of real images alone")
            ax.set_title(field_label(str(part["field"].iloc[0])))
        legend_below(figure, used)
    return table
