"""The words of docs/scaling.md; benchmarks/scaling.py puts the numbers in."""

HEAD = """\
# Sizes of studies

Made by `make scaling`, after `make run` and `make bench`: from the benchmark files that Snakemake
writes of each job, from `results/benchmarks.json` ([benchmarks.md](benchmarks.md)), and from
Snakemake's own plan of the largest study. A number is measured on the machine named at the end,
or computed from such numbers by the law beside it, or assumed, and then called so.
"""

GRAPH = """
## Jobs

A rule waits for the jobs of the rules that it reads from. `simulate` has a job for each
`shard_size` realizations, `estimate` one for as many of the test set and of the validation set (and
of the training set, if a network starts from estimates), other rules one for each dataset or run
([drawn](rulegraph.svg)). Paper: `config/studies/resunet_cmb.yaml`; million:
`benchmarks/million.yaml`, of 1,000,000 realizations.
"""

MEASURED = """
## What was measured

The quick study, `config/config.yaml`, by rule (`python -m skyweave.report.cost`):
"""

LINES = """
Jobs of patches of {pixels}² simulated pixels with {fields} fields, one thread, in two sizes
(`benchmarks/scaling.yaml`): the line through their seconds. The start is Python's, the libraries',
and what a job makes once.
"""

PATCHES = """
A patch alone, without start and files, by the pixels that are simulated (`python -m benchmarks`):
"""

PAPER = """
## The paper's study

`config/studies/resunet_cmb.yaml`: {realizations:,} realizations of 128² pixels, and networks of
{gmac:.1f} billion multiply-adds a map. Core-hours of all rules but training:
"""

PAPER_LAW = """
- `simulate` costs a realization the measured time, times the ratio of the costs of the pixels that
  are simulated, times the fields kept over {fields}; that is too much, as a field is cheaper to
  keep than to make. `prepare` goes with the pixels and fields kept, `check_simulation` with the
  pixels.
- `calibrate` and `estimate` cost what they did in the quick study, start and all, times the cost
  of the pixels (N² log N), the realizations and the steps in which lensing is taken back. What is
  done once a map, the Wiener filter above all, is counted as {first} steps; without noise it takes
  its iterations and costs up to twice as much.
- Other rules cost what they did in the quick study, start and all, times the pixels of their maps
  or the number of jobs.
- `predict` does its operations, on the test and the validation set, at the rate below.

Training: an epoch takes 2 operations a multiply-add, times 3 for a training map (forward, and
twice that for the gradient), times 1 for a validation map. {epochs} epochs are the most;
`stop_patience` ends most trainings earlier. On {cores} CPU cores the quick study's network, which
has fewer channels and fills the cores less, was trained at {rate:.3g} operations a second
(measured). **No GPU was measured**: it is assumed to reach {share:.0%} of the published peak of its
dense bfloat16 arithmetic, with `training.precision: bfloat16`; the default is float32.
"""

MILLION = """
## A million realizations on {nodes:,} nodes

`benchmarks/million.yaml`: {fields} fields of 128² pixels, {gigabytes:,.0f} GB. Snakemake's plan
(`--dry-run`) is measured here. How the jobs of `simulate` pass through Slurm is simulated, event by
event: on its node a job starts Snakemake twice ({start:.1f} s of CPU each, measured here) and then
takes what the line above says. Snakemake learns of ended jobs when it asks, as its Slurm executor
2.8 does: 40 s after a question that found any, 10 s more each time that it found none, at most
180 s. Assumed, not measured:

| assumption | value |
|---|--:|
| nodes, a job at a time on each | {nodes:,} |
| a call of `sbatch`, of which the executor makes two at a time: {rate:g}/s | {sbatch:g} s |
| Slurm's start of a job for which there is a node | {slurm:g} s |
| scatter of durations, log-normal | {scatter:.0%} |

Minutes are until Snakemake knows that the last shard is there, with the profile's `jobs: 100` and
with `jobs: 1000`; loads are those of the latter. Files are shard, log, benchmark and Snakemake's
record of each job. A question to Slurm returns a line for each job that the run submitted in the
last two days.
"""

DEAR = """
The same with `oversample: {oversample}` ({pixels}² pixels a patch), where making a realization
costs {ratio:.0f} times as much:
"""

ARGUMENT = """
Every job pays for Python once and for Snakemake twice, and every {least} jobs with `jobs: {least}`
wait for the next question. A flat sky of 128² is so cheap, {hours:.1f} core-hours for all of it,
that nodes do not matter and shards should be large: 10,000 realizations make a file of {gb:.1f} GB
and a job of {cheap:.0f} s. Where a realization costs more, 5,000 to 10,000 make jobs of minutes
({dear:.0f} s for 10,000 above). Thousands of jobs of seconds are the slowest for you and the worst
for Slurm. Choose before the first run: another `shard_size` makes all files anew.

After the shards `prepare` takes {prepare:.0f} minutes and, at the same time, `check_simulation`
{check:.0f}, one core each, by the lines above. An epoch of training reads {epoch_gb:,.0f} GB; the
fastest GPU assumed above wants {feed:.0f} MB/s of that.
"""

SETTINGS = """
## Settings

In `profiles/slurm/config.yaml`, for thousands of jobs or a million realizations:

| key | value | why |
|---|---|---|
| `jobs` | 1000 | most jobs in Slurm's queue, and so most nodes at work |
| `max-jobs-per-timespan` | 10/1s | Snakemake's default, 100/1s, is too much for a busy Slurm |
| `latency-wait` | 60 | as the profile has it: a file of another node may be seen late |
| `set-resources`: `train: runtime` | 1440 | minutes of an attempt; the state outlives it |

`slurm-init-seconds-before-status-checks`, 40 by default, is the executor's shortest pause between
questions; there are so few that it need not be longer. `seconds-between-status-checks` has no
effect, as the executor sets its own pauses, and `max-status-checks-per-second` hardly any, as one
question is for all jobs. Fetching, drawing and the report are seconds each, and local. Your
cluster's limit on jobs in the queue is the limit of `jobs`.
"""

LIMITS = """
## What the rules do at that size

Memory is that of the maps which a job holds at once: the least that it needs. The rules ask for
memory and time by the size of the study.
"""

ADVICE = """
Where that is too much, smaller shares of the test and the validation set (`split`) will do: 10,000
maps judge a network as well as 100,000.
"""
