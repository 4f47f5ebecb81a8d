"""Generated images held against real ones: what is measured, kept, compared and judged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skyweave.config import ImagesDataset
from skyweave.config.galaxies import Metrics
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.estimators.gaussian_images import gaussian_images
from skyweave.images.psf import gaussian
from skyweave.images.stretch import Scale
from skyweave.statistics.image_spectra import radial_power
from skyweave.statistics.reconstruction import COLUMNS
from skyweave.tasks import generation_scores, image_statistics
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
        (Measure(read_stretch(law / "stretch.json"), ("image",), noise=0.1), images),
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
        Metrics(**settings),
        dataset,
        samples=samples,
        shards=[folder / "0.h5"],
        split=folder / "split.csv",
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
    assert list(metrics) == list(COLUMNS)
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
    assert row.error == pytest.approx(np.sqrt(2 * max(row.value, COPY) / 200))
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
    train = images_of(law, "train")[:200]
    turned = np.stack([np.rot90(one[:, :: 1 - 2 * (n % 2)], n % 4) for n, one in enumerate(train)])
    metrics, _, _, verdicts = judged(law, shard(tmp_path / "copies.h5", image=turned))
    assert value(metrics, "copies", field="all") == 1
    assert value(metrics, "nearest", field="all") == pytest.approx(0, abs=1e-4)
    assert [one["passed"] for one in verdicts] == [True, False]
    assert (verdicts[-1]["value"], verdicts[-1]["bar"]) == (1, pytest.approx(0.05))
    # Some of them among others are seen, too.
    new = ShardSet([law / "new.h5"]).read("image")
    some = np.concatenate([turned[:30], new[:170]])
    metrics, _, _, verdicts = judged(law, shard(tmp_path / "some.h5", image=some))
    assert value(metrics, "copies", field="all") == pytest.approx(0.15, abs=0.05)
    assert not verdicts[-1]["passed"]


def test_copies_by_chance_are_few_in_sets_of_any_size():
    """Drawn often: images of one law beside few test images, and beside many."""
    rng = np.random.default_rng(9)
    for count, draws in ((10, 300), (200, 40)):
        shares = []
        for _ in range(draws):
            train, truth, made = (rng.standard_normal((count, 4, 4, 1)) for _ in range(3))
            sets = generation_scores.Sets(made, truth, truth, train)
            found = generation_scores._copies(
                sets, {"network": made}, Scale("linear", None, 2.0), SEED
            )
            shares.append(value(found["network"].assign(method="network"), "copies", field="all"))
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
    assert (judged(law, samples)[0].n == 30).all()
    with pytest.raises(
        UserError, match=r"^runs\.run\.metrics\.images: expected at most 30, of .*, found 31$"
    ):
        judged(law, samples, images=31)
    with pytest.raises(UserError, match=r"^runs\.run\.metrics\.images: .* at most 200, .* 201$"):
        judged(law, law / "alike.h5", images=201)
    few = shard(tmp_path / "three.h5", image=ShardSet([law / "new.h5"]).read("image")[:3])
    with pytest.raises(UserError, match=r"metrics\.images: expected 4 or more images of each set"):
        judged(law, few)


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
        f"image: {words}, below the published",
        f"image: {words}, below Gaussian images'",
        "image: images without a measurable shape, beyond the real ones' share",
        "images next to a training image",
    ]
    assert verdicts[0]["bar"] == 0.0719
    # The mean is over shapes without the flux, and power as one.
    rows = metrics[(metrics.method == "network") & (metrics.field == "image")]
    means = rows[rows.statistic.str.startswith("distance_")].groupby("statistic").value.mean()
    assert value(metrics, "mean_distance") == pytest.approx(means.drop("distance_flux").mean())
    own = ImagesDataset(kind="images", path="stamps.npz", pixels=PIXELS)
    assert not any("published" in one["check"] for one in generation_verdicts(metrics, own))


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
    more = {"inception": tmp_path / "weights.pt", "features": True, "neighbours": 9}
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
    metrics, _, spectra, verdicts = judged(tmp_path, samples, settings, ("g", "r"))
    assert set(metrics.field) == {"g", "r", "all"}
    assert value(metrics, "mean_distance", field="r") > value(metrics, "mean_distance", field="g")
    assert (metrics[metrics.field == "all"].statistic.isin(["copies", "nearest"])).all()
    assert set(spectra.field) == {"g", "r"}
    assert [one["check"].split(":")[0] for one in verdicts] == [
        "g",
        "r",
        "images next to a training image",
    ]
