"""The settings of a study: one model a section, the only source of names, types and defaults.

The JSON schema, the commented default file and the reference page are generated from here.
"""

from collections.abc import Mapping
from math import degrees, log, pi, radians, sin, sqrt
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: Fields that a simulated CMB dataset can hold, with the effect that each needs.
CMB_FIELDS: dict[str, str | None] = {
    "t_prim": None,
    "q_prim": None,
    "u_prim": None,
    "e_prim": None,
    "t_obs": None,
    "q_obs": None,
    "u_obs": None,
    "e_obs": None,
    "b_obs": None,
    "kappa": "lensing",
    "tau": "reionization",
}


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise ValueError(f"expected each field once, found {twice!r} twice")
    return values


def _empty_for_none(value: Any) -> Any:
    """`runs:` with nothing behind it is no runs."""
    return {} if value is None else value


def _check_path(path: str | None, source: str, own: str) -> None:
    """A path belongs to the source that reads one."""
    if source == own and path is None:
        raise ValueError(f"path: expected a file with `source: {own}`, found none")
    if source != own and path is not None:
        raise ValueError(f"path: expected `source: {own}` with it, found `source: {source}`")


def _cmb_fields(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in _distinct(values):
        if value not in CMB_FIELDS:
            raise ValueError(f"expected some of {', '.join(CMB_FIELDS)}, found {value!r}")
    return values


Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Fields = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class Settings(BaseModel):
    """Base of all sections: unknown keys are errors, and a section never changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, values: Any) -> Any:
        """Refuse what pydantic would turn into a number, but for ``1e-3``, text in YAML."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            kind = cls.model_fields[name].annotation if name in cls.model_fields else None
            if (kind in (int, float) and isinstance(value, bool)) or (
                kind is int and isinstance(value, str)
            ):
                wanted = "integer" if kind is int else "number"
                raise ValueError(f"{name}: expected {wanted}, found {value!r}")
        return values


class Cosmology(Settings):
    """Parameters of a flat LCDM model, as CAMB names them."""

    H0: Positive = Field(67.36, description="Hubble constant, km/s/Mpc.")
    ombh2: Positive = Field(0.02237, description="Baryon density.")
    omch2: Positive = Field(0.1200, description="Cold dark matter density.")
    omnuh2: Annotated[float, Field(ge=0)] = Field(
        0.000644, description="Density of massive neutrinos (one eigenstate)."
    )
    tau: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0544, description="Mean optical depth to reionization."
    )
    ns: Positive = Field(0.9649, description="Scalar spectral index.")
    As: Positive = Field(2.1e-9, description="Scalar amplitude at 0.05/Mpc.")
    r: Annotated[float, Field(ge=0)] = Field(0.0, description="Tensor-to-scalar ratio.")
    YHe: Fraction = Field(0.2454, description="Helium mass fraction.")
    TCMB: Positive = Field(2.7255, description="Temperature of the background, K.")


class Spectra(Settings):
    """Where the angular power spectra come from."""

    source: Literal["camb", "table"] = Field(
        "camb", description="Compute with CAMB, or read a table file."
    )
    cosmology: Literal["planck2018", "resunet_cmb_2013"] | Cosmology = Field(
        "planck2018",
        description="Named parameter set (`planck2018`: Planck 2018 TT,TE,EE+lowE+lensing; "
        "`resunet_cmb_2013`: the Planck+WP+highL set of the ResUNet-CMB paper), or the "
        "parameters themselves.",
    )
    path: str | None = Field(
        None,
        description="With `table`: text columns `ell dl_tt dl_ee dl_bb dl_te dl_kk` (µK², "
        "D_ell = ell(ell+1)C_ell/2pi), named in the first line.",
    )
    tau_path: str | None = Field(
        None,
        description="Table `ell dl_tau` of patchy optical depth; by default the table of the "
        "ResUNet-CMB paper.",
    )
    lmax: Annotated[int, Field(ge=100, le=30000)] = Field(
        8000, description="Highest multipole; the grid's Nyquist multipole must lie below."
    )

    @model_validator(mode="after")
    def _path_with_table(self) -> Self:
        _check_path(self.path, self.source, "table")
        return self


