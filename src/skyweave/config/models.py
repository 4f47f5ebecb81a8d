"""The settings of a study: one model a section, the only source of names, types and defaults.

The JSON schema, the commented configuration and the reference page are generated from here.
"""

from collections.abc import Mapping
from math import floor
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    Tag,
    model_validator,
)

from skyweave.config.base import Name, Settings, Split
from skyweave.config.cmb import (
    ESTIMATES,
    Channel,
    CmbDataset,
    Cosmology,
    Effects,
    Estimates,
    Grid,
    Range,
    Spectra,
)
from skyweave.config.decomposition import (
    METHODS,
    DecompositionAdversarial,
    DecompositionLosses,
    DecompositionNetwork,
    DecompositionRun,
    DecompositionTraining,
    Flow,
    PatchDiscriminator,
    chain_of,
)
from skyweave.config.galaxies import (
    Augmentation,
    Degradation,
    DenoisingNetwork,
    DenoisingRun,
    DenoisingTraining,
    Diffusion,
    GenerationRun,
    GenerationTraining,
    GeneratorNetwork,
    ImagesDataset,
    Metrics,
    Prior,
    Psf,
    SersicDataset,
    Stretch,
    Vae,
)
from skyweave.config.imported import ImportedDataset, Prediction
from skyweave.config.inpainting import (
    Holes,
    InpaintingLosses,
    InpaintingNetwork,
    InpaintingRun,
    InpaintingTraining,
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
    StyleBased,
    Training,
)
from skyweave.config.scans import Scan, expanded, member_settings, setting, with_settings
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
#: Fewest images that generated ones are held against.
_FEWEST_IMAGES = 4


def _empty_for_none(value: Any) -> Any:
    """`runs:` with nothing behind it is no runs."""
    return {} if value is None else value


def _task(run: Any) -> Any:
    """The task of a run's section; the one that was there first may be left out."""
    if isinstance(run, Mapping):
        return run.get("task", "reconstruction")
    return getattr(run, "task", None)


Dataset = Annotated[
    CmbDataset | SkyDataset | ImportedDataset | SersicDataset | ImagesDataset,
    Field(discriminator="kind"),
]
Run = Annotated[
    Annotated[ReconstructionRun, Tag("reconstruction")]
    | Annotated[DecompositionRun, Tag("decomposition")]
    | Annotated[ForegroundsRun, Tag("foregrounds")]
    | Annotated[InpaintingRun, Tag("inpainting")]
    | Annotated[GenerationRun, Tag("generation")]
    | Annotated[DenoisingRun, Tag("denoising")],
    Discriminator(_task),
]


