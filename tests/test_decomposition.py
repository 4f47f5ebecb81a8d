"""The task decomposition: what runs of each kind leave, predict, and are judged by."""

import copy
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from skyweave.config import parse
from skyweave.config.decomposition import chain_of
from skyweave.data.feed import white_noise
from skyweave.data.normalization import Normalization
from skyweave.data.predictions import Predictions, write_predictions
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.analytic_eb import analytic_eb
from skyweave.estimators.gains import MOST
from skyweave.flat.fourier import bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb
from skyweave.networks.card import load_network, predict
from skyweave.simulation.optical_depth import tau_cl
from skyweave.simulation.spectra import SpectraTable
from skyweave.statistics.flat_spectra import cross_spectra, default_bins
from skyweave.statistics.reconstruction import COLUMNS
from skyweave.statistics.tables import read_table
from skyweave.tasks import decomposition
from skyweave.tasks.decomposition_scores import evaluate_run
from skyweave.tasks.simulation import prepare, write_realizations
from skyweave.tasks.training import train_run
from skyweave.training import runtime
from test_workflow import ROOT, snakemake

GRID = PatchGrid(5.0, 36)
BINS = default_bins(GRID)
SEED = 3

DATASET = {
    "kind": "cmb",
    "spectra": {"lmax": 2400},
    "grid": {"size_deg": 5, "pixels": 36, "oversample": 2},
    "effects": {"reionization": False, "null_fraction": 0, "taper_deg": 1},
    "channels": {"obs": {"noise_uk_arcmin": 1}},
    "fields": [
        *("q_obs", "u_obs", "e_obs", "b_obs", "e_sky", "b_sky", "kappa"),
        *("q_prim", "u_prim", "e_prim", "e_pure", "b_pure"),
    ],
    "realizations": 64,
    "shard_size": 64,
    "split": {"train": 0.5, "validation": 0.25, "test": 0.25},
    "estimates": {"calibration": 16, "iterations": 1},
}
NOTHING = DATASET | {"effects": DATASET["effects"] | {"null_fraction": 1}}
PLAIN = {
    "task": "decomposition",
    "dataset": "made",
    "method": "plain",
    "network": {"name": "pix2pix", "width": 0.0625, "dropout": 0},
    "training": {"epochs": 12, "batch": 8, "learning_rate": 0.01, "beta_1": 0.9},
    "losses": {"spectrum": 100, "energy": 1},
    "tests": ["nothing"],
}
SIMPLE = {
    **{key: PLAIN[key] for key in ("task", "dataset", "method", "network")},
    "training": {"epochs": 1, "batch": 8, "learning_rate": 0.001},
}
STAGE_0 = SIMPLE | {"targets": ["q_prim", "u_prim", "kappa"]}
STAGE_1 = STAGE_0 | {"targets": ["e_pure", "b_pure"], "after": "stage_0", "beside": ["stage_0"]}
RUNS = {
    "plain": PLAIN,
    "started": PLAIN | {"start": "plain"},
    "adversarial": SIMPLE
    | {
        "method": "adversarial",
        "beside": ["plain"],
        "targets": ["e_sky", "kappa"],
        "normalize": False,
        "noise_channels": 2,
        "samples": 3,
        "discriminator": {"width": 0.0625, "layers": 1, "batch_norm": False, "spectral_norm": True},
        "adversarial": {"fidelity_draws": 2, "generator_steps": 1, "loss": "wasserstein"},
    },
    "stage_0": STAGE_0,
    "stage_1": STAGE_1,
    "joint": STAGE_1 | {"start": "stage_1", "joint": True, "beside": ["stage_1"]},
    "flow": SIMPLE
    | {
        "method": "flow",
        "after": "plain",
        "beside": ["plain", "adversarial"],
        "targets": ["e_sky", "kappa"],
        "inputs": ["q_obs", "u_obs", "e_obs"],
        "network": {"width": 0.0625, "dropout": 0},
        "samples": 9,
        "flow": {"steps": 1},
    },
}


def settings(**runs):
    """A study of these runs."""
    datasets = {"made": DATASET, "nothing": NOTHING}
    return copy.deepcopy({"seed": SEED, "datasets": datasets, "runs": runs})


