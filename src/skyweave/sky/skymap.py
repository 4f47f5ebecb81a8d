"""A map of the full sky as the later steps take it: RING, Galactic, µK_CMB."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skyweave.errors import UserError
from skyweave.files import atomic

_FLAG = "FLAG_"


@dataclass(frozen=True)
class SkyMap:
    """A full-sky map, HEALPix RING ordering, Galactic coordinates.

    intensity (npix,) float32, µK_CMB, NaN where `bad`; variance (npix,) float32, µK_CMB², or None;
    bad (npix,) bool; q, u (npix,) float32, µK_CMB, COSMO convention, or None. `flags` holds further
    (npix,) bool maps by name. `window_nside` is the nside of the pixels that the map's values are
    averages over (their window is undone when it is smoothed), None where they are point samples.
    Where the averages are over the points of a finer nside, that is `points_nside`. `fwhm_arcmin`
    is the Gaussian beam that the map's file says it has, None where it says none.
    """

    intensity: np.ndarray
    variance: np.ndarray | None
    bad: np.ndarray
    frequency_ghz: float
    description: str
    window_nside: int | None = None
    q: np.ndarray | None = None
    u: np.ndarray | None = None
    flags: Mapping[str, np.ndarray] = field(default_factory=dict)
    points_nside: int | None = None
    fwhm_arcmin: float | None = None

    @property
    def nside(self) -> int:
        """Resolution of the map."""
        return round((self.intensity.size / 12) ** 0.5)

    @property
    def no_iras(self) -> np.ndarray | None:
        """Pixels that IRAS did not see (SFD98 fills them from DIRBE), or None where unknown."""
        return self.flags.get("no_iras")

    def write(self, path: str | Path) -> None:
        """Write as a HEALPix FITS table, atomically."""
        maps = [
            ("I_STOKES", self.intensity, "uK_CMB"),
            ("II_COV", self.variance, "(uK_CMB)^2"),
            ("Q_STOKES", self.q, "uK_CMB"),
            ("U_STOKES", self.u, "uK_CMB"),
            ("BAD", self.bad, None),
            *((_FLAG + name.upper(), values, None) for name, values in self.flags.items()),
        ]
        cards = {
            "POLCCONV": ("COSMO", "sign of U"),
            "FREQ": (self.frequency_ghz, "GHz"),
            "PIXWIN": (self.window_nside or 0, "nside of the pixels averaged over, 0: points"),
            "PIXPOINT": (self.points_nside or 0, "nside of the points averaged, 0: continuous"),
            "CONTENT": (self.description.encode("ascii", "replace").decode(), ""),
        }
        if self.fwhm_arcmin is not None:
            cards["BEAM"] = (self.fwhm_arcmin, "FWHM, arcmin")
        _write_table(path, [column for column in maps if column[1] is not None], cards)

    @classmethod
    def read(cls, path: str | Path) -> "SkyMap":
        """Read what `write` wrote; raises `UserError` for anything else."""
        table, header = _read_table(path, "a map written by skyweave", ("I_STOKES", "BAD"))

        def optional(name: str) -> np.ndarray | None:
            return np.array(table[name], np.float32) if name in table.names else None

        return cls(
            intensity=np.array(table["I_STOKES"], np.float32),
            variance=optional("II_COV"),
            q=optional("Q_STOKES"),
            u=optional("U_STOKES"),
            bad=np.array(table["BAD"], bool),
            frequency_ghz=header["FREQ"],
            description=header["CONTENT"],
            window_nside=header["PIXWIN"] or None,
            points_nside=header["PIXPOINT"] or None,
            fwhm_arcmin=header.get("BEAM"),
            flags={
                name.removeprefix(_FLAG).lower(): np.array(table[name], bool)
                for name in table.names
                if name.startswith(_FLAG)
            },
        )


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a boolean RING mask (npix,), True inside, as a HEALPix FITS table of 0 and 1."""
    cards = {"CONTENT": ("mask, 1 inside", "")}
    _write_table(path, [("MASK", mask.astype(np.uint8), None)], cards)


def read_mask(path: str | Path) -> np.ndarray:
    """Read what `write_mask` wrote; raises `UserError` for anything else."""
    table, _ = _read_table(path, "a mask written by skyweave", ("MASK",))
    return np.array(table["MASK"], bool)


def write_columns(
    path: str | Path,
    maps: Mapping[str, np.ndarray],
    unit: str,
    cards: Mapping[str, tuple[Any, str]],
) -> None:
    """Write RING maps (npix,) in Galactic coordinates as the float32 columns of a HEALPix FITS.

    healpy and PySM read it. `cards` are keywords of the header, value and comment.
    """
    columns = [(name, np.asarray(values, np.float32), unit) for name, values in maps.items()]
    _write_table(path, columns, cards)


def read_columns(
    path: str | Path, names: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, tuple[Any, str]]]:
    """Maps by column, float32, and the header's own keywords, of what `write_columns` wrote.

    Only the columns `names` are held in memory, all if none is given. Raises `UserError` for
    anything else, and for a file without one of them.
    """
    table, header = _read_table(path, "a map written by skyweave", names or (), mapped=True)
    wanted = table.names if names is None else names
    maps = {name: np.array(table[name], np.float32) for name in wanted}
    own = {
        card.keyword: (card.value, card.comment)
        for card in header.cards
        if not card.keyword.startswith(_STRUCTURE)
    }
    return maps, own


def column_names(path: str | Path) -> list[str]:
    """Names of the columns of what `write_columns` wrote; raises `UserError` for anything else."""
    return list(_read_table(path, "a map written by skyweave", (), mapped=True)[0].names)


#: How keywords begin that say how the table is laid out.
_STRUCTURE = (
    *("XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "TFIELDS", "TTYPE", "TFORM", "TUNIT"),
    *("PIXTYPE", "ORDERING", "NSIDE", "FIRSTPIX", "LASTPIX", "INDXSCHM", "COORDSYS"),
)


def _write_table(
    path: str | Path,
    columns: Sequence[tuple[str, Any, str | None]],
    cards: Mapping[str, tuple[Any, str]],
) -> None:
    from astropy.io import fits

    kinds = {"float32": "E", "bool": "L", "uint8": "B"}
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name, kinds[values.dtype.name], unit=unit, array=values)
            for name, values, unit in columns
        ]
    )
    npix = columns[0][1].size
    table.header.update(
        {
            "PIXTYPE": ("HEALPIX", "HEALPix pixelisation"),
            "ORDERING": "RING",
            "NSIDE": round((npix / 12) ** 0.5),
            "FIRSTPIX": 0,
            "LASTPIX": npix - 1,
            "INDXSCHM": "IMPLICIT",
            "COORDSYS": ("G", "Galactic"),
            **cards,
        }
    )
    with atomic(path) as temporary:
        table.writeto(temporary, overwrite=True)


def _read_table(
    path: str | Path, what: str, names: Sequence[str], *, mapped: bool = False
) -> tuple[Any, Any]:
    """Table and header of a FITS file with columns `names`, read, or `mapped` to be."""
    from astropy.io import fits

    try:
        with fits.open(path, memmap=mapped) as hdus:
            table, header = hdus[1].data, hdus[1].header
            missing = [name for name in names if name not in table.names]
    except FileNotFoundError:
        raise UserError(path, what, "no file") from None
    except (
        *(OSError, IndexError, TypeError, AttributeError, ValueError, fits.VerifyError),
    ) as error:
        raise UserError(path, what, f"an unreadable file ({error})") from None
    if missing or "CONTENT" not in header:
        raise UserError(path, what, "another FITS file")
    return table, header
