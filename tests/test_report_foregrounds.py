"""Figures of foreground runs and of full skies: what is drawn, from what, and at the edges."""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import h5py
import healpy
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import AsinhNorm, LogNorm, Normalize
from matplotlib.image import imread

import report_inputs as inputs
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.report import foregrounds, full_sky, losses, mollweide, read, style
from skyweave.report.figures import draw_foregrounds
from skyweave.report.summary import small_scales
from skyweave.seeds import generator
from skyweave.sky.projection import from_plane, to_plane, unit_vector
from skyweave.sky.skymap import write_mask
from skyweave.statistics.minkowski import THRESHOLDS, functionals, scaled
from skyweave.statistics.tables import read_table, write_table

KINDS = {
    "foregrounds": (draw_foregrounds, foregrounds.FILES),
    "full_sky": (inputs.draw_made_sky, full_sky.FILES),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind with its figures, the full sky's of few pixels."""
    folder = inputs.write_full_sky(tmp_path_factory.mktemp("coarse") / "full_sky")
    with pytest.MonkeyPatch.context() as patch:
        _coarse(patch)
        inputs.draw_made_sky(folder, folder / "figures")
    return {**inputs.drawn(tmp_path_factory, "foregrounds"), "full_sky": folder}


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    _coarse(monkeypatch)


def _coarse(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(full_sky, "PLANE", 200)
    patch.setattr(full_sky, "ZOOM", PatchGrid(15.0, 24))


def copied(drawn: dict[str, Path], kind: str, folder: Path) -> Path:
    return Path(shutil.copytree(drawn[kind], folder, ignore=shutil.ignore_patterns("figures")))


def entry(folder: Path, file: str) -> dict[str, str]:
    (found,) = [one for one in read.figures(folder / "figures.json") if one["file"] == file]
    return found


def test_zooms_lie_inside_the_mask_and_far_apart() -> None:
    """With their margins, in a mask of high latitudes; a small field has room for one."""
    nside = 64
    lon, lat = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)
    inside = np.abs(lat) > 25
    found = full_sky.places(inside)
    assert len(found) == 3
    edge = np.radians(np.linspace(-10, 10, 41))
    for centre in found:
        for x, y in ((edge, edge[0]), (edge, edge[-1]), (edge[0], edge), (edge[-1], edge)):
            assert np.abs(from_plane(*centre, x, y)[1]).min() > 24
    vectors = unit_vector(*np.transpose(found))
    assert np.degrees(np.arccos((vectors @ vectors.T)[np.triu_indices(3, 1)])).min() >= 60
    # At its middle; and one is given where there is no field at all.
    apart = np.hypot(*to_plane(200.0, -55.0, lon, lat))
    ((x, y),) = full_sky.places(apart < np.radians(12))
    assert np.hypot(*to_plane(200.0, -55.0, np.array(x), np.array(y))) < np.radians(4)
    assert len(full_sky.places(np.zeros(inside.size, bool))) == 1


def test_a_zoom_reads_the_sky_with_east_to_the_left() -> None:
    """T is what lies there, and a pattern of constant angle in the zoom is constant in Q."""
    nside, lon, lat = 256, 40.0, 50.0
    lon_map, _ = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)
    sky = read.Stokes({"T": ((lon_map - lon + 180) % 360 - 180).astype("f4")}, "uK_CMB")
    east = full_sky._zoom(sky, nside, lon, lat)["T"]
    assert (np.diff(east.mean(axis=0)) <= 0).all()
    assert east[150, 150] == pytest.approx(0, abs=0.4)
    # Polarization along the meridians (Q > 0 in either convention): at the pole it turns.
    q = np.ones(lon_map.size, "f4")
    polarized = read.Stokes({"T": q, "Q": q, "U": 0 * q}, "uK_CMB")
    zoom = full_sky._zoom(polarized, nside, 0.0, 90.0)
    y, x = np.mgrid[:300, :300] - 149.5
    np.testing.assert_allclose(zoom["Q"], np.cos(2 * np.arctan2(x, y)), atol=1e-6)
    np.testing.assert_allclose(full_sky._zoom(polarized, nside, 0.0, 0.0)["Q"], 1, atol=5e-3)


