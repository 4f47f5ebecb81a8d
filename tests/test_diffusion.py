"""The diffusion model: its denoiser and sampler against theory, its training, and its state."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import layers
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm

from skyweave.config import Training
from skyweave.config.galaxies import Diffusion
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import Unfinished, UserError
from skyweave.networks import diffusion
from skyweave.training.diffusion import DiffusionTraining
from skyweave.training.interruption import Interruption
from skyweave.training.loop import train
from skyweave.training.method import Learner, Place, learner
from skyweave.training.runtime import prepare
from skyweave.training.state import values
from skyweave.training.style import kept

SETTINGS = Diffusion()
RMS = 0.5
BANDS = ("b", "a")


def maps(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def centred(image, mean=0.0, rms=RMS):
    """The layer that holds mean and rms, and the noisy images of an input less their mean."""
    centre = diffusion.Centre(dtype="float32", name="centre")
    noisy = centre(image[..., :-1])
    centre.mean.assign(np.broadcast_to(mean, centre.mean.shape))
    centre.rms.assign(rms)
    return centre, noisy


def network(pixels=16, **changes):
    return diffusion.build(
        pixels, **{"outputs": BANDS, "width": 0.0625, "seed": 1, "sigma_data": RMS} | changes
    )


def drawn(model, deviation=0.3):
    """The model, its kernels drawn by NumPy, alike for all backends."""
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        if variable.path.endswith("kernel"):
            fan_in = np.prod(variable.shape[:-1])
            variable.assign(deviation * rng.standard_normal(variable.shape) / np.sqrt(fan_in))
    return model


def untrained(mean=0.0, rms=RMS, *, pixels=16, bands=BANDS):
    """What `network` is at first, without what is inside: the best denoiser of white images."""
    image = keras.Input((pixels, pixels, len(bands) + 1))
    sigma = image[..., -1:]
    centre, noisy = centred(image, mean, rms)
    clean = centre(noisy * (rms**2 / (rms**2 + sigma**2)), back=True)
    return keras.Model(image, {name: clean[..., i : i + 1] for i, name in enumerate(bands)})


# The network


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def test_an_untrained_network_is_the_preconditioning(policy):
    """c_skip x about the mean, in float32 whatever the network inside computes in."""
    sigmas = np.float32([0.002, 0.7, 80])
    noise = sigmas[:, None, None, None] * maps(3, 16, 16, 2, seed=1)
    skip = (RMS**2 / (sigmas.astype(float) ** 2 + RMS**2))[:, None, None, None]
    for mean in (None, 3 * maps(16, 16, 2, seed=2)):
        model, offset = network(mean=mean), 0 if mean is None else mean
        noisy = offset + RMS * maps(3, 16, 16, 2) + noise
        found = np.asarray(diffusion.denoise(model, noisy, sigmas))
        np.testing.assert_allclose(found, offset + skip * (noisy - offset), rtol=1e-6, atol=1e-6)
        same = diffusion.denoise(untrained(offset), noisy, sigmas)
        np.testing.assert_allclose(found, same, rtol=1e-6, atol=1e-6)
    assert tuple(model.output) == BANDS
    assert all(output.dtype == "float32" for output in model.output.values())


def test_the_centre_takes_the_mean_off_and_puts_it_back(policy):
    """In float32 under any policy; neither mean nor rms is trained."""
    mean, images = 30 * maps(4, 4, 2), maps(3, 4, 4, 2, seed=1)
    model = network(4, mean=mean, sigma_data=0.2)
    centre = model.get_layer("centre")
    less = np.asarray(centre(images))
    assert less.dtype == np.float32
    np.testing.assert_array_equal(less, images - mean)
    np.testing.assert_array_equal(centre(images, back=True), images + mean)
    np.testing.assert_allclose(centre(less, back=True), images, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(centre.mean, mean)
    assert float(centre.rms) == np.float32(0.2)
    assert not centre.trainable_variables
    fresh = diffusion.Centre()
    np.testing.assert_array_equal(fresh(images), keras.ops.cast(images, fresh.compute_dtype))
    assert float(fresh.rms) == 1


def test_what_the_network_adds_is_as_large_as_what_noise_leaves_open():
    """A network inside that gives 1 shows c_out, the deviation of white images given noisy ones."""
    model = network(outputs=("a",))
    model.get_layer("out_conv").bias.assign([1.0])
    sigmas = np.float32([0.002, 0.7, 80])
    found = np.asarray(diffusion.denoise(model, np.zeros((3, 16, 16, 1), np.float32), sigmas))
    for image, sigma in zip(found, sigmas.astype(float), strict=True):
        np.testing.assert_allclose(image, (1 / sigma**2 + 1 / RMS**2) ** -0.5, rtol=1e-6)


def test_the_network_sees_images_of_one_deviation_and_the_log_of_the_noise():
    """c_in x about the mean, ln(sigma) / 4: noise of all levels looks alike but for the waves."""
    mean = maps(16, 16, 1, seed=1)
    model = drawn(network(outputs=("a",), mean=mean))
    inside = keras.Model(
        model.input, [model.get_layer(name).output for name in ("stem_conv", "noise_waves")]
    )
    white, sigmas = maps(2, 16, 16, 1), np.float32([0.01, 20])
    total = np.sqrt(sigmas**2 + RMS**2)[:, None, None, None]
    level = np.broadcast_to(sigmas[:, None, None, None], white.shape)
    stem, waves = inside(np.concatenate([mean + total * white, level], -1))
    kernel, bias = model.get_layer("stem_conv").get_weights()
    expected = keras.ops.conv(white, kernel, padding="same") + bias
    np.testing.assert_allclose(stem, expected, atol=1e-5)
    phase = np.log(sigmas)[:, None] / 4 * np.pi / 2 * [1, 2, 4, 8, 16]
    expected = np.concatenate([np.sin(phase), np.cos(phase)], -1)
    np.testing.assert_allclose(np.asarray(waves)[:, 0, 0], expected, atol=1e-5)


def test_noise_and_each_band_move_all_outputs():
    model, x = drawn(network()), maps(1, 16, 16, 2)

    def found(x, sigma):
        return np.asarray(diffusion.denoise(model, x, np.float32([sigma])))[0]

    start = found(x, 1.0)
    # Of what c_skip and c_out alone would not explain.
    ratio = (found(x, 2.0) - x[0] / 17) / (start - x[0] / 5)
    assert np.ptp(ratio) > 0.1
    for band in range(2):
        other = x.copy()
        other[..., band] *= 2
        assert np.all(np.std(found(other, 1.0) - start, axis=(0, 1)) > 1e-3)


@pytest.mark.parametrize(("pixels", "coarsest"), [(16, 4), (32, 8), (64, 8), (68, 17)])
def test_resolutions(pixels, coarsest):
    """Pixels attend to each other where they are few; channels double at each halving."""
    model = network(pixels, width=0.125)
    layer = model.get_layer("middle_b_add")
    halvings = round(np.log2(pixels / coarsest))
    assert layer.output.shape == (None, coarsest, coarsest, 8 * 2**halvings)
    attends = any(isinstance(layer, layers.Attention) for layer in model.layers)
    assert attends == (coarsest <= 8)
    assert model.input_shape == (None, pixels, pixels, 3)
    assert {o.shape for o in model.output.values()} == {(None, pixels, pixels, 1)}


def test_first_weights_are_drawn_by_the_seed():
    one, again, other = (network(seed=seed) for seed in (1, 1, 2))
    for mine, same in zip(values(one.variables), values(again.variables), strict=True):
        np.testing.assert_array_equal(mine, same)
    kernels = [model.get_layer("stem_conv").get_weights()[0] for model in (one, other)]
    assert not np.array_equal(*kernels)


def test_pixels_that_cannot_be_halved_are_refused():
    with pytest.raises(UserError, match="expected a multiple of 4, found 18"):
        network(18)


@pytest.mark.slow
def test_a_network_on_disk_works_in_a_fresh_process(tmp_path):
    """In safe mode, with mean and rms; outputs keep their order, which is not that of letters."""
    mean = 10 * maps(16, 16, 2, seed=1)
    model, x = drawn(network(mean=mean)), np.abs(maps(2, 16, 16, 3)) + 0.1
    model.save(tmp_path / "network.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import keras, numpy as np\n"
        "import skyweave.networks.diffusion\n"
        "model = keras.saving.load_model('network.keras', compile=False, safe_mode=True)\n"
        "assert list(model.output) == ['b', 'a']\n"
        "found = model(np.load('x.npy'))\n"
        "centre = model.get_layer('centre')\n"
        "kept = {name: np.asarray(getattr(centre, name)) for name in ('mean', 'rms')}\n"
        "np.savez('found.npz', **kept, **{name: np.asarray(found[name]) for name in found})\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    again = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(again["mean"], mean)
    assert again["rms"] == RMS
    for name, output in model(x).items():
        np.testing.assert_allclose(again[name], output, rtol=1e-5, atol=1e-6)


# The sampler


def best(variance, mean=0.0):
    """The best denoiser of white Gaussian images of a mean and variance."""
    return lambda noisy, sigma: mean + (noisy - mean) * variance / (variance + sigma**2)


def test_levels_are_those_of_the_paper():
    """Whose images have the rms 0.5; to others levels are in proportion."""
    found = diffusion.sigmas(Diffusion(steps=18), RMS)
    assert len(found) == 19
    np.testing.assert_allclose(found[[0, 17, 18]], [80, 0.002, 0], rtol=1e-12)
    np.testing.assert_allclose(
        diffusion.sigmas(Diffusion(steps=18), 0.2), 0.2 / RMS * found, rtol=1e-12
    )
    middle = (80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert found[5] == pytest.approx(middle, rel=1e-12)


def amplified(rms, steps):
    """Deviation of the images that the sampler makes of white ones' best denoiser, over theirs.

    `rms` is that of the images in units of what the network holds.
    """
    levels = diffusion.sigmas(Diffusion(steps=steps), 1.0)
    found = diffusion.integrate(best(rms**2), levels[:1], levels)[0]
    # The path to noise 0 is x sqrt(rms² + sigma²), to scale.
    return found / (rms * levels[0] / np.hypot(rms, levels[0]))


def test_paths_of_gaussian_images_are_the_analytic_ones():
    """To second order in the steps, so that the published 18 leave what `sample` says."""
    errors = [amplified(1, steps) - 1 for steps in (18, 36, 72)]
    assert errors[0] == pytest.approx(0.055, abs=0.001)
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.2)
    strengths = (0.02, 0.06, 0.2, 2, 6, 20)
    few, many = ([amplified(rms, n) - 1 for rms in strengths] for n in (18, 64))
    assert (min(few), max(few)) == pytest.approx((0.022, 0.163), abs=0.001)
    assert np.abs(many).max() < 0.01


def test_images_with_a_large_mean_need_a_start_at_it():
    """Of norm 30 in white fluctuations of 0.2, of which the most noise is only 32."""
    rms, length = 0.2, 30.0
    mean = maps(4, 4, 1, seed=7)
    along = mean / np.linalg.norm(mean)
    mean = length * along
    made = diffusion.sample(
        untrained(mean, rms, pixels=4, bands=("a",)), 20_000, SETTINGS, 3, "mean", batch=20_000
    )
    # What is drawn scatters by 0.7 % of the rms, in each pixel as along the mean.
    offset = made.mean(axis=0, dtype=float) - mean
    assert abs(np.vdot(offset, along)) < 0.02 * rms
    assert offset.std() < 0.01 * rms
    assert (made - mean).std() == pytest.approx(rms, rel=0.01)
    levels = diffusion.sigmas(SETTINGS, rms)
    exact = diffusion.integrate(best(rms**2, mean), mean, levels)
    np.testing.assert_allclose(exact, mean, rtol=1e-6)
    # (x - mean) / sqrt(rms² + sigma²) stays as it is: from 0 on, nearly one rms is missing.
    missing = length * rms / np.hypot(rms, levels[0])
    found = diffusion.integrate(best(rms**2, mean), np.zeros_like(mean), levels)
    assert length - np.vdot(found, along) == pytest.approx(missing, rel=0.01)
    assert missing == pytest.approx(0.94 * rms, rel=0.01)


def test_paths_between_two_peaks_are_those_of_another_integrator():
    """Of images ±1 with a deviation of 0.2."""

    def clean(noisy, sigma):
        total = 0.04 + sigma**2
        side = np.tanh(noisy / total)
        return side + 0.04 / total * (noisy - side)

    start = np.array([-100.0, -20.0, 3.0, 40.0, 150.0])
    levels = diffusion.sigmas(Diffusion(steps=500), RMS)
    found = diffusion.integrate(clean, start, levels)
    path = solve_ivp(
        lambda sigma, x: (x - clean(x, sigma)) / sigma,
        (levels[0], 1e-4),
        start,
        rtol=1e-9,
        atol=1e-9,
    )
    np.testing.assert_allclose(found, path.y[:, -1], atol=2e-3)
    levels = diffusion.sigmas(SETTINGS, RMS)
    many = levels[0] * np.random.default_rng(0).standard_normal(4000)
    found = diffusion.integrate(clean, many, levels)
    assert (found > 0).mean() == pytest.approx(0.5, abs=0.025)
    assert np.abs(found).mean() == pytest.approx(1, abs=0.01)
    assert np.abs(found).std() == pytest.approx(0.2, rel=0.03)


def test_images_of_the_best_denoiser_have_the_variance():
    """White images, for which that is known at each level of the noise."""
    made = diffusion.sample(untrained(), 150, SETTINGS, 3, "test", batch=75)
    assert made.shape == (150, 16, 16, 2)
    assert made.dtype == np.float32
    assert made.var() == pytest.approx(RMS**2, rel=0.02)
    assert abs(made.mean()) < 0.01
    assert abs(np.corrcoef(made.reshape(-1, 2).T)[0, 1]) < 0.02


def test_an_image_depends_on_its_number_alone():
    """Not on how many are made, or together."""
    model, settings = toy(), Diffusion(steps=3)
    made = diffusion.sample(model, 5, settings, 3, "test")
    for count, batch in ((5, 2), (3, 64)):
        found = diffusion.sample(model, count, settings, 3, "test", batch=batch)
        np.testing.assert_allclose(found, made[:count], rtol=0, atol=1e-4 * made.std())
    for key in ((4, "test"), (3, "other")):
        other = diffusion.sample(model, 1, settings, *key)
        assert np.std(other - made[:1]) > 0.1 * made.std()
    assert np.std(made[0] - made[1]) > 0.1 * made.std()


# Training


def toy(bands=BANDS):
    """A network that is soon compiled."""
    image = keras.Input((8, 8, len(bands) + 1))
    _, noisy = centred(image, 0.1 * maps(8, 8, len(bands), seed=9))
    x = layers.Concatenate()([noisy, image[..., -1:]])
    x = layers.Conv2D(4, 3, padding="same", activation="tanh", name="first")(x)
    found = {name: layers.Conv2D(1, 1, name=f"last_{name}")(x) for name in bands}
    return drawn(keras.Model(image, found), 1.0)


def method(model=None, optimizer=None, *, accumulate=False, settings=SETTINGS, **changes):
    optimizer = optimizer or keras.optimizers.SGD(0.01)
    made = Learner(model or toy(), optimizer, accumulate=accumulate)
    options = {"sigma_data": RMS, "seed": 1, "name": "a"} | changes
    return DiffusionTraining(made, settings, **options)


def truths(count=6, bands=BANDS, seed=0, pixels=8):
    return {name: maps(count, pixels, pixels, 1, seed=seed + i) for i, name in enumerate(bands)}


def test_the_best_denoiser_of_white_images_loses_one():
    """At each level of the noise, also about a mean."""
    y = {name: 2 + RMS * image for name, image in truths(512, pixels=16).items()}
    for settings in (SETTINGS, Diffusion(p_mean=-4, p_std=0.1), Diffusion(p_mean=3, p_std=0.1)):
        made = method(untrained(mean=2.0), settings=settings)
        losses = made.evaluate(None, y)
        assert list(losses) == list(BANDS)
        np.testing.assert_allclose(list(losses.values()), 1, atol=0.015)
        assert made.total(losses) == pytest.approx(sum(losses.values()))


def test_the_loss_of_a_denoiser_of_other_images_follows_the_formula():
    """c_skip x of images twice as bright, over the law of the noise."""

    def weighted(log):
        sigma = np.exp(log)
        skip = RMS**2 / (RMS**2 + sigma**2)
        error = (1 - skip) ** 2 * (2 * RMS) ** 2 + skip**2 * sigma**2
        density = norm.pdf(log, np.log(RMS) + SETTINGS.p_mean, SETTINGS.p_std)
        return error * (sigma**2 + RMS**2) / (sigma * RMS) ** 2 * density

    expected = quad(weighted, -10, 8)[0]
    y = {name: 2 * RMS * image for name, image in truths(512, pixels=16).items()}
    losses = method(untrained()).evaluate(None, y)
    np.testing.assert_allclose(list(losses.values()), expected, rtol=0.02)


def test_the_noise_is_log_normal():
    """In units of the images' rms."""
    settings = Diffusion(p_mean=0.3, p_std=0.7)
    noise, sigmas = method(settings=settings)._draw((4000, 2, 2, 1), 5)
    for quantile in (0.02, 0.3, 0.5, 0.9):
        expected = RMS * np.exp(norm.ppf(quantile, 0.3, 0.7))
        assert (sigmas < expected).mean() == pytest.approx(quantile, abs=1e-3)
    assert noise.std() == pytest.approx(1, abs=0.02)


