"""The adversarial step: who learns when, from which labels, and by which losses."""

import json
import os
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest

from skyweave.config import Training
from skyweave.config.runs import Adversarial as Settings
from skyweave.data.feed import BatchFeed, UnpairedFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import Unfinished, UserError
from skyweave.training.adversarial import Adversarial, learners, turns
from skyweave.training.interruption import Interruption
from skyweave.training.loop import train
from skyweave.training.losses import mean_absolute_errors
from skyweave.training.method import Learner, Place
from skyweave.training.runtime import prepare
from skyweave.training.state import values
from skyweave.training.supervised import Supervised

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 8, 8, 1)).astype(np.float32)
Y = {name: RNG.standard_normal((6, 8, 8, 1)).astype(np.float32) for name in ("e", "b")}


def networks(inputs=1, dropout=0.0, noise=0):
    """A generator of two maps and a discriminator of patches, as weights drawn by NumPy."""
    rng = np.random.default_rng(1)
    image = keras.Input((8, 8, inputs + noise))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="tanh")(image)
    x = keras.layers.BatchNormalization()(keras.layers.Dropout(dropout, seed=1)(x))
    outputs = {name: keras.layers.Conv2D(1, 3, padding="same")(x) for name in ("e", "b")}
    shown = keras.Input((8, 8, inputs + 2))
    y = keras.layers.Conv2D(4, 3, strides=2, activation="tanh")(shown)
    y = keras.layers.Dropout(dropout, seed=2)(y)
    both = keras.Model(image, outputs), keras.Model(shown, keras.layers.Conv2D(1, 3)(y))
    for model in both:
        for variable in model.trainable_variables:
            if variable.path.endswith("kernel"):
                scale = np.sqrt(np.prod(variable.shape[:-1]))
                variable.assign(rng.standard_normal(variable.shape) / scale)
    return both


def method(rate=1.0, nets=networks, accumulate=False, options=None, **given):
    """By plain descent, which moves weights by their gradients."""
    learners = [
        Learner(model, keras.optimizers.SGD(rate), accumulate=accumulate) for model in nets()
    ]
    settings = Settings(**{"fidelity": 0.5} | given)
    return Adversarial(*learners, settings, seed=1, name="a", **options or {})


def weights(made):
    """All weights that are trained, of the generator and of the discriminator."""
    return [
        np.concatenate([v.ravel() for v in values(one.model.trainable_variables)])
        for one in made.learners
    ]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_losses_are_what_numpy_makes_of_the_outputs():
    made = method()
    generator, judge = (one.model for one in made.learners)
    outputs = {k: np.asarray(v, np.float64) for k, v in generator(X, training=False).items()}
    found = made.evaluate(X, Y)
    for name in Y:
        assert found[name] == pytest.approx(np.abs(outputs[name] - Y[name]).mean(), rel=1e-5)
    real = sigmoid(np.asarray(judge(np.concatenate([X, Y["e"], Y["b"]], -1)), np.float64))
    fake = sigmoid(np.asarray(judge(np.concatenate([X, outputs["e"], outputs["b"]], -1))))
    assert found["discriminator"] == pytest.approx(
        -(np.log(real).mean() + np.log(1 - fake).mean()) / 2, rel=1e-5
    )
    assert found["adversarial"] == pytest.approx(-np.log(fake).mean(), rel=1e-5)
    assert found["right_on_real"] == pytest.approx((real > 0.5).mean())
    assert found["right_on_made"] == pytest.approx((fake < 0.5).mean())
    total = found["adversarial"] + 0.5 * (found["e"] + found["b"])
    assert made.total(found) == pytest.approx(total, rel=1e-6)


def test_the_discriminator_sees_the_inputs_only_if_conditional():
    def nets():
        generator, _ = networks()
        shown = keras.Input((8, 8, 2))
        return generator, keras.Model(shown, keras.layers.Conv2D(1, 3)(shown))

    made = method(nets=nets, conditional=False)
    assert set(made.train(X, Y, Place(0, 0))[0]) == set(made.evaluate(X, Y))


