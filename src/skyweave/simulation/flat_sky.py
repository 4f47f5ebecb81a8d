"""A flat, periodic area of the sky: its primordial fields, and what reaches the observer."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from skyweave.flat.fourier import inverse, on_modes
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotation as rotation_of_modes
from skyweave.flat.spline import Displacer
from skyweave.simulation.effects import deflection
from skyweave.simulation.gaussian import WhiteField, correlation, mode_factor
from skyweave.simulation.normals import Random
from skyweave.sky.projection import rotate_qu


class FlatSky:
    """Gaussian T, Q, U with the spectra `cl`, and their way through rotation, screen and lensing.

    cl: C_ell at ell = 0..lmax of "tt", "ee", "bb" and "te", and of "kk", "tautau" and "alphaalpha"
    as far as these act; `rotation` is a constant angle in radians; skies on one grid may share
    their `displacers`. What all realizations on `grid`
    share is kept here.
    """

    def __init__(
        self,
        cl: Mapping[str, np.ndarray],
        grid: PatchGrid,
        *,
        rotation: float = 0.0,
        displacers: dict[int, Displacer] | None = None,
    ) -> None:
        self.grid = grid
        self._rotation = rotation
        power = {name: on_modes(np.arange(one.size), one, grid) for name, one in cl.items()}
        t_of_e, t_alone = correlation(power["ee"], power["tt"], power["te"])
        e, b = np.sqrt(power["ee"]), np.sqrt(power["bb"])
        cosine, sine = rotation_of_modes(grid)
        #: Each field's modes as a sum of white fields, by component, times factors.
        made_of = {
            "t": {"e": t_of_e, "t": t_alone},
            "q": {"e": e * cosine, "b": -b * sine},
            "u": {"e": e * sine, "b": b * cosine},
        }
        if not b.any():
            del made_of["q"]["b"], made_of["u"]["b"]
        for name, spectrum in {"kappa": "kk", "tau": "tautau", "alpha": "alphaalpha"}.items():
            if spectrum in power and power[spectrum].any():
                made_of[name] = {name: np.sqrt(power[spectrum])}
        self._made_of = {
            name: {component: mode_factor(factor, grid) for component, factor in parts.items()}
            for name, parts in made_of.items()
        }
        self._displacers = {} if displacers is None else displacers

    def maps(
        self,
        random: Callable[[str], Random],
        fields: Collection[str],
        *,
        null: bool = False,
    ) -> dict[str, np.ndarray]:
        """Maps (y, x) float64 of `fields`.

        These are t_prim, q_prim and u_prim; t_sky, q_sky and u_sky, as they reach the observer;
        kappa, tau and alpha. T, Q and U have the unit of the spectra, angles from +x towards +y;
        alpha is in radians. `random` gives the generator of a component: t, e, b, kappa, tau or
        alpha. In a `null` sky the last three are zero.
        """
        wanted = {name[0] for name in fields if name.endswith(("_prim", "_sky"))}
        stokes = [*("t" for _ in wanted & {"t"}), *("qu" if wanted & {"q", "u"} else "")]
        seen = any(name.endswith("_sky") for name in fields)
        structure = [
            name
            for name in ("kappa", "tau", "alpha")
            if not null and name in self._made_of and (seen or name in fields)
        ]
        modes = self._modes(random, [*stokes, *structure])
        primordial = np.empty((len(stokes), self.grid.pixels, self.grid.pixels))
        for map_, s in zip(primordial, stokes, strict=True):
            inverse(modes[s], self.grid, out=map_)
        maps = {f"{s}_prim": map_ for s, map_ in zip(stokes, primordial, strict=True)}
        for name in ("kappa", "tau", "alpha"):
            # Of kappa it is the deflection that acts, and the map that is asked for.
            if name in structure and (name != "kappa" or name in fields):
                maps[name] = inverse(modes[name], self.grid)
            elif name in fields or (name == "alpha" and self._rotation):
                maps[name] = np.zeros((self.grid.pixels,) * 2)
        if "alpha" in maps and not null:
            maps["alpha"] += self._rotation
        if seen:
            kept = any(name.endswith("_prim") for name in fields)
            sky = primordial.copy() if kept else primordial
            sky = self._through(sky, stokes, maps, modes)
            maps |= {f"{s}_sky": map_ for s, map_ in zip(stokes, sky, strict=True)}
        return {name: maps[name] for name in fields}

    def _modes(
        self, random: Callable[[str], Random], names: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Fourier modes of fields."""
        white: dict[str, WhiteField] = {}
        modes = {name: np.zeros(self.grid.ell.shape, complex) for name in names}
        for name, total in modes.items():
            for component, factor in self._made_of[name].items():
                if component not in white:
                    white[component] = WhiteField(random(component), self.grid)
                white[component].add_to(total, factor)
        return modes

    def _through(
        self,
        stack: np.ndarray,
        stokes: Sequence[str],
        maps: Mapping[str, np.ndarray],
        modes: Mapping[str, np.ndarray],
    ) -> np.ndarray:
        """What the primordial maps (stokes, y, x) of `stack` are when they reach the observer.

        Q and U, if there, are the last two.
        """
        if "alpha" in maps and "q" in stokes:
            stack[-2], stack[-1] = rotate_qu(stack[-2], stack[-1], maps["alpha"])
        if "tau" in modes:
            stack *= np.exp(-maps["tau"])
        if "kappa" in modes:
            shift_y, shift_x = deflection(modes["kappa"], self.grid)
            pixel = self.grid.pixel_rad
            stack = self._displacer(len(stack))(stack, shift_y / pixel, shift_x / pixel)
        return stack

    def _displacer(self, count: int) -> Displacer:
        if count not in self._displacers:
            self._displacers[count] = Displacer(count, self.grid.pixels)
        return self._displacers[count]