def test_draws_are_the_batchs_own():
    """In training by its number, in validation by the images, which come again in each epoch."""
    made = method(optimizer=keras.optimizers.SGD(0.0))
    y = truths()
    first, again, other = (made.train(None, y, Place(batch, 0))[0] for batch in (3, 3, 4))
    assert first == again
    assert first != other
    judged = made.evaluate(None, y)
    assert judged == made.evaluate(None, y)
    assert judged != method(seed=2).evaluate(None, y)
    assert judged != made.evaluate(None, {name: image[::-1] for name, image in y.items()})


def test_inputs_and_the_order_of_the_truths_do_not_matter():
    y = truths()
    found = [
        method().train(x, {name: y[name] for name in names}, Place(0, 0))
        for x, names in ((None, "ab"), (np.ones(3), "ba"))
    ]
    assert found[0] == found[1]


def test_the_average_follows_its_formula_and_is_judged():
    """Half in 10,000 images, at the start in 5 % of those seen; mean and rms stay as they are."""
    made, y = method(), truths()
    learning = made.learners[0].model
    expected = values(learning.variables)
    first = values(learning.get_layer("centre").variables)
    for batch in range(4):
        made.train(None, y, Place(batch, batch))
        share = 1 - kept(10_000, 6, Place(batch, batch))
        pairs = zip(expected, values(learning.variables), strict=True)
        expected = [mean + share * (weight - mean) for mean, weight in pairs]
        for mine, theirs in zip(values(made.model.variables), expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)
    for model in (made.model, learning):
        for mine, old in zip(values(model.get_layer("centre").variables), first, strict=True):
            np.testing.assert_array_equal(mine, old)
    assert share == pytest.approx(1 - 0.5 ** (1 / (0.05 * 4)))
    before = made.evaluate(None, y)
    for variable in learning.variables:
        variable.assign(0 * variable)
    assert made.evaluate(None, y) == before


