"""Small scales that are Gaussian: what a network that makes small scales must beat."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Self

import numpy as np
from scipy import optimize

from skyweave import seeds
from skyweave.data.scaling import location_and_scale, ratio
from skyweave.errors import UserError
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.masked import expected_power
from skyweave.flat.mosaic import sharpen
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.gaussian import white_modes

#: The law is fitted where the low resolution's beam leaves this share of the power, at least; the
#: longest waves, which the taper mixes with the mean, are left out.
_LEAST_BEAM, _LONGEST = 0.1, 1.5
#: The low resolution's beam is undone where it leaves the first share of the power, and not where
#: it leaves less than the second. What is left beyond is not undone but added to: with 0.3 and 0.1
#: small scales of a Gaussian sky would have 1.12 times their rms, with these 1.01.
_KNOWN = 0.03, 0.003
#: A patch is nowhere fainter than this share of its median, where it is divided by.
_FAINTEST = 0.1
#: Slopes that it may have.
_SLOPES = (-5.0, 0.0)
#: Deviation of logarithms that is rounding.
_EQUAL = 1e-9
#: Width of the taper at each edge that spectra are measured under, of the side.
_TAPER = 0.15


def power_laws(
    low: np.ndarray, grid: PatchGrid, low_arcmin: float, slope: float | None = None
) -> tuple[np.ndarray, float]:
    """Amplitudes (n,) at ell = 80 and the slope, common to all, of patches (n, y, x): A (ell/80)^s.

    Of the sky without the Gaussian beam of `low_arcmin` that the patches have, in unit² sr. The
    likeliest for the power of tapered patches at the multipoles that the beam leaves, against what
    a law has there after beam and taper (`flat.masked`). Raises `UserError` where they are fewer
    than three bands and `slope` is not given, and for a patch without power.
    """
    bins = _bins(grid, low_arcmin)
    if slope is None and bins.count < 3:
        raise UserError(
            "patches.low_arcmin",
            f"a beam that leaves three bands of multipoles above {bins.edges[0]:.0f}",
            f"{low_arcmin:g}, which ends at {_beam_end(low_arcmin):.0f}",
        )
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

    if slope is None:
        slope = float(optimize.minimize_scalar(unlikely, bounds=_SLOPES, method="bounded").x)
    return np.average(ratio(slope), axis=1, weights=weights), slope


def _beam_end(fwhm_arcmin: float, share: float = _LEAST_BEAM) -> float:
    """The multipole where a beam leaves `share` of the power."""
    return float(np.sqrt(-8 * np.log(2) * np.log(share)) / np.radians(fwhm_arcmin / 60))


def _bins(grid: PatchGrid, fwhm_arcmin: float) -> Bins:
    """Bands that the beam leaves; where none is left, the longest waves in one."""
    width, end = grid.ell_fundamental, min(_beam_end(fwhm_arcmin), grid.ell_nyquist)
    if end < (_LONGEST + 1) * width:
        return Bins((0.5 * width, _LONGEST * width))
    return Bins.linear(_LONGEST * width, end, width)


def _law(slope: float, grid: PatchGrid) -> np.ndarray:
    """(ell/80)^slope on the modes, 0 at ell = 0."""
    ell = np.maximum(grid.ell, grid.ell_fundamental)
    return np.where(grid.ell > 0, (ell / 80) ** slope, 0.0)


@dataclass(frozen=True)
class Law:
    """How small scales follow from large ones, learned where both are known.

    The spectrum goes on with `slope`; the logarithm of a patch's amplitude, by its mean² and the
    power that the law has at its longest wave, is `offset` + `gain` times that which its large
    scales say. A ratio of high to low resolution has the deviation `scale` d^`power`
    (`data.scaling.location_and_scale`), d that of a Gaussian field of this spectrum: a patch's
    power is that of its brightest part, its ratio varies all over it. All of it is the same at any
    scale: for the same pixels on a smaller patch, with beams that are smaller by as much.
    """

    slope: float
    offset: float
    gain: float
    scale: float = 1.0
    power: float = 1.0

    @classmethod
    def fit(
        cls,
        low: np.ndarray,
        high: np.ndarray,
        grid: PatchGrid,
        low_arcmin: float,
        high_arcmin: float,
    ) -> Self:
        """From patches (n, y, x) at both resolutions, of the same sky."""
        true, slope = power_laws(high, grid, high_arcmin)
        unit = _amplitude_unit(low, grid, slope)
        told = np.log(power_laws(low, grid, low_arcmin, slope)[0] / unit)
        law = cls(slope, *_line(told, np.log(true / unit)))
        deviation = location_and_scale(ratio(high, low)[0])[1]
        expected = np.log(law.ratio_deviation(low, grid, low_arcmin, high_arcmin))
        offset, power = _line(expected, np.log(deviation))
        return replace(law, scale=float(np.exp(offset)), power=power)

    def amplitudes(self, low: np.ndarray, grid: PatchGrid, low_arcmin: float) -> np.ndarray:
        """Amplitudes (n,) at ell = 80 of patches (n, y, x), unit² sr."""
        unit = _amplitude_unit(low, grid, self.slope)
        told = np.log(power_laws(low, grid, low_arcmin, self.slope)[0] / unit)
        return np.exp(self.offset + self.gain * told) * unit

    def ratio_deviation(
        self, low: np.ndarray, grid: PatchGrid, low_arcmin: float, high_arcmin: float
    ) -> np.ndarray:
        """Deviation (n,) to be expected of the ratio of high to low resolution of each patch.

        High and low are one field seen with two beams, so their difference has the power
        C_ell (b_high - b_low)².
        """
        beams = [gaussian_beam(grid.ell, fwhm) for fwhm in (high_arcmin, low_arcmin)]
        modes = grid.mode_weight * _law(self.slope, grid) * (beams[0] - beams[1]) ** 2
        variance = self.amplitudes(low, grid, low_arcmin) * modes.sum() / grid.area_sr
        size = np.abs(np.asarray(low, float))
        floor = _FAINTEST * np.median(size, axis=(1, 2), keepdims=True)
        inverse_square = np.mean(1 / np.maximum(size, floor) ** 2, axis=(1, 2))
        return self.scale * np.sqrt(variance * inverse_square) ** self.power

    def to_dict(self) -> dict[str, float]:
        """Plain values, from which ``Law(**values)`` is the same."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Self:
        """From what `to_dict` gave; raises `UserError` for anything else."""
        try:
            law = cls(**{name: float(value) for name, value in values.items()})
        except (AttributeError, TypeError, ValueError):
            raise UserError("law", "the numbers of a law of small scales", values) from None
        if not np.isfinite(list(law.to_dict().values())).all():
            raise UserError("law", "finite numbers", values)
        return law


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Offset and gain, from 0 to 1, of the line y = offset + gain x by least squares."""
    x_mean, y_mean = np.mean(x), np.mean(y)
    spread = np.mean((x - x_mean) ** 2)
    # From patches that are equal but for rounding nothing but the mean is learned.
    gain = 0.0
    if spread > _EQUAL**2:
        gain = np.clip(np.mean((x - x_mean) * (y - y_mean)) / spread, 0, 1)
    return float(y_mean - gain * x_mean), float(gain)


def _amplitude_unit(maps: np.ndarray, grid: PatchGrid, slope: float) -> np.ndarray:
    """Amplitudes (n,) with which a law has the mean square of each map at its longest wave.

    That is the square of the mean; of a map without a mean, as of Q, its variance.
    """
    maps = np.asarray(maps, float)
    square = np.maximum(maps.mean(axis=(1, 2)) ** 2, maps.var(axis=(1, 2)))
    return square * grid.area_sr / (grid.ell_fundamental / 80) ** slope


def gaussian_small_scales(
    low: np.ndarray,
    grid: PatchGrid,
    low_arcmin: float,
    high_arcmin: float,
    *,
    seed: int,
    identity: tuple[str | int, ...],
    law: Law | None = None,
) -> np.ndarray:
    """Patches (n, y, x) of the resolution `high_arcmin` from those of `low_arcmin`, same unit.

    Where the low resolution's beam leaves signal it is undone: the modes of each patch and its
    mirror images (`flat.mosaic.sharpen`) are multiplied by g = 1 + w (b_high / b_low - 1), w
    falling as half a cosine in ell from 1 where b_low² = 0.03 to 0 where b_low² = 0.003.

    To that the Gaussian field is added that it still lacks, of power C max(b_high² - (b_low g)², 0)
    if the spectrum C goes on as `law` says, or as `power_laws` finds. It is drawn on the modes of
    the periodic patch and multiplied by |low| / √mean(low²): small scales grow with the brightness,
    and their mean power stays. On a mean that is far larger than what varies this changes nothing.

    Beams are Gaussian FWHM. Field i is drawn by (seed, *identity, i). Raises `UserError` as
    `power_laws`, and where `high_arcmin` is not below `low_arcmin`.
    """
    if not high_arcmin < low_arcmin:
        raise UserError("patches.high_arcmin", f"less than {low_arcmin:g}", high_arcmin)
    if law is None:
        amplitudes, slope = power_laws(low, grid, low_arcmin)
    else:
        amplitudes, slope = law.amplitudes(low, grid, low_arcmin), law.slope
    known = _undone(grid.ell, low_arcmin, high_arcmin) * gaussian_beam(grid.ell, low_arcmin)
    lacking = np.maximum(gaussian_beam(grid.ell, high_arcmin) ** 2 - known**2, 0)
    factor = np.sqrt(_law(slope, grid) * lacking)
    out = sharpen(low, grid.pixel_arcmin, lambda ell: _undone(ell, low_arcmin, high_arcmin))
    for index, amplitude in enumerate(amplitudes):
        white = white_modes(seeds.generator(seed, *identity, index), grid)
        bright = np.abs(np.asarray(low[index], float))
        bright /= np.sqrt(np.mean(bright**2))
        out[index] += np.sqrt(amplitude) * bright * inverse(white * factor, grid)
    return out


def _undone(ell: np.ndarray, low_arcmin: float, high_arcmin: float) -> np.ndarray:
    """What modes of the low resolution are multiplied by, the shape of `ell`."""
    first, last = (_beam_end(low_arcmin, share) for share in _KNOWN)
    weight = (1 + np.cos(np.pi * np.clip((ell - first) / (last - first), 0, 1))) / 2
    # Beyond the last multipole the weight is 0 and the beam may be.
    ell = np.minimum(ell, last)
    sharper = gaussian_beam(ell, high_arcmin) / gaussian_beam(ell, low_arcmin)
    return 1 + weight * (sharper - 1)
