"""Which realization serves training, validation or test."""

import os
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd

from skyweave import seeds
from skyweave.config import Split
from skyweave.errors import UserError

SPLITS = ("train", "validation", "test")
BLOCK = 100


def assign(
    realizations: Sequence[int] | np.ndarray,
    split: Split,
    seed: int,
    dataset: str,
    *,
    together: int = 1,
) -> pd.DataFrame:
    """Table of `realization` and `split`, ascending.

    A number's part depends on the seed, the dataset's name and the shares alone, so it stays when
    realizations are added. Each block of 100 consecutive numbers holds the exact shares in an
    order of its own, and each beginning of a block holds them to less than one realization.
    Realizations 0 to `together` - 1, the next so many, and so on, stay in one part: where there is
    more than one, blocks are of 100 such groups.

    Raises `UserError` where a part with a share above 0 would be empty.
    """
    numbers = np.unique(np.asarray(realizations, dtype=np.int64))
    shares = [Fraction(getattr(split, name)).limit_denominator(10**6) for name in SPLITS[:-1]]
    shares.append(max(Fraction(0), 1 - sum(shares, Fraction(0))))
    labels = np.empty(numbers.size, dtype=np.int64)
    groups = numbers // together
    for block in np.unique(groups // BLOCK):
        inside = groups // BLOCK == block
        rng = seeds.generator(seed, dataset, "split", int(block))
        labels[inside] = _sequence(shares, rng)[groups[inside] % BLOCK]
    for index, (name, share) in enumerate(zip(SPLITS, shares, strict=True)):
        if share and not (labels == index).any():
            raise UserError(
                f"datasets.{dataset}.split",
                f"at least one realization for {name}",
                f"none among {numbers.size}"
                + (f", {together} of which stay together" if together > 1 else ""),
            )
    return pd.DataFrame({"realization": numbers, "split": np.asarray(SPLITS)[labels]})


def _sequence(shares: Sequence[Fraction], rng: np.random.Generator) -> np.ndarray:
    """Random labels (BLOCK,), the first t of which hold each share r to floor or ceil of r·t.

    Such sequences exist for any shares (Steiner & Yeomans 1993, just-in-time sequencing); a label
    is drawn among those after which the counts that later beginnings need still fit.
    """
    times = np.arange(BLOCK + 1)
    least = np.array([[int(r * int(t)) for t in times] for r in shares])
    most = np.array([[-int(-r * int(t) // 1) for t in times] for r in shares])
    counts = np.zeros(len(shares), dtype=np.int64)
    labels = np.empty(BLOCK, dtype=np.int64)
    for t in range(BLOCK):
        for label in rng.permutation(len(shares)):
            counts[label] += 1
            room = times[t + 1 :] - (t + 1)
            needed = np.maximum(least[:, t + 1 :] - counts[:, None], 0).sum(axis=0)
            offered = np.maximum(most[:, t + 1 :] - counts[:, None], 0).sum(axis=0)
            if (
                counts[label] <= most[label, t + 1]
                and (needed <= room).all()
                and (offered >= room).all()
            ):
                labels[t] = label
                break
            counts[label] -= 1
        else:
            raise AssertionError(f"no sequence for the shares {shares}")
    return labels


def read_split(path: str | os.PathLike) -> pd.DataFrame:
    """Read a split table (CSV) written from `assign`.

    Raises `UserError` naming the file for other columns, unknown parts or a realization twice.
    """
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(path, "a CSV table", error) from None
    if list(frame.columns) != ["realization", "split"]:
        raise UserError(path, "columns realization, split", ", ".join(map(str, frame.columns)))
    if not pd.api.types.is_integer_dtype(frame["realization"]):
        raise UserError(path, "whole numbers in `realization`", str(frame["realization"].dtype))
    unknown = set(frame["split"]) - set(SPLITS)
    if unknown:
        raise UserError(path, f"one of {', '.join(SPLITS)}", repr(min(map(str, unknown))))
    if frame["realization"].duplicated().any():
        twice = frame.loc[frame["realization"].duplicated(), "realization"].iloc[0]
        raise UserError(path, "each realization once", f"realization {twice} twice")
    return frame


def members(frame: pd.DataFrame, split: str) -> np.ndarray:
    """Numbers (n,) int64 of the realizations in `split`, ascending."""
    if split not in SPLITS:
        raise UserError("split", f"one of {', '.join(SPLITS)}", repr(split))
    return np.sort(frame.loc[frame["split"] == split, "realization"].to_numpy(np.int64))


def some(parts: pd.DataFrame, part: str, count: int, seed: int, *identity: str | int) -> np.ndarray:
    """Numbers (n,) int64 of `count` realizations of a part, ascending; of all if it has no more.

    They are drawn by (seed, *identity): the first of a catalogue are those of one end of its order.
    """
    numbers = members(parts, part)
    if count >= len(numbers):
        return numbers
    return np.sort(seeds.generator(seed, *identity).choice(numbers, count, replace=False))
