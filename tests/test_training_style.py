"""Style-based training: its terms against theory, its timing, its state, and both backends."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops

from skyweave.config import Training
from skyweave.config.runs import StyleBased as Settings
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import Unfinished
from skyweave.seeds import generator as draws
from skyweave.training import style
from skyweave.training.interruption import Interruption
from skyweave.training.loop import train
from skyweave.training.method import Learner, Place
from skyweave.training.runtime import prepare
from skyweave.training.state import values
from skyweave.training.style import StyleBased, compose

PIXELS, LATENT, WIDTH, LAYERS, BATCH = 4, 3, 5, 3, 6


@keras.saving.register_keras_serializable("test")
class Noise(layers.Layer):
    """Noise in training and out of it, as a synthesis has it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.numbers = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.numbers)


def drawn(model, seed):
    """The model with weights from NumPy."""
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        fan_in = max(1, np.prod(v.shape[:-1]))
        v.assign(rng.standard_normal(v.shape) / np.sqrt(fan_in))
    return model


def mapping():
    latents = keras.Input((LATENT,))
    return keras.Model(latents, layers.Dense(WIDTH, activation="tanh")(latents))


def synthesis(fields=("b", "a"), noise=False, norm=False):
    """Curved in its styles, so that path lengths have gradients by all weights."""
    styles = keras.Input((LAYERS, WIDTH))
    x = layers.Dense(PIXELS**2 * 2, activation="tanh")(layers.Flatten()(styles))
    x = layers.Reshape((PIXELS, PIXELS, 2))(x)
    x = layers.BatchNormalization(momentum=0.5)(x) if norm else x
    x = Noise()(x) if noise else x
    x = layers.Conv2D(4, 3, padding="same", activation="tanh")(x)
    return keras.Model(styles, {name: layers.Conv2D(1, 1)(x) for name in fields})


def discriminator(fields=2):
    maps = keras.Input((PIXELS, PIXELS, fields))
    x = layers.Conv2D(4, 3, activation="softplus")(maps)
    return keras.Model(maps, layers.Dense(1)(layers.Flatten()(x)))


def linear_synthesis():
    styles = keras.Input((LAYERS, WIDTH))
    x = layers.Dense(PIXELS**2)(layers.Flatten()(styles))
    return keras.Model(styles, {"a": layers.Reshape((PIXELS, PIXELS, 1))(x)})


def linear(power=1):
    """A discriminator: weights times the maps to some power, and a bias."""
    maps = keras.Input((PIXELS, PIXELS, 1))
    return keras.Model(maps, layers.Dense(1)(layers.Flatten()(maps**power)))


def method(
    *networks, rate=1.0, accumulate=False, clip_norm=None, xla=False, optimizer=None, **settings
):
    """Plain descent by 1 moves the weights by the gradient; `networks` are drawn anew."""
    one, other, judge = networks or (mapping(), synthesis(), discriminator())
    learners = [
        Learner(
            drawn(model, seed),
            (optimizer or keras.optimizers.SGD)(rate),
            clip_norm=clip_norm,
            accumulate=accumulate,
        )
        for seed, model in enumerate((compose(one, other), judge))
    ]
    return StyleBased(*learners, Settings(**settings), seed=7, name="toy", xla=xla)


def real(fields=("a", "b"), seed=0, count=BATCH):
    rng = np.random.default_rng(seed)
    shape = (count, PIXELS, PIXELS, 1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name in fields}


def step(one, y=None, batch=0, **place):
    y = real(one.model.output) if y is None else y
    maps = next(iter(y.values()))
    return one.train(maps, y, Place(batch, place.pop("update", batch), **place))


def moved(one, **options):
    """Losses of a step, and how far it moved the weights of both networks."""
    before = [values(learner.model.trainable_variables) for learner in one.learners]
    losses, norm = step(one, **options)
    after = [values(learner.model.trainable_variables) for learner in one.learners]
    ways = [
        [a - b for a, b in zip(new, old, strict=True)]
        for new, old in zip(after, before, strict=True)
    ]
    return losses, norm, ways


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays]).tolist()


def parity():
    """What a step from the same weights does, with and without regularization."""
    found = {}
    for name, options in (
        ("plain", {"r1_interval": 0, "path_interval": 0}),
        ("regularized", {"r1_interval": 2, "path_interval": 2}),
    ):
        one = method(**options)
        losses, norm, ways = moved(one)
        state = [*values(one.model.variables), *values(one.groups["path_length"])]
        found[name] = {
            "losses": losses,
            "norm": norm,
            "ways": [flat(way) for way in ways],
            "state": flat(state),
        }
    found["seen"] = method().evaluate(None, real())
    return found


