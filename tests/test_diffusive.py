"""Harmonic filling: exact where it can be, bounded by the edges, and what it refuses."""

import numpy as np
import pytest

from skyweave.errors import UserError
from skyweave.estimators.diffusive import diffuse
from skyweave.seeds import generator

PIXELS = 24


def random_maps(number: int, *shape: int) -> np.ndarray:
    return generator(number, "maps").standard_normal((*shape, PIXELS, PIXELS))


def block(y: slice, x: slice) -> np.ndarray:
    hole = np.zeros((PIXELS, PIXELS), bool)
    hole[y, x] = True
    return hole


INSIDE = block(slice(5, 17), slice(8, 19))
AT_EDGE = block(slice(0, 9), slice(15, None))


def test_harmonic_polynomials_are_continued_exactly_into_a_hole_inside():
    """Of ramps and saddles a pixel is its neighbours' mean on the lattice too."""
    y, x = np.indices((PIXELS, PIXELS), float)
    maps = np.stack([3 * x - 2 * y + 7, x * y - 4 * x, x**2 - y**2])
    np.testing.assert_allclose(diffuse(maps, INSIDE), maps, rtol=0, atol=1e-9)


@pytest.mark.parametrize("hole", [INSIDE, AT_EDGE], ids=["inside", "at_edge"])
def test_each_pixel_is_the_mean_of_the_neighbours_that_it_has(hole):
    filled = diffuse(random_maps(1, 3), hole)
    for y, x in zip(*np.nonzero(hole), strict=True):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        have = [filled[:, a, b] for a, b in around if 0 <= a < PIXELS and 0 <= b < PIXELS]
        assert np.abs(np.mean(have, axis=0) - filled[:, y, x]).max() < 1e-10


def test_an_edge_reflects_as_if_the_mirrored_map_went_on_behind_it():
    maps = random_maps(2, 2)
    mirrored, hole = np.concatenate([maps[:, ::-1], maps], axis=1), AT_EDGE
    whole = diffuse(mirrored, np.concatenate([hole[::-1], hole]))
    np.testing.assert_allclose(diffuse(maps, hole), whole[:, PIXELS:], rtol=0, atol=1e-10)


def test_a_hole_stays_between_the_least_and_the_largest_seen_beside_it():
    maps = random_maps(3, 4)
    rim = block(slice(4, 18), slice(7, 20)) & ~INSIDE
    filled = diffuse(maps, INSIDE)
    for before, after in zip(maps, filled, strict=True):
        assert before[rim].min() < after[INSIDE].min() < after[INSIDE].max() < before[rim].max()


def test_what_is_seen_is_kept_bit_for_bit_and_what_is_hidden_does_not_matter():
    maps = random_maps(4, 5, 2).astype(np.float32)
    holes = generator(4, "holes").random((5, PIXELS, PIXELS)) < 0.4
    holes[3] = False
    hidden = np.where(holes[:, None], np.nan, maps)
    filled = diffuse(hidden, holes)
    assert filled.dtype == np.float32
    seen = np.broadcast_to(~holes[:, None], maps.shape)
    np.testing.assert_array_equal(filled[seen], maps[seen])
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled, diffuse(maps, holes))
    for index in range(5):
        alone = diffuse(maps[index, 1][None], holes[index])
        np.testing.assert_array_equal(filled[index, 1], alone[0])


def test_one_seen_pixel_spreads_over_all():
    hole = ~block(slice(3, 4), slice(2, 3))
    filled = diffuse(random_maps(5, 1), hole)
    np.testing.assert_allclose(filled, filled[0, 3, 2], rtol=1e-9)


def test_mistakes_are_told():
    maps = random_maps(6, 2)
    with pytest.raises(UserError, match="a pixel that is seen"):
        diffuse(maps, np.stack([INSIDE, np.ones_like(INSIDE)]))
    with pytest.raises(UserError, match="holes: expected bool"):
        diffuse(maps, INSIDE[:-1])
    with pytest.raises(UserError, match="holes: expected bool"):
        diffuse(maps, INSIDE.astype(float))
    with pytest.raises(UserError, match="maps: expected shape"):
        diffuse(maps[0], INSIDE)
    with pytest.raises(UserError, match="finite values where they are seen"):
        diffuse(np.where(AT_EDGE, np.nan, maps), INSIDE)