def spectra(path):
    """A table of about the CMB's size and slope, with tensors or, where nothing is lensed, none."""
    ell = np.arange(2401)
    safe = np.maximum(ell, 2)
    to_cl = 2 * np.pi / (safe * (safe + 1.0)) * (ell >= 2)
    damping = np.exp(-((ell / 1400) ** 1.3))
    cl = {
        "tt": 2500 * damping * to_cl,
        "ee": 40 * damping * (0.2 + np.sin(np.pi * ell / 300) ** 2) * to_cl,
        "bb": (0.0 if path.stem == "nothing" else 2.0) * damping * to_cl,
        "te": np.zeros(len(ell)),
        "kk": 2e-7 / (1 + (safe / 150) ** 1.5),
        "tautau": tau_cl(2400),
    }
    SpectraTable(cl).write(path)


def make(folder, name, settings):
    """A dataset as the workflow makes it, in one shard."""
    spectra(folder / f"{name}.csv")
    write_realizations(
        folder / f"{name}.h5",
        [folder / f"{name}.csv"],
        grid=settings.grid,
        effects=settings.effects,
        channels=settings.channels,
        fields=settings.fields,
        points=[{}],
        seed=SEED,
        dataset=name,
        realizations=range(settings.realizations),
    )
    prepare(
        [folder / f"{name}.h5"],
        folder / f"{name}-split.csv",
        folder / f"{name}-normalization.json",
        split=settings.split,
        seed=SEED,
        dataset=name,
    )


@dataclass
class Study:
    """Two datasets in a folder, and runs on them, each trained when it is first asked for."""

    folder: Path
    settings: object
    made: dict = field(default_factory=dict)

    @property
    def maps(self):
        return ShardSet([self.folder / "made.h5"])

    def numbers(self, part, dataset="made"):
        return members(read_split(self.folder / f"{dataset}-split.csv"), part)

    def networks(self, run):
        """The files of the networks that a run needs."""
        others = {"after": run.after, "start": run.start}
        return {key: self.run(name) / "network.keras" for key, name in others.items() if name}

    def train(self, name, folder, **changes):
        run = self.settings.runs[name].model_copy(update=changes)
        train_run(
            run,
            shards=[self.folder / "made.h5"],
            split=self.folder / "made-split.csv",
            normalization=self.folder / "made-normalization.json",
            network=folder / "network.keras",
            history=folder / "history.csv",
            sweep=folder / "sweep.csv",
            state=folder / "state",
            name=name,
            seed=SEED,
            threads=1,
            deadline_s=None,
            networks=self.networks(run),
        )

    def run(self, name):
        """The folder of a trained run."""
        if name not in self.made:
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            self.train(name, folder)
            self.made[name] = folder
        return self.made[name]

    def build(self, name, **changes):
        """The network of a run as it is before training."""
        run = self.settings.runs[name].model_copy(update=changes)
        parts = read_split(self.folder / "made-split.csv")
        recipe = decomposition.recipe(run, self.maps, parts, name, SEED, self.networks(run))
        text = (self.folder / "made-normalization.json").read_text()
        return recipe.build(Normalization.from_json(text))

    def predict(self, network, out, dataset="made"):
        decomposition.predict_run(
            network / "network.keras",
            shards=[self.folder / f"{dataset}.h5"],
            split=self.folder / f"{dataset}-split.csv",
            out=out,
            threads=1,
        )
        return out

    def predictions(self, name, dataset="made"):
        """The file of what a run makes of a test set."""
        out = self.run(name) / f"{dataset}.h5"
        return out if out.exists() else self.predict(self.run(name), out, dataset)

    def evaluate(self, name, plain=None):
        """Metrics, calibration and verdicts of a run, with all that its settings name."""
        run = self.settings.runs[name]
        return evaluate_run(
            self.predictions(name),
            run,
            name=name,
            beside={other: self.predictions(other) for other in run.beside},
            tests={other: self.predictions(name, other) for other in run.tests},
            plain=plain,
        )


