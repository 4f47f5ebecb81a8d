"""Simulated patches: their statistics against the spectra, effect by effect, and their bytes."""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from skyweave.config import Channel, Effects, Grid, Range, Spectra, known_fields
from skyweave.errors import UserError
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb, rotate_to_eb
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.cosmologies import at_point, points
from skyweave.simulation.optical_depth import tau_cl
from skyweave.simulation.patch import Simulator, simulate, unit
from skyweave.simulation.spectra import SpectraTable, compute

SMALL = Grid(size_deg=5.0, pixels=64)
PLAIN = Effects(lensing=False, reionization=False, taper_deg=0)
BARE = Effects(null_fraction=0, taper_deg=0)
TURNED = BARE.model_copy(update={"rotation_deg": 0.3, "rotation_amplitude": 1e-5})
EVERY = tuple(known_fields(["obs"]))


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


def run(effects, fields, realizations=range(4), *, grid=SMALL, table=TABLE, seed=7, **channel):
    return simulate(
        [table],
        grid,
        effects,
        {"obs": Channel(**channel)},
        seed=seed,
        dataset="unit",
        realizations=realizations,
        fields=fields,
    )


def simulator(effects, *, grid=SMALL, channels=None, fields=("q_obs",), tables=(TABLE,), seed=7):
    channels = channels or {"obs": Channel()}
    return Simulator(tables, grid, effects, channels, seed=seed, dataset="unit", fields=fields)


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
    maps = run(TURNED, EVERY, [3, 8, 5])
    assert tuple(maps) == EVERY
    assert {stack.shape for stack in maps.values()} == {(3, 64, 64)}
    assert {stack.dtype for stack in maps.values()} == {np.dtype("f4")}
    assert {name: unit(name) for name in EVERY if unit(name) != "uK_CMB"} == {
        "kappa": "",
        "tau": "",
        "alpha": "rad",
    }
    assert all(np.isfinite(stack).all() for stack in maps.values())


NOISY = TURNED.model_copy(update={"null_fraction": 0.3, "taper_deg": 1.5})
NOISE = {"beam_arcmin": 12.0, "noise_uk_arcmin": 5.0, "knee_ell_pol": 300.0}


def shard(realizations) -> dict[str, np.ndarray]:
    return run(NOISY, EVERY, realizations, **NOISE)


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
    assert digest(run(NOISY, (field,), **NOISE)) == {field: digest(shard(range(4)))[field]}


