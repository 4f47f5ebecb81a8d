"""Batches of stretched images, turned at random, in an order that a cursor alone resumes."""

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from skyweave import seeds
from skyweave.data.feed import Batch, BatchFeed, ahead
from skyweave.errors import UserError
from skyweave.images.stretch import Scale

#: Images that are read together while a set is made ready.
_BLOCK = 64


class ImageFeed:
    """The images of `feed`, stretched by `scale`, as inputs and as truths.

    Inputs (n, y, x, bands) are all its inputs, fluxes, truths (n, y, x, 1) the same by band. With
    `turns` an image of an `epoch` is turned by quarters and mirrored, all its bands alike, as drawn
    by (seed, *identity, "turn", epoch, realization); `in_order` they stay as they are. Sets below
    `cache_bytes` are stretched once and kept in memory.

    Raises `UserError` for a feed with noise, or whose targets are not its inputs.
    """

    #: Whether a truth is its input's.
    paired = True

    def __init__(
        self, feed: BatchFeed, scale: Scale, *, turns: bool, cache_bytes: float = 1e9
    ) -> None:
        check(feed)
        self.feed, self.scale, self.turns = feed, scale, bool(turns)
        self.batch, self.fields = feed.batch, feed.inputs
        self._images = Kept(
            partial(fluxes, feed), feed.realizations.size, scale.apply, cache_bytes=cache_bytes
        )

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that decides the batches."""
        identity = {
            "feed": self.feed.fingerprint,
            "scale": self.scale.to_dict(),
            "turns": self.turns,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def steps(self) -> int:
        """Whole batches in an epoch."""
        return self.feed.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of an epoch, each of the full size."""
        return ahead(partial(self._batch, epoch), batches(self.feed, epoch, start))

    def in_order(self, start: int = 0) -> Iterator[Batch]:
        """Every realization once, ascending, from batch `start` on; the last may be smaller."""
        return ahead(partial(self._batch, None), batches(self.feed, None, start))

    def size(self, batch: int) -> int:
        """Realizations in that batch of `in_order`; 0 behind the last."""
        return self.feed.size(batch)

    def numbers(self, epoch: int | None, step: int) -> np.ndarray:
        """Realizations of a batch of an epoch, or of `in_order` with None, in its order."""
        return self.feed.numbers(epoch, step)

    def broken(self, batch: Batch, epoch: int | None, step: int) -> np.ndarray:
        """Those of `numbers` whose images in the batch are not finite."""
        return self.feed.broken(batch, epoch, step)

    def _batch(self, epoch: int | None, numbers: np.ndarray) -> Batch:
        images = self._images(np.searchsorted(self.feed.realizations, numbers))
        if self.turns and epoch is not None:
            for image, number in zip(images, numbers, strict=True):
                image[:] = turned(image, _turn(self.feed, epoch, int(number)))
        return images, by_band(images, self.fields)


class Kept:
    """What `make` makes of images (n, y, x, bands), kept in memory where it is below `cache_bytes`.

    `read` gives the images of some of `count` rows; each is made by itself, so that its bytes do
    not depend on the others.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        count: int,
        make: Callable[[np.ndarray], np.ndarray],
        *,
        cache_bytes: float,
    ) -> None:
        self._read, self._count, self._make = read, count, make
        self._cache_bytes = cache_bytes
        self._kept: np.ndarray | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Images (rows, y, x, channels) float32, a copy."""
        if self._kept is not None:
            return self._kept[rows]
        made = self._made(rows)
        if self._count * made[0].nbytes >= self._cache_bytes:
            return made
        kept = np.empty((self._count, *made.shape[1:]), np.float32)
        for part in np.array_split(np.arange(self._count), -(-self._count // _BLOCK)):
            kept[part] = self._made(part)
        self._kept = kept
        return made

    def _made(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._make(image) for image in self._read(rows)])


def check(feed: BatchFeed) -> None:
    """Raise `UserError` for a feed with noise, or whose targets are not its inputs."""
    if feed.drawn or feed.noise:
        raise UserError("feed", "images alone", "inputs of noise, or with noise")
    if {*feed.inputs} != {*feed.targets}:
        expected, found = ", ".join(feed.inputs), ", ".join(feed.targets) or "none"
        raise UserError("feed.targets", f"the bands of the inputs ({expected})", found)


def fluxes(feed: BatchFeed, rows: np.ndarray) -> np.ndarray:
    """Images (rows, y, x, bands) float32 of some rows of a feed's realizations, as it has them."""
    numbers = feed.realizations[rows]
    bands = [feed.normalization.apply(n, feed.shards.read(n, numbers)) for n in feed.inputs]
    return np.stack(bands, axis=-1)


def batches(feed: BatchFeed, epoch: int | None, start: int) -> Iterator[np.ndarray]:
    """Realizations of each batch of an epoch, or of `in_order` with None, from `start` on."""
    count = feed.steps if epoch is not None else -(-feed.realizations.size // feed.batch)
    return (feed.numbers(epoch, step) for step in range(start, count))


def turned(image: np.ndarray, symmetry: int) -> np.ndarray:
    """Image (y, x, …) under one of the symmetries 0 … 7 of the square; 0 leaves it."""
    image = np.rot90(image, symmetry % 4)
    return np.swapaxes(image, 0, 1) if symmetry >= 4 else image


def by_band(images: np.ndarray, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Images (n, y, x, bands) → {band: (n, y, x, 1)}, copies."""
    return {name: images[..., i : i + 1].copy() for i, name in enumerate(fields)}


def _turn(feed: BatchFeed, epoch: int, number: int) -> int:
    """The symmetry of a realization in an epoch."""
    return int(seeds.generator(feed.seed, *feed.identity, "turn", epoch, number).integers(8))
