"""The training loop: what it returns, when it stops, and what it makes of a saved state."""

import os
import signal
import time

import keras
import numpy as np
import pandas as pd
import pytest

from skyweave.config import Training
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import Unfinished, UserError
from skyweave.training import supervised
from skyweave.training.interruption import Interruption
from skyweave.training.runtime import prepare
from skyweave.training.state import StateFolder, values
from skyweave.training.supervised import train

SETTINGS = Training(epochs=3, batch=4, learning_rate=0.01)
IDENTITY = {"run": "toy", "network": {"name": "toy"}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    fields = {name: rng.standard_normal((30, 16, 16)) for name in ("q_obs", "kappa", "tau")}
    fields["kappa"] += 2 * fields["q_obs"]
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


def toy():
    """Dropout, batch norm and two outputs, as a network has them, but compiled in a moment."""
    image = keras.Input((16, 16, 1))
    start = keras.initializers.GlorotUniform
    x = keras.layers.Conv2D(4, 3, padding="same", kernel_initializer=start(seed=1), name="a")(image)
    x = keras.layers.BatchNormalization(name="b")(keras.layers.Dropout(0.2, seed=2, name="c")(x))
    outputs = {
        name: keras.layers.Conv2D(1, 1, kernel_initializer=start(seed=3), name=name)(x)
        for name in ("kappa", "tau")
    }
    return keras.Model(image, outputs, name="toy")


class Run:
    """One way to train the toy, again and again in one folder."""

    def __init__(self, shards, folder):
        prepare(1)
        normalization = Normalization.fit(shards, shards.fields, range(20))
        self.folder, self.lines = folder, []
        self.feeds = [
            BatchFeed(shards, ["q_obs"], ["kappa", "tau"], normalization, numbers, 4, 1, ("toy",))
            for numbers in (range(20), range(20, 30))
        ]

    def __call__(self, settings=SETTINGS, identity=IDENTITY, log=None, deadline_s=None, **changes):
        self.model = toy()
        return train(
            self.model,
            *self.feeds,
            settings.model_copy(update=changes),
            state_folder=self.folder,
            identity=identity,
            deadline_s=deadline_s,
            log=log or self.lines.append,
        )

    def said(self, words):
        return any(words in line for line in self.lines)


@pytest.fixture
def run(shards, tmp_path):
    return Run(shards, tmp_path / "state")


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """A training that nothing disturbed."""
    run = Run(shards, tmp_path_factory.mktemp("whole"))
    run.history = run()
    return run


def same(run, history, whole):
    """Whether a training ended as the undisturbed one, bit for bit."""
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), whole.history.drop(columns="seconds"), check_exact=True
    )
    for one, other in zip(values(run.model.variables), values(whole.model.variables), strict=True):
        np.testing.assert_array_equal(one, other)


def test_history_has_a_row_an_epoch(whole):
    history = whole.history
    assert history["epoch"].tolist() == [1, 2, 3]
    for total in ("loss", "val_loss"):
        parts = history[[f"{total}_kappa", f"{total}_tau"]].sum(axis=1)
        np.testing.assert_allclose(history[total], parts, rtol=1e-12)
    np.testing.assert_allclose(history["learning_rate"], 0.01, rtol=1e-6)
    assert (history["seconds"] > 0).all()
    assert len([line for line in whole.lines if line.startswith("epoch")]) == 3


def test_the_best_weights_are_left_in_the_model(whole):
    """The validation loss of the returned network, by plain NumPy, is the least in the history."""
    feed, squares = whole.feeds[1], []
    for x, y in feed.in_order():
        outputs = whole.model(x, training=False)
        squares.append(sum((np.asarray(outputs[k]) - y[k]) ** 2 for k in y))
    loss = np.concatenate(squares).mean()
    assert loss == pytest.approx(whole.history["val_loss"].min(), rel=1e-5)


def test_a_finished_training_is_only_read(whole):
    lines = []
    again = whole(log=lines.append)
    same(whole, again, whole)
    assert not any("loss" in line for line in lines)


def test_deadline_leaves_a_state_to_go_on_from(run, whole):
    with pytest.raises(Unfinished, match=r"limit of 0 s in epoch 1 after step 1"):
        run(deadline_s=0)
    assert len(list(run.folder.iterdir())) == 1
    same(run, run(), whole)
    assert run.said("going on from epoch 1, step 1")


