"""The task inpainting: what runs leave, and what they fill holes with."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from skyweave import seeds
from skyweave.config import CmbDataset, Holes, InpaintingRun
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.predictions import Predictions
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.constrained import TOLERANCE, Constrained
from skyweave.estimators.diffusive import diffuse
from skyweave.flat.covariance import Covariance
from skyweave.flat.grid import PatchGrid
from skyweave.images.holes import disc
from skyweave.networks.card import TrainedNetwork, load_network, save_network
from skyweave.networks.pconv_unet import encoder_norms
from skyweave.networks.registry import build
from skyweave.simulation.optical_depth import tau_cl
from skyweave.simulation.spectra import SpectraTable
from skyweave.statistics.tables import read_table, write_table
from skyweave.tasks import inpainting
from skyweave.tasks.covariance import write_covariance
from skyweave.tasks.inpainting import Filler
from skyweave.tasks.inpainting_classes import tell_classes
from skyweave.tasks.inpainting_scores import evaluate_run
from skyweave.tasks.model_card import describe
from skyweave.tasks.simulation import prepare, write_realizations
from skyweave.tasks.training import train_run
from skyweave.training import runtime
from test_vgg16 import drawn as vgg16_weights
from test_vgg16 import write as write_vgg16

GRID = PatchGrid(5.0, 16)
SEED = 3
NS = (0.7, 1.3)

#: Nothing but a Gaussian sky, its patches cut from larger areas.
DATASET = CmbDataset(
    kind="cmb",
    spectra={"lmax": 1000},
    grid={"size_deg": 5, "pixels": 16, "margin_deg": 2.5},
    effects={"reionization": False, "lensing": False, "null_fraction": 0, "taper_deg": 0},
    channels={"obs": {"beam_arcmin": 30, "noise_uk_arcmin": 20}},
    fields=["t_obs", "q_obs", "u_obs"],
    realizations=40,
    shard_size=40,
    split={"train": 0.5, "validation": 0.25, "test": 0.25},
    estimates={"enabled": False},
)
INDICES = DATASET.model_copy(
    update={"spectra": DATASET.spectra.model_copy(update={"vary": {"ns": NS}})}
)
FIELDS = ("t_obs", "q_obs", "u_obs")
BRIEF = {"epochs": 2, "batch": 4, "warm_epochs": 0, "frozen_from": None}
SMALL = {"filters": [8, 8], "kernels": [5, 3]}
PLAIN = {
    "task": "inpainting",
    "dataset": "made",
    "network": SMALL,
    "losses": {"norm": "l2", "perceptual": 0, "style": 0, "variation": 0},
    "training": {"epochs": 4, "batch": 4, "warm_epochs": 1, "frozen_from": 3},
    "radii": [2, 4.5],
    "patches": 8,
}
RUNS = {
    "plain": PLAIN,
    "corrected": PLAIN
    | {"fields": FIELDS, "network": SMALL | {"start": "constrained"}, "training": BRIEF},
    "looked": PLAIN
    | {
        "network": SMALL | {"start": "diffusive"},
        "losses": {"spectrum": 0.1, "examples": 2},
        "training": BRIEF | {"epochs": 1},
        "holes": {"kind": "disc", "radius": [2, 5]},
    },
    "sky": PLAIN | {"holes": {"kind": "sky", "path": "mask.fits"}},
}


def spectra(path: Path, ns: float) -> None:
    """A table of about the CMB's size and slope, without its waves."""
    ell = np.arange(1001)
    safe = np.maximum(ell, 2)
    to_cl = 2 * np.pi / (safe * (safe + 1.0)) * (ell >= 2) * (safe / 200) ** (2 * (ns - 1))
    cl = {"tt": 3000 * to_cl, "ee": 10 * to_cl, "te": 90 * to_cl, "bb": 0.1 * to_cl}
    SpectraTable(cl | {"kk": 1e-7 / (1 + safe / 150), "tautau": tau_cl(1000)}).write(path)


