"""Images of a generation run: real and generated ones, and those of one set of random numbers."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from skyweave.data.predictions import NETWORK
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.images.stretch import Scale
from skyweave.report import read
from skyweave.report.style import canvas, nothing_drawn

#: Images beside each other, and rows of them of each set.
_BESIDE, _ROWS = 8, 2
#: Most epochs along a training.
_EPOCHS = 6
#: Between images; those of galaxies are white or black there.
_GAP = (0.82, 0.84, 0.86)


@dataclass(frozen=True)
class Images:
    """Fluxes (n, y, x, bands) of images, and their numbers (n,) in the files."""

    fluxes: np.ndarray
    numbers: np.ndarray


def read_scale(path: str | Path) -> Scale:
    """The scale of a dataset's images; raises `UserError` naming the file for another content."""
    try:
        return Scale.from_dict(read.document(Path(path)))
    except UserError as error:
        raise UserError(path, error.expected, error.found) from None


def shown_images(
    shards: Sequence[str | Path], bands: Sequence[str], split: str | Path | None = None
) -> Images:
    """The first images of shards, or some that lie evenly in the test set of their `split`."""
    source, most = ShardSet(shards), _BESIDE * _ROWS
    if split is None:
        numbers = source.realizations[:most]
    else:
        # The first of a catalogue are those of one end of its order.
        test = members(read_split(split), "test")
        count = min(most, len(test))
        numbers = test[np.arange(count) * len(test) // count]
    return Images(np.stack([source.read(band, numbers) for band in bands], axis=-1), numbers)


def samples(
    real: Images, made: Images, bands: Sequence[str], scale: Scale, path: Path
) -> pd.DataFrame:
    """Draw real images above, generated ones below; returns total and largest flux of each."""
    rows = []
    with canvas(path, 2, 1, size=(9.2, 5.4)) as (_, axes):
        for ax, images, method, words in zip(
            axes[:, 0],
            (real, made),
            ("truth", NETWORK),
            ("real: evenly from the test set", "generated: the first that were made"),
            strict=True,
        ):
            _show(ax, _mosaic(pictures(scale.apply(images.fluxes))))
            ax.set_title(words, loc="left")
            for number, image in zip(images.numbers, images.fluxes, strict=True):
                rows += [
                    {
                        "method": method,
                        "image": int(number),
                        "field": band,
                        "flux": float(image[..., plane].sum(dtype=float)),
                        "largest": float(image[..., plane].max()),
                    }
                    for plane, band in enumerate(bands)
                ]
    return pd.DataFrame(rows)


def grids(source: str | Path, bands: Sequence[str], path: Path) -> pd.DataFrame:
    """Draw images of the same random numbers, a row an epoch; returns mean and rms of each.

    Both are of stretched pixels. Raises `UserError` for a file that is missing or broken.
    """
    epochs, images = _read_grids(Path(source), len(bands))
    if not len(epochs):
        words = "No grids: the training ended before one was due, or its state is gone."
        return nothing_drawn(path, words)
    chosen = np.unique(np.linspace(0, len(epochs) - 1, min(_EPOCHS, len(epochs))).round())
    chosen = chosen.astype(int)
    shown = images[chosen, :_BESIDE]
    side = shown.shape[2]
    drawn = _mosaic(pictures(shown.reshape(-1, *shown.shape[2:])), shown.shape[1])
    size = (9.2, 9.0 * drawn.shape[0] / drawn.shape[1] + 0.3)
    with canvas(path, size=size) as (_, axes):
        ax = axes[0, 0]
        _show(ax, drawn)
        step = side + _gap(side)
        places = _gap(side) + (side - 1) / 2 + step * np.arange(len(chosen))
        ax.set_yticks(places, [f"epoch {epochs[row]}" for row in chosen])
        ax.tick_params(axis="y", length=0, labelleft=True)
    rows = [
        {
            "epoch": int(epochs[row]),
            "image": number,
            "field": band,
            "mean": float(image[..., plane].mean(dtype=float)),
            "rms": float(image[..., plane].std(dtype=float)),
        }
        for row in chosen
        for number, image in enumerate(images[row, :_BESIDE])
        for plane, band in enumerate(bands)
    ]
    return pd.DataFrame(rows)


def pictures(stretched: np.ndarray) -> np.ndarray:
    """Colours (n, y, x, 3), 0 to 1, of stretched images (n, y, x, bands).

    The first three bands are red, green and blue; of fewer, the first is grey, and light is dark.
    """
    level = np.clip((np.nan_to_num(stretched, nan=-1.0) + 1) / 2, 0, 1)
    if level.shape[-1] >= 3:
        return level[..., :3]
    return np.repeat(1 - level[..., :1], 3, axis=-1)


def colours_words(bands: Sequence[str]) -> str:
    """How images of these bands are drawn, in a sentence."""
    scale = "by the dataset's fixed stretch, one scale for all images"
    if len(bands) >= 3:
        return f"Red, green and blue are the bands {', '.join(bands[:3])}, {scale}."
    of = f"The band {bands[0]} is drawn" if len(bands) > 1 else "Images are drawn"
    return f"{of} {scale}: white is no flux, black is the stretch's top and all above it."


def _read_grids(path: Path, bands: int) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (k,) and stretched images (k, n, y, x, bands)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            epochs, images = arrays["epochs"], arrays["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        found = str(error).splitlines()[0] if path.is_file() else "none"
        raise UserError(path, "an .npz file of epochs and images", found) from None
    wrong = images.ndim != 5 or (len(images), images.shape[-1]) != (len(epochs), bands)
    if len(epochs) and wrong:
        expected = f"images ({len(epochs)}, n, y, x, {bands})"
        raise UserError(path, expected, images.shape)
    return epochs, images


def _mosaic(images: np.ndarray, columns: int = _BESIDE) -> np.ndarray:
    """Images (n, y, x, 3) in rows, with gaps around each; places without one stay empty."""
    count, side = images.shape[:2]
    columns = min(columns, count)
    rows, gap = -(-count // columns), _gap(side)
    step = side + gap
    whole = np.empty((rows * step + gap, columns * step + gap, 3))
    whole[:] = _GAP
    for number, image in enumerate(images):
        y, x = (gap + step * place for place in divmod(number, columns))
        # The first row of pixels lies below, as in all maps.
        whole[y : y + side, x : x + side] = image[::-1]
    return whole


def _gap(side: int) -> int:
    return max(1, side // 24)


def _show(ax: Axes, image: np.ndarray) -> None:
    # Finer images than the figure are averaged, coarser ones keep their pixels.
    ax.imshow(image, origin="upper", interpolation="antialiased")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
