"""Batches with holes: what is in them, and what decides them."""

import h5py
import numpy as np
import pytest

from skyweave.config import Holes
from skyweave.data.feed import BatchFeed
from skyweave.data.hole_feed import HoleFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import UserError
from skyweave.images.holes import HoleSource

FIELDS = ("q_obs", "u_obs")
COUNT, PIXELS = 25, 16


def write(path, broken=None):
    rng = np.random.default_rng(0)
    maps = {name: 3 + 5 * rng.standard_normal((COUNT, PIXELS, PIXELS)) for name in FIELDS}
    write_shard(
        path,
        maps,
        realizations=np.arange(COUNT),
        size_deg=5.0,
        units=dict.fromkeys(maps, "uK"),
        provenance={},
    )
    if broken is not None:
        with h5py.File(path, "r+") as file:
            file["u_obs"][broken, 3, 4] = np.nan
    return ShardSet([path])


@pytest.fixture
def shards(tmp_path):
    return write(tmp_path / "a.h5")


def plain(shards, **changes):
    """A feed without holes, of realizations 2, 3, …"""
    arguments = {"realizations": range(2, COUNT), "batch": 4, "seed": 1, "identity": ("run", "a")}
    arguments |= {"targets": ()} | changes
    scales = Normalization({"q_obs": (3.0, 5.0), "u_obs": (2.0, 4.0)})
    return BatchFeed(shards, FIELDS, normalization=scales, **arguments)


SOURCE = HoleSource(Holes(area=0.3), PIXELS)


def feed(shards, *, start=None, warm_epochs=0, told=None, holes=SOURCE, **changes):
    options = {"start": start, "warm_epochs": warm_epochs, "told": told}
    return HoleFeed(plain(shards, **changes), holes, **options)


def same(one, other):
    one, other = list(one), list(other)
    return len(one) == len(other) and all(
        np.array_equal(x, v) and y.keys() == w.keys() and all(np.array_equal(y[k], w[k]) for k in y)
        for (x, y), (v, w) in zip(one, other, strict=True)
    )


def holes_of(batches):
    return np.concatenate([y["seen"][..., 0] == 0 for _, y in batches])


def test_channels_are_fields_with_zeros_and_what_is_seen(shards):
    source, whole = feed(shards), plain(shards)
    for batches, known in (
        (source.epoch(2), whole.epoch(2)),
        (source.in_order(), whole.in_order()),
    ):
        for (x, y), (maps, _) in zip(batches, known, strict=True):
            assert x.shape == (len(maps), PIXELS, PIXELS, 3)
            assert list(y) == [*FIELDS, "seen"]
            assert x.dtype == np.float32
            assert {values.dtype for values in y.values()} == {np.dtype(np.float32)}
            assert {values.shape for values in y.values()} == {(len(maps), PIXELS, PIXELS, 1)}
            np.testing.assert_array_equal(x[..., 2:], y["seen"])
            seen = y["seen"][..., 0] == 1
            assert (~seen).mean(axis=(1, 2)) == pytest.approx(0.3, abs=0.002)
            for i, name in enumerate(FIELDS):
                np.testing.assert_array_equal(y[name][..., 0], maps[..., i])
                np.testing.assert_array_equal(x[..., i][seen], maps[..., i][seen])
                assert not x[..., i][~seen].any()


def test_truths_are_the_feeds_own_where_it_has_them(shards):
    # Noise is in the inputs, not in the truths.
    noisy = feed(shards, targets=FIELDS, noise=0.5)
    for (x, y), (clean, _) in zip(noisy.epoch(0), plain(shards).epoch(0), strict=True):
        for i, name in enumerate(FIELDS):
            np.testing.assert_array_equal(y[name][..., 0], clean[..., i])
        assert abs((x[..., :2] - clean)[y["seen"][..., 0] == 1].std() - 0.5) < 0.05
    assert same(feed(shards, targets=FIELDS).epoch(0), feed(shards).epoch(0))


