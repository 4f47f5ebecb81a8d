"""Generated images held against real ones: what is measured, kept, compared and judged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from skyweave.config import ImagesDataset, SersicDataset
from skyweave.config.galaxies import Metrics
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.gaussian_images import gaussian_images
from skyweave.images.psf import gaussian
from skyweave.images.stretch import Scale
from skyweave.statistics.image_spectra import radial_power
from skyweave.statistics.morphology import morphology
from skyweave.statistics.reconstruction import COLUMNS
from skyweave.tasks import image_statistics
from skyweave.tasks.generation_copies import copies
from skyweave.tasks.generation_scores import evaluate_run
from skyweave.tasks.generation_verdicts import COPY, copies_by_chance, generation_verdicts
from skyweave.tasks.image_statistics import Measure
from skyweave.tasks.images import read_stretch, render_sersic
from skyweave.training import runtime
from test_generation import DATASET, PIXELS, SEED, dataset, finish, shard


@pytest.fixture(autouse=True)
def simple(monkeypatch):
    """The threads that the tests' process has: they are set once."""
    prepare = runtime.prepare
    monkeypatch.setattr(
        runtime, "prepare", lambda seed, _, settings=None: prepare(seed, settings=settings)
    )


# Gaussian images


def test_gaussian_images_have_the_mean_and_covariance_of_the_images():
    rng = np.random.default_rng(4)
    mixing = rng.standard_normal((12, 12))
    images = (rng.exponential(size=(300, 12)) @ mixing + 3).reshape(300, 2, 3, 2)
    made = gaussian_images(images, 20_000, SEED, "a").reshape(-1, 12)
    flat = images.reshape(300, 12)
    law = np.cov(flat, rowvar=False)
    sizes = np.sqrt(np.diag(law))
    # Five standard errors of a mean, and of the elements of a covariance (Wishart).
    away = (made.mean(axis=0) - flat.mean(axis=0)) / sizes
    assert np.abs(away).max() < 5 / np.sqrt(20_000)
    errors = np.sqrt((law**2 + np.outer(sizes, sizes) ** 2) / 20_000)
    assert (np.abs(np.cov(made, rowvar=False) - law) / errors).max() < 5
    # Normal: the skewness of the images' law is gone.
    scaled = (made - made.mean(axis=0)) / made.std(axis=0)
    assert np.abs((scaled**3).mean(axis=0)).max() < 5 * np.sqrt(6 / 20_000)
    assert np.abs((scaled**4).mean(axis=0) - 3).max() < 5 * np.sqrt(24 / 20_000)


def test_gaussian_images_are_those_of_their_keys():
    images = np.random.default_rng(4).standard_normal((10, 4, 4, 1))
    many = gaussian_images(images, 70, SEED, "a", "b")
    assert (many.dtype, many.shape) == (np.float32, (70, 4, 4, 1))
    np.testing.assert_allclose(gaussian_images(images, 66, SEED, "a", "b"), many[:66], rtol=1e-5)
    for key in ((SEED, "a", "c"), (SEED + 1, "a", "b")):
        assert not np.allclose(gaussian_images(images, 70, *key), many)
    # They lie where the images do: a pixel that never changes does not.
    images[:, 0, 0] = 5
    np.testing.assert_allclose(gaussian_images(images, 5, SEED)[:, 0, 0], 5, rtol=1e-6)
    one = gaussian_images(images[:1], 3, SEED)
    np.testing.assert_allclose(one, np.broadcast_to(images[:1], one.shape), rtol=1e-6)


# What is measured


