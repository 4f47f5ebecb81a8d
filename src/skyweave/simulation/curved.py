"""CMB patches of one curved sky: what their own pixels see, without interpolation from a map.

The sky is a set of alm. Fields are evaluated by a non-uniform transform at the pixels' centres, and
where the light that is seen there comes from: light seen at x comes from x', the end of the
geodesic that leaves x along the deflection d = ∇phi and is as long as d (astro-ph/0502425). At x',
Q + iU is turned by e^{2i alpha} and T, Q and U are screened by exp(-tau); from x' to x polarization
is carried parallel along the geodesic. Nothing averages over a pixel: multipoles above the Nyquist
multipole alias.

Q and U of a patch are those of the flat sky: angles from +x towards +y on the plane of
`skyweave.sky.projection`, and alpha > 0 turns them that way. Their flat E has the sign of the
full-sky E, their flat B the sign opposite to HEALPix's.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.spatial import cKDTree

from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.simulation.normals import Random
from skyweave.sky.harmonic import evaluate
from skyweave.sky.projection import (
    iau_to_x_axis,
    patch_directions,
    rotate_qu,
    to_patch_frame,
    unit_vector,
)

#: Fields of a sky, with the spectrum that each needs beside the primordial ones.
FIELDS: Final[dict[str, str | None]] = {
    "t_prim": None,
    "q_prim": None,
    "u_prim": None,
    "t_sky": None,
    "q_sky": None,
    "u_sky": None,
    "kappa": "kk",
    "tau": "tautau",
    "alpha": "alphaalpha",
}

#: How far the lattice of centres may stay off the poles, in steps of its spiral. The first is best
#: for few centres, the last for 1000.
_POLE_OFFSETS = (0.0, 0.8, 1.3, 2.75, 9.6)


def places(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude (count,) in degrees of centres spread evenly over the sky.

    A Fibonacci lattice: latitudes of equal areas, the golden angle from centre to centre. Of some
    offsets from the poles it has the one with the largest least distance, at least 0.89 of the
    square root of a centre's share of the sky (13.5° for 192; HEALPix pixels have 12.6°).
    """
    step = np.arange(count)
    lon = np.degrees(2 * np.pi * step / ((1 + np.sqrt(5)) / 2)) % 360
    lattices = [
        np.degrees(np.arcsin(1 - (2 * step + 1 + 2 * offset) / (count + 2 * offset)))
        for offset in _POLE_OFFSETS
    ]
    return lon, max(lattices, key=lambda lat: separation(lon, lat))


def separation(lon: np.ndarray, lat: np.ndarray) -> float:
    """Least distance in degrees between two of the directions (n,), given in degrees.

    180 for a single one.
    """
    if len(lon) < 2:
        return 180.0
    vectors = unit_vector(lon, lat)
    chords, _ = cKDTree(vectors).query(vectors, k=[2])
    return float(2 * np.degrees(np.arcsin(np.min(chords) / 2)))


@dataclass(frozen=True)
class _Scene:
    """What the patches of a sky share; `here` (2, n, y, x) are lon and lat of their pixels."""

    cl: Mapping[str, np.ndarray]
    random: Callable[[str], Random]
    here: np.ndarray
    #: (n, 1, 1): False in a patch that no effect touches.
    touched: np.ndarray
    fields: frozenset[str]

    def wants(self, *names: str) -> bool:
        return not self.fields.isdisjoint(names)

    def white(self, component: str) -> np.ndarray:
        return white_alm(self.random(component), self.cl["tt"].size - 1)[None]

    def evaluate(
        self, alm: np.ndarray, points: np.ndarray, factor: np.ndarray | None = None, spin: int = 0
    ) -> np.ndarray:
        """Fields (components, n, y, x) at points (2, n, y, x)."""
        factor = np.ones(self.cl["tt"].size) if factor is None else factor
        return evaluate(alm, factor, points[0], points[1], spin).reshape(-1, *points.shape[1:])


