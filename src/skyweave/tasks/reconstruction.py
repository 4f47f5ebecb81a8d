"""Reconstruction: sky fields from observed ones, by a network and by classical estimators."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from skyweave.config import ReconstructionRun, Selection, estimate_of
from skyweave.data.joined import open_maps
from skyweave.data.predictions import NETWORK, Predictions, write_predictions
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.analytic_eb import analytic_eb
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.statistics.debiased import debiased_metrics
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.reconstruction import band_gain, correlation_gain, field_metrics
from skyweave.tasks.recipe import Recipe
from skyweave.tasks.reconstruction_verdicts import Gain, debiasing, gains, recovery
from skyweave.tasks.theory import metric_rows

#: Realizations by which losses are weighed.
_WEIGHED = 64

if TYPE_CHECKING:
    from skyweave.networks.card import TrainedNetwork


def recipe(
    run: ReconstructionRun, maps: ShardSet, parts: pd.DataFrame, name: str, seed: int
) -> Recipe:
    """How a run's network is trained; raises `UserError` for what the maps cannot judge."""
    from skyweave.training.losses import gaussian, mean_squared_errors
    from skyweave.training.method import learner
    from skyweave.training.runtime import numerics
    from skyweave.training.supervised import Supervised

    select, training = run.training.select, run.training
    losses = gaussian if run.network.uncertainty else mean_squared_errors
    _check_bands(select, maps.grid)
    numbers = members(parts, "validation")
    return Recipe(
        inputs=run.inputs,
        targets=run.targets,
        method=lambda model: Supervised(
            learner(model, training),
            losses,
            judged=run.targets,
            weights=_weights(run, maps, members(parts, "train")),
            xla=numerics(training).xla,
        ),
        score=lambda network: _scores(network, maps, numbers, name),
        fields=select.fields or run.targets,
        worth=lambda scores, field: _worth(scores[scores.field == field], select),
        largest=select.by in ("pixel_correlation", "correlation"),
    )


def _weights(run: ReconstructionRun, maps: ShardSet, numbers: np.ndarray) -> dict[str, float]:
    """How much the outputs' losses count: those of a hybrid by what their estimates leave to learn.

    With equal weights the loss of tau, of which little can be known, would drown the others'.
    """
    found = {}
    for target in run.targets if run.network.name == "hybrid" else ():
        estimate = estimate_of(target, run.inputs)
        if estimate is not None:
            truth = maps.read(target, numbers[:_WEIGHED])
            left = np.mean((maps.read(estimate, numbers[:_WEIGHED]) - truth) ** 2, dtype=float)
            found[target] = float(truth.var(dtype=float) / max(left, 1e-6 * truth.var()))
    return found


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


def load_run(network: str | Path, threads: int) -> "TrainedNetwork":
    """A run's trained network, and the process made ready to predict with it."""
    from skyweave.networks.card import load_network
    from skyweave.training.runtime import prepare

    prepare(0, threads)
    return load_network(Path(network).parent)


def predict_run(
    network: "str | Path | TrainedNetwork",
    *,
    shards: Sequence[str | Path],
    split: str | Path,
    out: str | Path,
    threads: int,
    part: str = "test",
    estimates: Sequence[str | Path] = (),
) -> None:
    """Predict a part of the split; write inputs, truth, prediction and estimates, in their units.

    `network` is a file, or what `load_run` made of it, `estimates` are shards of what was estimated
    from the dataset. The file is one of `data.predictions`.
    """
    from skyweave.networks.card import TrainedNetwork, predict

    trained = network if isinstance(network, TrainedNetwork) else load_run(network, threads)
    card, maps = trained.card, open_maps(shards, estimates)
    numbers = members(read_split(split), part)
    inputs = {field: maps.read(field, numbers) for field in card.inputs}
    found = predict(trained, inputs)
    channel = _channel((*card.inputs, *maps.fields), maps.fields)
    methods = _estimates(maps, numbers, channel, card.outputs)
    write_predictions(
        out,
        {
            "input": inputs,
            "truth": {field: maps.read(field, numbers) for field in card.outputs},
            "prediction": {field: found[field] for field in card.outputs},
            "sigma": {
                field: found[f"{field}_sigma"]
                for field in card.outputs
                if f"{field}_sigma" in found
            },
            **{f"estimates/{method}": fields for method, fields in methods.items()},
        },
        realizations=numbers,
        units=maps.units,
        size_deg=maps.size_deg,
        taper_deg=_taper_deg(maps),
    )


def _estimates(
    maps: ShardSet, numbers: np.ndarray, channel: str | None, outputs: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """What classical methods make of the realizations: {method: {field: (n, y, x)}}.

    `analytic_eb` is the E of the observed Q and U of a channel; `wiener`, `quadratic` and
    `iterative` are there as far as the maps have their estimates.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    if channel is not None and "e_prim" in outputs:
        q, u = maps.read(f"q_{channel}", numbers), maps.read(f"u_{channel}", numbers)
        found["analytic_eb"] = {"e_prim": analytic_eb(q, u, maps.grid)[0]}
    for method in ("wiener", "quadratic", "iterative"):
        fields = {field: f"{field.partition('_')[0]}_{method}" for field in outputs}
        there = {field: name for field, name in fields.items() if name in maps.fields}
        if there:
            found[method] = {field: maps.read(name, numbers) for field, name in there.items()}
    return found


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


def evaluate_run(
    predictions: str | Path,
    *,
    name: str,
    validation: str | Path | None = None,
    theory: str | Path | None = None,
) -> tuple[pd.DataFrame, list[dict]]:
    """Metrics of the network and of each other method for each field, and verdicts.

    `predictions` is a file of `predict_run`; with that of the `validation` set, debiased spectra
    are among them, and with `theory`, a table of `tasks.theory`, what it expects of r_ell. Raises
    `UserError` for files that are broken or do not match.
    """
    test = Predictions(predictions)
    known = None if validation is None else test.matching(validation)
    tables, verdicts = [], []
    for field in test.fields:
        rows = _field_metrics(test, known, field, name)
        tables.append(rows)
        verdicts += recovery(rows, field)
        verdicts += gains(rows, field, _gains(test, field))
        if known is not None:
            verdicts += debiasing(rows, field)
    if theory is not None:
        tables.append(metric_rows(theory, test.fields, name))
    return pd.concat(tables, ignore_index=True), verdicts


def _field_metrics(
    test: Predictions, known: Predictions | None, field: str, name: str
) -> pd.DataFrame:
    """Metrics of all methods for one field; debiased ones where a second set is known."""
    grid, taper, bins = test.grid, test.taper, default_bins(test.grid)
    truth, other = test.truth(field), None if known is None else known.truth(field)
    tables = []
    for method in test.methods(field):
        names = {"run": name, "field": field, "method": method}
        maps = test.estimate(field, method)
        tables.append(field_metrics(maps, truth, grid, bins, taper=taper, **names))
        if known is not None and other is not None:
            second = known.estimate(field, method), other
            tables.append(debiased_metrics((maps, truth), second, grid, bins, taper=taper, **names))
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def _gains(test: Predictions, field: str) -> dict[str, Gain]:
    """What the network has over each other method, on the same patches."""
    truth, network = test.truth(field), test.estimate(field, NETWORK)
    bins = default_bins(test.grid)
    found = {}
    for method in test.methods(field)[1:]:
        maps = test.estimate(field, method)
        bands = band_gain(network, maps, truth, test.grid, bins, test.taper)
        pixel = correlation_gain(network, maps, truth)
        found[method] = Gain(*pixel, bins.centres(test.grid), *bands)
    return found
