"""Batches of images, as they are and degraded: what is in them, and what decides them."""

import h5py
import numpy as np
import pytest

from skyweave.data.degraded_feed import DegradedFeed, coarsen, degrade
from skyweave.data.feed import BatchFeed, white_noise
from skyweave.data.image_feed import ImageFeed, turned
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import UserError
from skyweave.images import psf
from skyweave.images.stretch import Scale
from skyweave.seeds import generator

BANDS = ("g", "r")
COUNT, PIXELS, BATCH = 25, 16, 4
SCALE = Scale("asinh", 0.5, 20.0)
NOISE, SIGMA = 0.3, 1.5


def write(path, broken=None):
    rng = np.random.default_rng(0)
    images = {n: 3 + 5 * rng.standard_normal((COUNT, PIXELS, PIXELS)) for n in BANDS}
    write_shard(
        path,
        images,
        realizations=np.arange(COUNT),
        size_deg=1e-4,
        units=dict.fromkeys(images, "nJy"),
        provenance={},
    )
    if broken is not None:
        with h5py.File(path, "r+") as file:
            file["r"][broken, 3, 4] = np.nan
    return ShardSet([path])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards") / "a.h5")


def plain(shards, **changes):
    """Fluxes of realizations 2, 3, …"""
    arguments = {"realizations": range(2, COUNT), "batch": BATCH, "seed": 1}
    arguments |= {"inputs": BANDS, "targets": BANDS, "identity": ("run", "a")} | changes
    scales = Normalization(dict.fromkeys(BANDS, (0.0, 1.0)))
    return BatchFeed(shards, normalization=scales, **arguments)


def feed(shards, *, turns=True, scale=SCALE, cache_bytes=1e9, **changes):
    return ImageFeed(plain(shards, **changes), scale, turns=turns, cache_bytes=cache_bytes)


GENERATED = np.random.default_rng(1).exponential(4, (7, PIXELS, PIXELS, 2)).astype(np.float32)


def degraded(shards, *, batches=None, **options):
    options = {"psf_pixels": SIGMA, "noise": NOISE, "turns": False} | options
    options = {"scale": SCALE, "seed": 3, "identity": ("b",)} | options
    return DegradedFeed(plain(shards, **(batches or {})), **options)


def same(one, other):
    one, other = list(one), list(other)
    return len(one) == len(other) and all(
        np.array_equal(x, v) and y.keys() == w.keys() and all(np.array_equal(y[k], w[k]) for k in y)
        for (x, y), (v, w) in zip(one, other, strict=True)
    )


def images_of(shards, numbers):
    """Fluxes (n, y, x, bands)."""
    return np.stack([shards.read(name, numbers) for name in BANDS], axis=-1)


def examples(batches):
    """All inputs, and all truths as channels."""
    x, y = zip(*batches, strict=True)
    truths = [np.concatenate([one[name] for name in BANDS], axis=-1) for one in y]
    return np.concatenate(x), np.concatenate(truths)


def symmetries(image):
    """The eight, by flips alone."""
    flips = [image[::a, ::b] for a in (1, -1) for b in (1, -1)]
    return [*flips, *(np.swapaxes(one, 0, 1) for one in flips)]


def test_the_eight_symmetries_are_all_there():
    image = np.arange(32).reshape(4, 4, 2)
    found = {turned(image, number).tobytes() for number in range(8)}
    assert found == {one.tobytes() for one in symmetries(image)}
    assert len(found) == 8
    np.testing.assert_array_equal(turned(image, 0), image)


def test_in_order_images_are_stretched_and_nothing_else(shards):
    x, y = examples(feed(shards).in_order())
    expected = SCALE.apply(images_of(shards, np.arange(2, COUNT)))
    assert x.dtype == y.dtype == np.float32
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(y, expected)


def test_an_image_is_turned_all_bands_alike_and_by_its_draw(shards):
    source = feed(shards)
    seen = set()
    for epoch in range(8):
        for step, (x, y) in enumerate(source.epoch(epoch)):
            numbers = source.numbers(epoch, step)
            np.testing.assert_array_equal(numbers, plain(shards).numbers(epoch, step))
            for image, number in zip(x, numbers, strict=True):
                symmetry = int(generator(1, "run", "a", "turn", epoch, int(number)).integers(8))
                truth = SCALE.apply(images_of(shards, [number])[0])
                np.testing.assert_array_equal(image, turned(truth, symmetry))
                seen.add(symmetry)
            np.testing.assert_array_equal(x, np.concatenate([y["g"], y["r"]], axis=-1))
    assert seen == set(range(8))


