"""Scaling of patches: back again, across zero crossings, and past point sources."""

from contextlib import closing

import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter

from skyweave.data.scaling import (
    CLIP,
    MinMax,
    clipped_variance,
    evened,
    location_and_scale,
    match,
    ratio,
)
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import UserError
from skyweave.seeds import generator

N = 64
Y, X = np.mgrid[:N, :N].astype(float)


def patches(*identity, n=4, smooth=0.0):
    white = generator(11, *identity).standard_normal((n, N, N))
    return gaussian_filter(white, (0, smooth, smooth), mode="wrap") if smooth else white


def beam(y, x, sigma):
    return np.exp(-((Y - y) ** 2 + (X - x) ** 2) / (2 * sigma**2))


# MinMax


def test_scaled_patches_span_minus_one_to_one_and_come_back():
    maps = patches("minmax", smooth=1.0) * 10.0 ** np.arange(-2, 2)[:, None, None]
    maps = (maps + np.array([0, 1e-1, -3, 50])[:, None, None]).astype(np.float32)
    before = maps.copy()
    scaling = MinMax.fit(maps)
    scaled = scaling.apply(maps)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled.min(axis=(1, 2)), -1)
    np.testing.assert_array_equal(scaled.max(axis=(1, 2)), 1)
    back = scaling.undo(scaled)
    assert back.dtype == np.float32
    largest = np.abs(maps).max(axis=(1, 2), keepdims=True)
    assert (np.abs(back - maps) / largest).max() < 1e-6
    np.testing.assert_array_equal(maps, before)


def test_a_mask_hides_what_it_leaves_out():
    maps = patches("mask")
    maps[:, 0] = np.nan
    maps[:, 1] = 1e9
    inside = Y > 1
    np.testing.assert_array_equal(MinMax.fit(maps, inside).high, maps[:, 2:].max(axis=(1, 2)))
    each = np.stack([Y > 1, Y > 10, Y > 20, Y > 30])
    np.testing.assert_array_equal(MinMax.fit(maps, each).low[3], maps[3, 31:].min())


def test_a_shard_keeps_the_scaling_to_the_same_bits(tmp_path):
    maps = patches("shard").astype(np.float32)
    scaling = MinMax.fit(maps * np.pi)
    write_shard(
        tmp_path / "s.h5",
        {"high": scaling.apply(maps)},
        realizations=np.arange(4),
        size_deg=20.0,
        units={"high": ""},
        provenance={},
        labels=scaling.labels("high") | {"place": np.arange(4)},
    )
    with closing(ShardSet([tmp_path / "s.h5"])) as shards:
        found = MinMax.from_labels(shards.labels, "high")
    np.testing.assert_array_equal(found.low, scaling.low)
    np.testing.assert_array_equal(found.high, scaling.high)
    assert set(scaling.labels()) == {"low", "high"}
    np.testing.assert_array_equal(MinMax.from_labels(scaling.labels()).low, scaling.low)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_a_patch_that_cannot_be_scaled_is_named(value):
    maps = patches("named")
    maps[2] = value
    with pytest.raises(UserError, match=r"^patch 2: expected finite values, not all the same"):
        MinMax.fit(maps)
    with pytest.raises(UserError, match=r"^patch 0: "):
        MinMax.fit(patches("named"), np.zeros((N, N)))


def test_numbers_that_do_not_fit_are_refused():
    scaling = MinMax.fit(patches("fit"))
    with pytest.raises(UserError, match="expected 4 patches"):
        scaling.apply(patches("fit", n=3))
    with pytest.raises(UserError, match="labels: expected 'ratio_low', found high_low, high_high"):
        MinMax.from_labels(scaling.labels("high"), "ratio")
    with pytest.raises(UserError, match="a lowest and a highest value a patch"):
        MinMax.from_labels({"low": np.zeros(3), "high": np.ones(4)})


# The ratio


def test_the_ratio_is_taken_where_the_low_map_is_not_zero():
    low, high = 3 + patches("low", smooth=2.0), patches("high")
    found, bad = ratio(high, low)
    assert not bad.any()
    np.testing.assert_array_equal(found, high / low)
    assert ratio(high.astype(np.float32), low.astype(np.float32))[0].dtype == np.float32


def test_zero_crossings_are_filled_by_their_nearest_neighbours():
    low, high = np.tile(X - 20, (2, 1, 1)), np.ones((2, N, N))
    low[1] *= -1e-20
    found, bad = ratio(high, low)
    np.testing.assert_array_equal(bad, np.tile(X == 20, (2, 1, 1)))
    assert np.isfinite(found).all()
    assert np.isin(found[0, :, 20], [-1, 1]).all()
    np.testing.assert_array_equal(found[~bad], (high / np.where(bad, 1, low))[~bad])


