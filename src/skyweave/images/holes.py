"""Holes of maps: random shapes, discs, and pieces of a mask of the sky.

A hole is a boolean array (y, x), True where the map is missing. None is empty, and none leaves
nothing of a patch.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from skyweave.config.base import Split
from skyweave.config.inpainting import Holes
from skyweave.errors import UserError

#: Half the length and half the width of random shapes, shares of a patch's side: least and most.
_SIZES = {
    "line": ((0.10, 0.50), (0.01, 0.04)),
    "disc": ((0.04, 0.16), (0.04, 0.16)),
    "ellipse": ((0.06, 0.22), (0.03, 0.12)),
}
#: Least half width, pixels: a narrower line would fall apart.
_LEAST = 0.75

#: Parts of a split, in the order in which they share pieces of a mask.
_PARTS = ("train", "validation", "test")


def random_holes(
    pixels: int, area: float, rng: np.random.Generator, shapes: Sequence[str] = tuple(_SIZES)
) -> np.ndarray:
    """Hole (y, x) of lines, discs and ellipses of any direction that overlap as they fall.

    Their sizes are in proportion to the patch. The last one is as small as it must be for the
    share `area` of the patch to be missing, to the nearest pixel; at least one pixel is missing,
    and one is not.
    """
    hole = np.zeros((pixels, pixels), bool)
    left = min(max(round(area * pixels**2), 1), pixels**2 - 1)
    while left:
        window, reach = _shape(pixels, str(rng.choice(list(shapes))), rng)
        coming = reach[(reach <= 1) & ~hole[window]]
        if coming.size > left:
            hole[window] |= reach <= np.partition(coming, left - 1)[left - 1]
            return hole
        hole[window] |= reach <= 1
        left -= coming.size
    return hole


def disc(pixels: int, radius: float, centre: tuple[float, float] | None = None) -> np.ndarray:
    """Disc (y, x) of the pixels whose centres lie within `radius` pixels of `centre` (y, x).

    That is the middle of the patch, (pixels - 1) / 2, where none is given.
    """
    y, x = ((pixels - 1) / 2,) * 2 if centre is None else centre
    axis = np.arange(pixels)
    return np.hypot((axis - y)[:, None], (axis - x)[None, :]) <= radius


def placed_disc(pixels: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Disc (y, x) anywhere in the patch, wholly inside it; in its middle where it is too large."""
    # Pixels are squares about whole numbers: the patch reaches from -1/2 to pixels - 1/2.
    room = max(pixels / 2 - radius, 0)
    y, x = (pixels - 1) / 2 + rng.uniform(-room, room, 2)
    return disc(pixels, radius, (y, x))


