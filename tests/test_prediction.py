"""A trained network on a user's own maps: by the command, from every kind of file, or refused."""

import json
import shutil
from functools import lru_cache

import h5py
import healpy
import keras
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal
from pixell import enmap

from skyweave.cli import main
from skyweave.config import Network
from skyweave.data.fits import write_fits
from skyweave.data.normalization import Normalization
from skyweave.data.shards import write_shard
from skyweave.files import sha256
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb
from skyweave.flat.taper import cosine_taper
from skyweave.images.stretch import Scale
from skyweave.networks import card as card_module
from skyweave.networks import residual_denoiser, vae
from skyweave.networks.card import Card, predict, save_network
from skyweave.networks.registry import build
from skyweave.statistics.tables import write_table

GRID = PatchGrid(20.0, 16)
TAPER_DEG = 5.0
TAPER = cosine_taper(GRID, TAPER_DEG)
RMS = float(np.sqrt(np.mean(TAPER**2)))
#: Of maps of unit rms, tapered.
MOMENTS = dict.fromkeys(("q_obs", "u_obs", "e_obs", "kappa"), (0.0, 3 * RMS)) | {
    "tau": (0.0, 2.5e-3),
    "e_prim": (0.0, 4.0),
}
UNITS = {"q_obs": "uK_CMB", "u_obs": "uK_CMB", "e_obs": "uK_CMB", "e_prim": "uK_CMB"}
SETTINGS = {
    "effects": {"taper_deg": TAPER_DEG, "lensing": True, "null_fraction": 0.2},
    "channels": {"obs": {"beam_arcmin": 90.0, "noise_uk_arcmin": 1.0}},
}


def card(**changes) -> Card:
    entries = {
        "inputs": ("q_obs", "u_obs"),
        "outputs": ("tau", "e_prim"),
        "units": UNITS | {"tau": "", "kappa": ""},
        "normalization": Normalization(MOMENTS),
        "size_deg": GRID.size_deg,
        "pixels": GRID.pixels,
        "seed": 3,
        "data": {
            "dataset": "cmb",
            "provenance": {"settings": SETTINGS},
            "realizations": {"test": 10, "train": 80, "validation": 10},
        },
        "metrics": {"epoch": 4, "val_loss": 0.7},
    }
    return Card(**(entries | changes))


@pytest.fixture(scope="module", autouse=True)
def _each_network_is_loaded_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card_module, "load_network", lru_cache(card_module.load_network))
        yield


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small network of random weights."""
    folder = tmp_path_factory.mktemp("network")
    model = build(Network(width=0.0625), 16, ("q_obs", "u_obs"), ("tau", "e_prim"), 3)
    save_network(folder, model, card())
    return folder


@pytest.fixture(scope="module")
def amplitude(tmp_path_factory):
    """A network that gives its pixels' polarized intensity, a scalar, and a fifth as error."""
    folder = tmp_path_factory.mktemp("amplitude")
    maps = keras.Input((16, 16, 2))
    square = keras.ops.sum(maps**2, axis=-1, keepdims=True)
    variance = keras.ops.log(square / 25 + 1e-20)
    outputs = {"kappa": keras.ops.sqrt(square), "kappa_log_variance": variance}
    own = card(outputs=("kappa",), settings={"network": {"uncertainty": True}})
    save_network(folder, keras.Model(maps, outputs), own)
    return folder


def maps(count: int = 3, pixels: int = 16, rms: float = 3.0) -> dict[str, np.ndarray]:
    """Bare Q and U (n, y, x), µK."""
    rng = np.random.default_rng(5)
    shape = (count, pixels, pixels)
    return {name: rms * rng.standard_normal(shape, np.float32) for name in ("q_obs", "u_obs")}


def tapered(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: one * TAPER.astype(np.float32) for name, one in values.items()}


