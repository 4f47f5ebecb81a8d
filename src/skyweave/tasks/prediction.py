"""A trained network on a user's own maps: read, checked, tapered, predicted, written."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skyweave.config import ESTIMATES
from skyweave.data.user_maps import UserMaps, in_unit, is_fits, is_healpix, read_maps
from skyweave.data.user_predictions import FLAT, write_flat, write_sky
from skyweave.errors import UserError
from skyweave.files import sha256, versions
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb
from skyweave.flat.taper import cosine_taper

if TYPE_CHECKING:
    from skyweave.networks.card import Card, TrainedNetwork

#: How far the rms of an input may be from the training set's, as a factor.
MOST_RMS = 3.0
#: How far a pixel's side may be from the network's, relative to it.
_PIXEL = 1e-3
#: Rms at the edge over that of the whole map: of maps with a taper less, of others more.
_TAPERED, _BARE = 0.1, 1e-3


def predict_maps(
    model: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    tapered: bool = False,
    unit: str | None = None,
    convention: str | None = None,
    pixel_arcmin: float | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    command: str = "",
) -> None:
    """Write what a trained network makes of the maps of a file.

    `model` is the folder of `network.keras` and `card.json`, or one of them; `source` a file of
    `data.user_maps.read_maps` or a HEALPix map of Q and U; `out` one of `data.user_predictions`.
    The maps get the taper that the training set had, unless they carry it (`tapered`, or the file
    says so). A flat map larger than the network's is cut in tiles, as a HEALPix map is. `unit`,
    `convention` and `pixel_arcmin` stand above what the file says.

    Raises `UserError` for maps that the network was not made for: other pixels, too few of them, a
    unit that is no temperature, another rms, another taper, values that are not finite, inputs that
    are missing; and for an `out` that is there, without `overwrite`.
    """
    folder, out = model_folder(model), Path(out)
    if not Path(source).is_file():
        raise UserError(source, "a file of maps", "none")
    if out.exists() and not overwrite:
        raise UserError(out, "a new file, or `--overwrite`", "one that is there")
    if out.is_dir():
        raise UserError(out, "a file to write", "a folder")
    if out.parent.exists() and not (out.parent.is_dir() and os.access(out.parent, os.W_OK)):
        raise UserError(out.parent, "a folder to write to", "another thing, or none of one's own")
    sky = is_fits(source) and is_healpix(source)
    kinds = (".fits",) if sky else FLAT
    if out.suffix not in kinds:
        raise UserError(out, f"a name that ends in {', '.join(kinds)}", out.suffix or "none")
    from skyweave.networks.card import load_network

    if threads is not None:
        from skyweave.training.runtime import prepare

        prepare(0, threads)
    network = load_network(folder)
    card = network.card
    if card.settings.get("task") == "inpainting":
        what = "a network that predicts (`skyweave inpaint` fills holes)"
        raise UserError(folder / "card.json", what, "one of an inpainting run")
    if "stretch" in card.data:
        what = "a network that predicts fields of the sky"
        raise UserError(folder / "card.json", what, f"one of a {card.settings['task']} run")
    taper_deg = _card_taper(folder, card)
    units = {**card.units, **{f"{name}_sigma": card.units[name] for name in card.outputs}}
    provenance = {
        "network": str(model),
        "network_sha256": sha256(folder / "network.keras"),
        "input": str(source),
        "input_sha256": sha256(source),
        "dataset": card.data.get("dataset", ""),
        "command": command,
        "versions": versions("keras", "tensorflow", "tensorflow-cpu", "jax", "numpy"),
    }
    if sky:
        from skyweave.tasks.sky_prediction import predict_sky

        if tapered:
            raise UserError(source, "a HEALPix map without `--tapered`: tiles get it", "it")
        found = predict_sky(network, source, taper_deg, unit, convention, threads)
        write_sky(out, found, units=units, provenance=provenance)
        return
    user = read_maps(source, _wanted(card), convention)
    maps = _checked_maps(source, card, user, unit, pixel_arcmin)
    apply_taper = _lacks_taper(source, user.taper_deg, tapered, taper_deg)
    found = _predict_flat(network, source, maps, taper_deg, apply_taper)
    write_flat(
        out,
        found,
        source=user,
        units=units,
        pixel_arcmin=_grid(card).pixel_arcmin,
        taper_deg=taper_deg,
        provenance=provenance,
    )


def model_folder(model: str | Path) -> Path:
    """Folder of a trained network that is given by itself or by one of its two files."""
    path = Path(model)
    if path.name in ("network.keras", "card.json"):
        path = path.parent
    if not path.is_dir():
        raise UserError(model, "the folder of a trained network", "none")
    return path


def checked_inputs(
    network: "TrainedNetwork", source: str | Path, maps: Mapping[str, np.ndarray], taper_deg: float
) -> dict[str, np.ndarray]:
    """The network's inputs (n, y, x) of tapered maps, of an rms that it has seen."""
    card = network.card
    inputs = _completed(card, maps, source)
    for name in card.inputs:
        expected, found = card.normalization.moments[name][1], float(np.std(inputs[name]))
        if not expected / MOST_RMS <= found <= expected * MOST_RMS:
            unit = card.units[name] and f" {card.units[name]}"
            raise UserError(
                f"{source}, {name}",
                f"an rms within a factor {MOST_RMS:g} of {expected:.3g}{unit}, the training set's "
                f"with its taper of {taper_deg:g} deg",
                f"{found:.3g}{unit}",
            )
    return inputs


