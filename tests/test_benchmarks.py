"""Benchmarks: their records and page, and that both sides of a comparison do the same work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# The benchmarks are no part of the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import page, record, runner, simulation, sky, training
from benchmarks.record import Measured
from benchmarks.timing import Side, paired
from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.simulation.optical_depth import tau_cl
from skyweave.simulation.spectra import SpectraTable

ENTRY = {
    "name": "simulation",
    "ours": 8.0712,
    "peer": 1234.5,
    "ratio": 152.95,
    "unit": "ms/patch",
    "machine": "A processor, 2 cores; python 3.11.7, numpy 2.4.6",
    "note": "Patches of 128² pixels.",
    "peer_command": "enmap.rand_map(shape, wcs, power)\n",
    "n": 9,
}
BARE = {key: value for key, value in ENTRY.items() if key in record.REQUIRED} | {
    "name": "spectra",
    "machine": "Another processor, 64 cores; python 3.12.1",
}


# The record


def test_entries_come_back(tmp_path):
    record.write(tmp_path / "new" / "a.json", [ENTRY, BARE])
    assert record.read(tmp_path / "new" / "a.json") == [ENTRY, BARE]


WRONG = {
    "no list": ({"name": "a"}, "a list of benchmarks, found dict"),
    "no entry": ([3], "entry 0: expected names and values, found int"),
    "a key too few": ([{"name": "a"}], "entry 0: expected 'ours', found name"),
    "text for a number": ([ENTRY | {"ours": "8"}], "'ours' to be float, found '8'"),
    "a truth for a number": ([ENTRY | {"n": True}], "'n' to be int, found True"),
    "no time at all": ([ENTRY | {"peer": 0}], "'peer' above 0, found 0"),
    "no number": ([ENTRY | {"ratio": float("nan")}], "'ratio' above 0, found nan"),
    "an unknown key": ([ENTRY | {"speed": 3}], "some of name, .* found 'speed'"),
    "a name twice": ([ENTRY, ENTRY], "each benchmark once, found 'simulation' twice"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_line(tmp_path, case):
    entries, message = WRONG[case]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match=message):
        record.read(tmp_path / "a.json")


def test_no_file_and_no_json_are_one_line(tmp_path):
    with pytest.raises(UserError, match="found no file"):
        record.read(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[")
    with pytest.raises(UserError, match="a list of benchmarks as JSON"):
        record.read(tmp_path / "a.json")


def test_an_entry_has_the_schema(tmp_path):
    measured = Measured(1.23456, 10.0, 8.1001, "ms", "a note", "call()", 9)
    made = record.entry("a", measured)
    record.write(tmp_path / "a.json", [made])
    assert record.read(tmp_path / "a.json") == [made]
    assert made["ours"] == 1.235
    for part in ("cores", "python 3.", "numpy", "pixell"):
        assert part in made["machine"]


def test_running_some_keeps_the_others(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    record.write(path, [ENTRY, BARE])
    ran = []

    def alone(name: str) -> Measured:
        ran.append(name)
        return Measured(1.0, 2.0, 2.0, "ms", "", "", 9)

    known = dict.fromkeys(["simulation", "new", "other"])
    monkeypatch.setattr(runner, "registered", lambda: known)
    monkeypatch.setattr(runner, "alone", alone)
    runner.run(["new", "simulation"], path)
    assert ran == ["new", "simulation"]
    found = {each["name"]: each for each in record.read(path)}
    assert list(found) == ["simulation", "spectra", "new"]
    assert found["spectra"] == BARE
    assert found["simulation"]["ratio"] == found["new"]["ratio"] == 2.0
    runner.run([], path)
    assert ran[2:] == list(known)
    with pytest.raises(UserError, match="some of simulation, new, other, found 'spectra'"):
        runner.run(["new", "spectra"], path)
    assert len(ran) == 5


def test_command_line_says_what_there_is():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nothing"],
        cwd=Path(runner.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks: expected some of simulation_vs_pixell, ")
    assert done.stderr.count("\n") == 1


def test_what_goes_wrong_in_a_benchmarks_own_process_is_heard():
    with pytest.raises(KeyError, match="nothing"):
        runner.alone("nothing")


# The page


def test_page():
    text = page.page([ENTRY, BARE, BARE | {"name": "again", "peer_command": ENTRY["peer_command"]}])
    assert "| [simulation](#simulation) | 8.07 | 1230 | 153 | ms/patch |" in text
    assert "### simulation\n\nPatches of 128² pixels.\n\nMedian of 9 blocks.\n" in text
    assert "```python\nenmap.rand_map(shape, wcs, power)\n```" in text
    assert f"- {ENTRY['machine']} (simulation)\n- {BARE['machine']} (spectra, again)\n" in text
    assert "### again\n\nThe peer: the code under simulation.\n" in text
    assert text.count("```") == 2


def test_page_of_one_machine_names_it_once(tmp_path):
    record.write(tmp_path / "a.json", [ENTRY, ENTRY | {"name": "other"}])
    page.main(["--results", str(tmp_path / "a.json"), "--page", str(tmp_path / "a.md")])
    text = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert text.count(ENTRY["machine"]) == 1
    assert text.endswith(f"- {ENTRY['machine']}\n")


# The measurements


def test_paired_takes_medians_of_blocks_in_turn(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr("benchmarks.timing.time.perf_counter", lambda: clock[0])

    def side(name: str, count: int, seconds: dict[int, float]) -> Side:
        def work(start: int, number: int) -> None:
            calls.append((name, start, number))
            clock[0] += number * seconds.get(start // count, 1.0)

        return Side(work, count)

    # The first block and a slow one do not count.
    mine, theirs = paired(side("a", 4, {0: 9.0, 2: 5.0}), side("b", 2, {0: 9.0, 1: 3.0}), 3)
    assert (mine, theirs) == (1.0, 1.0)
    assert calls[:4] == [("a", 0, 4), ("b", 0, 2), ("a", 4, 4), ("b", 2, 2)]
    assert len(calls) == 8


def toy_table() -> SpectraTable:
    """Spectra of about the CMB's size, tau and kappa of many times that, to show."""
    ell = np.arange(8001)
    safe = np.maximum(ell, 2)
    to_cl = 2 * np.pi / (safe * (safe + 1.0)) * (ell >= 2)
    damping = np.exp(-((ell / 1400) ** 1.3))
    return SpectraTable(
        {
            "tt": 3000 * damping * to_cl,
            "ee": 40 * damping * to_cl,
            "bb": 2 * damping * to_cl,
            "te": 150 * np.sin(np.pi * ell / 150) * damping * to_cl,
            "kk": 5e-6 / (1 + (safe / 150) ** 1.5),
            "tautau": 2e3 * tau_cl(8000),
        }
    )


