"""Decoupled spectra: the exact expectation, and theory on Gaussian fields."""

import numpy as np
import pytest

from skyweave.errors import UserError
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import Bins, bin_power, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator
from skyweave.simulation.gaussian import white_modes
from skyweave.statistics.agreement import agreement, grouped
from skyweave.statistics.flat_spectra import cross_spectra, default_bins
from skyweave.statistics.namaster import Workspaces, apodized, expected_spectrum, spectra

GRID = PatchGrid(10.0, 64)
BINS = default_bins(GRID)
# Steep as dust is: what leaks through a mask shows.
CL = np.where(GRID.ell > 0, (GRID.ell + 1e-9) ** -2.5, 0.0)
HOLE = np.ones((64, 64))
HOLE[20:34, 35:50] = 0
MASK = cosine_taper(GRID, 1.0) * apodized(HOLE, GRID, 0.8)
BEAM = (np.arange(4000.0), gaussian_beam(np.arange(4000.0), 12.0))


def gaussian(count, *identity, cl=CL):
    draws = (white_modes(generator(11, *identity, index), GRID) for index in range(count))
    return np.stack([inverse(modes * np.sqrt(cl), GRID) for modes in draws])


def p_value(found, expected):
    return agreement(grouped(found - expected, 15)).p_value


def test_one_matrix_for_each_distinct_mask():
    masks = np.stack([MASK, MASK[::-1], MASK, MASK])
    workspaces = Workspaces(GRID, BINS)
    spectra(gaussian(4, "cache"), masks, workspaces)
    assert len(workspaces) == 2


def test_without_a_mask_they_are_the_plain_spectra():
    maps, ones = gaussian(3, "plain"), np.ones((64, 64))
    plain = cross_spectra(maps, maps, GRID, BINS)
    np.testing.assert_allclose(spectra(maps, ones, Workspaces(GRID, BINS)), plain, rtol=1e-9)


@pytest.mark.parametrize("remove_mean", [False, True])
def test_gaussian_fields_have_the_expected_spectrum(remove_mean):
    """Exact on the pixels, holes, steep spectrum and the removal of the mean included."""
    workspaces = Workspaces(GRID, BINS)
    found = spectra(gaussian(200, "theory"), MASK, workspaces, remove_mean=remove_mean)
    expected = expected_spectrum(CL, MASK, workspaces, remove_mean=remove_mean)
    assert p_value(found, expected) > 0.01


def test_a_spectrum_that_is_flat_in_each_band_is_recovered():
    steps = np.digitize(GRID.ell, BINS.edges)
    bands = np.array([0, *1 / np.arange(1.0, BINS.count + 1), 0])
    cl = bands[steps]
    # The modes beyond the last band are empty, and those below the first are the mean.
    workspaces = Workspaces(GRID, BINS)
    expected = expected_spectrum(cl, MASK, workspaces, remove_mean=False)
    np.testing.assert_allclose(expected, bands[1:-1], rtol=1e-9)
    coupled = workspaces.couple(expected, MASK)
    np.testing.assert_allclose(workspaces.decouple(coupled, MASK), expected, rtol=1e-9)


def test_fifty_patches_follow_the_input_spectrum():
    """Mean over patches with a taper against the band average of the input spectrum."""
    cl = np.where(GRID.ell > 0, 1 / (GRID.ell + 300.0) ** 2, 0.0)
    found = spectra(gaussian(50, "50", cl=cl), cosine_taper(GRID, 2.0), Workspaces(GRID, BINS))
    pull = (found.mean(0) - bin_power(cl, GRID, BINS)) / (found.std(0, ddof=1) / np.sqrt(50))
    # The first band loses the mean, the last gains from the modes beyond it.
    inner = pull[1:-1]
    assert 0.5 < np.mean(inner**2) < 1.6  # chi² per band, 29 bands
    assert np.abs(inner).max() < 3.5


