"""How quadratic estimators of kappa, tau and alpha answer, and their noise: sums over all modes.

A modulation m of the sky couples modes that are independent without it, to first order
<X(l1) Y(l2)> = f^XY(l1, l2) m(L) with L = l1 + l2. The estimator that `products.product` makes is
the sum of g X Y / area over l1, with g^XY = f^XY / (C_XX(l1) C_YY(l2)), half of it where X is Y, f
that of its own modulation and C the total spectra; for TE that is the optimum but for the
correlation of T and E. It answers to any modulation m' by the sum of g f' / area. f is that of Hu &
Okamoto 2002 (astro-ph/0111606) for lensing, of Dvorkin & Smith 2009 (arXiv:0812.1566) for the
screen and of Yadav et al. 2009 (arXiv:0902.4466) for a rotation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from skyweave.estimators.lattice import Lattice
from skyweave.flat.grid import PatchGrid

#: Pairs of fields that there are estimators of.
PAIRS = ("tt", "te", "ee", "eb", "tb")

#: What is modulated and the pair of fields that tells it: ("kappa", "eb").
Estimator = tuple[str, str]

#: C_ell (pixels, pixels // 2 + 1) on the modes, by name: tt, ee, bb and te.
Spectra = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Couplings:
    """Of estimators before normalization, at the modes that were asked for.

    `response` (modes, estimators, modulations) is what each gives of a modulation of unit
    amplitude, `noise` (modes, estimators, estimators) the spectra of what they give of a sky
    without any.
    """

    response: np.ndarray
    noise: np.ndarray


def couplings(
    grid: PatchGrid,
    signal: Spectra,
    total: Spectra,
    estimators: Sequence[Estimator],
    modulations: Sequence[str],
    *,
    ell: tuple[float, float],
    at: Sequence[tuple[int, int]],
) -> Couplings:
    """Responses and noise of `estimators` from all modes l1 and l2 with ell[0] <= l <= ell[1].

    `signal` are the spectra that f is made of, absent ones zero; `total` those of the maps, noise
    included, µK² sr, infinite where a mode is not used. `at` are the modes L, whole numbers of the
    fundamental along x and y. A mode at a Nyquist multipole takes no part: it stands for two
    directions. Raises `ValueError` for a field or pair that there is none of, and for a total
    spectrum that is missing.
    """
    pairs = dict.fromkeys(pair for _, pair in estimators)
    for name in sorted({letter * 2 for pair in pairs for letter in pair} - set(total)):
        raise ValueError(f"Expected the total spectrum {name!r}. Received: {sorted(total)}")
    modes = Lattice(grid, ell)
    signal = {name: modes.pick(one) for name, one in signal.items()}
    total = {name: modes.pick(one) for name, one in total.items()}
    filters = {name: usable_inverse(one) for name, one in total.items()}
    total = {name: np.where(np.isfinite(one), one, 0.0) for name, one in total.items()}
    needed = {*estimators, *((field, pair) for field in modulations for pair in pairs)}
    response = np.zeros((len(at), len(estimators), len(modulations)))
    noise = np.zeros((len(at), len(estimators), len(estimators)))
    for index, whole in enumerate(at):
        first, second = modes.adding_to(*whole)
        if not first.size:
            continue
        symbols = _symbols(modes, signal, first, second)
        f = {one: _f(*one, symbols) for one in needed}
        weights = []
        for field, pair in estimators:
            a, b = (filters[2 * name] for name in pair)
            share = 0.5 if pair[0] == pair[1] else 1.0
            weights.append(share * f[field, pair] * a[first] * b[second])
        # Where the same two modes stand the other way round.
        place = np.empty(modes.ell.size, int)
        place[first] = np.arange(first.size)
        swapped = [weight[place[second]] for weight in weights]
        covariances = {
            (pair, other): _covariance(total, pair, other, first, second)
            for pair in pairs
            for other in (*pairs, *(other[::-1] for other in pairs))
        }
        for i, (_, pair) in enumerate(estimators):
            for j, field in enumerate(modulations):
                response[index, i, j] = weights[i] @ f[field, pair]
            for j, (_, other) in enumerate(estimators[: i + 1]):
                both = covariances[pair, other] * weights[j]
                both += covariances[pair, other[::-1]] * swapped[j]
                noise[index, i, j] = noise[index, j, i] = weights[i] @ both
    return Couplings(response / grid.area_sr, noise / grid.area_sr)


def usable_inverse(total: np.ndarray) -> np.ndarray:
    """1 / C of a total spectrum, 0 where there is none and where it is infinite."""
    used = (total > 0) & np.isfinite(total)
    return np.divide(1, total, out=np.zeros(total.shape), where=used)


def _symbols(
    modes: Lattice, signal: Spectra, first: np.ndarray, second: np.ndarray
) -> dict[str, Any]:
    """Values of the symbols that couplings are written in, by their names in symlens."""
    at: dict[str, Any] = {}
    for number, numbers in (("1", first), ("2", second)):
        at |= {f"l{number}{axis}": one[numbers] for axis, one in (("x", modes.x), ("y", modes.y))}
        at[f"l{number}"] = modes.ell[numbers]
    at |= {f"L{axis}": (at[f"l1{axis}"] + at[f"l2{axis}"])[0] for axis in "xy"}
    at["L"] = np.hypot(at["Lx"], at["Ly"])
    for name in ("tt", "te", "ee", "bb"):
        values = signal.get(name, np.zeros(modes.ell.size))
        symbol = "uC_" + "_".join(name.upper())
        at |= {f"{symbol}_l1": values[first], f"{symbol}_l2": values[second]}
    return at


def _f(field: str, pair: str, at: Mapping[str, Any]) -> np.ndarray:
    """f (n,) of pairs of modes."""
    names, function = _compiled(field, pair)
    return function(*(at[name] for name in names)) + np.zeros_like(at["l1"])


@lru_cache
def _compiled(field: str, pair: str) -> tuple[list[str], Any]:
    """Names of the arguments of f, and f as a function of arrays."""
    import sympy

    expression = coupling(field, pair)
    symbols = sorted(expression.free_symbols, key=str)
    return [str(one) for one in symbols], sympy.lambdify(symbols, expression, "numpy", cse=True)


def coupling(field: str, pair: str) -> Any:
    """f(l1, l2) of a modulation and a pair of `PAIRS`, a sympy expression in symlens' symbols.

    Signs are those of `simulation`: kappa = -½∇²phi, screen exp(-tau), (Q + iU) e^{2i alpha}.
    Raises `ValueError` for a field or pair that there is none of.
    """
    from symlens import qe
    from symlens.factorize import L, Ldl2, cos2t12, sin2t12

    if pair not in PAIRS:
        raise ValueError(f"Expected one of {', '.join(PAIRS)}. Received: {pair!r}")
    u1, u2 = qe.u1, qe.u2
    if field == "kappa":
        f = qe.lensing_response_f(pair.upper())
        if pair == "eb":
            # What lensing makes of B, which symlens leaves out.
            f += Ldl2 * u2("BB") * sin2t12
        return f * 2 / L**2
    if field == "tau":
        return {
            "tt": -u1("TT") - u2("TT"),
            "te": -u1("TE") * cos2t12 - u2("TE"),
            "ee": -(u1("EE") + u2("EE")) * cos2t12,
            "eb": -(u1("EE") + u2("BB")) * sin2t12,
            "tb": -u1("TE") * sin2t12,
        }[pair]
    if field == "alpha":
        if pair == "tt":
            return 0 * L
        # Symlens' B has the other sign there, and its angle.
        return qe.rotation_response_f(pair.upper()) * (1 if "b" in pair else -1)
    raise ValueError(f"Expected kappa, tau or alpha. Received: {field!r}")


def _covariance(
    total: Spectra, pair: str, other: str, first: np.ndarray, second: np.ndarray
) -> np.ndarray | float:
    """C(l1) C(l2) (n,) of the first letters of two pairs and of their second ones."""
    out: np.ndarray | float = 1.0
    for one, two, numbers in zip(pair, other, (first, second), strict=True):
        name = "".join(sorted(one + two, key="tebx".index))
        if name not in total:
            return 0.0
        out = out * total[name][numbers]
    return out