def test_every_realization_seed_and_dataset_is_another_sky():
    def one(seed, dataset, realization):
        fields = ("t_prim", "e_prim")
        maps = simulate(
            [TABLE], SMALL, PLAIN, seed=seed, dataset=dataset, realizations=[realization],
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
    maps = run(PLAIN, ("t_obs", "q_obs", "u_obs"), range(20), table=zero, noise_uk_arcmin=1.0)
    correlation = np.corrcoef([stack.ravel() for stack in maps.values()])
    assert np.abs(correlation - np.eye(3)).max() < 4 / np.sqrt(20 * 64**2)


def test_noise_has_the_level_of_the_settings():
    """C_ell = (w in radians)² in T, twice that in Q and U, at every multipole."""
    zero = SpectraTable({name: 0 * cl for name, cl in TABLE.cl.items()})
    maps = run(PLAIN, ("t_obs", "q_obs", "u_obs"), range(100), table=zero, noise_uk_arcmin=6.0)
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
    smooth = run(PLAIN, ("q_obs",), beam_arcmin=12.0)["q_obs"]
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
    from skyweave.simulation.effects import lens

    maps = run(BARE, ("q_prim", "q_obs", "kappa", "tau"), [2])
    grid = patch_grid()
    q, kappa, tau = (maps[name][0].astype(float) for name in ("q_prim", "kappa", "tau"))
    modes = forward(kappa, grid)
    assert_allclose(maps["q_obs"][0], lens((q * np.exp(-tau))[None], modes, grid)[0], atol=1e-4)
    wrong = lens(q[None], modes, grid)[0] * np.exp(-tau)
    assert np.abs(maps["q_obs"][0] - wrong).max() > 1e-3


def test_every_map_is_tapered():
    taper = cosine_taper(patch_grid(), 1.5)
    bare = run(TURNED, EVERY, noise_uk_arcmin=3.0)
    tapered = run(TURNED.model_copy(update={"taper_deg": 1.5}), EVERY, noise_uk_arcmin=3.0)
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


PURE = ("e_pure", "b_pure", "e_sky", "b_sky")


def test_pure_e_and_b_are_drawn_from_their_spectra():
    table = toy_table(tensor=3.0)
    maps = run(PLAIN, PURE, range(300), table=table)
    grid, bins = patch_grid(), Bins.linear(100, 2000, 190)
    for view in ("pure", "sky"):
        for s in "eb":
            modes = forward(maps[f"{s}_{view}"].astype(float), grid)
            found = bin_power(power(modes, modes, grid), grid, bins)
            expected = bin_power(np.interp(grid.ell, np.arange(3501), table.cl[s + s]), grid, bins)
            error = expected * np.sqrt(2 / bins.modes(grid) / 300)
            assert np.all(np.abs(found.mean(axis=0) - expected) < 5 * error)


def test_e_does_not_leak_into_pure_b_through_the_taper():
    effects = PLAIN.model_copy(update={"taper_deg": 1.5})
    maps = run(effects, ("b_sky", "b_pure", "b_obs", "e_sky"))
    rms = {name: float(np.std(stack)) for name, stack in maps.items()}
    assert rms["b_sky"] == rms["b_pure"] == 0
    assert rms["b_obs"] > 1e-2 * rms["e_sky"]


def test_e_and_b_of_the_sky_are_what_is_observed_without_taper_and_noise():
    maps = run(BARE, ("e_sky", "b_sky", "e_obs", "b_obs", "b_pure"), table=toy_table(tensor=3.0))
    for s in "eb":
        assert_allclose(maps[f"{s}_sky"], maps[f"{s}_obs"], atol=1e-5 * maps["e_obs"].std())
    assert np.std(maps["b_sky"] - maps["b_pure"]) > 0.01 * np.std(maps["b_pure"])


def test_share_of_null_realizations():
    some = simulator(Effects(null_fraction=0.2))
    assert stats.binomtest(sum(map(some.is_null, range(5000))), 5000, 0.2).pvalue > 0.001
    none = simulator(Effects(null_fraction=0.0))
    assert not any(map(none.is_null, range(500)))


def test_null_realizations_have_no_structure_and_the_others_do_not_change():
    fields = ("kappa", "tau", "alpha", "q_prim", "q_obs")
    effects = TURNED.model_copy(update={"null_fraction": 0.3})
    some, none = run(effects, fields, range(20)), run(TURNED, fields, range(20))
    null = np.array([simulator(effects).is_null(number) for number in range(20)])
    assert 0 < null.sum() < 20
    for name in ("kappa", "tau", "alpha"):
        assert not some[name][null].any()
        assert np.array_equal(some[name][~null], none[name][~null])
        assert none[name].any(axis=(1, 2)).all()
    assert np.array_equal(some["q_obs"][null], some["q_prim"][null])
    assert np.array_equal(some["q_prim"], none["q_prim"])


def test_unknown_field_is_one_line():
    with pytest.raises(UserError, match=r"^fields: expected some of t_prim, .*found 'e_lensed'$"):
        run(PLAIN, ("e_lensed",))


@pytest.mark.parametrize(("field", "effect"), [("kappa", "lensing"), ("tau", "reionization")])
def test_field_without_its_effect_is_one_line(field, effect):
    with pytest.raises(UserError, match=rf"`effects\.{effect}: true` for '{field}', found false"):
        run(PLAIN, (field,))


def test_alpha_is_scale_invariant_about_the_constant():
    """ell(ell+1)C_ell/2pi is the amplitude at every multipole, and the mean is the constant."""
    grid, bins = patch_grid(), Bins.linear(100, 2300, 200)
    alpha = run(TURNED, ("alpha",), range(200))["alpha"].astype(float)
    assert_allclose(alpha.mean(axis=(1, 2)), np.radians(0.3), rtol=1e-4)
    modes = forward(alpha, grid)
    measured = bin_power(power(modes, modes, grid), grid, bins).mean(axis=0)
    ell = np.maximum(grid.ell, 1)
    expected = bin_power(2 * np.pi * 1e-5 / (ell * (ell + 1)), grid, bins)
    chi2 = np.sum((measured / expected - 1) ** 2 * bins.modes(grid) * 200 / 2)
    assert 0.001 < stats.chi2.sf(chi2, bins.count) < 0.999


def test_rotation_turns_q_and_u_before_anything_else():
    """Q + iU times e^{2i alpha}, mode by mode E + iB times e^{2i alpha} for a constant angle."""
    effects = PLAIN.model_copy(update={"rotation_deg": 20.0, "null_fraction": 0})
    names = ("t_prim", "t_obs", "q_prim", "u_prim", "q_obs", "u_obs", "e_prim", "e_obs", "b_obs")
    maps = run(effects, names, table=toy_table(tensor=3.0))
    twice = np.radians(40.0)
    before, after = (maps[f"q_{v}"] + 1j * maps[f"u_{v}"] for v in ("prim", "obs"))
    assert_allclose(after, before * np.exp(1j * twice), atol=1e-4)
    assert np.array_equal(maps["t_obs"], maps["t_prim"])
    turned = TURNED.model_copy(update={"lensing": False})
    maps = run(turned, ("q_prim", "u_prim", "q_obs", "u_obs", "alpha", "tau"))
    before, after = (maps[f"q_{v}"] + 1j * maps[f"u_{v}"] for v in ("prim", "obs"))
    expected = before * np.exp(2j * maps["alpha"] - maps["tau"])
    assert_allclose(after, expected, atol=1e-4)
    assert np.abs(after - before * np.exp(-maps["tau"])).max() > 0.01


def test_eb_of_a_constant_angle():
    """EB = ½ sin(4 alpha)(EE - BB), EE' = EE cos² + BB sin²: of the same patches, to rounding."""
    grid, bins, angle = patch_grid(), Bins.linear(50, 2300, 90), np.radians(5.0)
    effects = PLAIN.model_copy(update={"rotation_deg": 5.0, "null_fraction": 0})
    table = toy_table(tensor=3.0)
    modes = {}
    for name, chosen in {"before": PLAIN, "after": effects}.items():
        maps = run(chosen, ("q_obs", "u_obs"), range(50), table=table)
        modes[name] = rotate_to_eb(*(forward(m.astype(float), grid) for m in maps.values()), grid)
    (e, b), (e_after, b_after) = modes["before"], modes["after"]
    ee, bb, eb = (bin_power(power(*pair, grid), grid, bins) for pair in ((e, e), (b, b), (e, b)))
    measured = bin_power(power(e_after, b_after, grid), grid, bins)
    expected = np.sin(4 * angle) / 2 * (ee - bb) + np.cos(4 * angle) * eb
    assert_allclose(measured, expected, atol=1e-5 * ee.max())
    # Of the mean over patches EB of the primordial sky is zero but for its scatter.
    theory = np.sin(4 * angle) / 2 * (table.cl["ee"] - table.cl["bb"])
    theory = bin_power(np.interp(grid.ell, table.ell, theory), grid, bins)
    error = measured.std(axis=0) / np.sqrt(50)
    assert stats.chi2.sf(np.sum(((measured.mean(axis=0) - theory) / error) ** 2), 25) > 0.001


CUT = Grid(size_deg=5.0, pixels=64, margin_deg=5.0)


def test_a_cut_patch_does_not_wrap_around():
    """Of kappa, opposite edges of a periodic patch are neighbours; of a cut one 5° apart. And a
    periodic patch has no mean, nor waves below its fundamental multipole, 72."""
    periodic, cut = (run(BARE, ("kappa",), range(300), grid=g)["kappa"] for g in (SMALL, CUT))

    def edges(maps):
        return np.corrcoef(maps[:, :, 0].ravel(), maps[:, :, -1].ravel())[0, 1]

    def neighbours(maps):
        return np.corrcoef(maps[:, :, 0].ravel(), maps[:, :, 1].ravel())[0, 1]

    assert edges(periodic) > 0.9 * neighbours(periodic) > 0.3
    assert abs(edges(cut)) < 0.1
    assert np.abs(periodic.mean(axis=(1, 2))).max() < 1e-7
    # Var of the mean over a square of side L: Σ C_ell sinc²(l_x L/2) sinc²(l_y L/2) / area.
    area = PatchGrid(15.0, 192)
    half = np.radians(5.0) / 2 / np.pi
    window = np.sinc(area.ell_x * half) ** 2 * np.sinc(area.ell_y * half) ** 2
    spectrum = TABLE.on_modes("kk", area) * area.mode_weight
    expected = np.sum(spectrum * window) / area.area_sr
    assert_allclose(cut.mean(axis=(1, 2)).var(), expected, rtol=4 * np.sqrt(2 / 300))


def test_power_of_cut_and_periodic_patches_differs_at_low_ell_only():
    """Of tapered T, where the spectrum is smooth: above ell 400 the same, below 150 more."""
    grid, bins = patch_grid(), Bins((1, 150, 400, 900, 1500, 2200))
    flat = toy_table()
    smooth = SpectraTable(flat.cl | {"tt": 1e3 / np.maximum(flat.ell, 2.0) ** 3})
    effects = PLAIN.model_copy(update={"taper_deg": 2.5})
    bands = []
    for settings in (SMALL, CUT):
        maps = run(effects, ("t_prim",), range(1500), grid=settings, table=smooth)["t_prim"]
        modes = forward(maps.astype(float), grid)
        bands.append(bin_power(power(modes, modes, grid), grid, bins))
    periodic, cut = bands
    error = np.hypot(*(b.std(axis=0) / np.sqrt(1500) / b.mean(axis=0) for b in bands))
    difference = cut.mean(axis=0) / periodic.mean(axis=0) - 1
    assert np.all(np.abs(difference[2:]) < 4 * error[2:])
    assert error[2:].max() < 0.007
    assert difference[0] > 0.3 > 3 * error[0]


def test_cut_patches_have_their_variance():
    """The sum over the modes of the area, whatever is cut out of it, and 16 pixels make a margin
    of 1.2 degrees, rounded up to 4."""
    assert Grid(pixels=64, margin_deg=1.2).margin == 16
    assert Grid(pixels=64, margin_deg=1.25).margin == 16
    tau = run(BARE, ("tau",), range(300), grid=CUT)["tau"].astype(float)
    area = PatchGrid(15.0, 192)
    expected = np.sum(TABLE.on_modes("tautau", area) * area.mode_weight) / area.area_sr
    variances = np.mean(tau**2, axis=(1, 2))
    assert abs(variances.mean() - expected) < 4 * variances.std() / np.sqrt(300)


def test_channels_see_one_sky_through_their_own_beams_and_noise():
    channels = {
        "f100": Channel(beam_arcmin=15.0),
        "f143": Channel(beam_arcmin=10.0, noise_uk_arcmin=5.0),
        "bare": Channel(),
    }
    fields = tuple(f"q_{name}" for name in channels)
    maps = simulate(
        [TABLE], SMALL, BARE, channels, seed=7, dataset="unit", realizations=[2], fields=fields
    )  # fmt: skip
    grid = patch_grid()
    bare = run(BARE, ("q_obs",), [2])["q_obs"]
    assert np.array_equal(maps["q_bare"], bare)
    modes = forward(bare, grid)
    expected = inverse(modes * gaussian_beam(grid.ell, 15.0), grid)
    assert_allclose(maps["q_f100"], expected, atol=1e-5)
    noise = maps["q_f143"] - inverse(modes * gaussian_beam(grid.ell, 10.0), grid)
    assert_allclose(noise.std(), 5 * np.sqrt(2) / grid.pixel_arcmin, rtol=0.05)


def test_channels_noise_is_their_own():
    channels = {name: Channel(noise_uk_arcmin=1.0) for name in ("a", "b")}
    zero = SpectraTable({name: 0 * cl for name, cl in TABLE.cl.items()})
    maps = simulate(
        [zero], SMALL, PLAIN, channels, seed=7, dataset="unit", realizations=range(20),
        fields=("t_a", "q_a", "t_b", "q_b"),
    )  # fmt: skip
    correlation = np.corrcoef([stack.ravel() for stack in maps.values()])
    assert np.abs(correlation - np.eye(4)).max() < 4 / np.sqrt(20 * 64**2)


def test_noise_with_a_knee_and_hits(tmp_path):
    """The spectrum of the settings in T and in polarization, and each pixel's variance by hits."""
    grid, bins = patch_grid(), Bins((50, 200, 400, 800, 1600, 2300))
    zero = SpectraTable({name: 0 * cl for name, cl in TABLE.cl.items()})
    knees = {"knee_ell": 600.0, "knee_slope": 2.0, "knee_ell_pol": 200.0, "knee_slope_pol": 1.0}
    for settings, taper_deg in ((SMALL, 0.0), (CUT, 2.5)):
        effects = PLAIN.model_copy(update={"taper_deg": taper_deg})
        kept = np.mean(cosine_taper(grid, taper_deg) ** 2)
        maps = run(
            effects, ("t_obs", "u_obs"), range(200), grid=settings, table=zero, noise_uk_arcmin=6.0,
            **knees,
        )  # fmt: skip
        ell = np.maximum(grid.ell, 1)
        white = np.radians(0.1) ** 2
        theory = {
            "t_obs": white * (1 + (600 / ell) ** 2),
            "u_obs": 2 * white * (1 + 200 / ell),
        }
        for name, spectrum in theory.items():
            modes = forward(maps[name].astype(float), grid)
            bands = bin_power(power(modes, modes, grid), grid, bins)
            ratio = bands / bin_power(spectrum, grid, bins) / kept
            error = ratio.std(axis=0) / np.sqrt(200)
            # A taper mixes neighbouring bands, the steep ones most.
            start = 0 if settings is SMALL else 2
            assert np.all(np.abs(ratio.mean(axis=0) - 1)[start:] < 4 * error[start:])
    hits = np.random.default_rng(2).uniform(1, 9, (64, 64))
    np.save(tmp_path / "hits.npy", hits)
    path = str(tmp_path / "hits.npy")
    maps = run(PLAIN, ("t_obs",), range(400), table=zero, noise_uk_arcmin=6.0, hits_path=path)
    scaled = maps["t_obs"].var(axis=0) * hits / hits.mean() / (6 / grid.pixel_arcmin) ** 2
    assert_allclose(scaled.mean(), 1, rtol=4 * np.sqrt(2 / 400 / 64**2))
    assert_allclose(scaled.std(), np.sqrt(2 / 400), rtol=0.05)


def test_beam_from_a_table(tmp_path):
    ell = np.arange(0, 4001, 5)
    rows = [f"{m} {b!r}" for m, b in zip(ell, gaussian_beam(ell, 12.0).tolist(), strict=True)]
    path = tmp_path / "beam.txt"
    path.write_text("\n".join(["ell b_ell", *rows]))
    maps, expected = (
        run(PLAIN, ("q_obs",), **beam)["q_obs"]
        for beam in ({"beam_path": str(path)}, {"beam_arcmin": 12.0})
    )
    assert_allclose(maps, expected, atol=1e-4)


CURVED = Grid(size_deg=5.0, pixels=16, sky="curved", patches_per_sky=4)


def test_curved_patches_are_numbered_by_sky_and_place():
    """Patch 5 is place 1 of sky 1; it is the same whatever is asked for beside it."""
    fields = ("t_prim", "q_obs", "kappa", "tau", "alpha")
    effects = NOISY.model_copy(update={"null_fraction": 0.4})
    curved = simulator(effects, grid=CURVED, fields=fields)
    whole = {name: np.stack([patch[name] for patch in curved.realize(range(8))]) for name in fields}
    alone = next(iter(curved.realize([5])))
    for name in fields:
        assert np.array_equal(alone[name], whole[name][5])
    null = np.array([curved.is_null(number) for number in range(8)])
    assert 0 < null.sum() < 8
    assert np.array_equal(whole["kappa"].any(axis=(1, 2)), ~null)
    lon, lat = np.array([curved.place(number) for number in range(8)]).T
    assert np.array_equal(lon[:4], lon[4:])
    assert np.unique(lat[:4]).size == 4
    # Skies differ.
    scale = whole["t_prim"].std()
    assert np.abs(whole["t_prim"][:4] - whole["t_prim"][4:]).std() > 0.5 * scale


def test_curved_patches_have_their_variance():
    effects = BARE.model_copy(update={"lensing": True})
    grid = CURVED.model_copy(update={"patches_per_sky": 200})
    kappa = run(effects, ("kappa",), range(400), grid=grid)["kappa"].astype(float)
    ell = np.arange(int(PatchGrid(5.0, 16).ell_nyquist) + 1)
    expected = np.sum((2 * ell + 1) * TABLE.cl["kk"][: ell.size]) / (4 * np.pi)
    variances = np.mean(kappa**2, axis=(1, 2))
    assert abs(variances.mean() - expected) < 4 * variances.std() / np.sqrt(400)


def test_realizations_draw_their_cosmology():
    """Each of three tables about equally often, always the same one, its own spectra in the maps;
    the white noise beneath is that of the realization."""
    tables = [SpectraTable({n: f * cl for n, cl in TABLE.cl.items()}) for f in (1.0, 4.0, 9.0)]
    both = simulator(PLAIN, fields=("t_prim",), tables=tables)
    points = [both.point(number) for number in range(3000)]
    assert stats.chisquare(np.bincount(points, minlength=3)).pvalue > 0.001
    one = run(PLAIN, ("t_prim",), range(12))["t_prim"]
    drawn = [patch["t_prim"] for patch in both.realize(range(12))]
    for number in range(12):
        assert_allclose(drawn[number], (1 + points[number]) * one[number], rtol=1e-5)


def test_classes_are_combined_and_intervals_filled():
    vary = {"ns": (0.9, 1.0), "r": (0.0, 0.1, 0.2)}
    found = points(Spectra(vary=vary), 1)
    assert len(found) == 6
    assert {(p["ns"], p["r"]) for p in found} == {(n, r) for n in vary["ns"] for r in vary["r"]}
    vary = {"ns": (0.9, 1.0), "Alens": Range(low=0.5, high=1.5), "r": Range(low=0, high=1)}
    found = points(Spectra(vary=vary, points=20), 1)
    assert found == points(Spectra(vary=vary, points=20), 1)
    assert found != points(Spectra(vary=vary, points=20), 2)
    assert sorted(p["ns"] for p in found) == [0.9] * 10 + [1.0] * 10
    # A Latin hypercube: one value in each twentieth of either interval, in unrelated orders.
    assert sorted(int((p["Alens"] - 0.5) * 20) for p in found) == list(range(20))
    assert sorted(int(p["r"] * 20) for p in found) == list(range(20))
    assert abs(np.corrcoef([(p["Alens"], p["r"]) for p in found], rowvar=False)[0, 1]) < 0.7
    assert points(Spectra(), 1) == [{}]
    chosen = at_point(Spectra(cosmology="resunet_cmb_2013", vary=vary), found[0])
    assert chosen.cosmology.H0 == 67.94
    assert chosen.cosmology.Alens == found[0]["Alens"]
    assert not chosen.vary


def test_lensing_amplitude_scales_kappa_and_lensing_alike():
    """CAMB with Alens 2: twice the kappa power; B, all of it lensing's, about doubles."""
    one, two = (compute(Spectra(lmax=2000, cosmology={"Alens": a, "r": 0.0})) for a in (1.0, 2.0))
    inside = slice(50, 1500)
    assert_allclose(two.cl["kk"][inside], 2 * one.cl["kk"][inside], rtol=1e-4)
    ratio = two.cl["lensed_bb"][inside] / one.cl["lensed_bb"][inside]
    assert np.all((ratio > 1.8) & (ratio < 2.1))
    assert_allclose(two.cl["tt"][2:], one.cl["tt"][2:], rtol=1e-6)
