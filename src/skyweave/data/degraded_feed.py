"""Batches of images seen through a point-spread function and noise, generated ones among them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property, partial

import numpy as np

from skyweave import seeds
from skyweave.data.feed import Batch, BatchFeed, ahead, white_noise
from skyweave.data.image_feed import Kept, batches, by_band, check, fluxes, turned
from skyweave.errors import UserError
from skyweave.images import psf
from skyweave.images.stretch import Scale


class DegradedFeed:
    """The images of `feed` degraded as inputs, and as they are as truths; stretched by `scale`.

    Inputs (n, y, x, bands) are the fluxes convolved with a Gaussian of `psf_pixels` pixels standard
    deviation plus white noise of rms `noise`, in the images' unit; truths (n, y, x, 1) by band.

    In an `epoch` each image is, with probability `alpha`, one of `generated` (m, y, x, bands),
    fluxes, instead of the real one; with `turns` it is turned by quarters and mirrored; its noise
    is another in each epoch. All this is drawn by (seed, *identity, "mix" or "turn" or "noise",
    epoch, realization). `in_order` the real images alone come as they are, with the same noise each
    time.
    Sets below `cache_bytes` are convolved once and kept in memory, the real and the generated one.

    Raises `UserError` for a feed with noise, or whose targets are not its inputs, for generated
    images of another shape or that are not finite, and where there are none to mix in.
    """

    #: Whether a truth is its input's.
    paired = True

    def __init__(
        self,
        feed: BatchFeed,
        scale: Scale,
        *,
        psf_pixels: float,
        noise: float,
        generated: np.ndarray | None = None,
        alpha: float = 0.0,
        turns: bool,
        seed: int,
        identity: Sequence[str | int],
        cache_bytes: float = 1e9,
    ) -> None:
        check(feed)
        self.feed, self.scale, self.turns = feed, scale, bool(turns)
        self.psf_pixels, self.noise, self.alpha = float(psf_pixels), float(noise), float(alpha)
        self.seed, self.identity = int(seed), tuple(identity)
        self.batch, self.fields = feed.batch, feed.inputs
        self.generated = None if generated is None else self._checked(generated)
        if self.alpha and self.generated is None:
            raise UserError("generated", f"images to mix in with `alpha` {self.alpha:g}", "none")
        self._real = Kept(
            partial(fluxes, feed), feed.realizations.size, self._pair, cache_bytes=cache_bytes
        )
        if self.generated is not None:
            images = self.generated
            self._made = Kept(
                lambda rows: images[rows], len(images), self._pair, cache_bytes=cache_bytes
            )

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that decides the batches."""
        identity = {
            "feed": self.feed.fingerprint,
            "scale": self.scale.to_dict(),
            "psf_pixels": self.psf_pixels,
            "noise": self.noise,
            "generated": self._digest,
            "alpha": self.alpha,
            "turns": self.turns,
            "seed": self.seed,
            "identity": self.identity,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def steps(self) -> int:
        """Whole batches in an epoch."""
        return self.feed.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of an epoch, each of the full size."""
        return ahead(partial(self._batch, epoch), batches(self.feed, epoch, start))

    def in_order(self, start: int = 0) -> Iterator[Batch]:
        """Every realization once, ascending, from batch `start` on; the last may be smaller."""
        return ahead(partial(self._batch, None), batches(self.feed, None, start))

    def size(self, batch: int) -> int:
        """Realizations in that batch of `in_order`; 0 behind the last."""
        return self.feed.size(batch)

    def numbers(self, epoch: int | None, step: int) -> np.ndarray:
        """Realizations of a batch of an epoch, or of `in_order` with None, in its order.

        Those that generated images replace are among them.
        """
        return self.feed.numbers(epoch, step)

    def broken(self, batch: Batch, epoch: int | None, step: int) -> np.ndarray:
        """Those of `numbers` whose images in the batch are not finite."""
        return self.feed.broken(batch, epoch, step)

    @cached_property
    def _digest(self) -> str:
        """SHA-256 of the generated images, hexadecimal; empty where there are none."""
        if self.generated is None:
            return ""
        images = np.ascontiguousarray(self.generated)
        digest = hashlib.sha256(f"{images.shape}".encode())
        digest.update(images.data)
        return digest.hexdigest()

    def _checked(self, generated: np.ndarray) -> np.ndarray:
        images = np.asarray(generated, np.float32)
        shape = (self.feed.shards.pixels,) * 2 + (len(self.fields),)
        if images.ndim != 4 or not len(images) or images.shape[1:] != shape:
            raise UserError("generated", f"images (n, {', '.join(map(str, shape))})", images.shape)
        if not np.isfinite(images).all():
            raise UserError("generated", "finite images", "some that are not")
        return images

    def _pair(self, image: np.ndarray) -> np.ndarray:
        """Image (y, x, bands), fluxes → its convolved fluxes, and itself stretched, as channels.

        The kernel has all symmetries of the square: a turned image convolved is this turned.
        """
        convolved = _convolved(np.moveaxis(image, -1, 0), self.psf_pixels)
        return np.concatenate([np.moveaxis(convolved, 0, -1), self.scale.apply(image)], axis=-1)

    def _batch(self, epoch: int | None, numbers: np.ndarray) -> Batch:
        pairs = self._real(np.searchsorted(self.feed.realizations, numbers))
        if epoch is not None:
            for pair, number in zip(pairs, numbers, strict=True):
                self._vary(pair, epoch, int(number))
        bands = len(self.fields)
        seen, images = pairs[..., :bands], pairs[..., bands:]
        key = "in order" if epoch is None else epoch
        for row, number in enumerate(numbers):
            identity = (*self.identity, "noise", key, int(number))
            seen[row] += white_noise(self.noise, seen.shape[1:], self.seed, *identity)
        return self.scale.apply(seen), by_band(images, self.fields)

    def _vary(self, pair: np.ndarray, epoch: int, number: int) -> None:
        """Put a generated pair in its place, or turn it, as this epoch has it."""
        if self.alpha and self.generated is not None:
            rng = seeds.generator(self.seed, *self.identity, "mix", epoch, number)
            if rng.random() < self.alpha:
                pair[:] = self._made(rng.integers(len(self.generated), size=1))[0]
        if self.turns:
            rng = seeds.generator(self.seed, *self.identity, "turn", epoch, number)
            pair[:] = turned(pair, int(rng.integers(8)))


def degrade(
    images: np.ndarray, *, psf_pixels: float, noise: float, seed: int, identity: Sequence[str | int]
) -> np.ndarray:
    """Images (n, y, x), fluxes, convolved with a Gaussian of `psf_pixels` pixels, plus white noise.

    The noise, of rms `noise` in their unit, is drawn by (seed, *identity, "noise", place in n).
    """
    degraded = np.empty(images.shape, np.float32)
    for place, image in enumerate(images):
        white = white_noise(noise, image.shape, seed, *identity, "noise", place)
        degraded[place] = _convolved(image[None].astype(np.float32), psf_pixels)[0] + white
    return degraded


def coarsen(images: np.ndarray, factor: int) -> np.ndarray:
    """Images (n, y, x) of pixels `factor` times as wide, each the mean of the pixels in it.

    Surface brightness is kept, so that what an image shows changes in size alone.

    Raises `UserError` where the pixels a side are no multiple of `factor`.
    """
    count, *sides = images.shape
    if any(side % factor for side in sides):
        found = " × ".join(map(str, sides))
        raise UserError("pixel_factor", f"a divisor of the images' {found} pixels", factor)
    y, x = (side // factor for side in sides)
    blocks = images.reshape(count, y, factor, x, factor)
    return blocks.mean(axis=(2, 4), dtype=np.float64).astype(images.dtype)


def _convolved(images: np.ndarray, psf_pixels: float) -> np.ndarray:
    """Images (n, y, x) convolved with a Gaussian; 0 pixels leave them."""
    return psf.convolve(images, psf.gaussian(psf_pixels)) if psf_pixels else images
