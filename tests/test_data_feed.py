"""Normalization and the feeding of batches."""

import numpy as np
import pytest
from scipy import stats

from skyweave.data.feed import BatchFeed, UnpairedFeed, white_noise
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


# Noise in the inputs


def inputs(source, epoch=None, start=0):
    """Inputs (n, y, x, fields) of an epoch by realization, ascending; in order with None."""
    batches = source.in_order(start) if epoch is None else source.epoch(epoch, start)
    found = {}
    for step, (x, _) in enumerate(batches, start):
        found |= dict(zip(source.numbers(epoch, step).tolist(), x, strict=True))
    return found


def added(shards, normalization, epoch, rms=0.5, **changes):
    """What the noise is, by realization: inputs with it less those without."""
    plain = inputs(feed(shards, normalization, **changes), epoch)
    noisy = inputs(feed(shards, normalization, noise=rms, **changes), epoch)
    assert list(noisy) == list(plain)
    return {number: noisy[number] - plain[number] for number in plain}


def test_white_noise_is_normal_and_drawn_by_its_identity():
    found = white_noise(0.3, (64, 64, 2), 1, "a", 2)
    assert found.dtype == np.float32
    assert found.shape == (64, 64, 2)
    assert stats.kstest(found.ravel() / 0.3, "norm").pvalue > 0.01
    # No pixel knows of its neighbour, nor one channel of the other.
    for one, other in ((found[1:], found[:-1]), (found[..., 0], found[..., 1])):
        r = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(r) < 4 / one.size**0.5
    np.testing.assert_array_equal(white_noise(0.3, (64, 64, 2), 1, "a", 2), found)
    np.testing.assert_array_equal(white_noise(0.6, (64, 64, 2), 1, "a", 2), 2 * found)
    for seed, *identity in ((2, "a", 2), (1, "b", 2), (1, "a", 3)):
        r = np.corrcoef(white_noise(0.3, (64, 64, 2), seed, *identity).ravel(), found.ravel())
        assert abs(r[0, 1]) < 4 / found.size**0.5


def test_noise_has_its_rms_in_the_inputs_and_the_truths_have_none(shards, normalization):
    noise = np.stack(list(added(shards, normalization, None).values()))
    assert noise.shape == (25, 16, 16, 2)
    assert noise.std() == pytest.approx(0.5, abs=4 * 0.5 / (2 * noise.size) ** 0.5)
    plain = list(feed(shards, normalization).epoch(1))
    for (_, y), (_, known) in zip(
        feed(shards, normalization, noise=0.5).epoch(1), plain, strict=True
    ):
        np.testing.assert_array_equal(y["kappa"], known["kappa"])


def test_noise_is_another_in_each_epoch_and_the_same_in_order(shards, normalization):
    first, again, second, ordered, repeated = (
        added(shards, normalization, epoch) for epoch in (0, 0, 1, None, None)
    )
    for number in sorted(first.keys() & second.keys()):
        np.testing.assert_array_equal(first[number], again[number])
        np.testing.assert_array_equal(ordered[number], repeated[number])
        for one, other in ((first, second), (first, ordered), (second, ordered)):
            r = np.corrcoef(one[number].ravel(), other[number].ravel())[0, 1]
            # 512 numbers; 4 deviations, 70 times.
            assert abs(r) < 4 / 512**0.5
    other = added(shards, normalization, None, identity=("other",))
    assert not np.array_equal(other[0], ordered[0])


def test_noise_of_a_realization_does_not_depend_on_its_batch(shards, normalization):
    ordered = inputs(feed(shards, normalization, noise=0.5))
    for changes in ({"batch": 5}, {"realizations": range(7, 25)}, {"cache_bytes": 0}):
        for number, x in inputs(feed(shards, normalization, noise=0.5, **changes)).items():
            np.testing.assert_array_equal(x, ordered[number])
    whole, resumed = (inputs(feed(shards, normalization, noise=0.5), 3, at) for at in (0, 2))
    assert len(resumed) == 8
    for number, x in resumed.items():
        np.testing.assert_array_equal(x, whole[number])


def test_noise_does_not_stay_in_what_is_kept_in_memory(shards, normalization):
    source = feed(shards, normalization, noise=0.5)
    once = [inputs(source, epoch) for epoch in (0, None, 0)]
    for number, x in once[0].items():
        np.testing.assert_array_equal(once[2][number], x)
    assert np.array_equal(inputs(source)[0], once[1][0])


def test_fingerprint_follows_the_noise(shards, normalization):
    known = feed(shards, normalization).fingerprint
    assert feed(shards, normalization, noise=0).fingerprint == known
    noisy = feed(shards, normalization, noise=0.5).fingerprint
    assert noisy != known
    assert feed(shards, normalization, noise=0.25).fingerprint != noisy


def test_inputs_and_truths_apart_may_have_noise_too(shards, normalization):
    parts = {"realizations": range(10), "noise": 0.5}, {"realizations": range(10, 25)}
    both = UnpairedFeed(*(feed(shards, normalization, **part) for part in parts))
    noisy, truths = (feed(shards, normalization, **part) for part in parts)
    for (x, y), (v, _), (_, w) in zip(both.epoch(0), noisy.epoch(0), truths.epoch(0), strict=False):
        np.testing.assert_array_equal(x, v)
        np.testing.assert_array_equal(y["kappa"], w["kappa"])
