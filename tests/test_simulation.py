"""Simulated patches: their statistics against the spectra, effect by effect, and their bytes."""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from skyweave.config import CMB_FIELDS, Effects, Grid, Spectra
from skyweave.errors import UserError
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb, rotate_to_eb
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.optical_depth import tau_cl
from skyweave.simulation.patch import UNITS, is_null, simulate
from skyweave.simulation.spectra import SpectraTable, compute

SMALL = Grid(size_deg=5.0, pixels=64)
PLAIN = Effects(lensing=False, reionization=False, taper_deg=0)
BARE = Effects(null_fraction=0, taper_deg=0)
EVERY = tuple(CMB_FIELDS)


def toy_table(tensor: float = 0.0, lmax: int = 3500) -> SpectraTable:
    """Spectra of about the CMB's size and slope, with acoustic waves and a TE of either sign."""
    ell = np.arange(lmax + 1)
    safe = np.maximum(ell, 2)
    to_cl = 2 * np.pi / (safe * (safe + 1.0)) * (ell >= 2)
    damping = np.exp(-((ell / 1400) ** 1.3))
    tt = 5000 * damping * (0.5 + 0.4 * np.cos(np.pi * ell / 300) ** 2)
    ee = 50 * damping * (0.3 + 0.6 * np.sin(np.pi * ell / 300) ** 2)
    cl = {
        "tt": tt * to_cl,
        "ee": ee * to_cl,
        "bb": tensor * damping * to_cl,
        "te": 0.6 * np.sqrt(tt * ee) * np.sin(np.pi * ell / 150) * to_cl,
        "kk": 2e-7 / (1 + (safe / 150) ** 1.5),
        "tautau": tau_cl(lmax),
    }
    return SpectraTable(cl)


TABLE = toy_table()


def run(effects, fields, realizations=range(4), *, grid=SMALL, table=TABLE, seed=7, **options):
    return simulate(
        table,
        grid,
        effects,
        seed=seed,
        dataset="unit",
        realizations=realizations,
        fields=fields,
        **options,
    )


def patch_grid(settings: Grid = SMALL) -> PatchGrid:
    return PatchGrid(settings.size_deg, settings.pixels)


def digest(maps: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: hashlib.sha256(stack.tobytes()).hexdigest() for name, stack in maps.items()}


@pytest.fixture(scope="module")
def many() -> dict[str, np.ndarray]:
    """Modes of 400 primordial patches with tensors, kappa and tau, keyed by the field's letter."""
    grid = patch_grid()
    fields = ("t_prim", "q_prim", "u_prim", "kappa", "tau")
    maps = run(BARE, fields, range(400), table=toy_table(tensor=3.0))
    modes = {name: forward(stack.astype(float), grid) for name, stack in maps.items()}
    e, b = rotate_to_eb(modes["q_prim"], modes["u_prim"], grid)
    return {"t": modes["t_prim"], "e": e, "b": b, "k": modes["kappa"], "tau": modes["tau"]}


ZERO = "zero"
PAIRS = {
    ("t", "t"): "tt",
    ("e", "e"): "ee",
    ("b", "b"): "bb",
    ("k", "k"): "kk",
    ("tau", "tau"): "tautau",
    ("t", "e"): "te",
    ("t", "b"): ZERO,
    ("e", "b"): ZERO,
    ("e", "k"): ZERO,
    ("k", "tau"): ZERO,
}


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_spectra_come_back_from_the_maps(many, pair):
    """Chi² of the mean band powers, whose variance a Gaussian field gives: sum over the modes of
    (C_aa C_bb + C_ab²) / modes²."""
    grid, bins, table = patch_grid(), Bins.linear(50, 2300, 90), toy_table(tensor=3.0)
    names = {"t": "tt", "e": "ee", "b": "bb", "k": "kk", "tau": "tautau"}
    auto_a, auto_b = (table.on_modes(names[letter], grid) for letter in pair)
    cross = 0 * auto_a if PAIRS[pair] == ZERO else table.on_modes(PAIRS[pair], grid)
    measured = bin_power(power(many[pair[0]], many[pair[1]], grid), grid, bins).mean(axis=0)
    variance = bin_power(auto_a * auto_b + cross**2, grid, bins) / bins.modes(grid) / 400
    chi2 = np.sum((measured - bin_power(cross, grid, bins)) ** 2 / variance)
    assert 0.001 < stats.chi2.sf(chi2, bins.count) < 0.999
    # All modes together: 1.6e6 of them fix an auto spectrum to 0.2 %.
    if pair[0] == pair[1]:
        inside = grid.mode_weight * (auto_a > 0)
        whiten = np.divide(1, auto_a, out=np.zeros_like(auto_a), where=auto_a > 0)
        ratio = np.sum(inside * whiten * power(many[pair[0]], many[pair[0]], grid).mean(axis=0))
        assert_allclose(ratio / inside.sum(), 1, atol=0.004)


