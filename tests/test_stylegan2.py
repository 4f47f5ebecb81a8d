"""StyleGAN2: its layers against literal definitions, its size, its styles and its training."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from scipy import signal

from skyweave.config.runs import StyleBased as Settings
from skyweave.errors import UserError
from skyweave.networks import stylegan2
from skyweave.networks.style_layers import (
    EqualizedConv2D,
    EqualizedDense,
    MinibatchDeviation,
    ModulatedConv2D,
    Resample,
)
from skyweave.training.method import Learner, Place
from skyweave.training.state import values
from skyweave.training.style import StyleBased, compose

LATENT, TINY = 6, 0.01
TAPS = np.outer((1, 3, 3, 1), (1, 3, 3, 1)) / 64


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def leaky(x):
    return np.sqrt(2) * np.where(x > 0, x, 0.2 * x)


def stuffed(x):
    """A map with zeros between its pixels, none behind the last."""
    made = np.zeros((2 * len(x) - 1,) * 2)
    made[::2, ::2] = x
    return made


def doubled(x):
    """Zeros behind each pixel, then the filter with a sum of 4, two pixels before and one after."""
    return signal.correlate2d(np.pad(np.pad(stuffed(x), (0, 1)), (2, 1)), 4 * TAPS, "valid")


def generator(pixels=8, outputs=("b", "a"), kind="skip", noise=True, width=TINY, seed=1):
    mapping = stylegan2.mapping(LATENT, 2, seed, width=width)
    styles = mapping.output_shape[1]
    return compose(
        mapping,
        stylegan2.synthesis(pixels, outputs, styles, width, seed, kind=kind, pixel_noise=noise),
    )


def strengthen(model, strength=1.0):
    """The model with noise, whose strength is 0 at first."""
    for variable in model.trainable_variables:
        if variable.path.endswith("strength"):
            variable.assign(strength)
    return model


def joined(outputs):
    return np.concatenate([np.asarray(outputs[name]) for name in outputs], axis=-1)


def sizes(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def test_parameters_are_the_published_ones():
    """At 256², width 1 and three bands, layer by layer, and the authors' totals.

    A modulated convolution has a kernel, biases, the strength of its noise, and a dense layer from
    the style to a scale for each of its inputs; one to an image has no noise.
    """
    w, bands = 512, 3
    channels = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64}

    def conv(inputs, filters):
        return 9 * inputs * filters + filters + 1 + (w + 1) * inputs

    made = 16 * 512 + conv(512, 512)
    for side, filters in channels.items():
        if side > 4:
            made += conv(channels[side // 2], filters) + conv(filters, filters)
        made += filters * bands + bands + (w + 1) * filters
    dense = 8 * (w + 1) * w
    told = (bands + 1) * 64
    for side, filters in channels.items():
        if side > 4:
            half = channels[side // 2]
            told += (9 * filters + 1) * filters + (9 * filters + 1) * half + filters * half
    told += (9 * 513 + 1) * 512 + (16 * 512 + 1) * 512 + 513
    assert (made + dense, told) == (24_767_458, 24_001_089)

    options = {"kind": "skip", "pixel_noise": True}
    assert sizes(stylegan2.mapping(512, 8, 0, width=1)) == dense
    synthesis = stylegan2.synthesis(256, ("r", "g", "b"), w, 1, 0, **options)
    assert synthesis.input_shape == (None, 14, w)
    assert sizes(synthesis) == made
    assert sizes(stylegan2.discriminator(256, bands, 1, 0)) == told


@pytest.mark.parametrize("up", [False, True])
def test_scaling_maps_is_modulating_weights(up):
    """Against the weights of each example, modulated and demodulated one by one."""
    layer = ModulatedConv2D(4, 3, seed=2, up=up, gain=0.7)
    x, style = normal(3, 5, 5, 6), 1 + normal(3, 6, seed=1)
    layer([x, style])
    layer.bias.assign(normal(4, seed=2))
    found = np.asarray(layer([x, style]))
    for n in range(3):
        weights = np.asarray(layer.kernel, np.float64) / np.sqrt(9 * 6) * style[n][:, None]
        weights /= np.sqrt((weights**2).sum(axis=(0, 1, 2)) + 1e-8)
        for filter_ in range(4):
            made = 0
            for channel in range(6):
                kernel, one = weights[..., channel, filter_], x[n, ..., channel]
                if up:
                    whole = np.pad(signal.convolve2d(stuffed(one), kernel), 1)
                    made = made + signal.correlate2d(whole, 4 * TAPS, "valid")
                else:
                    made = made + signal.correlate2d(one, kernel, "same")
            expected = 0.7 * leaky(made + np.asarray(layer.bias)[filter_])
            np.testing.assert_allclose(found[n, ..., filter_], expected, rtol=0, atol=1e-5)


def test_without_activation_only_the_inputs_are_scaled():
    """As for images: a kernel of one pixel, no demodulation."""
    layer = ModulatedConv2D(2, 1, active=False)
    x, style = normal(3, 4, 4, 6), normal(3, 6, seed=1)
    found = layer([x, style])
    expected = (x * style[:, None, None]) @ np.asarray(layer.kernel)[0, 0] / np.sqrt(6)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_demodulation_keeps_the_variance():
    """Of independent inputs, for styles of any size; away from the edges."""
    layer = ModulatedConv2D(64, 3, seed=1)
    style = np.exp(normal(4, 64, seed=1)) * np.float32([[1], [1e-2], [30], [1e3]])
    found = np.asarray(layer([normal(4, 24, 24, 64), style]))[:, 1:-1, 1:-1] / np.sqrt(2)
    before = np.where(found > 0, found, found / 0.2)
    np.testing.assert_allclose(before.var(axis=(1, 2, 3)), 1, rtol=0.05)


@pytest.mark.parametrize("layer", [EqualizedConv2D(256, 3), EqualizedDense(256, leaky=True)])
def test_rates_are_equalized(layer):
    """Weights of deviation 1, outputs of the second moment (1 + 0.2²) that the gain is for."""
    x = normal(64, 6, 6, 128) if isinstance(layer, EqualizedConv2D) else normal(2000, 128)
    found = np.asarray(layer(x))
    found = found[:, 1:-1, 1:-1] if found.ndim == 4 else found
    assert np.std(layer.kernel) == pytest.approx(1, rel=0.02)
    assert np.mean(found**2) == pytest.approx(1.04, rel=0.03)


def test_the_mapping_learns_slower():
    """Weights of deviation 100 count a hundredth; latents count by their direction only."""
    model = stylegan2.mapping(LATENT, 3, 0, width=0.25)
    layer, latents = model.layers[-1], normal(500, LATENT)
    assert model.output_shape == (None, 128)
    assert stylegan2.mapping(LATENT, 3, 0, width=TINY).output_shape == (None, 32)
    assert np.std(layer.kernel) == pytest.approx(100, rel=0.02)
    found = np.asarray(model(latents))
    assert np.mean(found**2) == pytest.approx(1, rel=0.2)
    np.testing.assert_allclose(model(3 * latents), found, atol=1e-5)
    layer.kernel.assign(np.ones_like(layer.kernel))
    layer.bias.assign(5 * np.ones_like(layer.bias))
    x = np.abs(normal(3, 128))
    expected = 0.01 * np.sqrt(2) * (x.sum(axis=1) / np.sqrt(128) + 5)
    np.testing.assert_allclose(np.asarray(layer(x))[:, 7], expected, rtol=1e-5)


def test_changes_of_resolution_are_the_published_filters():
    x = normal(2, 8, 8, 3)
    up, down = np.asarray(Resample(True)(x)), np.asarray(Resample(False)(x))
    layer = EqualizedConv2D(2, 3, down=True, leaky=False)
    strided = np.asarray(layer(x))
    kernel = np.asarray(layer.kernel) / np.sqrt(27)
    made = np.zeros((2, 4, 4, 2))
    for n in range(2):
        for channel in range(3):
            one = x[n, ..., channel]
            blurred = signal.correlate2d(np.pad(one, 1), TAPS, "valid")[::2, ::2]
            np.testing.assert_allclose(up[n, ..., channel], doubled(one), atol=1e-6)
            np.testing.assert_allclose(down[n, ..., channel], blurred, atol=1e-6)
            wide = signal.correlate2d(np.pad(one, 2), TAPS, "valid")
            for filter_ in range(2):
                seen = signal.correlate2d(wide, kernel[..., channel, filter_], "valid")
                made[n, ..., filter_] += seen[::2, ::2]
    np.testing.assert_allclose(strided, made, atol=1e-5)


def test_a_smooth_map_is_doubled_in_its_place():
    """A slope stays a slope, about the same centre; away from the edges."""
    place = np.arange(16, dtype=np.float32) - 7.5
    x = np.broadcast_to(place[None, None, :, None], (1, 16, 16, 1))
    found = np.asarray(Resample(True)(x))[0, 2:-2, 2:-2, 0]
    expected = (np.arange(32) - 15.5)[2:-2] / 2
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-5)


@pytest.mark.parametrize(
    ("count", "size"), [(8, 4), (4, 4), (6, 3), (2, 2), (5, 5), (7, 7), (1, 1)]
)
@pytest.mark.parametrize("known", [True, False])
def test_deviation_is_that_of_its_group(count, size, known):
    import tensorflow as tf

    x, layer = normal(count, 4, 4, 3), MinibatchDeviation()
    shape = tf.TensorSpec((count if known else None, 4, 4, 3))
    found = np.asarray(tf.function(layer, input_signature=[shape])(x))
    np.testing.assert_array_equal(found[..., :3], x)
    for n in range(count):
        group = x[n % (count // size) :: count // size]
        assert len(group) == size
        expected = np.sqrt(group.var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(found[n, ..., 3], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["skip", "residual"])
def test_a_style_decides_its_own_layers(kind):
    """And through them what comes after; never what comes before."""
    model = stylegan2.synthesis(16, ("a",), 8, TINY, 0, kind=kind, pixel_noise=False)
    way = ("4_second", "8_first", "8_second", "16_first", "16_second")
    first = {name: at for at, name in enumerate(way)}
    # An image's own style is that of the next convolution, or the last.
    images = {"image_4": (0, 1), "image_8": (0, 1, 2, 3), "image_16": (0, 1, 2, 3, 4, 5)}
    images = images if kind == "skip" else {"image_16": images["image_16"]}
    names = (*way, *images)
    look = keras.Model(model.input, [model.get_layer(name).output for name in names])
    assert stylegan2.style_count(16) == model.input_shape[1] == 6
    styles = normal(2, 6, 8)
    before = [np.asarray(x) for x in look(styles)]
    for row in range(6):
        other = styles.copy()
        other[0, row] += 1
        for name, old, new in zip(names, before, look(other), strict=True):
            changes = row in images[name] if name in images else row <= first[name]
            assert (np.abs(old[0] - new[0]).max() > 1e-3) == changes, (name, row)
            np.testing.assert_array_equal(old[1], np.asarray(new)[1])


def test_noise_is_one_number_a_pixel():
    """Of variance strength², for all channels alike; not of the first network."""
    layer = ModulatedConv2D(3, 3, noise_seed=4)
    x, style = normal(8, 16, 16, 5), np.zeros((8, 5), np.float32)
    np.testing.assert_array_equal(layer([x, style]), np.zeros((8, 16, 16, 3)))
    layer.strength.assign(0.5)
    found = np.asarray(layer([x, style]), np.float64) / np.sqrt(2)
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    noise = np.where(found > 0, found, found / 0.2)[..., 0]
    assert noise.std() == pytest.approx(0.5, rel=0.05)
    assert abs(noise.mean()) < 0.05
    assert np.unique(noise).size > 0.99 * noise.size


def test_reseeding_gives_the_same_images():
    """Of a generator whose noise has another state; each layer draws its own."""
    model, latents = strengthen(generator()), normal(3, LATENT)
    stylegan2.reseed(model, 5)
    found, more = joined(model(latents)), joined(model(latents))
    stylegan2.reseed(model, 5)
    np.testing.assert_array_equal(joined(model(latents)), found)
    np.testing.assert_array_equal(joined(model(latents)), more)
    stylegan2.reseed(model, 6)
    other = joined(model(latents))
    assert min(np.abs(found - more).max(), np.abs(found - other).max()) > 1e-3
    states = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    assert len({tuple(np.asarray(state)) for state in states}) == len(states) == 3


def test_without_noise_nothing_is_drawn():
    model, latents = generator(noise=False), normal(3, LATENT)
    assert not model.non_trainable_variables
    assert not any(v.path.endswith("strength") for v in model.variables)
    np.testing.assert_array_equal(joined(model(latents)), joined(model(latents)))


@pytest.mark.parametrize("kind", ["skip", "residual"])
def test_weights_are_the_seeds(kind):
    def made(seed):
        networks = generator(kind=kind, seed=seed), stylegan2.discriminator(8, 2, TINY, seed)
        return [values(network.trainable_variables) for network in networks]

    drawn = []
    for one, same, other in zip(made(1), made(1), made(2), strict=True):
        for mine, again, theirs in zip(one, same, other, strict=True):
            np.testing.assert_array_equal(mine, again)
            if mine.std() > 0:
                assert not np.array_equal(mine, theirs)
                drawn.append(float(mine.flat[0] / mine.std()))
    assert len({round(x, 4) for x in drawn}) == len(drawn), "two layers drew the same"


@pytest.mark.parametrize(
    ("pixels", "bands", "kind"),
    [(16, 1, "skip"), (32, 2, "residual"), (64, 3, "skip"), (128, 4, "skip"), (256, 5, "residual")],
)
def test_shapes(pixels, bands, kind):
    names = tuple("grizy"[:bands])
    made = generator(pixels, names, kind)(normal(2, LATENT))
    assert tuple(made) == names
    for maps in made.values():
        assert maps.shape == (2, pixels, pixels, 1)
        assert maps.dtype == "float32"
        assert np.isfinite(maps).all()
        assert np.std(maps) > 1e-3
    logits = stylegan2.discriminator(pixels, bands, TINY, 0)(joined(made))
    assert logits.shape == (2, 1)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("kind", ["skip", "residual"])
def test_bfloat16_has_float32_ends(kind):
    """Within the four per mille that a number has, over its layers."""
    latents, maps = normal(4, LATENT), normal(4, 16, 16, 2, seed=1)

    def found():
        model = strengthen(generator(16, kind=kind, width=0.03))
        stylegan2.reseed(model, 1)
        return joined(model(latents)), np.asarray(stylegan2.discriminator(16, 2, 0.03, 1)(maps))

    exact = found()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        rounded = found()
        layer = ModulatedConv2D(4, 3)
        assert layer([maps, normal(4, 2)]).dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    for one, other in zip(rounded, exact, strict=True):
        assert one.dtype == np.float32
        assert not np.array_equal(one, other)
        assert np.sqrt(np.mean((one - other) ** 2)) < 0.05 * np.std(other)


@pytest.mark.parametrize("pixels", [4, 12, 48, 0])
def test_pixels_are_a_power_of_2(pixels):
    with pytest.raises(UserError, match="power of 2"):
        stylegan2.discriminator(pixels, 1, TINY, 0)
    with pytest.raises(UserError, match="power of 2"):
        stylegan2.synthesis(pixels, ("a",), 8, TINY, 0, kind="skip", pixel_noise=True)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="skip or residual"):
        stylegan2.synthesis(8, ("a",), 8, TINY, 0, kind="other", pixel_noise=True)


@pytest.mark.slow
def test_the_generator_is_read_in_a_fresh_process(tmp_path):
    """In safe mode, with its noise."""
    model, latents = strengthen(generator(kind="residual")), normal(3, LATENT)
    stylegan2.reseed(model, 5)
    expected = joined(model(latents))
    model.save(tmp_path / "network.keras")
    np.save(tmp_path / "latents.npy", latents)
    program = f"""
