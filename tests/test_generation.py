"""The task generation: what runs leave, along the training too, and the images they make."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from skyweave.config import GenerationRun, SersicDataset
from skyweave.data.shards import ShardSet, write_shard
from skyweave.data.split import members, read_split
from skyweave.errors import Unfinished, UserError
from skyweave.files import sha256
from skyweave.images.stretch import Scale
from skyweave.networks.card import TrainedNetwork, load_network, save_network
from skyweave.statistics.tables import read_table
from skyweave.tasks.generation import draw, generate
from skyweave.tasks.images import prepare_images, read_stretch, render_sersic
from skyweave.tasks.training import train_run
from skyweave.training import runtime

SEED, PIXELS = 3, 16
DATASET = SersicDataset(
    kind="sersic",
    pixels=PIXELS,
    pixel_arcsec=0.5,
    offset_arcsec=0.5,
    radius_arcsec=(1.0, 2.0),
    realizations=80,
    shard_size=40,
    split={"train": 0.5, "validation": 0.1, "test": 0.4},
)
BASE = {
    "task": "generation",
    "dataset": "made",
    "training": {"epochs": 2, "batch": 8},
    "samples": 40,
    "grid_epochs": 1,
}
RUNS = {
    "stylegan2": {
        "network": {"width": 0.01, "latent": 8, "mapping_layers": 2},
        # Steps of these kinds take long to compile.
        "style": {"r1_interval": 0, "path_interval": 0},
    },
    "vae": {"network": {"name": "vae", "width": 0.0625, "latent": 8}},
    "diffusion": {
        "network": {"name": "diffusion", "width": 0.125},
        "diffusion": {"steps": 4},
    },
}
KINDS = list(RUNS)


@dataclass
class Study:
    """A dataset in a folder, and runs, each trained when it is first asked for."""

    folder: Path
    made: set = field(default_factory=set)

    @property
    def shards(self) -> list[Path]:
        return [self.folder / f"{number}.h5" for number in range(2)]

    @property
    def scale(self) -> Scale:
        return read_stretch(self.folder / "stretch.json")

    def numbers(self, part: str) -> np.ndarray:
        return members(read_split(self.folder / "split.csv"), part)

    def images(self, part: str) -> np.ndarray:
        return ShardSet(self.shards).read("image", self.numbers(part))

    def settings(self, kind: str, **changes) -> GenerationRun:
        return GenerationRun(**(BASE | RUNS[kind] | changes))

    def train(self, kind: str, folder: Path, shards=None, deadline_s=None, **changes) -> Path:
        train_run(
            self.settings(kind, **changes),
            shards=shards or self.shards,
            split=self.folder / "split.csv",
            normalization=self.folder / "normalization.json",
            network=folder / "network.keras",
            history=folder / "history.csv",
            sweep=folder / "sweep.csv",
            state=folder / "state",
            name=kind,
            seed=SEED,
            threads=1,
            deadline_s=deadline_s,
            files={"stretch": self.folder / "stretch.json"},
        )
        return folder

    def run(self, kind: str) -> Path:
        """The folder of a trained run."""
        folder = self.folder / kind
        if kind not in self.made:
            self.train(kind, folder)
            self.made.add(kind)
        return folder

    def network(self, kind: str) -> TrainedNetwork:
        return load_network(self.run(kind))

    def generate(self, kind: str, out: Path, folder: Path | None = None, **changes) -> Path:
        folder = folder or self.run(kind)
        generate(
            self.settings(kind, **changes),
            folder / "network.keras",
            samples=out / "samples.h5",
            grids=out / "grids.npz",
            state=folder / "state",
            name=kind,
            seed=SEED,
            threads=1,
        )
        return out


@pytest.fixture(autouse=True)
def simple(monkeypatch):
    """The threads that the tests' process has: they are set once."""
    prepare = runtime.prepare
    monkeypatch.setattr(
        runtime, "prepare", lambda seed, _, settings=None: prepare(seed, settings=settings)
    )


