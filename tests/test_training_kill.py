"""A training killed at any moment and resumed equals, bit for bit, one that was not.

Run as a program, this file is a small server: it imports TensorFlow once (seconds) and forks a
child for each training that is asked of it; a child initializes TensorFlow for itself.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

# Moments to die at: the number counts occasions in one life. All steps are saved but where lost
# ones are wanted.
CHAIN = [
    {"at": "half-written", "count": 3},
    {"at": "step", "count": 2, "save_minutes": 60},
    {"at": "before-rename", "count": 2},
    {"at": "validation", "count": 2},
    {"at": "before-removal", "count": 3},
    {"at": "seconds", "count": 0},
    {"at": "seconds", "count": 1},
]


def moments(seed):
    """Ten random lives of a longer training; half of them or more end while a state is saved."""
    rng = random.Random(seed)
    kinds = ["step", "seconds", "validation", "half-written", "before-rename"] * 2
    rng.shuffle(kinds)
    found = []
    for number, at in enumerate(kinds):
        die = {"at": at, "count": rng.randint(1, 9)}
        if at == "seconds":
            die["count"] = number
        elif at in ("step", "validation"):
            die["save_minutes"] = rng.choice([1e-9, 60])
        elif at == "half-written":
            die["part"] = rng.random()
        found.append(die)
    return found


def _train(task):
    """Train a small network; leave history, weights and optimizer in `task["out"]`."""
    import keras

    from skyweave.config import Network, Training
    from skyweave.config.runs import Adversarial as AdversarialSettings
    from skyweave.data.feed import BatchFeed
    from skyweave.data.normalization import Normalization
    from skyweave.data.shards import ShardSet, write_shard
    from skyweave.networks.registry import build
    from skyweave.training.adversarial import Adversarial
    from skyweave.training.loop import train
    from skyweave.training.method import learner
    from skyweave.training.runtime import prepare
    from skyweave.training.state import values
    from skyweave.training.supervised import Supervised

    shard = Path(task["state"] + ".h5")
    rng = np.random.default_rng(0)
    maps = {name: rng.standard_normal((28, 16, 16)) for name in ("q_obs", "u_obs", "kappa")}
    write_shard(
        shard,
        maps,
        realizations=range(28),
        size_deg=5.0,
        units=dict.fromkeys(maps, ""),
        provenance={"seed": 0},
    )
    shards = ShardSet([shard])
    normalization = Normalization.fit(shards, shards.fields, range(20))
    prepare(1)
    feeds = [
        BatchFeed(shards, ["q_obs", "u_obs"], ["kappa"], normalization, part, 4, 1, ("run",))
        for part in (range(20), range(20, 28))
    ]
    die = task["die"] or {}
    if die:
        _arm(die["at"], die["count"], die.get("part", 0.5))
    settings = Training(batch=4, save_minutes=die.get("save_minutes", 1e-9), **task["settings"])

    def convolutions(channels, *outputs):
        """With what has a state of its own, but traced in a moment."""
        image = keras.Input((16, 16, channels))
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
        x = keras.layers.BatchNormalization()(keras.layers.Dropout(0.3, seed=3)(x))
        return keras.Model(image, {name: keras.layers.Conv2D(1, 1)(x) for name in outputs})

    if task["network"] == "resunet_cmb":
        model = build(Network(width=0.0625), 16, feeds[0].inputs, feeds[0].targets, 1)
        method = Supervised(learner(model, settings))
    elif task["network"] == "supervised":
        method = Supervised(learner(convolutions(2, "kappa"), settings))
    else:
        judge = convolutions(3, "logits")
        judge = keras.Model(judge.input, judge.output["logits"])
        method = Adversarial(
            learner(convolutions(2, "kappa"), settings),
            learner(judge, settings),
            AdversarialSettings(**task["adversarial"]),
            seed=1,
            name="run",
        )
    history = train(
        method,
        *feeds,
        settings,
        state_folder=task["state"],
        identity={"run": "run"},
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
    arrays = {
        f"{name}-{i}": value
        for name, variables in method.groups.items()
        for i, value in enumerate(values(variables))
    }
    arrays |= {name: history[name].to_numpy() for name in history if name != "seconds"}
    np.savez(task["out"], **arrays)


def _arm(at, count, part):
    """Have this process killed by itself at the `count`-th occasion of `at`.

    `part` is how much of a state is written by then where one is half-written.
    """
    from skyweave.training.interruption import Interruption
    from skyweave.training.loop import _Loop

    left = [count]

    def before(owner, name, when=lambda *_: True):
        whole = getattr(owner, name)

        def wrapped(*arguments, **keywords):
            if when(*arguments):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return whole(*arguments, **keywords)

        setattr(owner, name, wrapped)

    def is_state(path, *_):
        return path.name.startswith("state-")

    if at == "step":
        before(Interruption, "took")
    elif at == "validation":
        before(_Loop, "_check", lambda *arguments: arguments[3] == "validation")
    elif at == "half-written":
        savez = np.savez

        def half(path, **entries):
            savez(path, **entries)
            left[0] -= 1
            if left[0] == 0:
                os.truncate(path, int(path.stat().st_size * part))
                os.kill(os.getpid(), signal.SIGKILL)

        np.savez = half
    elif at == "before-rename":
        before(Path, "replace", lambda path, _: path.name.startswith(".state-"))
    elif at == "before-removal":
        before(Path, "unlink", is_state)


def serve():
    """A task a line in; the exit status or the signal of its child a line out."""
    import skyweave.networks.registry
    import skyweave.training.loop  # noqa: F401

    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _train(task)
                status = 0
            finally:
                os._exit(status)
        if task["die"] and task["die"]["at"] == "seconds":
            # At a random moment after the training has gone on.
            known = set(Path(task["state"]).glob("state-*"))
            limit = time.monotonic() + 120
            while set(Path(task["state"]).glob("state-*")) == known and time.monotonic() < limit:
                time.sleep(0.005)
            time.sleep(random.Random(task["die"]["count"]).uniform(0, 0.15))
            os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    errors = tmp_path_factory.mktemp("server") / "stderr"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        ) as process,
    ):

        def ask(**task):
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, errors.read_text()
            return int(answer), errors.read_text()

        yield ask
        process.stdin.close()


def chain(server, folder, lives, **task):
    """Arrays that a training leaves that was killed at the end of each of `lives`.

    They equal those of one that nothing disturbed. A life that follows a kill finds the dead
    process's lock, and takes it over at once.
    """
    paths = [{"state": str(folder / name), "out": str(folder / f"{name}.npz")} for name in "ab"]
    status, said = server(**paths[0], **task, die=None)
    assert status == 0, said
    before = said.count("going on from")
    for die in lives:
        status, said = server(**paths[1], **task, die=die)
        assert status == -signal.SIGKILL, (die, said)
        assert not Path(paths[1]["out"]).exists()
        assert len(list(Path(paths[1]["state"]).glob("lock-*"))) == 1
    status, said = server(**paths[1], **task, die=None)
    assert status == 0, said
    assert not list(Path(paths[1]["state"]).glob("lock-*"))
    with np.load(paths[0]["out"]) as whole, np.load(paths[1]["out"]) as resumed:
        assert set(whole) == set(resumed)
        for name in whole:
            np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)
        return dict(whole), said.count("going on from") - before


@pytest.mark.parametrize(
    "network", ["supervised", pytest.param("resunet_cmb", marks=pytest.mark.slow)]
)
def test_killed_and_resumed_equals_undisturbed(server, tmp_path, network):
    settings = {"epochs": 6, "learning_rate": 0.01, "plateau_patience": 1}
    whole, resumed = chain(server, tmp_path, CHAIN, network=network, settings=settings)
    assert len(whole["val_loss"]) == 6
    assert resumed == len(CHAIN)


@pytest.mark.slow
def test_random_kills_leave_no_trace(server, tmp_path):
    """With updates of several steps, warm-up, clipping, plateaus, and an early stop at the end."""
    settings = {
        "epochs": 40,
        "learning_rate": 0.01,
        "plateau_patience": 1,
        "stop_patience": 4,
        "accumulate": 2,
        "clip_norm": 0.5,
        "warmup_updates": 10,
    }
    lives = moments(seed=20)
    whole, resumed = chain(server, tmp_path, lives, network="supervised", settings=settings)
    assert 10 < len(whole["val_loss"]) < 40, "stopped early, not at once"
    assert len(set(whole["learning_rate"])) > 4
    assert resumed >= 8, "a first life or two may have saved nothing"


def test_random_kills_leave_no_trace_on_two_networks(server, tmp_path):
    """That train against each other through all phases, told labels that are drawn."""
    settings = {"epochs": 14, "learning_rate": 0.01, "clip_norm": 0.5, "stop_patience": 14}
    adversarial = {
        "fidelity": 1,
        "warmup_generator": 3,
        "warmup_discriminator": 2,
        "generator_steps": 3,
        "discriminator_steps": 2,
        "real_labels": [0.7, 1],
        "label_swap": 0.2,
    }
    whole, resumed = chain(
        server,
        tmp_path,
        moments(seed=21),
        network="adversarial",
        settings=settings,
        adversarial=adversarial,
    )
    assert {"generator-0", "discriminator-0", "loss_discriminator", "val_loss_kappa"} <= set(whole)
    assert len(whole["val_loss"]) == 14
    assert resumed >= 8, "a first life or two may have saved nothing"


if __name__ == "__main__":
    serve()
