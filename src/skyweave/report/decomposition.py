"""Figures of a decomposition run: power beside correlation, training, leakage, calibration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from skyweave.errors import UserError
from skyweave.report import read
from skyweave.report.calibration import CURVE_COLUMNS, LEVELS, calibration
from skyweave.report.examples import examples
from skyweave.report.losses import networks, picked
from skyweave.report.reconstruction import METRIC_COLUMNS, of_test_split
from skyweave.report.record import Drawn, write
from skyweave.report.style import (
    BLACK,
    BLUE,
    GREY,
    METHODS,
    canvas,
    dl,
    field_label,
    legend_below,
    log_ell,
    method_style,
    plain_field,
    with_unit,
)
from skyweave.statistics.fidelity import SAMPLES

#: Figures of every run; those of runs with skies without B, and with samples.
FILES = ("fidelity.svg", "examples.png", "networks.svg")
LEAKAGE, CALIBRATION = "leakage.svg", "calibration.svg"

#: Colour, marker and line of other runs, in turn.
_BESIDE = ((BLACK, "X", "-."), (GREY, "<", ":"), (BLACK, ">", "--"), (GREY, "h", "-"))

#: Samples that the examples show.
_SHOWN = 2

_PANELS = {"power_ratio": "power over the truth's", "correlation": r"correlation $r_\ell$"}


def draw_decomposition(run_folder: str | Path, out_folder: str | Path) -> None:
    """Draw a run's figures, a CSV beside each, and figures.json.

    `FILES`, `LEAKAGE` where the metrics have the power predicted on skies without B, and
    `CALIBRATION` where they have the coverage of samples, whose curves are then in calibration.csv.
    Reads metrics.csv, history.csv, sweep.csv and predictions.h5 from `run_folder`; raises
    `UserError` when one is missing or lacks what is drawn.
    """
    run, out = Path(run_folder), Path(out_folder)
    metrics = of_test_split(read.table(run / "metrics.csv", METRIC_COLUMNS))
    history = read.table(run / "history.csv", ("epoch", "loss", "val_loss"))
    kept, picked_by = picked(run / "sweep.csv", history)
    for statistic in _PANELS:
        if statistic not in set(metrics["statistic"]):
            raise UserError(run / "metrics.csv", f"rows of the statistic {statistic!r}", "none")
    sampled = metrics[(metrics["method"] == SAMPLES) & metrics["statistic"].isin(LEVELS)]
    null = _leaks(metrics)
    curves = pd.DataFrame()
    if len(sampled):
        curves = read.table(run / "calibration.csv", CURVE_COLUMNS, empty=True)
    shown = _with_samples(
        run / "predictions.h5",
        read.example(run / "predictions.h5", list(metrics["field"].unique())),
    )
    fields = ", ".join(plain_field(name) for name in shown.maps["truth"])
    drawn = [
        Drawn(
            "fidelity.svg",
            "Power and correlation",
            "Above, the power of each map over that of the truth; 1 is right, and an estimate that "
            "is best in mean square lies below, at r_ell². Below, the correlation coefficient "
            "r_ell with the truth; 1 is perfect. The two belong together: power can be bought with "
            "correlation. Samples of an exact posterior have all the power and, each by "
            "itself, the square of the correlation that their mean has. An estimate that is not "
            "filtered may lie above the frame where its noise takes over.",
            f"Power ratio and correlation coefficient against multipole for {fields}.",
            fidelity(metrics, out / "fidelity.svg"),
        ),
        Drawn(
            "examples.png",
            "Example patch",
            "The first test patch whose truth is not empty (realization "
            f"{shown.realization}), not a picked one. All maps of a field share the truth's colour "
            "scale, and the residual, prediction − truth, has the same width.",
            f"Maps of {fields}: truth, prediction and residual, with the inputs.",
            examples(shown, out / "examples.png"),
        ),
        Drawn(
            "networks.svg",
            "Training",
            "Losses and, of a discriminator, shares of right answers, on the training set and on "
            "the validation set, which no step is trained on. The network of the ringed epoch is "
            f"kept: {picked_by}. A curve of the validation set that turns away from that of the "
            "training set is overfitting; of a discriminator, that it knows its examples by heart.",
            f"Losses of each network over {len(history)} epochs on the training and on the "
            "validation set.",
            networks(history, kept, out / "networks.svg"),
        ),
    ]
    if len(null):
        names = ", ".join(plain_field(str(field)) for field in null["field"].unique())
        drawn.append(
            Drawn(
                LEAKAGE,
                "Leakage into B",
                "Spectra of what is predicted on skies without B, where all power is E that leaked "
                "or was made up, beside B and its prediction on skies that have it. A network is "
                "of use where it leaves less than the analytic equation, and far less than B.",
                f"Power spectra of {names}: truth, prediction, and predictions without B.",
                leakage(metrics, shown.units, out / LEAKAGE),
            )
        )
    if len(sampled):
        drawn.append(
            Drawn(
                CALIBRATION,
                "Calibration of the samples",
                "Above, the share of Fourier modes of the truth in the central 68 % and 95 % "
                "intervals of the samples; on the dashed lines it is right for any number of "
                "samples. Below, the expected coverage of whole maps by random points (TARP): a "
                "calibrated posterior follows the diagonal within the grey band, which holds 95 % "
                "of what chance does. Above it the samples scatter too much, below it too little.",
                f"Coverage of intervals by multipole for {fields}, and expected coverage of maps "
                "against credibility.",
                calibration(sampled, _of_samples(curves), out / CALIBRATION),
            )
        )
    write(out, "decomposition", drawn)


def fidelity(metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw power ratios above and r_ell below, a column a field; returns the rows drawn."""
    rows = metrics[metrics["statistic"].isin(_PANELS) & metrics["ell"].notna()]
    fields, methods = list(rows["field"].unique()), list(rows["method"].unique())
    with canvas(path, 2, len(fields), size=(3.6 * len(fields), 6.2)) as (figure, axes):
        for column, field in zip(axes.T, fields, strict=True):
            part = rows[rows["field"] == field]
            for ax, (statistic, label) in zip(column, _PANELS.items(), strict=True):
                of = part[part["statistic"] == statistic]
                _curves(ax, of, methods)
                ax.axhline(1, color=GREY, lw=0.9)
                ax.set_ylabel(label)
                ax.set_xlim(0.85 * part["ell"].min(), 1.18 * part["ell"].max())
                log_ell(ax)
                _limits(ax, of, statistic)
            column[0].set_title(field_label(str(field)))
        legend_below(figure, list(axes.ravel()))
    return rows


