"""Plans of large studies: laws, the passage through a cluster, and the page made of them."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import costs, extrapolate, jobs, plan, record, scaling
from benchmarks.costs import Line
from benchmarks.plan import Cluster, Planned, pass_through
from skyweave import config
from skyweave.errors import UserError

ROOT = Path(__file__).parent.parent
#: Submission, start and questions take next to nothing.
FAST = Cluster(nodes=1, queue=10**6, rate=1e6, start_s=0, poll_s=0.01, poll_step_s=0, poll_most_s=1)


def durations(count: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(1, 20, count)


# The passage


def test_one_node_takes_the_sum():
    outcome = pass_through(durations(50), FAST)
    assert outcome.ended_s == pytest.approx(durations(50).sum(), abs=1e-3)
    assert 0 <= outcome.seen_s - outcome.ended_s < 0.011


def test_nodes_for_all_jobs_wait_for_submission_alone():
    cluster = replace(FAST, nodes=50, rate=2, start_s=3)
    outcome = pass_through(durations(50), cluster)
    expected = max(0.5 * (at + 1) + 3 + each for at, each in enumerate(durations(50)))
    assert outcome.ended_s == pytest.approx(expected)
    assert outcome.submitted_s == pytest.approx(25)


def test_work_is_conserved_and_more_nodes_are_no_slower():
    ended = []
    for nodes in (1, 2, 3, 7, 30, 300):
        outcome = pass_through(durations(200), replace(FAST, nodes=nodes))
        assert outcome.busy_s == pytest.approx(durations(200).sum())
        assert outcome.busy_s <= nodes * outcome.ended_s * (1 + 1e-9)
        ended.append(outcome.ended_s)
    assert ended == sorted(ended, reverse=True)
    assert ended[-1] == pytest.approx(durations(200).max(), abs=1e-3)


def test_a_full_queue_waits_for_the_next_question():
    """10 jobs a question of 40 s, submitted at once, each over before it."""
    cluster = Cluster(nodes=100, queue=10, rate=1000, start_s=0)
    outcome = pass_through([1.0] * 95, cluster)
    assert (outcome.most_queued, outcome.polls, outcome.seen_s) == (10, 10, 400)


def test_questions_grow_rarer_while_none_ends():
    """At 40, and then 50, 60, … seconds later, 180 at most."""
    outcome = pass_through([3000.0], Cluster(nodes=1, queue=1, rate=1, start_s=0))
    pauses = [min(40 + 10 * at, 180) for at in range(outcome.polls)]
    assert outcome.seen_s == sum(pauses)
    assert sum(pauses[:-1]) < 3001 <= sum(pauses)


def test_scatter_keeps_the_mean():
    drawn = plan.scattered([10.0] * 20000, 0.3, seed=1)
    assert drawn.mean() == pytest.approx(10, abs=4 * 10 * 0.31 / math.sqrt(20000))
    assert np.log(drawn).std() == pytest.approx(0.3, rel=0.03)
    assert np.array_equal(plan.scattered([5.0, 7.0], 0, seed=1), [5, 7])


# Laws


def test_a_line_comes_back():
    line = Line(3.0, 0.002)
    sizes = [100, 200, 3000]
    again = Line.through(sizes, [line.seconds(size) for size in sizes])
    assert (again.start_s, again.each_s) == pytest.approx((3.0, 0.002))
    assert line.scaled(5).seconds(1000) == pytest.approx(3 + 5 * 2)
    with pytest.raises(UserError, match="seconds that grow with realizations"):
        Line.through([100, 200], [4, 3])


def entry(pixels: int, ms: float) -> dict:
    name = f"simulation_cost_{pixels}"
    return {"name": name, "ours": ms, "peer": 1.0, "ratio": 1.0, "unit": "ms", "machine": "one"}


ENTRIES = [entry(64, 0.5), entry(128, 1.0), entry(512, 22.0)]


def test_measured_sizes_are_as_measured_and_others_grow():
    assert costs.patch_ms(ENTRIES, 128) == 1.0
    assert costs.patch_ms(ENTRIES, 1024) == pytest.approx(22 * 4 * 10 / 9)
    assert costs.growth(512, 64) == pytest.approx(costs.growth(512, 128) * costs.growth(128, 64))
    with pytest.raises(UserError, match="simulation_cost_128"):
        costs.patch_ms([], 128)


def test_the_published_network_does_the_multiply_adds_of_its_layers():
    """Against the sum by hand, of the paper's layers: pixels, kernel, channels in and out."""
    study = config.load(extrapolate.PAPER)
    (run, *_) = study.runs.values()
    n, k = 128**2, 25
    encoder = k * n * (2 * 64 + 64 * 64 + 64 * 64) + k * n // 4 * (64 * 128 + 2 * 128 * 128)
    middle = k * n // 16 * 128 * 256 + k * n // 4 * 256 * 128
    decoder = k * n // 4 * (256 * 128 + 128 * 128) + k * n * (128 * 64 + 128 * 64 + 64 * 64)
    heads = 3 * k * n * (2 * 64 * 64 + 64)
    residuals = n * 2 * 64 + n // 4 * (64 * 128 + 256 * 128) + n * 128 * 64
    total = costs.multiply_adds(costs.network_of(study, run))
    assert total == encoder + middle + decoder + heads + residuals
    assert total / 1e9 == pytest.approx(35.7, abs=0.05)