@pytest.mark.parametrize(
    ("generator", "discriminator", "expected"),
    [
        (1, 1, ["gd"] * 4),
        (4, 1, ["g", "g", "g", "gd", "g", "g", "g", "gd"]),
        (1, 3, ["d", "d", "gd", "d", "d", "gd"]),
        (2, 3, ["d", "gd", "gd"] * 2),
        (20, 1, (["g"] * 19 + ["gd"]) * 2),
    ],
)
def test_any_ratio_of_steps(generator, discriminator, expected):
    settings = Settings(generator_steps=generator, discriminator_steps=discriminator)
    found = [turns(settings, update) for update in range(len(expected))]
    assert ["g" * g + "d" * d for g, d in found] == expected


def test_phases_precede_the_cycle():
    settings = Settings(warmup_generator=2, warmup_discriminator=3, generator_steps=2)
    found = ["g" * g + "d" * d for g, d in (turns(settings, update) for update in range(8))]
    assert found == ["g", "g", "d", "d", "d", "g", "gd", "g"]


def test_only_those_whose_turn_it_is_change():
    made = method(warmup_generator=1, warmup_discriminator=1, generator_steps=2)
    expected = [(True, False), (False, True), (True, False), (True, True)]
    for update, turn in enumerate(expected):
        before = weights(made)
        losses, norm = made.train(X, Y, Place(update, update))
        moved = [np.any(a != b) for a, b in zip(before, weights(made), strict=True)]
        assert tuple(moved) == turn, update
        assert ("discriminator" in losses) == turn[1]
        assert ("e" in losses) == turn[0]
        assert ("adversarial" in losses) == (turn[0] and update > 0)
        assert norm > 0


def test_warm_up_is_by_the_truth_alone():
    """As if the discriminator were not there: the step of a supervised training."""
    made = method(warmup_generator=1, fidelity=1.0)
    made.train(X, Y, Place(0, 0))
    other = Supervised(Learner(networks()[0], keras.optimizers.SGD(1.0)), mean_absolute_errors)
    other.train(X, Y, Place(0, 0))
    one = np.concatenate([v.ravel() for v in values(other.model.trainable_variables)])
    np.testing.assert_allclose(weights(made)[0], one, rtol=1e-6, atol=1e-7)


def test_the_generator_meets_the_improved_discriminator():
    """Both in one batch is the discriminator's step, then the generator's, by plain calls."""
    both = method()
    losses, _ = both.train(X, Y, Place(0, 0))
    made = method(generator_steps=1, discriminator_steps=1)
    judge = made.learners[1].model
    outputs = {k: np.asarray(v) for k, v in made.model(X, training=True).items()}
    first = method(warmup_discriminator=1)
    first.train(X, Y, Place(0, 0))
    for variable, value in zip(
        judge.variables, values(first.learners[1].model.variables), strict=True
    ):
        variable.assign(value)
    logits = np.asarray(judge(np.concatenate([X, outputs["e"], outputs["b"]], -1)), np.float64)
    assert losses["adversarial"] == pytest.approx(np.log1p(np.exp(-logits)).mean(), rel=1e-5)
    np.testing.assert_allclose(weights(both)[1], weights(first)[1], rtol=1e-6, atol=1e-7)


def test_labels_are_drawn_as_asked():
    made = method(real_labels=(0.7, 1.0), made_labels=(0.0, 0.3), label_swap=0.1)
    real, fake = np.concatenate([made._labels(100, batch) for batch in range(200)], axis=1)
    swapped = real < 0.5
    np.testing.assert_array_equal(swapped, fake > 0.5)
    assert swapped.mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / 20000))
    for high in (real[~swapped], fake[swapped]):
        assert 0.7 <= high.min() < 0.71 < 0.99 < high.max() <= 1
    for low in (fake[~swapped], real[swapped]):
        assert 0 <= low.min() < 0.01 < 0.29 < low.max() <= 0.3
    again = method(real_labels=(0.7, 1.0), made_labels=(0.0, 0.3), label_swap=0.1)
    np.testing.assert_array_equal(made._labels(9, 3), again._labels(9, 3))
    assert np.any(made._labels(9, 3)[0] != made._labels(9, 4)[0])


