"""Networks of epochs: what is kept, what a sweep makes of it, and which network a run ends with.

The maps of the test part are NaN throughout: whatever looked at them would fail, or find NaN.
"""

import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
import pytest

from skyweave.config import ReconstructionRun, Selection, Split, Training
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.data.split import assign, members
from skyweave.errors import Unfinished, UserError
from skyweave.networks import registry
from skyweave.networks.card import load_network, predict
from skyweave.statistics.flat_spectra import auto_and_cross, cross_spectra, default_bins
from skyweave.statistics.tables import read_table, write_table
from skyweave.tasks.training import train_run
from skyweave.training import checkpoints, loop, runtime
from skyweave.training.checkpoints import Checkpoints, compared, load, pick, sweep
from skyweave.training.interruption import Interruption
from skyweave.training.lock import Lock
from skyweave.training.state import StateFolder, values
from skyweave.training.supervised import Supervised

EACH = Selection(by="correlation")
METRICS = ("pixel_correlation", "correlation", "transfer", "residual")
EPOCHS = 5


@pytest.mark.parametrize(
    ("every", "epochs", "ended", "expected"),
    [
        (1, 3, False, [1, 2, 3]),
        (1, 3, True, [1, 2, 3]),
        (2, 5, False, [2, 4]),
        (2, 5, True, [2, 4, 5]),
        (2, 4, True, [2, 4]),
        (9, 5, False, []),
        (9, 5, True, [5]),
    ],
)
def test_every_nth_network_is_compared_and_the_last(every, epochs, ended, expected):
    assert compared(Selection(by="transfer", every_epochs=every), epochs, ended) == expected
    assert compared(Selection(by="last", every_epochs=every), epochs, ended) == []


@pytest.mark.parametrize(
    ("found", "largest", "least"),
    [
        ({1: 0.1, 2: 0.3, 3: 0.2}, 2, 1),
        ({3: 0.3, 2: 0.3, 1: 0.1, 4: 0.1}, 2, 1),
        ({1: np.nan, 2: 0.1, 3: np.nan}, 2, 2),
        ({1: np.inf, 2: -np.inf, 3: 0.1, 4: 0.0}, 3, 4),
    ],
)
def test_the_best_is_finite_and_the_earliest_of_equals(found, largest, least):
    assert pick(pd.Series(found), largest=True) == largest
    assert pick(pd.Series(found), largest=False) == least


def test_none_is_best_where_all_are_nan():
    with pytest.raises(UserError, match=r"training\.select: expected a finite value"):
        pick(pd.Series({1: np.nan, 2: np.nan}), largest=True)


def dense(units=1):
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])


@pytest.fixture
def kept(tmp_path):
    """A folder with networks of epochs 1 to 3 whose bias is the epoch."""
    model = dense()
    for epoch in (1, 2, 3):
        model.layers[0].bias.assign([epoch])
        Checkpoints(tmp_path, "one", EACH).save(epoch, epoch == 3, model.variables)
    return tmp_path


