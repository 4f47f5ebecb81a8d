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
    """Plain convolutions, or with what looks at the examples together, or at random."""
    import keras

    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="tanh")(image)
    if kind == "statistics":
        x = keras.layers.BatchNormalization()(x)
    if kind == "masks":
        x = keras.layers.Dropout(0.3, seed=1)(x)
    return keras.Model(image, {name: keras.layers.Conv2D(1, 1)(x) for name in "ab"})


def judge(channels):
    import keras

    shown = keras.Input((8, 8, channels))
    return keras.Model(shown, keras.layers.Conv2D(1, 3)(shown))


def generator():
    """Latents to maps by styles of two layers."""
    import keras

    from skyweave.training.style import compose

    latents, styles = keras.Input((3,)), keras.Input((2, 5))
    x = keras.layers.Dense(128, activation="tanh")(keras.layers.Flatten()(styles))
    x = keras.layers.Reshape((8, 8, 2))(x)
    outputs = {name: keras.layers.Conv2D(1, 3, padding="same")(x) for name in "ab"}
    return compose(
        keras.Model(latents, keras.layers.Dense(5)(latents)), keras.Model(styles, outputs)
    )


def trained(kind, devices, accumulate=1):
    """Losses of three updates and a look at five examples, and all variables after them.

    Of masks, each device sees the same examples. Of statistics, their means after one batch, too.
    """
    from skyweave.config import runs
    from skyweave.training.adversarial import Adversarial
    from skyweave.training.method import Place, learner
    from skyweave.training.runtime import prepare
    from skyweave.training.state import assign, values
    from skyweave.training.style import StyleBased
    from skyweave.training.supervised import Supervised

    settings = Training(
        batch=4, learning_rate=0.01, devices=devices, accumulate=accumulate, clip_norm=0.1
    )
    prepare(1, threads=1, settings=settings)
    rng = np.random.default_rng(0)
    style = kind == "style"
    one = learner(generator() if style else network(kind), settings)
    other = learner(judge(2 if style else 3), settings)
    for variable in one.model.trainable_variables + other.model.trainable_variables:
        variable.assign(0.3 * rng.standard_normal(variable.shape))
    method = Supervised(one)
    if kind == "adversarial":
        method = Adversarial(one, other, runs.Adversarial(label_swap=0.5), seed=1, name="a")
    if style:
        made = runs.StyleBased(r1_interval=2, path_interval=2, path_decay=1, average_images=9)
        method = StyleBased(one, other, made, seed=1, name="a")
    rows, means = [], []
    for batch in range(3 * accumulate):
        x, a, b = rng.standard_normal((3, 4, 8, 8, 1)).astype(np.float32)
        if kind == "masks":
            x, a, b = (np.concatenate([maps[:2]] * devices) for maps in (x, a, b))
        last = (batch + 1) % accumulate == 0
        place = Place(batch, batch // accumulate, accumulate, last)
        losses, norm = method.train(x, {"a": a, "b": b}, place)
        rows.append([*losses.values(), norm])
        if batch == 0:
            means = values([v for v in one.model.variables if v.path.endswith("moving_mean")])
    kept = {name: values(group) for name, group in method.groups.items()}
    x, a, b = rng.standard_normal((3, 5, 8, 8, 1)).astype(np.float32)
    looks = []
    for _ in range(2):
        looks.append([*method.evaluate(x, {"a": a, "b": b}).values()])
        for name, group in method.groups.items():
            assign(group, kept[name])
    assert looks[0] == looks[1], "a device knows more than the state"
    rows.append(looks[0])
    flat = [v.ravel() for group in kept.values() for v in group]
    return {
        "rows": rows,
        "values": np.concatenate(flat).astype(float).tolist(),
        "means": [mean.tolist() for mean in means],
    }


ALIKE = [("plain", 1), ("plain", 2), ("adversarial", 1), ("style", 1)]
CASES = [*ALIKE, ("statistics", 1), ("masks", 1)]


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


@pytest.fixture(
    scope="module",
    params=["tensorflow", pytest.param("jax", marks=pytest.mark.slow)],
)
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
            {name: np.concatenate([np.ravel(r) for r in case[name]] or [[]]) for name in case}
            for case in pair
        ]
        for pair in zip(one, two, strict=True)
    ]
    return request.param, pairs


@pytest.mark.parametrize("case", range(len(ALIKE)))
def test_two_devices_end_as_one(both, case):
    one, two = both[1][case]
    np.testing.assert_allclose(two["rows"], one["rows"], rtol=1e-5)
    np.testing.assert_allclose(two["values"], one["values"], rtol=1e-4, atol=1e-6)


def test_batch_statistics_are_of_the_batch_or_of_a_share(both):
    """JAX's two devices are one; TensorFlow's look at their examples, and keep the mean of both."""
    backend, found = both
    one, two = found[CASES.index(("statistics", 1))]
    assert np.isfinite(two["rows"]).all()
    assert np.allclose(two["rows"], one["rows"], rtol=1e-5) == (backend == "jax")
    assert np.ptp(one["means"]) > 0
    np.testing.assert_allclose(two["means"], one["means"], rtol=1e-5, atol=1e-8)


def test_devices_draw_masks_of_their_own(both):
    """Of the same examples, two with the same mask would tell what one of them tells."""
    one, two = (case["rows"][:2] for case in both[1][CASES.index(("masks", 1))])
    assert (np.abs(two / one - 1) > 1e-3).all()
    np.testing.assert_allclose(two, one, rtol=0.2)


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
