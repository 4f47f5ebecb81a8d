"""Verdicts on generated images: near the real ones, nearer than Gaussian ones, and no copies."""

import numpy as np
import pandas as pd

from skyweave.config import ImagesDataset, SersicDataset
from skyweave.data.predictions import NETWORK
from skyweave.statistics.verdicts import verdict

#: Mean Wasserstein distances of the published generators (arXiv:2203.11956).
_PUBLISHED = {"sersic": 0.0719, "cosmos": 0.0598}
#: Share of the test images that look like copies of training images by chance; or one of them,
#: where they are few.
COPY = 0.01
#: How many times the share by chance may be copies.
_COPIES = 5
#: Largest share of images without a measurable shape, beyond the real ones'.
_UNMEASURED = 0.05


def generation_verdicts(
    metrics: pd.DataFrame, dataset: SersicDataset | ImagesDataset
) -> list[dict]:
    """All verdicts on a table of `tasks.generation_scores.evaluate_run`."""
    found = []
    fields = [field for field in metrics["field"].unique() if field != "all"]
    shapes = (metrics["statistic"] == "unmeasured").any()
    distance = f"mean Wasserstein distance of {'shapes and power' if shapes else 'power'}"
    for field in fields:
        value, error = _value(metrics, NETWORK, "mean_distance", field)
        floor, _ = _value(metrics, "real", "mean_distance", field)
        gaussian, _ = _value(metrics, "gaussian_images", "mean_distance", field)
        note = f"± {error:.2g}; as many other real images have {floor:.3g}"
        bar = _PUBLISHED.get(dataset.source if isinstance(dataset, ImagesDataset) else "sersic")
        # With so few images that real ones miss it, it says nothing of a network.
        if bar is not None and shapes and floor < bar:
            check = f"{field}: {distance}, below the published"
            found.append(verdict(check, value, bar, "<", note=note))
        check = f"{field}: {distance}, below Gaussian images'"
        found.append(verdict(check, value, gaussian, "<", note=note))
        if shapes:
            lost, _ = _value(metrics, NETWORK, "unmeasured", field)
            own, _ = _value(metrics, NETWORK, "unmeasured_truth", field)
            note = f"of real images {own:.3g}"
            check = f"{field}: images without a measurable shape, beyond the real ones' share"
            found.append(verdict(check, lost - own, _UNMEASURED, "<=", note=note))
    fid, _ = _value(metrics, NETWORK, "fid", "all")
    if np.isfinite(fid):
        floor, _ = _value(metrics, "real", "fid", "all")
        gaussian, _ = _value(metrics, "gaussian_images", "fid", "all")
        note = f"as many other real images have {floor:.3g}"
        found.append(verdict("FID, below Gaussian images'", fid, gaussian, "<", note=note))
    share, error = _value(metrics, NETWORK, "copies", "all")
    chance = copies_by_chance(int(metrics.loc[metrics["statistic"] == "copies", "n"].iloc[0]))
    note = f"± {error:.2g}; {chance:.2g} where nothing is learned by heart"
    check = "images next to a training image"
    found.append(verdict(check, share, _COPIES * chance, "<=", note=note))
    return found


def copies_by_chance(count: int) -> float:
    """Share of `count` images that count as copies where nothing was learned by heart."""
    return max(COPY, 1 / (count + 1))


def _value(metrics: pd.DataFrame, method: str, statistic: str, field: str) -> tuple[float, float]:
    """A number and its error, NaN where there is none."""
    rows = metrics[
        (metrics["method"] == method)
        & (metrics["statistic"] == statistic)
        & (metrics["field"] == field)
    ]
    if rows.empty:
        return np.nan, np.nan
    return float(rows["value"].iloc[0]), float(rows["error"].iloc[0])
