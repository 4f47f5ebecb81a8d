"""The training loop: what it returns, when it stops, and what it makes of a saved state."""

import json
import os
import signal
import time
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from skyweave.config import Selection, Training
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import Unfinished, UserError
from skyweave.training import interruption, loop, state
from skyweave.training.interruption import Interruption
from skyweave.training.lock import Lock
from skyweave.training.loop import train
from skyweave.training.method import learner
from skyweave.training.runtime import prepare
from skyweave.training.state import StateFolder, values
from skyweave.training.supervised import Supervised

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

    def __call__(
        self, settings=SETTINGS, identity=IDENTITY, log=None, deadline_s=None, net=toy, **changes
    ):
        self.model, settings = net(), settings.model_copy(update=changes)
        return train(
            Supervised(learner(self.model, settings)),
            *self.feeds,
            settings,
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


@pytest.fixture
def stop_after(monkeypatch):
    """A function that has each training from then on stopped after so many steps."""

    def set_steps(steps):
        def reason(self):
            return "a test" if len(self._steps) >= steps else None

        monkeypatch.setattr(Interruption, "reason", property(reason))

    yield set_steps
    monkeypatch.undo()


def test_a_stop_leaves_a_state_to_go_on_from(run, whole, stop_after):
    stop_after(1)
    with pytest.raises(Unfinished, match="a test in epoch 1 after step 1"):
        run()
    assert [path.name for path in run.folder.iterdir()] == ["state-00000000.npz"]
    stop_after(99)
    same(run, run(), whole)
    assert run.said("going on from epoch 1, step 1")


def test_retries_of_one_step_arrive(run, stop_after):
    """Or of one batch of validation: 5 + 3 an epoch."""
    stop_after(1)
    for _ in range(8):
        with pytest.raises(Unfinished):
            run(epochs=1)
    assert len(run(epochs=1)) == 1


@pytest.mark.parametrize("deadline_s", [-60, 0])
def test_no_time_at_all_is_told_before_the_first_step(run, whole, deadline_s):
    with pytest.raises(Unfinished, match=rf"limit of {deadline_s} s in epoch 1 after step 0"):
        run(deadline_s=deadline_s)
    same(run, run(), whole)


@pytest.mark.parametrize(
    ("step_s", "save_s", "compile_s", "accumulate"),
    [(1, 30, 1, 1), (20, 1, 60, 1), (20, 1, 60, 2)],
)
def test_the_margin_covers_slow_saves_and_compilations(
    run, monkeypatch, step_s, save_s, compile_s, accumulate
):
    """By a clock of our own; an epoch has 5 steps and 3 of validation.

    Whatever the limit, a training ends before it, and not long before it, the state saved. Only
    the first compilation and the first save are foretold by nothing.
    """
    clock = [0.0]
    for module in (loop, interruption):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    whole_save = StateFolder.save

    def save(self, state):
        clock[0] += save_s
        return whole_save(self, state)

    def slow(found):
        """A step of a freshly made method, which compiles first."""

        def take(self, x, y, place=None):
            compiled = self.__dict__.setdefault("compiled", set())
            kind = place and self.kind(place)
            clock[0] += step_s if kind in compiled else compile_s
            compiled.add(kind)
            return found

        return take

    losses = {"kappa": 1.0, "tau": 1.0}
    monkeypatch.setattr(StateFolder, "save", save)
    monkeypatch.setattr(Supervised, "train", slow((losses, 1.0)))
    monkeypatch.setattr(Supervised, "evaluate", slow(losses))
    ends = []
    for limit in range(2 * save_s + compile_s + 2, 600, 12):
        clock[0] = 0.0
        try:
            changes = {"epochs": 2, "accumulate": accumulate}
            run(deadline_s=limit, identity={"limit": limit}, net=plain, **changes)
            ends.append("whole")
        except Unfinished:
            ends.append("cut")
            assert limit - clock[0] < 3 * (step_s + save_s + compile_s)
        assert clock[0] <= limit
    assert {"whole", "cut"} == set(ends)


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


@pytest.mark.parametrize(
    ("changes", "anew"),
    [
        ({"save_minutes": 1}, False),
        ({"deterministic": True}, False),
        ({"select": Selection(by="last")}, False),
        ({"stop_patience": None}, True),
        ({"accumulate": 2}, True),
        ({"clip_norm": 1.0}, True),
        ({"warmup_updates": 1}, True),
        ({"schedule": "cosine"}, True),
        ({"deterministic": False}, True),
    ],
)
def test_what_changes_the_result_is_another_training(run, changes, anew):
    """What `auto` means on this CPU may as well be said."""
    run(epochs=1)
    run(epochs=1, **changes)
    assert run.said("starts anew") == anew


def test_rate_falls_and_training_stops_on_a_plateau(run, monkeypatch):
    """Validation losses 3, 2, 2, 2, 2 with patiences 1 and 3."""
    losses = iter([3.0, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(loop._Loop, "_validate", lambda self: {"kappa": next(losses), "tau": 0.0})
    history = run(epochs=9, plateau_patience=1, stop_patience=3, plateau_factor=0.5)
    rates = history["learning_rate"] / SETTINGS.learning_rate
    np.testing.assert_allclose(rates, [1, 1, 1, 0.5, 0.25], rtol=1e-6)
    assert len(run(epochs=99, plateau_patience=1, stop_patience=3, plateau_factor=0.5)) == 5


def test_cosine_falls_over_all_updates(run, monkeypatch):
    """5 steps of 3 epochs, two a step: updates 0 to 8, of which 3 warm up."""
    rates = []
    whole_rates = loop._Loop._set_rates

    def spy(self, update):
        whole_rates(self, update)
        rates.append(self.learning_rate)

    monkeypatch.setattr(loop._Loop, "_set_rates", spy)
    cosine = {"schedule": "cosine", "warmup_updates": 3, "accumulate": 2}
    history = run(**cosine)
    falling = [(1 + np.cos(np.pi * i / 6)) / 2 for i in range(6)]
    np.testing.assert_allclose(rates, 0.01 * np.array([1 / 3, 2 / 3, 1, *falling]), rtol=1e-6)
    np.testing.assert_array_equal(history["learning_rate"], rates[2::3])
    run(epochs=4, **cosine)
    assert run.said("belongs to other settings"), "more epochs are another cosine"
    assert not run.said("going on")


def test_warmup_precedes_the_plateau(run, monkeypatch):
    losses = iter([3.0, 3.0, 3.0])
    monkeypatch.setattr(loop._Loop, "_validate", lambda self: {"kappa": next(losses), "tau": 0.0})
    history = run(warmup_updates=10, plateau_patience=1)
    np.testing.assert_allclose(history["learning_rate"], [0.005, 0.01, 0.005], rtol=1e-6)


def test_a_warmup_longer_than_the_cosine_is_refused(run):
    with pytest.raises(UserError, match=r"warmup_updates: expected fewer than the 15 updates"):
        run(schedule="cosine", warmup_updates=15)


def plain():
    """Without batch norm and dropout, which see the patches of one batch together."""
    image = keras.Input((16, 16, 1))
    start = keras.initializers.GlorotUniform
    x = keras.layers.Conv2D(4, 3, activation="elu", kernel_initializer=start(seed=1))(image)
    x = keras.layers.ZeroPadding2D(1)(x)
    return keras.Model(
        image,
        {
            name: keras.layers.Conv2D(1, 1, kernel_initializer=start(seed=3), name=name)(x)
            for name in ("kappa", "tau")
        },
    )


def feed(run, part, batch):
    old = run.feeds[0]
    return BatchFeed(
        old.shards, old.inputs, old.targets, old.normalization, part, batch, 1, old.identity
    )


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_accumulated_batches_are_one_large_batch(shards, tmp_path, clip_norm):
    """Up to the order of sums in single precision; Adam makes little of it."""
    found = []
    for batch, accumulate in ((8, 1), (4, 2), (2, 4)):
        run = Run(shards, tmp_path / str(batch))
        run.feeds[0] = feed(run, range(16), batch)
        history = run(net=plain, accumulate=accumulate, batch=batch, clip_norm=clip_norm)
        found.append((history, values(run.model.variables)))
    for history, weights in found[1:]:
        for name in ("loss", "val_loss"):
            np.testing.assert_allclose(history[name], found[0][0][name], rtol=1e-5)
        for one, other in zip(weights, found[0][1], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_stop_between_two_updates_loses_nothing(shards, tmp_path, stop_after):
    """Updates of 3 and, at the end of an epoch, of 2 steps; stopped after 4, 1, 1, … steps."""
    settings = SETTINGS.model_copy(
        update={"accumulate": 3, "clip_norm": 0.5, "warmup_updates": 4, "epochs": 2}
    )
    whole = Run(shards, tmp_path / "whole")
    whole.history = whole(settings)
    run = Run(shards, tmp_path / "cut")
    for steps in (4, 1, 1, 2, 2):
        stop_after(steps)
        with pytest.raises(Unfinished):
            run(settings)
    stop_after(99)
    same(run, run(settings), whole)


def newest(run):
    """Cursor and finite arrays of the newest state."""
    path = max(run.folder.glob("state-*.npz"))
    with np.load(path) as entries:
        about = json.loads(entries["about"].tobytes())
        finite = all(np.isfinite(entries[name]).all() for name in entries if name != "about")
    return about["state"]["epoch"], about["state"]["step"], finite


def test_a_loss_that_is_not_finite_ends_in_one_line(run):
    with pytest.raises(UserError, match=r"learning_rate: .* epoch 1, step 2, realiz") as caught:
        run(learning_rate=1e30, save_minutes=1e-9)
    numbers = ", ".join(map(str, run.feeds[0].numbers(0, 1)))
    assert str(caught.value).endswith(f"realizations {numbers}")
    assert "\n" not in str(caught.value)
    assert newest(run) == (0, 1, True)
    assert not list(run.folder.glob("lock*"))


def test_a_gradient_that_is_not_finite_ends_it_before_the_weights_are_saved(run):
    """The loss is finite: the root of 0 has no derivative."""

    def bad():
        model = toy()
        outputs = {name: y + keras.ops.sqrt(0 * y) for name, y in model.output.items()}
        return keras.Model(model.input, outputs)

    for accumulate in (1, 2):
        with pytest.raises(UserError, match=r"the gradient stays finite.*nan in epoch 1, step 1"):
            run(net=bad, save_minutes=1e-9, accumulate=accumulate)
    assert list(run.folder.iterdir()) == []


def test_maps_that_are_not_finite_are_named(run, monkeypatch):
    whole_batch = BatchFeed._batch

    def batch(self, epoch, rows):
        x, y = whole_batch(self, epoch, rows)
        y["tau"][self.realizations[rows] == 7] = np.nan
        return x, y

    monkeypatch.setattr(BatchFeed, "_batch", batch)
    with pytest.raises(UserError, match=r"dataset: .* in realizations 7 \(epoch 1, step \d\)"):
        run()


def test_weights_that_are_not_finite_are_not_saved(run, monkeypatch):
    save = StateFolder.save

    def spoil(self, state):
        if state.epoch == 1:
            variable = self.groups["model"][0]
            variable.assign(variable * np.inf)
        return save(self, state)

    monkeypatch.setattr(StateFolder, "save", spoil)
    with pytest.raises(UserError, match=r"the model's variables.* in epoch 2 after step 0"):
        run(save_minutes=0.0001)
    assert newest(run)[2]


def test_a_second_training_in_the_folder_is_refused(run):
    with Lock(run.folder), pytest.raises(UserError, match="no other process that trains here"):
        run()


def test_a_training_whose_lock_was_taken_does_not_save(run):
    def log(line):
        if line.startswith("epoch 1/"):
            next(run.folder.glob("lock-*")).unlink()

    with pytest.raises(UserError, match="lock of this process"):
        run(log=log, save_minutes=1e-9)
    assert newest(run)[:2] == (0, 5), "the lock went between the last validation and the save"


def events(folder):
    """{name: [(epoch, value), …]} of all files, in the order of writing."""
    import tensorflow as tf

    found = {}
    for path in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                entry = event.step, float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, []).append(entry)
    return found


def test_events_are_those_of_the_history(run, whole, stop_after):
    stop_after(10)
    with pytest.raises(Unfinished, match="epoch 2"):
        run(tensorboard=True)
    stop_after(99)
    same(run, run(tensorboard=True), whole)
    found = events(run.folder / "tensorboard")
    assert set(found) == set(whole.history) - {"epoch"}
    for name in ("val_loss", "loss_tau", "learning_rate"):
        assert [epoch for epoch, _ in found[name]] == [1, 2, 3]
        np.testing.assert_allclose([v for _, v in found[name]], whole.history[name], rtol=1e-6)
    run(tensorboard=True, epochs=1, clip_norm=1.0)
    assert len(events(run.folder / "tensorboard")["loss"]) == 1, "anew, so are the events"


def test_a_state_of_another_version_starts_anew(run, monkeypatch):
    monkeypatch.setattr(state, "FORMAT", "skyweave training state 1")
    run(epochs=1)
    monkeypatch.undo()
    run(epochs=1)
    assert run.said("belongs to other settings or data")


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
        interruption.saved(4.0)
        assert interruption.reason is None
        interruption.coming_s = 1.9
        assert interruption.reason == "its limit of 10 s"
        interruption.coming_s = 0.0
        interruption.saved(4.9)
        interruption.saved(0.1)
        assert interruption.reason == "its limit of 10 s"


def test_interruption_counts_from_its_start():
    with Interruption(deadline_s=0.05) as interruption:
        assert interruption.reason is None
        time.sleep(0.06)
        assert interruption.reason