def dataset(folder: Path, settings: SersicDataset) -> list[Path]:
    """The files of a dataset; its shards."""
    shards = [folder / f"{number}.h5" for number in range(len(settings.shards))]
    for path, realizations in zip(shards, settings.shards, strict=True):
        render_sersic(path, settings, realizations, seed=SEED, name="made")
    finish(folder, shards, settings)
    return shards


def finish(folder: Path, shards: list[Path], settings) -> None:
    prepare_images(
        shards,
        split_out=folder / "split.csv",
        normalization_out=folder / "normalization.json",
        stretch_out=folder / "stretch.json",
        split=settings.split,
        stretch=settings.stretch,
        seed=SEED,
        dataset="made",
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    found = Study(tmp_path_factory.mktemp("generation"))
    dataset(found.folder, DATASET)
    return found


def shard(path: Path, **bands: np.ndarray) -> Path:
    """A file of images as a generator makes it."""
    count = len(next(iter(bands.values())))
    write_shard(
        path,
        bands,
        realizations=np.arange(count),
        size_deg=PIXELS * 0.5 / 3600,
        units=dict.fromkeys(bands, "nJy"),
        provenance={},
    )
    return path


def grids(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "grids.npz") as found:
        return dict(found)


# What a run leaves


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_a_network_that_says_what_it_is(study, kind):
    card = study.network(kind).card
    latent = 0 if kind == "diffusion" else 8
    assert card.inputs == (("image", "sigma") if kind == "diffusion" else ())
    assert (card.outputs, card.latent) == (("image",), latent)
    assert card.units["image"] == "nJy"
    assert card.pixels == PIXELS
    assert card.size_deg == pytest.approx(PIXELS * 0.5 / 3600)
    assert card.data["stretch"] == study.scale.to_dict()
    assert card.data["realizations"] == {"train": 40, "validation": 8, "test": 32}
    assert card.data["provenance"]["settings"]["pixels"] == PIXELS
    assert card.settings["task"] == "generation"
    assert card.settings["network"]["name"] == kind
    assert card.metrics["picked_by"] == "epoch"
    history = read_table(study.run(kind) / "history.csv")
    assert history.epoch.tolist() == [1, 2]
    sweep = read_table(study.run(kind) / "sweep.csv")
    assert sweep.picked.tolist() == [0, 1]


def test_a_diffusion_knows_the_mean_of_its_images_and_their_rms(study):
    """The mean of images that come in all eight orientations."""
    stretched = study.scale.apply(study.images("train"))
    mean = stretched.mean(axis=0, dtype=float)
    mean = (mean + mean[::-1] + mean[:, ::-1] + mean[::-1, ::-1]) / 4
    mean = (mean + mean.T) / 2
    centre = study.network("diffusion").model.get_layer("centre")
    np.testing.assert_allclose(np.asarray(centre.mean)[..., 0], mean, atol=1e-5)
    rms = np.sqrt(np.mean((stretched - mean) ** 2))
    assert float(np.asarray(centre.rms)) == pytest.approx(rms, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_fluxes(study, tmp_path, kind):
    study.generate(kind, tmp_path)
    samples = ShardSet([tmp_path / "samples.h5"])
    assert samples.fields == ("image",)
    assert samples.units == {"image": "nJy"}
    assert samples.realizations.tolist() == list(range(40))
    assert samples.size_deg == pytest.approx(PIXELS * 0.5 / 3600)
    fluxes = samples.read("image")
    assert fluxes.shape == (40, PIXELS, PIXELS)
    assert np.isfinite(fluxes).all()
    made = draw(study.network(kind).model, study.settings(kind), 40, SEED, kind, "samples")
    np.testing.assert_allclose(fluxes, study.scale.undo(made[..., 0]), rtol=1e-5, atol=1e-5)
    # No image is another one.
    assert len(np.unique(fluxes.reshape(40, -1), axis=0)) == 40
    said = samples.provenance
    assert (said["seed"], said["run"], said["truncation"]) == (SEED, kind, 1)
    assert said["network"] == sha256(study.run(kind) / "network.keras")
    assert said["settings"]["pixels"] == PIXELS


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "diffusion")) for kind in KINDS]
)
def test_the_same_seed_makes_the_same_images(study, tmp_path, kind):
    run, model = study.settings(kind), study.network(kind).model
    many, again, few = (draw(model, run, count, SEED, kind) for count in (40, 40, 10))
    np.testing.assert_array_equal(many, again)
    if kind == "diffusion":
        np.testing.assert_allclose(few, many[:10], atol=1e-4)
    else:
        np.testing.assert_array_equal(few, many[:10])
    assert not np.allclose(draw(model, run, 10, SEED + 1, kind), few, atol=1e-3)
    assert not np.allclose(draw(model, run, 10, SEED, "other"), few, atol=1e-3)
    first, second = (study.generate(kind, tmp_path / name) for name in ("a", "b"))
    assert (first / "samples.h5").read_bytes() == (second / "samples.h5").read_bytes()


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "diffusion")) for kind in KINDS]
)
def test_more_images_than_a_chunk_are_drawn_in_turn(study, kind):
    """The first chunk's are the same, the second's others."""
    run, model = study.settings(kind), study.network(kind).model
    many, few = (draw(model, run, count, SEED, kind, chunk=8) for count in (20, 11))
    assert len(many) == 20
    np.testing.assert_allclose(few, many[:11], atol=1e-4)
    assert len(np.unique(many.reshape(20, -1), axis=0)) == 20


