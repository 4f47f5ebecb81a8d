"""astroDGAN's networks: what is published of them, and what each switch changes."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from skyweave.errors import UserError
from skyweave.networks import astroencoder, pix2pix, resunet_cmb
from skyweave.networks.parts import SpectralConv2D
from skyweave.training.gradients import seam

INPUTS, OUTPUTS = ("q_obs", "u_obs"), ("e_sky", "kappa", "b_sky")
#: Channels of astroencoder's layers at `WIDTH`, narrow and middle, and blocks' kernel.
WIDTH, N, M, K = 0.0625, 4, 8, 25


def encoder(pixels=16, seed=1, width=WIDTH, dropout=0.5, **switches):
    return astroencoder.build(pixels, INPUTS, OUTPUTS, width, dropout, seed, **switches)


def translator(pixels=16, seed=1, width=WIDTH, dropout=0.5, **switches):
    return pix2pix.build(pixels, INPUTS, OUTPUTS, width, dropout, seed, **switches)


def judge(pixels=16, seed=1, width=WIDTH, dropout=0.5, **switches):
    return pix2pix.discriminator(pixels, 3, width, dropout, seed, **switches)


ALL = [encoder, translator, judge]


def of_kind(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def trained(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def maps(model, count=2):
    values = np.random.default_rng(0).standard_normal((count, *model.input_shape[1:]))
    return values.astype(np.float32)


def test_astroencoder_is_resunet_cmb_without_the_last_norms():
    """Published: 5,292,367 parameters; a norm has four a channel."""
    assert astroencoder.build(128, INPUTS, OUTPUTS).count_params() == 5_292_367 - 4 * 3
    published = resunet_cmb.build(16, INPUTS, OUTPUTS, WIDTH, 0.5, 1)
    model = encoder()
    for layer in model.layers:
        for one, other in zip(
            layer.get_weights(), published.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    found, expected = model(maps(model)), published(maps(model))
    assert set(found) == set(OUTPUTS)
    for name in OUTPUTS:  # An untrained norm divides by sqrt(1 + 1e-3).
        np.testing.assert_allclose(found[name], expected[name] * 1.001**0.5, rtol=1e-4, atol=1e-6)


def test_no_norm_holds_an_outputs_power():
    """Seven times the last layer are outputs seven times as strong, in training too."""
    model = encoder(dropout=0)
    before = model(maps(model), training=True)
    for name in OUTPUTS:
        last = model.get_layer(f"{name}_conv")
        last.kernel.assign(7 * last.kernel)
    after = model(maps(model), training=True)
    for name in OUTPUTS:
        np.testing.assert_allclose(after[name], 7 * before[name], rtol=1e-3, atol=1e-4)


def test_switches_of_astroencoder_change_what_they_say():
    model = encoder()
    full, convolutions = model.count_params(), of_kind(model, layers.Conv2D)
    bare = encoder(biases=False)
    assert full - bare.count_params() == sum(layer.filters for layer in convolutions)
    assert not any(layer.use_bias for layer in of_kind(bare, layers.Conv2D))

    apart = encoder(skips=False)
    assert not of_kind(apart, layers.Concatenate)
    # dec_1a and dec_2b see half the channels, and dec_1's residual needs no convolution 1×1.
    assert full - apart.count_params() == K * M * M + (2 * M * M + M) + K * N * N

    plain = encoder(residuals=False)
    assert not of_kind(plain, layers.Add)
    # enc_1, enc_2, dec_1 and dec_2 have a convolution 1×1; all have a norm, so does each output.
    fits = (2 + 1) * N + (N + 1) * M + (2 * M + 1) * M + (M + 1) * N
    assert full - plain.count_params() == fits + 4 * (2 * N + 4 * M) + 3 * 4 * N

    block = K * N * N + N + 4 * N
    counts = [encoder(stem=stem).count_params() for stem in (0, 1, 3)]
    assert np.diff(counts).tolist() == [3 * (block + 4 * N), 3 * 2 * block]

    sides = {layer.kernel_size for layer in of_kind(encoder(kernel=3), layers.Conv2D)}
    assert sides == {(3, 3), (1, 1)}


def passes(model, layer):
    """Whether anything of the inputs reaches the outputs past a layer."""
    try:
        keras.Model(model.get_layer(layer).output, model.output)
    except ValueError:
        return True
    return False


def test_without_skips_all_passes_the_bottleneck():
    narrowest = "bottleneck_a_norm"
    assert not passes(encoder(skips=False, residuals=False), narrowest)
    assert passes(encoder(skips=False), narrowest)
    assert passes(encoder(residuals=False), narrowest)
    assert not passes(translator(skips=False), "enc_3_conv")
    assert passes(translator(), "enc_3_conv")


def test_dropout_where_it_is_published():
    def rates(model):
        return [layer.rate for layer in of_kind(model, layers.Dropout)]

    assert rates(encoder()) == [0.5] * 18
    found = of_kind(translator(128), layers.Dropout)
    assert [layer.rate for layer in found] == [0.5] * 3
    assert [layer.name for layer in found] == [f"dec_{level}_dropout" for level in (5, 4, 3)]
    assert rates(judge()) == [0.5] * 4
    assert not any(rates(build(dropout=0)) for build in ALL)


def channels(level, width):
    return max(4, 4 * round(64 * 2 ** min(level, 3) * width / 4))


def expected_of_translator(depth, width, inputs, outputs, biases=True, skips=True, kernel=4):
    """Trained parameters of the U-Net: C64-C128-C256-C512-…, and back with skips."""
    down = [channels(level, width) for level in range(depth)]
    up = down[-2::-1]
    seen = [down[-1]] + [(1 + skips) * size for size in up]
    count = sum(a * b for a, b in zip([inputs, *down], down, strict=False)) * kernel**2
    count += sum(a * b for a, b in zip(seen, [*up, outputs], strict=True)) * kernel**2
    norms = 2 * (sum(down[1:-1]) + sum(up))
    return count + norms + biases * (sum(down) + sum(up) + outputs)


def test_published_numbers_of_parameters_of_pix2pix():
    """The authors' generator tells of 54.414 million without biases but the last layer's three."""
    assert expected_of_translator(8, 1, 3, 3, biases=False) + 3 == 54_413_955
    assert expected_of_translator(8, 1, 3, 3) == 54_419_459
    model = pix2pix.build(256, ("q", "u", "e"), ("a", "b", "c"))
    assert trained(model) == 54_419_459
    assert [tuple(tensor.shape) for tensor in model.output.values()] == [(None, 256, 256, 1)] * 3


@pytest.mark.parametrize("switches", [{}, {"biases": False}, {"skips": False}, {"kernel": 3}])
@pytest.mark.parametrize(("pixels", "depth"), [(20, 2), (16, 4), (96, 5), (64, 6), (512, 8)])
def test_switches_and_depth_of_pix2pix(pixels, depth, switches):
    """It halves until a side is odd, or one pixel."""
    model = translator(pixels, **switches)
    sides = [layer.output.shape[1] for layer in of_kind(model, layers.Conv2D)]
    assert sides == [pixels // 2 ** (level + 1) for level in range(depth)]
    assert trained(model) == expected_of_translator(depth, WIDTH, 2, 3, **switches)
    assert all(tensor.shape == (None, pixels, pixels, 1) for tensor in model.output.values())
    assert bool(of_kind(model, layers.Concatenate)) == switches.get("skips", True)


def test_outputs_of_pix2pix_have_no_bounds():
    model = translator()
    for name in OUTPUTS:
        model.get_layer(f"{name}_conv").bias.assign([50.0])
    assert all(np.mean(values) > 40 for values in model(maps(model)).values())


def test_published_numbers_of_parameters_of_the_discriminator():
    """The authors' tells of 2.769 million, without biases where a norm follows."""
    model = pix2pix.discriminator(256, 6)
    count = 4**2 * (6 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + (64 + 1)
    count += 2 * (128 + 256 + 512)
    assert count == 2_768_705
    assert trained(model) == count + 128 + 256 + 512
    assert trained(pix2pix.discriminator(256, 6, biases=False)) == count - 64 - 1
    bare = pix2pix.discriminator(256, 6, batch_norm=False)
    assert trained(bare) == count - 128 - 256 - 512
    assert not of_kind(bare, layers.BatchNormalization)
    assert model.output_shape == (None, 32, 32, 1)


@pytest.mark.parametrize(("number", "kernel", "side"), [(3, 4, 70), (2, 4, 34), (1, 4, 16)])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_receptive_field_of_the_discriminator(number, kernel, side, spectral_norm):
    """70² pixels (Isola et al. 2017): where a logit's gradient by the map is not zero."""
    model = judge(96, kernel=kernel, layers=number, spectral_norm=spectral_norm)
    x = maps(model, 1)
    along = seam(model.variables)
    middle = model.output_shape[1] // 2

    def step(x):
        def logit(x):
            return model(x, training=False)[0, middle, middle, 0], None

        return along.gradient(logit, tensors=[x])[2][0]

    seen = np.asarray(along.compile(step)(x))[0].any(axis=-1)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    assert len(rows) == len(columns) == side
    assert rows[-1] - rows[0] == columns[-1] - columns[0] == side - 1


@pytest.mark.parametrize("filters", [1, 6])
def test_spectral_norm_divides_by_the_largest_singular_value(filters):
    layer = SpectralConv2D(filters, 3, padding="same", use_bias=False, seed=4)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 5)).astype(np.float32)
    layer(x)
    layer.kernel.assign(np.random.default_rng(1).standard_normal((3, 3, 5, filters)))
    kernel = ops.convert_to_numpy(layer.kernel.value)
    start = ops.convert_to_numpy(layer.vector.value)
    layer(x, training=False)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.vector.value), start)
    for _ in range(200):
        layer(x, training=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.kernel.value), kernel)
    largest = np.linalg.svd(kernel.reshape(-1, filters))[1].max()
    plain = ops.convert_to_numpy(ops.conv(x, kernel, padding="same"))
    for training in (False, True):
        found = ops.convert_to_numpy(layer(x, training=training))
        np.testing.assert_allclose(found, plain / largest, rtol=1e-3, atol=1e-5)


