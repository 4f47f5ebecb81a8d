"""Patches of known fields: values, beams, polarization, geometry."""

import ducc0
import healpy
import numpy as np
import pandas as pd
import pytest

from skyweave.config import Patches
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb
from skyweave.flat.taper import cosine_taper
from skyweave.sky.harmonic import (
    analyse,
    band_limit,
    evaluate,
    fill_bad,
    gaussian_sigma,
    gaussian_window,
    pixel_window,
    transfer,
)
from skyweave.sky.patches import extract, extract_qu, footprint_window
from skyweave.sky.projection import iau_to_x_axis, patch_directions, to_plane, unit_vector
from skyweave.sky.skymap import SkyMap

NSIDE = 128
NPIX = 12 * NSIDE**2
WHOLE = np.ones(NPIX, bool)
LON, LAT = healpy.pix2ang(NSIDE, np.arange(NPIX), lonlat=True)
SETTINGS = Patches(count=1, size_deg=20, pixels=64, low_arcmin=180, high_arcmin=90)
GRID = PatchGrid(20.0, 64)


def sky_map(values: np.ndarray, **kwargs: np.ndarray) -> SkyMap:
    bad = ~np.isfinite(values)
    return SkyMap(values.astype(np.float32), None, bad, 353.0, "a map", **kwargs)