def test_what_was_measured_is_not_measured_again(law, tmp_path, monkeypatch):
    calls = []

    def counted(images, *args):
        calls.append(len(images))
        return radial_power(images, *args)

    monkeypatch.setattr(image_statistics, "radial_power", counted)
    images = images_of(law, "train")[:5, ..., None]
    measure = Measure(read_stretch(law / "stretch.json"), ("image",))
    first, again = (measure(images, tmp_path) for _ in range(2))
    assert calls == [5]
    np.testing.assert_array_equal(first.power["image"], again.power["image"])
    np.testing.assert_array_equal(first.wave_numbers, again.wave_numbers)
    pd.testing.assert_frame_equal(first.shapes["image"], again.shapes["image"])
    assert first.features is None
    assert again.features is None
    direct = measure(images)
    np.testing.assert_array_equal(direct.power["image"], again.power["image"])
    pd.testing.assert_frame_equal(direct.shapes["image"], again.shapes["image"])
    assert calls == [5, 5]
    # Other images, and another way to measure them.
    changed = images.copy()
    changed[3, 4, 4] *= 1.001
    others = [
        (measure, changed),
        (measure, images[:4]),
        (measure, images[::-1]),
        (Measure(read_stretch(law / "stretch.json"), ("other",)), images),
        (Measure(read_stretch(law / "stretch.json"), ("image",), noise={"image": 0.1}), images),
        (Measure(read_stretch(law / "stretch.json"), ("image",), psf=gaussian(1.0)), images),
        (Measure(read_stretch(law / "stretch.json"), ("image",), shapes=False), images),
        (Measure(read_stretch(law / "stretch.json"), ("image",), weights="1"), images),
        (Measure(Scale("linear", None, 1.0), ("image",)), images),
    ]
    for number, (other, sought) in enumerate(others):
        other(sought, tmp_path)
        assert len(calls) == 3 + number
    assert len(list(tmp_path.iterdir())) == 1 + len(others)


