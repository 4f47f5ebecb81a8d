"""Figures of generated and restored images and of what they buy, their scores and their page."""

import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import browser
import report_inputs as inputs
from skyweave.data.shards import ShardSet
from skyweave.errors import UserError
from skyweave.images.stretch import Scale
from skyweave.report import alphas, denoising, generation, generation_shapes, read
from skyweave.report.figures import draw_alphas
from skyweave.report.generation_images import colours_words, grids, pictures, shown_images
from skyweave.report.generation_losses import loss_words, losses
from skyweave.report.page import build_report
from skyweave.report.summary import dataset_row, generated_scores, restored_scores, run_row
from skyweave.statistics.tables import read_table, write_table
from skyweave.statistics.verdicts import read_verdicts

FILES = {
    "generation": generation.FILES,
    "denoising": denoising.FILES,
    "alphas": alphas.FILES,
}
DRAW = {
    "generation": inputs.draw_galaxies,
    "denoising": inputs.draw_restored,
    "alphas": draw_alphas,
}
SCALE = Scale("asinh", 0.1, 10.0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each task, and what their comparison leaves, with figures."""
    return inputs.drawn(tmp_path_factory, *FILES)


@pytest.fixture
def own(drawn: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """A copy without figures that a test may change."""
    for kind in FILES:
        ignored = shutil.ignore_patterns("figures")
        shutil.copytree(drawn[kind], tmp_path / "own" / kind, ignore=ignored)
    return {kind: tmp_path / "own" / kind for kind in FILES}


def table(folder: Path, name: str) -> pd.DataFrame:
    return read_table(folder / "figures" / name)


def labels(path: Path) -> str:
    """All words of an SVG, which matplotlib keeps as comments beside the outlines."""
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", FILES)
def test_each_figure_has_its_file_words_and_table(drawn: dict[str, Path], kind: str) -> None:
    folder = drawn[kind] / "figures"
    entries = read.figures(folder / "figures.json")
    assert tuple(entry["file"] for entry in entries) == FILES[kind]
    for entry in entries:
        assert all(len(entry[key]) > 20 for key in ("caption", "alt")), entry["file"]
        assert entry["section"] == kind
        assert len(read_table(folder / entry["table"])) > 0
        image = folder / entry["file"]
        if image.suffix == ".svg":
            assert ET.parse(image).getroot().tag.endswith("svg")
        else:
            assert imread(image)[..., :3].std() > 0.05


@pytest.mark.parametrize("kind", FILES)
def test_same_inputs_give_same_bytes(
    drawn: dict[str, Path], own: dict[str, Path], kind: str
) -> None:
    DRAW[kind](own[kind], own[kind] / "figures")
    for path in (own[kind] / "figures").iterdir():
        assert path.read_bytes() == (drawn[kind] / "figures" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("generation", "metrics.csv"),
        ("generation", "spectra.csv"),
        ("generation", "morphology.csv"),
        ("generation", "samples.h5"),
        ("generation", "grids.npz"),
        ("generation", "history.csv"),
        ("generation", "sweep.csv"),
        ("generation", "dataset/split.csv"),
        ("generation", "dataset/stretch.json"),
        ("generation", "dataset/1.h5"),
        ("denoising", "metrics.csv"),
        ("denoising", "restored.h5"),
        ("denoising", "history.csv"),
        ("denoising", "sweep.csv"),
        ("denoising", "dataset/stretch.json"),
        ("alphas", "table.csv"),
    ],
)
@pytest.mark.parametrize("content", [None, b"not what it should be\n"])
def test_a_missing_or_broken_input_is_named(
    own: dict[str, Path], kind: str, name: str, content: bytes | None
) -> None:
    (own[kind] / name).unlink()
    if content is not None:
        (own[kind] / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(Path(name).name)) as caught:
        DRAW[kind](own[kind], own[kind] / "figures")
    assert "\n" not in str(caught.value)
    assert not (own[kind] / "figures" / "figures.json").exists()


@pytest.mark.parametrize(
    ("kind", "statistic"),
    [
        ("generation", "distance_power"),
        ("generation", "distance_ellipticity"),
        ("denoising", "mse"),
        ("denoising", "flux_bias"),
    ],
)
def test_a_statistic_that_is_missing_is_named(
    own: dict[str, Path], kind: str, statistic: str
) -> None:
    path = own[kind] / "metrics.csv"
    rows = read_table(path)
    write_table(path, rows[rows["statistic"] != statistic])
    with pytest.raises(UserError, match=rf"metrics\.csv: expected rows .*'{statistic}'"):
        DRAW[kind](own[kind], own[kind] / "figures")


class TestImages:
    def test_some_of_all_the_test_set_and_the_first_samples_are_shown(
        self, drawn: dict[str, Path]
    ) -> None:
        rows = table(drawn["generation"], "samples.csv")
        by = {method: part["image"].tolist() for method, part in rows.groupby("method")}
        # Every 20 / 16-th of the 20 odd numbers of the test set.
        places = [n * 20 // 16 for n in range(16)]
        assert by == {"truth": [1 + 2 * place for place in places], "network": list(range(16))}
        assert places[-1] == 18
        real = ShardSet([drawn["generation"] / "dataset" / f"{n}.h5" for n in range(2)])
        flux = real.read("image", [37]).sum(dtype=float)
        assert rows.query("method == 'truth'")["flux"].iloc[-1] == pytest.approx(flux, rel=1e-6)

    def test_grey_is_inverted_and_three_bands_are_colours(self) -> None:
        stretched = np.array([-1.5, -1.0, 0.0, 1.0, 7.0])[:, None, None, None]
        grey = pictures(np.repeat(stretched, 2, axis=-1))
        assert grey[:, 0, 0].tolist() == [[x] * 3 for x in (1, 1, 0.5, 0, 0)]
        bands = np.stack([stretched[..., 0], -stretched[..., 0], 0 * stretched[..., 0]], axis=-1)
        colours = pictures(np.concatenate([bands, bands[..., :1]], axis=-1))
        assert colours[3, 0, 0].tolist() == [1, 0, 0.5]
        assert "bands g, r, i," in colours_words(["g", "r", "i", "z"])
        assert colours_words(["g", "r"]).startswith("The band g is drawn")

    def test_a_run_of_few_images_is_drawn(self, tmp_path: Path) -> None:
        path = tmp_path / "samples.h5"
        inputs._image_shard(path, inputs.galaxies(0, 3, 16, ("image",)), 5)
        few = shown_images([path], ["image"])
        assert few.numbers.tolist() == [5, 6, 7]
        rows = generation.samples(few, few, ["image"], SCALE, tmp_path / "samples.png")
        assert len(rows) == 6
        assert imread(tmp_path / "samples.png")[..., :3].std() > 0.05


class TestGrids:
    def test_six_epochs_from_the_first_to_the_last(self, drawn: dict[str, Path]) -> None:
        rows = table(drawn["generation"], "grids.csv")
        assert rows["epoch"].unique().tolist() == [10, 20, 40, 50, 70, 75]
        assert set(rows["image"]) == set(range(8))
        with np.load(drawn["generation"] / "grids.npz") as arrays:
            image = arrays["images"][-1, 7].astype(float)
        last = rows.iloc[-1]
        assert last["mean"] == pytest.approx(image.mean(), rel=1e-6)
        assert last["rms"] == pytest.approx(image.std(), rel=1e-6)

    def test_one_epoch_is_drawn_and_of_none_that_is_said(self, tmp_path: Path) -> None:
        images = np.zeros((1, 16, 16, 16, 3), np.float32)
        np.savez(tmp_path / "one.npz", epochs=np.array([4]), images=images)
        rows = grids(tmp_path / "one.npz", ["g", "r", "i"], tmp_path / "one.png")
        assert len(rows) == 8 * 3
        np.savez(tmp_path / "none.npz", epochs=np.array([], int), images=np.array([]))
        rows = grids(tmp_path / "none.npz", ["image"], tmp_path / "none.png")
        assert "or its state is gone" in rows["note"].iloc[0]
        assert (tmp_path / "none.png").stat().st_size > 1000

    def test_other_bands_are_refused(self, tmp_path: Path) -> None:
        images = np.zeros((1, 16, 16, 16, 2), np.float32)
        np.savez(tmp_path / "grids.npz", epochs=np.array([4]), images=images)
        with pytest.raises(UserError, match=r"grids\.npz: expected images \(1, n, y, x, 1\)"):
            grids(tmp_path / "grids.npz", ["image"], tmp_path / "grids.png")


def test_spectra_hold_quantiles_and_distances(drawn: dict[str, Path]) -> None:
    rows = table(drawn["generation"], "spectra.csv")
    power, distance = (rows[rows["statistic"] == s] for s in ("power", "distance_power"))
    assert len(power) == 4 * 5 * 6
    assert len(distance) == 3 * 6
    assert distance.query("method == 'real'")["value"].to_numpy() == pytest.approx(np.full(6, 0.05))
    svg = labels(drawn["generation"] / "figures" / "spectra.svg")
    for words in (
        "truth, 16–84 %",
        "network, 5 and 95 %",
        "other real images",
        "Gaussian images",
        "wave number [cycles per pixel]",
    ):
        assert f"<!-- {words} -->" in svg, words


class TestMorphology:
    def test_bins_are_those_of_the_truth_for_all_sets_and_shares_add_up(
        self, drawn: dict[str, Path]
    ) -> None:
        rows = table(drawn["generation"], "morphology.csv")
        measured = read_table(drawn["generation"] / "morphology.csv")
        assert set(rows["method"]) == {"truth", "real", "network"}
        for (name, method), part in rows.groupby(["statistic", "method"]):
            assert part["share"].sum() == pytest.approx(1)
            truth = measured.loc[measured["method"] == "truth", name].dropna()
            low, high = truth.quantile([0.01, 0.99])
            room = (high - low) / 4
            assert part["low"].min() == pytest.approx(low - room)
            assert part["high"].max() == pytest.approx(high + room)
            values = measured.loc[measured["method"] == method, name]
            above = part.loc[part["high"].isna(), "share"].iloc[0]
            assert above == pytest.approx((values.dropna() > high + room).mean())

    def test_what_lies_outside_is_told_with_the_distance(self, tmp_path: Path) -> None:
        truth = pd.Series(np.linspace(0, 1, 100))
        network = pd.Series([0.5] * 7 + [9.0] * 2 + [-9.0])
        shapes = pd.concat(
            pd.DataFrame({"gini": values, "method": method, "field": "image"})
            for method, values in (("truth", truth), ("real", truth), ("network", network))
        )
        distance = {"field": "image", "statistic": "distance_gini", "error": 0.1}
        metrics = pd.DataFrame(
            [{"method": "network", "value": 2.5}, {"method": "real", "value": 0.04}]
        ).assign(**distance)
        rows = generation_shapes.morphology(shapes, metrics, tmp_path / "morphology.svg")
        made = rows[rows["method"] == "network"]
        assert made.loc[made["low"].isna(), "share"].tolist() == [0.1]
        assert made.loc[made["high"].isna(), "share"].tolist() == [0.2]
        svg = labels(tmp_path / "morphology.svg")
        assert "<!-- W 2.5 ± 0.1, real 0.04" in svg
        assert "30 % of the network's outside" in svg

    def test_a_constant_statistic_and_one_without_values_are_drawn(self, tmp_path: Path) -> None:
        shapes = pd.DataFrame({"smoothness": 0.0, "asymmetry": np.nan}, index=range(9))
        shapes = pd.concat(
            shapes.assign(method=method, field="image") for method in ("truth", "real", "network")
        )
        names = ("distance_smoothness", "distance_asymmetry")
        metrics = pd.DataFrame({"statistic": names, "value": [0.0, np.nan], "error": np.nan})
        metrics = metrics.assign(method="network", field="image")
        rows = generation_shapes.morphology(shapes, metrics, tmp_path / "morphology.svg")
        shares = rows.groupby(["statistic", "method"])["share"].sum()
        assert shares["smoothness"].tolist() == [1, 1, 1]
        assert shares["asymmetry"].tolist() == [0, 0, 0]


class TestDistances:
    def test_power_is_the_mean_over_wave_numbers_and_flux_is_apart(
        self, drawn: dict[str, Path]
    ) -> None:
        rows = table(drawn["generation"], "distances.csv").set_index(["method", "statistic"])
        assert set(rows.index.get_level_values(1)) == {"mean", "power", *inputs.SHAPES}
        assert rows.loc[("network", "power"), "value"] == pytest.approx(0.3)
        assert rows.loc[("network", "power"), "error"] == pytest.approx(0.02)
        assert rows.loc[("network", "mean"), "value"] == pytest.approx(0.45)
        assert rows.loc[("gaussian_images", "sersic_index"), "value"] == pytest.approx(2.4)

    def test_distances_that_no_log_axis_holds_are_drawn(self, tmp_path: Path) -> None:
        metrics = inputs._image_metrics(("image",), features=False, morphology=True)
        of = metrics["statistic"] == "distance_flux"
        metrics.loc[of, "value"] = [0.0, np.inf, np.nan]
        rows = generation.distances(metrics, tmp_path / "distances.svg")
        assert len(rows) == 3 * 5
        assert (tmp_path / "distances.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("names", "labelled"),
    [
        (("generator", "discriminator", "r1", "augmentation"), ("penalty", "generator, training")),
        (
            ("negative_log_likelihood", "divergence", "reconstruction", "deviation"),
            ("total loss", "divergence of the latents", "error of a pixel (rms)"),
        ),
        (("image",), ("total loss", "kept (epoch 3)")),
    ],
)
def test_losses_of_each_kind_of_generator(
    tmp_path: Path, names: tuple[str, ...], labelled: tuple[str, ...]
) -> None:
    epoch = np.arange(1, 6)
    # As of an autoencoder, whose total may be negative, so that it has no logarithm.
    history = pd.DataFrame({"epoch": epoch, "loss": 2.5 - epoch, "val_loss": 2.6 - epoch})
    for name in names:
        history = history.assign(**{f"loss_{name}": 1.0, f"val_loss_{name}": 1.1})
    if "augmentation" in names:
        history["loss_augmentation"] = np.nan
    assert losses(history, 3, tmp_path / "losses.svg").equals(history)
    svg = labels(tmp_path / "losses.svg")
    for words in labelled:
        assert f"<!-- {words} -->" in svg, words
    assert "probability of augmentation" not in svg, "it was never told"
    assert ("total loss" in svg) == ("generator" not in names)


def test_captions_tell_each_kind_of_generator_what_is_good() -> None:
    kinds = ("generator", "divergence", "image")
    words = [loss_words(pd.DataFrame({f"loss_{name}": [1.0]})) for name in kinds]
    assert len(set(words)) == 3


def test_several_bands_without_features_and_morphology_are_drawn(tmp_path: Path) -> None:
    bands = ("g", "r", "i")
    folder = inputs.write_generation(tmp_path / "run", bands=bands, features=False)
    inputs.draw_galaxies(folder, tmp_path / "figures")
    for name in ("spectra", "morphology", "distances", "samples", "grids"):
        assert set(read_table(tmp_path / "figures" / f"{name}.csv")["field"]) == set(bands), name
    plain = inputs.write_generation(tmp_path / "plain", features=False, morphology=False)
    inputs.draw_galaxies(plain, tmp_path / "figures")
    note = read_table(tmp_path / "figures" / "morphology.csv")["note"].iloc[0]
    assert note == "Morphology was not measured."
    assert set(read_table(tmp_path / "figures" / "distances.csv")["statistic"]) == {"mean", "power"}
    rows = generated_scores("gan", folder)
    assert rows[0]["fid"] == "–"
    assert rows[0]["distance"].startswith("g 0.45 ± 0.03, r 0.45")


class TestRestored:
    def test_the_errors_of_the_example_are_those_of_its_images(
        self, drawn: dict[str, Path]
    ) -> None:
        rows = table(drawn["denoising"], "examples.csv").set_index(["case", "method"])
        assert set(rows.index.get_level_values(0)) == set(inputs.CASES)
        with h5py.File(drawn["denoising"] / "restored.h5") as file:
            made, truth = (file[f"both/{name}/image"][0] for name in ("wiener", "truth"))
        error = np.mean((SCALE.apply(made) - SCALE.apply(truth)).astype(float) ** 2)
        assert rows.loc[("both", "wiener"), "mse"] == pytest.approx(error, rel=1e-5)
        assert (rows.xs("truth", level="method")["mse"] == 0).all()

    def test_errors_hold_what_was_measured(self, drawn: dict[str, Path]) -> None:
        rows = table(drawn["denoising"], "errors.csv")
        assert set(rows["statistic"]) == {"mse", "flux_bias"}
        assert len(rows) == 2 * 3 * 4
        svg = labels(drawn["denoising"] / "figures" / "errors.svg")
        for words in ("as trained", "more noise", "Wiener filter", "as seen"):
            assert f"<!-- {words} -->" in svg, words

    def test_a_method_that_is_missing_is_named(self, own: dict[str, Path]) -> None:
        with h5py.File(own["denoising"] / "restored.h5", "r+") as file:
            del file["noise/wiener"]
        with pytest.raises(UserError, match=r"restored\.h5: expected images noise/wiener/image"):
            inputs.draw_restored(own["denoising"], own["denoising"] / "figures")

    def test_bands_beside_each_other(self, tmp_path: Path) -> None:
        folder = inputs.write_denoising(tmp_path / "run", bands=("g", "r"))
        inputs.draw_restored(folder, tmp_path / "figures")
        assert set(read_table(tmp_path / "figures" / "errors.csv")["field"]) == {"g", "r"}
        assert set(read_table(tmp_path / "figures" / "examples.csv")["field"]) == {"g"}
        caption = read.figures(tmp_path / "figures" / "figures.json")[0]["caption"]
        assert caption.endswith("The band g is shown, of g, r.")


class TestAlphas:
    def test_the_table_is_kept_and_the_number_of_networks_told(
        self, drawn: dict[str, Path]
    ) -> None:
        folder = drawn["alphas"]
        assert table(folder, "alphas.csv").equals(read_table(folder / "table.csv"))
        caption = read.figures(folder / "figures" / "figures.json")[0]["caption"]
        assert "Networks of each alpha: 3," in caption
        assert "standard errors from the scatter of such pairs" in caption
        assert "no scatter is known" not in caption
        svg = labels(folder / "figures" / "alphas.svg")
        for words in ("as trained", "larger pixels and more noise", "0.25"):
            assert f"<!-- {words} -->" in svg, words

    def test_of_one_network_each_nothing_is_claimed(self, tmp_path: Path) -> None:
        folder = inputs.write_alphas(tmp_path / "alphas", bands=("g", "r"), networks=1)
        draw_alphas(folder, tmp_path / "figures")
        caption = read.figures(tmp_path / "figures" / "figures.json")[0]["caption"]
        assert "no scatter is known" in caption
        assert "standard errors" not in caption


def test_scores_of_images_have_a_row_a_method(drawn: dict[str, Path]) -> None:
    rows = generated_scores("gan", drawn["generation"])
    assert [row["method"] for row in rows] == ["network", "other real images", "Gaussian images"]
    first = {key: rows[0][key] for key in ("fid", "kid", "precision", "recall", "distance")}
    assert first == {
        "fid": "6.00",
        "kid": "3.00 ± 0.20",
        "precision": "0.850",
        "recall": "0.750",
        "distance": "0.45 ± 0.03",
    }
    assert [row["copies"] for row in rows] == ["0.020 ± 0.010", "–", "0.020 ± 0.010"]
    assert {row["images"] for row in rows} == {"50"}
    assert {row["anchor"] for row in rows} == {"generation-gan"}


def test_scores_of_restored_images_have_a_row_a_condition(drawn: dict[str, Path]) -> None:
    rows = restored_scores("mixed", drawn["denoising"])
    assert [row["case"] for row in rows] == [
        "as trained",
        "larger pixels",
        "more noise",
        "larger pixels and more noise",
    ]
    last = rows[-1]
    assert (last["network"], last["wiener"], last["seen"]) == (
        "0.1 ± 0.01",
        "0.2 ± 0.02",
        "0.8 ± 0.08",
    )
    assert last["bias"] == "−20.00 ± 0.30 %"
    assert last["images"] == "20"
    assert last["anchor"] == "denoising-mixed"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "sersic",
            {
                "kind": "Sérsic images",
                "geometry": "1.6″, 16 × 16 pixels",
                "conditions": "no PSF added, no noise added",
            },
        ),
        (
            "stamps",
            {
                "kind": "images of galaxies",
                "geometry": "scaled to 16 × 16 pixels, in the files of 0.03″",
                "conditions": "stamps/gri.h5, bands g, r, i, Moffat PSF of 0.7″ FWHM, "
                "noise 0.02 nJy",
            },
        ),
    ],
)
def test_datasets_of_images_in_words(
    drawn: dict[str, Path], name: str, expected: dict[str, str]
) -> None:
    row = dataset_row("images", name, drawn["generation"] / "dataset", inputs.SETTINGS)
    assert {key: row[key] for key in expected} == expected
    assert row["patches"] == "40 images"
    assert row["split"] == "train 19, validation 1, test 20"
    assert row["anchor"] == "provenance"


def test_runs_on_images_in_words(drawn: dict[str, Path]) -> None:
    made = run_row("generation", "gan", drawn["generation"], inputs.SETTINGS)
    assert (made["inputs"], made["outputs"], made["dataset"]) == (
        "random numbers",
        "image",
        "sersic",
    )
    assert made["parameters"] == "25 123 456"
    restored = run_row("denoising", "mixed", drawn["denoising"], inputs.SETTINGS)
    assert restored["inputs"] == "image"
    assert restored["dataset"] == "sersic and images of gan (alpha 0.5)"
    assert restored["epochs"] == "12 of at most 100"


@pytest.fixture(scope="module")
def study(drawn: dict[str, Path]) -> dict[str, Any]:
    """What `build_report` takes."""
    return {
        "study": inputs.SETTINGS,
        "runs": [],
        "sky": [],
        "cmb": [],
        "generation": [("gan", drawn["generation"])],
        "denoising": [("mixed", drawn["denoising"])],
        "alphas": [("sersic", drawn["alphas"])],
        "images": [("sersic", drawn["generation"] / "dataset")],
        "versions": {"skyweave": "0.1.0"},
    }


@pytest.fixture(scope="module")
def page(study: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    build_report(path, **study)
    return path


class TestPage:
    def test_has_the_three_sections_with_their_figures(self, page: Path) -> None:
        html = page.read_text(encoding="utf-8")
        titles = re.findall(r"<h2>(.*?)</h2>", html)
        assert titles[1:-1] == [
            "Galaxies: generated images",
            "Galaxies: restored images",
            "What generated images buy",
        ]
        assert "<h3>Dataset sersic</h3>" in html
        assert html.count("<figure ") == 6 + 3 + 1

    def test_all_verdicts_count_those_of_the_comparison_too(
        self, page: Path, drawn: dict[str, Path]
    ) -> None:
        html = page.read_text(encoding="utf-8")
        assert sum(len(read_verdicts(drawn[kind] / "verdicts.json")) for kind in FILES) == 3
        assert "1 of 3 checks fail." in html
        links = set(re.findall(r'data-label="Of"><a href="#([^"]+)">([^<]+)</a>', html))
        assert links == {
            ("generation-gan", "Run gan"),
            ("denoising-mixed", "Run mixed"),
            ("alphas-sersic", "Dataset sersic"),
        }

    def test_the_overview_tells_scores_and_what_ran(self, page: Path) -> None:
        html = page.read_text(encoding="utf-8")
        for words in (
            "FID is too large for few images",
            "a network that learned from photographs",
            "the Wiener filter is told each",
            "3.00 ± 0.20",
            "−20.00 ± 0.30 %",
            "random numbers",
            "40 images",
            "1 dataset, 2 runs",
        ):
            assert words in html, words

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("generation", "verdicts.json"),
            ("generation", "metrics.csv"),
            ("generation", "card.json"),
            ("generation", "figures/samples.png"),
            ("denoising", "verdicts.json"),
            ("denoising", "history.csv"),
            ("denoising", "figures/errors.csv"),
            ("alphas", "verdicts.json"),
            ("alphas", "figures/figures.json"),
            ("images", "split.csv"),
        ],
    )
    def test_a_missing_input_is_named_and_no_page_is_left(
        self, study: dict[str, Any], tmp_path: Path, kind: str, name: str
    ) -> None:
        (title, folder) = study[kind][0]
        shutil.copytree(folder, tmp_path / kind)
        (tmp_path / kind / name).unlink()
        with pytest.raises(UserError, match=re.escape(Path(name).name)):
            build_report(tmp_path / "index.html", **study | {kind: [(title, tmp_path / kind)]})
        assert not (tmp_path / "index.html").exists()

    def test_same_inputs_give_the_same_page(
        self, page: Path, study: dict[str, Any], tmp_path: Path
    ) -> None:
        build_report(tmp_path / "again.html", **study)
        assert (tmp_path / "again.html").read_bytes() == page.read_bytes()

    @pytest.mark.skipif(not browser.installed(), reason="needs chromium")
    def test_is_whole_in_a_browser(self, page: Path) -> None:
        assert browser.check_page(page) == []
