"""Histograms against scipy, bispectra against theory and a plain sum, copies that are found."""

from itertools import pairwise, product

import numpy as np
import pytest
from scipy import stats

from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator
from skyweave.statistics.agreement import agreement
from skyweave.statistics.small_scales import (
    bispectrum,
    input_output_correlation,
    nearest,
    one_point,
    one_point_distance,
    triangles,
)

GRID = PatchGrid(10.0, 48)
#: Up to two thirds of the Nyquist multipole, beyond which three waves alias.
BINS = Bins.linear(0.5 * GRID.ell_fundamental, 16 * GRID.ell_fundamental, 3 * GRID.ell_fundamental)
SHAPES = ("equilateral", "squeezed")


def white(*identity, count=1, grid=GRID):
    """Maps of independent normal numbers: C_ell is the pixel's area."""
    return generator(6, *identity).standard_normal((count, grid.pixels, grid.pixels))


def coloured(maps, grid, slope):
    """White maps given the spectrum (ell / fundamental)^slope, which is returned with them."""
    ell = np.where(grid.ell > 0, grid.ell, np.inf)
    cl = (ell / grid.ell_fundamental) ** slope
    return inverse(forward(maps, grid) * np.sqrt(cl) / grid.pixel_rad, grid), cl


# One point.

EDGES = np.linspace(-6, 6, 241)


def test_density_is_that_of_numpy_inside_the_mask():
    maps, mask = white("density", count=3), np.zeros((48, 48))
    mask[5:30, 7:40] = 0.2
    hidden = np.where(mask > 0, maps, np.nan)
    found = one_point(hidden, EDGES, mask)
    for density, image in zip(found, maps, strict=True):
        expected, _ = np.histogram(image[5:30, 7:40], EDGES, density=True)
        np.testing.assert_allclose(density, expected)
    masks = np.stack([mask, mask, np.ones_like(mask)])
    np.testing.assert_array_equal(
        one_point(np.where(masks, maps, np.nan), EDGES, masks)[:2], found[:2]
    )


def test_density_integrates_to_the_share_within_uneven_edges():
    edges = np.array([-1.0, -0.9, 0.0, 1.0])
    maps = white("share", count=2)
    found = one_point(maps, edges) @ np.diff(edges)
    np.testing.assert_allclose(found, np.mean((maps >= -1) & (maps <= 1), axis=(1, 2)))


def test_distance_is_that_of_scipy_between_the_values():
    """Within the rounding of each value to a bin, 0.05 wide."""
    a, b = white("a", count=4), np.exp(0.5 * white("b", count=5))
    found = one_point_distance(one_point(a, EDGES), one_point(b, EDGES), EDGES)
    expected = stats.wasserstein_distance(a.ravel(), b.ravel())
    assert found == pytest.approx(expected, abs=0.01)
    assert found > 0.8


def test_distance_is_that_of_scipy_between_the_bins():
    """A bin's density against 400 points spread over it, in uneven bins whose functions cross."""
    edges = np.array([0.0, 1.0, 1.5, 4.0, 5.0])
    a, b = np.array([[0.1, 0.8, 0.1, 0.25]]), np.array([[0.4, 0.1, 0.2, 0.05]])
    share_a, share_b = (x[0] * np.diff(edges) for x in (a, b))
    points = np.concatenate(
        [low + (np.arange(400) + 0.5) / 400 * (high - low) for low, high in pairwise(edges)]
    )
    expected = stats.wasserstein_distance(
        points, points, np.repeat(share_a, 400), np.repeat(share_b, 400)
    )
    gap = np.cumsum(share_a / share_a.sum() - share_b / share_b.sum())[:-1]
    assert gap.min() < 0 < gap.max()
    assert one_point_distance(a, b, edges) == pytest.approx(expected, rel=1e-4)
    assert one_point_distance(b, a, edges) == one_point_distance(a, b, edges)
    assert one_point_distance(a, a, edges) == 0


