"""Timing two things against each other."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Side:
    """One of two things to compare: `run(start, count)` does the items from `start` on."""

    run: Callable[[int, int], object]
    count: int

    def seconds(self, block: int) -> float:
        """Seconds an item in one block."""
        start = time.perf_counter()
        self.run(block * self.count, self.count)
        return (time.perf_counter() - start) / self.count


def paired(ours: Side, peer: Side, blocks: int) -> tuple[float, float]:
    """Seconds an item of ours and of the peer: medians over blocks that take turns.

    In turns, because other work on the machine then slows both. A first block of each is not
    counted.
    """
    times = np.array([[ours.seconds(block), peer.seconds(block)] for block in range(blocks + 1)])
    mine, theirs = np.median(times[1:], axis=0)
    return float(mine), float(theirs)
