"""A trained network on disk: the `.keras` file and the card that says what it is."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np

from skyweave import files
from skyweave.data.normalization import Normalization
from skyweave.errors import UserError
from skyweave.networks.flow import MEAN
from skyweave.networks.variance import SUFFIX

WEIGHTS = "network.keras"
CARD = "card.json"
FORMAT = "skyweave network 1"

#: Modules whose layers a file may hold; Keras knows them once they are imported.
_LAYERS = tuple(
    f"skyweave.networks.{name}"
    for name in (
        *("parts", "fourier_layers", "chain", "partial_conv", "style_layers", "diffusion"),
        "prior",
    )
)


@dataclass(frozen=True)
class Card:
    """What a trained network takes and gives, and where it comes from."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    units: Mapping[str, str]
    normalization: Normalization
    size_deg: float
    pixels: int
    seed: int
    #: The training set: name, provenance, numbers of realizations, fingerprint.
    data: Mapping[str, Any] = field(default_factory=dict)
    #: The sections `network` and `training` of the run.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Losses at the best epoch, and what else the trainer knows.
    metrics: Mapping[str, Any] = field(default_factory=dict)
    #: Random numbers that the outputs are made of, of a network without inputs.
    latent: int = 0

    @property
    def uncertain(self) -> tuple[str, ...]:
        """Outputs whose variance the network predicts too, by `network.uncertainty`."""
        return self.outputs if self.settings.get("network", {}).get("uncertainty") else ()


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its card, ready to predict."""

    model: keras.Model
    card: Card


def save_network(folder: str | os.PathLike, model: keras.Model, card: Card) -> None:
    """Write `network.keras` and `card.json` into `folder`, each atomically, the card last.

    Raises `UserError` for a card that does not describe `model`.
    """
    folder = Path(folder)
    _check_card(folder / CARD, card, model)
    with files.atomic(folder / WEIGHTS) as temporary:
        model.save(temporary)
    values = {
        "format": FORMAT,
        "network": model.name,
        "parameters": model.count_params(),
        "inputs": list(card.inputs),
        "outputs": list(card.outputs),
        "units": {name: card.units[name] for name in (*card.inputs, *card.outputs)},
        "normalization": card.normalization.to_dict(),
        "grid": {"size_deg": card.size_deg, "pixels": card.pixels},
        **({"latent": card.latent} if card.latent else {}),
        "seed": card.seed,
        "data": dict(card.data),
        "settings": dict(card.settings),
        "metrics": dict(card.metrics),
        "versions": files.versions("keras", "tensorflow", "tensorflow-cpu", "jax", "numpy")
        | {"backend": keras.backend.backend()},
        "file": WEIGHTS,
        "sha256": files.sha256(folder / WEIGHTS),
    }
    files.write_text(folder / CARD, json.dumps(values, indent=1) + "\n")


def load_network(folder: str | os.PathLike) -> TrainedNetwork:
    """Read what `save_network` wrote; no code from the file is run.

    Raises `UserError` where a file is missing, altered or not of this format.
    """
    card_path, weights_path = Path(folder) / CARD, Path(folder) / WEIGHTS
    for path in (card_path, weights_path):
        if not path.is_file():
            raise UserError(path, "a trained network", "no such file")
    try:
        values = json.loads(card_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(card_path, "JSON", error) from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(card_path, f"format {FORMAT!r}", "another")
    found = files.sha256(weights_path)
    if found != values.get("sha256"):
        raise UserError(weights_path, f"sha256 {values.get('sha256')} of its card", found)
    card = _card(card_path, values)
    for name in _LAYERS:
        import_module(name)
    try:
        model = keras.saving.load_model(weights_path, compile=False, safe_mode=True)
    except (OSError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(weights_path, "a Keras network that loads in safe mode", first) from None
    _check_card(card_path, card, model)
    return TrainedNetwork(model, card)


def _card(path: Path, values: Mapping[str, Any]) -> Card:
    try:
        return Card(
            inputs=tuple(values["inputs"]),
            outputs=tuple(values["outputs"]),
            units=dict(values["units"]),
            normalization=Normalization.from_dict(values["normalization"]),
            size_deg=float(values["grid"]["size_deg"]),
            pixels=int(values["grid"]["pixels"]),
            seed=int(values["seed"]),
            data=dict(values["data"]),
            settings=dict(values["settings"]),
            metrics=dict(values["metrics"]),
            latent=int(values.get("latent", 0)),
        )
    except KeyError as error:
        raise UserError(path, f"an entry {error}", "none") from None
    except (TypeError, ValueError) as error:
        raise UserError(path, "a card of this format", error) from None


def _check_card(path: Path, card: Card, model: keras.Model) -> None:
    shape: tuple[int | None, ...] = (None, card.pixels, card.pixels, len(card.inputs))
    if card.latent:
        shape = (None, card.latent)
    if tuple(model.input_shape) != shape:
        raise UserError(path, f"the network's input {tuple(model.input_shape)}", shape)
    outputs = {*card.outputs, *(name + SUFFIX for name in card.uncertain)}
    if card.settings.get("method") == "flow":
        outputs |= {name + MEAN for name in card.outputs}
    if set(model.output) != outputs:
        raise UserError(path, f"the network's outputs {sorted(model.output)}", sorted(outputs))
    for name in (*card.inputs, *card.outputs):
        if name not in card.normalization.moments:
            raise UserError(path, f"the normalization of {name!r}", "none")
        if name not in card.units:
            raise UserError(path, f"the unit of {name!r}", "none")


def predict(
    network: TrainedNetwork | str | os.PathLike,
    maps: Mapping[str, np.ndarray],
    batch: int = 32,
) -> dict[str, np.ndarray]:
    """Outputs (n, y, x) float32 in their units from input maps (n, y, x) in theirs.

    Beside an output whose variance is predicted lies its standard deviation, `<output>_sigma`, in
    the same unit. `network` may be the folder of a trained network. Raises `UserError` for an input
    that is missing, of another shape than the network's, or not finite.
    """
    if not isinstance(network, TrainedNetwork):
        network = load_network(network)
    card = network.card
    count = _check_maps(card, maps)
    names = (*card.outputs, *(f"{name}_sigma" for name in card.uncertain))
    outputs = {name: np.empty((count, card.pixels, card.pixels), np.float32) for name in names}
    for start in range(0, count, batch):
        rows = slice(start, start + batch)
        x = np.stack([card.normalization.apply(f, maps[f][rows]) for f in card.inputs], axis=-1)
        found = network.model(x, training=False)
        for name in card.outputs:
            outputs[name][rows] = card.normalization.undo(name, _map(found[name]))
        for name in card.uncertain:
            deviation = np.exp(0.5 * _map(found[name + SUFFIX]))
            outputs[f"{name}_sigma"][rows] = card.normalization.moments[name][1] * deviation
    return outputs


def _map(tensor: Any) -> np.ndarray:
    """(n, y, x) of a network's output (n, y, x, 1)."""
    return np.asarray(keras.ops.convert_to_numpy(tensor)[..., 0])


def _check_maps(card: Card, maps: Mapping[str, np.ndarray]) -> int:
    """Number of maps in inputs that are fit for the network."""
    count = None
    for name in card.inputs:
        if name not in maps:
            raise UserError("maps", f"the network's input {name!r}", ", ".join(maps) or "none")
        shape = np.shape(maps[name])
        count = shape[0] if count is None and shape else count
        if shape != (count, card.pixels, card.pixels):
            expected = f"shape ({count}, {card.pixels}, {card.pixels})"
            raise UserError(f"maps[{name!r}]", expected, shape)
        if not np.isfinite(maps[name]).all():
            raise UserError(f"maps[{name!r}]", "finite values", "some that are not")
    return int(count or 0)
