"""Settings of images of galaxies: published defaults, and each mistake in one line."""

import copy

import numpy as np
import pytest
import yaml

from skyweave.config import DenoisingRun, GenerationRun, parse, require_files
from skyweave.config.docs import commented
from skyweave.config.galaxies import Diffusion, Metrics, Stretch
from skyweave.errors import UserError
from skyweave.networks import residual_denoiser

STUDY = {
    "datasets": {
        "made": {"kind": "sersic", "pixels": 32, "realizations": 400, "shard_size": 150},
        "own": {"kind": "images", "path": "stamps.npz", "bands": ["g", "r", "i"], "pixels": 48},
        "cosmos": {"kind": "images", "source": "cosmos", "bands": ["F814W"]},
        "sky": {"kind": "sky"},
    },
    "runs": {
        "gan": {
            "task": "generation",
            "dataset": "made",
            "training": {"batch": 16},
            "samples": 100,
        },
        "other": {
            "task": "generation",
            "dataset": "own",
            "fields": ["g", "r"],
            "network": {"name": "vae"},
        },
        "plain": {"task": "denoising", "dataset": "made"},
        "mixed": {"task": "denoising", "dataset": "made", "generated": "gan", "alpha": 0.5},
    },
}


def changed(key: str, value: object) -> dict:
    """The study with one value changed or added; the key is dotted."""
    values = copy.deepcopy(STUDY)
    *path, last = key.split(".")
    section = values
    for part in path:
        section = section.setdefault(part, {})
    section[last] = value
    return values


