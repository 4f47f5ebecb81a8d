"""Pairs of patches of dust, and the way back from what a network makes of them."""

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from skyweave.config import Training
from skyweave.config.runs import Adversarial as Settings
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.scaling import location_and_scale
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.seeds import generator
from skyweave.statistics.tables import write_table
from skyweave.tasks import foregrounds

COUNT, PIXELS = 20, 16


def dust():
    """Patches at two resolutions, all of them positive, each of its own brightness."""
    white = generator(1, "dust").standard_normal((COUNT, PIXELS, PIXELS))
    brightness = np.geomspace(1, 100, COUNT)[:, None, None]
    high = brightness * np.exp(2 * ndimage.gaussian_filter(white, (0, 1, 1), mode="wrap"))
    low = ndimage.gaussian_filter(high, (0, 3, 3), mode="wrap")
    return high.astype(np.float32), low.astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files of a run, and the patches."""
    folder = tmp_path_factory.mktemp("pairs")
    high, low = dust()
    with h5py.File(folder / "patches.h5", "w") as file:
        file.attrs["size_deg"], file.attrs["provenance"] = 5.0, '{"seed": 1, "settings": {}}'
        file["high"], file["low"] = high, low
    parts = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4
    places = pd.DataFrame({"place": np.arange(COUNT), "lon": 0.0, "lat": 50.0, "split": parts})
    write_table(folder / "places.csv", places)
    foregrounds.write_pairs(
        folder / "patches.h5",
        folder / "places.csv",
        pairs=folder / "pairs.h5",
        split=folder / "split.csv",
        normalization=folder / "normalization.json",
    )
    return folder, high, low


def test_pairs_are_scaled_to_their_extremes(made):
    folder, high, low = made
    pairs = ShardSet([folder / "pairs.h5"])
    for field in ("low", "ratio"):
        maps = pairs.read(field, np.arange(COUNT))
        np.testing.assert_allclose(maps.min(axis=(1, 2)), -1, atol=1e-6)
        np.testing.assert_allclose(maps.max(axis=(1, 2)), 1, atol=1e-6)
    scales = foregrounds.read_scales(pairs)
    maps = {field: scales[field].undo(pairs.read(field, np.arange(COUNT))) for field in scales}
    np.testing.assert_allclose(maps["low"], low, rtol=1e-4)
    np.testing.assert_allclose(maps["low"] * maps["ratio"], high, rtol=1e-3)
    assert not pairs.labels["bad"].any()


def test_parts_are_those_of_the_places(made):
    split = read_split(made[0] / "split.csv")
    assert members(split, "train").tolist() == list(range(12))
    assert members(split, "test").tolist() == list(range(16, 20))


@pytest.mark.parametrize("robust", [False, True])
def test_the_true_ratio_restores_the_patch(made, robust):
    """Whatever its scale: the network's says nothing."""
    folder, high, low = made
    maps = ShardSet([folder / "pairs.h5"]).read("ratio", np.arange(COUNT))
    true = high / low
    if robust:
        means, stds = location_and_scale(true)
    else:
        means, stds = true.mean(axis=(1, 2)), true.std(axis=(1, 2))
    for scale in (1, 0.3):
        found = foregrounds.restore(scale * maps - 0.1, low, means, stds, robust=robust)
        np.testing.assert_allclose(found, high, rtol=1e-3)


def test_an_adversarial_training_of_forse_fits_in(made, tmp_path):
    """From pairs to patches: the published networks, narrow, for a few updates."""
    from skyweave.networks import forse
    from skyweave.training.adversarial import Adversarial, learners
    from skyweave.training.loop import train
    from skyweave.training.runtime import prepare

    folder, _, low = made
    pairs, split = ShardSet([folder / "pairs.h5"]), read_split(folder / "split.csv")
    scales = Normalization.from_json((folder / "normalization.json").read_text())
    training, settings = Training(epochs=2, batch=4), Settings(fidelity=0, conditional=False)
    prepare(1, settings=training)
    networks = (
        forse.build(PIXELS, ("low",), ("ratio",), width=0.0625, seed=1),
        forse.discriminator(PIXELS, width=0.0625, seed=1),
    )
    method = Adversarial(*learners(*networks, training, settings), settings, seed=1, name="a")
    feeds = [
        BatchFeed(pairs, ("low",), ("ratio",), scales, members(split, part), 4, 1, (part,))
        for part in ("train", "validation")
    ]
    history = train(
        method, *feeds, training, state_folder=tmp_path, identity={}, log=lambda line: None
    )
    assert {"loss_adversarial", "loss_discriminator"} <= set(history)
    test = members(split, "test")
    outputs = method.model(pairs.read("low", test)[..., None])["ratio"]
    found = foregrounds.restore(np.asarray(outputs)[..., 0], low[test], 1.0, 0.2)
    location, scale = location_and_scale(found / low[test])
    np.testing.assert_allclose(location, 1, atol=1e-3)
    np.testing.assert_allclose(scale, 0.2, rtol=1e-2)
