"""Pairs of patches of dust, training on them, and small scales that a network adds to patches."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from skyweave.config import ForegroundsRun
from skyweave.config.runs import ForegroundsTraining, ForseNetwork, Selection
from skyweave.data.normalization import Normalization
from skyweave.data.scaling import location_and_scale
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.gaussian_small_scales import Law
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.networks import registry
from skyweave.networks.card import Card, TrainedNetwork, load_network, save_network
from skyweave.seeds import generator
from skyweave.simulation.gaussian import white_modes
from skyweave.statistics.minkowski import STATISTICS, THRESHOLDS, functionals, scaled
from skyweave.statistics.superposition import mean_distance, superposition
from skyweave.statistics.tables import read_table, write_table
from skyweave.tasks import foregrounds
from skyweave.tasks.foregrounds import Pairs, SmallScales
from skyweave.tasks.training import train_run
from skyweave.training import runtime

GRID, LOW, HIGH = PatchGrid(20.0, 32), 400.0, 80.0
PARTS = ["train"] * 24 + ["validation"] * 8 + ["test"] * 12
COUNT, SEED, NOISE = len(PARTS), 5, 0.2
BEAMS = {"low_arcmin": LOW, "high_arcmin": HIGH}
PATCHES = {"count": COUNT, "size_deg": GRID.size_deg, "pixels": GRID.pixels, **BEAMS}


def dust(count=COUNT):
    """Patches at two resolutions, all of them positive, each of its own brightness."""
    ell = np.maximum(GRID.ell, GRID.ell_fundamental)
    white = np.stack([white_modes(generator(1, "dust", i), GRID) for i in range(count)])
    field = inverse(white * ell**-1.2, GRID)
    sky = np.exp(0.6 * field / field.std()) * np.geomspace(1, 100, count)[:, None, None]
    modes = forward(sky, GRID)
    return [inverse(modes * gaussian_beam(GRID.ell, fwhm), GRID) for fwhm in (HIGH, LOW)]


def write_patches(path, high, low):
    """As `tasks.sky.cut_patches` does; a corner of each patch is masked."""
    mask = np.ones(high.shape)
    mask[:, :4, :4] = 0
    with h5py.File(path, "w") as file:
        file.attrs["size_deg"] = GRID.size_deg
        file.attrs["provenance"] = f'{{"seed": 1, "settings": {{"patches": {PATCHES}}}}}'.replace(
            "'", '"'
        )
        for name, maps in (("high", high), ("low", low), ("mask", mask)):
            file[name] = np.float32(maps)


def write_pairs(folder, high, low):
    """What a dataset consists of, in `folder`."""
    write_patches(folder / "patches.h5", high, low)
    places = pd.DataFrame({"place": np.arange(COUNT), "lon": 0.0, "lat": 50.0, "split": PARTS})
    write_table(folder / "places.csv", places)
    foregrounds.write_pairs(
        folder / "patches.h5",
        folder / "places.csv",
        pairs=folder / "pairs.h5",
        split=folder / "split.csv",
        normalization=folder / "normalization.json",
    )


@dataclass
class Study:
    """A dataset in a folder, its patches, and the runs on it."""

    folder: Path
    high: np.ndarray
    low: np.ndarray

    @property
    def dataset(self):
        return {"pairs": self.folder / "pairs.h5", "split": self.folder / "split.csv"}

    def pairs(self, part):
        numbers = members(read_split(self.dataset["split"]), part)
        return Pairs.read(ShardSet([self.dataset["pairs"]]), numbers)

    def train(self, folder, by="superposition"):
        run = ForegroundsRun(
            task="foregrounds",
            dataset="dust",
            network=ForseNetwork(width=0.0625),
            noise=NOISE,
            training=ForegroundsTraining(epochs=2, batch=8, select=Selection(by=by)),
        )
        train_run(
            run,
            shards=[self.dataset["pairs"]],
            split=self.dataset["split"],
            normalization=self.folder / "normalization.json",
            network=folder / "network.keras",
            history=folder / "history.csv",
            sweep=folder / "sweep.csv",
            state=folder / "state",
            name="run",
            seed=SEED,
            threads=1,
            deadline_s=None,
        )

    def predict(self, network, out):
        foregrounds.predict_run(network / "network.keras", **self.dataset, out=out, threads=1)

    def evaluate(self, predictions):
        return foregrounds.evaluate_run(predictions, **self.dataset, name="run", seed=SEED)


def simplify(patch):
    """The threads that the tests' process has: they are set once."""
    prepare = runtime.prepare
    patch.setattr(
        runtime, "prepare", lambda seed, _, settings=None: prepare(seed, settings=settings)
    )


