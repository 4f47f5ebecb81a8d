"""Settings of maps that were made elsewhere: a dataset of them, and networks' predictions."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from skyweave.config.base import Count, Name, Positive, Settings, Split, distinct
from skyweave.config.cmb import Grid, NotNegative

#: How Q and U of a file are meant, on maps whose rows run along y and columns along x.
Convention = Literal["flat", "iau", "cosmo", "mirrored"]

#: Arrays of the published ResUNet-CMB data pipeline, by the fields that they are.
PUBLISHED = {
    "q_obs": "q_len",
    "u_obs": "u_len",
    "e_prim": "e_unl",
    "tau": "tru_tau",
    "kappa": "tru_kappa",
}

_FIELD = re.compile(r"[tqueb]_[A-Za-z][A-Za-z0-9_-]*|(kappa|tau|alpha)(_[A-Za-z]\w*)?")


def _known(fields: dict[str, str]) -> dict[str, str]:
    if not fields:
        raise ValueError("expected at least one field, found none")
    for field in fields:
        if not _FIELD.fullmatch(field):
            raise ValueError(
                f"expected fields such as q_obs, u_obs, e_prim, kappa, tau, alpha, found {field!r}"
            )
    distinct(tuple(fields.values()))
    return fields


def _listed(paths: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if not isinstance(paths, str):
        if not paths:
            raise ValueError("expected at least one file, found none")
        distinct(paths)
    return paths


class ImportedDataset(Settings):
    """Patches that were simulated elsewhere."""

    kind: Literal["imported"] = Field(description="Maps made elsewhere.")
    path: Annotated[str | tuple[str, ...], AfterValidator(_listed)] = Field(
        description="An .npz or HDF5 file of arrays (n, y, x), or a list of them, whose maps are "
        "taken one file after the other. An .npz that is not compressed is read fastest."
    )
    fields: Annotated[dict[str, str], AfterValidator(_known)] = Field(
        PUBLISHED,
        description="Array of the file by the field that it is: t, q, u, e and b of a channel or "
        "of the primordial sky, as `q_obs`, `e_prim`, µK; `kappa`, `tau`; `alpha`, radians. By "
        "default as the data pipeline of ResUNet-CMB names them; an array that has a field's own "
        "name will do, too.",
    )
    convention: Literal["auto", "flat", "iau", "cosmo", "mirrored"] = Field(
        "auto",
        description="How Q and U are meant: `flat`, angles from +x (along a row) towards +y (the "
        "next row), as here; `iau` or `cosmo`, rows going north and columns against east; "
        "`mirrored`, as `flat` with the other sign of U. `auto`: the one whose E goes with "
        "`e_prim`, where the dataset has that, else `flat`.",
    )
    size_deg: Annotated[float, Field(gt=0, le=40)] = Field(
        5.0, description="Side of a patch, degrees."
    )
    pixels: Annotated[int, Field(ge=16, multiple_of=4)] | None = Field(
        None, description="Pixels a side; null: those of the files."
    )
    taper_deg: NotNegative = Field(
        1.5, description="Width of the cosine taper that the maps carry, degrees; 0 for none."
    )
    realizations: Annotated[int, Field(ge=10)] | None = Field(
        None, description="Patches to take, from the first on; null: all that there are."
    )
    shard_size: Count = Field(1000, description="Realizations a file (and a job) here.")
    split: Split = Field(Split(), description="Shares for training, validation and test.")

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, in order."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def grid(self) -> Grid:
        """Geometry of the patches, once their pixels are known."""
        if self.pixels is None:
            raise ValueError("Expected a dataset with `pixels`. Received: one not yet read")
        return Grid(size_deg=self.size_deg, pixels=self.pixels)

    @property
    def shards(self) -> list[range]:
        """The realizations of each shard, once their number is known."""
        if self.realizations is None:
            raise ValueError("Expected a dataset with `realizations`. Received: one not yet read")
        starts = range(0, self.realizations, self.shard_size)
        return [range(at, min(at + self.shard_size, self.realizations)) for at in starts]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if 2 * self.taper_deg > self.size_deg:
            raise ValueError(
                f"taper_deg: expected at most half of size_deg ({self.size_deg / 2:g}), "
                f"found {self.taper_deg:g}"
            )
        return self


class Prediction(Settings):
    """A trained network's view of the user's own maps."""

    run: Name = Field(
        description="Name of the reconstruction run whose network it is, with `mask` of the "
        "inpainting run."
    )
    path: str = Field(
        description="The maps: FITS with a WCS, .npz or HDF5 with the network's inputs (`q_obs` or "
        "`q`, …) as arrays (y, x) or (n, y, x), or a HEALPix FITS file of Q and U. With `mask` a "
        "HEALPix FITS file of the run's fields."
    )
    mask: str | None = Field(
        None,
        description="Of an inpainting run, and only of one: a HEALPix FITS file, 0 in the holes "
        "that are to be filled, of any nside, in Galactic coordinates as the map.",
    )
    tapered: bool = Field(
        False, description="The maps carry the network's taper already; else they get it."
    )
    unit: str | None = Field(
        None,
        description="Unit of the maps (K_CMB, uK, …), where the file says none or a wrong one.",
    )
    convention: Convention | None = Field(
        None,
        description="How Q and U are meant, where the file says nothing or something wrong: `flat` "
        "(what arrays are by default), `iau`, `cosmo` or `mirrored`, as of imported datasets.",
    )
    pixel_arcmin: Positive | None = Field(
        None, description="Side of a pixel, arcmin, where the file says none or a wrong one."
    )
    format: Literal["fits", "h5", "npz"] = Field(
        "fits", description="Of the file of predictions; of a HEALPix map `fits` alone."
    )

    @model_validator(mode="after")
    def _mask_with_a_map_of_the_sky(self) -> Self:
        flat = {"tapered": False, "convention": None, "pixel_arcmin": None, "format": "fits"}
        given = [key for key, default in flat.items() if getattr(self, key) != default]
        if self.mask is not None and given:
            key = given[0]
            raise ValueError(
                f"{key}: expected none beside `mask`, which belongs to HEALPix maps as they are, "
                f"found {getattr(self, key)!r}"
            )
        return self
