"""Maps that were made elsewhere as a dataset: what is read, what is refused, and what follows."""

import copy
import re
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose, assert_array_equal

import forked_snakemake
from skyweave.config import ImportedDataset, Network, parse
from skyweave.data.arrays import open_arrays
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import eb_to_qu, qu_to_eb
from skyweave.flat.taper import cosine_taper
from skyweave.networks.card import Card, predict, save_network
from skyweave.networks.registry import build
from skyweave.report.summary import dataset_row
from skyweave.tasks.imported import import_maps
from skyweave.tasks.imported_files import counted
from skyweave.tasks.methods import taper_deg

ROOT = Path(__file__).parent.parent
GRID = PatchGrid(5.0, 16)
TAPER = cosine_taper(GRID, 1.5)
#: Names of the published data pipeline.
ARRAYS = ("q_len", "u_len", "e_unl", "tru_tau", "tru_kappa")
FIELDS = ("q_obs", "u_obs", "e_prim", "tau", "kappa")


def published(count: int = 30, first: int = 0, e_sign: int = 1) -> dict[str, np.ndarray]:
    """Maps (n, 16, 16) as the published pipeline names them; Q and U in the flat convention."""
    rng = np.random.default_rng(first)
    e, b = rng.standard_normal((2, count, 16, 16))
    q, u = (TAPER * values for values in eb_to_qu(e, 0.1 * b, GRID))
    tau, kappa = (TAPER * s * rng.standard_normal((count, 16, 16)) for s in (2e-3, 0.04))
    maps = (q, u, e_sign * qu_to_eb(q, u, GRID)[0], tau, kappa)
    named = dict(zip(ARRAYS, (values.astype(np.float32) for values in maps), strict=True))
    return named | {"phi": np.zeros((count, 16, 16))}


def dataset(path: object = "maps.npz", **changes: object) -> ImportedDataset:
    values = {"kind": "imported", "path": path} | changes
    return parse({"datasets": {"own": values}}).datasets["own"]


def count(path: object, **changes: object) -> ImportedDataset:
    """The dataset with what its files' headers say."""
    values = {"kind": "imported", "path": path} | changes
    return counted(parse({"datasets": {"own": values}})).datasets["own"]


def imported(folder: Path, own: ImportedDataset) -> ShardSet:
    """The dataset's shards, written in `folder`."""
    paths = [folder / f"{number}.h5" for number in range(len(own.shards))]
    for path, rows in zip(paths, own.shards, strict=True):
        import_maps(path, own, rows, seed=1, name="own")
    return ShardSet(paths)


def save(path: Path, arrays: dict[str, np.ndarray], kind: str = "stored") -> str:
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[f"set/{name}"] = values
    else:
        (np.savez if kind == "stored" else np.savez_compressed)(path, **arrays)
    return str(path)


@pytest.mark.parametrize("kind", ["stored", "compressed", "hdf5"])
def test_shapes_and_rows_of_a_file(tmp_path, kind):
    """Without reading the rest; Fortran's order, too."""
    arrays = published(7)
    arrays["tru_tau"] = np.asfortranarray(arrays["tru_tau"])
    arrays["phi"] = arrays["phi"].astype(">f8")
    file = open_arrays(save(tmp_path / "maps.npz", arrays, kind))
    prefix = "set/" if kind == "hdf5" else ""
    assert {name.removeprefix(prefix) for name in file.shapes} == set(arrays)
    for name, values in arrays.items():
        assert file.shapes[prefix + name] == (7, 16, 16)
        assert_array_equal(file.read(prefix + name), values)
        assert_array_equal(file.read(prefix + name, 2, 5), values[2:5])
        assert_array_equal(file.read(prefix + name, 5, 99), values[5:])


def test_an_array_that_is_not_compressed_is_mapped(tmp_path):
    """Rows are found though all others are torn out of the file."""
    maps = published(40)
    path = tmp_path / "maps.npz"
    np.savez(path, q_len=maps["q_len"])
    file = open_arrays(path)
    content = bytearray(path.read_bytes())
    begin = content.index(maps["q_len"].tobytes()[:64])
    row = maps["q_len"][0].nbytes
    content[begin : begin + 39 * row] = bytes(39 * row)
    path.write_bytes(content)
    assert_array_equal(file.read("q_len", 39, 40), maps["q_len"][39:])


