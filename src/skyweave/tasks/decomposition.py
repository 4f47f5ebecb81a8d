"""Decomposition: polarization taken apart into E, kappa and B, by networks of several kinds."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skyweave.config import DecompositionRun
from skyweave.data.colored_noise import ColoredNoise
from skyweave.data.feed import white_noise
from skyweave.data.joined import open_maps
from skyweave.data.predictions import write_predictions
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.estimators.gains import centres, fit_gains
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.statistics.coverage import residual_power
from skyweave.statistics.flat_spectra import default_bins
from skyweave.statistics.posterior import unfolded
from skyweave.tasks.methods import channel_of, check_bands, estimates, scores, taper_deg, worth
from skyweave.tasks.recipe import Recipe

if TYPE_CHECKING:
    import keras

    from skyweave.data.normalization import Normalization
    from skyweave.networks.card import TrainedNetwork
    from skyweave.training.method import Losses, Method

#: Patches by which what lies between two networks is scaled.
_SCALED = 64

#: Samples of each patch by which epochs are compared.
_SCORED = 2

#: Patches that samples are drawn of at once.
_CHUNK = 32


def recipe(
    run: DecompositionRun,
    maps: ShardSet,
    parts: pd.DataFrame,
    name: str,
    seed: int,
    networks: Mapping[str, str | Path] | None = None,
) -> Recipe:
    """How a run's network is trained; `networks` are the files of those that it needs.

    Raises `UserError` for what the maps cannot judge.
    """
    from skyweave.networks.card import load_network

    select = run.training.select
    check_bands("training.select.ell", select.ell, maps.grid)
    if run.losses.spectrum:
        check_bands("losses.spectrum_ell", run.losses.spectrum_ell, maps.grid)
    numbers = members(parts, "validation")
    others = {key: load_network(Path(path).parent) for key, path in (networks or {}).items()}
    first, start = others.get("after"), others.get("start")
    kept = first.card.outputs if run.joint and first is not None else ()
    targets = (*run.targets, *(field for field in kept if field not in run.targets))
    base = _left_open(first, maps, numbers, targets) if run.method == "flow" else {}

    def build(scales: "Normalization") -> "keras.Model":
        if run.method == "flow":
            return _flow(run, maps.pixels, seed, scales, base, first, start)
        train = members(parts, "train")[:_SCALED]
        return _generator(run, maps, train, seed, scales, first, start)

    adversarial = run.method == "adversarial"
    noise = tuple(f"noise_{number + 1}" for number in range(run.noise_channels))
    further = noise
    if run.method == "flow":
        further = (*(f"state_{field}" for field in targets), "time")
    return Recipe(
        inputs=run.inputs,
        targets=targets,
        method=partial(_method, run, maps, name, seed, base),
        score=lambda network: scores(
            decompose(network, read_inputs(network, maps, numbers), numbers, _SCORED)[0],
            maps,
            numbers,
            name,
        ),
        fields=select.fields or targets,
        worth=lambda table, field: worth(table[table.field == field], select),
        largest=select.by in ("pixel_correlation", "correlation"),
        known={"base": base} if base else {},
        build=build,
        finish=None if run.filter == "none" else partial(_with_gains, run, maps, numbers),
        beside=_read_by_losses(run, targets),
        drawn=run.noise_channels * run.adversarial.fidelity_draws,
        further=further,
        normalize=run.normalize,
        identity={
            "networks": {key: _digest(other.model) for key, other in others.items()},
            **({"discriminator": run.discriminator.model_dump()} if adversarial else {}),
        },
    )


def _digest(model: "keras.Model") -> str:
    """Hexadecimal digest of a network's weights: a file of the same network may have another."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _generator(
    run: DecompositionRun,
    maps: ShardSet,
    numbers: np.ndarray,
    seed: int,
    scales: "Normalization",
    first: "TrainedNetwork | None",
    start: "TrainedNetwork | None",
) -> "keras.Model":
    """The network of a run that is no flow, behind another one if it comes after one."""
    from skyweave.networks.chain import analytic_deviations, chain, extra_channels, start_from
    from skyweave.networks.registry import build

    channels = [*run.inputs, *(f"noise_{number + 1}" for number in range(run.noise_channels))]
    if first is not None:
        channels += extra_channels(first.card.outputs)
    stds = {field: std for field, (_, std) in scales.moments.items()}
    model = build(run.network, maps.pixels, channels, run.targets, seed, stds)
    if first is not None:
        found = decompose(first, read_inputs(first, maps, numbers), numbers)[0]
        deviations = analytic_deviations(found, maps.grid)
        frozen = not run.joint
        model = chain(
            first, model, run.inputs, scales, deviations, frozen=frozen, keep_first=run.joint
        )
    if start is not None:
        start_from(model, start.model)
    return model


