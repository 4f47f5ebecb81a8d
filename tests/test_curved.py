"""Patches of a curved lensed sky: against HEALPix, another lensing code, CAMB's spectra, theory."""

import hashlib

import camb.correlations
import healpy
import numpy as np
import pytest
from astropy.wcs import WCS
from numpy.testing import assert_allclose
from pixell import lensing
from scipy import stats

from skyweave.config import Spectra
from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator
from skyweave.simulation.curved import (
    FIELDS,
    follow_geodesic,
    places,
    separation,
    simulate_sky,
    white_alm,
)
from skyweave.simulation.spectra import compute
from skyweave.sky.harmonic import evaluate
from skyweave.sky.projection import (
    bearing,
    header,
    iau_to_x_axis,
    patch_directions,
    patch_vectors,
    plane_axis,
    to_patch_frame,
    to_plane,
    transport_angle,
    unit_vector,
)

#: Centres at the equator, at middle latitudes, and with a pole of the sky inside the patch.
LON, LAT = np.array([0.0, 217.0, 40.0, 305.0]), np.array([0.0, -48.0, 89.0, -89.97])
PLACES = ("equator", "middle", "north", "south")
GRID = PatchGrid(5.0, 48)
PRIMORDIAL = ("t_prim", "q_prim", "u_prim")
OBSERVED = ("t_sky", "q_sky", "u_sky")


def toy(lmax: int, *effects: str) -> dict[str, np.ndarray]:
    """Spectra of about the CMB's size and slope; lensing is far stronger, tau and alpha too."""
    ell = np.arange(lmax + 1)
    safe = np.maximum(ell, 2)
    to_cl = 2 * np.pi / (safe * (safe + 1.0)) * (ell >= 2)
    tt, ee = 2000 * to_cl, 20 * to_cl * (1 + 0.5 * np.sin(ell / 40))
    cl = {
        "tt": tt,
        "ee": ee,
        "bb": 3 * to_cl,
        "te": 0.7 * np.sqrt(tt * ee) * np.sin(ell / 25),
        "kk": 1e-4 / (1 + (safe / 60) ** 2) * (ell >= 1),
        "tautau": 1e-2 * to_cl,
        "alphaalpha": 1e-2 * to_cl,
    }
    return {name: cl[name] for name in ("tt", "ee", "bb", "te", *effects)}


def random(component: str, seed: int = 5) -> np.random.Generator:
    return generator(seed, "curved", component)


def sky(cl, fields, lon=LON, lat=LAT, grid=GRID, *, draw=random, rotation=0.0, null=None):
    null = np.zeros(len(lon), bool) if null is None else null
    return simulate_sky(cl, lon, lat, grid, draw, rotation=rotation, null=null, fields=fields)


def alm_of(component: str, spectrum: np.ndarray) -> np.ndarray:
    return healpy.almxfl(white_alm(random(component), spectrum.size - 1), np.sqrt(spectrum))


def primordial_alm(cl) -> np.ndarray:
    """T, E and B of the sky: T is the part of E that TE asks for, and the rest of its own."""
    e, b, own = alm_of("e", cl["ee"]), alm_of("b", cl["bb"]), alm_of("t", np.ones_like(cl["tt"]))
    slope = cl["te"] / np.where(cl["ee"] > 0, cl["ee"], 1)
    rest = np.sqrt(np.maximum(cl["tt"] - slope * cl["te"], 0))
    return np.array([healpy.almxfl(e, slope) + healpy.almxfl(own, rest), e, b])


# --- where the patches are -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 24, 96, 192, 500, 1500])
def test_places_are_far_apart(count):
    """By about the square root of each one's share of the sky, and more than HEALPix' pixels."""
    lon, lat = places(count)
    assert lon.shape == lat.shape == (count,)
    assert separation(lon, lat) > np.degrees(0.89 * np.sqrt(4 * np.pi / count))
    nside = next(n for n in range(1, 100) if 12 * n**2 >= count)
    if nside > 2:
        pixels = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)
        assert separation(lon, lat) > separation(*pixels)


