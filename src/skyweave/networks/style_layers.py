"""Layers of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958).

Learning rates are equalized (Karras et al. 2018, arXiv 1710.10196): weights start as normal numbers
and are scaled where they are used, by one over the square root of a unit's inputs. Factors are put
on weights and biases, not on maps, which are larger: the rectifier commutes with them.
"""

from functools import cache
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from skyweave.networks.parts import Tensor

#: What keeps the variance through a rectifier of slope 0.2.
_GAIN = 2**0.5
_SLOPE = 0.2
_TINY = 1e-8
#: The filter of all changes of resolution, along y and x.
_TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
#: Most examples whose deviation is one number.
_GROUP = 4


@cache
def _matrix(size: int, out: int, before: int, *, up: int = 1, down: int = 1) -> np.ndarray:
    """(out, size): the filter on pixels with `up` - 1 zeros between, every `down`-th of it.

    `before` zeros lie before the first pixel; beyond the last there are as many as it takes.
    """
    tap = up * np.arange(size) - down * np.arange(out)[:, None] + before
    inside = (tap >= 0) & (tap < len(_TAPS))
    return np.where(inside, np.take(_TAPS, tap, mode="clip"), 0).astype(np.float32)


def _filtered(x: Tensor, matrix: np.ndarray) -> Tensor:
    """Maps (n, y, x, channels) with the matrix on y and on x.

    As products of matrices, which all backends have fast and with second derivatives.
    """
    out, size = matrix.shape
    channels = x.shape[-1]
    weights = ops.cast(matrix, x.dtype)
    x = ops.matmul(weights, ops.reshape(x, (-1, size, size * channels)))
    x = ops.matmul(weights, ops.reshape(x, (-1, size, channels)))
    return ops.reshape(x, (-1, out, out, channels))


def _normal(seed: int, deviation: float = 1.0) -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=deviation, seed=seed)


def _convolved(x: Tensor, kernel: Tensor) -> Tensor:
    return ops.conv(x, kernel, 1, "same", data_format="channels_last")


