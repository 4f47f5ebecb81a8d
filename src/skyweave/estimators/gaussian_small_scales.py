"""Small scales that are Gaussian: what a network that makes small scales must beat."""

import numpy as np
from scipy import optimize

from skyweave import seeds
from skyweave.errors import UserError
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.masked import expected_power
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.gaussian import white_modes

#: The law is fitted where the low resolution's beam leaves this share of the power, at least; the
#: longest waves, which the taper mixes with the mean, are left out.
_LEAST_BEAM, _LONGEST = 0.1, 1.5
#: Slopes that it may have.
_SLOPES = (-5.0, 0.0)
#: Width of the taper at each edge that spectra are measured under, of the side.
_TAPER = 0.15


def power_laws(low: np.ndarray, grid: PatchGrid, low_arcmin: float) -> tuple[np.ndarray, float]:
    """Amplitudes (n,) at ell = 80 and the slope, common to all, of patches (n, y, x): A (ell/80)^s.

    Of the sky without the Gaussian beam of `low_arcmin` that the patches have, in unit² sr. The
    likeliest for the power of tapered patches at the multipoles that the beam leaves, against what
    a law has there after beam and taper (`flat.masked`). Raises `UserError` where they are fewer
    than three bands, and for a patch without power.
    """
    beam_end = np.sqrt(-8 * np.log(2) * np.log(_LEAST_BEAM)) / np.radians(low_arcmin / 60)
    first, width = _LONGEST * grid.ell_fundamental, grid.ell_fundamental
    if beam_end < first + 3 * width:
        raise UserError(
            "patches.low_arcmin",
            f"a beam that leaves three bands of multipoles above {first:.0f}",
            f"{low_arcmin:g}, which ends at {beam_end:.0f}",
        )
    bins = Bins.linear(first, min(beam_end, grid.ell_nyquist), width)
    taper = cosine_taper(grid, _TAPER * grid.size_deg)
    # Without its weighted mean, which would leak into every band.
    mean = np.sum(low * taper, axis=(-2, -1), dtype=float) / taper.sum()
    modes = forward((low - mean[:, None, None]) * taper, grid)
    bands = bin_power(power(modes, modes, grid), grid, bins)
    if not (bands > 0).all():
        raise UserError(f"patch {np.argmin(bands.min(axis=1))}", "power at all scales", "none")
    weights = bins.modes(grid)

    def ratio(slope: float) -> np.ndarray:
        """Measured bands (n, nbins) over those of a law of amplitude 1."""
        law = _law(slope, grid) * gaussian_beam(grid.ell, low_arcmin) ** 2
        return bands / bin_power(expected_power(law, taper, grid), grid, bins)

    def unlikely(slope: float) -> float:
        """Minus the log-likelihood at the best amplitudes, but for factor and constants."""
        over = ratio(slope)
        best = np.average(over, axis=1, weights=weights)
        return float(np.mean(np.log(best) - np.average(np.log(over), axis=1, weights=weights)))

    slope = float(optimize.minimize_scalar(unlikely, bounds=_SLOPES, method="bounded").x)
    return np.average(ratio(slope), axis=1, weights=weights), slope


def _law(slope: float, grid: PatchGrid) -> np.ndarray:
    """(ell/80)^slope on the modes, 0 at ell = 0."""
    ell = np.maximum(grid.ell, grid.ell_fundamental)
    return np.where(grid.ell > 0, (ell / 80) ** slope, 0.0)


def gaussian_small_scales(
    low: np.ndarray,
    grid: PatchGrid,
    low_arcmin: float,
    high_arcmin: float,
    *,
    seed: int,
    identity: tuple[str | int, ...],
) -> np.ndarray:
    """Patches (n, y, x) of the resolution `high_arcmin` from those of `low_arcmin`, same unit.

    To each the Gaussian field is added that it lacks if its spectrum goes on as `power_laws` found
    it and its small scales know nothing of the large ones. Beams are Gaussian FWHM. Field i is
    drawn by (seed, *identity, i). Raises `UserError` as `power_laws`, and where `high_arcmin` is
    not below `low_arcmin`.
    """
    if not high_arcmin < low_arcmin:
        raise UserError("patches.high_arcmin", f"less than {low_arcmin:g}", high_arcmin)
    amplitudes, slope = power_laws(low, grid, low_arcmin)
    beams = [gaussian_beam(grid.ell, fwhm) ** 2 for fwhm in (high_arcmin, low_arcmin)]
    factor = np.sqrt(_law(slope, grid) * (beams[0] - beams[1]))
    out = np.array(low, float)
    for index, amplitude in enumerate(amplitudes):
        white = white_modes(seeds.generator(seed, *identity, index), grid)
        out[index] += np.sqrt(amplitude) * inverse(white * factor, grid)
    return out
