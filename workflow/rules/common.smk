"""What the rules share: the checked settings and how a rule finds its own section."""

import sys

from skyweave.config import parse as parse_settings
from skyweave.config import read_yaml, require_files
from skyweave.errors import UserError

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
except UserError as error:
    sys.exit(f"config: {error}")


# Only with `--software-deployment-method conda`; otherwise the environment that Snakemake runs in.
ENVIRONMENT = "../../envs/cpu.yaml"


def named(entries, attribute, value):
    """Names of the entries whose attribute has that value."""
    return sorted(name for name, entry in entries.items() if getattr(entry, attribute) == value)


CMB = named(STUDY.datasets, "kind", "cmb")
SKY = named(STUDY.datasets, "kind", "sky")
RECONSTRUCTION = named(STUDY.runs, "task", "reconstruction")


def one_of(names):
    """Pattern of a wildcard that is one of these names; with no names, nothing."""
    return "|".join(names) if names else "(?!)"


wildcard_constraints:
    cmb=one_of(CMB),
    sky=one_of(SKY),
    run=one_of(RECONSTRUCTION),
    shard=r"\d+",


def plain(section):
    """A section of the settings as Snakemake keeps it: a change of it reruns the rule."""
    return section.model_dump(mode="json")


def dataset_settings(wildcards):
    """Settings of the dataset that the wildcards name."""
    return STUDY.datasets[wildcards.get("cmb") or wildcards.get("sky")]


def run_settings(wildcards):
    """Settings of the run that the wildcards name."""
    return STUDY.runs[wildcards.run]


def shards(wildcards):
    """Files of a simulated dataset."""
    count = len(STUDY.datasets[wildcards.cmb].shards)
    return expand(
        "<results>/datasets/{cmb}/shards/{shard}.h5", cmb=wildcards.cmb, shard=range(count)
    )


def run_dataset(name):
    """Input function: a file of the dataset that the run is trained on."""
    return lambda wildcards: expand(
        f"<results>/datasets/{{cmb}}/{name}", cmb=run_settings(wildcards).dataset
    )


def run_shards(wildcards):
    """Files of the dataset that the run is trained on."""
    count = len(STUDY.datasets[run_settings(wildcards).dataset].shards)
    return expand(
        "<results>/datasets/{cmb}/shards/{shard}.h5",
        cmb=run_settings(wildcards).dataset,
        shard=range(count),
    )


def map_files(wildcards):
    """What the sky map is made from: the fetched SFD98 files, or the user's own file."""
    settings = STUDY.datasets[wildcards.sky].map
    return rules.fetch_sfd98.output if settings.source == "sfd98" else settings.path


def user_files(section, *keys):
    """The user's own files that a section names, as inputs: a change of one reruns the rule."""
    return [path for key in keys if (path := getattr(section, key)) is not None]


def realizations_of(wildcards):
    """First realization of a shard and the one behind its last."""
    shard = STUDY.datasets[wildcards.cmb].shards[int(wildcards.shard)]
    return [shard.start, shard.stop]
