"""The split: exact, and stable when a dataset grows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyweave.config import Split
from skyweave.data.split import SPLITS, assign, members, read_split, some
from skyweave.errors import UserError

NINE = Split(train=0.85, validation=0.1, test=0.05)


def test_exact_shares_in_every_block():
    frame = assign(range(700), NINE, 1, "cmb")
    counts = frame.groupby([frame["realization"] // 100, "split"]).size().unstack()
    assert (counts[list(SPLITS)].to_numpy() == [85, 10, 5]).all()


@pytest.mark.parametrize("count", [20, 57, 100, 130, 399])
def test_members_stay_when_realizations_are_added(count):
    small, large = assign(range(count), NINE, 1, "cmb"), assign(range(400), NINE, 1, "cmb")
    assert small.equals(large.iloc[:count])


def test_order_of_the_numbers_does_not_matter():
    numbers = np.random.default_rng(0).permutation(150)
    assert assign(numbers, NINE, 1, "cmb").equals(assign(range(150), NINE, 1, "cmb"))


def test_seed_dataset_and_block_change_the_order():
    def labels(seed, dataset, start=0):
        return assign(range(start, start + 100), NINE, seed, dataset)["split"].tolist()

    orders = [labels(1, "cmb"), labels(2, "cmb"), labels(1, "dust"), labels(1, "cmb", 100)]
    assert len({tuple(order) for order in orders}) == 4


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.tuples(st.integers(1, 999), st.integers(1, 999)).map(sorted),
    count=st.integers(1, 250),
    seed=st.integers(0, 99),
)
def test_every_beginning_holds_its_shares_to_less_than_one_a_block(cuts, count, seed):
    first, second = cuts
    split = Split(train=first / 1000, validation=(second - first) / 1000, test=1 - second / 1000)
    # Whole blocks before, so that every part has a member.
    frame = assign(range(1000 + count), split, seed, "x")
    last = frame[frame["realization"] >= len(frame) // 100 * 100]
    for name in SPLITS:
        share = getattr(split, name)
        assert abs((last["split"] == name).sum() - share * len(last)) < 1


def test_smallest_dataset_has_a_member_of_each():
    for seed in range(20):
        assert set(assign(range(10), Split(), seed, "cmb")["split"]) == set(SPLITS)


def test_a_part_without_members_is_an_error():
    with pytest.raises(UserError, match=r"datasets\.cmb\.split: .* for (validation|test)"):
        assign(range(4), Split(), 1, "cmb")


def test_table_is_read_back(tmp_path):
    frame = assign(range(50), Split(), 1, "cmb")
    frame.to_csv(tmp_path / "split.csv", index=False)
    again = read_split(tmp_path / "split.csv")
    parts = [members(again, name) for name in SPLITS]
    assert [len(part) for part in parts] == [40, 5, 5]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(50))
    with pytest.raises(UserError, match="one of train, validation, test"):
        members(frame, "dev")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("realization,part\n1,train\n", "columns"),
        ("realization,split\n1,dev\n", "'dev'"),
        ("realization,split\n1,train\n1,test\n", "realization 1 twice"),
        ("realization,split\n1.5,train\n", "whole numbers"),
        ("", "CSV"),
    ],
)
def test_a_broken_table_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_split(path)
    assert error.value.where == str(path)


def test_some_are_drawn_from_all_over_a_part():
    frame = assign(range(4000), Split(), 1, "cmb")
    train = members(frame, "train")
    found = some(frame, "train", 400, 7, "a")
    assert found.dtype == np.int64
    assert len(np.unique(found)) == 400
    assert (np.diff(found) > 0).all()
    assert np.isin(found, train).all()
    # Evenly: the mean of 400 of 3200 has a standard error of 54.
    assert abs(found.mean() - train.mean()) < 4 * 54
    np.testing.assert_array_equal(some(frame, "train", 400, 7, "a"), found)
    for key in ((8, "a"), (7, "b"), (7, "a", 0)):
        assert not np.array_equal(some(frame, "train", 400, *key), found)
    for count in (3200, 10**6):
        np.testing.assert_array_equal(some(frame, "train", count, 7, "a"), train)
    with pytest.raises(UserError, match="one of train, validation, test"):
        some(frame, "dev", 3, 7)