def _flow(
    run: DecompositionRun,
    pixels: int,
    seed: int,
    scales: "Normalization",
    base: Mapping[str, Any],
    first: "TrainedNetwork | None",
    start: "TrainedNetwork | None",
) -> "keras.Model":
    """The network of a flow, around the means of another one if it comes after one."""
    from skyweave.networks import flow
    from skyweave.networks.chain import start_from

    noise = _base(base, scales)
    model = flow.build(
        pixels,
        run.inputs,
        run.targets,
        run.network.width,
        seed,
        mean=None if first is None else _of_first(first.model, pixels, len(run.inputs)),
        dropout=run.network.dropout,
        deviations=noise.rms,
    )
    if start is not None:
        start_from(model, start.model)
    return model


def _of_first(model: "keras.Model", pixels: int, inputs: int) -> "keras.Model":
    """The network on maps with so many inputs, of which it takes the first."""
    import keras

    own = model.input_shape[-1]
    if own == inputs:
        return model
    image = keras.Input((pixels, pixels, inputs), name="inputs")
    return keras.Model(image, model(image[..., :own]), name="of_first")


def _method(
    run: DecompositionRun,
    maps: ShardSet,
    name: str,
    seed: int,
    base: Mapping[str, Any],
    model: "keras.Model",
    scales: "Normalization",
) -> "Method":
    """How the network learns."""
    from skyweave.networks.registry import build_discriminator
    from skyweave.training.adversarial import Adversarial, learners
    from skyweave.training.flow import FlowMatching
    from skyweave.training.method import learner
    from skyweave.training.runtime import numerics
    from skyweave.training.supervised import Supervised

    xla = numerics(run.training).xla
    if run.method == "flow":
        noise = _base(base, scales)
        return FlowMatching(learner(model, run.training), noise, seed=seed, name=name, xla=xla)
    losses, weights = _losses(run, maps, scales, tuple(model.output))
    settings = run.adversarial
    if run.method == "plain":
        # The same trade between terms as against a discriminator, in which they weigh so much.
        shares = {key: weight / settings.fidelity for key, weight in weights.items()}
        return Supervised(learner(model, run.training), losses, weights=shares, xla=xla)
    shown = len(run.inputs) if settings.conditional else 0
    judge = build_discriminator(run.discriminator, maps.pixels, shown + len(model.output), seed)
    return Adversarial(
        *learners(model, judge, run.training, settings),
        settings,
        seed=seed,
        name=name,
        losses=losses,
        beside=weights,
        noise_channels=run.noise_channels,
        xla=xla,
    )


def _losses(
    run: DecompositionRun, maps: ShardSet, scales: "Normalization", outputs: tuple[str, ...]
) -> tuple[Any, dict[str, float]]:
    """The losses of the outputs, and the weights of those that are of no single output."""
    from skyweave.training import spectral_losses
    from skyweave.training.losses import mean_absolute_errors, mean_squared_errors, together

    parts: list[Losses] = [
        mean_absolute_errors if run.losses.fidelity == "l1" else mean_squared_errors
    ]
    deviations = {field: std for field, (_, std) in scales.moments.items()}
    weights = {}
    if run.losses.spectrum:
        of_outputs = {field: deviations[field] for field in outputs}
        parts.append(
            spectral_losses.spectrum_difference(
                maps.grid, default_bins(maps.grid), of_outputs, ell=run.losses.spectrum_ell
            )
        )
        weights["spectrum"] = run.losses.spectrum
    if run.losses.energy:
        stokes = _energy_fields(run)
        parts.append(spectral_losses.energy_difference(deviations, **stokes))
        weights["energy"] = run.losses.energy
    return together(*parts), weights


def _energy_fields(run: DecompositionRun) -> dict[str, str]:
    """The fields whose power is compared: Q and U of the inputs, E and B of the targets first."""
    fields = {"q": run.inputs, "u": run.inputs}
    fields |= dict.fromkeys("eb", (*run.targets, *run.inputs))
    return {
        stokes: next(field for field in names if field.startswith(f"{stokes}_"))
        for stokes, names in fields.items()
    }


def _read_by_losses(run: DecompositionRun, targets: Sequence[str]) -> tuple[str, ...]:
    """Fields that losses need beside the targets."""
    fields = _energy_fields(run).values() if run.losses.energy else ()
    return tuple(field for field in fields if field not in targets)


def _left_open(
    first: "TrainedNetwork | None", maps: ShardSet, numbers: np.ndarray, targets: Sequence[str]
) -> dict[str, Any]:
    """What the base of a flow is made of: band powers of what means leave open, in maps' units.

    Of the validation set: where a network was trained it leaves less than elsewhere.
    """
    bins, found = default_bins(maps.grid), {}
    if first is not None:
        found = decompose(first, read_inputs(first, maps, numbers), numbers)[0]
    powers = {}
    for field in targets:
        truth = maps.read(field, numbers)
        means = found.get(field, np.zeros_like(truth))
        powers[field] = residual_power(means, truth, maps.grid, bins).mean(axis=0).tolist()
    return {
        "powers": powers,
        "size_deg": maps.size_deg,
        "pixels": maps.pixels,
        "taper_deg": taper_deg(maps),
    }


def _base(values: Mapping[str, Any], scales: "Normalization") -> ColoredNoise:
    """Noise of that power, of normalized maps."""
    grid = PatchGrid(values["size_deg"], values["pixels"])
    taper, bins = cosine_taper(grid, values["taper_deg"]), default_bins(grid)
    spectra = {
        field: unfolded(np.array(power) / scales.moments[field][1] ** 2, grid, bins, taper)
        for field, power in values["powers"].items()
    }
    return ColoredNoise.of_spectra(spectra, taper, grid)