def test_without_turns_an_epoch_is_the_feeds_stretched(shards):
    pairs = zip(feed(shards, turns=False).epoch(3), plain(shards).epoch(3), strict=True)
    for (x, y), (fluxes, _) in pairs:
        np.testing.assert_array_equal(x, SCALE.apply(fluxes))
        assert all(y[name].shape == (BATCH, PIXELS, PIXELS, 1) for name in BANDS)


FEEDS = {
    "images": feed,
    "degraded": lambda shards, **options: degraded(
        shards, generated=GENERATED, alpha=0.5, turns=True, **options
    ),
}


@pytest.mark.parametrize("name", FEEDS)
def test_a_cursor_alone_resumes_with_or_without_memory(shards, name):
    make = FEEDS[name]
    source = make(shards)
    whole, ordered = list(source.epoch(1)), list(source.in_order())
    assert len(whole) == source.steps == 5
    for small in (make(shards), make(shards, cache_bytes=0)):
        assert same(whole[3:], small.epoch(1, 3))
        assert same(ordered[4:], small.in_order(4))
        assert same(whole, small.epoch(1))
    assert not same(whole, source.epoch(0))
    # What a training does to a batch is not seen again.
    for x, y in source.epoch(1):
        x[:] = y["g"][:] = 0
    assert same(whole, source.epoch(1))


@pytest.mark.parametrize("name", FEEDS)
def test_numbers_and_sizes_are_the_feeds(shards, name):
    source = FEEDS[name](shards)
    assert (source.batch, source.paired) == (BATCH, True)
    np.testing.assert_array_equal(source.numbers(None, 1), [6, 7, 8, 9])
    sizes = [len(x) for x, _ in source.in_order()]
    assert sizes == [source.size(batch) for batch in range(6)] == [4, 4, 4, 4, 4, 3]
    assert source.size(6) == 0


@pytest.mark.parametrize("name", FEEDS)
def test_broken_images_are_named(tmp_path, name):
    source = FEEDS[name](write(tmp_path / "broken.h5", broken=9))
    for step, batch in enumerate(source.in_order()):
        assert source.broken(batch, None, step).tolist() == ([9] if step == 1 else [])


def test_images_are_convolved_before_noise_and_stretch(shards):
    x, y = examples(degraded(shards).in_order())
    fluxes = images_of(shards, np.arange(2, COUNT))
    np.testing.assert_array_equal(y, SCALE.apply(fluxes))
    kernel = psf.gaussian(SIGMA)
    for number, image, truth in zip(range(2, COUNT), x, fluxes, strict=True):
        noise = white_noise(NOISE, truth.shape, 3, "b", "noise", "in order", number)
        seen = [psf.convolve(truth[None, ..., band], kernel)[0] for band in (0, 1)]
        expected = SCALE.apply(np.stack(seen, axis=-1) + noise)
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-5)


def test_noise_has_its_rms_and_is_another_in_each_epoch(shards):
    linear = Scale("linear", None, 2.0)
    source, clean = (degraded(shards, scale=linear, noise=rms) for rms in (NOISE, 0.0))
    noise = [
        [x - v for (x, _), (v, _) in zip(source.epoch(e), clean.epoch(e), strict=True)]
        for e in (0, 1)
    ]
    pixels = np.concatenate(noise[0]).ravel()
    # 10 240 numbers: the rms to five times its error.
    assert pixels.std() == pytest.approx(NOISE, rel=5 / np.sqrt(2 * pixels.size))
    assert abs(np.corrcoef(pixels, np.concatenate(noise[1]).ravel())[0, 1]) < 0.05
    assert same(source.in_order(), source.in_order())


def test_a_turned_image_is_degraded_as_it_is_turned(shards):
    """Both by one symmetry, and the convolution is that of the turned image."""
    x, y = examples(degraded(shards, turns=True, noise=0.0).epoch(0))
    fluxes = SCALE.undo(y)
    kernel = psf.gaussian(SIGMA)
    for image, truth in zip(x, fluxes, strict=True):
        seen = [psf.convolve(truth[None, ..., band], kernel)[0] for band in (0, 1)]
        np.testing.assert_allclose(image, SCALE.apply(np.stack(seen, -1)), rtol=0, atol=1e-4)
    originals = {SCALE.apply(one).tobytes() for one in images_of(shards, np.arange(2, COUNT))}
    upright = [truth.tobytes() in originals for truth in y]
    assert 0 < sum(upright) < len(upright) / 2
    for truth in y:
        assert any(one.tobytes() in originals for one in symmetries(truth))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_generated_images_replace_real_ones_as_often_as_asked(shards, alpha):
    source = degraded(shards, generated=GENERATED, alpha=alpha)
    known = {SCALE.apply(one).tobytes(): number for number, one in enumerate(GENERATED)}
    drawn = []
    for epoch in range(40):
        for step, (_, y) in enumerate(source.epoch(epoch)):
            truths = np.concatenate([y[name] for name in BANDS], axis=-1)
            reals = SCALE.apply(images_of(shards, source.numbers(epoch, step)))
            for truth, real in zip(truths, reals, strict=True):
                drawn.append(known.get(truth.tobytes(), -1))
                assert drawn[-1] >= 0 or np.array_equal(truth, real)
    mixed = np.array(drawn) >= 0
    error = np.sqrt(alpha * (1 - alpha) / mixed.size)
    assert abs(mixed.mean() - alpha) <= 4 * error
    if alpha:
        counts = np.bincount(np.array(drawn)[mixed], minlength=7)
        expected = mixed.sum() / 7
        # Six degrees of freedom: above 27.9 once in ten thousand.
        assert ((counts - expected) ** 2 / expected).sum() < 27.9