def test_gradients_flow_through_the_spectral_norm():
    """A longer kernel gives the same: no gradient along it, and all of that across it."""
    layer = SpectralConv2D(6, 3, use_bias=False, seed=4)
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((2, 8, 8, 5)), rng.standard_normal((2, 6, 6, 6))
    layer(np.float32(x))
    kernel = rng.standard_normal((3, 3, 5, 6))
    layer.kernel.assign(kernel)
    along = seam(layer.variables)

    @along.compile
    def step(x):
        def loss():
            return ops.sum(layer(x, training=True) * np.float32(weights)), None

        return along.gradient(loss, layer.trainable_variables)[2][0]

    for _ in range(200):
        gradient = np.asarray(step(np.float32(x)), np.float64)
    assert abs((gradient * kernel).sum()) < 1e-4 * np.linalg.norm(gradient) * np.linalg.norm(kernel)

    def exact(kernel):
        largest = np.linalg.svd(kernel.reshape(-1, 6))[1].max()
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        return (np.einsum("nyxcij,ijcf->nyxf", windows, kernel / largest) * weights).sum()

    way = rng.standard_normal(kernel.shape)
    slope = (exact(kernel + 1e-5 * way) - exact(kernel - 1e-5 * way)) / 2e-5
    assert (gradient * way).sum() == pytest.approx(slope, rel=1e-3)


