"""The holes of a HEALPix map, filled by a trained network on tiles of its size."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import ndimage

from skyweave import __version__
from skyweave.errors import UserError
from skyweave.files import atomic, sha256, versions
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.sky.harmonic import analyse, pixel_window
from skyweave.sky.healpix import INTENSITY, STOKES_Q, STOKES_U, read_map
from skyweave.sky.holes import (
    Region,
    Tile,
    Tiling,
    continued,
    find_regions,
    hole_patch,
    missing_at,
)
from skyweave.sky.patches import cut, footprint_window
from skyweave.sky.projection import (
    cosmo_to_iau,
    iau_to_x_axis,
    rotate_qu,
    to_plane,
    transport_angle,
)
from skyweave.sky.skymap import SkyMap
from skyweave.sky.units import to_uk_cmb
from skyweave.sky.user_mask import read_seen, table_number
from skyweave.tasks.prediction import MOST_RMS, model_folder

if TYPE_CHECKING:
    from skyweave.networks.card import Card

#: Maps (n, f, y, x), µK, with holes (n, y, x), a key for each map, and whether to add what a mean
#: lacks → filled maps.
Fill = Callable[[np.ndarray, np.ndarray, Sequence[tuple[str | int, ...]], bool], np.ndarray]

#: Share of a tile's side at each edge where no hole to be filled may lie.
_MARGIN = 1 / 8
#: Tiles that are in memory at a time.
_TILES = 64
#: Holes that a refusal names.
_NAMED = 3

#: What a map with too large a mean or rms may need.
_REMOVE = " (remove the map's monopole and dipole)"

_COLUMNS = {"t": INTENSITY, "q": STOKES_Q, "u": STOKES_U}


@dataclass(frozen=True)
class _Column:
    """A column of the map's file: its name and µK_CMB per unit of it."""

    name: str
    factor: float


@dataclass(frozen=True)
class _Job:
    """A tile with its hole (y, x), and the regions that are filled from it."""

    tile: Tile
    hole: np.ndarray
    regions: list[Region] = field(default_factory=list)


def inpaint_map(
    model: str | Path,
    source: str | Path,
    mask: str | Path,
    out: str | Path,
    *,
    unit: str | None = None,
    sampled: bool = True,
    overwrite: bool = False,
    threads: int | None = None,
    command: str = "",
) -> None:
    """Write the HEALPix map `source` with the pixels filled that `mask` does not see.

    `model` is the folder of an inpainting run's `network.keras` and `card.json`, or one of them;
    `out` a FITS file like `source`, in which only missing pixels of the network's T, Q and U
    differ. Pixels without a value (UNSEEN, NaN, a variance of 0) are missing too; one that is
    missing in any of the fields is filled in all. Of the mask the first column counts, missing
    where it is not above 0 (`sky.user_mask`); it may have another nside (`sky.holes.missing_at`).
    With `sampled` the fluctuations are added that a mean lacks.

    Raises `UserError` for maps that the network was not made for, for holes that are larger than
    those it was trained on, and for an `out` that is there, without `overwrite`.
    """
    folder, out = model_folder(model), Path(out)
    for path in (source, mask):
        if not Path(path).is_file():
            raise UserError(path, "a HEALPix FITS file", "no file")
    _check_out(out, overwrite)
    from skyweave.networks.card import load_network
    from skyweave.tasks.inpainting import Filler, fill

    if threads is not None:
        from skyweave.training.runtime import prepare

        prepare(0, threads)
    network = load_network(folder)
    card = network.card
    if card.settings.get("task") != "inpainting" or "hole_limit" not in card.data:
        expected = "the network of an inpainting run"
        raise UserError(folder / "card.json", expected, f"one that gives {', '.join(card.outputs)}")
    sky, columns, iau = _read(source, card.outputs, unit)
    missing = _missing(mask, sky.nside) | sky.bad
    if not missing.any():
        raise UserError(mask, "a mask that is 0 somewhere", "none of it")
    filler = Filler(network)
    by_stokes = {"t": sky.intensity, "q": sky.q, "u": sky.u}
    if "t" not in columns:
        by_stokes["q"] = sky.intensity
    maps = {stokes: found for stokes in columns if (found := by_stokes[stokes]) is not None}
    filled = fill_holes(
        card,
        maps,
        missing,
        lambda tiles, holes, keys, sampled: fill(filler, tiles, holes, keys=keys, sampled=sampled),
        sampled=sampled,
        window_nside=sky.window_nside,
        source=source,
        mask=mask,
    )
    if iau and "u" in filled:
        filled["u"] = -filled["u"]
    cards = {
        "NETWORK": str(model),
        "NETSHA": sha256(folder / "network.keras"),
        "INPUT": str(source),
        "INSHA": sha256(source),
        "MASK": str(mask),
        "MASKSHA": sha256(mask),
        "DATASET": str(card.data.get("dataset", "")),
        "COMMAND": command,
        "FILLED": "network" + sampled * " and fluctuations",
        "VERSIONS": ", ".join(f"{k} {v}" for k, v in versions("keras", "numpy").items()),
    }
    values = {columns[stokes].name: filled[stokes] / columns[stokes].factor for stokes in filled}
    _write(source, out, np.flatnonzero(missing), values, cards)


