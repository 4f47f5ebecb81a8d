"""Lensing taken back: exactly where it is known, step by step where it is estimated."""

import json

import numpy as np
import pytest

from skyweave.config import Channel, Effects, Estimates, Grid, Spectra
from skyweave.errors import UserError
from skyweave.estimators.bands import band_powers, narrow_bins, regress, spread
from skyweave.estimators.delensing import Delensing
from skyweave.estimators.observed import Observed
from skyweave.estimators.patch import PatchEstimator
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb
from skyweave.seeds import generator
from skyweave.simulation.gaussian import white_modes
from skyweave.simulation.noise import noise_cl
from skyweave.simulation.patch import simulate
from skyweave.simulation.spectra import SpectraTable, compute

GRID = PatchGrid(5.0, 64)
BANDS = Bins((36, 300, 600, 1000, 1500, 2000))
COUNT, TRAIN = 60, 36
NOISE = 1.0
SETTINGS = Estimates(iterations=3, calibration=TRAIN)


@pytest.fixture(scope="module")
def table() -> SpectraTable:
    return compute(Spectra(lmax=5000))


@pytest.fixture(scope="module")
def maps(table) -> dict[str, np.ndarray]:
    """Tapered, noisy patches with their truths."""
    fields = ("q_obs", "u_obs", "e_prim", "kappa", "tau")
    return simulate(
        [table],
        Grid(pixels=64, oversample=2),
        Effects(null_fraction=0),
        {"obs": Channel(noise_uk_arcmin=NOISE)},
        seed=3,
        dataset="delensing",
        realizations=range(COUNT),
        fields=fields,
    )


def observed(table: SpectraTable, **changes) -> Observed:
    ell = np.arange(0, 5001, 10)
    names = ("ee", "lensed_ee", "lensed_bb", "kk", "tautau")
    values = {
        "size_deg": 5.0,
        "pixels": 64,
        "taper_deg": 1.5,
        "periodic": True,
        "ell": ell.astype(float),
        "cl": {name: table.cl[name][ell] for name in names},
        "foreground": np.zeros(ell.size),
        "beam": np.ones(ell.size),
        "noise": noise_cl(ell, np.sqrt(2) * NOISE),
    }
    return Observed(**values | changes)


@pytest.fixture(scope="module")
def estimator(table, maps) -> PatchEstimator:
    named = {"q": "q_obs", "u": "u_obs"} | {name: name for name in ("e_prim", "kappa", "tau")}
    patches = {name: maps[field][:TRAIN] for name, field in named.items()}
    return PatchEstimator.fit(observed(table), patches, SETTINGS)


@pytest.fixture(scope="module")
def estimates(estimator, maps) -> dict[str, np.ndarray]:
    return estimator(maps["q_obs"][TRAIN:], maps["u_obs"][TRAIN:])


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """r_ell by band of two sets of maps."""
    a, b = (forward(np.asarray(x, float), GRID) for x in (a, b))
    aa, bb, ab = (bin_power(power(*x, GRID), GRID, BANDS).mean(0) for x in ((a, a), (b, b), (a, b)))
    return ab / np.sqrt(aa * bb)


def plain(grid: PatchGrid, **changes) -> Delensing:
    """One that knows no weights yet."""
    values = np.ones(narrow_bins(grid).count).tolist()
    return Delensing(grid, (30, 6000), ("kappa",), values, values, **changes)


# Bands


def test_regression_finds_the_weights_of_a_known_sum():
    bins = narrow_bins(GRID)
    first, second, other = (
        np.stack([white_modes(generator(1, name, i), GRID) for i in range(12)]) for name in "abc"
    )
    slope = spread(np.linspace(1, 3, bins.count), bins, GRID)
    truth = slope * first - 0.5 * second + 0.3 * other
    weights = regress({"first": first, "second": 1e9 * second}, truth, GRID, bins)
    inside = [i for i in range(1, bins.count) if bins.edges[i + 1] < GRID.ell_nyquist]
    modes = bins.modes(GRID)[inside] * 12
    pull = (weights["first"] - np.linspace(1, 3, bins.count))[inside] / (0.3 / np.sqrt(modes))
    assert np.sqrt(np.mean(pull**2)) < 1.5
    pull = (1e9 * weights["second"] + 0.5)[inside] / (0.3 / np.sqrt(modes))
    assert np.sqrt(np.mean(pull**2)) < 1.5


def test_features_without_power_have_no_weight():
    bins, nothing = narrow_bins(GRID), np.zeros((2, *GRID.ell.shape), complex)
    weights = regress({"nothing": nothing}, nothing, GRID, bins)
    assert not weights["nothing"].any()


def test_band_powers_are_those_of_the_modes():
    bins = narrow_bins(GRID)
    modes = np.stack([white_modes(generator(1, i), GRID) for i in range(40)])
    found = band_powers(7 * modes, GRID, bins)
    inside = bins.modes(GRID) > 0
    error = np.sqrt(2 / (40 * bins.modes(GRID)[inside]))
    assert (np.abs(found[inside] / 49 - 1) < 5 * error).all()
    assert np.isfinite(found).all()


