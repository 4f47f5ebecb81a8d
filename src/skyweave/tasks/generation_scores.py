"""How near generated images are to real ones, beside what real ones and Gaussian ones are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config import ImagesDataset, SersicDataset
from skyweave.config.galaxies import Metrics
from skyweave.data.predictions import NETWORK
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.gaussian_images import gaussian_images
from skyweave.files import sha256
from skyweave.images.psf import kernel
from skyweave.statistics import wasserstein
from skyweave.statistics.feature_distances import fid, kid, nearest, precision_recall
from skyweave.statistics.morphology import background_rms, usable
from skyweave.statistics.reconstruction import COLUMNS, long_rows
from skyweave.tasks.generation_verdicts import COPY, copies_by_chance, generation_verdicts
from skyweave.tasks.image_statistics import Measure, Measured
from skyweave.tasks.images import read_stretch

#: Sets beside the network's: other real images, which are as near as can be, and Gaussian ones.
REAL, GAUSSIAN = "real", "gaussian_images"
#: The test set, which all of them are held against.
TRUTH = "truth"

#: Training images that a Gaussian law is learned of, and that nearest neighbours are sought among.
_LEARNED, _SOUGHT = 2000, 5000
#: Pixels a side that images are compared at when neighbours are sought.
_COARSE = 32
#: Fewest images of a set: kernel distances need pairs of subsets.
_FEWEST = 4
#: Quantiles of log power that are drawn.
_QUANTILES = (0.05, 0.16, 0.5, 0.84, 0.95)
#: Statistics that are no shape: the total flux.
_NO_SHAPE = ("flux",)


@dataclass(frozen=True)
class Sets:
    """Images (n, y, x, bands) of fluxes, as many in each set, and those of the training set."""

    made: np.ndarray
    truth: np.ndarray
    real: np.ndarray
    train: np.ndarray


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
    pixel; a method is the network, other real images, or Gaussian images, each against the test
    set, the same number of images in each. Morphology has a row an image and band (`field`) of each
    set (`method`, with ``truth``); spectra the quantiles of the power of each set.
    `measured` is a folder for what is measured of real images.
    """
    scale = read_stretch(stretch)
    images, parts = ShardSet(shards), read_split(split)
    sets = _sets(ShardSet([samples]), images, parts, fields, metrics, f"runs.{name}.metrics.images")
    noise = dataset.noise or (0.0 if isinstance(dataset, SersicDataset) else _noise(sets.real))
    known_psf = dataset.psf if isinstance(dataset, SersicDataset) else None
    model, weights = _inception(inception, threads)
    measure = Measure(
        scale,
        fields,
        inception=model,
        weights=weights,
        shapes=metrics.morphology,
        noise=noise,
        psf=None if known_psf is None else kernel(known_psf, dataset.pixel_arcsec),
        threads=threads,
    )
    gaussian = scale.undo(
        gaussian_images(
            scale.apply(sets.train[:_LEARNED]), len(sets.truth), seed, name, "gaussian images"
        )
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
    copies = _copies(sets, pictures, scale, seed)
    rows += [table.assign(method=method) for method, table in copies.items()]
    frame = pd.concat(rows, ignore_index=True).assign(run=name, split="test")[list(COLUMNS)]
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
) -> Sets:
    """As many images of each set as `metrics` asks for, or as the smallest of them has."""
    test, train = members(parts, "test"), members(parts, "train")
    most = min(len(test), len(train), len(samples.realizations))
    if most < _FEWEST:
        raise UserError(where, f"{_FEWEST} or more images of each set", f"{most} of one")
    count = metrics.images or most
    if count > most:
        raise UserError(where, f"at most {most}, of which each set has as many", count)

    def read(source: ShardSet, numbers: np.ndarray) -> np.ndarray:
        return np.stack([source.read(field, numbers) for field in fields], axis=-1)

    return Sets(
        read(samples, samples.realizations[:count]),
        read(images, test[:count]),
        # The last of the training set: the first ones tell the stretch.
        read(images, train[-count:]),
        read(images, train[:_SOUGHT]),
    )


def _noise(images: np.ndarray) -> float:
    return max(background_rms(images[..., band]) for band in range(images.shape[-1]))


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


def _copies(
    sets: Sets, pictures: Mapping[str, np.ndarray], scale, seed: int
) -> dict[str, pd.DataFrame]:
    """Share of images that lie nearer to a training image than nearly all test images do.

    By rms of stretched pixels, of at most 32 a side, the training images turned and mirrored.
    Of a generator that learned nothing by heart it is `copies_by_chance`.
    """
    train = _symmetries(_small(scale.apply(sets.train)))
    test = nearest(_flat(_small(scale.apply(sets.truth))), train)[0]
    # Images of the same law lie below it with this very probability, or that of one among them.
    bar = float(np.quantile(test, COPY, method="weibull"))
    found = {}
    for method, images in pictures.items():
        away = nearest(_flat(_small(scale.apply(images))), train)[0]
        count = len(away)
        share = float(np.mean(away < bar))
        # Of the bar, too, which as many test images tell.
        error = float(np.sqrt(2 * max(share, copies_by_chance(count)) / count))
        rows = [
            long_rows("copies", np.nan, share, error, count),
            long_rows("nearest", np.nan, np.median(away) / np.median(test), np.nan, count),
        ]
        found[method] = pd.concat(rows).assign(field="all")
    return found


def _small(images: np.ndarray) -> np.ndarray:
    """Images averaged over squares down to at most `_COARSE` pixels a side."""
    step = -(-images.shape[1] // _COARSE)
    side = images.shape[1] // step
    cut = images[:, : side * step, : side * step]
    return cut.reshape(len(cut), side, step, side, step, -1).mean(axis=(2, 4))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _symmetries(images: np.ndarray) -> np.ndarray:
    """Flat images in their eight orientations."""
    turned = [np.rot90(one, k, axes=(1, 2)) for one in (images, images[:, ::-1]) for k in range(4)]
    return np.concatenate([_flat(one) for one in turned])


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
