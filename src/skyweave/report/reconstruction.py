"""Figures of a reconstruction run: examples, spectra against the truth, calibration, losses."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from skyweave.errors import UserError
from skyweave.report import read
from skyweave.report.calibration import CURVE_COLUMNS, calibration
from skyweave.report.debiased import spectrum
from skyweave.report.examples import examples
from skyweave.report.losses import loss, picked
from skyweave.report.record import Drawn, write
from skyweave.report.style import (
    BLACK,
    GREY,
    SKY,
    canvas,
    dl,
    field_label,
    grid_shape,
    hide_unused,
    legend_below,
    log_ell,
    method_style,
    plain_field,
    with_unit,
)

SIGMA = 5  # what counts as a detection
METRIC_COLUMNS = ("split", "field", "method", "statistic", "ell", "value", "error")
FILES = (
    "examples.png",
    "correlation.svg",
    "transfer.svg",
    "residual.svg",
    "spectrum.svg",
    "calibration.svg",
    "loss.svg",
)
#: Statistics that a figure is drawn of.
DRAWN = ("correlation", "transfer", "power_truth", "spectrum_bias", "coverage_68")


def draw_reconstruction(run_folder: str | Path, out_folder: str | Path) -> None:
    """Draw a run's figures (`FILES`), a CSV beside each, and figures.json.

    Reads metrics.csv, calibration.csv, history.csv, sweep.csv and predictions.h5 from `run_folder`;
    raises `UserError` when one is missing or lacks what is drawn.
    """
    run, out = Path(run_folder), Path(out_folder)
    metrics = of_test_split(read.table(run / "metrics.csv", METRIC_COLUMNS))
    history = read.table(run / "history.csv", ("epoch", "loss", "val_loss"))
    kept, picked_by = picked(run / "sweep.csv", history)
    curves = read.table(run / "calibration.csv", CURVE_COLUMNS, empty=True)
    for statistic in DRAWN:
        if statistic not in set(metrics["statistic"]):
            raise UserError(run / "metrics.csv", f"rows of the statistic {statistic!r}", "none")
    shown = read.example(run / "predictions.h5", list(metrics["field"].unique()))
    fields = ", ".join(plain_field(name) for name in shown.maps["truth"])
    drawn = [
        Drawn(
            "examples.png",
            "Example patch",
            f"The first test patch whose truth is not empty (realization {shown.realization}), "
            "not a picked one. Truth and prediction share one colour scale, and the "
            "residual, prediction − truth, has the same width: a residual as strong as the "
            "truth means that nothing was recovered.",
            f"Maps of {fields}: truth, prediction and residual, with the observed inputs.",
            examples(shown, out / "examples.png"),
        ),
        Drawn(
            "correlation.svg",
            "Correlation with the truth",
            "Correlation coefficient r_ell of prediction and truth; 1 is perfect, 0 is nothing. "
            "The network beats another estimate where its r_ell lies above. A field counts as "
            f"recovered where r_ell exceeds 0 by {SIGMA} standard errors (filled symbols; open "
            "ones do not reach that).",
            f"Correlation coefficient against multipole for {fields}. "
            + _range_words(metrics, "correlation"),
            correlation(metrics, out / "correlation.svg"),
        ),
        Drawn(
            "transfer.svg",
            "Transfer function",
            "Transfer function T_ell: the cross-spectrum of prediction and truth over the truth's "
            "own. 1 keeps the amplitude; below 1 the prediction is suppressed, as every "
            "estimate that minimizes the squared error is where the field is noisy.",
            f"Transfer function against multipole for {fields}. "
            + _range_words(metrics, "transfer"),
            transfer(metrics, out / "transfer.svg"),
        ),
        Drawn(
            "residual.svg",
            "Power and residual power",
            "Spectra of truth and prediction, and the residual N_ell: the power of the prediction "
            "that the truth does not explain. The prediction carries signal where N_ell lies "
            "below its own power; where the two meet it is noise. Where patches without kappa and "
            "tau were tested too, what is predicted for them must lie below the prediction.",
            f"Power spectra of truth, prediction and residual for {fields}.",
            residual(metrics, shown.units, out / "residual.svg"),
        ),
        Drawn(
            "spectrum.svg",
            "Debiased spectrum",
            "The spectrum of the truth as the prediction's own tells it: less the residual power, "
            "over the square of the transfer function, both as on the validation set. Below, its "
            "relative bias against the truth's. A band is left out where the transfer function is "
            "not known to a third of itself: nothing is seen there. " + _amplitude_words(metrics),
            f"Debiased power spectrum of {fields} with errors against that of the truth, and below "
            "the relative bias by multipole.",
            spectrum(metrics, shown.units, out / "spectrum.svg"),
        ),
        Drawn(
            "calibration.svg",
            "Calibration",
            "Above, the share of Fourier modes of the truth in the 68 % and 95 % intervals around "
            "the prediction that the residual power of the validation set gives; and of pixels, "
            "where the network predicts their errors. Below, the expected coverage of whole maps "
            "by random points (TARP): a calibrated posterior follows the diagonal within the grey "
            "band, which holds 95 % of what chance does. Above it errors, or the amplitude of the "
            "map, are too large, below it too small. Thick for the maps as they are, thin after "
            "their amplitude in each band was regressed on the truths of the validation set.",
            f"Coverage of intervals by multipole for {fields}, and expected coverage of maps "
            "against credibility.",
            calibration(metrics, curves, out / "calibration.svg"),
        ),
        Drawn(
            "loss.svg",
            "Training",
            "Loss on the training set and on the validation set, which no step is trained on. The "
            f"network of the ringed epoch is kept: {picked_by}. A validation loss that rises "
            "while the training loss falls is overfitting.",
            f"Training and validation loss over {len(history)} epochs, the validation loss of "
            "each output, and the learning rate.",
            loss(history, kept, out / "loss.svg"),
        ),
    ]
    write(out, "reconstruction", drawn)


def of_test_split(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of the test split, or of the only split that there is."""
    splits = list(metrics["split"].unique())
    return metrics[metrics["split"] == ("test" if "test" in splits else splits[0])]