# Lensing taken back


def test_known_lensing_is_undone(table):
    """Where kappa is known the primordial Q and U come back, far better than as they were seen."""
    fields = ("q_obs", "u_obs", "q_prim", "u_prim", "kappa")
    effects = Effects(taper_deg=0, null_fraction=0, reionization=False)
    sky = simulate(
        *([table], Grid(pixels=64, oversample=2), effects),
        seed=1,
        dataset="exact",
        realizations=range(4),
        fields=fields,
    )
    kappa = forward(sky["kappa"].astype(float), GRID)
    q, u = plain(GRID).delensed(sky["q_obs"].astype(float), sky["u_obs"].astype(float), kappa)
    # Shorter waves come from some that the pixels do not hold.
    low = GRID.ell < 1000

    def left(one: np.ndarray, other: np.ndarray | float = 0.0) -> float:
        return float(np.sum(np.abs(forward(np.asarray(one - other, float), GRID)[:, low]) ** 2))

    assert left(q, sky["q_prim"]) < 0.003 * left(sky["q_obs"], sky["q_prim"])
    b_seen, b_left = qu_to_eb(sky["q_obs"], sky["u_obs"], GRID)[1], qu_to_eb(q, u, GRID)[1]
    print(left(q, sky["q_prim"]) / left(sky["q_obs"], sky["q_prim"]), left(b_left) / left(b_seen))
    assert left(b_left) < 0.01 * left(b_seen)


def test_each_step_leaves_less_b_and_knows_more_of_kappa(estimator, maps):
    """On patches that nothing was learned from."""
    delensing, seen = estimator.delensing, estimator.observed
    q, u, *_ = seen.sky(maps["q_obs"][TRAIN:], maps["u_obs"][TRAIN:])
    known, found, left = [], [], []
    for step in delensing.steps[:-1]:
        sky = delensing.delensed(q, u, known[0]) if known else (q, u)
        e, b = delensing._eb(*sky)
        left.append(np.mean(np.abs(b[:, GRID.ell < 1500]) ** 2))
        kappa = delensing._sum(delensing._features(e, b, step, known), step.weights)
        known = [kappa, *known[:1]]
        found.append(correlation(seen.patch(kappa), maps["kappa"][TRAIN:]))
    assert (np.diff(left) < 0).all()
    assert left[-1] < 0.4 * left[0]
    assert (found[1] > found[0]).all()
    assert (found[2][:3] > found[1][:3]).all()


def test_estimates_beat_the_quadratic_ones(estimates, maps):
    truth = {name: maps[name][TRAIN:] for name in ("kappa", "e_prim", "tau")}
    kappa = {
        m: correlation(estimates[f"kappa_{m}"], truth["kappa"]) for m in ("quadratic", "iterative")
    }
    assert (kappa["iterative"] > kappa["quadratic"]).all()
    assert kappa["iterative"][0] > 0.95
    e = {m: correlation(estimates[f"e_{m}"], truth["e_prim"]) for m in ("wiener", "iterative")}
    assert (1 - e["iterative"] < 0.25 * (1 - e["wiener"])).all()
    assert correlation(estimates["tau_iterative"], truth["tau"])[0] > 0


def test_estimates_are_wiener_filtered(estimates, maps):
    """Their cross-power with the truth is their own power: nothing is gained by scaling them."""
    for name, field in (("kappa_iterative", "kappa"), ("e_iterative", "e_prim")):
        found, truth = (
            forward(np.asarray(x, float), GRID) for x in (estimates[name], maps[field][TRAIN:])
        )
        own = bin_power(power(found, found, GRID), GRID, BANDS).mean(0)
        cross = bin_power(power(found, truth, GRID), GRID, BANDS).mean(0)
        np.testing.assert_allclose(cross[:4] / own[:4], 1, atol=0.1)


def test_estimates_carry_the_taper(estimates):
    for name, maps in estimates.items():
        assert maps.dtype == np.float32
        # E is that of tapered Q and U: it is no map times the taper.
        assert name.startswith("e_") or not maps[:, 0].any()
        assert maps[:, 30:34, 30:34].any()


def test_a_kept_estimator_gives_the_same(estimator, estimates, maps):
    again = PatchEstimator.from_dict(json.loads(json.dumps(estimator.to_dict())))
    some = again(maps["q_obs"][TRAIN : TRAIN + 3], maps["u_obs"][TRAIN : TRAIN + 3])
    assert set(some) == set(again.fields) == set(estimates)
    for name, found in some.items():
        np.testing.assert_array_equal(found, estimates[name][:3])


@pytest.mark.parametrize("values", [{}, {"observed": {}, "ell": [1, 2], "delensing": {}}, []])
def test_a_broken_calibration_is_refused(values):
    with pytest.raises(UserError, match="what the calibration wrote"):
        PatchEstimator.from_dict(values)


def test_maps_of_another_size_are_refused(estimator):
    with pytest.raises(UserError, match="64 x 64 pixels"):
        estimator(np.zeros((1, 32, 32)), np.zeros((1, 32, 32)))


