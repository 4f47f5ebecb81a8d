"""Figures of a denoising run: restored images, their errors, training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from skyweave.data.predictions import NETWORK
from skyweave.errors import UserError
from skyweave.images.stretch import Scale
from skyweave.report import read
from skyweave.report.generation_images import pictures, read_scale
from skyweave.report.losses import networks, picked
from skyweave.report.reconstruction import METRIC_COLUMNS, of_test_split
from skyweave.report.record import Drawn, write
from skyweave.report.style import (
    GREY,
    canvas,
    field_label,
    legend_below,
    method_style,
    plain_field,
    plain_log,
    symmetric_limit,
)
from skyweave.statistics.restoration import case_words

#: Figures of every run.
FILES = ("examples.png", "errors.svg", "losses.svg")

#: Images of an example from the left, and what stands beside the network in the errors.
_TRUTH, _COLUMNS = "truth", ("truth", "seen", NETWORK, "wiener")
_METHODS = (NETWORK, "wiener", "seen")

_ERROR, _BIAS = "mse", "flux_bias"

#: An example: {case: {method: image (y, x)}}, fluxes of one band.
Example = Mapping[str, Mapping[str, np.ndarray]]


def draw_denoising(run_folder: str | Path, out_folder: str | Path, *, stretch: str | Path) -> None:
    """Draw a run's figures (`FILES`), a CSV beside each, and figures.json.

    Reads metrics.csv, restored.h5, history.csv and sweep.csv from `run_folder`; raises `UserError`
    when one is missing or lacks what is drawn.
    """
    run, out = Path(run_folder), Path(out_folder)
    metrics = of_test_split(read.table(run / "metrics.csv", (*METRIC_COLUMNS, "case")))
    for statistic in (_ERROR, _BIAS):
        if statistic not in set(metrics["statistic"]):
            raise UserError(run / "metrics.csv", f"rows of the statistic {statistic!r}", "none")
    history = read.table(run / "history.csv", ("epoch", "loss", "val_loss"))
    kept, picked_by = picked(run / "sweep.csv", history)
    bands = [str(band) for band in metrics["field"].unique()]
    cases = [str(case) for case in metrics["case"].unique()]
    shown = first_example(run / "restored.h5", cases, bands[0])
    scale = read_scale(stretch)
    names = ", ".join(plain_field(band) for band in bands)
    drawn = [
        Drawn(
            "examples.png",
            "Restored image",
            "The first image of the test set, not a picked one, a row a condition: as the network "
            "was trained, and as it never saw it. From the left the truth, the image as it is "
            "seen, and what the network and the Wiener filter make of it, all by the dataset's "
            "fixed stretch, in which white is no flux; the filter knows each condition, the "
            "network does not. At the right what the network is off by, in the same stretched "
            "units; it is good where that has no structure. Larger pixels, of the same surface "
            f"brightness, are the truth's too.{_one_band(bands)}",
            f"Truth, image as seen, network, Wiener filter and residual, {len(cases)} conditions.",
            examples(shown, scale, bands[0], out / "examples.png"),
        ),
        Drawn(
            "errors.svg",
            "Errors",
            "Above, the mean squared error of stretched pixels on the test set, by condition: as "
            "trained, and under conditions that the network never saw. It is worth its training "
            "where it lies below both the image as it is seen and the Wiener filter, which is told "
            "the point-spread function and the noise of each condition. That is the best linear "
            "filter of fluxes, its negative ones set to 0 where the dataset has none, and not of "
            "stretched pixels, in which faint light counts more: its ripples may cost it more than "
            "the images as seen are off by. A network above these does harm. Below, the "
            "mean relative error of an image's flux, of which 0 is right: a network that was "
            "trained on squared errors may lose faint light. Bars are standard errors over "
            "images, most of which the methods share.",
            f"Mean squared error and flux bias by condition, of {names}.",
            errors(metrics, out / "errors.svg"),
        ),
        Drawn(
            "losses.svg",
            "Training",
            "Losses on the training set, into which generated images may be mixed, and on the "
            "validation set, which is always real; and the learning rate. Curves that part are "
            f"overfitting. The network of the ringed epoch is kept: {picked_by}.",
            f"Losses over {len(history)} epochs on the training and on the validation set.",
            networks(history, kept, out / "losses.svg"),
        ),
    ]
    write(out, "denoising", drawn)


def first_example(path: Path, cases: Sequence[str], band: str) -> Example:
    """The first image of each case and method in a file of restored images.

    Raises `UserError` for a missing or broken file, and one without them.
    """
    if not path.is_file():
        raise UserError(path, "a file of restored images", "none")
    try:
        with h5py.File(path) as file:
            names = [f"{case}/{method}/{band}" for case in cases for method in _COLUMNS]
            lacking = [name for name in names if name not in file or not len(file[name])]
            if lacking:
                raise UserError(path, f"images {lacking[0]}", ", ".join(file) or "none")
            return {
                case: {method: file[f"{case}/{method}/{band}"][0] for method in _COLUMNS}
                for case in cases
            }
    except OSError as error:
        raise UserError(path, "an HDF5 file", str(error).splitlines()[0]) from None


def examples(shown: Example, scale: Scale, band: str, path: Path) -> pd.DataFrame:
    """Draw images, a row a case, and what the network is off by; returns errors and fluxes."""
    stretched = {
        case: {method: scale.apply(image) for method, image in images.items()}
        for case, images in shown.items()
    }
    off = {case: images[NETWORK] - images[_TRUTH] for case, images in stretched.items()}
    limit = symmetric_limit(*off.values())
    size = (9.6, 1.68 * len(shown) + 0.35)
    with canvas(path, len(shown), len(_COLUMNS) + 1, size=size) as (figure, axes):
        for line, (case, images) in zip(axes, stretched.items(), strict=True):
            for ax, method in zip(line, _COLUMNS, strict=False):
                ax.imshow(pictures(images[method][None, ..., None])[0], origin="lower")
            drawn = line[-1].imshow(
                off[case],
                origin="lower",
                cmap=matplotlib.colormaps["PuOr_r"],
                vmin=-limit,
                vmax=limit,
            )
            line[0].set_ylabel(case_words(case).replace(" and ", " and\n"))
            for ax in line:
                _frame(ax)
        titles = [method_style(method, _COLUMNS)[0] for method in _COLUMNS]
        for ax, title in zip(axes[0], [*titles, "network − truth"], strict=True):
            ax.set_title(title)
        bar = figure.colorbar(drawn, ax=list(axes[:, -1]), fraction=0.05, extend="both")
        bar.locator = MaxNLocator(5)
        bar.set_label("stretched units", fontsize=8)
    rows = [
        {
            "field": band,
            "case": case,
            "method": method,
            "mse": float(np.mean((image - images[_TRUTH]) ** 2, dtype=float)),
            "flux": float(shown[case][method].sum(dtype=float)),
        }
        for case, images in stretched.items()
        for method, image in images.items()
    ]
    return pd.DataFrame(rows)


def errors(metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw squared errors by case above and the bias of the flux below, a column a band.

    Returns the rows drawn.
    """
    rows = metrics[metrics["statistic"].isin((_ERROR, _BIAS)) & metrics["method"].isin(_METHODS)]
    cases, bands = list(rows["case"].unique()), list(rows["field"].unique())
    shape: dict[str, Any] = {"sharex": True, "height_ratios": (3, 2)}
    size = (max(4.6 * len(bands), 5.8), 5.4)
    with canvas(path, 2, len(bands), size=size, **shape) as (figure, axes):
        for column, band in zip(axes.T, bands, strict=True):
            for ax, statistic in zip(column, (_ERROR, _BIAS), strict=True):
                of = rows[(rows["field"] == band) & (rows["statistic"] == statistic)]
                for number, method in enumerate(_METHODS):
                    part = of[of["method"] == method]
                    place = part["case"].map(cases.index) + 0.16 * (number - 1)
                    label, colour, marker, _ = method_style(method, _METHODS)
                    look: dict[str, Any] = {"color": colour, "marker": marker, "label": label}
                    error = part["error"].fillna(0)
                    ax.errorbar(place, part["value"], error, ls="", ms=6, capsize=2.5, **look)
            column[0].set_yscale("log")
            plain_log(column[0].yaxis)
            column[0].set_ylabel("mean squared error")
            column[0].set_title(field_label(str(band)))
            column[1].axhline(0, color=GREY, lw=0.9)
            column[1].set_ylabel("flux, relative error")
            words = [case_words(str(case)).replace(" and ", "\nand ") for case in cases]
            column[1].set_xticks(range(len(cases)), words)
            column[1].set_xlim(-0.5, len(cases) - 0.5)
        legend_below(figure, list(axes.ravel()))
    return rows


def _one_band(bands: Sequence[str]) -> str:
    return f" The band {bands[0]} is shown, of {', '.join(bands)}." if len(bands) > 1 else ""


def _frame(ax: Axes) -> None:
    """A frame without ticks."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(True)
