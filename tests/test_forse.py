"""ForSE's networks: the published numbers of parameters, and what comes out."""

import keras
import numpy as np
import pytest

from skyweave.errors import UserError
from skyweave.networks import forse


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