def test_power_scatters_as_a_gaussian_field(many):
    """Of |F|²/C over realizations, the variance is 1 at complex modes and 2 at real ones."""
    grid = patch_grid()
    spectrum = TABLE.on_modes("ee", grid)
    ratio = power(many["e"], many["e"], grid) / np.where(spectrum > 0, spectrum, 1)
    scatter = ratio.var(axis=0, ddof=1)
    assert_allclose(scatter[1:32, 1:32].mean(), 1, atol=0.03)
    # Rows 0 and 32 of columns 0 and 32 are their own conjugates; (0, 0) has no power.
    assert_allclose(scatter[[0, 32, 32], [32, 0, 32]].mean(), 2, atol=0.4)


@pytest.mark.parametrize("name", ["kappa", "tau"])
def test_rms_is_the_sum_over_modes(name):
    """And of tau on the paper's grid 0.004542 (arXiv:2101.01214's table)."""
    table, flat = toy_table(lmax=8000), patch_grid(Grid())
    stack = run(BARE, (name,), range(300), grid=Grid(), table=table)[name]
    spectrum = table.on_modes({"kappa": "kk", "tau": "tautau"}[name], flat)
    total = np.sum(spectrum * flat.mode_weight) / flat.area_sr
    error = np.sqrt(np.sum(2 * spectrum**2 * flat.mode_weight)) / flat.area_sr / np.sqrt(300)
    assert abs(np.mean(stack.astype(float) ** 2) - total) < 3 * error
    assert error < 0.02 * total
    if name == "tau":
        assert_allclose(np.sqrt(total), 0.004542, atol=1e-6)


def test_fields_shapes_types_and_units():
    maps = run(Effects(), EVERY, [3, 8, 5])
    assert tuple(maps) == EVERY
    assert {stack.shape for stack in maps.values()} == {(3, 64, 64)}
    assert {stack.dtype for stack in maps.values()} == {np.dtype("f4")}
    assert set(UNITS) == set(EVERY)
    assert {name for name, unit in UNITS.items() if unit == ""} == {"kappa", "tau"}
    assert all(np.isfinite(stack).all() for stack in maps.values())


NOISY = Effects(beam_arcmin=8.0, noise_uk_arcmin=5.0, null_fraction=0.3)


def shard(realizations) -> dict[str, np.ndarray]:
    return run(NOISY, EVERY, realizations)


def test_bytes_do_not_depend_on_shards_order_or_processes():
    whole = shard(range(6))
    reverse = shard(range(5, -1, -1))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(shard, ([0], [1, 2, 3], [4, 5])))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in EVERY}
    flipped = {name: stack[::-1].copy() for name, stack in reverse.items()}
    assert digest(whole) == digest(joined) == digest(flipped)


@pytest.mark.parametrize("field", EVERY)
def test_bytes_do_not_depend_on_the_fields_asked_for(field):
    assert digest(run(NOISY, (field,))) == {field: digest(run(NOISY, EVERY))[field]}


def test_every_realization_seed_and_dataset_is_another_sky():
    def one(seed, dataset, realization):
        fields = ("t_prim", "e_prim")
        maps = simulate(
            TABLE, SMALL, PLAIN, seed=seed, dataset=dataset, realizations=[realization],
            fields=fields,
        )  # fmt: skip
        return np.concatenate([maps[name].ravel() / maps[name].std() for name in fields])

    skies = np.array([one(1, "a", 0), one(2, "a", 0), one(1, "b", 0), one(1, "a", 1)])
    # The largest modes dominate: a few dozen independent numbers, 0.2 of scatter.
    assert np.abs(np.corrcoef(skies) - np.eye(4)).max() < 0.6