@pytest.fixture(autouse=True)
def simple(monkeypatch):
    """The threads that the tests' process has: they are set once."""
    prepare = runtime.prepare
    monkeypatch.setattr(
        runtime, "prepare", lambda seed, _, settings=None: prepare(seed, settings=settings)
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    found = parse(settings(**RUNS))
    for name, dataset in found.datasets.items():
        make(folder, name, dataset)
    return Study(folder, found)


def read(path, *names):
    with h5py.File(path) as file:
        found = [file[name][()] for name in names]
    return found if len(found) > 1 else found[0]


def rows(metrics, **wanted):
    """Rows with these values in these columns, which there must be."""
    for column, value in wanted.items():
        metrics = metrics[metrics[column] == value]
    assert len(metrics), wanted
    return metrics


def weights(model):
    return [np.asarray(weight) for weight in model.weights]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# A plain run


def test_a_run_leaves_a_network_that_says_what_it_is(study):
    folder = study.run("plain")
    card = load_network(folder).card
    assert card.inputs == ("q_obs", "u_obs")
    assert card.outputs == ("e_sky", "kappa", "b_sky")
    assert card.settings["method"] == "plain"
    assert card.settings["losses"]["energy"] == 1
    assert card.units["e_sky"] == "uK_CMB"
    assert card.data["realizations"] == {"train": 32, "validation": 16, "test": 16}
    history = read_table(folder / "history.csv")
    losses = {"loss_e_sky", "loss_kappa", "loss_b_sky", "loss_spectrum", "loss_energy"}
    assert losses <= set(history)
    # Against a discriminator the difference to the truth weighs 100, and these 100 and 1.
    row = history.iloc[-1]
    expected = row.loss_e_sky + row.loss_kappa + row.loss_b_sky
    assert row.loss == pytest.approx(expected + row.loss_spectrum + 0.01 * row.loss_energy)


def test_the_loss_of_the_energy_is_that_of_the_maps(study):
    """Of the validation set, whose maps are read here, by the numbers that the history has."""
    network, numbers = load_network(study.run("plain")), study.numbers("validation")
    maps = {name: study.maps.read(name, numbers).astype(float) for name in ("q_obs", "u_obs")}
    found = predict(network, maps)
    scales = network.card.normalization
    wanted = scales.apply("e_sky", study.maps.read("e_sky", numbers))
    error = np.mean(np.abs(scales.apply("e_sky", found["e_sky"]) - wanted))
    row = read_table(study.run("plain") / "history.csv").iloc[-1]
    assert row.val_loss_e_sky == pytest.approx(error, rel=1e-4)
    made, seen = (
        sum(np.mean(values[name] ** 2, axis=(1, 2)) for name in names)
        for values, names in ((found, ("e_sky", "b_sky")), (maps, ("q_obs", "u_obs")))
    )
    assert row.val_loss_energy == pytest.approx(np.mean(np.abs(made / seen - 1)), rel=1e-3)


def test_what_is_predicted_lies_beside_truth_and_estimates(study):
    path, numbers = study.predictions("plain"), study.numbers("test")
    with h5py.File(path) as file:
        assert set(file) == {"realizations", "input", "truth", "prediction", "estimates"}
        assert file["realizations"][:].tolist() == numbers.tolist()
        assert dict(file.attrs) == {"size_deg": 5.0, "taper_deg": 1.0}
        maps = {name: study.maps.read(name, numbers) for name in study.maps.fields}
        found = predict(load_network(study.run("plain")), maps)
        for name in ("e_sky", "kappa", "b_sky"):
            np.testing.assert_array_equal(file["truth"][name], maps[name])
            np.testing.assert_array_equal(file["prediction"][name], found[name])
            assert file["prediction"][name].attrs["unit"] == study.maps.units[name]
        eb = analytic_eb(maps["q_obs"], maps["u_obs"], GRID)
        assert set(file["estimates/analytic_eb"]) == {"e_sky", "b_sky"}
        for name, expected in zip(("e_sky", "b_sky"), eb, strict=True):
            np.testing.assert_allclose(file[f"estimates/analytic_eb/{name}"], expected, atol=1e-5)


def test_a_network_is_asked_once_for_all_its_fields(study, monkeypatch):
    from skyweave.networks import card

    asked = []
    monkeypatch.setattr(card, "predict", lambda *given: asked.append(1) or predict(*given))
    trained, numbers = load_network(study.run("plain")), study.numbers("test")
    inputs = decomposition.read_inputs(trained, study.maps, numbers)
    means, samples = decomposition.decompose(trained, inputs, numbers)
    assert set(means) == {"e_sky", "kappa", "b_sky"}
    assert (len(asked), samples) == (1, {})


def test_power_and_correlation_are_those_of_the_maps(study):
    metrics, curves, _ = study.evaluate("plain")
    assert tuple(metrics.columns) == COLUMNS
    assert curves.empty
    test = Predictions(study.predictions("plain"))
    for method in ("network", "analytic_eb"):
        maps, truth = test.estimate("e_sky", method), test.truth("e_sky")
        auto, true, cross = (
            cross_spectra(*both, GRID, BINS, taper=test.taper).mean(axis=0)
            for both in ((maps, maps), (truth, truth), (maps, truth))
        )
        for statistic, expected in (
            ("power_ratio", auto / true),
            ("correlation", cross / np.sqrt(auto * true)),
        ):
            found = rows(metrics, field="e_sky", method=method, statistic=statistic)
            np.testing.assert_allclose(found.value, expected, rtol=1e-6)
    # Noise of 1 µK arcmin and a taper: what the equation gives is nearly the truth.
    analytic = rows(metrics, field="e_sky", method="analytic_eb", statistic="correlation")
    assert (analytic[analytic.ell > 300].value > 0.9).all()


def test_b_where_there_is_none_is_its_null_test(study):
    metrics, _, verdicts = study.evaluate("plain")
    truth, maps = read(
        study.predictions("plain", "nothing"), "truth/b_sky", "estimates/analytic_eb/b_sky"
    )
    assert not truth.any()
    null = metrics[metrics.statistic == "power_null"]
    assert set(null.field) == {"b_sky"}
    assert set(null.method) == {"network", "analytic_eb"}
    taper = Predictions(study.predictions("plain", "nothing")).taper
    leaked = rows(null, method="analytic_eb")
    expected = cross_spectra(maps, maps, GRID, BINS, taper=taper)
    np.testing.assert_allclose(leaked.value, expected.mean(axis=0), rtol=1e-6)
    assert (leaked.n == len(maps)).all()
    judged = [one for one in verdicts if one["check"].startswith("b_sky")]
    words = ("over that where there is B", "over leakage and noise of the analytic E/B")
    checks = [f"b_sky: power predicted on skies without B {word}" for word in words]
    assert [one["check"] for one in judged] == checks
    others = [one["check"] for one in verdicts if one not in judged]
    assert [check.partition(":")[0] for check in others] == ["e_sky", "kappa"]
    own = rows(null, method="network").value.to_numpy()
    assert judged[-1]["value"] == pytest.approx(np.mean(own / leaked.value.to_numpy()))


def test_a_sky_with_b_is_no_null_test(study):
    path = study.predictions("plain")
    run = study.settings.runs["plain"]
    metrics, _, verdicts = evaluate_run(
        path, run, name="plain", beside={}, tests={"same": path}, plain=None
    )
    assert "power_null" not in set(metrics.statistic)
    assert not [one for one in verdicts if one["check"].startswith("b_sky")]


# Gains


def test_a_gain_gives_the_power_of_the_truth_and_takes_no_correlation(study, tmp_path):
    """Of the network that was trained: its state is there, and the gain comes afterwards."""
    folder = shutil.copytree(study.run("plain"), tmp_path / "run")
    study.train("plain", folder, gain="power")
    before, after = load_network(study.run("plain")), load_network(folder)
    assert after.card.settings["gain"] == "power"
    numbers = study.numbers("validation")
    inputs = decomposition.read_inputs(before, study.maps, numbers)

    for name in before.card.outputs:
        own, raised = (
            forward(decomposition.decompose(network, inputs, numbers)[0][name].astype(float), GRID)
            for network in (before, after)
        )
        truth = forward(study.maps.read(name, numbers).astype(float), GRID)
        was, found, wanted = (
            bin_power(power(modes, modes, GRID).mean(axis=0), GRID, BINS)
            for modes in (own, raised, truth)
        )
        assert np.abs(was / wanted - 1).max() > 0.1
        # Where the largest gain is not enough a band stays short of power, and so may what is near.
        enough = np.sqrt(wanted / was) < 0.9 * MOST
        assert enough.any()
        assert name != "e_sky" or enough.all()
        np.testing.assert_allclose(found[enough], wanted[enough], rtol=0.01)
        assert (found < 1.01 * wanted).all()
        known = np.abs(own) > 1e-3 * np.abs(own).max()
        gain = (raised / np.where(known, own, 1))[known]
        np.testing.assert_allclose(gain.imag, 0, atol=1e-3 * gain.real.max())
        assert (gain.real > 0).all()
        # Modes of one multipole have one gain, and so the correlation that they had.
        ell = np.broadcast_to(GRID.ell, own.shape)[known].round(6)
        order = np.argsort(ell, kind="stable")
        each = np.split(gain.real[order], np.flatnonzero(np.diff(ell[order])) + 1)
        assert max(np.ptp(one) / one.mean() for one in each) < 1e-3


# Weights to start from


def test_a_run_starts_from_the_weights_of_another(study):
    start = load_network(study.run("plain")).model
    assert same(weights(study.build("started")), weights(start))
    assert not same(weights(study.build("started", start=None)), weights(start))


def test_a_start_of_another_layout_is_named(study, tmp_path):
    wider = study.settings.runs["plain"].network.model_copy(update={"width": 0.125})
    with pytest.raises(UserError, match=r"^weights of the start: expected .* of shape") as caught:
        study.train("started", tmp_path, network=wider)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"^weights of the network: expected"):
        study.train("started", tmp_path, targets=("e_sky", "b_sky"))
    assert not list(tmp_path.glob("network*"))


