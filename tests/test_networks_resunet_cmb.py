"""ResUNet-CMB: the published network when asked for, and its relatives."""

import keras
import numpy as np
import pytest

from skyweave.config import Network
from skyweave.errors import UserError
from skyweave.networks import variance
from skyweave.networks.registry import build
from skyweave.training.losses import gaussian, mean_squared_errors
from skyweave.training.method import Learner, Place
from skyweave.training.runtime import prepare
from skyweave.training.supervised import Supervised

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


def test_uncertainty_adds_an_output_to_each():
    plain, model = small(), small(uncertainty=True)
    more = {f"{name}_log_variance" for name in OUTPUTS}
    assert set(model.output) == {*OUTPUTS, *more}
    assert all(tensor.shape == (None, 16, 16, 1) for tensor in model.output.values())
    # A small head each: 2 inputs, 4 features, normalized, and the mean; two convolutions 3×3 of 8
    # channels and one 1×1, all with biases.
    head = 2 * 4 + (9 * (2 + 4 + 1) * 8 + 8) + (9 * 8 * 8 + 8) + (8 + 1)
    assert model.count_params() == plain.count_params() + 3 * head


@pytest.mark.parametrize("name", ["resunet_cmb", "hybrid"])
def test_means_are_learned_as_without_uncertainty(name):
    """Bit by bit, at the start and after a step of plain descent, which moves by the gradient."""
    prepare(1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 16, 16, 2)).astype(np.float32)
    y = {o: rng.standard_normal((4, 16, 16, 1)).astype(np.float32) for o in OUTPUTS}
    found = []
    for uncertainty, loss in ((False, mean_squared_errors), (True, gaussian)):
        model = small(name=name, uncertainty=uncertainty, dropout=0.2)
        steps = Supervised(Learner(model, keras.optimizers.SGD(0.1)), loss, judged=OUTPUTS)
        before = {o: np.asarray(values) for o, values in model(x).items()}
        start = weights(model)
        taken = [steps.train(x, y, Place(i, i))[0] for i in range(2)]
        found.append((before, start, weights(model), [steps.total(one) for one in taken], taken))
    plain, uncertain = found
    assert all(np.array_equal(plain[0][o], uncertain[0][o]) for o in OUTPUTS)
    for path, values in plain[2].items():
        np.testing.assert_array_equal(values, uncertain[2][path], err_msg=path)
    assert plain[3] == uncertain[3] == [sum(one[o] for o in OUTPUTS) for one in uncertain[4]]
    moved = [p for p, values in uncertain[2].items() if not np.array_equal(values, uncertain[1][p])]
    for output in OUTPUTS:
        assert any(path.startswith(f"{output}_log_variance/") for path in moved)


def weights(model):
    """All variables' values by path, but the states of random generators, numbered at random."""
    return {
        variable.path: np.array(keras.ops.convert_to_numpy(variable.value))
        for variable in model.variables
        if not variable.path.endswith("seed_generator_state")
    }


def test_logarithms_of_variances_are_bounded_smoothly():
    x = np.linspace(-100, 100, 2001, dtype=np.float32)
    y = np.asarray(variance.bounded(x))
    assert variance.LOWEST <= y.min() < y.max() <= variance.HIGHEST + 1e-6
    assert (np.diff(y) >= 0).all()
    within = abs(x + 3) < 5
    np.testing.assert_allclose(y[within], x[within], atol=0.02)


def test_pixels_must_halve_twice():
    with pytest.raises(UserError, match=r"grid\.pixels: expected a multiple of 4, found 18"):
        build(SMALL, 18, INPUTS, OUTPUTS, 1)
