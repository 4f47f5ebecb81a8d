"""Settings of networks, their training and their judgement."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from skyweave.config.base import (
    Count,
    Fields,
    Fraction,
    Name,
    Positive,
    Settings,
    check_path,
    distinct,
)

Updates = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]


def rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"expected the lower end first, found {ends[0]:g}, {ends[1]:g}")
    return ends


Interval = Annotated[tuple[Fraction, Fraction], AfterValidator(rising)]


class Network(Settings):
    """The network and its size."""

    name: Literal["resunet_cmb", "hybrid"] = Field(
        "resunet_cmb",
        description="Architecture: the published residual U-Net, or a smaller one that corrects "
        "estimates of the targets which are among the inputs.",
    )
    width: Annotated[float, Field(ge=0.01, le=16)] = Field(
        1.0, description="Factor on the number of channels; 1 is the published network."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.3, description="Dropout rate.")
    uncertainty: bool = Field(False, description="Predict each pixel's standard deviation too.")


#: Fields that estimate a target, the best first.
ESTIMATES_OF = {
    "kappa": ("kappa_iterative", "kappa_quadratic"),
    "tau": ("tau_iterative", "tau_quadratic"),
    "alpha": ("alpha_iterative", "alpha_quadratic"),
    "e_prim": ("e_iterative", "e_wiener", "e_obs"),
    "e_pure": ("e_iterative", "e_wiener", "e_obs"),
    "e_sky": ("e_wiener", "e_obs"),
    "b_sky": ("b_wiener", "b_obs"),
    "b_pure": ("b_wiener",),
}


def estimate_of(target: str, inputs: Sequence[str]) -> str | None:
    """The best estimate of a target among the inputs, None where there is none."""
    return next((name for name in ESTIMATES_OF.get(target, ()) if name in inputs), None)


def check_correctable(network: str, inputs: Sequence[str], targets: Sequence[str]) -> None:
    """Raise `ValueError` where a network that corrects estimates has none to correct."""
    known = [name for target in targets for name in ESTIMATES_OF.get(target, ())]
    if network == "hybrid" and not set(known) & set(inputs):
        raise ValueError(
            f"network.name: expected inputs that estimate a target "
            f"({', '.join(known) or 'there are none'}) with `hybrid`, found {', '.join(inputs)}"
        )


class ForseNetwork(Settings):
    """ForSE's generator and discriminator, and their size."""

    name: Literal["forse"] = Field("forse", description="Architecture.")
    width: Annotated[float, Field(ge=0.01, le=16)] = Field(
        1.0, description="Factor on the number of channels; 1 is the published network."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Dropout rate of the generator."
    )
    discriminator_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.25, description="Dropout rate of the discriminator."
    )
    batch_norm: bool = Field(True, description="Batch normalization, in both networks.")


#: Statistics of the validation set that an epoch may be selected by, by task.
SELECTED_BY = {
    "reconstruction": ("pixel_correlation", "correlation", "transfer", "residual"),
    "decomposition": ("pixel_correlation", "correlation", "transfer", "residual"),
    "foregrounds": ("superposition", "distance"),
    "inpainting": (),
    "generation": (),
    "denoising": (),
}


class Selection(Settings):
    """Which epoch's network a training keeps."""

    by: Literal[
        "loss",
        "last",
        "pixel_correlation",
        "correlation",
        "transfer",
        "residual",
        "superposition",
        "distance",
    ] = Field(
        "loss",
        description="That of the least validation loss, the last, or the best by a statistic of "
        "the validation set. Reconstruction, decomposition: correlation of the pixels, or mean "
        "over multipoles of r_ell, of abs(T_ell - 1), or of the power of prediction less truth "
        "over the truth's. Foregrounds: overlap of the bands of the Minkowski functionals of the "
        "ratio with the truth's, or the distance of their means. For these, epochs' networks are "
        "kept in `state/checkpoints` of the run.",
    )
    fields: Annotated[tuple[str, ...], AfterValidator(distinct)] = Field(
        (),
        description="Targets (foregrounds: functionals v0, v1, v2) that the statistic is averaged "
        "over; all if empty.",
    )
    ell: Annotated[tuple[NotNegative, NotNegative], AfterValidator(rising)] = Field(
        (0.0, 100_000.0),
        description="Lowest and highest centre of the bands that it is averaged over.",
    )
    every_epochs: Count = Field(
        1, description="Epochs from one network that is kept to the next; the last one always is."
    )

    @model_validator(mode="after")
    def _fields_have_a_say(self) -> Self:
        if self.fields and not self.swept:
            raise ValueError(
                f"fields: expected none with `by: {self.by}`, found {', '.join(self.fields)}"
            )
        return self

    @property
    def swept(self) -> bool:
        """Whether epochs' networks are kept and compared by a statistic."""
        return self.by not in ("loss", "last")