def test_pixels_below_the_floor_are_as_many_as_a_normal_law_has():
    low, high = patches("floor", n=50), patches("above", n=50)
    bad = ratio(high, low, floor=0.02)[1]
    expected = bad.size * (2 * stats.norm.cdf(0.02) - 1)
    # The rms of a patch is its own, within 1/sqrt(2 N²): three deviations of a Poisson number.
    assert bad.sum() == pytest.approx(expected, abs=3 * expected**0.5)


def test_what_is_not_finite_or_overflows_is_flagged_and_filled():
    low, high = np.full((1, N, N), 2.0, np.float32), np.full((1, N, N), 6.0, np.float32)
    low[0, 3, 4], high[0, 5, 6], high[0, 7, 8] = np.nan, np.inf, 3e38
    low[0, 7, 8] = 0.01
    found, bad = ratio(high, low)
    assert {tuple(place) for place in np.argwhere(bad[0]).tolist()} == {(3, 4), (5, 6), (7, 8)}
    np.testing.assert_array_equal(found, np.full((1, N, N), 3.0, np.float32))


def test_a_patch_with_nothing_to_divide_by_is_named():
    low = patches("nothing")
    low[1] = 0
    with pytest.raises(UserError, match=r"^patch 1: expected pixels to divide by, found none$"):
        ratio(low, low)
    with pytest.raises(UserError, match="the same shape"):
        ratio(low, low[:2])
    with pytest.raises(UserError, match="floor"):
        ratio(low, low, floor=np.nan)


# Mean and standard deviation


@pytest.mark.parametrize("clip", [0.5, 1.0, CLIP])
def test_the_clipped_variance_is_scipys_of_a_truncated_normal_law(clip):
    assert clipped_variance(clip) == pytest.approx(stats.truncnorm(-clip, clip).var(), rel=1e-12)


def test_the_robust_scale_of_a_normal_law_is_its_standard_deviation():
    quantiles = stats.norm.ppf((np.arange(1_000_000) + 0.5) / 1_000_000)
    location, scale = location_and_scale((5 + 2 * quantiles).reshape(1, 1000, 1000))
    assert location[0] == pytest.approx(5, abs=1e-6)
    assert scale[0] == pytest.approx(2, rel=1e-5)


def test_random_gaussian_patches_are_scaled_without_bias():
    scales = location_and_scale(3 * patches("bias", n=200))[1]
    error = scales.std(ddof=1) / 200**0.5
    assert error < 3 * 1.3 / (2 * N**2 * 200) ** 0.5
    assert scales.mean() == pytest.approx(3, abs=3 * error)


@pytest.mark.parametrize("robust", [True, False])
def test_patches_come_to_their_means_and_stds(robust):
    maps, means, stds = patches("match", smooth=1.0), np.array([0, 1, -5, 1e3]), np.arange(1, 5)
    found = match(maps * 7 + 3, means, stds, robust=robust)
    assert found.dtype == np.float32
    measured = (
        location_and_scale(found)
        if robust
        else (found.mean((1, 2), float), found.std((1, 2), float))
    )
    np.testing.assert_allclose(measured[0], means, atol=1e-4)
    np.testing.assert_allclose(measured[1], stds, rtol=1e-4)
    # There and back, to the rounding of float32 at the largest value.
    back = match(found, 3.0, measured[1] * 0 + 1, robust=robust)
    again = match(maps, 3.0, 1.0, robust=robust)
    assert np.abs(back - again)[:3].max() < 1e-5


def test_a_point_source_sets_the_published_scale_and_not_the_robust_one():
    clean = patches("source", n=8, smooth=1.5)
    clean /= clean.std(axis=(1, 2), keepdims=True)
    dirty = clean + 100 * beam(30.3, 21.6, 1.27)
    robust = location_and_scale(dirty)[1] / location_and_scale(clean)[1]
    published = dirty.std(axis=(1, 2)) / clean.std(axis=(1, 2))
    assert np.abs(robust - 1).max() < 0.02
    assert (published > 1.5).all()
    # What is far from the source keeps its amplitude one way, and not the other.
    far = beam(30.3, 21.6, 6.0) < 1e-6
    for way, low, high in ((True, 0.95, 1.05), (False, 0, 0.5)):
        found, wanted = (match(maps, 0.0, 1.0, robust=way)[:, far] for maps in (dirty, clean))
        share = found.std(axis=1) / wanted.std(axis=1)
        assert (share > low).all()
        assert (share < high).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "finite values, found others"), (2.0, "values that vary, found 2 in most pixels")],
)
@pytest.mark.parametrize("robust", [True, False])
def test_a_patch_that_cannot_be_matched_is_named(value, message, robust):
    maps = patches("wrong")
    maps[3] = value
    with pytest.raises(UserError, match=f"^patch 3: expected {message}$"):
        match(maps, 0.0, 1.0, robust=robust)