def test_retries_with_the_shortest_deadlines_arrive(run):
    """A try does at least one step or one batch of validation: 5 + 3 an epoch."""
    for _ in range(8):
        with pytest.raises(Unfinished):
            run(epochs=1, deadline_s=0)
    assert len(run(epochs=1, deadline_s=0)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_state_to_go_on_from(run, whole, number):
    before = signal.getsignal(number)

    def log(line):
        if line.startswith("epoch 1/"):
            os.kill(os.getpid(), number)

    with pytest.raises(Unfinished, match=f"{number.name} in epoch 2 after step 1"):
        run(log=log)
    assert signal.getsignal(number) is before
    same(run, run(), whole)


def test_a_damaged_state_falls_back_to_the_one_before(run, whole):
    run(epochs=2)
    newest = max(run.folder.glob("state-*.npz"))
    content = bytearray(newest.read_bytes())
    with np.load(newest) as entries:
        at = bytes(content).index(entries["model-0"].tobytes())
    content[at] ^= 1
    newest.write_bytes(content)
    same(run, run(), whole)
    assert run.said(f"warning: {newest} is damaged")
    assert run.said("going on from epoch 2, step 0")


@pytest.mark.parametrize("length", [0, 100, 0.9])
def test_truncated_states_start_anew(run, whole, length):
    run(epochs=2)
    for path in run.folder.glob("state-*.npz"):
        size = path.stat().st_size
        os.truncate(path, int(length * size) if length < 1 else length)
    same(run, run(), whole)
    assert len([line for line in run.lines if line.startswith("warning")]) == 2


def test_more_epochs_go_on(run, whole):
    run(epochs=1)
    same(run, run(), whole)
    assert run.said("going on from epoch 2, step 0")


def test_fewer_epochs_start_anew(run):
    run(epochs=2)
    assert len(run(epochs=1)) == 1
    assert run.said("starts anew")


@pytest.mark.parametrize(
    ("changes", "identity"),
    [({"learning_rate": 0.02}, IDENTITY), ({}, IDENTITY | {"run": "other"})],
)
def test_other_settings_start_anew(run, changes, identity):
    run(epochs=1)
    run(epochs=1, identity=identity, **changes)
    assert run.said("belongs to other settings or data: training starts anew")
    assert not run.said("going on")


def test_rate_falls_and_training_stops_on_a_plateau(run, monkeypatch):
    """Validation losses 3, 2, 2, 2, 2 with patiences 1 and 3."""
    losses = iter([3.0, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(
        supervised._Loop, "_validate", lambda self: {"kappa": next(losses), "tau": 0.0}
    )
    history = run(epochs=9, plateau_patience=1, stop_patience=3, plateau_factor=0.5)
    rates = history["learning_rate"] / SETTINGS.learning_rate
    np.testing.assert_allclose(rates, [1, 1, 1, 0.5, 0.25], rtol=1e-6)
    assert len(run(epochs=99, plateau_patience=1, stop_patience=3, plateau_factor=0.5)) == 5


def test_a_loss_that_is_not_finite_ends_in_one_line(run):
    with pytest.raises(UserError, match=r"learning_rate: .* epoch \d, (step \d|validation)"):
        run(learning_rate=1e30)
    assert not run.folder.exists()


def test_states_are_saved_within_an_epoch_and_two_are_kept(run, monkeypatch):
    saved = []
    save = StateFolder.save

    def spy(self, state):
        saved.append((state.epoch, state.step))
        path = save(self, state)
        assert len(self.files()) <= 2
        return path

    monkeypatch.setattr(StateFolder, "save", spy)
    run(epochs=1, save_minutes=1e-9)
    assert saved == [(0, step) for step in (1, 2, 3, 4, 5, 5, 5, 5)] + [(1, 0)]


def test_leftovers_of_a_killed_save_are_removed(run):
    run.folder.mkdir()
    (run.folder / ".state-00000000.1.npz").write_bytes(b"half")
    run(epochs=1)
    assert [path.name for path in run.folder.iterdir()] == ["state-00000000.npz"]


def test_deadline_leaves_time_for_a_step_and_a_save():
    with Interruption(deadline_s=10.0) as interruption:
        for seconds in (60.0, 0.1, 0.2):
            interruption.took(seconds)
        assert interruption.reason is None, "the first step compiles and is no measure"
        interruption.save_s = 4.0
        assert interruption.reason is None
        interruption.save_s = 4.9
        assert interruption.reason == "its limit of 10 s"


def test_interruption_counts_from_its_start():
    with Interruption(deadline_s=0.05) as interruption:
        assert interruption.reason is None
        time.sleep(0.06)
        assert interruption.reason
