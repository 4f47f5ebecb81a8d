"""Verdicts on generated images: near the real ones, nearer than Gaussian ones, and no copies."""

import numpy as np
import pandas as pd

from skyweave.config import ImagesDataset, SersicDataset
from skyweave.data.predictions import NETWORK
from skyweave.statistics.verdicts import verdict

#: Mean Wasserstein distances of the published generators (arXiv:2203.11956).
_PUBLISHED = {"sersic": 0.0719, "cosmos": 0.0598}
#: Largest share of images that may be copies: five times what it is of images that are none.
_COPIES = 0.05
#: Largest share of images without a measurable shape, beyond the real ones'.
_UNMEASURED = 0.05


def generation_verdicts(
    metrics: pd.DataFrame, dataset: SersicDataset | ImagesDataset
) -> list[dict]:
    """All verdicts on a table of `tasks.generation_scores.evaluate_run`."""
    found = []
    fields = [field for field in metrics["field"].unique() if field != "all"]
    for field in fields:
        value, error = _value(metrics, NETWORK, "mean_distance", field)
        floor, _ = _value(metrics, "real", "mean_distance", field)
        gaussian, _ = _value(metrics, "gaussian_images", "mean_distance", field)
        note = f"± {error:.2g}; as many other real images have {floor:.3g}"
        bar = _PUBLISHED.get(dataset.source if isinstance(dataset, ImagesDataset) else "sersic")
        if bar is not None:
            check = f"{field}: mean Wasserstein distance of shapes and power, below the published"
            found.append(verdict(check, value, bar, "<", note=note))
        check = f"{field}: mean Wasserstein distance of shapes and power, below Gaussian images'"
        found.append(verdict(check, value, gaussian, "<", note=note))
        if (metrics["statistic"] == "unmeasured").any():
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
    note = f"± {error:.2g}; 0.01 where nothing is learned by heart"
    found.append(verdict("images next to a training image", share, _COPIES, "<=", note=note))
    return found


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
