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
        ("runs.resunet.training.batch", 5000, "runs.resunet.training.batch", "3200", "5000"),
        ("datasets.cmb.grid.pixels", 66, "datasets.cmb.grid.pixels", "multiple of 4", "66"),
        ("datasets.cmb.grid.pixels", 256, "datasets.cmb.spectra.lmax", "Nyquist", "6000"),
        ("datasets.cmb.effects.taper_deg", 3, "cmb.effects.taper_deg", "half of grid", "3"),
        ("datasets.cmb.channels.obs.beam_arcmin", 1, "channels.obs.beam_arcmin", "Nyquist", "1"),
        ("datasets.cmb.channels.obs.beam_hfi_ghz", 350, "obs.beam_hfi_ghz", "100, 143", "350"),
        ("datasets.cmb.channels", {}, "datasets.cmb.channels", "1 entry", "{}"),
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
        ("datasets.cmb.effects.null_fraction", 1, "null_fraction", "less than 1", "1"),
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
    own = {"source": "file", "path": str(tmp_path / "no.fits")}
    with pytest.raises(UserError, match=r"dust\.map\.fwhm_arcmin: expected that of the map"):
        parse(changed("datasets.dust.map", own))
    own |= {"fwhm_arcmin": 4.8, "frequency_ghz": 353}
    values = changed("datasets.dust.map", own)
    with pytest.raises(UserError, match=r"datasets\.dust\.map\.path: expected a file"):
        require_files(parse(values))


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
    assert len(blocks) == 2
    for block in blocks:
        parse(yaml.safe_load(textwrap.dedent(block)))