def test_colours_of_what_was_added_are_symmetric_and_of_what_is_bright_logarithmic() -> None:
    rng = generator(11, "colours")
    values = rng.standard_normal(40_000)
    norm = full_sky._around_zero(np.append(values, [1e6, np.nan]))
    assert style.ends(norm) == pytest.approx((-2.81, 2.81), abs=0.06)  # erf⁻¹ of 0.995
    assert norm.linear_width == pytest.approx(0.6745, rel=0.03)
    assert norm(np.array([0.0])) == pytest.approx(0.5)
    ticks = full_sky._decades(AsinhNorm(linear_width=3, vmin=-2000, vmax=2000))
    assert ticks == [-1000, -100, -10, 0, 10, 100, 1000]
    wide, narrow = np.geomspace(1, 100, 999), np.linspace(50, 100, 999)
    assert isinstance(full_sky._zoom_norm(wide), LogNorm)
    assert type(full_sky._zoom_norm(narrow)) is Normalize
    np.testing.assert_array_equal(
        style.lifted(np.array([-1.0, 2, np.nan]), LogNorm(1, 9)), [1, 2, np.nan]
    )


def test_maps_show_what_the_files_hold(drawn: dict[str, Path]) -> None:
    """The spread over |large| is the share that was added; no pixel without data is coloured."""
    folder = drawn["full_sky"]
    sky, large = (read.stokes(folder / name) for name in ("sky_0.fits", "large.fits"))
    assert set(sky.maps) == {"T", "Q", "U"}
    assert np.isnan(sky.maps["T"][:220]).all()
    added = pd.read_csv(folder / "figures/difference.csv").set_index("map")
    difference = sky.maps["T"] - large.maps["T"]
    plane = mollweide.sample(difference, 200)
    limit = np.percentile(np.abs(plane[np.isfinite(plane)]), 99.5)
    assert added.loc["T", "colour_high"] == pytest.approx(limit)
    assert (added["colour_low"] == -added["colour_high"]).all()
    assert added["sky_share"].to_numpy() == pytest.approx(1 - 220 / 12288, abs=2e-3)
    spread = read_table(folder / "figures/spread.csv")
    assert list(spread["map"]) == ["T", "P"]
    # |N(0, 0.1)| of T.
    assert spread["colour_high"][0] == pytest.approx(0.281, rel=0.06)
    zooms = read_table(folder / "figures/zooms.csv")
    assert len(zooms) == 3 * 2 * 3
    scales = zooms[zooms["panel"] != "difference"].groupby(["lon", "lat", "map"])
    pd.testing.assert_series_equal(scales["colour_high"].min(), scales["colour_high"].max())


@pytest.mark.parametrize("kind", KINDS)
def test_each_figure_has_its_file_words_and_table(drawn: dict[str, Path], kind: str) -> None:
    folder = drawn[kind] / "figures"
    found = read.figures(folder / "figures.json")
    assert tuple(entry["file"] for entry in found) == KINDS[kind][1]
    for one in found:
        assert all(len(one[key]) > 20 for key in ("caption", "alt")), one["file"]
        assert len(read_table(folder / one["table"])) > 0
        image = folder / one["file"]
        if image.suffix == ".svg":
            assert ET.parse(image).getroot().tag.endswith("svg")
        else:
            assert imread(image)[..., :3].std() > 0.05
    tables = {one["table"] for one in found}
    assert {path.name for path in folder.iterdir()} == {"figures.json", *KINDS[kind][1], *tables}


