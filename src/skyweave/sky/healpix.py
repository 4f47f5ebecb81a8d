"""Reading a user's HEALPix FITS file: ordering, units, columns and bad pixels."""

import re
import warnings
from collections import ChainMap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skyweave.errors import UserError
from skyweave.sky.resolution import change_nside, change_qu_nside, change_variance_nside
from skyweave.sky.skymap import SkyMap, read_mask, write_mask
from skyweave.sky.units import to_uk_cmb, to_uk_cmb_squared

__all__ = ["SkyMap", "read_map", "read_mask", "write_mask"]

#: Names by which published maps call their columns, in order of preference.
INTENSITY = ("I_STOKES", "TEMPERATURE", "INTENSITY", "I", "T", "SIGNAL")
VARIANCE = ("II_COV", "II_VAR", "VARIANCE")
STOKES_Q = ("Q_STOKES", "Q_POLARISATION", "Q_POLARIZATION", "Q")
STOKES_U = ("U_STOKES", "U_POLARISATION", "U_POLARIZATION", "U")

#: What HEALPix writes into pixels without data.
UNSEEN = -1.6375e30

#: Beams of Planck HFI by frequency in GHz, FWHM in arcmin: the mean of the elliptical Gaussians
#: fitted to the effective beams (Planck 2018 results. I, A&A 641, A1, table 4). At ell 1000 these
#: Gaussians are off the beam windows of the 2013 release (`simulation.beams.hfi_window`) by -4.7,
#: -1.6, -0.4, -1.2, 2.1 and 2.5 % of b, below that by less.
HFI_FWHM_ARCMIN = {100: 9.66, 143: 7.22, 217: 4.90, 353: 4.92, 545: 4.67, 857: 4.22}

_FREQUENCY = re.compile(
    r"F?(?P<ghz>\d+(?:\.\d*)?)(?:[\s_-]*(?:GHz|psb))*", re.IGNORECASE | re.ASCII
)
#: Frequencies in GHz that maps of the sky are made at; a number beyond is in another unit.
_POSSIBLE_GHZ = (0.01, 10_000)


def read_map(
    path: str | Path,
    nside: int,
    frequency_ghz: float | None = None,
    *,
    column: str | None = None,
    unit: str | None = None,
    polarization: bool = False,
    needs_beam: bool = False,
    section: str = "map",
) -> SkyMap:
    """Read a Galactic HEALPix map as RING at `nside`, or its own if coarser, in µK_CMB.

    `column` names the intensity's column where the usual names do not find it, `unit` the map's
    unit where the header has none or a wrong one; with `polarization` Q and U are read too. The
    frequency is the header's where none is given; the beam is that of `HFI_FWHM_ARCMIN` where the
    header says that the map is of Planck HFI, else None. A coarser pixel is the mean of its good
    ones, bad where fewer than half are (Q and U are carried to its centre first), and its variance
    that of a mean of independent pixels. A coarser map is left as it is: finer pixels would know no
    more, and repeated ones would have the window of both.
    Raises `UserError` for what is missing or unknown: a frequency, or with `needs_beam` a beam,
    that the header lacks is one to be given in that `section` of the settings.
    """
    with _open(Path(path)) as file:
        own_ghz = file.frequency_ghz
        if frequency_ghz is None:
            if own_ghz is None:
                expected = f"a frequency in GHz in its header (FREQ), or {section}.frequency_ghz"
                raise UserError(path, expected, file.frequency or "neither")
            frequency_ghz = own_ghz
        fwhm_arcmin = file.fwhm_arcmin(own_ghz or frequency_ghz)
        if needs_beam and fwhm_arcmin is None:
            expected = f"a map of Planck HFI by its header, or {section}.fwhm_arcmin for its beam"
            raise UserError(path, expected, "neither")
        name = file.column([column] if column else INTENSITY, "the intensity")
        text = unit or file.unit(name)
        intensity = file.read(name, to_uk_cmb(text, frequency_ghz, file.where(name)))
        variance = q = u = None
        if (cov := file.find(VARIANCE)) is not None:
            variance = file.read(cov, _variance_factor(file, cov, text, unit, frequency_ghz))
        if polarization:
            names = [file.column(STOKES_Q, "Stokes Q"), file.column(STOKES_U, "Stokes U")]
            q, u = (
                file.read(name, to_uk_cmb(unit or file.unit(name), frequency_ghz, file.where(name)))
                for name in names
            )
            u = -u if file.iau else u
        nside = min(nside, file.nside)
    name = Path(path).name
    return _assemble(intensity, variance, q, u, nside, frequency_ghz, fwhm_arcmin, name)


