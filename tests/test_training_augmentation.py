"""Adaptive augmentation: its transforms against theory, its probability, and both backends."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops
from scipy.ndimage import affine_transform
from scipy.stats import kstest

from skyweave.config import Training
from skyweave.config.galaxies import Augmentation
from skyweave.config.runs import StyleBased as Settings
from skyweave.data.feed import BatchFeed
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet, write_shard
from skyweave.errors import Unfinished
from skyweave.training import style
from skyweave.training.augmentation import Adaptive, compose, draw, warp
from skyweave.training.gradients import seam
from skyweave.training.interruption import Interruption
from skyweave.training.loop import train
from skyweave.training.method import Learner, Place
from skyweave.training.runtime import prepare
from skyweave.training.state import values
from skyweave.training.style import StyleBased

PIXELS, LATENT, BATCH = 16, 3, 8
ON = Augmentation(adaptive=True, target=0.6, images=100)


def images(count=BATCH, pixels=PIXELS, bands=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, pixels, pixels, bands)).astype(np.float32)


def drawn(model, seed):
    """The model with weights from NumPy."""
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        fan_in = max(1, np.prod(v.shape[:-1]))
        v.assign(rng.standard_normal(v.shape) / np.sqrt(fan_in))
    return model


def generator(fields=("a", "b")):
    latents, styles = keras.Input((LATENT,)), keras.Input((2, 4))
    mapping = keras.Model(latents, layers.Dense(4, activation="tanh")(latents))
    x = layers.Dense(PIXELS**2 * len(fields))(layers.Flatten()(styles))
    x = layers.Reshape((PIXELS, PIXELS, len(fields)))(x)
    outputs = {name: x[..., i : i + 1] for i, name in enumerate(fields)}
    return style.compose(mapping, keras.Model(styles, outputs))


def discriminator(fields=2, kernel=3):
    maps = keras.Input((PIXELS, PIXELS, fields))
    x = layers.Conv2D(4, kernel, activation="softplus")(maps)
    return keras.Model(maps, layers.Dense(1)(layers.Flatten()(x)))


def linear(fields=2):
    """A discriminator of one weight a pixel."""
    maps = keras.Input((PIXELS, PIXELS, fields))
    return keras.Model(maps, layers.Dense(1)(layers.Flatten()(maps)))


def level(value):
    """A discriminator that says `value` of all images, whatever it learns (its rate is 0)."""
    judge = linear()
    judge.layers[-1].set_weights([np.zeros((PIXELS**2 * 2, 1)), np.full(1, value)])
    return judge


def method(judge=None, augment=ON, rate=1e-3, xla=False, **settings):
    judge = drawn(discriminator(), 1) if judge is None else judge
    made = [Learner(model, keras.optimizers.SGD(rate)) for model in (drawn(generator(), 0), judge)]
    settings = Settings(**({"r1_interval": 0, "path_interval": 0} | settings))
    return StyleBased(*made, settings, seed=7, name="toy", augment=augment, xla=xla)


def real(seed=0):
    maps = images(seed=seed)
    return {"a": maps[..., :1], "b": maps[..., 1:]}


def step(one, batch=0, **place):
    return one.train(None, real(), Place(batch, place.pop("update", batch), **place))[0]


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def always(maps):
    """One map (3, 3) for all images."""
    return np.tile(np.asarray(maps, np.float32), (BATCH, 1, 1))


def whole(count=BATCH, pixels=PIXELS, probability=1.0, seed=1):
    """Random maps of all transforms, as they are applied."""
    maps, needed = draw(np.random.default_rng(seed), count, pixels)
    return numpy(compose(maps, needed, np.float32(probability)))


def parity():
    """Warped images, the gradient through them, and a training of a few steps."""
    maps = whole()
    middle = seam([])

    def pulled(pixels):
        value, _, (gradient,) = middle.gradient(
            lambda x: (ops.sum(ops.square(warp(x, maps))), None), tensors=[pixels]
        )
        return {"value": value, "gradient": gradient}

    found = {"warped": numpy(warp(images(), maps)).ravel().tolist()}
    traced = middle.compile(pulled)(images())
    found |= {name: numpy(one).ravel().tolist() for name, one in traced.items()}
    one = method(augment=ON.model_copy(update={"images": 40}), r1_interval=2, path_interval=2)
    one.groups["augmentation"][0].assign(0.5)
    found["losses"] = [step(one, batch) for batch in range(5)]
    found["state"] = [float(v) for v in values(one.groups["augmentation"])]
    return found


def test_without_probability_images_stay_as_they_are_bit_for_bit():
    for pixels in (PIXELS, 21):
        maps = images(pixels=pixels)
        np.testing.assert_array_equal(numpy(warp(maps, whole(pixels=pixels, probability=0))), maps)
    one = Adaptive(ON, seed=1, name="toy")
    np.testing.assert_array_equal(numpy(one(maps, one.draw(maps.shape, "real", 0))), maps)


def test_mirrors_quarter_turns_and_whole_shifts_are_exact():
    maps, pixels = draw(np.random.default_rng(0), 200, PIXELS)[0], images(200)
    mirrored = numpy(warp(pixels, maps[:, 0]))
    turned = numpy(warp(pixels, maps[:, 1]))
    shifted = numpy(warp(pixels, maps[:, 2]))
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    seen = set()
    for number, image in enumerate(pixels):
        flip = maps[number, 0, 0, 0]
        np.testing.assert_array_equal(mirrored[number], image[:, :: int(flip)])
        # From the pixel made to the one taken: one quarter takes (x, y) from (-y, x).
        quarter = [np.array_equal(turned[number], np.rot90(image, k)) for k in range(4)]
        assert sum(quarter) == 1
        x, y = maps[number, 2, :2, 2].astype(int)
        expected = padded[number, 2 + y : 2 + y + PIXELS, 2 + x : 2 + x + PIXELS]
        np.testing.assert_array_equal(shifted[number], expected)
        seen |= {("flip", flip), ("quarter", quarter.index(True)), ("x", x), ("y", y)}
    # A sixteenth of the side is one pixel, an eighth two.
    assert len(seen) == 2 + 4 + 5 + 5


def test_a_composed_map_is_one_transform_after_the_other():
    maps, needed = draw(np.random.default_rng(2), 50, PIXELS)
    expected = np.tile(np.eye(3), (50, 1, 1))
    for number in range(maps.shape[1]):
        factor = np.where((needed[:, number] < 0.6)[:, None, None], maps[:, number], np.eye(3))
        expected = expected @ factor
    np.testing.assert_allclose(numpy(compose(maps, needed, 0.6)), expected, atol=1e-5)


def test_warped_images_are_scipys():
    pixels, maps = images(pixels=24).astype(np.float64), whole(pixels=24)
    found = numpy(warp(pixels.astype(np.float32), maps))
    middle = np.full(2, 11.5)
    for image, made, one in zip(pixels, found, maps.astype(np.float64), strict=True):
        matrix = one[1::-1, 1::-1]
        offset = middle - matrix @ middle + one[1::-1, 2]
        for band in (0, 1):
            expected = affine_transform(image[..., band], matrix, offset, order=1, mode="mirror")
            np.testing.assert_allclose(made[..., band], expected, rtol=0, atol=2e-4)


def test_the_warp_of_a_slope_is_the_slope_at_the_places():
    """Bilinear interpolation is exact for what is linear in x and y, inside the frame."""
    axis = np.arange(64) - 31.5
    slopes = np.stack([np.tile(axis, (64, 1)), np.tile(axis[:, None], (1, 64))], axis=-1)
    angle = 0.3
    turn = [[np.cos(angle), -np.sin(angle), 1.25], [np.sin(angle), np.cos(angle), -2.5], [0, 0, 1]]
    found = numpy(warp(np.tile(slopes, (BATCH, 1, 1, 1)).astype(np.float32), always(turn)))[0]
    inside = np.hypot(*slopes[16:48, 16:48].reshape(-1, 2).T).max() + 3 < 31
    assert inside
    for row in range(16, 48):
        for column in range(16, 48):
            place = turn @ np.array([*slopes[row, column], 1])
            np.testing.assert_allclose(found[row, column], place[:2], atol=1e-4)


def test_each_transform_is_applied_as_often_as_asked():
    count, probability = 20_000, 0.3
    _, needed = draw(np.random.default_rng(0), count, PIXELS)
    applied = (needed < probability).mean(axis=0)
    error = 4 * np.sqrt(probability * (1 - probability) / count)
    single = [0, 1, 2, 3, 5, 7]
    np.testing.assert_allclose(applied[single], probability, atol=error)
    either = (needed[:, [4, 6]] < probability).any(axis=1).mean()
    assert either == pytest.approx(probability, abs=error)
    assert applied[4] == pytest.approx(1 - np.sqrt(1 - probability), abs=error)
    assert abs(np.corrcoef(needed.T) - np.eye(8)).max() < 0.04


def test_transforms_have_the_published_distributions():
    maps, _ = draw(np.random.default_rng(3), 5000, 64)
    maps = maps.astype(np.float64)
    for found, law, options in (
        (np.log2(maps[:, 3, 0, 0]), "norm", (0, 0.2)),
        (np.log2(maps[:, 5, 0, 0]), "norm", (0, 0.2)),
        (np.arctan2(maps[:, 4, 1, 0], maps[:, 4, 0, 0]), "uniform", (-np.pi, 2 * np.pi)),
        (np.arctan2(maps[:, 6, 1, 0], maps[:, 6, 0, 0]), "uniform", (-np.pi, 2 * np.pi)),
        (maps[:, 7, 0, 2], "norm", (0, 8)),
        (maps[:, 7, 1, 2], "norm", (0, 8)),
    ):
        assert kstest(found, law, options).pvalue > 1e-3
    area = np.linalg.det(maps)
    np.testing.assert_allclose(area[:, 3], maps[:, 3, 0, 0] ** 2, rtol=1e-5)
    np.testing.assert_allclose(area[:, 4:7], 1, rtol=1e-5)
    np.testing.assert_array_equal(maps[:, 2, :2, 2], np.rint(maps[:, 2, :2, 2]))
    assert abs(maps[:, 2, :2, 2]).max() == 8


def test_the_gradient_is_that_of_finite_differences():
    """Of a cubic function of the warped images: also the slope's own slope, as R1 has it."""
    maps, pixels, way = whole(), images(), images(seed=5)
    middle = seam([])

    def total(x):
        return ops.sum(warp(x, maps) ** 3)

    def slopes(x, way):
        def along(x):
            _, _, (slope,) = middle.gradient(lambda x: (total(x), None), tensors=[x])
            return ops.sum(slope * way), slope

        _, slope, (second,) = middle.gradient(along, tensors=[x])
        return slope, second

    slope, second = (numpy(one) for one in middle.compile(slopes)(pixels, way))
    step = 1e-2
    ahead, behind = (numpy(warp(pixels + s * way, maps)).astype(float) for s in (step, -step))
    difference = ((ahead**3).sum() - (behind**3).sum()) / (2 * step)
    assert (slope * way).sum(dtype=float) == pytest.approx(difference, rel=1e-3)
    # d²/ds² of the cubic is 6 Σ w (∂w)², with ∂w the warped way: w is linear in the images.
    warped, moved = (numpy(warp(one, maps)).astype(float) for one in (pixels, way))
    expected = 6 * (warped * moved**2).sum()
    assert (second * way).sum(dtype=float) == pytest.approx(expected, rel=1e-3)


