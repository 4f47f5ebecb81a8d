"""A file in the layout of Planck HFI's maps, of which a study gives the path and no more.

Its sky is SFD98's, the beams' windows those of HFI's instrument model: needs the network, or the
files where `test_sky_real.py` and `test_beams.py` have them.
"""

import os
from pathlib import Path

import h5py
import healpy
import numpy as np
import pandas as pd
import pytest
import yaml
from astropy.io import fits

from forked_snakemake import snakemake
from skyweave.config import HealpixMap, Patches, parse
from skyweave.errors import UserError
from skyweave.simulation.beams import hfi_window
from skyweave.sky import sfd
from skyweave.sky.fetch import HFI_RIMO, SFD98, PackageData, fetch
from skyweave.sky.harmonic import band_limit, gaussian_window, transfer
from skyweave.sky.healpix import HFI_FWHM_ARCMIN, read_map
from skyweave.sky.patches import extract
from skyweave.sky.skymap import SkyMap, read_mask

ROOT = Path(__file__).parents[1]
#: The default, as no more than the path is given.
NSIDE = 512
NPIX = 12 * NSIDE**2
BEAM, NOISE = 4.92, 20.0  # arcmin; µK_CMB in a pixel
PATCHES = {"count": 10, "size_deg": 20, "pixels": 32, "low_arcmin": 180, "high_arcmin": 90}


def write_hfi(path: Path, columns: dict[str, np.ndarray], **cards: object) -> Path:
    """A frequency map as the Planck Legacy Archive has them; `cards` set to None are left out."""
    units = {"I_STOKES": "Kcmb", "II_COV": "Kcmb^2", "HITS": ""}
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name, "J" if name == "HITS" else "E", unit=units[name], array=values)
            for name, values in columns.items()
        ]
    )
    size = next(iter(columns.values())).size
    standard = {
        "EXTNAME": "FREQ-MAP",
        "PIXTYPE": "HEALPIX",
        "POLCCONV": "COSMO",
        "COORDSYS": "GALACTIC",
        "ORDERING": "NESTED",
        "NSIDE": healpy.npix2nside(size),
        "FIRSTPIX": 0,
        "LASTPIX": size - 1,
        "BAD_DATA": -1.6375e30,
        "FREQ": "353",
        "PROCVER": "test",
        "UNITFREQ": "GHz",
    }
    for key, value in {**standard, **cards}.items():
        if value is not None:
            table.header[key] = value
    table.writeto(path)
    return path


def kept(data: PackageData, name: str, factory: pytest.TempPathFactory) -> Path:
    """Folder that has the files; only one that the user named is written to."""
    folder = ROOT / "results" / "data" / name
    if "SKYWEAVE_DATA" in os.environ:
        folder = Path(os.environ["SKYWEAVE_DATA"])
    elif not all((folder / file).exists() for file in data.names):
        folder = factory.mktemp(name)
    fetch(data, folder)
    return folder


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> SkyMap:
    """SFD98 at 353 GHz."""
    folder = kept(SFD98, "sfd98", tmp_path_factory)
    return sfd.project(folder, NSIDE, 353.0)


@pytest.fixture(scope="module")
def bad() -> np.ndarray:
    """RING map (npix,) of the pixels without data: some alone, and two discs."""
    found = np.zeros(NPIX, bool)
    found[np.random.default_rng(1).choice(NPIX, 20, replace=False)] = True
    for lon, lat in ((40, 30), (220, -45)):
        centre = healpy.ang2vec(lon, lat, lonlat=True)
        found[healpy.query_disc(NSIDE, centre, np.radians(2))] = True
    return found


@pytest.fixture(scope="module")
def observed(sky: SkyMap, bad: np.ndarray) -> np.ndarray:
    """RING map (npix,), µK_CMB: the sky with noise, NaN where bad."""
    noise = np.random.default_rng(2).normal(0, NOISE, NPIX)
    return np.where(bad, np.nan, sky.intensity + noise)


