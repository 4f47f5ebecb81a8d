"""Reconstruction: sky fields from observed ones, by a network and by its classical baseline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd

from skyweave.config import ReconstructionRun, Selection
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.analytic_eb import analytic_eb
from skyweave.files import atomic
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.reconstruction import correlation_gain, field_metrics
from skyweave.statistics.verdicts import verdict
from skyweave.tasks.recipe import Recipe

if TYPE_CHECKING:
    from skyweave.networks.card import TrainedNetwork

#: Least significance of a correlation for a field to count as recovered, in standard errors.
_SIGMAS = 5.0

#: Least significance of a gain over the baseline for the network to count as better.
_GAIN_SIGMAS = 3.0


def recipe(
    run: ReconstructionRun, maps: ShardSet, parts: pd.DataFrame, name: str, seed: int
) -> Recipe:
    """How a run's network is trained; raises `UserError` for what the maps cannot judge."""
    from skyweave.training.method import learner
    from skyweave.training.runtime import numerics
    from skyweave.training.supervised import Supervised

    select, training = run.training.select, run.training
    _check_bands(select, maps.grid)
    numbers = members(parts, "validation")
    return Recipe(
        inputs=run.inputs,
        targets=run.targets,
        method=lambda model: Supervised(learner(model, training), xla=numerics(training).xla),
        score=lambda network: _scores(network, maps, numbers, name),
        fields=select.fields or run.targets,
        worth=lambda scores, field: _worth(scores[scores.field == field], select),
        largest=select.by in ("pixel_correlation", "correlation"),
    )


def _check_bands(select: Selection, grid: PatchGrid) -> None:
    """Raise `UserError` where no band's centre lies in the range that a statistic is wanted of."""
    centres, (low, high) = default_bins(grid).centres(grid), select.ell
    if not ((low <= centres) & (centres <= high)).any():
        raise UserError(
            "training.select.ell",
            f"a band's centre ({', '.join(f'{ell:.0f}' for ell in centres)}) in the range",
            f"{low:g} to {high:g}",
        )


def _scores(
    network: "TrainedNetwork", maps: ShardSet, numbers: np.ndarray, name: str
) -> pd.DataFrame:
    """`field_metrics` of a network's outputs for some realizations of the validation set."""
    from skyweave.networks.card import predict

    taper = cosine_taper(maps.grid, _taper_deg(maps))
    card, bins = network.card, default_bins(maps.grid)
    found = predict(network, {field: maps.read(field, numbers) for field in card.inputs})
    tables = [
        field_metrics(
            found[field],
            maps.read(field, numbers),
            maps.grid,
            bins,
            run=name,
            field=field,
            method="network",
            split="validation",
            taper=taper,
        )
        for field in card.outputs
    ]
    return pd.concat(tables, ignore_index=True)


def _worth(metrics: pd.DataFrame, select: Selection) -> float:
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


def predict_run(
    network: str | Path,
    *,
    shards: Sequence[str | Path],
    split: str | Path,
    out: str | Path,
    threads: int,
) -> None:
    """Predict the test set; write inputs, truth, prediction and baseline, in their units.

    The baseline is the analytic E of the observed Q and U, for a network that is to find E.
    """
    from skyweave.networks.card import load_network, predict
    from skyweave.training.runtime import prepare

    prepare(0, threads)
    trained = load_network(Path(network).parent)
    maps = ShardSet(shards)
    test = members(read_split(split), "test")
    card = trained.card
    inputs = {field: maps.read(field, test) for field in card.inputs}
    groups = {
        "input": inputs,
        "truth": {field: maps.read(field, test) for field in card.outputs},
        "prediction": predict(trained, inputs),
    }
    channel = _channel((*card.inputs, *maps.fields), maps.fields)
    if "e_prim" in card.outputs and channel is not None:
        q, u = maps.read(f"q_{channel}", test), maps.read(f"u_{channel}", test)
        groups["baseline"] = {"e_prim": analytic_eb(q, u, maps.grid)[0]}
    with atomic(out) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["size_deg"] = maps.size_deg
        file.attrs["taper_deg"] = _taper_deg(maps)
        file["realizations"] = test
        for group, fields in groups.items():
            for field, values in fields.items():
                written = file.create_dataset(f"{group}/{field}", data=np.float32(values))
                written.attrs["unit"] = maps.units[field]


