"""Morphology of galaxies, by statmorph: the shape of each image's brightest source in numbers.

One fixed rule says what is measured, the same for real and made images. An image is smoothed by a
Gaussian of one pixel; sources are connected pixels (8 neighbours, 5 or more) above 2 per cent of
the smoothed peak and above 1.5 times the noise; the one with the brightest smoothed pixel is
measured on the whole frame, with others masked. Petrosian apertures and the Sérsic fit do the rest:
with 10 per cent in place of 2, numbers of a smooth profile change by 1 per cent at most.

The sky is known and not estimated from the frame's empty corners, which galaxies' wings reach into:
its mean is zero, and its rms is `noise`. Outliers are not removed: the cusp of a steep profile
looks like one, and a pixel that a network gets wrong shall count.

Source: Rodriguez-Gomez et al. 2019 (arXiv:1809.08239); Lotz et al. 2004 (astro-ph/0311352).
"""

import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from skyweave.errors import UserError

#: What is measured; all but the flux do not change when an image is multiplied by a number.
STATISTICS = (
    *("sersic_index", "half_light_radius", "ellipticity", "concentration", "asymmetry"),
    *("smoothness", "gini", "m20", "flux"),
)

#: Highest flag of a measurement that counts: 2 and above are bad.
SUSPECT = 1

#: Flag of an image in which nothing can be measured.
_NOTHING = 4

#: Smoothing before segmentation, pixels; a source's least surface brightness, of the smoothed peak
#: and of the noise; its fewest pixels.
_SMOOTHING, _PEAK_SHARE, _NOISE_FACTOR, _PIXELS = 1.0, 0.02, 1.5, 5

#: Errors that the Sérsic fit assumes beside the noise: this share of the flux, which is what a
#: profile sampled at a pixel's centre may differ by from its mean over the pixel, and not less than
#: that of this share of the peak.
_ERROR, _FLOOR = 0.05, 0.01

#: Sérsic indices beyond which a fit is held, and flagged as suspect.
_INDICES = (0.1, 10.0)

#: What statmorph gives for what it cannot measure.
_INVALID = -99.0

#: Images a task of a process, and fewest that processes are started for: each takes seconds to load
#: statmorph, in which these are measured.
_CHUNK, _FEWEST = 8, 64


def morphology(
    images: np.ndarray, *, threads: int = 1, noise: float = 0.0, psf: np.ndarray | None = None
) -> pd.DataFrame:
    """Morphology of images (n, y, x) of fluxes, without background: a row an image, in order.

    Columns are `STATISTICS` and `flag`. `sersic_index`, `half_light_radius` (pixels, the geometric
    mean of the axes) and `ellipticity` (1 - b/a) are those of the fitted Sérsic profile: what lies
    within the frame gives too small a radius for steep profiles. The profile is convolved with
    `psf` (y, x) if there is one. Concentration, asymmetry, smoothness, Gini and M20 are Lotz et
    al.'s; `flux` is that within two Petrosian radii, in the images' unit. `noise` is the rms of a
    pixel, in the same unit. Smoothness steps with the Petrosian radius, as its boxcar is a whole
    number of pixels, and says little for galaxies of few pixels. With noise, asymmetry is too low,
    as turning about a point between pixels smooths the noise: compare images of the same noise.

    `flag` is the worse of statmorph's two, of the image and of the Sérsic fit: 0 good, 1 suspect
    (more than one clump, an index at 0.1 or 10), 2 bad (reaches far beyond the frame, the fit did
    not converge), 4 nothing measured: all NaN. A value that alone cannot be measured is NaN. That
    the frame's edge cuts a source is no flag by itself.

    Rows depend on their images only, not on `threads`, processes that share the images where these
    are many. Raises `UserError` for images of another shape or a noise below zero.
    """
    images = np.asarray(images)
    if images.ndim != 3:
        raise UserError("images", "(n, y, x)", images.shape)
    if not 0 <= noise < np.inf:
        raise UserError("noise", "an rms, 0 or more", noise)
    measure = partial(_measure_all, noise=float(noise), psf=psf)
    if threads == 1 or len(images) < _FEWEST:
        rows = measure(images)
    else:
        chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
        with ProcessPoolExecutor(threads, mp_context=get_context("spawn")) as pool:
            with _without_main():
                tasks = [pool.submit(measure, chunk) for chunk in chunks]
            rows = [row for task in tasks for row in task.result()]
    table = pd.DataFrame(rows, columns=[*STATISTICS, "flag"])
    return table.astype(dict.fromkeys(STATISTICS, float) | {"flag": int})


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The statistics of a table of `morphology`; rows that are flagged as bad are NaN."""
    return table[list(STATISTICS)].where(table["flag"] <= SUSPECT)


def background_rms(images: np.ndarray) -> float:
    """Rms of the noise of images (n, y, x), from the pixels at the edge of their frames.

    The median over images of 1.4826 times the median absolute deviation: what a neighbour or a few
    wings add there does not count. Rows and columns of nothing but 0 around an image, which fill a
    frame that is larger than it, are no part of it; images of 0 alone do not count, and where
    there are no others the noise is 0.
    """
    found = [_edge_rms(image) for image in np.asarray(images, float) if image.any()]
    return float(np.median(found)) if found else 0.0


def _edge_rms(image: np.ndarray) -> float:
    """Robust rms of the outer two pixels of an image (y, x), what is empty around it cut off."""
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    outer = np.ones(image.shape, bool)
    outer[2:-2, 2:-2] = False
    edge = image[outer]
    return float(1.4826 * np.median(np.abs(edge - np.median(edge))))


@contextmanager
def _without_main() -> Iterator[None]:
    """New processes do not run the caller's script anew, which may have no guard against it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _measure_all(
    images: np.ndarray, *, noise: float, psf: np.ndarray | None
) -> list[tuple[float, ...]]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return [_measure(image.astype(float), noise, psf) for image in images]