def test_updates_of_several_batches():
    """The step is the mean of theirs; nothing moves before the last."""
    y = truths()
    one = method(accumulate=True)
    start = values(one.learners[0].model.variables)
    one.train(None, y, Place(0, 0, count=2, last=False))
    for model in (one.model, one.learners[0].model):
        for mine, old in zip(values(model.variables), start, strict=True):
            np.testing.assert_array_equal(mine, old)
    one.train(None, y, Place(1, 0, count=2, last=True))
    ways = []
    for batch in range(2):
        alone = method()
        alone.train(None, y, Place(batch, batch))
        after = values(alone.learners[0].model.variables)
        ways.append([new - old for new, old in zip(after, start, strict=True)])
    after = values(one.learners[0].model.variables)
    for new, old, first, second in zip(after, start, *ways, strict=True):
        np.testing.assert_allclose(new - old, (first + second) / 2, atol=1e-6)


def test_identity_is_what_training_reads():
    """Settings of the sampler may change; an rms that was measured is the data's."""
    first = method().identity
    assert first == method(settings=Diffusion(steps=9, sigma_max=50)).identity
    assert first == method(sigma_data=RMS * (1 + 1e-12)).identity
    for other in (
        method(settings=Diffusion(p_mean=0)),
        method(settings=Diffusion(p_std=1)),
        method(settings=Diffusion(sigma_data=0.4)),
        method(seed=2),
        method(name="b"),
    ):
        assert first != other.identity
    json.dumps(first)