@pytest.fixture(scope="module")
def study(observed: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the sky's rules have run, with the path of the map given and no more."""
    folder = tmp_path_factory.mktemp("hfi")
    nested = 1e-6 * healpy.reorder(np.nan_to_num(observed, nan=-1.6375e36), r2n=True)
    columns = {
        "I_STOKES": nested,
        "HITS": np.full(NPIX, 100),
        "II_COV": np.full(NPIX, (1e-6 * NOISE) ** 2),
    }
    write_hfi(folder / "hfi.fits", columns)
    dust = {"kind": "sky", "map": {"path": "hfi.fits"}, "patches": PATCHES}
    (folder / "study.yaml").write_text(yaml.safe_dump({"datasets": {"dust": dust}}))
    wanted = "results/datasets/dust/verdicts.json"
    done = snakemake(folder, "--cores", "2", "--configfile", "study.yaml", "--", wanted)
    logs = "\n".join(path.read_text() for path in (folder / "results" / "logs").rglob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return (folder / wanted).parent


def test_the_file_says_what_the_settings_do_not(study: Path) -> None:
    sky_map = SkyMap.read(study / "map.fits")
    assert (sky_map.frequency_ghz, sky_map.fwhm_arcmin, sky_map.nside) == (353, BEAM, NSIDE)
    with h5py.File(study / "patches.h5") as file:
        assert f'"fwhm_arcmin": {BEAM}' in file.attrs["provenance"]


def test_the_mask_is_made_of_signal_to_noise(
    study: Path, observed: np.ndarray, bad: np.ndarray
) -> None:
    steps = pd.read_csv(study / "mask_steps.csv").set_index("step")["f_sky"]
    assert steps["signal-to-noise"] == pytest.approx(np.mean(observed > 8 * NOISE), abs=1e-6)
    assert 0.5 < steps["signal-to-noise"] < 0.95
    assert not read_mask(study / "mask.fits")[bad].any()


def test_patches_are_those_of_the_sky_within_noise(study: Path, sky: SkyMap) -> None:
    places = pd.read_csv(study / "places.csv")
    patches = Patches(**PATCHES)
    expected = extract(sky, read_mask(study / "mask.fits"), places, patches, BEAM)
    lmax = band_limit(NSIDE, patches.high_arcmin)
    ell = np.arange(lmax + 1)
    with h5py.File(study / "patches.h5") as file:
        # Of holes in the map, filled from around them, noise says nothing.
        whole = np.asarray(file["mask"]).all(axis=(1, 2))
        assert whole.sum() >= 5
        for name, fwhm in (("high", patches.high_arcmin), ("low", patches.low_arcmin)):
            # White noise of the pixels, as the change of beam leaves it.
            cl = NOISE**2 * 4 * np.pi / NPIX * transfer(lmax, BEAM, fwhm, NSIDE) ** 2
            deviation = np.sqrt(np.sum((2 * ell + 1) / (4 * np.pi) * cl))
            noise = (np.asarray(file[name]) - expected[name])[whole]
            beams = whole.sum() * (60 * patches.size_deg / fwhm) ** 2
            assert noise.std() == pytest.approx(deviation, rel=3 / np.sqrt(2 * beams))
            assert abs(noise.mean()) < 3 * deviation / np.sqrt(beams)


@pytest.mark.parametrize("ghz", HFI_FWHM_ARCMIN)
def test_beams_are_known_by_the_header(tmp_path: Path, ghz: int) -> None:
    one = {"I_STOKES": np.ones(12)}
    for i, text in enumerate((f"{ghz}", f"F{ghz}", f"{ghz}-psb", f"{ghz} GHz", ghz, float(ghz))):
        found = read_map(write_hfi(tmp_path / f"{i}.fits", one, FREQ=text), 1, needs_beam=True)
        assert (found.frequency_ghz, found.fwhm_arcmin) == (ghz, HFI_FWHM_ARCMIN[ghz])
    # By the instrument's name, in the file's first header; not by the frequency alone.
    other = write_hfi(tmp_path / "other.fits", one, FREQ=ghz, EXTNAME=None)
    assert read_map(other, 1).fwhm_arcmin is None
    fits.setval(other, "INSTRUME", value="HFI", ext=0)
    assert read_map(other, 1).fwhm_arcmin == HFI_FWHM_ARCMIN[ghz]


def test_beams_are_off_hfis_own_windows_by_what_is_said(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """In percent at ell 1000, and nowhere below by more."""
    said = {100: -4.7, 143: -1.6, 217: -0.4, 353: -1.2, 545: 2.1, 857: 2.5}
    path = kept(HFI_RIMO, "hfi", tmp_path_factory) / "HFI_RIMO_R1.10.fits"
    for ghz, fwhm in HFI_FWHM_ARCMIN.items():
        off = 100 * (gaussian_window(1000, fwhm) / hfi_window(path, ghz)[:1001] - 1)
        assert off[1000] == pytest.approx(said[ghz], abs=0.05)
        assert np.abs(off).argmax() == 1000


def test_what_is_given_counts_before_the_header(tmp_path: Path) -> None:
    path = write_hfi(tmp_path / "a.fits", {"I_STOKES": np.ones(12)})
    found = read_map(path, 1, 360.0)
    assert (found.frequency_ghz, found.fwhm_arcmin) == (360, BEAM)


def test_the_beam_is_kept_in_the_map(tmp_path: Path) -> None:
    path = write_hfi(tmp_path / "a.fits", {"I_STOKES": np.ones(12)})
    for i, given in enumerate((read_map(path, 1), sky_of_none())):
        given.write(tmp_path / f"map{i}.fits")
        assert SkyMap.read(tmp_path / f"map{i}.fits").fwhm_arcmin == given.fwhm_arcmin


def sky_of_none() -> SkyMap:
    values = np.ones(12, np.float32)
    return SkyMap(values, None, np.zeros(12, bool), 353.0, "a map")


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"FREQ": None, "UNITFREQ": None}, "frequency in GHz in its header .*frequency_ghz, found"),
        ({"FREQ": "Q band"}, r"datasets\.dust\.map\.frequency_ghz, found Q band GHz"),
        ({"FREQ": "353000", "UNITFREQ": "MHz"}, r"map\.frequency_ghz, found 353000 MHz"),
        ({"FREQ": 3.53e11, "UNITFREQ": None}, r"map\.frequency_ghz, found 353000000000"),
        ({"FREQ": "70"}, r"Planck HFI by its header, or datasets\.dust\.map\.fwhm_arcmin for"),
        ({"EXTNAME": None}, r"datasets\.dust\.map\.fwhm_arcmin for its beam, found neither"),
    ],
)
def test_what_neither_says_is_named_with_the_file(
    tmp_path: Path, cards: dict, message: str
) -> None:
    path = write_hfi(tmp_path / "a.fits", {"I_STOKES": np.ones(12)}, **cards)
    with pytest.raises(UserError, match=message) as caught:
        read_map(path, 1, needs_beam=True, section="datasets.dust.map")
    assert str(caught.value).startswith(f"{path}: expected ")
    assert "\n" not in str(caught.value)


