"""How near generated images are to real ones, beside what real ones and Gaussian ones are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config import ImagesDataset, SersicDataset
from skyweave.config.galaxies import Metrics
from skyweave.data.predictions import NETWORK
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split, some
from skyweave.errors import UserError
from skyweave.estimators.gaussian_images import gaussian_images
from skyweave.files import sha256
from skyweave.images.psf import kernel
from skyweave.statistics import wasserstein
from skyweave.statistics.feature_distances import fid, kid, precision_recall
from skyweave.statistics.morphology import background_rms, usable
from skyweave.statistics.reconstruction import COLUMNS, long_rows
from skyweave.tasks.generation_copies import copies
from skyweave.tasks.generation_verdicts import generation_verdicts
from skyweave.tasks.image_statistics import Measure, Measured
from skyweave.tasks.images import read_stretch

#: Sets beside the network's: other real images, which are as near as can be, and Gaussian ones.
REAL, GAUSSIAN = "real", "gaussian_images"
#: The test set, which all of them are held against.
TRUTH = "truth"

#: Most training images that a Gaussian law is learned of, and pixels that are read at once.
_LEARNED, _PIXELS = 2000, 2**24
#: Fewest images of a set: kernel distances need pairs of subsets.
_FEWEST = 4
#: Quantiles of log power that are drawn.
_QUANTILES = (0.05, 0.16, 0.5, 0.84, 0.95)
#: Statistics that are no shape: the total flux.
_NO_SHAPE = ("flux",)


@dataclass(frozen=True)
class Sets:
    """Images (n, y, x, bands) of fluxes, as many in each set, and those of a Gaussian law."""

    made: np.ndarray
    truth: np.ndarray
    real: np.ndarray
    learned: np.ndarray


def evaluate_run(
    name: str,
    fields: Sequence[str],
    metrics: Metrics,
    dataset: SersicDataset | ImagesDataset,
    *,
    samples: str | Path,
    shards: Sequence[str | Path],
    split: str | Path,
    stretch: str | Path,
    inception: str | Path | None,
    measured: str | Path,
    seed: int,
    threads: int,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, list[dict]]:
    """Metrics, morphology, spectra and verdicts of a run's images.

    Metrics have the columns of `statistics.reconstruction`, `ell` the wave number in cycles a
    pixel, and `seed`, the study's; a method is the network, other real images, or Gaussian images,
    each against the test set, the same number of images in each. Morphology has a row an image and
    band (`field`) of each set (`method`, with ``truth``); spectra the quantiles of the power of
    each set. Raises `UserError` where a set has fewer images than are compared.
    `measured` is a folder for what is measured of real images.
    """
    scale = read_stretch(stretch)
    images, parts = ShardSet(shards), read_split(split)
    sets = _sets(ShardSet([samples]), images, parts, fields, metrics, f"runs.{name}", seed)
    known_psf = dataset.psf if isinstance(dataset, SersicDataset) else None
    model, weights = _inception(inception, threads)
    measure = Measure(
        scale,
        fields,
        inception=model,
        weights=weights,
        shapes=metrics.morphology,
        noise=_noise(dataset, sets.real, fields),
        psf=None if known_psf is None else kernel(known_psf, dataset.pixel_arcsec),
        threads=threads,
    )
    # Of stretched pixels: nearer to real images, in shapes and power, than a law of fluxes.
    gaussian = scale.undo(
        gaussian_images(scale.apply(sets.learned), len(sets.truth), seed, name, "gaussian images")
    )
    truth = measure(sets.truth, measured)
    found = {
        NETWORK: measure(sets.made),
        REAL: measure(sets.real, measured),
        GAUSSIAN: measure(gaussian),
    }
    pictures = {NETWORK: sets.made, GAUSSIAN: gaussian}
    rows = []
    for method, one in found.items():
        table = pd.concat(
            [
                *_feature_rows(one, truth, metrics, seed),
                *(_distance_rows(one, truth, field, seed) for field in fields),
            ]
        )
        rows.append(table.assign(method=method))
    near = copies(pictures, sets.truth, _training(images, parts, fields), scale)
    rows += [table.assign(method=method) for method, table in near.items()]
    frame = pd.concat(rows, ignore_index=True).assign(run=name, split="test", seed=seed)
    frame = frame[[*COLUMNS, "seed"]]
    everything = {TRUTH: truth, **found}
    return (
        frame,
        _shapes(everything, name),
        _spectra(everything, name),
        generation_verdicts(frame, dataset),
    )


def _sets(
    samples: ShardSet,
    images: ShardSet,
    parts: pd.DataFrame,
    fields: Sequence[str],
    metrics: Metrics,
    where: str,
    seed: int,
) -> Sets:
    """As many images of each set as `metrics` asks for, or as test and training set have.

    Real ones are drawn by the seed alone: all runs on a dataset are held against the same.
    """
    most = min(len(members(parts, part)) for part in ("test", "train"))
    if most < _FEWEST:
        expected = f"{_FEWEST} or more images of the test and of the training set"
        raise UserError(f"{where}.metrics.images", expected, f"{most} of one")
    count = metrics.images or most
    if count > most:
        expected = f"at most {most}, of which test and training set have as many"
        raise UserError(f"{where}.metrics.images", expected, count)
    made = len(samples.realizations)
    if made < count:
        expected = f"at least {count}, the images that each set is judged by (metrics.images)"
        raise UserError(f"{where}.samples", expected, made)
    return Sets(
        _read(samples, samples.realizations[:count], fields),
        _read(images, some(parts, "test", count, seed, "test images"), fields),
        _read(images, some(parts, "train", count, seed, "other real images"), fields),
        _read(images, some(parts, "train", _LEARNED, seed, "Gaussian law"), fields),
    )


def _read(source: ShardSet, numbers: np.ndarray, fields: Sequence[str]) -> np.ndarray:
    return np.stack([source.read(field, numbers) for field in fields], axis=-1)


def _training(images: ShardSet, parts: pd.DataFrame, fields: Sequence[str]) -> Iterator[np.ndarray]:
    """All training images (n, y, x, bands), some at once."""
    numbers = members(parts, "train")
    at_once = max(_PIXELS // (len(fields) * images.pixels**2), 1)
    for first in range(0, len(numbers), at_once):
        yield _read(images, numbers[first : first + at_once], fields)


def _noise(
    dataset: SersicDataset | ImagesDataset, real: np.ndarray, fields: Sequence[str]
) -> dict[str, float]:
    """Rms of the noise by band: as set of rendered images; of others, which have some, as it is."""
    if isinstance(dataset, SersicDataset):
        return dict.fromkeys(fields, dataset.noise)
    return {field: background_rms(real[..., band]) for band, field in enumerate(fields)}


def _inception(path: str | Path | None, threads: int):
    """The network whose features are compared and its checksum; none without its file."""
    if path is None:
        return None, ""
    from skyweave.networks.inception import features
    from skyweave.training.runtime import prepare

    prepare(0, threads)
    return features(path), sha256(path)


def _feature_rows(
    made: Measured, truth: Measured, metrics: Metrics, seed: int
) -> list[pd.DataFrame]:
    """Distances of features, of all bands together."""
    if made.features is None or truth.features is None:
        return []
    count = len(truth.features)
    subset = min(metrics.kid_subset, count // 2)
    distance, error = kid(
        made.features, truth.features, subset=subset, subsets=metrics.kid_subsets, seed=seed
    )
    reach = min(metrics.neighbours, count - 1)
    precision, recall = precision_recall(truth.features, made.features, reach)
    rows = [
        long_rows("fid", np.nan, fid(made.features, truth.features), np.nan, count),
        long_rows("kid", np.nan, distance, error, count),
        long_rows("precision", np.nan, precision, np.nan, count),
        long_rows("recall", np.nan, recall, np.nan, count),
    ]
    return [row.assign(field="all") for row in rows]


def _distance_rows(made: Measured, truth: Measured, field: str, seed: int) -> pd.DataFrame:
    """Wasserstein distances of a band: power by wave number, shapes, and their mean."""
    power = wasserstein.power_distances(
        made.power[field], truth.power[field], truth.wave_numbers, seed=seed
    )
    judged, tables = power, [_long(power)]
    if made.shapes:
        shapes = wasserstein.distances(
            usable(made.shapes[field]), usable(truth.shapes[field]), seed=seed
        )
        tables.append(_long(shapes))
        for which, label in (("lost_made", "unmeasured"), ("lost_real", "unmeasured_truth")):
            lost = shapes.set_index("statistic")[which].max()
            tables.append(long_rows(label, np.nan, lost, np.nan, len(made.power[field])))
        judged = pd.concat([power, shapes[~shapes.statistic.isin(_NO_SHAPE)]])
    count = len(made.power[field])
    tables.append(
        long_rows(
            "mean_distance", np.nan, wasserstein.mean_distance(judged), _mean_error(judged), count
        )
    )
    return pd.concat(tables).assign(field=field)


def _mean_error(rows: pd.DataFrame) -> float:
    """Error of the mean over statistics, power as one, these taken as fully alike."""
    return float(np.mean([one["error"].mean() for _, one in rows.groupby("statistic")]))


def _long(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `wasserstein` in long form, `distance_{statistic}`, with their floors."""
    found = []
    for row in rows.to_dict("records"):
        where = row.get("wave_number", np.nan)
        label = f"distance_{row['statistic']}"
        found.append(long_rows(label, where, row["value"], row["error"], row["n"]))
        found.append(long_rows(f"floor_{row['statistic']}", where, row["floor"], np.nan, row["n"]))
    return pd.concat(found)


def _shapes(sets: Mapping[str, Measured], name: str) -> pd.DataFrame:
    """Morphology of each image of each set, bad measurements left out."""
    tables = [
        usable(table).assign(run=name, method=method, field=field)
        for method, one in sets.items()
        for field, table in one.shapes.items()
    ]
    if not tables:
        return pd.DataFrame(columns=["run", "method", "field"])
    frame = pd.concat(tables, ignore_index=True)
    first = ["run", "method", "field"]
    return frame[first + [column for column in frame if column not in first]]


def _spectra(sets: Mapping[str, Measured], name: str) -> pd.DataFrame:
    """Quantiles of the power of each set's images, by wave number."""
    found = []
    for method, one in sets.items():
        for field, power in one.power.items():
            values = np.quantile(power, _QUANTILES, axis=0)
            for quantile, row in zip(_QUANTILES, values, strict=True):
                found.append(
                    pd.DataFrame(
                        {
                            "run": name,
                            "method": method,
                            "field": field,
                            "quantile": quantile,
                            "wave_number": one.wave_numbers,
                            "power": row,
                        }
                    )
                )
    return pd.concat(found, ignore_index=True)
