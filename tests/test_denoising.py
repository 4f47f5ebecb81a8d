"""The task denoising: Wiener filters against theory, what runs learn, and how they are judged."""

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from skyweave.config import DenoisingRun, SersicDataset
from skyweave.data.degraded_feed import DegradedFeed, coarsen, degrade
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.deconvolution import mean_power, wiener
from skyweave.files import sha256
from skyweave.images.psf import convolve, gaussian
from skyweave.networks.card import TrainedNetwork, load_network
from skyweave.statistics.reconstruction import COLUMNS
from skyweave.statistics.restoration import CASES
from skyweave.statistics.tables import read_table
from skyweave.tasks import denoising, denoising_scores
from skyweave.tasks.denoising_scores import SEEN, WIENER, denoising_verdicts, evaluate_run
from skyweave.tasks.images import prepare_images, read_stretch, render_sersic
from skyweave.tasks.training import train_run
from skyweave.training import runtime

SEED, PIXELS, COUNT = 3, 16, 80
DATASET = SersicDataset(
    kind="sersic",
    pixels=PIXELS,
    pixel_arcsec=0.5,
    offset_arcsec=0.5,
    radius_arcsec=(1.0, 2.0),
    realizations=COUNT,
    shard_size=40,
    split={"train": 0.5, "validation": 0.1, "test": 0.4},
)
PLAIN = {
    "task": "denoising",
    "dataset": "made",
    "network": {"width": 0.125},
    "degradation": {"psf_pixels": 1.0, "noise": 2.0},
    "training": {"epochs": 2, "batch": 8},
}
RUNS = {
    "plain": PLAIN,
    "again": PLAIN,
    "mixed": PLAIN | {"generated": "gan", "alpha": 0.5},
    "repeated": PLAIN | {"repeat": 1},
    "unsaid": PLAIN | {"degradation": {"psf_pixels": 1.0}},
}


@dataclass
class Study:
    """A dataset and generated images in a folder, and runs, each trained when first asked for."""

    folder: Path
    made: set = field(default_factory=set)
    runs: dict = field(default_factory=lambda: {n: DenoisingRun(**r) for n, r in RUNS.items()})

    @property
    def shards(self) -> list[Path]:
        return [self.folder / f"{number}.h5" for number in range(2)]

    @property
    def split(self) -> Path:
        return self.folder / "split.csv"

    def files(self, name: str) -> dict[str, Path]:
        found = {"stretch": self.folder / "stretch.json"}
        if self.runs[name].alpha:
            found["samples"] = self.folder / "samples.h5"
        return found

    def numbers(self, part: str) -> np.ndarray:
        return members(read_split(self.split), part)

    def recipe(self, name: str, files=None):
        files = self.files(name) if files is None else files
        maps = ShardSet(self.shards)
        return denoising.recipe(self.runs[name], maps, read_split(self.split), name, SEED, files)

    def feed(self, name: str, part: str) -> DegradedFeed:
        recipe = self.recipe(name)
        scales = Normalization({"image": (0.0, 1.0)})
        feed = BatchFeed(
            ShardSet(self.shards),
            recipe.inputs,
            recipe.targets,
            scales,
            self.numbers(part),
            8,
            SEED,
            (name, part),
        )
        return recipe.feed(feed, part, scales)

    def run(self, name: str) -> Path:
        """The folder of a trained run."""
        folder = self.folder / name
        if name not in self.made:
            train_run(
                self.runs[name],
                shards=self.shards,
                split=self.split,
                normalization=self.folder / "normalization.json",
                network=folder / "network.keras",
                history=folder / "history.csv",
                sweep=folder / "sweep.csv",
                state=folder / "state",
                name=name,
                seed=SEED,
                threads=1,
                deadline_s=None,
                files=self.files(name),
            )
            self.made.add(name)
        return folder

    def network(self, name: str) -> TrainedNetwork:
        return load_network(self.run(name))

    def evaluate(self, name: str, examples: Path, settings: str = "", as_name: str = ""):
        return evaluate_run(
            self.runs[settings or name],
            as_name or name,
            self.run(name) / "network.keras",
            shards=self.shards,
            split=self.split,
            examples=examples,
            seed=SEED,
            threads=1,
        )