def test_a_path_alone_is_that_of_a_file() -> None:
    own = HealpixMap(path="a.fits")
    assert (own.source, own.fwhm_arcmin, own.frequency_ghz, own.nside) == ("file", None, None, 512)
    assert HealpixMap(**own.model_dump()) == own
    assert HealpixMap(source="file", path="a.fits") == own
    given = HealpixMap(path="a.fits", fwhm_arcmin=5, frequency_ghz=143)
    assert (given.fwhm_arcmin, given.frequency_ghz) == (5, 143)
    dust = HealpixMap()
    assert (dust.source, dust.fwhm_arcmin, dust.frequency_ghz) == ("sfd98", 6.1, 353)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "sfd98", "path": "a"}, "map.path: expected `source: file` with it"),
        ({"source": "file"}, "map.path: expected a file with `source: file`, found none"),
        ({"frequency_ghz": None}, "map.frequency_ghz: expected 353 with .*, found none"),
        ({"frequency_ghz": 143}, "map.frequency_ghz: expected 353 with .*, found 143"),
        ({"fwhm_arcmin": None}, "map.fwhm_arcmin: expected a beam with `source: sfd98`, found no"),
        ({"path": "a", "fwhm_arcmin": 20}, "patches.high_arcmin: expected at least the map's own"),
        ({"path": "a", "fwhm_arcmin": True}, "map.fwhm_arcmin: expected number, found True"),
        ({"path": "a", "nside": 48}, "map.nside: expected a power of two, found 48"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=rf"^datasets\.dust\.{message}") as caught:
        parse({"datasets": {"dust": {"kind": "sky", "map": settings}}})
    assert "\n" not in str(caught.value)
