"""The partial convolution: what holes hold does not matter, what is seen weighs as if all were."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from skyweave.errors import UserError
from skyweave.networks.partial_conv import PartialConv2D


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def seen_where(*shape, share=0.4, seed=1):
    return (np.random.default_rng(seed).random(shape) < share).astype(np.float32)


def made(features, *args, **options):
    """A layer with weights for these features, and with a bias that is not 0."""
    layer = PartialConv2D(*args, **options)
    layer.build([features.shape, (*features.shape[:-1], 1)])
    layer.bias.assign(draw(*layer.bias.shape, seed=2))
    return layer


def arrays(outputs):
    return [keras.ops.convert_to_numpy(each) for each in outputs]


def by_loop(x, seen, kernel, bias, strides, padding):
    """The definition, window by window, in float64."""
    x, kernel = x.astype(float), kernel.astype(float)
    seen = np.broadcast_to(seen, x.shape).astype(float)
    size, counts, before = kernel.shape[:2], [], []
    for n, k, s in zip(x.shape[1:3], size, strides, strict=True):
        counts.append(-(-n // s) if padding == "same" else (n - k) // s + 1)
        outside = max((counts[-1] - 1) * s + k - n, 0) if padding == "same" else 0
        before.append(outside // 2)
    y = np.zeros((len(x), *counts, kernel.shape[-1]))
    after = np.zeros((len(x), *counts, 1))
    for i in np.ndindex(len(x), *counts):
        cut, part = [i[0]], []
        for axis in range(2):
            low = i[1 + axis] * strides[axis] - before[axis]
            high = min(low + size[axis], x.shape[1 + axis])
            cut.append(slice(max(low, 0), high))
            part.append(slice(max(-low, 0), high - low))
        values, there, weights = x[tuple(cut)], seen[tuple(cut)], kernel[tuple(part)]
        if there.sum() > 0:
            total = np.einsum("yxc,yxcf->f", values * there, weights)
            y[i], after[i] = total * there.size / there.sum() + bias, 1
    return y, after


CASES = [
    ((9, 9), 3, (3, 3), (1, 1), "same"),
    ((9, 8), 2, (3, 3), (2, 2), "same"),
    ((8, 8), 1, (7, 7), (2, 2), "same"),
    ((8, 9), 3, (5, 5), (2, 2), "valid"),
    ((9, 7), 2, (4, 4), (3, 3), "same"),
    ((8, 8), 2, (2, 2), (2, 2), "same"),
    ((9, 8), 2, (2, 5), (1, 2), "valid"),
    ((2, 2), 4, (3, 3), (2, 2), "same"),
    ((8, 8), 5, (1, 1), (1, 1), "same"),
]


@pytest.mark.parametrize(("size", "channels", "kernel", "strides", "padding"), CASES)
@pytest.mark.parametrize("each", [False, True], ids=["one_mask", "mask_a_channel"])
@pytest.mark.parametrize("share", [0.04, 0.6])
def test_layer_is_its_definition(size, channels, kernel, strides, padding, each, share):
    x = draw(2, *size, channels)
    seen = seen_where(2, *size, channels if each else 1, share=share)
    layer = made(x, 3, kernel, strides, padding)
    weights = arrays([layer.kernel, layer.bias])
    found, after = arrays(layer([x, seen]))
    expected, expected_after = by_loop(x, seen, *weights, strides, padding)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(after, expected_after)


@pytest.mark.parametrize(("size", "channels", "kernel", "strides", "padding"), CASES)
@pytest.mark.parametrize("each", [False, True], ids=["one_mask", "mask_a_channel"])
def test_without_holes_it_is_the_plain_convolution(size, channels, kernel, strides, padding, each):
    """At the edges too."""
    x = draw(2, *size, channels)
    layer = made(x, 4, kernel, strides, padding)
    plain = layers.Conv2D(4, kernel, strides, padding)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    found, after = arrays(layer([x, np.ones((2, *size, channels if each else 1), np.float32)]))
    expected = arrays([plain(x)])[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert (after == 1).all()


def test_parts_count_as_if_they_were_joined():
    """Each part with its own mask, the last one without since nothing of it is missing."""
    x, seen = draw(2, 8, 8, 6), np.ones((2, 8, 8, 6), np.float32)
    seen[..., :3], seen[..., 3:5] = seen_where(2, 8, 8, 1), seen_where(2, 8, 8, 2, seed=3)
    joined, apart = PartialConv2D(4, 3, 2, seed=5), PartialConv2D(4, 3, 2, seed=5)
    cut = [x[..., :3], seen[..., :1], x[..., 3:5], seen[..., 3:5], x[..., 5:]]
    for found, expected in zip(arrays(apart(cut)), arrays(joined([x, seen])), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_what_holes_hold_has_neither_influence_nor_gradient():
    x, seen = draw(1, 8, 8, 2), seen_where(1, 8, 8, 1)
    layer = made(x, 3, 3, 2)
    expected = arrays(layer([x, seen]))
    for huge in (1e30, -1e30):
        for one, two in zip(arrays(layer([np.where(seen, x, huge), seen])), expected, strict=True):
            np.testing.assert_array_equal(one, two)
    slopes = gradients(layer, x, seen)["x"]
    assert not slopes[~np.broadcast_to(seen, x.shape).astype(bool)].any()
    assert np.abs(slopes).max() > 0.1


def test_where_nothing_is_seen_features_are_zero_in_spite_of_the_bias():
    x, seen = draw(2, 12, 12, 2), np.ones((2, 12, 12, 1), np.float32)
    seen[:, 2:9, 2:9] = 0
    found, after = arrays(made(x, 3, 5)([x, seen]))
    np.testing.assert_array_equal(after[0, ..., 0] == 0, np.pad(np.ones((3, 3)), ((4, 5), (4, 5))))
    assert (found[(after == 0)[..., 0]] == 0).all()
    found, after = arrays(made(x, 3, 5)([x, 0 * seen]))
    assert not found.any()
    assert not after.any()


def gradients(layer, x, seen):
    """Gradients of a sum of squares to input, kernel and bias."""
    import tensorflow as tf

    x = tf.Variable(x)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer([x, seen])[0] ** 2)
    found = tape.gradient(loss, [x, layer.kernel.value, layer.bias.value])
    return dict(zip(("x", "kernel", "bias"), arrays(found), strict=True))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's tape")
@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, "same"), (2, "valid")])
def test_gradients_are_those_of_finite_differences(strides, padding):
    """Of the definition, in float64, along directions drawn at random."""
    x, seen = draw(2, 7, 7, 2), seen_where(2, 7, 7, 2, share=0.3)
    layer = made(x, 3, 3, strides, padding)
    at = dict(zip(("x", "kernel", "bias"), [x, *arrays([layer.kernel, layer.bias])], strict=True))
    found = gradients(layer, x, seen)

    def loss(values):
        weights = (values["kernel"], values["bias"], (strides, strides), padding)
        return (by_loop(values["x"], seen, *weights)[0] ** 2).sum()

    for name, value in at.items():
        for seed in range(3):
            way = draw(*value.shape, seed=seed + 7).astype(float)
            up, down = (loss(at | {name: value + step * way}) for step in (1e-5, -1e-5))
            expected = (up - down) / 2e-5
            assert (found[name] * way).sum() == pytest.approx(expected, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(("policy", "rtol"), [("mixed_float16", 2e-3), ("mixed_bfloat16", 1.6e-2)])
def test_mixed_precision_counts_in_float32(policy, rtol):
    """One seen of 9600, and all but one: neither float16 nor bfloat16 knows 9599."""
    x, seen = np.ones((2, 8, 8, 150), np.float32), np.zeros((2, 8, 8, 150), np.float32)
    seen[1] = 1
    seen[:, 4, 4, 7] = 1 - seen[:, 4, 4, 7]
    half = PartialConv2D(1, 8, padding="valid", use_bias=False, dtype=policy)
    half.build([x.shape, seen.shape])
    half.kernel.assign(np.full((8, 8, 150, 1), 1 / 9600, np.float32))
    y, after = half([x, seen])
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    assert half.kernel.dtype == "float32"
    y, after = arrays([keras.ops.cast(each, "float32") for each in (y, after)])
    np.testing.assert_allclose(y.ravel(), 1, rtol=rtol)
    np.testing.assert_array_equal(after.ravel(), 1)


def test_layer_refuses_what_it_cannot_do():
    with pytest.raises(UserError, match="same or valid"):
        PartialConv2D(1, 3, padding="reflect")
    with pytest.raises(UserError, match="expected 1 or 3, found 2"):
        PartialConv2D(1, 3)([draw(1, 4, 4, 3), draw(1, 4, 4, 2)])
    with pytest.raises(UserError, match="features only"):
        PartialConv2D(1, 3)([draw(1, 4, 4, 3)])


# Files and backends


def small():
    """A network of every option, of weights that no backend draws."""
    x, seen = keras.Input((8, 8, 2), name="x"), keras.Input((8, 8, 1), name="seen")
    y, after = PartialConv2D(4, (3, 5), (2, 1), "valid", seed=3)([x, seen])
    y, after = PartialConv2D(2, 3, use_bias=False, seed=4)([y, after])
    outputs = {"y": y, "seen": after, "zero": PartialConv2D(1, 3, 2, zero=True)([y, after, y])[0]}
    model = keras.Model({"x": x, "seen": seen}, outputs)
    model.set_weights([draw(*weight.shape, seed=5) for weight in model.weights])
    return model


def found(model):
    x = {"x": draw(2, 8, 8, 2), "seen": seen_where(2, 8, 8, 1, share=0.15)}
    outputs = model(x, training=False)
    return {name: keras.ops.convert_to_numpy(each).tolist() for name, each in outputs.items()}


def test_layer_loads_in_safe_mode(tmp_path):
    """In a process of its own: see the network's tests."""
    model = small()
    model.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras", compile=False, safe_mode=True)
    assert found(loaded) == found(model)
    for one, two in zip(loaded.layers, model.layers, strict=True):
        assert one.get_config() == two.get_config()


def test_seed_draws_the_kernel_and_zero_does_not():
    kernels = []
    for seed in (1, 1, 2):
        layer = PartialConv2D(64, 3, seed=seed)
        layer.build([(None, 8, 8, 16), (None, 8, 8, 1)])
        kernels.append(arrays([layer.kernel])[0])
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).mean() > 0.99
    assert kernels[0].std() == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.03)
    layer = PartialConv2D(64, 3, seed=1, zero=True)
    layer.build([(None, 8, 8, 16), (None, 8, 8, 1)])
    assert not arrays([layer.kernel])[0].any()


@pytest.mark.slow
def test_tensorflow_and_jax_agree():
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ
        | {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    theirs = json.loads(done.stdout.splitlines()[-1])
    for name, values in found(small()).items():
        np.testing.assert_allclose(values, theirs[name], rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    print(json.dumps(found(small())))
