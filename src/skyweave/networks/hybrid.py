"""A network that corrects estimates of its outputs which it finds among its inputs.

An estimator (quadratic, iterative, Wiener) holds the physics that is known; what is left to learn
is its error. Each output is a linear combination of the inputs, which starts as the best estimate
of it among them, plus the correction of a compact residual U-Net, which starts at zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from skyweave.config.runs import estimate_of
from skyweave.networks import parts, variance
from skyweave.networks.parts import Tensor


def build(
    pixels: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    width: float = 1.0,
    dropout: float = 0.0,
    seed: int = 0,
    *,
    uncertainty: bool = False,
    deviations: Mapping[str, float] | None = None,
) -> keras.Model:
    """Network from (n, pixels, pixels, len(inputs)) to {output: (n, pixels, pixels, 1)}.

    Maps are normalized: `deviations` are what fields were divided by, so that an untrained output
    is its estimate, not one of the output's variance; equal ones if None. An output without an
    estimate starts at zero. `width` is a factor on the channels (32, 64 and 128 at full, half and
    quarter resolution), which stay multiples of 4. Estimate, correction and sum are float32 under
    any precision policy. With `uncertainty` each output has its `variance.log_variance` beside it.
    Raises `UserError` where `pixels` is not a multiple of 4.
    """
    fine, half, quarter = (parts.channels(base, width) for base in (32, 64, 128))
    part = _Parts(dropout, seed)
    image = parts.image(pixels, len(inputs))

    x = part.conv(image, fine, "stem", kernel=5)
    skip_1 = part.block(part.product(part.block(x, "full_a"), "product"), "full_b")
    x = part.conv(layers.AveragePooling2D(2, name="half_pool")(skip_1), half, "half")
    skip_2 = part.block(part.block(x, "half_a"), "half_b")
    x = part.conv(layers.AveragePooling2D(2, name="quarter_pool")(skip_2), quarter, "quarter")
    x = part.block(part.block(x, "quarter_a"), "quarter_b")
    x = part.block(part.up(x, skip_2, half, "half_up"), "half_c")
    shared = part.block(part.up(x, skip_1, fine, "full_up"), "full_c")

    heads = {}
    for name in outputs:
        x = part.conv(part.active(shared, f"{name}_in"), fine, f"{name}_hidden")
        x = part.conv(part.active(x, name), 1, f"{name}_correction", zero=True, dtype="float32")
        linear = layers.Conv2D(1, 1, use_bias=False, dtype="float32", name=f"{name}_linear")
        heads[name] = layers.Add(dtype="float32", name=name)([linear(image), x])
        linear.kernel.assign(_first(name, inputs, deviations))
    if uncertainty:
        small = max(8, parts.channels(16, width))
        heads |= {
            name + variance.SUFFIX: variance.log_variance(
                image, shared, heads[name], name, small, seed
            )
            for name in outputs
        }
    return keras.Model(image, heads, name="hybrid")


def _first(name: str, inputs: Sequence[str], deviations: Mapping[str, float] | None) -> np.ndarray:
    """Weights (1, 1, inputs, 1) that make the estimate of an output of normalized inputs."""
    kernel = np.zeros((1, 1, len(inputs), 1), np.float32)
    estimate = estimate_of(name, inputs)
    if estimate is not None:
        ratio = deviations[estimate] / deviations[name] if deviations else 1.0
        kernel[0, 0, list(inputs).index(estimate), 0] = ratio
    return kernel


@dataclass(frozen=True)
class _Parts:
    """The pieces that the network repeats.

    Nothing is normalized within: batches are small, and what a network adds to an estimate should
    not depend on the batch. Instead each block starts as the identity (Zhang, Dauphin & Ma 2019,
    arXiv 1901.09321).
    """

    dropout: float
    seed: int

    def block(self, x: Tensor, name: str) -> Tensor:
        """`x` + silu → convolution 3×3 → silu → [dropout] → convolution 3×3, which starts at 0."""
        y = self.conv(self.active(x, f"{name}_1"), x.shape[-1], f"{name}_1")
        y = self.active(y, f"{name}_2")
        y = parts.dropout(y, self.dropout, self.seed, name)
        y = self.conv(y, x.shape[-1], f"{name}_2", zero=True)
        return layers.Add(name=f"{name}_add")([x, y])

    def product(self, x: Tensor, name: str) -> Tensor:
        """`x` + convolution of the products of two convolutions 5×5 of it, channel by channel.

        So is a quadratic estimator made, of E and B each filtered; sums and silu alone would need
        many layers for it. Starts at `x`.
        """
        factors = [self.conv(x, x.shape[-1], f"{name}_{factor}", kernel=5) for factor in "ab"]
        y = layers.Multiply(name=f"{name}_multiply")(factors)
        y = self.conv(y, x.shape[-1], f"{name}_out", zero=True)
        return layers.Add(name=f"{name}_add")([x, y])

    def up(self, x: Tensor, skip: Tensor, channels: int, name: str) -> Tensor:
        """Nearest ×2, joined with the features of that resolution → convolution 3×3."""
        x = layers.UpSampling2D(name=f"{name}_nearest")(x)
        return self.conv(layers.Concatenate(name=f"{name}_concat")([x, skip]), channels, name)

    def active(self, x: Tensor, name: str) -> Tensor:
        """The nonlinearity, smooth as the maps are."""
        return layers.Activation("silu", name=f"{name}_silu")(x)

    def conv(
        self,
        x: Tensor,
        channels: int,
        name: str,
        *,
        kernel: int = 3,
        zero: bool = False,
        dtype: str | None = None,
    ) -> Tensor:
        """Convolution with bias, same padding; weights at zero, or drawn by the layer's name."""
        drawn = keras.initializers.LecunNormal(seed=parts.draw(self.seed, name, 0))
        return layers.Conv2D(
            channels,
            kernel,
            padding="same",
            kernel_initializer="zeros" if zero else drawn,
            dtype=dtype,
            name=f"{name}_conv",
        )(x)
