"""Estimates of a dataset: calibrated on its training set, written as shards, read with its maps."""

import json

import numpy as np
import pytest

from skyweave.config import Channel, CmbDataset, Effects, Estimates, Grid, Spectra, Split
from skyweave.data.joined import Joined, open_maps
from skyweave.data.shards import ShardSet, write_shard
from skyweave.data.split import assign, members
from skyweave.errors import UserError
from skyweave.simulation.spectra import compute
from skyweave.simulation.theory import lensed
from skyweave.tasks.estimates import calibrate, complete, estimate
from skyweave.tasks.simulation import write_realizations

COUNT = 40
FIELDS = ("q_obs", "u_obs", "e_prim", "tau", "kappa")
SETTINGS = Estimates(iterations=1, calibration=16)


def write(folder, table, channel=None, effects=None, grid=None):
    """A dataset of two shards, its split and its spectra."""
    grid = grid or Grid(pixels=32)
    for shard in range(2):
        write_realizations(
            folder / f"{shard}.h5",
            [table],
            grid=grid,
            effects=effects or Effects(),
            channels={"obs": channel or Channel(noise_uk_arcmin=2)},
            fields=FIELDS,
            points=[{}],
            seed=1,
            dataset="some",
            realizations=range(20 * shard, 20 * shard + 20),
        )
    assign(range(COUNT), Split(train=0.6, validation=0.2, test=0.2), 1, "some").to_csv(
        folder / "split.csv", index=False
    )
    return [folder / "0.h5", folder / "1.h5"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A file of spectra."""
    path = tmp_path_factory.mktemp("spectra") / "spectra.csv"
    compute(Spectra(lmax=3000)).write(path)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, table):
    """Folder with shards, split, calibration, and the estimates of the test set in two files."""
    folder = tmp_path_factory.mktemp("dataset")
    shards = write(folder, table)
    known = {"shards": shards, "split": folder / "split.csv"}
    calibrate(folder / "estimator.json", settings=SETTINGS, channel="obs", spectra=[table], **known)
    for shard in range(2):
        estimate(
            folder / f"test{shard}.h5",
            calibration=folder / "estimator.json",
            part="test",
            shards=shards[shard : shard + 1],
            split=folder / "split.csv",
        )
    return folder


def shards(folder):
    return [folder / "0.h5", folder / "1.h5"]


def parts(folder):
    return [folder / "test0.h5", folder / "test1.h5"]


def test_files_hold_the_part_once(dataset):
    split = assign(range(COUNT), Split(train=0.6, validation=0.2, test=0.2), 1, "some")
    found = ShardSet(parts(dataset))
    np.testing.assert_array_equal(found.realizations, members(split, "test"))
    assert set(found.fields) == {
        *("e_wiener", "b_wiener", "e_iterative", "b_iterative"),
        *("kappa_quadratic", "kappa_iterative"),
        *("tau_quadratic", "tau_iterative"),
    }
    assert found.units["e_iterative"] == "uK_CMB"
    assert found.units["kappa_iterative"] == ""


def test_estimates_go_with_their_maps(dataset):
    """E of each realization is like its own truth, not like another's."""
    maps = open_maps(shards(dataset), parts(dataset))
    numbers = ShardSet(parts(dataset)).realizations
    e, truth = maps.read("e_iterative", numbers), maps.read("e_prim", numbers)
    own = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(e, truth, strict=True)]
    other = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(e, truth[::-1], strict=True)]
    assert min(own) > 0.95
    assert np.mean(other) < 0.5
    backwards = maps.read("e_iterative", numbers[::-1])
    np.testing.assert_array_equal(backwards, e[::-1])


def test_a_card_makes_the_same_estimates(dataset):
    maps = open_maps(shards(dataset), parts(dataset))
    numbers = ShardSet(parts(dataset)).realizations[:3]
    values = json.loads((dataset / "estimator.json").read_text())
    some = {name: maps.read(name, numbers) for name in ("q_obs", "u_obs")}
    found = complete(values, some)
    for name in ("q_obs", "e_iterative", "kappa_quadratic"):
        np.testing.assert_allclose(found[name], maps.read(name, numbers), rtol=1e-5, atol=1e-8)
    with pytest.raises(UserError, match="u_obs"):
        complete(values, {"q_obs": some["q_obs"]})


