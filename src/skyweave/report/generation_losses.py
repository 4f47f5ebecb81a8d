"""Losses of generators over the epochs of a training: StyleGAN2, autoencoder and diffusion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from skyweave.report.style import (
    BLUE,
    GREY,
    RED,
    canvas,
    hide_unused,
    plain_log,
)

#: Panels of a training: axis, and losses by label.
_PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("loss against each other", {"generator": "generator", "discriminator": "discriminator"}),
    ("share of right answers", {"on real": "right_on_real", "on made": "right_on_made"}),
    ("penalty", {"gradient (R1)": "r1", "path length": "path_length"}),
    ("probability of augmentation", {"augmentation": "augmentation"}),
    ("divergence of the latents", {"divergence": "divergence"}),
    ("error of a pixel (rms)", {"of the image": "reconstruction", "as assumed": "deviation"}),
    ("difference of log power", {"power": "spectrum"}),
)
#: Panels whose numbers do not span decades.
_LINEAR = (_PANELS[0][0], _PANELS[3][0])
_COLOURS = (BLUE, RED)


def losses(history: pd.DataFrame, kept: int, path: Path) -> pd.DataFrame:
    """Draw the losses that there are, of StyleGAN2, autoencoder or diffusion; returns the history.

    A dotted line marks the epoch `kept`.
    """
    panels = [(words, _present(history, names)) for words, names in _PANELS]
    panels = [(words, names) for words, names in panels if names]
    if "loss_generator" not in history:
        panels.insert(0, ("total loss", {"total": ""}))
    width = min(len(panels), 3)
    height = -(-len(panels) // width)
    with canvas(path, height, width, size=(max(3.9 * width, 4.6), 3.5 * height)) as (_, axes):
        hide_unused(axes, len(panels))
        for ax, (words, names) in zip(axes.ravel(), panels, strict=False):
            _curves(ax, history, names)
            ax.axvline(kept, color=GREY, ls=":", lw=1.2, zorder=1, label=f"kept (epoch {kept})")
            if "right_on_real" in names.values():
                ax.axhline(0.5, color=GREY, lw=0.9, ls="-.", label="cannot tell")
                ax.set_ylim(-0.03, 1.03)
            elif words not in _LINEAR and _positive(history, names):
                ax.set_yscale("log")
                plain_log(ax.yaxis)
            ax.set_ylabel(words)
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    return history


def loss_words(history: pd.DataFrame) -> str:
    """What is good in the losses of the network at hand."""
    if "loss_generator" in history:
        return (
            "Losses of generator and discriminator against each other, which need not fall: what "
            "one wins the other loses. Of a training in balance both stay level, and the shares "
            "of right answers stay above one half but away from 1; where they reach 1 on real "
            "images of the training set alone, the discriminator knows these by heart."
        )
    if "loss_divergence" in history:
        return (
            "The total, a bound on the negative log likelihood, which may fall below zero, and its "
            "parts. A divergence near zero means that the image does not depend on the random "
            "numbers."
        )
    return (
        "Error of the images that noise was taken out of, weighted by the noise. It cannot fall to "
        "zero, as noise that hides an image leaves it open; curves that part are overfitting."
    )


def _present(history: pd.DataFrame, names: Mapping[str, str]) -> dict[str, str]:
    """Those losses that were told in an epoch at least."""
    return {
        label: name
        for label, name in names.items()
        if f"loss_{name}" in history and history[f"loss_{name}"].notna().any()
    }


def _curves(ax: Axes, history: pd.DataFrame, names: Mapping[str, str]) -> None:
    """A colour a loss: full on the training set, dashed on the validation set."""
    marker = "o" if len(history) < 30 else ""
    for (label, name), colour in zip(names.items(), _COLOURS, strict=False):
        for column, line, part in _columns(name):
            if column in history and history[column].notna().any():
                words = f"{label}, {part}" if len(names) > 1 else part
                look: dict[str, Any] = {"color": colour, "ls": line, "marker": marker}
                look["mfc"] = colour if line == "-" else "white"
                ax.plot(history["epoch"], history[column], label=words, **look)


def _columns(name: str) -> list[tuple[str, str, str]]:
    """Columns of a loss on both sets, with their lines and words."""
    ending = f"_{name}" if name else ""
    return [(f"loss{ending}", "-", "training"), (f"val_loss{ending}", "--", "validation")]


def _positive(history: pd.DataFrame, names: Mapping[str, str]) -> bool:
    """Whether all that is known of losses is above zero."""
    columns = [column for name in names.values() for column, *_ in _columns(name)]
    known = history.reindex(columns=columns).to_numpy(float)
    return bool((known[np.isfinite(known)] > 0).all())
