"""Spectra of the masked sky: what went in comes out, and without a mask healpy's come out."""

import healpy
import numpy as np
import pytest

from skyweave.errors import UserError
from skyweave.seeds import generator
from skyweave.statistics import sky_spectra
from skyweave.statistics.sky_spectra import RISE_DEG, SkySpectra, apodized

NSIDE, LMAX, WIDTH, SKIES = 64, 129, 8, 40
NPIX = 12 * NSIDE**2
#: Bands as NaMaster cuts them: from ell = 2 on, whole ones only.
BAND = (np.arange(LMAX + 1) - 2) // WIDTH


def latitude(nside):
    return np.abs(90 - np.degrees(healpy.pix2ang(nside, np.arange(12 * nside**2))[0]))


def steps(power):
    """A spectrum (LMAX + 1,) that is constant in each band, and zero below the first."""
    values = (1 + np.arange(BAND[-1] + 1.0)) ** power
    return np.where(BAND >= 0, values[BAND], 0)


TT, EE = 3 * steps(-2.0), steps(-2.0)


def modes(cl, *identity):
    """alm of a Gaussian field, drawn by its identity."""
    order = healpy.Alm.getlm(LMAX)[1]
    rng = generator(21, *identity)
    draw = rng.standard_normal((2, order.size)) / np.sqrt(2)
    white = np.where(order == 0, np.sqrt(2) * draw[0], draw[0] + 1j * draw[1])
    return healpy.almxfl(white, np.sqrt(cl))


def intensity(*identity):
    return healpy.alm2map(modes(TT, *identity), NSIDE)


def polarization(e, b):
    return np.stack(healpy.alm2map_spin([e, b], NSIDE, 2, LMAX))


@pytest.fixture(scope="module")
def weight():
    return apodized(latitude(NSIDE) > 20, NSIDE)


@pytest.fixture(scope="module")
def masked(weight):
    return SkySpectra(weight, LMAX, WIDTH)


@pytest.fixture(scope="module")
def whole():
    return SkySpectra(np.ones(NPIX), LMAX, WIDTH)


def pulls(found, cl):
    """Mean spectra over skies (n, nbins), less what went in, in their errors."""
    expected = cl[2 : 2 + WIDTH * found.shape[1] : WIDTH]
    return (found.mean(axis=0) - expected) / (found.std(axis=0, ddof=1) / np.sqrt(len(found)))


# Weights


@pytest.mark.parametrize("nside", [32, 64, 128, 256])
def test_weights_rise_inside_the_mask_and_are_zero_outside(nside):
    """For masks coarser and finer than the weights, and than what they are made at."""
    mask = latitude(nside) > 20
    found, b = apodized(mask, 128), latitude(128)
    step = np.degrees(healpy.nside2resol(min(nside, 128)))
    assert not found[healpy.ud_grade(mask.astype(float), 128) < 1].any()
    assert found.min() == 0
    assert found.max() == 1
    np.testing.assert_allclose(found[b > 20 + RISE_DEG + 3 * step], 1, atol=1e-12)
    between = (b > 20 + step) & (b < 20 + RISE_DEG - step)
    if between.any():
        assert 0.1 < found[between].mean() < 0.9


def test_weights_rise_as_the_sine_that_namaster_names_c1():
    found, b = apodized(latitude(128) > 20, 128), latitude(128)
    x = np.sqrt((1 - np.cos(np.radians(b - 20))) / (1 - np.cos(np.radians(RISE_DEG))))
    expected = np.where(x < 1, x - np.sin(2 * np.pi * x) / (2 * np.pi), 1)
    # The edge of a mask of pixels lies within one of where it was drawn; the slope is at most 2.
    shift = 2 * np.degrees(healpy.nside2resol(128)) / RISE_DEG
    assert np.abs(found - expected)[b > 20].max() < shift


def test_a_whole_sky_has_no_edge():
    np.testing.assert_allclose(apodized(np.ones(NPIX), NSIDE), 1, rtol=1e-12)


def test_a_mask_without_room_is_one_line():
    with pytest.raises(
        UserError, match=r"^mask: expected regions wider than 4 degrees, found none$"
    ):
        apodized(np.zeros(NPIX), NSIDE)
    speckles = np.zeros(NPIX)
    speckles[::7] = 1
    with pytest.raises(UserError, match="regions wider than 4 degrees"):
        apodized(speckles, 32)


# Spectra


def test_temperature_comes_back_from_a_masked_sky(masked):
    found = np.array([masked.tt(intensity("t", sky)) for sky in range(SKIES)])
    np.testing.assert_allclose(masked.ell, 5.5 + WIDTH * np.arange(16))
    away = pulls(found, TT)
    assert np.abs(away).max() < 3.5
    assert 0.4 < np.mean(away**2) < 1.9
    # Two skies know nothing of each other.
    cross = np.array(
        [masked.tt(intensity("t", sky), intensity("t", sky + 1)) for sky in range(0, SKIES, 2)]
    )
    assert np.abs(pulls(cross, 0 * TT)).max() < 4


