"""Holes of a HEALPix map filled on tiles: against a known sky, and the file that comes of it."""

import sys
from itertools import pairwise
from types import SimpleNamespace

import healpy
import keras
import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal

from skyweave.data.normalization import Normalization
from skyweave.errors import UserError
from skyweave.files import sha256
from skyweave.flat.grid import PatchGrid
from skyweave.networks.card import Card, save_network
from skyweave.seeds import generator
from skyweave.sky.harmonic import fill_bad, pixel_window
from skyweave.sky.holes import continued, find_regions
from skyweave.sky.projection import patch_vectors
from skyweave.tasks.sky_inpainting import fill_holes, inpaint_map, place

GRID, NSIDE = PatchGrid(40.0, 16), 32
NPIX = 12 * NSIDE**2
LIMIT = {"radius_deg": 8.0, "area": 0.4}


def card(fields=("t_obs",), rms=100.0, grid=GRID, **changes) -> Card:
    names = (*fields, "seen")
    entries = {
        "inputs": names,
        "outputs": tuple(fields),
        "units": dict.fromkeys(fields, "uK_CMB") | {"seen": ""},
        "normalization": Normalization(dict.fromkeys(fields, (0.0, rms)) | {"seen": (0.0, 1.0)}),
        "size_deg": grid.size_deg,
        "pixels": grid.pixels,
        "seed": 5,
        "data": {"dataset": "cmb", "hole_limit": LIMIT},
        "settings": {"task": "inpainting"},
    }
    return Card(**(entries | changes))


def covariance(cl: np.ndarray, grid: PatchGrid, noise: float) -> np.ndarray:
    """Of the pixels of a tile, of a spectrum, and noise relative to the variance."""
    vectors = patch_vectors(np.zeros(1), np.zeros(1), grid).reshape(-1, 3)
    angles = np.linspace(0, np.pi / 2, 8000)
    ell = np.arange(cl.size)
    series = (2 * ell + 1) * cl / (4 * np.pi)
    values = np.polynomial.legendre.legval(np.cos(angles), series)
    chord = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    found = np.interp(2 * np.arcsin(chord / 2), angles, values)
    return found + noise * values[0] * np.eye(len(found))


class Gaussian:
    """A stand-in for a network: a Gaussian sky given what is seen, each field by itself."""

    def __init__(self, cov: np.ndarray) -> None:
        values, vectors = np.linalg.eigh(cov)
        assert values[0] > 0
        self.root, self.precision = vectors * np.sqrt(values), (vectors / values) @ vectors.T

    def __call__(self, maps, holes, keys, sampled=True):
        out = np.array(maps, float)
        for tile, hole, key in zip(out, holes, keys, strict=True):
            gone = hole.ravel()
            own = self.precision[np.ix_(gone, gone)]
            links = self.precision[np.ix_(gone, ~gone)]
            for place_, field in enumerate(tile):
                draw = np.zeros(gone.size)
                if sampled:
                    draw = self.root @ generator(1, *key, place_).standard_normal(gone.size)
                left = (field.ravel() - draw)[~gone]
                field[hole] = draw[gone] - np.linalg.solve(own, links @ left)
        return out


def drawn(cl: np.ndarray, seed: int, count: int = 1) -> np.ndarray:
    """alm (count, modes) of a spectrum."""
    rng, lmax = np.random.default_rng(seed), cl.size - 1
    alm = rng.standard_normal((count, healpy.Alm.getsize(lmax), 2)) @ [1, 1j] / np.sqrt(2)
    alm[:, : lmax + 1] = np.sqrt(2) * alm[:, : lmax + 1].real
    return np.array([healpy.almxfl(one, np.sqrt(cl)) for one in alm])


