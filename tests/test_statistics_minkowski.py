"""Minkowski functionals: shapes, identities, two other codes, and theory for Gaussian fields."""

import contourpy
import numpy as np
import pytest
from scipy import ndimage

from skyweave.errors import UserError
from skyweave.flat.fourier import forward, inverse, on_modes
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.statistics.minkowski import (
    THRESHOLDS,
    functionals,
    gaussian_cells,
    gaussian_theory,
    minkowski_table,
    scaled,
)
from skyweave.statistics.superposition import superposition, superposition_ceiling

N = 64
Y, X = np.mgrid[:N, :N].astype(float)
AREA = (N - 1.0) ** 2


def disc(y, x, radius):
    """Radius minus distance: the set above 0 is the disc."""
    return radius - np.hypot(Y - y, X - x)


def at_zero(image, mask=None):
    """Area, boundary length and Euler characteristic of {image >= 0}, not per area."""
    v0, v1, v2 = functionals(image, np.array([0.0]), mask)[:, 0] * AREA
    return v0, 4 * v1, v2


def noise(*identity, shape=(N, N), smooth=0.0):
    white = generator(3, *identity).standard_normal(shape)
    return ndimage.gaussian_filter(white, smooth) if smooth else white


# The area is that of the pixels above, which for a disc is right to about radius^(2/3) pixels.


def test_one_disc():
    area, length, euler = at_zero(disc(31.3, 30.6, 20.2))
    assert area == pytest.approx(np.sum(disc(31.3, 30.6, 20.2) >= 0))
    assert area == pytest.approx(np.pi * 20.2**2, abs=20.2 ** (2 / 3))
    # Chords are shorter than arcs by (step / radius)² / 24.
    assert length == pytest.approx(2 * np.pi * 20.2, rel=5e-4)
    assert euler == pytest.approx(1, abs=1e-9)


def test_two_discs():
    area, length, euler = at_zero(np.maximum(disc(15.3, 16.1, 9.5), disc(45.4, 43.8, 12.3)))
    assert area == pytest.approx(np.pi * (9.5**2 + 12.3**2), abs=9.5 ** (2 / 3) + 12.3 ** (2 / 3))
    assert length == pytest.approx(2 * np.pi * (9.5 + 12.3), rel=1e-3)
    assert euler == pytest.approx(2, abs=1e-9)


def test_an_annulus_has_two_boundaries_and_no_euler_characteristic():
    image = np.minimum(disc(31.3, 31.6, 25.3), -disc(31.3, 31.6, 12.7))
    area, length, euler = at_zero(image)
    expected = np.pi * (25.3**2 - 12.7**2)
    assert area == pytest.approx(expected, abs=25.3 ** (2 / 3) + 12.7 ** (2 / 3))
    assert length == pytest.approx(2 * np.pi * (25.3 + 12.7), rel=1e-3)
    assert euler == pytest.approx(0, abs=1e-9)


def test_a_half_disc_at_the_edge_counts_half_and_the_edge_is_no_boundary():
    area, length, euler = at_zero(disc(0, 31.5, 20))
    assert area == pytest.approx(np.pi * 20**2 / 2, rel=5e-3)
    assert length == pytest.approx(np.pi * 20, rel=1e-3)
    assert euler == pytest.approx(0.5, abs=1e-9)
    assert at_zero(disc(0, 0, 20))[2] == pytest.approx(0.25, abs=1e-9)


def test_the_side_of_a_pixel_sets_the_unit():
    image = disc(31, 32, 20)
    plain, scaled_up = (functionals(image, np.array([0.0]), pixel=side) for side in (1.0, 2.5))
    np.testing.assert_allclose(scaled_up, plain / np.array([1, 2.5, 2.5**2])[:, None])


@pytest.mark.parametrize(
    ("low", "euler", "length"),
    # Corners 1 above, `low` below, level 0: joined when the mean 1 + low >= 0.
    [(-0.5, -0.5, 2 * 2**0.5 / 3), (-1.0, -0.5, 2**0.5), (-3.0, 0.5, 2 * 2**0.5 / 4)],
)
def test_a_saddle_is_decided_by_the_mean_of_its_cell(low, euler, length):
    for cell in ([[1, low], [low, 1]], [[low, 1], [1, low]]):
        found = functionals(np.array(cell, float), np.array([0.0]))[:, 0]
        np.testing.assert_allclose(found, [0.5, length / 4, euler])


