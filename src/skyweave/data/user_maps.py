"""Maps of a user's own, FITS images or arrays, as a network takes them.

Q and U come out in the flat convention, angles from +x towards +y, on pixels whose rows go north
and columns against east, where the file says where these are.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skyweave.data.arrays import ArrayFile, open_arrays
from skyweave.data.fits import read_fits
from skyweave.errors import UserError
from skyweave.sky.projection import cosmo_to_iau, iau_to_x_axis
from skyweave.sky.units import to_uk_cmb

CONVENTIONS = ("flat", "iau", "cosmo", "mirrored")
_FITS = (".fits", ".fits.gz", ".fit", ".fits.fz")
_STOKES = "tqu"


@dataclass(frozen=True)
class UserMaps:
    """Maps (n, y, x) float32 of a file by field, and what the file says of them.

    `units` holds those that the file gives; `pixel_arcmin` and `taper_deg` are None where it gives
    none. Of a FITS image `header` holds the cards of its WCS, and `flipped` the axes (of y, x) that
    were turned round to run north and against east; `single` maps were given as (y, x).
    """

    maps: dict[str, np.ndarray]
    units: dict[str, str] = field(default_factory=dict)
    pixel_arcmin: float | None = None
    taper_deg: float | None = None
    header: dict[str, Any] | None = None
    flipped: tuple[int, ...] = ()
    single: bool = False


def to_flat(q: np.ndarray, u: np.ndarray, convention: str) -> tuple[np.ndarray, np.ndarray]:
    """Q and U in the flat convention from one of `CONVENTIONS`.

    IAU and COSMO angles are those of maps with rows towards north and columns against east; in
    ``mirrored`` maps U has the other sign than in ``flat`` ones.
    """
    if convention in ("cosmo", "mirrored"):
        q, u = cosmo_to_iau(q, u)
    if convention in ("cosmo", "iau"):
        q, u = iau_to_x_axis(q, u)
    return q, u


def is_fits(path: str | os.PathLike) -> bool:
    """Whether a file is to be FITS by its name."""
    return str(path).lower().endswith(_FITS)


def is_healpix(path: str | os.PathLike) -> bool:
    """Whether a FITS file holds a HEALPix table; raises `UserError` for a broken file."""
    from astropy.io import fits

    try:
        with fits.open(path) as hdus:
            return any(
                str(hdu.header.get("PIXTYPE", "")).strip().upper() == "HEALPIX"
                or ("ORDERING" in hdu.header and "TFIELDS" in hdu.header)
                for hdu in hdus
            )
    except FileNotFoundError:
        raise UserError(path, "a file", "none") from None
    except (OSError, TypeError, ValueError, fits.VerifyError) as error:
        found = f"an unreadable file ({' '.join(str(error).split())})"
        raise UserError(path, "a FITS file of maps", found) from None


def read_maps(
    path: str | os.PathLike, inputs: Sequence[str], convention: str | None = None
) -> UserMaps:
    """Those of the fields `inputs` that a file of flat maps holds.

    FITS images are those of `data.fits`, or of (n,) T, Q, U or Q, U, as `pixell.enmap.write_map`
    leaves them; .npz and HDF5 files hold arrays named as the fields, or by their Stokes letter
    alone where the inputs have one channel. `convention` is that of Q and U; by default what an
    image's POLCCONV says or else what pixell takes it for, and `flat` for arrays.
    Raises `UserError` naming the file for what is no such file.
    """
    path = Path(path)
    if is_fits(path):
        return _read_image(path, inputs, convention)
    return _read_arrays(open_arrays(path), inputs, convention or "flat")


def in_unit(maps: np.ndarray, unit: str | None, wanted: str, where: object) -> np.ndarray:
    """Maps in the unit `wanted`; raises `UserError` where `unit` is none that becomes that one.

    Temperatures are thermodynamic (CMB). Maps without a unit stay as they are.
    """
    if unit is None or unit.strip() in ("", wanted):
        return maps
    if wanted != "uK_CMB":
        if unit.strip() == "1":
            return maps
        raise UserError(where, f"maps in {wanted or 'no unit'}", repr(unit))
    factor = to_uk_cmb(unit, 100.0, where)
    if factor != to_uk_cmb(unit, 300.0, where):
        raise UserError(where, "a thermodynamic temperature, such as K_CMB or uK", repr(unit))
    return maps * np.float32(factor)


def _read_arrays(file: ArrayFile, inputs: Sequence[str], convention: str) -> UserMaps:
    """The inputs that a file of arrays holds, the maps of all of them alike."""
    short = {name: name.partition("_")[0] for name in _of_stokes(inputs)}
    names = {
        name: next((key for key in (name, short.get(name)) if key in file.shapes), None)
        for name in inputs
    }
    found = {name: key for name, key in names.items() if key is not None}
    if not found:
        known = ", ".join(sorted(file.shapes)) or "none"
        raise UserError(file.path, f"an array of {', '.join(inputs)}", known)
    maps, single = {}, False
    for name, key in found.items():
        values = np.asarray(file.read(key), np.float32)
        single = values.ndim == 2
        maps[name] = _stacked(file.path, key, values)
    units = {name: unit for name, key in found.items() if (unit := file.unit(key)) is not None}
    pixels = next(iter(maps.values())).shape[-1]
    pixel_arcmin, size_deg = file.number("pixel_arcmin"), file.number("size_deg")
    if pixel_arcmin is None and size_deg is not None:
        pixel_arcmin = 60 * size_deg / pixels
    return UserMaps(
        maps=_all_flat(maps, convention),
        units=units,
        pixel_arcmin=pixel_arcmin,
        taper_deg=_taper(file),
        single=single,
    )


def _taper(file: ArrayFile) -> float | None:
    """Width of the taper that the maps of a file carry, as a shard's provenance has it, too."""
    if "provenance" in file.notes:
        try:
            settings = json.loads(file.notes["provenance"])["settings"]
            return float(settings["effects"]["taper_deg"])
        except (KeyError, TypeError, ValueError):
            pass
    return file.number("taper_deg")


