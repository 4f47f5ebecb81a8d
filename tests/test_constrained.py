"""Constrained Gaussian skies: textbook conditioning, the simulation's skies, and their scatter."""

import json

import numpy as np
import pytest

from skyweave.errors import UserError
from skyweave.estimators import constrained
from skyweave.estimators.constrained import Constrained, Covariance
from skyweave.estimators.wiener import FLOOR
from skyweave.flat.fourier import Bins, bin_power, forward, on_modes, power
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.simulation.flat_sky import FlatSky

ELL = np.arange(6001)
TT = 3e-2 * (np.maximum(ELL, 30) / 300) ** -2.5
EE = 1e-3 * (np.maximum(ELL, 30) / 300) ** -1.5
SKY = {"tt": TT, "ee": EE, "bb": 0.1 * EE, "te": 0.8 * np.sqrt(TT * EE)}
NOISE = (6 * np.pi / 10800) ** 2  # µK² sr, of 6 µK-arcmin
COVARIANCE = Covariance(ELL, {name: cl + NOISE * (name != "te") for name, cl in SKY.items()})
SMALL, GRID = PatchGrid(2.5, 16), PatchGrid(5, 48)
TQU = ("t_obs", "q_obs", "u_obs")


def disc(pixels: int, radius: float, y: float = 0.0, x: float = 0.0) -> np.ndarray:
    rows, columns = np.indices((pixels, pixels)) - (pixels - 1) / 2
    return np.hypot(rows - y, columns - x) <= radius


def random_hole(pixels: int, number: int) -> np.ndarray:
    """A disc and a line that runs off the patch."""
    rng = generator(number, "hole")
    rows, columns = np.indices((pixels, pixels))
    y, x, angle = *rng.uniform(0, pixels, 2), rng.uniform(0, np.pi)
    line = np.abs((rows - y) * np.cos(angle) + (columns - x) * np.sin(angle)) < 1.5
    return line | disc(pixels, pixels / 6, *rng.uniform(-pixels / 3, pixels / 3, 2))


