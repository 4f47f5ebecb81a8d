"""What an instrument makes of the sky: each channel's foregrounds, beam and noise."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyweave.config import Channel
from skyweave.flat.beam import gaussian_beam
from skyweave.flat.fourier import coarsen_modes, forward, inverse
from skyweave.flat.grid import PatchGrid
from skyweave.simulation.beams import at_modes, hfi_window, read_window
from skyweave.simulation.foregrounds import foreground_modes
from skyweave.simulation.noise import hits_scale, noise_map, read_hits
from skyweave.simulation.normals import Random


@dataclass(frozen=True)
class Area:
    """What is simulated, and the patch in its middle."""

    #: The grid of the simulation.
    fine: PatchGrid
    #: The same area on the patch's pixels.
    coarse: PatchGrid
    patch: PatchGrid

    @classmethod
    def around(cls, patch: PatchGrid, margin: int, oversample: int) -> "Area":
        """A patch with `margin` pixels on every side, its pixels `oversample` times finer."""
        pixels = patch.pixels + 2 * margin
        size_deg = patch.size_deg * pixels / patch.pixels
        coarse = PatchGrid(size_deg, pixels) if margin else patch
        return cls(PatchGrid(size_deg, pixels * oversample), coarse, patch)

    def cut(self, maps: np.ndarray) -> np.ndarray:
        """The patch out of maps (..., y, x) on the `coarse` grid."""
        margin = (self.coarse.pixels - self.patch.pixels) // 2
        inside = slice(margin, self.coarse.pixels - margin)
        return maps[..., inside, inside]


class Instrument:
    """The channels that observe an area; `hfi` is the instrument model of Planck HFI.

    Raises `UserError` for a beam's or a hit map's file that makes no sense.
    """

    def __init__(
        self, channels: Mapping[str, Channel], area: Area, hfi: str | Path | None = None
    ) -> None:
        self._channels, self._area = channels, area
        self._window = {name: beam_window(c, area.fine.ell, hfi) for name, c in channels.items()}
        self._scale = {
            name: hits_scale(read_hits(c.hits_path, area.patch.pixels)) if c.hits_path else None
            for name, c in channels.items()
        }

    def observe(
        self,
        sky: Mapping[str, np.ndarray],
        random: Callable[[str], Random],
        fields: Collection[str],
    ) -> dict[str, np.ndarray]:
        """Observed patches (y, x) in µK of those of `fields` that are t, q or u of a channel.

        sky: t, q and u, as far as needed, on the area's fine grid. `random` gives the generator of
        a component, noise_q_obs for example. Residual foregrounds are periodic on the area, also
        where that is part of a curved sky.
        """
        area, found = self._area, {}
        modes: dict[str, np.ndarray] = {}
        for name, channel in self._channels.items():
            wanted = [s for s in "tqu" if f"{s}_{name}" in fields]
            foreground = self._foreground(random, name) if {"q", "u"} & set(wanted) else {}
            for stokes in wanted:
                seen, window = sky[stokes], self._window[name]
                if window is not None or area.fine != area.coarse or stokes in foreground:
                    if stokes not in modes:
                        modes[stokes] = forward(seen, area.fine)
                    total = modes[stokes]
                    if stokes in foreground:
                        total = total + foreground[stokes]
                    seen = total if window is None else total * window
                    if area.fine != area.coarse:
                        seen = coarsen_modes(seen, area.coarse)
                    seen = inverse(seen, area.coarse)
                seen = area.cut(seen)
                if channel.noise_uk_arcmin > 0:
                    noise = self._noise(random(f"noise_{stokes}_{name}"), name, stokes)
                    noise += seen
                    seen = noise
                found[f"{stokes}_{name}"] = seen
        return found

    def _foreground(self, random: Callable[[str], Random], name: str) -> dict[str, np.ndarray]:
        """Modes of a channel's residual foregrounds in Q and U on the fine grid, if it has any."""
        channel = self._channels[name]
        if channel.foreground_dl_80 == 0:
            return {}
        return foreground_modes(
            random(f"foreground_e_{name}"),
            random(f"foreground_b_{name}"),
            self._area.fine,
            channel.foreground_dl_80,
            channel.foreground_slope,
        )

    def _noise(self, random: Random, name: str, stokes: str) -> np.ndarray:
        channel, area = self._channels[name], self._area
        level, knee, slope = channel.noise_uk_arcmin, channel.knee_ell, channel.knee_slope
        if stokes != "t":
            level, knee, slope = level * np.sqrt(2), channel.knee_ell_pol, channel.knee_slope_pol
        if knee > 0:
            noise = area.cut(noise_map(random, area.coarse, level, knee_ell=knee, slope=slope))
        else:
            noise = noise_map(random, area.patch, level)
        scale = self._scale[name]
        return noise if scale is None else noise * scale


def beam_window(channel: Channel, ell: np.ndarray, hfi: str | Path | None) -> np.ndarray | None:
    """b_ell of a channel's beam at `ell`, None without a beam."""
    if channel.beam_arcmin > 0:
        return gaussian_beam(ell, channel.beam_arcmin)
    if channel.beam_path is not None:
        return at_modes(read_window(channel.beam_path), ell)
    if channel.beam_hfi_ghz is not None:
        if hfi is None:
            raise ValueError("Expected the instrument model's file for a beam of HFI.")
        return at_modes(hfi_window(hfi, channel.beam_hfi_ghz), ell)
    return None