def test_places_have_equal_shares_of_the_sky():
    """Uniform in the sine of the latitude but for two or three of 192 at each pole, and no
    direction is preferred."""
    lon, lat = places(192)
    centres = unit_vector(lon, lat)
    assert np.abs(centres.mean(axis=0)).max() < 0.002
    assert_allclose(centres.T @ centres / 192, np.eye(3) / 3, atol=0.02)
    assert stats.kstest(np.sin(np.radians(lat)), stats.uniform(-1, 2).cdf).statistic < 3.5 / 192


def test_separation_is_an_angle():
    octahedron = np.array([0.0, 90, 180, 270, 0, 0]), np.array([0.0, 0, 0, 0, 90, -90])
    assert separation(*octahedron) == pytest.approx(90)
    assert separation(np.array([0.0, 180]), np.array([0.0, 0])) == pytest.approx(180)
    assert separation(np.array([359.9, 0.1, 90]), np.array([60.0, 60, 0])) == pytest.approx(0.1)
    assert separation(*places(1)) == 180


# --- the primordial sky --------------------------------------------------------------------------


def test_white_alm_have_unit_power():
    """Of 5e5 real numbers, and of the real ones at m = 0 alone, within 3 sigma."""
    alm = white_alm(random("white"), 700)
    ell = np.arange(701)
    total = np.sum((2 * ell + 1) * healpy.alm2cl(alm)) / 701**2
    assert abs(total - 1) < 3 * np.sqrt(2) / 701
    zonal = alm[:701]
    assert not zonal.imag.any()
    assert abs(np.mean(zonal.real**2) - 1) < 3 * np.sqrt(2 / 701)


NSIDE, LMAX = 32, 64
LARGE = toy(LMAX, "kk", "tautau", "alphaalpha")


@pytest.fixture(scope="module")
def whole() -> dict[str, np.ndarray]:
    """Maps (npix,) at the pixel centres of HEALPix, a patch of 0.04" at each; Q and U are COSMO."""
    lon, lat = healpy.pix2ang(NSIDE, np.arange(12 * NSIDE**2), lonlat=True)
    grid = PatchGrid(1e-5, 2)
    maps = sky(LARGE, (*PRIMORDIAL, "kappa", "tau", "alpha"), lon, lat, grid)
    maps = {name.removesuffix("_prim"): stack[:, 0, 0] for name, stack in maps.items()}
    # From +x towards +y, with +x to the west, back to south through east.
    return maps | {"q": -maps["q"]}


def test_values_are_healpys(whole):
    """To the transform's accuracy and the 3e-8 radians from the centre to a pixel's."""
    expected = healpy.alm2map(primordial_alm(LARGE), NSIDE, LMAX, pol=True)
    for name, values in zip("tqu", expected, strict=True):
        assert_allclose(whole[name], values, atol=1e-5 * values.std())


SPECTRA = {"t": "tt", "e": "ee", "b": "bb", "kappa": "kk", "tau": "tautau", "alpha": "alphaalpha"}
AUTO = [(name, name) for name in SPECTRA]
CROSS = [("t", "e"), ("t", "b"), ("e", "b"), ("t", "kappa"), ("kappa", "tau"), ("tau", "alpha")]


