"""Statistics of filled maps whose law is known."""

import numpy as np
import pytest
from scipy.stats import kurtosis, skew

from skyweave.errors import UserError
from skyweave.estimators.constrained import Constrained
from skyweave.flat.covariance import Covariance
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.images.holes import placed_disc
from skyweave.seeds import generator
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.inpainting import (
    EDGES,
    Holed,
    edge_rows,
    error_rows,
    ratio_rows,
    spread_rows,
    table,
    truth_rows,
    value_rows,
)
from skyweave.statistics.inpainting_spectra import (
    THRESHOLDS,
    WIDE,
    Shapes,
    masked_rows,
    power_rows,
)
from skyweave.statistics.minkowski import functionals
from skyweave.statistics.namaster import Workspaces, apodized, spectra

GRID = PatchGrid(5.0, 32)
BINS = default_bins(GRID)
CENTRES = BINS.centres(GRID)
CL = 1e3 * (GRID.ell + 300.0) ** -2
SIGMA = np.sqrt(np.sum(GRID.mode_weight * CL) / GRID.area_sr)
#: Correlation function of the field along x, at whole pixels.
XI = inverse(CL.astype(complex), GRID)[0] / SIGMA**2


def sky(count, *identity, cl=CL):
    """Periodic Gaussian maps of spectrum `cl`."""
    white = generator(8, *identity).standard_normal((count, GRID.pixels, GRID.pixels))
    return inverse(forward(white, GRID) * np.sqrt(cl / GRID.pixel_rad**2), GRID)


def disc(radius):
    y, x = np.indices((GRID.pixels, GRID.pixels)) - (GRID.pixels - 1) / 2
    return np.hypot(y, x) <= radius


def holed(count, *identity, hole=None):
    truth = sky(count, *identity)
    return Holed(truth, np.broadcast_to(disc(6) if hole is None else hole, truth.shape), GRID)


def noisy(of, level, *identity):
    """Truth plus white noise of `level` (µK) in holes."""
    noise = generator(9, *identity).standard_normal(of.truth.shape)
    return np.where(of.holes, of.truth + level * noise, of.truth)


def pick(rows, statistic):
    """Value and error of a statistic with one row."""
    (row,) = rows[rows["statistic"] == statistic].itertuples()
    return row.value, row.error


def bands(rows, statistic):
    return rows[rows["statistic"] == statistic].reset_index(drop=True)


def near(found, expected, sigmas=4.0):
    value, error = found
    return error > 0 and abs(value - expected) < sigmas * error


