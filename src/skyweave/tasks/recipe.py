"""What a task says of the training of its networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    import keras

    from skyweave.networks.card import TrainedNetwork
    from skyweave.training.method import Method


@dataclass(frozen=True)
class Recipe:
    """How the network of a run is trained, and by what its epochs are compared."""

    inputs: Sequence[str]
    targets: Sequence[str]
    #: The kind of training of a network.
    method: Callable[["keras.Model"], "Method"]
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