@pytest.mark.parametrize("pair", AUTO + CROSS, ids="-".join)
def test_spectra_are_those_asked_for(whole, pair):
    """Chi² of the power at each ell, whose variance is (C_aa C_bb + C_ab²) / (2 ell + 1), and of
    all modes together. Below ell of 10 its scatter is far from normal."""
    alm = dict(zip("teb", healpy.map2alm([whole[n] for n in "tqu"], LMAX, iter=5), strict=True))
    alm |= {name: healpy.map2alm(whole[name], LMAX, iter=5) for name in set(pair) - set(alm)}
    ell = np.arange(10, LMAX + 1)
    autos = [LARGE[SPECTRA[name]][ell] for name in pair]
    expected = {("t", "e"): LARGE["te"][ell]}.get(pair, autos[0] if pair in AUTO else 0 * ell)
    found = healpy.alm2cl(alm[pair[0]], alm[pair[1]])[ell]
    pull = (found - expected) * np.sqrt((2 * ell + 1) / (autos[0] * autos[1] + expected**2))
    assert 0.001 < stats.chi2.sf(np.sum(pull**2), ell.size) < 0.999
    assert abs(np.sum(pull * np.sqrt(2 * ell + 1))) < 3 * np.sqrt(np.sum(2 * ell + 1))


#: Widths in degrees of a taper of Q and U, and of a margin beyond which nothing of it is seen.
OUTER, MARGIN = 1.0, 0.4


def laplacians(modes: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Maps of ell² times modes, (..., y, x)."""
    return inverse(modes * grid.ell**2, grid)


def outer_taper(grid: PatchGrid) -> np.ndarray:
    return cosine_taper(grid, OUTER) ** 2  # smooth to the third derivative


def inner_taper(grid: PatchGrid, width_deg: float) -> np.ndarray:
    """0 in the margin."""
    edge = int((OUTER + MARGIN) / grid.size_deg * grid.pixels)
    pixels = grid.pixels - 2 * edge
    inner = PatchGrid(grid.size_deg * pixels / grid.pixels, pixels)
    return np.pad(cosine_taper(inner, width_deg), edge)


def eb_laplacians(q: np.ndarray, u: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Maps (2, ..., y, x) of ell² E and ell² B: second derivatives of Q and U, so that inside of
    its margin a taper of Q and U mixes nothing of E into B."""
    taper = outer_taper(grid)
    return laplacians(
        np.array(rotate_to_eb(forward(q * taper, grid), forward(u * taper, grid), grid)), grid
    )


@pytest.mark.parametrize("index", range(4), ids=PLACES)
def test_sky_of_e_is_e_on_the_flat_patch(index):
    """With TT = TE = EE, T is the full-sky E: the flat E is it, and there is no B.

    The plane shears the sky by rho²/8 at rho from its centre, which makes up to twice that of E
    into B: 1.8e-4 in the corners of the inner 2.2°.
    """
    cl = toy(900)
    cl |= {"tt": cl["ee"], "te": cl["ee"], "bb": 0 * cl["ee"]}
    grid = PatchGrid(5.0, 96)
    maps = sky(cl, PRIMORDIAL, LON[[index]], LAT[[index]], grid)
    t, q, u = (maps[name][0] for name in PRIMORDIAL)
    e, b = eb_laplacians(q, u, grid)
    scalar = laplacians(forward(t * outer_taper(grid), grid), grid)
    inner = inner_taper(grid, 0) > 0
    assert b[inner].std() < 3e-4 * e[inner].std()
    assert np.std(e[inner] - scalar[inner]) < 3e-4 * scalar[inner].std()


# --- lensing -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:In the future, the default will be switched to lenspyx")
@pytest.mark.parametrize("index", range(4), ids=PLACES)
def test_lensed_sky_is_pixells(index):
    """T, Q and U against pixell's lensing of the same alm on the same plane, at deflections of
    10': deflection, geodesic and the turn of polarization along it."""
    cl = toy(400, "kk")
    maps = sky(cl, PRIMORDIAL + OBSERVED)
    ell = np.arange(401)
    phi = healpy.almxfl(alm_of("kappa", cl["kk"]), 2 / np.maximum(ell * (ell + 1), 1))
    centre = LON[index], LAT[index]
    lensed, unlensed, shift = lensing.lens_map_curved(
        (3, GRID.pixels, GRID.pixels),
        WCS(header(*centre, GRID)),
        phi,
        primordial_alm(cl),
        output="lua",
        epsilon=1e-9,
    )
    assert np.hypot(*np.asarray(shift)).mean() > np.radians(8 / 60)
    points = patch_directions(*centre, GRID)
    for names, expected in ((PRIMORDIAL, unlensed), (OBSERVED, lensed)):
        t, q, u = np.asarray(expected)
        q, u = iau_to_x_axis(*to_patch_frame(q, u, *points, *centre))
        for name, values in zip(names, (t, q, u), strict=True):
            assert_allclose(maps[name][index], values, atol=1e-6 * values.std(), err_msg=name)


def test_geodesics_are_great_circles():
    """Of any length: distance, direction and the turn against spherical trigonometry between the
    two ends."""
    rng = np.random.default_rng(2)
    lon, lat = rng.uniform(0, 360, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))
    south, east = rng.normal(size=(2, 200)) * rng.choice([1e-5, 1e-2, 0.7], 200)
    lon_end, lat_end, growth = follow_geodesic(lon, lat, south, east)
    start, end = unit_vector(lon, lat), unit_vector(lon_end, lat_end)
    length = np.hypot(south, east)
    distance = np.arctan2(np.linalg.norm(np.cross(start, end), axis=1), np.sum(start * end, axis=1))
    assert_allclose(distance, length, rtol=1e-8)
    way = np.exp(1j * bearing(lon, lat, lon_end, lat_end))
    assert_allclose(way, (-south + 1j * east) / length, atol=1e-9)
    turn = transport_angle(lon_end, lat_end, lon, lat)
    assert_allclose(np.exp(2j * growth), np.exp(2j * turn), atol=1e-8)


