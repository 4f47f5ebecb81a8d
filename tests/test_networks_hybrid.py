"""The hybrid network: it starts at the estimates among its inputs, and learns what they miss."""

import keras
import numpy as np
import pytest

from skyweave.config import Network, parse
from skyweave.errors import UserError
from skyweave.networks.registry import build
from skyweave.training.losses import gaussian, mean_squared_errors
from skyweave.training.method import Learner, Place
from skyweave.training.runtime import prepare
from skyweave.training.supervised import Supervised

INPUTS = ("q_obs", "u_obs", "e_wiener", "e_obs", "kappa_quadratic", "kappa_iterative")
OUTPUTS = ("tau", "e_prim", "kappa")
SMALL = Network(name="hybrid", width=0.0625, dropout=0)


def small(seed=1, inputs=INPUTS, outputs=OUTPUTS, deviations=None, **changes):
    return build(SMALL.model_copy(update=changes), 16, inputs, outputs, seed, deviations)


def maps(inputs=INPUTS):
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, 16, 16, len(inputs))).astype(np.float32)


def test_untrained_outputs_are_the_best_estimates():
    """Iterative before quadratic, Wiener before observed; nothing where nothing is known."""
    x, found = maps(), small()(maps())
    np.testing.assert_array_equal(found["kappa"][..., 0], x[..., INPUTS.index("kappa_iterative")])
    np.testing.assert_array_equal(found["e_prim"][..., 0], x[..., INPUTS.index("e_wiener")])
    np.testing.assert_array_equal(found["tau"], np.zeros((3, 16, 16, 1)))


@pytest.mark.parametrize(
    ("output", "better", "worse"),
    [
        ("kappa", "kappa_iterative", "kappa_quadratic"),
        ("tau", "tau_iterative", "tau_quadratic"),
        ("e_prim", "e_iterative", "e_wiener"),
        ("e_prim", "e_wiener", "e_obs"),
        ("alpha", "alpha_quadratic", "e_obs"),
    ],
)
def test_order_of_the_inputs_does_not_choose(output, better, worse):
    for inputs in ((better, worse), (worse, better)):
        x = maps(inputs)
        found = small(inputs=inputs, outputs=(output,))(x)
        np.testing.assert_array_equal(found[output][..., 0], x[..., inputs.index(better)])


def test_untrained_outputs_are_the_estimates_in_their_units():
    """A filtered estimate varies less than its truth: both are normalized by their own."""
    deviations = dict.fromkeys(INPUTS, 1.0) | {"kappa": 0.04, "tau": 0.002, "e_prim": 4.0}
    deviations |= {"kappa_iterative": 0.03, "e_wiener": 3.5}
    x = maps()
    found = small(deviations=deviations)(x)
    for output, estimate in (("kappa", "kappa_iterative"), ("e_prim", "e_wiener")):
        made = np.asarray(found[output])[..., 0] * deviations[output]
        expected = x[..., INPUTS.index(estimate)] * deviations[estimate]
        np.testing.assert_allclose(made, expected, rtol=1e-6)


def test_a_million_parameters_at_width_one():
    inputs = ("q_obs", "u_obs", "e_iterative", "kappa_iterative", "tau_iterative")
    model = build(Network(name="hybrid"), 64, inputs, OUTPUTS, 1)
    assert model.count_params() == 1_191_250
    assert all(tensor.shape == (None, 64, 64, 1) for tensor in model.output.values())


def learned(inputs, draw, updates, **settings):
    """Inputs, truths and outputs (n, y, x) of a small network after `updates` of fresh maps."""
    prepare(1)
    rng = np.random.default_rng(0)
    model = small(inputs=inputs, outputs=("kappa",), width=0.25, **settings)
    loss = gaussian if settings.get("uncertainty") else mean_squared_errors
    steps = Supervised(Learner(model, keras.optimizers.Adam(5e-3)), loss)
    for i in range(updates):
        x, y = draw(rng)
        steps.train(np.float32(x), {"kappa": np.float32(y[..., None])}, Place(i, i))
    x, y = draw(rng)
    return x, y, {name: np.asarray(maps)[..., 0] for name, maps in model(np.float32(x)).items()}