def _with_gains(
    run: DecompositionRun, maps: ShardSet, numbers: np.ndarray, network: "TrainedNetwork"
) -> "keras.Model":
    """The network with gains behind its outputs, learned on these realizations."""
    from skyweave.networks.fourier_layers import set_gains, with_gains

    assert run.filter != "none"
    # A mean of samples has less power than each of them.
    count = 1 if run.filter == "power" else None
    found, _ = decompose(network, read_inputs(network, maps, numbers), numbers, count)
    bins = default_bins(maps.grid)
    gains = {
        field: fit_gains(found[field], maps.read(field, numbers), maps.grid, bins, run.filter)
        for field in network.card.outputs
    }
    model = with_gains(network.model, maps.size_deg, centres(maps.grid, bins).tolist())
    set_gains(model, gains)
    return model


def read_inputs(
    network: "TrainedNetwork", maps: ShardSet, numbers: np.ndarray
) -> dict[str, np.ndarray]:
    """The fields that a network takes, (n, y, x) each."""
    fields = [field for field in network.card.inputs if field in maps.fields]
    return {field: maps.read(field, numbers) for field in fields}


def decompose(
    network: "TrainedNetwork",
    inputs: Mapping[str, np.ndarray],
    numbers: np.ndarray,
    samples: int | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs (n, y, x) of a decomposition network in their units, and samples (samples, n, y, x).

    With samples, as many as the card says or at most `samples`, the outputs are their means. Noise
    is drawn by the patches' `numbers` and the seed of the network.
    """
    from skyweave.networks.card import predict

    card = network.card
    samples = min(card.settings.get("samples", 0), samples or np.inf)
    if card.settings.get("method") == "flow":
        found = _flow_samples(network, inputs, numbers, samples)
    elif card.settings.get("noise_channels"):
        names = [name for name in card.inputs if name.startswith("noise_")]
        shape, each = (card.pixels, card.pixels, len(names)), []
        for sample in range(samples):
            keys = ((card.seed, "sample", sample, int(number)) for number in numbers)
            noise = np.stack([white_noise(1.0, shape, *key) for key in keys])
            drawn = {name: noise[..., place] for place, name in enumerate(names)}
            each.append(predict(network, {**inputs, **drawn}))
        found = {field: np.stack([one[field] for one in each]) for field in card.outputs}
    else:
        return predict(network, inputs), {}
    return {field: maps.mean(axis=0, dtype=np.float32) for field, maps in found.items()}, found


def _flow_samples(
    network: "TrainedNetwork",
    inputs: Mapping[str, np.ndarray],
    numbers: np.ndarray,
    samples: int,
) -> dict[str, np.ndarray]:
    """Samples (samples, n, y, x) of a flow network's outputs."""
    from skyweave.networks.flow import Sampler

    card, scales = network.card, network.card.normalization
    noise = _base(card.data["base"], scales)
    sampler = Sampler(network.model, card.settings["flow"]["steps"])
    fields = [field for field in card.inputs if field in inputs]
    found = {
        field: np.empty((samples, len(numbers), card.pixels, card.pixels), np.float32)
        for field in card.outputs
    }
    for start in range(0, len(numbers), _CHUNK):
        rows = slice(start, start + _CHUNK)
        x = np.stack([scales.apply(field, inputs[field][rows]) for field in fields], axis=-1)
        drawn = [noise.draw(samples, card.seed, "sample", int(n)) for n in numbers[rows]]
        for field, maps in sampler(x, np.stack(drawn, axis=1)).items():
            found[field][:, rows] = scales.undo(field, maps)
    return found


def predict_run(
    network: str | Path,
    *,
    shards: Sequence[str | Path],
    split: str | Path,
    out: str | Path,
    threads: int,
    estimated: Sequence[str | Path] = (),
) -> None:
    """Decompose the test set; write inputs, truth, prediction, samples and estimates.

    `network` is a file, `estimated` are shards of what was estimated from the dataset. All in the
    fields' units; the file is one of `data.predictions`.
    """
    from skyweave.networks.card import load_network
    from skyweave.training.runtime import prepare

    prepare(0, threads)
    trained = load_network(Path(network).parent)
    card, maps = trained.card, open_maps(shards, estimated)
    numbers = members(read_split(split), "test")
    inputs = read_inputs(trained, maps, numbers)
    prediction, samples = decompose(trained, inputs, numbers)
    channel = channel_of((*card.inputs, *maps.fields), maps.fields)
    methods = estimates(maps, numbers, channel, card.outputs)
    write_predictions(
        out,
        {
            "input": inputs,
            "truth": {field: maps.read(field, numbers) for field in card.outputs},
            "prediction": prediction,
            "samples": samples,
            **{f"estimates/{method}": fields for method, fields in methods.items()},
        },
        realizations=numbers,
        units=maps.units,
        size_deg=maps.size_deg,
        taper_deg=taper_deg(maps),
    )
