"""Reconstruction: sky fields from observed ones, by a network and by classical estimators."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from skyweave.config import ReconstructionRun, estimate_of
from skyweave.data.joined import open_maps
from skyweave.data.predictions import NETWORK, Predictions, write_predictions
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.statistics.debiased import debiased_metrics
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.reconstruction import band_gain, correlation_gain, field_metrics
from skyweave.tasks.methods import channel_of, check_bands, scores, taper_deg, worth
from skyweave.tasks.methods import estimates as estimates_of
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
    check_bands("training.select.ell", select.ell, maps.grid)
    numbers = members(parts, "validation")
    return Recipe(
        inputs=run.inputs,
        targets=run.targets,
        method=lambda model, scales: Supervised(
            learner(model, training),
            losses,
            judged=run.targets,
            weights=_weights(run, maps, members(parts, "train")),
            xla=numerics(training).xla,
        ),
        score=lambda network: scores(_predicted(network, maps, numbers), maps, numbers, name),
        fields=select.fields or run.targets,
        worth=lambda table, field: worth(table[table.field == field], select),
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


def _predicted(
    network: "TrainedNetwork", maps: ShardSet, numbers: np.ndarray
) -> dict[str, np.ndarray]:
    """A network's outputs for some realizations, without their errors."""
    from skyweave.networks.card import predict

    found = predict(network, {field: maps.read(field, numbers) for field in network.card.inputs})
    return {field: found[field] for field in network.card.outputs}


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
    channel = channel_of((*card.inputs, *maps.fields), maps.fields)
    methods = estimates_of(maps, numbers, channel, card.outputs)
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
        taper_deg=taper_deg(maps),
    )


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
