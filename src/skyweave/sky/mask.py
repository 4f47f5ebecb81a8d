"""Planck-like mask: where the dust is measured well, away from the Galactic plane."""

import numpy as np
import pandas as pd

from skyweave.config import Mask
from skyweave.errors import UserError
from skyweave.sky.harmonic import smooth
from skyweave.sky.skymap import SkyMap


def planck_like(sky_map: SkyMap, settings: Mask) -> tuple[np.ndarray, pd.DataFrame]:
    """Boolean RING mask (npix,), True inside, and the share of the sky left by each step.

    Steps (Krachmalnicoff & Puglisi 2021): measured well → smoothed with a Gaussian of
    `smooth_deg` and kept above `threshold` → |b| above `latitude_deg` → without bad pixels.
    "Measured well" is a signal-to-noise per pixel, at the map's nside, above `snr` where the map
    has a variance, seen by IRAS where it says so (SFD98), and otherwise every good pixel. The
    table has columns step, setting, f_sky. Raises `UserError` when nothing is left.
    """
    import healpy

    good = ~sky_map.bad
    if sky_map.variance is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            snr = sky_map.intensity / np.sqrt(sky_map.variance)
        inside, step = good & (snr > settings.snr), ("signal-to-noise", f"> {settings.snr:g}")
    elif sky_map.no_iras is not None:
        inside, step = good & ~sky_map.no_iras, ("seen by IRAS", "mask bit 7 unset")
    else:
        inside, step = good, ("good pixels", "")
    steps = [("whole sky", "", 1.0), (*step, inside.mean())]
    if settings.smooth_deg > 0:
        inside = smooth(inside, settings.smooth_deg) > settings.threshold
        label = f"FWHM {settings.smooth_deg:g} deg, > {settings.threshold:g}"
        steps.append(("smoothed", label, inside.mean()))
    lat = healpy.pix2ang(sky_map.nside, np.arange(inside.size), lonlat=True)[1]
    if settings.latitude_deg > 0:
        inside = inside & (np.abs(lat) > settings.latitude_deg)
    steps.append(("latitude", f"|b| > {settings.latitude_deg:g} deg", inside.mean()))
    inside = inside & good
    steps.append(("without bad pixels", "", inside.mean()))
    if not inside.any():
        raise UserError("mask", "settings that leave some of the sky", "an empty mask")
    return inside, pd.DataFrame(steps, columns=["step", "setting", "f_sky"])
