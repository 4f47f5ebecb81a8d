"""Statistics of patches of a real sky at two resolutions, beside a Gaussian control."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.statistics.control import NU, Control, spectrum_on_modes
from skyweave.statistics.minkowski import STATISTICS, THRESHOLDS, minkowski_table
from skyweave.statistics.superposition import superposition, superposition_ceiling
from skyweave.statistics.verdicts import verdict
from skyweave.statistics.windows import Measured, Windows, measure

#: A set is another than the dust where it overlaps less than this share of the dust's own halves.
CEILING_QUANTILE = 0.025


def dust_statistics(
    patches: Mapping[str, np.ndarray],
    masks: np.ndarray,
    grid: PatchGrid,
    places: pd.DataFrame,
    *,
    dataset: str,
    split: str = "all",
    windows: Windows | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of spectra and of Minkowski functionals of the patches of a split (or `all`).

    Spectra: columns dataset, split, field (high, low), statistic, ell, value, error, n, with the
    statistics `cl` (mean over patches), `cl_p16`, `cl_p50`, `cl_p84` (percentiles over patches).
    Functionals (fields high, ratio) as `minkowski_table`. `places` has a row a patch and a column
    split.
    """
    rows = _rows_of(places, split, len(masks))
    windows = Windows.of(masks[rows], grid) if windows is None else windows
    measured = measure({name: maps[rows] for name, maps in patches.items()}, windows)
    return _tables(measured, windows, dataset, split)


@dataclass(frozen=True)
class DustReport:
    """What is known of a set of patches: the tables, and the verdicts.

    `spectra` and `minkowski` as `dust_statistics`, with the fields `gaussian` (control with the
    spectra of high), `gaussian_ratio` (of ratio) and `theory` beside the dust; the statistic
    `cl_over_theory` is the mean of each control's spectrum over its own expectation.
    `minkowski_sigma`: the control `gaussian` at thresholds in units of its rms, `theory`
    (analytic) and `theory_pixels` (theory on pixels). `overlap`: per field and functional the
    superposition of dust with its control, the mean of what the dust's own halves reach
    (`ceiling`), and that ceiling's lower quantile.
    """

    spectra: pd.DataFrame
    minkowski: pd.DataFrame
    minkowski_sigma: pd.DataFrame
    overlap: pd.DataFrame
    verdicts: list[dict]


def dust_report(
    patches: Mapping[str, np.ndarray],
    masks: np.ndarray,
    grid: PatchGrid,
    places: pd.DataFrame,
    *,
    dataset: str,
    seed: int,
    split: str = "all",
    bins: Bins | None = None,
) -> DustReport:
    """Measure dust patches, draw and measure Gaussian fields of the same spectra, and judge both.

    The verdicts: the Gaussian control agrees with theory (or the measurement is at fault), and the
    dust overlaps with its control less than with itself (it is not Gaussian).
    """
    rows = _rows_of(places, split, len(masks))
    windows = Windows.of(masks[rows], grid, bins)
    measured = measure({name: maps[rows] for name, maps in patches.items()}, windows)
    controls = {
        field: gaussian_control(measured.cl[field], windows, seed=seed, identity=(dataset, field))
        for field in ("high", "ratio")
    }
    overlap, non_gaussian = _overlap(measured, controls, dataset, split, seed)
    cl_table, curves_table = _tables(measured, windows, dataset, split)
    names = {"dataset": dataset, "split": split}
    control = controls["high"]
    ell = windows.ell
    cl_table = pd.concat(
        [
            cl_table,
            _spectrum_rows(control.spectra, ell, field="gaussian", **names),
            _mean_rows(control.expected.mean(axis=0)[None], ell, "cl", field="theory", **names),
            _mean_rows(control.relative, ell, "cl_over_theory", field="gaussian", **names),
        ],
        ignore_index=True,
    )
    curves_table = pd.concat(
        [
            curves_table,
            minkowski_table(control.curves, THRESHOLDS, field="gaussian", **names),
            minkowski_table(controls["ratio"].curves, THRESHOLDS, field="gaussian_ratio", **names),
            minkowski_table(control.theory_scaled[None], THRESHOLDS, field="theory", **names),
        ],
        ignore_index=True,
    )
    sigma_table = pd.concat(
        [
            minkowski_table(control.curves_nu, NU, field="gaussian", **names),
            minkowski_table(control.theory_nu, NU, field="theory", **names),
            minkowski_table(control.cells_nu, NU, field="theory_pixels", **names),
        ],
        ignore_index=True,
    )
    verdicts = [
        *control.verdicts(),
        *non_gaussian,
    ]
    return DustReport(cl_table, curves_table, sigma_table, overlap, verdicts)


