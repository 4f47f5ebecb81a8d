"""A run on other datasets than its own: what differs there, and what it is worth."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skyweave.report import read
from skyweave.report.differences import difference
from skyweave.report.record import Drawn, write
from skyweave.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    SKY,
    canvas,
    field_label,
    grid_shape,
    hide_unused,
    legend_below,
    log_ell,
    plain_field,
)

FILES = ("generalization.svg",)
TABLE_COLUMNS = ("run", "dataset", "field", "method", "statistic", "value", "error", "n")
_METRICS = ("split", "field", "method", "statistic", "ell", "value", "error")
_COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, GREY)
_MARKERS, _LINES = "osD^vP*", ("-", "--", ":", "-.")


def draw_generalization(metrics: Mapping[str, Path], out_folder: str | Path) -> None:
    """Draw the network's r_ell on several datasets (`FILES`), a CSV beside it, and figures.json.

    metrics: a table of metrics by dataset, first that of the run's own. Raises `UserError` for one
    that is missing or broken.
    """
    out, tables = Path(out_folder), []
    for name, path in metrics.items():
        table = read.table(path, _METRICS)
        kept = (table["split"] == "test") & (table["method"] == "network")
        tables.append(table[kept & (table["statistic"] == "correlation")].assign(dataset=name))
    rows = pd.concat(tables, ignore_index=True)
    own, *others = metrics
    fields = ", ".join(plain_field(str(field)) for field in rows["field"].unique())
    caption = (
        "Correlation coefficient r_ell of the network's prediction and the truth on the test set "
        f"of the dataset that it was trained on ({own}, black) and on those of others. It "
        "generalizes where a curve lies on the black one; more noise or a wider beam would lower "
        "any estimate's."
    )
    alt = f"Correlation against multipole for {fields} on {own}, {', '.join(others)}."
    correlations(rows, own, out / FILES[0])
    write(out, "reconstruction", [Drawn(FILES[0], "Other test sets", caption, alt, rows)])


def correlations(rows: pd.DataFrame, own: str, path: Path) -> None:
    """Draw r_ell with errors, a panel a field and a curve a dataset; `own` in black."""
    parts = [part for _, part in rows.groupby("field", sort=False)]
    styles = dict(_styles(list(rows["dataset"].unique()), own))
    height, width = grid_shape(len(parts))
    with canvas(path, height, width, size=(3.6 * width, 3.2 * height + 0.6)) as (figure, axes):
        hide_unused(axes, len(parts))
        panels = list(zip(axes.ravel(), parts, strict=False))
        for ax, part in panels:
            for name, curve in part.groupby("dataset", sort=False):
                one = curve.sort_values("ell")
                ell, value, error = (one[key].to_numpy(float) for key in ("ell", "value", "error"))
                ax.errorbar(ell, value, np.nan_to_num(error), label=name, **styles[str(name)])
            ax.axhline(0, color=GREY, lw=0.8)
            low = np.nan_to_num(part["value"].min())
            ax.set_ylim(max(-1.05, min(-0.08, low - 0.05)), 1.06)
            ax.set_ylabel(r"correlation $r_\ell$")
            log_ell(ax)
            ax.set_title(field_label(str(part["field"].iloc[0])))
        legend_below(figure, [ax for ax, _ in panels])


def _styles(names: Sequence[str], own: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Colour, marker and line of each dataset: pairs of these repeat after 28 of them."""
    yield own, {"color": BLACK, "marker": "", "ls": "-", "lw": 2.2, "zorder": 3}
    for number, name in enumerate(one for one in names if one != own):
        colour, line = number % len(_COLOURS), number // len(_COLOURS) % len(_LINES)
        look = {"marker": _MARKERS[colour], "ls": _LINES[line], "lw": 1, "ms": 3}
        yield name, {"color": _COLOURS[colour]} | look


def is_tested(run: str, study: Mapping[str, Any]) -> bool:
    """Whether a run is judged on other datasets too."""
    return bool(study.get("runs", {}).get(run, {}).get("tests"))


def elsewhere(runs: Sequence[tuple[str, Path]], study: Mapping[str, Any]) -> dict[str, Any]:
    """Table of what each run that has `tests` is worth on its own test set and on the others'.

    `runs` are names and folders. `columns` are keys and titles, `rows` texts by key: the pixel
    correlation of each field, and of kappa the power predicted for null maps (`null_power`).
    """
    rows, fields = [], dict[str, str]()
    for name, folder in (one for one in runs if is_tested(one[0], study)):
        table = read.table(folder / "generalization.csv", TABLE_COLUMNS)
        table = table[table["method"] == "network"]
        own = study["runs"][name]["dataset"]
        for dataset, part in table.groupby("dataset", sort=False):
            correlation = _values(part, "pixel_correlation")
            fields |= {field: f"{plain_field(field)}: correlation" for field in correlation}
            null = {f"{field} null": text for field, text in _values(part, "null_power").items()}
            settings = study["datasets"]
            differs = difference(settings.get(own, {}), settings.get(str(dataset), {}))
            first = {"run": name, "anchor": f"run-{name}", "dataset": str(dataset)}
            first["differs"] = "its own" if dataset == own else differs
            rows.append(first | correlation | null)
    if any("kappa null" in row for row in rows):
        fields["kappa null"] = f"{plain_field('kappa')}: power for null maps"
    columns = [("run", "Run"), ("dataset", "Tested on"), ("differs", "What differs there")]
    columns += fields.items()
    return {"columns": columns, "rows": [{key: "–" for key, _ in columns} | row for row in rows]}


def _values(table: pd.DataFrame, statistic: str) -> dict[str, str]:
    """A statistic of each field with its error, as text."""
    return {
        row["field"]: f"{row['value']:.3f}"
        + (f" ± {row['error']:.3f}" if row["error"] >= 0 else "")
        for row in table[table["statistic"] == statistic].to_dict("records")
    }
