"""Fourier layers, two networks one behind the other, and gains."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

from skyweave.data.normalization import Normalization
from skyweave.errors import UserError
from skyweave.estimators import gains as isotropic
from skyweave.flat.fourier import Bins, inverse, on_modes
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb
from skyweave.flat.taper import cosine_taper
from skyweave.networks.card import Card, TrainedNetwork, load_network, predict, save_network
from skyweave.networks.chain import analytic_deviations, chain, extra_channels, start_from
from skyweave.networks.fourier_layers import (
    Affine,
    AnalyticEB,
    IsotropicGain,
    set_gains,
    with_gains,
)
from skyweave.statistics.flat_spectra import auto_and_cross, default_bins
from skyweave.training.losses import mean_squared_errors
from skyweave.training.method import Learner, Place
from skyweave.training.supervised import Supervised

GRID = PatchGrid(5.0, 16)
INPUTS = ("q_obs", "u_obs", "noise_1")
FIRST = ("q_pure", "u_pure", "kappa")
EXTRA = ("q_pure", "u_pure", "kappa", "e_pure", "b_pure")
DEVIATIONS = {"e_pure": 3.0, "b_pure": 0.5}
MOMENTS = {
    "q_obs": (0.1, 3.0),
    "u_obs": (-0.2, 2.5),
    "noise_1": (0.0, 1.0),
    "q_pure": (0.3, 2.0),
    "u_pure": (-0.1, 2.2),
    "kappa": (0.01, 0.04),
}


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(inputs, outputs, seed, *, dropout=0.0):
    """A small network with batch normalization, its weights and statistics not those of a start."""
    image = keras.Input((16, 16, len(inputs)), name="inputs")
    x = keras.layers.Conv2D(4, 3, padding="same", activation="tanh", name="hidden")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
    heads = {name: keras.layers.Conv2D(1, 1, dtype="float32", name=name)(x) for name in outputs}
    model = keras.Model(image, heads, name="small")
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.standard_normal(weight.shape)
        values /= np.sqrt(np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 2
        weight.assign(np.abs(values) + 0.5 if weight.name == "moving_variance" else values)
    return model


def card(inputs, outputs, moments=MOMENTS):
    names = (*inputs, *outputs)
    return Card(
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        units=dict.fromkeys(names, ""),
        normalization=Normalization({name: moments.get(name, (0.0, 1.0)) for name in names}),
        size_deg=GRID.size_deg,
        pixels=GRID.pixels,
        seed=0,
    )


def first_network(seed=1, moments=MOMENTS, dropout=0.0):
    inputs = ("u_obs", "q_obs")
    model = network(inputs, FIRST, seed, dropout=dropout)
    return TrainedNetwork(model, card(inputs, FIRST, moments))


def chained(first=None, *, frozen=True, dropout=0.0, outputs=("kappa", "b_sky"), **options):
    second = network((*INPUTS, *EXTRA), outputs, 2, dropout=dropout)
    first = first or first_network(dropout=dropout)
    normalization = Normalization(MOMENTS)
    return chain(first, second, INPUTS, normalization, DEVIATIONS, frozen=frozen, **options)


def reloaded(model, folder):
    path = folder / "network.keras"
    model.save(path)
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def trainable(model):
    return sorted(tuple(variable.shape) for variable in model.trainable_variables)


@pytest.mark.parametrize("pixels", [16, 15, 64])
def test_layer_and_analytic_eb_agree(pixels):
    q, u = normals(2, 3, pixels, pixels)
    found = AnalyticEB(pixels)(np.stack([q, u], axis=-1))
    for map_, expected in zip(
        np.moveaxis(found, -1, 0), qu_to_eb(q, u, PatchGrid(7.0, pixels)), strict=True
    ):
        assert np.abs(map_ - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_gain_multiplies_the_modes_of_its_multipole():
    """As the estimator's own filter; the mean stays; gains of 1 are the identity."""
    bins = Bins.linear(40, 1100, 150)
    centres = isotropic.centres(GRID, bins)
    layer = IsotropicGain(16, GRID.size_deg, centres)
    maps = normals(3, 16, 16, 1) + 2
    np.testing.assert_allclose(layer(maps), maps, atol=1e-5)
    values = np.random.default_rng(1).uniform(0, 3, bins.count)
    layer.gains.assign(values)
    found = np.asarray(layer(maps))[..., 0]
    expected = isotropic.filtered(maps[..., 0], values, GRID, bins)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), maps.mean(axis=(1, 2, 3)), rtol=1e-5)
    wave = np.cos(2 * np.pi * np.arange(16) * 4 / 16) * np.ones((16, 1))
    one = IsotropicGain(16, GRID.size_deg, [4 * GRID.ell_fundamental - 50, 1000.0, 2000.0])
    one.build(None)
    one.gains.assign([3, 2, 0])
    # Of the way from the first centre to the second.
    share = 50 / (1050 - 4 * GRID.ell_fundamental)
    filtered = np.asarray(one(wave[None, ..., None].astype(np.float32)))[0, ..., 0]
    np.testing.assert_allclose(filtered, (3 - share) * wave, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float32"])
def test_layers_compute_in_single_precision_and_load_safely(policy, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        image = keras.Input((16, 16, 3))
        eb = AnalyticEB(16)(Affine([2.0, 1.0], [0.1, 0.0], [2, 0])(image))
        single = keras.layers.Conv2D(1, 1, dtype="float32", name="one")(eb)
        model = keras.Model(image, {"a": IsotropicGain(16, 5.0, [100.0, 500.0])(single)})
        model.layers[-1].gains.assign([0.5, 2.0])
        loaded = reloaded(model, tmp_path)
    finally:
        keras.config.set_dtype_policy(before)
    x = normals(2, 16, 16, 3)
    found = model(x)["a"]
    np.testing.assert_array_equal(found, loaded(x)["a"])
    e, b = qu_to_eb(2 * x[..., 2] + 0.1, x[..., 0], GRID)
    kernel = np.asarray(model.get_layer("one").kernel).ravel()
    plain = IsotropicGain(16, 5.0, [100.0, 500.0])
    plain.build(None)
    plain.gains.assign([0.5, 2.0])
    expected = plain((kernel[0] * e + kernel[1] * b)[..., None])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not any("gains" in variable.path for variable in loaded.trainable_variables)


def test_extra_channels():
    assert extra_channels(FIRST) == EXTRA
    assert extra_channels(("kappa", "q_sky")) == ("kappa", "q_sky")
    with pytest.raises(UserError, match="e_sky"):
        extra_channels(("q_sky", "u_sky", "e_sky"))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_chain_is_its_parts_one_after_the_other(frozen, tmp_path):
    """In physical units throughout, with a first network that was normalized otherwise."""
    moments = {name: (mean + 0.05, 1.3 * std) for name, (mean, std) in MOMENTS.items()}
    first = first_network(moments=moments)
    second = network((*INPUTS, *EXTRA), ("kappa", "b_sky"), 2)
    normalization = Normalization(MOMENTS)
    model = chain(
        first, second, INPUTS, normalization, DEVIATIONS, frozen=frozen, keep_first=not frozen
    )
    maps = {name: 3 * normals(2, 16, 16, seed=i) for i, name in enumerate(INPUTS)}
    given = predict(first, maps)
    e, b = qu_to_eb(given["q_pure"], given["u_pure"], GRID)
    channels = [normalization.apply(name, maps[name]) for name in INPUTS]
    channels += [first.card.normalization.apply(name, given[name]) for name in FIRST]
    channels += [e / DEVIATIONS["e_pure"], b / DEVIATIONS["b_pure"]]
    expected = {n: v.numpy()[..., 0] for n, v in second(np.stack(channels, axis=-1)).items()}
    outputs = ("kappa", "b_sky") if frozen else ("kappa", "b_sky", "q_pure", "u_pure")
    save_network(tmp_path, model, card(INPUTS, outputs))
    found = predict(load_network(tmp_path), maps)
    expected["kappa"] = normalization.undo("kappa", expected["kappa"])
    if not frozen:
        expected |= {name: given[name] for name in ("q_pure", "u_pure")}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5 * np.abs(values).max())


def test_deviations_are_those_of_the_analytic_maps():
    q, u = normals(2, 4, 16, 16)
    found = analytic_deviations({"q_a": q, "kappa": q, "u_a": u, "q_b": q}, GRID)
    e, b = qu_to_eb(q, u, GRID)
    assert found == pytest.approx({"e_a": e.std(), "b_a": b.std()})


def steps(model, names, count=3):
    """Weights of a network's parts before and after some steps of training."""
    learner = Supervised(Learner(model, keras.optimizers.Adam(1e-2)), mean_squared_errors)
    x = normals(4, 16, 16, 3)
    y = {name: normals(4, 16, 16, 1, seed=i) for i, name in enumerate(names)}
    return [learner.train(x, y, Place(i, i))[0] for i in range(count)]


@pytest.mark.parametrize("through_disk", [False, True])
def test_a_frozen_network_does_not_change(through_disk, tmp_path):
    """Nor its batch statistics; nor has its dropout an effect; nor is the caller's touched."""
    first = first_network(dropout=0.5)
    model = chained(first)
    if through_disk:
        model = reloaded(model, tmp_path)
    second = network((*INPUTS, *EXTRA), ("kappa", "b_sky"), 2)
    assert trainable(model) == trainable(second)
    assert trainable(first.model), "the caller's network learns as before"
    x = normals(4, 16, 16, 3)
    np.testing.assert_array_equal(
        model(x, training=True)["b_sky"], model(x, training=True)["b_sky"]
    )
    model.trainable = True
    assert trainable(model) == trainable(second)
    frozen = model.get_layer("first").get_weights()
    behind = model.get_layer("second").get_weights()
    losses = steps(model, ("kappa", "b_sky"))
    assert losses[-1]["b_sky"] < losses[0]["b_sky"]
    for before, after in zip(frozen, model.get_layer("first").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    after = model.get_layer("second").get_weights()
    assert any((a != b).any() for a, b in zip(behind, after, strict=True))


@pytest.mark.parametrize("through_disk", [False, True])
def test_both_learn_jointly(through_disk, tmp_path):
    first = first_network()
    model = chained(first, frozen=False)
    if through_disk:
        model = reloaded(model, tmp_path)
    second = network((*INPUTS, *EXTRA), ("kappa", "b_sky"), 2)
    assert trainable(model) == sorted(trainable(first.model) + trainable(second))
    before = [np.array(v) for v in model.get_layer("first").trainable_variables]
    steps(model, ("b_sky",), 1)
    after = model.get_layer("first").trainable_variables
    heads = [(a != b.numpy()).any() for a, b in zip(before, after, strict=True)]
    assert all(heads), "a loss of the second's output alone reaches all of the first"


def test_a_chain_may_come_first(tmp_path):
    inner = TrainedNetwork(chained(outputs=FIRST), card(INPUTS, FIRST))
    outer = chained(inner, frozen=False)
    loaded = reloaded(outer, tmp_path)
    x = normals(2, 16, 16, 3)
    np.testing.assert_array_equal(outer(x)["b_sky"], loaded(x)["b_sky"])
    pair = trainable(inner.model) + trainable(outer.get_layer("second"))
    assert trainable(loaded) == sorted(pair), "what was frozen in it stays so"


def test_weights_start_from_a_frozen_chain():
    frozen, joint = chained(), chained(first_network(seed=5), frozen=False, keep_first=True)
    x = normals(2, 16, 16, 3)
    assert np.abs(frozen(x)["b_sky"] - joint(x)["b_sky"]).max() > 1e-2
    start_from(joint, frozen)
    np.testing.assert_allclose(frozen(x)["b_sky"], joint(x)["b_sky"], atol=1e-5)
    first = first_network().model(x[..., [1, 0]])
    np.testing.assert_allclose(joint(x)["q_pure"], first["q_pure"], atol=1e-5)


def test_weights_that_do_not_fit_are_named():
    model = first_network().model
    before = [np.array(weight) for weight in model.weights]
    other = network(("u_obs", "q_obs"), ("kappa",), 3)
    with pytest.raises(UserError, match="q_pure"):
        start_from(model, other)
    with pytest.raises(UserError, match="q_pure"):
        start_from(other, model)
    with pytest.raises(UserError, match=r"kernel of shape \(3, 3, 2, 4\).*\(3, 3, 3, 4\)"):
        start_from(model, network(INPUTS, FIRST, 3))
    for one, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(one, weight)


def test_gains_stand_behind_each_output(tmp_path):
    model = first_network().model
    centres = [100.0, 400.0, 900.0]
    filtered = with_gains(model, GRID.size_deg, centres)
    x = normals(2, 16, 16, 2)
    plain = model(x)
    for name, values in filtered(x).items():
        np.testing.assert_allclose(values, plain[name], atol=1e-5)
    set_gains(filtered, {"kappa": np.array([0.5, 2.0, 1.0])})
    loaded = reloaded(filtered, tmp_path)
    layer = IsotropicGain(16, GRID.size_deg, centres)
    layer.build(None)
    layer.gains.assign([0.5, 2.0, 1.0])
    found = loaded(x)
    assert list(found) == list(plain)
    np.testing.assert_allclose(found["kappa"], layer(plain["kappa"]), atol=1e-5)
    np.testing.assert_allclose(found["q_pure"], plain["q_pure"], atol=1e-5)
    assert trainable(loaded) == trainable(model)
    again = network(("u_obs", "q_obs"), FIRST, 4)
    start_from(again, loaded)
    np.testing.assert_array_equal(again(x)["kappa"], plain["kappa"])
    for wrong in ({"tau": [1, 1, 1]}, {"kappa": [1, 1]}, {"kappa": [1, 1, np.nan]}):
        with pytest.raises(UserError, match="gains"):
            set_gains(loaded, wrong)
    with pytest.raises(UserError, match="increasing"):
        with_gains(model, GRID.size_deg, [100.0, 100.0])


def test_what_a_chain_misses_is_told():
    first, normalization = first_network(), Normalization(MOMENTS)
    second = network((*INPUTS, *EXTRA), ("b_sky",), 2)

    def tried(*, second=second, inputs=INPUTS, normalization=normalization, deviations=DEVIATIONS):
        chain(first, second, inputs, normalization, deviations, frozen=True)

    with pytest.raises(UserError, match="the first network's q_obs"):
        tried(inputs=("u_obs",))
    with pytest.raises(UserError, match="deviation of b_pure"):
        tried(deviations={"e_pure": 1.0})
    with pytest.raises(UserError, match=r"9.*: q_obs.*b_pure"):
        tried(inputs=(*INPUTS, "e_obs"))
    with pytest.raises(UserError, match="u_obs"):
        tried(normalization=Normalization({"q_obs": (0.0, 1.0)}))


FINE = PatchGrid(5.0, 64)
TAPER = cosine_taper(FINE, 1.0)


def sky(count, seed, ell, cl):
    """Gaussian maps (count, y, x) of a spectrum, periodic."""
    white = np.fft.rfft2(np.random.default_rng(seed).standard_normal((count, 64, 64)))
    return inverse(white * FINE.pixel_rad * np.sqrt(on_modes(ell, cl, FINE)), FINE)


def predictions(count, seed):
    """Truths and filtered noisy maps of them, tapered; and the spectra that the two have."""
    ell = np.arange(0.0, 4000)
    cl = (1 + ell / 500) ** -3
    window, noise = np.exp(-((ell / 1500) ** 2)), 0.01 * cl[0]
    truth = sky(count, seed, ell, cl)
    seen = truth + sky(count, seed + 1, ell, np.full(ell.size, noise))
    modes = np.fft.rfft2(seen) * np.interp(FINE.ell, ell, window)
    spectra = np.interp(FINE.ell, ell, cl), np.interp(FINE.ell, ell, window)
    return TAPER * truth, TAPER * np.fft.irfft2(modes), (*spectra, noise)


BINS = default_bins(FINE)


@pytest.fixture(scope="module")
def sets():
    return predictions(150, 1), predictions(150, 11)


def test_power_comes_back(sets):
    """To 1e-3 where it was learned, within the errors elsewhere; the correlation stays the same."""
    (truth, made, _), (other, unseen, _) = sets
    gains = isotropic.fit_gains(made, truth, FINE, BINS, "power")
    assert gains.max() < isotropic.MOST
    for true, maps, bar in ((truth, made, None), (other, unseen, 4)):
        filtered = isotropic.filtered(maps, gains, FINE, BINS)
        before = auto_and_cross(maps, true, FINE, BINS)
        after = auto_and_cross(filtered, true, FINE, BINS)
        difference = (after[0] - after[1]) / after[1].mean(axis=0)
        # Both sets have an error.
        error = difference.std(axis=0) * np.sqrt(2 / len(true))
        assert (np.abs(difference.mean(axis=0)) < (1e-3 if bar is None else bar * error)).all()
        r = [c.mean(0) / np.sqrt(p.mean(0) * t.mean(0)) for p, t, c in (before, after)]
        assert np.abs(r[1] - r[0]).max() < 1e-3
        assert r[1][-1] < 0.9, "and it is not 1 everywhere"


def test_wiener_gain_is_that_of_theory(sets):
    """C_tt / (C_tt + N) / window, to 3 %; and it leaves less error than any other gain."""
    truth, made, (cl, window, noise) = sets[0]
    gains = isotropic.fit_gains(made, truth, FINE, BINS, "wiener")
    theory = np.interp(isotropic.centres(FINE, BINS), *_by_ell(cl / (cl + noise) / window))
    np.testing.assert_allclose(gains, theory, rtol=0.03)
    other, unseen, _ = sets[1]

    def error(values):
        return np.mean((isotropic.filtered(unseen, values, FINE, BINS) - other) ** 2)

    power = isotropic.fit_gains(made, truth, FINE, BINS, "power")
    least = error(gains)
    assert least < min(error(factor * gains) for factor in (0.97, 1.03))
    assert least < error(power)
    assert least < error(np.ones(BINS.count))


def _by_ell(values):
    order = np.argsort(FINE.ell.ravel())
    return FINE.ell.ravel()[order], values.ravel()[order]


def test_gains_of_a_function_are_those_of_its_maps(sets):
    truth, made, _ = (part[:20] if isinstance(part, np.ndarray) else part for part in sets[0])
    for kind in ("power", "wiener"):
        expected = isotropic.fit_gains(made, truth, FINE, BINS, kind)
        found = isotropic.fit_gains(
            lambda gains: isotropic.filtered(made, gains, FINE, BINS), truth, FINE, BINS, kind
        )
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        factor = 1e-3 * truth
        np.testing.assert_allclose(
            isotropic.fit_gains(factor, truth, FINE, BINS, kind), isotropic.MOST
        )


def test_patches_without_truth_and_bands_without_modes(sets):
    truth, made, _ = (part[:20] if isinstance(part, np.ndarray) else part for part in sets[0])
    null = np.concatenate([truth, np.zeros((5, 64, 64))])
    noisy = np.concatenate([made, 100 * made[:5]])
    for kind in ("power", "wiener"):
        expected = isotropic.fit_gains(made, truth, FINE, BINS, kind)
        found = isotropic.fit_gains(noisy, null, FINE, BINS, kind)
        np.testing.assert_array_equal(found, expected)
    fine = Bins((0, 10, *BINS.edges[1:]))
    gains = isotropic.fit_gains(made, truth, FINE, Bins((60, 70, 80, 90, 300)), "power")
    assert np.isfinite(gains).all()
    assert gains[0] == gains[1]
    assert np.isfinite(isotropic.centres(FINE, fine)).all()
    zero = isotropic.fit_gains(np.zeros_like(truth), truth, FINE, BINS, "power")
    np.testing.assert_array_equal(zero, isotropic.MOST)
    away = isotropic.fit_gains(-made, truth, FINE, BINS, "wiener")
    assert (away == 0).all()
    with pytest.raises(UserError, match="truths"):
        isotropic.fit_gains(made, 0 * truth, FINE, BINS, "power")
    with pytest.raises(UserError, match="maps"):
        isotropic.fit_gains(made[:3], truth, FINE, BINS, "power")
    with pytest.raises(UserError, match="bins"):
        isotropic.fit_gains(made, truth, FINE, Bins((10, 20)), "power")


def trained():
    """A joint chain, its first one frozen in part, behind gains: losses of two steps, and an output
    after them, here and after a save.
    """
    inner = TrainedNetwork(chained(outputs=FIRST), card(INPUTS, FIRST))
    joint = chained(inner, frozen=False, keep_first=True)
    model = with_gains(joint, GRID.size_deg, [100.0, 800.0])
    set_gains(model, {"b_sky": np.array([0.5, 1.5])})
    losses = [list(step.values()) for step in steps(model, ("b_sky", "q_pure"), 2)]
    with tempfile.TemporaryDirectory() as folder:
        loaded = reloaded(model, Path(folder))
    x = normals(2, 16, 16, 3)
    values = [keras.ops.convert_to_numpy(one(x)["b_sky"]).ravel() for one in (model, loaded)]
    return [np.ravel(losses).tolist(), *(one.tolist() for one in values)]


def test_a_chain_that_learned_is_itself_from_disk():
    _, here, loaded = trained()
    np.testing.assert_array_equal(here, loaded)


@pytest.mark.slow
def test_both_backends_train_alike():
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    losses, values, loaded = json.loads(other.stdout.splitlines()[-1])
    here = trained()
    np.testing.assert_allclose(losses, here[0], rtol=1e-3)
    np.testing.assert_allclose(values, loaded, atol=1e-5)
    np.testing.assert_array_equal(here[1], here[2])


if __name__ == "__main__":
    print(json.dumps(trained()))
