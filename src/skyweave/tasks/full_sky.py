"""The whole sky with small scales: cut in tiles, given to the network, and put together again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from skyweave.config import FullSky, Patches
from skyweave.data.scaling import evened
from skyweave.errors import UserError
from skyweave.files import atomic, sha256, versions
from skyweave.flat.grid import PatchGrid
from skyweave.flat.mosaic import join, resample, smooth, sub_patches
from skyweave.sky.harmonic import analyse, band_limit, fill_bad, transfer
from skyweave.sky.patches import cut
from skyweave.sky.polarization import from_file, from_template
from skyweave.sky.skymap import SkyMap, column_names, read_columns, read_mask, write_columns
from skyweave.sky.tiles import Mosaic, layout, tiles_at
from skyweave.statistics.seams import seam_verdict
from skyweave.statistics.sky_spectra import SkySpectra, apodized
from skyweave.statistics.small_scale_scores import beam_multipole
from skyweave.statistics.verdicts import verdict
from skyweave.tasks.foregrounds import SmallScales
from skyweave.tasks.sky import beam_of

if TYPE_CHECKING:
    from skyweave.networks.card import Card

#: Columns of the maps, as healpy and PySM call them.
COLUMNS = ("TEMPERATURE", "Q_POLARISATION", "U_POLARISATION")

#: Scales of the second stage are so many times smaller.
FINER = 4

#: How far BB/EE of the small scales may be from what was asked for.
_RATIO_ERROR = 0.1

#: Pixels that a tile is seen beyond each of its edges: more than the network's reach (its widest
#: path sees 22 pixels), and a multiple of 4.
MARGIN = 24

#: Tiles that the network is given at once.
_TILES = 8


def write_large_scales(
    map_path: str | Path,
    template: str | Path | None,
    *,
    tiles: str | Path,
    large: str | Path,
    high: str | Path,
    patches: Patches,
    full_sky: FullSky,
    fwhm_arcmin: float | None,
    dataset: str,
    truth: bool = False,
) -> None:
    """Cut the sky at low resolution in tiles; write them, and maps of it at both resolutions.

    `tiles` gets T, and Q and U where polarization is wanted (n, y, x), at low resolution and with
    `MARGIN`, and with `truth` T at high resolution, without.
    `large` is the sky at low resolution, T or T, Q, U, and `high` the map itself, T.
    """
    import healpy

    sky = SkyMap.read(map_path)
    fwhm_arcmin = beam_of(sky, fwhm_arcmin, dataset)
    low_arcmin, high_arcmin, nside = patches.low_arcmin, patches.high_arcmin, full_sky.nside
    grid = PatchGrid(patches.size_deg, patches.pixels)
    places = layout(patches.size_deg, full_sky.overlap_deg)
    lmax = band_limit(sky.nside, high_arcmin, sky.window_nside)
    factors = {
        name: transfer(lmax, fwhm_arcmin, target, sky.window_nside, sky.points_nside)
        for name, target in (("low", low_arcmin), ("high", high_arcmin))
    }
    alm = analyse(fill_bad(sky.intensity)[None], lmax)
    cards = _cards(sky, map_path)
    maps = {
        name: healpy.alm2map(healpy.almxfl(alm[0], factor), nside, lmax)
        for name, factor in factors.items()
    }
    wider = _wider(grid)
    fields = {"t_low": cut(alm, factors["low"], places, wider)[0]}
    if truth:
        fields["t_high"] = cut(alm, factors["high"], places, grid)[0]
    write_columns(high, {COLUMNS[0]: maps.pop("high")}, "uK_CMB", cards | _beam(high_arcmin))
    columns = [maps["low"]]
    if full_sky.polarization != "none":
        end = band_limit(sky.nside, low_arcmin, sky.window_nside)
        settings = full_sky.template
        assert template is not None
        if settings.source == "file":
            modes = from_file(
                template,
                sky.nside,
                sky.frequency_ghz,
                settings.fwhm_arcmin,
                low_arcmin,
                settings.unit,
            )
            end = healpy.Alm.getlmax(modes.shape[1])
        else:
            intensity = healpy.resize_alm(
                healpy.almxfl(alm[0], factors["low"]), lmax, lmax, end, end
            )
            modes = from_template(template, intensity, end, sky.nside)
        q, u = cut(modes, np.ones(end + 1), places, wider, spin=2)
        fields |= {"q_low": q, "u_low": u}
        columns += list(healpy.alm2map_spin(modes, nside, 2, end))
        name = Path(template).name.encode("ascii", "replace").decode()
        cards |= {"POLFROM": (name, "where Q and U come from")}
    named = dict(zip(COLUMNS, columns, strict=False))
    write_columns(large, named, "uK_CMB", cards | _beam(low_arcmin))
    with atomic(tiles) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["size_deg"], file.attrs["overlap_deg"] = grid.size_deg, full_sky.overlap_deg
        file.attrs["provenance"] = json.dumps({"map": sha256(map_path), "cards": _plain(cards)})
        for name in ("lon", "lat"):
            file[name] = places[name].to_numpy()
        for name, values in fields.items():
            file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]))


def _wider(grid: PatchGrid) -> PatchGrid:
    """A tile's grid with `MARGIN`."""
    pixels = grid.pixels + 2 * MARGIN
    return PatchGrid(grid.size_deg * pixels / grid.pixels, pixels)