def test_a_discriminator_with_spectral_norm_is_no_steeper_than_its_layers():
    """Each layer of 4×4 windows, which overlap 4 times at stride 2, lengthens a step 4 times."""
    model = judge(32, width=0.125, dropout=0, batch_norm=False, spectral_norm=True)
    assert len(of_kind(model, SpectralConv2D)) == 5
    rng = np.random.default_rng(0)
    for layer in of_kind(model, SpectralConv2D):
        layer.kernel.assign(10 * rng.standard_normal(layer.kernel.shape))
    x = maps(model)
    for _ in range(50):
        model(x, training=True)
    step = 0.1 * rng.standard_normal(x.shape).astype(np.float32)
    moved = np.linalg.norm(np.asarray(model(x + step)) - np.asarray(model(x)))
    assert 0 < moved < 2**3 * 4**2 * np.linalg.norm(step)


@pytest.mark.parametrize("build", ALL)
def test_weights_are_drawn_by_the_seed_alone(build):
    switches = {"spectral_norm": True} if build is judge else {}
    keras.utils.set_random_seed(1)
    first = build(**switches).get_weights()
    keras.utils.set_random_seed(2)
    again, other = build(**switches).get_weights(), build(seed=2, **switches).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    drawn = [a.std() > 0 for a in first]
    assert all(
        not np.array_equal(a, b) for a, b, one in zip(first, other, drawn, strict=True) if one
    )


