"""Point sources of a map: found on the sphere, read from a catalogue, and inpainted.

They are taken away before patches are cut: one would set the scale of its patch, and its edge
would ring.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config.sky import LEAST_PIXELS
from skyweave.errors import UserError
from skyweave.sky.harmonic import (
    analyse,
    band_limit,
    evaluate,
    fill_bad,
    gaussian_sigma,
    gaussian_window,
)
from skyweave.sky.projection import frame, unit_vector

#: Beams along the side of the coarse pixels that noise is measured in, and the least share of
#: such a pixel that has to be searched for that.
_BEAMS, _LEAST_SHARE = 8, 1 / 8
#: Standard deviation over median absolute deviation, of a normal law.
_NORMAL = 1.482602218505602
#: Noise is no less than this share of the map's largest value: about a bright source the transforms
#: leave up to 2e-5 of it.
_RESOLVED = 4e-6
#: Beams about a bad pixel where a filled hole's edge may look like a source.
_EDGE = 1.5
#: The filtered beam half a pixel from its peak is still above this share of it.
_FIRST_LOOK = 0.5
#: How often neighbours with a negative weight are left out, and what counts as none amiss.
_ROUNDS, _EXACT = 4, 1e-9

#: Names of a catalogue's columns, any case, in order of preference.
LONGITUDE, LATITUDE, RADIUS = ("LON", "GLON"), ("LAT", "GLAT"), ("RADIUS", "RADIUS_ARCMIN")


def find_sources(
    values: np.ndarray,
    fwhm_arcmin: float,
    *,
    mask: np.ndarray | None = None,
    snr: float = 8.0,
    latitude_deg: float = 0.0,
) -> pd.DataFrame:
    """Table of the point sources of a RING map (npix,), NaN where bad, brightest first.

    A source is a Gaussian beam of `fwhm_arcmin`. The map is filtered by a Mexican-hat wavelet of
    the beam's width, ell(ell+1) b_ell, the matched filter of the beam on a field with C_ell ∝
    ell^-2; sources are its maxima among the 8 neighbours that stand `snr` above the local noise.
    That is the median absolute deviation in pixels of at least 8 beams a side, as a standard
    deviation and interpolated, so that diffuse emission raises its own bar. Only pixels that are
    not zero in `mask` (npix,), at least `latitude_deg` from the plane and 1.5 beams from bad ones
    are searched.

    Columns lon, lat (degrees, where a parabola through the maximum has its peak), amplitude (of
    the beam, in the map's unit) and snr. Raises `UserError` for a wrong size, a beam below 1.4
    pixels, or nothing to search.
    """
    import healpy

    nside = _nside(values)
    pixel = healpy.nside2resol(nside, arcmin=True)
    if not fwhm_arcmin >= LEAST_PIXELS * pixel:
        raise UserError(
            "fwhm_arcmin",
            f"a beam of at least {LEAST_PIXELS:g} pixels of {pixel:.3g}′",
            fwhm_arcmin,
        )
    if not snr > 0:
        raise UserError("snr", "a number above 0", snr)
    values = np.asarray(values, float)
    lon, lat = healpy.pix2ang(nside, np.arange(values.size), lonlat=True)
    good = np.isfinite(values)
    bad = _near(~good, nside, int(np.ceil(_EDGE * fwhm_arcmin / pixel)))
    searched = ~bad & (np.abs(lat) >= latitude_deg)
    if mask is not None:
        if np.shape(mask) != values.shape:
            raise UserError("mask", f"{values.size} pixels, as the map has", np.shape(mask))
        searched &= np.asarray(mask) != 0
    if not searched.any():
        raise UserError("map", "good pixels to search", "none")
    lmax = band_limit(nside, fwhm_arcmin)
    factor = _wavelet(lmax, fwhm_arcmin)
    # The level of the map is not looked at, and would set what the transforms resolve.
    values = np.where(good, values - np.median(values[good]), np.nan)
    alm = analyse(fill_bad(values)[None], lmax)
    filtered = healpy.alm2map(healpy.almxfl(alm[0], factor), nside, lmax)
    noise = _local_noise(np.where(searched, filtered, np.nan), fwhm_arcmin, lon, lat)
    noise = np.maximum(noise, _RESOLVED * np.abs(values[good]).max())

    pixels = np.flatnonzero(searched & (filtered > _FIRST_LOOK * snr * noise))
    around = healpy.get_all_neighbours(nside, pixels)
    highest = np.where(around < 0, -np.inf, filtered[around]).max(axis=0, initial=-np.inf)
    pixels = pixels[filtered[pixels] > highest]
    lon, lat, amplitude = _peaks(alm, factor, lon[pixels], lat[pixels], np.radians(pixel / 60))
    table = pd.DataFrame(
        {"lon": lon, "lat": lat, "amplitude": amplitude, "snr": amplitude / noise[pixels]}
    )
    table = table[table["snr"] >= snr]
    return table.sort_values("snr", ascending=False, kind="stable", ignore_index=True)


def read_catalogue(path: str | Path) -> pd.DataFrame:
    """Columns lon, lat (degrees, Galactic) and, where there is one, radius (arcmin) of a table.

    `path` is CSV with a header, or FITS, of which the first table is read; longitude and latitude
    are called lon and lat or GLON and GLAT, in any case. Raises `UserError` naming `path` for a
    file without them, or a row whose numbers are not finite or out of range.
    """
    path = Path(path)
    columns = _read_columns(path)
    names = {name.upper(): name for name in columns}
    table = {}
    for name, candidates in (("lon", LONGITUDE), ("lat", LATITUDE), ("radius", RADIUS)):
        column = next((names[key] for key in candidates if key in names), None)
        if column is not None:
            table[name] = _numbers(path, column, columns[column])
        elif name != "radius":
            expected = f"a column {' or '.join(candidates)}"
            raise UserError(path, expected, ", ".join(columns) or "none")
    ranges = {"lon": (-180, 360), "lat": (-90, 90), "radius": (0, 180 * 60)}
    for name, numbers in table.items():
        low, high = ranges[name]
        wrong = np.flatnonzero(~((numbers >= low) & (numbers <= high)))
        if wrong.size:
            expected = f"{name} from {low} to {high}"
            raise UserError(f"{path}, row {wrong[0] + 1}", expected, numbers[wrong[0]])
    table["lon"] = table["lon"] % 360
    return pd.DataFrame(table)


def inpaint(
    values: np.ndarray,
    lon: np.ndarray | float,
    lat: np.ndarray | float,
    radius_arcmin: np.ndarray | float,
) -> np.ndarray:
    """RING map (npix,) float64 whose discs about (lon, lat) (n,) degrees are filled smoothly.

    The fill solves Laplace's equation with the map around as its boundary: each pixel of a hole is
    a mean of its neighbours, weighted so that a field that is harmonic on the tangent plane keeps
    its value. That is where diffusion ends, reached by a direct solution. A disc, of
    `radius_arcmin` for all or (n,), has at least the pixel that it is centred in. Bad pixels (NaN)
    outside the discs stay bad and do not count as neighbours; a hole with no others becomes bad.

    Raises `UserError` for a wrong size, a radius or place out of range, or nothing outside the
    discs.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components
    from scipy.sparse.linalg import spsolve

    nside = _nside(values)
    filled = np.array(values, dtype=np.float64)
    hole = _discs(nside, lon, lat, radius_arcmin)
    known = np.isfinite(filled) & ~hole
    if not known.any():
        raise UserError("discs", "good pixels outside of them", "none")
    pixels = np.flatnonzero(hole)
    if not pixels.size:
        return filled
    around, weights = _weights(nside, pixels, known | hole)
    row, column = np.nonzero(weights)
    neighbour, weight = around[row, column], weights[row, column]
    inner = hole[neighbour]
    shape = (pixels.size, pixels.size)
    unknown = np.searchsorted(pixels, neighbour[inner])
    links = csr_array((weight[inner], (row[inner], unknown)), shape=shape)
    rim = np.zeros(pixels.size)
    np.add.at(rim, row[~inner], weight[~inner] * filled[neighbour[~inner]])

    count, group = connected_components(links, directed=False)
    bounded = np.zeros(count, bool)
    bounded[group[row[~inner]]] = True
    solved = np.flatnonzero(bounded[group])
    filled[pixels] = np.nan
    if solved.size:
        system = csr_array((np.ones(solved.size), (np.arange(solved.size),) * 2))
        system = system - links[solved][:, solved]
        filled[pixels[solved]] = spsolve(system.tocsc(), rim[solved])
    return filled


def _nside(values: np.ndarray) -> int:
    import healpy

    shape = np.shape(values)
    if len(shape) != 1 or not healpy.isnpixok(shape[0]):
        raise UserError("map", "12 nside² pixels", shape)
    nside = healpy.npix2nside(shape[0])
    if not healpy.isnsideok(nside, nest=True):
        raise UserError("map", "an nside that is a power of two", nside)
    return nside


def _wavelet(lmax: int, fwhm_arcmin: float) -> np.ndarray:
    """Mexican-hat wavelet (lmax+1,) that leaves a beam's amplitude at its centre."""
    ell = np.arange(lmax + 1)
    beam = gaussian_window(lmax, fwhm_arcmin)
    hat = ell * (ell + 1) * beam
    # A beam of amplitude 1 has the transform 2 pi sigma² b_ell.
    area = 2 * np.pi * gaussian_sigma(fwhm_arcmin) ** 2
    return hat / np.sum((2 * ell + 1) / (4 * np.pi) * hat * area * beam)


def _near(bad: np.ndarray, nside: int, steps: int) -> np.ndarray:
    """RING map (npix,) bool of the bad pixels and those up to `steps` neighbours from one."""
    import healpy

    near, front = bad.copy(), np.flatnonzero(bad)
    for _ in range(steps):
        around = np.unique(healpy.get_all_neighbours(nside, front))
        front = around[(around >= 0) & ~near[around]]
        near[front] = True
    return near


def _local_noise(
    filtered: np.ndarray, fwhm_arcmin: float, lon: np.ndarray, lat: np.ndarray
) -> np.ndarray:
    """Robust standard deviation about each pixel of a RING map (npix,), NaN where not searched."""
    import healpy

    nside = healpy.npix2nside(filtered.size)
    while nside > 1 and healpy.nside2resol(nside, arcmin=True) < _BEAMS * fwhm_arcmin:
        nside //= 2
    children = healpy.reorder(filtered, r2n=True).reshape(12 * nside**2, -1)
    enough = np.isfinite(children).mean(axis=1) >= _LEAST_SHARE
    if not enough.any():
        side = healpy.nside2resol(nside, arcmin=True) / 60
        raise UserError(
            "mask", f"an eighth of a pixel of {side:.2g} deg to search", "less in each of them"
        )
    noise = np.full(len(children), np.nan)
    chosen = children[enough]
    spread = np.abs(chosen - np.nanmedian(chosen, axis=1, keepdims=True))
    noise[enough] = _NORMAL * np.nanmedian(spread, axis=1)
    coarse = fill_bad(healpy.reorder(noise, n2r=True))
    return healpy.get_interp_val(coarse, lon, lat, lonlat=True)


def _peaks(
    alm: np.ndarray, factor: np.ndarray, lon: np.ndarray, lat: np.ndarray, pixel: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (degrees) and heights (n,) of the maxima of alm times `factor` near (lon, lat) (n,).

    A parabola through 3 × 3 points half a pixel (radians) apart; no peak is more than a pixel away.
    """
    import healpy

    if not lon.size:
        return lon, lat, np.zeros(0)
    step = pixel / 2
    centre, east, north = frame(lon, lat)
    y, x = (offset.ravel()[:, None, None] * step for offset in np.mgrid[-1:2, -1:2])
    points = healpy.vec2ang((centre + x * east + y * north).reshape(-1, 3), lonlat=True)
    field = evaluate(alm, factor, *points)[0].reshape(3, 3, -1)
    slope = np.stack([field[1, 2] - field[1, 0], field[2, 1] - field[0, 1]], axis=-1) / 2
    curve = np.empty((lon.size, 2, 2))
    curve[:, 0, 0] = field[1, 2] - 2 * field[1, 1] + field[1, 0]
    curve[:, 1, 1] = field[2, 1] - 2 * field[1, 1] + field[0, 1]
    cross = field[2, 2] - field[2, 0] - field[0, 2] + field[0, 0]
    curve[:, 0, 1] = curve[:, 1, 0] = cross / 4
    # A shoulder without a peak of its own stays where it is.
    peaked = (np.linalg.det(curve) > 0) & (np.trace(curve, axis1=1, axis2=2) < 0)
    curve[~peaked] = -np.eye(2)
    slope[~peaked] = 0
    shift = np.clip(-np.linalg.solve(curve, slope[..., None])[..., 0], -2, 2)
    quadratic = np.einsum("ni,nij,nj->n", shift, curve, shift) / 2
    height = field[1, 1] + np.sum(slope * shift, axis=1) + quadratic
    peak = centre + step * (shift[:, :1] * east + shift[:, 1:] * north)
    lon, lat = healpy.vec2ang(peak, lonlat=True)
    return lon, lat, height


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    """Columns (n,) of a CSV or FITS table by name."""
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    if not path.is_file():
        raise UserError(path, "a catalogue, CSV or FITS", "no file")
    try:
        with warnings.catch_warnings():
            # astropy only warns of a truncated file, pandas of rows longer than the header.
            warnings.filterwarnings("error", "File may have been truncated", AstropyWarning)
            warnings.simplefilter("error", pd.errors.ParserWarning)
            if not {".fits", ".fit"} & {suffix.lower() for suffix in path.suffixes}:
                csv = pd.read_csv(path, index_col=False)
                return {str(name).strip(): csv[name].to_numpy() for name in csv}
            with fits.open(path) as hdus:
                tables = (hdu for hdu in hdus if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU)))
                if (hdu := next(tables, None)) is None:
                    raise UserError(path, "a table", "a FITS file without one")
                return {name: np.array(hdu.data[name]) for name in hdu.columns.names}
    except UserError:
        raise
    except (OSError, TypeError, ValueError, fits.VerifyError, Warning) as error:
        found = f"an unreadable file ({' '.join(str(error).split())})"
        raise UserError(path, "a catalogue, CSV or FITS", found) from None


def _numbers(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Column (n,) as float64, all finite."""
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{path}, column {name}", "numbers", f"{values.dtype}") from None
    if numbers.ndim != 1:
        raise UserError(f"{path}, column {name}", "one number a row", numbers.shape)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if wrong.size:
        raise UserError(f"{path}, row {wrong[0] + 1}", f"a finite {name}", numbers[wrong[0]])
    return numbers


def _discs(
    nside: int,
    lon: np.ndarray | float,
    lat: np.ndarray | float,
    radius_arcmin: np.ndarray | float,
) -> np.ndarray:
    """RING map (npix,) bool of the pixels whose centres lie in a disc, or that hold its centre."""
    import healpy

    lon, lat = np.atleast_1d(np.asarray(lon, float)), np.atleast_1d(np.asarray(lat, float))
    radius = np.asarray(radius_arcmin, float)
    if lon.ndim != 1 or lat.shape != lon.shape or radius.shape not in ((), (1,), lon.shape):
        found = f"{lon.shape}, {lat.shape} and {radius.shape}"
        raise UserError("discs", "a lon, a lat and a radius for each", found)
    if not (np.isfinite(lon) & (np.abs(lat) <= 90)).all():
        raise UserError("discs", "finite lon and lat from -90 to 90", "others")
    wrong = ~((radius >= 0) & (radius <= 180 * 60))
    if wrong.any():
        raise UserError("radius_arcmin", "radii from 0 to 10800 arcmin", radius[wrong].flat[0])
    hole = np.zeros(12 * nside**2, bool)
    hole[healpy.ang2pix(nside, lon, lat, lonlat=True)] = True
    radii = np.broadcast_to(np.radians(radius / 60), lon.shape)
    for vector, one in zip(unit_vector(lon, lat), radii, strict=True):
        hole[healpy.query_disc(nside, vector, one)] = True
    return hole


def _weights(nside: int, pixels: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours (n, 8) of RING `pixels` and their weights, of sum 1, 0 where not in `counts`.

    As equal as they can be with no first moment on the tangent plane and second moments that are
    isotropic: their mean is then a Laplacian on a grid that is not regular. A mean with negative
    weights may leave the range of what it is a mean of: neighbours with such weights, the far ones
    where pixels are sheared, are left out. All are equal where too many are not in `counts`.
    """
    import healpy

    around = healpy.get_all_neighbours(nside, pixels).T
    usable = (around >= 0) & counts[around]
    _, east, north = frame(*healpy.pix2ang(nside, pixels, lonlat=True))
    vectors = np.stack(healpy.pix2vec(nside, np.maximum(around, 0)), axis=-1)
    x, y = (
        np.einsum("nkc,nc->nk", vectors, axis) / healpy.nside2resol(nside) for axis in (east, north)
    )
    moments = np.stack([np.ones_like(x), x, y, x**2 - y**2, x * y], axis=1)
    fitted, met = _fit(moments, usable)
    return around, np.where(met[:, None], fitted, _equal(usable))


def _equal(usable: np.ndarray) -> np.ndarray:
    return usable / np.maximum(usable.sum(axis=1, keepdims=True), 1)


def _fit(moments: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n, 8) for which `moments` (n, m, 8) are 1, 0, …, 0, and whether they are met (n,).

    Nearest to equal ones among the `usable` (n, 8), less those that had a negative weight before.
    """
    usable, fitted = usable.copy(), np.zeros(usable.shape)
    wanted = np.eye(moments.shape[1], 1)
    left = np.arange(len(usable))
    for _ in range(_ROUNDS):
        part, equal = moments[left] * usable[left, None], _equal(usable[left])
        turned = part.transpose(0, 2, 1)
        inverse = np.linalg.pinv(part @ turned, rcond=_EXACT, hermitian=True)
        fitted[left] = equal + (turned @ inverse @ (wanted - part @ equal[..., None]))[..., 0]
        left = left[(fitted[left] < 0).any(axis=1)]
        usable[left] &= fitted[left] >= 0
    amiss = np.abs(moments @ fitted[..., None] - wanted).max(axis=(1, 2), initial=0)
    return fitted, (amiss < _EXACT) & (fitted >= 0).all(axis=1)