#: Small, so that differences of neighbouring pixels are derivatives.
FINE = PatchGrid(2.0, 48)


@pytest.fixture(scope="module")
def arrival() -> dict[str, np.ndarray]:
    """Where the light of each pixel comes from: unit vectors (n, y, x, 3); and kappa.

    A sky whose T has ell = 1 only shows one component of x'. Three of them, which share kappa, show
    x'.
    """
    cl = toy(150, "kk")
    cl = {name: (spectrum if name == "kk" else 0 * spectrum) for name, spectrum in cl.items()}
    cl["tt"][1] = 1
    here = patch_vectors(LON, LAT, FINE)
    dipoles, seen = [], []
    for seed in range(3):

        def draw(component, seed=seed):
            return random(component, seed if component == "t" else 5)

        maps = sky(cl, ("t_prim", "t_sky", "kappa"), grid=FINE, draw=draw)
        dipoles.append(np.linalg.lstsq(here.reshape(-1, 3), maps["t_prim"].ravel(), rcond=None)[0])
        seen.append(maps["t_sky"])
    vectors = np.linalg.solve(np.array(dipoles), np.reshape(seen, (3, -1))).T
    assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    return {"vectors": vectors.reshape(here.shape), "kappa": maps["kappa"]}


def points() -> tuple[np.ndarray, np.ndarray]:
    pixels = [patch_directions(*centre, FINE) for centre in zip(LON, LAT, strict=True)]
    return tuple(np.stack(pixels, axis=1))


def test_deflection_is_the_gradient_of_the_potential(arrival):
    """Along and across the meridians, against differences of phi between points 2e-5 apart."""
    kk = toy(150, "kk")["kk"]
    ell = np.arange(151)
    white, factor = white_alm(random("kappa"), 150)[None], 2 / np.maximum(ell * (ell + 1), 1)
    lon, lat = points()
    step = np.degrees(1e-5)

    def phi(lon, lat):
        return evaluate(white, factor * np.sqrt(kk), lon, lat).reshape(lon.shape)

    aside = step / np.cos(np.radians(lat))
    north = (phi(lon, lat + step) - phi(lon, lat - step)) / 2e-5
    east = (phi(lon + aside, lat) - phi(lon - aside, lat)) / 2e-5
    shift = arrival["vectors"] - unit_vector(lon, lat)
    to_east = unit_vector(lon + 90, 0 * lat)
    to_north = np.cross(unit_vector(lon, lat), to_east)
    scale = np.hypot(north, east).std()
    assert_allclose(np.sum(shift * to_north, axis=-1), north, atol=1e-3 * scale)
    assert_allclose(np.sum(shift * to_east, axis=-1), east, atol=1e-3 * scale)


