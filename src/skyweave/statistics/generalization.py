"""What a reconstruction is worth as a whole: means over bands, and what it makes of nothing."""

import numpy as np
import pandas as pd

from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.flat_spectra import auto_and_cross
from skyweave.statistics.reconstruction import jackknife

COLUMNS = ("statistic", "value", "error", "n")


def band_means(
    prediction: np.ndarray,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    *,
    taper: np.ndarray | None = None,
) -> pd.DataFrame:
    """Means over all bands, each with the same weight; columns `COLUMNS`.

    Maps are (n, y, x) in the field's unit. `mean_correlation` and `mean_transfer` are those of
    r_ell and T_ell over the patches whose truth is not zero everywhere. `null_power` is the power
    predicted where the truth is zero over that of the prediction where it is not: 0 where nothing
    is made of nothing, 1 where an empty sky looks like a full one. Of a linear filter that
    is best in mean square it is 1 - r_ell².

    Errors are delete-one jackknife over patches, so that bands may be correlated (NaN below two);
    statistics without patches are left out. `taper` is one that both maps carry.
    """
    predicted, true, cross = auto_and_cross(prediction, truth, grid, bins, taper=taper)
    null = ~truth.any(axis=(1, 2))
    filled = np.stack([predicted, true, cross], axis=1)[~null]
    empty = predicted[null]
    rows = []
    if len(filled):
        rows.append(("mean_correlation", *jackknife(filled, _correlation), len(filled)))
        rows.append(("mean_transfer", *jackknife(filled, _transfer), len(filled)))
    if len(filled) and len(empty):
        above, below = empty.mean(axis=0), filled[:, 0].mean(axis=0)
        value, error = jackknife(empty, lambda mean: _ratio(mean, below))
        # The two sets of patches are independent.
        _, other = jackknife(filled[:, 0], lambda mean: _ratio(above, mean))
        rows.append(("null_power", value, np.hypot(error, other), len(empty)))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"value": float, "error": float})


def _correlation(means: np.ndarray) -> np.ndarray:
    """Mean r_ell of mean C_pp, C_tt and C_pt on axis -2."""
    predicted, true, cross = np.moveaxis(means, -2, 0)
    return _ratio(cross, np.sqrt(predicted * true))


def _transfer(means: np.ndarray) -> np.ndarray:
    """Mean T_ell of the same."""
    _, true, cross = np.moveaxis(means, -2, 0)
    return _ratio(cross, true)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Mean over bands, the last axis, of a ratio; NaN where one is not defined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (above / below).mean(axis=-1)