class Training(Settings):
    """Supervised training with Adam on the mean squared error."""

    epochs: Count = Field(500, description="Most passes over the training set.")
    batch: Count = Field(32, description="Patches a step.")
    accumulate: Count = Field(
        1,
        description="Steps whose gradients are averaged for one update of the weights; "
        "fewer at the end of a pass.",
    )
    learning_rate: Positive = Field(0.001, description="Adam's learning rate at the start.")
    beta_1: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="Decay of Adam's mean of the gradients."
    )
    schedule: Literal["plateau", "cosine"] = Field(
        "plateau",
        description="The learning rate falls when the validation loss stands still, or as half a "
        "cosine to zero over all `epochs`; other `epochs` are then another training.",
    )
    warmup_updates: Updates = Field(
        0, description="Updates in which the learning rate rises from zero to its start."
    )
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Factor on the learning rate when the validation loss stands still."
    )
    plateau_patience: Count = Field(3, description="Epochs without a gain before that.")
    stop_patience: Count | None = Field(
        10, description="Epochs without a gain before training stops; null: it never does."
    )
    select: Selection = Field(Selection(), description="Which epoch's network is kept.")
    clip_norm: Positive | None = Field(
        None, description="Longest gradient, all weights together; longer ones are scaled to it."
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "float32",
        description="Of the layers' arithmetic; `auto` is bfloat16 on a GPU that has it. Weights, "
        "losses, batch statistics and last layers are float32 in any case.",
    )
    xla: Literal["auto", True, False] = Field(
        "auto",
        description="Compile steps by XLA; `auto`: with JAX, and on a GPU where operations need "
        "not be deterministic.",
    )
    devices: Count | Literal["all"] = Field(
        1,
        description="GPUs of the node that share each batch (without GPUs: processors); `all` that "
        "the job is given. Ask for as many by `gpu` of rule `train`.",
    )
    deterministic: Literal["auto", True, False] = Field(
        "auto",
        description="The same bits in each run; `auto`: on a CPU without `xla: true`.",
    )
    save_minutes: Positive = Field(
        5.0, description="Longest time between saved states (one is always saved a pass)."
    )
    tensorboard: bool = Field(
        False, description="Write losses for TensorBoard too, to `state/tensorboard` of the run."
    )


class Adversarial(Settings):
    """A discriminator beside the network that is trained."""

    loss: Literal["cross_entropy", "least_squares", "hinge", "relativistic", "wasserstein"] = Field(
        "cross_entropy",
        description="What the discriminator tells by: cross-entropy, least squares, the hinge, "
        "the cross-entropy of examples less the mean of the others (relativistic average), or the "
        "difference of the means, which needs `gradient_penalty` or spectral normalization.",
    )
    gradient_penalty: NotNegative = Field(
        0.0,
        description="Weight of the mean square of the discriminator's slope less 1, between real "
        "and made examples (10 as published); with a discriminator without batch normalization.",
    )
    fidelity: NotNegative = Field(
        100.0, description="Weight of the difference to the truth beside the adversarial loss."
    )
    fidelity_draws: Count = Field(
        1,
        description="Draws of the noise that the outputs are averaged over before they are "
        "compared with the truth, where the network has noise channels.",
    )
    conditional: bool = Field(
        True, description="Show the discriminator the inputs too; not for examples drawn apart."
    )
    learning_rate: Positive | None = Field(
        None, description="The discriminator's, where it is not the generator's."
    )
    generator_steps: Count = Field(
        1, description="Updates of the generator in a cycle, which is as long as the larger number."
    )
    discriminator_steps: Count = Field(1, description="Updates of the discriminator in a cycle.")
    warmup_generator: Updates = Field(
        0, description="First updates, of the generator alone, by its difference to the truth."
    )
    warmup_discriminator: Updates = Field(
        0, description="Updates after those of the discriminator alone."
    )
    real_labels: Interval = Field(
        (1.0, 1.0), description="What it is told of real examples: evenly drawn; 1 is real."
    )
    made_labels: Interval = Field(
        (0.0, 0.0), description="What it is told of examples of the generator."
    )
    label_swap: Fraction = Field(
        0.0, description="Share of the examples' pairs whose labels are exchanged."
    )

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.warmup_generator and not self.fidelity:
            raise ValueError("warmup_generator: expected `fidelity` above 0 with it, found 0")
        return self

    @model_validator(mode="after")
    def _labels_are_told(self) -> Self:
        if self.loss in ("cross_entropy", "least_squares"):
            return self
        plain = {"real_labels": (1.0, 1.0), "made_labels": (0.0, 0.0), "label_swap": 0.0}
        for key, value in plain.items():
            found = getattr(self, key)
            if found != value:
                raise ValueError(
                    f"{key}: expected `loss: cross_entropy` or `least_squares` with it, "
                    f"found {self.loss}"
                )
        return self


