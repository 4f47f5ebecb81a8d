"""Gaussian small scales: the spectrum goes on as it should, and large scales stay."""

import numpy as np
import pytest

from skyweave.data.scaling import MinMax, location_and_scale, ratio
from skyweave.errors import UserError
from skyweave.estimators.gaussian_small_scales import Law, gaussian_small_scales, power_laws
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator
from skyweave.simulation.gaussian import white_modes
from skyweave.statistics.minkowski import functionals
from skyweave.statistics.superposition import superposition, superposition_ceiling

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
    return filled_from(seen(fields, LOW), **given)


def filled_from(low, **given):
    options = {"seed": 3, "identity": ("a",)} | given
    return gaussian_small_scales(low, GRID, LOW, HIGH, **options)


def tapered_modes(maps, grid):
    """Of maps without their weighted mean: a made patch is not periodic."""
    taper = cosine_taper(grid, 0.15 * grid.size_deg)
    mean = np.sum(maps * taper, axis=(1, 2), keepdims=True) / taper.sum()
    return forward((maps - mean) * taper, grid)


def relative_bands(maps, amplitudes, bins):
    """Mean power in bands, each patch's over its amplitude."""
    modes = tapered_modes(maps, GRID)
    relative = power(modes, modes, GRID) / amplitudes[:, None, None]
    return bin_power(relative.mean(axis=0), GRID, bins)


def test_the_law_is_found(fields):
    """The slope to its error: about 80 modes a patch, over less than an octave."""
    amplitudes, slope = power_laws(seen(fields, LOW), GRID, LOW)
    assert slope == pytest.approx(SLOPE, abs=0.15)
    ratio = amplitudes / AMPLITUDES
    assert ratio.mean() == pytest.approx(1, abs=0.1)
    assert 0.05 < ratio.std() < 0.3, "a patch's own modes are not many"


def test_the_spectrum_is_that_of_the_high_resolution(fields):
    """Of the ensemble, at the multipoles that are drawn: as far off as the fitted law is.

    On a mean that is far larger, so that no patch is brighter here than there.
    """
    bins = Bins.linear(250, 1000, 150)
    low, high = (seen(fields, fwhm) for fwhm in (LOW, HIGH))
    mean = 20 * low.std(axis=(1, 2), keepdims=True)
    found = filled_from(low + mean)
    bands = [relative_bands(maps, AMPLITUDES, bins) for maps in (found, high)]
    amplitudes, slope = power_laws(low + mean, GRID, LOW)
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


# A slope that is given


def test_with_the_slope_given_amplitudes_are_found(fields):
    amplitudes, slope = power_laws(seen(fields, LOW), GRID, LOW, SLOPE)
    assert slope == SLOPE
    over = amplitudes / AMPLITUDES
    # 100 modes, weighted by bands, make 14 % a patch.
    assert over.mean() == pytest.approx(1, abs=4 * over.std() / len(over) ** 0.5)
    assert 0.05 < over.std() < 0.2
    found, fitted = power_laws(seen(fields, LOW), GRID, LOW)
    again = power_laws(seen(fields, LOW), GRID, LOW, fitted)
    np.testing.assert_array_equal(again[0], found)
    assert again[1] == fitted


def test_with_the_slope_given_one_band_is_enough(fields):
    """On a patch so small that the beam leaves its longest waves only."""
    grid = PatchGrid(5.0, 160)
    ell = np.maximum(grid.ell, grid.ell_fundamental)
    white = np.stack([white_modes(generator(2, "small", i), grid) for i in range(100)])
    beam = gaussian_beam(grid.ell, 4 * LOW)
    maps = inverse(white * np.sqrt((ell / 80) ** SLOPE) * beam, grid)
    amplitudes, slope = power_laws(maps, grid, 4 * LOW, SLOPE)
    assert slope == SLOPE
    error = amplitudes.std(ddof=1) / 100**0.5
    assert error < 0.1
    assert amplitudes.mean() == pytest.approx(1, abs=4 * error)


# A law that is learned


