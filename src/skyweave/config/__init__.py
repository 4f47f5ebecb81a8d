"""Settings: the models, and the one way to read a configuration."""

from skyweave.config.load import load, parse, read_yaml, require_files
from skyweave.config.models import (
    CMB_FIELDS,
    CmbDataset,
    Config,
    Cosmology,
    Effects,
    Grid,
    HealpixMap,
    Mask,
    Network,
    Patches,
    ReconstructionRun,
    SkyDataset,
    Spectra,
    Split,
    Training,
)

__all__ = [
    "CMB_FIELDS",
    "CmbDataset",
    "Config",
    "Cosmology",
    "Effects",
    "Grid",
    "HealpixMap",
    "Mask",
    "Network",
    "Patches",
    "ReconstructionRun",
    "SkyDataset",
    "Spectra",
    "Split",
    "Training",
    "load",
    "parse",
    "read_yaml",
    "require_files",
]
