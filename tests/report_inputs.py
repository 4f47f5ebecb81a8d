"""Small, valid inputs of the report: what the workflow's scripts leave in a folder."""

import json
from pathlib import Path

import h5py
import healpy
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from skyweave.data.predictions import write_predictions
from skyweave.data.shards import write_shard
from skyweave.report.figures import (
    draw_alphas,
    draw_decomposition,
    draw_denoising,
    draw_foregrounds,
    draw_full_sky,
    draw_generation,
    draw_inpainting,
    draw_reconstruction,
    draw_sky,
    draw_spectra,
)
from skyweave.sky.skymap import SkyMap, write_mask
from skyweave.statistics.tables import write_table
from skyweave.statistics.verdicts import verdict, write_verdicts

ELL = np.array([108, 216, 360, 540, 800, 1200, 1800, 2700], float)
TARGETS = {"tau": 0.35, "e_prim": 0.99, "kappa": 0.92}
UNITS = {"tau": "", "kappa": "", "e_prim": "uK_CMB", "q_obs": "uK_CMB", "u_obs": "uK_CMB"}
UNITS |= {"e_sky": "uK_CMB", "b_sky": "uK_CMB"}
SCALE = {"tau": 0.0025, "kappa": 0.044, "e_prim": 3.9, "q_obs": 2.8, "u_obs": 2.8}


def random_maps(rng: np.random.Generator, count: int, pixels: int) -> np.ndarray:
    """Unit-variance maps (count, pixels, pixels) with a red spectrum and a taper."""
    wave = np.hypot(np.fft.fftfreq(pixels)[:, None], np.fft.fftfreq(pixels)[None])
    wave[0, 0] = np.inf
    noise = np.fft.fft2(rng.standard_normal((count, pixels, pixels)))
    maps = np.fft.ifft2(noise / wave**1.2 * np.exp(-20 * np.where(wave < 1, wave, 0) ** 2)).real
    window = np.sin(np.pi * (np.arange(pixels) + 0.5) / pixels)
    return maps / maps.std() * window[:, None] * window


