"""Settings of simulated patches of the CMB."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from skyweave.config.base import Count, Fields, Fraction, Positive, Settings, Split, check_path

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


def _cmb_fields(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value not in CMB_FIELDS:
            raise ValueError(f"expected some of {', '.join(CMB_FIELDS)}, found {value!r}")
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
        check_path(self.path, self.source, "table")
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
        "grid: 1 % of the amplitude at 0.63 of it.",
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