def pixel_covariance(grid: PatchGrid, fields, covariance=COVARIANCE) -> np.ndarray:
    """(f·y·x, f·y·x), as the sum over all modes of the plane, one cosine each."""
    spectra = covariance.on_modes(grid, fields, FLOOR)
    y, x = (one.ravel() for one in np.indices((grid.pixels,) * 2))
    lag_y, lag_x = y[:, None] - y, x[:, None] - x
    total = np.zeros((len(fields), lag_y.shape[0], len(fields), lag_y.shape[0]))
    for row in range(grid.pixels):
        for column in range(grid.pixels // 2 + 1):
            wave = np.cos(2 * np.pi * (row * lag_y + column * lag_x) / grid.pixels)
            weight = grid.mode_weight[row, column] / grid.area_sr
            matrix = spectra[..., row, column]
            total += weight * matrix[:, None, :, None] * wave[None, :, None, :]
    return total.reshape((len(fields) * y.size,) * 2)


def textbook(data, hole, full):
    """Mean and covariance of the hole's pixels by conditioning with matrices."""
    unseen = np.tile(hole.ravel(), data[0].size // hole.size)
    across = full[np.ix_(unseen, ~unseen)]
    weights = np.linalg.solve(full[np.ix_(~unseen, ~unseen)], across.T).T
    mean = data.reshape(len(data), -1)[:, ~unseen] @ weights.T
    return mean, full[np.ix_(unseen, unseen)] - weights @ across.T


def skies(model: Constrained, count: int, who: str = "sky") -> np.ndarray:
    """Draws of the prior: the fluctuation where nothing is seen."""
    everything = np.ones((model.grid.pixels,) * 2, bool)
    return model.fluctuation(everything, [generator(i, who) for i in range(count)])


def simulated(grid: PatchGrid, count: int) -> np.ndarray:
    """T, Q and U (n, 3, y, x) of the simulation, and white noise."""
    sky = FlatSky(SKY, grid)
    maps = np.empty((count, 3, grid.pixels, grid.pixels))
    for number, out in enumerate(maps):
        found = sky.maps(lambda name, i=number: generator(i, name), ["t_prim", "q_prim", "u_prim"])
        noise = generator(number, "noise").standard_normal(out.shape)
        out[:] = np.stack(list(found.values())) + noise * np.sqrt(NOISE) / grid.pixel_rad
    return maps


@pytest.fixture(params=["matrices", "steps"])
def way(request, monkeypatch):
    """Both ways to the mean."""
    if request.param == "steps":
        monkeypatch.setattr(constrained, "ALONE", 0)
        monkeypatch.setattr(constrained, "SHARED", 0)


@pytest.mark.parametrize("fields", [("t",), ("q", "u"), TQU], ids="".join)
@pytest.mark.parametrize("radius", [3.6, 7.0])
def test_the_mean_is_that_of_textbook_conditioning(way, fields, radius):
    """Holes smaller and larger than what is seen: either matrix."""
    hole, full = disc(16, radius, 1, -2), pixel_covariance(SMALL, fields)
    model = Constrained(COVARIANCE, SMALL, fields, periodic=True, tolerance=1e-7)
    maps = skies(model, 3)
    expected, _ = textbook(maps, hole, full)
    for holes in (hole, np.stack([hole] * 3)):
        found = model.mean(maps, holes)[:, :, hole].reshape(3, -1)
        assert np.abs(found - expected).max() < 1e-5 * maps.std()


@pytest.mark.parametrize("radius", [3.6, 7.0])
def test_the_error_is_that_of_textbook_conditioning(radius):
    hole = disc(16, radius)
    _, covariance = textbook(np.zeros((1, 2 * 256)), hole, pixel_covariance(SMALL, ("t", "q")))
    error = Constrained(COVARIANCE, SMALL, ("t", "q"), periodic=True).error(hole)
    np.testing.assert_allclose(error[:, hole].ravel(), np.sqrt(np.diag(covariance)), rtol=1e-7)
    assert not error[:, ~hole].any()


def test_draws_have_the_covariance_of_textbook_conditioning(way):
    """Whitened by it they are white: within five standard deviations, each mean product."""
    hole, count = disc(16, 2.5, 3, 3), 2000
    _, covariance = textbook(np.zeros((1, 256)), hole, pixel_covariance(SMALL, ("t",)))
    model = Constrained(COVARIANCE, SMALL, ("t",), periodic=True)
    draws = model.fluctuation(hole, [generator(i, "draw") for i in range(count)])
    assert not draws[:, :, ~hole].any()
    white = np.linalg.solve(np.linalg.cholesky(covariance), draws[:, 0, hole].T)
    found = white @ white.T / count
    scatter = np.where(np.eye(len(found)) > 0, np.sqrt(2 / count), np.sqrt(1 / count))
    assert np.abs((found - np.eye(len(found))) / scatter).max() < 5
    assert 0.9 < np.sqrt(np.mean(((found - np.eye(len(found))) / scatter) ** 2)) < 1.1


def test_steps_come_as_near_as_they_promise(monkeypatch):
    """The error of the mean, in units of the scatter that is left, is less than the tolerance."""
    monkeypatch.setattr(constrained, "ALONE", 0)
    full = pixel_covariance(SMALL, ("t",))
    for tolerance in (0.1, 1e-2):
        model = Constrained(COVARIANCE, SMALL, ("t",), periodic=True, tolerance=tolerance)
        for number in range(5):
            maps, hole = skies(model, 1, f"sky {number}"), random_hole(16, number)
            expected, covariance = textbook(maps, hole, full)
            off = model.mean(maps, hole[None])[0, :, hole].ravel() - expected[0]
            assert 0 < off @ np.linalg.solve(covariance, off) < tolerance**2 * off.size


def test_the_fields_covariance_is_that_of_the_simulation():
    """Spectra and cross spectra of T, Q and U, mode by mode, in directions and on the axes."""
    grid, count = PatchGrid(5, 16), 1500
    modes = forward(simulated(grid, count), grid)
    found = np.array(
        [
            [power(a, b, grid).mean(axis=0) for b in modes.swapaxes(0, 1)]
            for a in modes.swapaxes(0, 1)
        ]
    )
    expected = COVARIANCE.on_modes(grid, TQU)
    diagonal = np.einsum("iiyx->iyx", expected)
    scatter = np.sqrt((expected**2 + diagonal[:, None] * diagonal) / count / 2)
    scatter *= np.where(grid.mode_weight == 1, np.sqrt(2), 1)
    pull = ((found - expected) / scatter)[..., grid.ell > 0]
    assert np.abs(pull).max() < 6
    assert 0.85 < np.sqrt(np.mean(pull**2)) < 1.1


@pytest.mark.parametrize("radius", [5, 12, 20])
def test_errors_in_simulated_skies_are_as_large_as_predicted(radius):
    """And realizations are as far from the mean as the truth."""
    maps, hole = simulated(GRID, 150)[:, :1], disc(48, radius)
    model = Constrained(COVARIANCE, GRID, ("t_obs",), periodic=True)
    off = (model.mean(maps, hole) - maps)[:, 0, hole]
    drawn = model.fluctuation(hole, [generator(i, "fluctuation") for i in range(150)])[:, 0, hole]
    predicted = model.error(hole)[0, hole]
    for values in (off, drawn):
        each = np.mean((values / predicted) ** 2, axis=1)
        # The simulation's mean is zero, the model's is not known: a little less than 1.
        assert abs(each.mean() - 1) < 3 * each.std() / np.sqrt(len(each)) + 0.02
        assert abs(values.mean()) < 5 * predicted.mean() / np.sqrt(150)


def test_filled_skies_have_the_spectrum_of_skies():
    """With the fluctuation; the mean alone has too little power."""
    maps, hole = simulated(GRID, 150)[:, :1], disc(48, 18)
    model = Constrained(COVARIANCE, GRID, ("t_obs",), periodic=True)
    mean = model.mean(maps, hole)
    realization = mean + model.fluctuation(hole, [generator(i, "draw") for i in range(150)])
    bins = Bins.linear(100, 1700, 400)
    truth, full, smooth = (
        bin_power(power(modes, modes, GRID), GRID, bins)
        for modes in (forward(one[:, 0], GRID) for one in (maps, realization, mean))
    )
    off = full - truth
    assert np.all(np.abs(off.mean(axis=0)) < 3.5 * off.std(axis=0) / np.sqrt(len(off)))
    assert np.all(smooth.mean(axis=0) < 0.9 * truth.mean(axis=0))
    variance = [np.mean(one[:, 0, hole] ** 2, axis=1) for one in (maps, realization)]
    difference = variance[1] - variance[0]
    assert abs(difference.mean()) < 3.5 * difference.std() / np.sqrt(len(difference))


def test_polarization_helps_temperature_as_far_as_they_correlate():
    """T is better filled when Q and U are seen in the same holes too, and Q with T."""
    hole = disc(16, 4)
    alone = Constrained(COVARIANCE, SMALL, ("t",), periodic=True).error(hole)[0, hole]
    together = Constrained(COVARIANCE, SMALL, TQU, periodic=True).error(hole)[0, hole]
    assert np.all(together < alone)
    assert together.mean() < 0.97 * alone.mean()
    apart = Covariance(ELL, {name: cl for name, cl in COVARIANCE.cl.items() if name != "te"})
    same = Constrained(apart, SMALL, TQU, periodic=True).error(hole)[0, hole]
    np.testing.assert_allclose(same, alone, rtol=1e-6)

    grid = PatchGrid(5, 24)
    maps, hole = simulated(grid, 200), disc(24, 6)
    off = [
        (Constrained(COVARIANCE, grid, fields, periodic=True).mean(some, hole) - some)[:, 0, hole]
        for fields, some in ((("t",), maps[:, :1]), (TQU, maps))
    ]
    assert np.mean(off[1] ** 2) < np.mean(off[0] ** 2)


@pytest.mark.parametrize(("y", "x", "most"), [(0, 0, 0.01), (0, -14, 0.07), (-14, 14, 0.13)])
def test_a_patch_that_is_not_periodic_needs_no_larger_area(y, x, most):
    """Off a much larger area's by so little of the scatter: in the middle, at edge and corner."""
    grid, hole = PatchGrid(5, 32), disc(32, 6, y, x)
    large = Constrained(COVARIANCE, grid, ("t",), beyond=1.5)
    maps = skies(large, 12)
    expected = large.mean(maps, hole)[:, 0, hole]
    scatter = np.sqrt(np.mean((expected - maps[:, 0, hole]) ** 2))

    def off(**settings) -> float:
        found = Constrained(COVARIANCE, grid, ("t",), **settings).mean(maps, hole)[:, 0, hole]
        return np.sqrt(np.mean((found - expected) ** 2)) / scatter

    default = off()
    assert default < most
    assert off(beyond=0.5) < 0.5 * default
    # Opposite edges are not neighbours.
    assert off(periodic=True) > (1 if (y, x) == (0, 0) else 4) * default


@pytest.mark.parametrize("periodic", [True, False])
def test_what_is_seen_is_kept_bit_for_bit_and_what_is_hidden_does_not_matter(way, periodic):
    model = Constrained(COVARIANCE, PatchGrid(2.5, 24), TQU, periodic=periodic)
    maps = skies(model, 4).astype(np.float32)
    holes = np.stack([random_hole(24, number) for number in range(4)])
    holes[2] = False
    found = model.mean(np.where(holes[:, None], np.nan, maps), holes)
    seen = np.broadcast_to(~holes[:, None], maps.shape)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[seen], maps[seen])
    np.testing.assert_array_equal(found, model.mean(maps, holes))
    for index in range(4):  # whatever the maps beside it
        one = slice(index, index + 1)
        np.testing.assert_array_equal(found[one], model.mean(maps[one], holes[one]))
    draws = model.fluctuation(holes, [generator(i, "draw") for i in range(4)])
    assert not draws[seen].any()
    assert draws[:, :, 0, 0].shape == (4, 3)
    again = model.fluctuation(holes[1:2], [generator(1, "draw")])
    np.testing.assert_array_equal(again[0], draws[1])


@pytest.mark.parametrize("periodic", [True, False])
def test_holes_of_no_pixel_of_one_and_of_all(way, periodic):
    model = Constrained(COVARIANCE, SMALL, ("t",), periodic=periodic, tolerance=1e-7)
    maps, none = skies(model, 2), np.zeros((16, 16), bool)
    np.testing.assert_array_equal(model.mean(maps, none), maps)
    assert not model.mean(maps, ~none).any()
    assert not model.fluctuation(np.stack([none] * 2), generator(1)).any()
    assert not model.error(none).any()
    prior = model.error(~none)
    np.testing.assert_allclose(prior, prior[0, 0, 0])
    if periodic:
        single = none.copy()
        single[5, 7] = True
        expected, left = textbook(maps, single, pixel_covariance(SMALL, ("t",)))
        found = model.mean(maps, single)[:, 0, 5, 7]
        np.testing.assert_allclose(found, expected[:, 0], atol=1e-5 * maps.std())
        np.testing.assert_allclose(model.error(single)[0, 5, 7], np.sqrt(left[0, 0]))


def test_of_noise_nothing_is_known():
    """White noise has the mean zero, and all its scatter."""
    noisy = Covariance(ELL, {"tt": np.full(ELL.size, 100 * NOISE)})
    model = Constrained(noisy, SMALL, ("t",), periodic=True)
    hole = disc(16, 4)
    rms = 10 * np.sqrt(NOISE) / SMALL.pixel_rad
    np.testing.assert_allclose(model.error(hole)[0, hole], rms, rtol=1e-6)
    assert np.abs(model.mean(skies(model, 3), hole)[:, :, hole]).max() < 1e-6 * rms


@pytest.mark.parametrize("periodic", [True, False])
def test_what_skies_scatter_about_is_taken_away_and_added(way, periodic):
    """Fields with means of their own are filled as those without; taken for a sky, they are not."""
    settings = {"periodic": periodic, "tolerance": 1e-7}
    model = Constrained(COVARIANCE, SMALL, TQU, **settings)
    about = np.array([500.0, -30.0, 0.0])
    shift = about[:, None, None]
    known = Constrained(COVARIANCE, SMALL, TQU, mean=about.tolist(), **settings)
    maps, holes = skies(model, 2), np.stack([disc(16, 3.6), disc(16, 7.0)])
    expected = model.mean(maps, holes) + shift
    found = known.mean(maps + shift, holes)
    np.testing.assert_allclose(found[:, :1], expected[:, :1], rtol=1e-6)
    assert np.abs(found - expected).max() < 1e-6 * 500
    seen = np.broadcast_to(~holes[:, None], maps.shape)
    np.testing.assert_array_equal(found[seen], (maps + shift)[seen])
    off = (model.mean(maps + shift, holes) - expected)[~seen]
    assert np.abs(off).max() > 1e-3 * 500
    # Of nothing seen, it is all that is expected.
    assert (known.mean(maps, np.ones((16, 16), bool)) == shift).all()
    draws = [one.fluctuation(holes, [generator(1), generator(2)]) for one in (model, known)]
    np.testing.assert_array_equal(*draws)


def test_single_precision_does_not_blow_up_where_a_spectrum_ends():
    """A smooth, noiseless sky: known to the floor from maps in single precision."""
    beam = np.exp(-((ELL / 500) ** 2))
    grid = PatchGrid(5, 32)
    smooth, hole = Covariance(ELL, {"tt": TT * beam}), disc(32, 4)
    model = Constrained(smooth, grid, ("t",), periodic=True)
    maps = skies(model, 4)
    off = (model.mean(maps.astype(np.float32), hole) - maps)[:, 0, hole]
    pull = np.mean((off / model.error(hole)[0, hole]) ** 2, axis=1)
    assert np.all(pull < 4)


def test_hard_cases_are_solved_by_matrices_or_told(monkeypatch):
    """Few steps: the matrix takes over; too large for it, an error says so."""
    model = Constrained(COVARIANCE, SMALL, ("t",), periodic=True)
    maps, hole = skies(model, 2), disc(16, 5)
    expected = model.mean(maps, hole)
    monkeypatch.setattr(constrained, "ALONE", 0)
    monkeypatch.setattr(constrained, "MOST", 2)
    found = model.mean(maps, np.stack([hole] * 2))
    np.testing.assert_array_equal(found, expected)
    monkeypatch.setattr(constrained, "LAST_RESORT", 10)
    with pytest.raises(RuntimeError, match=r"not filled to 0\.01 in 2 steps"):
        model.mean(maps, np.stack([hole] * 2))


def test_a_covariance_is_plain_data():
    again = Covariance.from_dict(json.loads(json.dumps(COVARIANCE.to_dict())))
    for name, cl in COVARIANCE.cl.items():
        np.testing.assert_allclose(again.cl[name], cl, rtol=5e-7)
    np.testing.assert_array_equal(again.ell, ELL)
    grid = PatchGrid(5, 16)
    inside = grid.ell > 0
    found = again.on_modes(grid, ("t",))[0, 0]
    expected = on_modes(ELL, COVARIANCE.cl["tt"], grid)
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-6)
    assert found[0, 0] >= found[inside].max()


