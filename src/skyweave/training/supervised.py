"""Supervised training: the loop, from the first step or from where a killed run stood."""

import math
import os
import time
from collections.abc import Mapping
from typing import Any, TextIO

import keras
import pandas as pd

from skyweave.config import Training
from skyweave.data.feed import BatchFeed
from skyweave.errors import Unfinished, UserError
from skyweave.files import versions
from skyweave.training.gradients import Steps, make_steps
from skyweave.training.interruption import Interruption
from skyweave.training.losses import mean_squared_errors
from skyweave.training.progress import Log, Progress, to_stderr
from skyweave.training.schedule import Schedule
from skyweave.training.state import State, StateFolder, assign, digest, signature, values

#: Settings that may change while a training goes on.
FREE_SETTINGS = {"epochs", "save_minutes"}


def train(
    model: keras.Model,
    feed_train: BatchFeed,
    feed_validation: BatchFeed,
    settings: Training,
    *,
    state_folder: str | os.PathLike,
    identity: Mapping[str, Any],
    deadline_s: float | None = None,
    log: Log | None = None,
    terminal: TextIO | None = None,
) -> pd.DataFrame:
    """Train `model` and leave the weights of the least validation loss in it.

    Returns a row an epoch: `epoch` (from 1), `loss`, `loss_<output>`, `val_loss`,
    `val_loss_<output>` (mean squared errors of normalized maps, the totals their sums),
    `learning_rate`, `seconds`.

    `state_folder` holds what it takes to go on after a kill; a state of other settings, network,
    data, Keras version or `identity` (plain values) gives way to the new training's. Raises
    `Unfinished`, the state saved, before `deadline_s` seconds have passed and on SIGTERM or SIGINT;
    `UserError` for a loss that is not finite. Lines go to `log` and, if it is a terminal, a
    progress bar to `terminal` (both stderr if None).
    """
    log = log or to_stderr
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    optimizer.build(model.trainable_variables)
    name = digest(
        {
            "identity": dict(identity),
            "settings": settings.model_dump(exclude=FREE_SETTINGS),
            "model": signature(model.variables),
            "policy": keras.config.dtype_policy().name,
            "backend": keras.backend.backend(),
            "versions": versions("keras"),
            "data": (feed_train.fingerprint, feed_validation.fingerprint),
        }
    )
    folder = StateFolder(state_folder, name, model, optimizer, log)
    start = (values(model.variables), values(optimizer.variables))
    state = folder.load()
    if state is not None and len(state.history) > settings.epochs:
        log(f"the state has {len(state.history)} epochs, more than asked: training starts anew")
        assign(model.variables, start[0])
        assign(optimizer.variables, start[1])
        state = None
    if state is None:
        state = State(
            Schedule(settings.plateau_factor, settings.plateau_patience, settings.stop_patience)
        )
    else:
        log(f"going on from epoch {state.epoch + 1}, step {state.step}")
    _Loop(model, optimizer, feed_train, feed_validation, settings, folder, state, log).run(
        deadline_s, terminal
    )
    assign(model.variables, state.best)
    return pd.DataFrame(state.history).astype({"epoch": "int64"})