def test_distance_of_gaussian_laws_in_closed_form():
    """A shift by d is d apart; widths s and t are |s - t| sqrt(2 / pi) apart."""
    edges = np.linspace(-40, 40, 4001)
    law = lambda mean, sigma: np.diff(stats.norm.cdf(edges, mean, sigma))[None] / 0.02  # noqa: E731
    assert one_point_distance(law(0, 1), law(3, 1), edges) == pytest.approx(3, rel=1e-6)
    found = one_point_distance(law(0, 1), law(0, 3), edges)
    assert found == pytest.approx(2 * (2 / np.pi) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("image", "edges", "mask", "message"),
    [
        (np.zeros((4, 4)), [0, 0], None, "edges: expected two rising numbers"),
        (np.zeros((4, 4)), [0, 1], np.zeros((4, 4)), "mask 0: expected a pixel"),
        (np.full((4, 4), np.nan), [0, 1], None, "map 0: expected finite values"),
    ],
)
def test_values_without_a_density_are_named(image, edges, mask, message):
    with pytest.raises(UserError, match=message):
        one_point(image[None], np.array(edges), mask)


def test_densities_without_a_distance_are_named():
    one, none = np.ones((2, 3)), np.zeros((2, 3))
    with pytest.raises(UserError, match=r"densities: expected shape \(n, 2\)"):
        one_point_distance(one, one, np.arange(3))
    with pytest.raises(UserError, match="values within the edges"):
        one_point_distance(one, none, np.arange(4))


# Bispectra.


def plain(image, grid, bins, bands, cl=None):
    """Sum over all triangles of the plane: bispectrum, count, mean of 2 (C1 C2 + C2 C3 + C3 C1)."""
    wave = np.fft.fftfreq(grid.pixels, 1 / grid.pixels).astype(int)
    modes = np.fft.fft2(image) * grid.pixel_rad**2
    ell = grid.ell_fundamental * np.hypot(wave[:, None], wave[None, :])
    power = np.zeros(ell.shape) if cl is None else cl(ell)
    sides = [np.argwhere((ell >= bins.edges[b]) & (ell < bins.edges[b + 1])) for b in bands]
    third = {tuple(wave[at]) for at in sides[2]}
    total, count, local = 0.0, 0, 0.0
    for first, second in product(sides[0], sides[1]):
        p, q, r = tuple(first), tuple(second), tuple(-(wave[first] + wave[second]))
        if r in third:
            total += (modes[p] * modes[q] * modes[r]).real
            local += 2 * (power[p] * power[q] + power[q] * power[r] + power[r] * power[p])
            count += 1
    return total / count / grid.area_sr, count, local / count


SMALL = PatchGrid(7.0, 18)
FEW = Bins((0.5 * SMALL.ell_fundamental, 2.5 * SMALL.ell_fundamental, 5.9 * SMALL.ell_fundamental))


@pytest.mark.parametrize("pixels", [18, 19])
@pytest.mark.parametrize("shape", SHAPES)
def test_bispectrum_is_the_plain_sum_over_triangles(pixels, shape):
    grid = PatchGrid(7.0, pixels)
    image = np.exp(white("plain", grid=grid))
    found, bins = bispectrum(image, grid, FEW, shape=shape), triangles(grid, FEW, shape)
    assert found.shape == (1, len(bins.counts))
    assert bins.bands.tolist() == (
        [[0, 0, 0], [1, 1, 1]] if shape == "equilateral" else [[0, 1, 1]]
    )
    np.testing.assert_array_equal(bins.ell, FEW.centres(grid)[bins.bands])
    for value, bands, count in zip(found[0], bins.bands, bins.counts, strict=True):
        expected, number, _ = plain(image[0], grid, FEW, bands)
        assert count == number
        assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("shape", "orders"), [("equilateral", 6), ("squeezed", 2)])