def fill_holes(
    card: "Card",
    maps: Mapping[str, np.ndarray],
    missing: np.ndarray,
    fill: Fill,
    *,
    sampled: bool = True,
    window_nside: int | None = None,
    source: object = "map",
    mask: object = "mask",
) -> dict[str, np.ndarray]:
    """T, Q and U (n,) float64 of the n missing pixels, ascending, of RING maps (npix,), by letter.

    µK, COSMO, in and out; what `missing` (npix,) marks is not looked at. The map is continued
    smoothly into its holes and evaluated, its pixels' window undone, on the tiles that the holes
    lie on; what `fill` makes of these gets the window again and is read at the pixels' centres by a
    quintic spline. So nothing is filled in beyond the tiles' own resolution. This is done twice:
    the continuation rings around the holes once the map is cut at a band limit, and the network's
    mean, which follows it, less. `source` and `mask` are named in a `UserError`: for pixels that
    are too coarse, for maps of another mean or rms than the training set's, and for holes that no
    tile can take.
    """
    import healpy

    grid = PatchGrid(card.size_deg, card.pixels)
    nside = healpy.npix2nside(missing.size)
    lmax = _band_limit(source, nside, grid)
    taper_deg = _taper_deg(card)
    jobs = place(find_regions(missing), missing, grid, card.data["hole_limit"], taper_deg, mask)
    pixels = np.ones(lmax + 1) if window_nside is None else pixel_window(window_nside, lmax)
    tiles = pd.DataFrame([(job.tile.lon, job.tile.lat) for job in jobs], columns=["lon", "lat"])
    window = footprint_window(nside, tiles, grid.size_deg, grid.size_deg / 4)
    taper = cosine_taper(grid, taper_deg)
    averaged = np.interp(grid.ell, np.arange(lmax + 1), pixels)
    numbers = np.flatnonzero(missing)
    whole = {stokes: continued(values, missing) for stokes, values in maps.items()}
    for last in (False, True):
        alms = _analysed({stokes: values * window for stokes, values in whole.items()}, lmax)
        for start in range(0, len(jobs), _TILES):
            part, places = jobs[start : start + _TILES], tiles.iloc[start : start + _TILES]
            patches = _cut(alms, 1 / pixels, places, grid)
            stack = np.stack([patches[_stokes(name)] * taper for name in card.outputs], axis=1)
            holes = np.stack([job.hole for job in part])
            _check_moments(card, stack, holes, source)
            stack = np.where(holes[:, None], 0, stack).astype(np.float32)
            found = fill(stack, holes, [job.tile.name for job in part], sampled and last)
            filled = inverse(forward(np.asarray(found, float), grid) * averaged, grid)
            for job, maps_of_tile in zip(part, filled, strict=True):
                by_stokes = dict(zip(map(_stokes, card.outputs), maps_of_tile, strict=True))
                for region in job.regions:
                    for stokes, values in _at_pixels(by_stokes, job.tile, region, grid).items():
                        whole[stokes][region.pixels] = values
    return {stokes: values[numbers] for stokes, values in whole.items()}


