"""Generation: images of galaxies made by a network, of random numbers alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skyweave import seeds
from skyweave.config import GenerationRun
from skyweave.data.image_feed import ImageFeed, turned
from skyweave.data.shards import ShardSet, write_shard
from skyweave.data.split import members, some
from skyweave.errors import UserError
from skyweave.files import atomic, sha256
from skyweave.images.stretch import Scale
from skyweave.tasks.generation_latents import generator
from skyweave.tasks.images import read_stretch
from skyweave.tasks.recipe import Recipe

if TYPE_CHECKING:
    import keras

    from skyweave.networks.card import TrainedNetwork
    from skyweave.training.method import Method

#: Images that are made at once, and whose noise is drawn together.
_CHUNK = 64
#: Latents whose styles make the mean one.
_STYLES = 10_000
#: Images of a grid of samples, and how a folder keeps them.
_GRID, _GRIDS = 16, "grids"
#: Most training images that tell their mean, and how far they lie from it.
_MEASURED = 2000


def recipe(
    run: GenerationRun,
    maps: ShardSet,
    parts: pd.DataFrame,
    name: str,
    seed: int,
    files: Mapping[str, str | Path],
) -> Recipe:
    """How a run's generator is trained; `files` hold the `stretch` of its dataset."""
    scale = read_stretch(files["stretch"])
    build, method = _KINDS[run.network.name]
    mean, rms = np.zeros(0), 1.0
    if run.network.name == "diffusion":
        numbers = some(parts, "train", _MEASURED, seed, run.dataset, "moments")
        mean, rms = _moments(run, maps, numbers, scale)
    setup = _Setup(run, maps.pixels, seed, name, mean, run.diffusion.sigma_data or rms)
    made_by = partial(
        generator,
        run=run,
        maps=maps,
        numbers=members(parts, "train"),
        scale=scale,
        seed=seed,
        name=name,
    )
    return Recipe(
        inputs=run.fields,
        targets=run.fields,
        method=lambda model, scales: method(model, setup),
        score=_no_score,
        fields=run.fields,
        worth=lambda table, field: np.nan,
        largest=False,
        known={"stretch": scale.to_dict()},
        build=lambda scales: build(setup),
        further=("sigma",) if run.network.name == "diffusion" else (),
        latent=0 if run.network.name == "diffusion" else run.network.latent,
        feed=lambda feed, part, scales: ImageFeed(feed, scale, turns=run.augment.turns),
        normalize=False,
        watch=partial(_keep_grid, run, name, seed, partial(made_by, for_grid=True)),
        finish=lambda trained: made_by(trained.model),
        identity={"stretch": scale.to_dict(), "turns": run.augment.turns},
    )


def _no_score(network: "TrainedNetwork") -> pd.DataFrame:
    raise AssertionError("epochs of a generation are compared by their loss")


def _moments(
    run: GenerationRun, maps: ShardSet, numbers: np.ndarray, scale: Scale
) -> tuple[np.ndarray, float]:
    """Mean (y, x, bands) of some stretched images, and the rms of their differences from it."""
    images = np.stack([scale.apply(maps.read(field, numbers)) for field in run.fields], axis=-1)
    mean = images.mean(axis=0, dtype=float)
    if run.augment.turns:
        mean = np.mean([turned(mean, number) for number in range(8)], axis=0)
    squares = [np.mean(np.square(image - mean)) for image in images]
    return mean.astype(np.float32), float(np.sqrt(np.mean(squares)))


@dataclass(frozen=True)
class _Setup:
    """What generators are built and trained with."""

    run: GenerationRun
    pixels: int
    seed: int
    name: str
    #: Mean of the stretched images, and their rms about it: for a diffusion model alone.
    mean: np.ndarray
    sigma_data: float


def _build_stylegan2(setup: _Setup) -> "keras.Model":
    from skyweave.networks import stylegan2
    from skyweave.training.style import compose

    network = setup.run.network
    mapping = stylegan2.mapping(
        network.latent, network.mapping_layers, setup.seed, width=network.width
    )
    synthesis = stylegan2.synthesis(
        setup.pixels,
        setup.run.fields,
        mapping.output_shape[-1],
        network.width,
        setup.seed,
        kind=network.synthesis,
        pixel_noise=network.pixel_noise,
    )
    return compose(mapping, synthesis)


