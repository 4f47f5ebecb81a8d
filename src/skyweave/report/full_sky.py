"""Figures of a full sky with small scales: maps, what was added, zooms, spectra, realizations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.report import mollweide, read
from skyweave.report.record import Drawn, write
from skyweave.report.sky_maps import PLANE, brightness_norm, graticule, read_healpix
from skyweave.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PINK,
    RED,
    UNITS,
    canvas,
    dl,
    ends,
    grid_shape,
    hide_unused,
    legend_below,
    lifted,
    log_ell,
    plain_log,
    symmetric_limit,
    with_unit,
)
from skyweave.sky.projection import patch_directions, to_patch_frame, unit_vector

SPECTRA_COLUMNS = ("field", "method", "statistic", "ell", "value", "error")
REALIZATION_COLUMNS = ("field", "statistic", "ell", "value")
#: In this order; spread.png where there is spread.fits, realizations.svg where there is its table.
FILES = (
    *("map.png", "difference.png", "zooms.png", "spectra.svg"),
    *("spread.png", "realizations.svg"),
)
ZOOM = PatchGrid(15.0, 300)
_ROOM = PatchGrid(20.0, 40)  # a zoom with a margin, to see whether the mask has room for it
_APART_DEG = 60.0  # centres of zooms
_ZOOMS = 3
_MOST_SYMBOLS = 40  # a curve of more points is a line

_WIDTHS = (2 * mollweide.WIDTH, 2 * mollweide.HEIGHT)
_FIELDS = {
    "tt": "$TT$",
    "ee": "$EE$",
    "bb": "$BB$",
    "bb_over_ee": "$BB / EE$",
}
_METHODS = {  # label, colour, marker, line
    "input": ("low resolution", PINK, "D", "-."),
    "network": ("with small scales", BLUE, "o", "-"),
    "map": ("the map itself", BLACK, "", ":"),
}
_LINES = {"tt": (BLUE, "o", "-"), "ee": (RED, "s", "--"), "bb": (GREEN, "^", "-.")}


def draw_full_sky(sky_folder: str | Path, mask_path: str | Path, out_folder: str | Path) -> None:
    """Draw the figures of a full sky that its files allow (`FILES`), CSVs, and figures.json.

    Reads sky_0.fits, large.fits and spectra.csv from `sky_folder`, spread.fits and realizations.csv
    where they are, and the mask, of any nside. Raises `UserError` when one is broken or does not
    fit.
    """
    folder, out = Path(sky_folder), Path(out_folder)
    sky = read.stokes(folder / "sky_0.fits")
    large = _like(sky, folder / "large.fits")
    mask = _mask(Path(mask_path), sky.maps["T"].size)
    spread = folder / "spread.fits"
    measured = _finite(read.table(folder / "spectra.csv", SPECTRA_COLUMNS))
    if not any((measured["statistic"] == "cl") & measured["field"].isin(_FIELDS)):
        raise UserError(folder / "spectra.csv", f"cl of a field of {', '.join(_FIELDS)}", "none")
    polarized = "Q" in sky.maps
    kept = f"{100 * np.mean(mask > 0):.1f} %"
    what = "Temperature, and polarized intensity P below" if polarized else "Temperature"
    components = "T and Q" if polarized else "T"
    drawn = [
        Drawn(
            "map.png",
            "Sky with small scales",
            f"{what}, in Galactic coordinates, with the small scales that the network added; the "
            f"line bounds the mask, which keeps {kept} of the sky. It is good if no seam of a tile "
            "shows.",
            "Full-sky map of dust with small scales in Mollweide projection"
            + (", above its polarized intensity." if polarized else "."),
            full_maps(sky, mask, out / "map.png"),
        ),
        Drawn(
            "difference.png",
            "What was added",
            f"The sky with small scales minus the one at low resolution, {components}; colours "
            "are linear around zero and compressed beyond. Only small scales may show, stronger "
            "where there is more dust; what is wide or follows the edges of tiles is a fault.",
            "Full-sky maps in Mollweide projection of what was added to the large scales.",
            difference(sky, large, mask, out / "difference.png"),
        ),
        Drawn(
            "zooms.png",
            "Zooms",
            f"Squares of {ZOOM.size_deg:g}° inside the mask: the large scales, with small "
            f"scales on the same colours, and the difference, {components}. North is up, "
            "longitude grows to the left"
            + (", Q is that of the square's own north. " if polarized else ". ")
            + "Good small scales are filaments that follow the large ones, without a lattice.",
            "Zooms into the sky at low resolution and with small scales, and their difference.",
            zooms(sky, large, mask, out / "zooms.png"),
        ),
        Drawn(
            "spectra.svg",
            "Power spectra of the sky",
            "Spectra inside the mask, before and after the small scales were added, and of the map "
            "itself where it has them. Where the low resolution falls off, the other must go on "
            "along the same power law; the map itself is what it should meet."
            + (" BB / EE must keep its value to small scales." if polarized else ""),
            "Power spectra against multipole of the sky at low resolution and with small scales.",
            spectra(measured, out / "spectra.svg"),
        ),
    ]
    if spread.is_file():
        drawn.append(
            Drawn(
                "spread.png",
                "Spread of the realizations",
                "Standard deviation over realizations over the strength of the large scales"
                + (", of T and below of P" if polarized else "")
                + ". It is the share of the sky that the data at low resolution leave open: 0 "
                "would mean that all realizations are one.",
                "Full-sky map in Mollweide projection of the spread of the realizations.",
                spread_maps(_like(sky, spread), large, mask, out / "spread.png"),
            )
        )
    if (folder / "realizations.csv").is_file():
        rows = _finite(read.table(folder / "realizations.csv", REALIZATION_COLUMNS))
        drawn.append(
            Drawn(
                "realizations.svg",
                "Realizations",
                "Left, the scatter of the realizations' spectra over their mean: 0 on large "
                "scales, which are given. Right, how two realizations correlate in their small "
                "scales: they are worth having where it is near 0, and copies of one another "
                "where it is near 1.",
                "Scatter of spectra and correlation of realizations against multipole.",
                realizations(rows, out / "realizations.svg"),
            )
        )
    write(out, "full_sky", drawn)


def _mask(path: Path, npix: int) -> np.ndarray:
    """The mask (npix,) of zeros and ones in a file of any nside: ones where more than half is."""
    import healpy

    found, _, _ = read_healpix(path)
    if not np.isin(found, (0, 1)).all():
        raise UserError(path, "a mask of zeros and ones", "other values")
    return (healpy.ud_grade(found, healpy.npix2nside(npix)) > 0.5).astype(float)


def _like(sky: read.Stokes, path: Path) -> read.Stokes:
    """The maps of a file, if they are of the same kind and size as those of `sky`."""
    found = read.stokes(path)
    kinds = [f"{' '.join(one.maps)} of {one.maps['T'].size} pixels" for one in (sky, found)]
    if kinds[0] != kinds[1]:
        raise UserError(path, kinds[0], kinds[1])
    return found


def _finite(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a value: a ratio has none where what it is over is 0."""
    return table[np.isfinite(table["value"])]


