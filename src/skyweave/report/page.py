"""The report: one HTML page that holds its figures and tables and asks the network for nothing."""

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from skyweave.errors import UserError
from skyweave.files import write_text
from skyweave.report import embed, read
from skyweave.report.decomposition_words import bought_words
from skyweave.report.generalization import elsewhere, is_tested
from skyweave.report.reconstruction import METRIC_COLUMNS, of_test_split
from skyweave.report.summary import (
    dataset_row,
    fidelity_scores,
    filled_scores,
    generated_scores,
    restored_scores,
    run_row,
    scores,
    small_scales,
)
from skyweave.statistics.verdicts import read_verdicts

Named = Sequence[tuple[str, str | Path]]


def build_report(
    out_path: str | Path,
    *,
    study: Mapping[str, Any],
    runs: Named,
    sky: Named,
    cmb: Named,
    versions: Mapping[str, str],
    foregrounds: Named = (),
    full_sky: Named = (),
    imported: Named = (),
    training_cost: Named = (),
    decomposition: Named = (),
    inpainting: Named = (),
    generation: Named = (),
    denoising: Named = (),
    alphas: Named = (),
    images: Named = (),
    scans: Named = (),
) -> None:
    """Write the report of a study to `out_path`, atomically; the same inputs give the same bytes.

    `study` holds the settings (`seed`, `datasets`, `runs`) as plain values. `runs`, `sky` and `cmb`
    name reconstruction runs, sky datasets and CMB datasets; `decomposition`, `inpainting`,
    `foregrounds`, `generation` and `denoising` runs of these tasks; `full_sky` skies that were
    made, `training_cost` datasets whose runs are compared by it, `alphas` those of which runs
    differ by their share of generated images, `images` datasets of images of galaxies, and
    `imported` datasets of others' maps, with the folders that hold their tables, verdicts.json and
    ``figures/figures.json``; verdicts of a CMB dataset and of a run's ``generalization`` may be
    absent, images and imported maps have no figures and no verdicts, and costs no verdicts. `scans`
    name the folders of their table.csv, a row a run.
    Raises `UserError` for a missing or broken file.
    """
    if not isinstance(study.get("datasets"), Mapping):
        raise UserError("study", "settings with `datasets`", ", ".join(study) or "none")
    given = {"run": runs, "decomposition": decomposition, "inpainting": inpainting}
    given |= {"training_cost": training_cost, "foregrounds": foregrounds}
    given |= {"full_sky": full_sky, "generation": generation, "denoising": denoising}
    given |= {"alphas": alphas, "sky": sky, "cmb": cmb}
    folders = {
        kind: [(name, Path(folder)) for name, folder in named] for kind, named in given.items()
    }
    trained = [(kind, *one) for kind in _TASKS for one in folders[kind]]
    context = {
        "study": study,
        "versions": versions,
        "style": _text("style.css"),
        "icon": embed.data_uri(_text("icon.svg").encode(), "image/svg+xml"),
        "checks": _checks(folders),
        "run_rows": [run_row(kind, name, folder, study) for kind, name, folder in trained],
        "dataset_rows": [
            dataset_row(kind, name, folder, study)
            for kind in ("cmb", "sky")
            for name, folder in folders[kind]
        ]
        + [
            dataset_row(kind, name, Path(folder), study)
            for kind, named in (("images", images), ("imported", imported))
            for name, folder in named
        ],
        "scores": [row for name, folder in folders["run"] for row in scores(name, folder)],
        "fidelity": [
            row
            for name, folder in folders["decomposition"]
            for row in fidelity_scores(name, folder)
        ],
        "filled": [
            row for name, folder in folders["inpainting"] for row in filled_scores(name, folder)
        ],
        "generated": [
            row for name, folder in folders["generation"] for row in generated_scores(name, folder)
        ],
        "restored": [
            row for name, folder in folders["denoising"] for row in restored_scores(name, folder)
        ],
        "elsewhere": elsewhere(folders["run"], study),
        "small_scales": [
            row for name, folder in folders["foregrounds"] for row in small_scales(name, folder)
        ],
        "sections": [_section(kind, folders[kind], study) for kind in _TITLES if folders[kind]]
        + ([_scans(scans)] if scans else []),
        "settings": _yaml(study),
        "cards": [
            (name, _yaml(read.document(folder / "card.json"))) for _, name, folder in trained
        ],
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("skyweave.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": embed.number, "ell": _ell}
    write_text(out_path, environment.get_template("report.html.j2").render(context))


#: Sections of runs that train a network.
_TASKS = ("run", "decomposition", "inpainting", "foregrounds", "generation", "denoising")

_TITLES = {
    "run": ("Reconstruction", "Run"),
    "decomposition": ("Decomposition", "Run"),
    "inpainting": ("Inpainting", "Run"),
    "training_cost": ("What training buys", "Runs on"),
    "foregrounds": ("Foregrounds", "Run"),
    "full_sky": ("Full sky", "Sky of"),
    "generation": ("Galaxies: generated images", "Run"),
    "denoising": ("Galaxies: restored images", "Run"),
    "alphas": ("What generated images buy", "Dataset"),
    "sky": ("Sky", "Dataset"),
    "cmb": ("Simulated CMB", "Dataset"),
}


def _section(
    kind: str, named: Sequence[tuple[str, Path]], study: Mapping[str, Any]
) -> dict[str, Any]:
    """Title, anchor and parts of a section, one part a run, sky or dataset."""
    parts = []
    for name, folder in named:
        shown = embed.figures(folder / "figures", f"{kind}-{name}")
        if kind == "run" and is_tested(name, study):
            shown += embed.figures(folder / "generalization" / "figures", f"{kind}-{name}")
        words = _bought(name, folder, study) if kind == "decomposition" else []
        part = {"name": name, "anchor": f"{kind}-{name}", "figures": shown, "words": words}
        parts.append(part | {"table": None})
    title, noun = _TITLES[kind]
    return {"title": title, "noun": noun, "anchor": kind, "parts": parts}


def _bought(name: str, folder: Path, study: Mapping[str, Any]) -> list[str]:
    """What a run has of power and correlation beside each plain run that is shown with it."""
    runs = study.get("runs", {})
    beside = runs.get(name, {}).get("beside", ())
    plain = [other for other in beside if runs.get(other, {}).get("method") == "plain"]
    if not plain:
        return []
    metrics = of_test_split(read.table(folder / "metrics.csv", METRIC_COLUMNS))
    return [words for other in plain for words in bought_words(metrics, other)]


def _scans(named: Named) -> dict[str, Any]:
    """The section of scans over settings: a table a scan, a row a run."""
    parts = []
    for name, folder in named:
        path, anchor = Path(folder) / "table.csv", f"scan-{name}"
        rows = read.table(path).itertuples(index=False)
        table = dataclasses.replace(
            embed.table(path, anchor), rows=[[embed.number(value) for value in row] for row in rows]
        )
        parts.append({"name": name, "anchor": anchor, "figures": [], "words": [], "table": table})
    return {"title": "Scans over settings", "noun": "Scan", "anchor": "scans", "parts": parts}


def _checks(folders: Mapping[str, Sequence[tuple[str, Path]]]) -> list[dict[str, Any]]:
    """All verdicts, those that failed first, each with the run, sky or dataset that it judges."""
    found = []
    for kind, named in folders.items():
        for name, folder in named:
            own, tests = folder / "verdicts.json", folder / "generalization" / "verdicts.json"
            found += [
                {**entry, "of": f"{_TITLES[kind][1]} {name}", "anchor": f"{kind}-{name}"}
                for path in (own, tests)
                if path.exists() or (path == own and kind not in ("cmb", "training_cost"))
                for entry in read_verdicts(path)
            ]
    return sorted(found, key=lambda entry: bool(entry["passed"]))


def _ell(text: str) -> Markup:
    """Set the index ell of r_ell and the like as a subscript; all else is escaped."""
    return Markup(str(escape(text)).replace("_ell", "<sub>ℓ</sub>"))


def _text(name: str) -> str:
    return resources.files("skyweave.report").joinpath("templates", name).read_text("utf-8")


def _yaml(values: Any) -> str:
    return yaml.safe_dump(
        values if not isinstance(values, Mapping) else dict(values),
        sort_keys=False,
        allow_unicode=True,
        width=90,
    )