def test_a_checkerboard_is_all_pieces_or_all_holes():
    board = np.where((Y + X) % 2 == 0, 1.0, -1.0)
    apart, joined = functionals(board + 0.0, np.array([-0.1, 0.1]))[2, ::-1]
    # A cell is a saddle wherever: apart, two quarter pieces of the four around it, per cell.
    assert apart == pytest.approx(0.5)
    assert joined == pytest.approx(-0.5)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_a_negative_map_has_the_complement(smooth):
    image = noise("negative", smooth=smooth)
    thresholds = np.quantile(image, np.linspace(0.05, 0.95, 9))
    v0, v1, v2 = functionals(image, thresholds)
    w0, w1, w2 = functionals(-image, -thresholds[::-1])[:, ::-1]
    np.testing.assert_allclose(w0, 1 - v0, atol=1e-12)
    np.testing.assert_allclose(w1, v1, rtol=1e-12)
    np.testing.assert_allclose(w2, -v2, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [np.transpose, np.flipud, np.fliplr, np.rot90],
    ids=["transpose", "flipud", "fliplr", "rot90"],
)
def test_turned_and_mirrored_maps_have_the_same_functionals(change):
    image = noise("turn", smooth=0.7)
    before, after = (functionals(scaled(m), THRESHOLDS) for m in (image, change(image)))
    np.testing.assert_allclose(after, before, atol=1e-12)


def test_the_euler_characteristic_counts_pieces_and_holes():
    """Against labelling: joined saddles make 8-neighbours of the set, 4-neighbours of the rest."""
    for index, share in enumerate((0.2, 0.4, 0.5, 0.6, 0.8)):
        image = np.zeros((N, N))
        image[1:-1, 1:-1] = noise("label", index)[1:-1, 1:-1] > share
        eight, four = np.ones((3, 3)), None
        for threshold, inside, outside in ((0.5, eight, four), (0.51, four, eight)):
            pieces = ndimage.label(image, inside)[1]
            holes = ndimage.label(image == 0, outside)[1] - 1
            found = functionals(image, np.array([threshold]))[2, 0] * AREA
            assert found == pytest.approx(pieces - holes, abs=1e-8)


@pytest.mark.parametrize("smooth", [0.0, 1.5])
def test_the_boundary_is_as_long_as_contourpy_draws_it(smooth):
    image = noise("contour", smooth=smooth)
    for threshold in np.quantile(image, [0.1, 0.5, 0.7]):
        lines = contourpy.contour_generator(z=image, name="serial").lines(threshold)
        drawn = sum(np.hypot(*np.diff(line, axis=0).T).sum() for line in lines)
        found = 4 * functionals(image, np.array([threshold]))[1, 0] * AREA
        assert found == pytest.approx(drawn, rel=1e-10)


def test_every_pixel_is_read():
    """A hole anywhere changes the area, the boundary and the Euler characteristic."""
    size = 12
    full = functionals(np.ones((size, size)), np.array([0.0]))[:, 0]
    np.testing.assert_allclose(full, [1, 0, 0])
    for place in np.ndindex(size, size):
        image = np.ones((size, size))
        image[place] = -1
        # A hole inside takes away 1, at the edge a half, at the corner a quarter.
        on_edge = sum(index in (0, size - 1) for index in place)
        area, length, euler = functionals(image, np.array([0.0]))[:, 0] * (size - 1) ** 2
        assert area == pytest.approx((size - 1) ** 2 - 0.5**on_edge)
        assert 4 * length == pytest.approx(2 * 2**0.5 * 0.5**on_edge)
        assert euler == pytest.approx(-(0.5**on_edge))


def test_thresholds_beyond_the_map():
    image = noise("beyond")
    v0, v1, v2 = functionals(image, np.array([-100.0, image.min(), image.max() + 1e-9, 100.0]))
    np.testing.assert_allclose(v0, [1, 1, 0, 0])
    assert not v1.any()
    assert not v2.any()