def test_an_epoch_counts_training_three_times():
    counts = {"train": 10, "validation": 4, "test": 100}
    assert costs.epoch_operations(7, counts) == 2 * 7 * (30 + 4)


def test_estimates_cost_their_maps_pixels_and_steps():
    """70,000 realizations in files of 1000: seven jobs for each part of a tenth; 256 calibrate."""
    paper = config.load(extrapolate.PAPER)
    assert [count for _, count in jobs.estimate_sizes(paper)] == [1000] * 28
    (dataset, *_) = jobs.simulated(paper).values()
    one = costs.growth(128, 64) * (costs.FIRST_STEPS + dataset.estimates.iterations)
    assert costs.work(paper, "estimate") == pytest.approx(28000 * one)
    assert costs.work(paper, "calibrate") == pytest.approx(2 * 256 * one)
    assert costs.work(paper, "expect") == 2 * 128**4
    assert {costs.law(rule) for rule in ("estimate", "calibrate")} == {"pixels and steps"}


def test_chunks_of_estimates_hold_all_of_a_part():
    values = config.read_yaml(extrapolate.MILLION)
    values["datasets"]["million"] |= {"realizations": 2570, "shard_size": 100}
    study = config.parse(values)
    sizes = [count for _, count in jobs.estimate_sizes(study)]
    assert sum(sizes) == 2 * 257
    # Ten shards of 100 hold as many of a tenth; the last file takes what is left.
    assert sizes == 2 * [100, 157]


# Snakemake


