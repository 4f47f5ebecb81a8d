"""Statistics of small scales beyond the spectrum: histograms, bispectra, and what was copied.

They judge small scales that a network adds to patches of dust (Krachmalnicoff & Puglisi 2021, arXiv
2011.02221): whether their values and their triangles are those of the sky, whether they follow the
large scales that they were made from, and whether they are patches that the network has seen.

The flat bispectrum of F = FFT(map) · pixel area is B = <F(l1) F(l2) F(l3)> / patch area over
triangles l1 + l2 + l3 = 0, as `skyweave.flat.fourier` has C_ell = <|F|²> / patch area: unit³ sr².
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.statistics.flat_spectra import CHUNK, auto_and_cross

Shape = Literal["equilateral", "squeezed"]


def one_point(maps: np.ndarray, edges: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """Density of the values of each map (n, y, x) in bins of rising `edges`: (n, bins) float64.

    In 1/unit, per bin: its integral is the share of the map's values that lie within the edges. A
    value on the last edge counts. `masks` (broadcast to the maps) keeps the pixels that are not
    zero in it; what lies outside may be anything. Raises `UserError` for edges that do not rise, an
    empty mask, or values inside it that are not finite.
    """
    maps, edges = np.asarray(maps), _rising(edges)
    keep = np.broadcast_to(True if masks is None else np.asarray(masks) != 0, maps.shape)
    density = np.empty((len(maps), len(edges) - 1))
    for index, (image, mask) in enumerate(zip(maps, keep, strict=True)):
        values = image[mask]
        if not values.size:
            raise UserError(f"mask {index}", "a pixel that it keeps", "none")
        if not np.isfinite(values).all():
            raise UserError(f"map {index}", "finite values inside the mask", "others")
        density[index] = np.histogram(values, edges)[0] / values.size
    return density / np.diff(edges)


def one_point_distance(a: np.ndarray, b: np.ndarray, edges: np.ndarray) -> float:
    """Wasserstein distance of the mean densities of two sets (n, bins), in the unit of `edges`.

    The area between the distribution functions (Vallender 1974, Theory Probab. Appl. 18, 784),
    exact for densities that are constant in each bin. Both means are scaled to an integral of 1, so
    that only what lies within the edges is compared. Raises `UserError` for edges that do not rise,
    for densities that do not fit them, and for a set without a value within them.
    """
    edges = _rising(edges)
    ahead, behind = (_distribution(densities, edges) for densities in (a, b))
    gap = ahead - behind
    left, right = np.abs(gap[:-1]), np.abs(gap[1:])
    # Of a linear function that changes its sign within the bin, two triangles.
    crossing = gap[:-1] * gap[1:] < 0
    total = np.where(crossing, left + right, 1)
    mean = np.where(crossing, (left**2 + right**2) / total, left + right) / 2
    return float(np.sum(mean * np.diff(edges)))


@dataclass(frozen=True)
class Triangles:
    """Bins of triangles of multipoles: m bins of three bands each.

    `bands` (m, 3) are the bands' indices, `ell` (m, 3) the mean multipoles of their modes, and
    `counts` (m,) the number of triangles of modes, each order of the three sides counted.
    """

    bands: np.ndarray
    ell: np.ndarray
    counts: np.ndarray


def triangles(grid: PatchGrid, bins: Bins, shape: Shape) -> Triangles:
    """Bins of triangles of a shape, made of bands.

    `equilateral`: (b, b, b) for each band. `squeezed`: (0, b, b) for each band above the first,
    which holds the long waves. Raises `UserError` for another shape, for one band in a squeezed
    one, for a band that holds ell = 0, and for bands whose products alias: the sum of three upper
    edges may be at most twice the Nyquist multipole.
    """
    if shape not in ("equilateral", "squeezed"):
        raise UserError("shape", "equilateral or squeezed", shape)
    first = 1 if shape == "squeezed" else 0
    if bins.count <= first:
        raise UserError("bins", "two bands or more for squeezed triangles", bins.edges)
    if bins.edges[0] <= 0:
        raise UserError("bins", "bands above ell = 0", bins.edges)
    bands = np.repeat(np.arange(first, bins.count)[:, None], 3, axis=1)
    if shape == "squeezed":
        bands[:, 0] = 0
    highest = np.array(bins.edges)[bands + 1].sum(axis=1).max()
    if highest > 2 * grid.ell_nyquist:
        expected = f"three upper edges of a triangle that sum to {2 * grid.ell_nyquist:.0f} or less"
        raise UserError("bins", expected, f"{highest:.0f}")
    # The indicators of the bands are modes of unit amplitude: their product counts triangles.
    ones = np.ones(grid.ell.shape, complex)
    counts = np.rint(_products(ones, grid, bins, bands) * grid.area_sr**3)
    return Triangles(bands, bins.centres(grid)[bands], counts.astype(int))


def bispectrum(
    maps: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    weights: np.ndarray | None = None,
    *,
    shape: Shape,
) -> np.ndarray:
    """Binned flat bispectra (n, m) float64 of maps (n, y, x), in unit³ sr²; m as `triangles`.

    The mean over all triangles of a bin, from the mean over the pixels of the product of the maps
    filtered in its three bands (Watkinson et al. 2017, arXiv 1705.06284; of dust: Coulton & Spergel
    2019, arXiv 1901.04515). NaN in a bin without triangles. In Gaussian fields its mean is 0 and
    its variance s A C1 C2 C3 / counts, with A the patch's area and s = 6 for equilateral, 2 for
    squeezed triangles.

    Maps are periodic unless `weights` (y, x) or (n, y, x), from 0 on, are given: each map loses its
    weighted mean and is multiplied by its weight, and the bispectrum is divided by the weight's
    mean cube, which is right where the bispectrum is flat over the weight's own width in ell. Power
    laws are not (seen for C_ell of slope -2.7 under a taper of a tenth of the side: 5 to 10 % off,
    50 % in the second equilateral band): compare sets under the same weights. Raises
    `UserError` as `triangles`, and for maps or weights that do not fit.
    """
    found = triangles(grid, bins, shape)
    maps = _fitting(maps, grid)
    out = np.empty((len(maps), len(found.counts)))
    for rows in _chunks(len(maps)):
        weight = _weight(weights, maps, rows)
        for index, image in enumerate(_weighted(maps[rows], weight, rows), rows.start):
            out[index] = _products(forward(image, grid), grid, bins, found.bands)
        norm = np.ones(1) if weight is None else np.mean(weight**3, axis=(1, 2))
        out[rows] *= grid.area_sr**2 / norm[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(found.counts > 0, out / found.counts, np.nan)


def input_output_correlation(
    inputs: np.ndarray,
    outputs: np.ndarray,
    grid: PatchGrid,
    bins: Bins,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Correlation r_ell = C_io / sqrt(C_ii C_oo) (n, bins.count) of pairs of maps (n, y, x).

    Patch by patch, in [-1, 1]; NaN where a map has no power. `weights` as in `bispectrum`: spectra
    of the weighted maps are not decoupled, their ratio needs no norm. `field_metrics` has the
    correlation of the mean spectra of a set. Raises `UserError` for maps or weights that do not
    fit.
    """
    inputs, outputs = _fitting(inputs, grid), _fitting(outputs, grid)
    if len(inputs) != len(outputs):
        raise UserError("outputs", f"one for each of {len(inputs)} inputs", len(outputs))
    out = np.empty((len(inputs), bins.count))
    for rows in _chunks(len(inputs)):
        weight = _weight(weights, inputs, rows)
        output, input_ = (_weighted(maps[rows], weight, rows) for maps in (outputs, inputs))
        auto_o, auto_i, cross = auto_and_cross(output, input_, grid, bins)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[rows] = cross / np.sqrt(auto_o * auto_i)
    return out