def write_run(folder: Path, targets: dict[str, float] = TARGETS, pixels: int = 64) -> Path:
    """A reconstruction run; the first realization is a null one (tau = kappa = 0)."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "predictions.h5", "w") as file:
        file.attrs["size_deg"] = 5.0
        file["realizations"] = [7, 12, 30]
        for field in ("q_obs", "u_obs"):
            _field(file, f"input/{field}", SCALE[field] * random_maps(rng, 3, pixels))
        for field, r in targets.items():
            truth = SCALE[field] * random_maps(rng, 3, pixels)
            if field in ("tau", "kappa"):
                truth[0] = 0
            other = SCALE[field] * random_maps(rng, 3, pixels)
            _field(file, f"truth/{field}", truth)
            _field(file, f"prediction/{field}", r**2 * truth + r * np.sqrt(1 - r**2) * other)
            if field == "e_prim":
                _field(file, f"estimates/analytic_eb/{field}", truth + 0.3 * other)
            if field == "kappa":
                _field(file, f"estimates/quadratic/{field}", r**3 * truth + 0.3 * other)
    write_table(folder / "metrics.csv", _metrics(targets))
    write_table(folder / "calibration.csv", _calibration(targets))
    history = _history(targets)
    write_table(folder / "history.csv", history)
    write_table(folder / "sweep.csv", _sweep(history, picked=9))
    verdicts = [
        verdict("kappa: pixel correlation", 0.92, 0.9, ">", note="published: 0.921"),
        verdict("tau: pixel correlation", 0.11, 0.3, ">", note="a <b>hard</b> field & small"),
        verdict("tau: significance", float("nan"), 5, ">", unit="standard errors"),
    ]
    write_verdicts(folder / "verdicts.json", verdicts)
    card = {"network": "resunet_cmb", "parameters": 5292367, "inputs": ["q_obs", "u_obs"]}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def _field(file: h5py.File, name: str, maps: np.ndarray) -> None:
    file.create_dataset(name, data=maps.astype("f4"))
    file[name].attrs["unit"] = UNITS[name.rpartition("/")[2]]


def _metrics(targets: dict[str, float]) -> pd.DataFrame:
    rows = []
    for field, r in targets.items():
        others = {"e_prim": {"analytic_eb": 0.93 * r}, "kappa": {"quadratic": 0.8 * r}}
        methods = {"network": r, **others.get(field, {})}
        for method, level in methods.items():
            r_ell = level * np.exp(-((ELL / 4000) ** 2))
            cl = SCALE[field] ** 2 * 1e-4 / (1 + (ELL / 500) ** 3)
            curves = {
                "correlation": (r_ell, 0.03),
                "transfer": (r_ell**2, 0.03),
                "power_truth": (cl, 0.1 * cl),
                "power_prediction": (cl * r_ell**2, 0.1 * cl * r_ell**2),
                "residual": (cl * r_ell**2 * (1 - r_ell**2), 0.02 * cl * r_ell**2),
            }
            if field in ("tau", "kappa"):
                curves["power_prediction_null"] = (0.1 * cl * r_ell**2, 0.02 * cl * r_ell**2)
            # As of tau: where the transfer is not known nothing can be debiased.
            known = np.where((r_ell > 0.5) & (field != "tau"), 1.0, np.nan)
            bias = 0.02 * np.sin(ELL)
            curves |= {
                "spectrum_estimate": (known * cl * (1 + bias), 0.05 * cl * known),
                "spectrum_bias": (known * bias, 0.05 * known),
                "coverage_68": (0.68 + 0.1 * bias, 0.01),
                "coverage_95": (0.95 + 0.1 * bias, 0.005),
            }
            amplitude = (np.nan, np.nan) if field == "tau" else (1.01, 0.02)
            rows.append((field, method, "spectrum_amplitude", np.nan, *amplitude))
            rows.append((field, method, "pixel_correlation", np.nan, level, 0.01))
            if method == "network" and field == "kappa":
                rows.append((field, method, "coverage_68", np.nan, 0.7, 0.004))
                rows.append((field, method, "coverage_95", np.nan, 0.94, 0.002))
            for statistic, (value, error) in curves.items():
                both = np.broadcast_arrays(ELL, value, error)
                rows += [(field, method, statistic, *point) for point in zip(*both, strict=True)]
    columns = ["field", "method", "statistic", "ell", "value", "error"]
    return pd.DataFrame(rows, columns=columns).assign(run="run", split="test", n=30)


def _calibration(targets: dict[str, float]) -> pd.DataFrame:
    """Curves of a posterior that is too wide as it is, and right after regression."""
    credibility = np.linspace(0, 1, 21)
    frame = pd.DataFrame({"credibility": credibility, "error": 0.05})
    curves = [
        frame.assign(field=field, posterior=posterior, coverage=credibility**power)
        for field in targets
        for posterior, power in (("prediction", 0.7), ("regressed", 1.0))
    ]
    return pd.concat(curves).assign(run="run", method="network")


def _history(targets: dict[str, float]) -> pd.DataFrame:
    epoch = np.arange(1, 21)
    loss = 0.3 + 2 * np.exp(-epoch / 4)
    history = {"epoch": epoch, "loss": loss, "val_loss": loss + 0.002 * (epoch - 12) ** 2}
    for number, field in enumerate(targets, start=1):
        history |= {f"loss_{field}": loss / number, f"val_loss_{field}": 1.1 * loss / number}
    history["learning_rate"] = np.where(epoch < 14, 1e-3, 5e-4)
    return pd.DataFrame(history)


def _sweep(history: pd.DataFrame, picked: int) -> pd.DataFrame:
    """As of a run that is picked by correlation, a field as good as the other."""
    value = 1 - 0.001 * (history["epoch"] - picked) ** 2
    fields = [history[["epoch"]].assign(field=field, value=value) for field in ("kappa", "all")]
    rows = pd.concat(fields).sort_values("epoch", kind="stable")
    return rows.assign(statistic="correlation", picked=(rows["epoch"] == picked).astype(int))


def write_sky(folder: Path, nside: int = 32, pixels: int = 48) -> Path:
    """A sky dataset: a dust-like map, its mask, patches and their statistics."""
    rng = np.random.default_rng(2)
    folder.mkdir(parents=True, exist_ok=True)
    _, lat = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)
    dust = (
        900 / (0.03 + np.abs(np.sin(np.radians(lat)))) * np.exp(0.5 * rng.standard_normal(lat.size))
    )
    dust[:50] = np.nan
    SkyMap(
        intensity=dust.astype("f4"),
        variance=None,
        bad=np.isnan(dust),
        frequency_ghz=353.0,
        description="dust at 353 GHz",
    ).write(folder / "map.fits")
    write_mask(folder / "mask.fits", np.abs(lat) > 15)
    high = 1000 * np.exp(0.6 * random_maps(rng, 8, pixels))
    with h5py.File(folder / "patches.h5", "w") as file:
        file.attrs["size_deg"] = 20.0
        file["high"], file["low"] = high.astype("f4"), (0.5 * high + 500).astype("f4")
        file["mask"] = np.ones_like(high, dtype="f4")
        for name, unit in (("high", "uK_CMB"), ("low", "uK_CMB"), ("mask", "")):
            file[name].attrs["unit"] = unit
    places = {
        "lon": [20, 75, 130, 182, 240, 300, 40, 200],
        "lat": [35, 50, 62, 40, 30, 45, -50, -45],
        "split": ["train"] * 5 + ["validation"] + ["test"] * 2,
        "inside": np.linspace(0.91, 1, 8),
    }
    write_table(folder / "places.csv", pd.DataFrame(places))
    steps = {"step": ["finite", "snr", "smoothed", "latitude"], "f_sky": [0.99, 0.9, 0.82, 0.71]}
    write_table(folder / "mask_steps.csv", pd.DataFrame(steps))
    write_table(folder / "spectra.csv", _sky_spectra())
    write_table(folder / "minkowski.csv", _minkowski())
    write_verdicts(folder / "verdicts.json", [verdict("f_sky", 0.71, 0.5, ">")])
    return folder


def _sky_spectra() -> pd.DataFrame:
    ell = np.arange(30, 1500, 60.0)
    frames = []
    for field, fwhm in (("high", 0.2), ("low", 1.33), ("gaussian", 0.2), ("theory", 0.2)):
        cl = 2e4 * (ell / 80) ** -2.5 * np.exp(-((ell * np.radians(fwhm)) ** 2) / 5.545)
        error = np.nan if field == "theory" else 0.15 * cl
        frame = {"field": field, "ell": ell, "value": cl, "error": error}
        frames.append(pd.DataFrame(frame).assign(statistic="cl"))
        for percent, factor in ((16, 0.5), (50, 0.9), (84, 1.6)):
            frame = {
                "field": field,
                "ell": ell,
                "value": factor * cl,
                "statistic": f"cl_p{percent}",
            }
            frames.append(pd.DataFrame(frame))
    ratio = {"ell": ell, "value": 1.0, "error": 0.02, "statistic": "cl_over_theory"}
    frames.append(pd.DataFrame(ratio).assign(field="gaussian"))
    return pd.concat(frames).assign(dataset="dust", split="all", n=8)


def _minkowski() -> pd.DataFrame:
    nu = np.linspace(-1, 1, 32)
    frames = []
    skews = {"high": 0.35, "ratio": 0.2, "gaussian": 0, "gaussian_ratio": 0, "theory": 0}
    for field, skew in skews.items():
        x = 3 * (nu + skew)
        curves = {
            "v0": 0.5 - np.arctan(x) / 3.2,
            "v1": 0.02 * np.exp(-(x**2) / 2),
            "v2": 4e-4 * x * np.exp(-(x**2) / 2),
        }
        for statistic, value in curves.items():
            spread = 0.05 * np.abs(value).max()
            frame = {"field": field, "statistic": statistic, "threshold": nu, "value": value}
            noise = {"error": spread / 3, "std": spread} if field != "theory" else {}
            frames.append(pd.DataFrame({**frame, **{"error": np.nan, "std": np.nan}, **noise}))
    return pd.concat(frames).assign(dataset="dust", split="all", n=8)


def write_cmb(folder: Path) -> Path:
    """A CMB dataset: spectra, split and normalization."""
    folder.mkdir(parents=True, exist_ok=True)
    ell = np.arange(3001)
    peaks = 1 + 0.4 * np.cos(ell / 95)
    damping = np.exp(-((ell / 1400) ** 1.3)) / np.maximum(ell * (ell + 1), 1) * 2 * np.pi
    spectra = {"ell": ell}
    for name, level in {"tt": 3000, "ee": 40, "bb": 0.0, "kk": 1e-7, "tautau": 8e-6}.items():
        spectra[f"cl_{name}"] = level * peaks * damping * (ell > 1)
    spectra["cl_te"] = 100 * np.cos(ell / 95) * damping * (ell > 1)
    for name, level in {"tt": 3000, "ee": 40, "bb": 0.1}.items():
        spectra[f"cl_lensed_{name}"] = level * peaks**0.9 * damping * (ell > 1)
    write_table(folder / "spectra.csv", pd.DataFrame(spectra))
    split = ["train"] * 80 + ["validation"] * 10 + ["test"] * 10
    parts = pd.DataFrame({"realization": np.arange(100), "split": split})
    write_table(folder / "split.csv", parts)
    normalization = {"q_obs": {"mean": 0.0, "std": 2.8}, "kappa": {"mean": 0.0, "std": 0.044}}
    (folder / "normalization.json").write_text(json.dumps(normalization))
    return folder


def draw_cmb(folder: Path, out: Path) -> None:
    """Figures of what `write_cmb` wrote."""
    draw_spectra(folder / "spectra.csv", out)


def write_foregrounds(folder: Path, pixels: int = 48) -> Path:
    """A foreground run: a network that is nearer to the truth than Gaussian small scales."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True, exist_ok=True)
    count = 6
    low = 800 * np.exp(0.5 * ndimage.gaussian_filter(random_maps(rng, count, pixels), (0, 3, 3)))
    ridges = [-np.abs(random_maps(rng, count, pixels)) for _ in range(2)]
    small = [*ridges, random_maps(rng, count, pixels)]
    truth, network, gaussian = (low * np.exp(0.3 * (one - one.mean()) / one.std()) for one in small)
    mask = np.ones_like(low)
    mask[0, :6, :9] = 0
    maps = {
        "input/low": low,
        "truth/high": truth,
        "prediction/high": network,
        "baseline/high": gaussian,
        "input/mask": mask,
    }
    with h5py.File(folder / "predictions.h5", "w") as file:
        file.attrs["size_deg"] = 20.0
        file["realizations"] = np.array([3, 8, 21, 40, 41, 60])
        for name, values in maps.items():
            file.create_dataset(name, data=values.astype("f4"))
            file[name].attrs["unit"] = "" if name == "input/mask" else "uK_CMB"
    write_table(folder / "metrics.csv", _small_scale_metrics())
    write_table(folder / "curves.csv", _small_scale_curves())
    write_table(folder / "scores.csv", _small_scale_scores())
    nearest = [
        {
            "realization": place,
            "method": method,
            "nearest": 100 + place,
            "correlation": float(np.clip(rng.normal(level, 0.06), 0, 1)),
        }
        for method, level in (("truth", 0.34), ("network", 0.31))
        for place in range(24)
    ]
    write_table(folder / "nearest.csv", pd.DataFrame(nearest))
    history = _adversarial_history()
    write_table(folder / "history.csv", history)
    write_table(folder / "sweep.csv", _overlap_sweep(picked=15))
    verdicts = [
        verdict("overlap of V0 of the ratio: network − Gaussian", 0.11, 0.0, ">"),
        verdict("spectrum within 10 %", 0.14, 0.1, "<", note="largest relative difference"),
    ]
    write_verdicts(folder / "verdicts.json", verdicts)
    card = {"network": "forse", "parameters": 1234567, "inputs": ["low"], "outputs": ["ratio"]}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def _small_scale_metrics() -> pd.DataFrame:
    ell = np.arange(60, 1400, 60.0)
    frames = []

    def add(method: str, statistic: str, value: np.ndarray, error: object = np.nan) -> None:
        frame = {"method": method, "statistic": statistic, "ell": ell, "value": value}
        frames.append(pd.DataFrame(frame | {"error": error}))

    beams = {"input": 80, "truth": 12, "network": 12, "gaussian": 12}
    for method, arcmin in beams.items():
        window = np.exp(-((ell * np.radians(arcmin / 60)) ** 2) / 5.545)
        tilt = {"network": (ell / 60) ** -0.06, "gaussian": (ell / 60) ** 0.02}.get(method, 1.0)
        cl = 2e4 * (ell / 80) ** -2.5 * window * tilt
        for percent, factor in ((16, 0.5), (50, 0.9), (84, 1.6)):
            add(method, f"cl_p{percent}", factor * cl)
        add(method, "cl", cl, 0.15 * cl)
    for method, level in {"truth": 1.0, "network": 0.8, "gaussian": 0.02}.items():
        for shape, slope in (("equilateral", -4.6), ("squeezed", -2.6)):
            value = 2e-4 * level * (ell / 60) ** slope
            add(method, f"bispectrum_{shape}", value, 4e-5 * (ell / 60) ** slope)
        r_ell = (0.15 * level) + (1 - 0.15 * level) / (1 + np.exp((ell - 220) / 50))
        add(method, "input_correlation", r_ell, 0.02)
    return pd.concat(frames).assign(run="forse", split="test", field="high", n=6)