def bright(count=40, scatter=1.0, contrast=20.0):
    """Patches (n, y, x) at both resolutions of one law on one mean, and their amplitudes."""
    ell = np.maximum(GRID.ell, GRID.ell_fundamental)
    amplitudes = 100 * np.exp(scatter * generator(5, "amplitude").standard_normal(count))
    white = np.stack([white_modes(generator(5, "bright", i), GRID) for i in range(count)])
    field = white * np.sqrt(amplitudes[:, None, None] * (ell / 80) ** SLOPE)
    low, high = seen(field, LOW), seen(field, HIGH)
    mean = contrast * low.std()
    return low + mean, high + mean, amplitudes


def source(fwhm):
    """A point source of the same flux at any resolution, its peak 1 at `HIGH`."""
    y, x = np.mgrid[: GRID.pixels, : GRID.pixels]
    sigma = fwhm / np.sqrt(8 * np.log(2)) / GRID.pixel_arcmin
    return (HIGH / fwhm) ** 2 * np.exp(-((y - 60) ** 2 + (x - 75) ** 2) / (2 * sigma**2))


@pytest.fixture(scope="module")
def patches():
    return bright()


@pytest.fixture(scope="module")
def law(patches):
    low, high, _ = patches
    return Law.fit(low, high, GRID, LOW, HIGH)


def test_a_law_is_learned_where_both_resolutions_are_known(patches, law):
    """Large scales tell the amplitude to 10 %, far less than what it varies by: gains near 1."""
    low, _, amplitudes = patches
    assert law.slope == pytest.approx(SLOPE, abs=0.03)
    assert law.gain == pytest.approx(1, abs=0.1)
    assert law.power == pytest.approx(1, abs=0.1)
    over = np.log(law.amplitudes(low, GRID, LOW) / amplitudes)
    assert abs(over.mean()) < 0.05
    assert over.std() < 0.15
    assert np.log(amplitudes).std() > 0.8


def test_what_large_scales_say_of_equal_amplitudes_is_not_believed():
    """Their scatter is that of their own few modes: the mean is all that there is to learn."""
    low, high, amplitudes = bright(scatter=0.0)
    law = Law.fit(low, high, GRID, LOW, HIGH)
    assert law.gain < 0.3
    told = power_laws(low, GRID, LOW, law.slope)[0]
    found = law.amplitudes(low, GRID, LOW)
    assert np.log(found).std() < 0.3 * np.log(told).std()
    np.testing.assert_allclose(found, amplitudes, rtol=0.1)


def test_deviations_of_the_ratio_are_those_of_theory(patches):
    """With nothing learned: small Gaussian fluctuations, divided by a mean that is far larger."""
    low, high, _ = patches
    measured = location_and_scale(ratio(high, low)[0])[1]
    expected = Law(SLOPE, 0.0, 1.0).ratio_deviation(low, GRID, LOW, HIGH)
    over = expected / measured
    assert over.mean() == pytest.approx(1, abs=0.03)
    # Half of the amplitudes' error.
    assert over.std() < 0.08
    assert np.log(measured).std() > 0.4


def test_deviations_are_those_of_the_patches_it_was_learned_from(patches, law):
    low, high, _ = patches
    measured = location_and_scale(ratio(high, low)[0])[1]
    over = np.log(law.ratio_deviation(low, GRID, LOW, HIGH) / measured)
    assert over.mean() == pytest.approx(0, abs=1e-9), "least squares"
    assert over.std() < 0.08