def read(path) -> dict[str, np.ndarray]:
    """Fields of a file of predictions."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            return {name: file[name] for name in ("tau", "e_prim") if name in file}
    if path.suffix == ".fits":
        with fits.open(path) as hdus:
            return {hdu.header["EXTNAME"].lower(): hdu.data.astype(np.float32) for hdu in hdus}
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


def equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], rows=slice(None)) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].shape == values[rows].shape
        assert_allclose(found[name], values[rows], rtol=1e-4, atol=1e-4 * np.std(values))


def said(capsys, *words) -> str:
    """The one line that a refused command says."""
    assert main([str(word) for word in words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("skyweave: ")
    return line


def run(*words) -> None:
    assert main([str(word) for word in words]) == 0


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".fits"])
def test_arrays_in_microkelvin(network, tmp_path, suffix):
    own, out = maps(), tmp_path / f"out{suffix}"
    np.savez(tmp_path / "own.npz", **own)
    run("predict", network, tmp_path / "own.npz", "-o", out)
    equal(read(out), predict(network, tapered(own)))


def test_any_file_of_the_network_names_it(network, tmp_path):
    np.savez(tmp_path / "own.npz", **maps(1))
    for number, name in enumerate(("network.keras", "card.json")):
        run("predict", network / name, tmp_path / "own.npz", "-o", tmp_path / f"{number}.npz")
    equal(read(tmp_path / "0.npz"), read(tmp_path / "1.npz"))


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_in_kelvin_named_by_their_letters(network, tmp_path, compressed):
    """One map (y, x) comes back as one."""
    own = maps()
    arrays = {name[0]: 1e-6 * values[0] for name, values in own.items()}
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "own.npz", **arrays, units="K_CMB", size_deg=20.0)
    run("predict", network, tmp_path / "own.npz", "-o", tmp_path / "out.npz")
    equal(read(tmp_path / "out.npz"), predict(network, tapered(own)), 0)


def test_a_unit_of_the_user_stands_above_that_of_the_file(network, tmp_path, capsys):
    own = maps()
    np.savez(tmp_path / "k.npz", **{name: 1e-6 * values for name, values in own.items()})
    line = said(capsys, "predict", network, tmp_path / "k.npz", "-o", tmp_path / "out.npz")
    expected = f"{3 * RMS:.3g} uK_CMB"
    assert f"k.npz, q_obs: expected an rms within a factor 3 of {expected}" in line
    assert line.endswith("e-06 uK_CMB")
    run("predict", network, tmp_path / "k.npz", "--unit", "K", "-o", tmp_path / "out.npz")
    equal(read(tmp_path / "out.npz"), predict(network, tapered(own)))


def test_a_shard_as_it_is(network, tmp_path):
    """It carries the taper, and says so."""
    own = tapered(maps())
    provenance = {"settings": SETTINGS}
    units = dict.fromkeys(own, "uK_CMB")
    numbers = np.arange(3)
    write_shard(
        tmp_path / "0.h5",
        own,
        realizations=numbers,
        size_deg=20.0,
        units=units,
        provenance=provenance,
    )
    run("predict", network, tmp_path / "0.h5", "-o", tmp_path / "out.h5")
    equal(read(tmp_path / "out.h5"), predict(network, own))
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["e_prim"].attrs["units"] == "uK_CMB"
        assert file.attrs["taper_deg"] == TAPER_DEG
        made_by = json.loads(file.attrs["made_by"])
    assert made_by["network_sha256"] == sha256(network / "network.keras")
    assert made_by["input_sha256"] == sha256(tmp_path / "0.h5")
    assert made_by["dataset"] == "cmb"
    assert made_by["command"].startswith("skyweave predict ")
    assert {"keras", "skyweave", "numpy"} <= set(made_by["versions"])


def test_a_shard_of_another_taper_is_refused(network, tmp_path, capsys):
    provenance = {"settings": {"effects": {"taper_deg": 2.5}}}
    write_shard(
        tmp_path / "0.h5",
        maps(),
        realizations=[0, 1, 2],
        size_deg=20.0,
        units=dict.fromkeys(maps(), "uK_CMB"),
        provenance=provenance,
    )
    line = said(capsys, "predict", network, tmp_path / "0.h5", "-o", tmp_path / "out.h5")
    assert "expected maps without a taper, or with the network's of 5 deg, found 2.5 deg" in line


def test_the_projects_own_fits(network, tmp_path):
    """pixell reads what comes out, on the pixels of what went in."""
    own, units = maps(1), {"q_obs": "uK_CMB", "u_obs": "uK_CMB"}
    first = {name: values[0] for name, values in own.items()}
    write_fits(tmp_path / "obs.fits", first, grid=GRID, units=units, lon=120.0, lat=-40.0)
    run("predict", network, tmp_path / "obs.fits", "-o", tmp_path / "out.fits")
    expected = predict(network, tapered(own))
    equal(read(tmp_path / "out.fits"), expected, 0)
    wcs = enmap.read_map(str(tmp_path / "obs.fits")).wcs
    for hdu, name in enumerate(expected):
        found = enmap.read_map(str(tmp_path / "out.fits"), hdu=hdu)
        assert_allclose(found.wcs.wcs.crval, wcs.wcs.crval)
        assert_allclose(found.wcs.wcs.cdelt, wcs.wcs.cdelt)
        assert_allclose(found, expected[name][0], rtol=1e-4, atol=1e-4 * expected[name].std())
    with fits.open(tmp_path / "out.fits") as hdus:
        headers = {hdu.header["EXTNAME"]: hdu.header for hdu in hdus}
    assert (headers["E_PRIM"]["BUNIT"], headers["TAU"]["BUNIT"]) == ("uK", "")
    assert headers["TAU"]["INSHA"] == sha256(tmp_path / "obs.fits")


def enmaps(east: bool, components: int = 3) -> enmap.ndmap:
    """(T,) Q, U of pixell, COSMO: the sky of `maps`, on columns that go east or against it."""
    half = np.radians(10)
    edge = -half if east else half
    _, wcs = enmap.geometry([[-half, edge], [half, -edge]], shape=(16, 16), proj="car")
    q, u = (values[0] for values in maps(1).values())
    # Flat to IAU turns both signs, IAU to COSMO that of U.
    stack = np.stack([np.zeros_like(q), -q, u])[-components:]
    return enmap.enmap(stack[..., ::-1] if east else stack, wcs)


@pytest.mark.parametrize("components", [2, 3])
@pytest.mark.parametrize("east", [False, True])
def test_fits_of_pixell(network, tmp_path, east, components):
    """Rows towards north and columns against east or with it: the same sky either way."""
    enmap.write_map(str(tmp_path / "own.fits"), enmaps(east, components))
    run("predict", network, tmp_path / "own.fits", "-o", tmp_path / "out.fits")
    expected = predict(network, tapered(maps(1)))
    found = read(tmp_path / "out.fits")
    equal({n: v[..., ::-1] if east else v for n, v in found.items()}, expected, 0)
    written = enmap.read_map(str(tmp_path / "out.fits"))
    assert_allclose(written.wcs.wcs.cdelt, enmaps(east).wcs.wcs.cdelt)


@pytest.mark.parametrize("convention", ["IAU", "COSMO"])
def test_polcconv_is_honoured(network, tmp_path, convention):
    """In IAU U has the other sign; pixell takes a Stokes axis without POLCCONV for IAU."""
    stokes = {"CTYPE3": "STOKES", "CRPIX3": 1.0, "CRVAL3": 1.0, "CDELT3": 1.0}
    own = enmaps(False)
    if convention == "IAU":
        own[2] *= -1
    for name, extra in (("said", stokes | {"POLCCONV": convention}), ("usual", stokes)):
        enmap.write_map(str(tmp_path / f"{name}.fits"), own, extra=extra)
    expected = predict(network, tapered(maps(1)))
    run("predict", network, tmp_path / "said.fits", "-o", tmp_path / "said.npz")
    equal(read(tmp_path / "said.npz"), expected, 0)
    words = () if convention == "IAU" else ("--convention", "cosmo")
    run("predict", network, tmp_path / "usual.fits", *words, "-o", tmp_path / "usual.npz")
    equal(read(tmp_path / "usual.npz"), expected, 0)


def test_a_stack_of_maps_in_kelvin(network, tmp_path):
    own = maps()
    stack = np.stack([-own["q_obs"], own["u_obs"]], axis=1) * 1e-6
    extra = {"BUNIT": "K"}
    enmap.write_map(str(tmp_path / "own.fits"), enmap.enmap(stack, enmaps(False).wcs), extra=extra)
    run("predict", network, tmp_path / "own.fits", "-o", tmp_path / "out.fits")
    equal(read(tmp_path / "out.fits"), predict(network, tapered(own)))


def test_e_is_made_of_tapered_q_and_u(tmp_path):
    inputs = ("q_obs", "u_obs", "e_obs")
    model = build(Network(width=0.0625), 16, inputs, ("tau",), 3)
    save_network(tmp_path, model, card(inputs=inputs, outputs=("tau",)))
    own = maps()
    np.savez(tmp_path / "own.npz", **own)
    run("predict", tmp_path, tmp_path / "own.npz", "-o", tmp_path / "out.npz")
    expected = tapered(own)
    expected["e_obs"] = qu_to_eb(expected["q_obs"], expected["u_obs"], GRID)[0]
    equal(read(tmp_path / "out.npz"), predict(tmp_path, expected))


def test_a_larger_map_is_predicted_by_tiles(amplitude, tmp_path):
    """Of any shape; joined, with the taper along its own edges."""
    rng = np.random.default_rng(1)
    own = {name: 3 * rng.standard_normal((2, 30, 45)) for name in ("q_obs", "u_obs")}
    np.savez(tmp_path / "own.npz", **own, pixel_arcmin=75.0)
    run("predict", amplitude, tmp_path / "own.npz", "-o", tmp_path / "out.h5")
    found = read(tmp_path / "out.h5")
    edge = np.diagonal(TAPER)[:4] ** 0.5

    def profile(pixels: int) -> np.ndarray:
        return np.concatenate([edge, np.ones(pixels - 8), edge[::-1]])

    whole = np.outer(profile(30), profile(45))
    expected = np.hypot(own["q_obs"], own["u_obs"]) * whole
    assert_allclose(found["kappa"], expected, rtol=1e-4, atol=1e-5)
    assert_allclose(found["kappa_sigma"], expected / 5, rtol=1e-4, atol=1e-5)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["kappa_sigma"].attrs["units"] == ""


def smooth_sky(nside: int = 64) -> np.ndarray:
    """Q and U, COSMO, RING, of waves much longer than the pixels of `GRID`."""
    rng = np.random.default_rng(2)
    ell = np.arange(13)
    power = np.where(ell >= 2, np.exp(-ell / 4), 0)
    size = healpy.Alm.getsize(12)
    alm = np.stack([rng.standard_normal(2 * size).view(complex) for _ in range(2)])
    alm[:, : ell.size] = alm[:, : ell.size].real
    alm = [healpy.almxfl(one, np.sqrt(power)) for one in alm]
    q, u = healpy.alm2map_spin(alm, nside, 2, 12)
    return 3 * np.array([q, u]) / np.std([q, u])


@pytest.mark.parametrize("convention", ["COSMO", "IAU"])
def test_a_healpix_map(amplitude, tmp_path, convention):
    """Polarized intensity comes back where the sky was seen, whatever the tiles' axes are."""
    q, u = smooth_sky()
    lon, lat = healpy.pix2ang(64, np.arange(q.size), lonlat=True)
    seen = (lat > -30) | (lon > 200)
    own = np.where(seen, [1e-6 * q, 1e-6 * u * (1 if convention == "COSMO" else -1)], healpy.UNSEEN)
    own[:, 12345] = np.nan  # a hole
    # Such long waves have no pixels' window to speak of, whether it is undone or not.
    header = [("POLCCONV", convention), *([("PIXWIN", 0)] if convention == "COSMO" else [])]
    healpy.write_map(
        tmp_path / "own.fits",
        own,
        coord="G",
        column_units="K_CMB",
        extra_header=header,
        dtype=np.float64,
    )
    run("predict", amplitude, tmp_path / "own.fits", "-o", tmp_path / "out.fits")
    maps, head = healpy.read_map(tmp_path / "out.fits", field=None, h=True, dtype=np.float64)
    found, sigma = maps
    known = found != healpy.UNSEEN
    assert not known[~seen].any()
    assert not known[12345]
    far = healpy.query_disc(64, healpy.ang2vec(30, 40, lonlat=True), np.radians(30))
    assert known[np.setdiff1d(far, [12345])].all()
    truth = np.hypot(q, u)
    error = np.abs(found - truth)[known]
    assert np.median(error) < 0.02 * truth.std()
    assert np.corrcoef(found[known], truth[known])[0, 1] > 0.995
    head = dict(head)
    assert (head["TTYPE1"], head["TTYPE2"]) == ("KAPPA", "KAPPA_SIGMA")
    assert_allclose(sigma[known], found[known] / 5, rtol=0.05, atol=0.02)
    assert_array_equal(sigma == healpy.UNSEEN, ~known)
    assert head["INSHA"] == sha256(tmp_path / "own.fits")


