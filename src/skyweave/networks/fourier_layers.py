"""Layers that act on the Fourier modes of patches, and one that changes the units of channels.

They compute in float32 under any precision policy, on either backend, and let gradients through.
`with_gains` puts isotropic filters behind the outputs of a network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotation
from skyweave.networks.variance import SUFFIX

#: A tensor (n, y, x, channels); Keras has no type that mypy knows.
Tensor = Any


class _Single(layers.Layer):
    """A layer in float32, whatever the policy."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**(options | {"dtype": "float32"}))


@keras.saving.register_keras_serializable(package="skyweave")
class Affine(_Single):
    """`scales` · x + `offsets`, a number a channel, of (n, y, x, channels).

    With `channels` of those channels of x, in that order.
    """

    def __init__(
        self,
        scales: Sequence[float],
        offsets: Sequence[float],
        channels: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.scales, self.offsets = [*map(float, scales)], [*map(float, offsets)]
        self.channels = None if channels is None else [*map(int, channels)]

    def call(self, x: Tensor) -> Tensor:
        """(n, y, x, channels) → (n, y, x, scales)."""
        if self.channels is not None:
            x = ops.take(x, np.array(self.channels, np.int32), axis=-1)
        return x * np.array(self.scales, np.float32) + np.array(self.offsets, np.float32)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """As many channels as scales."""
        return (*input_shape[:-1], len(self.scales))

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        own = {"scales": self.scales, "offsets": self.offsets, "channels": self.channels}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package="skyweave")
class AnalyticEB(_Single):
    """E and B (n, y, x, 2) of Q and U (n, y, x, 2), as `flat.polarization.qu_to_eb` gives them."""

    def __init__(self, pixels: int, **options: Any) -> None:
        super().__init__(**options)
        self.pixels = int(pixels)
        # The turn of a mode depends on its direction only, not on the size of the patch.
        cosine, sine = rotation(PatchGrid(1.0, self.pixels))
        self._cosine, self._sine = (_full_plane(part) for part in (cosine, sine))

    def call(self, x: Tensor) -> Tensor:
        """(Q + iU) turned by e^{-2i phi}, mode by mode, is E + iB."""
        real, imaginary = ops.fft2((x[..., 0], x[..., 1]))
        cosine, sine = self._cosine, self._sine
        turned = (real * cosine + imaginary * sine, imaginary * cosine - real * sine)
        return ops.stack(ops.ifft2(turned), axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """That of Q and U."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return super().get_config() | {"pixels": self.pixels}


@keras.saving.register_keras_serializable(package="skyweave")
class IsotropicGain(_Single):
    """The modes of maps (n, y, x, 1) times a gain that depends on the multipole alone.

    The weights `gains` (centres,), not trainable, are the gain at the multipoles `centres`, which
    increase; it is linear between them and constant beyond, and 1 for the mean. They start at 1.
    """

    def __init__(
        self, pixels: int, size_deg: float, centres: Sequence[float], **options: Any
    ) -> None:
        super().__init__(**options)
        self.pixels, self.size_deg = int(pixels), float(size_deg)
        self.centres = [*map(float, centres)]
        grid = PatchGrid(self.size_deg, self.pixels)
        ell = np.hypot(grid.ell_y, grid.ell_y.T)
        place = np.interp(ell, self.centres, np.arange(len(self.centres)))
        self._lower = np.floor(place).astype(np.int32)
        self._upper = np.ceil(place).astype(np.int32)
        self._share = (place - self._lower).astype(np.float32)
        self._mean = (ell == 0).astype(np.float32)

    def build(self, input_shape: tuple) -> None:
        """Make the weights."""
        self.gains = self.add_weight(
            shape=(len(self.centres),), initializer="ones", trainable=False, name="gains"
        )

    def call(self, x: Tensor) -> Tensor:
        """The maps (n, y, x, 1) filtered."""
        gains = ops.convert_to_tensor(self.gains)
        lower, upper = (ops.take(gains, index, axis=0) for index in (self._lower, self._upper))
        gain = lower + self._share * (upper - lower)
        gain = gain + self._mean * (1 - gain)
        real, imaginary = ops.fft2((x[..., 0], ops.zeros_like(x[..., 0])))
        filtered, _ = ops.ifft2((real * gain, imaginary * gain))
        return ops.expand_dims(filtered, -1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """That of the maps."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        own = {"pixels": self.pixels, "size_deg": self.size_deg, "centres": self.centres}
        return super().get_config() | own


def with_gains(model: keras.Model, size_deg: float, centres: Sequence[float]) -> keras.Model:
    """The same network, with the same variables, and an `IsotropicGain` behind each output.

    `centres` are the multipoles of the gains; `set_gains` gives their values. Logarithms of
    variances are left alone. Raises `UserError` for multipoles that do not increase.
    """
    values = np.asarray(centres, float)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise UserError("multipoles of gains", "finite ones, at least one", list(centres))
    if (np.diff(values) <= 0).any():
        raise UserError("multipoles of gains", "increasing ones", list(centres))
    pixels = model.input_shape[1]
    outputs = {
        name: output
        if name.endswith(SUFFIX)
        else IsotropicGain(pixels, size_deg, values.tolist(), name=_gain(name))(output)
        for name, output in model.output.items()
    }
    return keras.Model(model.input, outputs, name=model.name)


def set_gains(model: keras.Model, gains: Mapping[str, np.ndarray]) -> None:
    """Give outputs of a network made by `with_gains` their gains, (centres,) each.

    Raises `UserError` for an output without gains, and gains of another number or not finite.
    """
    there = {layer.name: layer for layer in model.layers if isinstance(layer, IsotropicGain)}
    for name, values in gains.items():
        layer = there.get(_gain(name))
        if layer is None:
            raise UserError("gains", f"one of {', '.join(there) or 'none'}", _gain(name))
        shape = (len(layer.centres),)
        if np.shape(values) != shape or not np.isfinite(values).all():
            raise UserError(f"gains of {name}", f"finite ones of shape {shape}", np.shape(values))
        layer.gains.assign(np.asarray(values, np.float32))


def is_gain(weight: str) -> bool:
    """Whether a weight, named by the layers that hold it, is one that `with_gains` has added."""
    return weight.endswith(f"{_gain('')}/gains")


def _gain(output: str) -> str:
    return f"{output}_gain"


def _full_plane(half: np.ndarray) -> np.ndarray:
    """An even function of the mode, (pixels, pixels // 2 + 1), on all modes, float32."""
    pixels = len(half)
    mirrored = half[-np.arange(pixels) % pixels]
    rest = pixels - np.arange(half.shape[1], pixels)
    return np.concatenate([half, mirrored[:, rest]], axis=1).astype(np.float32)
