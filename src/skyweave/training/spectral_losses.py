"""Losses of power: spectra of the outputs against the truths', and the energy of polarization.

Maps come normalized; a field's standard deviation gives its unit back. Its mean over the data set
does not matter to power above ell = 0, and is taken for 0 in an energy.
"""

from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from keras import ops

from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.training.losses import named
from skyweave.training.method import Losses


def spectrum_difference(
    grid: PatchGrid,
    bins: Bins,
    deviations: Mapping[str, float],
    *,
    ell: tuple[float, float] = (0.0, np.inf),
    relative: bool = True,
    floor: float = 1e-3,
) -> Losses:
    """Loss `spectrum`: how far the outputs' spectra are from the truths'.

    For the fields in `deviations`, normalized maps (n, y, x, 1), band powers of each field and
    cross powers of each pair are averaged over the batch. The loss is the mean over them, and over
    the bands whose centres lie in the interval `ell`, of |P - P_truth|: relative to
    sqrt(P_aa P_bb) of the truths, so that each band counts alike, where P_aa is at least `floor`
    times that of white noise with the field's deviation; or else the difference of
    D_ell = ell (ell + 1) C_ell / 2 pi in the fields' units. Its gradient at equal spectra is 0.

    Conventions are those of `flat.fourier`. A batch is a sample: with n patches a band of m modes
    scatters by sqrt(2 / (n m)), in outputs and truths alike. Raises `ValueError` where no band
    counts.
    """
    weights, centres = band_weights(grid, bins, ell)
    fields = tuple(deviations)
    pairs = list(combinations_with_replacement(fields, 2))
    white = np.float32(floor * grid.pixel_rad**2)
    shape = centres * (centres + 1) / (2 * np.pi)
    scales = {(a, b): np.float32(shape * deviations[a] * deviations[b]) for a, b in pairs}

    def losses(outputs: Mapping[str, Any], truths: Mapping[str, Any]) -> dict[str, Any]:
        made, true = (
            band_powers(maps, pairs, weights) for maps in (_waves(outputs), _waves(truths))
        )
        # Of normalized maps: squares of small units would leave the range of float32.
        size = {name: ops.sqrt(ops.maximum(true[name, name], white)) for name in fields}
        found = [
            ops.abs(made[a, b] - true[a, b])
            * ((1 / (size[a] * size[b])) if relative else scales[a, b])
            for a, b in pairs
        ]
        return {"spectrum": ops.mean(ops.stack(found))}

    def _waves(maps: Mapping[str, Any]) -> dict[str, Any]:
        return waves({name: maps[name] for name in fields}, grid)

    return named(
        losses,
        "spectrum_difference",
        grid=[grid.size_deg, grid.pixels],
        edges=bins.edges,
        deviations={name: float(deviation) for name, deviation in deviations.items()},
        ell=[float(end) for end in ell],
        relative=relative,
        floor=float(floor),
    )


def waves(maps: Mapping[str, Any], grid: PatchGrid) -> dict[str, tuple[Any, Any]]:
    """Real and imaginary part of each field's modes, (n, pixels, pixels // 2 + 1), float32.

    maps: (n, y, x, 1). The modes are those of `flat.fourier.forward` over the root of the patch's
    area, so that their squares are C_ell.
    """
    scale = grid.pixel_rad**2 / np.sqrt(grid.area_sr)
    half = grid.pixels // 2 + 1
    found = {}
    for name, field in maps.items():
        plane = ops.cast(field, "float32")[..., 0] * np.float32(scale)
        real, imaginary = ops.fft2((plane, ops.zeros_like(plane)))
        found[name] = real[..., :half], imaginary[..., :half]
    return found


def band_powers(
    modes: Mapping[str, tuple[Any, Any]], pairs: list[tuple[str, str]], weights: np.ndarray
) -> dict[tuple[str, str], Any]:
    """Mean (cross) power of each pair over the batch and over each band, (bands,).

    modes: from `waves`; weights: (modes, bands), each band's share of every mode.
    """
    planes = []
    for one, other in pairs:
        (a, b), (c, d) = modes[one], modes[other]
        planes.append(ops.mean(a * c + b * d, axis=0))
    flat = ops.reshape(ops.stack(planes), (len(pairs), weights.shape[0]))
    means = ops.matmul(flat, weights)
    return {pair: means[number] for number, pair in enumerate(pairs)}


def energy_difference(deviations: Mapping[str, float], q: str, u: str, e: str, b: str) -> Losses:
    """Loss `energy`: how far E² + B² is from Q² + U², of the fields of these names.

    The mean over the batch of |<E² + B²> - <Q² + U²>| / <Q² + U²>, with means over the pixels of
    the patch; for E and B of the same Q and U it is 0 by Parseval's theorem. `q` and `u` are read
    from the truths, `e` and `b` from the outputs, or from the truths where they are no outputs.
    """
    unit = float(np.hypot(deviations[q], deviations[u]))

    def losses(outputs: Mapping[str, Any], truths: Mapping[str, Any]) -> dict[str, Any]:
        def energy(name: str, maps: Mapping[str, Any]) -> Any:
            field = ops.cast(maps[name], "float32")
            share = np.float32((deviations[name] / unit) ** 2)
            return share * ops.mean(ops.square(field), axis=(1, 2, 3))

        found = sum(energy(name, outputs if name in outputs else truths) for name in (e, b))
        expected = sum(energy(name, truths) for name in (q, u))
        # Patches without polarization have an energy of 0 to be relative to.
        lowest = np.float32(1e-6)
        return {"energy": ops.mean(ops.abs(found - expected) / ops.maximum(expected, lowest))}

    known = {name: float(deviations[name]) for name in (q, u, e, b)}
    return named(losses, "energy_difference", fields=[q, u, e, b], deviations=known)


def band_weights(
    grid: PatchGrid, bins: Bins, ell: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Each mode's weight in the means over the bands that count, (modes, bands) float32, and the
    bands' centres."""
    centres = bins.centres(grid)
    counted = np.flatnonzero((centres >= ell[0]) & (centres <= ell[1]))
    if not counted.size:
        raise ValueError(f"ell: expected bands with modes in {ell[0]:g} to {ell[1]:g}, found none")
    band = np.digitize(grid.ell.ravel(), bins.edges) - 1
    weights = np.where(band[:, None] == counted, grid.mode_weight.reshape(-1, 1), 0.0)
    return (weights / weights.sum(axis=0)).astype(np.float32), centres[counted]
