"""Quadratic estimators against symlens, against simulated skies, and at their edges."""

from dataclasses import replace

import numpy as np
import pytest

from skyweave.config import Effects, Grid, Spectra
from skyweave.estimators.iterative_noise import iterative_noise, lensing_bb
from skyweave.estimators.quadratic import Quadratic
from skyweave.estimators.response import PAIRS, couplings
from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb
from skyweave.simulation.patch import simulate
from skyweave.simulation.spectra import compute
from skyweave.tasks import estimator_checks as checks

GRID, ELL = PatchGrid(5.0, 64), (300.0, 2200.0)
NAMES = ("tt", "te", "ee", "bb")
BANDS = Bins((36, 150, 400, 800, 1500, 2200))
#: Realizations of each simulation, and factors that leave first order alone.
COUNT, SMALL = 48, {"kk": 1e-4, "tautau": 1e-2}
ANGLE = 1e-8


@pytest.fixture(scope="module")
def table():
    return compute(Spectra(cosmology="resunet_cmb_2013", lmax=4500))


def on_modes(table, prefix="", grid=GRID):
    return {name: table.on_modes(prefix + name, grid) for name in NAMES}


def modes_of(maps, end):
    t, q, u = (forward(maps[f"{s}_{end}"].astype(float), GRID) for s in "tqu")
    e, b = rotate_to_eb(q, u, GRID)
    return {"t": t, "e": e, "b": b}


def simulated(table, field, **effects):
    """Modes of observed and of primordial maps, and those of the field."""
    acts = {"lensing": False, "reionization": False, "null_fraction": 0, "taper_deg": 0} | effects
    fields = [f"{s}_{end}" for s in "tqu" for end in ("obs", "prim")] + [field] * bool(field)
    maps = simulate(
        [table],
        Grid(size_deg=GRID.size_deg, pixels=GRID.pixels, oversample=2),
        Effects(**acts),
        seed=1,
        dataset="quadratic",
        realizations=range(COUNT),
        fields=fields,
    )
    truth = forward(maps[field].astype(float), GRID) if field else None
    return modes_of(maps, "obs"), modes_of(maps, "prim"), truth


@pytest.fixture(scope="module")
def faint(table):
    """Skies with one weak modulation each."""
    weak = {name: cl * SMALL.get(name, 1) for name, cl in table.cl.items()}
    weak = replace(table, cl=weak)
    return {
        "kappa": simulated(weak, "kappa", lensing=True),
        "tau": simulated(weak, "tau", reionization=True),
        "alpha": simulated(weak, "alpha", rotation_amplitude=ANGLE),
    }


@pytest.fixture(scope="module")
def lensed(table):
    """Skies lensed as much as ours is."""
    return simulated(table, "kappa", lensing=True)


def answer(estimator, sky, bands=BANDS):
    """Part of the field in an estimate, by band, and its error: (2, bands) each.

    The estimate from the same sky without the modulation is taken off: it knows nothing of it.
    """
    observed, primordial, truth = sky
    difference = estimator(observed) - estimator(primordial)
    cross = bin_power(power(difference, truth, GRID), GRID, bands)
    auto = bin_power(power(truth, truth, GRID), GRID, bands)
    found = cross.mean(axis=0) / auto.mean(axis=0)
    scatter = np.std(cross - found * auto, axis=0, ddof=1) / np.sqrt(len(cross))
    return found, scatter / auto.mean(axis=0)


