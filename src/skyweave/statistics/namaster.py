"""Spectra of masked patches, decoupled by NaMaster (Alonso, Sanchez & Slosar 2019, 1809.09603)."""

from hashlib import blake2b

import numpy as np
import pymaster as nmt

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, bin_power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.masked import expected_power


class _Workspace:
    """NaMaster's workspace of one mask, and its matrix of band powers, (nbins, nbins)."""

    def __init__(self, field: nmt.NmtFieldFlat, bands: nmt.NmtBinFlat, count: int) -> None:
        self.workspace = nmt.NmtWorkspaceFlat()
        self.workspace.compute_coupling_matrix(field, field, bands)
        # NaMaster gives the inverse only, by its action.
        columns = [self.workspace.decouple_cell(unit[None])[0] for unit in np.eye(count)]
        self.matrix = np.linalg.inv(np.stack(columns, axis=1))


class Workspaces:
    """NaMaster's coupling matrices on one grid, bins and beam: one for each distinct mask.

    `beam` is (ell, b_ell) of the maps, and is divided out. A matrix costs 0.3 s at 128 x 128 pixels
    and grows as the square of the number of pixels. Raises `UserError` for bands without modes.
    """

    def __init__(
        self, grid: PatchGrid, bins: Bins, beam: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        if not (bins.modes(grid) > 0).all():
            raise UserError("bins", "a mode in each band", bins.edges)
        self.grid, self.bins = grid, bins
        self._bands = nmt.NmtBinFlat(np.array(bins.edges[:-1]), np.array(bins.edges[1:]))
        self._beam = None if beam is None else np.array(beam, float)
        self._known: dict[bytes, _Workspace] = {}

    def __len__(self) -> int:
        return len(self._known)

    def pseudo(self, first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Band powers (nbins,) of mask times map, for two maps (y, x)."""
        one = self._field(first, mask)
        two = one if second is first else self._field(second, mask)
        return nmt.compute_coupled_cell_flat(one, two, self._bands)[0]

    def decouple(self, pseudo: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The spectrum (nbins,) that the band powers (nbins,) come from."""
        return self._workspace(mask).workspace.decouple_cell(pseudo[None])[0]

    def couple(self, cl: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The band powers (nbins,) of mask times map that a spectrum (nbins,) causes."""
        return self._workspace(mask).matrix @ cl

    def _workspace(self, mask: np.ndarray) -> _Workspace:
        key = blake2b(mask.tobytes(), digest_size=16).digest()
        if key not in self._known:
            field = self._field(np.zeros_like(mask), mask)
            self._known[key] = _Workspace(field, self._bands, self.bins.count)
        return self._known[key]

    def _field(self, values: np.ndarray, mask: np.ndarray) -> nmt.NmtFieldFlat:
        """NaMaster multiplies by the mask, and subtracts nothing."""
        side = np.deg2rad(self.grid.size_deg)
        return nmt.NmtFieldFlat(side, side, mask, [values], beam=self._beam)


def spectra(
    maps: np.ndarray,
    masks: np.ndarray,
    workspaces: Workspaces,
    *,
    others: np.ndarray | None = None,
    remove_mean: bool = True,
) -> np.ndarray:
    """Decoupled spectra C_ell (n, nbins) of maps (n, y, x) under weights `masks`.

    `masks` is (y, x) or (n, y, x); what lies under zero weight may be anything. Each map loses
    its weighted mean first (`remove_mean`), which would leak through the mask into every band.
    With `others` (n, y, x), cross-spectra. Raises `UserError` for shapes that do not fit, negative
    or empty masks, and values under the mask that are not finite.
    """
    grid = workspaces.grid
    for values in (maps, maps if others is None else others):
        if values.shape != (len(maps), grid.pixels, grid.pixels):
            raise UserError("maps", f"shape (n, {grid.pixels}, {grid.pixels})", values.shape)
    masks = np.broadcast_to(np.asarray(masks, float), maps.shape)
    out = np.empty((len(maps), workspaces.bins.count))
    for index, weight in enumerate(masks):
        mask = np.ascontiguousarray(weight)
        first = _prepared(maps[index], mask, index, remove_mean)
        second = first if others is None else _prepared(others[index], mask, index, remove_mean)
        out[index] = workspaces.decouple(workspaces.pseudo(first, second, mask), mask)
    return out


def expected_spectrum(
    cl: np.ndarray, mask: np.ndarray, workspaces: Workspaces, *, remove_mean: bool = True
) -> np.ndarray:
    """What `spectra` finds on average (nbins,) in periodic fields of spectrum `cl` on the modes.

    Exact on the pixels (`flat.masked`). It differs from the band average of `cl` where `cl` bends
    within a band.
    """
    grid = workspaces.grid
    pseudo = expected_power(cl, mask, grid, remove_mean=remove_mean)
    return workspaces.decouple(bin_power(pseudo, grid, workspaces.bins), mask)


def apodized(mask: np.ndarray, grid: PatchGrid, width_deg: float) -> np.ndarray:
    """A mask (y, x) of zeros and ones that rises over `width_deg` from its holes (C1 apodization).

    The patch's own edge is left to a taper. A width of 0 leaves the mask as it is.
    """
    mask = np.asarray(mask, float)
    if width_deg == 0 or mask.all():
        return mask
    side = np.deg2rad(grid.size_deg)
    return nmt.mask_apodization_flat(mask, side, side, width_deg, apotype="C1")


def _prepared(values: np.ndarray, mask: np.ndarray, index: int, remove_mean: bool) -> np.ndarray:
    """The map with zeros under zero weight, and without its weighted mean."""
    if not (mask >= 0).all() or not mask.any():
        raise UserError(f"mask {index}", "weights from 0, not all 0", "others")
    values = np.where(mask > 0, values, 0.0)
    if not np.isfinite(values).all():
        raise UserError(f"map {index}", "finite values under the mask", "others")
    if not remove_mean:
        return values
    return np.where(mask > 0, values - np.average(values, weights=mask), 0.0)
