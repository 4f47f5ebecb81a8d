"""Where patches are cut: uniform on the sphere, inside the mask, split by region of the sky."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from skyweave.config import Patches, Split
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.sky.projection import (
    from_plane,
    patch_directions,
    patch_vectors,
    to_plane,
    unit_vector,
)

PARTS = ("train", "validation", "test")

#: Points a side that stand for a patch: in a first look at the mask, and in looking for overlaps.
_COARSE = 20
#: Candidates kept for a patch that is wanted, and drawn before giving up.
_CANDIDATES, _FEWEST_CANDIDATES, _MOST_DRAWS, _BATCH = 10, 400, 100_000, 1000
#: Share of the candidates that validation and test regions with their surroundings may take from
#: training, and the most regions of each.
_MOST_EXCLUDED, _MOST_REGIONS = 0.5, 8
#: Layouts of the regions tried before giving up.
_ATTEMPTS = 20


def choose_places(
    mask: np.ndarray, patches: Patches, split: Split, seed: int, dataset: str
) -> pd.DataFrame:
    """Table of the patches' centres: place, lon, lat (degrees), split, inside (share in the mask).

    Candidates are uniform on the sphere, accepted when at least `patches.inside` of their pixels
    lie inside the RING `mask`. Validation and test take compact regions with their share of the
    candidates each, training what touches neither: patches of different parts never overlap,
    those of one part may. Shares are as near `split` as whole patches allow, with at least one
    patch for a share above 0. Raises `UserError` when the mask or `count` leave too little room.
    """
    grid = PatchGrid(patches.size_deg, patches.pixels)
    counts = part_counts(patches.count, split)
    rng = generator(seed, dataset, "places")
    lon, lat, share = _candidates(mask, grid, patches, rng)
    sky = _Sky(lon, lat, mask, grid, patches.inside)
    shares = [counts[part] / patches.count for part in ("validation", "test")]
    regions = _region_count(shares, 4 * np.pi * share, patches.size_deg)
    for attempt in range(_ATTEMPTS):
        chosen = _assign(sky, counts, max(regions - attempt, 1), rng)
        short = [part for part in PARTS if len(chosen[part]) < counts[part]]
        if not short:
            break
    else:
        part = short[0]
        raise UserError(
            "patches.count",
            f"a count and size that the mask has room for ({counts[part]} {part} places that "
            "overlap no other part)",
            f"{len(chosen[part])} places",
        )
    table = pd.DataFrame(
        [(lon[i], lat[i], part, share) for part in PARTS for i, share in chosen[part]],
        columns=["lon", "lat", "split", "inside"],
    )
    table.insert(0, "place", np.arange(len(table)))
    return table


def part_counts(count: int, split: Split) -> dict[str, int]:
    """Patches in each part: nearest to the shares (largest remainder), at least one if not 0."""
    shares = np.array([getattr(split, part) for part in PARTS])
    wanted = shares > 0
    if count < wanted.sum():
        raise UserError("patches.count", f"at least {wanted.sum()}, one a part", count)
    exact = shares * count
    # Rounded, because .7 * 10 is a little less than 7.
    whole = np.floor(np.round(exact, 9)).astype(int)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: count - whole.sum()]] += 1
    while (whole[wanted] == 0).any():
        whole[np.argmax(whole)] -= 1
        whole[np.flatnonzero(wanted & (whole == 0))[0]] += 1
    return dict(zip(PARTS, whole.tolist(), strict=True))


def uniform_directions(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude (n,) in degrees, uniform on the sphere."""
    lon, z = rng.uniform(0, 360, n), rng.uniform(-1, 1, n)
    return lon, np.degrees(np.arcsin(z))


def inside_share(mask: np.ndarray, lon: float, lat: float, grid: PatchGrid) -> float:
    """Share of the patch's pixels that lie inside the RING mask (nearest HEALPix pixel)."""
    return float(mask_patch(mask, lon, lat, grid).mean())


def mask_patch(mask: np.ndarray, lon: float, lat: float, grid: PatchGrid) -> np.ndarray:
    """Boolean (y, x) mask on a patch, from the nearest HEALPix pixels."""
    import healpy

    nside = healpy.npix2nside(mask.size)
    return mask[healpy.ang2pix(nside, *patch_directions(lon, lat, grid), lonlat=True)]


