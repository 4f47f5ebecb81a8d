"""Settings of the decomposition of polarization: networks, losses, and ways of training them."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from skyweave.config.base import Count, Fields, Name, Positive, Settings, distinct
from skyweave.config.runs import (
    Adversarial,
    NotNegative,
    Selection,
    Training,
    check_correctable,
    rising,
)

#: Ends of a range of multipoles.
Interval = Annotated[tuple[NotNegative, NotNegative], AfterValidator(rising)]

#: Names of methods in the metrics of a run, which no run beside it may have.
METHODS = ("network", "samples", "mean", "analytic_eb", "wiener", "quadratic", "iterative")

Rate = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[float, Field(ge=0.01, le=16)]


class DecompositionNetwork(Settings):
    """The generator, or the network that samples flow through, and its size."""

    name: Literal["astroencoder", "pix2pix", "hybrid"] = Field(
        "astroencoder",
        description="Architecture: the residual U-Net of astroDGAN, the U-Net of pix2pix "
        "(arXiv:1611.07004), or the smaller one that corrects estimates of the targets which are "
        "among the inputs. With `method: flow` a U-Net of its own. Of the last two `width` and "
        "`dropout` count.",
    )
    width: Width = Field(
        1.0, description="Factor on the number of channels; 1 is the published network."
    )
    kernel: Annotated[int, Field(ge=2, le=15)] | None = Field(
        None, description="Pixels a side of convolutions; null: 5 of astroencoder, 4 of pix2pix."
    )
    dropout: Rate = Field(0.5, description="Dropout rate.")
    skips: bool = Field(True, description="Hand features of the encoder to the decoder.")
    residuals: bool = Field(True, description="Residual connections, of astroencoder.")
    biases: bool = Field(True, description="Biases in convolutions.")
    stem: Annotated[int, Field(ge=0, le=16)] = Field(
        2, description="Convolutions at full resolution before each output, of astroencoder."
    )


class PatchDiscriminator(Settings):
    """The PatchGAN discriminator: it judges overlapping pieces of the patch."""

    width: Width = Field(
        1.0, description="Factor on the number of channels; 1 is the published network."
    )
    kernel: Annotated[int, Field(ge=2, le=15)] = Field(
        4, description="Pixels a side of convolutions."
    )
    layers: Annotated[int, Field(ge=1, le=6)] = Field(
        3, description="Layers that halve the resolution: 3 see pieces of 70 by 70 pixels."
    )
    dropout: Rate = Field(0.5, description="Dropout rate.")
    biases: bool = Field(True, description="Biases in convolutions.")
    batch_norm: bool = Field(True, description="Batch normalization.")
    spectral_norm: bool = Field(
        False, description="Keep each layer's largest singular value at 1 (arXiv:1802.05957)."
    )


class DecompositionLosses(Settings):
    """What outputs are to have in common with the truth."""

    fidelity: Literal["l1", "l2"] = Field(
        "l1", description="Difference to the truth: mean absolute, or mean squared."
    )
    spectrum: NotNegative = Field(
        0.0,
        description="Weight of the difference of power spectra of outputs, and cross-spectra of "
        "pairs of them, from the truths', in units of these, mean over bands.",
    )
    spectrum_ell: Interval = Field(
        (0.0, 100_000.0), description="Lowest and highest centre of the bands of `spectrum`."
    )
    energy: NotNegative = Field(
        0.0,
        description="Weight of the difference of E² + B² from Q² + U², in units of this; E and B "
        "are outputs or inputs, Q and U inputs.",
    )


class DecompositionAdversarial(Adversarial):
    """The discriminator's part in it; the defaults are the best that was found."""

    loss: Literal["cross_entropy", "least_squares", "hinge", "relativistic", "wasserstein"] = Field(
        "hinge",
        description="What the discriminator tells by, as published cross_entropy; least squares, "
        "the hinge, the cross-entropy of examples less the mean of the others (relativistic "
        "average), or the difference of the means, which needs `gradient_penalty` or "
        "`discriminator.spectral_norm`.",
    )


class Flow(Settings):
    """Conditional flow matching (arXiv:2210.02747): samples of the truth, given the inputs."""

    steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        8, description="Steps (Heun's, two evaluations each) from noise to a sample."
    )


class DecompositionTraining(Training):
    """Training of a decomposition; defaults as published."""

    epochs: Count = Field(100, description="Most passes over the training set.")
    learning_rate: Positive = Field(0.0002, description="Adam's learning rate at the start.")
    beta_1: Rate = Field(0.5, description="Decay of Adam's mean of the gradients.")
    stop_patience: Count | None = Field(
        None, description="Epochs without a gain before training stops; null: it never does."
    )
    select: Selection = Field(Selection(by="last"), description="Which epoch's network is kept.")