@pytest.fixture(autouse=True)
def simple(monkeypatch):
    """The threads that the tests' process has: they are set once."""
    prepare = runtime.prepare
    monkeypatch.setattr(
        runtime, "prepare", lambda seed, _, settings=None: prepare(seed, settings=settings)
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    found = Study(tmp_path_factory.mktemp("denoising"))
    for path, realizations in zip(found.shards, DATASET.shards, strict=True):
        render_sersic(path, DATASET, realizations, seed=SEED, name="made")
    prepare_images(
        found.shards,
        split_out=found.split,
        normalization_out=found.folder / "normalization.json",
        stretch_out=found.folder / "stretch.json",
        split=DATASET.split,
        stretch=DATASET.stretch,
        seed=SEED,
        dataset="made",
    )
    # Generated images that no real one looks like: flat ones.
    write_shard(
        found.folder / "samples.h5",
        {"image": np.full((20, PIXELS, PIXELS), 7, np.float32)},
        realizations=np.arange(20),
        size_deg=ShardSet(found.shards).size_deg,
        units={"image": "nJy"},
        provenance={},
    )
    return found


@pytest.fixture(scope="module")
def evaluation(study, tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation") / "restored.h5"
    with pytest.MonkeyPatch.context() as patch:
        prepare = runtime.prepare
        patch.setattr(runtime, "prepare", lambda seed, _, settings=None: prepare(seed))
        return *study.evaluate("plain", path), path


# Wiener filters


def periodic(power: np.ndarray, count: int, pixels: int) -> np.ndarray:
    """Gaussian fields (count, y, x) float64 of that power by mode."""
    white = np.random.default_rng(5).standard_normal((count, pixels, pixels))
    return np.fft.irfft2(np.fft.rfft2(white) * np.sqrt(power), s=(pixels, pixels))


def steep(pixels: int) -> np.ndarray:
    y, x = np.fft.fftfreq(pixels)[:, None], np.fft.rfftfreq(pixels)[None, :]
    return 1 / (0.003 + x**2 + y**2) ** 1.5


def seen_through(images: np.ndarray, sigma: float) -> np.ndarray:
    """Periodic images convolved with the kernel of `images.psf`, by sums over shifted ones."""
    kernel = gaussian(sigma)
    half = len(kernel) // 2
    found = np.zeros_like(images)
    for y in range(-half, half + 1):
        for x in range(-half, half + 1):
            found += kernel[y + half, x + half] * np.roll(images, (y, x), axis=(1, 2))
    return found


def whole(power: np.ndarray) -> np.ndarray:
    """Power by all modes (y, x), of that by the half of them."""
    pixels = len(power)
    columns = np.arange(pixels)
    mirrored = columns > pixels // 2
    rows = np.where(mirrored[None, :], -columns[:, None] % pixels, columns[:, None])
    return power[rows, np.where(mirrored, pixels - columns, columns)[None, :]]


def test_mean_power_is_that_of_the_fields():
    power = steep(24)
    found = mean_power(periodic(power, 3000, 24))
    # Two normal numbers a mode, one where a mode is its own mirror image.
    np.testing.assert_allclose(found / power, 1, atol=5 * np.sqrt(2 / 3000))
    assert np.mean(found / power) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("sigma", [0.6, 2.0])
@pytest.mark.parametrize("noise", [0.3, 5.0])
def test_the_error_is_the_least_that_theory_allows(sigma, noise):
    """Of Gaussian fields: the mean over modes of power / (1 + transfer² power / noise²)."""
    power, count = steep(24), 600
    images = periodic(power, count, 24)
    white = np.random.default_rng(6).standard_normal(images.shape)
    seen = seen_through(images, sigma) + noise * white
    errors = np.square(wiener(seen, power, sigma, noise) - images).mean(axis=(1, 2))
    point = np.zeros((1, 24, 24))
    point[0, 0, 0] = 1
    transfer = np.abs(np.fft.fft2(seen_through(point, sigma)[0]))
    expected = np.mean(whole(power) / (1 + transfer**2 * whole(power) / noise**2))
    assert errors.mean() == pytest.approx(expected, abs=4 * errors.std() / np.sqrt(count))
    # That of another power is larger.
    other = np.square(wiener(seen, np.full_like(power, 10), sigma, noise) - images)
    assert other.mean() > expected + 4 * errors.std() / np.sqrt(count)


@pytest.mark.parametrize("sigma", [0.0, 1.3])
def test_the_filter_solves_the_linear_problem(sigma):
    """x = C Aᵀ (A C Aᵀ + N)⁻¹ y, in pixels."""
    pixels, noise = 8, 0.7
    power = steep(pixels)
    units = np.eye(pixels**2).reshape(-1, pixels, pixels)
    psf = seen_through(units, sigma).reshape(pixels**2, -1).T
    law = np.fft.irfft2(np.fft.rfft2(units) * power, s=(pixels, pixels)).reshape(pixels**2, -1)
    seen = np.random.default_rng(7).standard_normal((3, pixels, pixels)) * 9
    inside = psf @ law @ psf.T + noise**2 * np.eye(pixels**2)
    expected = law @ psf.T @ np.linalg.solve(inside, seen.reshape(3, -1).T)
    found = wiener(seen, power, sigma, noise)
    np.testing.assert_allclose(found.reshape(3, -1).T, expected, rtol=1e-5, atol=1e-5)


def test_what_is_seen_as_it_is_stays():
    rng = np.random.default_rng(8)
    images = rng.standard_normal((70, 12, 12)).astype(np.float32)
    power = mean_power(images)
    for noise in (0.0, 1e-6):
        np.testing.assert_allclose(wiener(images, power, 0.0, noise), images, atol=1e-5)
    assert wiener(images, power, 0.0, 1e6) == pytest.approx(0, abs=1e-5)
    # Without noise the point-spread function is undone.
    narrow = wiener(seen_through(images.astype(float), 0.5), power, 0.5, 1e-5)
    np.testing.assert_allclose(narrow, images, atol=1e-3)


def test_modes_that_there_are_not_are_zero():
    flat = np.ones((2, 8, 8), np.float32)
    found = wiener(flat, mean_power(flat), 1.0, 0.0)
    np.testing.assert_allclose(found, 1, atol=1e-6)
    assert not wiener(flat, np.zeros((8, 5)), 1.0, 0.0).any()


def test_the_filter_knows_what_images_are_seen_through():
    """The kernel is that of `degrade`: galaxies that do not reach the edge come back."""
    y, x = np.mgrid[:48, :48] - 23.5
    images = np.exp(-(x**2 + y**2) / 2 / 16)[None].astype(np.float32)
    seen = degrade(images, psf_pixels=2.0, noise=0.0, seed=1, identity=())
    np.testing.assert_allclose(seen, convolve(images, gaussian(2.0)))
    found = wiener(seen, mean_power(images), 2.0, 1e-5)
    assert np.abs(found - images).max() < 1e-3
    # The Gaussian's own transform times that of a pixel, which the kernel cannot be far from.
    k = np.fft.rfftfreq(48)
    direct = np.exp(-2 * (np.pi * 2.0 * k) ** 2) * np.sinc(k)
    row = gaussian(2.0).sum(axis=0)
    place = np.arange(len(row)) - len(row) // 2
    np.testing.assert_allclose(np.cos(2 * np.pi * np.outer(k, place)) @ row, direct, atol=1e-3)


# What a run learns from, and leaves


def test_a_run_leaves_a_network_that_says_what_it_is(study):
    card = study.network("mixed").card
    assert (card.inputs, card.outputs) == (("image",), ("image",))
    assert card.units == {"image": "nJy"}
    assert card.normalization.moments == {"image": (0.0, 1.0)}
    assert (card.pixels, card.latent) == (PIXELS, 0)
    assert card.size_deg == pytest.approx(PIXELS * 0.5 / 3600)
    assert card.data["stretch"] == read_stretch(study.folder / "stretch.json").to_dict()
    assert card.data["noise"] == 2
    assert card.data["generated"] == sha256(study.folder / "samples.h5")
    assert card.data["realizations"] == {"train": 40, "validation": 8, "test": 32}
    settings = card.settings
    assert settings["task"] == "denoising"
    assert (settings["generated"], settings["alpha"], settings["repeat"]) == ("gan", 0.5, 0)
    assert settings["degradation"]["psf_pixels"] == 1
    assert "generated" not in study.network("plain").card.data
    history = read_table(study.run("mixed") / "history.csv")
    assert history.epoch.tolist() == [1, 2]
    assert np.isfinite(history.val_loss).all()


def test_noise_is_a_hundredth_of_the_top_where_none_is_said(study):
    scale = read_stretch(study.folder / "stretch.json")
    assert denoising.noise_rms(study.runs["unsaid"], scale) == pytest.approx(scale.top / 100)
    assert study.recipe("unsaid").known["noise"] == pytest.approx(scale.top / 100)
    feed = study.feed("unsaid", "validation")
    x, y = next(iter(feed.in_order()))
    away = scale.undo(x[..., 0]) - convolve(scale.undo(y["image"][..., 0]), gaussian(1.0))
    assert np.std(away) == pytest.approx(scale.top / 100, rel=0.1)


def weights(model) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in model.weights]


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_runs_of_a_repeat_start_alike(study):
    scales = Normalization({"image": (0.0, 1.0)})
    starts = {name: weights(study.recipe(name).build(scales)) for name in RUNS}
    assert same(starts["plain"], starts["mixed"])
    kernels = [number for number, one in enumerate(starts["plain"]) if one.ndim > 1]
    for number in kernels:
        assert not np.array_equal(starts["plain"][number], starts["repeated"][number])


def test_runs_that_are_alike_but_for_their_name_learn_the_same(study):
    assert same(weights(study.network("plain").model), weights(study.network("again").model))
    other = weights(study.network("mixed").model)
    assert not same(weights(study.network("plain").model), other)


def test_draws_are_those_of_the_repeat(study):
    first, again, other = (
        [x for x, _ in study.feed(name, "train").epoch(1)]
        for name in ("plain", "again", "repeated")
    )
    assert len(first) == 5
    assert same(first, again)
    assert not same(first, other)


def test_generated_images_are_mixed_into_training_alone(study):
    scale = read_stretch(study.folder / "stretch.json")
    flat = scale.apply(np.full((PIXELS, PIXELS, 1), 7, np.float32))

    def share(name, part):
        feed = study.feed(name, part)
        truths = [y["image"] for e in range(5) for _, y in feed.epoch(e)]
        return np.mean([np.array_equal(one, flat) for truth in truths for one in truth])

    # 5 epochs of 40 images.
    assert share("mixed", "train") == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(200))
    assert share("plain", "train") == 0
    assert share("mixed", "validation") == 0


