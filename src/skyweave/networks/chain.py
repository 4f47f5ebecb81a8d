"""Two networks one behind the other.

The second network sees what the first one saw, what it gave, and the analytic E and B of its Q and
U. So can the first undo lensing, the spin-2 transform follow, and the second mend what leaks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from skyweave.data.normalization import Normalization
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.flat.polarization import qu_to_eb
from skyweave.networks.card import Card, TrainedNetwork
from skyweave.networks.fourier_layers import Affine, AnalyticEB, is_gain

#: A symbolic tensor (n, y, x, channels); Keras has no type that mypy knows.
Tensor = Any

#: Names of the two networks within a chain.
FIRST, SECOND = "first", "second"


@keras.saving.register_keras_serializable(package="skyweave")
class Frozen(layers.Layer):
    """A network as it is: in inference mode always, not trainable, and no gradient goes through.

    A network called with `training=False` within another is not: Keras hands the outer call's
    `training` on, and unfreezes what is within a trainable network when it loads it.
    """

    def __init__(self, network: keras.Model, **options: Any) -> None:
        super().__init__(**(options | {"dtype": "float32", "trainable": False}))
        network.trainable = False
        self.network = network

    @property
    def trainable(self) -> bool:
        """Never."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        """Nothing changes."""

    def build(self, input_shape: tuple) -> None:
        """Nothing is left to build."""

    def call(self, x: Tensor) -> dict[str, Tensor]:
        """The network's outputs."""
        outputs = self.network(x, training=False)
        return {name: ops.stop_gradient(values) for name, values in outputs.items()}

    def get_config(self) -> dict[str, Any]:
        """The network's own configuration within."""
        own = {"network": keras.saving.serialize_keras_object(self.network)}
        return super().get_config() | own

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Frozen":
        """From what `get_config` gave."""
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


def extra_channels(outputs: Sequence[str]) -> tuple[str, ...]:
    """Channels that a network with these outputs adds to the inputs of the one behind it.

    All outputs, then E and B of each pair of them: `e_pure` and `b_pure` of `q_pure` and `u_pure`.
    Raises `UserError` where a name would stand for two channels.
    """
    found = (*outputs, *(f"{part}_{sky}" for sky in _pairs(outputs) for part in "eb"))
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        raise UserError("outputs of the first network", "each channel once", ", ".join(twice))
    return found


def analytic_deviations(predictions: Mapping[str, np.ndarray], grid: PatchGrid) -> dict[str, float]:
    """Standard deviations of E and B of each pair of predictions `q_*`, `u_*` (n, y, x)."""
    found: dict[str, float] = {}
    for sky in _pairs(predictions):
        maps = qu_to_eb(predictions[f"q_{sky}"], predictions[f"u_{sky}"], grid)
        found |= {f"{part}_{sky}": float(np.std(m)) for part, m in zip("eb", maps, strict=True)}
    return found


def chain(
    first: TrainedNetwork,
    second: keras.Model,
    inputs: Sequence[str],
    normalization: Normalization,
    deviations: Mapping[str, float],
    *,
    frozen: bool,
    keep_first: bool = False,
) -> keras.Model:
    """Network from normalized maps (n, y, x, inputs) to the outputs of `second`.

    `normalization` is that of `inputs`, among which are all of the first network's: it gets them
    in its own card's. `second` takes `inputs`, then `extra_channels` of the card's outputs: the
    outputs as they are, normalized by the card, E and B in units of `deviations`. The chain holds
    copies of both networks, with their weights. With `frozen` the first stays as it is; otherwise
    both learn, and what is frozen within the first stays so. With `keep_first` the chain also gives
    those outputs of the first network that the second has not, in `normalization`. Raises
    `UserError` for an input, a scale or a deviation that is missing and channels that do not fit.
    """
    card, inputs = first.card, tuple(inputs)
    extra = extra_channels(card.outputs)
    _check(card, second, inputs, extra, deviations)
    image = keras.Input((card.pixels, card.pixels, len(inputs)), name="inputs")
    network = _copy(first.model, FIRST)
    seen = _seen(image, card, inputs, normalization)
    found = (Frozen(network, name=FIRST) if frozen else network)(seen)
    channels = [image, *(found[name] for name in card.outputs)]
    for sky in _pairs(card.outputs):
        channels.append(_analytic(found, sky, card, deviations))
    joined = layers.Concatenate(dtype="float32", name="channels")(channels)
    outputs = dict(_copy(second, SECOND)(joined))
    if keep_first:
        for name in card.outputs:
            if name not in outputs:
                outputs[name] = _affine(card.normalization, normalization, [name], f"{name}_kept")(
                    found[name]
                )
    return keras.Model(image, outputs, name="chain")


