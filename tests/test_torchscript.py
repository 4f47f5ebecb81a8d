"""TorchScript archives: tensors come out as they went in, and nothing that a file brings runs."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from skyweave.data.torchscript import read_tensors
from skyweave.errors import UserError

#: A storage of the float32 numbers from 0 to 23.
NUMBERS = {"0": np.arange(24, dtype="<f4").tobytes()}


def archive(path: Path, body: bytes, storages: dict[str, bytes] = NUMBERS, **more: bytes) -> Path:
    """An archive with a pickle and its storages, as torch lays it out, without torch."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("net/data.pkl", b"\x80\x02" + body + b".")
        for name, content in storages.items():
            out.writestr(f"net/data/{name}", content)
        for name, content in more.items():
            out.writestr(f"net/{name}", content)
    return path


def word(text: str) -> bytes:
    return b"X" + struct.pack("<i", len(text)) + text.encode()


def number(value: int) -> bytes:
    content = pickle.encode_long(value)
    return b"\x8a" + bytes([len(content)]) + content


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def module(name: str = "Net", **attributes: bytes) -> bytes:
    """An object of a class of the archive, made and given its state."""
    state = b"".join(word(key) + value for key, value in attributes.items())
    return b"c__torch__.nets\n" + name.encode() + b"\n)\x81}(" + state + b"ub"


def tensor(
    shape: tuple[int, ...] = (24,),
    strides: tuple[int, ...] = (1,),
    offset: int = 0,
    *,
    storage: str = "0",
    kind: str = "Float",
    count: int = 24,
) -> bytes:
    """A tensor, by its storage, offset, shape and strides."""
    known = f"ctorch\n{kind}Storage\n".encode()
    where = b"(" + word("storage") + known + word(storage) + word("cpu") + number(count) + b"tQ"
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    body = where + number(offset) + numbers(*shape) + numbers(*strides) + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + body + b"tR"


def refusal(path: Path) -> str:
    """What is said to be found in the file."""
    with pytest.raises(UserError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected a TorchScript archive of plain tensors, found ")
    assert "\n" not in message
    return caught.value.found


def test_tensors_come_out_as_they_went_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = {
        "Double": rng.standard_normal(6),
        "Float": rng.standard_normal(6).astype("<f4"),
        "Half": rng.standard_normal(6).astype("<f2"),
        "Long": rng.integers(-(2**60), 2**60, 6),
        "Int": rng.integers(-(2**30), 2**30, 6, dtype="<i4"),
        "Byte": rng.integers(0, 256, 6, dtype="u1"),
        "Bool": np.array([True, False, False, True, True, False]),
    }
    inner = {kind: tensor((6,), storage=kind, kind=kind, count=6) for kind in kinds}
    strides = b"ctorch.jit._pickle\nbuild_intlist\n(](" + number(1) + number(2) + b"etR"
    body = module(
        weight=tensor((2, 3, 4), (12, 4, 1)),
        training=b"\x89",
        hook=b"N",
        strides=strides,
        layers=module("Sequential", **inner),
    )
    storages = NUMBERS | {kind: array.tobytes() for kind, array in kinds.items()}
    found = read_tensors(archive(tmp_path / "a.pt", body, storages, byteorder=b"little"))
    assert list(found) == ["weight", *(f"layers.{kind}" for kind in kinds)]
    np.testing.assert_array_equal(found["weight"], np.arange(24).reshape(2, 3, 4))
    for kind, array in kinds.items():
        assert found[f"layers.{kind}"].dtype == array.dtype
        np.testing.assert_array_equal(found[f"layers.{kind}"], array)


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((4, 3), (1, 4), 12, np.arange(12, 24).reshape(3, 4).T),
        ((3,), (8,), 7, [7, 15, 23]),
        ((), (), 5, 5),
        ((2, 3), (0, 1), 1, [[1, 2, 3], [1, 2, 3]]),
        ((0, 3), (3, 1), 24, np.zeros((0, 3))),
    ],
)
def test_tensors_are_views_of_their_storage(shape, strides, offset, expected, tmp_path) -> None:
    body = module(a=tensor(shape, strides, offset), b=tensor())
    found = read_tensors(archive(tmp_path / "a.pt", body))
    np.testing.assert_array_equal(found["a"], expected)
    assert found["a"].shape == shape
    assert not found["a"].flags.writeable


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((25,), (1,), 0),
        ((24,), (1,), 1),
        ((2,), (24,), 0),
        ((2,), (-1,), 5),
        ((1,), (1,), -1),
        ((-1,), (1,), 0),
        ((2**33 + 1,), (2**31,), 0),
        ((2,), (2**70,), 0),
        ((24,), (1, 1), 0),
    ],
)
def test_no_tensor_reaches_beyond_its_storage(shape, strides, offset, tmp_path: Path) -> None:
    refusal(archive(tmp_path / "a.pt", module(a=tensor(shape, strides, offset))))


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
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
        body = pickle.dumps(call, protocol)[2:-1]
        for content in (body, module(a=body), module(a=tensor(), b=module(c=body))):
            assert name in refusal(archive(tmp_path / "evil.pt", content))
            assert not marker.exists()
    pickle.loads(pickle.dumps(calls["system"], protocol))
    assert marker.exists(), "the call itself does nothing"