@pytest.mark.parametrize("damage", ["short", "empty", "text", "lacking"])
def test_what_is_damaged_is_measured_anew(law, tmp_path, damage):
    images = images_of(law, "train")[:4, ..., None]
    measure = Measure(read_stretch(law / "stretch.json"), ("image",), shapes=False)
    expected = measure(images, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "lacking":
        np.savez(path, wave_numbers=expected.wave_numbers)
    else:
        cuts = {"short": whole[: len(whole) // 2], "empty": b"", "text": b"no archive"}
        path.write_bytes(cuts[damage])
    found = measure(images, tmp_path)
    np.testing.assert_array_equal(found.power["image"], expected.power["image"])
    assert path.read_bytes() == whole


def test_two_processes_may_keep_the_same(law, tmp_path, monkeypatch):
    """One that begins to write removes what another has begun."""
    images = images_of(law, "train")[:4, ..., None]
    measure = Measure(read_stretch(law / "stretch.json"), ("image",), shapes=False)
    write = np.savez

    def disturbed(path, **arrays):
        write(path, **arrays)
        Path(path).unlink()

    monkeypatch.setattr(image_statistics.np, "savez", disturbed)
    assert np.isfinite(measure(images, tmp_path).power["image"]).all()
    assert not list(tmp_path.iterdir())


# Judgement


def value(metrics, statistic, method="network", field="image"):
    rows = metrics[
        (metrics.statistic == statistic) & (metrics.method == method) & (metrics.field == field)
    ]
    assert len(rows) == 1
    return rows.value.iloc[0]


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    """A dataset, and as many images of the same law that none of it is."""
    folder = tmp_path_factory.mktemp("law")
    settings = DATASET.model_copy(
        update={
            "realizations": 1000,
            "shard_size": 1000,
            "split": DATASET.split.model_copy(
                update={"train": 0.7, "validation": 0.1, "test": 0.2}
            ),
        }
    )
    dataset(folder, settings)
    render_sersic(folder / "new.h5", settings, range(1000, 1200), seed=SEED, name="made")
    images = ShardSet([folder / "new.h5"]).read("image")
    shard(folder / "alike.h5", image=images)
    return folder


def judged(folder: Path, samples: Path, dataset=DATASET, fields=("image",), **more):
    """What a run's images, in a file, are found to be beside those of the dataset in a folder."""
    settings = {"features": False, "morphology": False}
    settings |= {name: more.pop(name) for name in list(more) if name in Metrics.model_fields}
    return evaluate_run(
        "run",
        fields,
        Metrics().model_copy(update=settings),
        dataset,
        samples=samples,
        shards=[folder / "0.h5"],
        split=more.pop("split", folder / "split.csv"),
        stretch=folder / "stretch.json",
        inception=more.pop("inception", None),
        measured=more.pop("measured", folder / "measured"),
        seed=SEED,
        threads=1,
        **more,
    )


def images_of(folder: Path, part: str) -> np.ndarray:
    """Fluxes (n, y, x) of a part of the dataset in a folder."""
    numbers = members(read_split(folder / "split.csv"), part)
    return ShardSet([folder / "0.h5"]).read("image", numbers)


def test_images_of_the_same_law_are_as_near_as_real_ones(law):
    metrics, shapes, spectra, verdicts = judged(law, law / "alike.h5")
    assert list(metrics) == [*COLUMNS, "seed"]
    assert (metrics.seed == SEED).all()
    assert set(metrics.method) == {"network", "real", "gaussian_images"}
    # As many in each set.
    assert (metrics.n == 200).all()
    found, real, apart = (
        value(metrics, "mean_distance", method) for method in ("network", "real", "gaussian_images")
    )
    floor = metrics[(metrics.statistic == "floor_power") & (metrics.method == "network")].value
    assert found == pytest.approx(floor.mean(), rel=0.6)
    assert real == pytest.approx(floor.mean(), rel=0.6)
    assert apart > 2 * max(found, real)
    # Within three errors of what chance makes of it.
    row = metrics[(metrics.statistic == "copies") & (metrics.method == "network")].iloc[0]
    likely = max(row.value, COPY)
    both = likely * (1 - likely) + COPY * (1 - COPY)
    assert row.error == pytest.approx(np.sqrt(both / 200))
    assert row.value == pytest.approx(COPY, abs=3 * np.sqrt(2 * COPY / 200))
    assert value(metrics, "nearest", field="all") == pytest.approx(1, rel=0.1)
    assert shapes.empty
    assert set(spectra.method) == {"truth", "network", "real", "gaussian_images"}
    assert all(one["passed"] for one in verdicts)
    # Without shapes there is nothing to hold against the published numbers.
    assert [one["check"] for one in verdicts] == [
        "image: mean Wasserstein distance of power, below Gaussian images'",
        "images next to a training image",
    ]


def test_training_images_are_copies_however_they_are_turned(law, tmp_path):
    train = images_of(law, "train")[-200:]
    turned = np.stack([np.rot90(one[:, :: 1 - 2 * (n % 2)], n % 4) for n, one in enumerate(train)])
    metrics, _, _, verdicts = judged(law, shard(tmp_path / "copies.h5", image=turned))
    assert value(metrics, "copies", field="all") == 1
    assert value(metrics, "nearest", field="all") == pytest.approx(0, abs=1e-4)
    assert [one["passed"] for one in verdicts] == [True, False]
    assert (verdicts[-1]["value"], verdicts[-1]["bar"]) == (1, pytest.approx(0.05))
    # Some of them among others are seen, too.
    new = ShardSet([law / "new.h5"]).read("image")
    some = np.concatenate([turned[:80], new[:120]])
    metrics, _, _, verdicts = judged(law, shard(tmp_path / "some.h5", image=some))
    assert value(metrics, "copies", field="all") == pytest.approx(0.4, abs=0.03)
    assert not verdicts[-1]["passed"]


SCALE = Scale("asinh", 5.5, 550.0)


def share(made, truth, train) -> float:
    found = copies({"network": made}, truth, train, SCALE)["network"]
    return value(found.assign(method="network"), "copies", field="all")


@pytest.fixture(scope="module")
def profiles(tmp_path_factory) -> np.ndarray:
    """Images (900, 32, 32, 1) without noise, that reach 1 near 550."""
    path = tmp_path_factory.mktemp("profiles") / "0.h5"
    settings = SersicDataset(kind="sersic", pixels=32, pixel_arcsec=0.32, realizations=900)
    render_sersic(path, settings, range(900), seed=SEED, name="made")
    return ShardSet([path]).read("image")[..., None]


@pytest.mark.parametrize("noise", [0.0, 1.0, 5.0])
def test_images_without_the_noise_of_the_set_are_no_copies(profiles, noise):
    """Nor those with more, nor smooth ones: they are new. Training images are, with a little."""
    rng = np.random.default_rng(2)

    def noisy(images, rms):
        return images + rms * rng.standard_normal(images.shape)

    train, truth = (noisy(part, noise) for part in (profiles[:500], profiles[500:700]))
    new = profiles[700:]
    # All training images, in blocks.
    blocks = [train[:100], train[100:350], train[350:]]
    smooth = ndimage.gaussian_filter(new, (0, 1.5, 1.5, 0))
    for made in (noisy(new, noise), new, noisy(new, noise / 2), noisy(new, 3), smooth):
        # Above the share by chance, 0.01, by four of its errors at most: with that of the bar.
        assert share(made, truth, blocks) <= 0.01 + 4 * np.sqrt(2 * 0.01 / 200)
    known = train[150:350]
    turned = np.swapaxes(known[:, ::-1], 1, 2)
    for made in (known, turned, noisy(turned, max(noise / 2, 0.02)), 1.005 * known):
        assert share(made, truth, blocks) > 0.95
    some = np.concatenate([turned[:80], noisy(new[:120], noise)])
    assert share(some, truth, blocks) == pytest.approx(0.4, abs=0.03)


def test_copies_by_chance_are_few_in_sets_of_any_size():
    """Drawn often: images of one law beside few test images, and beside many."""
    rng = np.random.default_rng(9)
    for count, draws in ((10, 300), (200, 40)):
        shares = []
        for _ in range(draws):
            train, truth, made = (rng.standard_normal((count, 4, 4, 1)) for _ in range(3))
            shares.append(share(made, truth, [train]))
        error = np.std(shares) / np.sqrt(draws)
        assert np.mean(shares) == pytest.approx(copies_by_chance(count), abs=4 * error)
        assert np.mean(np.array(shares) > 5 * copies_by_chance(count)) < 0.03


def test_gaussian_images_are_told_from_real_ones(law, tmp_path):
    scale = read_stretch(law / "stretch.json")
    train = ShardSet([law / "0.h5"]).read("image", np.arange(1000))
    made = scale.undo(gaussian_images(scale.apply(train), 200, 77, "x"))
    metrics, _, _, verdicts = judged(law, shard(tmp_path / "gaussian.h5", image=made))
    own = value(metrics, "mean_distance", "gaussian_images")
    assert value(metrics, "mean_distance") == pytest.approx(own, rel=0.2)
    assert value(metrics, "mean_distance") > 2 * value(metrics, "mean_distance", "real")
    assert verdicts[-1]["passed"]


def test_sets_are_as_large_as_is_asked(law, tmp_path):
    metrics, _, _, _ = judged(law, law / "alike.h5", images=50)
    assert (metrics.n == 50).all()
    samples = shard(tmp_path / "few.h5", image=ShardSet([law / "new.h5"]).read("image")[:30])
    assert (judged(law, samples, images=30)[0].n == 30).all()
    for images, asked in ((None, 200), (31, 31)):
        with pytest.raises(
            UserError, match=rf"^runs\.run\.samples: expected at least {asked}, .*, found 30$"
        ):
            judged(law, samples, images=images)
    with pytest.raises(UserError, match=r"^runs\.run\.metrics\.images: .* at most 200, .* 201$"):
        judged(law, law / "alike.h5", images=201)
    split = pd.read_csv(law / "split.csv")
    test = split.split == "test"
    split.loc[test & (test.cumsum() > 3), "split"] = "train"
    split.to_csv(tmp_path / "split.csv", index=False)
    with pytest.raises(UserError, match=r"metrics\.images: expected 4 or more images of the test"):
        judged(law, law / "alike.h5", split=tmp_path / "split.csv")


def test_real_images_are_not_the_first_of_the_catalogue(law, monkeypatch):
    """Which may be sorted: those of each set are drawn, all of a part where there are no more."""
    asked = []
    read = ShardSet.read

    def kept(shards, field, numbers):
        if shards.paths[0] == law / "0.h5":
            asked.append(np.asarray(numbers))
        return read(shards, field, numbers)

    monkeypatch.setattr(ShardSet, "read", kept)
    judged(law, law / "alike.h5", images=60)
    split = read_split(law / "split.csv")
    test, real, learned, everything = asked
    for found, part in ((test, "test"), (real, "train")):
        numbers = members(split, part)
        assert np.isin(found, numbers).all()
        # From all over: an even draw of 60 has this error.
        away = (found.mean() - numbers.mean()) / (numbers.std() / np.sqrt(60))
        assert abs(away) < 4
        assert found[-1] > numbers[60]
    for found in (learned, everything):
        np.testing.assert_array_equal(found, members(split, "train"))


def test_real_images_are_measured_once(law, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        image_statistics,
        "radial_power",
        lambda images, *more: calls.append(1) or radial_power(images, *more),
    )
    first = judged(law, law / "alike.h5", measured=tmp_path / "measured")[0]
    assert len(calls) == 4
    again = judged(law, law / "alike.h5", measured=tmp_path / "measured")[0]
    # Truth and other real images are kept; made and Gaussian ones are not.
    assert len(calls) == 6
    assert len(list((tmp_path / "measured").iterdir())) == 2
    pd.testing.assert_frame_equal(first, again)


def test_shapes_are_told_of_each_set(law, tmp_path):
    samples = shard(tmp_path / "real.h5", image=images_of(law, "train")[:20])
    metrics, shapes, _, verdicts = judged(law, samples, morphology=True, images=20)
    assert shapes.groupby("method").size().to_dict() == dict.fromkeys(
        ("truth", "network", "real", "gaussian_images"), 20
    )
    assert list(shapes)[:3] == ["run", "method", "field"]
    named = {f"distance_{name}" for name in shapes.columns[3:]}
    assert named <= set(metrics.statistic)
    assert 0 <= value(metrics, "unmeasured") <= 1
    words = "mean Wasserstein distance of shapes and power"
    assert [one["check"] for one in verdicts] == [
        f"image: {words}, below Gaussian images'",
        "image: images without a measurable shape, beyond the real ones' share",
        "images next to a training image",
    ]
    # With 20 images other real ones miss the published distance, too.
    assert value(metrics, "mean_distance", "real") > 0.0719
    near = metrics.copy()
    at = (near.statistic == "mean_distance") & (near.method == "real")
    near.loc[at, "value"] = 0.07
    first = generation_verdicts(near, DATASET)[0]
    assert first["check"] == f"image: {words}, below the published"
    assert first["bar"] == 0.0719
    assert "other real images have 0.07" in first["note"]
    # The mean is over shapes without the flux, and power as one.
    rows = metrics[(metrics.method == "network") & (metrics.field == "image")]
    means = rows[rows.statistic.str.startswith("distance_")].groupby("statistic").value.mean()
    assert value(metrics, "mean_distance") == pytest.approx(means.drop("distance_flux").mean())
    own = ImagesDataset(kind="images", path="stamps.npz", pixels=PIXELS)
    assert not any("published" in one["check"] for one in generation_verdicts(near, own))


def test_morphology_is_told_the_noise_of_each_band(law, tmp_path, monkeypatch):
    """That of the frames, with what was added to it; of rendered images what is set."""
    told = []

    def kept(images, *, threads, noise, psf):
        told.append(noise)
        return morphology(images[:0], noise=noise)

    monkeypatch.setattr(image_statistics, "morphology", kept)
    rng = np.random.default_rng(3)
    images = np.concatenate([images_of(law, "train"), images_of(law, "test")])
    bands = {
        band: np.float32(images + rms * rng.standard_normal(images.shape))
        for band, rms in (("g", 5.0), ("r", 20.0))
    }
    path = shard(tmp_path / "0.h5", **bands)
    settings = ImagesDataset(
        kind="images", path="stamps.npz", bands=["g", "r"], pixels=PIXELS, noise=0.1
    ).model_copy(update={"split": DATASET.split})
    finish(tmp_path, [path], settings)
    fresh = ShardSet([path]).read("g", np.arange(200)), ShardSet([path]).read("r", np.arange(200))
    samples = shard(tmp_path / "made.h5", g=fresh[0], r=fresh[1])
    more = {"morphology": True, "images": 200}
    judged(tmp_path, samples, settings, ("g", "r"), **more)
    # Of four sets, all alike; the wings of galaxies are in the frames' edges, too.
    assert told == 4 * [told[0], told[1]]
    assert told[:2] == [pytest.approx(5, rel=0.2), pytest.approx(20, rel=0.1)]
    told.clear()
    rendered = DATASET.model_copy(update={"noise": 2.0})
    judged(law, law / "alike.h5", rendered, measured=tmp_path / "other", morphology=True)
    assert told == 4 * [2.0]


def stand_in(monkeypatch):
    """Features of images that are cheap: their pixels averaged, as Inception would be asked."""
    asked = []

    def embed(model, images, batch=32):
        assert model == "network"
        assert np.abs(images).max() <= 1
        asked.append(images.shape)
        return np.float32(images.reshape(len(images), 4, 4, 4, 4, -1).mean(axis=(2, 4, 5))).reshape(
            len(images), 16
        )

    monkeypatch.setattr("skyweave.networks.inception.features", lambda path: "network")
    monkeypatch.setattr("skyweave.networks.inception.embed", embed)
    return asked


def test_features_tell_sets_apart(law, tmp_path, monkeypatch):
    asked = stand_in(monkeypatch)
    (tmp_path / "weights.pt").write_bytes(b"weights")
    more = {"inception": tmp_path / "weights.pt", "features": True}
    metrics, _, _, verdicts = judged(law, law / "alike.h5", **more)
    assert asked == [(200, PIXELS, PIXELS, 1)] * 4
    fids = {m: value(metrics, "fid", m, "all") for m in ("network", "real", "gaussian_images")}
    assert 0 < fids["network"] < fids["gaussian_images"]
    assert fids["network"] == pytest.approx(fids["real"], rel=0.7)
    row = metrics[(metrics.statistic == "kid") & (metrics.method == "network")].iloc[0]
    assert abs(row.value) < 4 * row.error
    for statistic in ("precision", "recall"):
        assert value(metrics, statistic, field="all") > 0.8
    assert "FID, below Gaussian images'" in [one["check"] for one in verdicts]
    # The features of real images are kept: by the weights that they are of.
    judged(law, law / "alike.h5", **more)
    assert len(asked) == 6
    (tmp_path / "weights.pt").write_bytes(b"others")
    judged(law, law / "alike.h5", **more)
    assert len(asked) == 10


def test_features_of_few_images(law, tmp_path, monkeypatch):
    """No more than there are: of subsets, and of neighbours."""
    stand_in(monkeypatch)
    (tmp_path / "weights.pt").touch()
    samples = shard(tmp_path / "real.h5", image=images_of(law, "train")[:4])
    more = {"inception": tmp_path / "weights.pt", "features": True, "neighbours": 9, "images": 4}
    metrics = judged(law, samples, measured=tmp_path / "measured", **more)[0]
    rows = metrics[metrics.statistic.isin(["fid", "kid", "precision", "recall"])]
    assert len(rows) == 12
    assert np.isfinite(rows.value).all()


def test_bands_are_judged_each_by_itself(law, tmp_path):
    """And together, where images are compared as a whole."""
    images = images_of(law, "train"), images_of(law, "test")
    settings = ImagesDataset(
        kind="images", path="stamps.npz", bands=["g", "r"], pixels=PIXELS, noise=0.1
    ).model_copy(update={"split": DATASET.split})
    both = np.concatenate(images)
    path = shard(tmp_path / "0.h5", g=both, r=2 * both)
    finish(tmp_path, [path], settings)
    samples = shard(tmp_path / "made.h5", g=images[0][:20], r=3 * images[0][20:40])
    metrics, _, spectra, verdicts = judged(tmp_path, samples, settings, ("g", "r"), images=20)
    assert set(metrics.field) == {"g", "r", "all"}
    assert value(metrics, "mean_distance", field="r") > value(metrics, "mean_distance", field="g")
    assert (metrics[metrics.field == "all"].statistic.isin(["copies", "nearest"])).all()
    assert set(spectra.field) == {"g", "r"}
    assert [one["check"].split(":")[0] for one in verdicts] == [
        "g",
        "r",
        "images next to a training image",
    ]
