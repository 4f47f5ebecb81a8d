"""Random numbers keyed by identity, so that shards, cores and retries cannot change a draw."""

import zlib

import numpy as np


def generator(seed: int, *identity: str | int) -> np.random.Generator:
    """Generator for the draw named by `identity`, e.g. ``(dataset, realization, component)``.

    Words enter by their CRC-32, which no interpreter's hash seed changes; numbers as they are.
    The length of the identity is part of the key, so ``("a",)`` and ``("a", 0)`` differ.
    """
    return np.random.Generator(np.random.PCG64DXSM(_sequence(seed, identity)))


def key(seed: int, *identity: str | int) -> tuple[int, int]:
    """Two 32-bit words for what `identity` names, hashed in the same way."""
    first, second = _sequence(seed, identity).generate_state(2)
    return int(first), int(second)


def _sequence(seed: int, identity: tuple[str | int, ...]) -> np.random.SeedSequence:
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in identity]
    return np.random.SeedSequence(seed, spawn_key=(len(words), *words))