@pytest.fixture(autouse=True)
def simple(monkeypatch):
    simplify(monkeypatch)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dust")
    high, low = dust()
    write_pairs(folder, high, low)
    return Study(folder, high, low)


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        simplify(patch)
        study.train(folder)
    return folder


@pytest.fixture(scope="module")
def small_scales(trained):
    return SmallScales.load(trained)


@pytest.fixture(scope="module")
def predictions(study, trained):
    with pytest.MonkeyPatch.context() as patch:
        simplify(patch)
        study.predict(trained, trained / "predictions.h5")
    return trained / "predictions.h5"


@pytest.fixture(scope="module")
def evaluation(study, predictions):
    return study.evaluate(predictions)


def with_settings(small_scales, **settings):
    """The same network, of other settings."""
    card = small_scales.network.card
    card = replace(card, settings=card.settings | settings)
    return SmallScales(TrainedNetwork(small_scales.network.model, card), small_scales.law)


# Pairs


def test_pairs_are_scaled_to_their_extremes(study):
    maps = ShardSet([study.dataset["pairs"]])
    assert set(maps.fields) == {"low", "ratio", "mask"}
    for field in ("low", "ratio"):
        values = maps.read(field, np.arange(COUNT))
        np.testing.assert_allclose(values.min(axis=(1, 2)), -1, atol=1e-6)
        np.testing.assert_allclose(values.max(axis=(1, 2)), 1, atol=1e-6)
    assert not maps.labels["bad"].any()
    text = (study.folder / "normalization.json").read_text()
    assert Normalization.from_json(text).moments == {"low": (0.0, 1.0), "ratio": (0.0, 1.0)}


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_the_patches_come_back(study, part):
    found = study.pairs(part)
    rows = np.array(PARTS) == part
    assert found.numbers.tolist() == np.flatnonzero(rows).tolist()
    np.testing.assert_allclose(found.low, study.low[rows], rtol=1e-5)
    np.testing.assert_allclose(found.high, study.high[rows], rtol=1e-4)
    assert not found.keep[:, :4, :4].any()
    assert found.keep.sum() == rows.sum() * (GRID.pixels**2 - 16)
    assert (found.grid, found.low_arcmin, found.high_arcmin) == (GRID, LOW, HIGH)


def test_a_patch_of_one_value_is_named(study, tmp_path):
    low = study.low.copy()
    low[7] = 3
    with pytest.raises(UserError, match=r"^patch 7: expected finite values, not all the same"):
        write_pairs(tmp_path, study.high, low)


# Training


def test_a_run_leaves_a_network_that_says_what_it_is(study, trained):
    card = load_network(trained).card
    assert (card.inputs, card.outputs) == (("low",), ("ratio",))
    assert card.data["law"] == study.pairs("train").law().to_dict()
    assert card.settings["noise"] == NOISE
    assert card.settings["amplitude"] == "extrapolation"
    assert card.settings["network"]["width"] == 0.0625
    assert card.data["provenance"]["settings"]["patches"] == PATCHES
    history = read_table(trained / "history.csv")
    assert history.epoch.tolist() == [1, 2]
    assert {"loss_adversarial", "loss_discriminator"} <= set(history)


def curves(maps, pairs):
    return functionals(scaled(maps, pairs.keep), THRESHOLDS, pairs.keep)


@pytest.mark.parametrize(
    ("by", "function", "best"),
    [("superposition", superposition, max), ("distance", mean_distance, min)],
)
def test_the_epoch_is_picked_by_the_functionals_of_the_validation_set(
    study, trained, tmp_path, by, function, best
):
    """By another statistic the run that was trained only picks anew."""
    folder = shutil.copytree(trained, tmp_path / "run")
    study.train(folder, by)
    table = read_table(folder / "sweep.csv")
    assert table.statistic.unique().tolist() == [by]
    assert table.field.tolist() == [*STATISTICS, "all"] * 2
    mean = table[table.field == "all"].set_index("epoch").value
    picked = table.epoch[table.picked == 1].unique().tolist()
    assert picked == [mean[mean == best(mean)].index[0]]
    found, pairs = SmallScales.load(folder), study.pairs("validation")
    made = found.ratios(pairs.low, pairs.numbers)
    values = function(curves(made, pairs), curves(pairs.ratio, pairs))
    rows = table[(table.epoch == picked[0]) & (table.field != "all")]
    np.testing.assert_allclose(rows.value, values, rtol=1e-6)
    assert found.network.card.metrics["picked_by"] == by
    assert found.network.card.metrics["picked_value"] == pytest.approx(np.mean(values), rel=1e-6)