def leakage(metrics: pd.DataFrame, units: Mapping[str, str], path: Path) -> pd.DataFrame:
    """Draw D_ell of B, of its prediction and of what is predicted without it; returns the rows.

    A column a field of B; `units` are those of the maps, by field. The rows hold C_ell.
    """
    null = _leaks(metrics)
    fields, methods = list(null["field"].unique()), list(null["method"].unique())
    there = metrics["statistic"].isin(("power_truth", "power_prediction"))
    own = metrics[metrics["field"].isin(fields) & there & (metrics["method"] == "network")]
    with canvas(path, 1, len(fields), size=(4.6 * len(fields), 3.6)) as (figure, axes):
        for ax, field in zip(axes[0], fields, strict=True):
            looks = {"power_truth": ("truth", BLACK, "", "-")}
            looks["power_prediction"] = ("prediction", BLUE, "o", "-")
            for statistic, look in looks.items():
                _power(ax, own[(own["field"] == field) & (own["statistic"] == statistic)], look)
            for method in methods:
                label, colour, marker, _ = _look(method, methods)
                look = (f"{label}, skies without B", colour, marker or "x", ":")
                _power(ax, null[(null["field"] == field) & (null["method"] == method)], look)
            ax.set_yscale("log")
            unit = units.get(str(field), "")
            ax.set_ylabel(with_unit(r"$D_\ell$", {"uK_CMB": "µK²"}.get(unit, unit)))
            ax.set_title(field_label(str(field)))
            log_ell(ax)
        legend_below(figure, list(axes[0]))
    return pd.concat([own, null], ignore_index=True)


def _leaks(metrics: pd.DataFrame) -> pd.DataFrame:
    """What is predicted of B on skies without it."""
    of_b = metrics["field"].str.startswith("b_")
    return metrics[of_b & (metrics["statistic"] == "power_null")]


def _of_samples(curves: pd.DataFrame) -> pd.DataFrame:
    return curves[curves["method"] == SAMPLES]


def _with_samples(path: Path, shown: read.Example) -> read.Example:
    """The example with the first samples of its realization, if the file has any."""
    maps = dict(shown.maps)
    with h5py.File(path) as file:
        if "samples" not in file:
            return shown
        numbers = file["realizations"][:] if "realizations" in file else None
        index = shown.realization
        if numbers is not None:
            index = int(np.flatnonzero(numbers == shown.realization)[0])
        for field, samples in file["samples"].items():
            for number, sample in enumerate(samples[:_SHOWN, index], start=1):
                maps.setdefault(f"{read.ESTIMATES}sample {number}", {})[field] = sample
    return read.Example(maps, shown.units, shown.size_deg, shown.realization)


def _look(method: str, methods: list[str]) -> tuple[str, str, str, str]:
    """Label, colour, marker and line: of samples as in the figure of their calibration."""
    if method in METHODS or method == SAMPLES:
        return method_style(method, [method])
    others = [name for name in methods if name not in METHODS and name != SAMPLES]
    return (f"run {method}", *_BESIDE[others.index(method) % len(_BESIDE)])


def _curves(ax: Axes, part: pd.DataFrame, methods: list[str]) -> None:
    """Points with errors, a style a method; a prediction of theory is a line."""
    for method, rows in part.groupby("method", sort=False):
        label, colour, marker, line = _look(str(method), methods)
        bands = rows.sort_values("ell")
        ell, value, error = (bands[name].to_numpy(float) for name in ("ell", "value", "error"))
        look: dict[str, Any] = {"color": colour, "marker": marker, "ls": line, "label": label}
        ax.errorbar(ell, value, np.nan_to_num(error), lw=1.1, **look)


def _limits(ax: Axes, part: pd.DataFrame, statistic: str) -> None:
    """Where most of it lies: one noisy band, or an unfiltered estimate, must not flatten all."""
    low, high = np.nan_to_num(part["value"].quantile([0.03, 0.97]).to_numpy())
    if statistic == "correlation":
        ax.set_ylim(max(-1.05, min(-0.05, low - 0.05)), 1.06)
    else:
        ax.set_ylim(-0.05, min(max(1.3, high + 0.15), 2.5))


def _power(ax: Axes, rows: pd.DataFrame, look: tuple[str, str, str, str]) -> None:
    """D_ell with errors on an axis that is logarithmic; what is not positive has no place.

    Several sets of patches, of which a band has a row each, are points without a line.
    """
    label, colour, marker, line = look
    line = "" if rows["ell"].duplicated().any() else line
    rows = rows.sort_values("ell")
    ell, cl, error = (rows[name].to_numpy(float) for name in ("ell", "value", "error"))
    value = np.where(cl > 0, dl(ell, cl), np.nan)
    spread = np.nan_to_num(dl(ell, error))
    ax.errorbar(ell, value, spread, color=colour, marker=marker, ls=line, label=label)
