"""Beam windows: tables against the Gaussian, Planck HFI's against the widths its file states.

The instrument model of HFI comes from the package client, or lies in the folder that SKYWEAVE_DATA
names or in results/data/hfi. Without either its test fails: the data cannot be had.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose
from scipy.special import j0

from skyweave.errors import UserError
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.grid import PatchGrid
from skyweave.simulation.beams import at_modes, hfi_window, read_window
from skyweave.sky.fetch import HFI_RIMO, fetch


def write(path: Path, ell: np.ndarray, window: np.ndarray) -> Path:
    np.savetxt(path, np.column_stack([ell, window]), header="ell b_ell", comments="", fmt="%.17g")
    return path


@pytest.mark.parametrize("start", [0, 1, 2])
def test_table_of_a_gaussian(start, tmp_path):
    ell = np.arange(start, 3001)
    path = write(tmp_path / "beam.txt", ell, 0.995 * gaussian_beam(ell, 5.0))
    window = read_window(path)
    every = np.arange(3001)
    assert window.shape == (3001,)
    assert window[0] == 1
    expected = gaussian_beam(every, 5.0) / gaussian_beam(np.array(start), 5.0)
    expected[:start] = 1
    assert_allclose(window, expected, rtol=1e-12)


def test_table_in_steps_is_interpolated(tmp_path):
    ell = np.arange(0, 3001, 25)
    window = read_window(write(tmp_path / "beam.txt", ell, gaussian_beam(ell, 5.0)))
    assert_allclose(window, gaussian_beam(np.arange(3001), 5.0), atol=2e-5)


@pytest.mark.parametrize("last", [800, 2000])
def test_gaussian_at_the_modes_of_a_grid_and_beyond_its_end(last):
    grid = PatchGrid(5.0, 128)
    assert grid.ell_nyquist > 4000
    window = gaussian_beam(np.arange(last + 1), 5.0)
    modes = at_modes(window, grid.ell)
    assert modes.shape == grid.ell.shape
    # Linear between multipoles: up to b'' / 8.
    assert_allclose(modes, gaussian_beam(grid.ell, 5.0), atol=1e-7)
    assert_allclose(modes[grid.ell > last], gaussian_beam(grid.ell[grid.ell > last], 5.0))


def test_tail_of_windows_that_end_at_nothing_or_above_one():
    ell = np.array([1.0, 3.0, 3.5, 6.0, 1e6])
    assert_allclose(
        at_modes(np.array([1, 1, 0.5, 0.25]), ell), [1, 0.25, *0.25 ** (ell[2:] / 3) ** 2]
    )
    for end in (0.0, -1e-3):
        assert_allclose(at_modes(np.array([1, 1, 0.5, end]), ell), [1, end, 0, 0, 0])
    assert_allclose(at_modes(np.array([1, 1, 1, 1.001]), ell), [1, 1.001, 1, 1, 1])


MISTAKES = {
    "missing column": (
        "ell beam\n0 1\n5 1\n",
        "a column 'b_ell' in the first line, found ell beam",
    ),
    "late": ("ell b_ell\n3 1\n50 0.9\n", "'ell' to start at 2 or below, found 3"),
    "short": ("ell b_ell\n0 1\n1 1\n2 1\n", "'ell' up to 3 at least, found 2"),
    "per cent": ("ell b_ell\n0 100\n50 90\n", "starts within 1 % of 1, found 100"),
    "no start": ("ell b_ell\n0 0\n50 0.9\n", "starts within 1 % of 1, found 0"),
    "negative": ("ell b_ell\n0 1\n50 -0.1\n", "no negative value in 'b_ell', found -0.1"),
    "not finite": ("ell b_ell\n0 1\n50 nan\n", "finite values in 'b_ell', found nan"),
    "decreasing": ("ell b_ell\n0 1\n50 1\n40 1\n", "'ell' to increase, found 40 after 50"),
    "words": ("ell b_ell\n0 1\n50 wide\n", "numbers in line 3, found 50 wide"),
    "empty": ("", "found an empty file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_table_is_one_line(mistake, tmp_path):
    text, message = MISTAKES[mistake]
    (path := tmp_path / "beam.txt").write_text(text)
    with pytest.raises(UserError) as error:
        read_window(path)
    assert str(error.value).startswith(f"{path}: expected ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def rimo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The instrument model; only a folder that the user named is written to."""
    folder = Path(__file__).parents[1] / "results" / "data" / "hfi"
    if "SKYWEAVE_DATA" in os.environ:
        folder = Path(os.environ["SKYWEAVE_DATA"])
    elif not all((folder / name).exists() for name in HFI_RIMO.names):
        folder = tmp_path_factory.mktemp("hfi")
    return fetch(HFI_RIMO, folder)["HFI_RIMO_R1.10.fits"]


