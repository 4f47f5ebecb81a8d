"""How far made images' statistics are from real ones': Wasserstein distances of one dimension."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from skyweave.errors import UserError
from skyweave.seeds import generator

Scale = Literal["deviation", "std"]

#: Bootstrap resamples: an error is then known to a tenth of itself.
RESAMPLES = 50


def distances(
    made: pd.DataFrame | Mapping[str, np.ndarray],
    real: pd.DataFrame | Mapping[str, np.ndarray],
    *,
    scale: Scale = "deviation",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Wasserstein-1 distance of each column of `real` from the same one of `made`, without unit.

    A row a column: `statistic`, `value`, `error` (standard deviation over bootstrap resamples of
    both sets, the scale held), `floor` (mean distance of two sets of these sizes drawn from the
    real values: what a generator of their very law comes to), `n` (values that enter, of the
    smaller set), `lost_made` and `lost_real`, the shares of values left out because they are not
    finite. Leaving out flatters a generator whose images cannot be measured: a distance is to be
    read with its shares.

    Distances are divided by a scale of the real values: by default (`deviation`) the mean absolute
    deviation from their median, which is their distance from the best single value. So 1 is what a
    generator reaches that makes a typical image again and again. `std` is the standard deviation,
    sqrt(pi/2) times as large for Gaussian values. That is not the default because a few wild real
    values, such as indices of odd fits, enter it by their squares, and make all distances small;
    the distance itself knows only their first powers. Quantiles would be steadier still, but are
    zero where most real values are the same. Distances from a constant real column are infinite,
    or 0 where the made one is the same.

    NaN where a set has no finite value. Raises `UserError` for a column that `made` lacks and for
    less than 2 resamples.
    """
    if resamples < 2:
        raise UserError("resamples", "2 or more", resamples)
    rows = []
    for name in map(str, real):
        if name not in made:
            raise UserError(name, "a column of the made images, too", "none")
        first, second = np.asarray(made[name], float), np.asarray(real[name], float)
        rng = generator(seed, "wasserstein", name)
        rows.append({"statistic": name, **_row(first, second, scale, resamples, rng)})
    return pd.DataFrame(rows)


def power_distances(
    made: np.ndarray,
    real: np.ndarray,
    wave_numbers: np.ndarray,
    *,
    scale: Scale = "deviation",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """`distances` of log10 power, (n, bins) and (m, bins), bin by bin.

    The statistic is `power` in every row, and `wave_number` says where. Power of zero is left out.
    Raises `UserError` where the numbers of bins differ.
    """
    bins = {made.shape[-1], real.shape[-1], len(wave_numbers)}
    if len(bins) > 1:
        raise UserError("power", "as many bins everywhere", sorted(bins))
    names = [f"power_{number}" for number in range(len(wave_numbers))]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.log10(one).T for one in (made, real)]
    columns = [dict(zip(names, one, strict=True)) for one in logs]
    table = distances(*columns, scale=scale, resamples=resamples, seed=seed)
    return table.assign(statistic="power", wave_number=np.asarray(wave_numbers, float))


def mean_distance(rows: pd.DataFrame) -> float:
    """Mean value over the statistics of `rows`, power as one: the mean over its bins.

    NaN where one of them could not be measured: leaving it out would flatter.
    """
    means = [values.to_numpy().mean() for _, values in rows.groupby("statistic")["value"]]
    return float(np.mean(means))


def _row(
    made: np.ndarray, real: np.ndarray, scale: Scale, resamples: int, rng: np.random.Generator
) -> dict[str, float]:
    first, second = (one[np.isfinite(one)] for one in (made, real))
    row = {
        "value": np.nan,
        "error": np.nan,
        "floor": np.nan,
        "n": min(first.size, second.size),
        "lost_made": 1 - first.size / made.size if made.size else np.nan,
        "lost_real": 1 - second.size / real.size if real.size else np.nan,
    }
    if row["n"]:
        whole = [np.full((1, one.size), 1 / one.size) for one in (first, second)]
        drawn = [_drawn(one.size, one.size, resamples, rng) for one in (first, second)]
        alike = [_drawn(second.size, one.size, resamples, rng) for one in (first, second)]
        row["value"] = _scaled(_areas(first, second, *whole), second, scale)[0]
        row["error"] = _scaled(_areas(first, second, *drawn).std(ddof=1), second, scale)
        row["floor"] = _scaled(_areas(second, second, *alike).mean(), second, scale)
    return row


def _scaled(found: np.ndarray, real: np.ndarray, scale: Scale) -> np.ndarray:
    """Distances over the scale of the real values; where that is zero, infinite if not zero."""
    unit = real.std() if scale == "std" else np.abs(real - np.median(real)).mean()
    return found / unit if unit else np.where(found > 0, np.inf, 0.0)


def _drawn(count: int, size: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Weights (resamples, count) of values in sets of `size` drawn from them with replacement."""
    places = rng.integers(count, size=(resamples, size))
    return np.array([np.bincount(one, minlength=count) for one in places]) / size


def _areas(
    made: np.ndarray, real: np.ndarray, of_made: np.ndarray, of_real: np.ndarray
) -> np.ndarray:
    """Areas (resamples,) between two cumulative distributions, of values and their weights."""
    values = np.concatenate([made, real])
    order = np.argsort(values, kind="stable")
    steps = np.concatenate([of_made, -of_real], axis=1)[:, order]
    return np.abs(np.cumsum(steps, axis=1)[:, :-1]) @ np.diff(values[order])
