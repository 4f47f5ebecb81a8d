"""From the settings of a network to the network."""

from collections.abc import Mapping, Sequence

import keras

from skyweave.config import ForseNetwork, Network
from skyweave.config.decomposition import DecompositionNetwork, PatchDiscriminator
from skyweave.config.inpainting import InpaintingNetwork
from skyweave.networks import astroencoder, forse, hybrid, pconv_unet, pix2pix, resunet_cmb


def build(
    settings: Network | DecompositionNetwork | ForseNetwork | InpaintingNetwork,
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
    if isinstance(settings, InpaintingNetwork):
        return pconv_unet.build(
            pixels,
            outputs,
            settings.width,
            seed,
            filters=settings.filters,
            kernels=settings.kernels,
            batch_norm=settings.batch_norm,
            start=[name for name in inputs if name.startswith("start_")],
        )
    size = (pixels, tuple(inputs), tuple(outputs), settings.width, settings.dropout, seed)
    if isinstance(settings, DecompositionNetwork) and settings.name != "hybrid":
        if settings.name == "pix2pix":
            return pix2pix.build(
                *size, kernel=settings.kernel or 4, skips=settings.skips, biases=settings.biases
            )
        return astroencoder.build(
            *size,
            kernel=settings.kernel or 5,
            skips=settings.skips,
            residuals=settings.residuals,
            biases=settings.biases,
            stem=settings.stem,
        )
    if isinstance(settings, ForseNetwork):
        return forse.build(*size, batch_norm=settings.batch_norm)
    uncertainty = isinstance(settings, Network) and settings.uncertainty
    if settings.name == "hybrid":
        return hybrid.build(*size, uncertainty=uncertainty, deviations=deviations)
    return resunet_cmb.build(*size, uncertainty=uncertainty)


def build_discriminator(
    settings: ForseNetwork | PatchDiscriminator, pixels: int, channels: int, seed: int
) -> keras.Model:
    """Discriminator of maps (n, pixels, pixels, channels), which gives logits (n, …)."""
    if isinstance(settings, PatchDiscriminator):
        return pix2pix.discriminator(
            pixels,
            channels,
            settings.width,
            settings.dropout,
            seed,
            kernel=settings.kernel,
            layers=settings.layers,
            biases=settings.biases,
            batch_norm=settings.batch_norm,
            spectral_norm=settings.spectral_norm,
        )
    return forse.discriminator(
        pixels,
        channels,
        settings.width,
        settings.discriminator_dropout,
        seed,
        batch_norm=settings.batch_norm,
    )