def test_gaussian_fields_have_none_and_scatter_as_theory(shape, orders):
    """White fields: variance orders · A C³ / counts, in every bin."""
    count = 2000
    values = bispectrum(white("gaussian", count=count), GRID, BINS, shape=shape)
    assert agreement(values).p_value > 0.01
    counts = triangles(GRID, BINS, shape).counts
    variance = orders * GRID.area_sr * GRID.pixel_rad**6 / counts
    # Scatter of a measured variance, from the fourth moment of the values themselves.
    square = values**2 / variance
    error = square.std(axis=0, ddof=1) / np.sqrt(count)
    assert error.max() < 0.06
    assert (np.abs(square.mean(axis=0) - 1) < 3 * error).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tapered", [False, True])
def test_skewed_white_fields_have_the_bispectrum_of_their_pixels(shape, tapered):
    """Independent pixels of third cumulant k: B = k · pixel area², for any weight.

    Exponential numbers have k = 2; f = g + q (g² - 1) of normal numbers g has k = 6 q + 8 q³, which
    to leading order is 2 q (C1 C2 + C2 C3 + C3 C1) / pixel area².
    """
    count, q = 400, 0.1
    weights = cosine_taper(GRID, 1.5) if tapered else None
    if tapered:
        weights[20:25, 10:18] = 0
    exponential = generator(6, "exponential").exponential(size=(count, 48, 48))
    normal = white("local", count=count)
    local = normal + q * (normal**2 - 1)
    for maps, cumulant in ((exponential, 2), (local, 6 * q + 8 * q**3)):
        found = bispectrum(maps, GRID, BINS, weights, shape=shape) / GRID.pixel_rad**4
        assert agreement(found - cumulant).p_value > 0.01
        error = found.std(axis=0, ddof=1) / np.sqrt(count)
        assert (error[1:] < cumulant).all(), "a bispectrum of zero would not be told"


@pytest.mark.parametrize("shape", SHAPES)
def test_local_fields_of_a_steep_spectrum_follow_theory(shape):
    """f = g + q (g² - <g²>): B = 2 q (C1 C2 + C2 C3 + C3 C1), summed over the triangles.

    Half the difference of the fields of q and -q has no noise of order 1 or q²; what is left
    beyond theory is of order q³, 1e-6 of it.
    """
    count, q = 1000, 1e-3
    fields, cl = coloured(white("steep", count=count, grid=SMALL), SMALL, -1.5)
    mean_square = np.sum(SMALL.mode_weight * cl) / SMALL.area_sr
    plus, minus = (
        bispectrum(fields + sign * (fields**2 - mean_square), SMALL, FEW, shape=shape)
        for sign in (q, -q)
    )
    law = lambda ell: np.where(ell > 0, np.maximum(ell, 1) / SMALL.ell_fundamental, np.inf) ** -1.5  # noqa: E731
    bands = triangles(SMALL, FEW, shape).bands
    theory = np.array([plain(fields[0], SMALL, FEW, b, law)[2] for b in bands])
    found = (plus - minus) / (2 * q)
    assert agreement(found - theory).p_value > 0.01
    error = found.std(axis=0, ddof=1) / np.sqrt(count)
    assert (error < 0.1 * theory).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_bispectrum_scales_as_the_cube_and_knows_no_hand(shape):
    maps, taper = np.exp(white("scale", count=3)), cosine_taper(GRID, 1.0)
    found = bispectrum(maps, GRID, BINS, taper, shape=shape)
    same = {"rtol": 1e-9, "atol": 1e-9 * np.abs(found).max()}
    np.testing.assert_allclose(
        bispectrum(-3 * maps, GRID, BINS, taper, shape=shape), -27 * found, **same
    )
    turned = np.rot90(maps[:, ::-1], axes=(1, 2))
    np.testing.assert_allclose(bispectrum(turned, GRID, BINS, taper, shape=shape), found, **same)
    np.testing.assert_allclose(
        bispectrum(maps + 5, GRID, BINS, 2 * taper, shape=shape), found, **same
    )


