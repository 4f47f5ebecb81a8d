"""Lensing taken back step by step: kappa, primordial E, tau and alpha of one observed sky.

A quadratic estimate of kappa sees the observed E and B; lensing itself is most of that B, and so
most of the estimate's noise. With lensing by the first estimate taken back, less B is left, and a
quadratic estimate of what the first one missed is less noisy: so on, step by step (Hirata & Seljak
2003, astro-ph/0306354; Carron & Lewis 2017, arXiv:1704.08230). Tau and alpha are estimated from
the B that is left at last, which is mostly theirs where noise is low.

What a step adds is weighted band by band such that the sum is nearest to the truth of simulated
skies (`fit`), in place of the response and noise that theory predicts for a first step only. So
every estimate is a Wiener-filtered one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from skyweave.errors import UserError
from skyweave.estimators.bands import band_powers, narrow_bins, regress, spread
from skyweave.estimators.products import products
from skyweave.flat.fourier import Bins, forward
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb
from skyweave.flat.spline import Displacer
from skyweave.simulation.effects import deflection

#: Steps to the place that light was deflected from: each leaves a tenth of the error or less.
_BACK = 3

#: Modes of the area (n, pixels, pixels // 2 + 1) to those of what is compared with the truth.
View = Callable[[np.ndarray], np.ndarray]
Weights = dict[str, list[float]]


@dataclass(frozen=True)
class Step:
    """Power of E and B that a step finds, and the weights of its estimates, all by band."""

    ee: list[float]
    bb: list[float]
    weights: Weights


@dataclass(frozen=True)
class Delensing:
    """Estimates of kappa, E, tau and alpha from Q and U of a periodic area.

    `signal` is the spectrum of primordial E by band, `kept` the share of the sky's waves that the
    maps have, `ell` the lowest and highest multipole of E and B that are used, `fields` which of
    kappa, tau and alpha are estimated.
    """

    grid: PatchGrid
    ell: tuple[float, float]
    fields: tuple[str, ...]
    signal: list[float]
    kept: list[float]
    steps: list[Step] = field(default_factory=list)
    last: Mapping[str, Weights] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        q: np.ndarray,
        u: np.ndarray,
        truth: Mapping[str, np.ndarray],
        signal: np.ndarray,
        grid: PatchGrid,
        *,
        kept: np.ndarray,
        ell: tuple[float, float],
        steps: int,
        view: Mapping[str, View],
    ) -> Self:
        """Learn the weights from maps (n, y, x) and their truths.

        `truth` holds modes of e_prim and of those of kappa, tau and alpha that are to be estimated,
        as `view` by the field's name makes them of modes of the area; `signal`, the spectrum of
        primordial E, and `kept` are on the grid's modes. Without kappa nothing is taken back.
        """
        fields = tuple(name for name in ("kappa", "tau", "alpha") if name in truth)
        middles = np.add(narrow_bins(grid).edges[1:], narrow_bins(grid).edges[:-1]) / 2
        order = np.argsort(grid.ell, axis=None)
        by_band = (
            np.interp(middles, grid.ell.ravel()[order], values.ravel()[order]).tolist()
            for values in (signal, kept)
        )
        learned = cls(grid, ell, fields, *by_band)

        def weights(features: Mapping[str, np.ndarray], name: str) -> Weights:
            seen = {key: view[name](one) for key, one in features.items()}
            pixels = truth[name].shape[-2]
            patch = PatchGrid(grid.size_deg * pixels / grid.pixels, pixels)
            found = regress(seen, truth[name], patch, learned._bins)
            return {key: values.tolist() for key, values in found.items()}

        known: list[np.ndarray] = []
        sky = q, u
        for _ in range(steps if "kappa" in fields else 0):
            e, b = learned._eb(*sky)
            powers = learned._powers(e, b)
            features = learned._features(e, b, powers, known)
            step = replace(powers, weights=weights(features, "kappa"))
            learned = replace(learned, steps=[*learned.steps, step])
            known = [learned._sum(features, step.weights), *known[:1]]
            sky = learned.delensed(q, u, known[0])
        e, b = learned._eb(*sky)
        powers = learned._powers(e, b)
        last = {
            name: weights(features, name)
            for name, features in learned._last_features(e, b, powers).items()
        }
        return replace(learned, steps=[*learned.steps, powers], last=last)

    def __call__(self, q: np.ndarray, u: np.ndarray) -> dict[str, np.ndarray]:
        """Modes of e_prim, of `fields`, and of the `b` that is left, from maps (n, y, x)."""
        known: list[np.ndarray] = []
        sky = q, u
        for step in self.steps[:-1]:
            e, b = self._eb(*sky)
            known = [self._sum(self._features(e, b, step, known), step.weights), *known[:1]]
            sky = self.delensed(q, u, known[0])
        e, b = self._eb(*sky)
        features = self._last_features(e, b, self.steps[-1])
        found = {name: self._sum(parts, self.last[name]) for name, parts in features.items()}
        if known:
            found["kappa"] = known[0]
        return found | {"b": b}

    def delensed(
        self, q: np.ndarray, u: np.ndarray, kappa: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Maps (n, y, x) of Q and U with lensing by modes of kappa taken back.

        The sky seen at x came from y = x + ∇phi(x), so that of y is seen at y - ∇phi(x).
        """
        out = np.empty((2, *q.shape))
        read = Displacer(2, self.grid.pixels)
        for index, modes in enumerate(kappa):
            shifts = self._shifts(modes)
            back = -shifts
            for _ in range(_BACK):
                back = -read(shifts, *back.astype(float))
            out[:, index] = read(np.stack([q[index], u[index]]), *back.astype(float))
        return out[0], out[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` makes the same."""
        values = asdict(self)
        return values | {"grid": {"size_deg": self.grid.size_deg, "pixels": self.grid.pixels}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_dict` gave; raises `UserError` for anything else."""
        try:
            return cls(
                PatchGrid(**values["grid"]),
                tuple(values["ell"]),
                tuple(values["fields"]),
                values["signal"],
                values["kept"],
                [Step(**step) for step in values["steps"]],
                values["last"],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError("estimates", "what the calibration wrote", error) from None

    @property
    def _bins(self) -> Bins:
        return narrow_bins(self.grid)

    def _shifts(self, kappa: np.ndarray) -> np.ndarray:
        """Deflection (2, y, x) along y and x, in pixels, by modes of kappa."""
        return np.stack(deflection(kappa, self.grid)) / self.grid.pixel_rad

    def _eb(self, q: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rotate_to_eb(forward(q, self.grid), forward(u, self.grid), self.grid)

    def _powers(self, e: np.ndarray, b: np.ndarray) -> Step:
        """A step that has no weights yet."""
        ee, bb = (band_powers(modes, self.grid, self._bins).tolist() for modes in (e, b))
        return Step(ee, bb, {})

    def _legs(self, e: np.ndarray, b: np.ndarray, step: Step) -> tuple[np.ndarray, ...]:
        """E and B over their power, and E Wiener-filtered, where multipoles are used."""
        low, high = self.ell
        used = (low <= self.grid.ell) & (self.grid.ell <= min(high, self.grid.ell_nyquist))
        kept = used * self._spread(self.kept)
        weighted = e * kept / self._spread(step.ee)
        return weighted, b * kept / self._spread(step.bb), weighted * self._spread(self.signal)

    def _features(
        self, e: np.ndarray, b: np.ndarray, step: Step, known: Sequence[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Modes of what a step's kappa is the weighted sum of.

        Estimates from E and B, from E, and, as far as they are `known`, kappa of the step before,
        by which lensing was taken back, and of the one before that. With the last a step goes on
        where the one before went, as conjugate gradients do: half as many are needed.
        """
        weighted_e, weighted_b, filtered = self._legs(e, b, step)
        weighted = {"eb": {"b": weighted_b}, "ee": {"e": weighted_e}}
        found = products("kappa", weighted, {"e": filtered}, self.grid)
        if not known:
            return found
        return self._where_seen(found, known[0]) | dict(
            zip(("before", "earlier"), known, strict=False)
        )

    def _where_seen(
        self, estimates: Mapping[str, np.ndarray], kappa: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Estimates of kappa where light comes from, brought to where it is seen.

        They are of the deflection that is left, at x + ∇phi(x) of the sky whose lensing by `kappa`
        was taken back.
        """
        grid = self.grid
        moved = {name: np.empty_like(modes) for name, modes in estimates.items()}
        read = Displacer(2 * len(estimates), grid.pixels)
        for index, modes in enumerate(kappa):
            left = np.concatenate([self._shifts(one[index]) for one in estimates.values()])
            seen = read(left, *self._shifts(modes)).astype(float) * grid.pixel_rad
            for name, along_y, along_x in zip(moved, seen[::2], seen[1::2], strict=True):
                # kappa is minus half the divergence of the deflection.
                flow = grid.ell_y * forward(along_y, grid) + grid.ell_x * forward(along_x, grid)
                moved[name][index] = -0.5j * flow
        return moved

    def _last_features(
        self, e: np.ndarray, b: np.ndarray, step: Step
    ) -> dict[str, dict[str, np.ndarray]]:
        """By field: modes of what its estimate is the weighted sum of."""
        weighted_e, weighted_b, filtered = self._legs(e, b, step)
        found = {"e_prim": {"e": e}}
        for name in ("tau", "alpha"):
            if name in self.fields:
                weighted = {"eb": {"b": weighted_b}, "ee": {"e": weighted_e}}
                found[name] = products(name, weighted, {"e": filtered}, self.grid)
        return found

    def _sum(self, features: Mapping[str, np.ndarray], weights: Weights) -> np.ndarray:
        """Features times their weights."""
        parts = [self._spread(weights[name]) * one for name, one in features.items()]
        return np.sum(parts, axis=0)

    def _spread(self, values: Sequence[float]) -> np.ndarray:
        """Values by band on the modes."""
        return spread(np.array(values), self._bins, self.grid)
