"""Shards are whole or absent, and a reader trusts nothing."""

import os
from contextlib import closing

import h5py
import numpy as np
import pytest

from skyweave.data.shards import ShardSet, write_shard
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


def test_same_maps_same_bytes(tmp_path):
    first, second = write(tmp_path / "a.h5", [1, 2]), write(tmp_path / "b.h5", [1, 2])
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