@pytest.mark.parametrize("gain", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("finer", [4, 16])
def test_a_law_is_the_same_at_any_scale(patches, gain, finer):
    """The same pixels on smaller patches, with smaller beams, have the same deviation."""
    low = patches[0][:5]
    law = Law(SLOPE, -1.5, gain, 0.8, 0.5)
    grid = PatchGrid(GRID.size_deg / finer, GRID.pixels)
    there, here = (
        law.ratio_deviation(low, *size)
        for size in ((grid, LOW / finer, HIGH / finer), (GRID, LOW, HIGH))
    )
    np.testing.assert_allclose(there, here, rtol=1e-10)
    # An amplitude at ell = 80 is that of a law that went on to longer waves.
    over = law.amplitudes(low, grid, LOW / finer) / law.amplitudes(low, GRID, LOW)
    np.testing.assert_allclose(over, finer ** (-SLOPE - 2), rtol=1e-10)


def test_the_unit_of_the_maps_does_not_matter(patches, law):
    low, high, _ = patches
    other = Law.fit(1e-6 * low, 1e-6 * high, GRID, LOW, HIGH)
    for name, value in law.to_dict().items():
        assert other.to_dict()[name] == pytest.approx(value, rel=1e-6), name
    np.testing.assert_allclose(
        law.ratio_deviation(1e-6 * low, GRID, LOW, HIGH),
        law.ratio_deviation(low, GRID, LOW, HIGH),
        rtol=1e-9,
    )
    np.testing.assert_allclose(
        law.amplitudes(10 * low, GRID, LOW), 100 * law.amplitudes(low, GRID, LOW), rtol=1e-9
    )


@pytest.mark.parametrize(("deviations", "change"), [(30, 0.02), (100, 0.1)])
def test_a_point_source_changes_little(patches, law, deviations, change):
    """In one patch of forty, a faint one; deviations are those of its small scales.

    The ratio's deviation is robust. The power is not: at high resolution a source of 30 has half
    as much as the patch, one of 100 five times.
    """
    low, high, _ = patches
    peak = deviations * (high[7] - low[7]).std()
    dirty = [maps.copy() for maps in (low, high)]
    for maps, fwhm in zip(dirty, (LOW, HIGH), strict=True):
        maps[7] += peak * source(fwhm)
    grown = [power_laws(maps, GRID, HIGH, SLOPE)[0][7] for maps in (dirty[1], high)]
    assert grown[0] > 1.5 * grown[1]
    known = law.ratio_deviation(low, GRID, LOW, HIGH)
    other = Law.fit(*dirty, GRID, LOW, HIGH)
    np.testing.assert_allclose(other.ratio_deviation(low, GRID, LOW, HIGH), known, rtol=change)
    itself = law.ratio_deviation(dirty[0], GRID, LOW, HIGH)
    np.testing.assert_allclose(itself, known, rtol=change)


@pytest.mark.parametrize("count", [1, 3, 5, 7, 11])
def test_from_equal_patches_the_mean_is_learned(patches, count):
    low, high = (np.repeat(maps[:1], count, axis=0) for maps in patches[:2])
    law = Law.fit(low, high, GRID, LOW, HIGH)
    assert (law.gain, law.power) == (0, 0)
    true = power_laws(high, GRID, HIGH)[0]
    np.testing.assert_allclose(law.amplitudes(low, GRID, LOW), true, rtol=1e-9)
    deviation = location_and_scale(ratio(high, low)[0])[1]
    np.testing.assert_allclose(law.ratio_deviation(low, GRID, LOW, HIGH), deviation, rtol=1e-9)


def test_a_patch_that_crosses_zero_has_a_deviation(patches, law):
    """As Q, whose mean says nothing of how bright it is."""
    low = patches[0][:3] - patches[0][:3].mean(axis=(1, 2), keepdims=True)
    for found in (
        law.ratio_deviation(low, GRID, LOW, HIGH),
        law.amplitudes(low, GRID, LOW),
        law.ratio_deviation(-low, GRID, LOW, HIGH),
    ):
        assert np.isfinite(found).all()
        assert (found > 0).all()


def test_a_law_is_kept_as_numbers(law):
    assert Law.from_dict(law.to_dict()) == law
    assert Law.from_dict({"slope": -2, "offset": 0, "gain": 1}) == Law(-2.0, 0.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "the numbers of a law of small scales"),
        (None, "the numbers of a law of small scales"),
        ([1.0, 2.0], "the numbers of a law of small scales"),
        ({"slope": -2, "offset": 0}, "the numbers of a law of small scales"),
        ({"slope": -2, "offset": 0, "gain": "one"}, "the numbers of a law of small scales"),
        ({"slope": -2, "offset": 0, "gain": None}, "the numbers of a law of small scales"),
        ({"slope": -2, "offset": 0, "gain": 1, "mean": 1}, "the numbers of a law of small scales"),
        ({"slope": -2, "offset": 0, "gain": float("nan")}, "finite numbers"),
    ],
)
def test_what_is_no_law_is_one_line(values, expected):
    with pytest.raises(UserError, match=f"^law: expected {expected}, found ") as caught:
        Law.from_dict(values)
    assert "\n" not in str(caught.value)


