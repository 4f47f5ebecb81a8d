"""Files that hold images of galaxies: folders, .npz, HDF5, FITS and GalSim's catalogues."""

import gzip
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from skyweave.errors import UserError

#: Files of a folder that are images.
_SUFFIXES = (".fits", ".fits.gz", ".png", ".npy")
#: Bytes that hold the headers of a catalogue's own extension and of the one before it.
_BEGIN = 2**17


@dataclass(frozen=True)
class ImageSet:
    """The images of a folder or a file, as the headers tell them.

    `names` tell images apart, in their order; `files` are all that is read; `pixel_arcsec` is the
    side of a pixel where the files say it. `planes` gives the planes (bands, y, x) of one image
    after the other, as they are stored.
    """

    path: Path
    bands: tuple[str, ...]
    names: tuple[str, ...]
    files: tuple[Path, ...]
    planes: Callable[[], Iterator[np.ndarray]]
    pixel_arcsec: float | None = None

    def where(self, name: str) -> str:
        """What a mistake in an image is said of."""
        return f"{self.path}, image {name}"

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and fluxes (bands, y, x) float32 of one image after the other.

        Raises `UserError` naming the file and the image for other planes than the bands and for
        values that are not finite.
        """
        with telling(self.path):
            for name, values in zip(self.names, self.planes(), strict=True):
                yield name, as_bands(self.where(name), values, self.bands)


def open_images(path: str | os.PathLike, bands: Sequence[str]) -> ImageSet:
    """The images of `bands` that a folder or a file holds.

    - A folder of files, one an image, in the order of their names: .fits, .fits.gz, .npy or .png,
      8 or 16 bits of which become 0 to 1. Others are passed over.
    - An .npz or HDF5 file: an array (n, y, x) named like each band, or one array (n, y, x) of one
      band or (n, y, x, bands).
    - An HDF5 file with a group a galaxy, in the order of their names: an array (y, x) named like
      each band, or one array of all.
    - A FITS file: an extension (n, y, x) named like each band, one array (n, y, x) of one band or
      (n, bands, y, x), or one image extension after the other; or GalSim's catalogue of real
      galaxies, with the files that it names beside it.

    An image is (y, x), (bands, y, x) or (y, x, bands). Raises `UserError` naming the file for what
    cannot be read and for what holds no such images.
    """
    path, bands = Path(path), tuple(bands)
    if path.is_dir():
        return _folder(path, bands)
    if not path.is_file():
        raise UserError(path, "a folder or a file of images", "none")
    with telling(path):
        with path.open("rb") as handle:
            begin = handle.read(6)
        if begin == b"SIMPLE" or _suffix(path) in (".fits", ".fits.gz"):
            from skyweave.images.stamp_fits import open_fits

            return open_fits(path, bands)
        if zipfile.is_zipfile(path):
            return _npz(path, bands)
        if h5py.is_hdf5(path):
            return _hdf5(path, bands)
    raise UserError(path, "a folder, or a whole FITS, .npz or HDF5 file", "another file")


def listed(path: str | os.PathLike, bands: Sequence[str]) -> tuple[Path, ...]:
    """All files that `open_images` would read: none is opened but one, and its headers alone.

    Raises `UserError` naming the path where there are no images, and for a broken catalogue.
    """
    path = Path(path)
    with telling(path):
        if path.is_dir():
            return _images_of(path)
        with gzip.open(path) if _suffix(path) == ".fits.gz" else path.open("rb") as handle:
            begin = handle.read(_BEGIN)
    # Only a catalogue of real galaxies names other files.
    if begin.startswith(b"SIMPLE") and b"GAL_FILENAME" in begin:
        return open_images(path, bands).files
    return (path,)


def as_bands(where: str, values: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """An image (y, x), (bands, y, x) or (y, x, bands) → (bands, y, x) float32; else `UserError`."""
    if values.dtype.kind not in "fiu":
        raise UserError(where, "real numbers", values.dtype)
    planes = values[None] if values.ndim == 2 else values
    if planes.ndim == 3 and planes.shape[0] != len(bands) == planes.shape[2]:
        planes = np.moveaxis(planes, 2, 0)
    if planes.ndim != 3 or planes.shape[0] != len(bands) or not planes.size:
        expected = f"an image of {len(bands)} ({', '.join(bands)}) planes"
        raise UserError(where, expected, f"shape {values.shape}")
    with np.errstate(over="ignore"):
        planes = planes.astype(np.float32)
    if not np.isfinite(planes).all():
        raise UserError(where, "finite values", "others")
    return planes


def together(where: object, planes: Sequence[np.ndarray], bands: Sequence[str]) -> np.ndarray:
    """One plane (y, x) a band → (bands, y, x); `UserError` where they differ in shape."""
    shapes = [plane.shape for plane in planes]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        found = ", ".join(f"{band} {shape}" for band, shape in zip(bands, shapes, strict=True))
        raise UserError(where, "planes (y, x) of one shape", found)
    return np.stack(planes)


def chosen(
    path: Path, shapes: Mapping[str, tuple[int, ...]], bands: Sequence[str]
) -> tuple[tuple[str, ...], int]:
    """The arrays to read, one a band or one of all, and the number of images in each."""
    if set(bands) <= set(shapes):
        taken = {band: shapes[band] for band in bands}
        wanted = (3, 4) if len(bands) == 1 else (3,)
        if len(set(taken.values())) > 1 or len(shapes[bands[0]]) not in wanted:
            found = ", ".join(f"{name} {shape}" for name, shape in taken.items())
            raise UserError(path, "arrays (n, y, x) of one shape", found)
    else:
        wanted = (3, 4) if len(bands) == 1 else (4,)
        taken = {name: shape for name, shape in shapes.items() if len(shape) in wanted}
        if len(taken) != 1:
            expected = f"arrays {', '.join(bands)}, or one array (n, y, x, bands)"
            found = ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items())[:8])
            raise UserError(path, expected, found or "none")
    return tuple(taken), next(iter(taken.values()))[0]


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Say what is amiss with a file as a `UserError` that names it."""
    try:
        yield
    except UserError:
        raise
    # Of broken files: PIL raises SyntaxError, astropy TypeError, h5py KeyError and RuntimeError.
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        found = " ".join(str(error).split())
    except (EOFError, SyntaxError, zipfile.BadZipFile, Warning) as error:
        found = " ".join(str(error).split())
    else:
        return
    raise UserError(path, "a whole file of images", f"an unreadable one ({found})")


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")