def test_labels_reach_the_discriminator():
    """Its gradient with all labels swapped is that of real and made exchanged."""
    plain, swapped = method(warmup_discriminator=1), method(warmup_discriminator=1, label_swap=1)
    start = weights(plain)[1]
    told = [made.train(X, Y, Place(0, 0))[0]["discriminator"] for made in (plain, swapped)]
    ways = [weights(made)[1] - start for made in (plain, swapped)]
    assert told[0] != pytest.approx(told[1])
    # d(softplus(l) - t l)/dl = sigmoid(l) - t: the two differ by the labels' part only.
    halves = method(warmup_discriminator=1, real_labels=(0.5, 0.5), made_labels=(0.5, 0.5))
    halves.train(X, Y, Place(0, 0))
    np.testing.assert_allclose(
        (ways[0] + ways[1]) / 2, weights(halves)[1] - start, rtol=1e-3, atol=1e-6
    )


def slopes(nets=networks, **given):
    """A discriminator alone, by a loss that is 0 where made examples are as the truth."""
    return method(
        nets=nets, loss="wasserstein", gradient_penalty=10.0, warmup_discriminator=99, **given
    )


def linear(size, inputs=1):
    """The generator, and a discriminator of that slope by the maps."""
    shown, (generator, _) = keras.Input((8, 8, inputs + 2)), networks()
    logit = keras.layers.Dense(1, use_bias=False)
    judge = keras.Model(shown, logit(keras.layers.Flatten()(shown)))
    kernel = np.random.default_rng(2).standard_normal((8, 8, inputs + 2))
    kernel *= size / np.linalg.norm(kernel[..., inputs:])
    logit.kernel.assign(kernel.reshape(-1, 1))
    return generator, judge


@pytest.mark.parametrize("size", [0.0, 1.0, 3.0])
def test_the_penalty_is_that_of_the_slope_by_the_maps(size):
    """Inputs are alike in real and in made examples, and have no slope."""
    made = slopes(nets=partial(linear, size), rate=1e-3)
    losses, norm = made.train(X, Y, Place(0, 0))
    assert losses["gradient_penalty"] == pytest.approx((size - 1) ** 2, abs=1e-5)
    assert np.isfinite(norm)
    assert all(np.isfinite(one).all() for one in weights(made))
    assert "gradient_penalty" not in made.evaluate(X, Y)


def test_the_penalty_takes_the_slope_of_the_mean_of_patches():
    """A convolution 1×1 by w has on 64 pixels the slope |w| / 8."""

    def nets():
        shown, (generator, _) = keras.Input((8, 8, 3)), networks()
        judge = keras.Model(shown, keras.layers.Conv2D(1, 1)(shown))
        judge.trainable_variables[0].assign(np.reshape([5.0, 8.0, 6.0], (1, 1, 3, 1)))
        return generator, judge

    losses, _ = slopes(nets=nets, rate=1e-3).train(X, Y, Place(0, 0))
    assert losses["gradient_penalty"] == pytest.approx((10 / 8 - 1) ** 2, rel=1e-5)


def test_the_penalty_leads_the_slope_to_one():
    """Made examples are the truth here, so that nothing else moves the discriminator."""
    made = slopes(nets=partial(linear, 3.0), rate=0.01)
    truth = {name: np.asarray(maps) for name, maps in made.model(X, training=True).items()}
    found = [made.train(X, truth, Place(i, i))[0]["gradient_penalty"] for i in range(30)]
    assert all(np.diff(found) < 0)
    assert found[-1] < 1e-3


def test_places_of_the_penalty_are_drawn_by_the_batch():
    """A training that goes on from another's weights is that training."""
    made, again = slopes(rate=0.1), slopes(rate=0.1)
    made.train(X, Y, Place(0, 0))
    for one, other in zip(made.groups.values(), again.groups.values(), strict=True):
        for variable, value in zip(other, values(one), strict=True):
            variable.assign(value)
    found = [one.train(X, Y, Place(1, 1)) for one in (made, again)]
    assert found[0] == found[1]
    for one, other in zip(weights(made), weights(again), strict=True):
        np.testing.assert_array_equal(one, other)
    (one,), (other,) = made._places(1000, 0), made._places(1000, 1)
    assert np.any(one != other)
    assert one.min() >= 0
    assert one.max() < 1
    assert one.mean() == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12000))


