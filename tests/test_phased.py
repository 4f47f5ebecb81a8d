"""Training in stages: what is held fast, what goes on, and that a kill changes nothing."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from skyweave.config.inpainting import InpaintingTraining
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import Unfinished
from skyweave.training.interruption import Interruption
from skyweave.training.loop import train
from skyweave.training.method import Place, learner
from skyweave.training.phased import Phased, held_fast
from skyweave.training.runtime import prepare
from skyweave.training.state import assign, values
from skyweave.training.supervised import Supervised

PIXELS = 8
#: An epoch has 3 steps and 2 of validation.
SETTINGS = InpaintingTraining(
    epochs=4,
    batch=4,
    learning_rate=1e-2,
    warm_epochs=0,
    frozen_from=2,
    frozen_learning_rate=5e-3,
)


def toy():
    """A norm to hold and one to learn, with momenta that let them run fast."""

    def kernel(number):
        return keras.initializers.GlorotUniform(seed=number)

    image = keras.Input((PIXELS, PIXELS, 1))
    x = layers.Conv2D(3, 3, padding="same", kernel_initializer=kernel(1), name="down")(image)
    x = layers.BatchNormalization(momentum=0.5, name="encoder")(x)
    x = layers.Conv2D(3, 3, padding="same", activation="relu", kernel_initializer=kernel(2))(x)
    x = layers.BatchNormalization(momentum=0.5, name="decoder")(x)
    return keras.Model(image, {"a": layers.Conv2D(1, 1, kernel_initializer=kernel(3))(x)})


def phased(model=None, **changes):
    model = model or toy()
    settings = SETTINGS.model_copy(update=changes)
    return Phased(model, settings, norms=[model.get_layer("encoder")])


def batch(seed=0, count=4):
    """Maps of a mean and a deviation of their own."""
    x = 2 + 3 * np.random.default_rng(seed).standard_normal((count, PIXELS, PIXELS, 1))
    return x.astype(np.float32), {"a": (x**2 / 9).astype(np.float32)}


def steps(method, numbers, epoch):
    """Losses and norms of steps that are an update each."""
    return [method.train(*batch(i), Place(i, i, epoch=epoch)) for i in numbers]


def layer_values(method, name):
    return values(method.model.get_layer(name).variables)


def equal(one, other):
    return [np.array_equal(a, b) for a, b in zip(one, other, strict=True)]


def test_held_layers_learn_again_after_the_block():
    model = toy()
    norms = [model.get_layer(name) for name in ("encoder", "decoder")]
    before = [v.path for v in model.trainable_variables]
    norms[1].trainable = False
    with held_fast(norms):
        assert not any(v.trainable for norm in norms for v in norm.variables)
    assert [norm.trainable for norm in norms] == [True, False], "as they were"
    norms[1].trainable = True
    assert [v.path for v in model.trainable_variables] == before


def test_held_layers_learn_again_after_an_error():
    method = phased()
    x, y = batch()
    with pytest.raises(ValueError, match="incompatible"):
        method.train(np.concatenate([x, x], -1), y, Place(0, 0, epoch=2))
    assert method.model.get_layer("encoder").trainable


def test_the_last_stage_holds_the_norms_and_nothing_else():
    method = phased()
    names = [layer.name for layer in method.model.layers if layer.variables]
    signature = [v.path for v in method.model.trainable_variables]
    changed = {}
    for epoch in (1, 2):
        before = {name: layer_values(method, name) for name in names}
        steps(method, range(3), epoch)
        changed[epoch] = {
            name: not any(equal(before[name], layer_values(method, name))) for name in names
        }
    assert changed[1] == dict.fromkeys(names, True)
    assert changed[2] == dict.fromkeys(names, True) | {"encoder": False}
    assert all(equal(before["encoder"], layer_values(method, "encoder"))), "not one of them"
    assert [v.path for v in method.model.trainable_variables] == signature


def test_the_held_norm_uses_what_has_run_up_to_then():
    """A step's loss is that of a network whose norm is the affine map of its running averages."""
    method = phased()
    steps(method, range(2), epoch=0)
    gamma, beta, mean, variance = layer_values(method, "encoder")
    model, other = method.model, toy()
    assign(other.variables, values(model.variables))
    norm = other.get_layer("encoder")
    scale = gamma / np.sqrt(variance + norm.epsilon)
    x, y = batch(9)
    tensor = other.get_layer("down")(x) * scale + (beta - mean * scale)
    for layer in other.layers[other.layers.index(norm) + 1 :]:
        tensor = layer(tensor, training=True)
    expected = np.mean((np.asarray(tensor) - y["a"]) ** 2)
    losses, _ = method.train(x, y, Place(2, 2, epoch=2))
    assert losses["a"] == pytest.approx(expected, rel=1e-5)


def test_the_last_stage_holds_in_batches_of_another_size():
    """They are traced anew, when the norms learn again for all others."""
    method = phased()
    steps(method, range(2), epoch=2)
    before = layer_values(method, "encoder")
    method.train(*batch(5, count=3), Place(2, 2, epoch=2))
    assert all(equal(before, layer_values(method, "encoder")))