# Against a discriminator


def test_noise_among_the_inputs_makes_samples(study):
    trained = load_network(study.run("adversarial"))
    assert trained.card.inputs == ("q_obs", "u_obs", "noise_1", "noise_2")
    history = read_table(study.run("adversarial") / "history.csv")
    assert {"loss_adversarial", "loss_discriminator"} <= set(history)
    mean, samples = read(study.predictions("adversarial"), "prediction/e_sky", "samples/e_sky")
    assert samples.shape == (3, 16, 36, 36)
    np.testing.assert_allclose(mean, samples.mean(axis=0), rtol=1e-5, atol=1e-5)
    assert set(h5py.File(study.predictions("adversarial"))["input"]) == {"q_obs", "u_obs"}


def test_maps_may_stay_in_their_units(study):
    """A sample is what the network makes of maps and noise as they are."""
    network, path = load_network(study.run("adversarial")), study.predictions("adversarial")
    assert set(network.card.normalization.moments.values()) == {(0.0, 1.0)}
    numbers, *maps = read(path, "realizations", "input/q_obs", "input/u_obs")
    noise = [white_noise(1, (36, 36, 2), SEED, "sample", 1, int(number)) for number in numbers]
    x = np.concatenate([np.stack(maps, axis=-1), noise], axis=-1)
    for name, made in network.model(x, training=False).items():
        found = read(path, f"samples/{name}")[1]
        np.testing.assert_allclose(found, np.asarray(made)[..., 0], atol=1e-5 * found.std())


