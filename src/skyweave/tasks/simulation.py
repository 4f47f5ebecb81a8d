"""A simulated dataset: its shards, its split and its check against theory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from skyweave.config import Channel, Effects, Grid, Split
from skyweave.data.fits import write_fits
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, stream_shard
from skyweave.data.split import assign, members
from skyweave.errors import UserError
from skyweave.files import sha256, write_text
from skyweave.flat.fourier import on_modes
from skyweave.flat.polarization import tapered_variances
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.effects import rotation_cl
from skyweave.simulation.instrument import Area
from skyweave.simulation.patch import Simulator, unit
from skyweave.simulation.spectra import SpectraTable
from skyweave.statistics.tables import write_table
from skyweave.statistics.verdicts import verdict

#: Gaussian fields that are stored as drawn, but for the taper, and the spectrum of each.
GAUSSIAN = {"t_prim": "tt", "kappa": "kk", "tau": "tautau"}

#: How often a check may fail by chance.
_CHANCE = 1e-4


def write_realizations(
    path: str | Path,
    spectra: Sequence[str | Path],
    *,
    grid: Grid,
    effects: Effects,
    channels: Mapping[str, Channel],
    fields: Sequence[str],
    points: Sequence[Mapping[str, float]],
    seed: int,
    dataset: str,
    realizations: Sequence[int],
    hfi: str | Path | None = None,
) -> None:
    """Simulate `realizations` and write them as one shard.

    `spectra` are the tables of each of `points`, the sets of varied parameters. The shard's labels
    are each realization's values of these, whether it is null, on a curved sky its place, and where
    several are cut from one area its number, `area`.
    """
    simulator = Simulator(
        spectra,
        grid,
        effects,
        channels,
        seed=seed,
        dataset=dataset,
        fields=fields,
        hfi=hfi,
    )
    own_files = {
        name: {key: sha256(own) for key in ("beam_path", "hits_path") if (own := getattr(c, key))}
        for name, c in channels.items()
    }
    stream_shard(
        path,
        simulator.realize(realizations),
        fields=fields,
        realizations=np.asarray(realizations),
        pixels=grid.pixels,
        size_deg=grid.size_deg,
        units={field: unit(field) for field in fields},
        provenance={
            "seed": seed,
            "dataset": dataset,
            "settings": {
                "grid": grid.model_dump(),
                "effects": effects.model_dump(),
                "channels": {name: channel.model_dump() for name, channel in channels.items()},
            },
            "spectra": [sha256(table) for table in spectra],
            "files": own_files,
        },
        labels=_labels(simulator, points, realizations),
    )


def _labels(
    simulator: Simulator, points: Sequence[Mapping[str, float]], realizations: Sequence[int]
) -> dict[str, np.ndarray]:
    drawn = [simulator.point(number) for number in realizations]
    labels = {name: np.array([points[index][name] for index in drawn]) for name in points[0]}
    labels["null"] = np.array([simulator.is_null(number) for number in realizations], dtype=float)
    if len(points) > 1:
        labels["point"] = np.array(drawn, dtype=float)
    if simulator.crop(realizations[0]) is not None:
        areas = [simulator.area_number(number) for number in realizations]
        labels["area"] = np.array(areas, dtype=float)
    places = [simulator.place(number) for number in realizations]
    if places[0] is not None:
        labels["lon"], labels["lat"] = np.array(places, dtype=float).T
    return labels


def export(folder: str | Path, shards: Sequence[str | Path], realization: int) -> None:
    """Write one realization's fields as FITS maps (`data.fits`) into `folder`.

    T, Q and U of a channel, as far as kept, share the file ``obs.fits``, named after the channel;
    every other field has its own, ``kappa.fits``. Varied parameters and the seed stand in the
    headers. Q or U without the other, which no reader could use, is left out.
    Raises `UserError` for a realization that the shards don't hold and where nothing is left.
    """
    maps = ShardSet(shards)
    patch = {field: maps.read(field, [realization])[0] for field in maps.fields}
    row = int(np.searchsorted(maps.realizations, realization))
    labels = {name: float(values[row]) for name, values in maps.labels.items()}
    place = {name: labels.pop(name) for name in ("lon", "lat") if name in labels}
    provenance = {"seed": maps.provenance["seed"], "dataset": maps.provenance["dataset"]}
    exported = _exported(maps.fields)
    if not exported:
        raise UserError(shards[0], "a field besides a lone Q or U", ", ".join(maps.fields))
    for name, fields in exported.items():
        write_fits(
            Path(folder) / f"{name}.fits",
            {field: patch[field] for field in fields},
            grid=maps.grid,
            units=maps.units,
            provenance=provenance | {"realization": realization} | labels,
            **place,
        )


def _exported(fields: Sequence[str]) -> dict[str, list[str]]:
    """The fields of each file by its name: Q and U together, with their T."""
    files: dict[str, list[str]] = {}
    for field in fields:
        stokes, _, channel = field.partition("_")
        together = stokes in ("q", "u") or (stokes == "t" and f"q_{channel}" in fields)
        whole = {f"q_{channel}", f"u_{channel}"} <= set(fields)
        if together and whole:
            files.setdefault(channel, []).append(field)
        elif stokes not in ("q", "u"):
            files[field] = [field]
    return files


def prepare(
    shards: Sequence[str | Path],
    split_path: str | Path,
    normalization_path: str | Path,
    *,
    split: Split,
    seed: int,
    dataset: str,
) -> None:
    """Assign each realization to a part; fit mean and std of each field on the training part.

    Patches that are cut from one area stay in one part. Fields that do not vary have no mean and
    std; a training asks for what it needs.
    """
    maps = ShardSet(shards)
    parts = assign(maps.realizations, split, seed, dataset, together=crops(maps))
    train = members(parts, "train")
    normalization = Normalization.fit(maps, maps.fields, train, all_vary=False)
    write_text(normalization_path, normalization.to_json())
    write_table(split_path, parts)


def crops(maps: ShardSet) -> int:
    """How many realizations running are patches of one area."""
    return int(maps.provenance["settings"]["grid"].get("crops", 1))


def check(
    spectra: Sequence[str | Path], shards: Sequence[str | Path], *, dataset: str
) -> tuple[pd.DataFrame, list[dict]]:
    """Variance of each Gaussian field against the sum of its spectrum over the modes.

    The variance of a tapered scalar is ``mean(w²) / area · Σ C_ell`` over the modes of what is
    simulated, on a curved sky ``mean(w²) · Σ (2ell + 1) C_ell / 4pi``; that of E of tapered Q,U
    comes from `tapered_variances`, where the patch is periodic; a constant angle adds its square. A
    null realization has none in kappa, tau and alpha. The error comes from the scatter over
    realizations, over whole areas where several are cut from one, and, on a curved sky, from the
    cosmic variance that the patches of a sky share; the bar from Student's law.
    """
    from scipy import stats  # half a second that the simulation's own jobs are spared

    maps = ShardSet(shards)
    theory = [_variances(SpectraTable.read(table), maps) for table in spectra]
    point = maps.labels.get("point", np.zeros(maps.realizations.size)).astype(int)
    patches_per_sky = maps.provenance["settings"]["grid"]["patches_per_sky"]
    rows, verdicts = [], []
    for field in (field for field in maps.fields if field in theory[0]):
        variances = np.array(
            [np.mean(maps.read(field, [r])[0] ** 2, dtype=np.float64) for r in maps.realizations]
        )
        expected, shared = np.array([each[field] for each in theory])[point].T
        drawn = variances > 0
        count = int(drawn.sum())
        areas = maps.realizations[drawn] // crops(maps)
        if np.unique(areas).size < 2:
            continue
        value, wanted = variances[drawn].mean(), expected[drawn].mean()
        skies = np.unique(maps.realizations[drawn] // patches_per_sky).size
        scatter, independent = _scatter((variances - expected)[drawn], areas)
        error = np.sqrt(scatter / independent + shared[drawn].mean() / skies)
        rows.append((dataset, field, "variance", value, error, wanted, count))
        verdicts.append(
            verdict(
                f"{field}: variance against the sum over modes of its spectrum",
                abs(value - wanted) / error,
                round(float(stats.t.isf(_CHANCE / 2, independent - 1)), 2),
                "<",
                unit="standard errors",
                note=f"rms {np.sqrt(value):.5g} drawn, {np.sqrt(wanted):.5g} from theory, "
                f"{count} realizations"
                + (f" of {independent} areas" if independent < count else ""),
            )
        )
    columns = ["dataset", "field", "statistic", "value", "error", "theory", "n"]
    return pd.DataFrame(rows, columns=columns), verdicts


def _scatter(values: np.ndarray, groups: np.ndarray) -> tuple[float, int]:
    """Variance of one of m groups' share in the mean of `values` (n,), and m: the variance of that
    mean is their ratio, whatever values of a group have in common."""
    _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.bincount(member, values - values.mean())
    if sizes.max() == 1:
        return float(values.var(ddof=1)), sizes.size
    return float(np.sum((sums / sizes.mean()) ** 2) / (sizes.size - 1)), sizes.size


def _variances(table: SpectraTable, maps: ShardSet) -> dict[str, tuple[float, float]]:
    """Expected variance of each Gaussian field on a tapered patch, and the variance of that of
    a whole sky, which patches of a curved sky share; 0 on a flat one."""
    settings = maps.provenance["settings"]
    geometry, effects = Grid(**settings["grid"]), Effects(**settings["effects"])
    taper = cosine_taper(maps.grid, effects.taper_deg)
    kept = float(np.mean(taper**2))
    spectra = {field: table.cl[name] for field, name in GAUSSIAN.items()}
    spectra["alpha"] = rotation_cl(effects.rotation_amplitude, table.lmax)
    constant = {"alpha": kept * float(np.radians(effects.rotation_deg)) ** 2}
    if geometry.sky == "curved":
        ell = np.arange(int(maps.grid.ell_nyquist) + 1)
        parts = {
            field: kept * (2 * ell + 1) / (4 * np.pi) * cl[: ell.size]
            for field, cl in spectra.items()
        }
        return {
            field: (
                float(part.sum()) + constant.get(field, 0.0),
                float(np.sum(2 / (2 * ell + 1) * part**2)),
            )
            for field, part in parts.items()
        }
    area = Area.around(maps.grid, geometry.margin, geometry.oversample).coarse

    def modes(spectrum: np.ndarray) -> np.ndarray:
        cl = on_modes(table.ell, spectrum, area)
        if geometry.oversample > 1:
            # Coarsening drops the Nyquist lines.
            cl[area.pixels // 2], cl[:, -1] = 0, 0
        return cl

    expected = {
        field: kept / area.area_sr * float(np.sum(area.mode_weight * modes(spectrum)))
        + constant.get(field, 0.0)
        for field, spectrum in spectra.items()
    }
    if geometry.margin == 0:
        ee, bb = modes(table.cl["ee"]), modes(table.cl["bb"])
        expected["e_prim"], _ = tapered_variances(ee, bb, taper, area)
    return {field: (variance, 0.0) for field, variance in expected.items()}