def _train_stylegan2(model: "keras.Model", setup: _Setup) -> "Method":
    from skyweave.networks import stylegan2
    from skyweave.training.runtime import numerics
    from skyweave.training.style import StyleBased, learners

    judge = stylegan2.discriminator(
        setup.pixels, len(setup.run.fields), setup.run.network.width, setup.seed
    )
    return StyleBased(
        *learners(model, judge, setup.run.training, setup.run.style),
        setup.run.style,
        seed=setup.seed,
        name=setup.name,
        xla=numerics(setup.run.training).xla,
        augment=setup.run.augment if setup.run.augment.adaptive else None,
    )


def _build_vae(setup: _Setup) -> "keras.Model":
    from skyweave.networks import vae

    return vae.decoder(
        setup.pixels,
        setup.run.fields,
        setup.run.network.latent,
        setup.run.network.width,
        setup.seed,
    )


def _train_vae(model: "keras.Model", setup: _Setup) -> "Method":
    from skyweave.networks import vae
    from skyweave.training.method import learner
    from skyweave.training.runtime import numerics
    from skyweave.training.variational import Autoencoder, Variational

    network = setup.run.network
    encoder = vae.encoder(setup.pixels, setup.run.fields, network.latent, network.width, setup.seed)
    joint = Autoencoder(encoder, model, setup.run.vae.deviation)
    return Variational(
        learner(joint, setup.run.training),
        setup.run.vae,
        seed=setup.seed,
        name=setup.name,
        xla=numerics(setup.run.training).xla,
    )


def _build_diffusion(setup: _Setup) -> "keras.Model":
    from skyweave.networks import diffusion

    return diffusion.build(
        setup.pixels,
        setup.run.fields,
        setup.run.network.width,
        setup.seed,
        sigma_data=setup.sigma_data,
        mean=setup.mean,
    )


def _train_diffusion(model: "keras.Model", setup: _Setup) -> "Method":
    from skyweave.training.diffusion import DiffusionTraining
    from skyweave.training.method import learner
    from skyweave.training.runtime import numerics

    return DiffusionTraining(
        learner(model, setup.run.training),
        setup.run.diffusion,
        sigma_data=setup.sigma_data,
        seed=setup.seed,
        name=setup.name,
        xla=numerics(setup.run.training).xla,
    )


#: Builds the network of a kind, and gives its training.
_KINDS: dict[
    str, tuple[Callable[[_Setup], "keras.Model"], Callable[["keras.Model", _Setup], "Method"]]
] = {
    "stylegan2": (_build_stylegan2, _train_stylegan2),
    "vae": (_build_vae, _train_vae),
    "diffusion": (_build_diffusion, _train_diffusion),
}


def draw(
    model: "keras.Model",
    run: GenerationRun,
    count: int,
    seed: int,
    *identity: str | int,
    chunk: int = _CHUNK,
) -> np.ndarray:
    """Stretched images (count, y, x, bands) float32 of a run's generator, `chunk` at once.

    Each image is drawn by (seed, *identity, number), and the noise within StyleGAN2's layers by
    that of its chunk: the first images are the same however many are made, a diffusion model's but
    for rounding.
    """
    if run.network.name == "diffusion":
        from skyweave.networks import diffusion

        return diffusion.sample(model, count, run.diffusion, seed, *identity, batch=chunk)
    make = _decoder(model, run) if run.network.name == "vae" else _styled(model, run, seed)
    made = []
    for first in range(0, count, chunk):
        # Whole chunks: those of another size have other noise and another rounding.
        latents = np.stack(
            [
                seeds.generator(seed, *identity, number).standard_normal(
                    run.network.latent, np.float32
                )
                for number in range(first, first + chunk)
            ]
        )
        made.append(make(latents, (*identity, first)))
    return np.concatenate(made)[:count]


#: Images (n, y, x, bands) of latents (n, latent), with what is drawn for this identity.
_Make = Callable[[np.ndarray, tuple[str | int, ...]], np.ndarray]


def _joined(outputs: Mapping[str, Any], run: GenerationRun) -> Any:
    """Images (n, y, x, bands) of those by band."""
    from keras import ops

    return ops.concatenate([outputs[field] for field in run.fields], axis=-1)


