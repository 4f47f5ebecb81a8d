"""Figures of a sky dataset: map and mask, places, patches, spectra, Minkowski functionals."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from skyweave.report import read
from skyweave.report.record import Drawn, write
from skyweave.report.sky_maps import example_patches, full_sky, patch_places, read_healpix
from skyweave.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    canvas,
    dl,
    legend_below,
    log_ell,
)

SPECTRA_COLUMNS = ("split", "field", "statistic", "ell", "value", "error")
MINKOWSKI_COLUMNS = ("split", "field", "statistic", "threshold", "value", "error", "std")
FILES = ("map.png", "places.png", "patches.png", "spectra.svg", "minkowski.svg")

_FIELDS = {  # label, colour, marker, line
    "high": ("dust, high resolution", BLUE, "o", "-"),
    "low": ("dust, low resolution", PINK, "D", "-."),
    "ratio": ("dust, ratio high / low", RED, "^", "-."),
    "gaussian": ("Gaussian control", ORANGE, "s", "--"),
    "gaussian_ratio": ("Gaussian control of the ratio", GREEN, "s", "--"),
    "theory": ("Gaussian theory", BLACK, "", ":"),
}
#: Labels of the Minkowski functionals on axes.
FUNCTIONALS = {
    "v0": r"area fraction $V_0$",
    "v1": r"boundary length $V_1$",
    "v2": r"Euler characteristic $V_2$",
}


def draw_sky(dataset_folder: str | Path, out_folder: str | Path) -> None:
    """Draw a sky dataset's five figures (`FILES`), a CSV beside each, and figures.json.

    Reads map.fits, mask.fits, mask_steps.csv, places.csv, patches.h5, spectra.csv and
    minkowski.csv from `dataset_folder`; raises `UserError` when one is missing or broken.
    """
    source, out = Path(dataset_folder), Path(out_folder)
    sky, unit, content = read_healpix(source / "map.fits")
    mask, _, _ = read_healpix(source / "mask.fits")
    steps = read.table(source / "mask_steps.csv", ("step", "f_sky"))
    places = read.table(source / "places.csv", ("lon", "lat", "split"))
    shown = read.patches(source / "patches.h5", 4)
    spectra = read.table(source / "spectra.csv", SPECTRA_COLUMNS)
    functionals = read.table(source / "minkowski.csv", MINKOWSKI_COLUMNS)
    kept = f"{100 * steps['f_sky'].iloc[-1]:.1f} %"
    splits = ", ".join(
        f"{n} {name}" for name, n in places["split"].value_counts(sort=False).items()
    )
    full_sky(sky, mask, unit, out / "map.png")
    drawn = [
        Drawn(
            "map.png",
            "Full-sky map and mask",
            f"{content or 'The map'}, in Galactic coordinates; the line bounds the mask, which "
            f"keeps {kept} of the sky. The table gives the share that is left after each step.",
            "Full-sky dust map in Mollweide projection, bright along the Galactic plane, with the "
            "edge of the mask.",
            steps,
        ),
        Drawn(
            "places.png",
            "Places of the patches",
            f"Centres and edges of the {len(places)} patches ({splits}) over the mask (white: "
            "kept). The test is fair if no patch of one split overlaps one of another; within a "
            "split they may.",
            f"Full-sky chart of {len(places)} patches by split, over the mask.",
            patch_places(places, mask, shown.size_deg, out / "places.png"),
        ),
        Drawn(
            "patches.png",
            "Example patches",
            "Patches spread evenly over the dataset, at low and at high resolution, on one "
            "colour scale for each pair; north is up, longitude grows to the left. What the lower "
            "row shows beyond the upper one is what a network would have to add.",
            f"{len(shown.index)} dust patches at low and at high resolution.",
            example_patches(shown, places, out / "patches.png"),
        ),
        Drawn(
            "spectra.svg",
            "Power spectra of the patches",
            "Spectra of the patches, decoupled from mask and edge by NaMaster: medians over "
            "patches, bands hold 68 % of them. The Gaussian control, a twin of each patch with "
            "its spectrum and mask, went through the same code: below, its spectrum over theory "
            "must be 1 within the errors, or the measurement is at fault and not the sky.",
            "Power spectra against multipole of dust at high and low resolution, of the Gaussian "
            "control and of theory.",
            patch_spectra(spectra, out / "spectra.svg"),
        ),
        Drawn(
            "minkowski.svg",
            "Minkowski functionals",
            "Area, boundary length and Euler characteristic of the excursion sets, for the dust "
            "and for its small scales alone (the ratio of high to low resolution). Wide bands: "
            "scatter of patches; narrow bands: error of the mean. The dust is non-Gaussian where "
            "its band leaves that of the Gaussian control; the control must follow the Gaussian "
            "theory, or the measurement is at fault and not the sky.",
            "Three Minkowski functionals against threshold for dust, its Gaussian control and "
            "theory, with bands of scatter.",
            minkowski(functionals, out / "minkowski.svg"),
        ),
    ]
    write(out, "sky", drawn)


def patch_spectra(spectra: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw D_ell (µK²) of dust and control, and control over theory; returns the rows (C_ell).

    A column a split. Above, medians over patches with the band between the percentiles 16 and 84:
    the mean is ruled by the brightest patch. Below, each control's spectrum over its theory, mean.
    Up to where the dust's median first is not positive: beyond its band limit is only rounding.
    """
    rows = spectra.sort_values("ell")
    splits = list(rows["split"].unique())
    with canvas(path, 2, len(splits), size=(2.2 + 4.2 * len(splits), 5.6), sharex="col") as (
        figure,
        axes,
    ):
        for (above, below), split in zip(axes.T, splits, strict=True):
            of_split = rows[rows["split"] == split]
            tables = {
                str(field): part.pivot_table(index="ell", columns="statistic", values="value")
                for field, part in of_split.groupby("field", sort=False)
            }
            shown = _positive_part(tables["high"]["cl_p50"])
            for field in ("high", "low", "gaussian"):
                _median_spectrum(above, field, tables[field].loc[:shown])
            above.set_yscale("log")
            above.set_ylabel(r"$D_\ell$ [µK²]")
            _control_ratio(below, of_split[of_split["ell"] <= shown])
            log_ell(below)
            if len(splits) > 1:
                above.set_title(split)
        legend_below(figure, list(axes[:, 0]))
    return rows


