"""Settings of inpainting: published defaults, and each mistake in one line."""

import copy
from pathlib import Path

import pytest
import yaml

from skyweave.config import InpaintingRun, load, parse, require_files
from skyweave.config.docs import commented
from skyweave.config.inpainting import Holes, InpaintingLosses, InpaintingTraining
from skyweave.errors import UserError
from skyweave.images.holes import disc

ROOT = Path(__file__).parent.parent

STUDY = {
    "datasets": {
        "made": {
            "kind": "cmb",
            "spectra": {
                "lmax": 2000,
                "vary": {"ns": [0.9, 1.0, 1.1], "As": {"low": 1e-9, "high": 3e-9}},
            },
            "grid": {"size_deg": 5, "pixels": 32, "margin_deg": 2.5, "crops": 5},
            "effects": {"taper_deg": 0},
            "channels": {"obs": {}, "other": {}},
            "fields": ["t_obs", "q_obs", "u_obs", "e_obs", "t_other", "t_prim"],
            "realizations": 100,
            "shard_size": 50,
        },
        "own": {
            "kind": "imported",
            "path": "maps.npz",
            "fields": {"t_obs": "t"},
            "taper_deg": 0,
        },
        "dust": {"kind": "sky"},
    },
    "runs": {
        "first": {"task": "inpainting", "dataset": "made", "radii": [5, 20]},
        "network": {"dataset": "made", "inputs": ["q_obs"], "targets": ["t_prim"]},
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


def run(**changes) -> InpaintingRun:
    """The inpainting run of the study, with other settings."""
    values = copy.deepcopy(STUDY)
    values["runs"]["first"] |= changes
    return parse(values).runs["first"]


def test_a_run_is_as_published():
    """Liu et al. 2018 (arXiv:1804.07723): weights of the losses, and rates of the stages."""
    found = parse(STUDY | {"runs": {"r": {"task": "inpainting", "dataset": "made", "radii": [5]}}})
    one = found.runs["r"]
    assert (one.fields, one.inputs, one.targets) == (("t_obs",),) * 3
    losses = {"norm": "l1", "valid": 1, "hole": 6, "perceptual": 0.05, "style": 120}
    losses |= {"variation": 0.1, "spectrum": 0, "examples": None}
    assert one.losses.model_dump() == losses
    training = one.training
    assert (training.learning_rate, training.frozen_learning_rate) == (1e-4, 5e-5)
    assert (training.warm_epochs, training.frozen_from, training.epochs) == (1, 40, 60)
    assert (training.select.by, training.stop_patience) == ("last", None)
    assert (one.network.width, one.network.start, one.network.batch_norm) == (1, "none", True)
    assert (one.holes.kind, one.holes.area) == ("random", 0.25)
    assert (one.classes, one.patches) == (None, 200)
    assert InpaintingRun(task="inpainting", dataset="made").radii == (5, 15, 25, 35, 45, 55, 65)


def test_losses_say_whether_they_look():
    assert InpaintingLosses().looks
    assert InpaintingLosses(perceptual=0).looks
    assert not InpaintingLosses(perceptual=0, style=0).looks
    # A loss of the holes is enough, be it their spectrum's alone.
    none = {"hole": 0, "perceptual": 0, "style": 0}
    assert InpaintingLosses(**none, spectrum=1).spectrum == 1
    with pytest.raises(ValueError, match="hole: expected a loss that knows the holes"):
        InpaintingLosses(**none)


@pytest.mark.parametrize(
    ("key", "value", "expected", "found"),
    [
        ("holes.kind", "square", "'random', 'disc' or 'sky'", "'square'"),
        ("holes.area", 0, "greater than 0", "0"),
        ("holes.area", 1, "less than 1", "1"),
        ("holes.shapes", [], "at least 1 entry", "[]"),
        ("holes.shapes", ["disc", "disc"], "each entry once", "'disc' twice"),
        ("holes.radius", [9, 5], "the lower end first", "9, 5"),
        ("holes.radius", [0.5, 5], "greater than or equal to 1", "0.5"),
        ("holes.count", 7, "greater than or equal to 8", "7"),
        ("holes.centered", True, "a known setting", "unknown key 'centered'"),
        ("network.name", "resunet_cmb", "'pconv_unet'", "'resunet_cmb'"),
        ("network.start", "wiener", "'none', 'diffusive' or 'constrained'", "'wiener'"),
        ("network.filters", [], "at least 1 entry", "[]"),
        ("network.kernels", [1], "greater than or equal to 2", "1"),
        ("losses.style", -1, "greater than or equal to 0", "-1"),
        ("losses.norm", "l0", "'l1' or 'l2'", "'l0'"),
        ("losses.examples", 0, "greater than or equal to 1", "0"),
        ("training.warm_epochs", -1, "greater than or equal to 0", "-1"),
        ("training.frozen_learning_rate", 0, "greater than 0", "0"),
        ("training.batch", 81, "at most the training set's 80", "81"),
        (
            "training.select.by",
            "correlation",
            "loss or last with task inpainting",
            "'correlation'",
        ),
        ("training.select.by", "superposition", "loss or last with task", "'superposition'"),
        ("radii", [5, 5], "each entry once", "5.0 twice"),
        ("radii", [0], "greater than or equal to 1", "0"),
        ("patches", 7, "greater than or equal to 8", "7"),
        ("dataset", "dust", "a dataset of kind cmb or imported", "'sky'"),
        ("dataset", "mad", "one of dust, made, own", "'mad'"),
        ("task", "inpaint", "reconstruction or decomposition or foregrounds or inpaint", "inpaint"),
        ("inputs", ["t_obs"], "a known setting", "unknown key 'inputs'"),
        ("tests", ["own"], "a known setting", "unknown key 'tests'"),
    ],
)
def test_a_mistake_names_its_key(key, value, expected, found):
    with pytest.raises(UserError) as caught:
        parse(changed(f"runs.first.{key}", value))
    where = str(caught.value.where)
    assert where.startswith(f"runs.first.{key}")
    assert where.removeprefix(f"runs.first.{key}") in ("", ".0", ".1")
    assert expected in caught.value.expected
    assert found in str(caught.value.found)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"holes": {"kind": "sky"}},
            "holes.sky: expected a dataset, or else `path`, with `kind: sky`, found neither",
        ),
        (
            {"holes": {"kind": "sky", "sky": "dust", "path": "mask.fits"}},
            "holes.sky: expected a dataset, or else `path`, with `kind: sky`, found both",
        ),
        ({"holes": {"sky": "dust"}}, "holes.sky: expected `kind: sky` with it, found 'random'"),
        (
            {"holes": {"kind": "disc", "path": "mask.fits"}},
            "holes.path: expected `kind: sky` with it, found 'disc'",
        ),
        (
            {"holes": {"kind": "sky", "sky": "dusk"}},
            "holes.sky: expected a dataset of kind sky (dust), found 'dusk'",
        ),
        (
            {"holes": {"kind": "sky", "sky": "made"}},
            "holes.sky: expected a dataset of kind sky (dust), found 'made'",
        ),
        (
            {"radii": [5, 23]},
            "radii: expected discs smaller than a patch of 32 pixels (below 21.9), found 23",
        ),
        (
            {"holes": {"kind": "disc"}},
            "holes.radius: expected discs smaller than a patch of 32 pixels (below 21.9), found 65",
        ),
        (
            {"classes": "tau"},
            "classes: expected a parameter that 'made' varies in classes (ns), found 'tau'",
        ),
        # From a range of values each realization has its own.
        (
            {"classes": "As"},
            "classes: expected a parameter that 'made' varies in classes (ns), found 'As'",
        ),
        (
            {"classes": "ns", "dataset": "own"},
            "classes: expected a parameter that 'own' varies in classes (there are none), "
            "found 'ns'",
        ),
        (
            {"fields": ["t_obs", "q_obs"]},
            "fields: expected t of a channel, q and u, or all three, found t_obs, q_obs",
        ),
        (
            {"fields": ["u_obs"]},
            "fields: expected t of a channel, q and u, or all three, found u_obs",
        ),
        (
            {"fields": ["t_obs", "t_other"]},
            "fields: expected t of a channel, q and u, or all three, found t_obs, t_other",
        ),
        (
            {"fields": ["e_obs"]},
            "fields: expected t of a channel, q and u, or all three, found e_obs",
        ),
        (
            {"fields": ["q_other", "u_other"]},
            "fields: expected fields of dataset 'made' "
            "(t_obs, q_obs, u_obs, e_obs, t_other, t_prim), found 'q_other'",
        ),
        (
            {"network": {"filters": [8, 8], "kernels": [3]}},
            "network.kernels: expected as many as filters (2), found 1",
        ),
        (
            {"training": {"warm_epochs": 5, "frozen_from": 4}},
            "training.frozen_from: expected at least warm_epochs (5), found 4",
        ),
        (
            {"losses": {"hole": 0, "perceptual": 0, "style": 0}},
            "losses.hole: expected a loss that knows the holes, found all weights 0",
        ),
        (
            {"training": {"select": {"by": "loss", "fields": ["t_obs"]}}},
            "training.select.fields: expected none with `by: loss`, found t_obs",
        ),
    ],
)
def test_what_cannot_be_is_one_line(changes, said):
    with pytest.raises(UserError) as caught:
        run(**changes)
    assert str(caught.value) == f"runs.first.{said}"


