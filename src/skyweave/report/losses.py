"""Losses over the epochs of a training, and the epoch whose network is kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from skyweave.errors import UserError
from skyweave.report import read
from skyweave.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    canvas,
    field_label,
    plain_log,
)

_LINES = [(BLUE, "-"), (RED, "--"), (BLACK, "-."), (GREEN, ":"), (ORANGE, "-"), (PINK, "--")]

_PICKED_BY = {
    "val_loss": "its validation loss is the least",
    "epoch": "it is the last",
    "pixel_correlation": "its correlation with the truths of the validation set is the largest, "
    "pixel by pixel",
    "correlation": "its correlation with the truths of the validation set is the largest, over "
    "the bands of multipole that count",
    "transfer": "its transfer function on the validation set is the closest to 1, over the bands "
    "of multipole that count",
    "residual": "its power of prediction − truth on the validation set is the least, over the "
    "bands of multipole that count",
    "superposition": "its Minkowski functionals overlap most with those of the validation set",
    "distance": "its Minkowski functionals are the nearest to those of the validation set",
}


def picked(path: Path, history: pd.DataFrame) -> tuple[int, str]:
    """The epoch whose network was kept, and why, in words; from sweep.csv at `path`.

    Raises `UserError` where no epoch of the history was picked, or none by a known statistic.
    """
    sweep = read.table(path, ("epoch", "statistic", "picked"))
    rows = sweep[(sweep["picked"] == 1) & sweep["epoch"].isin(history["epoch"])]
    if rows.empty or rows["statistic"].iloc[0] not in _PICKED_BY:
        raise UserError(path, "an epoch of the history that was picked by a known one", "none")
    return int(rows["epoch"].iloc[0]), _PICKED_BY[rows["statistic"].iloc[0]]


def loss(history: pd.DataFrame, kept: int, path: Path) -> pd.DataFrame:
    """Draw total loss, validation loss by output, and learning rate; returns the history.

    A ring marks the epoch `kept`, whose network is kept.
    """
    outputs = [str(name) for name in history if str(name).startswith("val_loss_")]
    rate = "learning_rate" in history
    count = 1 + bool(outputs) + rate
    marker = "o" if len(history) < 30 else ""
    epoch = history["epoch"]
    with canvas(path, 1, count, size=(3.6 * count, 3.2)) as (_, axes):
        panels = iter(axes[0])
        ax = next(panels)
        ax.plot(epoch, history["loss"], color=BLUE, marker=marker, label="training")
        ax.plot(epoch, history["val_loss"], color=RED, ls="--", marker=marker, label="validation")
        least = history.loc[epoch == kept, "val_loss"]
        ax.plot(kept, least, "o", ms=10, mfc="none", mec=RED, label=f"kept (epoch {kept})")
        ax.set_ylabel("total loss (normalized maps)")
        ax.legend()
        if outputs:
            ax = next(panels)
            for number, name in enumerate(outputs):
                colour, line = _LINES[number % len(_LINES)]
                label = field_label(name.removeprefix("val_loss_"))
                ax.plot(epoch, history[name], color=colour, ls=line, marker=marker, label=label)
            ax.set_ylabel("validation loss by output")
            ax.legend()
        if rate:
            ax = next(panels)
            ax.step(epoch, history["learning_rate"], where="mid", color=BLACK, marker=marker)
            ax.set_ylabel("learning rate")
        for ax in axes[0]:
            ax.set_xlabel("epoch")
            ax.set_yscale("log")
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return history


_COMPARED_BY = {
    "superposition": "overlap with the validation set",
    "distance": "distance from the validation set",
    "val_loss": "validation loss",
}
_COMPARED = {  # label, colour, marker, line
    "v0": ("$V_0$", ORANGE, "s", "--"),
    "v1": ("$V_1$", GREEN, "^", "-."),
    "v2": ("$V_2$", PINK, "D", ":"),
    "all": ("mean", BLACK, "o", "-"),
}


def adversarial_loss(
    history: pd.DataFrame, sweep: pd.DataFrame, kept: int, path: Path
) -> pd.DataFrame:
    """Draw losses of generator and discriminator, shares of right answers, and the sweep.

    A dotted line marks the epoch `kept`, a ring its value in the sweep, which has no panel where
    the last epoch is kept. Returns the history with the sweep's values as columns.
    """
    statistic = str(sweep["statistic"].iloc[0])
    compared = statistic != "epoch"
    count = 2 + compared
    with canvas(path, 1, count, size=(3.7 * count, 3.4)) as (_, axes):
        losses, answers = axes[0, :2]
        _two_lines(losses, history, {"generator": "adversarial", "discriminator": "discriminator"})
        losses.axhline(np.log(2), color=GREY, lw=0.9, ls="-.", label="cannot tell")
        losses.set_yscale("log")
        plain_log(losses.yaxis)
        losses.set_ylabel("loss (cross-entropy)")
        _two_lines(answers, history, {"on truth": "right_on_real", "on made": "right_on_made"})
        answers.axhline(0.5, color=GREY, lw=0.9, ls="-.", label="cannot tell")
        answers.set_ylim(-0.03, 1.03)
        answers.set_ylabel("share of right answers")
        if compared:
            _sweep(axes[0, 2], sweep, kept)
            axes[0, 2].set_ylabel(_COMPARED_BY.get(statistic, statistic.replace("_", " ")))
        for ax in axes[0]:
            ax.axvline(kept, color=RED, ls=":", lw=1.2, zorder=1, label=f"kept (epoch {kept})")
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    if not compared:
        return history
    values = sweep.pivot_table(index="epoch", columns="field", values="value")
    return history.merge(values.add_prefix(f"{statistic}_"), on="epoch", how="left")


#: Losses that are not of an output: the generator's against the discriminator, and its own.
_JUDGED = ("adversarial", "discriminator", "gradient_penalty", "right_on_real", "right_on_made")


def networks(history: pd.DataFrame, kept: int, path: Path) -> pd.DataFrame:
    """Draw training against validation: all losses that there are; returns the history.

    The total, those of the outputs, and either those of generator and discriminator against each
    other with the shares of right answers, or the learning rate. A ring marks the total of the
    epoch `kept` on the validation set, a dotted line the epoch in each panel.
    """
    names = [str(name).removeprefix("loss_") for name in history if str(name).startswith("loss_")]
    own = [name for name in names if name not in _JUDGED]
    against = "discriminator" in names
    kinds = ["total", *(["own"] if own else []), *(["against", "answers"] if against else [])]
    kinds += ["rate"] if not against and "learning_rate" in history else []
    height, width = (2, 2) if len(kinds) == 4 else (1, len(kinds))
    words = f"kept (epoch {kept})"
    with canvas(path, height, width, size=(4.4 * width, 3.6 * height)) as (_, axes):
        for ax, kind in zip(axes.ravel(), kinds, strict=True):
            if kind == "total":
                _pairs(ax, history, {"all": ""})
                least = history.loc[history["epoch"] == kept, "val_loss"]
                ring: dict[str, Any] = {"mfc": "none", "mec": RED, "mew": 1.6, "label": words}
                ax.plot([kept] * len(least), least, "o", ms=10, **ring)
                ax.set_ylabel("total loss of the generator" if against else "total loss")
            elif kind == "own":
                _pairs(ax, history, {field_label(name): f"_{name}" for name in own})
                ax.set_ylabel("loss by part" if "hole" in own else "loss by output")
            elif kind == "against":
                pair = {"generator": "_adversarial", "discriminator": "_discriminator"}
                _pairs(ax, history, pair)
                ax.set_ylabel("loss against each other")
            elif kind == "answers":
                _pairs(ax, history, {"on truth": "_right_on_real", "on made": "_right_on_made"})
                ax.axhline(0.5, color=GREY, lw=0.9, ls="-.", label="cannot tell")
                ax.set_ylim(-0.03, 1.03)
                ax.set_ylabel("share of right answers")
            else:
                ax.step(history["epoch"], history["learning_rate"], where="mid", color=BLACK)
                ax.set_ylabel("learning rate")
            if kind != "answers" and _positive(ax):
                ax.set_yscale("log")
                plain_log(ax.yaxis)
            label = None if kind == "total" else words
            ax.axvline(kept, color=RED, ls=":", lw=1.2, zorder=1, label=label)
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return history


def _positive(ax: Axes) -> bool:
    """Whether anything is drawn, and all of it is above zero where it is known."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    known = values[np.isfinite(values)]
    return bool(known.size and (known > 0).all())


