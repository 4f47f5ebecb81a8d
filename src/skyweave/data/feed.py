"""Batches for training and validation, in an order that a cursor alone resumes."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np

from skyweave import seeds
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet
from skyweave.errors import UserError

#: Inputs (n, y, x, fields) and, per target, (n, y, x, 1); float32, normalized.
Batch = tuple[np.ndarray, dict[str, np.ndarray]]


class BatchFeed:
    """Normalized batches, channels last, of some realizations of a dataset.

    The order within epoch e is drawn by (seed, *identity, e), so that (epoch, step) is the whole
    cursor. `noise` is the rms of white noise that is added to the normalized inputs, another in
    each epoch, and the same each time `in_order`; `drawn` more inputs are such noise alone, with an
    rms of 1. Sets below `cache_bytes` are kept in memory, others are read as they are needed.
    """

    #: Whether a truth is its input's.
    paired = True

    def __init__(
        self,
        shards: ShardSet,
        inputs: Sequence[str],
        targets: Sequence[str],
        normalization: Normalization,
        realizations: Sequence[int] | np.ndarray,
        batch: int,
        seed: int,
        identity: Sequence[str | int],
        *,
        noise: float = 0.0,
        drawn: int = 0,
        cache_bytes: float = 1e9,
    ) -> None:
        self.noise, self.drawn = float(noise), int(drawn)
        self.shards, self.normalization = shards, normalization
        self.inputs, self.targets = tuple(inputs), tuple(targets)
        self.realizations = np.unique(np.asarray(realizations, dtype=np.int64))
        self.batch, self.seed, self.identity = int(batch), int(seed), tuple(identity)
        if not self.realizations.size:
            raise UserError("split", "at least one realization to feed", "none")
        for role, names in (("inputs", self.inputs), ("targets", self.targets)):
            for name in names:
                if name not in shards.fields:
                    known = ", ".join(shards.fields)
                    raise UserError(role, f"fields of the shards ({known})", repr(name))
        size = self.realizations.size * shards.pixels**2 * 4
        self._cached = size * len({*self.inputs, *self.targets}) < cache_bytes
        self._cache: dict[str, np.ndarray] = {}

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that decides the batches."""
        identity = {
            "provenance": self.shards.provenance,
            "grid": (self.shards.size_deg, self.shards.pixels),
            "normalization": self.normalization.to_dict(),
            "realizations": self.realizations.tolist(),
            "inputs": self.inputs,
            "targets": self.targets,
            "batch": self.batch,
            "seed": self.seed,
            "identity": self.identity,
        }
        identity |= {
            name: getattr(self, name) for name in ("noise", "drawn") if getattr(self, name)
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def steps(self) -> int:
        """Whole batches in an epoch; the rest of the order is left out.

        Raises `UserError` for a batch larger than the set.
        """
        if self.batch > self.realizations.size:
            raise UserError(
                "training.batch", f"at most the set's {self.realizations.size}", self.batch
            )
        return self.realizations.size // self.batch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of an epoch, each of the full size."""
        return ahead(partial(self._batch, epoch), self._rows(epoch)[start:])

    def in_order(self, start: int = 0) -> Iterator[Batch]:
        """Every realization once, ascending, from batch `start` on; the last may be smaller."""
        return ahead(partial(self._batch, None), self._rows(None)[start:])

    def size(self, batch: int) -> int:
        """Realizations in that batch of `in_order`; 0 behind the last."""
        return min(self.batch, max(self.realizations.size - batch * self.batch, 0))

    def numbers(self, epoch: int | None, step: int) -> np.ndarray:
        """Realizations of a batch of an epoch, or of `in_order` with None, in its order."""
        return self.realizations[self._rows(epoch)[step]]

    def broken(self, batch: Batch, epoch: int | None, step: int) -> np.ndarray:
        """Those of `numbers` whose maps in the batch are not finite."""
        x, y = batch
        finite = [np.isfinite(maps.reshape(len(x), -1)).all(axis=1) for maps in (x, *y.values())]
        return self.numbers(epoch, step)[: len(x)][~np.logical_and.reduce(finite)]

    def _rows(self, epoch: int | None) -> Sequence[np.ndarray]:
        """The places among `realizations` that make each batch."""
        count = self.realizations.size
        if epoch is None:
            rows = np.arange(count)
            return [rows[at : at + self.batch] for at in range(0, count, self.batch)]
        order = seeds.generator(self.seed, *self.identity, "order", epoch).permutation(count)
        return list(order[: self.steps * self.batch].reshape(self.steps, self.batch))

    def _batch(self, epoch: int | None, rows: np.ndarray) -> Batch:
        channels = [self._maps(name, rows) for name in self.inputs]
        targets = {name: self._maps(name, rows)[..., None] for name in self.targets}
        x = np.stack(channels, axis=-1)
        if self.noise:
            x += self._white("noise", self.noise, x.shape, epoch, rows)
        if self.drawn:
            shape = (*x.shape[:-1], self.drawn)
            x = np.concatenate([x, self._white("drawn", 1.0, shape, epoch, rows)], axis=-1)
        return x, targets

    def _white(
        self, purpose: str, rms: float, shape: tuple[int, ...], epoch: int | None, rows: np.ndarray
    ) -> np.ndarray:
        """White noise of that shape for the realizations of some rows, another in each epoch."""
        key = (*self.identity, purpose, "in order" if epoch is None else epoch)
        noise = np.empty(shape, np.float32)
        for row, number in enumerate(self.realizations[rows]):
            noise[row] = white_noise(rms, shape[1:], self.seed, *key, int(number))
        return noise

    def _maps(self, field: str, rows: np.ndarray) -> np.ndarray:
        if not self._cached:
            return self.normalization.apply(field, self.shards.read(field, self.realizations[rows]))
        if field not in self._cache:
            maps = self.shards.read(field, self.realizations)
            for one in maps:
                one[:] = self.normalization.apply(field, one)
            self._cache[field] = maps
        return self._cache[field][rows]


class UnpairedFeed:
    """Inputs of one feed with the truths of another, of other realizations."""

    #: Whether a truth is its input's.
    paired = False

    def __init__(self, inputs: BatchFeed, truths: BatchFeed) -> None:
        if inputs.batch != truths.batch:
            raise UserError("batch", f"that of the inputs, {inputs.batch}", truths.batch)
        shared = np.intersect1d(inputs.realizations, truths.realizations)
        if shared.size:
            raise UserError("realizations", "others for truths than for inputs", shared[0])
        self.feeds = inputs, truths
        self.batch = inputs.batch

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that decides the batches."""
        text = " ".join(feed.fingerprint for feed in self.feeds)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def steps(self) -> int:
        """Whole batches in an epoch: as many as both have."""
        return min(feed.steps for feed in self.feeds)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of an epoch, each of the full size."""
        pairs = zip(*(feed.epoch(epoch, start) for feed in self.feeds), strict=False)
        return ((x, y) for (x, _), (_, y) in pairs)

    def in_order(self, start: int = 0) -> Iterator[Batch]:
        """Examples in ascending order from batch `start` on, as many as both have."""
        for (x, _), (_, y) in zip(*(feed.in_order(start) for feed in self.feeds), strict=False):
            size = min(len(x), *(len(maps) for maps in y.values()))
            yield x[:size], {name: maps[:size] for name, maps in y.items()}

    def size(self, batch: int) -> int:
        """Examples in that batch of `in_order`; 0 behind the last."""
        return min(feed.size(batch) for feed in self.feeds)

    def numbers(self, epoch: int | None, step: int) -> np.ndarray:
        """Realizations of a batch, of either feed."""
        return np.union1d(*(feed.numbers(epoch, step) for feed in self.feeds))

    def broken(self, batch: Batch, epoch: int | None, step: int) -> np.ndarray:
        """Those of `numbers` whose maps in the batch are not finite."""
        (x, y), (inputs, truths) = batch, self.feeds
        return np.union1d(
            inputs.broken((x, {}), epoch, step),
            truths.broken((np.zeros((len(x), 0)), y), epoch, step),
        )


class Feed(Protocol):
    """What a training asks of its batches; `BatchFeed` says what each is."""

    paired: bool
    batch: int

    @property
    def fingerprint(self) -> str: ...

    @property
    def steps(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...

    def in_order(self, start: int = 0) -> Iterator[Batch]: ...

    def size(self, batch: int) -> int: ...

    def numbers(self, epoch: int | None, step: int) -> np.ndarray: ...

    def broken(self, batch: Batch, epoch: int | None, step: int) -> np.ndarray: ...


def white_noise(rms: float, shape: tuple[int, ...], seed: int, *identity: str | int) -> np.ndarray:
    """Independent normal numbers of this rms, float32, drawn by (seed, *identity)."""
    draw = seeds.generator(seed, *identity).standard_normal(shape, np.float32)
    return np.float32(rms) * draw


def ahead(make: Callable[[np.ndarray], Batch], rows: Iterable[np.ndarray]) -> Iterator[Batch]:
    """Batches in order, the next one made by a thread while the caller works on the last."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for part in rows:
            coming = pool.submit(make, part)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