def test_small_scales_follow_a_law_that_is_given(patches, law):
    """At multipoles that the low resolution has none of, the power is that of the truth."""
    low, high, amplitudes = patches
    found = filled_from(low, identity=("law",), law=law)
    bins = Bins.linear(250, 1000, 150)
    bands = [relative_bands(maps, amplitudes, bins) for maps in (found, high)]
    off = np.mean(law.amplitudes(low, GRID, LOW) / amplitudes)
    off = off * (bins.centres(GRID) / 80) ** (law.slope - SLOPE)
    np.testing.assert_allclose(bands[0] / bands[1] / off, 1, atol=0.03)
    assert abs(off - 1).max() < 0.1


def drawn(low, **given):
    """What two draws of small scales differ by."""
    one, other = (
        gaussian_small_scales(low, GRID, LOW, HIGH, seed=seed, identity=("draw",), **given)
        for seed in (3, 4)
    )
    return one - other


def test_a_law_decides_slope_and_amplitude_only(patches):
    """The draw is the same: what is drawn goes with the root of the amplitude."""
    low = patches[0][:3]
    once, four_times = (drawn(low, law=Law(SLOPE, offset, 1.0)) for offset in (0.0, np.log(4)))
    np.testing.assert_allclose(four_times, 2 * once, atol=1e-9 * low.max())
    slope = power_laws(low, GRID, LOW)[1]
    own = filled_from(low)
    as_law = filled_from(low, law=Law(slope, 0.0, 1.0))
    np.testing.assert_allclose(as_law, own, rtol=1e-9)


def test_small_scales_grow_with_the_brightness(patches):
    """In proportion, from 1 to 3 across a patch; their mean power is the law's. Of any sign."""
    low = patches[0]
    bright = np.linspace(1, 3, GRID.pixels) * low
    law = Law(SLOPE, 0.0, 1.0)
    found = drawn(bright, law=law)
    even = found / bright
    even /= even.std(axis=(1, 2), keepdims=True)
    columns = np.mean(even**2, axis=(0, 1)).reshape(4, -1).mean(axis=1)
    # 40 patches of some 500 waves each, in four parts.
    np.testing.assert_allclose(columns, 1, atol=0.05)
    bins = Bins.linear(300, 900, 150)
    spectrum = (GRID.ell.clip(GRID.ell_fundamental) / 80) ** SLOPE
    modes = tapered_modes(even, GRID)
    shape = bin_power(power(modes, modes, GRID).mean(axis=0), GRID, bins)
    theory = bin_power(spectrum * gaussian_beam(GRID.ell, HIGH) ** 2, GRID, bins)
    np.testing.assert_allclose(shape / theory / np.mean(shape / theory), 1, atol=0.05)
    np.testing.assert_allclose(drawn(-bright, law=law), found, atol=1e-9 * found.max())
    # There nothing is left of the low resolution: all is drawn.
    high_pass = np.where(GRID.ell > 300, GRID.mode_weight, 0)
    modes = forward(found, GRID)
    variance = np.sum(high_pass * power(modes, modes, GRID), axis=(1, 2))
    law_s = 2 * np.sum(high_pass * spectrum * gaussian_beam(GRID.ell, HIGH) ** 2)
    over = variance / (law_s * law.amplitudes(bright, GRID, LOW))
    assert over.mean() == pytest.approx(1, abs=0.05)


# A Gaussian sky, of which patches are cut


WIDE, CUT, CUT_LOW, CUT_HIGH, CUT_SLOPE = PatchGrid(20.0, 256), PatchGrid(10.0, 128), 60, 12, -2.7