def test_without_lensing_nothing_is_taken_back(table, maps):
    patches = {"q": maps["q_obs"][:8], "u": maps["u_obs"][:8], "e_prim": maps["e_prim"][:8]}
    estimator = PatchEstimator.fit(observed(table), patches, SETTINGS)
    assert estimator.fields == ("e_wiener", "b_wiener", "e_iterative", "b_iterative")
    assert len(estimator.delensing.steps) == 1


# What is known of the patches


def test_the_taper_is_undone(table):
    grid = Grid(pixels=64, oversample=2)
    pair = [
        simulate(
            *([table], grid, Effects(taper_deg=taper)),
            seed=1,
            dataset="taper",
            realizations=[0],
            fields=("q_obs", "u_obs"),
        )
        for taper in (0.0, 1.5)
    ]
    seen = observed(table, noise=np.zeros(501))
    q, u, *_ = seen.sky(pair[1]["q_obs"], pair[1]["u_obs"])
    there = seen.taper > 1e-3
    for found, true in ((q, pair[0]["q_obs"]), (u, pair[0]["u_obs"])):
        np.testing.assert_allclose(found[0][there], true[0][there], atol=1e-3)
    # Two rows without data, between known ones: expected better than by nothing at all.
    unseen = ~there & (np.add.outer(np.arange(64), np.arange(64)) > 20)
    assert np.std((q - pair[0]["q_obs"])[0][unseen]) < 0.6 * np.std(pair[0]["q_obs"][0][unseen])


def test_a_patch_that_is_not_periodic_lies_in_a_larger_area(table):
    seen = observed(table, periodic=False)
    assert seen.area.pixels == 80
    assert seen.area.pixel_rad == pytest.approx(seen.grid.pixel_rad)
    modes = white_modes(generator(1), seen.area)
    middle = inverse(modes, seen.area)[8:72, 8:72]
    np.testing.assert_allclose(seen.patch(modes), middle * seen.taper, atol=1e-12)


def test_a_beam_is_undone_as_far_as_noise_allows(table, maps):
    ell = np.arange(0, 5001, 10)
    beam = np.exp(-((ell / 1500.0) ** 2))
    seen = observed(table, beam=beam)
    assert (seen.kept <= 1).all()
    assert seen.kept[0, 1] > 0.99
    assert np.isinf(seen.totals["bb"]).any()
    modes = seen.modes(np.zeros((1, 64, 64)), np.zeros((1, 64, 64)))
    assert not modes["e"].any()
    low = (GRID.ell > 0) & (GRID.ell < 500)
    assert (seen.totals["bb"][low] >= seen.on_area(seen.cl["lensed_bb"])[low]).all()


@pytest.mark.parametrize("width", [1500.0, 300.0, 30.0])
def test_a_beam_without_noise_is_undone_without_blowing_up(table, width):
    """Also one that leaves nothing of short waves, down to where its square is no number."""
    ell = np.arange(0, 5001, 10)
    beam = np.exp(-((ell / width) ** 2))
    seen = observed(table, beam=beam, noise=np.zeros(ell.size), taper_deg=0.0)
    sky = simulate(
        *([table], Grid(pixels=64), Effects(taper_deg=0.0)),
        seed=1,
        dataset="beam",
        realizations=[0],
        fields=("q_obs", "u_obs"),
    )
    window = np.interp(GRID.ell, ell, beam)
    blurred = (inverse(forward(sky[f"{s}_obs"].astype(float), GRID) * window, GRID) for s in "qu")
    q, *_ = seen.sky(*(maps.astype(np.float32) for maps in blurred))
    assert np.isfinite(q).all()
    assert q.std() < 1.05 * sky["q_obs"].std()


def test_foregrounds_are_not_taken_for_e(table, maps):
    """Where they are known of the Wiener filter gives the CMB's part alone."""
    ell = np.arange(0, 5001, 10)
    much = 4 * table.cl["lensed_ee"][ell]
    maps = [maps[name][:1] for name in ("q_obs", "u_obs")]
    with_all, half = (observed(table, foreground=f).sky(*maps)[2] for f in (0 * much, much))
    low = (GRID.ell > 0) & (GRID.ell < 1000)
    assert np.std(half[0][low]) < 0.4 * np.std(with_all[0][low])


def test_tapered_e_is_that_of_tapered_q_and_u(table):
    """As the simulated truth is made."""
    seen = observed(table)
    fields = ("q_prim", "u_prim", "e_prim")
    effects = Effects(reionization=False, lensing=False, null_fraction=0)
    sky = simulate(
        [table], Grid(pixels=64), effects, seed=1, dataset="e", realizations=[0], fields=fields
    )
    whole = simulate(
        *([table], Grid(pixels=64), effects.model_copy(update={"taper_deg": 0.0})),
        seed=1,
        dataset="e",
        realizations=[0],
        fields=fields,
    )
    found = seen.tapered_e(forward(whole["e_prim"].astype(float), GRID))
    np.testing.assert_allclose(found, sky["e_prim"], atol=1e-4)
