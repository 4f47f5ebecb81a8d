"""The task: what is predicted is written, read back, judged and calibrated."""

from typing import ClassVar

import h5py
import numpy as np
import pandas as pd
import pytest

from skyweave.config import Network
from skyweave.data.normalization import Normalization
from skyweave.data.predictions import Predictions, write_predictions
from skyweave.data.shards import write_shard
from skyweave.errors import UserError
from skyweave.estimators.analytic_eb import analytic_eb
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.networks.card import Card, load_network, predict, save_network
from skyweave.networks.registry import build
from skyweave.seeds import generator
from skyweave.statistics.reconstruction import COLUMNS, correlation_gain
from skyweave.statistics.tables import read_table, write_table
from skyweave.tasks.calibration import CURVES, calibrate_run
from skyweave.tasks.reconstruction import evaluate_run, predict_run
from skyweave.tasks.reconstruction_verdicts import significance
from skyweave.training import runtime

GRID = PatchGrid(5.0, 32)
TAPER = cosine_taper(GRID, 1.5)
CL = 1e-3 * (GRID.ell + 300.0) ** -2
UNITS = {"kappa": "", "e_prim": "uK_CMB"}


def gaussian(count, cl, *identity):
    white = generator(3, *identity).standard_normal((count, GRID.pixels, GRID.pixels))
    return inverse(forward(white, GRID) * np.sqrt(cl / GRID.pixel_rad**2), GRID) * TAPER


def write(path, part, count=120, amplitude=1.0, sigma=1.0):
    """A network that gives the posterior mean of kappa, and a poorer estimate; E without errors."""
    groups = {"truth": {}, "prediction": {}, "estimates/quadratic": {}, "estimates/wiener": {}}
    for field, method in (("kappa", "quadratic"), ("e_prim", "wiener")):
        mean = gaussian(count, 3 * CL, part, field, "mean")
        residual = gaussian(count, CL, part, field, "residual")
        groups["truth"][field] = mean + residual
        groups["prediction"][field] = amplitude * mean
        worse = mean + gaussian(count, CL, part, field, "worse")
        groups[f"estimates/{method}"][field] = worse
    null = np.arange(count) % 6 == 0
    # The residual is then as large as elsewhere.
    groups["prediction"]["kappa"][null] -= groups["truth"]["kappa"][null]
    groups["truth"]["kappa"][null] = 0
    deviation = np.sqrt(np.mean(residual**2, axis=0))
    seen = np.broadcast_to(np.where(TAPER > 0, deviation, 1), mean.shape)
    groups["sigma"] = {"kappa": sigma * seen}
    write_predictions(
        path, groups, realizations=np.arange(count), units=UNITS, size_deg=5.0, taper_deg=1.5
    )
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictions")
    return write(folder / "test.h5", "test"), write(folder / "validation.h5", "validation")


@pytest.fixture(scope="module")
def evaluated(files):
    return evaluate_run(files[0], name="run", validation=files[1])


@pytest.fixture(scope="module")
def calibrated(files):
    return calibrate_run(files[0], name="run", validation=files[1])