def test_the_last_stage_begins_with_an_adam_of_its_own():
    """The first update without moments is by the rate itself, whatever gradients there were."""
    method = phased()
    steps(method, range(3), epoch=0)
    first, last = (one.optimizer for one in method.learners)
    before, moments = layer_values(method, "down")[0], values(first.variables)
    steps(method, [3], epoch=2)
    way = np.abs(layer_values(method, "down")[0] - before)
    np.testing.assert_allclose(way, SETTINGS.frozen_learning_rate, rtol=1e-3)
    assert all(equal(moments, values(first.variables))), "the first stage's stays as it was"
    assert len(last.variables) == len(first.variables) - 2 * 2, "gamma and beta have no moments"
    assert [one.optimizer for one in method.learners] == [last, first]


def test_a_state_holds_both_optimizers():
    method = phased(accumulate=2)
    assert set(method.groups) == {"model", "optimizer", "sums", "frozen_optimizer", "frozen_sums"}
    for name, one in zip(("", "frozen_"), method.learners, strict=True):
        assert list(method.groups[f"{name}optimizer"]) == list(one.optimizer.variables)
        assert len(method.groups[f"{name}sums"]) == len(one.sums) == 10 - 2 * bool(name)
    assert list(method.groups["model"]) == list(method.model.variables)


def test_stages_are_told_apart():
    method, kinds = phased(), {}
    for epoch in range(4):
        kinds[epoch] = {method.kind(Place(0, 0, 2, last, epoch)) for last in (True, False)}
    assert kinds[0] == kinds[1]
    assert kinds[2] == kinds[3]
    assert len(kinds[1] | kinds[2]) == 4
    told = [phased(**changes).identity for changes in ({}, {"epochs": 9}, {"frozen_from": 3})]
    assert json.dumps(told[0]) == json.dumps(told[1]) == json.dumps(method.identity)
    model = toy()
    others = Phased(model, SETTINGS, norms=[model.get_layer("decoder")]).identity
    assert told[0] not in (told[2], others)


def test_layers_of_another_network_are_refused():
    with pytest.raises(ValueError, match="norms: expected layers of the model"):
        Phased(toy(), SETTINGS, norms=[toy().get_layer("encoder")])


def test_accumulated_batches_are_one():
    """Of equal batches, where the split changes no statistics: in both stages, with new sums."""
    whole, parts = phased(), phased(accumulate=2)
    for update, epoch in enumerate((0, 0, 2, 2)):
        x, y = batch(update)
        _, norm = whole.train(x, y, Place(update, update, epoch=epoch))
        for i in (0, 1):
            place = Place(2 * update + i, update, 2, last=i == 1, epoch=epoch)
            _, found = parts.train(x, y, place)
        assert found == pytest.approx(norm, rel=1e-4)
        assert not any(np.any(total) for one in parts.learners for total in values(one.sums))
        if epoch == 0:
            # Else the second half meets statistics that the first has moved.
            assign(parts.model.get_layer("encoder").variables, layer_values(whole, "encoder"))
            assign(parts.model.get_layer("decoder").variables, layer_values(whole, "decoder"))
    for one, other in zip(*(m.model.trainable_variables for m in (whole, parts)), strict=True):
        np.testing.assert_allclose(*values([one, other]), rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    fields = {"x": rng.standard_normal((18, PIXELS, PIXELS))}
    fields["a"] = fields["x"] ** 2
    path = tmp_path_factory.mktemp("shards") / "a.h5"
    write_shard(
        path,
        fields,
        realizations=range(18),
        size_deg=5.0,
        units=dict.fromkeys(fields, ""),
        provenance={"seed": 0},
    )
    return ShardSet([path])


class Run:
    """One way to train the toy, again and again in one folder."""

    def __init__(self, shards, folder):
        prepare(1)
        scales = Normalization.fit(shards, shards.fields, range(12))
        self.folder, self.lines = folder, []
        self.feeds = [
            BatchFeed(shards, ["x"], ["a"], scales, numbers, 4, 1, ("toy",))
            for numbers in (range(12), range(12, 18))
        ]

    def __call__(self, make=phased, **changes):
        self.method = make(**changes)
        return train(
            self.method,
            *self.feeds,
            SETTINGS.model_copy(update=changes),
            state_folder=self.folder,
            identity={"run": "toy"},
            log=self.lines.append,
        )


@pytest.fixture
def run(shards, tmp_path):
    return Run(shards, tmp_path / "state")


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """A training that nothing disturbed, of updates that do not fit into epochs."""
    run = Run(shards, tmp_path_factory.mktemp("whole"))
    run.history = run(accumulate=2)
    return run


def same(run, history, whole):
    """Whether a training ended as the undisturbed one, bit for bit, with its optimizers."""
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), whole.history.drop(columns="seconds"), check_exact=True
    )
    for name, group in whole.method.groups.items():
        assert all(equal(values(group), values(run.method.groups[name]))), name