class Config(Settings):
    """A study: datasets, and runs on them."""

    seed: Annotated[int, Field(ge=0)] = Field(2026, description="Root of all random numbers.")
    datasets: dict[Name, Dataset] = Field(
        min_length=1,
        description="Sets of simulated realizations, of patches of a real map, or of images.",
    )
    runs: Annotated[dict[Name, Run], BeforeValidator(_empty_for_none)] = Field(
        default_factory=dict, description="Networks trained on a dataset and judged."
    )
    scans: Annotated[dict[Name, Scan], BeforeValidator(_empty_for_none)] = Field(
        default_factory=dict,
        description="Runs with some settings changed, value by value: `NAME_1`, `NAME_2`, …, "
        "trained and judged as any other, and a table of all.",
    )
    predictions: Annotated[dict[Name, Prediction], BeforeValidator(_empty_for_none)] = Field(
        default_factory=dict, description="What trained networks make of the user's own maps."
    )
    pathvars: dict[str, str] = Field(
        default_factory=dict,
        description="Other folders for `results`, `data`, `logs` or `benchmarks`, by these names.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _scans_are_runs(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Each member of a scan is a run, added unless it is there: read settings hold them."""
        study = handler(expanded(values))
        for name in study.scans if isinstance(values, Mapping) else ():
            for member in study.members(name):
                if member in (values.get("runs") or {}):
                    _check_member(study, name, member, values["runs"][member])
        return study

    def members(self, scan: str) -> dict[str, dict[str, Any]]:
        """The runs of a scan, and of each the values of the scan's settings by dotted key."""
        runs = {
            name: self.runs[name].model_dump(mode="json")
            for name, (own, _) in member_settings(self.scans).items()
            if own == scan
        }
        keys = self.scans[scan].settings
        return {name: {key: setting(run, key) for key in keys} for name, run in runs.items()}

    @model_validator(mode="after")
    def _scans_table_fields(self) -> Self:
        for name, scan in self.scans.items():
            runs = [self.runs[member] for member in self.members(name)]
            known = {field for run in runs for field in getattr(run, "targets", scan.fields)}
            for field in scan.fields:
                if field not in known:
                    raise ValueError(
                        f"scans.{name}.fields: expected targets of its runs "
                        f"({', '.join(sorted(known))}), found {field!r}"
                    )
        return self

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
                known = f"loss, last or one of task {run.task} ({', '.join(own)})"
                expected = known if own else f"loss or last with task {run.task}"
                raise ValueError(f"{where}.training.select.by: expected {expected}, found {by!r}")
            if isinstance(run, GenerationRun | DenoisingRun):
                kind, fit = "sersic or images", isinstance(dataset, SersicDataset | ImagesDataset)
            elif isinstance(run, ForegroundsRun):
                kind, fit = "sky", isinstance(dataset, SkyDataset)
            else:
                kind, fit = "cmb or imported", isinstance(dataset, CmbDataset | ImportedDataset)
            if not fit:
                raise ValueError(
                    f"{where}.dataset: expected a dataset of kind {kind}, found {dataset.kind!r}"
                )
            if isinstance(run, GenerationRun | DenoisingRun):
                if isinstance(dataset, SersicDataset | ImagesDataset):
                    _check_galaxies(where, run, dataset, self.runs)
                continue
            if isinstance(run, ForegroundsRun) and isinstance(dataset, SkyDataset):
                _check_foregrounds(where, run, dataset)
            if isinstance(dataset, CmbDataset | ImportedDataset):
                if not isinstance(run, ForegroundsRun):
                    _check_fields(where, run, dataset)
                if isinstance(run, InpaintingRun):
                    _check_inpainting(where, run, dataset, self.datasets)
            if isinstance(run, ReconstructionRun | DecompositionRun):
                _check_tests(where, run, self.datasets)
            if isinstance(run, DecompositionRun):
                _check_others(name, run, self.runs)
        return self

    @model_validator(mode="after")
    def _predictions_have_a_network(self) -> Self:
        kinds: dict[bool, tuple[str, type[Settings]]] = {
            False: ("a reconstruction run", ReconstructionRun),
            True: ("with `mask` an inpainting run", InpaintingRun),
        }
        for name, prediction in self.predictions.items():
            what, kind = kinds[prediction.mask is not None]
            known = [name for name, run in self.runs.items() if isinstance(run, kind)]
            if prediction.run not in known:
                raise ValueError(
                    f"predictions.{name}.run: expected {what} "
                    f"({', '.join(sorted(known)) or 'there are none'}), found {prediction.run!r}"
                )
        return self


def _check_member(study: Config, scan: str, member: str, written: Any) -> None:
    """Raise `ValueError` for a run of the user's own under the name of a scan's member.

    The member itself stands among the runs of settings that were read before: whole, and with the
    scan's values.
    """
    run = study.runs[member]
    plain = run.model_dump(mode="json")
    values = member_settings(study.scans)[member][1]
    changed = with_settings(plain, values, f"scans.{scan}.settings")
    if plain != written or type(run).model_validate(changed) != run:
        raise ValueError(
            f"scans.{scan}: expected no run {member!r} beside its own of that name, found one"
        )


def _check_fields(
    where: str,
    run: ReconstructionRun | DecompositionRun | InpaintingRun,
    dataset: CmbDataset | ImportedDataset,
) -> None:
    """Raise `ValueError` where a run asks for what its dataset does not have."""
    filled = isinstance(run, InpaintingRun)
    for role in ("fields",) if filled else ("inputs", "targets"):
        there = dataset.fields
        if role == "inputs" and isinstance(dataset, CmbDataset):
            there = (*there, *dataset.estimated)
        for field in getattr(run, role):
            if field not in there:
                known = ", ".join(there)
                raise ValueError(
                    f"{where}.{role}: expected fields of dataset {run.dataset!r} "
                    f"({known}), found {field!r}"
                )
    both = set(run.inputs) & set(run.targets)
    if both and not filled:
        raise ValueError(
            f"{where}.targets: expected no field that is also an input, found {min(both)!r}"
        )
    for field in run.training.select.fields:
        if field not in run.targets:
            raise ValueError(
                f"{where}.training.select.fields: expected targets of the run "
                f"({', '.join(run.targets)}), found {field!r}"
            )
    if dataset.realizations is None:
        return
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


def _check_others(name: str, run: DecompositionRun, runs: Mapping[str, Any]) -> None:
    """Raise `ValueError` for other runs that a run cannot come after, start from or lie beside."""
    where = f"runs.{name}"
    known = [
        other
        for other, one in sorted(runs.items())
        if other != name and isinstance(one, DecompositionRun) and one.dataset == run.dataset
    ]
    for key, names in (
        ("after", run.after),
        ("start", run.start),
        *(("beside", b) for b in run.beside),
    ):
        if names is not None and names not in known:
            raise ValueError(
                f"{where}.{key}: expected a decomposition run on the same dataset "
                f"({', '.join(known) or 'there are none'}), found {names!r}"
            )
    try:
        list(chain_of(name, runs))
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from None
    if run.start is not None:
        start = runs[run.start]
        if (start.inputs, start.normalize) != (run.inputs, run.normalize):
            raise ValueError(
                f"{where}.start: expected a run with the inputs {', '.join(run.inputs)}, scaled "
                f"alike, found {', '.join(start.inputs)} of {run.start!r}"
            )
    for other in set(run.beside) & set(METHODS):
        raise ValueError(
            f"{where}.beside: expected runs that have no method's name, found {other!r}"
        )
    if run.after is None:
        return
    first = runs[run.after]
    if first.makes_samples:
        raise ValueError(
            f"{where}.after: expected a run that makes no samples, found {run.after!r}"
        )
    if run.inputs[: len(first.inputs)] != first.inputs or run.normalize != first.normalize:
        raise ValueError(
            f"{where}.inputs: expected to begin with those of {run.after!r} "
            f"({', '.join(first.inputs)}), scaled alike, found {', '.join(run.inputs)}"
        )
    if run.method == "flow" and not set(run.targets) <= set(first.targets):
        raise ValueError(
            f"{where}.targets: expected some of {run.after!r} ({', '.join(first.targets)}), "
            f"found {', '.join(run.targets)}"
        )


def _check_tests(
    where: str, run: ReconstructionRun | DecompositionRun, datasets: Mapping[str, Dataset]
) -> None:
    """Raise `ValueError` for a dataset that the run's network cannot be tested on."""
    own = datasets[run.dataset]
    known = [
        name
        for name, dataset in sorted(datasets.items())
        if isinstance(dataset, CmbDataset | ImportedDataset) and name != run.dataset
    ]
    for name in run.tests:
        if name not in known:
            raise ValueError(
                f"{where}.tests: expected some of the other datasets ({', '.join(known)}), "
                f"found {name!r}"
            )
        other = datasets[name]
        if not isinstance(own, CmbDataset | ImportedDataset):
            continue
        if not isinstance(other, CmbDataset | ImportedDataset):
            continue
        for field in (*run.inputs, *run.targets):
            # What the own dataset does not keep is estimated from what it keeps.
            if field in own.fields and field not in other.fields:
                raise ValueError(
                    f"{where}.tests: expected datasets with the field {field!r}, "
                    f"found {', '.join(other.fields)} in {name!r}"
                )
        if isinstance(own, CmbDataset) and set(run.inputs) & set(ESTIMATES):
            source = own.estimated_from
            if not {f"q_{source}", f"u_{source}"} <= set(other.fields):
                raise ValueError(
                    f"{where}.tests: expected datasets with the fields q_{source} and u_{source}, "
                    f"which the run's inputs are estimated from, found "
                    f"{', '.join(other.fields)} in {name!r}"
                )
        before, after = _geometry(own), _geometry(other)
        for key, wanted in before.items():
            if None not in (wanted, after[key]) and wanted != after[key]:
                raise ValueError(
                    f"{where}.tests: expected datasets with {key} {wanted:g} as the run's own, "
                    f"found {after[key]:g} in {name!r}"
                )
        if other.realizations and int(other.split.test * other.realizations + 1e-9) < 1:
            raise ValueError(
                f"datasets.{name}.split.test: expected at least one realization of "
                f"{other.realizations}, found none"
            )


def _geometry(dataset: CmbDataset | ImportedDataset) -> dict[str, float | None]:
    """What patches must have in common for one network; None where it is not yet known."""
    if isinstance(dataset, CmbDataset):
        grid, taper_deg = dataset.grid, dataset.effects.taper_deg
        return {"size_deg": grid.size_deg, "pixels": grid.pixels, "taper_deg": taper_deg}
    names = ("size_deg", "pixels", "taper_deg")
    return {name: getattr(dataset, name) for name in names}


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


def _check_inpainting(
    where: str,
    run: InpaintingRun,
    dataset: CmbDataset | ImportedDataset,
    datasets: Mapping[str, Dataset],
) -> None:
    """Raise `ValueError` for holes or classes that the datasets do not have, and for a taper."""
    tapered = dataset.effects if isinstance(dataset, CmbDataset) else dataset
    if tapered.taper_deg:
        raise ValueError(
            f"{where}.dataset: expected one without a taper, which the optimum does not know of "
            f"(taper_deg: 0), found {tapered.taper_deg:g} deg of {run.dataset!r}"
        )
    sky = run.holes.sky
    known = sorted(name for name, one in datasets.items() if isinstance(one, SkyDataset))
    if sky is not None and sky not in known:
        raise ValueError(
            f"{where}.holes.sky: expected a dataset of kind sky "
            f"({', '.join(known) or 'there are none'}), found {sky!r}"
        )
    varied = dataset.spectra.vary if isinstance(dataset, CmbDataset) else {}
    classes = sorted(name for name, values in varied.items() if not isinstance(values, Range))
    if run.classes is not None and run.classes not in classes:
        raise ValueError(
            f"{where}.classes: expected a parameter that {run.dataset!r} varies in classes "
            f"({', '.join(classes) or 'there are none'}), found {run.classes!r}"
        )
    pixels = dataset.grid.pixels if isinstance(dataset, CmbDataset) else dataset.pixels
    if pixels is None:
        return
    discs = {"radii": run.radii}
    if run.holes.kind == "disc":
        discs["holes.radius"] = run.holes.radius
    # A disc that reaches the middles of the corners' pixels leaves nothing seen.
    corner = (pixels - 1) / 2**0.5
    for key, radii in discs.items():
        if any(radius >= corner for radius in radii):
            # Rounded down: what is found is never below what is said.
            raise ValueError(
                f"{where}.{key}: expected discs smaller than a patch of {pixels} pixels (below "
                f"{floor(10 * corner) / 10:.1f}), found {max(radii):g}"
            )


def _check_galaxies(
    where: str,
    run: GenerationRun | DenoisingRun,
    dataset: SersicDataset | ImagesDataset,
    runs: Mapping[str, Any],
) -> None:
    """Raise `ValueError` for bands, sizes or images that a dataset or a generator does not have."""
    for field in run.fields:
        if field not in dataset.fields:
            raise ValueError(
                f"{where}.fields: expected bands of dataset {run.dataset!r} "
                f"({', '.join(dataset.fields)}), found {field!r}"
            )
    if isinstance(run, GenerationRun) and run.network.name == "stylegan2":
        known = [2**power for power in range(4, 11)]
        if dataset.pixels not in known:
            raise ValueError(
                f"{where}.network.name: expected images of a power of two pixels a side with "
                f"`stylegan2`, found {dataset.pixels} of {run.dataset!r}"
            )
    if isinstance(run, DenoisingRun) and run.generated is not None:
        known_runs = [
            name
            for name, other in sorted(runs.items())
            if isinstance(other, GenerationRun)
            and (other.dataset, other.fields) == (run.dataset, run.fields)
        ]
        if run.generated not in known_runs:
            raise ValueError(
                f"{where}.generated: expected a generation run on the same dataset and bands "
                f"({', '.join(known_runs) or 'there are none'}), found {run.generated!r}"
            )
    if isinstance(run, DenoisingRun):
        factor = run.degradation.pixel_factor
        if dataset.pixels % (4 * factor) or dataset.pixels // factor < 8:
            raise ValueError(
                f"{where}.degradation.pixel_factor: expected one that leaves 8 or more whole "
                f"pixels of {dataset.pixels}, a multiple of 4, found {factor}"
            )
    if dataset.realizations is None:
        return
    parts = dataset.split.model_dump()
    counts = {part: int(share * dataset.realizations + 1e-9) for part, share in parts.items()}
    _check_batch(where, run.training.batch, counts["train"])
    if min(counts.values()) < 1:
        raise ValueError(
            f"datasets.{run.dataset}.split: expected at least one image in each part of "
            f"{dataset.realizations}, found none"
        )
    fewest = min(counts["test"], counts["train"])
    if isinstance(run, GenerationRun) and fewest < _FEWEST_IMAGES:
        raise ValueError(
            f"datasets.{run.dataset}.split: expected at least {_FEWEST_IMAGES} images to train and "
            f"to test a generator on, found {fewest}"
        )
    images = run.metrics.images if isinstance(run, GenerationRun) else None
    if images is not None and images > fewest:
        raise ValueError(
            f"{where}.metrics.images: expected at most {fewest}, which test and training set "
            f"have, found {images}"
        )


def _check_batch(where: str, batch: int, train: int) -> None:
    if train < batch:
        raise ValueError(
            f"{where}.training.batch: expected at most the training set's {train}, found {batch}"
        )


#: Every section, in the order of the reference page.
SECTIONS: list[type[Settings]] = [
    *(Config, CmbDataset, Spectra, Cosmology, Range, Grid, Effects, Channel, Estimates),
    *(SkyDataset, HealpixMap, PointSources, Mask, Patches, ImportedDataset, Split),
    *(ReconstructionRun, Network, Training, Selection),
    *(DecompositionRun, DecompositionNetwork, PatchDiscriminator, DecompositionLosses),
    *(DecompositionTraining, DecompositionAdversarial, Flow),
    *(InpaintingRun, Holes, InpaintingNetwork, InpaintingLosses, InpaintingTraining),
    *(ForegroundsRun, ForseNetwork, ForegroundsTraining, ForegroundsAdversarial),
    *(FullSky, PolarizationTemplate),
    *(SersicDataset, ImagesDataset, Psf, Stretch),
    *(GenerationRun, GeneratorNetwork, GenerationTraining, Augmentation, StyleBased, Vae, Prior),
    *(Diffusion, Metrics),
    *(DenoisingRun, DenoisingNetwork, Degradation, DenoisingTraining),
    *(Scan, Prediction),
]