def test_validation_knows_no_generated_images(shards):
    mixed = degraded(shards, generated=GENERATED, alpha=1.0, turns=True)
    assert same(mixed.in_order(), degraded(shards).in_order())


def test_fingerprints_follow_what_decides_the_batches(shards):
    other = GENERATED.copy()
    other[3, 2, 1, 0] += 1
    images = [feed(shards), feed(shards, turns=False), feed(shards, seed=2)]
    images.append(feed(shards, scale=Scale("asinh", 0.5, 21.0)))
    found = [source.fingerprint for source in images]
    for changes in (
        {},
        {"psf_pixels": 2.0},
        {"noise": 0.1},
        {"turns": True},
        {"seed": 4},
        {"identity": ("c",)},
        {"scale": Scale("linear", None, 20.0)},
        {"generated": GENERATED},
        {"generated": GENERATED, "alpha": 0.5},
        {"generated": other, "alpha": 0.5},
        {"batches": {"realizations": range(20)}},
    ):
        found.append(degraded(shards, **changes).fingerprint)
    assert len({*found, plain(shards).fingerprint}) == len(found) + 1
    assert found[0] == feed(shards, cache_bytes=0).fingerprint


def test_what_does_not_fit_is_refused(shards):
    for changes in ({"drawn": 1}, {"noise": 0.1}):
        with pytest.raises(UserError, match="feed: expected images alone"):
            feed(shards, **changes)
    with pytest.raises(UserError, match=r"feed\.targets: .*\(g, r\), found g"):
        feed(shards, targets=("g",))
    for generated, message in (
        (None, r"generated: expected images to mix in with `alpha` 0\.5, found none"),
        (GENERATED[:, :8], r"generated: expected images \(n, 16, 16, 2\)"),
        (GENERATED[:0], r"generated: expected images \(n, 16, 16, 2\)"),
        (GENERATED * np.inf, "generated: expected finite images"),
    ):
        with pytest.raises(UserError, match=message):
            degraded(shards, generated=generated, alpha=0.5)


def test_degrading_convolves_and_adds_noise_of_each_images_own():
    images = np.zeros((3, 33, 33), np.float32)
    images[:, 16, 16] = 100
    clean = degrade(images, psf_pixels=2.0, noise=0.0, seed=1, identity=("test",))
    axis = np.arange(33) - 16
    moment = (clean[0] * axis[None] ** 2).sum() / clean[0].sum()
    # A twelfth of a pixel's width squared: the profile is integrated over pixels.
    assert moment == pytest.approx(2.0**2 + 1 / 12, rel=0.01)
    assert clean.sum(axis=(1, 2)) == pytest.approx(100, rel=1e-4)
    noisy = degrade(images, psf_pixels=2.0, noise=0.5, seed=1, identity=("test",))
    assert (noisy - clean).std() == pytest.approx(0.5, rel=0.07)
    assert not np.array_equal(*(noisy - clean)[:2])
    again = degrade(images[:2], psf_pixels=2.0, noise=0.5, seed=1, identity=("test",))
    np.testing.assert_array_equal(noisy[:2], again)
    other = degrade(images, psf_pixels=2.0, noise=0.5, seed=1, identity=("other",))
    assert not np.array_equal(noisy, other)
    alone = degrade(images, psf_pixels=0.0, noise=0.0, seed=1, identity=())
    np.testing.assert_array_equal(alone, images)


def test_coarser_pixels_keep_the_surface_brightness():
    images = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    np.testing.assert_array_equal(coarsen(images, 2)[0], [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_array_equal(coarsen(images, 4).ravel(), images.mean(axis=(1, 2)))
    assert coarsen(images, 2).dtype == np.float32
    with pytest.raises(UserError, match="pixel_factor: expected a divisor"):
        coarsen(images, 3)