def test_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", q_len=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"arrays of plain numbers, found Python objects in q_len"):
        open_arrays(tmp_path / "a.npz")


def test_what_the_headers_say(tmp_path):
    paths = [save(tmp_path / f"{n}.npz", published(n, n)) for n in (12, 18)]
    own = count(paths)
    assert (own.realizations, own.pixels) == (30, 16)
    assert (own.grid.size_deg, own.grid.pixels) == (5, 16)
    assert count(paths[0], pixels=16, realizations=11).realizations == 11
    study = parse({"datasets": {"cmb": {"kind": "cmb"}}})
    assert counted(study) is study


@pytest.mark.parametrize("kind", ["stored", "compressed", "hdf5"])
def test_shards_hold_the_files_maps(tmp_path, kind):
    """Rows of two files go on in one another, whatever the shards' size is."""
    sets = [published(12, 1), published(18, 2)]
    paths = [save(tmp_path / f"{n}.npz", maps, kind) for n, maps in enumerate(sets)]
    names = {f: f"set/{a}" if kind == "hdf5" else a for f, a in zip(FIELDS, ARRAYS, strict=True)}
    own = count(paths, fields=names, shard_size=8, realizations=29)
    maps = imported(tmp_path / "shards", own)
    assert_array_equal(maps.realizations, np.arange(29))
    for field, array in zip(FIELDS, ARRAYS, strict=True):
        expected = np.concatenate([one[array] for one in sets])[:29]
        assert_array_equal(maps.read(field), expected)
    assert maps.units == {"q_obs": "uK_CMB", "u_obs": "uK_CMB", "e_prim": "uK_CMB"} | {
        "tau": "",
        "kappa": "",
    }
    assert (maps.size_deg, taper_deg(maps)) == (5, 1.5)
    assert maps.provenance["settings"]["convention"] == "flat"
    assert [one["name"] for one in maps.provenance["files"]] == ["0.npz", "1.npz"]


def test_arrays_that_have_the_fields_names(tmp_path):
    maps = published(10)
    named = {field: maps[array] for field, array in zip(FIELDS, ARRAYS, strict=True)}
    own = count(save(tmp_path / "a.npz", named))
    assert_array_equal(imported(tmp_path, own).read("kappa"), named["kappa"])


#: What Q and U of a file are multiplied by in each convention, from flat ones.
SIGNS = {"flat": (1, 1), "iau": (-1, -1), "cosmo": (-1, 1), "mirrored": (1, -1)}


@pytest.mark.parametrize("convention", SIGNS)
def test_the_convention_is_told_by_e(tmp_path, convention):
    flat = published(20)
    q, u = SIGNS[convention]
    own = flat | {"q_len": q * flat["q_len"], "u_len": u * flat["u_len"]}
    path = save(tmp_path / "a.npz", own)
    for given in ("auto", convention):
        maps = imported(tmp_path / given, count(path, convention=given))
        assert maps.provenance["settings"]["convention"] == convention
        assert_array_equal(maps.read("q_obs"), flat["q_len"])
        assert_array_equal(maps.read("u_obs"), flat["u_len"])
    other = "iau" if convention == "flat" else "flat"
    with pytest.raises(UserError) as caught:
        imported(tmp_path / "no", count(path, convention=other))
    assert caught.value.where == "datasets.own.convention"
    assert caught.value.expected.startswith(f"{convention!r}, in which E of Q and U has")
    assert str(caught.value.found).startswith(repr(other))


def test_e_that_does_not_go_with_q_and_u(tmp_path):
    other = published(20) | {"e_unl": published(20, 9)["e_unl"]}
    own = count(save(tmp_path / "a.npz", other))
    with pytest.raises(UserError, match="Q and U whose E goes with 'e_unl'"):
        imported(tmp_path, own)


def test_without_e_the_convention_is_taken_from_the_settings(tmp_path):
    maps = published(20)
    fields = {"q_obs": "q_len", "u_obs": "u_len", "kappa": "tru_kappa"}
    path = save(tmp_path / "a.npz", maps)
    for convention, sign in (("auto", 1), ("iau", -1)):
        own = count(path, fields=fields, convention=convention)
        found = imported(tmp_path / convention, own)
        assert_array_equal(found.read("q_obs"), sign * maps["q_len"])


