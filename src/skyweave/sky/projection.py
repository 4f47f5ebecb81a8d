"""Zenithal equal-area patches of the sky and directions on them.

The plane has its origin at the patch's centre, y towards Galactic north, and x *against* east: as
the sky is seen from inside, with longitude increasing to the left (FITS ``CDELT1 < 0``, astropy's
convention for images). A point at angular distance rho and position angle PA (north through
east) from the centre lies at radius 2 sin(rho/2) (Calabretta & Greisen 2002, eq. 69).
"""

from typing import Any

import numpy as np

from skyweave.flat.grid import PatchGrid


def header(lon: float, lat: float, grid: PatchGrid) -> dict[str, Any]:
    """FITS keywords of the patch centred at (lon, lat) degrees: WCS and polarization convention."""
    step = grid.size_deg / grid.pixels
    middle = (grid.pixels + 1) / 2
    return {
        "CTYPE1": "GLON-ZEA",
        "CTYPE2": "GLAT-ZEA",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": float(lon),
        "CRVAL2": float(lat),
        "CRPIX1": middle,
        "CRPIX2": middle,
        "CDELT1": -step,
        "CDELT2": step,
        "LONPOLE": 180.0,
        "POLCCONV": "IAU",
    }


def plane_axis(grid: PatchGrid) -> np.ndarray:
    """Coordinates (pixels,) of the pixel centres along either axis, radians in the plane."""
    return (np.arange(grid.pixels) - (grid.pixels - 1) / 2) * grid.pixel_rad


def patch_directions(lon: float, lat: float, grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude (y, x) in degrees of the pixels of the patch centred at (lon, lat)."""
    axis = plane_axis(grid)
    return from_plane(lon, lat, axis[None, :], axis[:, None])


def from_plane(
    lon: float, lat: float, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude (degrees) of plane points x, y (radians) about (lon, lat) degrees."""
    x, y = np.broadcast_arrays(x, y)
    return _directions(_vectors(*frame(lon, lat), x, y))


def patch_vectors(lon: np.ndarray, lat: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Unit vectors (n, y, x, 3) of the pixels of patches centred at (lon, lat) (n,) degrees."""
    axis = plane_axis(grid)
    x, y = np.broadcast_arrays(axis[None, :], axis[:, None])
    centre, east, north = (vectors[:, None, None] for vectors in frame(lon, lat))
    return _vectors(centre, east, north, x, y)


def _vectors(
    centre: np.ndarray, east: np.ndarray, north: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    half = np.hypot(x, y) / 2  # sin(rho / 2)
    along = np.sqrt(1 - half**2)  # sin(rho) / radius = cos(rho / 2)
    tangent = (along * y)[..., None] * north - (along * x)[..., None] * east
    return (1 - 2 * half**2)[..., None] * centre + tangent


def _directions(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def to_plane(
    lon: float, lat: float, lon_points: np.ndarray, lat_points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Plane coordinates x, y (radians) about (lon, lat) of points given in degrees.

    The antipode of the centre, which has no one image, is sent to infinity.
    """
    centre, east, north = frame(lon, lat)
    vector = unit_vector(lon_points, lat_points)
    # radius / sin(rho) = 1 / cos(rho / 2), and cos²(rho / 2) = (1 + cos(rho)) / 2
    cosine = np.sqrt(np.maximum((1 + vector @ centre) / 2, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = -(vector @ east) / cosine, (vector @ north) / cosine
    beyond = cosine < 1e-8
    return np.where(beyond, np.inf, x), np.where(beyond, np.inf, y)


def unit_vector(lon: np.ndarray | float, lat: np.ndarray | float) -> np.ndarray:
    """Unit vectors (..., 3) of directions in degrees."""
    lon, lat = np.radians(lon), np.radians(lat)
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1)


def frame(
    lon: np.ndarray | float, lat: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors (..., 3) of the centre, of its east and of its north."""
    centre = unit_vector(lon, lat)
    east = unit_vector(np.asarray(lon) + 90, 0.0)
    return centre, east, np.cross(centre, east)


def bearing(
    lon: np.ndarray | float,
    lat: np.ndarray | float,
    lon_to: np.ndarray | float,
    lat_to: np.ndarray | float,
) -> np.ndarray:
    """Position angle (radians, north through east) at (lon, lat) of the way to (lon_to, lat_to)."""
    lat, lat_to = np.radians(lat), np.radians(lat_to)
    dlon = np.radians(np.subtract(lon_to, lon))
    return np.arctan2(
        np.sin(dlon) * np.cos(lat_to),
        np.cos(lat) * np.sin(lat_to) - np.sin(lat) * np.cos(lat_to) * np.cos(dlon),
    )


def transport_angle(
    lon: np.ndarray | float,
    lat: np.ndarray | float,
    lon_to: np.ndarray | float,
    lat_to: np.ndarray | float,
) -> np.ndarray:
    """By how much a position angle grows when carried along the great circle to another point.

    Radians, north through east, up to a multiple of pi (all the same to spin 2).
    """
    return bearing(lon_to, lat_to, lon, lat) - bearing(lon, lat, lon_to, lat_to)


def rotate_qu(
    q: np.ndarray, u: np.ndarray, angle: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Q + iU times e^{2i angle}: polarization whose angles grow by `angle` (radians).

    The angle is counted in the sense that U is: north through east in IAU, north through west in
    COSMO convention.
    """
    cosine, sine = np.cos(2 * np.asarray(angle)), np.sin(2 * np.asarray(angle))
    return q * cosine - u * sine, q * sine + u * cosine


def cosmo_to_iau(q: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From HEALPix's convention (COSMO) to the astronomers' (IAU) or back: U changes sign.

    B changes sign with it, E does not.
    """
    return q, -u


def iau_to_x_axis(q: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From angles north through east to angles from +x towards +y, or back: Q and U change sign.

    East lies along -x, so both turn the same way, from axes 90° apart. The flat-sky E of the result
    has the sign of the full-sky E, its B the sign opposite to HEALPix's.
    """
    return -q, -u


def to_patch_frame(
    q: np.ndarray,
    u: np.ndarray,
    lon_points: np.ndarray,
    lat_points: np.ndarray,
    lon: np.ndarray | float,
    lat: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray]:
    """HEALPix Q, U (COSMO, each point's own meridian) to a patch's: IAU, north is the patch's +y.

    The projection keeps angles to the direction of the centre, so carrying the polarization to
    the centre along the great circle gives its direction on the plane.
    """
    angle = transport_angle(lon_points, lat_points, lon, lat)
    return rotate_qu(*cosmo_to_iau(q, u), angle)