def _small_scale_curves() -> pd.DataFrame:
    """Minkowski functionals and densities that are lopsided but for Gaussian small scales."""
    minkowski = _minkowski()
    named = {("high", "truth"): "high", ("ratio", "truth"): "ratio"}
    named |= {(field, "gaussian"): "gaussian" for field in ("high", "ratio")}
    frames = []
    nu = np.linspace(-0.95, 0.95, 20)
    for (field, method), source in named.items():
        frames.append(minkowski[minkowski["field"] == source].assign(field=field, method=method))
        density = np.exp(-(((nu + (0.4 if method == "truth" else 0.0)) / 0.35) ** 2) / 2) / 0.88
        frame = {"threshold": nu, "value": density, "error": 0.03 * density, "std": 0.1 * density}
        one_point = pd.DataFrame(frame).assign(statistic="one_point", field=field, method=method)
        frames.append(one_point)
        if method == "truth":
            network = pd.concat(frames[-2:]).assign(method="network")
            frames.append(network.assign(value=0.95 * network["value"]))
    columns = ["split", "field", "method", "statistic", "threshold", "value", "error", "std", "n"]
    rows = pd.concat(frames).assign(split="test", n=6)
    return rows[columns].assign(run="forse")


def _small_scale_scores() -> pd.DataFrame:
    nan = np.nan
    rows = []
    for field in ("ratio", "high"):
        for v in ("v0", "v1", "v2"):
            rows.append((field, "network", f"overlap_{v}", 0.81, 0.04, 0.9, 0.84))
            rows.append((field, "gaussian", f"overlap_{v}", 0.52, 0.05, 0.9, 0.84))
            rows.append((field, "network", f"distance_{v}", 0.3, 0.02, nan, nan))
            rows.append((field, "gaussian", f"distance_{v}", 1.1, 0.08, nan, nan))
    for statistic, network, gaussian in (
        ("one_point", 0.031, 0.22),
        ("spectrum", 0.05, 0.02),
        ("bispectrum_equilateral", 0.4, 2.8),
        ("bispectrum_squeezed", 0.00035, 0.0021),
        ("input_correlation", 0.02, nan),
    ):
        rows.append(("high", "network", statistic, network, 0.1 * network, nan, nan))
        rows.append(("high", "gaussian", statistic, gaussian, nan, nan, nan))
    columns = ["field", "method", "statistic", "value", "error", "ceiling", "ceiling_low"]
    return pd.DataFrame(rows, columns=columns).assign(run="forse", split="test", n=6)