def refused(values: dict) -> str:
    """The one line that a study is refused with."""
    with pytest.raises(UserError) as caught:
        parse(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_study_is_possible():
    found = parse(STUDY)
    assert found.datasets["made"].fields == ("image",)
    assert found.datasets["made"].shards == [range(150), range(150, 300), range(300, 400)]
    assert found.datasets["own"].fields == ("g", "r", "i")
    assert found.datasets["own"].shards == [range(0)]
    run = found.runs["gan"]
    assert (run.inputs, run.targets) == (("image",), ("image",))
    assert found.runs["other"].targets == ("g", "r")


def test_images_are_as_published():
    """Holzschuh et al. 2022 (arXiv:2203.11956)."""
    one = parse({"datasets": {"s": {"kind": "sersic"}}}).datasets["s"]
    assert (one.pixels, one.realizations) == (256, 50_000)
    assert (one.radius_arcsec, one.index, one.axis_ratio) == ((1, 4), (1, 4), (0.4, 1))
    assert (one.magnitude, one.psf, one.noise) == ((22, 22), None, 0)
    assert one.stretch == Stretch(kind="asinh", softening=None, top=None)


def test_runs_are_as_published():
    gan = GenerationRun(task="generation", dataset="s")
    assert (gan.network.name, gan.network.latent, gan.network.mapping_layers) == (
        "stylegan2",
        512,
        8,
    )
    assert (gan.training.select.by, gan.training.stop_patience) == ("last", None)
    # Karras et al. 2022 (arXiv:2206.00364), table 1, for images of rms 0.5; here over their rms.
    diffusion = Diffusion()
    assert diffusion.p_mean == pytest.approx(-1.2 - np.log(0.5), abs=0.01)
    assert (diffusion.p_std, diffusion.rho) == (1.2, 7)
    assert (diffusion.sigma_min, diffusion.sigma_max) == (0.002 / 0.5, 80 / 0.5)
    assert Metrics().images is None
    denoiser = DenoisingRun(task="denoising", dataset="s")
    assert (denoiser.alpha, denoiser.repeat, denoiser.generated) == (0, 0, None)
    assert denoiser.degradation.noise is None


@pytest.mark.parametrize(
    ("key", "value", "expected", "found"),
    [
        ("datasets.made.pixels", 12, "greater than or equal to 16", "12"),
        ("datasets.made.pixels", 30, "multiple of 4", "30"),
        ("datasets.made.pixels", 2048, "less than or equal to 1024", "2048"),
        ("datasets.made.pixel_arcsec", 0, "greater than 0", "0"),
        ("datasets.made.offset_arcsec", -1, "greater than or equal to 0", "-1"),
        ("datasets.made.radius_arcsec", [4, 1], "the lower end first", "4, 1"),
        ("datasets.made.radius_arcsec", [0, 1], "greater than 0", "0"),
        ("datasets.made.index", [0.2, 1], "greater than or equal to 0.3", "0.2"),
        ("datasets.made.index", [4, 1], "the lower end first", "4, 1"),
        ("datasets.made.axis_ratio", [0.5, 1.1], "less than or equal to 1", "1.1"),
        ("datasets.made.axis_ratio", [0.9, 0.4], "the lower end first", "0.9, 0.4"),
        ("datasets.made.magnitude", [24, 22], "the lower end first", "24, 22"),
        ("datasets.made.realizations", 9, "greater than or equal to 10", "9"),
        ("datasets.made.shard_size", 0, "greater than or equal to 1", "0"),
        ("datasets.made.noise", -0.1, "greater than or equal to 0", "-0.1"),
        ("datasets.made.psf.kind", "airy", "'gaussian' or 'moffat'", "'airy'"),
        ("datasets.made.psf", {}, "a value", "none"),
        ("datasets.made.psf", {"fwhm_arcsec": 1, "beta": 1}, "greater than 1", "1"),
        ("datasets.made.stretch.kind", "log", "'asinh' or 'linear'", "'log'"),
        ("datasets.made.stretch.top", 0, "greater than 0", "0"),
        ("datasets.made.bands", ["g"], "a known setting", "unknown key 'bands'"),
        ("datasets.made.kind", "galaxies", "cmb or sky or imported or sersic or im", "galaxies"),
        ("datasets.own.bands", [], "at least 1 entry", "[]"),
        ("datasets.own.bands", ["g", "g"], "each entry once", "'g' twice"),
        ("datasets.own.bands", ["g-r"], "names such as g, r, i, F814W", "'g-r'"),
        ("datasets.own.bands", ["all"], "names such as g, r, i, F814W", "'all'"),
        ("datasets.own.bands", ["labels"], "names such as g, r, i, F814W", "'labels'"),
        ("datasets.own.bands", ["realizations"], "names such as g, r", "'realizations'"),
        ("datasets.own.bands", ["u", "g", "r", "i", "z", "y"], "at most 5 items", "'u'"),
        ("datasets.own.resize", "pad", "'crop' or 'scale'", "'pad'"),
        ("datasets.own.source", "sdss", "'cosmos' or 'files'", "'sdss'"),
        ("runs.gan.network.name", "gan", "'stylegan2', 'vae' or 'diffusion'", "'gan'"),
        ("runs.gan.network.width", 0, "greater than or equal to 0.01", "0"),
        ("runs.gan.network.latent", 1, "greater than or equal to 2", "1"),
        ("runs.gan.network.mapping_layers", 0, "greater than or equal to 1", "0"),
        ("runs.gan.network.synthesis", "progressive", "'skip' or 'residual'", "'progressive'"),
        ("runs.gan.augment.target", 1, "less than 1", "1"),
        ("runs.gan.augment.images", 0, "greater than 0", "0"),
        ("runs.gan.vae.beta", 0, "greater than 0", "0"),
        ("runs.gan.vae.deviation", 0, "greater than 0", "0"),
        ("runs.gan.diffusion.steps", 1, "greater than or equal to 2", "1"),
        ("runs.gan.diffusion.sigma_data", 0, "greater than 0", "0"),
        ("runs.gan.truncation", 2.1, "less than or equal to 2", "2.1"),
        ("runs.gan.samples", 19, "greater than or equal to 20", "19"),
        ("runs.gan.samples", 100.5, "integer", "100.5"),
        ("runs.gan.grid_epochs", 0, "greater than or equal to 1", "0"),
        ("runs.gan.metrics.images", 19, "greater than or equal to 20", "19"),
        ("runs.gan.metrics.kid_subset", 9, "greater than or equal to 10", "9"),
        ("runs.gan.metrics.kid_subsets", 1, "greater than or equal to 2", "1"),
        ("runs.gan.metrics.neighbours", 0, "greater than or equal to 1", "0"),
        ("runs.gan.training.batch", 321, "at most the training set's 320", "321"),
        ("runs.gan.training.beta_1", 1, "less than 1", "1"),
        ("runs.gan.training.select.by", "correlation", "loss or last with task gen", "'corr"),
        ("runs.gan.dataset", "sky", "a dataset of kind sersic or images", "'sky'"),
        ("runs.gan.dataset", "mad", "one of cosmos, made, own, sky", "'mad'"),
        ("runs.gan.inputs", ["image"], "a known setting", "unknown key 'inputs'"),
        ("runs.gan.task", "generate", "inpainting or generation or denoising", "generate"),
        ("runs.plain.dataset", "sky", "a dataset of kind sersic or images", "'sky'"),
        ("runs.plain.network.name", "unet", "'residual_denoiser'", "'unet'"),
        ("runs.plain.degradation.psf_pixels", -1, "greater than or equal to 0", "-1"),
        ("runs.plain.degradation.noise", 0, "greater than 0", "0"),
        ("runs.plain.degradation.noise_factor", 0.5, "greater than or equal to 1", "0.5"),
        ("runs.plain.degradation.pixel_factor", 1, "greater than or equal to 2", "1"),
        ("runs.plain.alpha", 1.5, "less than or equal to 1", "1.5"),
        ("runs.plain.repeat", -1, "greater than or equal to 0", "-1"),
        ("runs.plain.training.batch", 321, "at most the training set's 320", "321"),
        ("runs.plain.training.select.by", "superposition", "loss or last with task den", "'superp"),
    ],
)
def test_a_mistake_names_its_key(key, value, expected, found):
    with pytest.raises(UserError) as caught:
        parse(changed(key, value))
    where = str(caught.value.where)
    assert where.startswith(key)
    assert where.removeprefix(key) in ("", ".0", ".1", ".fwhm_arcsec", ".beta")
    assert expected in caught.value.expected
    assert found in str(caught.value.found)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "datasets.made.stretch",
            {"kind": "linear", "softening": 2},
            "datasets.made.stretch.softening: expected `kind: asinh` with it, found 2 with linear",
        ),
        (
            "datasets.own.path",
            None,
            "datasets.own.path: expected a file with `source: files`, found none",
        ),
        (
            "datasets.cosmos.path",
            "stamps.fits",
            "datasets.cosmos.path: expected `source: files` with it, found `source: cosmos`",
        ),
        (
            "datasets.cosmos.bands",
            ["g", "r"],
            "datasets.cosmos.bands: expected one with `source: cosmos`, found g, r",
        ),
        (
            "runs.gan.diffusion",
            {"sigma_min": 3, "sigma_max": 2},
            "runs.gan.diffusion.sigma_min: expected less than sigma_max (2), found 3",
        ),
        (
            "runs.gan.metrics.images",
            101,
            "runs.gan.metrics.images: expected at most samples (100), found 101",
        ),
        (
            "runs.gan.metrics.images",
            41,
            "runs.gan.metrics.images: expected at most 40, which test and training set have, "
            "found 41",
        ),
        (
            "runs.other.augment.adaptive",
            True,
            "runs.other.augment.adaptive: expected `network.name: stylegan2` with it, found 'vae'",
        ),
        (
            "runs.other",
            STUDY["runs"]["other"] | {"network": {"name": "diffusion"}, "truncation": 0.7},
            "runs.other.truncation: expected 1 with `network.name: diffusion`, found 0.7",
        ),
        (
            "runs.other.fields",
            ["g", "z"],
            "runs.other.fields: expected bands of dataset 'own' (g, r, i), found 'z'",
        ),
        (
            "runs.other.network.name",
            "stylegan2",
            "runs.other.network.name: expected images of a power of two pixels a side with "
            "`stylegan2`, found 48 of 'own'",
        ),
        (
            "runs.plain.alpha",
            0.25,
            "runs.plain.alpha: expected `generated`, a run whose images are mixed in, with it, "
            "found 0.25 and none",
        ),
        (
            "runs.mixed.generated",
            "other",
            "runs.mixed.generated: expected a generation run on the same dataset and bands (gan), "
            "found 'other'",
        ),
        (
            "runs.mixed.generated",
            "plain",
            "runs.mixed.generated: expected a generation run on the same dataset and bands (gan), "
            "found 'plain'",
        ),
        (
            "runs.mixed",
            {"task": "denoising", "dataset": "own", "fields": ["g"], "generated": "other"},
            "runs.mixed.generated: expected a generation run on the same dataset and bands "
            "(there are none), found 'other'",
        ),
        (
            "runs.plain.degradation.pixel_factor",
            3,
            "runs.plain.degradation.pixel_factor: expected one that leaves 8 or more whole pixels "
            "of 32, a multiple of 4, found 3",
        ),
        (
            "runs.plain.degradation.pixel_factor",
            8,
            "runs.plain.degradation.pixel_factor: expected one that leaves 8 or more whole pixels "
            "of 32, a multiple of 4, found 8",
        ),
        (
            "datasets.made.split",
            {"train": 0.9, "validation": 0.1, "test": 0},
            "datasets.made.split: expected at least one image in each part of 400, found none",
        ),
        (
            "datasets.made.split",
            {"train": 0.8925, "validation": 0.1, "test": 0.0075},
            "datasets.made.split: expected at least 4 images to train and to test a generator on, "
            "found 3",
        ),
        (
            "runs.plain.training.select",
            {"by": "loss", "fields": ["image"]},
            "runs.plain.training.select.fields: expected none with `by: loss`, found image",
        ),
    ],
)
def test_what_cannot_be_is_one_line(key, value, said):
    values = changed(key, value)
    if key.startswith("runs.gan.metrics.images") and value == 41:
        values["runs"]["gan"]["samples"] = 1000
    found = refused(values)
    # A mistake of the study as a whole has no place of its own before it.
    assert found == said


