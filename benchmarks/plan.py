"""A study on a cluster: how Snakemake plans it, and how its jobs pass through Slurm."""

import heapq
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyweave import seeds
from skyweave.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cluster:
    """Nodes, Slurm and what Snakemake is told of it.

    A node takes a job at a time. Snakemake submits `rate` jobs a second while fewer than `queue`
    are in Slurm, and learns that one has ended when it asks: `poll_s` after it last learnt of
    any, and `poll_step_s` later after each time that it did not, up to `poll_most_s`.
    """

    nodes: int
    queue: int
    rate: float
    #: Seconds in which Slurm starts a job for which a node is free.
    start_s: float
    poll_s: float = 40.0
    poll_step_s: float = 10.0
    poll_most_s: float = 180.0


@dataclass(frozen=True)
class Outcome:
    """What happened: seconds from the first submission, and loads."""

    #: When the last job was submitted, ended, and was seen to have ended.
    submitted_s: float
    ended_s: float
    seen_s: float
    #: Most jobs in Slurm that Snakemake believed waiting or running.
    most_queued: int
    #: Times that Snakemake asked for the state of its jobs.
    polls: int
    #: Nodes' seconds with a job.
    busy_s: float


def pass_through(durations: Iterable[float], cluster: Cluster) -> Outcome:
    """Let jobs of these seconds that wait for nothing pass through a cluster, in their order."""
    waiting = deque(durations)
    nodes = [0.0] * min(cluster.nodes, len(waiting))
    running: list[float] = []
    submit, polled, interval = 0.0, 0.0, cluster.poll_s
    submitted = ended = busy = 0.0
    most, polls = 0, 0
    while waiting or running:
        polled += interval
        while waiting and len(running) < cluster.queue and submit + 1 / cluster.rate <= polled:
            submit += 1 / cluster.rate
            duration = waiting.popleft()
            end = max(submit + cluster.start_s, nodes[0]) + duration
            heapq.heapreplace(nodes, end)
            heapq.heappush(running, end)
            most, busy = max(most, len(running)), busy + duration
            submitted, ended = submit, max(ended, end)
        full = len(running) >= cluster.queue
        before = len(running)
        while running and running[0] <= polled:
            heapq.heappop(running)
        polls += 1
        if len(running) < before:
            interval = cluster.poll_s
            submit = max(submit, polled) if full else submit
        else:
            interval = min(interval + cluster.poll_step_s, cluster.poll_most_s)
    return Outcome(submitted, ended, polled, most, polls, busy)


def scattered(seconds: Iterable[float], scatter: float, seed: int) -> np.ndarray:
    """Durations (n,) with a log-normal scatter (of the logarithm) about these means."""
    means = np.array(list(seconds), dtype=float)
    draws = seeds.generator(seed, "durations").standard_normal(means.size)
    return means * np.exp(scatter * draws - scatter**2 / 2)


@dataclass(frozen=True)
class Planned:
    """What `snakemake --dry-run` said and took."""

    counts: dict[str, int]
    cpu_s: float
    memory_mb: float


_SNAKEMAKE = (
    str(Path(sys.executable).parent / "snakemake"),
    "--snakefile",
    str(ROOT / "Snakefile"),
)
_WATCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)
"""


def dry_run(config: Path, folder: Path, target: str = "all") -> Planned:
    """Plan a study in `folder`, which is to hold no results of it.

    Raises `UserError` with the end of what Snakemake says where it cannot.
    """
    options = ["--dry-run", "--quiet", "rules", "--configfile", str(config.resolve())]
    # A small process in between, as the memory of this one would count as the child's.
    watched = [sys.executable, "-c", _WATCH, *_SNAKEMAKE, *options, "--", target]
    text, _, used = _said(watched, config, folder).rstrip().rpartition("\n")
    cpu_s, kilobytes = map(float, used.split())
    return Planned(job_stats(text), cpu_s, kilobytes / 1024)


def _said(command: Sequence[str], config: Path, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        end = " ".join(done.stderr.split())[-300:]
        raise UserError(config, "a study that Snakemake plans", end)
    return done.stdout


def job_stats(text: str) -> dict[str, int]:
    """Jobs by rule from the table that Snakemake prints."""
    table = re.search(r"^job +count\n[- ]+\n((?:\w+ +\d+\n)+)", text, re.MULTILINE)
    rows = re.findall(r"(\w+) +(\d+)", table[1]) if table else []
    return {rule: int(count) for rule, count in rows if rule != "total"}


def rule_graph(config: Path) -> dict[str, list[str]]:
    """The rules whose outputs each rule of a study reads."""
    command = [
        *_SNAKEMAKE,
        "--rulegraph",
        "dot",
        "--configfile",
        str(config.resolve()),
        "--",
        "all",
    ]
    dot = _said(command, config, ROOT)
    names = dict(re.findall(r"(\d+)\[label = \"(\w+)\"", dot))
    edges = re.findall(r"(\d+) -> (\d+)", dot)
    return {
        name: sorted(names[first] for first, last in edges if last == node)
        for node, name in names.items()
    }
