"""Lensing: the displacement against exact shifts, and lensed spectra against CAMB's."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skyweave.config import Effects, Grid, Spectra
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb
from skyweave.flat.spline import displace
from skyweave.seeds import generator
from skyweave.simulation.effects import deflection, lens
from skyweave.simulation.flat_sky import FlatSky
from skyweave.simulation.patch import simulate
from skyweave.simulation.spectra import SpectraTable, compute

GRID = PatchGrid(5.0, 128)


def smooth_field(grid: PatchGrid, highest: float, seed: int = 1) -> np.ndarray:
    modes = forward(np.random.default_rng(seed).standard_normal((grid.pixels,) * 2), grid)
    return inverse(modes * (grid.ell < highest), grid)


def test_shift_by_whole_pixels_is_a_roll():
    field = smooth_field(GRID, 7000)
    ones = np.ones_like(field)
    assert_allclose(
        displace(field[None], 3 * ones, -5 * ones)[0], np.roll(field, (-3, 5), (0, 1)), atol=3e-6
    )


@pytest.mark.parametrize(("part", "loss"), [(0.25, 3e-7), (0.5, 1e-5), (0.9, 1e-3)])
def test_shift_between_pixels_is_a_phase(part, loss):
    """out(x) = field(x + d), against the shift theorem, for waves below a part of Nyquist."""
    field = smooth_field(GRID, part * GRID.ell_nyquist)
    down, right = 0.37, -1.42
    ones = np.ones_like(field)
    phase = np.exp(1j * (GRID.ell_y * down + GRID.ell_x * right) * GRID.pixel_rad)
    exact = inverse(forward(field, GRID) * phase, GRID)
    difference = displace(field[None], down * ones, right * ones)[0] - exact
    assert difference.std() < loss * field.std()


def test_deflection_is_the_gradient_of_the_potential():
    """Finite differences of phi give ∇phi, and -½ its divergence is kappa."""
    kappa = smooth_field(GRID, 400)
    kappa -= kappa.mean()
    modes = forward(kappa, GRID)
    square = np.where(GRID.ell > 0, GRID.ell**2, 1)
    phi = inverse(2 * modes / square, GRID)
    for axis, part in enumerate(deflection(modes, GRID)):
        steps = (np.roll(phi, -1, axis) - np.roll(phi, 1, axis)) / (2 * GRID.pixel_rad)
        assert_allclose(part, steps, atol=0.02 * part.std())
    along_y, along_x = (forward(part, GRID) for part in deflection(modes, GRID))
    divergence = inverse(1j * (GRID.ell_y * along_y + GRID.ell_x * along_x), GRID)
    assert_allclose(-0.5 * divergence, kappa, atol=1e-9 * kappa.std())


@pytest.mark.parametrize("sign", [1, -1])
def test_mass_magnifies(sign):
    """Behind kappa > 0 a spot grows by (1 - kappa)^-2 in area, behind kappa < 0 it shrinks."""
    y, x = (np.indices((128, 128)) - 64) * GRID.pixel_arcmin
    radius = np.hypot(y, x)
    kappa = sign * 0.1 * np.exp(-(radius**2) / (2 * 30**2))
    spot = np.exp(-(radius**2) / (2 * 8**2))
    lensed = lens(spot[None], forward(kappa, GRID), GRID)[0]
    # Of the patch's mean, which is not lensed, kappa is short.
    local = sign * 0.1 - kappa.mean()
    assert_allclose(lensed.sum() / spot.sum(), (1 - local) ** -2, rtol=0.02)
    assert (lensed.sum() > spot.sum()) == (sign > 0)


@pytest.fixture(scope="module")
def table() -> SpectraTable:
    return compute(Spectra(lmax=5760))


def lensed_over_camb(table, oversample: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Ratio to CAMB and its error, in bands of 200, of 60 patches of 20° and 256²."""
    settings = Grid(size_deg=20.0, pixels=256, oversample=oversample)
    grid, bins = PatchGrid(20.0, 256), Bins.linear(200, 2200, 200)
    maps = simulate(
        [table],
        settings,
        Effects(reionization=False, null_fraction=0, taper_deg=0),
        seed=12,
        dataset="coarse",
        realizations=range(60),
        fields=("t_obs", "q_obs", "u_obs", "t_prim", "e_prim"),
    )
    modes = {name: forward(stack, grid) for name, stack in maps.items()}
    e, b = rotate_to_eb(modes["q_obs"], modes["u_obs"], grid)
    found = {}
    for name, lensed, primordial in (
        ("tt", modes["t_obs"], modes["t_prim"]),
        ("ee", e, modes["e_prim"]),
        ("bb", b, None),
    ):
        bands = bin_power(power(lensed, lensed, grid), grid, bins)
        if primordial is not None:
            bands -= bin_power(power(primordial, primordial, grid), grid, bins)
            bands += bin_power(table.on_modes(name, grid), grid, bins)
        camb = bin_power(table.on_modes(f"lensed_{name}", grid), grid, bins)
        error = bands.std(axis=0, ddof=1) / np.sqrt(len(bands))
        found[name] = bands.mean(axis=0) / camb, error / camb
    return found


def test_coarse_pixels_need_a_finer_grid_to_be_lensed_on(table):
    """On the quick study's pixels of 4.7', oversampled twice: up to their Nyquist multipole T and E
    to 1 %, B to 2 %, its own error of 0.6 % among them."""
    found = lensed_over_camb(table, oversample=2)
    for name, bar in {"tt": 0.01, "ee": 0.01, "bb": 0.02}.items():
        ratio, error = found[name]
        assert error.max() < 0.007
        assert np.abs(ratio - 1).max() < bar
    assert abs(found["bb"][0].mean() - 1) < 0.01
    # Without it, what lensing makes of waves near the Nyquist multipole folds back into B.
    assert lensed_over_camb(table, oversample=1)["bb"][0][-1] > 1.5


def test_refined_pixels_hold_the_same_sky():
    """A patch with more pixels has the waves of the one with fewer: the same sky, sampled finer."""
    cl = np.where(np.arange(4000) < 2200, 1e-6, 0.0)
    spectra = dict.fromkeys(("tt", "ee", "bb"), cl) | {"te": 0.3 * cl, "kk": 0.03 * cl}
    few, many = (
        FlatSky(spectra, PatchGrid(5.0, pixels)).maps(
            partial(generator, 3, "same"), ("t_prim", "kappa", "t_sky", "q_sky")
        )
        for pixels in (64, 256)
    )
    for name in ("t_prim", "kappa"):
        assert_allclose(few[name], many[name][::4, ::4], atol=1e-12)
    # Lensing is exact to the spline's accuracy near the coarse Nyquist multipole.
    for name in ("t_sky", "q_sky"):
        assert (few[name] - many[name][::4, ::4]).std() < 1e-3 * few[name].std()
        assert (few[name] - few["t_prim"]).std() > 0.1 * few[name].std()