def full_maps(sky: read.Stokes, mask: np.ndarray, path: Path) -> pd.DataFrame:
    """Draw T, and P = |Q + iU| below it, with the edge of the mask; returns the colour scales."""
    rows = [("T", sky.maps["T"], "temperature")]
    if "Q" in sky.maps:
        rows.append(("P", np.hypot(sky.maps["Q"], sky.maps["U"]), "polarized intensity $P$"))
    planes = [
        (name, plane := mollweide.sample(values, PLANE), brightness_norm(plane), "cividis", label)
        for name, values, label in rows
    ]
    return _mollweides(planes, mask, sky.unit, path)


def difference(sky: read.Stokes, large: read.Stokes, mask: np.ndarray, path: Path) -> pd.DataFrame:
    """Draw sky - large of T, and of Q below it; returns the colour scales."""
    planes = []
    for name in ("T", "Q"):
        if name in sky.maps:
            plane = mollweide.sample(sky.maps[name] - large.maps[name], PLANE)
            planes.append((name, plane, _around_zero(plane), "RdBu_r", f"added to ${name}$"))
    return _mollweides(planes, mask, sky.unit, path)


def spread_maps(
    spread: read.Stokes, large: read.Stokes, mask: np.ndarray, path: Path
) -> pd.DataFrame:
    """Draw spread over |large| of T, and of P below it; returns the colour scales."""
    rows = [("T", spread.maps["T"], np.abs(large.maps["T"]), r"spread of $T$ / $|T|$")]
    if "Q" in spread.maps:
        widths = [np.hypot(one.maps["Q"], one.maps["U"]) for one in (spread, large)]
        rows.append(("P", *widths, r"spread of $Q$, $U$ / $P$"))
    planes = []
    for name, width, strength, label in rows:
        share = np.divide(width, strength, out=np.full_like(width, np.nan), where=strength > 0)
        plane = mollweide.sample(share, PLANE)
        norm = Normalize(0, min(1.0, symmetric_limit(plane)))
        planes.append((name, plane, norm, "viridis", label))
    return _mollweides(planes, mask, "", path)