class Score:
    """The bias, and what the model's weights are like as floats; counts what it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, model):
        bias = float(model.layers[0].bias.numpy()[0])
        self.asked.append(bias)
        return pd.DataFrame({"statistic": ["bias", "none"], "value": [bias / 3, np.nan]})


def network(folder, epoch):
    return folder / "checkpoints" / f"epoch-{epoch:05d}.npz"


def test_a_sweep_scores_each_network_once(kept):
    score, model = Score(), dense()
    table = sweep(kept, [1, 2, 3], model, score)
    assert score.asked == [1, 2, 3]
    assert table.epoch.tolist() == [1, 1, 2, 2, 3, 3]
    assert table.value[::2].tolist() == [1 / 3, 2 / 3, 1.0]
    again = sweep(kept, [1, 2, 3], model, score)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert score.asked == [1, 2, 3]
    load(kept, 2, model)
    assert values(model.layers[0].variables)[1].tolist() == [2.0]


def test_a_network_written_anew_is_scored_anew(kept):
    score, model = Score(), dense()
    sweep(kept, [1, 2, 3], model, score)
    model.layers[0].bias.assign([7])
    Checkpoints(kept, "one", EACH).save(2, False, model.variables)
    assert sweep(kept, [1, 2, 3], model, score).value[2] == 7 / 3
    assert score.asked == [1, 2, 3, 7]


def test_a_signal_cuts_a_sweep_and_the_next_goes_on(kept):
    score = Score()

    def killed(model):
        os.kill(os.getpid(), signal.SIGTERM)
        return score(model)

    for epoch in (2, 3):
        with pytest.raises(Unfinished, match=f"SIGTERM in the sweep before epoch {epoch}"):
            sweep(kept, [1, 2, 3], dense(), killed)
    table = sweep(kept, [1, 2, 3], dense(), score)
    assert score.asked == [1, 2, 3]
    for path in (kept / "checkpoints").glob("*.json"):
        path.unlink()
    pd.testing.assert_frame_equal(sweep(kept, [1, 2, 3], dense(), Score()), table, check_exact=True)


def test_a_sweep_without_time_says_so_before_it_begins(kept):
    score = Score()
    with pytest.raises(Unfinished, match="its limit of -1 s in the sweep before epoch 1"):
        sweep(kept, [1, 2, 3], dense(), score, deadline_s=-1)
    assert score.asked == []
    assert not list(kept.glob("lock-*"))


def test_a_sweep_beside_another_process_is_refused(kept):
    with Lock(kept), pytest.raises(UserError, match="no other process"):
        sweep(kept, [1], dense(), Score())


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_a_damaged_network_is_named(kept, damage):
    path = network(kept, 2)
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[content.index(np.float32(2).tobytes(), 300)] ^= 1
        length = {"flipped": len(content), "cut": len(content) // 2, "empty": 0}[damage]
        path.write_bytes(content[:length])
    score = Score()
    with pytest.raises(UserError, match="damaged") as caught:
        sweep(kept, [1, 2, 3], dense(), score)
    assert caught.value.where == str(path)
    assert "\n" not in str(caught.value)
    assert score.asked == [1]


def test_damaged_scores_are_made_again(kept):
    score = Score()
    table = sweep(kept, [1, 2, 3], dense(), score)
    for epoch, text in ((1, ""), (2, '{"value": [0.1')):
        network(kept, epoch).with_suffix(".json").write_text(text)
    pd.testing.assert_frame_equal(sweep(kept, [1, 2, 3], dense(), score), table, check_exact=True)
    assert score.asked == [1, 2, 3, 1, 2]


def test_another_network_is_refused(kept):
    with pytest.raises(UserError, match="other shapes of the variables"):
        load(kept, 1, dense(3))


def test_a_training_knows_its_own_networks(kept):
    own, other = Checkpoints(kept, "one", EACH), Checkpoints(kept, "other", EACH)
    own.check(3, True)
    with pytest.raises(UserError, match=r"a network of this training .* found another's"):
        other.check(1, False)
    with pytest.raises(UserError, match="did not keep it") as caught:
        own.check(4, False)
    assert caught.value.where == str(network(kept, 4))
    own.clear()
    own.check(0, False)
    assert list(kept.iterdir()) == []


@dataclass
class Study:
    """A dataset of 80 realizations, kappa zero in some, and runs on it in folders."""

    folder: Path
    maps: ShardSet
    scales: Normalization
    numbers: np.ndarray
    test: np.ndarray

    def __call__(self, folder, **training):
        """Train in `folder`; the network that is left and the table of the sweep."""
        settings = {"epochs": EPOCHS, "batch": 8, "learning_rate": 0.003, "stop_patience": None}
        run = ReconstructionRun(
            dataset="toy",
            inputs=["q_obs"],
            targets=["kappa", "tau"],
            training=Training(**(settings | training)),
        )
        train_run(
            run,
            shards=self.maps.paths,
            split=self.folder / "split.csv",
            normalization=self.folder / "normalization.json",
            network=folder / "network.keras",
            history=folder / "history.csv",
            sweep=folder / "sweep.csv",
            state=folder / "state",
            name="run",
            seed=1,
            threads=1,
            deadline_s=None,
        )
        return load_network(folder), read_table(folder / "sweep.csv")

    def predict(self, folder, epoch):
        """Predictions of kappa and tau by an epoch's network, by its file alone, in their units."""
        model = toy()
        with np.load(network(folder / "state", epoch)) as entries:
            for i, variable in enumerate(model.variables):
                variable.assign(entries[f"variable-{i}"])
        x = self.scales.apply("q_obs", self.maps.read("q_obs", self.numbers))[..., None]
        return {
            field: self.scales.undo(field, np.asarray(y)[..., 0])
            for field, y in model(x, training=False).items()
        }