def real_shaped(nside: int, discs: int, blobs: int) -> np.ndarray:
    """Point sources' discs, and clouds of three discs each."""
    rng, missing = np.random.default_rng(4), np.zeros(12 * nside**2, bool)
    for _ in range(discs):
        radius = np.radians(rng.uniform(0.4, 1.0))
        missing[healpy.query_disc(nside, rng.standard_normal(3), radius)] = True
    for _ in range(blobs):
        centre = rng.standard_normal(3)
        for _ in range(3):
            shift = 0.03 * np.linalg.norm(centre) * rng.standard_normal(3)
            radius = np.radians(rng.uniform(0.8, 2.0))
            missing[healpy.query_disc(nside, centre + shift, radius)] = True
    return missing


def test_a_gaussian_sky_is_filled_and_its_spectrum_kept():
    """Errors below those of continuations, powers of the whole sky within its errors."""
    grid, nside, lmax = PatchGrid(24.0, 32), 128, 383
    ell = np.arange(lmax + 1.0)
    beam = healpy.gauss_beam(np.radians(100 / 60), lmax)
    power = 2000 * (1 + 1.5 * np.cos(ell / 60) ** 2) * np.exp(-((ell / 150) ** 1.5))
    cl = np.where(ell > 1, 2 * np.pi * power / np.maximum(ell * (ell + 1), 1), 0) * beam**2
    alm = healpy.almxfl(drawn(cl, 3)[0], pixel_window(nside, lmax))
    truth = healpy.alm2map(alm, nside, lmax)
    missing = real_shaped(nside, 300, 90)
    assert 0.04 < missing.mean() < 0.06
    own = card(grid=grid, rms=truth.std(), data={"hole_limit": {"radius_deg": 4.0, "area": 0.3}})
    fill = Gaussian(covariance(cl, grid, 3e-5))
    blanked = {"t": np.where(missing, np.nan, truth)}
    maps = {
        "zeros": np.where(missing, 0, truth),
        "mean nearby": fill_bad(blanked["t"]),
        "harmonic": continued(blanked["t"], missing),
    }
    for name, sampled in (("mean", False), ("sampled", True)):
        found = fill_holes(own, blanked, missing, fill, sampled=sampled, window_nside=nside)["t"]
        maps[name] = truth.copy()
        maps[name][missing] = found
    error = {name: np.std((one - truth)[missing]) for name, one in maps.items()}
    assert error["mean"] < error["sampled"] < error["harmonic"] < error["mean nearby"]
    assert error["mean"] < 0.6 * error["harmonic"] < 0.4 * error["mean nearby"]
    edges = [2, 30, 60, 100, 150]
    spectra = {name: healpy.anafast(one, lmax=150) for name, one in maps.items()}
    whole = healpy.anafast(truth, lmax=150)
    for low, high in pairwise(edges):
        band = slice(low, high)
        sigma = np.sqrt(2 / np.sum(2 * np.arange(low, high) + 1))
        off = {n: spectra[n][band].sum() / whole[band].sum() - 1 for n in spectra}
        assert abs(off["sampled"]) < sigma
    # Zeros ring: in the last band they are far off.
    assert abs(off["zeros"]) > 50 * sigma


def test_polarization_turns_with_the_meridians():
    """Smooth Q and U across holes at both poles and at the border of longitude."""
    ell = np.arange(25)
    cl = np.where(ell >= 2, np.exp(-ell / 2.0), 0)
    q, u = healpy.alm2map_spin(drawn(cl, 2, 2), NSIDE, 2, 24)
    t = healpy.alm2map(drawn(cl, 7)[0], NSIDE, 24)
    scale = [100 / one.std() for one in (t, np.hypot(q, u))]
    maps = {"t": t * scale[0], "q": q * scale[1], "u": u * scale[1]}
    missing = np.zeros(NPIX, bool)
    for lon, lat in [(0, 90), (33, -88), (359, 10), (120, 50), (300, -65)]:
        centre = healpy.ang2vec(lon, lat, lonlat=True)
        missing[healpy.query_disc(NSIDE, centre, np.radians(5))] = True
    own = card(("t_obs", "q_obs", "u_obs"), rms=100)
    fill = Gaussian(covariance(np.where(ell >= 2, np.exp(-ell / 2.0), 0), GRID, 1e-6))
    seen = {stokes: np.where(missing, np.nan, values) for stokes, values in maps.items()}
    found = fill_holes(own, seen, missing, fill, sampled=False)
    nearby = {stokes: fill_bad(values)[missing] for stokes, values in seen.items()}
    for stokes, values in maps.items():
        error = np.std(found[stokes] - values[missing])
        assert error < 1.5
        assert error < 0.1 * np.std(nearby[stokes] - values[missing])