def simulate_sky(
    cl: Mapping[str, np.ndarray],
    lon: np.ndarray,
    lat: np.ndarray,
    grid: PatchGrid,
    random: Callable[[str], Random],
    *,
    rotation: float = 0.0,
    null: np.ndarray,
    fields: Collection[str],
) -> dict[str, np.ndarray]:
    """Patches centred at `lon`, `lat` (n,) degrees, all of one sky: each of `fields`, (n, y, x).

    cl: C_ell at ell = 0..lmax; "tt", "ee", "bb" and "te" of the primordial sky, and for each effect
    that is on "kk", "tautau" or "alphaalpha". random: gives a component its generator, once each
    of "t", "e", "b", "kappa", "tau" and "alpha". rotation: a constant angle, radians, added to
    alpha. null: (n,) bool, patches that see no lensing, screen or rotation; their kappa, tau and
    alpha are 0.

    The maps are float64: `*_prim` primordial, `*_sky` after the effects, in the unit of `cl`; kappa
    and tau without unit; alpha, the constant included, in radians. A field has the same bytes
    whatever others are asked for; other places may change it by rounding (1e-7). Raises `UserError`
    for an unknown field or one whose effect is off.
    """
    for name in fields:
        if name not in FIELDS:
            raise UserError("fields", f"one of {', '.join(FIELDS)}", repr(name))
        spectrum = FIELDS[name]
        if spectrum and spectrum not in cl and not (name == "alpha" and rotation):
            raise UserError("fields", f"the spectrum {spectrum!r} for {name!r}", "none")
    pixels = [patch_directions(*centre, grid) for centre in zip(lon, lat, strict=True)]
    touched = ~np.asarray(null, bool)[:, None, None]
    scene = _Scene(cl, random, np.stack(pixels, axis=1), touched, frozenset(fields))

    maps, source, growth = _lens(scene)
    of_qu, of_all = ("q_sky", "u_sky"), ("t_sky", "q_sky", "u_sky")
    maps["tau"], tau = _scalar(scene, "tau", 0.0, source, scene.wants(*of_all))
    maps["alpha"], alpha = _scalar(scene, "alpha", rotation, source, scene.wants(*of_qu))
    centre = [np.asarray(angle, float)[:, None, None] for angle in (lon, lat)]
    alm, screen = _primordial(scene), np.exp(-tau)
    for view, points in (("prim", scene.here), ("sky", source)):
        t, q, u = (f"{letter}_{view}" for letter in "tqu")
        if scene.wants(t):
            maps[t] = scene.evaluate(alm["t"], points)[0]
            if view == "sky":
                maps[t] *= screen
        if scene.wants(q, u):
            stokes = scene.evaluate(alm["eb"], points, spin=2)
            maps[q], maps[u] = iau_to_x_axis(*to_patch_frame(*stokes, *scene.here, *centre))
            if view == "sky":
                turned = rotate_qu(maps[q], maps[u], growth + alpha)
                maps[q], maps[u] = (part * screen for part in turned)
    return {name: maps[name] for name in fields}


