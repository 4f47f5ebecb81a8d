"""The workflow on a real Slurm, of one node: what is submitted, what comes out, what it survives.

`make test-slurm` starts the Slurm (envs/slurm); where it cannot be had, these tests are skipped.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
QUICK = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))

# The executor, but asking for its jobs every 2 s: its own pauses grow by 10 s each.
SNAKEMAKE = """
import sys
from snakemake_executor_plugin_slurm import Executor
Executor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, value: None)
from snakemake.cli import main
sys.exit(main())
"""
# What a user would write into the profile for this cluster. The rules' memory and threads for
# training are more than small machines have.
CLUSTER = {
    "slurm-no-account": True,
    "slurm-status-command": "squeue",
    "slurm-init-seconds-before-status-checks": 1,
    "default-resources": {"slurm_partition": "cpu"},
    "set-resources": {
        "train": {"slurm_partition": "gpu", "mem_mb": 3000},
        "predict": {"mem_mb": 3000},
    },
    "set-threads": {"train": 1, "predict": 1},
}
NETWORK = "results/runs/resunet/network.keras"
CHECK = "results/datasets/cmb/verdicts.json"
LOG = "results/logs/train/resunet.log"
#: Where envs/slurm has the daemons keep theirs.
STATE = Path("/var/lib/skyweave-slurm")


def call(*command: str | Path) -> str:
    """Output of a program, which gets a minute."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def may_be_root() -> bool:
    return os.getuid() == 0 or subprocess.run(["sudo", "-n", "true"], check=False).returncode == 0


def as_root(*command: str | Path) -> str:
    return call(*([] if os.getuid() == 0 else ["sudo", "-n"]), *command)


def wait(what: str, condition: Callable[[], object], seconds: float = 60) -> None:
    """Until the condition holds; it must within some seconds."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def minutes(text: str) -> int:
    """Of a time as Slurm writes it, days-hours:minutes:seconds."""
    days, _, rest = text.rpartition("-")
    hours, mins, _ = (int(part) for part in rest.split(":"))
    return (24 * int(days or 0) + hours) * 60 + mins


def megabytes(tres: str) -> int:
    number, unit = re.search(r"mem=(\d+)([MG])", tres).groups()
    return int(number) * {"M": 1, "G": 1024}[unit]


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in `folder`, without Slurm."""
    command = [Path(sys.executable).parent / "snakemake", "--snakefile", ROOT / "Snakefile"]
    return subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=400, check=False
    )


