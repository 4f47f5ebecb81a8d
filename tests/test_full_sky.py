"""The whole sky with small scales: large ones in tiles and maps, what is added, and its judge."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import healpy
import numpy as np
import pysm3
import pytest
from astropy.io import fits

from skyweave.config import FullSky, Patches
from skyweave.config.runs import ForseNetwork, PolarizationTemplate
from skyweave.data.normalization import Normalization
from skyweave.errors import UserError
from skyweave.estimators.gaussian_small_scales import Law
from skyweave.files import sha256
from skyweave.flat.grid import PatchGrid
from skyweave.flat.mosaic import resample, smooth
from skyweave.networks import registry
from skyweave.networks.card import Card, save_network
from skyweave.seeds import generator
from skyweave.sky.harmonic import evaluate, gaussian_window
from skyweave.sky.projection import patch_directions, to_patch_frame
from skyweave.sky.skymap import SkyMap, column_names, read_columns, write_columns, write_mask
from skyweave.sky.tiles import layout, tiles_at
from skyweave.statistics import seams
from skyweave.tasks import full_sky
from skyweave.tasks.foregrounds import SmallScales
from skyweave.tasks.full_sky import COLUMNS, compare_skies, judge_sky, make_sky, write_large_scales
from skyweave.training import runtime

#: Of the skies that are made, and of the map.
NSIDE, MAP_NSIDE = 64, 128
LMAX, MAP_ARCMIN, SEED, NOISE, MARGIN = 128, 30.0, 3, 0.3, 8
PATCHES = Patches(size_deg=20.0, pixels=32, low_arcmin=400.0, high_arcmin=80.0)
GRID = PatchGrid(PATCHES.size_deg, PATCHES.pixels)
POLARIZED_ARCMIN = 5.0
FREQUENCY = 353.0


def settings(**more):
    return FullSky(**{"nside": NSIDE, "overlap_deg": 2.0} | more)


PLAIN = settings()
FILE = {"source": "file", "path": "tqu.fits", "fwhm_arcmin": POLARIZED_ARCMIN}
INTENSITY, STOKES = (settings(polarization=kind, template=FILE) for kind in ("intensity", "stokes"))
#: B comes with nearly as much power as E, and is to have a fifth of it.
RATIO = STOKES.model_copy(update={"bb_over_ee": 0.2})
FINER = settings(nside=128, second_stage=True)


def gaussian_alm(name, lmax, slope):
    """alm of C_ell = (ell + 1)^slope, from ell = 2 on."""
    ell, m = healpy.Alm.getlm(lmax)
    real, imaginary = generator(1, name).standard_normal((2, ell.size))
    alm = np.where(m > 0, (real + 1j * imaginary) / np.sqrt(2), real)
    return alm * np.where(ell > 1, (ell + 1.0) ** (slope / 2), 0)


@cache
def dust():
    """alm of T, a field that is positive as dust is, and of E and B, µK."""
    field = healpy.alm2map(gaussian_alm("dust", 96, -2.4), 128)
    t = healpy.map2alm(100 * np.exp(0.6 * field / field.std()), LMAX, iter=3)
    e, b = (20 * gaussian_alm(name, LMAX, -2.4) for name in "eb")
    return t, e, b


def seen(alm, own_arcmin, target_arcmin):
    beam = gaussian_window(LMAX, np.sqrt(target_arcmin**2 - own_arcmin**2))
    return healpy.almxfl(alm, beam)


@dataclass
class Study:
    """Map, template, mask and networks in a folder, and the skies that are made of them."""

    folder: Path

    def __call__(self, name):
        return self.folder / name

    def large_scales(self, name, full_sky, template=None, truth=True):
        """Tiles, and maps at both resolutions, in a folder of their own."""
        files = {
            "tiles": self(name) / "tiles.h5",
            "large": self(name) / "large.fits",
            "high": self(name) / "high.fits",
        }
        write_large_scales(
            self("map.fits"),
            template or (None if full_sky.polarization == "none" else self("tqu.fits")),
            **files,
            patches=PATCHES,
            full_sky=full_sky,
            fwhm_arcmin=None,
            dataset="dust",
            truth=truth,
        )
        return files

    def sky(self, name, scales, full_sky, network="noisy", realization=0, **files):
        given = {
            "tiles": self(scales) / "tiles.h5",
            "large": self(scales) / "large.fits",
            "mask": self("mask.fits"),
            "out": self(f"{name}.fits"),
        }
        make_sky(
            self(network) / "network.keras",
            **given | files,
            full_sky=full_sky,
            realization=realization,
            run="forse",
            threads=1,
        )
        return self(f"{name}.fits")

    def judge(self, sky, large, full_sky, mask=None):
        table, verdicts = judge_sky(
            sky,
            large=self(large) / "large.fits",
            high=self(large) / "high.fits",
            mask=mask or self("mask.fits"),
            patches=PATCHES,
            full_sky=full_sky,
            name="run",
        )
        return table, {one["check"]: one for one in verdicts}

    def write_network(self, name, noise, amplitude, **data):
        model = registry.build(ForseNetwork(width=0.0625), GRID.pixels, ("low",), ("ratio",), SEED)
        fields = ("low", "ratio")
        card = Card(
            inputs=("low",),
            outputs=("ratio",),
            units=dict.fromkeys(fields, ""),
            normalization=Normalization(dict.fromkeys(fields, (0.0, 1.0))),
            size_deg=GRID.size_deg,
            pixels=GRID.pixels,
            seed=SEED,
            data={"provenance": {"settings": {"patches": PATCHES.model_dump()}}, **data},
            settings={
                "network": ForseNetwork(width=0.0625).model_dump(),
                "noise": noise,
                "amplitude": amplitude,
            },
        )
        save_network(self(name), model, card)


def simplify(patch):
    """The threads that the tests' process has, and a margin that suits tiles of few pixels."""
    prepare = runtime.prepare
    patch.setattr(runtime, "prepare", lambda seed, _: prepare(seed))
    patch.setattr(full_sky, "MARGIN", MARGIN)


