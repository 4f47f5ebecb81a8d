"""HEALPix maps at another resolution: averages that know of bad pixels, variances and spin."""

import numpy as np

from skyweave.sky.projection import cosmo_to_iau, rotate_qu, transport_angle

#: Least share of good pixels that make a coarser one good.
GOOD_SHARE = 0.5


def change_nside(values: np.ndarray, nside: int, good_share: float = GOOD_SHARE) -> np.ndarray:
    """NESTED map (npix,), NaN where bad, at `nside`: means of the good pixels, or repetition.

    A coarser pixel with less than `good_share` of good ones, or with none, is bad.
    """
    native = _nside(values)
    if nside >= native:
        return np.repeat(values, (nside // native) ** 2)
    return _mean_of_good(values, nside, good_share)[0].astype(values.dtype)


def change_variance_nside(variance: np.ndarray, nside: int) -> np.ndarray:
    """The like for the variance of independent pixels: that of their mean is Σ variance / n².

    Finer pixels repeat their parent's value and variance, and are not independent.
    """
    native = _nside(variance)
    if nside >= native:
        return np.repeat(variance, (nside // native) ** 2)
    mean, good = _mean_of_good(variance, nside, GOOD_SHARE)
    return (mean / np.maximum(good, 1)).astype(variance.dtype)


def _mean_of_good(
    values: np.ndarray, nside: int, good_share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the good children of each pixel at `nside`, NaN where too few are; their count."""
    children = values.reshape(12 * nside**2, -1)
    good = np.isfinite(children).sum(1)
    total = np.nansum(children, 1, dtype=np.float64)
    enough = (good > 0) & (good >= good_share * children.shape[1])
    return np.where(enough, total / np.maximum(good, 1), np.nan), good


def change_qu_nside(q: np.ndarray, u: np.ndarray, nside: int) -> tuple[np.ndarray, np.ndarray]:
    """The like for Q and U (NESTED, COSMO), carried to the coarser pixel's centre before averaging.

    Near the poles the meridians of neighbouring pixels differ by many degrees.
    """
    import healpy

    native = _nside(q)
    if nside >= native:
        return change_nside(q, nside), change_nside(u, nside)
    children = (native // nside) ** 2
    carried_q, carried_u = np.empty_like(q), np.empty_like(u)
    step = max((1 << 20) // children, 1)
    for start in range(0, 12 * nside**2, step):
        parents = np.arange(start, min(start + step, 12 * nside**2))
        part = slice(parents[0] * children, (parents[-1] + 1) * children)
        lon, lat = healpy.pix2ang(native, np.arange(part.start, part.stop), nest=True, lonlat=True)
        to = healpy.pix2ang(nside, parents, nest=True, lonlat=True)
        angle = transport_angle(lon, lat, *(np.repeat(centre, children) for centre in to))
        rotated = rotate_qu(*cosmo_to_iau(q[part], u[part]), angle)
        carried_q[part], carried_u[part] = cosmo_to_iau(*rotated)
    return change_nside(carried_q, nside), change_nside(carried_u, nside)


def _nside(values: np.ndarray) -> int:
    return int(np.sqrt(values.size // 12))