def with_noise(study: Study, strength: float) -> TrainedNetwork:
    """StyleGAN2 whose layers' noise counts that much: after few epochs it hardly does."""
    network = study.network("stylegan2")
    found = [w for w in network.model.layers[-1].weights if w.name.endswith("strength")]
    assert len(found) == 5
    for weight in found:
        weight.assign(np.full(weight.shape, strength))
    return network


def test_noise_within_layers_is_that_of_a_chunk(study):
    model, run = with_noise(study, 0.5).model, study.settings("stylegan2")
    first, again, few = (draw(model, run, n, SEED, "a", chunk=8) for n in (20, 20, 11))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(few, first[:11])
    # Another chunk has other noise, not its repetition: all that is left at truncation 0.
    still = draw(model, run.model_copy(update={"truncation": 0.0}), 16, SEED, "a", chunk=8)
    assert still.std(axis=0).max() > 0.01
    assert not np.allclose(still[:8], still[8:])


def test_truncation_draws_images_towards_one(study):
    model, spread = with_noise(study, 0.0).model, []
    for truncation in (0.0, 0.5, 1.0):
        run = study.settings("stylegan2", truncation=truncation)
        spread.append(draw(model, run, 30, SEED, "t").std(axis=0).mean())
    assert spread[0] == pytest.approx(0, abs=1e-6)
    assert 1e-5 < spread[1] < 0.8 * spread[2]
    whole = draw(model, study.settings("stylegan2"), 5, SEED, "t")
    nearly = draw(model, study.settings("stylegan2", truncation=1 - 1e-6), 5, SEED, "t")
    np.testing.assert_allclose(nearly, whole, atol=1e-4)
    vae = study.network("vae").model
    still = draw(vae, study.settings("vae", truncation=0.0), 5, SEED, "t")
    np.testing.assert_allclose(still, np.broadcast_to(still[:1], still.shape), atol=1e-6)


def test_images_that_are_no_numbers_are_refused(study, tmp_path):
    """A network may have gone wild: finite, but not its fluxes."""
    network = study.network("vae")
    folder = tmp_path / "wild"
    for value in (1e4, np.nan):
        for weight in network.model.weights[-1:]:
            weight.assign(np.full(weight.shape, value))
        save_network(folder, network.model, network.card)
        with pytest.raises(UserError, match="expected a generator whose images are finite"):
            study.generate("vae", tmp_path, folder)
        assert not (tmp_path / "samples.h5").exists()