def test_tables_hold_what_was_measured(drawn: dict[str, Path]) -> None:
    metrics, curves = (
        read_table(drawn["foregrounds"] / name) for name in ("metrics.csv", "curves.csv")
    )
    for name, table, statistics in (
        ("correlation", metrics, ["input_correlation"]),
        ("bispectrum", metrics, ["bispectrum_equilateral", "bispectrum_squeezed"]),
        ("minkowski", curves, ["v0", "v1", "v2"]),
        ("one_point", curves, ["one_point"]),
    ):
        found = read_table(drawn["foregrounds"] / "figures" / f"{name}.csv")
        wanted = table[table["statistic"].isin(statistics)].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, wanted)
    loss = read_table(drawn["foregrounds"] / "figures/loss.csv").set_index("epoch")
    assert loss.loc[15, "superposition_all"] == pytest.approx(0.79)
    assert np.isnan(loss.loc[16, "superposition_all"])


def test_one_scale_a_patch_and_nothing_outside_the_mask(drawn: dict[str, Path]) -> None:
    table = read_table(drawn["foregrounds"] / "figures/examples.csv")
    assert list(table["realization"].unique()) == [3, 21, 60]
    scales = table[table["map"] != "difference"].groupby("realization")["colour_high"]
    pd.testing.assert_series_equal(scales.min(), scales.max())
    with h5py.File(drawn["foregrounds"] / "predictions.h5") as file:
        made, truth, mask = (
            file[name][0] for name in ("prediction/high", "truth/high", "input/mask")
        )
    inside = (made - truth)[mask > 0]
    spread = table.query("realization == 3 and map == 'difference'")["standard_deviation"].item()
    assert spread == pytest.approx(inside.std(), rel=1e-5)
    assert spread != pytest.approx((made - truth).std(), rel=1e-3)


def test_the_curves_of_the_statistics_room_are_drawn(tmp_path: Path) -> None:
    maps = inputs.random_maps(generator(5, "curves"), 4, 24)
    curves = functionals(scaled(maps))
    rows = [
        {
            "field": field,
            "method": method,
            "statistic": f"v{number}",
            "threshold": threshold,
            "value": curves[:, number, place].mean(),
            "std": curves[:, number, place].std(),
        }
        for field in ("ratio", "high")
        for method in ("truth", "network", "gaussian")
        for number in range(3)
        for place, threshold in enumerate(THRESHOLDS)
    ]
    table = pd.DataFrame(rows)
    drawn = foregrounds.minkowski(table, tmp_path / "minkowski.svg")
    pd.testing.assert_frame_equal(drawn, table)


@pytest.mark.parametrize(("statistic", "words"), [("distance", "nearest"), ("epoch", "the last")])
def test_the_picked_epoch_is_marked_and_told(
    drawn: dict[str, Path], tmp_path: Path, statistic: str, words: str
) -> None:
    """With a panel of what epochs were compared by, unless the last was taken."""
    told = entry(drawn["foregrounds"] / "figures", "loss.svg")["caption"]
    assert "its Minkowski functionals overlap most" in told
    sweep = read_table(drawn["foregrounds"] / "sweep.csv").assign(statistic=statistic)
    history = read_table(drawn["foregrounds"] / "history.csv")
    write_table(tmp_path / "sweep.csv", sweep)
    assert losses.picked(tmp_path / "sweep.csv", history)[0] == 15
    assert words in losses.picked(tmp_path / "sweep.csv", history)[1]
    rows = losses.adversarial_loss(history, sweep, 15, tmp_path / "15.svg")
    assert ("distance_v1" in rows) == (statistic == "distance")
    losses.adversarial_loss(history, sweep, 20, tmp_path / "20.svg")
    assert (tmp_path / "15.svg").read_bytes() != (tmp_path / "20.svg").read_bytes()