# Ratios


def test_noise_makes_realizations(study, small_scales):
    low, numbers = study.low[:3], [4, 5, 6]
    first = small_scales.ratios(low, numbers)
    np.testing.assert_array_equal(small_scales.ratios(low, numbers), first)
    # As many bits as a batch of another size leaves.
    np.testing.assert_allclose(small_scales.ratios(low[1:], numbers[1:]), first[1:], atol=1e-6)
    for other in (small_scales.ratios(low, numbers, 1), small_scales.ratios(low, [7, 8, 9])):
        away = np.std(other - first, axis=(1, 2)) / np.std(first, axis=(1, 2))
        assert (away > 0.01).all()


def test_without_noise_there_is_one_realization(study, small_scales):
    quiet = with_settings(small_scales, noise=0.0)
    first = quiet.ratios(study.low[:2], [0, 1])
    np.testing.assert_array_equal(quiet.ratios(study.low[:2], [5, 6], 1), first)
    assert np.std(small_scales.ratios(study.low[:2], [0, 1]) - first) > 0


def test_ratios_know_neither_unit_nor_zero(study, small_scales):
    first = small_scales.ratios(study.low[:2], [0, 1])
    again = small_scales.ratios(3 * study.low[:2] - 7, [0, 1])
    np.testing.assert_allclose(again, first, atol=1e-4)


@pytest.mark.parametrize("channels", [0.0625, 1.0])
def test_a_margin_of_the_network_s_reach_hides_the_edge(channels, small_scales):
    """With 24 pixels a patch does not see where the sky that it is given ends, with 8 it does."""
    from skyweave.tasks.full_sky import MARGIN

    settings = ForseNetwork(width=channels)
    model = registry.build(settings, GRID.pixels, ("low",), ("ratio",), SEED)
    card = small_scales.network.card
    card = replace(card, settings=card.settings | {"noise": 0.0, "network": settings.model_dump()})
    quiet = SmallScales(TrainedNetwork(model, card), small_scales.law)
    sky = generator(1, "margin").standard_normal((2, 96, 96))
    made = {}
    for margin in (8, MARGIN, 32):
        cut = slice(32 - margin, 64 + margin)
        made[margin] = quiet.ratios(sky[:, cut, cut], [0, 1], margin=margin)
        assert made[margin].shape == (2, 32, 32)
    np.testing.assert_allclose(made[MARGIN], made[32], atol=1e-5)
    assert np.abs(made[8] - made[32]).max() > 1e-3


# Ratios brought to the deviation that they should have


def weighted_means(ratios, low):
    return np.sum(ratios * np.abs(low), axis=(1, 2)) / np.sum(np.abs(low), axis=(1, 2))


def test_a_ratio_has_the_mean_one_and_the_deviation_of_the_law(study, small_scales):
    pairs = study.pairs("test")
    found = small_scales.matched(pairs.low, pairs.numbers)
    np.testing.assert_allclose(weighted_means(found, pairs.low), 1, atol=1e-5)
    expected = small_scales.law.ratio_deviation(pairs.low, GRID, LOW, HIGH)
    np.testing.assert_allclose(location_and_scale(found)[1], expected, rtol=1e-4)
    # Of the patch's own unit nothing is left.
    np.testing.assert_allclose(small_scales.matched(3 * pairs.low, pairs.numbers), found, rtol=1e-3)


def test_finer_patches_have_finer_small_scales(study, small_scales):
    """The same pixels four times smaller, with beams four times smaller: by the law's slope."""
    low = study.low[:3]
    found = small_scales.matched(low, [0, 1, 2], finer=4)
    grid = PatchGrid(GRID.size_deg / 4, GRID.pixels)
    assert small_scales.grid(4) == grid
    expected = small_scales.law.ratio_deviation(low, grid, LOW / 4, HIGH / 4)
    np.testing.assert_allclose(location_and_scale(found)[1], expected, rtol=1e-4)


