"""The two backends take the same steps."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest


def losses(**settings):
    """A network from weights that NumPy draws: the first losses, norm and gradient; losses of
    four steps of Adam and of a look afterwards.

    Plain descent by 1 moves the weights by the gradient.
    """
    import keras

    from skyweave.config import Network
    from skyweave.networks.registry import build
    from skyweave.training.losses import gaussian, mean_squared_errors
    from skyweave.training.method import Learner, Place
    from skyweave.training.state import assign, values
    from skyweave.training.supervised import Supervised

    rng = np.random.default_rng(0)
    network = Network(width=0.0625, dropout=0, **settings)
    model = build(network, 16, ("q", "u"), ("a", "b"), 1)
    chosen = gaussian if network.uncertainty else mean_squared_errors
    for variable in model.trainable_variables:
        if variable.path.endswith("kernel"):
            fan_in = np.prod(variable.shape[:-1])
            variable.assign(rng.standard_normal(variable.shape) / np.sqrt(fan_in))
    start = values(model.variables)
    x = rng.standard_normal((4, 16, 16, 2)).astype(np.float32)
    y = {name: rng.standard_normal((4, 16, 16, 1)).astype(np.float32) for name in ("a", "b")}
    steps = Supervised(Learner(model, keras.optimizers.SGD(1.0)), chosen)
    first, norm = steps.train(x, y, Place(0, 0))
    trained = [np.array(keras.ops.convert_to_numpy(v.value)) for v in model.trainable_variables]
    before = [v for v, one in zip(start, model.variables, strict=True) if one.trainable]
    way = [old - new for old, new in zip(before, trained, strict=True)]
    assign(model.variables, start)
    steps = Supervised(Learner(model, keras.optimizers.Adam(1e-3)), chosen)
    found = [steps.train(x, y, Place(i, i))[0] for i in range(4)] + [steps.evaluate(x, y)]
    return {
        "first": [*first.values(), norm],
        "gradient": np.concatenate([one.ravel() for one in way]).tolist(),
        "later": [list(step.values()) for step in found],
    }


def clipped():
    """Losses, norms and weights of plain descent with clipping, then with accumulation.

    Plain descent by 1 moves the weights by the gradient; Adam would hide its length.
    """
    import keras

    from skyweave.training.method import Learner, Place
    from skyweave.training.supervised import Supervised

    rng = np.random.default_rng(0)
    start = [rng.standard_normal(s).astype(np.float32) for s in ((5, 4), (4,), (4, 1), (1,))]
    x = rng.standard_normal((8, 5)).astype(np.float32)
    y = {"a": rng.standard_normal((8, 1)).astype(np.float32)}
    found = {}
    for name, options, parts in (
        ("free", {}, 1),
        ("clipped", {"clip_norm": 0.1}, 1),
        ("unreached", {"clip_norm": 1e3}, 1),
        ("compiled", {"clip_norm": 0.1}, 1),
        ("accumulated", {"clip_norm": 0.1, "accumulate": True}, 4),
    ):
        image = keras.Input((5,))
        hidden = keras.layers.Dense(4, activation="tanh")(image)
        model = keras.Model(image, {"a": keras.layers.Dense(1)(hidden)})
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        learner = Learner(model, keras.optimizers.SGD(1.0), **options)
        steps = Supervised(learner, xla=name == "compiled")
        rows = []
        for update in range(3):
            taken = []
            for i, (part, truth) in enumerate(
                zip(np.split(x, parts), np.split(y["a"], parts), strict=True)
            ):
                place = Place(update * parts + i, update, parts, last=i + 1 == parts)
                taken.append(steps.train(part, {"a": truth}, place))
            # The norm of the last is that of the mean gradient.
            rows.append([np.mean([losses["a"] for losses, _ in taken]), taken[-1][1]])
        weights = [keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables]
        found[name] = np.array(rows).ravel().tolist()
        found[name] += np.concatenate([w.ravel() for w in weights]).tolist()
    found["start"] = np.concatenate([w.ravel() for w in start]).tolist()
    return found


#: What is compared.
PARTS = {
    "resunet_cmb": losses,
    "hybrid": partial(losses, name="hybrid", uncertainty=True),
    "clipped": clipped,
}


def compared(*names):
    """Results of these parts with JAX and with TensorFlow."""
    other = subprocess.run(
        [sys.executable, __file__, *names],
        # Compiling is what takes long here.
        env=os.environ
        | {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(other.stdout.splitlines()[-1]), results(names)


def results(names):
    return {name: PARTS[name]() for name in names}


@pytest.fixture(scope="module")
def both():
    return compared("resunet_cmb", "clipped")


def agree(one, other, count):
    """So many losses of one step to 1e-5 and gradient to 1e-4; four steps of Adam, whose first
    moves each weight alike however small its gradient, to 0.1 %.
    """
    assert len(one["later"][0]) == count
    np.testing.assert_allclose(one["first"], other["first"], rtol=1e-5)
    difference = np.subtract(one["gradient"], other["gradient"])
    assert np.linalg.norm(difference) < 1e-4 * np.linalg.norm(one["gradient"])
    assert np.linalg.norm(one["gradient"]) == pytest.approx(one["first"][-1], rel=1e-4)
    np.testing.assert_allclose(one["later"], other["later"], rtol=1e-3)


def test_tensorflow_and_jax_agree(both):
    agree(*(found["resunet_cmb"] for found in both), count=2)


@pytest.mark.slow
def test_tensorflow_and_jax_agree_on_a_hybrid():
    agree(*(found["hybrid"] for found in compared("hybrid")), count=4)


def test_both_clip_and_accumulate_alike(both):
    jax, tensorflow = (found["clipped"] for found in both)
    for name, values in jax.items():
        np.testing.assert_allclose(values, tensorflow[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("backend", [0, 1])
def test_clipping_and_accumulation_are_what_they_say(both, backend):
    """Three steps of length 0.1 at most; four parts are one batch; norms are told unclipped."""
    found = {name: np.array(values) for name, values in both[backend]["clipped"].items()}
    start = found.pop("start")
    way = {name: np.linalg.norm(values[6:] - start) for name, values in found.items()}
    assert (found["clipped"][1:6:2] > 0.1).all()
    assert way["clipped"] <= 0.3 * (1 + 1e-5)
    assert way["clipped"] > 0.2, "of nearly one direction"
    assert way["free"] > 0.3
    np.testing.assert_array_equal(found["unreached"], found["free"])
    np.testing.assert_allclose(found["accumulated"], found["clipped"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["compiled"], found["clipped"], rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    print(json.dumps(results(sys.argv[1:])))