class Grid(Settings):
    """Geometry of a flat square patch."""

    size_deg: Annotated[float, Field(gt=0, le=40)] = Field(5.0, description="Side, degrees.")
    pixels: Annotated[int, Field(ge=16, multiple_of=4)] = Field(
        128, description="Pixels a side; the network halves them twice."
    )
    oversample: Annotated[int, Field(ge=1, le=8)] = Field(
        1,
        description="How many times finer the grid is while screen, lensing and beam act; 1 is "
        "the published way. Lensing by spline loses power near the Nyquist multipole of that "
        "grid: 1 % at two thirds of it.",
    )

    @property
    def pixel_arcmin(self) -> float:
        """Side of a pixel in arcminutes."""
        return 60 * self.size_deg / self.pixels


class Effects(Settings):
    """What happens to the primordial sky before it is observed, in this order."""

    reionization: bool = Field(True, description="Screen by patchy reionization, exp(-tau).")
    lensing: bool = Field(True, description="Displace by the gradient of the lensing potential.")
    null_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Share of realizations whose tau and kappa are zero."
    )
    beam_arcmin: Annotated[float, Field(ge=0)] = Field(
        0.0, description="FWHM of the Gaussian beam, arcmin; 0 for none."
    )
    noise_uk_arcmin: Annotated[float, Field(ge=0)] = Field(
        0.0, description="White noise in T, µK-arcmin; sqrt(2) times that in Q and U."
    )
    taper_deg: Annotated[float, Field(ge=0)] = Field(
        1.5, description="Width of the cosine taper at each edge, degrees; 0 for none."
    )


class Split(Settings):
    """Shares of the dataset for training, validation and test."""

    train: Fraction = Field(0.8, description="Share to train on.")
    validation: Fraction = Field(0.1, description="Share to steer the training by.")
    test: Fraction = Field(0.1, description="Share to judge on, never seen before.")

    @model_validator(mode="after")
    def _adds_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"expected shares that add to 1, found {total:g}")
        return self


class CmbDataset(Settings):
    """Simulated patches of the CMB."""

    kind: Literal["cmb"] = Field(description="Simulated CMB.")
    spectra: Spectra = Field(Spectra(), description="Angular power spectra to draw from.")
    grid: Grid = Field(Grid(), description="Geometry of the patches.")
    effects: Effects = Field(Effects(), description="From the primordial to the observed sky.")
    fields: Annotated[Fields, AfterValidator(_cmb_fields)] = Field(
        ("q_obs", "u_obs", "e_obs", "b_obs", "e_prim", "tau", "kappa"),
        description=f"Fields to keep, of {', '.join(CMB_FIELDS)}; `_prim` primordial, `_obs` "
        "observed, in µK (`kappa` and `tau` dimensionless).",
    )
    realizations: Annotated[int, Field(ge=10)] = Field(1000, description="Number of patches.")
    shard_size: Count = Field(
        1000,
        description="Realizations a file (and a job); adding realizations leaves full files alone.",
    )
    split: Split = Field(Split(), description="Shares for training, validation and test.")

    @property
    def shards(self) -> list[range]:
        """The realizations of each shard."""
        starts = range(0, self.realizations, self.shard_size)
        return [range(at, min(at + self.shard_size, self.realizations)) for at in starts]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        effects, grid = self.effects, self.grid
        for field in self.fields:
            effect = CMB_FIELDS[field]
            if effect and not getattr(effects, effect):
                raise ValueError(
                    f"fields: expected `effects.{effect}: true` for {field!r}, found false"
                )
        if 0 < effects.beam_arcmin < grid.pixel_arcmin / 2:
            raise ValueError(
                "effects.beam_arcmin: expected 0 or at least half a pixel "
                f"({grid.pixel_arcmin / 2:.4g} arcmin: the grid's Nyquist multipole lies below the "
                f"beam's), found {effects.beam_arcmin:g}"
            )
        if 2 * effects.taper_deg > grid.size_deg:
            raise ValueError(
                "effects.taper_deg: expected at most half of grid.size_deg "
                f"({grid.size_deg / 2:g}), found {effects.taper_deg:g}"
            )
        nyquist = 180 * 60 / grid.pixel_arcmin
        if nyquist > self.spectra.lmax:
            raise ValueError(
                f"spectra.lmax: expected at least the grid's Nyquist multipole ({nyquist:.0f}), "
                f"found {self.spectra.lmax}"
            )
        return self


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
        _check_path(self.path, self.source, "file")
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