def without(name: str) -> dict[str, np.ndarray]:
    return {key: values for key, values in published(12).items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "changes", "expected", "found"),
    [
        (without("tru_tau"), {}, "an array 'tru_tau' (datasets.own.fields.tau)", "e_unl, phi"),
        (published(12) | {"u_len": np.zeros((11, 16, 16))}, {}, "of one shape", "u_obs: (11, 16"),
        (published(12) | {"u_len": np.zeros((12, 16, 8))}, {}, "square maps", "(12, 16, 8)"),
        (published(12) | {"u_len": np.zeros((12, 256))}, {}, "square maps", "(12, 256)"),
        (published(9), {}, "at least 10 realizations", "9"),
        (published(12), {"realizations": 13}, "at most the files' 12", "13"),
        (published(12), {"pixels": 32}, "16, as in the files", "32"),
        ({name: np.zeros((12, 18, 18)) for name in ARRAYS}, {}, "a multiple of 4", "18 x 18"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, arrays, changes, expected, found):
    path = save(tmp_path / "a.npz", arrays)
    with pytest.raises(UserError) as caught:
        count(path, **changes)
    assert "\n" not in str(caught.value)
    assert expected in caught.value.expected
    assert found in str(caught.value.found)


def test_units_of_the_file_are_converted(tmp_path):
    maps = published(12)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in maps.items():
            kelvin = name in ("q_len", "u_len")
            file[name] = values * (1e-6 if kelvin else 1)
            if kelvin:
                file[name].attrs["units"] = "K"
    found = imported(tmp_path, count(str(tmp_path / "a.h5")))
    np.testing.assert_allclose(np.abs(found.read("q_obs")), np.abs(maps["q_len"]), rtol=1e-5)


@pytest.mark.parametrize(("note", "value"), [("size_deg", 10.0), ("taper_deg", 0.5)])
def test_settings_that_contradict_the_file_are_refused(tmp_path, note, value):
    path = save(tmp_path / "a.npz", published(12) | {note: np.array(value)})
    with pytest.raises(UserError) as caught:
        count(path)
    assert caught.value.where == f"datasets.own.{note}"
    assert caught.value.expected.startswith(f"{value:g}, as ")


def test_a_stated_convention_is_believed_of_noisy_maps(tmp_path):
    """Their E hardly goes with Q and U; `auto` cannot tell the convention by it."""
    maps = published(12)
    for name in ("q_len", "u_len"):
        noise = np.random.default_rng(5).standard_normal((12, 16, 16))
        maps[name] = maps[name] + np.float32(60 * TAPER * noise)
    path = save(tmp_path / "a.npz", maps)
    assert imported(tmp_path, count(path, convention="flat")).realizations.size == 12
    with pytest.raises(UserError, match="one of the conventions"):
        imported(tmp_path, count(path))


def test_files_of_other_sizes_are_refused(tmp_path):
    first = save(tmp_path / "a.npz", published(12))
    second = save(tmp_path / "b.npz", {name: np.zeros((12, 20, 20)) for name in ARRAYS})
    with pytest.raises(UserError, match="maps of 16 x 16 pixels, as in the first, found 20"):
        count([first, second])


def test_values_that_are_not_finite_are_refused(tmp_path):
    maps = published(20)
    maps["tru_kappa"][17, 3, 4] = np.nan
    own = count(save(tmp_path / "a.npz", maps))
    with pytest.raises(UserError) as caught:
        imported(tmp_path, own)
    assert caught.value.where == str(tmp_path / "a.npz")
    assert caught.value.found == "others in map 17"
    assert not (tmp_path / "0.h5").exists()


def study(**changes: object) -> dict:
    run = {
        "dataset": "own",
        "network": {"width": 0.0625},
        "training": {"epochs": 1, "batch": 4},
    }
    own = {"kind": "imported", "path": "maps.npz", "shard_size": 20}
    return {"datasets": {"own": own}, "runs": {"small": run}} | changes


def test_runs_are_checked_against_what_the_files_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "maps.npz", published(30))
    values = study()
    values["runs"]["small"]["training"]["batch"] = 32
    unread = parse(values)
    with pytest.raises(UserError, match=r"training.batch: expected at most the training set's 24"):
        counted(unread)
    values = copy.deepcopy(study())
    values["runs"]["small"]["targets"] = ["alpha"]
    with pytest.raises(UserError, match=r"targets: expected fields of dataset 'own'"):
        parse(values)