def _around_zero(values: np.ndarray) -> Normalize:
    """Linear up to the median of the moduli, compressed to their 99.5th percentile beyond."""
    limit = symmetric_limit(values)
    finite = values[np.isfinite(values)]
    width = float(np.median(np.abs(finite))) if finite.size else 0.0
    return AsinhNorm(linear_width=max(width, 1e-3 * limit), vmin=-limit, vmax=limit)


def _decades(norm: AsinhNorm) -> list[float]:
    """Powers of ten on both sides of zero, from twice the linear part to the end of the scale."""
    low, high = np.log10(2 * norm.linear_width), np.log10(ends(norm)[1])
    found = [10.0**power for power in range(int(np.ceil(low)), int(np.floor(high)) + 1)]
    return [*(-x for x in reversed(found)), 0.0, *found]


def _mollweides(
    planes: Sequence[tuple[str, np.ndarray, Normalize, str, str]],
    mask: np.ndarray,
    unit: str,
    path: Path,
) -> pd.DataFrame:
    """A row each of (name, plane, norm, colours, label), with the edge of the mask."""
    edge = np.ma.masked_invalid(mollweide.sample(mask, PLANE))
    record = []
    with canvas(path, len(planes), 1, size=(9.2, 5.3 * len(planes))) as (figure, axes):
        for ax, (name, plane, norm, colours, label) in zip(axes[:, 0], planes, strict=True):
            # What has no data is grey, and not as white as nothing added.
            ax.add_patch(Ellipse((0, 0), *_WIDTHS, fc="#d1d5db", zorder=-1))
            where: dict[str, Any] = {"extent": mollweide.EXTENT, "origin": "lower"}
            image = ax.imshow(lifted(plane, norm), cmap=colours, norm=norm, **where)
            line = BLACK if colours == "RdBu_r" else "white"
            if edge.min() < edge.max():  # a mask that keeps all has no edge
                ax.contour(edge, levels=[0.5], extent=mollweide.EXTENT, colors=line, linewidths=1.0)
            graticule(ax, GREY if colours == "RdBu_r" else "white")
            style: dict[str, Any] = {"shrink": 0.5, "aspect": 36, "pad": 0.02, "extend": "both"}
            bar = figure.colorbar(image, ax=ax, orientation="horizontal", **style)
            bar.set_label(with_unit(label, unit))
            if isinstance(norm, LogNorm):
                plain_log(bar.ax.xaxis)
            elif isinstance(norm, AsinhNorm) and colours == "RdBu_r":
                bar.set_ticks(_decades(norm), minor=False)
                bar.ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}".replace("-", "−"))
                bar.minorticks_off()
            share = np.isfinite(plane).mean() / (np.pi / 4)
            record.append((name, unit, *ends(norm), share))
    columns = ["map", "unit", "colour_low", "colour_high", "sky_share"]
    return pd.DataFrame(record, columns=columns)


def places(inside: np.ndarray) -> list[tuple[float, float]]:
    """Up to three centres (lon, lat) in degrees, far apart, of zooms with most pixels `inside`.

    `inside` (npix,) bool, RING. Of those that are as good, the ones near 40° of latitude, where
    dust is neither faint nor crowded, and always the same. One is given even where none fits.
    """
    import healpy

    nside = healpy.get_nside(inside)
    lon, lat = healpy.pix2ang(8, np.arange(12 * 8**2), lonlat=True)
    centres = zip(lon, lat, strict=True)
    share = np.array([inside[_pixels(nside, *centre, _ROOM)].mean() for centre in centres])
    vectors = unit_vector(lon, lat)
    chosen: list[int] = []
    for index in np.lexsort((lon, np.abs(np.abs(lat) - 40).round(3), -share)):
        near = vectors[chosen] @ vectors[index] > np.cos(np.radians(_APART_DEG))
        if len(chosen) < _ZOOMS and not near.any() and (share[index] > 0.5 or not chosen):
            chosen.append(int(index))
    return [(float(lon[index]), float(lat[index])) for index in chosen]


