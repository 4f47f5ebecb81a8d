"""From the units that maps are published in to µK_CMB.

A temperature difference in thermodynamic units (CMB) is that of a black body at `TCMB`; in
Rayleigh-Jeans units (RJ) it is brightness times c²/2k nu². Both are taken at one frequency: no
bandpass is integrated over.
"""

import re

import numpy as np
from scipy import constants

from skyweave.errors import UserError

#: Temperature of the background, K (Fixsen 2009).
TCMB = 2.7255

_PREFIX = {"": 1e6, "m": 1e3, "u": 1.0, "mu": 1.0, "µ": 1.0, "μ": 1.0, "n": 1e-3}
_TEMPERATURE = re.compile(
    r"(?P<prefix>mu|[muµμn]?)K(?:elvin)?[\s_,]*\{?(?P<kind>cmb|thermo(?:dynamic)?|rj|antenna)?\}?",
    re.IGNORECASE,
)
_BRIGHTNESS = re.compile(r"(?P<prefix>[kM]?)Jy\s*(?:/\s*sr|[\s.*]*sr\s*(?:\^|\*\*)?\s*-1)")
_SQUARE = re.compile(r"\(?(?P<base>.*?)\)?\s*(?:\^|\*\*)?(?:2|²)")


def rj_to_cmb(frequency_ghz: float) -> float:
    """µK_CMB per µK_RJ: (e^x - 1)² / (x² e^x) with x = h nu / k TCMB."""
    x = constants.h * frequency_ghz * 1e9 / (constants.k * TCMB)
    return float(4 * np.sinh(x / 2) ** 2 / x**2)


def mjy_sr_to_uk_cmb(frequency_ghz: float) -> float:
    """µK_CMB per MJy/sr: the inverse of dB_nu/dT at TCMB."""
    rj = constants.c**2 / (2 * constants.k * (frequency_ghz * 1e9) ** 2)  # K per W/m²/Hz/sr
    return 1e6 * 1e-20 * rj * rj_to_cmb(frequency_ghz)


def to_uk_cmb(unit: str, frequency_ghz: float, where: object = "unit") -> float:
    """Factor from `unit` to µK_CMB.

    Knows K, mK, µK and nK, followed by CMB or RJ (neither means CMB, as in HEALPix files), and
    Jy/sr with k or M. Raises `UserError`, naming `where`, for anything else.
    """
    text = unit.strip()
    if match := _TEMPERATURE.fullmatch(text):
        # A capital M would be mega: only the letters after the prefix may be of either case.
        factor = _PREFIX.get(match["prefix"])
        kind = (match["kind"] or "cmb").lower()
        if factor is not None:
            return factor * (rj_to_cmb(frequency_ghz) if kind in ("rj", "antenna") else 1.0)
    if match := _BRIGHTNESS.fullmatch(text):
        scale = {"": 1e-6, "k": 1e-3, "M": 1.0}[match["prefix"]]
        return scale * mjy_sr_to_uk_cmb(frequency_ghz)
    raise UserError(where, "a unit such as K_CMB, mK, uK_CMB, K_RJ or MJy/sr", repr(unit))


def to_uk_cmb_squared(unit: str, frequency_ghz: float, where: object = "unit") -> float:
    """Factor from the unit of a variance, such as ``(K_CMB)^2``, to µK_CMB²."""
    match = _SQUARE.fullmatch(unit.strip())
    if match is None:
        raise UserError(where, "the square of a unit, such as (K_CMB)^2", repr(unit))
    return to_uk_cmb(match["base"], frequency_ghz, where) ** 2
