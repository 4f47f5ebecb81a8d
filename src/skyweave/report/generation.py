"""Figures of a generation run: images, power, morphology, distances from real ones, training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from skyweave.data.predictions import NETWORK
from skyweave.errors import UserError
from skyweave.report import read
from skyweave.report.generation_images import (
    colours_words,
    grids,
    read_scale,
    samples,
    shown_images,
)
from skyweave.report.generation_losses import loss_words, losses
from skyweave.report.generation_shapes import STATISTICS, TRUTH, morphology
from skyweave.report.losses import picked
from skyweave.report.reconstruction import METRIC_COLUMNS, of_test_split
from skyweave.report.record import Drawn, write
from skyweave.report.style import (
    BLUE,
    GREY,
    canvas,
    field_label,
    legend_below,
    method_style,
    plain_field,
    plain_log,
)

#: Figures of every run.
FILES = (
    "samples.png",
    "spectra.svg",
    "morphology.svg",
    "distances.svg",
    "grids.png",
    "losses.svg",
)

SPECTRUM_COLUMNS = ("method", "field", "quantile", "wave_number", "power")
SHAPE_COLUMNS = ("method", "field")

#: The network, and what it stands beside.
_METHODS = (NETWORK, "real", "gaussian_images")


def draw_generation(
    run_folder: str | Path,
    out_folder: str | Path,
    *,
    shards: Sequence[str | Path],
    split: str | Path,
    stretch: str | Path,
) -> None:
    """Draw a run's figures (`FILES`), a CSV beside each, and figures.json.

    Reads metrics.csv, spectra.csv, morphology.csv, samples.h5, grids.npz, history.csv and sweep.csv
    from `run_folder`, and the real images of its dataset; raises `UserError` when one is missing or
    lacks what is drawn.
    """
    run, out = Path(run_folder), Path(out_folder)
    metrics = of_test_split(read.table(run / "metrics.csv", METRIC_COLUMNS))
    if "distance_power" not in set(metrics["statistic"]):
        raise UserError(run / "metrics.csv", "rows of the statistic 'distance_power'", "none")
    spectrum = read.table(run / "spectra.csv", SPECTRUM_COLUMNS)
    shapes = read.table(run / "morphology.csv", SHAPE_COLUMNS, empty=True)
    history = read.table(run / "history.csv", ("epoch", "loss", "val_loss"))
    kept, picked_by = picked(run / "sweep.csv", history)
    bands = [str(band) for band in spectrum["field"].unique()]
    scale = read_scale(stretch)
    real, made = shown_images(shards, bands, split), shown_images([run / "samples.h5"], bands)
    count = int(metrics.loc[metrics["statistic"] == "mean_distance", "n"].max())
    names = ", ".join(plain_field(band) for band in bands)
    drawn = [
        Drawn(
            "samples.png",
            "Real and generated images",
            "Above, real images, evenly from the test set; below, the first generated ones; none "
            f"is picked by its looks. {colours_words(bands)} They are good where nobody could tell "
            "which is which, in the bright middle and in the faint wings alike; what looks alike "
            "may still differ in number, as the other figures tell.",
            f"{len(real.numbers)} real images above {len(made.numbers)} generated ones.",
            samples(real, made, bands, scale, out / "samples.png"),
        ),
        Drawn(
            "spectra.svg",
            "Power spectra",
            "Above, power by wave number: the median over images, and between which values 68 % "
            "and 95 % to 5 % of them lie, of the test set (grey) and of the network (blue lines). "
            "A network is good where its lines lie on the edges of the grey bands, at large wave "
            "numbers too, which are small scales. Below, the Wasserstein distance of the "
            "distribution of log power from the test set's, in units of the mean absolute "
            "deviation of the real images: 1 is what a generator reaches that makes one typical "
            "image again and again. As many other real images are as near as can be told with "
            f"{count} images of each set. Gaussian images have the mean and the covariance of "
            "stretched training images and no more, and so less power of fluxes at small scales "
            "where galaxies have cusps. Bars are errors by resampling.",
            f"Power against wave number of real and generated images, {names}, and distances.",
            spectra(spectrum, metrics, out / "spectra.svg"),
        ),
        Drawn(
            "morphology.svg",
            "Morphology",
            "Histograms of what is measured of each image by one fixed rule, the same for all "
            "sets: the test set (grey), as many other real images (dashed) and the network (blue), "
            "which is good where it fills the grey and no more. The bins span nearly all real "
            "images; which share of the network's lies outside is said, and those are counted in "
            "the distance. W is the Wasserstein distance from the test set, in units of the real "
            "images' mean absolute deviation, and beside it that of other real images. Images in "
            "which nothing can be measured are left out here; their share is in the checks. "
            "Smoothness steps with a galaxy's size and says little of small ones.",
            f"Histograms of morphology of real and generated images, {names}.",
            morphology(shapes, metrics, out / "morphology.svg"),
        ),
        Drawn(
            "distances.svg",
            "Distances from real images",
            "Wasserstein distance of each statistic's distribution from the test set's, in units "
            "of the real images' mean absolute deviation, with errors by resampling. The smaller "
            "the better: other real images, as many, are as near as a generator of the very law "
            "could come, and 1 is what the same typical image again and again would reach. "
            "Gaussian images tell what mean and covariance of stretched pixels alone are worth. "
            "The mean is over all but the flux, the power spectrum counted once; its error takes "
            "errors of statistics as fully alike.",
            f"Wasserstein distances of network, other real images and Gaussian images, {names}.",
            distances(metrics, out / "distances.svg"),
        ),
        Drawn(
            "grids.png",
            "Samples along the training",
            "Images of the same random numbers, a column each, after some epochs of the training, "
            f"the last below, without truncation. {colours_words(bands)} Where a column still "
            "changes its galaxy between the last rows, the training has not come to rest; where "
            "columns look alike, the network has collapsed to a few images.",
            "Generated images of the same random numbers along the training, a row an epoch.",
            grids(run / "grids.npz", bands, out / "grids.png"),
        ),
        Drawn(
            "losses.svg",
            "Training",
            f"{loss_words(history)} Full lines are of the training set, dashed ones of the "
            f"validation set. The network of the dotted epoch is kept: {picked_by}.",
            f"Losses over {len(history)} epochs on the training and on the validation set.",
            losses(history, kept, out / "losses.svg"),
        ),
    ]
    write(out, "generation", drawn)


def spectra(spectrum: pd.DataFrame, metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw power by wave number above and its distances below, a column a band.

    Returns the rows drawn: quantiles of power, and distances with their errors.
    """
    rows = metrics[(metrics["statistic"] == "distance_power") & metrics["method"].isin(_METHODS)]
    bands = list(spectrum["field"].unique())
    shape: dict[str, Any] = {"sharex": True, "height_ratios": (2, 1)}
    size = (max(4.6 * len(bands), 6.0), 6.0)
    with canvas(path, 2, len(bands), size=size, **shape) as (figure, axes):
        for (above, below), band in zip(axes.T, bands, strict=True):
            _power(above, spectrum[spectrum["field"] == band])
            above.set_title(field_label(str(band)))
            for method in _METHODS:
                of = rows[(rows["field"] == band) & (rows["method"] == method)].sort_values("ell")
                _, colour, marker, line = method_style(method, _METHODS)
                look: dict[str, Any] = {"color": colour, "marker": marker, "ls": line}
                below.errorbar(of["ell"], of["value"], of["error"], capsize=2, lw=1.1, **look)
            below.set_yscale("log")
            plain_log(below.yaxis)
            below.set_ylabel("Wasserstein distance")
            below.set_xlabel("wave number [cycles per pixel]")
        legend_below(figure, list(axes.ravel()))
    quantiles = spectrum.rename(columns={"wave_number": "ell", "power": "value"})
    quantiles = quantiles.assign(statistic="power")
    columns = ["field", "method", "statistic", "quantile", "ell", "value", "error"]
    return pd.concat([quantiles, rows], ignore_index=True).reindex(columns=columns)