def _assemble(
    intensity: np.ndarray,
    variance: np.ndarray | None,
    q: np.ndarray | None,
    u: np.ndarray | None,
    nside: int,
    frequency_ghz: float,
    fwhm_arcmin: float | None,
    description: str,
) -> SkyMap:
    """NESTED maps at `nside` or finer, NaN where bad, to a `SkyMap` at `nside`."""
    import healpy

    bad = ~np.isfinite(intensity)
    if variance is not None:
        bad |= ~(variance > 0)
    if bad.all():
        raise UserError(description, "pixels with a value and a variance above 0", "none")
    if q is not None and u is not None:
        bad |= ~np.isfinite(q + u)
        q, u = change_qu_nside(_without(q, bad), _without(u, bad), nside)
    intensity = change_nside(_without(intensity, bad), nside)
    if variance is not None:
        variance = change_variance_nside(_without(variance, bad), nside)
    intensity = healpy.reorder(intensity, n2r=True)
    variance, q, u = (
        None if values is None else healpy.reorder(values, n2r=True) for values in (variance, q, u)
    )
    return SkyMap(
        intensity=intensity,
        variance=variance,
        bad=np.isnan(intensity),
        q=q,
        u=u,
        frequency_ghz=float(frequency_ghz),
        description=description,
        # Maps are made by binning samples: a value is an average over its pixel.
        window_nside=nside,
        fwhm_arcmin=fwhm_arcmin,
    )


def _without(values: np.ndarray, bad: np.ndarray) -> np.ndarray:
    return np.where(bad, np.float32(np.nan), values)


def _variance_factor(
    file: "_File", name: str, text: str, given: str | None, frequency_ghz: float
) -> float:
    """Factor of the variance; its own unit counts where it has one and the user gave none."""
    own = file.unit(name)
    if own and not given:
        return to_uk_cmb_squared(own, frequency_ghz, file.where(name))
    return to_uk_cmb(text, frequency_ghz, file.where(name)) ** 2


