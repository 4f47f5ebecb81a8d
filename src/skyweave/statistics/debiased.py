"""The truth's spectrum from a prediction's: debiased by what a second set of patches tells.

On the validation set, with C_pt the cross-spectrum of prediction and truth, each band has

    transfer  T = C_pt / C_tt        residual  N = C_pp - T² C_tt

and the test set's power of prediction becomes an estimate of its truth's spectrum,

    Ĉ = (C_pp - N) / T²              bias  Ĉ / C_tt - 1.

Where T is not known to a third of itself, Ĉ has no meaning: 1 / T² has no mean, and the band
cannot be debiased. The prediction holds nothing there.
"""

import numpy as np
import pandas as pd

from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.reconstruction import COLUMNS, jackknife, live_spectra, long_rows

#: Least transfer, in its standard errors, of a band that can be debiased.
LEAST = 3.0


def debiased_metrics(
    maps: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    grid: PatchGrid,
    bins: Bins,
    *,
    run: str,
    field: str,
    method: str,
    split: str = "test",
    taper: np.ndarray | None = None,
) -> pd.DataFrame:
    """Debiased spectra and their bias, in long form, of `maps`: prediction and truth (n, y, x).

    Statistics per ell: `spectrum_estimate`, Ĉ in the field's unit squared; `spectrum_bias`,
    Ĉ / C_tt - 1. Without ell: `spectrum_amplitude`, the mean of Ĉ / C_tt over the bands with the
    inverse squares of their errors as weights; over its error, the significance at which the
    spectrum is detected. NaN in bands where T is below `LEAST` of its errors, and for the
    amplitude where all are.

    `validation`, prediction and truth of other patches, tells T and N. Patches whose truth is zero
    everywhere are left out of both sets; where a set has no others there are no rows. Errors are
    jackknife errors over the patches of either set, which are independent, in quadrature; the
    scatter of the truth itself is in that of Ĉ and not in that of the bias. `taper` is one that
    all maps already carry.
    """
    test = live_spectra(*maps, grid, bins, taper)
    known = live_spectra(*validation, grid, bins, taper)
    if not len(test) or not len(known):
        return pd.DataFrame(columns=list(COLUMNS))
    transfer, transfer_error = jackknife(known, _transfer)
    usable = transfer > LEAST * transfer_error

    estimate, estimate_error = _with_error(_estimate, test, known)
    ratio, ratio_error = _with_error(_ratio, test, known)
    for values in (estimate, estimate_error, ratio, ratio_error):
        values[~usable] = np.nan
    with np.errstate(divide="ignore"):
        weights = np.where(ratio_error > 0, ratio_error**-2.0, 0.0)
    amplitude = error = np.asarray(np.nan)
    if weights.any():
        weights /= weights.sum()

        def mean(test: np.ndarray, known: np.ndarray) -> np.ndarray:
            return np.where(weights > 0, weights * _ratio(test, known), 0.0).sum(axis=-1)

        amplitude, error = _with_error(mean, test, known)
    ell, count = bins.centres(grid), len(test)
    frame = pd.concat(
        [
            long_rows("spectrum_estimate", ell, estimate, estimate_error, count),
            long_rows("spectrum_bias", ell, ratio - 1, ratio_error, count),
            long_rows("spectrum_amplitude", np.nan, amplitude, error, count),
        ],
        ignore_index=True,
    )
    return frame.assign(run=run, split=split, field=field, method=method)[list(COLUMNS)]


def _with_error(statistic, test: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Statistic of the means of two independent sets of spectra, and its error."""
    value, of_test = jackknife(test, lambda means: statistic(means, known.mean(axis=0)))
    _, of_known = jackknife(known, lambda means: statistic(test.mean(axis=0), means))
    return value, np.hypot(of_test, of_known)


def _transfer(means: np.ndarray) -> np.ndarray:
    """Mean C_pp, C_tt, C_pt on axis -2 to T."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return means[..., 2, :] / means[..., 1, :]


def _estimate(test: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Ĉ of means of C_pp, C_tt, C_pt on axis -2 of either set."""
    transfer = _transfer(known)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = known[..., 0, :] - transfer**2 * known[..., 1, :]
        return (test[..., 0, :] - noise) / transfer**2


def _ratio(test: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Ĉ over the truth's own spectrum."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _estimate(test, known) / test[..., 1, :]
