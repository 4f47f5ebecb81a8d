"""The settings of a study: one model a section, the only source of names, types and defaults.

The JSON schema, the commented configuration and the reference page are generated from here.
"""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

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
from skyweave.config.runs import Network, ReconstructionRun, Selection, Training
from skyweave.config.sky import HealpixMap, Mask, Patches, SkyDataset


def _empty_for_none(value: Any) -> Any:
    """`runs:` with nothing behind it is no runs."""
    return {} if value is None else value


Dataset = Annotated[CmbDataset | SkyDataset, Field(discriminator="kind")]


class Config(Settings):
    """A study: datasets, and runs on them."""

    seed: Annotated[int, Field(ge=0)] = Field(2026, description="Root of all random numbers.")
    datasets: dict[Name, Dataset] = Field(
        min_length=1, description="Sets of simulated realizations or of patches of a real map."
    )
    runs: Annotated[dict[Name, ReconstructionRun], BeforeValidator(_empty_for_none)] = Field(
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
            if not isinstance(dataset, CmbDataset):
                raise ValueError(
                    f"{where}.dataset: expected a dataset of kind cmb, found {dataset.kind!r}"
                )
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
            if parts[0] < run.training.batch:
                raise ValueError(
                    f"{where}.training.batch: expected at most the training set's {parts[0]}, "
                    f"found {run.training.batch}"
                )
            if min(parts) < 1:
                raise ValueError(
                    f"datasets.{run.dataset}.split: expected at least one realization in each "
                    f"part of {dataset.realizations}, found none"
                )
        return self


#: Every section, in the order of the reference page.
SECTIONS: list[type[Settings]] = [
    *(Config, CmbDataset, Spectra, Cosmology, Range, Grid, Effects, Channel),
    *(SkyDataset, HealpixMap, Mask, Patches, Split),
    *(ReconstructionRun, Network, Training, Selection),
]