def test_a_study_without_a_sky_has_no_holes_of_one():
    values = changed("runs.first.holes", {"kind": "sky", "sky": "dust"})
    del values["datasets"]["dust"]
    with pytest.raises(UserError, match=r"of kind sky \(there are none\), found 'dust'"):
        parse(values)


@pytest.mark.parametrize("name", ["made", "own"])
def test_maps_with_a_taper_are_refused(name):
    values = changed(f"datasets.{name}", copy.deepcopy(STUDY["datasets"][name]))
    values["runs"]["first"]["dataset"] = name
    parse(values)
    dataset = values["datasets"][name]
    (dataset["effects"] if name == "made" else dataset)["taper_deg"] = 0.5
    with pytest.raises(UserError) as caught:
        parse(values)
    assert str(caught.value) == (
        "runs.first.dataset: expected one without a taper, which the optimum does not know of "
        f"(taper_deg: 0), found 0.5 deg of {name!r}"
    )


@pytest.mark.parametrize("pixels", [16, 32, 36, 64, 128])
def test_discs_leave_a_pixel_as_they_are_drawn(pixels):
    """The limit is that of `images.holes`: just below it the corners alone are seen."""
    corner = (pixels - 1) / 2**0.5
    values = changed("datasets.made.grid.pixels", pixels)
    values["datasets"]["made"]["spectra"]["lmax"] = 5000
    for radius, seen in ((corner - 1e-6, 4), (corner + 1e-6, 0)):
        assert (~disc(pixels, radius)).sum() == seen
        for settings in ({"radii": [radius]}, {"holes": {"kind": "disc", "radius": [1, radius]}}):
            values["runs"]["first"] = STUDY["runs"]["first"] | {"radii": [5]} | settings
            if seen:
                parse(values)
                continue
            key = "radii" if "radii" in settings else "holes.radius"
            with pytest.raises(UserError, match=rf"first\.{key}: .* of {pixels} pixels") as caught:
                parse(values)
            below = float(caught.value.expected.rpartition("below ")[2].rstrip(")"))
            assert 0 <= corner - below < 0.1


