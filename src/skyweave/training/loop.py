"""The training loop, from the first step or from where a killed run stood."""

import math
import os
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict
from typing import Any, TextIO

import keras
import numpy as np
import pandas as pd

from skyweave.config import Training
from skyweave.data.feed import Feed
from skyweave.errors import Unfinished, UserError
from skyweave.files import versions
from skyweave.training.checkpoints import Checkpoints
from skyweave.training.events import Events
from skyweave.training.interruption import Interruption
from skyweave.training.lock import Lock
from skyweave.training.method import Method, Place
from skyweave.training.progress import Log, Progress, to_stderr
from skyweave.training.runtime import memory_gb, numerics
from skyweave.training.schedule import Schedule, factor
from skyweave.training.state import Means, State, StateFolder, assign, digest, signature, values

#: Settings that may change while a training goes on.
FREE_SETTINGS = {"epochs", "save_minutes", "select", "tensorboard"}
#: Settings of which only counts what they mean here.
NUMERICS = {"precision", "xla", "deterministic", "devices"}


def train(
    method: Method,
    feed_train: Feed,
    feed_validation: Feed,
    settings: Training,
    *,
    state_folder: str | os.PathLike,
    identity: Mapping[str, Any],
    deadline_s: float | None = None,
    log: Log | None = None,
    terminal: TextIO | None = None,
    watch: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Train by a method and leave the weights of the least validation loss in its model.

    With another `select.by` than ``loss`` they are the last epoch's, and with a statistic the
    epochs' networks wait in `state_folder` for `checkpoints.sweep`.

    Returns a row an epoch: `epoch` (from 1), `loss`, `loss_<name>` for each loss of the method,
    `val_loss`, `val_loss_<name>` (means over the epoch's steps where there was one, and over the
    validation set), `learning_rate` (of the epoch's last update), `seconds`.

    The method's networks are made after `runtime.prepare` with the same settings, which sets their
    precision. `state_folder` holds what it takes to go on after a kill, and is locked meanwhile; a
    state of other settings, networks, data, Keras version or `identity` (plain values) gives way to
    the new training's. Raises `Unfinished`, the state saved, before `deadline_s` seconds are over
    and on SIGTERM or SIGINT; `UserError` where another process trains in the folder, and for a
    loss, gradient or weight that is not finite, the last state left as it was. Lines go to `log`
    and, if it is a terminal, a progress bar to `terminal` (both stderr if None). `watch` is called
    with the number of each epoch at its end, the method's networks as that left them.
    """
    log = log or to_stderr
    if method.paired and not feed_train.paired:
        raise UserError("feed", "truths of the inputs, for what this method learns", "others")
    chosen = numerics(settings)
    name = digest(
        {
            "identity": dict(identity),
            "method": dict(method.identity),
            "settings": settings.model_dump(exclude=FREE_SETTINGS | NUMERICS),
            "numerics": asdict(chosen),
            "cosine": settings.epochs if settings.schedule == "cosine" else None,
            "variables": {group: signature(method.groups[group]) for group in method.groups},
            "policy": keras.config.dtype_policy().name,
            "backend": keras.backend.backend(),
            "versions": versions("keras"),
            "data": (feed_train.fingerprint, feed_validation.fingerprint),
        }
    )
    with Interruption(deadline_s) as interruption, Lock(state_folder) as lock:
        folder = StateFolder(state_folder, name, method.groups, log)
        checkpoints = Checkpoints(folder.folder, name, settings.select)
        start = {group: values(variables) for group, variables in folder.groups.items()}
        state = folder.load()
        if state is not None and len(state.history) > settings.epochs:
            log(f"the state has {len(state.history)} epochs, more than asked: training starts anew")
            for group, variables in folder.groups.items():
                assign(variables, start[group])
            state = None
        if state is None:
            checkpoints.clear()
            state = State(
                Schedule(settings.plateau_factor, settings.plateau_patience, settings.stop_patience)
            )
        else:
            log(f"going on from epoch {state.epoch + 1}, step {state.step}")
        with Events(
            folder.folder / "tensorboard", wanted=settings.tensorboard, anew=not state.history
        ) as events:
            loop = _Loop(
                method,
                feed_train,
                feed_validation,
                settings,
                folder,
                checkpoints,
                lock,
                interruption,
                events,
                state,
                log,
                watch,
            )
            loop.run(terminal)
    if settings.select.by == "loss":
        assign(method.model.variables, state.best)
    return pd.DataFrame(state.history).astype({"epoch": "int64"})


class _Loop:
    """One process's part of a training; everything that must outlast it is in `state`."""

    def __init__(
        self,
        method: Method,
        feed_train: Feed,
        feed_validation: Feed,
        settings: Training,
        folder: StateFolder,
        checkpoints: Checkpoints,
        lock: Lock,
        interruption: Interruption,
        events: Events,
        state: State,
        log: Log,
        watch: Callable[[int], None] | None,
    ) -> None:
        self.method = method
        self.feed_train, self.feed_validation = feed_train, feed_validation
        self.settings, self.folder, self.lock = settings, folder, lock
        self.checkpoints = checkpoints
        self.interruption, self.events = interruption, events
        self.state, self.log, self.watch = state, log, watch
        #: Most seconds of a first step, which compiles; so does the first of each other kind.
        self.first_s = 0.0
        self.is_first = False
        self.compiled: set[Hashable] = set()
        #: The factor that the optimizers' learning rates have; None before the first update.
        self.factor: float | None = None

    @property
    def learning_rate(self) -> float:
        """That of the network that is asked for, as its last update had it."""
        return float(keras.ops.convert_to_numpy(self.method.learners[0].optimizer.learning_rate))

    @property
    def finished(self) -> bool:
        return self.state.epoch >= self.settings.epochs or self.state.schedule.stop

    def run(self, terminal: TextIO | None) -> None:
        """Go on until the end, a signal or the deadline."""
        self.checkpoints.check(self.state.epoch, self.finished)
        if self.finished:
            return
        per_epoch = self.feed_train.steps
        self.per_epoch = -(-per_epoch // self.settings.accumulate)
        self.updates = self.settings.epochs * self.per_epoch
        if self.settings.schedule == "cosine" and self.settings.warmup_updates >= self.updates:
            raise UserError(
                "training.warmup_updates",
                f"fewer than the {self.updates} updates of all epochs",
                self.settings.warmup_updates,
            )
        done = self.state.epoch * per_epoch + self.state.step
        self.progress = Progress(
            self.settings.epochs * per_epoch,
            done,
            self.feed_train.batch,
            self.log,
            terminal,
            memory_gb=memory_gb,
        )
        try:
            self.saved = self.ticked = time.monotonic()
            if self.interruption.deadline_s is not None:
                # How long a save takes must be known before there is something to lose.
                self._save()
            self._stop_if_asked()
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
            self._step(x, y)
            self.progress.step(state.epoch + 1, self.method.total(state.losses.means))
            # What follows may have to be compiled: validation, or a step of another kind.
            self._pause()

    def _place(self, epoch: int, step: int) -> Place:
        """That of a step of an epoch, whose last one ends an update in any case."""
        per_update, steps = self.settings.accumulate, self.feed_train.steps
        first = step - step % per_update
        end = min(first + per_update, steps)
        return Place(
            batch=epoch * steps + step,
            update=epoch * self.per_epoch + step // per_update,
            count=end - first,
            last=step + 1 == end,
            epoch=epoch,
        )

    def _step(self, x: np.ndarray, y: Mapping[str, np.ndarray]) -> None:
        """A batch, and an update of the weights with the last of an update's."""
        state = self.state
        place = self._place(state.epoch, state.step)
        self._begin()
        if place.last:
            self._set_rates(place.update)
        losses, norm = self.method.train(x, y, place)
        self._check(losses, norm, f"step {state.step + 1}", x, y)
        state.step += 1
        state.losses.add(losses)

    def _set_rates(self, update: int) -> None:
        """The learning rates of an update, where they are others than the last one's."""
        settings = self.settings
        scale = factor(settings.schedule, update, settings.warmup_updates, self.updates)
        if self.state.lowered * scale == self.factor:
            return
        # Only then: a variable that is set, or asked, waits for the device.
        self.factor = self.state.lowered * scale
        for learner in self.method.learners:
            learner.optimizer.learning_rate = learner.rate * self.factor

    def _validate(self) -> dict[str, float]:
        """Mean of each output's loss over all validation patches."""
        state = self.state
        for x, y in self.feed_validation.in_order(state.validated):
            self._begin()
            losses = self.method.evaluate(x, y)
            self._check(losses, 0.0, "validation", x, y)
            state.validated += 1
            state.validation.add(losses, len(x))
            self._pause()
        return state.validation.means

    def _end_epoch(self, validation: Mapping[str, float]) -> None:
        state, total, loss = self.state, self.method.total, self.state.losses.means
        row = {"epoch": state.epoch + 1, "loss": total(loss)}
        row |= {f"loss_{name}": value for name, value in loss.items()}
        row |= {"val_loss": total(validation)}
        row |= {f"val_loss_{name}": value for name, value in validation.items()}
        row |= {"learning_rate": self.learning_rate, "seconds": state.seconds}
        if self.method.settled((state.epoch + 1) * self.per_epoch):
            state.schedule, gained, lower = state.schedule.after(row["val_loss"])
        else:
            gained, lower = True, False
        if gained:
            state.best = values(self.method.model.variables)
        if lower and self.settings.schedule == "plateau":
            state.lowered *= state.schedule.factor
        state.history.append(row)
        self.events.epoch(row)
        state.epoch, state.step, state.validated = state.epoch + 1, 0, 0
        state.losses, state.validation, state.seconds = Means(), Means(), 0.0
        note = "  (best)" if gained else ""
        if state.schedule.stop:
            note += f"  no gain in {state.schedule.without_gain} epochs: end"
        self.progress.epoch(state.epoch, self.settings.epochs, row, note)
        self.lock.check()
        self.checkpoints.save(state.epoch, self.finished, self.method.model.variables)
        if self.watch is not None:
            self.watch(state.epoch)
        self._save()

    @property
    def coming(self) -> Hashable:
        """Which compiled step the next batch takes; validation's last batch may be smaller."""
        state = self.state
        if state.step < self.feed_train.steps:
            return self.method.kind(self._place(state.epoch, state.step))
        size = self.feed_validation.size(state.validated)
        return ("validation", size) if size else self.method.kind(self._place(state.epoch + 1, 0))

    def _begin(self) -> None:
        """Note whether the step that begins has to be compiled."""
        self.is_first = self.coming not in self.compiled
        self.compiled.add(self.coming)

    def _pause(self) -> None:
        """Between two steps: keep the time, save when it is due, stop when it is asked for."""
        now = time.monotonic()
        if self.is_first:
            self.first_s = max(self.first_s, now - self.ticked)
        self.interruption.coming_s = 0.0 if self.coming in self.compiled else self.first_s
        self.interruption.took(now - self.ticked)
        self.state.seconds += now - self.ticked
        self.ticked = now
        self._stop_if_asked()
        if now - self.saved >= 60 * self.settings.save_minutes:
            self._save()

    def _stop_if_asked(self) -> None:
        reason = self.interruption.reason
        if reason:
            # Before the first step there is nothing new to save, nor time.
            if self.ticked > self.saved:
                self._save()
            state = self.state
            raise Unfinished(
                f"stopped by {reason} in epoch {state.epoch + 1} after step {state.step}; "
                "the state is saved, run again to go on"
            )

    def _save(self) -> None:
        start = time.monotonic()
        self.lock.check()
        try:
            self.folder.save(self.state)
        except FloatingPointError as error:
            state = self.state
            raise self._diverged(
                str(error), f"some that are not in epoch {state.epoch + 1} after step {state.step}"
            ) from None
        self.saved = self.ticked = time.monotonic()
        self.interruption.saved(self.saved - start)

    def _check(
        self,
        losses: Mapping[str, float],
        norm: float,
        where: str,
        x: np.ndarray,
        y: Mapping[str, np.ndarray],
    ) -> None:
        """Raise `UserError` for a loss or a gradient that is not finite: nothing is saved then."""
        found = {f"the loss of {output!r}": loss for output, loss in losses.items()}
        found["the gradient"] = norm
        what = next((name for name, value in found.items() if not math.isfinite(value)), None)
        if what is None:
            return
        state = self.state
        feed, epoch, step = (
            (self.feed_validation, None, state.validated)
            if where == "validation"
            else (self.feed_train, state.epoch, state.step)
        )
        where = f"epoch {state.epoch + 1}, {where}"
        bad = feed.broken((x, dict(y)), epoch, step)
        if bad.size:
            raise UserError(
                "dataset", "finite maps", f"others in realizations {_listed(bad)} ({where})"
            )
        numbers = _listed(feed.numbers(epoch, step))
        raise self._diverged(what, f"{found[what]} in {where}, realizations {numbers}")

    def _diverged(self, what: str, found: str) -> UserError:
        return UserError(
            "training.learning_rate",
            f"one with which {what} stays finite, or a `clip_norm`",
            f"{self.settings.learning_rate:g}: {found}",
        )


def _listed(numbers: np.ndarray) -> str:
    return ", ".join(str(number) for number in numbers)