def test_components_are_drawn_apart():
    """One level of noise in T, Q and U would correlate by 1 if a draw were used twice."""
    flat = toy_table()
    zero = SpectraTable({name: 0 * cl for name, cl in flat.cl.items()})
    effects = PLAIN.model_copy(update={"noise_uk_arcmin": 1.0})
    maps = run(effects, ("t_obs", "q_obs", "u_obs"), range(20), table=zero)
    correlation = np.corrcoef([stack.ravel() for stack in maps.values()])
    assert np.abs(correlation - np.eye(3)).max() < 4 / np.sqrt(20 * 64**2)


def test_noise_has_the_level_of_the_settings():
    """C_ell = (w in radians)² in T, twice that in Q and U, at every multipole."""
    zero = SpectraTable({name: 0 * cl for name, cl in TABLE.cl.items()})
    effects = PLAIN.model_copy(update={"noise_uk_arcmin": 6.0})
    maps = run(effects, ("t_obs", "q_obs", "u_obs"), range(100), table=zero)
    grid, bins = patch_grid(), Bins((50, 1000, 1700, 2300))
    for name, factor in {"t_obs": 1, "q_obs": 2, "u_obs": 2}.items():
        modes = forward(maps[name], grid)
        measured = bin_power(power(modes, modes, grid), grid, bins).mean(axis=0)
        expected = factor * np.deg2rad(6.0 / 60) ** 2
        error = np.sqrt(2 / bins.modes(grid) / 100)
        assert np.all(np.abs(measured / expected - 1) < 4 * error)
        assert error.max() < 0.01


def test_beam_multiplies_the_modes():
    grid = patch_grid()
    smooth = run(PLAIN.model_copy(update={"beam_arcmin": 12.0}), ("q_obs",))["q_obs"]
    expected = forward(run(PLAIN, ("q_obs",))["q_obs"], grid) * gaussian_beam(grid.ell, 12.0)
    assert_allclose(forward(smooth, grid), expected, atol=1e-6 * np.abs(expected).max())


def test_screen_is_exp_minus_tau_on_t_q_and_u():
    effects = BARE.model_copy(update={"lensing": False})
    maps = run(effects, ("t_prim", "q_prim", "u_prim", "t_obs", "q_obs", "u_obs", "tau"))
    for letter in "tqu":
        expected = maps[f"{letter}_prim"] * np.exp(-maps["tau"])
        assert_allclose(maps[f"{letter}_obs"], expected, rtol=1e-5)
    assert maps["tau"].std() > 0.003


def test_nothing_happens_without_effects():
    maps = run(PLAIN, ("t_prim", "t_obs", "q_prim", "q_obs", "u_prim", "u_obs", "b_obs", "e_obs"))
    for letter in "tqu":
        assert np.array_equal(maps[f"{letter}_prim"], maps[f"{letter}_obs"])
    assert maps["b_obs"].std() < 1e-6 * maps["e_obs"].std()


def test_screen_comes_before_lensing():
    """With both, the observed map is the lensed screened sky, not the screened lensed one."""
    from skyweave.simulation.effects import lens, screen

    maps = run(BARE, ("q_prim", "q_obs", "kappa", "tau"), [2])
    grid = patch_grid()
    q, kappa, tau = (maps[name][0].astype(float) for name in ("q_prim", "kappa", "tau"))
    modes = forward(kappa, grid)
    assert_allclose(maps["q_obs"][0], lens(screen(q, tau), modes, grid), atol=1e-4)
    wrong = screen(lens(q, modes, grid), tau)
    assert np.abs(maps["q_obs"][0] - wrong).max() > 1e-3


