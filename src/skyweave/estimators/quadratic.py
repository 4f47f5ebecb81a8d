"""Quadratic estimators of kappa, tau and alpha: unbiased pair by pair and together, and hardened.

`products` makes them, `response` knows what they answer to and how noisy they are. What is
combined, whether pairs of fields (Hu & Okamoto 2002, astro-ph/0111606) or estimators of several
modulations (Namikawa, Hanson & Takahashi 2013, arXiv:1209.0091; for tau Su et al. 2011,
arXiv:1106.4313), has the weights w at each L that make the noise wᵀNw least while the response wᵀR
is 1 to the field and 0 to what it is hardened against.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from skyweave.estimators.lattice import Octant
from skyweave.estimators.products import MODULATIONS, Modes, product
from skyweave.estimators.response import PAIRS, Estimator, Spectra, couplings, usable_inverse
from skyweave.flat.grid import PatchGrid

#: Products that make a pair's estimate, three fields each: the one that is weighted by its total
#: power, the one that is modulated, and the one that tells of it by their cross-spectrum. Both
#: orders of TE and of EB are there, so that the sum is f over the total powers.
_PRODUCTS: Final = {
    "tt": (("t", "t", "t"),),
    "te": (("t", "t", "e"), ("e", "e", "t")),
    "ee": (("e", "e", "e"),),
    "eb": (("b", "e", "e"), ("e", "b", "b")),
    "tb": (("b", "e", "t"),),
}

#: Combinations of estimators that are alike to this have no noise of their own.
_ALIKE: Final = 1e-10


class Quadratic:
    """Estimators of `field`, "kappa", "tau" or "alpha" (radians), on periodic patches.

    `signal` are spectra on the modes, (pixels, pixels // 2 + 1), by name tt, te, ee and bb (absent
    ones are zero), that the response and the Wiener-filtered leg are made of. Give the lensed ones,
    B among them: to first order it would be the unlensed, but what a lensed sky answers with is its
    gradient's spectrum, which the lensed one comes close to (Lewis, Challinor & Hanson 2011,
    arXiv:1101.2234). `total` are those of the maps without their beam, noise and all else that they
    hold included, infinite where a mode is not to be used.
    Only modes with ell[0] <= l <= ell[1] are used. With `against` the estimates do not answer to
    those modulations. Raises `ValueError` for a field or pair that there is none of.
    """

    def __init__(
        self,
        grid: PatchGrid,
        signal: Spectra,
        total: Spectra,
        *,
        field: str,
        pairs: Sequence[str] = PAIRS,
        ell: tuple[float, float],
        against: Sequence[str] = (),
    ) -> None:
        if not pairs or len({field, *against}) < 1 + len(against):
            raise ValueError(f"Expected pairs, and other fields than {field!r}. Received: {pairs}")
        self.field, self.pairs, self.against = field, tuple(pairs), tuple(against)
        self._grid, self._signal, self._total, self._ell = grid, signal, total, ell
        inside = (grid.ell >= ell[0]) & (grid.ell <= ell[1]) & (grid.ell > 0)
        self._inverse = {name: inside * usable_inverse(one) for name, one in total.items()}
        sources = (field, *(name for name in against if _alike(name, field)))
        self._estimators = [(name, pair) for name in sources for pair in self.pairs]
        self._modulations = [name for name in MODULATIONS if _alike(name, field)]
        self._octant = Octant(grid)
        self._couplings = couplings(
            *(grid, signal, total, self._estimators, self._modulations),
            ell=ell,
            at=self._octant.modes,
        )
        self._known: dict[tuple[str, ...], _Combination] = {}

    def hardened(self, *against: str) -> Self:
        """The same, but without an answer to `against`."""
        return type(self)(
            *(self._grid, self._signal, self._total),
            field=self.field,
            pairs=self.pairs,
            ell=self._ell,
            against=against,
        )

    def with_signal(self, signal: Spectra) -> Self:
        """The same, but with other spectra in f."""
        return type(self)(
            *(self._grid, signal, self._total),
            field=self.field,
            pairs=self.pairs,
            ell=self._ell,
            against=self.against,
        )

    def estimate(self, modes: Modes) -> dict[str, np.ndarray]:
        """Unbiased estimates (..., pixels, pixels // 2 + 1) by pair, of modes of t, e and b.

        `modes`, of the same shape, are those of the maps without their beam, µK sr. An estimate is
        zero where a pair tells nothing (`noise` is infinite) and at L = 0.
        """
        found = self._products(modes, self.pairs)
        return {pair: self._combined(found, (pair,)) for pair in self.pairs}

    def minimum_variance(self, modes: Modes) -> np.ndarray:
        """The unbiased combination of all pairs that has the least noise, as `estimate`."""
        return self._combined(self._products(modes, self.pairs), self.pairs)

    def wiener(self, modes: Modes, spectrum: np.ndarray) -> np.ndarray:
        """`minimum_variance` times C / (C + noise), for the field's `spectrum` C on the modes."""
        return self.minimum_variance(modes) * (spectrum / (spectrum + self.noise_mv))

    def noise(self, pair: str) -> np.ndarray:
        """Spectrum N0 on the modes, (pixels, pixels // 2 + 1), of a pair's estimate."""
        return self._combination((pair,)).noise

    @property
    def noise_mv(self) -> np.ndarray:
        """Spectrum N0 on the modes of `minimum_variance`."""
        return self._combination(self.pairs).noise

    def answer(self, modulation: str, pair: str | None = None) -> np.ndarray:
        """What `minimum_variance`, or a pair's estimate, gives of a modulation of amplitude 1.

        On the modes: 1 of the field itself, 0 of what it is hardened against, and the bias from any
        other.
        """
        answers = self._combination((pair,) if pair else self.pairs).answers
        # One of the other parity makes nothing that could be taken for the field.
        return answers.get(modulation, np.zeros(self._grid.ell.shape))

    def _products(self, modes: Modes, pairs: Sequence[str]) -> dict[Estimator, np.ndarray]:
        """What estimators give before normalization, on the modes."""
        if missing := sorted(set("".join(pairs)) - set(modes)):
            raise ValueError(f"Expected modes of {', '.join(missing)}. Received: {sorted(modes)}")
        weighted = {name: modes[name] * self._inverse[2 * name] for name in set("".join(pairs))}
        found = {}
        for field, pair in self._estimators:
            if pair not in pairs:
                continue
            total = np.zeros(np.shape(modes[pair[0]]), complex)
            for first, modulated, teller in _PRODUCTS[pair]:
                spectrum = self._signal.get("".join(sorted(modulated + teller, key="teb".index)))
                # A rotation leaves T alone.
                if spectrum is None or (field == "alpha" and first == "t"):
                    continue
                told = {modulated: weighted[teller] * spectrum}
                total += product(field, {first: weighted[first]}, told, self._grid)
            found[field, pair] = total
        return found

    def _combined(self, found: dict[Estimator, np.ndarray], pairs: Sequence[str]) -> np.ndarray:
        weights = self._combination(pairs).weights
        return sum((found[one] * weight for one, weight in weights.items()), np.array(0j))

    def _combination(self, pairs: Sequence[str]) -> "_Combination":
        pairs = tuple(pairs)
        if pairs not in self._known:
            chosen = [i for i, (_, pair) in enumerate(self._estimators) if pair in pairs]
            if not chosen:
                raise ValueError(f"Expected one of {', '.join(self.pairs)}. Received: {pairs}")
            names = dict.fromkeys(name for name, _ in self._estimators)
            wanted = [self._modulations.index(name) for name in names]
            response, spread = self._couplings.response[:, chosen], self._octant.spread
            noise = self._couplings.noise[:, chosen][..., chosen]
            weights, least = _least_noise(response[..., wanted], noise)
            answers = np.einsum("me,mei->im", weights, response)
            self._known[pairs] = _Combination(
                {self._estimators[i]: spread(w) for i, w in zip(chosen, weights.T, strict=True)},
                spread(least, np.inf),
                {name: spread(a) for name, a in zip(self._modulations, answers, strict=True)},
            )
        return self._known[pairs]


@dataclass(frozen=True)
class _Combination:
    """Weights of estimators, their noise and what they give of each modulation, on the modes."""

    weights: dict[Estimator, np.ndarray]
    noise: np.ndarray
    answers: dict[str, np.ndarray]


def _least_noise(response: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (modes, estimators) and their noise (modes,), infinite where nothing is told.

    response: (modes, estimators, modulations); the answer is to be 1 to the first modulation and
    0 to the others. noise: (modes, estimators, estimators).
    """
    weights, least = np.zeros(response.shape[:2]), np.full(len(response), np.inf)
    for index, (answers, covariance) in enumerate(zip(response, noise, strict=True)):
        inverse, scale = _inverse(covariance)
        told = (answers.T * scale) @ inverse @ (scale[:, None] * answers)
        solved, unit = _inverse(told)
        solved = solved[:, 0] * unit * unit[0]
        # Not where an answer to the first alone cannot be had.
        if abs(told[0] @ solved - 1) < np.sqrt(_ALIKE):
            weights[index] = scale * (inverse @ (scale * (answers @ solved)))
            least[index] = solved[0]
    return weights, least


def _inverse(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of a covariance with unit diagonal, and the scales that give it one."""
    size = np.sqrt(np.diag(matrix))
    scale = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
    return np.linalg.pinv(matrix * np.outer(scale, scale), _ALIKE, hermitian=True), scale


def _alike(one: str, other: str) -> bool:
    """Whether two modulations have the same parity; if not, no estimator confuses them."""
    return (one == "alpha") == (other == "alpha")