@pytest.mark.parametrize("name", ["adversarial", "flow"])
def test_samples_are_drawn_by_the_patch_s_number(study, name):
    """Alike whenever and beside whatever they are drawn, and others for another number."""
    trained, numbers = load_network(study.run(name)), study.numbers("test")[:3]
    inputs = decomposition.read_inputs(trained, study.maps, numbers)
    found = read(study.predictions(name), "samples/kappa")[:, :3]
    deviation = found.std()
    again = decomposition.decompose(trained, inputs, numbers)[1]["kappa"]
    np.testing.assert_allclose(again, found, atol=1e-4 * deviation)
    alone = {key: maps[1:2] for key, maps in inputs.items()}
    one = decomposition.decompose(trained, alone, numbers[1:2])[1]["kappa"]
    np.testing.assert_allclose(one[:, 0], found[:, 1], atol=1e-4 * deviation)
    other = decomposition.decompose(trained, alone, [1000])[1]["kappa"]
    for maps in (other[:, 0], found[::-1, 1]):
        assert (np.std(maps - found[:, 1], axis=(1, 2))[[0, -1]] > 1e-3 * deviation).all()


def test_another_run_is_shown_on_the_same_patches(study):
    metrics, curves, verdicts = study.evaluate("adversarial", plain="plain")
    own = study.evaluate("plain")[0]
    keys = ["field", "statistic", "ell"]
    for name in ("e_sky", "kappa"):
        shown = rows(metrics, field=name, method="plain", statistic="power_ratio")
        expected = rows(own, field=name, method="network", statistic="power_ratio")
        np.testing.assert_array_equal(shown.value, expected.value)
        both = [
            rows(metrics, field=name, method=method, statistic="correlation")
            for method in ("mean", "plain")
        ]
        found = rows(metrics, field=name, method="plain", statistic="correlation_difference")
        np.testing.assert_allclose(
            found.value, both[0].value.to_numpy() - both[1].value.to_numpy(), atol=1e-9
        )
    assert not metrics.duplicated([*keys, "method"]).any()
    assert "b_sky" not in set(metrics.field), "no field of its own"
    assert set(curves.field) == {"e_sky", "kappa"}
    for name in ("e_sky", "kappa"):
        checks = [one["check"] for one in verdicts if one["check"].startswith(name)]
        assert len(checks) == 4
        assert "power of samples" in checks[0]
        assert "loss of r_ell in a band against the run plain" in checks[1]
        assert "68 % interval" in checks[2]
    assert len(verdicts) == 8


