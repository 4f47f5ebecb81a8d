"""Lensing: the displacement against exact shifts, and lensed spectra against CAMB's."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from skyweave.config import Effects, Grid, Spectra
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb
from skyweave.simulation.effects import deflection, displace, lens
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
        displace(field, 3 * ones, -5 * ones), np.roll(field, (-3, 5), (0, 1)), atol=1e-9
    )


@pytest.mark.parametrize(("part", "loss"), [(0.25, 1e-5), (0.5, 2e-3)])
def test_shift_between_pixels_is_a_phase(part, loss):
    """out(x) = field(x + d), against the shift theorem, for waves below a part of Nyquist."""
    field = smooth_field(GRID, part * GRID.ell_nyquist)
    down, right = 0.37, -1.42
    ones = np.ones_like(field)
    phase = np.exp(1j * (GRID.ell_y * down + GRID.ell_x * right) * GRID.pixel_rad)
    exact = inverse(forward(field, GRID) * phase, GRID)
    difference = displace(field, down * ones, right * ones) - exact
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
    lensed = lens(spot, forward(kappa, GRID), GRID)
    # Of the patch's mean, which is not lensed, kappa is short.
    local = sign * 0.1 - kappa.mean()
    assert_allclose(lensed.sum() / spot.sum(), (1 - local) ** -2, rtol=0.02)
    assert (lensed.sum() > spot.sum()) == (sign > 0)


# Of 10° and 1.875': the longest lensing waves, below ell 72, don't fit a 5° patch; and the order-5
# spline's loss, 1 % of the power at ell 3000 on the paper's 2.34' pixels, is 0.3 % on these.
WIDE = Grid(size_deg=10.0, pixels=320)
PATCHES = 240
#: What is left of that loss and of the flat sky, in the comparison by chi².
MODEL = 0.004


@pytest.fixture(scope="module")
def table() -> SpectraTable:
    return compute(Spectra(lmax=5760))


@pytest.fixture(scope="module")
def bands(table) -> dict[str, np.ndarray]:
    """Band powers, (patches, bins), of lensed and unlensed fields of the same skies."""
    grid, bins = PatchGrid(WIDE.size_deg, WIDE.pixels), Bins.linear(200, 3000, 100)
    effects = Effects(reionization=False, null_fraction=0, taper_deg=0)
    pairs = {"tt": "TT", "ee": "EE", "bb": "BB", "te": "TE", "0tt": "tt", "0ee": "ee", "0te": "te"}
    found: dict[str, list[np.ndarray]] = {name: [] for name in pairs}
    for start in range(0, PATCHES, 10):
        maps = simulate(
            table,
            WIDE,
            effects,
            seed=11,
            dataset="lensing",
            realizations=range(start, start + 10),
            fields=("t_obs", "q_obs", "u_obs", "t_prim", "e_prim"),
        )
        modes = {name: forward(stack, grid) for name, stack in maps.items()}
        e, b = rotate_to_eb(modes["q_obs"], modes["u_obs"], grid)
        letters = {"T": modes["t_obs"], "E": e, "B": b, "t": modes["t_prim"], "e": modes["e_prim"]}
        for name, (first, second) in pairs.items():
            product = power(letters[first], letters[second], grid)
            found[name].append(bin_power(product, grid, bins))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def against_camb(table, bands, name) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean band power of the lensed patches, its error, and CAMB's.

    The sky's own scatter is taken out: lensed minus unlensed of the same patches, plus the known
    unlensed spectrum. B has no unlensed part.
    """
    grid, bins = PatchGrid(WIDE.size_deg, WIDE.pixels), Bins.linear(200, 3000, 100)
    measured = bands[name]
    if name != "bb":
        measured = measured - bands[f"0{name}"] + bin_power(table.on_modes(name, grid), grid, bins)
    error = measured.std(axis=0, ddof=1) / np.sqrt(PATCHES)
    camb = bin_power(table.on_modes(f"lensed_{name}", grid), grid, bins)
    return measured.mean(axis=0), error, camb


@pytest.mark.parametrize("name", ["tt", "ee", "bb"])
def test_lensed_spectra_are_those_of_camb(table, bands, name):
    """Every band of 100 in ell 200–3000 to 2 %, all of them together to 0.5 %, and no band further
    off than its scatter allows (chi², with 0.4 % for what the patch cannot hold)."""
    mean, error, camb = against_camb(table, bands, name)
    assert np.max(error / camb) < (0.011 if name == "bb" else 0.004)
    assert np.max(np.abs(mean / camb - 1)) < 0.02
    assert abs(np.mean(mean / camb - 1)) < 0.005
    chi2 = np.sum((mean - camb) ** 2 / (error**2 + (MODEL * camb) ** 2))
    assert stats.chi2.sf(chi2, len(mean)) > 0.001


@pytest.mark.parametrize("name", ["tt", "ee"])
def test_strength_of_lensing_is_that_of_camb(table, bands, name):
    """The fitted factor on CAMB's lensed minus unlensed spectrum is 1, within 3 errors of
    at most 2 %."""
    grid, bins = PatchGrid(WIDE.size_deg, WIDE.pixels), Bins.linear(200, 3000, 100)
    mean, error, camb = against_camb(table, bands, name)
    unlensed = bin_power(table.on_modes(name, grid), grid, bins)
    effect = camb - unlensed
    weight = 1 / (error**2 + (MODEL * camb) ** 2)
    spread = 1 / np.sqrt(np.sum(weight * effect**2))
    strength = np.sum(weight * effect * (mean - unlensed)) * spread**2
    assert spread < 0.02
    assert abs(strength - 1) < 3 * spread


def test_lensed_te_is_that_of_camb(table, bands):
    """TE crosses zero: its difference against sqrt(TT EE), to 1 % in every band."""
    mean, error, camb = against_camb(table, bands, "te")
    scale = np.sqrt(against_camb(table, bands, "tt")[2] * against_camb(table, bands, "ee")[2])
    assert np.max(np.abs(mean - camb) / scale) < 0.01
    chi2 = np.sum((mean - camb) ** 2 / (error**2 + (MODEL * scale) ** 2))
    assert stats.chi2.sf(chi2, len(mean)) > 0.001


def lensed_over_camb(table, oversample: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Ratio to CAMB and its error, in bands of 200, of 120 patches of 10° and 128²."""
    settings = Grid(size_deg=10.0, pixels=128, oversample=oversample)
    grid, bins = PatchGrid(10.0, 128), Bins.linear(200, 2200, 200)
    maps = simulate(
        table,
        settings,
        Effects(reionization=False, null_fraction=0, taper_deg=0),
        seed=12,
        dataset="coarse",
        realizations=range(120),
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
    """On the quick study's pixels of 4.7', oversampled twice: 2 % up to their Nyquist multipole."""
    found = lensed_over_camb(table, oversample=2)
    for name in ("tt", "ee"):
        ratio, error = found[name]
        assert error.max() < 0.005
        assert np.abs(ratio - 1).max() < 0.02
    ratio, error = found["bb"]
    assert abs(ratio.mean() - 1) < 0.02
    assert stats.chi2.sf(np.sum((ratio - 1) ** 2 / error**2), len(ratio)) > 0.001
    # Without it the spline takes a tenth of the power of the last band.
    assert lensed_over_camb(table, oversample=1)["tt"][0][-1] < 0.92
