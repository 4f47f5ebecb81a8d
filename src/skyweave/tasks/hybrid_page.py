"""A network that starts from estimates, beside the published one; writes docs/hybrid.md.

`python -m skyweave.tasks.hybrid_page RESULTS FILE` reads the results of
`config/studies/hybrid_cpu.yaml`, prints the page and writes it to FILE, and a figure beside it.
"""

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skyweave.data.predictions import NETWORK
from skyweave.errors import UserError
from skyweave.files import write_text
from skyweave.report import read
from skyweave.report.cost import cost
from skyweave.report.reconstruction import METRIC_COLUMNS
from skyweave.report.style import plain_field
from skyweave.report.training_cost import curves, draw
from skyweave.statistics.tables import markdown
from skyweave.tasks.hybrid_results import BANDS, HYBRID, PLAIN, PUBLISHED, correlations, read_card

#: Columns of the tables, in their order.
_COLUMNS = {
    "published": "published",
    "analytic_eb": "analytic E/B",
    "wiener": "Wiener filter",
    "quadratic": "quadratic",
    "iterative": "iterative",
    HYBRID: f"`{HYBRID}`",
    PLAIN: f"`{PLAIN}`",
    "theory_quadratic": "quadratic, predicted",
    "theory_iterative": "iterative, predicted",
}

#: Standard errors from which on a difference counts as one.
_SIGMAS = 2


def _by_band(table: pd.DataFrame, field: str) -> str:
    """A table of r, a row a band and a column a method, and what the hybrid has over the others."""
    part = table[table["field"] == field]
    there = [name for name in _COLUMNS if (part["method"] == name).any()]
    columns = {"ell": [f"{low:.0f}–{high:.0f}" for low, high in pairwise(BANDS.edges)]}
    words = []
    for name in there:
        rows = part[part["method"] == name].sort_values("band")
        columns[_COLUMNS[name]] = [_value(row) for row in rows.to_dict("records")]
        if name != HYBRID:
            words.append(f"- {_gain(rows, _COLUMNS[name])}")
    lines = [f"Of {BANDS.count} bands `{HYBRID}` has the larger r in", "", *words]
    return "\n".join([markdown(pd.DataFrame(columns)), "", *lines])


def _value(row: dict[Any, Any]) -> str:
    """A value, with its error if it has one."""
    if np.isnan(row["error"]):
        return f"{row['value']:.2f}" if row["method"] == "published" else f"{row['value']:.3f}"
    return f"{row['value']:.3f} ± {row['error']:.3f}"


def _gain(rows: pd.DataFrame, name: str) -> str:
    """In how many bands the hybrid is above a method, and by how much."""
    gain, error = rows["gain"].to_numpy(), rows["gain_error"].to_numpy()
    span = f"{gain.min():+.3f} to {gain.max():+.3f}".replace("-", "−")
    words = f"{(gain > 0).sum()} beside {name}: the difference is {span}"
    if np.isnan(error).all():
        return words
    above, below = ((sign * gain > _SIGMAS * error).sum() for sign in (1, -1))
    return f"{words}, above 0 by {_SIGMAS} of its standard errors in {above}, below in {below}"


def _runs(results: Path) -> str:
    """A table of what each network is and what its training took."""
    rows = []
    for run in (HYBRID, PLAIN):
        card, folder = read_card(results, run), results / "runs" / run
        history = read.table(folder / "history.csv", ("epoch", "seconds"))
        counts, training = card["data"]["realizations"], card["settings"]["training"]
        rows.append(
            {
                "network": _COLUMNS[run],
                "from": ", ".join(f"`{name}`" for name in card["inputs"]),
                "parameters": f"{card['parameters']:,}",
                "patches trained on": f"{counts['train']:,}",
                "epochs": f"{len(history)}, of which {card['metrics']['epoch']} kept"
                if training["select"]["by"] != "last"
                else str(len(history)),
                "minutes": f"{history['seconds'].sum() / 60:.0f}",
            }
        )
    rows.append(
        {
            "network": "published",
            "from": "`q_obs`, `u_obs`",
            "parameters": "5,292,367",
            "patches trained on": "56,000",
            "epochs": "at most 500",
            "minutes": "–",
        }
    )
    return markdown(pd.DataFrame(rows))


