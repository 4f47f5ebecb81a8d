"""Do seams show where tiles of the sky overlap?"""

from collections.abc import Iterator

import numpy as np

from skyweave.errors import UserError
from skyweave.statistics.verdicts import verdict

#: Coarse pixels that small scales are compared with their surroundings in, those that the error of
#: a seam comes from, and the significance from which on it shows.
_AROUND_NSIDE, _BLOCK_NSIDE, _SEAM_SIGMAS = 16, 4, 3.0

#: Pixels that a seam is looked for in at once.
_PIXELS = 1 << 22


def seam_verdict(small: np.ndarray, mask: np.ndarray, overlap: np.ndarray, nside: int) -> dict:
    """Is the variance of small scales the same where tiles overlap and where one is alone?

    `small` (1 or 2, npix) are T or Q and U, `overlap` (npix,) tells where tiles overlap, and the
    RING `mask` of any nside what is looked at. Raises `UserError` where that is too little for an
    error.
    """
    size, count = 12 * _AROUND_NSIDE**2, 12 * _BLOCK_NSIDE**2
    number, single, total_power = np.zeros((3, size))
    for around, _, alone, power in _inside(small, mask, overlap, nside):
        number += np.bincount(around, minlength=size)
        single += np.bincount(around, alone, size)
        total_power += np.bincount(around, power, size)
    number = np.maximum(number, 1)
    share, mean_power = single / number, total_power / number
    sums = np.zeros((2, 2, count))
    for around, block, alone, power in _inside(small, mask, overlap, nside):
        # As much as there is of the other kind around: both kinds have the same surroundings.
        weight = np.where(alone, 1 - share[around], share[around])
        relative = power / mean_power[around]
        for kind, rows in enumerate((~alone, alone)):
            sums[kind, 0] += np.bincount(block[rows], (relative * weight)[rows], count)
            sums[kind, 1] += np.bincount(block[rows], weight[rows], count)
    used = sums[:, 1].min(axis=0) > 0
    if used.sum() < 4:
        raise UserError("mask", "room for overlapping tiles in four regions of 15 deg", used.sum())
    sums = sums[:, :, used]
    left = sums.sum(axis=-1, keepdims=True) - sums
    ratios = (left[0, 0] / left[0, 1]) / (left[1, 0] / left[1, 1])
    error = np.sqrt((len(ratios) - 1) * np.var(ratios))
    total = sums.sum(axis=-1)
    ratio = (total[0, 0] / total[0, 1]) / (total[1, 0] / total[1, 1])
    words = "T" if len(small) == 1 else "Q, U"
    return verdict(
        f"full sky: small scales of {words} vary no less and no more where tiles overlap, "
        "in standard errors",
        abs(ratio - 1) / error,
        _SEAM_SIGMAS,
        "<",
        unit="standard errors",
        note=f"variance where tiles overlap over that where one is alone, each over its "
        f"surroundings': {ratio:.4f} ± {error:.4f}, inside the mask",
    )


def _inside(
    small: np.ndarray, mask: np.ndarray, overlap: np.ndarray, nside: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Some pixels inside the mask at a time: their two coarse pixels, alone or not, and power."""
    import healpy

    given = min(healpy.get_nside(mask), nside)
    inside = healpy.ud_grade(mask.astype(float), given) > 0.5
    for first in range(0, overlap.size, _PIXELS):
        pixels = np.arange(first, min(first + _PIXELS, overlap.size))
        pixels = pixels[inside[healpy.ang2pix(given, *healpy.pix2ang(nside, pixels))]]
        vectors = healpy.pix2vec(nside, pixels)
        around, block = (healpy.vec2pix(n, *vectors) for n in (_AROUND_NSIDE, _BLOCK_NSIDE))
        power = np.sum(small[:, pixels].astype(float) ** 2, axis=0)
        yield around, block, ~overlap[pixels], power
