"""A sky dataset: patches of a real map, and what their statistics say."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from skyweave.config import Patches, Split
from skyweave.config.sky import PointSources, check_found, check_high
from skyweave.errors import UserError
from skyweave.files import atomic, sha256, versions
from skyweave.flat.grid import PatchGrid
from skyweave.sky.healpix import SkyMap, read_mask
from skyweave.sky.patches import choose_places, extract
from skyweave.sky.sources import find_sources, inpaint, read_catalogue
from skyweave.statistics.dust import DustReport, dust_report
from skyweave.statistics.tables import read_table, write_table

_UNITS = {"high": "uK_CMB", "low": "uK_CMB", "mask": ""}


def remove_sources(
    map_path: str | Path,
    cleaned_path: str | Path,
    sources_path: str | Path,
    *,
    sources: PointSources,
    fwhm_arcmin: float | None,
    dataset: str,
) -> None:
    """Write the map with its point sources filled in, and the table of the sources.

    Sources are those of the catalogue where `sources` has a path, else those found in the map.
    I, and Q and U where the map has them, are filled at the same places, each by itself: near a
    pole, where meridians turn within a hole, Q and U are then only about right. The table has
    columns lon, lat (degrees), radius_arcmin and, where found, amplitude (µK_CMB) and snr.
    `fwhm_arcmin` is as in `cut_patches`. Raises `UserError` for a map that is too coarse to find
    sources in, or a catalogue that cannot be read.
    """
    sky_map = SkyMap.read(map_path)
    fwhm_arcmin = beam_of(sky_map, fwhm_arcmin, dataset)
    if sources.path is None:
        check_found(sky_map.nside, fwhm_arcmin, f"datasets.{dataset}.")
        table = find_sources(
            sky_map.intensity, fwhm_arcmin, snr=sources.snr, latitude_deg=sources.latitude_deg
        )
    else:
        table = read_catalogue(sources.path)
    own = table.pop("radius") if "radius" in table else sources.radius_beams * fwhm_arcmin
    table.insert(2, "radius_arcmin", own)
    discs = [table[name].to_numpy(float) for name in ("lon", "lat", "radius_arcmin")]
    intensity = inpaint(sky_map.intensity, *discs).astype(np.float32)
    q, u = (
        None if values is None else inpaint(values, *discs).astype(np.float32)
        for values in (sky_map.q, sky_map.u)
    )
    cleaned = replace(sky_map, intensity=intensity, bad=np.isnan(intensity), q=q, u=u)
    cleaned.write(cleaned_path)
    write_table(sources_path, table)


def cut_patches(
    map_path: str | Path,
    mask_path: str | Path,
    patches_path: str | Path,
    places_path: str | Path,
    *,
    patches: Patches,
    split: Split,
    fwhm_arcmin: float | None,
    seed: int,
    dataset: str,
) -> None:
    """Choose the places of the patches and write their maps and the table of places.

    `fwhm_arcmin` is the map's beam; None for the one that the map says it has. Raises `UserError`
    for patches sharper than that, or where the mask has no room for them.
    """
    mask, sky_map = read_mask(mask_path), SkyMap.read(map_path)
    fwhm_arcmin = beam_of(sky_map, fwhm_arcmin, dataset)
    check_high(patches, fwhm_arcmin, f"datasets.{dataset}.")
    places = choose_places(mask, patches, split, seed, dataset)
    maps = extract(sky_map, mask, places, patches, fwhm_arcmin)
    with atomic(patches_path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["size_deg"] = patches.size_deg
        file.attrs["provenance"] = json.dumps(
            {
                "seed": seed,
                "dataset": dataset,
                "settings": {"patches": patches.model_dump(), "split": split.model_dump()},
                "map": {"fwhm_arcmin": fwhm_arcmin, "sha256": sha256(map_path)},
                "versions": versions("numpy", "healpy", "ducc0"),
            }
        )
        for name, unit in _UNITS.items():
            file.create_dataset(name, data=maps[name]).attrs["unit"] = unit
    write_table(places_path, places)


def beam_of(sky_map: SkyMap, fwhm_arcmin: float | None, dataset: str) -> float:
    """Beam (FWHM, arcmin) that is given for the map of `dataset`, else the one it says it has.

    Raises `UserError` where it says none.
    """
    beam = sky_map.fwhm_arcmin if fwhm_arcmin is None else fwhm_arcmin
    if beam is None:
        where = f"datasets.{dataset}.map.fwhm_arcmin"
        raise UserError(where, f"the beam of {sky_map.description}, which does not say it", "none")
    return beam


def judge_patches(
    patches_path: str | Path, places_path: str | Path, *, seed: int, dataset: str
) -> DustReport:
    """Spectra and Minkowski functionals of the patches beside their Gaussian control; verdicts."""
    with h5py.File(patches_path) as file:
        maps = {name: np.asarray(file[name]) for name in _UNITS}
        grid = PatchGrid(float(file.attrs["size_deg"]), maps["high"].shape[-1])
    masks = maps.pop("mask")
    return dust_report(maps, masks, grid, read_table(places_path), dataset=dataset, seed=seed)
