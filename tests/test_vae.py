"""The variational autoencoder: its bound against theory, its networks, its state, both backends."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from scipy import stats

from skyweave.config import Training
from skyweave.config.galaxies import Vae as Settings
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import Unfinished, UserError
from skyweave.networks import vae
from skyweave.seeds import generator as draws
from skyweave.training.interruption import Interruption
from skyweave.training.loop import train
from skyweave.training.method import Learner, Place, learner
from skyweave.training.runtime import prepare
from skyweave.training.state import assign, values
from skyweave.training.variational import Autoencoder, Variational

PIXELS, LATENT = 4, 3


def drawn(model, seed):
    """The model with weights from NumPy, so that nothing in it is zero."""
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        fan_in = max(1, np.prod(v.shape[:-1]))
        v.assign(rng.standard_normal(v.shape) / np.sqrt(fan_in))
    return model


def linear(fields=("b", "a")):
    """Networks without anything between latents and pixels."""
    images = keras.Input((PIXELS, PIXELS, len(fields)))
    x = layers.Flatten()(images)
    known = {name: layers.Dense(LATENT, name=name)(x) for name in ("mean", "log_variance")}
    latents = keras.Input((LATENT,))
    made = {
        name: layers.Reshape((PIXELS, PIXELS, 1))(layers.Dense(PIXELS**2, name=name)(latents))
        for name in fields
    }
    return keras.Model(images, known), keras.Model(latents, made)


def method(
    networks=None, rate=1.0, accumulate=False, optimizer=keras.optimizers.SGD, xla=False, **settings
):
    """Plain descent by 1 moves the weights by the gradient; networks are linear ones, drawn."""
    if networks is None:
        networks = [drawn(network, seed) for seed, network in enumerate(linear())]
    chosen = Settings(**settings)
    one = Learner(Autoencoder(*networks, chosen.deviation), optimizer(rate), accumulate=accumulate)
    return Variational(one, chosen, seed=7, name="toy", xla=xla)


def real(fields=("a", "b"), seed=0, count=6, pixels=PIXELS):
    rng = np.random.default_rng(seed)
    shape = (count, pixels, pixels, 1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name in fields}


def step(one, y, batch=0, **place):
    return one.train(None, y, Place(batch, place.pop("update", batch), **place))


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays])


def test_losses_are_the_analytic_ones():
    """Of the draws of a batch, the images in the decoder's order, whatever the feed's."""
    one, y = method(deviation=0.3), real()
    kernel, bias, log_kernel, log_bias = (
        values(one.learners[0].model.encoder.get_layer(name).variables)[i]
        for name in ("mean", "log_variance")
        for i in (0, 1)
    )
    images = np.concatenate([y["b"], y["a"]], -1).reshape(6, -1)
    mean, log_variance = images @ kernel + bias, images @ log_kernel + log_bias
    noise = draws(7, "toy", "latents", 5).standard_normal((6, LATENT), np.float32)
    made = one.model.decoder(mean + np.exp(log_variance / 2) * noise)
    residual = np.concatenate([np.asarray(made[name]) - y[name] for name in ("b", "a")], -1)
    nll = -stats.norm.logpdf(residual, scale=0.3).reshape(6, -1).sum(axis=1).mean()
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1).mean()
    losses, _ = step(one, y, batch=5)
    assert losses["negative_log_likelihood"] == pytest.approx(nll, rel=1e-5)
    assert losses["divergence"] == pytest.approx(kl, rel=1e-5)
    assert losses["reconstruction"] == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-5)
    assert losses["deviation"] == pytest.approx(0.3)
    assert list(losses) == ["negative_log_likelihood", "divergence", "reconstruction", "deviation"]


def test_divergence_is_what_sampling_finds():
    """Mean of log q - log p over draws of q, which knows nothing of the closed form."""
    one, y = method(), real(count=1)
    known = one.learners[0].model.encoder(np.concatenate([y["b"], y["a"]], -1))
    mean, log_variance = (np.asarray(known[name])[0] for name in ("mean", "log_variance"))
    deviation = np.exp(log_variance / 2)
    z = mean + deviation * np.random.default_rng(1).standard_normal((200_000, LATENT))
    ratios = (stats.norm.logpdf(z, mean, deviation) - stats.norm.logpdf(z)).sum(axis=1)
    found = one.evaluate(None, y)["divergence"]
    assert found == pytest.approx(ratios.mean(), abs=4 * ratios.std() / np.sqrt(len(z)))


@pytest.mark.parametrize("exact", [True, False])
def test_bound_of_a_linear_gaussian_model_is_its_evidence(exact):
    """With the true posterior; with a wider one it is short of it by their divergence."""
    rng, sigma, size = np.random.default_rng(3), 0.5, PIXELS**2
    encoder, decoder = linear(("a",))
    # Orthogonal columns: the posterior of each latent is independent of the others'.
    basis = np.linalg.qr(rng.standard_normal((size, LATENT)))[0] * [1.0, 0.7, 0.2]
    offset, lengths = rng.standard_normal(size), (basis**2).sum(axis=0)
    gain = basis / (sigma**2 + lengths)
    variance = sigma**2 / (sigma**2 + lengths) * (1 if exact else 2)
    assign(decoder.variables, [basis.T, offset])
    assign(encoder.get_layer("mean").variables, [gain, -offset @ gain])
    assign(
        encoder.get_layer("log_variance").variables, [np.zeros((size, LATENT)), np.log(variance)]
    )
    image = offset + basis @ rng.standard_normal(LATENT) + sigma * rng.standard_normal(size)
    expected = -stats.multivariate_normal(offset, basis @ basis.T + sigma**2 * np.eye(size)).logpdf(
        image
    )
    if not exact:
        expected += LATENT * (2 - 1 - np.log(2)) / 2
    count = 20_000
    y = {"a": np.broadcast_to(image.reshape(1, PIXELS, PIXELS, 1), (count, PIXELS, PIXELS, 1))}
    one = method((encoder, decoder), deviation=sigma)
    found = one.total(one.evaluate(None, {"a": y["a"].astype(np.float32)}))
    assert found == pytest.approx(expected, abs=0.03)


def test_weights_of_the_loss():
    y = real()
    for options in ({}, {"beta": 0.5}, {"spectrum": 3.0}):
        one = method(deviation=0.3, **options)
        losses = one.evaluate(None, y)
        expected = losses["negative_log_likelihood"] + options.get("beta", 1) * losses["divergence"]
        expected += 3 * losses["spectrum"] if "spectrum" in options else 0
        assert one.total(losses) == pytest.approx(expected)


def test_an_update_follows_the_gradient_of_the_loss():
    """A short step of plain descent lowers the total by the rate times the norm's square."""
    rate = 1e-6
    one, y = method(rate=rate, beta=0.7, spectrum=5.0), real()
    losses, norm = step(one, y)
    after, _ = step(one, y)
    assert one.total(losses) - one.total(after) == pytest.approx(rate * norm**2, rel=0.05)