def full_width(window: np.ndarray) -> float:
    """Full width at half maximum, arcmin, of the beam that `window`, from ell 0, belongs to."""
    ell, theta = np.arange(len(window)), np.arange(0, 6, 0.1)
    beam = j0(np.radians(theta / 60)[:, None] * (ell + 0.5)) @ ((2 * ell + 1) * window)
    return 2 * np.interp(-beam[0] / 2, -beam, theta)


def test_windows_of_hfi_have_the_widths_that_its_file_states(rimo):
    """To 2 % the Gaussians fitted to the maps' effective beams, averages over a pixel's pointings.

    The windows are another code's work, without the pixels. Were they b_ell², the widths would be
    29 % below the stated ones.
    """
    ell, pixel = np.arange(9000), np.sqrt(np.pi / 3) / 2048
    pixels = np.exp(-ell * (ell + 1) * pixel**2 / 24)
    stated = fits.getdata(rimo, "MAP_PARAMS")
    assert list(stated["FREQUENCY"]) == ["100", "143", "217", "353", "545", "857"]
    for row in stated:
        window = hfi_window(rimo, float(row["FREQUENCY"]))
        assert window.shape == (4001,)
        assert window.dtype == np.float64
        assert window[0] == 1
        assert np.all(window > 0)
        width = full_width(at_modes(window, ell) * pixels)
        assert_allclose(width, row["FWHMGAUS"], rtol=0.02)


def test_missing_frequency_of_hfi_is_one_line(rimo):
    there = ", ".join(f"BEAMWF_{ghz}X{ghz}" for ghz in (100, 143, 217, 353, 545, 857))
    with pytest.raises(UserError) as error:
        hfi_window(rimo, 30)
    assert str(error.value) == f"{rimo}: expected an extension BEAMWF_30X30, found {there}"


def toy_model(path: Path, column: str = "NOMINAL", lmin: int = 0, first: float = 1.0) -> Path:
    values = np.array([first, 1.0, 0.9, 0.8], np.float32)
    table = fits.BinTableHDU.from_columns([fits.Column(column, "E", array=values)])
    table.name = "BEAMWF_143X143"
    table.header["LMIN"] = lmin
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


def test_toy_model_is_read(tmp_path):
    path = toy_model(tmp_path / "toy.fits", first=0.995)
    assert_allclose(hfi_window(path, 143.0) * 0.995, [0.995, 1, 0.9, 0.8], rtol=1e-6)


def not_fits(path: Path) -> Path:
    path.write_text("ell b_ell\n0 1\n")
    return path


def image(path: Path) -> Path:
    fits.writeto(path, np.ones((4, 4)))
    return path


def cut(path: Path) -> Path:
    whole = toy_model(path).read_bytes()
    path.write_bytes(whole[: len(whole) - 2880 + 5])
    return path


WRONG = {
    "no file": (lambda path: path, "an instrument model of Planck HFI, found no file"),
    "not FITS": (not_fits, "an instrument model of Planck HFI, found "),
    "cut off": (cut, "model of Planck HFI, found File may have been truncated"),
    "another FITS": (image, "an extension BEAMWF_143X143, found none like it"),
    "another column": (lambda path: toy_model(path, "B_ELL"), "Planck HFI, found "),
    "late": (lambda path: toy_model(path, lmin=2), "from ell 0 up, found 4 values from 2"),
    "not finite": (lambda path: toy_model(path, first=np.nan), "BEAMWF_143X143, found nan"),
    "not a window": (lambda path: toy_model(path, first=0.5), "starts within 1 % of 1, found 0.5"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_instrument_model_is_one_line(mistake, tmp_path):
    make, message = WRONG[mistake]
    path = make(tmp_path / "model.fits")
    with pytest.raises(UserError) as error:
        hfi_window(path, 143)
    assert str(error.value).startswith(f"{path}: expected ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
