"""Settings of patches of a real map."""

from math import degrees, log, pi, radians, sin, sqrt
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from skyweave.config.base import Count, Positive, Settings, Split, check_path


class HealpixMap(Settings):
    """The full-sky map that patches are cut from."""

    source: Literal["sfd98", "file"] = Field(
        "sfd98",
        description="The SFD98 dust map, fetched and scaled to 353 GHz, or a HEALPix FITS file.",
    )
    path: str | None = Field(None, description="With `file`: the HEALPix FITS file.")
    column: str | None = Field(
        None, description="Column of the intensity, where the usual names do not find it."
    )
    unit: str | None = Field(
        None, description="Unit of the file (K_CMB, uK_RJ, MJy/sr, …), where its header has none."
    )
    nside: Annotated[int, Field(ge=16, le=8192)] = Field(
        512, description="Resolution to work at (a power of two)."
    )
    fwhm_arcmin: Annotated[float, Field(ge=0)] = Field(
        6.1, description="Beam of the map, FWHM in arcmin; to be given with `file`."
    )
    frequency_ghz: Positive = Field(
        353.0, description="Frequency, for the change of units; to be given with `file`."
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_path(self.path, self.source, "file")
        if self.nside & (self.nside - 1):
            raise ValueError(f"nside: expected a power of two, found {self.nside}")
        if self.source == "file":
            for key in ("fwhm_arcmin", "frequency_ghz"):
                if key not in self.model_fields_set:
                    raise ValueError(
                        f"{key}: expected that of the map with `source: file`, found none"
                    )
        else:
            for key in ("column", "unit"):
                if getattr(self, key) is not None:
                    raise ValueError(
                        f"{key}: expected `source: file` with it, found `source: sfd98`"
                    )
            if self.frequency_ghz != 353:
                found = f"{self.frequency_ghz:g}"
                raise ValueError(f"frequency_ghz: expected 353 with `source: sfd98`, found {found}")
        return self


class Mask(Settings):
    """Planck-like mask: where the dust is measured well, away from the Galactic plane."""

    snr: Positive = Field(
        8.0,
        description="Least signal-to-noise of a pixel at the map's working `nside`, where the map "
        "has variances.",
    )
    smooth_deg: Annotated[float, Field(ge=0)] = Field(
        1.0, description="FWHM that the binary mask is smoothed with, degrees."
    )
    threshold: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="Keep where the smoothed mask exceeds this."
    )
    latitude_deg: Annotated[float, Field(ge=0, lt=90)] = Field(
        10.0, description="Cut below this Galactic latitude, degrees."
    )


class Patches(Settings):
    """Square patches on the zenithal equal-area projection."""

    count: Count = Field(60, description="Number of patches, at least 10.")
    size_deg: Annotated[float, Field(gt=0, le=40)] = Field(20.0, description="Side, degrees.")
    pixels: Annotated[int, Field(ge=16, multiple_of=4)] = Field(320, description="Pixels a side.")
    low_arcmin: Positive = Field(80.0, description="FWHM of the low-resolution patches.")
    high_arcmin: Positive = Field(12.0, description="FWHM of the high-resolution patches.")
    inside: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="Least share of a patch inside the mask."
    )

    @property
    def pixel_arcmin(self) -> float:
        """Side of a pixel in arcminutes."""
        return 60 * self.size_deg / self.pixels


class SkyDataset(Settings):
    """Patches of a real map of the sky."""

    kind: Literal["sky"] = Field(description="A real map.")
    map: HealpixMap = Field(HealpixMap(), description="The full-sky map.")
    mask: Mask = Field(Mask(), description="Where the map is good enough.")
    patches: Patches = Field(Patches(), description="Geometry and places of the patches.")
    split: Split = Field(Split(), description="Shares for training, validation and test.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        patches = self.patches
        if patches.count < 10:
            raise ValueError(f"patches.count: expected at least 10, found {patches.count}")
        if patches.high_arcmin >= patches.low_arcmin:
            raise ValueError(
                f"patches.high_arcmin: expected less than low_arcmin ({patches.low_arcmin:g}), "
                f"found {patches.high_arcmin:g}"
            )
        if patches.high_arcmin < self.map.fwhm_arcmin:
            raise ValueError(
                "patches.high_arcmin: expected at least the map's own beam "
                f"({self.map.fwhm_arcmin:g} arcmin), found {patches.high_arcmin:g}"
            )
        if 2 * patches.pixel_arcmin > patches.high_arcmin:
            raise ValueError(
                "patches.pixels: expected two pixels a beam "
                f"(at least {120 * patches.size_deg / patches.high_arcmin:.0f}: the Nyquist "
                f"multipole lies below the beam's), found {patches.pixels}"
            )
        for key, fwhm in (
            ("patches.high_arcmin", patches.high_arcmin),
            ("mask.smooth_deg", 60 * self.mask.smooth_deg),
        ):
            least = _least_fwhm_arcmin(self.map.nside)
            if 0 < fwhm < least:
                unit, scale = ("deg", 60) if key.endswith("deg") else ("arcmin", 1)
                raise ValueError(
                    f"{key}: expected at least {least / scale:.3g} {unit} at map.nside "
                    f"{self.map.nside} (its band limit lies below the beam's), "
                    f"found {fwhm / scale:g}"
                )
        cap = 2 * pi * (180 / pi) ** 2 * (1 - sin(radians(self.mask.latitude_deg)))
        if patches.size_deg**2 * patches.inside > cap:
            raise ValueError(
                "patches.size_deg: expected a patch smaller than the sky that the latitude cut "
                f"leaves on one side ({cap:.0f} square degrees), found {patches.size_deg:g}"
            )
        return self


def _least_fwhm_arcmin(nside: int) -> float:
    """Beam that has fallen to a tenth at the band limit 3 nside - 1 of HEALPix maps."""
    return degrees(4 * sqrt(log(2) * log(10)) / (3 * nside - 1)) * 60
