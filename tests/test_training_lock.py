"""One process a folder: real processes, killed ones, other hosts, and those that race."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from skyweave.errors import UserError
from skyweave.training import lock
from skyweave.training.lock import Lock

HOLD = """
import sys, time
from skyweave.training.lock import Lock
with Lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def held(folder):
    """Another process that holds `folder` until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def leave(folder, age_s, **changes):
    """The file of a holder that is not there, with its last sign of life `age_s` ago."""
    folder.mkdir(exist_ok=True)
    path = folder / "lock-000003"
    path.write_text(json.dumps(lock._self() | {"key": "left"} | changes))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_a_second_process_is_refused_and_told_who_holds(tmp_path):
    folder = tmp_path / "state"
    with held(folder) as process:
        who = f"{folder}: expected no other process .* process {process.pid} on "
        with pytest.raises(UserError, match=who + socket.gethostname()) as caught, Lock(folder):
            pass
        assert "\n" not in str(caught.value)
        process.stdin.close()
        assert process.wait() == 0
    assert list(folder.iterdir()) == []
    with Lock(folder):
        assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_holder_is_followed_at_once(tmp_path, reaped):
    """Also one that nobody has waited for: a zombie still has a number."""
    with held(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        if reaped:
            process.wait()
        else:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with Lock(tmp_path) as mine:
            assert list(tmp_path.iterdir()) == [mine.path]
            assert mine.path.name == "lock-000001"


def test_a_paused_holder_on_this_host_keeps_its_lock(tmp_path):
    """It would go on later."""
    with held(tmp_path) as process:
        os.kill(process.pid, signal.SIGSTOP)
        os.utime(next(tmp_path.iterdir()), (0, 0))
        with pytest.raises(UserError, match=str(process.pid)), Lock(tmp_path):
            pass
        os.kill(process.pid, signal.SIGCONT)
        process.stdin.close()


def test_a_number_given_to_another_process_does_not_hold(tmp_path):
    leave(tmp_path, 0, start="1")
    with Lock(tmp_path):
        pass


@pytest.mark.parametrize("space", ["another boot pid:[1]", None])
def test_a_holder_elsewhere_is_judged_by_its_signs_of_life(tmp_path, space):
    leave(tmp_path, 250, host="node7", pid=1, space=space)
    with pytest.raises(UserError, match=r"process 1 on node7, .* 25. s ago"), Lock(tmp_path):
        pass
    leave(tmp_path, 350, host="node7", pid=1, space=space)
    with Lock(tmp_path) as mine:
        assert list(tmp_path.iterdir()) == [mine.path]


def test_a_half_written_lock_is_judged_by_its_age(tmp_path):
    path = tmp_path / "lock-000000"
    path.touch()
    with pytest.raises(UserError, match="a process, which holds"), Lock(tmp_path):
        pass
    os.utime(path, (0, 0))
    with Lock(tmp_path):
        pass


def test_a_holder_gives_signs_of_life_and_notices_its_loss(tmp_path):
    with Lock(tmp_path, beat_s=0.01) as mine:
        os.utime(mine.path, (0, 0))
        limit = time.monotonic() + 10
        while mine.path.stat().st_mtime < 1 and time.monotonic() < limit:
            time.sleep(0.01)
        assert time.time() - mine.path.stat().st_mtime < 60
        mine.check()
        mine.path.unlink()
        other = leave(tmp_path, 0, host="node7", space="another boot")
        with pytest.raises(UserError, match="node7"):
            mine.check()
    assert list(tmp_path.iterdir()) == [other]


def race(folders, gate, winners, wrong):
    """Hold each folder if it can be had, some times, and see whether anybody else does."""
    for folder in folders:
        gate.wait(60)
        for _ in range(5):
            try:
                with Lock(folder):
                    with winners.get_lock():
                        winners.value += 1
                    inside = folder / "inside"
                    try:
                        inside.touch(exist_ok=False)
                    except FileExistsError:
                        wrong.value += 1
                    time.sleep(0.002)
                    inside.unlink(missing_ok=True)
            except UserError:
                continue


def test_of_many_that_race_one_holds_at_a_time(tmp_path):
    """Half of the folders with a stale lock in them."""
    folders = [tmp_path / str(turn) for turn in range(30)]
    for folder in folders[::2]:
        leave(folder, 1000, host="node7", space="another boot")
    context = multiprocessing.get_context("spawn")
    winners, wrong, gate = context.Value("i", 0), context.Value("i", 0), context.Barrier(4)
    arguments = (folders, gate, winners, wrong)
    racers = [context.Process(target=race, args=arguments) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * 4
    assert [path for folder in folders for path in folder.iterdir()] == []
    assert winners.value >= len(folders)
    assert wrong.value == 0


def test_two_that_judged_the_same_stale_lock_do_not_both_hold(tmp_path, monkeypatch):
    """Both list and judge before either goes on."""
    leave(tmp_path, 1000, host="node7", space="another boot")
    judged, create = threading.Barrier(2), Lock._create
    found = []

    def together(self, path):
        if path.name == "lock-000004":
            judged.wait(10)
        return create(self, path)

    def attempt():
        try:
            with Lock(tmp_path):
                found.append("held")
                ended.wait(10)
        except UserError as error:
            found.append(str(error))
            ended.set()

    monkeypatch.setattr(Lock, "_create", together)
    ended = threading.Event()
    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(word == "held" for word in found) == [False, True]


def test_who_follows_a_lock_that_was_followed_since_gives_way(tmp_path, monkeypatch):
    """A process that listed long ago makes a file below the present holder's."""
    present = leave(tmp_path, 0, host="node7", space="another boot")
    files, slow = Lock._files, [[]]
    monkeypatch.setattr(Lock, "_files", lambda self: slow.pop() if slow else files(self))
    with pytest.raises(UserError, match="node7"), Lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [present]
