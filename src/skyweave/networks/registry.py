"""From the settings of a network to the network."""

from collections.abc import Callable, Sequence

import keras

from skyweave.config import Network
from skyweave.errors import UserError
from skyweave.networks import resunet_cmb

#: Builders by name: (pixels, inputs, outputs, width, dropout, seed) → model.
BUILDERS: dict[str, Callable[..., keras.Model]] = {"resunet_cmb": resunet_cmb.build}


def build(
    settings: Network, pixels: int, inputs: Sequence[str], outputs: Sequence[str], seed: int
) -> keras.Model:
    """Network from maps (n, pixels, pixels, len(inputs)) to {output: (n, pixels, pixels, 1)}.

    The weights are drawn by `seed` and by the layers' names. Raises `UserError` for a name that is
    not in the registry or a grid that the architecture cannot take.
    """
    if settings.name not in BUILDERS:
        raise UserError("network.name", f"one of {', '.join(sorted(BUILDERS))}", settings.name)
    return BUILDERS[settings.name](
        pixels=pixels,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        width=settings.width,
        dropout=settings.dropout,
        seed=seed,
    )
