"""What is known of observed patches before their signal: taper, beam, noise and spectra."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np

from skyweave.errors import UserError
from skyweave.estimators.wiener import FLOOR, Wiener
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb, rotate_to_qu
from skyweave.flat.taper import cosine_taper

#: Where the taper leaves less of the sky than this there are no data: divided by it, single
#: precision would show.
_LEAST_TAPER = 1e-3

#: Share of the patch's side by which the area reaches beyond its edges, where it is not periodic.
_BEYOND = 0.125

#: Where the beam leaves less than this of an amplitude it is not undone.
_LEAST_BEAM = 0.05


@dataclass(frozen=True)
class Observed:
    """Patches of Q and U (y, x) in µK that carry a taper, and the periodic area around them.

    `ell` are multipoles at which spectra and beam are given: `cl` holds C_ell (µK², and without
    unit for kk and tautau, rad² for alphaalpha) of ee, lensed_ee, lensed_bb and those of kk, tautau
    and alphaalpha that act, `foreground` that of E and of B of what else is on the sky, `beam` the
    window, `noise` N_ell of Q and of U. A `periodic` patch is its own area.
    """

    size_deg: float
    pixels: int
    taper_deg: float
    periodic: bool
    ell: np.ndarray
    cl: Mapping[str, np.ndarray]
    foreground: np.ndarray
    beam: np.ndarray
    noise: np.ndarray

    @property
    def grid(self) -> PatchGrid:
        """Geometry of the patch."""
        return PatchGrid(self.size_deg, self.pixels)

    @cached_property
    def area(self) -> PatchGrid:
        """The periodic area that the patch lies in the middle of, its pixels as large."""
        pixels = self.pixels + 2 * self._margin
        return PatchGrid(self.size_deg * pixels / self.pixels, pixels)

    @property
    def _margin(self) -> int:
        return 0 if self.periodic else 2 * int(_BEYOND * self.pixels / 2)

    @cached_property
    def taper(self) -> np.ndarray:
        """The taper (y, x) of the patch."""
        return cosine_taper(self.grid, self.taper_deg)

    def on_area(self, values: np.ndarray) -> np.ndarray:
        """Values at `ell` on the area's modes; at ell = 0 that of the longest wave."""
        ell = np.maximum(self.area.ell, self.area.ell_fundamental)
        return np.interp(ell, self.ell, values)

    def sky(self, q: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, ...]:
        """Maps of Q and of U (n, y, x) of the area, and modes of the CMB's Wiener-filtered E and B.

        The taper is divided out; where nothing is left of the sky, and around the patch, Q and U
        are what the Wiener filter expects there. The beam is undone as far as noise allows.
        """
        area, margin = self.area, self._margin
        seen = np.pad(self.taper > _LEAST_TAPER, margin)
        taper = np.where(seen, np.pad(self.taper, margin), 1.0)
        beam = self.on_area(self.beam)
        ee, bb = self._power
        expected = Wiener(area, ee, bb, beam, self.on_area(self.noise), seen)
        maps = np.empty((2, len(q), *seen.shape))
        filtered = np.empty((2, len(q), *area.ell.shape), complex)
        for index, one in enumerate(zip(q, u, strict=True)):
            data = np.stack([np.pad(np.asarray(map_, float), margin) for map_ in one]) / taper
            e, b = expected(*data)
            filtered[:, index] = e * self._of_cmb[0], b * self._of_cmb[1]
            unseen = inverse(np.stack(rotate_to_qu(e * beam, b * beam, area)), area)
            filled = np.where(seen, data, unseen)
            if self._has_beam:
                filled = inverse(forward(filled, area) * self._sharper, area)
            maps[:, index] = filled
        return *maps, *filtered

    def modes(self, q: np.ndarray, u: np.ndarray) -> dict[str, np.ndarray]:
        """Modes of "e" and "b" of maps of `sky`, the beam undone as far as it leaves anything."""
        e, b = rotate_to_eb(forward(q, self.area), forward(u, self.area), self.area)
        if not self._has_beam:
            return {"e": e, "b": b}
        sharper = np.where(self._told, 1 / self.kept, 0.0)
        return {"e": e * sharper, "b": b * sharper}

    @cached_property
    def totals(self) -> dict[str, np.ndarray]:
        """Power "ee" and "bb" of `modes` on the area's modes, with noise; inf where none is."""
        beam = np.where(self._told, self.on_area(self.beam), np.nan)
        noise = np.nan_to_num(self.on_area(self.noise) / beam**2, nan=np.inf)
        return {name: cl + noise for name, cl in zip(("ee", "bb"), self._power, strict=True)}

    @cached_property
    def _power(self) -> tuple[np.ndarray, np.ndarray]:
        """Power of E and of B of the sky on the area's modes."""
        ee, bb = (self.cl[f"lensed_{name}"] + self.foreground for name in ("ee", "bb"))
        return self.on_area(ee), self.on_area(bb)

    @cached_property
    def _of_cmb(self) -> list[np.ndarray]:
        """Shares of the CMB in the sky's E and B, on the area's modes: the rest is foregrounds."""
        own = [self.on_area(self.cl[f"lensed_{name}"]) for name in ("ee", "bb")]
        return [
            np.divide(cl, power, out=np.zeros_like(cl), where=power > 0)
            for cl, power in zip(own, self._power, strict=True)
        ]

    @property
    def lensed(self) -> bool:
        """Whether lensing acts on the sky."""
        return bool(np.any(self.cl["lensed_ee"] != self.cl["ee"]))

    @property
    def _has_beam(self) -> bool:
        return bool((self.beam < 1).any())

    @cached_property
    def _told(self) -> np.ndarray:
        """Modes of which the beam leaves something."""
        return self.on_area(self.beam) > _LEAST_BEAM

    @cached_property
    def kept(self) -> np.ndarray:
        """What is left of the sky's modes in maps of `sky`: 1 without a beam."""
        if not self._has_beam:
            return np.ones(self.area.ell.shape)
        return self.on_area(self.beam) * self._sharper

    @cached_property
    def _sharper(self) -> np.ndarray:
        """What undoes the beam as far as noise allows, on the area's modes."""
        beam = self.on_area(self.beam)
        noise, power = self.on_area(self.noise) + FLOOR, self._power[0]
        return beam * power / (beam**2 * power + noise)

    def patch(self, modes: np.ndarray) -> np.ndarray:
        """Tapered maps (n, y, x) of the patch from modes of the area."""
        return self._cut(inverse(modes, self.area)) * self.taper

    def tapered_e(self, modes: np.ndarray) -> np.ndarray:
        """E (n, y, x) of the tapered patch from modes of E of the area, which has no B."""
        return inverse(self.tapered_e_modes(modes), self.grid)

    def tapered_e_modes(self, modes: np.ndarray) -> np.ndarray:
        """As `tapered_e`, modes of the patch."""
        polarization = rotate_to_qu(modes, np.zeros_like(modes), self.area)
        q, u = (forward(self.patch(one), self.grid) for one in polarization)
        return rotate_to_eb(q, u, self.grid)[0]

    def _cut(self, maps: np.ndarray) -> np.ndarray:
        inside = slice(self._margin, self._margin + self.pixels)
        return maps[..., inside, inside]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` makes the same."""
        values = asdict(self)
        for name in ("ell", "foreground", "beam", "noise"):
            values[name] = values[name].tolist()
        return values | {"cl": {name: cl.tolist() for name, cl in self.cl.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_dict` gave; raises `UserError` for anything else."""
        try:
            given = {one.name: values[one.name] for one in fields(cls)}
            for name in ("ell", "foreground", "beam", "noise"):
                given[name] = np.array(given[name], float)
            given["cl"] = {name: np.array(cl, float) for name, cl in given["cl"].items()}
            return cls(**given)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError("estimates", "what the calibration wrote", error) from None
