"""Long-form tables as CSV: written whole or not at all, read back to the last bit."""

import os

import numpy as np
import pandas as pd

from skyweave.errors import UserError
from skyweave.files import atomic

#: Columns of names: a run called "1" or "null" stays a word.
TEXT = ("run", "dataset", "split", "field", "method", "statistic", "check", "unit", "note")


def write_table(path: str | os.PathLike, frame: pd.DataFrame) -> None:
    """Write `frame` without its index, atomically; numbers in full precision, NaN as empty.

    Single-precision columns are written as the doubles that they equal.
    """
    narrow = {name: np.float64 for name, kind in frame.dtypes.items() if kind == np.float32}
    with atomic(path) as temporary:
        frame.astype(narrow).to_csv(temporary, index=False)


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Read a table of `write_table`; raises `UserError` when it is missing or broken.

    Columns named in `TEXT` stay words; of the others, whole numbers become int64, numbers
    float64 (each the double nearest to what is written), and anything else stays words.
    """
    try:
        words = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(path, "a table", "none") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(path, "a CSV table", str(error).splitlines()[0]) from None
    return words.assign(**{str(name): _numbers(words[name]) for name in words if name not in TEXT})


def _numbers(words: pd.Series) -> pd.Series:
    """The column as int64, else float64 with NaN where empty, else as it is."""
    for kind, texts in (("int64", words), ("float64", words.replace("", "nan"))):
        try:
            return pd.Series(texts.to_numpy(object).astype(kind), index=words.index)
        except ValueError:
            continue
    return words


def markdown(table: pd.DataFrame) -> str:
    """A table of words as Markdown, without its index."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