def _bought(rows: pd.DataFrame, field: str) -> str:
    """When the hybrid's correlation on the validation set reached what the other one ended with."""
    network = rows[(rows["method"] == "network") & (rows["field"] == field)]
    hybrid, plain = (network[network["run"] == run] for run in (HYBRID, PLAIN))
    first, best = hybrid.iloc[0], plain.sort_values("value", ascending=False).iloc[0]
    words = (
        f"Of {plain_field(field)}, `{HYBRID}` has {first['value']:.3f} after its first epoch "
        f"({first['minutes']:.1f} minutes) and at most {hybrid['value'].max():.3f}, `{PLAIN}` at "
        f"most {best['value']:.3f} (after {best['minutes']:.1f} minutes)"
    )
    reached = hybrid[hybrid["value"] >= best["value"]]
    if reached.empty:
        return f"{words}, which `{HYBRID}` does not reach."
    return f"{words}, which `{HYBRID}` reaches after {reached['minutes'].iloc[0]:.1f} minutes."


def _coverage(results: Path) -> str:
    """Share of pixels in the intervals that the hybrid network predicts."""
    metrics = read.table(results / "runs" / HYBRID / "metrics.csv", METRIC_COLUMNS)
    pixels = metrics[metrics["ell"].isna() & (metrics["method"] == NETWORK)]
    rows = []
    for field, part in pixels.groupby("field", sort=False):
        found = {row["statistic"]: row for row in part.to_dict("records")}
        shares = {
            f"in the {level} % interval": _value(found[f"coverage_{level}"])
            for level in (68, 95)
            if f"coverage_{level}" in found
        }
        if shares:
            rows.append({"field": plain_field(str(field))} | shares)
    if not rows:
        return "The network of this run predicts none (`network.uncertainty` is off)."
    return markdown(pd.DataFrame(rows))


_PAGE = """\
# From estimates to a network

`make hybrid` makes this page of a run of `config/studies/hybrid_cpu.yaml`: patches like those of
arXiv:2101.01214, {size:g}° and {pixels}² pixels, {channels}. `{hybrid}` corrects
classical estimates; `{plain}` is the published architecture with {width:g} times its channels.

{runs}

## Correlation with the truth

r in broad bands of ell on {test} test patches, with errors by jackknife over the patches.
"Published" is one map of the authors' noiseless network, from the pictures in its notebook, and has
two digits and no error. "Predicted" are Wiener-filtered estimates with the noise that theory gives:
of the quadratic estimator, and when as much lensing is taken back as can be told
(`skyweave.tasks.theory`); it knows nothing of the taper, nor of what a lensed sky has of noise that
a Gaussian one has not.

{fields}

## What training buys

![Correlation against minutes of training]({figure})

{measure} on the validation set, by minutes of training. The estimates that `{hybrid}` starts from
are no part of these: their calibration took {calibrate:.0f} minutes of CPU time, they themselves
{estimate:.0f} for all patches.

{bought}

## Predicted errors

Share of the test patches' pixels whose truth lies in the interval that `{hybrid}` predicts:

{coverage}
"""


def page(results: Path, figure: Path) -> str:
    """Markdown of the results of the study; draws the curves of its training to `figure`."""
    card = read_card(results, HYBRID)
    ell = card["settings"]["training"]["select"]["ell"]
    folders = {run: results / "runs" / run for run in (HYBRID, PLAIN)}
    rows, statistic = curves(folders, (ell[0], ell[1]))
    draw(rows, statistic, figure)
    mean = f"Mean r of the bands from ell {ell[0]:g} to {ell[1]:g}"
    table = correlations(results)
    fields = sorted(table["field"].unique(), key=[*PUBLISHED, *table["field"].unique()].index)
    settings, jobs = card["data"]["provenance"]["settings"], cost(results)
    return _PAGE.format(
        size=card["grid"]["size_deg"],
        pixels=card["grid"]["pixels"],
        channels=", ".join(
            f"beam {one['beam_arcmin']:g}′ and noise {one['noise_uk_arcmin']:g} µK-arcmin"
            for one in settings["channels"].values()
        ),
        hybrid=HYBRID,
        plain=PLAIN,
        width=read_card(results, PLAIN)["settings"]["network"]["width"],
        runs=_runs(results),
        test=card["data"]["realizations"]["test"],
        fields="\n\n".join(f"### {plain_field(one)}\n\n{_by_band(table, one)}" for one in fields),
        figure=figure.name,
        calibrate=jobs.cpu_s["calibrate"] / 60,
        estimate=jobs.cpu_s["estimate"] / 60,
        measure=mean if statistic == "correlation" else "Correlation of the pixels",
        bought=" ".join(_bought(rows, one) for one in rows["field"].unique()),
        coverage=_coverage(results),
    )


def main(results: str, path: str) -> None:
    """Print the page of a study's results and write it to `path`, its figure beside it."""
    try:
        text = page(Path(results), Path(path).with_suffix(".svg"))
    except UserError as error:
        sys.exit(str(error))
    write_text(path, text)
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
