"""What adversarial trainings keep and bring, beside a plain one and samples; a page of tables.

`python -m skyweave.tasks.adversary_page RESULTS FILE` reads the results of
`config/studies/adversary.yaml`, prints the page and writes it to FILE.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from skyweave.config import Config, DecompositionRun, load
from skyweave.data.predictions import NETWORK
from skyweave.errors import UserError
from skyweave.files import write_text
from skyweave.report import read
from skyweave.report.style import plain_field
from skyweave.statistics.fidelity import ELL, MEAN, SAMPLES
from skyweave.statistics.tables import markdown

STUDY = "config/studies/adversary.yaml"

_HEAD = """\
# Power and correlation

Made by `make adversary` from the test set of `{study}`: {patches} patches, of which spectra are of
those whose truth is not empty. Each run is the same generator on the same patches; it begins where
`plain`, which knows no discriminator, does, or with its weights (`start`).

- off: the power of the prediction over the truth's, furthest from 1 in a band below ell {ell:.0f}.
- loss: the largest loss of r_ell in a band against `plain`, on the same patches; below 0 every
  band gains.
- the means are over the bands below ell {ell:.0f}, each with the same weight, with jackknife
  errors over patches.

The bars are 0.05 for off and 0.01 for loss; a run that keeps both is marked ✓. Of runs that make
samples, power is that of each sample, and correlation that of the mean of infinitely many.
"""


def page(results: Path) -> str:
    """The page; raises `UserError` for results that are missing."""
    study = load(STUDY)
    tables = {name: _metrics(results, name) for name in study.runs}
    run = study.runs["plain"]
    assert isinstance(run, DecompositionRun)
    counted = tables["plain"]
    patches = int(counted[counted["statistic"] == "patches"]["value"].max())
    parts = [_HEAD.format(study=STUDY, ell=ELL, patches=patches)]
    for field in run.targets:
        parts += [f"## {plain_field(field)}", markdown(_of_field(study, tables, field))]
    parts += ["## Settings", "What each run has that `plain` has not.", _settings(study)]
    return "\n\n".join(parts) + "\n"


def _metrics(results: Path, name: str) -> pd.DataFrame:
    columns = ("field", "method", "statistic", "ell", "value", "error")
    table = read.table(results / "runs" / name / "metrics.csv", columns)
    return table[table["split"] == "test"]


def _of_field(study: Config, tables: dict[str, pd.DataFrame], field: str) -> pd.DataFrame:
    """A row a run: means, the worst band of each, and whether both bars are kept."""
    rows = []
    for name, run in study.runs.items():
        assert isinstance(run, DecompositionRun)
        table = tables[name][tables[name]["field"] == field]
        powered = SAMPLES if run.makes_samples else NETWORK
        ratio = _bands(table, powered, "power_ratio")
        ratio = ratio[ratio["ell"] < ELL]
        off = float((ratio["value"] - 1).abs().max(skipna=False))
        difference = _bands(table, "plain", "correlation_difference")
        loss = None if difference.empty else float((-difference["value"]).max(skipna=False))
        kept = loss is not None and off <= 0.05 and loss <= 0.01
        rows.append(
            {
                "run": f"`{name}`",
                "power ratio": _mean(table, powered, "mean_power_ratio"),
                "off": f"{off:.3f}",
                "r": _mean(table, MEAN if run.makes_samples else NETWORK, "mean_correlation"),
                "loss": "–" if loss is None else f"{loss:.4f}".replace("-", "−"),
                "both": "✓" if kept else "",
            }
        )
    return pd.DataFrame(rows)


def _bands(table: pd.DataFrame, method: str, statistic: str) -> pd.DataFrame:
    rows = table[(table["method"] == method) & (table["statistic"] == statistic)]
    return rows[rows["ell"].notna()]


def _mean(table: pd.DataFrame, method: str, statistic: str) -> str:
    rows = table[(table["method"] == method) & (table["statistic"] == statistic)]
    if rows.empty:
        raise UserError("metrics.csv", f"{statistic} of {method}", "none")
    return f"{rows['value'].iloc[0]:.3f} ± {rows['error'].iloc[0]:.3f}"


def _settings(study: Config) -> str:
    """What each run has that the plain one has not, as YAML."""
    plain = _flat(study.runs["plain"].model_dump(mode="json"))
    found = {}
    for name, run in study.runs.items():
        assert isinstance(run, DecompositionRun)
        own = _flat(run.model_dump(mode="json"))
        others = {key: value for key, value in own.items() if value != plain[key]}
        found[name] = {key: others[key] for key in others if key not in ("beside", "method")}
        found[name] = {"method": run.method} | found[name] if name != "plain" else own
    text = yaml.safe_dump(found, sort_keys=False, default_flow_style=None, width=98)
    return f"```yaml\n{text}```"


def _flat(section: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[before + key] = value
    return found


def main(results: str, path: str) -> None:
    """Print the page and write it."""
    text = page(Path(results))
    print(text)
    write_text(path, text)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
