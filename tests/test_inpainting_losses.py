"""Losses of filled maps against sums over pixels, with their gradients."""

import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from keras import ops

from skyweave.config.inpainting import InpaintingLosses
from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.networks.vgg16 import DEVIATION, MEAN, as_images
from skyweave.training.gradients import seam
from skyweave.training.inpainting_losses import NAMES, inpainting_losses, weights

FIELDS = ("t", "q")
COUNT, PIXELS = 3, 8
GRID = PatchGrid(5.0, PIXELS)
BINS = Bins((60, 200, 400, 700))
SETTINGS = InpaintingLosses(spectrum=1.0)


def maps(seed: int, fields=FIELDS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f: rng.standard_normal((COUNT, PIXELS, PIXELS, 1)).astype(np.float32) for f in fields}


def draw_seen(seed: int = 5, share: float = 0.6) -> np.ndarray:
    drawn = np.random.default_rng(seed).random((COUNT, PIXELS, PIXELS, 1)) < share
    return drawn.astype(np.float32)


def kernels() -> list[np.ndarray]:
    """Of a stand-in for VGG16: two convolutions by single pixels, each before a pool."""
    rng = np.random.default_rng(9)
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5), (5, 4))]


def features(images):
    """Two pools of the stand-in."""
    pools, x = [], images
    for kernel in kernels():
        x = ops.max_pool(ops.relu(ops.matmul(x, ops.convert_to_tensor(kernel))), 2, 2)
        pools.append(x)
    return pools


def plain_features(field: np.ndarray) -> list[np.ndarray]:
    """The stand-in's pools of maps (n, y, x, 1), in float64."""
    x, pools = (np.float64(field) / 6 + 0.5 - MEAN) / DEVIATION, []
    for kernel in kernels():
        x = np.maximum(x @ np.float64(kernel), 0)
        n, height, width, channels = x.shape
        x = x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
        pools.append(x)
    return pools


def make(settings=SETTINGS, fields=FIELDS):
    return inpainting_losses(settings, fields, grid=GRID, bins=BINS, features=features)


def loss(outputs, truths, seen, settings=SETTINGS) -> dict[str, float]:
    found = make(settings, tuple(outputs))(outputs, truths | {"seen": seen})
    assert all(one.dtype == "float32" and len(one.shape) == 0 for one in found.values())
    return {name: float(one) for name, one in found.items()}


def fill(outputs, truths, seen):
    return {f: np.where(seen > 0, truths[f], outputs[f]) for f in outputs}


def test_differences_are_sums_over_the_number_of_all_pixels() -> None:
    outputs, truths, seen = maps(0), maps(1), draw_seen()
    for norm in ("l1", "l2"):
        sums = {"valid": 0.0, "hole": 0.0}
        for field in FIELDS:
            for place in np.ndindex(seen.shape):
                difference = abs(float(outputs[field][place]) - float(truths[field][place]))
                size = difference if norm == "l1" else difference**2
                sums["valid" if seen[place] else "hole"] += size
        found = loss(outputs, truths, seen, SETTINGS.model_copy(update={"norm": norm}))
        for name, total in sums.items():
            assert found[name] == pytest.approx(total / seen.size / 2, rel=1e-5)


def test_features_and_correlations_differ_as_published() -> None:
    outputs, truths, seen = maps(0), maps(1), draw_seen()
    perceptual, style = 0.0, 0.0
    for field in FIELDS:
        true = plain_features(truths[field])
        for made in (outputs[field], fill(outputs, truths, seen)[field]):
            for one, other in zip(plain_features(made), true, strict=True):
                perceptual += np.abs(one - other).sum() / one.size / 2
                n, height, width, channels = one.shape
                for a, b in zip(one, other, strict=True):
                    grams = [np.einsum("yxi,yxj->ij", x, x) for x in (a, b)]
                    size = np.abs(grams[0] - grams[1]).sum() / (channels * height * width)
                    style += size / channels**2 / n / 2
    found = loss(outputs, truths, seen)
    assert found["perceptual"] == pytest.approx(perceptual, rel=1e-5)
    assert found["style"] == pytest.approx(style, rel=1e-5)


def test_style_knows_no_places() -> None:
    """Of the raw map: a rearrangement of whole pools changes features, and no correlation."""
    truths = maps(0)
    moved = {field: np.roll(one, (4, 4), axis=(1, 2)) for field, one in truths.items()}
    found = loss(moved, truths, np.zeros_like(truths["t"]))
    assert found["style"] == pytest.approx(0, abs=1e-6)
    assert found["perceptual"] > 0.1


