"""Datasets of images of galaxies: their shards, their split and the stretch of their fluxes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skyweave import seeds
from skyweave.config import ImagesDataset, SersicDataset, Split, Stretch
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, stream_shard
from skyweave.data.split import assign, some
from skyweave.errors import UserError
from skyweave.files import sha256, write_text
from skyweave.images.psf import convolve, kernel
from skyweave.images.sersic import Profile, draw, render
from skyweave.images.stamp_files import ImageSet, open_images
from skyweave.images.stamps import read_images
from skyweave.images.stretch import Scale, fit
from skyweave.sky.fetch import COSMOS
from skyweave.statistics.tables import write_table

#: What does not change an image: neither does it a shard's provenance.
_NOT_SEEN = {"split", "stretch", "realizations", "shard_size", "path"}
#: Least images of a dataset.
_LEAST = 10
#: Most images, and most pixels of them, that the stretch is measured on.
_MEASURED, _PIXELS = 2000, 2**28
#: AB magnitude of 1 nJy.
_ZERO_POINT = 31.4


def render_sersic(
    path: str | Path, dataset: SersicDataset, realizations: range, *, seed: int, name: str
) -> None:
    """Write some realizations of Sérsic profiles as one shard, fluxes in nJy a pixel.

    The light that the point-spread function brings in from outside of the frame is in it. Labels
    are each profile's parameters, `index` its Sérsic index and `angle` in radians.
    """
    profiles = [draw(dataset, seed, name, realization) for realization in realizations]
    labels = ("x_arcsec", "y_arcsec", "radius_arcsec", "index", "axis_ratio", "angle")
    fluxes = np.array([profile.flux for profile in profiles])
    stream_shard(
        path,
        _rendered(dataset, profiles, realizations, seed, name),
        fields=dataset.fields,
        realizations=np.asarray(realizations),
        pixels=dataset.pixels,
        size_deg=dataset.pixels * dataset.pixel_arcsec / 3600,
        units={"image": "nJy"},
        provenance=_provenance(dataset, seed, name),
        labels={label: np.array([getattr(one, label) for one in profiles]) for label in labels}
        | {"magnitude": _ZERO_POINT - 2.5 * np.log10(fluxes)},
    )


def import_images(
    path: str | Path,
    dataset: ImagesDataset,
    *,
    files: str | Path | None = None,
    seed: int,
    name: str,
) -> None:
    """Write images that were made elsewhere as one shard, the first `realizations` or all.

    With `source: cosmos` they come from what was fetched into the folder `files`. The
    point-spread function acts on the files' own pixels, noise on those of the dataset. Raises
    `UserError` for fewer images than 10 or than asked for, for pixels of another side than a
    catalogue says, and naming the file for what cannot be read.
    """
    where = f"datasets.{name}"
    source = _source(dataset, files)
    opened = open_images(source, dataset.bands)
    total = len(opened.names)
    if (dataset.realizations or 0) > total:
        expected = f"at most the {total} images of {opened.path}"
        raise UserError(f"{where}.realizations", expected, dataset.realizations)
    if total < _LEAST:
        raise UserError(opened.path, f"at least {_LEAST} images", total)
    said = opened.pixel_arcsec or dataset.pixel_arcsec
    if not np.isclose(said, dataset.pixel_arcsec, rtol=1e-3):
        expected = f"{said:g}, as in {opened.path}"
        raise UserError(f"{where}.pixel_arcsec", expected, f"{dataset.pixel_arcsec:g}")
    taken = np.arange(dataset.realizations or total)
    stream_shard(
        path,
        _imported(source, dataset, taken, seed, name),
        fields=dataset.fields,
        realizations=taken,
        pixels=dataset.pixels,
        size_deg=_side(opened, dataset) / 3600,
        units=dict.fromkeys(dataset.bands, dataset.unit),
        provenance=_provenance(dataset, seed, name)
        | {"files": [{"name": opened.path.name, "content": _fingerprint(opened)}]},
    )


def prepare_images(
    shards: Sequence[str | Path],
    *,
    split_out: str | Path,
    normalization_out: str | Path,
    stretch_out: str | Path,
    split: Split,
    stretch: Stretch,
    seed: int,
    dataset: str,
) -> None:
    """Assign each image to a part; measure the stretch on up to 2000 images of the training part.

    These are drawn by the seed and the dataset's name; fewer where they would be more than 1 GB.
    Images are not normalized: each band's mean is 0 and
    its deviation 1. Raises `UserError` where a part is empty and where no training image has flux.
    """
    images = ShardSet(shards)
    parts = assign(images.realizations, split, seed, dataset)
    most = min(_MEASURED, _PIXELS // (len(images.fields) * images.pixels**2))
    train = some(parts, "train", most, seed, dataset, "stretch")
    scale = fit(stretch, np.stack([images.read(band, train) for band in images.fields], axis=1))
    write_text(stretch_out, json.dumps(scale.to_dict(), indent=1) + "\n")
    identity = Normalization(dict.fromkeys(images.fields, (0.0, 1.0)))
    write_text(normalization_out, identity.to_json())
    write_table(split_out, parts)


def read_stretch(path: str | Path) -> Scale:
    """The scale that `prepare_images` wrote; raises `UserError` naming the file for another."""
    try:
        return Scale.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except UserError as error:
        raise UserError(path, error.expected, error.found) from None
    except (OSError, ValueError) as error:
        raise UserError(path, "a stretch", " ".join(str(error).split())) from None


def _provenance(dataset: SersicDataset | ImagesDataset, seed: int, name: str) -> dict[str, Any]:
    settings = dataset.model_dump(mode="json", exclude=_NOT_SEEN)
    return {"seed": seed, "dataset": name, "settings": settings}


def _rendered(
    dataset: SersicDataset, profiles: Sequence[Profile], realizations: range, seed: int, name: str
) -> Iterator[dict[str, np.ndarray]]:
    """One image after the other."""
    spread = None if dataset.psf is None else kernel(dataset.psf, dataset.pixel_arcsec)
    margin = 0 if spread is None else spread.shape[0] // 2
    inside = slice(margin, margin + dataset.pixels)
    for realization, profile in zip(realizations, profiles, strict=True):
        image = render(profile, dataset.pixels + 2 * margin, dataset.pixel_arcsec)
        if spread is not None:
            image = convolve(image[None], spread)[0]
        noise = _noise(dataset, (1,), seed, name, realization)[0]
        yield {"image": image[inside, inside] + noise}


def _imported(
    source: Path, dataset: ImagesDataset, taken: np.ndarray, seed: int, name: str
) -> Iterator[dict[str, np.ndarray]]:
    """The bands of one image after the other."""
    spread = None if dataset.psf is None else kernel(dataset.psf, dataset.pixel_arcsec)
    images = read_images(source, dataset.bands, dataset.pixels, dataset.resize, kernel=spread)
    for realization, (_, image) in zip(taken, images, strict=False):
        noise = _noise(dataset, image.shape[:1], seed, name, int(realization))
        yield dict(zip(dataset.bands, image + noise, strict=True))


def _noise(
    dataset: SersicDataset | ImagesDataset,
    bands: tuple[int, ...],
    seed: int,
    name: str,
    realization: int,
) -> np.ndarray:
    """White noise (bands, y, x) of an image; zeros without any."""
    shape = (*bands, dataset.pixels, dataset.pixels)
    if not dataset.noise:
        return np.zeros(shape)
    rng = seeds.generator(seed, name, realization, "noise")
    return dataset.noise * rng.standard_normal(shape)


def _source(dataset: ImagesDataset, files: str | Path | None) -> Path:
    """What the images are read from."""
    if dataset.source == "cosmos":
        if files is None:
            raise ValueError("Expected the folder of the fetched files. Received: None.")
        return Path(files) / next(iter(COSMOS.names))
    assert dataset.path is not None
    return Path(dataset.path)


def _side(opened: ImageSet, dataset: ImagesDataset) -> float:
    """Side of an image, arcsec: scaled ones keep their own, of cut ones the pixels do."""
    if dataset.resize == "crop":
        return dataset.pixels * dataset.pixel_arcsec
    _, first = next(opened.read())
    return max(first.shape) * dataset.pixel_arcsec


def _fingerprint(opened: ImageSet) -> str:
    """What tells the content of a set's files from another's."""
    digest = hashlib.sha256()
    for file in opened.files:
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()