def at(*centres: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(centres, columns=["lon", "lat"])


def test_smooth_field_is_extracted_exactly() -> None:
    def field(lon: np.ndarray, lat: np.ndarray, fwhm_arcmin: float) -> np.ndarray:
        """Harmonics of ell 1 and 2, each with its beam."""
        b = gaussian_window(2, fwhm_arcmin)
        x, y, z = np.moveaxis(unit_vector(lon, lat), -1, 0)
        return 7 + b[1] * (3 * x - 2 * z) + b[2] * (4 * x * y + 5 * y * z)

    places = at((40, 35), (200, -88), (0, 0))
    found = extract(sky_map(field(LON, LAT, 30)), WHOLE, places, SETTINGS, 30.0)
    for i, centre in enumerate(places.itertuples(index=False)):
        lon, lat = patch_directions(centre.lon, centre.lat, GRID)
        for name, fwhm in (("high", 90), ("low", 180)):
            # At the pole the analysis is good to 2e-5 of the mean (1.4e-2 by quadrature alone).
            atol = 2e-4 if abs(centre.lat) > 80 else 5e-6
            np.testing.assert_allclose(found[name][i], field(lon, lat, fwhm), rtol=0, atol=atol)
            assert found[name].dtype == np.float32


@pytest.mark.parametrize("window_nside", [None, NSIDE])
def test_point_source_gets_the_beam_asked_for(window_nside: int | None) -> None:
    own, lon, lat = 90.0, 77.0, 52.0
    lmax = 3 * NSIDE - 1
    cosine = unit_vector(LON, LAT) @ unit_vector(lon, lat)
    beam = gaussian_window(lmax, own)
    if window_nside:
        beam = beam * pixel_window(window_nside, lmax)
    source = sky_map(profile(beam, cosine), window_nside=window_nside)
    settings = SETTINGS.model_copy(update={"high_arcmin": 120.0, "low_arcmin": 240.0})
    found = extract(source, WHOLE, at((lon, lat)), settings, own)
    points = unit_vector(*patch_directions(lon, lat, GRID)) @ unit_vector(lon, lat)
    for name, fwhm in (("high", 120.0), ("low", 240.0)):
        patch = found[name][0]
        expected = profile(gaussian_window(lmax, fwhm), points)
        np.testing.assert_allclose(patch, expected, rtol=0, atol=1e-4 * expected.max())
        # And by its width: half of the peak at half of the FWHM.
        peak = 1 / (2 * np.pi * gaussian_sigma(fwhm) ** 2)
        separation = np.degrees(np.arccos(points)) * 60
        inside = patch > peak / 2
        assert separation[inside].max() < fwhm / 2 + 1 < separation[~inside].min() + 2


def profile(beam: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Σ (2 ell + 1) / 4π b_ell P_ell(cos gamma)."""
    ell = np.arange(beam.size)
    return np.polynomial.legendre.legval(cosine, (2 * ell + 1) / (4 * np.pi) * beam)


def test_pixel_window_is_that_of_an_average() -> None:
    # A white field averaged over the pixels of nside 32 keeps w_ell of each multipole.
    lmax, fine = 64, 512
    rng = np.random.default_rng(11)
    signal = np.zeros((2, lmax + 1))
    for _ in range(6):
        alm = draw(rng, lmax)
        field = healpy.alm2map(alm, fine)
        mean = healpy.map2alm(healpy.ud_grade(field, 32), lmax, iter=3)
        signal += [healpy.alm2cl(alm, mean), healpy.alm2cl(alm)]
    ratio = signal[0] / signal[1]
    window = pixel_window(32, lmax)
    bands = np.arange(4, 64).reshape(-1, 12)
    np.testing.assert_allclose(ratio[bands].mean(1), window[bands].mean(1), rtol=4e-3)
    assert window[0] == pytest.approx(1, abs=1e-4)


def draw(rng: np.random.Generator, lmax: int) -> np.ndarray:
    size = healpy.Alm.getsize(lmax)
    alm = rng.normal(size=size) + 1j * rng.normal(size=size)
    alm[: lmax + 1] = alm[: lmax + 1].real * np.sqrt(2)
    return alm


def test_transfer_refuses_a_finer_beam() -> None:
    with pytest.raises(UserError, match="expected a beam of at least the map's own 12 arcmin"):
        transfer(100, 12.0, 5.0, None)
    assert transfer(100, 12.0, 12.0, None) == pytest.approx(1)
    assert band_limit(2048, 80.0) < 500


def test_bad_pixels_do_not_ring() -> None:
    values = 100 + 10 * np.sin(np.radians(3 * LAT))
    hole = np.arccos(unit_vector(LON, LAT) @ unit_vector(50.0, 40.0)) < np.radians(2)
    places = at((50, 48))
    whole = extract(sky_map(values), WHOLE, places, SETTINGS, 30.0)
    holed = extract(sky_map(np.where(hole, np.nan, values)), ~hole, places, SETTINGS, 30.0)
    assert np.isfinite(holed["high"]).all()
    # The field turns by 2 in 2 degrees; the hole is filled to within that.
    assert np.abs(holed["high"] - whole["high"]).max() < 1.5
    far = patch_directions(50, 48, GRID)[1] > 48
    assert np.abs((holed["high"] - whole["high"])[0, far]).max() < 1e-3
    np.testing.assert_array_equal(whole["mask"], 1)
    share = holed["mask"].mean()
    assert share == pytest.approx(1 - np.pi * 2**2 / 400, abs=0.003)
    with pytest.raises(UserError, match="expected good pixels, found none"):
        fill_bad(np.full(48, np.nan))


def test_far_source_does_not_reach_a_patch() -> None:
    values = np.where(np.abs(LAT) < 1, 1e6, 1.0)
    found = extract(sky_map(values), WHOLE, at((10, 60)), SETTINGS, 30.0)
    np.testing.assert_allclose(found["high"], 1, atol=2e-5)


def test_footprint_window_is_one_over_the_patch() -> None:
    window = footprint_window(NSIDE, at((10, 30), (300, -60)), 20.0, 5.0)
    deepest = []
    for lon, lat in ((10, 30), (300, -60)):
        x, y = np.degrees(to_plane(lon, lat, LON, LAT))
        deepest.append(np.hypot(np.maximum(np.abs(x) - 10, 0), np.maximum(np.abs(y) - 10, 0)))
    distance = np.minimum(*deepest)
    assert (window[distance < 5] == 1).all()
    assert (window[distance > 10.001] < 1e-6).all()
    assert (np.diff(window[np.argsort(distance)]) < 1e-6).all()


def test_mask_is_that_of_the_nearest_pixel() -> None:
    mask = LON > 40
    found = extract(sky_map(np.ones(NPIX)), mask, at((40, 20)), SETTINGS, 30.0)["mask"][0]
    lon, _ = patch_directions(40, 20, GRID)
    clear = np.abs(lon - 40) > 1
    np.testing.assert_array_equal(found[clear], (lon > 40)[clear])


def red_alm(seed: int, lmin: int = 2, lmax: int = 150) -> np.ndarray:
    alm = draw(np.random.default_rng(seed), lmax)
    ell = healpy.Alm.getlm(lmax)[0]
    return np.where(ell >= lmin, alm / (ell + 1.0), 0)


def polarized(e: np.ndarray, b: np.ndarray) -> SkyMap:
    t, q, u = healpy.alm2map([e, e, b], NSIDE, lmax=150)
    return sky_map(t, q=q.astype(np.float32), u=u.astype(np.float32))


@pytest.mark.parametrize("centre", [(20.0, 5.0), (130.0, -55.0), (250.0, 88.0)])
def test_pure_e_sky_gives_flat_e_of_the_same_sign_and_little_b(
    centre: tuple[float, float],
) -> None:
    settings = SETTINGS.model_copy(update={"high_arcmin": 60.0})
    # Multipoles near the patch's fundamental (18) leave some of their E in B: the taper's doing.
    e = red_alm(1, lmin=40)
    sky = polarized(e, np.zeros_like(e))
    found = extract_qu(sky, at(centre), settings, 1.0)
    scalar = extract(sky, WHOLE, at(centre), settings, 1.0)["high"][0]
    taper = cosine_taper(GRID, 5.0)
    q, u = iau_to_x_axis(found["q_high"][0] * taper, found["u_high"][0] * taper)
    flat_e, flat_b = qu_to_eb(q, u, GRID)
    inner = np.s_[24:40, 24:40]
    assert flat_b[inner].var() < 1e-3 * flat_e[inner].var()
    # T was made from the same alm: E's sign and phase are those of the full sky's.
    assert np.corrcoef(flat_e[inner].ravel(), scalar[inner].ravel())[0, 1] > 0.999


def test_pure_b_sky_gives_flat_b_of_the_other_sign() -> None:
    b = red_alm(2, lmin=40)
    sky = polarized(np.zeros_like(b), b)
    found = extract_qu(sky, at((20, 5)), SETTINGS, 1.0)
    expected = extract(
        sky_map(healpy.alm2map(b, NSIDE, lmax=150)), WHOLE, at((20, 5)), SETTINGS, 1.0
    )["high"][0]
    taper = cosine_taper(GRID, 5.0)
    q, u = iau_to_x_axis(found["q_high"][0] * taper, found["u_high"][0] * taper)
    flat_b = qu_to_eb(q, u, GRID)[1]
    inner = np.s_[24:40, 24:40]
    assert np.corrcoef(flat_b[inner].ravel(), expected[inner].ravel())[0, 1] < -0.999


def test_patch_does_not_depend_on_where_the_pole_is() -> None:
    # The sky turned along a meridian: what lay at latitude 85° comes to lie on the equator.
    e, b = red_alm(3), red_alm(4)
    turn = healpy.Rotator(rot=[30, 85, 0], deg=True, eulertype="ZYX")
    turned = [turn.rotate_alm(alm, lmax=150) for alm in (e, b)]
    near_pole = extract_qu(polarized(e, b), at((30, 85)), SETTINGS, 30.0)
    on_equator = extract_qu(polarized(*turned), at((0, 0)), SETTINGS, 30.0)
    for name, patch in near_pole.items():
        np.testing.assert_allclose(patch, on_equator[name], atol=3e-4 * patch.std())


def test_map_without_polarization_is_refused() -> None:
    with pytest.raises(UserError, match="expected a map with Q and U, found intensity only"):
        extract_qu(sky_map(np.ones(NPIX)), at((0, 0)), SETTINGS, 30.0)


def test_same_bytes_with_any_number_of_threads() -> None:
    rng = np.random.default_rng(6)
    lon, lat = rng.uniform(0, 360, 1_000_000), rng.uniform(-85, 85, 1_000_000)
    values = healpy.alm2map(red_alm(5), NSIDE)
    before, found = ducc0.misc.thread_pool_size(), []
    try:
        for threads in (1, 2, 3):
            ducc0.misc.resize_thread_pool(threads)
            alm = analyse(values[None], 150)
            found.append((alm, evaluate(alm, np.ones(151), lon, lat)))
    finally:
        ducc0.misc.resize_thread_pool(before)
    for alm, field in found[1:]:
        np.testing.assert_array_equal(alm, found[0][0])
        np.testing.assert_array_equal(field, found[0][1])
