"""Instrument beams."""

import numpy as np


def gaussian_beam(ell: np.ndarray, fwhm_arcmin: float) -> np.ndarray:
    """Window b_ell = exp(-fwhm² ell² / (16 ln 2)) of a Gaussian beam, same shape as `ell`."""
    fwhm = np.deg2rad(fwhm_arcmin / 60)
    return np.exp(-((fwhm * np.asarray(ell)) ** 2) / (16 * np.log(2)))
