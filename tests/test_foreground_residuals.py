"""Foregrounds that were left in: their spectrum, and that they touch nothing else."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from skyweave.config import Channel, Effects, Grid, parse
from skyweave.errors import UserError
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import Bins, bin_power, coarsen, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import rotate_to_eb
from skyweave.simulation.foregrounds import foreground_cl
from skyweave.simulation.patch import simulate
from skyweave.simulation.spectra import SpectraTable
from skyweave.tasks.simulation import check, write_realizations

ELL = np.arange(3501)
SHAPE = np.where(ELL < 2, 0, 2 * np.pi / np.maximum(ELL * (ELL + 1.0), 1))
TABLE = SpectraTable(
    {
        "tt": 3000 * SHAPE,
        "ee": 20 * SHAPE,
        "bb": 0 * SHAPE,
        "te": 30 * SHAPE,
        "kk": 1e-7 * (ELL > 1),
        "tautau": 1e-6 * SHAPE,
    }
)
FIELDS = ("t_obs", "q_obs", "u_obs", "e_prim", "kappa", "tau")
SMALL = Grid(size_deg=5.0, pixels=64)
BARE = Effects(taper_deg=0)


def run(grid=SMALL, effects=BARE, fields=FIELDS, count=4, **channel) -> dict[str, np.ndarray]:
    return simulate(
        [TABLE],
        grid,
        effects,
        {"obs": Channel(**channel)},
        seed=3,
        dataset="unit",
        realizations=range(count),
        fields=fields,
    )


def residual(grid=SMALL, effects=BARE, count=4, dl=2.0, slope=-0.42, **channel):
    """Q and U (2, n, y, x) float64 of the foregrounds alone: all else is linear in the sky."""
    fields = ("q_obs", "u_obs")
    without = run(grid, effects, fields, count, **channel)
    with_it = run(
        grid, effects, fields, count, foreground_dl_80=dl, foreground_slope=slope, **channel
    )
    return np.stack([with_it[name].astype(float) - without[name] for name in fields])


def patch_grid(grid: Grid) -> PatchGrid:
    return PatchGrid(grid.size_deg, grid.pixels)


def test_power_is_what_is_asked_for_at_ell_80():
    dl = ELL * (ELL + 1) / (2 * np.pi) * foreground_cl(ELL, 0.3, -0.42)
    assert_allclose(dl[80], 0.3, rtol=1e-12)
    assert_allclose(dl[800] / dl[80], 10**-0.42, rtol=1e-12)
    assert foreground_cl(np.array([0.0]), 1.0, -3.0) == 0


@pytest.mark.parametrize("slope", [-0.42, 0.5])
@pytest.mark.parametrize("beam", [0.0, 8.0])
def test_spectra_come_back(slope, beam):
    """Chi² of the mean band powers of E and of B, and of EB against zero, through a beam."""
    count, grid, bins = 150, patch_grid(SMALL), Bins.linear(50, 2000, 130)
    maps = residual(count=count, slope=slope, beam_arcmin=beam)
    e, b = rotate_to_eb(*(forward(stack, grid) for stack in maps), grid)
    cl = foreground_cl(grid.ell, 2.0, slope) * gaussian_beam(grid.ell, beam) ** 2
    for first, second in ((e, e), (b, b), (e, b)):
        same = first is second
        measured = bin_power(power(first, second, grid), grid, bins).mean(axis=0)
        variance = (1 + same) * bin_power(cl**2, grid, bins) / bins.modes(grid) / count
        chi2 = np.sum((measured - same * bin_power(cl, grid, bins)) ** 2 / variance)
        assert 0.001 < stats.chi2.sf(chi2, bins.count) < 0.999


@pytest.mark.parametrize(
    ("grid", "count"),
    [
        (Grid(size_deg=5, pixels=32, margin_deg=2.5), 160),
        (Grid(size_deg=5, pixels=16, sky="curved", patches_per_sky=16, margin_deg=1.25), 64),
    ],
    ids=["margin", "curved"],
)
def test_area_is_periodic_and_the_patch_is_not(grid, count):
    """Variance of a cut-out patch is the sum over the area's modes, smoothed before the cut."""
    maps = residual(grid, count=count, slope=-1.0, beam_arcmin=20)
    pixels = grid.pixels + 2 * grid.margin
    area = PatchGrid(grid.size_deg * pixels / grid.pixels, pixels)
    cl = foreground_cl(area.ell, 2.0, -1.0) * gaussian_beam(area.ell, 20) ** 2
    each = np.mean(maps**2, axis=(0, 2, 3))
    wanted = np.sum(area.mode_weight * cl) / area.area_sr
    assert abs(each.mean() - wanted) < 4 * each.std(ddof=1) / np.sqrt(count)
    step = np.mean(np.abs(maps[..., 1:] - maps[..., :-1]))
    assert np.mean(np.abs(maps[..., 0] - maps[..., -1])) > 2 * step