def _completed(
    card: "Card", maps: Mapping[str, np.ndarray], source: str | Path
) -> dict[str, np.ndarray]:
    """The tapered maps with the inputs that are made of others: E and B of Q and U, estimates."""
    complete = dict(maps)
    if set(card.inputs) & set(ESTIMATES) - set(maps):
        complete = {**_estimated(card, maps, source), **complete}
    for name in card.inputs:
        kind, _, channel = name.partition("_")
        q, u = (maps.get(f"{stokes}_{channel}") for stokes in "qu")
        if kind in ("e", "b") and q is not None and u is not None:
            both = qu_to_eb(q, u, _grid(card))
            complete[name] = np.asarray(both["eb".index(kind)], np.float32)
        if name not in complete:
            known = ", ".join(maps) or "none"
            raise UserError(source, f"the network's input {name!r}", known)
    return {name: complete[name] for name in card.inputs}


def _estimated(
    card: "Card", maps: Mapping[str, np.ndarray], source: str | Path
) -> dict[str, np.ndarray]:
    """The estimates that the network starts from, made as those of its training set were."""
    from skyweave.tasks.estimates import complete

    values = card.data.get("estimates")
    if values is None:
        return {}
    try:
        return complete(values, maps)
    except UserError as error:
        raise UserError(source, error.expected, error.found) from None


def _wanted(card: "Card") -> tuple[str, ...]:
    """What to look for in a file: the inputs, but Q and U in place of what is made of them."""
    names: dict[str, None] = {}
    for name in card.inputs:
        kind, _, channel = name.partition("_")
        made = kind in ("e", "b") and channel != "prim"
        if name in ESTIMATES and "estimates" in card.data:
            made, channel = True, card.data["estimates"]["channel"]
        names |= dict.fromkeys((f"q_{channel}", f"u_{channel}") if made else (name,))
    return tuple(names)


def _grid(card: "Card") -> PatchGrid:
    return PatchGrid(card.size_deg, card.pixels)


def _card_taper(folder: Path, card: "Card") -> float:
    """Width of the taper, degrees, that the maps of the training set carried."""
    entry: Any = card.data
    for key in ("provenance", "settings", "effects", "taper_deg"):
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    if entry is None:
        expected = "a network of a reconstruction run, whose card says the maps' taper"
        raise UserError(folder / "card.json", expected, "another")
    return float(entry)


def _checked_maps(
    source: str | Path,
    card: "Card",
    user: UserMaps,
    unit: str | None,
    pixel_arcmin: float | None,
) -> dict[str, np.ndarray]:
    """The maps in the network's units, of pixels and sizes that it can take."""
    wanted, given = _grid(card).pixel_arcmin, pixel_arcmin or user.pixel_arcmin
    if given is not None and abs(given / wanted - 1) > _PIXEL:
        raise UserError(source, f"pixels of {wanted:.5g} arcmin, as the network's", f"{given:.5g}")
    maps: dict[str, np.ndarray] = {}
    for name, values in user.maps.items():
        own, target = user.units.get(name), card.units.get(name, "uK_CMB")
        said = unit if unit and target == "uK_CMB" else own
        maps[name] = in_unit(values, said, target, f"{source}, {name}")
        if not np.isfinite(maps[name]).all():
            raise UserError(f"{source}, {name}", "finite values", "some that are not")
        first = next(iter(maps.values())).shape
        if maps[name].shape != first:
            raise UserError(f"{source}, {name}", f"maps of shape {first}", maps[name].shape)
        if min(first[1:]) < card.pixels:
            expected = f"maps of at least {card.pixels} x {card.pixels} pixels, the network's"
            raise UserError(source, expected, " x ".join(map(str, first[1:])))
    return maps