def test_each_stage_tells_its_rate(whole):
    np.testing.assert_allclose(whole.history["learning_rate"], [1e-2, 1e-2, 5e-3, 5e-3], rtol=1e-6)


def test_each_epoch_ends_an_update(whole):
    """3 batches an epoch are 2 updates of 2 batches and 1, also where the stage ends."""
    told = [int(values([one.optimizer.iterations])[0]) for one in whole.method.learners]
    assert told == [4, 4]
    assert not any(np.any(v) for one in whole.method.learners for v in values(one.sums))


@pytest.mark.parametrize("epochs", [2, 3])
def test_more_epochs_go_on_in_any_stage(run, whole, epochs):
    assert len(run(accumulate=2, epochs=epochs)) == epochs
    same(run, run(accumulate=2), whole)
    assert any(f"going on from epoch {epochs + 1}" in line for line in run.lines)


def test_a_kill_in_the_last_stage_changes_nothing(run, whole, monkeypatch):
    """At its first step, between the batches of an update, and in a validation."""
    monkeypatch.setattr(
        Interruption, "reason", property(lambda self: "a test" if self.taken >= self.most else None)
    )
    took = Interruption.took

    def count(self, seconds):
        self.taken += 1
        took(self, seconds)

    monkeypatch.setattr(Interruption, "took", count)
    monkeypatch.setattr(Interruption, "taken", 0, raising=False)
    for most, where in ((11, "epoch 3 after step 1"), (3, "epoch 3 after step 3")):
        monkeypatch.setattr(Interruption, "most", most, raising=False)
        with pytest.raises(Unfinished, match=where):
            run(accumulate=2)
    monkeypatch.setattr(Interruption, "most", 99)
    same(run, run(accumulate=2), whole)


def test_plateaus_and_cosines_are_on_both_rates(run):
    history = run(schedule="cosine", epochs=4, accumulate=1)
    factors = (1 + np.cos(np.pi * np.array([2, 5, 8, 11]) / 12)) / 2
    rates = np.array([1e-2, 1e-2, 5e-3, 5e-3]) * factors
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-6)


def test_a_lowered_rate_stays_low_in_the_last_stage(run, monkeypatch):
    """Epochs 2 and 3 are without a gain, each of which halves the rate of the next."""
    monkeypatch.setattr(Phased, "total", lambda self, losses: 1.0)
    history = run(plateau_patience=1, plateau_factor=0.5)
    np.testing.assert_allclose(
        history["learning_rate"], [1e-2, 1e-2, 5e-3 / 2, 5e-3 / 4], rtol=1e-6
    )


def test_without_a_last_stage_it_is_supervised(shards, tmp_path):
    def supervised(**changes):
        return Supervised(learner(toy(), SETTINGS.model_copy(update=changes)))

    one, other = (Run(shards, tmp_path / name) for name in ("phased", "supervised"))
    history = one(frozen_from=None, epochs=2)
    other.history = other(supervised, frozen_from=None, epochs=2)
    same(one, history, other)
    assert one.method.identity == other.method.identity


def both_stages():
    """Losses of both stages and a look, the held norm's variables before and after the last.

    Two devices would see the same examples.
    """
    method = phased()
    rng = np.random.default_rng(3)
    for v in method.model.trainable_variables:
        if v.path.endswith("kernel"):
            v.assign(rng.standard_normal(v.shape) / np.sqrt(np.prod(v.shape[:-1])))
    losses, held = [], []
    for update in range(6):
        half, truth = batch(update, count=2)
        x, y = np.concatenate([half, half]), {"a": np.concatenate([truth["a"]] * 2)}
        losses.append(method.train(x, y, Place(update, update, epoch=update // 3 * 2))[0]["a"])
        held.append([v.tolist() for v in layer_values(method, "encoder")])
    return {
        "losses": [*losses, method.evaluate(*batch())["a"]],
        "held": held,
        "learns": [layer.trainable for layer in method.model.layers],
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", ["jax", "two devices"])
def test_others_have_the_same_stages(case):
    """The other backend; and each of two devices, which trace the held norms side by side."""
    backend, devices = ("jax", 1) if case == "jax" else ("tensorflow", 2)
    more = {"KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, __file__, str(devices)]
    other = subprocess.run(
        command, env=os.environ | more, stdout=subprocess.PIPE, text=True, check=True
    )
    found, here = json.loads(other.stdout.splitlines()[-1]), both_stages()
    assert found["held"][2] == found["held"][5]
    assert found["held"][1] != found["held"][2]
    assert all(found["learns"])
    np.testing.assert_allclose(found["losses"], here["losses"], rtol=1e-3)


def main(devices):
    if devices > 1:
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, logical)
    prepare(1, threads=1, settings=SETTINGS.model_copy(update={"devices": devices}))
    print(json.dumps(both_stages()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
