"""Classical estimates of patches of observed Q and U, all that there are, from one calibration."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from skyweave.config import Estimates
from skyweave.errors import UserError
from skyweave.estimators.delensing import Delensing
from skyweave.estimators.observed import Observed
from skyweave.estimators.quadratic import Quadratic
from skyweave.flat.fourier import forward

#: Patches worked on at once: bounds the memory, not the result.
_CHUNK = 32

#: The spectrum of each field that a quadratic estimator finds.
SPECTRA = {"kappa": "kk", "tau": "tautau", "alpha": "alphaalpha"}


@dataclass(frozen=True)
class PatchEstimator:
    """Estimates of the fields of tapered patches of Q and U, each tapered as they are.

    `e_wiener`: Wiener-filtered E, of the tapered Q and U that it makes; `b_wiener`: Wiener-filtered
    B itself, into which no E leaks; `kappa_quadratic`, `tau_quadratic`, `alpha_quadratic`:
    quadratic estimates of EE and EB, Wiener-filtered, that of tau hardened against lensing;
    `e_iterative`, `kappa_iterative`, `tau_iterative`, `alpha_iterative`: those of `delensing`, and
    `b_iterative` the B that it leaves. µK, and radians for alpha.
    """

    observed: Observed
    ell: tuple[float, float]
    delensing: Delensing

    @classmethod
    def fit(cls, observed: Observed, maps: Mapping[str, np.ndarray], settings: Estimates) -> Self:
        """Calibrate on patches (n, y, x) of `q` and `u` with the truth of `e_prim` and, as far as
        they act, of kappa, tau and alpha."""
        q, u, _, _ = observed.sky(maps["q"], maps["u"])

        def seen(modes: np.ndarray) -> np.ndarray:
            return forward(observed.patch(modes), observed.grid)

        fields = ("e_prim", *(name for name in SPECTRA if name in maps))
        delensing = Delensing.fit(
            q,
            u,
            {name: forward(np.asarray(maps[name], float), observed.grid) for name in fields},
            observed.on_area(observed.cl["ee"]),
            observed.area,
            kept=observed.kept,
            ell=settings.ell,
            steps=settings.iterations,
            view={"e_prim": observed.tapered_e_modes} | dict.fromkeys(SPECTRA, seen),
        )
        return cls(observed, settings.ell, delensing)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the estimates."""
        found = self.delensing.fields
        quadratic = tuple(f"{name}_quadratic" for name in found)
        return ("e_wiener", "b_wiener", *quadratic, *self.steps, "e_iterative", "b_iterative")

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of those estimates of kappa, tau and alpha that lensing was taken back for."""
        return tuple(f"{name}_iterative" for name in self.delensing.fields)

    def __call__(self, q: np.ndarray, u: np.ndarray) -> dict[str, np.ndarray]:
        """The estimates, each (n, y, x) float32, of patches (n, y, x).

        Raises `UserError` for maps of another shape than the patches'.
        """
        pixels = self.observed.pixels
        for name, maps in (("q", q), ("u", u)):
            if maps.shape != (len(q), pixels, pixels):
                raise UserError(name, f"maps of {pixels} x {pixels} pixels", maps.shape)
        out = {name: np.empty(q.shape, np.float32) for name in self.fields}
        for start in range(0, len(q), _CHUNK):
            rows = slice(start, start + _CHUNK)
            for name, maps in self._estimates(q[rows], u[rows]):
                out[name][rows] = maps
        return out

    def _estimates(self, q: np.ndarray, u: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        observed = self.observed
        q, u, e, b = observed.sky(q, u)
        yield "e_wiener", observed.tapered_e(e)
        yield "b_wiener", observed.patch(b)
        modes = observed.modes(q, u)
        for name, estimator in self.quadratic.items():
            spectrum = observed.on_area(observed.cl[SPECTRA[name]])
            yield f"{name}_quadratic", observed.patch(estimator.wiener(modes, spectrum))
        found = self.delensing(q, u)
        yield "e_iterative", observed.tapered_e(found.pop("e_prim"))
        for name, estimate in found.items():
            yield f"{name}_iterative", observed.patch(estimate)

    @cached_property
    def quadratic(self) -> dict[str, Quadratic]:
        """The quadratic estimator of each field."""
        observed = self.observed
        signal = {name: observed.on_area(observed.cl[f"lensed_{name}"]) for name in ("ee", "bb")}
        return {
            name: Quadratic(
                observed.area,
                signal,
                observed.totals,
                field=name,
                pairs=("ee", "eb"),
                ell=self.ell,
                against=("kappa",) if name == "tau" and observed.lensed else (),
            )
            for name in self.delensing.fields
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` makes the same."""
        return {
            "observed": self.observed.to_dict(),
            "ell": list(self.ell),
            "delensing": self.delensing.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_dict` gave; raises `UserError` for anything else."""
        try:
            parts = values["observed"], tuple(values["ell"]), values["delensing"]
        except (KeyError, TypeError) as error:
            raise UserError("estimates", "what the calibration wrote", error) from None
        return cls(Observed.from_dict(parts[0]), parts[1], Delensing.from_dict(parts[2]))
