"""A run that fills holes is judged: files of known maps in, tables and verdicts out."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from skyweave.config.inpainting import InpaintingRun
from skyweave.data.predictions import Predictions, write_predictions
from skyweave.errors import UserError
from skyweave.estimators.spectral_index import COLUMNS
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.seeds import generator
from skyweave.statistics.tables import read_table, write_table
from skyweave.tasks.inpainting_scores import METRICS, PROFILES, evaluate_run
from skyweave.tasks.inpainting_verdicts import index_verdicts, inpainting_verdicts

GRID = PatchGrid(5.0, 32)
CL = 1e3 * (GRID.ell + 300.0) ** -2
SIGMA = np.sqrt(np.sum(GRID.mode_weight * CL) / GRID.area_sr)
RUN = InpaintingRun(task="inpainting", dataset="sky")
COUNT = 24

#: What filling of a case is like: white noise that is added, in units of the field's rms.
LEVELS = {
    "prediction": 0.102,
    "estimates/diffusive": 0.2,
    "estimates/constrained": 0.1,
    "estimates/realization": 0.02,
    "estimates/sampled": 0.02,
}
METHODS = {"network", "diffusive", "constrained", "realization", "sampled"}


def sky(*identity):
    white = generator(8, *identity).standard_normal((COUNT, GRID.pixels, GRID.pixels))
    return inverse(forward(white, GRID) * np.sqrt(CL / GRID.pixel_rad**2), GRID)


def hole(case, count=COUNT):
    y, x = np.indices((GRID.pixels, GRID.pixels))
    if case == "holes":
        rng = generator(1, "holes")
        centres = rng.uniform(5, 27, (count, 2, 1, 1))
        return np.hypot(y - centres[:, 0], x - centres[:, 1]) < 4
    disc = np.hypot(y - 15.5, x - 15.5) <= float(case.partition("_")[2])
    return np.broadcast_to(disc, (count, *disc.shape))


def write(folder, case, levels=LEVELS, *, lost=(), fields=("t_obs",)):
    """Predictions of a case in which the true maps get noise in holes."""
    holes = hole(case)
    groups = {"seen": {"seen": ~holes}, "truth": {}, "raw": {}}
    for field in fields:
        truth = np.float32(sky(case, field))
        groups["truth"][field] = truth
        noise = generator(2, case, field, "raw").standard_normal(truth.shape)
        groups["raw"][field] = truth + 0.1 * SIGMA * noise
        for group, level in levels.items():
            noise = generator(2, case, field, group).standard_normal(truth.shape)
            filled = np.where(holes, truth + level * SIGMA * noise, truth)
            groups.setdefault(group, {})[field] = filled
    path = folder / f"{case}.h5"
    write_predictions(
        path,
        {name: of for name, of in groups.items() if name not in lost},
        realizations=np.arange(COUNT),
        units={"seen": "", **dict.fromkeys(fields, "uK_CMB")},
        size_deg=GRID.size_deg,
        taper_deg=0.0,
    )
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inpainted")
    return {case: write(folder, case) for case in ("holes", "radius_3", "radius_10")}


@pytest.fixture(scope="module")
def evaluated(files):
    return evaluate_run(files, RUN, name="pconv")


def value(metrics, case, method, statistic):
    rows = metrics[(metrics.case == case) & (metrics.method == method)]
    return rows.loc[rows.statistic == statistic, "value"].item()


def shift(*values, error=0.002, method="sampled", case="holes"):
    """Rows of an index from filled maps, as `index_metrics` has them: shifts of classes and all."""
    names = {"run": "r", "split": "test", "field": "t_obs", "case": case, "ell": np.nan}
    errors = np.broadcast_to(error, len(values))
    rows = [
        {"statistic": f"class_shift_{ns:g}", "value": value, "error": of, "n": 50}
        for ns, value, of in zip((0.85, 0.95, 1.05), values, errors, strict=False)
    ]
    whole = {"statistic": "estimate_shift", "value": np.mean(values), "error": 0.001}
    rows.append(whole | {"n": 50 * len(values)})
    return pd.DataFrame(rows).assign(method=method, **names)[list(COLUMNS)]


def judged(verdicts, *words):
    """The one verdict whose check holds all words."""
    (found,) = [one for one in verdicts if all(word in one["check"] for word in words)]
    return found


class TestTables:
    def test_columns_methods_and_cases(self, evaluated, files):
        metrics, profiles, _ = evaluated
        assert tuple(metrics.columns) == METRICS
        assert tuple(profiles.columns) == PROFILES
        for rows in metrics, profiles:
            assert set(rows.case) == set(files)
            assert set(rows.run) == {"pconv"}
            assert set(rows.split) == {"test"}
            assert set(rows.field) == {"t_obs"}
            assert rows["value"].notna().all()
            keys = ["field", "method", "case", "statistic", "ell" if rows is metrics else "x"]
            assert not rows.duplicated(keys).any()
        assert set(metrics.method) == METHODS | {"truth", "raw", "masked"}
        assert set(profiles.method) == METHODS | {"truth"}
        assert set(profiles.statistic) == {"density", "edge_correlation", "v0", "v1", "v2"}

    def test_tables_are_read_back_as_they_were_written(self, evaluated, tmp_path):
        for rows in evaluated[:2]:
            write_table(tmp_path / "table.csv", rows)
            pd.testing.assert_frame_equal(
                read_table(tmp_path / "table.csv"), rows, check_dtype=False
            )

    def test_area_and_rms_are_those_of_the_maps(self, evaluated):
        metrics = evaluated[0]
        for case in ("holes", "radius_3"):
            assert value(metrics, case, "truth", "area") == pytest.approx(hole(case).mean())
            rms = np.float32(sky(case, "t_obs")).std()
            assert value(metrics, case, "truth", "field_rms") == pytest.approx(rms, rel=1e-5)

    def test_known_noise_is_found(self, evaluated):
        metrics = evaluated[0]
        rms = value(metrics, "radius_10", "truth", "field_rms")
        for group, level in LEVELS.items():
            method = group.partition("/")[2] or "network"
            found = value(metrics, "radius_10", method, "error_rms_hole")
            assert found == pytest.approx(level * SIGMA / rms, rel=0.03)
            ratio = value(metrics, "radius_10", method, "error_ratio")
            assert ratio == pytest.approx(level / 0.1, rel=0.04)
        assert value(metrics, "radius_10", "raw", "error_rms_valid") == pytest.approx(
            0.1 * SIGMA / rms, rel=0.03
        )
        assert value(metrics, "radius_10", "network", "error_ratio_diffusive") == pytest.approx(
            0.51, rel=0.04
        )

    def test_namaster_decouples_a_few_patches_where_holes_differ_and_else_all(self, evaluated):
        rows = evaluated[0]
        rows = rows[rows.statistic == "power_ratio_namaster"]
        assert set(rows.method) == {"masked"}
        assert rows.groupby("case").n.unique().map(list).to_dict() == {
            "holes": [16],
            "radius_3": [24],
            "radius_10": [24],
        }

    def test_a_file_without_estimates_is_judged_by_itself(self, tmp_path):
        path = write(tmp_path, "radius_3", {"prediction": 0.1})
        metrics, _, verdicts = evaluate_run({"radius_3": path}, RUN, name="alone")
        assert set(metrics.method) == {"network", "truth", "raw", "masked"}
        assert "error_ratio" not in set(metrics.statistic)
        (only,) = verdicts
        assert "seen" in only["check"]

    def test_each_field_is_judged(self, tmp_path):
        run = InpaintingRun(task="inpainting", dataset="sky", fields=("q_obs", "u_obs"))
        path = write(tmp_path, "radius_3", fields=("q_obs", "u_obs"))
        metrics, profiles, verdicts = evaluate_run({"radius_3": path}, run, name="polarized")
        for rows in metrics, profiles:
            assert 2 * (rows.field == "q_obs").sum() == len(rows)
            assert set(rows.field) == {"q_obs", "u_obs"}
        checks = [one["check"] for one in verdicts]
        assert len(set(checks)) == len(checks)
        assert sum(check.startswith("q_obs") for check in checks) == len(checks) / 2

    def test_rows_of_a_spectral_index_are_judged_and_kept(self, files):
        index = shift(0.001, case="radius_3")
        found, _, verdicts = evaluate_run(
            {"radius_3": files["radius_3"]}, RUN, name="r", index=index
        )
        pd.testing.assert_frame_equal(
            found.iloc[-2:].reset_index(drop=True)[sorted(METRICS)], index[sorted(METRICS)]
        )
        assert judged(verdicts, "t_obs, radius 3 px", "spectral index")["passed"]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"lost": ("seen",)}, "expected maps seen/seen, found none"),
            ({"lost": ("raw",)}, "expected maps raw/t_obs, found none"),
            ({"lost": ("truth",)}, "the same fields in truth and prediction"),
            ({"fields": ("q_obs",)}, "expected fields t_obs, found q_obs"),
        ],
    )
    def test_files_that_lack_something_are_refused(self, tmp_path, settings, message):
        path = write(tmp_path, "radius_3", **settings)
        with pytest.raises(UserError, match=message):
            evaluate_run({"radius_3": path}, RUN, name="broken")


class TestVerdicts:
    def test_good_maps_pass(self, evaluated):
        verdicts = evaluated[2]
        assert [one["check"] for one in verdicts if not one["passed"]] == []
        # 3 of what was seen, 2 of discs, 3 against diffusive filling; by 2 methods, 2 of power in
        # small holes (holes, radius_3); 3 of deviations and 3 of their control.
        assert len(verdicts) == 3 + 2 + 3 + 2 * 2 + 3 + 3
        found = judged(verdicts, "radius 10 px", "constrained mean")
        assert found["value"] == pytest.approx(1.02, abs=0.03)
        assert "±" in found["note"]
        assert "24 patches" in found["note"]
        note = judged(verdicts, "radius 3 px", "deviation", "fluctuations")["note"]
        assert "±" in note
        assert "of the network alone" in note

    def test_poor_maps_fail_where_they_are_poor(self, tmp_path):
        levels = LEVELS | {"prediction": 0.25, "estimates/sampled": 0.6}
        case = "radius_3"
        *_, verdicts = evaluate_run({case: write(tmp_path, case, levels)}, RUN, name="poor")
        failed = {one["check"] for one in verdicts if not one["passed"]}
        expected = [
            ("constrained mean",),
            ("diffusive filling",),
            ("power", "with fluctuations"),
            ("deviation", "with fluctuations"),
        ]
        assert failed == {judged(verdicts, *words)["check"] for words in expected}

    def test_deviations_are_compared_on_the_same_patches(self, evaluated, files):
        metrics, _, verdicts = evaluated
        rows = metrics[metrics.statistic == "std_ratio_realization"]
        assert set(rows.method) == {"sampled"}
        holes = hole("radius_10")
        found = Predictions(files["radius_10"])
        drawn, control = (
            found.estimate("t_obs", method)[holes].std(dtype=float)
            for method in ("sampled", "realization")
        )
        (row,) = rows[rows.case == "radius_10"].itertuples()
        assert row.value == pytest.approx(drawn / control, rel=1e-5)
        one = judged(verdicts, "radius 10 px", "deviation", "fluctuations")
        assert one["value"] == pytest.approx(abs(row.value - 1))
        assert one["note"].startswith(f"{row.value:.4f} ± {row.error:.4f}, 24 patches")

    def test_a_control_from_another_covariance_fails(self, tmp_path):
        """Too wide: so much that the sampled maps, which are too, still follow it."""
        levels = LEVELS | {"estimates/sampled": 0.6, "estimates/realization": 0.6}
        path = write(tmp_path, "radius_10", levels)
        *_, verdicts = evaluate_run({"radius_10": path}, RUN, name="wide")
        assert judged(verdicts, "deviation", "fluctuations")["passed"]
        control = judged(verdicts, "deviation", "control")
        assert not control["passed"]
        assert control["unit"] == "standard errors"

    @pytest.mark.parametrize(("value", "passed"), [(1.034, True), (0.966, True), (0.964, False)])
    def test_the_control_may_be_three_and_a_half_errors_off(self, evaluated, value, passed):
        metrics = evaluated[0].copy()
        rows = (metrics.statistic == "std_ratio") & (metrics.method == "realization")
        metrics.loc[rows & (metrics.case == "holes"), ["value", "error"]] = value, 0.01
        verdicts = inpainting_verdicts(metrics)
        assert judged(verdicts, ", holes", "deviation", "control")["passed"] is passed

    @pytest.mark.parametrize("method", ["network", "sampled"])
    def test_one_pixel_that_changed_fails(self, evaluated, method):
        metrics = evaluated[0].copy()
        rows = (metrics.statistic == "seen_change_max") & (metrics.case == "holes")
        metrics.loc[rows & (metrics.method == method), "value"] = 1e-7
        verdicts = inpainting_verdicts(metrics)
        assert not judged(verdicts, "holes", "seen")["passed"]
        assert judged(verdicts, "radius 3 px", "seen")["passed"]

    def test_what_the_network_makes_of_seen_pixels_before_they_are_copied_is_not_judged(
        self, evaluated
    ):
        assert value(evaluated[0], "holes", "raw", "seen_change_max") > 0
        assert judged(evaluated[2], "holes", "seen")["passed"]

    def test_discs_beyond_25_pixels_need_not_reach_the_optimum(self, evaluated):
        metrics = evaluated[0].replace(
            {"case": {"radius_3": "radius_25", "radius_10": "radius_35"}}
        )
        checks = [one["check"] for one in inpainting_verdicts(metrics) if "constr" in one["check"]]
        assert len(checks) == 1
        assert "radius 25 px" in checks[0]

    def test_the_worst_wide_band_decides_and_is_told(self, evaluated):
        metrics = evaluated[0].copy()
        rows = metrics[
            (metrics.statistic == "power_ratio_wide")
            & (metrics.case == "radius_3")
            & (metrics.method == "sampled")
        ]
        metrics.loc[rows.index[2], ["value", "error"]] = 0.985, 0.004
        found = judged(inpainting_verdicts(metrics), "radius 3 px", "power", "fluctuations")
        assert not found["passed"]
        assert found["value"] == pytest.approx(0.015)
        assert found["note"] == f"0.9850 ± 0.0040 around ell {rows['ell'].iloc[2]:.0f}"

    def test_what_is_not_known_cannot_pass(self, evaluated):
        metrics = evaluated[0].copy()
        metrics.loc[metrics.method != "truth", "value"] = np.nan
        verdicts = inpainting_verdicts(metrics)
        assert len(verdicts) == len(evaluated[2])
        assert not any(one["passed"] for one in verdicts)


class TestIndex:
    def test_classes_that_are_pulled_to_the_mean_fail_though_all_together_are_not_shifted(self):
        """Five errors up and five down cancel."""
        rows = shift(0.01, 0.0004, -0.0104)
        assert rows.value.iloc[-1] == pytest.approx(0)
        (found,) = index_verdicts(rows)
        assert not found["passed"]
        assert found["value"] == pytest.approx(5.2)
        assert found["note"] == (
            "class 1.05: −0.01040 ± 0.00200, 50 patches; all classes 0.00000 ± 0.00100"
        )

    def test_classes_without_a_shift_pass(self):
        values = 0.002 * generator(3, "classes").standard_normal(3)
        (found,) = index_verdicts(shift(*values))
        assert found["passed"]
        assert found["value"] == pytest.approx(np.abs(values).max() / 0.002)

    @pytest.mark.parametrize(
        ("value", "passed"), [(0.0069, True), (-0.0069, True), (0.0071, False), (-0.0071, False)]
    )
    def test_three_and_a_half_errors_are_the_bar_of_a_single_class(self, value, passed):
        (found,) = index_verdicts(shift(value))
        assert found["passed"] is passed
        note = f"class 0.85: {value:.5f} ± 0.00200, 50 patches; all classes {value:.5f} ± 0.00100"
        assert found["note"] == note.replace("-", "−")

    def test_the_furthest_in_its_own_errors_is_told(self):
        (found,) = index_verdicts(shift(0.02, 0.004, error=[0.02, 0.001]))
        assert found["value"] == pytest.approx(4)
        assert found["note"].startswith("class 0.95")

    def test_a_class_without_an_error_is_not_judged_beside_others(self):
        (found,) = index_verdicts(shift(0.5, 0.001, error=[np.nan, 0.002]))
        assert found["passed"]
        assert found["note"].startswith("class 0.95")

    def test_an_error_of_few_areas_is_less_sure(self):
        """Five errors of four areas are one chance in 65, of forty areas one in 80,000."""
        rows = shift(0.01)
        for areas, passed in ((4, True), (40, False)):
            told = rows.iloc[[0]].assign(statistic="class_areas_0.85", value=areas)
            (found,) = index_verdicts(pd.concat([rows, told], ignore_index=True))
            assert found["passed"] is passed
            chance = stats.t.sf(5, areas - 1)
            assert stats.norm.sf(found["value"]) == pytest.approx(chance)

    @pytest.mark.parametrize("error", [0.0, np.nan])
    def test_shifts_without_any_error_cannot_pass(self, error):
        (found,) = index_verdicts(shift(0.001, -0.001, error=error))
        assert not found["passed"]

    def test_rows_without_classes_cannot_pass(self):
        rows = shift(0.001)
        (found,) = index_verdicts(rows[rows.statistic == "estimate_shift"])
        assert not found["passed"]
        assert "all classes 0.00100" in found["note"]

    def test_each_case_and_method_is_judged_by_its_own_classes(self):
        rows = [
            shift(0.001 * (method == "iterated"), 0.01 * (case == "radius_3"), case=case,
                  method=method)
            for case in ("holes", "radius_3")
            for method in ("sampled", "iterated", "realization")
        ]  # fmt: skip
        verdicts = index_verdicts(pd.concat(rows, ignore_index=True))
        assert len(verdicts) == len({one["check"] for one in verdicts}) == 6
        for one in verdicts:
            assert one["passed"] == ("radius 3 px" not in one["check"])
        told = judged(verdicts, ", holes", "fluctuations of the index that it tells")
        assert told["value"] == pytest.approx(0.5)

    def test_methods_that_lack_the_skys_fluctuations_are_not_judged(self):
        assert index_verdicts(shift(0.5, method="constrained")) == []
        (found,) = index_verdicts(shift(0.5, method="realization"))
        assert "control" in found["check"]

    def test_other_rows_are_left_alone(self, evaluated):
        assert index_verdicts(evaluated[0]) == []
