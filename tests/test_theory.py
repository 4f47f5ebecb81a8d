"""What theory expects of estimates: against simulated skies, in its limits, among the metrics."""

import json

import numpy as np
import pandas as pd
import pytest

from skyweave.config import Channel, Effects, Estimates, Grid, Spectra, Split
from skyweave.data.joined import open_maps
from skyweave.data.predictions import write_predictions
from skyweave.data.shards import ShardSet
from skyweave.data.split import assign
from skyweave.errors import UserError
from skyweave.flat.fourier import Bins
from skyweave.flat.grid import PatchGrid
from skyweave.simulation.spectra import compute
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.reconstruction import COLUMNS, field_metrics
from skyweave.statistics.tables import read_table, write_table
from skyweave.tasks.estimates import calibrate, estimate
from skyweave.tasks.reconstruction import evaluate_run
from skyweave.tasks.simulation import write_realizations
from skyweave.tasks.theory import correlation, expected, write_expected

GRID = PatchGrid(5.0, 32)
COUNT = 90


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A file of spectra."""
    path = tmp_path_factory.mktemp("spectra") / "spectra.csv"
    compute(Spectra(lmax=3000)).write(path)
    return path


def dataset(folder, table, channel, **effects):
    """A dataset without taper, and what its estimates are calibrated by."""
    write_realizations(
        folder / "0.h5",
        [table],
        grid=Grid(pixels=GRID.pixels),
        effects=Effects(**{"null_fraction": 0, "taper_deg": 0} | effects),
        channels={"obs": channel},
        fields=["q_obs", "u_obs", "e_prim"]
        + ["tau"] * effects.get("reionization", True)
        + ["kappa"] * effects.get("lensing", True),
        points=[{}],
        seed=1,
        dataset="some",
        realizations=range(COUNT),
    )
    parts = assign(range(COUNT), Split(train=0.1, validation=0.1, test=0.8), 1, "some")
    parts.to_csv(folder / "split.csv", index=False)
    known = {"shards": [folder / "0.h5"], "split": folder / "split.csv"}
    settings = Estimates(iterations=1, calibration=8)
    calibrate(folder / "estimator.json", settings=settings, channel="obs", spectra=[table], **known)
    return folder


def measured(folder, name, field, bins):
    """r of an estimate of the test set by band, and its error."""
    known = {"shards": [folder / "0.h5"], "split": folder / "split.csv"}
    estimate(
        folder / "test.h5",
        calibration=folder / "estimator.json",
        part="test",
        **known,
    )
    maps = open_maps([folder / "0.h5"], [folder / "test.h5"])
    numbers = ShardSet([folder / "test.h5"]).realizations
    metrics = field_metrics(
        *(maps.read(name, numbers), maps.read(field, numbers), GRID, bins),
        run="run",
        field=field,
        method="some",
    )
    rows = metrics[metrics.statistic == "correlation"]
    return rows.value.to_numpy(), rows.error.to_numpy()


def values(found, field, method):
    return found[(found.field == field) & (found.method == method)].value.to_numpy()


def test_a_filtered_estimate_has_the_share_that_is_signal():
    cl = (GRID.ell + 10.0) ** -2
    bins = default_bins(GRID)
    np.testing.assert_allclose(correlation(cl, 3 * cl, GRID, bins), 0.5)
    np.testing.assert_allclose(correlation(cl, 0 * cl, GRID, bins), 1)
    np.testing.assert_array_equal(correlation(cl, np.full(cl.shape, np.inf), GRID, bins), 0)
    # Where a band's modes differ the strong ones count.
    noise = np.where(GRID.ell < 500, 0, np.inf)
    share = correlation(cl, noise, GRID, Bins((100, 900)))[0] ** 2
    assert share > 0.5


def test_e_without_lensing_is_as_good_as_predicted(tmp_path, table):
    channel = Channel(noise_uk_arcmin=20, beam_arcmin=8)
    folder = dataset(tmp_path, table, channel, lensing=False, reionization=False)
    effects = Effects(lensing=False, reionization=False)
    found = expected(folder / "estimator.json", effects)
    assert set(found.method) == {"theory_iterative"}
    r = values(found, "e_prim", "theory_iterative")
    value, error = measured(folder, "e_wiener", "e_prim", default_bins(GRID))
    assert r.min() < 0.9 < r.max()
    assert (np.abs(value - r) < 4 * error + 0.002).all()


@pytest.fixture(scope="module")
def lensed(tmp_path_factory, table):
    return dataset(tmp_path_factory.mktemp("lensed"), table, Channel(noise_uk_arcmin=1))


def test_quadratic_estimates_are_as_good_as_predicted(lensed, table, tmp_path):
    """Where noise is most of B. Where lensing is, it is more noise than that of Gaussian skies."""
    noisy = dataset(tmp_path, table, Channel(noise_uk_arcmin=8))
    bins = Bins((36, 300, 600, 1000))
    for folder, most in ((noisy, 0.01), (lensed, 0.08)):
        found = expected(folder / "estimator.json", Effects(), bins)
        assert list(found.columns) == ["field", "method", "ell", "value"]
        np.testing.assert_allclose(found.ell.unique(), bins.centres(GRID))
        r = values(found, "kappa", "theory_quadratic")
        value, error = measured(folder, "kappa_quadratic", "kappa", bins)
        assert error.max() < 0.04
        assert (value < r + 4 * error).all()
        assert (value > r - 4 * error - most).all()


def test_what_takes_lensing_back_is_never_worse(lensed):
    found = expected(lensed / "estimator.json", Effects())
    for field in ("kappa", "tau"):
        quadratic = values(found, field, "theory_quadratic")
        iterative = values(found, field, "theory_iterative")
        assert (iterative > quadratic).all(), field
        assert (iterative < 1).all()
    # What the screen adds to B is noise of kappa: small, where the noise of the maps is.
    alone = expected(lensed / "estimator.json", Effects(reionization=False))
    gain = values(alone, "kappa", "theory_iterative") - values(found, "kappa", "theory_iterative")
    assert (gain > 0).all()
    assert gain.max() < 0.02


def test_lensing_that_is_not_estimated_is_not_taken_back(lensed, tmp_path):
    """Without kappa among the fields tau has all of lensing's B as noise, and is hardened still."""
    calibration = json.loads((lensed / "estimator.json").read_text())
    calibration["delensing"]["fields"] = ["tau"]
    (tmp_path / "estimator.json").write_text(json.dumps(calibration))
    known, unknown = (
        expected(folder / "estimator.json", Effects()) for folder in (lensed, tmp_path)
    )
    r = [values(table, "tau", "theory_iterative") for table in (known, unknown)]
    assert (r[1] < 0.95 * r[0])[:5].all()
    r = [values(table, "tau", "theory_quadratic") for table in (known, unknown)]
    np.testing.assert_allclose(*r)