def test_kappa_is_minus_half_the_divergence(arrival):
    """Of the displacement on the plane, which keeps areas and so divergences."""
    x, y = plane_axis(FINE)[None, :], plane_axis(FINE)[:, None]
    for i, centre in enumerate(zip(LON, LAT, strict=True)):
        vectors = np.moveaxis(arrival["vectors"][i], -1, 0)
        lon, lat = healpy.vec2ang(vectors.reshape(3, -1).T, lonlat=True)
        to_x, to_y = to_plane(*centre, lon.reshape(48, 48), lat.reshape(48, 48))
        divergence = np.gradient(to_x - x, FINE.pixel_rad, axis=1)
        divergence += np.gradient(to_y - y, FINE.pixel_rad, axis=0)
        kappa = arrival["kappa"][i]
        difference = (-0.5 * divergence - kappa)[1:-1, 1:-1]
        assert difference.std() < 0.01 * kappa.std()


def test_screen_and_rotation_are_those_where_the_light_comes_from(arrival):
    lon, lat = healpy.vec2ang(arrival["vectors"].reshape(-1, 3), lonlat=True)
    shape = arrival["kappa"].shape
    cl = toy(150, "kk", "tautau", "alphaalpha")
    expected = {
        name: evaluate(
            white_alm(random(name), 150)[None], np.sqrt(cl[name + name]), lon, lat
        ).reshape(shape)
        for name in ("tau", "alpha")
    }
    # T is the same in all directions, so that lensing does not show in it.
    cl |= {"tt": np.eye(151)[0], "te": 0 * cl["te"]}
    maps = sky(cl, (*FIELDS,), grid=FINE, rotation=0.3)
    found = -np.log(maps["t_sky"] / maps["t_prim"])
    assert_allclose(found, expected["tau"], atol=1e-5 * expected["tau"].std())
    assert np.std(found - maps["tau"]) > 0.02 * expected["tau"].std()
    lensed = sky({name: cl[name] for name in ("tt", "te", "ee", "bb", "kk")}, OBSERVED, grid=FINE)
    turned = (lensed["q_sky"] + 1j * lensed["u_sky"]) * np.exp(2j * (expected["alpha"] + 0.3))
    found = (maps["q_sky"] + 1j * maps["u_sky"]) * np.exp(expected["tau"])
    assert_allclose(found, turned, atol=1e-5 * np.abs(turned).std())


# --- power of the lensed and of the rotated sky ---------------------------------------------------

WIDE, BINS = PatchGrid(10.0, 96), Bins.linear(300, 1000, 100)


def band_powers(maps, names, pairs) -> dict[str, np.ndarray]:
    """Power (n, bands) of pairs of T, E and B of the maps called t, q, u in `names`."""
    t, q, u = (maps[name] for name in names)
    inner = inner_taper(WIDE, 1.5)
    square = np.where(WIDE.ell > 0, WIDE.ell**2, 1)
    e, b = forward(eb_laplacians(q, u, WIDE) * inner, WIDE) / square
    modes = {"t": forward(t * inner, WIDE), "e": e, "b": b}
    return {
        pair: bin_power(power(modes[pair[0]], modes[pair[1]], WIDE), WIDE, BINS) for pair in pairs
    }


