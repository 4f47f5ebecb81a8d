"""Are made images copies of training images? Held against test images, which nobody has learned."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from skyweave.data.image_feed import turned
from skyweave.images.stretch import Scale
from skyweave.statistics.feature_distances import nearest
from skyweave.statistics.reconstruction import long_rows
from skyweave.tasks.generation_verdicts import COPY, copies_by_chance

#: Pixels a side that images are compared at.
_COARSE = 32


def copies(
    pictures: Mapping[str, np.ndarray],
    truth: np.ndarray,
    train: Iterable[np.ndarray],
    scale: Scale,
) -> dict[str, pd.DataFrame]:
    """Rows `copies` and `nearest` of sets of images (n, y, x, bands), beside n test images.

    Of each image the nearest training image t and the nearest test image h are sought, by distances
    of stretched pixels, at most 32 a side, in all eight orientations. Those of a test image are
    from the half of the test set that it is not in, and a made image's from one of these halves.
    How much nearer t is than h, (|h|² - |t|²) / max(|h|², |t - h|²) with distances |·| from the
    image, is 1 for a copy. Noise that an image has, or lacks, moves both squares alike, and the
    scale does not shrink with it. `copies` is the share of images above 99 of 100 test images (of
    fewer: above all): of a generator that learned nothing by heart it is about
    `copies_by_chance`, with or without noise. `nearest` is the median of |t| over that of test
    images.

    `train` are all training images, fluxes as the others, in blocks.
    """
    reduced = [_reduced(truth, scale), *(_reduced(images, scale) for images in pictures.values())]
    training = [_Nearest(images) for images in reduced]
    for block in train:
        references = _reduced(block, scale)
        for one in training:
            one.meet(references)
    test = reduced[0]
    known, *others = (_nearer(one, test) for one in training)
    # Images of the same law lie above it with this very probability, or that of one among them.
    bar = float(np.quantile(known, 1 - COPY, method="weibull"))
    typical = np.median(training[0].distances)
    found = {}
    for method, one, nearer in zip(pictures, training[1:], others, strict=True):
        count = len(nearer)
        share, chance = float(np.mean(nearer > bar)), copies_by_chance(count)
        likely = max(share, chance)
        # Of the bar, too, which as many test images tell.
        error = float(np.sqrt((likely * (1 - likely) + chance * (1 - chance)) / count))
        rows = [
            long_rows("copies", np.nan, share, error, count),
            long_rows("nearest", np.nan, np.median(one.distances) / typical, np.nan, count),
        ]
        found[method] = pd.concat(rows).assign(field="all")
    return found


class _Nearest:
    """Of each of some images (n, y, x, bands) the nearest that it has met, as it is turned best."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        self.distances = np.full(len(images), np.inf)
        self.found = np.zeros_like(images)

    def meet(self, references: np.ndarray) -> None:
        for symmetry in range(8):
            each = np.moveaxis(turned(np.moveaxis(references, 0, 2), symmetry), 2, 0)
            distances, numbers = nearest(_flat(self.images), _flat(each))
            closer = distances < self.distances
            self.distances[closer] = distances[closer]
            self.found[closer] = each[numbers[closer]]


def _nearer(training: _Nearest, test: np.ndarray) -> np.ndarray:
    """How much nearer (n,) a training image is than a test image; 1 for a copy."""
    nearer = np.empty(len(training.images))
    for half in range(2):
        held = _Nearest(training.images[half::2])
        held.meet(test[1 - half :: 2])
        near, far = training.distances[half::2] ** 2, held.distances**2
        apart = np.sum(np.square(training.found[half::2] - held.found), axis=(1, 2, 3), dtype=float)
        largest = np.maximum(far, apart)
        nearer[half::2] = np.divide(far - near, largest, out=np.zeros_like(far), where=largest > 0)
    return nearer


def _reduced(images: np.ndarray, scale: Scale) -> np.ndarray:
    """Stretched images averaged over squares down to at most `_COARSE` pixels a side."""
    step = -(-images.shape[1] // _COARSE)
    side = images.shape[1] // step
    cut = scale.apply(images)[:, : side * step, : side * step]
    return cut.reshape(len(cut), side, step, side, step, -1).mean(axis=(2, 4))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)
