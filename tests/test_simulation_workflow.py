"""Simulated datasets as a user makes them: settings in, Snakemake run, shards and maps out."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from numpy.testing import assert_allclose
from pixell import enmap

import forked_snakemake
from skyweave.config import Channel, Effects, Grid, Spectra
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import UserError
from skyweave.files import sha256
from skyweave.flat.beam import gaussian_beam
from skyweave.simulation.cosmologies import points
from skyweave.simulation.curved import places
from skyweave.simulation.patch import simulate
from skyweave.simulation.spectra import SpectraTable
from skyweave.sky.projection import unit_vector
from skyweave.tasks.simulation import check, export, write_realizations

ROOT = Path(__file__).parent.parent
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
#: The instrument model is fetched once for a checkout.
DATA = ROOT / "results" / "data"
SEED = 11
#: Highest multipole of the text table, above the Nyquist multipole of 32 pixels on 20 degrees.
LMAX = 300

VARIED = {
    "kind": "cmb",
    "spectra": {
        "lmax": 600,
        "vary": {"ns": [0.9, 1.0], "r": {"low": 0.0, "high": 0.2}},
        "points": 3,
    },
    "grid": {"size_deg": 10, "pixels": 32, "margin_deg": 2},
    "effects": {"rotation_deg": 0.5, "rotation_amplitude": 1e-5},
    "channels": {
        "f100": {"beam_arcmin": 60, "noise_uk_arcmin": 10, "knee_ell": 200},
        "f143": {"beam_path": "beam.txt", "noise_uk_arcmin": 5, "hits_path": "hits.npy"},
        "f353": {"beam_hfi_ghz": 353, "noise_uk_arcmin": 20, "knee_ell_pol": 100},
    },
    "fields": ["t_f100", "q_f143", "u_f143", "e_f353", "b_f353", "t_prim", "kappa", "tau", "alpha"],
    "realizations": 24,
    "shard_size": 24,
}
FLAT = {
    "kind": "cmb",
    "spectra": {"source": "table", "path": "spectra.txt", "lmax": LMAX},
    "grid": {"size_deg": 20, "pixels": 32, "oversample": 2},
    "channels": {"obs": {"beam_arcmin": 40, "noise_uk_arcmin": 5}},
    "fields": ["q_obs", "u_obs", "b_obs", "e_prim", "tau", "kappa"],
    "realizations": 40,
    "shard_size": 40,
}
CURVED = FLAT | {
    "grid": {"size_deg": 20, "pixels": 32, "sky": "curved", "patches_per_sky": 6},
    "channels": {"obs": {"noise_uk_arcmin": 5}},
    "fields": ["t_obs", "q_obs", "u_obs", "t_prim", "kappa"],
    "realizations": 10,
    "shard_size": 12,
}
SHARDED = FLAT | {"shard_size": 20}
STUDY = {"varied": VARIED, "flat": FLAT, "curved": CURVED}


def command(*arguments: str) -> list[str]:
    return [str(SNAKEMAKE), "--snakefile", str(ROOT / "Snakefile"), *arguments]


def snakemake(folder: Path, *arguments: str, cores: int = 2) -> subprocess.CompletedProcess[str]:
    """Run the workflow in `folder` with its config/config.yaml."""
    return forked_snakemake.snakemake(folder, "--cores", str(cores), *arguments)


def run(folder: Path, *arguments: str, cores: int = 2) -> str:
    """Run the workflow and expect it to end well; what it said."""
    done = snakemake(folder, *arguments, cores=cores)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned(folder: Path, *targets: str) -> dict[str, int]:
    """Number of jobs of each rule in a dry run."""
    table = run(folder, "--dry-run", *targets).partition("Job stats:")[2].partition("total")[0]
    jobs = {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    return {name: count for name, count in jobs.items() if name != "datasets"}


def table_text(factor: np.ndarray | float = 1.0) -> str:
    """Spectra of about the CMB's size, D_ell in µK², times `factor`."""
    ell = np.arange(2, LMAX + 1)
    dl = {
        "tt": 1000 + 4000 * (ell / LMAX) ** 2,
        "ee": 5 * (ell / LMAX) ** 2,
        "bb": 1e-4 * ell / LMAX,
        "te": 30 * (ell / LMAX) ** 2,
        "kk": 1e-3 * np.sqrt(60 / (ell + 60)),
    }
    columns = [ell, *(factor * values for values in dl.values())]
    rows = [" ".join(f"{value:.8g}" for value in row) for row in np.transpose(columns)]
    return "\n".join(["ell " + " ".join(f"dl_{name}" for name in dl), *rows]) + "\n"