def test_holes_that_are_too_large_are_named():
    missing = np.zeros(NPIX, bool)

    def dig(lon, lat, radius):
        centre = healpy.ang2vec(lon, lat, lonlat=True)
        missing[healpy.query_disc(NSIDE, centre, np.radians(radius))] = True

    dig(100, 20, 4)
    jobs = place(find_regions(missing), missing, GRID, LIMIT)
    (region,) = (region for job in jobs for region in job.regions)
    assert_array_equal(np.sort(region.pixels), np.flatnonzero(missing))
    dig(120, 30, 11)
    with pytest.raises(UserError, match="1 of 2 that are not") as caught:
        place(find_regions(missing), missing, GRID, LIMIT, where="own_mask.fits")
    assert str(caught.value).startswith("own_mask.fits: expected holes of at most 30 deg, with ")
    assert "8 deg radius, and 40 % of a tile of 40 deg missing" in caught.value.expected
    assert "in radius at (l, b) = (120." in caught.value.found
    dig(0, -90, 18)
    dig(300, 0, 17)
    for lon in range(200, 260, 3):
        dig(lon, -20, 3)
    with pytest.raises(UserError, match="4 of 5 that are not") as caught:
        place(find_regions(missing), missing, GRID, LIMIT)
    assert caught.value.found.count("(l, b)") == 3
    assert caught.value.found.endswith("; …")
    assert "deg wide at (l, b) = (" in caught.value.found


def test_a_tile_with_too_little_seen_is_refused():
    missing = np.zeros(NPIX, bool)
    for lon in range(60, 130, 7):
        for lat in range(-14, 15, 7):
            centre = healpy.ang2vec(lon, lat, lonlat=True)
            missing[healpy.query_disc(NSIDE, centre, np.radians(2.0))] = True
    regions = find_regions(missing)
    assert len(regions) > 30
    jobs = place(regions, missing, GRID, LIMIT)
    assert sum(len(job.regions) for job in jobs) == len(regions)
    with pytest.raises(UserError, match="% of the tile at"):
        place(regions, missing, GRID, LIMIT | {"area": 0.15})


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A file of an inpainting network, which the stand-in does not look into."""
    folder = tmp_path_factory.mktemp("network")
    maps = keras.Input((16, 16, 2))
    save_network(folder, keras.Model(maps, {"t_obs": maps[..., :1]}), card())
    return folder


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    """Holes get 70 µK, and with fluctuations numbers by key."""

    def fill(network, maps, holes, *, keys, sampled=True):
        out = np.array(maps)
        assert out.dtype == np.float32
        assert not out[np.broadcast_to(holes[:, None], out.shape)].any()
        for tile, hole, key in zip(out, holes, keys, strict=True):
            noise = generator(network.card.seed, *key).standard_normal(hole.shape)
            tile[:, hole] = 70 + sampled * 20 * noise[hole]
        return out

    module = SimpleNamespace(fill=fill, Filler=lambda network: network)
    monkeypatch.setitem(sys.modules, "skyweave.tasks.inpainting", module)


def written(folder, *, dtype=np.float32, nested=False, unit="K_CMB", wide=True):
    """A map of two columns and its mask: files, values (RING, in the unit) and missing pixels."""
    rng = np.random.default_rng(8)
    ell = np.arange(60)
    values = healpy.alm2map(drawn(np.exp(-ell / 20.0), 2)[0], NSIDE, 59)
    values = (values * 100e-6 / values.std()).astype(dtype)
    values[[77, 5000]] = healpy.UNSEEN, np.nan
    hits = rng.integers(1, 9, NPIX).astype(dtype)
    healpy.write_map(
        folder / "own.fits",
        [values, hits],
        nest=nested,
        coord="G",
        column_names=["TEMPERATURE", "HITS"],
        column_units=[unit, "1"],
        dtype=dtype,
        fits_IDL=wide,
        extra_header=[("AUTHOR", "someone")],
    )
    if nested:
        with fits.open(folder / "own.fits") as hdus:
            values = healpy.reorder(hdus[1].data["TEMPERATURE"].ravel().astype(dtype), n2r=True)
    missing = np.zeros(NPIX, bool)
    for lon, lat in [(0, 80), (200, -3), (359, 30)]:
        centre = healpy.ang2vec(lon, lat, lonlat=True)
        missing[healpy.query_disc(NSIDE, centre, np.radians(6))] = True
    mask = np.where(missing, 0, 1).astype(np.uint8)
    healpy.write_map(folder / "mask.fits", mask, coord="G", dtype=np.uint8)
    return values, missing | ~np.isfinite(values) | (values < -1e20)


def raw(path) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the two columns as they lie in the file."""
    with fits.open(path) as hdus:
        return tuple(hdus[1].data[name].ravel().copy() for name in ("TEMPERATURE", "HITS"))