def test_predictions_of_other_patches_are_named(study, tmp_path):
    test = Predictions(study.predictions("plain"))
    run = study.settings.runs["adversarial"]
    other = tmp_path / "other.h5"
    write_predictions(
        other,
        {group: {"e_sky": test.truth("e_sky")} for group in ("truth", "prediction")},
        realizations=test.realizations + 1,
        units={"e_sky": "uK_CMB"},
        size_deg=5.0,
        taper_deg=1.0,
    )
    with pytest.raises(UserError, match=r"other\.h5: expected the patches of ") as caught:
        evaluate_run(
            study.predictions("plain"),
            run,
            name="run",
            beside={"other": other},
            tests={},
            plain=None,
        )
    assert "\n" not in str(caught.value)


# Two networks


def test_the_first_of_two_networks_stays_as_it_was(study):
    first = load_network(study.run("stage_0"))
    both = load_network(study.run("stage_1"))
    assert both.card.outputs == ("e_pure", "b_pure")
    assert same(weights(both.model.get_layer("first").network), weights(first.model))
    untrained = study.build("stage_1").get_layer("second")
    assert not same(weights(both.model.get_layer("second")), weights(untrained))


def test_the_second_sees_e_and_b_of_what_the_first_gave(study):
    import keras

    both = load_network(study.run("stage_1"))
    second, scales = both.model.get_layer("second"), both.card.normalization
    channels = keras.Model(both.model.input, both.model.get_layer("channels").output)
    numbers = study.numbers("test")
    maps = decomposition.read_inputs(both, study.maps, numbers)
    x = np.stack([scales.apply(name, maps[name]) for name in maps], axis=-1)
    seen = np.asarray(channels(x, training=False))
    assert seen.shape[-1] == second.input_shape[-1] == 2 + 3 + 2
    first = predict(load_network(study.run("stage_0")), maps)
    for place, expected in zip(
        (5, 6), qu_to_eb(first["q_prim"], first["u_prim"], GRID), strict=True
    ):
        unit = seen[..., place].std() / expected.std()
        np.testing.assert_allclose(seen[..., place], unit * expected, atol=1e-3)
        assert unit * expected.std() == pytest.approx(1, rel=0.3)


def test_both_learn_from_where_the_second_was_left(study):
    """Before training they give what stage 1 gives, and what the first does besides."""
    parts = {name: load_network(study.run(name)) for name in ("stage_0", "stage_1", "joint")}
    x = np.random.default_rng(0).standard_normal((2, 36, 36, 2)).astype(np.float32)
    start = study.build("joint")(x, training=False)
    for name in ("stage_0", "stage_1"):
        for key, maps in parts[name].model(x, training=False).items():
            np.testing.assert_allclose(start[key], maps, atol=1e-5)
    joint = parts["joint"]
    assert joint.card.outputs == ("e_pure", "b_pure", "q_prim", "u_prim", "kappa")
    assert not same(weights(joint.model.get_layer("first")), weights(parts["stage_0"].model))
    history = read_table(study.run("joint") / "history.csv")
    assert {"loss_e_pure", "loss_q_prim", "loss_kappa"} <= set(history)


def test_runs_without_a_field_in_common_are_not_held_against_each_other(study):
    metrics, _, verdicts = study.evaluate("stage_1", plain="stage_0")
    assert set(metrics.method) == {"network", "analytic_eb"}
    assert all(np.isfinite(one["value"]) for one in verdicts)
    assert not [one for one in verdicts if "stage_0" in one["check"]]
    metrics, _, verdicts = study.evaluate("joint", plain="stage_1")
    (one,) = [one for one in verdicts if "stage_1" in one["check"]]
    assert one["check"].startswith("e_pure")
    assert all(np.isfinite(one["value"]) for one in verdicts)


# Flows