class ReconstructionRun(Settings):
    """A network that reconstructs sky fields from observed ones, and its judgement."""

    task: Literal["reconstruction"] = Field(
        "reconstruction", description="Reconstruct fields from observed ones."
    )
    dataset: Name = Field(description="Name of the dataset to train on.")
    tests: Annotated[tuple[Name, ...], AfterValidator(distinct)] = Field(
        (), description="Other datasets whose test sets it is judged on too."
    )
    inputs: Fields = Field(("q_obs", "u_obs"), description="Fields in.")
    targets: Fields = Field(("tau", "e_prim", "kappa"), description="Fields out.")
    network: Network = Field(Network(), description="The network and its size.")
    training: Training = Field(Training(), description="How to train it.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_correctable(self.network.name, self.inputs, self.targets)
        return self


class ForegroundsTraining(Training):
    """Adversarial training of ForSE; defaults as published, for 350 patches of 320² pixels."""

    epochs: Count = Field(5882, description="Most passes over the training set.")
    batch: Count = Field(16, description="Patches a step.")
    learning_rate: Positive = Field(0.0002, description="Adam's learning rate at the start.")
    beta_1: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5, description="Decay of Adam's mean of the gradients."
    )
    select: Selection = Field(
        Selection(by="superposition", every_epochs=59), description="Which epoch's network is kept."
    )

    @model_validator(mode="before")
    @classmethod
    def _selects_by_superposition(cls, values: Any) -> Any:
        """Also where something else is said of the selection: no loss tells networks apart."""
        if isinstance(values, Mapping) and isinstance(values.get("select"), Mapping):
            return {**values, "select": {"by": "superposition", **values["select"]}}
        return values


class ForegroundsAdversarial(Adversarial):
    """ForSE's discriminator, which sees small scales alone."""

    fidelity: NotNegative = Field(
        0.0, description="Weight of the difference to the truth beside the adversarial loss."
    )
    conditional: bool = Field(False, description="Show the discriminator the inputs too.")