class Run:
    """A Snakemake under way with the profile, and its jobs as Slurm tells of them."""

    def __init__(
        self, folder: Path, *arguments: str, train: dict[str, object] | None = None
    ) -> None:
        """Start it; `train` are other resources of the training's job."""
        (folder / "profile").mkdir(exist_ok=True)
        profile = yaml.safe_load(PROFILE.read_text(encoding="utf-8")) | deepcopy(CLUSTER)
        profile["set-resources"]["train"] |= train or {}
        (folder / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
        self.folder = folder
        self.out = folder / f"snakemake-{time.monotonic_ns()}.out"
        command = [sys.executable, "-c", SNAKEMAKE, *arguments, "--profile", "profile"]
        command += ["--snakefile", str(ROOT / "Snakefile")]
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.id:
            call("scancel", "--name", self.id)

    @property
    def said(self) -> str:
        return self.out.read_text()

    @property
    def id(self) -> str | None:
        """The name that all jobs have."""
        found = re.search(r"SLURM run ID: (\S+)", self.said)
        return found and found[1]

    def jobs(self, rule: str = "") -> list[dict[str, str]]:
        """Slurm's records of a rule's jobs, oldest first."""
        lines = call("scontrol", "--oneliner", "show", "job").splitlines()
        records = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
        found = [
            record
            for record in records
            if record.get("JobName") == self.id
            and record["Comment"].startswith(f"rule_{rule}_" if rule else "rule_")
        ]
        return sorted(found, key=lambda record: int(record["JobId"]))

    def job(self, rule: str = "train") -> dict[str, str]:
        """Record of the rule's last job."""
        return self.jobs(rule)[-1]

    def wait_for_job(self, rule: str, states: set[str], number: int = 1) -> dict[str, str]:
        """Record of the rule's job of that number once its state is one of these."""

        def reached() -> bool:
            jobs = self.jobs(rule)
            return len(jobs) >= number and jobs[number - 1]["JobState"] in states

        wait(f"{rule}, job {number} in {states}: {self.jobs(rule)}", reached, 90)
        return self.jobs(rule)[number - 1]

    def end(self, seconds: float = 240) -> int:
        """Exit status, waited for."""
        wait("the end of Snakemake", lambda: self.process.poll() is not None, seconds)
        return self.process.returncode


@pytest.fixture(scope="session")
def slurm() -> None:
    """Skips where envs/slurm has started no Slurm."""
    configuration = Path("/etc/slurm/slurm.conf")
    if not configuration.exists() or "envs/slurm" not in configuration.read_text():
        pytest.skip("no Slurm for tests on this machine: envs/slurm installs one")
    command = ["timeout", "30", "sinfo", "--noheader", "--format=%T"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if set(done.stdout.split()) != {"idle"}:
        pytest.skip("the Slurm for tests does not run or is busy: envs/slurm starts it")


def configure(folder: Path) -> None:
    """Write a study of 200 realizations in `folder`; its training saves after each step."""
    cmb = QUICK["datasets"]["cmb"] | {"realizations": 200, "shard_size": 100}
    run = QUICK["runs"]["resunet"]
    run = run | {"training": run["training"] | {"epochs": 4, "save_minutes": 0.001}}
    values = QUICK | {"datasets": {"cmb": cmb}, "runs": {"resunet": run}}
    (folder / "config").mkdir()
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(values))


@pytest.fixture(scope="module")
def studies(slurm, tmp_path_factory) -> tuple[Run, Path]:
    """The study by Slurm, and the folder in which it has run without, at the same time."""
    folder, here = tmp_path_factory.mktemp("submitted"), tmp_path_factory.mktemp("local")
    configure(folder)
    configure(here)
    threads = [f"{rule}={count}" for rule, count in CLUSTER["set-threads"].items()]
    with Run(folder, "all") as run:
        done = snakemake(here, "all", "--cores", "2", "--set-threads", *threads)
        assert done.returncode == 0, done.stdout + done.stderr
        assert run.end() == 0, run.said
        run.records = run.jobs()
    return run, here


@pytest.fixture(scope="module")
def submitted(studies) -> Run:
    return studies[0]


@pytest.fixture(scope="module")
def local(studies) -> Path:
    return studies[1]


def rules() -> Iterator[tuple[str, dict[str, int]]]:
    """What each rule asks for, as far as its text gives numbers, changed as in `CLUSTER`."""
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        parts = re.split(r"^rule (\w+):$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            found = re.findall(r"\b(threads|mem_mb|runtime|gpu)(?:: |=)(\d+)", text)
            asked = {key: int(value) for key, value in found}
            asked |= CLUSTER["set-resources"].get(name, {})
            if name in CLUSTER["set-threads"]:
                asked["threads"] = CLUSTER["set-threads"][name]
            yield name, asked


@pytest.mark.slurm
def test_jobs_are_what_rules_and_profile_ask_for(submitted):
    asked = dict(rules())
    names = [re.match(r"rule_(.+?)_wildcards_", job["Comment"])[1] for job in submitted.records]
    assert sorted(names) == [
        *("calibrate", "check_simulation", "estimate", "estimate", "evaluate", "expect"),
        *("generalize", "predict", "prepare", "simulate", "simulate", "spectra", "train"),
    ]
    for name, job in zip(names, submitted.records, strict=True):
        given = {
            "threads": int(job["NumCPUs"]),
            "mem_mb": megabytes(job["TRES"]),
            "runtime": minutes(job["TimeLimit"]),
            "gpu": int(job.get("TresPerJob", "gres:gpu:0").removeprefix("gres:gpu:")),
            "slurm_partition": job["Partition"],
        }
        # Memory and time that go with the study's size are computed.
        computed = {
            "simulate": {"mem_mb", "runtime"},
            "train": {"mem_mb"},
            "predict": {"mem_mb", "runtime"},
            "evaluate": {"mem_mb", "runtime"},
            "calibrate": {"mem_mb", "runtime"},
            "estimate": {"mem_mb", "runtime"},
            "expect": {"mem_mb"},
            "generalize": {"mem_mb"},
        }.get(name, set()) - set(asked[name])
        expected = {"gpu": 0, "slurm_partition": "cpu"} | asked[name]
        assert given | expected == given, job
        assert set(given) == set(expected) | computed, job
        assert min(given["mem_mb"], given["runtime"]) > 0, job
        assert (job["JobState"], job["Requeue"]) == ("COMPLETED", "1"), job
        assert job["WorkDir"] == str(submitted.folder), job


def at_once(first: dict[str, str], second: dict[str, str]) -> bool:
    """Whether two jobs that have ended ran at the same time."""
    if os.cpu_count() < 2:
        pytest.skip("there is room for one job")
    return first["StartTime"] < second["EndTime"] and second["StartTime"] < first["EndTime"]


@pytest.mark.slurm
def test_cpu_jobs_run_at_once(submitted):
    assert at_once(*(job for job in submitted.records if "rule_simulate" in job["Comment"]))


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """All tables of a study, those that its report shows among them, without times."""
    found = {}
    for path in (folder / "results").rglob("*.csv"):
        table = pd.read_csv(path)
        found[str(path.relative_to(folder))] = table.drop(columns="seconds", errors="ignore")
    return found


def weights(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / NETWORK) as archive:
        return archive.read("model.weights.h5")


@pytest.mark.slurm
def test_results_equal_those_without_slurm(submitted, local):
    ours, theirs = tables(submitted.folder), tables(local)
    assert set(ours) == set(theirs)
    assert {"results/runs/resunet/metrics.csv", "results/datasets/cmb/metrics.csv"} <= set(ours)
    for path, table in theirs.items():
        pd.testing.assert_frame_equal(ours[path], table, check_exact=True, obj=path)
    for path in (local / "results").rglob("verdicts.json"):
        other = submitted.folder / path.relative_to(local)
        assert json.loads(path.read_text()) == json.loads(other.read_text())
    for shard in ("0", "1"):
        path = f"results/datasets/cmb/shards/{shard}.h5"
        with h5py.File(submitted.folder / path) as file, h5py.File(local / path) as other:
            for field in QUICK["datasets"]["cmb"]["fields"]:
                np.testing.assert_array_equal(file[field][:], other[field][:])
    assert weights(submitted.folder) == weights(local)


@pytest.mark.slurm
def test_report_equals_the_one_without_slurm(submitted, local):
    """But for the seconds of the epochs: a column, in the table that can be saved and in a file."""
    pages = []
    for folder in (submitted.folder, local):
        page = (folder / "results" / "report" / "index.html").read_text(encoding="utf-8")
        seconds = pd.read_csv(folder / "results" / "runs" / "resunet" / "history.csv").seconds
        for value in seconds:
            page = page.replace(f"<td>{value:.5g}</td>", "")
        page = re.sub(r"data:text/csv;base64,[^\"]*|\bsha256: [0-9a-f]{64}", "", page)
        pages.append(page.splitlines())
    assert [pair for pair in zip(*pages, strict=True) if pair[0] != pair[1]] == []


def newest(folder: Path) -> str:
    """Name of the last state of the training."""
    return max(
        (path.name for path in folder.glob("results/runs/resunet/state/state-*")), default=""
    )


def wait_for_a_step(folder: Path) -> None:
    """Until the training saves a state."""
    last = newest(folder)
    wait(f"a state after {last!r}", lambda: newest(folder) > last, 120)


def without_training(local: Path, folder: Path) -> None:
    """A copy of the study without the training and what follows, and without the check."""
    shutil.copytree(local, folder, dirs_exist_ok=True)
    for name in ("runs", "report", "logs/train"):
        shutil.rmtree(folder / "results" / name)
    for name in ("metrics.csv", "verdicts.json"):
        (folder / "results" / "datasets" / "cmb" / name).unlink()


@pytest.mark.slurm
def test_keys_of_the_profile_reach_slurm(local, tmp_path):
    """Read from jobs that are held; Ctrl-C then takes them out of the queue."""
    asked = {
        "gpu": ({}, {"TresPerJob": "gres:gpu:1"}),
        "type": ({"gpu_model": "fake"}, {"TresPerJob": "gres:gpu:fake:1"}),
        "gres": ({"gpu": 0, "gres": "gpu:1"}, {"TresPerNode": "gres:gpu:1"}),
        "cpus": ({"cpus_per_gpu": 1}, {"TresPerJob": "gres:gpu:1", "CpusPerTres": "gres:gpu:1"}),
        "none": ({"gpu": 0, "slurm_partition": "cpu"}, {}),
    }
    with ExitStack() as stack:
        runs = {}
        for name, (change, _) in asked.items():
            without_training(local, tmp_path / name)
            train = change | {"slurm_extra": "'--hold'", "runtime": 1441}
            runs[name] = stack.enter_context(Run(tmp_path / name, NETWORK, train=train))
        for name, (change, expected) in asked.items():
            job = runs[name].wait_for_job("train", {"PENDING"})
            tres = ("TresPerJob", "TresPerNode", "CpusPerTres")
            assert {key: job[key] for key in tres if key in job} == expected
            assert job["Partition"] == change.get("slurm_partition", "gpu")
            assert minutes(job["TimeLimit"]) == 1441
        for run in runs.values():
            run.process.send_signal(signal.SIGINT)
        for run in runs.values():
            assert run.end() != 0
            assert run.job()["JobState"] == "CANCELLED"


def process(folder: Path) -> int:
    """Number of the process that trains."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            words = path.read_bytes().decode(errors="replace").split("\0")
            if any(word.startswith(str(folder)) and word.endswith(".train.py") for word in words):
                return int(path.parent.name)
    raise AssertionError("no training runs")


def times(folder: Path) -> dict[str, int]:
    """When each file of the dataset was written."""
    files = (folder / "results" / "datasets").rglob("*.*")
    return {path.name: path.stat().st_mtime_ns for path in files if path.is_file()}


@pytest.fixture(scope="module")
def battered(local, tmp_path_factory) -> SimpleNamespace:
    """A training through all that a cluster does to it, and what was seen on the way.

    Each attempt is struck as soon as it has saved a state, which it does after every step.
    """
    folder = tmp_path_factory.mktemp("battered")
    without_training(local, folder)
    seen, log = SimpleNamespace(folder=folder), folder / LOG

    # Two minutes are what it keeps for the start and for writing the network.
    with Run(folder, NETWORK, CHECK, "--restart-times", "0", train={"runtime": 2}) as run:
        seen.limited = SimpleNamespace(
            status=run.end(), job=run.job(), check=run.job("check_simulation"), log=log.read_text()
        )
        seen.limited.network = (folder / NETWORK).exists()
    seen.times = times(folder)

    def stopped() -> str:
        """What a training that was struck has said."""
        wait("the end of the training", lambda: "the state is saved" in log.read_text())
        return log.read_text()

    with Run(folder, NETWORK, CHECK) as run:
        wait_for_a_step(folder)
        seen.resumed, seen.restarted = log.read_text(), None
        if may_be_root():
            trains, slurmd = process(folder), int((STATE / "slurmd.pid").read_text())
            as_root("kill", str(slurmd))
            wait("the end of slurmd", lambda: not Path(f"/proc/{slurmd}").exists())
            wait_for_a_step(folder)
            call(ROOT / "envs" / "slurm")
            wait_for_a_step(folder)
            seen.restarted = SimpleNamespace(job=run.job(), same=process(folder) == trains)

        call("scontrol", "requeue", run.job()["JobId"])
        seen.requeued = SimpleNamespace(stopped=stopped())
        run.wait_for_job("train", {"RUNNING"})
        wait_for_a_step(folder)
        seen.requeued.jobs, seen.requeued.log = run.jobs(), log.read_text()

        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
        seen.killed = SimpleNamespace(job=run.job(), locked=snakemake(folder, NETWORK, "-c1"))
        # As docs/slurm.md says.
        call("scancel", "--name", run.id)
        stopped()
        run.wait_for_job("train", {"CANCELLED"})
        unlocked = snakemake(folder, "--unlock")
        assert unlocked.returncode == 0, unlocked.stderr

    with Run(folder, NETWORK, CHECK) as run:
        wait_for_a_step(folder)
        seen.killed.log = log.read_text()
        call("scancel", run.job()["JobId"])
        seen.cancelled = SimpleNamespace(stopped=stopped())
        seen.cancelled.job = run.wait_for_job("train", {"CANCELLED"})

        run.wait_for_job("train", {"RUNNING"}, number=2)
        wait_for_a_step(folder)
        seen.cancelled.log = log.read_text()
        # Slurm looks at its limits each half minute: the training is held still until then.
        os.kill(process(folder), signal.SIGSTOP)
        call("scontrol", "update", f"jobid={run.job()['JobId']}", "endtime=now")
        seen.late = SimpleNamespace(stopped=stopped())
        seen.late.job = run.wait_for_job("train", {"TIMEOUT"}, number=2)
        seen.status, seen.jobs, seen.log = run.end(), run.jobs(), log.read_text()
    seen.said = run.said
    return seen


@pytest.mark.slurm
def test_a_gpu_job_and_a_cpu_job_run_at_once(battered):
    assert at_once(battered.limited.job, battered.limited.check)


@pytest.mark.slurm
def test_training_stops_before_its_limit(battered):
    """By itself, without a network; Snakemake, which may not try again, fails; another goes on."""
    seen = battered.limited
    assert seen.status != 0
    assert seen.job["JobState"] == "FAILED"
    assert seen.job["RunTime"] < seen.job["TimeLimit"] == "00:02:00"
    assert "stopped by its limit" in seen.log
    assert not seen.network
    assert "going on from epoch 1, step" in battered.resumed


@pytest.mark.slurm
def test_training_goes_on_while_slurmd_is_restarted(battered):
    if battered.restarted is None:
        pytest.skip("slurmd is stopped and started by root or passwordless sudo")
    assert battered.restarted.same
    job = battered.restarted.job
    assert (job["JobState"], job["Restarts"]) == ("RUNNING", "0")


@pytest.mark.slurm
def test_a_requeued_training_goes_on(battered):
    """As the same job, to Slurm and to Snakemake."""
    seen = battered.requeued
    assert "stopped by SIGTERM" in seen.stopped
    assert [(job["JobState"], job["Restarts"]) for job in seen.jobs] == [("RUNNING", "1")]
    assert "going on from" in seen.log


@pytest.mark.slurm
def test_a_killed_snakemake_is_called_again(battered):
    """Its job had gone on; after the scancel and --unlock of the docs only the training is left."""
    seen = battered.killed
    assert seen.job["JobState"] == "RUNNING"
    assert seen.locked.returncode != 0
    assert "--unlock" in seen.locked.stdout + seen.locked.stderr
    assert "going on from" in seen.log
    assert {job["Comment"] for job in battered.jobs} == {"rule_train_wildcards_resunet"}
    assert times(battered.folder) == battered.times


@pytest.mark.slurm
def test_a_cancelled_training_goes_on(battered):
    seen = battered.cancelled
    assert seen.job["JobState"] == "CANCELLED"
    assert "stopped by SIGTERM" in seen.stopped
    assert "going on from" in seen.log


@pytest.mark.slurm
def test_a_training_past_slurms_limit_goes_on(battered):
    """SIGTERM reaches it, and TIMEOUT is a failure that Snakemake tries again."""
    seen = battered.late
    assert (seen.job["JobState"], seen.job["Reason"]) == ("TIMEOUT", "TimeLimit")
    assert "stopped by SIGTERM" in seen.stopped
    assert "going on from" in battered.log
    assert [job["JobState"] for job in battered.jobs] == ["CANCELLED", "TIMEOUT", "COMPLETED"]
    assert battered.said.count("Trying to restart job") == 2


@pytest.mark.slurm
def test_after_all_that_the_network_is_the_same(battered, local):
    assert battered.status == 0, battered.said
    assert weights(battered.folder) == weights(local)
    histories = [
        pd.read_csv(folder / "results" / "runs" / "resunet" / "history.csv").drop(columns="seconds")
        for folder in (battered.folder, local)
    ]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


@pytest.mark.slurm
def test_nothing_half_written_is_left(battered, submitted):
    for folder in (battered.folder, submitted.folder):
        assert list((folder / "results").rglob(".*")) == []
        state = folder / "results" / "runs" / "resunet" / "state"
        assert {path.suffix for path in state.iterdir()} == {".npz"}
    assert call("squeue", "--noheader") == ""


def test_every_key_of_the_profile_is_one(tmp_path):
    """The comments' keys too: all of them together plan."""
    text = re.sub(r"^# (?=[a-z-]+:|  )", "", PROFILE.read_text(), flags=re.MULTILINE)
    assert {"slurm-no-account", "default-resources", "set-resources", "set-threads"} <= set(
        yaml.safe_load(text)
    )
    (tmp_path / "config.yaml").write_text(text)
    done = snakemake(ROOT, "--profile", str(tmp_path), "--dry-run", "--quiet", "all", "--", "all")
    assert done.returncode == 0, done.stdout + done.stderr


def test_slurm_is_not_set_up_without_root(tmp_path):
    """One line, and the exit status that lets `make test-slurm` skip."""
    for name, text in {"id": "echo 1000", "sudo": "exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "envs" / "slurm"],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 77
    (line,) = done.stderr.splitlines()
    assert line.startswith("slurm: ")