def _of_stokes(inputs: Sequence[str]) -> list[str]:
    """The T, Q and U among the inputs, if these are of one channel."""
    stokes = [name for name in inputs if name.partition("_")[0] in _STOKES]
    return stokes if len({name.partition("_")[2] for name in stokes}) == 1 else []


def _stacked(path: Path, key: str, values: np.ndarray) -> np.ndarray:
    if values.ndim not in (2, 3):
        raise UserError(path, f"{key!r} as (y, x) or (n, y, x)", values.shape)
    return values[None] if values.ndim == 2 else values


def _all_flat(maps: Mapping[str, np.ndarray], convention: str) -> dict[str, np.ndarray]:
    """The maps with Q and U in the flat convention."""
    turned = dict(maps)
    for name in maps:
        partner = f"u_{name[2:]}"
        if name.startswith("q_") and partner in maps:
            turned[name], turned[partner] = to_flat(maps[name], maps[partner], convention)
    return turned


def _read_image(path: Path, inputs: Sequence[str], convention: str | None) -> UserMaps:
    """The inputs that a FITS image holds."""
    header, data = _image(path)
    if "FIELD1" in header:
        if convention not in (None, "flat"):
            expected = "no convention for a file of this project, which says its own"
            raise UserError(path, expected, repr(convention))
        maps, grid = read_fits(path)
        kept = {name: values[None] for name, values in maps.items() if name in inputs}
        units = {name: str(header["BUNIT"]) for name in kept} if "BUNIT" in header else {}
        cards = _wcs_cards(header)
        return UserMaps(kept, units, grid.pixel_arcmin, header=cards, single=True)
    planes = _planes(path, header, data, inputs)
    flipped, pixel_arcmin = _orientation(path, header, data.shape)
    maps = {
        name: np.ascontiguousarray(np.flip(values, tuple(axis - 2 for axis in flipped)))
        for name, values in planes.items()
    }
    said = str(header.get("POLCCONV", header.get("POLCONV", ""))).strip().lower()
    if said and said not in ("iau", "cosmo"):
        raise UserError(path, "POLCCONV IAU or COSMO", repr(said))
    # As pixell reads such files: U is IAU on a Stokes axis, and its own maps are COSMO.
    usual = "iau" if header.get("CTYPE3", "").strip() == "STOKES" else "cosmo"
    unit = str(header["BUNIT"]).strip() if "BUNIT" in header else None
    return UserMaps(
        maps=_all_flat(maps, convention or said or usual),
        units=dict.fromkeys(maps, unit) if unit is not None else {},
        pixel_arcmin=pixel_arcmin,
        header=_wcs_cards(header),
        flipped=flipped,
        single=data.ndim <= 3 and len(next(iter(maps.values()))) == 1,
    )


