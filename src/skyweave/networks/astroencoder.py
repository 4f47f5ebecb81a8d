"""astroDGAN's generator: the residual U-Net of ResUNet-CMB with switches."""

from collections.abc import Sequence
from string import ascii_lowercase

import keras

from skyweave.errors import UserError
from skyweave.networks import parts
from skyweave.networks.resunet_cmb import Layout


def build(
    pixels: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    width: float = 1.0,
    dropout: float = 0.5,
    seed: int = 0,
    *,
    kernel: int = 5,
    skips: bool = True,
    residuals: bool = True,
    biases: bool = True,
    stem: int = 2,
) -> keras.Model:
    """Network from (n, pixels, pixels, len(inputs)) to {output: (n, pixels, pixels, 1)}.

    The layout is that of `resunet_cmb` with convolutions of `kernel` pixels a side. `skips` are the
    two concatenations that hand features of the encoder to the decoder, `residuals` all additive
    connections, of which one passes the bottleneck by too, `biases` those of all convolutions, and
    `stem` counts the blocks at full resolution that each output has for itself. `width` is a factor
    on the channels, which stay multiples of 4. The last layers compute in float32.

    Unlike there no batch norm follows the last convolution. It would give each training batch's
    output the same mean and variance whatever the truths' are, so that the power of one map hung on
    the others beside it, a discriminator could tell batches by it, and prediction, which uses
    moving averages, would have another power than what was trained.

    Raises `UserError` where `pixels` is not a multiple of 4, and for a `kernel` or `stem` that
    cannot be built.
    """
    parts.check_strided(kernel, "network.kernel")
    if not 0 <= stem <= len(ascii_lowercase):
        raise UserError("network.stem", f"0 to {len(ascii_lowercase)} blocks", stem)
    image = parts.image(pixels, len(inputs))
    layout = Layout(width, dropout, seed, kernel, skips, residuals, biases, stem)
    shared, decoded = layout.body(image)
    heads = {name: layout.head(shared, decoded, name) for name in outputs}
    return keras.Model(image, heads, name="astroencoder")
