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
from skyweave.config.runs import Network, ReconstructionRun, Selection, Training
from skyweave.config.sky import HealpixMap, Mask, Patches, SkyDataset

__all__ = [
    "Channel",
    "CmbDataset",
    "Config",
    "Cosmology",
    "Effects",
    "Grid",
    "HealpixMap",
    "Mask",
    "Network",
    "Patches",
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
