"""Classical estimates of a simulated dataset: their calibration, and shards of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skyweave.config import Channel, Effects, Estimates, Grid
from skyweave.data.shards import ShardSet, stream_shard
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.observed import Observed
from skyweave.estimators.patch import PatchEstimator
from skyweave.files import sha256, write_text
from skyweave.simulation.effects import rotation_cl
from skyweave.simulation.foregrounds import foreground_cl
from skyweave.simulation.instrument import beam_window
from skyweave.simulation.noise import noise_cl
from skyweave.simulation.patch import unit
from skyweave.simulation.spectra import SpectraTable
from skyweave.simulation.theory import lensed, modulated_bb

#: From one multipole at which spectra are kept to the next: their waves are far longer.
_STEP = 8

_EB = ("ee", "bb")

#: The same where B that screen and rotation make is computed.
_COARSE = 100

#: Estimates are made of so many realizations at a time.
_CHUNK = 64


def calibrate(
    path: str | Path,
    *,
    settings: Estimates,
    channel: str,
    shards: Sequence[str | Path],
    split: str | Path,
    spectra: Sequence[str | Path],
    hfi: str | Path | None = None,
) -> None:
    """Calibrate the estimates from a channel on the training set, and write what they need.

    `spectra` are the tables of the dataset; where there are several the estimates know their mean.
    Realizations in which nothing acts (`null`) are left out. `hfi` is the instrument model that
    beams of Planck HFI are read from. Raises `UserError` where too few realizations are left.
    """
    maps = ShardSet(shards)
    train = members(read_split(split), "train")
    null = dict(zip(maps.realizations, maps.labels.get("null", ()), strict=False))
    numbers = [number for number in train if not null.get(number, 0)][: settings.calibration]
    if len(numbers) < 8:
        raise UserError(
            "estimates.calibration", "8 realizations that are not null to train on", len(numbers)
        )
    observed = _observed(maps, channel, spectra, hfi)
    names = {"q": f"q_{channel}", "u": f"u_{channel}", "e_prim": "e_prim"}
    names |= {name: name for name in ("kappa", "tau", "alpha") if name in maps.fields}
    patches = {name: maps.read(field, numbers) for name, field in names.items()}
    estimator = PatchEstimator.fit(observed, patches, settings)
    values = estimator.to_dict() | {"channel": channel, "realizations": len(numbers)}
    write_text(path, json.dumps(values) + "\n")


def estimate(
    path: str | Path,
    *,
    calibration: str | Path,
    shards: Sequence[str | Path],
    split: str | Path,
    part: str,
) -> None:
    """Write a shard of the estimates of those realizations of some shards that are in a part."""
    maps = ShardSet(shards)
    values = json.loads(Path(calibration).read_text(encoding="utf-8"))
    estimator, channel = PatchEstimator.from_dict(values), values["channel"]
    numbers = np.intersect1d(members(read_split(split), part), maps.realizations)

    def patches():
        for start in range(0, len(numbers), _CHUNK):
            some = numbers[start : start + _CHUNK]
            found = estimator(*(maps.read(f"{s}_{channel}", some) for s in "qu"))
            for index in range(len(some)):
                yield {name: stack[index] for name, stack in found.items()}

    stream_shard(
        path,
        patches(),
        fields=estimator.fields,
        realizations=numbers,
        pixels=maps.pixels,
        size_deg=maps.size_deg,
        units={name: unit(name.partition("_")[0]) for name in estimator.fields},
        provenance=maps.provenance | {"estimates": sha256(calibration)},
    )


def complete(estimates: Mapping[str, Any], maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Maps (n, y, x) of observed fields with the estimates that a network's card keeps.

    Raises `UserError` where the channel that they are made from is missing.
    """
    channel = estimates["channel"]
    for field in (f"q_{channel}", f"u_{channel}"):
        if field not in maps:
            raise UserError("maps", f"the network's input {field!r}", ", ".join(maps) or "none")
    estimator = PatchEstimator.from_dict(estimates)
    return {**maps, **estimator(maps[f"q_{channel}"], maps[f"u_{channel}"])}


def _observed(
    maps: ShardSet, name: str, spectra: Sequence[str | Path], hfi: str | Path | None
) -> Observed:
    """What a dataset's settings and spectra say of the patches of a channel."""
    settings = maps.provenance["settings"]
    grid, effects = Grid(**settings["grid"]), Effects(**settings["effects"])
    channel = Channel(**settings["channels"][name])
    tables = [SpectraTable.read(table) for table in spectra]
    ell = np.arange(0, tables[0].lmax + 1, _STEP)
    cl = {
        key: np.mean([table.cl[key] for table in tables], axis=0)
        for key in ("tt", "ee", "bb", "te", "kk", "tautau")
    }
    cl["alphaalpha"] = rotation_cl(effects.rotation_amplitude, tables[0].lmax)
    if effects.lensing and all("lensed_ee" in table.cl for table in tables):
        seen = {key: np.mean([table.cl[f"lensed_{key}"] for table in tables], 0) for key in _EB}
    else:
        seen = lensed(cl) if effects.lensing else cl
    cl |= {f"lensed_{key}": seen[key] for key in _EB}
    cl["lensed_bb"] = cl["lensed_bb"] + screened_bb(cl, effects)
    window = beam_window(channel, ell, hfi)
    level = np.sqrt(2) * channel.noise_uk_arcmin
    return Observed(
        size_deg=maps.size_deg,
        pixels=maps.pixels,
        taper_deg=effects.taper_deg,
        periodic=grid.sky == "flat" and grid.margin == 0,
        ell=ell.astype(float),
        cl={key: values[ell] for key, values in cl.items() if key not in ("tt", "bb", "te")},
        foreground=foreground_cl(ell, channel.foreground_dl_80, channel.foreground_slope),
        beam=np.ones(ell.size) if window is None else window,
        noise=noise_cl(ell, level, channel.knee_ell_pol, channel.knee_slope_pol),
    )


def screened_bb(cl: Mapping[str, np.ndarray], effects: Effects) -> np.ndarray:
    """B at ell = 0..lmax that the patchy screen and the rotation make of E.

    `cl` holds ee, tautau and alphaalpha at these multipoles.
    """
    ell = np.arange(cl["ee"].size)
    some = np.unique(np.append(np.arange(0, ell.size, _COARSE), ell[-1]))
    total = np.zeros(ell.size)
    if effects.reionization:
        found = modulated_bb(some, cl["ee"], cl["tautau"], rotates=False)
        total += np.interp(ell, some, found)
    if effects.rotation_amplitude > 0:
        found = modulated_bb(some, cl["ee"], cl["alphaalpha"], rotates=True)
        total += np.interp(ell, some, found)
    return total
