"""The jobs of a study: which datasets and runs it has, and how often each rule runs for them."""

from collections.abc import Iterator

from skyweave.config import (
    ESTIMATES,
    CmbDataset,
    Config,
    DecompositionRun,
    DenoisingRun,
    ForegroundsRun,
    GenerationRun,
    ImagesDataset,
    InpaintingRun,
    ReconstructionRun,
    SersicDataset,
    SkyDataset,
)
from skyweave.simulation.cosmologies import at_point, points
from skyweave.tasks.alphas import alphas
from skyweave.tasks.training_cost import comparable

SKY_RULES = ("sky_map", "sky_mask", "sky_patches", "sky_statistics", "draw_sky")


def simulated(study: Config) -> dict[str, CmbDataset]:
    """The simulated datasets of a study."""
    return {name: each for name, each in study.datasets.items() if isinstance(each, CmbDataset)}


def observed(study: Config) -> dict[str, SkyDataset]:
    """The datasets of a study that are cut from a real map."""
    return {name: each for name, each in study.datasets.items() if isinstance(each, SkyDataset)}


def reconstructions(study: Config) -> dict[str, ReconstructionRun]:
    """The runs of a study whose cost is known."""
    return {n: run for n, run in study.runs.items() if isinstance(run, ReconstructionRun)}


def dataset_of(study: Config, run: ReconstructionRun) -> CmbDataset:
    """The dataset that a run is trained on."""
    return simulated(study)[run.dataset]


def split_counts(dataset: CmbDataset) -> dict[str, int]:
    """Realizations of each part."""
    shares = dataset.split.model_dump()
    return {part: round(dataset.realizations * share) for part, share in shares.items()}


def spectra_sets(study: Config) -> int:
    """How many sets of spectra the workflow computes: datasets share those they both want."""
    sets = {
        at_point(each.spectra, point).model_dump_json(exclude={"vary", "points"})
        for each in simulated(study).values()
        for point in points(each.spectra, study.seed)
    }
    return len(sets)


def estimated(study: Config) -> dict[str, CmbDataset]:
    """The datasets that runs are trained on and that have classical estimates."""
    names = {run.dataset for run in reconstructions(study).values()}
    names |= {run.dataset for run in _decompositions(study)}
    made = simulated(study).items()
    return {name: each for name, each in made if name in names and each.estimated}


def estimate_sizes(study: Config) -> Iterator[tuple[CmbDataset, int]]:
    """Of each job of `estimate`: the dataset, and how many of its realizations are estimated.

    They are those of the parts that a run is judged on (test set, of a reconstruction also
    validation set), and of what it is trained on where some of its inputs are estimates.
    """
    reconstructed = list(reconstructions(study).values())
    runs: list[ReconstructionRun | DecompositionRun] = [*reconstructed, *_decompositions(study)]
    trained_on = {run.dataset for run in runs if set(run.inputs) & set(ESTIMATES)}
    validated = trained_on | {run.dataset for run in reconstructed}
    for name, dataset in estimated(study).items():
        others = {"validation": validated, "train": trained_on}
        for part in ("test", *(part for part, names in others.items() if name in names)):
            for together in dataset.estimated_together(part):
                held = sum(len(dataset.shards[shard]) for shard in together)
                yield dataset, round(getattr(dataset.split, part) * held)


def elsewhere_pairs(study: Config) -> set[tuple[str, str]]:
    """Datasets whose calibration others' test sets are estimated by, and these others."""
    made, found = simulated(study), set()
    runs: list[ReconstructionRun | DecompositionRun] = [*reconstructions(study).values()]
    runs += [run for run in _decompositions(study) if set(run.inputs) & set(ESTIMATES)]
    for run in runs:
        for other in run.tests if run.dataset in estimated(study) else ():
            channel = made[run.dataset].estimated_from
            if {f"q_{channel}", f"u_{channel}"} <= set(made[other].fields):
                found.add((run.dataset, other))
    return found