def snakemake(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return forked_snakemake.snakemake(folder, "--cores", "1", *words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A study of imported maps, prepared; its network is there, as if it had been trained."""
    folder = tmp_path_factory.mktemp("study")
    save(folder / "maps.npz", published(30))
    save(folder / "mine.npz", {name[0]: published(3, 5)[name] for name in ("q_len", "u_len")})
    values = study(predictions={"mine": {"run": "small", "path": "mine.npz", "tapered": True}})
    values["predictions"]["mine"]["format"] = "npz"
    (folder / "config").mkdir()
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(values))
    done = snakemake(folder, "datasets")
    logs = "\n".join(path.read_text() for path in (folder / "results" / "logs").rglob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return folder


def test_the_rules_behind_a_dataset_take_it(folder):
    done = snakemake(folder, "--dry-run", "all", "--", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.partition("Job stats:")[2].partition("total")[0]
    jobs = {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    assert {"train", "predict", "evaluate", "predict_maps", "report"} <= set(jobs)
    simulated = {"simulate", "spectra", "check_simulation", "draw_spectra"}
    assert not (simulated | {"import_maps"}) & set(jobs)


def test_split_and_normalization_of_imported_maps(folder):
    own = folder / "results" / "datasets" / "own"
    maps = ShardSet(sorted((own / "shards").iterdir()))
    assert len(maps.paths) == 2
    parts = read_split(own / "split.csv")
    assert {part: len(members(parts, part)) for part in ("train", "validation", "test")} == {
        "train": 24,
        "validation": 3,
        "test": 3,
    }
    found = Normalization.from_json((own / "normalization.json").read_text())
    rows = members(parts, "train")
    assert_allclose(found.moments["kappa"][1], published(30)["tru_kappa"][rows].std(), rtol=1e-6)


def test_the_rule_predicts_the_users_maps(folder):
    own = folder / "results"
    maps = ShardSet(sorted((own / "datasets" / "own" / "shards").iterdir()))
    scales = Normalization.from_json((own / "datasets/own/normalization.json").read_text())
    settings = parse(yaml.safe_load((folder / "config" / "config.yaml").read_text()))
    run = settings.runs["small"]
    card = Card(
        inputs=run.inputs,
        outputs=run.targets,
        units=maps.units,
        normalization=scales,
        size_deg=5.0,
        pixels=16,
        seed=1,
        data={"dataset": "own", "provenance": maps.provenance},
    )
    assert run.network == Network(width=0.0625)
    model = build(run.network, 16, run.inputs, run.targets, 1)
    save_network(own / "runs" / "small", model, card)
    target = "results/predictions/mine.npz"
    done = snakemake(folder, "--allowed-rules", "predict_maps", "--", target)
    log = own / "logs" / "predict_maps" / "mine.npz.log"
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text() * log.exists()
    inputs = {"q_obs": published(3, 5)["q_len"], "u_obs": published(3, 5)["u_len"]}
    expected = predict(own / "runs" / "small", inputs)
    with np.load(folder / target) as found:
        for name, values in expected.items():
            assert_allclose(found[name], values, rtol=1e-4, atol=1e-4 * values.std())


def test_the_reports_row(folder):
    settings = counted_in(folder)
    row = dataset_row(
        "imported", "own", folder / "results" / "datasets" / "own", settings.model_dump(mode="json")
    )
    assert (row["kind"], row["patches"]) == ("imported maps", "30")
    assert row["geometry"] == "5°, 16 × 16 pixels"
    assert row["split"] == "train 24, validation 3, test 3"
    assert row["conditions"] == "maps.npz, taper 1.5°"


def counted_in(folder: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return counted(parse(yaml.safe_load((folder / "config" / "config.yaml").read_text())))


def test_a_mistake_stops_before_any_job(folder, tmp_path):
    values = yaml.safe_load((folder / "config" / "config.yaml").read_text())
    values["datasets"]["own"]["realizations"] = 31
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    done = snakemake(folder, "--dry-run", "--configfile", str(path))
    assert done.returncode != 0
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("config: ")]
    assert line == "config: datasets.own.realizations: expected at most the files' 30, found 31"