class TestErrors:
    of = holed(100, "errors")
    filled = noisy(of, 0.3 * SIGMA, "errors")
    rows = error_rows(of, filled)

    def test_known_noise_has_its_error_in_units_of_the_fields_rms(self):
        gaussian = {"mean": np.sqrt(2 / np.pi), "rms": 1.0, "std": np.sqrt(1 - 2 / np.pi)}
        for name, factor in gaussian.items():
            assert near(pick(self.rows, f"error_{name}_hole"), 0.3 * factor)

    def test_errors_are_those_of_an_explicit_loop(self):
        apart, squares = [], []
        for truth, filled, hole in zip(self.of.truth, self.filled, self.of.holes, strict=True):
            for y, x in zip(*np.nonzero(hole), strict=True):
                apart.append(abs(filled[y, x] - truth[y, x]))
                squares.append((filled[y, x] - truth[y, x]) ** 2)
        rms = self.of.truth.std()
        assert pick(self.rows, "error_mean_hole")[0] == pytest.approx(np.mean(apart) / rms)
        assert pick(self.rows, "error_rms_hole")[0] == pytest.approx(
            np.sqrt(np.mean(squares)) / rms
        )
        assert pick(self.rows, "error_std_hole")[0] == pytest.approx(np.std(apart) / rms)
        pixels = self.of.truth.size
        assert pick(self.rows, "error_mean_all")[0] == pytest.approx(sum(apart) / pixels / rms)

    def test_pixels_that_were_copied_have_no_error_and_others_do(self):
        for name in ("mean", "rms", "std"):
            assert pick(self.rows, f"error_{name}_valid") == (0, 0)
        assert pick(self.rows, "seen_change_max")[0] == 0
        changed = self.filled.copy()
        y, x = np.argwhere(~self.of.holes[3])[40]
        changed[3, y, x] += 1e-3
        rows = error_rows(self.of, changed)
        assert pick(rows, "seen_change_max")[0] == pytest.approx(1e-3)
        assert pick(rows, "error_rms_valid")[0] > 0
        assert pick(rows, "error_rms_hole") == pick(self.rows, "error_rms_hole")

    def test_a_change_in_a_hole_is_no_change_of_what_was_seen(self):
        changed = self.filled + 10 * self.of.holes
        assert pick(error_rows(self.of, changed), "seen_change_max")[0] == 0

    def test_the_ratio_of_two_noises_is_that_of_their_levels(self):
        rows = ratio_rows(self.of, noisy(self.of, 0.36 * SIGMA, "other"), self.filled)
        assert near(pick(rows, "error_ratio"), 1.2)
        assert pick(ratio_rows(self.of, self.filled, self.filled), "error_ratio") == (1, 0)

    def test_what_two_methods_share_cancels_in_the_errors_of_their_ratio(self):
        """Patches are harder and easier, for both."""
        hard = generator(1, "hard").uniform(0.2, 2, (100, 1, 1))
        first, second = (
            self.of.truth + hard * (noisy(self.of, SIGMA, name) - self.of.truth)
            for name in ("first", "second")
        )
        value, error = pick(ratio_rows(self.of, first, second), "error_ratio")
        single = pick(error_rows(self.of, first), "error_rms_hole")
        assert abs(value - 1) < 4 * error
        assert error < 0.5 * single[1] / single[0]

    def test_errors_tell_the_scatter_of_repeated_sets(self):
        found = []
        for number in range(80):
            of = holed(12, "sets", number)
            rows = error_rows(of, noisy(of, 0.5 * SIGMA, "sets", number))
            found.append(pick(rows, "error_rms_hole"))
        values, errors = np.transpose(found)
        assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.25)

    def test_patches_without_holes_tell_of_what_was_seen_alone(self):
        truth = sky(6, "some")
        holes = np.zeros(truth.shape, bool)
        holes[[1, 2, 4], 10:20, 10:20] = True
        holes[5] = True
        of = Holed(truth, holes, GRID)
        rows = error_rows(of, noisy(of, SIGMA, "some"))
        counts = {part: bands(rows, f"error_rms_{part}")["n"].item() for part in _COUNTS}
        assert counts == _COUNTS
        assert np.isfinite(rows["value"]).all()
        assert pick(truth_rows(of), "area")[0] == holes.mean()

    def test_maps_without_any_hole_have_no_errors_in_holes(self):
        of = holed(5, "none", hole=np.zeros_like(disc(1)))
        rows = error_rows(of, of.truth)
        assert np.isnan(pick(rows, "error_rms_hole")).all()
        assert pick(rows, "error_rms_all") == (0, 0)
        law, density = value_rows(of, of.truth)
        edges, _ = edge_rows(of, of.truth)
        shapes, curves = Shapes(of).rows(of.truth)
        ratio = ratio_rows(of, of.truth, of.truth)
        for rows in (law, density, edges, shapes, ratio):
            assert rows["value"].isna().all()
            assert (rows["n"] == 0).all()
        assert curves.empty

    def test_one_patch_has_values_but_no_errors(self):
        of = holed(1, "one")
        filled = noisy(of, SIGMA, "one")
        law, density = value_rows(of, filled)
        edges, correlation = edge_rows(of, filled)
        tables = [error_rows(of, filled), law, density, edges, correlation, power_rows(of, filled)]
        for rows in [*tables, truth_rows(of), ratio_rows(of, filled, filled)]:
            assert rows["error"].isna().all()
            assert rows["value"].notna().all()
        shapes, curves = Shapes(of).rows(filled)
        assert shapes[["value", "error"]].isna().all(axis=None)
        assert curves["value"].notna().all()

    @pytest.mark.parametrize("shape", [(3, 32, 32), (4, 32, 31)])
    def test_shapes_that_differ_are_refused(self, shape):
        with pytest.raises(UserError, match=r"filled maps: expected shape \(4, 32, 32\)"):
            error_rows(holed(4, "shape"), np.zeros(shape))
        with pytest.raises(UserError, match=r"holes: expected shape"):
            Holed(sky(4, "shape"), np.zeros(shape, bool), GRID)

    def test_values_that_are_not_finite_are_refused(self):
        of = holed(4, "nan")
        broken = of.truth.copy()
        broken[2, 0, 0] = np.nan
        with pytest.raises(UserError, match=r"finite values, found others in 1 of 4 patches, .* 2"):
            power_rows(of, broken)

    def test_the_table_of_no_rows_has_columns(self):
        assert list(table([], "x").columns) == ["statistic", "x", "value", "error", "n"]
        assert table([]).empty