def make(folder: Path, name: str, settings: CmbDataset, indices: tuple[float, ...]) -> None:
    """A dataset as the workflow makes it, in one shard, with its covariance."""
    tables = [folder / f"{name}-{number}-spectra.csv" for number in range(len(indices))]
    for table, ns in zip(tables, indices, strict=True):
        spectra(table, ns)
    write_realizations(
        folder / f"{name}.h5",
        tables,
        grid=settings.grid,
        effects=settings.effects,
        channels=settings.channels,
        fields=settings.fields,
        points=[{"ns": ns} for ns in indices] if len(indices) > 1 else [{}],
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
    write_covariance(
        folder / f"{name}-covariance.csv",
        tables,
        grid=settings.grid,
        effects=settings.effects,
        channel=settings.channels["obs"],
    )


def pieces() -> np.ndarray:
    """Three pieces (n, y, x) of a mask that no turn and no mirror makes one of another."""
    found = np.zeros((3, 16, 16), bool)
    found[0, :3, :9] = found[0, 3, :2] = True
    found[1, 4:9, 10:12] = found[1, 4, 12:16] = True
    found[2, 10, 1:14] = found[2, 11:13, 2] = True
    return found


@dataclass
class Study:
    """Two datasets in a folder, and runs, each trained when it is first asked for."""

    folder: Path
    made: dict = field(default_factory=dict)
    runs: dict = field(default_factory=lambda: {n: InpaintingRun(**r) for n, r in RUNS.items()})

    @property
    def maps(self) -> ShardSet:
        return ShardSet([self.folder / "made.h5"])

    def numbers(self, part: str) -> np.ndarray:
        return members(read_split(self.folder / "made-split.csv"), part)

    def files(self, name: str) -> dict[str, Path]:
        """What a run reads beside its maps."""
        found = {"covariance": self.folder / "made-covariance.csv"}
        if self.runs[name].losses.looks:
            found["features"] = self.folder / "vgg16.ckpt"
        if self.runs[name].holes.kind == "sky":
            found["holes"] = self.folder / "holes.h5"
        return found

    @property
    def scales(self) -> Normalization:
        return Normalization.from_json((self.folder / "made-normalization.json").read_text())

    def recipe(self, name: str, files=None):
        parts = read_split(self.folder / "made-split.csv")
        files = self.files(name) if files is None else files
        return inpainting.recipe(self.runs[name], self.maps, parts, name, SEED, files)

    def feed(self, name: str, part: str):
        """Batches of a run as its training asks for them."""
        recipe, batch = self.recipe(name), self.runs[name].training.batch
        return recipe.feed(
            BatchFeed(
                self.maps,
                recipe.inputs,
                recipe.targets,
                self.scales,
                self.numbers(part),
                batch,
                SEED,
                (name, part),
            ),
            part,
            self.scales,
        )

    def where(self, dataset: str) -> dict:
        """What classes are told by."""
        return {
            "shards": [self.folder / f"{dataset}.h5"],
            "split": self.folder / f"{dataset}-split.csv",
            "covariance": self.folder / f"{dataset}-covariance.csv",
            "seed": SEED,
        }

    def train(self, name: str, folder: Path, epochs: int) -> Path:
        run = self.runs[name]
        training = run.training.model_copy(update={"epochs": epochs})
        train_run(
            run.model_copy(update={"training": training}),
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
            files=self.files(name),
        )
        return folder

    def run(self, name: str) -> Path:
        """The folder of a trained run."""
        if name not in self.made:
            folder = self.folder / name
            self.made[name] = self.train(name, folder, self.runs[name].training.epochs)
        return self.made[name]

    def network(self, name: str) -> TrainedNetwork:
        return load_network(self.run(name))

    def optimum(self, *fields: str) -> Constrained:
        """Without the workflow's files: of the table that the maps were made of."""
        table = read_table(self.folder / "made-covariance.csv")
        cl = {key: table[key].to_numpy() for key in ("tt", "te", "ee", "bb")}
        return Constrained(Covariance(table.ell.to_numpy(), cl), GRID, fields)

    def inpaint(self, name: str, out: Path, network: str = "", **changes) -> dict[str, Path]:
        """Files by case, of the run's own network or of another's."""
        run = self.runs[name].model_copy(update=changes)
        inpainting.inpaint_run(
            run,
            self.run(network or name) / "network.keras",
            shards=[self.folder / f"{run.dataset}.h5"],
            split=self.folder / f"{run.dataset}-split.csv",
            covariance=self.folder / f"{run.dataset}-covariance.csv",
            pieces=self.files(name).get("holes"),
            out=out,
            threads=1,
        )
        return {case: out / f"{case}.h5" for case in inpainting.cases(run)}

    def inpainted(self, name: str) -> dict[str, Path]:
        """What a run makes of its test set."""
        out = self.run(name) / "inpainted"
        if not out.exists():
            return self.inpaint(name, out)
        return {case: out / f"{case}.h5" for case in inpainting.cases(self.runs[name])}


@pytest.fixture(autouse=True)
def simple(monkeypatch):
    """The threads that the tests' process has: they are set once."""
    prepare = runtime.prepare
    monkeypatch.setattr(
        runtime, "prepare", lambda seed, _, settings=None: prepare(seed, settings=settings)
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    make(folder, "made", DATASET, (1.0,))
    make(folder, "indices", INDICES, NS)
    write_vgg16(folder / "vgg16.ckpt", vgg16_weights())
    with h5py.File(folder / "holes.h5", "w") as file:
        file["holes"] = pieces()
    return Study(folder)


def weights(network: TrainedNetwork) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in network.model.weights]


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def read(path: Path, *names: str) -> list[np.ndarray]:
    with h5py.File(path) as file:
        return [file[name][()] for name in names]


def with_discs(study: Study, *fields: str) -> tuple[np.ndarray, np.ndarray, list[tuple]]:
    """All maps (n, f, y, x) of the dataset, a disc somewhere in each, and their keys."""
    numbers = study.maps.realizations
    maps = np.stack([study.maps.read(name, numbers) for name in fields], axis=1)
    rngs = [seeds.generator(1, "centre", int(number)) for number in numbers]
    holes = np.stack([disc(16, 3, tuple(rng.uniform(4, 11, 2))) for rng in rngs])
    return maps, holes, [("made", int(number)) for number in numbers]


def rms(errors: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Of the errors (n, f, y, x) in holes (n, y, x), by field."""
    return np.sqrt(np.mean(np.moveaxis(errors, 1, 0)[:, holes] ** 2, axis=1))


# What a run leaves


def test_a_run_leaves_a_network_that_says_what_it_is(study):
    card = study.network("plain").card
    assert card.inputs == ("t_obs", "seen")
    assert card.outputs == ("t_obs",)
    assert (card.units["t_obs"], card.units["seen"]) == ("uK_CMB", "")
    assert card.normalization.moments["seen"] == (0.0, 1.0)
    assert card.settings["task"] == "inpainting"
    assert card.settings["holes"] == study.runs["plain"].holes.model_dump(mode="json")
    assert card.settings["losses"]["norm"] == "l2"
    assert not {"radii", "patches", "classes"} & set(card.settings)
    assert card.data["realizations"] == {"train": 20, "validation": 10, "test": 10}
    history = read_table(study.run("plain") / "history.csv")
    assert {"loss_valid", "loss_hole"} <= set(history)
    assert not {"loss_style", "loss_spectrum", "loss_seen"} & set(history)
    np.testing.assert_allclose(history.loss, history.loss_valid + 6 * history.loss_hole, rtol=1e-5)


def test_the_card_holds_the_covariance_of_the_maps(study):
    """To 7 digits, of which the optimum is made again."""
    table = read_table(study.folder / "made-covariance.csv")
    kept = study.network("plain").card.data["covariance"]
    assert set(kept["cl"]) == {"tt", "te", "ee", "bb"}
    for name, values in kept["cl"].items():
        np.testing.assert_allclose(values, table[name], rtol=1e-6)
    # Beyond the beam there is noise alone, (20 µK arcmin)².
    assert kept["cl"]["tt"][-1] == pytest.approx(np.radians(20 / 60) ** 2, rel=0.05)


def test_the_card_says_whether_patches_are_periodic(study):
    """Those that were cut from larger areas are not."""
    assert study.network("plain").card.data["periodic"] is False
    grid = DATASET.grid.model_copy(update={"margin_deg": 0.0})
    name = "periodic"
    make(study.folder, name, DATASET.model_copy(update={"grid": grid}), (1.0,))
    maps = ShardSet([study.folder / f"{name}.h5"])
    files = study.files("plain")
    parts = read_split(study.folder / f"{name}-split.csv")
    known = inpainting.recipe(study.runs["plain"], maps, parts, name, SEED, files).known
    assert known["periodic"] is True


def test_starts_are_inputs_in_the_units_of_their_fields(study):
    card = study.network("corrected").card
    assert card.outputs == FIELDS
    assert card.inputs == (*FIELDS, "seen", *(f"start_{name}" for name in FIELDS))
    for name in FIELDS:
        assert card.units[f"start_{name}"] == card.units[name]
        assert card.normalization.moments[f"start_{name}"] == card.normalization.moments[name]


def test_the_limit_is_that_of_the_largest_hole(study):
    def widest(holes):
        # Farthest that a pixel lies from one that is seen, or from beyond the patch.
        return max(ndimage.distance_transform_edt(np.pad(one, 1)).max() for one in holes)

    pixel = GRID.size_deg / GRID.pixels
    limit = study.network("plain").card.data["hole_limit"]
    assert limit["area"] == 0.25
    # No more than a disc of that area has.
    assert pixel < limit["radius_deg"] < pixel * (np.sqrt(64 / np.pi) + 1)
    # Of 64 discs of 2 to 5 pixels.
    limit = study.recipe("looked").known["hole_limit"]
    most, less = disc(16, 5), disc(16, 4.6)
    assert less.mean() <= limit["area"] <= most.mean()
    assert widest([less]) * pixel <= limit["radius_deg"] <= widest([most]) * pixel
    limit = study.recipe("sky").known["hole_limit"]
    assert limit["area"] == pieces().mean(axis=(1, 2)).max()
    assert limit["radius_deg"] == pytest.approx(widest(pieces()) * pixel)


# Training


def test_stages_have_their_rates_and_resume(study, tmp_path):
    """Cut short before the encoder's batch normalization is held fast."""
    before = load_network(study.train("plain", tmp_path, 3))
    after = load_network(study.train("plain", tmp_path, 4))
    whole, parts = (read_table(path / "history.csv") for path in (study.run("plain"), tmp_path))
    assert whole.learning_rate.tolist() == pytest.approx([1e-4, 1e-4, 1e-4, 5e-5])
    pd.testing.assert_frame_equal(
        whole.drop(columns="seconds"), parts.drop(columns="seconds"), check_exact=True
    )
    assert same(weights(study.network("plain")), weights(after))
    # In the last epoch its scales and averages stood still, and all else learned.
    held, learned = [], []
    norms = {layer.name for layer in encoder_norms(before.model)}
    assert len(norms) == 1
    for layer in before.model.layers:
        pairs = zip(
            layer.get_weights(), after.model.get_layer(layer.name).get_weights(), strict=True
        )
        stood = [np.array_equal(*pair) for pair in pairs]
        (held if layer.name in norms else learned).extend(stood)
    assert len(held) == 4
    assert all(held)
    assert len(learned) > 4
    assert not any(learned)


def test_the_first_stage_sees_one_map_with_ever_new_holes(study):
    batches = [batch for epoch in (0, 1) for batch in study.feed("plain", "train").epoch(epoch)]
    truths, seen = (np.concatenate([y[name] for _, y in batches]) for name in ("t_obs", "seen"))
    assert len(truths) == 40
    assert len({one.tobytes() for one in seen}) == 40
    assert len({one.tobytes() for one in truths[:20]}) == 1
    assert len({one.tobytes() for one in truths[20:]}) == 20


def test_holes_of_the_validation_set_stay(study):
    def seen():
        feed = study.feed("plain", "validation")
        return np.concatenate([y["seen"][..., 0] for _, y in feed.in_order()])

    first = seen()
    assert first.shape == (10, 16, 16)
    assert first.mean(axis=(1, 2)) == pytest.approx(0.75)
    assert len({one.tobytes() for one in first}) == 10
    np.testing.assert_array_equal(seen(), first)


def test_a_network_starts_at_what_the_feed_filled(study):
    """The optimum of maps in their units, normalized, whatever lies in the holes."""
    feed = study.feed("corrected", "validation")
    numbers = study.numbers("validation")[:4]
    x, y = next(feed.in_order())
    holes = y["seen"][..., 0] == 0
    maps = np.stack([study.maps.read(name, numbers) for name in FIELDS], axis=1)
    expected = study.optimum(*FIELDS).mean(np.where(holes[:, None], 0, maps), holes)
    for place, name in enumerate(FIELDS):
        mean, deviation = study.scales.moments[name]
        started = x[..., 4 + place] * deviation + mean
        np.testing.assert_allclose(started, expected[:, place], atol=1e-4 * deviation)


def test_losses_look_through_vgg16(study):
    """Stand-in weights: what they are does not matter to the sum."""
    row = read_table(study.run("looked") / "history.csv").iloc[-1]
    given = study.runs["looked"].losses
    names = ("valid", "hole", "perceptual", "style", "variation", "spectrum")
    for total in ("loss", "val_loss"):
        parts = {name: row[f"{total}_{name}"] for name in names}
        assert min(parts.values()) > 0
        summed = sum(getattr(given, name) * value for name, value in parts.items())
        assert row[total] == pytest.approx(summed, rel=1e-5)
    # VGG16, of 1.7 million weights, is no part of the network that is kept.
    assert study.network("looked").model.count_params() < 20_000


def test_losses_that_look_need_vgg16(study):
    recipe = study.recipe("looked", files={"covariance": study.folder / "made-covariance.csv"})
    with pytest.raises(ValueError, match="features: expected VGG16"):
        recipe.method(study.network("looked").model, None)


# Filled maps


def test_a_correction_that_has_not_learned_is_the_optimum(study):
    """Exactly where it has seen no step, and to 1 % of its error after a few of them."""
    maps, holes, keys = with_discs(study, *FIELDS)
    trained = study.network("corrected")
    optimum = study.optimum(*FIELDS).mean(np.where(holes[:, None], 0, maps), holes)
    scale = 1e-4 * maps.std(axis=(0, 2, 3), keepdims=True)
    card, settings = trained.card, study.runs["corrected"].network
    first = TrainedNetwork(build(settings, 16, card.inputs, card.outputs, SEED), card)
    found = Filler(first).all(maps, holes, keys)
    assert (np.abs(found["raw"] - found["constrained"]) < scale).all()
    # Conjugate gradients end where the error is this share of the scatter that is left.
    left = rms(optimum - maps, holes)
    assert (rms(found["constrained"] - optimum, holes) < TOLERANCE * left).all()
    found = Filler(trained).all(maps, holes, keys)
    assert (np.abs(found["raw"] - optimum) > scale).mean(axis=(0, 2, 3)).min() > 0.5
    np.testing.assert_allclose(rms(found["prediction"] - maps, holes) / left, 1, atol=0.01)


def test_the_optimum_errs_as_it_says(study):
    """A mean by the error of a Gaussian sky, a realization by two such: within the scatter."""
    maps, _, keys = with_discs(study, *FIELDS)
    hole = disc(16, 3)
    found = Filler(study.network("corrected")).all(maps, hole, keys)
    expected = study.optimum(*FIELDS).error(hole)
    for method, variances in (("constrained", 1), ("realization", 2), ("sampled", 2)):
        apart = (found[method] - maps)[..., hole] / expected[:, hole]
        each = np.mean(apart**2, axis=2)
        scatter = each.std(axis=0, ddof=1) / np.sqrt(len(each))
        assert (np.abs(each.mean(axis=0) - variances) < 3 * scatter).all(), method
        assert (scatter < 0.2 * variances).all()
    # A surface through the edge knows less.
    holes = np.broadcast_to(hole, (len(maps), 16, 16))
    worse = rms(found["diffusive"] - maps, holes) / rms(found["constrained"] - maps, holes)
    assert (worse > 1).all()


@pytest.mark.parametrize(("name", "fields"), [("plain", ("t_obs",)), ("corrected", FIELDS)])
def test_what_was_seen_comes_back_bit_for_bit(study, name, fields):
    maps, holes, keys = with_discs(study, *fields)
    spoiled = np.where(holes[:, None], np.nan, maps)
    seen = np.broadcast_to(~holes[:, None], maps.shape)
    for sampled in (True, False):
        filled = inpainting.fill(study.network(name), spoiled, holes, keys=keys, sampled=sampled)
        assert filled.dtype == np.float32
        assert np.isfinite(filled).all()
        np.testing.assert_array_equal(filled[seen], maps[seen])
        assert (filled[~seen] != maps[~seen]).mean() > 0.99


def test_keys_draw_what_is_added(study):
    maps, holes, keys = with_discs(study, *FIELDS)
    filler = Filler(study.network("corrected"))

    def filled(keys, rows=slice(None), **options):
        return inpainting.fill(filler, maps[rows], holes[rows], keys=keys, **options)

    first = filled(keys)
    np.testing.assert_array_equal(filled(keys), first)
    # A map's own key, whatever maps stand beside it: the last ones are of another chunk.
    rows = slice(30, 34)
    np.testing.assert_allclose(filled(keys[rows], rows), first[rows], atol=1e-4 * maps.std())
    others = filled([("other", *key) for key in keys])
    assert all(not np.allclose(a, b) for a, b in zip(first, others, strict=True))
    mean = filled(keys, sampled=False)
    np.testing.assert_array_equal(filled([("other",)] * len(keys), sampled=False), mean)
    # What is added is what the optimum's realization has, by the network's seed and the key.
    rngs = [seeds.generator(SEED, "fluctuation", *key) for key in keys]
    added = study.optimum(*FIELDS).fluctuation(holes, rngs)
    assert (rms(first - mean - added, holes) < TOLERANCE * rms(added, holes)).all()


def test_a_network_of_another_task_is_refused_by_name(study, tmp_path):
    network = study.network("plain")
    settings = {key: value for key, value in network.card.settings.items() if key != "task"}
    save_network(tmp_path, network.model, replace(network.card, settings=settings))
    maps, holes, keys = with_discs(study, "t_obs")
    said = "network: expected one of an inpainting run, found one that gives t_obs"
    with pytest.raises(UserError, match=said):
        inpainting.fill(load_network(tmp_path), maps, holes, keys=keys)
    with pytest.raises(UserError, match=said):
        inpainting.inpaint_run(
            study.runs["plain"],
            tmp_path / "network.keras",
            shards=[study.folder / "made.h5"],
            split=study.folder / "made-split.csv",
            covariance=study.folder / "made-covariance.csv",
            out=tmp_path,
            threads=1,
        )


# The test set


def test_each_case_has_its_file_with_all_groups(study):
    files = study.inpainted("plain")
    assert list(files) == ["holes", "radius_2", "radius_4.5"]
    written = {path.name for path in files["holes"].parent.iterdir()}
    assert written == {f"{case}.h5" for case in files}
    estimates = {"diffusive", "constrained", "realization", "sampled"}
    for case, path in files.items():
        with h5py.File(path) as file:
            assert set(file) == {"realizations", "seen", "truth", "prediction", "raw", "estimates"}
            assert set(file["estimates"]) == estimates
            assert dict(file.attrs) == {"size_deg": 5.0, "taper_deg": 0.0}
            numbers = file["realizations"][:]
            assert file["seen/seen"].attrs["unit"] == ""
            assert file["estimates/sampled/t_obs"].attrs["unit"] == "uK_CMB"
        assert len(set(numbers)) == 8
        assert set(numbers) < set(study.numbers("test"))
        seen, truth, network, raw = read(
            path, "seen/seen", "truth/t_obs", "prediction/t_obs", "raw/t_obs"
        )
        np.testing.assert_array_equal(truth, study.maps.read("t_obs", numbers))
        np.testing.assert_array_equal(network, np.where(seen == 1, truth, raw))
        assert not np.allclose(raw, truth)
        for method in estimates:
            (filled,) = read(path, f"estimates/{method}/t_obs")
            np.testing.assert_array_equal(filled[seen == 1], truth[seen == 1])
        if case == "holes":
            assert set(np.unique(seen)) == {0, 1}
            assert seen.mean(axis=(1, 2)) == pytest.approx(0.75)
            assert len({one.tobytes() for one in seen}) == 8
        else:
            hole = disc(16, float(case.removeprefix("radius_")))
            np.testing.assert_array_equal(seen, np.broadcast_to(~hole, seen.shape))
        assert set(Predictions(path).methods("t_obs")) == {"network", *estimates}


def test_methods_are_what_they_are_called(study):
    """Against their estimators, called here on the maps with zeros in holes."""
    names = [
        f"{group}/t_obs" for group in ("truth", "estimates/diffusive", "estimates/constrained")
    ]
    for path in study.inpainted("plain").values():
        seen, truth, smooth, mean = read(path, "seen/seen", *names)
        holes, scale = seen == 0, 1e-4 * truth.std()
        given = np.where(holes, 0, truth)[:, None]
        np.testing.assert_allclose(smooth, diffuse(given, holes)[:, 0], atol=scale)
        expected = study.optimum("t_obs").mean(given, holes)[:, 0]
        np.testing.assert_allclose(mean, expected, atol=scale)


def test_holes_of_the_test_set_are_the_datasets(study):
    """Runs with the same kind of holes are judged on the same ones."""
    one, other = (
        read(study.inpainted(name)["holes"], "seen/seen") for name in ("plain", "corrected")
    )
    assert same(one, other)


def test_temperature_and_polarization_are_filled_together(study):
    for path in study.inpainted("corrected").values():
        with h5py.File(path) as file:
            groups = ("truth", "prediction", "raw", "estimates/diffusive", "estimates/sampled")
            assert all(set(file[group]) == set(FIELDS) for group in groups)
            numbers = file["realizations"][:]
            for name in FIELDS:
                truth = file["truth"][name][:]
                np.testing.assert_array_equal(truth, study.maps.read(name, numbers))


def test_a_diffusive_start_is_corrected_too(study):
    maps, holes, keys = with_discs(study, "t_obs")
    found = Filler(study.network("looked")).all(maps, holes, keys)
    assert not np.array_equal(found["prediction"], found["diffusive"])
    ratio = rms(found["prediction"] - maps, holes) / rms(found["diffusive"] - maps, holes)
    assert ratio == pytest.approx(1, abs=0.02)


def test_holes_of_the_sky_are_turned_pieces(study, tmp_path):
    """Each part of the split has its own."""
    turned = [
        {
            np.rot90(one.T if mirrored else one, turns).tobytes()
            for mirrored in (False, True)
            for turns in range(4)
        }
        for one in pieces()
    ]
    assert [len(each) for each in turned] == [8, 8, 8]
    batches = [y["seen"][..., 0] for _, y in study.feed("sky", "train").epoch(1)]
    (tested,) = read(study.inpaint("sky", tmp_path, network="plain")["holes"], "seen/seen")
    for seen, own, least in ((np.concatenate(batches), turned[0], 5), (tested, turned[2], 3)):
        found = {(one == 0).tobytes() for one in seen}
        assert found <= own
        assert len(found) >= least


def test_holes_of_the_sky_need_their_pieces(study):
    with pytest.raises(UserError, match=r"holes\.sky: expected pieces of a mask .*, found none"):
        study.recipe("sky", files=study.files("plain"))


def test_a_run_is_judged_by_its_files(study):
    """The errors' ratio of the network to the optimum, from the maps; nothing seen has changed."""
    run, files = study.runs["corrected"], study.inpainted("corrected")
    metrics, values, verdicts = evaluate_run(files, run, name="corrected")
    assert set(metrics.case) == set(values.case) == set(files)
    assert set(metrics.field) == set(FIELDS)
    changes = metrics[metrics.statistic == "seen_change_max"]
    assert ((changes.value > 0) == (changes.method == "raw")).all()
    found = metrics[(metrics.statistic == "error_ratio") & (metrics.method == "network")]
    assert len(found) == len(files) * len(FIELDS)
    for row in found.itertuples():
        names = [
            f"{group}/{row.field}" for group in ("truth", "prediction", "estimates/constrained")
        ]
        seen, truth, network, mean = read(files[row.case], "seen/seen", *names)
        own, optimum = ((one - truth)[seen == 0].astype(float) for one in (network, mean))
        expected = np.sqrt(np.mean(own**2) / np.mean(optimum**2))
        assert row.value == pytest.approx(expected, rel=1e-4)
        assert row.value == pytest.approx(1, abs=0.02)
    assert {one["check"].partition(",")[0] for one in verdicts} == set(FIELDS)


# Classes


def test_a_parameter_is_told_from_filled_maps(study, tmp_path):
    """Of two slopes far apart: of whole maps nearly always, of filled ones nearly as often."""
    changes = {"dataset": "indices", "radii": (3,), "classes": "ns"}
    files = study.inpaint("corrected", tmp_path, **changes)
    run = study.runs["corrected"].model_copy(update=changes)
    where = study.where("indices")
    metrics, shares = tell_classes(files, run, name="corrected", **where)
    methods = {"truth", "network", "diffusive", "constrained", "realization", "sampled"}
    assert set(metrics.method) == methods
    assert set(metrics.case) == {"holes", "radius_3"}
    assert set(metrics.field) == set(FIELDS)
    assert set(metrics.run) == {"corrected"}
    of_class = metrics.statistic.str.startswith("class_")
    assert (metrics[~of_class].n == 8).all()
    right = metrics[metrics.statistic == "accuracy"].set_index(["method", "field", "case"]).value
    assert (right["truth"] >= 7 / 8).all()
    assert right["sampled"].mean() >= 0.75
    np.testing.assert_allclose(shares.groupby(["method", "field", "case", "true"]).share.sum(), 1)
    assert set(shares.true) == set(NS)


def test_holes_filled_with_what_a_map_tells_shift_no_class(study, tmp_path):
    """The spectra of both classes together draw them to each other; that of each map's own does
    not, and the optimum, which knows the class, is not drawn either."""
    changes = {"dataset": "indices", "radii": (), "classes": "ns", "patches": 100}
    changes["holes"] = Holes(area=0.3)
    files = study.inpaint("plain", tmp_path, **changes)
    run = study.runs["plain"].model_copy(update=changes)
    metrics, _ = tell_classes(files, run, name="plain", **study.where("indices"))
    slopes = metrics[metrics.statistic == "shift_slope"].set_index("method")
    assert abs(slopes.value["realization"]) < 4 * slopes.error["realization"]
    assert abs(slopes.value["iterated"]) < abs(slopes.value["sampled"])


def test_a_run_without_classes_has_empty_tables(study):
    where = study.where("made")
    metrics, shares = tell_classes({}, study.runs["plain"], name="plain", **where)
    assert metrics.empty
    assert shares.empty
    assert {"run", "statistic", "value", "case"} <= set(metrics)


def test_a_card_says_what_is_filled_and_how_well(study):
    run, files = study.runs["corrected"], study.inpainted("corrected")
    metrics, _, _ = evaluate_run(files, run, name="corrected")
    write_table(study.run("corrected") / "metrics.csv", metrics)
    lines = dict(line.split("  ", 1) for line in describe(study.run("corrected")).splitlines())
    assert "start_t_obs" not in lines["takes"]
    assert re.fullmatch(r" *holes of up to .* deg in radius, 25 % of a patch", lines["fills"])
    assert "error in holes over the optimum's on the test set: t_obs 1.0" in lines["scores"]
