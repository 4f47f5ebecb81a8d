"""Spectra of masked full skies, decoupled by NaMaster (Alonso, Sanchez & Slosar 2019)."""

from functools import cached_property

import numpy as np
import pymaster as nmt

from skyweave.errors import UserError

#: Width over which a mask rises from its edge, degrees, and the nside that this is done at.
RISE_DEG, _RISE_NSIDE = 2.0, 128

#: Pixels that are interpolated at a time.
_STEP = 1 << 20


def apodized(mask: np.ndarray, nside: int) -> np.ndarray:
    """Weights (npix,) at `nside` of a RING mask of zeros and ones: 0 outside, rising inside (C1).

    Raises `UserError` where nothing of the mask is left.
    """
    import healpy

    given = healpy.get_nside(mask)
    coarse, inside = (
        # What is not wholly inside is outside.
        np.floor(healpy.ud_grade(np.asarray(mask, float), size) + 1e-6)
        for size in (min(_RISE_NSIDE, nside), min(given, nside))
    )
    weight = nmt.mask_apodization(coarse, RISE_DEG, apotype="C1")
    fine = np.empty(12 * nside**2)
    for first in range(0, fine.size, _STEP):
        pixels = np.arange(first, min(first + _STEP, fine.size))
        where = healpy.pix2ang(nside, pixels)
        parents = healpy.ang2pix(min(given, nside), *where)
        # A pixel next to the edge is interpolated from both of its sides.
        values = np.clip(healpy.get_interp_val(weight, *where), 0, 1)
        fine[pixels] = np.where(inside[parents] > 0, values, 0)
    if not fine.any():
        raise UserError("mask", f"regions wider than {2 * RISE_DEG:g} degrees", "none")
    return fine


class SkySpectra:
    """Decoupled spectra of T, and of Q and U, under one weight (npix,), in bands up to `lmax`.

    The maps' beam is not divided out. The last band gains from waves beyond it (5 % where C_ell
    falls as ell^-2). Raises `UserError` for an `lmax` above 3 nside - 1.
    """

    def __init__(self, weight: np.ndarray, lmax: int, width: int) -> None:
        import healpy

        nside = healpy.npix2nside(len(weight))
        if not 2 < lmax <= 3 * nside - 1:
            raise UserError("lmax", f"3 to {3 * nside - 1}", lmax)
        self.weight, self.lmax = weight, lmax
        self._bands = nmt.NmtBin.from_lmax_linear(lmax, width)
        self._known: dict[int, nmt.NmtWorkspace] = {}

    @cached_property
    def ell(self) -> np.ndarray:
        """Mean multipole of each band."""
        return self._bands.get_effective_ells()

    def tt(self, one: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
        """Spectrum (nbins,) of a map (npix,), or of two."""
        return self._cl([one], None if other is None else [other])[0]

    def eb(self, one: np.ndarray, other: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """EE and BB (nbins,) of Q and U (2, npix), COSMO, or of two such."""
        found = self._cl(list(one), None if other is None else list(other))
        return found[0], found[3]

    def _cl(self, one: list[np.ndarray], other: list[np.ndarray] | None) -> np.ndarray:
        first = self._field(one)
        second = first if other is None else self._field(other)
        spin = len(one) - 1
        if spin not in self._known:
            self._known[spin] = nmt.NmtWorkspace.from_fields(first, second, self._bands)
        return self._known[spin].decouple_cell(nmt.compute_coupled_cell(first, second))

    def _field(self, maps: list[np.ndarray]) -> nmt.NmtField:
        filled = [np.where(self.weight > 0, values, 0).astype(float) for values in maps]
        if not all(np.isfinite(values).all() for values in filled):
            raise UserError("map", "finite values inside the mask", "others")
        return nmt.NmtField(
            self.weight, filled, n_iter=1, lmax=self.lmax, lmax_mask=self.lmax, lite=True
        )
