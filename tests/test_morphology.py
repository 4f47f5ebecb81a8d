"""Morphology of images whose shape is known."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from scipy.integrate import quad
from scipy.optimize import brentq

from benchmarks.galaxies import two_cores
from skyweave.errors import UserError
from skyweave.images.sersic import Profile, render
from skyweave.statistics import morphology as module
from skyweave.statistics.morphology import STATISTICS, background_rms, morphology, usable


def galaxy(
    pixels: int = 64,
    *,
    index: float = 1.0,
    radius: float = 6.0,
    ratio: float = 0.7,
    angle: float = 0.6,
    x: float = 0.3,
    y: float = -0.2,
    flux: float = 1000.0,
) -> np.ndarray:
    """A Sérsic profile (pixels, pixels), lengths in pixels."""
    return render(Profile(x, y, radius, index, ratio, angle, flux), pixels, 1.0)


def one(image: np.ndarray, **options) -> pd.Series:
    """The row of one image."""
    return morphology(image[None], **options).iloc[0]


@pytest.mark.parametrize("index", [1.0, 2.0, 3.0, 4.0])
@pytest.mark.parametrize(("radius", "ratio"), [(5.0, 0.9), (9.0, 0.5)])
def test_a_sersic_profile_is_found_again(index, radius, ratio):
    """Index within 5 %, half-light radius within 3 %, ellipticity within 0.01."""
    found = one(galaxy(index=index, radius=radius, ratio=ratio))
    assert found.sersic_index == pytest.approx(index, rel=0.05)
    assert found.half_light_radius == pytest.approx(radius, rel=0.03)
    assert found.ellipticity == pytest.approx(1 - ratio, abs=0.01)
    assert found.flag == 0


def test_an_exponential_disc():
    """Face on: concentration, Gini and flux as integrals of exp(-r) within Petrosian radii."""
    scale = 5.0

    def inside(x: float) -> float:
        return 1 - (1 + x) * np.exp(-x)

    petrosian = brentq(lambda x: np.exp(-x) - 0.2 * 2 * inside(x) / x**2, 1, 10)
    light = inside(1.5 * petrosian)
    r20, r80 = (brentq(lambda x, f=f: inside(x) - f * light, 0.01, 10) for f in (0.2, 0.8))
    # Gini: twice the mean over rank u, from the faintest area on, of (u - 1/2) times flux.
    moment = quad(lambda x: (0.5 - (x / petrosian) ** 2) * np.exp(-x) * x, 0, petrosian)[0]
    found = one(galaxy(96, radius=1.67834699 * scale, ratio=1.0, x=0.01, y=0.0))
    assert found.concentration == pytest.approx(5 * np.log10(r80 / r20), abs=0.02)
    assert found.gini == pytest.approx(2 * moment / inside(petrosian), abs=0.005)
    assert found.flux == pytest.approx(1000 * inside(2 * petrosian), rel=0.002)
    assert abs(found.asymmetry) < 1e-3


def test_a_clump_on_one_side():
    """What has no counterpart counts twice: 2 f / (1 + f) for a clump of the share f."""
    disc = galaxy(index=1.0, radius=8.0, ratio=1.0, x=0.5, y=0.5)
    plain = one(disc)
    y, x = np.mgrid[:64, :64]
    clump = np.exp(-((x - 40) ** 2 + (y - 32) ** 2) / 2)
    clump *= 60 / clump.sum()
    found = one(disc + clump)
    assert abs(plain.asymmetry) < 1e-3
    assert found.asymmetry == pytest.approx(2 * 0.06 / 1.06, rel=0.1)
    assert found.smoothness > plain.smoothness + 0.01
    assert found.flux == pytest.approx(plain.flux + 60, rel=0.01)


def test_statmorph_by_itself_agrees_where_the_sky_is_empty():
    """For a compact disc its own sky, of the frame's corners, is close to none."""
    from statmorph import SourceMorphology

    image = galaxy(radius=4.0)
    sources = (image > 0.02 * image.max()).astype(int)
    errors = np.hypot(0.01 * image.max(), image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = SourceMorphology(image, sources, 1, weightmap=errors)
    found = one(image)
    for name in ("concentration", "gini", "m20"):
        assert found[name] == pytest.approx(getattr(theirs, name), rel=1e-3), name
    assert found.flux == pytest.approx(theirs.flux_circ, rel=1e-3)
    assert found.sersic_index == pytest.approx(theirs.sersic_n, rel=2e-3)


def test_a_neighbour_is_masked():
    bright = galaxy(radius=3.0, x=-10.0, y=-8.0)
    faint = galaxy(radius=2.0, x=18.0, y=18.0, flux=300.0)
    alone, both = one(bright), one(bright + faint)
    assert both.sersic_index == pytest.approx(alone.sersic_index, rel=0.03)
    assert both.half_light_radius == pytest.approx(alone.half_light_radius, rel=0.03)
    assert both.flux == pytest.approx(alone.flux, rel=0.02)
    # The brighter one, wherever it lies.
    other = one(bright / 10 + faint)
    assert other.half_light_radius == pytest.approx(2.0, rel=0.05)


def test_the_unit_does_not_matter():
    image = galaxy(index=2.0)
    plain = one(image, noise=0.01)
    for factor in (1e-12, 1e12):
        found = one(image * factor, noise=0.01 * factor)
        np.testing.assert_allclose(found.drop("flux"), plain.drop("flux"), rtol=1e-4)
        assert found.flux == pytest.approx(plain.flux * factor)


def test_known_noise_is_taken_out():
    """Means over 12 images within 4 of their errors of the truth, or close to it; none is bad."""
    image = galaxy(48, index=1.5, radius=5.0)
    noise = image.max() / 60
    images = image + np.random.default_rng(1).normal(0, noise, (12, 48, 48))
    table, clean = morphology(images, noise=noise), one(image)
    assert (table.flag <= 1).all()
    mean, error = table.mean(), table.std() / np.sqrt(len(table))
    assert abs(mean.sersic_index - 1.5) < 4 * error.sersic_index + 0.02
    assert abs(mean.half_light_radius - 5) < 4 * error.half_light_radius + 0.05
    assert abs(mean.flux - clean.flux) < 4 * error.flux + 10
    # Not taken out, the noise would add its mean difference and excess over so many pixels. A mean
    # of four pixels, as turning makes it, differs from a fifth by sqrt(5/8) of what two do.
    area = np.pi * 1.5**2 * 11**2
    added, left = 1.128 * noise * area / clean.flux, 1 - np.sqrt(5 / 8)
    assert -left * added - 0.03 < mean.asymmetry - clean.asymmetry < 0.01
    assert abs(mean.smoothness - clean.smoothness) < 0.5 * 0.38 * noise * area / clean.flux
    assert background_rms(images) == pytest.approx(noise, rel=0.05)


def test_noise_is_that_of_images_within_larger_frames():
    """Zeros around them are no pixels of theirs, as are zeros within."""
    noise = 3 * np.random.default_rng(2).standard_normal((40, 24, 24))
    framed = np.zeros((50, 40, 40))
    framed[:40, 9:33, 4:28] = noise
    # Ten frames hold nothing at all.
    assert background_rms(framed) == background_rms(noise) == pytest.approx(3, rel=0.05)
    # Without noise light ends somewhere, unevenly: what it ends in is as still as before.
    ragged = np.zeros((3, 40, 40))
    ragged[:, 8:30, 10:31] = ndimage.gaussian_filter(np.eye(22, 21), 1, truncate=2)
    assert background_rms(ragged) == 0
    assert background_rms(framed[40:]) == 0


def test_a_point_spread_function_is_allowed_for():
    axis = np.arange(-8, 9)
    bell = np.exp(-(axis**2) / (2 * 1.5**2))
    psf = np.outer(bell, bell) / bell.sum() ** 2
    seen = ndimage.convolve(galaxy(index=2.5, radius=6.0), psf, mode="constant")
    found, without = one(seen, psf=psf), one(seen)
    assert found.sersic_index == pytest.approx(2.5, rel=0.05)
    assert found.half_light_radius == pytest.approx(6.0, rel=0.03)
    assert without.sersic_index < 2.2


EMPTY = {
    "zeros": np.zeros((24, 24)),
    "negative": np.full((24, 24), -1.0),
    "not a number": np.where(np.eye(24) > 0, np.nan, 1.0),
    "fainter than the noise": np.where(np.arange(24) == 12, 0.1, 0.0) * np.ones((24, 1)),
}


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_measure(name):
    found = one(EMPTY[name], noise=1.0)
    assert found.flag == 4
    assert found.drop("flag").isna().all()


ODD = {
    "a pixel": np.outer(np.arange(24) == 12, np.arange(24) == 9).astype(float),
    "a pixel in the corner": np.outer(np.arange(24) == 0, np.arange(24) == 0).astype(float),
    "flat": np.ones((24, 24)),
    "noise": np.random.default_rng(3).normal(size=(24, 24)),
    "a line": np.outer(np.arange(24) == 12, np.ones(24)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_flagged_and_stop_nothing(name):
    found = morphology(ODD[name][None])
    assert found.flag[0] >= 2
    assert usable(found).isna().all(axis=None)


def test_frames_need_not_be_square():
    found = one(galaxy(32, radius=3.0, x=4.0)[4:28])
    assert found.sersic_index == pytest.approx(1, rel=0.05)
    assert found.flag == 0


def test_an_error_of_any_kind_is_a_row(monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(module, "_source_class", lambda: fail)
    found = one(galaxy(24))
    assert found.flag == 4
    assert found.drop("flag").isna().all()


def test_usable_rows():
    table = pd.DataFrame({name: [1.0, 2.0, 3.0] for name in STATISTICS} | {"flag": [0, 2, 1]})
    assert usable(table).notna().all(axis=1).tolist() == [True, False, True]
    assert list(usable(table)) == list(STATISTICS)


def several(count: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    images = [galaxy(24, index=rng.uniform(1, 4), radius=rng.uniform(2, 5)) for _ in range(count)]
    return np.array(images, np.float32)


def test_rows_depend_on_their_images_only():
    """The same doubles in another order, and alone."""
    images = several(5)
    images[2] = 0
    table = morphology(images, threads=2)
    assert table.flag.tolist() == [0, 0, 4, 0, 0]
    turned = morphology(images[::-1])
    pd.testing.assert_frame_equal(turned[::-1].reset_index(drop=True), table, check_exact=True)
    pd.testing.assert_series_equal(one(images[4]), table.iloc[4], check_names=False)


SCRIPT = """
import sys
import numpy as np
print("started", flush=True)
from skyweave.statistics import morphology as module
module._FEWEST, module._CHUNK = 2, 2
main = sys.modules["__main__"]
module.morphology(np.load("images.npy"), threads=2).to_pickle("table.pkl")
assert sys.modules["__main__"] is main
"""


def test_two_processes_find_the_same_in_a_script_without_a_guard(tmp_path):
    """The same doubles; and the new processes do not run the script anew."""
    images = several(5)
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("started\n", 0), done.stderr
    table = pd.read_pickle(tmp_path / "table.pkl")
    pd.testing.assert_frame_equal(table, morphology(images), check_exact=True)


@pytest.mark.parametrize(
    ("shape", "noise", "where"),
    [((8, 8), 0, "images"), ((1, 8, 8), -1, "noise"), ((1, 8, 8), np.nan, "noise")],
)
def test_what_does_not_fit(shape, noise, where):
    with pytest.raises(UserError, match=f"^{where}: "):
        morphology(np.ones(shape), noise=noise)


def test_no_images():
    table = morphology(np.zeros((0, 16, 16)))
    assert list(table) == [*STATISTICS, "flag"]
    assert table.empty


def test_the_benchmark_measures():
    measured = two_cores(pixels=24, count=3, blocks=1)
    assert measured.ratio == pytest.approx(measured.ours / measured.peer)
    assert measured.peer > 0
