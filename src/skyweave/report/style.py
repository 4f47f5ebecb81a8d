"""How figures look: colours, labels and units, and one way to open and save a canvas."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from skyweave.files import atomic

# Okabe & Ito, "Color Universal Design" (2008): told apart with any colour vision.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PINK = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#6b7280"

METHODS = {  # label, colour, marker (none: a prediction of theory), line
    "network": ("network", BLUE, "o", "-"),
    "mean": ("mean of infinitely many samples", GREY, "p", "-."),
    "analytic_eb": ("analytic E/B", ORANGE, "s", "--"),
    "wiener": ("Wiener filter", GREEN, "^", "-."),
    "quadratic": ("quadratic estimator", PINK, "D", ":"),
    "iterative": ("iterative estimator", RED, "v", "--"),
    "theory_quadratic": ("quadratic estimator, predicted", PINK, "", ":"),
    "theory_iterative": ("iterative estimator, predicted", RED, "", "--"),
    "gaussian": ("Gaussian small scales", ORANGE, "s", "--"),
    "truth": ("truth", BLACK, "", "-"),
    "input": ("low resolution", PINK, "D", "-."),
    "sampled": ("network with fluctuations", SKY, "P", "--"),
    "constrained": ("Gaussian optimum (mean)", GREEN, "^", "-."),
    "realization": ("constrained realization", RED, "v", ":"),
    "diffusive": ("diffusive (harmonic)", ORANGE, "s", "--"),
    "raw": ("network before copying", GREY, "X", ":"),
    "masked": ("seen part alone (NaMaster)", PINK, "D", ":"),
    "real": ("other real images", GREY, "s", "--"),
    "gaussian_images": ("Gaussian images", ORANGE, "v", ":"),
    "seen": ("as seen", PINK, "D", ":"),
}
SPARE = [(SKY, "P", "-"), (YELLOW, "X", "-."), (GREY, "<", ":"), (BLACK, ">", "--")]

FIELDS = {
    "t_prim": "primordial $T$",
    "q_prim": "primordial $Q$",
    "u_prim": "primordial $U$",
    "e_prim": "primordial $E$",
    "e_pure": "primordial $E$, whole area",
    "b_pure": "primordial $B$",
    "e_sky": "lensed $E$",
    "b_sky": "lensed $B$",
    "kappa": r"convergence $\kappa$",
    "tau": r"optical depth $\tau$",
    "alpha": r"rotation angle $\alpha$",
    "low": "dust, low resolution",
    "high": "dust, high resolution",
    "ratio": "dust, ratio high / low",
}
UNITS = {"uK_CMB": "µK", "uK": "µK", "rad": "rad", "": ""}

_STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#374151",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "image.interpolation": "nearest",
    "svg.hashsalt": "skyweave",  # element ids are otherwise random: the bytes would differ
    "figure.dpi": 100,
    "savefig.dpi": 130,
}


@contextmanager
def canvas(
    path: Path,
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float],
    **subplots: Any,
) -> Iterator[tuple[Figure, np.ndarray]]:
    """Open a figure of `rows` × `columns` axes and save it whole to `path` (PNG or SVG).

    `size` in inches; axes come as an array (rows, columns). The same data give the same bytes:
    the user's matplotlib settings are set aside, and no date is written.
    """
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False, **subplots)
        vector = Path(path).suffix == ".svg"
        metadata = {"Date": None, "Creator": None} if vector else {"Software": None}
        with atomic(path) as temporary:
            figure.savefig(temporary, metadata=metadata, bbox_inches="tight", pad_inches=0.06)


def nothing_drawn(path: Path, words: str) -> pd.DataFrame:
    """Draw words to `path` in place of a figure that has no data; returns them as its table."""
    with canvas(path, size=(6.4, 1.2)) as (_, axes):
        axes[0, 0].set_axis_off()
        axes[0, 0].text(0.5, 0.5, words, ha="center", va="center", transform=axes[0, 0].transAxes)
    return pd.DataFrame({"note": [words]})


def method_style(method: str, methods: Sequence[str]) -> tuple[str, str, str, str]:
    """Label, colour, marker and line of a method; spare ones in turn for unknown methods."""
    if method in METHODS:
        return METHODS[method]
    unknown = [name for name in methods if name not in METHODS]
    return (method.replace("_", " "), *SPARE[unknown.index(method) % len(SPARE)])


def field_label(field: str) -> str:
    """The field's name as the literature writes it."""
    stokes, _, channel = field.partition("_")
    if field not in FIELDS and stokes in tuple("tqueb") and channel:
        return f"{'observed' if channel == 'obs' else channel} ${stokes.upper()}$"
    return FIELDS.get(field, field.replace("_", " "))


def plain_field(field: str) -> str:
    """The same without mathematical markup, for captions and alternative text."""
    plain = field_label(field).replace("$", "")
    for name, letter in {"kappa": "κ", "tau": "τ", "alpha": "α"}.items():
        plain = plain.replace(f"\\{name}", letter)
    return plain


def with_unit(label: str, unit: str) -> str:
    """A label with its unit in brackets, if it has one."""
    shown = UNITS.get(unit, unit)
    return f"{label} [{shown}]" if shown else label


def dl(ell: np.ndarray, cl: np.ndarray) -> np.ndarray:
    """D_ell = ell(ell+1)C_ell/2pi, the unit of the axis; shapes as given."""
    return ell * (ell + 1) * cl / (2 * np.pi)


def symmetric_limit(*maps: np.ndarray) -> float:
    """The 99.5th percentile of the moduli of all finite pixels, for a scale around zero."""
    values = np.concatenate([np.abs(one[np.isfinite(one)]).ravel() for one in maps])
    limit = float(np.percentile(values, 99.5)) if values.size else 0.0
    return limit or 1.0


def lifted(values: np.ndarray, norm: Normalize) -> np.ndarray:
    """Values no lower than a scale's end: those that have no logarithm would leave holes."""
    return np.maximum(values, ends(norm)[0])


def ends(norm: Normalize) -> tuple[float, float]:
    """Lowest and highest value of a colour scale that has both."""
    if norm.vmin is None or norm.vmax is None:
        raise ValueError("the scale has no ends")
    return float(norm.vmin), float(norm.vmax)


def log_ell(ax: Axes) -> None:
    """Logarithmic multipole axis with its name; call it when the data are drawn."""
    ax.set_xscale("log")
    ax.set_xlabel(r"multipole $\ell$")
    plain_log(ax.xaxis)


def plain_log(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers: at 1, 2 and 5, or at decades if it is long."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 150 * low else (1.0,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def hide_unused(axes: np.ndarray, used: int) -> None:
    """Remove the axes behind the first `used`, in reading order."""
    for unused in axes.ravel()[used:]:
        unused.remove()


def grid_shape(count: int, widest: int = 3) -> tuple[int, int]:
    """Rows and columns for `count` panels."""
    columns = min(count, widest)
    return -(-count // columns), columns


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels under the figure, each label once."""
    entries: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    columns = min(len(entries), int(figure.get_figwidth() / 2.2))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)
