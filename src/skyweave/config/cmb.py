"""Settings of simulated patches of the CMB."""

import math
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from skyweave.config.base import (
    Count,
    Fields,
    Fraction,
    Name,
    Number,
    Positive,
    Settings,
    Split,
    check_path,
    distinct,
)
from skyweave.errors import UserError

#: Fields of the primordial sky.
PRIMORDIAL = ("t_prim", "q_prim", "u_prim", "e_prim")

#: E and B of the whole area, of the primordial sky and of the one that is observed.
PURE = ("e_pure", "b_pure", "e_sky", "b_sky")

#: Fields of what lies between, with the property of `Effects` that each needs.
STRUCTURE: dict[str, str | None] = {"kappa": "lensing", "tau": "reionization", "alpha": "rotates"}

#: Frequencies of Planck's High Frequency Instrument, GHz.
HFI_GHZ = (100, 143, 217, 353, 545, 857)


NotNegative = Annotated[float, Field(ge=0)]


class Cosmology(Settings):
    """Parameters of a flat LCDM model, as CAMB names them."""

    H0: Positive = Field(67.36, description="Hubble constant, km/s/Mpc.")
    ombh2: Positive = Field(0.02237, description="Baryon density.")
    omch2: Positive = Field(0.1200, description="Cold dark matter density.")
    omnuh2: NotNegative = Field(
        0.000644, description="Density of massive neutrinos (one eigenstate)."
    )
    tau: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0544, description="Mean optical depth to reionization."
    )
    ns: Positive = Field(0.9649, description="Scalar spectral index.")
    As: Positive = Field(2.1e-9, description="Scalar amplitude at 0.05/Mpc.")
    r: NotNegative = Field(0.0, description="Tensor-to-scalar ratio.")
    YHe: Fraction = Field(0.2454, description="Helium mass fraction.")
    TCMB: Positive = Field(2.7255, description="Temperature of the background, K.")
    Alens: NotNegative = Field(
        1.0, description="Factor on the power of lensing; 1 is what the other parameters imply."
    )
    halofit_version: Literal["mead2020", "takahashi"] = Field(
        "mead2020", description="Model of the non-linear matter power."
    )


#: Parameters that may differ between realizations.
VARIABLE = tuple(name for name in Cosmology.model_fields if name != "halofit_version")


