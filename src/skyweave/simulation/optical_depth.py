"""Angular power spectrum of the patchy optical depth to reionization."""

import numpy as np
from scipy.interpolate import interp1d

from skyweave.simulation.tables import check_size, judged_at, read_columns

#: Multipoles and D_ell · 1e6 of tau, the patchy reionization model of arXiv:2101.01214.
DEFAULT_TABLE = np.array(
    [
        (2, 0.0002), (70, 1.3), (170, 4.9), (270, 7.2), (370, 8.5), (470, 8.9), (570, 8.6),
        (670, 8.2), (770, 7.9), (870, 7.4), (970, 6.8), (1070, 6.1), (1170, 5.7), (1270, 5.1),
        (1370, 4.8), (1470, 4.3), (1570, 4.0), (1670, 3.7), (1770, 3.4), (1870, 3.0), (1970, 2.8),
        (2500, 1.8), (3000, 1.2), (4000, 0.5), (4500, 0.33), (5000, 0.22), (6000, 0.09),
        (7000, 0.04), (8000, 0.017), (9000, 0.007), (10000, 0.003),
    ]
).T * np.array([[1.0], [1e-6]])  # fmt: skip

#: Last multipole of the published spectrum; the table's own end is beyond it.
DEFAULT_LMAX = 8999

#: Power of a user's tau over the built-in table's, least and most. C_ell of a tau with 40 times
#: the built-in power is still below the least at ell 500, and at ell 100 of one with 1.6 times.
AMPLITUDES = (1e-3, 1e3)


def tau_cl(lmax: int, path: str | None = None) -> np.ndarray:
    """C_ell of tau at ell = 0..lmax, zero below 2 and outside of the table.

    D_ell is interpolated quadratically on ell, as published. With `path`, the table is a text file
    with the columns ``ell dl_tau``. Raises `UserError` for a table that makes no sense, such as one
    of C_ell by its size.
    """
    if path is None:
        ell, dl = DEFAULT_TABLE
        last: float = DEFAULT_LMAX
    else:
        columns = read_columns(path, ("ell", "dl_tau"), positive=("dl_tau",), rows=3)
        ell, dl = columns["ell"], columns["dl_tau"]
        if (at := judged_at(ell)) is not None:
            least, most = np.interp(at, *DEFAULT_TABLE) * np.array(AMPLITUDES)
            check_size(path, "dl_tau", at, np.interp(at, ell, dl), (least, most))
        last = ell[-1]
    every = np.arange(lmax + 1, dtype=float)
    inside = (every >= max(2, ell[0])) & (every <= last)
    cl = np.zeros(lmax + 1)
    # A parabola can dip below zero beside a steep rise; power cannot.
    smooth = np.maximum(interp1d(ell, dl, kind="quadratic")(every[inside]), 0)
    cl[inside] = smooth * 2 * np.pi / (every[inside] * (every[inside] + 1))
    return cl