def _adversarial_history() -> pd.DataFrame:
    """The generator alone for two epochs: neither network's adversarial loss is known then."""
    epoch = np.arange(1, 41)
    gap = np.where(epoch > 2, np.exp(-epoch / 15), np.nan)
    wave = 0.05 * np.sin(epoch)
    history = {
        "epoch": epoch,
        "loss": 0.7 + gap,
        "val_loss": np.where(epoch > 2, 0.75 + gap, np.nan),
    }
    for prefix, more in (("loss_", 0.0), ("val_loss_", 0.04)):
        history |= {
            f"{prefix}adversarial": 0.7 + gap * (1 + wave) + more,
            f"{prefix}discriminator": 0.66 - 0.4 * gap + wave / 3 + more,
            f"{prefix}right_on_real": 0.52 + 0.4 * gap + wave - more,
            f"{prefix}right_on_made": 0.53 + 0.45 * gap - wave - more,
        }
    return pd.DataFrame(history | {"learning_rate": 1e-4})


def _overlap_sweep(picked: int) -> pd.DataFrame:
    epoch = np.arange(5, 41, 5)
    rows = [
        (number, "superposition", field, level - 0.0004 * (number - picked) ** 2)
        for number in epoch
        for field, level in (("v0", 0.85), ("v1", 0.8), ("v2", 0.72), ("all", 0.79))
    ]
    sweep = pd.DataFrame(rows, columns=["epoch", "statistic", "field", "value"])
    return sweep.assign(picked=(sweep["epoch"] == picked).astype(int))


#: Fields of a decomposition: power ratio and correlation of the adversarial run, and of the plain.
DECOMPOSED = {"e_sky": (1.02, 0.8, 0.75, 0.88), "kappa": (1.2, 0.94, 1.0, 0.96)}


def write_decomposition(
    folder: Path, pixels: int = 32, samples: int = 4, leaks: bool = True
) -> Path:
    """An adversarial run beside one called plain, with samples and a test on skies without B."""
    rng = np.random.default_rng(6)
    folder.mkdir(parents=True, exist_ok=True)
    scale = {"e_sky": 4.0, "kappa": 0.044, "b_sky": 0.4}
    with h5py.File(folder / "predictions.h5", "w") as file:
        file.attrs["size_deg"], file.attrs["taper_deg"] = 5.0, 1.5
        file["realizations"] = [3, 11, 40]
        for field in ("q_obs", "u_obs"):
            _field(file, f"input/{field}", SCALE[field] * random_maps(rng, 3, pixels))
        for field, level in scale.items():
            truth, other = (level * random_maps(rng, 3, pixels) for _ in range(2))
            truth[0] = 0
            _field(file, f"truth/{field}", truth)
            _field(file, f"prediction/{field}", 0.8 * truth + 0.5 * other)
            if samples:
                each = [truth + level * random_maps(rng, 3, pixels) for _ in range(samples)]
                _field(file, f"samples/{field}", np.stack(each))
            if field == "kappa":
                _field(file, f"estimates/quadratic/{field}", 0.5 * truth + 0.4 * other)
    write_table(folder / "metrics.csv", _fidelity_metrics(bool(samples), leaks))
    if samples:
        curves = _calibration(dict.fromkeys(["e_sky", "kappa"], 1.0)).assign(method="samples")
        write_table(folder / "calibration.csv", curves[curves["posterior"] == "prediction"])
    history = _adversarial_history()
    for number, field in enumerate(scale, start=1):
        curve = (1 + np.exp(-history["epoch"] / 8)) / number
        history[f"loss_{field}"] = curve
        history[f"val_loss_{field}"] = curve + 0.001 * history["epoch"] ** 1.5
    write_table(folder / "history.csv", history)
    write_table(folder / "sweep.csv", _sweep(history, picked=9))
    verdicts = [
        verdict("e_sky: power over the truth's, off by", 0.02, 0.05, "<="),
        verdict("e_sky: largest loss of r_ell", 0.08, 0.01, "<=", note="± 0.003 at ell 800"),
    ]
    write_verdicts(folder / "verdicts.json", verdicts)
    card = {"network": "astroencoder", "parameters": 345678, "inputs": ["q_obs", "u_obs"]}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def _fidelity_metrics(samples: bool, leaks: bool) -> pd.DataFrame:
    rows = []

    def add(field: str, method: str, statistic: str, value: object, error: object) -> None:
        both = np.broadcast_arrays(ELL, value, error)
        rows.extend((field, method, statistic, *point) for point in zip(*both, strict=True))

    for field, (power, r, plain_power, plain_r) in DECOMPOSED.items():
        levels = {"network": (power, r), "plain": (plain_power, plain_r)}
        levels |= {"quadratic": (3.0, 0.5)} if field == "kappa" else {"wiener": (0.7, 0.85)}
        levels |= {"samples": (1.01, r**2)} if samples else {}
        for method, (ratio, level) in levels.items():
            add(field, method, "power_ratio", ratio * (1 + 0.1 * np.sin(ELL)), 0.02)
            add(field, method, "correlation", level * np.exp(-((ELL / 4000) ** 2)), 0.01)
            for statistic, value, error in (
                ("mean_power_ratio", ratio, 0.02),
                ("mean_correlation", level, 0.01),
                ("pixel_correlation", level, 0.005),
            ):
                rows.append((field, method, statistic, np.nan, value, error))
        for statistic, value, error in (
            ("power_ratio", power - plain_power, 0.01),
            ("correlation", r - plain_r, 0.003),
        ):
            add(field, "plain", f"{statistic}_difference", value, error)
            row = (field, "plain", f"mean_{statistic}_difference", np.nan, value, error)
            rows.append(row)
        if samples:
            add(field, "samples", "coverage_68", 0.68 + 0.02 * np.sin(ELL), 0.01)
            add(field, "samples", "coverage_95", 0.95 + 0.01 * np.sin(ELL), 0.005)
    cl = 1e-6 / (1 + (ELL / 500) ** 3)
    if leaks:
        add("b_sky", "network", "power_truth", cl, 0.05 * cl)
        add("b_sky", "network", "power_prediction", 0.9 * cl, 0.05 * cl)
        for method, level in (("network", 0.05), ("analytic_eb", 2.0)):
            add("b_sky", method, "power_null", level * cl, 0.01 * level * cl)
    columns = ["field", "method", "statistic", "ell", "value", "error"]
    return pd.DataFrame(rows, columns=columns).assign(run="repaired", split="test", n=30)