def test_draws_are_of_the_batch_and_of_what_they_are_for():
    one = Adaptive(ON, seed=1, name="toy")
    found = [
        one.draw((4, PIXELS, PIXELS, 2), *key) for key in (("real", 0), ("made", 0), ("real", 1))
    ]
    found.append(Adaptive(ON, seed=1, name="other").draw((4, PIXELS, PIXELS, 2), "real", 0))
    for part in (0, 1):
        assert len({draws[part].tobytes() for draws in found}) == 4
    again = Adaptive(ON, seed=1, name="toy").draw((4, PIXELS, PIXELS, 2), "real", 0)
    np.testing.assert_array_equal(again[0], found[0][0])


def test_both_networks_see_real_and_made_images_through_it():
    """By the losses before a linear discriminator."""
    judge = drawn(linear(), 1)
    one = method(judge)
    one.groups["augmentation"][0].assign(0.7)
    kernel, bias = values(judge.trainable_variables)
    made = numpy(one._joined(one._synthesis(one._mixed(*one._styles(BATCH, "styles", 3)))))
    maps = np.concatenate(list(real().values()), axis=-1)
    logits = {}
    for role, shown in (("real", maps), ("made", made)):
        transforms, needed = one._adaptive.draw(shown.shape, role, 3)
        warped = numpy(warp(shown, compose(transforms, needed, np.float32(0.7))))
        assert not np.allclose(warped, shown)
        logits[role] = warped.reshape(BATCH, -1) @ kernel + bias
    losses = step(one, 3)
    on_made, on_real = logits["made"], logits["real"]
    assert losses["generator"] == pytest.approx(np.logaddexp(0, -on_made).mean(), rel=1e-4)
    told = np.logaddexp(0, on_made).mean() + np.logaddexp(0, -on_real).mean()
    assert losses["discriminator"] == pytest.approx(told, rel=1e-4)
    assert losses["augmentation"] == pytest.approx(0.7)