def _images_of(path: Path) -> tuple[Path, ...]:
    """The images of a folder."""
    files = tuple(sorted(file for file in path.iterdir() if file.is_file() and _suffix(file)))
    if not files:
        raise UserError(path, f"files {', '.join(_SUFFIXES)}", "none")
    return files


def _folder(path: Path, bands: tuple[str, ...]) -> ImageSet:
    files = _images_of(path)

    def planes() -> Iterator[np.ndarray]:
        for file in files:
            with telling(file):
                yield _single(file, bands)

    return ImageSet(path, bands, tuple(file.name for file in files), files, planes)


def _single(path: Path, bands: tuple[str, ...]) -> np.ndarray:
    """The one image of a file of a folder."""
    if _suffix(path) == ".npy":
        return np.load(path, allow_pickle=False)
    if _suffix(path) == ".png":
        return _png(path)
    from skyweave.images.stamp_fits import open_fits

    opened = open_fits(path, bands)
    if len(opened.names) > 1:
        raise UserError(path, "one image a file of a folder", len(opened.names))
    return next(iter(opened.planes()))


def _png(path: Path) -> np.ndarray:
    """Planes (y, x) or (y, x, 3) of a PNG, 0 to 1, without its opacity."""
    from PIL import Image

    with path.open("rb") as handle:
        depth, colour = handle.read(26)[24:] or (0, 0)
    if depth == 16 and colour:
        # PIL would give the upper 8 bits alone.
        raise UserError(path, "8 bits a colour, or 16 of grey", "16 bits a colour")
    with Image.open(path) as image:
        mode = {"1": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGBA": "RGB"}.get(image.mode)
        values = np.asarray(image.convert(mode) if mode else image, np.float32)
    return values / (2.0**16 - 1 if depth == 16 else 255)


def _npz(path: Path, bands: tuple[str, ...]) -> ImageSet:
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):
                with archive.open(member) as stream:
                    shapes[member[:-4]] = _header(path, stream, member)[0]
    arrays, number = chosen(path, shapes, bands)

    def planes() -> Iterator[np.ndarray]:
        rows = [_rows(path, f"{name}.npy") for name in arrays]
        for row in zip(*rows, strict=True):
            yield row[0] if len(row) == 1 else np.stack(row)

    return ImageSet(path, bands, tuple(map(str, range(number))), (path,), planes)


def _rows(path: Path, member: str) -> Iterator[np.ndarray]:
    """One row after the other of an array in an .npz; those in Fortran's order are loaded whole."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        shape, fortran, dtype = _header(path, stream, member)
        if fortran:
            with np.load(path) as arrays:
                yield from arrays[member[:-4]]
            return
        size = int(np.prod(shape[1:])) * dtype.itemsize
        for _ in range(shape[0]):
            yield np.frombuffer(stream.read(size), dtype).reshape(shape[1:])


def _header(path: Path, stream: Any, member: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of an array in an .npz."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        # The third is for names of columns that are not Latin.
        found = "{}.{} of NumPy's format in {}".format(*version, member)
        raise UserError(path, "arrays of plain numbers", f"version {found}")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise UserError(path, "arrays of plain numbers", f"Python objects in {member}")
    return shape, fortran, dtype


def _hdf5(path: Path, bands: tuple[str, ...]) -> ImageSet:
    with h5py.File(path, locking=False) as file:
        shapes = _arrays(file)
        groups = tuple(sorted(name for name, item in file.items() if isinstance(item, h5py.Group)))
    if groups and not any(len(shape) > 2 for shape in shapes.values()):
        return ImageSet(path, bands, groups, (path,), lambda: _galaxies(path, groups, bands))
    arrays, number = chosen(path, shapes, bands)

    def planes() -> Iterator[np.ndarray]:
        with h5py.File(path, locking=False) as file:
            for row in range(number):
                values = [file[name][row] for name in arrays]
                yield values[0] if len(values) == 1 else np.stack(values)

    return ImageSet(path, bands, tuple(map(str, range(number))), (path,), planes)


def _galaxies(path: Path, groups: Sequence[str], bands: Sequence[str]) -> Iterator[np.ndarray]:
    """Planes of one group after the other."""
    with h5py.File(path, locking=False) as file:
        for name in groups:
            where, group = f"{path}, image {name}", file[name]
            shapes = _arrays(group)
            if set(bands) <= set(shapes):
                values = [group[band][()] for band in bands]
                yield values[0] if len(values) == 1 else together(where, values, bands)
            elif len(shapes) == 1:
                yield group[next(iter(shapes))][()]
            else:
                expected = f"arrays {', '.join(bands)}, or one array of all"
                raise UserError(where, expected, ", ".join(sorted(shapes)) or "none")


def _arrays(group: h5py.Group) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a group that may be images."""
    return {
        name: tuple(item.shape)
        for name, item in group.items()
        if isinstance(item, h5py.Dataset) and item.shape and len(item.shape) > 1
    }