def judged(verdicts, *words):
    """The one verdict whose check holds all words."""
    (found,) = [v for v in verdicts if all(word in v["check"] for word in words)]
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Ten realizations of white noise."""
    folder = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(2)
    write_shard(
        folder / "0.h5",
        {name: rng.standard_normal((10, 16, 16)) for name in TestPredictRun.fields},
        realizations=range(10),
        size_deg=5.0,
        units=TestPredictRun.units,
        provenance={"settings": {"effects": {"taper_deg": 1.0}}},
    )
    parts = ["train"] * 3 + ["validation"] * 3 + ["test"] * 4
    write_table(folder / "split.csv", pd.DataFrame({"realization": range(10), "split": parts}))
    return {"shards": [folder / "0.h5"], "split": folder / "split.csv"}


class TestPredictRun:
    fields = ("q_obs", "u_obs", "e_prim", "kappa")
    units: ClassVar = {"q_obs": "uK_CMB", "u_obs": "uK_CMB", "e_prim": "uK_CMB", "kappa": ""}

    def network(self, folder, **settings):
        inputs, outputs = self.fields[:2], self.fields[2:]
        network = Network(width=0.0625, **settings)
        card = Card(
            inputs=inputs,
            outputs=outputs,
            units=self.units,
            normalization=Normalization(dict.fromkeys(self.fields, (0.0, 1.0))),
            size_deg=5.0,
            pixels=16,
            seed=1,
            settings={"network": network.model_dump(mode="json")},
        )
        save_network(folder, build(network, 16, inputs, outputs, 1), card)
        return folder / "network.keras"

    @pytest.fixture(autouse=True)
    def threads(self, monkeypatch):
        """The threads that the tests' process has: they are set once."""
        monkeypatch.setattr(runtime, "prepare", lambda seed, threads, settings=None: None)

    @pytest.mark.parametrize(
        ("part", "numbers"), [("test", [6, 7, 8, 9]), ("validation", [3, 4, 5])]
    )
    def test_a_part_is_written_with_truth_and_estimates(self, dataset, tmp_path, part, numbers):
        path = self.network(tmp_path)
        predict_run(path, **dataset, out=tmp_path / "p.h5", threads=1, part=part)
        with h5py.File(dataset["shards"][0]) as shard, h5py.File(tmp_path / "p.h5") as file:
            assert set(file) == {"realizations", "input", "truth", "prediction", "estimates"}
            assert file["realizations"][:].tolist() == numbers
            assert dict(file.attrs) == {"size_deg": 5.0, "taper_deg": 1.0}
            maps = {name: shard[name][numbers] for name in self.fields}
            found = predict(load_network(tmp_path), maps)
            for field in ("e_prim", "kappa"):
                np.testing.assert_array_equal(file["truth"][field], maps[field])
                np.testing.assert_array_equal(file["prediction"][field], found[field])
                assert file["prediction"][field].attrs["unit"] == self.units[field]
            e = analytic_eb(maps["q_obs"], maps["u_obs"], PatchGrid(5.0, 16))[0]
            np.testing.assert_allclose(file["estimates/analytic_eb/e_prim"], e, atol=1e-6)
            assert list(file["estimates/analytic_eb"]) == ["e_prim"]

    def test_predicted_errors_lie_beside(self, dataset, tmp_path):
        path = self.network(tmp_path, uncertainty=True)
        predict_run(load_network(path.parent), **dataset, out=tmp_path / "p.h5", threads=1)
        with h5py.File(tmp_path / "p.h5") as file:
            assert set(file["sigma"]) == {"e_prim", "kappa"}
            assert (file["sigma/kappa"][:] > 0).all()
            assert file["sigma/e_prim"].attrs["unit"] == "uK_CMB"


class TestEvaluateRun:
    def test_each_field_has_the_metrics_of_each_method(self, evaluated):
        metrics, _ = evaluated
        assert tuple(metrics.columns) == COLUMNS
        assert not metrics.duplicated(["field", "method", "statistic", "ell"]).any()
        methods = metrics.groupby("field")["method"].unique().map(set).to_dict()
        assert methods == {"kappa": {"network", "quadratic"}, "e_prim": {"network", "wiener"}}
        for statistic in ("correlation", "spectrum_bias", "spectrum_amplitude"):
            for field, names in methods.items():
                rows = metrics[(metrics.field == field) & (metrics.statistic == statistic)]
                assert set(rows.method) == names

    def test_the_better_network_wins_in_every_band(self, evaluated, files):
        _, verdicts = evaluated
        with h5py.File(files[0]) as file:
            maps = [file[f"{group}/kappa"][:] for group in ("prediction", "estimates/quadratic")]
            gain, error = correlation_gain(*maps, file["truth/kappa"][:])
        found = judged(verdicts, "kappa", "gain in pixel correlation over quadratic estimator")
        assert found["value"] == pytest.approx(gain / error)
        assert found["passed"]
        lost = judged(verdicts, "e_prim", "bands below ell 2000", "Wiener filter")
        assert lost["value"] == 0
        assert lost["passed"]

    def test_a_network_that_is_worse_loses_bands_and_says_where(self, files, tmp_path):
        with h5py.File(files[0]) as file, h5py.File(tmp_path / "worse.h5", "w") as worse:
            for name in (*file,):
                file.copy(name, worse)
            worse.attrs.update(file.attrs)
            low = inverse(forward(file["prediction/kappa"][:], GRID) * (GRID.ell > 400), GRID)
            worse["prediction/kappa"][:] = low
        _, verdicts = evaluate_run(tmp_path / "worse.h5", name="run")
        lost = judged(verdicts, "kappa", "bands below ell 2000", "quadratic estimator")
        assert not lost["passed"]
        assert lost["value"] >= 2
        assert lost["note"].startswith("at ell 1")
        assert not [v for v in verdicts if "debiased" in v["check"]], "no validation set"

    def test_the_debiased_spectrum_is_the_truths(self, evaluated):
        found = judged(evaluated[1], "kappa: bias of the debiased spectrum")
        assert found["passed"]
        assert "detected with" in found["note"]

    def test_an_amplitude_that_is_not_known_fails_in_words(self, files, tmp_path):
        paths = []
        for path in files:
            paths.append(tmp_path / path.name)
            with h5py.File(path) as file, h5py.File(paths[-1], "w") as empty:
                for name in (*file,):
                    file.copy(name, empty)
                empty.attrs.update(file.attrs)
                empty["prediction/kappa"][:] = 0
        _, verdicts = evaluate_run(paths[0], name="run", validation=paths[1])
        found = judged(verdicts, "kappa: bias of the debiased spectrum")
        assert found["value"] is None
        assert not found["passed"]
        assert "in any band" in found["note"]

    def test_files_that_do_not_match_are_named(self, files, tmp_path):
        with pytest.raises(UserError, match=r"none\.h5: expected a file of predictions"):
            evaluate_run(tmp_path / "none.h5", name="run")
        with h5py.File(files[1]) as file, h5py.File(tmp_path / "few.h5", "w") as few:
            for name in ("truth", "prediction"):
                file.copy(name, few)
            few.attrs.update(file.attrs)
        with pytest.raises(UserError, match=r"few\.h5: expected the methods for e_prim of"):
            evaluate_run(files[0], name="run", validation=tmp_path / "few.h5")
        with h5py.File(tmp_path / "few.h5", "a") as few:
            del few["prediction/kappa"]
        with pytest.raises(UserError, match="the same fields in truth and prediction"):
            Predictions(tmp_path / "few.h5")