def _analysed(maps: Mapping[str, np.ndarray], lmax: int) -> dict[tuple[str, ...], np.ndarray]:
    """alm of T, and of Q and U together, by the letters of RING maps (npix,)."""
    groups = [(("t",), 0), (("q", "u"), 2)]
    return {
        names: analyse(np.stack([maps[stokes] for stokes in names]), lmax, spin)
        for names, spin in groups
        if set(names) <= set(maps)
    }


def _cut(
    alms: Mapping[tuple[str, ...], np.ndarray],
    factor: np.ndarray,
    places: pd.DataFrame,
    grid: PatchGrid,
) -> dict[str, np.ndarray]:
    """T, Q and U (n, y, x) on tiles, in the flat convention, by letter."""
    patches: dict[str, np.ndarray] = {}
    for names, alm in alms.items():
        fields = cut(alm, factor, places, grid, spin=2 if len(names) == 2 else 0)
        patches |= dict(
            zip(names, iau_to_x_axis(*fields) if len(names) == 2 else fields, strict=True)
        )
    return patches


def place(
    regions: Sequence[Region],
    missing: np.ndarray,
    grid: PatchGrid,
    limit: Mapping[str, float | bool],
    taper_deg: float = 0.0,
    where: object = "mask",
) -> list[_Job]:
    """The tiles that regions are filled on: of the layout half a tile apart, or of their own.

    A region's pixels keep an eighth of the tile's side, and its taper, from each edge; no larger
    disc than one of `limit["radius_deg"]` fits into it, and no more of the tile than
    `limit["area"]` is missing. With `limit["centred"]`, of a network that knows holes in the middle
    only, each is filled on its own tile, centred on it, and no other may lie there. Raises
    `UserError` naming the first regions that have no such tile.
    """
    tiles, centred = Tiling(grid), bool(limit.get("centred", False))
    margin = max(_MARGIN * grid.size_deg, taper_deg)
    inner_deg = grid.size_deg / 2 - margin
    jobs: dict[tuple[str, int], _Job] = {}
    refused: list[str] = []
    for region in regions:
        reason = None
        for tile in tiles.holding(region, np.radians(inner_deg), own=centred):
            job = jobs.get(tile.name)
            if job is None:
                job = _Job(tile, hole_patch(missing, tile.lon, tile.lat, grid))
            reason = _too_large(job, region, grid, limit)
            if reason is None and centred and _has_others(job, region, missing, grid):
                reason = "with others on its tile"
            if reason is None:
                jobs.setdefault(tile.name, job).regions.append(region)
                break
        else:
            lon, lat = region.centre
            reason = reason or f"{_width(region):.3g} deg wide"
            refused.append(f"{reason} at (l, b) = ({lon:.2f}, {lat:.2f})")
    if refused:
        named = "; ".join(refused[:_NAMED]) + (len(refused) > _NAMED) * "; …"
        expected = (
            f"holes of at most {2 * inner_deg:.3g} deg, with room in them for a disc of at most "
            f"{limit['radius_deg']:.3g} deg radius, and {100 * limit['area']:.3g} % of a tile of "
            f"{grid.size_deg:g} deg missing{centred * ', each alone on a tile'}, as in training"
        )
        found = f"{len(refused)} of {len(regions)} that are not: {named}"
        raise UserError(where, expected, found)
    return list(jobs.values())


def _has_others(job: _Job, region: Region, missing: np.ndarray, grid: PatchGrid) -> bool:
    """Whether more than the region is missing on a tile."""
    alone = np.zeros_like(missing)
    alone[region.pixels] = True
    return bool((job.hole & ~hole_patch(alone, job.tile.lon, job.tile.lat, grid)).any())


