"""The simulation held against published numbers, CAMB and analysis; writes docs/simulation.md.

`python -m skyweave.tasks.simulation_checks FILE` prints the tables and writes them to FILE.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import pandas as pd
from scipy.ndimage import map_coordinates

from skyweave.config import Channel, Effects, Grid, Spectra
from skyweave.files import write_text
from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb
from skyweave.seeds import generator
from skyweave.simulation.effects import deflection, rotation_cl
from skyweave.simulation.flat_sky import FlatSky
from skyweave.simulation.patch import Simulator
from skyweave.simulation.spectra import SpectraTable, compute
from skyweave.simulation.theory import modulated_bb

#: Standard deviations that the published noiseless network's inputs and outputs were scaled by
#: (map_stds.npz in the repository of arXiv:2101.01214).
PUBLISHED = {
    "q_obs": 2.7969549,
    "u_obs": 2.789544,
    "e_prim": 3.9061716,
    "tau": 0.002519445,
    "kappa": 0.044126775,
}

SEED = 2026
_BLOCK = 250


def spread(function: Callable, blocks: Iterable[Sequence[int]], workers: int) -> list[np.ndarray]:
    """`function` of each block of realizations, by `workers` processes."""
    if workers == 1:
        return [function(block) for block in blocks]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(function, blocks))


def _blocks(count: int, size: int = _BLOCK) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _simulator(
    table: SpectraTable, grid: Grid, effects: Effects, fields: Sequence[str], name: str
) -> Simulator:
    channels = {"obs": Channel()}
    return Simulator([table], grid, effects, channels, seed=SEED, dataset=name, fields=fields)


def _moments(table: SpectraTable, realizations: Sequence[int]) -> np.ndarray:
    """Mean and mean square (realizations, fields, 2) of the published fields."""
    simulator = _simulator(table, Grid(), Effects(), tuple(PUBLISHED), "published")
    return np.array(
        [
            [(map_.mean(dtype=float), np.mean(map_.astype(float) ** 2)) for map_ in patch.values()]
            for patch in simulator.realize(realizations)
        ]
    )


def published(realizations: int = 20_000, workers: int = 1) -> pd.DataFrame:
    """Standard deviations over all pixels against `PUBLISHED`.

    Columns field, ours, error (its own, from the scatter over realizations), published and
    ratio. The settings are the paper's: spectra and tau table, 5°, 128², 20 % null, noiseless.
    """
    table = compute(Spectra(cosmology="resunet_cmb_2013"))
    found = np.concatenate(spread(partial(_moments, table), _blocks(realizations), workers))
    mean, square = found.mean(axis=0).T
    ours = np.sqrt(square - mean**2)
    error = found[..., 1].std(axis=0, ddof=1) / np.sqrt(realizations) / (2 * ours)
    wanted = np.array(list(PUBLISHED.values()))
    return pd.DataFrame(
        {
            "field": list(PUBLISHED),
            "ours": ours,
            "error": error,
            "published": wanted,
            "ratio": ours / wanted,
        }
    )


#: Large enough for long lensing waves: those below ell 36, which don't fit 10°, make 0.5 % of B.
LENSED = Grid(size_deg=20.0, pixels=640)
BANDS = Bins.linear(300, 3100, 200)
_PAIRS = {"tt": ("t", "t"), "ee": ("e", "e"), "bb": ("b", "b"), "te": ("t", "e")}


def _lensed_bands(table: SpectraTable, realizations: Sequence[int]) -> np.ndarray:
    """Band powers (realizations, spectra, 2, bands) of lensed and of primordial patches."""
    grid = PatchGrid(LENSED.size_deg, LENSED.pixels)
    effects = Effects(reionization=False, null_fraction=0, taper_deg=0)
    fields = ("t_obs", "q_obs", "u_obs", "t_prim", "e_prim")
    rows = []
    for patch in _simulator(table, LENSED, effects, fields, "lensed").realize(realizations):
        modes = {name: forward(map_, grid) for name, map_ in patch.items()}
        e, b = rotate_to_eb(modes["q_obs"], modes["u_obs"], grid)
        seen = {"t": modes["t_obs"], "e": e, "b": b}
        unlensed = {"t": modes["t_prim"], "e": modes["e_prim"], "b": np.zeros_like(e)}
        rows.append(
            [
                [bin_power(power(m[first], m[second], grid), grid, BANDS) for m in (seen, unlensed)]
                for first, second in _PAIRS.values()
            ]
        )
    return np.array(rows)


def lensed(patches: int = 400, workers: int = 1) -> pd.DataFrame:
    """Lensed spectra of simulated patches of 20° against CAMB's, in bands of 200 from ell 300.

    Columns spectrum, low, high, ratio and error. The sky's own scatter is taken out: lensed minus
    unlensed power of the same patches, plus the known unlensed spectrum. For TE, which crosses
    zero, ratio is 1 plus the difference over sqrt(TT EE).
    """
    table = compute(Spectra(lmax=6000))
    found = np.concatenate(spread(partial(_lensed_bands, table), _blocks(patches, 20), workers))
    grid = PatchGrid(LENSED.size_deg, LENSED.pixels)

    def band(name: str) -> np.ndarray:
        return bin_power(table.on_modes(name, grid), grid, BANDS)

    camb = {name: band(f"lensed_{name}") for name in _PAIRS}
    rows = []
    for index, name in enumerate(_PAIRS):
        measured = found[:, index, 0] - found[:, index, 1] + band(name)
        scale = np.sqrt(camb["tt"] * camb["ee"]) if name == "te" else camb[name]
        ratio = 1 + (measured.mean(axis=0) - camb[name]) / scale
        error = measured.std(axis=0, ddof=1) / np.sqrt(patches) / scale
        edges = BANDS.edges
        rows += list(zip([name] * BANDS.count, edges, edges[1:], ratio, error, strict=False))
    return pd.DataFrame(rows, columns=["spectrum", "low", "high", "ratio", "error"])


def interpolation(patches: int = 20) -> pd.DataFrame:
    """Power of lensed patches of 5° and 128² over that of the same skies on pixels 4 times finer.

    Columns spectrum, low, high, ours and spline: ours, and a quintic spline with knots at the
    pixels, the published way. The skies end at the coarse Nyquist multipole, so that both grids
    hold the same waves.
    """
    table = compute(Spectra(lmax=6000))
    coarse, fine = PatchGrid(5.0, 128), PatchGrid(5.0, 512)
    ends = int(coarse.ell_nyquist)
    cl = {name: table.cl[name][:ends] for name in ("tt", "ee", "bb", "te", "kk")}
    skies = {grid: FlatSky(cl, grid) for grid in (coarse, fine)}
    stokes = tuple("tqu")
    total = np.zeros((3, len(_PAIRS) - 1, BANDS.count))
    for number in range(patches):
        random = partial(generator, SEED, "interpolation", number)
        fields = ("t_sky", "q_sky", "u_sky")
        ours, exact = (
            np.stack([sky.maps(random, fields)[name] for name in fields]) for sky in skies.values()
        )
        before = skies[coarse].maps(random, (*(f"{s}_prim" for s in stokes), "kappa"))
        shift_y, shift_x = deflection(forward(before["kappa"], coarse), coarse)
        y, x = np.indices(shift_y.shape)
        places = (y + shift_y / coarse.pixel_rad, x + shift_x / coarse.pixel_rad)
        spline = np.stack(
            [
                map_coordinates(before[f"{s}_prim"], places, order=5, mode="grid-wrap")
                for s in stokes
            ]
        )
        for row, maps in enumerate((exact[:, ::4, ::4], ours, spline)):
            t, q, u = forward(maps, coarse)
            e, b = rotate_to_eb(q, u, coarse)
            for column, modes in enumerate((t, e, b)):
                total[row, column] += bin_power(power(modes, modes, coarse), coarse, BANDS)
    exact_power, ours_power, spline_power = total
    rows = [
        (
            name,
            low,
            high,
            ours_power[i, k] / exact_power[i, k],
            spline_power[i, k] / exact_power[i, k],
        )
        for i, name in enumerate(("tt", "ee", "bb"))
        for k, (low, high) in enumerate(pairwise(BANDS.edges))
    ]
    return pd.DataFrame(rows, columns=["spectrum", "low", "high", "ours", "spline"])


_WIDE_BANDS = Bins((300.0, 700.0, 1100.0, 1500.0, 2000.0, 2500.0, 3000.0))


#: Patches of 20° still lack the waves below ell 18, 1 % of what rotation makes of E at ell 500.
_WIDE = PatchGrid(20.0, 512)

#: The rotation's field is scale-invariant above this multipole; below, even these have too few
#: waves for a continuous integral.
_LONGEST = 150


def _effect_bands(
    cl: dict[str, np.ndarray], rotation: float, realizations: Sequence[int]
) -> np.ndarray:
    """Band powers BB and EB (realizations, 2, bands) of patches of 20°."""
    grid, sky = _WIDE, FlatSky(cl, _WIDE, rotation=rotation)
    rows = []
    for number in realizations:
        maps = sky.maps(partial(generator, SEED, "effects", number), ("q_sky", "u_sky"))
        q, u = (forward(map_, grid) for map_ in maps.values())
        e, b = rotate_to_eb(q, u, grid)
        rows.append([bin_power(power(b, other, grid), grid, _WIDE_BANDS) for other in (b, e)])
    return np.array(rows)


def effects(patches: int = 100, workers: int = 1) -> pd.DataFrame:
    """B of the patchy screen and of rotation, and EB of a constant angle, against analysis.

    Columns effect, spectrum, low, high, ratio and error.
    """
    table = compute(Spectra(lmax=6000, cosmology="resunet_cmb_2013"))
    primordial = {name: table.cl[name] for name in ("tt", "ee", "bb", "te")}
    ee, ell, angle = table.cl["ee"], table.ell, np.radians(2.0)
    field = np.where(ell < _LONGEST, 0, rotation_cl(1e-5, table.lmax))
    at = np.arange(200.0, 3200, 50)
    cases = [
        # name, spectrum, C_ell of the field, constant angle, theory at multipoles
        (
            *("patchy screen", "bb", {"tautau": table.cl["tautau"]}, 0.0),
            (at, modulated_bb(at, ee, table.cl["tautau"], rotates=False)),
        ),
        (
            *("rotation by a field", "bb", {"alphaalpha": field}, 0.0),
            (at, modulated_bb(at, ee, field, rotates=True)),
        ),
        (
            *("rotation by 2°", "eb", {}, angle),
            (ell, np.sin(4 * angle) / 2 * (ee - table.cl["bb"])),
        ),
    ]
    grid, edges, rows = _WIDE, _WIDE_BANDS.edges, []
    for name, spectrum, extra, constant, (where, theory) in cases:
        expected = bin_power(np.interp(grid.ell, where, theory), grid, _WIDE_BANDS)
        bands = partial(_effect_bands, primordial | extra, constant)
        found = np.concatenate(spread(bands, _blocks(patches, 10), workers))
        ratio = found[:, ("bb", "eb").index(spectrum)] / expected
        for k, (low, high) in enumerate(pairwise(edges)):
            error = ratio[:, k].std(ddof=1) / np.sqrt(patches)
            rows.append((name, spectrum, low, high, ratio[:, k].mean(), error))
    return pd.DataFrame(rows, columns=["effect", "spectrum", "low", "high", "ratio", "error"])


_PAGE = """\
# The simulation, checked

