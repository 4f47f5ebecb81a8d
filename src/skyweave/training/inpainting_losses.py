"""Losses of filled maps (Liu et al. 2018, arXiv:1804.07723), and one of their power spectra.

A raw map is what the network gives everywhere; a filled one has it in the holes only, and the truth
where that was seen.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import ops

from skyweave.config.inpainting import InpaintingLosses
from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.networks.vgg16 import as_images
from skyweave.training.losses import named
from skyweave.training.method import Losses
from skyweave.training.spectral_losses import spectrum_difference

NAMES = ("valid", "hole", "perceptual", "style", "variation", "spectrum")


def weights(settings: InpaintingLosses) -> dict[str, float]:
    """Weight of each loss that counts, by the name that `inpainting_losses` gives it."""
    every = {name: float(getattr(settings, name)) for name in NAMES}
    return {name: weight for name, weight in every.items() if weight > 0}


def inpainting_losses(
    settings: InpaintingLosses,
    fields: Sequence[str],
    *,
    grid: PatchGrid | None = None,
    bins: Bins | None = None,
    features: Callable[[Any], Sequence[Any]] | None = None,
) -> Losses:
    """Losses of raw maps against the truths in the targets, float32 scalars without weights.

    Maps of `fields` are normalized, (n, y, x, 1); the target `seen` (n, y, x, 1) is 1 where the map
    was seen and 0 in holes. All are means over the fields. Those whose weight is 0 are neither
    computed nor given:

    - `valid`, `hole`: differences of the raw map where it was seen and in holes, absolute or
      squared by `settings.norm`, over the number of all pixels, holes or not.
    - `perceptual`: mean absolute difference of `features` (`networks.vgg16.features`), summed over
      the pools, and over the raw and the filled map.
    - `style`: likewise of each pool's (channels, channels) matrix of correlations, over the number
      of the pool's values.
    - `variation`: absolute differences of neighbours in the filled map, of which both are in the
      holes widened by a pixel, in y and in x, over the number of all pixels.
    - `spectrum`: |P_filled / P_truth - 1|, mean over the bands of `bins` on `grid`, of powers that
      are means over the batch (`spectral_losses.spectrum_difference`).

    VGG16 looks at the first `settings.examples` maps of each field, on each device. Raises
    `ValueError` where features, grid or bins are needed and not given.
    """
    present, fields = weights(settings), tuple(fields)
    if settings.looks and features is None:
        raise ValueError("features: expected VGG16 for `perceptual` and `style`, found none")
    spectra: list[Losses] = []
    if "spectrum" in present:
        if grid is None or bins is None:
            raise ValueError("grid, bins: expected both for `spectrum`, found one or none")
        spectra = [spectrum_difference(grid, bins, {field: 1.0}) for field in fields]

    def losses(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
        seen = ops.cast(targets["seen"], "float32")
        raw, truth = (
            {field: ops.cast(maps[field], "float32") for field in fields}
            for maps in (outputs, targets)
        )
        filled = {field: ops.where(seen > 0, truth[field], raw[field]) for field in fields}
        found = {}
        difference, every = _joined(raw) - _joined(truth), _joined(dict.fromkeys(fields, seen))
        size = ops.abs(difference) if settings.norm == "l1" else ops.square(difference)
        if "valid" in present:
            found["valid"] = ops.mean(every * size)
        if "hole" in present:
            found["hole"] = ops.mean((1 - every) * size)
        if features is not None and settings.looks:
            looked = (_joined(maps, settings.examples) for maps in (raw, filled, truth))
            pools = _pools(features, *looked)
            if "perceptual" in present:
                found["perceptual"] = sum(_apart(*pool) for pool in pools)
            if "style" in present:
                found["style"] = sum(_apart(*map(correlations, pool)) for pool in pools)
        if "variation" in present:
            found["variation"] = variation(_joined(filled), every)
        if spectra:
            apart = [spectrum(filled, truth)["spectrum"] for spectrum in spectra]
            found["spectrum"] = ops.mean(ops.stack(apart))
        return found

    known = {} if grid is None else {"grid": [grid.size_deg, grid.pixels]}
    known |= {} if bins is None else {"edges": [float(edge) for edge in bins.edges]}
    return named(
        losses, "inpainting_losses", fields=fields, settings=settings.model_dump(), **known
    )


def correlations(pool: Any) -> Any:
    """Matrices (n, c, c) of the products of channels over the number c·y·x of the pool's values."""
    _, y, x, channels = pool.shape
    flat = ops.reshape(pool, (-1, y * x, channels))
    return ops.matmul(ops.transpose(flat, (0, 2, 1)), flat) / (channels * y * x)


def variation(maps: Any, seen: Any) -> Any:
    """Loss `variation` of `inpainting_losses`, of filled maps and what was seen of them."""
    region = ops.max_pool(1 - seen, 3, strides=1, padding="same")
    _, y, x, _ = maps.shape
    down = ops.abs(maps[:, 1:] - maps[:, :-1]) * region[:, 1:] * region[:, :-1]
    right = ops.abs(maps[:, :, 1:] - maps[:, :, :-1]) * region[:, :, 1:] * region[:, :, :-1]
    # A column has one pair less than pixels.
    return ops.mean(down) * ((y - 1) / y) + ops.mean(right) * ((x - 1) / x)


def _joined(maps: Mapping[str, Any], count: int | None = None) -> Any:
    """The (first `count`) maps of all fields as one batch."""
    return ops.concatenate([one[:count] for one in maps.values()], axis=0)


def _pools(
    features: Callable[[Any], Sequence[Any]], raw: Any, filled: Any, truth: Any
) -> list[tuple[Any, Any]]:
    """Each pool of raw and filled maps, and twice that of the truths."""
    made = features(as_images(ops.concatenate([raw, filled], axis=0)))
    # Apart from the others, as no gradient has to go through it.
    true = features(as_images(truth))
    return [(one, ops.concatenate([t, t], axis=0)) for one, t in zip(made, true, strict=True)]


def _apart(made: Any, true: Any) -> Any:
    """Mean absolute difference, of raw and of filled maps, summed over both."""
    return 2 * ops.mean(ops.abs(made - true))