def test_a_mask_keeps_whole_cells_and_hides_the_rest():
    image, mask = noise("mask", smooth=1.0), np.zeros((N, N))
    mask[10:40, 5:60] = 0.3
    hidden = np.where(mask > 0, image, np.nan)
    thresholds = np.linspace(-0.3, 0.3, 5)
    expected = functionals(image[10:40, 5:60], thresholds)
    np.testing.assert_allclose(functionals(hidden, thresholds, mask), expected, atol=1e-12)
    np.testing.assert_allclose(
        scaled(hidden, mask)[10:40, 5:60], scaled(image[10:40, 5:60]), atol=1e-12
    )


def test_parts_of_a_map_add_up_to_the_whole():
    image, thresholds = noise("parts", smooth=1.0), np.linspace(-0.3, 0.3, 5)
    # Neighbouring parts share a row of pixels, so that each cell lies in one of them.
    upper, lower = functionals(image[:31], thresholds), functionals(image[30:], thresholds)
    whole = functionals(image, thresholds)
    np.testing.assert_allclose(whole, (30 * upper + 33 * lower) / 63, atol=1e-12)


@pytest.mark.parametrize("grain", [0.0, 0.5, 1e-9])
def test_thresholds_together_are_thresholds_one_by_one(grain):
    """On values of full precision, a few levels, and levels that differ by next to nothing."""
    image = noise("together", smooth=1.0)
    if grain == 0.5:
        image = np.round(image / image.std() / grain) * grain
    elif grain:
        image = np.round(image / image.std()) + grain * noise("grain")
    thresholds = np.concatenate([np.linspace(-2, 2, 60), [2.1, 2.5, 3]])
    alone = [functionals(image, thresholds[i : i + 1])[:, 0] for i in range(len(thresholds))]
    np.testing.assert_allclose(functionals(image, thresholds), np.stack(alone, 1), atol=1e-12)


def test_batches_equal_maps_one_by_one():
    maps = np.stack([noise("batch", i) for i in range(4)]).reshape(2, 2, N, N).astype(np.float32)
    mask = Y > 10
    together = functionals(maps, THRESHOLDS, mask)
    assert together.shape == (2, 2, 3, 32)
    np.testing.assert_array_equal(together[1, 0], functionals(maps[1, 0], THRESHOLDS, mask))


def test_scaled_maps_span_the_thresholds():
    maps = scaled(np.stack([noise("scale", i) * 10**i for i in range(3)]))
    np.testing.assert_allclose(maps.min(axis=(1, 2)), -1)
    np.testing.assert_allclose(maps.max(axis=(1, 2)), 1)
    assert THRESHOLDS[0] == -1
    assert THRESHOLDS[-1] == 1
    assert len(THRESHOLDS) == 32


@pytest.mark.parametrize(
    ("image", "thresholds", "mask", "message"),
    [
        (np.full((4, 4), np.nan), [0.0], None, "finite values"),
        (np.ones((4, 4)), [1.0, 0.0], None, "rising numbers"),
        (np.ones((4, 4)), [0.0], np.eye(4), "2 x 2 pixels"),
    ],
)
def test_what_cannot_be_measured_is_named(image, thresholds, mask, message):
    with pytest.raises(UserError, match=message):
        functionals(image, np.array(thresholds), mask)


def test_a_constant_map_cannot_be_scaled():
    with pytest.raises(UserError, match="not all the same"):
        scaled(np.ones((2, 4, 4)))


# Gaussian fields: a spectrum of coherence length sigma0 / sigma1 = 2 pixels.
GRID = PatchGrid(10.0, 128)
NU = np.linspace(-3, 3, 13)