class _Loop:
    """One process's part of a training; everything that must outlast it is in `state`."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer,
        feed_train: BatchFeed,
        feed_validation: BatchFeed,
        settings: Training,
        folder: StateFolder,
        state: State,
        log: Log,
    ) -> None:
        self.model, self.optimizer, self.settings = model, optimizer, settings
        self.feed_train, self.feed_validation = feed_train, feed_validation
        self.folder, self.state, self.log = folder, state, log
        self.steps: Steps = make_steps(model, optimizer, mean_squared_errors)
        self.saved = self.ticked = time.monotonic()

    @property
    def finished(self) -> bool:
        return self.state.epoch >= self.settings.epochs or self.state.schedule.stop

    def run(self, deadline_s: float | None, terminal: TextIO | None) -> None:
        """Go on until the end, a signal or the deadline."""
        if self.finished:
            return
        per_epoch = self.feed_train.steps
        done = self.state.epoch * per_epoch + self.state.step
        self.progress = Progress(
            self.settings.epochs * per_epoch, done, self.feed_train.batch, self.log, terminal
        )
        try:
            with Interruption(deadline_s) as self.interruption:
                self.saved = self.ticked = time.monotonic()
                while not self.finished:
                    self._train_epoch()
                    self._end_epoch(self._validate())
        finally:
            self.progress.close()

    def _train_epoch(self) -> None:
        state = self.state
        if state.step >= self.feed_train.steps:
            return
        for x, y in self.feed_train.epoch(state.epoch, state.step):
            losses = self.steps.train(x, y)
            self._check(losses, f"step {state.step + 1}")
            state.step += 1
            for output, loss in losses.items():
                state.sums[output] = state.sums.get(output, 0.0) + loss
            self.progress.step(state.epoch + 1, sum(state.sums.values()) / state.step)
            self._pause()

    def _validate(self) -> dict[str, float]:
        """Mean of each output's loss over all validation patches."""
        state = self.state
        for x, y in self.feed_validation.in_order(state.validated):
            losses = self.steps.evaluate(x, y)
            self._check(losses, "validation")
            state.validated += 1
            for output, loss in losses.items():
                sums = state.validation_sums
                sums[output] = sums.get(output, 0.0) + loss * len(x)
            self._pause()
        count = self.feed_validation.realizations.size
        return {output: total / count for output, total in state.validation_sums.items()}

    def _end_epoch(self, validation: Mapping[str, float]) -> None:
        state = self.state
        loss = {output: total / state.step for output, total in state.sums.items()}
        row = {"epoch": state.epoch + 1, "loss": sum(loss.values())}
        row |= {f"loss_{output}": v for output, v in loss.items()}
        row |= {"val_loss": sum(validation.values())}
        row |= {f"val_loss_{output}": v for output, v in validation.items()}
        rate = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
        row |= {"learning_rate": rate, "seconds": state.seconds}
        state.schedule, gained, lower = state.schedule.after(row["val_loss"])
        if gained:
            state.best = values(self.model.variables)
        if lower:
            self.optimizer.learning_rate = rate * state.schedule.factor
        state.history.append(row)
        state.epoch, state.step, state.validated = state.epoch + 1, 0, 0
        state.sums, state.validation_sums, state.seconds = {}, {}, 0.0
        note = "  (best)" if gained else ""
        if state.schedule.stop:
            note += f"  no gain in {state.schedule.without_gain} epochs: end"
        self.progress.epoch(state.epoch, self.settings.epochs, row, note)
        self._save()

    def _pause(self) -> None:
        """Between two steps: keep the time, save when it is due, stop when it is asked for."""
        now = time.monotonic()
        self.interruption.took(now - self.ticked)
        self.state.seconds += now - self.ticked
        self.ticked = now
        reason = self.interruption.reason
        if reason:
            self._save()
            state = self.state
            raise Unfinished(
                f"stopped by {reason} in epoch {state.epoch + 1} after step {state.step}; "
                "the state is saved, run again to go on"
            )
        if now - self.saved >= 60 * self.settings.save_minutes:
            self._save()

    def _save(self) -> None:
        start = time.monotonic()
        self.folder.save(self.state)
        self.saved = self.ticked = time.monotonic()
        self.interruption.save_s = self.saved - start

    def _check(self, losses: Mapping[str, float], where: str) -> None:
        for output, loss in losses.items():
            if not math.isfinite(loss):
                raise UserError(
                    "training.learning_rate",
                    f"one with which the loss of {output!r} stays finite",
                    f"{self.settings.learning_rate:g}: {loss} in epoch {self.state.epoch + 1}, "
                    f"{where}",
                )
