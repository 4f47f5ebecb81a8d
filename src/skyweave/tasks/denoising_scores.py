"""How well a network restores images, as it was trained and under conditions that it never saw."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd

from skyweave.config import DenoisingRun
from skyweave.data.degraded_feed import coarsen, degrade
from skyweave.data.predictions import NETWORK
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split, some
from skyweave.estimators.deconvolution import mean_power, wiener
from skyweave.files import atomic
from skyweave.images.stretch import Scale
from skyweave.statistics.reconstruction import COLUMNS, long_rows
from skyweave.statistics.restoration import CASES, case_words
from skyweave.statistics.verdicts import verdict

if TYPE_CHECKING:
    import keras

#: The images as they are seen, and restored by the Wiener filter that knows the condition.
SEEN, WIENER = "seen", "wiener"

#: Images that are restored at once, shown, and that the filter's spectrum is learned of.
_CHUNK, _SHOWN, _LEARNED = 32, 6, 2000


def evaluate_run(
    run: DenoisingRun,
    name: str,
    network: str | Path,
    *,
    shards: Sequence[str | Path],
    split: str | Path,
    examples: str | Path,
    seed: int,
    threads: int,
) -> tuple[pd.DataFrame, list[dict]]:
    """Metrics and verdicts of a run on its whole test set, under each of `CASES`.

    Metrics have the columns of `statistics.reconstruction`, `case` and the study's `seed`: `mse`,
    the mean squared error of stretched pixels, `flux_error`, the mean absolute error of an image's
    flux over it, and `flux_bias`, the mean error, both of the images that have flux above 0; each
    image's noise is the same for all methods and runs. `examples` becomes a file of the first
    images: groups by case of `truth` and methods, (n, y, x) fluxes.
    """
    from skyweave.networks.card import load_network
    from skyweave.training.runtime import prepare

    prepare(0, threads)
    trained = load_network(Path(network).parent)
    scale = Scale.from_dict(trained.card.data["stretch"])
    noise = float(trained.card.data["noise"])
    images, parts = ShardSet(shards), read_split(split)

    def read(numbers: np.ndarray) -> np.ndarray:
        return np.stack([images.read(field, numbers) for field in run.fields], axis=-1)

    test = read(members(parts, "test"))
    # By the dataset, not the run: the filter is the same for all.
    train = read(some(parts, "train", _LEARNED, seed, run.dataset, "wiener filter"))
    rows, shown = [], {}
    for case in CASES:
        finer = case in ("none", "noise")
        factor = 1 if finer else run.degradation.pixel_factor
        rms = noise * (run.degradation.noise_factor if case in ("noise", "both") else 1)
        truth, known = (_per_band(images, partial(_coarse, factor)) for images in (test, train))
        seen = _seen(truth, run, rms, (run.dataset, "denoising test", case), seed)
        made = {
            NETWORK: _restored(trained.model, run, seen, scale),
            WIENER: _filtered(seen, known, run.degradation.psf_pixels, rms),
            SEEN: seen,
        }
        rows += [
            _scores(values, truth, scale, run.fields).assign(method=method, case=case)
            for method, values in made.items()
        ]
        # Copies: a view would keep all images in memory.
        shown[case] = {name: v[:_SHOWN].copy() for name, v in {"truth": truth, **made}.items()}
    _write_examples(examples, shown, run.fields)
    frame = pd.concat(rows, ignore_index=True).assign(run=name, split="test", seed=seed)
    frame = frame[[*COLUMNS, "case", "seed"]]
    return frame, denoising_verdicts(frame)


def denoising_verdicts(metrics: pd.DataFrame) -> list[dict]:
    """Is the network's error below the Wiener filter's and that of the images as they are seen?

    One for each case and band; the bar is the lower of the two errors.
    """
    found = []
    table = metrics[metrics["statistic"] == "mse"]
    for (field, case), part in table.groupby(["field", "case"], sort=False):
        by = part.set_index("method")
        filtered, seen = by.value[WIENER], by.value[SEEN]
        found.append(
            verdict(
                f"{field}, {case_words(str(case))}: mean squared error, below the better of Wiener "
                "filter and image as seen",
                by.value[NETWORK],
                np.minimum(filtered, seen),
                "<",
                note=f"± {by.error[NETWORK]:.2g}; Wiener filter {filtered:.3g}, as seen {seen:.3g}",
            )
        )
    return found


def _coarse(factor: int, images: np.ndarray) -> np.ndarray:
    return coarsen(images, factor) if factor > 1 else images


def _per_band(images: np.ndarray, make: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Images (n, y, x, bands), each band what `make` gives of its images (n, y, x)."""
    return np.stack([make(images[..., band]) for band in range(images.shape[-1])], axis=-1)