def test_every_map_is_tapered():
    taper = cosine_taper(patch_grid(), 1.5)
    effects = BARE.model_copy(update={"noise_uk_arcmin": 3.0})
    bare = run(effects, EVERY)
    tapered = run(effects.model_copy(update={"taper_deg": 1.5}), EVERY)
    for name in set(EVERY) - {"e_prim", "e_obs", "b_obs"}:
        assert_allclose(tapered[name], bare[name] * taper, rtol=1e-6, atol=1e-30, err_msg=name)
    eb = qu_to_eb(tapered["q_obs"], tapered["u_obs"], patch_grid())
    assert_allclose([tapered["e_obs"], tapered["b_obs"]], eb, atol=1e-4)


@pytest.mark.parametrize("taper_deg", [0.0, 1.5])
def test_true_e_is_that_of_the_tapered_primordial_maps(taper_deg):
    effects = NOISY.model_copy(update={"taper_deg": taper_deg})
    maps = run(effects, ("q_prim", "u_prim", "e_prim"))
    e, b = qu_to_eb(maps["q_prim"], maps["u_prim"], patch_grid())
    assert_allclose(maps["e_prim"], e, atol=1e-4)
    if taper_deg:
        assert b.std() > 0.1 * e.std()  # what the taper moves from E to B
    else:
        assert b.std() < 1e-6 * e.std()


def test_share_of_null_realizations():
    effects = Effects(null_fraction=0.2)
    drawn = [is_null(effects, seed=3, dataset="x", realization=i) for i in range(5000)]
    assert stats.binomtest(sum(drawn), 5000, 0.2).pvalue > 0.001
    effects = Effects(null_fraction=0.0)
    assert not any(is_null(effects, seed=3, dataset="x", realization=i) for i in range(500))


def test_null_realizations_have_no_structure_and_the_others_do_not_change():
    fields = ("kappa", "tau", "q_prim", "q_obs")
    effects = BARE.model_copy(update={"null_fraction": 0.3})
    some, none = run(effects, fields, range(20)), run(BARE, fields, range(20))
    null = np.array([is_null(effects, seed=7, dataset="unit", realization=i) for i in range(20)])
    assert 0 < null.sum() < 20
    for name in ("kappa", "tau"):
        assert not some[name][null].any()
        assert np.array_equal(some[name][~null], none[name][~null])
        assert none[name].any(axis=(1, 2)).all()
    assert np.array_equal(some["q_obs"][null], some["q_prim"][null])
    assert np.array_equal(some["q_prim"], none["q_prim"])


def test_unknown_field_is_one_line():
    with pytest.raises(UserError, match=r"^fields: expected one of t_prim, .*found 'e_lensed'$"):
        run(PLAIN, ("e_lensed",))


@pytest.mark.parametrize(("field", "effect"), [("kappa", "lensing"), ("tau", "reionization")])
def test_field_without_its_effect_is_one_line(field, effect):
    with pytest.raises(UserError, match=rf"`effects\.{effect}: true` for '{field}', found false"):
        run(PLAIN, (field,))


def test_standard_deviations_of_the_published_set():
    """To 0.5 % those that the published noiseless network was trained with (arXiv:2101.01214's
    repository, map_stds.npz): tapered, 20 % without tau and kappa.

    Of kappa and tau, whose few large modes leave 0.4 % of scatter in 4000 patches, the sum over
    the modes is compared.
    """
    table = compute(Spectra(cosmology="resunet_cmb_2013"))
    grid = PatchGrid(5.0, 128)
    share = 0.8 * np.mean(cosine_taper(grid, 1.5) ** 2) / grid.area_sr
    for name, published in {"kk": 0.044126775, "tautau": 0.002519445}.items():
        rms = np.sqrt(share * np.sum(grid.mode_weight * table.on_modes(name, grid)))
        assert_allclose(rms, published, rtol=0.005)
    published = {"q_obs": 2.7969549, "u_obs": 2.789544, "e_prim": 3.9061716}
    total = dict.fromkeys(published, 0.0)
    for start in range(0, 2000, 100):
        maps = run(
            Effects(),
            tuple(published),
            range(start, start + 100),
            grid=Grid(),
            table=table,
        )
        for name, stack in maps.items():
            total[name] += np.mean(stack.astype(float) ** 2) / 20
    assert_allclose(np.sqrt(list(total.values())), list(published.values()), rtol=0.005)
