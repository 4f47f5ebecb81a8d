"""The SFD98 dust map, from its two zenithal equal-area hemispheres to HEALPix.

Schlegel, Finkbeiner & Davis 1998 (ApJ 500, 525). Pixel of (l, b), 0-based, with n = +1 in the
northern and -1 in the southern file:

    x = scale √(1 - n sin b) cos l + x_pole,   y = -n scale √(1 - n sin b) sin l + y_pole
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from skyweave.errors import UserError
from skyweave.sky.skymap import SkyMap
from skyweave.sky.units import rj_to_cmb

#: E(B-V) to brightness at 353 GHz, µK_RJ per magnitude, at |b| > 15°.
UK_RJ_PER_MAG = 713.0
FREQUENCY_GHZ = 353.0

#: Bits of the mask files, as their headers name them.
MASK_BITS = {"no_iras": 7, "large_object": 6, "no_source_removal": 5}

#: The map's beam (6.1′) is resolved by samples at this nside; coarser pixels are averages of them.
FINE_NSIDE = 2048
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Hemisphere:
    """One file: values (y, x), the sign n of its pole, its scale and its pole in pixels."""

    values: np.ndarray
    sign: int
    scale: float
    pole: tuple[float, float]

    @classmethod
    def read(cls, path: Path, sign: int) -> "Hemisphere":
        """Read a hemisphere's FITS image; raises `UserError` where it is not that of `sign`."""
        from astropy.io import fits

        try:
            with fits.open(path, memmap=False) as hdus:
                image = hdus[0]
                values = image.data.astype(image.data.dtype.newbyteorder("="))
                keys = ("LAM_NSGP", "LAM_SCAL", "CRPIX1", "CRPIX2")
                found, scale, x, y = (image.header[key] for key in keys)
        except FileNotFoundError:
            raise UserError(path, "a hemisphere of SFD98", "no file") from None
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise UserError(path, "a hemisphere of SFD98", error) from None
        if found != sign:
            raise UserError(path, f"LAM_NSGP = {sign}", found)
        return cls(values, sign, float(scale), (x - 1, y - 1))

    def pixel(self, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel coordinates x, y (0-based) of (lon, lat) in radians."""
        radius = self.scale * np.sqrt(1 - self.sign * np.sin(lat))
        x = radius * np.cos(lon) + self.pole[0]
        y = -self.sign * radius * np.sin(lon) + self.pole[1]
        return x, y

    @cached_property
    def coefficients(self) -> np.ndarray:
        """Coefficients of the cubic spline through the values."""
        from scipy.ndimage import spline_filter

        return spline_filter(self.values, 3, np.float32)

    def sample(self, lon: np.ndarray, lat: np.ndarray, *, nearest: bool) -> np.ndarray:
        """Values float32 at (lon, lat) in radians: of the nearest pixel, or by cubic spline.

        Bilinear interpolation would smooth: 8 % of the power at ell 1000 on pixels of 2.4′.
        """
        from scipy.ndimage import map_coordinates

        x, y = self.pixel(lon, lat)
        return map_coordinates(
            self.values if nearest else self.coefficients,
            np.stack([y, x]),
            np.float32,
            0 if nearest else 3,
            mode="mirror",  # the equator runs half a pixel outside of the image at four points
            prefilter=False,
        )


def project(folder: str | Path, nside: int, frequency_ghz: float) -> SkyMap:
    """SFD scaled to 353 GHz, µK_CMB, with the mask's bits as flags.

    Pixels are averages of samples at nside 2048, or such samples where nside is as fine.
    Flags are those of the nearest mask pixel. Raises `UserError` for another frequency and for
    missing or foreign files.
    """
    if abs(frequency_ghz - FREQUENCY_GHZ) > 0.5:
        raise UserError(
            "map.frequency_ghz", f"{FREQUENCY_GHZ:g} with source sfd98", f"{frequency_ghz:g}"
        )
    folder = Path(folder)
    dust = read_pair(folder, "dust")
    fine = max(nside, FINE_NSIDE)
    ebv = to_healpix(dust, nside, fine)
    del dust
    bits = to_healpix(read_pair(folder, "mask"), nside, nside, nearest=True).astype(np.uint8)
    return SkyMap(
        intensity=ebv * np.float32(UK_RJ_PER_MAG * rj_to_cmb(FREQUENCY_GHZ)),
        variance=None,
        bad=np.zeros(ebv.size, bool),
        frequency_ghz=FREQUENCY_GHZ,
        description="SFD scaled to 353 GHz",
        window_nside=nside if fine > nside else None,
        points_nside=fine if fine > nside else None,
        flags={name: (bits >> bit & 1).astype(bool) for name, bit in MASK_BITS.items()},
    )


def read_pair(folder: Path, kind: str) -> tuple[Hemisphere, Hemisphere]:
    """The northern and the southern file of `kind` (dust or mask) in `folder`."""
    north, south = (folder / f"SFD_{kind}_4096_{pole}.fits" for pole in ("ngp", "sgp"))
    return Hemisphere.read(north, 1), Hemisphere.read(south, -1)


def to_healpix(
    pair: tuple[Hemisphere, Hemisphere], nside: int, fine: int, *, nearest: bool = False
) -> np.ndarray:
    """HEALPix RING map (npix,) float32: averages over the samples at nside `fine`."""
    import healpy

    children = (fine // nside) ** 2
    step = max(_CHUNK // children, 1)
    nested = np.empty(12 * nside**2, np.float32)
    for start in range(0, nested.size, step):
        stop = min(start + step, nested.size)
        pixels = np.arange(start * children, stop * children)
        theta, lon = healpy.pix2ang(fine, pixels, nest=True)
        values = sample(pair, lon, np.pi / 2 - theta, nearest=nearest)
        nested[start:stop] = values.reshape(-1, children).mean(1, dtype=np.float64)
    return healpy.reorder(nested, n2r=True)


def sample(
    pair: tuple[Hemisphere, Hemisphere], lon: np.ndarray, lat: np.ndarray, *, nearest: bool = False
) -> np.ndarray:
    """Values (n,) float32 of the hemispheres at (lon, lat) in radians."""
    values = np.empty(lon.shape, np.float32)
    for hemisphere, here in zip(pair, (lat >= 0, lat < 0), strict=True):
        values[here] = hemisphere.sample(lon[here], lat[here], nearest=nearest)
    return values