@pytest.mark.parametrize(
    ("field", "kind", "pair"),
    [
        ("kappa", "hu_ok", "tt"),
        ("kappa", "hu_ok", "ee"),
        ("kappa", "hu_ok", "eb"),
        ("kappa", "hu_ok", "tb"),
        ("alpha", "rot", "ee"),
        ("alpha", "rot", "eb"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_normalization_is_that_of_symlens(table, field, kind, pair):
    import symlens.qe
    from pixell import enmap

    # What is used of the modes does not fold back at the multipoles that are compared.
    ell, signal, total = (300.0, 1500.0), on_modes(table, "lensed_"), on_modes(table, "lensed_")
    del signal["bb"]
    shape, wcs = enmap.geometry(
        np.zeros(2), np.radians(GRID.pixel_arcmin / 60), (64, 64), proj="plain"
    )
    length = enmap.modlmap(shape, wcs)
    feed = {}
    for name in NAMES:
        whole = np.interp(length, table.ell, table.cl[f"lensed_{name}"])
        key = "_".join(name.upper())
        feed[f"tC_{key}"], feed[f"uC_{key}"] = np.maximum(whole, 1e-9), whole * (name != "bb")
    mask = (length >= ell[0]) & (length <= ell[1])
    f, weight, _ = symlens.qe.get_mc_expressions(kind, pair.upper())
    sums = symlens.integrate(
        *(shape, wcs, feed, f * weight), xmask=mask, ymask=mask, physical_units=False
    )
    theirs = sums.real * np.sqrt(enmap.pixsize(shape, wcs)) / GRID.pixels
    places = [(5, 0), (5, 5), (12, 3), (17, 11)]
    ours = couplings(GRID, signal, total, [(field, pair)], [field], ell=ell, at=places)
    for (x, y), response, noise in zip(places, ours.response, ours.noise, strict=True):
        # Theirs is the response to phi or to the angle.
        expected = theirs[y, x] * (4 / length[y, x] ** 4 if field == "kappa" else 1)
        assert response[0, 0] == pytest.approx(expected, rel=1e-3)
        assert noise[0, 0] == pytest.approx(response[0, 0], rel=1e-9)


def test_directions_that_mirror_each_other_are_alike(table):
    spectra, estimators = on_modes(table, "lensed_"), [(f, "eb") for f in ("kappa", "tau")]
    places = [(9, 4), (4, 9), (-9, 4), (9, -4), (-4, -9)]
    found = couplings(*(GRID, spectra, spectra, estimators, ["kappa", "tau"]), ell=ELL, at=places)
    for array in (found.response, found.noise):
        np.testing.assert_allclose(array, np.broadcast_to(array[0], array.shape), rtol=1e-9)


@pytest.mark.parametrize("field", ["kappa", "tau", "alpha"])
def test_estimates_are_unbiased_to_first_order(table, faint, field):
    pairs = PAIRS[1:] if field == "alpha" else PAIRS
    made = Quadratic(
        GRID, on_modes(table), on_modes(table, "lensed_"), field=field, pairs=pairs, ell=ELL
    )
    for pair in (*pairs, None):
        found, error = answer(
            made.minimum_variance if pair is None else lambda m, pair=pair: made.estimate(m)[pair],
            faint[field],
        )
        assert np.abs((found - 1) / error).max() < 4, pair
        if pair in (None, "eb") and field != "tau":
            assert error.min() < 0.012
        np.testing.assert_allclose(made.answer(field, pair)[2:30, 2:20], 1, rtol=1e-6)


def test_the_lensed_sky_is_told_with_lensed_spectra(table, lensed):
    total, bands = on_modes(table, "lensed_"), Bins((36, 500, 1000, 1500, 2200))
    made = Quadratic(GRID, total, total, field="kappa", ell=ELL)
    found, error = answer(made.minimum_variance, lensed, bands)
    assert (np.abs(found - 1) < 0.02 + 2 * error).all()
    # With the unlensed ones the estimate falls short where the waves are long.
    short = Quadratic(GRID, on_modes(table), total, field="kappa", ell=ELL)
    assert answer(short.minimum_variance, lensed, bands)[0][0] < found[0] - 0.02
    # The Wiener filter makes of it what is as large as what it knows.
    kk = table.on_modes("kk", GRID)
    filtered = made.wiener(lensed[0], kk)
    auto, cross = (
        bin_power(power(filtered, x, GRID), GRID, bands).mean(0) for x in (filtered, lensed[2])
    )
    assert cross[:3] == pytest.approx(auto[:3], rel=0.1)


@pytest.mark.parametrize("field", ["kappa", "tau", "alpha"])
def test_noise_is_what_gaussian_skies_have(table, field):
    total = on_modes(table, "lensed_")
    gaussian = replace(table, cl=table.cl | {name: table.cl[f"lensed_{name}"] for name in NAMES})
    sky, _, _ = simulated(gaussian, None)
    pairs = PAIRS[1:] if field == "alpha" else PAIRS
    made = Quadratic(GRID, on_modes(table, "lensed_"), total, field=field, pairs=pairs, ell=ELL)
    found = made.estimate(sky) | {"mv": made.minimum_variance(sky)}
    for pair, estimate in found.items():
        noise = made.noise_mv if pair == "mv" else made.noise(pair)
        use = np.isfinite(noise) & (GRID.ell < 2200)
        # Mode by mode: that of tau and alpha varies over a band.
        ratio = np.divide(
            power(estimate, estimate, GRID), noise, out=np.zeros_like(estimate.real), where=use
        )
        ratio = np.where(use, ratio, 1)
        bands = bin_power(ratio, GRID, BANDS)
        error = bands.std(axis=0, ddof=1) / np.sqrt(COUNT)
        assert np.abs((bands.mean(axis=0) - 1) / error).max() < 4, pair
        assert error.min() < 0.015


def test_hardened_tau_knows_nothing_of_lensing(table, faint):
    total = on_modes(table, "lensed_")
    for pairs in (("eb",), PAIRS):
        plain = Quadratic(GRID, on_modes(table), total, field="tau", pairs=pairs, ell=ELL)
        hard = plain.hardened("kappa")
        used = np.isfinite(hard.noise_mv)
        assert np.abs(hard.answer("kappa")[used]).max() < 1e-6
        np.testing.assert_allclose(hard.answer("tau")[used], 1, rtol=1e-6)
        # What lensing's estimator from TE knows of tau helps a little: that of tau is no optimum.
        assert (hard.noise_mv[used] >= plain.noise_mv[used] * (1 - 1e-3)).all()
        found, error = answer(hard.minimum_variance, faint["tau"])
        assert np.abs((found - 1) / error).max() < 4
        # The plain one takes lensing for tau as it says it does, the hardened one does not.
        kk = bin_power(plain.answer("kappa") * table.on_modes("kk", GRID), GRID, BANDS)
        expected = kk / bin_power(table.on_modes("kk", GRID), GRID, BANDS)
        found, error = answer(plain.minimum_variance, faint["kappa"])
        assert np.abs((found - expected) / error).max() < 4
        assert np.abs(found / error).max() > 20
        found, error = answer(hard.minimum_variance, faint["kappa"])
        assert np.abs(found / error).max() < 4


def test_alpha_needs_no_hardening(table, faint):
    made = Quadratic(
        *(GRID, on_modes(table), on_modes(table, "lensed_")),
        field="alpha",
        pairs=("ee", "eb"),
        ell=ELL,
    )
    hard = made.hardened("kappa", "tau")
    np.testing.assert_allclose(hard.noise_mv, made.noise_mv)
    assert not made.answer("kappa").any()
    found, error = answer(made.minimum_variance, faint["kappa"])
    assert np.abs(found / error).max() < 4


def test_all_pairs_together_are_better_than_each(table):
    spectra = on_modes(table, "lensed_")
    made = Quadratic(GRID, spectra, spectra, field="kappa", ell=ELL)
    used = np.isfinite(made.noise_mv)
    for pair in PAIRS:
        assert (made.noise_mv[used] <= made.noise(pair)[used] * (1 + 1e-9)).all()
    two = Quadratic(GRID, spectra, spectra, field="kappa", pairs=("ee", "eb"), ell=ELL)
    # EE and EB have no noise in common.
    used = np.isfinite(two.noise_mv)
    expected = 1 / (1 / two.noise("ee")[used] + 1 / two.noise("eb")[used])
    np.testing.assert_allclose(two.noise_mv[used], expected, rtol=1e-9)


def test_classical_signal_to_noise(table):
    """EB on 5°, 128², noiseless, 300 <= l <= 3500: what a network has to beat."""
    grid, places = PatchGrid(5.0, 128), [(k, 0) for k in range(1, 30)]
    signal, total = ({n: table.on_modes(f"lensed_{n}", grid) for n in ("ee", "bb")} for _ in "12")
    del signal["bb"]
    found = couplings(
        *(grid, signal, total, [("kappa", "eb"), ("tau", "eb")], ["kappa", "tau"]),
        ell=(300, 3500),
        at=places,
    )
    ell = grid.ell_fundamental * np.arange(1, 30)
    kk, tautau = (np.interp(ell, table.ell, table.cl[name]) for name in ("kk", "tautau"))
    kappa, tau = kk * found.response[:, 0, 0], tautau * found.response[:, 1, 1]
    at = np.interp([72, 300, 1000, 2000], ell, kappa)
    np.testing.assert_allclose(at, [42, 12.7, 2.2, 0.67], rtol=0.05)
    assert tau.max() == pytest.approx(0.0064, rel=0.05)


def test_lensed_b_is_that_of_simulated_skies(table, lensed):
    b = lensed[0]["b"]
    expected = lensing_bb(table.on_modes("ee", GRID), table.on_modes("kk", GRID), GRID)
    measured, expected = (bin_power(x, GRID, BANDS) for x in (power(b, b, GRID), expected))
    error = measured.std(axis=0, ddof=1) / np.sqrt(COUNT)
    # Second order takes a per cent, more where the E that is lensed ends at the Nyquist multipole.
    assert (
        np.abs(measured.mean(axis=0) - expected)[:4] < 3 * error[:4] + 0.02 * expected[:4]
    ).all()
    camb = bin_power(table.on_modes("lensed_bb", GRID), GRID, BANDS)
    np.testing.assert_allclose(expected[:4], camb[:4], rtol=0.04)


def test_iterative_noise_agrees_with_itself(table):
    ee, kk = table.on_modes("ee", GRID), table.on_modes("kk", GRID)
    white = 2 * np.radians(1 / 60) ** 2
    noise = np.full(GRID.ell.shape, white)
    limit = iterative_noise(
        *(GRID, ee, kk), noise_ee=noise, noise_bb=white, ell=ELL, tolerance=1e-8
    )
    left = lensing_bb(ee, kk * (1 - kk / (kk + limit.noise)), GRID)
    np.testing.assert_allclose(limit.bb, left, rtol=1e-6)
    again = Quadratic(
        *(GRID, {"ee": ee}, {"ee": ee + white, "bb": left + white}),
        field="kappa",
        pairs=("eb",),
        ell=ELL,
    )
    used = np.isfinite(limit.noise)
    np.testing.assert_allclose(limit.noise[used], again.noise_mv[used], rtol=1e-6)


def test_a_sky_without_lensing_or_noise_ends(table):
    """No B at all: nothing is told of kappa by it, and nothing is divided by zero."""
    ee = table.on_modes("ee", GRID)
    with np.errstate(all="raise", under="ignore"):
        limit = iterative_noise(GRID, ee, 0 * ee, ell=ELL)
    assert not limit.bb.any()


def test_iterating_helps_where_lensed_b_is_the_noise(table):
    ee, kk = table.on_modes("ee", GRID), table.on_modes("kk", GRID)
    bb, shares = lensing_bb(ee, kk, GRID), []
    used = (GRID.ell > 0) & (GRID.ell < 1500)
    for arcmin in (0.0, 1.0, 5.0, 100.0):
        white = 2 * np.radians(arcmin / 60) ** 2
        limit = iterative_noise(GRID, ee, kk, noise_ee=white, noise_bb=white, ell=ELL)
        once = Quadratic(
            *(GRID, {"ee": ee}, {"ee": ee + white, "bb": bb + white}),
            field="kappa",
            pairs=("eb",),
            ell=ELL,
        )
        shares.append(np.median(limit.noise[used] / once.noise_mv[used]))
    assert shares[0] < 0.1
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1, abs=0.01)


def test_many_skies_at_once_are_each_as_alone(table, lensed):
    spectra = on_modes(table, "lensed_")
    made = Quadratic(GRID, spectra, spectra, field="kappa", pairs=("ee", "eb"), ell=ELL)
    alone = made.minimum_variance({name: one[3] for name, one in lensed[0].items()})
    np.testing.assert_array_equal(made.minimum_variance(lensed[0])[3], alone)


def test_what_is_refused(table):
    spectra = on_modes(table, "lensed_")
    with pytest.raises(ValueError, match=r"Expected kappa, tau or alpha\. Received: 'phi'"):
        Quadratic(GRID, spectra, spectra, field="phi", ell=ELL)
    with pytest.raises(ValueError, match=r"Expected one of tt, te, ee, eb, tb\. Received: 'bb'"):
        Quadratic(GRID, spectra, spectra, field="kappa", pairs=("bb",), ell=ELL)
    with pytest.raises(ValueError, match="Expected the total spectrum 'bb'"):
        Quadratic(GRID, spectra, {"ee": spectra["ee"]}, field="tau", pairs=("eb",), ell=ELL)
    with pytest.raises(ValueError, match="other fields than 'tau'"):
        Quadratic(GRID, spectra, spectra, field="tau", ell=ELL, against=("tau",))
    made = Quadratic(GRID, spectra, spectra, field="tau", pairs=("eb",), ell=ELL)
    with pytest.raises(ValueError, match="Expected modes of b"):
        made.minimum_variance({"e": spectra["ee"]})
    with pytest.raises(ValueError, match="Expected one of eb"):
        made.noise("tt")
    # Nothing is told of beyond the sum of two modes, and of alpha nothing by T alone.
    short = Quadratic(GRID, spectra, spectra, field="kappa", pairs=("eb",), ell=(300, 900))
    assert np.isinf(short.noise_mv[GRID.ell > 1801]).all()
    blind = Quadratic(GRID, spectra, spectra, field="alpha", pairs=("tt",), ell=(300, 900))
    assert np.isinf(blind.noise_mv).all()
    sky = {"t": np.ones(GRID.ell.shape, complex)}
    assert not blind.minimum_variance(sky).any()


def test_the_page_shows_all_checks(table):
    counts = {"patches": 5, "again": 3, "gaussian": 4}
    gradient = {name: table.cl[f"lensed_{name}"] for name in NAMES}
    text = checks.page(table, gradient, GRID, counts)
    assert "5° and 64² pixels" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    found = {tuple(row[:2]): row[2:] for row in rows}
    for field in ("kappa", "tau", "alpha", "tau, hardened", "kappa, gradient f"):
        value, error = map(float, found[field, "all"][1].split(" ± "))
        assert abs(value - 1) < 5 * error + 0.02
    hardening = [row for row in rows if row[0] == "300–600" and len(row) == 4]
    assert float(hardening[0][1]) > 1 > 1e-6 > float(hardening[0][2])
    once, iterated, left = map(float, found["0", "300–600"])
    assert once < iterated < 1
    assert left < 0.1