@pytest.fixture(scope="module")
def cut():
    """Low and high resolution and what is made of the low, (48, y, x), not periodic."""
    ell = np.maximum(WIDE.ell, WIDE.ell_fundamental)
    seen = {CUT_LOW: [], CUT_HIGH: []}
    for index in range(48):
        field = white_modes(generator(6, "cut", index), WIDE) * np.sqrt((ell / 80) ** CUT_SLOPE)
        for fwhm, maps in seen.items():
            maps.append(inverse(field * gaussian_beam(WIDE.ell, fwhm), WIDE)[64:192, 64:192])
    low, high = (np.stack(maps) for maps in seen.values())
    mean = 20 * low.std()
    law = Law.fit(low + mean, high + mean, CUT, CUT_LOW, CUT_HIGH)
    options = {"seed": 3, "identity": ("cut",), "law": law}
    return (
        low + mean,
        high + mean,
        gaussian_small_scales(low + mean, CUT, CUT_LOW, CUT_HIGH, **options),
    )


@pytest.fixture(scope="module")
def independent(cut):
    """The low resolution and a field of power C (b_high² - b_low²) that knows nothing of it."""
    ell = np.maximum(CUT.ell, CUT.ell_fundamental)
    beams = [gaussian_beam(ell, fwhm) ** 2 for fwhm in (CUT_HIGH, CUT_LOW)]
    factor = np.sqrt((ell / 80) ** CUT_SLOPE * (beams[0] - beams[1]))
    white = [white_modes(generator(6, "independent", i), CUT) for i in range(len(cut[0]))]
    return cut[0] + inverse(np.stack(white) * factor, CUT)


def test_small_scales_of_a_gaussian_sky_have_their_rms(cut, independent):
    """To the edges: an independent field has half as much again, C (b_high - b_low)² is less."""
    low, high, made = cut
    assert (made - low).std() / (high - low).std() == pytest.approx(1, abs=0.05)
    assert (independent - low).std() / (high - low).std() > 1.4


def test_spectra_of_a_gaussian_sky_are_its_own(cut):
    """Up to where the high resolution's beam ends, in the errors of the difference, below 5 %."""
    bins = Bins((*np.arange(36, 325, 36), *np.arange(400, 1500, 100)))
    bands = []
    for maps in cut[1:]:
        modes = tapered_modes(maps, CUT)
        bands.append(bin_power(power(modes, modes, CUT), CUT, bins))
    differ = bands[1] - bands[0]
    error = differ.std(axis=0, ddof=1) / len(differ) ** 0.5
    assert np.max(np.abs(differ.mean(axis=0)) / error) < 4
    assert np.max(error / bands[0].mean(axis=0)) < 0.05


def test_small_scales_are_correlated_with_large_ones_as_the_truth_s(cut):
    """Up to where the low resolution has 3 % of its power left; beyond 0.3 % nothing is known."""
    bins = Bins((*np.arange(36, 253, 36), 600, 900))
    low, high, made = (tapered_modes(maps, CUT) for maps in cut)

    def correlation(modes):
        cross, own, other = (
            bin_power(power(a, b, CUT).mean(axis=0), CUT, bins)
            for a, b in ((low, modes), (low, low), (modes, modes))
        )
        return cross / np.sqrt(own * other)

    np.testing.assert_allclose(correlation(made)[:6], correlation(high)[:6], atol=0.03)
    np.testing.assert_allclose(correlation(made)[:4], 1, atol=0.05)
    assert abs(correlation(made)[-1]) < 0.05


def test_ratios_of_a_gaussian_sky_look_as_its_own(cut, independent):
    """Minkowski functionals lie over the truth's as its halves do over each other."""
    low, high, made = cut
    curves = [functionals(MinMax.fit(x / low).apply(x / low)) for x in (high, made, independent)]
    least = np.quantile(superposition_ceiling(curves[0], generator(6, "halves")), 0.1, axis=0)
    assert (superposition(*curves[:2]) > least).all()
    # An area above a threshold is the least that tells fields apart.
    assert (superposition(curves[0], curves[2]) < least)[1:].all()