@pytest.mark.parametrize(
    "values", [{}, {"ell": [0, 1], "cl": {"tt": [1]}}, {"ell": [0], "cl": {"xx": [1]}}, None]
)
def test_a_broken_covariance_is_told(values):
    with pytest.raises(UserError, match="covariance: expected"):
        Covariance.from_dict(values)


def test_mistakes_are_told():
    with pytest.raises(UserError, match="fields: expected some of t, q and u"):
        Constrained(COVARIANCE, SMALL, ("kappa",))
    with pytest.raises(UserError, match=r"covariance: expected spectra bb, ee, found no \['bb'"):
        Constrained(Covariance(ELL, {"tt": TT, "ee": EE}), SMALL, ("q", "u"))
    for mean in ([1.0, 2.0], [], [np.nan]):
        with pytest.raises(UserError, match="mean: expected 1 finite values, one a field"):
            Constrained(COVARIANCE, SMALL, ("t",), mean=mean)
    model, hole = Constrained(COVARIANCE, SMALL, ("t",)), disc(16, 3)
    maps = skies(model, 2)
    with pytest.raises(UserError, match="maps: expected shape"):
        model.mean(maps[0], hole)
    with pytest.raises(UserError, match="holes: expected bool"):
        model.mean(maps, hole.astype(float))
    with pytest.raises(UserError, match="holes: expected bool"):
        model.mean(maps, np.stack([hole] * 3))
    with pytest.raises(UserError, match="finite values where they are seen"):
        model.mean(np.where(disc(16, 4), np.nan, maps), hole)