def test_a_flow_samples_what_the_mean_leaves_open(study):
    trained = load_network(study.run("flow"))
    assert trained.card.inputs[3:] == ("state_e_sky", "state_kappa", "time")
    plain = load_network(study.run("plain"))
    numbers = study.numbers("validation")
    inputs = decomposition.read_inputs(trained, study.maps, numbers)
    means, samples = decomposition.decompose(trained, inputs, numbers)
    expected = predict(plain, inputs)
    for name in ("e_sky", "kappa"):
        left = study.maps.read(name, numbers) - expected[name]
        rms = np.sqrt(np.mean(left**2))
        assert samples[name].shape == (9, 16, 36, 36)
        # A mean of 9 samples scatters by a third of their deviation.
        assert np.sqrt(np.mean((means[name] - expected[name]) ** 2)) < 0.5 * rms
        drawn = samples[name] - means[name]
        assert np.sqrt(np.mean(drawn**2) * 9 / 8) == pytest.approx(rms, rel=0.3)


def test_a_flow_is_judged_by_its_samples(study):
    metrics, curves, verdicts = study.evaluate("flow", plain="plain")
    assert {"samples", "plain", "adversarial", "adversarial_samples"} <= set(metrics.method)
    assert set(curves.field) == {"e_sky", "kappa"}
    for name in ("e_sky", "kappa"):
        checks = [one["check"] for one in verdicts if one["check"].startswith(name)]
        assert len(checks) == 4
        assert "power of samples" in checks[0]
        ratio = rows(metrics, field=name, method="samples", statistic="power_ratio").value
        own = rows(metrics, field=name, method="network", statistic="power_ratio").value
        assert (ratio.to_numpy() > own.to_numpy()).all(), "a mean has less power than a sample"


# What lies in the run's folder is enough


@pytest.mark.parametrize("name", ["joint", "flow", "adversarial"])
def test_network_and_card_are_enough(study, tmp_path, name):
    for file in ("network.keras", "card.json"):
        shutil.copy(study.run(name) / file, tmp_path / file)
    found = study.predict(tmp_path, tmp_path / "p.h5")
    with h5py.File(found) as file, h5py.File(study.predictions(name)) as expected:
        for key in expected["prediction"]:
            np.testing.assert_array_equal(file["prediction"][key], expected["prediction"][key])


