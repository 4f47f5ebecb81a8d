"""Sérsic profiles: pixels against brute force, analytic light and GalSim; and what is drawn."""

from dataclasses import replace
from itertools import pairwise
from time import process_time

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gamma, gammaincinv

from skyweave.config.galaxies import SersicDataset
from skyweave.images.sersic import Profile, draw, render

ROUND = Profile(0.0, 0.0, 3.0, 1.0, 1.0, 0.0, 1.0)
#: Centres from that of a pixel: there, on its corner, on edges, next to one, anywhere.
CENTRES = ((0.0, 0.0), (0.5, 0.5), (0.5, 0.0), (0.1, -0.5), (0.4999, 0.2), (0.237, -0.391))
NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


def surface_brightness(profile, x, y):
    """As it is defined, for a profile of radii and centres in pixels."""
    n, b = profile.index, gammaincinv(2 * profile.index, 0.5)
    x, y = x - profile.x_arcsec, y - profile.y_arcsec
    along = x * np.cos(profile.angle) + y * np.sin(profile.angle)
    across = y * np.cos(profile.angle) - x * np.sin(profile.angle)
    r = np.sqrt(profile.axis_ratio * along**2 + across**2 / profile.axis_ratio)
    effective = 2 * np.pi * n * profile.radius_arcsec**2 * np.exp(b) * b ** (-2 * n) * gamma(2 * n)
    return profile.flux / effective * np.exp(-b * ((r / profile.radius_arcsec) ** (1 / n) - 1))


def brute_force(profile, x, y):
    """Flux in the pixel about (x, y): squares, quartered until they are smooth or hold nothing.

    They are smooth where they are small beside their distance from the centre, and beside the
    scale of the profile's fall.
    """
    squares, total = np.array([[x, y]], float), 0.0
    side = 1.0
    width = profile.radius_arcsec * profile.axis_ratio
    for _ in range(45):
        distance = np.hypot(squares[:, 0] - profile.x_arcsec, squares[:, 1] - profile.y_arcsec)
        done = (distance > 1.5 * side / profile.axis_ratio) & (side < width)
        for middle in squares[done]:
            points = middle[:, None] + side / 2 * NODES
            values = surface_brightness(profile, points[0], points[1][:, None])
            total += WEIGHTS @ values @ WEIGHTS * side**2 / 4
        side /= 2
        quarters = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * side / 2
        squares = (squares[~done, None] + quarters).reshape(-1, 2)
    return total


