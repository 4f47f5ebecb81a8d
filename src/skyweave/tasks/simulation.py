"""A simulated dataset: its shards, its split and its check against theory."""

from collections.abc import Sequence
from os import PathLike

import numpy as np
import pandas as pd

from skyweave.config import Effects, Grid, Split
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.data.split import assign, members
from skyweave.files import versions, write_text
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.patch import UNITS, simulate
from skyweave.simulation.spectra import SpectraTable
from skyweave.statistics.tables import write_table
from skyweave.statistics.verdicts import verdict

#: Gaussian fields that are stored as drawn (but for the taper), and the spectrum of each.
_GAUSSIAN = {"t_prim": "tt", "e_prim": "ee", "kappa": "kk", "tau": "tautau"}

#: Most standard errors that a variance may lie from theory: 1 in 16,000 by chance.
_SIGMAS = 4.0


def write_realizations(
    path: str | PathLike,
    spectra: str | PathLike,
    *,
    grid: Grid,
    effects: Effects,
    fields: Sequence[str],
    seed: int,
    dataset: str,
    realizations: Sequence[int],
) -> None:
    """Simulate `realizations` and write them as one shard."""
    maps = simulate(
        SpectraTable.read(spectra),
        grid,
        effects,
        seed=seed,
        dataset=dataset,
        realizations=realizations,
        fields=fields,
    )
    write_shard(
        path,
        maps,
        realizations=np.asarray(realizations),
        size_deg=grid.size_deg,
        units={field: UNITS[field] for field in fields},
        provenance={
            "seed": seed,
            "dataset": dataset,
            "settings": {"grid": grid.model_dump(), "effects": effects.model_dump()},
            "versions": versions("numpy", "scipy", "camb"),
        },
    )


def prepare(
    shards: Sequence[str | PathLike],
    split_path: str | PathLike,
    normalization_path: str | PathLike,
    *,
    split: Split,
    seed: int,
    dataset: str,
) -> None:
    """Assign each realization to a part; fit mean and std of each field on the training part."""
    maps = ShardSet(shards)
    parts = assign(maps.realizations, split, seed, dataset)
    normalization = Normalization.fit(maps, maps.fields, members(parts, "train"))
    write_text(normalization_path, normalization.to_json())
    write_table(split_path, parts)


def check(
    spectra: str | PathLike, shards: Sequence[str | PathLike], *, effects: Effects, dataset: str
) -> tuple[pd.DataFrame, list[dict]]:
    """Variance of each Gaussian field against the sum of its spectrum over the modes.

    The variance of a tapered field is ``mean(w²) / area · Σ C_ell`` over the modes of the patch
    but the mean's; a null realization has none in kappa and tau. The error comes from the scatter
    over realizations.
    """
    table, maps = SpectraTable.read(spectra), ShardSet(shards)
    taper = cosine_taper(maps.grid, effects.taper_deg)
    rows, verdicts = [], []
    for field, spectrum in _GAUSSIAN.items():
        if field not in maps.fields:
            continue
        variances = np.array(
            [np.mean(maps.read(field, [r])[0] ** 2, dtype=np.float64) for r in maps.realizations]
        )
        drawn = variances[variances > 0]
        expected = np.mean(taper**2) * _mode_sum(maps.grid, table.ell, table.cl[spectrum])
        value, error = drawn.mean(), drawn.std(ddof=1) / np.sqrt(drawn.size)
        rows.append(
            {
                "dataset": dataset,
                "field": field,
                "statistic": "variance",
                "value": value,
                "error": error,
                "theory": expected,
                "n": drawn.size,
            }
        )
        verdicts.append(
            verdict(
                f"{field}: variance against the sum over modes of its spectrum",
                abs(value - expected) / error,
                _SIGMAS,
                "<",
                unit="standard errors",
                note=f"rms {np.sqrt(value):.5g} drawn, {np.sqrt(expected):.5g} from theory, "
                f"{drawn.size} realizations",
            )
        )
    return pd.DataFrame(rows), verdicts


def _mode_sum(grid: PatchGrid, ell: np.ndarray, cl: np.ndarray) -> float:
    """Variance per pixel of a periodic field with spectrum `cl`, without its mean."""
    weight = np.where(grid.ell > 0, grid.mode_weight, 0)
    return float(np.sum(weight * np.interp(grid.ell, ell, cl, right=0)) / grid.area_sr)