_COUNTS = {"hole": 4, "valid": 5, "all": 6}


class TestValues:
    of = holed(150, "values")

    def test_the_truth_is_as_wide_as_itself_and_gaussian(self):
        rows, density = value_rows(self.of, self.of.truth)
        assert pick(rows, "std_ratio") == (1, 0)
        assert pick(rows, "mean_shift") == (0, 0)
        assert pick(rows, "wasserstein") == (0, 0)
        assert pick(rows, "ks") == (0, 0)
        assert near(pick(rows, "skewness"), 0)
        assert near(pick(rows, "kurtosis"), 0)
        width = EDGES[1] - EDGES[0]
        assert density["value"].sum() * width == pytest.approx(1)
        centre = density[density["x"].abs() < 2]
        expected = np.exp(-(centre["x"] ** 2) / 2) / np.sqrt(2 * np.pi)
        assert np.abs((centre["value"] - expected) / centre["error"]).max() < 4.5

    def test_a_factor_is_the_ratio_of_standard_deviations(self):
        rows, _ = value_rows(self.of, 0.84 * self.of.truth)
        value, error = pick(rows, "std_ratio")
        assert value == pytest.approx(0.84)
        assert error < 1e-12

    def test_the_mean_given_a_neighbour_lacks_the_deviation_that_theory_says(self):
        """E[x | y] = r y has r of the deviation of x, and noise of variance 1 - r² restores it."""
        r = 0.8
        known, unknown = sky(150, "known"), sky(150, "unknown")
        truth = r * known + np.sqrt(1 - r**2) * unknown
        of = Holed(truth, self.of.holes, GRID)
        mean, drawn = r * known, r * known + np.sqrt(1 - r**2) * sky(150, "drawn")
        assert near(pick(value_rows(of, mean)[0], "std_ratio"), r)
        assert near(pick(value_rows(of, drawn)[0], "std_ratio"), 1)
        assert near(pick(error_rows(of, mean), "error_rms_hole"), np.sqrt(1 - r**2))
        # A sample errs with twice the mean's variance.
        assert near(pick(ratio_rows(of, drawn, mean), "error_ratio"), np.sqrt(2))

    def test_the_ratio_of_two_deviations_is_that_of_the_pixels_of_all_holes(self):
        holes = generator(6, "own").random((12, 32, 32)) < 0.1
        holes[[2, 7]] = False
        of = Holed(sky(12, "own"), holes, GRID)
        filled, other = 5 + noisy(of, SIGMA, "one"), noisy(of, 0.5 * SIGMA, "two")
        rows = spread_rows(of, filled, other, "ratio")
        value, error = pick(rows, "ratio")
        assert value == pytest.approx(filled[holes].std() / other[holes].std(), rel=1e-10)
        assert rows["n"].item() == 10
        kept = [np.arange(12) != index for index in range(12) if index not in (2, 7)]
        found = [filled[k][holes[k]].std() / other[k][holes[k]].std() for k in kept]
        assert error == pytest.approx(np.sqrt(9 * np.var(found)), rel=1e-6)

    def test_what_two_fillings_share_cancels_in_the_errors_of_their_deviations(self):
        first, second = (noisy(self.of, 0.1 * SIGMA, name) for name in ("first", "second"))
        ratio = spread_rows(self.of, first, second, "ratio")
        assert near(pick(ratio, "ratio"), 1)
        single = self.of.truth[self.of.holes].reshape(len(self.of.truth), -1).std(axis=1)
        assert pick(ratio, "ratio")[1] < 0.2 * single.std() / SIGMA / np.sqrt(len(single))
        assert pick(spread_rows(self.of, 1.03 * first, first, "ratio"), "ratio")[
            0
        ] == pytest.approx(1.03)

    def test_a_shift_is_the_distance_of_the_distributions(self):
        shift = 0.3 * self.of.rms
        rows, _ = value_rows(self.of, self.of.truth + shift)
        assert pick(rows, "mean_shift")[0] == pytest.approx(0.3)
        assert pick(rows, "wasserstein")[0] == pytest.approx(0.3, rel=0.03)
        # max of Phi(x) - Phi(x - s), but for bins of 0.2
        assert pick(rows, "ks")[0] == pytest.approx(0.119, abs=0.012)

    def test_skewness_and_kurtosis_are_those_of_scipy(self):
        filled = np.exp(0.3 * self.of.truth / SIGMA)
        rows, _ = value_rows(self.of, filled)
        values = filled[self.of.holes]
        assert pick(rows, "skewness")[0] == pytest.approx(skew(values))
        assert pick(rows, "kurtosis")[0] == pytest.approx(kurtosis(values))

    def test_values_far_out_count_in_the_last_bins(self):
        _, density = value_rows(self.of, self.of.truth + 100 * self.of.rms)
        assert density["value"].iloc[-1] == pytest.approx(1 / (EDGES[1] - EDGES[0]))


