"""ResUNet-CMB: the published network when asked for, and its relatives."""

import keras
import numpy as np
import pytest

from skyweave.config import Network
from skyweave.errors import UserError
from skyweave.networks.registry import build

INPUTS, OUTPUTS = ("q_obs", "u_obs"), ("tau", "e_prim", "kappa")
SMALL = Network(width=0.0625)


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def small(seed=1, **changes):
    return build(SMALL.model_copy(update=changes), 16, INPUTS, OUTPUTS, seed)


def test_published_numbers_of_parameters():
    """arXiv:2101.01214: 5,292,367 parameters, 5,254 of them statistics of the batch norms."""
    model = build(Network(), 128, INPUTS, OUTPUTS, 1)
    assert model.count_params() == 5_292_367
    assert count(model.non_trainable_weights) == 5_254
    assert set(model.output) == set(OUTPUTS)
    assert all(tensor.shape == (None, 128, 128, 1) for tensor in model.output.values())


def test_published_number_of_multiplications():
    """35.7 GMAC a map: counts the resolution at which each convolution works."""
    model = build(Network(), 128, INPUTS, OUTPUTS, 1)
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            total += np.prod(layer.output.shape[1:3]) * np.prod(layer.kernel.shape)
    assert round(total / 1e9, 1) == 35.7


def test_no_strided_convolution_of_one_pixel():
    """A fault of oneDNN: its gradient corrupts memory for few channels (seen: crashes)."""
    convolutions = [layer for layer in small().layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 26
    assert not [c.name for c in convolutions if c.strides != (1, 1) and c.kernel_size == (1, 1)]


def test_dropout_in_all_blocks_but_the_first():
    rates = [layer.rate for layer in small().layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.3] * 18
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in small(dropout=0).layers)


@pytest.mark.parametrize(
    ("inputs", "outputs"), [(("t_obs",), ("kappa",)), (("q", "u", "e"), ("a", "b", "c", "d"))]
)
def test_any_number_of_inputs_and_outputs(inputs, outputs):
    model = build(SMALL, 20, inputs, outputs, 1)
    maps = model(np.zeros((2, 20, 20, len(inputs)), np.float32))
    assert {name: tuple(values.shape) for name, values in maps.items()} == dict.fromkeys(
        outputs, (2, 20, 20, 1)
    )


def test_width_scales_channels_in_fours():
    def channels(width):
        model = build(Network(width=width), 16, INPUTS, OUTPUTS, 1)
        return [
            model.get_layer(f"{name}_conv").filters for name in ("enc_1a", "enc_2b", "bottleneck_a")
        ]

    assert channels(1) == [64, 128, 256]
    assert channels(0.3) == [20, 40, 76]
    assert channels(0.01) == [4, 4, 4]


def test_weights_are_drawn_by_the_seed_alone():
    keras.utils.set_random_seed(1)
    first = small().get_weights()
    keras.utils.set_random_seed(2)
    again, other = small().get_weights(), small(seed=2).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_last_layers_stay_in_float32_under_a_mixed_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("enc_1a_conv").compute_dtype == "bfloat16"
    outputs = model(np.zeros((1, 16, 16, 2), np.float32))
    assert {values.dtype.name for values in outputs.values()} == {"float32"}


def test_pixels_must_halve_twice():
    with pytest.raises(UserError, match=r"grid\.pixels: expected a multiple of 4, found 18"):
        build(SMALL, 18, INPUTS, OUTPUTS, 1)