def test_xla_finds_the_same():
    y = truths()
    plain, compiled = (method(xla=xla).train(None, y, Place(0, 0)) for xla in (False, True))
    assert compiled[0] == pytest.approx(plain[0], rel=1e-4)
    assert compiled[1] == pytest.approx(plain[1], rel=1e-4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    fields = {name: rng.standard_normal((30, 8, 8)) for name in BANDS}
    path = tmp_path_factory.mktemp("shards") / "a.h5"
    write_shard(
        path,
        fields,
        realizations=range(30),
        size_deg=5.0,
        units=dict.fromkeys(fields, ""),
        provenance={"seed": 0},
    )
    return ShardSet([path])


def trained(shards, folder):
    """A training's history, and its variables."""
    prepare(1)
    scales = Normalization.fit(shards, shards.fields, range(20))
    feeds = [
        BatchFeed(shards, BANDS, BANDS, scales, numbers, 4, 1, ("toy",))
        for numbers in (range(20), range(20, 30))
    ]
    settings = Training(
        epochs=3, batch=4, accumulate=2, learning_rate=0.01, clip_norm=1.0, save_minutes=1e-9
    )
    made = DiffusionTraining(learner(toy(), settings), SETTINGS, sigma_data=1.0, seed=1, name="a")
    history = train(made, *feeds, settings, state_folder=folder, identity={}, log=lambda line: None)
    assert {id(v) for v in made.learners[0].variables} <= {
        id(v) for group in made.groups.values() for v in group
    }
    return history.drop(columns="seconds"), [v for g in made.groups.values() for v in values(g)]


def test_a_training_that_was_stopped_ends_alike(shards, tmp_path, monkeypatch):
    """Stopped between the batches of an update, and within validation."""
    whole = trained(shards, tmp_path / "whole")
    assert whole[0].val_loss.iloc[-1] < whole[0].val_loss.iloc[0]
    stops = 0
    with monkeypatch.context() as patch:
        patch.setattr(
            Interruption,
            "reason",
            property(lambda self: "a test" if len(self._steps) > 5 else None),
        )
        while True:
            try:
                resumed = trained(shards, tmp_path / "stopped")
                break
            except Unfinished:
                stops += 1
    assert stops >= 2
    assert whole[0].equals(resumed[0])
    for one, other in zip(whole[1], resumed[1], strict=True):
        np.testing.assert_array_equal(one, other)


def blobs(count, seed):
    """Round blobs (count, 16, 16, 1) on -1, with centres and heights of their own."""
    rng = np.random.default_rng(seed)
    row, column = 7.5 + rng.uniform(-2, 2, (2, count, 1, 1))
    height = rng.uniform(1, 2, (count, 1, 1))
    y, x = np.mgrid[:16, :16]
    images = height * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 8) - 1
    return images[..., None].astype(np.float32)


