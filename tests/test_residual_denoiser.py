"""The residual denoiser: the published network, sizes, precision, and that it learns."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from skyweave.errors import UserError
from skyweave.networks.residual_denoiser import build

BANDS = ("g", "r")


def small(pixels=16, seed=1, outputs=BANDS):
    return build(pixels, outputs, 0.125, seed)


def images(count=2, pixels=16, bands=2):
    return np.random.default_rng(0).standard_normal((count, pixels, pixels, bands), np.float32)


def kernels(model):
    return [layer for layer in model.layers if hasattr(layer, "kernel")]


def test_published_number_of_parameters():
    """arXiv:2203.11956: 522,310."""
    model = build(64, ("g", "r", "i", "z"), 1.0, 1)
    assert model.count_params() == 522_310
    assert list(model.output) == ["g", "r", "i", "z"]
    assert all(tensor.shape == (None, 64, 64, 1) for tensor in model.output.values())


def test_halves_mirror_each_other_around_two_channels():
    layers = kernels(build(16, BANDS, 1.0, 1))
    assert [layer.filters for layer in layers] == [32] * 11 + [2] + [32] * 11 + [2]
    transposed = [isinstance(layer, keras.layers.Conv2DTranspose) for layer in layers]
    assert transposed == [False] * 12 + [True] * 12
    assert {layer.kernel_size for layer in layers} == {(5, 5)}
    assert {layer.strides for layer in layers} == {(1, 1)}


def test_width_is_a_factor_on_all_but_the_narrow_layer():
    assert {layer.filters for layer in kernels(small())} == {4, 2}
    filters = [layer.filters for layer in kernels(build(16, ("g",), 2.0, 1))]
    assert sorted(set(filters)) == [1, 2, 64]


def test_it_is_what_its_weights_say():
    """Convolutions by scipy, in float64, with the activations that the docstring tells."""
    from scipy.signal import correlate

    model = small()
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.15, weight.shape) for weight in model.get_weights()])
    weights = iter(model.get_weights())

    def conv(x, *, transposed=False):
        kernel, bias = (next(weights).astype(np.float64) for _ in range(2))
        if transposed:  # (y, x, out, in), and turned by half.
            kernel = kernel[::-1, ::-1].swapaxes(2, 3)
        padded = np.pad(x, ((2, 2), (2, 2), (0, 0)))
        made = [correlate(padded, kernel[..., i], mode="valid")[..., 0] for i in range(len(bias))]
        return np.stack(made, axis=-1) + bias

    def half(x, **kind):
        x = np.maximum(conv(x, **kind), 0)
        for _ in range(5):
            y = np.maximum(conv(x, **kind), 0)
            x = np.maximum(x + conv(y, **kind), 0)
        return x

    x = images(1)
    middle = conv(half(x[0].astype(np.float64)))
    assert middle.shape == (16, 16, 2)
    expected = conv(half(middle, transposed=True), transposed=True)
    found = model(x)
    for at, name in enumerate(BANDS):
        np.testing.assert_allclose(
            np.asarray(found[name])[0, ..., 0],
            expected[..., at],
            atol=2e-4 * np.abs(expected).max(),
        )


def test_weights_fit_other_sizes():
    big, less = build(112, ("g",), 0.125, 1), build(104, ("g",), 0.125, 2)
    less.set_weights(big.get_weights())
    x = images(1, 112, 1)
    whole, part = np.asarray(big(x)["g"]), np.asarray(less(x[:, :104, :104])["g"])
    # 24 convolutions see 48 pixels in each direction: here none beyond either edge.
    inner = (0, slice(48, 56), slice(48, 56))
    np.testing.assert_allclose(part[inner], whole[inner], atol=1e-5 * np.abs(whole).max())
    assert np.abs(part - whole[:, :104, :104]).max() > 1e-3 * np.abs(whole).max()


def test_seed_draws_the_weights():
    one, same, other = small(seed=1), small(seed=1), small(seed=2)
    for a, b in zip(one.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])
    drawn = [layer.get_weights()[0].ravel()[:20].tolist() for layer in kernels(one)]
    assert len({tuple(values) for values in drawn}) == len(drawn)


def test_pixels_that_are_no_multiple_of_four_are_refused():
    with pytest.raises(UserError, match=r"pixels: expected a multiple of 4, found 18"):
        small(18)


def test_last_layer_is_float32_in_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("enc_conv").compute_dtype == "bfloat16"
    assert model.get_layer("last_conv").compute_dtype == "float32"
    outputs = model(images())
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs.values()} == {"float32"}


def test_it_learns_to_take_noise_out():
    rng = np.random.default_rng(5)
    axis = np.arange(16) - 7.5
    centres = rng.uniform(-3, 3, (64, 2))
    clean = np.exp(
        -((axis[:, None] - centres[:, :1, None]) ** 2 + (axis - centres[:, 1:, None]) ** 2) / 8
    )[..., None].astype(np.float32)
    noisy = clean + rng.normal(0, 0.3, clean.shape).astype(np.float32)
    model = build(16, ("image",), 0.25, 1)
    model.compile(keras.optimizers.Adam(3e-3), loss={"image": "mse"})
    model.fit(noisy[:48], {"image": clean[:48]}, batch_size=16, epochs=20, verbose=0)
    found = np.asarray(model(noisy[48:])["image"])
    assert np.mean((found - clean[48:]) ** 2) < 0.2 * np.mean((noisy[48:] - clean[48:]) ** 2)


def test_a_saved_network_loads_elsewhere(tmp_path):
    model = small()
    model.save(tmp_path / "network.keras")
    np.save(tmp_path / "x.npy", images())
    script = """
import sys, keras, numpy as np
import skyweave.networks.partial_conv
folder = sys.argv[1]
model = keras.saving.load_model(f"{folder}/network.keras", safe_mode=True)
found = model(np.load(f"{folder}/x.npy"))
np.save(f"{folder}/found.npy", np.asarray(found["r"]))
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    expected = np.asarray(model(images())["r"])
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-6)
