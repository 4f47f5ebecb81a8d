"""Calibration of a reconstruction: do error bars hold the truth as often as they say?"""

from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.data.predictions import NETWORK, Predictions
from skyweave.flat.fourier import Bins
from skyweave.seeds import generator
from skyweave.statistics.coverage import (
    LEVELS,
    Tarp,
    band_coverage,
    pixel_coverage,
    residual_power,
)
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.posterior import map_tarp, regressed
from skyweave.statistics.reconstruction import COLUMNS, long_rows
from skyweave.statistics.verdicts import verdict

#: Columns of the table of curves.
CURVES = ("run", "field", "method", "posterior", "credibility", "coverage", "error")

#: Largest difference of a pixel coverage from its level.
_COVERAGE_BAR = 0.03

#: Largest distance of TARP's curve from the diagonal; and what chance alone exceeds in one case of
#: a hundred, times the square root of the number of patches (Kolmogorov).
_TARP_BAR, _CHANCE = 0.1, 1.63


def calibrate_run(
    predictions: str | Path, *, name: str, validation: str | Path
) -> tuple[pd.DataFrame, pd.DataFrame, list[dict]]:
    """Coverage of each field and method as metrics, curves of TARP (`CURVES`), and verdicts.

    Files of the test and the validation set by `tasks.reconstruction.predict_run`. Statistics:
    `coverage_68` and `coverage_95`, by band around each method's maps with the residual power of
    the validation set, and without ell over pixels where the network predicts their errors;
    `tarp_deviation`, `tarp_area` and `tarp_p_value` of posteriors around the maps as they are, and
    ``…_regressed`` around the maps after their amplitude in each band was regressed on the truth
    of the validation set: a posterior that is off as it is and right when regressed has a wrong
    amplitude, not a wrong error.
    Raises `UserError` for files that are broken or do not match.
    """
    test = Predictions(predictions)
    known = test.matching(validation)
    bins = default_bins(test.grid)
    rows, curves, verdicts = [], [], []
    for field in test.fields:
        truth, other = test.truth(field), known.truth(field)
        for method in test.methods(field):
            maps, second = test.estimate(field, method), known.estimate(field, method)
            found = [_bands(test, bins, (maps, truth), (second, other))]
            tarps = _tarps(test, bins, (maps, truth), (second, other), (name, field, method))
            found += [_tarp_rows(one, kind) for kind, one in tarps.items()]
            sigma = test.sigma(field) if method == NETWORK else None
            if sigma is not None:
                pixels = pixel_coverage(maps, sigma, truth, taper=test.taper)
                found.append(_coverage_rows(np.nan, *pixels, len(truth)))
                verdicts += _pixel_verdicts(field, *pixels)
            if method == NETWORK:
                verdicts += _tarp_verdict(field, tarps)
            names = {"run": name, "field": field, "method": method}
            rows.append(pd.concat(found).assign(split="test", **names))
            curves += [_curve(one).assign(posterior=kind, **names) for kind, one in tarps.items()]
    frame = pd.DataFrame(columns=list(CURVES))
    table = pd.concat(curves, ignore_index=True)[list(CURVES)] if curves else frame
    return pd.concat(rows, ignore_index=True)[list(COLUMNS)], table, verdicts


Pair = tuple[np.ndarray, np.ndarray]


def _bands(test: Predictions, bins: Bins, maps: Pair, known: Pair) -> pd.DataFrame:
    """Rows of the coverage by band; none where all truths are zero everywhere."""
    power = residual_power(*known, test.grid, bins)
    live = int(maps[1].any(axis=(1, 2)).sum())
    if not len(power) or not live:
        return pd.DataFrame()
    found = band_coverage(*maps, power, test.grid, bins)
    return _coverage_rows(bins.centres(test.grid), *found, live)


def _coverage_rows(
    ell: np.ndarray | float, values: np.ndarray, errors: np.ndarray, count: int
) -> pd.DataFrame:
    """Rows of a coverage at each of `LEVELS`, the first axis of `values` and `errors`."""
    rows = [
        long_rows(f"coverage_{100 * level:.0f}", ell, value, error, count)
        for level, value, error in zip(LEVELS, values, errors, strict=True)
    ]
    return pd.concat(rows, ignore_index=True)


def _tarps(
    test: Predictions, bins: Bins, maps: Pair, known: Pair, identity: tuple[str, str, str]
) -> dict[str, Tarp]:
    """TARP of the maps as they are, and regressed; none where it cannot be."""
    grid, taper = test.grid, test.taper
    factor = regressed(*known, grid, bins)
    found: dict[str, Tarp] = {}
    for kind in ("prediction", "regressed"):
        first, second = maps[0], known[0]
        if kind == "regressed":
            first, second = factor(first), factor(second)
        power = residual_power(second, known[1], grid, bins)
        if len(power):
            rng = generator(0, *identity, "residual")
            one = map_tarp(first, maps[1], power.mean(axis=0), grid, bins, rng, taper=taper)
            found |= {} if one is None else {kind: one}
    return found


def _tarp_rows(found: Tarp, kind: str) -> pd.DataFrame:
    ending = "_regressed" if kind == "regressed" else ""
    rows = [
        long_rows(f"tarp_{key}{ending}", np.nan, getattr(found, key), np.nan, found.n)
        for key in ("deviation", "area", "p_value")
    ]
    return pd.concat(rows, ignore_index=True)


def _curve(found: Tarp) -> pd.DataFrame:
    return pd.DataFrame({key: getattr(found, key) for key in ("credibility", "coverage", "error")})


def _pixel_verdicts(field: str, values: np.ndarray, errors: np.ndarray) -> list[dict]:
    return [
        verdict(
            f"{field}: share of pixels in their {100 * level:.0f} % interval, off by",
            abs(value - level),
            _COVERAGE_BAR,
            "<=",
            note=f"share {value:.4f} ± {error:.4f}",
        )
        for level, value, error in zip(LEVELS, values, errors, strict=True)
    ]


def _tarp_verdict(field: str, tarps: dict[str, Tarp]) -> list[dict]:
    """Is prediction plus Gaussian residual a calibrated posterior of whole maps?

    The bar is a size, not a significance: with patches enough every approximation is seen to be
    one, and what matters to who uses the error bars is how wrong they are. With so few patches
    that chance alone exceeds it in more than one case of a hundred, it is what chance does.
    """
    if "prediction" not in tarps:
        return []
    found, regression = tarps["prediction"], tarps.get("regressed")
    note = f"chance deviates as much with p = {found.p_value:.2g}, {found.n} patches"
    if regression is not None:
        note += f"; {regression.deviation:.3f} after regression of the amplitude in each band"
    return [
        verdict(
            f"{field}: coverage of maps by random points (TARP), largest distance from calibrated",
            found.deviation,
            max(_TARP_BAR, _CHANCE / np.sqrt(found.n)),
            "<=",
            note=note,
        )
    ]
