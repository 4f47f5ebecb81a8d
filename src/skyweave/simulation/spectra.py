"""Angular power spectra of a study: computed with CAMB or read from a table, kept as CSV."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from skyweave import config
from skyweave.errors import UserError
from skyweave.files import write_text
from skyweave.flat.fourier import on_modes
from skyweave.flat.grid import PatchGrid
from skyweave.simulation.cosmologies import camb_parameters
from skyweave.simulation.optical_depth import tau_cl
from skyweave.simulation.tables import read_columns, read_spectra

#: Spectra that every table holds, and those that it may hold.
UNLENSED = ("tt", "ee", "bb", "te", "kk", "tautau")
LENSED = ("lensed_tt", "lensed_ee", "lensed_bb", "lensed_te")


@dataclass(frozen=True)
class SpectraTable:
    """C_ell at ell = 0..lmax: µK² for T, E and B, without unit for kappa (kk) and tau (tautau).

    `cl` maps a name of `UNLENSED`, and if known of `LENSED`, to an array (lmax + 1,). The names
    without a prefix are the primordial, unlensed spectra.
    """

    cl: dict[str, np.ndarray]

    @property
    def lmax(self) -> int:
        """Highest multipole."""
        return len(self.cl["tt"]) - 1

    @cached_property
    def ell(self) -> np.ndarray:
        """Multipoles 0..lmax."""
        return np.arange(self.lmax + 1)

    def on_modes(self, name: str, grid: PatchGrid) -> np.ndarray:
        """C_ell `name` at the modes of a grid, zero at the mean and beyond lmax."""
        return on_modes(self.ell, self.cl[name], grid)

    def write(self, path: str | Path) -> None:
        """Write CSV columns ell, cl_tt, … that `read` gives back bit for bit."""
        header = ",".join(["ell", *(f"cl_{name}" for name in self.cl)])
        rows = zip(self.ell.tolist(), *(cl.tolist() for cl in self.cl.values()), strict=True)
        write_text(path, "\n".join([header, *(",".join(map(repr, row)) for row in rows)]) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> "SpectraTable":
        """Read what `write` wrote; raises `UserError` when the file is anything else."""
        columns = read_columns(
            path,
            ("ell", *(f"cl_{name}" for name in UNLENSED)),
            optional=[f"cl_{name}" for name in LENSED],
        )
        ell = columns.pop("ell")
        if not np.array_equal(ell, np.arange(len(ell))):
            raise UserError(path, "every 'ell' from 0 up", f"{ell[0]:g} to {ell[-1]:g}")
        return cls({name.removeprefix("cl_"): cl for name, cl in columns.items()})


def compute(settings: config.Spectra) -> SpectraTable:
    """Spectra of the settings, ell = 0..lmax.

    Raises `UserError` for a table that makes no sense or parameters that CAMB refuses.
    """
    if settings.source == "table":
        cl = read_spectra(str(settings.path), settings.lmax)
    else:
        cl = _camb(settings)
    cl["tautau"] = tau_cl(settings.lmax, settings.tau_path)
    return SpectraTable({name: cl[name] for name in (*UNLENSED, *LENSED) if name in cl})


def _camb(settings: config.Spectra) -> dict[str, np.ndarray]:
    """C_ell by CAMB: scalar, plus tensor when r > 0; C_kappa = [L(L+1)]² C_phi / 4."""
    import camb

    lmax = settings.lmax
    try:
        results = camb.get_results(camb_parameters(settings.cosmology, lmax))
        spectra = results.get_cmb_power_spectra(
            spectra=("unlensed_total", "total", "lens_potential"),
            lmax=lmax,
            CMB_unit="muK",
            raw_cl=True,
        )
    except camb.CAMBError as error:
        found = " ".join(str(error).split())
        raise UserError("spectra.cosmology", "parameters that CAMB can use", found) from None
    cl = {}
    for prefix, kind in (("", "unlensed_total"), ("lensed_", "total")):
        for column, name in enumerate(("tt", "ee", "bb", "te")):
            cl[prefix + name] = spectra[kind][:, column].copy()
    if not all(np.isfinite(part).all() for part in spectra.values()):
        raise UserError("spectra.cosmology", "parameters that CAMB can use", "spectra not finite")
    ell = np.arange(lmax + 1, dtype=float)
    cl["kk"] = (ell * (ell + 1)) ** 2 * spectra["lens_potential"][:, 0] / 4
    return cl