@keras.saving.register_keras_serializable("skyweave")
class PixelNorm(layers.Layer):
    """Numbers (n, d) over their root mean square, float32 in any policy."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**(options | {"dtype": "float32"}))

    def call(self, x: Tensor) -> Tensor:
        """(n, d) → (n, d)."""
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + _TINY)


@keras.saving.register_keras_serializable("skyweave")
class Row(layers.Layer):
    """Row `at` of (n, rows, d): the style of a layer; float32 in any policy."""

    def __init__(self, at: int, **options: Any) -> None:
        super().__init__(**(options | {"dtype": "float32"}))
        self.at = int(at)

    def call(self, x: Tensor) -> Tensor:
        """(n, rows, d) → (n, d)."""
        return x[:, self.at]

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return super().get_config() | {"at": self.at}


@keras.saving.register_keras_serializable("skyweave")
class EqualizedDense(layers.Layer):
    """Dense layer with an equalized learning rate, float32 in any policy.

    It learns `rate` times as fast as others. Biases start at `start`. With `leaky` a leaky
    rectifier follows, times the square root of 2.
    """

    def __init__(
        self,
        units: int,
        seed: int = 0,
        rate: float = 1.0,
        start: float = 0.0,
        leaky: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**(options | {"dtype": "float32"}))
        self.units, self.seed = int(units), int(seed)
        self.rate, self.start, self.leaky = float(rate), float(start), leaky

    def build(self, input_shape: tuple) -> None:
        """Make the weights: `kernel` (inputs, units) and `bias` (units,)."""
        self._scale = self.rate / input_shape[-1] ** 0.5
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer=_normal(self.seed, 1 / self.rate),
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.units,),
            initializer=keras.initializers.Constant(self.start / self.rate),
            name="bias",
        )

    def call(self, x: Tensor) -> Tensor:
        """(n, inputs) → (n, units)."""
        gain = _GAIN if self.leaky else 1.0
        x = x @ (self.kernel * (gain * self._scale)) + self.bias * (gain * self.rate)
        return ops.leaky_relu(x, _SLOPE) if self.leaky else x

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return super().get_config() | {
            "units": self.units,
            "seed": self.seed,
            "rate": self.rate,
            "start": self.start,
            "leaky": self.leaky,
        }


@keras.saving.register_keras_serializable("skyweave")
class LearnedStart(layers.Layer):
    """The same map (size, size, channels) for each example, which is learned."""

    def __init__(self, size: int, channels: int, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.size, self.channels, self.seed = int(size), int(channels), int(seed)

    def build(self, input_shape: tuple) -> None:
        """Make the weights: `map` (size, size, channels), normal numbers."""
        self.map = self.add_weight(
            shape=(self.size, self.size, self.channels), initializer=_normal(self.seed), name="map"
        )

    def call(self, examples: Tensor) -> Tensor:
        """Anything (n, …) → (n, size, size, channels)."""
        shape = (ops.shape(examples)[0], self.size, self.size, self.channels)
        return ops.broadcast_to(ops.cast(self.map, self.compute_dtype)[None], shape)

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return super().get_config() | {
            "size": self.size,
            "channels": self.channels,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable("skyweave")
class Resample(layers.Layer):
    """Twice as many pixels a side with `up`, or half as many, by the filter 1, 3, 3, 1."""

    def __init__(self, up: bool, **options: Any) -> None:
        super().__init__(**options)
        self.up = up

    def call(self, x: Tensor) -> Tensor:
        """(n, y, x, channels) → (n, 2y, 2x, channels) or (n, y/2, x/2, channels)."""
        size = x.shape[1]
        if self.up:
            return _filtered(x, 2 * _matrix(size, 2 * size, 2, up=2))
        return _filtered(x, _matrix(size, size // 2, 1, down=2))

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return super().get_config() | {"up": self.up}


@keras.saving.register_keras_serializable("skyweave")
class EqualizedConv2D(layers.Layer):
    """Convolution with an equalized learning rate, times `gain`.

    With `down` a kernel of 3×3 gives every second pixel of maps that the filter 1, 3, 3, 1 went
    over. With `leaky` there are biases, which start at 0, and a leaky rectifier, times the square
    root of 2.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        seed: int = 0,
        down: bool = False,
        leaky: bool = True,
        gain: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.filters, self.kernel_size, self.seed = int(filters), int(kernel_size), int(seed)
        self.down, self.leaky, self.gain = down, leaky, float(gain)

    def build(self, input_shape: tuple) -> None:
        """Make the weights: `kernel` (height, width, channels, filters) and `bias` (filters,)."""
        side, channels = self.kernel_size, input_shape[-1]
        self._scale = 1 / (side**2 * channels) ** 0.5
        self.kernel = self.add_weight(
            shape=(side, side, channels, self.filters),
            initializer=_normal(self.seed),
            name="kernel",
        )
        if self.leaky:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, x: Tensor) -> Tensor:
        """(n, y, x, channels) → (n, y, x, filters), with `down` of half the pixels a side."""
        gain = self.gain * (_GAIN if self.leaky else 1.0)
        kernel = self.kernel * (gain * self._scale)
        if self.down:
            # Not a stride of the filter's own: the kernel reaches one pixel beyond the map.
            x = _filtered(x, _matrix(x.shape[1], x.shape[1] + 1, 2))
            x = ops.conv(x, kernel, 2, "valid", data_format="channels_last")
        else:
            x = _convolved(x, kernel)
        return ops.leaky_relu(x + self.bias * gain, _SLOPE) if self.leaky else x

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "seed": self.seed,
            "down": self.down,
            "leaky": self.leaky,
            "gain": self.gain,
        }