@pytest.fixture(autouse=True)
def simple(monkeypatch):
    simplify(monkeypatch)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Large scales of T alone, at both resolutions of the sky, and with Q and U; networks."""
    found = Study(tmp_path_factory.mktemp("sky"))
    t, e, b = dust()
    intensity = healpy.alm2map(t, MAP_NSIDE).astype(np.float32)
    bad = np.zeros(intensity.size, bool)
    SkyMap(intensity, None, bad, FREQUENCY, "dust", fwhm_arcmin=MAP_ARCMIN).write(found("map.fits"))
    tqu = [healpy.alm2map(t, 256), *healpy.alm2map_spin([e, b], 256, 2, LMAX)]
    healpy.write_map(found("tqu.fits"), tqu, coord="G", column_units="uK_CMB", dtype=np.float32)
    lat = healpy.pix2ang(MAP_NSIDE, np.arange(bad.size), lonlat=True)[1]
    write_mask(found("mask.fits"), np.abs(lat) > 10)
    with pytest.MonkeyPatch.context() as patch:
        simplify(patch)
        found.large_scales("t", PLAIN)
        found.large_scales("fine", FINER, truth=False)
        found.large_scales("qu", INTENSITY)
    with h5py.File(found("t") / "tiles.h5") as file:
        low, high = file["t_low"][:, MARGIN:-MARGIN, MARGIN:-MARGIN], file["t_high"][...]
    law = Law.fit(low, high, GRID, PATCHES.low_arcmin, PATCHES.high_arcmin).to_dict()
    found.write_network("noisy", NOISE, "extrapolation", law=law)
    found.write_network("true", NOISE, "truth", law=law)
    found.write_network("other", NOISE, "extrapolation")
    return found


@pytest.fixture(scope="module")
def skies(study):
    """Paths of skies by name, with their settings and large scales."""
    made = {
        "t": ("t", PLAIN, {}),
        "again": ("t", PLAIN, {"realization": 1}),
        "third": ("t", PLAIN, {"realization": 2}),
        "true": ("t", PLAIN, {"network": "true"}),
        "intensity": ("qu", INTENSITY, {}),
        "stokes": ("qu", STOKES, {}),
        "stokes_again": ("qu", STOKES, {"realization": 1}),
        "ratio": ("qu", RATIO, {}),
        "one": ("fine", FINER.model_copy(update={"second_stage": False}), {}),
        "two": ("fine", FINER, {}),
    }
    with pytest.MonkeyPatch.context() as patch:
        simplify(patch)
        return {
            name: study.sky(f"sky_{name}", large, full_sky, **more)
            for name, (large, full_sky, more) in made.items()
        }


def maps(path):
    """Maps (components, npix) of a file, float64."""
    return np.stack([values.astype(float) for values in read_columns(path)[0].values()])


# Large scales


def test_the_maps_are_the_sky_at_both_resolutions(study):
    t, e, b = dust()
    low, high = PATCHES.low_arcmin, PATCHES.high_arcmin
    for name, target in (("large", low), ("high", high)):
        truth = healpy.alm2map(seen(t, MAP_ARCMIN, target), NSIDE)
        found = maps(study("t") / f"{name}.fits")
        assert found.shape == (1, 12 * NSIDE**2)
        np.testing.assert_allclose(found[0], truth, atol=1e-3 * np.std(truth))
    whole = SkyMap.read(study("map.fits")).intensity.astype(float)
    smoothed = healpy.smoothing(whole, np.radians(np.sqrt(low**2 - MAP_ARCMIN**2) / 60))
    found = maps(study("fine") / "large.fits")[0]
    assert np.std(found - smoothed) < 1e-3 * np.std(smoothed)
    found = maps(study("qu") / "large.fits")
    polarized = [seen(one, POLARIZED_ARCMIN, low) for one in (e, b)]
    truth = np.stack(healpy.alm2map_spin(polarized, NSIDE, 2, LMAX))
    assert np.std(found[1:] - truth) < 2e-3 * np.std(truth)


def test_tiles_are_the_sky_where_their_pixels_are(study):
    """T with a margin and without, Q and U about each tile's own north."""
    t, *polarized = dust()
    with h5py.File(study("qu") / "tiles.h5") as file:
        found = {name: file[name][...] for name in file}
        assert file.attrs["size_deg"] == GRID.size_deg
        assert file.attrs["overlap_deg"] == 2
    table = layout(GRID.size_deg, 2.0)
    np.testing.assert_array_equal(found["lon"], table.lon)
    wider = PatchGrid(GRID.size_deg * 1.5, GRID.pixels + 2 * MARGIN)
    ones = np.ones(LMAX + 1)
    low, high = PATCHES.low_arcmin, PATCHES.high_arcmin
    for tile in (0, 40, 87, len(table) - 1):
        lon, lat = table.lon[tile], table.lat[tile]
        points = patch_directions(lon, lat, wider)
        truth = evaluate(seen(t, MAP_ARCMIN, low)[None], ones, *points).reshape(points[0].shape)
        np.testing.assert_allclose(found["t_low"][tile], truth, atol=0.02)
        alm = np.stack([seen(one, POLARIZED_ARCMIN, low) for one in polarized])
        qu = evaluate(alm, ones, *points, 2).reshape(2, *points[0].shape)
        for name, values in zip("qu", to_patch_frame(*qu, *points, lon, lat), strict=True):
            away = found[f"{name}_low"][tile] - values
            assert np.abs(away).max() < 5e-3 * np.std(found["q_low"])
        points = patch_directions(lon, lat, GRID)
        truth = evaluate(seen(t, MAP_ARCMIN, high)[None], ones, *points).reshape(points[0].shape)
        np.testing.assert_allclose(found["t_high"][tile], truth, atol=0.05)


