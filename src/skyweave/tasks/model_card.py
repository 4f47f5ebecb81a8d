"""What a trained network takes and gives, in a dozen lines."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skyweave.data.split import SPLITS
from skyweave.errors import UserError
from skyweave.statistics.restoration import case_words
from skyweave.statistics.tables import read_table
from skyweave.tasks.prediction import model_folder


def describe(model: str | Path) -> str:
    """Lines for people about a trained network, from its card and what lies beside it.

    Raises `UserError` where there is no card or a broken one.
    """
    path = model_folder(model) / "card.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        lines = list(_lines(card, path.parent))
    except FileNotFoundError:
        raise UserError(path, "the card of a trained network", "no file") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(path, "the card of a trained network", f"another ({error!r})") from None
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _lines(card: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    grid, data = card["grid"], card["data"]
    settings = data.get("provenance", {}).get("settings", {})
    effects = settings.get("effects", {})
    yield "network", f"{card['network']}, {card['parameters']} parameters"
    parts = data.get("realizations", {})
    counts = ", ".join(f"{parts[name]} {name}" for name in SPLITS if name in parts)
    yield "trained on", f"{data.get('dataset', 'an unnamed dataset')}: {counts or 'no counts'}"
    holes = data.get("hole_limit")
    starts = {"seen", *(f"start_{name}" for name in card["outputs"])} if holes else set()
    side, pixels = grid["size_deg"], grid["pixels"]
    if "stretch" in data:
        yield from _images(card, pixels, 3600 * side / pixels)
    else:
        yield "takes", _fields(card, [name for name in card["inputs"] if name not in starts])
        yield "gives", _fields(card, card["outputs"])
        each = f"{60 * side / pixels:.5g} arcmin"
        yield "patch", f"{side:g} deg, {pixels} x {pixels} pixels of {each}"
    if holes:
        largest = f"{holes['radius_deg']:.3g} deg in radius, {100 * holes['area']:.3g} % of a patch"
        alone = ", alone in its middle" if holes.get("centred") else ""
        yield "fills", f"holes of up to {largest}{alone}"
    if "taper_deg" in effects:
        yield "taper", f"cosine over {effects['taper_deg']:g} deg at each edge, on all maps"
    if any(name[:2] in ("q_", "u_") for name in (*card["inputs"], *card["outputs"])):
        yield "Q and U", "angles from +x (along a row) towards +y (the next row)"
    for name, channel in settings.get("channels", {}).items():
        yield f"channel {name}", _channel(channel)
    acting = [name for name in ("lensing", "reionization") if effects.get(name)]
    if effects.get("rotation_deg") or effects.get("rotation_amplitude"):
        acting.append("rotation")
    if acting:
        share = 100 * effects.get("null_fraction", 0)
        yield "sky", f"{', '.join(acting)}; {share:g} % of the realizations without"
    yield "scores", _scores(card, folder)
    yield "made by", ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    yield "sha256", card["sha256"]


def _images(card: Mapping[str, Any], pixels: int, pixel_arcsec: float) -> Iterator[tuple[str, str]]:
    """What a network of images takes and gives: stretched fluxes."""
    bands, stretch = card["outputs"], card["data"]["stretch"]
    takes = f"{card['latent']} random numbers" if "latent" in card else ", ".join(card["inputs"])
    yield "takes", takes
    units = sorted({card["units"][name] for name in bands} - {""})
    yield "gives", ", ".join(bands)
    yield "image", f"{pixels} x {pixels} pixels of {pixel_arcsec:.5g} arcsec"
    unit = f" {units[0]}" if units else ""
    bend = "" if stretch["softening"] is None else f", asinh from {stretch['softening']:.4g}{unit}"
    yield "stretch", f"flux 0 is -1, {stretch['top']:.4g}{unit} a pixel is 1{bend}"


def _fields(card: Mapping[str, Any], names: list[str]) -> str:
    """Fields with their units and their rms over the training set."""
    words = []
    for name in names:
        rms, unit = card["normalization"][name]["std"], card["units"][name]
        words.append(f"{name} (rms {rms:.3g}{unit and f' {unit}'})")
    return ", ".join(words)


def _channel(channel: Mapping[str, Any]) -> str:
    beam = f"beam {channel.get('beam_arcmin', 0):g} arcmin"
    if channel.get("beam_path"):
        beam = f"beam of {channel['beam_path']}"
    if channel.get("beam_hfi_ghz"):
        beam = f"beam of Planck HFI at {channel['beam_hfi_ghz']} GHz"
    noise = channel.get("noise_uk_arcmin", 0)
    words = [beam, f"white noise {noise:g} uK-arcmin in T, {2**0.5 * noise:.3g} in Q and U"]
    if channel.get("knee_ell_pol"):
        words.append(f"knee of Q and U at ell {channel['knee_ell_pol']:g}")
    if channel.get("hits_path"):
        words.append(f"uneven, by the hits of {channel['hits_path']}")
    if channel.get("foreground_dl_80"):
        words.append(f"foregrounds of D_80 {channel['foreground_dl_80']:g} uK2 in E and B")
    return ", ".join(words)


def _scores(card: Mapping[str, Any], folder: Path) -> str:
    """Pixel correlations of the test set where they lie beside the network, else its losses.

    Of one that fills holes, the errors in those of its own kind over the Gaussian optimum's.
    """
    table = folder / "metrics.csv"
    if table.is_file():
        rows = read_table(table)
        if "stretch" in card["data"]:
            return _image_scores(rows)
        fills = "case" in rows
        statistic = "error_ratio" if fills else "pixel_correlation"
        rows = rows[(rows.statistic == statistic) & (rows.method == "network")]
        rows = rows[rows.case == "holes"] if fills else rows
        rows = rows[rows.split == "test"] if "split" in rows else rows
        words = [f"{row.field} {row.value:.3f}" for row in rows.itertuples()]
        if words:
            what = "error in holes over the optimum's" if fills else "pixel correlation"
            return f"{what} on the test set: {', '.join(words)}"
    metrics = card["metrics"]
    words = [f"{name} {metrics[name]:.4g}" for name in ("epoch", "val_loss") if name in metrics]
    return ", ".join(words) or "none kept"


def _image_scores(rows: Any) -> str:
    """Mean distances of generated images from real ones, or errors of restored ones."""
    rows = rows[rows.method == "network"]
    if "case" in rows:
        rows = rows[rows.statistic == "mse"]
        words = [
            f"{row.field}, {case_words(str(row.case))} {row.value:.3g}" for row in rows.itertuples()
        ]
        return f"mean squared error of stretched pixels on the test set: {'; '.join(words)}"
    rows = rows[rows.statistic == "mean_distance"]
    words = [f"{row.field} {row.value:.3g}" for row in rows.itertuples()]
    return f"mean Wasserstein distance from the test set: {', '.join(words)}"
