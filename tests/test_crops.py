"""Several patches cut from each simulated area: pieces of one map, one part of the split."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skyweave.config import Channel, CmbDataset, Effects, Grid, Split
from skyweave.data.shards import ShardSet
from skyweave.data.split import SPLITS, assign, read_split
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.flat_sky import FlatSky
from skyweave.simulation.optical_depth import tau_cl
from skyweave.simulation.patch import Simulator
from skyweave.simulation.spectra import SpectraTable
from skyweave.tasks.simulation import check, prepare, write_realizations

#: Areas of 15 degrees and 48 pixels, patches of 5 degrees and 16 pixels.
CROPS = Grid(size_deg=5, pixels=16, margin_deg=5, crops=4)
AREA = Grid(size_deg=15, pixels=48)
UNTAPERED = Effects(taper_deg=0, null_fraction=0.3)
NOISY = {
    "obs": Channel(beam_arcmin=30, noise_uk_arcmin=20, knee_ell=300),
    "fine": Channel(noise_uk_arcmin=5, foreground_dl_80=0.1),
}
FIELDS = ("t_obs", "q_obs", "u_fine", "t_prim", "kappa", "tau")


def spectra(factor: float = 1.0, lmax: int = 1000) -> SpectraTable:
    ell = np.maximum(np.arange(lmax + 1.0), 2)
    names = {"tt": 1e4, "ee": 30.0, "bb": 0.1, "te": 100.0}
    cl = {name: factor * size / ell**2.2 * (ell > 2) for name, size in names.items()}
    return SpectraTable(cl | {"kk": 1e-3 / ell**1.5, "tautau": tau_cl(lmax)})


TABLE = spectra()


def simulator(grid=CROPS, fields=FIELDS, effects=UNTAPERED, tables=(TABLE,), channels=None):
    return Simulator(
        tables, grid, effects, channels or NOISY, seed=5, dataset="crops", fields=fields
    )


def test_crops_are_pieces_of_one_larger_map():
    """Of the area that a dataset of such areas simulates under the same numbers: sky, beam, noise
    with and without a knee, foregrounds."""
    whole, cut = simulator(AREA), simulator()
    areas = list(whole.realize([2, 3]))
    places = set()
    for number, patch in zip(range(8, 16), cut.realize(range(8, 16)), strict=True):
        row, column = cut.crop(number)
        places.add((row, column))
        for name in FIELDS:
            expected = areas[number // 4 - 2][name][row : row + 16, column : column + 16]
            assert_allclose(patch[name], expected, rtol=1e-6, atol=0)
    assert len(places) == 8


def test_places_are_drawn_evenly_and_lie_inside_the_area():
    cut = simulator(CROPS.model_copy(update={"crops": 100}))
    places = np.array([cut.crop(number) for number in range(2000)])
    assert (places.min(axis=0), places.max(axis=0)) == (pytest.approx(0), pytest.approx(32))
    assert_allclose(places.mean(axis=0), 16, atol=4 * np.sqrt((33**2 - 1) / 12 / 2000))
    # Area by area other places.
    assert not np.array_equal(places[:100], places[100:200])


def test_a_crop_does_not_depend_on_what_is_asked_for_beside_it():
    together = list(simulator().realize(range(8)))
    for number in (7, 1):
        alone = next(iter(simulator(fields=("q_obs",)).realize([number])))
        assert_array_equal(alone["q_obs"], together[number]["q_obs"])


def test_crops_share_their_cosmology_and_whether_they_are_null():
    several = simulator(tables=[spectra(f) for f in (1, 2, 3)])
    for values in (
        [several.point(n) for n in range(400)],
        [several.is_null(n) for n in range(400)],
    ):
        by_area = np.reshape(values, (100, 4))
        assert (by_area == by_area[:, :1]).all()
        assert len(np.unique(by_area)) > 1


def test_the_taper_comes_after_the_cut_and_makes_e_and_b_of_the_patch():
    effects = UNTAPERED.model_copy(update={"taper_deg": 1.5})
    bare = next(simulator(fields=("q_obs", "u_obs")).realize([6]))
    patch = next(simulator(fields=("q_obs", "e_obs", "b_obs"), effects=effects).realize([6]))
    grid = PatchGrid(5, 16)
    q, u = (bare[name].astype(float) * cosine_taper(grid, 1.5) for name in ("q_obs", "u_obs"))
    assert_allclose(patch["q_obs"], q, rtol=1e-6)
    for name, expected in zip(("e_obs", "b_obs"), qu_to_eb(q, u, grid), strict=True):
        assert_allclose(patch[name], expected, atol=1e-5 * expected.std())


def test_pure_e_is_cut_from_that_of_the_area():
    area = next(simulator(AREA, fields=("e_pure",)).realize([1]))["e_pure"]
    cut = simulator(fields=("e_pure",))
    row, column = cut.crop(5)
    patch = next(cut.realize([5]))["e_pure"]
    assert_allclose(patch, area[row : row + 16, column : column + 16], rtol=1e-5)


def test_hits_are_those_of_the_area(tmp_path):
    hits = np.random.default_rng(1).uniform(1, 5, (48, 48))
    np.save(tmp_path / "hits.npy", hits)
    uneven = {"obs": Channel(noise_uk_arcmin=10, hits_path=str(tmp_path / "hits.npy"))}
    even = {"obs": Channel(noise_uk_arcmin=10)}
    silent = {"obs": Channel()}
    noisy, white, sky = (
        simulator(fields=("t_obs",), channels=channels) for channels in (uneven, even, silent)
    )
    row, column = noisy.crop(3)
    noisy, white, sky = (
        next(one.realize([3]))["t_obs"].astype(float) for one in (noisy, white, sky)
    )
    inside = hits[row : row + 16, column : column + 16]
    assert_allclose(
        noisy - sky, (white - sky) * np.sqrt(hits.mean() / inside), rtol=1e-3, atol=1e-3
    )


def test_an_area_is_simulated_once_for_those_that_follow_each_other(monkeypatch):
    made = []
    maps = FlatSky.maps

    def counted(*arguments, **options):
        made.append(1)
        return maps(*arguments, **options)

    monkeypatch.setattr(FlatSky, "maps", counted)
    assert len(list(simulator().realize(range(12)))) == 12
    assert len(made) == 3
    list(simulator().realize([0, 4, 5, 1]))
    assert len(made) == 3 + 3


# The split


def test_crops_of_an_area_stay_in_one_part_with_exact_shares():
    split = Split(train=0.85, validation=0.1, test=0.05)
    frame = assign(range(2000), split, 1, "cmb", together=10)
    by_area = frame["split"].to_numpy().reshape(200, 10)
    assert (by_area == by_area[:, :1]).all()
    for block in (by_area[:100, 0], by_area[100:, 0]):
        assert [np.sum(block == name) for name in SPLITS] == [85, 10, 5]
    # Areas are divided as realizations of one crop each are.
    assert_array_equal(by_area[:, 0], assign(range(200), split, 1, "cmb")["split"])


@pytest.mark.parametrize("count", [205, 1000, 1333])
def test_the_split_stays_when_crops_are_added(count):
    small, large = (assign(range(n), Split(), 1, "cmb", together=10) for n in (count, 2000))
    assert small.equals(large.iloc[:count])


def test_too_few_areas_for_a_part_are_an_error():
    with pytest.raises(UserError, match=r"datasets\.cmb\.split: .*none among 40, 20 of which stay"):
        assign(range(40), Split(), 1, "cmb", together=20)


# Files and settings


def write(path, seed=1, grid=CROPS, count=200, fields=("t_prim", "kappa", "t_obs")):
    write_realizations(
        path, [path.parent / "table.csv"], grid=grid, effects=Effects(taper_deg=0),
        channels={"obs": Channel()}, fields=fields, points=[{}], seed=seed, dataset="cmb",
        realizations=range(count),
    )  # fmt: skip


def test_shards_know_their_areas_and_the_split_is_theirs(tmp_path):
    TABLE.write(tmp_path / "table.csv")
    write(tmp_path / "0.h5")
    maps = ShardSet([tmp_path / "0.h5"])
    assert_array_equal(maps.labels["area"], np.arange(200) // 4)
    assert maps.provenance["settings"]["grid"]["crops"] == 4
    prepare(
        [tmp_path / "0.h5"], tmp_path / "split.csv", tmp_path / "n.json",
        split=Split(), seed=1, dataset="cmb",
    )  # fmt: skip
    parts = read_split(tmp_path / "split.csv")["split"].to_numpy().reshape(50, 4)
    assert (parts == parts[:, :1]).all()
    assert [np.sum(parts[:, 0] == name) for name in SPLITS] == [40, 5, 5]


def test_without_crops_nothing_says_so(tmp_path):
    """Shards and settings of jobs of before stay the same bytes."""
    assert "crops" not in Grid().model_dump()
    assert "crops" not in Grid(crops=1).model_dump(mode="json")
    assert CROPS.model_dump()["crops"] == 4
    assert Grid(**CROPS.model_dump()) == CROPS
    TABLE.write(tmp_path / "table.csv")
    write(tmp_path / "0.h5", grid=Grid(size_deg=5, pixels=16), count=4)
    maps = ShardSet([tmp_path / "0.h5"])
    assert "crops" not in maps.provenance["settings"]["grid"]
    assert "area" not in maps.labels


def test_errors_of_the_check_hold_for_crops_that_have_much_in_common(tmp_path):
    """Over many small datasets, differences from theory are as large as their errors say; taken
    for independent, crops that overlap would differ by far more."""
    ell = np.arange(601)
    # Many modes have a part in the variance, so that it scatters nearly as a normal number.
    cl = {name: values[: ell.size] for name, values in TABLE.cl.items()}
    cl["tt"] = 1e2 * (ell > 2) / (ell + 100)
    SpectraTable(cl).write(tmp_path / "table.csv")
    grid = Grid(size_deg=5, pixels=16, margin_deg=1.25, crops=4)
    pulls, naive = [], []
    for seed in range(20):
        write(tmp_path / "0.h5", seed=seed, grid=grid, count=64, fields=("t_prim",))
        metrics, verdicts = check([tmp_path / "table.csv"], [tmp_path / "0.h5"], dataset="cmb")
        (row,) = metrics.itertuples()
        pulls.append((row.value - row.theory) / row.error)
        maps = ShardSet([tmp_path / "0.h5"]).read("t_prim")
        error = np.mean(maps**2, axis=(1, 2)).std(ddof=1) / np.sqrt(64)
        naive.append((row.value - row.theory) / error)
        assert row.n == 64
        assert "of 16 areas" in verdicts[0]["note"]
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.4
    assert np.sqrt(np.mean(np.square(naive))) > 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sky": "curved"}, "crops: expected 1 with `sky: curved`"),
        ({"margin_deg": 0}, "margin_deg: expected more than 0 for 4 crops"),
    ],
)
def test_crops_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Grid(**CROPS.model_dump() | changes)


def test_files_hold_whole_areas():
    with pytest.raises(ValueError, match=r"shard_size: expected a multiple of grid\.crops \(4"):
        CmbDataset(kind="cmb", grid=CROPS, shard_size=30)


def test_files_of_estimates_hold_a_realization_each_of_every_part():
    grid = Grid(margin_deg=5, crops=10)
    split = Split(train=0.9, validation=0.08, test=0.02)
    settings = CmbDataset(kind="cmb", grid=grid, realizations=8000, shard_size=100, split=split)
    parts = assign(range(8000), split, 1, "cmb", together=10)["split"].to_numpy()
    for part in SPLITS:
        for shards in settings.estimated_together(part):
            assert part in parts[shards.start * 100 : shards.stop * 100]
