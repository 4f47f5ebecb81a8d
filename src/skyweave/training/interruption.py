"""Signals and the wall clock, asked for between steps."""

import signal
import threading
import time
from collections import deque
from types import FrameType, TracebackType
from typing import Any, Self


class Interruption:
    """Watch for SIGTERM, SIGINT and a deadline while the block runs.

    `deadline_s` counts from the block's start. It is near when what comes next could pass it: twice
    the longest of the last steps and saves, and `coming_s`, what is known to come besides.
    """

    def __init__(self, deadline_s: float | None) -> None:
        self.deadline_s = deadline_s
        self.signal: str | None = None
        self.coming_s = 0.0
        self._steps: deque[float] = deque(maxlen=20)
        self._saves: deque[float] = deque(maxlen=5)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        # Python lets only the main thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._received)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    def took(self, seconds: float) -> None:
        """Note how long a step lasted."""
        self._steps.append(seconds)

    def saved(self, seconds: float) -> None:
        """Note how long it took to save."""
        self._saves.append(seconds)

    @property
    def reason(self) -> str | None:
        """Why to stop now, or None."""
        if self.signal:
            return self.signal
        if self.deadline_s is None:
            return None
        # The first step compiles and is no measure of the next.
        recent = list(self._steps)[1:] or list(self._steps)
        margin = 2 * (max(recent, default=0.0) + max(self._saves, default=0.0)) + self.coming_s
        if time.monotonic() - self._start + margin >= self.deadline_s:
            return f"its limit of {self.deadline_s:g} s"
        return None
