"""ForSE's networks: the published numbers of parameters, and what comes out."""

from itertools import pairwise

import keras
import numpy as np
import pytest

from skyweave.config import ForseNetwork
from skyweave.errors import UserError
from skyweave.networks import forse
from skyweave.networks.registry import build, build_discriminator


def test_generator_has_the_published_parameters():
    model = forse.build(64, ("low",), ("ratio",))
    assert model.count_params() == 2_054_401
    assert forse.build(320, ("low",), ("ratio",)).count_params() == 2_054_401


@pytest.mark.parametrize(("pixels", "expected"), [(64, 1_092_353), (320, 2_665_217)])
def test_discriminator_has_the_published_parameters(pixels, expected):
    assert forse.discriminator(pixels).count_params() == expected


def test_maps_come_out_scaled_and_logits_do_not():
    rng = np.random.default_rng(0)
    maps = (100 * rng.standard_normal((3, 16, 16, 1))).astype(np.float32)
    model = forse.build(16, ("low",), ("a", "b"), width=0.125)
    found = model(maps)
    assert list(found) == ["a", "b"]
    for name in found:
        assert found[name].shape == (3, 16, 16, 1)
        assert np.abs(found[name]).max() <= 1
    logits = np.asarray(forse.discriminator(16, 2, 0.125)(np.concatenate([maps, maps], -1)))
    assert logits.shape == (3, 1)
    assert np.abs(logits).max() > 1, "a sigmoid would end at 1"


def test_without_batch_norm_nor_dropout_nothing_is_random_or_shared():
    """As the run without them: an example's output does not depend on its neighbours."""
    maps = np.random.default_rng(0).standard_normal((4, 16, 16, 1)).astype(np.float32)
    options = {"width": 0.125, "dropout": 0, "batch_norm": False}
    for model in (forse.build(16, "a", "b", **options), forse.discriminator(16, **options)):
        kinds = {type(layer) for layer in model.layers}
        assert not kinds & {keras.layers.BatchNormalization, keras.layers.Dropout}
        alone, together = model(maps[:1], training=True), model(maps, training=True)
        for one, both in zip(keras.tree.flatten(alone), keras.tree.flatten(together), strict=True):
            np.testing.assert_allclose(one[0], both[0], rtol=1e-4, atol=1e-6)


def test_weights_are_drawn_by_the_seed():
    one, same, other = (forse.discriminator(16, width=0.125, seed=seed) for seed in (1, 1, 2))
    kernels = [model.trainable_variables[0].numpy() for model in (one, same, other)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.any(kernels[0] != kernels[2])


@pytest.mark.parametrize("pixels", [0, 2, 18])
def test_a_grid_that_cannot_be_halved_twice_is_refused(pixels):
    for make in (lambda: forse.build(pixels, "a", "b"), lambda: forse.discriminator(pixels)):
        with pytest.raises(UserError, match=r"patches\.pixels: expected a multiple of 4"):
            make()


# From the settings


def test_default_settings_are_the_published_networks():
    assert build(ForseNetwork(), 64, ("low",), ("ratio",), 1).count_params() == 2_054_401
    counts = [build_discriminator(ForseNetwork(), size, 1, 1).count_params() for size in (64, 320)]
    assert counts == [1_092_353, 2_665_217]


def kinds(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_default_settings_drop_in_the_discriminator_only():
    generator = build(ForseNetwork(), 16, ("low",), ("ratio",), 1)
    judge = build_discriminator(ForseNetwork(), 16, 1, 1)
    assert not kinds(generator, keras.layers.Dropout)
    assert [layer.rate for layer in kinds(judge, keras.layers.Dropout)] == [0.25] * 3
    for model, expected in ((generator, 5), (judge, 2)):
        norms = kinds(model, keras.layers.BatchNormalization)
        assert [layer.momentum for layer in norms] == [0.5] * expected


def test_settings_reach_the_network_that_they_are_for():
    settings = ForseNetwork(width=0.125, dropout=0.1, discriminator_dropout=0, batch_norm=False)
    generator = build(settings, 16, ("low",), ("ratio",), 1)
    judge = build_discriminator(settings, 16, 2, 1)
    assert [layer.rate for layer in kinds(generator, keras.layers.Dropout)] == [0.1] * 5
    assert not kinds(judge, keras.layers.Dropout)
    for model in (generator, judge):
        assert not kinds(model, keras.layers.BatchNormalization)
    assert generator.input_shape == (None, 16, 16, 1)
    assert judge.input_shape == (None, 16, 16, 2)
    # Kernels of 5 x 5 with biases, nothing else.
    widths = (1, 8, 16, 32, 16, 8, 1)
    expected = sum((25 * before + 1) * after for before, after in pairwise(widths))
    assert generator.count_params() == expected


def test_the_seed_of_the_run_decides_the_weights():
    settings = ForseNetwork(width=0.125)
    one, same, other = (
        (
            build(settings, 16, ("low",), ("ratio",), seed),
            build_discriminator(settings, 16, 1, seed),
        )
        for seed in (1, 1, 2)
    )
    for first, second, third in zip(one, same, other, strict=True):
        for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert np.any(first.get_weights()[0] != third.get_weights()[0])


def test_a_patch_that_forse_cannot_take_is_named():
    for make in (
        lambda: build(ForseNetwork(), 18, ("low",), ("ratio",), 1),
        lambda: build_discriminator(ForseNetwork(), 18, 1, 1),
    ):
        with pytest.raises(
            UserError, match=r"^patches\.pixels: expected a multiple of 4, found 18$"
        ):
            make()
