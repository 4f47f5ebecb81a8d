"""Scaling of patches, each by its own numbers, which are kept to undo it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from skyweave.errors import UserError

#: Pixels further from the median than this many standard deviations do not count for the scale.
CLIP = 3.0
#: Deviations that count as no larger than this many scales, and distances from the edge that are
#: told apart, in `evened`.
_FURTHEST, _DEPTHS = 5.0, 12
#: Standard deviation over median absolute deviation, of a normal law.
_NORMAL = 1.482602218505602


@dataclass(frozen=True)
class MinMax:
    """Lowest and highest value (n,) float64 of each of n patches, in the patches' unit.

    Raises `UserError` naming the number of a patch whose values do not differ or are not finite.
    """

    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            found = f"{self.low.shape} and {self.high.shape}"
            raise UserError("scaling", "a lowest and a highest value a patch", found)
        with np.errstate(invalid="ignore"):
            wrong = ~(np.isfinite(self.high - self.low) & (self.high > self.low))
        if wrong.any():
            patch = np.flatnonzero(wrong)[0]
            found = f"{self.low[patch]:g} to {self.high[patch]:g}"
            raise UserError(f"patch {patch}", "finite values, not all the same", found)

    @classmethod
    def fit(cls, maps: np.ndarray, masks: np.ndarray | None = None) -> Self:
        """Extremes of maps (n, y, x), where `masks` (broadcast to the maps) are not zero."""
        keep = np.broadcast_to(True if masks is None else np.asarray(masks) != 0, np.shape(maps))
        maps = np.asarray(maps, np.float64)
        return cls(
            low=np.min(maps, axis=(1, 2), where=keep, initial=np.inf),
            high=np.max(maps, axis=(1, 2), where=keep, initial=-np.inf),
        )

    def apply(self, maps: np.ndarray) -> np.ndarray:
        """Maps (n, y, x) → float32, of -1 at `low` and 1 at `high`."""
        low, span = self._of(maps)
        return (2 * (np.asarray(maps, np.float64) - low) / span - 1).astype(np.float32)

    def undo(self, maps: np.ndarray) -> np.ndarray:
        """Scaled maps (n, y, x) → float32 in the patches' unit."""
        low, span = self._of(maps)
        return (low + span * (np.asarray(maps, np.float64) + 1) / 2).astype(np.float32)

    def _of(self, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if np.shape(maps)[:1] != self.low.shape:
            raise UserError("scaling", f"{self.low.size} patches", np.shape(maps))
        low = self.low[:, None, None]
        return low, self.high[:, None, None] - low

    def labels(self, field: str = "") -> dict[str, np.ndarray]:
        """Numbers (n,) for a shard's labels: `low` and `high`, behind `{field}_` if given."""
        return {_label(field, name): getattr(self, name).copy() for name in ("low", "high")}

    @classmethod
    def from_labels(cls, labels: Mapping[str, np.ndarray], field: str = "") -> Self:
        """From what `labels` gave, to the same bits; raises `UserError` for one that is lacking."""
        values = []
        for name in ("low", "high"):
            label = _label(field, name)
            if label not in labels:
                raise UserError("labels", f"{label!r}", ", ".join(labels) or "none")
            values.append(np.array(labels[label], np.float64))
        return cls(*values)


def ratio(
    high: np.ndarray, low: np.ndarray, *, floor: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """high / low of maps (n, y, x), and bool (n, y, x) of the pixels where that was not taken.

    Those are where |low| is not above `floor` times the rms of low's patch (its zero crossings),
    and where either map, or the ratio, is not finite: they get the ratio of the nearest pixel that
    has one, so that all values are finite. Raises `UserError` naming the number of a patch without
    any.
    """
    from scipy.ndimage import distance_transform_edt

    high, low = np.asarray(high), np.asarray(low)
    if high.shape != low.shape or high.ndim != 3:
        raise UserError("ratio", "maps (n, y, x) of the same shape", f"{high.shape}, {low.shape}")
    if not 0 <= floor < np.inf:
        raise UserError("floor", "a number of at least 0", floor)
    finite = np.isfinite(high) & np.isfinite(low)
    square = np.square(low, dtype=np.float64)
    mean = np.sum(square, axis=(1, 2), where=finite) / np.maximum(finite.sum(axis=(1, 2)), 1)
    good = finite & (np.abs(low) > floor * np.sqrt(mean)[:, None, None])
    divided = np.zeros(high.shape, np.result_type(high, low, np.float32))
    with np.errstate(over="ignore"):
        np.divide(high, low, out=divided, where=good)
    good &= np.isfinite(divided)
    for patch, (values, where) in enumerate(zip(divided, good, strict=True)):
        if not where.any():
            raise UserError(f"patch {patch}", "pixels to divide by", "none")
        if not where.all():
            nearest = distance_transform_edt(~where, return_distances=False, return_indices=True)
            values[...] = values[tuple(nearest)]
    return divided, ~good


def match(
    maps: np.ndarray,
    means: np.ndarray | float,
    stds: np.ndarray | float,
    *,
    robust: bool = True,
) -> np.ndarray:
    """Maps (n, y, x) float32, each brought to its mean and standard deviation: (n,) or for all.

    The maps' own are measured by `location_and_scale` if `robust`, so that a point source or a
    zero crossing does not set the scale of its patch; otherwise, the published way (Krachmalnicoff
    & Puglisi 2021, arXiv 2011.02221), as mean and standard deviation. Raises `UserError` naming
    the number of a patch that does not vary or is not finite, or for a target that cannot be.
    """
    maps = np.asarray(maps, np.float64)
    means, stds = (_target(maps, name, to) for name, to in (("means", means), ("stds", stds)))
    if not (stds > 0).all():
        raise UserError("stds", "numbers above 0", stds.min())
    for patch, values in enumerate(maps):
        if not np.isfinite(values).all():
            raise UserError(f"patch {patch}", "finite values", "others")
    if robust:
        location, scale = location_and_scale(maps)
    else:
        location, scale = maps.mean(axis=(1, 2)), maps.std(axis=(1, 2))
    constant = np.flatnonzero(~(scale > 0))
    if constant.size:
        patch = constant[0]
        raise UserError(f"patch {patch}", "values that vary", f"{location[patch]:g} in most pixels")
    factor = (stds / scale)[:, None, None]
    return ((maps - location[:, None, None]) * factor + means[:, None, None]).astype(np.float32)


def evened(maps: np.ndarray) -> np.ndarray:
    """Maps (n, y, x) float32 that vary as much at their edges as in their middle.

    What a network makes of a patch varies with the place in it, since patches are brightest and
    faintest at their edges. Deviations from each map's median are divided by their rms at the same
    distance from the edge, of all maps, each in units of its own scale (`location_and_scale`) and
    clipped at `_FURTHEST`; the mean square over the pixels stays.
    """
    maps = np.asarray(maps, np.float32)
    location, scale = (values[:, None, None] for values in location_and_scale(maps))
    pixels = maps.shape[-1]
    axis = np.minimum(np.arange(pixels), np.arange(pixels)[::-1])
    depth = np.minimum(axis[:, None], axis[None, :])
    total = np.zeros(depth.shape)
    for image, middle, deviation in zip(maps, location, scale, strict=True):
        total += np.minimum(np.square((image - middle) / deviation), _FURTHEST**2)
    deepest = int(depth.max()) + 1
    edges = np.linspace(0, deepest, min(_DEPTHS, deepest) + 1)
    ring = np.digitize(depth, edges) - 1
    power = np.bincount(ring.ravel(), total.ravel()) / np.bincount(ring.ravel())
    profile = np.interp(depth, (edges[1:] + edges[:-1] - 1) / 2, power / total.mean())
    return (location + (maps - location) / np.sqrt(profile)).astype(np.float32)


def location_and_scale(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and clipped standard deviation (n,) of maps (n, y, x), the latter 0 for constants.

    A first scale s is the median absolute deviation times 1.4826; the rms about the median of what
    lies within `CLIP` s of it is divided by what it is for a normal law. For one of deviation
    sigma s is sigma, and what lies within k sigma has the variance
    sigma² (1 - 2 k phi(k) / (2 Phi(k) - 1)), by parts from the integral of x² phi(x).
    """
    maps = np.asarray(maps, np.float64)
    median = np.median(maps, axis=(1, 2), keepdims=True)
    away = np.abs(maps - median)
    within = away <= CLIP * _NORMAL * np.median(away, axis=(1, 2), keepdims=True)
    variance = np.mean(away**2, axis=(1, 2), where=within)
    return median[:, 0, 0], np.sqrt(variance / clipped_variance(CLIP))


def clipped_variance(clip: float) -> float:
    """Variance of a standard normal number, given that it is within `clip` of 0."""
    from scipy.special import erf

    density = np.exp(-(clip**2) / 2) / np.sqrt(2 * np.pi)
    return float(1 - 2 * clip * density / erf(clip / np.sqrt(2)))


def _label(field: str, name: str) -> str:
    return f"{field}_{name}" if field else name


def _target(maps: np.ndarray, name: str, values: np.ndarray | float) -> np.ndarray:
    """Finite numbers (n,), one a map."""
    values = np.asarray(values, np.float64)
    if maps.ndim != 3 or values.shape not in ((), maps.shape[:1]):
        raise UserError(name, "one number, or one for each of maps (n, y, x)", values.shape)
    if not np.isfinite(values).all():
        raise UserError(name, "finite numbers", "others")
    return np.broadcast_to(values, maps.shape[:1])
