"""Normal numbers by identity: the published answers of their generator, and their statistics."""

import numpy as np
import pytest
from scipy import stats

from skyweave import seeds
from skyweave.simulation.normals import Normals, _box_muller, philox

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((ONES,) * 4, (ONES,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_its_known_answers(counter, key, expected):
    """Those that its authors published with it (Random123, kat_vectors)."""
    words = np.array([*counter, *key], np.uint64)
    found = [np.empty(1, np.uint32) for _ in range(4)]
    philox(words[0], words[1:4], words[4:], *found)
    assert " ".join(f"{word[0]:08x}" for word in found) == expected


def test_box_muller_is_the_formula():
    bits = np.random.default_rng(1).integers(0, 2**32, (2, 100_000), dtype=np.uint32)
    # The ends of both intervals, and the borders of the quarters.
    edges = np.array([0, 1, 2**29, 2**30, 2**31 - 1, 2**31, 3 * 2**30, ONES], np.uint32)
    radius_bits, angle_bits = (
        np.concatenate([b, e]) for b, e in zip(bits, (edges, edges), strict=True)
    )
    cosine, sine = np.empty(radius_bits.size), np.empty(radius_bits.size)
    _box_muller(radius_bits, angle_bits, cosine, sine)
    radius = np.sqrt(-2 * np.log(np.minimum((radius_bits >> 1) * 2.0**-31 + 2.0**-33, 1)))
    angle = 2 * np.pi * angle_bits.astype(np.int32) / 2.0**32
    # Where u is next to 1 the radius, near 0, is only as good as a float's last bit below 1.
    assert np.abs(cosine - radius * np.cos(angle)).max() < 4e-4
    assert np.median(np.abs(cosine - radius * np.cos(angle))) < 1e-7
    far = radius > 0.05
    assert np.abs(sine - radius * np.sin(angle))[far].max() < 3e-6
    assert np.isfinite([cosine, sine]).all()


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    return Normals(seeds.key(3, "unit"), 7, "e").standard_normal(4_000_000)


def test_numbers_are_normal(many):
    count = many.size
    assert stats.kstest(many, "norm").pvalue > 0.001
    for order, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(np.mean(many**order) - expected) < 3.5 * np.sqrt(variance / count)
    tail = stats.binomtest(int(np.sum(np.abs(many) > 4)), count, 2 * stats.norm.sf(4))
    assert tail.pvalue > 0.001
    assert np.abs(many).max() > 4.8


@pytest.mark.parametrize("lag", [1, 2, 3, 1024, 2048, 3072, 4096])
def test_numbers_are_independent(many, lag):
    """Of neighbours, of the four numbers of a block, and of chunks: values and squares."""
    first, second = many[:-lag], many[lag:]
    bar = 4 / np.sqrt(first.size)
    assert abs(np.corrcoef(first, second)[0, 1]) < bar
    assert abs(np.corrcoef(first**2, second**2)[0, 1]) < bar


def test_every_identity_has_its_own_numbers():
    key = seeds.key(3, "unit")
    identities = [(key, 7, "e"), (key, 8, "e"), (key, 7, "t"), (seeds.key(4, "unit"), 7, "e")]
    identities += [(seeds.key(3, "other"), 7, "e"), (key, 7 + 2**32, "e")]
    drawn = [Normals(*identity).standard_normal(100_000) for identity in identities]
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 4 / np.sqrt(100_000)


def test_first_numbers_are_the_same_however_many_are_asked_for(many):
    for size in (1, 10, 4096, 4097, (100, 100)):
        found = Normals(seeds.key(3, "unit"), 7, "e").standard_normal(size)
        assert found.shape == (size if isinstance(size, tuple) else (size,))
        assert np.array_equal(found.ravel(), many[: found.size])


def test_later_calls_go_on():
    numbers = Normals(seeds.key(3, "unit"), 7, "e")
    first, second = numbers.standard_normal(4096), numbers.standard_normal(4096)
    whole = Normals(seeds.key(3, "unit"), 7, "e").standard_normal(8192)
    assert np.array_equal(np.concatenate([first, second]), whole)
