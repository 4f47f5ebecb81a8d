"""The two backends take the same steps."""

import json
import os
import subprocess
import sys

import numpy as np


def losses():
    """Losses of four steps and of a look afterwards, from weights that NumPy draws."""
    import keras

    from skyweave.config import Network
    from skyweave.networks.registry import build
    from skyweave.training.gradients import make_steps
    from skyweave.training.losses import mean_squared_errors

    rng = np.random.default_rng(0)
    model = build(Network(width=0.0625, dropout=0), 16, ("q", "u"), ("a", "b"), 1)
    for variable in model.trainable_variables:
        if variable.path.endswith("kernel"):
            fan_in = np.prod(variable.shape[:-1])
            variable.assign(rng.standard_normal(variable.shape) / np.sqrt(fan_in))
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    steps = make_steps(model, optimizer, mean_squared_errors)
    x = rng.standard_normal((4, 16, 16, 2)).astype(np.float32)
    y = {name: rng.standard_normal((4, 16, 16, 1)).astype(np.float32) for name in ("a", "b")}
    found = [steps.train(x, y) for _ in range(4)] + [steps.evaluate(x, y)]
    return [[step[name] for name in ("a", "b")] for step in found]


def test_tensorflow_and_jax_agree():
    """To 0.1 %: single precision, sums in another order, four steps of Adam."""
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    np.testing.assert_allclose(json.loads(other.stdout.splitlines()[-1]), losses(), rtol=1e-3)


if __name__ == "__main__":
    print(json.dumps(losses()))