# The law of latents


def test_latents_of_their_own_law(study, tmp_path):
    """The same numbers are other images; without them there is one, in the middle of the law."""
    prior = {"vae": {"prior": {"updates": 20, "width": 16}}, "grid_epochs": 2}
    study.train("vae", tmp_path, **prior)
    network = load_network(tmp_path)
    assert network.card.latent == network.model.input_shape[1] == 8
    run = study.settings("vae", **prior)
    made = draw(network.model, run, 40, SEED, "t")
    np.testing.assert_array_equal(draw(network.model, run, 7, SEED, "t"), made[:7])
    assert not np.allclose(made, draw(study.network("vae").model, run, 40, SEED, "t"), atol=1e-3)
    middle = draw(network.model, run.model_copy(update={"truncation": 0.0}), 2, SEED, "t")
    np.testing.assert_allclose(middle[0], middle[1], atol=1e-5)
    found = grids(study.generate("vae", tmp_path, tmp_path, **prior))
    assert found["images"].shape == (1, 16, PIXELS, PIXELS, 1)


def test_another_law_trains_nothing_anew(study, tmp_path):
    whole, seconds = read_table(study.run("vae") / "history.csv"), []
    for width in (8, 16):
        prior = {"updates": 3, "width": width}
        study.train("vae", tmp_path, vae={"prior": prior}, grid_epochs=2)
        law = load_network(tmp_path).model.get_layer("prior")
        assert law.network.get_layer("stem").units == width
        history = read_table(tmp_path / "history.csv")
        assert history.loss.tolist() == whole.loss.tolist()
        seconds.append(history.seconds.tolist())
    assert seconds[0] == seconds[1]


# Grids along the training


@pytest.mark.parametrize("kind", KINDS)
def test_grids_are_the_same_images_along_the_training(study, tmp_path, kind):
    found = grids(study.generate(kind, tmp_path))
    assert found["epochs"].tolist() == [1, 2]
    assert found["images"].shape == (2, 16, PIXELS, PIXELS, 1)
    assert found["images"].dtype == np.float32
    run = study.settings(kind)
    last = draw(study.network(kind).model, run, 16, SEED, kind, "grid", chunk=16)
    np.testing.assert_allclose(found["images"][1], last, atol=1e-4)
    assert not np.allclose(found["images"][0], found["images"][1], atol=1e-5)
    # Those that are asked for, the last epoch's always.
    fewer = grids(study.generate(kind, tmp_path, grid_epochs=5))
    assert fewer["epochs"].tolist() == [2]
    np.testing.assert_array_equal(fewer["images"][0], found["images"][1])


def test_grids_are_not_truncated(study, tmp_path):
    """Their random numbers alone: a run is truncated anew without a training."""
    study.train("vae", tmp_path, truncation=0.3)
    found = grids(study.generate("vae", tmp_path, tmp_path, truncation=0.3))
    expected = grids(study.generate("vae", tmp_path / "whole"))
    np.testing.assert_array_equal(found["images"], expected["images"])


