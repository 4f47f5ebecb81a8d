"""Tables keep every bit, verdicts never pass what is not a number."""

import json

import numpy as np
import pandas as pd
import pytest

from skyweave.errors import UserError
from skyweave.statistics.tables import read_table, write_table
from skyweave.statistics.verdicts import read_verdicts, verdict, write_verdicts


def test_a_table_survives_its_file_bit_for_bit(tmp_path):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "run": ["1", "null", "NA", ""],
            "statistic": ["transfer", "a, b", 'say "x"', "τ"],
            "value": [0.1 + 0.2, np.nan, np.inf, rng.random() * 1e-300],
            "n": [1, 2, 3, 2**60],
        }
    )
    write_table(tmp_path / "t.csv", frame)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), frame, check_exact=True)


def test_single_precision_is_written_as_the_double_it_equals(tmp_path):
    values = np.array([0.1, 1 / 3], np.float32)
    write_table(tmp_path / "t.csv", pd.DataFrame({"value": values}))
    assert np.array_equal(read_table(tmp_path / "t.csv")["value"], values.astype(float))


def test_a_failed_write_leaves_the_old_table(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, pd.DataFrame({"value": [1.0]}))

    class Unprintable:
        def __str__(self):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write_table(path, pd.DataFrame({"value": [Unprintable()]}))
    assert read_table(path)["value"].tolist() == [1.0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("content", [None, b"", b"a,b\n1,2,3\n4,5,6,7\n", b"\xff\xfe\x00"])
def test_a_missing_or_broken_table_is_named(tmp_path, content):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"t\.csv: expected a"):
        read_table(path)


@pytest.mark.parametrize(
    ("value", "comparison", "passed"),
    [
        (0.5, ">", False), (0.6, ">", True), (0.4, ">", False), (0.5, ">=", True),
        (0.5, "<", False), (0.4, "<", True), (0.6, "<", False), (0.5, "<=", True),
    ],
)  # fmt: skip
def test_a_verdict_compares(value, comparison, passed):
    assert verdict("c", value, 0.5, comparison)["passed"] is passed


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("comparison", [">", "<", ">=", "<="])
def test_what_is_not_finite_never_passes_and_stays_json(tmp_path, lost, comparison):
    entries = [
        verdict("value", lost, 0.5, comparison, note="why"),
        verdict("bar", 0.5, lost, comparison),
    ]
    write_verdicts(tmp_path / "v.json", entries)
    strict = json.loads((tmp_path / "v.json").read_text(), parse_constant=pytest.fail)
    assert strict == entries == read_verdicts(tmp_path / "v.json")
    assert [entry["passed"] for entry in entries] == [False, False]
    assert str(lost) in entries[0]["note"]
    assert "why" in entries[0]["note"]


def test_numpy_numbers_make_plain_json(tmp_path):
    entry = verdict("c", np.float32(0.7), np.float64(0.5), ">", unit="deg")
    write_verdicts(tmp_path / "v.json", [entry])
    assert read_verdicts(tmp_path / "v.json") == [entry]


def test_an_unknown_comparison_is_an_error():
    with pytest.raises(UserError, match="comparison of >, <, >=, <=, found '=='"):
        verdict("c", 1, 1, "==")


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "found none"), ("{", "valid JSON"), ("{}", "a list"),
     ('[{"check": "c"}]', "no 'value'"),
     ("[1]", "no 'check'")],
)  # fmt: skip
def test_a_missing_or_broken_file_of_verdicts_is_named(tmp_path, text, message):
    path = tmp_path / "v.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_verdicts(path)