def _too_large(
    job: _Job, region: Region, grid: PatchGrid, limit: Mapping[str, float | bool]
) -> str | None:
    """What a tile's hole has more of than the holes of the training set, if it has."""
    # As the limit was measured: a hole ends at the tile's edges.
    depth = ndimage.distance_transform_edt(np.pad(job.hole, 1))[1:-1, 1:-1]
    x, y = _positions(region, job.tile, grid)
    radius = depth[np.rint(y).astype(int), np.rint(x).astype(int)].max() * grid.pixel_arcmin / 60
    if radius > limit["radius_deg"]:
        return f"{radius:.3g} deg in radius"
    share = job.hole.mean()
    return f"{100 * share:.3g} % of the tile" if share > limit["area"] else None


def _width(region: Region) -> float:
    """How wide a region is, degrees: on its own tile, or as a disc if it is too large for one."""
    extent = region.extent(*region.centre)
    return 2 * max(region.radius_deg, np.degrees(extent) if np.isfinite(extent) else 0)


def _positions(region: Region, tile: Tile, grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows (n,) of a region's pixels on a tile, in pixels, not whole."""
    x, y = to_plane(tile.lon, tile.lat, *region.directions)
    middle = (grid.pixels - 1) / 2
    return x / grid.pixel_rad + middle, y / grid.pixel_rad + middle


def _at_pixels(
    patches: Mapping[str, np.ndarray], tile: Tile, region: Region, grid: PatchGrid
) -> dict[str, np.ndarray]:
    """T, Q and U (n,) of a region's pixels, COSMO on their own meridians, from a filled tile."""
    x, y = _positions(region, tile, grid)
    found = {
        stokes: ndimage.map_coordinates(values, [y, x], order=5, mode="mirror")
        for stokes, values in patches.items()
    }
    if "q" in found:
        angle = transport_angle(*region.directions, tile.lon, tile.lat)
        iau = iau_to_x_axis(found["q"], found["u"])
        found["q"], found["u"] = cosmo_to_iau(*rotate_qu(*iau, -angle))
    return found


def _stokes(name: str) -> str:
    return name.partition("_")[0]


def _check_moments(card: "Card", maps: np.ndarray, holes: np.ndarray, source: object) -> None:
    """Refuse maps (n, f, y, x) whose seen pixels have another mean or rms than the training set."""
    for place_, name in enumerate(card.outputs):
        (mean, rms), seen = card.normalization.moments[name], maps[:, place_][~holes]
        where, most = f"{source}, {name}", MOST_RMS * rms
        # First: with a taper a monopole makes the rms large too.
        if not abs((found := float(seen.mean())) - mean) <= most:
            expected = f"a mean within {most:.3g} of {mean:.3g} uK_CMB, the network's"
            raise UserError(where, expected + _REMOVE, f"{found:.3g} uK_CMB around holes")
        if not rms / MOST_RMS <= (found := float(seen.std())) <= most:
            expected = f"an rms within a factor {MOST_RMS:g} of {rms:.3g} uK_CMB, the network's"
            remove = _REMOVE if found > most else ""
            raise UserError(where, expected + remove, f"{found:.3g} uK_CMB around holes")


def _taper_deg(card: "Card") -> float:
    """Width of the taper, degrees, that the maps of the training set carried."""
    entry: Any = card.data
    for key in ("provenance", "settings", "effects", "taper_deg"):
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return float(entry or 0)


def _band_limit(path: object, nside: int, grid: PatchGrid) -> int:
    """Highest multipole to cut tiles at: that of the tiles' corners in Fourier space."""
    if 3 * nside - 1 < grid.ell_nyquist:
        least = 2 ** int(np.ceil(np.log2((grid.ell_nyquist + 1) / 3)))
        expected = f"an nside of at least {least} for pixels of {grid.pixel_arcmin:.4g} arcmin"
        raise UserError(path, expected, nside)
    return int(min(3 * nside - 1, np.ceil(np.sqrt(2) * grid.ell_nyquist)))


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise UserError(out, "a new file, or `--overwrite`", "one that is there")
    if out.is_dir():
        raise UserError(out, "a file to write", "a folder")
    if out.parent.exists() and not (out.parent.is_dir() and os.access(out.parent, os.W_OK)):
        raise UserError(out.parent, "a folder to write to", "another thing, or none of one's own")
    if out.suffix != ".fits":
        raise UserError(out, "a name that ends in .fits", out.suffix or "none")


def _read(
    path: str | Path, fields: Sequence[str], unit: str | None
) -> tuple[SkyMap, dict[str, _Column], bool]:
    """The map in µK_CMB, RING, COSMO; its columns by Stokes letter; whether the file's U is IAU."""
    units, header = _columns(path)
    if header.get("INDXSCHM", "IMPLICIT") == "EXPLICIT":
        raise UserError(path, "a map of all pixels of the sky (INDXSCHM IMPLICIT)", "EXPLICIT")
    columns: dict[str, _Column] = {}
    for stokes in map(_stokes, fields):
        known = {key.upper(): key for key in units}
        name = next((known[key] for key in _COLUMNS[stokes] if key in known), None)
        if name is None:
            expected = f"a column of {stokes.upper()} ({', '.join(_COLUMNS[stokes])})"
            raise UserError(path, expected, ", ".join(units))
        own, where = unit or units[name] or "uK_CMB", f"{path}, column {name}"
        factor = to_uk_cmb(own, 100.0, where)
        if factor != to_uk_cmb(own, 300.0, where):
            raise UserError(where, "a thermodynamic temperature, such as K_CMB or uK", repr(own))
        columns[stokes] = _Column(name, factor)
    bare = not all(units[column.name] for column in columns.values())
    sky = read_map(
        path,
        2**29,
        100.0,
        column=columns["t" if "t" in columns else "q"].name,
        unit=unit or ("uK_CMB" if bare else None),
        polarization="q" in columns,
    )
    if header.get("PIXWIN") == "0":
        sky = SkyMap(sky.intensity, None, sky.bad, 100.0, sky.description, None, sky.q, sky.u)
    return sky, columns, header.get("POLCCONV", "COSMO") == "IAU"


def _columns(path: str | Path) -> tuple[dict[str, str], dict[str, str]]:
    """Units of a HEALPix table's columns by name, and its cards, upper case, with the file's."""
    from astropy.io import fits

    try:
        with fits.open(path) as hdus:
            table = hdus[table_number(hdus)]
            units = {column.name: (column.unit or "").strip() for column in table.columns}
            cards = {**hdus[0].header, **table.header}
    except (OSError, TypeError, ValueError, StopIteration, fits.VerifyError) as error:
        found = " ".join(str(error).split()) or "none in it"
        raise UserError(path, "a HEALPix table in a FITS file", found) from None
    return units, {key: str(value).strip().upper() for key, value in cards.items()}


def _missing(path: str | Path, nside: int) -> np.ndarray:
    """Where a mask of any nside that is a power of two is missing: RING (npix,), at `nside`."""
    import healpy

    missing = ~read_seen(path)
    own = healpy.npix2nside(missing.size)
    if not healpy.isnsideok(own, nest=True):
        raise UserError(path, "an NSIDE that is a power of two", own)
    return missing_at(missing, nside)


def _write(
    source: str | Path,
    out: Path,
    pixels: np.ndarray,
    values: Mapping[str, np.ndarray],
    cards: Mapping[str, str],
) -> None:
    """Write a copy of the file `source` with other `values` (n,) at RING `pixels` of columns."""
    import healpy
    from astropy.io import fits

    with fits.open(source, memmap=False) as hdus:
        table = hdus[table_number(hdus)]
        for name, new in values.items():
            column = table.data[name]
            scaled = table.columns[name].bscale, table.columns[name].bzero
            if column.dtype.kind != "f" or set(scaled) - {None, "", 0, 1}:
                expected = "a column of floating-point numbers"
                raise UserError(f"{source}, column {name}", expected, "scaled integers")
            own = pixels
            if str(table.header.get("ORDERING", "")).strip().upper() != "RING":
                own = healpy.ring2nest(healpy.npix2nside(column.size), pixels)
            column[np.unravel_index(own, column.shape)] = new
        for key, text in cards.items():
            # Text that FITS cannot hold is escaped.
            table.header[key] = text.encode("unicode_escape").decode()
        table.header.add_history(f"Holes filled by skyweave {__version__}")
        if "DATASUM" in table.header:
            table.add_checksum()
        with atomic(out) as temporary:
            hdus.writeto(temporary, overwrite=True)
