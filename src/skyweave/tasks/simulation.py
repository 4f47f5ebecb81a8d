"""A simulated dataset: its shards, its split and its check against theory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from skyweave.config import Effects, Grid, Split
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.data.split import assign, members
from skyweave.files import sha256, write_text
from skyweave.flat.polarization import tapered_variances
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.patch import UNITS, simulate
from skyweave.simulation.spectra import SpectraTable
from skyweave.statistics.tables import write_table
from skyweave.statistics.verdicts import verdict

#: Gaussian fields that are stored as drawn, but for the taper, and the spectrum of each.
_GAUSSIAN = {"t_prim": "tt", "kappa": "kk", "tau": "tautau"}

#: How often a check may fail by chance.
_CHANCE = 1e-4


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
            "spectra": sha256(spectra),
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
    spectra: str | Path, shards: Sequence[str | Path], *, dataset: str
) -> tuple[pd.DataFrame, list[dict]]:
    """Variance of each Gaussian field against the sum of its spectrum over the modes.

    The variance of a tapered scalar is ``mean(w²) / area · Σ C_ell`` over the modes of the patch,
    that of E of tapered Q,U comes from `tapered_variances`; a null realization has none in kappa
    and tau. The error comes from the scatter over realizations, the bar from Student's law.
    """
    maps = ShardSet(shards)
    theory = _variances(SpectraTable.read(spectra), maps)
    rows, verdicts = [], []
    for field in (field for field in maps.fields if field in theory):
        variances = np.array(
            [np.mean(maps.read(field, [r])[0] ** 2, dtype=np.float64) for r in maps.realizations]
        )
        drawn = variances[variances > 0]
        if drawn.size < 2:
            continue
        value, error = drawn.mean(), drawn.std(ddof=1) / np.sqrt(drawn.size)
        rows.append((dataset, field, "variance", value, error, theory[field], drawn.size))
        verdicts.append(
            verdict(
                f"{field}: variance against the sum over modes of its spectrum",
                abs(value - theory[field]) / error,
                round(float(stats.t.isf(_CHANCE / 2, drawn.size - 1)), 2),
                "<",
                unit="standard errors",
                note=f"rms {np.sqrt(value):.5g} drawn, {np.sqrt(theory[field]):.5g} from theory, "
                f"{drawn.size} realizations",
            )
        )
    columns = ["dataset", "field", "statistic", "value", "error", "theory", "n"]
    return pd.DataFrame(rows, columns=columns), verdicts


def _variances(table: SpectraTable, maps: ShardSet) -> dict[str, float]:
    """Expected variance of each Gaussian field on a tapered patch."""
    grid, settings = maps.grid, maps.provenance["settings"]
    taper = cosine_taper(grid, settings["effects"]["taper_deg"])

    def modes(spectrum: str) -> np.ndarray:
        cl = table.on_modes(spectrum, grid)
        if settings["grid"]["oversample"] > 1:
            # Coarsening drops the Nyquist lines.
            cl[grid.pixels // 2], cl[:, -1] = 0, 0
        return cl

    kept = np.mean(taper**2) / grid.area_sr
    expected = {
        field: float(kept * np.sum(grid.mode_weight * modes(spectrum)))
        for field, spectrum in _GAUSSIAN.items()
    }
    expected["e_prim"], _ = tapered_variances(modes("ee"), modes("bb"), taper, grid)
    return expected