`make check-simulation` makes this page: the simulation held against the published pipeline, against
CAMB and against analysis. `tests/test_simulation_checks.py` holds the bars.

## The published standard deviations

{published_count} realizations with the settings of ResUNet-CMB (arXiv:2101.01214: its spectra and
tau table, 20 % null, 5°, 128², noiseless, tapered). The published numbers are those that its
noiseless network's maps were scaled by. Bar: 0.5 %.

{published}

## Lensed spectra against CAMB

{lensed_count} patches of 20° and 640² (long lensing waves don't fit smaller ones), lensed over CAMB
in bands of 200. The sky's own scatter is taken out; for TE the difference is over sqrt(TT EE). Bar:
0.5 %, as far as a band's own error allows.

{lensed}

## Interpolation

Power of lensed patches of 5° and 128² over that of the same skies on pixels four times finer.
Beside it a quintic spline with knots at the pixels, which is the published way.

{interpolation}

## Patchy screen and rotation

{effects_count} patches of 20°: B that the patchy optical depth makes of E, and that a
scale-invariant rotation does, over the analytic convolutions; EB of a constant angle over
½ sin(4 alpha)(EE - BB). Bar: 2 %.

{effects}

## Residual foregrounds

A channel's `foreground_dl_80` adds Gaussian E and B to Q and U before the beam, a power law in ell
with the slope of Planck's dust (arXiv:1409.5738). They are flat and periodic on the simulated area,
also in front of patches of a curved sky. `tests/test_foreground_residuals.py` holds them against
their spectrum, through a beam and a margin.

## Crops

With `grid.crops: 10` a simulated area, the patch with `margin_deg` around it, gives ten patches at
drawn places. They may overlap, share cosmology and null, and stay in one part of the split; errors
of the check come from whole areas. Beam, noise and hits are the area's, the taper comes after the
cut. `tests/test_crops.py` holds them against pieces of the same area.

## Covariance of a channel

`results/datasets/DATASET/covariance/CHANNEL.csv` has C_ell of T, E and B as the maps of a channel
have them, without taper: lensed as far as realizations are, with foregrounds, beam and noise, that
of uneven hits at its mean; where there are several cosmologies, their mean. Patchy reionization and
rotation are not in it. Of imported maps it is measured in the training set.
`tests/test_covariance_file.py` holds it against simulated maps.
"""

#: Realizations of each check.
COUNTS = {"published": 20_000, "lensed": 400, "interpolation": 20, "effects": 100}


def page(tables: dict[str, pd.DataFrame], counts: dict[str, int]) -> str:
    """Markdown of the tables of `published`, `lensed`, `interpolation` and `effects`."""
    lensed_table = tables["lensed"].assign(
        shown=[f"{r:.4f} ± {e:.4f}" for r, e in tables["lensed"][["ratio", "error"]].to_numpy()]
    )
    rows: dict[str, list[tuple[str, ...]]] = {
        "published": [
            (
                row["field"],
                f"{row['ours']:.6g}",
                f"{row['error']:.2g}",
                f"{row['published']:.8g}",
                f"{100 * (row['ratio'] - 1):+.2f} %",
            )
            for row in tables["published"].to_dict("records")
        ],
        "lensed": _by_band(lensed_table, "shown"),
        "interpolation": [
            (*ours, *spline[1:])
            for ours, spline in zip(
                _by_band(tables["interpolation"], "ours"),
                _by_band(tables["interpolation"], "spline"),
                strict=True,
            )
        ],
        "effects": [
            (
                row["effect"],
                row["spectrum"].upper(),
                f"{row['low']:g}–{row['high']:g}",
                f"{row['ratio']:.4f} ± {row['error']:.4f}",
            )
            for row in tables["effects"].to_dict("records")
        ],
    }
    heads: dict[str, tuple[str, ...]] = {
        "published": ("field", "ours", "its error", "published", "difference"),
        "lensed": ("ell", "TT", "EE", "BB", "TE"),
        "interpolation": ("ell", *(f"{n}, ours" for n in _AUTO), *(f"{n}, spline" for n in _AUTO)),
        "effects": ("effect", "spectrum", "ell", "simulated over analytic"),
    }
    filled = {name: _markdown(heads[name], rows[name]) for name in heads}
    return _PAGE.format(**filled, **{f"{name}_count": f"{n:,}" for name, n in counts.items()})


_AUTO = ("TT", "EE", "BB")


def _by_band(table: pd.DataFrame, column: str) -> list[tuple[str, ...]]:
    """Rows of a band and its value in `column` for each spectrum, in the table's order."""
    rows = []
    for (low, high), part in table.groupby(["low", "high"], sort=True):
        values = (v if isinstance(v, str) else f"{v:.5f}" for v in part[column])
        rows.append((f"{low:g}–{high:g}", *values))
    return rows


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(path: str) -> None:
    """Run every check, print the page and write it to `path`."""
    workers = os.cpu_count() or 1
    tables = {
        "published": published(COUNTS["published"], workers),
        "lensed": lensed(COUNTS["lensed"], workers),
        "interpolation": interpolation(COUNTS["interpolation"]),
        "effects": effects(COUNTS["effects"], workers),
    }
    text = page(tables, COUNTS)
    write_text(path, text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1])
