"""Pickles of others: arrays come out as they went in, and nothing that a pickle brings runs."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from skyweave.data.restricted import read_pickle
from skyweave.errors import UserError


def write(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def refusal(path: Path) -> str:
    """What is said to be found in the file."""
    with pytest.raises(UserError) as caught:
        read_pickle(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected pickled numpy arrays alone, found ")
    assert "\n" not in message
    return caught.value.found


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_come_out_as_they_went_in(protocol: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    block = rng.standard_normal((3, 4, 5))
    whole = {
        "float32": block.astype(np.float32),
        "fortran": np.asfortranarray(block),
        "strided": block[::2, :, 1],
        "swapped": block.astype(">f8"),
        "deep": {"int": np.arange(7), "bool": block[0] > 0, "complex": block[0] * 1j},
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3)),
    }
    found = read_pickle(write(tmp_path / "a.ckpt", whole, protocol))
    assert list(found) == list(whole)
    deep, expected = found.pop("deep"), whole.pop("deep")
    for one, other in ((found, whole), (deep, expected)):
        assert list(one) == list(other)
        for name, array in one.items():
            assert type(array) is np.ndarray
            assert array.dtype == other[name].dtype
            np.testing.assert_array_equal(array, other[name])


def test_an_array_there_twice_is_given_twice(tmp_path: Path) -> None:
    array = np.arange(3.0)
    found = read_pickle(write(tmp_path / "a.ckpt", {"a": array, "b": {"c": array}}))
    np.testing.assert_array_equal(found["a"], array)
    np.testing.assert_array_equal(found["b"]["c"], array)


def test_names_of_numpy_before_version_2_are_known(tmp_path: Path) -> None:
    now = pickle.dumps({"a": np.arange(3.0)}, 3)
    before = now.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert before != now
    np.testing.assert_array_equal(read_pickle(write(tmp_path / "a", before))["a"], np.arange(3.0))


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_call_of_a_pickle_runs(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    calls = {
        "system": Call(os.system, f"touch {marker}"),
        "eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "open": Call(open, str(marker), "w"),
        "fromfile": Call(np.fromfile, __file__),
        "getattr": Call(getattr, "text", "format"),
    }
    for name, call in calls.items():
        for content in (call, {"b": call, "a": np.zeros(2)}):
            found = refusal(write(tmp_path / "evil.ckpt", content, protocol))
            assert name in found
            assert not marker.exists()
    pickle.loads(pickle.dumps(calls["system"], protocol))
    assert marker.exists(), "the call itself does nothing"


def test_dotted_names_lead_nowhere(tmp_path: Path) -> None:
    evil = b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."
    assert refusal(write(tmp_path / "evil.ckpt", evil)) == "numpy.ndarray.tofile"


@pytest.mark.parametrize(
    "known", [b"numpy\nndarray", b"numpy\ndtype", b"numpy._core.multiarray\n_reconstruct"]
)
def test_no_attribute_of_a_class_is_set(known: bytes, tmp_path: Path) -> None:
    attributes = b"}X\x0c\x00\x00\x00__setstate__K\x01s"
    good = write(tmp_path / "good", {"a": np.arange(3)})
    for state in (attributes, b"N" + attributes + b"\x86"):
        refusal(write(tmp_path / "evil", b"\x80\x03c" + known + b"\n" + state + b"b."))
        np.testing.assert_array_equal(read_pickle(good)["a"], np.arange(3))


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([{}, None], dtype=object), "O8"),
        (np.zeros(2, [("a", "f4"), ("b", object)]), "V12"),
        (np.array(["text"]), "U4"),
        (np.zeros(2, "M8[s]"), "M8"),
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(array, dtype: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "a", {"a": array}, 3)) == f"an array of dtype {dtype}"


def test_content_of_another_length_is_refused(tmp_path: Path) -> None:
    whole = pickle.dumps({"a": np.arange(4, dtype="f8")}, 3)
    content = np.arange(4, dtype="f8").tobytes()
    for short in (content[:-1], content[:-8], content + content):
        swapped = whole.replace(b"C" + bytes([32]) + content, b"C" + bytes([len(short)]) + short)
        assert swapped != whole
        refusal(write(tmp_path / "a", swapped))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([np.zeros(2)], "list where"),
        (np.zeros(2), "array where"),
        ({1: np.zeros(2)}, "dict where"),
        ({"a": {"b": "text"}}, "str where"),
        ({"a": np.ndarray}, "type where"),
    ],
)
def test_other_objects_are_refused(content, found: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "a", content)).startswith(found)


def test_endless_and_repeated_dicts_are_refused(tmp_path: Path) -> None:
    endless: dict = {}
    endless["a"] = endless
    one = {"a": np.zeros(1)}
    for content in (endless, {"a": one, "b": one}):
        assert refusal(write(tmp_path / "a", content)) == "a dict that is there twice"


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = pickle.dumps({"a": np.arange(9.0)}, 3)
    for length in range(len(whole)):
        refusal(write(tmp_path / "a", whole[:length]))
    refusal(write(tmp_path / "a", struct.pack("<20d", *range(20))))
    with pytest.raises(UserError, match="none: expected a file, found none"):
        read_pickle(tmp_path / "none")
