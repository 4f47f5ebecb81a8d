"""Flow matching: samples of a posterior that is known, and the pieces that they are made of."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import keras
import numpy as np
import pytest

from skyweave.config import Training
from skyweave.data.colored_noise import ColoredNoise
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import Unfinished, UserError
from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.networks import flow
from skyweave.networks.card import Card, TrainedNetwork, load_network, save_network
from skyweave.training.flow import FlowMatching
from skyweave.training.interruption import Interruption
from skyweave.training.loop import train
from skyweave.training.method import Learner, Place, learner
from skyweave.training.runtime import prepare
from skyweave.training.state import values

GRID = PatchGrid(5.0, 16)
TARGETS = ("kappa", "b_sky", "e_sky")


#: Red.
AMPLITUDE = 4 / (1 + (GRID.ell / (3 * GRID.ell_fundamental)) ** 2)


def noise(targets=TARGETS):
    """Each field with twice the power of the one before."""
    amplitudes = {name: AMPLITUDE * 2 ** (place / 2) for place, name in enumerate(targets)}
    return ColoredNoise(amplitudes, cosine_taper(GRID, 1.0))


def mean(targets=TARGETS, inputs=2):
    """A network with dropout, batch norm and an output more than is needed."""
    image = keras.Input((16, 16, inputs))
    x = keras.layers.Conv2D(4, 3, padding="same", name="a")(image)
    x = keras.layers.BatchNormalization(name="b")(keras.layers.Dropout(0.5, seed=2, name="c")(x))
    outputs = {name: keras.layers.Conv2D(1, 1, name=name)(x) for name in (*targets, "more")}
    return drawn(keras.Model(image, outputs, name="toy"), 1.0)


def drawn(model, deviation):
    """The model, its kernels drawn by NumPy, alike for all backends."""
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        if variable.path.endswith("kernel"):
            fan_in = np.prod(variable.shape[:-1])
            variable.assign(deviation * rng.standard_normal(variable.shape) / np.sqrt(fan_in))
    return model


def network(**changes):
    given = {"mean": mean(), "deviations": noise().rms} | changes
    return flow.build(16, ("q_obs", "u_obs"), TARGETS, 0.125, 1, **given)


def maps(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Colored noise


def test_noise_has_its_spectra():
    """Band powers of periodic maps are those asked for; so is their rms, with a taper too."""
    cl = {"kappa": 1 / (300 + GRID.ell), "tau": 2e-3 + 0 * GRID.ell}
    made = ColoredNoise.of_spectra(cl, np.ones((16, 16)), GRID)
    drawn = made.draw(2000, 1, "a")
    bins = Bins.linear(72, 800, 182)
    for place, name in enumerate(made.fields):
        modes = forward(drawn[..., place], GRID)
        found = bin_power(power(modes, modes, GRID).mean(axis=0), GRID, bins)
        np.testing.assert_allclose(found, bin_power(cl[name], GRID, bins), rtol=0.02)
    cross = (drawn[..., 0] * drawn[..., 1]).mean() / drawn.std(axis=(0, 1, 2)).prod()
    assert abs(cross) < 0.01
    tapered = noise()
    rms = np.sqrt((tapered.draw(2000, 1, "a") ** 2).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(rms, list(tapered.rms.values()), rtol=0.01)
    np.testing.assert_allclose(tapered.draw(300, 1, "a").std(0)[0], 0)


def test_noise_is_drawn_by_its_key():
    made = noise()
    first = made.draw(3, 1, "a", 0)
    assert first.dtype == np.float32
    assert first.shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(first, made.draw(3, 1, "a", 0))
    for key in ((2, "a", 0), (1, "b", 0), (1, "a", 1)):
        assert not np.array_equal(first, made.draw(3, *key))


def test_noise_of_plain_values_is_the_same():
    made = noise()
    again = ColoredNoise.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again.fields == made.fields
    assert again.to_dict() == made.to_dict()
    np.testing.assert_allclose(again.draw(2, 1, "a"), made.draw(2, 1, "a"), rtol=1e-6)
    assert noise(TARGETS[::-1]).fingerprint != made.fingerprint


def test_noise_that_is_none_is_refused():
    flat, one = np.ones((16, 9)), np.ones((16, 16))
    for amplitudes, taper in (
        ({"kappa": np.ones((16, 16))}, one),
        ({"kappa": np.full((16, 9), np.nan)}, one),
        ({"kappa": flat}, np.ones((16, 8))),
    ):
        with pytest.raises(ValueError, match="Expected finite"):
            ColoredNoise(amplitudes, taper)
    with pytest.raises(ValueError, match="isotropic"):
        ColoredNoise({"kappa": flat + np.arange(9)}, one).to_dict()
    with pytest.raises(ValueError, match="product"):
        ColoredNoise({"kappa": flat}, np.hypot(*np.mgrid[:16, :16])).to_dict()
    plain = noise().to_dict()
    for wrong in ({}, {**plain, "taper": [1.0]}, {**plain, "amplitudes": {"kappa": [1.0]}}):
        with pytest.raises(UserError, match="noise: expected a taper"):
            ColoredNoise.from_dict(wrong)


# The network and its sampler


def test_an_untrained_flow_gives_the_mean_and_the_noise():
    """No velocity, at no time; samples are the mean without dropout, plus what was drawn."""
    first = mean()
    model, x, drawn = network(mean=first), maps(4, 16, 16, 2), noise().draw(8, 1, "a")
    full = np.concatenate([x, drawn[:4], np.full((4, 16, 16, 1), 0.3, np.float32)], -1)
    outputs, means = model(full), first(x, training=False)
    assert set(outputs) == {*TARGETS, *(f"{name}_mean" for name in TARGETS)}
    found = flow.Sampler(model, 2)(x, drawn.reshape(2, 4, 16, 16, 3))
    for place, name in enumerate(TARGETS):
        assert not np.any(outputs[name])
        np.testing.assert_allclose(outputs[f"{name}_mean"], means[name], rtol=1e-6)
        expected = np.asarray(means[name])[..., 0] + drawn[..., place].reshape(2, 4, 16, 16)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)


def test_the_mean_is_a_frozen_copy():
    first = mean()
    model = network(mean=first)
    assert len(first.trainable_variables) == 2 + 2 + 2 * 4
    assert not model.get_layer("mean").trainable_variables
    assert len(model.trainable_variables) == len(model.get_layer("velocity").trainable_variables)
    assert not flow.has_means(network(mean=None))


def moving(**changes):
    """A network whose velocity is not zero."""
    return drawn(network(**changes), 0.3)


def test_a_network_on_disk_samples_alike(tmp_path):
    """In safe mode, with its card; targets keep their order, which is not that of letters."""
    fields = ("q_obs", "u_obs", *(f"state_{name}" for name in TARGETS), "time")
    card = Card(
        fields,
        TARGETS,
        dict.fromkeys((*fields, *TARGETS), ""),
        Normalization(dict.fromkeys((*fields, *TARGETS), (0.0, 1.0))),
        5.0,
        16,
        1,
        settings={"method": "flow"},
    )
    model, x, drawn = moving(), maps(4, 16, 16, 2), noise().draw(4, 1, "a")[None]
    save_network(tmp_path, model, card)
    network = load_network(tmp_path)
    assert isinstance(network, TrainedNetwork)
    assert flow.order(network.model) == TARGETS
    one, other = (flow.Sampler(each, 2)(x, drawn) for each in (model, network.model))
    for place, name in enumerate(TARGETS):
        np.testing.assert_array_equal(one[name], other[name])
        assert np.std(one[name] - drawn[..., place]) > 1e-3
    with pytest.raises(UserError, match="the network's outputs"):
        save_network(tmp_path, model, Card(**{**vars(card), "settings": {}}))


def test_time_and_each_state_move_their_targets():
    model, known, states = moving(mean=None), maps(2, 16, 16, 2), maps(2, 16, 16, 3, seed=1)

    def speed(states, *times):
        return np.asarray(flow.velocity(model, known, states, np.float32(times)))

    start = speed(states, 0, 1)
    assert not np.allclose(start[1], speed(states, 0, 0.9)[1])
    np.testing.assert_allclose(start[0], speed(states, 0, 0.9)[0], rtol=1e-5, atol=1e-6)
    for place in range(3):
        moved = states.copy()
        moved[..., place] += 1
        assert not np.allclose(start, speed(moved, 0, 1))


def test_heuns_method_is_of_second_order():
    """Of ds/dt = a(t) s, which ends at s e^(∫a): errors fall by four when steps are halved."""
    start = np.float32([1.0, -2.0])
    expected = start * np.exp(2 / np.pi - 0.3)

    def speed(state, time):
        return np.float32(np.sin(np.pi * time) - 0.3) * state

    errors = [np.abs(flow.integrate(speed, start, n) - expected).max() for n in (2, 4, 8)]
    assert errors[2] < 0.02 * np.abs(expected).max()
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.35)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"grid\.pixels: expected a multiple of 4, found 18"):
        flow.build(18, ("q_obs",), ("kappa",))
    with pytest.raises(UserError, match=r"outputs \['tau'\]"):
        flow.build(16, ("q_obs", "u_obs"), ("tau",), mean=mean())
    with pytest.raises(ValueError, match="Expected noise of"):
        FlowMatching(
            Learner(network(), keras.optimizers.SGD()), noise(TARGETS[::-1]), seed=1, name="a"
        )


# Training


class Gaussian:
    """8² pixels of a red Gaussian signal with white noise, whose posterior is known."""

    deviation = 0.6

    def __init__(self):
        self.field = ColoredNoise({"s": AMPLITUDE}, np.ones((16, 16)))
        rows, columns = np.divmod(np.arange(64), 8)
        apart = (rows - rows[:, None], columns - columns[:, None])
        self.prior = np.fft.irfft2(AMPLITUDE**2)[apart]
        self.wiener = self.prior @ np.linalg.inv(self.prior + self.deviation**2 * np.eye(64))
        self.left = self.prior - self.wiener @ self.prior

    def __call__(self, count, number):
        """Inputs and truths (count, y, x, 1)."""
        signal = self.field.draw(count, 1, "signal", number)[:, :8, :8]
        return signal + np.float32(self.deviation) * maps(*signal.shape, seed=number), signal

    def model(self):
        """The posterior mean as a network."""
        image = keras.Input((8, 8, 1))
        layer = keras.layers.Dense(64, use_bias=False)
        found = keras.layers.Reshape((8, 8, 1), name="s")(layer(keras.layers.Flatten()(image)))
        layer.set_weights([self.wiener.T])
        return keras.Model(image, {"s": found})

    def samples(self, base, steps, **network):
        """Truths, posterior means, noise and 16 samples of 128 patches, (…, pixels) each.

        Of a flow from `base` that has learned from so many batches of 64.
        """
        prepare(1)
        model = flow.build(8, ("x",), ("s",), 0.25, 1, deviations=base.rms, **network)
        optimizer = keras.optimizers.Adam()
        made = FlowMatching(Learner(model, optimizer), base, seed=1, name="a")
        for i in range(steps):
            optimizer.learning_rate = 4e-3 * (1 - i / steps)
            x, signal = self(64, i)
            made.train(x, {"s": signal}, Place(i, i))
        x, signal = self(128, steps)
        drawn = base.draw(16 * 128, 1, "samples").reshape(16, *x.shape)
        found = flow.Sampler(model, 8)(x, drawn)["s"]
        means = x.reshape(-1, 64) @ self.wiener.T
        return signal.reshape(-1, 64), means, drawn.reshape(16, -1, 64), found.reshape(16, -1, 64)

    def compare(self, base, steps, **network):
        """Samples' power and spread and the noise's power, over theory, in three bands of modes.

        Also the correlation of the samples' mean with the posterior's.
        """
        _, means, drawn, found = self.samples(base, steps, **network)
        modes, mean = np.linalg.eigh(self.prior)[1], found.mean(axis=0)
        ratios = []
        for band in (modes[:, 48:], modes[:, 24:48], modes[:, :24]):
            prior, left = (np.trace(band.T @ c @ band) for c in (self.prior, self.left))
            power, spread, base_power = (
                ((maps @ band) ** 2).sum(axis=-1).mean() for maps in (found, found - mean, drawn)
            )
            ratios.append([power / prior, spread * 16 / 15 / left, base_power / left])
        return np.array(ratios).T, np.corrcoef(mean.ravel(), means.ravel())[0, 1]


@pytest.fixture(scope="module")
def gaussian():
    return Gaussian()


def test_samples_around_a_mean_have_the_posterior_power(gaussian):
    """The base is white, half as strong on large scales as what the mean leaves open."""
    base = ColoredNoise({"s": np.full((8, 5), 0.4)}, np.ones((8, 8)))
    (power, spread, start), _ = gaussian.compare(base, 120, mean=gaussian.model())
    assert start[0] < 0.55
    np.testing.assert_allclose(power, 1, atol=0.1)
    np.testing.assert_allclose(spread, 1, atol=0.15)


@pytest.mark.slow
def test_samples_without_a_mean_find_the_posterior(gaussian):
    """The base is about the prior: what is known comes from the flow alone."""
    grid = PatchGrid(2.5, 8)
    amplitude = 4 / (1 + (grid.ell / (3 * GRID.ell_fundamental)) ** 2)
    (power, spread, start), correlation = gaussian.compare(
        ColoredNoise({"s": amplitude}, np.ones((8, 8))), 200
    )
    assert start[0] > 10
    np.testing.assert_allclose(power, 1, atol=0.1)
    np.testing.assert_allclose(spread, 1, atol=0.25)
    assert correlation > 0.98


X = maps(6, 16, 16, 2, seed=1)
Y = {name: maps(6, 16, 16, 1, seed=2) for name in (*TARGETS, "beside")}


def method(model=None, optimizer=None, **changes):
    made = Learner(model or moving(), optimizer or keras.optimizers.SGD(0.01))
    return FlowMatching(made, noise(), **{"seed": 1, "name": "a"} | changes)


def test_an_untrained_flow_loses_one():
    """A target each, where the base has the residuals' power; no matter how much that is."""
    model, truth = network(mean=None), noise().draw(256, 2, "truth")
    made = method(model)
    x = maps(256, 16, 16, 2)
    y = {name: truth[..., place : place + 1] for place, name in enumerate(TARGETS)}
    losses = made.evaluate(x, y)
    assert list(losses) == list(TARGETS)
    np.testing.assert_allclose(list(losses.values()), 1, atol=0.05)
    assert made.total(losses) == pytest.approx(sum(losses.values()))
    y["kappa"] = 2 * y["kappa"]
    louder = made.evaluate(x, y)
    assert louder["kappa"] == pytest.approx(2.5, rel=0.05)
    assert louder["b_sky"] == losses["b_sky"]


