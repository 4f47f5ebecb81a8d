"""Simulated patches a second: against pixell, on two cores, and against the number of pixels."""

import inspect
import textwrap
import time
from collections.abc import Callable
from functools import lru_cache, partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np

from benchmarks.record import Measured
from benchmarks.timing import Side, paired
from skyweave import config
from skyweave.flat.grid import PatchGrid
from skyweave.flat.taper import cosine_taper
from skyweave.simulation.patch import Simulator
from skyweave.simulation.spectra import SpectraTable, compute

#: What both sides make of each patch.
FIELDS = ("t_obs", "q_obs", "u_obs", "e_obs", "b_obs", "tau", "kappa")
NOISE_UK_ARCMIN = 5.0
#: Pixels a side of a patch of 5 degrees; others have pixels of the same size.
PIXELS = 128
PIXEL_DEG = 5.0 / PIXELS
#: Width of the taper at each edge, of the side.
TAPER = 0.3

BLOCKS = 9


@lru_cache(maxsize=1)
def spectra() -> SpectraTable:
    """The spectra that both sides are given."""
    return compute(config.Spectra())


def simulator(table: SpectraTable, pixels: int) -> Simulator:
    """skyweave's side, with all that is the same for every patch."""
    size_deg = PIXEL_DEG * pixels
    return Simulator(
        [table],
        config.Grid(size_deg=size_deg, pixels=pixels),
        config.Effects(null_fraction=0, taper_deg=TAPER * size_deg),
        {"obs": config.Channel(noise_uk_arcmin=NOISE_UK_ARCMIN)},
        seed=1,
        dataset="benchmark",
        fields=FIELDS,
    )


def ours(simulator: Simulator, start: int, count: int) -> None:
    """Make `count` patches with skyweave."""
    for _ in simulator.realize(range(start, start + count)):
        pass


class Pixell:
    """The same patches made with pixell, as its users write it: CAR maps, spectra by multipole.

    Geometry, taper and everything else that does not change are made here, before the clock runs.
    `rand_map` brings spectra to the modes and takes the square root of their matrix anew at each
    call; with `tuned` the geometry is the plainest, and the steps of `rand_map` are called instead,
    with roots made here.
    """

    def __init__(self, table: SpectraTable, pixels: int, *, tuned: bool = False) -> None:
        from pixell import enmap, utils

        size_deg = PIXEL_DEG * pixels
        grid = PatchGrid(size_deg, pixels)
        half = size_deg / 2 * utils.degree
        corners = np.array([[-half, half], [half, -half]])
        proj = "plain" if tuned else "car"
        self.shape, self.wcs = enmap.geometry(corners, shape=(pixels, pixels), proj=proj)
        cl, zero = table.cl, np.zeros(table.lmax + 1)
        teb = [[cl["tt"], cl["te"], zero], [cl["te"], cl["ee"], zero], [zero, zero, cl["bb"]]]
        self.power = {"teb": np.array(teb), "kk": cl["kk"], "tautau": cl["tautau"]}
        ell = enmap.modlmap(self.shape, self.wcs)
        self.roots = None
        if tuned:
            self.roots = {name: self._root(power, ell) for name, power in self.power.items()}
        square = ell**2
        square[0, 0] = 1
        self.kappa_to_phi = 2 / square
        self.pixmap = enmap.pixmap(self.shape, self.wcs)
        level = NOISE_UK_ARCMIN / grid.pixel_arcmin
        self.noise = level * np.sqrt([1, 2, 2])[:, None, None]
        self.taper = cosine_taper(grid, TAPER * size_deg)

    def _root(self, power: np.ndarray, ell: np.ndarray) -> np.ndarray:
        from pixell import enmap

        matrix = power if power.ndim == 3 else power[None, None]
        multipoles = np.arange(power.shape[-1])
        at_modes = [[np.interp(ell, multipoles, cl, right=0) for cl in row] for row in matrix]
        modes = ell.size / enmap.area(self.shape, self.wcs)
        return enmap.multi_pow(np.array(at_modes) * modes, 0.5)

    def rand_map(self, name: str, components: int) -> np.ndarray:
        """A Gaussian map (components, y, x) of the spectra `name`: T, Q, U for three."""
        from pixell import enmap

        if self.roots is None:
            shape = (components, *self.shape) if components > 1 else self.shape
            return enmap.rand_map(shape, self.wcs, self.power[name], spin=[0, 2])
        shape = (components, *self.shape)
        modes = enmap.map_mul(self.roots[name], enmap.rand_gauss_harm(shape, self.wcs))
        return enmap.harm2map(modes, spin=[0, 2])

    def patch(self) -> dict[str, np.ndarray]:
        """One patch: each of `FIELDS` (y, x)."""
        from pixell import enmap, lensing

        tqu = self.rand_map("teb", 3)
        kappa = self.rand_map("kk", 1).reshape(self.shape)
        tau = self.rand_map("tautau", 1).reshape(self.shape)
        phi = enmap.ifft(enmap.fft(kappa) * self.kappa_to_phi).real
        positions = self.pixmap + enmap.grad_pix(phi)
        tqu = lensing.displace_map(tqu * np.exp(-tau), positions, order=5, border="cyclic")
        tqu += enmap.rand_gauss(tqu.shape, self.wcs) * self.noise
        tqu *= self.taper
        _, e, b = enmap.harm2map(enmap.map2harm(tqu, spin=[0, 2]), spin=0)
        return dict(zip(FIELDS, (*tqu, e, b, tau * self.taper, kappa * self.taper), strict=True))

    def patches(self, start: int, count: int) -> None:
        """Make `count` patches."""
        for _ in range(count):
            self.patch()

    def command(self) -> str:
        """The calls of pixell that make a patch."""
        methods: list[Callable[..., object]] = [self.rand_map, self.patch]
        return "\n\n".join(textwrap.dedent(inspect.getsource(method)) for method in methods)


