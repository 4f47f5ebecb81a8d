"""Tiles to the sky, Minkowski functionals and spectra of patches, against who else does them."""

import inspect
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.record import Measured
from benchmarks.timing import Side, paired
from skyweave.config import ForseNetwork, FullSky, Patches
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
#: nside of the second stage's map, GB that ForSE+ says it took (arXiv:2406.14519), and our bar.
FINE_NSIDE, FORSE_PLUS_GB, BAR_GB = 4096, 64.0, 16.0
#: Of the untrained network that its memory is measured with, and nside of the map that it sees.
WIDTH, DUST_NSIDE = 0.0625, 256
#: ForSE's patches, which it makes small scales of.
FORSE = Patches(size_deg=SIZE_DEG, pixels=PIXELS, low_arcmin=80.0, high_arcmin=12.0)


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


def second_stage_memory(*, nside: int = FINE_NSIDE, patches: Patches = FORSE) -> Measured:
    """GB that making one sky with the second stage takes, ours and as published for ForSE+."""
    with TemporaryDirectory() as folder:
        _elsewhere(second_stage_inputs, Path(folder), nside, patches)
        peak, seconds = _elsewhere(make_second_stage, Path(folder), nside)
    return Measured(
        ours=peak,
        peer=FORSE_PLUS_GB,
        ratio=FORSE_PLUS_GB / peak,
        unit="GB",
        note=f"Most memory held while one sky of T, Q and U is made at nside {nside} with the "
        f"second stage, from {len(layout(patches.size_deg, OVERLAP_DEG))} tiles of "
        f"{patches.size_deg:g}° and {patches.pixels}² pixels, Q and U by polarized intensity; the "
        f"bar is {BAR_GB:g} GB. It took {seconds:.3g} s on {os.cpu_count()} cores. The network is "
        f"untrained and of width {WIDTH:g}: one of full width takes some 0.1 GB more. The peer is "
        "what ForSE+ is published to need (arXiv:2406.14519), and was not run. Here the ratio says "
        "how many times less memory ours holds.",
        peer_command="",
        n=1,
    )


def second_stage_inputs(folder: Path, nside: int, patches: Patches) -> None:
    """A lognormal sky of T, Q and U, tiles and large scales of it, a mask, and a network."""
    import healpy

    from skyweave.data.normalization import Normalization
    from skyweave.estimators.gaussian_small_scales import Law
    from skyweave.networks.card import Card, save_network
    from skyweave.networks.registry import build
    from skyweave.sky.skymap import SkyMap, write_mask
    from skyweave.tasks.full_sky import write_large_scales

    lmax = 2 * DUST_NSIDE
    ell, order = healpy.Alm.getlm(lmax)
    draws = np.random.default_rng(0).standard_normal((3, 2, ell.size))
    modes = np.where(order == 0, draws[:, 0], draws[:, 0] + 1j * draws[:, 1]) / (10.0 + ell) ** 1.4
    fields = np.array([healpy.alm2map(one, DUST_NSIDE) for one in modes])
    t, *qu = fields / fields.std(axis=1, keepdims=True)
    dust = 100 * np.exp(t)
    tqu = [dust, *(0.05 * dust * one for one in qu)]
    unit = "uK_CMB"
    healpy.write_map(folder / "tqu.fits", tqu, coord="G", column_units=unit, dtype=np.float32)
    bad = np.zeros(dust.size, bool)
    SkyMap(dust.astype(np.float32), None, bad, 353.0, "dust", fwhm_arcmin=5.0).write(
        folder / "map.fits"
    )
    write_mask(folder / "mask.fits", ~bad)
    write_large_scales(
        folder / "map.fits",
        folder / "tqu.fits",
        tiles=folder / "tiles.h5",
        large=folder / "large.fits",
        high=folder / "high.fits",
        patches=patches,
        full_sky=second_stage_sky(nside),
        fwhm_arcmin=None,
        dataset="dust",
    )
    settings, names = ForseNetwork(width=WIDTH), ("low", "ratio")
    card = Card(
        inputs=names[:1],
        outputs=names[1:],
        units=dict.fromkeys(names, ""),
        normalization=Normalization(dict.fromkeys(names, (0.0, 1.0))),
        size_deg=patches.size_deg,
        pixels=patches.pixels,
        seed=1,
        data={
            "dataset": "dust",
            "provenance": {"settings": {"patches": patches.model_dump()}},
            "law": Law(-2.7, 0.0, 1.0, 0.15, 0.3).to_dict(),
        },
        settings={"network": settings.model_dump(), "noise": 0.1, "amplitude": "extrapolation"},
    )
    save_network(folder, build(settings, patches.pixels, names[:1], names[1:], 1), card)


def make_second_stage(folder: Path, nside: int) -> tuple[float, float]:
    """Make a sky of what `second_stage_inputs` wrote; GB of this process, and seconds."""
    from skyweave.tasks.full_sky import make_sky

    start = time.perf_counter()
    make_sky(
        folder / "network.keras",
        tiles=folder / "tiles.h5",
        large=folder / "large.fits",
        mask=folder / "mask.fits",
        out=folder / "sky.fits",
        full_sky=second_stage_sky(nside),
        realization=0,
        run="benchmark",
        threads=len(os.sched_getaffinity(0)),
    )
    return _peak_gb(), time.perf_counter() - start


def second_stage_sky(nside: int) -> FullSky:
    """Settings of the sky, with Q and U of a file."""
    template = {"source": "file", "path": "tqu.fits", "fwhm_arcmin": 5.0}
    return FullSky.model_validate(
        {
            "nside": nside,
            "overlap_deg": OVERLAP_DEG,
            "polarization": "intensity",
            "second_stage": True,
            "template": template,
        }
    )


def _elsewhere(call: Callable[..., Any], *arguments: object) -> Any:
    """What a call gives in a process of its own: TensorFlow's threads are set but once in one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


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
    "second_stage_memory": second_stage_memory,
}