def job_counts(study: Config) -> dict[str, int]:
    """Jobs of each rule of a study without imported maps, as Snakemake counts them for `all`."""
    cmb, sky = simulated(study).values(), observed(study).values()
    channels = [channel for each in cmb for channel in each.channels.values()]
    runs = reconstructions(study)
    tests = [run.tests for run in runs.values()]
    counts = {
        "fetch_hfi": int(any(channel.beam_hfi_ghz for channel in channels)),
        "fetch_sfd98": int(any(each.map.source == "sfd98" for each in sky)),
        "spectra": spectra_sets(study),
        "simulate": sum(len(each.shards) for each in cmb),
        **dict.fromkeys(("prepare", "check_simulation", "draw_spectra"), len(cmb)),
        "calibrate": len(estimated(study)),
        "expect": len({run.dataset for run in runs.values()} & set(estimated(study))),
        "estimate": sum(1 for _ in estimate_sizes(study)),
        **dict.fromkeys(SKY_RULES, len(sky)),
        "sky_sources": sum(each.sources.remove != "none" for each in sky),
        "train": len(study.runs),
        **dict.fromkeys(("predict", "evaluate", "draw_reconstruction", "generalize"), len(runs)),
        **dict.fromkeys(("predict_elsewhere", "evaluate_elsewhere"), sum(map(len, tests))),
        "estimate_elsewhere": len(elsewhere_pairs(study)),
        "draw_generalization": sum(map(bool, tests)),
        "draw_training_cost": len(comparable(study)),
        **_decomposition_counts(study),
        **_foreground_counts(study),
        **_inpainting_counts(study),
        **_image_counts(study),
        "predict_maps": len(study.predictions),
        "tabulate_scan": len(study.scans),
        "record_runs": int(bool(study.runs)),
        "report": 1,
        "all": 1,
    }
    return {rule: count for rule, count in counts.items() if count}


def _decompositions(study: Config) -> list[DecompositionRun]:
    return [run for run in study.runs.values() if isinstance(run, DecompositionRun)]


def _decomposition_counts(study: Config) -> dict[str, int]:
    runs = _decompositions(study)
    rules = ("decompose", "evaluate_decomposition", "draw_decomposition")
    return {
        **dict.fromkeys(rules, len(runs)),
        "decompose_elsewhere": sum(len(run.tests) for run in runs),
    }


def _foreground_counts(study: Config) -> dict[str, int]:
    runs = [run for run in study.runs.values() if isinstance(run, ForegroundsRun)]
    skies = [run.full_sky for run in runs if run.full_sky is not None]
    fetched = (sky for sky in skies if sky.polarization != "none")
    return {
        "pairs": len({run.dataset for run in runs}),
        **dict.fromkeys(
            ("add_small_scales", "evaluate_foregrounds", "draw_foregrounds"), len(runs)
        ),
        "fetch_template": int(any(sky.template.source != "file" for sky in fetched)),
        **dict.fromkeys(("large_scales", "judge_sky", "draw_full_sky"), len(skies)),
        "full_sky": sum(sky.realizations for sky in skies),
        "compare_skies": sum(sky.realizations > 1 for sky in skies),
    }


def _inpainting_counts(study: Config) -> dict[str, int]:
    runs = [run for run in study.runs.values() if isinstance(run, InpaintingRun)]
    rules = ("inpaint", "evaluate_inpainting", "draw_inpainting")
    return {
        "fetch_vgg16": int(any(run.losses.looks for run in runs)),
        # Of each channel that holes are filled in.
        "covariance": len({(run.dataset, run.fields[0].partition("_")[2]) for run in runs}),
        "cut_holes": sum(run.holes.kind == "sky" for run in runs),
        **dict.fromkeys(rules, len(runs)),
    }


def _image_counts(study: Config) -> dict[str, int]:
    rendered = [each for each in study.datasets.values() if isinstance(each, SersicDataset)]
    imported = [each for each in study.datasets.values() if isinstance(each, ImagesDataset)]
    generators = [run for run in study.runs.values() if isinstance(run, GenerationRun)]
    denoisers = [run for run in study.runs.values() if isinstance(run, DenoisingRun)]
    generation = ("generate", "evaluate_generation", "draw_generation")
    denoising = ("evaluate_denoising", "draw_denoising")
    return {
        "fetch_cosmos": int(any(each.source == "cosmos" for each in imported)),
        "render_sersic": sum(len(each.shards) for each in rendered),
        "import_images": len(imported),
        "prepare_images": len(rendered) + len(imported),
        "fetch_inception": int(any(run.metrics.features for run in generators)),
        **dict.fromkeys(generation, len(generators)),
        **dict.fromkeys(denoising, len(denoisers)),
        **dict.fromkeys(("compare_alphas", "draw_alphas"), len(alphas(study))),
    }
