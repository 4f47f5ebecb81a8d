"""Settings: the models, and the one way to read a configuration."""

from skyweave.config.base import Split
from skyweave.config.cmb import CMB_FIELDS, CmbDataset, Cosmology, Effects, Grid, Spectra
from skyweave.config.load import load, parse, read_yaml, require_files
from skyweave.config.models import Config
from skyweave.config.runs import Network, ReconstructionRun, Training
from skyweave.config.sky import HealpixMap, Mask, Patches, SkyDataset

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
