"""The Wiener filter of masked Q and U: against the exact solution, and what it expects unseen."""

import numpy as np
import pytest

from skyweave.estimators.wiener import Wiener
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb, rotate_to_qu
from skyweave.seeds import generator
from skyweave.simulation.gaussian import white_modes

SMALL = PatchGrid(2.5, 16)
NOISE = (5 * np.pi / 10800) ** 2  # µK² sr, of 5 µK-arcmin


def spectra(grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """A red E and a flat, fainter B, µK² sr."""
    ell = np.maximum(grid.ell, grid.ell_fundamental)
    return 2e-4 * (ell / 300) ** -2.5, np.full(ell.shape, 2e-6)


def sky(grid: PatchGrid, number: int, ee: np.ndarray, bb: np.ndarray) -> tuple[np.ndarray, ...]:
    """Modes of E and B."""
    return tuple(
        white_modes(generator(1, name, number), grid) * np.sqrt(cl)
        for name, cl in (("e", ee), ("b", bb))
    )


def mask(grid: PatchGrid) -> np.ndarray:
    """A quarter of the area, and a strip, not seen."""
    seen = np.full((grid.pixels,) * 2, True)
    half = grid.pixels // 2
    seen[:half, :half] = seen[-2:] = False
    return seen


def observed(e, b, beam, grid, number) -> np.ndarray:
    qu = inverse(np.stack(rotate_to_qu(e * beam, b * beam, grid)), grid)
    rms = np.sqrt(NOISE) / grid.pixel_rad
    return qu + rms * generator(2, "noise", number).standard_normal(qu.shape)


def test_it_is_the_exact_solution():
    """The same as covariance matrices give, built column by column from the Fourier transforms."""
    grid, seen = SMALL, mask(SMALL)
    (ee, bb), beam = spectra(grid), gaussian_beam(grid.ell, 20)
    maps = observed(*sky(grid, 0, ee, bb), beam, grid, 0)
    white = np.full(grid.ell.shape, NOISE)

    def covariance(spectra_eb, vector):
        e, b = rotate_to_eb(*forward(vector.reshape(2, 16, 16), grid), grid)
        return inverse(np.stack(rotate_to_qu(e * spectra_eb[0], b * spectra_eb[1], grid)), grid)

    keep = np.flatnonzero(np.stack([seen, seen]))
    unit = np.eye(512)
    total = [beam**2 * ee + NOISE, beam**2 * bb + NOISE]
    data = np.array([covariance(total, row).ravel() for row in unit[keep]])[:, keep]
    to_sky = np.array([covariance([beam * ee, beam * bb], row).ravel() for row in unit[keep]])
    expected = to_sky.T @ np.linalg.solve(data, maps.ravel()[keep])

    found = Wiener(grid, ee, bb, beam, white, seen)(*maps)
    found = inverse(np.stack(rotate_to_qu(*found, grid)), grid)
    np.testing.assert_allclose(found.ravel(), expected, atol=0.01 * np.sqrt(np.mean(expected**2)))


def test_pixels_of_their_own_noise_weigh_by_it():
    """Stationary noise, or the same as each pixel's own, is one and the same filter."""
    grid, seen = SMALL, mask(SMALL)
    (ee, bb), beam = spectra(grid), np.ones(SMALL.ell.shape)
    maps = observed(*sky(grid, 1, ee, bb), beam, grid, 1)
    none = np.zeros(grid.ell.shape)
    variance = np.full(seen.shape, NOISE / grid.pixel_rad**2)
    stationary = Wiener(grid, ee, bb, beam, none + NOISE, seen)(*maps)
    own = Wiener(grid, ee, bb, beam, none, seen, variance)(*maps)
    np.testing.assert_allclose(own[0], stationary[0], atol=0.01 * np.abs(own[0]).max())

    # Where noise is very large, nothing is learned: as if not seen.
    loud = np.where(seen, variance, 0) + 1e8 * ~seen
    everywhere = Wiener(grid, ee, bb, beam, none, np.full(seen.shape, True), loud)(*maps)
    np.testing.assert_allclose(everywhere[0], own[0], atol=0.02 * np.abs(own[0]).max())


def test_power_and_error_are_what_theory_says():
    """Without mask: the filtered E has the power C²/(C+N), its error C N/(C+N)."""
    grid = PatchGrid(5.0, 32)
    ee, bb = spectra(grid)
    beam, seen = np.ones(grid.ell.shape), np.full((32, 32), True)
    filtered, errors = [], []
    for number in range(200):
        e, b = sky(grid, number, ee, bb)
        found, _ = Wiener(grid, ee, bb, beam, np.full(ee.shape, NOISE), seen)(
            *observed(e, b, beam, grid, number)
        )
        filtered.append(np.abs(found) ** 2)
        errors.append(np.abs(found - e) ** 2)
    inside = (grid.ell > 0) & (grid.ell < grid.ell_nyquist * 0.95)
    weight = grid.mode_weight * inside
    for values, theory in ((filtered, ee**2 / (ee + NOISE)), (errors, ee * NOISE / (ee + NOISE))):
        ratio = np.mean(values, axis=0)[inside] / grid.area_sr / theory[inside]
        error = np.sqrt(2 / (200 * weight.sum()))
        assert np.average(ratio, weights=weight[inside]) == pytest.approx(1, abs=4 * error + 0.003)


def test_nothing_seen_is_nothing_found():
    none = np.full((16, 16), False)
    ee, bb = spectra(SMALL)
    filtered = Wiener(SMALL, ee, bb, np.ones(ee.shape), np.full(ee.shape, NOISE), none)
    e, b = filtered(np.ones((16, 16)), np.ones((16, 16)))
    assert not e.any()
    assert not b.any()