@pytest.fixture(scope="module")
def both():
    """Results with JAX and with TensorFlow."""
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(other.stdout.splitlines()[-1]), parity()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["plain", "regularized"])
def test_tensorflow_and_jax_agree(both, case):
    """Losses to 1e-5; gradients, as plain descent shows them, to 1e-4 of the largest."""
    jax, tensorflow = (found[case] for found in both)
    assert list(jax["losses"]) == list(tensorflow["losses"])
    assert ("r1" in jax["losses"]) == ("path_length" in jax["losses"]) == (case == "regularized")
    for name, loss in tensorflow["losses"].items():
        assert jax["losses"][name] == pytest.approx(loss, rel=1e-5), name
    assert jax["norm"] == pytest.approx(tensorflow["norm"], rel=1e-4)
    for one, other in zip(
        (*jax["ways"], jax["state"]), (*tensorflow["ways"], tensorflow["state"]), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())


@pytest.mark.slow
def test_tensorflow_and_jax_see_the_same(both):
    assert both[0]["seen"] == pytest.approx(both[1]["seen"], rel=1e-5)


def test_xla_compiles_all_of_it():
    plain, compiled = (step(method(xla=xla))[0] for xla in (False, True))
    assert compiled == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("power", [1, 2])
def test_r1_is_the_analytic_one(power):
    """w·x has the slope w, w·x² has 2 w x; the mean over examples of its square."""
    one = method(mapping(), linear_synthesis(), linear(power))
    kernel = values(one.learners[1].model.trainable_variables)[0].ravel()
    maps = real("a")
    slope = kernel * power * maps["a"].reshape(BATCH, -1) ** (power - 1)
    assert step(one, maps)[0]["r1"] == pytest.approx((slope**2).sum(axis=1).mean(), rel=1e-5)


def test_r1_pulls_by_its_weight_times_its_interval():
    """γ/2 |w|² has the gradient γ w; nothing pulls the bias or the generator."""
    options = {"r1_gamma": 0.3, "path_interval": 0}
    with_r1, without = (
        method(mapping(), linear_synthesis(), linear(), r1_interval=n, **options) for n in (4, 0)
    )
    kernel = values(with_r1.learners[1].model.trainable_variables)[0]
    ways, free = moved(with_r1)[2], moved(without)[2]
    np.testing.assert_allclose(ways[1][0] - free[1][0], -0.3 * 4 * kernel, atol=1e-6)
    np.testing.assert_array_equal(ways[1][1], free[1][1])
    for way, other in zip(ways[0], free[0], strict=True):
        np.testing.assert_array_equal(way, other)