def overlaps(
    lon: float, lat: float, lon_others: np.ndarray, lat_others: np.ndarray, size_deg: float
) -> np.ndarray:
    """Which (n,) of the patches at the others' centres overlap the one at (lon, lat).

    Points on a grid over one patch, edges included, are looked for in the other, and the reverse,
    with room for what the grid cannot see.
    """
    half = np.radians(size_deg) / 2
    near = unit_vector(lon_others, lat_others) @ unit_vector(lon, lat) > np.cos(
        4 * np.arcsin(min(half / np.sqrt(2), 1))
    )
    axis = np.linspace(-half, half, _COARSE)
    # The deepest intrusion that a grid can miss is a corner between two of its points.
    room = half + (axis[1] - axis[0]) / 2
    found = np.zeros(near.shape, bool)
    for i in np.flatnonzero(near):
        pair = ((lon, lat), (lon_others[i], lat_others[i]))
        for (lon_one, lat_one), (lon_two, lat_two) in (pair, pair[::-1]):
            lon_points, lat_points = from_plane(lon_one, lat_one, axis[None, :], axis[:, None])
            x, y = to_plane(lon_two, lat_two, lon_points, lat_points)
            found[i] |= bool((np.maximum(np.abs(x), np.abs(y)) < room).any())
    return found


def _candidates(
    mask: np.ndarray, grid: PatchGrid, patches: Patches, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Centres that a coarse look finds inside the mask, as drawn, and their share of all drawn."""
    import healpy

    nside = healpy.npix2nside(mask.size)
    wanted = max(_CANDIDATES * patches.count, _FEWEST_CANDIDATES)
    coarse = PatchGrid(grid.size_deg, min(_COARSE, grid.pixels))
    accepted: list[tuple[float, float]] = []
    drawn = 0
    while drawn < _MOST_DRAWS and len(accepted) < wanted:
        if not accepted and drawn >= _MOST_DRAWS // 5:
            break
        lon, lat = uniform_directions(rng, _BATCH)
        pixels = healpy.vec2pix(nside, *np.moveaxis(patch_vectors(lon, lat, coarse), -1, 0))
        # Looser than the setting: every pixel is looked at when the place is chosen.
        good = mask[pixels].mean((1, 2)) >= patches.inside - 0.03
        accepted += zip(lon[good], lat[good], strict=True)
        drawn += _BATCH
    if not accepted:
        raise UserError(
            "patches.inside",
            f"a mask with room for patches of {grid.size_deg:g} deg, {patches.inside:g} inside",
            f"none (the mask covers {mask.mean():.3g} of the sky)",
        )
    lon, lat = np.array(accepted).T
    return lon, lat, len(accepted) / drawn


def _assign(
    sky: "_Sky", counts: dict[str, int], regions: int, rng: np.random.Generator
) -> dict[str, list[tuple[int, float]]]:
    """Candidates' numbers and inside shares by part; a part stays short where there is no room."""
    total = sum(counts.values())
    free = np.ones(sky.lon.size, bool)
    chosen: dict[str, list[tuple[int, float]]] = {}
    for part in ("test", "validation", "train"):
        region = np.flatnonzero(free)
        if part != "train" and counts[part] and region.size:
            parts = min(regions, counts[part])
            region = _compact(sky, region, counts[part] / total, parts, rng)
        chosen[part] = _take(sky, region, counts[part])
        for i, _ in chosen[part]:
            free &= ~overlaps(sky.lon[i], sky.lat[i], sky.lon, sky.lat, sky.grid.size_deg)
    return chosen


@dataclass(frozen=True)
class _Sky:
    """What places are chosen from: candidates' centres in order, and how they are judged."""

    lon: np.ndarray
    lat: np.ndarray
    mask: np.ndarray
    grid: PatchGrid
    inside: float


def _compact(
    sky: _Sky, free: np.ndarray, share: float, regions: int, rng: np.random.Generator
) -> np.ndarray:
    """The candidates, in order, of `regions` compact regions with `share` of all between them."""
    each = max(int(np.ceil(share * sky.lon.size / regions)), 1)
    vectors = unit_vector(sky.lon[free], sky.lat[free])
    members: set[int] = set()
    for centre in rng.choice(free.size, min(regions, free.size), replace=False):
        nearest = np.argsort(-(vectors @ vectors[centre]), kind="stable")[:each]
        members.update(free[nearest].tolist())
    return np.array(sorted(members), dtype=int)


def _take(sky: _Sky, region: np.ndarray, count: int) -> list[tuple[int, float]]:
    """The first `count` candidates of a region that are inside the mask by every pixel."""
    taken: list[tuple[int, float]] = []
    for i in region:
        if len(taken) == count:
            break
        share = inside_share(sky.mask, sky.lon[i], sky.lat[i], sky.grid)
        if share >= sky.inside:
            taken.append((int(i), share))
    return taken


def _region_count(shares: Sequence[float], area_sr: float, size_deg: float) -> int:
    """How many regions validation and test get each.

    More regions look more like the whole sky, but each is surrounded by a rim, about a patch
    wide, that no other part can use.
    """
    reach = 1.15 * np.radians(size_deg)
    for regions in range(_MOST_REGIONS, 1, -1):
        radii = [np.sqrt(share * area_sr / (np.pi * regions)) for share in shares if share > 0]
        if regions * np.pi * sum((radius + reach) ** 2 for radius in radii) < (
            _MOST_EXCLUDED * area_sr
        ):
            return regions
    return 1
