"""Patches cut from a map of the sky at a low and a high resolution."""

import numpy as np
import pandas as pd

from skyweave.config import Patches
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.sky.harmonic import analyse, band_limit, evaluate, fill_bad, transfer
from skyweave.sky.places import choose_places, mask_patch
from skyweave.sky.projection import patch_directions, to_patch_frame, to_plane
from skyweave.sky.skymap import SkyMap

__all__ = ["choose_places", "cut", "extract", "extract_qu", "footprint_window"]

#: The map counts as far as this many low-resolution beams from a patch and fades over as many.
_MARGIN_BEAMS = 2.5
#: Points evaluated at once.
_MOST_POINTS = 4_000_000


def extract(
    sky_map: SkyMap,
    mask: np.ndarray,
    places: pd.DataFrame,
    patches: Patches,
    fwhm_arcmin: float,
) -> dict[str, np.ndarray]:
    """Patches (n, y, x) float32 at the places' centres: `high`, `low` in µK_CMB, `mask` 0 or 1.

    `high` and `low` have Gaussian beams of `patches.high_arcmin` and `low_arcmin`; the map's own,
    `fwhm_arcmin`, and its pixels' window are undone. Rows follow `places` (columns lon, lat in
    degrees); y runs north at the centre and x against longitude. `mask` is that of the nearest
    HEALPix pixel. Raises `UserError` for a target beam below the map's.
    """
    grid = PatchGrid(patches.size_deg, patches.pixels)
    maps = sky_map.intensity[None]
    fields = _beams(maps, sky_map, places, patches, fwhm_arcmin, spin=0)
    inside = [mask_patch(mask, *centre, grid) for centre in _centres(places)]
    return {
        "high": fields["high"][0],
        "low": fields["low"][0],
        "mask": np.array(inside, dtype=np.float32),
    }


def extract_qu(
    sky_map: SkyMap, places: pd.DataFrame, patches: Patches, fwhm_arcmin: float
) -> dict[str, np.ndarray]:
    """Patches (n, y, x) float32 of Q and U, µK_CMB: `q_high`, `u_high`, `q_low`, `u_low`.

    IAU convention about the patch's own north (+y); smoothed as spin 2, geometry as in `extract`.
    Raises `UserError` where the map has no polarization.
    """
    if sky_map.q is None or sky_map.u is None:
        raise UserError(sky_map.description, "a map with Q and U", "intensity only")
    maps = np.stack([sky_map.q, sky_map.u])
    fields = _beams(maps, sky_map, places, patches, fwhm_arcmin, spin=2)
    return {
        f"{name}_{beam}": fields[beam][i] for beam in ("high", "low") for i, name in enumerate("qu")
    }


def footprint_window(
    nside: int, places: pd.DataFrame, size_deg: float, margin_deg: float
) -> np.ndarray:
    """RING map (npix,): 1 up to `margin_deg` from any patch, a cosine down to 0 at twice that.

    The Galactic plane is a thousand times brighter than the sky at high latitude, and cut at a
    band limit it rings over all of it (SFD at nside 512 and 12′: 5 µK rms above 50°).
    """
    import healpy

    half = np.radians(size_deg) / 2
    margin = np.radians(margin_deg)
    outside = np.full(12 * nside**2, np.inf, np.float32)
    reach = 2 * np.arcsin(min(half / np.sqrt(2), 1)) + 2.1 * margin
    for lon, lat in _centres(places):
        near = healpy.query_disc(nside, healpy.ang2vec(lon, lat, lonlat=True), min(reach, np.pi))
        x, y = to_plane(lon, lat, *healpy.pix2ang(nside, near, lonlat=True))
        beyond = np.hypot(np.maximum(np.abs(x) - half, 0), np.maximum(np.abs(y) - half, 0))
        outside[near] = np.minimum(outside[near], beyond)
    return (1 + np.cos(np.pi * np.clip(outside / margin - 1, 0, 1))) / 2


def _beams(
    maps: np.ndarray,
    sky_map: SkyMap,
    places: pd.DataFrame,
    patches: Patches,
    fwhm_arcmin: float,
    spin: int,
) -> dict[str, np.ndarray]:
    """Fields (components, n, y, x) float32 with the beams `high` and `low`."""
    nside, window_nside = sky_map.nside, sky_map.window_nside
    targets = {"high": patches.high_arcmin, "low": patches.low_arcmin}
    lmax = band_limit(nside, min(targets.values()), window_nside)
    factors = {
        name: transfer(lmax, fwhm_arcmin, target, window_nside, sky_map.points_nside)
        for name, target in targets.items()
    }
    margin = _MARGIN_BEAMS * max(targets.values()) / 60
    window = footprint_window(nside, places, patches.size_deg, margin)
    alm = analyse(np.stack([fill_bad(values) * window for values in maps]), lmax, spin)
    del window
    grid = PatchGrid(patches.size_deg, patches.pixels)
    return {name: cut(alm, factor, places, grid, spin) for name, factor in factors.items()}


def cut(
    alm: np.ndarray, factor: np.ndarray, places: pd.DataFrame, grid: PatchGrid, spin: int = 0
) -> np.ndarray:
    """Fields (components, n, y, x) float32 of alm (components, modes) times `factor` (lmax+1,).

    Evaluated at the pixels of patches at the places' centres (columns lon, lat in degrees); with
    `spin` 2 Q and U of E and B, IAU about each patch's own north.
    """
    centres = _centres(places)
    fields = np.empty((len(alm), len(centres), grid.pixels, grid.pixels), np.float32)
    step = max(_MOST_POINTS // grid.pixels**2, 1)
    for start in range(0, len(centres), step):
        part = centres[start : start + step]
        points = [patch_directions(lon, lat, grid) for lon, lat in part]
        lon, lat = np.stack([lon for lon, _ in points]), np.stack([lat for _, lat in points])
        values = evaluate(alm, factor, lon, lat, spin).reshape(len(alm), *lon.shape)
        if spin == 2:
            centre = np.array(part).T[:, :, None, None]
            values = np.stack(to_patch_frame(values[0], values[1], lon, lat, centre[0], centre[1]))
        fields[:, start : start + len(part)] = values
    return fields


def _centres(places: pd.DataFrame) -> list[tuple[float, float]]:
    return list(zip(places["lon"].astype(float), places["lat"].astype(float), strict=True))
