"""Covariance of a channel's T, Q and U: spectra of the Gaussian field with the same two points."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config import Channel, Effects, Grid
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.flat.covariance import Covariance
from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.foregrounds import foreground_cl
from skyweave.simulation.instrument import beam_window
from skyweave.simulation.noise import hits_scale, noise_cl, read_hits
from skyweave.simulation.spectra import SpectraTable
from skyweave.simulation.theory import lensed
from skyweave.statistics.flat_spectra import CHUNK
from skyweave.statistics.tables import read_table, write_table

#: Auto- and cross-spectra of T, E and B that parity leaves.
SPECTRA = ("tt", "te", "ee", "bb")
#: Columns of the file.
COLUMNS = ("ell", *SPECTRA)

#: Most sets of parameters whose covariances are kept one by one.
CLASSES = 32

#: Share of the side over which maps without a taper get one before their power is measured.
_APODIZED = 1 / 4


def write_covariance(
    path: str | Path,
    spectra: Sequence[str | Path],
    *,
    grid: Grid,
    effects: Effects,
    channel: Channel | None,
    hfi: str | Path | None = None,
) -> None:
    """Write `covariance` of a simulated dataset, whose spectra are the tables of `spectra`.

    Where there are several, but no more than `CLASSES`, those of each stand behind their mean, in
    columns ``tt_0``, …, by the number of the table.
    """

    def found(tables: Sequence[SpectraTable]) -> pd.DataFrame:
        return covariance(tables, grid=grid, effects=effects, channel=channel, hfi=hfi)

    tables = [SpectraTable.read(table) for table in spectra]
    columns = [found(tables)]
    if 1 < len(tables) <= CLASSES:
        each = (found([table]).drop(columns="ell") for table in tables)
        columns += [own.add_suffix(f"_{number}") for number, own in enumerate(each)]
    write_table(path, pd.concat(columns, axis=1))


def read_covariance(path: str | Path) -> tuple[Covariance, list[Covariance]]:
    """The mean model of a file of spectra, and those of each set of parameters, if it has them."""
    table = read_table(path)
    if not set(COLUMNS) <= set(table):
        raise UserError(path, f"columns {', '.join(COLUMNS)}", ", ".join(map(str, table)))
    ell, count = table["ell"].to_numpy(float), (len(table.columns) - 1) // len(SPECTRA) - 1

    def model(ending: str) -> Covariance:
        return Covariance(ell, {name: table[name + ending].to_numpy(float) for name in SPECTRA})

    return model(""), [model(f"_{number}") for number in range(count)]


def covariance(
    tables: Sequence[SpectraTable],
    *,
    grid: Grid,
    effects: Effects,
    channel: Channel | None,
    hfi: str | Path | None = None,
) -> pd.DataFrame:
    """C_ell (µK² sr) of a channel's maps, without taper, at every ell up to the pixels' corners.

    Columns of `COLUMNS`. `tables` are the dataset's spectra, where there are several their mean;
    without a `channel` those of the primordial sky. A channel's are lensed as far as realizations
    are (not the share `effects.null_fraction`), with foregrounds, through the beam, with its noise,
    that of uneven hits at its mean. Not in them is what patchy reionization and rotation do to the
    sky, some per cent of B of lensing and less of T and E.
    """
    last = int(np.ceil(np.sqrt(2) * PatchGrid(grid.size_deg, grid.pixels).ell_nyquist))
    ell = np.arange(max(last, *(table.lmax for table in tables)) + 1)
    sky = {name: np.zeros(ell.size) for name in SPECTRA}
    for table in tables:
        for name, cl in _sky(table, effects, primordial=channel is None).items():
            sky[name][: cl.size] += cl / len(tables)
    if channel is not None:
        sky = _through(ell, sky, channel, grid, hfi)
    return pd.DataFrame({"ell": ell} | sky)


def _sky(table: SpectraTable, effects: Effects, *, primordial: bool) -> dict[str, np.ndarray]:
    """C_ell of a realization's sky in front of the instrument, mean of null ones and others."""
    cl = {name: table.cl[name] for name in SPECTRA}
    null = effects.null_fraction
    if primordial or not effects.lensing or null == 1:
        return cl
    if all(f"lensed_{name}" in table.cl for name in SPECTRA):
        seen = {name: table.cl[f"lensed_{name}"] for name in SPECTRA}
    else:
        seen = lensed(table.cl)
    return {name: null * cl[name] + (1 - null) * seen[name] for name in SPECTRA}