def correlation(metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw r_ell with errors, a panel a field; returns the rows drawn."""
    rows = metrics[metrics["statistic"] == "correlation"]
    with _field_panels(path, rows) as panels:
        for ax, part in panels:
            _points(ax, part, filled_above=SIGMA)
            ax.axhline(0, color=GREY, lw=0.8)
            ax.axhline(1, color=GREY, lw=0.8, ls=":")
            low = (part["value"] - part["error"].fillna(0)).min(skipna=True)
            ax.set_ylim(max(-1.05, min(-0.08, np.nan_to_num(low) - 0.05)), 1.06)
            ax.set_ylabel(r"correlation $r_\ell$")
    return rows


def transfer(metrics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw T_ell with errors, a panel a field; returns the rows drawn."""
    rows = metrics[metrics["statistic"] == "transfer"]
    with _field_panels(path, rows) as panels:
        for ax, part in panels:
            _points(ax, part)
            ax.axhline(1, color=GREY, lw=0.8, ls=":")
            ax.axhline(0, color=GREY, lw=0.8)
            # A noisy last bin must not flatten all others.
            low, high = np.nan_to_num(part["value"].quantile([0.03, 0.97]).to_numpy())
            ax.set_ylim(min(-0.08, low - 0.15), max(1.15, high + 0.15))
            ax.set_ylabel(r"transfer $T_\ell$")
    return rows


def residual(metrics: pd.DataFrame, units: Mapping[str, str], path: Path) -> pd.DataFrame:
    """Draw D_ell of truth, prediction and residual, a panel a field; returns the rows (C_ell).

    `units` are those of the maps, by field; the spectra's are their squares.
    """
    rows = metrics[metrics["statistic"].isin(POWERS)]
    with _field_panels(path, rows) as panels:
        for ax, part in panels:
            for kind, method, curve in _curves(part):
                label, colour, marker, line = _power_style(kind, method)
                ell, cl = (curve[name].to_numpy(float) for name in ("ell", "value"))
                error = curve["error"].to_numpy(float)
                value = np.where(cl > 0, dl(ell, cl), np.nan)
                ax.errorbar(
                    ell, value, dl(ell, error), color=colour, marker=marker, ls=line, label=label
                )
            unit = units.get(part["field"].iloc[0], "")
            ax.set_yscale("log")
            ax.set_ylabel(with_unit(r"$D_\ell$", {"uK_CMB": "µK²"}.get(unit, unit)))
    return rows


def _curves(part: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Each kind of power by each method; the truth, which is the same for all, once."""
    for kind in POWERS:
        of_kind = part[part["statistic"] == kind]
        methods = list(of_kind["method"].unique())
        if kind == "power_truth":
            methods = methods[:1]
        for method in methods:
            yield kind, method, of_kind[of_kind["method"] == method].sort_values("ell")


POWERS = ("power_truth", "power_prediction", "residual", "power_prediction_null")


def _power_style(kind: str, method: str) -> tuple[str, str, str, str]:
    if kind == "power_truth":
        return "truth", BLACK, "", "-"
    name, colour, marker, line = method_style(method, [method])
    if kind == "power_prediction_null":
        whose = "prediction" if method == "network" else name
        return f"{whose} where the truth is zero", GREY if method == "network" else colour, "x", ":"
    if kind == "power_prediction":
        return "prediction" if method == "network" else name, colour, marker, line
    if method == "network":
        return "residual $N_\\ell$", SKY, "v", "--"
    return f"residual, {name}", colour, "+", ":"


@contextmanager
def _field_panels(path: Path, rows: pd.DataFrame) -> Iterator[list[tuple[Axes, pd.DataFrame]]]:
    """Canvas with a panel for each field of `rows`, in their order, log ell axes and a legend."""
    parts = [part for _, part in rows.groupby("field", sort=False)]
    height, width = grid_shape(len(parts))
    with canvas(path, height, width, size=(3.6 * width, 3.2 * height + 0.3)) as (figure, axes):
        hide_unused(axes, len(parts))
        panels = list(zip(axes.ravel(), parts, strict=False))
        yield panels
        for ax, part in panels:
            ax.set_xlim(0.85 * part["ell"].min(), 1.18 * part["ell"].max())
            log_ell(ax)
            ax.set_title(field_label(part["field"].iloc[0]))
        legend_below(figure, [ax for ax, _ in panels])


def _points(ax: Axes, part: pd.DataFrame, filled_above: float | None = None) -> None:
    """Points with errors, a style a method; hollow where value / error is not above the bar."""
    methods = list(part["method"].unique())
    for method in methods:
        rows = part[part["method"] == method].sort_values("ell")
        label, colour, marker, line = method_style(method, methods)
        ell, value, error = (rows[name].to_numpy(float) for name in ("ell", "value", "error"))
        if not marker:
            ax.plot(ell, value, color=colour, ls=line, lw=0.8, label=label)
            continue
        ax.errorbar(ell, value, np.nan_to_num(error), color=colour, ls=line, lw=1)
        sure = np.full(len(rows), True) if filled_above is None else value > filled_above * error
        ax.plot(ell[~sure], value[~sure], marker, color=colour, mfc="white")
        ax.plot(ell[sure], value[sure], marker, color=colour)
        ax.plot([], [], color=colour, marker=marker, ls=line, label=label)


def _amplitude_words(metrics: pd.DataFrame) -> str:
    """How surely each field's spectrum is detected, in words."""
    rows = metrics[
        (metrics["statistic"] == "spectrum_amplitude") & (metrics["method"] == "network")
    ]
    words = []
    for row in rows.to_dict("records"):
        name, value, error = plain_field(str(row["field"])), row["value"], row["error"]
        if error > 0:
            sure = f"{value / error:.1f} standard errors"
            words.append(f"{name} {value:.3f} ± {error:.3f} ({sure})")
        else:
            words.append(f"{name} not known")
    return f"Over the truth's, over all bands: {'; '.join(words)}." if words else ""


def _range_words(metrics: pd.DataFrame, statistic: str) -> str:
    """Where each field's curve begins and ends, in words."""
    network = metrics[(metrics["statistic"] == statistic) & (metrics["method"] == "network")]
    words = []
    for field, part in network.groupby("field", sort=False):
        ends = part.sort_values("ell").iloc[[0, -1]]
        (first, last), (low, high) = ends["value"], ends["ell"]
        words.append(
            f"{plain_field(str(field))}: {first:.2f} at ell {low:.0f}, {last:.2f} at ell {high:.0f}"
        )
    return "; ".join(words) + "." if words else ""
