"""The settings of a study: one model a section, the only source of names, types and defaults.

The JSON schema, the commented configuration and the reference page are generated from here.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from skyweave.config.base import Name, Settings, Split
from skyweave.config.cmb import (
    Channel,
    CmbDataset,
    Cosmology,
    Effects,
    Grid,
    Range,
    Spectra,
)
from skyweave.config.runs import (
    SELECTED_BY,
    ForegroundsAdversarial,
    ForegroundsRun,
    ForegroundsTraining,
    ForseNetwork,
    FullSky,
    Network,
    PolarizationTemplate,
    ReconstructionRun,
    Selection,
    Training,
)
from skyweave.config.sky import (
    HealpixMap,
    Mask,
    Patches,
    PointSources,
    SkyDataset,
    least_fwhm_arcmin,
)

#: Fewest patches that a band of Minkowski functionals is made of.
_FEWEST = 4


def _empty_for_none(value: Any) -> Any:
    """`runs:` with nothing behind it is no runs."""
    return {} if value is None else value


def _task(run: Any) -> Any:
    """The task of a run's section; the one that was there first may be left out."""
    if isinstance(run, Mapping):
        return run.get("task", "reconstruction")
    return getattr(run, "task", None)


Dataset = Annotated[CmbDataset | SkyDataset, Field(discriminator="kind")]
Run = Annotated[
    Annotated[ReconstructionRun, Tag("reconstruction")]
    | Annotated[ForegroundsRun, Tag("foregrounds")],
    Discriminator(_task),
]


class Config(Settings):
    """A study: datasets, and runs on them."""

    seed: Annotated[int, Field(ge=0)] = Field(2026, description="Root of all random numbers.")
    datasets: dict[Name, Dataset] = Field(
        min_length=1, description="Sets of simulated realizations or of patches of a real map."
    )
    runs: Annotated[dict[Name, Run], BeforeValidator(_empty_for_none)] = Field(
        default_factory=dict, description="Networks trained on a dataset and judged."
    )
    pathvars: dict[str, str] = Field(
        default_factory=dict,
        description="Other folders for `results`, `data`, `logs` or `benchmarks`, by these names.",
    )

    @model_validator(mode="after")
    def _runs_fit_datasets(self) -> Self:
        for name, run in self.runs.items():
            where = f"runs.{name}"
            dataset = self.datasets.get(run.dataset)
            if dataset is None:
                known = ", ".join(sorted(self.datasets))
                raise ValueError(f"{where}.dataset: expected one of {known}, found {run.dataset!r}")
            by, own = run.training.select.by, SELECTED_BY[run.task]
            if run.training.select.swept and by not in own:
                raise ValueError(
                    f"{where}.training.select.by: expected loss, last or one of task {run.task} "
                    f"({', '.join(own)}), found {by!r}"
                )
            if isinstance(run, ForegroundsRun):
                kind, fit = "sky", isinstance(dataset, SkyDataset)
            else:
                kind, fit = "cmb", isinstance(dataset, CmbDataset)
            if not fit:
                raise ValueError(
                    f"{where}.dataset: expected a dataset of kind {kind}, found {dataset.kind!r}"
                )
            if isinstance(run, ForegroundsRun) and isinstance(dataset, SkyDataset):
                _check_foregrounds(where, run, dataset)
            if isinstance(run, ReconstructionRun) and isinstance(dataset, CmbDataset):
                _check_reconstruction(where, run, dataset)
        return self


