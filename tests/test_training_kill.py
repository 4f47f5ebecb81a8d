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


def _train(task):
    """Train a small ResUNet-CMB; leave history, weights and optimizer in `task["out"]`."""
    from skyweave.config import Network, Training
    from skyweave.data.feed import BatchFeed
    from skyweave.data.normalization import Normalization
    from skyweave.data.shards import ShardSet, write_shard
    from skyweave.networks.registry import build
    from skyweave.training import supervised
    from skyweave.training.runtime import prepare
    from skyweave.training.state import values

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
    optimizers = []
    adam = supervised.keras.optimizers.Adam
    supervised.keras.optimizers.Adam = lambda rate: optimizers.append(adam(rate)) or optimizers[0]
    die = task["die"] or {}
    if die:
        _arm(die["at"], die["count"])
    model = build(Network(width=0.0625), 16, feeds[0].inputs, feeds[0].targets, 1)
    history = supervised.train(
        model,
        *feeds,
        Training(
            epochs=6,
            batch=4,
            learning_rate=0.01,
            plateau_patience=1,
            save_minutes=die.get("save_minutes", 1e-9),
        ),
        state_folder=task["state"],
        identity={"run": "run"},
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
    arrays = {f"model-{i}": value for i, value in enumerate(values(model.variables))}
    arrays |= {f"adam-{i}": value for i, value in enumerate(values(optimizers[0].variables))}
    arrays |= {name: history[name].to_numpy() for name in history if name != "seconds"}
    np.savez(task["out"], **arrays)


def _arm(at, count):
    """Have this process killed by itself at the `count`-th occasion of `at`."""
    from skyweave.training.interruption import Interruption
    from skyweave.training.supervised import _Loop

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
        before(_Loop, "_check", lambda _, losses, where: where == "validation")
    elif at == "half-written":
        savez = np.savez

        def half(path, **entries):
            savez(path, **entries)
            left[0] -= 1
            if left[0] == 0:
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        np.savez = half
    elif at == "before-rename":
        before(Path, "replace", lambda path, _: path.name.startswith(".state-"))
    elif at == "before-removal":
        before(Path, "unlink", is_state)


def serve():
    """A task a line in; the exit status or the signal of its child a line out."""
    import skyweave.networks.registry
    import skyweave.training.supervised  # noqa: F401

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


def test_killed_and_resumed_equals_undisturbed(server, tmp_path):
    status, said = server(state=str(tmp_path / "whole"), out=str(tmp_path / "whole.npz"), die=None)
    assert status == 0, said
    killed = {"state": str(tmp_path / "killed"), "out": str(tmp_path / "killed.npz")}
    for die in CHAIN:
        status, said = server(**killed, die=die)
        assert status == -signal.SIGKILL, said
        assert not Path(killed["out"]).exists()
    status, said = server(**killed, die=None)
    assert status == 0, said
    assert said.count("going on from") == len(CHAIN), said
    with np.load(tmp_path / "whole.npz") as whole, np.load(killed["out"]) as resumed:
        assert set(whole) == set(resumed)
        assert len(whole["val_loss"]) == 6
        for name in whole:
            np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)


if __name__ == "__main__":
    serve()
