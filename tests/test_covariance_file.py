"""The covariance file of a channel: spectra of its maps, from theory or from the maps."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from skyweave.config import Channel, Effects, Grid
from skyweave.data.shards import write_shard
from skyweave.errors import UserError
from skyweave.flat.fourier import Bins, bin_power, forward, inverse, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.noise import noise_cl
from skyweave.simulation.patch import simulate
from skyweave.simulation.spectra import SpectraTable
from skyweave.statistics.tables import read_table
from skyweave.tasks.covariance import COLUMNS, covariance, measure_covariance, write_covariance

#: Fundamental multipole 36, Nyquist 576.
GRID = Grid(size_deg=10, pixels=32)
PATCH = PatchGrid(10, 32)
PLAIN = Effects(lensing=False, reionization=False, taper_deg=0)
LENSED = Effects(reionization=False, null_fraction=0.3, taper_deg=0)


def spectra(tilt: float = 1.0, lmax: int = 1000) -> SpectraTable:
    ell = np.arange(lmax + 1.0)
    shape = np.where(ell > 1, np.maximum(ell, 2) ** -tilt, 0)
    cl = {"tt": 3 * shape, "ee": 0.1 * shape, "bb": 0.02 * shape}
    cl["te"] = 0.3 * np.sin(ell / 90) * shape
    return SpectraTable(cl | {"kk": 1e-3 * shape / (ell + 30), "tautau": 0 * ell})


TABLE = spectra()

CHANNELS = {
    "bare": Channel(),
    "beam": Channel(beam_arcmin=30),
    "white": Channel(beam_arcmin=20, noise_uk_arcmin=40),
    "knee": Channel(noise_uk_arcmin=40, knee_ell=200, knee_slope=2.5, knee_ell_pol=100),
    "dust": Channel(beam_arcmin=25, foreground_dl_80=20.0, foreground_slope=-1.0),
}


def compared(maps, stokes, frame: pd.DataFrame, grid: PatchGrid = PATCH) -> None:
    """Mean band powers of maps (n, y, x) of t, q and u agree with the columns within errors."""
    bins = Bins((18, 110, 200, 320, 450, 576, 815))
    modes = {
        s: forward(maps[name].astype(float), grid) for s, name in zip("tqu", stokes, strict=True)
    }
    modes["e"], modes["b"] = rotate_to_eb(modes["q"], modes["u"], grid)
    for name in ("tt", "te", "ee", "bb"):
        bands = bin_power(power(*(modes[s] for s in name), grid), grid, bins)
        theory = bin_power(np.interp(grid.ell, frame["ell"], frame[name]), grid, bins)
        error = bands.std(axis=0, ddof=1) / np.sqrt(len(bands))
        pulls = (bands.mean(axis=0) - theory) / np.where(error > 0, error, 1)
        assert np.abs(pulls).max() < 4, (name, pulls)
        assert error.max() > 0


@pytest.mark.parametrize("channel", CHANNELS)
def test_simulated_maps_have_these_spectra(channel):
    fields = [f"{s}_{channel}" for s in "tqu"]
    maps = simulate(
        [TABLE], GRID, PLAIN, {channel: CHANNELS[channel]}, seed=2, dataset="covariance",
        realizations=range(150), fields=fields,
    )  # fmt: skip
    frame = covariance([TABLE], grid=GRID, effects=PLAIN, channel=CHANNELS[channel])
    compared(maps, fields, frame)


def test_the_primordial_sky_has_neither_beam_nor_noise_nor_lensing():
    maps = simulate(
        [TABLE], GRID, LENSED, {"obs": CHANNELS["white"]}, seed=2, dataset="covariance",
        realizations=range(150), fields=("t_prim", "q_prim", "u_prim"),
    )  # fmt: skip
    frame = covariance([TABLE], grid=GRID, effects=LENSED, channel=None)
    compared(maps, ("t_prim", "q_prim", "u_prim"), frame)
    for name in ("tt", "te", "ee", "bb"):
        assert_allclose(frame[name][:1001], TABLE.cl[name])


def test_lensed_spectra_are_taken_as_far_as_realizations_are_lensed():
    """Those of the table; a null realization is not lensed."""
    own = {f"lensed_{name}": factor * TABLE.cl[name] for factor, name in
           zip((1.2, 0.9, 1.1, 3.0), ("tt", "te", "ee", "bb"), strict=True)}  # fmt: skip
    table = SpectraTable(TABLE.cl | own)
    frame = covariance([table], grid=GRID, effects=LENSED, channel=Channel())
    for name in ("tt", "te", "ee", "bb"):
        expected = 0.7 * own[f"lensed_{name}"] + 0.3 * TABLE.cl[name]
        assert_allclose(frame[name][:1001], expected, rtol=1e-12)


def test_lensed_maps_have_the_lensed_spectra():
    """Peaks of T are smoothed, beyond errors, as much as the file says."""
    grid = Grid(size_deg=5, pixels=64, oversample=2)
    patch = PatchGrid(5, 64)
    ell = np.arange(3501.0)
    shape = np.where(ell > 1, np.maximum(ell, 2) ** -2.0, 0)
    cl = dict.fromkeys(("ee", "bb", "te", "tautau"), 0 * ell)
    cl["tt"] = 1e4 * shape * (1 + 0.8 * np.cos(ell * 2 * np.pi / 300))
    cl["kk"] = 2e-6 / (1 + (ell / 150) ** 1.5)
    maps = simulate(
        [SpectraTable(cl)], grid, LENSED, {"obs": Channel()}, seed=2, dataset="covariance",
        realizations=range(250), fields=("t_obs",),
    )  # fmt: skip
    modes = forward(maps["t_obs"].astype(float), patch)
    bins = Bins(tuple(np.arange(562.5, 1900, 75)))
    bands = bin_power(power(modes, modes, patch), patch, bins)
    error = bands.std(axis=0) / np.sqrt(len(bands))
    frame = covariance([SpectraTable(cl)], grid=grid, effects=LENSED, channel=Channel())
    theory, unlensed = (
        bin_power(np.interp(patch.ell, ell, values[:3501]), patch, bins)
        for values in (frame["tt"].to_numpy(), cl["tt"])
    )
    assert np.abs((bands.mean(axis=0) - theory) / error).max() < 4
    assert np.abs((unlensed - theory) / error).max() > 8


def test_several_cosmologies_are_averaged_and_noise_goes_on_beyond_their_spectra():
    tables = [spectra(1.0, 700), spectra(1.5, 700)]
    channel = CHANNELS["white"]
    both = covariance(tables, grid=GRID, effects=PLAIN, channel=channel)
    each = [covariance([table], grid=GRID, effects=PLAIN, channel=channel) for table in tables]
    assert_allclose(both, (each[0] + each[1]) / 2, rtol=1e-12)
    assert both["ell"].iloc[-1] == np.ceil(np.sqrt(2) * PATCH.ell_nyquist) > 700
    assert_allclose(both["tt"].iloc[-1], np.radians(40 / 60) ** 2)
    assert_allclose(both["bb"].iloc[-1], 2 * np.radians(40 / 60) ** 2)


def test_uneven_hits_raise_the_noise(tmp_path):
    hits = np.random.default_rng(0).uniform(0.2, 2, (32, 32))
    np.save(tmp_path / "hits.npy", hits)
    channel = Channel(noise_uk_arcmin=30, hits_path=str(tmp_path / "hits.npy"))
    frame = covariance([TABLE], grid=GRID, effects=PLAIN, channel=channel)
    expected = noise_cl(1.0, 30) * np.mean(hits) * np.mean(1 / hits)
    assert_allclose(frame["tt"].iloc[1:2] - TABLE.cl["tt"][1], expected)


def test_the_file_is_read_back(tmp_path):
    TABLE.write(tmp_path / "table.csv")
    path = tmp_path / "obs.csv"
    arguments = {"grid": GRID, "effects": PLAIN, "channel": CHANNELS["knee"]}
    write_covariance(path, [tmp_path / "table.csv"], **arguments)
    frame = covariance([TABLE], **arguments)
    assert tuple(frame.columns) == COLUMNS == ("ell", "tt", "te", "ee", "bb")
    pd.testing.assert_frame_equal(read_table(path), frame)


# Measured


def measured(folder, fields, taper_deg, grid=PATCH, channel="obs") -> pd.DataFrame:
    count = len(next(iter(fields.values())))
    write_shard(
        folder / "0.h5", fields, realizations=range(count), size_deg=grid.size_deg,
        units=dict.fromkeys(fields, "uK_CMB"),
        provenance={"settings": {"grid": {}, "effects": {"taper_deg": taper_deg}}},
    )  # fmt: skip
    numbers = "\n".join(f"{n},{'test' if n % 2 else 'train'}" for n in range(count))
    (folder / "split.csv").write_text(f"realization,split\n{numbers}\n")
    measure_covariance(folder / "m.csv", [folder / "0.h5"], folder / "split.csv", channel=channel)
    return read_table(folder / "m.csv")


@pytest.mark.parametrize("taper_deg", [0.0, 3.0])
def test_measured_spectra_are_those_of_the_training_maps(tmp_path, taper_deg):
    """Of crops of a larger area; those of the test set are ten times as large."""
    effects = PLAIN.model_copy(update={"taper_deg": taper_deg})
    grid = GRID.model_copy(update={"margin_deg": 5.0})
    fields = ("t_obs", "q_obs", "u_obs")
    maps = simulate(
        [TABLE], grid, effects, {"obs": CHANNELS["white"]}, seed=3, dataset="covariance",
        realizations=range(300), fields=fields,
    )  # fmt: skip
    for stack in maps.values():
        stack[1::2] *= 10
    frame = measured(tmp_path, maps, taper_deg)
    theory = covariance([TABLE], grid=GRID, effects=effects, channel=CHANNELS["white"])
    assert frame["ell"].tolist() == list(range(len(frame)))
    inside = slice(100, 560)
    for name in ("tt", "ee"):
        ratio = (frame[name] / theory[name][: len(frame)])[inside]
        assert_allclose(ratio.mean(), 1, atol=0.03)
        assert_allclose(ratio, 1, atol=0.15)
    scale = np.sqrt(theory["tt"] * theory["ee"])[: len(frame)]
    assert_allclose((frame["te"] / scale)[inside], (theory["te"] / scale)[inside], atol=0.12)
    assert (frame["te"] ** 2 <= frame["tt"] * frame["ee"] * (1 + 1e-12)).all()


def test_spectra_without_maps_are_zero(tmp_path):
    maps = {"t_obs": np.random.default_rng(1).standard_normal((20, 32, 32)).astype(np.float32)}
    frame = measured(tmp_path, maps | {"q_obs": maps["t_obs"]}, 1.0)
    assert (frame[["te", "ee", "bb"]] == 0).all(axis=None)
    assert (frame["tt"] > 0).all()
    with pytest.raises(UserError, match="t_f, or both q_f and u_f"):
        measured(tmp_path, {"q_f": maps["t_obs"]}, 1.0, channel="f")


def test_the_taper_that_maps_carry_is_divided_out(tmp_path):
    """White maps, so that mixing of bands does nothing."""
    white = np.random.default_rng(1).standard_normal((200, 32, 32))
    taper = cosine_taper(PATCH, 4.0)
    assert_allclose(inverse(forward(white[:1], PATCH), PATCH), white[:1], atol=1e-12)
    frame = measured(tmp_path, {"t_obs": white * taper}, 4.0)
    assert_allclose(frame["tt"][50:750].mean(), PATCH.pixel_rad**2, rtol=0.02)
