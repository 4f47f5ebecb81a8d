"""docs/hybrid.md: its numbers are those of the results, its sentences follow from them."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from skyweave.config import Estimates
from skyweave.data.predictions import write_predictions
from skyweave.estimators.observed import Observed
from skyweave.estimators.patch import PatchEstimator
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import eb_to_qu
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator
from skyweave.statistics.tables import read_table, write_table
from skyweave.tasks.hybrid_page import main, page
from skyweave.tasks.hybrid_results import BANDS, HYBRID, PLAIN, correlations

#: Waves up to ell 3840, so that the last band has some.
GRID = PatchGrid(1.5, 32)
TAPER_DEG, COUNT = 0.3, 12
TAPER = cosine_taper(GRID, TAPER_DEG)
UNITS = {"kappa": "", "tau": "", "e_prim": "uK_CMB"}
#: Noise over signal of each method's kappa, the same at every ell.
NOISE = {HYBRID: 0.05, PLAIN: 1.0, "quadratic": 0.5, "iterative": 0.1}


def gaussian(*identity):
    """Maps (n, y, x) with a red spectrum."""
    white = generator(3, *identity).standard_normal((COUNT, GRID.pixels, GRID.pixels))
    return inverse(forward(white, GRID) / (GRID.ell + 300.0), GRID)


def calibration(path):
    """Of patches without noise; which estimates there are is all that the page asks of it."""
    ell = np.arange(0.0, 5400, 8)
    red = 1e-4 / (ell + 300.0) ** 2
    shape = {"ee": 1e2 * red, "kk": 1e-2 * red, "tautau": 1e-6 * red, "alphaalpha": 0 * red}
    observed = Observed(
        size_deg=GRID.size_deg,
        pixels=GRID.pixels,
        taper_deg=TAPER_DEG,
        periodic=True,
        ell=ell,
        cl=shape | {"lensed_ee": shape["ee"], "lensed_bb": 1e-3 * shape["ee"]},
        foreground=0 * ell,
        beam=np.ones(ell.size),
        noise=np.full(ell.size, 1e-10),
    )
    truth = {name: gaussian(name, "calibration") * TAPER for name in UNITS}
    q, u = (one * TAPER for one in eb_to_qu(truth["e_prim"], 0 * truth["e_prim"], GRID))
    settings = Estimates(iterations=1, calibration=8)
    estimator = PatchEstimator.fit(observed, {"q": q, "u": u} | truth, settings)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(estimator.to_dict()))


def write_run(folder, name, seconds, values):
    """A run's predictions, card and tables; `values` are r on the validation set, by epoch."""
    folder.mkdir(parents=True)
    truth = {field: gaussian(field) for field in UNITS}
    truth["kappa"][0] = 0
    made = {
        method: {f: t + np.sqrt(noise) * gaussian(f, method) for f, t in truth.items()}
        for method, noise in NOISE.items()
    }
    groups = {"truth": truth, "prediction": made[name]}
    groups |= {f"estimates/{method}": made[method] for method in ("quadratic", "iterative")}
    tapered = {g: {f: maps * TAPER for f, maps in fields.items()} for g, fields in groups.items()}
    write_predictions(
        folder / "predictions.h5",
        tapered,
        realizations=np.arange(COUNT),
        units=UNITS,
        size_deg=GRID.size_deg,
        taper_deg=TAPER_DEG,
    )
    channel = {"beam_arcmin": 0.0, "noise_uk_arcmin": 0.0}
    settings = {"effects": {"taper_deg": TAPER_DEG}, "channels": {"obs": channel}}
    card = {
        "parameters": 123456,
        "inputs": ["q_obs", "u_obs"],
        "grid": {"size_deg": GRID.size_deg, "pixels": GRID.pixels},
        "data": {
            "dataset": "noiseless",
            "realizations": {"train": 1600, "test": COUNT},
            "provenance": {"settings": settings},
        },
        "settings": {
            "network": {"width": 0.25},
            "training": {"select": {"by": "correlation", "ell": [36, 2500]}},
        },
        "metrics": {"epoch": 2},
    }
    (folder / "card.json").write_text(json.dumps(card))
    epochs = np.arange(1, len(values) + 1)
    write_table(folder / "history.csv", pd.DataFrame({"epoch": epochs, "seconds": seconds}))
    sweep = {"epoch": epochs, "field": "kappa", "value": values, "picked": epochs == 2}
    sweep = pd.DataFrame(sweep).astype({"picked": int}).assign(statistic="correlation")
    write_table(folder / "sweep.csv", sweep)
    rows = [
        ("kappa", "network", "coverage_68", np.nan, 0.671, 0.004),
        ("kappa", "network", "coverage_95", np.nan, 0.942, 0.002),
        ("kappa", "network", "coverage_68", 300.0, 0.7, 0.01),
        ("kappa", "iterative", "correlation", 300.0, 0.9, 0.01),
        ("kappa", "network", "correlation", 300.0, 0.95, 0.01),
    ]
    columns = ["field", "method", "statistic", "ell", "value", "error"]
    metrics = pd.DataFrame(rows, columns=columns).assign(run=name, split="test", n=COUNT)
    write_table(folder / "metrics.csv", metrics)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    calibration(folder / "datasets" / "noiseless" / "estimator.json")
    for job, cpu_s in {
        "calibrate/noiseless": 120,
        "estimate/a/0": 200,
        "estimate/a/1": 220,
    }.items():
        path = folder / "benchmarks" / f"{job}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\tcpu_time\n300\t900\t{cpu_s}\n")
    write_run(folder / "runs" / HYBRID, HYBRID, 60.0, [0.90, 0.97, 0.96])
    write_run(folder / "runs" / PLAIN, PLAIN, 90.0, [0.20, 0.50, 0.40])
    return folder