def test_without_polarization_there_is_none(study):
    with h5py.File(study("t") / "tiles.h5") as file:
        assert set(file) == {"lon", "lat", "t_low", "t_high"}
    with h5py.File(study("fine") / "tiles.h5") as file:
        assert "t_high" not in file, "nobody asks for the truth"
    assert list(read_columns(study("t") / "large.fits")[0]) == [COLUMNS[0]]


def test_a_template_gives_its_fraction_and_angle(study):
    """Of one fraction and one angle to the meridians, which turn fast at the poles alone."""
    t = np.full(12 * 128**2, 50.0)
    path = study("template.fits")
    healpy.write_map(path, [t, 0.1 * t, -0.05 * t], coord="G", dtype=np.float32)
    cosmoglobe = settings(polarization="intensity", template=PolarizationTemplate())
    files = study.large_scales("cosmoglobe", cosmoglobe, path)
    t, q, u = maps(files["large"])
    lat = healpy.pix2ang(NSIDE, np.arange(t.size), lonlat=True)[1]
    calm = np.abs(lat) < 40
    np.testing.assert_allclose((q / t)[calm], 0.1, atol=0.005)
    np.testing.assert_allclose((u / t)[calm], -0.05, atol=0.005)


def test_columns_are_read_by_name(study):
    path = study("qu") / "large.fits"
    every, cards = read_columns(path)
    some, same = read_columns(path, COLUMNS[1:])
    assert column_names(path) == list(every) == list(COLUMNS)
    assert list(some) == list(COLUMNS[1:])
    assert same == cards
    for name, values in some.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, every[name])
    assert read_columns(path, ())[0] == {}
    with pytest.raises(UserError, match="expected a map written by skyweave, found another"):
        read_columns(study("t") / "large.fits", COLUMNS)


