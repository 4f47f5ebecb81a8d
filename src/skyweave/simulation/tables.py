"""Text tables of spectra that a user brings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator

from skyweave.errors import UserError

COLUMNS = ("dl_tt", "dl_ee", "dl_bb", "dl_te", "dl_kk")
LENSED_COLUMNS = ("dl_lensed_tt", "dl_lensed_ee", "dl_lensed_bb", "dl_lensed_te")

#: Least and most D_ell (T and E in µK²) at the multipole of `judged_at`. In LCDM tt lies between
#: 1.7e3 and 6e3 there, ee between 0.6 and 22 and kk between 2e-4 and 1.3e-3; C_ell of the same
#: sky is below 2, 1e-3 and 2e-7, and K² is 1e12 smaller.
SIZES = {
    "dl_tt": (10.0, 1e6),
    "dl_ee": (0.02, 1e4),
    "dl_kk": (1e-5, 1.0),
    "dl_lensed_tt": (10.0, 1e6),
    "dl_lensed_ee": (0.02, 1e4),
}


def read_columns(
    path: str | Path,
    required: Sequence[str],
    *,
    optional: Sequence[str] = (),
    positive: Sequence[str] = (),
    rows: int = 2,
) -> dict[str, np.ndarray]:
    """Columns of a text table by name, in the order of the file; the first line names them.

    Values are separated by white space or commas; the first line may begin with ``#``. Columns
    other than `required` and `optional` are left out. Raises `UserError` for a missing file or
    column, a line that doesn't fit, a value that is not finite, an `ell` that does not increase,
    fewer than `rows` lines, and a negative value in a column of `positive`.
    """
    lines = _lines(path)
    names = lines[0][1]
    for name in names:
        if names.count(name) > 1:
            raise UserError(path, "each column once in the first line", f"{name!r} twice")
    for name in required:
        if name not in names:
            raise UserError(path, f"a column {name!r} in the first line", " ".join(names))
    if len(lines) - 1 < rows:
        raise UserError(path, f"at least {rows} lines of numbers", len(lines) - 1)
    values = np.array([_numbers(path, number, words, names) for number, words in lines[1:]])
    columns = {
        name: column
        for name, column in zip(names, values.T, strict=True)
        if name in (*required, *optional)
    }
    for name, column in columns.items():
        bad = ~np.isfinite(column)
        if bad.any():
            raise UserError(path, f"finite values in {name!r}", f"{column[bad][0]}")
        if name in positive and (column < 0).any():
            raise UserError(path, f"no negative value in {name!r}", f"{column.min():g}")
    steps = np.diff(columns["ell"])
    if (steps <= 0).any():
        where = int(np.argmax(steps <= 0))
        pair = columns["ell"][where : where + 2]
        raise UserError(path, "'ell' to increase", f"{pair[1]:g} after {pair[0]:g}")
    if columns["ell"][0] < 0:
        raise UserError(path, "'ell' from 0 up", f"{columns['ell'][0]:g}")
    return columns


def read_spectra(path: str | Path, lmax: int) -> dict[str, np.ndarray]:
    """C_ell at ell = 0..lmax (µK²; kk without unit) of a table of D_ell.

    Columns ``ell dl_tt dl_ee dl_bb dl_te dl_kk`` and, if present, ``dl_lensed_tt``, …; all are
    D_ell = ell(ell+1)C_ell/2pi, kappa's too. A table in steps of more than one multipole is
    interpolated (monotone cubic). Raises `UserError` as `read_columns` does, and when the table
    starts above 2, ends below `lmax`, holds C_ell or another unit by its size, or has
    |TE|² > TT·EE.
    """
    positive = [name for name in (*COLUMNS, *LENSED_COLUMNS) if not name.endswith("te")]
    columns = read_columns(path, ("ell", *COLUMNS), optional=LENSED_COLUMNS, positive=positive)
    ell = columns.pop("ell")
    if ell[0] > 2:
        raise UserError(path, "'ell' to start at 2 or below", f"{ell[0]:g}")
    if ell[-1] < lmax:
        raise UserError(path, f"'ell' up to spectra.lmax ({lmax}) at least", f"{ell[-1]:g}")
    if (at := judged_at(ell)) is not None:
        for name, size in SIZES.items():
            unit = "" if name == "dl_kk" else "µK²"
            if name in columns:
                check_size(path, name, at, np.interp(at, ell, columns[name]), size, unit)
    excess = columns["dl_te"] ** 2 > columns["dl_tt"] * columns["dl_ee"] * (1 + 1e-9)
    if excess.any():
        where = f"more at ell {ell[np.argmax(excess)]:g}"
        raise UserError(path, "dl_te² of at most dl_tt·dl_ee", where)
    every = np.arange(2, lmax + 1, dtype=float)
    factor = 2 * np.pi / (every * (every + 1))
    spectra = {}
    for name, dl in columns.items():
        spectra[name.removeprefix("dl_")] = cl = np.zeros(lmax + 1)
        cl[2:] = PchipInterpolator(ell, dl)(every) * factor
    return spectra


def judged_at(ell: np.ndarray) -> float | None:
    """Multipole at which a table's size tells D_ell from C_ell: 500, or where it ends below.

    None for a table that ends below 100, where the two are too much alike, or starts above 500.
    """
    at = min(500.0, ell[-1])
    return at if at >= max(100.0, ell[0]) else None


def check_size(
    path: str | Path, name: str, at: float, dl: float, size: tuple[float, float], unit: str = ""
) -> None:
    """Raise `UserError` where `dl`, a column's value at ell `at`, is outside `size` and not zero.

    The message says what would be inside as D_ell: C_ell or, of a column in µK² (`unit`), K².
    """
    least, most = size
    if dl == 0 or least <= dl <= most:
        return
    to_dl = at * (at + 1) / (2 * np.pi)
    slips = {"C_ell": to_dl}
    if unit == "µK²":
        slips |= {"K²": 1e12, "C_ell in K²": 1e12 * to_dl}
    hint = next((f" ({slip}?)" for slip in slips if least <= dl * slips[slip] <= most), "")
    kind = f"D_ell in {unit}" if unit else "D_ell"
    expected = f"{name!r} of {least:.3g} to {most:.3g} at ell {at:g} ({kind})"
    raise UserError(path, expected, f"{dl:.3g}{hint}")


def _lines(path: str | Path) -> list[tuple[int, list[str]]]:
    """Lines that hold words, with their numbers; of comments only the first line's."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(path, "a table of spectra", "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, "a text table of spectra", type(error).__name__) from None
    lines = [
        (number, line.replace(",", " ").lstrip("#").split())
        for number, line in enumerate(text.splitlines(), 1)
        if number == 1 or not line.startswith("#")
    ]
    lines = [(number, words) for number, words in lines if words]
    if not lines:
        raise UserError(path, "a table of spectra", "an empty file")
    return lines


def _numbers(path: str | Path, number: int, words: list[str], names: list[str]) -> list[float]:
    if len(words) != len(names):
        raise UserError(path, f"{len(names)} values in line {number}", len(words))
    try:
        return [float(word) for word in words]
    except ValueError:
        raise UserError(path, f"numbers in line {number}", " ".join(words)[:60]) from None
