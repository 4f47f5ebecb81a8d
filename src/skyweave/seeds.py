"""Random numbers keyed by identity, so that shards, cores and retries cannot change a draw."""

import zlib

import numpy as np


def generator(seed: int, *identity: str | int) -> np.random.Generator:
    """Generator for the draw named by `identity`, e.g. ``(dataset, realization, component)``.

    Words enter by their CRC-32, which no interpreter's hash seed changes; numbers as they are.
    The length of the identity is part of the key, so ``("a",)`` and ``("a", 0)`` differ.
    """
    key = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in identity]
    sequence = np.random.SeedSequence(seed, spawn_key=(len(key), *key))
    return np.random.Generator(np.random.PCG64DXSM(sequence))
