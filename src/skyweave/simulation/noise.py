"""Instrumental noise of a patch: white or with a knee, even or by the number of observations."""

import warnings
from pathlib import Path

import numpy as np

from skyweave.errors import UserError
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.simulation.normals import Random


def noise_cl(
    ell: np.ndarray, uk_arcmin: float, knee_ell: float = 0.0, slope: float = 1.0
) -> np.ndarray:
    """N_ell = w² (1 + (knee_ell / ell)^slope) in µK² sr, same shape as `ell`.

    w is `uk_arcmin` in µK-radians. The mean (ell 0) has the white w² only.
    """
    return np.deg2rad(uk_arcmin / 60) ** 2 * _excess(ell, knee_ell, slope)


def read_hits(path: str | Path, pixels: int) -> np.ndarray:
    """Numbers of observations (y, x) float64 of the pixels of a patch of `pixels` a side.

    path: ``.npy``, or FITS, of which the first image with two axes is taken. Raises `UserError`
    for a missing or unreadable file, another shape, and values that are not finite or not positive.
    """
    from astropy.utils.exceptions import AstropyWarning

    try:
        values = _npy(path) if Path(path).suffix == ".npy" else _fits_image(path)
    except FileNotFoundError:
        raise UserError(path, "a map of hits", "no file") from None
    except (OSError, TypeError, ValueError, AstropyWarning) as error:
        found = " ".join(str(error).split())
        raise UserError(path, "a map of hits, FITS or .npy", found) from None
    if values is None:
        raise UserError(path, "an image with two axes", "a FITS file without one")
    if values.shape != (pixels, pixels):
        raise UserError(path, f"a map of {(pixels, pixels)} pixels", values.shape)
    if values.dtype.kind not in "iuf":
        raise UserError(path, "a map of numbers", values.dtype)
    hits = values.astype(np.float64)
    if not np.isfinite(hits).all():
        raise UserError(path, "finite hits", hits[~np.isfinite(hits)][0])
    if hits.min() <= 0:
        raise UserError(path, "more than 0 hits in every pixel", f"{hits.min():g}")
    return hits


def hits_scale(hits: np.ndarray) -> np.ndarray:
    """Factor on the noise of each pixel, √(mean hits / hits): 1 at the mean number of hits."""
    return np.sqrt(np.mean(hits) / hits)


def noise_map(
    random: Random,
    grid: PatchGrid,
    uk_arcmin: float,
    *,
    knee_ell: float = 0.0,
    slope: float = 1.0,
    scale: np.ndarray | None = None,
) -> np.ndarray:
    """Noise (y, x) float64 in µK with the spectrum `noise_cl`, then times `scale` (y, x) if given.

    It is drawn pixel by pixel, and filtered where there is a knee.
    """
    noise = random.standard_normal((grid.pixels, grid.pixels))
    noise *= uk_arcmin / grid.pixel_arcmin
    if knee_ell > 0:
        noise = inverse(forward(noise, grid) * np.sqrt(_excess(grid.ell, knee_ell, slope)), grid)
    return noise if scale is None else noise * scale


def _excess(ell: np.ndarray, knee_ell: float, slope: float) -> np.ndarray:
    """1 + (knee_ell / ell)^slope, 1 at ell 0 and without a knee."""
    excess = np.ones(np.shape(ell))
    if knee_ell > 0:
        wave = np.asarray(ell) > 0
        excess[wave] += (knee_ell / np.asarray(ell)[wave]) ** slope
    return excess


def _npy(path: str | Path) -> np.ndarray:
    with open(path, "rb") as file:
        return np.lib.format.read_array(file)


def _fits_image(path: str | Path) -> np.ndarray | None:
    """The first image with two axes of a FITS file, None where there is none."""
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        # astropy only warns of a truncated file.
        warnings.filterwarnings("error", "File may have been truncated", AstropyWarning)
        with fits.open(path, memmap=False) as hdus:
            for hdu in hdus:
                if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2:
                    return np.asarray(hdu.data)
    return None
