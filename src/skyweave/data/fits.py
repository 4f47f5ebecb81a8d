"""Patches as FITS images, laid out for pixell: `enmap.read_map(path)` gives the maps.

The primary HDU holds (y, x), or (fields, y, x) where there is more than one, with the WCS of
`sky.projection` and the fields' names as FIELD1, FIELD2, …. Q and U, alone or behind the T of
their channel, are a Stokes axis (CTYPE3). In the file they are IAU (POLCCONV) with +y as north
everywhere, as flat-sky programs take them; a full-sky program wants them turned to each pixel's
meridian first.

pixell turns the sign of U of an IAU Stokes axis as it reads: its maps are COSMO, its `iau=False`
is right for them, and its E is that of `flat.polarization`, its B minus that, as HEALPix's is.
"""

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from skyweave import __version__, files
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.sky import projection

#: FITS knows a kelvin of one kind only.
_UNITS = {"uK_CMB": "uK", "K_CMB": "K"}
_POLARIZED = re.compile(r"[qu]_(\w+)")


def write_fits(
    path: str | os.PathLike,
    maps: Mapping[str, np.ndarray],
    *,
    grid: PatchGrid,
    units: Mapping[str, str],
    lon: float = 0.0,
    lat: float = 0.0,
    provenance: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write the fields of one patch to one FITS file, whole or not at all.

    `maps` holds (y, x) arrays by name (q_obs, kappa, …), all in one unit of `units`, kept as
    float32 and stacked in their order; T, Q, U of a channel are put into that order. Q and U come
    in the flat convention, angles from +x towards +y. The patch is centred at (lon, lat), Galactic
    degrees. `provenance` becomes cards; names of more than eight letters are HIERARCH cards.

    Raises `UserError` naming `path` for maps that do not fit the grid or are not finite, have
    no unit or different ones, for Q without U of a channel or beside other fields than its T, and
    for provenance that FITS cannot hold.
    """
    from astropy.io import fits

    if not -90 <= lat <= 90 or not np.isfinite(lon):
        raise UserError(path, "a longitude and a latitude in degrees", f"{lon:g}, {lat:g}")
    names = _order(path, tuple(maps))
    unit = _unit(path, names, units)
    planes = [_plane(path, name, maps[name], grid) for name in names]
    turned = _turn(dict(zip(names, planes, strict=True)), "IAU")
    stack = np.stack(list(turned.values()))
    image = fits.PrimaryHDU(stack if len(names) > 1 else stack[0])
    header = image.header
    header.update(projection.header(lon, lat, grid))
    if any(map(_POLARIZED.fullmatch, names)):
        first = 1.0 + "tq".index(names[0][0])
        header.update({"CTYPE3": "STOKES", "CRPIX3": 1.0, "CRVAL3": first, "CDELT3": 1.0})
        header.comments["CRVAL3"] = "1 I, 2 Q, 3 U"
    header.comments["POLCCONV"] = "angles from +y (north) towards -x (east)"
    header["BUNIT"] = (_UNITS.get(unit, unit), unit if unit in _UNITS else "")
    header["SIZEDEG"] = (float(grid.size_deg), "side of the patch, degrees")
    for number, name in enumerate(names, 1):
        header[f"FIELD{number}"] = name
    header["CREATOR"] = f"skyweave {__version__}"
    _add_provenance(path, header, provenance or {})
    with files.atomic(path) as temporary:
        image.writeto(temporary)


def read_fits(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], PatchGrid]:
    """Fields (y, x) float32 of a file of `write_fits` by name, and their grid.

    Q and U are given in the flat convention, whether the file's POLCCONV is IAU or COSMO (a file
    whose U another program has turned). Maps that `write_fits` wrote come back bit for bit. Raises
    `UserError` for anything else than such a file.
    """
    path = Path(path)
    data, header = _read(path)
    for key in ("FIELD1", "POLCCONV", "SIZEDEG", "CRVAL1", "CRVAL2"):
        if key not in header:
            raise UserError(path, f"{key} in the header, as write_fits puts there", "none")
    convention = str(header["POLCCONV"]).strip().upper()
    if convention not in ("IAU", "COSMO"):
        raise UserError(path, "POLCCONV IAU or COSMO", repr(header["POLCCONV"]))
    if data.ndim == 2:
        data = data[None]
    names: list[str] = []
    while (key := f"FIELD{len(names) + 1}") in header:
        names.append(str(header[key]).strip())
    _order(path, tuple(names))
    if data.ndim != 3 or len(data) != len(names):
        raise UserError(path, f"{len(names)} maps ({', '.join(names)})", f"shape {data.shape}")
    grid = PatchGrid(float(header["SIZEDEG"]), data.shape[-1])
    _check_geometry(path, header, data.shape, grid)
    return _turn(dict(zip(names, data.astype(np.float32), strict=True)), convention), grid


def _order(path: str | os.PathLike, names: tuple[str, ...]) -> tuple[str, ...]:
    """The fields' order in the file; refuses sets that no reader could tell Q and U in."""
    if not names:
        raise UserError(path, "at least one map", "none")
    channels = {match[1] for match in map(_POLARIZED.fullmatch, names) if match}
    if not channels:
        return names
    channel = min(channels)
    stokes = tuple(f"{letter}_{channel}" for letter in "tqu")
    for expected in (stokes, stokes[1:]):
        if set(names) == set(expected):
            return expected
    missing = set(stokes[1:]) - set(names)
    if missing:
        raise UserError(path, f"{missing.pop()!r} beside the other", ", ".join(names))
    raise UserError(path, "Q and U alone or with the T of their channel", ", ".join(names))