class TestOptimum:
    """Of a Gaussian sky the mean given what is seen, and a sample, have a law that is known."""

    ell = np.arange(3000.0)
    model = Covariance(ell, {"tt": 1e7 * (ell + 100.0) ** -4})
    cl = 1e7 * (GRID.ell + 100.0) ** -4
    variance = np.sum(GRID.mode_weight * cl) / GRID.area_sr
    of = Holed(sky(200, "optimum", cl=cl), np.broadcast_to(disc(6), (200, 32, 32)), GRID)
    fill = Constrained(model, GRID, ("t_obs",), periodic=True)
    mean = fill.mean(of.truth[:, None], disc(6))[:, 0]
    random = tuple(generator(4, "optimum", number) for number in range(200))
    drawn = mean + fill.fluctuation(disc(6), random)[:, 0]

    def test_the_mean_errs_and_lacks_deviation_as_theory_says(self):
        variance = np.mean(self.fill.error(disc(6))[0][disc(6)] ** 2) / self.variance
        rows = error_rows(self.of, self.mean)
        assert 0.2 < variance < 0.8
        assert near(pick(rows, "error_rms_hole"), np.sqrt(variance))
        assert pick(rows, "seen_change_max")[0] == 0
        law, _ = value_rows(self.of, self.mean)
        assert near(pick(law, "std_ratio"), np.sqrt(1 - variance))

    def test_a_sample_has_the_skys_law_and_the_error_of_two(self):
        law, _ = value_rows(self.of, self.drawn)
        edges, _ = edge_rows(self.of, self.drawn)
        assert near(pick(law, "std_ratio"), 1)
        assert near(pick(edges, "edge_step_ratio"), 1)
        assert near(pick(ratio_rows(self.of, self.drawn, self.mean), "error_ratio"), np.sqrt(2))

    def test_a_sample_has_the_truths_power_and_the_mean_has_not(self):
        drawn, mean = (power_rows(self.of, maps) for maps in (self.drawn, self.mean))
        for name in ("power_ratio", "power_ratio_wide"):
            ratio, poor = bands(drawn, name), bands(mean, name)
            assert np.abs((ratio["value"] - 1) / ratio["error"]).max() < 4
            assert ((1 - poor["value"]) / poor["error"])[1:].min() > 8


class TestEdges:
    of = holed(200, "edges")

    def test_the_truth_has_its_correlation_function_across_edges(self):
        rows, profile = edge_rows(self.of, self.of.truth)
        assert near(pick(rows, "edge_correlation"), XI[1])
        assert pick(rows, "edge_step_ratio") == (1, 0)
        assert profile["x"].tolist() == [1, 2, 3, 4]
        pulls = (profile["value"] - XI[1:5]) / profile["error"]
        assert np.abs(pulls).max() < 4
        assert (np.diff(profile["value"]) < 0).all()

    def test_white_noise_in_holes_knows_nothing_of_their_edges(self):
        noise = SIGMA * generator(2, "white").standard_normal(self.of.truth.shape)
        filled = np.where(self.of.holes, noise, self.of.truth)
        rows, profile = edge_rows(self.of, filled)
        assert np.abs(profile["value"] / profile["error"]).max() < 4
        # Steps of two independent values, over those of neighbours.
        assert near(pick(rows, "edge_step_ratio"), 1 / np.sqrt(1 - XI[1]))

    @pytest.mark.parametrize("distance", [1, 2, 3, 4])
    def test_pairs_are_those_of_an_explicit_loop(self, distance):
        holes = generator(3, "pairs").random((2, 32, 32)) < 0.2
        of = Holed(sky(2, "pairs"), holes, GRID)
        expected = set()
        for n, y, x in zip(*np.nonzero(holes), strict=True):
            for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                v, u = y + distance * dy, x + distance * dx
                if 0 <= v < 32 and 0 <= u < 32 and not holes[n, v, u]:
                    expected.add(((n * 32 + y) * 32 + x, (n * 32 + v) * 32 + u, n))
        found = list(zip(*(array.tolist() for array in of.pairs[distance]), strict=True))
        assert len(found) == len(expected)
        assert set(found) == expected


