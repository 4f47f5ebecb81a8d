"""Training of a run of any task, to the network with its card."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from skyweave.config import (
    DecompositionRun,
    DenoisingRun,
    ForegroundsRun,
    GenerationRun,
    InpaintingRun,
    ReconstructionRun,
    Selection,
)
from skyweave.config.galaxies import UNTRAINED
from skyweave.data.feed import BatchFeed, Feed
from skyweave.data.joined import open_maps
from skyweave.data.normalization import Normalization
from skyweave.data.split import members, read_split
from skyweave.statistics.tables import write_table
from skyweave.tasks import (
    decomposition,
    denoising,
    foregrounds,
    generation,
    inpainting,
    reconstruction,
)
from skyweave.tasks.recipe import Recipe

#: Settings of a run and its recipe, by task.
TASKS: dict[str, tuple[type[Any], Callable[..., Recipe]]] = {
    "reconstruction": (ReconstructionRun, reconstruction.recipe),
    "decomposition": (DecompositionRun, decomposition.recipe),
    "foregrounds": (ForegroundsRun, foregrounds.recipe),
    "inpainting": (InpaintingRun, inpainting.recipe),
    "generation": (GenerationRun, generation.recipe),
    "denoising": (DenoisingRun, denoising.recipe),
}

AnyRun = (
    ReconstructionRun
    | DecompositionRun
    | ForegroundsRun
    | InpaintingRun
    | GenerationRun
    | DenoisingRun
)


def train_run(
    run: AnyRun,
    *,
    shards: Sequence[str | Path],
    split: str | Path,
    normalization: str | Path,
    network: str | Path,
    history: str | Path,
    sweep: str | Path,
    state: str | Path,
    name: str,
    seed: int,
    threads: int,
    deadline_s: float | None,
    estimates: Sequence[str | Path] = (),
    calibration: str | Path | None = None,
    networks: Mapping[str, str | Path] | None = None,
    files: Mapping[str, str | Path] | None = None,
    terminal: TextIO | None = None,
) -> None:
    """Train the network of a run; write it with its card, and the history of the training.

    Where inputs are estimates, `estimates` are their shards and `calibration` says how they are
    made, which the card keeps. `networks` holds the files of the networks that this one needs, by
    the setting that names their run, `files` what else its task reads, by name.

    `sweep` becomes the table of what its epoch was picked by: `epoch`, `statistic`, `field` (with
    ``all``, by which it was), `value`, `picked` (1 for that epoch). Goes on from `state` if an
    earlier attempt was cut short. Raises `Unfinished` before `deadline_s` seconds are over and on
    SIGTERM, the state saved.
    """
    begun = time.monotonic()
    from skyweave.networks.card import Card, TrainedNetwork, save_network
    from skyweave.networks.registry import build
    from skyweave.training import checkpoints
    from skyweave.training.loop import train
    from skyweave.training.runtime import prepare

    def left_s() -> float | None:
        return None if deadline_s is None else deadline_s - (time.monotonic() - begun)

    prepare(seed, threads, run.training)
    maps = open_maps(shards, estimates)
    select = run.training.select
    parts = read_split(split)
    more: dict[str, Any] = {"networks": networks} if networks else {}
    more |= {"files": files} if files else {}
    recipe = TASKS[run.task][1](run, maps, parts, name, seed, **more)
    scales = Normalization.from_json(Path(normalization).read_text(encoding="utf-8"))
    needed = (*recipe.inputs, *recipe.targets, *recipe.beside)
    made = [field for field in needed if field not in scales.moments]
    if made:
        fitted = Normalization.fit(maps, made, members(parts, "train"))
        scales = Normalization({**scales.moments, **fitted.moments})
    if not recipe.normalize:
        scales = Normalization(dict.fromkeys(scales.moments, (0.0, 1.0)))
    as_they_are = dict.fromkeys(recipe.further, (0.0, 1.0))
    alike = {name: scales.moments[field] for name, field in recipe.alike.items()}
    scales = Normalization({**scales.moments, **as_they_are, **alike})
    whole = {
        part: BatchFeed(
            maps,
            recipe.inputs,
            (*recipe.targets, *recipe.beside),
            scales,
            members(parts, part),
            run.training.batch,
            seed,
            (name, part),
            noise=recipe.noise,
            drawn=recipe.drawn,
        )
        for part in ("train", "validation")
    }
    feeds: dict[str, Feed] = {
        part: feed if recipe.feed is None else recipe.feed(feed, part, scales)
        for part, feed in whole.items()
    }
    deviations = {field: std for field, (_, std) in scales.moments.items()}
    inputs = () if recipe.latent else (*recipe.inputs, *recipe.further, *recipe.alike)
    if recipe.build is not None:
        model = recipe.build(scales)
    else:
        assert not isinstance(run, GenerationRun | DenoisingRun)
        model = build(run.network, maps.pixels, inputs, recipe.targets, seed, deviations)
    method = recipe.method(model, scales)
    # Of some methods an average of the network that learns.
    model = method.model
    epochs = train(
        method,
        feeds["train"],
        feeds["validation"],
        run.training,
        state_folder=state,
        identity={"run": name, "seed": seed, "network": run.network.model_dump()}
        | dict(recipe.identity),
        deadline_s=left_s(),
        terminal=terminal,
        watch=recipe.watch and partial(recipe.watch, method, Path(state)),
    )
    sections = {"network", "training", "adversarial", "noise", "amplitude", "method", "flow"}
    sections |= {"discriminator", "losses", "noise_channels", "samples", "gain", "after", "joint"}
    sections |= {"task", "holes"} if isinstance(run, InpaintingRun) else set()
    if isinstance(run, GenerationRun | DenoisingRun):
        sections |= {"task", "augment", "style", "vae", "diffusion"}
        sections |= {"degradation", "generated", "alpha", "repeat", "turns"}
    card = Card(
        inputs=inputs,
        outputs=tuple(recipe.targets),
        units={
            **maps.units,
            **dict.fromkeys(recipe.further, ""),
            **{name: maps.units[field] for name, field in recipe.alike.items()},
        },
        normalization=scales,
        size_deg=maps.size_deg,
        pixels=maps.pixels,
        latent=recipe.latent,
        seed=seed,
        data={
            "dataset": run.dataset,
            "provenance": maps.provenance,
            "realizations": parts.split.value_counts().to_dict(),
            "fingerprint": feeds["train"].fingerprint,
            **({"estimates": json.loads(Path(calibration).read_text())} if calibration else {}),
            **recipe.known,
        },
        settings=run.model_dump(mode="json", include=sections, exclude=UNTRAINED.get(run.task)),
    )
    scores = None
    if select.swept:
        scores = checkpoints.sweep(
            state,
            checkpoints.compared(select, len(epochs), True),
            model,
            lambda model: recipe.score(TrainedNetwork(model, card)),
            deadline_s=left_s(),
        )
    compared = _compared(epochs, scores, select, recipe)
    values = compared[compared.field == "all"].set_index("epoch").value
    largest = select.by == "last" or (select.swept and recipe.largest)
    picked = checkpoints.pick(values, largest=largest)
    if select.swept:
        checkpoints.load(state, picked, model)
    row = epochs.drop(columns="seconds").to_dict("records")[picked - 1]
    # A loss that there is not (of a network that did not learn) is no number for JSON.
    metrics = {str(key): value for key, value in row.items() if np.isfinite(value)}
    metrics |= {"picked_by": compared.statistic.iloc[0], "picked_value": float(values[picked])}
    if recipe.finish is not None:
        model = recipe.finish(TrainedNetwork(model, card))
    save_network(Path(network).parent, model, replace(card, metrics=metrics))
    write_table(history, epochs)
    write_table(sweep, compared.assign(picked=(compared.epoch == picked).astype("int64")))


def _compared(
    epochs: pd.DataFrame, scores: pd.DataFrame | None, select: Selection, recipe: Recipe
) -> pd.DataFrame:
    """What epochs are compared by: rows `epoch`, `statistic`, `field`, `value`.

    The field ``all`` is the mean over the others.
    """
    if scores is None:
        name = "val_loss" if select.by == "loss" else "epoch"
        return epochs[["epoch"]].assign(statistic=name, field="all", value=epochs[name])
    rows = []
    for epoch, table in scores.groupby("epoch"):
        values = {field: recipe.worth(table, field) for field in recipe.fields}
        values["all"] = float(np.mean([values[field] for field in recipe.fields]))
        rows += [(epoch, select.by, field, value) for field, value in values.items()]
    return pd.DataFrame(rows, columns=["epoch", "statistic", "field", "value"])