class DecompositionRun(Settings):
    """A network that takes Q and U apart into E, kappa and B, and its judgement."""

    task: Literal["decomposition"] = Field(description="Take polarization apart.")
    dataset: Name = Field(description="Name of the dataset to train on.")
    tests: Annotated[tuple[Name, ...], AfterValidator(distinct)] = Field(
        (),
        description="Other datasets whose test sets it is judged on too; one without B (no "
        "tensors, no lensing) is the null test of B.",
    )
    beside: Annotated[tuple[Name, ...], AfterValidator(distinct)] = Field(
        (),
        description="Other decomposition runs on the same dataset that it is shown beside; the "
        "first one with `method: plain` says what the adversary bought and cost.",
    )
    inputs: Fields = Field(("q_obs", "u_obs"), description="Fields in.")
    targets: Fields = Field(("e_sky", "kappa", "b_sky"), description="Fields out.")
    normalize: bool = Field(
        True, description="Scale fields to mean 0 and deviation 1, or leave them in their units."
    )
    method: Literal["plain", "adversarial", "flow"] = Field(
        "adversarial",
        description="Train by the difference to the truth alone, against a discriminator too, or "
        "for samples by flow matching.",
    )
    after: Name | None = Field(
        None,
        description="Run whose network comes first: its outputs, and E and B of its Q and U, are "
        "further inputs. With `method: flow` its outputs are the means that samples differ from.",
    )
    joint: bool = Field(
        False, description="Train the network of `after` too; its outputs count as targets."
    )
    start: Name | None = Field(
        None, description="Run of the same layout whose weights training starts from."
    )
    network: DecompositionNetwork = Field(
        DecompositionNetwork(), description="The generator and its size."
    )
    discriminator: PatchDiscriminator = Field(PatchDiscriminator(), description="Its opponent.")
    noise_channels: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Maps of white noise among the generator's inputs: it then makes samples."
    )
    samples: Annotated[int, Field(ge=2, le=1000)] = Field(
        16, description="Samples of each test patch, where there are any; their mean is judged."
    )
    gain: Literal["auto", "none", "power", "wiener"] = Field(
        "auto",
        description="Isotropic filter of each output, learned on the validation set: none, that "
        "which brings its power to the truth's, or that of the least error; `auto`: power with "
        "`method: adversarial`, else none. No phase changes.",
    )
    losses: DecompositionLosses = Field(
        DecompositionLosses(), description="What outputs are to have in common with the truth."
    )
    training: DecompositionTraining = Field(DecompositionTraining(), description="How to train it.")
    adversarial: DecompositionAdversarial = Field(
        DecompositionAdversarial(), description="The discriminator's part in it."
    )
    flow: Flow = Field(Flow(), description="How samples are drawn with `method: flow`.")

    @property
    def makes_samples(self) -> bool:
        """Whether one observation gives many samples."""
        return self.method == "flow" or self.noise_channels > 0

    @property
    def filter(self) -> Literal["none", "power", "wiener"]:
        """The kind of gain that outputs get."""
        if self.gain == "auto":
            return "power" if self.method == "adversarial" else "none"
        return self.gain

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs whose networks this one is made of, or starts from."""
        return tuple(name for name in (self.after, self.start) if name is not None)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_correctable(self.network.name, self.inputs, self.targets)
        if self.joint and self.after is None:
            raise ValueError("joint: expected a run `after` with it, found none")
        fixed = {"joint": self.joint, "noise_channels": self.noise_channels, "gain": self.filter}
        for (key, found), wanted in zip(fixed.items(), (False, 0, "none"), strict=True):
            if self.method == "flow" and found != wanted:
                raise ValueError(f"{key}: expected {wanted!r} with `method: flow`, found {found!r}")
        if self.after is not None and self.noise_channels:
            raise ValueError(
                f"noise_channels: expected 0 with a run `after`, found {self.noise_channels}"
            )
        if not self.noise_channels and self.adversarial.fidelity_draws > 1:
            raise ValueError(
                "adversarial.fidelity_draws: expected 1 without `noise_channels`, found "
                f"{self.adversarial.fidelity_draws}"
            )
        if self.method == "flow" and (self.losses.spectrum or self.losses.energy):
            raise ValueError(
                "losses: expected neither spectrum nor energy with `method: flow`, found "
                f"{self.losses.spectrum:g} and {self.losses.energy:g}"
            )
        if self.noise_channels and self.method == "plain":
            raise ValueError(
                "noise_channels: expected 0 with `method: plain`, which has nothing to learn from "
                f"them, found {self.noise_channels}"
            )
        if self.method == "plain" and not self.adversarial.fidelity:
            raise ValueError(
                "adversarial.fidelity: expected more than 0 with `method: plain`, whose losses it "
                "weighs, found 0"
            )
        if self.losses.energy:
            self._check_energy()
        if self.method == "adversarial":
            self._check_discriminator()
        return self

    def _check_discriminator(self) -> None:
        """Raise `ValueError` for a discriminator that does not go with its loss."""
        penalty, settings = self.adversarial.gradient_penalty, self.discriminator
        if penalty and settings.batch_norm:
            raise ValueError(
                "discriminator.batch_norm: expected false with `adversarial.gradient_penalty`, "
                "which is each example's own, found True"
            )
        if self.adversarial.loss == "wasserstein" and not (penalty or settings.spectral_norm):
            raise ValueError(
                "adversarial.gradient_penalty: expected more than 0, or "
                "`discriminator.spectral_norm`, with `loss: wasserstein`, found 0"
            )

    def _check_energy(self) -> None:
        """Raise `ValueError` where E, B, Q and U are not all there, one of each."""
        for stokes, fields in (
            ("e", (*self.targets, *self.inputs)),
            ("b", (*self.targets, *self.inputs)),
            ("q", self.inputs),
            ("u", self.inputs),
        ):
            if not any(field.startswith(f"{stokes}_") for field in fields):
                where = "inputs" if stokes in "qu" else "targets"
                raise ValueError(
                    f"{where}: expected {stokes.upper()} among them with `losses.energy`, found "
                    f"{', '.join(getattr(self, where))}"
                )


def chain_of(name: str, runs: Mapping[str, Any]) -> Iterator[str]:
    """Names of all runs that a decomposition run needs, the nearest first.

    Raises `ValueError` where it needs itself.
    """
    waiting, seen = list(runs[name].needs), set()
    while waiting:
        one = waiting.pop(0)
        if one == name:
            raise ValueError(f"after: expected no run that itself comes after {name!r}, found one")
        if one in seen or one not in runs:
            continue
        seen.add(one)
        yield one
        waiting += getattr(runs[one], "needs", ())
