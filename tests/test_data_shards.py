"""Shards are whole or absent, and a reader trusts nothing."""

import os
import time
import weakref
from contextlib import closing

import h5py
import numpy as np
import pytest

from skyweave.data.shards import ShardSet, stream_shard, write_shard
from skyweave.errors import UserError

UNITS = {"q_obs": "uK_CMB", "kappa": ""}
PROVENANCE = {"seed": 7, "dataset": "cmb", "settings": {"grid": {"pixels": 16}}}


def maps(numbers, pixels=16):
    """Maps that say which realization they are of."""
    shape = np.ones((1, pixels, pixels), np.float32)
    value = np.asarray(numbers, np.float32)[:, None, None] * shape
    return {"q_obs": value, "kappa": -value}


def write(path, numbers, fields=None, **changes):
    arguments = {
        "realizations": numbers,
        "size_deg": 5.0,
        "units": UNITS,
        "provenance": PROVENANCE,
    }
    write_shard(path, fields or maps(numbers), **(arguments | changes))
    return path


def test_what_is_written_is_read(tmp_path):
    paths = [write(tmp_path / "b.h5", [3, 4, 9]), write(tmp_path / "a.h5", [0, 2, 1])]
    with closing(ShardSet(paths)) as shards:
        assert shards.fields == ("kappa", "q_obs")
        assert shards.units == UNITS
        assert shards.provenance == PROVENANCE
        assert (shards.grid.size_deg, shards.grid.pixels) == (5.0, 16)
        assert shards.realizations.tolist() == [0, 1, 2, 3, 4, 9]
        assert shards.read("q_obs")[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 9]
        some = shards.read("kappa", [9, 0, 4, 0, 1])
        assert some.dtype == np.float32
        np.testing.assert_array_equal(some, maps([9, 0, 4, 0, 1])["kappa"])


def test_only_so_many_files_are_open(tmp_path, monkeypatch):
    """And those are the ones that were used last."""
    monkeypatch.setattr("skyweave.data.shards.MOST_OPEN", 2)
    paths = [write(tmp_path / f"{number}.h5", [number]) for number in range(5)]
    with closing(ShardSet(paths)) as shards:
        assert shards.read("q_obs")[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
        for number in (1, 3, 1, 4):
            shards.read("q_obs", [number])
        assert list(shards._open) == [1, 4]


def test_same_maps_same_bytes(tmp_path):
    """Of the whole file: it keeps no time, which HDF5 counts in seconds."""
    labels = {"ns": np.array([0.9, 1.0])}
    first = write(tmp_path / "a.h5", [1, 2], labels=labels)
    time.sleep(1.1)
    second = write(tmp_path / "b.h5", [1, 2], labels=labels)
    assert first.read_bytes() == second.read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write(tmp_path / "a.h5", [1, 2])
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write(path, [5, 6])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize(
    ("fields", "numbers", "message"),
    [
        (maps([1, 2]), [1, 1], "realization twice"),
        (maps([1, 2, 3]), [1, 2], "shape"),
        ({"q_obs": np.full((2, 16, 16), np.nan)}, [4, 5], "realization 4"),
        ({"q_obs": np.zeros((2, 16, 8))}, [1, 2], "shape"),
        ({"e_obs": np.zeros((2, 16, 16))}, [1, 2], "unit for 'e_obs'"),
    ],
)
def test_unfit_arrays_are_not_written(tmp_path, fields, numbers, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path / "a.h5", numbers, fields)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": {"q_obs": maps([7])["q_obs"]}}, "the fields of"),
        ({"fields": maps([7], pixels=20)}, "pixels as in"),
        ({"size_deg": 10.0}, "size_deg as in"),
        ({"units": UNITS | {"q_obs": "K_CMB"}}, "units as in"),
        ({"provenance": PROVENANCE | {"seed": 8}}, r"seed: 7\), found seed: 8"),
        ({"numbers": [2]}, "realization 2 also in .*first"),
    ],
)
def test_shards_of_two_datasets_do_not_mix(tmp_path, changes, message):
    first = write(tmp_path / "first.h5", [1, 2])
    second = write(tmp_path / "second.h5", **({"numbers": [7]} | changes))
    with pytest.raises(UserError, match=message) as error:
        ShardSet([first, second])
    assert error.value.where == str(second)


def _truncate(path):
    os.truncate(path, path.stat().st_size - 900)


def _other_type(path):
    with h5py.File(path, "a") as handle:
        del handle["kappa"]
        handle["kappa"] = np.zeros((2, 16, 16))


def _fewer_maps(path):
    with h5py.File(path, "a") as handle:
        del handle["kappa"]
        handle["kappa"] = np.zeros((1, 16, 16), np.float32)


def _unwritten(path):
    with h5py.File(path, "a") as handle:
        del handle["kappa"]
        handle.create_dataset("kappa", (2, 16, 16), np.float32, chunks=(1, 16, 16))


def _no_numbers(path):
    with h5py.File(path, "a") as handle:
        del handle["realizations"]


def _another_format(path):
    path.write_text("ell dl_tt\n2 1000\n")


def _foreign(path):
    with h5py.File(path, "a") as handle:
        del handle.attrs["format"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "whole HDF5"),
        (_other_type, "float32"),
        (_fewer_maps, r"\(2, 16, 16\), found float32 \(1, 16, 16\)"),
        (_unwritten, "2 maps of 'kappa', found 0 written"),
        (_no_numbers, "realizations"),
        (_another_format, "whole HDF5"),
        (_foreign, "format"),
        (os.unlink, "no such file"),
    ],
)
def test_a_damaged_shard_is_refused_by_name(tmp_path, damage, message):
    path = write(tmp_path / "a.h5", [1, 2])
    damage(path)
    with pytest.raises(UserError, match=message) as error:
        ShardSet([path])
    assert error.value.where == str(path)