def _inner(maps: np.ndarray) -> np.ndarray:
    """Tiles (..., y, x) without it."""
    return maps[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def make_sky(
    network: str | Path,
    *,
    tiles: str | Path,
    large: str | Path,
    mask: str | Path,
    out: str | Path,
    full_sky: FullSky,
    realization: int,
    run: str,
    threads: int,
) -> None:
    """Add small scales to every tile, and put the tiles together on the large scales.

    What is put together are the small scales alone, in blends that keep their variance where tiles
    overlap (`sky.tiles.Mosaic`); the large scales are the map's own. Tiles are read, and with the
    second stage made, a few at a time.
    """
    from skyweave.training.runtime import prepare

    prepare(0, threads)
    small_scales = SmallScales.load(Path(network).parent)
    card = small_scales.network.card
    columns, cards = read_columns(large)
    fields: list[tuple[int, tuple[str, ...]]] = [(0, ("t_low",))]
    if "q_low" in _fields(tiles):
        fields.append((2, ("q_low", "u_low")))
    _check_large(large, columns, full_sky.nside, COLUMNS[: 2 * len(fields) - 1])
    del columns
    finer = FINER if full_sky.second_stage else 1
    small, correlations = [], []
    with h5py.File(tiles) as file:
        places = pd.DataFrame({name: np.asarray(file[name]) for name in ("lon", "lat")})
        pixels = (file["t_low"].shape[-1] - 2 * MARGIN) * finer
        grid = PatchGrid(float(file.attrs["size_deg"]), pixels)
        overlap_deg = float(file.attrs["overlap_deg"])
        stages = _Stages(small_scales, realization, full_sky)
        for spin, names in fields:
            # All tiles' first: what is at their edges is seen in all of them together.
            ratios = [
                stages.ratios(_read(file, names, rows), rows, _truth(file, rows, names, card))
                for rows in _batches(len(places), _TILES)
            ]
            even = np.stack([evened(one) for one in np.concatenate(ratios, axis=1)])
            # One mosaic at a time: at nside 4096 that of Q and U has 4 GB.
            mosaic = Mosaic(
                grid, overlap_deg, full_sky.nside, spin=spin, threads=threads, variance=True
            )
            for rows in _batches(len(places), 1 if full_sky.second_stage else _TILES):
                low = _inner(_read(file, names, rows))
                mosaic.add(stages.small(low, even[:, rows], rows), places[rows])
            small.append(mosaic.blended())
            correlations.append(mosaic.correlation())
            del mosaic
    if full_sky.bb_over_ee and len(small) == 2:
        inside, patches = read_mask(mask), small_scales.patches
        small[1] = _with_ratio(small[1], inside, patches, full_sky, full_sky.bb_over_ee)
    low_arcmin, high_arcmin = small_scales.patches.low_arcmin, small_scales.patches.high_arcmin
    maps = dict(zip(COLUMNS, (one for part in small for one in part), strict=False))
    for name, values in read_columns(large)[0].items():
        maps[name] += values
    own = {
        "RUN": (run, "name of the run"),
        "NETSHA": (sha256(network), ""),
        "REALIZ": (realization, "number of the realization"),
        "SEED": (card.seed, "root of all random numbers"),
        "NOISEIN": (small_scales.noise, "rms of the noise in the network's input"),
        "LARGEFWH": (low_arcmin, "arcmin, beam of the large scales"),
        "OVERLAPR": (correlations[0], "correlation of tiles where they overlap"),
        "CREATOR": (f"skyweave {versions()['skyweave']}", ""),
    }
    write_columns(out, maps, "uK_CMB", cards | own | _beam(high_arcmin / finer))


def _check_large(
    path: str | Path, columns: Mapping[str, np.ndarray], nside: int, names: Sequence[str]
) -> None:
    """Raise `UserError` for other columns than these, or of another resolution."""
    expected, sizes = f"{', '.join(names)} at nside {nside}", {len(v) for v in columns.values()}
    if tuple(columns) != tuple(names) or sizes != {12 * nside**2}:
        nsides = ", ".join(f"{(size / 12) ** 0.5:g}" for size in sizes)
        raise UserError(path, expected, f"{', '.join(columns)} at nside {nsides}")


def _batches(count: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def _read(file: h5py.File, names: Sequence[str], rows: slice) -> np.ndarray:
    """Some tiles (components, n, y, x) of a file of `write_large_scales`."""
    return np.stack([file[name][rows] for name in names])


def _truth(file: h5py.File, rows: slice, names: Sequence[str], card: "Card") -> np.ndarray | None:
    """The true ratio (n, y, x), where it says what the made one is brought to."""
    if card.settings["amplitude"] != "truth" or names != ("t_low",):
        return None
    return file["t_high"][rows] / _inner(file["t_low"][rows])


@dataclass(frozen=True)
class _Stages:
    """Small scales of tiles, in one stage or in two."""

    small_scales: SmallScales
    realization: int
    full_sky: FullSky

    def small(self, low: np.ndarray, ratios: np.ndarray, rows: slice) -> np.ndarray:
        """High less low of tiles (components, n, y, x), T or Q and U.

        `ratios` (one or components, n, y, x) are those of the first stage.
        """
        if not self.full_sky.second_stage:
            return low * (ratios - 1)
        patches, grid = self.small_scales.patches, self.small_scales.grid()
        high, side = low * ratios, grid.pixels
        sharp = smooth(high, grid.pixel_arcmin, patches.high_arcmin, patches.low_arcmin / FINER)
        middle = resample(sharp, FINER)
        parts = sub_patches(middle, side, side // 2)
        flat = parts.reshape(len(parts), -1, side, side)
        count = parts.shape[2]
        more = self.ratios(flat, slice(rows.start * count, rows.stop * count), finer=FINER)
        finest = (flat * (more - 1)).reshape(parts.shape)
        return middle + join(finest, side // 2) - resample(low, FINER)

    def ratios(
        self, low: np.ndarray, rows: slice, truth: np.ndarray | None = None, *, finer: int = 1
    ) -> np.ndarray:
        """Ratios (one or components, n, y, x) of tiles (components, n, y, x) at low resolution.

        In the first stage tiles come with `MARGIN`, and go without it. Polarized intensity has one
        ratio for both components.
        """
        # No number of the second stage is one of the first.
        numbers = np.arange(rows.start, rows.stop) + (0 if finer == 1 else 1_000_000)
        margin = MARGIN if finer == 1 else 0
        keys: dict[str, Any] = {"realization": self.realization, "finer": finer, "margin": margin}

        def matched(maps: np.ndarray, numbers: np.ndarray, **more: Any) -> np.ndarray:
            return self.small_scales.matched(maps, numbers, **keys, **more)

        if len(low) == 1:
            return matched(low[0], numbers, truth=truth)[None]
        polarized = np.hypot(*low)
        if self.full_sky.polarization == "intensity":
            return matched(polarized, numbers)[None]
        # Each of its own noise, and not that of T.
        components = [(one, numbers + 2_000_000 * i) for i, one in enumerate(low, start=1)]
        return np.stack([matched(*one, scale_of=polarized) for one in components])


def _with_ratio(
    small: np.ndarray, mask: np.ndarray, patches: Patches, full_sky: FullSky, target: float
) -> np.ndarray:
    """Small scales of Q and U (2, npix) whose BB/EE, inside the mask, is the target.

    E and B are multiplied by a number each that keeps the sum of their powers.
    """
    import healpy

    nside = full_sky.nside
    spectra, small_range = _spectra(mask, patches, full_sky)
    ee, bb = _band_powers(spectra, small, small_range)
    factors = np.sqrt((ee + bb) / (1 + target) * np.array([1 / ee, target / bb]))
    lmax = min(3 * nside - 1, int(2 * small_range[1]))
    alm = healpy.map2alm_spin(small.astype(float), 2, lmax)
    scaled = [one * factor for one, factor in zip(alm, factors, strict=True)]
    return np.stack(healpy.alm2map_spin(scaled, nside, 2, lmax)).astype(np.float32)


def _small_range(low_arcmin: float, high_arcmin: float, finer: int = 1) -> tuple[float, float]:
    """Multipoles from where the low resolution ends to where the high one does."""
    return beam_multipole(low_arcmin, 0.5), beam_multipole(high_arcmin / finer, 0.1)


def _fields(tiles: str | Path) -> set[str]:
    with h5py.File(tiles) as file:
        return set(file)


def _cards(sky: SkyMap, map_path: str | Path) -> dict[str, tuple[Any, str]]:
    return {
        "CONTENT": (f"{sky.description}, with small scales", ""),
        "FREQ": (sky.frequency_ghz, "GHz"),
        "POLCCONV": ("COSMO", "sign of U"),
        "MAPFROM": (sky.description, "the map that small scales are added to"),
        "MAPSHA": (sha256(map_path), ""),
    }


def _beam(fwhm_arcmin: float) -> dict[str, tuple[Any, str]]:
    return {"FWHM": (fwhm_arcmin, "arcmin, Gaussian beam")}


def _plain(cards: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    return {name: value for name, (value, _) in cards.items()}


def judge_sky(
    sky: str | Path,
    *,
    large: str | Path,
    high: str | Path,
    mask: str | Path,
    patches: Patches,
    full_sky: FullSky,
    name: str,
) -> tuple[pd.DataFrame, list[dict]]:
    """Spectra of a full sky, of its large scales and of the map itself; does a seam show?

    Columns run, field (tt, ee, bb, bb_over_ee), method (network, input, map), statistic, ell,
    value, error, n; C_ell in µK_CMB² with the beams that the maps have.
    """
    inside = read_mask(mask)
    spectra, small_range = _spectra(inside, patches, full_sky)
    overlap = _overlap(patches, full_sky)
    by_method: dict[str, dict[str, np.ndarray]] = {"input": {}, "map": {}, "network": {}}
    finite = np.ones(overlap.size, bool)
    verdicts = []
    # T, then Q and U: at nside 4096 three components of two maps have 5 GB.
    for names in _kinds(sky):
        by_method["input"] |= _cl(spectra, _stack(large, names))
        if names == COLUMNS[:1]:
            by_method["map"] |= _cl(spectra, _stack(high, names))
        by_method["network"] |= _cl(spectra, _stack(sky, names))
        small = _small(sky, large, names)
        finite &= np.isfinite(small).all(axis=0)
        verdicts.append(seam_verdict(small, inside, overlap, full_sky.nside))
        if full_sky.bb_over_ee and len(small) == 2:
            found = _ratio(spectra, small, small_range)
            verdicts.append(
                verdict(
                    "small scales: BB/EE over the one that was asked for, less 1",
                    abs(found / full_sky.bb_over_ee - 1),
                    _RATIO_ERROR,
                    "<",
                    note=f"BB/EE {found:.3f} inside the mask, asked for {full_sky.bb_over_ee:g}",
                )
            )
        del small
    share = verdict(
        "full sky: share of the pixels that have a finite value", float(finite.mean()), 1.0, ">="
    )
    return _spectra_rows(by_method, spectra.ell, name), [share, *verdicts]


def compare_skies(
    skies: Sequence[str | Path],
    *,
    large: str | Path,
    mask: str | Path,
    spread: str | Path,
    patches: Patches,
    full_sky: FullSky,
    name: str,
) -> pd.DataFrame:
    """How realizations differ; `spread` becomes the map of their standard deviation.

    Columns run, field (tt, ee, bb), statistic, ell, value, n: `spread` is the standard deviation of
    C_ell over its mean, `cross` the correlation of the small scales of the first two.
    """
    spectra, _ = _spectra(read_mask(mask), patches, full_sky)
    kinds = _kinds(large)
    tables = [_realization_rows(skies, large, names, spectra, name) for names in kinds]
    del spectra
    deviation = {one: _deviation(skies, large, one) for names in kinds for one in names}
    _, cards = read_columns(large, ())
    cards |= {"REALIZ": (len(skies), "realizations that this is the deviation of")}
    write_columns(spread, deviation, "uK_CMB", cards)
    return pd.concat(tables, ignore_index=True)


def _deviation(skies: Sequence[str | Path], large: str | Path, column: str) -> np.ndarray:
    """Standard deviation (npix,) of the skies in a column, by Welford's running sums.

    Of what they have beyond the large scales, which float32 holds to 1e-7 of itself.
    """
    mean = _small(skies[0], large, (column,))[0]
    squares = np.zeros_like(mean)
    for number, path in enumerate(skies[1:], start=2):
        small = _small(path, large, (column,))[0]
        away = small - mean
        mean += away / number
        small -= mean
        away *= small
        squares += away
    squares /= len(skies) - 1
    return np.sqrt(squares, out=squares)


def _spectra(
    inside: np.ndarray, patches: Patches, full_sky: FullSky
) -> tuple[SkySpectra, tuple[float, float]]:
    """What spectra are measured with, and the range of multipoles of the small scales."""
    finer = FINER if full_sky.second_stage else 1
    first, last = _small_range(patches.low_arcmin, patches.high_arcmin, finer)
    lmax = min(2 * full_sky.nside, int(1.2 * last))
    return SkySpectra(apodized(inside, full_sky.nside), lmax, max(lmax // 40, 8)), (first, last)


def _ratio(spectra: SkySpectra, qu: np.ndarray, small_range: tuple[float, float]) -> float:
    """BB/EE of Q and U (2, npix) over a range of multipoles."""
    ee, bb = _band_powers(spectra, qu, small_range)
    return bb / ee


def _band_powers(
    spectra: SkySpectra, qu: np.ndarray, small_range: tuple[float, float]
) -> tuple[float, float]:
    """Power of E and of B, Σ ell C_ell over a range of multipoles."""
    inside = (spectra.ell > small_range[0]) & (spectra.ell < small_range[1])
    ee, bb = (float(np.sum((spectra.ell * cl)[inside])) for cl in spectra.eb(qu))
    return ee, bb


def _kinds(path: str | Path) -> list[tuple[str, ...]]:
    """Columns of a file that are measured together: T, and Q and U where it has them."""
    found = column_names(path)
    return [COLUMNS[:1], COLUMNS[1:]] if COLUMNS[1] in found else [COLUMNS[:1]]


def _stack(path: str | Path, names: Sequence[str]) -> np.ndarray:
    """Columns (components, npix) float32 of a file."""
    columns, _ = read_columns(path, names)
    return np.stack([columns[name] for name in names])


def _small(sky: str | Path, large: str | Path, names: Sequence[str]) -> np.ndarray:
    """What a sky has beyond the large scales, in columns (components, npix)."""
    found = _stack(sky, names)
    found -= _stack(large, names)
    return found


def _cl(spectra: SkySpectra, maps: np.ndarray) -> dict[str, np.ndarray]:
    """Spectra by field of T (1, npix), or of Q and U (2, npix)."""
    if len(maps) == 1:
        return {"tt": spectra.tt(maps[0])}
    ee, bb = spectra.eb(maps)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"ee": ee, "bb": bb, "bb_over_ee": bb / ee}


def _spectra_rows(
    by_method: Mapping[str, Mapping[str, np.ndarray]], ell: np.ndarray, name: str
) -> pd.DataFrame:
    tables = [
        pd.DataFrame({"ell": ell, "value": values}).assign(field=field, method=method)
        for method, fields in by_method.items()
        for field, values in fields.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    table = table.assign(run=name, statistic="cl", error=np.nan, n=1)
    return table[["run", "field", "method", "statistic", "ell", "value", "error", "n"]]


def _realization_rows(
    skies: Sequence[str | Path],
    large: str | Path,
    names: Sequence[str],
    spectra: SkySpectra,
    name: str,
) -> pd.DataFrame:
    """Scatter of the skies' spectra, and correlation of two's small scales: T, or Q and U."""
    columns = ["run", "field", "statistic", "ell", "value", "n"]
    cls = [_cl(spectra, _stack(path, names)) for path in skies]
    smalls = [_small(path, large, names) for path in skies[:2]]
    auto = [_cl(spectra, one) for one in smalls]
    if len(names) == 1:
        cross = {"tt": spectra.tt(smalls[0][0], smalls[1][0])}
    else:
        cross = dict(zip(("ee", "bb"), spectra.eb(*smalls), strict=True))
    tables = []
    for field, both in cross.items():
        values = np.stack([one[field] for one in cls])
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                "spread": values.std(axis=0, ddof=1) / values.mean(axis=0),
                "cross": both / np.sqrt(auto[0][field] * auto[1][field]),
            }
        for statistic, value in found.items():
            table = pd.DataFrame({"ell": spectra.ell, "value": value})
            tables.append(table.assign(field=field, statistic=statistic))
    return pd.concat(tables, ignore_index=True).assign(run=name, n=len(cls))[columns]


def _overlap(patches: Patches, full_sky: FullSky) -> np.ndarray:
    """Where (npix,) tiles overlap."""
    grid = PatchGrid(patches.size_deg, patches.pixels)
    return tiles_at(layout(patches.size_deg, full_sky.overlap_deg), grid, full_sky.nside) > 1
