"""Plateau and early stop, against sequences worked by hand."""

import json
import math

import pytest

from skyweave.training.schedule import Schedule, factor


def follow(losses, plateau=2, stop=4):
    """Marks of each epoch: g gained, l lowered the rate, s stop; and the last schedule."""
    schedule, marks = Schedule(0.5, plateau, stop), []
    for loss in losses:
        schedule, gained, lower = schedule.after(loss)
        marks.append("g" * gained + "l" * lower + "s" * schedule.stop)
    return marks, schedule


@pytest.mark.parametrize(
    ("losses", "marks"),
    [
        ([5, 4, 3], ["g", "g", "g"]),
        ([5, 5, 5, 5, 5], ["g", "", "l", "", "ls"]),
        ([5, 6, 4, 6, 6, 3], ["g", "", "g", "", "l", "g"]),
        ([5, 6, 7, 4.9, 6, 6, 6, 6], ["g", "", "l", "g", "", "l", "", "ls"]),
        ([5, 6, 6, 6, 4], ["g", "", "l", "", "g"]),
    ],
)
def test_worked_sequences(losses, marks):
    assert follow(losses)[0] == marks


def test_patience_of_one():
    assert follow([2, 2, 2], plateau=1, stop=2)[0] == ["g", "l", "ls"]


def test_no_patience_never_stops():
    marks, schedule = follow([2] * 50, plateau=60, stop=None)
    assert marks == ["g", *[""] * 49]
    assert Schedule(**json.loads(json.dumps(schedule.to_dict()))) == schedule


def test_best_is_the_least():
    schedule = follow([5, 3, 4])[1]
    assert (schedule.best, schedule.still, schedule.without_gain) == (3, 1, 1)


@pytest.mark.parametrize(
    ("schedule", "warmup", "factors"),
    [
        ("plateau", 0, [1, 1, 1, 1, 1, 1]),
        ("plateau", 2, [1 / 2, 1, 1, 1, 1, 1]),
        ("cosine", 0, [1, (2 + 3**0.5) / 4, 3 / 4, 1 / 2, 1 / 4, (2 - 3**0.5) / 4]),
        ("cosine", 3, [1 / 3, 2 / 3, 1, 1, 3 / 4, 1 / 4]),
    ],
)
def test_factors_of_six_updates(schedule, warmup, factors):
    assert [factor(schedule, u, warmup, 6) for u in range(6)] == pytest.approx(factors)


def test_survives_json_before_the_first_epoch():
    fresh = Schedule(0.5, 3, 10)
    assert Schedule(**json.loads(json.dumps(fresh.to_dict()))) == fresh
    assert fresh.best == math.inf