def _through(
    ell: np.ndarray,
    sky: dict[str, np.ndarray],
    channel: Channel,
    grid: Grid,
    hfi: str | Path | None,
) -> dict[str, np.ndarray]:
    """C_ell of the sky with a channel's foregrounds, beam and noise."""
    window = beam_window(channel, ell, hfi)
    beam = 1.0 if window is None else window**2
    foreground = foreground_cl(ell, channel.foreground_dl_80, channel.foreground_slope)
    level = channel.noise_uk_arcmin * np.sqrt(_noise_of_hits(channel, grid))
    noise = noise_cl(ell, level, channel.knee_ell, channel.knee_slope)
    in_q = noise_cl(ell, np.sqrt(2) * level, channel.knee_ell_pol, channel.knee_slope_pol)
    return {
        "tt": sky["tt"] * beam + noise,
        "te": sky["te"] * beam,
        "ee": (sky["ee"] + foreground) * beam + in_q,
        "bb": (sky["bb"] + foreground) * beam + in_q,
    }


def _noise_of_hits(channel: Channel, grid: Grid) -> float:
    """Mean noise power over that at the mean number of hits."""
    if channel.hits_path is None:
        return 1.0
    pixels = grid.pixels + (2 * grid.margin if grid.crops > 1 else 0)
    return float(np.mean(hits_scale(read_hits(channel.hits_path, pixels)) ** 2))


def measure_covariance(
    path: str | Path, shards: Sequence[str | Path], split: str | Path, *, channel: str
) -> None:
    """Write C_ell as `covariance` has them, measured in the maps of the training set.

    Mean band powers of a channel's T, Q and U, as far as there are both of Q and U, divided by the
    mean square of the taper that the maps carry (with none, by that of one they get, a quarter
    of their side wide, lest the largest waves leak from edge to edge). ell² C_ell is linear between
    the bands, which keeps the covariance of T and E positive; C_ell is even below the first and
    beyond the last. A spectrum of which there are no maps is 0. Under a taper E leaks into B, most
    at the lowest multipoles, and steep spectra by some per cent from there to the highest.
    Raises `UserError` where there is neither T nor both of Q and U.
    """
    maps = ShardSet(shards)
    stokes = [s for s in "tqu" if f"{s}_{channel}" in maps.fields]
    if not {"q", "u"} <= set(stokes):
        stokes = [s for s in stokes if s == "t"]
    if not stokes:
        expected = f"t_{channel}, or both q_{channel} and u_{channel}"
        raise UserError(shards[0], expected, ", ".join(maps.fields))
    grid, train = maps.grid, members(read_split(split), "train")
    corner = np.sqrt(2) * grid.ell_nyquist
    bins = Bins.linear(grid.ell_fundamental / 2, corner, grid.ell_fundamental)
    weight, kept = _taper(maps, grid)
    # Under a taper what fields are on average, less than any wave, would be in the lowest bands.
    carried = isinstance(weight, float)
    means = {
        s: 0.0 if carried else maps.read(f"{s}_{channel}", train).mean(dtype=float) for s in stokes
    }
    bands = {name: np.zeros(bins.count) for name in SPECTRA}
    for start in range(0, len(train), CHUNK):
        some = train[start : start + CHUNK]
        read = {s: maps.read(f"{s}_{channel}", some).astype(float) for s in stokes}
        seen = {s: (values - means[s]) * weight for s, values in read.items()}
        for name, found in _powers(seen, grid, bins).items():
            bands[name] += found.sum(axis=0) / len(train) / kept
    maps.close()
    write_table(path, _interpolated(bins.centres(grid), bands, int(np.ceil(corner))))


def _taper(maps: ShardSet, grid: PatchGrid) -> tuple[np.ndarray | float, float]:
    """What the maps are still to be multiplied by, and the mean square of their taper then."""
    carried = maps.provenance["settings"]["effects"]["taper_deg"]
    taper = cosine_taper(grid, carried or _APODIZED * grid.size_deg)
    return (1.0 if carried else taper), float(np.mean(taper**2))


def _powers(seen: dict[str, np.ndarray], grid: PatchGrid, bins: Bins) -> dict[str, np.ndarray]:
    """Band powers (n, bands) of those of `SPECTRA` that maps (n, y, x) of t, q and u have."""
    modes = {s: forward(maps, grid) for s, maps in seen.items()}
    if "q" in modes:
        modes["e"], modes["b"] = rotate_to_eb(modes["q"], modes["u"], grid)
    return {
        name: bin_power(power(modes[name[0]], modes[name[1]], grid), grid, bins)
        for name in SPECTRA
        if set(name) <= set(modes)
    }


def _interpolated(centres: np.ndarray, bands: dict[str, np.ndarray], last: int) -> pd.DataFrame:
    ell = np.arange(last + 1)
    inside = np.clip(ell, centres[0], centres[-1])
    return pd.DataFrame(
        {"ell": ell}
        | {
            name: np.interp(inside, centres, centres**2 * band) / inside**2
            for name, band in bands.items()
        }
    )