@pytest.mark.parametrize("size", [3000, 6000, 40_000])
@pytest.mark.filterwarnings("ignore:Error validating header", "ignore:File may have been truncated")
def test_a_file_that_is_cut_off_is_named(study, tmp_path, size):
    path = tmp_path / "large.fits"
    path.write_bytes((study("t") / "large.fits").read_bytes()[:size])
    with pytest.raises(UserError, match=r"an unreadable file|another FITS file") as caught:
        read_columns(path)
    one_line(caught, path)


# What is made


def test_every_pixel_has_a_value(skies):
    for name, path in skies.items():
        found = maps(path)
        nside = 128 if name in ("one", "two") else NSIDE
        polarized = name in ("intensity", "stokes", "stokes_again", "ratio")
        assert found.shape == (3 if polarized else 1, 12 * nside**2)
        assert np.isfinite(found).all()


def test_the_header_says_what_it_is(study, skies):
    header = fits.getheader(skies["stokes_again"], 1)
    expected = {
        "ORDERING": "RING",
        "COORDSYS": "G",
        "NSIDE": NSIDE,
        "POLCCONV": "COSMO",
        "FREQ": FREQUENCY,
        "NETSHA": sha256(study("noisy") / "network.keras"),
        "MAPSHA": sha256(study("map.fits")),
        "POLFROM": "tqu.fits",
        "RUN": "forse",
        "REALIZ": 1,
        "SEED": SEED,
        "NOISEIN": NOISE,
        "FWHM": PATCHES.high_arcmin,
        "LARGEFWH": PATCHES.low_arcmin,
    }
    assert {key: header[key] for key in expected} == expected
    assert [header[f"TTYPE{i}"] for i in (1, 2, 3)] == list(COLUMNS)
    assert {header[f"TUNIT{i}"] for i in (1, 2, 3)} == {"uK_CMB"}
    assert 0 <= header["OVERLAPR"] <= 1
    assert fits.getheader(skies["two"], 1)["FWHM"] == PATCHES.high_arcmin / 4


def test_healpy_reads_all_columns(skies):
    found, header = healpy.read_map(skies["stokes"], field=None, h=True)
    np.testing.assert_array_equal(found, maps(skies["stokes"]))
    assert dict(header)["COORDSYS"] == "G"
    np.testing.assert_array_equal(healpy.read_map(skies["t"]), maps(skies["t"])[0])


def test_pysm_reads_it_in_its_unit(skies):
    found = pysm3.read_map(str(skies["stokes"]), nside=NSIDE, field=(0, 1, 2))
    assert found.unit == pysm3.units.uK_CMB == pysm3.units.Unit("uK_CMB")
    np.testing.assert_array_equal(found.value, maps(skies["stokes"]))
    model = pysm3.Model(nside=32)
    t = model.read_map(str(skies["t"]))
    assert t.shape == (12 * 32**2,)
    at = pysm3.units.cmb_equivalencies(FREQUENCY * pysm3.units.GHz)
    # At 353 GHz: x² e^x / (e^x - 1)² with x = h nu / k T.
    x = 6.62607015e-34 * FREQUENCY * 1e9 / (1.380649e-23 * 2.7255)
    factor = x**2 * np.exp(x) / np.expm1(x) ** 2
    np.testing.assert_allclose(t.to("uK_RJ", equivalencies=at).value, factor * t.value, rtol=1e-3)


def band(spectrum, first, last):
    return float(np.mean(spectrum[first:last]))


def test_large_scales_stay_and_small_ones_come(study, skies):
    low, high = (maps(study("t") / f"{name}.fits")[0] for name in ("large", "high"))
    found = maps(skies["t"])[0]
    power = [healpy.anafast(one, lmax=LMAX) for one in (low, found, high)]
    first = [band(one, 2, 8) for one in power]
    assert first[1] / first[0] == pytest.approx(1, abs=0.05)
    # At 400′ the beam leaves 1e-5 of the power at 70, at 80′ six tenths.
    last = [band(one, 70, 110) for one in power]
    assert last[0] < 1e-3 * last[2]
    assert 0.2 < last[1] / last[2] < 5


