"""Does a prediction hold the power of its truth, and at what cost in correlation?

The estimate that is best in mean square has the power of what it knows, r² of the truth's, and a
generator that a discriminator is to take for the truth has all of it. So both are told, per band:

    power ratio  C_pp / C_tt        correlation  r = C_pt / sqrt(C_pp C_tt)

A sample of an exact posterior has a power ratio of 1, and the correlation r² where the mean of the
posterior has r: samples are judged by their power, their mean by its correlation.
"""

import numpy as np
import pandas as pd

from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.flat_spectra import cross_spectra
from skyweave.statistics.reconstruction import COLUMNS, field_metrics, jackknife, long_rows

#: The method of rows about samples, each taken by itself; and about the mean of infinitely many.
SAMPLES, MEAN = "samples", "mean"

#: Means are over the bands with centres below this multipole.
ELL = 2000.0

_PER_ELL = (
    *("correlation", "transfer", "residual", "power_prediction", "power_truth"),
    "power_ratio",
)
_MEANS = ("correlation", "power_ratio")


def fidelity_metrics(
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
    samples: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rows of `field_metrics` and, per ell, `power_ratio`; in long form.

    Without ell: `mean_correlation` and `mean_power_ratio` over the bands below `ELL`, each with the
    same weight. What is predicted where the truth is zero everywhere is `power_null`, as of
    `null_power`, in place of `power_prediction_null`. With `samples` (samples, n, y, x) there are
    the same statistics but those of pixels and null patches again for the method `SAMPLES`: spectra
    of each sample, averaged over the samples of a patch; and for the method `MEAN`, the mean of
    infinitely many samples, whose spectrum is that between two of them. Errors are delete-one
    jackknife over patches. Raises `UserError` as `field_metrics` does.
    """
    names = {"run": run, "split": split, "field": field, "method": method}
    rows = field_metrics(
        prediction, truth, grid, bins, run=run, field=field, method=method, split=split, taper=taper
    ).replace({"statistic": {"power_prediction_null": "power_null"}})
    spectra = _spectra(prediction, truth, grid, bins, taper)
    tables = [rows, _named(_rows(spectra, grid, bins, ("power_ratio",)), names)]
    if samples is not None:
        each = _spectra(samples, truth, grid, bins, taper)
        tables.append(_named(_rows(each, grid, bins, _PER_ELL), names | {"method": SAMPLES}))
        if len(samples) > 1:
            limit = _spectra(samples, truth, grid, bins, taper, limit=True)
            tables.append(_named(_rows(limit, grid, bins, _PER_ELL), names | {"method": MEAN}))
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def paired_difference(
    maps: np.ndarray,
    other: np.ndarray,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    *,
    run: str,
    field: str,
    method: str,
    split: str = "test",
    taper: np.ndarray | None = None,
    limit: bool = False,
) -> pd.DataFrame:
    """What `maps` have over `other`, patch by patch on the same sky, in long form.

    Statistics per ell `correlation_difference` and `power_ratio_difference`, of `maps` less of
    `other`, and their means `mean_…_difference` over the bands below `ELL`. Maps are (n, y, x) or
    samples (samples, n, y, x), each by itself or with `limit` the mean of infinitely many; `method`
    names the other. The scatter of the sky cancels in the jackknife errors. No rows where all
    truths are zero everywhere.
    """
    both = [_spectra(one, truth, grid, bins, taper, limit=limit) for one in (maps, other)]
    sums = np.stack(both, axis=1)
    if not len(sums):
        return pd.DataFrame(columns=list(COLUMNS))
    ell, low = bins.centres(grid), _low(grid, bins)
    tables = []
    for name in _MEANS:

        def difference(means: np.ndarray, name: str = name) -> np.ndarray:
            values = _per_ell(means)[name]
            return values[..., 0, :] - values[..., 1, :]

        tables.append(long_rows(f"{name}_difference", ell, *jackknife(sums, difference), len(sums)))
        if low.any():
            mean = jackknife(sums, lambda m, of=difference: of(m)[..., low].mean(axis=-1))
            tables.append(long_rows(f"mean_{name}_difference", np.nan, *mean, len(sums)))
    names = {"run": run, "split": split, "field": field, "method": method}
    return _named(pd.concat(tables, ignore_index=True), names)


def null_power(
    prediction: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    *,
    run: str,
    field: str,
    method: str,
    split: str = "test",
    taper: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rows of `power_null`, C_ell of what is predicted (n, y, x) where there is nothing.

    As of B on skies without it. Jackknife errors over patches, in the field's unit squared.
    """
    spectra = cross_spectra(prediction, prediction, grid, bins, taper=taper)
    values = jackknife(spectra, lambda mean: mean)
    rows = long_rows("power_null", bins.centres(grid), *values, len(spectra))
    return _named(rows, {"run": run, "split": split, "field": field, "method": method})


def _spectra(
    maps: np.ndarray,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    taper: np.ndarray | None,
    *,
    limit: bool = False,
) -> np.ndarray:
    """C_pp, C_tt and C_pt (m, 3, bands) of the m patches whose truth is not zero everywhere.

    Those of samples (samples, n, y, x) are averaged over the samples; with `limit` C_pp is that
    between different samples, which the mean of infinitely many has.
    """
    live = truth.any(axis=(1, 2))
    true = truth[live]
    samples = maps[None] if maps.ndim == truth.ndim else maps
    auto, cross = (np.zeros((len(true), bins.count)) for _ in range(2))
    for sample in samples:
        one = sample[live]
        auto += cross_spectra(one, one, grid, bins, taper=taper) / len(samples)
        cross += cross_spectra(one, true, grid, bins, taper=taper) / len(samples)
    if limit and len(samples) > 1:
        mean = samples[:, live].mean(axis=0)
        together = cross_spectra(mean, mean, grid, bins, taper=taper)
        auto = (len(samples) * together - auto) / (len(samples) - 1)
    return np.stack([auto, cross_spectra(true, true, grid, bins, taper=taper), cross], axis=1)


def _per_ell(means: np.ndarray) -> dict[str, np.ndarray]:
    """Mean C_pp, C_tt, C_pt on axis -2 to the statistics of `_PER_ELL`."""
    auto_p, auto_t, cross = np.moveaxis(means, -2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        transfer = cross / auto_t
        correlation = cross / np.sqrt(auto_p * auto_t)
        ratio = auto_p / auto_t
    residual = auto_p - cross * transfer
    values = (correlation, transfer, residual, auto_p, auto_t, ratio)
    return dict(zip(_PER_ELL, values, strict=True))


def _rows(
    spectra: np.ndarray, grid: PatchGrid, bins: Bins, statistics: tuple[str, ...]
) -> pd.DataFrame:
    """Rows of the statistics per ell and of the means over bands, without names."""
    if not len(spectra):
        return pd.DataFrame()
    ell, low = bins.centres(grid), _low(grid, bins)
    tables = [
        long_rows(
            name, ell, *jackknife(spectra, lambda m, key=name: _per_ell(m)[key]), len(spectra)
        )
        for name in statistics
    ]
    for name in _MEANS if low.any() else ():
        mean = jackknife(spectra, lambda m, key=name: _per_ell(m)[key][..., low].mean(axis=-1))
        tables.append(long_rows(f"mean_{name}", np.nan, *mean, len(spectra)))
    return pd.concat(tables, ignore_index=True)


def _low(grid: PatchGrid, bins: Bins) -> np.ndarray:
    return bins.centres(grid) < ELL


def _named(rows: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    return rows.assign(**names).reindex(columns=list(COLUMNS))
