"""Holes as the sky has them: pieces of a real map's mask and of its point sources."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from skyweave.errors import UserError
from skyweave.files import atomic, sha256, versions
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.sky.places import mask_patch, uniform_directions
from skyweave.sky.projection import patch_vectors, unit_vector
from skyweave.sky.sources import read_catalogue
from skyweave.sky.user_mask import read_seen

#: Directions drawn at once, and the most of them for each piece that is wanted.
_BATCH, _MOST_DRAWS = 1000, 200
#: Least radius of a source's disc, pixels of the patch.
_LEAST_PIXELS = 3


def cut_holes(
    out: str | Path,
    *,
    mask: str | Path,
    sources: str | Path | None = None,
    source_radius_arcmin: float = 0.0,
    size_deg: float,
    pixels: int,
    count: int,
    area: float,
    seed: int,
    name: str,
    inside: float = 0.0,
) -> None:
    """Write `count` holes (y, x) cut from a `mask` of the sky at directions uniform on the sphere.

    The mask is a HEALPix FITS file in Galactic coordinates, of any nside, 0 where the sky is
    missing (`sky.user_mask`). Of the table `sources`, with columns lon and lat
    (degrees), discs of `source_radius_arcmin`, or of its column radius (arcmin) where it has one,
    but of at least 3 pixels of the patch, are missing as well. Patches of `pixels` pixels
    and `size_deg` a side are kept of which some is missing, no more than the share `area`, and
    nothing within the share `inside` of the side from an edge. `name` is that of the run.

    Raises `UserError` for a mask that cannot be read, or that sees all or nothing, and when too
    few patches are found.
    """
    seen, grid = read_seen(mask), PatchGrid(size_deg, pixels)
    sky = _Sky(seen, grid, *_discs(sources, source_radius_arcmin, grid))
    if seen.all() and not sky.radius.size:
        raise UserError(mask, "a mask with holes (0)", "all of the sky seen")
    rng = generator(seed, name, "holes of the sky")
    holes: list[np.ndarray] = []
    centres: list[tuple[float, float]] = []
    drawn, most = 0, _MOST_DRAWS * count
    while len(holes) < count and drawn < most:
        for lon, lat in zip(*uniform_directions(rng, _BATCH), strict=True):
            drawn += 1
            hole = sky.hole(lon, lat) if sky.mixed(lon, lat) else None
            if hole is not None and 0 < hole.mean() <= area and _clear(hole, inside):
                holes.append(hole)
                centres.append((float(lon), float(lat)))
            if len(holes) == count or drawn == most:
                break
    if len(holes) < count:
        beside = f", none of it within {inside:g} of an edge: `holes.margin`" if inside else ""
        raise UserError(
            f"runs.{name}.holes.count",
            f"pieces that the mask has ({count} of {size_deg:g} deg, of which up to {area:g} is "
            f"missing: `holes.area`{beside})",
            f"{len(holes)} at {drawn} places ({1 - seen.mean():.3g} of the sky is missing)",
        )
    provenance = {
        "seed": seed,
        "run": name,
        "mask": sha256(mask),
        "sources": None if sources is None else sha256(sources),
        "source_radius_arcmin": source_radius_arcmin,
        "area": area,
        "inside": inside,
        "places_drawn": drawn,
        "versions": versions("numpy", "healpy"),
    }
    _write(Path(out), np.stack(holes), np.array(centres), size_deg, provenance)


def read_holes(path: str | Path) -> np.ndarray:
    """Holes (n, y, x) bool of `cut_holes`; raises `UserError` for anything else."""
    what = "holes cut by skyweave"
    try:
        with h5py.File(path) as file:
            return np.asarray(file["holes"], bool)
    except FileNotFoundError:
        raise UserError(path, what, "no file") from None
    except (OSError, KeyError) as error:
        raise UserError(path, what, f"an unreadable file ({error})") from None


def _clear(hole: np.ndarray, inside: float) -> bool:
    """Whether a hole (y, x) keeps the share `inside` of the side from each edge."""
    # A pixel that the margin ends in belongs to it; .07 * 100 is a little more than 7.
    edge = int(np.ceil(round(inside * len(hole), 9)))
    inner = slice(edge, max(len(hole) - edge, edge))
    return int(hole[inner, inner].sum()) == int(hole.sum())


@dataclass(frozen=True)
class _Sky:
    """A RING mask (npix,), True where seen, and discs about the unit vectors `sources` (m, 3),
    of `radius` (m,) in radians, that are missing too."""

    seen: np.ndarray
    grid: PatchGrid
    sources: np.ndarray
    radius: np.ndarray

    @property
    def reach(self) -> float:
        """Distance of the corners of a patch from its centre, radians."""
        return 2 * np.arcsin(min(np.radians(self.grid.size_deg) / 8**0.5, 1))

    def mixed(self, lon: float, lat: float) -> bool:
        """Whether a patch may have both what is seen and what is missing: a quick look."""
        import healpy

        nside, centre = healpy.npix2nside(self.seen.size), unit_vector(lon, lat)
        around = self.reach + healpy.max_pixrad(nside)
        part = self.seen[healpy.query_disc(nside, centre, min(around, np.pi))]
        return bool(part.any() and (not part.all() or self._near(centre).any()))

    def hole(self, lon: float, lat: float) -> np.ndarray:
        """What is missing (y, x) of the patch about (lon, lat), degrees."""
        hole = ~mask_patch(self.seen, lon, lat, self.grid)
        near = self._near(unit_vector(lon, lat))
        if near.any():
            vectors = patch_vectors(np.array([lon]), np.array([lat]), self.grid)[0]
            for source, radius in zip(self.sources[near], self.radius[near], strict=True):
                hole |= vectors @ source >= np.cos(radius)
        return hole

    def _near(self, centre: np.ndarray) -> np.ndarray:
        """Which (m,) of the discs may touch the patch about a unit vector."""
        return self.sources @ centre >= np.cos(np.minimum(self.reach + self.radius, np.pi))


def _discs(
    sources: str | Path | None, radius_arcmin: float, grid: PatchGrid
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (m, 3) and radii (m,), in radians, of a table's discs."""
    if sources is None:
        return np.zeros((0, 3)), np.zeros(0)
    table = read_catalogue(sources)
    own = table["radius"] if "radius" in table else np.full(len(table), radius_arcmin)
    radius = np.maximum(np.asarray(own, float), _LEAST_PIXELS * grid.pixel_arcmin)
    vectors = unit_vector(table["lon"].to_numpy(), table["lat"].to_numpy())
    return vectors, np.radians(radius / 60)


def _write(
    path: Path,
    holes: np.ndarray,
    centres: np.ndarray,
    size_deg: float,
    provenance: Mapping[str, Any],
) -> None:
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["size_deg"] = size_deg
        file.attrs["provenance"] = json.dumps(provenance)
        file.create_dataset("holes", data=holes, compression="gzip", compression_opts=1)
        file.create_dataset("centres", data=centres).attrs["columns"] = "lon, lat (degrees)"