#: What fills holes: rms error in the largest disc, power on small scales that is lacking, and width
#: of the values, all over the truth's.
FILLINGS = {
    "network": (0.52, 0.3, 0.82),
    "sampled": (0.7, 0.004, 1.0),
    "constrained": (0.5, 0.33, 0.8),
    "realization": (0.71, -0.004, 1.0),
    "diffusive": (0.6, 0.5, 0.75),
}


def write_inpainting(
    folder: Path,
    pixels: int = 32,
    radii: tuple[int, ...] = (2, 4, 6, 8, 10),
    fields: tuple[str, ...] = ("t_obs",),
) -> Path:
    """A run that fills holes, on its own and on discs; the first patch has no hole of its own."""
    rng = np.random.default_rng(7)
    cases = {
        "holes": 0.25,
        **{f"radius_{radius:g}": np.pi * (radius / pixels) ** 2 for radius in radii},
    }
    truth = {field: 80 * random_maps(rng, 3, pixels) for field in fields}
    (folder / "inpainted").mkdir(parents=True, exist_ok=True)
    for case in cases:
        holes = _holes(case, pixels)
        groups = {"seen": {"seen": ~holes}, "truth": truth}
        for method in ("raw", *FILLINGS):
            group = {"network": "prediction", "raw": "raw"}.get(method, f"estimates/{method}")
            copied = holes if method != "raw" else np.ones_like(holes)
            width = 40 if method in ("sampled", "realization") else 0
            groups[group] = {
                name: np.where(
                    copied,
                    ndimage.gaussian_filter(maps, (0, 3, 3)) + width * random_maps(rng, 3, pixels),
                    maps,
                )
                for name, maps in truth.items()
            }
        write_predictions(
            folder / "inpainted" / f"{case}.h5",
            groups,
            realizations=np.array([5, 9, 17]),
            units={"seen": "", **dict.fromkeys(fields, "uK_CMB")},
            size_deg=5.0,
            taper_deg=0.0,
        )
    write_table(folder / "metrics.csv", _hole_metrics(cases, fields))
    write_table(folder / "values.csv", _hole_profiles(cases, fields))
    epoch = np.arange(1, 13)
    history = {"epoch": epoch}
    parts = {"valid": 0.1, "hole": 0.4, "perceptual": 1.2, "style": 0.02, "variation": 0.3}
    for name, level in {"": 5.0, **parts}.items():
        for number, prefix in enumerate(("loss", "val_loss"), start=1):
            key = f"{prefix}_{name}" if name else prefix
            history[key] = level * (0.5 + np.exp(-epoch / 4)) * (1 + 0.02 * number)
    history["learning_rate"] = np.where(epoch < 9, 1e-4, 5e-5)
    write_table(folder / "history.csv", pd.DataFrame(history))
    sweep = pd.DataFrame({"epoch": [12], "statistic": "epoch", "field": "all", "value": [12.0]})
    write_table(folder / "sweep.csv", sweep.assign(picked=1))
    verdicts = [
        verdict("t_obs, holes: largest change of a pixel that was seen", 0.0, 0, "<="),
        verdict("t_obs, radius 10 px: rms error of the network over that", 1.08, 1.05, "<="),
    ]
    write_verdicts(folder / "verdicts.json", verdicts)
    card = {"network": "pconv_unet", "parameters": 7654321, "inputs": list(fields)}
    (folder / "card.json").write_text(json.dumps(card | {"outputs": list(fields)}))
    return folder


def _holes(case: str, pixels: int) -> np.ndarray:
    """Holes (3, y, x): a disc in the middle, or a bar and a disc in all patches but the first."""
    y, x = np.indices((pixels, pixels)) - (pixels - 1) / 2
    if case != "holes":
        disc = np.hypot(y, x) <= float(case.partition("_")[2])
        return np.broadcast_to(disc, (3, *disc.shape))
    one = (np.abs(y + x) < pixels / 10) | (np.hypot(y - pixels / 4, x + pixels / 4) < pixels / 6)
    return np.stack([np.zeros_like(one), one, one[::-1]])