@pytest.fixture(scope="module")
def gaussian():
    """200 maps, their rms, that of their gradient (1/pixel), correlation at 0, 1 and √2 pixels."""
    coherence = 2 * GRID.pixel_rad
    ell = np.linspace(0, 1.5 * GRID.ell_nyquist, 2000)
    cl = on_modes(ell, np.exp(-((ell * coherence) ** 2)), GRID)
    cl[0, 0] = 0
    weight = GRID.mode_weight / GRID.area_sr
    sigma0 = np.sqrt(np.sum(weight * cl))
    sigma1 = np.sqrt(np.sum(weight * cl * GRID.ell**2)) * GRID.pixel_rad
    white = generator(4, "gaussian").standard_normal((200, 128, 128))
    maps = inverse(forward(white, GRID) * np.sqrt(cl / GRID.pixel_rad**2), GRID)
    xi = inverse(cl.astype(complex), GRID)
    return maps, sigma0, sigma1, np.array([xi[0, 0], xi[0, 1], xi[1, 1]])


def test_gaussian_fields_follow_theory_but_for_the_pixels(gaussian):
    maps, sigma0, sigma1, correlation = gaussian
    assert sigma0 / sigma1 == pytest.approx(2, rel=0.01)
    curves = functionals(maps, NU * sigma0)
    theory = gaussian_theory(NU * sigma0, sigma0, sigma1)
    cells = gaussian_cells(NU * sigma0, correlation)
    error = curves.std(axis=0, ddof=1) / np.sqrt(len(maps))
    pull = (curves.mean(axis=0) - cells) / error
    # 39 correlated numbers: 3.5 is a chance of about 2 %.
    assert np.abs(pull).max() < 3.5
    assert np.sqrt(np.mean(pull**2)) < 1.4
    # The pixels' bias, as a share of each curve's peak: none in area, else below 2 % at this
    # coherence length (it goes as the pixel's area, see below).
    bias = np.abs(cells - theory).max(axis=1) / np.abs(theory).max(axis=1)
    assert bias[0] < 1e-9
    assert 0.01 < bias[1] < 0.02
    assert 0.01 < bias[2] < 0.02


def test_the_bias_of_the_pixels_falls_with_their_area():
    bias = []
    for step in (0.6, 0.3, 0.15):
        correlation = np.exp(-(np.array([0, step, step * 2**0.5]) ** 2) / 2)
        theory = gaussian_theory(NU, 1.0, 2**0.5)
        cells = gaussian_cells(NU, correlation, pixel=step, points=2**16)
        bias.append(np.abs(cells - theory).max(axis=1) / np.abs(theory).max(axis=1))
    ratios = np.array(bias)[:-1, 1:] / np.array(bias)[1:, 1:]
    np.testing.assert_allclose(ratios, 4, rtol=0.1)


def test_theory_in_closed_form():
    v0, v1, v2 = gaussian_theory(np.array([0.0, 2.0]), 2.0, 3.0)
    np.testing.assert_allclose(v0, [0.5, 0.15865525393145707])
    np.testing.assert_allclose(v1[0], 3 / (8 * np.sqrt(2) * 2))
    np.testing.assert_allclose(v2, [0, (2 * np.pi) ** -1.5 * 9 / 8 * np.exp(-0.5)])


def test_halves_of_one_law_overlap_and_lognormal_fields_do_not(gaussian):
    maps, sigma0, *_ = gaussian
    curves = functionals(scaled(maps[:120]))
    other = functionals(scaled(np.exp(maps[120:] / sigma0)))
    ceiling = superposition_ceiling(curves, generator(5, "ceiling"), splits=50)
    assert ceiling.shape == (50, 3)
    assert (ceiling.mean(axis=0) > 0.8).all()
    assert (ceiling < 1).all()
    between = superposition(curves, other)
    assert (between < ceiling.min(axis=0) / 2).all()


def test_table_holds_means_errors_and_spreads(gaussian):
    curves = functionals(scaled(gaussian[0][:10]))
    table = minkowski_table(curves, THRESHOLDS, dataset="d", split="test", field="high")
    assert len(table) == 96
    row = table[(table["statistic"] == "v1") & (table["threshold"] == THRESHOLDS[7])].iloc[0]
    sample = curves[:, 1, 7]
    assert row["value"] == pytest.approx(sample.mean())
    assert row["std"] == pytest.approx(sample.std(ddof=1))
    assert row["error"] == pytest.approx(sample.std(ddof=1) / 10**0.5)
    assert row["n"] == 10