def test_what_is_mixed_in_must_be_there(study):
    with pytest.raises(UserError, match=r"^generated: expected images of a generation run, f"):
        study.recipe("mixed", {"stretch": study.folder / "stretch.json"})


# Judgement


def test_metrics_have_a_row_for_all(study, evaluation):
    metrics, verdicts, _ = evaluation
    assert list(metrics) == [*COLUMNS, "case", "seed"]
    assert (metrics.seed == SEED).all()
    assert len(metrics) == len(CASES) * 3 * 3
    assert not metrics.duplicated(["case", "method", "statistic"]).any()
    assert set(metrics.method) == {"network", WIENER, SEEN}
    assert set(metrics.statistic) == {"mse", "flux_error", "flux_bias"}
    # The whole test set.
    assert (metrics.n == 32).all()
    assert np.isfinite(metrics[["value", "error"]]).all(axis=None)
    assert (metrics.run == "plain").all()
    assert [one["check"].split(":")[0] for one in verdicts] == [
        "image, as trained",
        "image, larger pixels",
        "image, more noise",
        "image, larger pixels and more noise",
    ]


def row(metrics, case, method, statistic):
    found = metrics[
        (metrics.case == case) & (metrics.method == method) & (metrics.statistic == statistic)
    ]
    return found.iloc[0]


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_the_images(study, evaluation, case):
    """Made anew from what was seen: errors, fluxes, and the network's and the filter's images."""
    metrics, _, _ = evaluation
    scale = read_stretch(study.folder / "stretch.json")
    maps = ShardSet(study.shards)
    factor = 2 if case in ("resolution", "both") else 1
    rms = 8.0 if case in ("noise", "both") else 2.0
    truth, train = (
        coarsen(maps.read("image", study.numbers(part)), factor) for part in ("test", "train")
    )
    identity = ("made", "denoising test", case, "image")
    seen = degrade(truth, psf_pixels=1.0, noise=rms, seed=SEED, identity=identity)
    assert np.std(seen - convolve(truth, gaussian(1.0))) == pytest.approx(rms, rel=0.05)
    network = study.network("plain").model
    layers = {layer.name: layer.get_weights() for layer in network.layers}
    from skyweave.networks import residual_denoiser

    model = residual_denoiser.build(PIXELS // factor, ("image",), 0.125)
    for layer in model.layers:
        layer.set_weights(layers[layer.name])
    made = model(scale.apply(seen)[..., None], training=False)["image"]
    restored = {
        "network": scale.undo(np.asarray(made)[..., 0]),
        # No profile has negative flux.
        WIENER: np.maximum(wiener(seen, mean_power(train), 1.0, rms), 0),
        SEEN: seen,
    }
    for method, images in restored.items():
        squares = np.square(scale.apply(images) - scale.apply(truth)).mean(axis=(1, 2))
        found = row(metrics, case, method, "mse")
        assert found.value == pytest.approx(squares.mean(), rel=1e-4)
        assert found.error == pytest.approx(squares.std(ddof=1) / np.sqrt(32), rel=1e-3)
        off = images.sum(axis=(1, 2)) / truth.sum(axis=(1, 2)) - 1
        assert row(metrics, case, method, "flux_error").value == pytest.approx(
            np.abs(off).mean(), rel=1e-3, abs=1e-5
        )
        assert row(metrics, case, method, "flux_bias").value == pytest.approx(
            off.mean(), rel=1e-3, abs=1e-5
        )


def test_examples_are_the_first_of_each_case(study, evaluation):
    _, _, path = evaluation
    truth = ShardSet(study.shards).read("image", study.numbers("test")[:6])
    with h5py.File(path) as file:
        assert set(file) == set(CASES)
        for case in CASES:
            assert set(file[case]) == {"truth", "network", WIENER, SEEN}
            side = PIXELS // (2 if case in ("resolution", "both") else 1)
            for method in file[case]:
                assert file[case][method]["image"].shape == (6, side, side)
        np.testing.assert_array_equal(file["none/truth/image"], truth)
        # Surface brightness, kept by larger pixels.
        np.testing.assert_allclose(
            file["both/truth/image"][()].mean(axis=(1, 2)), truth.mean(axis=(1, 2)), rtol=1e-5
        )
        for case in CASES:
            assert file[case][WIENER]["image"][()].min() == 0
            assert file[case][SEEN]["image"][()].min() < 0
        assert not np.array_equal(file["none/seen/image"], file["noise/seen/image"])


def test_all_runs_see_the_same_noise(study, evaluation, tmp_path):
    first = evaluation[0]
    other = study.evaluate("mixed", tmp_path / "restored.h5")[0]
    for method in (WIENER, SEEN):
        a, b = (one[one.method == method].value.to_numpy() for one in (first, other))
        np.testing.assert_array_equal(a, b)
    a, b = (one[one.method == "network"].value.to_numpy() for one in (first, other))
    assert not np.array_equal(a, b)


def test_a_network_worse_than_the_filter_or_nothing_does_not_pass(evaluation):
    """Two epochs of a tiny network are not enough; an error below both is."""
    metrics, verdicts, _ = evaluation
    for one, case in zip(verdicts, CASES, strict=True):
        value, *bars = (row(metrics, case, m, "mse").value for m in ("network", WIENER, SEEN))
        assert (one["value"], one["bar"]) == (value, min(bars))
        assert one["passed"] == (value < min(bars))
    assert not all(one["passed"] for one in verdicts)

    def passed(**errors):
        values = metrics.method.map(errors).fillna(metrics.value)
        return {one["passed"] for one in denoising_verdicts(metrics.assign(value=values))}

    assert passed(network=0.0) == {True}
    assert passed(network=2.0, wiener=3.0, seen=1.0) == {False}
    assert passed(network=2.0, wiener=1.0, seen=3.0) == {False}
    for method in ("network", WIENER, SEEN):
        values = metrics.value.where(metrics.method != "network", 0.0)
        lost = metrics.assign(value=values.where(metrics.method != method, np.nan))
        assert not any(one["passed"] for one in denoising_verdicts(lost))


@pytest.mark.parametrize(("lowest", "bound"), [(-1.5, -1.5), (0.0, 0.0), (0.5, 0.0)])
def test_the_filter_makes_no_flux_below_that_of_the_dataset(lowest, bound):
    rng = np.random.default_rng(9)
    known = rng.uniform(lowest, 3, (40, 12, 12, 1))
    known[0, 0, 0, 0] = lowest
    seen = 4 * rng.standard_normal((5, 12, 12, 1))
    free = wiener(seen[..., 0], mean_power(known[..., 0]), 1.0, 0.5)
    assert free.min() < bound < free.max()
    found = denoising_scores._filtered(seen, known, 1.0, 0.5)[..., 0]
    np.testing.assert_array_equal(found, np.maximum(free, np.float32(bound)))


def test_the_filters_spectrum_is_of_drawn_training_images(study, tmp_path, monkeypatch):
    """Of a few of them, and of the same for all runs of the dataset."""
    monkeypatch.setattr(denoising_scores, "_LEARNED", 10)
    learned = []
    monkeypatch.setattr(
        denoising_scores, "mean_power", lambda images: learned.append(images) or mean_power(images)
    )
    for name in ("plain", "again"):
        study.evaluate("plain", tmp_path / "restored.h5", as_name=name)
    train = ShardSet(study.shards).read("image", study.numbers("train"))
    assert len(learned[0]) == 10
    places = [int(np.flatnonzero((train == one).all(axis=(1, 2)))[0]) for one in learned[0]]
    assert len({*places}) == 10
    assert max(places) > 20
    np.testing.assert_array_equal(learned[0], learned[len(CASES)])


def test_bands_are_judged_each_by_itself(study):
    """Several bands: rows of each, of its own images."""
    scale = read_stretch(study.folder / "stretch.json")
    rng = np.random.default_rng(2)
    truth = rng.uniform(1, 2, (5, 8, 8, 2))
    made = truth.copy()
    made[..., 1] *= 1.1
    table = denoising_scores._scores(made, truth, scale, ("g", "r")).set_index(
        ["field", "statistic"]
    )
    assert table.value["g", "mse"] == 0
    assert table.value["r", "mse"] > 0
    assert table.value["r", "flux_error"] == pytest.approx(0.1)
    assert table.value["r", "flux_bias"] == pytest.approx(0.1)


def test_an_image_without_flux_has_no_error_of_it(study):
    scale = read_stretch(study.folder / "stretch.json")
    truth = np.ones((4, 8, 8, 1))
    truth[1] = 0
    table = denoising_scores._scores(truth * 1.5, truth, scale, ("image",)).set_index("statistic")
    assert (table.value["flux_error"], table.n["flux_error"]) == (0.5, 3)
    assert table.n["mse"] == 4
    table = denoising_scores._scores(truth, 0 * truth, scale, ("image",)).set_index("statistic")
    assert np.isnan(table.value["flux_bias"])
    assert isinstance(table, pd.DataFrame)
