"""Simulated CMB patches: the primordial sky, its way to the observer, and the truth beside it.

Order, as in arXiv:2101.01214: Gaussian T, Q, U of the unlensed spectra, times exp(-tau), displaced
by ∇phi, smoothed with the beam, white noise, taper on every map (truth included), E and B of
the tapered Q and U. Down to the beam this may happen on a finer grid (`oversample`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skyweave import config
from skyweave.config import CMB_FIELDS
from skyweave.errors import UserError
from skyweave.flat.fourier import coarsen, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb, rotate_to_qu
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator
from skyweave.simulation import effects as act
from skyweave.simulation.gaussian import correlated_modes, white_modes
from skyweave.simulation.spectra import SpectraTable

#: Unit of each field.
UNITS = {name: "" if name in ("kappa", "tau") else "uK_CMB" for name in CMB_FIELDS}


@dataclass(frozen=True)
class _Scene:
    """What the realizations of a dataset share, and the identity of their draws."""

    grid: PatchGrid
    #: The grid on which screen, lensing and beam act.
    fine: PatchGrid
    effects: config.Effects
    spectra: dict[str, np.ndarray]
    taper: np.ndarray
    seed: int
    dataset: str
    fields: frozenset[str]

    def random(self, realization: int, component: str) -> np.random.Generator:
        return generator(self.seed, self.dataset, realization, component)

    def modes(self, realization: int, component: str, spectrum: str) -> np.ndarray:
        white = white_modes(self.random(realization, component), self.fine)
        return white * np.sqrt(self.spectra[spectrum])

    def wants(self, *names: str) -> bool:
        return not self.fields.isdisjoint(names)


def simulate(
    table: SpectraTable,
    grid_settings: config.Grid,
    effects: config.Effects,
    *,
    seed: int,
    dataset: str,
    realizations: Sequence[int],
    fields: Sequence[str],
) -> dict[str, np.ndarray]:
    """Simulate patches; returns each of `fields` as (len(realizations), y, x) float32.

    T, Q, U, E and B are in µK, kappa and tau without unit (`UNITS`). `e_prim` is E of the tapered
    primordial Q and U, as in the published set. Every draw is keyed by
    (seed, dataset, realization, component): a realization has the same bytes whatever others and
    whatever fields are asked for. Raises `UserError` for an unknown field or one whose effect is
    switched off.
    """
    for name in fields:
        if name not in CMB_FIELDS:
            raise UserError("fields", f"one of {', '.join(CMB_FIELDS)}", repr(name))
        effect = CMB_FIELDS[name]
        if effect and not getattr(effects, effect):
            raise UserError("fields", f"`effects.{effect}: true` for {name!r}", "false")
    grid = PatchGrid(grid_settings.size_deg, grid_settings.pixels)
    fine = PatchGrid(grid_settings.size_deg, grid_settings.pixels * grid_settings.oversample)
    scene = _Scene(
        grid=grid,
        fine=fine,
        effects=effects,
        spectra={
            name: table.on_modes(name, fine) for name in ("tt", "ee", "bb", "te", "kk", "tautau")
        },
        taper=cosine_taper(grid, effects.taper_deg),
        seed=seed,
        dataset=dataset,
        fields=frozenset(fields),
    )
    shape = (len(realizations), grid.pixels, grid.pixels)
    maps = {name: np.empty(shape, dtype=np.float32) for name in fields}
    for index, realization in enumerate(realizations):
        patch = _realize(scene, int(realization))
        for name, stack in maps.items():
            stack[index] = patch[name]
    return maps


def is_null(effects: config.Effects, *, seed: int, dataset: str, realization: int) -> bool:
    """Whether tau and kappa of this realization are zero (a share `effects.null_fraction`)."""
    draw = generator(seed, dataset, realization, "null").random()
    return bool(draw < effects.null_fraction)


def _realize(scene: _Scene, realization: int) -> dict[str, np.ndarray]:
    """The wanted fields of one realization, (y, x) float64, tapered."""
    e_modes = scene.modes(realization, "e", "ee")
    primordial = _primordial(scene, realization, e_modes)
    kappa_modes, tau = _structure(scene, realization)
    patch = {f"{name}_prim": map_ for name, map_ in primordial.items()}
    if scene.wants("kappa") and kappa_modes is not None:
        patch["kappa"] = inverse(kappa_modes, scene.fine)
    if scene.wants("tau") and tau is not None:
        patch["tau"] = tau
    patch = {name: coarsen(map_, scene.fine, scene.grid) for name, map_ in patch.items()}
    observed = [
        name
        for name in primordial
        if scene.wants(f"{name}_obs") or (name in "qu" and scene.wants("e_obs", "b_obs"))
    ]
    patch |= _observe(scene, realization, {n: primordial[n] for n in observed}, kappa_modes, tau)
    patch = {name: map_ * scene.taper for name, map_ in patch.items()}
    if scene.wants("e_obs", "b_obs"):
        patch["e_obs"], patch["b_obs"] = qu_to_eb(patch["q_obs"], patch["u_obs"], scene.grid)
    if scene.wants("e_prim"):
        patch["e_prim"], _ = qu_to_eb(patch["q_prim"], patch["u_prim"], scene.grid)
    return patch


def _primordial(scene: _Scene, realization: int, e_modes: np.ndarray) -> dict[str, np.ndarray]:
    """Primordial maps that the wanted fields need, of "t", "q" and "u"."""
    maps = {}
    if scene.wants("t_prim", "t_obs"):
        white = white_modes(scene.random(realization, "t"), scene.fine)
        ee, tt, te = (scene.spectra[name] for name in ("ee", "tt", "te"))
        maps["t"] = inverse(correlated_modes(e_modes, white, ee, tt, te), scene.fine)
    if scene.wants("e_prim", "q_prim", "u_prim", "q_obs", "u_obs", "e_obs", "b_obs"):
        b_modes = np.zeros_like(e_modes)
        if scene.spectra["bb"].any():
            b_modes = scene.modes(realization, "b", "bb")
        q_modes, u_modes = rotate_to_qu(e_modes, b_modes, scene.fine)
        maps["q"], maps["u"] = inverse(q_modes, scene.fine), inverse(u_modes, scene.fine)
    return maps


def _structure(scene: _Scene, realization: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Modes of kappa and map of tau, untapered; None for an effect that is switched off."""
    effects, kappa_modes, tau = scene.effects, None, None
    share = 1.0
    if is_null(effects, seed=scene.seed, dataset=scene.dataset, realization=realization):
        share = 0.0
    if effects.lensing:
        kappa_modes = share * scene.modes(realization, "kappa", "kk")
    if effects.reionization:
        tau = inverse(share * scene.modes(realization, "tau", "tautau"), scene.fine)
    return kappa_modes, tau


def _observe(
    scene: _Scene,
    realization: int,
    maps: dict[str, np.ndarray],
    kappa_modes: np.ndarray | None,
    tau: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Observed maps "t_obs", … of primordial maps "t", …, before the taper."""
    effects, fine = scene.effects, scene.fine
    shift = None
    if maps and kappa_modes is not None and kappa_modes.any():
        shift = [part / fine.pixel_rad for part in act.deflection(kappa_modes, fine)]
    observed = {}
    for name, primordial in maps.items():
        sky = primordial if tau is None else act.screen(primordial, tau)
        if shift is not None:
            sky = act.displace(sky, *shift)
        if effects.beam_arcmin > 0:
            sky = act.smooth(sky, effects.beam_arcmin, fine)
        sky = coarsen(sky, fine, scene.grid)
        if effects.noise_uk_arcmin > 0:
            level = effects.noise_uk_arcmin * (1 if name == "t" else np.sqrt(2))
            sky = sky + act.white_noise(
                scene.random(realization, f"noise_{name}"), level, scene.grid
            )
        observed[f"{name}_obs"] = sky
    return observed
