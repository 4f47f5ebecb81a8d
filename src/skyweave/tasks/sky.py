"""A sky dataset: patches of a real map, and what their statistics say."""

import json
from pathlib import Path

import h5py
import numpy as np

from skyweave.config import Patches, Split
from skyweave.files import atomic, sha256, versions
from skyweave.flat.grid import PatchGrid
from skyweave.sky.healpix import SkyMap, read_mask
from skyweave.sky.patches import choose_places, extract
from skyweave.statistics.dust import DustReport, dust_report
from skyweave.statistics.tables import read_table, write_table

_UNITS = {"high": "uK_CMB", "low": "uK_CMB", "mask": ""}


def cut_patches(
    map_path: str | Path,
    mask_path: str | Path,
    patches_path: str | Path,
    places_path: str | Path,
    *,
    patches: Patches,
    split: Split,
    fwhm_arcmin: float,
    seed: int,
    dataset: str,
) -> None:
    """Choose the places of the patches and write their maps and the table of places."""
    mask = read_mask(mask_path)
    places = choose_places(mask, patches, split, seed, dataset)
    maps = extract(SkyMap.read(map_path), mask, places, patches, fwhm_arcmin)
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


def judge_patches(
    patches_path: str | Path, places_path: str | Path, *, seed: int, dataset: str
) -> DustReport:
    """Spectra and Minkowski functionals of the patches beside their Gaussian control; verdicts."""
    with h5py.File(patches_path) as file:
        maps = {name: np.asarray(file[name]) for name in _UNITS}
        grid = PatchGrid(float(file.attrs["size_deg"]), maps["high"].shape[-1])
    masks = maps.pop("mask")
    return dust_report(maps, masks, grid, read_table(places_path), dataset=dataset, seed=seed)
