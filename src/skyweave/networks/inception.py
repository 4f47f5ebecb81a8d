"""Inception v3 as the Fréchet Inception Distance knows it (Szegedy et al. 2016, arXiv:1512.00567).

The weights, trained on ImageNet in 2015, are those that the distance was defined with (Heusel et
al. 2017, arXiv:1706.08500). Their network differs from later ones of this name: means over 3×3
pixels leave out what lies beyond the edge, and the last block takes a maximum instead.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import layers, ops

from skyweave.data.torchscript import read_tensors
from skyweave.errors import UserError
from skyweave.networks.flow import compiled
from skyweave.networks.parts import Tensor

#: Pixels a side that the network sees, and features of an image.
PIXELS, FEATURES = 299, 2048
#: What its batch norms add to variances.
EPSILON = 1e-3


def features(path: str | os.PathLike) -> keras.Model:
    """Frozen network, images (n, 299, 299, 3) in [-1, 1] → features (n, 2048), float32.

    Features are means over the 8×8 pixels of the last block, none below 0. The network neither
    resizes nor scales images. Batch norms are part of the convolutions' weights. path: the file of
    `skyweave.sky.fetch.INCEPTION`. Raises `UserError` for a file without Inception's convolutions.
    """
    part = _Parts(path, read_tensors(path))
    image = keras.Input((PIXELS, PIXELS, 3), name="image")
    x = part.conv(image, "conv", 32, 3, 2)
    x = part.conv(x, "conv_1", 32, 3, padding="valid")
    x = part.conv(x, "conv_2", 64, 3)
    x = part.conv(_halved(x), "conv_3", 80, 1)
    x = part.conv(x, "conv_4", 192, 3, padding="valid")
    x = _halved(x)
    for name, pooled in (("mixed", 32), ("mixed_1", 64), ("mixed_2", 64)):
        x = part.block_a(x, name, pooled)
    x = part.block_b(x, "mixed_3")
    for name, inner in (("mixed_4", 128), ("mixed_5", 160), ("mixed_6", 160), ("mixed_7", 192)):
        x = part.block_c(x, name, inner)
    x = part.block_d(x, "mixed_8")
    x = part.block_e(x, "mixed_9", _smooth(x))
    x = part.block_e(x, "mixed_10", layers.MaxPooling2D(3, 1, "same", dtype="float32")(x))
    x = layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    model = keras.Model(image, x, name="inception")
    for name, weights in part.weights.items():
        model.get_layer(name).set_weights(weights)
    model.trainable = False
    return model


def embed(model: keras.Model, images: np.ndarray, batch: int = 32) -> np.ndarray:
    """Features (n, 2048), float32, of images (n, y, x) or (n, y, x, bands) in [-1, 1].

    Each of the colours red, green and blue is the mean of a third of the bands, in their order. So
    one band is a grey image and three are a colour image; of two, green is the mean; of more, each
    takes part, and whatever their number an image is seen once, with its colours: features of bands
    one by one would not tell which band is which.

    Images are resized to 299² pixels in floats, linearly and without aliasing, never rounded. model
    is that of `features`; it sees `batch` images at once.
    """
    if images.ndim not in (3, 4):
        raise ValueError(f"Expected images (n, y, x) or (n, y, x, bands). Received: {images.shape}")
    if images.ndim == 3:
        images = images[..., None]
    mix = colours(images.shape[-1])

    def see(bands: Tensor) -> Tensor:
        large = ops.image.resize(bands, (PIXELS, PIXELS), "bilinear", antialias=True)
        return model(ops.matmul(large, mix), training=False)

    run = compiled(model, see)
    found = np.empty((len(images), FEATURES), np.float32)
    for start in range(0, len(images), batch):
        found[start : start + batch] = run(images[start : start + batch].astype(np.float32))
    return found


def colours(bands: int) -> np.ndarray:
    """Share (bands, 3) of each band in red, green and blue: each is the mean of a third of them."""
    band, colour = np.arange(bands)[:, None], np.arange(3) * bands / 3
    overlap = np.minimum(band + 1, colour + bands / 3) - np.maximum(band, colour)
    return (np.clip(overlap, 0, None) * 3 / bands).astype(np.float32)


@dataclass(frozen=True)
class _Parts:
    """The pieces that the network repeats, by the names in the file."""

    path: str | os.PathLike
    tensors: dict[str, np.ndarray]
    #: Kernel and bias of each layer by its name.
    weights: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def conv(
        self,
        x: Tensor,
        name: str,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: str | None = None,
    ) -> Tensor:
        """Convolution → batch norm, both as one → ReLU; strides of 2 without padding."""
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        layer = name.replace(".", "_")
        self.weights[layer] = self._folded(name, (channels, x.shape[-1], *size))
        return layers.Conv2D(
            channels,
            size,
            stride,
            padding or ("same" if stride == 1 else "valid"),
            activation="relu",
            dtype="float32",
            name=layer,
        )(x)

    def block_a(self, x: Tensor, name: str, pooled: int) -> Tensor:
        """Of 35² pixels."""
        y = self.conv(x, f"{name}.tower.conv", 48, 1)
        z = self.conv(x, f"{name}.tower_1.conv", 64, 1)
        z = self.conv(z, f"{name}.tower_1.conv_1", 96, 3)
        towers = [
            self.conv(x, f"{name}.conv", 64, 1),
            self.conv(y, f"{name}.tower.conv_1", 64, 5),
            self.conv(z, f"{name}.tower_1.conv_2", 96, 3),
            self.conv(_smooth(x), f"{name}.tower_2.conv", pooled, 1),
        ]
        return _joined(towers, name)

    def block_b(self, x: Tensor, name: str) -> Tensor:
        """From 35² to 17² pixels."""
        y = self.conv(x, f"{name}.tower.conv", 64, 1)
        y = self.conv(y, f"{name}.tower.conv_1", 96, 3)
        towers = [
            self.conv(x, f"{name}.conv", 384, 3, 2),
            self.conv(y, f"{name}.tower.conv_2", 96, 3, 2),
            _halved(x),
        ]
        return _joined(towers, name)

    def block_c(self, x: Tensor, name: str, inner: int) -> Tensor:
        """Of 17² pixels."""
        across, down = (1, 7), (7, 1)
        y = self.conv(x, f"{name}.tower.conv", inner, 1)
        y = self.conv(y, f"{name}.tower.conv_1", inner, across)
        z = self.conv(x, f"{name}.tower_1.conv", inner, 1)
        for number, kernel in enumerate((down, across, down), start=1):
            z = self.conv(z, f"{name}.tower_1.conv_{number}", inner, kernel)
        towers = [
            self.conv(x, f"{name}.conv", 192, 1),
            self.conv(y, f"{name}.tower.conv_2", 192, down),
            self.conv(z, f"{name}.tower_1.conv_4", 192, across),
            self.conv(_smooth(x), f"{name}.tower_2.conv", 192, 1),
        ]
        return _joined(towers, name)

    def block_d(self, x: Tensor, name: str) -> Tensor:
        """From 17² to 8² pixels."""
        y = self.conv(x, f"{name}.tower.conv", 192, 1)
        z = self.conv(x, f"{name}.tower_1.conv", 192, 1)
        z = self.conv(z, f"{name}.tower_1.conv_1", 192, (1, 7))
        z = self.conv(z, f"{name}.tower_1.conv_2", 192, (7, 1))
        towers = [
            self.conv(y, f"{name}.tower.conv_1", 320, 3, 2),
            self.conv(z, f"{name}.tower_1.conv_3", 192, 3, 2),
            _halved(x),
        ]
        return _joined(towers, name)

    def block_e(self, x: Tensor, name: str, pooled: Tensor) -> Tensor:
        """Of 8² pixels."""
        y = self.conv(x, f"{name}.tower_conv", 384, 1)
        z = self.conv(x, f"{name}.tower_1_conv", 448, 1)
        z = self.conv(z, f"{name}.tower_1_conv_1", 384, 3)
        towers = [
            self.conv(x, f"{name}.conv", 320, 1),
            self.conv(y, f"{name}.tower_mixed_conv", 384, (1, 3)),
            self.conv(y, f"{name}.tower_mixed_conv_1", 384, (3, 1)),
            self.conv(z, f"{name}.tower_1_mixed_conv", 384, (1, 3)),
            self.conv(z, f"{name}.tower_1_mixed_conv_1", 384, (3, 1)),
            self.conv(pooled, f"{name}.tower_2_conv", 192, 1),
        ]
        return _joined(towers, name)

    def _folded(self, name: str, shape: tuple[int, ...]) -> list[np.ndarray]:
        """Kernel and bias that do what convolution and batch norm do; its scale is 1."""
        shapes = {"weight": shape} | dict.fromkeys(("beta", "mean", "var"), shape[:1])
        weight, beta, mean, var = (
            self._array(f"net.layers.{name}.{key}", each) for key, each in shapes.items()
        )
        scale = 1 / np.sqrt(var + EPSILON)
        kernel = (weight.T * scale).transpose(1, 0, 2, 3)
        return [kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)]

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of the file in float64; raises `UserError` where it is not there in `shape`."""
        expected, found = f"{name} of shape {shape}", self.tensors.get(name)
        if found is None:
            raise UserError(self.path, expected, "no such tensor")
        if found.shape != shape or found.dtype.kind != "f":
            raise UserError(self.path, expected, f"shape {found.shape}, {found.dtype}")
        return found.astype(np.float64)


def _smooth(x: Tensor) -> Tensor:
    """Means over 3×3 pixels, of those that there are."""
    return layers.AveragePooling2D(3, 1, "same", dtype="float32")(x)


def _halved(x: Tensor) -> Tensor:
    """Largest of 3×3 pixels, every second one."""
    return layers.MaxPooling2D(3, 2, "valid", dtype="float32")(x)


def _joined(towers: Sequence[Tensor], name: str) -> Tensor:
    """A block's output."""
    return layers.Concatenate(dtype="float32", name=name)(list(towers))
