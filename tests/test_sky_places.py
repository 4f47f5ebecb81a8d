"""Places of patches: uniform, inside the mask, apart from other parts, reproducible."""

from itertools import combinations

import healpy
import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from skyweave.config import Patches, Split
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.sky.places import choose_places, inside_share, overlaps, part_counts
from skyweave.sky.projection import patch_directions, to_plane

NSIDE = 64
LON, LAT = healpy.pix2ang(NSIDE, np.arange(12 * NSIDE**2), lonlat=True)
PLANE_CUT = np.abs(LAT) > 15
HALVES = Split(train=0.5, validation=0.25, test=0.25)


def places(size_deg: float, count: int, mask: np.ndarray = PLANE_CUT, **kwargs) -> pd.DataFrame:
    settings = Patches(count=count, size_deg=size_deg, pixels=32, high_arcmin=60)
    keywords = {"split": Split(), "seed": 1, "dataset": "dust", **kwargs}
    return choose_places(mask, settings, **keywords)


@pytest.mark.parametrize(("size_deg", "count"), [(20.0, 40), (10.0, 60), (5.0, 100)])
def test_accepted_and_apart(size_deg: float, count: int) -> None:
    table = places(size_deg, count)
    grid = PatchGrid(size_deg, 32)
    for row in table.itertuples():
        assert row.inside == inside_share(PLANE_CUT, row.lon, row.lat, grid)
    assert table["inside"].min() >= 0.9
    assert table["split"].value_counts().to_dict() == {
        "train": round(0.8 * count),
        "validation": round(0.1 * count),
        "test": round(0.1 * count),
    }
    half = np.radians(size_deg) / 2
    pixels = {row.Index: patch_directions(row.lon, row.lat, grid) for row in table.itertuples()}
    for one, other in combinations(table.itertuples(), 2):
        if one.split != other.split:
            x, y = to_plane(one.lon, one.lat, *pixels[other.Index])
            assert np.maximum(np.abs(x), np.abs(y)).min() > half


def test_uniform_on_the_sphere() -> None:
    # Four seeds together: a bias would add up, chance does not.
    whole, split = np.ones(LON.size, bool), Split(train=1, validation=0, test=0)
    table = pd.concat([places(1.0, 500, whole, split=split, seed=seed) for seed in range(4)])
    assert kstest(np.sin(np.radians(table["lat"])), "uniform", (-1, 2)).pvalue > 0.01
    assert kstest(table["lon"], "uniform", (0, 360)).pvalue > 0.01


def test_same_seed_same_places_and_another_others() -> None:
    table = places(10.0, 20)
    pd.testing.assert_frame_equal(table, places(10.0, 20))
    for other in (places(10.0, 20, seed=2), places(10.0, 20, dataset="other")):
        assert not np.isclose(table["lon"], other["lon"]).any()


def test_split_with_large_shares_is_met() -> None:
    counts = places(10.0, 40, split=HALVES)["split"].value_counts().to_dict()
    assert counts == {"train": 20, "validation": 10, "test": 10}


@pytest.mark.parametrize(
    ("count", "split", "expected"),
    [
        (10, Split(train=0.7, validation=0.2, test=0.1), (7, 2, 1)),
        (60, Split(), (48, 6, 6)),
        (3, Split(), (1, 1, 1)),
        (7, Split(), (5, 1, 1)),
        (9, Split(train=1, validation=0, test=0), (9, 0, 0)),
        (11, Split(train=0.5, validation=0.5, test=0), (6, 5, 0)),
    ],
)
def test_counts_are_nearest_to_the_shares(count: int, split: Split, expected: tuple) -> None:
    assert tuple(part_counts(count, split).values()) == expected


def test_impossible_is_said() -> None:
    cap = LAT > 80
    with pytest.raises(UserError, match=r"patches\.inside: expected a mask with room .*found none"):
        places(40.0, 10, cap)
    # One patch of 20° fits into a cap of 15°, but no second that does not overlap it.
    with pytest.raises(UserError, match=r"patches\.count: .*train places.*found 0 places"):
        places(20.0, 3, LAT > 75)
    with pytest.raises(UserError, match=r"patches\.count: expected at least 3, .*found 2"):
        places(10.0, 2)


@pytest.mark.parametrize("lat", [0.0, 60.0])
def test_overlap_of_neighbours(lat: float) -> None:
    size = 10.0
    # Along the meridian, edge to edge; then corner to corner, in the plane of the first.
    for distance, expected in ((0.5, True), (9.5, True), (10.6, False), (40, False)):
        assert overlaps(20.0, lat, np.array([20.0]), np.array([lat - distance]), size) == [expected]
    assert overlaps(0.0, 0.0, np.array([9.4, 10.6]), np.array([9.4, 10.6]), size).tolist() == [
        True,
        False,
    ]