def _unit(path: str | os.PathLike, names: tuple[str, ...], units: Mapping[str, str]) -> str:
    """The one unit of the fields."""
    from astropy.units import Unit

    for name in names:
        if name not in units:
            raise UserError(path, f"a unit for {name!r}", "none")
    unit = units[names[0]]
    for name in names:
        if units[name] != unit:
            raise UserError(
                path,
                f"maps of one unit ({names[0]} in {unit or 'no unit'})",
                f"{name} in {units[name] or 'no unit'}",
            )
    try:
        Unit(_UNITS.get(unit, unit), format="fits")
    except ValueError:
        raise UserError(path, "a unit that FITS knows", repr(unit)) from None
    return unit


def _plane(path: str | os.PathLike, name: str, values: np.ndarray, grid: PatchGrid) -> np.ndarray:
    plane = np.asarray(values, dtype=np.float32)
    if plane.shape != (grid.pixels, grid.pixels):
        raise UserError(path, f"{name!r} of shape {(grid.pixels, grid.pixels)}", plane.shape)
    if not np.isfinite(plane).all():
        raise UserError(path, f"finite {name!r}", "a value that is not")
    return plane


def _turn(maps: dict[str, np.ndarray], convention: str) -> dict[str, np.ndarray]:
    """Q and U between the flat convention and that of a file, either way."""
    turned = dict(maps)
    for name in maps:
        if name.startswith("q_"):
            partner = f"u_{name[2:]}"
            q, u = maps[name], maps[partner]
            if convention == "COSMO":
                q, u = projection.cosmo_to_iau(q, u)
            turned[name], turned[partner] = projection.iau_to_x_axis(q, u)
    return turned


def _add_provenance(
    path: str | os.PathLike, header: Any, provenance: Mapping[str, str | int | float]
) -> None:
    for name, value in provenance.items():
        key = name.upper()
        if not re.fullmatch(r"[A-Z0-9_-]+", key):
            raise UserError(path, "provenance named by letters, digits, '_' and '-'", repr(name))
        if key in header or re.fullmatch(r"FIELD\d+", key):
            raise UserError(path, "provenance with names of its own", repr(name))
        try:
            header[key if len(key) <= 8 else f"HIERARCH {key}"] = value
        except ValueError as error:
            found = f"{name} = {value!r} ({' '.join(str(error).split())})"
            raise UserError(path, "provenance that a FITS card can hold", found) from None


def _read(path: Path) -> tuple[np.ndarray, Any]:
    """Image and header of the primary HDU."""
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    try:
        with warnings.catch_warnings():
            # astropy only warns of a truncated file.
            warnings.filterwarnings("error", "File may have been truncated", AstropyWarning)
            with fits.open(path, memmap=False) as hdus:
                data, header = hdus[0].data, hdus[0].header
    except FileNotFoundError:
        raise UserError(path, "a FITS file", "no file") from None
    except (OSError, TypeError, ValueError, fits.VerifyError, AstropyWarning) as error:
        found = f"an unreadable file ({' '.join(str(error).split())})"
        raise UserError(path, "a FITS file of maps", found) from None
    if data is None:
        raise UserError(path, "an image in the primary HDU", "none")
    return data, header


def _check_geometry(path: Path, header: Any, shape: tuple[int, ...], grid: PatchGrid) -> None:
    """Refuse another geometry than that of the patch of `grid`."""
    if shape[1] != shape[2]:
        raise UserError(path, "square maps", f"{shape[1]} x {shape[2]}")
    expected = projection.header(header["CRVAL1"], header["CRVAL2"], grid)
    # Programs leave LONPOLE out where it has its usual value.
    found = {"LONPOLE": 180.0} | dict(header)
    for key in ("CTYPE1", "CTYPE2"):
        if found.get(key) != expected[key]:
            raise UserError(path, f"{key} = {expected[key]}", found.get(key))
    for key in ("CRPIX1", "CRPIX2", "CDELT1", "CDELT2", "LONPOLE"):
        value = found.get(key)
        if not isinstance(value, int | float) or not np.isclose(value, expected[key], 1e-9, 0):
            raise UserError(path, f"{key} = {expected[key]:g}", value)
