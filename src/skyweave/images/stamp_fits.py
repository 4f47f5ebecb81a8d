"""FITS files of images of galaxies, and GalSim's catalogues of real ones."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from skyweave.errors import UserError
from skyweave.images.stamp_files import ImageSet, chosen, telling, together

#: What makes a table GalSim's.
_COLUMNS = ("IDENT", "GAL_FILENAME", "GAL_HDU", "PIXEL_SCALE")


def open_fits(path: Path, bands: tuple[str, ...]) -> ImageSet:
    """The images of a FITS file or of GalSim's catalogue, as `stamp_files.open_images` says.

    Raises `UserError` naming the file where it holds neither.
    """
    with _reading(path) as hdus:
        tables = [hdu for hdu in hdus if hasattr(hdu, "columns")]
        for table in tables:
            if set(_COLUMNS) <= set(table.columns.names):
                return _catalogue(path, bands, table.data)
        shapes = {
            number: tuple(hdu.shape)
            for number, hdu in enumerate(hdus)
            if hdu.is_image and len(hdu.shape) > 1
        }
        named = {hdus[number].name: number for number in shapes}
    if not shapes:
        expected = f"images, or a table with columns {', '.join(_COLUMNS)}"
        raise UserError(path, expected, "another table" if tables else "none")
    own = {band: named[band.upper()] for band in bands if band.upper() in named}
    if len(own) == len(bands):
        if all(len(shapes[number]) == 2 for number in own.values()):
            return ImageSet(path, bands, ("0",), (path,), lambda: _one(path, own))
        return _stacked(path, bands, own, shapes)
    dimensions = len(next(iter(shapes.values())))
    if len(shapes) == 1 and dimensions > (2 if len(bands) == 1 else 3):
        return _stacked(path, bands, {"array": next(iter(shapes))}, shapes)
    numbers = tuple(map(str, shapes))
    return ImageSet(path, bands, numbers, (path,), lambda: _extensions(path, list(shapes)))


def _one(path: Path, own: Mapping[str, int]) -> Iterator[np.ndarray]:
    """The one image of a file with an extension a band."""
    with _reading(path) as hdus:
        planes = [_native(hdus[number].section[:]) for number in own.values()]
    yield together(path, planes, tuple(own))


def _extensions(path: Path, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """An image an extension."""
    with _reading(path) as hdus:
        for number in numbers:
            yield _native(hdus[number].section[:])


def _stacked(
    path: Path,
    bands: tuple[str, ...],
    own: Mapping[str, int],
    shapes: Mapping[int, tuple[int, ...]],
) -> ImageSet:
    """Images in arrays, one an extension named like a band or one of all."""
    arrays, count = chosen(path, {name: shapes[number] for name, number in own.items()}, bands)

    def planes() -> Iterator[np.ndarray]:
        with _reading(path) as hdus:
            for row in range(count):
                values = [_native(hdus[own[name]].section[row]) for name in arrays]
                yield values[0] if len(values) == 1 else np.stack(values)

    return ImageSet(path, bands, tuple(map(str, range(count))), (path,), planes)


def _catalogue(path: Path, bands: tuple[str, ...], table: Any) -> ImageSet:
    """The galaxies of GalSim's catalogue (arXiv:1407.7676), in its order."""
    if len(bands) > 1:
        raise UserError(path, "one band of a catalogue of real galaxies", ", ".join(bands))
    names = tuple(str(ident) for ident in table["IDENT"])
    files = [path.parent / str(name).strip() for name in table["GAL_FILENAME"]]
    numbers = [int(number) for number in table["GAL_HDU"]]
    scales = sorted({float(scale) for scale in table["PIXEL_SCALE"]})
    if len(scales) != 1:
        raise UserError(path, "galaxies with pixels of one side", f"PIXEL_SCALE {scales}")
    for file in sorted(set(files)):
        if not file.is_file():
            raise UserError(path, f"its images beside it, {file.name}", "no such file")

    def planes() -> Iterator[np.ndarray]:
        # In the catalogue's order, a file stays open as long as it is the next galaxy's too.
        for file, rows in groupby(zip(files, numbers, strict=True), key=lambda row: row[0]):
            with _reading(file) as hdus:
                for _, number in rows:
                    if not 0 <= number < len(hdus) or len(hdus[number].shape) != 2:
                        raise UserError(file, f"an image (y, x) in HDU {number}", "none")
                    yield _native(hdus[number].section[:])

    every = (path, *sorted(set(files)))
    return ImageSet(path, bands, names, every, planes, pixel_arcsec=scales[0])


def _native(values: Any) -> np.ndarray:
    """An array in this machine's order of bytes, its own."""
    values = np.asarray(values)
    return values.astype(values.dtype.newbyteorder("="))


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """The HDUs of a FITS file; what is amiss is said as a `UserError` that names it."""
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    with telling(path), ExitStack() as stack:
        with warnings.catch_warnings():
            # astropy only warns of a file that ends too early, once all headers are read.
            for message in ("File may have been truncated", "Error validating header"):
                warnings.filterwarnings("error", message, AstropyWarning)
            hdus = stack.enter_context(fits.open(path))
            len(hdus)
        yield hdus
