"""A sky cut in tiles and put together again, held against itself; writes docs/tiles.md.

`python -m skyweave.tasks.tile_checks FILE` prints the page and writes it to FILE.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from skyweave.files import write_text
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.sky.harmonic import gaussian_window
from skyweave.sky.patches import cut
from skyweave.sky.tiles import layout, reproject, tiles_at

#: ForSE's tiles and its map.
GRID, OVERLAP_DEG, NSIDE = PatchGrid(20.0, 320), 2.0, 2048
#: Slope of the spectrum and beam of the sky that goes through them, both as dust's, and its last
#: multipole.
SLOPE, BEAM_ARCMIN, LMAX = -2.4, 12.0, 1600
SEED = 2026
_BAND = 100


@dataclass(frozen=True)
class RoundTrip:
    """What came back of a field.

    `error` and `worst` are the difference's rms and largest value over the field's rms, `seam` the
    variance over the true one where tiles overlap, and `inside` where one tile is alone. `spectra`
    has columns ell (a band's lowest), ratio (power that came back over true, of T or of E) and,
    of spin 2, leak (power of the difference's B over that in E; there is no true B).
    """

    spin: int
    error: float
    worst: float
    seam: float
    inside: float
    seconds: float
    spectra: pd.DataFrame


def round_trip(
    spin: int, grid: PatchGrid = GRID, nside: int = NSIDE, lmax: int = LMAX
) -> RoundTrip:
    """Cut a random band-limited sky of `spin` 0 or 2 in tiles, and put it together again."""
    import healpy

    table = layout(grid.size_deg, OVERLAP_DEG)
    alm = _sky(spin, lmax)
    tiles = cut(alm, np.ones(lmax + 1), table, grid, spin)
    start = time.perf_counter()
    found = reproject(tiles, table, grid, OVERLAP_DEG, nside, spin=spin)
    seconds = time.perf_counter() - start
    del tiles
    if spin:
        truth = np.stack(healpy.alm2map_spin(alm, nside, 2, lmax))
    else:
        truth = healpy.alm2map(alm[0], nside, lmax)[None]
    rms, difference = truth.std(), found - truth
    overlap = tiles_at(table, grid, nside) > 1
    cl, true_cl = _cl(found, lmax), _cl(truth, lmax)
    return RoundTrip(
        spin=spin,
        error=float(difference.std() / rms),
        worst=float(np.abs(difference).max() / rms),
        seam=float(found[:, overlap].var() / truth[:, overlap].var()),
        inside=float(found[:, ~overlap].var() / truth[:, ~overlap].var()),
        seconds=seconds,
        spectra=_bands(cl, true_cl, _cl(difference, lmax) if spin else None),
    )


def _sky(spin: int, lmax: int) -> np.ndarray:
    """alm (components, modes) of T, or of E without B."""
    import healpy

    ell, m = healpy.Alm.getlm(lmax)
    rng = generator(SEED, "tiles", spin)
    alm = rng.standard_normal(ell.size) + 1j * rng.standard_normal(ell.size) * (m > 0)
    alm *= np.where(ell >= 2, np.maximum(ell, 1.0) ** (SLOPE / 2), 0)
    alm = healpy.almxfl(alm, gaussian_window(lmax, BEAM_ARCMIN))
    return np.stack([alm, 0 * alm]) if spin else alm[None]


def _cl(maps: np.ndarray, lmax: int) -> np.ndarray:
    """Spectra (components, lmax+1); the quadrature's own error is the same for both maps."""
    import healpy

    maps = maps.astype(float)
    if len(maps) == 1:
        alms = [healpy.map2alm(maps[0], lmax, iter=0)]
    else:
        alms = healpy.map2alm_spin(maps, 2, lmax)
    return np.stack([healpy.alm2cl(alm) for alm in alms])


def _bands(found: np.ndarray, truth: np.ndarray, difference: np.ndarray | None) -> pd.DataFrame:
    rows = []
    for low in range(0, truth.shape[1] - 1, _BAND):
        band = slice(max(low, 2), low + _BAND)
        row = {"ell": low, "ratio": found[0, band].sum() / truth[0, band].sum()}
        if difference is not None:
            # Not of what came back: there is the quadrature's own.
            row["leak"] = difference[1, band].sum() / found[0, band].sum()
        rows.append(row)
    return pd.DataFrame(rows)


_PAGE = """\
# Tiles, there and back

`make check-tiles` makes this page. A random sky with a spectrum of ell^{slope:g} and a beam of
{beam:g}′, T alone and then E without B, is evaluated on the {count} tiles of {size:g}° that cover
the sky with {overlap:g}° overlap, {pixels}² pixels of {pixel:g}′ each, and put together again at
nside {nside} (`skyweave.sky.tiles`). `tests/test_tile_checks.py` holds the bars on a smaller sky.

| | T | Q, U |
| --- | --- | --- |
| rms of the difference over the map's | {t.error:.1e} | {p.error:.1e} |
| largest difference over the map's rms | {t.worst:.1e} | {p.worst:.1e} |
| variance over the true one, where tiles overlap | {t.seam:.5f} | {p.seam:.5f} |
| … where one tile is alone | {t.inside:.5f} | {p.inside:.5f} |
| seconds for {count} tiles | {t.seconds:.1f} | {p.seconds:.1f} |

Power that came back over the power that went in (bar: 1 % up to ell 1000), and B over E where there
was none (bar: 0.001):

| ell | T | E | B over E |
| --- | --- | --- | --- |
{rows}
"""


def page(t: RoundTrip, p: RoundTrip, grid: PatchGrid = GRID, nside: int = NSIDE) -> str:
    """Markdown of a round trip of T and of one of Q and U."""
    both = zip(t.spectra.to_dict("records"), p.spectra.to_dict("records"), strict=True)
    rows = [
        f"| {one['ell']}–{one['ell'] + _BAND} | {one['ratio']:.5f} | {other['ratio']:.5f} "
        f"| {other['leak']:.1e} |"
        for one, other in both
    ]
    return _PAGE.format(
        slope=SLOPE,
        beam=BEAM_ARCMIN,
        count=len(layout(grid.size_deg, OVERLAP_DEG)),
        size=grid.size_deg,
        overlap=OVERLAP_DEG,
        pixels=grid.pixels,
        pixel=60 * grid.size_deg / grid.pixels,
        nside=nside,
        t=t,
        p=p,
        rows="\n".join(rows),
    )


def main(path: str) -> None:
    """Make both round trips, print the page and write it to `path`."""
    text = page(round_trip(0), round_trip(2))
    write_text(path, text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1])