@pytest.mark.parametrize(
    ("name", "key", "value", "kinds"),
    [
        *[
            (name, key, value, "stylegan2")
            for name in ("vae", "diffusion")
            for key, value in (
                ("style.learning_rate", 0.001),
                ("style.r1_gamma", 1),
                ("style.average_images", 500),
                ("network.mapping_layers", 2),
                ("network.synthesis", "residual"),
                ("network.pixel_noise", False),
                ("augment.adaptive", True),
            )
        ],
        ("diffusion", "network.latent", 64, "stylegan2 or vae"),
        ("stylegan2", "vae.beta", 2, "vae"),
        ("diffusion", "vae.deviation", 0.1, "vae"),
        ("stylegan2", "diffusion.steps", 18, "diffusion"),
        ("vae", "diffusion.sigma_data", 0.5, "diffusion"),
        ("stylegan2", "training.beta_1", 0.5, "vae or diffusion"),
    ],
)
def test_a_setting_of_another_generator_is_refused(name, key, value, kinds):
    values = changed(f"runs.gan.{key}", value)
    values["runs"]["gan"].setdefault("network", {})["name"] = name
    expected = f"runs.gan.{key}: expected `network.name: {kinds}` with it, found {name!r}"
    assert refused(values) == expected
    # Its own may read it.
    values["runs"]["gan"]["network"]["name"] = kinds.split(" or ")[0]
    assert parse(values).runs["gan"].network.name in kinds


