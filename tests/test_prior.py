"""The law of an autoencoder's latents: network and sampler against theory, what it learns."""

import keras
import numpy as np
import pytest

from skyweave.config.galaxies import Prior as Settings
from skyweave.networks import prior
from skyweave.training.prior import fit

LATENT = 3


def numbers(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, LATENT)).astype(np.float32)


def decoder():
    """What tells its latents."""
    latents = keras.Input((LATENT,))
    return keras.Model(latents, {"image": keras.layers.Identity()(latents)})


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def test_an_untrained_network_is_the_preconditioning(policy):
    """The best for white latents of deviation 1, at each level of the noise."""
    network = prior.denoiser(LATENT, 8, 1)
    noisy, sigma = numbers(50), np.geomspace(1e-3, 1e2, 50, dtype=np.float32)[:, None]
    found = network(np.concatenate([noisy, sigma], axis=1))["latents"]
    np.testing.assert_allclose(found, noisy / (1 + sigma**2), rtol=1e-6)


def test_latents_of_an_untrained_network_are_normal_with_the_mean_and_deviation(policy):
    """The path of each keeps its place in the law: less than 1 % off by the sampler's steps."""
    mean, deviation = np.array([1.0, -2, 0]), np.array([0.5, 1, 3])
    model = prior.lead(decoder(), prior.denoiser(LATENT, 8, 1), mean, deviation)
    drawn = numbers(20)
    found = model.predict_on_batch(drawn)["image"]
    np.testing.assert_allclose(found, mean + deviation * drawn, atol=0.01 * 3 * 3)
    assert model.input_shape == (None, LATENT)
    assert not model.trainable_variables


def test_first_weights_are_drawn_by_the_seed():
    one, same, other = (prior.denoiser(LATENT, 8, seed).get_weights() for seed in (1, 1, 2))
    for first, second in zip(one, same, strict=True):
        np.testing.assert_array_equal(first, second)
    assert any(not np.array_equal(first, second) for first, second in zip(one, other, strict=True))


def ring(count, seed):
    """Latents on a circle of radius 3 around (5, 0), as precise as 0.1; the third tells nothing."""
    angles = np.random.default_rng(seed).uniform(0, 2 * np.pi, count)
    means = np.stack([5 + 3 * np.cos(angles), 3 * np.sin(angles), 0 * angles], axis=1)
    return means, np.broadcast_to([0.1, 0.1, 1.0], means.shape)


@pytest.fixture(scope="module")
def learned():
    lines = []
    settings = Settings(updates=800, width=48)
    model = fit(decoder(), *ring(2000, 1), settings, seed=1, name="ring", log=lines.append)
    return model, lines


def test_the_law_is_learned(learned):
    """A circle without its middle, all around; what tells nothing stays as it was.

    Normal laws of the same mean and covariance have a radius of 2.66 ± 1.4.
    """
    model, lines = learned
    assert len(lines) == 10
    assert lines[-1].startswith("law of the latents: update 800/800  loss 0.")
    found = model.predict_on_batch(numbers(2000, 2))["image"]
    x, y = found[:, 0] - 5, found[:, 1]
    radius = np.hypot(x, y)
    assert radius.mean() == pytest.approx(3, abs=0.05)
    assert radius.std() < 0.3
    for wave in (1, 2):
        assert abs(np.exp(1j * wave * np.arctan2(y, x)).mean()) < 0.12
    assert found[:, 2].mean() == pytest.approx(0, abs=0.12)
    assert found[:, 2].std() == pytest.approx(1, abs=0.1)


def test_a_law_on_disk_is_the_same(learned, tmp_path):
    learned[0].save(tmp_path / "law.keras")
    again = keras.saving.load_model(tmp_path / "law.keras")
    drawn = numbers(10)
    one, other = (model.predict_on_batch(drawn)["image"] for model in (again, learned[0]))
    np.testing.assert_array_equal(one, other)


def test_the_law_is_drawn_by_seed_and_name():
    def law(updates, **identity):
        model = fit(
            decoder(), *ring(50, 1), Settings(updates=updates, width=8), log=print, **identity
        )
        return model.get_weights()

    one = law(2, seed=1, name="a")
    for first, same in zip(one, law(2, seed=1, name="a"), strict=True):
        np.testing.assert_array_equal(first, same)
    for other in (law(2, seed=1, name="b"), law(3, seed=1, name="a")):
        assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))
