"""Settings of patches of a real map."""

from collections.abc import Mapping
from math import degrees, log, pi, radians, sin, sqrt
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from skyweave.config.base import Count, Positive, Settings, Split, check_path
from skyweave.errors import UserError

#: Least width of a beam in pixels for sources to be found by its shape.
LEAST_PIXELS = 1.4


class HealpixMap(Settings):
    """The full-sky map that patches are cut from."""

    source: Literal["sfd98", "file"] = Field(
        "sfd98",
        description="The SFD98 dust map, fetched and scaled to 353 GHz, or a HEALPix FITS file; "
        "`file` where a path is given and no source.",
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
    fwhm_arcmin: Annotated[float, Field(ge=0)] | None = Field(
        6.1,
        description="Beam of the map, FWHM in arcmin; with `file` by default that of Planck HFI, "
        "if its header says that it is of HFI.",
    )
    frequency_ghz: Positive | None = Field(
        353.0,
        description="Frequency, for the change of units; with `file` by default its header's.",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_its_file_says(cls, values: Any) -> Any:
        """A path alone is that of a file, whose header has the beam and the frequency."""
        if not isinstance(values, Mapping):
            return values
        if values.get("path") is not None:
            values = {"source": "file", **values}
        if values.get("source") == "file":
            values = {"fwhm_arcmin": None, "frequency_ghz": None, **values}
        return values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_path(self.path, self.source, "file")
        if self.nside & (self.nside - 1):
            raise ValueError(f"nside: expected a power of two, found {self.nside}")
        if self.source == "sfd98":
            for key in ("column", "unit"):
                if getattr(self, key) is not None:
                    raise ValueError(
                        f"{key}: expected `source: file` with it, found `source: sfd98`"
                    )
            if self.frequency_ghz != 353:
                found = "none" if self.frequency_ghz is None else f"{self.frequency_ghz:g}"
                raise ValueError(f"frequency_ghz: expected 353 with `source: sfd98`, found {found}")
            if self.fwhm_arcmin is None:
                raise ValueError("fwhm_arcmin: expected a beam with `source: sfd98`, found none")
        return self


class PointSources(Settings):
    """Point sources, which are taken out of the map before patches are cut from it."""

    remove: Literal["none", "find", "catalogue"] = Field(
        "none",
        description="Leave them in, take out those that are found in the map, or those of a "
        "catalogue. Holes are filled smoothly; the mask is that of the map as it was.",
    )
    path: str | None = Field(
        None,
        description="With `catalogue`: CSV or FITS table of `lon`, `lat` (or `glon`, `glat`; "
        "degrees, Galactic) and, if there is one, `radius` (arcmin).",
    )
    snr: Positive = Field(
        8.0, description="With `find`: least signal-to-noise of a source, beam by beam."
    )
    latitude_deg: Annotated[float, Field(ge=0, lt=90)] = Field(
        10.0, description="With `find`: search above this Galactic latitude only, degrees."
    )
    radius_beams: Positive = Field(
        1.5,
        description="Radius of the holes in beams of the map (FWHM); a catalogue's own counts "
        "before it.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.remove == "catalogue" and self.path is None:
            raise ValueError("path: expected a file with `remove: catalogue`, found none")
        if self.remove != "catalogue" and self.path is not None:
            raise ValueError(
                f"path: expected `remove: catalogue` with it, found `remove: {self.remove}`"
            )
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
    sources: PointSources = Field(PointSources(), description="Point sources of the map.")
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
        if self.map.fwhm_arcmin is not None:
            check_high(patches, self.map.fwhm_arcmin)
            if self.sources.remove == "find":
                check_found(self.map.nside, self.map.fwhm_arcmin)
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
            least = least_fwhm_arcmin(self.map.nside)
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


def check_high(patches: Patches, fwhm_arcmin: float, section: str = "") -> None:
    """Raise `UserError`, its key behind `section`, for patches sharper than the map's beam."""
    if patches.high_arcmin < fwhm_arcmin:
        raise UserError(
            f"{section}patches.high_arcmin",
            f"at least the map's own beam ({fwhm_arcmin:g} arcmin)",
            f"{patches.high_arcmin:g}",
        )


def check_found(nside: int, fwhm_arcmin: float, section: str = "") -> None:
    """Raise `UserError`, its key behind `section`, where sources cannot be told from pixels."""
    if fwhm_arcmin == 0:
        raise UserError(
            f"{section}map.fwhm_arcmin", "a beam above 0 with `sources.remove: find`", "0"
        )
    least = 1
    while fwhm_arcmin < LEAST_PIXELS * _pixel_arcmin(least):
        least *= 2
    if nside < least:
        raise UserError(
            f"{section}map.nside",
            f"at least {least} with `sources.remove: find` (a beam of {fwhm_arcmin:g} arcmin has "
            f"to be {LEAST_PIXELS:g} pixels wide)",
            nside,
        )


def _pixel_arcmin(nside: int) -> float:
    """Side of a square as large as a HEALPix pixel."""
    return 60 * degrees(sqrt(pi / 3)) / nside


def least_fwhm_arcmin(nside: int) -> float:
    """Beam that has fallen to a tenth at the band limit 3 nside - 1 of HEALPix maps."""
    return degrees(4 * sqrt(log(2) * log(10)) / (3 * nside - 1)) * 60
