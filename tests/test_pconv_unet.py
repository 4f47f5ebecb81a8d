"""The network that fills holes: its published sizes, and what it does before it has learned."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from skyweave.config.inpainting import InpaintingNetwork
from skyweave.data.normalization import Normalization
from skyweave.errors import UserError
from skyweave.networks import pconv_unet
from skyweave.networks.card import Card, save_network
from skyweave.networks.partial_conv import PartialConv2D
from skyweave.networks.pconv_unet import encoder_norms
from skyweave.networks.registry import build

T, TQU = ("t_obs",), ("t_obs", "q_obs", "u_obs")
STARTS = tuple(f"start_{field}" for field in TQU)


def small(pixels=16, fields=T, start=(), seed=1, **settings):
    """As a task asks for it."""
    inputs = (*fields, "seen", *start)
    return build(InpaintingNetwork(**{"width": 0.125} | settings), pixels, inputs, fields, seed)


def disc(pixels, radius):
    y, x = np.indices((pixels, pixels)) - (pixels - 1) / 2
    return np.hypot(y, x) <= radius


def fed(pixels, hole, fields=T, start=(), inside=0.0, count=2):
    """Inputs (n, y, x, channels) with `inside` in the holes."""
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((count, pixels, pixels, len(fields)))
    starts = rng.standard_normal((count, pixels, pixels, len(start)))
    seen = np.broadcast_to(~hole[..., None], (count, pixels, pixels, 1))
    return np.concatenate([np.where(seen, maps, inside), seen, starts], -1).astype(np.float32)


def predicted(model, x):
    outputs = model(x, training=False)
    return {name: keras.ops.convert_to_numpy(each) for name, each in outputs.items()}


def convolutions(model):
    return [layer for layer in model.layers if isinstance(layer, PartialConv2D)]


def sizes(model):
    """Name, channels and kernel of each convolution, and the resolution it gives."""
    return [
        (layer.name, layer.filters, layer.kernel_size[0], layer.output[0].shape[1])
        for layer in convolutions(model)
    ]


@pytest.mark.parametrize("pixels", [64, 128])
def test_outputs_have_the_maps_shape(pixels):
    for fields, start in ((T, ()), (TQU, ()), (TQU, STARTS)):
        model = small(pixels, fields, start, width=0.01)
        assert model.input_shape == (None, pixels, pixels, len(fields) + 1 + len(start))
        assert list(model.output) == list(fields)
        assert all(each.shape == (None, pixels, pixels, 1) for each in model.output.values())


def test_published_network_at_128_pixels():
    encoder = [(1, 32, 7, 64), (2, 64, 5, 32), (3, 128, 3, 16), (4, 128, 3, 8), (5, 128, 3, 4)]
    encoder += [(6, 128, 3, 2), (7, 128, 3, 1)]
    decoder = [(7, 128, 2), (6, 128, 4), (5, 128, 8), (4, 128, 16), (3, 64, 32), (2, 32, 64)]
    expected = [(f"encode_{level}", *rest) for level, *rest in encoder]
    expected += [(f"decode_{level}", filters, 3, side) for level, filters, side in decoder]
    model = small(128, width=1)
    assert sizes(model) == [*expected, ("last", 1, 3, 128)]
    norms = [f"encode_{level}_norm" for level in range(2, 8)]
    assert [layer.name for layer in encoder_norms(model)] == norms
    there = [layer.name for layer in model.layers if "norm" in layer.name]
    assert there == norms + [f"decode_{level}_norm" for level in range(7, 1, -1)]
    assert not encoder_norms(small(128, batch_norm=False))


def test_published_network_at_512_pixels_has_eight_levels():
    """At a sixteenth of the width: 64, 128, 256 and then 512 channels."""
    found = sizes(small(512, width=1 / 16))
    filters, kernels = [4, 8, 16, 32, 32, 32, 32, 32], [7, 5, 5, 3, 3, 3, 3, 3]
    assert [each[1] for each in found] == [*filters, *filters[:-1][::-1], 1]
    assert [each[2] for each in found] == [*kernels, *[3] * 8]
    assert [each[3] for each in found] == [2 ** (8 - i) for i in range(8)] + [
        2 ** (i + 2) for i in range(8)
    ]


@pytest.mark.parametrize(("fields", "start"), [(T, ()), (TQU, STARTS)])
def test_parameters_at_width_one(fields, start):
    """Kernels and biases; scales and shifts of norms, and their averages, which are not trained."""
    c, maps = [32, 64, 128, 128, 128, 128, 128], len(fields) + len(start)
    kernels = sum(k * k * a * b for k, a, b in zip([7, 5, *[3] * 5], [maps, *c], c, strict=False))
    kernels += sum(9 * (c[i] + c[i - 1]) * c[i - 1] for i in range(1, 7))
    kernels += 9 * (c[0] + maps) * len(fields)
    biases = sum(c) + sum(c[:-1]) + len(fields)
    norms = 2 * (sum(c[1:]) + sum(c[:-1]))
    model = small(128, fields, start, width=1)
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)
    assert trained == kernels + biases + norms
    assert model.count_params() == trained + norms
    if fields == T:
        assert trained == 2_038_474, "as `pconv_unet.build` says"


def test_own_filters_and_kernels_make_the_levels():
    found = sizes(small(24, width=1, filters=(8, 12, 16), kernels=(4, 3, 2)))
    assert found[:3] == [("encode_1", 8, 4, 12), ("encode_2", 12, 3, 6), ("encode_3", 16, 2, 3)]
    assert [each[2] for each in sizes(small(16, filters=(4, 4, 4, 4)))][:4] == [7, 5, 3, 3]


def test_what_holes_hold_does_not_matter():
    hole = disc(16, 5)
    model = small(16, TQU)
    x = fed(16, hole, TQU)
    expected = predicted(model, x)
    for inside in (1e3, -1e30):
        for name, found in predicted(model, fed(16, hole, TQU, inside=inside)).items():
            np.testing.assert_array_equal(found, expected[name])
    # What is seen does.
    assert all((predicted(model, 2 * x)[name] != expected[name]).any() for name in TQU)


def test_a_hole_of_60_pixels_radius_is_filled():
    """Only corners are seen, and they reach every pixel."""
    hole = disc(128, 60)
    found = predicted(small(128), fed(128, hole))["t_obs"]
    assert np.isfinite(found).all()
    assert (found != 0).all()
    assert found[:, hole].std() > 1e-3


def test_what_nothing_seen_reaches_is_zero():
    """A map that is all hole; deep inside a hole, a network with few levels."""
    assert not predicted(small(16), fed(16, np.ones((16, 16), bool)))["t_obs"].any()
    shallow = small(64, filters=(4, 4), kernels=(3, 3))
    found = predicted(shallow, fed(64, disc(64, 25)))["t_obs"]
    assert not found[:, disc(64, 12)].any()
    assert found[:, ~disc(64, 25)].all()


def test_untrained_outputs_are_their_starts():
    x = fed(16, disc(16, 5), TQU, STARTS)
    for name, found in predicted(small(16, TQU, STARTS), x).items():
        np.testing.assert_array_equal(found[..., 0], x[..., 4 + TQU.index(name)])


def test_corrections_learn_from_their_starts():
    """The last layer starts at zero, and yet at a slope."""
    hole = disc(16, 5)
    model = small(16, T, ("start_t_obs",), width=1, filters=(4, 8))
    x = fed(16, hole, T, ("start_t_obs",))
    truth = {"t_obs": x[..., 2:] * 0.5}
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse", jit_compile=False)
    before = {weight.path: weight.numpy() for weight in model.trainable_variables}
    losses = [model.train_on_batch(x, truth) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
    changed = [weight.numpy() != before[weight.path] for weight in model.trainable_variables]
    assert all(each.any() for each in changed)


def test_starts_are_seen_in_holes():
    hole = disc(16, 5)
    model = small(16, T, ("start_t_obs",))
    model.get_layer("correction").kernel.assign(np.full((3, 3, 6, 1), 0.1, np.float32))
    x = fed(16, hole, T, ("start_t_obs",))
    nudged = x.copy()
    nudged[:, 8, 8, 2] += 1
    changes = np.abs(predicted(model, nudged)["t_obs"] - predicted(model, x)["t_obs"])
    assert (changes[:, 7:10, 7:10] > 0.01).all()


def test_seed_gives_the_weights():
    one, same, other = (small(16, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))
    drawn = [layer.kernel.numpy().ravel()[:4].tolist() for layer in convolutions(small(16))]
    assert len({tuple(each) for each in drawn}) == len(drawn), "layers draw for themselves"


def test_mixed_precision_ends_in_float32():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = small(16, T, ("start_t_obs",))
        plain = small(16)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    x = fed(16, disc(16, 5), T, ("start_t_obs",))
    np.testing.assert_array_equal(predicted(model, x)["t_obs"], x[..., 2:])
    assert model.get_layer("encode_1").compute_dtype == "float16"
    for each in (model, plain):
        assert keras.backend.standardize_dtype(each.output["t_obs"].dtype) == "float32"
    exact = small(16)
    exact.set_weights(plain.get_weights())
    half, single = (predicted(each, x[..., :2])["t_obs"] for each in (plain, exact))
    np.testing.assert_allclose(half, single, rtol=0, atol=0.02 * single.std())


def test_network_loads_where_nothing_else_is_imported(tmp_path):
    """Its layers are known to a process that loads it with its card."""
    inputs = (*T, "seen", "start_t_obs")
    card = Card(
        inputs=inputs,
        outputs=T,
        units=dict.fromkeys(inputs, "uK"),
        normalization=Normalization(dict.fromkeys(inputs, (0.0, 1.0))),
        size_deg=5.0,
        pixels=16,
        seed=1,
    )
    model, x = small(16, T, ("start_t_obs",)), fed(16, disc(16, 5), T, ("start_t_obs",))
    model.get_layer("correction").kernel.assign(np.full((3, 3, 6, 1), 0.1, np.float32))
    save_network(tmp_path, model, card)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np\nfrom skyweave.networks.card import load_network\n"
        "model = load_network(sys.argv[1]).model\n"
        "y = model(np.load(sys.argv[1] + '/x.npy'), training=False)['t_obs']\n"
        "np.save(sys.argv[1] + '/y.npy', np.asarray(y))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), predicted(model, x)["t_obs"])


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (17, {}, "grid.pixels: expected a multiple of 2, found 17"),
        (24, {"filters": (4, 4, 4, 4)}, "grid.pixels: expected a multiple of 16, found 24"),
        (16, {"filters": ()}, "network.filters: expected one level at least"),
        (16, {"kernels": (3, 3)}, "network.kernels: expected one for each of 4 levels"),
        (16, {"filters": (4,), "kernels": (1,)}, "network.kernels: expected 2 pixels or more"),
        (16, {"start": ("start_t_obs",)}, "start: expected one a field: t_obs, q_obs, u_obs"),
    ],
)
def test_mistakes_are_told(pixels, options, words):
    with pytest.raises(UserError) as error:
        pconv_unet.build(pixels, TQU, 1.0, 1, **options)
    assert words in str(error.value)
