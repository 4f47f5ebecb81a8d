"""Tiles to the sky, Minkowski functionals and spectra of patches, against who else does them."""

import inspect
import os
import resource
import time
from collections.abc import Callable

import numpy as np

from benchmarks.record import Measured
from benchmarks.timing import Side, paired
from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.sky.projection import header
from skyweave.sky.tiles import layout, reproject
from skyweave.statistics.minkowski import functionals, scaled

#: ForSE's tiles and its map.
SIZE_DEG, OVERLAP_DEG, PIXELS, NSIDE = 20.0, 2.0, 320, 2048
#: Tiles that `reproject` is timed on.
PEER_TILES = 3
BLOCKS = 9


def smooth(pixels: int, width: float, seed: int = 0) -> np.ndarray:
    """A periodic Gaussian field (y, x), smoothed over `width` pixels."""
    from scipy import ndimage

    white = np.random.default_rng(seed).standard_normal((pixels, pixels))
    return ndimage.gaussian_filter(white, width, mode="wrap")


def reproject_tile(tile: np.ndarray, keywords: dict[str, object], nside: int) -> np.ndarray:
    """One tile onto HEALPix with reproject."""
    from astropy.io import fits
    from reproject import reproject_to_healpix

    values, _ = reproject_to_healpix(
        (tile, fits.Header(keywords)), "galactic", nside=nside, order="bilinear", nested=False
    )
    return values


def reprojection(*, nside: int = NSIDE, pixels: int = PIXELS) -> Measured:
    """Seconds for all tiles to the sky, ours and reproject's."""
    table, grid = layout(SIZE_DEG, OVERLAP_DEG), PatchGrid(SIZE_DEG, pixels)
    tiles = np.stack([smooth(pixels, 2, seed).astype(np.float32) for seed in range(len(table))])
    before = _peak_gb()
    times = []
    for _ in range(6):
        start = time.perf_counter()
        reproject(tiles[None], table, grid, OVERLAP_DEG, nside)
        times.append(time.perf_counter() - start)
    memory = _peak_gb()
    chosen = np.linspace(0, len(table) - 1, PEER_TILES + 2).astype(int)[1:-1]
    start = time.perf_counter()
    for number in chosen:
        place = table.loc[number]
        reproject_tile(tiles[number], header(place.lon, place.lat, grid), nside)
    peer = (time.perf_counter() - start) / len(chosen) * len(table)
    mine = float(np.median(times[1:]))
    return Measured(
        ours=mine,
        peer=peer,
        ratio=peer / mine,
        unit="s",
        note=f"{len(table)} tiles of {SIZE_DEG:g}° and {pixels}² pixels to one map of nside "
        f"{nside}, one component, on {os.cpu_count()} cores; the peer is timed on {PEER_TILES} "
        f"tiles and scaled. The first time, with what is compiled to load, it took "
        f"{times[0]:.3g} s. Most memory held: {memory:.2g} GB ({before:.2g} GB before the start).",
        peer_command=inspect.getsource(reproject_tile),
        n=len(times) - 1,
    )


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def thresholded(image: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Minkowski functionals with scikit-image."""
    from skimage.measure import euler_number, perimeter

    found = []
    for threshold in thresholds:
        above = image >= threshold
        found.append((above.sum(), perimeter(above, 8), euler_number(above, 2)))
    return np.array(found).T


def minkowski_peer(*, blocks: int = BLOCKS, pixels: int = PIXELS) -> Measured:
    """Milliseconds a map at 32 thresholds, ours and scikit-image's."""
    image, thresholds = scaled(smooth(pixels, 2)), np.linspace(-1, 1, 32)
    mine, theirs = paired(
        _repeated(lambda: functionals(image, thresholds), 20),
        _repeated(lambda: thresholded(image, thresholds), 2),
        blocks,
    )
    return Measured(
        ours=1e3 * mine,
        peer=1e3 * theirs,
        ratio=theirs / mine,
        unit="ms/map",
        note=f"Area, boundary and Euler characteristic of a map of {pixels}² pixels at 32 "
        "thresholds, one core.",
        peer_command=inspect.getsource(thresholded),
        n=blocks,
    )


def minkowski_thresholds(*, blocks: int = BLOCKS, pixels: int = PIXELS) -> Measured:
    """Milliseconds a map at 256 thresholds and at 32."""
    image = scaled(smooth(pixels, 2))
    mine, fewer = paired(
        _repeated(lambda: functionals(image, np.linspace(-1, 1, 256)), 20),
        _repeated(lambda: functionals(image, np.linspace(-1, 1, 32)), 20),
        blocks,
    )
    return Measured(
        ours=1e3 * mine,
        peer=1e3 * fewer,
        ratio=mine / fewer,
        unit="ms/map",
        note=f"A map of {pixels}² pixels at 256 thresholds (ours) and at 32 (peer), one core. Here "
        "the ratio says how many times more the 256 cost.",
        peer_command="",
        n=blocks,
    )


def spectra_workspace(*, patches: int = 178, pixels: int = PIXELS, alone: int = 2) -> Measured:
    """Seconds for spectra of patches under one mask, with one workspace and with one each."""
    from skyweave.statistics.namaster import Workspaces, spectra

    grid = PatchGrid(SIZE_DEG, pixels)
    bins = Bins.linear(36, min(1800, grid.ell_nyquist), 36)
    maps = np.stack([smooth(pixels, 2, seed) for seed in range(patches)])
    taper = cosine_taper(grid, 2.0)
    start = time.perf_counter()
    spectra(maps, taper, Workspaces(grid, bins))
    mine = time.perf_counter() - start
    start = time.perf_counter()
    for one in maps[:alone]:
        spectra(one[None], taper, Workspaces(grid, bins))
    theirs = (time.perf_counter() - start) / alone * patches
    return Measured(
        ours=mine,
        peer=theirs,
        ratio=theirs / mine,
        unit="s",
        note=f"NaMaster's spectra of {patches} patches of {pixels}² pixels under one taper, one "
        f"core: with one workspace, and with one for each patch (timed on {alone} and scaled).",
        peer_command="",
        n=1,
    )


def _repeated(call: Callable[[], object], count: int) -> Side:
    def run(start: int, times: int) -> None:
        for _ in range(times):
            call()

    return Side(run, count)


BENCHMARKS = {
    "reprojection_vs_reproject": reprojection,
    "minkowski_vs_skimage": minkowski_peer,
    "minkowski_256_over_32": minkowski_thresholds,
    "spectra_shared_workspace": spectra_workspace,
}
