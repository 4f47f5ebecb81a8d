"""How well a predicted field follows the true one: correlation, transfer and residual per ell.

With C_pt the cross-spectrum of prediction and truth, averaged over patches,

    correlation  r = C_pt / sqrt(C_pp C_tt)
    transfer     T = C_pt / C_tt              (1: unbiased amplitude)
    residual     N = C_pp - T² C_tt           (power in the prediction, unexplained by the truth)

so that N = C_pp (1 - r²) >= 0. The effective noise of the debiased map, prediction / T, is N / T².
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.flat_spectra import CHUNK, auto_and_cross

COLUMNS = ("run", "split", "field", "method", "statistic", "ell", "value", "error", "n")


def field_metrics(
    prediction: np.ndarray,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    *,
    run: str,
    field: str,
    method: str,
    split: str = "test",
    taper: np.ndarray | None = None,
) -> pd.DataFrame:
    """Metrics of predictions against truths, both (n, y, x) in the field's unit, in long form.

    Statistics per ell: `correlation`, `transfer`, `residual`, `power_prediction`, `power_truth`
    over the n patches whose truth is not zero everywhere; `power_prediction_null` over those where
    it is (what is predicted where there is nothing), if any. Without ell: `pixel_correlation` over
    all pixels of all patches, and the counts `patches` and `patches_null`. Powers are C_ell.

    Errors are delete-one jackknife over patches (NaN below two). `taper` (y, x) is one that both
    maps already carry; see `cross_spectra`. Raises `UserError` for shapes that differ or values
    that are not finite.
    """
    _check(prediction, truth, where=f"{run}: {method} {field}")
    null = ~truth.any(axis=(1, 2))
    spectra = auto_and_cross(prediction, truth, grid, bins, taper=taper)
    auto_p, auto_t, cross = (spectrum[~null] for spectrum in spectra)

    rows = [
        long_rows("patches", np.nan, len(truth), np.nan, len(truth)),
        long_rows("patches_null", np.nan, null.sum(), np.nan, len(truth)),
        long_rows("pixel_correlation", np.nan, *_pixel_correlation(prediction, truth), len(truth)),
    ]
    ell = bins.centres(grid)
    if not null.all():
        sums = np.stack([auto_p, auto_t, cross], axis=1)
        values, errors = jackknife(sums, _per_ell)
        for statistic, value, error in zip(_PER_ELL, values, errors, strict=True):
            rows.append(long_rows(statistic, ell, value, error, len(sums)))
    if null.any():
        value, error = jackknife(spectra[0][null], lambda mean: mean)
        rows.append(long_rows("power_prediction_null", ell, value, error, null.sum()))

    frame = pd.concat(rows, ignore_index=True)
    frame = frame.assign(run=run, split=split, field=field, method=method)
    return frame[list(COLUMNS)]


def correlation_gain(
    prediction: np.ndarray, baseline: np.ndarray, truth: np.ndarray
) -> tuple[float, float]:
    """Pixel correlation of `prediction` less that of `baseline`, and the jackknife error.

    Maps are (n, y, x). Patch by patch on the same sky, so that the sky's scatter cancels.
    """
    means = np.concatenate([_moments(prediction, truth), _moments(baseline, truth)], axis=1)
    value, error = jackknife(means, lambda m: _pearson(m[..., :5]) - _pearson(m[..., 5:]))
    return float(value), float(error)


def band_gain(
    prediction: np.ndarray,
    other: np.ndarray,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    taper: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """r_ell of `prediction` less that of `other`, and the jackknife errors, each (bands,).

    Maps are (n, y, x). Patch by patch on the same sky, so that the sky's scatter cancels; patches
    whose truth is zero everywhere are left out, and with no others all is NaN. `taper` as in
    `field_metrics`.
    """
    live = truth.any(axis=(1, 2))
    if not live.any():
        return np.full(bins.count, np.nan), np.full(bins.count, np.nan)
    sums = np.concatenate(
        [live_spectra(maps, truth, grid, bins, taper) for maps in (prediction, other)], axis=1
    )

    def gain(means: np.ndarray) -> np.ndarray:
        first, second = means[..., :3, :], means[..., 3:, :]
        return _per_ell(first)[..., 0, :] - _per_ell(second)[..., 0, :]

    return jackknife(sums, gain)


def live_spectra(
    prediction: np.ndarray,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    taper: np.ndarray | None = None,
) -> np.ndarray:
    """C_pp, C_tt and C_pt (m, 3, bands) of the m patches whose truth is not zero everywhere."""
    live = truth.any(axis=(1, 2))
    return np.stack(auto_and_cross(prediction, truth, grid, bins, taper=taper), axis=1)[live]


_PER_ELL = ("correlation", "transfer", "residual", "power_prediction", "power_truth")


def _per_ell(means: np.ndarray) -> np.ndarray:
    """Mean C_pp, C_tt, C_pt on axis -2 to the statistics of `_PER_ELL` on axis -2."""
    auto_p, auto_t, cross = np.moveaxis(means, -2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        transfer = cross / auto_t
        correlation = cross / np.sqrt(auto_p * auto_t)
        residual = auto_p - cross * transfer
    return np.stack([correlation, transfer, residual, auto_p, auto_t], axis=-2)


def _pixel_correlation(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pearson correlation over all pixels, and its jackknife error over patches."""
    return jackknife(_moments(prediction, truth), _pearson)