@keras.saving.register_keras_serializable("skyweave")
class ModulatedConv2D(layers.Layer):
    """Convolution whose weights are each example's own: modulated, and demodulated, by its style.

    Called with `[features, style]`: (n, y, x, channels) and (n, channels). The weights of an
    example are the kernel times its style, channel by channel, over the root sum of squares that
    this gives for an output, so that outputs of independent inputs have the variance of these.
    Scaling inputs and outputs instead is the same, and one convolution does all examples.

    With `up` the maps have twice the pixels a side: a transposed convolution, then the filter 1, 3,
    3, 1. With `noise_seed` there is noise, one number a pixel, times a strength that is learned
    from 0 on; it is drawn in and out of training from a state that starts at this seed, and that
    `reseed` sets. Then come biases, which start at 0, a leaky rectifier times the square root of 2,
    and `gain`. Without `active` there are only the modulated convolution and biases.

    The factors of demodulation and the noise are float32 in any policy.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        seed: int = 0,
        up: bool = False,
        active: bool = True,
        noise_seed: int | None = None,
        gain: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(autocast=False, **options)
        self.filters, self.kernel_size, self.seed = int(filters), int(kernel_size), int(seed)
        self.up, self.active, self.noise_seed = up, active, noise_seed
        self.gain = float(gain)
        if noise_seed is not None:
            self.numbers = keras.random.SeedGenerator(noise_seed)

    def build(self, input_shape: list[tuple]) -> None:
        """Make `kernel` (height, width, channels, filters), `bias` (filters,) and `strength` ()."""
        side, channels = self.kernel_size, input_shape[0][-1]
        self._scale = 1 / (side**2 * channels) ** 0.5

        def add(name: str, shape: tuple, initializer: Any) -> keras.Variable:
            return self.add_weight(shape=shape, initializer=initializer, autocast=False, name=name)

        self.kernel = add("kernel", (side, side, channels, self.filters), _normal(self.seed))
        self.bias = add("bias", (self.filters,), "zeros")
        if self.noise_seed is not None:
            self.strength = add("strength", (), "zeros")

    def call(self, inputs: list[Tensor]) -> Tensor:
        """(n, y, x, channels) → (n, y, x, filters), with `up` of twice the pixels a side."""
        x, style = inputs
        kernel, style = self.kernel * self._scale, ops.cast(style, "float32")
        y = self._large(x) * self._large(style)[:, None, None]
        if self.up:
            turned = ops.transpose(self._large(kernel), (0, 1, 3, 2))
            y = ops.conv_transpose(y, turned, 2, "valid", data_format="channels_last")
            y = _filtered(y, 2 * _matrix(y.shape[1], y.shape[1] - 1, 1))
        else:
            y = _convolved(y, self._large(kernel))
        if not self.active:
            return y + self._large(self.bias)
        gain = _GAIN * self.gain
        squares = ops.square(style) @ ops.sum(ops.square(kernel), axis=(0, 1))
        y = y * self._large(gain * ops.rsqrt(squares + _TINY))[:, None, None]
        if self.noise_seed is not None:
            noise = keras.random.normal((*ops.shape(y)[:3], 1), seed=self.numbers, dtype="float32")
            y = y + self._large(noise * (gain * self.strength))
        return ops.leaky_relu(y + self._large(gain * self.bias), _SLOPE)

    def reseed(self, seed: int) -> None:
        """Draw noise from the beginning of what `seed` gives, if there is noise."""
        if self.noise_seed is not None:
            self.numbers.state.assign(keras.random.SeedGenerator(seed).state)

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "seed": self.seed,
            "up": self.up,
            "active": self.active,
            "noise_seed": self.noise_seed,
            "gain": self.gain,
        }

    def _large(self, x: Tensor) -> Tensor:
        """In the precision of the maps."""
        return ops.cast(x, self.compute_dtype)


@keras.saving.register_keras_serializable("skyweave")
class MinibatchDeviation(layers.Layer):
    """A channel more: the standard deviation over examples, mean over pixels and channels.

    Over groups of 4 examples, or of 3 or 2 where the batch is not a multiple of 4, or else over the
    whole batch; a batch of n in groups of g has the examples i, i + n/g, i + 2n/g, … in one. The
    channel is the same number for all of a group; float32 in any policy (Karras et al. 2018, arXiv
    1710.10196).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**(options | {"dtype": "float32"}))

    def call(self, x: Tensor) -> Tensor:
        """(n, y, x, channels) → (n, y, x, channels + 1)."""
        grouped = ops.reshape(x, (_group(ops.shape(x)[0]), -1, *x.shape[1:]))
        deviation = ops.sqrt(ops.var(grouped, axis=0) + _TINY)
        level = ops.mean(deviation, axis=(1, 2, 3), keepdims=True)
        channel = ops.zeros_like(grouped[..., :1]) + level
        return ops.concatenate([x, ops.reshape(channel, (-1, *x.shape[1:3], 1))], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Said here because JAX cannot choose groups in a batch of unknown size."""
        return (*input_shape[:-1], input_shape[-1] + 1)


def _group(count: Any) -> Any:
    """Examples of a group in a batch of `count`: a number or, where that is not known, a tensor."""
    size = count
    for each in range(2, _GROUP + 1):
        if isinstance(count, int):
            size = each if count % each == 0 else size
        else:
            size = ops.where(count % each == 0, each, size)
    return size