def paths(kernel, batch):
    """Path lengths (n,) of the linear maps, the gradients by styles, and the directions."""
    shape = (BATCH // 2, PIXELS, PIXELS, 1)
    noise = draws(7, "toy", "directions", batch).standard_normal(shape, np.float32)
    noise = noise.reshape(len(noise), -1) / PIXELS
    slope = noise @ kernel.T
    lengths = np.sqrt((slope**2).reshape(-1, LAYERS, WIDTH).sum(axis=2).mean(axis=1))
    return lengths, slope, noise


def test_path_lengths_and_their_mean_are_the_analytic_ones():
    """Every second update, while the weights stay as they are."""
    options = {"path_interval": 2, "path_decay": 0.25, "r1_interval": 0}
    one = method(mapping(), linear_synthesis(), linear(), rate=1e-30, **options)
    kernel = values(one.learners[0].model.trainable_variables)[2]
    mean = 0.0
    for batch in range(5):
        losses, _ = step(one, batch=batch)
        if batch % 2 == 0:
            lengths = paths(kernel, batch)[0]
            mean += 0.25 * (lengths.mean() - mean)
            expected = ((lengths - mean) ** 2).mean()
            assert losses["path_length"] == pytest.approx(expected, rel=1e-5)
        assert values(one.groups["path_length"])[0] == pytest.approx(mean, rel=1e-5)


def test_path_lengths_pull_as_the_analytic_ones():
    """Of K alone; their mean is a constant to it, and the discriminator does not feel them."""
    options = {"path_weight": 0.7, "r1_interval": 0}
    ways = [
        moved(method(mapping(), linear_synthesis(), linear(), path_interval=n, **options))[2]
        for n in (3, 0)
    ]
    kernel = values(drawn(compose(mapping(), linear_synthesis()), 0).trainable_variables)[2]
    lengths, slope, noise = paths(kernel, 0)
    factor = 2 * (lengths - 0.01 * lengths.mean()) / (LAYERS * lengths * len(lengths))
    expected = [np.zeros((LATENT, WIDTH)), np.zeros(WIDTH), (slope.T * factor) @ noise]
    expected.append(np.zeros(PIXELS**2))
    for way, free, gradient in zip(*(w[0] for w in ways), expected, strict=True):
        np.testing.assert_allclose(way - free, -0.7 * 3 * gradient, atol=1e-5)
    for way, free in zip(*(w[1] for w in ways), strict=True):
        np.testing.assert_array_equal(way, free)


def test_regularization_comes_in_its_updates_only():
    """In all batches of an update."""
    one = method(rate=1e-3, accumulate=True, r1_interval=3, path_interval=2)
    found = [set(step(one, batch=b, update=b // 2, count=2, last=b % 2 == 1)[0]) for b in range(14)]
    assert [b // 2 for b in range(14) if "r1" in found[b]] == [0, 0, 3, 3, 6, 6]
    assert [b // 2 for b in range(14) if "path_length" in found[b]] == [0, 0, 2, 2, 4, 4, 6, 6]
    assert all({"generator", "discriminator"} <= names for names in found)
    assert not style.due(0, 0)


def layered():
    """A generator whose maps are its styles, and these its latents."""
    latents, styles = keras.Input((WIDTH,)), keras.Input((LAYERS, WIDTH))
    return (
        keras.Model(latents, layers.Activation("linear")(latents)),
        keras.Model(styles, {"a": layers.Reshape((LAYERS, WIDTH, 1))(styles)}),
    )


@pytest.mark.parametrize("probability", [0.0, 0.6, 1.0])
def test_styles_are_mixed_at_the_layers_that_were_drawn(probability):
    """By the generator's loss before a linear discriminator: each layer has weights of its own."""
    maps = keras.Input((LAYERS, WIDTH, 1))
    judge = keras.Model(maps, layers.Dense(1)(layers.Flatten()(maps)))
    one = method(*layered(), judge, style_mixing=probability, path_interval=0)
    kernel, bias = values(judge.trainable_variables)
    count = 400
    latents, first = one._styles(count, "styles", 0)
    made = np.repeat(latents[:, :1], LAYERS, axis=1)
    for image, layer, other in zip(made, first, latents[:, 1], strict=True):
        image[layer:] = other
    logits = made.reshape(count, -1) @ kernel + bias
    losses, _ = step(one, {"a": np.zeros((count, LAYERS, WIDTH, 1), np.float32)})
    assert losses["generator"] == pytest.approx(np.logaddexp(0, -logits).mean(), rel=1e-5)
    assert (first < LAYERS).mean() == pytest.approx(probability, abs=0.08)
    assert set(first[first < LAYERS]) == (set(range(1, LAYERS)) if probability else set())
    assert not np.array_equal(latents, one._styles(count, "styles", 1)[0])


def test_average_follows_its_formula():
    """Updates of two batches; statistics of batches are copied."""
    one = method(
        mapping(),
        synthesis(norm=True),
        discriminator(),
        rate=1e-2,
        accumulate=True,
        average_images=2.5,
    )
    generator = one.learners[0].model
    expected = values(one.model.trainable_variables)
    for mine, theirs in zip(expected, values(generator.trainable_variables), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for batch in range(12):
        place = {"update": batch // 2, "count": 2, "last": batch % 2 == 1}
        step(one, batch=batch, **place)
        if place["last"]:
            # 5 % of the examples seen, 0.6 for each update, until that is more than 2.5.
            half_life = min(2.5, 0.05 * BATCH * (batch + 1))
            share = np.float32(1 - 0.5 ** (2 * BATCH / half_life))
            weights = values(generator.trainable_variables)
            expected = [a + share * (w - a) for a, w in zip(expected, weights, strict=True)]
            statistics = [values(m.non_trainable_weights) for m in (one.model, generator)]
            np.testing.assert_array_equal(*statistics)
        for mine, theirs in zip(values(one.model.trainable_variables), expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-7)
    assert not np.array_equal(expected[0], weights[0])


def test_half_life_is_in_examples():
    """Updates that together see as many as the half-life keep half."""
    shares = [
        style.kept(100, 10, Place(n, n // 2, count=2, last=True)) for n in range(1001, 1011, 2)
    ]
    assert np.prod(shares) == pytest.approx(0.5)
    assert style.kept(100, 10, Place(0, 0)) == 0.5**20, "the first weights are gone at once"


def test_evaluation_is_that_of_the_average_and_changes_nothing():
    one = method(mapping(), synthesis(noise=True), discriminator(), rate=0.1)
    step(one)
    before = {name: values(variables) for name, variables in one.groups.items()}
    found = [one.evaluate(None, real(seed=1)) for _ in range(2)]
    assert found[0] == found[1]
    for name, variables in one.groups.items():
        for now, old in zip(values(variables), before[name], strict=True):
            np.testing.assert_array_equal(now, old, err_msg=name)
    for variable in one.learners[0].model.trainable_variables:
        variable.assign(0 * variable)
    assert one.evaluate(None, real(seed=1)) == found[0]
    for variable in one.model.trainable_variables:
        variable.assign(0 * variable)
    assert one.evaluate(None, real(seed=1))["generator"] != found[0]["generator"]
    assert one.total(found[0]) == found[0]["generator"]
    assert not one.settled(10**6), "an epoch is judged by a discriminator that learns as well"


def test_the_discriminator_sees_outputs_in_the_generators_order():
    """Whatever the order of the real ones."""
    one, y = method(), real()
    assert list(one.model.output) == ["b", "a"]
    assert (
        step(one, {name: y[name] for name in "ab"})[0]
        == step(method(), {name: y[name] for name in "ba"})[0]
    )


def test_the_product_is_saved_and_read_in_safe_mode(tmp_path):
    one = method()
    step(one)
    one.model.save(tmp_path / "network.keras")
    read = keras.saving.load_model(tmp_path / "network.keras", compile=False, safe_mode=True)
    latents = np.random.default_rng(0).standard_normal((2, LATENT)).astype(np.float32)
    outputs, again = one.model(latents), read(latents)
    assert set(again) == {"a", "b"}
    for name in again:
        assert again[name].shape == (2, PIXELS, PIXELS, 1)
        np.testing.assert_array_equal(again[name], outputs[name])


def test_networks_learn_as_the_settings_say():
    training = Training(learning_rate=0.002, accumulate=2, clip_norm=3.0)
    networks = compose(mapping(), synthesis()), discriminator()
    for settings, rates in ((Settings(), [0.002, 0.002]), (Settings(learning_rate=1), [0.002, 1])):
        found = style.learners(*networks, training, settings)
        assert [learner.rate for learner in found] == pytest.approx(rates)
        for learner, network in zip(found, networks, strict=True):
            assert learner.model is network
            assert (learner.optimizer.beta_1, learner.optimizer.beta_2) == (0, 0.99)
            assert learner.clip_norm == 3
            assert len(learner.sums) == len(network.trainable_variables)


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
        BatchFeed(shards, ["a"], ["a", "b"], scales, numbers, 2, 1, ("toy",))
        for numbers in (range(14), range(14, 20))
    ]


def trained(feeds, folder):
    """Noise, batch statistics, updates of two batches and of one at an epoch's end."""
    prepare(1)
    training = Training(epochs=3, batch=2, accumulate=2, learning_rate=0.01, clip_norm=1.0)
    settings = Settings(r1_interval=3, path_interval=3, average_images=20)
    networks = compose(mapping(), synthesis(noise=True, norm=True)), discriminator()
    for seed, network in enumerate(networks):
        drawn(network, seed)
    made = style.learners(*networks, training, settings)
    one = StyleBased(*made, settings, seed=7, name="toy")
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
    for name, variables in whole.groups.items():
        for mine, theirs in zip(values(variables), values(cut.groups[name]), strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
    held = {id(v) for group in whole.groups.values() for v in group}
    assert {id(v) for learner in whole.learners for v in learner.variables} <= held


def test_the_generator_learns_a_distribution():
    """Maps of one level each, which is normal with the mean 2 and the deviation 0.5."""
    maps = keras.Input((PIXELS, PIXELS, 1))
    x = layers.Dense(32, activation="leaky_relu")(layers.Flatten()(maps))
    judge = keras.Model(maps, layers.Dense(1)(layers.Dense(32, activation="leaky_relu")(x)))
    one = method(
        mapping(),
        linear_synthesis(),
        judge,
        rate=0.01,
        optimizer=lambda rate: keras.optimizers.Adam(rate, 0, 0.99),
        r1_gamma=0.1,
        average_images=2000,
    )
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1000, LATENT)).astype(np.float32)

    def moments():
        maps = np.asarray(one.model(latents)["a"])
        return maps.mean(), maps.mean(axis=(1, 2, 3)).std(), maps.std(axis=(1, 2)).mean()

    mean, level, within = moments()
    assert mean < 1
    assert level < 0.2
    assert within > 1
    for batch in range(500):
        levels = 2 + 0.5 * rng.standard_normal((32, 1, 1, 1))
        y = {"a": np.broadcast_to(levels, (32, PIXELS, PIXELS, 1)).astype(np.float32)}
        step(one, y, batch)
    mean, level, within = moments()
    assert mean == pytest.approx(2, abs=0.2)
    assert level == pytest.approx(0.5, abs=0.15)
    assert within < 0.2


if __name__ == "__main__":
    print(json.dumps(parity()))
