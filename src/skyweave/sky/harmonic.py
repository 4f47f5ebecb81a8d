"""Harmonic space: beams, the pixels' window, and fields evaluated where a patch wants them.

Patches are not interpolated from a smoothed HEALPix map: bilinear interpolation is one more,
anisotropic smoothing (10 % in power at ell 1000 on pixels of 3.4′). The smoothed field is a sum of
spherical harmonics and is evaluated at the patch's own pixels by a non-uniform transform (ducc0),
for spin 2 as for spin 0.
"""

import numpy as np

from skyweave.errors import UserError
from skyweave.sky.resolution import change_nside

#: A target beam below this is not computed.
_LEAST_BEAM = 1e-5
_ACCURACY = 1e-7


def gaussian_sigma(fwhm_arcmin: float) -> float:
    """Standard deviation in radians of a Gaussian beam."""
    return np.radians(fwhm_arcmin / 60) / np.sqrt(8 * np.log(2))


def gaussian_window(lmax: int, fwhm_arcmin: float) -> np.ndarray:
    """b_ell (lmax+1,) of a Gaussian beam: exp(-ell(ell+1) sigma²/2)."""
    ell = np.arange(lmax + 1)
    return np.exp(-ell * (ell + 1) * gaussian_sigma(fwhm_arcmin) ** 2 / 2)


def pixel_window(nside: int, lmax: int) -> np.ndarray:
    """w_ell (lmax+1,) of an average over HEALPix pixels, in power over all pixels.

    w_ell² is the mean of P_ell(cos gamma) ≈ J0((ell + ½) gamma) over pairs of points in a pixel,
    taken for 16² points in each of some pixels spread over the sky. (healpy's own tables have to
    be downloaded.)
    """
    import healpy
    from scipy.special import j0

    points, bins = 16**2, 2048
    reach = 3 * healpy.nside2resol(nside)
    step = max(12 * nside**2 // 192, 1)
    counts = np.zeros(bins)
    for pixel in range(step // 2, 12 * nside**2, step):
        children = np.arange(pixel * points, (pixel + 1) * points)
        vectors = np.stack(healpy.pix2vec(16 * nside, children, nest=True), axis=1)
        gamma = np.linalg.norm(vectors[:, None] - vectors, axis=2)
        counts += np.histogram(gamma, bins, (0, reach))[0]
    gamma = (np.arange(bins) + 0.5) * reach / bins
    gamma[0] = 0  # nearly all of its pairs are a point with itself
    power = counts @ j0(gamma[:, None] * (np.arange(lmax + 1) + 0.5)) / counts.sum()
    # The points stand for children with a window of their own: the variances add as 1 + 1/16² + ….
    return power ** (0.5 / (1 - 1 / points))


def band_limit(nside: int, fwhm_arcmin: float, window_nside: int | None = None) -> int:
    """Highest multipole worth computing for a map at `nside` that gets a beam of `fwhm_arcmin`."""
    finest = min(nside, window_nside or nside)
    if fwhm_arcmin <= 0:
        return 3 * finest - 1
    beam = np.sqrt(-2 * np.log(_LEAST_BEAM)) / gaussian_sigma(fwhm_arcmin)
    return int(min(3 * finest - 1, np.ceil(beam)))


def transfer(
    lmax: int,
    own_arcmin: float,
    target_arcmin: float,
    window_nside: int | None,
    points_nside: int | None = None,
) -> np.ndarray:
    """Factor (lmax+1,) from a map's alm to those of the field with a beam of `target_arcmin`.

    Beams are Gaussian FWHM. The map has one of `own_arcmin` and, with `window_nside`, was averaged
    over such pixels; over the points of `points_nside` only, if given, whose own pixels' window is
    then missing. Raises `UserError` for a target below the map's own.
    """
    if target_arcmin < own_arcmin:
        raise UserError(
            "patches", f"a beam of at least the map's own {own_arcmin:g} arcmin", target_arcmin
        )
    ratio = gaussian_window(lmax, np.sqrt(target_arcmin**2 - own_arcmin**2))
    if window_nside is not None:
        ratio = ratio / pixel_window(window_nside, lmax)
    if points_nside is not None:
        ratio = ratio * pixel_window(points_nside, lmax)
    return ratio


def analyse(maps: np.ndarray, lmax: int, spin: int = 0) -> np.ndarray:
    """alm (components, modes) of RING maps (components, npix): T, or with `spin` 2 Q,U as E,B.

    Least squares, because HEALPix's quadrature is off by up to 1 % near the poles. Eight steps
    bring a field without power above 2 nside to 2e-5; above that HEALPix is not unique.
    """
    import healpy
    from ducc0.healpix import Healpix_Base
    from ducc0.sht import pseudo_analysis

    geometry = Healpix_Base(healpy.npix2nside(maps.shape[1]), "RING").sht_info()
    return pseudo_analysis(
        map=maps.astype(float),
        lmax=lmax,
        spin=spin,
        maxiter=8,
        epsilon=_ACCURACY,
        nthreads=0,
        **geometry,
    )[0]


def evaluate(
    alm: np.ndarray, factor: np.ndarray, lon: np.ndarray, lat: np.ndarray, spin: int = 0
) -> np.ndarray:
    """Fields (components, n) float64 of alm times `factor` (lmax+1,) at points (n,) in degrees.

    With `spin` 2: Q and U of E and B, on each point's own meridian, COSMO. With `spin` 1: the
    components towards south and east. One alm with a spin is an E without B.
    """
    import healpy
    from ducc0.sht import synthesis_general

    scaled = np.stack([healpy.almxfl(component, factor) for component in alm])
    points = np.stack([np.radians(90 - lat.ravel()), np.radians(lon.ravel() % 360)], axis=1)
    # One thread: the transform's grid, and so its rounding, is chosen by the number of threads.
    return synthesis_general(
        alm=scaled,
        lmax=factor.size - 1,
        spin=spin,
        loc=points,
        epsilon=_ACCURACY,
        nthreads=1,
        mode="GRAD_ONLY" if spin and len(alm) == 1 else "STANDARD",
    )


def fill_bad(values: np.ndarray) -> np.ndarray:
    """RING map (npix,) whose NaN pixels take the mean of the good ones nearby.

    Nearby is the finest coarser pixel that has any.
    A hole of another value would ring over the patches around it.
    """
    import healpy

    if not np.isnan(values).any():
        return values
    if np.isnan(values).all():
        raise UserError("map", "good pixels", "none")
    nested = healpy.reorder(values, r2n=True)
    coarse, nside = nested, healpy.npix2nside(values.size)
    while np.isnan(nested).any():
        nside //= 2
        if nside == 0:
            nested = np.where(np.isnan(nested), np.nanmean(nested), nested)
            break
        coarse = change_nside(coarse, nside, good_share=0)
        filler = np.repeat(coarse, nested.size // coarse.size)
        nested = np.where(np.isnan(nested), filler, nested)
    return healpy.reorder(nested, n2r=True)


def smooth(values: np.ndarray, fwhm_deg: float) -> np.ndarray:
    """RING map (npix,) float64 smoothed with a Gaussian beam."""
    import healpy

    nside = healpy.npix2nside(values.size)
    lmax = band_limit(nside, 60 * fwhm_deg)
    alm = analyse(values[None], lmax)[0]
    return healpy.alm2map(healpy.almxfl(alm, gaussian_window(lmax, 60 * fwhm_deg)), nside, lmax)