import keras, numpy as np
from skyweave.networks import stylegan2
model = keras.saving.load_model({str(tmp_path / "network.keras")!r}, compile=False, safe_mode=True)
stylegan2.reseed(model, 5)
made = model(np.load({str(tmp_path / "latents.npy")!r}))
np.savez({str(tmp_path / "made.npz")!r}, **made)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    made = np.load(tmp_path / "made.npz")
    np.testing.assert_allclose(joined({name: made[name] for name in "ba"}), expected, atol=1e-5)


def method(kind, noise):
    """Plain descent by 1 moves the weights by the gradient; from weights by NumPy."""
    networks = generator(kind=kind, noise=noise), stylegan2.discriminator(8, 2, TINY, 1)
    rng = np.random.default_rng(3)
    for network in networks:
        for variable in network.trainable_variables:
            drawn = rng.standard_normal(variable.shape)
            rate = 0.01 if "map_" in variable.path else 1.0
            weight = variable.path.endswith(("kernel", "map"))
            variable.assign((drawn if weight else 0.1 * drawn + 0.2) / rate)
    learners = [Learner(network, keras.optimizers.SGD(1.0)) for network in networks]
    return StyleBased(*learners, Settings(path_shrink=2), seed=7, name="toy")


def stepped(kind, noise):
    """Losses of a step with both regularizations, and how far each weight moved."""
    one = method(kind, noise)
    before = [values(learner.model.trainable_variables) for learner in one.learners]
    y = {name: normal(6, 8, 8, 1, seed=at) for at, name in enumerate("ab")}
    losses, norm = one.train(y["a"], y, Place(0, 0))
    after = [values(learner.model.trainable_variables) for learner in one.learners]
    ways = {
        variable.path: (new - old).ravel().tolist()
        for learner, olds, news in zip(one.learners, before, after, strict=True)
        for variable, old, new in zip(learner.model.trainable_variables, olds, news, strict=True)
    }
    return losses, norm, ways


