"""The workflow's frame: clean rules, profiles that mean what they say, mistakes in one line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits

import forked_snakemake
from skyweave.config.galaxies import Diffusion, GenerationRun

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
SCRIPTS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))


def snakemake(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on the project's Snakefile from `folder`."""
    return forked_snakemake.snakemake(folder, *arguments)


def rules() -> dict[str, str]:
    """Text of each rule in workflow/rules."""
    found = {}
    for path in RULES:
        parts = re.split(r"^rule (\w+):$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found.update(zip(parts[1::2], parts[2::2], strict=True))
    return found


def write_config(folder: Path, change: dict) -> None:
    """The quick study's configuration in `folder`, its top level updated by `change`."""
    values = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    (folder / "config").mkdir()
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(values | change))


def test_lint_is_clean():
    done = snakemake("--lint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_format_is_clean():
    command = [BIN / "snakefmt", "--check", "Snakefile", "workflow"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_python_is_clean(command):
    done = subprocess.run(
        [BIN / "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_are_clean():
    done = subprocess.run([BIN / "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", rules())
def test_a_rule_says_what_it_may_use(name):
    text = rules()[name]
    for needed in ("log:", "benchmark:", "threads:", "mem_mb=", "runtime=", "message:", "script:"):
        assert needed in text
    assert ("gpu=" in text) == (name == "train")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_thin(path):
    code = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 30


@pytest.mark.parametrize(
    "target",
    [
        *("all", "datasets", "reconstruction", "decomposition", "foregrounds", "inpainting"),
        *("galaxies", "predictions", "report"),
    ],
)
def test_named_targets_plan(target):
    done = snakemake("--dry-run", "--quiet", "all", "--", target)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", sorted((ROOT / "config" / "studies").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_study_plans(path):
    done = snakemake("all", "--dry-run", "--configfile", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    counted = {
        "resunet_cmb": r"^simulate +140$",
        "four_output": r"^simulate +140$",
        "noise_scan": r"^predict_elsewhere +20$",
        "generalization": r"^predict_elsewhere +24$",
        "hybrid_cpu": r"^estimate +6$",
        "forse": r"^full_sky +11$",
        "astrodgan": r"^decompose_elsewhere +5$",
        "adversary": r"^decompose +13$",
        "combine": r"^covariance +4$",
        "holes": r"^inpaint +4$",
        "galaxies": r"^evaluate_denoising +26$",
        "sersic_cpu": r"^render_sersic +25$",
    }
    assert re.search(counted[path.stem], done.stdout, re.MULTILINE)


#: A study of inpainting, and runs of it that differ from the first in one setting each.
FILLING = {
    "datasets": {
        "made": {
            "kind": "cmb",
            "spectra": {"vary": {"ns": [0.9, 1.1]}},
            "grid": {"size_deg": 5, "pixels": 64},
            "effects": {"taper_deg": 0},
            "fields": ["t_obs", "q_obs", "u_obs", "t_prim"],
            "realizations": 40,
        },
        "dust": {"kind": "sky"},
    },
    "runs": {"base": {"task": "inpainting", "dataset": "made", "radii": [5, 9]}},
}
CHANGES = {
    "radii": [5, 12],
    "patches": 10,
    "classes": "ns",
    "holes": {"area": 0.1},
    "fields": ["q_obs", "u_obs"],
    "network": {"start": "constrained"},
    "losses": {"style": 100},
    "training": {"frozen_from": 30},
}

#: Prints what the rules' parameters and functions of wildcards are, as one line of JSON.
SHOWN = """
include: "{root}/Snakefile"


class Of(dict):
    __getattr__ = dict.__getitem__


def shown(name, of):
    if name in globals():
        return globals()[name](Of(of))
    values = getattr(rules, name).params.items()
    beside = ("state", "measured")
    return {{k: v(Of(of)) for k, v in values if callable(v) and k not in beside}}


asked = {asked}.items()
found = {{case: {{name: shown(name, of) for name, of in one.items()}} for case, one in asked}}
print("shown", json.dumps(found), file=sys.stderr)
"""


def shown(folder: Path, study: dict, target: str, asked: dict) -> dict:
    """What `asked` says: by case and name of a rule or function, what it makes of wildcards."""
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    (folder / "Snakefile").write_text(SHOWN.format(root=ROOT, asked=repr(asked)))
    words = [target, "--dry-run", "--quiet", "all", "--configfile", "study.yaml"]
    done = forked_snakemake.as_typed(folder, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("shown ")]
    return json.loads(line.removeprefix("shown "))


def apart_from_base(found: dict) -> dict[str, set[str]]:
    """Of each case but ``base`` the rules whose parameters are others than that one's."""
    base = found.pop("base")
    return {
        case: {rule for rule, values in rules.items() if values != base[rule]}
        for case, rules in found.items()
    }


def test_a_setting_is_a_parameter_of_the_rules_that_read_it(tmp_path):
    """What maps are judged on is no reason to train again; holes are one for everything."""
    runs = FILLING["runs"]
    changed = {name: runs["base"] | {name: value} for name, value in CHANGES.items()}
    study = FILLING | {"runs": runs | changed}
    of_run = ("train", "inpaint", "evaluate_inpainting")
    asked = {run: {rule: {"run": run} for rule in of_run} for run in study["runs"]}
    judged = {"inpaint", "evaluate_inpainting"}
    assert apart_from_base(shown(tmp_path, study, "inpainting", asked)) == {
        "radii": judged,
        "patches": judged,
        "classes": {"evaluate_inpainting"},
        "holes": {"train"} | judged,
        "fields": {"train"} | judged,
        "network": {"train"},
        "losses": {"train"},
        "training": {"train"},
    }


#: A study of galaxies, and runs and datasets of it that differ from the first in one setting each.
GALAXIES = {
    "datasets": {"base": {"kind": "sersic", "pixels": 32, "realizations": 200}},
    "runs": {
        "made": {"task": "generation", "dataset": "base", "training": {"batch": 4}},
        "clear": {"task": "denoising", "dataset": "base", "generated": "made"},
    },
}


def changed_runs(name: str, changes: dict[str, dict]) -> dict:
    """The galaxies' runs, and one of them with each of the changes."""
    runs = GALAXIES["runs"]
    return runs | {case: runs[name] | change for case, change in changes.items()}


def test_how_images_are_judged_is_no_reason_to_make_them_again(tmp_path):
    changes = {
        "metrics": {"metrics": {"images": 20, "morphology": False}},
        "samples": {"samples": 50},
        "truncation": {"truncation": 0.7},
        "width": {"network": {"width": 0.1}},
        "losses": {"style": {"r1_gamma": 1}},
        "augment": {"augment": {"turns": False}},
    }
    runs = changed_runs("made", changes)
    of_run = ("train", "generate", "evaluate_generation")
    names = {"base": "made"} | {case: case for case in changes}
    asked = {case: {rule: {"run": run} for rule in of_run} for case, run in names.items()}
    found = shown(tmp_path, GALAXIES | {"runs": runs}, "galaxies", asked)
    assert apart_from_base(found) == {
        "metrics": {"evaluate_generation"},
        "samples": {"generate"},
        "truncation": {"generate"},
        "width": {"train", "generate"},
        "losses": {"train"},
        "augment": {"train"},
    }


def test_another_sampler_trains_nothing_anew(tmp_path):
    base = {"network": {"name": "diffusion"}}
    sampler = {"steps": 10, "sigma_min": 0.01, "sigma_max": 100, "rho": 5}
    changes = {key: base | {"diffusion": {key: value}} for key, value in sampler.items()}
    changes |= {"noise": base | {"diffusion": {"p_mean": 0}}, "base": base}
    runs = changed_runs("made", changes)
    asked = {case: {rule: {"run": case} for rule in ("train", "generate")} for case in changes}
    found = shown(tmp_path, GALAXIES | {"runs": runs}, "galaxies", asked)
    # What a training is given is a run by itself, its grids by the default sampler.
    trained = GenerationRun(**found["steps"]["train"]["run"])
    assert trained.diffusion == Diffusion()
    expected = {key: {"generate"} for key in sampler} | {"noise": {"train", "generate"}}
    assert apart_from_base(found) == expected


def test_a_share_of_generated_images_is_another_training(tmp_path):
    changes = {
        "alpha": {"alpha": 0.5},
        "repeat": {"repeat": 1},
        "degradation": {"degradation": {"psf_pixels": 3}},
        # Of the tests alone.
        "more_noise": {"degradation": {"noise_factor": 2}},
        "larger_pixels": {"degradation": {"pixel_factor": 4}},
        "turns": {"turns": False},
    }
    names = {"base": "clear"} | {case: case for case in changes}
    of_run = ("train", "evaluate_denoising")
    asked = {case: {rule: {"run": run} for rule in of_run} for case, run in names.items()}
    study = GALAXIES | {"runs": changed_runs("clear", changes)}
    assert apart_from_base(shown(tmp_path, study, "galaxies", asked)) == {
        "alpha": {"train"},
        "repeat": {"train"},
        "degradation": {"train", "evaluate_denoising"},
        "more_noise": {"evaluate_denoising"},
        "larger_pixels": {"evaluate_denoising"},
        "turns": {"train"},
    }
    # Images are generated for those alone that learn from them.
    for run, count in (("clear", 1), ("alpha", 2)):
        jobs = planned(tmp_path, study, f"results/runs/{run}/network.keras")
        assert (jobs["train"], jobs.get("generate", 0)) == (count, count - 1)


def test_what_profiles_are_like_is_rendered_again(tmp_path):
    base = GALAXIES["datasets"]["base"]
    changes = {
        "noise": {"noise": 1.0},
        "psf": {"psf": {"fwhm_arcsec": 0.5}},
        "more": {"realizations": 2000},
        "size": {"shard_size": 100},
        "split": {"split": {"train": 0.5, "validation": 0.2, "test": 0.3}},
        "stretch": {"stretch": {"kind": "linear"}},
    }
    datasets = {"base": base} | {case: base | change for case, change in changes.items()}
    of_dataset = {"render_sersic": {"shard": "0"}, "prepare_images": {}}
    asked = {
        case: {rule: {"images": case} | more for rule, more in of_dataset.items()}
        for case in datasets
    }
    study = GALAXIES | {"datasets": datasets}
    assert apart_from_base(shown(tmp_path, study, "galaxies", asked)) == {
        "noise": {"render_sersic"},
        "psf": {"render_sersic"},
        # The first file has more of them.
        "more": {"render_sersic"},
        "size": {"render_sersic"},
        "split": {"prepare_images"},
        "stretch": {"prepare_images"},
    }


def own_images(folder: Path, count: int) -> dict:
    """A study of so many images, one a file of `folder`/stamps."""
    (folder / "stamps").mkdir()
    for number in range(count):
        np.save(folder / "stamps" / f"{number:04d}.npy", np.zeros((1, 1), np.float32))
    return {"datasets": {"own": {"kind": "images", "path": "stamps"}}}


def test_a_file_of_a_folder_of_images_is_imported_again(tmp_path):
    study, shard = own_images(tmp_path, 12), "results/datasets/own/shards/0.h5"
    (tmp_path / "stamps" / "readme.txt").touch()
    assert planned(tmp_path, study, shard) == {"import_images": 1}
    (tmp_path / shard).parent.mkdir(parents=True)
    (tmp_path / shard).touch()
    assert planned(tmp_path, study, shard) == {}
    later = (tmp_path / shard).stat().st_mtime + 10
    os.utime(tmp_path / "stamps" / "readme.txt", (later, later))
    assert planned(tmp_path, study, shard) == {}
    os.utime(tmp_path / "stamps" / "0007.npy", (later, later))
    assert planned(tmp_path, study, shard) == {"import_images": 1}


def test_files_of_a_large_folder_are_a_parameter(tmp_path):
    study = own_images(tmp_path, 1001)
    asked = {"own": {name: {"images": "own"} for name in ("imported_images", "imported_digest")}}

    def found() -> tuple[list, str | None]:
        return tuple(shown(tmp_path, study, "datasets", asked)["own"].values())

    files, digest = found()
    assert files == ["stamps"]
    assert found() == (files, digest)
    np.save(tmp_path / "stamps" / "0007.npy", np.zeros((2, 1), np.float32))
    edited = found()
    assert edited[0] == files
    assert edited[1] not in (None, digest)
    (tmp_path / "stamps" / "0007.npy").unlink()
    files, digest = found()
    assert (len(files), files[7], digest) == (1000, "stamps/0008.npy", None)


def test_a_catalogues_images_are_inputs(tmp_path):
    columns = {
        "IDENT": np.arange(3),
        "GAL_FILENAME": np.array(["b.fits", "a.fits", "b.fits"]),
        "GAL_HDU": np.ones(3),
        "PIXEL_SCALE": np.full(3, 0.03),
    }
    table = [
        fits.Column(name, "20A" if name == "GAL_FILENAME" else "D", array=values)
        for name, values in columns.items()
    ]
    fits.BinTableHDU.from_columns(table).writeto(tmp_path / "catalogue.fits")
    (tmp_path / "a.fits").touch()
    (tmp_path / "b.fits").touch()
    study = {"datasets": {"own": {"kind": "images", "path": "catalogue.fits"}}}
    asked = {"own": {"imported_images": {"images": "own"}}}
    files = shown(tmp_path, study, "datasets", asked)["own"]["imported_images"]
    assert files == ["catalogue.fits", "a.fits", "b.fits"]
    (tmp_path / "a.fits").unlink()
    done = forked_snakemake.snakemake(tmp_path, "--dry-run", "--configfile", "study.yaml")
    assert done.returncode != 0
    (said,) = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow")]
    assert said.startswith("config: catalogue.fits: expected its images beside it, a.fits")


def test_samples_of_a_decomposition_are_in_its_networks_card(tmp_path):
    fields = ["q_obs", "u_obs", "e_prim"]
    study = {
        "datasets": {"made": {"kind": "cmb", "fields": fields, "realizations": 400}},
        "runs": {
            "flow": {
                "task": "decomposition",
                "dataset": "made",
                "method": "flow",
                "targets": ["e_prim"],
                "samples": 7,
            }
        },
    }
    found = shown(tmp_path, study, "decomposition", {"flow": {"train": {"run": "flow"}}})
    assert found["flow"]["train"]["run"]["samples"] == 7


def test_jobs_ask_for_what_their_images_need(tmp_path):
    """At least the arrays of single precision that they hold at once, and the network's own."""
    study = yaml.safe_load((ROOT / "config" / "studies" / "galaxies.yaml").read_text())
    study["runs"]["few"] = study["runs"]["vae"] | {"metrics": {"images": 200}}
    functions = {
        "stylegan2": ("generation_memory", "judged_images_memory", "judged_images_runtime"),
        "few": ("judged_images_memory", "judged_images_runtime"),
        "vae": ("generation_runtime",),
        "diffusion": ("generation_runtime",),
        "mixed_1": ("training_memory", "restored_memory", "restored_runtime"),
        "mixed_25": ("training_memory",),
        "stamps": ("generation_memory", "judged_images_memory"),
    }
    asked = {run: {name: {"run": run} for name in names} for run, names in functions.items()}
    found = shown(tmp_path, study, "galaxies", asked)
    one = 4e-6 * 256**2
    # Stretched and as fluxes; made, truth, other real ones, Gaussian ones and training images.
    assert found["stylegan2"]["generation_memory"] > 2 * 10_000 * one
    assert found["stylegan2"]["judged_images_memory"] > 5 * 5000 * one
    few = found["few"]["judged_images_memory"]
    assert 7000 * one < few < found["stylegan2"]["judged_images_memory"] - 5 * 4000 * one
    assert found["few"]["judged_images_runtime"] < found["stylegan2"]["judged_images_runtime"]
    # The test set; true, as seen, by the network and by the filter.
    assert found["mixed_1"]["restored_memory"] > 5 * 5000 * one
    mixed = found["mixed_25"]["training_memory"] - found["mixed_1"]["training_memory"]
    assert mixed > 10_000 * one
    # 34 billion multiply-adds an image, a quarter of it with larger pixels, at 100 GFLOP/s.
    assert found["mixed_1"]["restored_runtime"] > 5000 * 2.5 * 2 * 34 / 100 / 60
    # 64 calls of a network of half the width for half as many images, twice as dear each.
    ratio = found["diffusion"]["generation_runtime"] / found["vae"]["generation_runtime"]
    assert 16 < ratio < 64
    assert found["stamps"]["generation_memory"] < 8000
    assert found["stamps"]["judged_images_memory"] < 10_000
    assert max(value for case in found.values() for value in case.values()) < 64_000


def planned(folder: Path, study: dict, *targets: str) -> dict[str, int]:
    """Jobs of a study in `folder`, by rule."""
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    done = snakemake(*targets, "--dry-run", "--configfile", "study.yaml", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.partition("Job stats:")[2].partition("total")[0]
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def test_holes_of_the_sky_need_its_mask_and_its_sources(tmp_path):
    base = FILLING["runs"]["base"] | {"losses": {"perceptual": 0, "style": 0}}
    study = FILLING | {"runs": {"sky": base | {"holes": {"kind": "sky", "sky": "dust"}}}}
    target = "results/runs/sky/network.keras"
    jobs = planned(tmp_path, study, target)
    simulated = {"spectra": 2, "simulate": 1, "prepare": 1, "covariance": 1, "train": 1}
    mask = {"fetch_sfd98": 1, "sky_map": 1, "sky_mask": 1}
    assert jobs == simulated | mask | {"cut_holes": 1}
    # With those that are removed from the map, discs about them are missing, too.
    dust = {"kind": "sky", "map": {"nside": 1024}, "sources": {"remove": "find"}}
    study["datasets"] = FILLING["datasets"] | {"dust": dust}
    assert planned(tmp_path, study, target) == jobs | {"sky_sources": 1}
    # The user's own mask, and losses that look.
    (tmp_path / "mask.fits").touch()
    own = {"holes": {"kind": "sky", "path": "mask.fits"}, "losses": {}}
    study["runs"]["sky"] = base | own
    assert planned(tmp_path, study, target) == simulated | {"cut_holes": 1, "fetch_vgg16": 1}


def test_the_covariance_of_imported_maps_is_measured(tmp_path):
    np.savez(tmp_path / "maps.npz", t=np.ones((30, 32, 32), np.float32))
    own = {"kind": "imported", "path": "maps.npz", "fields": {"t_obs": "t"}, "taper_deg": 0}
    run = FILLING["runs"]["base"] | {"dataset": "own"}
    jobs = planned(tmp_path, {"datasets": {"own": own}, "runs": {"filling": run}}, "inpainting")
    rules = {"import_maps", "prepare", "measure_covariance", "fetch_vgg16", "train", "inpaint"}
    rules |= {"evaluate_inpainting", "draw_inpainting", "record_runs", "inpainting"}
    assert jobs == dict.fromkeys(rules, 1)


def test_make_run_plans():
    command = ["make", "--no-print-directory", "run", "CORES=2", "ARGS=--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("report: results/report/index.html\n")


def test_slurm_profile_as_typed():
    done = snakemake("--profile", "slurm", "--dry-run", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (ROOT / "slurm").readlink() == Path("profiles/slurm")


def test_default_profile_takes_nothing_from_a_cluster():
    read = {
        name: yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
        for name in ("default", "slurm")
    }
    assert not set(read["default"]) & set(read["slurm"])
    # What these say holds for one machine, and the default profile is merged over all others.
    local = {"cores", "jobs", "executor", "resources", "default-resources", "set-resources"}
    assert not set(read["default"]) & local


def test_a_wrong_setting_stops_in_one_line(tmp_path):
    write_config(tmp_path, {"seed": "one"})
    done = snakemake("--dry-run", folder=tmp_path)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow")]
    assert len(said) == 1
    assert said[0].startswith("config: seed: expected integer")
    assert said[0].endswith("found 'one'")
    assert not (tmp_path / "results").exists()


def test_another_file_replaces_the_quick_study(tmp_path):
    """Snakemake would merge a second configuration into the first; a study must stand alone."""
    (tmp_path / "study.yaml").write_text("datasets: {only: {kind: cmb, realizations: 20}}\n")
    done = snakemake("--configfile", "study.yaml", "--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "only" in done.stdout
    assert "sky_map" not in done.stdout


def test_the_package_never_imports_snakemake():
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) snakemake", path.read_text(), re.MULTILINE), path


def test_import_is_light():
    code = "import sys, skyweave; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("numpy", "tensorflow", "keras", "healpy", "camb", "pandas"):
        assert f"'{heavy}'" not in done.stdout


ROOMS = ["config", "flat", "sky", "simulation", "images", "data", "networks", "training"]
ROOMS += ["estimators", "statistics", "report", "tasks"]


def test_rooms_import_only_upwards():
    for depth, room in enumerate(ROOMS):
        for path in (ROOT / "src" / "skyweave" / room).rglob("*.py"):
            for other in re.findall(r"^\s*from skyweave\.(\w+)", path.read_text(), re.MULTILINE):
                if other in ROOMS:
                    assert ROOMS.index(other) <= depth, f"{path.name} imports {other}"