@pytest.mark.parametrize(("dtype", "wide"), [(np.float32, True), (np.float64, False)])
@pytest.mark.parametrize("nested", [False, True])
def test_what_was_seen_keeps_every_bit(network, tmp_path, dtype, nested, wide):
    _, missing = written(tmp_path, dtype=dtype, nested=nested, wide=wide)
    own, mask, out = (tmp_path / f"{name}.fits" for name in ("own", "mask", "out"))
    inpaint_map(network, own, mask, out, sampled=False, command="skyweave inpaint")
    before, hits = raw(own)
    after, hits_after = raw(out)
    assert after.dtype == before.dtype
    assert after.dtype.itemsize == np.dtype(dtype).itemsize
    assert hits.tobytes() == hits_after.tobytes()
    here = healpy.reorder(missing, r2n=True) if nested else missing
    assert after[~here].tobytes() == before[~here].tobytes()
    assert (after[here] != before[here]).all()
    assert np.isfinite(after).all()
    with fits.open(own) as old, fits.open(out) as new:
        for key, value in old[1].header.items():
            assert new[1].header[key] == value
        assert [column.format for column in new[1].columns] == [
            column.format for column in old[1].columns
        ]
        header = new[1].header
        assert header["COMMAND"] == "skyweave inpaint"
        assert header["INSHA"] == sha256(own)
        assert header["MASKSHA"] == sha256(mask)
    # About 70 µK in the middle of a hole, in the map's unit, by the window and the spline.
    middle = healpy.ang2pix(NSIDE, 200, -3, nest=nested, lonlat=True)
    assert_allclose(after[middle], 70e-6, rtol=0.1)


def test_a_map_keeps_its_unit(network, tmp_path):
    found = {}
    for unit, factor in [("K_CMB", 1e6), ("mK", 1e3), ("uK", 1.0), ("", 1.0)]:
        written(tmp_path, unit=unit)
        own, mask, out = (tmp_path / f"{name}.fits" for name in ("own", "mask", "out"))
        with fits.open(own, mode="update") as hdus:
            values = hdus[1].data["TEMPERATURE"]
            values[np.abs(values) < 1] *= 1e6 / factor
        inpaint_map(network, own, mask, out, sampled=False, overwrite=True)
        with fits.open(out) as hdus:
            assert hdus[1].columns["TEMPERATURE"].unit == (unit or None)
        found[unit] = factor * healpy.read_map(out, dtype=np.float64)
        own.unlink()
        mask.unlink()
    for values in found.values():
        assert_allclose(values, found["uK"], rtol=1e-5, atol=1e-3)


def test_a_files_checksum_is_made_anew(network, tmp_path):
    written(tmp_path)
    own, mask, out = (tmp_path / f"{name}.fits" for name in ("summed", "mask", "out"))
    with fits.open(tmp_path / "own.fits") as hdus:
        hdus.writeto(own, checksum=True)
    inpaint_map(network, own, mask, out)
    with fits.open(own) as old, fits.open(out, checksum=True) as new:
        assert new[1].verify_checksum() == 1
        assert new[1].verify_datasum() == 1
        assert new[1].header["DATASUM"] != old[1].header["DATASUM"]