def test_a_failed_network_is_drawn(drawn: dict[str, Path], tmp_path: Path) -> None:
    """Constant maps: no power, no errors; one patch, one epoch, and that without validation."""
    run = copied(drawn, "foregrounds", tmp_path / "run")
    with h5py.File(run / "predictions.h5", "a") as file:
        for name in ("input/low", "input/mask", "truth/high", "prediction/high", "baseline/high"):
            one = file[name][:1]
            del file[name]
            file[name] = 0 * one if name == "prediction/high" else one
        del file["realizations"]
        file["realizations"] = [3]
    for name in ("metrics.csv", "curves.csv"):
        table = read_table(run / name).assign(error=np.nan)
        table.loc[table["method"] == "network", "value"] = np.nan
        write_table(run / name, table)
    write_table(run / "nearest.csv", read_table(run / "nearest.csv").iloc[[0, 24]])
    history = read_table(run / "history.csv").head(1).assign(val_loss=np.nan)
    write_table(run / "history.csv", history)
    write_table(run / "sweep.csv", read_table(run / "sweep.csv").head(1).assign(epoch=1, picked=1))
    draw_foregrounds(run, tmp_path / "figures")
    assert len(read.figures(tmp_path / "figures/figures.json")) == len(foregrounds.FILES)
    assert "One patch" in entry(tmp_path / "figures", "examples.png")["caption"]


@pytest.mark.usefixtures("coarse")
def test_figures_are_those_that_the_files_allow(drawn: dict[str, Path], tmp_path: Path) -> None:
    """All of a polarized sky of two realizations; fewer of one of T alone, a cap of it at that."""
    found = read.figures(drawn["full_sky"] / "figures/figures.json")
    assert tuple(one["file"] for one in found) == full_sky.FILES
    assert "Q is that of" in entry(drawn["full_sky"] / "figures", "zooms.png")["caption"]
    spectra = read_table(drawn["full_sky"] / "figures/spectra.csv")
    assert set(spectra["field"]) == {"tt", "ee", "bb", "bb_over_ee"}

    folder, out = inputs.write_full_sky(tmp_path / "sky", False, 1, nside=16), tmp_path / "figures"
    large = read.stokes(folder / "large.fits").maps["T"]
    _, lat = healpy.pix2ang(16, np.arange(large.size), lonlat=True)
    for name in ("sky_0.fits", "large.fits"):
        inputs._healpix(folder / name, [np.where(lat < -35, large, np.nan)])
    write_mask(folder / "mask.fits", np.ones(large.size, bool))
    table = read_table(folder / "spectra.csv")
    write_table(folder / "spectra.csv", pd.concat([table, table.assign(field="bb", value=np.inf)]))
    scatter = inputs._full_sky_realizations(False).query("statistic == 'spread'")
    write_table(folder / "realizations.csv", scatter)
    inputs.draw_made_sky(folder, out)
    files = [one["file"] for one in read.figures(out / "figures.json")]
    assert files == [name for name in full_sky.FILES if name != "spread.png"]
    assert "Q" not in entry(out, "zooms.png")["caption"]
    assert set(read_table(out / "spectra.csv")["field"]) == {"tt"}
    assert (read_table(out / "zooms.csv")["lat"] < -35).all()
    maps = read_table(out / "map.csv")
    assert list(maps["map"]) == ["T"]
    assert maps["sky_share"].item() == pytest.approx(np.mean(lat < -35), abs=0.02)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *[("foregrounds", name) for name in ("predictions.h5", "metrics.csv", "curves.csv")],
        *[("foregrounds", name) for name in ("nearest.csv", "history.csv", "sweep.csv")],
        *[("full_sky", name) for name in ("sky_0.fits", "large.fits", "mask.fits", "spectra.csv")],
    ],
)
@pytest.mark.parametrize("content", [None, b"not what it should be\n"])
@pytest.mark.usefixtures("coarse")
def test_a_missing_or_broken_input_is_named(
    drawn: dict[str, Path], tmp_path: Path, kind: str, name: str, content: bytes | None
) -> None:
    folder = copied(drawn, kind, tmp_path / kind)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        KINDS[kind][0](folder, tmp_path / "figures")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("file", "column", "name"),
    [
        ("metrics.csv", "statistic", "cl_p50"),
        ("metrics.csv", "statistic", "bispectrum_squeezed"),
        ("metrics.csv", "method", "gaussian"),
        ("curves.csv", "statistic", "one_point"),
        ("curves.csv", "field", "ratio"),
        ("nearest.csv", "method", "truth"),
    ],
)
def test_rows_that_are_missing_are_named(
    drawn: dict[str, Path], tmp_path: Path, file: str, column: str, name: str
) -> None:
    run = copied(drawn, "foregrounds", tmp_path / "run")
    table = read_table(run / file)
    write_table(run / file, table[table[column] != name])
    with pytest.raises(UserError, match=rf"{file}: expected rows of the {column} '{name}'"):
        draw_foregrounds(run, tmp_path / "figures")