def test_null_skies_are_not_calibrated_on(tmp_path, table, dataset):
    values = json.loads((dataset / "estimator.json").read_text())
    null = ShardSet(shards(dataset)).labels["null"]
    train = members(
        assign(range(COUNT), Split(train=0.6, validation=0.2, test=0.2), 1, "some"), "train"
    )
    assert values["realizations"] == min(16, int((null[train] == 0).sum()))

    few = write(tmp_path, table, effects=Effects(null_fraction=0.9))
    with pytest.raises(UserError, match="8 realizations that are not null"):
        calibrate(
            tmp_path / "estimator.json",
            settings=SETTINGS,
            channel="obs",
            spectra=[table],
            shards=few,
            split=tmp_path / "split.csv",
        )
    assert not (tmp_path / "estimator.json").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"channel": Channel(noise_uk_arcmin=2, beam_arcmin=10, knee_ell_pol=200)},
        {"grid": Grid(pixels=32, margin_deg=1.0)},
        {"effects": Effects(rotation_amplitude=1e-5)},
    ],
    ids=["beam and knee", "not periodic", "rotation"],
)
def test_other_skies_and_instruments(tmp_path, table, settings):
    files = write(tmp_path, table, **settings)
    known = {"shards": files, "split": tmp_path / "split.csv"}
    path = tmp_path / "estimator.json"
    calibrate(path, settings=SETTINGS, channel="obs", spectra=[table], **known)
    estimate(tmp_path / "x.h5", calibration=path, part="validation", **known)
    maps = open_maps(files, [tmp_path / "x.h5"])
    numbers = ShardSet([tmp_path / "x.h5"]).realizations
    e, truth = maps.read("e_iterative", numbers), maps.read("e_prim", numbers)
    assert np.corrcoef(e.ravel(), truth.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("count", "size"), [(40, 20), (70, 1), (2000, 500), (70_000, 1000), (30, 1000)]
)
def test_no_file_of_estimates_is_empty_and_none_is_huge(part, count, size):
    """Each shard in one file, and in each file realizations of the part, about a shard's worth."""
    dataset = CmbDataset(kind="cmb", realizations=count, shard_size=size)
    files = dataset.estimated_together(part)
    assert [shard for file in files for shard in file] == list(range(len(dataset.shards)))
    split = assign(range(count), dataset.split, 1, "some")
    numbers = members(split, part)
    for file in files:
        first, last = dataset.shards[file[0]][0], dataset.shards[file[-1]][-1]
        held = int(((numbers >= first) & (numbers <= last)).sum())
        assert 0 < held <= max(2 * size, 320)


# Reading together


def test_other_datasets_are_refused(dataset, tmp_path):
    maps = ShardSet(shards(dataset))
    common = {"realizations": [0], "size_deg": 5.0, "units": {"kappa": "", "x": ""}}
    values = {"x": np.zeros((1, 32, 32))}
    write_shard(tmp_path / "other.h5", values, provenance={"dataset": "another"}, **common)
    with pytest.raises(UserError, match="another"):
        Joined(shards(dataset), [tmp_path / "other.h5"])
    same = maps.provenance | {"estimates": "0"}
    write_shard(tmp_path / "twice.h5", {"kappa": values["x"]}, provenance=same, **common)
    with pytest.raises(UserError, match="kappa"):
        Joined(shards(dataset), [tmp_path / "twice.h5"])


def test_a_realization_without_estimates_is_named(dataset):
    maps = open_maps(shards(dataset), parts(dataset))
    absent = sorted(set(range(COUNT)) - set(ShardSet(parts(dataset)).realizations.tolist()))[0]
    assert maps.read("kappa", [absent]).shape == (1, 32, 32)
    with pytest.raises(UserError, match=f"realization {absent}"):
        maps.read("kappa_iterative", [absent])
    maps.close()


def test_without_estimates_maps_are_the_shards(dataset):
    assert type(open_maps(shards(dataset))) is ShardSet


# Lensed spectra of a table of one's own


def test_lensed_spectra_are_cambs():
    found = compute(Spectra(lmax=4000))
    own = lensed({name: found.cl[name] for name in ("tt", "ee", "bb", "te", "kk")})
    for name in ("ee", "bb"):
        np.testing.assert_allclose(
            own[name][30:2000], found.cl[f"lensed_{name}"][30:2000], rtol=5e-3
        )
