"""Settings of images of galaxies: datasets, generators, metrics, and networks that restore them."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from skyweave.config.base import (
    Count,
    Fields,
    Fraction,
    Name,
    Positive,
    Settings,
    Split,
    check_path,
)
from skyweave.config.runs import NotNegative, Selection, StyleBased, Training, rising

Pixels = Annotated[int, Field(ge=16, le=1024, multiple_of=4)]
Width = Annotated[float, Field(ge=0.01, le=16)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(rising)]

_BAND = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def _bands(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        # `all` are the bands together in tables, the others what files of images hold beside them.
        if not _BAND.fullmatch(name) or name in ("all", "realizations", "labels"):
            raise ValueError(f"expected names such as g, r, i, F814W, found {name!r}")
    return names


Bands = Annotated[Fields, AfterValidator(_bands), Field(max_length=5)]


class Stretch(Settings):
    """How fluxes become what networks and feature metrics see: one scale for all images."""

    kind: Literal["asinh", "linear"] = Field(
        "asinh",
        description="asinh(flux / softening), or the flux itself; 0 becomes -1 and `top` 1.",
    )
    softening: Positive | None = Field(
        None,
        description="With `asinh`: flux a pixel at which it bends; null: a hundredth of `top`.",
    )
    top: Positive | None = Field(
        None,
        description="Flux a pixel that becomes 1; null: what one in a thousand pixels of the "
        "training set that are brighter than half their image's brightest exceeds.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.kind == "linear" and self.softening is not None:
            raise ValueError(
                f"softening: expected `kind: asinh` with it, found {self.softening:g} with linear"
            )
        return self


class Psf(Settings):
    """Point-spread function that images are convolved with."""

    kind: Literal["gaussian", "moffat"] = Field("gaussian", description="Its profile.")
    fwhm_arcsec: Positive = Field(description="Full width at half maximum, arcsec.")
    beta: Annotated[float, Field(gt=1, le=100)] = Field(
        4.765, description="With `moffat`: the exponent of its wings."
    )


class Images(Settings):
    """What all sets of images have."""

    psf: Psf | None = Field(None, description="Point-spread function to convolve with; null: none.")
    noise: NotNegative = Field(
        0.0, description="Rms of white noise a pixel to add, in the images' unit."
    )
    stretch: Stretch = Field(Stretch(), description="How fluxes become what networks see.")
    split: Split = Field(Split(), description="Shares for training, validation and test.")


class SersicDataset(Images):
    """Images of Sérsic profiles, integrated over their pixels; defaults as published."""

    kind: Literal["sersic"] = Field(description="Simulated Sérsic profiles.")
    pixels: Pixels = Field(256, description="Pixels a side.")
    pixel_arcsec: Positive = Field(0.04, description="Side of a pixel, arcsec.")
    offset_arcsec: NotNegative = Field(
        1.0, description="Largest offset of the centre in x and in y, arcsec; evenly drawn."
    )
    radius_arcsec: Range = Field(
        (1.0, 4.0),
        description="Smallest and largest half-light radius, arcsec: the geometric mean of the "
        "axes of the ellipse; evenly drawn.",
    )
    index: Annotated[
        tuple[Annotated[float, Field(ge=0.3, le=8)], Annotated[float, Field(ge=0.3, le=8)]],
        AfterValidator(rising),
    ] = Field((1.0, 4.0), description="Smallest and largest Sérsic index; evenly drawn.")
    axis_ratio: Annotated[
        tuple[Annotated[float, Field(ge=0.05, le=1)], Annotated[float, Field(ge=0.05, le=1)]],
        AfterValidator(rising),
    ] = Field((0.4, 1.0), description="Smallest and largest ratio of the axes; evenly drawn.")
    magnitude: Annotated[tuple[float, float], AfterValidator(rising)] = Field(
        (22.0, 22.0),
        description="Brightest and faintest total AB magnitude; evenly drawn. Fluxes are in nJy "
        "(31.4 - 2.5 log10 of them is the magnitude).",
    )
    realizations: Annotated[int, Field(ge=10)] = Field(50_000, description="Images to make.")
    shard_size: Count = Field(1000, description="Images a file (and a job).")

    @property
    def fields(self) -> tuple[str, ...]:
        """The one band."""
        return ("image",)

    @property
    def shards(self) -> list[range]:
        """The realizations of each shard."""
        starts = range(0, self.realizations, self.shard_size)
        return [range(at, min(at + self.shard_size, self.realizations)) for at in starts]


class ImagesDataset(Images):
    """Images of galaxies that were observed or simulated elsewhere."""

    kind: Literal["images"] = Field(description="Images made elsewhere.")
    source: Literal["cosmos", "files"] = Field(
        "files",
        description="100 stamps of HST's COSMOS survey in F814W, fetched, or the user's own.",
    )
    path: str | None = Field(
        None,
        description="With `files`: a folder of FITS, PNG or NumPy files, one an image; a FITS "
        "file of images or of a GalSim catalogue of real galaxies; an .npz or HDF5 file of "
        "arrays (n, y, x) or (n, y, x, bands), or of one group a galaxy with an array a band.",
    )
    bands: Bands = Field(
        ("image",),
        description="Names of the bands, up to 5: arrays or planes of the files, in their order.",
    )
    unit: str = Field("", description="Unit of the fluxes a pixel, as it shall be told.")
    pixels: Pixels = Field(64, description="Pixels a side, here.")
    pixel_arcsec: Positive = Field(0.03, description="Side of a pixel of the files, arcsec.")
    resize: Literal["crop", "scale"] = Field(
        "crop",
        description="How images of another size are brought to `pixels`: cut around their middle "
        "(smaller ones end in zeros), or scaled, antialiased, the flux kept.",
    )
    realizations: Annotated[int, Field(ge=10)] | None = Field(
        None, description="Images to take, from the first on; null: all that there are."
    )

    @property
    def fields(self) -> tuple[str, ...]:
        """The bands."""
        return self.bands

    @property
    def shards(self) -> list[range]:
        """One shard of all."""
        return [range(self.realizations or 0)]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_path(self.path, self.source, "files")
        if self.source == "cosmos" and len(self.bands) > 1:
            raise ValueError(
                f"bands: expected one with `source: cosmos`, found {', '.join(self.bands)}"
            )
        return self


class GeneratorNetwork(Settings):
    """The generator and its size."""

    name: Literal["stylegan2", "vae", "diffusion"] = Field(
        "stylegan2",
        description="Architecture: StyleGAN2, a variational autoencoder, or a diffusion model.",
    )
    width: Width = Field(
        1.0, description="Factor on the number of channels; 1 is StyleGAN2's as published."
    )
    latent: Annotated[int, Field(ge=2, le=4096)] = Field(
        512, description="Numbers that an image is made from; a diffusion model starts at noise."
    )
    mapping_layers: Annotated[int, Field(ge=1, le=16)] = Field(
        8, description="StyleGAN2: layers of the mapping network."
    )
    synthesis: Literal["skip", "residual"] = Field(
        "skip", description="StyleGAN2: how the generator's resolutions are joined."
    )
    pixel_noise: bool = Field(
        True, description="StyleGAN2: noise in every layer, for what no style decides."
    )


class Augmentation(Settings):
    """What is done to images before a network sees them."""

    turns: bool = Field(
        True, description="Flips and quarter turns of the training images: galaxies have no up."
    )
    adaptive: bool = Field(
        False,
        description="StyleGAN2: transform real and made images alike, with a probability that is "
        "raised where the discriminator learns the training images by heart (for small sets).",
    )
    target: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.6, description="Mean sign of the discriminator's real logits that it is held at."
    )
    images: Positive = Field(
        500_000.0, description="Images in which the probability may rise from 0 to 1."
    )


class Prior(Settings):
    """The network that learns the law of an autoencoder's latents."""

    updates: Count = Field(10_000, description="Updates of its weights, by 512 latents each.")
    width: Annotated[int, Field(ge=8, le=4096)] = Field(
        256, description="Width of its dense layers."
    )


