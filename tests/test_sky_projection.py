"""The patch's plane against astropy's, and polarization carried from meridian to meridian."""

import healpy
import numpy as np
import pytest
from astropy.wcs import WCS

from skyweave.flat.grid import PatchGrid
from skyweave.sky.projection import (
    bearing,
    cosmo_to_iau,
    from_plane,
    header,
    iau_to_x_axis,
    patch_directions,
    rotate_qu,
    to_patch_frame,
    to_plane,
    transport_angle,
    unit_vector,
)

CENTRES = [(0.0, 0.0), (31.0, 47.0), (250.0, -71.5), (123.4, 89.9), (359.9, -30.0)]
GRID = PatchGrid(20.0, 64)


@pytest.mark.parametrize("centre", CENTRES)
def test_directions_are_astropys(centre: tuple[float, float]) -> None:
    y, x = np.indices((GRID.pixels, GRID.pixels))
    lon, lat = WCS(header(*centre, GRID)).wcs_pix2world(x, y, 0)
    found = patch_directions(*centre, GRID)
    separation = np.linalg.norm(unit_vector(lon, lat) - unit_vector(*found), axis=-1)
    assert separation.max() < 1e-12


@pytest.mark.parametrize("centre", [*CENTRES, (77.0, 90.0), (77.0, -90.0)])
def test_plane_and_back(centre: tuple[float, float]) -> None:
    axis = np.radians(np.linspace(-60, 60, 41))
    lon, lat = from_plane(*centre, axis[None, :], axis[:, None])
    x, y = to_plane(*centre, lon, lat)
    np.testing.assert_allclose(x, np.broadcast_to(axis, x.shape), atol=1e-12)
    np.testing.assert_allclose(y, np.broadcast_to(axis[:, None], y.shape), atol=1e-12)


def test_north_is_up_and_east_is_left() -> None:
    lon, lat = patch_directions(40.0, 30.0, GRID)
    middle = GRID.pixels // 2
    assert (np.diff(lat[:, middle]) > 0).all()
    assert (np.diff(lon[middle]) < 0).all()


def test_areas_are_equal() -> None:
    nside = 256
    lon, lat = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)
    x, y = to_plane(201.0, -37.0, lon, lat)
    edges = np.radians(np.linspace(-60, 60, 9))
    counts = np.histogram2d(x, y, (edges, edges))[0] * healpy.nside2pixarea(nside)
    # Pixels cut by a cell's edge: a fraction of its 4 * 66 of 4300.
    np.testing.assert_allclose(counts, np.radians(15) ** 2, rtol=0.01)


def test_antipode_is_nowhere() -> None:
    x, y = to_plane(10.0, 20.0, np.array([190.0]), np.array([-20.0]))
    assert np.isinf(x).all()
    assert np.isinf(y).all()


def test_bearing_points_along_the_great_circle() -> None:
    assert bearing(0.0, 0.0, 0.0, 10.0) == pytest.approx(0)
    assert bearing(0.0, 0.0, 10.0, 0.0) == pytest.approx(np.pi / 2)
    assert bearing(0.0, 60.0, 180.0, 60.0) == pytest.approx(0)


def test_transport_is_that_of_a_vector_moved_in_space() -> None:
    rng = np.random.default_rng(7)
    for _ in range(50):
        lon, lon_to = rng.uniform(0, 360, 2)
        lat, lat_to = np.degrees(np.arcsin(rng.uniform(-1, 1, 2)))
        angle = rng.uniform(0, np.pi)
        start, end = unit_vector(lon, lat), unit_vector(lon_to, lat_to)
        vector = np.cos(angle) * north(lon, lat) + np.sin(angle) * east(lon)
        # Rodrigues' rotation that takes start to end by the shortest way.
        axis = np.cross(start, end)
        moved = (
            vector * (start @ end)
            + np.cross(axis, vector)
            + axis * (axis @ vector) / (1 + start @ end)
        )
        expected = np.arctan2(moved @ east(lon_to), moved @ north(lon_to, lat_to)) - angle
        found = transport_angle(lon, lat, lon_to, lat_to)
        assert np.exp(2j * found) == pytest.approx(np.exp(2j * expected), abs=1e-9)


def north(lon: float, lat: float) -> np.ndarray:
    return unit_vector(lon, lat + 90) if lat < 0 else -unit_vector(lon, lat - 90)


def east(lon: float) -> np.ndarray:
    return unit_vector(lon + 90, 0.0)


def test_rotation_turns_the_angle() -> None:
    q, u = rotate_qu(np.cos(2 * 0.3), np.sin(2 * 0.3), 0.5)
    assert np.arctan2(u, q) / 2 == pytest.approx(0.8)
    assert np.hypot(q, u) == pytest.approx(1)


def test_conventions() -> None:
    # Along north-east: IAU U > 0, COSMO U < 0; and on the plane, where east is -x, 135° from +x.
    assert cosmo_to_iau(0.0, -1.0) == (0.0, 1.0)
    assert iau_to_x_axis(0.0, 1.0) == (0.0, -1.0)
    angle = np.radians(135)
    assert np.sin(2 * angle) == pytest.approx(-1)


@pytest.mark.parametrize("centre", CENTRES)
def test_radial_polarization_stays_radial(centre: tuple[float, float]) -> None:
    lon, lat = patch_directions(*centre, GRID)
    towards = bearing(lon, lat, *centre)
    q, u = cosmo_to_iau(np.cos(2 * towards), np.sin(2 * towards))
    q, u = iau_to_x_axis(*to_patch_frame(q, u, lon, lat, *centre))
    x, y = to_plane(*centre, lon, lat)
    np.testing.assert_allclose(q + 1j * u, np.exp(2j * np.arctan2(y, x)), atol=1e-9)
