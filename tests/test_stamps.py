"""Images that were made elsewhere: the same ones from every kind of file, and one line of mistakes.

Stamps of COSMOS come from the package client, or lie in the folder that SKYWEAVE_DATA names or in
results/data/cosmos.
"""

import gzip
import hashlib
import os
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from skyweave.config.galaxies import Psf
from skyweave.errors import UserError
from skyweave.images.psf import convolve, kernel
from skyweave.images.stamp_files import listed, open_images
from skyweave.images.stamps import count, read_images, resized
from skyweave.sky import fetch as fetching
from skyweave.sky.fetch import COSMOS, fetch

BANDS = ("g", "r", "i")


def made(number: int = 4, bands: int = 3, shape: tuple[int, int] = (16, 20)) -> np.ndarray:
    """Images (n, bands, y, x) float32; no symmetry hides an exchange of axes or images."""
    rng = np.random.default_rng(number * 10 + bands)
    return rng.standard_normal((number, bands, *shape)).astype(np.float32)


def cut(images: np.ndarray) -> np.ndarray:
    """Images of 16 x 20 pixels as they are at 16 a side."""
    return images[..., 2:18]


def folder_of_fits(path: Path, images: np.ndarray, suffix: str = ".fits") -> None:
    path.mkdir()
    for number, image in enumerate(images):
        fits.writeto(path / f"{number}{suffix}", image.squeeze())
    (path / "readme.txt").write_text("not an image")


def folder_of_extensions(path: Path, images: np.ndarray) -> None:
    path.mkdir()
    for number, image in enumerate(images):
        planes = [fits.ImageHDU(x, name=name) for x, name in zip(image, BANDS, strict=False)]
        fits.HDUList([fits.PrimaryHDU(), *planes[::-1]]).writeto(path / f"{number}.fits")


def folder_of_arrays(path: Path, images: np.ndarray) -> None:
    path.mkdir()
    for number, image in enumerate(images):
        np.save(path / f"{number}.npy", np.moveaxis(image, 0, -1).squeeze())


def fits_of_extensions(path: Path, images: np.ndarray) -> None:
    planes = [fits.ImageHDU(image.squeeze()) for image in images]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(path)


def fits_of_one_array(path: Path, images: np.ndarray) -> None:
    fits.writeto(path, images.squeeze())


def compressed_fits(path: Path, images: np.ndarray) -> None:
    exact = {"compression_type": "GZIP_2", "quantize_level": 0}
    planes = [fits.CompImageHDU(image.squeeze(), **exact) for image in images]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(path)


def fits_of_bands(path: Path, images: np.ndarray) -> None:
    named = dict(zip(BANDS, np.moveaxis(images, 1, 0), strict=False))
    planes = [fits.ImageHDU(values, name=name) for name, values in sorted(named.items())]
    fits.HDUList([fits.PrimaryHDU(), *planes, fits.ImageHDU(images[0, 0], name="MASK")]).writeto(
        path
    )


def npz_of_bands(path: Path, images: np.ndarray) -> None:
    named = {name: images[:, number] for number, name in enumerate(BANDS[: images.shape[1]])}
    np.savez(path.with_suffix(".npz"), **named, redshift=np.ones(len(images)))
    path.with_suffix(".npz").rename(path)


def npz_of_one_array(path: Path, images: np.ndarray) -> None:
    with path.open("wb") as handle:
        np.savez_compressed(handle, what=np.moveaxis(images, 1, -1).squeeze(), z=np.ones(3))


def npz_in_another_order(path: Path, images: np.ndarray) -> None:
    with path.open("wb") as handle:
        np.savez(handle, what=np.asfortranarray(np.moveaxis(images, 1, -1).astype(">f8")))