def test_it_learns_a_product_of_fields_beside_the_estimate():
    """What is left of the estimate is a product, of which no linear combination knows anything."""

    def draw(rng):
        e, b, estimate = rng.standard_normal((3, 8, 16, 16))
        return np.stack([e, b, estimate], -1), 0.8 * estimate + 0.5 * e * b

    inputs = ("e_obs", "b_obs", "kappa_quadratic")
    x, y, found = learned(inputs, draw, 120)
    assert ((found["kappa"] - y) ** 2).mean() < 0.1 * (0.5 * x[..., 0] * x[..., 1]).var()


def test_it_learns_the_deviation_of_what_it_cannot_know():
    """Noise on the estimate, on some patches three times that on the others."""

    def draw(rng):
        noisy = np.broadcast_to((rng.random(8) < 0.5)[:, None, None], (8, 16, 16))
        estimate, noise = rng.standard_normal((2, 8, 16, 16))
        deviation = np.where(noisy, 0.6, 0.2)
        return np.stack([estimate, noisy], -1), estimate + deviation * noise

    x, y, found = learned(("kappa_quadratic", "b_obs"), draw, 150, uncertainty=True)
    sigma = np.exp(found["kappa_log_variance"] / 2)
    pull = (y - found["kappa"]) / sigma
    for noisy, deviation in ((0, 0.2), (1, 0.6)):
        there = x[..., 1] == noisy
        assert sigma[there].mean() == pytest.approx(deviation, rel=0.15)
        assert pull[there].std() == pytest.approx(1, abs=0.15)


def test_weights_are_drawn_by_the_seed_alone():
    keras.utils.set_random_seed(1)
    first = small(uncertainty=True).get_weights()
    keras.utils.set_random_seed(2)
    again = small(uncertainty=True).get_weights()
    other = small(seed=2, uncertainty=True).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_estimates_stay_in_float32_under_a_mixed_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small(uncertainty=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("half_conv").compute_dtype == "bfloat16"
    x = maps()
    found = model(x)
    assert {values.dtype.name for values in found.values()} == {"float32"}
    np.testing.assert_array_equal(found["e_prim"][..., 0], x[..., INPUTS.index("e_wiener")])


def test_dropout_in_each_residual_block():
    def rates(**changes):
        layers = small(**changes).layers
        return [layer.rate for layer in layers if isinstance(layer, keras.layers.Dropout)]

    assert rates(dropout=0.1) == [0.1] * 8
    assert rates() == []


def test_pixels_must_halve_twice():
    with pytest.raises(UserError, match=r"grid\.pixels: expected a multiple of 4, found 18"):
        build(SMALL, 18, INPUTS, OUTPUTS, 1)


def study(**run):
    return {"datasets": {"cmb": {"kind": "cmb"}}, "runs": {"a": {"dataset": "cmb"} | run}}


def test_without_an_estimate_there_is_nothing_to_correct():
    network = {"network": {"name": "hybrid"}}
    found = parse(study(inputs=["q_obs", "e_obs"], targets=["kappa", "e_prim"], **network))
    assert found.runs["a"].network.name == "hybrid"
    for field, target in (("q_obs", "e_prim"), ("e_obs", "kappa"), ("q_obs", "b_obs")):
        inputs, targets = [field], [target]
        with pytest.raises(UserError) as error:
            parse(study(inputs=inputs, targets=targets, **network))
        assert error.value.where == "runs.a.network.name"
        assert error.value.found == field
        assert error.value.expected.startswith("inputs that estimate a target (")
        parse(study(inputs=inputs, targets=targets))
