"""What a task says of the training of its networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    import keras

    from skyweave.data.feed import BatchFeed, Feed
    from skyweave.data.normalization import Normalization
    from skyweave.networks.card import TrainedNetwork
    from skyweave.training.method import Method


@dataclass(frozen=True)
class Recipe:
    """How the network of a run is trained, and by what its epochs are compared."""

    inputs: Sequence[str]
    targets: Sequence[str]
    #: The kind of training of a network, whose maps are normalized so.
    method: Callable[["keras.Model", "Normalization"], "Method"]
    #: A table of what a network does on the validation set.
    score: Callable[["TrainedNetwork"], pd.DataFrame]
    #: What an epoch is compared by, one number a field, from the rows of that table.
    fields: Sequence[str]
    worth: Callable[[pd.DataFrame, str], float]
    #: Whether the largest is best.
    largest: bool
    #: Rms of the noise that is added to the inputs.
    noise: float = 0.0
    #: Plain values of the training set that the card keeps.
    known: Mapping[str, Any] = field(default_factory=dict)
    #: The network, where it is not what the settings of the run's network say alone.
    build: Callable[["Normalization"], "keras.Model"] | None = None
    #: What becomes of a trained network before it is kept.
    finish: Callable[["TrainedNetwork"], "keras.Model"] | None = None
    #: Fields that losses read beside the targets.
    beside: Sequence[str] = ()
    #: Channels of noise behind the inputs in each batch.
    drawn: int = 0
    #: Inputs of the network that are no fields of a dataset.
    further: Sequence[str] = ()
    #: The fields that some of these are scaled as; the others are not scaled.
    alike: Mapping[str, str] = field(default_factory=dict)
    #: What is fed of a part of the split, where it is not the maps as they are.
    feed: Callable[["BatchFeed", str, "Normalization"], "Feed"] | None = None
    #: Whether fields are scaled to mean 0 and deviation 1.
    normalize: bool = True
    #: Random numbers that the network makes its outputs of; it then has no inputs.
    latent: int = 0
    #: What is done with the method after each epoch, given its number and the folder of the state.
    watch: Callable[["Method", Path, int], None] | None = None
    #: What tells this training from others of the same network and method.
    identity: Mapping[str, Any] = field(default_factory=dict)
