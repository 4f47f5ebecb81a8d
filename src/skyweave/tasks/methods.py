"""What classical methods make of simulated maps, and how networks are scored while they train."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from skyweave.config import PURE, Selection
from skyweave.data.shards import ShardSet
from skyweave.errors import UserError
from skyweave.estimators.analytic_eb import analytic_eb
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.reconstruction import field_metrics

#: Fields that the analytic equation gives, E or B of observed Q and U.
_ANALYTIC = ("e_prim", *PURE)

#: Fields that no estimate of a method is one of: what is left after delensing is not the lensed E.
_OTHER = {"iterative": ("e_sky", "b_sky", "b_pure")}


def estimates(
    maps: ShardSet, numbers: np.ndarray, channel: str | None, outputs: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """What classical methods make of the realizations: {method: {field: (n, y, x)}}.

    `analytic_eb` are E and B of the observed Q and U of a channel; `wiener`, `quadratic` and
    `iterative` are there as far as the maps have their estimates.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    analytic = [field for field in outputs if field in _ANALYTIC]
    if channel is not None and analytic:
        q, u = maps.read(f"q_{channel}", numbers), maps.read(f"u_{channel}", numbers)
        both = dict(zip("eb", analytic_eb(q, u, maps.grid), strict=True))
        found["analytic_eb"] = {field: both[field[0]] for field in analytic}
    for method in ("wiener", "quadratic", "iterative"):
        fields = {field: f"{field.partition('_')[0]}_{method}" for field in outputs}
        there = {
            field: name
            for field, name in fields.items()
            if name in maps.fields and field not in _OTHER.get(method, ())
        }
        if there:
            found[method] = {field: maps.read(name, numbers) for field, name in there.items()}
    return found


def taper_deg(maps: ShardSet) -> float:
    """Width of the taper that the maps carry."""
    return maps.provenance["settings"]["effects"]["taper_deg"]


def channel_of(candidates: Sequence[str], fields: Sequence[str]) -> str | None:
    """The first channel among the candidates whose Q and U are both among the fields."""
    for field in candidates:
        stokes, _, channel = field.partition("_")
        if stokes == "q" and channel != "prim" and {field, f"u_{channel}"} <= set(fields):
            return channel
    return None


def check_bands(where: str, ell: tuple[float, float], grid: PatchGrid) -> None:
    """Raise `UserError` where no band's centre lies in the range that a setting names."""
    centres, (low, high) = default_bins(grid).centres(grid), ell
    if not ((low <= centres) & (centres <= high)).any():
        raise UserError(
            where,
            f"a band's centre ({', '.join(f'{ell:.0f}' for ell in centres)}) in the range",
            f"{low:g} to {high:g}",
        )


def scores(
    found: Mapping[str, np.ndarray], maps: ShardSet, numbers: np.ndarray, name: str
) -> pd.DataFrame:
    """`field_metrics` of predictions for some realizations of the validation set."""
    taper, bins = cosine_taper(maps.grid, taper_deg(maps)), default_bins(maps.grid)
    tables = [
        field_metrics(
            prediction,
            maps.read(field, numbers),
            maps.grid,
            bins,
            run=name,
            field=field,
            method="network",
            split="validation",
            taper=taper,
        )
        for field, prediction in found.items()
    ]
    return pd.concat(tables, ignore_index=True)


def worth(metrics: pd.DataFrame, select: Selection) -> float:
    """What one field's metrics are worth: the mean over the bands, NaN where one of them is."""

    def values(statistic: str) -> np.ndarray:
        rows = metrics[metrics.statistic == statistic]
        return rows[rows.ell.isna() | rows.ell.between(*select.ell)].value.to_numpy()

    value = values(select.by)
    if select.by == "transfer":
        value = np.abs(value - 1)
    elif select.by == "residual":
        # The power of prediction less truth: N alone is least for an empty map.
        with np.errstate(divide="ignore", invalid="ignore"):
            value = value / values("power_truth") + (1 - values("transfer")) ** 2
    # Without bands where all truths are zero everywhere.
    return float(value.mean()) if value.size else np.nan
