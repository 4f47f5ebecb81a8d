"""A stationary Gaussian model of T, Q and U on a flat sky: its spectra, its modes' covariances."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotation

_SPECTRA = ("tt", "te", "ee", "bb")
_MADE_OF = {"t": {"tt"}, "q": {"ee", "bb"}, "u": {"ee", "bb"}}


@dataclass(frozen=True)
class Covariance:
    """A stationary Gaussian model of one channel's T, Q and U, beam and noise and all.

    `cl` holds C_ell (µK² sr) at multipoles `ell`, rising, of those of tt, te, ee and bb that its
    fields need; te is 0 if not given. Between them it is linear, beyond the last it stays.
    """

    ell: np.ndarray
    cl: Mapping[str, np.ndarray]

    def on_modes(self, grid: PatchGrid, fields: Sequence[str], floor: float = 0.0) -> np.ndarray:
        """Spectra and cross spectra (f, f, pixels, pixels // 2 + 1) of `fields` on the modes.

        Fields are named `t`, `q`, `u` or as in `t_obs`. White power `floor` is added to each.
        The mean has the power of all waves longer than the area, at least that of its longest:
        patches of a sky, lensed periodic ones too, have means. Raises `UserError` for other fields
        and missing spectra.
        """
        stokes = [field.partition("_")[0] for field in fields]
        if not stokes or not set(stokes) <= set(_MADE_OF) or len(set(stokes)) < len(stokes):
            raise UserError("fields", "some of t, q and u of one channel", ", ".join(fields))
        needed = set().union(*(_MADE_OF[name] for name in stokes))
        if missing := sorted(needed - set(self.cl)):
            raise UserError("covariance", f"spectra {', '.join(sorted(needed))}", f"no {missing}")
        power = {name: self._on_modes(name, grid) for name in _SPECTRA if name in self.cl}
        tt, ee = (power.get(name, np.zeros(grid.ell.shape)) for name in ("tt", "ee"))
        limit = np.sqrt(tt * ee)
        te = np.clip(power.get("te", np.zeros(grid.ell.shape)), -limit, limit)
        bb = power.get("bb", np.zeros(grid.ell.shape))
        cosine, sine = rotation(grid)
        pairs = {
            "tt": tt,
            "tq": te * cosine,
            "tu": te * sine,
            "qq": ee * cosine**2 + bb * sine**2,
            "qu": (ee - bb) * cosine * sine,
            "uu": ee * sine**2 + bb * cosine**2,
        }
        names = [["".join(sorted(a + b, key="tqu".index)) for b in stokes] for a in stokes]
        matrix = np.array([[pairs[name] for name in row] for row in names])
        for index in range(len(stokes)):
            matrix[index, index] += floor
        return matrix

    def _on_modes(self, name: str, grid: PatchGrid) -> np.ndarray:
        cl, longest = self.cl[name], grid.ell_fundamental
        values = np.interp(np.maximum(grid.ell, longest), self.ell, cl)
        # The mean stands for a disc of modes as large as the area of one.
        longer = np.linspace(0, longest / np.sqrt(np.pi), 257)
        within = longer * np.interp(longer, self.ell, cl)
        mean = grid.area_sr * np.trapezoid(within, longer) / (2 * np.pi)
        if abs(mean) > abs(values[0, 0]) and name != "te":
            values[0, 0] = mean
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` makes the same to 7 digits."""
        return {
            "ell": _rounded(self.ell),
            "cl": {name: _rounded(values) for name, values in self.cl.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_dict` gave; raises `UserError` for anything else."""
        try:
            ell = np.array(values["ell"], float)
            cl = {name: np.array(one, float) for name, one in values["cl"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError("covariance", "multipoles `ell` and spectra `cl`", error) from None
        alike = all(one.shape == ell.shape and np.isfinite(one).all() for one in cl.values())
        if ell.ndim != 1 or not ell.size or not alike or set(cl) - set(_SPECTRA):
            raise UserError("covariance", f"spectra of {', '.join(_SPECTRA)} at `ell`", list(cl))
        return cls(ell, cl)


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.7g}") for value in np.asarray(values, float)]
