"""Gaussian noise with a spectrum for each of some fields, seen through a taper."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np

from skyweave import seeds
from skyweave.errors import UserError
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid


class ColoredNoise:
    """Independent stationary Gaussian fields times `taper` (y, x), in the fields' order.

    `amplitudes` are what the modes of white noise with variance 1 a pixel are multiplied by,
    (y, y // 2 + 1) in the order of ``rfft2``. All is kept in float32. Raises `ValueError` for
    shapes that do not fit, and for what is not finite.
    """

    def __init__(self, amplitudes: Mapping[str, np.ndarray], taper: np.ndarray) -> None:
        self.amplitudes = {
            name: np.asarray(values, np.float32) for name, values in amplitudes.items()
        }
        self.taper = np.asarray(taper, np.float32)
        pixels = len(self.taper)
        self._grid = PatchGrid(1.0, pixels)  # of any size: white noise knows none
        shapes = {"taper": ((pixels, pixels), self.taper)}
        shapes |= {
            name: ((pixels, pixels // 2 + 1), values) for name, values in self.amplitudes.items()
        }
        for name, (shape, values) in shapes.items():
            if values.shape != shape or not np.isfinite(values).all():
                raise ValueError(f"Expected finite {shape} of {name}. Received: {values.shape}")

    @classmethod
    def of_spectra(
        cls, spectra: Mapping[str, np.ndarray], taper: np.ndarray, grid: PatchGrid
    ) -> Self:
        """Fields with these spectra at the grid's modes, C_ell before the taper."""
        return cls({k: np.sqrt(cl) / grid.pixel_rad for k, cl in spectra.items()}, taper)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields' names, in the order of the last axis of `draw`."""
        return tuple(self.amplitudes)

    @cached_property
    def rms(self) -> dict[str, float]:
        """Root mean square of each field over the pixels, taper included."""
        weight = self._grid.mode_weight / self.taper.size
        seen = float(np.mean(np.square(self.taper, dtype=float)))
        return {
            name: float(np.sqrt(seen * np.sum(weight * np.square(values, dtype=float))))
            for name, values in self.amplitudes.items()
        }

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that decides the draws."""
        digest = hashlib.sha256(self.taper.tobytes())
        for name, values in self.amplitudes.items():
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()

    def draw(self, count: int, seed: int, *identity: str | int) -> np.ndarray:
        """Maps (count, y, x, fields) float32, drawn by (seed, *identity)."""
        shape = (len(self.fields), count, *self.taper.shape)
        white = seeds.generator(seed, *identity).standard_normal(shape, np.float32)
        maps = np.empty((*shape[1:], shape[0]), np.float32)
        for place, (field, factor) in enumerate(zip(white, self.amplitudes.values(), strict=True)):
            colored = inverse(forward(field, self._grid) * factor, self._grid)
            np.multiply(colored, self.taper, out=maps[..., place])
        return maps

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the taper's profile, and each field's amplitude by wave number, ascending.

        They give the same amplitudes, and the same taper but for the rounding of float32. Raises
        `ValueError` for an amplitude that is not isotropic or a taper that is not separable.
        """
        first, place = self._shells
        radial = {name: values.ravel()[first] for name, values in self.amplitudes.items()}
        for name, values in radial.items():
            if not np.array_equal(values[place], self.amplitudes[name].ravel()):
                raise ValueError(f"Expected an isotropic amplitude of {name}")
        profile = self.taper[len(self.taper) // 2]
        if not np.allclose(profile[:, None] * profile, self.taper, atol=1e-6):
            raise ValueError(
                "Expected a taper that is the product of its profiles, 1 in the middle"
            )
        return {
            "taper": _plain(profile),
            "amplitudes": {name: _plain(values) for name, values in radial.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_dict` gave; raises `UserError` for anything else."""
        try:
            profile = np.array(values["taper"], np.float32)
            first, place = cls({}, profile[:, None] * profile)._shells
            shape = (profile.size, profile.size // 2 + 1)
            amplitudes = {
                str(name): np.reshape(radial, first.shape)[place].reshape(shape)
                for name, radial in values["amplitudes"].items()
            }
            return cls(amplitudes, profile[:, None] * profile)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise UserError("noise", "a taper, and amplitudes of each field", values) from None

    @cached_property
    def _shells(self) -> tuple[np.ndarray, np.ndarray]:
        """First mode of each distinct wave number, and the number of each mode, both flat."""
        pixels = len(self.taper)
        along = np.rint(np.fft.fftfreq(pixels) * pixels).astype(int)
        squares = along[:, None] ** 2 + np.arange(pixels // 2 + 1) ** 2
        _, first, place = np.unique(squares, return_index=True, return_inverse=True)
        return first, place.ravel()


def _plain(values: np.ndarray) -> list[float]:
    """The shortest decimals that give the same float32."""
    return [float(str(value)) for value in values]