def test_a_ratio_may_have_the_deviation_of_the_truth(study, small_scales):
    low, truth = study.low[:3], (study.high / study.low)[:3]
    found = small_scales.matched(low, [0, 1, 2], truth=truth)
    np.testing.assert_allclose(
        location_and_scale(found)[1], location_and_scale(truth)[1], rtol=1e-4
    )
    np.testing.assert_allclose(weighted_means(found, low), 1, atol=1e-5)


def test_a_point_source_in_a_ratio_leaves_the_others_scale(study, small_scales, monkeypatch):
    low, made = study.low[:2], small_scales.ratios(study.low[:2], [0, 1])
    spiked = made.copy()
    spiked[:, 16, 16] += 100
    found = []
    for ratios in (made, spiked):
        monkeypatch.setattr(SmallScales, "ratios", lambda *_, ratios=ratios: ratios)
        found.append(small_scales.matched(low, [0, 1]))
    spread = [np.std(np.delete(one.reshape(2, -1), 16 * 32 + 16, axis=1)) for one in found]
    assert spread[1] == pytest.approx(spread[0], rel=0.01)
    assert np.std(spiked) > 5 * np.std(made)


def test_patches_with_zero_crossings_have_ratios(study, small_scales):
    """As Q and U, whose deviation is that of the polarized intensity."""
    q = study.low[:3] - np.median(study.low[:3], axis=(1, 2), keepdims=True)
    p = np.hypot(q, 0.1 * study.low[:3])
    found = small_scales.matched(q, [0, 1, 2], scale_of=p)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(weighted_means(found, q), 1, atol=1e-5)
    expected = small_scales.law.ratio_deviation(p, GRID, LOW, HIGH)
    np.testing.assert_allclose(location_and_scale(found)[1], expected, rtol=1e-4)
    assert np.isfinite(small_scales.matched(q, [0, 1, 2])).all()


# What networks and baseline make of the test set