def _lacks_taper(source: str | Path, own: float | None, tapered: bool, taper_deg: float) -> bool:
    """Whether the maps are to be tapered here; `own` is the taper that the file says they have."""
    if own and not np.isclose(own, taper_deg, rtol=1e-6):
        expected = f"maps without a taper, or with the network's of {taper_deg:g} deg"
        raise UserError(source, expected, f"{own:g} deg")
    return not tapered and not own


def _predict_flat(
    network: "TrainedNetwork",
    source: str | Path,
    maps: Mapping[str, np.ndarray],
    taper_deg: float,
    apply_taper: bool,
) -> dict[str, np.ndarray]:
    """Outputs (n, y, x) of maps (n, y, x); larger ones than the network's by tiles."""
    from skyweave.networks.card import predict

    card = network.card
    side, grid = card.pixels, _grid(card)
    shape = next(iter(maps.values())).shape[1:]
    larger = shape != (side, side)
    if larger and taper_deg and not apply_taper:
        expected = f"maps of {side} x {side} pixels, or larger ones without a taper"
        raise UserError(source, expected, f"{shape[0]} x {shape[1]} pixels with one")
    _check_edges(source, maps, apply_taper, cosine_taper(grid, taper_deg))
    corners = [(y, x) for y in _starts(shape[0], side) for x in _starts(shape[1], side)]
    tiles = {
        name: np.stack([values[:, y : y + side, x : x + side] for y, x in corners], axis=1)
        for name, values in maps.items()
    }
    taper = cosine_taper(grid, taper_deg).astype(np.float32)
    flat = {
        name: values.reshape(-1, side, side) * (taper if apply_taper else np.float32(1))
        for name, values in tiles.items()
    }
    found = predict(network, checked_inputs(network, source, flat, taper_deg))
    if not larger:
        return found
    whole = np.outer(*(_profile(n, grid, taper_deg) for n in shape))
    return {
        name: _joined(values.reshape(-1, len(corners), side, side), corners, taper, whole)
        for name, values in found.items()
    }


def _check_edges(
    source: str | Path, maps: Mapping[str, np.ndarray], apply_taper: bool, taper: np.ndarray
) -> None:
    """Refuse bare maps that are said to be tapered, and tapered ones that are not."""
    if taper[0, 0] == 1:
        return
    edge = np.ones(next(iter(maps.values())).shape[1:], bool)
    edge[1:-1, 1:-1] = False
    for name, values in maps.items():
        if name[0] not in "tqu" or name[1] != "_":
            continue
        ratio = np.sqrt(np.mean(values[:, edge] ** 2) / max(np.mean(values**2), 1e-300))
        if apply_taper and ratio < _BARE:
            raise UserError(
                f"{source}, {name}", "maps without a taper, or `--tapered`", "zero at its edges"
            )
        if not apply_taper and ratio > _TAPERED:
            raise UserError(
                f"{source}, {name}",
                "maps that the network's taper brings to zero at their edges",
                f"{ratio:.2g} of the map's rms there",
            )


def _starts(pixels: int, side: int) -> np.ndarray:
    """First pixels of tiles that cover an axis, half a tile apart or a little less."""
    count = 1 + -(-(pixels - side) // (side // 2))
    return np.round(np.linspace(0, pixels - side, count)).astype(int)


def _profile(pixels: int, grid: PatchGrid, taper_deg: float) -> np.ndarray:
    """The taper (pixels,) along one side of a larger map of the same pixels."""
    larger = PatchGrid(pixels * grid.size_deg / grid.pixels, pixels)
    return np.sqrt(np.diagonal(cosine_taper(larger, taper_deg)))


def _joined(
    tiles: np.ndarray, corners: list[tuple[int, int]], taper: np.ndarray, whole: np.ndarray
) -> np.ndarray:
    """Maps (n, y, x) of tiles (n, tile, y, x): Σ w s / Σ w² with the taper w, tapered as a whole.

    A network's output s is w times the field; that is the least-squares field, which is given the
    taper of the larger map.
    """
    side = tiles.shape[-1]
    total, weight = np.zeros((len(tiles), *whole.shape)), np.zeros(whole.shape)
    for tile, (y, x) in enumerate(corners):
        part = np.s_[..., y : y + side, x : x + side]
        total[part] += taper * tiles[:, tile]
        weight[part] += taper.astype(float) ** 2
    share = np.divide(whole, weight, where=weight > 0, out=np.zeros_like(whole))
    return (total * share).astype(np.float32)
