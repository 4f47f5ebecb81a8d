"""FITS files of patches: read by pixell and astropy as they are, and back bit for bit."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose
from pixell import enmap

from skyweave.data.fits import read_fits, write_fits
from skyweave.errors import UserError
from skyweave.flat.fourier import inverse
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import eb_to_qu, qu_to_eb
from skyweave.simulation.gaussian import white_modes
from skyweave.sky.projection import patch_directions, unit_vector

GRIDS = [PatchGrid(5.0, 64), PatchGrid(5.0, 65)]
CENTRES = [(0.0, 0.0), (250.0, -60.0)]
UNITS = {f"{letter}_obs": "uK_CMB" for letter in "tqueb"} | {"kappa": "", "tau": ""}


def gaussian(grid: PatchGrid, name: str, seed: int = 1) -> np.ndarray:
    """Map of T or E, whose spectrum falls by e⁻⁴, or of B, whose rises as ell².

    Nothing at the mean, whose E and B are a matter of definition, and near the Nyquist multipoles.
    """
    shape = {"b": (grid.ell / 1000) ** 2}.get(name, 300 * np.exp(-grid.ell / 400))
    shape = np.where((grid.ell > 0) & (grid.ell < 0.8 * grid.ell_nyquist), shape, 0) * 1e-5
    random = np.random.default_rng([seed, "teb".index(name)])
    return inverse(white_modes(random, grid) * np.sqrt(shape), grid)


def sky(grid: PatchGrid, e: float = 1.0, b: float = 1.0) -> dict[str, np.ndarray]:
    q, u = eb_to_qu(e * gaussian(grid, "e"), b * gaussian(grid, "b"), grid)
    maps = {"t_obs": gaussian(grid, "t"), "q_obs": q, "u_obs": u}
    return {name: values.astype(np.float32) for name, values in maps.items()}


def some(maps: dict[str, np.ndarray], letters: str) -> dict[str, np.ndarray]:
    return {f"{letter}_obs": maps[f"{letter}_obs"] for letter in letters}


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("grid", GRIDS, ids=["even", "odd"])
@pytest.mark.parametrize("fractions", [(1, 1), (1, 0), (0, 1)], ids=["E and B", "E", "B"])
def test_pixell_finds_the_same_e_and_b(tmp_path, grid, centre, fractions):
    """pixell's E is ours, its B minus ours as it reads the file, and ours with IAU's U.

    By read_map U comes in COSMO, which is mirrored: E stays, B changes sign, as HEALPix's has it.
    The wavenumbers differ by pixell's estimate of the ZEA patch's extent along each axis on the
    sphere: 3e-6 here, 1e-3 a degree from a pole.
    """
    maps = sky(grid, *fractions)
    write_fits(tmp_path / "a.fits", maps, grid=grid, units=UNITS, lon=centre[0], lat=centre[1])
    e, b = qu_to_eb(maps["q_obs"], maps["u_obs"], grid)
    scale = rms(np.hypot(e, b))

    read = enmap.read_map(str(tmp_path / "a.fits"))
    assert_allclose(read[1], -maps["q_obs"])
    assert_allclose(read[2], maps["u_obs"])
    found_t, found_e, found_b = enmap.harm2map(enmap.map2harm(read, iau=False), spin=0)
    assert rms(found_t - maps["t_obs"]) < 1e-6 * rms(maps["t_obs"])
    assert rms(found_e - e) < 2e-3 * scale
    assert rms(found_b + b) < 2e-3 * scale

    with fits.open(tmp_path / "a.fits") as hdus:
        assert hdus[0].header["POLCCONV"] == "IAU"
        raw = enmap.enmap(hdus[0].data.astype(np.float32), read.wcs)
    found_e, found_b = enmap.harm2map(enmap.map2harm(raw[1:], spin=2, iau=True), spin=0)
    assert rms(found_e - e) < 2e-3 * scale
    assert rms(found_b - b) < 2e-3 * scale


@pytest.mark.parametrize("centre", [*CENTRES, (31.0, 89.0)])
@pytest.mark.parametrize("grid", GRIDS, ids=["even", "odd"])
def test_pixell_finds_the_same_places(tmp_path, grid, centre):
    path = tmp_path / "a.fits"
    write_fits(path, sky(grid), grid=grid, units=UNITS, lon=centre[0], lat=centre[1])
    read = enmap.read_map(str(path))
    assert read.shape == (3, grid.pixels, grid.pixels)
    # The geometry alone is taken from the first block of the file.
    shape, wcs = enmap.read_map_geometry(str(path))
    assert shape == read.shape
    assert_allclose(wcs.wcs.cdelt, [-grid.pixel_arcmin / 60, grid.pixel_arcmin / 60])
    lat, lon = np.degrees(enmap.center(shape, wcs))
    assert_allclose(unit_vector(lon, lat), unit_vector(*centre), atol=1e-12)
    lat, lon = np.degrees(read.posmap())
    expected = unit_vector(*patch_directions(*centre, grid))
    assert_allclose(unit_vector(lon, lat), expected, atol=1e-12)


def test_x_runs_against_east_in_pixell(tmp_path):
    grid = GRIDS[0]
    write_fits(tmp_path / "a.fits", sky(grid), grid=grid, units=UNITS, lon=120.0, lat=30.0)
    dec, ra = enmap.read_map(str(tmp_path / "a.fits")).posmap()
    middle = grid.pixels // 2
    assert (np.diff(dec[:, middle]) > 0).all()
    assert (np.diff(ra[middle]) < 0).all()
    assert_allclose(np.diff(dec[:, middle]), grid.pixel_rad, rtol=1e-3)


@pytest.mark.parametrize("grid", GRIDS, ids=["even", "odd"])
def test_astropy_finds_the_same_centre(tmp_path, grid):
    write_fits(tmp_path / "a.fits", sky(grid), grid=grid, units=UNITS, lon=250.0, lat=-60.0)
    wcs = WCS(fits.getheader(tmp_path / "a.fits")).celestial
    middle = (grid.pixels - 1) / 2
    place = wcs.pixel_to_world(middle, middle)
    assert place.frame.name == "galactic"
    assert_allclose([place.l.deg, place.b.deg], [250.0, -60.0])
    east = wcs.pixel_to_world(middle - 1, middle)
    assert_allclose(place.position_angle(east).deg, 90, atol=0.1)


def test_polarization_of_a_known_direction(tmp_path):
    """Along x, which is east-west: IAU Q = -1. Towards +x and +y, north-west: IAU U = -1."""
    grid, one = PatchGrid(5.0, 16), np.ones((16, 16))
    for q, u in ((1, 0), (0, 1)):
        maps = {"q_obs": q * one, "u_obs": u * one}
        write_fits(tmp_path / "a.fits", maps, grid=grid, units=UNITS)
        data = fits.getdata(tmp_path / "a.fits")
        assert np.array_equal(data, [-q * one, -u * one])


@pytest.mark.parametrize("letters", ["tqu", "qu", "t", "eb", "teb"])
@pytest.mark.parametrize("size_deg", [5.0, 20 / 3, 0.7])
def test_maps_come_back_bit_for_bit(tmp_path, letters, size_deg):
    grid = PatchGrid(size_deg, 33)
    random = np.random.default_rng(3)
    maps = {f"{letter}_obs": random.standard_normal((33, 33), np.float32) for letter in letters}
    write_fits(tmp_path / "a.fits", maps, grid=grid, units=UNITS, lon=12.3, lat=45.6)
    found, found_grid = read_fits(tmp_path / "a.fits")
    assert found_grid == grid
    assert list(found) == list(maps)
    for name, values in maps.items():
        assert found[name].dtype == np.float32
        assert found[name].tobytes() == values.tobytes()


def test_layout(tmp_path):
    """Stokes axis from I or Q; others are stacked in their order, and one map is an image."""
    grid = GRIDS[0]
    maps = sky(grid)
    e, b = qu_to_eb(maps["q_obs"], maps["u_obs"], grid)
    maps |= {"e_obs": e, "b_obs": b}

    def header(letters: str) -> tuple[fits.Header, tuple[str, ...]]:
        write_fits(tmp_path / "a.fits", some(maps, letters), grid=grid, units=UNITS)
        found = fits.getheader(tmp_path / "a.fits")
        return found, tuple(found["FIELD*"].values())

    for letters in ("tqu", "uqt"):
        found, names = header(letters)
        assert names == ("t_obs", "q_obs", "u_obs")
        assert (found["CTYPE3"].strip(), found["CRVAL3"], found["NAXIS3"]) == ("STOKES", 1, 3)
    found, names = header("uq")
    assert names == ("q_obs", "u_obs")
    assert (found["CTYPE3"].strip(), found["CRVAL3"], found["NAXIS3"]) == ("STOKES", 2, 2)
    found, names = header("be")
    assert names == ("b_obs", "e_obs")
    assert "CTYPE3" not in found
    found, names = header("e")
    assert names == ("e_obs",)
    assert found["NAXIS"] == 2
    assert enmap.read_map(str(tmp_path / "a.fits")).shape == (64, 64)


def test_header_says_unit_and_provenance(tmp_path):
    grid = GRIDS[0]
    provenance = {"seed": 7, "dataset": "cmb", "realization": 12, "noise_uk_arcmin": 1.5}
    arguments = {"grid": grid, "units": UNITS, "provenance": provenance}
    write_fits(tmp_path / "a.fits", sky(grid), **arguments)
    header = fits.getheader(tmp_path / "a.fits")
    assert {name: header[name] for name in provenance} == provenance
    assert (header["BUNIT"], header.comments["BUNIT"]) == ("uK", "uK_CMB")
    write_fits(tmp_path / "b.fits", sky(grid), **arguments)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    write_fits(tmp_path / "c.fits", {"kappa": sky(grid)["t_obs"]}, grid=grid, units=UNITS)
    assert fits.getheader(tmp_path / "c.fits")["BUNIT"] == ""


def test_a_map_that_pixell_wrote_in_cosmo_is_read(tmp_path):
    grid, maps = GRIDS[0], sky(GRIDS[0])
    write_fits(tmp_path / "a.fits", maps, grid=grid, units=UNITS, lon=250.0, lat=-60.0)
    header = fits.getheader(tmp_path / "a.fits")
    kept = {key: header[key] for key in ("SIZEDEG", "FIELD1", "FIELD2", "FIELD3")}
    read = enmap.read_map(str(tmp_path / "a.fits"))
    enmap.write_map(str(tmp_path / "b.fits"), read, extra=kept | {"POLCCONV": "COSMO"})
    found, found_grid = read_fits(tmp_path / "b.fits")
    assert found_grid == grid
    for name, values in maps.items():
        assert np.array_equal(found[name], values)


ONE = np.ones((16, 16))
WRONG = {
    "no map": ({}, {}, "at least one map"),
    "Q alone": ({"q_obs": ONE}, {}, "'u_obs' beside the other, found q_obs"),
    "U alone": ({"t_obs": ONE, "u_obs": ONE}, {}, "'q_obs' beside the other"),
    "U of another channel": ({"q_obs": ONE, "u_prim": ONE}, {}, "beside the other"),
    "two channels": (
        {f"{letter}_{part}": ONE for part in ("obs", "prim") for letter in "qu"},
        {},
        "alone or with the T of their channel",
    ),
    "Q, U and E": (dict.fromkeys(["q_obs", "u_obs", "e_obs"], ONE), {}, "alone or with the T"),
    "two units": (
        {"kappa": ONE, "e_obs": ONE},
        {},
        r"one unit \(kappa in no unit\), found e_obs in uK_CMB",
    ),
    "no unit": ({"t_obs": ONE}, {"units": {}}, "a unit for 't_obs'"),
    "no FITS unit": ({"t_obs": ONE}, {"units": {"t_obs": "parsnip"}}, "a unit that FITS knows"),
    "another shape": ({"t_obs": np.ones((16, 8))}, {}, r"shape \(16, 16\), found \(16, 8\)"),
    "a stack": ({"t_obs": np.ones((2, 16, 16))}, {}, r"shape \(16, 16\)"),
    "not finite": ({"t_obs": np.nan * ONE}, {}, "finite 't_obs'"),
    "no place": ({"t_obs": ONE}, {"lat": 91.0}, "a longitude and a latitude in degrees"),
    "provenance in Greek": ({"t_obs": ONE}, {"provenance": {"unit": "µK"}}, "a FITS card can hold"),
    "provenance over ours": ({"t_obs": ONE}, {"provenance": {"bunit": "K"}}, "of its own"),
    "provenance with a blank": ({"t_obs": ONE}, {"provenance": {"a b": 1}}, "letters, digits"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_written_is_one_line(tmp_path, case):
    maps, options, message = WRONG[case]
    arguments = {"grid": PatchGrid(5.0, 16), "units": UNITS | {"u_prim": "uK_CMB"}} | options
    with pytest.raises(UserError, match=message) as caught:
        write_fits(tmp_path / "a.fits", maps, **arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


STRANGE = {
    "no convention": ({"POLCCONV": None}, "POLCCONV in the header"),
    "no names": ({"FIELD1": None}, "FIELD1 in the header"),
    "a name too few": ({"FIELD3": None}, "'u_obs' beside the other"),
    "another convention": ({"POLCCONV": "HEALPIX"}, "POLCCONV IAU or COSMO, found 'HEALPIX'"),
    "another projection": ({"CTYPE1": "RA---TAN"}, "CTYPE1 = GLON-ZEA, found RA---TAN"),
    "x with east": ({"CDELT1": 0.3125}, "CDELT1 = -0.3125, found 0.3125"),
    "another centre": ({"CRPIX2": 1.0}, "CRPIX2 = 8.5, found 1.0"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_strange_header_is_one_line(tmp_path, case):
    changes, message = STRANGE[case]
    path = tmp_path / "a.fits"
    maps = dict.fromkeys(["t_obs", "q_obs", "u_obs"], ONE)
    write_fits(path, maps, grid=PatchGrid(5.0, 16), units=UNITS)
    with fits.open(path, mode="update") as hdus:
        for key, value in changes.items():
            if value is None:
                del hdus[0].header[key]
            else:
                hdus[0].header[key] = value
    with pytest.raises(UserError, match=message):
        read_fits(path)


def test_what_is_no_file_of_ours_is_one_line(tmp_path):
    path = tmp_path / "a.fits"
    with pytest.raises(UserError, match="a FITS file, found no file"):
        read_fits(path)
    path.write_text("no FITS file")
    with pytest.raises(UserError, match="an unreadable file"):
        read_fits(path)
    fits.PrimaryHDU().writeto(path, overwrite=True)
    with pytest.raises(UserError, match="an image in the primary HDU"):
        read_fits(path)
    write_fits(path, {"t_obs": ONE}, grid=PatchGrid(5.0, 16), units=UNITS)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="an unreadable file"):
        read_fits(path)