def _image(path: Path) -> tuple[Any, np.ndarray]:
    """Header and float32 image of the first HDU that has one."""
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    try:
        with warnings.catch_warnings():
            # astropy only warns of a truncated file.
            warnings.filterwarnings("error", "File may have been truncated", AstropyWarning)
            with fits.open(path, memmap=False) as hdus:
                hdu = next((one for one in hdus if one.is_image and one.data is not None), None)
                if hdu is None:
                    raise UserError(path, "an image", "none")
                return hdu.header, np.asarray(hdu.data, np.float32)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(path, "a file", "none") from None
    except (OSError, TypeError, ValueError, fits.VerifyError, AstropyWarning) as error:
        found = f"an unreadable file ({' '.join(str(error).split())})"
        raise UserError(path, "a FITS file of maps", found) from None


def _planes(
    path: Path, header: Any, data: np.ndarray, inputs: Sequence[str]
) -> dict[str, np.ndarray]:
    """The inputs (n, y, x) among the planes of an image (y, x), (components, y, x) or
    (n, components, y, x); of one input also (n, y, x)."""
    if data.ndim == 2 or (data.ndim == 3 and len(inputs) == 1 and header.get("CTYPE3") is None):
        if len(inputs) != 1:
            raise UserError(path, f"maps of {', '.join(inputs)}", "one map")
        return {inputs[0]: data.reshape(-1, *data.shape[-2:])}
    if data.ndim not in (3, 4) or data.shape[-3] not in (2, 3):
        raise UserError(path, "an image of T, Q, U or of Q, U", f"shape {data.shape}")
    stack = data if data.ndim == 4 else data[None]
    letters = _STOKES[-stack.shape[1] :]
    if header.get("CTYPE3", "").strip() == "STOKES":
        first = round(header.get("CRVAL3", 1) + 1 - header.get("CRPIX3", 1))
        letters = _STOKES[first - 1 : first - 1 + stack.shape[1]]
        if header.get("CDELT3", 1) != 1 or first < 1 or len(letters) != stack.shape[1]:
            raise UserError(path, "a Stokes axis of T, Q, U or Q, U", f"CRVAL3 = {first}")
    stokes = {name[0]: name for name in _of_stokes(inputs)}
    return {stokes[s]: stack[:, row] for row, s in enumerate(letters) if s in stokes}


def _orientation(
    path: Path, header: Any, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], float | None]:
    """Axes (0 is y, 1 is x) to turn round, and side of a pixel in arcmin, of an image's WCS.

    The side is the distance on the sky between the pixels at the middle. None without a WCS.
    """
    from astropy.wcs import WCS, FITSFixedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(header, naxis=2)
    if not wcs.has_celestial:
        return (), None
    middle = np.array([(shape[-1] - 1) / 2, (shape[-2] - 1) / 2])
    steps = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) / 2
    lon, lat = np.radians(wcs.all_pix2world(middle + steps, 0).T)
    # On the tangent plane at the middle: east and north of a pixel's steps.
    east = np.angle(np.exp(1j * (lon - lon[0]))) * np.cos(lat[0])
    north = lat - lat[0]
    x, y = (np.array([east[i] - east[i + 1], north[i] - north[i + 1]]) for i in (1, 3))
    sides = np.degrees([np.hypot(*x), np.hypot(*y)]) * 60
    if abs(x[1]) > 1e-2 * abs(x[0]) or abs(y[0]) > 1e-2 * abs(y[1]):
        raise UserError(path, "a map whose rows go north or south", "one that is turned")
    if abs(sides[0] / sides[1] - 1) > 1e-3:
        raise UserError(path, "square pixels", f"{sides[0]:.5g} x {sides[1]:.5g} arcmin")
    flipped = tuple(axis for axis, back in enumerate((y[1] < 0, x[0] > 0)) if back)
    return flipped, float(np.mean(sides))


def _wcs_cards(header: Any) -> dict[str, Any]:
    """Cards of the two sky axes."""
    from astropy.wcs import WCS, FITSFixedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return dict(WCS(header, naxis=2).to_header(relax=True))