class Network(Settings):
    """The network and its size."""

    name: Literal["resunet_cmb"] = Field("resunet_cmb", description="Architecture.")
    width: Annotated[float, Field(ge=0.01, le=16)] = Field(
        1.0, description="Factor on the number of channels; 1 is the published network."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.3, description="Dropout rate.")


class Training(Settings):
    """Supervised training with Adam on the mean squared error."""

    epochs: Count = Field(500, description="Most passes over the training set.")
    batch: Count = Field(32, description="Patches a step.")
    learning_rate: Positive = Field(0.001, description="Adam's learning rate at the start.")
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Factor on the learning rate when the validation loss stands still."
    )
    plateau_patience: Count = Field(3, description="Epochs without a gain before that.")
    stop_patience: Count = Field(10, description="Epochs without a gain before training stops.")
    save_minutes: Positive = Field(
        5.0, description="Longest time between saved states (one is always saved a pass)."
    )


class ReconstructionRun(Settings):
    """A network that reconstructs sky fields from observed ones, and its judgement."""

    task: Literal["reconstruction"] = Field(
        "reconstruction", description="Reconstruct fields from observed ones."
    )
    dataset: Name = Field(description="Name of the dataset to train on.")
    inputs: Fields = Field(("q_obs", "u_obs"), description="Fields in.")
    targets: Fields = Field(("tau", "e_prim", "kappa"), description="Fields out.")
    network: Network = Field(Network(), description="The network and its size.")
    training: Training = Field(Training(), description="How to train it.")


Dataset = Annotated[CmbDataset | SkyDataset, Field(discriminator="kind")]


class Config(Settings):
    """A study: datasets, and runs on them."""

    seed: Annotated[int, Field(ge=0)] = Field(2026, description="Root of all random numbers.")
    datasets: dict[Name, Dataset] = Field(
        min_length=1, description="Sets of simulated realizations or of patches of a real map."
    )
    runs: Annotated[dict[Name, ReconstructionRun], BeforeValidator(_empty_for_none)] = Field(
        default_factory=dict, description="Networks trained on a dataset and judged."
    )
    pathvars: dict[str, str] = Field(
        default_factory=dict,
        description="Other folders for `results`, `data`, `logs` or `benchmarks`, by these names.",
    )

    @model_validator(mode="after")
    def _runs_fit_datasets(self) -> Self:
        for name, run in self.runs.items():
            where = f"runs.{name}"
            dataset = self.datasets.get(run.dataset)
            if dataset is None:
                known = ", ".join(sorted(self.datasets))
                raise ValueError(f"{where}.dataset: expected one of {known}, found {run.dataset!r}")
            if not isinstance(dataset, CmbDataset):
                raise ValueError(
                    f"{where}.dataset: expected a dataset of kind cmb, found {dataset.kind!r}"
                )
            for role in ("inputs", "targets"):
                for field in getattr(run, role):
                    if field not in dataset.fields:
                        known = ", ".join(dataset.fields)
                        raise ValueError(
                            f"{where}.{role}: expected fields of dataset {run.dataset!r} "
                            f"({known}), found {field!r}"
                        )
            both = set(run.inputs) & set(run.targets)
            if both:
                raise ValueError(
                    f"{where}.targets: expected no field that is also an input, found {min(both)!r}"
                )
            split = dataset.split
            parts = [
                int(share * dataset.realizations + 1e-9)
                for share in (split.train, split.validation, split.test)
            ]
            if parts[0] < run.training.batch:
                raise ValueError(
                    f"{where}.training.batch: expected at most the training set's {parts[0]}, "
                    f"found {run.training.batch}"
                )
            if min(parts) < 1:
                raise ValueError(
                    f"datasets.{run.dataset}.split: expected at least one realization in each "
                    f"part of {dataset.realizations}, found none"
                )
        return self