def _pairs(ax: Axes, history: pd.DataFrame, names: Mapping[str, str]) -> None:
    """A colour a loss: full on the training set, dashed on the validation set."""
    marker = "o" if len(history) < 30 else ""
    for number, (label, ending) in enumerate(names.items()):
        colour = _LINES[number % len(_LINES)][0]
        parts = (("loss", "-", "training"), ("val_loss", "--", "validation"))
        for prefix, line, part in parts:
            column = prefix + ending
            if column in history and history[column].notna().any():
                face = colour if line == "-" else "white"
                style: dict[str, Any] = {"color": colour, "ls": line, "marker": marker, "mfc": face}
                words = part if label == "all" else f"{label}, {part}"
                ax.plot(history["epoch"], history[column], label=words, **style)


def _two_lines(ax: Axes, history: pd.DataFrame, names: Mapping[str, str]) -> None:
    """Two losses of the history: full on the training set, dashed on the validation set."""
    marker = "o" if len(history) < 30 else ""
    for (label, name), colour in zip(names.items(), (BLUE, RED), strict=True):
        for prefix, line, part in (("loss_", "-", "training"), ("val_loss_", "--", "validation")):
            if prefix + name in history and history[prefix + name].notna().any():
                face = colour if line == "-" else "white"
                style: dict[str, Any] = {"color": colour, "ls": line, "marker": marker, "mfc": face}
                ax.plot(history["epoch"], history[prefix + name], label=f"{label}, {part}", **style)


def _sweep(ax: Axes, sweep: pd.DataFrame, kept: int) -> None:
    for field, part in sweep.groupby("field", sort=False):
        label, colour, marker, line = _COMPARED.get(
            str(field), (field_label(str(field)), BLUE, "v", "-")
        )
        style: dict[str, Any] = {"color": colour, "marker": marker, "ls": line}
        ax.plot(part["epoch"], part["value"], label=label, **style)
        if field == "all":
            value = part.loc[part["epoch"] == kept, "value"]
            ring: dict[str, Any] = {"mfc": "none", "mec": RED, "mew": 1.6}
            ax.plot([kept] * len(value), value, "o", ms=11, **ring)
