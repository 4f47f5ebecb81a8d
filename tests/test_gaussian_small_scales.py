"""Gaussian small scales: the spectrum goes on as it should, and large scales stay."""

import numpy as np
import pytest

from skyweave.errors import UserError
from skyweave.estimators.gaussian_small_scales import gaussian_small_scales, power_laws
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.simulation.gaussian import white_modes

GRID, LOW, HIGH, SLOPE = PatchGrid(20.0, 160), 80.0, 15.0, -2.6
#: Each patch is so much brighter than the last.
AMPLITUDES = 100.0 * 1.1 ** np.arange(40)


@pytest.fixture(scope="module")
def fields():
    """Modes (n, …) of fields of one law, each of its own amplitude."""
    ell = np.maximum(GRID.ell, GRID.ell_fundamental)
    white = [white_modes(generator(1, "field", i), GRID) for i in range(len(AMPLITUDES))]
    return np.stack(white) * np.sqrt(AMPLITUDES[:, None, None] * (ell / 80) ** SLOPE)


def seen(fields, fwhm):
    return inverse(fields * gaussian_beam(GRID.ell, fwhm), GRID)


def filled(fields, **given):
    options = {"seed": 3, "identity": ("a",)} | given
    return gaussian_small_scales(seen(fields, LOW), GRID, LOW, HIGH, **options)


def test_the_law_is_found(fields):
    """The slope to its error: about 80 modes a patch, over less than an octave."""
    amplitudes, slope = power_laws(seen(fields, LOW), GRID, LOW)
    assert slope == pytest.approx(SLOPE, abs=0.15)
    ratio = amplitudes / AMPLITUDES
    assert ratio.mean() == pytest.approx(1, abs=0.1)
    assert 0.05 < ratio.std() < 0.3, "a patch's own modes are not many"


def test_the_spectrum_is_that_of_the_high_resolution(fields):
    """Of the ensemble, at the multipoles that are drawn: as far off as the fitted law is."""
    bins = Bins.linear(250, 1000, 150)
    bands = []
    for maps in (filled(fields), seen(fields, HIGH)):
        modes = forward(maps, GRID)
        relative = power(modes, modes, GRID) / AMPLITUDES[:, None, None]
        bands.append(bin_power(relative.mean(axis=0), GRID, bins))
    amplitudes, slope = power_laws(seen(fields, LOW), GRID, LOW)
    off = np.mean(amplitudes / AMPLITUDES) * (bins.centres(GRID) / 80) ** (slope - SLOPE)
    np.testing.assert_allclose(bands[0] / bands[1] / off, 1, atol=0.03)


def test_large_scales_stay_and_small_ones_know_nothing_of_the_truth(fields):
    found, truth = (forward(maps, GRID) for maps in (filled(fields), seen(fields, HIGH)))
    bins = Bins((20, 50, 400, 800))
    crosses = [
        bin_power(power(a, b, GRID).mean(axis=0), GRID, bins)
        for a, b in ((found, truth), (found, found), (truth, truth))
    ]
    correlation = crosses[0] / np.sqrt(crosses[1] * crosses[2])
    assert correlation[0] > 0.95
    assert abs(correlation[2]) < 0.03


def test_what_is_added_is_drawn_by_the_patch_and_the_seed(fields):
    one, again = filled(fields[:3]), filled(fields[:3])
    np.testing.assert_array_equal(one, again)
    added = [filled(fields[:3], **given) for given in ({"seed": 4}, {"identity": ("b",)})]
    for other in added:
        assert np.std(other - one) > 0.1 * np.std(one)


def test_what_cannot_be_filled_is_one_line(fields):
    low = seen(fields[:2], LOW)
    with pytest.raises(UserError, match=r"high_arcmin: expected less than 80, found 90"):
        gaussian_small_scales(low, GRID, LOW, 90.0, seed=1, identity=())
    with pytest.raises(UserError, match=r"low_arcmin: expected a beam that leaves three bands"):
        power_laws(low, PatchGrid(5.0, 160), LOW)
    with pytest.raises(UserError, match="patch 1: expected power at all scales, found none"):
        power_laws(np.stack([low[0], 0 * low[0]]), GRID, LOW)
