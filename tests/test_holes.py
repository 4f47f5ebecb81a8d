"""Holes: their areas and shapes, and what decides them."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage

from skyweave.config import Holes
from skyweave.errors import UserError
from skyweave.images.holes import HoleSource, disc, placed_disc, random_holes
from skyweave.seeds import generator

SHAPES = ("line", "disc", "ellipse")


def draws(count, source):
    return np.stack([source(generator(1, "holes", i)) for i in range(count)])


@pytest.mark.parametrize("pixels", [16, 64, 128])
@pytest.mark.parametrize("area", [0.02, 0.25, 0.6])
def test_random_holes_have_their_area_to_a_pixel(pixels, area):
    holes = draws(20, lambda rng: random_holes(pixels, area, rng))
    assert holes.shape == (20, pixels, pixels)
    assert holes.dtype == bool
    # The nearest whole number of pixels, each time.
    assert abs(holes.sum(axis=(1, 2)) - area * pixels**2).max() <= 0.5


def test_random_holes_lie_anywhere():
    holes = draws(400, lambda rng: random_holes(32, 0.25, rng))
    quarters = holes.reshape(400, 2, 16, 2, 16).mean(axis=(2, 4))
    error = quarters.std(axis=0) / 20
    assert (abs(quarters.mean(axis=0) - 0.25) < 4 * error).all()
    # No direction is another's better: sums over rows and columns vary alike.
    spread = [holes.sum(axis=axis).var(axis=1) for axis in (1, 2)]
    difference = spread[0] - spread[1]
    assert abs(difference.mean()) < 4 * difference.std() / 20


def roundness(hole):
    """Of a single shape, the smaller principal axis over the larger, and area over box of both."""
    y, x = np.nonzero(hole)
    # Of squares, not of their middles; sigma is a quarter of an ellipse's axis, and a rectangle's
    # side over the root of 12.
    small, large = np.sqrt(np.linalg.eigvalsh(np.cov(y, x, ddof=0) + np.eye(2) / 12))
    return small / large, hole.sum() / (12 * small * large)


def test_each_kind_of_shape_is_what_it_says():
    found = {}
    for shape in SHAPES:
        # A share below that of any single shape; those that lie whole inside the patch.
        holes = draws(40, lambda rng, shape=shape: random_holes(384, 0.003, rng, (shape,)))
        whole = [
            hole
            for hole in holes
            if ndimage.label(hole)[1] == 1
            and not (hole[0].any() or hole[-1].any() or hole[:, 0].any() or hole[:, -1].any())
        ]
        assert len(whole) > 20
        found[shape] = np.array([roundness(hole) for hole in whole])
    axes, filling = np.moveaxis(np.stack([found[shape].mean(axis=0) for shape in SHAPES]), 1, 0)
    # A disc is round, an ellipse less so, a line least.
    assert axes[1] > 0.95
    assert 0.4 < axes[2] < 0.85
    assert axes[0] < 0.25
    # pi / 3 for discs and ellipses, 1 for rectangles.
    assert filling[1] == pytest.approx(np.pi / 3, abs=0.01)
    assert filling[2] == pytest.approx(np.pi / 3, abs=0.01)
    assert filling[0] == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("radius", [5, 15, 25, 35, 45, 55, 63])
def test_a_disc_has_its_area(radius):
    # Squares about the pixels that are in cover the circle less half a diagonal, and no more than
    # with half a diagonal; of all centres together the mean is the area itself.
    area, edge = np.pi * radius**2, 2 * np.pi * radius
    assert abs(disc(128, radius).sum() - area) < 0.5**0.5 * edge
    rng = generator(3, radius)
    found = np.array([disc(130, radius, 64.5 + rng.uniform(-0.5, 0.5, 2)).sum() for _ in range(40)])
    assert abs(found.mean() - area) < 4 * found.std() / 40**0.5
    assert found.std() < 0.1 * edge


def test_published_discs_cover_half_a_percent_to_four_fifths():
    # The largest is cut by the sides, which take four segments of the circle.
    half = np.arccos(64 / 65)
    segments = 4 * 65**2 * (half - np.sin(half) * np.cos(half))
    assert disc(128, 5).mean() == pytest.approx(0.0048, abs=0.0002)
    assert disc(128, 65).mean() == pytest.approx((np.pi * 65**2 - segments) / 128**2, abs=0.002)
    assert disc(128, 65).mean() == pytest.approx(0.81, abs=0.01)


def test_a_disc_is_the_pixels_within_its_radius():
    found = disc(9, 2.5, (3.2, 5.0))
    for y in range(9):
        for x in range(9):
            assert found[y, x] == ((y - 3.2) ** 2 + (x - 5) ** 2 <= 2.5**2)
    for pixels in (8, 9):
        centred = disc(pixels, 3)
        for turned in (centred[::-1], centred[:, ::-1], centred.T):
            np.testing.assert_array_equal(turned, centred)


def test_placed_discs_lie_anywhere_inside():
    holes = draws(300, lambda rng: placed_disc(32, 6, rng))
    # A cut disc would lack more than its rasters differ.
    assert holes.sum(axis=(1, 2)).min() > 0.93 * np.pi * 36
    centres = np.array([ndimage.center_of_mass(hole) for hole in holes])
    assert centres.min() >= 5
    assert centres.max() <= 26
    # Uniform over the 20 pixels that a centre has.
    assert (abs(centres.mean(axis=0) - 15.5) < 4 * 20 / 12**0.5 / 300**0.5).all()
    assert centres.std(axis=0) == pytest.approx(20 / 12**0.5, rel=0.12)


def test_a_disc_too_large_to_be_placed_lies_in_the_middle():
    np.testing.assert_array_equal(placed_disc(16, 9, generator(1)), disc(16, 9))


@pytest.mark.parametrize("centred", [True, False])
def test_radii_of_discs_are_uniform_in_their_interval(centred):
    source = HoleSource(Holes(kind="disc", radius=(4, 20), centred=centred), 64)
    radii = np.sqrt(draws(300, source).sum(axis=(1, 2)) / np.pi)
    assert radii.min() > 3.5
    assert radii.max() < 20.5
    assert radii.mean() == pytest.approx(12, abs=4 * 16 / 12**0.5 / 300**0.5)
    assert radii.std() == pytest.approx(16 / 12**0.5, rel=0.1)


def test_settings_of_random_holes_are_followed():
    source = HoleSource(Holes(area=0.1, shapes=("disc",)), 64)
    expected = random_holes(64, 0.1, generator(2), ("disc",))
    np.testing.assert_array_equal(source(generator(2)), expected)
    assert not np.array_equal(random_holes(64, 0.1, generator(2), ("line",)), expected)


PIECES = np.zeros((3, 16, 16), bool)
PIECES[0, :3, :9] = PIECES[1, 4:6, 10:] = PIECES[2, 1, 1] = True


def test_pieces_of_the_sky_are_turned_and_mirrored():
    source = HoleSource(Holes(kind="sky", path="mask.fits"), 16, PIECES)
    found = {source(generator(1, i)).tobytes() for i in range(400)}
    expected = set()
    for piece in PIECES:
        for turns in range(4):
            turned = np.rot90(piece, turns)
            expected |= {turned.tobytes(), turned[:, ::-1].tobytes()}
    # The last piece is symmetric about its diagonal: four images, not eight.
    assert len(expected) == 20
    assert found == expected


def bars(count):
    """Pieces told by how many of their pixels are missing: 1, 2, …"""
    pieces = np.zeros((count, 16, 16), bool)
    for number, piece in enumerate(pieces):
        piece.flat[: number + 1] = True
    return pieces


def pieces_drawn(count, draws=600, **settings):
    """Numbers of the pieces, of so many, that are drawn."""
    source = HoleSource(Holes(kind="sky", path="mask.fits"), 16, bars(count), **settings)
    return {int(source(generator(1, i)).sum()) - 1 for i in range(draws)}


@pytest.mark.parametrize(
    ("count", "shares", "ends"),
    [
        (30, {"train": 0.7, "validation": 0.2, "test": 0.1}, (21, 27)),
        (30, {"train": 70, "test": 10, "validation": 20}, (21, 27)),
        (30, None, (24, 27)),
        (3, {"train": 0.98, "validation": 0.01, "test": 0.01}, (1, 2)),
        (8, {"train": 0.01, "validation": 0.01, "test": 0.98}, (1, 2)),
        (8, {"train": 0.01, "validation": 0.98, "test": 0.01}, (1, 7)),
        (8, {"train": 0.9, "validation": 0.1}, (6, 7)),
        (8, {"train": 1.0}, (6, 7)),
    ],
)
def test_each_part_has_pieces_of_its_own(count, shares, ends):
    found = [
        pieces_drawn(count, part=part, shares=shares) for part in ("train", "validation", "test")
    ]
    first, second = ends
    assert found == [{*range(first)}, {*range(first, second)}, {*range(second, count)}]


def test_without_a_part_all_pieces_are_drawn():
    shares = {"train": 0.7, "validation": 0.2, "test": 0.1}
    assert pieces_drawn(8) == pieces_drawn(8, shares=shares) == {*range(8)}


def test_numbered_pieces_come_one_after_the_other():
    settings = Holes(kind="sky", path="mask.fits")
    source = HoleSource(settings, 16, bars(40), part="validation")
    holes = [source.numbered(i, generator(1, i)) for i in range(10)]
    assert [hole.sum() - 1 for hole in holes] == [32, 33, 34, 35] * 2 + [32, 33]
    # Turned and mirrored by the generator.
    source = HoleSource(settings, 16, PIECES)
    images = {source.numbered(1, generator(1, i)).tobytes() for i in range(100)}
    turned = [np.rot90(PIECES[1], turns) for turns in range(4)]
    assert images == {one.tobytes() for hole in turned for one in (hole, hole.T)}
    for other in (Holes(), Holes(kind="disc", radius=(2, 7), centred=False)):
        source = HoleSource(other, 16, part="train")
        for i in range(3):
            np.testing.assert_array_equal(source.numbered(i, generator(5)), source(generator(5)))


def test_a_digest_is_that_of_the_pieces_drawn_from():
    settings = Holes(kind="sky", path="mask.fits")
    pieces, other = bars(20), bars(20)
    other[0, 9, 9] = True
    expected = hashlib.sha256(pieces.tobytes()).hexdigest()
    assert HoleSource(settings, 16, pieces).digest == expected
    sources = [
        HoleSource(settings, 16, cut, part=part)
        for cut in (pieces, other)
        for part in (None, "train")
    ]
    sources.append(HoleSource(settings, 16, pieces, part="test"))
    assert len({source.digest for source in sources}) == 5
    assert HoleSource(Holes(), 16, pieces).digest == ""


@pytest.mark.parametrize(
    "settings",
    [Holes(), Holes(kind="disc", radius=(2, 7)), Holes(kind="sky", path="mask.fits")],
    ids=["random", "disc", "sky"],
)
def test_the_generator_alone_decides(settings):
    source = HoleSource(settings, 16, PIECES)
    first = [source(generator(1, i)) for i in range(8)]
    again = [source(generator(1, i)) for i in reversed(range(8))][::-1]
    np.testing.assert_array_equal(first, again)
    assert len({hole.tobytes() for hole in first}) > 1


@pytest.mark.parametrize("pixels", [16, 31])
def test_no_patch_is_whole_or_gone(pixels):
    for area in (1e-6, 1 - 1e-6):
        share = draws(5, lambda rng, area=area: random_holes(pixels, area, rng)).mean(axis=(1, 2))
        np.testing.assert_allclose(share, 1 / pixels**2 if area < 0.5 else 1 - 1 / pixels**2)
    largest = np.floor((pixels - 1) / 2 * 2**0.5)
    for centred in (True, False):
        for radius in ((1, 1), (largest, largest)):
            settings = Holes(kind="disc", radius=radius, centred=centred)
            holes = draws(10, HoleSource(settings, pixels))
            assert holes.any(axis=(1, 2)).all()
            assert not holes.all(axis=(1, 2)).any()


def test_impossible_holes():
    with pytest.raises(UserError, match=r"holes\.radius: .* of 64 pixels a side .*found 65"):
        HoleSource(Holes(kind="disc", radius=(5, 65)), 64)
    settings = Holes(kind="sky", path="mask.fits")
    with pytest.raises(UserError, match=r"holes\.sky: expected pieces .*found none"):
        HoleSource(settings, 16)
    with pytest.raises(UserError, match=r"pieces of 32 × 32 pixels, found 16 × 16"):
        HoleSource(settings, 32, PIECES)
    with pytest.raises(UserError, match=r"holes\.count: .* train, validation, test, found 2"):
        HoleSource(settings, 16, PIECES[:2], part="train")
    with pytest.raises(UserError, match="part: expected one of train, validation, test, found 'te"):
        HoleSource(settings, 16, PIECES, part="tests")
    with pytest.raises(UserError, match="found piece 3 with 1"):
        HoleSource(settings, 16, np.concatenate([PIECES, np.ones((1, 16, 16), bool)]))