def test_e_comes_back_from_a_masked_sky_and_b_does_not_come(masked):
    zero = np.zeros(healpy.Alm.getsize(LMAX), complex)
    found = [masked.eb(polarization(modes(EE, "e", sky), zero)) for sky in range(SKIES)]
    ee, bb = (np.array(one) for one in zip(*found, strict=True))
    away = pulls(ee, EE)
    assert np.abs(away).max() < 3.5
    assert 0.4 < np.mean(away**2) < 1.9
    # On average none leaks; what scatters does so by less than a hundredth of E.
    assert np.abs(pulls(bb, 0 * EE)).max() < 4
    assert (np.abs(bb.mean(axis=0)) < 0.01 * ee.mean(axis=0)).all()


def test_b_is_not_taken_for_e(whole, masked):
    zero = np.zeros(healpy.Alm.getsize(LMAX), complex)
    b = polarization(zero, modes(EE, "b"))
    # Waves as long as the mask are neither for sure: in one sky, the first band is left out.
    for spectra, first, share in ((whole, 0, 1e-5), (masked, 1, 0.02)):
        ee, bb = (one[first:] for one in spectra.eb(b))
        assert np.abs(ee).sum() < share * bb.sum()


def test_crossed_spectra_are_those_of_what_is_shared(masked):
    one, other = intensity("one"), intensity("other")
    np.testing.assert_allclose(masked.tt(one, one), masked.tt(one), rtol=1e-12)
    np.testing.assert_allclose(masked.tt(one, other), masked.tt(other, one), rtol=1e-9)
    # (a + b)² = a² + b² + 2 a b.
    crossed = (masked.tt(one + other) - masked.tt(one) - masked.tt(other)) / 2
    np.testing.assert_allclose(masked.tt(one, other), crossed, atol=1e-9 * masked.tt(one).max())
    pair = [polarization(modes(EE, name), modes(EE, name, "b")) for name in ("p", "q")]
    sums = masked.eb(pair[0] + pair[1])
    for found, total, *alone in zip(
        masked.eb(*pair), sums, *(masked.eb(one) for one in pair), strict=True
    ):
        expected = (total - alone[0] - alone[1]) / 2
        np.testing.assert_allclose(found, expected, atol=1e-9 * total.max())


def banded(cl):
    return cl[2 : 2 + 16 * WIDTH].reshape(16, WIDTH).mean(axis=1)


def test_without_a_mask_they_are_healpys(whole):
    t, qu = intensity("whole"), polarization(modes(EE, "whole e"), modes(0.1 * EE, "whole b"))
    expected = healpy.anafast([t, *qu], lmax=LMAX, iter=1)
    np.testing.assert_allclose(whole.tt(t), banded(expected[0]), rtol=1e-6)
    ee, bb = whole.eb(qu)
    np.testing.assert_allclose(ee, banded(expected[1]), rtol=1e-4)
    np.testing.assert_allclose(bb, banded(expected[2]), rtol=1e-3)


def test_without_a_mask_they_are_those_of_the_modes(whole):
    alm = modes(TT, "modes")
    expected = banded(healpy.alm2cl(alm))
    np.testing.assert_allclose(whole.tt(healpy.alm2map(alm, NSIDE)), expected, rtol=1e-3)


def test_a_mask_is_apodized_in_parts(monkeypatch, weight):
    monkeypatch.setattr(sky_spectra, "_STEP", 1000)
    np.testing.assert_array_equal(apodized(latitude(NSIDE) > 20, NSIDE), weight)


def test_one_coupling_matrix_serves_maps_of_a_kind(weight):
    spectra = SkySpectra(weight, 32, 8)
    for name in ("a", "b"):
        spectra.tt(intensity(name))
        spectra.eb(polarization(modes(EE, name), modes(EE, name)))
    assert len(spectra._known) == 2


def test_what_is_hidden_may_be_anything(masked, weight):
    t = intensity("hidden")
    hidden = np.where(weight > 0, t, np.nan)
    np.testing.assert_array_equal(masked.tt(hidden), masked.tt(t))
    with pytest.raises(UserError, match=r"^map: expected finite values inside the mask"):
        masked.tt(np.where(weight == 1, np.nan, t))
    with pytest.raises(UserError, match=r"^map: expected finite values inside the mask"):
        masked.eb(np.stack([t, np.full(NPIX, np.inf)]))


@pytest.mark.parametrize("lmax", [2, 192, 1000])
def test_a_multipole_that_pixels_do_not_have_is_refused(weight, lmax):
    with pytest.raises(UserError, match=rf"^lmax: expected 3 to 191, found {lmax}$"):
        SkySpectra(weight, lmax, 8)
