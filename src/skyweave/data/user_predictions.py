"""Files of predicted maps: FITS images, HEALPix FITS, HDF5 or .npz, with units and provenance."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from skyweave import __version__, files
from skyweave.data.user_maps import UserMaps
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.sky import projection

#: Files of flat maps by their suffix.
FLAT = (".fits", ".h5", ".hdf5", ".npz")
#: Keywords of FITS headers for what provenance says.
_KEYS = {
    "network": "NETWORK",
    "network_sha256": "NETSHA",
    "input": "INPUT",
    "input_sha256": "INSHA",
    "dataset": "DATASET",
    "command": "COMMAND",
}
_UNITS = {"uK_CMB": "uK"}


def write_flat(
    path: str | os.PathLike,
    maps: Mapping[str, np.ndarray],
    *,
    source: UserMaps,
    units: Mapping[str, str],
    pixel_arcmin: float,
    taper_deg: float,
    provenance: Mapping[str, Any],
) -> None:
    """Write maps (n, y, x) to a file of the kind that its suffix says, whole or not at all.

    A FITS file has an image for each field, named EXTNAME, which `pixell.enmap.read_map(path,
    hdu=…)` reads, on the pixels of `source`; the others have arrays by field and the same numbers
    as notes. A single map (y, x) comes back as one. Raises `UserError` for another suffix.
    """
    path = Path(path)
    kept = {name: values[0] if source.single else values for name, values in maps.items()}
    notes = {
        "pixel_arcmin": float(pixel_arcmin),
        "taper_deg": float(taper_deg),
        "made_by": json.dumps(dict(provenance), sort_keys=True),
    }
    with files.atomic(path) as temporary:
        if path.suffix == ".fits":
            _write_images(temporary, kept, source, units, pixel_arcmin, provenance)
        elif path.suffix == ".npz":
            arrays: dict[str, Any] = {**kept, **notes}
            arrays |= {f"unit_{name}": units[name] for name in kept}
            np.savez(temporary, **arrays)
        elif path.suffix in FLAT:
            with h5py.File(temporary, "w") as file:
                file.attrs.update(notes)
                for name, values in kept.items():
                    file.create_dataset(name, data=values).attrs["units"] = units[name]
        else:
            raise UserError(path, f"a name that ends in {', '.join(FLAT)}", path.suffix or "none")


def write_sky(
    path: str | os.PathLike,
    maps: Mapping[str, np.ndarray],
    *,
    units: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> None:
    """Write RING maps (npix,), Galactic, NaN where nothing is known, as a HEALPix FITS table.

    healpy reads it, with UNSEEN for NaN.
    """
    import healpy

    columns = [
        np.where(np.isfinite(values), values, healpy.UNSEEN).astype(np.float32)
        for values in maps.values()
    ]
    with files.atomic(path) as temporary:
        healpy.write_map(
            temporary,
            columns,
            coord="G",
            column_names=[name.upper() for name in maps],
            column_units=[_UNITS.get(units[name], units[name]) for name in maps],
            extra_header=list(_cards(provenance).items()),
            dtype=np.float32,
        )


def _write_images(
    path: Path,
    maps: Mapping[str, np.ndarray],
    source: UserMaps,
    units: Mapping[str, str],
    pixel_arcmin: float,
    provenance: Mapping[str, Any],
) -> None:
    from astropy.io import fits

    hdus = fits.HDUList()
    for name, values in maps.items():
        image = np.flip(values, tuple(axis - 2 for axis in source.flipped))
        kind = fits.ImageHDU if hdus else fits.PrimaryHDU
        hdu = kind(np.ascontiguousarray(image, np.float32))
        hdu.header["EXTNAME"] = name.upper()
        hdu.header["BUNIT"] = _UNITS.get(units[name], units[name])
        hdu.header.update(source.header or _plane(values.shape, pixel_arcmin))
        hdu.header.update(_cards(provenance))
        hdus.append(hdu)
    hdus.writeto(path)


def _plane(shape: tuple[int, ...], pixel_arcmin: float) -> dict[str, Any]:
    """WCS cards of square maps whose place on the sky is not known: at (0, 0)."""
    rows, columns = shape[-2:]
    grid = PatchGrid(rows * pixel_arcmin / 60, rows)
    cards = projection.header(0.0, 0.0, grid) | {"CRPIX1": (columns + 1) / 2}
    del cards["POLCCONV"]
    return cards


def _cards(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as FITS cards; text that FITS cannot hold is escaped."""
    text = {key: str(provenance[name]) for name, key in _KEYS.items() if name in provenance}
    text["VERSIONS"] = ", ".join(f"{k} {v}" for k, v in provenance.get("versions", {}).items())
    text["CREATOR"] = f"skyweave {__version__}"
    return {key: value.encode("unicode_escape").decode() for key, value in text.items()}