def test_the_generator_learns_through_it():
    """Its output layer's bias: the discriminator's weights, warped back, and the logits' slope."""
    judge = drawn(linear(), 1)
    one = method(judge, rate=1.0)
    one.groups["augmentation"][0].assign(0.9)
    kernel, bias = values(judge.trainable_variables)
    made = numpy(one._joined(one._synthesis(one._mixed(*one._styles(BATCH, "styles", 0)))))
    maps = numpy(compose(*one._adaptive.draw(made.shape, "made", 0), np.float32(0.9)))
    logits = numpy(warp(made, maps)).reshape(BATCH, -1) @ kernel + bias
    before = values(one.learners[0].model.trainable_variables)[-1]
    step(one)
    moved = values(one.learners[0].model.trainable_variables)[-1] - before
    # The warp is a matrix: its columns are the warped images of one pixel each.
    weights = kernel.reshape(PIXELS, PIXELS, 2)
    expected = np.zeros((PIXELS, PIXELS, 2))
    for row, column in ((8, 8), (3, 11), (0, 5)):
        for band in (0, 1):
            pixel = np.zeros((BATCH, PIXELS, PIXELS, 2), np.float32)
            pixel[:, row, column, band] = 1
            answers = (numpy(warp(pixel, maps)) * weights).sum(axis=(1, 2, 3))
            expected[row, column, band] = (answers / (1 + np.exp(logits[:, 0]))).mean()
            found = moved.reshape(PIXELS, PIXELS, 2)[row, column, band]
            assert found == pytest.approx(expected[row, column, band], abs=1e-5)
    assert abs(expected).max() > 1e-3


