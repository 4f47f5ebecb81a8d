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
_FUNCTIONALS = {
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
            "Mean spectra of the patches, decoupled from the patch's edge. The Gaussian control "
            "must follow the high-resolution dust within the errors: it is drawn to have the "
            "dust's spectrum, and what differs beyond it is not in the spectrum.",
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
    """Draw D_ell (µK²) of each field with errors, a panel a split; returns the rows (C_ell).

    Where the percentiles 16 and 84 over patches are known, the dust gets a band between them.
    """
    rows = spectra[spectra["statistic"].isin(["cl", "cl_p16", "cl_p84"])].sort_values("ell")
    splits = list(rows["split"].unique())
    with canvas(path, 1, len(splits), size=(2.2 + 4.2 * len(splits), 3.9)) as (figure, axes):
        for ax, split in zip(axes[0], splits, strict=True):
            of_split = rows[rows["split"] == split]
            for field, part in of_split.groupby("field", sort=False):
                _spectrum(ax, str(field), part)
            log_ell(ax)
            ax.set_yscale("log")
            # Beyond its beam the low resolution falls without end.
            sharp = of_split[(of_split["field"] != "low") & (of_split["value"] > 0)]
            if len(sharp):
                levels = dl(sharp["ell"], sharp["value"])
                ax.set_ylim(0.03 * levels.min(), 5 * levels.max())
            ax.set_ylabel(r"$D_\ell$ [µK²]")
            if len(splits) > 1:
                ax.set_title(split)
        legend_below(figure, list(axes[0]))
    return rows


def _spectrum(ax: Axes, field: str, part: pd.DataFrame) -> None:
    label, colour, marker, line = _style(field)
    mean = part[part["statistic"] == "cl"]
    ell, cl, error = (mean[name].to_numpy(float) for name in ("ell", "value", "error"))
    value = np.where(cl > 0, dl(ell, cl), np.nan)
    known = None if np.isnan(error).all() else dl(ell, error)
    face = "none" if field == "gaussian" else colour
    ax.errorbar(ell, value, known, color=colour, marker=marker, mfc=face, ls=line, label=label)
    if field == "high" and {"cl_p16", "cl_p84"} <= set(part["statistic"]):
        low, high = (
            dl(ell, part.loc[part["statistic"] == kind, "value"].to_numpy(float))
            for kind in ("cl_p16", "cl_p84")
        )
        name = "dust, central 68 % of patches"
        ax.fill_between(ell, low, high, color=colour, alpha=0.15, lw=0, label=name)


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
            for column, (statistic, name) in enumerate(_FUNCTIONALS.items()):
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