def hdf5_of_bands(path: Path, images: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for number in range(images.shape[1]):
            file[BANDS[number]] = images[:, number]
        file["redshift"] = np.ones(len(images))


def hdf5_of_one_array(path: Path, images: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["what"] = np.moveaxis(images, 1, -1)


def hdf5_of_galaxies(path: Path, images: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for number, image in enumerate(images):
            for band, plane in zip(BANDS, image, strict=False):
                file[f"galaxy_{number}/{band}"] = plane
            file[f"galaxy_{number}/size"] = float(number)


def hdf5_of_galaxies_with_planes(path: Path, images: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for number, image in enumerate(images):
            planes = image if number % 2 else np.moveaxis(image, 0, -1)
            file[f"galaxy_{number}/image"] = planes.squeeze()


KINDS = [
    folder_of_fits,
    folder_of_extensions,
    folder_of_arrays,
    fits_of_extensions,
    fits_of_one_array,
    compressed_fits,
    fits_of_bands,
    npz_of_bands,
    npz_of_one_array,
    npz_in_another_order,
    hdf5_of_bands,
    hdf5_of_one_array,
    hdf5_of_galaxies,
    hdf5_of_galaxies_with_planes,
]


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_images(kind, bands: int, tmp_path: Path) -> None:
    images = made(4, bands)
    kind(tmp_path / "images", images)
    names = BANDS[:bands]
    assert count(tmp_path / "images", names) == 4
    read = list(read_images(tmp_path / "images", names, 16, "crop"))
    assert len({name for name, _ in read}) == 4
    for (_, image), expected in zip(read, cut(images), strict=True):
        assert image.dtype == np.float32
        assert_array_equal(image, expected)


def test_bands_come_in_the_order_of_the_settings(tmp_path: Path) -> None:
    images = made()
    for kind in (hdf5_of_bands, hdf5_of_galaxies, npz_of_bands, fits_of_bands):
        path = tmp_path / kind.__name__
        kind(path, images)
        read = [image for _, image in read_images(path, ("i", "g"), 16, "crop")]
        assert_array_equal(read, cut(images)[:, [2, 0]])


def test_a_band_of_several_is_read_alone(tmp_path: Path) -> None:
    images = made()
    hdf5_of_bands(tmp_path / "images", images)
    read = [image for _, image in read_images(tmp_path / "images", ("r",), 16, "crop")]
    assert_array_equal(read, cut(images)[:, 1:2])


def test_files_of_a_folder_are_sorted_and_packed_ones_read(tmp_path: Path) -> None:
    folder_of_fits(tmp_path / "images", made(3, 1))
    raw = (tmp_path / "images" / "1.fits").read_bytes()
    (tmp_path / "images" / "1.fits").unlink()
    (tmp_path / "images" / "b.fits.gz").write_bytes(gzip.compress(raw))
    read = dict(read_images(tmp_path / "images", ("g",), 16, "crop"))
    assert list(read) == ["0.fits", "2.fits", "b.fits.gz"]
    assert_array_equal(read["b.fits.gz"], cut(made(3, 1))[1])


def test_images_are_read_one_at_a_time(tmp_path: Path) -> None:
    """The first one is there though a later one is broken."""
    folder_of_arrays(tmp_path / "images", made())
    (tmp_path / "images" / "2.npy").write_bytes(b"broken")
    images = read_images(tmp_path / "images", BANDS, 16, "crop")
    assert [next(images)[0], next(images)[0]] == ["0.npy", "1.npy"]
    with pytest.raises(UserError, match=r"2\.npy: expected a whole file of images, found"):
        next(images)


def png(path: Path, values: np.ndarray, depth: int, colour: int) -> None:
    """A PNG of any depth, which PIL does not write."""
    rows = values.astype(">u2" if depth == 16 else "u1")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


def test_pictures_are_from_0_to_1(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey, deep = rng.integers(0, 256, (16, 16)), rng.integers(0, 65536, (16, 16))
    grey[0, 0], deep[0, 0] = 255, 65535
    (tmp_path / "grey").mkdir()
    png(tmp_path / "grey" / "a.png", grey, 8, 0)
    png(tmp_path / "grey" / "b.png", deep, 16, 0)
    png(tmp_path / "grey" / "c.png", np.stack([grey, 255 - grey], -1), 8, 4)
    read = np.stack([x[0] for _, x in read_images(tmp_path / "grey", ("g",), 16, "crop")])
    assert_allclose(read, [grey / 255, deep / 65535, grey / 255], rtol=1e-6)
    assert read.max() == 1
    (tmp_path / "colour").mkdir()
    colours = rng.integers(0, 256, (16, 16, 4), np.uint8)
    Image.fromarray(colours[..., :3]).save(tmp_path / "colour" / "a.png")
    Image.fromarray(colours).save(tmp_path / "colour" / "b.png")
    expected = np.moveaxis(colours[..., :3], -1, 0) / 255
    for _, image in read_images(tmp_path / "colour", BANDS, 16, "crop"):
        assert_allclose(image, expected, rtol=1e-6)


def test_colours_of_16_bits_are_refused(tmp_path: Path) -> None:
    png(tmp_path / "a.png", np.ones((16, 16, 3), int), 16, 2)
    with pytest.raises(UserError, match=r"a\.png: expected 8 bits a colour, or 16 of grey, found"):
        next(read_images(tmp_path, BANDS, 16, "crop"))


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_listed_as_they_are_read(kind, tmp_path: Path) -> None:
    kind(tmp_path / "images", made())
    assert listed(tmp_path / "images", BANDS) == open_images(tmp_path / "images", BANDS).files


@pytest.mark.parametrize("name", ["table.fits", "table.fits.gz"])
def test_files_of_a_catalogue_are_listed(name: str, tmp_path: Path) -> None:
    catalogue(tmp_path / name)
    found = [file.name for file in listed(tmp_path / name, ("F814W",))]
    assert found == [name, "images_0.fits", "images_1.fits"]
    (tmp_path / "images_1.fits").unlink()
    with pytest.raises(
        UserError, match=r"its images beside it, images_1\.fits, found no such file"
    ):
        listed(tmp_path / name, ("F814W",))


def test_files_of_a_folder_are_listed_unopened(tmp_path: Path) -> None:
    for name in ("b.npy", "a.fits", "c.FITS.gz", "d.png", "e.txt"):
        (tmp_path / name).touch()
    found = [file.name for file in listed(tmp_path, BANDS)]
    assert found == ["a.fits", "b.npy", "c.FITS.gz", "d.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"none: expected files \.fits, \.fits\.gz, .*, found none"):
        listed(tmp_path / "none", BANDS)


@pytest.mark.parametrize("size", [15, 16, 17, 20, 31])
def test_crop_keeps_the_middle_and_pads_with_zeros(size: int) -> None:
    """Pixel n // 2 of n stays in the middle, and beyond the image is nothing."""
    image = np.arange(1, size * size + 1, dtype=np.float32).reshape(1, size, size)
    found = resized(image, 16, "crop")[0]
    for y in range(16):
        for x in range(16):
            own = (y - 8 + size // 2, x - 8 + size // 2)
            inside = min(own) >= 0 and max(own) < size
            assert found[y, x] == (image[0][own] if inside else 0)


def test_an_image_of_another_shape_is_cut_and_padded(tmp_path: Path) -> None:
    image = made(1, 2, (10, 40))[0]
    found = resized(image, 16, "crop")
    assert_array_equal(found[:, 3:13], image[:, :, 12:28])
    assert_array_equal(found[:, [0, 1, 2, 13, 14, 15]], 0)


@pytest.mark.parametrize("size", [(16, 16), (48, 48), (37, 37), (24, 60), (11, 7)])
def test_scaling_keeps_the_flux_and_its_place(size: tuple[int, int]) -> None:
    y, x = np.indices(size)
    height, width = size
    blob = np.exp(-(((y - 0.6 * height) / height) ** 2 + ((x - 0.45 * width) / width) ** 2) / 0.02)
    image = np.float32(blob[None])
    found = resized(image, 16, "scale")[0].astype(float)
    assert_allclose(found.sum(), image.sum(), rtol=1e-6)
    side = max(size)
    padded = [(side // 2 - length // 2) for length in size]
    expected = [
        (np.sum(blob * (at + pad + 0.5)) / blob.sum()) * 16 / side
        for at, pad in zip((y, x), padded, strict=True)
    ]
    places = np.arange(16) + 0.5
    measured = [found.sum(1) @ places / found.sum(), found.sum(0) @ places / found.sum()]
    assert_allclose(measured, expected, atol=0.01)


def test_scaling_is_the_mean_of_whole_blocks_and_does_not_alias() -> None:
    image = made(1, 2, (48, 48))[0]
    blocks = image.reshape(2, 16, 3, 16, 3).sum((2, 4))
    assert_allclose(resized(image, 16, "scale"), blocks, atol=1e-5)
    stripes = np.float32((-1.0) ** np.indices((1, 36, 36))[2])
    assert np.abs(resized(stripes, 16, "scale")).max() < 1.2
    assert np.abs(resized(stripes, 12, "scale") - 3 * (-1.0) ** np.arange(12)).max() < 1e-5
    assert np.abs(resized(stripes, 18, "scale")).max() < 1e-6


def test_scaled_images_have_one_size(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["0/image"], file["1/image"] = np.ones((32, 32)), np.ones((32, 30))
    with pytest.raises(UserError, match=r"image 1: expected .*32 x 32 pixels, found 32 x 30"):
        list(read_images(tmp_path / "a.h5", ("g",), 16, "scale"))
    assert len(list(read_images(tmp_path / "a.h5", ("g",), 16, "crop"))) == 2


def test_light_comes_in_from_beyond_what_is_cut(tmp_path: Path) -> None:
    images = made(2, 1, (40, 40))
    npz_of_one_array(tmp_path / "a.npz", images)
    spread = kernel(Psf(fwhm_arcsec=0.09), 0.03)
    read = [x for _, x in read_images(tmp_path / "a.npz", ("g",), 16, "crop", kernel=spread)]
    expected = convolve(images[:, 0], spread)[:, None, 12:28, 12:28]
    assert_allclose(read, expected, atol=1e-6)
    inside = convolve(images[:, 0, 12:28, 12:28], spread)[:, None]
    assert np.abs(np.array(read) - inside).max() > 0.1


def catalogue(path: Path, number: int = 4, **columns: object) -> np.ndarray:
    """GalSim's layout with images in two files, in no order; the images as the catalogue has."""
    images = made(number, 1)[:, 0]
    order = np.random.default_rng(0).permutation(number)
    for half in (0, 1):
        planes = [fits.ImageHDU(images[order[n]]) for n in range(half, number, 2)]
        fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(path.parent / f"images_{half}.fits")
    place = np.argsort(order)
    values = {
        "IDENT": np.arange(number) + 100,
        "GAL_FILENAME": np.array([f"images_{at % 2}.fits" for at in place]),
        "GAL_HDU": place // 2 + 1,
        "PIXEL_SCALE": np.full(number, 0.03),
    } | columns
    table = [
        fits.Column(name, "20A" if np.asarray(x).dtype.kind == "U" else "D", array=x)
        for name, x in values.items()
        if x is not None
    ]
    fits.BinTableHDU.from_columns(table).writeto(path)
    return images


def test_catalogue_of_real_galaxies(tmp_path: Path) -> None:
    images = catalogue(tmp_path / "table.fits", IDENT=np.array([7, 3, 5, 1], np.int32))
    opened = open_images(tmp_path / "table.fits", ("F814W",))
    assert opened.pixel_arcsec == 0.03
    assert {file.name for file in opened.files} == {"table.fits", "images_0.fits", "images_1.fits"}
    read = list(read_images(tmp_path / "table.fits", ("F814W",), 16, "crop"))
    assert [int(float(name)) for name, _ in read] == [7, 3, 5, 1]
    assert_array_equal([image[0] for _, image in read], cut(images))


@pytest.mark.parametrize(
    ("columns", "bands", "message"),
    [
        ({"GAL_HDU": None}, ("g",), r"table\.fits: expected images, or a table with columns IDENT"),
        ({}, ("g", "r"), r"table\.fits: expected one band of a catalogue.*, found g, r"),
        ({"PIXEL_SCALE": np.arange(1, 5.0)}, ("g",), r"pixels of one side, found PIXEL_SCALE"),
        ({"GAL_HDU": np.array([1, 2, 9, 1])}, ("g",), r"\.fits: expected an image .* HDU 9, found"),
        ({"GAL_HDU": np.zeros(4)}, ("g",), r"\.fits: expected an image \(y, x\) in HDU 0, found"),
        ({"GAL_FILENAME": np.array(["a"] * 4)}, ("g",), r"its images beside it, a, found no such"),
    ],
)
def test_mistakes_in_a_catalogue(columns, bands, message: str, tmp_path: Path) -> None:
    catalogue(tmp_path / "table.fits", **columns)
    with pytest.raises(UserError, match=message) as caught:
        list(read_images(tmp_path / "table.fits", bands, 16, "crop"))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def cosmos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of stamps; only a folder that the user named is written to."""
    folder = Path(__file__).parents[1] / "results" / "data" / "cosmos"
    if "SKYWEAVE_DATA" in os.environ:
        folder = Path(os.environ["SKYWEAVE_DATA"])
    elif not all((folder / name).exists() for name in COSMOS.names):
        folder = tmp_path_factory.mktemp("cosmos")
    return fetch(COSMOS, folder)["real_galaxy_catalog_23.5_example.fits"]


def test_archive_of_cosmos_finds_what_it_looks_for(tmp_path: Path, monkeypatch) -> None:
    """Its code asks for the headers of a library, and tells nothing without them."""
    archive = b"not the archive"
    asked = []

    def run(command: list[str], *, env: dict[str, str], **_: object) -> SimpleNamespace:
        asked.append(Path(env["EIGEN_DIR"], "Eigen", "Core").is_file())
        Path(command[-1], COSMOS.archive).write_bytes(archive)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(fetching.subprocess, "run", run)
    with pytest.raises(UserError, match=hashlib.sha256(archive).hexdigest()):
        fetch(COSMOS, tmp_path)
    assert asked == [True]
    assert not list(tmp_path.iterdir())


def test_stamps_of_cosmos_have_the_fluxes_that_their_table_says(cosmos: Path) -> None:
    """With ACS's zero point in F814W; a stamp ends before the galaxy, or holds a neighbour."""
    table = fits.getdata(cosmos)
    read = list(read_images(cosmos, ("F814W",), 512, "crop"))
    assert [int(name) for name, _ in read] == list(table["IDENT"])
    fluxes = np.array([image.sum(dtype=float) for _, image in read])
    magnitudes = 25.94 - 2.5 * np.log10(fluxes)
    assert abs(np.median(magnitudes - table["MAG"])) < 0.1
    assert np.corrcoef(magnitudes, table["MAG"])[0, 1] > 0.98
    peaks = [np.unravel_index(image[0, 236:276, 236:276].argmax(), (40, 40)) for _, image in read]
    assert np.median(np.hypot(*(np.array(peaks) - 20).T)) < 2


def test_stamps_of_cosmos_are_those_that_galsim_reads(cosmos: Path) -> None:
    galsim = pytest.importorskip("galsim")
    galaxies = galsim.RealGalaxyCatalog(cosmos.name, dir=str(cosmos.parent))
    read = list(read_images(cosmos, ("F814W",), 512, "crop"))
    for number in (0, 17, 83, 99):
        other = galaxies.getGalImage(number).array
        assert_array_equal(read[number][1], resized(other[None], 512, "crop"))


def broken(path: Path, kind, keep: float) -> None:
    kind(path, made(12))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.9])
@pytest.mark.parametrize(
    "kind", [fits_of_extensions, fits_of_one_array, npz_of_bands, npz_of_one_array, hdf5_of_bands]
)
def test_a_file_that_was_cut_off_is_one_line(kind, keep: float, tmp_path: Path) -> None:
    broken(tmp_path / "images.fits", kind, keep)
    with pytest.raises(UserError, match=r"images\.fits") as caught:
        list(read_images(tmp_path / "images.fits", BANDS, 16, "crop"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".fits", ".npy", ".png"])
def test_a_broken_file_of_a_folder_is_named(suffix: str, tmp_path: Path) -> None:
    first = tmp_path / f"a{suffix}"
    values = np.arange(4096, dtype=np.uint8).reshape(64, 64)
    if suffix == ".fits":
        fits.writeto(first, values)
    elif suffix == ".npy":
        np.save(first, values)
    else:
        Image.fromarray(values).save(first)
    content = first.read_bytes()
    for keep in (0, 10, len(content) // 2):
        (tmp_path / f"b{suffix}").write_bytes(content[:keep])
        with pytest.raises(UserError, match=rf"b\{suffix}: expected a whole file") as caught:
            list(read_images(tmp_path, ("g",), 16, "crop"))
        assert "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    for value in (np.nan, np.inf, 1e39):
        images = made(4, 3).astype(float)
        images[2, 1, 5, 5] = value
        for kind in (npz_of_one_array, hdf5_of_galaxies):
            path = tmp_path / "images"
            kind(path, images)
            name = "2" if kind is npz_of_one_array else "galaxy_2"
            with pytest.raises(UserError, match=rf"images, image {name}: expected finite values"):
                list(read_images(path, BANDS, 16, "crop"))
            path.unlink()


def test_other_files_and_shapes_are_refused(tmp_path: Path) -> None:
    def refused(path: Path, bands: tuple[str, ...], message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            list(read_images(path, bands, 16, "crop"))
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none", BANDS, r"none: expected a folder or a file of images, found none")
    (empty := tmp_path / "empty").mkdir()
    refused(empty, BANDS, r"empty: expected files \.fits, .*, found none")
    (text := tmp_path / "text.csv").write_text("1, 2\n")
    refused(text, BANDS, r"text\.csv: expected a folder, or a whole FITS, .*, found another file")
    npz_of_bands(tmp_path / "a.npz", made())
    refused(tmp_path / "a.npz", ("g", "z"), r"a\.npz: expected arrays g, z, or one .*found g \(4")
    hdf5_of_bands(tmp_path / "a.h5", made())
    refused(tmp_path / "a.h5", ("g", "z"), r"a\.h5: expected arrays g, z, or one array .*found g")
    hdf5_of_galaxies(tmp_path / "b.h5", made())
    expected = r"b\.h5, image galaxy_0: expected arrays g, z, or one array of all, found g, i, r"
    refused(tmp_path / "b.h5", ("g", "z"), expected)
    np.savez(tmp_path / "b.npz", g=np.ones((4, 16, 16)), r=np.ones((5, 16, 16)))
    refused(tmp_path / "b.npz", ("g", "r"), r"arrays \(n, y, x\) of one shape, found g \(4, 16, 16")
    np.savez(tmp_path / "c.npz", g=np.ones((16, 16)))
    refused(tmp_path / "c.npz", ("g",), r"c\.npz: expected arrays \(n, y, x\) of one shape")
    np.savez(tmp_path / "d.npz", g=np.array([{}] * 4, object))
    refused(tmp_path / "d.npz", ("g",), r"arrays of plain numbers, found Python objects in g")
    columns = np.dtype([("\u03b3", float)])
    with pytest.warns(UserWarning, match="format 3.0"):
        np.savez(tmp_path / "f.npz", g=np.zeros((4, 16, 16), columns))
    refused(tmp_path / "f.npz", ("g",), r"plain numbers, found version 3\.0 of NumPy's format in g")
    np.savez(tmp_path / "e.npz", g=np.ones((4, 16, 16), complex))
    refused(tmp_path / "e.npz", ("g",), r"e\.npz, image 0: expected real numbers, found complex")
    fits.writeto(tmp_path / "a.fits", np.ones((2, 16, 16)))
    refused(tmp_path / "a.fits", BANDS, r"a\.fits, image 0: expected an image of 3 \(g, r, i\) pl")
    fits.PrimaryHDU().writeto(tmp_path / "b.fits")
    refused(tmp_path / "b.fits", BANDS, r"b\.fits: expected images, or a table .*, found none")
    folder_of_fits(tmp_path / "folder", made(2, 2))
    refused(tmp_path / "folder", BANDS, r"folder, image 0\.fits: expected an image of 3 .*\(2, 16")
    fits.writeto(tmp_path / "folder" / "a.fits", np.ones((5, 2, 16, 16)))
    refused(tmp_path / "folder", ("g", "r"), r"a\.fits: expected one image a file .*, found 5")