def test_what_is_at_its_limit_is_possible():
    assert run(radii=[21.9]).radii == (21.9,)
    # Discs that no hole is made of, and patches whose pixels nobody knows yet.
    assert run(holes={"radius": [5, 65]}).holes.radius == (5, 65)
    assert run(dataset="own", radii=[500]).radii == (500,)
    assert run(holes={"kind": "disc", "radius": [21, 21]}).holes.radius == (21, 21)
    for fields in (["u_obs", "q_obs"], ["t_prim"], ["q_obs", "t_obs", "u_obs"]):
        assert run(fields=fields).targets == tuple(fields)
    training = run(training={"warm_epochs": 0, "frozen_from": None}).training
    assert training.frozen_from is None
    assert InpaintingTraining(warm_epochs=4, frozen_from=4).frozen_from == 4
    assert run(training={"select": {"by": "loss"}}).training.select.by == "loss"
    assert run(classes="ns").classes == "ns"
    assert Holes(kind="sky", path="mask.fits").sky is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("grid.sky", "curved", "grid.crops: expected 1 with `sky: curved` (see patches_per_sky), "),
        ("grid.margin_deg", 0, "grid.margin_deg: expected more than 0 for 5 crops of an area, "),
        ("grid.crops", 0, "grid.crops: expected greater than or equal to 1, found 0"),
        ("shard_size", 52, "shard_size: expected a multiple of grid.crops (5: a file holds all "),
    ],
)
def test_crops_that_cannot_be_are_one_line(key, value, said):
    with pytest.raises(UserError) as caught:
        parse(changed(f"datasets.made.{key}", value))
    assert str(caught.value).startswith(f"datasets.made.{said}")