def beam_text(first: float = 1.0) -> str:
    ell = np.arange(0, 1001)
    window = first * gaussian_beam(ell, 45.0)
    return "ell b_ell\n" + "\n".join(
        f"{m} {b:.8g}" for m, b in zip(ell.tolist(), window.tolist(), strict=True)
    )


def hits_of(seed: int, pixels: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 5, (pixels, pixels))


def prepare_folder(folder: Path, **datasets: dict) -> None:
    """A study of `datasets` in `folder`, with the files that they name."""
    values = {"seed": SEED, "datasets": datasets, "pathvars": {"data": str(DATA)}}
    (folder / "config").mkdir(parents=True, exist_ok=True)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(values))
    (folder / "spectra.txt").write_text(table_text())
    (folder / "beam.txt").write_text(beam_text())
    np.save(folder / "hits.npy", hits_of(1))


def configure(folder: Path, **datasets: dict) -> None:
    """Other datasets in a folder that is prepared; its files stay as they are."""
    path = folder / "config" / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"datasets": datasets}))


def with_value(section: dict, key: str, value: object) -> dict:
    """A copy of a section with one value changed; the key is dotted."""
    first, _, rest = key.partition(".")
    return section | {first: with_value(section[first], rest, value) if rest else value}


def shard_paths(folder: Path, dataset: str) -> list[Path]:
    return sorted((folder / "results" / "datasets" / dataset / "shards").glob("[0-9]*.h5"))


def digests(folder: Path, dataset: str) -> dict[str, str]:
    """SHA-256 of each field and label over the realizations, however they are filed."""
    shards = ShardSet(shard_paths(folder, dataset))
    arrays = {field: shards.read(field) for field in shards.fields}
    arrays |= {f"label {name}": values for name, values in shards.labels.items()}
    arrays["realizations"] = shards.realizations
    shards.close()
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Folder in which three datasets and one export were made."""
    folder = tmp_path_factory.mktemp("study")
    prepare_folder(folder, **STUDY)
    run(folder, "datasets", "results/datasets/curved/fits/8")
    return folder


def sets() -> list[dict[str, float]]:
    return points(Spectra(**VARIED["spectra"]), SEED)


def spectra_files(folder: Path, dataset: str) -> list[Path]:
    """Tables that a dataset's shards say they are drawn from, in the order of its points."""
    by_sum = {sha256(path): path for path in (folder / "results" / "spectra").iterdir()}
    shards = ShardSet(shard_paths(folder, dataset))
    shards.close()
    return [by_sum[wanted] for wanted in shards.provenance["spectra"]]


def test_spectra_are_computed_once_for_each_set_of_parameters(study):
    varied = spectra_files(study, "varied")
    assert len(set(varied)) == 3
    assert spectra_files(study, "flat") == spectra_files(study, "curved")
    assert len(list((study / "results" / "spectra").iterdir())) == 3 + 1
    tables = [SpectraTable.read(path) for path in varied]
    # The tensors' B goes with r, and with ns the damping tail rises over the plateau.
    r, ns = (np.array([values[name] for values in sets()]) for name in ("r", "ns"))
    tensors = [table.cl["bb"][80] for table in tables] / r
    assert_allclose(tensors, np.mean(tensors), rtol=0.1)
    rise = np.array([table.cl["tt"][590] / table.cl["tt"][30] for table in tables])
    assert rise[ns == 1.0].min() > 1.2 * rise[ns == 0.9].max()