def test_each_map_has_its_weight_and_none_sees_what_it_hides():
    maps, weights = np.exp(white("hidden", count=130)), np.ones((130, 48, 48))
    weights[::3, 10:20, 10:20] = 0
    hidden = np.where(weights > 0, maps, np.nan)
    together = bispectrum(hidden, GRID, BINS, weights, shape="equilateral")
    for index in (0, 1, 129):
        alone = bispectrum(
            hidden[index : index + 1], GRID, BINS, weights[index], shape="equilateral"
        )
        np.testing.assert_array_equal(together[index], alone[0])


def test_a_bin_without_triangles_is_nan():
    bins = Bins((0.5 * GRID.ell_fundamental, 1.2 * GRID.ell_fundamental, 4 * GRID.ell_fundamental))
    assert triangles(GRID, bins, "equilateral").counts[0] == 0
    found = bispectrum(white("empty"), GRID, bins, shape="equilateral")
    assert np.isnan(found[0]).tolist() == [True, False]


ALIASED = Bins((10.0, 0.7 * GRID.ell_nyquist))


@pytest.mark.parametrize(
    ("maps", "bins", "weights", "shape", "message"),
    [
        (white("bad"), BINS, None, "flat", "shape: expected equilateral or squeezed, found flat"),
        (white("bad"), Bins((0.0, 500.0)), None, "equilateral", "bands above ell = 0"),
        (white("bad"), Bins((10.0, 500.0)), None, "squeezed", "two bands or more"),
        (white("bad"), ALIASED, None, "equilateral", "sum to 1728 or less, found 1814"),
        (white("bad")[0], BINS, None, "equilateral", r"shape \(n, 48, 48\)"),
        (white("bad") * np.nan, BINS, None, "equilateral", "maps 0: expected finite"),
        (white("bad"), BINS, np.ones((2, 48, 48)), "equilateral", "weights: expected shape"),
        (white("bad"), BINS, np.zeros((48, 48)), "equilateral", "not all 0"),
        (white("bad"), BINS, -np.ones((48, 48)), "equilateral", "numbers from 0"),
    ],
)
def test_what_has_no_bispectrum_is_named(maps, bins, weights, shape, message):
    with pytest.raises(UserError, match=message):
        bispectrum(maps, GRID, bins, weights, shape=shape)


# Outputs that follow their inputs.


def test_correlation_with_noise_follows_theory():
    """r of k normal pairs of correlation c: mean c - c (1 - c²) / 2k, scatter (1 - c²) / sqrt(k).

    To next order in 1 / k (Fisher 1915, Biometrika 10, 507).
    """
    count, truth = 300, 0.8
    inputs = white("input", count=count)
    outputs = 5 * (truth * inputs + (1 - truth**2) ** 0.5 * white("noise", count=count))
    found = input_output_correlation(inputs, outputs, GRID, BINS)
    number = BINS.modes(GRID)
    pull = found - truth + truth * (1 - truth**2) / (2 * number)
    scatter = (1 - truth**2) / np.sqrt(number)
    assert agreement(pull[:, number > 50]).p_value > 0.01
    np.testing.assert_allclose(found.std(axis=0)[number > 50], scatter[number > 50], rtol=0.15)


def test_correlation_of_a_multiple_is_one_under_any_weight():
    inputs, weights = white("multiple", count=130), np.tile(cosine_taper(GRID, 2.0), (130, 1, 1))
    weights[::3, 5:9] = 0
    hidden = np.where(weights > 0, inputs, np.nan)
    found = input_output_correlation(hidden, 3 - 2 * hidden, GRID, BINS, weights)
    np.testing.assert_allclose(found, -1, rtol=1e-12)
    assert found.shape == (130, BINS.count)
    unlike = input_output_correlation(hidden, white("unlike", count=130), GRID, BINS, weights)
    assert np.abs(unlike).max() < 1
    assert agreement(unlike).p_value > 0.01


def test_a_map_without_power_has_no_correlation():
    found = input_output_correlation(np.zeros((1, 48, 48)), white("power"), GRID, BINS)
    assert np.isnan(found).all()