def test_r1_is_the_slope_by_what_the_discriminator_sees():
    """That of a linear one is its weights, wherever the pixels came from."""
    judge = drawn(linear(), 1)
    one = method(judge, r1_interval=1)
    one.groups["augmentation"][0].assign(1.0)
    kernel = values(judge.trainable_variables)[0]
    assert step(one)["r1"] == pytest.approx((kernel**2).sum(), rel=1e-5)


@pytest.mark.parametrize(("logit", "way"), [(1.0, 1), (-1.0, -1)])
def test_the_probability_rises_where_all_real_images_are_known_and_falls_otherwise(logit, way):
    """Every fourth update, by the images since then: 4 x 8 of 100."""
    one = method(level(logit), rate=1e-30)
    one.groups["augmentation"][0].assign(0.5)
    found = [step(one, batch)["augmentation"] for batch in range(12)]
    expected = [0.5] * 4 + [0.5 + way * 0.32] * 4 + [(1 + way) / 2] * 4
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_probability_is_held_at_its_target():
    """The mean sign of three quarters of the batches right is 1/2, below 0.6 and above 0.4."""
    for target, way in ((0.6, -1), (0.4, 1)):
        one = Adaptive(ON.model_copy(update={"target": target}), seed=1, name="toy")
        one.variables[0].assign(0.5)
        for batch in range(4):
            one.adapt(ops.convert_to_tensor(float(batch != 2)), one.due(batch, True), 0.05)
        found = [float(v) for v in values(one.variables)]
        assert found == pytest.approx([0.5 + way * 0.2, 0, 0])