def distances(metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw the distance of each statistic with its error, a panel a band; returns what is drawn.

    Power is the mean over wave numbers, of values and of errors.
    """
    known = metrics[metrics["method"].isin(_METHODS)]
    of = known[known["statistic"].str.startswith("distance_")]
    means = known[known["statistic"] == "mean_distance"]
    rows = pd.concat([means.assign(statistic="mean"), of.assign(statistic=of["statistic"].str[9:])])
    by = ["field", "method", "statistic"]
    rows = rows.groupby(by, sort=False)[["value", "error"]].mean().reset_index()
    names = [name for name in STATISTICS if name in set(rows["statistic"])]
    bands = list(rows["field"].unique())
    size = (max(3.2 * len(bands) + 1.4, 6.4), 0.42 * len(names) + 1.6)
    with canvas(path, 1, len(bands), size=size, sharey=True) as (figure, axes):
        for ax, band in zip(axes[0], bands, strict=True):
            for number, method in enumerate(_METHODS):
                part = rows[(rows["field"] == band) & (rows["method"] == method)]
                place = part["statistic"].map(names.index) + 0.2 * (number - 1)
                label, colour, marker, _ = method_style(method, _METHODS)
                look: dict[str, Any] = {"color": colour, "marker": marker, "ls": "", "capsize": 2}
                ax.errorbar(part["value"], place, xerr=part["error"], label=label, ms=5, **look)
            ax.axvline(1, color=GREY, lw=0.9, label="the same typical image always")
            ax.axhline(0.5, color=GREY, lw=0.8, ls=":")
            if "flux" in names:
                ax.axhline(names.index("flux") - 0.5, color=GREY, lw=0.8, ls=":")
            ax.set_xscale("log")
            plain_log(ax.xaxis)
            ax.set_xlabel("Wasserstein distance")
            ax.set_title(field_label(str(band)))
        words = [STATISTICS[name].partition(" [")[0] for name in names]
        axes[0, 0].set_yticks(range(len(names)), words)
        axes[0, 0].invert_yaxis()
        legend_below(figure, list(axes[0]))
    return rows


def _power(ax: Axes, rows: pd.DataFrame) -> None:
    """Bands of the truth, and lines of the network in the same places."""
    table = rows.pivot_table(index="wave_number", columns=["method", "quantile"], values="power")
    truth = table[TRUTH]
    for (low, high), shade, words in (
        ((0.05, 0.95), "#e5e7eb", "truth, 5–95 %"),
        ((0.16, 0.84), "#c4c9d1", "truth, 16–84 %"),
    ):
        ax.fill_between(truth.index, truth[low], truth[high], color=shade, lw=0, label=words)
    for method in (TRUTH, *_METHODS):
        label, colour, marker, line = method_style(method, _METHODS)
        look: dict[str, Any] = {"color": colour, "marker": marker, "ls": line, "label": label}
        if method in table:
            ax.plot(table.index, table[method][0.5], lw=2.2 if method == TRUTH else 1.2, **look)
    for (low, high), line, words in (
        ((0.16, 0.84), "--", "network, 16 and 84 %"),
        ((0.05, 0.95), ":", "network, 5 and 95 %"),
    ):
        for quantile in (low, high):
            ax.plot(table.index, table[NETWORK][quantile], color=BLUE, ls=line, lw=1, label=words)
    ax.set_yscale("log")
    ax.set_ylabel("power a pixel")
