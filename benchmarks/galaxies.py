"""Morphology of images: on two cores."""

import time

import numpy as np

from benchmarks.record import Measured
from skyweave.images.sersic import Profile, render
from skyweave.seeds import generator
from skyweave.statistics.morphology import morphology

PIXELS = 64
IMAGES = 600
BLOCKS = 3


def images(count: int, pixels: int = PIXELS) -> np.ndarray:
    """Sérsic profiles (count, y, x) of all shapes, float32."""
    made = np.empty((count, pixels, pixels), np.float32)
    for number in range(count):
        rng = generator(1, "benchmark", number)
        x, y = rng.uniform(-pixels / 10, pixels / 10, 2)
        profile = Profile(
            x_arcsec=x,
            y_arcsec=y,
            radius_arcsec=rng.uniform(pixels / 16, pixels / 6),
            index=rng.uniform(1, 4),
            axis_ratio=rng.uniform(0.4, 1),
            angle=rng.uniform(0, np.pi),
            flux=1000.0,
        )
        made[number] = render(profile, pixels, 1.0)
    return made


def two_cores(*, pixels: int = PIXELS, count: int = IMAGES, blocks: int = BLOCKS) -> Measured:
    """Images a second that two processes measure, and one."""
    sample = images(count, pixels)
    morphology(sample[:1])
    seconds = np.empty((blocks, 2))
    for block in range(blocks):
        for threads in (2, 1):
            start = time.perf_counter()
            morphology(sample, threads=threads)
            seconds[block, threads - 1] = time.perf_counter() - start
    one, both = count / np.median(seconds, axis=0)
    return Measured(
        ours=float(both),
        peer=float(one),
        ratio=float(both / one),
        unit="images/s",
        note=f"Morphology by statmorph of {count} images of {pixels}² pixels by two processes and "
        "by one. The clock of the two runs while they start and load statmorph; the one has it "
        "loaded. Twice as fast is the most.",
        peer_command="",
        n=blocks,
    )


BENCHMARKS = {"morphology_two_cores": two_cores}