def read(path):
    """The datasets of a file, by their names."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def test_predictions_are_of_the_test_set_in_their_unit(study, small_scales, predictions):
    found, pairs = read(predictions), study.pairs("test")
    with h5py.File(predictions) as file:
        assert (file.attrs["size_deg"], file.attrs["low_arcmin"]) == (GRID.size_deg, LOW)
        assert file["prediction/high"].attrs["unit"] == "uK_CMB"
    np.testing.assert_array_equal(found["realizations"], pairs.numbers)
    np.testing.assert_allclose(found["truth/high"], pairs.high)
    np.testing.assert_array_equal(found["input/mask"] > 0.5, pairs.keep)
    made = found["prediction/high"]
    ratios = small_scales.matched(pairs.low, pairs.numbers)
    np.testing.assert_allclose(made, ratios * pairs.low, rtol=1e-4)
    for method in ("prediction", "baseline"):
        high = found[f"{method}/high"]
        np.testing.assert_allclose(high.mean(axis=(1, 2)), pairs.low.mean(axis=(1, 2)), rtol=1e-3)


def test_the_true_amplitude_is_that_of_each_patch(study, small_scales, tmp_path):
    network = with_settings(small_scales, amplitude="truth").network
    save_network(tmp_path, network.model, network.card)
    study.predict(tmp_path, tmp_path / "predictions.h5")
    found = read(tmp_path / "predictions.h5")
    made, true = (found[f"{name}/high"] / found["input/low"] for name in ("prediction", "truth"))
    np.testing.assert_allclose(location_and_scale(made)[1], location_and_scale(true)[1], rtol=1e-3)


def test_tables_have_their_columns(evaluation):
    names = ["run", "split", "field", "method", "statistic"]
    columns = {
        "metrics": [*names, "ell", "value", "error", "n"],
        "curves": [*names, "threshold", "value", "error", "std", "n"],
        "scores": [*names, "value", "error", "ceiling", "ceiling_low", "n"],
        "nearest": ["realization", "method", "nearest", "correlation"],
    }
    for name, expected in columns.items():
        table = getattr(evaluation, name)
        assert table.columns.tolist() == expected
        value = "correlation" if name == "nearest" else "value"
        assert np.isfinite(table[value]).all(), name
    metrics, scores = evaluation.metrics, evaluation.scores
    assert set(metrics.method) == {"input", "truth", "network", "gaussian"}
    assert np.isfinite(metrics.error[~metrics.statistic.str.startswith("cl_p")]).all()
    assert set(scores.method) == {"network", "gaussian"}
    assert np.isfinite(scores.ceiling[scores.statistic.str.startswith("overlap")]).all()
    assert set(evaluation.curves.statistic) == {*STATISTICS, "one_point"}
    for table in (metrics, evaluation.curves, scores):
        assert set(table.n) == {PARTS.count("test")}
    assert set(evaluation.nearest.nearest) <= set(range(PARTS.count("train")))
    assert len(evaluation.verdicts) == 9
    assert all(verdict["value"] is not None for verdict in evaluation.verdicts)


def test_an_evaluation_is_the_same_again(study, predictions, evaluation):
    again = study.evaluate(predictions)
    for name in ("metrics", "curves", "scores", "nearest"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(evaluation, name))
    assert again.verdicts == evaluation.verdicts


def judged(study, predictions, tmp_path, high):
    """Verdicts, by their first words, of other small scales of the test set."""
    path = shutil.copy(predictions, tmp_path / "predictions.h5")
    with h5py.File(path, "a") as file:
        file["prediction/high"][...] = high
    return {one["check"].split(":")[0]: one for one in study.evaluate(path).verdicts}


def test_the_truth_beats_the_baseline(study, predictions, tmp_path):
    found = judged(study, predictions, tmp_path, study.pairs("test").high)
    found.pop("likeness to the nearest training patch")
    # Patches of 32² hold few triangles, and the baseline has the right power where it can.
    assert all(one["value"] > 1 for one in found.values())
    shape = [one for check, one in found.items() if "overlap" in check or "one-point" in check]
    assert len(shape) == 4
    assert all(one["passed"] for one in shape)


def test_the_baseline_does_not_beat_itself(study, predictions, tmp_path):
    """Nor is there an error to count in."""
    found = judged(study, predictions, tmp_path, read(predictions)["baseline/high"])
    found.pop("likeness to the nearest training patch")
    assert {(one["value"], one["passed"]) for one in found.values()} == {(None, False)}


def test_a_network_that_knows_patches_by_heart_is_found_out(study, predictions, tmp_path):
    test, known = study.pairs("test"), study.pairs("train")
    copied = test.low * (1 + 0.1 * known.ratio[: len(test.low)])
    found = judged(study, predictions, tmp_path, copied)
    assert not found["likeness to the nearest training patch"]["passed"]
    table = study.evaluate(tmp_path / "predictions.h5").nearest
    made = table[table.method == "network"]
    assert made.nearest.tolist() == known.numbers[: len(test.low)].tolist()
    np.testing.assert_allclose(made.correlation, 1, atol=1e-3)


def test_the_baseline_beats_small_scales_that_are_too_faint(study, predictions, tmp_path):
    pairs = study.pairs("test")
    found = judged(study, predictions, tmp_path, pairs.low + 0.5 * (pairs.high - pairs.low))
    assert found["power spectrum"]["value"] < -3
    assert not found["power spectrum"]["passed"]


def test_a_network_of_another_task_is_told_in_one_line(study, tmp_path):
    card = Card(
        inputs=("low",),
        outputs=("ratio",),
        units={"low": "", "ratio": ""},
        normalization=Normalization(dict.fromkeys(("low", "ratio"), (0.0, 1.0))),
        size_deg=GRID.size_deg,
        pixels=GRID.pixels,
        seed=SEED,
    )
    model = registry.build(ForseNetwork(width=0.0625), GRID.pixels, ("low",), ("ratio",), SEED)
    save_network(tmp_path, model, card)
    with pytest.raises(UserError, match="a network that adds small scales") as caught:
        study.predict(tmp_path, tmp_path / "predictions.h5")
    assert caught.value.where == str(tmp_path / "card.json")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "predictions.h5").exists()


def test_a_law_is_read_as_it_was_written(small_scales, study):
    assert small_scales.law == study.pairs("train").law()
    assert Law.from_dict(small_scales.network.card.data["law"]) == small_scales.law
    assert small_scales.patches.low_arcmin == LOW
