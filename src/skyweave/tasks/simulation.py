"""A simulated dataset: its shards, its split and its check against theory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config import Effects, Grid, Split
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.data.split import assign, members
from skyweave.files import versions, write_text
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import tapered_variances
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.patch import UNITS, simulate
from skyweave.simulation.spectra import SpectraTable
from skyweave.statistics.tables import write_table
from skyweave.statistics.verdicts import verdict

#: Gaussian fields that are stored as drawn, but for the taper, and the spectrum of each.
_GAUSSIAN = {"t_prim": "tt", "kappa": "kk", "tau": "tautau"}

#: Most standard errors that a variance may lie from theory: 1 in 16,000 by chance.
_SIGMAS = 4.0


def write_realizations(
    path: str | Path,
    spectra: str | Path,
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
    shards: Sequence[str | Path],
    split_path: str | Path,
    normalization_path: str | Path,
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
    spectra: str | Path, shards: Sequence[str | Path], *, effects: Effects, dataset: str
) -> tuple[pd.DataFrame, list[dict]]:
    """Variance of each Gaussian field against the sum of its spectrum over the modes.

    The variance of a tapered scalar is ``mean(w²) / area · Σ C_ell`` over the modes of the patch,
    that of E of tapered Q,U comes from `tapered_variances`; a null realization has none in kappa
    and tau. The error comes from the scatter over realizations.
    """
    table, maps = SpectraTable.read(spectra), ShardSet(shards)
    theory = _variances(table, maps.grid, cosine_taper(maps.grid, effects.taper_deg))
    rows, verdicts = [], []
    for field in (field for field in maps.fields if field in theory):
        variances = np.array(
            [np.mean(maps.read(field, [r])[0] ** 2, dtype=np.float64) for r in maps.realizations]
        )
        drawn = variances[variances > 0]
        expected = theory[field]
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


def _variances(table: SpectraTable, grid: PatchGrid, taper: np.ndarray) -> dict[str, float]:
    """Expected variance of each Gaussian field on a tapered patch."""
    kept = np.mean(taper**2) / grid.area_sr
    expected = {
        field: float(kept * np.sum(grid.mode_weight * table.on_modes(spectrum, grid)))
        for field, spectrum in _GAUSSIAN.items()
    }
    ee, bb = (table.on_modes(name, grid) for name in ("ee", "bb"))
    expected["e_prim"], _ = tapered_variances(ee, bb, taper, grid)
    return expected