@pytest.fixture(scope="module")
def table(results):
    return correlations(results)


def test_r_is_that_of_the_maps(table):
    kappa = table[table.field == "kappa"].set_index(["method", "band"])
    for method, noise in NOISE.items():
        r = kappa.loc[method]
        assert list(r.index) == list(range(BANDS.count))
        error = np.maximum(r.error, 0.002)
        assert (np.abs(r.value - 1 / np.sqrt(1 + noise))[1:] < 4 * error[1:] + 0.02).all(), method
    np.testing.assert_allclose(kappa.loc[HYBRID].gain, 0, atol=1e-12)
    for method in (PLAIN, "quadratic"):
        gain = kappa.loc[HYBRID].value - kappa.loc[method].value
        np.testing.assert_allclose(kappa.loc[method].gain, gain, atol=1e-12)
        # On the same patches: less than that of two sets.
        assert (kappa.loc[method].gain_error > 0).all()
    assert kappa.loc["published"].value.tolist() == [0.98, 0.99, 0.98, 0.95, 0.91, 0.87]
    assert {"theory_quadratic", "theory_iterative"} <= set(kappa.index.unique("method"))


def test_the_page_says_what_the_numbers_say(results, table, tmp_path):
    text = page(results, tmp_path / "hybrid.svg")
    assert (tmp_path / "hybrid.svg").read_text().startswith("<?xml")
    assert "(hybrid.svg)" in text
    rows = table[(table.field == "kappa") & (table.method == "published")]
    above = int((rows.gain > 0).sum())
    kappa = text.partition("### convergence κ")[2].partition("### ")[0]
    least = f"{rows.gain.min():+.3f}".replace("-", "−")
    assert f"- {above} beside published: the difference is {least} to" in kappa
    assert re.search(r"^- 6 beside `resunet`: .* errors in 6, below in 0$", kappa, re.MULTILINE)
    assert "took 2 minutes of CPU time, they themselves\n7 for all patches" in text
    assert kappa.count("| 300–600 |") == 1
    # E has no estimate by that method in the prediction of theory, and no column of it.
    e = text.partition("### primordial E")[2].partition("### ")[0]
    assert "quadratic, predicted" not in e
    assert "iterative, predicted" in e
    assert "| 0.671 ± 0.004 | 0.942 ± 0.002 |" in text
    assert "has 0.900 after its first epoch (1.0 minutes) and at most 0.970" in text
    assert "at most 0.500 (after 3.0 minutes), which `hybrid` reaches after 1.0 minutes." in text
    assert "123,456 | 1,600 | 3, of which 2 kept | 3 |" in text


def test_a_network_without_uncertainty_has_no_coverage(results, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    path = folder / "runs" / HYBRID / "metrics.csv"
    metrics = read_table(path)
    write_table(path, metrics[metrics.ell.notna()])
    text = page(folder, tmp_path / "hybrid.svg")
    assert "predicts none" in text
    assert "| 0.671" not in text


def test_a_run_that_is_not_there_ends_in_one_line(results, tmp_path):
    with pytest.raises(SystemExit) as error:
        main(str(tmp_path), str(tmp_path / "hybrid.md"))
    assert "card.json: expected a file, found none" in str(error.value)
    assert not (tmp_path / "hybrid.md").exists()
