"""The page of filled holes, from tables made up."""

import re
from pathlib import Path

import pandas as pd
import pytest

from skyweave.config import load
from skyweave.errors import UserError
from skyweave.tasks.holes_page import STUDY, page
from skyweave.tasks.inpainting import cases

METHODS = ("network", "sampled", "constrained", "realization", "diffusive", "iterated")


def rows(method, case):
    """Errors, power in two bands and shifts of two classes, of which the second is furthest off."""
    found = [
        ("error_rms_hole", 0.5, 0.01),
        ("error_ratio", 1.25, 0.02),
        ("power_ratio_wide", 1.001, 0.001),
        ("power_ratio_wide", 0.97, 0.002),
        ("class_shift_0.85", 0.02, 0.01),
        ("class_shift_1.05", -0.015, 0.001),
    ]
    return [(method, case, name, float("nan"), value, error, 40) for name, value, error in found]


@pytest.fixture
def results(tmp_path):
    for name, run in load(STUDY).runs.items():
        table = [row for case in cases(run) for method in METHODS for row in rows(method, case)]
        for case in cases(run):
            table.append(("truth", case, "area", float("nan"), 0.25, 0.0, 40))
            table.append(("truth", case, "estimate_scatter", float("nan"), 0.034, 0.003, 40))
        columns = ["method", "case", "statistic", "ell", "value", "error", "n"]
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        pd.DataFrame(table, columns=columns).to_csv(folder / "metrics.csv", index=False)
    return tmp_path


def test_page_tells_what_is_furthest_off(results):
    lines = page(results).splitlines()
    errors, power, index = (
        next(line for line in lines[lines.index(head) :] if line.startswith("| random"))
        for head in ("## Error in the holes", "## Power of the filled maps", "## n_s")
    )
    assert errors.count("0.5000 ± 0.0100") == 6
    assert errors.count("(×1.250)") == 4
    assert power.count("0.9700 ± 0.0020") == 5
    assert index.count("−0.0150 ± 0.0010") == 6
    assert "40 patches" in page(results)


def test_a_run_without_results_is_named(results):
    (results / "runs" / "squares" / "metrics.csv").unlink()
    with pytest.raises(UserError, match=r"squares/metrics\.csv"):
        page(results)


def test_the_page_in_docs_has_these_words(results):
    """Its numbers, and with them the ends of its lines, are those of `make holes`."""

    def words(text):
        lines = (line for line in text.splitlines() if not line.startswith("|"))
        return re.sub(r"[\d.]+", "#", "\n".join(lines)).split()

    written = (Path(__file__).parents[1] / "docs" / "holes.md").read_text(encoding="utf-8")
    assert words(written) == words(page(results))
