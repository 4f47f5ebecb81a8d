"""Gaussian fields with given spectra, measured as data are: the control of every claim.

What theory says of them is known, so a measurement that disagrees is at fault; and what a real sky
shows beyond them is not in its spectrum.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skyweave.errors import UserError
from skyweave.flat.fourier import inverse
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.simulation.gaussian import white_modes
from skyweave.statistics.agreement import agreement, grouped
from skyweave.statistics.minkowski import (
    THRESHOLDS,
    functionals,
    gaussian_cells,
    gaussian_theory,
    scaled,
)
from skyweave.statistics.namaster import Workspaces, expected_spectrum, spectra
from skyweave.statistics.verdicts import verdict

#: Thresholds of the comparison with theory, in units of the field's rms; every second is tested,
#: since neighbours hardly differ.
NU = np.linspace(-2.0, 2.0, 9)

#: Least p-value: one false alarm in a thousand over the four tests of a control.
P_VALUE = 0.001 / 4

#: Largest bias of the pixels in v1 and v2, as a share of the curve's peak.
PIXEL_BIAS = 0.05

#: Most groups of bands that a spectrum is tested in.
GROUPS = 16


def spectrum_on_modes(
    ell: np.ndarray, cl: np.ndarray, weight: np.ndarray, workspaces: Workspaces
) -> np.ndarray:
    """A spectrum on the modes of the grid whose expected measurement is `cl` (nbins,).

    Power laws join the positive bands (below the first: the first two's law; above the last: its
    value); then thrice each mode is multiplied by the ratio of `cl` to what `spectra` would find
    under `weight` (y, x), between the bands. The mode 0 is 0. Raises `UserError` without a positive
    band.
    """
    grid, good = workspaces.grid, cl > 0
    if not good.any():
        raise UserError("spectrum", "power in a band", "none")
    modes = _power_laws(ell[good], cl[good], grid)
    for _ in range(3):
        found = expected_spectrum(modes, weight, workspaces)[good]
        ratio = np.clip(cl[good] / np.where(found > 0, found, np.inf), 0.5, 2)
        modes = modes * np.interp(grid.ell, ell[good], ratio)
    return modes


def _power_laws(ell: np.ndarray, cl: np.ndarray, grid: PatchGrid) -> np.ndarray:
    log_ell, log_cl = np.log(ell), np.log(cl)
    at = np.log(np.maximum(grid.ell, grid.ell_fundamental))
    slope = (log_cl[1] - log_cl[0]) / (log_ell[1] - log_ell[0]) if len(ell) > 1 else 0.0
    # A few modes make the first bands: no steeper than skies are, and never falling to low ell.
    below = np.minimum(at - log_ell[0], 0) * np.clip(slope, -4, 0)
    return np.where(grid.ell > 0, np.exp(np.interp(at, log_ell, log_cl) + below), 0.0)


@dataclass(frozen=True)
class Control:
    """Gaussian fields (count, y, x): field i has the law, and the mask, i modulo n.

    `laws` (n, pixels, pixels // 2 + 1) are spectra on the modes; `weights` (n, y, x) are those of
    the measured spectra, `keep` (n, y, x) bool those of the Minkowski functionals.
    """

    maps: np.ndarray
    laws: np.ndarray
    weights: np.ndarray
    keep: np.ndarray
    workspaces: Workspaces

    @classmethod
    def draw(
        cls,
        laws: np.ndarray,
        weights: np.ndarray,
        keep: np.ndarray,
        workspaces: Workspaces,
        *,
        seed: int,
        identity: tuple[str, ...],
        least: int = 480,
    ) -> "Control":
        """At least `least` fields, as many of one law as of another."""
        count = -(-least // len(laws)) * len(laws)
        grid, amplitudes = workspaces.grid, np.sqrt(laws)
        maps = np.empty((count, grid.pixels, grid.pixels))
        for index in range(count):
            white = white_modes(generator(seed, *identity, index), grid)
            maps[index] = inverse(white * amplitudes[index % len(laws)], grid)
        return cls(maps, laws, weights, keep, workspaces)

    @cached_property
    def spectra(self) -> np.ndarray:
        """Decoupled spectra (count, nbins)."""
        return spectra(self.maps, self._each(self.weights), self.workspaces)

    @cached_property
    def expected(self) -> np.ndarray:
        """What theory expects of the spectra of each law, (n, nbins)."""
        pairs = zip(self.laws, self.weights, strict=True)
        return np.stack([expected_spectrum(law, mask, self.workspaces) for law, mask in pairs])

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Each law's rms, and that of its gradient per pixel, (n,)."""
        grid = self.workspaces.grid
        power = grid.mode_weight * self.laws / grid.area_sr
        gradient = power * (grid.ell * grid.pixel_rad) ** 2
        return np.sqrt(power.sum(axis=(1, 2))), np.sqrt(gradient.sum(axis=(1, 2)))

    @cached_property
    def curves(self) -> np.ndarray:
        """Minkowski functionals (count, 3, 32) of the fields, each scaled to [-1, 1]."""
        keep = self._each(self.keep)
        return functionals(scaled(self.maps, keep), THRESHOLDS, keep)

    @cached_property
    def curves_nu(self) -> np.ndarray:
        """Minkowski functionals (count, 3, 9) at thresholds `NU` in units of the law's rms."""
        rms = self._each(self.moments[0])[:, None, None]
        return functionals(self.maps / rms, NU, self._each(self.keep))

    @property
    def theory_nu(self) -> np.ndarray:
        """Analytic functionals (n, 3, 9) at `NU`, by law."""
        sigma0, sigma1 = self.moments
        return np.stack([gaussian_theory(NU, 1.0, ratio) for ratio in sigma1 / sigma0])

    @cached_property
    def cells_nu(self) -> np.ndarray:
        """Functionals (n, 3, 9) at `NU` that theory expects on pixels, by law."""
        correlation = inverse(self.laws + 0j, self.workspaces.grid)
        near = correlation[:, [0, 0, 1], [0, 1, 1]] / correlation[:, :1, 0]
        return np.stack([gaussian_cells(NU, at) for at in near])

    @property
    def theory_scaled(self) -> np.ndarray:
        """Analytic functionals (3, 32) at the thresholds of `curves`, averaged over the fields.

        Takes the extremes of a field as given and the rest as free, which is wrong in the tails: a
        guide to the eye. The test against theory is at `NU`.
        """
        keep = self._each(self.keep)
        low = np.min(self.maps, axis=(1, 2), where=keep, initial=np.inf)[:, None]
        high = np.max(self.maps, axis=(1, 2), where=keep, initial=-np.inf)[:, None]
        levels = low + (THRESHOLDS + 1) / 2 * (high - low)
        sigma0, sigma1 = (self._each(moment)[:, None] for moment in self.moments)
        return gaussian_theory(levels, sigma0, sigma1).mean(axis=1)

    def verdicts(self) -> list[dict]:
        """Does the measurement find in Gaussian fields what theory says?

        Spectra against their expectation under the same masks, each functional against theory on
        pixels, and the bias of the pixels against the analytic curves.
        """
        differences = (self.curves_nu - self._each(self.cells_nu))[..., ::2]
        tests = {
            "power spectrum": grouped(self.relative - 1, GROUPS),
            "area fraction v0": differences[:, 0],
            "boundary length v1": differences[:, 1],
            "Euler characteristic v2": differences[:, 2],
        }
        found = []
        for name, samples in tests.items():
            result = agreement(samples)
            found.append(
                verdict(
                    f"Gaussian control agrees with theory: {name}",
                    result.p_value,
                    P_VALUE,
                    ">",
                    unit="p-value",
                    note=str(result),
                )
            )
        cells, theory = self.cells_nu.mean(axis=0), self.theory_nu.mean(axis=0)
        bias = np.abs(cells - theory).max(axis=1) / np.abs(theory).max(axis=1)
        coherence = np.median(self.moments[0] / self.moments[1])
        found.append(
            verdict(
                "Gaussian control: bias of the pixels in v1 and v2",
                bias[1:].max(),
                PIXEL_BIAS,
                "<",
                unit="of the curve's peak",
                note=f"median coherence length {coherence:.1f} pixels",
            )
        )
        return found

    @cached_property
    def relative(self) -> np.ndarray:
        """Measured over expected spectra, (count, nbins).

        Both coupled again: under the mask each band holds power of its own patch, so that bright
        and faint patches count alike and no band is near zero.
        """
        rows = zip(self.spectra, self._each(self.expected), self._each(self.weights), strict=True)
        couple = self.workspaces.couple
        return np.stack([couple(cl, mask) / couple(law, mask) for cl, law, mask in rows])

    def _each(self, per_law: np.ndarray) -> np.ndarray:
        """The rows (n, ...) of each field's law, (count, ...)."""
        return per_law[np.arange(len(self.maps)) % len(per_law)]
