"""Losses of power against `flat`'s spectra and Parseval's theorem, with their gradients."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from skyweave.flat.fourier import Bins, bin_power, forward, power
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb
from skyweave.training import spectral_losses
from skyweave.training.gradients import seam
from skyweave.training.losses import mean_absolute_errors, together
from skyweave.training.method import Learner, Place
from skyweave.training.spectral_losses import energy_difference, spectrum_difference
from skyweave.training.supervised import Supervised

GRID = PatchGrid(5.0, 16)
#: The first band holds no mode, the last ones those in the corners of the plane.
BINS = Bins((10, 60, 200, 300, 450, 700, 900))
DEVIATIONS = {"e": 4.0, "kappa": 0.04}
PAIRS = [("e", "e"), ("e", "kappa"), ("kappa", "kappa")]


def maps(seed, names=tuple(DEVIATIONS), count=3, pixels=GRID.pixels):
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal((count, pixels, pixels, 1)).astype(np.float32) for n in names}


def spectra(fields, pairs=PAIRS, grid=GRID):
    """Batch means of the band powers in physical units, by `flat`, float64."""
    modes = {
        name: forward(DEVIATIONS[name] * np.float64(fields[name][..., 0]), grid) for name in fields
    }
    return np.array(
        [bin_power(power(modes[a], modes[b], grid).mean(0), grid, BINS) for a, b in pairs]
    )


def loss(outputs, truths, **given):
    found = spectrum_difference(GRID, BINS, DEVIATIONS, **given)(outputs, truths)
    assert list(found) == ["spectrum"]
    return float(found["spectrum"])


@pytest.mark.parametrize("pixels", [15, 16])
def test_band_powers_are_those_of_flat(pixels):
    grid, fields = PatchGrid(5.0, pixels), maps(0, pixels=pixels)
    weights, centres = spectral_losses.band_weights(grid, BINS, (0, np.inf))
    np.testing.assert_allclose(centres, BINS.centres(grid)[1:])
    found = spectral_losses.band_powers(spectral_losses.waves(fields, grid), PAIRS, weights)
    expected = spectra(fields, grid=grid)[:, 1:]
    size = np.sqrt(expected[0] * expected[2])
    for (a, b), one in zip(PAIRS, expected, strict=True):
        difference = np.asarray(found[a, b]) * DEVIATIONS[a] * DEVIATIONS[b] - one
        bound = size if a != b else one
        assert np.all(np.abs(difference) < 1e-5 * bound)


def test_the_difference_is_relative_to_the_truths_power():
    outputs, truths = maps(0), maps(1)
    made, true = spectra(outputs)[:, 1:], spectra(truths)[:, 1:]
    size = np.sqrt([true[0] ** 2, true[0] * true[2], true[2] ** 2])
    expected = np.abs(made - true) / size
    assert loss(outputs, truths) == pytest.approx(expected.mean(), rel=1e-5)
    centres = BINS.centres(GRID)[1:]
    inside = (centres > 200) & (centres < 700)
    assert inside.sum() == 3
    found = loss(outputs, truths, ell=(200, 700))
    assert found == pytest.approx(expected[:, inside].mean(), rel=1e-5)
    factor = centres * (centres + 1) / (2 * np.pi)
    found = loss(outputs, truths, relative=False)
    assert found == pytest.approx((factor * np.abs(made - true)).mean(), rel=1e-5)


def test_a_known_excess_of_power():
    """Outputs c times the truth, offsets aside: c² - 1 of the power in all bands and fields."""
    truths = maps(0)
    factor = 1.1 * np.ones_like(truths["e"])
    outputs = {name: factor * one + 7 for name, one in truths.items()}
    cross = np.abs(spectra(truths))[:, 1:]
    coherence = cross[1] / np.sqrt(cross[0] * cross[2])
    expected = 0.21 * (2 + coherence.mean()) / 3
    assert loss(outputs, truths) == pytest.approx(expected, rel=1e-4)
    # One field alone, at places of its own: spectra alone count.
    single = spectrum_difference(GRID, BINS, {"e": 4.0})
    moved = {"e": np.roll(1.1 * truths["e"], (3, 5), axis=(1, 2))}
    assert float(single(moved, truths)["spectrum"]) == pytest.approx(0.21, rel=1e-4)


def test_steep_spectra_count_alike_in_all_bands():
    """A band with 1e-2 of the power, and half of it missing, has the loss of any other band."""
    rng = np.random.default_rng(0)
    modes = np.fft.rfft2(rng.standard_normal((8, 16, 16)))
    steep = np.where(GRID.ell > 450, 0.1, 1.0)
    truth = np.fft.irfft2(modes * steep, s=(16, 16))[..., None].astype(np.float32)
    for band, (low, high) in enumerate(zip(BINS.edges[:-1], BINS.edges[1:], strict=True)):
        if not band:
            continue
        less = np.where((GRID.ell >= low) & (GRID.ell < high), np.sqrt(0.5), 1.0)
        output = np.fft.irfft2(modes * steep * less, s=(16, 16))[..., None].astype(np.float32)
        found = spectrum_difference(GRID, BINS, {"e": 4.0})({"e": output}, {"e": truth})
        assert float(found["spectrum"]) == pytest.approx(0.5 / 5, rel=1e-3)


def test_truths_without_power_have_a_floor():
    outputs = {"e": np.random.default_rng(0).standard_normal((3, 16, 16, 1)).astype(np.float32)}
    nothing = {"e": np.zeros_like(outputs["e"])}
    for floor in (1e-3, 0.1):
        found = spectrum_difference(GRID, BINS, {"e": 4.0}, floor=floor)(outputs, nothing)
        # White noise of variance 1 has the power of a pixel.
        expected = spectra(outputs, [("e", "e")])[:, 1:] / 16 / GRID.pixel_rad**2 / floor
        assert float(found["spectrum"]) == pytest.approx(expected.mean(), rel=1e-4)


def gradient(function, outputs, truths):
    """Of the one loss by the outputs, on the running backend."""
    variables = [keras.Variable(one, name=name) for name, one in outputs.items()]
    at = seam(variables)

    def step(truths):
        def total(*values):
            found = function(dict(zip(outputs, values, strict=True)), truths)
            return sum(found.values()), None

        value, _, slopes = at.gradient(total, tensors=[v.value for v in variables])
        return {"value": value} | dict(zip(outputs, slopes, strict=True))

    return {name: np.asarray(one) for name, one in at.compile(step)(truths).items()}


FUNCTIONS = {
    "spectrum": spectrum_difference(GRID, BINS, DEVIATIONS),
    "absolute": spectrum_difference(GRID, BINS, DEVIATIONS, relative=False, ell=(100, 600)),
    "energy": energy_difference(
        {"q": 3.0, "u": 2.0, "e": 4.0, "kappa": 1.5}, "q", "u", "e", "kappa"
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_finite_differences(name):
    """Along ways that are near the gradient itself, where differences are largest."""
    function, outputs, truths = FUNCTIONS[name], maps(0), maps(1, ("e", "kappa", "q", "u"))
    found, rng = gradient(function, outputs, truths), np.random.default_rng(2)

    def value(field, way):
        return float(sum(function(outputs | {field: outputs[field] + way}, truths).values()))

    for field in outputs:
        way = found[field] * rng.uniform(0.2, 1.8, found[field].shape)
        way = (1e-3 * way / np.sqrt(np.mean(way**2))).astype(np.float32)
        expected = (value(field, way) - value(field, -way)) / 2
        assert np.sum(np.float64(found[field]) * way) == pytest.approx(expected, rel=5e-3)
        assert expected > 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_finite_where_there_is_nothing(name):
    """Of outputs that are zero, that are the truth, and of truths that are zero."""
    truths = maps(1, ("e", "kappa", "q", "u"))
    zero = {field: np.zeros_like(one) for field, one in truths.items()}
    fields = ("e", "kappa")
    for outputs, expected in ((zero, truths), (truths, truths), (truths, zero), (zero, zero)):
        found = gradient(FUNCTIONS[name], {field: outputs[field] for field in fields}, expected)
        assert all(np.isfinite(one).all() for one in found.values())


def test_no_band_is_refused():
    with pytest.raises(ValueError, match="ell: expected bands with modes in 2000 to 3000"):
        spectrum_difference(GRID, BINS, DEVIATIONS, ell=(2000, 3000))


ENERGY = {"q": 3.0, "u": 2.0, "e": 2.4, "b": 0.5}


def polarization(count=4):
    """Normalized Q, U and the E, B made of them on the patch."""
    rng = np.random.default_rng(0)
    q, u = rng.standard_normal((2, count, 16, 16))
    fields = dict(zip("queb", (q, u, *qu_to_eb(q, u, GRID)), strict=True))
    return {
        name: (one / ENERGY[name]).astype(np.float32)[..., None] for name, one in fields.items()
    }


def test_e_and_b_have_the_energy_of_q_and_u():
    """By Parseval's theorem; B a truth, an output, or missing altogether."""
    fields = polarization()
    function = energy_difference(ENERGY, "q", "u", "e", "b")
    for outputs in ("e", "b", "eb"):
        found = function({name: fields[name] for name in outputs}, fields)
        assert list(found) == ["energy"]
        assert float(found["energy"]) == pytest.approx(0, abs=1e-5)
    physical = {name: ENERGY[name] * np.float64(one) for name, one in fields.items()}
    square = {name: (one**2).mean(axis=(1, 2, 3)) for name, one in physical.items()}
    missing = {"e": fields["e"], "b": 0 * fields["b"]}
    expected = square["b"] / (square["q"] + square["u"])
    assert float(function(missing, fields)["energy"]) == pytest.approx(expected.mean(), rel=1e-4)
    # The truth's B is not looked at where there is an output, and the other way round.
    lost = fields | {"b": np.full_like(fields["b"], np.nan)}
    assert np.isfinite(float(function(missing, lost)["energy"]))