@pytest.mark.parametrize(
    "loss", ["cross_entropy", "least_squares", "hinge", "relativistic", "wasserstein"]
)
def test_each_loss_is_learned(loss):
    """The discriminator alone comes to tell better, the generator alone to be taken for real."""
    # Five updates are the discriminator's, then of a cycle of 20 all but the last the generator's.
    given = {"warmup_discriminator": 5, "generator_steps": 20, "fidelity": 0.0}
    made = method(loss=loss, rate=0.02, **given)

    def logits():
        outputs = [np.asarray(maps) for maps in made.model(X, training=True).values()]
        judge = made.learners[1].model
        return [
            float(np.mean(judge(np.concatenate([X, *maps], -1))))
            for maps in (list(Y.values()), outputs)
        ]

    told, start = [], logits()
    for update in range(5):
        told.append(made.train(X, Y, Place(update, update))[0]["discriminator"])
    assert all(np.diff(told) < 0)
    real, fake = logits()
    assert real - fake > start[0] - start[1]
    convinced = []
    for update in range(5, 15):
        losses, _ = made.train(X, Y, Place(update, update))
        assert "discriminator" not in losses
        convinced.append(losses["adversarial"])
    assert all(np.diff(convinced) < 0)
    assert logits()[1] > fake


def noisy(draws, alike=False):
    """Inputs with one channel of noise a draw."""
    noise = np.random.default_rng(3).standard_normal((draws, *X.shape)).astype(np.float32)
    return np.concatenate([X, *(noise[:1].repeat(draws, 0) if alike else noise)], -1)


def with_size(outputs, targets):
    """Absolute errors, and the mean square of all outputs."""
    return mean_absolute_errors(outputs, targets) | {
        "size": sum(keras.ops.mean(maps**2) for maps in outputs.values())
    }


def test_draws_are_averaged_before_they_are_compared():
    """What is `beside` and the discriminator see one draw; nobody but the generator the noise."""
    options = {"noise_channels": 1, "draws": 3, "losses": with_size}
    weighted = {"weights": {"b": 2.0}, "beside": {"size": 0.3}}
    made = method(nets=partial(networks, noise=1), options=options | weighted)
    x = noisy(3)
    draws = [
        {k: np.asarray(v, np.float64) for k, v in made.model(one, training=False).items()}
        for one in (x[..., [0, 1]], x[..., [0, 2]], x[..., [0, 3]])
    ]
    found = made.evaluate(x, Y)
    for name in Y:
        mean = np.mean([one[name] for one in draws], axis=0)
        assert found[name] == pytest.approx(np.abs(mean - Y[name]).mean(), rel=1e-5)
    size = sum((maps**2).mean() for maps in draws[0].values())
    assert found["size"] == pytest.approx(size, rel=1e-5)
    shown = np.concatenate([X, draws[0]["e"], draws[0]["b"]], -1)
    logits = np.asarray(made.learners[1].model(shown), np.float64)
    assert found["adversarial"] == pytest.approx(np.log1p(np.exp(-logits)).mean(), rel=1e-5)
    total = found["adversarial"] + 0.5 * (found["e"] + 2 * found["b"]) + 0.3 * found["size"]
    assert made.total(found) == pytest.approx(total, rel=1e-6)


def test_draws_that_are_alike_are_one():
    options = {"noise_channels": 1, "losses": with_size, "beside": {"size": 0.3}}
    one, three = (
        method(nets=partial(networks, noise=1), warmup_generator=1, options=options, **given)
        for given in ({}, {"fidelity_draws": 3})
    )
    for update in range(2):
        losses = [
            made.train(noisy(count, alike=True), Y, Place(update, update))
            for made, count in ((one, 1), (three, 3))
        ]
        assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
        assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-4)
    for ours, others in zip(weights(one), weights(three), strict=True):
        np.testing.assert_allclose(ours, others, rtol=1e-4, atol=1e-5)