class Vae(Settings):
    """Losses of the variational autoencoder."""

    beta: Positive = Field(
        1.0, description="Weight of the Kullback-Leibler divergence of the latents, per image."
    )
    deviation: Positive | None = Field(
        None,
        description="Standard deviation of a pixel given the latents, in stretched units; null: "
        "learned.",
    )
    spectrum: NotNegative = Field(
        0.0, description="Weight of the difference of log power spectra of image and made image."
    )
    prior: Prior | None = Field(
        None,
        description="A diffusion model that learns, after the training, the law of the training "
        "images' latents, for new ones to be drawn by (arXiv:2112.10752); null: independent normal "
        "latents.",
    )


class Diffusion(Settings):
    """The diffusion model's noise and sampler, as of arXiv:2206.00364.

    Noise is in units of `sigma_data`, for which the published numbers had 0.5. A change of the
    sampler trains nothing anew: grids of samples made in training are by its defaults.
    """

    sigma_data: Positive | None = Field(
        None,
        description="Rms of the stretched images about their mean; null: measured on the training "
        "set.",
    )
    p_mean: float = Field(-0.5, description="Mean of the log of the noise in training.")
    p_std: Positive = Field(1.2, description="Standard deviation of the log of the noise there.")
    sigma_min: Positive = Field(0.004, description="Least noise of the sampler.")
    sigma_max: Positive = Field(160.0, description="Most noise of the sampler.")
    rho: Positive = Field(7.0, description="How its steps crowd at low noise.")
    steps: Annotated[int, Field(ge=2, le=1000)] = Field(
        64,
        description="Steps of the sampler (Heun's, two evaluations each but the last); with 18, as "
        "published, weak fluctuations come out up to 16 % too strong.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min: expected less than sigma_max ({self.sigma_max:g}), "
                f"found {self.sigma_min:g}"
            )
        return self