def small(folder: Path) -> Path:
    """The quick study with two cosmologies and shards of which the last is not full.

    A network of it starts from estimates, and is tested on another dataset; three fill holes, in
    two channels, one of them those of the sky.
    """
    values = config.read_yaml(extrapolate.QUICK)
    others = (
        {"tensors", "nothing", "temperature", "galaxies"},
        {"plain", "adversarial", "flow", "combine", "sersic", "denoise", "denoise_mixed"},
    )
    for section, names in zip(("datasets", "runs"), others, strict=True):
        values[section] = {name: one for name, one in values[section].items() if name not in names}
    dataset, resunet = values["datasets"]["cmb"], values["runs"]["resunet"]
    dataset |= {"realizations": 250, "shard_size": 100}
    dataset["spectra"]["vary"] = {"ns": [0.9, 1.0]}
    other = dataset | {"realizations": 20}
    values["datasets"] |= {"other": other, "unread": other}
    effects = other["effects"] | {"taper_deg": 0}
    values["datasets"]["holes"] = other | {"fields": ["t_obs", "t_prim"], "effects": effects}
    hybrid = {"inputs": ["q_obs", "kappa_iterative"], "tests": ["other"]}
    looking = {"task": "inpainting", "dataset": "holes", "radii": [5], "training": {"batch": 4}}
    filling = looking | {"losses": {"perceptual": 0, "style": 0}}
    values["runs"] |= {
        "hybrid": resunet | hybrid,
        "looking": looking,
        "sky": filling | {"holes": {"kind": "sky", "sky": "dust"}},
        "primordial": filling | {"fields": ["t_prim"]},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_counts_are_those_of_snakemake(tmp_path):
    path = small(tmp_path)
    planned = plan.dry_run(path, tmp_path)
    assert planned.counts == jobs.job_counts(config.load(path))
    assert planned.counts["simulate"] == 6
    assert planned.counts["train"] == 6
    assert planned.counts["spectra"] == 2
    # Of each part: one network starts from estimates.
    assert planned.counts["estimate"] == 1 + 1 + 1
    assert planned.counts["calibrate"] == planned.counts["estimate_elsewhere"] == 1
    # Of each channel of each dataset that holes are filled in.
    assert (planned.counts["covariance"], planned.counts["inpaint"]) == (2, 3)
    assert planned.counts["fetch_vgg16"] == planned.counts["cut_holes"] == 1
    assert planned.cpu_s > 0.1
    assert 30 < planned.memory_mb < 2000
    graph = plan.rule_graph(path)
    assert set(graph) == set(planned.counts)
    assert graph["prepare"] == ["simulate"]
    assert graph["all"] == ["report"]


def galaxies(folder: Path) -> Path:
    """Sérsic images in three files and stamps of COSMOS; generators of both, and denoisers.

    Generated images are mixed in on one dataset alone, and features tell apart those of the other.
    """
    training = {"epochs": 1, "batch": 4}
    made = {"task": "generation", "training": training, "samples": 20}
    clear = {"task": "denoising", "training": training}
    blind = {"metrics": {"features": False}}
    study = {
        "datasets": {
            "profiles": {"kind": "sersic", "pixels": 32, "realizations": 250, "shard_size": 100},
            "stamps": {"kind": "images", "source": "cosmos", "pixels": 32},
        },
        "runs": {
            "made": made | blind | {"dataset": "profiles"},
            "stamped": made | {"dataset": "stamps"},
            "clear": clear | {"dataset": "profiles", "generated": "made"},
            "plain": clear | {"dataset": "stamps"},
        },
        "scans": {"s": {"run": "clear", "settings": {"alpha": [0, 0.5], "repeat": [1, 2]}}},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def test_counts_of_images_are_those_of_snakemake(tmp_path):
    path = galaxies(tmp_path)
    counts = plan.dry_run(path, tmp_path).counts
    assert counts == jobs.job_counts(config.load(path))
    assert counts == {
        **{"render_sersic": 3, "import_images": 1, "prepare_images": 2, "train": 8},
        **dict.fromkeys(("generate", "evaluate_generation", "draw_generation"), 2),
        **dict.fromkeys(("evaluate_denoising", "draw_denoising"), 6),
        **dict.fromkeys(("fetch_cosmos", "fetch_inception", "tabulate_scan"), 1),
        **dict.fromkeys(("compare_alphas", "draw_alphas"), 1),
        **dict.fromkeys(("record_runs", "report", "all"), 1),
    }


STUDIES = [extrapolate.QUICK, *sorted((ROOT / "config" / "studies").glob("*.yaml"))]


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_counts_of_a_study_are_those_of_snakemake(tmp_path, path):
    assert plan.dry_run(path, tmp_path).counts == jobs.job_counts(config.load(path))


def test_a_study_that_snakemake_refuses_is_one_line(tmp_path):
    (tmp_path / "study.yaml").write_text("datasets: {}\n")
    with pytest.raises(
        UserError, match=r"a study that Snakemake plans, found .*datasets"
    ) as caught:
        plan.dry_run(tmp_path / "study.yaml", tmp_path)
    assert "\n" not in str(caught.value)


# The page


def made_up(results: Path) -> None:
    """Benchmark files of 3 s and 2 ms a realization, the quick study's of 10 s each."""

    def job(path: Path, seconds: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\tcpu_time\n{seconds}\t200.5\t{seconds}\n")

    for rule in jobs.job_counts(config.load(extrapolate.QUICK)):
        job(results / "benchmarks" / rule / "one.tsv", 10)
    study = config.load(extrapolate.MEASURED)
    folder = results / "scaling" / "benchmarks"
    job(folder / "spectra" / "a.tsv", 12)
    for name, dataset in jobs.simulated(study).items():
        for at, shard in enumerate(dataset.shards):
            job(folder / "simulate" / name / f"{at}.tsv", 3 + 0.002 * len(shard))
        for rule in ("prepare", "check_simulation"):
            job(folder / rule / f"{name}.tsv", 3 + 0.002 * dataset.realizations)
    history = results / "runs" / "resunet" / "history.csv"
    history.parent.mkdir(parents=True)
    history.write_text("epoch,seconds\n1,50\n2,30\n3,40\n")
    record.write(results / "benchmarks.json", ENTRIES)


def test_page_of_made_up_files(tmp_path, monkeypatch):
    made_up(tmp_path)
    measured = extrapolate.read(tmp_path)
    quick = config.load(extrapolate.QUICK)
    run = jobs.reconstructions(quick)["resunet"]
    adds = costs.multiply_adds(costs.network_of(quick, run))
    work = costs.epoch_operations(adds, jobs.split_counts(jobs.dataset_of(quick, run)))
    assert measured.rate == pytest.approx(work / 40)
    paper = config.load(extrapolate.PAPER)
    fields = len(next(iter(jobs.simulated(paper).values())).fields) / measured.fields
    seconds, _ = extrapolate.core_seconds(measured, paper)["simulate"]
    assert seconds == pytest.approx(140 * 3 + 140000 * 0.002 * fields)

    asked = []

    def dry_run(path: Path, folder: Path, target: str = "all") -> Planned:
        size = config.load(path).datasets["million"].shard_size
        asked.append((size, target))
        return Planned({}, 2.0, 150.0)

    monkeypatch.setattr(plan, "dry_run", dry_run)
    scaling.main(["--results", str(tmp_path), "--page", str(tmp_path / "a.md")])
    assert [size for size, target in asked if target == "all"] == list(extrapolate.SHARD_SIZES)
    text = (tmp_path / "a.md").read_text(encoding="utf-8")
    # Shards of 10,000: 20 s of realizations, 3 s of start and twice 2 s of Snakemake.
    assert "| 10,000 | 100 | 400 | 3.28 | 27 | 74% | 2 | 150 |" in text
    # With oversample 4, 22 times as much.
    assert "| 10,000 | 100 | 400 | 3.28 | 447 | 98% |" in text
    assert "| simulate | 3 | 2 | 500 |" in text
    # 7000 maps of 128² are 459 MB: 2 inputs, 3 fields, of each what the network makes, Q and U and
    # the E of them, and 6 estimates; and twice as many maps of a field, a method's as two.
    assert "then the validation set | 7,800 |" in text
    assert "both sets, a field at a time | 2,750 |" in text
    # 10 s for all estimates of the quick study, of 64².
    of_paper, _ = jobs.simulated(paper).values()
    done = sum(
        count * (costs.FIRST_STEPS + each.estimates.iterations)
        for each, count in jobs.estimate_sizes(quick)
    )
    steps = costs.FIRST_STEPS + of_paper.estimates.iterations
    minutes = 10 / 60 * costs.growth(128, 64) * 1000 * steps / done
    assert f"`shard_size` patches a job | {minutes:.3g} |" in text
    assert "| estimate | 28 |" in text
    assert text.count("**assumed**") == 2 * len(extrapolate.PEAKS)
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 130


MISSING = {
    "benchmarks": "benchmark files of a study that ran, found none",
    "benchmarks/estimate": "estimate: expected benchmark files of the quick study, found none",
    "benchmarks.json": "results of `python -m benchmarks`, found no file",
    "runs/resunet/history.csv": "a table, found none",
    "scaling/benchmarks/simulate/few/1.tsv": "a job of benchmarks/scaling.yaml .* found no file",
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_one_line(tmp_path, name):
    made_up(tmp_path)
    (tmp_path / name).rename(tmp_path / "away")
    with pytest.raises(SystemExit, match=MISSING[name]) as caught:
        scaling.main(["--results", str(tmp_path), "--page", str(tmp_path / "a.md")])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.md").exists()