@pytest.mark.parametrize(
    ("change", "words", "expected", "found"),
    [
        ({"pixel_arcmin": 60.0}, [], "pixels of 75 arcmin, as the network's", "60"),
        ({"size_deg": 20.1}, [], "pixels of 75 arcmin", "75.375"),
        ({}, ["--pixel-arcmin", 80], "pixels of 75 arcmin", "80"),
        ({"pixel_arcmin": "wide"}, [], "a number as 'pixel_arcmin'", "'wide'"),
        (maps(3, 12), [], "at least 16 x 16 pixels", "12 x 12"),
        ({"q_obs": np.full((3, 16, 16), np.nan)}, [], "finite values", "not"),
        ({"u_obs": maps(2)["u_obs"]}, [], "maps of shape (3, 16, 16)", "(2, 16, 16)"),
        (maps(3, rms=30), [], "an rms within a factor 3 of", "uK_CMB"),
        ({"units": "MJy/sr"}, [], "a thermodynamic temperature", "'MJy/sr'"),
        ({"units": "arcmin"}, [], "a unit such as K_CMB", "'arcmin'"),
        ({}, ["--tapered"], "network's taper brings to zero at their edges", "of the map's rms"),
        (tapered(maps()), [], "maps without a taper, or `--tapered`", "zero at its edges"),
        ({"q_obs": None}, [], "the network's input 'q_obs'", "u_obs"),
        ({"q_obs": None, "u_obs": None}, [], "an array of q_obs, u_obs", "none"),
        (maps(3, 40) | {"taper_deg": 5.0}, [], "16 x 16 pixels, or larger ones without", "40"),
    ],
)
def test_unfit_arrays_are_refused(network, tmp_path, capsys, change, words, expected, found):
    arrays = {name: values for name, values in (maps() | change).items() if values is not None}
    np.savez(tmp_path / "own.npz", **arrays)
    out = tmp_path / "out.npz"
    line = said(capsys, "predict", network, tmp_path / "own.npz", "-o", out, *words)
    assert str(tmp_path / "own.npz") in line
    asked, _, answer = line.partition(", found ")
    assert expected in asked
    assert found in answer
    assert not out.exists()