def test_a_step_reaches_all_weights():
    """With mixed styles, R1, path lengths and noise."""
    losses, norm, ways = stepped("skip", True)
    assert {"generator", "discriminator", "r1", "path_length"} <= set(losses)
    assert np.isfinite([*losses.values(), norm]).all()
    assert min(losses["r1"], losses["path_length"]) > 0
    for path, way in ways.items():
        assert np.isfinite(way).all(), path
        assert np.abs(way).max() > 0, path


@pytest.mark.slow
def test_tensorflow_and_jax_agree():
    """Losses and gradients, those of slopes and path lengths too, of both kinds without noise."""
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for kind, jax in json.loads(other.stdout.splitlines()[-1]).items():
        tensorflow = stepped(kind, False)
        assert jax[0] == pytest.approx(tensorflow[0], rel=1e-3)
        assert jax[1] == pytest.approx(tensorflow[1], rel=1e-3)
        assert set(jax[2]) == set(tensorflow[2])
        for path, way in tensorflow[2].items():
            limit = 1e-3 * np.abs(way).max()
            np.testing.assert_allclose(jax[2][path], way, rtol=0, atol=limit, err_msg=path)


if __name__ == "__main__":
    print(json.dumps({kind: stepped(kind, False) for kind in ("skip", "residual")}))
