"""Several devices that share a batch end as one does."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from skyweave.config import Training
from skyweave.errors import UserError
from skyweave.training.runtime import numerics


def network(kind):
    """Plain convolutions, or with what looks at the examples together and at random."""
    import keras

    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="tanh")(image)
    if kind == "whole":
        x = keras.layers.BatchNormalization()(keras.layers.Dropout(0.3, seed=1)(x))
    return keras.Model(image, {name: keras.layers.Conv2D(1, 1)(x) for name in "ab"})


def judge():
    import keras

    shown = keras.Input((8, 8, 3))
    return keras.Model(shown, keras.layers.Conv2D(1, 3)(shown))


def trained(kind, devices, accumulate=1):
    """Losses of three updates and a look at five examples, and all variables after them."""
    from skyweave.config.runs import Adversarial as Settings
    from skyweave.training.adversarial import Adversarial
    from skyweave.training.method import Place, learner
    from skyweave.training.runtime import prepare
    from skyweave.training.state import assign, values
    from skyweave.training.supervised import Supervised

    settings = Training(
        batch=4, learning_rate=0.01, devices=devices, accumulate=accumulate, clip_norm=0.1
    )
    prepare(1, settings=settings)
    rng = np.random.default_rng(0)
    one, other = learner(network(kind), settings), learner(judge(), settings)
    for variable in one.model.trainable_variables + other.model.trainable_variables:
        variable.assign(0.3 * rng.standard_normal(variable.shape))
    method = Supervised(one)
    if kind == "adversarial":
        method = Adversarial(one, other, Settings(label_swap=0.5), seed=1, name="a")
    rows = []
    for batch in range(3 * accumulate):
        x, a, b = rng.standard_normal((3, 4, 8, 8, 1)).astype(np.float32)
        last = (batch + 1) % accumulate == 0
        place = Place(batch, batch // accumulate, accumulate, last)
        losses, norm = method.train(x, {"a": a, "b": b}, place)
        rows.append([*losses.values(), norm])
    kept = {name: values(group) for name, group in method.groups.items()}
    for name, group in method.groups.items():
        assign(group, kept[name])
    x, a, b = rng.standard_normal((3, 5, 8, 8, 1)).astype(np.float32)
    rows.append([*method.evaluate(x, {"a": a, "b": b}).values()])
    flat = [v.ravel() for group in kept.values() for v in group]
    return {"rows": rows, "values": np.concatenate(flat).astype(float).tolist()}


CASES = [("plain", 1), ("plain", 2), ("adversarial", 1), ("whole", 1)]


def main():
    """Each case on one device and on two; one is first, for TensorFlow then stays with two."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, logical)
    print(
        json.dumps([[trained(case[0], devices, case[1]) for case in CASES] for devices in (1, 2)])
    )


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def both(request):
    """The backend, and each case on one device and on two."""
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ
        | {
            "KERAS_BACKEND": request.param,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout.splitlines()[-1])
    pairs = [
        [
            {name: np.concatenate([np.ravel(row) for row in case[name]]) for name in case}
            for case in pair
        ]
        for pair in zip(one, two, strict=True)
    ]
    return request.param, pairs


@pytest.mark.parametrize("case", range(3))
def test_two_devices_end_as_one(both, case):
    one, two = both[1][case]
    np.testing.assert_allclose(two["rows"], one["rows"], rtol=1e-5)
    np.testing.assert_allclose(two["values"], one["values"], rtol=1e-4, atol=1e-6)


def test_batch_statistics_are_of_the_batch_or_of_a_share(both):
    """JAX's two devices are one; TensorFlow's look at their examples and draw their own masks."""
    backend, found = both
    one, two = found[3]
    assert np.isfinite(two["rows"]).all()
    same = np.allclose(two["rows"], one["rows"], rtol=1e-5)
    assert same == (backend == "jax")
    np.testing.assert_allclose(two["rows"], one["rows"], rtol=0.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"devices": 99, "batch": 99}, r"training.devices: expected at most the \d+ of this"),
        (
            {"devices": 2, "batch": 3},
            "training.batch: expected a multiple of the 2 devices, found 3",
        ),
        ({"devices": 2, "xla": True}, "training.xla: expected `false` with several devices"),
    ],
)
def test_devices_that_cannot_be_had_are_refused(settings, words, monkeypatch):
    if settings["devices"] == 2:
        monkeypatch.setattr("skyweave.training.runtime._tensorflow_devices", lambda: [1, 2])
    with pytest.raises(UserError, match=words):
        numerics(Training(**settings), "cpu")


def test_all_devices_are_those_that_are_there(monkeypatch):
    monkeypatch.setattr("skyweave.training.runtime._tensorflow_devices", lambda: [1, 2, 3, 4])
    assert numerics(Training(devices="all"), "gpu").devices == 4
    assert not numerics(Training(devices="all", deterministic=False), "gpu").xla


if __name__ == "__main__":
    main()
