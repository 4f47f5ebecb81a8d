"""Losses over the epochs of a training."""

from pathlib import Path

import pandas as pd
from matplotlib.ticker import MaxNLocator

from skyweave.report.style import BLACK, BLUE, GREEN, ORANGE, PINK, RED, canvas, field_label

_LINES = [(BLUE, "-"), (RED, "--"), (BLACK, "-."), (GREEN, ":"), (ORANGE, "-"), (PINK, "--")]


def loss(history: pd.DataFrame, picked: int, path: Path) -> pd.DataFrame:
    """Draw total loss, validation loss by output, and learning rate; returns the history.

    A ring marks the epoch `picked`, whose network is kept.
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
        kept = history.loc[epoch == picked, "val_loss"]
        ax.plot(picked, kept, "o", ms=10, mfc="none", mec=RED, label=f"kept (epoch {picked})")
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