class PolarizationTemplate(Settings):
    """Q and U at low resolution, which say where polarization points to."""

    source: Literal["cosmoglobe", "file"] = Field(
        "cosmoglobe",
        description="A smooth foreground template (nside 256), fetched, whose polarization "
        "fraction and angle are given to the intensity of the dataset's map; or a HEALPix FITS "
        "file whose Q and U are taken as they are.",
    )
    path: str | None = Field(None, description="With `file`: the HEALPix FITS file.")
    unit: str | None = Field(
        None, description="Unit of the file (K_CMB, uK_RJ, …), where its header has none."
    )
    fwhm_arcmin: Annotated[float, Field(ge=0)] = Field(
        5.0, description="With `file`: beam of its Q and U, FWHM in arcmin."
    )

    @model_validator(mode="before")
    @classmethod
    def _a_path_is_a_file_s(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("path") is not None:
            return {"source": "file", **values}
        return values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_path(self.path, self.source, "file")
        if self.source == "cosmoglobe":
            for key, default in (("unit", None), ("fwhm_arcmin", 5.0)):
                found = getattr(self, key)
                if found != default:
                    raise ValueError(f"{key}: expected `source: file` with it, found {found!r}")
        return self


class FullSky(Settings):
    """The whole sky, tile by tile, with the small scales that the network adds."""

    nside: Annotated[int, Field(ge=16, le=8192)] = Field(
        2048, description="Resolution of the maps (a power of two)."
    )
    overlap_deg: Positive = Field(
        2.0, description="Overlap of neighbouring tiles, degrees; a tile is as large as a patch."
    )
    realizations: Count = Field(
        1, description="Skies to make; more than one needs `noise` in the input."
    )
    polarization: Literal["none", "intensity", "stokes"] = Field(
        "none",
        description="Polarization: none; small scales of the polarized intensity, the angle that "
        "of the large scales; or small scales of Q and of U, each by itself.",
    )
    template: PolarizationTemplate = Field(
        PolarizationTemplate(), description="Q and U at low resolution."
    )
    bb_over_ee: Positive | None = Field(
        None,
        description="Power of B over that of E that small scales are brought to, their sum kept; "
        "null: as they come.",
    )
    second_stage: bool = Field(
        False,
        description="Add four times smaller scales by the same network: each tile is cut in 49, "
        "as if the sky looked the same at any scale.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.nside & (self.nside - 1):
            raise ValueError(f"nside: expected a power of two, found {self.nside}")
        if self.polarization == "none" and self.bb_over_ee is not None:
            raise ValueError(
                "bb_over_ee: expected `polarization: intensity` or `stokes` with it, found none"
            )
        return self


class ForegroundsRun(Settings):
    """A network that adds small scales to patches of dust, its judgement, and the full sky."""

    task: Literal["foregrounds"] = Field(description="Add small scales to foregrounds.")
    dataset: Name = Field(description="Name of the dataset to train on.")
    network: ForseNetwork = Field(ForseNetwork(), description="The networks and their size.")
    noise: NotNegative = Field(
        0.0,
        description="Rms of white noise that is added to the network's input, scaled from -1 to 1, "
        "in training and after: each draw of it makes another realization (ForSE+).",
    )
    amplitude: Literal["extrapolation", "truth"] = Field(
        "extrapolation",
        description="What the deviation of the ratio of high to low resolution is brought to, "
        "patch by patch: the one that the large scales let expect, learned on the training set, "
        "or, as published, that of the true ratio, where the map has it.",
    )
    training: ForegroundsTraining = Field(ForegroundsTraining(), description="How to train it.")
    adversarial: ForegroundsAdversarial = Field(
        ForegroundsAdversarial(), description="The discriminator's part in it."
    )
    full_sky: FullSky | None = Field(
        None, description="The whole sky with small scales; null: patches only."
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        sky = self.full_sky
        if sky is not None and sky.realizations > 1 and not self.noise:
            raise ValueError(
                "full_sky.realizations: expected 1 with `noise: 0`, which makes one sky only, "
                f"found {sky.realizations}"
            )
        return self


class StyleBased(Settings):
    """Training of a style-based generator against a discriminator, as published for StyleGAN2.

    Adam's decay `beta_1` of the training section has no say here.
    """

    learning_rate: Positive | None = Field(
        None, description="The discriminator's, where it is not the generator's."
    )
    beta_1: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Decay of Adam's mean of the gradients, of both networks."
    )
    beta_2: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="Decay of Adam's mean of the squared gradients, of both networks."
    )
    r1_gamma: Positive = Field(
        10.0,
        description="Weight of R1, the discriminator's squared slope at real examples, halved.",
    )
    r1_interval: Updates = Field(
        16,
        description="Updates from one with R1, of as many times the weight, to the next; 0: none.",
    )
    path_weight: Positive = Field(
        2.0, description="Weight of the squared differences of path lengths from their mean."
    )
    path_interval: Updates = Field(
        4, description="As `r1_interval`, for path lengths; the paper's own was 8."
    )
    path_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description="Share of a batch's mean path length in the running one."
    )
    path_shrink: Count = Field(
        2, description="Factor by which a batch of path lengths is smaller than one of examples."
    )
    style_mixing: Fraction = Field(
        0.9, description="Share of examples whose first and last layers have styles of two latents."
    )
    average_images: Positive = Field(
        10_000.0,
        description="Half-life of the average of the generator's weights, in real examples seen; "
        "less at the start, 5 % of those seen.",
    )
