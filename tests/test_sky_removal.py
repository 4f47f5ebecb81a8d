"""Point sources as an option of a sky dataset: taken out of the map before patches are cut."""

from dataclasses import replace
from pathlib import Path

import h5py
import healpy
import numpy as np
import pandas as pd
import pytest
import yaml

from forked_snakemake import snakemake
from skyweave.config import Mask, Patches, Split, parse
from skyweave.config.sky import PointSources
from skyweave.errors import UserError
from skyweave.seeds import generator
from skyweave.sky.harmonic import gaussian_sigma, gaussian_window
from skyweave.sky.healpix import read_map, read_mask, write_mask
from skyweave.sky.mask import planck_like
from skyweave.sky.patches import choose_places, extract
from skyweave.sky.projection import unit_vector
from skyweave.sky.skymap import SkyMap
from skyweave.sky.sources import inpaint
from skyweave.tasks.sky import cut_patches, remove_sources

NSIDE, FWHM = 64, 100.0
NPIX, LMAX = 12 * NSIDE**2, 2 * NSIDE
LON, LAT = healpy.pix2ang(NSIDE, np.arange(NPIX), lonlat=True)
PATCHES = Patches(count=10, size_deg=20, pixels=32, low_arcmin=240, high_arcmin=110)
SPLIT = Split()
SEED = 7
FIND = PointSources(remove="find")


def dust(seed: int) -> np.ndarray:
    """RING map (npix,), µK_CMB: a steep Gaussian field of standard deviation 1, seen with the
    beam, about 10."""
    ell = np.arange(2, LMAX + 1)
    cl = np.concatenate([np.zeros(2), ell**-2.5]) * gaussian_window(LMAX, FWHM) ** 2
    orders = healpy.Alm.getlm(LMAX)
    real, imaginary = generator(seed, "sky").standard_normal((2, orders[0].size))
    alm = np.where(orders[1] == 0, real, (real + 1j * imaginary) / 2**0.5) * np.sqrt(cl)[orders[0]]
    sky = healpy.alm2map(alm, NSIDE, LMAX)
    return 10 + sky / sky.std()


def beams(lon: np.ndarray, lat: np.ndarray, amplitude: float) -> np.ndarray:
    """RING map (npix,) of Gaussian beams."""
    away = np.arccos(np.clip(unit_vector(LON, LAT) @ unit_vector(lon, lat).T, -1, 1))
    return amplitude * np.exp(-(away**2) / (2 * gaussian_sigma(FWHM) ** 2)).sum(axis=1)


def sky_map(values: np.ndarray) -> SkyMap:
    values = values.astype(np.float32)
    return SkyMap(values, None, np.isnan(values), 353.0, "a map", NSIDE)


@pytest.fixture(scope="module")
def clean() -> SkyMap:
    return sky_map(dust(1))


@pytest.fixture(scope="module")
def places(clean: SkyMap) -> pd.DataFrame:
    """Where the workflow cuts its patches: the mask does not know of the sources."""
    return choose_places(planck_like(clean, Mask(smooth_deg=2))[0], PATCHES, SPLIT, SEED, "dust")


@pytest.fixture(scope="module")
def observed(clean: SkyMap, places: pd.DataFrame) -> SkyMap:
    """The sky with a bright source near the middle of each of three patches."""
    lon, lat = places["lon"].to_numpy()[:3], places["lat"].to_numpy()[:3]
    return sky_map(clean.intensity + beams(lon + 1, lat + 0.5, 20))