def test_weights_are_those_of_the_gradient():
    """Of the warm-up, whose loss is nothing but them; fidelity is not on what is beside."""
    options = {"losses": with_size, "weights": {"b": 0.0}, "beside": {"size": 0.5}}
    made = method(warmup_generator=1, fidelity=2.0, options=options)
    made.train(X, Y, Place(0, 0))

    def loss(outputs, targets):
        found = with_size(outputs, targets)
        return {"sum": 2 * found["e"] + 0.5 * found["size"]}

    other = Supervised(Learner(networks()[0], keras.optimizers.SGD(1.0)), loss)
    other.train(X, Y, Place(0, 0))
    expected = np.concatenate([v.ravel() for v in values(other.model.trainable_variables)])
    np.testing.assert_allclose(weights(made)[0], expected, rtol=1e-5, atol=1e-6)


def test_truths_that_are_no_outputs_reach_the_losses_alone():
    """In both kinds of training; the discriminator sees outputs and their truths."""
    more = Y | {"q": 2 * Y["e"]}

    def losses(outputs, targets):
        return mean_absolute_errors(outputs, targets) | {
            "half": keras.ops.mean(keras.ops.abs(outputs["e"] - targets["q"] / 2))
        }

    supervised = Supervised(Learner(networks()[0], keras.optimizers.SGD(0.1)), losses)
    adversarial = method(options={"losses": losses})
    for made in (supervised, adversarial):
        for found in (made.evaluate(X, more), made.train(X, more, Place(0, 0))[0]):
            assert found["half"] == pytest.approx(found["e"], rel=1e-6)
            assert {"e", "b", "half"} <= set(found)
            assert "q" not in found
    plain = method()
    assert plain.evaluate(X, more) == plain.evaluate(X, Y)


def test_states_are_told_apart_by_what_is_new():
    """And those of before go on: what they did not know is left out at its default."""
    known = set(Settings().model_dump()) - {"loss", "gradient_penalty", "fidelity_draws"}
    assert set(method().identity) == {"method", "losses", "settings", "draws"}
    assert set(method().identity["settings"]) == known
    noise = {"noise_channels": 1}
    made = [
        method(),
        method(loss="hinge"),
        method(gradient_penalty=1.0),
        method(options={"weights": {"e": 2.0}}),
        method(options={"beside": {"e": 2.0}}),
        method(options=noise),
        method(options=noise, fidelity_draws=2),
        method(options=noise | {"draws": 3}),
    ]
    assert len({json.dumps(one.identity, sort_keys=True) for one in made}) == len(made)


def test_choices_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="fidelity_draws: expected 1 without noise channels, found"):
        method(fidelity_draws=2)
    with pytest.raises(ValueError, match="beside: expected none of `weights`, found e"):
        method(options={"weights": {"e": 1.0}, "beside": {"e": 1.0}})