def toy(*_):
    """Of the fields in one pixel of q; compiled in a moment."""
    image = keras.Input((32, 32, 1))
    start = keras.initializers.GlorotUniform
    x = keras.layers.Conv2D(3, 3, padding="same", activation="elu", kernel_initializer=start(1))(
        image
    )
    x = keras.layers.BatchNormalization()(keras.layers.Dropout(0.2, seed=2)(x))
    return keras.Model(
        image,
        {
            name: keras.layers.Conv2D(1, 1, kernel_initializer=start(seed), name=name)(x)
            for seed, name in ((3, "kappa"), (4, "tau"))
        },
        name="toy",
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    fields = {name: 5 + rng.standard_normal((80, 32, 32)) for name in ("q_obs", "kappa", "tau")}
    fields["kappa"] = 3 * fields["q_obs"] + fields["kappa"]
    fields["tau"] = 1e-3 * (np.roll(fields["q_obs"], 1, axis=1) ** 2 + 9 * fields["tau"])
    fields["kappa"][::7] = 0
    parts = assign(range(80), Split(train=0.6, validation=0.2, test=0.2), 1, "toy")
    test = members(parts, "test")
    path = folder / "0.h5"
    write_shard(
        path,
        fields,
        realizations=range(80),
        size_deg=5.0,
        units=dict.fromkeys(fields, ""),
        provenance={"settings": {"effects": {"taper_deg": 1.0}}},
    )
    scales = Normalization.fit(ShardSet([path]), fields, members(parts, "train"))
    with h5py.File(path, "a") as file:
        for name in fields:
            file[name][test] = np.full((len(test), 32, 32), np.nan)
    write_table(folder / "split.csv", parts)
    (folder / "normalization.json").write_text(scales.to_json())
    numbers = members(parts, "validation")
    assert 0 < np.count_nonzero(numbers % 7 == 0) < len(numbers)
    return Study(folder, ShardSet([path]), scales, numbers, test)


def simplify(patch):
    """A small network, and the threads that the tests' process has."""
    prepare = runtime.prepare
    patch.setattr(registry, "build", toy)
    patch.setattr(runtime, "prepare", lambda seed, _, settings: prepare(seed, settings=settings))


@pytest.fixture(autouse=True)
def simple(monkeypatch):
    simplify(monkeypatch)


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    """A finished run that kept its networks, and scored them."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        simplify(patch)
        study(folder, select=Selection(by="residual"))
    return folder


@pytest.fixture
def finished(trained, tmp_path, monkeypatch):
    """A copy of it, in which a step of training would fail."""
    monkeypatch.setattr(loop._Loop, "_step", None)
    return shutil.copytree(trained, tmp_path / "run")


def same_as(study, found, folder, epoch):
    """Whether a network predicts, bit for bit, what the one kept after an epoch does."""
    maps = predict(found, {"q_obs": study.maps.read("q_obs", study.numbers)})
    return all(np.array_equal(maps[k], y) for k, y in study.predict(folder, epoch).items())


def direct(study, prediction, field, by, low, high):
    """A statistic by its definition."""
    truth = study.maps.read(field, study.numbers)
    if by == "pixel_correlation":
        return np.corrcoef(prediction.ravel(), truth.ravel())[0, 1]
    full = truth.any(axis=(1, 2))
    prediction, truth, grid = prediction[full], truth[full], study.maps.grid
    bins = default_bins(grid)
    inside = (low <= bins.centres(grid)) & (bins.centres(grid) <= high)
    assert inside.any()
    pp, tt, pt = (c.sum(axis=0)[inside] for c in auto_and_cross(prediction, truth, grid, bins))
    if by == "correlation":
        return np.mean(pt / np.sqrt(pp * tt))
    if by == "transfer":
        return np.mean(np.abs(pt / tt - 1))
    difference = prediction - truth
    left = cross_spectra(difference, difference, grid, bins).sum(axis=0)[inside]
    return np.mean(left / tt)


def test_the_test_part_is_unreadable(study):
    assert np.isnan(study.maps.read("kappa", study.test)).all()
    assert np.isfinite(study.maps.read("kappa", study.numbers)).all()


@pytest.mark.parametrize("fields", [(), ("tau",)])
@pytest.mark.parametrize("ell", [(0.0, 1e5), (300.0, 700.0)])
@pytest.mark.parametrize("by", METRICS)
def test_a_sweep_picks_what_a_direct_computation_picks(study, finished, by, ell, fields):
    """Only by another `select` on a run that was trained: no step is taken."""
    found, table = study(finished, select=Selection(by=by, ell=ell, fields=fields))
    fields = fields or ("kappa", "tau")
    wanted = []
    for epoch in range(1, EPOCHS + 1):
        maps = study.predict(finished, epoch)
        one = [direct(study, maps[field], field, by, *ell) for field in fields]
        rows = table[table.epoch == epoch]
        assert rows.field.tolist() == [*fields, "all"]
        np.testing.assert_allclose(rows.value, [*one, np.mean(one)], rtol=1e-4)
        wanted.append(np.mean(one))
    best = np.argmax if by in ("pixel_correlation", "correlation") else np.argmin
    picked = 1 + int(best(wanted))
    assert table.epoch[table.picked == 1].unique().tolist() == [picked]
    assert set(table.statistic) == {by}
    assert same_as(study, found, finished, picked)
    metrics = found.card.metrics
    assert (metrics["epoch"], metrics["picked_by"]) == (picked, by)
    assert metrics["picked_value"] == pytest.approx(wanted[picked - 1], rel=1e-4)
    history = read_table(finished / "history.csv")
    assert metrics["val_loss"] == history.val_loss[picked - 1]


def test_by_loss_and_last_need_no_sweep(study, finished):
    history = read_table(finished / "history.csv")
    shutil.rmtree(finished / "state" / "checkpoints")
    for by, name, picked in (
        ("loss", "val_loss", int(history.val_loss.argmin()) + 1),
        ("last", "epoch", EPOCHS),
    ):
        found, table = study(finished, select=Selection(by=by))
        np.testing.assert_array_equal(table.value, history[name])
        assert table.picked.tolist() == [int(epoch == picked) for epoch in history.epoch]
        assert (table.statistic + table.field).unique().tolist() == [f"{name}all"]
        assert found.card.metrics["epoch"] == picked
        assert found.card.metrics["picked_by"] == name


def test_fewer_networks_may_be_compared(study, finished):
    found, table = study(finished, select=Selection(by="transfer", every_epochs=3))
    assert table.epoch.unique().tolist() == [3, 5]
    assert same_as(study, found, finished, table.epoch[table.picked == 1].iloc[0])


def test_networks_that_were_not_kept_cannot_be_compared(study, finished):
    network(finished / "state", 2).unlink()
    with pytest.raises(UserError, match="did not keep it") as caught:
        study(finished, select=Selection(by="transfer"))
    assert "`select: {by: loss}`" in str(caught.value)
    assert "\n" not in str(caught.value)
    study(finished, select=Selection(by="transfer", every_epochs=3))


def test_a_range_without_a_band_is_told_before_the_training(study, tmp_path):
    with pytest.raises(UserError, match=r"select\.ell: expected a band's centre \(\d+, .* 5 to 6"):
        study(tmp_path, select=Selection(by="correlation", ell=(5, 6)))
    assert not (tmp_path / "state").exists()


def test_a_sweep_may_pick_another_epoch_than_the_loss(study, tmp_path, monkeypatch):
    """Losses of our own, which grow while the network learns; a step of it is a large one."""
    grown = iter(range(1, 99))
    monkeypatch.setattr(
        Supervised, "evaluate", lambda self, x, y: dict.fromkeys(y, float(next(grown)))
    )
    found, table = study(tmp_path, select=Selection(by="pixel_correlation"), epochs=3)
    assert read_table(tmp_path / "history.csv").val_loss.argmin() == 0
    picked = table.epoch[table.picked == 1].iloc[0]
    assert picked > 1
    assert same_as(study, found, tmp_path, picked)


@pytest.fixture
def stop_after(monkeypatch):
    """A function that has each training and sweep from then on stopped after so many steps."""

    def set_steps(steps):
        def reason(self):
            return "a test" if len(self._steps) >= steps else None

        monkeypatch.setattr(Interruption, "reason", property(reason))

    return set_steps


def test_a_run_that_was_cut_at_any_point_is_as_one_that_was_not(
    study, trained, tmp_path, stop_after, monkeypatch
):
    """In training; after a network was kept, its state not; and in the sweep, twice."""
    select = Selection(by="residual")
    stop_after(8)
    with pytest.raises(Unfinished, match="in epoch 1"):
        study(tmp_path, select=select)
    stop_after(99)
    save = StateFolder.save

    def killed(self, state):
        if state.epoch == 3 and state.step == 0:
            raise KeyboardInterrupt
        return save(self, state)

    monkeypatch.setattr(StateFolder, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, select=select)
    assert network(tmp_path / "state", 3).is_file()
    monkeypatch.setattr(StateFolder, "save", save)
    monkeypatch.setattr(checkpoints, "Interruption", Hurried)
    for epoch in (2, 3):
        with pytest.raises(Unfinished, match=f"a test in the sweep before epoch {epoch}"):
            study(tmp_path, select=select)
        assert not (tmp_path / "network.keras").exists()
    monkeypatch.setattr(checkpoints, "Interruption", Interruption)
    found, table = study(tmp_path, select=select)
    for path in (trained / "state" / "checkpoints").iterdir():
        assert (tmp_path / "state" / "checkpoints" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "sweep.csv").read_bytes() == (trained / "sweep.csv").read_bytes()
    assert same_as(study, found, trained, table.epoch[table.picked == 1].iloc[0])


class Hurried(Interruption):
    """Has time for one step."""

    @property
    def reason(self):
        return "a test" if self._steps else None


def test_a_new_training_forgets_the_old_ones_networks(study, finished, monkeypatch):
    monkeypatch.undo()
    simplify(monkeypatch)
    study(finished, select=EACH, learning_rate=0.01, epochs=1)
    names = {path.name for path in (finished / "state" / "checkpoints").iterdir()}
    assert names == {"epoch-00001.npz", "epoch-00001.json"}
    scores = json.loads((finished / "state" / "checkpoints" / "epoch-00001.json").read_text())
    assert set(scores["split"]) == {"validation"}


def test_more_epochs_are_compared_with_those_before(study, finished, monkeypatch):
    monkeypatch.undo()
    simplify(monkeypatch)
    before = network(finished / "state", 2).read_bytes()
    _, table = study(finished, select=EACH, epochs=EPOCHS + 1)
    assert table.epoch.unique().tolist() == list(range(1, EPOCHS + 2))
    assert network(finished / "state", 2).read_bytes() == before