def test_networks_load_where_nothing_else_is_imported(study):
    """Layers of ours, of gains, chains and spectral norms, are known to a process that loads."""
    folders = [str(study.run(name)) for name in ("joint", "stage_1", "adversarial", "flow")]
    code = (
        "import sys\nfrom skyweave.networks.card import load_network\n"
        "for folder in sys.argv[1:]:\n    load_network(folder)\n"
    )
    command = [sys.executable, "-c", code, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Mistakes


FLOW = {"method": "flow", "network": {"dropout": 0}}


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        ({"after": "none"}, "runs.one.after", "a decomposition run on the same dataset"),
        ({"after": "one"}, "runs.one.after", "found 'one'"),
        ({"start": "none"}, "runs.one.start", "(plain), found 'none'"),
        ({"beside": ["none"]}, "runs.one.beside", "found 'none'"),
        ({"joint": True}, "runs.one.joint", "expected a run `after` with it, found none"),
        (FLOW | {"noise_channels": 1}, "runs.one.noise_channels", "expected 0 with `method: flow`"),
        (FLOW | {"gain": "power"}, "runs.one.gain", "expected 'none' with `method: flow`"),
        (FLOW | {"losses": {"spectrum": 1}}, "runs.one.losses", "neither spectrum nor energy"),
        (
            FLOW | {"after": "plain", "targets": ["e_prim"]},
            "runs.one.targets",
            "some of 'plain' (e_sky, kappa, b_sky)",
        ),
        ({"noise_channels": 1}, "runs.one.noise_channels", "expected 0 with `method: plain`"),
        (
            {"method": "adversarial", "after": "plain", "noise_channels": 1},
            "runs.one.noise_channels",
            "expected 0 with a run `after`, found 1",
        ),
        (
            {"losses": {"energy": 1}, "targets": ["kappa", "b_sky"]},
            "runs.one.targets",
            "expected E among them with `losses.energy`",
        ),
        (
            {"losses": {"energy": 1}, "inputs": ["q_obs"]},
            "runs.one.inputs",
            "expected U among them with `losses.energy`, found q_obs",
        ),
        (
            {"method": "adversarial", "adversarial": {"loss": "wasserstein"}},
            "runs.one.adversarial.gradient_penalty",
            "with `loss: wasserstein`, found 0",
        ),
        (
            {"method": "adversarial", "adversarial": {"gradient_penalty": 10}},
            "runs.one.discriminator.batch_norm",
            "expected false with `adversarial.gradient_penalty`",
        ),
        (
            {"method": "adversarial", "adversarial": {"fidelity_draws": 2}},
            "runs.one.adversarial.fidelity_draws",
            "expected 1 without `noise_channels`, found 2",
        ),
        (
            {"losses": {"spectrum": 1}, "adversarial": {"fidelity": 0}},
            "runs.one.adversarial.fidelity",
            "expected more than 0 with `method: plain`",
        ),
        (
            {"after": "plain", "inputs": ["u_obs", "q_obs"]},
            "runs.one.inputs",
            "to begin with those of 'plain' (q_obs, u_obs), scaled alike, found u_obs, q_obs",
        ),
        ({"after": "plain", "normalize": False}, "runs.one.inputs", "scaled alike"),
        ({"network": {"name": "hybrid"}}, "runs.one.network", "inputs that estimate a target"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(change, where, words):
    with pytest.raises(UserError) as caught:
        parse(settings(plain=SIMPLE, one=SIMPLE | change))
    assert str(caught.value.where).startswith(where)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["after", "start"])
def test_runs_that_wait_for_each_other_are_named(key):
    """In a ring, which a third run only leads to."""
    ring = {"a": SIMPLE | {key: "b"}, "b": SIMPLE | {"after": "a"}}
    with pytest.raises(UserError) as caught:
        parse(settings(first=SIMPLE | {"after": "a"}, **ring))
    assert re.match(r"runs\.[ab]\.after: expected no run that itself comes", str(caught.value))
    assert "\n" not in str(caught.value)


def test_what_comes_after_may_not_draw_samples():
    runs = {"drawn": SIMPLE | {"method": "adversarial", "noise_channels": 1}}
    with pytest.raises(UserError, match=r"^runs\.one\.after: expected a run that makes no samples"):
        parse(settings(**runs, one=SIMPLE | {"after": "drawn"}))


def test_all_runs_that_one_needs_are_found():
    found = parse(settings(**RUNS)).runs
    assert list(chain_of("joint", found)) == ["stage_0", "stage_1"]
    assert list(chain_of("flow", found)) == ["plain"]
    assert list(chain_of("plain", found)) == []


# In the workflow


def edges(done):
    """Pairs of runs whose training waits for the other's, of a graph of jobs."""
    assert done.returncode == 0, done.stdout + done.stderr
    names = dict(re.findall(r'^\s*(\d+)\[label = "train\\nrun: (\w+)"', done.stdout, re.MULTILINE))
    pairs = re.findall(r"^\s*(\d+) -> (\d+)$", done.stdout, re.MULTILINE)
    return {(names[a], names[b]) for a, b in pairs if a in names and b in names}


def test_training_waits_for_the_networks_that_it_needs():
    path = ROOT / "config" / "studies" / "astrodgan.yaml"
    words = ["--dag", "dot", "--configfile", str(path), "--"]
    done = snakemake(*words, *(f"results/runs/{name}/network.keras" for name in ("joint", "flow")))
    assert edges(done) == {
        ("stage_0", "stage_1"),
        ("stage_0", "joint"),
        ("stage_1", "joint"),
        ("plain", "flow"),
    }


def test_estimates_elsewhere_are_those_that_the_training_learned(tmp_path):
    """A run whose inputs are estimates, tested on another dataset."""
    inputs = ["q_obs", "u_obs", "e_wiener", "b_wiener", "kappa_quadratic"]
    hybrid = SIMPLE | {"inputs": inputs, "tests": ["nothing"], "network": {"name": "hybrid"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(settings(hybrid=hybrid)))
    words = ["--dag", "dot", "--configfile", "study.yaml", "--", "decomposition"]
    done = snakemake(*words, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (here,) = re.findall(r'^\s*(\d+)\[label = "decompose_elsewhere', done.stdout, re.MULTILINE)
    jobs = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)', done.stdout, re.MULTILINE))
    waits = {jobs[a] for a in re.findall(rf"^\s*(\d+) -> {here}$", done.stdout, re.MULTILINE)}
    assert "estimate_elsewhere" in waits