@pytest.mark.parametrize("key", ["target", "images"])
def test_what_only_adaptive_augmentation_reads(key):
    values = changed("runs.gan.augment", {key: 0.5})
    expected = f"runs.gan.augment.{key}: expected `augment.adaptive: true` with it, found false"
    assert refused(values) == expected
    values["runs"]["gan"]["augment"]["adaptive"] = True
    assert getattr(parse(values).runs["gan"].augment, key) == 0.5


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("select", {"by": "loss"}, "'last'"), ("stop_patience", 5, "null")],
)
def test_losses_of_an_adversary_select_nothing(key, value, expected):
    """One epoch would be kept and another reported: its losses never settle."""
    values = changed(f"runs.gan.training.{key}", value)
    found = refused(values)
    where, found_there = ("select.by", "'loss'") if key == "select" else (key, "5")
    assert found == (
        f"runs.gan.training.{where}: expected {expected} with `network.name: stylegan2`, whose "
        f"losses never settle, found {found_there}"
    )
    for name in ("vae", "diffusion"):
        values["runs"]["gan"]["network"] = {"name": name}
        parse(values)


@pytest.mark.parametrize("name", ["stylegan2", "vae", "diffusion"])
def test_recorded_settings_are_read_back(name):
    """They name every setting, those of other generators too."""
    values = changed("runs.gan.network", {"name": name})
    found = parse(values)
    recorded = found.model_dump(mode="json")
    assert recorded["runs"]["gan"]["style"]["r1_gamma"] == 10
    assert parse(recorded) == found
    assert parse(yaml.safe_load(commented(found))) == found


