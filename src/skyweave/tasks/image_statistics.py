"""What is measured of a set of images: features, power and morphology, kept by its content."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skyweave.files import atomic, versions
from skyweave.images.stretch import Scale
from skyweave.statistics.image_spectra import radial_power
from skyweave.statistics.morphology import morphology

if TYPE_CHECKING:
    import keras

#: What the keys of what is kept begin with; another where what is measured changes.
_FORMAT = "skyweave image statistics 1"

_DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Measured:
    """Of n images: features (n, k), power (n, bins) at wave numbers (bins,), morphology by band."""

    features: np.ndarray | None
    power: Mapping[str, np.ndarray]
    wave_numbers: np.ndarray
    shapes: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Measure:
    """How sets of images are measured, all alike.

    Features are those of the network `inception` (none if None), whose file has the checksum
    `weights`, on stretched images between -1 and 1; power and morphology those of fluxes, the
    latter with the `noise` of each band (0 of others) and `psf` as `statistics.morphology` has
    them, if `shapes`. What `kept`, a folder, has of the same images is not measured again.
    """

    scale: Scale
    bands: Sequence[str]
    inception: "keras.Model | None" = None
    weights: str = ""
    shapes: bool = True
    noise: Mapping[str, float] = field(default_factory=dict)
    psf: np.ndarray | None = None
    threads: int = 1

    def __call__(self, images: np.ndarray, kept: str | Path | None = None) -> Measured:
        """Measure images (n, y, x, bands) of fluxes; where `kept` is a folder, only once."""
        if kept is None:
            return self._measure(images)
        path = Path(kept) / f"{self._key(images)}.npz"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return self._read(arrays)
        except _DAMAGE:
            # There is none yet, or it is damaged.
            found = self._measure(images)
        kept_arrays: dict[str, Any] = self._arrays(found)
        # Another run's process may keep the same images at the same time: one of them does.
        with suppress(FileNotFoundError), atomic(path) as temporary:
            np.savez(temporary, **kept_arrays)
        return found

    def _key(self, images: np.ndarray) -> str:
        settings = {
            "format": _FORMAT,
            "shape": images.shape,
            "scale": self.scale.to_dict(),
            "bands": list(self.bands),
            "weights": self.weights,
            "shapes": self.shapes,
            "noise": dict(self.noise),
            "psf": None if self.psf is None else self.psf.tolist(),
            "versions": versions("statmorph", "photutils"),
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(images, np.float32).tobytes())
        return digest.hexdigest()[:32]

    def _measure(self, images: np.ndarray) -> Measured:
        features = None
        if self.inception is not None:
            from skyweave.networks.inception import embed

            features = embed(self.inception, np.clip(self.scale.apply(images), -1, 1))
        planes = {band: images[..., number] for number, band in enumerate(self.bands)}
        power = {band: radial_power(plane) for band, plane in planes.items()}
        shapes = {
            band: morphology(
                plane, threads=self.threads, noise=self.noise.get(band, 0.0), psf=self.psf
            )
            for band, plane in planes.items()
            if self.shapes
        }
        wave_numbers = next(iter(power.values()))[1]
        return Measured(
            features, {b: values for b, (values, _) in power.items()}, wave_numbers, shapes
        )

    @staticmethod
    def _arrays(found: Measured) -> dict[str, np.ndarray]:
        arrays = {"wave_numbers": found.wave_numbers}
        if found.features is not None:
            arrays["features"] = found.features
        arrays |= {f"power_{band}": values for band, values in found.power.items()}
        for band, table in found.shapes.items():
            arrays[f"shapes_{band}"] = table.to_numpy(float)
            arrays[f"columns_{band}"] = np.array(list(map(str, table.columns)))
        return arrays

    def _read(self, arrays: Mapping[str, np.ndarray]) -> Measured:
        shapes = {
            band: pd.DataFrame(arrays[f"shapes_{band}"], columns=list(arrays[f"columns_{band}"]))
            for band in self.bands
            if self.shapes
        }
        return Measured(
            arrays.get("features"),
            {band: arrays[f"power_{band}"] for band in self.bands},
            arrays["wave_numbers"],
            {band: table.astype({"flag": int}) for band, table in shapes.items()},
        )
