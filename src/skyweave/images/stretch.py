"""Fluxes to what networks and feature metrics see, and back: one scale for all images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from skyweave.config.galaxies import Stretch
from skyweave.errors import UserError

#: Of the bright pixels, per cent that `top` exceeds, and how much less `softening` is.
_PERCENTILE = 99.9
_TOP_TO_SOFTENING = 100.0


@dataclass(frozen=True)
class Scale:
    """A scale that makes -1 of flux 0 and 1 of `top`; what is brighter or negative goes beyond.

    `kind` is `asinh` (Lupton, Gunn & Szalay 1999, astro-ph/9903081), which bends at `softening`,
    or `linear`, which has none. Both are fluxes a pixel, in the images' unit.
    """

    kind: str
    softening: float | None
    top: float

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Fluxes of any shape → stretched, float32."""
        images = np.asarray(images, np.float32)
        if self.softening is None:
            return images * (2 / self.top) - 1
        return np.arcsinh(images / self.softening) * (2 / self._height(self.softening)) - 1

    def undo(self, stretched: np.ndarray) -> np.ndarray:
        """Stretched images of any shape → fluxes, float32."""
        above = np.asarray(stretched, np.float32) + 1
        if self.softening is None:
            return above * (self.top / 2)
        return np.sinh(above * (self._height(self.softening) / 2)) * self.softening

    def _height(self, softening: float) -> float:
        return float(np.arcsinh(self.top / softening))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `kind`, `softening` (None if linear) and `top`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_dict` gave; raises `UserError` for anything else."""
        try:
            kind, top = str(values["kind"]), float(values["top"])
            softening = None if values["softening"] is None else float(values["softening"])
        except (KeyError, TypeError, ValueError):
            raise UserError("stretch", "kind, softening and top", values) from None
        positive = all(0 < x < np.inf for x in (top, 1.0 if softening is None else softening))
        if (kind, softening is None) not in (("asinh", False), ("linear", True)) or not positive:
            expected = "asinh with a softening > 0 or linear with none, and a top > 0"
            raise UserError("stretch", expected, dict(values))
        return cls(kind, softening, top)


def fit(settings: Stretch, images: np.ndarray) -> Scale:
    """The scale that `settings` ask for, of training images (n, ..., y, x), all bands together.

    A `top` of null is the 99.9th percentile of the pixels that are brighter than half the
    brightest of their own image; a `softening` of null is a hundredth of `top`. Raises `UserError`
    where `top` is null and no image has flux above 0.
    """
    top = settings.top
    if top is None:
        bright = [image[image > image.max() / 2] for image in images if image.max() > 0]
        if not bright:
            raise UserError("stretch.top", "images with flux above 0 (or a number)", "none")
        top = float(np.percentile(np.concatenate(bright), _PERCENTILE))
    if settings.kind == "linear":
        return Scale("linear", None, top)
    return Scale("asinh", settings.softening or top / _TOP_TO_SOFTENING, top)