def seen(pair: str, cl: np.ndarray) -> np.ndarray:
    """What `band_powers` should find (bands,): the spectrum mixed by the inner taper, and that of
    ell² E and ell² B. The flat ell stands for ell + 1/2."""
    weight = 0 if pair == "tt" else 4
    frequencies = 2 * np.pi * np.fft.fftfreq(WIDE.pixels, WIDE.pixel_rad)
    ell = np.hypot(frequencies[:, None], frequencies)
    spectrum = np.interp(ell, np.arange(cl.size) + 0.5, cl, right=0) * ell**weight
    mixing = np.abs(np.fft.fft2(inner_taper(WIDE, 1.5)) / ell.size) ** 2
    mixed = np.fft.ifft2(np.fft.fft2(mixing) * np.fft.fft2(spectrum)).real
    mixed = mixed[:, : WIDE.pixels // 2 + 1] / np.where(WIDE.ell > 0, WIDE.ell, 1) ** weight
    return bin_power(mixed, WIDE, BINS)


@pytest.fixture(scope="module")
def table() -> dict[str, np.ndarray]:
    """CMB spectra up to 1400, and what lensing by kappa up to 1400 makes of them (camb)."""
    cl = compute(Spectra(lmax=1400)).cl
    ell = np.arange(1401.0)
    to_dl = ell * (ell + 1) / (2 * np.pi)
    unlensed = np.stack([cl[name] * to_dl for name in ("tt", "ee", "bb", "te")], axis=1)
    lensed = camb.correlations.lensed_cls(
        unlensed, 4 * cl["kk"] / (2 * np.pi), lmax=1400, theta_max=None
    )
    back = np.divide(1, to_dl, out=np.zeros_like(to_dl), where=ell > 0)
    for column, name in enumerate(("tt", "ee", "bb", "te")):
        cl[f"lensed_{name}"] = lensed[:, column] * back
    return cl


def agreement(found: np.ndarray, expected: np.ndarray) -> float:
    """P-value of the means of `found` (n, bands) with the covariance of its rows (Hotelling)."""
    count, bands = found.shape
    pull = found.mean(axis=0) - expected
    chi2 = count * pull @ np.linalg.solve(np.cov(found.T), pull)
    return stats.f.sf(chi2 * (count - bands) / (bands * (count - 1)), bands, count - bands)


def test_lensed_power_is_cambs(table):
    """TT and EE by how much they differ from those of the primordial sky, BB as it is."""
    lon, lat = places(150)
    cl = {name: table[name] for name in ("tt", "ee", "bb", "te", "kk")}
    maps = sky(cl, PRIMORDIAL + OBSERVED, lon, lat, WIDE)
    pairs = ("tt", "ee", "bb")
    primordial, lensed = (band_powers(maps, names, pairs) for names in (PRIMORDIAL, OBSERVED))
    for pair, precision in zip(pairs, (0.005, 0.005, 0.02), strict=True):
        change = lensed[pair] - primordial[pair]
        expected = seen(pair, table[f"lensed_{pair}"] - table[pair])
        assert 0.001 < agreement(change, expected) < 0.999
        error = change.std(axis=0) / np.sqrt(len(change))
        assert np.all(error < precision * seen(pair, table[f"lensed_{pair}"]))
    # Of the primordial sky there is no B to be lensed.
    assert primordial["bb"].mean() < 1e-3 * lensed["bb"].mean()


def test_rotation_by_a_constant():
    """E and B turn into each other mode by mode, and EB is ½ sin(4 alpha) (EE - BB)."""
    cl, alpha = toy(1200), 0.1
    lon, lat = places(100)
    maps = sky(cl, (*PRIMORDIAL, *OBSERVED, "alpha"), lon, lat, WIDE, rotation=alpha)
    (e, b), (e_sky, b_sky) = (
        rotate_to_eb(forward(maps[f"q_{view}"], WIDE), forward(maps[f"u_{view}"], WIDE), WIDE)
        for view in ("prim", "sky")
    )
    cosine, sine = np.cos(2 * alpha), np.sin(2 * alpha)
    assert_allclose(e_sky, e * cosine - b * sine, atol=1e-9 * np.abs(e).max())
    assert_allclose(b_sky, b * cosine + e * sine, atol=1e-9 * np.abs(e).max())
    assert np.array_equal(maps["t_sky"], maps["t_prim"])
    assert np.all(maps["alpha"] == alpha)
    eb = band_powers(maps, OBSERVED, ("eb",))["eb"]
    expected = seen("eb", np.sin(4 * alpha) / 2 * (cl["ee"] - cl["bb"]))
    assert 0.001 < agreement(eb, expected) < 0.999
    assert np.all(eb.std(axis=0) / np.sqrt(len(eb)) < 0.05 * expected)


# --- null patches, bytes, mistakes ----------------------------------------------------------------

ALL = toy(200, "kk", "tautau", "alphaalpha")


def test_screen_and_rotation_without_lensing():
    cl = toy(200, "tautau", "alphaalpha")
    maps = sky(cl, (*PRIMORDIAL, *OBSERVED, "tau", "alpha"), rotation=-0.2)
    screen = np.exp(-maps["tau"])
    assert_allclose(maps["t_sky"], maps["t_prim"] * screen, rtol=1e-12)
    turned = (maps["q_prim"] + 1j * maps["u_prim"]) * np.exp(2j * maps["alpha"]) * screen
    assert_allclose(maps["q_sky"] + 1j * maps["u_sky"], turned, rtol=1e-9)
    assert_allclose(maps["alpha"] - sky(cl, ("alpha",))["alpha"], -0.2, rtol=1e-12)


def test_null_patches_are_primordial_and_the_others_do_not_change():
    null = np.array([False, True, True, False])
    some, none = (sky(ALL, FIELDS, rotation=0.2, null=part) for part in (null, 0 * null))
    for name in ("kappa", "tau", "alpha"):
        assert not some[name][null].any()
        assert none[name].any(axis=(1, 2)).all()
    for seen_, true in zip(OBSERVED, PRIMORDIAL, strict=True):
        assert np.array_equal(some[seen_][null], some[true][null])
        assert np.array_equal(some[true], none[true])
        assert not np.isclose(none[seen_][null], none[true][null]).all()
    for name in FIELDS:
        assert np.array_equal(some[name][~null], none[name][~null])


def digest(maps: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: hashlib.sha256(stack.tobytes()).hexdigest() for name, stack in maps.items()}


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    maps = sky(ALL, tuple(FIELDS), rotation=0.1)
    assert {stack.shape for stack in maps.values()} == {(4, 48, 48)}
    assert {stack.dtype for stack in maps.values()} == {np.dtype(float)}
    return digest(maps)


@pytest.mark.parametrize(
    ("fields", "draws"),
    [
        (("t_prim",), "et"),
        (("q_prim",), "eb"),
        (("u_prim", "t_prim"), "etb"),
        (("t_sky",), ["kappa", "tau", "e", "t"]),
        (("u_sky",), ["kappa", "tau", "alpha", "e", "b"]),
        (("u_sky", "q_prim", "tau"), ["kappa", "tau", "alpha", "e", "b"]),
        (("kappa",), ["kappa"]),
        (("tau", "alpha"), ["tau", "alpha"]),
    ],
    ids="-".join,
)
def test_bytes_do_not_depend_on_the_fields_and_only_what_is_needed_is_drawn(digests, fields, draws):
    drawn = []

    def draw(component: str) -> np.random.Generator:
        drawn.append(component)
        return random(component)

    maps = sky(ALL, fields, rotation=0.1, draw=draw)
    assert digest(maps) == {name: digests[name] for name in fields}
    assert drawn == list(draws)


def test_unknown_field_is_one_line():
    with pytest.raises(UserError, match=r"^fields: expected one of t_prim, .*found 'e_prim'$"):
        sky(ALL, ("e_prim",))


@pytest.mark.parametrize("field", ["kappa", "tau", "alpha"])
def test_field_without_its_effect_is_one_line(field):
    with pytest.raises(UserError, match=rf"^fields: expected .* for '{field}', found none$"):
        sky(toy(50), (field,))
