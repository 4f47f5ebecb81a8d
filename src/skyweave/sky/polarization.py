"""Q and U of the sky at low resolution: where polarization points to, and how much there is."""

from pathlib import Path

import numpy as np

from skyweave.errors import UserError
from skyweave.sky.harmonic import analyse, band_limit, fill_bad, gaussian_window, transfer
from skyweave.sky.healpix import read_map

#: FWHM that the template's polarization fraction is smoothed to, and the highest multipole that it
#: is then known to: its own maps end at about ell 250.
FRACTION_ARCMIN, FRACTION_LMAX = 180.0, 256
#: Highest polarization fraction of dust (Planck 2018 results XII: 22 %).
MOST_POLARIZED = 0.22


def from_template(
    template: str | Path, intensity_alm: np.ndarray, lmax: int, nside: int
) -> np.ndarray:
    """alm (2, modes) up to `lmax` of E and B of the intensity times a template's fraction.

    `template` is a HEALPix file of T, Q and U in one unit. Its Q/T and U/T, no longer than
    `MOST_POLARIZED` and smoothed to 3°, multiply the intensity of `intensity_alm` (modes, up to
    `lmax`) in pixels of `nside`: angle and fraction are the template's, all finer structure is the
    intensity's. COSMO convention, in the intensity's unit and with its beam. Raises `UserError` for
    a file that is not there or holds something else.
    """
    import healpy

    t, q, u = _read(Path(template))
    fraction = np.hypot(q, u) / t
    shorter = np.minimum(1, MOST_POLARIZED / np.maximum(fraction, 1e-9)) / t
    # Above twice its nside a map says nothing for sure.
    end = min(FRACTION_LMAX, 2 * healpy.npix2nside(t.size))
    alm = analyse(np.stack([q * shorter, u * shorter]), end, spin=2)
    beam = gaussian_window(end, FRACTION_ARCMIN)
    alm = np.stack([healpy.almxfl(one, beam) for one in alm])
    fractions = healpy.alm2map_spin(alm, nside, 2, end)
    intensity = healpy.alm2map(intensity_alm, nside, lmax)
    return analyse(np.stack([intensity * one for one in fractions]), lmax, spin=2)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T, Q, U (npix,) RING of a file; T is positive."""
    import healpy

    try:
        t, q, u = healpy.read_map(path, field=(0, 1, 2), dtype=np.float64)
    except FileNotFoundError:
        raise UserError(path, "a HEALPix file of T, Q, U", "no file") from None
    except IndexError:
        raise UserError(path, "a HEALPix file of T, Q, U", "fewer columns") from None
    except (OSError, ValueError) as error:
        raise UserError(path, "a HEALPix file of T, Q, U", str(error).splitlines()[0]) from None
    # Where the template has less than that, it is noise about its zero level.
    return np.maximum(t, 0.01 * np.median(np.abs(t))), q, u


def from_file(
    path: str | Path,
    nside: int,
    frequency_ghz: float,
    fwhm_arcmin: float,
    target_arcmin: float,
    unit: str | None = None,
) -> np.ndarray:
    """alm (2, modes) of E and B, µK_CMB, of the Q and U of a HEALPix file, with the target's beam.

    Up to `band_limit` of `nside` and the beam of `target_arcmin`. Raises `UserError` for a file
    without Q and U, and a beam of `fwhm_arcmin` above the target's.
    """
    import healpy

    sky = read_map(path, nside, frequency_ghz, unit=unit, polarization=True)
    assert sky.q is not None
    assert sky.u is not None
    lmax = band_limit(nside, target_arcmin, sky.window_nside)
    factor = transfer(lmax, fwhm_arcmin, target_arcmin, sky.window_nside)
    alm = analyse(np.stack([fill_bad(sky.q), fill_bad(sky.u)]), lmax, spin=2)
    return np.stack([healpy.almxfl(one, factor) for one in alm])