def _pixels(nside: int, lon: float, lat: float, grid: PatchGrid) -> np.ndarray:
    """The pixels (y, x) of a RING map nearest to those of a patch."""
    import healpy

    return healpy.ang2pix(nside, *patch_directions(lon, lat, grid), lonlat=True)


def zooms(sky: read.Stokes, large: read.Stokes, mask: np.ndarray, path: Path) -> pd.DataFrame:
    """Draw zooms, a row each: large, sky and their difference, of T and then Q.

    Returns places and colour scales.
    """
    import healpy

    finite = np.all([np.isfinite(values) for values in sky.maps.values()], axis=0)
    centres = places((mask > 0) & finite)
    names = [name for name in ("T", "Q") if name in sky.maps]
    nside, rows, columns = healpy.get_nside(mask), len(centres), 3 * len(names)
    record = []
    size = (2.15 * columns + 0.8, 2.45 * rows + 0.5)
    with canvas(path, rows, columns, size=size, sharex=True, sharey=True) as (figure, axes):
        for line, (lon, lat) in zip(axes, centres, strict=True):
            before, after = (_zoom(one, nside, lon, lat) for one in (large, sky))
            for panels, name in zip(np.split(line, len(names)), names, strict=True):
                norms = _zoom_row(figure, panels, name, before[name], after[name], sky.unit)
                for title, norm in zip(_PANELS, norms, strict=True):
                    record.append((lon, lat, name, title, sky.unit, *ends(norm)))
            words = f"$l$ = {lon:.0f}°, $b$ = {lat:.0f}°".replace("= -", "= −")
            line[0].set_ylabel(f"{words}\n$y$ [deg]")
        for column, (above, below) in enumerate(zip(axes[0], axes[-1], strict=True)):
            above.set_title(f"${names[column // 3]}$, {_PANELS[column % 3]}")
            below.set_xlabel("$x$ [deg]")
    frame = ["lon", "lat", "map", "panel", "unit", "colour_low", "colour_high"]
    return pd.DataFrame(record, columns=frame)


_PANELS = ("low resolution", "with small scales", "difference")


def _zoom_row(
    figure: Figure,
    axes: np.ndarray,
    name: str,
    before: np.ndarray,
    after: np.ndarray,
    unit: str,
) -> tuple[Normalize, Normalize, Normalize]:
    """Draw a map (y, x) before, after, and what was added; returns the scales."""
    added = after - before
    limit, both = symmetric_limit(added), symmetric_limit(before, after)
    main = _zoom_norm(after) if name == "T" else Normalize(-both, both)
    norms = (main, main, Normalize(-limit, limit))
    colours = "cividis" if name == "T" else "PuOr_r"
    half = ZOOM.size_deg / 2
    where: dict[str, Any] = {"extent": (-half, half, -half, half), "origin": "lower"}
    images = [
        ax.imshow(lifted(values, norm), norm=norm, cmap=cmap, **where)
        for ax, values, norm, cmap in zip(
            axes, (before, after, added), norms, (colours, colours, "RdBu_r"), strict=True
        )
    ]
    for ax in axes:
        ax.grid(False)
        ax.tick_params(labelsize=7.5)
        ax.set_xticks([-5, 0, 5])
        ax.set_yticks([-5, 0, 5])
    _bar(figure, images[1], axes[:2], unit)
    _bar(figure, images[2], axes[2:], unit)
    return norms


def _zoom_norm(values: np.ndarray) -> Normalize:
    """As that of the full sky, but linear where the values span less than a factor of five."""
    norm = brightness_norm(values)
    low, high = ends(norm)
    return Normalize(low, high) if low > 0 and high < 5 * low else norm