def versus_pixell(
    table: SpectraTable | None = None,
    *,
    tuned: bool = False,
    pixels: int = PIXELS,
    blocks: int = BLOCKS,
    counts: tuple[int, int] = (40, 5),
) -> Measured:
    """Milliseconds a patch, ours and pixell's, on one core."""
    table = table or spectra()
    peer = Pixell(table, pixels, tuned=tuned)
    mine, theirs = paired(
        Side(partial(ours, simulator(table, pixels)), counts[0]),
        Side(peer.patches, counts[1]),
        blocks,
    )
    note = (
        f"Patches of {pixels}² pixels of {60 * PIXEL_DEG:.4g}′, one core: Gaussian T, Q, U, "
        "kappa and tau of given spectra, screened by tau, lensed by a spline of order 5 (pixell's "
        "has its knots at the pixels, ours twice as dense), white noise, tapered, and E and B of "
        "that. Geometry and taper are made before the clock runs. Blocks of "
        f"{counts[0]} patches of ours and {counts[1]} of pixell's. "
    )
    if tuned:
        note += (
            "Here pixell is tuned by hand: the plainest geometry, and instead of `rand_map` its "
            "steps, with square roots of the spectra's matrices made before the clock runs."
        )
    else:
        note += (
            "`rand_map` brings the spectra to the modes and takes the square root of their matrix "
            "anew at each call."
        )
    return Measured(
        ours=1e3 * mine,
        peer=1e3 * theirs,
        ratio=theirs / mine,
        unit="ms/patch",
        note=note,
        peer_command=peer.command(),
        n=blocks,
    )


def two_cores(
    table: SpectraTable | None = None,
    *,
    pixels: int = PIXELS,
    blocks: int = BLOCKS,
    count: int = 200,
) -> Measured:
    """Patches a second of two processes at once, and of one."""
    table = table or spectra()
    workers = [_Worker(table, pixels, count) for _ in range(2)]
    try:
        for worker in workers:
            worker.wait()
        rates = np.array(
            [
                [_rate(workers[:number], block, count) for number in (2, 1)]
                for block in range(blocks)
            ]
        )
    finally:
        for worker in workers:
            worker.stop()
    both, one = np.median(rates, axis=0)
    return Measured(
        ours=float(both),
        peer=float(one),
        ratio=float(both / one),
        unit="patches/s",
        note=f"Two processes at once against one, each making {count} patches of {pixels}² pixels "
        "a block on one thread; the clock runs until the last has finished. Twice as fast is "
        "the most.",
        peer_command="",
        n=blocks,
    )


class _Worker:
    """A process that makes `count` patches whenever it is told the first one's number."""

    def __init__(self, table: SpectraTable, pixels: int, count: int) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        # With its end held here too, a process that dies would be waited for without end; and so
        # it would if it died over arguments that overfill the pipe by which it is started.
        theirs.close()
        self._pipe.send((table, pixels, count))

    def start(self, first: int) -> None:
        self._pipe.send(first)

    def wait(self) -> None:
        self._pipe.recv()

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def _work(pipe: Connection) -> None:
    table, pixels, count = pipe.recv()
    made = simulator(table, pixels)
    ours(made, 0, count)
    pipe.send("warm")
    while True:
        ours(made, pipe.recv(), count)
        pipe.send("done")


def _rate(workers: list[_Worker], block: int, count: int) -> float:
    """Patches a second of workers that start together."""
    start = time.perf_counter()
    for number, worker in enumerate(workers):
        worker.start((2 * block + number + 1) * count)
    for worker in workers:
        worker.wait()
    return len(workers) * count / (time.perf_counter() - start)


def cost(
    pixels: int, table: SpectraTable | None = None, *, blocks: int = BLOCKS, patches: int = 160
) -> Measured:
    """Milliseconds a patch of pixels² against N² log N from 64 pixels; `patches` of 64² a block."""
    table = table or spectra()

    def side(size: int) -> Side:
        return Side(partial(ours, simulator(table, size)), max(patches * 64**2 // size**2, 2))

    mine, smallest = paired(side(pixels), side(64), blocks)
    if pixels == 64:
        smallest = mine
    law = smallest * (pixels / 64) ** 2 * np.log(pixels) / np.log(64)
    note = (
        f"Patches of {pixels}² pixels of {60 * PIXEL_DEG:.4g}′, one core, against the time of 64² "
        "grown as N² log N, as the Fourier transforms do: at 1 or more the cost grows no faster."
    )
    return Measured(
        ours=1e3 * mine,
        peer=1e3 * float(law),
        ratio=float(law / mine),
        unit="ms/patch",
        note=note + (" At 64² itself the ratio is 1 by definition." if pixels == 64 else ""),
        peer_command="",
        n=blocks,
    )


BENCHMARKS = {
    "simulation_vs_pixell": versus_pixell,
    "simulation_vs_pixell_tuned": partial(versus_pixell, tuned=True),
    "simulation_two_cores": two_cores,
    **{f"simulation_cost_{pixels}": partial(cost, pixels) for pixels in (64, 128, 256, 512)},
}
