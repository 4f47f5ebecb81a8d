"""A trained network on a HEALPix map: tile by tile, and one map again."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skyweave.config import ESTIMATES
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.sky.harmonic import analyse, fill_bad, transfer
from skyweave.sky.healpix import STOKES_Q, STOKES_U, read_map
from skyweave.sky.patches import cut, footprint_window
from skyweave.sky.places import mask_patch
from skyweave.sky.projection import iau_to_x_axis
from skyweave.sky.skymap import SkyMap
from skyweave.sky.tiles import Mosaic, layout
from skyweave.sky.units import to_uk_cmb
from skyweave.tasks.prediction import checked_inputs

if TYPE_CHECKING:
    from skyweave.networks.card import Card, TrainedNetwork

#: Least share of a tile, by its taper squared, that the map has seen.
_LEAST_SEEN = 0.95
#: Least taper squared that is left, on average over the tiles that a pixel lies in.
_LEAST_WEIGHT = 0.25
#: Tiles that are in memory at a time.
_TILES = 256


def predict_sky(
    network: "TrainedNetwork",
    path: str | Path,
    taper_deg: float,
    unit: str | None = None,
    convention: str | None = None,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """Outputs (npix,) float32, RING, of a HEALPix file of Q and U; NaN where nothing is known.

    Tiles of the network's size, half a tile apart, cover what the map has seen. With the taper w
    of the training set and an output s of a tile, a pixel is Σ w s / Σ w², weighted by the
    mosaic's windows; what is not seen within a tile is filled from its surroundings. Predicted
    deviations are added as those of one and the same error. The map's pixels' window is undone, its
    beam is not: it is to be the training set's. Raises `UserError` for other inputs than Q and U of
    one channel, for pixels that are too coarse, and where no tile is seen.
    """
    from skyweave.networks.card import predict

    card = network.card
    channel = _channel(path, card)
    sky = _read(path, unit, convention)
    assert sky.q is not None
    assert sky.u is not None
    grid = PatchGrid(card.size_deg, card.pixels)
    lmax = _band_limit(path, sky.nside, grid)
    taper = cosine_taper(grid, taper_deg)
    places = _seen_tiles(path, ~sky.bad, grid, taper)
    window = footprint_window(sky.nside, places, grid.size_deg, grid.size_deg / 4)
    alm = analyse(np.stack([fill_bad(values) * window for values in (sky.q, sky.u)]), lmax, 2)
    factor = transfer(lmax, 0.0, 0.0, sky.window_nside)
    names: list[str] = []
    mosaic: Mosaic | None = None
    for start in range(0, len(places), _TILES):
        part = places.iloc[start : start + _TILES]
        q, u = iau_to_x_axis(*cut(alm, factor, part, grid, spin=2))
        maps = {f"q_{channel}": q * taper, f"u_{channel}": u * taper}
        found = predict(network, checked_inputs(network, path, maps, taper_deg))
        names = list(found)
        if mosaic is None:
            count = len(names) + 1
            mosaic = Mosaic(grid, grid.size_deg / 2, sky.nside, count, threads=threads)
        weights = np.broadcast_to(taper**2, q.shape)
        mosaic.add(np.stack([*(taper * found[name] for name in names), weights]), part)
    assert mosaic is not None
    *totals, weight = mosaic.mean(partial=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        known = ~sky.bad & (weight >= _LEAST_WEIGHT)
        fields = [np.where(known, total / weight, np.nan) for total in totals]
    return {name: values.astype(np.float32) for name, values in zip(names, fields, strict=True)}


def _channel(path: str | Path, card: "Card") -> str:
    """The one channel whose Q and U, or their E and B, the network takes."""
    observed = [name for name in card.inputs if name not in ESTIMATES]
    channels = {name.partition("_")[2] for name in observed}
    stokes = {name.partition("_")[0] for name in observed}
    if len(observed) < len(card.inputs) and "estimates" in card.data:
        channels.add(card.data["estimates"]["channel"])
    if len(channels) != 1 or not stokes <= set("queb"):
        expected = "for a HEALPix map a network of Q and U of one channel"
        raise UserError(path, expected, f"one of {', '.join(card.inputs)}")
    return channels.pop()


def _read(path: str | Path, unit: str | None, convention: str | None) -> SkyMap:
    """Q and U of a HEALPix file, µK_CMB, COSMO."""
    header = _header(path)
    columns = {
        str(header[f"TTYPE{number}"]).strip().upper(): str(header.get(f"TUNIT{number}", "")).strip()
        for number in range(1, header["TFIELDS"] + 1)
    }
    name = next((one for one in STOKES_Q if one in columns), None)
    if name is None or not set(STOKES_U) & set(columns):
        expected = f"columns of Q ({', '.join(STOKES_Q)}) and U"
        raise UserError(path, expected, ", ".join(columns))
    if convention not in (None, "iau", "cosmo"):
        raise UserError(path, "for a HEALPix map the convention iau or cosmo", repr(convention))
    unit = unit or columns[name] or "uK_CMB"
    where = f"{path}, column {name}"
    if to_uk_cmb(unit, 100.0, where) != to_uk_cmb(unit, 300.0, where):
        raise UserError(where, "a thermodynamic temperature, such as K_CMB or uK", repr(unit))
    finest = 2**13
    sky = read_map(path, finest, 100.0, column=name, unit=unit, polarization=True)
    own = str(header.get("POLCCONV", "COSMO")).strip().lower()
    u = sky.u if sky.u is None or convention in (None, own) else -sky.u
    window_nside = sky.window_nside if header.get("PIXWIN", 1) else None
    return SkyMap(
        intensity=sky.intensity,
        variance=None,
        bad=sky.bad,
        frequency_ghz=sky.frequency_ghz,
        description=sky.description,
        window_nside=window_nside,
        q=sky.q,
        u=u,
    )


def _header(path: str | Path) -> Mapping[str, Any]:
    """Header of the HEALPix table of a FITS file that has one, behind it the file's first."""
    from astropy.io import fits

    with fits.open(path) as hdus:
        table = next(hdu.header for hdu in hdus if "TFIELDS" in hdu.header)
        return ChainMap(dict(table), dict(hdus[0].header))


def _band_limit(path: str | Path, nside: int, grid: PatchGrid) -> int:
    """Highest multipole to cut tiles at: that of the tiles' corners in Fourier space."""
    if 3 * nside - 1 < grid.ell_nyquist:
        least = 2 ** int(np.ceil(np.log2((grid.ell_nyquist + 1) / 3)))
        expected = f"an nside of at least {least} for pixels of {grid.pixel_arcmin:.4g} arcmin"
        raise UserError(path, expected, nside)
    return int(min(3 * nside - 1, np.ceil(np.sqrt(2) * grid.ell_nyquist)))


def _seen_tiles(
    path: str | Path, seen: np.ndarray, grid: PatchGrid, taper: np.ndarray
) -> pd.DataFrame:
    """The tiles of the sky's layout that the map has seen."""
    tiles = layout(grid.size_deg, grid.size_deg / 2)
    weight = taper**2 / np.sum(taper**2)
    rows: Sequence[bool] = [
        bool(np.sum(weight * mask_patch(seen, lon, lat, grid)) >= _LEAST_SEEN)
        for lon, lat in zip(tiles["lon"], tiles["lat"], strict=True)
    ]
    if not any(rows):
        expected = f"a region as large as a patch of {grid.size_deg:g} deg"
        raise UserError(path, expected, f"{seen.mean():.3g} of the sky seen, in smaller parts")
    return tiles[rows].reset_index(drop=True)