def test_a_scan_over_what_a_generator_does_not_read_is_refused():
    scan = {"run": "other", "settings": {"style.r1_gamma": [1, 10]}}
    expected = "scans.losses.settings.style.r1_gamma: expected `network.name: stylegan2` with it, "
    assert refused(STUDY | {"scans": {"losses": scan}}) == expected + "found 'vae'"


@pytest.mark.parametrize("pixels", [*range(16, 68, 4), 96, 100, 128])
@pytest.mark.parametrize("factor", [2, 3, 4, 5, 8])
def test_what_is_accepted_can_be_built(pixels, factor):
    """The network of the test of larger pixels has one size of frame more."""
    values = changed("datasets.made.pixels", pixels)
    del values["runs"]["gan"], values["runs"]["mixed"]
    values["runs"]["plain"]["degradation"] = {"pixel_factor": factor}
    if pixels % factor == 0 and pixels // factor >= 8 and pixels // factor % 4 == 0:
        assert parse(values).runs["plain"].degradation.pixel_factor == factor
        return
    assert "degradation.pixel_factor: expected one that leaves" in refused(values)


def test_the_denoiser_wants_a_multiple_of_four():
    with pytest.raises(UserError, match="multiple of 4"):
        residual_denoiser.build(10, ("image",), 0.125)


def test_what_is_at_its_limit_is_possible():
    values = changed("runs.gan.metrics.images", 40)
    assert parse(values).runs["gan"].metrics.images == 40
    values = changed("datasets.made.split", {"train": 0.89, "validation": 0.1, "test": 0.01})
    assert parse(values).datasets["made"].split.test == 0.01
    # Nobody knows yet how many images there are.
    values = changed("runs.other.metrics.images", 9000)
    assert parse(values).runs["other"].metrics.images == 9000
    for pixels in (16, 64, 1024):
        values = changed("datasets.made.pixels", pixels)
        assert parse(values).datasets["made"].pixels == pixels
    # A denoising that mixes none in may still name a run.
    values = changed("runs.mixed.alpha", 0)
    assert parse(values).runs["mixed"].generated == "gan"


def test_files_of_images_must_be_there(tmp_path):
    def study(path):
        values = changed("datasets.own.path", str(path))
        del values["datasets"]["sky"]
        return parse(values)

    # A folder or a file.
    require_files(study(tmp_path))
    (tmp_path / "stamps.npz").touch()
    require_files(study(tmp_path / "stamps.npz"))
    with pytest.raises(UserError, match=r"^datasets\.own\.path: expected a file or a folder, f"):
        require_files(study(tmp_path / "lost"))


def test_a_scan_over_shares_and_repeats_gives_runs():
    """With the last by its name changing fastest."""
    scan = {"run": "mixed", "settings": {"alpha": [0, 0.25, 0.75], "repeat": [0, 1]}}
    found = parse(STUDY | {"scans": {"share": scan}})
    members = found.members("share")
    assert list(members) == [f"share_{number}" for number in range(1, 7)]
    assert [tuple(one.values()) for one in members.values()] == [
        (alpha, repeat) for alpha in (0, 0.25, 0.75) for repeat in (0, 1)
    ]
    assert {found.runs[name].generated for name in members} == {"gan"}
    scan["settings"]["alpha"] = [0, 2]
    assert refused(STUDY | {"scans": {"share": scan}}).startswith(
        "scans.share.settings.alpha: expected less than or equal to 1, found 2"
    )


def test_the_commented_study_means_the_same():
    found = parse(STUDY)
    text = commented(found)
    assert parse(yaml.safe_load(text)) == found
    assert "# Generate images." in text
    assert "degradation:  # What is done to an image that the network is to undo." in text