class TestCalibrateRun:
    def test_a_right_posterior_passes(self, calibrated):
        rows, curves, verdicts = calibrated
        assert tuple(rows.columns) == COLUMNS
        assert tuple(curves.columns) == CURVES
        assert [v["check"] for v in verdicts if not v["passed"]] == []
        # E's errors are not predicted.
        assert len(verdicts) == 4
        assert len(curves.groupby(["field", "method", "posterior"])) == 8
        pixels = rows[rows.ell.isna() & rows.statistic.str.startswith("coverage")]
        assert set(pixels.field) == {"kappa"}
        assert (pixels.n == 120).all()
        assert (rows[rows.ell.notna() & (rows.field == "kappa")].n == 100).all()

    def test_a_wrong_amplitude_is_told_from_wrong_errors(self, tmp_path):
        parts = ("test", "validation")
        paths = [write(tmp_path / f"{part}.h5", part, amplitude=0.7) for part in parts]
        rows, _, verdicts = calibrate_run(paths[0], name="run", validation=paths[1])
        found = judged(verdicts, "e_prim", "random points")
        assert not found["passed"]
        values = rows[(rows.field == "e_prim") & (rows.method == "network")]
        values = values.set_index("statistic")["value"]
        assert values["tarp_deviation"] > 0.3
        assert values["tarp_deviation_regressed"] < 0.15
        assert values["tarp_p_value"] < 1e-4 < values["tarp_p_value_regressed"]

    def test_errors_of_pixels_that_are_too_small_fail(self, files, tmp_path):
        path = write(tmp_path / "small.h5", "test", sigma=1 / 1.5)
        _, _, verdicts = calibrate_run(path, name="run", validation=files[1])
        failed = [v["check"] for v in verdicts if not v["passed"]]
        assert failed == [
            f"kappa: share of pixels in their {level} % interval, off by" for level in (68, 95)
        ]

    def test_the_tables_come_back_as_they_were(self, calibrated, tmp_path):
        for frame in calibrated[:2]:
            write_table(tmp_path / "table.csv", frame)
            pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), frame)

    def test_a_lone_patch_gives_no_curve_and_no_verdict(self, tmp_path):
        paths = [write(tmp_path / f"{part}.h5", part, count=1) for part in ("test", "validation")]
        _, curves, verdicts = calibrate_run(paths[0], name="run", validation=paths[1])
        assert curves.empty
        assert list(curves.columns) == list(CURVES)
        assert not [v for v in verdicts if "TARP" in v["check"]]


def test_nothing_is_significant_without_an_error():
    assert significance(3.0, 1.5) == 2
    assert np.isnan(significance(0.0, 0.0))
    assert np.isnan(significance(1.0, float("nan")))
