"""Convolutions that look at the seen pixels of a map only (Liu et al. 2018, arXiv 1804.07723)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from skyweave.errors import UserError

#: A tensor (n, y, x, channels); Keras has no type that mypy knows.
Tensor = Any


@keras.saving.register_keras_serializable("skyweave")
class PartialConv2D(layers.Layer):
    """W (x · m) · (window / Σ m) + b where a window has seen pixels, and 0 where it has none.

    Called with `[features, seen]`: features (n, y, x, C), and `seen` (n, y, x, 1) or (n, y, x, C),
    0 where they are missing. Gives features (n, y', x', filters) and where they saw anything,
    (n, y', x', 1), 1 or 0. More features may follow, `[features, seen, features, seen, …]`, each
    with its own `seen`, the last perhaps without if nothing of it is missing: as if they and their
    `seen` were joined channel by channel.

    The window counts pixels inside the map times channels, Σ m the seen ones among them. Where all
    is seen this is therefore a plain convolution, at the edges of `same` padding too. What lies in
    holes has neither influence nor gradient, as long as it is finite. No gradient flows to `seen`.
    Sums of `seen` are float32 under any precision policy. The kernel starts as a draw by `seed`
    (He et al. 2015), or with `zero` at 0; the bias starts at 0. Raises `UserError` for a padding
    other than `same` and `valid`, and for a `seen` of another number of channels.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "same",
        use_bias: bool = True,
        seed: int = 0,
        zero: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if padding not in ("same", "valid"):
            raise UserError("padding", "same or valid", padding)
        self.filters, self.padding, self.use_bias = int(filters), padding, use_bias
        self.kernel_size, self.strides = _pair(kernel_size), _pair(strides)
        self.seed, self.zero = int(seed), zero

    def build(self, input_shape: Sequence[tuple]) -> None:
        """Make the weights: `kernel` (height, width, channels, filters) and `bias` (filters,)."""
        self._channels = [shape[-1] for shape in input_shape[::2]]
        seen = [shape[-1] for shape in input_shape[1::2]]
        if not seen:
            raise UserError("inputs", "features and where they are seen", "features only")
        for channels, found in zip(self._channels, seen, strict=False):
            if found not in (1, channels):
                raise UserError("channels of `seen`", f"1 or {channels}", found)
        drawn = keras.initializers.HeNormal(seed=self.seed)
        self.kernel = self.add_weight(
            shape=(*self.kernel_size, sum(self._channels), self.filters),
            initializer="zeros" if self.zero else drawn,
            name="kernel",
        )
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features, and where they saw anything."""
        masks = [ops.not_equal(seen, 0) for seen in inputs[1::2]]
        features = [
            x * ops.cast(mask, x.dtype) for x, mask in zip(inputs[::2], masks, strict=False)
        ]
        features += inputs[::2][len(masks) :]
        x = features[0] if len(features) == 1 else ops.concatenate(features, axis=-1)
        # A mean of pooling is over the pixels inside the map, and exactly 0 where none was seen;
        # a convolution by ones may round.
        window = (self.kernel_size, self.strides, self.padding)
        share = ops.average_pool(self._seen_share(masks), *window, data_format="channels_last")
        seen = share > 0
        gain = ops.where(seen, 1 / ops.where(seen, share, 1.0), 0.0)
        y = ops.conv(x, self.kernel, self.strides, self.padding, data_format="channels_last")
        y, seen = y * ops.cast(gain, y.dtype), ops.cast(seen, y.dtype)
        return (y + self.bias * seen if self.use_bias else y), seen

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "use_bias": self.use_bias,
            "seed": self.seed,
            "zero": self.zero,
        }

    def _seen_share(self, masks: Sequence[Tensor]) -> Tensor:
        """Share of the channels that is seen at each pixel, (n, y, x, 1) float32."""
        seen: Tensor = sum(self._channels[len(masks) :])
        for channels, mask in zip(self._channels, masks, strict=False):
            each = ops.cast(mask, "float32")
            one_for_all = mask.shape[-1] == 1
            seen += channels * each if one_for_all else ops.sum(each, axis=-1, keepdims=True)
        return seen / sum(self._channels)


@keras.saving.register_keras_serializable("skyweave")
class Channels(layers.Layer):
    """Channels `first` … `first + count - 1` of (n, y, x, channels), float32 in any policy."""

    def __init__(self, first: int, count: int = 1, **options: Any) -> None:
        super().__init__(**(options | {"dtype": "float32"}))
        self.first, self.count = int(first), int(count)

    def call(self, x: Tensor) -> Tensor:
        """(n, y, x, channels) → (n, y, x, count)."""
        return x[..., self.first : self.first + self.count]

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return super().get_config() | {"first": self.first, "count": self.count}


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Numbers for y and x."""
    y, x = (size, size) if isinstance(size, int) else size
    return int(y), int(x)
