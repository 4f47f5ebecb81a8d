"""Settings of inpainting: holes, networks of partial convolutions, losses, and their training."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from skyweave.config.base import Count, Fields, Name, Positive, Settings, distinct
from skyweave.config.runs import NotNegative, Selection, Training, rising

Radius = Annotated[float, Field(ge=1, le=1000)]
Size = Annotated[int, Field(ge=1, le=4096)]
Kernel = Annotated[int, Field(ge=2, le=15)]
Level = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Holes(Settings):
    """Where maps have holes."""

    kind: Literal["random", "disc", "sky"] = Field(
        "random",
        description="Random lines, discs and ellipses, one disc, or pieces of a mask of the sky.",
    )
    area: Share = Field(
        0.25, description="Share of a patch that is missing: of random holes, or the most of sky's."
    )
    shapes: Annotated[
        tuple[Literal["line", "disc", "ellipse"], ...],
        Field(min_length=1),
        AfterValidator(distinct),
    ] = Field(("line", "disc", "ellipse"), description="What random holes are made of.")
    radius: Annotated[tuple[Radius, Radius], AfterValidator(rising)] = Field(
        (5.0, 65.0), description="Smallest and largest radius of a disc, pixels."
    )
    centred: bool = Field(True, description="Discs lie in the middle of the patch, or anywhere.")
    sky: Name | None = Field(
        None, description="With `sky`: the dataset of a real map whose mask and sources are cut."
    )
    path: str | None = Field(
        None, description="With `sky`, instead: a HEALPix FITS file, 0 in holes, Galactic."
    )
    count: Annotated[int, Field(ge=8, le=100_000)] = Field(
        512, description="With `sky`: pieces to cut; each is turned and mirrored when it is used."
    )

    margin: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0,
        description="With `sky`: share of the side at each edge that nothing is missing in: an "
        "eighth for masks of few, lone holes.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        given = [key for key in ("sky", "path") if getattr(self, key) is not None]
        if self.kind == "sky" and len(given) != 1:
            raise ValueError(
                f"sky: expected a dataset, or else `path`, with `kind: sky`, "
                f"found {'both' if given else 'neither'}"
            )
        if self.kind != "sky" and self.margin:
            raise ValueError(f"margin: expected `kind: sky` with it, found {self.kind!r}")
        if self.kind != "sky" and given:
            raise ValueError(f"{given[0]}: expected `kind: sky` with it, found {self.kind!r}")
        return self


class InpaintingNetwork(Settings):
    """The network and its size."""

    name: Literal["pconv_unet"] = Field(
        "pconv_unet", description="Architecture: a U-Net of partial convolutions."
    )
    width: Annotated[float, Field(ge=0.01, le=16)] = Field(
        1.0, description="Factor on the number of channels; 1 is the published network."
    )
    filters: Annotated[tuple[Size, ...], Field(min_length=1)] | None = Field(
        None,
        description="Channels of each level, each of half the resolution of the one before; null: "
        "32, 64 and then 128 up to 256 pixels a side, 64, 128, 256 and then 512 above, down to a "
        "single pixel or for 8 levels.",
    )
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1)] | None = Field(
        None,
        description="Pixels a side of their convolutions; null: 7, 5 and then 3, above 256 "
        "pixels 7, 5, 5 and then 3.",
    )
    batch_norm: bool = Field(True, description="Batch normalization.")
    start: Literal["none", "diffusive", "constrained"] = Field(
        "none",
        description="What lies in the holes before the network corrects it: nothing, the harmonic "
        "continuation of their edges, or the mean of a Gaussian sky given all that is seen.",
    )

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if self.filters and self.kernels and len(self.filters) != len(self.kernels):
            raise ValueError(
                f"kernels: expected as many as filters ({len(self.filters)}), "
                f"found {len(self.kernels)}"
            )
        return self


class InpaintingLosses(Settings):
    """What a filled map is to have in common with the truth; weights of arXiv:1804.07723."""

    norm: Literal["l1", "l2"] = Field(
        "l1", description="Differences of pixels: mean absolute, or mean squared."
    )
    valid: NotNegative = Field(1.0, description="Weight of the difference where the map was seen.")
    hole: NotNegative = Field(6.0, description="Weight of the difference in the holes.")
    perceptual: NotNegative = Field(
        0.05, description="Weight of the difference of features of VGG16 (its first three pools)."
    )
    style: NotNegative = Field(
        120.0, description="Weight of the difference of these features' correlations."
    )
    variation: NotNegative = Field(
        0.1, description="Weight of the differences of neighbours in the holes and at their edges."
    )
    spectrum: NotNegative = Field(
        0.0,
        description="Weight of the relative difference of the filled maps' power spectra from the "
        "truths', mean over bands.",
    )
    examples: Count | None = Field(
        None, description="Maps of each batch that VGG16 looks at; null: all."
    )

    @property
    def looks(self) -> bool:
        """Whether VGG16 is needed."""
        return self.perceptual > 0 or self.style > 0

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.hole and not self.spectrum and not self.looks:
            raise ValueError("hole: expected a loss that knows the holes, found all weights 0")
        return self


class InpaintingTraining(Training):
    """Training in stages: warm on one map, with batch statistics, with the encoder's held fast."""

    epochs: Count = Field(60, description="Most passes over the training set, all stages together.")
    batch: Count = Field(16, description="Patches a step.")
    learning_rate: Positive = Field(0.0001, description="Adam's learning rate at the start.")
    stop_patience: Count | None = Field(
        None, description="Epochs without a gain before training stops; null: it never does."
    )
    plateau_patience: Count = Field(10, description="Epochs without a gain before that.")
    select: Selection = Field(Selection(by="last"), description="Which epoch's network is kept.")
    warm_epochs: Annotated[int, Field(ge=0)] = Field(
        1, description="Stage 0: first epochs, on one map with ever new holes."
    )
    frozen_from: Count | None = Field(
        40,
        description="Stage 2: epochs after so many, in which the encoder's batch normalization "
        "keeps its scales and uses running averages; null: never. Optimizers start anew.",
    )
    frozen_learning_rate: Positive = Field(0.00005, description="Adam's learning rate there.")

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        if self.frozen_from is not None and self.frozen_from < self.warm_epochs:
            raise ValueError(
                f"frozen_from: expected at least warm_epochs ({self.warm_epochs}), "
                f"found {self.frozen_from}"
            )
        return self