def nearest(maps: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reference nearest to each map: its index (n,), the distance (n,) and correlation (n,).

    `maps` (n, y, x) and `references` (m, y, x) are square; each loses its mean and is divided by
    its standard deviation. The distance is the rms difference of pixels, without unit, for the best
    of the square's eight rotations and mirror images: sqrt(2 (1 - r)) of the correlation r of the
    pixels, 0 for a copy and about sqrt(2) for what is unrelated. Raises `UserError` for shapes that
    differ, no reference, and a map that is constant or not finite.
    """
    maps, references = np.asarray(maps), np.asarray(references)
    side = maps.shape[-1]
    for name, stack in (("maps", maps), ("references", references)):
        if stack.ndim != 3 or stack.shape[1:] != (side, side):
            raise UserError(name, f"shape (n, {side}, {side})", stack.shape)
    if not len(references):
        raise UserError("references", "at least one", 0)
    index, correlation = np.zeros(len(maps), int), np.full(len(maps), -np.inf)
    for refs in _chunks(len(references)):
        known = _unit(references[refs], "references", refs).reshape(-1, side**2)
        for rows in _chunks(len(maps)):
            for turned in _symmetries(_unit(maps[rows], "maps", rows)):
                r = turned.reshape(-1, side**2) @ known.T
                best = r.argmax(axis=1)
                highest = r[np.arange(len(r)), best]
                better = highest > correlation[rows]
                index[rows] = np.where(better, refs.start + best, index[rows])
                correlation[rows] = np.where(better, highest, correlation[rows])
    correlation = np.minimum(correlation, 1)
    return index, np.sqrt(2 * (1 - correlation)), correlation


def _rising(edges: np.ndarray) -> np.ndarray:
    edges = np.asarray(edges, float)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise UserError("edges", "two rising numbers or more", edges.tolist())
    return edges


def _distribution(densities: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Distribution function (bins + 1,) at the edges, of the mean of densities (n, bins)."""
    densities = np.asarray(densities, float)
    if densities.ndim != 2 or densities.shape[1] != len(edges) - 1:
        raise UserError("densities", f"shape (n, {len(edges) - 1})", densities.shape)
    shares = densities.mean(axis=0) * np.diff(edges)
    if not shares.sum() > 0:
        raise UserError("densities", "values within the edges", "none")
    return np.append(0, np.cumsum(shares)) / shares.sum()


def _products(modes: np.ndarray, grid: PatchGrid, bins: Bins, bands: np.ndarray) -> np.ndarray:
    """Mean over pixels (m,) of the product of a map filtered in three bands, for `bands` (m, 3)."""
    member = np.digitize(grid.ell, bins.edges) - 1
    filtered = [inverse(np.where(member == band, modes, 0), grid) for band in range(bins.count)]
    return np.array([np.mean(filtered[i] * filtered[j] * filtered[k]) for i, j, k in bands])


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


def _fitting(maps: np.ndarray, grid: PatchGrid) -> np.ndarray:
    maps = np.asarray(maps)
    if maps.ndim != 3 or maps.shape[1:] != (grid.pixels, grid.pixels):
        raise UserError("maps", f"shape (n, {grid.pixels}, {grid.pixels})", maps.shape)
    return maps


def _weight(weights: np.ndarray | None, maps: np.ndarray, rows: slice) -> np.ndarray | None:
    """Weights (1 or rows, y, x) of some of the maps."""
    if weights is None:
        return None
    weights = np.asarray(weights)
    if weights.shape not in (maps.shape, maps.shape[1:]):
        raise UserError("weights", f"shape {maps.shape} or {maps.shape[1:]}", weights.shape)
    weight = np.asarray(weights[rows] if weights.ndim == 3 else weights[None], float)
    if not (weight >= 0).all() or not weight.any(axis=(1, 2)).all():
        raise UserError("weights", "numbers from 0, not all 0 in a map", "others")
    return weight


def _weighted(maps: np.ndarray, weight: np.ndarray | None, rows: slice) -> np.ndarray:
    """Maps (rows, y, x) without their weighted means, times weights; as they are without any."""
    values = np.asarray(maps, float)
    if weight is None:
        _finite(values, "maps", rows)
        return values
    values = np.where(weight > 0, values, 0)
    _finite(values, "maps", rows)
    mean = (values * weight).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
    return (values - mean[:, None, None]) * weight


def _unit(maps: np.ndarray, name: str, rows: slice) -> np.ndarray:
    """Maps (n, y, x) without their means, scaled so that the squares of each sum to 1."""
    values = np.asarray(maps, float)
    _finite(values, name, rows)
    values = values - values.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt(np.sum(values**2, axis=(1, 2), keepdims=True))
    # What the mean's rounding leaves of a constant.
    constant = norm.ravel() <= 1e-12 * np.sqrt(np.sum(np.square(maps, dtype=float), axis=(1, 2)))
    if constant.any():
        raise UserError(f"{name} {rows.start + constant.argmax()}", "values that differ", "one")
    return values / norm


def _symmetries(maps: np.ndarray) -> Iterator[np.ndarray]:
    """The eight images of square maps (n, y, x) under rotation and reflection."""
    for mirrored in (maps, maps[:, :, ::-1]):
        for turns in range(4):
            yield np.rot90(mirrored, turns, axes=(1, 2))


def _finite(values: np.ndarray, name: str, rows: slice) -> None:
    broken = ~np.isfinite(values).all(axis=(1, 2))
    if broken.any():
        raise UserError(f"{name} {rows.start + broken.argmax()}", "finite values", "others")
