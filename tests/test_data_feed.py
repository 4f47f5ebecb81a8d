"""Normalization and the feeding of batches."""

import numpy as np
import pytest

from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import UserError

FIELDS = ("q_obs", "u_obs", "kappa")


def write(folder, parts, seed=0):
    """Shards of the same 30 realizations, divided as `parts` says."""
    rng = np.random.default_rng(seed)
    maps = {name: 3 + 5 * rng.standard_normal((30, 16, 16)) for name in FIELDS}
    maps["zero"] = np.zeros((30, 16, 16))
    paths = []
    for number, rows in enumerate(np.array_split(np.arange(30), parts)):
        paths.append(folder / f"{parts}-{number}.h5")
        write_shard(
            paths[-1],
            {name: values[rows] for name, values in maps.items()},
            realizations=rows,
            size_deg=5.0,
            units=dict.fromkeys(maps, ""),
            provenance={"seed": seed},
        )
    return ShardSet(paths)


@pytest.fixture
def shards(tmp_path):
    return write(tmp_path, 2)


@pytest.fixture
def normalization(shards):
    return Normalization.fit(shards, FIELDS, range(20))


def feed(shards, normalization, **changes):
    arguments = {"realizations": range(25), "batch": 8, "seed": 1, "identity": ("resunet",)}
    return BatchFeed(shards, FIELDS[:2], FIELDS[2:], normalization, **(arguments | changes))


def test_moments_are_numpys(shards, normalization):
    for name in FIELDS:
        pixels = shards.read(name, range(20)).astype(np.float64)
        mean, std = normalization.moments[name]
        assert mean == pytest.approx(pixels.mean(), rel=1e-12)
        assert std == pytest.approx(pixels.std(), rel=1e-12)


def test_moments_do_not_depend_on_the_shards(tmp_path, normalization):
    other = Normalization.fit(write(tmp_path, 5), FIELDS, np.arange(20)[::-1])
    assert other == normalization


def test_normalization_round_trips(shards, normalization):
    maps = shards.read("kappa")
    scaled = normalization.apply("kappa", maps)
    assert scaled.dtype == np.float32
    assert abs(scaled[:20].mean()) < 1e-6
    assert abs(scaled[:20].std() - 1) < 1e-6
    np.testing.assert_allclose(normalization.undo("kappa", scaled), maps, rtol=1e-5, atol=1e-5)
    assert Normalization.from_json(normalization.to_json()) == normalization


def test_a_constant_field_has_no_normalization(shards):
    with pytest.raises(UserError, match=r"zero.* varies"):
        Normalization.fit(shards, ["zero"], range(20))


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": {"mean": 1}}', '{"a": {"mean": 0, "std": 0}}'])
def test_broken_normalization_is_refused(text):
    with pytest.raises(UserError):
        Normalization.from_json(text)


def test_an_epoch_holds_whole_batches_of_distinct_realizations(shards, normalization):
    source = feed(shards, normalization)
    batches = list(source.epoch(0))
    assert source.steps == len(batches) == 3
    known = normalization.apply("kappa", shards.read("kappa", range(25)))
    seen = set()
    for x, y in batches:
        assert x.shape == (8, 16, 16, 2)
        assert x.dtype == y["kappa"].dtype == np.float32
        assert y["kappa"].shape == (8, 16, 16, 1)
        for one, target in zip(x, y["kappa"], strict=True):
            number = int(np.flatnonzero((known == target[..., 0]).all(axis=(1, 2)))[0])
            seen.add(number)
            q = normalization.apply("q_obs", shards.read("q_obs", [number]))[0]
            np.testing.assert_array_equal(one[..., 0], q)
    assert len(seen) == 24


def equal(one, other):
    return all(
        np.array_equal(x, v) and all(np.array_equal(y[k], w[k]) for k in y)
        for (x, y), (v, w) in zip(one, other, strict=True)
    )


def test_the_cursor_alone_resumes(shards, normalization):
    whole = list(feed(shards, normalization).epoch(3))
    assert equal(whole[2:], list(feed(shards, normalization).epoch(3, start=2)))
    assert list(feed(shards, normalization).epoch(3, start=3)) == []


def test_order_is_drawn_by_seed_run_and_epoch(shards, normalization):
    first = list(feed(shards, normalization).epoch(0))
    assert equal(first, list(feed(shards, normalization).epoch(0)))
    assert not equal(first, list(feed(shards, normalization).epoch(1)))
    assert not equal(first, list(feed(shards, normalization, seed=2).epoch(0)))
    assert not equal(first, list(feed(shards, normalization, identity=("other",)).epoch(0)))


def test_reading_from_disk_feeds_the_same(shards, normalization):
    cached = list(feed(shards, normalization).epoch(0))
    assert equal(cached, list(feed(shards, normalization, cache_bytes=0).epoch(0)))


def test_validation_sees_each_realization_once(shards, normalization):
    batches = list(feed(shards, normalization).in_order())
    assert [len(x) for x, _ in batches] == [8, 8, 8, 1]
    values = np.concatenate([y["kappa"][..., 0] for _, y in batches])
    expected = normalization.apply("kappa", shards.read("kappa", range(25)))
    np.testing.assert_array_equal(values, expected)


def test_numbers_are_those_of_the_batch(shards, normalization):
    source = feed(shards, normalization)
    for epoch, batches in ((2, source.epoch(2)), (None, source.in_order())):
        for step, (_, y) in enumerate(batches):
            numbers = source.numbers(epoch, step)
            expected = normalization.apply("kappa", shards.read("kappa", numbers))
            np.testing.assert_array_equal(y["kappa"][..., 0], expected)


def test_fingerprint_follows_the_data(shards, normalization, tmp_path):
    (tmp_path / "other").mkdir()
    known = feed(shards, normalization).fingerprint
    assert known == feed(write(tmp_path, 5), normalization).fingerprint
    assert known != feed(write(tmp_path / "other", 2, seed=3), normalization).fingerprint
    assert known != feed(shards, normalization, realizations=range(24)).fingerprint


def test_impossible_feeds(shards, normalization):
    with pytest.raises(UserError, match=r"training\.batch: expected at most the set's 25"):
        list(feed(shards, normalization, batch=26).epoch(0))
    with pytest.raises(UserError, match=r"targets: .*'tau'"):
        BatchFeed(shards, ["q_obs"], ["tau"], normalization, range(9), 4, 1, ())
    with pytest.raises(UserError, match="at least one realization"):
        feed(shards, normalization, realizations=[])