def test_labels_are_the_parameters_drawn(study):
    shards = ShardSet(shard_paths(study, "varied"))
    assert set(shards.labels) == {"ns", "r", "point", "null"}
    point = shards.labels["point"].astype(int)
    assert set(point) == {0, 1, 2}
    for name in ("ns", "r"):
        assert shards.labels[name].tolist() == [sets()[index][name] for index in point]
    kappa = shards.read("kappa").any(axis=(1, 2))
    assert np.array_equal(shards.labels["null"] == 0, kappa)
    assert 0 < kappa.sum() < 24


def test_maps_are_those_of_the_library(study):
    """The rule hands on every setting: channels, spectra in their order, instrument model."""
    wanted = [3, 20]
    channels = {
        name: Channel(**values | {k: str(study / v) for k, v in values.items() if "path" in k})
        for name, values in VARIED["channels"].items()
    }
    maps = simulate(
        [SpectraTable.read(path) for path in spectra_files(study, "varied")],
        Grid(**VARIED["grid"]),
        Effects(**VARIED["effects"]),
        channels,
        seed=SEED,
        dataset="varied",
        realizations=wanted,
        fields=VARIED["fields"],
        hfi=DATA / "hfi" / "HFI_RIMO_R1.10.fits",
    )
    shards = ShardSet(shard_paths(study, "varied"))
    for field in VARIED["fields"]:
        np.testing.assert_array_equal(shards.read(field, wanted), maps[field], err_msg=field)


@pytest.mark.parametrize(
    ("dataset", "fields"),
    [
        ("varied", ["alpha", "kappa", "t_prim", "tau"]),
        ("flat", ["e_prim", "kappa", "tau"]),
        ("curved", ["kappa", "t_prim"]),
    ],
)
def test_datasets_agree_with_theory(study, dataset, fields):
    path = study / "results" / "datasets" / dataset / "verdicts.json"
    verdicts = json.loads(path.read_text())
    assert [verdict["check"].partition(":")[0] for verdict in verdicts] == fields
    assert [verdict["check"] for verdict in verdicts if not verdict["passed"]] == []


def test_curved_patches_know_their_places(study):
    """Six on the first sky, four on the second."""
    shards = ShardSet(shard_paths(study, "curved"))
    assert set(shards.labels) == {"lon", "lat", "null"}
    for name, angle in zip(("lon", "lat"), places(6), strict=True):
        np.testing.assert_array_equal(shards.labels[name], [*angle, *angle[:4]])
    t = shards.read("t_prim")
    assert np.abs(np.corrcoef(t.reshape(10, -1)) - np.eye(10)).max() < 0.9


def test_an_exported_patch_is_read_by_pixell(study):
    folder = study / "results" / "datasets" / "curved" / "fits" / "8"
    names = {"obs.fits", "t_prim.fits", "kappa.fits"}
    assert {path.name for path in folder.glob("*.fits")} == names
    shards = ShardSet(shard_paths(study, "curved"))
    place = shards.labels["lon"][8], shards.labels["lat"][8]
    for name in names:
        shape, wcs = enmap.read_map_geometry(str(folder / name))
        lat, lon = np.degrees(enmap.center(shape, wcs))
        assert_allclose(unit_vector(lon, lat), unit_vector(*place), atol=1e-12)
    read = enmap.read_map(str(folder / "obs.fits"))
    t, q, u = (shards.read(f"{stokes}_obs", [8])[0] for stokes in "tqu")
    np.testing.assert_array_equal(read, [t, -q, u])
    kappa = shards.read("kappa", [8])[0]
    np.testing.assert_array_equal(enmap.read_map(str(folder / "kappa.fits")), kappa)


