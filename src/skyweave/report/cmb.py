"""Figure of a CMB dataset: the spectra that its realizations are drawn from."""

from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.report import read
from skyweave.report.record import Drawn, write
from skyweave.report.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    canvas,
    dl,
    log_ell,
)

FILES = ("spectra.svg",)
_POINTS = 500  # a curve is smooth between them, and the file stays small
_SPECTRA = {
    "tt": ("TT", BLACK),
    "ee": ("EE", BLUE),
    "bb": ("BB", RED),
    "te": ("|TE|", GREEN),
    "kk": (r"$\kappa\kappa$", ORANGE),
    "tautau": (r"$\tau\tau$", PINK),
}


def draw_spectra(spectra_table: str | Path, out_folder: str | Path) -> None:
    """Draw a CMB dataset's spectra (`FILES`), a CSV beside it, and figures.json.

    Raises `UserError` when the table is missing or broken.
    """
    out = Path(out_folder)
    table = read.table(Path(spectra_table), ("ell", "cl_tt", "cl_ee", "cl_kk", "cl_tautau"))
    caption = (
        "Spectra that the realizations are drawn from (the first set where their cosmologies "
        "differ): unlensed CMB (full lines), lensed for "
        "comparison (dashed), lensing convergence and patchy optical depth. A network can "
        "recover a field only where its effect on the observed E and B rises above the noise."
    )
    alt = "Power spectra against multipole: TT, EE, TE, BB, and those of convergence and tau."
    rows = spectra(table, out / "spectra.svg")
    write(out, "cmb", [Drawn("spectra.svg", "Input spectra", caption, alt, rows)])


def spectra(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw D_ell of T, E, B (µK²), kappa and tau; returns the rows drawn (C_ell)."""
    positive = table[table["ell"] >= 2]
    pick = np.unique(np.geomspace(1, len(positive), _POINTS).astype(int)) - 1
    rows = positive.iloc[pick]
    ell = rows["ell"].to_numpy(float)
    with canvas(path, 1, 2, size=(10.2, 4.1), width_ratios=(1.35, 1)) as (_, (axes,)):
        for ax, names in zip(axes, (("tt", "te", "ee", "bb"), ("kk", "tautau")), strict=True):
            for name in names:
                label, colour = _SPECTRA[name]
                for prefix, line in (("", "-"), ("lensed_", "--")):
                    column = f"cl_{prefix}{name}"
                    if column not in rows:
                        continue
                    value = np.abs(dl(ell, rows[column].to_numpy(float)))
                    if value.any():
                        shown = f"{label} lensed" if prefix else label
                        positive_value = np.where(value > 0, value, np.nan)
                        ax.plot(ell, positive_value, color=colour, ls=line, label=shown)
            log_ell(ax)
            ax.set_yscale("log")
            ax.legend(ncols=2)
        axes[0].set_ylabel(r"$D_\ell$ [µK²]")
        axes[1].set_ylabel(r"$D_\ell$ (no unit)")
    return rows
