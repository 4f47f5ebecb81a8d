"""What theory expects of the estimates of a dataset: the correlation with the truth by band.

An estimate with noise N that is Wiener-filtered, by C / (C + N) for a field of power C, has
r² = C / (C + N). Waves are taken as those of an area without a taper, which mixes neighbours, and N
is that of Gaussian skies: where lensing is most of B a quadratic estimate of a lensed sky is
noisier.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config import Effects
from skyweave.estimators.iterative_noise import iterative_noise
from skyweave.estimators.observed import Observed
from skyweave.estimators.patch import SPECTRA, PatchEstimator
from skyweave.estimators.quadratic import Quadratic
from skyweave.flat.fourier import Bins, bin_power
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.reconstruction import COLUMNS
from skyweave.statistics.tables import read_table, write_table
from skyweave.tasks.estimates import screened_bb

#: What methods begin with that nobody applied: theory tells how good they would be.
THEORY = "theory_"


def write_expected(
    path: str | Path, *, calibration: str | Path, effects: Effects, bins: Bins | None = None
) -> None:
    """Write `expected` of a calibration and the effects of its dataset."""
    write_table(path, expected(calibration, effects, bins))


def expected(calibration: str | Path, effects: Effects, bins: Bins | None = None) -> pd.DataFrame:
    """Correlation of estimates with the truth by band; columns field, method, ell and value.

    `calibration` is a file of `tasks.estimates.calibrate`, `bins` are those of the metrics by
    default. Methods: `theory_quadratic`, of the quadratic estimates of kappa, tau and alpha;
    `theory_iterative`, of kappa from E and B when lensing is taken back as well as noise allows, of
    tau and alpha from E and B then, and of E when no lensing is left.
    """
    values = json.loads(Path(calibration).read_text(encoding="utf-8"))
    estimator = PatchEstimator.from_dict(values)
    observed = estimator.observed
    bins = default_bins(observed.grid) if bins is None else bins
    noise = {
        "theory_quadratic": {name: one.noise_mv for name, one in estimator.quadratic.items()},
        "theory_iterative": _ideal(estimator, effects),
    }
    tables = [
        pd.DataFrame(
            {
                "field": field,
                "method": method,
                "ell": bins.centres(observed.grid),
                "value": correlation(
                    observed.on_area(_cl(observed, field)), n, observed.area, bins
                ),
            }
        )
        for method, fields in noise.items()
        for field, n in fields.items()
    ]
    return pd.concat(tables, ignore_index=True)


def correlation(cl: np.ndarray, noise: np.ndarray, grid: PatchGrid, bins: Bins) -> np.ndarray:
    """r (bands,) of a Wiener-filtered estimate; `cl` and `noise` are on the modes of the grid.

    NaN in a band without modes or power; noise may be infinite.
    """
    total = cl + noise
    kept = np.divide(cl, total, out=np.zeros(cl.shape), where=total > 0)
    power = bin_power(cl, grid, bins)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(bin_power(cl * kept, grid, bins) / power)


def metric_rows(path: str | Path, fields: tuple[str, ...], run: str) -> pd.DataFrame:
    """What `write_expected` wrote of some fields as rows of metrics (`COLUMNS`) without errors."""
    table = read_table(path)
    rows = table[table["field"].isin(fields)]
    names = {"run": run, "split": "test", "statistic": "correlation"}
    return rows.assign(**names, error=np.nan, n=0)[list(COLUMNS)].reset_index(drop=True)


def _ideal(estimator: PatchEstimator, effects: Effects) -> Mapping[str, np.ndarray]:
    """Noise by field on the area's modes, when as much lensing as can be told is taken back."""
    observed, fields = estimator.observed, estimator.delensing.fields
    area, ee = observed.area, observed.on_area(observed.cl["ee"])
    # Rounding leaves less than nothing where there is no noise.
    floor = np.maximum(observed.totals["ee"] - observed.on_area(observed.cl["lensed_ee"]), 0)
    screen = observed.on_area(_screen(observed, effects))
    # Lensing that is not estimated is not taken back.
    lensed = np.maximum(observed.on_area(observed.cl["lensed_bb"]) - screen, 0)
    left, found = (lensed if observed.lensed else np.zeros(ee.shape)), {"e_prim": floor}
    if "kappa" in fields:
        kk = observed.on_area(observed.cl["kk"])
        limit = iterative_noise(
            area, ee, kk, noise_ee=floor, noise_bb=floor + screen, ell=estimator.ell
        )
        found["kappa"], left = limit.noise, limit.bb
    total = {"ee": ee + floor, "bb": left + floor + screen}
    for field in (one for one in fields if one != "kappa"):
        estimate = Quadratic(
            area, {"ee": ee}, total, field=field, pairs=("ee", "eb"), ell=estimator.ell
        )
        found[field] = estimate.noise_mv
    return found


def _screen(observed: Observed, effects: Effects) -> np.ndarray:
    """B at `observed.ell` that screen and rotation make."""
    ell = np.arange(int(observed.ell[-1]) + 1)
    cl = {name: np.interp(ell, observed.ell, values) for name, values in observed.cl.items()}
    return screened_bb(cl, effects)[observed.ell.astype(int)]


def _cl(observed: Observed, field: str) -> np.ndarray:
    """The spectrum of a field at `observed.ell`."""
    return observed.cl["ee" if field == "e_prim" else SPECTRA[field]]