def test_combinations_have_names_of_their_own():
    other = Bins((10, 60, 200))
    names = [
        function.__qualname__
        for function in (
            *FUNCTIONS.values(),
            spectrum_difference(GRID, other, DEVIATIONS),
            spectrum_difference(PatchGrid(6.0, 16), BINS, DEVIATIONS),
            spectrum_difference(GRID, BINS, DEVIATIONS | {"e": 5.0}),
            spectrum_difference(GRID, BINS, DEVIATIONS, floor=0.1),
            spectrum_difference(GRID, BINS, {"e": 4.0}),
            energy_difference(ENERGY, "q", "u", "e", "b"),
            energy_difference(ENERGY, "q", "u", "b", "e"),
            together(mean_absolute_errors, FUNCTIONS["spectrum"]),
            together(mean_absolute_errors, FUNCTIONS["spectrum"], FUNCTIONS["energy"]),
        )
    ]
    assert len(set(names)) == len(names)
    again = spectrum_difference(GRID, Bins(BINS.edges), {k: np.float32(4.0) for k in ("e",)})
    assert again.__qualname__ == names[7]


def test_a_network_learns_the_power_that_errors_alone_would_cost():
    """A gain learned on noisy inputs: errors shrink it by S / (S + N), the spectrum does not."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((32, 16, 16, 1)).astype(np.float32)
    x = truth + rng.standard_normal(truth.shape).astype(np.float32)
    gains = []
    for weight in (0.0, 100.0):
        image = keras.Input((16, 16, 1))
        gain = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones")
        model = keras.Model(image, {"e": gain(image)})
        losses = together(mean_absolute_errors, spectrum_difference(GRID, BINS, {"e": 4.0}))
        made = Supervised(
            Learner(model, keras.optimizers.Adam(0.02)), losses, weights={"spectrum": weight}
        )
        for update in range(60):
            made.train(x, {"e": truth}, Place(update, update))
        gains.append(float(np.squeeze(gain.kernel)))
    assert gains[0] == pytest.approx(0.5, abs=0.03)
    assert gains[1] == pytest.approx(np.sqrt(0.5), abs=0.03)


def found():
    """Values and gradients of all functions."""
    outputs, truths = maps(0), maps(1, ("e", "kappa", "q", "u"))
    rows = [gradient(function, outputs, truths) for function in FUNCTIONS.values()]
    return [[row[key].ravel().tolist() for key in ("value", "e", "kappa")] for row in rows]


@pytest.mark.slow
def test_tensorflow_and_jax_agree():
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for ours, theirs in zip(found(), json.loads(other.stdout.splitlines()[-1]), strict=True):
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * np.abs(one).max())


if __name__ == "__main__":
    print(json.dumps(found()))
