"""How near to the Gaussian optimum networks fill holes; a page of tables.

`python -m skyweave.tasks.holes_page RESULTS FILE` reads the results of `config/studies/holes.yaml`,
prints the page and writes it to FILE.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config import InpaintingRun, load
from skyweave.data.predictions import NETWORK
from skyweave.errors import UserError
from skyweave.files import write_text
from skyweave.report import read
from skyweave.statistics.tables import markdown
from skyweave.tasks.inpainting import cases

STUDY = "config/studies/holes.yaml"

_HEAD = """\
# Filled holes

Made by `make holes` from the test set of `{study}`: {patches} patches of 64² pixels and 5°, 10
µK-arcmin, crops of larger maps in three classes of n_s, on holes of the training's kind (a quarter
of each patch) and on discs. `published` has the losses and stages of CoMBInE, `squares` squared
errors alone; `diffusive` and `corrected` correct the harmonic continuation and the Gaussian
optimum. Errors are jackknife over patches.

The columns `constrained` (the mean of a Gaussian sky given what is seen, the optimum) and
`harmonic` need no network.
"""

_ERRORS = """\
## Error in the holes

Rms in the holes alone over the field's rms; behind it the ratio to the optimum, whose bar is 1.05
for discs of up to 25 pixels.
"""

_POWER = """\
## Power of the filled maps

Over the truth's, furthest from 1 in one of four wide bands below ell 2000, with the fluctuations
that a mean lacks; the bar is 0.01 for holes of up to a tenth of the patch. `realization` is the
optimum with the same fluctuations.
"""

_INDEX = """\
## n_s

Shift of the index that is estimated from filled maps against that of the same maps when whole, of
the class furthest off in its standard errors, with the fluctuations. A whole map's own scatters by
{scatter}. The networks know the mean spectrum of all classes, to which holes are
drawn by it, and `realization` each map's own; `iterated` is `corrected` filled again with what each
map tells.
"""


def page(results: Path) -> str:
    """The page; raises `UserError` for results that are missing."""
    runs = {n: run for n, run in load(STUDY).runs.items() if isinstance(run, InpaintingRun)}
    columns = ("method", "case", "statistic", "ell", "value", "error", "n")
    tables = {n: read.table(results / "runs" / n / "metrics.csv", columns) for n in runs}
    first = next(iter(tables.values()))
    whole = _row(first, "truth", "holes", "estimate_scatter")
    own = [(name, table, NETWORK) for name, table in tables.items()]
    drawn = [(name, table, "sampled") for name, table in tables.items()]
    told = ("iterated", tables["corrected"], "iterated")
    named = cases(next(iter(runs.values())))
    ratios = {
        (name, case): _row(t, NETWORK, case, "error_ratio") for name, t, _ in own for case in named
    }
    errors = [("constrained", first, "constrained"), ("harmonic", first, "diffusive"), *own]
    parts = [
        _HEAD.format(study=STUDY, patches=int(whole["n"])),
        _ERRORS,
        _table(first, named, errors, "error_rms_hole", ratios),
        _POWER,
        _table(first, named, [("realization", first, "realization"), *drawn], "power_ratio_wide"),
        _INDEX.format(scatter=_words(whole)),
        _table(first, named, [("realization", first, "realization"), *drawn, told], "class_shift_"),
    ]
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def _table(
    first: pd.DataFrame,
    named: list[str],
    columns: list[tuple[str, pd.DataFrame, str]],
    statistic: str,
    ratios: dict[tuple[str, str], pd.Series] | None = None,
) -> str:
    """A row a kind of holes, a column a method."""
    rows = []
    for case in named:
        radius = case.partition("_")[2]
        area = float(_row(first, "truth", case, "area")["value"])
        row = {
            "holes": f"radius {radius}" if radius else "random",
            "missing": f"{100 * area:.3g} %",
        }
        for name, table, method in columns:
            row[name] = _words(_row(table, method, case, statistic))
            if ratios and (name, case) in ratios:
                row[name] += f" (×{ratios[name, case]['value']:.3f})"
        rows.append(row)
    return markdown(pd.DataFrame(rows))


def _row(table: pd.DataFrame, method: str, case: str, statistic: str) -> pd.Series:
    """The statistic's row: of several, by ell, the furthest from 1; with a name that goes on, by
    class, the furthest from 0 in its errors."""
    of_class = statistic.endswith("_")
    own = (
        table["statistic"].str.startswith(statistic)
        if of_class
        else table["statistic"] == statistic
    )
    rows = table[(table["method"] == method) & (table["case"] == case) & own]
    if not len(rows):
        raise UserError("metrics.csv", f"{statistic} of {method} in {case}", "none")
    off = rows["value"] / rows["error"] if of_class else rows["value"] - 1
    return rows.iloc[int(np.argmax(off.abs().to_numpy())) if len(rows) > 1 else 0]


def _words(row: pd.Series) -> str:
    return f"{row['value']:.4f} ± {row['error']:.4f}".replace("-", "−")


if __name__ == "__main__":
    try:
        text = page(Path(sys.argv[1]))
        write_text(sys.argv[2], text)
    except UserError as error:
        sys.exit(str(error))
    print(text)