@pytest.mark.parametrize("nside", [8, 64])
@pytest.mark.usefixtures("coarse")
def test_the_mask_may_have_another_nside_than_the_sky(
    monkeypatch: pytest.MonkeyPatch, drawn: dict[str, Path], tmp_path: Path, nside: int
) -> None:
    folder = copied(drawn, "full_sky", tmp_path / "sky")
    inside = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)[1] > 15
    write_mask(folder / "mask.fits", inside)
    seen = []

    def full_maps(sky, mask, path):
        seen.append(mask)
        return draw(sky, mask, path)

    draw = full_sky.full_maps
    monkeypatch.setattr(full_sky, "full_maps", full_maps)
    out = tmp_path / "figures"
    inputs.draw_made_sky(folder, out)
    assert {one["file"] for one in read.figures(out / "figures.json")} == set(full_sky.FILES)
    assert (read_table(out / "zooms.csv")["lat"] > 15).all()
    (mask,) = seen
    assert mask.size == 12 * 32**2
    lat = healpy.pix2ang(32, np.arange(mask.size), lonlat=True)[1]
    apart = np.degrees(healpy.nside2resol(min(nside, 32)))
    assert mask[lat > 15 + apart].all()
    assert not mask[lat < 15 - apart].any()
    kept = float(entry(out, "map.png")["caption"].split("keeps ")[1].split(" %")[0])
    assert kept == pytest.approx(100 * inside.mean(), abs=1.5)


@pytest.mark.usefixtures("coarse")
def test_maps_that_do_not_fit_are_named(drawn: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(drawn, "full_sky", tmp_path / "sky")
    small = inputs.write_full_sky(tmp_path / "small", True, 1, nside=8)
    plain = inputs.write_full_sky(tmp_path / "plain", False, 1)
    for source, words in ((small, "found T Q U of 768 pixels"), (plain, "found T of 12288")):
        shutil.copy(source / "large.fits", folder)
        with pytest.raises(UserError, match=rf"large\.fits: .*{words}"):
            inputs.draw_made_sky(folder, tmp_path / "figures")
    shutil.copy(drawn["full_sky"] / "large.fits", folder)
    shutil.copy(folder / "large.fits", folder / "mask.fits")
    with pytest.raises(UserError, match=r"mask\.fits: expected a mask of zeros and ones, found"):
        inputs.draw_made_sky(folder, tmp_path / "figures")
    healpy.write_map(folder / "sky_0.fits", [np.zeros(768)] * 2, overwrite=True)
    with pytest.raises(UserError, match=r"sky_0\.fits: expected the columns T, or T, Q and U"):
        inputs.draw_made_sky(folder, tmp_path / "figures")


def test_scores_say_what_is_better_and_what_the_truth_reaches(drawn: dict[str, Path]) -> None:
    rows = small_scales("forse", drawn["foregrounds"])
    assert len(rows) == 2 * 6 + 5
    overlap, distance = rows[0], rows[1]
    assert (overlap["statistic"], overlap["better"]) == ("overlap of V₀, area", "larger")
    assert (overlap["network"], overlap["gaussian"]) == ("0.81 ± 0.04", "0.52 ± 0.05")
    assert overlap["ceiling"] == "0.9 (97.5 % above 0.84)"
    assert (distance["better"], distance["ceiling"]) == ("smaller", "–")
    by_name = {row["statistic"]: row for row in rows}
    assert by_name["correlation of input and output"]["gaussian"] == "–"
    assert by_name["bispectrum, squeezed"]["network"] == "0.00035 ± 3.5e−05"