def test_an_export_says_what_was_drawn(study, tmp_path):
    export(tmp_path, shard_paths(study, "varied"), 5)
    names = {"f143", "t_f100", "e_f353", "b_f353", "t_prim", "kappa", "tau", "alpha"}
    assert {path.stem for path in tmp_path.iterdir()} == names
    labels = ShardSet(shard_paths(study, "varied")).labels
    for name in names:
        header = fits.getheader(tmp_path / f"{name}.fits")
        assert {key: header[key] for key in ("SEED", "DATASET", "REALIZATION")} == {
            "SEED": SEED,
            "DATASET": "varied",
            "REALIZATION": 5,
        }
        # A FITS card holds 20 characters of a number.
        drawn = {key: pytest.approx(values[5], rel=1e-13) for key, values in labels.items()}
        assert {key: header[key] for key in labels} == drawn


def test_an_export_that_cannot_be(study, tmp_path):
    with pytest.raises(UserError, match=r"expected realization 10, found no shard"):
        export(tmp_path / "10", shard_paths(study, "curved"), 10)
    write_shard(
        tmp_path / "q.h5", {"q_obs": np.ones((1, 16, 16))}, realizations=[0], size_deg=5.0,
        units={"q_obs": "uK_CMB"}, provenance={"seed": 1, "dataset": "cmb"},
    )  # fmt: skip
    with pytest.raises(UserError, match=r"expected a field besides a lone Q or U, found q_obs"):
        export(tmp_path / "0", [tmp_path / "q.h5"], 0)
    assert [path.name for path in tmp_path.iterdir()] == ["q.h5"]


def test_an_export_needs_one_shard(tmp_path):
    prepare_folder(tmp_path, flat=SHARDED)
    jobs = {"spectra": 1, "simulate": 1, "export_patch": 1}
    assert planned(tmp_path, "results/datasets/flat/fits/25") == jobs


