"""Generation: images of galaxies made by a network, of random numbers alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
#: Training images whose latents tell the law of new ones', and that of those of a grid.
_CODED, _CODED_FOR_GRID = 20_000, 2000
#: Fewest of them for each law of a mixture.
_LATENTS_A_LAW = 5


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
    trained = members(parts, "train")
    if run.vae.mixture is not None:
        most = min(_CODED, len(trained) * (8 if run.augment.turns else 1)) // _LATENTS_A_LAW
        if run.vae.mixture > most:
            expected = f"at most {most}, for {len(trained)} training images"
            raise UserError(f"runs.{name}.vae.mixture", expected, run.vae.mixture)
    coded = partial(_coded, run, maps, trained, scale, seed, name)
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
        # With a mixture one more picks the law.
        latent=0
        if run.network.name == "diffusion"
        else run.network.latent + (run.vae.mixture is not None),
        feed=lambda feed, part, scales: ImageFeed(feed, scale, turns=run.augment.turns),
        normalize=False,
        watch=partial(_keep_grid, run, name, seed, coded),
        finish=lambda trained: _generator(trained.model, run, name, seed, coded, _CODED),
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


#: Stretched images (n, y, x, bands) of the training set, as many as asked for, some at once.
_Coded = Callable[[int], Iterator[np.ndarray]]


def _coded(
    run: GenerationRun,
    maps: ShardSet,
    numbers: np.ndarray,
    scale: Scale,
    seed: int,
    name: str,
    count: int,
) -> Iterator[np.ndarray]:
    """`count` or more stretched training images, turned as those of the training are if these are.

    Of a larger set some, of a smaller one all there are: each once, or in some of its turns.
    """
    rng = seeds.generator(seed, name, "coded")
    chosen = np.sort(rng.permutation(numbers)[:count])
    times = min(-(-count // len(chosen)), 8) if run.augment.turns else 1
    turns = np.argsort(rng.random((len(chosen), 8)), axis=1)[:, :times]
    if not run.augment.turns:
        turns[:] = 0
    for first in range(0, len(chosen), _CHUNK):
        part = chosen[first : first + _CHUNK]
        images = np.stack([scale.apply(maps.read(field, part)) for field in run.fields], axis=-1)
        pairs = zip(images, turns[first : first + _CHUNK], strict=True)
        yield np.stack([turned(image, turn) for image, each in pairs for turn in each])


def _generator(
    model: "keras.Model", run: GenerationRun, name: str, seed: int, coded: _Coded, most: int
) -> "keras.Model":
    """What makes images, of a method's product: of an autoencoder its decoder.

    A mixture in front of it is fitted to the latents of up to `most` training images.
    """
    if run.network.name != "vae":
        return model
    if run.vae.mixture is None:
        return model.decoder
    from skyweave.networks import mixture

    images = coded(max(most, _LATENTS_A_LAW * run.vae.mixture))
    known = [model.encoder.predict_on_batch(some_images) for some_images in images]
    laws = mixture.fit(
        np.concatenate([one["mean"] for one in known]),
        np.exp(np.concatenate([one["log_variance"] for one in known]) / 2),
        run.vae.mixture,
        seeds.generator(seed, name, "mixture"),
    )
    return mixture.lead(model.decoder, laws)


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
    numbers = model.input_shape[1]
    make = _decoder(model, run) if run.network.name == "vae" else _styled(model, run, seed)
    made = []
    for first in range(0, count, chunk):
        # Whole chunks: those of another size have other noise and another rounding.
        latents = np.stack(
            [
                seeds.generator(seed, *identity, number).standard_normal(numbers, np.float32)
                for number in range(first, first + chunk)
            ]
        )
        outputs = make(latents, (*identity, first))
        made.append(np.concatenate([np.asarray(outputs[f]) for f in run.fields], axis=-1))
    return np.concatenate(made)[:count]


#: Images by band of latents (n, latent), with what is drawn for this identity.
_Make = Callable[[np.ndarray, tuple[str | int, ...]], Mapping[str, Any]]


def _decoder(model: "keras.Model", run: GenerationRun) -> _Make:
    # Not the number that picks a law.
    factors = np.ones(model.input_shape[1], np.float32)
    factors[: run.network.latent] = run.truncation
    return lambda latents, _: model(factors * latents, training=False)


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

    def make(latents: np.ndarray, identity: tuple[str | int, ...]) -> Mapping[str, Any]:
        stylegan2.reseed(model, int(seeds.generator(seed, *identity, "noise").integers(2**31)))
        if run.truncation == 1:
            return model(latents, training=False)
        styles = mean + run.truncation * (mapping(latents, training=False) - mean)
        return synthesis(repeat(styles), training=False)

    return make


def _keep_grid(
    run: GenerationRun,
    name: str,
    seed: int,
    coded: _Coded,
    method: "Method",
    folder: Path,
    epoch: int,
) -> None:
    """Keep images of the same random numbers beside the state, every `grid_epochs`.

    They are drawn without truncation, whose value belongs to no training. A mixture is fitted to
    the latents as they are then.
    """
    for path in _numbered(folder):
        # What a training before this one left from here on.
        if int(path.stem) >= epoch:
            path.unlink()
    if not _is_kept(run, epoch):
        return
    whole = run.model_copy(update={"truncation": 1.0})
    model = _generator(method.model, run, name, seed, coded, _CODED_FOR_GRID)
    images = draw(model, whole, _GRID, seed, name, "grid", chunk=_GRID)
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
