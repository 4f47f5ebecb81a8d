"""A trained network on disk: two files, from which prediction works, and which nobody altered."""

import json
import shutil

import keras
import numpy as np
import pytest

from skyweave.config import Network
from skyweave.data.normalization import Normalization
from skyweave.errors import UserError
from skyweave.networks.card import (
    CARD,
    WEIGHTS,
    Card,
    TrainedNetwork,
    load_network,
    predict,
    save_network,
)
from skyweave.networks.registry import build

MOMENTS = {"q_obs": (0.5, 2.0), "u_obs": (-1.0, 3.0), "kappa": (0.01, 0.04), "tau": (0.0, 2.5e-3)}

OUTPUTS = ("tau", "kappa")


def card(**changes):
    entries = {
        "inputs": ("q_obs", "u_obs"),
        "outputs": OUTPUTS,
        "units": {"q_obs": "uK_CMB", "u_obs": "uK_CMB", "tau": "", "kappa": ""},
        "normalization": Normalization(MOMENTS),
        "size_deg": 5.0,
        "pixels": 16,
        "seed": 3,
        "data": {"dataset": "cmb", "realizations": 80},
        "settings": {"network": {"width": 0.0625}},
        "metrics": {"val_loss": 0.7},
    }
    return Card(**(entries | changes))


@pytest.fixture(scope="module")
def model():
    return build(Network(width=0.0625), 16, ("q_obs", "u_obs"), ("tau", "kappa"), 3)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    save_network(folder, model, card())
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A trained network to spoil."""
    return shutil.copytree(saved, tmp_path / "copy")


def maps(count=5):
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((count, 16, 16)) for name in ("q_obs", "u_obs")}


def test_card_and_weights_round_trip(model, saved):
    assert sorted(path.name for path in saved.iterdir()) == sorted([CARD, WEIGHTS])
    network = load_network(saved)
    assert network.card == card()
    for one, other in zip(model.get_weights(), network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    values = json.loads((saved / CARD).read_text())
    assert values["parameters"] == model.count_params()
    assert {"keras", "skyweave", "backend"} <= set(values["versions"])


def test_prediction_from_the_two_files_is_in_physical_units(model, saved):
    inputs = maps()
    x = np.stack(
        [(inputs[name] - MOMENTS[name][0]) / MOMENTS[name][1] for name in ("q_obs", "u_obs")], -1
    )
    raw = {name: np.asarray(values)[..., 0] for name, values in model(x).items()}
    found = predict(saved, inputs)
    assert set(found) == {"tau", "kappa"}
    for name, values in found.items():
        mean, std = MOMENTS[name]
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, mean + std * raw[name], rtol=1e-4, atol=1e-5 * std)


@pytest.mark.parametrize("name", ["resunet_cmb", "hybrid"])
def test_deviations_are_in_physical_units(name, tmp_path):
    """Of weights that are not those of the start, and of the same bits after a round trip."""
    settings = Network(name=name, width=0.0625, uncertainty=True)
    network = build(settings, 16, ("q_obs", "u_obs"), ("tau", "kappa"), 3)
    rng = np.random.default_rng(1)
    for variable in network.trainable_variables:
        if variable.path.endswith("kernel"):
            scale = np.sqrt(np.prod(variable.shape[:-1]))
            variable.assign(rng.standard_normal(variable.shape) / scale)
    written = card(settings={"network": settings.model_dump()})
    save_network(tmp_path, network, written)
    inputs = maps()
    found = predict(tmp_path, inputs)
    here = predict(TrainedNetwork(network, written), inputs)
    assert set(found) == set(here) == {"tau", "kappa", "tau_sigma", "kappa_sigma"}
    for field, values in found.items():
        np.testing.assert_array_equal(values, here[field])
    x = np.stack([written.normalization.apply(f, inputs[f]) for f in written.inputs], -1)
    raw = network(x)
    for field in ("tau", "kappa"):
        sigma, std = found[f"{field}_sigma"], MOMENTS[field][1]
        logarithm = np.asarray(raw[f"{field}_log_variance"])[..., 0]
        assert (sigma.shape, sigma.dtype) == ((5, 16, 16), np.float32)
        np.testing.assert_allclose(sigma, std * np.sqrt(np.exp(logarithm)), rtol=1e-4)
        assert sigma.std() > 0.01 * sigma.mean(), "it says more of some pixels"


def test_a_card_must_tell_of_uncertainty(model, tmp_path):
    uncertain = card(settings={"network": {"uncertainty": True}})
    with pytest.raises(UserError, match="the network's outputs"):
        save_network(tmp_path, model, uncertain)
    network = build(Network(width=0.0625, uncertainty=True), 16, uncertain.inputs, OUTPUTS, 3)
    with pytest.raises(UserError, match="the network's outputs"):
        save_network(tmp_path, network, card())
    save_network(tmp_path, network, uncertain)
    assert load_network(tmp_path).card.outputs == OUTPUTS


def test_batches_do_not_change_a_prediction(saved):
    network = load_network(saved)
    whole, parts = predict(network, maps()), predict(network, maps(), batch=2)
    for name in whole:
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-4, atol=1e-5)


def test_an_altered_network_is_refused(copy):
    path = copy / WEIGHTS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="sha256") as error:
        load_network(copy)
    assert error.value.where == str(path)


def _no_card(folder):
    (folder / CARD).unlink()


def _no_weights(folder):
    (folder / WEIGHTS).unlink()


def _half_a_card(folder):
    text = (folder / CARD).read_text()
    (folder / CARD).write_text(text[: len(text) // 2])


def _change(folder, **changes):
    values = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(values | changes))


def _other_format(folder):
    _change(folder, format="something 2")


def _other_outputs(folder):
    _change(folder, outputs=["tau", "e_prim"])


def _other_grid(folder):
    _change(folder, grid={"size_deg": 5.0, "pixels": 32})


def _no_normalization(folder):
    _change(folder, normalization={})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_card, "no such file"),
        (_no_weights, "no such file"),
        (_half_a_card, "JSON"),
        (_other_format, "format"),
        (_other_outputs, "the network's outputs"),
        (_other_grid, "the network's input"),
        (_no_normalization, "the normalization of 'q_obs'"),
    ],
)
def test_a_broken_network_is_refused(copy, spoil, message):
    spoil(copy)
    with pytest.raises(UserError, match=message):
        load_network(copy)


def test_code_in_a_network_is_not_run(tmp_path):
    image = keras.Input((16, 16, 1))
    values = keras.layers.Lambda(lambda x: 2 * x, output_shape=(16, 16, 1))(image)
    spoiled = card(inputs=("q_obs",), outputs=("kappa",))
    save_network(tmp_path, keras.Model(image, {"kappa": values}), spoiled)
    with pytest.raises(UserError, match="safe mode"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"q_obs": np.zeros((2, 16, 16))}, "'u_obs'"),
        (maps() | {"u_obs": np.zeros((4, 16, 16))}, "shape"),
        (maps() | {"u_obs": np.zeros((5, 32, 32))}, "shape"),
        (maps() | {"u_obs": np.full((5, 16, 16), np.nan)}, "finite"),
    ],
)
def test_unfit_maps_are_refused(saved, inputs, message):
    with pytest.raises(UserError, match=message):
        predict(saved, inputs)


def test_a_card_of_another_network_is_not_written(model, tmp_path):
    with pytest.raises(UserError, match="the network's outputs"):
        save_network(tmp_path, model, card(outputs=("tau", "e_prim")))
    with pytest.raises(UserError, match="the unit of 'q_obs'"):
        save_network(tmp_path, model, card(units={}))
    assert not list(tmp_path.iterdir())