def test_decoupling_frees_a_steep_spectrum_from_leakage():
    """Through a mask with a sharp hole the plain spectrum is wrong where the decoupled is right."""
    mask = cosine_taper(GRID, 1.0) * HOLE
    cl = CL * np.maximum(GRID.ell, 36.0) ** -1.0
    maps, truth = gaussian(100, "leak", cl=cl), bin_power(cl, GRID, BINS)
    plain = cross_spectra(maps * mask, maps * mask, GRID, BINS, taper=mask).mean(axis=0)
    decoupled = spectra(maps, mask, Workspaces(GRID, BINS)).mean(axis=0)
    inner = slice(5, -2)
    assert (plain / truth)[inner].mean() > 1.4
    assert (decoupled / truth)[inner].mean() == pytest.approx(1, abs=0.05)


def test_the_beam_is_divided_out():
    maps = gaussian(20, "beam")
    smooth = inverse(forward(maps, GRID) * gaussian_beam(GRID.ell, 12.0), GRID)
    taper = cosine_taper(GRID, 2.0)
    plain = spectra(maps, taper, Workspaces(GRID, BINS))
    undone = spectra(smooth, taper, Workspaces(GRID, BINS, BEAM))
    # Same patches: what is left is the mixing of neighbouring modes of unlike beam.
    np.testing.assert_allclose(undone.mean(0)[:20], plain.mean(0)[:20], rtol=0.03)


def test_a_mean_leaks_unless_it_is_removed():
    maps = gaussian(5, "mean")
    offset = maps + 100 * maps.std()
    workspaces = Workspaces(GRID, BINS)
    removed = spectra(maps, MASK, workspaces)
    np.testing.assert_allclose(spectra(offset, MASK, workspaces), removed, rtol=1e-6)
    kept = spectra(offset, MASK, workspaces, remove_mean=False)
    assert kept[:, 0].min() > 100 * removed[:, 0].max()


def test_what_is_masked_may_be_anything():
    maps = gaussian(2, "hidden")
    hidden = np.where(MASK > 0, maps, np.nan)
    workspaces = Workspaces(GRID, BINS)
    np.testing.assert_array_equal(
        spectra(hidden, MASK, workspaces), spectra(maps, MASK, workspaces)
    )
    with pytest.raises(UserError, match="map 0: expected finite values under the mask"):
        spectra(hidden, np.ones_like(MASK), workspaces)


def test_inputs_that_do_not_fit_are_named():
    maps, workspaces = gaussian(2, "bad"), Workspaces(GRID, BINS)
    with pytest.raises(UserError, match="mask 0: expected weights from 0"):
        spectra(maps, np.zeros((64, 64)), workspaces)
    with pytest.raises(UserError, match="mask 0: expected weights from 0"):
        spectra(maps, -MASK, workspaces)
    with pytest.raises(UserError, match=r"shape \(n, 64, 64\)"):
        spectra(maps[:, :32], MASK[:32], workspaces)
    with pytest.raises(UserError, match="a mode in each band"):
        Workspaces(GRID, Bins((1.0, 2.0, 100.0)))


def test_apodization_rises_from_the_hole_and_leaves_the_rest():
    width = 0.8
    found = apodized(HOLE, GRID, width)
    assert (found[HOLE == 0] == 0).all()
    y, x = np.mgrid[:64, :64]
    far = np.hypot(np.maximum(20 - y, y - 33).clip(0), np.maximum(35 - x, x - 49).clip(0))
    assert (found[far * 10 / 64 > width * 1.1] == 1).all()
    np.testing.assert_array_equal(apodized(np.ones((64, 64)), GRID, width), 1)
    np.testing.assert_array_equal(apodized(HOLE, GRID, 0), HOLE)


def test_agreement_is_exact_for_correlated_gaussian_numbers():
    """p-values of true hypotheses are uniform, and a shift of a few errors is found."""
    mix = generator(12, "mix").standard_normal((6, 6))
    p = []
    for trial in range(400):
        samples = generator(12, "trial", trial).standard_normal((40, 6)) @ mix
        p.append(agreement(samples).p_value)
    # 400 draws: a share of .1 is known to .015, one of .5 to .025.
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.05)
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.08)
    shifted = agreement(samples + samples.std(axis=0))
    assert shifted.p_value < 1e-6
    assert shifted.chi2_per_dof > 3
    with pytest.raises(UserError, match="more than 30 samples of 6 numbers, found 30"):
        agreement(samples[:30])
