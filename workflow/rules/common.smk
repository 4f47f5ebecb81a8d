"""What the rules share: the checked settings and how a rule finds its own section."""

import hashlib
import json
import os
import sys
from pathlib import Path

from skyweave.config import ESTIMATES
from skyweave.config import parse as parse_settings
from skyweave.config import read_yaml, require_files
from skyweave.config.galaxies import UNTRAINED
from skyweave.errors import UserError
from skyweave.images.stamp_files import listed
from skyweave.simulation.cosmologies import at_point, points
from skyweave.tasks.alphas import alphas
from skyweave.tasks.imported_files import counted
from skyweave.tasks.training_cost import comparable

# Snakemake would merge a --configfile into this one: a study stands alone.
if "datasets" not in config:
    try:
        read_yaml("config/config.yaml")
    except UserError as error:
        sys.exit(f"config: {error}")

    configfile: "config/config.yaml"


try:
    STUDY = parse_settings(config)
    require_files(STUDY)
    STUDY = counted(STUDY)
    # The files of each dataset of the user's own images.
    IMAGE_FILES = {
        name: listed(dataset.path, dataset.bands)
        for name, dataset in STUDY.datasets.items()
        if dataset.kind == "images" and dataset.path is not None
    }
except UserError as error:
    sys.exit(f"config: {error}")


# Only with `--software-deployment-method conda`; otherwise the environment that Snakemake runs in.
ENVIRONMENT = "../../envs/cpu.yaml"
# Files of images beyond which they are no inputs of their own: Snakemake would look at each often.
MANY_FILES = 1000


def named(entries, attribute, value):
    """Names of the entries whose attribute has that value."""
    return sorted(name for name, entry in entries.items() if getattr(entry, attribute) == value)


CMB = named(STUDY.datasets, "kind", "cmb")
SKY = named(STUDY.datasets, "kind", "sky")
IMPORTED = named(STUDY.datasets, "kind", "imported")
SERSIC = named(STUDY.datasets, "kind", "sersic")
IMAGES = named(STUDY.datasets, "kind", "images")
RECONSTRUCTION = named(STUDY.runs, "task", "reconstruction")
DECOMPOSITION = named(STUDY.runs, "task", "decomposition")
# Those that are tested on other datasets, and these.
TESTED = [name for name in RECONSTRUCTION if STUDY.runs[name].tests]
TESTS = sorted({other for name in TESTED + DECOMPOSITION for other in STUDY.runs[name].tests})
# Those with classical estimates besides the fields that they keep.
ESTIMATED = [name for name in CMB if STUDY.datasets[name].estimated]
# By dataset, those that are compared by what their training cost.
COMPARED = comparable(STUDY)
FOREGROUNDS = named(STUDY.runs, "task", "foregrounds")
INPAINTING = named(STUDY.runs, "task", "inpainting")
GENERATION = named(STUDY.runs, "task", "generation")
DENOISING = named(STUDY.runs, "task", "denoising")
# By dataset, runs that are alike but for the share of generated images in their training.
ALPHAS = alphas(STUDY)
# Those whose holes are pieces of a mask.
CUT_HOLES = [name for name in INPAINTING if STUDY.runs[name].holes.kind == "sky"]
FULL_SKY = [name for name in FOREGROUNDS if STUDY.runs[name].full_sky is not None]
MANY_SKIES = [name for name in FULL_SKY if STUDY.runs[name].full_sky.realizations > 1]


def plain(section):
    """A section of the settings as Snakemake keeps it: a change of it reruns the rule."""
    return section.model_dump(mode="json")


def plain_spectra(section):
    """What one set of spectra depends on: not on how many others there are."""
    return section.model_dump(mode="json", exclude={"vary", "points"})