def _positive_part(cl: pd.Series) -> float:
    """The multipole up to which a spectrum, by ell, is positive."""
    broken = np.flatnonzero(~(cl.to_numpy() > 0))
    return float(cl.index[max(broken[0] - 1, 0)] if len(broken) else cl.index[-1])


def _median_spectrum(ax: Axes, field: str, table: pd.DataFrame) -> None:
    label, colour, marker, line = _style(field)
    ell = table.index.to_numpy(float)
    low, median, high = (
        np.where(table[name] > 0, dl(ell, table[name].to_numpy(float)), np.nan)
        for name in ("cl_p16", "cl_p50", "cl_p84")
    )
    face = "none" if field == "gaussian" else colour
    ax.plot(ell, median, color=colour, marker=marker, mfc=face, ls=line, label=label)
    ax.fill_between(ell, low, high, color=colour, alpha=0.15, lw=0)


def _control_ratio(ax: Axes, rows: pd.DataFrame) -> None:
    ratio = rows[rows["statistic"] == "cl_over_theory"]
    _, colour, marker, _ = _style("gaussian")
    ax.axhline(1, color=BLACK, ls=":", label=_style("theory")[0])
    ell, value, error = (ratio[name].to_numpy(float) for name in ("ell", "value", "error"))
    ax.errorbar(ell, value, error, color=colour, marker=marker, mfc="none", ls="")
    ax.set_ylabel("control / theory")


def minkowski(functionals: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw V0, V1, V2 against threshold with bands; returns the table.

    A row for each split and family of fields: what belongs to the ratio, and all else.
    """
    ratio = functionals["field"].str.contains("ratio")
    families = {"high resolution": ~ratio, "ratio high / low": ratio}
    splits = list(functionals["split"].unique())
    rows = [
        (f"{family}, {split}" if len(splits) > 1 else family, part)
        for split in splits
        for family, chosen in families.items()
        if len(part := functionals[chosen & (functionals["split"] == split)])
    ]
    size = (10.8, 2.9 * len(rows) + 0.4)
    with canvas(path, len(rows), 3, size=size, sharex=True) as (figure, axes):
        for row, (title, part) in enumerate(rows):
            for column, (statistic, name) in enumerate(FUNCTIONALS.items()):
                ax = axes.item(row, column)
                _bands(ax, part[part["statistic"] == statistic].sort_values("threshold"))
                ax.set_ylabel(name)
                if column == 1:
                    ax.set_title(title)
                if row == len(rows) - 1:
                    ax.set_xlabel("threshold, map scaled to [−1, 1]")
        legend_below(figure, list(axes.flat))
    return functionals


def _bands(ax: Axes, rows: pd.DataFrame) -> None:
    """A line a field, with its scatter as a wide band and the error of its mean as a narrow one."""
    for field, part in rows.groupby("field", sort=False):
        label, colour, _, line = _style(str(field))
        x, value = part["threshold"], part["value"]
        ax.plot(x, value, color=colour, ls=line, label=label, zorder=5 if field == "theory" else 3)
        for spread, alpha in (("std", 0.15), ("error", 0.35)):
            width = part[spread].fillna(0)
            ax.fill_between(x, value - width, value + width, color=colour, alpha=alpha, lw=0)
    ax.ticklabel_format(axis="y", scilimits=(-3, 3))


def _style(field: str) -> tuple[str, str, str, str]:
    return _FIELDS.get(field, (field.replace("_", " "), GREY, "x", "-"))