def test_metrics_hold_what_is_expected_and_verdicts_do_not(lensed, tmp_path):
    write_expected(
        tmp_path / "theory.csv", calibration=lensed / "estimator.json", effects=Effects()
    )
    table = read_table(tmp_path / "theory.csv")
    maps = ShardSet([lensed / "0.h5"]).read("kappa", range(6))
    noisy = maps + np.random.default_rng(1).standard_normal(maps.shape) * maps.std()
    write_predictions(
        tmp_path / "p.h5",
        {
            "truth": {"kappa": maps},
            "prediction": {"kappa": noisy},
            "estimates/quadratic": {"kappa": -noisy},
        },
        realizations=np.arange(6),
        units={"kappa": ""},
        size_deg=5.0,
        taper_deg=0.0,
    )
    plain, verdicts = evaluate_run(tmp_path / "p.h5", name="run")
    metrics, same = evaluate_run(tmp_path / "p.h5", name="run", theory=tmp_path / "theory.csv")
    assert same == verdicts
    pd.testing.assert_frame_equal(metrics[: len(plain)], plain)
    rows = metrics[len(plain) :]
    assert tuple(rows.columns) == COLUMNS
    assert set(rows.method) == {"theory_quadratic", "theory_iterative"}
    assert set(rows.field) == {"kappa"}, "no other is a target"
    assert set(rows.statistic) == {"correlation"}
    assert rows.error.isna().all()
    assert (rows.n == 0).all()
    # At the multipoles of what was measured.
    assert set(rows.ell) == set(plain[plain.statistic == "correlation"].ell)
    kept = table[(table.field == "kappa") & (table.method == "theory_quadratic")].value
    np.testing.assert_array_equal(rows[rows.method == "theory_quadratic"].value, kept)
    # They come back as they were, empty errors included.
    write_table(tmp_path / "metrics.csv", metrics)
    pd.testing.assert_frame_equal(read_table(tmp_path / "metrics.csv"), metrics)


def test_a_missing_table_is_named(tmp_path, lensed):
    maps = ShardSet([lensed / "0.h5"]).read("kappa", range(3))
    write_predictions(
        tmp_path / "p.h5",
        {"truth": {"kappa": maps}, "prediction": {"kappa": maps}},
        realizations=np.arange(3),
        units={"kappa": ""},
        size_deg=5.0,
        taper_deg=0.0,
    )
    with pytest.raises(UserError, match=r"theory\.csv"):
        evaluate_run(tmp_path / "p.h5", name="run", theory=tmp_path / "theory.csv")