@pytest.mark.parametrize("build", ALL)
def test_width_scales_channels_in_fours(build):
    for width in (0.01, 0.3):
        model = build(width=width)
        sizes = {layer.filters for layer in of_kind(model, layers.Conv2D)} - {1}
        assert all(size % 4 == 0 and size >= 4 for size in sizes)
        assert min(sizes) == max(4, 4 * round(64 * width / 4))


@pytest.mark.parametrize(
    ("build", "switches"),
    [
        (encoder, {"stem": 1, "skips": False}),
        (translator, {}),
        (judge, {}),
        (judge, {"spectral_norm": True, "batch_norm": False}),
    ],
)
def test_saved_networks_load_in_safe_mode(build, switches, tmp_path):
    model = build(**switches)
    x = maps(model)
    model(x, training=True)
    model.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras", compile=False, safe_mode=True)
    one, other = (keras.tree.flatten(network(x)) for network in (model, again))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("build", [*ALL, lambda: judge(spectral_norm=True)])
def test_last_layers_stay_in_float32_under_a_mixed_policy(build):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy("float32")
    assert of_kind(model, layers.Conv2D)[0].compute_dtype == "bfloat16"
    found = keras.tree.flatten(model(maps(model), training=True))
    assert {values.dtype.name for values in found} == {"float32"}
    assert all(np.isfinite(values).all() for values in found)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: encoder(18), r"grid\.pixels: expected a multiple of 4, found 18"),
        (lambda: translator(18), r"grid\.pixels: expected a multiple of 4, found 18"),
        (lambda: judge(0), r"grid\.pixels: expected a multiple of 4, found 0"),
        (lambda: encoder(stem=-1), r"network\.stem: expected 0 to 26 blocks, found -1"),
        (lambda: encoder(kernel=1), r"network\.kernel: expected 2 pixels or more, .* found 1"),
        (lambda: translator(kernel=1), r"network\.kernel: expected 2 pixels or more, .* found 1"),
        (lambda: judge(kernel=1), r"discriminator\.kernel: expected 2 pixels or more, .* found 1"),
        (lambda: judge(layers=0), r"discriminator\.layers: expected 1 or more, found 0"),
    ],
)
def test_what_cannot_be_built_is_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()


def results():
    """Outputs of networks and, of the discriminator, losses of steps and the singular vectors."""
    found = {}
    nets = {
        "pix2pix": translator(8, dropout=0),
        "odd": translator(20, dropout=0, kernel=5, biases=False),
        "judge": judge(dropout=0, batch_norm=False, spectral_norm=True, layers=1),
    }
    for name, model in nets.items():
        rng = np.random.default_rng(3)
        for variable in model.variables:
            if variable.path.endswith(("kernel", "vector")):
                drawn = rng.standard_normal(variable.shape)
                variable.assign(drawn / np.sqrt(np.prod(variable.shape[:-1])))
        compiled = seam(model.variables).compile(lambda x, model=model: model(x))
        found[name] = [
            ops.convert_to_numpy(one) for one in keras.tree.flatten(compiled(maps(model)))
        ]
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    along = seam([*model.variables, *optimizer.variables])

    @along.compile
    def step(x):
        def loss():
            return ops.mean(ops.softplus(model(x, training=True))), None

        value, _, gradients = along.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return value

    found["losses"] = [np.array([float(step(maps(model))) for _ in range(4)])]
    vectors = [layer.vector.value for layer in of_kind(model, SpectralConv2D)]
    found["vectors"] = [ops.convert_to_numpy(vector) for vector in vectors]
    return {name: [one.ravel().tolist() for one in arrays] for name, arrays in found.items()}


@pytest.mark.slow
def test_tensorflow_and_jax_agree():
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    jax, tensorflow = json.loads(other.stdout.splitlines()[-1]), results()
    assert list(jax) == list(tensorflow)
    for name, parts in tensorflow.items():
        for one, again in zip(parts, jax[name], strict=True):
            np.testing.assert_allclose(one, again, rtol=2e-4, atol=2e-5, err_msg=name)
    (losses,) = tensorflow["losses"]
    assert losses[-1] < losses[0]


if __name__ == "__main__":
    print(json.dumps(results()))
