"""VGG16's features against plain sums, and the published weights, fetched.

The latter need the network, for the package client, or the file in the folder that SKYWEAVE_DATA
names or in results/data/vgg16.
"""

import os
import pickle
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from skyweave.errors import UserError
from skyweave.networks import vgg16
from skyweave.sky.fetch import VGG16, fetch
from skyweave.training.inpainting_losses import correlations

SIZES = (3, 64, 64, 128, 128, 256, 256, 256)


def drawn() -> dict:
    """Weights in the file's layout; no symmetry hides an exchange of axes."""
    rng = np.random.default_rng(0)
    layers = {}
    for number, (into, out) in enumerate(pairwise(SIZES)):
        kernel = rng.standard_normal((3, 3, into, out), np.float32) * np.sqrt(2 / (9 * into))
        bias = 0.1 * rng.standard_normal(out, np.float32)
        layers[f"Conv_{number}"] = {"kernel": kernel.astype(np.float32), "bias": bias}
    return {"VGG16_0": layers}


def write(path: Path, content: dict) -> Path:
    path.write_bytes(pickle.dumps(content, 3))
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published weights; only a folder that the user named is written to."""
    folder = Path(__file__).parents[1] / "results" / "data" / "vgg16"
    if "SKYWEAVE_DATA" in os.environ:
        folder = Path(os.environ["SKYWEAVE_DATA"])
    elif not all((folder / name).exists() for name in VGG16.names):
        folder = tmp_path_factory.mktemp("vgg16")
    return fetch(VGG16, folder)["vgg16.ckpt"]


def plain_pools(image: np.ndarray, layers: dict) -> list[np.ndarray]:
    """Pools of an image (y, x, 3): sums over the taps, in float64, zero outside of the image."""
    x, pools = np.float64(image), []
    for number in range(7):
        kernel, bias = (np.float64(layers[f"Conv_{number}"][key]) for key in ("kernel", "bias"))
        wide = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        height, width = x.shape[:2]
        total = np.zeros((height, width, kernel.shape[-1])) + bias
        for dy in range(3):
            for dx in range(3):
                total += wide[dy : dy + height, dx : dx + width] @ kernel[dy, dx]
        x = np.maximum(total, 0)
        if number in (1, 3, 6):
            x = np.maximum(
                np.maximum(x[::2, ::2], x[1::2, ::2]), np.maximum(x[::2, 1::2], x[1::2, 1::2])
            )
            pools.append(x)
    return pools


def test_pools_are_those_of_plain_sums(tmp_path: Path) -> None:
    weights = drawn()
    network = vgg16.features(write(tmp_path / "a.ckpt", weights), 16)
    images = np.random.default_rng(1).standard_normal((2, 16, 16, 3), np.float32)
    found = network(images)
    assert [tuple(one.shape[1:]) for one in found] == [(8, 8, 64), (4, 4, 128), (2, 2, 256)]
    for number, image in enumerate(images):
        for one, expected in zip(found, plain_pools(image, weights["VGG16_0"]), strict=True):
            np.testing.assert_allclose(one[number], expected, atol=1e-5 * expected.max())
            assert (expected > 0).mean() > 0.1


def test_the_network_is_frozen_and_in_float32_under_any_policy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt", drawn())
    images = np.random.default_rng(1).standard_normal((1, 8, 8, 3), np.float32)
    expected = vgg16.features(path, 8)(images)
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        network = vgg16.features(path, 8)
        found = network(images)
    finally:
        keras.config.set_dtype_policy(policy)
    assert not network.trainable_variables
    assert network.count_params() == 1_735_488
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == "float32"
        np.testing.assert_array_equal(one, other)


def test_maps_as_images() -> None:
    """Colours of 0, 1/2 and 1 at -3, 0 and 3 deviations, normalized by hand; no end beyond."""
    maps = np.array([-3, 0, 3, 6], np.float32).reshape(1, 2, 2, 1)
    found = np.asarray(vgg16.as_images(ops.convert_to_tensor(maps))).reshape(4, 3)
    red, green, blue = found.T
    np.testing.assert_allclose(red, np.array([-0.485, 0.015, 0.515, 1.015]) / 0.229, rtol=1e-5)
    np.testing.assert_allclose(green, np.array([-0.456, 0.044, 0.544, 1.044]) / 0.224, rtol=1e-5)
    np.testing.assert_allclose(blue, np.array([-0.406, 0.094, 0.594, 1.094]) / 0.225, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: w.pop("VGG16_0"), r"VGG16_0/Conv_0/kernel of shape \(3, 3, 3, 64\), found no"),
        (lambda w: w["VGG16_0"].pop("Conv_6"), r"Conv_6/kernel of shape .*, found no such array"),
        (lambda w: w["VGG16_0"]["Conv_3"].pop("bias"), r"Conv_3/bias of shape \(128,\), found no"),
        (
            lambda w: w["VGG16_0"]["Conv_2"].update(kernel=np.zeros((128, 64, 3, 3), np.float32)),
            r"Conv_2/kernel of shape \(3, 3, 64, 128\), found shape \(128, 64, 3, 3\), float32",
        ),
        (
            lambda w: w["VGG16_0"]["Conv_0"].update(bias=np.zeros(64, int)),
            r"Conv_0/bias of shape \(64,\), found shape \(64,\), int64",
        ),
    ],
)
def test_other_files_are_refused(change, expected: str, tmp_path: Path) -> None:
    weights = drawn()
    change(weights)
    path = write(tmp_path / "a.ckpt", weights)
    with pytest.raises(UserError, match=rf"a\.ckpt: expected .*{expected}"):
        vgg16.read_weights(path)


def test_patches_of_less_than_a_pixel_of_the_last_pool_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grid\.pixels: expected at least 8 for VGG16, found 7"):
        vgg16.features(tmp_path / "none", 7)


def test_published_weights_are_those_that_others_know(published: Path) -> None:
    """First numbers of the network of torchvision, as its users print them; red comes first."""
    kernel, bias = vgg16.read_weights(published)[0]
    np.testing.assert_allclose(bias[:4], [0.4034, 0.3778, 0.4644, -0.3228], atol=5e-5)
    known = [[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]]
    np.testing.assert_allclose(kernel[:, :, 0, 0], known, atol=5e-5)
    shapes = [kernel.shape for kernel, _ in vgg16.read_weights(published)]
    assert shapes == [(3, 3, *pair) for pair in pairwise(SIZES)]


def textures(seed: int) -> dict[str, np.ndarray]:
    """Filaments and a Gaussian map of the same power spectrum, (64, 64), mean 0, deviation 1."""
    rng = np.random.default_rng(seed)
    ky, kx = np.meshgrid(np.fft.fftfreq(64), np.fft.rfftfreq(64), indexing="ij")
    smooth = np.exp(-0.5 * (np.hypot(ky, kx) / 0.06) ** 2)

    def gaussian(amplitude: np.ndarray) -> np.ndarray:
        drawn = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((64, 64))) * amplitude, (64, 64))
        return (drawn - drawn.mean()) / drawn.std()

    ridges = np.exp(-(gaussian(smooth) ** 2) / 0.02)
    ridges = (ridges - ridges.mean()) / ridges.std()
    phases = np.angle(np.fft.rfft2(rng.standard_normal((64, 64))))
    shuffled = np.fft.irfft2(np.abs(np.fft.rfft2(ridges)) * np.exp(1j * phases), (64, 64))
    return {"filaments": ridges, "gaussian": (shuffled - shuffled.mean()) / shuffled.std()}


def test_features_tell_textures_of_one_spectrum_apart(published: Path) -> None:
    """Two draws of a texture are nearer to each other than to those of another, in each pool."""
    names = ("filaments", "gaussian")
    draws = [textures(seed) for seed in range(3)]
    maps = np.float32([draw[name] for name in names for draw in draws])[..., None]
    power = (np.abs(np.fft.rfft2(maps[..., 0])) ** 2)[:, :, 1:32]
    np.testing.assert_allclose(power[:3], power[3:], rtol=1e-3, atol=1e-2)
    for pool in vgg16.features(published, 64)(vgg16.as_images(ops.convert_to_tensor(maps))):
        grams = np.asarray(correlations(pool))
        apart = np.abs(grams[:, None] - grams[None]).mean(axis=(2, 3))
        same = [apart[a, b] for a in range(6) for b in range(a) if a // 3 == b // 3]
        other = [apart[a, b] for a in range(3) for b in range(3, 6)]
        assert min(other) > 1.5 * max(same)
