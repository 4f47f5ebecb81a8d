"""Figures of a foreground run: small scales of dust that a network added, beside the truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from skyweave.errors import UserError
from skyweave.report import read
from skyweave.report.losses import adversarial_loss, picked
from skyweave.report.read import SmallScales
from skyweave.report.reconstruction import METRIC_COLUMNS, of_test_split
from skyweave.report.record import Drawn, write
from skyweave.report.sky import FUNCTIONALS
from skyweave.report.sky_maps import brightness_norm
from skyweave.report.style import (
    GREY,
    UNITS,
    canvas,
    dl,
    ends,
    field_label,
    legend_below,
    lifted,
    log_ell,
    method_style,
    plain_log,
    symmetric_limit,
)

CURVE_COLUMNS = ("split", "field", "method", "statistic", "threshold", "value", "error", "std")
SCORE_COLUMNS = (
    *("split", "field", "method", "statistic"),
    *("value", "error", "ceiling", "ceiling_low", "n"),
)
FILES = (
    *("examples.png", "spectra.svg", "minkowski.svg", "one_point.svg"),
    *("bispectrum.svg", "correlation.svg", "nearest.svg", "loss.svg"),
)
_HISTORY_COLUMNS = ("epoch", "loss_adversarial", "loss_discriminator", "loss_right_on_real")
_PERCENTILES = ("cl_p16", "cl_p50", "cl_p84")
_SHAPES = ("bispectrum_equilateral", "bispectrum_squeezed")
_FAMILIES = ("ratio", "high")


def draw_foregrounds(run_folder: str | Path, out_folder: str | Path) -> None:
    """Draw a foreground run's eight figures (`FILES`), a CSV beside each, and figures.json.

    Reads predictions.h5, metrics.csv, curves.csv, nearest.csv, history.csv and sweep.csv from
    `run_folder`; raises `UserError` when one is missing or lacks what is drawn.
    """
    run, out = Path(run_folder), Path(out_folder)
    metrics = of_test_split(read.table(run / "metrics.csv", METRIC_COLUMNS))
    curves = of_test_split(read.table(run / "curves.csv", CURVE_COLUMNS))
    neighbours = read.table(run / "nearest.csv", ("realization", "method", "correlation"))
    history = read.table(run / "history.csv", _HISTORY_COLUMNS)
    kept, picked_by = picked(run / "sweep.csv", history)
    sweep = read.table(run / "sweep.csv", ("epoch", "statistic", "field", "value"))
    statistics = (*_PERCENTILES, *_SHAPES, "input_correlation")
    for path, table, wanted in (
        (run / "metrics.csv", metrics, statistics),
        (run / "curves.csv", curves, (*FUNCTIONALS, "one_point")),
    ):
        _require(path, table, "statistic", wanted)
        _require(path, table, "method", ("truth", "network", "gaussian"))
    _require(run / "curves.csv", curves, "field", _FAMILIES)
    _require(run / "nearest.csv", neighbours, "method", ("truth", "network"))
    shown = read.small_scales(run / "predictions.h5", 3)
    median = neighbours.groupby("method")["correlation"].median()
    medians = ", ".join(f"{median[name]:.2f} for the {name}" for name in ("network", "truth"))
    drawn = [
        Drawn(
            "examples.png",
            "Example patches",
            f"{_patches(len(shown.realizations))} spread evenly over the test set: what the "
            "network is given, the truth, what it made, and Gaussian small scales of the same "
            "power; one colour scale a patch. The made patch is good if its filaments look like "
            "those of the truth, in other places: nothing but the large scales tells the network "
            "where they are. So network − truth, on colours as wide as the truth's own small "
            "scales, may be strong everywhere, and is bad only where it shows the large ones.",
            "Dust patches at low resolution, the truth, by the network and by Gaussian small "
            "scales, and network − truth.",
            examples(shown, out / "examples.png"),
        ),
        Drawn(
            "spectra.svg",
            "Power spectra",
            "Spectra of the test patches: medians over patches, bands hold 68 % of them. Below, "
            "over the median of the truth, whose band is grey: 1 is right, less is power that is "
            "missing. The patch at low resolution shows from where on power had to be added.",
            "Power spectra against multipole of low resolution, truth, network and Gaussian small "
            "scales, and their ratios to the truth.",
            spectra(metrics, out / "spectra.svg"),
        ),
        Drawn(
            "minkowski.svg",
            "Minkowski functionals",
            "Area, boundary length and Euler characteristic of the excursion sets of the test "
            "patches: means, bands of one standard deviation over patches. Above, of the small "
            "scales alone, the ratio of high to low resolution. The network is good where its "
            "band covers that of the truth, and better than Gaussian small scales where theirs "
            "does not.",
            "Three Minkowski functionals against threshold for truth, network and Gaussian small "
            "scales, with bands of scatter.",
            minkowski(curves, out / "minkowski.svg"),
        ),
        Drawn(
            "one_point.svg",
            "Distribution of values",
            "Density of the values of the pixels, each patch scaled to [−1, 1]: means, bands of "
            "one standard deviation over patches. The truth is lopsided; a network that follows "
            "its curve has learned more than the spectrum.",
            "Density of pixel values of the ratio and of the patches at high resolution, for "
            "truth, network and Gaussian small scales.",
            one_point(curves, out / "one_point.svg"),
        ),
        Drawn(
            "bispectrum.svg",
            "Bispectra",
            "Mean bispectra of the test patches, each divided by the rms of its small scales, "
            "with standard errors; in squeezed triangles one side is a long wave. Zero is "
            "Gaussian. The network is good where its points lie on those of the truth within the "
            "errors; methods are set apart sideways a little.",
            "Equilateral and squeezed bispectra against multipole for truth, network and Gaussian "
            "small scales.",
            bispectra(metrics, out / "bispectrum.svg"),
        ),
        Drawn(
            "correlation.svg",
            "Correlation of input and output",
            "Correlation coefficient r_ell of the patch at low resolution with that at high "
            "resolution, mean over test patches with its error. Large scales must be kept: 1 at "
            "low ell. On small scales the truth tells how much the input knows; a network above "
            "it repeats its input, one below has not heeded it.",
            "Correlation coefficient of input and output against multipole for truth, network and "
            "Gaussian small scales.",
            correlation(metrics, out / "correlation.svg"),
        ),
        Drawn(
            "nearest.svg",
            "Nearest training patch",
            "Share of the test patches whose small scales correlate with those of their nearest "
            f"training patch by no more than a value (symbols: median, {medians}). The network "
            "has not copied if its curve is not to the right of the truth's, which tells how alike "
            "two patches of the sky are; near 1 it repeats training patches.",
            f"Distribution of the correlation with the nearest training patch: median {medians}.",
            nearest(neighbours, out / "nearest.svg"),
        ),
        Drawn(
            "loss.svg",
            "Training",
            "Losses of the two networks, and how often the discriminator is right. It should do "
            "little better than to guess (half of its answers): near 1 the generator has "
            "learned nothing that passes for true. Neither loss tells which epoch is best; the "
            f"network of the marked epoch is kept: {picked_by}.",
            f"Losses of generator and discriminator over {len(history)} epochs, shares of right "
            "answers, and what the epochs were compared by.",
            adversarial_loss(history, sweep, kept, out / "loss.svg"),
        ),
    ]
    write(out, "foregrounds", drawn)


def _require(path: Path, table: pd.DataFrame, column: str, wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in set(table[column]):
            raise UserError(path, f"rows of the {column} {name!r}", "none")


def _patches(count: int) -> str:
    return ("One patch", "Two patches", "Three patches")[count - 1]


_COLUMNS = {
    "low": "low resolution",
    "truth": "truth",
    "network": "network",
    "gaussian": "Gaussian small scales",
    "difference": "network − truth",
}


def examples(shown: SmallScales, path: Path) -> pd.DataFrame:
    """Draw a few patches, a row each: low, truth, network, Gaussian, and network - truth.

    Returns the colour scale of each map, in its unit.
    """
    count, half = len(shown.realizations), shown.size_deg / 2
    record = []
    size = (12.4, 2.0 * count + 0.5)
    with canvas(path, count, 5, size=size, sharex=True, sharey=True) as (figure, axes):
        for row, (line, place) in enumerate(zip(axes, shown.realizations, strict=True)):
            inside = np.where(shown.mask[row] > 0, 1, np.nan)
            maps = {name: inside * getattr(shown, name)[row] for name in list(_COLUMNS)[:4]}
            limit = symmetric_limit(maps["truth"] - maps["low"])
            norms = dict.fromkeys(maps, brightness_norm(maps["truth"]))
            norms["difference"] = Normalize(-limit, limit)
            maps["difference"] = maps["network"] - maps["truth"]
            for ax, (name, values) in zip(line, maps.items(), strict=True):
                image = ax.imshow(
                    lifted(values, norms[name]),
                    extent=(-half, half, -half, half),
                    origin="lower",
                    cmap="PuOr_r" if name == "difference" else "cividis",
                    norm=norms[name],
                )
                ax.grid(False)
                if name in ("gaussian", "difference"):
                    _bar(figure, image, line[:4] if name == "gaussian" else line[4:], shown.unit)
                moments = np.nanmean(values), np.nanstd(values)
                record.append((place, name, shown.unit, *ends(norms[name]), *moments))
            line[0].set_ylabel(f"patch {place}\n$y$ [deg]")
        for above, below, title in zip(axes[0], axes[-1], _COLUMNS.values(), strict=True):
            above.set_title(title)
            below.set_xlabel("$x$ [deg]")
    columns = ["realization", "map", "unit", "colour_low", "colour_high", "mean"]
    return pd.DataFrame(record, columns=[*columns, "standard_deviation"])


def _bar(figure: Figure, image: AxesImage, axes: np.ndarray, unit: str) -> None:
    """The scale that a row's panels share."""
    bar = figure.colorbar(image, ax=list(axes), pad=0.015, extend="both")
    bar.set_label(UNITS.get(unit, unit), fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    if isinstance(image.norm, LogNorm):
        plain_log(bar.ax.yaxis)


def spectra(metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw D_ell (µK²): medians with the band between the percentiles 16 and 84; returns the rows.

    Below, each over the truth's median.
    """
    rows = metrics[metrics["statistic"].isin(_PERCENTILES)].sort_values("ell", kind="stable")
    tables = {
        str(method): part.pivot_table(
            index="ell", columns="statistic", values="value", dropna=False
        ).reindex(columns=list(_PERCENTILES))
        for method, part in rows.groupby("method", sort=False)
    }
    truth = tables["truth"]["cl_p50"]
    with canvas(path, 2, 1, size=(9.0, 6.4), sharex=True, height_ratios=(1.6, 1)) as (figure, axes):
        above, below = axes[:, 0]
        for method in ("input", "truth", "gaussian", "network"):
            if method in tables:
                ell = tables[method].index.to_numpy(float)
                table = tables[method].where(tables[method] > 0)
                spectrum = table.mul(dl(ell, np.ones(ell.size)), axis=0)
                over = table.div(truth.where(truth > 0), axis=0)
                _median(above, method, ell, spectrum)
                _median(below, method, ell, over, band=method == "truth")
                if method == "truth":
                    limits = np.nanmin(spectrum) / 5, 5 * np.nanmax(spectrum)
        above.set_yscale("log")
        above.set_ylabel(r"$D_\ell$ [µK²]")
        above.set_ylim(*limits)
        below.set_ylim(0, 2.05)
        below.set_ylabel("over the truth's median")
        log_ell(below)
        legend_below(figure, [above])
    return rows


def _median(ax: Axes, method: str, ell: np.ndarray, table: pd.DataFrame, band: bool = True) -> None:
    label, colour, marker, line = method_style(method, [method])
    low, median, high = (table[name].to_numpy(float) for name in _PERCENTILES)
    if band:
        ax.fill_between(ell, low, high, color=colour, alpha=0.13, lw=0)
    ax.plot(ell, median, color=colour, marker=marker, ls=line, label=label)


def minkowski(curves: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw V0, V1, V2 (columns) of ratio and high resolution (rows) by threshold; returns rows."""
    rows = curves[curves["statistic"].isin(FUNCTIONALS)]
    with canvas(path, 2, 3, size=(10.8, 6.2), sharex=True) as (figure, axes):
        for line, family in zip(axes, _FAMILIES, strict=True):
            of_family = rows[rows["field"] == family]
            for ax, (statistic, name) in zip(line, FUNCTIONALS.items(), strict=True):
                _bands(ax, of_family[of_family["statistic"] == statistic])
                ax.set_ylabel(name)
                ax.ticklabel_format(axis="y", scilimits=(-3, 3))
            line[1].set_title(field_label(family))
        for ax in axes[1]:
            ax.set_xlabel("threshold, map scaled to [−1, 1]")
        legend_below(figure, list(axes.flat))
    return rows


def one_point(curves: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw the density of values of ratio and of high resolution; returns the rows drawn."""
    rows = curves[curves["statistic"] == "one_point"]
    with canvas(path, 1, 2, size=(9.2, 3.9)) as (figure, axes):
        for ax, family in zip(axes[0], _FAMILIES, strict=True):
            _bands(ax, rows[rows["field"] == family])
            ax.set_ylim(bottom=0)
            ax.set_title(field_label(family))
            ax.set_xlabel("value, map scaled to [−1, 1]")
            ax.set_ylabel("density")
        legend_below(figure, list(axes.flat))
    return rows


def _bands(ax: Axes, rows: pd.DataFrame) -> None:
    """A line a method with its scatter as a band, the truth's in front."""
    for method in ("gaussian", "network", "truth"):
        part = rows[rows["method"] == method].sort_values("threshold")
        label, colour, _, line = method_style(method, [method])
        x, value, std = (part[name].to_numpy(float) for name in ("threshold", "value", "std"))
        ax.fill_between(x, value - std, value + std, color=colour, alpha=0.15, lw=0)
        ax.plot(x, value, color=colour, ls=line, label=label)


_SCALED = {  # title, power of ell that takes the slope out, label
    "bispectrum_equilateral": ("equilateral", 2, r"$\ell^4 B_{\ell\ell\ell}\,/\,(2\pi)^2$"),
    "bispectrum_squeezed": ("squeezed", 1, r"$\ell^2 B_{L\ell\ell}\,/\,2\pi$ [sr]"),
}


def bispectra(metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw equilateral and squeezed bispectra, scaled by ell; returns the rows drawn (sr²)."""
    rows = metrics[metrics["statistic"].isin(_SHAPES)]
    with canvas(path, 1, 2, size=(9.2, 3.9)) as (figure, axes):
        for ax, (statistic, (title, power, label)) in zip(axes[0], _SCALED.items(), strict=True):
            of_shape = rows[rows["statistic"] == statistic]
            ax.axhline(0, color=GREY, lw=0.8)
            for method, aside in (("truth", 1.0), ("gaussian", 0.97), ("network", 1.03)):
                part = of_shape[of_shape["method"] == method]
                scale = (part["ell"].to_numpy(float) ** 2 / (2 * np.pi)) ** power
                _points(ax, method, part, scale=scale, aside=aside)
            ax.ticklabel_format(axis="y", scilimits=(-3, 3))
            log_ell(ax)
            ax.set_title(title)
            ax.set_ylabel(label)
        legend_below(figure, list(axes.flat))
    return rows


def correlation(metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw r_ell of low with high resolution, with errors; returns the rows drawn."""
    rows = metrics[metrics["statistic"] == "input_correlation"]
    with canvas(path, size=(6.8, 4.2)) as (figure, axes):
        ax = axes[0, 0]
        for level, line in ((0, "-"), (1, ":")):
            ax.axhline(level, color=GREY, lw=0.8, ls=line)
        for method in ("truth", "gaussian", "network"):
            _points(ax, method, rows[rows["method"] == method])
        ax.set_ylim(min(-0.08, np.nan_to_num(rows["value"].min()) - 0.05), 1.06)
        log_ell(ax)
        ax.set_ylabel(r"correlation of input and output $r_\ell$")
        legend_below(figure, [ax])
    return rows


def _points(
    ax: Axes,
    method: str,
    rows: pd.DataFrame,
    scale: np.ndarray | float = 1.0,
    aside: float = 1.0,
) -> None:
    """Points of a method with their errors, times `scale`, set aside by a factor in ell."""
    label, colour, marker, line = method_style(method, [method])
    ell, value, error = (rows[name].to_numpy(float) for name in ("ell", "value", "error"))
    order = np.argsort(ell)
    x, y, bars = aside * ell[order], (scale * value)[order], (scale * np.nan_to_num(error))[order]
    ax.errorbar(x, y, bars, color=colour, marker=marker or "x", ls=line, label=label, capsize=1.5)


def nearest(neighbours: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw the distribution of the correlation with the nearest training patch; returns rows."""
    with canvas(path, size=(6.2, 4.0)) as (figure, axes):
        ax = axes[0, 0]
        for method in ("truth", "network"):
            values = neighbours.loc[neighbours["method"] == method, "correlation"]
            label, colour, marker, line = method_style(method, [method])
            low, shares = values.min(), np.arange(1, len(values) + 1) / len(values)
            x, y = np.append(low, np.sort(values)), np.append(0, shares)
            ax.step(x, y, where="post", color=colour, ls=line)
            ax.plot(values.median(), 0.5, color=colour, marker=marker or "D", ms=7, label=label)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel("correlation with the nearest training patch")
        ax.set_ylabel("share of test patches")
        ax.xaxis.set_major_locator(MaxNLocator(6))
        legend_below(figure, [ax])
    return neighbours