def test_a_flipped_bit_in_a_map_is_found(tmp_path):
    numbers = [1, 2]
    path = write(tmp_path / "a.h5", numbers)
    content = bytearray(path.read_bytes())
    at = bytes(content).index(maps(numbers)["q_obs"][1].tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    shards = ShardSet([path])
    shards.read("q_obs", [1])
    with pytest.raises(UserError, match="whole HDF5"):
        shards.read("q_obs", [2])


def test_asking_for_what_is_not_there(tmp_path):
    shards = ShardSet([write(tmp_path / "a.h5", [1, 2])])
    with pytest.raises(UserError, match="one of kappa, q_obs"):
        shards.read("tau")
    with pytest.raises(UserError, match="realization 3"):
        shards.read("kappa", [1, 3])
    with pytest.raises(UserError, match="at least one file"):
        ShardSet([])


def stream(path, patches, numbers=(1, 2), **changes):
    arguments = {
        "fields": ("q_obs", "kappa"),
        "realizations": numbers,
        "pixels": 16,
        "size_deg": 5.0,
        "units": UNITS,
        "provenance": PROVENANCE,
    }
    stream_shard(path, patches, **(arguments | changes))


def one_by_one(numbers):
    """The maps of `maps`, patch by patch, with a field that nobody asked for."""
    for number in numbers:
        yield {name: stack[0] for name, stack in maps([number]).items()} | {"tau": None}


def test_a_stream_writes_the_bytes_of_whole_arrays(tmp_path):
    labels = {"ns": np.array([0.9, 1.0]), "null": np.array([True, False])}
    whole = write(tmp_path / "whole.h5", [1, 2], labels=labels)
    stream(tmp_path / "stream.h5", one_by_one([1, 2]), labels=labels)
    assert (tmp_path / "stream.h5").read_bytes() == whole.read_bytes()


def test_a_stream_is_not_gathered(tmp_path):
    """A patch is asked for when the one before it is in the file, and is then forgotten."""
    alive = []

    def patches():
        for patch in one_by_one(range(5)):
            assert sum(reference() is not None for reference in alive) <= 1
            alive.append(weakref.ref(patch["q_obs"]))
            yield patch
            del patch

    stream(tmp_path / "a.h5", patches(), range(5))
    assert len(alive) == 5


def test_labels_come_back_in_the_order_of_realizations(tmp_path):
    """Shards and their realizations in any order: each label goes with its own."""
    paths = []
    for name, numbers in {"b": [7, 3], "a": [0, 5], "c": [4]}.items():
        number = np.array(numbers)
        labels = {"ns": 0.9 + 0.01 * number, "null": number % 2}
        paths.append(write(tmp_path / f"{name}.h5", numbers, labels=labels))
    with closing(ShardSet(paths)) as shards:
        assert shards.realizations.tolist() == [0, 3, 4, 5, 7]
        assert set(shards.labels) == {"ns", "null"}
        np.testing.assert_array_equal(shards.labels["ns"], 0.9 + 0.01 * shards.realizations)
        assert shards.labels["null"].tolist() == [0, 1, 0, 1, 1]
        assert shards.labels["null"].dtype == np.float64
        assert shards.fields == ("kappa", "q_obs")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"r": np.array([0.1])}, r"the labels of .*first\.h5 \(ns\), found r"),
        ({"ns": np.array([1.0]), "r": np.array([0.1])}, r"\(ns\), found ns, r"),
        (None, r"\(ns\), found none"),
    ],
)
def test_shards_with_other_labels_do_not_mix(tmp_path, labels, message):
    first = write(tmp_path / "first.h5", [1, 2], labels={"ns": np.array([0.9, 1.0])})
    second = write(tmp_path / "second.h5", [7], labels=labels)
    with pytest.raises(UserError, match=message) as error:
        ShardSet([first, second])
    assert error.value.where == str(second)


def test_a_shard_with_a_label_too_short_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", [1, 2], labels={"ns": np.array([0.9, 1.0])})
    with h5py.File(path, "a") as handle:
        del handle["labels/ns"]
        handle["labels/ns"] = [0.9]
    with pytest.raises(UserError, match=r"label 'ns' for each realization, found \(1,\)"):
        ShardSet([path])


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        ([1], {}, "2 realizations, found 1"),
        ([1, 2, 3], {}, "2 realizations, found more"),
        ([], {}, "2 realizations, found 0"),
        ([1, 2], {"pixels": 8}, r"'kappa' of \(8, 8\) pixels, found \(16, 16\)"),
        ([1, np.inf], {}, "realization 2"),
        ([1, 2], {"labels": {"ns": np.ones(3)}}, r"label 'ns' .*, found \(3,\)"),
        ([1, 2], {"units": {"kappa": ""}}, "a unit for 'q_obs'"),
        ([1, 2], {"fields": ()}, "at least one field"),
    ],
)
@pytest.mark.parametrize("there", [False, True], ids=["new", "over an old one"])
def test_a_stream_that_does_not_fit_leaves_nothing(tmp_path, given, changes, message, there):
    path = tmp_path / "a.h5"
    before = write(path, [8, 9]).read_bytes() if there else None
    with pytest.raises(UserError, match=message) as error:
        stream(path, one_by_one(given), **changes)
    assert error.value.where == str(path)
    assert list(tmp_path.iterdir()) == ([path] if there else [])
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_middle_leaves_nothing(tmp_path, kind):
    def patches():
        yield from one_by_one([1])
        assert list(tmp_path.glob(".a.*.h5"))
        raise kind("the second patch fails")

    with pytest.raises(kind, match="second patch"):
        stream(tmp_path / "a.h5", patches())
    assert not list(tmp_path.iterdir())