def start_from(model: keras.Model, other: keras.Model) -> None:
    """Give a network the weights of another one with the same layers, frozen or not.

    Weights are told by the names of their layers. Gains, which come after training, are left out
    where one of the two has none. Raises `UserError` where the rest does not fit, and changes
    nothing then.
    """
    own, others = _weights(model), _weights(other)
    for name in own.keys() ^ others.keys():
        if is_gain(name):
            own.pop(name, None)
            others.pop(name, None)
    for here, there, where in ((own, others, "start"), (others, own, "network")):
        missing = [name for name in here if name not in there]
        if missing:
            raise UserError(f"weights of the {where}", missing[0], f"{len(missing)} missing")
    for name, variable in own.items():
        if tuple(variable.shape) != tuple(others[name].shape):
            expected = f"{name} of shape {tuple(variable.shape)}"
            raise UserError("weights of the start", expected, tuple(others[name].shape))
    for name, variable in own.items():
        variable.assign(others[name].value)


def _pairs(names: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """What follows `q_` and `u_` in names that hold both."""
    return [name[2:] for name in names if name.startswith("q_") and f"u_{name[2:]}" in names]


def _check(
    card: Card,
    second: keras.Model,
    inputs: tuple[str, ...],
    extra: tuple[str, ...],
    deviations: Mapping[str, float],
) -> None:
    for name in card.inputs:
        if name not in inputs:
            raise UserError("inputs", f"the first network's {name}", ", ".join(inputs))
    for name in extra[len(card.outputs) :]:
        if not deviations.get(name, 0) > 0:
            raise UserError(f"deviation of {name}", "a positive one", deviations.get(name))
    shape = (None, card.pixels, card.pixels, len(inputs) + len(extra))
    if tuple(second.input_shape) != shape:
        names = ", ".join((*inputs, *extra))
        expected = f"{shape}: {names}"
        raise UserError("input of the second network", expected, tuple(second.input_shape))


def _copy(model: keras.Model, name: str) -> keras.Model:
    """The same functional network under another name, with variables of its own."""
    copy = model.__class__.from_config({**model.get_config(), "name": name})
    start_from(copy, model)
    return copy


def _seen(
    image: Tensor, card: Card, inputs: tuple[str, ...], normalization: Normalization
) -> Tensor:
    """The first network's inputs, in its normalization, of the chain's."""
    own = {name: normalization.moments.get(name) for name in card.inputs}
    alike = own == {name: card.normalization.moments[name] for name in card.inputs}
    if alike and card.inputs == inputs:
        return image
    channels = [inputs.index(name) for name in card.inputs]
    layer = _affine(normalization, card.normalization, card.inputs, "first_inputs", channels)
    return layer(image)


def _affine(
    known: Normalization,
    wanted: Normalization,
    names: Sequence[str],
    layer: str,
    channels: Sequence[int] | None = None,
) -> Affine:
    """From one normalization of some fields to another."""
    for moments in (known.moments, wanted.moments):
        missing = [name for name in names if name not in moments]
        if missing:
            raise UserError("normalization", f"one of {', '.join(moments)}", repr(missing[0]))
    pairs = [(known.moments[name], wanted.moments[name]) for name in names]
    scales = [std / other for (_, std), (_, other) in pairs]
    offsets = [(mean - other) / std for (mean, _), (other, std) in pairs]
    return Affine(scales, offsets, channels, name=layer)


def _analytic(
    found: Mapping[str, Tensor], sky: str, card: Card, deviations: Mapping[str, float]
) -> Tensor:
    """E and B (n, y, x, 2) of the first network's Q and U, in units of their deviations."""
    names = [f"{part}_{sky}" for part in "qu"]
    moments = [card.normalization.moments[name] for name in names]
    joined = layers.Concatenate(dtype="float32", name=f"qu_{sky}")([found[name] for name in names])
    units = Affine([std for _, std in moments], [mean for mean, _ in moments], name=f"units_{sky}")
    eb = AnalyticEB(card.pixels, name=f"eb_{sky}")(units(joined))
    scales = [1 / deviations[f"{part}_{sky}"] for part in "eb"]
    return Affine(scales, [0.0, 0.0], name=f"scaled_{sky}")(eb)


def _weights(layer: Any, path: str = "") -> dict[str, keras.Variable]:
    """All weights by the names of the layers that hold them, whether these are frozen or not."""
    if isinstance(layer, Frozen):
        return _weights(layer.network, path)
    if isinstance(layer, keras.Model):
        within: dict[str, keras.Variable] = {}
        for one in layer.layers:
            within |= _weights(one, f"{path}{one.name}/")
        return within
    found: dict[str, keras.Variable] = {}
    for number, variable in enumerate(layer.weights):
        name = f"{path}{variable.name}"
        found[name if name not in found else f"{name}:{number}"] = variable
    return found
