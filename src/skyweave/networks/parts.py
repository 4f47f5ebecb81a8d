"""What networks repeat: inputs, channels, and draws by seed and a layer's name."""

from typing import Any

import keras
from keras import layers, ops

from skyweave import seeds
from skyweave.errors import UserError

#: A symbolic tensor (n, y, x, channels); Keras has no type that mypy knows.
Tensor = Any


def image(
    pixels: int, count: int, name: str = "inputs", *, where: str = "grid.pixels", multiple: int = 4
) -> Tensor:
    """Input (n, pixels, pixels, count).

    Raises `UserError` about the setting `where` unless `pixels` is a multiple of `multiple`.
    """
    if pixels < multiple or pixels % multiple:
        raise UserError(where, f"a multiple of {multiple}", pixels)
    return keras.Input((pixels, pixels, count), name=name)


def channels(base: int, width: float) -> int:
    """Multiple of 4 next to `width` times `base`, the channels of the published layer."""
    return max(4, 4 * round(base * width / 4))


def draw(seed: int, name: str, purpose: int) -> int:
    """Seed of what a layer draws: its first weights (`purpose` 0), or its dropout's masks (1)."""
    return int(seeds.generator(seed, "network", name, purpose).integers(2**31))


def dropout(x: Tensor, rate: float, seed: int, name: str) -> Tensor:
    """`x`, or dropout of it where there is a rate, as layer `<name>_dropout`."""
    if not rate:
        return x
    return layers.Dropout(rate, seed=draw(seed, name, 1), name=f"{name}_dropout")(x)


def check_strided(kernel: int, where: str) -> None:
    """Raise `UserError` for a kernel that steps of two pixels would leave gaps between."""
    if kernel < 2:
        raise UserError(where, "2 pixels or more, the step between resolutions", kernel)


@keras.saving.register_keras_serializable("skyweave")
class SpectralConv2D(layers.Conv2D):
    """Convolution by the kernel over its largest singular value (Miyato et al. 2018, 1802.05957).

    The kernel counts as a matrix of one column a filter. A call in training takes a step of the
    power iteration for the singular vector, which starts at a draw by `seed`; gradients flow
    through the singular value. `keras.layers.SpectralNormalization` overwrites the kernel itself in
    each call, even in those that only judge examples, and lets no gradient through the value.
    """

    def __init__(self, filters: int, kernel_size: Any, *, seed: int = 0, **options: Any) -> None:
        super().__init__(filters, kernel_size, **options)
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.vector = self.add_weight(
            shape=(self.filters, 1),
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=self.seed),
            trainable=False,
            autocast=False,
            dtype="float32",
            name="vector",
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        kernel = self.kernel / ops.cast(self._largest(training), self.compute_dtype)
        outputs = self.convolution_op(inputs, kernel)
        return self.activation(outputs + self.bias if self.use_bias else outputs)

    def _largest(self, training: bool) -> Any:
        """The largest singular value, from below."""
        matrix = ops.reshape(ops.cast(self.kernel, "float32"), (-1, self.filters))
        constant = ops.stop_gradient(matrix)
        right = ops.convert_to_tensor(self.vector)
        left = _unit(constant @ right)
        if training:
            right = _unit(ops.transpose(constant) @ left)
            self.vector.assign(right)
            left = _unit(constant @ right)
        return ops.maximum(ops.sum(left * (matrix @ _unit(right))), keras.config.epsilon())

    def save_own_variables(self, store: Any) -> None:
        # A convolution of Keras knows of its kernel and biases only.
        super().save_own_variables(store)
        store["vector"] = self.vector

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        self.vector.assign(store["vector"])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"seed": self.seed}


def _unit(vector: Any) -> Any:
    return vector / (ops.norm(vector) + keras.config.epsilon())