def _measure(image: np.ndarray, noise: float, psf: np.ndarray | None) -> tuple[float, ...]:
    """Row of an image: values in the order of `STATISTICS`, and the flag."""
    nothing = (*np.full(len(STATISTICS), np.nan), _NOTHING)
    sources, peak = _segment(image, noise)
    if sources is None:
        return nothing
    # Statmorph leaves an odd image by errors of any kind, an assertion's among them.
    try:
        # In units of the peak: tolerances do not depend on the flux.
        source = _source_class()(image / peak, sources, noise / peak, psf)
        values = source.statistics()
    except Exception:
        return nothing
    values[-1] *= peak
    flag = max(source.flag, source.flag_sersic)
    return nothing if flag >= _NOTHING else (*values, flag)


def _segment(image: np.ndarray, noise: float) -> tuple[Any, float]:
    """Sources (y, x), the one to be measured numbered 1, and the smoothed peak; None for none."""
    from photutils.segmentation import detect_sources
    from scipy import ndimage

    if not np.isfinite(image).all():
        return None, np.nan
    smoothed = ndimage.gaussian_filter(image, _SMOOTHING, mode="constant")
    peak = float(smoothed.max())
    if peak <= 0:
        return None, peak
    found = detect_sources(smoothed, max(_PEAK_SHARE * peak, _NOISE_FACTOR * noise), _PIXELS)
    if found is None:
        return None, peak
    labels = found.data
    brightest = labels[np.unravel_index(smoothed.argmax(), image.shape)]
    if brightest == 0:
        return None, peak
    return np.where(labels == brightest, 1, np.where(labels > 0, 2, 0)), peak


@cache
def _source_class() -> Any:
    """Statmorph's measurement with a known sky and without what is not asked for."""
    from statmorph import SourceMorphology

    class Source(SourceMorphology):
        sky_mean = 0.0

        def __init__(
            self, image: np.ndarray, sources: np.ndarray, noise: float, psf: np.ndarray | None
        ) -> None:
            self.sky_sigma = noise
            # Mean of |a - b| of two draws of the noise.
            self._sky_asymmetry = 2 * noise / np.sqrt(np.pi)
            super().__init__(
                image,
                sources,
                1,
                weightmap=np.hypot(noise, _ERROR * np.hypot(_FLOOR, image)),
                psf=psf,
                # The whole frame, wherever the source lies in it.
                cutout_extent=2 * max(image.shape) + 1,
                n_sigma_outlier=0,
                sersic_model_args={"bounds": {"n": _INDICES}},
            )

        @property
        def _sky_smoothness(self) -> float:
            """Mean excess of the noise over its mean in the boxcar."""
            size = max(int(self._petro_fraction_cas * self.rpetro_circ), 1)
            return self.sky_sigma * np.sqrt((1 - 1 / size**2) / (2 * np.pi))

        def _calculate_morphology(self) -> None:
            self.statistics()

        def statistics(self) -> list[float]:
            """Values in the order of `STATISTICS`."""
            round_radius = self.sersic_rhalf * np.sqrt(1 - self.sersic_ellip)
            shape = [self.sersic_n, round_radius, self.sersic_ellip]
            names = ("concentration", "asymmetry", "smoothness", "gini", "m20", "flux_circ")
            values = shape + [getattr(self, name) for name in names]
            return [
                float(value) if np.isfinite(value) and value != _INVALID else np.nan
                for value in values
            ]

    return Source
