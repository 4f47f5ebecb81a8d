"""Settings: the models, and the one way to read a configuration."""

from skyweave.config.base import Split
from skyweave.config.cmb import (
    ESTIMATES,
    PURE,
    Channel,
    CmbDataset,
    Cosmology,
    Effects,
    Estimates,
    Grid,
    Range,
    Spectra,
    check_fields,
    known_fields,
)
from skyweave.config.decomposition import DecompositionRun
from skyweave.config.galaxies import (
    DenoisingRun,
    GenerationRun,
    ImagesDataset,
    SersicDataset,
    Stretch,
)
from skyweave.config.imported import ImportedDataset, Prediction
from skyweave.config.inpainting import Holes, InpaintingRun
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
    estimate_of,
)
from skyweave.config.scans import Scan
from skyweave.config.sky import HealpixMap, Mask, Patches, PointSources, SkyDataset

__all__ = [
    "ESTIMATES",
    "PURE",
    "Channel",
    "CmbDataset",
    "Config",
    "Cosmology",
    "DecompositionRun",
    "DenoisingRun",
    "Effects",
    "Estimates",
    "ForegroundsRun",
    "ForseNetwork",
    "FullSky",
    "GenerationRun",
    "Grid",
    "HealpixMap",
    "Holes",
    "ImagesDataset",
    "ImportedDataset",
    "InpaintingRun",
    "Mask",
    "Network",
    "Patches",
    "PointSources",
    "PolarizationTemplate",
    "Prediction",
    "Range",
    "ReconstructionRun",
    "Scan",
    "Selection",
    "SersicDataset",
    "SkyDataset",
    "Spectra",
    "Split",
    "Stretch",
    "Training",
    "check_fields",
    "estimate_of",
    "known_fields",
    "load",
    "parse",
    "read_yaml",
    "require_files",
]