def test_starts_follow_as_channels(shards):
    def start(maps, holes):
        assert maps.shape == (len(holes), 2, PIXELS, PIXELS)
        assert not maps[np.broadcast_to(holes[:, None], maps.shape)].any()
        return np.where(holes[:, None], np.array([7.0, 8.0])[:, None, None], maps)

    source = feed(shards, start=start)
    for (x, y), (known, _) in zip(source.epoch(0), feed(shards).epoch(0), strict=True):
        assert x.shape[-1] == 5
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x[..., :3], known)
        missing = y["seen"][..., 0] == 0
        for i, value in enumerate((7, 8)):
            assert (x[..., 3 + i][missing] == value).all()
            np.testing.assert_array_equal(x[..., 3 + i][~missing], x[..., i][~missing])


def test_each_map_has_another_hole_in_each_epoch(shards):
    source = feed(shards)
    holes = np.concatenate([holes_of(source.epoch(epoch)) for epoch in range(3)])
    assert len({hole.tobytes() for hole in holes}) == len(holes) == 60


def test_validation_holes_differ_and_stay(shards):
    first = list(feed(shards).in_order())
    holes = holes_of(first)
    assert len(holes) == 23
    assert len({hole.tobytes() for hole in holes}) == 23
    source = feed(shards)
    list(source.epoch(0))
    assert same(first, source.in_order())
    assert same(first, source.in_order())
    # A hole is its realization's, in whatever batch that is.
    other = feed(shards, realizations=range(5, COUNT), batch=7)
    np.testing.assert_array_equal(holes_of(other.in_order()), holes[3:])


@pytest.mark.parametrize("warm", [0, 2])
def test_the_cursor_alone_resumes(shards, warm):
    whole = list(feed(shards, warm_epochs=warm).epoch(1))
    assert len(whole) == 5
    for start in range(6):
        assert same(whole[start:], feed(shards, warm_epochs=warm).epoch(1, start))
    ordered = list(feed(shards).in_order())
    for start in (2, 5, 6):
        assert same(ordered[start:], feed(shards).in_order(start))


def test_order_and_holes_are_drawn_by_seed_and_identity(shards):
    first = holes_of(feed(shards).in_order())
    for changes in ({"seed": 2}, {"identity": ("other", "a")}, {"identity": ("run", "b")}):
        other = holes_of(feed(shards, **changes).in_order())
        assert not any(np.array_equal(*pair) for pair in zip(first, other, strict=True))


def test_what_else_is_asked_for_does_not_matter(shards):
    alone = list(feed(shards).epoch(0))
    source = feed(shards)
    one, other = source.epoch(0), source.epoch(0)
    pairs = [(next(one), next(other)) for _ in range(5)]
    assert same(alone, [pair[0] for pair in pairs])
    assert same(alone, [pair[1] for pair in pairs])
    # One that is left in the middle leaves nothing behind.
    source = feed(shards)
    left = source.epoch(0)
    next(left)
    left.close()
    assert same(alone, source.epoch(0))
    assert same(alone, feed(shards, cache_bytes=0).epoch(0))


@pytest.mark.parametrize("targets", [(), FIELDS])
def test_warm_epochs_show_one_map_with_ever_new_holes(shards, targets):
    source = feed(shards, warm_epochs=2, targets=targets)
    first, _ = next(plain(shards).in_order())
    batches = [batch for epoch in range(2) for batch in source.epoch(epoch)]
    assert len(batches) == 2 * source.steps == 10
    for _, y in batches:
        assert len(y["seen"]) == 4
        for i, name in enumerate(FIELDS):
            for one in y[name]:
                np.testing.assert_array_equal(one[..., 0], first[0, ..., i])
    assert len({hole.tobytes() for hole in holes_of(batches)}) == 40
    np.testing.assert_array_equal(source.numbers(1, 3), [2, 2, 2, 2])
    # What comes after does not know of them.
    assert same(source.epoch(2), feed(shards, targets=targets).epoch(2))
    assert same(source.in_order(), feed(shards, targets=targets).in_order())