def _seen(
    truth: np.ndarray, run: DenoisingRun, noise: float, identity: tuple[str, ...], seed: int
) -> np.ndarray:
    """Images as they are seen, each band with noise of its own."""
    bands = [
        degrade(
            truth[..., band],
            psf_pixels=run.degradation.psf_pixels,
            noise=noise,
            seed=seed,
            identity=(*identity, field),
        )
        for band, field in enumerate(run.fields)
    ]
    return np.stack(bands, axis=-1)


def _filtered(seen: np.ndarray, known: np.ndarray, psf_pixels: float, noise: float) -> np.ndarray:
    """Images restored by the Wiener filter for the mean power of `known` ones, band by band.

    No pixel is left below the lowest of `known`, or below 0 if that is above: a linear filter's
    ripples are negative, where the stretch is steepest.
    """
    bands = []
    for band in range(seen.shape[-1]):
        images = known[..., band]
        restored = wiener(seen[..., band], mean_power(images), psf_pixels, noise)
        bands.append(np.maximum(restored, min(0.0, float(images.min()))))
    return np.stack(bands, axis=-1)


def _restored(
    model: "keras.Model", run: DenoisingRun, seen: np.ndarray, scale: Scale
) -> np.ndarray:
    """Fluxes that the network makes of images, whatever their size."""
    from skyweave.networks import residual_denoiser

    network = model
    if seen.shape[1] != model.input_shape[1]:
        # The same weights on another size of frame.
        width = model.get_layer("enc_conv").filters
        network = residual_denoiser.build(
            seen.shape[1], run.fields, width / residual_denoiser.CHANNELS
        )
        network.set_weights(model.get_weights())
    made = np.empty(seen.shape, np.float32)
    for first in range(0, len(seen), _CHUNK):
        rows = slice(first, first + _CHUNK)
        outputs = network(scale.apply(seen[rows]), training=False)
        stretched = np.concatenate([np.asarray(outputs[f]) for f in run.fields], axis=-1)
        made[rows] = scale.undo(stretched)
    return made


def _scores(
    made: np.ndarray, truth: np.ndarray, scale: Scale, fields: Sequence[str]
) -> pd.DataFrame:
    tables = []
    for band, field in enumerate(fields):
        found, true = made[..., band], truth[..., band]
        squares = np.square(scale.apply(found) - scale.apply(true)).mean(axis=(1, 2), dtype=float)
        flux = true.sum(axis=(1, 2), dtype=float)
        lit = flux > 0
        off = (found.sum(axis=(1, 2), dtype=float) - flux)[lit] / flux[lit]
        tables += [
            _mean_row(label, values).assign(field=field)
            for label, values in (
                ("mse", squares),
                ("flux_error", np.abs(off)),
                ("flux_bias", off),
            )
        ]
    return pd.concat(tables)


def _mean_row(statistic: str, values: np.ndarray) -> pd.DataFrame:
    """Mean over images and its standard error."""
    count = len(values)
    mean = values.mean() if count else np.nan
    error = values.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return long_rows(statistic, np.nan, mean, error, count)


def _write_examples(
    path: str | Path, shown: Mapping[str, Mapping[str, np.ndarray]], fields: Sequence[str]
) -> None:
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        for case, methods in shown.items():
            for method, images in methods.items():
                for band, field in enumerate(fields):
                    file[f"{case}/{method}/{field}"] = np.float32(images[..., band])