@pytest.fixture(scope="module")
def killed(study, tmp_path_factory) -> Path:
    """Folder of a run on one core that was killed while it wrote the second of two shards, and
    that was run again."""
    top = tmp_path_factory.mktemp("killed")
    prepare_folder(top, flat=SHARDED, varied=VARIED)
    process = subprocess.Popen(
        command("--cores", "1", "results/datasets/flat/split.csv"),
        cwd=top,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    folder = top / "results" / "datasets" / "flat" / "shards"
    _stop_in_the_middle(process, folder)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL

    (whole,) = shard_paths(top, "flat")
    written = whole.stat().st_mtime_ns
    ShardSet([whole]).close()
    (half,) = set(folder.iterdir()) - {whole}
    size = half.stat().st_size
    time.sleep(0.5)
    assert half.stat().st_size == size

    table = spectra_files(study, "varied")[0].relative_to(study)
    targets = [*(f"results/datasets/flat/shards/{number}.h5" for number in (0, 1)), str(table)]
    run(top, "--unlock", *targets)
    run(top, *targets, cores=1)
    assert {path.name for path in folder.iterdir()} == {"0.h5", "1.h5"}
    assert whole.stat().st_mtime_ns == written
    return top


def test_bytes_of_a_killed_run_on_one_core(study, killed):
    """Two shards, one of them written anew after a kill, are the maps of one shard on two cores.

    CAMB's spectra have the same bytes as well.
    """
    assert digests(killed, "flat") == digests(study, "flat")
    table = spectra_files(study, "varied")[0].relative_to(study)
    assert (killed / table).read_bytes() == (study / table).read_bytes()


def _stop_in_the_middle(process: subprocess.Popen, folder: Path) -> None:
    """Stop a run's processes while one shard is whole and another half-written."""
    while process.poll() is None:
        if list(folder.glob("[0-9]*.h5")) and list(folder.glob(".*.h5")):
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(0.05)
            if list(folder.glob(".*.h5")):
                return
            os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError("The run ended before it could be stopped.")


def test_added_realizations_cost_their_shard_alone(killed):
    configure(killed, flat=SHARDED | {"realizations": 60})
    jobs = {"simulate": 1, "prepare": 1, "check_simulation": 1}
    assert planned(killed, "datasets") == jobs
    old = {path: (path.stat().st_mtime_ns, sha256(path)) for path in shard_paths(killed, "flat")}
    run(killed, "results/datasets/flat/shards/2.h5")
    new = {path: (path.stat().st_mtime_ns, sha256(path)) for path in shard_paths(killed, "flat")}
    assert (len(old), len(new)) == (2, 3)
    assert {path: new[path] for path in old} == old
    assert ShardSet(new).realizations.tolist() == list(range(60))


def test_a_change_reruns_what_it_touches(study):
    """A channel of one dataset, what a file of another holds, and the number of sets where nothing
    varies: two datasets anew, no spectra."""
    changed = with_value(STUDY, "flat.channels.obs.noise_uk_arcmin", 7.0)
    changed = with_value(changed, "flat.spectra", FLAT["spectra"] | {"points": 5})
    configure(study, **changed)
    np.save(study / "hits.npy", hits_of(2))
    try:
        jobs = {"simulate": 2, "prepare": 2, "check_simulation": 2}
        assert planned(study, "datasets") == jobs
    finally:
        configure(study, **STUDY)
        np.save(study / "hits.npy", hits_of(1))


def test_varied_otherwise_only_new_spectra_are_computed(study):
    """The third class of ns goes to one of the three sets, whose r stay."""
    configure(study, **with_value(STUDY, "varied.spectra.vary.ns", [0.9, 1.0, 1.1]))
    try:
        jobs = {"spectra": 1, "simulate": 1, "prepare": 1, "check_simulation": 1}
        assert planned(study, "datasets") == jobs
    finally:
        configure(study, **STUDY)


def test_the_published_study_plans_in_seconds(tmp_path):
    path = ROOT / "config" / "studies" / "resunet_cmb.yaml"
    start = time.monotonic()
    done = snakemake(tmp_path, "--dry-run", "--configfile", str(path))
    assert time.monotonic() - start < 30
    assert done.returncode == 0, done.stderr
    assert re.search(r"^simulate +140$", done.stdout, re.MULTILINE)
    assert re.search(r"^spectra +1$", done.stdout, re.MULTILINE)


#: VmHWM: unlike getrusage's, it does not begin with what the parent process had.
SIMULATE = """
import sys
from pathlib import Path
from skyweave.config import Channel, Effects, Grid
from skyweave.tasks.simulation import write_realizations

write_realizations(
    sys.argv[1], [sys.argv[2]], grid=Grid(size_deg=20, pixels=64), effects=Effects(),
    channels={"obs": Channel(noise_uk_arcmin=1)}, points=[{}], seed=1, dataset="memory",
    fields=("q_obs", "u_obs", "b_obs", "e_prim", "tau", "kappa"),
    realizations=range(int(sys.argv[3])),
)
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1e3)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_shard(study, tmp_path):
    """Ten times the realizations of 64² pixels, 100 MB more of maps: less than 20 MB more."""
    table = str(spectra_files(study, "flat")[0])
    processes = {}
    for count in (100, 1000):
        arguments = [str(tmp_path / f"{count}.h5"), table, str(count)]
        processes[count] = subprocess.Popen(
            [sys.executable, "-c", SIMULATE, *arguments], stdout=subprocess.PIPE, text=True
        )
    peak = {count: float(process.communicate()[0]) for count, process in processes.items()}
    assert (tmp_path / "1000.h5").stat().st_size > 900 * 6 * 64**2 * 4
    assert peak[1000] - peak[100] < 20


def test_broken_files_end_in_one_line_and_leave_nothing(tmp_path):
    one = FLAT | {"realizations": 10}
    prepare_folder(tmp_path, one=one)
    ell = np.arange(2, LMAX + 1)
    (tmp_path / "half.txt").write_text(beam_text(first=0.5))
    np.save(tmp_path / "small.npy", hits_of(1, pixels=16))
    (tmp_path / "cl.txt").write_text(table_text(2 * np.pi / (ell * (ell + 1))))
    tau = 2 * np.pi / (ell * (ell + 1)) * 8e-6
    (tmp_path / "tau.txt").write_text(
        "ell dl_tau\n" + "\n".join(f"{m} {t:.8g}" for m, t in zip(ell, tau, strict=True))
    )
    own = {
        "beam": with_value(one, "channels.obs", {"beam_path": "half.txt"}),
        "hits": with_value(one, "channels.obs.hits_path", "small.npy"),
        "cl": with_value(one, "spectra.path", "cl.txt"),
        "tau": with_value(one, "spectra.tau_path", "tau.txt"),
    }
    configure(tmp_path, **own)
    done = snakemake(tmp_path, "--keep-going", "datasets")
    assert done.returncode != 0
    results = tmp_path / "results"
    said = [path.read_text().splitlines() for path in (results / "logs").rglob("*.log")]
    # Two broken channels, two broken tables, and a whole one that says nothing.
    assert sorted(map(len, said)) == [0, 1, 1, 1, 1]
    lines = {line for log in said for line in log}
    assert all(line in done.stdout + done.stderr for line in lines)
    expected = {
        r"half\.txt: expected a beam window that starts within 1 % of 1, found 0\.5",
        r"small\.npy: expected a map of \(32, 32\) pixels, found \(16, 16\)",
        r"cl\.txt: expected 'dl_tt' of 10 to .* \(D_ell in µK²\), found .* \(C_ell\?\)",
        r"tau\.txt: expected 'dl_tau' of .* \(D_ell\), found .* \(C_ell\?\)",
    }
    for pattern in expected:
        assert sum(bool(re.fullmatch(pattern, line)) for line in lines) == 1, (pattern, lines)
    assert len(lines) == len(expected)
    assert len(list((results / "spectra").iterdir())) == 1
    assert not [path for path in (results / "datasets").rglob("*") if path.is_file()]


def test_a_missing_file_is_told_before_anything_runs(tmp_path):
    key = "channels.obs.hits_path"
    prepare_folder(tmp_path, flat=with_value(FLAT, key, "lost.txt"))
    done = snakemake(tmp_path, "datasets")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow")]
    assert said == [f"config: datasets.flat.{key}: expected a file, found nothing at 'lost.txt'"]
    assert not (tmp_path / "results").exists()


def test_errors_of_the_check_hold_on_a_curved_sky(tmp_path):
    """Patches of one sky share its largest waves, a third of T's variance: over many datasets of
    one sky each, differences from theory are as large as their errors say."""
    ell = np.arange(LMAX + 1)
    cl = {name: np.zeros(LMAX + 1) for name in ("ee", "bb", "te", "tautau")}
    cl["tt"] = cl["kk"] = np.append([0, 0], 1e3 / ell[2:] ** 2.0)
    SpectraTable(cl).write(tmp_path / "table.csv")
    grid = Grid(size_deg=20, pixels=16, sky="curved", patches_per_sky=40)
    pulls = []
    for seed in range(60):
        write_realizations(
            tmp_path / "0.h5", [tmp_path / "table.csv"], grid=grid, effects=Effects(),
            channels={"obs": Channel()}, fields=("t_prim",), points=[{}], seed=seed,
            dataset="cmb", realizations=range(40),
        )  # fmt: skip
        metrics, _ = check([tmp_path / "table.csv"], [tmp_path / "0.h5"], dataset="cmb")
        pulls.append(((metrics.value - metrics.theory) / metrics.error).item())
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.2