@pytest.mark.slow
def test_blobs_are_learned():
    """Their mean image, which this network does not hold, and how far its pixels lie from it."""
    prepare(1)
    real = blobs(2000, 0)
    rms = float(np.sqrt((real**2).mean()))
    model = network(outputs=("a",), sigma_data=rms)
    optimizer = keras.optimizers.Adam()
    made = method(model, optimizer, sigma_data=rms)
    y, count = {"a": blobs(256, 1)}, 200
    start = made.evaluate(None, y)["a"]
    for i in range(count):
        optimizer.learning_rate = 4e-3 * (1 - i / count)
        made.train(None, {"a": blobs(32, 2 + i)}, Place(i, i))
    end = made.evaluate(None, y)["a"]
    found = diffusion.sample(made.model, 96, Diffusion(steps=32), 1, "blobs", batch=96)
    assert start == pytest.approx(1, abs=0.05)
    assert end < 0.15 * start
    mean = found.mean(axis=0) - real.mean(axis=0)
    assert abs(mean.mean()) < 0.04
    # An untrained network's are 0.87 from it.
    assert np.sqrt((mean**2).mean()) < 0.1
    spread, expected = (np.sqrt(images.var(axis=0).mean()) for images in (found, real))
    assert spread == pytest.approx(expected, rel=0.25)


def found():
    """What both backends find: losses and norms of two updates, and samples."""
    prepare(1)
    made, rows = method(drawn(network())), []
    for update in range(2):
        losses, length = made.train(None, truths(pixels=16), Place(update, update))
        rows += [*losses.values(), length]
    samples = diffusion.sample(made.model, 2, Diffusion(steps=3), 1, "b")
    return [np.array(rows).tolist(), samples.ravel().tolist()]


@pytest.mark.slow
def test_tensorflow_and_jax_agree():
    """Losses to 1e-4, samples to 0.1 % of their deviation."""
    other = subprocess.run(
        [sys.executable, __file__],
        # Compiling is what takes long here.
        env=os.environ
        | {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (rows, samples), (others, theirs) = found(), json.loads(other.stdout.splitlines()[-1])
    np.testing.assert_allclose(rows, others, rtol=1e-4)
    assert np.std(np.subtract(samples, theirs)) < 1e-3 * np.std(samples)


if __name__ == "__main__":
    print(json.dumps(found()))