PATCHES = 30


@pytest.mark.parametrize("tuned", [False, True])
def test_pixell_does_the_same_work(tuned):
    """Standard deviations of each field, and ell² C_ell in two bands: equal within 4 of their
    errors, which are a few per cent.

    Below 2500: above, pixell's spline with its knots at the pixels loses power.
    """
    table, pixels = toy_table(), 128
    np.random.seed(5)  # noqa: NPY002, pixell draws from there
    peer = simulation.Pixell(table, pixels, tuned=tuned)
    theirs = [peer.patch() for _ in range(PATCHES)]
    mine = list(simulation.simulator(table, pixels).realize(range(PATCHES)))
    grid = PatchGrid(simulation.PIXEL_DEG * pixels, pixels)
    bins = Bins((150, 1000, 2500))
    for name in simulation.FIELDS:
        measured = []
        for patches in (mine, theirs):
            maps = np.array([patch[name] for patch in patches], dtype=float)
            modes = forward(maps, grid)
            bands = bin_power(grid.ell**2 * power(modes, modes, grid), grid, bins)
            measured.append(np.column_stack([maps.std(axis=(1, 2)), bands]))
        mean = np.mean(measured, axis=1)
        error = np.hypot(*np.std(measured, axis=1, ddof=1)) / np.sqrt(PATCHES)
        assert np.all(np.abs(mean[0] - mean[1]) < 4 * error), name
        assert np.all(error < 0.05 * mean[0]), name


def test_pixell_draws_t_and_e_correlated_as_ours():
    """Of either sign; a wrong entry of the spectra's matrix would show."""
    table, pixels = toy_table(), 64
    np.random.seed(6)  # noqa: NPY002
    peer = simulation.Pixell(table, pixels)
    theirs = [peer.patch() for _ in range(PATCHES)]
    mine = list(simulation.simulator(table, pixels).realize(range(PATCHES)))
    grid, bins = PatchGrid(simulation.PIXEL_DEG * pixels, pixels), Bins((150, 300, 450))
    measured = []
    for patches in (mine, theirs):
        t, e = (
            forward(np.array([patch[name] for patch in patches], dtype=float), grid)
            for name in ("t_obs", "e_obs")
        )
        measured.append(bin_power(power(t, e, grid), grid, bins))
    mean = np.mean(measured, axis=1)
    error = np.hypot(*np.std(measured, axis=1, ddof=1)) / np.sqrt(PATCHES)
    assert np.all(np.abs(mean[0] - mean[1]) < 4 * error)
    assert np.all(mean[:, 0] < 0)
    assert np.all(mean[:, 1] > 0)


def test_measurements_are_made():
    """Each kind once, very short: numbers above 0 and ratios the right way up."""
    table = toy_table()
    against = simulation.versus_pixell(table, pixels=64, blocks=1, counts=(2, 1))
    assert against.ratio == pytest.approx(against.peer / against.ours)
    assert "lensing.displace_map" in against.peer_command
    cost = simulation.cost(128, table, blocks=1, patches=8)
    assert cost.ratio == pytest.approx(cost.peer / cost.ours)
    cores = simulation.two_cores(table, pixels=64, blocks=1, count=4)
    assert cores.ratio == pytest.approx(cores.ours / cores.peer)
    for measured in (against, cost, cores):
        assert min(measured.ours, measured.peer) > 0


