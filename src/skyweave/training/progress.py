"""How far a training is: a bar on a terminal, plain lines in a log."""

import math
import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

Log = Callable[[str], None]


def to_stderr(line: str) -> None:
    """The log that is used when none is given; leaves a bar on the terminal whole."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


class Progress:
    """Tells steps done of `total`, loss, patches a second, memory and the time left at most.

    A bar is drawn on `terminal` (stderr if None) if that is one; lines go to `log` each epoch,
    and every `every_s` seconds where no bar stands in their way.
    """

    def __init__(
        self,
        total: int,
        done: int,
        batch: int,
        log: Log,
        terminal: TextIO | None = None,
        every_s: float = 10.0,
        *,
        memory_gb: Callable[[], float],
    ) -> None:
        self.total, self.done, self.batch = total, done, batch
        self.log, self.memory_gb = log, memory_gb
        self._start = self._told = time.monotonic()
        self._first = done
        screen = terminal or sys.stderr
        self._bar = None
        self.every_s = every_s
        if screen.isatty():
            self._bar = tqdm(
                total=total,
                initial=done,
                unit="step",
                dynamic_ncols=True,
                leave=False,
                file=screen,
            )
            if screen is sys.stderr:
                self.every_s = math.inf

    def step(self, epoch: int, loss: float) -> None:
        """Note a training step of `epoch` (counted from 1) and the epoch's mean loss so far."""
        self.done += 1
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"epoch {epoch}, loss {loss:.4g}, {self._speed(now)}", refresh=False
            )
            self._bar.update()
        if now - self._told >= self.every_s:
            self._told = now
            self.log(
                f"epoch {epoch}  step {self.done}/{self.total}  loss {loss:.4g}  "
                f"{self._speed(now)}  at most {self.left(now)} left"
            )

    def epoch(self, epoch: int, epochs: int, row: dict[str, float], note: str) -> None:
        """Tell an epoch's results."""
        now = self._told = time.monotonic()
        self.log(
            f"epoch {epoch}/{epochs}  loss {row['loss']:.5g}  val_loss {row['val_loss']:.5g}  "
            f"learning_rate {row['learning_rate']:.3g}  {row['seconds']:.1f} s  "
            f"{self._speed(now)}  at most {self.left(now)} left{note}"
        )

    def _speed(self, now: float) -> str:
        return f"{self.rate(now):.3g} patches/s, {self.memory_gb():.2g} GB"

    def rate(self, now: float) -> float:
        """Patches a second since this process began, validation and saving included."""
        return (self.done - self._first) * self.batch / max(now - self._start, 1e-9)

    def left(self, now: float) -> str:
        """Time for the remaining steps, as minutes and seconds."""
        rate = self.rate(now)
        if not rate:
            return "an unknown time"
        seconds = round((self.total - self.done) * self.batch / rate)
        return f"{seconds // 60} min {seconds % 60:02d} s"

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