def test_a_target_that_cannot_be_is_refused():
    maps = patches("target")
    for means, stds, message in (
        (np.zeros(3), 1.0, "means: expected one number"),
        (np.nan, 1.0, "means: expected finite"),
        (0.0, 0.0, "stds: expected numbers above 0"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            match(maps, means, stds)
        assert "\n" not in str(caught.value)


# Edges and middle

DEPTH = np.minimum(np.minimum(X, N - 1 - X), np.minimum(Y, N - 1 - Y))


def uneven(n=200, growth=2.0):
    """Maps that vary `1 + growth` times as much at their edges, each with a scale of its own."""
    scale = 10.0 ** np.linspace(-2, 2, n)[:, None, None]
    return scale * (7 + (1 + growth * (1 - DEPTH / DEPTH.max())) * patches("uneven", n=n))


def by_depth(maps):
    """Mean square about the median by distance from the edge, over that of the whole maps, and
    its standard error for independent normal pixels."""
    away = (maps - np.median(maps, axis=(1, 2), keepdims=True)).astype(float)
    away /= away.std(axis=(1, 2), keepdims=True)
    ring = (DEPTH // 4).astype(int).ravel()
    count = np.bincount(ring)
    square = np.bincount(ring, (away**2).mean(axis=0).ravel()) / count
    return square, np.sqrt(2 / (len(maps) * count))


def test_what_varies_more_at_the_edges_is_evened():
    maps = uneven()
    before, error = by_depth(maps)
    assert before[0] > 4 * before[-1]
    found = evened(maps)
    assert found.dtype == np.float32
    after, error = by_depth(found)
    # The profile is measured on the same maps, in other rings, and taken as straight in each.
    assert (np.abs(after - 1) < np.maximum(4 * error, 0.03)).all()


def test_maps_that_are_even_stay_as_they_are():
    maps = uneven(growth=0.0)
    away = maps - np.median(maps, axis=(1, 2), keepdims=True)
    factor = (evened(maps) - np.median(maps, axis=(1, 2), keepdims=True))[0] / away[0]
    # The innermost of twelve rings has 4 x 4 pixels or more of 200 maps.
    assert np.abs(factor[away[0] != 0] - 1).max() < 4 * np.sqrt(1 / (2 * 200 * 16))


def test_medians_and_mean_squares_stay():
    maps = uneven()
    found = evened(maps)
    middle, scale = location_and_scale(maps)
    # A median lies between two values, which the step from one to the next may change.
    assert (np.abs(np.median(found, axis=(1, 2)) - middle) < 2e-3 * scale).all()
    before, after = (
        np.mean(((values - middle[:, None, None]) / scale[:, None, None]) ** 2)
        for values in (maps, found)
    )
    # The rms falls within a ring, and is taken as straight from one to the next.
    assert after == pytest.approx(before, rel=0.03)


def test_a_source_does_not_change_what_is_evened():
    maps = uneven()
    clean, scale = evened(maps), location_and_scale(maps)[1][:, None, None]
    maps[3, 2, 30] += 1e4 * maps[3].std()
    away = np.abs(evened(maps) - clean) / scale
    away[3, 2, 30] = 0
    # It counts as five deviations: 25 in the 1.4e5 pixels of its ring.
    assert away.max() < 1e-3


@pytest.mark.parametrize("pixels", [4, 16, 23, 24])
def test_patches_with_few_pixels_are_evened(pixels):
    """Their distances from the edge are fewer than those that are told apart."""
    white = generator(11, "few", pixels).standard_normal((400, pixels, pixels))
    edge = np.zeros((pixels, pixels), bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    found = evened(np.where(edge, 1.5 * white, white))
    rms = [found[:, where].std() for where in (edge, ~edge)]
    # An rms of k normal numbers is known to sqrt(1 / 2k).
    error = np.hypot(*(np.sqrt(1 / (800 * where.sum())) for where in (edge, ~edge)))
    assert rms[0] / rms[1] == pytest.approx(1, abs=4 * error)