class HoleSource:
    """Draws holes (y, x) of patches of `pixels` pixels a side as `settings` says.

    `cut` holds the pieces (n, y, x) of a mask of the sky, True where it is missing, that `kind:
    sky` needs: each is turned by quarters and mirrored at random. With a `part` (train,
    validation, test) only its own pieces are drawn from, as many as its share of them; `shares`
    may be counts, None are those of a split by default. Raises `UserError` for discs that leave
    nothing of a patch, and for pieces that are missing, do not fit or are too few to be shared.
    """

    def __init__(
        self,
        settings: Holes,
        pixels: int,
        cut: np.ndarray | None = None,
        *,
        part: str | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        if part is not None and part not in _PARTS:
            raise UserError("part", f"one of {', '.join(_PARTS)}", repr(part))
        self.settings, self.pixels, self.cut = settings, int(pixels), None
        if settings.kind == "disc" and disc(pixels, settings.radius[1]).all():
            corner = (pixels - 1) / 2**0.5
            raise UserError(
                "holes.radius",
                f"discs that leave some of {pixels} pixels a side (below {corner:.4g})",
                f"{settings.radius[1]:g}",
            )
        if settings.kind == "sky":
            self.cut = _checked(cut, self.pixels)
            if part is not None:
                self.cut = self.cut[_slice(len(self.cut), part, shares or Split().model_dump())]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pieces that are drawn from, hexadecimal; empty where there are none."""
        return "" if self.cut is None else hashlib.sha256(self.cut.tobytes()).hexdigest()

    def numbered(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """A hole (y, x) of piece `index`, again from the first behind the last.

        The generator turns and mirrors it; without pieces, it decides all.
        """
        if self.cut is None:
            return self(rng)
        return _turned(self.cut[index % len(self.cut)], rng)

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        """A hole (y, x); the generator decides all of it."""
        if self.cut is not None:
            return _turned(self.cut[rng.integers(len(self.cut))], rng)
        if self.settings.kind == "random":
            return random_holes(self.pixels, self.settings.area, rng, self.settings.shapes)
        radius = rng.uniform(*self.settings.radius)
        if self.settings.centred:
            return disc(self.pixels, radius)
        return placed_disc(self.pixels, radius, rng)


def _shape(
    pixels: int, kind: str, rng: np.random.Generator
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Where a random shape of this kind lies, and how far (y, x) each pixel there is from its
    middle, in units of its size in that direction: 1 at its edge."""
    half, width = (max(pixels * rng.uniform(least, most), _LEAST) for least, most in _SIZES[kind])
    if kind == "disc":
        width = half
    centre = rng.uniform(-0.5, pixels - 0.5, 2)
    angle = rng.uniform(0, np.pi)
    reach = np.hypot(half, width)
    first = np.maximum(np.ceil(centre - reach), 0).astype(int)
    last = np.minimum(np.floor(centre + reach), pixels - 1).astype(int)
    y, x = (np.arange(a, b + 1) - c for a, b, c in zip(first, last, centre, strict=True))
    along = (x[None, :] * np.cos(angle) + y[:, None] * np.sin(angle)) / half
    across = (y[:, None] * np.cos(angle) - x[None, :] * np.sin(angle)) / width
    window = (slice(first[0], last[0] + 1), slice(first[1], last[1] + 1))
    if kind == "line":
        return window, np.maximum(np.abs(along), np.abs(across))
    return window, np.hypot(along, across)


def _turned(piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A piece (y, x) turned by quarters and mirrored at random."""
    piece = np.rot90(piece, int(rng.integers(4)))
    return (piece.T if rng.integers(2) else piece).copy()


def _slice(count: int, part: str, shares: Mapping[str, float]) -> slice:
    """The part's own of so many pieces, one at least."""
    if count < len(_PARTS):
        raise UserError("holes.count", f"at least a piece for each of {', '.join(_PARTS)}", count)
    ends = np.cumsum([shares.get(name, 0) for name in _PARTS])
    first, second = np.rint(count * ends[:2] / ends[2]).astype(int)
    first = min(max(first, 1), count - 2)
    second = min(max(second, first + 1), count - 1)
    place = _PARTS.index(part)
    return slice((0, first, second)[place], (first, second, count)[place])


def _checked(cut: np.ndarray | None, pixels: int) -> np.ndarray:
    """Pieces (n, y, x) bool of a mask of the sky, each with a hole and something seen."""
    if cut is None or not len(cut):
        raise UserError("holes.sky", "pieces of a mask of the sky with `kind: sky`", "none")
    cut = np.asarray(cut, bool)
    if cut.shape[1:] != (pixels, pixels):
        found = " × ".join(map(str, cut.shape[1:]))
        raise UserError("holes.sky", f"pieces of {pixels} × {pixels} pixels", found)
    share = cut.mean(axis=(1, 2))
    wrong = np.flatnonzero((share == 0) | (share == 1))
    if wrong.size:
        found = f"piece {wrong[0]} with {share[wrong[0]]:g}"
        raise UserError("holes.sky", "pieces of which some is missing, not all", found)
    return cut
