"""The simulation against the published pipeline, CAMB and analysis, and the page that says so."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skyweave.config import Spectra
from skyweave.simulation.spectra import SpectraTable
from skyweave.tasks import simulation_checks as checks

PAGE = Path(__file__).parent.parent / "docs" / "simulation.md"


@pytest.fixture(scope="module", autouse=True)
def _spectra_are_computed_once() -> Iterator[None]:
    made = {}

    def compute(spectra: Spectra) -> SpectraTable:
        key = spectra.model_dump_json()
        if key not in made:
            made[key] = spectra_of(spectra)
        return made[key]

    spectra_of = checks.compute
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "compute", compute)
        yield


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return checks.published(300)


@pytest.fixture(scope="module")
def lensed() -> pd.DataFrame:
    return checks.lensed(patches=200, workers=2)


@pytest.fixture(scope="module")
def interpolation() -> pd.DataFrame:
    return checks.interpolation(patches=6)


@pytest.fixture(scope="module")
def effects() -> pd.DataFrame:
    return checks.effects(patches=60, workers=2)


def test_standard_deviations_of_the_published_set(published):
    """300 realizations: each within 0.5 %, and what its own error adds to that."""
    error = published.error / published.ours
    assert (np.abs(published.ratio - 1) < 0.005 + 3 * error).all()
    assert error.max() < 0.002 * np.sqrt(20_000 / 300)


@pytest.mark.slow
def test_standard_deviations_of_all_of_the_published_set():
    """20,000 realizations: each within 0.5 %, with an own error that lets this be said."""
    published = checks.published(checks.COUNTS["published"], workers=2)
    assert np.abs(published.ratio - 1).max() < 0.005
    assert (published.error / published.ours).max() < 0.002


@pytest.mark.parametrize("name", ["tt", "ee", "te", "bb"])
def test_lensed_spectra_are_those_of_camb(lensed, name):
    """Every band in ell 300–3100 within 0.5 %, and what its own error adds to that for B."""
    part = lensed[lensed.spectrum == name]
    assert len(part) == 14
    assert part.error.max() < (0.01 if name == "bb" else 0.005)
    assert (np.abs(part.ratio - 1) < np.maximum(0.005, 3 * part.error)).all()
    if name != "bb":
        assert np.abs(part.ratio - 1).max() < 0.005
    # All bands together; they share the lensing waves, so that errors hardly average out.
    assert abs(np.average(part.ratio, weights=part.error**-2) - 1) < 0.002


def test_interpolation_takes_no_power(interpolation):
    """Below a tenth of a per mille to ell 3100, where a spline on the pixels takes 1 %."""
    assert np.abs(interpolation.ours - 1).max() < 1e-4
    assert interpolation.spline.min() < 0.99


def test_screen_and_rotation_are_those_of_analysis(effects):
    assert set(effects.effect) == {"patchy screen", "rotation by a field", "rotation by 2°"}
    assert effects.error.max() < 0.007
    assert np.abs(effects.ratio - 1).max() < 0.02


def test_page_shows_every_number(published, lensed, interpolation, effects):
    tables = {
        "published": published,
        "lensed": lensed,
        "interpolation": interpolation,
        "effects": effects,
    }
    text = checks.page(tables, checks.COUNTS)
    assert f"{published.ours[0]:.6g}" in text
    assert f"{lensed.ratio[20]:.4f} ± {lensed.error[20]:.4f}" in text
    assert "{" not in text
    # The page of the checkout was made by this code: the same words, other digits at most.
    bare = re.compile(r"[-+0-9.,e]+")
    assert bare.sub("", PAGE.read_text(encoding="utf-8")) == bare.sub("", text)


def test_published_numbers_in_the_page_are_within_their_bar():
    rows = re.findall(r"^\| (\w+) \|.*\| ([-+.\d]+) % \|$", PAGE.read_text(), re.MULTILINE)
    assert {name for name, _ in rows} == set(checks.PUBLISHED)
    assert max(abs(float(percent)) for _, percent in rows) < 0.5
