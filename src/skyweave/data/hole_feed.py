"""Batches of maps with holes, ever new ones, in an order that a cursor alone resumes."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from skyweave import seeds
from skyweave.data.feed import Batch, BatchFeed, ahead
from skyweave.errors import UserError

#: A hole (y, x), True where the map is missing, of a generator. It may have a method `numbered`,
#: which makes it of a number and a generator, and a `digest` of what holes are cut from.
Draw = Callable[[np.random.Generator], np.ndarray]
#: Filled maps (n, fields, y, x) of maps with zeros in holes (n, y, x); all normalized.
Start = Callable[[np.ndarray, np.ndarray], np.ndarray]


class HoleFeed:
    """The inputs of `feed` with holes, and without as truths.

    Inputs (n, y, x, channels) are the normalized fields with zeros in holes, what is seen (1, and 0
    in holes), and, with `start`, filled fields that a network begins with. Truths are the fields
    (n, y, x, 1) by name, those of the feed where it has them, and `seen`.

    A hole is drawn by (seed, *identity, "holes", epoch, place in the epoch, realization): another
    for each map in each epoch; `in_order`, by the realization alone, so that it stays, and by its
    place in the set where holes are numbered. In the first `warm_epochs` all examples are the set's
    first realization, with a hole each.

    `told` says what `holes` and `start` are, plain values for the fingerprint, beside the holes'
    `digest`. Raises `UserError` for a feed that draws inputs.
    """

    #: Whether a truth is its input's.
    paired = True

    def __init__(
        self,
        feed: BatchFeed,
        holes: Draw,
        *,
        start: Start | None = None,
        warm_epochs: int = 0,
        told: Mapping[str, Any] | None = None,
    ) -> None:
        if feed.drawn:
            raise UserError("feed", "fields alone", f"{feed.drawn} inputs of noise")
        self.feed, self.holes, self.start = feed, holes, start
        self.warm_epochs, self.told = int(warm_epochs), dict(told or {})
        self.batch, self.fields = feed.batch, feed.inputs

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that decides the batches."""
        identity = {
            "feed": self.feed.fingerprint,
            "holes": self.told,
            "start": self.start is not None,
            "warm_epochs": self.warm_epochs,
        }
        if digest := getattr(self.holes, "digest", ""):
            identity["pieces"] = digest
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def steps(self) -> int:
        """Whole batches in an epoch."""
        return self.feed.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of an epoch, each of the full size."""
        if epoch < self.warm_epochs:
            maps = self._warm(max(self.steps - start, 0))
        else:
            maps = self.feed.epoch(epoch, start)
        places = np.arange(start * self.batch, self.steps * self.batch).reshape(-1, self.batch)
        return ahead(partial(self._next, epoch, maps), places)

    def in_order(self, start: int = 0) -> Iterator[Batch]:
        """Every realization once, ascending, from batch `start` on; the last may be smaller."""
        places = np.arange(self.feed.realizations.size)[start * self.batch :]
        parts = [places[at : at + self.batch] for at in range(0, places.size, self.batch)]
        return ahead(partial(self._next, None, self.feed.in_order(start)), parts)

    def size(self, batch: int) -> int:
        """Realizations in that batch of `in_order`; 0 behind the last."""
        return self.feed.size(batch)

    def numbers(self, epoch: int | None, step: int) -> np.ndarray:
        """Realizations of a batch of an epoch, or of `in_order` with None, in its order."""
        if epoch is not None and epoch < self.warm_epochs:
            return np.repeat(self.feed.realizations[:1], self.batch)
        return self.feed.numbers(epoch, step)

    def broken(self, batch: Batch, epoch: int | None, step: int) -> np.ndarray:
        """Those of `numbers` whose maps in the batch are not finite."""
        x, y = batch
        finite = [np.isfinite(maps.reshape(len(x), -1)).all(axis=1) for maps in (x, *y.values())]
        return np.unique(self.numbers(epoch, step)[: len(x)][~np.logical_and.reduce(finite)])

    def _warm(self, steps: int) -> Iterator[Batch]:
        """The first realization in every place of `steps` batches."""
        maps, truths = next(self.feed.in_order())
        for _ in range(steps):
            repeated = {name: np.repeat(one[:1], self.batch, 0) for name, one in truths.items()}
            yield np.repeat(maps[:1], self.batch, 0), repeated

    def _next(self, epoch: int | None, batches: Iterator[Batch], places: np.ndarray) -> Batch:
        """The next of the feed's batches, with holes; `places` are those of its maps in it all."""
        maps, truths = next(batches)
        numbers = self.numbers(epoch, int(places[0]) // self.batch)
        # One after the other, pieces do not repeat while there are enough.
        numbered = getattr(self.holes, "numbered", None) if epoch is None else None
        holes = np.empty(maps.shape[:3], bool)
        for row, (place, number) in enumerate(zip(places, numbers, strict=True)):
            key = ("in order",) if epoch is None else (epoch, int(place))
            rng = seeds.generator(self.feed.seed, *self.feed.identity, "holes", *key, int(number))
            holes[row] = self.holes(rng) if numbered is None else numbered(int(place), rng)
        x, seen = self._with_holes(maps, holes)
        fields = {name: maps[..., i : i + 1].copy() for i, name in enumerate(self.fields)}
        return x, fields | truths | {"seen": seen}

    def _with_holes(self, maps: np.ndarray, holes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs, and what of them is seen (n, y, x, 1)."""
        missing = holes[..., None]
        seen = (~missing).astype(np.float32)
        # Not a product: what is not finite in a hole is not to be seen either.
        given = np.where(missing, np.float32(0), maps)
        x = [given, seen]
        if self.start is not None:
            # Maps that are not finite are found in the truths (`broken`), by their numbers.
            finite = np.where(np.isfinite(given), given, np.float32(0))
            filled = self.start(np.moveaxis(finite, -1, 1), holes)
            x.append(np.moveaxis(filled, 1, -1).astype(np.float32))
        return np.concatenate(x, axis=-1), seen