# The sky


def test_reproject_puts_a_tile_where_we_do():
    """In the middle of a tile, which no other reaches; its bilinear reading of smooth maps."""
    import healpy

    nside, grid, table = 128, PatchGrid(20.0, 64), sky.layout(20, 2)
    tiles = np.zeros((1, len(table), 64, 64), np.float32)
    number = table.index[(table.lat == 0) & (table.lon == 90)][0]
    tiles[0, number] = sky.smooth(64, 6)
    mine = sky.reproject(tiles, table, grid, 2, nside)[0]
    theirs = sky.reproject_tile(tiles[0, number], sky.header(90, 0, grid), nside)
    inside = healpy.query_disc(nside, healpy.ang2vec(90, 0, lonlat=True), np.radians(7))
    assert np.isfinite(theirs[inside]).all()
    assert np.std(mine[inside] - theirs[inside]) < 0.01 * np.std(mine[inside])


def test_scikit_image_measures_the_same():
    """But for its estimate of lengths, and for the patch's edge, a boundary where it is above."""
    image, thresholds = sky.scaled(sky.smooth(128, 3)), np.linspace(0.1, 0.8, 8)
    v0, v1, v2 = sky.functionals(image, thresholds)
    area, length, euler = sky.thresholded(image, thresholds)
    np.testing.assert_allclose(area / 128**2, v0, atol=0.01)
    assert np.corrcoef(length, v1)[0, 1] > 0.99
    assert np.corrcoef(euler, v2)[0, 1] > 0.97


def test_the_sky_is_measured():
    for measured in (
        sky.reprojection(nside=32, pixels=16),
        sky.minkowski_peer(blocks=1, pixels=32),
        sky.spectra_workspace(patches=3, pixels=32, alone=1),
    ):
        assert measured.ratio == pytest.approx(measured.peer / measured.ours)
    cost = sky.minkowski_thresholds(blocks=1, pixels=32)
    assert cost.ratio == pytest.approx(cost.ours / cost.peer)


SECOND_STAGE = """
import dataclasses, json
from benchmarks import sky
patches = sky.Patches(size_deg=40, pixels=32, low_arcmin=1600, high_arcmin=240)
print(json.dumps(dataclasses.asdict(sky.second_stage_memory(nside=64, patches=patches))))
"""


@pytest.mark.slow
def test_the_memory_of_the_second_stage_is_measured():
    """Of few large tiles, in a process of its own: TensorFlow's threads are set once in each."""
    assert sky._elsewhere(os.getpid) != os.getpid()
    command = [sys.executable, "-c", SECOND_STAGE]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    assert 0.2 < measured["ours"] < 5
    assert measured["peer"] == 64
    assert "54 tiles of 40° and 32² pixels" in measured["note"]


# Training


@pytest.mark.slow
def test_the_loop_and_bare_keras_train_the_same_network(tmp_path):
    """An epoch of the same batches from the same weights ends in the same weights."""
    from skyweave import config
    from skyweave.training.loop import train
    from skyweave.training.method import learner
    from skyweave.training.state import values
    from skyweave.training.supervised import Supervised

    settings = config.Training(batch=4, epochs=1)
    maps = training.shards(tmp_path, 16, 20)
    parts = training.feed(maps, range(12), 4), training.feed(maps, range(12, 20), 4)
    made = training.network(settings, 0.0625, 16)
    method = Supervised(learner(made, settings))
    bare = training.Bare(training.network(settings, 0.0625, 16), settings, parts)
    train(method, *parts, settings, state_folder=tmp_path, identity={}, log=lambda line: None)
    bare.epochs(0, 1)
    for one, other in zip(values(made.variables), values(bare.model.variables), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("run", "unit"),
    [
        pytest.param(
            lambda: training.loop(width=0.0625, pixels=16, steps=2, batch=2, blocks=1),
            "ms/patch",
            marks=pytest.mark.slow,
        ),
        (lambda: training.fed(cached=False, width=0.0625, pixels=16, count=64), "ms/patch"),
        pytest.param(
            lambda: training.share(width=0.0625, pixels=16), "GFLOP/s", marks=pytest.mark.slow
        ),
    ],
)
def test_training_is_measured(run, unit, tmp_path):
    measured = run()
    fewer_is_better = unit == "ms/patch"
    expected = measured.peer / measured.ours if fewer_is_better else measured.ours / measured.peer
    assert measured.ratio == pytest.approx(expected)
    assert measured.unit == unit
    record.write(tmp_path / "a.json", [record.entry("a", measured)])
    assert record.read(tmp_path / "a.json")