def test_the_learned_deviation_is_that_of_the_residuals():
    """Where the likelihood is highest, as nothing else learns; a given one is no weight."""
    networks = linear()
    for network in networks:
        assign(network.variables, [0 * value for value in values(network.variables)])
        network.trainable = False
    one = method(networks, optimizer=keras.optimizers.Adam, rate=3e-3)
    y = {name: 0.2 * maps for name, maps in real(count=60).items()}
    assert step(one, y)[0]["deviation"] == 1
    for batch in range(1, 300):
        losses, _ = step(one, y, batch)
    expected = np.sqrt(np.mean([maps**2 for maps in y.values()]))
    assert losses["reconstruction"] == pytest.approx(expected, rel=1e-5)
    assert losses["deviation"] == pytest.approx(expected, rel=0.02)
    assert not Autoencoder(*networks, 0.3).trainable_variables


def rings(images):
    """Log of the mean |FFT|² / pixels over modes of the whole plane, and their numbers."""
    pixels = images.shape[1]
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(pixels, 1 / pixels)] * 2))
    power = np.abs(np.fft.fft2(images, axes=(1, 2))) ** 2 / pixels**2
    number = np.floor(k + 0.5)
    means = [power[:, number == n].mean(axis=1) for n in range(1, pixels // 2 + 1)]
    return np.log(np.array(means) + 1e-6)


@pytest.mark.parametrize("pixels", [8, 12])
def test_spectrum_is_that_of_numpy(pixels):
    latents = keras.Input((LATENT,))
    x = layers.Dense(pixels**2)(latents)
    decoder = keras.Model(latents, {"a": layers.Reshape((pixels, pixels, 1))(x)})
    images = keras.Input((pixels, pixels, 1))
    known = {
        name: layers.Dense(LATENT)(layers.Flatten()(images)) for name in ("mean", "log_variance")
    }
    networks = [drawn(n, seed) for seed, n in enumerate((keras.Model(images, known), decoder))]
    one, y = method(networks, spectrum=1.0), real("a", pixels=pixels)
    found = one.evaluate(None, y)["spectrum"]
    known = networks[0](y["a"])
    noise = draws(7, "toy", "validation").standard_normal((6, LATENT), np.float32)
    z = np.asarray(known["mean"]) + np.exp(np.asarray(known["log_variance"]) / 2) * noise
    made = np.asarray(decoder(z)["a"])
    expected = np.mean((rings(made[..., 0]) - rings(y["a"][..., 0])) ** 2)
    assert found == pytest.approx(expected, rel=1e-4)


def test_evaluation_is_the_same_each_time_and_changes_nothing():
    """Draws of a batch of training are its own; a smaller batch has the first ones of a larger."""
    one, y = method(rate=1e-3), real()
    step(one, y)
    before = {name: values(group) for name, group in one.groups.items()}
    first = one.evaluate(None, y)
    assert one.evaluate(None, y) == first
    for name, group in one.groups.items():
        for now, old in zip(values(group), before[name], strict=True):
            np.testing.assert_array_equal(now, old, err_msg=name)
    halves = [one.evaluate(None, {n: m[:3] for n, m in real(seed=s).items()}) for s in (0, 0)]
    assert halves[0] == halves[1]
    drawn = [one._noise(6, "latents", batch) for batch in (0, 1)] + [one._noise(6, "validation")]
    assert len({array.tobytes() for array in drawn}) == 3
    np.testing.assert_array_equal(one._noise(3, "validation"), drawn[2][:3])
    assert one.settled(0)


def test_accumulated_batches_are_one(monkeypatch):
    """The same draws for the same images: updates agree to 1e-5."""
    noise = np.random.default_rng(5).standard_normal((8, LATENT)).astype(np.float32)
    whole, parts = method(rate=1e-4), method(rate=1e-4, accumulate=True)
    y = real(count=8)
    monkeypatch.setattr(whole, "_noise", lambda count, *identity: noise)
    monkeypatch.setattr(parts, "_noise", lambda count, name, batch: noise[batch % 2 * 4 :][:count])
    for update in range(3):
        _, norm = step(whole, y, update)
        for i in (0, 1):
            half = {name: maps[4 * i : 4 * i + 4] for name, maps in y.items()}
            _, found = step(parts, half, 2 * update + i, update=update, count=2, last=i == 1)
        assert found == pytest.approx(norm, rel=1e-5)
        for mine, theirs in zip(
            *(values(m.groups["autoencoder"]) for m in (whole, parts)), strict=True
        ):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert not any(np.any(total) for total in values(parts.groups["autoencoder_sums"]))


def test_xla_compiles_all_of_it():
    plain, compiled = (step(method(xla=xla, spectrum=1.0), real())[0] for xla in (False, True))
    assert compiled == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(("pixels", "coarsest"), [(16, 4), (20, 5), (32, 4), (48, 6)])
def test_networks_take_images_to_latents_and_back(pixels, coarsest):
    fields = ("i", "g")
    encoder, decoder = (make(pixels, fields, 5, 0.07, 1) for make in (vae.encoder, vae.decoder))
    known = encoder(np.random.default_rng(0).standard_normal((2, pixels, pixels, 2)))
    assert {name: tensor.shape for name, tensor in known.items()} == {
        "mean": (2, 5),
        "log_variance": (2, 5),
    }
    assert not any(np.any(tensor) for tensor in known.values()), "it starts at the prior"
    made = decoder(np.ones((2, 5)))
    assert list(made) == list(fields)
    assert all(tensor.shape == (2, pixels, pixels, 1) for tensor in made.values())
    assert encoder.get_layer("flat").input.shape[1] == coarsest
    assert decoder.get_layer("square").output.shape[1] == coarsest


def test_channels_double_up_to_eight_times_the_first():
    encoder = vae.encoder(128, ["a"], 2, 0.125, 1)
    found = [encoder.get_layer(f"level_{n}_add").output.shape[1:] for n in range(6)]
    assert [tuple(shape) for shape in found] == [
        (128, 128, 8),
        (64, 64, 16),
        (32, 32, 32),
        (16, 16, 64),
        (8, 8, 64),
        (4, 4, 64),
    ]


def test_weights_are_drawn_by_the_seed():
    for make in (vae.encoder, vae.decoder):
        one, same, other = (flat(values(make(16, ["a"], 5, 0.07, s).variables)) for s in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("pixels", [18, 2, 0])
def test_pixels_that_cannot_be_halved_are_refused(pixels):
    for make in (vae.encoder, vae.decoder):
        with pytest.raises(UserError, match="a multiple of 4"):
            make(pixels, ["a"], 5, 1.0, 1)


def test_outputs_are_float32_under_any_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder, decoder = (make(16, ["a"], 5, 0.07, 1) for make in (vae.encoder, vae.decoder))
        one = method((encoder, decoder), rate=1e-4, optimizer=keras.optimizers.Adam)
        losses, norm = step(one, real("a", pixels=16))
    finally:
        keras.config.set_dtype_policy(before)
    tensors = [*encoder.outputs, *decoder.outputs]
    assert {tensor.dtype for tensor in tensors} == {"float32"}
    assert encoder.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert np.isfinite([norm, *losses.values()]).all()


def test_an_image_does_not_depend_on_its_neighbours():
    decoder = drawn(vae.decoder(16, ["a"], 5, 0.07, 1), 0)
    latents = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    together = np.asarray(decoder(latents)["a"])
    alone = np.concatenate([decoder(latents[i : i + 1])["a"] for i in range(4)])
    np.testing.assert_allclose(alone, together, atol=1e-5 * np.abs(together).max())
    assert np.abs(together[0] - together[1]).max() > 0.1


#: Reads a network and writes what it makes of latents.
READ = """
import sys, keras, numpy as np
import skyweave.networks.vae
model = keras.saving.load_model(sys.argv[1], compile=False, safe_mode=True)
np.savez(sys.argv[3], **{name: maps for name, maps in model(np.load(sys.argv[2])).items()})
"""


@pytest.mark.slow
def test_a_saved_decoder_makes_the_same_in_another_process(tmp_path):
    one = method(
        [make(16, ("i", "g"), 5, 0.07, 1) for make in (vae.encoder, vae.decoder)], rate=1e-4
    )
    step(one, real(("g", "i"), pixels=16))
    one.model.decoder.save(tmp_path / "network.keras")
    latents = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    np.save(tmp_path / "latents.npy", latents)
    paths = [str(tmp_path / name) for name in ("network.keras", "latents.npy", "made.npz")]
    subprocess.run([sys.executable, "-c", READ, *paths], check=True)
    expected = one.model.decoder(latents)
    with np.load(paths[-1]) as made:
        assert set(made) == {"i", "g"}
        for name in made:
            np.testing.assert_allclose(made[name], expected[name], atol=1e-6)


def blobs(rng, count, pixels=16):
    """Gaussian blobs of other places and sizes, from -1 up to 1, (count, pixels, pixels, 1)."""
    at = np.arange(pixels) - (pixels - 1) / 2
    y, x = rng.uniform(-2, 2, (2, count, 1, 1))
    size = rng.uniform(2, 3, (count, 1, 1))
    square = (at[:, None] - y) ** 2 + (at - x) ** 2
    return (2 * np.exp(-square / (2 * size**2)) - 1)[..., None].astype(np.float32)


def test_the_decoder_learns_blobs():
    """An untrained one's mean is off by 0.85, rms over pixels, and it scatters by 0.53."""
    rng, settings = np.random.default_rng(0), Settings(deviation=0.2)
    images, test = blobs(rng, 200), {"a": blobs(rng, 50)}
    networks = [make(16, ["a"], 8, 0.125, 1) for make in (vae.encoder, vae.decoder)]
    joint = learner(Autoencoder(*networks, 0.2), Training(learning_rate=2e-3))
    one = Variational(joint, settings, seed=7, name="toy")
    before = one.evaluate(None, test)
    for batch in range(300):
        if batch % 10 == 0:
            order = rng.permutation(200).reshape(10, 20)
        step(one, {"a": images[order[batch % 10]]}, batch)
    after = one.evaluate(None, test)
    assert one.total(after) < 0.1 * one.total(before)
    assert after["reconstruction"] < 0.1
    made = np.asarray(one.model.decoder(rng.standard_normal((500, 8)).astype(np.float32))["a"])
    assert np.sqrt(((made.mean(axis=0) - images.mean(axis=0)) ** 2).mean()) < 0.15
    assert made.std(axis=0).mean() == pytest.approx(images.std(axis=0).mean(), rel=0.2)


@pytest.fixture(scope="module")
def feeds(tmp_path_factory):
    rng = np.random.default_rng(0)
    fields = {name: rng.standard_normal((20, PIXELS, PIXELS)) for name in ("a", "b")}
    path = tmp_path_factory.mktemp("shards") / "a.h5"
    write_shard(
        path,
        fields,
        realizations=range(20),
        size_deg=5.0,
        units=dict.fromkeys(fields, ""),
        provenance={"seed": 0},
    )
    shards = ShardSet([path])
    scales = Normalization.fit(shards, shards.fields, range(14))
    return [
        BatchFeed(shards, ["a", "b"], ["a", "b"], scales, numbers, 2, 1, ("toy",))
        for numbers in (range(14), range(14, 20))
    ]


def trained(feeds, folder):
    """Updates of two batches and of one at an epoch's end, a learned deviation, power."""
    prepare(1)
    training = Training(epochs=3, batch=2, accumulate=2, learning_rate=0.01)
    networks = [drawn(network, seed) for seed, network in enumerate(linear())]
    joint = learner(Autoencoder(*networks, None), training)
    one = Variational(joint, Settings(spectrum=1.0), seed=7, name="toy")
    history = train(
        one, *feeds, training, state_folder=folder, identity={"run": "toy"}, log=lambda line: None
    )
    return one, history


def test_a_training_cut_short_ends_as_one_that_was_not(feeds, tmp_path, monkeypatch):
    """Cut between the batches of an update, and within the validation."""
    whole, expected = trained(feeds, tmp_path / "whole")
    for steps in (5, 4):

        def reason(self, steps=steps):
            return "a test" if len(self._steps) >= steps else None

        with monkeypatch.context() as patch:
            patch.setattr(Interruption, "reason", property(reason))
            with pytest.raises(Unfinished):
                trained(feeds, tmp_path / "cut")
    cut, history = trained(feeds, tmp_path / "cut")
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True
    )
    assert history["loss_deviation"].nunique() == 3
    for name, variables in whole.groups.items():
        for mine, theirs in zip(values(variables), values(cut.groups[name]), strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
    held = {id(v) for group in whole.groups.values() for v in group}
    assert {id(v) for one in whole.learners for v in one.variables} <= held
    assert {id(v) for v in whole.model.variables} <= held


def parity():
    """Losses of two steps and a look from the same weights, and how far those went."""
    networks = [make(16, ("b", "a"), 5, 0.07, 1) for make in (vae.encoder, vae.decoder)]
    networks = [drawn(network, seed) for seed, network in enumerate(networks)]
    one, y = method(networks, rate=1e-7, spectrum=2.0), real(pixels=16)
    found = [step(one, y, batch) for batch in range(2)]
    return {
        "losses": [losses for losses, _ in found] + [one.evaluate(None, y)],
        "norms": [norm for _, norm in found],
    }


@pytest.mark.slow
def test_tensorflow_and_jax_agree():
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    jax, here = json.loads(other.stdout.splitlines()[-1]), parity()
    for one, same in zip(jax["losses"], here["losses"], strict=True):
        assert list(one) == list(same)
        assert one == pytest.approx(same, rel=1e-4)
    assert jax["norms"] == pytest.approx(here["norms"], rel=1e-3)


if __name__ == "__main__":
    print(json.dumps(parity()))