def test_variation_is_that_of_neighbours_in_the_widened_holes() -> None:
    outputs, truths, seen = maps(0), maps(1), draw_seen(share=0.95)
    filled, total = fill(outputs, truths, seen), 0.0
    for n, y, x in np.ndindex(seen.shape[:3]):
        for dy, dx in ((1, 0), (0, 1)):
            if max(y + dy, x + dx) == PIXELS:
                continue

            def near(i: int, j: int, n: int = n) -> bool:
                """Whether there is a hole within a pixel."""
                box = seen[n, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
                return bool((box == 0).any())

            if near(y, x) and near(y + dy, x + dx):
                for field in FIELDS:
                    one = filled[field][n, :, :, 0]
                    total += abs(float(one[y + dy, x + dx]) - float(one[y, x]))
    assert 0 < (seen == 0).sum() < 20
    found = loss(outputs, truths, seen)
    assert found["variation"] == pytest.approx(total / seen.size / 2, rel=1e-5)


def test_spectra_are_relative_to_the_truths() -> None:
    outputs, truths, seen = maps(0), maps(1), draw_seen()
    apart = []
    for field, filled in fill(outputs, truths, seen).items():
        made, true = (
            bin_power(power(modes, modes, GRID).mean(0), GRID, BINS)
            for modes in (forward(np.float64(x[..., 0]), GRID) for x in (filled, truths[field]))
        )
        apart.append(np.abs(made / true - 1).mean())
    assert min(apart) > 0.01
    assert loss(outputs, truths, seen)["spectrum"] == pytest.approx(np.mean(apart), rel=1e-4)


def test_all_seen_and_nothing_seen() -> None:
    outputs, truths = maps(0), maps(1)
    ones = np.ones_like(truths["t"])
    found = loss(outputs, truths, ones)
    assert found["hole"] == found["variation"] == found["spectrum"] == 0
    size = np.mean([np.abs(outputs[f] - truths[f]).mean() for f in FIELDS])
    assert found["valid"] == pytest.approx(size, rel=1e-5)
    raw_and_filled = loss(outputs, truths, 0 * ones)
    assert raw_and_filled["valid"] == 0
    assert raw_and_filled["hole"] == pytest.approx(size, rel=1e-5)
    # Filled maps are the truths, or the raw maps.
    for name in ("perceptual", "style"):
        assert raw_and_filled[name] == pytest.approx(2 * found[name], rel=1e-5)
        assert found[name] > 0.01


def test_only_variation_is_left_of_equal_maps() -> None:
    truths = maps(1)
    found = loss(truths, truths, draw_seen())
    assert list(found) == list(NAMES)
    assert found.pop("variation") > 0.1
    assert set(found.values()) == {0}


def test_what_a_raw_map_has_where_it_was_seen_does_not_matter_to_the_filled() -> None:
    outputs, truths, seen = maps(0), maps(1), draw_seen()
    other = {f: np.where(seen > 0, 3 - outputs[f], outputs[f]) for f in FIELDS}
    one, two = loss(outputs, truths, seen), loss(other, truths, seen)
    for name in ("hole", "variation", "spectrum"):
        assert one[name] == two[name] > 0
    for name in ("valid", "perceptual", "style"):
        assert one[name] != pytest.approx(two[name], rel=1e-3)


def test_features_of_the_first_examples_alone() -> None:
    outputs, truths, seen = maps(0), maps(1), draw_seen()
    found = loss(outputs, truths, seen, SETTINGS.model_copy(update={"examples": 2}))
    two = loss(
        {f: x[:2] for f, x in outputs.items()}, {f: x[:2] for f, x in truths.items()}, seen[:2]
    )
    every = loss(outputs, truths, seen)
    for name in ("perceptual", "style"):
        assert found[name] == pytest.approx(two[name], rel=1e-5)
        assert found[name] != pytest.approx(every[name], rel=1e-3)
    for name in ("valid", "hole", "variation", "spectrum"):
        assert found[name] == every[name]
    more = loss(outputs, truths, seen, SETTINGS.model_copy(update={"examples": 7}))
    assert more == every


def test_a_weight_of_nothing_is_not_computed() -> None:
    def never(images):
        raise AssertionError("features were asked for")

    plain = InpaintingLosses(valid=0, perceptual=0, style=0, variation=0)
    assert weights(plain) == {"hole": 6.0}
    found = inpainting_losses(plain, ("t",), features=never)(
        maps(0), maps(1) | {"seen": draw_seen()}
    )
    assert list(found) == ["hole"]
    assert weights(SETTINGS) == {
        "valid": 1.0,
        "hole": 6.0,
        "perceptual": 0.05,
        "style": 120.0,
        "variation": 0.1,
        "spectrum": 1.0,
    }
    for name in NAMES:
        given = {one: 0.0 for one in NAMES if one not in (name, "hole")}
        settings = InpaintingLosses(**{"spectrum": 1.0} | given)
        found = loss(maps(0), maps(1), draw_seen(), settings)
        assert set(found) == set(weights(settings)) == {name, "hole"}


def test_what_is_needed_is_asked_for() -> None:
    with pytest.raises(ValueError, match="features: expected VGG16 for"):
        inpainting_losses(SETTINGS, FIELDS, grid=GRID, bins=BINS)
    for given in ({"grid": GRID}, {"bins": BINS}):
        with pytest.raises(ValueError, match="grid, bins: expected both for `spectrum`"):
            inpainting_losses(SETTINGS, FIELDS, features=features, **given)


def test_settings_fields_and_grids_have_names_of_their_own() -> None:
    def name(settings=SETTINGS, fields=FIELDS, grid=GRID, bins=BINS):
        made = inpainting_losses(settings, fields, grid=grid, bins=bins, features=features)
        return made.__qualname__

    others = [
        name(InpaintingLosses()),
        name(InpaintingLosses(spectrum=1.0, norm="l2")),
        name(InpaintingLosses(spectrum=1.0, examples=2)),
        name(fields=("t",)),
        name(grid=PatchGrid(6.0, PIXELS)),
        name(bins=Bins((60, 200))),
        name(),
    ]
    assert len(set(others)) == len(others)
    assert name(InpaintingLosses(spectrum=1), list(FIELDS), bins=Bins(BINS.edges)) == others[-1]


@cache
def step(names: tuple[str, ...]):
    """The compiled sum of some losses with its gradients by the raw maps."""
    function, at = make(), seam([])

    def total(outputs, targets):
        def summed(*values):
            found = function(dict(zip(FIELDS, values, strict=True)), targets)
            return sum(found[name] for name in names), None

        value, _, slopes = at.gradient(summed, tensors=[outputs[field] for field in FIELDS])
        return {"value": value} | dict(zip(FIELDS, slopes, strict=True))

    return at.compile(total)


def gradients(names, outputs, truths, seen) -> tuple[float, dict[str, np.ndarray]]:
    found = step(names)(outputs, truths | {"seen": seen})
    return float(found["value"]), {field: np.asarray(found[field]) for field in FIELDS}


#: Losses whose gradient reaches the raw map where it was seen.
RAW = ("valid", "perceptual", "style")


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Along ways near the gradient itself; in holes alone, where only these are looked at."""
    outputs, truths, seen = maps(0), maps(1), draw_seen()
    value, found = gradients((name,), outputs, truths, seen)
    assert value == pytest.approx(loss(outputs, truths, seen)[name], rel=1e-5)
    rng = np.random.default_rng(2)
    for field in FIELDS:
        slope = found[field]
        assert bool((slope[seen > 0] != 0).any()) == (name in RAW)
        assert bool((slope[seen == 0] != 0).any()) == (name != "valid")
        way = slope * rng.uniform(0.2, 1.8, slope.shape)
        way = (1e-3 * way / np.sqrt(np.mean(way**2))).astype(np.float32)
        up, down = (
            loss(outputs | {field: outputs[field] + sign * way}, truths, seen)[name]
            for sign in (1, -1)
        )
        assert np.sum(np.float64(slope) * way) == pytest.approx((up - down) / 2, rel=2e-2)
        assert up > down


def test_gradients_are_finite_where_there_is_nothing() -> None:
    """Of the sum of all losses."""
    truths, seen = maps(1), draw_seen()
    zero = {field: np.zeros_like(one) for field, one in truths.items()}
    for outputs, expected in ((zero, truths), (truths, truths), (truths, zero), (zero, zero)):
        for mask in (seen, np.ones_like(seen), np.zeros_like(seen)):
            value, found = gradients(NAMES, outputs, expected, mask)
            assert np.isfinite(value)
            assert all(np.isfinite(one).all() for one in found.values())


def test_the_truth_is_looked_at_once_and_without_a_gradient() -> None:
    """VGG16's work is five passes: raw, filled and truth forth, and two back."""
    sizes = []

    def counted(images):
        sizes.append(images.shape[0])
        return features(images)

    function = inpainting_losses(InpaintingLosses(), FIELDS, features=counted)
    function(maps(0), maps(1) | {"seen": draw_seen()})
    assert sizes == [2 * 2 * COUNT, 2 * COUNT]
    assert as_images(maps(0)["t"]).shape == (COUNT, PIXELS, PIXELS, 3)


def results() -> list:
    """Value and gradient of all losses."""
    found = []
    for name in NAMES:
        value, slopes = gradients((name,), maps(0), maps(1), draw_seen())
        found.append([value, *(slopes[field].ravel().tolist() for field in FIELDS)])
    return found


@pytest.mark.slow
def test_tensorflow_and_jax_agree() -> None:
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for ours, theirs in zip(results(), json.loads(other.stdout.splitlines()[-1]), strict=True):
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * np.abs(one).max())


if __name__ == "__main__":
    print(json.dumps(results()))
