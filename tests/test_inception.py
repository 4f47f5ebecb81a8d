"""Inception's features against those of the published network itself, and images on their way in.

The weights need the network, for the package client, or the file in the folder that SKYWEAVE_DATA
names or in results/data/inception. `data/inception_features.npz` holds what the file's own code
makes of `pictures()`, by PyTorch 2.13.0 on a processor, float32:

    network = torch.jit.load("default_1.pt").eval()
    with torch.inference_mode():
        features = network(torch.from_numpy(pictures().transpose(0, 3, 1, 2).copy())).numpy()
    np.savez_compressed("inception_features.npz", features=features)
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from skyweave.data.torchscript import read_tensors
from skyweave.errors import UserError
from skyweave.networks import inception
from skyweave.sky.fetch import INCEPTION, fetch

PIXELS = 299


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published weights; only a folder that the user named is written to."""
    folder = Path(__file__).parents[1] / "results" / "data" / "inception"
    if "SKYWEAVE_DATA" in os.environ:
        folder = Path(os.environ["SKYWEAVE_DATA"])
    elif not all((folder / name).exists() for name in INCEPTION.names):
        folder = tmp_path_factory.mktemp("inception")
    return fetch(INCEPTION, folder)["default_1.pt"]


@pytest.fixture(scope="module")
def network(published: Path) -> keras.Model:
    return inception.features(published)


def pictures() -> np.ndarray:
    """16 pictures (n, 299, 299, 3) in [-1, 1]: smooth random fields, then galaxies with noise."""
    rng = np.random.default_rng(0)
    wave = np.hypot(np.fft.fftfreq(PIXELS)[:, None], np.fft.rfftfreq(PIXELS)[None])
    y, x = np.mgrid[:PIXELS, :PIXELS] - (PIXELS - 1) / 2
    found = []
    for width in (1, 2, 3, 5, 8, 12, 20, 40):
        white = np.fft.rfft2(rng.standard_normal((3, PIXELS, PIXELS)))
        white[1] += white[0]
        field = np.fft.irfft2(white * np.exp(-0.5 * (2 * np.pi * wave * width) ** 2), x.shape)
        found.append(np.tanh(field / field.std()))
    for index in (0.5, 1, 1.5, 2, 2.5, 3, 4, 5):
        angle, ratio, radius = rng.uniform((0, 0.3, 20), (np.pi, 1, 60))
        across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        r = np.hypot(across[0] * ratio**0.5, across[1] / ratio**0.5) / radius
        flux = np.exp(-2 * index * (r ** (1 / index) - 1)) * np.array([1, 0.7, 0.4])[:, None, None]
        flux = flux + 0.02 * rng.standard_normal((3, *x.shape))
        found.append(np.arcsinh(10 * flux) / 3 - 1)
    return np.clip(found, -1, 1).astype(np.float32).transpose(0, 2, 3, 1)


def test_features_are_those_of_the_published_network(network: keras.Model) -> None:
    """To 1e-4, of themselves and of their rms: float32 sums in another order differ by 1e-5."""
    with np.load(Path(__file__).parent / "data" / "inception_features.npz") as known:
        expected = known["features"]
    found = inception.embed(network, pictures(), batch=5)
    assert found.shape == (16, 2048)
    assert found.dtype == np.float32
    rms = np.sqrt(np.mean(expected**2))
    assert rms > 0.3
    assert np.abs(found - expected).max() < 1e-4 * min(rms, 1)
    # Pictures differ by far more than that.
    apart = np.abs(expected[:, None] - expected).max(axis=-1) + 9 * np.eye(16)
    assert apart.min() > 0.3


def test_the_published_network_is_whole(published: Path, network: keras.Model) -> None:
    """Each tensor of the file is used, but for what batch norms leave of four to two."""
    tensors = read_tensors(published)
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(tensors) == 4 * len(convolutions) == 376
    norms = sum(array.size for name, array in tensors.items() if name.endswith(".beta"))
    assert network.count_params() == sum(array.size for array in tensors.values()) - 2 * norms
    assert not network.trainable_variables


