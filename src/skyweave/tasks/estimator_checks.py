"""Quadratic estimators held against simulated patches and theory; writes docs/estimators.md.

`python -m skyweave.tasks.estimator_checks FILE` prints the page and writes it to FILE.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd

from skyweave.config import Effects, Grid, Spectra
from skyweave.estimators.iterative_noise import iterative_noise, lensing_bb
from skyweave.estimators.quadratic import Quadratic
from skyweave.estimators.response import PAIRS, couplings
from skyweave.files import write_text
from skyweave.flat.fourier import Bins, bin_power, forward, on_modes, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb
from skyweave.simulation.cosmologies import camb_parameters
from skyweave.simulation.effects import rotation_cl
from skyweave.simulation.patch import simulate
from skyweave.simulation.spectra import SpectraTable, compute
from skyweave.statistics.tables import markdown
from skyweave.tasks.simulation_checks import spread

GRID, ELL = PatchGrid(5.0, 128), (300.0, 3500.0)
BANDS = Bins((36, 300, 600, 1000, 1500, 2000, 3000))
SEED = 2026
_COSMOLOGY: Literal["resunet_cmb_2013"] = "resunet_cmb_2013"
_LMAX = 6600
#: Power of the rotation's field, rad².
ROTATION = 1e-6
#: What acts, in the skies that each field is estimated from.
_ACTS: dict[str, dict[str, bool | float]] = {
    "kappa": {"lensing": True},
    "tau": {"reionization": True},
    "alpha": {"rotation_amplitude": ROTATION},
}
_NAMES = ("tt", "te", "ee", "bb")
#: Patches of the page: for each field, for kappa with unlensed spectra, and Gaussian ones.
COUNTS = {"patches": 96, "again": 32, "gaussian": 64}
_BLOCK = 16


def estimators(table: SpectraTable, grid: PatchGrid = GRID) -> dict[str, Quadratic]:
    """Of noiseless maps of a lensed sky: of each field, and of tau hardened against lensing.

    Spectra of f are the lensed ones for kappa, and the unlensed ones of the sky that is modulated
    for tau and alpha.
    """
    total = {name: table.on_modes(f"lensed_{name}", grid) for name in _NAMES}
    unlensed = {name: table.on_modes(name, grid) for name in _NAMES}
    ell = _range(grid)
    made = {
        field: Quadratic(
            *(grid, total if field == "kappa" else unlensed, total),
            field=field,
            pairs=PAIRS[1:] if field == "alpha" else PAIRS,
            ell=ell,
        )
        for field in _ACTS
    }
    return made | {"tau, hardened": made["tau"].hardened("kappa")}


def _range(grid: PatchGrid) -> tuple[float, float]:
    """Multipoles that are used."""
    return ELL[0], min(ELL[1], 0.95 * grid.ell_nyquist)


def _found(made: Quadratic, sky: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return made.estimate(sky) | {"all": made.minimum_variance(sky)}


def _modes(maps: dict[str, np.ndarray], end: str, grid: PatchGrid) -> dict[str, np.ndarray]:
    t, q, u = (forward(maps[f"{s}_{end}"].astype(float), grid) for s in "tqu")
    e, b = rotate_to_eb(q, u, grid)
    return {"t": t, "e": e, "b": b}


def _simulated(
    table: SpectraTable,
    grid: PatchGrid,
    fields: Sequence[str],
    name: str,
    realizations: Sequence[int],
    **acts: bool | float,
) -> dict[str, np.ndarray]:
    effects: dict[str, bool | float] = {"lensing": False, "reionization": False}
    effects |= {"null_fraction": 0, "taper_deg": 0} | acts
    return simulate(
        [table],
        Grid(size_deg=grid.size_deg, pixels=grid.pixels, oversample=2),
        Effects.model_validate(effects),
        seed=SEED,
        dataset=name,
        realizations=realizations,
        fields=fields,
    )


def _answers(
    made: Quadratic, table: SpectraTable, grid: PatchGrid, realizations: Sequence[int]
) -> np.ndarray:
    """Band powers (realizations, pairs, 2, bands): estimate with truth, and truth with itself.

    The estimate from the same sky without the modulation, which has nothing to do with it, is taken
    off: most of the noise goes with it.
    """
    field = made.field
    fields = [*(f"{s}_{end}" for s in "tqu" for end in ("obs", "prim")), field]
    maps = _simulated(table, grid, fields, field, realizations, **_ACTS[field])
    truth = forward(maps[field].astype(float), grid)
    before = _found(made, _modes(maps, "prim", grid))
    after = _found(made, _modes(maps, "obs", grid))
    auto = bin_power(power(truth, truth, grid), grid, BANDS)
    rows = []
    for pair, estimate in after.items():
        cross = bin_power(power(estimate - before[pair], truth, grid), grid, BANDS)
        rows.append(np.stack([cross, auto], axis=1))
    return np.stack(rows, axis=1)


def bias(
    made: Quadratic, table: SpectraTable, grid: PatchGrid, patches: int, workers: int = 1
) -> pd.DataFrame:
    """What estimates give of the field: columns pair, low, high, ratio and error; 1 is unbiased."""
    blocks = [range(i, min(i + _BLOCK, patches)) for i in range(0, patches, _BLOCK)]
    found = np.concatenate(spread(partial(_answers, made, table, grid), blocks, workers))
    cross, auto = found[:, :, 0], found[:, :, 1]
    ratio = cross.mean(axis=0) / auto.mean(axis=0)
    error = np.std(cross - ratio * auto, axis=0, ddof=1) / np.sqrt(patches) / auto.mean(axis=0)
    return _table(made, ratio, error)


def _powers(
    made: Quadratic, table: SpectraTable, grid: PatchGrid, realizations: Sequence[int]
) -> np.ndarray:
    """Power of estimates over the predicted, (realizations, pairs, bands)."""
    maps = _simulated(table, grid, [f"{s}_obs" for s in "tqu"], "gaussian", realizations)
    rows = []
    for pair, estimate in _found(made, _modes(maps, "obs", grid)).items():
        noise = made.noise_mv if pair == "all" else made.noise(pair)
        told = np.isfinite(noise)
        ratio = np.ones(estimate.shape)
        np.divide(power(estimate, estimate, grid), noise, out=ratio, where=told)
        rows.append(bin_power(ratio, grid, BANDS))
    return np.stack(rows, axis=1)


def noise(
    made: Quadratic, table: SpectraTable, grid: PatchGrid, patches: int, workers: int = 1
) -> pd.DataFrame:
    """Power of estimates from Gaussian skies of lensed power over N0, as `bias`."""
    cl = table.cl | {name: table.cl[f"lensed_{name}"] for name in _NAMES}
    gaussian = replace(table, cl=cl)
    blocks = [range(i, min(i + _BLOCK, patches)) for i in range(0, patches, _BLOCK)]
    found = np.concatenate(spread(partial(_powers, made, gaussian, grid), blocks, workers))
    return _table(made, found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(patches))


def _table(made: Quadratic, ratio: np.ndarray, error: np.ndarray) -> pd.DataFrame:
    edges, rows = list(pairwise(BANDS.edges)), []
    for pair, values, errors in zip((*made.pairs, "all"), ratio, error, strict=True):
        ends = zip(edges, values, errors, strict=True)
        rows += [(pair, low, high, value, scatter) for (low, high), value, scatter in ends]
    return pd.DataFrame(rows, columns=["pair", "low", "high", "ratio", "error"])


def signal_to_noise(
    made: dict[str, Quadratic], table: SpectraTable, grid: PatchGrid = GRID
) -> pd.DataFrame:
    """C_L / N0 of a mode along x, by L: EB and all pairs of each field."""
    rows: dict[str, np.ndarray] = {"L": grid.ell[0, 1:]}
    alpha = rotation_cl(ROTATION, table.lmax)
    cl = {"kappa": table.cl["kk"], "tau": table.cl["tautau"], "alpha": alpha}
    for name, one in made.items():
        spectrum = np.interp(rows["L"], table.ell, cl[one.field])
        rows[f"{name} eb"] = spectrum / one.noise("eb")[0, 1:]
        rows[f"{name} all"] = spectrum / one.noise_mv[0, 1:]
    return pd.DataFrame(rows)


def choices(table: SpectraTable, grid: PatchGrid = GRID) -> pd.DataFrame:
    """C_L / N0 from EB along x for three choices of the spectra of f.

    Columns f, "kappa L" for four L, and tau, the largest of all L. B is lensed in all.
    """
    total = {name: table.on_modes(f"lensed_{name}", grid) for name in ("ee", "bb")}
    count = int(2100 / grid.ell_fundamental)
    ell = grid.ell_fundamental * np.arange(1, count + 1)
    signals = {
        "unlensed": {"ee": table.on_modes("ee", grid)},
        "lensed E": {"ee": total["ee"]},
        "lensed E and B": total,
    }
    rows = []
    for name, signal in signals.items():
        found = couplings(
            *(grid, signal, total, [("kappa", "eb"), ("tau", "eb")], ["kappa", "tau"]),
            ell=_range(grid),
            at=[(multiple, 0) for multiple in range(1, count + 1)],
        )
        kappa, tau = (
            np.interp(ell, table.ell, table.cl[spectrum]) * found.response[:, i, i]
            for i, spectrum in enumerate(("kk", "tautau"))
        )
        at = {f"kappa {L}": np.interp(L, ell, kappa) for L in (72, 300, 1000, 2000)}
        rows.append({"f": name} | at | {"tau, at most": tau.max()})
    return pd.DataFrame(rows)


def hardening(
    made: dict[str, Quadratic], table: SpectraTable, grid: PatchGrid = GRID
) -> pd.DataFrame:
    """By band, of tau from all pairs: what of lensing is taken for tau, and what it costs not to.

    Columns low, high, taken (power of what lensing fakes over that of tau, before), left (after),
    and cost (noise after over before, the mean of modes).
    """
    kk, tautau = table.on_modes("kk", grid), table.on_modes("tautau", grid)
    plain, hard = made["tau"], made["tau, hardened"]
    fake = [bin_power(one.answer("kappa") ** 2 * kk, grid, BANDS) for one in (plain, hard)]
    told = np.isfinite(hard.noise_mv) & np.isfinite(plain.noise_mv)
    cost = np.divide(hard.noise_mv, plain.noise_mv, out=np.ones(grid.ell.shape), where=told)
    low, high = zip(*pairwise(BANDS.edges), strict=True)
    true, taken = bin_power(tautau, grid, BANDS), {"taken": fake[0], "left": fake[1]}
    shares = {name: one / true for name, one in taken.items()}
    return pd.DataFrame(
        {"low": low, "high": high} | shares | {"cost": bin_power(cost, grid, BANDS)}
    )


def limits(
    table: SpectraTable, grid: PatchGrid = GRID, noises: Sequence[float] = (0.0, 1.0, 5.0)
) -> pd.DataFrame:
    """Correlation of kappa from EB with the truth, from one step and from the best iteration.

    Columns noise (µK-arcmin in T), low, high, once, iterated, and left: lensed B that remains.
    """
    ee, kk = table.on_modes("ee", grid), table.on_modes("kk", grid)
    bb = lensing_bb(ee, kk, grid)
    ell, edges = _range(grid), list(pairwise(BANDS.edges))
    rows = []
    for arcmin in noises:
        white = 2 * np.radians(arcmin / 60) ** 2
        once = Quadratic(
            *(grid, {"ee": ee}, {"ee": ee + white, "bb": bb + white}),
            field="kappa",
            pairs=("eb",),
            ell=ell,
        )
        limit = iterative_noise(grid, ee, kk, noise_ee=white, noise_bb=white, ell=ell)
        known = [
            np.sqrt(bin_power(kk**2 / (kk + n), grid, BANDS) / bin_power(kk, grid, BANDS))
            for n in (once.noise_mv, limit.noise)
        ]
        left = bin_power(limit.bb, grid, BANDS) / bin_power(bb, grid, BANDS)
        rows += [(arcmin, *edges[i], known[0][i], known[1][i], left[i]) for i in range(BANDS.count)]
    return pd.DataFrame(rows, columns=["noise", "low", "high", "once", "iterated", "left"])


_PAGE = """\
# Quadratic estimators against simulations and theory