def test_draws_are_the_batchs_own():
    """In training by its number, in validation by its inputs, which come again in each epoch."""
    made = method(optimizer=keras.optimizers.SGD(0.0))
    first, again, other = (made.train(X, Y, Place(batch, 0))[0] for batch in (3, 3, 4))
    assert first == again
    assert first != other
    judged = made.evaluate(X, Y)
    assert judged == made.evaluate(X, Y)
    assert judged != made.evaluate(X[::-1].copy(), {k: v[::-1] for k, v in Y.items()})


def test_means_that_are_kept_change_nothing():
    """Whether all are kept, only some, or none; only the latter see a batch as one."""
    model = moving()
    kept, some, none = (method(model, cache_bytes=size) for size in (1e9, 16 * 16 * 3 * 4, 0))
    for rows in (slice(0, 4), slice(1, 5)):
        y = {name: maps[rows] for name, maps in Y.items()}
        one, two, three = (each.evaluate(X[rows], y) for each in (kept, some, none))
        assert one == two
        np.testing.assert_allclose(list(one.values()), list(three.values()), rtol=1e-5)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    fields = {name: rng.standard_normal((30, 16, 16)) for name in ("q_obs", "u_obs", *TARGETS)}
    path = tmp_path_factory.mktemp("shards") / "a.h5"
    write_shard(
        path,
        fields,
        realizations=range(30),
        size_deg=5.0,
        units=dict.fromkeys(fields, ""),
        provenance={"seed": 0},
    )
    return ShardSet([path])


