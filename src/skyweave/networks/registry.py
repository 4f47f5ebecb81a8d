"""From the settings of a network to the network."""

from collections.abc import Mapping, Sequence

import keras

from skyweave.config import ForseNetwork, Network
from skyweave.networks import forse, hybrid, resunet_cmb


def build(
    settings: Network | ForseNetwork,
    pixels: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    seed: int,
    deviations: Mapping[str, float] | None = None,
) -> keras.Model:
    """Network from maps (n, pixels, pixels, len(inputs)) to {output: (n, pixels, pixels, 1)}.

    The weights are drawn by `seed` and by the layers' names; `deviations` are the fields' standard
    deviations, by which their maps are normalized, for a network that starts at an estimate.
    Raises `UserError` for a grid that the architecture cannot take.
    """
    size = (pixels, tuple(inputs), tuple(outputs), settings.width, settings.dropout, seed)
    if isinstance(settings, ForseNetwork):
        return forse.build(*size, batch_norm=settings.batch_norm)
    if settings.name == "hybrid":
        return hybrid.build(*size, uncertainty=settings.uncertainty, deviations=deviations)
    return resunet_cmb.build(*size, uncertainty=settings.uncertainty)


def build_discriminator(
    settings: ForseNetwork, pixels: int, channels: int, seed: int
) -> keras.Model:
    """Discriminator of maps (n, pixels, pixels, channels), which gives logits (n, 1)."""
    return forse.discriminator(
        pixels,
        channels,
        settings.width,
        settings.discriminator_dropout,
        seed,
        batch_norm=settings.batch_norm,
    )