class TestPower:
    of = holed(60, "power")

    def test_a_factor_is_the_square_root_of_the_power_ratio(self):
        rows = power_rows(self.of, 0.9 * self.of.truth)
        for name, count in (("power_ratio", BINS.count), ("power_ratio_wide", WIDE)):
            ratio = bands(rows, name)
            assert len(ratio) == count
            np.testing.assert_allclose(ratio["value"], 0.81, rtol=1e-10)
            assert ratio["error"].max() < 1e-10
        np.testing.assert_allclose(bands(rows, "power_ratio")["ell"], CENTRES)
        np.testing.assert_allclose(bands(rows, "correlation")["value"], 1, rtol=1e-10)

    def test_the_truths_power_is_the_spectrum_under_the_window(self):
        """In bands where it is nearly flat over the window's width."""
        rows = bands(power_rows(self.of, self.of.truth), "power_truth")
        expected = np.interp(CENTRES, GRID.ell[0], CL[0])
        assert np.abs((rows["value"] - expected) / rows["error"])[3:].max() < 4
        assert (bands(power_rows(self.of, self.of.truth), "power_ratio")["value"] == 1).all()

    def test_noise_in_holes_adds_its_power_there(self):
        level = 2 * SIGMA
        rows = power_rows(self.of, noisy(self.of, level, "power"))
        window = cosine_taper(GRID, 0.5)
        seen = np.mean((window * self.of.holes[0]) ** 2) / np.mean(window**2)
        truth = bands(rows, "power_truth")["value"]
        expected = 1 + seen * (level * GRID.pixel_rad) ** 2 / truth
        ratio = bands(rows, "power_ratio")
        assert (expected - 1).max() > 20 * ratio["error"].min()
        assert np.abs((ratio["value"] - expected) / ratio["error"]).max() < 4

    def test_wide_bands_are_means_of_ratios_of_bands_below_2000(self):
        rows = power_rows(self.of, noisy(self.of, SIGMA, "wide"))
        ratio, wide = bands(rows, "power_ratio"), bands(rows, "power_ratio_wide")
        groups = np.array_split(np.flatnonzero(CENTRES < 2000), WIDE)
        for group, row in zip(groups, wide.itertuples(), strict=True):
            assert row.value == pytest.approx(ratio["value"][group].mean())
            assert row.ell == pytest.approx(CENTRES[group].mean())

    def test_a_constant_is_no_power(self):
        shifted = power_rows(self.of, self.of.truth + 50 * SIGMA)
        np.testing.assert_allclose(bands(shifted, "power_ratio")["value"], 1, rtol=1e-8)

    def test_errors_tell_the_scatter_of_repeated_sets(self):
        found = []
        for number in range(60):
            of = holed(15, "scatter", number)
            rows = power_rows(of, noisy(of, SIGMA, "scatter", number))
            found.append(bands(rows, "power_ratio")[["value", "error"]].to_numpy())
        found = np.array(found)
        scatter, told = found[..., 0].std(axis=0, ddof=1), found[..., 1].mean(axis=0)
        np.testing.assert_allclose(told, scatter, rtol=0.4)
        assert (told / scatter).mean() == pytest.approx(1, abs=0.12)