def test_a_sky_is_the_same_again(study, skies):
    again = study.sky("again", "t", PLAIN)
    assert again.read_bytes() == skies["t"].read_bytes()


def test_another_realization_has_other_small_scales(study, skies):
    large = maps(study("t") / "large.fits")
    small = [(maps(skies[name]) - large)[0] for name in ("t", "again")]
    assert 0 < np.corrcoef(small)[0, 1] < 0.95


def sines(small, large):
    """Of the angle between (Q, U) of maps (2, npix) and those of the large scales."""
    cross = small[0] * large[1] - small[1] * large[0]
    return cross / (np.hypot(*small) * np.hypot(*large))


def test_with_intensity_the_angle_is_that_of_the_large_scales(study, skies):
    """As far as a product on a tile's pixels is one on the sky's: Q and U each by a spline."""
    large = maps(study("qu") / "large.fits")
    alone = tiles_at(layout(GRID.size_deg, 2.0), GRID, NSIDE) == 1
    assert 0.5 < alone.mean() < 1
    away = {
        name: np.abs(sines((maps(skies[name]) - large)[1:], large[1:]))[alone]
        for name in ("intensity", "stokes")
    }
    assert np.median(away["intensity"]) < 0.02
    assert np.median(away["stokes"]) > 0.3
    # T has nothing to do with it.
    np.testing.assert_array_equal(maps(skies["intensity"])[0], maps(skies["stokes"])[0])
    np.testing.assert_array_equal(maps(skies["intensity"])[0], maps(skies["t"])[0])


def test_every_field_and_stage_sees_noise_of_its_own(monkeypatch):
    seen = []

    def matched(self, low, numbers, **more):
        seen.append((more["finer"], set(np.asarray(numbers).tolist())))
        return low

    monkeypatch.setattr(SmallScales, "matched", matched)
    stages = full_sky._Stages(SmallScales(None, None), 0, STOKES)
    stages.ratios(np.ones((1, 8, 2, 2)), slice(0, 8))
    stages.ratios(np.ones((2, 8, 2, 2)), slice(0, 8))
    stages.ratios(np.ones((1, 392, 2, 2)), slice(0, 392), finer=4)
    stages.ratios(np.ones((2, 392, 2, 2)), slice(0, 392), finer=4)
    numbers = [number for _, own in seen for number in own]
    assert len(numbers) == len(set(numbers)) == 3 * (8 + 392)