@dataclass(frozen=True)
class _File:
    """An open HEALPix table: FITS record `table`, its header, and what the header says.

    Cards of the file's first header stand in `header` where the table's own has none.
    """

    path: Path
    table: Any
    header: Any
    nside: int
    nested: bool
    pixels: np.ndarray | None

    @property
    def iau(self) -> bool:
        return str(self.header.get("POLCCONV", "COSMO")).strip().upper() == "IAU"

    @property
    def frequency(self) -> str:
        """What the header says of the frequency, with its unit if it has one."""
        text = " ".join(str(self.header.get(key, "")).strip() for key in ("FREQ", "UNITFREQ"))
        return text.strip()

    @property
    def frequency_ghz(self) -> float | None:
        """Frequency of the header, None where it has none; Planck's is text, as '353-psb'."""
        match = _FREQUENCY.fullmatch(self.frequency)
        frequency = float(match["ghz"]) if match else 0.0
        low, high = _POSSIBLE_GHZ
        return frequency if low <= frequency <= high else None

    def fwhm_arcmin(self, frequency_ghz: float) -> float | None:
        """Beam of a map of Planck HFI, None for any other."""
        cards = {
            key: str(self.header.get(key, "")).strip().upper()
            for key in ("INSTRUME", "EXTNAME", "FILENAME")
        }
        # EXTNAME is that of Planck's frequency maps, LFI's too, whose frequencies are others.
        planck = cards["EXTNAME"] == "FREQ-MAP" or cards["FILENAME"].startswith("HFI_SKYMAP")
        if planck or "HFI" in cards["INSTRUME"]:
            return HFI_FWHM_ARCMIN.get(round(frequency_ghz))
        return None

    def where(self, name: str) -> str:
        return f"{self.path}, column {name}"

    def unit(self, name: str) -> str:
        return (self.table.columns[name].unit or "").strip()

    def find(self, candidates: Sequence[str]) -> str | None:
        names = {name.upper(): name for name in self.table.names}
        return next((names[key.upper()] for key in candidates if key.upper() in names), None)

    def column(self, candidates: Sequence[str], what: str) -> str:
        name = self.find(candidates)
        if name is None:
            expected = f"a column with {what} ({', '.join(candidates)})"
            raise UserError(self.path, expected, ", ".join(self.table.names))
        return name

    def read(self, name: str, factor: float) -> np.ndarray:
        """Full-sky NESTED map (npix,) float32 of a column times `factor`, NaN where bad."""
        import healpy

        values = np.array(self.table[name], dtype=np.float32).ravel()
        marks = {UNSEEN, float(self.header.get("BAD_DATA", UNSEEN))}
        for mark in marks:
            values[np.isclose(values, mark, rtol=1e-5, atol=0)] = np.nan
        values[~np.isfinite(values)] = np.nan
        values *= np.float32(factor)
        npix = 12 * self.nside**2
        if self.pixels is not None:
            full = np.full(npix, np.nan, np.float32)
            full[self.pixels] = values
            values = full
        if values.size != npix:
            expected = f"{npix} values at its nside {self.nside}"
            raise UserError(self.where(name), expected, values.size)
        return values if self.nested else healpy.reorder(values, r2n=True)


@contextmanager
def _open(path: Path) -> Iterator[_File]:
    """Open the HEALPix table of a FITS file; raises `UserError` where there is none."""
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    try:
        with warnings.catch_warnings(), fits.open(path, memmap=True) as hdus:
            # astropy only warns of a truncated file.
            warnings.filterwarnings("error", "File may have been truncated", AstropyWarning)
            hdu = next((hdu for hdu in hdus if _is_healpix(hdu)), None)
            if hdu is None:
                raise UserError(path, "a HEALPix table", "a FITS file without one")
            yield _describe(path, hdu, hdus[0].header)
    except FileNotFoundError:
        raise UserError(path, "a HEALPix FITS file", "no file") from None
    except UserError:
        raise
    except (OSError, TypeError, ValueError, fits.VerifyError, AstropyWarning) as error:
        found = f"an unreadable file ({error})"
        raise UserError(path, "a HEALPix FITS file", found) from None


def _is_healpix(hdu: Any) -> bool:
    header = hdu.header
    is_table = str(header.get("XTENSION", "")).strip() == "BINTABLE"
    return is_table and (
        str(header.get("PIXTYPE", "")).strip().upper() == "HEALPIX" or "ORDERING" in header
    )


def _describe(path: Path, hdu: Any, first: Any) -> _File:
    table, header = hdu.data, ChainMap(hdu.header, first)
    ordering = str(header.get("ORDERING", "none")).strip().upper()
    if ordering not in ("RING", "NESTED", "NEST"):
        raise UserError(path, "ORDERING RING or NESTED in the header", ordering)
    frame = str(header.get("COORDSYS", "G")).strip().upper()
    if not frame.startswith("G"):
        raise UserError(path, "Galactic coordinates (COORDSYS)", frame)
    explicit = str(header.get("INDXSCHM", "IMPLICIT")).strip().upper() == "EXPLICIT"
    rows = table[table.names[0]].size
    nside = int(header.get("NSIDE", 0)) or round(np.sqrt(rows / 12))
    if nside & (nside - 1) or nside < 1:
        raise UserError(path, "an NSIDE that is a power of two", nside)
    pixels = None
    if explicit:
        pixels = np.array(table[table.names[0]], dtype=np.int64).ravel()
        if pixels.size and not 0 <= pixels.min() <= pixels.max() < 12 * nside**2:
            raise UserError(path, f"pixel numbers below {12 * nside**2}", pixels.max())
    return _File(path, table, header, nside, ordering != "RING", pixels)