def white_alm(random: Random, lmax: int) -> np.ndarray:
    """alm (modes,) complex128 of a Gaussian field with C_ell = 1, m-major as healpy's."""
    alm = random.standard_normal(((lmax + 1) * (lmax + 2) // 2, 2)).view(complex)[:, 0]
    alm[: lmax + 1] = alm[: lmax + 1].real
    alm[lmax + 1 :] *= np.sqrt(0.5)
    return alm


def follow_geodesic(
    lon: np.ndarray, lat: np.ndarray, south: np.ndarray, east: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Longitude and latitude (degrees) where geodesics end, and the growth of an angle on return.

    They leave lon, lat (degrees) along the vector with components `south` and `east` (radians) and
    are as long as it. The third array is by how much a position angle (radians, north through east)
    grows when it is carried from the end to the start.
    """
    length, bearing = np.hypot(south, east), np.arctan2(east, -south)
    sine, cosine = np.sin(length), np.cos(length)
    sin_lat, cos_lat = np.sin(np.radians(lat)), np.cos(np.radians(lat))
    forth, aside = np.cos(bearing), np.sin(bearing)
    # The direction at the end, its two components times the cosine of the latitude there.
    north_end, east_end = forth * cos_lat * cosine - sin_lat * sine, aside * cos_lat
    lat_end = np.arctan2(sin_lat * cosine + forth * cos_lat * sine, np.hypot(north_end, east_end))
    lon_step = np.arctan2(aside * sine, cos_lat * cosine - forth * sin_lat * sine)
    growth = bearing - np.arctan2(east_end, north_end)
    return lon + np.degrees(lon_step), np.degrees(lat_end), growth


def _lens(scene: _Scene) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Map of kappa if wanted, lon and lat (2, n, y, x) that light comes from, angles' growth."""
    source, growth = scene.here, np.zeros_like(scene.here[0])
    maps: dict[str, np.ndarray] = {}
    sky = scene.wants("t_sky", "q_sky", "u_sky")
    if "kk" not in scene.cl or not (sky or scene.wants("kappa")):
        return maps, source, growth
    kk = scene.cl["kk"]
    white = scene.white("kappa")
    if scene.wants("kappa"):
        kappa = scene.evaluate(white, scene.here, np.sqrt(kk))[0]
        maps["kappa"] = np.where(scene.touched, kappa, 0)
    if sky:
        # kappa = ½ ell(ell+1) phi, and a gradient has sqrt(ell(ell+1)) phi as its E.
        ell = np.arange(1, kk.size)
        factor = np.append(0, 2 * np.sqrt(kk[1:] / (ell * (ell + 1))))
        south, east = scene.evaluate(white, scene.here, factor, spin=1)
        *end, turn = follow_geodesic(scene.here[0], scene.here[1], south, east)
        source, growth = np.where(scene.touched, end, source), np.where(scene.touched, turn, 0)
    return maps, source, growth


def _scalar(
    scene: _Scene, name: str, constant: float, source: np.ndarray, needed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Maps of tau or alpha at the pixels, if wanted, and at the sources, if needed."""
    here = there = np.full(scene.here.shape[1:], constant)
    if name + name in scene.cl and (needed or scene.wants(name)):
        white, factor = scene.white(name), np.sqrt(scene.cl[name + name])
        if scene.wants(name):
            here = here + scene.evaluate(white, scene.here, factor)[0]
        if needed:
            there = there + scene.evaluate(white, source, factor)[0]
    return np.where(scene.touched, here, 0), np.where(scene.touched, there, 0)


def _primordial(scene: _Scene) -> dict[str, np.ndarray]:
    """alm of the primordial sky, as far as wanted: "t" (1, modes) and "eb" (2, modes)."""
    import healpy

    alm = {}
    tt, ee, bb, te = (scene.cl[name] for name in ("tt", "ee", "bb", "te"))
    t = scene.wants("t_prim", "t_sky")
    qu = scene.wants("q_prim", "u_prim", "q_sky", "u_sky")
    if t or qu:
        e = scene.white("e")[0]
    if t:
        with_e = np.divide(te, np.sqrt(ee), out=np.zeros_like(te), where=ee > 0)
        alone = healpy.almxfl(scene.white("t")[0], np.sqrt(np.maximum(tt - with_e**2, 0)))
        alm["t"] = (healpy.almxfl(e, with_e) + alone)[None]
    if qu:
        parts = [healpy.almxfl(e, np.sqrt(ee))]
        if bb.any():
            parts.append(healpy.almxfl(scene.white("b")[0], np.sqrt(bb)))
        alm["eb"] = np.stack(parts)
    return alm