def _check_reconstruction(where: str, run: ReconstructionRun, dataset: CmbDataset) -> None:
    """Raise `ValueError` where a run asks for what its dataset does not have."""
    for role in ("inputs", "targets"):
        for field in getattr(run, role):
            if field not in dataset.fields:
                known = ", ".join(dataset.fields)
                raise ValueError(
                    f"{where}.{role}: expected fields of dataset {run.dataset!r} "
                    f"({known}), found {field!r}"
                )
    both = set(run.inputs) & set(run.targets)
    if both:
        raise ValueError(
            f"{where}.targets: expected no field that is also an input, found {min(both)!r}"
        )
    for field in run.training.select.fields:
        if field not in run.targets:
            raise ValueError(
                f"{where}.training.select.fields: expected targets of the run "
                f"({', '.join(run.targets)}), found {field!r}"
            )
    split = dataset.split
    parts = [
        int(share * dataset.realizations + 1e-9)
        for share in (split.train, split.validation, split.test)
    ]
    _check_batch(where, run.training.batch, parts[0])
    if min(parts) < 1:
        raise ValueError(
            f"datasets.{run.dataset}.split: expected at least one realization in each "
            f"part of {dataset.realizations}, found none"
        )


def _check_foregrounds(where: str, run: ForegroundsRun, dataset: SkyDataset) -> None:
    """Raise `ValueError` where a run asks for what its dataset does not have."""
    patches, split, select = dataset.patches, dataset.split, run.training.select
    for field in select.fields:
        if field not in ("v0", "v1", "v2"):
            raise ValueError(
                f"{where}.training.select.fields: expected functionals (v0, v1, v2), "
                f"found {field!r}"
            )
    if select.by == "loss" and not run.adversarial.fidelity:
        raise ValueError(
            f"{where}.training.select.by: expected another with `adversarial.fidelity: 0`, where "
            "no loss says how good a network is, found 'loss'"
        )
    for part in ("train", "validation", "test"):
        count = int(getattr(split, part) * patches.count + 1e-9)
        if count < _FEWEST:
            raise ValueError(
                f"datasets.{run.dataset}.patches.count: expected at least {_FEWEST} patches in "
                f"each part of the split, found {count} for {part}"
            )
    _check_batch(where, run.training.batch, int(split.train * patches.count + 1e-9))
    sky = run.full_sky
    if sky is None:
        return
    least = 2 * patches.size_deg / patches.pixels
    if not least <= sky.overlap_deg <= patches.size_deg / 2:
        raise ValueError(
            f"{where}.full_sky.overlap_deg: expected two pixels ({least:g}) to half of "
            f"patches.size_deg ({patches.size_deg:g}), found {sky.overlap_deg:g}"
        )
    smallest = patches.high_arcmin / (4 if sky.second_stage else 1)
    if smallest < least_fwhm_arcmin(sky.nside):
        raise ValueError(
            f"{where}.full_sky.nside: expected one whose band limit lies beyond a beam of "
            f"{smallest:g} arcmin, found {sky.nside} (for {least_fwhm_arcmin(sky.nside):.3g})"
        )
    if sky.second_stage and patches.high_arcmin > patches.low_arcmin / 4:
        raise ValueError(
            f"{where}.full_sky.second_stage: expected patches.high_arcmin of at most a quarter of "
            f"low_arcmin ({patches.low_arcmin:g}) with it, found {patches.high_arcmin:g}"
        )
    template = sky.template
    if template.source == "file" and template.fwhm_arcmin > patches.low_arcmin:
        raise ValueError(
            f"{where}.full_sky.template.fwhm_arcmin: expected at most patches.low_arcmin "
            f"({patches.low_arcmin:g}), found {template.fwhm_arcmin:g}"
        )


def _check_batch(where: str, batch: int, train: int) -> None:
    if train < batch:
        raise ValueError(
            f"{where}.training.batch: expected at most the training set's {train}, found {batch}"
        )


#: Every section, in the order of the reference page.
SECTIONS: list[type[Settings]] = [
    *(Config, CmbDataset, Spectra, Cosmology, Range, Grid, Effects, Channel),
    *(SkyDataset, HealpixMap, PointSources, Mask, Patches, Split),
    *(ReconstructionRun, Network, Training, Selection),
    *(ForegroundsRun, ForseNetwork, ForegroundsTraining, ForegroundsAdversarial),
    *(FullSky, PolarizationTemplate),
]