@pytest.mark.parametrize(
    "known",
    [
        "torch._utils\n_rebuild_tensor_v2",
        "torch.jit._pickle\nbuild_intlist",
        "collections\nOrderedDict",
        "torch\nFloatStorage",
        "__torch__.nets\nNet",
    ],
)
def test_no_attribute_of_a_class_is_set(known: str, tmp_path: Path) -> None:
    attributes = b"}" + word("__setstate__") + b"K\x01s"
    good = archive(tmp_path / "good.pt", module(a=tensor()))
    for state in (attributes, b"N" + attributes + b"\x86"):
        refusal(archive(tmp_path / "evil.pt", b"c" + known.encode() + b"\n" + state + b"b"))
        assert list(read_tensors(good)) == ["a"]


@pytest.mark.parametrize(
    ("body", "storages", "found"),
    [
        (tensor(), NUMBERS, "_Tensor where a module"),
        (b"}", NUMBERS, "dict where a module"),
        (module(a=b"ctorch\nload\n"), NUMBERS, "torch.load"),
        (module(a=tensor(kind="Quantized")), NUMBERS, "torch.QuantizedStorage"),
        (module(a=tensor(count=23)), NUMBERS, "24 numbers in a storage of 23"),
        (module(a=tensor(kind="Double")), NUMBERS, "12 numbers in a storage of 24"),
        (module(a=tensor()), {"0": b"odd"}, "buffer size must be"),
        (module(a=tensor()), {"1": NUMBERS["0"]}, "no item named 'net/data/0'"),
        (b"c__torch__.nets\nNet\n)\x81]b", {}, "a module with a state of list"),
        (b"c__torch__.nets\nNet\n)\x81q\x00}" + word("a") + b"h\x00sb", {}, "a module that is"),
    ],
)
def test_other_archives_are_refused(body, storages, found: str, tmp_path: Path) -> None:
    assert found in refusal(archive(tmp_path / "a.pt", body, storages))


def test_archives_of_another_layout_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    assert "little" in refusal(archive(path, module(), byteorder=b"big"))
    for names in ([], ["data.pkl"], ["net/code/data.pkl"], ["a/data.pkl", "b/data.pkl"]):
        with zipfile.ZipFile(path, "w") as out:
            for name in names:
                out.writestr(name, b"\x80\x02" + module() + b".")
        assert f"{len(names) // 2 * 2} members data.pkl" in refusal(path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = archive(tmp_path / "a.pt", module(a=tensor())).read_bytes()
    for length in range(0, len(whole), 7):
        path = tmp_path / "short.pt"
        path.write_bytes(whole[:length])
        refusal(path)
    at = whole.index(NUMBERS["0"]) + 5
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert "CRC" in refusal(path)
    with pytest.raises(UserError, match=r"none: expected a file, found none"):
        read_tensors(tmp_path / "none")
