"""Inpainting: holes of maps filled by a network, beside the optimum for a Gaussian sky."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from skyweave.data.split import SPLITS, members, read_split
from skyweave.errors import UserError
from skyweave.estimators.constrained import Constrained
from skyweave.estimators.diffusive import diffuse
from skyweave.files import sha256
from skyweave.flat.covariance import Covariance
from skyweave.flat.grid import PatchGrid
from skyweave.images.holes import HoleSource, disc
from skyweave.statistics.flat_spectra import default_bins
from skyweave.tasks.covariance import read_covariance
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
    pieces = _pieces(files)
    shares = None if pieces is None else _shares(parts)
    sources = {
        part: HoleSource(run.holes, maps.pixels, pieces, part=part, shares=shares)
        for part in ("train", "validation")
    }
    covariance, _ = read_covariance(files["covariance"])
    alike = {f"start_{field}": field for field in run.fields if run.network.start != "none"}

    told: dict[str, Any] = {"holes": run.holes.model_dump(mode="json"), "start": run.network.start}
    if run.network.start == "constrained":
        told["covariance"] = sha256(files["covariance"])

    def feed(feed: "BatchFeed", part: str, scales: "Normalization") -> HoleFeed:
        return HoleFeed(
            feed,
            sources[part],
            start=_normalized(_starting(run, maps, parts, covariance), run.fields, scales),
            warm_epochs=run.training.warm_epochs,
            told=told,
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
            "mean": _means(maps, run.fields, members(parts, "train")),
            "hole_limit": _limit(run, sources["train"], maps, seed, name),
        },
        further=("seen",),
        alike=alike,
        feed=feed,
    )


def _no_score(network: "TrainedNetwork") -> pd.DataFrame:
    raise AssertionError("epochs of an inpainting are compared by their loss")


def _shares(parts: pd.DataFrame) -> dict[str, float]:
    """Share of the realizations in each part of the split."""
    return {part: float((parts["split"] == part).mean()) for part in SPLITS}


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
    run: InpaintingRun, maps: ShardSet, parts: pd.DataFrame, covariance: Covariance
) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """What fills maps (n, f, y, x), in their units, before the network does."""
    if run.network.start == "none":
        return None
    if run.network.start == "diffusive":
        return diffuse
    means = _means(maps, run.fields, members(parts, "train"))
    periodic = _periodic(maps)
    return Constrained(covariance, maps.grid, run.fields, periodic=periodic, mean=means).mean


def _limit(
    run: InpaintingRun, source: HoleSource, maps: ShardSet, seed: int, name: str
) -> dict[str, float | bool]:
    """The largest holes that the network learns: radius of a disc, degrees, and missing share.

    And whether all of them lay in the middle.
    """
    from scipy.ndimage import distance_transform_edt

    drawn = [source(seeds.generator(seed, name, "limit", i)) for i in range(_LOOKED_AT)]
    radius = max(float(distance_transform_edt(np.pad(hole, 1)).max()) for hole in drawn)
    return {
        "radius_deg": radius * maps.size_deg / maps.pixels,
        "area": max(float(hole.mean()) for hole in drawn),
        "centred": run.holes.kind == "disc" and run.holes.centred,
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
            periodic=card.data.get("periodic", False),
            mean=card.data.get("mean"),
        )

    def mean(self, maps: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """Maps (n, f, y, x), whose holes are (n, y, x) or (y, x), filled by the network."""
        return np.where(_covered(holes), self._raw(maps, holes, self._start(maps, holes)), maps)

    def fluctuation(self, holes: np.ndarray, keys: Sequence[Key]) -> np.ndarray:
        """What skies have in the holes beside the mean (n, f, y, x): a draw for each of `keys`."""
        return self.optimum.fluctuation(holes, fluctuations(self.network.card.seed, keys))

    def all(
        self,
        maps: np.ndarray,
        holes: np.ndarray,
        keys: Sequence[Key],
        optimum: Constrained | None = None,
    ) -> dict[str, np.ndarray]:
        """Maps (n, f, y, x) filled in each way, float32, seen pixels as they are.

        `prediction` by the network, `sampled` with the fluctuations that it leaves out; of these
        the methods `diffusive`, `constrained` (mean) and `realization`. `raw` is what the network
        says of all pixels. Holes are (n, y, x) or, where maps share one, (y, x). `optimum` is that
        of these maps, where more is known of them than the network was told.
        """
        covered, seed = _covered(holes), self.network.card.seed
        found = {"diffusive": diffuse(maps, holes), "constrained": self.optimum.mean(maps, holes)}
        found["raw"] = self._raw(maps, holes, found.get(self._starts))
        left_out = self.fluctuation(holes, keys)
        found["prediction"] = np.where(covered, found["raw"], maps)
        found["sampled"] = np.where(covered, found["raw"] + left_out, maps)
        if optimum is not None:
            found["constrained"] = optimum.mean(maps, holes)
            left_out = optimum.fluctuation(holes, fluctuations(seed, keys))
        found["realization"] = np.where(covered, found["constrained"] + left_out, maps)
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


def fluctuations(seed: int, keys: Sequence[Key]) -> list[np.random.Generator]:
    """What the fluctuations of maps of these keys are drawn by."""
    return [seeds.generator(seed, "fluctuation", *key) for key in keys]


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
    covariance: str | Path,
    pieces: str | Path | None = None,
) -> None:
    """Fill test maps with holes of each kind; one file of `data.predictions` a kind in `out`.

    Groups: `seen` (1 where the map was), `truth`, `prediction`, `raw` and `estimates/{method}`, in
    the fields' units. The optimum of a map knows the parameters that it was drawn with, where the
    file `covariance` has them one by one. `pieces` are the holes of a run whose holes are a sky's.
    """
    from skyweave.networks.card import load_network
    from skyweave.training.runtime import prepare

    prepare(0, threads)
    filler, maps = Filler(load_network(Path(network).parent)), open_maps(shards)
    parts = read_split(split)
    numbers = _spread(members(parts, "test"), run.patches)
    cut = None if pieces is None else read_holes(pieces)
    shares = None if cut is None else _shares(parts)
    source = HoleSource(run.holes, maps.pixels, cut, part="test", shares=shares)
    truth = np.stack([maps.read(field, numbers) for field in run.fields], axis=1)
    units = {field: maps.units[field] for field in run.fields}
    card, (_, models) = filler.network.card, read_covariance(covariance)
    optima = [
        Constrained(model, maps.grid, run.fields, periodic=_periodic(maps)) for model in models
    ]
    points = _labels(maps, "point", numbers).astype(int) if models else np.zeros(len(numbers), int)
    for case in cases(run):
        if case == OWN:
            drawn = (seeds.generator(card.seed, run.dataset, "test holes", int(n)) for n in numbers)
            holes = np.stack([source.numbered(i, rng) for i, rng in enumerate(drawn)])
        else:
            # One hole of all maps may be one matrix of the optimum.
            holes = disc(maps.pixels, float(case.removeprefix(DISC)))
        found: dict[str, np.ndarray] = {}
        for rows in _alike(points):
            keys = [(run.dataset, case, int(number)) for number in numbers[rows]]
            hole = holes[rows] if case == OWN else holes
            optimum = optima[points[rows[0]]] if optima else None
            for name, values in filler.all(truth[rows], hole, keys, optimum).items():
                found.setdefault(name, np.empty(truth.shape, np.float32))[rows] = values
        write_predictions(
            Path(out) / f"{case}.h5",
            {
                "seen": {"seen": np.broadcast_to(~holes, (len(numbers), *holes.shape[-2:]))},
                "truth": _by_field(truth, run.fields),
                **{
                    name if name in ("prediction", "raw") else f"estimates/{name}": _by_field(
                        values, run.fields
                    )
                    for name, values in found.items()
                },
            },
            realizations=numbers,
            units=units | {"seen": ""},
            size_deg=maps.size_deg,
            taper_deg=taper_deg(maps),
        )


def _alike(points: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of maps of the same point, some at a time."""
    for point in np.unique(points):
        rows = np.flatnonzero(points == point)
        yield from (rows[start : start + _CHUNK] for start in range(0, rows.size, _CHUNK))


def _labels(maps: ShardSet, name: str, numbers: np.ndarray) -> np.ndarray:
    """A label of some realizations."""
    return pd.Series(maps.labels[name], index=maps.realizations)[numbers].to_numpy()


def _spread(numbers: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the numbers, evenly: neighbours may be crops of one map."""
    return numbers[np.linspace(0, numbers.size - 1, min(most, numbers.size)).astype(int)]


def _by_field(values: np.ndarray, fields: Sequence[str]) -> dict[str, np.ndarray]:
    return {field: values[:, place] for place, field in enumerate(fields)}


def _means(maps: ShardSet, fields: Sequence[str], numbers: np.ndarray) -> list[float]:
    """What fields are on average: 0 of simulated ones, of others as the training set has it."""
    if "spectra" in maps.provenance:
        return [0.0 for _ in fields]
    return [float(maps.read(field, numbers).mean(dtype=float)) for field in fields]


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
