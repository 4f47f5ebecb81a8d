"""Beam windows b_ell that are not Gaussian: a user's table, and Planck HFI's."""

import re
import warnings
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator

from skyweave.errors import UserError
from skyweave.simulation.tables import read_columns


def read_window(path: str | Path) -> np.ndarray:
    """b_ell (lmax+1,) of a text table with the columns ``ell b_ell``, divided by its first value.

    The table starts at ell 0, 1 or 2, below which b is 1, and is interpolated (monotone cubic) to
    every multipole. Raises `UserError` as `read_columns` does, for a negative b, and for a first
    one more than 1 % from 1.
    """
    columns = read_columns(path, ("ell", "b_ell"), positive=("b_ell",))
    ell, window = columns["ell"], columns["b_ell"]
    if ell[0] > 2:
        raise UserError(path, "'ell' to start at 2 or below", f"{ell[0]:g}")
    if ell[-1] < 3:
        raise UserError(path, "'ell' up to 3 at least", f"{ell[-1]:g}")
    window = _normalized(path, window)
    every = np.arange(int(ell[-1]) + 1)
    return np.where(every < ell[0], 1.0, PchipInterpolator(ell, window)(every))


def hfi_window(path: str | Path, ghz: float) -> np.ndarray:
    """b_ell (lmax+1,) of the effective beam of a Planck HFI frequency, without the pixels' window.

    path: the instrument model (FITS, ``HFI_RIMO_R*``), whose extension BEAMWF_353X353, say, holds
    b_ell ("sqrt of Power Spectrum") from ell 0 in the column NOMINAL (arXiv:1303.5068).
    Raises `UserError` for another file and for a frequency that it does not have.
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    name = f"BEAMWF_{ghz:g}X{ghz:g}"
    try:
        with warnings.catch_warnings():
            # astropy only warns of a truncated file.
            warnings.filterwarnings("error", "File may have been truncated", AstropyWarning)
            with fits.open(path, memmap=False) as hdus:
                if name not in hdus:
                    own = [hdu.name for hdu in hdus if re.fullmatch(r"BEAMWF_(\d+)X\1", hdu.name)]
                    raise UserError(path, f"an extension {name}", ", ".join(own) or "none like it")
                window = np.ravel(hdus[name].data["NOMINAL"]).astype(np.float64)
                first = hdus[name].header.get("LMIN", 0)
    except FileNotFoundError:
        raise UserError(path, "an instrument model of Planck HFI", "no file") from None
    except UserError:
        raise
    except (OSError, KeyError, TypeError, ValueError, IndexError, AstropyWarning) as error:
        found = " ".join(str(error).split())
        raise UserError(path, "an instrument model of Planck HFI", found) from None
    if first != 0 or window.size < 2:
        raise UserError(path, f"{name} from ell 0 up", f"{window.size} values from {first}")
    if not np.isfinite(window).all():
        raise UserError(path, f"finite values in {name}", window[~np.isfinite(window)][0])
    return _normalized(path, window)


def at_modes(window: np.ndarray, ell: np.ndarray) -> np.ndarray:
    """b of `window` (lmax+1,) at multipoles `ell`, same shape: linear between whole multipoles.

    Beyond the last, L, a Gaussian that joins it: b_L^((ell/L)²), with b_L between 0 and 1.
    """
    ell, last = np.asarray(ell, dtype=np.float64), len(window) - 1
    inside = np.interp(ell, np.arange(last + 1), window)
    tail = np.clip(window[-1], 0, 1) ** (np.maximum(ell, last) / last) ** 2
    return np.where(ell > last, tail, inside)


def _normalized(path: str | Path, window: np.ndarray) -> np.ndarray:
    if abs(window[0] - 1) > 0.01:
        raise UserError(path, "a beam window that starts within 1 % of 1", f"{window[0]:g}")
    return window / window[0]