@pytest.fixture(scope="module")
def removed(observed: SkyMap, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the dataset that the workflow made with sources found and filled in.

    Another dataset's file does not say its beam, nor do its settings.
    """
    folder = tmp_path_factory.mktemp("removal")
    healpy.write_map(
        folder / "user.fits", observed.intensity, coord="G", column_units="uK_CMB", dtype="f4"
    )
    dataset = {
        "kind": "sky",
        "map": {"path": "user.fits", "nside": NSIDE, "fwhm_arcmin": FWHM, "frequency_ghz": 353},
        "mask": {"smooth_deg": 2},
        "sources": {"remove": "find"},
        "patches": PATCHES.model_dump(),
    }
    unknown = {"kind": "sky", "map": {"path": "user.fits", "frequency_ghz": 353}}
    study = {"seed": SEED, "datasets": {"dust": dataset, "unknown": unknown}}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    wanted = ["results/datasets/dust/patches.h5", "results/datasets/unknown/map.fits"]
    command = ["--cores", "4", "--keep-going", "--configfile", "study.yaml"]
    done = snakemake(folder, *command, "--", *wanted)
    logs = "\n".join(path.read_text() for path in (folder / "results" / "logs").rglob("*.log"))
    assert (folder / wanted[0]).exists(), done.stdout + done.stderr + logs
    assert done.returncode != 0
    return folder / "results" / "datasets" / "dust"


def test_patches_are_nearer_to_those_of_the_sky_without_sources(
    removed: Path, clean: SkyMap, observed: SkyMap, places: pd.DataFrame
) -> None:
    found = pd.read_csv(removed / "places.csv")
    pd.testing.assert_frame_equal(found, places)
    mask = read_mask(removed / "mask.fits")
    expected, kept = (extract(one, mask, places, PATCHES, FWHM) for one in (clean, observed))
    with h5py.File(removed / "patches.h5") as file:
        for name in ("high", "low"):
            patches = np.asarray(file[name])
            rest, whole = (
                np.sqrt(np.mean((one[:3] - expected[name][:3]) ** 2, axis=(1, 2)))
                for one in (patches, kept[name])
            )
            assert (whole > 0.3).all()
            assert (rest < whole / 10).all()
            # Where there was no source nothing is filled in.
            np.testing.assert_allclose(patches[3:], expected[name][3:], atol=0.02)


def test_sources_are_listed_and_the_map_is_kept(
    removed: Path, observed: SkyMap, places: pd.DataFrame
) -> None:
    table = pd.read_csv(removed / "sources.csv")
    assert list(table) == ["lon", "lat", "radius_arcmin", "amplitude", "snr"]
    assert len(table) == 3
    assert (table["radius_arcmin"] == 1.5 * FWHM).all()
    np.testing.assert_allclose(table["amplitude"], 20, rtol=0.05)
    injected = unit_vector(places["lon"][:3] + 1, places["lat"][:3] + 0.5)
    cosines = unit_vector(table["lon"], table["lat"]) @ injected.T
    assert np.degrees(np.arccos(cosines.max(axis=1))).max() < 0.1
    np.testing.assert_array_equal(SkyMap.read(removed / "map.fits").intensity, observed.intensity)
    cleaned = SkyMap.read(removed / "cleaned.fits")
    assert cleaned.intensity.max() < 16 < observed.intensity.max()


def test_a_beam_that_nobody_says_is_named_in_one_line(removed: Path) -> None:
    log = removed.parents[1] / "logs" / "sky_map" / "unknown.log"
    expected = "a map of Planck HFI by its header, or datasets.unknown.map.fwhm_arcmin for its beam"
    assert log.read_text() == f"user.fits: expected {expected}, found neither\n"


def remove(folder: Path, given: SkyMap, sources: PointSources, fwhm: float | None = FWHM) -> None:
    given.write(folder / "map.fits")
    paths = [folder / name for name in ("map.fits", "cleaned.fits", "sources.csv")]
    remove_sources(*paths, sources=sources, fwhm_arcmin=fwhm, dataset="dust")


def test_a_catalogue_says_what_is_filled_in_i_q_and_u(tmp_path: Path, clean: SkyMap) -> None:
    (tmp_path / "own.csv").write_text("glon,glat,radius\n30,40,200\n200,-50,300\n")
    (tmp_path / "bare.csv").write_text("glon,glat\n30,40\n200,-50\n")
    q, u = dust(2).astype(np.float32), dust(3).astype(np.float32)
    bad = np.hypot(LON - 100, LAT - 50) < 3
    given = replace(clean, intensity=np.where(bad, np.nan, clean.intensity), bad=bad, q=q, u=u)
    for name, radius in (("own", [200.0, 300.0]), ("bare", [2 * FWHM, 2 * FWHM])):
        path = str(tmp_path / f"{name}.csv")
        remove(tmp_path, given, PointSources(remove="catalogue", path=path, radius_beams=2))
        table = pd.read_csv(tmp_path / "sources.csv")
        expected = {"lon": [30, 200], "lat": [40, -50], "radius_arcmin": radius}
        pd.testing.assert_frame_equal(table, pd.DataFrame(expected), check_dtype=False)
        cleaned = SkyMap.read(tmp_path / "cleaned.fits")
        for key in ("intensity", "q", "u"):
            filled = inpaint(getattr(given, key), [30, 200], [40, -50], radius)
            np.testing.assert_array_equal(getattr(cleaned, key), filled.astype(np.float32))
        np.testing.assert_array_equal(cleaned.bad, bad)
        assert (cleaned.window_nside, cleaned.frequency_ghz) == (NSIDE, 353)


def test_a_sky_without_sources_stays_as_it_is(tmp_path: Path, clean: SkyMap) -> None:
    remove(tmp_path, replace(clean, fwhm_arcmin=FWHM), FIND, None)
    cleaned = SkyMap.read(tmp_path / "cleaned.fits")
    np.testing.assert_array_equal(cleaned.intensity, clean.intensity)
    assert pd.read_csv(tmp_path / "sources.csv").empty


def test_what_the_job_finds_amiss_is_said_in_one_line(tmp_path: Path, clean: SkyMap) -> None:
    cases = [
        (clean, None, r"^datasets\.dust\.map\.fwhm_arcmin: expected the beam of a map, which"),
        (clean, 40, r"^datasets\.dust\.map\.nside: expected at least 128 with `sources\.remove"),
        (clean, 0, r"^datasets\.dust\.map\.fwhm_arcmin: expected a beam above 0 with"),
    ]
    for given, fwhm, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            remove(tmp_path, given, FIND, fwhm)
        assert "\n" not in str(caught.value)
    no_file = PointSources(remove="catalogue", path=str(tmp_path / "no.csv"))
    with pytest.raises(UserError, match=r"no\.csv: expected a catalogue, CSV or FITS, found no"):
        remove(tmp_path, clean, no_file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"remove": "some"}, "sources.remove: expected 'none', 'find' or 'catalogue'"),
        ({"remove": "catalogue"}, "sources.path: expected a file with `remove: catalogue`, found"),
        ({"path": "a.csv"}, "sources.path: expected `remove: catalogue` with it, found `remove: n"),
        ({"remove": "find"}, "map.nside: expected at least 1024 with `sources.remove: find` .*512"),
        ({"snr": 0}, "sources.snr: expected greater than 0, found 0"),
        ({"radius_beams": 0}, "sources.radius_beams: expected greater than 0, found 0"),
    ],
)
def test_settings_that_do_not_fit_are_named(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=rf"^datasets\.dust\.{message}") as caught:
        parse({"datasets": {"dust": {"kind": "sky", "sources": change}}})
    assert "\n" not in str(caught.value)


def test_sources_can_be_found_at_a_finer_nside() -> None:
    values = {"kind": "sky", "sources": {"remove": "find"}, "map": {"nside": 1024}}
    dataset = parse({"datasets": {"dust": values}}).datasets["dust"]
    assert dataset.kind == "sky"
    assert dataset.sources == PointSources(remove="find", snr=8, latitude_deg=10, radius_beams=1.5)


# What else may be amiss with a map


def test_patches_sharper_than_the_files_beam_are_refused(tmp_path: Path, clean: SkyMap) -> None:
    replace(clean, fwhm_arcmin=120.0).write(tmp_path / "map.fits")
    message = r"^datasets\.dust\.patches\.high_arcmin: expected at least .* \(120 arcmin\), found 1"
    with pytest.raises(UserError, match=message) as caught:
        cut(tmp_path, np.ones(NPIX, bool), None)
    assert "\n" not in str(caught.value)


def cut(folder: Path, mask: np.ndarray, fwhm: float | None) -> tuple[np.ndarray, pd.DataFrame]:
    """Patches `high` (n, y, x) of map.fits in `folder`, and their places."""
    write_mask(folder / "mask.fits", mask)
    paths = [folder / name for name in ("map.fits", "mask.fits", "patches.h5", "places.csv")]
    cut_patches(*paths, patches=PATCHES, split=SPLIT, fwhm_arcmin=fwhm, seed=SEED, dataset="dust")
    with h5py.File(folder / "patches.h5") as file:
        return np.asarray(file["high"]), pd.read_csv(folder / "places.csv")


def test_pixels_without_data_leave_the_mask_be_it_a_whole_patch(
    tmp_path: Path, clean: SkyMap
) -> None:
    """Without a variance to tell, and with a smoothed mask that would take single ones in."""
    hole = unit_vector(LON, LAT) @ unit_vector(120.0, 50.0) > np.cos(np.radians(15))
    values = clean.intensity.copy()
    values[hole] = healpy.UNSEEN
    alone = np.arange(5, NPIX, 997)
    values[alone] = np.resize([np.nan, np.inf, healpy.UNSEEN], alone.size)
    healpy.write_map(tmp_path / "a.fits", values, coord="G", column_units="uK_CMB", dtype="f4")
    read = read_map(tmp_path / "a.fits", NSIDE, 353.0)
    mask = planck_like(read, Mask(smooth_deg=4, threshold=0.5))[0]
    assert mask[healpy.get_all_neighbours(NSIDE, alone[0])].all()
    assert not mask[hole].any()
    assert not mask[alone].any()
    read.write(tmp_path / "map.fits")
    patches, places = cut(tmp_path, mask, FWHM)
    assert np.isfinite(patches).all()
    assert np.abs(patches - 10).max() < 6
    # No more of a patch than the tenth that it may have outside of the mask.
    away = unit_vector(places["lon"], places["lat"]) @ unit_vector(120.0, 50.0)
    assert np.degrees(np.arccos(away.max())) > 15


def test_a_sky_of_bad_pixels_is_refused(tmp_path: Path) -> None:
    values = np.full(NPIX, healpy.UNSEEN, np.float32)
    healpy.write_map(tmp_path / "a.fits", values, coord="G", column_units="uK_CMB", dtype="f4")
    with pytest.raises(UserError, match=r"^a\.fits: expected pixels with a value .*, found none"):
        read_map(tmp_path / "a.fits", NSIDE, 353.0)