class TestMasked:
    def test_the_spectrum_around_a_hole_is_that_of_the_whole(self):
        """But in the last band, which modes beyond the bands leak into."""
        of = holed(150, "masked", hole=disc(4))
        rows = masked_rows(of, Workspaces(GRID, BINS))
        assert set(rows["statistic"]) == {"power_ratio_namaster"}
        assert len(rows) == BINS.count
        assert np.abs((rows["value"] - 1) / rows["error"])[:-1].max() < 4
        assert rows["error"].max() < 0.01

    def test_what_lies_in_the_hole_does_not_count(self):
        """Times a hundred in the hole: the whole map's power grows, the masked one's does not."""
        of = holed(8, "blind", hole=disc(4))
        loud = Holed(np.where(of.holes, 100 * of.truth, of.truth), of.holes, GRID)
        workspaces = Workspaces(GRID, BINS)
        quiet, other = (masked_rows(one, workspaces)["value"] for one in (of, loud))
        assert (other < 0.1 * quiet).all()

    def test_around_holes_that_differ_a_few_patches_tell(self):
        rng = generator(5, "differ")
        holes = np.stack([placed_disc(32, 4, rng) for _ in range(40)])
        workspaces = Workspaces(GRID, BINS)
        rows = masked_rows(Holed(sky(40, "differ"), holes, GRID), workspaces)
        assert (rows["n"] == 16).all()
        # One of each hole, and one of the window that all share.
        assert len(workspaces) == 17
        assert len(rows) == BINS.count
        assert np.abs((rows["value"] - 1) / rows["error"])[:-1].max() < 4
        assert 0 < rows["error"].min() < rows["error"].max() < 0.1

    def test_with_holes_that_differ_their_rows_are_those_of_a_loop(self):
        """Over patches with a hole of up to half the patch."""
        holes = np.stack([disc(4), disc(16), disc(5), disc(0.1)])
        of = Holed(sky(4, "loop"), holes, GRID)
        rows = masked_rows(of, Workspaces(GRID, BINS))
        window = cosine_taper(GRID, 0.5)
        found = []
        for index in (0, 2):
            rise = window * apodized(~holes[index], GRID, 0.25)
            one = of.truth[index : index + 1]
            found.append([spectra(one, w, Workspaces(GRID, BINS))[0] for w in (rise, window)])
        seen, whole = np.sum(found, axis=0)
        np.testing.assert_allclose(rows["value"], seen / whole, rtol=1e-10)
        assert (rows["n"] == 2).all()

    def test_holes_that_fill_most_of_the_patch_are_not_decoupled(self):
        workspaces = Workspaces(GRID, BINS)
        holes = np.stack([disc(15), disc(16)])
        assert masked_rows(Holed(sky(2, "no"), holes, GRID), workspaces).empty
        assert masked_rows(holed(2, "no", hole=disc(15)), workspaces).empty
        assert len(workspaces) == 0

    def test_patches_beyond_256_pixels_a_side_are_not_decoupled(self):
        grid = PatchGrid(5.0, 258)
        hole = np.zeros((1, 258, 258), bool)
        hole[0, 9, 9] = True
        workspaces = Workspaces(grid, default_bins(grid))
        assert masked_rows(Holed(0.0 + hole, hole, grid), workspaces).empty
        assert len(workspaces) == 0


class TestShapes:
    of = holed(80, "shapes")

    def test_the_truth_lies_on_itself_and_another_sky_as_near_as_two_sets_do(self):
        shapes = Shapes(self.of)
        rows, profile = shapes.rows(self.of.truth)
        other, _ = shapes.rows(sky(80, "another"))
        for name in ("v0", "v1", "v2"):
            assert pick(rows, f"minkowski_distance_{name}")[0] == 0
            assert pick(rows, f"minkowski_overlap_{name}")[0] == pytest.approx(1)
            # sqrt(2 (1/n + 1/m) / pi) = 0.13 on average
            assert pick(other, f"minkowski_distance_{name}")[0] < 0.45
        assert profile.equals(shapes.truth())

    def test_curves_are_those_around_the_hole_in_units_of_the_rms(self):
        of = holed(3, "curves", hole=np.pad(np.ones((8, 8), bool), 12))
        levels = of.truth.mean() + of.truth.std() * THRESHOLDS
        expected = functionals(of.truth[:, 11:21, 11:21], levels).mean(axis=0)
        curves = Shapes(of).truth()
        for name, curve in zip(("v0", "v1", "v2"), expected, strict=True):
            found = bands(curves, name)
            np.testing.assert_allclose(found["value"], curve, atol=1e-12)
            np.testing.assert_allclose(found["x"], THRESHOLDS)

    def test_white_noise_has_longer_boundaries(self):
        filled = np.where(self.of.holes, noisy(self.of, SIGMA, "rough"), self.of.truth)
        rows, _ = Shapes(self.of).rows(filled)
        value, error = pick(rows, "minkowski_distance_v1")
        assert value > 5 * error > 0
        value, error = pick(rows, "minkowski_overlap_v1")
        assert value < 1 - 5 * error < 1
