"""Are posterior samples right: ranks of the truth among them by band, and TARP of whole maps.

Where samples and truth come from the same posterior the truth is one of S + 1 equals: its rank
among the samples is uniform on 0, …, S, whatever the posterior's shape (Talts et al. 2018,
arXiv:1804.06788).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from skyweave.flat.fourier import Bins, bin_power, forward
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.coverage import LEVELS, Tarp, expected_coverage, nearer
from skyweave.statistics.fidelity import SAMPLES
from skyweave.statistics.flat_spectra import cross_spectra
from skyweave.statistics.reconstruction import COLUMNS, jackknife, long_rows

#: Columns of the curves of TARP.
CURVES = ("run", "field", "method", "posterior", "credibility", "coverage", "error")

#: Patches transformed at once, all of their samples.
_CHUNK = 16


def sample_calibration(
    samples: np.ndarray,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    rng: np.random.Generator,
    *,
    run: str,
    field: str,
    split: str = "test",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Coverage by `samples` (samples, n, y, x) as metrics, and the curve of TARP (`CURVES`).

    Method `SAMPLES`. Statistics: `coverage_68` and `coverage_95` by band, and without ell
    `tarp_deviation`, `tarp_area` and `tarp_p_value`. Patches whose truth is zero everywhere are
    left out; without others there are no rows, and no curve below two. `rng` as of `sample_tarp`.
    """
    names = {"run": run, "field": field, "method": SAMPLES}
    live = int(truth.any(axis=(1, 2)).sum())
    tables = []
    if live:
        coverage = zip(LEVELS, *sample_coverage(samples, truth, grid, bins), strict=True)
        tables += [
            long_rows(f"coverage_{100 * level:.0f}", bins.centres(grid), value, error, live)
            for level, value, error in coverage
        ]
    found, curve = sample_tarp(samples, truth, grid, bins, rng), pd.DataFrame()
    if found is not None:
        tables += [
            long_rows(f"tarp_{key}", np.nan, getattr(found, key), np.nan, found.n)
            for key in ("deviation", "area", "p_value")
        ]
        keys = ("credibility", "coverage", "error")
        curve = pd.DataFrame({key: getattr(found, key) for key in keys})
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return (
        rows.assign(split=split, **names).reindex(columns=list(COLUMNS)),
        curve.assign(posterior="prediction", **names).reindex(columns=list(CURVES)),
    )


def sample_coverage(
    samples: np.ndarray,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    levels: Sequence[float] = LEVELS,
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the truth's Fourier modes in the central interval of each level, and its error.

    `samples` (samples, n, y, x) and `truth` (n, y, x); patches whose truth is zero everywhere are
    left out. Of the real and the imaginary part of each mode the rank k among S samples stands for
    all quantiles from k / (S + 1) to (k + 1) / (S + 1), and counts by the share of these which the
    interval holds: right posteriors give the level itself for any S. Too few samples hide how wrong
    others are: a truth outside all of them counts by 1 - (S + 1) (1 - level) / 2 where that is
    above 0, with S = 15 by 0.6 at the level 0.95. Returns two arrays (levels, bands), NaN in bands
    where no sample differs from the truth; errors by jackknife over patches.
    """
    live = np.flatnonzero(truth.any(axis=(1, 2)))
    if not live.size:
        nothing = np.full((len(levels), bins.count), np.nan)
        return nothing, nothing
    held = np.stack([_held(len(samples), level) for level in levels])
    shares = np.empty((live.size, len(levels), bins.count))
    differ = np.zeros(bins.count, dtype=bool)
    for start in range(0, live.size, _CHUNK):
        rows = live[start : start + _CHUNK]
        true = _parts(truth[rows], grid)
        below, equal = (np.zeros(true.shape, dtype=np.int64) for _ in range(2))
        for sample in samples:
            parts = _parts(sample[rows], grid)
            below += parts < true
            equal += parts == true
        for column, sums in enumerate(held):
            inside = (sums[below + equal + 1] - sums[below]) / (equal + 1)
            shares[start : start + len(rows), column] = bin_power(inside.mean(axis=0), grid, bins)
        differ |= (bin_power((equal < len(samples)).mean(axis=(0, 1)), grid, bins)) > 0
    shares[..., ~differ] = np.nan
    return jackknife(shares, lambda mean: mean)


def sample_tarp(
    samples: np.ndarray,
    truth: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    rng: np.random.Generator,
) -> Tarp | None:
    """TARP of whole maps by their posteriors' samples; shapes as `sample_coverage`.

    Patches count whose truth is not zero everywhere; below two of them, below two samples, or with
    a band where samples of a patch do not differ, there is no answer. A patch's reference is the
    truth of the next one. Distances are those of `statistics.posterior.map_tarp`: each mode over
    the square root of its band's number of modes and of the power, in all patches, of samples less
    their mean. `rng` places each share within its step of 1 / (S + 1), so that those of right
    posteriors are uniform for any S.
    """
    live = np.flatnonzero(truth.any(axis=(1, 2)))
    if live.size < 2 or len(samples) < 2:
        return None
    power = _spread(samples, live, grid, bins)
    if not (power > 0).all():
        return None
    band = np.digitize(grid.ell, bins.edges) - 1
    inside = (band >= 0) & (band < bins.count)
    total = (power * bins.modes(grid) * grid.area_sr)[band[inside]]
    scale = np.sqrt(grid.mode_weight[inside] / total)

    def features(maps: np.ndarray) -> np.ndarray:
        modes = forward(maps, grid)[..., inside] * scale
        return np.concatenate([modes.real, modes.imag], axis=-1)

    references = np.roll(live, -1)
    shares = np.empty(live.size)
    for start in range(0, live.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        one, there = live[part], references[part]
        shares[part] = nearer(
            features(samples[:, one]), features(truth[one]), features(truth[there])
        )
    shares += (rng.random(shares.size) - 0.5) / (len(samples) + 1)
    return expected_coverage(shares)


def _held(count: int, level: float) -> np.ndarray:
    """Sums over ranks below k = 0, …, count + 1 of the share of each that the interval holds."""
    ends = np.arange(count + 2) / (count + 1)
    return (count + 1) * np.clip(ends - (1 - level) / 2, 0, level)


def _parts(maps: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Real and imaginary parts (2, n, …) of the modes of maps (n, y, x)."""
    modes = forward(maps, grid)
    return np.stack([modes.real, modes.imag])


def _spread(samples: np.ndarray, live: np.ndarray, grid: PatchGrid, bins: Bins) -> np.ndarray:
    """Mean power (bands,) of samples less their mean, in the patches `live`."""
    mean = samples[:, live].mean(axis=0)
    total = np.zeros(bins.count)
    for sample in samples:
        offset = sample[live] - mean
        total += cross_spectra(offset, offset, grid, bins).mean(axis=0)
    return total / (len(samples) - 1)