class Range(Settings):
    """Interval of a parameter, every value in it equally likely."""

    low: float = Field(description="Lower end.")
    high: float = Field(description="Upper end.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"high: expected more than low ({self.low:g}), found {self.high:g}")
        return self


#: A parameter's classes, or its interval.
Distribution = Annotated[tuple[Number, ...], Field(min_length=1), AfterValidator(distinct)] | Range


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
    vary: dict[str, Distribution] = Field(
        default_factory=dict,
        description="Parameters that differ between realizations: classes, `ns: [0.9, 0.95, 1]`, "
        "or an interval, `r: {low: 0, high: 0.1}`. The shards hold each realization's values.",
    )
    points: Annotated[int, Field(ge=1, le=10000)] = Field(
        64,
        description="Sets of parameters to draw, where `vary` has an interval (a Latin hypercube); "
        "classes alone are combined, each with each. CAMB runs once for a set.",
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
    def _possible(self) -> Self:
        check_path(self.path, self.source, "table")
        for name in self.vary:
            if name not in VARIABLE:
                raise ValueError(f"vary: expected some of {', '.join(VARIABLE)}, found {name!r}")
        if self.vary and self.source != "camb":
            raise ValueError(f"vary: expected `source: camb` with it, found {self.source!r}")
        for name, values in self.vary.items():
            _check_values(name, (values.low, values.high) if isinstance(values, Range) else values)
        return self


def _check_values(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        try:
            Cosmology.model_validate({name: value})
        except ValidationError as error:
            expected = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise ValueError(f"vary.{name}: expected {expected}, found {value:g}") from None


class Grid(Settings):
    """Geometry of a patch."""

    size_deg: Annotated[float, Field(gt=0, le=40)] = Field(5.0, description="Side, degrees.")
    pixels: Annotated[int, Field(ge=16, multiple_of=4)] = Field(
        128, description="Pixels a side; the network halves them twice."
    )
    sky: Literal["flat", "curved"] = Field(
        "flat",
        description="Simulate a flat, periodic area, or cut patches from full lensed skies.",
    )
    margin_deg: NotNegative = Field(
        0.0,
        description="Width of what is simulated around the patch and cut off, degrees. 0 on a "
        "flat sky is the published way: the patch is periodic, its opposite edges alike.",
    )
    oversample: Annotated[int, Field(ge=1, le=8)] = Field(
        1,
        description="How many times finer the grid of a flat sky is while screen, lensing and "
        "beam act. With 1, the published way, what lensing makes of waves near the pixels' Nyquist "
        "multipole folds back, which shows in B first.",
    )
    patches_per_sky: Annotated[int, Field(ge=1, le=3072)] = Field(
        192, description="With `sky: curved`: patches cut from each sky, evenly spread."
    )
    # Left out where it is 1: files and jobs of before there were crops stay what they are.
    crops: Count = Field(
        1,
        exclude_if=lambda crops: crops == 1,
        description="With `sky: flat`: patches cut at drawn places from each simulated area, of "
        "`size_deg` and twice `margin_deg`; they stay in one part of the split.",
    )

    @property
    def pixel_arcmin(self) -> float:
        """Side of a pixel in arcminutes."""
        return 60 * self.size_deg / self.pixels

    @property
    def margin(self) -> int:
        """Pixels simulated beyond each edge: those of `margin_deg`, rounded up to 4."""
        # 1e-9: a margin of whole pixels is not to gain some by the division's rounding.
        return 4 * -int(-(self.margin_deg * self.pixels / self.size_deg / 4 - 1e-9) // 1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.sky == "curved" and self.oversample > 1:
            raise ValueError(
                "oversample: expected 1 with `sky: curved`, whose lensing does not interpolate, "
                f"found {self.oversample}"
            )
        if self.crops > 1 and self.sky == "curved":
            raise ValueError(
                f"crops: expected 1 with `sky: curved` (see patches_per_sky), found {self.crops}"
            )
        if self.crops > 1 and self.margin == 0:
            raise ValueError(
                f"margin_deg: expected more than 0 for {self.crops} crops of an area, found 0"
            )
        if self.size_deg + 2 * self.margin_deg > 40:
            raise ValueError(
                f"margin_deg: expected at most {(40 - self.size_deg) / 2:g} (40 degrees with the "
                f"patch), found {self.margin_deg:g}"
            )
        return self


class Effects(Settings):
    """What happens to the primordial sky on its way, in this order."""

    rotation_deg: float = Field(
        0.0, description="Constant angle by which polarization turns, degrees, from +x towards +y."
    )
    rotation_amplitude: NotNegative = Field(
        0.0,
        description="Power of the angle's field, ell(ell+1)C_ell/2pi in rad², the same at every "
        "multipole (scale-invariant).",
    )
    reionization: bool = Field(True, description="Screen by patchy reionization, exp(-tau).")
    lensing: bool = Field(True, description="Displace by the gradient of the lensing potential.")
    null_fraction: Fraction = Field(
        0.2,
        description="Share of realizations without rotation, tau and kappa; a dataset to test on "
        "may have nothing else.",
    )
    taper_deg: NotNegative = Field(
        1.5, description="Width of the cosine taper at each edge, degrees; 0 for none."
    )

    @property
    def rotates(self) -> bool:
        """Whether polarization is rotated at all."""
        return self.rotation_deg != 0 or self.rotation_amplitude > 0


class Channel(Settings):
    """A frequency channel: foregrounds that were left in, its beam, then its noise."""

    beam_arcmin: NotNegative = Field(
        0.0, description="FWHM of a Gaussian beam, arcmin; 0 for none."
    )
    beam_path: str | None = Field(
        None, description="Text table `ell b_ell` of the beam's window, instead."
    )
    beam_hfi_ghz: int | None = Field(
        None,
        description="Effective beam of this channel of Planck HFI (instrument model of 2013), "
        f"instead: {', '.join(map(str, HFI_GHZ))}.",
    )
    noise_uk_arcmin: NotNegative = Field(
        0.0, description="White noise in T, µK-arcmin; sqrt(2) times that in Q and U."
    )
    knee_ell: NotNegative = Field(
        0.0, description="Multipole below which T has more 1/f than white noise; 0 for white."
    )
    knee_slope: Positive = Field(
        3.5, description="Slope of that: N_ell is white times 1 + (knee_ell/ell)^slope."
    )
    knee_ell_pol: NotNegative = Field(0.0, description="The same of Q and U.")
    knee_slope_pol: Positive = Field(1.4, description="The same of Q and U.")
    hits_path: str | None = Field(
        None,
        description="Map of hits on the patch (FITS image or .npy, y by x), or with `grid.crops` "
        "on the area that they are cut from: the noise of a pixel goes with hits^-1/2, "
        "`noise_uk_arcmin` at their mean.",
    )
    foreground_dl_80: NotNegative = Field(
        0.0,
        description="Gaussian residuals of foregrounds in Q and U, in front of all that acts on "
        "the CMB and independent of other channels': ell(ell+1)C_ell/2pi at ell 80 of E and of B "
        "each, µK²; 0 for none.",
    )
    foreground_slope: float = Field(
        -0.42,
        description="Slope of that ell(ell+1)C_ell/2pi with ell; by default that of Planck's dust "
        "(arXiv:1409.5738).",
    )

    @property
    def has_beam(self) -> bool:
        """Whether the channel smooths the sky."""
        return self.beam_arcmin > 0 or bool(self.beam_path or self.beam_hfi_ghz)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        beams = {"beam_arcmin": self.beam_arcmin, "beam_path": self.beam_path}
        beams["beam_hfi_ghz"] = self.beam_hfi_ghz
        given = [name for name, value in beams.items() if value]
        if len(given) > 1:
            raise ValueError(f"{given[1]}: expected one beam, found {given[0]} too")
        if self.beam_hfi_ghz is not None and self.beam_hfi_ghz not in HFI_GHZ:
            raise ValueError(
                f"beam_hfi_ghz: expected one of {', '.join(map(str, HFI_GHZ))}, "
                f"found {self.beam_hfi_ghz}"
            )
        return self


def known_fields(channels: Iterable[str]) -> dict[str, str | None]:
    """Every field of a dataset with these channels, with the property of `Effects` it needs."""
    observed = (f"{stokes}_{name}" for name in channels for stokes in "tqueb")
    return dict.fromkeys((*PRIMORDIAL, *PURE, *observed)) | STRUCTURE


def check_fields(fields: Iterable[str], effects: Effects, channels: Iterable[str]) -> None:
    """Raise `UserError` for a field that there is not, or not without an effect."""
    known = known_fields(channels)
    for field in fields:
        if field not in known:
            raise UserError("fields", f"some of {', '.join(known)}", repr(field))
        effect = known[field]
        if effect == "rotates" and not effects.rotates:
            raise UserError("fields", "a rotation in `effects` for 'alpha'", "none")
        if effect and not getattr(effects, effect):
            raise UserError("fields", f"`effects.{effect}: true` for {field!r}", "false")


#: Estimates of fields that a dataset with Q and U may have besides those it keeps.
ESTIMATES = (
    *("e_wiener", "b_wiener", "kappa_quadratic", "tau_quadratic", "alpha_quadratic"),
    *("e_iterative", "b_iterative", "kappa_iterative", "tau_iterative", "alpha_iterative"),
)


class Estimates(Settings):
    """Classical estimates from Q and U, which networks are compared with and may start from.

    Not there for a dataset without `e_prim` or Q and U of a channel, with a constant rotation, or
    with fewer than 16 realizations to calibrate on.
    """

    enabled: bool = Field(True, description="Make them where they are possible.")
    channel: Name | None = Field(
        None, description="Channel whose Q and U they are made from; null: the first that has both."
    )
    ell: tuple[NotNegative, NotNegative] = Field(
        (30.0, 6000.0),
        description="Lowest and highest multipole of E and B that quadratic estimators use, as far "
        "as the pixels reach.",
    )
    iterations: Annotated[int, Field(ge=1, le=100)] = Field(
        6,
        description="Times that lensing is taken back and estimated anew, for `kappa_iterative` "
        "and the others. The less noise there is, the longer it pays.",
    )
    calibration: Annotated[int, Field(ge=8)] = Field(
        256, description="Most realizations of the training set that these are calibrated on."
    )


class CmbDataset(Settings):
    """Simulated patches of the CMB."""

    kind: Literal["cmb"] = Field(description="Simulated CMB.")
    spectra: Spectra = Field(Spectra(), description="Angular power spectra to draw from.")
    grid: Grid = Field(Grid(), description="Geometry of the patches.")
    effects: Effects = Field(Effects(), description="From the primordial to the observed sky.")
    channels: Annotated[dict[Name, Channel], Field(min_length=1)] = Field(
        {"obs": Channel()},
        description="Frequency channels that observe the same sky, by the name that ends their "
        "fields' names: `f143` gives `q_f143`.",
    )
    fields: Fields = Field(
        ("q_obs", "u_obs", "e_obs", "b_obs", "e_prim", "tau", "kappa"),
        description="Fields to keep: t, q, u, e and b of a channel, as `q_obs`, and t, q, u and e "
        "of the primordial sky, as `q_prim`, µK; `kappa` and `tau`, dimensionless; `alpha`, the "
        "angle of rotation, radians. `e_pure` and `b_pure` of the primordial sky, `e_sky` and "
        "`b_sky` of the one that is observed, without beam and noise, are E and B of the whole "
        "flat area, made before the taper: nothing of E leaks into B, as it does where Q and U "
        "are tapered first (`b_obs`).",
    )
    realizations: Annotated[int, Field(ge=10)] = Field(1000, description="Number of patches.")
    shard_size: Count = Field(
        1000,
        description="Realizations a file (and a job); adding realizations leaves full files alone.",
    )
    split: Split = Field(Split(), description="Shares for training, validation and test.")
    estimates: Estimates = Field(Estimates(), description="Classical estimates of its fields.")

    @property
    def estimated_from(self) -> str | None:
        """The channel that estimates are made from; None where they cannot or shall not be."""
        both = [c for c in self.channels if {f"q_{c}", f"u_{c}"} <= set(self.fields)]
        live = self.split.train * self.realizations * (1 - self.effects.null_fraction)
        possible = "e_prim" in self.fields and self.effects.rotation_deg == 0 and live >= 16
        if not (possible and self.estimates.enabled):
            return None
        return self.estimates.channel or next(iter(both), None)

    @property
    def estimated(self) -> tuple[str, ...]:
        """Names of the estimates that there are."""
        if self.estimated_from is None:
            return ()
        absent = {name for name in ("kappa", "tau", "alpha") if name not in self.fields}
        return tuple(name for name in ESTIMATES if name.partition("_")[0] not in absent)

    def estimated_together(self, part: str) -> list[range]:
        """Numbers of the shards whose realizations of a part share a file of estimates.

        About as many estimates as a shard has realizations. In 200 realizations running there is
        one of any part with a share above 1 %, so that no file is empty; crops of one area count
        as one.
        """
        count, share = len(self.shards), max(getattr(self.split, part), 0.01)
        each = max(math.ceil(1 / share - 1e-9), math.ceil(200 * self.grid.crops / self.shard_size))
        files = max(1, count // each)
        return [range(each * i, each * (i + 1) if i < files - 1 else count) for i in range(files)]

    @property
    def shards(self) -> list[range]:
        """The realizations of each shard."""
        starts = range(0, self.realizations, self.shard_size)
        return [range(at, min(at + self.shard_size, self.realizations)) for at in starts]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        grid = self.grid
        for name in self.channels:
            if name in ("prim", "pure", "sky", *STRUCTURE) or f"e_{name}" in ESTIMATES:
                raise ValueError(f"channels: expected a name that no field has, found {name!r}")
        check_fields(self.fields, self.effects, self.channels)
        pure = [field for field in self.fields if field in PURE]
        if grid.sky == "curved" and pure:
            raise ValueError(f"fields: expected none that needs a flat sky, found {pure[0]!r}")
        source = self.estimates.channel
        if source is not None and not {f"q_{source}", f"u_{source}"} <= set(self.fields):
            raise ValueError(
                "estimates.channel: expected a channel whose q and u are among the fields, "
                f"found {source!r}"
            )
        if self.estimates.ell[0] >= self.estimates.ell[1]:
            raise ValueError(
                f"estimates.ell: expected the lower end first, found {self.estimates.ell}"
            )
        for name, channel in self.channels.items():
            if 0 < channel.beam_arcmin < grid.pixel_arcmin / 2:
                raise ValueError(
                    f"channels.{name}.beam_arcmin: expected 0 or at least half a pixel "
                    f"({grid.pixel_arcmin / 2:.4g} arcmin: the grid's Nyquist multipole lies below "
                    f"the beam's), found {channel.beam_arcmin:g}"
                )
        if 2 * self.effects.taper_deg > grid.size_deg:
            raise ValueError(
                "effects.taper_deg: expected at most half of grid.size_deg "
                f"({grid.size_deg / 2:g}), found {self.effects.taper_deg:g}"
            )
        nyquist = 180 * 60 / grid.pixel_arcmin
        if nyquist > self.spectra.lmax:
            raise ValueError(
                f"spectra.lmax: expected at least the grid's Nyquist multipole ({nyquist:.0f}), "
                f"found {self.spectra.lmax}"
            )
        beams = [name for name, channel in self.channels.items() if channel.has_beam]
        if grid.sky == "curved" and grid.margin == 0 and beams:
            raise ValueError(
                f"grid.margin_deg: expected more than 0 for the beam of {beams[0]!r} on a curved "
                "sky, found 0"
            )
        # Places lie 0.92 of the square root of their share of the sky apart.
        most = int(0.92**2 * 41253 / (2 * grid.size_deg**2))
        if grid.sky == "curved" and grid.patches_per_sky > max(most, 1):
            raise ValueError(
                f"grid.patches_per_sky: expected at most {max(most, 1)} for patches of "
                f"{grid.size_deg:g} degrees (they would overlap), found {grid.patches_per_sky}"
            )
        if grid.sky == "curved" and self.shard_size % grid.patches_per_sky:
            raise ValueError(
                f"shard_size: expected a multiple of grid.patches_per_sky ({grid.patches_per_sky}: "
                f"a file holds whole skies), found {self.shard_size}"
            )
        if self.shard_size % grid.crops:
            raise ValueError(
                f"shard_size: expected a multiple of grid.crops ({grid.crops}: a file holds all "
                f"crops of an area), found {self.shard_size}"
            )
        return self