def test_the_network_is_in_float32_under_any_policy(published: Path, network: keras.Model) -> None:
    images = pictures()[10:11]
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        found = inception.embed(inception.features(published), images)
    finally:
        keras.config.set_dtype_policy(policy)
    np.testing.assert_array_equal(found, inception.embed(network, images))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.clear(), r"net\.layers\.conv\.weight of shape \(32, 3, 3, 3\), found no such"),
        (
            lambda t: t.pop("net.layers.mixed_10.tower_2_conv.var"),
            r"mixed_10\.tower_2_conv\.var of shape \(192,\), found no such tensor",
        ),
        (
            lambda t: t.update({"net.layers.conv_1.weight": np.zeros((3, 3, 32, 32), "f4")}),
            r"conv_1\.weight of shape \(32, 32, 3, 3\), found shape \(3, 3, 32, 32\), float32",
        ),
        (
            lambda t: t.update({"net.layers.conv.beta": np.zeros(32, int)}),
            r"conv\.beta of shape \(32,\), found shape \(32,\), int64",
        ),
    ],
)
def test_other_files_are_refused(change, expected: str, published: Path, monkeypatch) -> None:
    tensors = read_tensors(published)
    change(tensors)
    monkeypatch.setattr(inception, "read_tensors", lambda path: tensors)
    with pytest.raises(UserError, match=rf"default_1\.pt: expected .*{expected}"):
        inception.features(published)


# Images on their way in


def window(colour: int) -> keras.Model:
    """A network whose 2048 features are pixels of one colour: (n, 8, 256) of them."""
    image = keras.Input((PIXELS, PIXELS, 3))
    pixels = image[:, 140:148, 20:276, colour]
    return keras.Model(image, keras.layers.Reshape((2048,))(pixels))


def seen(images: np.ndarray, colour: int = 0) -> np.ndarray:
    """Those pixels (n, 8, 256), as the network gets them."""
    return inception.embed(window(colour), images, batch=2).reshape(-1, 8, 256)


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (299, 299), (640, 500)])
def test_images_are_resized_as_by_pillow(size: tuple[int, int]) -> None:
    """Linearly, without aliasing, in floats; Pillow's weights are of single precision."""
    from PIL import Image

    images = np.random.default_rng(0).uniform(-1, 1, (3, *size)).astype(np.float32)
    expected = [
        np.asarray(Image.fromarray(image).resize((PIXELS, PIXELS), Image.Resampling.BILINEAR))
        for image in images
    ]
    found = seen(images)
    np.testing.assert_allclose(found, np.array(expected)[:, 140:148, 20:276], atol=1e-4)
    assert found.std() > 0.1


def test_nothing_is_rounded() -> None:
    """A ramp far below one of 256 levels comes out as a ramp."""
    ramp = np.broadcast_to(np.linspace(0, 1e-4, 64, dtype=np.float32), (1, 64, 64))
    steps = np.diff(seen(ramp)[0], axis=1)
    np.testing.assert_allclose(steps, 1e-4 / 63 * 64 / 299, rtol=1e-3)


@pytest.mark.parametrize(
    ("bands", "shares"),
    [
        (1, [[1], [1], [1]]),
        (2, [[1, 0], [1 / 2, 1 / 2], [0, 1]]),
        (3, np.eye(3)),
        (4, [[3 / 4, 1 / 4, 0, 0], [0, 1 / 2, 1 / 2, 0], [0, 0, 1 / 4, 3 / 4]]),
        (5, [[0.6, 0.4, 0, 0, 0], [0, 0.2, 0.6, 0.2, 0], [0, 0, 0, 0.4, 0.6]]),
    ],
)
def test_colours_are_means_of_thirds_of_the_bands(bands: int, shares) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, bands)).astype(np.float32)
    single = np.array([seen(images[..., band]) for band in range(bands)])
    for colour, share in enumerate(shares):
        expected = np.tensordot(share, single, axes=1)
        np.testing.assert_allclose(seen(images, colour), expected, atol=1e-6)


def test_grey_images_are_those_of_three_equal_bands(network: keras.Model) -> None:
    grey = np.ascontiguousarray(pictures()[7:9, ::4, ::4, 0])
    found = inception.embed(network, grey)
    colour = inception.embed(network, np.repeat(grey[..., None], 3, axis=-1))
    np.testing.assert_allclose(found, colour, atol=1e-5)
    assert np.abs(found[1] - found[0]).max() > 0.1


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images \(n, y, x\) .* Received: \(8, 8\)"):
        inception.embed(window(0), np.zeros((8, 8), np.float32))


# How fast it is

MEASURED = """
import dataclasses, json
from benchmarks import features
print(json.dumps(dataclasses.asdict(features.inception(count=4, batch=2, blocks=1))))
"""


@pytest.mark.slow
def test_the_rate_is_measured(published: Path) -> None:
    """In a process of its own: TensorFlow's threads are set once in each."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"SKYWEAVE_DATA": str(published.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["ratio"] == pytest.approx(measured["ours"] / measured["peer"])
    assert "11.4 GFLOP an image" in measured["note"]
