"""Maps of a sky dataset: the full sky with its mask, the places of patches, example patches."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, ListedColormap, LogNorm, Normalize
from matplotlib.patches import Ellipse

from skyweave.errors import UserError
from skyweave.report import mollweide
from skyweave.report.read import Patches
from skyweave.report.style import BLUE, GREEN, GREY, ORANGE, RED, UNITS, canvas, plain_log
from skyweave.sky.projection import from_plane

PLANE = 1400  # pixels across the full sky
_SPLITS = {"train": (BLUE, "o"), "validation": (ORANGE, "s"), "test": (RED, "^")}


def read_healpix(path: Path) -> tuple[np.ndarray, str, str]:
    """First column of a HEALPix file in RING order, its unit, and what the header says it is."""
    import healpy

    if not path.is_file():
        raise UserError(path, "a file", "none")
    try:
        values, header = healpy.read_map(path, field=0, h=True, dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(path, "a HEALPix map", str(error).splitlines()[0]) from None
    words = dict(header)
    return values, str(words.get("TUNIT1", "")).strip(), str(words.get("CONTENT", "")).strip()


def full_sky(sky: np.ndarray, mask: np.ndarray, unit: str, path: Path) -> None:
    """Draw a HEALPix RING map in Mollweide projection, and the edge of the mask as a line."""
    plane = mollweide.sample(sky, PLANE)
    edge = np.ma.masked_invalid(mollweide.sample(mask, PLANE))
    with canvas(path, size=(9.2, 5.3)) as (figure, axes):
        ax = axes[0, 0]
        image = ax.imshow(
            plane,
            extent=mollweide.EXTENT,
            origin="lower",
            cmap="cividis",
            norm=brightness_norm(plane),
        )
        ax.contour(edge, levels=[0.5], extent=mollweide.EXTENT, colors="white", linewidths=1.1)
        graticule(ax, "white")
        bar = figure.colorbar(
            image, ax=ax, orientation="horizontal", shrink=0.5, aspect=36, pad=0.02, extend="both"
        )
        bar.set_label(UNITS.get(unit, unit))


def patch_places(
    places: pd.DataFrame, mask: np.ndarray, size_deg: float, path: Path
) -> pd.DataFrame:
    """Draw centres and edges of the patches by split over the mask; returns `places`."""
    plane = mollweide.sample(mask, PLANE)
    with canvas(path, size=(9.2, 4.9)) as (_, axes):
        ax = axes[0, 0]
        grey = ListedColormap(["#d1d5db", "#ffffff"])
        ax.imshow(plane, extent=mollweide.EXTENT, origin="lower", cmap=grey, vmin=0, vmax=1)
        graticule(ax, GREY)
        for split, part in places.groupby("split", sort=False):
            colour, marker = _SPLITS.get(str(split), (GREEN, "D"))
            for lon, lat in zip(part["lon"], part["lat"], strict=True):
                x, y = mollweide.project(*_edge(lon, lat, size_deg))
                jump = np.abs(np.diff(x, prepend=x[-1])) > mollweide.WIDTH / 2
                ax.plot(np.where(jump, np.nan, x), y, color=colour, lw=0.8, alpha=0.8)
            x, y = mollweide.project(part["lon"], part["lat"])
            label = f"{split} ({len(part)})"
            ax.plot(x, y, marker, color=colour, mec="white", mew=0.6, ms=6, label=label)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=4, fontsize=9.5)
    return places


def example_patches(shown: Patches, places: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw low and high resolution of a few patches; returns their places and colour scales."""
    count = len(shown.index)
    record = []
    with canvas(path, 2, count, size=(2.45 * count + 0.3, 4.9)) as (figure, axes):
        for column, number in enumerate(shown.index):
            norm = brightness_norm(shown.high[column])
            place = places.iloc[number] if number < len(places) else None
            for row, (name, maps) in enumerate((("low", shown.low), ("high", shown.high))):
                ax = axes[row, column]
                half = shown.size_deg / 2
                image = ax.imshow(
                    np.where(shown.mask[column] > 0, maps[column], np.nan),
                    extent=(-half, half, -half, half),
                    origin="lower",
                    cmap="cividis",
                    norm=norm,
                )
                ax.grid(False)
                if column == 0:
                    ax.set_ylabel(f"{name} resolution\n$y$ [deg]")
                if row == 1:
                    ax.set_xlabel("$x$ [deg]")
                elif place is not None:
                    ax.set_title(_place(place))
            bar = figure.colorbar(
                image, ax=axes[:, column], orientation="horizontal", pad=0.02, extend="both"
            )
            bar.set_label(UNITS.get(shown.unit, shown.unit))
            bar.ax.tick_params(labelsize=7.5)
            if isinstance(norm, LogNorm):
                plain_log(bar.ax.xaxis)
            record.append((number, norm.vmin, norm.vmax, shown.unit))
    scales = pd.DataFrame(record, columns=["patch", "colour_low", "colour_high", "unit"])
    known = places.rename_axis("patch").reset_index()
    return scales.merge(known, on="patch", how="left")


def _edge(lon: float, lat: float, size_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude (degrees) round the edge of a patch."""
    half = np.radians(size_deg) / 2
    run, end = np.linspace(-half, half, 25), np.full(25, half)
    x = np.concatenate([run, end, -run, -end])
    y = np.concatenate([-end, run, end, -run])
    return from_plane(lon, lat, x, y)


def _place(place: pd.Series) -> str:
    """Galactic coordinates and split of a patch."""
    lat = f"{place['lat']:.0f}".replace("-", "−")
    return f"$l$ = {place['lon']:.0f}°, $b$ = {lat}°\n{place['split']}"


def brightness_norm(values: np.ndarray) -> Normalize:
    """Logarithmic between the 0.5 and 99.5 percentiles; asinh where not all are positive."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Normalize(0, 1)
    low, high = map(float, np.percentile(finite, [0.5, 99.5]))
    if high <= low:
        return Normalize(low - 0.5, low + 0.5)
    if low > 0:
        return LogNorm(low, high)
    return AsinhNorm(linear_width=max(float(np.median(np.abs(finite))), 1e-30), vmin=low, vmax=high)


def graticule(ax: Axes, colour: str) -> None:
    """Outline, and meridians and parallels every 60 and 30 degrees, of the Mollweide plane."""
    along = np.linspace(-179.9, 179.9, 181)
    style: dict[str, Any] = {"color": colour, "lw": 0.5, "alpha": 0.45}
    for lat in range(-60, 61, 30):
        ax.plot(*mollweide.project(along, np.full(along.size, lat)), **style)
    for lon in range(-120, 121, 60):
        ax.plot(*mollweide.project(np.full(along.size, lon), along / 2), **style)
    edge = Ellipse((0, 0), 2 * mollweide.WIDTH, 2 * mollweide.HEIGHT, fill=False, ec=GREY, lw=1)
    ax.add_patch(edge)
    for lat in (-60, -30, 30, 60):
        x, y = map(float, mollweide.project(179.9, lat))
        ax.text(x * 1.02, y, f"{lat}°".replace("-", "−"), ha="right", va="center", fontsize=8)
    ax.set_xlim(-1.06 * mollweide.WIDTH, 1.02 * mollweide.WIDTH)
    ax.set_ylim(-1.03 * mollweide.HEIGHT, 1.03 * mollweide.HEIGHT)
    ax.set_aspect("equal")
    ax.set_axis_off()