@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        (
            {"run": "network", "path": "map.fits", "mask": "mask.fits"},
            "run: expected with `mask` an inpainting run (first), found 'network'",
        ),
        (
            {"run": "first", "path": "map.fits"},
            "run: expected a reconstruction run (network), found 'first'",
        ),
        (
            {"run": "first", "path": "map.fits", "mask": "mask.fits", "tapered": True},
            "tapered: expected none beside `mask`, which belongs to HEALPix maps as they are, "
            "found True",
        ),
        (
            {"run": "first", "path": "map.fits", "mask": "mask.fits", "format": "npz"},
            "format: expected none beside `mask`, which belongs to HEALPix maps as they are, "
            "found 'npz'",
        ),
    ],
)
def test_a_mask_belongs_to_an_inpainting_run(prediction, said):
    with pytest.raises(UserError) as caught:
        parse(changed("predictions.mine", prediction))
    assert str(caught.value) == f"predictions.mine.{said}"


def test_a_prediction_with_a_mask_is_possible():
    prediction = {"run": "first", "path": "map.fits", "mask": "mask.fits", "unit": "K_CMB"}
    assert parse(changed("predictions.mine", prediction)).predictions["mine"].mask == "mask.fits"


def test_files_of_masks_must_be_there(tmp_path):
    there = tmp_path / "there.fits"
    there.touch()
    lost = str(tmp_path / "lost.fits")

    def study(holes, mask):
        values = changed("runs.first.holes", {"kind": "sky", "path": holes})
        del values["datasets"]["own"]
        return parse(
            values | {"predictions": {"mine": {"run": "first", "path": str(there), "mask": mask}}}
        )

    require_files(study(str(there), str(there)))
    with pytest.raises(UserError, match=r"^runs\.first\.holes\.path: expected a file, found noth"):
        require_files(study(lost, str(there)))
    with pytest.raises(UserError, match=r"^predictions\.mine\.mask: expected a file, found noth"):
        require_files(study(str(there), lost))


def test_settings_are_scanned():
    values = STUDY | {
        "scans": {"s": {"run": "first", "settings": {"network.start": ["none", "constrained"]}}}
    }
    found = parse(values)
    assert [found.runs[f"s_{n}"].network.start for n in (1, 2)] == ["none", "constrained"]
    values["scans"]["s"]["settings"] = {"radii": [[5], [30]]}
    with pytest.raises(UserError, match=r"^scans\.s\.settings\.radii: expected discs smaller"):
        parse(values)


def test_the_commented_study_means_the_same():
    found = parse(STUDY)
    text = commented(found)
    assert parse(yaml.safe_load(text)) == found
    assert "# Fill holes." in text
    assert "holes:  # Holes to learn, and to be judged, on." in text


def test_the_study_of_the_authors_scale():
    """10,000 crops of 128², ten of each of 1,000 maps; nine indices; discs of 5 to 65 pixels."""
    study = load(ROOT / "config" / "studies" / "combine.yaml")
    dataset, run = study.datasets["temperature"], study.runs["published"]
    assert (dataset.realizations, dataset.grid.pixels, dataset.grid.crops) == (10_000, 128, 10)
    assert run == InpaintingRun(task="inpainting", dataset="temperature")
    assert study.runs["discs"].holes == Holes(kind="disc", radius=(5, 65))
    assert study.datasets["wide"].grid.pixels == 512
    assert study.runs["large"].training.batch == 6
    classes = study.runs["classes"]
    assert len(study.datasets[classes.dataset].spectra.vary[classes.classes]) == 9
    assert {one.task for one in study.runs.values()} == {"inpainting"}