class InpaintingRun(Settings):
    """A network that fills holes, and its judgement beside the Gaussian optimum."""

    task: Literal["inpainting"] = Field(description="Fill holes.")
    dataset: Name = Field(description="Name of the dataset to train on.")
    fields: Fields = Field(
        ("t_obs",), description="Fields to fill together: T, or T, Q and U, of one channel."
    )
    holes: Holes = Field(Holes(), description="Holes to learn, and to be judged, on.")
    network: InpaintingNetwork = Field(InpaintingNetwork(), description="The network and its size.")
    losses: InpaintingLosses = Field(
        InpaintingLosses(), description="What a filled map is to have in common with the truth."
    )
    training: InpaintingTraining = Field(InpaintingTraining(), description="How to train it.")
    radii: Annotated[tuple[Radius, ...], AfterValidator(distinct)] = Field(
        (5, 15, 25, 35, 45, 55, 65),
        description="Discs in the middle of test patches that it is judged on too, pixels.",
    )
    patches: Annotated[int, Field(ge=8)] = Field(
        200, description="Most test patches that it is judged on, for each kind of holes."
    )
    classes: str | None = Field(
        None,
        description="Parameter that the dataset varies in classes (`ns`), to be told from filled "
        "maps.",
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Fields in."""
        return self.fields

    @property
    def targets(self) -> tuple[str, ...]:
        """Fields out: the same."""
        return self.fields

    @model_validator(mode="after")
    def _possible(self) -> Self:
        stokes = [field.partition("_")[0] for field in self.fields]
        channels = {field.partition("_")[2] for field in self.fields}
        if len(channels) > 1 or not set(stokes) <= set("tqu") or ("q" in stokes) != ("u" in stokes):
            raise ValueError(
                "fields: expected t of a channel, q and u, or all three, "
                f"found {', '.join(self.fields)}"
            )
        return self
