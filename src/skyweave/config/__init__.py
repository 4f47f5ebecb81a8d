"""Settings: the models, and the one way to read a configuration."""

from skyweave.config.base import Split
from skyweave.config.cmb import (
    Channel,
    CmbDataset,
    Cosmology,
    Effects,
    Grid,
    Range,
    Spectra,
    check_fields,
    known_fields,
)
from skyweave.config.load import load, parse, read_yaml, require_files
from skyweave.config.models import Config
from skyweave.config.runs import (
    ForegroundsRun,
    ForseNetwork,
    FullSky,
    Network,
    PolarizationTemplate,
    ReconstructionRun,
    Selection,
    Training,
)
from skyweave.config.sky import HealpixMap, Mask, Patches, PointSources, SkyDataset

__all__ = [
    "Channel",
    "CmbDataset",
    "Config",
    "Cosmology",
    "Effects",
    "ForegroundsRun",
    "ForseNetwork",
    "FullSky",
    "Grid",
    "HealpixMap",
    "Mask",
    "Network",
    "Patches",
    "PointSources",
    "PolarizationTemplate",
    "Range",
    "ReconstructionRun",
    "Selection",
    "SkyDataset",
    "Spectra",
    "Split",
    "Training",
    "check_fields",
    "known_fields",
    "load",
    "parse",
    "read_yaml",
    "require_files",
]