def test_tapered_maps_are_taken_as_they_are(network, tmp_path):
    own = tapered(maps())
    np.savez(tmp_path / "own.npz", **own)
    run("predict", network, tmp_path / "own.npz", "-o", tmp_path / "out.npz", "--tapered")
    equal(read(tmp_path / "out.npz"), predict(network, own))


def test_files_that_are_none_of_these(network, tmp_path, capsys):
    text, broken = tmp_path / "own.txt", tmp_path / "own.fits"
    text.write_text("no maps")
    broken.write_text("no maps")
    np.savez(tmp_path / "own.npz", **maps())
    whole = (tmp_path / "own.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out.npz"
    for own, expected in (
        (text, "an .npz or HDF5 file"),
        (broken, "a FITS file of maps"),
        (tmp_path / "half.npz", "an .npz or HDF5 file"),
        (tmp_path / "none.npz", "a file of maps, found none"),
    ):
        assert expected in said(capsys, "predict", network, own, "-o", out)
    own = tmp_path / "own.npz"
    line = said(capsys, "predict", network, own, "-o", tmp_path / "out.txt")
    assert "a name that ends in .fits, .h5, .hdf5, .npz, found .txt" in line
    line = said(capsys, "predict", tmp_path / "no", own, "-o", out)
    assert "the folder of a trained network" in line
    assert not out.exists()


def test_a_file_is_not_replaced_unasked(network, tmp_path, capsys):
    np.savez(tmp_path / "own.npz", **maps())
    out = tmp_path / "out.npz"
    out.write_text("dear")
    line = said(capsys, "predict", network, tmp_path / "own.npz", "-o", out)
    assert "expected a new file, or `--overwrite`, found one that is there" in line
    assert out.read_text() == "dear"
    run("predict", network, tmp_path / "own.npz", "-o", out, "--overwrite")
    assert set(read(out)) == {"tau", "e_prim"}


def test_an_output_that_cannot_be_written_is_one_line(network, tmp_path, capsys):
    np.savez(tmp_path / "maps.npz", **tapered(maps()), pixel_arcmin=GRID.pixel_arcmin)
    (tmp_path / "folder.npz").mkdir()
    words = ("predict", str(network), str(tmp_path / "maps.npz"), "--tapered", "-o")
    for out in (tmp_path / "maps.npz" / "out.npz", tmp_path / "folder.npz"):
        assert main([*words, str(out), "--overwrite"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("skyweave: ")
        assert error.count("\n") == 1


def test_a_healpix_map_that_is_too_coarse_or_no_polarization(network, tmp_path, capsys):
    out = tmp_path / "out.fits"
    healpy.write_map(tmp_path / "coarse.fits", smooth_sky(32), coord="G")
    line = said(capsys, "predict", network, tmp_path / "coarse.fits", "-o", out)
    assert "an nside of at least 64 for pixels of 75 arcmin, found 32" in line
    healpy.write_map(tmp_path / "t.fits", smooth_sky(64)[0], coord="G")
    assert "columns of Q" in said(capsys, "predict", network, tmp_path / "t.fits", "-o", out)
    seen = np.where(np.arange(12 * 64**2) < 100, smooth_sky(64), healpy.UNSEEN)
    healpy.write_map(tmp_path / "small.fits", seen, coord="G")
    line = said(capsys, "predict", network, tmp_path / "small.fits", "-o", out)
    assert "a region as large as a patch of 20 deg" in line
    line = said(capsys, "predict", network, tmp_path / "t.fits", "-o", tmp_path / "out.npz")
    assert "a name that ends in .fits, found .npz" in line


def test_the_card_in_a_dozen_lines(network, tmp_path, capsys):
    run("card", network)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 14
    text = "\n".join(lines)
    for words in (
        "80 train, 10 validation, 10 test",
        f"q_obs (rms {3 * RMS:.3g} uK_CMB)",
        "20 deg, 16 x 16 pixels of 75 arcmin",
        "cosine over 5 deg",
        "beam 90 arcmin, white noise 1 uK-arcmin in T, 1.41 in Q and U",
        "epoch 4, val_loss 0.7",
        sha256(network / "network.keras"),
    ):
        assert words in text
    shutil.copy(network / "card.json", tmp_path / "card.json")
    values = json.loads((tmp_path / "card.json").read_text())
    del values["grid"]
    (tmp_path / "card.json").write_text(json.dumps(values))
    assert "the card of a trained network" in said(capsys, "card", tmp_path)
    assert "the folder of a trained network" in said(capsys, "card", tmp_path / "no")
    assert_array_equal(values["inputs"], ["q_obs", "u_obs"])


def galaxies(folder, task, model, **changes):
    """A network of images (n, 16, 16) of g and r, of a run of that task."""
    own = card(
        outputs=("g", "r"),
        units={"g": "nJy", "r": "nJy"},
        normalization=Normalization(dict.fromkeys(("g", "r"), (0.0, 1.0))),
        size_deg=16 * 0.2 / 3600,
        data={
            "dataset": "stamps",
            "realizations": {"test": 10, "train": 80, "validation": 10},
            "stretch": Scale("asinh", 0.5, 40.0).to_dict(),
        },
        settings={"task": task},
        **changes,
    )
    save_network(folder, model, own)
    return folder


@pytest.fixture
def generator(tmp_path):
    model = vae.decoder(16, ("g", "r"), 8, 0.0625, 3)
    return galaxies(tmp_path / "vae", "generation", model, inputs=(), latent=8)


@pytest.fixture
def denoiser(tmp_path):
    model = residual_denoiser.build(16, ("g", "r"), 0.125)
    return galaxies(tmp_path / "restored", "denoising", model, inputs=("g", "r"))


@pytest.mark.parametrize("task", ["generation", "denoising"])
def test_a_network_of_galaxies_predicts_no_sky(task, generator, denoiser, tmp_path, capsys):
    np.savez(tmp_path / "maps.npz", **maps())
    folder = {"generation": generator, "denoising": denoiser}[task]
    line = said(capsys, "predict", folder, tmp_path / "maps.npz", "-o", tmp_path / "out.npz")
    assert "card.json: expected a network that predicts fields of the sky" in line
    assert line.endswith(f"found one of a {task} run")
    assert not (tmp_path / "out.npz").exists()


def lines_of(capsys, folder) -> dict[str, str]:
    """What the card says, by what it says it of."""
    run("card", folder)
    pairs = (line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    return {name: text.strip() for name, text in pairs}


def rows(folder, *values) -> None:
    """Metrics in a run's folder: (method, field, statistic, value, and more by name)."""
    names = ("method", "field", "statistic", "value")
    table = [dict(zip(names, one, strict=False)) | (one[4:] or ({},))[0] for one in values]
    write_table(folder / "metrics.csv", pd.DataFrame(table).assign(split="test"))


def test_the_card_of_a_generator(generator, capsys):
    found = lines_of(capsys, generator)
    assert found["takes"] == "8 random numbers"
    assert found["gives"] == "g, r"
    assert found["image"] == "16 x 16 pixels of 0.2 arcsec"
    assert found["stretch"] == "flux 0 is -1, 40 nJy a pixel is 1, asinh from 0.5 nJy"
    assert found["scores"] == "epoch 4, val_loss 0.7"
    assert not {"patch", "sky", "taper"} & set(found)
    rows(
        generator,
        *(("network", band, "mean_distance", value) for band, value in (("g", 0.25), ("r", 0.5))),
        ("real", "g", "mean_distance", 0.01),
        ("network", "all", "fid", 30.0),
    )
    words = "mean Wasserstein distance from the test set: g 0.25, r 0.5"
    assert lines_of(capsys, generator)["scores"] == words


def test_the_card_of_a_denoiser(denoiser, capsys):
    found = lines_of(capsys, denoiser)
    assert found["takes"] == found["gives"] == "g, r"
    assert found["image"] == "16 x 16 pixels of 0.2 arcsec"
    rows(
        denoiser,
        ("network", "g", "mse", 0.25, {"case": "none"}),
        ("wiener", "g", "mse", 0.125, {"case": "none"}),
        ("network", "g", "flux_bias", 0.75, {"case": "none"}),
        ("network", "r", "mse", 0.5, {"case": "both"}),
    )
    assert lines_of(capsys, denoiser)["scores"] == (
        "mean squared error of stretched pixels on the test set: "
        "g, as trained 0.25; r, larger pixels and more noise 0.5"
    )
