"""A whole study: the report over its datasets and runs."""

from pathlib import Path

from skyweave.config import Config, ForegroundsRun
from skyweave.files import versions
from skyweave.report.page import build_report
from skyweave.tasks.alphas import alphas
from skyweave.tasks.training_cost import comparable

_PACKAGES = (
    *("snakemake", "tensorflow", "tensorflow-cpu", "keras", "jax", "numpy", "scipy", "astropy"),
    *("healpy", "pixell", "pymaster", "camb", "pandas", "h5py"),
)


def build(study: Config, page: Path) -> None:
    """Write the report of `study`; `page` is ``<results>/report/index.html``."""
    results = page.parents[1]

    def folders(kind: str) -> list[tuple[str, Path]]:
        names = sorted(name for name, d in study.datasets.items() if d.kind == kind)
        return [(name, results / "datasets" / name) for name in names]

    def runs(task: str) -> list[tuple[str, Path]]:
        names = sorted(name for name, run in study.runs.items() if run.task == task)
        return [(name, results / "runs" / name) for name in names]

    build_report(
        page,
        study=study.model_dump(mode="json"),
        runs=runs("reconstruction"),
        decomposition=runs("decomposition"),
        inpainting=runs("inpainting"),
        foregrounds=runs("foregrounds"),
        generation=runs("generation"),
        denoising=runs("denoising"),
        alphas=[(name, results / "datasets" / name / "alphas") for name in alphas(study)],
        images=folders("sersic") + folders("images"),
        full_sky=[
            (name, results / "sky" / name)
            for name, run in sorted(study.runs.items())
            if isinstance(run, ForegroundsRun) and run.full_sky is not None
        ],
        scans=[(name, results / "scans" / name) for name in sorted(study.scans)],
        sky=folders("sky"),
        cmb=folders("cmb"),
        imported=folders("imported"),
        training_cost=[
            (name, results / "datasets" / name / "training_cost") for name in comparable(study)
        ],
        versions=versions(*_PACKAGES),
    )