def test_pairs_that_do_not_fit_are_named():
    with pytest.raises(UserError, match="outputs: expected one for each of 1 inputs, found 2"):
        input_output_correlation(white("one"), white("two", count=2), GRID, BINS)


# Copies.


def test_copies_are_found_however_turned_and_scaled():
    references = white("references", count=200)
    picks = generator(6, "picks").permutation(200)[:8]
    turned = [
        np.rot90(references[pick], turns) if side else np.rot90(references[pick].T, turns)
        for pick, (side, turns) in zip(picks, product((0, 1), range(4)), strict=True)
    ]
    index, distance, correlation = nearest(7 - 4e3 - 3 * -np.stack(turned), references)
    np.testing.assert_array_equal(index, picks)
    np.testing.assert_allclose(correlation, 1, rtol=1e-9)
    assert distance.max() < 1e-5


def test_distance_of_a_noisy_copy_is_that_of_its_correlation():
    """Distance sqrt(2 (1 - r)), r = c on average with scatter (1 - c²) / sqrt(pixels)."""
    truth, references = 0.6, white("references", count=200)
    copies = truth * references + (1 - truth**2) ** 0.5 * white("copies", count=200)
    index, distance, correlation = nearest(np.rot90(copies, axes=(1, 2)), references)
    np.testing.assert_array_equal(index, np.arange(200))
    np.testing.assert_allclose(distance, np.sqrt(2 * (1 - correlation)))
    scatter = (1 - truth**2) / 48
    assert abs(correlation.mean() - truth) < 3 * scatter / np.sqrt(200)
    assert correlation.std() == pytest.approx(scatter, rel=0.15)


def test_distance_of_independent_noise_is_that_of_the_largest_of_many():
    """Correlations of independent white maps are normal with scatter 1 / sqrt(pixels).

    That of the nearest is the largest of 8 for each reference, which is not far below the mean
    distance sqrt(2) of any two.
    """
    index, distance, correlation = nearest(white("new", count=150), white("known", count=200))
    many = 8 * 200
    x = np.linspace(-8, 8, 20001)
    density = many * stats.norm.pdf(x) * stats.norm.cdf(x) ** (many - 1)
    mean = np.trapezoid(x * density, x)
    sigma = np.sqrt(np.trapezoid((x - mean) ** 2 * density, x))
    assert abs(48 * correlation.mean() - mean) < 3 * sigma / np.sqrt(150)
    assert distance.mean() == pytest.approx(np.sqrt(2 * (1 - mean / 48)), rel=2e-3)
    assert len(np.unique(index)) > 80


def test_nearest_is_the_plain_search():
    maps, references = white("few", count=3)[:, :9, :9], white("many", count=5)[:, :9, :9]
    unit = lambda image: (image - image.mean()) / image.std()  # noqa: E731
    index, distance, _ = nearest(maps.astype(np.float32), references)
    for image, one, far in zip(maps, index, distance, strict=True):
        rms = [
            min(
                np.sqrt(np.mean((unit(np.rot90(side, turns)) - unit(reference)) ** 2))
                for side in (image, image.T)
                for turns in range(4)
            )
            for reference in references
        ]
        assert one == np.argmin(rms)
        assert far == pytest.approx(min(rms), rel=1e-6)


@pytest.mark.parametrize(
    ("maps", "references", "message"),
    [
        (np.zeros((1, 4, 5)), white("ok"), r"maps: expected shape \(n, 5, 5\)"),
        (white("ok"), white("ok")[:, :9], r"references: expected shape \(n, 48, 48\)"),
        (white("ok"), white("ok")[:0], "references: expected at least one"),
        (np.full((1, 48, 48), 0.1), white("ok"), "maps 0: expected values that differ"),
        (white("ok"), white("ok") * np.inf, "references 0: expected finite values"),
    ],
)
def test_what_cannot_be_compared_is_named(maps, references, message):
    with pytest.raises(UserError, match=message):
        nearest(maps, references)