def _hole_metrics(cases: dict[str, float], fields: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for field in fields:
        for case, area in cases.items():
            size = np.sqrt(area / max(cases.values()))
            for name, value in (("area", area), ("field_rms", 80.0)):
                rows.append((field, case, "truth", name, np.nan, value, 0.01 * value))
            for method, (error, lost, width) in FILLINGS.items():
                numbers = {
                    "error_rms_hole": error * size,
                    "error_ratio": error / 0.5,
                    "std_ratio": 1 - (1 - width) * size,
                    "seen_change_max": 0.0,
                }
                for name, value in numbers.items():
                    rows.append((field, case, method, name, np.nan, value, 0.02 * value))
                missing = lost * area / (1 + (800 / ELL) ** 2)
                rows += [
                    (field, case, method, "power_ratio", *point)
                    for point in zip(ELL, 1 - missing, np.full(ELL.size, 0.003), strict=True)
                ]
            if case != "holes":
                rows += [
                    (field, case, "masked", "power_ratio_namaster", *point)
                    for point in zip(ELL, 1 + 0.03 * np.sin(ELL), 0 * ELL + 0.03, strict=True)
                ]
    columns = ["field", "case", "method", "statistic", "ell", "value", "error"]
    found = pd.DataFrame(rows, columns=columns).assign(run="pconv", split="test", n=3)
    # The bias of a spectral index is of maps as a whole: of no field, and maybe of no case.
    index = {"method": "sampled", "statistic": "index_bias", "value": 1e-3, "error": 1e-3, "n": 3}
    return pd.concat([found, pd.DataFrame([index])], ignore_index=True)


def _hole_profiles(cases: dict[str, float], fields: tuple[str, ...]) -> pd.DataFrame:
    x = np.arange(-4.9, 5, 0.2)
    frames = []
    for field in fields:
        for case, area in cases.items():
            size = np.sqrt(area / max(cases.values()))
            for method, (_, lost, width) in {"truth": (0, 0, 1), **FILLINGS}.items():
                wide = 1 - (1 - width) * size
                density = np.exp(-((x / wide) ** 2) / 2) / wide / np.sqrt(2 * np.pi)
                distance = np.arange(1, 5)
                curves = {
                    "density": (x, density),
                    "edge_correlation": (distance, np.exp(-0.02 * distance**2) * (1 + 0.02 * lost)),
                    "v0": (x, density),
                }
                frames += [
                    pd.DataFrame({"x": place, "value": value, "error": 0.02 * value}).assign(
                        field=field, case=case, method=method, statistic=statistic
                    )
                    for statistic, (place, value) in curves.items()
                ]
    return pd.concat(frames, ignore_index=True).assign(run="pconv", split="test", n=3)


def write_scan(folder: Path) -> Path:
    """A scan's table: settings and scores, more runs than a figure's table shows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "run": f"lambda_{n}",
            "adversarial.fidelity": 10.0 * n,
            "e_sky correlation": 0.9 - 0.01 * n,
        }
        for n in range(1, 16)
    ]
    write_table(folder / "table.csv", pd.DataFrame(rows))
    return folder


def write_full_sky(
    folder: Path, polarized: bool = True, realizations: int = 2, nside: int = 32
) -> Path:
    """A full sky with small scales, the large ones, their tables, and a mask beside them."""
    rng = np.random.default_rng(4)
    folder.mkdir(parents=True, exist_ok=True)
    npix = 12 * nside**2
    lon, lat = np.radians(healpy.pix2ang(nside, np.arange(npix), lonlat=True))
    dust = 900 / (0.03 + np.abs(np.sin(lat))) * (1 + 0.3 * np.cos(2 * lon))
    large = [dust]
    if polarized:
        large += [0.05 * dust * np.cos(3 * lon), 0.05 * dust * np.sin(3 * lon)]
    small = [0.1 * np.abs(values) * rng.standard_normal(npix) for values in large]
    sky = [values + added for values, added in zip(large, small, strict=True)]
    for values in (*sky, *large):
        values[:220] = np.nan
    _healpix(folder / "sky_0.fits", sky)
    _healpix(folder / "large.fits", large)
    if realizations > 1:
        _healpix(folder / "spread.fits", [np.abs(values) for values in small])
    write_mask(folder / "mask.fits", np.abs(np.degrees(lat)) > 15)
    write_table(folder / "spectra.csv", _full_sky_spectra(polarized))
    if realizations > 1:
        write_table(folder / "realizations.csv", _full_sky_realizations(polarized))
    verdicts = [verdict("large scales are kept: correlation below ell 100", 0.999, 0.99, ">")]
    write_verdicts(folder / "verdicts.json", verdicts)
    return folder


def _healpix(path: Path, maps: list[np.ndarray]) -> None:
    """As healpy writes maps that have no data in places."""
    filled = [np.where(np.isfinite(values), values, healpy.UNSEEN) for values in maps]
    columns = ["TEMPERATURE", "Q_POLARISATION", "U_POLARISATION"][: len(maps)]
    units = ["uK_CMB"] * len(maps)
    healpy.write_map(
        path, filled, dtype=np.float32, column_names=columns, column_units=units, overwrite=True
    )


def _full_sky_spectra(polarized: bool) -> pd.DataFrame:
    ell = np.geomspace(12, 3000, 26)
    frames = []
    levels = {"tt": 2e4, **({"ee": 60.0, "bb": 32.0} if polarized else {})}
    for field, level in levels.items():
        full = level * (ell / 80) ** -2.5
        cut = np.exp(-((ell * np.radians(80 / 60)) ** 2) / 5.545)
        for method, cl in (("input", full * cut), ("network", 0.95 * full), ("map", full)):
            frame = {"field": field, "method": method, "ell": ell, "value": cl}
            frames.append(pd.DataFrame(frame | {"error": 0.1 * cl if method == "network" else 0.0}))
    if polarized:
        for method, value in (("input", 0.53), ("network", 0.6)):
            frame = {"ell": ell, "value": value + 0.02 * np.sin(ell), "error": 0.03}
            frames.append(pd.DataFrame(frame).assign(field="bb_over_ee", method=method))
    return pd.concat(frames).assign(run="forse", statistic="cl", n=1)


def _full_sky_realizations(polarized: bool) -> pd.DataFrame:
    ell = np.geomspace(12, 3000, 26)
    frames = []
    for number, field in enumerate(("tt", "ee", "bb")[: 3 if polarized else 1], start=1):
        given = 1 / (1 + (ell / 200) ** 3)
        scatter, copied = 0.03 * number * (1 - given), 0.1 * number * given
        for statistic, value in (("spread", scatter), ("cross", copied)):
            frame = {"field": field, "statistic": statistic, "ell": ell, "value": value}
            frames.append(pd.DataFrame(frame))
    return pd.concat(frames).assign(run="forse", n=2)


def draw_made_sky(folder: Path, out: Path) -> None:
    """Figures of what `write_full_sky` wrote."""
    draw_full_sky(folder, folder / "mask.fits", out)


def galaxies(seed: int, count: int, pixels: int, bands: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Round exponential profiles (count, pixels, pixels) of several sizes, by band."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((pixels, pixels)) - (pixels - 1) / 2
    radius = rng.uniform(1, pixels / 8, (count, 1, 1))
    image = np.exp(-np.hypot(x, y) / radius) / radius**2
    return {band: np.float32(10 * (number + 1) * image) for number, band in enumerate(bands)}


#: Statistics of shapes, and how far a network, other real images and Gaussian ones are away.
SHAPES = ("sersic_index", "ellipticity", "flux")
AWAY = {"network": 0.3, "real": 0.05, "gaussian_images": 1.2}


def write_images(folder: Path, pixels: int = 16, bands: tuple[str, ...] = ("image",)) -> Path:
    """A dataset of images of galaxies, 40 in two shards, of which 20 are the test set."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        _image_shard(folder / f"{number}.h5", galaxies(number, 20, pixels, bands), 20 * number)
    split = ["train", "test"] * 19 + ["validation", "test"]
    write_table(folder / "split.csv", pd.DataFrame({"realization": np.arange(40), "split": split}))
    stretch = {"kind": "asinh", "softening": 0.1, "top": 10.0}
    (folder / "stretch.json").write_text(json.dumps(stretch))
    return folder


def _image_shard(path: Path, images: dict[str, np.ndarray], first: int) -> None:
    count, pixels = next(iter(images.values())).shape[:2]
    write_shard(
        path,
        images,
        realizations=first + np.arange(count),
        size_deg=pixels * 0.1 / 3600,
        units=dict.fromkeys(images, "nJy"),
        provenance={"seed": 1},
    )


def write_generation(
    folder: Path,
    pixels: int = 16,
    bands: tuple[str, ...] = ("image",),
    features: bool = True,
    morphology: bool = True,
) -> Path:
    """A generation run, and beside it the dataset (`write_images`) that it learned from."""
    rng = np.random.default_rng(11)
    folder.mkdir(parents=True, exist_ok=True)
    write_images(folder / "dataset", pixels, bands)
    made = galaxies(9, 20, pixels, bands)
    _image_shard(folder / "samples.h5", made, 0)
    write_table(folder / "metrics.csv", _image_metrics(bands, features, morphology))
    wave = np.linspace(0.05, 0.45, 6)
    spread = {0.05: 0.1, 0.16: 0.4, 0.5: 1.0, 0.84: 2.5, 0.95: 8.0}
    levels = {"truth": 1.0, "network": 1.2, "real": 1.0, "gaussian_images": 0.8}
    spectra = [
        pd.DataFrame({"wave_number": wave, "power": level * factor * wave**-3.0}).assign(
            run="gan", method=method, field=band, quantile=quantile
        )
        for band in bands
        for method, level in levels.items()
        for quantile, factor in spread.items()
    ]
    write_table(folder / "spectra.csv", pd.concat(spectra, ignore_index=True))
    shapes = pd.DataFrame(columns=["run", "method", "field"])
    if morphology:
        tables = [
            pd.DataFrame({name: rng.normal(2 + away, 0.5, 50) for name in SHAPES}).assign(
                run="gan", method=method, field=band
            )
            for method, away in ({"truth": 0.0} | AWAY).items()
            for band in bands
        ]
        tables[0].loc[3, "ellipticity"] = np.nan
        shapes = pd.concat(tables, ignore_index=True)
    write_table(folder / "morphology.csv", shapes)
    epochs = np.array([10, 20, 30, 40, 50, 60, 70, 75])
    images = rng.normal(-0.5, 0.3, (len(epochs), 16, pixels, pixels, len(bands)))
    np.savez(folder / "grids.npz", epochs=epochs, images=np.float32(images))
    epoch = np.arange(1, 76)
    history = {"epoch": epoch, "loss": 0.9 + 0.2 * np.sin(epoch), "val_loss": 1 + 0 * epoch}
    parts = {"generator": 0.9, "discriminator": 1.1, "right_on_real": 0.7, "right_on_made": 0.8}
    for name, level in parts.items():
        history |= {f"loss_{name}": level + 0 * epoch, f"val_loss_{name}": 0.9 * level + 0 * epoch}
    history |= {"loss_r1": 1 / epoch, "loss_path_length": 2 / epoch}
    write_table(folder / "history.csv", pd.DataFrame(history))
    sweep = pd.DataFrame({"epoch": [75], "statistic": "epoch", "field": "all", "value": [75.0]})
    write_table(folder / "sweep.csv", sweep.assign(picked=1))
    verdicts = [verdict("image: mean Wasserstein distance, below the published", 0.31, 0.07, "<")]
    write_verdicts(folder / "verdicts.json", verdicts)
    card = {"network": "generator", "parameters": 25123456, "inputs": [], "outputs": list(bands)}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def _image_metrics(bands: tuple[str, ...], features: bool, morphology: bool) -> pd.DataFrame:
    rows = []
    for method, away in AWAY.items():
        if features:
            numbers = {"fid": 20 * away, "kid": 0.01 * away}
            numbers |= {"precision": 1 - away / 2, "recall": 0.9 - away / 2}
            rows += [
                ("all", method, name, np.nan, value, 2e-4 if name == "kid" else np.nan)
                for name, value in numbers.items()
            ]
        for band in bands:
            rows += [
                (band, method, "distance_power", ell, away, 0.02)
                for ell in np.linspace(0.05, 0.45, 6)
            ]
            for name in SHAPES if morphology else ():
                rows.append((band, method, f"distance_{name}", np.nan, 2 * away, 0.04))
                rows.append((band, method, f"floor_{name}", np.nan, 0.05, np.nan))
            rows.append((band, method, "mean_distance", np.nan, 1.5 * away, 0.03))
        if method != "real":
            rows.append(("all", method, "copies", np.nan, 0.02, 0.01))
    columns = ["field", "method", "statistic", "ell", "value", "error"]
    return pd.DataFrame(rows, columns=columns).assign(run="gan", split="test", n=50)


def draw_galaxies(folder: Path, out: Path) -> None:
    """Figures of what `write_generation` wrote."""
    dataset = folder / "dataset"
    draw_generation(
        folder,
        out,
        shards=[dataset / "0.h5", dataset / "1.h5"],
        split=dataset / "split.csv",
        stretch=dataset / "stretch.json",
    )


#: Conditions of the test, and what they multiply errors by.
CASES = {"none": 1.0, "resolution": 4.0, "noise": 6.0, "both": 10.0}


def write_denoising(folder: Path, pixels: int = 16, bands: tuple[str, ...] = ("image",)) -> Path:
    """A denoising run, and the stretch of its dataset."""
    rng = np.random.default_rng(12)
    write_images(folder / "dataset", pixels, bands)
    errors = {"network": 0.01, "wiener": 0.02, "seen": 0.08}
    rows = []
    with h5py.File(folder / "restored.h5", "w") as file:
        for case, factor in CASES.items():
            side = pixels // 2 if case in ("resolution", "both") else pixels
            for band, truth in galaxies(3, 6, side, bands).items():
                file[f"{case}/truth/{band}"] = truth
                for method, error in errors.items():
                    noise = factor * error * rng.standard_normal(truth.shape)
                    file[f"{case}/{method}/{band}"] = np.float32(truth + noise)
                    mse = factor * error
                    rows.append((band, method, "mse", mse, 0.1 * mse, case))
                    rows.append((band, method, "flux_error", 0.05, 0.01, case))
                    rows.append((band, method, "flux_bias", -0.02 * factor, 0.003, case))
    columns = ["field", "method", "statistic", "value", "error", "case"]
    metrics = pd.DataFrame(rows, columns=columns)
    metrics = metrics.assign(run="mixed", split="test", ell=np.nan, n=20)
    write_table(folder / "metrics.csv", metrics)
    epoch = np.arange(1, 13)
    history = {"epoch": epoch, "learning_rate": 5e-4 + 0 * epoch}
    for number, name in enumerate(("loss", "val_loss"), start=1):
        history |= {name: number / epoch, f"{name}_image": number / epoch}
    write_table(folder / "history.csv", pd.DataFrame(history))
    sweep = pd.DataFrame({"epoch": [12], "statistic": "val_loss", "field": "all", "value": [0.1]})
    write_table(folder / "sweep.csv", sweep.assign(picked=1))
    check = "image, more noise: mean squared error, below the Wiener filter's"
    write_verdicts(folder / "verdicts.json", [verdict(check, 0.06, 0.12, "<")])
    card = {"network": "residual_denoiser", "parameters": 456789, "inputs": list(bands)}
    (folder / "card.json").write_text(json.dumps(card | {"outputs": list(bands)}))
    return folder


def draw_restored(folder: Path, out: Path) -> None:
    """Figures of what `write_denoising` wrote."""
    draw_denoising(folder, out, stretch=folder / "dataset" / "stretch.json")


def write_alphas(folder: Path, bands: tuple[str, ...] = ("image",), networks: int = 3) -> Path:
    """What `tasks.alphas` leaves: generated images help, but not as the networks were trained."""
    folder.mkdir(parents=True, exist_ok=True)
    error = np.nan if networks == 1 else 0.01
    rows = [
        {
            "field": band,
            "case": case,
            "alpha": alpha,
            "networks": networks,
            "mse": 0.01 * factor * (1 - gain * alpha),
            "error": error,
            "gain": gain * alpha,
            "gain_error": error if alpha else 0.0,
        }
        for band in bands
        for (case, factor), gain in zip(CASES.items(), (-0.2, 0.1, 0.3, 0.4), strict=True)
        for alpha in (0.0, 0.25, 0.5)
    ]
    write_table(folder / "table.csv", pd.DataFrame(rows))
    check = "image, more noise: error lower with generated images, share (alpha 0.5)"
    write_verdicts(folder / "verdicts.json", [verdict(check, 0.15, 0.02, ">")])
    return folder


_DRAWN: dict[str, Path] = {}


_KINDS = {
    "run": (write_run, draw_reconstruction),
    "decomposition": (write_decomposition, draw_decomposition),
    "inpainting": (write_inpainting, draw_inpainting),
    "foregrounds": (write_foregrounds, draw_foregrounds),
    "full_sky": (write_full_sky, draw_made_sky),
    "sky": (write_sky, draw_sky),
    "cmb": (write_cmb, draw_cmb),
}
#: Kinds of images of galaxies, which have a page of their own in the tests.
_OF_GALAXIES = {
    "generation": (write_generation, draw_galaxies),
    "denoising": (write_denoising, draw_restored),
    "alphas": (write_alphas, draw_alphas),
}


def drawn(factory: pytest.TempPathFactory, *kinds: str) -> dict[str, Path]:
    """A folder of each of `_KINDS`, or of some kinds, with its figures, drawn once a test run."""
    for kind in kinds or _KINDS:
        if kind not in _DRAWN:
            write, draw = (_KINDS | _OF_GALAXIES)[kind]
            folder = write(factory.mktemp("drawn") / kind)
            draw(folder, folder / "figures")
            _DRAWN[kind] = folder
    return _DRAWN


SETTINGS = {
    "seed": 2026,
    "datasets": {
        "cmb": {
            "kind": "cmb",
            "realizations": 100,
            "grid": {"size_deg": 5.0, "pixels": 64},
            "effects": {"null_fraction": 0.2},
            "channels": {"obs": {"noise_uk_arcmin": 0.0, "beam_arcmin": 0.0}},
        },
        "dust": {
            "kind": "sky",
            "map": {"source": "sfd98", "nside": 32},
            "patches": {"count": 8, "size_deg": 20.0, "pixels": 48},
        },
        "sersic": {
            "kind": "sersic",
            "pixels": 16,
            "pixel_arcsec": 0.1,
            "psf": None,
            "noise": 0.0,
        },
        "stamps": {
            "kind": "images",
            "source": "files",
            "path": "stamps/gri.h5",
            "bands": ["g", "r", "i"],
            "unit": "nJy",
            "pixels": 16,
            "pixel_arcsec": 0.03,
            "resize": "scale",
            "psf": {"kind": "moffat", "fwhm_arcsec": 0.7, "beta": 2.5},
            "noise": 0.02,
        },
    },
    "runs": {
        "resunet": {
            "task": "reconstruction",
            "dataset": "cmb",
            "inputs": ["q_obs", "u_obs"],
            "targets": ["tau", "e_prim", "kappa"],
            "network": {"name": "resunet_cmb", "width": 0.25},
            "training": {"epochs": 20, "batch": 32},
        },
        "plain": {
            "task": "decomposition",
            "dataset": "cmb",
            "method": "plain",
        },
        "repaired": {
            "task": "decomposition",
            "dataset": "cmb",
            "method": "adversarial",
            "inputs": ["q_obs", "u_obs"],
            "targets": ["e_sky", "kappa", "b_sky"],
            "network": {"name": "astroencoder"},
            "training": {"epochs": 40, "batch": 16},
            "beside": ["plain"],
        },
        "pconv": {
            "task": "inpainting",
            "dataset": "cmb",
            "fields": ["t_obs"],
            "network": {"name": "pconv_unet"},
            "training": {"epochs": 12, "batch": 16},
        },
        "forse": {
            "task": "foregrounds",
            "dataset": "dust",
            "network": {"name": "forse"},
            "training": {"epochs": 40, "batch": 16},
        },
        "gan": {
            "task": "generation",
            "dataset": "sersic",
            "fields": ["image"],
            "network": {"name": "stylegan2"},
            "training": {"epochs": 75, "batch": 16},
        },
        "mixed": {
            "task": "denoising",
            "dataset": "sersic",
            "fields": ["image"],
            "generated": "gan",
            "alpha": 0.5,
            "network": {"name": "residual_denoiser"},
            "training": {"epochs": 100, "batch": 16},
        },
    },
}
