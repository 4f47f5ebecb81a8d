"""Simulated CMB patches: the primordial sky, its way to the observer, and the truth beside it.

Order, as in arXiv:2101.01214 and 2109.09715: Gaussian T, Q, U of the unlensed spectra, rotation of
the polarization, times exp(-tau), displaced by ∇phi, smoothed with the beam, noise, taper on every
map (truth included), E and B of the tapered Q and U. Residual foregrounds, if there are any, are
added before the beam. Down to the beam this may happen on a larger area and a finer grid than the
patch's, or on the full, curved sky; foregrounds are flat and periodic on the area in any case.
Where several patches are cut from one area, all down to the noise is that of the area.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path

import numpy as np

from skyweave import config
from skyweave.flat.fourier import coarsen, coarsen_modes, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb, rotate_to_eb
from skyweave.flat.spline import Displacer
from skyweave.flat.taper import cosine_taper
from skyweave.seeds import generator, key
from skyweave.simulation.curved import places, simulate_sky
from skyweave.simulation.effects import rotation_cl
from skyweave.simulation.flat_sky import FlatSky
from skyweave.simulation.instrument import Area, Instrument
from skyweave.simulation.normals import Normals
from skyweave.simulation.spectra import UNLENSED, SpectraTable

#: The Q and U that fields of `config.PURE` are made of, by what ends their names.
_PURE_OF = {"pure": "prim", "sky": "sky"}

#: B that is less than this share of E is what rounding leaves: the sky has none.
_ROUNDING = 1e-9

#: Sets of modes' amplitudes that are kept, where realizations differ in cosmology.
_KEPT = 16


def unit(field: str) -> str:
    """Unit of a field of a simulated dataset."""
    return {"kappa": "", "tau": "", "alpha": "rad"}.get(field, "uK_CMB")


class Simulator:
    """Simulates the realizations of a dataset, one by one.

    `tables` holds the spectra of each set of cosmological parameters, or their files, which are
    read when they are wanted; a realization draws one of them. Every draw is keyed by (seed,
    dataset, realization or sky, component): a realization has the same bytes whatever others and
    whatever fields are asked for. `hfi` is the instrument model that Planck HFI's beams are read
    from. Raises `UserError` for an unknown field, one whose effect is switched off, and a broken
    file of a channel.
    """

    def __init__(
        self,
        tables: Sequence[SpectraTable | str | Path],
        grid: config.Grid,
        effects: config.Effects,
        channels: Mapping[str, config.Channel],
        *,
        seed: int,
        dataset: str,
        fields: Sequence[str],
        hfi: str | Path | None = None,
    ) -> None:
        config.check_fields(fields, effects, channels)
        self.fields = tuple(fields)
        self._tables, self._settings, self._effects = tables, grid, effects
        self._seed, self._dataset = seed, dataset
        self._patch_key, self._sky_key = key(seed, dataset), key(seed, dataset, "sky")
        self._grid = PatchGrid(grid.size_deg, grid.pixels)
        self._area = Area.around(self._grid, grid.margin, grid.oversample)
        if grid.crops > 1:
            self._area = Area(self._area.fine, self._area.coarse, self._area.coarse)
        self._instrument = Instrument(channels, self._area, hfi)
        self._taper = cosine_taper(self._grid, effects.taper_deg)
        self._displacers: dict[int, Displacer] = {}
        self._places = places(grid.patches_per_sky) if grid.sky == "curved" else None
        self._skies = lru_cache(maxsize=_KEPT)(self._flat_sky)
        self._needed = _needed(fields, channels)
        self._observed = _with_qu(fields)

    def realize(self, realizations: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        """The fields of each of `realizations`, in their order, (y, x) float32.

        T, Q, U, E and B are in µK, kappa and tau without unit, alpha in radians (`unit`). E of the
        primordial sky, `e_prim`, is that of the tapered primordial Q and U, as in the published
        set; `e_pure`, `b_pure`, `e_sky` and `b_sky` are E and B of the whole area, tapered as maps.
        The area that several patches are cut from is simulated once for those that follow each
        other.
        """
        numbers = [int(number) for number in realizations]
        groups = [list(members) for _, members in groupby(numbers, self.area_number)]
        maps = self._maps([members[0] for members in groups])
        for members, (first, area) in zip(groups, maps, strict=True):
            whole = self._observe(first, area)
            for realization in members:
                patch = self._finish(self._cropped(realization, whole))
                yield {name: patch[name].astype(np.float32) for name in self.fields}

    def area_number(self, realization: int) -> int:
        """Number of the area that a realization is cut from: all its draws are the area's."""
        return realization // self._settings.crops

    def is_null(self, realization: int) -> bool:
        """Whether this realization has no rotation, tau and kappa (`effects.null_fraction`)."""
        share = self._effects.null_fraction
        who = self.area_number(realization)
        return share > 0 and bool(self._random(who, "null").random() < share)

    def point(self, realization: int) -> int:
        """Which of the tables this realization is drawn from; one for a whole curved sky."""
        if len(self._tables) == 1:
            return 0
        whole = self.area_number(realization)
        who = ("sky", self._sky(realization)) if self._curved else (whole,)
        return int(self._random(*who, "cosmology").integers(len(self._tables)))

    def place(self, realization: int) -> tuple[float, float] | None:
        """Longitude and latitude (degrees) of a patch of the curved sky, None on a flat one."""
        if self._places is None:
            return None
        lon, lat = self._places
        index = realization % self._settings.patches_per_sky
        return float(lon[index]), float(lat[index])

    def crop(self, realization: int) -> tuple[int, int] | None:
        """Row and column of its area that a patch begins at; None where an area has one patch."""
        crops = self._settings.crops
        if crops == 1:
            return None
        area, index = divmod(realization, crops)
        ends = 2 * self._settings.margin + 1
        row, column = self._random(area, "crop", index).integers(ends, size=2)
        return int(row), int(column)

    @property
    def _curved(self) -> bool:
        return self._settings.sky == "curved"

    def _sky(self, realization: int) -> int:
        return realization // self._settings.patches_per_sky

    def _random(self, *identity: str | int) -> np.random.Generator:
        return generator(self._seed, self._dataset, *identity)

    def _maps(self, realizations: Sequence[int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Each realization with the maps of `_needed` on the area."""
        if self._curved:
            for sky, members in groupby(realizations, self._sky):
                yield from self._curved_maps(sky, list(members))
            return
        for realization in realizations:
            random = partial(Normals, self._patch_key, self.area_number(realization))
            null = self.is_null(realization)
            yield (
                realization,
                self._skies(self.point(realization)).maps(random, self._needed, null=null),
            )

    def _curved_maps(
        self, sky: int, members: Sequence[int]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Patches of one sky. All its places are always computed: how many points a transform
        is asked for decides its rounding."""
        assert self._places is not None
        count = self._settings.patches_per_sky
        first = sky * count
        maps = simulate_sky(
            self._cl(self.point(first), lmax=int(self._grid.ell_nyquist)),
            *self._places,
            self._area.fine,
            partial(Normals, self._sky_key, sky),
            rotation=np.deg2rad(self._effects.rotation_deg),
            null=np.array([self.is_null(first + index) for index in range(count)]),
            fields=self._needed,
        )
        for realization in members:
            yield realization, {name: stack[realization - first] for name, stack in maps.items()}

    def _flat_sky(self, point: int) -> FlatSky:
        return FlatSky(
            self._cl(point),
            self._area.fine,
            rotation=np.deg2rad(self._effects.rotation_deg),
            displacers=self._displacers,
        )

    def _cl(self, point: int, lmax: int | None = None) -> dict[str, np.ndarray]:
        """Spectra of the primordial fields and of those effects that act."""
        effects, table = self._effects, self._tables[point]
        if not isinstance(table, SpectraTable):
            table = SpectraTable.read(table)
        cl = {name: table.cl[name] for name in UNLENSED}
        cl["alphaalpha"] = rotation_cl(effects.rotation_amplitude, table.lmax)
        acts = {"kk": effects.lensing, "tautau": effects.reionization}
        acts["alphaalpha"] = effects.rotation_amplitude > 0
        stop = None if lmax is None else lmax + 1
        return {name: values[:stop] for name, values in cl.items() if acts.get(name, True)}

    def _observe(self, realization: int, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The fields of the patch, of the area where several are cut, before taper and E and B."""
        area = self._area
        patch = {
            name: area.cut(coarsen(map_, area.fine, area.coarse))
            for name, map_ in maps.items()
            if not name.endswith("_sky")
        }
        patch |= self._pure(maps)
        sky = {name[0]: map_ for name, map_ in maps.items() if name.endswith("_sky")}
        random = partial(Normals, self._patch_key, self.area_number(realization))
        return patch | self._instrument.observe(sky, random, self._observed)

    def _cropped(
        self, realization: int, area: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        """The patch out of the maps of an area that several are cut from."""
        place = self.crop(realization)
        if place is None:
            return area
        rows, columns = (slice(start, start + self._grid.pixels) for start in place)
        return {name: map_[rows, columns] for name, map_ in area.items()}

    def _finish(self, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A patch's fields, (y, x) float64, tapered, with E and B of these."""
        patch = {name: map_ * self._taper for name, map_ in maps.items()}
        for name in {field[2:] for field in _of_tapered(self.fields)}:
            patch[f"e_{name}"], patch[f"b_{name}"] = qu_to_eb(
                patch[f"q_{name}"], patch[f"u_{name}"], self._grid
            )
        return patch

    def _pure(self, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Those of `config.PURE` that are wanted, (y, x) float64, as `_observe` has them."""
        area, found = self._area, {}
        for view, source in _PURE_OF.items():
            wanted = [s for s in "eb" if f"{s}_{view}" in self.fields]
            if not wanted:
                continue
            q, u = (forward(maps[f"{s}_{source}"], area.fine) for s in "qu")
            turned = dict(zip("eb", rotate_to_eb(q, u, area.fine), strict=True))
            if np.abs(turned["b"]).max() < _ROUNDING * np.abs(turned["e"]).max():
                turned["b"] = np.zeros_like(turned["b"])
            for s in wanted:
                seen = turned[s]
                if area.fine != area.coarse:
                    seen = coarsen_modes(seen, area.coarse)
                found[f"{s}_{view}"] = area.cut(inverse(seen, area.coarse))
        return found


def simulate(
    tables: Sequence[SpectraTable],
    grid: config.Grid,
    effects: config.Effects,
    channels: Mapping[str, config.Channel] | None = None,
    *,
    seed: int,
    dataset: str,
    realizations: Sequence[int],
    fields: Sequence[str],
    hfi: str | Path | None = None,
) -> dict[str, np.ndarray]:
    """All `realizations` in memory: each of `fields` as (len(realizations), y, x) float32.

    See `Simulator`; without `channels` there is one, "obs", with neither beam nor noise.
    """
    simulator = Simulator(
        tables,
        grid,
        effects,
        channels or {"obs": config.Channel()},
        seed=seed,
        dataset=dataset,
        fields=fields,
        hfi=hfi,
    )
    maps = {
        name: np.empty((len(realizations), grid.pixels, grid.pixels), np.float32) for name in fields
    }
    for index, patch in enumerate(simulator.realize(realizations)):
        for name, stack in maps.items():
            stack[index] = patch[name]
    return maps


def _of_tapered(fields: Collection[str]) -> list[str]:
    """Those fields that are E or B of tapered Q and U."""
    return [field for field in fields if field[:2] in ("e_", "b_") and field not in config.PURE]


def _with_qu(fields: Collection[str]) -> set[str]:
    """The fields, with the Q and U that an E or B among them is made of."""
    views = {field[2:] for field in _of_tapered(fields)}
    views |= {_PURE_OF[field[2:]] for field in fields if field in config.PURE}
    return {f"{s}_{view}" for view in views for s in "qu"} | set(fields)


def _needed(fields: Collection[str], channels: Mapping[str, config.Channel]) -> tuple[str, ...]:
    """What `fields` need of the sky: maps of `FlatSky.maps` and `simulate_sky`."""
    wanted = _with_qu(fields)
    every = [f"{s}_prim" for s in "tqu"] + ["kappa", "tau", "alpha"]
    views = (*channels, "sky")
    seen = [f"{s}_sky" for s in "tqu" if any(f"{s}_{name}" in wanted for name in views)]
    return (*(name for name in every if name in wanted), *seen)