def test_no_more_images_are_made_than_a_chunk_has(study, monkeypatch):
    """And the mean of the styles is taken once."""
    model, run = study.network("stylegan2").model, study.settings("stylegan2", truncation=0.5)
    mapping, batches = model.layers[1], []
    call = type(mapping).call

    def counted(layer, inputs, *args, **kwargs):
        if layer is mapping:
            batches.append(len(inputs))
        return call(layer, inputs, *args, **kwargs)

    monkeypatch.setattr(type(mapping), "call", counted)
    draw(model, run, 16, SEED, "a", chunk=8)
    assert batches == [10_000, 8, 8]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_grids_do_not_change_what_is_learned(study, tmp_path, kind):
    study.train(kind, tmp_path, grid_epochs=2)
    one, other = (
        [np.asarray(w) for w in load_network(folder).model.trainable_variables]
        for folder in (tmp_path, study.run(kind))
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_was_cut_short_keeps_its_grids(study, tmp_path, kind):
    """Epoch 1, a training that goes on for epoch 2, and nothing else than one in one go."""
    brief = {"training": {"epochs": 1, "batch": 8}}
    study.train(kind, tmp_path, **brief)
    kept = (tmp_path / "state" / "grids" / "000001.npy").read_bytes()
    study.train(kind, tmp_path)
    assert (tmp_path / "state" / "grids" / "000001.npy").read_bytes() == kept
    found = grids(study.generate(kind, tmp_path, tmp_path))
    expected = grids(study.generate(kind, tmp_path / "whole"))
    assert found["epochs"].tolist() == [1, 2]
    np.testing.assert_array_equal(found["images"], expected["images"])


@pytest.mark.slow
def test_another_training_leaves_no_grids_of_the_one_before(study, tmp_path):
    """Of four epochs each; then one with other settings, of two grids, in the same folder."""
    study.train("vae", tmp_path, training={"epochs": 4, "batch": 8})
    other = {"training": {"epochs": 4, "batch": 8, "learning_rate": 1e-4}, "grid_epochs": 2}
    study.train("vae", tmp_path, **other)
    assert sorted(path.name for path in (tmp_path / "state" / "grids").iterdir()) == [
        "000002.npy",
        "000004.npy",
    ]
    # Asked for all, there are those of this training alone.
    found = grids(study.generate("vae", tmp_path, tmp_path, training=other["training"]))
    assert found["epochs"].tolist() == [2, 4]


def test_a_training_that_stops_early_leaves_no_grids_of_a_longer_one(study, tmp_path):
    """Stopped before its first step, it goes on later, to epoch 2 of four."""
    (tmp_path / "state" / "grids").mkdir(parents=True)
    for epoch in range(1, 5):
        np.save(tmp_path / "state" / "grids" / f"{epoch:06d}.npy", np.zeros((16, 16, 16, 1)))
    with pytest.raises(Unfinished):
        study.train("vae", tmp_path, deadline_s=0.0)
    study.train("vae", tmp_path)
    found = grids(study.generate("vae", tmp_path, tmp_path, training={"epochs": 4}))
    assert found["epochs"].tolist() == [1, 2]
    assert found["images"].any(axis=(1, 2, 3, 4)).all()


def test_a_network_loads_in_a_process_of_its_own(study):
    """In safe mode, without the modules that trained it."""
    code = (
        "import sys, json; from skyweave.networks.card import load_network\n"
        "print(json.dumps([load_network(f).card.latent for f in sys.argv[1:]]))"
    )
    folders = [str(study.run(kind)) for kind in KINDS]
    done = subprocess.run(
        [sys.executable, "-c", code, *folders],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [8, 8, 0]


def test_several_bands_are_made_together(study, tmp_path):
    """In the order that the run names them."""
    both = study.images("train")
    folder = tmp_path / "bands"
    folder.mkdir()
    path = shard(folder / "0.h5", g=both, r=2 * both)
    finish(folder, [path], DATASET)
    found, out = Study(folder), folder / "vae"
    found.train("vae", out, shards=[path], fields=["r", "g"])
    found.generate("vae", out, out, fields=["r", "g"])
    samples, run = ShardSet([out / "samples.h5"]), found.settings("vae", fields=["r", "g"])
    made = draw(load_network(out).model, run, 40, SEED, "vae", "samples")
    for band, name in enumerate(("r", "g")):
        fluxes = found.scale.undo(made[..., band])
        np.testing.assert_allclose(samples.read(name), fluxes, rtol=1e-5, atol=1e-5)
    assert grids(out)["images"].shape == (2, 16, PIXELS, PIXELS, 2)