`make check-estimators` makes this page. Patches are periodic, {size:g}° and {pixels}² pixels,
noiseless and without taper, of the cosmology of arXiv:2101.01214; multipoles {low:g}–{high:g} of
T, E and B are used. `skyweave.estimators.quadratic` makes the estimates; their noise and their
normalization are sums over all pairs of modes, for each L by itself, because on so small a patch
they differ between directions. `tests/test_estimators_quadratic.py` holds them against symlens and,
on 64², against weak modulations.

## Bias

Estimate times truth over truth times truth; 1 is unbiased. Each field acts alone in {patches}
patches: lensing of full strength with lensed spectra in f, B among them, the patchy screen, and a
scale-invariant rotation of {rotation:g} rad². The last rows, from {again} patches, have in f the
unlensed spectra, and those of the lensed sky with its gradient, as CAMB computes them
(arXiv:1101.2234), which are what lensing of full strength answers with: the difference to them is
what lensed spectra leave of a bias.

{bias}

## Noise

Power of the estimates from {gaussian} Gaussian skies of lensed power over the predicted N0:

{noise}

## Signal over noise of a mode

C_L / N0 of modes along x. "Hardened" is tau without an answer to lensing.

{signal}

What EB tells of kappa and tau depends a little on the spectra that f is made of; at L between the
modes it is interpolated:

{choices}

## Hardening tau against lensing

Of all pairs: power of what tau's estimator takes of lensing for tau over the power of tau, before
and after, and the noise after over before.

{hardening}

## What iterating could reach

Correlation of kappa from EB with the truth: one quadratic estimate, and the limit where the lensed
B that the estimate itself leaves (last column, its share) agrees with its noise
(`skyweave.estimators.iterative_noise`). Noise is that of T.

{limits}
"""


def _numbers(table: pd.DataFrame) -> str:
    """A table with its numbers rounded, and the ends of bands as one column."""
    shown = table.map(lambda value: value if isinstance(value, str) else f"{value:.3g}")
    if "low" in table:
        ends = zip(table.low, table.high, strict=True)
        shown["low"] = [f"{low:g}–{high:g}" for low, high in ends]
        shown = shown.drop(columns="high").rename(columns={"low": "L"})
    return markdown(shown)


def _by_band(tables: dict[str, pd.DataFrame]) -> str:
    """A row for each estimator and pair, a column for each band."""
    rows = [
        {"field": name, "pair": pair}
        | {
            f"{row.low:g}–{row.high:g}": f"{row.ratio:.3f} ± {row.error:.3f}"
            for row in part.itertuples()
        }
        for name, table in tables.items()
        for pair, part in table.groupby("pair", sort=False)
    ]
    return markdown(pd.DataFrame(rows))


def _signal(table: pd.DataFrame) -> str:
    shown = table[table.L.round().isin((72, 288, 1008, 2016))].round({"L": 0}).astype({"L": int})
    return markdown(shown.map(lambda value: f"{value:.3g}" if value < 50 else f"{value:.0f}"))


def page(
    table: SpectraTable,
    gradient: dict[str, np.ndarray],
    grid: PatchGrid = GRID,
    counts: dict[str, int] = COUNTS,
    workers: int = 1,
) -> str:
    """Markdown of all checks; `gradient` are C_ell of the lensed sky with its gradient."""
    made = estimators(table, grid)
    biases = {
        name: bias(one, table, grid, counts["patches"], workers) for name, one in made.items()
    }
    noises = {
        name: noise(one, table, grid, counts["gaussian"], workers) for name, one in made.items()
    }
    others = {
        "kappa, unlensed f": {name: table.on_modes(name, grid) for name in _NAMES},
        "kappa, gradient f": {
            name: on_modes(np.arange(cl.size), cl, grid) for name, cl in gradient.items()
        },
    }
    for name, signal in others.items():
        one = made["kappa"].with_signal(signal)
        biases[name] = bias(one, table, grid, counts["again"], workers)
    return _PAGE.format(
        size=grid.size_deg,
        pixels=grid.pixels,
        low=ELL[0],
        high=_range(grid)[1],
        rotation=ROTATION,
        bias=_by_band(biases),
        noise=_by_band(noises),
        signal=_signal(signal_to_noise(made, table, grid)),
        choices=_numbers(choices(table, grid)),
        hardening=_numbers(hardening(made, table, grid)),
        limits=_numbers(limits(table, grid)),
        **counts,
    )


def _gradient(lmax: int) -> dict[str, np.ndarray]:
    """C_ell (lmax+1,) of the lensed sky with its gradient, µK², by CAMB."""
    import camb

    results = camb.get_results(camb_parameters(_COSMOLOGY, lmax))
    cl = results.get_lensed_gradient_cls(lmax, CMB_unit="muK", raw_cl=True)
    return {name: cl[:, column] for column, name in enumerate(("tt", "ee", "bb", "", "te")) if name}


def main(path: str) -> None:
    """Run every check, print the page and write it to `path`."""
    table = compute(Spectra(cosmology=_COSMOLOGY, lmax=_LMAX))
    text = page(table, _gradient(_LMAX), workers=os.cpu_count() or 1)
    write_text(path, text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1])