def _taper_deg(maps: ShardSet) -> float:
    """Width of the taper that the maps carry."""
    return maps.provenance["settings"]["effects"]["taper_deg"]


def _channel(candidates: Sequence[str], fields: Sequence[str]) -> str | None:
    """The first channel among the candidates whose Q and U are both among the fields."""
    for field in candidates:
        stokes, _, channel = field.partition("_")
        if stokes == "q" and channel != "prim" and {field, f"u_{channel}"} <= set(fields):
            return channel
    return None


def evaluate_run(predictions: str | Path, *, name: str) -> tuple[pd.DataFrame, list[dict]]:
    """Metrics of network and baseline for each field of a file of predictions, and verdicts."""
    with h5py.File(predictions) as file:
        groups = {
            group: {field: np.asarray(file[group][field]) for field in file[group]}
            for group in ("truth", "prediction", "baseline")
            if group in file
        }
        pixels = next(iter(groups["truth"].values())).shape[-1]
        grid = PatchGrid(float(file.attrs["size_deg"]), pixels)
        taper = cosine_taper(grid, float(file.attrs["taper_deg"]))
    bins = default_bins(grid)
    tables = [
        field_metrics(
            maps,
            groups["truth"][field],
            grid,
            bins,
            run=name,
            field=field,
            method=method,
            taper=taper,
        )
        for group, method in (("prediction", "network"), ("baseline", "analytic_eb"))
        for field, maps in groups.get(group, {}).items()
    ]
    metrics = pd.concat(tables, ignore_index=True)
    gains = {
        field: correlation_gain(groups["prediction"][field], maps, groups["truth"][field])
        for field, maps in groups.get("baseline", {}).items()
    }
    return metrics, _verdicts(metrics, gains)


def _verdicts(metrics: pd.DataFrame, gains: Mapping[str, tuple[float, float]]) -> list[dict]:
    """Is each field recovered at all, and does the network beat the baseline where one is known?"""
    pixel = metrics[metrics.statistic == "pixel_correlation"].set_index(["field", "method"])
    found = []
    for field in pixel.index.get_level_values("field").unique():
        row = pixel.loc[(field, "network")]
        found.append(
            verdict(
                f"{field}: pixel correlation with the truth, in its standard errors",
                row.value / row.error,
                _SIGMAS,
                ">",
                unit="standard errors",
                note=f"correlation {row.value:.4f} ± {row.error:.4f} over {int(row.n)} patches",
            )
        )
        if field in gains:
            gain, error = gains[field]
            base = pixel.loc[(field, "analytic_eb")]
            found.append(
                verdict(
                    f"{field}: gain in pixel correlation over analytic E/B, in its standard errors",
                    gain / error,
                    _GAIN_SIGMAS,
                    ">",
                    unit="standard errors",
                    note=f"network {row.value:.4f}, analytic {base.value:.4f}, "
                    f"gain {gain:.4f} ± {error:.4f} on the same patches; {_bands(metrics, field)}",
                )
            )
    return found


def _bands(metrics: pd.DataFrame, field: str) -> str:
    """In how many bands of ell the network's correlation lies above the baseline's, in words."""
    rows = metrics[(metrics.field == field) & (metrics.statistic == "correlation")]
    table = rows.pivot_table(index="ell", columns="method", values="value")
    above = int((table["network"] > table["analytic_eb"]).sum())
    return f"r_ell above it in {above} of {len(table)} bands"
