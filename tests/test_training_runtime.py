"""Precision, XLA and determinism: what `auto` means where, and what a training makes of them."""

import keras
import numpy as np
import pytest

from skyweave.config import Network, Training
from skyweave.errors import UserError
from skyweave.networks.registry import build
from skyweave.training import runtime
from skyweave.training.losses import mean_squared_errors
from skyweave.training.method import Learner, Place
from skyweave.training.runtime import Numerics, numerics, prepare
from skyweave.training.supervised import Supervised


@pytest.fixture(autouse=True)
def _float32_again():
    yield
    prepare(1)


@pytest.fixture
def backend(monkeypatch):
    def choose(name):
        monkeypatch.setattr(keras.backend, "backend", lambda: name)

    return choose


@pytest.mark.parametrize(
    ("name", "device", "settings", "expected"),
    [
        ("tensorflow", "cpu", {}, ("float32", False, True)),
        ("tensorflow", "cpu", {"precision": "auto"}, ("float32", False, True)),
        ("tensorflow", "cpu", {"xla": True}, ("float32", True, False)),
        ("tensorflow", "cpu", {"deterministic": False}, ("float32", False, False)),
        ("tensorflow", "cpu", {"precision": "bfloat16"}, ("bfloat16", False, True)),
        ("tensorflow", "gpu", {}, ("float32", True, False)),
        ("tensorflow", "gpu", {"xla": False}, ("float32", False, False)),
        ("tensorflow", "gpu", {"deterministic": True}, ("float32", False, True)),
        ("tensorflow", "gpu", {"precision": "auto"}, ("bfloat16", True, False)),
        ("jax", "cpu", {}, ("float32", True, True)),
        ("jax", "cpu", {"xla": True}, ("float32", True, True)),
        ("jax", "gpu", {}, ("float32", True, False)),
        ("jax", "gpu", {"deterministic": True, "xla": True}, ("float32", True, True)),
    ],
)
def test_what_the_settings_mean(backend, monkeypatch, name, device, settings, expected):
    backend(name)
    monkeypatch.setattr(runtime, "_has_bfloat16", lambda: True)
    assert numerics(Training(**settings), device) == Numerics(*expected)


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("tensorflow", {"xla": True, "deterministic": True}, "`false` with `deterministic: true`"),
        ("jax", {"xla": False}, "with JAX"),
    ],
)
def test_contradictions_end_in_one_line(backend, name, settings, line):
    backend(name)
    with pytest.raises(UserError, match=f"training.xla: expected .*{line}") as caught:
        numerics(Training(**settings))
    assert "\n" not in str(caught.value)


def test_bfloat16_leaves_weights_losses_and_last_layers_in_float32():
    """A step of the network whose outputs differ from float32's as its eight bits let them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 16, 16, 2)).astype(np.float32)
    y = {"a": rng.standard_normal((4, 16, 16, 1)).astype(np.float32)}
    found = {}
    for precision in ("float32", "bfloat16"):
        prepare(1, settings=Training(precision=precision))
        model = build(Network(width=0.0625, dropout=0), 16, ("q", "u"), ("a",), 1)
        assert {v.dtype for v in model.trainable_variables} == {"float32"}
        assert model.output["a"].dtype == "float32"
        outputs = model(x, training=True)
        assert keras.ops.dtype(mean_squared_errors(outputs, y)["a"]) == "float32"
        convolutions = [lay for lay in model.layers if isinstance(lay, keras.layers.Conv2D)]
        assert {lay.compute_dtype for lay in convolutions} == {"float32", precision}
        assert convolutions[-1].compute_dtype == "float32"
        found[precision] = np.asarray(outputs["a"])
    distance = np.std(found["bfloat16"] - found["float32"]) / np.std(found["float32"])
    assert 1e-4 < distance < 0.1


def test_memory_is_that_of_this_process_on_a_cpu():
    before = runtime.memory_gb()
    held = np.ones(10**8, np.uint8)
    assert before > 0.1, "TensorFlow alone is larger"
    assert runtime.memory_gb() >= before
    del held
    with open("/proc/self/status") as file:
        (peak,) = (line.split()[1] for line in file if line.startswith("VmHWM"))
    assert runtime.memory_gb() == pytest.approx(int(peak) * 1024 / 1e9, rel=0.05)


def test_xla_takes_the_same_steps():
    """To single precision; without dropout, whose masks XLA draws by another generator."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 8, 8, 1)).astype(np.float32)
    y = {"a": rng.standard_normal((4, 8, 8, 1)).astype(np.float32)}
    found = []
    for xla in (False, True):
        keras.utils.set_random_seed(1)
        image = keras.Input((8, 8, 1))
        hidden = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, padding="same")(image))
        model = keras.Model(image, {"a": keras.layers.Conv2D(1, 1)(hidden)})
        optimizer = keras.optimizers.Adam(1e-2)
        steps = Supervised(Learner(model, optimizer), xla=xla)
        rows = [steps.train(x, y, Place(batch=i, update=i)) for i in range(3)]
        found.append([[row[0]["a"], row[1]] for row in rows] + [[steps.evaluate(x, y)["a"], 0]])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