def test_parts_accumulate_to_the_whole():
    """Without batch norm, whose means see one batch only; the discriminator's, then the other's."""
    given = {"warmup_discriminator": 1, "generator_steps": 2}

    def nets():
        image, shown = keras.Input((8, 8, 1)), keras.Input((8, 8, 3))
        start = partial(keras.initializers.GlorotUniform, seed=1)
        outputs = {
            name: keras.layers.Conv2D(1, 3, padding="same", kernel_initializer=start())(image)
            for name in ("e", "b")
        }
        judge = keras.layers.Conv2D(1, 3, kernel_initializer=start())(shown)
        return keras.Model(image, outputs), keras.Model(shown, judge)

    whole, parts = (
        method(nets=nets, **given),
        method(nets=nets, accumulate=True, **given),
    )
    for update in range(2):
        whole.train(X, Y, Place(update, update))
        for i in range(2):
            part = slice(3 * i, 3 * i + 3)
            place = Place(2 * update + i, update, count=2, last=i == 1)
            parts.train(X[part], {name: maps[part] for name, maps in Y.items()}, place)
    for one, other in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"real_labels": (1.0, 0.7)}, "lower end first"),
        ({"label_swap": 1.5}, "less than or equal to 1"),
        ({"generator_steps": 0}, "greater than or equal to 1"),
        ({"fidelity": 0, "warmup_generator": 3}, "`fidelity` above 0"),
        ({"gradient_penalty": -1}, "greater than or equal to 0"),
        ({"loss": "hinge", "label_swap": 0.1}, "label_swap: expected `loss: .* found hinge"),
        ({"loss": "wasserstein", "real_labels": (0.7, 1)}, "real_labels: .* found wasserstein"),
        ({"loss": "relativistic", "made_labels": (0, 0.3)}, "made_labels: .* found relativistic"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        Settings(**given)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    maps = {name: rng.standard_normal((30, 8, 8)) for name in ("q_obs", "e", "b")}
    path = tmp_path_factory.mktemp("shards") / "a.h5"
    write_shard(
        path,
        maps,
        realizations=range(30),
        size_deg=5.0,
        units=dict.fromkeys(maps, ""),
        provenance={"seed": 0},
    )
    return ShardSet([path])


def feed(shards, numbers, name):
    scales = Normalization.fit(shards, shards.fields, range(30))
    return BatchFeed(shards, ["q_obs"], ["e", "b"], scales, numbers, 4, 1, (name,))


def test_examples_drawn_apart(shards):
    pair = [feed(shards, numbers, "a") for numbers in (range(15), range(15, 30))]
    apart = UnpairedFeed(*pair)
    assert apart.steps == 3
    (x, y), *_ = apart.epoch(0, 2)
    np.testing.assert_array_equal(x, next(iter(pair[0].epoch(0, 2)))[0])
    np.testing.assert_array_equal(y["b"], next(iter(pair[1].epoch(0, 2)))[1]["b"])
    assert apart.fingerprint != UnpairedFeed(*pair[::-1]).fingerprint
    shorter = UnpairedFeed(pair[0], feed(shards, range(20, 30), "c"))
    sizes = [len(x) for x, _ in shorter.in_order()]
    assert sizes == [4, 4, 2]
    assert [shorter.size(batch) for batch in range(4)] == [*sizes, 0]
    y["b"][1, 0, 0, 0] = np.nan
    assert apart.broken((x, y), 0, 2) == [pair[1].numbers(0, 2)[1]]
    x[3] = np.inf
    assert set(apart.broken((x, y), 0, 2)) == {pair[1].numbers(0, 2)[1], pair[0].numbers(0, 2)[3]}


def test_feeds_that_do_not_go_together_are_refused(shards):
    one = feed(shards, range(15), "a")
    other = BatchFeed(shards, ["q_obs"], ["e"], one.normalization, range(15, 30), 5, 1, ("d",))
    with pytest.raises(UserError, match="batch: expected that of the inputs, 4, found 5"):
        UnpairedFeed(one, other)
    shared = feed(shards, range(14, 30), "b")
    words = "realizations: expected others for truths than for inputs, found 14"
    with pytest.raises(UserError, match=words):
        UnpairedFeed(one, shared)


@pytest.mark.parametrize("given", [{"conditional": False}, {"fidelity": 0, "warmup_generator": 0}])
def test_what_learns_from_pairs_is_not_fed_others(shards, tmp_path, given):
    apart = UnpairedFeed(feed(shards, range(10), "a"), feed(shards, range(10, 20), "b"))
    with pytest.raises(UserError, match="feed: expected truths of the inputs"):
        trained(shards, tmp_path, (apart, feed(shards, range(20, 30), "c")), **given)


RANDOM = {"label_swap": 0.3, "real_labels": (0.7, 1), "generator_steps": 2, "warmup_generator": 1}


def trained(shards, folder, feeds, epochs=3, **given):
    """A training with everything random there is, and its networks' weights."""
    prepare(1)
    settings = Training(
        epochs=epochs,
        batch=4,
        learning_rate=0.01,
        accumulate=2,
        save_minutes=1e-9,
        plateau_patience=1,
        stop_patience=2,
    )
    own = Settings(**RANDOM | given)
    made = Adversarial(
        *learners(*networks(dropout=0.3), settings, own),
        own,
        seed=1,
        name="a",
    )
    history = train(made, *feeds, settings, state_folder=folder, identity={}, log=lambda line: None)
    return history.drop(columns="seconds"), [v for g in made.groups.values() for v in values(g)]


def test_a_training_that_was_stopped_ends_alike(shards, tmp_path, monkeypatch):
    """Stopped after every third of an epoch's 5 steps of training and 3 of validation: of three
    epochs, after each of them once."""
    feeds = [feed(shards, range(20), "a"), feed(shards, range(20, 30), "b")]
    whole = trained(shards, tmp_path / "whole", feeds)
    stops = 0
    with monkeypatch.context() as patch:
        patch.setattr(
            Interruption,
            "reason",
            property(lambda self: "a test" if len(self._steps) > 2 else None),
        )
        while True:
            try:
                resumed = trained(shards, tmp_path / "stopped", feeds)
                break
            except Unfinished:
                stops += 1
    assert stops == 5 + 3
    assert whole[0].equals(resumed[0])
    for one, other in zip(whole[1], resumed[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert {"loss_discriminator", "val_loss_adversarial", "val_loss_e"} <= set(whole[0])


def test_epochs_are_judged_once_both_learn(shards, tmp_path):
    """Three updates in an epoch: the generator's four, the discriminator's eight, then both's."""
    given = {"warmup_generator": 4, "warmup_discriminator": 8}
    made = method(**given)
    assert [made.settled(update) for update in (4, 12, 13, 15)] == [False, False, True, True]
    assert not method(fidelity=0, conditional=False).settled(99)
    feeds = feed(shards, range(20), "a"), feed(shards, range(20, 30), "b")
    history, _ = trained(shards, tmp_path, feeds, epochs=6, **given)
    assert len(history) > 4, "an end by epochs in which the generator did not learn"
    # Updates 7 to 9 are the discriminator's alone, the last ones its and the generator's.
    assert history.loss.isna().tolist()[:4] == [False, False, True, True]
    assert history.val_loss.notna().all()
    assert (history.learning_rate[:4] == history.learning_rate[0]).all()


def test_the_discriminator_has_its_own_rate():
    training = Training(learning_rate=0.002)
    for rate, expected in ((None, [0.002, 0.002]), (0.01, [0.002, 0.01])):
        found = learners(*networks(), training, Settings(learning_rate=rate))
        assert [one.rate for one in found] == pytest.approx(expected)


def found():
    """What both backends find: losses, norms and the way of the weights over four updates."""
    made = method(
        nets=networks,
        rate=0.1,
        warmup_generator=1,
        label_swap=0.5,
        made_labels=(0, 0.3),
        discriminator_steps=2,
    )
    start, rows = weights(made), []
    for update in range(4):
        losses, norm = made.train(X, Y, Place(update, update))
        rows += [*losses.values(), norm]
    rows += made.evaluate(X, Y).values()
    ways = [end - begin for begin, end in zip(start, weights(made), strict=True)]
    made = method(
        nets=partial(networks, noise=1),
        rate=0.1,
        loss="relativistic",
        gradient_penalty=2.0,
        options={"noise_channels": 1, "draws": 2, "losses": with_size, "beside": {"size": 0.3}},
    )
    start, x = weights(made), noisy(2)
    for update in range(2):
        losses, norm = made.train(x, Y, Place(update, update))
        rows += [*losses.values(), norm]
    rows += made.evaluate(x, Y).values()
    ways += [end - begin for begin, end in zip(start, weights(made), strict=True)]
    return [np.array(rows).tolist(), *(way.tolist() for way in ways)]


@pytest.mark.slow
def test_tensorflow_and_jax_agree():
    """Losses to 1e-5, the weights' way, which is the gradients', to 1e-4."""
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (rows, *ways), (others, *theirs) = found(), json.loads(other.stdout.splitlines()[-1])
    np.testing.assert_allclose(rows, others, rtol=1e-5)
    for one, two in zip(ways, theirs, strict=True):
        assert np.linalg.norm(np.subtract(one, two)) < 1e-4 * np.linalg.norm(one)


if __name__ == "__main__":
    print(json.dumps(found()))
