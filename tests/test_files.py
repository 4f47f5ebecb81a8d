"""Files are written whole or not at all."""

import pytest

from skyweave.files import atomic, sha256, versions, write_text


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "a.csv"
    with atomic(path) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.csv"
    write_text(path, "old")

    def stopped() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stopped()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / "a.h5"
    left, others = tmp_path / ".a.12345.h5", tmp_path / ".ab.12345.h5"
    left.write_text("half")
    others.write_text("of another file")
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == [others, path]


def test_known_checksum(tmp_path):
    write_text(tmp_path / "a", "abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "a") == expected


def test_versions_name_what_is_there():
    found = versions("numpy", "no-such-package")
    assert set(found) == {"python", "skyweave", "numpy"}