def trained(shards, folder):
    """A training's history, and its variables."""
    prepare(1)
    scales = Normalization.fit(shards, shards.fields, range(20))
    feeds = [
        BatchFeed(shards, ["q_obs", "u_obs"], TARGETS, scales, numbers, 4, 1, ("toy",))
        for numbers in (range(20), range(20, 30))
    ]
    settings = Training(epochs=2, batch=4, learning_rate=0.01, save_minutes=1e-9)
    made = FlowMatching(learner(moving(dropout=0.2), settings), noise(), seed=1, name="a")
    history = train(made, *feeds, settings, state_folder=folder, identity={}, log=lambda line: None)
    return history.drop(columns="seconds"), [v for g in made.groups.values() for v in values(g)]


def test_a_training_that_was_stopped_ends_alike(shards, tmp_path, monkeypatch):
    """Stopped within training and within validation, when nothing is kept of any mean."""
    whole = trained(shards, tmp_path / "whole")
    assert whole[0].val_loss.iloc[-1] < whole[0].val_loss.iloc[0]
    stops = 0
    with monkeypatch.context() as patch:
        patch.setattr(
            Interruption,
            "reason",
            property(lambda self: "a test" if len(self._steps) > 5 else None),
        )
        while True:
            try:
                resumed = trained(shards, tmp_path / "stopped")
                break
            except Unfinished:
                stops += 1
    assert stops >= 2
    assert whole[0].equals(resumed[0])
    for one, other in zip(whole[1], resumed[1], strict=True):
        np.testing.assert_array_equal(one, other)


def found():
    """What both backends find: losses and norms of two updates, and samples."""
    prepare(1)
    model = moving()
    made, rows = method(model, cache_bytes=0), []
    for update in range(2):
        losses, norm = made.train(X, Y, Place(update, update))
        rows += [*losses.values(), norm]
    samples = flow.Sampler(model, 2)(X, noise().draw(6, 1, "b")[None])
    return [np.array(rows).tolist(), *(samples[name].ravel().tolist() for name in TARGETS)]


@pytest.mark.slow
def test_tensorflow_and_jax_agree():
    """Losses to 1e-4, samples to 0.1 % of their deviation."""
    other = subprocess.run(
        [sys.executable, __file__],
        # Compiling is what takes long here.
        env=os.environ
        | {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (rows, *samples), (others, *theirs) = found(), json.loads(other.stdout.splitlines()[-1])
    np.testing.assert_allclose(rows, others, rtol=1e-4)
    for one, two in zip(samples, theirs, strict=True):
        assert np.std(np.subtract(one, two)) < 1e-3 * np.std(one)


if __name__ == "__main__":
    print(json.dumps(found()))
