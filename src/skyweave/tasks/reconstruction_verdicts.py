"""Verdicts on a reconstruction: recovered, better than other methods, and debiased rightly."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from skyweave.statistics.verdicts import verdict

#: Names of the methods that a network is compared with.
METHODS = {
    "analytic_eb": "analytic E/B",
    "wiener": "Wiener filter",
    "quadratic": "quadratic estimator",
    "iterative": "iterative estimator",
}

#: Least significance of a correlation for a field to count as recovered, in standard errors.
_SIGMAS = 5.0

#: Least significance of a gain over another method for the network to count as better.
_GAIN_SIGMAS = 3.0

#: Bands below this multipole are compared one by one, and what counts as a loss in one.
_ELL, _LOSS_SIGMAS = 2000.0, 2.0

#: Largest bias of a debiased spectrum, in its standard errors.
_BIAS_SIGMAS = 3.0


@dataclass(frozen=True)
class Gain:
    """Gain in pixel correlation and its error; by band the multipole, gain in r_ell and error."""

    value: float
    error: float
    ell: np.ndarray
    bands: np.ndarray
    band_errors: np.ndarray


def recovery(metrics: pd.DataFrame, field: str) -> list[dict]:
    """Is the field recovered at all by the network?"""
    row = _pixel(metrics, "network")
    return [
        verdict(
            f"{field}: pixel correlation with the truth, in its standard errors",
            significance(row.value, row.error),
            _SIGMAS,
            ">",
            unit="standard errors",
            note=f"correlation {row.value:.4f} ± {row.error:.4f} over {int(row.n)} patches",
        )
    ]


def gains(metrics: pd.DataFrame, field: str, found: Mapping[str, Gain]) -> list[dict]:
    """Does the network beat each other method, over all pixels and in each band?

    A band counts as lost where its r_ell is below the other's by two standard errors of the
    difference on the same patches.
    """
    verdicts = []
    network = _pixel(metrics, "network")
    for method, gain in found.items():
        name, other = METHODS.get(method, method), _pixel(metrics, method)
        low = gain.ell < _ELL
        with np.errstate(invalid="ignore"):
            lost = low & (gain.bands < -_LOSS_SIGMAS * gain.band_errors)
        where = ", ".join(f"{ell:.0f}" for ell in gain.ell[lost])
        above = int((gain.bands > 0).sum())
        verdicts += [
            verdict(
                f"{field}: gain in pixel correlation over {name}, in its standard errors",
                significance(gain.value, gain.error),
                _GAIN_SIGMAS,
                ">",
                unit="standard errors",
                note=f"network {network.value:.4f}, {name} {other.value:.4f}, "
                f"gain {gain.value:.4f} ± {gain.error:.4f} on the same patches; "
                f"r_ell above it in {above} of {len(gain.bands)} bands",
            ),
            verdict(
                f"{field}: bands below ell {_ELL:.0f} with r_ell below that of {name} "
                f"by {_LOSS_SIGMAS:g} standard errors",
                # Not known in any band: no count.
                lost.sum() if np.isfinite(gain.bands[low]).any() else math.nan,
                0,
                "<=",
                unit=f"of {int(low.sum())} bands",
                note=f"at ell {where}" if where else "",
            ),
        ]
    return verdicts


def debiasing(metrics: pd.DataFrame, field: str) -> list[dict]:
    """Does the spectrum of the prediction, debiased, agree with the truth's?

    Judged is the mean over bands, which many small biases of one sign move; the note tells how
    many bands are off by themselves and how surely the field's spectrum is seen at all.
    """
    rows = metrics[metrics.method == "network"]
    bands = rows[rows.statistic == "spectrum_bias"]
    amplitude = rows[rows.statistic == "spectrum_amplitude"]
    known = bands[bands.value.notna()]
    note = "the transfer is not known to a third of itself in any band"
    chi = math.nan
    if len(known):
        mean, error = amplitude.value.item(), amplitude.error.item()
        chi = significance(abs(mean - 1), error)
        off = int((known.value.abs() > _BIAS_SIGMAS * known.error).sum())
        note = (
            f"spectrum over the truth's {mean:.4f} ± {error:.4f}, detected with "
            f"{significance(mean, error):.1f} standard errors; beyond {_BIAS_SIGMAS:g} standard "
            f"errors in {off} of {len(known)} bands, {len(bands) - len(known)} cannot be debiased"
        )
    return [
        verdict(
            f"{field}: bias of the debiased spectrum, in its standard errors",
            chi,
            _BIAS_SIGMAS,
            "<=",
            unit="standard errors",
            note=note,
        )
    ]


def significance(value: float, error: float) -> float:
    """Value over its error; NaN where the error is zero or not known."""
    return value / error if error > 0 else math.nan


def _pixel(metrics: pd.DataFrame, method: str) -> pd.Series:
    """The row of a method's pixel correlation."""
    rows = metrics[(metrics.statistic == "pixel_correlation") & (metrics.method == method)]
    return rows.iloc[0]