def spectra_key(section):
    """Name of the spectra of one set of parameters: whoever wants the same shares the file."""
    text = json.dumps(plain_spectra(section), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# The sets of varied parameters that a dataset's realizations draw from; each set's spectra, by
# name, and a dataset's names in the order of its sets.
POINTS = {name: points(STUDY.datasets[name].spectra, STUDY.seed) for name in CMB}
SPECTRA, SPECTRA_OF = {}, {}
for name in CMB:
    sections = [at_point(STUDY.datasets[name].spectra, point) for point in POINTS[name]]
    SPECTRA_OF[name] = [spectra_key(section) for section in sections]
    SPECTRA |= zip(SPECTRA_OF[name], sections)


def one_of(names):
    """Pattern of a wildcard that is one of these names; with no names, nothing."""
    return "|".join(names) if names else "(?!)"


wildcard_constraints:
    cmb=one_of(CMB),
    sky=one_of(SKY),
    imported=one_of(IMPORTED),
    images=one_of(SERSIC + IMAGES),
    prediction=one_of(STUDY.predictions),
    format="fits|h5|npz",
    run=one_of(sorted(STUDY.runs)),
    scan=one_of(STUDY.scans),
    other=one_of(TESTS),
    shard=r"\d+",
    part="train|validation|test",
    chunk=r"\d+",
    realization=r"\d+",
    spectra=one_of(SPECTRA),


def dataset_settings(wildcards):
    """Settings of the dataset that the wildcards name."""
    names = (wildcards.get(kind) for kind in ("cmb", "sky", "imported", "images"))
    return STUDY.datasets[next(name for name in names if name)]


def run_settings(wildcards):
    """Settings of the run that the wildcards name."""
    return STUDY.runs[wildcards.run]


def spectra_tables(wildcards):
    """Spectra of each set of parameters of a simulated dataset, in the order of `POINTS`."""
    return expand("<results>/spectra/{spectra}.csv", spectra=SPECTRA_OF[wildcards.cmb])


def channel_files(wildcards):
    """The files that a simulated dataset's channels read: the user's own and Planck's."""
    channels = dataset_settings(wildcards).channels.values()
    own = [path for c in channels for path in user_files(c, "beam_path", "hits_path")]
    return own + instrument_model(wildcards)


def instrument_model(wildcards):
    """Planck HFI's instrument model, if a channel of the dataset has a beam of HFI."""
    channels = dataset_settings(wildcards).channels.values()
    return rules.fetch_hfi.output if any(c.beam_hfi_ghz for c in channels) else []


def shards(wildcards):
    """Files of a simulated dataset."""
    count = len(STUDY.datasets[wildcards.cmb].shards)
    return expand(
        "<results>/datasets/{cmb}/shards/{shard}.h5", cmb=wildcards.cmb, shard=range(count)
    )


def shard_of(wildcards):
    """File of a simulated dataset that holds a realization; the last where none does."""
    size = dataset_settings(wildcards).shard_size
    files = shards(wildcards)
    return files[min(int(wildcards.realization) // size, len(files) - 1)]


def read_dataset(wildcards):
    """Name of the dataset that is read for a run: its own, or the `other` that it is tested on."""
    return wildcards.get("other") or run_settings(wildcards).dataset


def run_dataset(name):
    """Input function: a file of the dataset that a run is trained or tested on."""
    return lambda wildcards: expand(
        f"<results>/datasets/{{dataset}}/{name}", dataset=read_dataset(wildcards)
    )


def run_shards(wildcards):
    """Files of the dataset that a run is trained or tested on."""
    name = read_dataset(wildcards)
    if STUDY.datasets[name].kind == "sky":
        return run_dataset("pairs.h5")(wildcards)
    return expand(
        "<results>/datasets/{cmb}/shards/{shard}.h5",
        cmb=name,
        shard=range(len(STUDY.datasets[name].shards)),
    )


def other_shards(wildcards):
    """Files of a dataset that runs of others are tested on."""
    return expand(
        "<results>/datasets/{other}/shards/{shard}.h5",
        other=wildcards.other,
        shard=range(len(STUDY.datasets[wildcards.other].shards)),
    )


def shards_together(wildcards):
    """Files of a simulated dataset whose realizations of a part share a file of estimates."""
    together = dataset_settings(wildcards).estimated_together(wildcards.part)
    return [shards(wildcards)[shard] for shard in together[int(wildcards.chunk)]]


def read_estimates(*parts):
    """Input function: the estimates of parts of the dataset that a run reads, if it has any."""

    def files(wildcards):
        name = read_dataset(wildcards)
        return [
            f"<results>/datasets/{name}/estimates/{part}/{chunk}.h5"
            for part in (parts if name in ESTIMATED else ())
            for chunk in range(len(STUDY.datasets[name].estimated_together(part)))
        ]

    return files


def elsewhere_estimates(wildcards):
    """Estimates of the dataset that a run is tested on, as they were learned on the run's own."""
    own, other = run_settings(wildcards).dataset, STUDY.datasets[wildcards.other]
    channel = STUDY.datasets[own].estimated_from if own in ESTIMATED else None
    if channel is None or not {f"q_{channel}", f"u_{channel}"} <= set(other.fields):
        return []
    return [f"<results>/datasets/{own}/elsewhere/{wildcards.other}.h5"]


def expected_correlation(wildcards):
    """What theory expects of the estimates of the dataset that a run reads, if it has any."""
    name = read_dataset(wildcards)
    # It is a sum over pairs of modes: for larger patches memory and time are out of proportion.
    wanted = name in ESTIMATED and STUDY.datasets[name].grid.pixels <= 256
    return run_dataset("theory.csv")(wildcards) if wanted else []


def starts_from_estimates(wildcards):
    """Whether some inputs of a run's network are estimates."""
    run = run_settings(wildcards)
    return run.task != "foregrounds" and bool(set(run.inputs) & set(ESTIMATES))


def training_estimates(wildcards):
    """The estimates that a run's network is trained on, if it is on any."""
    wanted = starts_from_estimates(wildcards)
    return read_estimates("train", "validation")(wildcards) if wanted else []


def training_calibration(wildcards):
    """What makes those estimates of maps, for the network's card."""
    wanted = starts_from_estimates(wildcards)
    return run_dataset("estimator.json")(wildcards) if wanted else []


def needed_network(key):
    """Input function: the network of the run that a setting of a run names, if it names one."""

    def file(wildcards):
        other = getattr(run_settings(wildcards), key, None)
        return [] if other is None else [f"<results>/runs/{other}/network.keras"]

    return file


def filled_maps_covariance(wildcards):
    """How the maps of an inpainting run go together, if it is one."""
    run = run_settings(wildcards)
    if run.task != "inpainting":
        return []
    channel = run.fields[0].partition("_")[2]
    return run_dataset(f"covariance/{channel}.csv")(wildcards)


def looked_through(wildcards):
    """VGG16, if a run's losses look at maps through it."""
    run = run_settings(wildcards)
    return rules.fetch_vgg16.output if run.task == "inpainting" and run.losses.looks else []


def cut_pieces(wildcards):
    """Pieces of a mask, if they are a run's holes."""
    return ["<results>/runs/{run}/holes.h5"] if wildcards.run in CUT_HOLES else []


def hole_mask(wildcards):
    """The mask that a run's holes are cut from: of a sky dataset, or the user's own."""
    holes = run_settings(wildcards).holes
    return holes.path or f"<results>/datasets/{holes.sky}/mask.fits"


def hole_sources(wildcards):
    """The point sources that are holes too, where a sky dataset has a table of them."""
    sky = run_settings(wildcards).holes.sky
    wanted = sky is not None and STUDY.datasets[sky].sources.remove != "none"
    return [f"<results>/datasets/{sky}/sources.csv"] if wanted else []


def patch_grid(name):
    """Side, degrees, and pixels of a dataset's patches."""
    grid = STUDY.datasets[name].grid
    return {"size_deg": grid.size_deg, "pixels": grid.pixels}


def filled_settings(wildcards):
    """Settings of an inpainting run that say what it is judged on."""
    keys = {"task", "dataset", "fields", "holes", "radii", "patches"}
    return run_settings(wildcards).model_dump(mode="json", include=keys)


def inpainting_memory(wildcards):
    """MB of test patches with holes, filled: eight maps each, with copies on the way."""
    run = run_settings(wildcards)
    dataset = STUDY.datasets[run.dataset]
    # The covariance of a large hole is a matrix of up to 8,000 by 8,000. What classes look like is
    # learned on the whole training set.
    maps = 10 * run.patches * len(run.fields)
    if run.classes is not None:
        maps += dataset.split.train * (dataset.realizations or 10_000)
    return 5000 + int(4e-6 * maps * dataset.grid.pixels**2)


def inpainting_runtime(wildcards):
    """Minutes of filled patches: each kind of holes is some 100 steps of conjugate gradients."""
    run = run_settings(wildcards)
    of_128 = (STUDY.datasets[run.dataset].grid.pixels / 128) ** 2
    return 60 + int((1 + len(run.radii)) * run.patches * len(run.fields) * of_128 / 30)


def evaluated_settings(wildcards):
    """Settings of a run that its evaluation reads."""
    keys = {"task", "dataset", "beside", "tests", "method", "noise_channels"}
    return run_settings(wildcards).model_dump(mode="json", include=keys)


def plain_beside(wildcards):
    """The first run beside a run that was trained by the difference to the truth alone."""
    names = run_settings(wildcards).beside
    return next((name for name in names if STUDY.runs[name].method == "plain"), None)


def decomposed_maps(run):
    """Maps of a realization that a decomposition holds: inputs, truth, methods, and samples."""
    samples = 2 * run.samples if run.makes_samples else 0
    return len(run.inputs) + (6 + samples) * (len(run.targets) + 2)


def compared_maps(run):
    """Maps of a realization that an evaluation of a decomposition holds, of a field."""
    together = [run, *(STUDY.runs[name] for name in run.beside)]
    return 8 + 2 * max([one.samples for one in together if one.makes_samples], default=0)


def decomposition_runtime(wildcards):
    """Minutes of a decomposition: a prediction, or several for each sample."""
    run = run_settings(wildcards)
    passes = run.samples * (2 * run.flow.steps if run.method == "flow" else 1)
    return 30 + (prediction_runtime(wildcards) - 30) * (passes if run.makes_samples else 1)


def compared(*names):
    """Input function: files of each of a dataset's runs that are compared by their training."""
    return lambda wildcards: expand(
        "<results>/runs/{run}/{name}", run=COMPARED[wildcards.cmb], name=names
    )


def scanned(name):
    """Input function: a file of each run of a scan over settings."""
    return lambda wildcards: expand(
        f"<results>/runs/{{run}}/{name}", run=STUDY.members(wildcards.scan)
    )


def scan_tables(task):
    """Tables of the scans over settings of runs of a task."""
    names = [name for name, scan in STUDY.scans.items() if STUDY.runs[scan.run].task == task]
    return expand("<results>/scans/{scan}/table.csv", scan=names)


def run_tests(own, elsewhere):
    """Input function: a file of the run, if `own` names one, and those of its tests elsewhere."""
    return lambda wildcards: expand(own or [], run=wildcards.run) + expand(
        elsewhere, run=wildcards.run, other=run_settings(wildcards).tests
    )


def run_map(wildcards):
    """The map that patches of the run's dataset are cut from."""
    sources = STUDY.datasets[run_settings(wildcards).dataset].sources
    name = "map.fits" if sources.remove == "none" else "cleaned.fits"
    return run_dataset(name)(wildcards)


def run_template(wildcards):
    """Where a run's full sky has its polarization from: fetched, the user's own, or nothing."""
    full_sky = run_settings(wildcards).full_sky
    if full_sky.polarization == "none":
        return []
    own = full_sky.template.source == "file"
    return [full_sky.template.path] if own else list(rules.fetch_template.output)


def run_patches(wildcards):
    """Geometry and beams of the patches of the run's dataset; not how many there are."""
    patches = STUDY.datasets[run_settings(wildcards).dataset].patches
    return patches.model_dump(mode="json", exclude={"count", "inside"})


def sky_settings(wildcards, others):
    """Settings of a run's full sky but for those that a rule does not read."""
    return run_settings(wildcards).full_sky.model_dump(mode="json", exclude=others)


def skies(name):
    """Input function: a file of each realization of a run's full sky."""
    return lambda wildcards: expand(
        f"<results>/sky/{{run}}/{name}",
        run=wildcards.run,
        realization=range(run_settings(wildcards).full_sky.realizations),
    )


def map_files(wildcards):
    """What the sky map is made from: the fetched SFD98 files, or the user's own file."""
    settings = STUDY.datasets[wildcards.sky].map
    return rules.fetch_sfd98.output if settings.source == "sfd98" else settings.path


def user_files(section, *keys):
    """The user's own files that a section names, as inputs: a change of one reruns the rule."""
    return [path for key in keys if (path := getattr(section, key)) is not None]


def simulation_memory(wildcards):
    """MB of a shard's job: the library's own, the spectra, and the transforms of one sky.

    On a flat sky the sets of parameters that are kept at a time, 16 of them, have their own.
    """
    dataset, count = dataset_settings(wildcards), len(POINTS[wildcards.cmb])
    grid, spectra = dataset.grid, 100e-6 * dataset.spectra.lmax * count
    if grid.sky == "flat":
        pixels = (grid.oversample * (grid.pixels + 2 * grid.margin)) ** 2
        return 1000 + int(spectra + (0.7e-3 + 0.3e-3 * min(count, 16)) * pixels)
    lmax = 180 * 60 / grid.pixel_arcmin
    pixels = grid.patches_per_sky * (grid.pixels + 2 * grid.margin) ** 2
    # Measured: 2.7 GB for 192 patches of 128² at lmax 4700, every field.
    return 1000 + int(spectra + 80e-6 * lmax**2 + 400e-6 * pixels)


def simulation_runtime(wildcards):
    """Minutes of a shard's job: on a curved sky one lasts 45 s at lmax 4700."""
    dataset = dataset_settings(wildcards)
    if dataset.grid.sky == "flat":
        return 60
    skies = dataset.shard_size / dataset.grid.patches_per_sky
    return 60 + int(2 * skies * (180 * 60 / dataset.grid.pixel_arcmin / 4700) ** 3)


def maps_memory(part, maps):
    """Function: MB of a job that holds so many maps of each realization of a part of the split."""

    def memory(wildcards):
        run = run_settings(wildcards)
        dataset = STUDY.datasets[read_dataset(wildcards)]
        if run.task == "foregrounds":
            return pairs_memory(dataset.patches)
        patches = getattr(dataset.split, part) * dataset.realizations
        # Single precision, and as much again for what is made of them on the way.
        return 3000 + int(2 * 4e-6 * patches * dataset.grid.pixels**2 * maps(run))

    return memory


def pairs_memory(patches):
    """MB of a job that holds all pairs of patches: five maps each, in double precision on the way."""
    return 3000 + int(5 * 12e-6 * patches.count * patches.pixels**2)


def estimation_runtime(wildcards):
    """Minutes of estimates or of their calibration: a map of 128² lasts 0.3 s with 14 steps."""
    dataset = dataset_settings(wildcards)
    estimates, of_128 = dataset.estimates, (1.25 * dataset.grid.pixels / 128) ** 2
    maps = dataset.shard_size if wildcards.get("other") else 2 * estimates.calibration
    if wildcards.get("chunk"):
        together = dataset.estimated_together(wildcards.part)[int(wildcards.chunk)]
        maps = len(together) * dataset.shard_size * getattr(dataset.split, wildcards.part)
    # Once, how quadratic estimators answer: a sum over pairs of modes.
    work = 6 * of_128**2 + maps * of_128 * (0.15 + 0.012 * estimates.iterations)
    return 30 + int(3 * work / 60)


def elsewhere_runtime(wildcards):
    """Minutes of estimates of the test set of another dataset."""
    dataset, other = dataset_settings(wildcards), STUDY.datasets[wildcards.other]
    shards = other.split.test * other.realizations / dataset.shard_size
    return 30 + int(estimation_runtime(wildcards) * max(1, shards))


def estimation_memory(wildcards):
    """MB of estimates: some twenty maps of each patch of the 32 that are worked on at once."""
    return 2000 + int(25 * 8e-6 * 32 * (1.25 * dataset_settings(wildcards).grid.pixels) ** 2)


def calibration_memory(wildcards):
    """MB of a calibration: 40 maps of each realization, in double precision, were measured."""
    dataset = dataset_settings(wildcards)
    count = min(dataset.estimates.calibration, dataset.realizations)
    return 2000 + int(45 * 8e-6 * count * (1.25 * dataset.grid.pixels) ** 2)


def theory_memory(wildcards):
    """MB of what theory expects: two matrices of modes by modes, an eighth of the plane each."""
    pixels = 1.25 * dataset_settings(wildcards).grid.pixels
    return 2000 + int(4 * 8e-6 * (pixels**2 / 8) ** 2)


def full_sky_memory(wildcards):
    """MB of a job that holds a full sky; 8.8 GB were measured at nside 4096 with T, Q and U."""
    run = run_settings(wildcards)
    components = 1 if run.full_sky.polarization == "none" else 3
    return 4000 + int(5 * 4e-6 * 12 * run.full_sky.nside**2 * components)


def full_sky_runtime(wildcards):
    """Minutes of a full sky on CPUs: a tile of 320² at full width is a second of 100 GFLOP/s."""
    run = run_settings(wildcards)
    full_sky, patches = run.full_sky, STUDY.datasets[run.dataset].patches
    tiles = 1.1 * 41253 / (patches.size_deg - full_sky.overlap_deg) ** 2
    tiles *= 50 if full_sky.second_stage else 1
    passes = {"none": 1, "intensity": 2, "stokes": 3}[full_sky.polarization]
    work = tiles * passes * (patches.pixels / 320) ** 2 * max(run.network.width, 0.1) ** 2
    return 60 + int(1.5 * work / 60)


def sky_threads(wildcards):
    """One for small skies, which have little to share; otherwise 2."""
    return max(1, min(2, dataset_settings(wildcards).map.nside // 512))


def full_sky_threads(wildcards):
    """One for small skies, which have little to share; 8 at nside 4096."""
    return max(1, min(8, run_settings(wildcards).full_sky.nside // 512))


def pairs_threads(wildcards):
    """As many as the patches of a run's dataset have work for."""
    patches = STUDY.datasets[run_settings(wildcards).dataset].patches
    return 1 if patches.count * patches.pixels**2 < 10**7 else 8


def network_threads(wildcards):
    """One for small maps and narrow networks, which have little to share; otherwise 8."""
    run = run_settings(wildcards)
    dataset = STUDY.datasets[run.dataset]
    grid = {"sky": "patches", "cmb": "grid"}.get(dataset.kind)
    pixels = (getattr(dataset, grid) if grid else dataset).pixels
    return 1 if pixels is not None and run.network.width * pixels <= 16 else 8


def trained_settings(wildcards):
    """Settings of a run but for those of what is made with its network afterwards."""
    run = run_settings(wildcards)
    later = dict.fromkeys(("full_sky", "tests", "beside", "radii", "patches", "classes"), True)
    return run.model_dump(mode="json", exclude=later | UNTRAINED.get(run.task, {}))


def training_memory(wildcards):
    """MB of a training; one that compares its epochs' networks holds the validation set.

    One that mixes in generated images holds them all, and two copies on the way.
    """
    run = run_settings(wildcards)
    compares = run.training.select.swept
    held = maps_memory("validation", lambda run: len(run.inputs) + 2 * len(run.targets))
    mixed = 0
    if run.task == "denoising" and run.alpha:
        mixed = 2000 + int(3 * 4e-6 * STUDY.runs[run.generated].samples * galaxy_size(run, 0)[0])
    return 8000 + mixed + (held(wildcards) if compares else 0)


def prediction_runtime(wildcards):
    """Minutes of a prediction: a map of 128² at full width is 0.7 s of 100 GFLOP/s."""
    run = run_settings(wildcards)
    dataset = STUDY.datasets[read_dataset(wildcards)]
    maps = dataset.split.test * dataset.realizations * (dataset.grid.pixels / 128) ** 2
    return 30 + int(0.7 / 60 * maps * max(run.network.width, 0.1) ** 2)


def larger_part(maps):
    """Function: MB of a job that holds so many maps of each realization to test or validate on."""
    parts = [maps_memory(part, maps) for part in ("test", "validation")]
    return lambda wildcards: max(memory(wildcards) for memory in parts)


def both_parts_runtime(wildcards):
    """Minutes of a prediction of the test set and of the validation set."""
    split = STUDY.datasets[run_settings(wildcards).dataset].split
    return int(prediction_runtime(wildcards) * (1 + split.validation / max(split.test, 1e-9)))


def evaluation_runtime(wildcards):
    """Minutes of an evaluation, all fields and methods: a map of 128² lasts 0.06 s."""
    dataset = STUDY.datasets[run_settings(wildcards).dataset]
    maps = (dataset.split.test + dataset.split.validation) * dataset.realizations
    return 60 + int(3 * 0.06 / 60 * maps * (dataset.grid.pixels / 128) ** 2)


def imported_images(wildcards):
    """What images are imported from: fetched ones, or the user's own; a large folder as such."""
    dataset = dataset_settings(wildcards)
    if dataset.source == "cosmos":
        return rules.fetch_cosmos.output
    files = IMAGE_FILES[wildcards.images]
    return [dataset.path] if len(files) > MANY_FILES else [str(file) for file in files]


def imported_digest(wildcards):
    """What tells the files of a large folder from others; None where they are inputs themselves."""
    files = IMAGE_FILES.get(wildcards.images, ())
    if len(files) <= MANY_FILES:
        return None
    stats = [(str(file), file.stat()) for file in files]
    text = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
    return hashlib.sha256(text.encode()).hexdigest()


def image_stretch(wildcards):
    """How fluxes of the dataset of a run become what networks see, if it has images."""
    is_image = STUDY.datasets[run_settings(wildcards).dataset].kind in ("sersic", "images")
    return run_dataset("stretch.json")(wildcards) if is_image else []


def mixed_in(wildcards):
    """Generated images that are mixed into the training set of a run, if any are."""
    run = run_settings(wildcards)
    wanted = run.task == "denoising" and run.alpha > 0
    return [f"<results>/runs/{run.generated}/samples.h5"] if wanted else []


def generator_settings(wildcards):
    """Settings of a run that its images, once it is trained, depend on."""
    wanted = {"task", "dataset", "fields", "network", "diffusion", "truncation", "samples"}
    plain_run = run_settings(wildcards).model_dump(mode="json", include=wanted | {"grid_epochs"})
    epochs = run_settings(wildcards).training.epochs
    return plain_run | {"training": {"epochs": epochs}}


def inception(wildcards):
    """Weights of the network whose features tell images apart, if a run is judged by them."""
    return rules.fetch_inception.output if run_settings(wildcards).metrics.features else []


def galaxy_size(run, network):
    """Pixels of an image of a run, its bands together, and MB of its `network` at work on 64."""
    dataset = STUDY.datasets[run.dataset]
    # Measured: 60 to 115 MB an image of 128² at full width, whatever the network.
    working = 64 * network * run.network.width * (dataset.pixels / 128) ** 2
    return dataset.pixels**2 * len(run.fields), working


def galaxy_count(name, part):
    """Images of a part of a dataset, as many as a survey has where the settings do not say."""
    dataset = STUDY.datasets[name]
    known = {"cosmos": 100}.get(getattr(dataset, "source", None), 20_000)
    return getattr(dataset.split, part) * (dataset.realizations or known)


def compared_images(run):
    """Images of each set that a generation run is judged by."""
    return run.metrics.images or min(run.samples, galaxy_count(run.dataset, "test"))


def generation_memory(wildcards):
    """MB of images made: stretched, as fluxes, and two copies on the way."""
    run = run_settings(wildcards)
    pixels, working = galaxy_size(run, 100)
    return 4000 + int(working + 4.5 * 4e-6 * run.samples * pixels)


def generation_runtime(wildcards):
    """Minutes of images made, by a processor of 100 GFLOP/s; narrow networks are as slow as wide.

    One of 128² at full width is 0.2 s; of a diffusion model 0.4 s, twice for each of its steps.
    """
    run = run_settings(wildcards)
    passes = 4 * run.diffusion.steps if run.network.name == "diffusion" else 1
    of_128 = (STUDY.datasets[run.dataset].pixels / 128) ** 2
    width = max(run.network.width, run.network.width**2)
    return 30 + int(0.2 / 60 * run.samples * passes * of_128 * width)


def judged_images_memory(wildcards):
    """MB of made and real images: four sets, with copies on the way, and some of the training set.

    Those that Gaussian images are drawn from are there in double precision, too.
    """
    run = run_settings(wildcards)
    train = galaxy_count(run.dataset, "train")
    images = 9 * compared_images(run) + min(train, 5000) + 6 * min(train, 2000)
    return 8000 + int(4e-6 * images * galaxy_size(run, 0)[0])


def judged_images_threads(wildcards):
    """One for so few images that processes are not worth their start; otherwise 8."""
    return 1 if compared_images(run_settings(wildcards)) < 100 else 8


def judged_images_runtime(wildcards):
    """Minutes of four sets' morphology by 8 processes, up to 5 s an image of 256², and features."""
    run = run_settings(wildcards)
    of_256 = (STUDY.datasets[run.dataset].pixels / 256) ** 2
    shapes = (0.3 + 5 * of_256) * len(run.fields) / 8
    return 60 + int(4 / 60 * compared_images(run) * (shapes + 0.15))


def restored_memory(wildcards):
    """MB of a test set: true, coarser, as seen, restored in two ways; and of its training set."""
    run = run_settings(wildcards)
    pixels, working = galaxy_size(run, 60)
    images = 8 * galaxy_count(run.dataset, "test") + 4 * 2000
    return 4000 + int(working + 4e-6 * images * pixels)


def restored_runtime(wildcards):
    """Minutes of a test set restored under four conditions: an image of 128² is 0.2 s a time."""
    run = run_settings(wildcards)
    of_128 = (STUDY.datasets[run.dataset].pixels / 128) ** 2
    width = max(run.network.width, run.network.width**2)
    images = 4 * galaxy_count(run.dataset, "test")
    return 30 + int(images / 60 * of_128 * (0.05 + 0.2 * width))


def rendering_runtime(wildcards):
    """Minutes of a shard of profiles: one of 256² is 0.1 s, with a wide frame around it 0.3 s."""
    dataset = dataset_settings(wildcards)
    return 30 + int(0.3 / 60 * dataset.shard_size * (dataset.pixels / 256) ** 2)


def prediction_network(name):
    """Input function: a file of the trained network of a prediction."""
    return lambda wildcards: expand(
        f"<results>/runs/{{run}}/{name}", run=STUDY.predictions[wildcards.prediction].run
    )


def prediction_files():
    """What the study's predictions are written to."""
    return [
        f"<results>/predictions/{name}.{prediction.format}"
        for name, prediction in STUDY.predictions.items()
    ]


def prediction_memory(wildcards):
    """MB of a prediction: the library's own, and some copies of the maps in tiles."""
    return 6000 + 20 * Path(STUDY.predictions[wildcards.prediction].path).stat().st_size // 10**6


def realizations_of(wildcards):
    """First realization of a shard and the one behind its last."""
    shard = dataset_settings(wildcards).shards[int(wildcards.shard)]
    return [shard.start, shard.stop]
