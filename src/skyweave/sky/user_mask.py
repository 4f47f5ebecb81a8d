"""Reading a user's mask of the sky: where a HEALPix FITS file sees it."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from skyweave.errors import UserError


def read_seen(path: str | Path) -> np.ndarray:
    """Where a HEALPix FITS mask sees the sky: RING (npix,) bool, Galactic, of any nside.

    It is missing where the first column is not above 0, or has no data; other columns are not
    looked at. Raises `UserError` for a file that is missing, none of HEALPix or not Galactic, and
    for a mask without anything seen.
    """
    import healpy
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    what = "a HEALPix FITS file"
    if not Path(path).is_file():
        raise UserError(path, what, "no file")
    try:
        with warnings.catch_warnings(), fits.open(path) as hdus:
            # Of headers without a card that nothing here depends on; of a truncated file astropy
            # only warns.
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", "File may have been truncated", AstropyWarning)
            number = table_number(hdus)
            header = {**hdus[0].header, **hdus[number].header}
            mark = float(header.get("BAD_DATA", 0))
            # As they lie in the file: healpy takes an order of another name for RING.
            values = healpy.read_map(hdus, field=0, hdu=number, nest=None, dtype=np.float32)
    except StopIteration:
        raise UserError(path, what, "a FITS file without a HEALPix table") from None
    except (
        *(OSError, IndexError, KeyError, TypeError, ValueError, AttributeError),
        *(AssertionError, fits.VerifyError, AstropyWarning),
    ) as error:
        found = f"an unreadable file ({' '.join(str(error).split())})"
        raise UserError(path, what, found) from None
    ordering = str(header.get("ORDERING", "none")).strip().upper()
    if ordering not in ("RING", "NESTED", "NEST"):
        raise UserError(path, "ORDERING RING or NESTED in the header", ordering)
    frame = str(header.get("COORDSYS", "G")).strip().upper()
    if not frame.startswith("G"):
        raise UserError(path, "Galactic coordinates (COORDSYS)", frame)
    nside = healpy.npix2nside(values.size)
    if not healpy.isnsideok(nside, nest=ordering != "RING"):
        raise UserError(path, "an NSIDE that is a power of two", nside)
    # HEALPix marks pixels without data by a large negative number, some files by another one.
    seen = np.isfinite(values) & (values > 0)
    if mark > 0:
        seen &= ~np.isclose(values, mark, rtol=1e-5, atol=0)
    if not seen.any():
        raise UserError(path, "a mask that sees some of the sky (above 0)", "0 everywhere")
    return seen if ordering == "RING" else healpy.reorder(seen, n2r=True)


def table_number(hdus: Any) -> int:
    """Number of the HEALPix table in an open FITS file; raises `StopIteration` without one."""
    headers = [hdu.header for hdu in hdus]
    return next(
        number
        for number, header in enumerate(headers)
        if "TFIELDS" in header
        and ("ORDERING" in header or str(header.get("PIXTYPE", "")).strip().upper() == "HEALPIX")
    )