def test_updates_of_several_batches_change_it_at_their_end():
    one = Adaptive(ON, seed=1, name="toy")
    ends = [one.due(b // 3, b % 3 == 2) for b in range(24)]
    assert [b for b, due in enumerate(ends) if due] == [11, 23]
    for batch, due in enumerate(ends[:12]):
        one.adapt(ops.convert_to_tensor(1.0), due, 0.01)
        assert values(one.variables)[2] == (batch + 1) % 12
    assert values(one.variables)[0] == pytest.approx(0.12)


def test_validation_is_not_augmented():
    one, plain = method(), method(augment=None)
    one.groups["augmentation"][0].assign(1.0)
    assert one.evaluate(None, real()) == plain.evaluate(None, real())


def test_switched_off_it_is_the_training_without_it():
    """Also where it is on and its probability 0, losses are those without it."""
    plain = method(augment=None)
    off = method(augment=Augmentation(adaptive=False))
    on = method(augment=ON.model_copy(update={"images": 1e12}))
    assert off.identity == plain.identity
    assert set(off.groups) == set(plain.groups)
    assert on.identity["augmentation"] == {"target": 0.6, "images": 1e12}
    for batch in range(2):
        expected = step(plain, batch)
        assert step(off, batch) == expected
        assert step(on, batch) == pytest.approx(expected | {"augmentation": 0.0}, rel=1e-5)
    assert "augmentation" not in expected
    for name, variables in plain.groups.items():
        for mine, theirs in zip(values(variables), values(off.groups[name]), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_xla_compiles_it():
    found = []
    for xla in (False, True):
        one = method(xla=xla, r1_interval=1)
        one.groups["augmentation"][0].assign(0.8)
        found.append(step(one))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.fixture(scope="module")
def feeds(tmp_path_factory):
    rng = np.random.default_rng(0)
    fields = {name: rng.standard_normal((20, PIXELS, PIXELS)) for name in ("a", "b")}
    path = tmp_path_factory.mktemp("shards") / "a.h5"
    write_shard(
        path,
        fields,
        realizations=range(20),
        size_deg=5.0,
        units=dict.fromkeys(fields, ""),
        provenance={"seed": 0},
    )
    shards = ShardSet([path])
    scales = Normalization.fit(shards, shards.fields, range(14))
    return [
        BatchFeed(shards, ["a"], ["a", "b"], scales, numbers, 2, 1, ("toy",))
        for numbers in (range(14), range(14, 20))
    ]


def trained(feeds, folder):
    """Updates of two batches and of one at an epoch's end; all transforms move."""
    prepare(1)
    training = Training(epochs=3, batch=2, accumulate=2, learning_rate=0.01)
    settings = Settings(r1_interval=3, path_interval=3, average_images=20)
    networks = drawn(generator(), 0), drawn(discriminator(), 1)
    made = style.learners(*networks, training, settings)
    augment = Augmentation(adaptive=True, target=0.3, images=60)
    one = StyleBased(*made, settings, seed=7, name="toy", augment=augment)
    one.groups["augmentation"][0].assign(0.5)
    history = train(
        one, *feeds, training, state_folder=folder, identity={"run": "toy"}, log=lambda line: None
    )
    return one, history


def test_a_training_cut_short_ends_as_one_that_was_not(feeds, tmp_path, monkeypatch):
    """Cut between the batches of an update, and between changes of the probability."""
    whole, expected = trained(feeds, tmp_path / "whole")
    # It changes at the ends of epochs, by 14 of 60 images.
    moved = abs(np.diff(expected["loss_augmentation"]))
    np.testing.assert_allclose(moved, 14 / 60, atol=1e-6)
    assert "val_loss_augmentation" not in expected
    np.testing.assert_array_equal(expected["loss"], expected["loss_generator"])
    for steps in (9, 7):

        def reason(self, steps=steps):
            return "a test" if len(self._steps) >= steps else None

        with monkeypatch.context() as patch:
            patch.setattr(Interruption, "reason", property(reason))
            with pytest.raises(Unfinished):
                trained(feeds, tmp_path / "cut")
    cut, history = trained(feeds, tmp_path / "cut")
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True
    )
    for name, variables in whole.groups.items():
        for mine, theirs in zip(values(variables), values(cut.groups[name]), strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
    held = {id(v) for group in whole.groups.values() for v in group}
    assert {id(v) for v in whole._adaptive.variables} <= held


@pytest.mark.slow
def test_tensorflow_and_jax_agree():
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    jax, tensorflow = json.loads(other.stdout.splitlines()[-1]), parity()
    for name in ("warped", "value", "gradient"):
        # Places that rounding moves across a pixel's middle move what is interpolated as little.
        largest = np.abs(tensorflow[name]).max()
        np.testing.assert_allclose(jax[name], tensorflow[name], rtol=0, atol=1e-4 * largest)
    for one, two in zip(jax["losses"], tensorflow["losses"], strict=True):
        assert one == pytest.approx(two, rel=1e-3)
    assert jax["losses"][-1]["augmentation"] != jax["losses"][0]["augmentation"]
    assert jax["state"] == pytest.approx(tensorflow["state"], abs=1e-6)


if __name__ == "__main__":
    print(json.dumps(parity()))
