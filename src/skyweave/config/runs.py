"""Settings of networks, their training and their judgement."""

from typing import Annotated, Literal

from pydantic import Field

from skyweave.config.base import Count, Fields, Name, Positive, Settings


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
    warmup_updates: Annotated[int, Field(ge=0)] = Field(
        0, description="Updates in which the learning rate rises from zero to its start."
    )
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Factor on the learning rate when the validation loss stands still."
    )
    plateau_patience: Count = Field(3, description="Epochs without a gain before that.")
    stop_patience: Count = Field(10, description="Epochs without a gain before training stops.")
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
