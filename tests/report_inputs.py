"""Small, valid inputs of the report: what the workflow's scripts leave in a folder."""

import json
from pathlib import Path

import h5py
import healpy
import numpy as np
import pandas as pd
import pytest

from skyweave.report.figures import draw_reconstruction, draw_sky, draw_spectra
from skyweave.sky.skymap import SkyMap, write_mask
from skyweave.statistics.tables import write_table
from skyweave.statistics.verdicts import verdict, write_verdicts

ELL = np.array([108, 216, 360, 540, 800, 1200, 1800, 2700], float)
TARGETS = {"tau": 0.35, "e_prim": 0.99, "kappa": 0.92}
UNITS = {"tau": "", "kappa": "", "e_prim": "uK_CMB", "q_obs": "uK_CMB", "u_obs": "uK_CMB"}
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
                _field(file, f"baseline/{field}", truth + 0.3 * other)
    write_table(folder / "metrics.csv", _metrics(targets))
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
        methods = {"network": r, **({"analytic_eb": 0.93 * r} if field == "e_prim" else {})}
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
            rows.append((field, method, "pixel_correlation", np.nan, level, 0.01))
            for statistic, (value, error) in curves.items():
                both = np.broadcast_arrays(ELL, value, error)
                rows += [(field, method, statistic, *point) for point in zip(*both, strict=True)]
    columns = ["field", "method", "statistic", "ell", "value", "error"]
    return pd.DataFrame(rows, columns=columns).assign(run="run", split="test", n=30)


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


_DRAWN: dict[str, Path] = {}


def drawn(factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind (run, sky, cmb) with its figures, drawn once a test run."""
    if not _DRAWN:
        for kind, (write, draw) in {
            "run": (write_run, draw_reconstruction),
            "sky": (write_sky, draw_sky),
            "cmb": (write_cmb, draw_cmb),
        }.items():
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
    },
    "runs": {
        "resunet": {
            "task": "reconstruction",
            "dataset": "cmb",
            "inputs": ["q_obs", "u_obs"],
            "targets": ["tau", "e_prim", "kappa"],
            "network": {"name": "resunet_cmb", "width": 0.25},
            "training": {"epochs": 20, "batch": 32},
        }
    },
}