def gaussian_control(
    cl: np.ndarray, windows: Windows, *, seed: int, identity: tuple[str, ...]
) -> Control:
    """Gaussian twins of patches: each with a patch's own spectrum `cl` (n, nbins) and mask.

    Patch by patch, since a single bright patch rules the mean spectrum of a set (seen: 19 times
    the median at low ell, 1000 times at high), and no other patch looks like it.
    """
    workspaces = windows.workspaces
    pairs = zip(cl, windows.weights, strict=True)
    laws = [spectrum_on_modes(windows.ell, one, weight, workspaces) for one, weight in pairs]
    return Control.draw(
        np.stack(laws),
        windows.weights,
        windows.keep,
        workspaces,
        seed=seed,
        identity=(*identity, "gaussian"),
    )


def _overlap(
    measured: Measured, controls: Mapping[str, Control], dataset: str, split: str, seed: int
) -> tuple[pd.DataFrame, list[dict]]:
    tables, verdicts = [], []
    for field, control in controls.items():
        curves = measured.curves[field]
        found = superposition(curves, control.curves)
        halves = superposition_ceiling(curves, generator(seed, dataset, field, "ceiling"))
        tables.append(
            pd.DataFrame(
                {
                    "dataset": dataset,
                    "split": split,
                    "field": field,
                    "statistic": STATISTICS,
                    "value": found,
                    "ceiling": halves.mean(axis=0),
                    "ceiling_low": np.quantile(halves, CEILING_QUANTILE, axis=0),
                    "n": len(curves),
                }
            )
        )
        listed = ", ".join(f"{name} {x:.2f}" for name, x in zip(STATISTICS, found, strict=True))
        verdicts.append(
            verdict(
                f"dust is non-Gaussian, {field}: overlap of Minkowski functionals with the "
                "Gaussian control, below the dust's own halves",
                found.mean(),
                np.quantile(halves.mean(axis=1), CEILING_QUANTILE),
                "<",
                note=f"{listed}; halves reach {halves.mean():.2f} on average; {len(curves)} "
                f"patches, {len(control.curves)} Gaussian fields",
            )
        )
    return pd.concat(tables, ignore_index=True), verdicts


def _tables(
    measured: Measured, windows: Windows, dataset: str, split: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    ell, names = windows.ell, {"dataset": dataset, "split": split}
    cl = [
        _spectrum_rows(measured.cl[field], ell, field=field, **names) for field in ("high", "low")
    ]
    curves = [
        minkowski_table(curves, THRESHOLDS, field=field, **names)
        for field, curves in measured.curves.items()
    ]
    return pd.concat(cl, ignore_index=True), pd.concat(curves, ignore_index=True)


def _spectrum_rows(
    cl: np.ndarray, ell: np.ndarray, *, dataset: str, split: str, field: str
) -> pd.DataFrame:
    """Mean with its error, and percentiles, of spectra (n, nbins)."""
    names = {"dataset": dataset, "split": split, "field": field}
    rows = [_mean_rows(cl, ell, "cl", **names)]
    for percent in (16, 50, 84):
        value = np.percentile(cl, percent, axis=0)
        rows.append(_rows(value, np.nan, ell, f"cl_p{percent}", len(cl), **names))
    return pd.concat(rows, ignore_index=True)


def _mean_rows(samples: np.ndarray, ell: np.ndarray, statistic: str, **names: str) -> pd.DataFrame:
    """Mean of samples (n, nbins), and its error from their scatter (NaN for one)."""
    count = len(samples)
    error = samples.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return _rows(samples.mean(axis=0), error, ell, statistic, count, **names)


def _rows(
    value: np.ndarray,
    error: np.ndarray | float,
    ell: np.ndarray,
    statistic: str,
    count: int,
    **names: str,
) -> pd.DataFrame:
    frame = pd.DataFrame({"ell": ell, "value": value, "error": error})
    frame = frame.assign(**names, statistic=statistic, n=count)
    return frame[["dataset", "split", "field", "statistic", "ell", "value", "error", "n"]]


def _rows_of(places: pd.DataFrame, split: str, count: int) -> np.ndarray:
    if len(places) != count:
        raise UserError("places", f"a row for each of {count} patches", len(places))
    rows = np.arange(count) if split == "all" else np.flatnonzero(places["split"] == split)
    if len(rows) < 4:
        raise UserError("patches", f"at least 4 in split {split!r}", len(rows))
    return rows
