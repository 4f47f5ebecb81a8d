"""Holes as the sky has them: pieces of a real map's mask and of its point sources."""

import json
import warnings
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
) -> None:
    """Write `count` holes (y, x) cut from a `mask` of the sky at directions uniform on the sphere.

    The mask is a HEALPix FITS file in Galactic coordinates, of any nside, 0 where the sky is
    missing; pixels without data are missing too. Of the table `sources`, with columns lon and lat
    (degrees), discs of `source_radius_arcmin`, or of its column radius (arcmin) where it has one,
    but of at least 3 pixels of the patch, are missing as well. Patches of `pixels` pixels
    and `size_deg` a side are kept of which some is missing, and no more than the share `area`.
    `name` is that of the run.

    Raises `UserError` for a mask that cannot be read, or that sees all or nothing, and when too
    few patches are found.
    """
    seen, grid = read_sky(mask), PatchGrid(size_deg, pixels)
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
            if sky.mixed(lon, lat) and 0 < (hole := sky.hole(lon, lat)).mean() <= area:
                holes.append(hole)
                centres.append((float(lon), float(lat)))
            if len(holes) == count or drawn == most:
                break
    if len(holes) < count:
        raise UserError(
            f"runs.{name}.holes.count",
            f"pieces that the mask has ({count} of {size_deg:g} deg, of which up to {area:g} is "
            "missing: `holes.area`)",
            f"{len(holes)} at {drawn} places ({1 - seen.mean():.3g} of the sky is missing)",
        )
    provenance = {
        "seed": seed,
        "run": name,
        "mask": sha256(mask),
        "sources": None if sources is None else sha256(sources),
        "source_radius_arcmin": source_radius_arcmin,
        "area": area,
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


def read_sky(path: str | Path) -> np.ndarray:
    """Where a HEALPix FITS mask sees the sky: RING (npix,) bool, Galactic.

    It is missing where the first column is 0, or has no data. Raises `UserError` for a file that
    is missing, none of HEALPix or not Galactic, and for a mask without anything seen.
    """
    import healpy
    from astropy.io import fits

    what = "a HEALPix FITS file"
    if not Path(path).is_file():
        raise UserError(path, what, "no file")
    try:
        with warnings.catch_warnings():
            # Of headers without a card that nothing here depends on.
            warnings.simplefilter("ignore")
            values, cards = healpy.read_map(path, field=0, h=True, dtype=np.float32)
    except (
        *(OSError, IndexError, KeyError, TypeError, ValueError, AttributeError),
        fits.VerifyError,
    ) as error:
        found = f"an unreadable file ({' '.join(str(error).split())})"
        raise UserError(path, what, found) from None
    header = dict(cards)
    if "ORDERING" not in header or not healpy.isnpixok(values.size):
        raise UserError(path, what, "a FITS file without ORDERING, or 12 nside² pixels")
    frame = str(header.get("COORDSYS", "G")).strip().upper()
    if not frame.startswith("G"):
        raise UserError(path, "Galactic coordinates (COORDSYS)", frame)
    # HEALPix marks pixels without data by a large negative number.
    seen = values > 0
    if not seen.any():
        raise UserError(path, "a mask that sees some of the sky (above 0)", "0 everywhere")
    return seen


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