class Metrics(Settings):
    """How generated images are compared with real ones."""

    images: Annotated[int, Field(ge=20)] | None = Field(
        None,
        description="Images of each set, made and real; null: as many as the test set has, or the "
        "training set if fewer.",
    )
    features: bool = Field(
        True, description="FID, KID, precision and recall, by features of Inception (fetched)."
    )
    kid_subset: Annotated[int, Field(ge=10)] = Field(
        1000, description="Images of a subset of KID; at most half of them."
    )
    kid_subsets: Annotated[int, Field(ge=2)] = Field(100, description="Subsets of KID.")
    neighbours: Count = Field(3, description="Neighbours that precision and recall reach to.")
    morphology: bool = Field(True, description="Morphology by statmorph.")


class GenerationTraining(Training):
    """Training of a generator."""

    epochs: Count = Field(200, description="Most passes over the training set.")
    learning_rate: Positive = Field(0.002, description="Adam's learning rate at the start.")
    beta_1: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="Decay of Adam's mean of the gradients; not of StyleGAN2's."
    )
    stop_patience: Count | None = Field(
        None, description="Epochs without a gain before training stops; null: it never does."
    )
    select: Selection = Field(Selection(by="last"), description="Which epoch's network is kept.")


#: Settings of a run that its training does not read, by task, as pydantic excludes them.
UNTRAINED: dict[str, dict[str, Any]] = {
    "generation": {
        "diffusion": {"sigma_min", "sigma_max", "rho", "steps"},
        "truncation": True,
        "samples": True,
        "metrics": True,
    },
    "denoising": {"degradation": {"noise_factor", "pixel_factor"}},
}

#: Sections, settings of them (none: all), and the generators that alone read these.
_READ_BY: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("network", ("mapping_layers", "synthesis", "pixel_noise"), ("stylegan2",)),
    ("network", ("latent",), ("stylegan2", "vae")),
    ("training", ("beta_1",), ("vae", "diffusion")),
    ("augment", ("adaptive",), ("stylegan2",)),
    ("style", (), ("stylegan2",)),
    ("vae", (), ("vae",)),
    ("diffusion", (), ("diffusion",)),
)


def _changed(section: Settings, names: tuple[str, ...] = ()) -> str | None:
    """The first setting of a section, or of some of it, that is not its default."""
    plain = type(section)()
    wanted = names or tuple(type(section).model_fields)
    return next((name for name in wanted if getattr(section, name) != getattr(plain, name)), None)