def test_a_unit_of_the_user_stands_above_that_of_the_file(network, tmp_path):
    written(tmp_path, unit="MJy/sr")
    own, mask, out = (tmp_path / f"{name}.fits" for name in ("own", "mask", "out"))
    with pytest.raises(UserError, match="a thermodynamic temperature"):
        inpaint_map(network, own, mask, out)
    inpaint_map(network, own, mask, out, unit="K_CMB", sampled=False)
    assert not list(tmp_path.glob(".out*"))


def test_the_same_command_gives_the_same_map(network, tmp_path):
    written(tmp_path)
    own, mask = tmp_path / "own.fits", tmp_path / "mask.fits"
    for name in ("one", "two"):
        inpaint_map(network, own, mask, tmp_path / f"{name}.fits")
    inpaint_map(network, own, mask, tmp_path / "mean.fits", sampled=False)
    one, two, mean = (raw(tmp_path / f"{name}.fits")[0] for name in ("one", "two", "mean"))
    assert_array_equal(one, two)
    assert (one != mean).any()


def test_the_order_of_pixels_makes_no_difference(network, tmp_path):
    found = []
    for nested in (False, True):
        folder = tmp_path / str(nested)
        folder.mkdir()
        values, _ = written(folder)
        values = np.where(np.abs(values) < 1, values, healpy.UNSEEN)
        own = healpy.reorder(values, r2n=True) if nested else values
        healpy.write_map(
            folder / "own.fits",
            own,
            nest=nested,
            coord="G",
            column_units="K_CMB",
            dtype=np.float32,
            overwrite=True,
        )
        inpaint_map(network, folder / "own.fits", folder / "mask.fits", folder / "out.fits")
        found.append(healpy.read_map(folder / "out.fits"))
    assert_array_equal(*found)


@pytest.mark.parametrize("nside", [16, 64])
def test_a_mask_of_another_nside(network, tmp_path, nside):
    written(tmp_path)
    own, mask, out = (tmp_path / f"{name}.fits" for name in ("own", "mask", "out"))
    missing = np.zeros(12 * nside**2)
    centre = healpy.ang2vec(200, -3, lonlat=True)
    missing[healpy.query_disc(nside, centre, np.radians(6))] = 1
    healpy.write_map(mask, 1 - missing, coord="G", overwrite=True, dtype=np.float32)
    inpaint_map(network, own, mask, out)
    before, after = raw(own)[0], raw(out)[0]
    changed = np.flatnonzero(after.view("i4") != before.view("i4"))
    finest = np.arange(12 * 64**2)
    lon_lat = healpy.pix2ang(64, finest)
    gone = missing[healpy.ang2pix(nside, *lon_lat)] > 0
    expected = np.unique(healpy.ang2pix(NSIDE, *(one[gone] for one in lon_lat)))
    assert_array_equal(changed, np.union1d(expected, [77, 5000]))


def test_polarization_of_a_file_keeps_its_convention(tmp_path):
    """The network's fill is constant in the tiles' frame: U of COSMO and IAU files are opposite."""
    fields = ("q_obs", "u_obs")
    maps = keras.Input((16, 16, 3))
    model = keras.Model(maps, {name: maps[..., i : i + 1] for i, name in enumerate(fields)})
    save_network(tmp_path, model, card(fields))
    ell = np.arange(60)
    q, u = healpy.alm2map_spin(drawn(np.where(ell > 1, np.exp(-ell / 20), 0), 2, 2), NSIDE, 2, 59)
    q, u = 100 * q / q.std(), 100 * u / u.std()
    missing = np.zeros(NPIX)
    missing[healpy.query_disc(NSIDE, healpy.ang2vec(30, 60, lonlat=True), np.radians(6))] = 1
    healpy.write_map(tmp_path / "mask.fits", 1 - missing, coord="G", dtype=np.float32)
    found = {}
    for convention, sign in (("COSMO", 1), ("IAU", -1)):
        path = tmp_path / f"{convention}.fits"
        healpy.write_map(
            path,
            [q, sign * u],
            coord="G",
            column_names=["Q_STOKES", "U_STOKES"],
            column_units="uK_CMB",
            extra_header=[("POLCCONV", convention)],
            dtype=np.float64,
        )
        out = tmp_path / f"{convention}_out.fits"
        inpaint_map(tmp_path / "card.json", path, tmp_path / "mask.fits", out)
        found[convention] = healpy.read_map(out, field=None, dtype=np.float64)
    assert_array_equal(found["COSMO"][0], found["IAU"][0])
    assert_array_equal(found["COSMO"][1], -found["IAU"][1])