def test_the_true_amplitude_is_the_map_s(study, skies, tmp_path):
    """Where the map's small scales are three times as large, so are those that are made."""
    large = maps(study("t") / "large.fits")[0]
    tiles = tmp_path / "tiles.h5"
    tiles.write_bytes((study("t") / "tiles.h5").read_bytes())
    with h5py.File(tiles, "a") as file:
        low = file["t_low"][:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        factor = np.where(file["lat"][...] > 0, 3, 1)[:, None, None]
        file["t_high"][...] = low + factor * (file["t_high"][...] - low)
    changed = {
        name: study.sky(f"changed_{name}", "t", PLAIN, name, tiles=tiles)
        for name in ("true", "noisy")
    }
    small = {
        name: maps(path)[0] - large
        for name, path in (("as it is", skies["true"]), ("changed", changed["true"]))
    }
    lat = healpy.pix2ang(NSIDE, np.arange(large.size), lonlat=True)[1]
    # Half a tile and more from where the factor changes.
    for where, factor in ((lat > 25, 3), (lat < -25, 1)):
        spread = {name: np.std(one[where]) for name, one in small.items()}
        assert spread["changed"] / spread["as it is"] == pytest.approx(factor, rel=0.02)
    assert changed["noisy"].read_bytes() == skies["t"].read_bytes()


# The second stage


def test_the_second_stage_reaches_beyond_the_first(study, skies):
    """Past the Nyquist multipole of the first one's pixels, 288, there is the second's alone."""
    large = maps(study("fine") / "large.fits")[0]
    one, two = (healpy.anafast(maps(skies[name])[0] - large, lmax=380) for name in ("one", "two"))
    end = int(GRID.ell_nyquist)
    assert band(two, end + 20, 370) > 10 * band(one, end + 20, 370)
    # Below the first one's beam it is its own.
    assert 0.5 < band(two, 20, 60) / band(one, 20, 60) < 2


def test_the_second_stage_of_nothing_is_the_first_one_s_smoothed(study, monkeypatch):
    small_scales = SmallScales.load(study("noisy"))
    rng = generator(1, "stage")
    low, ratios = 5 + rng.random((2, 2, 32, 32)), 1 + 0.1 * rng.standard_normal((1, 2, 32, 32))
    monkeypatch.setattr(SmallScales, "matched", lambda self, low, *_, **more: np.ones_like(low))
    found = full_sky._Stages(small_scales, 0, settings(second_stage=True)).small(
        low, ratios, slice(0, 2)
    )
    beams = GRID.pixel_arcmin, PATCHES.high_arcmin, PATCHES.low_arcmin / 4
    sharp = smooth(low * ratios, *beams)
    assert found.shape == (2, 2, 128, 128)
    np.testing.assert_allclose(found, resample(sharp, 4) - resample(low, 4), atol=1e-9)


@pytest.mark.parametrize("chosen", [INTENSITY, STOKES], ids=["intensity", "stokes"])
def test_the_second_stage_makes_q_and_u(study, chosen):
    twice = chosen.model_copy(update={"second_stage": True})
    with h5py.File(study("qu") / "tiles.h5") as file:
        low = np.stack([file[name][:2] for name in ("q_low", "u_low")])
    stages = full_sky._Stages(SmallScales.load(study("noisy")), 0, twice)
    ratios = stages.ratios(low, slice(0, 2))
    inner = low[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    found = stages.small(inner, ratios, slice(0, 2))
    assert found.shape == (2, 2, 128, 128)
    assert np.isfinite(found).all()
    first = resample(inner * (ratios - 1), 4)
    assert 0.3 < np.corrcoef(found.ravel(), first.ravel())[0, 1] < 0.99


@pytest.mark.parametrize(("chosen", "most"), [(PLAIN, 8), (FINER, 1)], ids=["one", "two"])
def test_few_tiles_are_made_at_a_time(study, monkeypatch, chosen, most):
    asked = []

    def small(self, low, ratios, rows):
        assert low.shape[1] == ratios.shape[1] == rows.stop - rows.start
        asked.append(rows.stop - rows.start)
        side = GRID.pixels * (4 if self.full_sky.second_stage else 1)
        return np.zeros((1, low.shape[1], side, side))

    monkeypatch.setattr(full_sky._Stages, "small", small)
    large = "fine" if chosen.second_stage else "t"
    study.sky("nothing", large, chosen)
    assert max(asked) == most
    assert sum(asked) == len(layout(GRID.size_deg, 2.0))
    np.testing.assert_allclose(maps(study("nothing.fits")), maps(study(large) / "large.fits"))


# B over E


def test_small_scales_get_the_ratio_of_b_to_e_that_is_asked_for(study, skies):
    words = "small scales: BB/EE over the one that was asked for, less 1"
    found = {name: study.judge(skies[name], "qu", RATIO)[1][words] for name in ("stokes", "ratio")}
    assert found["ratio"]["passed"]
    assert "asked for 0.2" in found["ratio"]["note"]
    assert not found["stokes"]["passed"]
    # By another code, on the whole sky; the sum of both powers stays.
    large = maps(study("qu") / "large.fits")
    powers = {}
    for name in ("stokes", "ratio"):
        t, q, u = maps(skies[name]) - large
        _, ee, bb, *_ = healpy.anafast([t, q, u], lmax=150)
        ell = np.arange(17, 151)
        powers[name] = np.array([np.sum(ell * one[17:]) for one in (ee, bb)])
    ee, bb = powers["ratio"]
    assert bb / ee == pytest.approx(0.2, rel=0.15)
    assert powers["stokes"].sum() == pytest.approx(powers["ratio"].sum(), rel=0.05)
    assert not any("BB/EE" in check for check in study.judge(skies["stokes"], "qu", STOKES)[1])


# The judge


def test_spectra_of_a_sky_are_those_of_healpy(study, skies, tmp_path):
    """With a mask that leaves all, where nothing is to be decoupled."""
    write_mask(tmp_path / "mask.fits", np.ones(12 * NSIDE**2, bool))
    table, verdicts = study.judge(skies["stokes"], "qu", STOKES, tmp_path / "mask.fits")
    columns = ["run", "field", "method", "statistic", "ell", "value", "error", "n"]
    assert table.columns.tolist() == columns
    fields = {"tt", "ee", "bb", "bb_over_ee"}
    wanted = {"network": fields, "input": fields, "map": {"tt"}}
    assert {name: set(one.field) for name, one in table.groupby("method")} == wanted
    tt, ee, bb, *_ = healpy.anafast(maps(skies["stokes"]), lmax=LMAX)
    low = healpy.anafast(maps(study("qu") / "large.fits"), lmax=LMAX)[0]
    high = healpy.alm2cl(seen(dust()[0], MAP_ARCMIN, PATCHES.high_arcmin))
    for method, field, truth in (
        *(("network", "tt", tt), ("network", "ee", ee), ("network", "bb", bb)),
        *(("input", "tt", low), ("map", "tt", high)),
    ):
        one = table[(table.method == method) & (table.field == field) & (table.ell < 100)]
        ell = one.ell.to_numpy()[:, None] + np.arange(-3.5, 4)
        binned = truth[ell.astype(int)].mean(axis=1)
        large = binned > 1e-6 * binned.max()
        np.testing.assert_allclose(one.value[large], binned[large], rtol=0.02)
    share = verdicts["full sky: share of the pixels that have a finite value"]
    assert (share["passed"], share["value"]) == (True, 1)


SEAM = (
    "full sky: small scales of {} vary no less and no more where tiles overlap, in standard errors"
)


def with_small_scales(study, draw, factor=1.0):
    """Path of the large scales with small ones, Gaussian, times a factor (npix,)."""
    columns, cards = read_columns(study("qu") / "large.fits")
    ell = np.arange(LMAX + 1)
    alm = [healpy.almxfl(gaussian_alm(f"{one}{draw}", LMAX, -2.4), ell > 30) for one in "teb"]
    small = [healpy.alm2map(alm[0], NSIDE), *healpy.alm2map_spin(alm[1:], NSIDE, 2, LMAX)]
    made = {key: columns[key] + factor * one for key, one in zip(COLUMNS, small, strict=True)}
    write_columns(study("gaussian.fits"), made, "uK_CMB", cards)
    return study("gaussian.fits")


def test_a_seam_is_found_where_there_is_one(study):
    overlap = tiles_at(layout(GRID.size_deg, 2.0), GRID, NSIDE) > 1
    for factor in (0.85, 1.15):
        path = with_small_scales(study, 0, np.where(overlap, factor, 1))
        _, verdicts = study.judge(path, "qu", STOKES)
        for field in ("T", "Q, U"):
            one = verdicts[SEAM.format(field)]
            assert not one["passed"]
            ratio = float(one["note"].split(": ")[1].split()[0])
            assert ratio == pytest.approx(factor**2, abs=0.05)


@pytest.mark.parametrize(
    ("name", "large", "chosen"),
    [
        ("t", "t", PLAIN),
        ("true", "t", PLAIN),
        ("intensity", "qu", INTENSITY),
        ("stokes", "qu", STOKES),
        ("ratio", "qu", RATIO),
        ("two", "fine", FINER),
    ],
)
def test_what_is_made_has_no_seam(study, skies, name, large, chosen):
    _, verdicts = study.judge(skies[name], large, chosen)
    assert len(verdicts) == 1 + len(maps(skies[name])[::2]) + (name == "ratio")
    assert all(one["passed"] for one in verdicts.values())


def test_where_there_is_no_seam_what_is_found_is_its_error(study):
    found = []
    for draw in range(8):
        _, verdicts = study.judge(with_small_scales(study, draw), "qu", STOKES)
        found += [verdicts[SEAM.format(field)]["value"] for field in ("T", "Q, U")]
    assert 0.6 < np.sqrt(np.mean(np.square(found))) < 1.4
    assert sum(value < 3 for value in found) >= 15


def test_a_seam_is_the_same_in_parts(study, skies, monkeypatch):
    _, whole = study.judge(skies["stokes"], "qu", STOKES)
    monkeypatch.setattr(seams, "_PIXELS", 1000)
    _, parts = study.judge(skies["stokes"], "qu", STOKES)
    for field in ("T", "Q, U"):
        one, other = (found[SEAM.format(field)] for found in (whole, parts))
        assert other["value"] == pytest.approx(one["value"], rel=1e-9)


def test_a_pixel_without_a_value_is_found(study, skies, tmp_path):
    """Outside the mask: inside there would be no spectrum."""
    columns, cards = read_columns(skies["t"])
    columns[COLUMNS[0]][6 * NSIDE**2] = np.nan
    write_columns(tmp_path / "sky.fits", columns, "uK_CMB", cards)
    _, verdicts = study.judge(tmp_path / "sky.fits", "t", PLAIN)
    one = verdicts["full sky: share of the pixels that have a finite value"]
    assert not one["passed"]
    assert one["value"] == pytest.approx(1 - 1 / (12 * NSIDE**2), rel=1e-9)


def test_realizations_differ_in_their_small_scales(study, skies, tmp_path):
    names = ["t", "again", "third"]
    table = compare_skies(
        [skies[name] for name in names],
        large=study("t") / "large.fits",
        mask=study("mask.fits"),
        spread=tmp_path / "spread.fits",
        patches=PATCHES,
        full_sky=PLAIN,
        name="run",
    )
    assert table.columns.tolist() == ["run", "field", "statistic", "ell", "value", "n"]
    assert set(table.n) == {3}
    assert set(table.field) == {"tt"}
    small = table[table.ell > 30]
    assert (small.value[small.statistic == "spread"] > 0).all()
    assert (small.value[small.statistic == "cross"] < 1).all()
    found = maps(tmp_path / "spread.fits")[0]
    stack = np.stack([maps(skies[name])[0] for name in names])
    np.testing.assert_allclose(found, stack.std(axis=0, ddof=1), rtol=1e-3, atol=1e-4)
    header = fits.getheader(tmp_path / "spread.fits", 1)
    assert (header["REALIZ"], header["TUNIT1"]) == (3, "uK_CMB")


def test_realizations_of_polarization_are_compared(study, skies, tmp_path):
    table = compare_skies(
        [skies["stokes"], skies["stokes_again"]],
        large=study("qu") / "large.fits",
        mask=study("mask.fits"),
        spread=tmp_path / "spread.fits",
        patches=PATCHES,
        full_sky=STOKES,
        name="run",
    )
    assert set(table.field) == {"tt", "ee", "bb"}
    cross = table[(table.statistic == "cross") & (table.ell > 30)]
    assert np.isfinite(cross.value).all()
    assert (cross.value < 1).all()


# Mistakes


def one_line(caught, where):
    assert caught.value.where == str(where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["file", "cosmoglobe"])
@pytest.mark.parametrize("fault", ["missing", "intensity"])
def test_a_template_that_is_none_is_named(study, tmp_path, source, fault):
    path = tmp_path / "template.fits"
    if fault == "intensity":
        healpy.write_map(path, np.ones(12 * 32**2), coord="G", column_units="uK_CMB")
    template = FILE if source == "file" else {}
    with pytest.raises(UserError) as caught:
        study.large_scales("bad", settings(polarization="stokes", template=template), path)
    one_line(caught, path)


def test_any_name_of_a_template_will_do(study, tmp_path):
    """A FITS header has ASCII only."""
    path = tmp_path / "Staubkörner.fits"
    path.symlink_to(study("tqu.fits"))
    files = study.large_scales("named", INTENSITY, path)
    assert fits.getheader(files["large"], 1)["POLFROM"] == "Staubk?rner.fits"


@pytest.mark.parametrize("fault", ["missing", "mask", "nside", "intensity", "text"])
def test_large_scales_of_something_else_are_named(study, tmp_path, fault):
    path = tmp_path / "large.fits"
    if fault == "mask":
        path = study("mask.fits")
    elif fault == "nside":
        path = study("fine") / "large.fits"
    elif fault == "intensity":
        path = study("t") / "large.fits"
    elif fault == "text":
        path.write_text("no map")
    with pytest.raises(UserError) as caught:
        study.sky("bad", "t" if fault == "nside" else "qu", STOKES, large=path)
    one_line(caught, path)


def test_a_network_of_another_task_is_named(study):
    with pytest.raises(UserError, match="a network that adds small scales") as caught:
        study.sky("bad", "t", PLAIN, network="other")
    one_line(caught, study("other") / "card.json")


def test_a_mask_without_room_is_told(study, skies, tmp_path):
    lon, lat = healpy.pix2ang(NSIDE, np.arange(12 * NSIDE**2), lonlat=True)
    write_mask(tmp_path / "mask.fits", (np.abs(lat) < 6) & (lon < 12))
    with pytest.raises(UserError, match=r"^mask: expected") as caught:
        study.judge(skies["t"], "t", PLAIN, tmp_path / "mask.fits")
    one_line(caught, "mask")