def sky(count, **settings):
    """Pieces of a mask, told by how many of their pixels are missing: 1, 2, …"""
    pieces = np.zeros((count, PIXELS, PIXELS), bool)
    for number, piece in enumerate(pieces):
        piece.flat[: number + 1] = True
    return HoleSource(Holes(kind="sky", path="mask.fits"), PIXELS, pieces, **settings)


def test_validation_pieces_do_not_repeat_while_there_are_enough(shards):
    for count in (30, 10):
        source = feed(shards, holes=sky(count))
        found = holes_of(source.in_order()).sum(axis=(1, 2)) - 1
        np.testing.assert_array_equal(found, np.arange(23) % count)
        again = holes_of(source.in_order(2)).sum(axis=(1, 2)) - 1
        np.testing.assert_array_equal(again, found[8:])
    # Training draws them.
    drawn = holes_of(feed(shards, holes=sky(30)).epoch(0)).sum(axis=(1, 2)) - 1
    assert len({*drawn}) < len(drawn)


def test_plain_callables_and_sources_without_pieces_draw_the_same(shards):
    assert same(feed(shards, holes=SOURCE.__call__).in_order(), feed(shards).in_order())
    assert same(feed(shards, holes=SOURCE.__call__).epoch(1), feed(shards).epoch(1))


def test_numbers_and_sizes_are_the_feeds(shards):
    source, whole = feed(shards), plain(shards)
    assert (source.steps, source.batch, source.paired) == (5, 4, True)
    np.testing.assert_array_equal(source.numbers(3, 2), whole.numbers(3, 2))
    np.testing.assert_array_equal(source.numbers(None, 1), [6, 7, 8, 9])
    sizes = [len(x) for x, _ in source.in_order()]
    assert sizes == [source.size(batch) for batch in range(6)] == [4, 4, 4, 4, 4, 3]
    assert source.size(6) == 0
    with pytest.raises(UserError, match=r"training\.batch"):
        _ = feed(shards, batch=24).steps


def test_broken_maps_are_named(tmp_path):
    maps = write(tmp_path / "broken.h5", broken=9)
    # What is not finite lies in every hole: the truth has it, the inputs must not.
    hole = np.zeros((PIXELS, PIXELS), bool)
    hole[3, 4] = True
    source = feed(maps, holes=lambda rng: hole, start=lambda maps, holes: maps)
    for step, batch in enumerate(source.in_order()):
        assert source.broken(batch, None, step).tolist() == ([9] if step == 1 else [])
        assert np.isfinite(batch[0]).all()
    warm = feed(maps, warm_epochs=1, realizations=range(9, COUNT))
    assert warm.broken(next(warm.epoch(0)), 0, 0).tolist() == [9]


def test_fingerprint_follows_what_decides_the_holes(shards):
    known = {
        feed(shards, **changes).fingerprint
        for changes in (
            {},
            {"told": {"area": 0.3}},
            {"told": {"area": 0.25}},
            {"warm_epochs": 1},
            {"start": lambda maps, holes: maps},
            {"seed": 2},
            {"realizations": range(20)},
            {"holes": sky(30)},
            {"holes": sky(29)},
            {"holes": sky(30, part="train")},
        )
    }
    assert len(known) == 10
    assert plain(shards).fingerprint not in known
    assert feed(shards, holes=sky(30)).fingerprint in known
    told = {"holes": {"area": 0.3, "kind": "random"}}
    again = {"holes": {"kind": "random", "area": 0.3}}
    assert feed(shards, told=told).fingerprint == feed(shards, told=again).fingerprint


def test_a_feed_that_draws_inputs_is_refused(shards):
    with pytest.raises(UserError, match="feed: expected fields alone"):
        feed(shards, drawn=1)