class GenerationRun(Settings):
    """A network that makes images like those of a dataset, and its judgement."""

    task: Literal["generation"] = Field(description="Generate images.")
    dataset: Name = Field(description="Name of the dataset to train on.")
    fields: Fields = Field(("image",), description="Bands to make together.")
    network: GeneratorNetwork = Field(GeneratorNetwork(), description="The generator and its size.")
    training: GenerationTraining = Field(GenerationTraining(), description="How to train it.")
    augment: Augmentation = Field(
        Augmentation(), description="What is done to images before a network sees them."
    )
    style: StyleBased = Field(StyleBased(), description="How StyleGAN2 is trained.")
    vae: Vae = Field(Vae(), description="Losses of the variational autoencoder.")
    diffusion: Diffusion = Field(Diffusion(), description="Noise and sampler of the diffusion.")
    truncation: Annotated[float, Field(ge=0, le=2)] = Field(
        1.0,
        description="StyleGAN2: how far styles lie from their mean, as a factor; the autoencoder: "
        "factor on the latents.",
    )
    samples: Annotated[int, Field(ge=20)] = Field(10_000, description="Images to make.")
    grid_epochs: Count = Field(
        10,
        description="Epochs from one grid of samples of the same latents to the next, made in "
        "training with the sampler's and `truncation`'s defaults.",
    )
    metrics: Metrics = Field(
        Metrics(), description="How generated images are compared with real ones."
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Nothing goes in but random numbers; the bands are what it learns from."""
        return self.fields

    @property
    def targets(self) -> tuple[str, ...]:
        """Bands out."""
        return self.fields

    @model_validator(mode="after")
    def _possible(self) -> Self:
        count = self.metrics.images
        if count is not None and count > self.samples:
            raise ValueError(
                f"metrics.images: expected at most samples ({self.samples}), found {count}"
            )
        for section, names, kinds in _READ_BY:
            unread = None if self.network.name in kinds else _changed(getattr(self, section), names)
            if unread is not None:
                raise ValueError(
                    f"{section}.{unread}: expected `network.name: {' or '.join(kinds)}` with it, "
                    f"found {self.network.name!r}"
                )
        unread = _changed(self.augment, ("target", "images"))
        if unread is not None and not self.augment.adaptive:
            raise ValueError(
                f"augment.{unread}: expected `augment.adaptive: true` with it, found false"
            )
        if self.network.name == "stylegan2":
            self._check_unsettled()
        if self.network.name == "diffusion" and self.truncation != 1:
            raise ValueError(
                f"truncation: expected 1 with `network.name: diffusion`, found {self.truncation:g}"
            )
        return self

    def _check_unsettled(self) -> None:
        """Raise `ValueError` for what asks an adversary's losses how good a network is."""
        unsettled = "with `network.name: stylegan2`, whose losses never settle"
        by, patience = self.training.select.by, self.training.stop_patience
        if by == "loss":
            raise ValueError(f"training.select.by: expected 'last' {unsettled}, found {by!r}")
        if patience is not None:
            raise ValueError(f"training.stop_patience: expected null {unsettled}, found {patience}")


class DenoisingNetwork(Settings):
    """The network that restores images, and its size."""

    name: Literal["residual_denoiser"] = Field(
        "residual_denoiser", description="Architecture: residual blocks around a narrow middle."
    )
    width: Width = Field(
        1.0, description="Factor on the number of channels; 1 is the published network."
    )


class Degradation(Settings):
    """What is done to an image that a network is to undo."""

    psf_pixels: NotNegative = Field(
        2.0, description="Standard deviation of a Gaussian point-spread function, pixels."
    )
    noise: Positive | None = Field(
        None,
        description="Rms of white noise, in the images' unit; null: a hundredth of the stretch's "
        "top.",
    )
    noise_factor: Annotated[float, Field(ge=1)] = Field(
        4.0, description="Factor on the noise in the test of more noise."
    )
    pixel_factor: Annotated[int, Field(ge=2, le=8)] = Field(
        2, description="Pixels a side that become one in the test of lower resolution."
    )


class DenoisingTraining(Training):
    """Training of a network that restores images."""

    epochs: Count = Field(100, description="Most passes over the training set.")
    batch: Count = Field(16, description="Images a step.")
    learning_rate: Positive = Field(0.0005, description="Adam's learning rate at the start.")


class DenoisingRun(Settings):
    """A network that takes a point-spread function and noise out of images, and its judgement."""

    task: Literal["denoising"] = Field(description="Restore images.")
    dataset: Name = Field(description="Name of the dataset to train and test on.")
    fields: Fields = Field(("image",), description="Bands to restore together.")
    network: DenoisingNetwork = Field(
        DenoisingNetwork(), description="The network that restores images, and its size."
    )
    degradation: Degradation = Field(
        Degradation(), description="What is done to an image that the network is to undo."
    )
    generated: Name | None = Field(
        None, description="Generation run whose images are mixed into the training set."
    )
    alpha: Fraction = Field(
        0.0, description="Probability that an image of a batch is a generated one."
    )
    repeat: Annotated[int, Field(ge=0)] = Field(
        0, description="Number of the network among several alike: other weights and draws."
    )
    turns: bool = Field(True, description="Flips and quarter turns of the training images.")
    training: DenoisingTraining = Field(DenoisingTraining(), description="How to train it.")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Bands in."""
        return self.fields

    @property
    def targets(self) -> tuple[str, ...]:
        """Bands out: the same."""
        return self.fields

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.alpha and self.generated is None:
            raise ValueError(
                f"alpha: expected `generated`, a run whose images are mixed in, with it, "
                f"found {self.alpha:g} and none"
            )
        return self