def _zoom(sky: read.Stokes, nside: int, lon: float, lat: float) -> dict[str, np.ndarray]:
    """T (y, x) of a zoom, and Q about the north of its centre."""
    pixels = _pixels(nside, lon, lat, ZOOM)
    found = {name: values[pixels] for name, values in sky.maps.items()}
    if "Q" in found:
        where = patch_directions(lon, lat, ZOOM)
        found["Q"], found["U"] = to_patch_frame(found["Q"], found["U"], *where, lon, lat)
    return found


def _bar(figure: Figure, image: AxesImage, axes: np.ndarray, unit: str) -> None:
    """A thin scale beneath the panels that share it."""
    style: dict[str, Any] = {"pad": 0.02, "aspect": 22 * len(axes), "extend": "both"}
    bar = figure.colorbar(image, ax=list(axes), orientation="horizontal", **style)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(UNITS.get(unit, unit), fontsize=8)
    if isinstance(image.norm, LogNorm):
        plain_log(bar.ax.xaxis)
    else:
        bar.locator = MaxNLocator(4)


def spectra(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw D_ell of TT, EE and BB (µK²), and BB / EE, by method; returns the rows (C_ell)."""
    rows = table[table["statistic"] == "cl"]
    fields = [name for name in _FIELDS if name in set(rows["field"])]
    height, width = grid_shape(len(fields), 2)
    with canvas(path, height, width, size=(4.8 * width, 3.6 * height + 0.4)) as (figure, axes):
        hide_unused(axes, len(fields))
        panels = list(axes.ravel()[: len(fields)])
        for ax, field in zip(panels, fields, strict=True):
            of_field = rows[rows["field"] == field]
            ratio = field == "bb_over_ee"
            for method, (label, colour, marker, line) in _METHODS.items():
                part = of_field[of_field["method"] == method].sort_values("ell")
                if part.empty:
                    continue
                ell, value, error = (part[key].to_numpy(float) for key in ("ell", "value", "error"))
                scale = np.ones(ell.size) if ratio else dl(ell, np.ones(ell.size))
                y = value if ratio else np.where(value > 0, scale * value, np.nan)
                bars = np.nan_to_num(scale * error)
                symbol = marker if len(part) <= _MOST_SYMBOLS else ""
                ax.errorbar(ell, y, bars, color=colour, marker=symbol, ls=line, label=label)
            if ratio:
                # A noisy last bin must not flatten all others.
                ax.set_ylim(0, 1.5 * np.nan_to_num(of_field["value"].quantile(0.9)) or 1)
                ax.set_ylabel(_FIELDS[field])
            else:
                _set_ends(ax, of_field)
                ax.set_ylabel(r"$D_\ell$ [µK²]")
            log_ell(ax)
            ax.set_title(_FIELDS[field])
        legend_below(figure, panels)
    return rows


def _set_ends(ax: Axes, rows: pd.DataFrame) -> None:
    """Logarithmic, between the faintest and the strongest that has small scales, with room."""
    ax.set_yscale("log")
    full = rows[(rows["method"] != "input") & (rows["value"] > 0)]
    if len(full):
        drawn = dl(full["ell"].to_numpy(float), full["value"].to_numpy(float))
        ax.set_ylim(drawn.min() / 5, 5 * drawn.max())


def realizations(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw scatter of spectra and correlation of realizations by multipole; returns the table."""
    panels = {"spread": "scatter of $C_\\ell$ / mean", "cross": "correlation of small scales"}
    with canvas(path, 1, 2, size=(9.2, 3.9)) as (figure, axes):
        for ax, (statistic, name) in zip(axes[0], panels.items(), strict=True):
            part = table[table["statistic"] == statistic]
            for field, (colour, marker, line) in _LINES.items():
                rows = part[part["field"] == field].sort_values("ell")
                if len(rows):
                    symbol = marker if len(rows) <= _MOST_SYMBOLS else ""
                    style: dict[str, Any] = {"color": colour, "marker": symbol, "ls": line}
                    ax.plot(rows["ell"], rows["value"], label=_FIELDS[field], **style)
            ax.set_ylabel(name)
            log_ell(ax)
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 1].set_ylim(top=1.06)
        axes[0, 1].axhline(0, color=GREY, lw=0.8)
        legend_below(figure, list(axes[0]))
    return table
