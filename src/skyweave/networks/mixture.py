"""A mixture of normal laws that latents are drawn by, as a layer in front of a decoder."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from skyweave.networks.parts import Tensor

#: Least variance of a latent's mean over images that tell anything by it (Burda et al. 2016,
#: arXiv:1509.00519).
_ACTIVE = 0.01

#: What the layer is called in a decoder.
NAME = "mixture"


@keras.saving.register_keras_serializable("skyweave")
class Mixture(layers.Layer):
    """Independent normal numbers (n, latent + 1) to latents (n, latent) of `components` laws.

    The last number picks the law, by its place in its own distribution; the others, times the law's
    `factors`, lie about its mean. None of the weights is trained: `shares` (components,), `means`
    (components, latent) and `factors` (components, latent, latent), whose products with their
    transposes are the covariances. Until they are assigned all laws are independent normal ones.
    """

    def __init__(self, components: int, **more: Any) -> None:
        super().__init__(**more)
        self.components = components

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        count, latent = self.components, input_shape[-1] - 1

        def weight(name: str, *shape: int, initializer: Any = "zeros") -> Any:
            return self.add_weight(shape=shape, initializer=initializer, trainable=False, name=name)

        even, one = keras.initializers.Constant(1 / count), np.eye(latent, dtype=np.float32)
        self.shares = weight("shares", count, initializer=even)
        self.means = weight("means", count, latent)
        self.factors = weight("factors", count, latent, latent)
        self.factors.assign(np.broadcast_to(one, (count, latent, latent)))

    def call(self, numbers: Tensor) -> Tensor:
        """(n, latent + 1) → (n, latent)."""
        place = 0.5 * (1 + ops.erf(numbers[:, -1:] / np.sqrt(2)))
        edges = ops.cumsum(self.shares)[:-1]
        law = ops.sum(ops.cast(place >= edges, "int32"), axis=1)
        about = ops.matmul(ops.take(self.factors, law, axis=0), numbers[:, :-1, None])
        return ops.take(self.means, law, axis=0) + about[..., 0]

    def get_config(self) -> dict[str, Any]:
        """Settings from which the layer is built again."""
        return {**super().get_config(), "components": self.components}


def lead(decoder: keras.Model, laws: Mapping[str, np.ndarray]) -> keras.Model:
    """`decoder`, from latents (n, latent), behind a mixture: from numbers (n, latent + 1).

    `laws` are the mixture's weights, as `fit` gives them.
    """
    numbers = keras.Input((decoder.input_shape[1] + 1,), name="numbers")
    layer = Mixture(len(laws["shares"]), dtype="float32", name=NAME)
    found = decoder(layer(numbers))
    for name, value in laws.items():
        getattr(layer, name).assign(value)
    return keras.Model(numbers, {name: found[name] for name in decoder.output})


def fit(
    means: np.ndarray,
    deviations: np.ndarray,
    components: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Weights of `Mixture`: the likeliest for latents (n, latent).

    They are known as independent normal numbers of these `means` and `deviations`: one is drawn for
    each by `rng`. Latents that tell nothing of their image are left independent of the others,
    with mean 0 and deviation 1.
    """
    from sklearn.mixture import GaussianMixture

    latent = means.shape[1]
    active = np.flatnonzero(means.var(axis=0) > _ACTIVE)
    laws = {
        "shares": np.full(components, 1 / components, np.float32),
        "means": np.zeros((components, latent), np.float32),
        "factors": np.tile(np.eye(latent, dtype=np.float32), (components, 1, 1)),
    }
    if active.size:
        drawn = means + deviations * rng.standard_normal(means.shape)
        state = int(rng.integers(2**31))
        mixture = GaussianMixture(components, init_params="k-means++", random_state=state)
        mixture.fit(drawn[:, active])
        laws["shares"][:] = mixture.weights_
        laws["means"][:, active] = mixture.means_
        square = (slice(None), active[:, None], active)
        laws["factors"][square] = np.linalg.cholesky(mixture.covariances_)
    return laws
