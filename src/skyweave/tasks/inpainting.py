"""Inpainting: holes of maps filled by a network, beside the optimum for a Gaussian sky."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skyweave import seeds
from skyweave.config import InpaintingRun
from skyweave.data.hole_feed import HoleFeed
from skyweave.data.joined import open_maps
from skyweave.data.predictions import write_predictions
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.constrained import Constrained
from skyweave.estimators.diffusive import diffuse
from skyweave.flat.covariance import Covariance
from skyweave.flat.grid import PatchGrid
from skyweave.images.holes import HoleSource, disc
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.tables import read_table
from skyweave.tasks.methods import taper_deg
from skyweave.tasks.recipe import Recipe
from skyweave.tasks.sky_holes import read_holes

if TYPE_CHECKING:
    from skyweave.data.feed import BatchFeed
    from skyweave.data.normalization import Normalization
    from skyweave.networks.card import TrainedNetwork
    from skyweave.training.method import Method

#: What tells a map from others, whatever it is filled beside.
Key = tuple[str | int, ...]

#: What ends the names of the case of a run's own holes, and of discs.
OWN, DISC = "holes", "radius_"

#: Holes by which the largest that a network learns are known.
_LOOKED_AT = 64

#: Patches that are filled at once.
_CHUNK = 32


def recipe(
    run: InpaintingRun,
    maps: ShardSet,
    parts: pd.DataFrame,
    name: str,
    seed: int,
    files: Mapping[str, str | Path],
) -> Recipe:
    """How a run's network is trained.

    `files` are the `covariance` of the maps, `features`, the weights of VGG16, where losses look at
    them, and `holes`, pieces of a mask, where these are its holes.
    """
    source = HoleSource(run.holes, maps.pixels, _pieces(files))
    covariance = _covariance(files["covariance"])
    alike = {f"start_{field}": field for field in run.fields if run.network.start != "none"}

    def feed(feed: "BatchFeed", scales: "Normalization") -> HoleFeed:
        return HoleFeed(
            feed,
            source,
            start=_normalized(_starting(run, maps, covariance), run.fields, scales),
            warm_epochs=run.training.warm_epochs,
            told={"holes": run.holes.model_dump(mode="json"), "start": run.network.start},
        )

    return Recipe(
        inputs=run.fields,
        targets=run.fields,
        method=lambda model, scales: _method(run, maps, model, files.get("features")),
        score=_no_score,
        fields=run.fields,
        worth=lambda table, field: np.nan,
        largest=False,
        known={
            "covariance": covariance.to_dict(),
            "periodic": _periodic(maps),
            "hole_limit": _limit(source, maps, seed, name),
        },
        further=("seen",),
        alike=alike,
        feed=feed,
    )


def _no_score(network: "TrainedNetwork") -> pd.DataFrame:
    raise AssertionError("epochs of an inpainting are compared by their loss")


def _covariance(path: str | Path) -> Covariance:
    """Of a table of spectra by `tasks.covariance`."""
    table = read_table(path)
    cl = {str(name): table[name].to_numpy(float) for name in table if name != "ell"}
    return Covariance(table["ell"].to_numpy(float), cl)


def _pieces(files: Mapping[str, str | Path]) -> np.ndarray | None:
    return read_holes(files["holes"]) if "holes" in files else None


def _method(
    run: InpaintingRun, maps: ShardSet, model: Any, features: str | Path | None
) -> "Method":
    """How the network learns, stage by stage."""
    from skyweave.networks import pconv_unet, vgg16
    from skyweave.training.inpainting_losses import inpainting_losses, weights
    from skyweave.training.phased import Phased
    from skyweave.training.runtime import numerics

    training = run.training
    losses = inpainting_losses(
        run.losses,
        run.fields,
        grid=maps.grid,
        bins=default_bins(maps.grid),
        features=None if features is None else vgg16.features(features, maps.pixels),
    )
    return Phased(
        model,
        training,
        losses,
        weights=weights(run.losses),
        norms=pconv_unet.encoder_norms(model),
        xla=numerics(training).xla,
    )


def _starting(
    run: InpaintingRun, maps: ShardSet, covariance: Covariance
) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """What fills maps (n, f, y, x), in their units, before the network does."""
    if run.network.start == "none":
        return None
    return diffuse if run.network.start == "diffusive" else _optimum(maps, covariance, run.fields)


def _limit(source: HoleSource, maps: ShardSet, seed: int, name: str) -> dict[str, float]:
    """The largest holes that the network learns: radius of a disc, degrees, and missing share."""
    from scipy.ndimage import distance_transform_edt

    drawn = [source(seeds.generator(seed, name, "limit", i)) for i in range(_LOOKED_AT)]
    radius = max(float(distance_transform_edt(np.pad(hole, 1)).max()) for hole in drawn)
    return {
        "radius_deg": radius * maps.size_deg / maps.pixels,
        "area": max(float(hole.mean()) for hole in drawn),
    }


class Filler:
    """A trained network that fills maps, and the Gaussian sky that it is held against.

    Raises `UserError` for a network that fills no holes.
    """

    def __init__(self, network: "TrainedNetwork") -> None:
        card = network.card
        if card.settings.get("task") != "inpainting":
            known = ", ".join(card.outputs)
            raise UserError("network", "one of an inpainting run", f"one that gives {known}")
        self.network = network
        self.optimum = Constrained(
            Covariance.from_dict(card.data["covariance"]),
            PatchGrid(card.size_deg, card.pixels),
            card.outputs,
            periodic=card.data["periodic"],
        )

    def mean(self, maps: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """Maps (n, f, y, x), whose holes are (n, y, x) or (y, x), filled by the network."""
        return np.where(_covered(holes), self._raw(maps, holes, self._start(maps, holes)), maps)

    def fluctuation(self, holes: np.ndarray, keys: Sequence[Key]) -> np.ndarray:
        """What skies have in the holes beside the mean (n, f, y, x): a draw for each of `keys`."""
        seed = self.network.card.seed
        rngs = [seeds.generator(seed, "fluctuation", *key) for key in keys]
        return self.optimum.fluctuation(holes, rngs)

    def all(
        self, maps: np.ndarray, holes: np.ndarray, keys: Sequence[Key]
    ) -> dict[str, np.ndarray]:
        """Maps (n, f, y, x) filled in each way, float32, seen pixels as they are.

        `prediction` by the network, `sampled` with the fluctuations that it leaves out; of these
        the methods `diffusive`, `constrained` (mean) and `realization`. `raw` is what the network
        says of all pixels. Holes are (n, y, x) or, where maps share one, (y, x).
        """
        covered = _covered(holes)
        found = {"diffusive": diffuse(maps, holes), "constrained": self.optimum.mean(maps, holes)}
        found["raw"] = self._raw(maps, holes, found.get(self._starts))
        left_out = self.fluctuation(holes, keys)
        found["prediction"] = np.where(covered, found["raw"], maps)
        found["realization"] = np.where(covered, found["constrained"] + left_out, maps)
        found["sampled"] = np.where(covered, found["raw"] + left_out, maps)
        return {name: values.astype(np.float32) for name, values in found.items()}

    @property
    def _starts(self) -> str:
        """What lies in the holes before the network corrects it."""
        return self.network.card.settings["network"]["start"]

    def _start(self, maps: np.ndarray, holes: np.ndarray) -> np.ndarray | None:
        if self._starts == "none":
            return None
        return (diffuse if self._starts == "diffusive" else self.optimum.mean)(maps, holes)

    def _raw(self, maps: np.ndarray, holes: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
        """What the network says (n, f, y, x) of maps, seen pixels too; `starts` fill them first."""
        from skyweave.networks.card import predict

        card = self.network.card
        channels = {}
        for place, field in enumerate(card.outputs):
            mean, _ = card.normalization.moments[field]
            channels[field] = np.where(holes, mean, maps[:, place])
            if starts is not None:
                channels[f"start_{field}"] = starts[:, place]
        seen = np.where(holes, 0.0, 1.0).astype(np.float32)
        channels["seen"] = np.broadcast_to(seen, (len(maps), *seen.shape[-2:]))
        found = predict(self.network, channels)
        return np.stack([found[field] for field in card.outputs], axis=1)


def _covered(holes: np.ndarray) -> np.ndarray:
    """Holes (n, y, x) or (y, x) of maps (n, f, y, x), to be broadcast."""
    return holes[..., None, :, :]


def fill(
    network: "TrainedNetwork | Filler",
    maps: np.ndarray,
    holes: np.ndarray,
    *,
    keys: Sequence[Key],
    sampled: bool = True,
) -> np.ndarray:
    """Maps (n, f, y, x), µK, with their holes (n, y, x) filled; seen pixels come back as they are.

    The network's maps in the holes lack the fluctuations that the surroundings say nothing of:
    with `sampled` they are added, drawn by the network's seed and the maps' `keys`. Raises
    `UserError` for a network that fills no holes.
    """
    filler = network if isinstance(network, Filler) else Filler(network)
    found = np.empty(maps.shape, np.float32)
    for start in range(0, len(maps), _CHUNK):
        rows = slice(start, start + _CHUNK)
        found[rows] = filler.mean(maps[rows], holes[rows])
        if sampled:
            found[rows] += filler.fluctuation(holes[rows], keys[rows])
    return np.where(_covered(holes), found, maps)


def cases(run: InpaintingRun) -> list[str]:
    """Names of the kinds of holes that a run is judged on."""
    return [OWN, *(f"{DISC}{radius:g}" for radius in run.radii)]


def inpaint_run(
    run: InpaintingRun,
    network: str | Path,
    *,
    shards: Sequence[str | Path],
    split: str | Path,
    out: str | Path,
    threads: int,
    pieces: str | Path | None = None,
) -> None:
    """Fill test maps with holes of each kind; one file of `data.predictions` a kind in `out`.

    Groups: `seen` (1 where the map was), `truth`, `prediction`, `raw` and `estimates/{method}`, in
    the fields' units. `pieces` are the holes of a run whose holes are a sky's.
    """
    from skyweave.networks.card import load_network
    from skyweave.training.runtime import prepare

    prepare(0, threads)
    filler, maps = Filler(load_network(Path(network).parent)), open_maps(shards)
    numbers = _spread(members(read_split(split), "test"), run.patches)
    source = HoleSource(run.holes, maps.pixels, None if pieces is None else read_holes(pieces))
    truth = np.stack([maps.read(field, numbers) for field in run.fields], axis=1)
    seed, units = filler.network.card.seed, {field: maps.units[field] for field in run.fields}
    for case in cases(run):
        if case == OWN:
            drawn = (seeds.generator(seed, run.dataset, "test holes", int(n)) for n in numbers)
            holes = np.stack([source(rng) for rng in drawn])
        else:
            # One hole of all maps is one matrix of the optimum.
            holes = disc(maps.pixels, float(case.removeprefix(DISC)))
        found: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(numbers), _CHUNK):
            rows = slice(start, start + _CHUNK)
            keys = [(run.dataset, case, int(number)) for number in numbers[rows]]
            hole = holes[rows] if case == OWN else holes
            for name, values in filler.all(truth[rows], hole, keys).items():
                found.setdefault(name, []).append(values)
        groups = {name: np.concatenate(values) for name, values in found.items()}
        write_predictions(
            Path(out) / f"{case}.h5",
            {
                "seen": {"seen": np.broadcast_to(~holes, (len(numbers), *holes.shape[-2:]))},
                "truth": _by_field(truth, run.fields),
                **{
                    name if name in ("prediction", "raw") else f"estimates/{name}": _by_field(
                        values, run.fields
                    )
                    for name, values in groups.items()
                },
            },
            realizations=numbers,
            units=units | {"seen": ""},
            size_deg=maps.size_deg,
            taper_deg=taper_deg(maps),
        )


def _spread(numbers: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the numbers, evenly: neighbours may be crops of one map."""
    return numbers[np.linspace(0, numbers.size - 1, min(most, numbers.size)).astype(int)]


def _by_field(values: np.ndarray, fields: Sequence[str]) -> dict[str, np.ndarray]:
    return {field: values[:, place] for place, field in enumerate(fields)}


def _optimum(
    maps: ShardSet, covariance: Covariance, fields: Sequence[str]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The mean of a Gaussian sky given what is seen of maps, in their units."""
    return Constrained(covariance, maps.grid, fields, periodic=_periodic(maps)).mean


def _periodic(maps: ShardSet) -> bool:
    """Whether opposite edges of the patches are alike, as those of a whole flat area."""
    grid = maps.provenance["settings"].get("grid", {})
    whole = grid.get("margin_deg") == 0 and grid.get("sky") == "flat"
    return whole and taper_deg(maps) == 0


def _normalized(
    filled: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
    fields: Sequence[str],
    scales: "Normalization",
) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """The same of normalized maps."""
    if filled is None:
        return None
    mean, std = (
        np.array([scales.moments[field][moment] for field in fields])[:, None, None]
        for moment in (0, 1)
    )

    def found(maps: np.ndarray, holes: np.ndarray) -> np.ndarray:
        in_units = np.where(holes[:, None], 0.0, maps * std + mean)
        return ((filled(in_units, holes) - mean) / std).astype(np.float32)

    return found