def test_files_that_are_none_of_these_are_refused(network, tmp_path):
    written(tmp_path)
    own, mask, out = (tmp_path / f"{name}.fits" for name in ("own", "mask", "out"))

    def refused(*files, match, **words):
        with pytest.raises(UserError, match=match):
            inpaint_map(*files, out, **words)
        assert not out.exists()

    refused(network, tmp_path / "none.fits", mask, match="a HEALPix FITS file, found no file")
    refused(network, own, tmp_path / "none.fits", match="none.fits: expected a HEALPix FITS file")
    # Of several columns the first counts: here the map's own, negative on half of the sky.
    refused(network, own, own, match="holes of at most 30 deg")
    for nside, words in ((48, "an NSIDE that is a power of two, found 48"), (16, "above 0")):
        path = tmp_path / f"mask_{nside}.fits"
        values = np.arange(12 * nside**2) % 2 if nside == 48 else np.zeros(12 * nside**2)
        healpy.write_map(path, values, coord="G", dtype=np.float32)
        refused(network, own, path, match=words)
    healpy.write_map(tmp_path / "all.fits", np.ones(NPIX), coord="G", dtype=np.float32)
    refused(network, own, tmp_path / "all.fits", unit="uK", match="an rms within a factor 3")
    whole = np.ones(NPIX)
    healpy.write_map(tmp_path / "whole.fits", whole, coord="G", dtype=np.float32)
    refused(network, tmp_path / "whole.fits", tmp_path / "all.fits", match="that is 0 somewhere")
    healpy.write_map(tmp_path / "small.fits", np.ones(12 * 16**2), coord="G", dtype=np.float32)
    refused(network, tmp_path / "small.fits", mask, match="an nside of at least 32")
    partial = np.where(np.arange(NPIX) < 4000, 1.0, healpy.UNSEEN)
    healpy.write_map(tmp_path / "part.fits", partial, coord="G", partial=True, dtype=np.float32)
    refused(network, tmp_path / "part.fits", mask, match="a map of all pixels of the sky")
    (tmp_path / "text.fits").write_text("a map")
    refused(network, tmp_path / "text.fits", mask, match="a HEALPix table in a FITS file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"ends in \.fits"):
        inpaint_map(network, own, mask, tmp_path / "out.h5")
    with pytest.raises(UserError, match="a file to write"):
        inpaint_map(network, own, mask, tmp_path / "empty", overwrite=True)
    inpaint_map(network, own, mask, out)
    with pytest.raises(UserError, match="--overwrite"):
        inpaint_map(network, own, mask, out)


@pytest.mark.parametrize(
    ("kind", "amplitude", "words"),
    [("monopole", 2.7e6, "a mean within"), ("dipole", 3.4e3, "a mean within|an rms within")],
)
def test_a_monopole_or_a_dipole_is_to_be_removed(kind, amplitude, words):
    """CMB of 100 µK on top of 2.7 K, or of the Sun's motion, where it is seen most and least."""
    ell = np.arange(60)
    values = healpy.alm2map(drawn(np.where(ell > 1, np.exp(-ell / 20), 0), 2)[0], NSIDE, 59)
    values *= 100 / values.std()
    axis = healpy.ang2vec(264, 48, lonlat=True)
    cosine = axis @ np.array(healpy.pix2vec(NSIDE, np.arange(NPIX)))
    added = amplitude * (cosine if kind == "dipole" else np.ones(NPIX))
    own, fill = card(), lambda maps, *_: maps
    for lon, lat in ((264, 48), (84, -48), (264, -42)):
        missing = np.zeros(NPIX, bool)
        centre = healpy.ang2vec(lon, lat, lonlat=True)
        missing[healpy.query_disc(NSIDE, centre, np.radians(5))] = True
        fill_holes(own, {"t": values}, missing, fill)
        with pytest.raises(UserError, match=words) as caught:
            fill_holes(own, {"t": values + added}, missing, fill, source="own.fits")
        assert str(caught.value).startswith("own.fits, t_obs: expected a")
        assert "(remove the map's monopole and dipole)" in caught.value.expected


def test_a_mean_of_the_training_set_is_the_one_to_have():
    """Intensities about 500 µK are no monopole for a network of such maps."""
    ell = np.arange(60)
    values = healpy.alm2map(drawn(np.where(ell > 1, np.exp(-ell / 20), 0), 2)[0], NSIDE, 59)
    values *= 100 / values.std()
    missing = np.zeros(NPIX, bool)
    missing[:4] = True
    own = card(normalization=Normalization({"t_obs": (500.0, 100.0), "seen": (0.0, 1.0)}))
    fill_holes(own, {"t": values + 500}, missing, lambda maps, *_: maps)
    with pytest.raises(UserError, match="a mean within 300 of 500 uK_CMB"):
        fill_holes(own, {"t": values}, missing, lambda maps, *_: maps)


def test_a_network_of_centred_holes_gets_them_in_the_middle():
    missing = np.zeros(NPIX, bool)
    for lon, lat in [(100, 20), (170, -35), (300, 85)]:
        centre = healpy.ang2vec(lon, lat, lonlat=True)
        missing[healpy.query_disc(NSIDE, centre, np.radians(4))] = True
    regions = find_regions(missing)
    anywhere = place(regions, missing, GRID, LIMIT | {"centred": False})
    assert {job.tile for job in anywhere} == {
        job.tile for job in place(regions, missing, GRID, LIMIT)
    }
    assert "tile" in {job.tile.name[0] for job in anywhere}
    jobs = place(regions, missing, GRID, LIMIT | {"centred": True})
    assert len(jobs) == len(regions)
    for job, region in zip(jobs, regions, strict=True):
        assert job.tile.name == ("hole", region.pixels[0])
        assert job.regions == [region]
        # The hole itself lies in the middle of the tile.
        for axis in (0, 1):
            there = np.flatnonzero(job.hole.any(axis=axis))
            assert abs(there.min() + there.max() - (GRID.pixels - 1)) <= 1


def test_a_network_of_centred_holes_gets_none_beside_others():
    missing = np.zeros(NPIX, bool)
    for lon, lat in [(100, 0), (114, 0), (200, 0)]:
        centre = healpy.ang2vec(lon, lat, lonlat=True)
        missing[healpy.query_disc(NSIDE, centre, np.radians(3))] = True
    regions = find_regions(missing)
    assert place(regions, missing, GRID, LIMIT)
    with pytest.raises(UserError, match="2 of 3 that are not: with others on its tile") as caught:
        place(regions, missing, GRID, LIMIT | {"centred": True})
    assert "each alone on a tile" in caught.value.expected
    named = [f"({region.centre[0]:.2f}, " in caught.value.found for region in regions]
    assert named == [region.centre[0] < 150 for region in regions]


def test_a_network_of_another_task_is_refused(tmp_path):
    written(tmp_path)
    maps = keras.Input((16, 16, 2))
    other = card(settings={}, data={"dataset": "cmb"})
    save_network(tmp_path, keras.Model(maps, {"t_obs": maps[..., :1]}), other)
    own, mask, out = (tmp_path / f"{name}.fits" for name in ("own", "mask", "out"))
    with pytest.raises(UserError, match="the network of an inpainting run, found one that gives"):
        inpaint_map(tmp_path, own, mask, out)