def _moments(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Means (n, 5) of p, t, p², t², pt over the pixels of each patch."""
    # The origin does not matter but for rounding: take it near the pixels.
    origins = prediction.mean(dtype=float), truth.mean(dtype=float)
    means = np.empty((len(truth), 5))
    for start in range(0, len(truth), CHUNK):
        rows = slice(start, start + CHUNK)
        p, t = prediction[rows] - origins[0], truth[rows] - origins[1]
        products = [p, t, p * p, t * t, p * t]
        means[rows] = np.stack([x.mean(axis=(1, 2), dtype=float) for x in products], axis=1)
    return means


def _pearson(means: np.ndarray) -> np.ndarray:
    """Means of p, t, p², t², pt on the last axis to the correlation."""
    p, t, pp, tt, pt = np.moveaxis(means, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (pt - p * t) / np.sqrt((pp - p * p) * (tt - t * t))


def jackknife(samples: np.ndarray, statistic: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Statistic of the mean of samples (n, ...), and its delete-one jackknife error.

    `statistic` takes means with any leading axes. The error is NaN below two samples.
    """
    count = len(samples)
    mean = samples.mean(axis=0)
    value = statistic(mean)
    if count < 2:
        return value, np.full_like(value, np.nan)
    left_out = statistic((count * mean - samples) / (count - 1))
    spread = left_out - left_out.mean(axis=0)
    return value, np.sqrt((count - 1) / count * np.sum(spread**2, axis=0))


def long_rows(
    statistic: str, ell: ArrayLike, value: ArrayLike, error: ArrayLike, count: int
) -> pd.DataFrame:
    """Rows of one statistic: `ell`, `value` and `error` broadcast, `n` the same for all."""
    columns: Mapping = {"ell": ell, "value": value, "error": error}
    arrays = np.broadcast_arrays(*(np.atleast_1d(x).astype(float) for x in columns.values()))
    frame = pd.DataFrame(dict(zip(columns, arrays, strict=True)))
    return frame.assign(statistic=statistic, n=int(count))


def _check(prediction: np.ndarray, truth: np.ndarray, *, where: str) -> None:
    if prediction.shape != truth.shape or not len(truth):
        raise UserError(where, f"predictions of shape {truth.shape}", prediction.shape)
    for name, maps in (("prediction", prediction), ("truth", truth)):
        broken = ~np.isfinite(maps).all(axis=(1, 2))
        if broken.any():
            found = f"others in {broken.sum()} of {len(maps)} patches, first {broken.argmax()}"
            raise UserError(f"{where}: {name}", "finite values", found)
