"""What ran, in a row each: counts and settings taken from files and from the study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skyweave.data.split import SPLITS
from skyweave.report import read
from skyweave.report.embed import number
from skyweave.report.foregrounds import SCORE_COLUMNS
from skyweave.report.reconstruction import METRIC_COLUMNS, of_test_split
from skyweave.report.style import METHODS, UNITS, plain_field
from skyweave.statistics.fidelity import SAMPLES
from skyweave.statistics.restoration import case_words

_SCREENS = ("reionization", "lensing")


def run_row(kind: str, name: str, folder: Path, study: Mapping[str, Any]) -> dict[str, str]:
    """Dataset, fields, network and training of a run of a kind (a section's name)."""
    settings = study.get("runs", {}).get(name, {})
    card = read.document(folder / "card.json")
    history = read.table(folder / "history.csv", ("epoch",))
    network = settings.get("network", {})
    training = settings.get("training", {})
    parameters = card.get("parameters")
    return {
        "name": name,
        "anchor": f"{kind}-{name}",
        "dataset": settings.get("dataset", "–") + _mixed_in(settings),
        "inputs": "random numbers"
        if kind == "generation"
        else _fields(settings.get("inputs", settings.get("fields", card.get("inputs", ())))),
        "outputs": _fields(settings.get("targets", card.get("outputs", ()))),
        "network": str(network.get("name", card.get("network", "–"))),
        "parameters": f"{parameters:,}".replace(",", " ") if isinstance(parameters, int) else "–",
        "epochs": f"{len(history)} of at most {training['epochs']}"
        if "epochs" in training
        else str(len(history)),
    }


def _mixed_in(settings: Mapping[str, Any]) -> str:
    """Generated images in the training of a run, in words."""
    share = settings.get("alpha", 0)
    return f" and images of {settings['generated']} (alpha {share:g})" if share else ""


def dataset_row(kind: str, name: str, folder: Path, study: Mapping[str, Any]) -> dict[str, str]:
    """Kind, source, geometry, sizes and conditions of a dataset, in words."""
    settings = study["datasets"].get(name, {})
    is_sky = kind == "sky"
    is_image = kind == "images"
    grid = {"cmb": settings.get("grid", {}), "sky": settings.get("patches", {})}.get(kind, settings)
    split = read.table(folder / ("places.csv" if is_sky else "split.csv"), ("split",))
    counts = split["split"].value_counts()
    conditions = {
        "cmb": lambda: _cmb_conditions(settings),
        "sky": lambda: _sky_conditions(settings, folder),
        "imported": lambda: _imported_conditions(settings),
        "images": lambda: _image_conditions(settings),
    }
    kinds = {"cmb": "simulated CMB", "sky": "sky map", "imported": "imported maps"}
    made = "Sérsic images" if settings.get("kind") == "sersic" else "images of galaxies"
    return {
        "name": name,
        # These have no figures of their own: all that there is to say stands in the settings.
        "anchor": "provenance" if kind in ("imported", "images") else f"{kind}-{name}",
        "kind": (kinds | {"images": made})[kind],
        "patches": f"{len(split)} images" if is_image else str(len(split)),
        "split": ", ".join(f"{part} {counts[part]}" for part in SPLITS if part in counts),
        "geometry": _frame(settings) if is_image else _geometry(grid),
        "conditions": conditions[kind](),
    }


def _geometry(grid: Mapping[str, Any]) -> str:
    if not {"size_deg", "pixels"} <= set(grid):
        return "–"
    words = [f"{grid['size_deg']:g}°, {grid['pixels']} × {grid['pixels']} pixels"]
    if grid.get("sky") == "curved":
        words.append("of a curved sky")
    elif grid.get("margin_deg"):
        words.append(f"cut out, {grid['margin_deg']:g}° from the edge")
    return ", ".join(words)


def _frame(settings: Mapping[str, Any]) -> str:
    """Side and pixels of images; the side of scaled ones is that of their files."""
    if not {"pixel_arcsec", "pixels"} <= set(settings):
        return "–"
    side, pixels = settings["pixel_arcsec"], settings["pixels"]
    if settings.get("resize") == "scale":
        return f"scaled to {pixels} × {pixels} pixels, in the files of {side:g}″"
    return f"{side * pixels:.4g}″, {pixels} × {pixels} pixels"


def scores(name: str, folder: Path) -> list[dict[str, Any]]:
    """Pixel correlation of each field by the network and by each other method, a row a field.

    Where the network predicts its errors, a row more: the share of pixels in their 68 % interval.
    """
    metrics = of_test_split(read.table(folder / "metrics.csv", METRIC_COLUMNS))
    pixels = metrics[(metrics["statistic"] == "coverage_68") & metrics["ell"].isna()]
    coverage = {row["field"]: row for row in pixels.to_dict("records")}
    pixel = metrics[metrics["statistic"] == "pixel_correlation"]
    found = []
    for field, part in pixel.groupby("field", sort=False):
        by_method = {row["method"]: row for row in part.to_dict("records")}
        patches = [row["n"] for row in by_method.values() if "n" in row]
        row = {
            "run": name,
            "anchor": f"run-{name}",
            "field": plain_field(str(field)),
            "network": _with_error(by_method.get("network")),
            "linear": _linear(by_method),
            "quadratic": _with_error(by_method.get("quadratic")),
            "iterative": _with_error(by_method.get("iterative")),
            "patches": number(int(patches[0])) if patches else "–",
        }
        found.append(row)
        if field in coverage:
            words = f"{row['field']}: pixels in their 68 % interval"
            none = dict.fromkeys(("linear", "quadratic", "iterative"), "–")
            share = {"field": words, "network": _with_error(coverage[field])}
            found.append(row | none | share)
    return found


def _linear(by_method: Mapping[Any, Mapping[Any, Any]]) -> str:
    """The scores of analytic E/B and of the Wiener filter; named where there are both."""
    names = {"analytic_eb": "analytic", "wiener": "Wiener"}
    there = [method for method in names if method in by_method]
    if len(there) < 2:
        return _with_error(by_method[there[0]] if there else None)
    return ", ".join(f"{_with_error(by_method[method])} ({names[method]})" for method in there)


_FIDELITY = ("mean_power_ratio", "mean_correlation", "pixel_correlation")


def fidelity_scores(name: str, folder: Path) -> list[dict[str, Any]]:
    """Power ratio and correlation of each field, of the run and of what stands beside it.

    A row a field and method: means over the bands below ell 2000, and the correlation of pixels.
    """
    metrics = of_test_split(read.table(folder / "metrics.csv", METRIC_COLUMNS))
    of = metrics[metrics["ell"].isna() & metrics["statistic"].isin(_FIDELITY)]
    found = []
    for (field, method), part in of.groupby(["field", "method"], sort=False):
        keyed = {row["statistic"]: row for row in part.to_dict("records")}
        if not set(_FIDELITY[:2]) <= set(keyed):
            continue
        patches = keyed["mean_correlation"].get("n")
        found.append(
            {
                "run": name,
                "anchor": f"decomposition-{name}",
                "field": plain_field(str(field)),
                "method": METHODS[method][0] if method in METHODS else _beside(str(method)),
                "power": _with_error(keyed["mean_power_ratio"]),
                "correlation": _with_error(keyed["mean_correlation"]),
                "pixel": _with_error(keyed.get("pixel_correlation")),
                "patches": "–" if patches is None else number(int(patches)),
            }
        )
    return found


#: Methods whose error in holes the summary tells.
_FILLED = ("network", "constrained", "diffusive")


def filled_scores(name: str, folder: Path) -> list[dict[str, Any]]:
    """Rms error in the holes by the network, the Gaussian optimum and diffusion.

    A row a field and kind of holes.
    """
    metrics = of_test_split(read.table(folder / "metrics.csv", (*METRIC_COLUMNS, "case")))
    found = []
    for (field, case), part in metrics.groupby(["field", "case"], sort=False):
        rows = part.to_dict("records")
        by = {row["method"]: row for row in rows if row["statistic"] == "error_rms_hole"}
        ratios = [r for r in rows if (r["statistic"], r["method"]) == ("error_ratio", "network")]
        areas = [row["value"] for row in rows if row["statistic"] == "area"]
        if "network" not in by:
            continue
        found.append(
            {
                "run": name,
                "anchor": f"inpainting-{name}",
                "field": plain_field(str(field)),
                "case": hole_words(str(case)),
                "area": f"{100 * areas[0]:.3g} %" if areas else "–",
                **{method: _with_error(by.get(method)) for method in _FILLED},
                "ratio": _with_error(ratios[0] if ratios else None),
                "patches": number(int(by["network"]["n"])),
            }
        )
    return found


def hole_words(case: str) -> str:
    """A kind of holes in words: the run's own, or discs."""
    kind, _, radius = case.partition("_")
    return f"disc, radius {radius} pixels" if kind == "radius" else "as trained"


#: What the summary tells of images, by statistic: its key, factor and digits.
_OF_IMAGES = {
    "fid": ("fid", 1.0, 2),
    "kid": ("kid", 1e3, 2),
    "precision": ("precision", 1.0, 3),
    "recall": ("recall", 1.0, 3),
    "copies": ("copies", 1.0, 3),
}
_SETS = ("network", "real", "gaussian_images")


def generated_scores(name: str, folder: Path) -> list[dict[str, Any]]:
    """How near images are to real ones: of the network, other real ones and Gaussian ones.

    A row a method; what was not measured is a dash. The mean distance is told band by band.
    """
    metrics = of_test_split(read.table(folder / "metrics.csv", METRIC_COLUMNS))
    found = []
    for method in _SETS:
        rows = metrics[metrics["method"] == method].to_dict("records")
        by = {row["statistic"]: row for row in rows}
        means = [row for row in rows if row["statistic"] == "mean_distance"]
        if not means:
            continue
        words = [
            (f"{plain_field(str(row['field']))} " if len(means) > 1 else "") + _significant(row)
            for row in means
        ]
        found.append(
            {
                "run": name,
                "anchor": f"generation-{name}",
                "method": METHODS[method][0],
                "distance": ", ".join(words),
                "images": number(int(means[0]["n"])),
                **{
                    key: _rounded(by.get(statistic), factor, digits)
                    for statistic, (key, factor, digits) in _OF_IMAGES.items()
                },
            }
        )
    return found


#: Methods whose squared error the summary tells.
_RESTORED = ("network", "wiener", "seen")


def restored_scores(name: str, folder: Path) -> list[dict[str, Any]]:
    """Squared error of restored images and the network's flux bias, a row a field and condition."""
    metrics = of_test_split(read.table(folder / "metrics.csv", (*METRIC_COLUMNS, "case")))
    found = []
    for (field, case), part in metrics.groupby(["field", "case"], sort=False):
        by = {(row["statistic"], row["method"]): row for row in part.to_dict("records")}
        if ("mse", "network") not in by:
            continue
        found.append(
            {
                "run": name,
                "anchor": f"denoising-{name}",
                "field": plain_field(str(field)),
                "case": case_words(str(case)),
                **{method: _significant(by.get(("mse", method))) for method in _RESTORED},
                "bias": _rounded(by.get(("flux_bias", "network")), 100, 2, " %"),
                "images": number(int(by["mse", "network"]["n"])),
            }
        )
    return found


def _rounded(row: Mapping[Any, Any] | None, factor: float, digits: int, unit: str = "") -> str:
    """Value and error times a factor, with as many digits behind the point."""
    if row is None or row["value"] != row["value"]:
        return "–"
    numbers = [factor * x for x in (row["value"], row["error"]) if x == x]
    return " ± ".join(f"{x:.{digits}f}".replace("-", "−") for x in numbers) + unit


def _beside(method: str) -> str:
    """Samples, or another run, in words."""
    return method if method == SAMPLES else f"run {method}"


_STATISTICS = {
    "overlap": "overlap of {}",
    "distance": "distance of {}",
    "one_point": "distribution of values",
    "spectrum": "power spectrum",
    "bispectrum_equilateral": "bispectrum, equilateral",
    "bispectrum_squeezed": "bispectrum, squeezed",
    "input_correlation": "correlation of input and output",
}
_FUNCTIONALS = {"v0": "V₀, area", "v1": "V₁, boundary", "v2": "V₂, Euler characteristic"}


def small_scales(name: str, folder: Path) -> list[dict[str, Any]]:
    """Each score of a foreground run, of the network and of Gaussian small scales, a row each."""
    table = of_test_split(read.table(folder / "scores.csv", SCORE_COLUMNS))
    found = []
    for (statistic, field), part in table.groupby(["statistic", "field"], sort=False):
        by_method = {row["method"]: row for row in part.to_dict("records")}
        first = part.iloc[0]
        found.append(
            {
                "run": name,
                "anchor": f"foregrounds-{name}",
                "statistic": _statistic(str(statistic)),
                "field": plain_field(str(field)),
                "better": "larger" if str(statistic).startswith("overlap") else "smaller",
                "network": _significant(by_method.get("network")),
                "gaussian": _significant(by_method.get("gaussian")),
                "ceiling": _ceiling(first["ceiling"], first["ceiling_low"]),
                "patches": number(int(first["n"])),
            }
        )
    return found


def _statistic(name: str) -> str:
    kind, _, functional = name.partition("_")
    if functional in _FUNCTIONALS and kind in _STATISTICS:
        return _STATISTICS[kind].format(_FUNCTIONALS[functional])
    return _STATISTICS.get(name, name.replace("_", " "))


def _significant(row: Mapping[Any, Any] | None) -> str:
    """Value and error with three significant digits: distances differ by orders of magnitude."""
    if row is None:
        return "–"
    words = [f"{x:.3g}".replace("-", "−") for x in (row["value"], row["error"]) if x == x]
    return " ± ".join(words) or "–"


def _ceiling(mean: float, low: float) -> str:
    """What the truth reaches against itself."""
    if mean != mean:
        return "–"
    return f"{mean:.3g}" + (f" (97.5 % above {low:.3g})" if low == low else "")


def _with_error(row: Mapping[Any, Any] | None) -> str:
    if row is None:
        return "–"
    error = row["error"]
    return f"{row['value']:.4f}" + (f" ± {error:.4f}" if error == error else "")


def _fields(names: Any) -> str:
    return ", ".join(plain_field(str(name)) for name in names) or "–"


def _cmb_conditions(settings: Mapping[str, Any]) -> str:
    effects = settings.get("effects", {})
    words = [screen for screen in _SCREENS if effects.get(screen)]
    if effects.get("rotation_deg") or effects.get("rotation_amplitude"):
        words.insert(
            0,
            f"rotation by {effects.get('rotation_deg', 0):g}° and a field of "
            f"{effects.get('rotation_amplitude', 0):g} rad²",
        )
    varied = settings.get("spectra", {}).get("vary", {})
    if varied:
        words.insert(0, f"realizations differ in {', '.join(varied)}")
    for key, unit, label in (
        ("taper_deg", "°", "taper"),
        ("null_fraction", "", "share of null maps"),
    ):
        if key in effects:
            words.append(f"{label} {effects[key]:g}{unit}")
    for name, channel in settings.get("channels", {}).items():
        words.append(f"channel {name}: {_channel(channel)}")
    return ", ".join(words) or "–"


def _imported_conditions(settings: Mapping[str, Any]) -> str:
    paths = settings.get("path", ())
    words = [paths] if isinstance(paths, str) else list(paths)
    if "taper_deg" in settings:
        words.append(f"taper {settings['taper_deg']:g}°")
    return ", ".join(words) or "–"


def _image_conditions(settings: Mapping[str, Any]) -> str:
    """Source, bands, point-spread function and noise of images."""
    words, unit = [], "nJy"
    if settings.get("kind") == "images":
        cosmos = settings.get("source") == "cosmos"
        words.append("COSMOS (HST F814W)" if cosmos else str(settings.get("path") or "files"))
        unit = settings.get("unit", "")
        bands = settings.get("bands", ())
        words += [f"bands {', '.join(bands)}"] if len(bands) > 1 else []
    psf, noise = settings.get("psf"), settings.get("noise")
    words.append(
        f"{str(psf['kind']).capitalize()} PSF of {psf['fwhm_arcsec']:g}″ FWHM"
        if psf
        else "no PSF added"
    )
    words.append(f"noise {noise:g} {UNITS.get(unit, unit)}".rstrip() if noise else "no noise added")
    return ", ".join(words)


def _channel(settings: Mapping[str, Any]) -> str:
    """A channel's beam and noise in words."""
    beam = f"beam {settings.get('beam_arcmin', 0):g}′"
    if settings.get("beam_path"):
        beam = f"beam {settings['beam_path']}"
    if settings.get("beam_hfi_ghz"):
        beam = f"beam of HFI {settings['beam_hfi_ghz']} GHz"
    noise = f"noise {settings.get('noise_uk_arcmin', 0):g} µK-arcmin"
    if settings.get("knee_ell") or settings.get("knee_ell_pol"):
        noise += f" with knees at {settings['knee_ell']:g} and {settings['knee_ell_pol']:g}"
    if settings.get("foreground_dl_80"):
        noise += f", foregrounds of {settings['foreground_dl_80']:g} µK² at ell 80"
    return f"{beam}, {noise}"


def _sky_conditions(settings: Mapping[str, Any], folder: Path) -> str:
    steps = read.table(folder / "mask_steps.csv", ("step", "f_sky"))
    source, patches = settings.get("map", {}), settings.get("patches", {})
    words = [f"sky fraction {steps['f_sky'].iloc[-1]:.3f}"]
    if {"source", "nside"} <= set(source):
        words.insert(0, f"{source.get('path') or source['source']}, nside {source['nside']}")
    if {"low_arcmin", "high_arcmin"} <= set(patches):
        words.append(f"beams {patches['low_arcmin']:g}′ and {patches['high_arcmin']:g}′")
    return ", ".join(words)