def test_finer_pixels_see_the_same_foregrounds():
    fine = residual(Grid(size_deg=5, pixels=32, oversample=2), dl=5.0)
    plain = residual(Grid(size_deg=5, pixels=32), dl=5.0)
    # Without the Nyquist lines, which coarsening drops.
    grid, fewer = PatchGrid(5, 32), PatchGrid(5, 16)
    assert_allclose(coarsen(fine, grid, fewer), coarsen(plain, grid, fewer), atol=2e-5)


def test_nothing_else_changes():
    """Without foregrounds the bytes are those of a channel that knows none; with them T and the
    truth keep theirs, and null skies have foregrounds as any other."""
    plain, none = run(noise_uk_arcmin=1), run(noise_uk_arcmin=1, foreground_slope=-2)
    some = run(noise_uk_arcmin=1, foreground_dl_80=1)
    for field in FIELDS:
        assert np.array_equal(plain[field], none[field])
        assert np.array_equal(plain[field], some[field]) == (field[:2] not in ("q_", "u_"))
    null = Effects(taper_deg=0, null_fraction=0.99)
    assert residual(effects=null).std(axis=(2, 3)).min() > 0.1


def test_channels_have_foregrounds_of_their_own():
    channels = {name: Channel(foreground_dl_80=1e4) for name in ("a", "b")}
    fields = ("q_a", "q_b", "u_a")
    maps = simulate(
        [TABLE],
        SMALL,
        BARE,
        channels,
        seed=3,
        dataset="unit",
        realizations=range(20),
        fields=fields,
    )
    assert abs(np.corrcoef(maps["q_a"].ravel(), maps["q_b"].ravel())[0, 1]) < 0.2
    alone = simulate(
        [TABLE],
        SMALL,
        BARE,
        {"a": channels["a"]},
        seed=3,
        dataset="unit",
        realizations=range(20),
        fields=("q_a",),
    )
    assert np.array_equal(alone["q_a"], maps["q_a"])


def test_taper_is_on_them():
    tapered = residual(effects=Effects(taper_deg=1.5))
    assert np.abs(tapered[..., 0, :]).max() < 1e-3 * np.abs(tapered).max()


def test_simulation_still_agrees_with_theory(tmp_path):
    """The check judges fields in front of which no foreground lies."""
    TABLE.write(tmp_path / "spectra.csv")
    write_realizations(
        tmp_path / "0.h5",
        [tmp_path / "spectra.csv"],
        grid=SMALL,
        effects=Effects(),
        channels={"obs": Channel(foreground_dl_80=5.0)},
        fields=FIELDS,
        points=[{}],
        seed=3,
        dataset="unit",
        realizations=range(60),
    )
    table, verdicts = check([tmp_path / "spectra.csv"], [tmp_path / "0.h5"], dataset="unit")
    assert set(table.field) == {"e_prim", "kappa", "tau"}
    assert all(one["passed"] for one in verdicts)


def test_a_negative_power_is_refused():
    channel = {"obs": {"foreground_dl_80": -1}}
    with pytest.raises(UserError) as error:
        parse({"datasets": {"cmb": {"kind": "cmb", "channels": channel}}})
    assert str(error.value).startswith("datasets.cmb.channels.obs.foreground_dl_80: expected")
