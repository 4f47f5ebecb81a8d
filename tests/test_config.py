"""The settings: generated files are current, and each mistake ends in one line."""

import copy
import re
import textwrap
from pathlib import Path

import pytest
import yaml

from skyweave.config import Config, load, parse, require_files
from skyweave.config.docs import commented, generate
from skyweave.config.models import SECTIONS
from skyweave.errors import UserError

FOLDER = Path(__file__).parent.parent / "config"


def quick() -> dict:
    """Values of the quick study."""
    return yaml.safe_load((FOLDER / "config.yaml").read_text(encoding="utf-8"))


def changed(key: str, value: object) -> dict:
    """The quick study with one value changed; the key is dotted."""
    values = copy.deepcopy(quick())
    if key.startswith(("datasets.own", "runs.theirs", "predictions.mine")) or value == "own":
        values["datasets"]["own"] = {"kind": "imported", "path": "maps.npz"}
        values["runs"]["theirs"] = {"dataset": "own"}
        values["predictions"] = {"mine": {"run": "resunet", "path": "mine.fits"}}
    *path, last = key.split(".")
    section = values
    for part in path:
        section = section[part]
    section[last] = value
    return values


def test_generated_files_are_current():
    for path, text in generate(FOLDER).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make config-docs`"


def test_commented_file_means_the_same():
    config = load(FOLDER / "config.yaml")
    assert parse(yaml.safe_load(commented(config))) == config


def test_every_key_is_described():
    def bare(model):
        for name, field in model.model_fields.items():
            if not field.description:
                yield f"{model.__name__}.{name}"

    assert [key for model in SECTIONS for key in bare(model)] == []


@pytest.mark.parametrize(
    ("key", "value", "where", "expected", "found"),
    [
        ("sed", 1, "sed", "a known setting", "unknown key 'sed'"),
        ("seed", "one", "seed", "integer", "'one'"),
        ("seed", -1, "seed", "greater than or equal to 0", "-1"),
        ("datasets.cmb.grid.pixel", 64, "datasets.cmb.grid.pixel", "a known", "unknown key"),
        ("datasets.cmb.kind", "cbm", "datasets.cmb.kind", "cmb or sky", "cbm"),
        ("datasets.cmb", {}, "datasets.cmb.kind", "cmb or sky", "none"),
        ("datasets.cmb", 7, "datasets.cmb", "section", "7"),
        ("datasets.cmb.effects", None, "datasets.cmb.effects", "section", "None"),
        ("datasets", {}, "datasets", "at least 1 entry", "{}"),
        ("seed", True, "seed", "integer", "True"),
        ("seed", "7", "seed", "integer", "'7'"),
        ("datasets.cmb.effects.null_fraction", True, "null_fraction", "number", "True"),
        ("runs.resunet.inputs", "q_obs", "runs.resunet.inputs", "a list", "q_obs"),
        ("runs.resunet.training.batch", 5000, "runs.resunet.training.batch", "576", "5000"),
        ("datasets.cmb.grid.pixels", 66, "datasets.cmb.grid.pixels", "multiple of 4", "66"),
        ("datasets.cmb.grid.pixels", 256, "datasets.cmb.spectra.lmax", "Nyquist", "6000"),
        ("datasets.cmb.effects.taper_deg", 3, "cmb.effects.taper_deg", "half of grid", "3"),
        ("datasets.cmb.channels.obs.beam_arcmin", 1, "channels.obs.beam_arcmin", "Nyquist", "1"),
        ("datasets.cmb.channels.obs.beam_hfi_ghz", 350, "obs.beam_hfi_ghz", "100, 143", "350"),
        ("datasets.cmb.channels", {}, "datasets.cmb.channels", "1 entry", "{}"),
        ("datasets.cmb.channels", {"iterative": {}}, "cmb.channels", "no field has", "iterative"),
        ("datasets.cmb.estimates.iterations", 0, "estimates.iterations", "equal to 1", "0"),
        ("datasets.cmb.estimates.enabled", False, "runs.hybrid.inputs", "q_obs", "e_iterative"),
        ("datasets.cmb.effects.rotation_deg", 1.0, "runs.hybrid.inputs", "q_obs", "e_iterative"),
        ("datasets.cmb.channels", {"prim": {}}, "datasets.cmb.channels", "no field has", "prim"),
        ("datasets.cmb.channels", {"kappa": {}}, "datasets.cmb.channels", "no field", "kappa"),
        ("datasets.cmb.channels.obs.beam_hfi_ghz", "143", "beam_hfi_ghz", "integer", "'143'"),
        ("datasets.cmb.spectra.vary.ns", [0.9, True], "spectra.vary.ns", "number", "True"),
        ("datasets.cmb.channels", {"f1 0": {}}, "channels.f1 0", "a name", "f1 0"),
        (
            "datasets.cmb.channels.obs",
            {"beam_hfi_ghz": 353, "beam_arcmin": 5},
            "channels.obs.beam_hfi_ghz",
            "one beam",
            "beam_arcmin",
        ),
        ("datasets.cmb.spectra.vary", {"n_s": [1.0, 0.9]}, "spectra.vary", "Alens", "n_s"),
        ("datasets.cmb.spectra.vary.ns", [1.0, 1.0], "spectra.vary.ns", "each entry once", "1.0"),
        ("datasets.cmb.spectra.vary.ns", [], "spectra.vary.ns", "1 entry", "[]"),
        ("datasets.cmb.spectra.vary.ns", 0.9, "spectra.vary.ns", "a list", "0.9"),
        ("datasets.cmb.spectra.vary.ns", [-1, 1], "spectra.vary.ns", "greater than 0", "-1"),
        ("datasets.cmb.spectra.vary.r", {"low": 1, "high": 0}, "vary.r.high", "more than", "0"),
        ("datasets.cmb.spectra.vary.r", {"low": 1, "hi": 2}, "vary.r.high", "a value", "none"),
        ("datasets.cmb.grid.sky", "round", "grid.sky", "'curved'", "round"),
        ("datasets.cmb.grid.sky", "curved", "grid.oversample", "1 with", "2"),
        ("datasets.cmb.grid.margin_deg", 30, "grid.margin_deg", "17.5", "30"),
        ("datasets.cmb.fields", ["alpha"], "datasets.cmb.fields", "a rotation", "none"),
        ("datasets.cmb.fields", ["q_f143"], "datasets.cmb.fields", "q_obs", "q_f143"),
        ("datasets.cmb.effects.lensing", False, "datasets.cmb.fields", "'kappa'", "false"),
        ("datasets.cmb.split.test", 0.2, "datasets.cmb.split", "add to 1", "1.1"),
        ("datasets.cmb.spectra.source", "table", "cmb.spectra.path", "a file", "none"),
        ("datasets.cmb.spectra.path", "a.txt", "cmb.spectra.path", "`source: table`", "camb"),
        ("datasets.cmb.spectra.cosmology", {"h0": 70}, "cosmology.h0", "a known", "'h0'"),
        ("datasets.dust.map.nside", 500, "datasets.dust.map.nside", "power of two", "500"),
        ("datasets.dust.map.path", "a.fits", "dust.map.path", "`source: file`", "sfd98"),
        ("datasets.dust.map.unit", "K_CMB", "dust.map.unit", "`source: file`", "sfd98"),
        ("datasets.dust.map.frequency_ghz", 217, "map.frequency_ghz", "353", "217"),
        ("datasets.dust.map.nside", 256, "patches.high_arcmin", "band limit", "12"),
        ("datasets.dust.mask.smooth_deg", 0.1, "mask.smooth_deg", "band limit", "0.1"),
        ("datasets.dust.mask.snr", float("inf"), "dust.mask.snr", "finite", "inf"),
        ("datasets.dust.patches.count", 3, "patches.count", "at least 10", "3"),
        ("datasets.cmb.effects.null_fraction", 2, "null_fraction", "less than or equal to 1", "2"),
        ("datasets.dust.patches.pixels", 64, "dust.patches.pixels", "Nyquist", "64"),
        ("datasets.dust.patches.high_arcmin", 5, "patches.high_arcmin", "own beam", "5"),
        ("datasets.dust.patches.size_deg", 90, "patches.size_deg", "less than or equal", "90"),
        ("runs.resunet.dataset", "dust", "runs.resunet.dataset", "kind cmb", "'sky'"),
        ("runs.resunet.dataset", "cbm", "runs.resunet.dataset", "one of cmb, dust", "'cbm'"),
        ("runs.resunet.inputs", ["t_obs"], "runs.resunet.inputs", "fields of", "'t_obs'"),
        ("runs.resunet.inputs", ["tau"], "runs.resunet.targets", "also an input", "'tau'"),
        ("runs.resunet.targets", ["tau", "tau"], "runs.resunet.targets", "once", "'tau' twice"),
        ("runs.resunet.targets", [], "runs.resunet.targets", "at least 1", "[]"),
        ("runs.resunet.training.epochs", 0, "training.epochs", "greater than", "0"),
        ("runs.resunet.training.stop_patience", 0, "stop_patience", "greater than", "0"),
        ("runs.resunet.training.select.by", "best", "training.select.by", "'last'", "'best'"),
        ("runs.resunet.training.select.fields", ["tau"], "select.fields", "none with", "tau"),
        (
            "runs.resunet.training.select",
            {"by": "correlation", "fields": ["kappa", "alpha"]},
            "runs.resunet.training.select.fields",
            "targets of the run (tau, e_prim, kappa)",
            "'alpha'",
        ),
        ("runs.resunet.training.select.ell", [900, 300], "select.ell", "lower end first", "900"),
        (
            "runs.resunet.training.select.by",
            "superposition",
            "runs.resunet.training.select.by",
            "of task reconstruction (pixel_correlation, correlation, transfer, residual)",
            "'superposition'",
        ),
        ("runs.resunet.task", "foreground", "runs.resunet.task", "reconstruction or", "foreground"),
        ("runs.forse.task", None, "runs.forse.task", "decomposition or foregrounds", "None"),
        ("runs.forse", {"dataset": "dust"}, "runs.forse.dataset", "kind cmb", "'sky'"),
        ("runs.forse.dataset", "cmb", "runs.forse.dataset", "kind sky", "'cmb'"),
        ("runs.forse.inputs", ["low"], "runs.forse.inputs", "a known", "'inputs'"),
        ("runs.forse.network.name", "resunet_cmb", "runs.forse.network.name", "'forse'", "cmb"),
        ("runs.forse.noise", -0.1, "runs.forse.noise", "greater than or equal to 0", "-0.1"),
        ("runs.forse.amplitude", "true", "runs.forse.amplitude", "'truth'", "'true'"),
        ("runs.forse.training.batch", 85, "runs.forse.training.batch", "set's 84", "85"),
        (
            "runs.forse.training.select.by",
            "residual",
            "runs.forse.training.select.by",
            "loss, last or one of task foregrounds (superposition, distance)",
            "'residual'",
        ),
        (
            "runs.forse.training.select.by",
            "loss",
            "runs.forse.training.select.by",
            "another with `adversarial.fidelity: 0`, where no loss says how good",
            "'loss'",
        ),
        (
            "runs.forse.training.select.fields",
            ["v0", "ratio"],
            "runs.forse.training.select.fields",
            "functionals (v0, v1, v2)",
            "'ratio'",
        ),
        (
            "datasets.dust.split",
            {"train": 0.7, "validation": 0.03, "test": 0.27},
            "datasets.dust.patches.count",
            "at least 4 patches in each part of the split",
            "3 for validation",
        ),
        (
            "runs.forse.adversarial.warmup_generator",
            10,
            "runs.forse.adversarial.warmup_generator",
            "`fidelity` above 0 with it",
            "0",
        ),
        ("runs.forse.noise", 0, "runs.forse.full_sky.realizations", "1 with `noise: 0`", "2"),
        ("runs.forse.full_sky.nside", 100, "forse.full_sky.nside", "a power of two", "100"),
        ("runs.forse.full_sky.overlap_deg", 5.5, "full_sky.overlap_deg", "half of", "5.5"),
        ("runs.forse.full_sky.polarization", "qu", "full_sky.polarization", "'stokes'", "'qu'"),
        ("runs.forse.full_sky.bb_over_ee", 0, "full_sky.bb_over_ee", "greater than 0", "0"),
        (
            "runs.forse.full_sky.template.source",
            "file",
            "runs.forse.full_sky.template.path",
            "a file with `source: file`",
            "none",
        ),
        (
            "runs.forse.full_sky.template.path",
            "qu.fits",
            "runs.forse.full_sky.template.path",
            "`source: file` with it",
            "`source: cosmoglobe`",
        ),
        (
            "runs.forse.full_sky.template",
            {"source": "file", "path": "qu.fits", "fwhm_arcmin": 61},
            "runs.forse.full_sky.template.fwhm_arcmin",
            "at most patches.low_arcmin (60)",
            "61",
        ),
        ("datasets.own", {"kind": "imported"}, "datasets.own.path", "a value", "none"),
        ("datasets.own.path", [], "datasets.own.path", "at least one file", "none"),
        ("datasets.own.path", ["a", "a"], "datasets.own.path", "each entry once", "'a' twice"),
        ("datasets.own.fields", {"phi": "x"}, "own.fields", "such as q_obs", "'phi'"),
        ("datasets.own.taper_deg", 3, "datasets.own.taper_deg", "half of size_deg (2.5)", "3"),
        ("datasets.own.pixels", 30, "datasets.own.pixels", "multiple of 4", "30"),
        ("datasets.own.convention", "us", "datasets.own.convention", "'auto', 'flat'", "'us'"),
        ("runs.forse.dataset", "own", "runs.forse.dataset", "kind sky", "'imported'"),
        ("runs.theirs.inputs", ["t_obs"], "runs.theirs.inputs", "fields of", "'t_obs'"),
        (
            "predictions.mine.run",
            "forse",
            "predictions.mine.run",
            "a reconstruction run (",
            "forse",
        ),
        ("predictions.mine.path", None, "predictions.mine.path", "string", "None"),
        ("predictions.mine.format", "png", "mine.format", "'fits', 'h5' or 'npz'", "'png'"),
    ],
)
def test_a_mistake_is_one_line(key, value, where, expected, found):
    with pytest.raises(UserError) as caught:
        parse(changed(key, value))
    line = str(caught.value)
    assert "\n" not in line
    assert where in caught.value.where
    assert expected in caught.value.expected
    assert found in str(caught.value.found)


def test_the_second_stage_needs_a_step_of_four_in_resolution():
    """Its large scales are the small ones of the first, four times smaller."""
    values = changed("runs.forse.full_sky.second_stage", True)
    with pytest.raises(UserError, match=r"full_sky\.nside: expected .* a beam of 3 arcmin"):
        parse(values)
    values["runs"]["forse"]["full_sky"]["nside"] = 2048
    parse(values)
    values["datasets"]["dust"]["patches"]["high_arcmin"] = 16
    with pytest.raises(UserError) as caught:
        parse(values)
    assert caught.value.where == "runs.forse.full_sky.second_stage"
    assert "at most a quarter of low_arcmin (60)" in caught.value.expected
    assert caught.value.found == "16"


def test_what_is_at_its_limit_is_possible():
    values = changed("runs.forse.full_sky.overlap_deg", 5)
    values["runs"]["forse"]["full_sky"]["template"] = {
        "source": "file",
        "path": "qu.fits",
        "fwhm_arcmin": 60,
    }
    values["runs"]["forse"]["training"] |= {"batch": 84, "select": {"by": "last"}}
    values["datasets"]["dust"]["split"] = {"train": 0.7, "validation": 0.04, "test": 0.26}
    run = parse(values).runs["forse"]
    assert run.full_sky.overlap_deg == 5
    values["runs"]["forse"] |= {"adversarial": {"fidelity": 1}, "noise": 0}
    values["runs"]["forse"]["full_sky"]["realizations"] = 1
    values["runs"]["forse"]["training"]["select"] = {"by": "loss"}
    assert parse(values).runs["forse"].training.select.by == "loss"


def test_a_selection_of_a_foreground_run_is_by_superposition():
    values = changed("runs.forse.training.select", {"every_epochs": 3})
    select = parse(values).runs["forse"].training.select
    assert (select.by, select.every_epochs) == ("superposition", 3)


def test_a_template_with_a_path_is_a_file():
    values = changed("runs.forse.full_sky.template", {"path": "qu.fits"})
    assert parse(values).runs["forse"].full_sky.template.source == "file"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("nside", 32, "nside: expected one whose band limit lies beyond a beam of 12 arcmin"),
        ("overlap_deg", 1e-9, r"overlap_deg: expected two pixels \(0.15625\) to half of"),
        ("polarization", "none", "bb_over_ee: expected `polarization: intensity` or `stokes`"),
        ("template", {"unit": "K"}, "template.unit: expected `source: file` with it"),
        ("template", {"fwhm_arcmin": 7}, "template.fwhm_arcmin: expected `source: file` with it"),
    ],
)
def test_a_full_sky_that_cannot_be_is_refused(key, value, said):
    values = changed("runs.forse.full_sky.bb_over_ee", 0.5)
    values["runs"]["forse"]["full_sky"][key] = value
    with pytest.raises(UserError, match=rf"full_sky\.{said}"):
        parse(values)


def test_foregrounds_are_trained_as_published():
    """Krachmalnicoff & Puglisi 2021: 100,000 batches, a network of every 1000 kept."""
    values = quick()
    values["runs"] = {"forse": {"task": "foregrounds", "dataset": "dust"}}
    run = parse(values).runs["forse"]
    training, adversarial = run.training, run.adversarial
    assert (training.learning_rate, training.beta_1, training.batch) == (2e-4, 0.5, 16)
    assert (adversarial.fidelity, adversarial.conditional) == (0, False)
    assert (adversarial.generator_steps, adversarial.discriminator_steps) == (1, 1)
    assert (training.select.by, training.select.every_epochs) == ("superposition", 59)
    steps = int(0.8 * 350) // 16
    assert training.epochs * steps == pytest.approx(100_000, abs=steps)
    assert training.select.every_epochs * steps == pytest.approx(1000, abs=steps)
    assert (run.network.width, run.network.dropout, run.network.batch_norm) == (1, 0, True)
    assert run.network.discriminator_dropout == 0.25
    assert (run.noise, run.amplitude, run.full_sky) == (0, "extrapolation", None)


def test_a_task_has_its_own_defaults():
    config = parse(quick() | {"runs": {"r": {"dataset": "cmb"}}})
    run = config.runs["r"]
    assert (run.task, run.training.batch, run.training.select.by) == ("reconstruction", 32, "loss")
    values = quick()
    values["runs"] = {"f": {"task": "foregrounds", "dataset": "dust", "full_sky": {}}}
    sky = parse(values).runs["f"].full_sky
    assert (sky.nside, sky.overlap_deg, sky.realizations) == (2048, 2, 1)
    assert (sky.polarization, sky.template.source) == ("none", "cosmoglobe")
    assert (sky.bb_over_ee, sky.second_stage) == (None, False)


def test_patch_larger_than_the_unmasked_sky():
    values = changed("datasets.dust.mask.latitude_deg", 88)
    values["datasets"]["dust"]["patches"] |= {"size_deg": 40, "pixels": 512}
    with pytest.raises(UserError, match="smaller than the sky that the latitude cut leaves"):
        parse(values)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "seed: 1"])
def test_a_file_that_is_no_configuration(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_configuration(tmp_path):
    with pytest.raises(UserError, match="expected a configuration file, found none"):
        load(tmp_path / "none.yaml")


def test_own_files_must_be_there(tmp_path):
    lost, there = str(tmp_path / "no.fits"), tmp_path / "yes.fits"
    there.touch()
    own = {"source": "file", "path": lost, "fwhm_arcmin": 4.8, "frequency_ghz": 353}
    template = {"source": "file", "path": lost}
    for key, value, where in (
        ("datasets.dust.map", own, "datasets.dust.map.path"),
        ("datasets.dust.map", {"path": lost}, "datasets.dust.map.path"),
        (
            "datasets.dust.sources",
            {"remove": "catalogue", "path": lost},
            "datasets.dust.sources.path",
        ),
        ("runs.forse.full_sky.template", template, "runs.forse.full_sky.template.path"),
        ("datasets.new", {"kind": "imported", "path": lost}, "datasets.new.path"),
        ("predictions.new", {"run": "resunet", "path": lost}, "predictions.new.path"),
    ):
        with pytest.raises(UserError, match="expected a file, found nothing at") as caught:
            require_files(parse(changed(key, value)))
        assert caught.value.where == where
        require_files(parse(changed(key, value | {"path": str(there)})))


def test_text_that_yaml_takes_for_no_number_is_one():
    """YAML reads 1e-3 as text; there, everybody means the number."""
    config = parse(changed("runs.resunet.training.learning_rate", "1e-3"))
    assert config.runs["resunet"].training.learning_rate == 1e-3


def test_training_may_have_no_early_stop():
    config = parse(changed("runs.resunet.training.stop_patience", None))
    assert config.runs["resunet"].training.stop_patience is None


def test_no_runs_may_be_left_empty():
    assert parse(quick() | {"runs": None}).runs == {}


def test_sections_do_not_change():
    config = parse(quick())
    assert isinstance(config, Config)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_the_readmes_datasets_are_valid():
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"\n    datasets:\n(?:    .*\n)+", text)
    assert len(blocks) == 3
    for block in blocks:
        parse(yaml.safe_load(textwrap.dedent(block)))


def test_the_galaxies_of_readme_and_docs_are_valid():
    root = FOLDER.parent
    parts = [
        (root / "docs" / "galaxies.md").read_text(encoding="utf-8"),
        (root / "README.md").read_text(encoding="utf-8").partition("## Galaxy images")[2],
    ]
    datasets, runs, others = (
        yaml.safe_load(textwrap.dedent(re.search(rf"\n    {key}:\n(?:     .*\n)+", text)[0]))
        for key, text in (("datasets", parts[0]), ("runs", parts[0]), ("runs", parts[1]))
    )
    for kind in ("diffusion", "vae", "stylegan2"):
        for one in (runs, others):
            made = next(run for run in one["runs"].values() if run["task"] == "generation")
            made["network"]["name"] = kind
            assert len(parse(datasets | one).runs) == 2