@pytest.mark.parametrize("ratio", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("radius", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("index", [0.5, 1.0, 2.5, 4.0, 6.0])
def test_pixels_are_those_of_brute_force(index, radius, ratio):
    rng = np.random.default_rng([int(2 * index), int(10 * radius), int(10 * ratio)])
    at = rng.integers(len(CENTRES))
    profile = Profile(*CENTRES[at], radius, index, ratio, rng.uniform(0, np.pi), 1.0)
    image = render(profile, 33, 1.0)
    # The pixels that the centre is in or next to, the next ones, and some further out.
    places = [(0, 0), (1, 0), (0, 1), (1, 1), (1, -1), (-2, 1), (3, 2), (-4, 0), (0, 7), (-12, 9)]
    for x, y in places:
        expected = brute_force(profile, x, y)
        assert image[16 + y, 16 + x] == pytest.approx(expected, rel=3e-5, abs=1e-7), (x, y)


@pytest.mark.parametrize("centre", CENTRES)
def test_a_cusp_may_lie_anywhere_in_a_pixel(centre):
    profile = Profile(*centre, 2.0, 6.0, 0.3, 0.6, 1.0)
    image = render(profile, 33, 1.0)
    for x, y in [(0, 0), (1, 0), (0, 1), (1, 1), (0, -1), (-1, 0)]:
        expected = brute_force(profile, x, y)
        assert image[16 + y, 16 + x] == pytest.approx(expected, rel=1e-6), (x, y)


def in_square(profile, half):
    """Share of a round profile's flux in a square about its centre, by an integral over radii."""

    def ring(r):
        # The angle within the square, of a circle that reaches beyond its sides.
        angle = 2 * np.pi if r <= half else 8 * (np.pi / 4 - np.arccos(half / r))
        return angle * r * surface_brightness(profile, r, 0)

    pieces = (0, 1e-3, 0.1, 1, half, half * 2**0.5)
    return sum(
        quad(ring, a, b, epsabs=1e-12, epsrel=1e-10, limit=200)[0] for a, b in pairwise(pieces)
    )


@pytest.mark.parametrize("index", [0.5, 1.0, 4.0, 6.0])
@pytest.mark.parametrize("radius", [0.3, 3.0, 10.0])
def test_light_in_the_frame_is_the_analytic_one(index, radius):
    profile = replace(ROUND, index=index, radius_arcsec=radius, flux=1.0)
    assert render(profile, 64, 1.0).sum() == pytest.approx(in_square(profile, 32), abs=1e-6)


@pytest.mark.parametrize("ratio", [0.2, 0.7])
@pytest.mark.parametrize("index", [0.5, 1.0, 2.0])
def test_a_large_frame_holds_all_of_the_flux(index, ratio):
    profile = Profile(0.3, -0.2, 3.0, index, ratio, 1.0, 250.0)
    assert render(profile, 256, 1.0).sum() == pytest.approx(250, rel=1e-4)


def test_half_of_the_flux_lies_within_the_ellipse():
    profile = Profile(0.0, 0.0, 40.0, 1.5, 0.5, 0.4, 1.0)
    image = render(profile, 512, 1.0)
    x = np.arange(512) - 255.5
    along = x * np.cos(0.4) + x[:, None] * np.sin(0.4)
    across = x[:, None] * np.cos(0.4) - x * np.sin(0.4)
    inside = (along / 40) ** 2 * 0.5 + (across / 40) ** 2 / 0.5 < 1
    assert image[inside].sum() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("index", "radius", "ratio"),
    [(0.5, 1, 0.3), (1, 3, 0.5), (2.5, 3, 0.4), (4, 4, 0.7), (4, 1, 1), (6, 3, 0.9)],
)
def test_images_are_galsims(index, radius, ratio):
    galsim = pytest.importorskip("galsim")
    precise = galsim.GSParams(
        integration_relerr=1e-7,
        integration_abserr=1e-10,
        realspace_relerr=1e-6,
        realspace_abserr=1e-9,
        xvalue_accuracy=1e-10,
        folding_threshold=1e-5,
    )
    profile = Profile(0.046, -0.08, radius * 0.2, index, ratio, 0.7, 10.0)
    other = galsim.Sersic(index, half_light_radius=radius * 0.2, flux=10.0, gsparams=precise)
    other = other.shear(q=ratio, beta=0.7 * galsim.radians).shift(0.046, -0.08)
    other = galsim.Convolve(other, galsim.Pixel(0.2), real_space=True, gsparams=precise)
    expected = other.drawImage(nx=32, ny=32, scale=0.2, method="no_pixel", dtype=float).array
    found = render(profile, 32, 0.2)
    assert found.sum() == pytest.approx(expected.sum(), rel=1e-4)
    np.testing.assert_allclose(found, expected, rtol=3e-4, atol=1e-5)


def test_axes_and_angle():
    """x along columns, y along rows, the angle from +x towards +y."""
    moved = render(replace(ROUND, x_arcsec=1.0, y_arcsec=-0.6), 32, 0.2)
    place = np.arange(32) - 15.5
    middle = np.unravel_index(moved.argmax(), moved.shape)
    assert place[middle[1]] == pytest.approx(5, abs=0.51)
    assert place[middle[0]] == pytest.approx(-3, abs=0.51)
    long = render(replace(ROUND, axis_ratio=0.3, angle=np.pi / 6), 64, 0.5)
    place = np.arange(64) - 31.5
    xx, yy, xy = (
        (long * weight).sum() for weight in (place**2, place[:, None] ** 2, place * place[:, None])
    )
    assert np.arctan2(2 * xy, xx - yy) / 2 == pytest.approx(np.pi / 6, abs=0.01)


def test_turning_by_a_quarter_turns_the_image():
    profile = Profile(0.3, -0.7, 2.0, 4.0, 0.5, 0.4, 1.0)
    turned = Profile(0.7, 0.3, 2.0, 4.0, 0.5, 0.4 + np.pi / 2, 1.0)
    image = render(profile, 32, 0.5)
    np.testing.assert_allclose(np.rot90(image, -1), render(turned, 32, 0.5), rtol=1e-9, atol=1e-13)


def test_pixels_add_up_to_larger_ones():
    profile = Profile(0.1, 0.2, 1.5, 3.0, 0.4, 2.0, 1.0)
    fine = render(profile, 96, 0.25).reshape(48, 2, 48, 2).sum((1, 3))
    np.testing.assert_allclose(fine, render(profile, 48, 0.5), rtol=3e-5, atol=1e-9)


@pytest.mark.parametrize("index", [0.3, 0.5, 8.0])
def test_no_pixel_is_negative_where_light_ends_sharply(index):
    for ratio in (0.05, 0.3, 1.0):
        image = render(Profile(0.2, 0.1, 0.3, index, ratio, 0.3, 1.0), 32, 1.0)
        assert image.min() >= 0
        assert np.isfinite(image).all()
        assert image.sum() < 1 + 1e-6


def test_a_centre_may_lie_beyond_the_frame():
    profile = Profile(40.0, 3.0, 10.0, 4.0, 0.6, 0.4, 1.0)
    whole = render(replace(profile, x_arcsec=8.0), 128, 1.0)
    np.testing.assert_allclose(render(profile, 64, 1.0), whole[32:96, :64], rtol=1e-9, atol=1e-15)


def test_draws_lie_evenly_within_their_ranges():
    settings = SersicDataset(kind="sersic", magnitude=(20, 24), index=(0.5, 6))
    drawn = [draw(settings, 1, "some", number) for number in range(2000)]
    ranges = {
        "x_arcsec": (-1, 1),
        "y_arcsec": (-1, 1),
        "radius_arcsec": (1, 4),
        "index": (0.5, 6),
        "axis_ratio": (0.4, 1),
        "angle": (0, np.pi),
        "flux": (20, 24),
    }
    for name, (low, high) in ranges.items():
        values = np.array([getattr(profile, name) for profile in drawn])
        if name == "flux":
            values = 31.4 - 2.5 * np.log10(values)
        share = np.sort((values - low) / (high - low))
        assert 0 <= share[0] < 0.01
        assert 0.99 < share[-1] <= 1
        # Kolmogorov-Smirnov: 1.95 / sqrt(2000) is exceeded once in a thousand.
        assert np.abs(share - (np.arange(2000) + 0.5) / 2000).max() < 0.0436
    shares = np.corrcoef(
        [[getattr(profile, name) for name in ranges] for profile in drawn], rowvar=False
    )
    assert np.abs(shares - np.eye(len(ranges))).max() < 0.1


def test_draws_are_their_own():
    settings = SersicDataset(kind="sersic")
    profile = draw(settings, 1, "some", 3)
    assert profile == draw(settings, 1, "some", 3)
    assert profile.flux == pytest.approx(10 ** (0.4 * 9.4))  # 22 mag.
    others = [
        draw(settings, 1, "some", 4),
        draw(settings, 1, "other", 3),
        draw(settings, 2, "some", 3),
    ]
    assert len({profile.x_arcsec, *(other.x_arcsec for other in others)}) == 4
    assert all(type(value) is float for value in vars(profile).values())


def test_rendering_is_fast():
    """Thirty of the published images a second, of one core's time."""
    settings = SersicDataset(kind="sersic")
    profiles = [draw(settings, 1, "some", number) for number in range(10)]
    start = process_time()
    for profile in profiles:
        render(profile, 256, settings.pixel_arcsec)
    assert process_time() - start < 10 / 30
