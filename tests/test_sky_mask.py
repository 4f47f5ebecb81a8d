"""The Planck-like mask, step by step."""

import healpy
import numpy as np
import pytest

from skyweave.config import Mask
from skyweave.errors import UserError
from skyweave.sky.mask import planck_like
from skyweave.sky.skymap import SkyMap

NSIDE = 64
NPIX = 12 * NSIDE**2
LON, LAT = healpy.pix2ang(NSIDE, np.arange(NPIX), lonlat=True)
GOOD = np.zeros(NPIX, bool)
SHARP = Mask(snr=8, smooth_deg=0, latitude_deg=0)


def sky_map(snr: np.ndarray | None = None, bad: np.ndarray = GOOD, **flags: np.ndarray) -> SkyMap:
    variance = None if snr is None else np.full(NPIX, 4, np.float32)
    intensity = np.ones(NPIX, np.float32) if snr is None else (2 * snr).astype(np.float32)
    return SkyMap(np.where(bad, np.nan, intensity), variance, bad, 353.0, "a map", flags=flags)


def test_each_step_takes_what_it_says() -> None:
    bad = (LON > 350) & (np.abs(LAT) > 20)
    mask, steps = planck_like(
        sky_map(np.where(LON < 90, 7.9, 8.1), bad), Mask(smooth_deg=0, latitude_deg=30)
    )
    np.testing.assert_array_equal(mask, (LON >= 90) & (np.abs(LAT) > 30) & ~bad)
    assert steps["step"].tolist() == [
        "whole sky",
        "signal-to-noise",
        "latitude",
        "without bad pixels",
    ]
    shares = [1, ((LON >= 90) & ~bad).mean(), ((LON >= 90) & (np.abs(LAT) > 30) & ~bad).mean()]
    np.testing.assert_allclose(steps["f_sky"], [*shares, shares[-1]])


def test_without_variance_the_pixels_that_iras_missed_go() -> None:
    no_iras = (LON > 100) & (LON < 140)
    mask, steps = planck_like(sky_map(no_iras=no_iras), SHARP)
    np.testing.assert_array_equal(mask, ~no_iras)
    assert steps["step"][1] == "seen by IRAS"


def test_with_neither_only_bad_pixels_go() -> None:
    bad = LAT > 60
    mask, _ = planck_like(sky_map(bad=bad), SHARP)
    np.testing.assert_array_equal(mask, ~bad)


def test_smoothed_edge_lies_where_a_gaussian_puts_it() -> None:
    # A straight edge smoothed with sigma = FWHM / 2.355 reaches .9 at 1.2816 sigma from it.
    fwhm = 10.0
    mask, _ = planck_like(
        sky_map(np.where(LAT > 0, 9, 0)), Mask(smooth_deg=fwhm, threshold=0.9, latitude_deg=0)
    )
    edge = LAT[mask].min()
    pixel = np.degrees(healpy.nside2resol(NSIDE))
    assert edge == pytest.approx(1.2816 * fwhm / 2.3548, abs=0.75 * pixel)


def test_smoothing_drops_islands_and_fills_pinholes_but_not_with_bad_pixels() -> None:
    island, pinhole, hole = (healpy.ang2pix(NSIDE, lon, 45, lonlat=True) for lon in (30, 200, 300))
    snr = np.where(LON > 90, 9.0, 0.0)
    snr[island], snr[pinhole] = 9, 0
    bad = GOOD.copy()
    bad[hole] = True
    mask, _ = planck_like(sky_map(snr, bad), Mask(smooth_deg=4, latitude_deg=0))
    assert not mask[island]
    assert mask[pinhole]
    assert not mask[hole]


def test_nothing_left_is_a_mistake() -> None:
    with pytest.raises(UserError, match="mask: expected settings that leave some of the sky"):
        planck_like(sky_map(np.ones(NPIX)), Mask())


def test_map_is_not_changed() -> None:
    given = sky_map(np.full(NPIX, 9.0), LAT > 60)
    before = given.intensity.copy()
    planck_like(given, Mask())
    np.testing.assert_array_equal(given.intensity, before)