def _decoder(model: "keras.Model", run: GenerationRun) -> _Make:
    from skyweave.networks.flow import compiled

    function = compiled(model, lambda latents: _joined(model(latents, training=False), run))
    return lambda latents, _: function(run.truncation * latents)


def _styled(model: "keras.Model", run: GenerationRun, seed: int) -> _Make:
    """Outputs of StyleGAN2, its styles drawn towards their mean (1812.04948) by `truncation`."""
    from keras import ops

    from skyweave.networks import stylegan2

    _, mapping, repeat, synthesis = model.layers
    mean = 0.0
    if run.truncation != 1:
        many = seeds.generator(seed, "mean style").standard_normal(
            (_STYLES, run.network.latent), np.float32
        )
        mean = ops.mean(mapping(many, training=False), axis=0)

    def make(latents: np.ndarray, identity: tuple[str | int, ...]) -> np.ndarray:
        stylegan2.reseed(model, int(seeds.generator(seed, *identity, "noise").integers(2**31)))
        if run.truncation == 1:
            return np.asarray(_joined(model(latents, training=False), run))
        styles = mean + run.truncation * (mapping(latents, training=False) - mean)
        return np.asarray(_joined(synthesis(repeat(styles), training=False), run))

    return make


def _keep_grid(
    run: GenerationRun,
    name: str,
    seed: int,
    made_by: Callable[["keras.Model"], "keras.Model"],
    method: "Method",
    folder: Path,
    epoch: int,
) -> None:
    """Keep images of the same random numbers beside the state, every `grid_epochs`.

    They are drawn without truncation, whose value belongs to no training, by what `made_by` makes
    of the product of then.
    """
    for path in _numbered(folder):
        # What a training before this one left from here on.
        if int(path.stem) >= epoch:
            path.unlink()
    if not _is_kept(run, epoch):
        return
    whole = run.model_copy(update={"truncation": 1.0})
    images = draw(made_by(method.model), whole, _GRID, seed, name, "grid", chunk=_GRID)
    with atomic(folder / _GRIDS / f"{epoch:06d}.npy") as temporary:
        np.save(temporary, images)


def generate(
    run: GenerationRun,
    network: str | Path,
    *,
    samples: str | Path,
    grids: str | Path,
    state: str | Path,
    name: str,
    seed: int,
    threads: int,
) -> None:
    """Make a run's images: `samples` becomes a shard of fluxes, by band.

    `grids` becomes the images of fixed random numbers along the training, an .npz of `epochs`
    (k,) and stretched `images` (k, n, y, x, bands), from what the training left in `state`.
    """
    from skyweave.networks.card import load_network
    from skyweave.training.runtime import prepare

    prepare(0, threads)
    trained = load_network(Path(network).parent)
    card = trained.card
    scale = Scale.from_dict(card.data["stretch"])
    images = draw(trained.model, run, run.samples, seed, name, "samples")
    # A wild number may be finite and its flux not.
    with np.errstate(over="ignore"):
        fluxes = {field: scale.undo(images[..., band]) for band, field in enumerate(run.fields)}
    if not all(np.isfinite(one).all() for one in fluxes.values()):
        raise UserError(network, "a generator whose images are finite", "values that are not")
    write_shard(
        samples,
        fluxes,
        realizations=np.arange(run.samples),
        size_deg=card.size_deg,
        units={field: card.units[field] for field in run.fields},
        provenance={
            "seed": seed,
            "run": name,
            "network": sha256(network),
            "truncation": run.truncation,
            "settings": card.data["provenance"].get("settings", {}),
        },
    )
    kept = [(int(path.stem), np.load(path)) for path in _grids(Path(state), run)]
    with atomic(grids) as temporary:
        np.savez(
            temporary,
            epochs=np.array([epoch for epoch, _ in kept], np.int64),
            images=np.array([images for _, images in kept], np.float32),
        )


def _grids(state: Path, run: GenerationRun) -> Sequence[Path]:
    """Grids of the epochs that a run asks for, the first ones first."""
    return [path for path in _numbered(state) if _is_kept(run, int(path.stem))]


def _numbered(state: Path) -> Sequence[Path]:
    """All grids in the folder of a state, in order."""
    return sorted((state / _GRIDS).glob("[0-9]*.npy"))


def _is_kept(run: GenerationRun, epoch: int) -> bool:
    last = run.training.epochs
    return epoch == last or (epoch < last and epoch % run.grid_epochs == 0)
